// Layer: what the planner and the executor need to know of a layer. One file per layer beside this one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "kernels/activations.h"

namespace trainstep {

// A layer as Python describes it.
struct LayerSpec {
    std::string kind;
    std::size_t in = 0, out = 0;
    Activation activation = Activation::identity;
    bool bias = true;
};

// A trained array of a layer: its name within the layer and its shape.
struct ParameterSpec {
    std::string name;
    std::vector<std::size_t> shape;

    std::size_t size() const {
        std::size_t n = 1;
        for (std::size_t extent : shape) n *= extent;
        return n;
    }
};

// A layer maps x (batch, in) to y (batch, out), and ends in an activation (identity where it has none). Its parameters live in the
// program's arenas; place() tells where, in the order of parameters().
template <class T>
class Layer {
  public:
    virtual ~Layer() = default;
    virtual std::vector<ParameterSpec> parameters() const = 0;
    virtual void place(const std::vector<T*>& weights, const std::vector<T*>& gradients) = 0;

    virtual void forward(T* y, const T* x, std::size_t batch) const = 0;

    // dz: the gradient with respect to what the layer's activation is applied to. Writes the gradients of the parameters (adds to
    // them with accumulate) and, where dx is not null, dx = the gradient with respect to x times below'(x): the dz of the layer
    // below, which ends in the activation `below`.
    virtual void backward(T* dx, const T* dz, const T* x, Activation below, bool accumulate, std::size_t batch) const = 0;

    std::size_t in = 0, out = 0;
    Activation activation = Activation::identity;
};

// The one list of layers: makes a layer from its description. Throws std::invalid_argument for a kind that does not exist.
template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec);

}  // namespace trainstep
