// The dense layer on whole arrays: y = f(x @ w + b) and its gradients. x (batch, in), w (in, out), b (out), y (batch, out),
// row-major; the rows of x, y and their gradients may lie apart.
#pragma once

#include <cstddef>

#include "kernels/precision.h"
#include "kernels/table.h"
#include "runtime/parallel.h"

namespace trainstep {

// A row-major array whose rows begin `stride` elements apart.
template <class T>
struct Rows {
    T* at;
    std::size_t stride;
};

// How a product with a weight is calculated, and the weight's pieces where they lie ready (weight_pieces.h).
struct WeightProduct {
    MatmulPrecision precision;
    const void* pieces;

    WeightProduct(MatmulPrecision p, const void* ready = nullptr) : precision(p), pieces(ready) {}
};

// Any product, shared between threads in two dimensions.
template <class T>
void product(const Gemm<T>& g);

// How float32 products are calculated where a call does not say so.
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

// y = activation(x @ w + b); b may be null. z: where x @ w + b stays, laid out as y, or null where it need not; not with an
// activation by rows, whose rows of y lie end to end. `units`: only these columns of y. scale (out): (x @ w) * scale + b; or null.
// precision, here and below: of float alone.
template <class T>
void dense(Rows<T> y, T* z, Rows<const T> x, const T* w, const T* b, const Activation& activation, std::size_t batch,
           std::size_t in, std::size_t out, Range units, WeightProduct how, const T* scale = nullptr);

// The same in parts, of a layer with few units, not with an activation by rows: chains of the sums over x's columns, each by itself
// (batch, out), without bias and activation; and then y from all of them, one `apart` elements behind the other. chain_of: x's
// columns in a chain, or 0.
std::size_t chain_of(std::size_t in, std::size_t out);
template <class T>
void dense_chain(T* chain, Rows<const T> x, const T* w, std::size_t batch, std::size_t out, Range in, MatmulPrecision precision);
template <class T>
void dense_from_chains(T* y, const T* chains, std::size_t apart, const T* b, const Activation& activation, std::size_t batch,
                       std::size_t in, std::size_t out);

// The gradients from dz, the gradient with respect to x @ w + b; or, with accumulate, what is there and they.
//   dw = x^T @ dz: its rows and columns `in` and `out`, with the first of them at dw.at
//   db = sum over the batch of dz: its elements `out`, with the first of them at db
template <class T>
void dense_backward_weight(Rows<T> dw, Rows<const T> dz, Rows<const T> x, bool accumulate, std::size_t batch, Range in, Range out,
                           MatmulPrecision precision);
template <class T>
void dense_backward_bias(T* db, Rows<const T> dz, bool accumulate, std::size_t batch, Range out);

// dx = (dz @ w^T) * below'(...). below: the activation that made x, whose derivative dx is multiplied by on its way to memory, so
// that it leaves as the dz of the layer below; identity for the plain dx. source: what below takes its derivative from, laid out as
// dx (end to end where below goes by rows). `units`: only these columns of dx.
template <class T>
void dense_backward_input(Rows<T> dx, Rows<const T> dz, const T* source, const T* w, const Activation& below, std::size_t batch,
                          std::size_t out, Range units, WeightProduct how);

}  // namespace trainstep
