#include "ops/dense.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

// One thread's speed in a blocked product, for the cost model; a slow level only makes threads pay sooner (bench/bench_dense.py).
constexpr double kFlopsPerNs = 80;

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Cuts `parts` shares into rows x columns of shares, with the least of A and B read twice: the split whose largest share has the
// smallest half-perimeter.
struct Grid {
    int rows, columns;
};
Grid grid_for(int parts, std::size_t m, std::size_t n, std::size_t tile_rows, std::size_t tile_columns) {
    Grid best{parts, 1};
    double least = -1;
    for (int rows = 1; rows <= parts; ++rows) {
        if (parts % rows) continue;
        const int columns = parts / rows;
        const double high = double(ceil_div(ceil_div(m, tile_rows), rows) * tile_rows);
        const double wide = double(ceil_div(ceil_div(n, tile_columns), columns) * tile_columns);
        const double cost = high * wide * 8 + (high + wide);  // the area is the flops; the perimeter is what is packed
        if (least < 0 || cost < least) least = cost, best = {rows, columns};
    }
    return best;
}

}  // namespace

template <class T>
void product(const Gemm<T>& g) {
    const Kernels<T>& k = kernels().of<T>();
    const double ns = 2.0 * double(g.m) * double(g.n) * double(g.k) / kFlopsPerNs * (sizeof(T) / 4.0);
    run_team(threads_for(ns), [&](int part, int parts) {
        const Grid grid = grid_for(parts, g.m, g.n, k.gemm_tile_rows, k.gemm_tile_columns);
        const auto cut = [](std::size_t size, std::size_t tile, int i, int of) {
            const std::size_t at = ceil_div(size, tile) * std::size_t(i) / std::size_t(of) * tile;
            return at < size ? at : size;
        };
        const int row = part / grid.columns, column = part % grid.columns;
        const std::size_t m0 = cut(g.m, k.gemm_tile_rows, row, grid.rows), m1 = cut(g.m, k.gemm_tile_rows, row + 1, grid.rows);
        const std::size_t n0 = cut(g.n, k.gemm_tile_columns, column, grid.columns);
        const std::size_t n1 = cut(g.n, k.gemm_tile_columns, column + 1, grid.columns);
        if (m0 < m1 && n0 < n1) k.gemm(g, m0, m1, n0, n1, static_cast<T*>(thread_scratch(k.gemm_scratch * sizeof(T))));
    });
}

template <class T>
void dense(T* y, const T* x, const T* w, const T* b, Activation activation, std::size_t batch, std::size_t in, std::size_t out) {
    Gemm<T> g{};
    g.c = y, g.ldc = out, g.m = batch, g.n = out, g.k = in;
    g.a = x, g.a_row = in, g.a_k = 1;
    g.b = w, g.b_k = out, g.b_column = 1;
    g.bias = b, g.activation = activation;
    product(g);
}

template <class T>
void dense_backward(T* dx, T* dw, T* db, const T* dz, const T* x, const T* w, Activation below, bool accumulate, std::size_t batch,
                    std::size_t in, std::size_t out) {
    if (dw) {
        Gemm<T> g{};
        g.c = dw, g.ldc = out, g.m = in, g.n = out, g.k = batch, g.accumulate = accumulate;
        g.a = x, g.a_row = 1, g.a_k = in;
        g.b = dz, g.b_k = out, g.b_column = 1;
        product(g);
    }
    if (db) {
        const auto column_sum = kernels().of<T>().column_sum;
        parallel_for(out, 64, 0.1 * double(batch),
                     [=](std::size_t n0, std::size_t n1) { column_sum(db, dz, batch, out, n0, n1, accumulate); });
    }
    if (dx) {
        Gemm<T> g{};
        g.c = dx, g.ldc = in, g.m = batch, g.n = in, g.k = out;
        g.a = dz, g.a_row = out, g.a_k = 1;
        g.b = w, g.b_k = 1, g.b_column = out;
        g.output = x, g.derivative = below;
        product(g);
    }
}

template void product(const Gemm<float>&);
template void product(const Gemm<double>&);
template void dense(float*, const float*, const float*, const float*, Activation, std::size_t, std::size_t, std::size_t);
template void dense(double*, const double*, const double*, const double*, Activation, std::size_t, std::size_t, std::size_t);
template void dense_backward(float*, float*, float*, const float*, const float*, const float*, Activation, bool, std::size_t,
                             std::size_t, std::size_t);
template void dense_backward(double*, double*, double*, const double*, const double*, const double*, Activation, bool, std::size_t,
                             std::size_t, std::size_t);

}  // namespace trainstep
