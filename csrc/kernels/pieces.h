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
#include "kernels/units.h"

namespace trainstep::TRAINSTEP_ISA::pieces {

// --- pieces ------------------------------------------------------------------------------------------------------------------

struct Term {
    int a, b;
};
inline constexpr Term kTerms[] = {{2, 0}, {1, 1}, {0, 2}, {1, 0}, {0, 1}, {0, 0}};
constexpr int first_term(int pieces) { return pieces == 3 ? 0 : pieces == 2 ? 3 : 5; }

inline constexpr std::uint32_t kUpper = 0xffff0000, kMagnitude = 0x7fffffff, kInfinity = 0x7f800000, kLargest = 0x7f7f0000;
inline constexpr std::uint32_t kRoundsUpToInfinity = 0x7f7f8000;  // a magnitude from here on does

TRAINSTEP_INLINE U32 round_to_nearest_even(U32 x) { return (x + 0x7fff + ((x >> 16) & 1)) & kUpper; }

// bits[p]: piece p of x, a float32 whose lower half is 0. large: some lane has a magnitude of kRoundsUpToInfinity or more.
template <int pieces, bool large>
TRAINSTEP_INLINE void split(F32 x, U32* bits) {
    U32 first = round_to_nearest_even((U32)x);
    if constexpr (large) {
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

    static constexpr std::size_t steps(std::size_t k) {
        return (k + Unit::kGroup * Unit::kSteps - 1) / (Unit::kGroup * Unit::kSteps) * Unit::kSteps;
    }
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
template <class Panel>
TRAINSTEP_INLINE bool has_special(const Lane* panel, int pieces, std::size_t k) {
    return reinterpret_cast<const std::uint32_t&>(panel[Panel::size(pieces, k) - Panel::line]) != 0;
}

// Where a panel comes from: lane i of step k is at[i * lane + k * step]; one of them is 1.
struct Source {
    const float* at;
    std::size_t lane, k;
};

// First pieces without what is not finite: each half of a lane by itself (the lower one is 0 where a lane has one piece).
inline void copy_finite(Lane* to, const Lane* from, std::size_t n) {
    for_each_vector<float>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
        const U32 x = (U32)get<float>(reinterpret_cast<const float*>(from) + i, part);
        const U32 upper = (U32)((x & kInfinity) != kInfinity), lower = (U32)(((x << 16) & kInfinity) != kInfinity);
        put<float>(reinterpret_cast<float*>(to) + i, part, (F32)(x & ((upper & kUpper) | (lower & ~kUpper))));
    });
}

// Returns whether any number is not finite. kWidth elements of k, from k0 on, of a panel of `count` lanes. Lanes past the last are
// of no meaning; elements of k past the last are 0.
template <int pieces, int lanes>
bool pack_steps(Lane* panel, Source source, std::size_t count, std::size_t k, std::size_t k0) {
    using Panel = PanelOf<lanes>;
    constexpr std::size_t width = kWidth<float>;
    constexpr int group = Unit::kGroup;
    bool special = false;
    const std::size_t piece = Panel::piece(k), padded_k = Panel::steps(k) * group, some = k0 < k ? least(width, k - k0) : 0;
    // A block of kWidth x kWidth elements, of the lanes from `first` on.
    const auto pack_block = [&](std::size_t first, auto in_part, auto out_part) __attribute__((always_inline)) {
        const std::size_t here = least(width, count - first);
        const float* at = source.at + first * source.lane + k0 * source.k;
        F32 x[width];
        if (source.lane == 1) {
            if (some == width) {
#pragma GCC unroll 16
                for (std::size_t i = 0; i < width; ++i) x[i] = get<float>(at + i * source.k, in_part);
            } else {
                for (std::size_t i = 0; i < width; ++i) x[i] = i < some ? get<float>(at + i * source.k, in_part) : zero<float>();
            }
        } else {
            if (some == width && here == width) {
#pragma GCC unroll 16
                for (std::size_t i = 0; i < width; ++i) x[i] = load(at + i * source.lane);
            } else {
                const Tail<float> part{std::ptrdiff_t(some)};
                for (std::size_t i = 0; i < width; ++i) x[i] = load_partial(at + least(i, here - 1) * source.lane, part);
            }
            transpose<float>(x);
        }
        U32 large{};
#pragma GCC unroll 16
        for (std::size_t i = 0; i < width; ++i) large |= (U32)(((U32)x[i] & kMagnitude) >= kRoundsUpToInfinity);
        const auto write = [&](auto is_large) __attribute__((always_inline)) {
            Lane* to = panel + k0 / group * lanes + first;
#pragma GCC unroll 16
            for (std::size_t i = 0; i < width; i += group, to += lanes) {
                if (k0 + i >= padded_k) break;
                U32 bits[group][pieces];
                for (int j = 0; j < group; ++j) split<pieces, is_large>(x[i + std::size_t(j)], bits[j]);
                for (int p = 0; p < pieces; ++p) {
                    U32 lane = bits[0][p];
                    if constexpr (group == 2) lane = lane >> 16 | bits[group - 1][p];
                    put<float>(reinterpret_cast<float*>(to + std::size_t(p) * piece), out_part, (F32)lane);
                }
            }
        };
        if (!any_bit(large)) return write(std::false_type{});
        U32 not_finite{};
        for (std::size_t i = 0; i < width; ++i) not_finite |= (U32)(((U32)x[i] & kMagnitude) >= kInfinity);
        special |= any_bit(not_finite);
        write(std::true_type{});
    };
    for (std::size_t first = 0; first < count; first += width) {
        const Tail<float> in{std::ptrdiff_t(least(width, count - first))};
        if (first + width > lanes)
            pack_block(first, in, Tail<float>{std::ptrdiff_t(lanes - first)});
        else if (first + width > count)
            pack_block(first, in, Full{});
        else
            pack_block(first, Full{}, Full{});
    }
    return special;
}

// Panels of `count` lanes in all and one block of k, one behind the other.
template <int pieces, int lanes>
void pack_panels(Lane* packed, Source source, std::size_t count, std::size_t k) {
    using Panel = PanelOf<lanes>;
    constexpr std::size_t width = kWidth<float>;
    const std::size_t size = Panel::size(pieces, k), panels = (count + lanes - 1) / lanes,
                      padded_k = Panel::steps(k) * Unit::kGroup;
    const auto pack = [=](std::size_t p, std::size_t k0) __attribute__((always_inline)) {
        const Source own{source.at + p * lanes * source.lane, source.lane, source.k};
        if (pack_steps<pieces, lanes>(packed + p * size, own, least(lanes, count - p * lanes), k, k0) && pieces > 1)
            has_special<Panel>(packed + p * size, pieces, k) = 1;
    };
    for (std::size_t p = 0; pieces > 1 && p < panels; ++p) has_special<Panel>(packed + p * size, pieces, k) = 0;
    if (source.lane == 1) {  // rows of the array are read from end to end
        for (std::size_t k0 = 0; k0 < padded_k; k0 += width)
            for (std::size_t p = 0; p < panels; ++p) pack(p, k0);
    } else {
        for (std::size_t p = 0; p < panels; ++p)
            for (std::size_t k0 = 0; k0 < padded_k; k0 += width) pack(p, k0);
    }
    for (std::size_t p = 0; pieces > 1 && p < panels; ++p)
        if (Lane* const panel = packed + p * size; has_special<Panel>(panel, pieces, k))
            copy_finite(panel + std::size_t(pieces) * Panel::piece(k), panel, Panel::piece(k));
}

template <int pieces>
void pack_a(Lane* packed, const Gemm<float>& g, std::size_t i, std::size_t m, std::size_t k0, std::size_t k) {
    const std::size_t size = PanelA::size(pieces, k);
    pack_panels<pieces, Unit::kRows>(packed, {g.a + i * g.a_row + k0 * g.a_k, g.a_row, g.a_k}, m, k);
    for (std::size_t r = 0; r < m; r += Unit::kRows, packed += size) {
        const bool special = pieces > 1 && has_special<PanelA>(packed, pieces, k);
        Unit::arrange_a(packed, std::size_t(pieces + special) * PanelA::steps(k));
    }
}
template <int pieces>
void pack_b(Lane* packed, const Gemm<float>& g, std::size_t j, std::size_t n, std::size_t k0, std::size_t k) {
    pack_panels<pieces, Unit::kColumns>(packed, {g.b + j * g.b_column + k0 * g.b_k, g.b_column, g.b_k}, n, k);
}

// What several may pack side by side begins at multiples of it: of a panel's columns, of the elements of k of a step of tiles.
inline constexpr std::size_t kGrain = 32;
static_assert(kGrain % Unit::kColumns == 0 && kGrain % (Unit::kGroup * Unit::kSteps) == 0 && Unit::kBlock % kGrain == 0);

// All of B: block by block of k its panels. (Panel by panel, those of one block would fall on few sets of L2.)
TRAINSTEP_INLINE std::size_t panels_of(const Gemm<float>& g) { return (g.n + Unit::kColumns - 1) / Unit::kColumns; }
TRAINSTEP_INLINE std::size_t place_in_packed(int pieces, const Gemm<float>& g, std::size_t j, std::size_t k0) {
    return k0 / Unit::kBlock * panels_of(g) * PanelB::size(pieces, Unit::kBlock) +
           j / Unit::kColumns * PanelB::size(pieces, least(Unit::kBlock, g.k - k0));
}
// Columns [n0, n1) and elements [k0, k1) of it, which may lie in several blocks: whether all are finite. (The copies of what is
// finite are not made, for a block's elements may come from several threads.)
template <int pieces>
bool pack_part(Lane* packed, const Gemm<float>& g, std::size_t n0, std::size_t n1, std::size_t k0, std::size_t k1) {
    bool special = false;
    for (std::size_t first = k0; first < k1; first += kWidth<float>) {
        const std::size_t block = first / Unit::kBlock * Unit::kBlock, k = least(Unit::kBlock, g.k - block);
        for (std::size_t j = n0; j < n1; j += Unit::kColumns) {
            const Source source{g.b + j * g.b_column + block * g.b_k, g.b_column, g.b_k};
            special |= pack_steps<pieces, Unit::kColumns>(packed + place_in_packed(pieces, g, j, block), source,
                                                          least(Unit::kColumns, n1 - j), k, first - block);
        }
    }
    return !special;
}

// --- terms -------------------------------------------------------------------------------------------------------------------

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

// --- the loops around them ---------------------------------------------------------------------------------------------------

inline constexpr std::size_t kBlockRows = 192 / Unit::kRows * Unit::kRows;

// Panels of B in a block that stays in L2.
TRAINSTEP_INLINE std::size_t panels_of_block(int pieces, const GemmBlocks& blocks) {
    const std::size_t bytes = std::size_t(pieces) * PanelB::piece(Unit::kBlock) * sizeof(Lane);
    return blocks.packed_b < 2 * bytes ? 1 : blocks.packed_b / bytes;
}

template <int pieces>
void multiply(const Gemm<float>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1, const GemmBlocks& blocks,
              Lane* scratch) {
    constexpr std::size_t rows = Unit::kRows, columns = Unit::kColumns;
    const std::size_t block_k = g.chain ? g.chain : Unit::kBlock, block_n = panels_of_block(pieces, blocks) * columns;
    Lane* const packed_a = scratch;
    Lane* const packed_b = scratch + kBlockRows / rows * PanelA::size(pieces, Unit::kBlock);
    const auto* const kept = static_cast<const Lane*>(g.packed_b);
    Unit::begin();
    const bool relu_backward = g.derivative.kind == ActivationKind::relu;
    for (std::size_t jc = n0; jc < n1; jc += block_n) {
        const std::size_t nc = least(block_n, n1 - jc);
        for (std::size_t pc = 0; pc < g.k; pc += block_k) {
            const std::size_t kc = least(block_k, g.k - pc), steps = PanelA::steps(kc);
            const bool last_k = pc + kc >= g.k;
            const Lane* const block_b = kept ? kept + place_in_packed(pieces, g, jc, pc) : packed_b;
            if (!kept) pack_b<pieces>(packed_b, g, jc, nc, pc, kc);
            TermPlaces terms[2][2];
            for (int a = 0; a < 2; ++a)
                for (int b = 0; b < 2; ++b) terms[a][b] = term_places<pieces>(kc, a == 1, b == 1);
            const auto is_special = [=]<class Panel>(const Lane* panel, Panel) {
                return pieces > 1 && has_special<Panel>(panel, pieces, kc);
            };
            for (std::size_t ic = m0; ic < m1; ic += kBlockRows) {
                const std::size_t mc = least(kBlockRows, m1 - ic);
                pack_a<pieces>(packed_a, g, ic, mc, pc, kc);
                for (std::size_t jr = 0; jr < nc; jr += columns) {
                    const std::size_t n = least(columns, nc - jr);
                    const Lane* const b = block_b + jr / columns * PanelB::size(pieces, kc);
                    for (std::size_t ir = 0; ir < mc; ir += rows) {
                        const Lane* const a = packed_a + ir / rows * PanelA::size(pieces, kc);
                        const std::size_t at = (ic + ir) * g.ldc + jc + jr;
                        const Finish<float> finish{pc > 0 || g.accumulate, last_k && g.bias ? g.bias + jc + jr : nullptr,
                                                   last_k && g.scale ? g.scale + jc + jr : nullptr,
                                                   last_k && g.activation.kind == ActivationKind::relu,
                                                   last_k && relu_backward ? g.source + at : nullptr};
                        Unit::multiply(g.c + at, g.ldc, a, b, steps, terms[is_special(a, PanelA{})][is_special(b, PanelB{})],
                                       least(rows, mc - ir), n, finish);
                    }
                }
                if (last_k && g.activation.kind != ActivationKind::relu) activate_block(g, ic, ic + mc, jc, jc + nc);
                if (last_k && !relu_backward) differentiate_block(g, ic, ic + mc, jc, jc + nc);
            }
        }
    }
    Unit::end();
}

}  // namespace trainstep::TRAINSTEP_ISA::pieces

