#include "ops/dense.h"

#include <atomic>

#include "ops/elementwise.h"
#include "runtime/caches.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

// One thread's speed in a blocked product, for the cost model; a slow level only makes threads pay sooner (bench/bench_dense.py).
constexpr double kFlopsPerNs = 80;
constexpr double kReadPerNs = 40, kWrittenPerNs = 20;  // bytes: B, which binds where A has few rows, and C
constexpr double kTileInK = 8;                         // what a tile costs by itself, in elements of k

// A layer of few units after a wide one: its sums are cut into chains, a power of two of them, so that each thread can take some.
constexpr std::size_t kFewUnits = 32, kMostChains = 8, kLeastChain = 32, kChainGrain = 16;
constexpr std::size_t kMostInChain = 256;  // no more than the kernels' kBlockK

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Half of L1, and of L2 a little more than half (the share that was measured at 1 MiB: 512 columns in float32).
GemmBlocks blocks_here() { return {caches().l1 / 2, caches().l2 / 64 * 33}; }

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

// What calculates a product, of the numbers or of their pieces; and how much there is to do, in products of float32.
template <class T>
struct ProductKernel {
    void (*run)(const Gemm<T>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1, const GemmBlocks& blocks,
                T* scratch);
    std::size_t (*scratch)(const GemmBlocks& blocks);
    std::size_t tile_rows, tile_columns;
    double products;
    bool whole_shares;  // rather than in pieces of columns: each would pack all of its rows of A
};
template <class T>
ProductKernel<T> product_kernel(const Gemm<T>& g) {
    if constexpr (sizeof(T) == 4)
        if (g.precision != MatmulPrecision::float32) {
            const KernelTable& k = kernels();
            const int pieces = pieces_of(g.precision);
            return {k.gemm_pieces,
                    k.gemm_pieces_scratch,
                    k.gemm_pieces_tile_rows,
                    k.gemm_pieces_tile_columns,
                    pieces * (pieces + 1) / 2 / k.gemm_pieces_rate,
                    true};
        }
    const Kernels<T>& k = kernels().of<T>();
    return {k.gemm, k.gemm_scratch, k.gemm_tile_rows, k.gemm_tile_columns, 1, false};
}

std::atomic<MatmulPrecision> default_precision{MatmulPrecision::float32};

}  // namespace

void set_matmul_precision(MatmulPrecision precision) { default_precision = precision; }
MatmulPrecision matmul_precision() { return default_precision; }

template <class T>
void product(const Gemm<T>& g) {
    if (g.n == 1 && g.ldc == 1 && g.a_row == 1 && g.a_k != 1 && !g.bias && g.derivative.kind == ActivationKind::identity) {
        // A column whose factors lie along A's rows (dw of a layer of one unit) is the row C^T = B^T @ A^T of the same products.
        Gemm<T> row = g;
        row.m = 1, row.n = g.m, row.ldc = g.m;
        row.a = g.b, row.a_row = 1, row.a_k = g.b_k;
        row.b = g.a, row.b_k = g.a_k, row.b_column = 1;
        return product(row);
    }
    const ProductKernel<T> k = product_kernel(g);
    constexpr std::size_t line = 64 / sizeof(T);  // columns are calculated in whole vectors
    const double flops = 2.0 * double(g.m) * double(ceil_div(g.n, line) * line) * (double(g.k) + kTileInK) * k.products;
    const double read = double(g.k) * double(g.n) * sizeof(T), written = double(g.m) * double(g.n) * sizeof(T);
    const double ns = flops / kFlopsPerNs * (sizeof(T) / 4.0) + read / kReadPerNs + written / kWrittenPerNs;
    const auto block = [&](Range m, Range n) {
        const GemmBlocks blocks = blocks_here();
        void* const scratch = thread_scratch(Scratch::packing, k.scratch(blocks) * sizeof(T));
        k.run(g, m.begin, m.end, n.begin, n.end, blocks, static_cast<T*>(scratch));
    };
    const int threads = threads_for(ns);
    if (threads == 1) return block({0, g.m}, {0, g.n});
    Handout handout;
    run_team(threads, [&](Team team) {
        const Grid grid = grid_for(team.parts, g.m, g.n, k.tile_rows, k.tile_columns);
        const auto rows = [&](int part) { return share_of(g.m, k.tile_rows, {part / grid.columns, grid.rows}); };
        const auto columns = [&](int part) { return share_of(g.n, k.tile_columns, {part % grid.columns, grid.columns}); };
        handout.run(
            team, k.tile_columns, k.whole_shares ? g.n : Handout::least_piece(ns / grid.rows / double(g.n)),
            [&](int part) {
                const Range m = rows(part), n = columns(part);
                return m.begin < m.end ? n.end - n.begin : 0;
            },
            [&](int part, std::size_t begin, std::size_t end) {
                const std::size_t first = columns(part).begin;
                block(rows(part), {first + begin, first + end});
            });
    });
}

// 0: the sums are not cut for threads.
std::size_t chain_of(std::size_t in, std::size_t out) {
    if (out > kFewUnits || in < 2 * kLeastChain) return 0;
    std::size_t chains = kMostChains;
    while (in < chains * kLeastChain) chains /= 2;
    const std::size_t chain = ceil_div(ceil_div(in, chains), kChainGrain) * kChainGrain;
    return chain > kMostInChain ? 0 : chain;
}

