// The matrix product C = A @ B, blocked, with a prologue (packing) and an epilogue (bias, activation, or an activation's
// derivative).
//
// Every element of C is a sum of chains of fused multiply-adds, each over a block of k, which are added in order. A chain depends
// neither on the tile that an element falls in, nor on whether operands were packed, nor on how C was shared between threads. (Of a
// product of one column a chain is a dot product over vectors: gemv below.)
#pragma once

#include <cstddef>

#include "kernels/activations.h"
#include "kernels/precision.h"

namespace trainstep {

// An activation, or its derivative, with its kernel; identity has none.
template <class T>
struct ActivationCall {
    ActivationKind kind = ActivationKind::identity;
    T parameter = 0;
    ActivationForward<T> kernel = nullptr;
};
template <class T>
struct DerivativeCall {
    ActivationKind kind = ActivationKind::identity;
    T parameter = 0;
    ActivationBackward<T> kernel = nullptr;
};

// C (m, n) = A (m, k) @ B (k, n). C and B or its transpose are row-major; A's strides are free, in elements.
template <class T>
struct Gemm {
    T* c;
    std::size_t ldc;
    const T* a;
    std::size_t a_row, a_k;  // A(i, p) = a[i * a_row + p * a_k]; one of them is 1
    const T* b;
    std::size_t b_k, b_column;  // B(p, j) = b[p * b_k + j * b_column]; one of them is 1
    std::size_t m, n, k;
    std::size_t chain = 0;                                 // elements of k in a chain, at most kBlockK; 0: what block_of_k says
    bool accumulate = false;                               // C += A @ B; not with an epilogue
    MatmulPrecision precision = MatmulPrecision::float32;  // of float alone
    const void* packed_b = nullptr;  // the pieces of all of B, as pack_pieces leaves them; null: each call packs what it needs
    // Epilogue: c = c * scale + bias, y = activation(c). Of an activation by rows that is done elsewhere.
    const T* bias = nullptr;   // (n), or null
    const T* scale = nullptr;  // (n), or null: 1; not without bias
    ActivationCall<T> activation{};
    T* y = nullptr;  // laid out as C; null: it takes C's place
    // Epilogue of a backward product: c = c * derivative'(source), source laid out as C: the gradient goes on through the
    // activation below, which takes its derivative from `source`.
    const T* source = nullptr;
    DerivativeCall<T> derivative{};
};

// How a product is cut for the caches of a core, in bytes. No result depends on it.
struct GemmBlocks {
    std::size_t
        resident_b;  // a block of B so large stays in L1 beside a panel of A: then rows are the outer loop, and A is read once
    std::size_t packed_b;  // a block of B so large stays in L2 when it is packed
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/transpose.h"

namespace trainstep::TRAINSTEP_ISA {

// A tile of C in registers: kTileRows rows of kTileVectors vectors. It takes rows * vectors accumulators, the vectors of B and one
// of A.
inline constexpr int kTileVectors = 2;
inline constexpr int kTileRows = kVectorRegisters == 32 ? 12 : kHasFma ? 6 : 4;
// Few rows (batch 1) leave too few independent chains to hide the latency of an fma, so up to kShortRows rows take wider tiles.
inline constexpr int kShortRows = 3;
inline constexpr int kShortVectors = 4;

// Cache blocks. A panel of B (kBlockK x tile) stays in L1 while the panels of A (kBlockM x kBlockK, in L2) pass by it; the packed
// block of B (kBlockK x columns_of_block) stays in L2 beside them. The sums are cut at kBlockK, so it is the same everywhere.
inline constexpr std::size_t kBlockK = 264;
inline constexpr std::size_t kBlockM = 16 * kTileRows;
template <class T>
inline constexpr std::size_t kTileColumns = kTileVectors * kWidth<T>;
template <class T>
TRAINSTEP_INLINE std::size_t columns_of_block(const GemmBlocks& blocks) {
    const std::size_t tiles = blocks.packed_b / (kBlockK * sizeof(T) * kTileColumns<T>);
    return (tiles > 0 ? tiles : 1) * kTileColumns<T>;
}

// A larger B, which few rows of A meet, is read from end to end. One row on one core of a Zen 4, us before and after: 1024 x 1024
// 120 and 59, 784 x 512 24 and 19; 256 x 256 (256 KB) 2.8 and 3.1.
inline constexpr std::size_t kStreamedB = 256 * 1024;

// Where B's rows are at most so many bytes apart, a panel of it comes from L2 as fast as from L1, and up to kBlockM rows of C do
// not pay for packing. One core of a Zen 4, time packed over time in place, at 64, 128 and 256 rows: k = n = 512 1.07, 1.04, 1.00;
// k = 784, n = 128 1.07, 1.04, -; k = n = 1024 0.99, 0.91, 0.87; k = n = 2048 -, 0.82, 0.84.
inline constexpr std::size_t kNearRows = 2048;

// Multiply-adds of an element from which on a tile's time hides that of fetching C (reasoned).
inline constexpr std::size_t kLongChain = 64;

// A sum over k is cut into the fewest blocks of at most kBlockK, all alike but for the last: elements of one.
TRAINSTEP_INLINE std::size_t block_of_k(std::size_t k) {
    const std::size_t blocks = (k + kBlockK - 1) / kBlockK;
    return blocks <= 1 ? k : ((k + blocks - 1) / blocks + 7) / 8 * 8;
}

template <class T>
inline constexpr std::size_t kPackedA = kBlockM * kBlockK + kWidth<T>;
template <class T>
std::size_t gemm_scratch(const GemmBlocks& blocks) {
    return kPackedA<T> + columns_of_block<T>(blocks) * kBlockK;
}

// How a micro-kernel finds its operands. Vector v of B's row p is at b + (v / kTileVectors) * b_panel + p * b_k + (v %
// kTileVectors) * width.
template <class T>
struct Panels {
    const T* a;
    std::size_t a_row, a_k;
    const T* b;
    std::size_t b_k, b_panel;
    std::size_t k;
};

// What happens to a finished chain on its way to C.
template <class T>
struct Finish {
    bool add;               // to what C holds: a later block of k, or accumulate
    const T *bias, *scale;  // at the tile's first column, or null; set for the last block of k only
    // relu, the one activation that is cheaper here than in a pass of its own: forward, and backward from its output (at the tile,
    // laid out as C) where that is not null.
    bool relu;
    const T* relu_output;
};

// Finished chains on their way to C: rows x vectors of it, of which the last vector has `tail` columns where `partial` says so.
template <class T, int rows, int vectors>
TRAINSTEP_INLINE void finish_tile(Vec<T> (&acc)[rows][vectors], T* c, std::size_t ldc, Tail<T> tail, bool partial,
                                  const Finish<T>& finish) {
    constexpr int width = kWidth<T>;
    // One branch a tile for each thing that can happen on the way to C, not one a vector.
    const auto for_each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) f(acc[r][v], r, v);
        }
    };
    const auto load_vector = [&](const T* x, int v) __attribute__((always_inline)) {
        return partial && v + 1 == vectors ? load_partial(x + v * width, tail) : load(x + v * width);
    };
    if (finish.add) for_each([&](Vec<T>& x, int r, int v) __attribute__((always_inline)) { x = x + load_vector(c + r * ldc, v); });
    if (finish.bias) {
        Vec<T> bias[vectors], scale[vectors];
        for (int v = 0; v < vectors; ++v) bias[v] = load_vector(finish.bias, v);
        if (finish.scale) {
            for (int v = 0; v < vectors; ++v) scale[v] = load_vector(finish.scale, v);
            for_each([&](Vec<T>& x, int, int v) __attribute__((always_inline)) { x = fma(x, scale[v], bias[v]); });
        } else {
            for_each([&](Vec<T>& x, int, int v) __attribute__((always_inline)) { x = x + bias[v]; });
        }
    }
    if (finish.relu) for_each([](Vec<T>& x, int, int) __attribute__((always_inline)) { x = activations::relu::forward<T>(x); });
    if (finish.relu_output)
        for_each([&](Vec<T>& x, int r, int v) __attribute__((always_inline)) {
            x = activations::relu::backward<T>(x, load_vector(finish.relu_output + r * ldc, v));
        });
    if (partial)
        for_each([&](Vec<T>& x, int r, int v) __attribute__((always_inline)) {
            if (v + 1 == vectors)
                store_partial(c + r * ldc + v * width, tail, x);
            else
                store<T>(c + r * ldc + v * width, x);
        });
    else
        for_each([&](Vec<T>& x, int r, int v) __attribute__((always_inline)) { store<T>(c + r * ldc + v * width, x); });
}

