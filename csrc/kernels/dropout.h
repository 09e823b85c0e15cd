// Dropout: which elements are kept is a function of (seed, counter, element) alone, so that the backward can draw the same mask
// again, and any share of an array is drawn by itself.
//
// Element e compares the 32-bit word e / 16 % 4 of the Philox block 16 * (e / 64) + e % 16 with a threshold. (Sixteen blocks side
// by side give their 64 words without moving one between lanes, on every width.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace trainstep {

struct DropoutMask {
    std::uint64_t seed;
    std::uint32_t counter;    // the stream: of a training run the step, so that each has a mask of its own
    std::uint32_t threshold;  // kept where word >= threshold: with a probability of 1 - threshold / 2^32
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/loops.h"
#include "runtime/philox_constants.h"

namespace trainstep::TRAINSTEP_ISA::dropout {

inline constexpr std::size_t kWords = 64;  // of sixteen blocks

// Word w of the Philox block 16 * group + b to words[16 * w + b]: philox4x32 of runtime/philox.h on (block, counter, dropout).
TRAINSTEP_INLINE void random_words(std::uint32_t* words, std::uint64_t group, const DropoutMask& mask) {
    for (std::uint64_t b = 0; b < 16; b += kWidth<float>) {
        // Every other block in one vector and those between in another, each number in the lower half of 64 bits, where products
        // are taken. What stands in the upper half is never looked at.
        U64 c[2][4];
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; ++odd) {
            const U64 block = ((U64)lane_index<double>() << 1) + (16 * group + b + std::uint64_t(odd));
            c[odd][0] = block, c[odd][1] = block >> 32;
            c[odd][2] = U64{} + mask.counter, c[odd][3] = U64{} + std::uint64_t(Purpose::dropout);
        }
        std::uint32_t k0 = std::uint32_t(mask.seed), k1 = std::uint32_t(mask.seed >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxWeyl[0], k1 += kPhiloxWeyl[1]) {
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; ++odd) {
                const U64 p0 = multiply_wide(c[odd][0], kPhiloxMultiplier[0]), p1 = multiply_wide(c[odd][2], kPhiloxMultiplier[1]);
                c[odd][0] = (p1 >> 32) ^ c[odd][1] ^ std::uint64_t(k0), c[odd][1] = p1;
                c[odd][2] = (p0 >> 32) ^ c[odd][3] ^ std::uint64_t(k1), c[odd][3] = p0;
            }
        }
#pragma GCC unroll 4
        for (std::size_t w = 0; w < 4; ++w) {
            const U64 both = (c[0][w] & 0xffffffff) | (c[1][w] << 32);
            __builtin_memcpy(words + 16 * w + b, &both, sizeof both);
        }
    }
}

// Calls body(i, words, count) for the n elements from element `first` on, up to kWords at a time: words[k] is that of element i +
// k.
template <class Body>
TRAINSTEP_INLINE void for_each_word(std::size_t first, std::size_t n, const DropoutMask& mask, Body body) {
    alignas(64) std::uint32_t words[kWords];
    for (std::size_t i = 0; i < n;) {
        const std::size_t at = (first + i) % kWords, count = least(kWords - at, n - i);
        random_words(words, (first + i) / kWords, mask);
        if (count == kWords)
            body(i, words, kWords);
        else
            body(i, words + at, count);
        i += count;
    }
}

// y = x * scale where an element is kept, and 0 elsewhere: y and x are n elements from element `first` of their array on. y may be
// x. kept: 1 where an element is kept and 0 elsewhere, or null where it is not wanted.
template <class T>
void dropout(T* y, std::uint8_t* kept, const T* x, std::size_t first, std::size_t n, const DropoutMask& given, T scale) {
    const DropoutMask mask = given;
    for_each_word(first, n, mask, [=](std::size_t i, const std::uint32_t* words, std::size_t count) __attribute__((always_inline)) {
        T to[kWords];  // by itself, so that the loops are free of what y, x and kept may share
        for (std::size_t k = 0; k < count; ++k) {
            const T v = x[i + k] * scale;
            to[k] = words[k] >= mask.threshold ? v : T(0);
        }
        __builtin_memcpy(y + i, to, count * sizeof(T));
        if (!kept) return;
        std::uint8_t bytes[kWords];
        for (std::size_t k = 0; k < count; ++k) bytes[k] = words[k] >= mask.threshold;
        __builtin_memcpy(kept + i, bytes, count);
    });
}

// The same with a mask that is there: y = x * scale where kept is not 0.
template <class T>
void dropout_masked(T* y, const std::uint8_t* kept, const T* x, std::size_t n, T scale) {
    for (std::size_t i = 0; i < n; i += kWords) {
        const auto part = [=](std::size_t count) __attribute__((always_inline)) {
            T to[kWords];
            for (std::size_t k = 0; k < count; ++k) {
                const T v = x[i + k] * scale;
                to[k] = kept[i + k] ? v : T(0);
            }
            __builtin_memcpy(y + i, to, count * sizeof(T));
        };
        n - i >= kWords ? part(kWords) : part(n - i);
    }
}

}  // namespace trainstep::TRAINSTEP_ISA::dropout
#endif