namespace trainstep::TRAINSTEP_ISA {

// In floats.
inline std::size_t gemm_pieces_scratch(const GemmBlocks& blocks) {
    using namespace pieces;
    std::size_t most = 0;
    for (int p = 1; p <= kMostPieces; ++p) {
        const std::size_t size =
            kBlockRows / Unit::kRows * PanelA::size(p, Unit::kBlock) + panels_of_block(p, blocks) * PanelB::size(p, Unit::kBlock);
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

inline std::size_t packed_pieces(const Gemm<float>& g) {
    using namespace pieces;
    const int count = pieces_of(g.precision);
    const std::size_t rest = g.k % Unit::kBlock;
    const std::size_t whole = g.k / Unit::kBlock * PanelB::size(count, Unit::kBlock);
    return panels_of(g) * (whole + (rest ? PanelB::size(count, rest) : 0)) * sizeof(Lane);
}

inline bool pack_pieces(void* packed, const Gemm<float>& g, std::size_t n0, std::size_t n1, std::size_t k0, std::size_t k1) {
    auto* const lanes = static_cast<pieces::Lane*>(packed);
    switch (pieces_of(g.precision)) {
        case 1:
            return pieces::pack_part<1>(lanes, g, n0, n1, k0, k1);
        case 2:
            return pieces::pack_part<2>(lanes, g, n0, n1, k0, k1);
        default:
            return pieces::pack_part<3>(lanes, g, n0, n1, k0, k1);
    }
}

}  // namespace trainstep::TRAINSTEP_ISA
#endif