// rows x vectors of C; of the last vector so many columns are read of B where B is not packed (masked).
template <class T, int rows, int vectors, bool masked>
TRAINSTEP_INLINE void micro_kernel(T* c, std::size_t ldc, const Panels<T>& p, Tail<T> tail, bool partial, const Finish<T>& finish) {
    constexpr int width = kWidth<T>;
    Vec<T> acc[rows][vectors] = {};
    const T *a = p.a, *b = p.b;
    if (p.k >= kLongChain)  // C comes while the chains are calculated
        for (int r = 0; r < rows; ++r)
            for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + r * ldc + v * width);
    for (std::size_t k = p.k; k > 0; --k, a += p.a_k, b += p.b_k) {
        Vec<T> bv[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            const T* bp = b + v / kTileVectors * p.b_panel + v % kTileVectors * width;
            if constexpr (masked)
                bv[v] = v + 1 < vectors ? load(bp) : load_partial(bp, tail);
            else
                bv[v] = load(bp);
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec<T> av = set1<T>(a[r * p.a_row]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
        }
    }
    finish_tile<T, rows, vectors>(acc, c, ldc, tail, partial, finish);
}

template <class T>
using MicroKernel = void (*)(T* c, std::size_t ldc, const Panels<T>& p, Tail<T> tail, bool partial, const Finish<T>& finish);

