// Units: what multiplies panels of bf16 pieces, one for each kind of processor. A level has one, under the name Unit.
//
// kGroup elements of k lie in one lane of 32 bits and make one step; a panel holds [piece][step][lane], with a multiple of kSteps
// steps to a piece. Products of pieces are exact in float32. Dot products and tiles take denormal pieces for 0, and so give sums
// below 2^-126.
#pragma once

#include "kernels/gemm.h"

#if defined(__AMX_BF16__)
#include "kernels/tiles.h"
#endif

namespace trainstep::TRAINSTEP_ISA::pieces {

using U32 = UVec<float>;

inline constexpr int kMostTerms = 6;

// The terms of a product: where in the panels of A and B their pieces begin.
struct TermPlaces {
    int count;
    std::size_t a[kMostTerms], b[kMostTerms];
};

#if defined(__AMX_BF16__)

// Tiles (AMX): 16 rows of 16 pairs by 16 pairs of 16 columns, four such products at a time. A tile of A has the pairs of a row side
// by side, a tile of B those of a step.
struct Unit {
    static constexpr int kGroup = 2, kSteps = 16, kRows = 32, kColumns = 32;
    static constexpr std::size_t kBlock = 512;  // elements of k: sums leave the tiles after so many
    static constexpr double kRate = 10;         // multiply-adds in the time of one of float32 (reasoned: 16 of peak)
    static constexpr const char* kName = "bf16 tiles (AMX)";
    using Lane = std::uint32_t;
    static constexpr std::size_t kTile = 16 * 16;  // lanes

    static void begin() { tiles::begin(); }
    static void end() { tiles::end(); }

    // steps x 32 rows become tiles: 16 steps of the first 16 rows, of the other 16, of the next 16 steps, and so on.
    static void arrange_a(Lane* panel, std::size_t steps) {
        for (; steps > 0; steps -= kSteps, panel += 2 * kTile) {
            alignas(64) Lane before[2 * kTile];
            __builtin_memcpy(before, panel, sizeof before);
            for (std::size_t half = 0; half < 2; ++half)
                transpose_in<float>(reinterpret_cast<float*>(panel + half * kTile), 16,
                                    reinterpret_cast<const float*>(before + 16 * half), kRows, 16, 16);
        }
    }

    static void multiply(float* c, std::size_t ldc, const Lane* a, const Lane* b, std::size_t steps, const TermPlaces& terms,
                         std::size_t rows, std::size_t columns, const Finish<float>& finish) {
        alignas(64) float sums[kRows * kColumns];
        constexpr std::size_t row_of_a = 64, row_of_b = kColumns * sizeof(Lane), row_of_sums = kColumns * sizeof(float);
        tiles::zero<0>(), tiles::zero<1>(), tiles::zero<2>(), tiles::zero<3>();
        for (int t = 0; t < terms.count; ++t) {
            const Lane *at = a + terms.a[t], *bt = b + terms.b[t];
            for (std::size_t s = 0; s < steps; s += kSteps, at += 2 * kTile, bt += kSteps * kColumns) {
                tiles::load<4>(at, row_of_a);
                tiles::load<6>(bt, row_of_b);
                tiles::load<7>(bt + 16, row_of_b);
                tiles::multiply_add<0, 4, 6>();
                tiles::multiply_add<1, 4, 7>();
                tiles::load<5>(at + kTile, row_of_a);
                tiles::multiply_add<2, 5, 6>();
                tiles::multiply_add<3, 5, 7>();
            }
        }
        tiles::store<0>(sums, row_of_sums);
        tiles::store<1>(sums + 16, row_of_sums);
        tiles::store<2>(sums + 16 * kColumns, row_of_sums);
        tiles::store<3>(sums + 16 * kColumns + 16, row_of_sums);
        finish_rows<float>(c, ldc, sums, kColumns, rows, columns, finish);
    }
};

#else

#if defined(__AVX512BF16__)

// Dot products of pairs.
struct Lanes {
    static constexpr int kGroup = 2;
    static constexpr double kRate = 2;
    static constexpr const char* kName = "dot products of bf16 pairs (AVX-512 BF16)";
    using Lane = std::uint32_t;

    static TRAINSTEP_INLINE F32 multiply_add(Lane a, F32 b, F32 sum) {
        return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(std::int32_t(a)), (__m512bh)b);
    }
};

#else

// float32 arithmetic on pieces that are stored as float32: anywhere, and slower than a product of the numbers themselves.
struct Lanes {
    static constexpr int kGroup = 1;
    static constexpr double kRate = 1;
    static constexpr const char* kName = "float32 arithmetic on the pieces";
    using Lane = float;

    static TRAINSTEP_INLINE F32 multiply_add(Lane a, F32 b, F32 sum) { return fma(set1<float>(a), b, sum); }
};

#endif

// With a tile of C in vector registers, as gemm.h's micro-kernel.
template <int rows, int vectors>
void multiply_tile(float* c, std::size_t ldc, const Lanes::Lane* a, const Lanes::Lane* b, std::size_t steps,
                   const TermPlaces& terms, Tail<float> tail, bool partial, const Finish<float>& finish) {
    constexpr int width = kWidth<float>, columns = int(kTileColumns<float>);
    F32 acc[rows][vectors] = {};
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + r * ldc + v * width);
    for (int t = 0; t < terms.count; ++t) {
        const Lanes::Lane *at = a + terms.a[t], *bt = b + terms.b[t];
        for (std::size_t s = steps; s > 0; --s, at += kTileRows, bt += columns) {
            F32 bv[vectors];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) bv[v] = load(reinterpret_cast<const float*>(bt) + v * width);
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v) acc[r][v] = Lanes::multiply_add(at[r], bv[v], acc[r][v]);
            }
        }
    }
    finish_tile<float, rows, vectors>(acc, c, ldc, tail, partial, finish);
}

using TileKernel = void (*)(float* c, std::size_t ldc, const Lanes::Lane* a, const Lanes::Lane* b, std::size_t steps,
                            const TermPlaces& terms, Tail<float> tail, bool partial, const Finish<float>& finish);

// entries[vectors - 1][rows - 1]
struct TileKernels {
    TileKernel entries[kTileVectors][kTileRows];
};
template <int... row>
constexpr TileKernels tile_kernels(std::integer_sequence<int, row...>) {
    static_assert(kTileVectors == 2);
    return {{{multiply_tile<row + 1, 1>...}, {multiply_tile<row + 1, 2>...}}};
}
inline constexpr TileKernels kTileKernels = tile_kernels(std::make_integer_sequence<int, kTileRows>{});

struct Unit : Lanes {
    static constexpr int kSteps = 1, kRows = kTileRows, kColumns = int(kTileColumns<float>);
    static constexpr std::size_t kBlock = 256;

    static void begin() {}
    static void end() {}
    static void arrange_a(Lane*, std::size_t) {}

    static TRAINSTEP_INLINE void multiply(float* c, std::size_t ldc, const Lane* a, const Lane* b, std::size_t steps,
                                          const TermPlaces& terms, std::size_t rows, std::size_t columns,
                                          const Finish<float>& finish) {
        constexpr std::size_t width = kWidth<float>;
        const std::size_t last = (columns - 1) % width + 1;
        kTileKernels.entries[(columns - 1) / width][rows - 1](c, ldc, a, b, steps, terms, Tail<float>{std::ptrdiff_t(last)},
                                                              last < width, finish);
    }
};

#endif

using Lane = Unit::Lane;

}  // namespace trainstep::TRAINSTEP_ISA::pieces
