// Layer: what the planner and the executor need to know of a layer. One file per layer beside this one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/activations.h"
#include "ops/dense.h"
#include "ops/weight_pieces.h"
#include "runtime/parallel.h"

namespace trainstep {

// A layer as Python describes it.
struct LayerSpec {
    std::string kind;
    std::size_t in = 0, out = 0;
    Activation activation{};
    bool bias = true;
    double rate = 0;                 // of dropout
    double momentum = 0.1, eps = 0;  // of normalisation
    bool affine = true;
    std::vector<LayerSpec> body, shortcut;  // of a residual block; no shortcut: the identity
};

// Which rows of a batch a call is for; and whether it is a pass of training.
struct BatchRows {
    std::size_t first, count, batch;
    bool training;
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

// A part of a layer's parameters: of a matrix these rows and columns, of a vector (one row) these elements.
struct ParameterShare {
    Range rows, columns, elements;

    Range rows_of(const std::vector<std::size_t>& shape) const { return shape.size() == 1 ? Range{0, 1} : rows; }
    Range columns_of(const std::vector<std::size_t>& shape) const { return shape.size() == 1 ? elements : columns; }
};

// A layer maps x (batch, in) to y (batch, out), and ends in an activation (identity where it has none). Its parameters live in the
// program's arenas, and so do its buffers, the arrays that are not trained. place() tells where, in the order of parameters() and
// buffers(); all are zero then, and the layer puts into its buffers what they begin as.
template <class T>
class Layer {
  public:
    virtual ~Layer() = default;
    virtual std::vector<ArraySpec> parameters() const = 0;
    virtual std::vector<ArraySpec> buffers() const { return {}; }
    virtual void place(const std::vector<T*>& weights, const std::vector<T*>& buffers) = 0;

    // Room for what is kept of each row of a batch.
    virtual void reserve([[maybe_unused]] std::size_t batch) {}

    // Each row of y follows from the same row of x alone (but see sees_batch), so that threads can take rows each for themselves.
    // z: where what the activation is applied to stays, laid out as y, or with activation.of_slope its derivative there; null where
    // it need not. `units`: only these columns of y; all of them where the layer has no units.
    virtual void forward(Rows<T> y, T* z, Rows<const T> x, const BatchRows& rows, Range units) const = 0;

    // Comes before each backward, which asks for backward_input or not.
    virtual void begin_backward() {}
    // dz: the gradient with respect to what the layer's activation is applied to. dx = the gradient with respect to x times the
    // derivative of `below`: the dz of the layer below, which ends in that activation, taken from `source`, laid out as dx. Row by
    // row, as forward; x is what forward had. `units`: columns of dx.
    virtual void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T> x, const T* source, const Activation& below,
                                const BatchRows& rows, Range units) const = 0;

    // Comes before backward_parameter of vectors: what they have in common, of these columns, in one pass over dz and x.
    virtual void backward_columns([[maybe_unused]] Rows<const T> dz, [[maybe_unused]] Rows<const T> x,
                                  [[maybe_unused]] std::size_t batch, [[maybe_unused]] Range columns) {}
    // The gradient of rows and columns of a parameter from all rows of dz and x, the first element of them at g.at; with accumulate
    // it is added to what is there. A vector is one row.
    virtual void backward_parameter(std::size_t parameter, Rows<T> g, Rows<const T> dz, Rows<const T> x, bool accumulate,
                                    std::size_t batch, Range rows, Range columns) const = 0;

    // Whether columns of y, and of dx, can be calculated each for themselves. Only between two layers that have units do rows lie
    // apart; where one has none, they lie end to end.
    virtual bool has_units() const { return false; }

