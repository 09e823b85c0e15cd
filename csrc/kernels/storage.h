// Numbers as they are stored where that is not how they are calculated with: bfloat16, float16, and states of 8 bits.
//
// Kernels take them through a staging buffer in L1, kBlock elements at a time. States are rounded stochastically: up or down with
// the probability that makes the mean right, so that the small changes of a moving average are not lost. The random bits are a
// function of (seed, array, state, step, element).
//
// Eight bits are a float whose exponent counts down from that of the block: of kBlock elements the largest has exponent E, and a
// code of e exponent bits and m mantissa bits stands for 2^(E - (2^e - 1) + exponent) * (1 + mantissa / 2^m). Code 0 is 0. States
// with a sign have 1 + 4 + 3 bits, from 2^-15 of the largest; those without have 5 + 3, from 2^-31, since squares span twice the
// exponents. Decoding is a shift and an addition to the exponent field: no table and no product. What has no sign is never rounded
// to 0: that would be a division by eps. A block with a NaN or an infinity decodes to NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lists.h"

// What parameters and gradients may be.
#define TRAINSTEP_DTYPES(X) X(float32) X(float64) X(bfloat16) X(float16)

namespace trainstep {
TRAINSTEP_FAMILY(Dtype, TRAINSTEP_DTYPES)

enum class StateFormat { native, bfloat16, eight_bits };

inline constexpr std::size_t kBlock = 256;  // elements that share an exponent, and that are staged at a time

inline constexpr std::size_t dtype_size(Dtype dtype) { return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2; }

// Where a span begins, for its random bits: its array, the step, and the number of its first block.
struct RandomPlace {
    std::uint64_t seed;
    std::uint32_t stream, step, block;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/simd.h"
#include "runtime/philox.h"

namespace trainstep::TRAINSTEP_ISA::storage {

// --- 16 bits -----------------------------------------------------------------------------------------------------------------

TRAINSTEP_INLINE F32 from_bfloat16(U32 bits) { return (F32)(bits << 16); }

TRAINSTEP_INLINE F32 from_float16(U32 half) {
    const U32 magnitude = (half & 0x7fff) << 13;
    const F32 value = (F32)magnitude * set1<float>(0x1p112f);  // the product takes care of denormals
    const U32 special = (U32)((I32)magnitude >= iset1<float>(0x7c00 << 13)) & 0x7f800000;
    return (F32)((U32)value | special | (half & 0x8000) << 16);
}

// To nearest, ties to even; NaN stays NaN.
TRAINSTEP_INLINE U32 to_bfloat16(F32 x) {
    const U32 bits = (U32)x;
    const U32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return x == x ? rounded : (bits >> 16) | 0x40;
}

// Up where `below` and the 16 bits below the last one reach 2^16. Infinity and NaN stay.
TRAINSTEP_INLINE U32 to_bfloat16(F32 x, U32 below) {
    const U32 bits = (U32)x;
    const I32 finite = (I32)(bits & 0x7fffffff) < iset1<float>(0x7f800000);
    return x == x ? (bits + (below & (U32)finite)) >> 16 : (bits >> 16) | 0x40;
}

// --- random bits -------------------------------------------------------------------------------------------------------------

// The random bits of one block of elements: 16 Philox blocks of four words. words[r][j] is word r of Philox block j.
struct RandomBits {
    alignas(64) std::uint32_t words[4][16];