template <class T, int rows, int vectors, bool masked>
void micro_kernel_entry(T* c, std::size_t ldc, const Panels<T>& p, Tail<T> tail, bool partial, const Finish<T>& finish) {
    micro_kernel<T, rows, vectors, masked>(c, ldc, p, tail, partial, finish);
}

// entries[masked][vectors - 1][rows - 1]; null where no tile has that shape.
template <class T>
struct MicroKernels {
    MicroKernel<T> entries[2][kShortVectors][kTileRows];

    constexpr MicroKernels() : entries{} { fill(std::make_integer_sequence<int, kTileRows>{}); }

  private:
    template <int... row>
    constexpr void fill(std::integer_sequence<int, row...>) {
        (fill_row<row + 1>(), ...);
    }
    template <int rows>
    constexpr void fill_row() {
        fill_vectors<rows>(std::make_integer_sequence<int, rows <= kShortRows ? kShortVectors : kTileVectors>{});
    }
    template <int rows, int... vector>
    constexpr void fill_vectors(std::integer_sequence<int, vector...>) {
        ((entries[0][vector][rows - 1] = micro_kernel_entry<T, rows, vector + 1, false>,
          entries[1][vector][rows - 1] = micro_kernel_entry<T, rows, vector + 1, true>),
         ...);
    }
};

template <class T>
inline constexpr MicroKernels<T> kMicroKernels{};

// How a tile of n columns is calculated: its kernels, by rows, and the tail of its last vector.
template <class T>
struct TileColumns {
    const MicroKernel<T>* entries;
    Tail<T> tail;
    bool partial;

    TileColumns(std::size_t n, bool packed)
        : tail(std::ptrdiff_t((n - 1) % std::size_t(kWidth<T>) + 1)), partial(n % std::size_t(kWidth<T>) != 0) {
        entries = kMicroKernels<T>.entries[partial && !packed][(n - 1) / std::size_t(kWidth<T>)];
    }
};

// --- packing -----------------------------------------------------------------------------------------------------------------

// Panels that are packed together where an operand's rows lie along theirs, and how many of its rows ahead it is fetched. Of one
// panel each row is a line or two of a page, which is turned to anew for the next panel; together they read a longer piece of it.
// Products of 512 to 2048 a side on one core of a Zen 4: 1 to 2% less time.
inline constexpr std::size_t kTogether = 4, kPackAhead = 8;

// `count` panels of `columns` columns: packed[q * columns * k + p * columns + j] = x[p * row + q * columns + j].
template <class T, std::size_t count, std::size_t columns>
TRAINSTEP_INLINE void pack_rows(T* packed, const T* x, std::size_t row, std::size_t k) {
    constexpr std::size_t width = kWidth<T>, last = (columns - 1) % width + 1, bytes = count * columns * sizeof(T);
    const Tail<T> tail{std::ptrdiff_t(last)};
    for (std::size_t p = 0; p < k; ++p, x += row, packed += columns) {
        const char* const next = reinterpret_cast<const char*>(p + kPackAhead < k ? x + kPackAhead * row : x);
        for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + at);
#pragma GCC unroll 8
        for (std::size_t q = 0; q < count; ++q)
#pragma GCC unroll 8
            for (std::size_t j = 0; j < columns; j += width) {
                T* const to = packed + q * columns * k + j;
                const T* const from = x + q * columns + j;
                columns - j < width ? store_partial(to, tail, load_partial(from, tail)) : store<T>(to, load(from));
            }
    }
}

