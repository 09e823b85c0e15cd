// The matrix product of bf16 pieces: as gemm.h's, but that what is packed are the pieces of precision.h, and that one product is
// several of them. Its chains are blocks of kBlockOf<pieces> elements of k: in each the terms one after the other, small ones
// first.
//
// What multiplies them is the level's Unit: float32 arithmetic on pieces that are stored as float32, exact products; dot products
// of pairs, two to a lane (AVX-512 BF16); or tiles (AMX). The last two take denormal pieces for 0, and so give results below
// 2^-126.
//
// Numbers that are not finite: inf * b2 has the wrong sign where b was rounded up, and no value where b2 is 0. So they count in the
// term of the first pieces alone; for the others a panel that holds any has a copy of its first pieces without them. What is finite
// stays so: beyond the largest bfloat16 the first piece is that, and the second the rest.
#pragma once

#include "kernels/gemm.h"
#include "kernels/precision.h"

#ifdef TRAINSTEP_ISA

namespace trainstep::TRAINSTEP_ISA::pieces {

using U32 = UVec<float>;

// --- units -------------------------------------------------------------------------------------------------------------------

// kGroup elements of k lie in one lane, and make one step. A panel holds [piece][step][lane].
#if defined(__AVX512BF16__)
struct Unit {
    static constexpr int kGroup = 2, kRows = kTileRows, kColumns = int(kTileColumns<float>);
    static constexpr double kRate = 2;
    static constexpr const char* kName = "dot products of bf16 pairs (AVX-512 BF16)";
    using Lane = std::uint32_t;

    static TRAINSTEP_INLINE F32 multiply_add(Lane a, F32 b, F32 sum) {
        const __m512i pairs = _mm512_set1_epi32(std::int32_t(a));
        return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh)b);
    }
};
#else
struct Unit {
    static constexpr int kGroup = 1, kRows = kTileRows, kColumns = int(kTileColumns<float>);
    static constexpr double kRate = 1;
    static constexpr const char* kName = "float32 arithmetic on the pieces";
    using Lane = float;

    static TRAINSTEP_INLINE F32 multiply_add(Lane a, F32 b, F32 sum) { return fma(set1<float>(a), b, sum); }
};
#endif
using Lane = Unit::Lane;

// --- pieces ------------------------------------------------------------------------------------------------------------------

// Chains as long as those of float32's small layers at least; of one piece in half the bytes as long again.
inline constexpr std::size_t kShortBlock = 256, kLongBlock = 512;
constexpr std::size_t block_of(int pieces) { return pieces == 1 && Unit::kGroup > 1 ? kLongBlock : kShortBlock; }

struct Term {
    int a, b;
};
inline constexpr Term kTerms[] = {{2, 0}, {1, 1}, {0, 2}, {1, 0}, {0, 1}, {0, 0}};
inline constexpr int kMostTerms = 6;
constexpr int first_term(int pieces) { return pieces == 3 ? 0 : pieces == 2 ? 3 : 5; }

inline constexpr std::uint32_t kUpper = 0xffff0000, kMagnitude = 0x7fffffff, kInfinity = 0x7f800000, kLargest = 0x7f7f0000;
inline constexpr std::uint32_t kRoundsUpToInfinity = 0x7f7f8000;  // a magnitude from here on does

TRAINSTEP_INLINE U32 round_to_nearest_even(U32 x) { return (x + 0x7fff + ((x >> 16) & 1)) & kUpper; }

// bits[p]: piece p of x, a float32 whose lower half is 0. `large`: some lane has a magnitude of kRoundsUpToInfinity or more.
template <int pieces>
TRAINSTEP_INLINE void split(F32 x, U32* bits, bool large) {
    U32 first = round_to_nearest_even((U32)x);
    if (large) {
        const U32 magnitude = (U32)x & kMagnitude, sign = (U32)x & ~kMagnitude;
        const U32 finite = (U32)(magnitude < kInfinity), nan = (U32)(magnitude > kInfinity);
        const U32 at_most = (U32)((first & kMagnitude) < kInfinity) & finite;
        first = (first & at_most) | ((sign | kLargest) & ~at_most & finite) | (((U32)x | (nan & 0x400000)) & kUpper & ~finite);
        x = (F32)((U32)x & finite);  // what is left of the others is 0 - 0
        bits[0] = first;
        first &= finite;
    } else {
        bits[0] = first;
    }
    F32 rest = x - (F32)first;
    for (int p = 1; p < pieces; ++p) {
        bits[p] = round_to_nearest_even((U32)rest);
        rest = rest - (F32)bits[p];
    }
}