    // Calls f(i, below) for the vector of elements from i on, for each of the block: what is added below the last bit that is kept,
    // of 2^bits, for the given state. Vector k = i / 16 of 16 lanes takes byte k / 4 of word k % 4, and every state the bytes of
    // other elements. The 256 values lie in the middle of what they stand for: cut off, they would pull every average down.
    template <int bits, class F>
    TRAINSTEP_INLINE void for_each(int state, F f) const {
        for (int quarter = 0; quarter < 4; ++quarter) {
            const int byte = 8 * ((quarter + state) % 4), up = byte < bits - 8 ? bits - 8 - byte : 0,
                      down = byte > bits - 8 ? byte - (bits - 8) : 0;
            for (int i = 0; i < 64; i += kWidth<float>) {
                U32 word;
                __builtin_memcpy(&word, &words[0][0] + i, sizeof word);
                f(std::size_t(64 * quarter + i), (((word << up) >> down) & (0xffu << (bits - 8))) | 1u << (bits - 9));
            }
        }
    }
};

// The same with one half for all: to nearest.
struct Nearest {
    template <int bits, class F>
    TRAINSTEP_INLINE void for_each(int, F f) const {
        for (std::size_t i = 0; i < kBlock; i += kWidth<float>) f(i, U32{} + (1u << (bits - 1)));
    }
};

inline void fill(RandomBits& bits, RandomPlace place) {
    for (int j = 0; j < 16; j += kWidth<float>) {
        U32 c[4] = {(U32)lane_index<float>() + std::uint32_t(j), U32{} + place.block, U32{} + place.step,
                    U32{} + (place.stream << 2 | std::uint32_t(Purpose::rounding))};
        std::uint32_t key[2] = {std::uint32_t(place.seed), std::uint32_t(place.seed >> 32)};
        for (int round = 0; round < 10; ++round) {
            U32 high0, low0, high1, low1;
            multiply_wide(c[0], kPhiloxMultiplier[0], high0, low0);
            multiply_wide(c[2], kPhiloxMultiplier[1], high1, low1);
            c[0] = high1 ^ c[1] ^ key[0];
            c[1] = low1;
            c[2] = high0 ^ c[3] ^ key[1];
            c[3] = low0;
            key[0] += kPhiloxWeyl[0];
            key[1] += kPhiloxWeyl[1];
        }
        for (int word = 0; word < 4; ++word) __builtin_memcpy(&bits.words[word][j], &c[word], sizeof c[word]);
    }
}

// --- eight bits --------------------------------------------------------------------------------------------------------------

inline constexpr int kMantissaShift = 20;                        // 3 of float32's 23 mantissa bits are kept
inline constexpr std::uint32_t kOneStep = 1u << kMantissaShift;  // of the last bit that is kept
inline constexpr std::uint32_t kNonFinite = 255;                 // the exponent of a block with a NaN or an infinity

// The exponent field that a code's exponent is added to.
template <bool is_signed>
TRAINSTEP_INLINE std::uint32_t exponent_base(std::uint8_t exponent) {
    return (exponent - (is_signed ? 15u : 31u)) << 23;
}

// A block of values from its codes.
template <bool is_signed>
TRAINSTEP_INLINE void decode(float* x, const std::uint8_t* codes, std::uint8_t exponent) {
    const U32 base = U32{} + exponent_base<is_signed>(exponent);
    for (std::size_t i = 0; i < kBlock; i += kWidth<float>) {
        const U32 code = widen(codes + i);
        const U32 magnitude = is_signed ? code & 0x7f : code;
        U32 bits = ((magnitude << kMantissaShift) + base) & (U32)(magnitude != 0);
        if constexpr (is_signed) bits |= (code & 0x80) << 24;
        if (exponent == kNonFinite) bits = U32{} + 0x7fc00000u;
        store<float>(x + i, (F32)bits);
    }
}

// Codes and the exponent of a block of values of the given state.
template <bool is_signed, class Fractions>
TRAINSTEP_INLINE std::uint8_t encode(std::uint8_t* codes, const float* x, const Fractions& fractions, int state) {
    I32 largest{};
    for (std::size_t i = 0; i < kBlock; i += kWidth<float>) {
        const I32 bits = as_bits(abs(load(x + i)));
        largest = bits > largest ? bits : largest;
    }
    std::int32_t most = 0;
    for (int i = 0; i < kWidth<float>; ++i) most = largest[i] > most ? largest[i] : most;
    // The largest must not round up past the last code; below exponent 32 codes reach down to the smallest normal number.
    std::uint32_t exponent = (std::uint32_t(most) + (kOneStep - 1)) >> 23;
    if (std::uint32_t(most) >= kNonFinite << 23) exponent = kNonFinite;
    if (exponent < 32) exponent = 32;
    const U32 base = U32{} + exponent_base<is_signed>(std::uint8_t(exponent));
    // No code is past the last one: the largest value with all that may be added stays below the next.
    fractions.template for_each<kMantissaShift>(state, [=](std::size_t i, U32 below) __attribute__((always_inline)) {
        const U32 bits = (U32)load(x + i), magnitude = bits & 0x7fffffff;
        const I32 code = (I32)(magnitude - base + below) >> kMantissaShift;
        if constexpr (is_signed) {
            narrow(codes + i, (U32)(code > 0 ? code : 0) | ((bits >> 24) & 0x80));
        } else {
            const I32 least = (I32)(magnitude < 1 ? magnitude : U32{} + 1);
            narrow(codes + i, (U32)(code > least ? code : least));
        }
    });
    return std::uint8_t(exponent);
}

}  // namespace trainstep::TRAINSTEP_ISA::storage
#endif