// A block of A as panels of kTileRows rows: panel[p * kTileRows + r]. Rows past m are left out, so the last panel is narrower.
// Whole vectors are stored, of which the next one overwrites what is too much: there is room for one behind the last panel.
template <class T>
void pack_a(T* packed, const T* a, std::size_t a_row, std::size_t a_k, std::size_t m, std::size_t k) {
    constexpr std::size_t width = kWidth<T>;
    std::size_t i = 0;
    if (a_row == 1)
        for (; i + kTogether * kTileRows <= m; i += kTogether * kTileRows, packed += kTogether * kTileRows * k)
            pack_rows<T, kTogether, kTileRows>(packed, a + i, a_k, k);
    for (; i < m; i += kTileRows) {
        const std::size_t rows = m - i < kTileRows ? m - i : kTileRows;
        const T* source = a + i * a_row;
        for (std::size_t r = (rows - 1) / width * width; r < rows; r -= width) {  // until it wraps
            const std::size_t here = least(width, rows - r);
            if (a_row == 1) {
                const Tail<T> part{std::ptrdiff_t(here)};
                for (std::size_t p = 0; p < k; ++p) store<T>(packed + p * rows + r, load_partial(source + p * a_k + r, part));
            } else {
                for (std::size_t p = 0; p < k; p += width)
                    transpose_in<T>(packed + p * rows + r, rows, source + r * a_row + p, a_row, here, least(width, k - p));
            }
        }
        packed += rows * k;
    }
}

// A block of B as panels of kTileColumns columns: panel[p * kTileColumns + j]. What fills a last vector up is of no meaning, and
// vectors past the last column are not there.
template <class T>
void pack_b(T* packed, const T* b, std::size_t b_k, std::size_t b_column, std::size_t k, std::size_t n) {
    constexpr std::size_t columns = kTileColumns<T>, width = kWidth<T>;
    std::size_t j = 0;
    if (b_column == 1) {
        for (; j + kTogether * columns <= n; j += kTogether * columns, packed += kTogether * columns * k)
            pack_rows<T, kTogether, columns>(packed, b + j, b_k, k);
        for (; j + columns <= n; j += columns, packed += columns * k) pack_rows<T, 1, columns>(packed, b + j, b_k, k);
    }
    for (; j < n; j += columns, packed += columns * k) {
        const std::size_t here = n - j < columns ? n - j : columns;
        for (std::size_t c = 0; c < here; c += width) {
            const std::size_t some = least(width, here - c);
            const Tail<T> part{std::ptrdiff_t(some)};
            if (b_column == 1)
                for (std::size_t p = 0; p < k; ++p) store<T>(packed + p * columns + c, load_partial(b + p * b_k + j + c, part));
            else
                for (std::size_t p = 0; p < k; p += width)
                    transpose_in<T>(packed + p * columns + c, columns, b + (j + c) * b_column + p, b_column, some,
                                    least(width, k - p));
        }
    }
}

// The same for few columns of a wider array, those of one thread: one vector after the other down the rows, so that the processor
// does not fetch what lies beside them, which another thread may be writing.
template <class T>
void pack_b_share(T* packed, const T* b, std::size_t b_k, std::size_t k, std::size_t n) {
    constexpr std::size_t columns = kTileColumns<T>, width = kWidth<T>, ahead = 8;
    for (std::size_t j = 0; j < n; j += width) {
        const Tail<T> part{std::ptrdiff_t(least(width, n - j))};
        T* to = packed + j / columns * columns * k + j % columns;
        for (std::size_t p = 0; p < k; ++p, to += columns) {
            __builtin_prefetch(b + least(p + ahead, k - 1) * b_k + j);
            store<T>(to, load_partial(b + p * b_k + j, part));
        }
    }
}

// --- epilogues that are a pass over a finished block, while it is in cache ---------------------------------------------------

template <class T>
void activate_block(const Gemm<T>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1) {
    if (g.activation.kind == ActivationKind::identity) return;
    T* const y = g.y ? g.y : g.c;
    for (std::size_t i = m0; i < m1; ++i)
        g.activation.kernel(y + i * g.ldc + n0, g.c + i * g.ldc + n0, n1 - n0, g.activation.parameter);
}

template <class T>
void differentiate_block(const Gemm<T>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1) {
    if (g.derivative.kind == ActivationKind::identity) return;
    for (std::size_t i = m0; i < m1; ++i) {
        T* const c = g.c + i * g.ldc + n0;
        g.derivative.kernel(c, c, g.source + i * g.ldc + n0, n1 - n0, g.derivative.parameter);
    }
}

// --- one column: C (m, 1), the last layer of a regression or of a yes-or-no question -----------------------------------------

