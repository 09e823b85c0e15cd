// How a float32 product is calculated: from the numbers as they are, or from bf16 pieces that they are cut into.
//
// bfloat16 has float32's exponent and 8 bits of its significand, so that x = x1 + x2 + x3: x1 is x rounded to nearest, ties to
// even, x2 what is left of it, rounded alike, and x3 what is left then. A product of pieces is exact in float32; sums are
// float32's. What is left out of a product of two numbers is at most, of that product:
//   bf16      a1 b1                                            2^-7
//   bf16_x3   a2 b1 + a1 b2 + a1 b1                            3 * 2^-16
//   bf16_x6   a3 b1 + a2 b2 + a1 b3 + a2 b1 + a1 b2 + a1 b1    2^-23
// Small terms are added first.
#pragma once

#include "kernels/lists.h"

// name, pieces, PyTorch's and JAX's name for it
#define TRAINSTEP_PRECISIONS(X) X(float32, 0, "highest") X(bf16_x6, 3, "") X(bf16_x3, 2, "high") X(bf16, 1, "medium")

namespace trainstep {
TRAINSTEP_FAMILY(MatmulPrecision, TRAINSTEP_PRECISIONS)

inline constexpr int kMostPieces = 3;
static constexpr int kPieces[] = {
#define TRAINSTEP_PIECES(name, pieces, alias) pieces,
    TRAINSTEP_PRECISIONS(TRAINSTEP_PIECES)
#undef TRAINSTEP_PIECES
};
inline constexpr std::string_view kMatmulPrecisionAliases[] = {
#define TRAINSTEP_ALIAS(name, pieces, alias) alias,
    TRAINSTEP_PRECISIONS(TRAINSTEP_ALIAS)
#undef TRAINSTEP_ALIAS
};
static constexpr int pieces_of(MatmulPrecision precision) { return kPieces[int(precision)]; }
}  // namespace trainstep
