// Numbers as they are stored where that is not how they are calculated with: bfloat16, float16, and states of 8 bits.
//
// States are rounded stochastically: up or down with the probability that makes the mean right, so that the small changes of a
// moving average are not lost. The random bits are a function of (seed, array, state, step, element).
//
// Eight bits are a float whose exponent counts down from that of the block: of kBlock elements the largest has exponent E, and a
// code of e exponent bits and m mantissa bits stands for 2^(E - (2^e - 1) + exponent) * (1 + mantissa / 2^m). Code 0 is 0. States
// with a sign have 1 + 4 + 3 bits, from 2^-15 of the largest; those without have 5 + 3, from 2^-31, since squares span twice the
// exponents. Decoding is a shift and an addition to the exponent field: no table and no product. What has no sign is never rounded
// to 0, down to 2^-129: that would be a division by eps. A block with a NaN or an infinity decodes to NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lists.h"

// What parameters and gradients may be.
#define TRAINSTEP_DTYPES(X) X(float32) X(float64) X(bfloat16) X(float16)

namespace trainstep {
TRAINSTEP_FAMILY(Dtype, TRAINSTEP_DTYPES)

enum class StateFormat { native, bfloat16, eight_bits };

inline constexpr std::size_t kBlock = 256;  // elements that share an exponent, and that are stepped at a time

inline constexpr std::size_t dtype_size(Dtype dtype) { return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2; }

// A state of float32 in fewer bits.
struct LowBitState {
    void* data;
    std::uint8_t* exponents;  // of eight bits: one a block
    StateFormat format;
    bool with_sign;
};

// Where a span begins, for its random bits: a key for its array and the step, and the number of its first block.
struct RandomPlace {
    std::uint32_t key, block;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/simd.h"

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

// --- random bits -------------------------------------------------------------------------------------------------------------

// The random bits of one block of elements: 64 words, a byte for each, as one line of bytes that closes to a ring. A value takes 32
// bits from one of them on. Of these the lower ones are rounded away or shared with the values beside it; the byte that counts most
// is its own.
struct RandomBits {
    alignas(64) std::uint32_t words[64 + 1];

    // x with that added below the last bit that is kept, of 2^bits, for state s of elements i and on: each quarter of a block and
    // each state begin with another byte. What is below that bit is then to be cut off.
    template <int bits>
    TRAINSTEP_INLINE U32 add_below(F32 x, std::size_t i, int s) const {
        U32 word;
        __builtin_memcpy(&word, reinterpret_cast<const char*>(words + i % 64) + (i / 64 + std::size_t(s)) % 4, sizeof word);
        return (U32)x + (word & ((1u << bits) - 1));
    }
};

// Word j of the array is the finalizer of MurmurHash3 (Appleby, 2011), a bijection whose every output bit hangs on every input bit,
// of j ^ key. Rounding asks for no more, and Philox would take a fifth of a step's time.
inline void fill(RandomBits& random, RandomPlace place) {
    for (std::uint32_t i = 0; i < 64; i += kWidth<float>) {
        U32 x = ((U32)lane_index<float>() + (64 * place.block + i)) ^ place.key;
        x = multiply_low(x ^ (x >> 16), 0x85ebca6b);
        x = multiply_low(x ^ (x >> 13), 0xc2b2ae35);
        x ^= x >> 16;
        __builtin_memcpy(random.words + i, &x, sizeof x);
    }
    random.words[64] = random.words[0];
}

// --- eight bits --------------------------------------------------------------------------------------------------------------

inline constexpr int kRoundedBits = 20;                        // of float32's 23 mantissa bits 3 are kept
inline constexpr std::uint32_t kOneStep = 1u << kRoundedBits;  // of the last bit that is kept
inline constexpr std::uint32_t kNonFinite = 255;               // the exponent of a block with a NaN or an infinity

// What the codes of a block stand for. Only the upper 16 bits of a float32 are needed to tell.
template <bool is_signed>
struct BlockOfCodes {
    std::uint16_t base;  // what the magnitude of a code, shifted to its place, is added to

    explicit BlockOfCodes(std::uint8_t exponent) : base(std::uint16_t((exponent - (is_signed ? 15u : 31u)) << 7)) {}

    TRAINSTEP_INLINE Pair decode(const std::uint8_t* p) const {
        if constexpr (is_signed) {
            const U16 codes = widen_signed(p), fields = (codes << 4) & 0x87f0;
            return as_upper_halves((codes & 0x7f) != 0 ? fields + base : fields);
        } else {
            const U16 fields = widen(p) << 4;
            return as_upper_halves(fields != 0 ? fields + base : fields);
        }
    }
    // Of values no larger than the block's largest, to which add_below has been applied: even that one stays below the code after
    // the last. Of 0 that leaves less than 16 in the upper half: all else (from 2^-129 on) without a sign has a code of at least 1.
    TRAINSTEP_INLINE void encode(std::uint8_t* p, Pair x) const {
        const U16 bits = upper_halves(x), above = subtract_or_0(is_signed ? bits & 0x7fff : bits, U16{} + base);
        if constexpr (is_signed) return narrow(p, (above >> 4) | ((bits >> 8) & 0x80));
        const U16 least = bits < 16 ? bits : U16{} + std::uint16_t(16);
        narrow(p, (above > least ? above : least) >> 4);
    }
    // In a block of exponent kNonFinite these stand for NaN.
    static void fill_nan(std::uint8_t* codes) { __builtin_memset(codes, is_signed ? 0x7f : 0xff, kBlock); }
};

// The magnitudes of a block, of which the largest decides on its exponent.
struct Largest {
    U32 bits{};

    TRAINSTEP_INLINE void add(F32 x, bool is_signed) {
        const U32 magnitude = is_signed ? (U32)abs(x) : (U32)x;
        bits = magnitude > bits ? magnitude : bits;
    }
    TRAINSTEP_INLINE std::uint8_t exponent() const {
        const float most = reduce_halves<float, kWidth<float> / 2>(
            (F32)bits, [](F32 a, F32 b) __attribute__((always_inline)) { return (F32)((U32)a > (U32)b ? (U32)a : (U32)b); });
        const std::uint32_t largest = __builtin_bit_cast(std::uint32_t, most);
        if (largest >= kNonFinite << 23) return kNonFinite;
        // It must not round up past the last code; below exponent 32 codes reach down to the smallest normal number.
        const std::uint32_t exponent = (largest + (kOneStep - 1)) >> 23;
        return std::uint8_t(exponent < 32 ? 32 : exponent);
    }
};

}  // namespace trainstep::TRAINSTEP_ISA::storage
#endif