// Rows of A are contiguous here, and so is the column B: each element of C is a dot product over vectors of k, one vector of
// partial sums a row (a tile of the general kernel would leave all but one lane of every vector idle). Four rows at a time hide the
// latency.
template <class T, int rows>
TRAINSTEP_INLINE void dot_rows(T* c, const T* a, std::size_t a_row, const T* b, std::size_t k) {
    Vec<T> sum[rows] = {};
    for_each_vector<T>(k, [&](std::size_t p, auto part) __attribute__((always_inline)) {
        const Vec<T> bv = get<T>(b + p, part);
        for (int r = 0; r < rows; ++r) sum[r] = fma(get<T>(a + r * a_row + p, part), bv, sum[r]);
    });
    for (int r = 0; r < rows; ++r) c[r] = reduce_add<T>(sum[r]);
}

template <class T>
bool is_one_column(const Gemm<T>& g) {
    return g.n == 1 && g.ldc == 1 && g.a_k == 1 && g.b_k == 1;
}

template <class T>
void gemv(const Gemm<T>& g, std::size_t m0, std::size_t m1) {
    const std::size_t chain = g.chain ? g.chain : g.k;
    T chunk[64];  // results of a few rows, on their way to C
    for (std::size_t i = m0; i < m1; i += 64) {
        const std::size_t n = m1 - i < 64 ? m1 - i : 64;
        for (std::size_t p = 0; p < g.k; p += chain) {
            const T *a = g.a + i * g.a_row + p, *b = g.b + p;
            const std::size_t k = least(chain, g.k - p);
            std::size_t r = 0;
            for (; r + 4 <= n; r += 4) dot_rows<T, 4>(chunk + r, a + r * g.a_row, g.a_row, b, k);
            for (; r < n; ++r) dot_rows<T, 1>(chunk + r, a + r * g.a_row, g.a_row, b, k);
            for (r = 0; r < n; ++r) {
                T x = chunk[r];
                if (p > 0 || g.accumulate) x = g.c[i + r] + x;
                if (g.bias && p + k == g.k) x = (g.scale ? x * g.scale[0] : x) + g.bias[0];
                g.c[i + r] = x;
            }
        }
    }
}

// --- few columns, with factors that lie along A's rows: dw of a last layer -------------------------------------------------------

template <class T>
bool is_bare(const Gemm<T>& g) {
    return !g.bias && g.activation.kind == ActivationKind::identity && g.derivative.kind == ActivationKind::identity;
}

// Vectors of C's rows would be filled to less than three quarters: the tile is calculated transposed, its rows along C's columns.
// The chains are the same.
template <class T>
bool is_narrow(const Gemm<T>& g) {
    return 4 * g.n <= 3 * std::size_t(kWidth<T>) && g.a_row == 1 && g.b_column == 1 && is_bare(g);
}

template <class T>
void gemm_narrow(const Gemm<T>& g, std::size_t m0, std::size_t m1) {
    constexpr std::size_t width = kWidth<T>, block = 4 * width;
    static_assert(3 * width / 4 <= kTileRows);
    const std::size_t block_k = block_of_k(g.k);
    alignas(64) T transposed[width * block];
    for (std::size_t i = m0; i < m1; i += block) {
        const std::size_t m = least(block, m1 - i);
        for (std::size_t j = 0; g.accumulate && j < m; j += width)
            transpose_in<T>(transposed + j, block, g.c + (i + j) * g.ldc, g.ldc, least(width, m - j), g.n);
        for (std::size_t p = 0; p < g.k; p += block_k)
            for (std::size_t j = 0; j < m; j += kTileColumns<T>) {
                const std::size_t columns = least(kTileColumns<T>, m - j), last = (columns - 1) % width + 1;
                const Panels<T> panels{g.b + p * g.b_k, 1, g.b_k, g.a + p * g.a_k + i + j, g.a_k, 0, least(block_k, g.k - p)};
                kMicroKernels<T>.entries[last < width][(columns - 1) / width][g.n - 1](
                    transposed + j, block, panels, Tail<T>{std::ptrdiff_t(last)}, last < width,
                    {p > 0 || g.accumulate, nullptr, nullptr, false, nullptr});
            }
        for (std::size_t j = 0; j < m; j += width)
            transpose_out<T>(g.c + (i + j) * g.ldc, g.ldc, transposed + j, block, least(width, m - j), g.n);
    }
}

// --- few rows of A against a large B: batch 1 ------------------------------------------------------------------------------------