    // Forward in parts, of a layer that has units: its sums over x's columns are cut into chains of so many (0: they are not).
    // forward_chains calculates those over `inputs`, cut at chains, each (rows, out) and `apart` elements behind the one before;
    // forward_from_chains makes y of all of them. Parameters may change in between.
    virtual std::size_t chain() const { return 0; }
    virtual void forward_chains([[maybe_unused]] T* chains, [[maybe_unused]] std::size_t apart, [[maybe_unused]] Rows<const T> x,
                                [[maybe_unused]] std::size_t rows, [[maybe_unused]] Range inputs) const {}
    virtual void forward_from_chains([[maybe_unused]] T* y, [[maybe_unused]] const T* chains, [[maybe_unused]] std::size_t apart,
                                     [[maybe_unused]] std::size_t rows) const {}
    // How many arrays there are room for.
    std::size_t chains() const { return chain() ? (in + chain() - 1) / chain() + 1 : 0; }

    // Whether in training a row of y follows from all rows of x. Then, before forward, what is needed of each column comes from
    // forward_batch, and before backward_input and backward_parameter from backward_batch: threads take columns each for
    // themselves. take_back: forward_batch has not been.
    virtual bool sees_batch() const { return false; }
    virtual void forward_batch([[maybe_unused]] Rows<const T> x, [[maybe_unused]] std::size_t batch,
                               [[maybe_unused]] Range columns) {}
    virtual void backward_batch([[maybe_unused]] Rows<const T> dz, [[maybe_unused]] Rows<const T> x,
                                [[maybe_unused]] std::size_t batch, [[maybe_unused]] Range columns) {}
    virtual void take_back() {}

    // Comes before forward where it is no pass of training.
    virtual void begin_inference() {}
    // Whether forward is then y = x * scale + shift, column by column; column_map gives both, where b is added to x before.
    virtual bool is_map_of_columns() const { return false; }
    virtual void column_map([[maybe_unused]] T* scale, [[maybe_unused]] T* shift, [[maybe_unused]] const T* b) const {}
    // Whether the layer can take such a layer behind it along; fold does so, and forward_folded is forward of both.
    virtual bool folds() const { return false; }
    virtual void fold([[maybe_unused]] const Layer& behind) {}
    virtual void forward_folded([[maybe_unused]] Rows<T> y, [[maybe_unused]] Rows<const T> x,
                                [[maybe_unused]] const BatchRows& rows) const {}

    // Where a layer has a second input, which goes past those before it: y = x + past in place of forward.
    virtual void forward_sum([[maybe_unused]] Rows<T> y, [[maybe_unused]] Rows<const T> x, [[maybe_unused]] Rows<const T> past,
                             [[maybe_unused]] const BatchRows& rows) const {}
    // Whether dx is dz, times the derivative of the activation below.
    virtual bool passes_gradient() const { return is_activation(); }

    // Whether it draws random numbers in training; and before such a pass, what they follow from.
    virtual bool draws() const { return false; }
    virtual void draw([[maybe_unused]] std::uint64_t seed, [[maybe_unused]] std::uint32_t pass) {}
    // Whether y is x where it is no pass of training.
    virtual bool only_trains() const { return false; }

    // Whether the layer is its activation and nothing else.
    virtual bool is_activation() const { return false; }
    // Whether anything on the way back is taken from x.
    virtual bool keeps_x() const { return !is_activation(); }
    // Whether the derivative of the activation is taken from an array of its own, z.
    bool keeps_z() const { return info(activation.kind).of_input || activation.of_slope; }

    // Flops of one row of forward, for the cost model.
    virtual double flops() const = 0;

    std::size_t in = 0, out = 0;
    Activation activation{};
    // Of a layer that multiplies by a weight, its first parameter: where the weight's pieces may be kept from a step to the next.
    virtual WeightPieces* pieces() { return nullptr; }

    MatmulPrecision precision = MatmulPrecision::float32;  // of its products; the program sets it before each pass

  protected:
    // backward_parameter of a vector whose gradient is there.
    static void deliver(T* g, const T* gradient, Range columns, bool accumulate) {
        for (std::size_t j = columns.begin; j < columns.end; ++j, ++g) *g = accumulate ? *g + gradient[j] : gradient[j];
    }
};

// The one list of layers: makes a layer from its description. Throws std::invalid_argument for a kind that does not exist.
template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec);

}  // namespace trainstep