// --- panels ------------------------------------------------------------------------------------------------------------------

// A panel of `lanes` rows of A or columns of B, and one block of k: [piece][step][lane], behind them the place of the first pieces
// without what is not finite, then a line with the word that says whether that is there.
template <int lanes>
struct PanelOf {
    static constexpr std::size_t line = 64 / sizeof(Lane);

    static constexpr std::size_t steps(std::size_t k) { return (k + Unit::kGroup - 1) / Unit::kGroup; }
    static constexpr std::size_t piece(std::size_t k) { return steps(k) * lanes; }
    static constexpr std::size_t size(int pieces, std::size_t k) {
        return (std::size_t(pieces + (pieces > 1)) * piece(k) + line - 1) / line * line + line;
    }
};
using PanelA = PanelOf<Unit::kRows>;
using PanelB = PanelOf<Unit::kColumns>;

template <class Panel>
TRAINSTEP_INLINE std::uint32_t& has_special(Lane* panel, int pieces, std::size_t k) {
    return reinterpret_cast<std::uint32_t&>(panel[Panel::size(pieces, k) - Panel::line]);
}

// Where a panel comes from: lane i of step k is at[i * lane + k * step]; one of them is 1.
struct Source {
    const float* at;
    std::size_t lane, k;
};

// Lanes past the last are of no meaning; elements of k past the last are 0.
template <int pieces, int lanes>
void pack_panel(Lane* panel, Source source, std::size_t count, std::size_t k) {
    using Panel = PanelOf<lanes>;
    constexpr std::size_t width = kWidth<float>;
    constexpr int group = Unit::kGroup;
    const std::size_t piece = Panel::piece(k);
    U32 special{};
    for (std::size_t first = 0; first < count; first += width) {
        const std::size_t here = least(width, count - first);
        const Tail<float> part{std::ptrdiff_t(here)}, room{std::ptrdiff_t(least(width, std::size_t(lanes) - first))};
        for (std::size_t k0 = 0; k0 < k; k0 += width) {
            const std::size_t some = least(width, k - k0);
            F32 x[width];
            if (source.lane == 1) {
                const float* const at = source.at + first + k0 * source.k;
                for (std::size_t i = 0; i < width; ++i) x[i] = i < some ? load_partial(at + i * source.k, part) : zero<float>();
            } else {
                const float* const at = source.at + first * source.lane + k0;
                const Tail<float> columns{std::ptrdiff_t(some)};
                for (std::size_t i = 0; i < width; ++i) x[i] = load_partial(at + least(i, here - 1) * source.lane, columns);
                transpose<float>(x);
            }
            U32 any{};
            for (std::size_t i = 0; i < width; ++i) {
                const U32 magnitude = (U32)x[i] & kMagnitude;
                any |= (U32)(magnitude >= kRoundsUpToInfinity);
                special |= (U32)(magnitude >= kInfinity);
            }
            const bool large = any_lane(any);
            Lane* to = panel + k0 / group * lanes + first;
            for (std::size_t i = 0; i < some; i += group, to += lanes) {
                U32 bits[group][pieces];
                for (int j = 0; j < group; ++j) split<pieces>(x[i + std::size_t(j)], bits[j], large);
                for (int p = 0; p < pieces; ++p) {
                    U32 lane = bits[0][p];
                    if constexpr (group == 2) lane = lane >> 16 | bits[group - 1][p];
                    store_partial(reinterpret_cast<float*>(to + std::size_t(p) * piece), room, (F32)lane);
                }
            }
        }
    }
    if constexpr (pieces == 1) return;
    const bool has = any_lane(special);
    has_special<Panel>(panel, pieces, k) = has;
    if (!has) return;
    Lane* const finite = panel + std::size_t(pieces) * piece;
    for_each_vector<float>(piece, [=](std::size_t i, auto rest) __attribute__((always_inline)) {
        const U32 x = (U32)get<float>(reinterpret_cast<const float*>(panel) + i, rest);
        const U32 upper = (U32)((x & kInfinity) != kInfinity), lower = (U32)(((x << 16) & kInfinity) != kInfinity);
        put<float>(reinterpret_cast<float*>(finite) + i, rest, (F32)(x & ((upper & kUpper) | (lower & ~kUpper))));
    });
}