// B is read once and nothing is done twice with it, so its speed from memory is the limit: some of its rows at a time, from end to
// end, while the chains wait in `chains` (a row of A after the other, n apart). A tile would jump from row to row instead.
template <class T, int rows>
void stream_b(const Panels<T>& p, std::size_t n, T* chains, std::size_t stride) {
    constexpr std::size_t together = kVectorRegisters == 32 ? 8 : 4;
    const auto go_on = [&](std::size_t k0, auto step) __attribute__((always_inline)) {
        constexpr std::size_t count = decltype(step)::value;
        const T *a = p.a + k0 * p.a_k, *b = p.b + k0 * p.b_k;
        Vec<T> av[rows][count];  // in registers, over all columns
        for (int r = 0; r < rows; ++r)
            for (std::size_t k = 0; k < count; ++k) av[r][k] = set1<T>(a[r * p.a_row + k * p.a_k]);
        for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            Vec<T> acc[rows];
            for (int r = 0; r < rows; ++r) acc[r] = k0 == 0 ? zero<T>() : get<T>(chains + r * stride + j, part);
#pragma GCC unroll 8
            for (std::size_t k = 0; k < count; ++k) {
                const Vec<T> bv = get<T>(b + k * p.b_k + j, part);
                for (int r = 0; r < rows; ++r) acc[r] = fma(av[r][k], bv, acc[r]);
            }
            for (int r = 0; r < rows; ++r) put<T>(chains + r * stride + j, part, acc[r]);
        });
    };
    std::size_t k0 = 0;
    for (; k0 + together <= p.k; k0 += together) go_on(k0, std::integral_constant<std::size_t, together>{});
    for (; k0 < p.k; ++k0) go_on(k0, std::integral_constant<std::size_t, 1>{});
}

// B^T lies row-major (dx from a weight): its blocks are transposed in registers, and go nowhere else.
template <class T, int rows>
void stream_b_transposed(const Panels<T>& p, std::size_t b_column, std::size_t n, T* chains, std::size_t stride) {
    constexpr std::size_t width = kWidth<T>;
    for (std::size_t j = 0; j < n; j += width) {
        const std::size_t columns = least(width, n - j);
        const T* const b = p.b + j * b_column;
        Vec<T> acc[rows] = {};
        const auto go_on = [&](std::size_t k, auto part, std::size_t count) __attribute__((always_inline)) {
            Vec<T> block[width];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < width; ++i) block[i] = get<T>(b + least(i, columns - 1) * b_column + k, part);
            transpose<T>(block);
#pragma GCC unroll 16
            for (std::size_t q = 0; q < width; ++q)
                if (q < count)
                    for (int r = 0; r < rows; ++r) acc[r] = fma(set1<T>(p.a[r * p.a_row + (k + q) * p.a_k]), block[q], acc[r]);
        };
        std::size_t k = 0;
        for (; k + width <= p.k; k += width) go_on(k, Full{}, width);
        if (k < p.k) go_on(k, Tail<T>(std::ptrdiff_t(p.k - k)), p.k - k);
        for (int r = 0; r < rows; ++r) store_partial(chains + r * stride + j, Tail<T>(std::ptrdiff_t(columns)), acc[r]);
    }
}

// The same on its way to C.
template <class T>
void finish_rows(T* c, std::size_t ldc, const T* chains, std::size_t stride, std::size_t rows, std::size_t n,
                 const Finish<T>& finish) {
    for (std::size_t r = 0; r < rows; ++r, c += ldc, chains += stride) {
        const T* output = finish.relu_output ? finish.relu_output + r * ldc : nullptr;
        for_each_vector<T>(n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            Vec<T> x = get<T>(chains + j, part);
            if (finish.add) x = x + get<T>(c + j, part);
            if (finish.bias) {
                const Vec<T> bias = get<T>(finish.bias + j, part);
                x = finish.scale ? fma(x, get<T>(finish.scale + j, part), bias) : x + bias;
            }
            if (finish.relu) x = activations::relu::forward<T>(x);
            if (output) x = activations::relu::backward<T>(x, get<T>(output + j, part));
            put<T>(c + j, part, x);
        });
    }
}

// --- short sums: dw of batch 1 -------------------------------------------------------------------------------------------------

// Almost all of the time goes into writing C, row by row.
template <class T, int k>
void outer_product(const Gemm<T>& g_, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1) {
    const Gemm<T> g = g_;  // a copy, which no store can change
    const T* const b = g.b + n0;
    for (std::size_t i = m0; i < m1; ++i) {
        T* const c = g.c + i * g.ldc + n0;
        Vec<T> a[k];
        for (int p = 0; p < k; ++p) a[p] = set1<T>(g.a[i * g.a_row + p * g.a_k]);
        const auto write_row = [&](auto accumulate) __attribute__((always_inline)) {
            for_each_vector<T>(n1 - n0, [&](std::size_t j, auto part) __attribute__((always_inline)) {
                Vec<T> sum = zero<T>();
                for (int p = 0; p < k; ++p) sum = fma(a[p], get<T>(b + p * g.b_k + j, part), sum);
                if (accumulate) sum = sum + get<T>(c + j, part);
                put<T>(c + j, part, sum);
            });
        };
        g.accumulate ? write_row(std::true_type{}) : write_row(std::false_type{});
    }
}

