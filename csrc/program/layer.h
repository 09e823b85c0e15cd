// Layer: what the planner and the executor need to know of a layer. One file per layer beside this one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "kernels/activations.h"
#include "runtime/parallel.h"

namespace trainstep {

// A layer as Python describes it.
struct LayerSpec {
    std::string kind;
    std::size_t in = 0, out = 0;
    Activation activation = Activation::identity;
    bool bias = true;
};

// An array of a layer, a parameter or a buffer: its name within the layer and its shape.
struct ArraySpec {
    std::string name;
    std::vector<std::size_t> shape;

    std::size_t size() const {
        std::size_t n = 1;
        for (std::size_t extent : shape) n *= extent;
        return n;
    }
};

// How a team shares a layer: each thread takes rows of the batch, or columns of y.
enum class Split { rows, columns };

// Shares are cut at multiples of so many elements: a cache line of float32, so that mostly no two threads write to one.
inline constexpr std::size_t kShareGrain = 16;

// What a thread owns of a parameter of shape (rows, columns), or (columns): it computes its gradient and updates it. Under
// Split::columns that is what belongs to its columns of y, and no other thread needs it for forward; under Split::rows, rows.
inline Block owned(Split split, std::size_t rows, std::size_t columns, Team team) {
    if (split == Split::columns) return {{0, rows}, share_of(columns, kShareGrain, team)};
    return {share_of(rows, kShareGrain, team), {0, columns}};
}

// A layer maps x (batch, in) to y (batch, out), and ends in an activation (identity where it has none). Its parameters live in the
// program's arenas, and so do its buffers, the arrays that are not trained. place() tells where, in the order of parameters() and
// buffers(); all are zero then, and the layer puts into its buffers what they begin as.
template <class T>
class Layer {
  public:
    virtual ~Layer() = default;
    virtual std::vector<ArraySpec> parameters() const = 0;
    virtual std::vector<ArraySpec> buffers() const { return {}; }
    virtual void place(const std::vector<T*>& weights, const std::vector<T*>& gradients, const std::vector<T*>& buffers) = 0;

    // Computes a block of y. Each row of y follows from the same row of x alone.
    virtual void forward(T* y, const T* x, Block block) const = 0;

    // dz: the gradient with respect to what the layer's activation is applied to. dx = the gradient with respect to x times
    // below'(x): the dz of the layer below, which ends in the activation `below`. Computes a block of dx.
    virtual void backward_input(T* dx, const T* dz, const T* x, Activation below, Block block) const = 0;

    // The gradients of the parameters from all rows of dz and x; with accumulate they are added to. Each thread of a team computes
    // what it owns.
    virtual void backward_parameters(const T* dz, const T* x, bool accumulate, std::size_t batch, Split split, Team team) const = 0;

    // Whether blocks may be any columns; else they are whole rows.
    virtual bool has_columns() const = 0;

    // Flops of one row of forward, for the cost model.
    virtual double flops() const = 0;

    std::size_t in = 0, out = 0;
    Activation activation = Activation::identity;
};

// The one list of layers: makes a layer from its description. Throws std::invalid_argument for a kind that does not exist.
template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec);

}  // namespace trainstep