template <int pieces>
void pack_panels_a(Lane* packed, const Gemm<float>& g, std::size_t i, std::size_t m, std::size_t k0, std::size_t k) {
    for (std::size_t r = 0; r < m; r += Unit::kRows, packed += PanelA::size(pieces, k))
        pack_panel<pieces, Unit::kRows>(packed, {g.a + (i + r) * g.a_row + k0 * g.a_k, g.a_row, g.a_k}, least(Unit::kRows, m - r),
                                        k);
}
template <int pieces>
void pack_panels_b(Lane* packed, const Gemm<float>& g, std::size_t j, std::size_t n, std::size_t k0, std::size_t k) {
    for (std::size_t c = 0; c < n; c += Unit::kColumns, packed += PanelB::size(pieces, k))
        pack_panel<pieces, Unit::kColumns>(packed, {g.b + (j + c) * g.b_column + k0 * g.b_k, g.b_column, g.b_k},
                                           least(Unit::kColumns, n - c), k);
}

// --- micro-kernels -----------------------------------------------------------------------------------------------------------

// The terms of a tile: where in the panels their pieces begin.
struct TermPlaces {
    int count;
    std::size_t a[kMostTerms], b[kMostTerms];
};
template <int pieces>
TermPlaces term_places(std::size_t k, bool special_a, bool special_b) {
    TermPlaces places{};
    for (int t = first_term(pieces); t < kMostTerms; ++t) {
        const bool is_last = t + 1 == kMostTerms;
        const int a = kTerms[t].a == 0 && special_a && !is_last ? pieces : kTerms[t].a;
        const int b = kTerms[t].b == 0 && special_b && !is_last ? pieces : kTerms[t].b;
        places.a[places.count] = std::size_t(a) * PanelA::piece(k);
        places.b[places.count++] = std::size_t(b) * PanelB::piece(k);
    }
    return places;
}

template <int rows, int vectors>
void multiply_tile(float* c, std::size_t ldc, const Lane* a, const Lane* b, std::size_t steps, const TermPlaces& terms,
                   Tail<float> tail, bool partial, const Finish<float>& finish) {
    constexpr int width = kWidth<float>;
    F32 acc[rows][vectors] = {};
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + r * ldc + v * width);
    for (int t = 0; t < terms.count; ++t) {
        const Lane *at = a + terms.a[t], *bt = b + terms.b[t];
        for (std::size_t s = steps; s > 0; --s, at += Unit::kRows, bt += Unit::kColumns) {
            F32 bv[vectors];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) bv[v] = load(reinterpret_cast<const float*>(bt) + v * width);
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v) acc[r][v] = Unit::multiply_add(at[r], bv[v], acc[r][v]);
            }
        }
    }
    finish_tile<float, rows, vectors>(acc, c, ldc, tail, partial, finish);
}

using TileKernel = void (*)(float* c, std::size_t ldc, const Lane* a, const Lane* b, std::size_t steps, const TermPlaces& terms,
                            Tail<float> tail, bool partial, const Finish<float>& finish);

// entries[vectors - 1][rows - 1]
struct TileKernels {
    TileKernel entries[kTileVectors][Unit::kRows];

    constexpr TileKernels() : entries{} { fill(std::make_integer_sequence<int, Unit::kRows>{}); }

  private:
    template <int... row>
    constexpr void fill(std::integer_sequence<int, row...>) {
        ((entries[0][row] = multiply_tile<row + 1, 1>, entries[1][row] = multiply_tile<row + 1, 2>), ...);
    }
};
inline constexpr TileKernels kTileKernels{};

// --- the loops around them ---------------------------------------------------------------------------------------------------

inline constexpr std::size_t kBlockRows = 16 * Unit::kRows;

// Panels of B in a block that stays in L2.
TRAINSTEP_INLINE std::size_t panels_of_block(int pieces, const GemmBlocks& blocks) {
    const std::size_t bytes = std::size_t(pieces) * PanelB::piece(block_of(pieces)) * sizeof(Lane);
    return blocks.packed_b < 2 * bytes ? 1 : blocks.packed_b / bytes;
}