// --- the loops around the micro-kernel ---------------------------------------------------------------------------------------

template <class T>
void gemm(const Gemm<T>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1, const GemmBlocks& blocks, T* scratch) {
    if (is_one_column(g)) {
        gemv(g, m0, m1);
        Gemm<T> row = g;  // a column of C is contiguous: for the epilogue it is one row of m elements
        row.m = 1, row.n = g.m, row.ldc = g.m;
        activate_block(row, 0, 1, m0, m1);
        return differentiate_block(row, 0, 1, m0, m1);
    }
    if (is_narrow(g)) return gemm_narrow(g, m0, m1);
    if (g.k <= kShortRows && g.b_column == 1 && is_bare(g)) {
        static_assert(kShortRows == 3);
        return (g.k == 1 ? outer_product<T, 1> : g.k == 2 ? outer_product<T, 2> : outer_product<T, 3>)(g, m0, m1, n0, n1);
    }
    constexpr std::size_t columns = kTileColumns<T>, width = kWidth<T>;
    T* const packed_a = scratch;
    T* const packed_b = scratch + kPackedA<T>;
    const std::size_t m = m1 - m0, n = n1 - n0;
    // Packing pays when a panel is read often and its rows lie too far apart to be read in place: in few sets of the caches.
    const bool few_rows = m <= kShortRows;
    const std::size_t rows_in_place = g.b_k * sizeof(T) > kNearRows ? 2 * kTileRows : kBlockM;
    const bool large_b = g.k * g.n * sizeof(T) > 64 * 1024, share = g.b_column == 1 && g.b_k >= 2 * g.n && !large_b;
    const bool pack_the_b = (g.b_column != 1 && !few_rows) || (large_b && m > rows_in_place) || (share && m > 2 * kTileRows);
    const bool pack_the_a = n > 4 * columns && m * g.k * sizeof(T) > 64 * 1024;
    const bool stream_the_b = few_rows && (g.b_column != 1 || g.k * n * sizeof(T) > kStreamedB);

    const bool relu_backward = g.derivative.kind == ActivationKind::relu;
    const std::size_t block_k = g.chain ? g.chain : block_of_k(g.k);

    // Where B is streamed its rows are read whole: the scratch that would hold a packed block holds chains of so many columns.
    const std::size_t block_n = columns_of_block<T>(blocks) * (stream_the_b ? kBlockK / kShortRows : 1);
    for (std::size_t jc = n0; jc < n1; jc += block_n) {
        const std::size_t nc = least(block_n, n1 - jc);
        for (std::size_t pc = 0; pc < g.k; pc += block_k) {
            const std::size_t kc = least(block_k, g.k - pc);
            const bool last_k = pc + kc >= g.k;
            if (pack_the_b && share)
                pack_b_share(packed_b, g.b + pc * g.b_k + jc, g.b_k, kc, nc);
            else if (pack_the_b)
                pack_b(packed_b, g.b + pc * g.b_k + jc * g.b_column, g.b_k, g.b_column, kc, nc);
            for (std::size_t ic = m0; ic < m1; ic += kBlockM) {
                const std::size_t mc = least(kBlockM, m1 - ic);
                const std::size_t step = mc <= kShortRows ? kShortVectors * width : columns;  // columns of a tile
                if (pack_the_a) pack_a(packed_a, g.a + ic * g.a_row + pc * g.a_k, g.a_row, g.a_k, mc, kc);
                // What the tiles of this block of C have in common; what differs is set for each of them.
                T* const c = g.c + ic * g.ldc + jc;
                const T* const a = pack_the_a ? packed_a : g.a + ic * g.a_row + pc * g.a_k;
                const T* const b = pack_the_b ? packed_b : g.b + pc * g.b_k + jc * g.b_column;
                const T* const bias = last_k && g.bias ? g.bias + jc : nullptr;
                const T* const scale = bias && g.scale ? g.scale + jc : nullptr;
                const T* const relu_output = last_k && relu_backward ? g.source + ic * g.ldc + jc : nullptr;
                Finish<T> finish{pc > 0 || g.accumulate, bias, scale, last_k && g.activation.kind == ActivationKind::relu,
                                 relu_output};
                if (stream_the_b) {
                    const Panels<T> p{a, g.a_row, g.a_k, b, g.b_k, 0, kc};
                    static_assert(kShortRows == 3);
                    if (g.b_column == 1)
                        (mc == 1 ? stream_b<T, 1> : mc == 2 ? stream_b<T, 2> : stream_b<T, 3>)(p, nc, packed_b, nc);
                    else
                        (mc == 1   ? stream_b_transposed<T, 1>
                         : mc == 2 ? stream_b_transposed<T, 2>
                                   : stream_b_transposed<T, 3>)(p, g.b_column, nc, packed_b, nc);
                    finish_rows(c, g.ldc, packed_b, nc, mc, nc, finish);
                } else {
                    const std::size_t a_step = pack_the_a ? kc : g.a_row, b_step = pack_the_b ? kc : 1;
                    Panels<T> p{a, pack_the_a ? 1 : g.a_row,     g.a_k,
                                b, pack_the_b ? columns : g.b_k, pack_the_b ? columns * kc : columns,
                                kc};
                    const TileColumns<T> full(step, pack_the_b),
                        last(((nc - 1) & (step - 1)) + 1, pack_the_b);  // step: a power of two
                    const auto tile = [&](std::size_t ir, std::size_t jr) __attribute__((always_inline)) {
                        const std::size_t rows = least(kTileRows, mc - ir);
                        p.a = a + ir * a_step, p.b = b + jr * b_step;
                        if (pack_the_a) p.a_k = rows;
                        if (bias) finish.bias = bias + jr;
                        if (scale) finish.scale = scale + jr;
                        if (relu_output) finish.relu_output = relu_output + ir * g.ldc + jr;
                        const TileColumns<T>& t = jr + step < nc ? full : last;
                        t.entries[rows - 1](c + ir * g.ldc + jr, g.ldc, p, t.tail, t.partial, finish);
                    };
                    if (kc * nc * sizeof(T) <= blocks.resident_b) {
                        for (std::size_t ir = 0; ir < mc; ir += kTileRows)
                            for (std::size_t jr = 0; jr < nc; jr += step) tile(ir, jr);
                    } else {
                        for (std::size_t jr = 0; jr < nc; jr += step)
                            for (std::size_t ir = 0; ir < mc; ir += kTileRows) tile(ir, jr);
                    }
                }
                if (last_k && g.activation.kind != ActivationKind::relu) activate_block(g, ic, ic + mc, jc, jc + nc);
                if (last_k && !relu_backward) differentiate_block(g, ic, ic + mc, jc, jc + nc);
            }
        }
    }
}