template <class T>
void dense_chain(T* chain, Rows<const T> x, const T* w, std::size_t batch, std::size_t out, Range in, MatmulPrecision precision) {
    Gemm<T> g{};
    g.precision = precision;
    g.c = chain, g.ldc = out, g.m = batch, g.n = out, g.k = g.chain = in.end - in.begin;
    g.a = x.at + in.begin, g.a_row = x.stride, g.a_k = 1;
    g.b = w + in.begin * out, g.b_k = out, g.b_column = 1;
    product(g);
}

template <class T>
void dense_from_chains(T* y, const T* chains, std::size_t apart, const T* b, const Activation& f, std::size_t batch, std::size_t in,
                       std::size_t out) {
    Gemm<T> g{};
    g.c = y, g.ldc = out, g.m = batch, g.n = out, g.bias = b, g.activation = activation_call<T>(f);
    kernels().of<T>().sum_chains(g, chains, ceil_div(in, chain_of(in, out)), apart);
}

template <class T>
void dense(Rows<T> y, T* z, Rows<const T> x, const T* w, const T* b, const Activation& f, std::size_t batch, std::size_t in,
           std::size_t out, Range units, WeightProduct how, const T* scale) {
    const bool by_rows = info(f.kind).by_rows;
    Gemm<T> g{};
    g.precision = how.precision, g.packed_b = how.pieces;
    g.c = (z ? z : y.at) + units.begin, g.ldc = y.stride, g.m = batch, g.n = units.end - units.begin, g.k = in;
    g.a = x.at, g.a_row = x.stride, g.a_k = 1;
    g.b = w + units.begin, g.b_k = out, g.b_column = 1;
    g.bias = b ? b + units.begin : nullptr, g.chain = chain_of(in, out);
    if (scale) g.scale = scale + units.begin;
    if (z) g.y = y.at + units.begin;
    if (!by_rows) g.activation = activation_call<T>(f);
    product(g);
    if (by_rows) activation(f, y.at, y.at, batch, out);
}

template <class T>
void dense_backward_weight(Rows<T> dw, Rows<const T> dz, Rows<const T> x, bool accumulate, std::size_t batch, Range in, Range out,
                           MatmulPrecision precision) {
    Gemm<T> g{};
    g.precision = precision;
    g.c = dw.at, g.ldc = dw.stride;
    g.m = in.end - in.begin, g.n = out.end - out.begin, g.k = batch, g.accumulate = accumulate;
    g.a = x.at + in.begin, g.a_row = 1, g.a_k = x.stride;
    g.b = dz.at + out.begin, g.b_k = dz.stride, g.b_column = 1;
    product(g);
}

template <class T>
void dense_backward_bias(T* db, Rows<const T> dz, bool accumulate, std::size_t batch, Range out) {
    const auto column_sum = kernels().of<T>().column_sum;
    parallel_for(out.end - out.begin, 64, 0.1 * double(batch),
                 [=](std::size_t n0, std::size_t n1) { column_sum(db, dz.at + out.begin, dz.stride, batch, n0, n1, accumulate); });
}

template <class T>
void dense_backward_input(Rows<T> dx, Rows<const T> dz, const T* source, const T* w, const Activation& below, std::size_t batch,
                          std::size_t out, Range units, WeightProduct how) {
    const bool by_rows = info(below.kind).by_rows;
    Gemm<T> g{};
    g.precision = how.precision, g.packed_b = how.pieces;
    g.c = dx.at + units.begin, g.ldc = dx.stride, g.m = batch, g.n = units.end - units.begin, g.k = out;
    g.a = dz.at, g.a_row = dz.stride, g.a_k = 1;
    g.b = w + units.begin * out, g.b_k = 1, g.b_column = out;
    g.source = source + units.begin;
    if (!by_rows) g.derivative = derivative_call<T>(below);
    product(g);
    if (by_rows) activation_backward(below, dx.at, dx.at, source, batch, g.n);
}

#define TRAINSTEP_INSTANTIATE(T)                                                                                                  \
    template void product(const Gemm<T>&);                                                                                        \
    template void dense(Rows<T>, T*, Rows<const T>, const T*, const T*, const Activation&, std::size_t, std::size_t, std::size_t, \
                        Range, WeightProduct, const T*);                                                                          \
    template void dense_chain(T*, Rows<const T>, const T*, std::size_t, std::size_t, Range, MatmulPrecision);                     \
    template void dense_from_chains(T*, const T*, std::size_t, const T*, const Activation&, std::size_t, std::size_t,             \
                                    std::size_t);                                                                                 \
    template void dense_backward_weight(Rows<T>, Rows<const T>, Rows<const T>, bool, std::size_t, Range, Range, MatmulPrecision); \
    template void dense_backward_bias(T*, Rows<const T>, bool, std::size_t, Range);                                               \
    template void dense_backward_input(Rows<T>, Rows<const T>, const T*, const T*, const Activation&, std::size_t, std::size_t,   \
                                       Range, WeightProduct);
TRAINSTEP_INSTANTIATE(float)
TRAINSTEP_INSTANTIATE(double)
#undef TRAINSTEP_INSTANTIATE

}  // namespace trainstep
