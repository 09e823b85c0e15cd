// Philox4x32-10: a counter-based random generator. (key, counter) gives four 32-bit words, so that a draw depends on what it is
// for, never on which thread or ISA level asks, or on what was drawn before. Salmon, Moraes, Dror, Shaw: Parallel random numbers:
// as easy as 1, 2, 3 (SC 2011), section 3.3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/philox_constants.h"

namespace trainstep {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

inline PhiloxCounter philox4x32(PhiloxCounter c, PhiloxKey k) {
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier[0]} * c[0];
        const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier[1]} * c[2];
        c = {std::uint32_t(p1 >> 32) ^ c[1] ^ k[0], std::uint32_t(p1), std::uint32_t(p0 >> 32) ^ c[3] ^ k[1], std::uint32_t(p0)};
        k[0] += kPhiloxWeyl[0];
        k[1] += kPhiloxWeyl[1];
    }
    return c;
}

// Two words make 53 bits: a uniform number in (0, 1), both ends left out.
inline double unit(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t bits = (std::uint64_t(high) << 32 | low) >> 12;
    return (double(bits) + 0.5) * 0x1p-52;
}

// Numbers of one purpose and stream: at(i) is the i-th block of four words. seed is the 64-bit key; stream tells apart what has the
// same purpose (the parameter, the epoch).
struct PhiloxStream {
    std::uint64_t seed;
    Purpose purpose;
    std::uint32_t stream;

    PhiloxCounter at(std::uint64_t i) const {
        return philox4x32({std::uint32_t(i), std::uint32_t(i >> 32), stream, std::uint32_t(purpose)},
                          {std::uint32_t(seed), std::uint32_t(seed >> 32)});
    }
};

// out[i] uniform between low and high (rounding to T may reach either), or normal with mean 0 and the given standard deviation.
template <class T>
void random_uniform(T* out, std::size_t n, PhiloxStream stream, double low, double high);
template <class T>
void random_normal(T* out, std::size_t n, PhiloxStream stream, double std);

// A random order of 0 .. n-1 (Fisher and Yates).
void random_permutation(std::int64_t* out, std::size_t n, PhiloxStream stream);

}  // namespace trainstep