// C and its epilogue from finished chains: the sum of `count` arrays (m, n), the first element of each `apart` behind that of the
// one before.
template <class T>
void sum_chains(const Gemm<T>& g, const T* chains, std::size_t count, std::size_t apart) {
    for (std::size_t i = 0; i < g.m; ++i, chains += g.n)
        for_each_vector<T>(g.n, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            Vec<T> x = get<T>(chains + j, part);
            for (std::size_t p = 1; p < count; ++p) x = x + get<T>(chains + p * apart + j, part);
            if (g.bias) x = x + get<T>(g.bias + j, part);
            put<T>(g.c + i * g.ldc + j, part, x);
        });
    activate_block(g, 0, g.m, 0, g.n);
}

// db[n0 .. n1) = (or +=) the column sums of dz, whose rows begin `stride` elements apart. Sums of 64 rows are added to sums of
// sums, so the rounding error grows with 64 + rows / 64 and not with the rows.
template <class T>
void column_sum(T* db, const T* dz, std::size_t stride, std::size_t rows, std::size_t n0, std::size_t n1, bool accumulate) {
    for_each_vector<T>(n1 - n0, [=](std::size_t j, auto part) __attribute__((always_inline)) {
        Vec<T> total = accumulate ? get<T>(db + n0 + j, part) : zero<T>();
        for (std::size_t i = 0; i < rows; i += 64) {
            const std::size_t end = least(rows, i + 64);
            Vec<T> even = zero<T>(), odd = zero<T>();
            const T* row = dz + i * stride + n0 + j;
            std::size_t r = i;
            for (; r + 2 <= end; r += 2, row += 2 * stride) {
                even = even + get<T>(row, part);
                odd = odd + get<T>(row + stride, part);
            }
            if (r < end) even = even + get<T>(row, part);
            total = total + (even + odd);
        }
        put<T>(db + n0 + j, part, total);
    });
}

}  // namespace trainstep::TRAINSTEP_ISA
#endif
