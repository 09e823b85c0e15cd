// Program: a network planned once over flat memory, then run without allocating.
//
// The planner lays every parameter out in one arena, on cache-line bounds, and its gradient at the same offset of a second one. The
// workspace holds each layer's output and two gradients in flight, for the largest batch seen so far.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "program/layer.h"
#include "runtime/arena.h"

namespace trainstep {

// A parameter in its arenas.
template <class T>
struct Parameter {
    std::string name;  // "0.weight": the layer's index and the name within it
    std::vector<std::size_t> shape;
    std::size_t size;
    T *weight, *gradient;
};

template <class T>
class Program {
  public:
    // Throws std::invalid_argument where neighbours do not fit.
    explicit Program(const std::vector<LayerSpec>& specs);

    std::size_t in() const { return layers_.front()->in; }
    std::size_t out() const { return layers_.back()->out; }
    const std::vector<Parameter<T>>& parameters() const { return parameters_; }

    // The output for x (batch, in); it lies in the workspace, and what backward needs stays there with it. x must live until then.
    const T* forward(const T* x, std::size_t batch);

    // y (batch, out) for any number of rows, in blocks that fit the cache.
    void predict(T* y, const T* x, std::size_t rows);

    // After forward: from dy (batch, out), the gradient with respect to the output, to the gradients of the parameters, and to dx
    // (batch, in) where it is not null. dy is used as workspace and does not keep its values.
    void backward(T* dx, T* dy, bool accumulate);

    // Rows of the last forward, 0 before the first one.
    std::size_t batch() const { return batch_; }
    // Where a loss writes dy: (batch, out) in the workspace.
    T* output_gradient() { return gradients_[0]; }
    // A place in the workspace for an input that must be cast or gathered first: (batch, in).
    T* input_buffer(std::size_t batch) {
        reserve(batch);
        return input_;
    }

    // Held by whoever runs the program; two threads that use one model take turns.
    std::mutex lock;

  private:
    void reserve(std::size_t batch);

    std::vector<std::unique_ptr<Layer<T>>> layers_;
    std::vector<Parameter<T>> parameters_;
    Arena weight_arena_, gradient_arena_, workspace_;

    std::size_t reserved_ = 0;  // rows that the workspace has room for
    T* input_ = nullptr;        // (rows, in)
    std::vector<T*> outputs_;   // one per layer: (rows, layer.out)
    T* gradients_[2] = {};      // (rows, widest layer)

    const T* x_ = nullptr;  // of the last forward
    std::size_t batch_ = 0;
};

}  // namespace trainstep