template <int pieces>
void multiply(const Gemm<float>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1, const GemmBlocks& blocks,
              Lane* scratch) {
    constexpr std::size_t rows = Unit::kRows, columns = Unit::kColumns, width = kWidth<float>;
    const std::size_t block_k = g.chain ? g.chain : block_of(pieces), block_n = panels_of_block(pieces, blocks) * columns;
    Lane* const packed_a = scratch;
    Lane* const packed_b = scratch + kBlockRows / rows * PanelA::size(pieces, block_of(pieces));
    const bool relu_backward = g.derivative.kind == ActivationKind::relu;
    for (std::size_t jc = n0; jc < n1; jc += block_n) {
        const std::size_t nc = least(block_n, n1 - jc);
        for (std::size_t pc = 0; pc < g.k; pc += block_k) {
            const std::size_t kc = least(block_k, g.k - pc), steps = PanelA::steps(kc);
            const bool last_k = pc + kc >= g.k;
            pack_panels_b<pieces>(packed_b, g, jc, nc, pc, kc);
            TermPlaces terms[2][2];
            for (int a = 0; a < 2; ++a)
                for (int b = 0; b < 2; ++b) terms[a][b] = term_places<pieces>(kc, a == 1, b == 1);
            const auto is_special = [=]<class Panel>(Lane* panel, Panel) {
                return pieces > 1 && has_special<Panel>(panel, pieces, kc);
            };
            for (std::size_t ic = m0; ic < m1; ic += kBlockRows) {
                const std::size_t mc = least(kBlockRows, m1 - ic);
                pack_panels_a<pieces>(packed_a, g, ic, mc, pc, kc);
                for (std::size_t jr = 0; jr < nc; jr += columns) {
                    const std::size_t n = least(columns, nc - jr), last = (n - 1) % width + 1;
                    Lane* const b = packed_b + jr / columns * PanelB::size(pieces, kc);
                    const TileKernel* const kernels = kTileKernels.entries[(n - 1) / width];
                    for (std::size_t ir = 0; ir < mc; ir += rows) {
                        Lane* const a = packed_a + ir / rows * PanelA::size(pieces, kc);
                        const std::size_t at = (ic + ir) * g.ldc + jc + jr;
                        const Finish<float> finish{pc > 0 || g.accumulate, last_k && g.bias ? g.bias + jc + jr : nullptr,
                                                   last_k && g.scale ? g.scale + jc + jr : nullptr,
                                                   last_k && g.activation.kind == ActivationKind::relu,
                                                   last_k && relu_backward ? g.source + at : nullptr};
                        kernels[least(rows, mc - ir) - 1](g.c + at, g.ldc, a, b, steps,
                                                          terms[is_special(a, PanelA{})][is_special(b, PanelB{})],
                                                          Tail<float>{std::ptrdiff_t(last)}, last < width, finish);
                    }
                }
                if (last_k && g.activation.kind != ActivationKind::relu) activate_block(g, ic, ic + mc, jc, jc + nc);
                if (last_k && !relu_backward) differentiate_block(g, ic, ic + mc, jc, jc + nc);
            }
        }
    }
}

}  // namespace trainstep::TRAINSTEP_ISA::pieces

namespace trainstep::TRAINSTEP_ISA {

// In floats.
inline std::size_t gemm_pieces_scratch(const GemmBlocks& blocks) {
    using namespace pieces;
    std::size_t most = 0;
    for (int p = 1; p <= kMostPieces; ++p) {
        const std::size_t size =
            kBlockRows / Unit::kRows * PanelA::size(p, block_of(p)) + panels_of_block(p, blocks) * PanelB::size(p, block_of(p));
        most = size > most ? size : most;
    }
    return most;
}

inline void gemm_pieces(const Gemm<float>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1,
                        const GemmBlocks& blocks, float* scratch) {
    auto* const lanes = reinterpret_cast<pieces::Lane*>(scratch);
    switch (pieces_of(g.precision)) {
        case 1:
            return pieces::multiply<1>(g, m0, m1, n0, n1, blocks, lanes);
        case 2:
            return pieces::multiply<2>(g, m0, m1, n0, n1, blocks, lanes);
        default:
            return pieces::multiply<3>(g, m0, m1, n0, n1, blocks, lanes);
    }
}

}  // namespace trainstep::TRAINSTEP_ISA
#endif
