// Probes: what one thread can do at most, the roofline that the other kernels are held against. A loop of multiply-adds in
// registers, and passes over arrays that do next to nothing but load and store.
#pragma once

#include "kernels/lists.h"

// Name, arrays read, arrays written, arrays in all. adam moves what one Adam step moves: it reads w, m, v, g and writes w, m, v.
#define TRAINSTEP_STREAMS(X) X(read, 1, 0, 1) X(write, 0, 1, 1) X(copy, 1, 1, 2) X(update, 1, 1, 1) X(adam, 4, 3, 4)

namespace trainstep {
TRAINSTEP_FAMILY(Stream, TRAINSTEP_STREAMS)

struct StreamTraffic {
    std::size_t reads, writes, arrays;
};
#define TRAINSTEP_TRAFFIC(name, ...) {__VA_ARGS__},
inline constexpr StreamTraffic kStreamTraffic[] = {TRAINSTEP_STREAMS(TRAINSTEP_TRAFFIC)};
#undef TRAINSTEP_TRAFFIC

inline constexpr std::size_t kStreamGrain = 128;  // floats: eight of the widest vectors

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/simd.h"

namespace trainstep::TRAINSTEP_ISA {

// sum_k += a * b on as many sums as hide the latency of an fma (4 cycles, on up to 4 units). Each a is opaque, so that no product
// is shared between two sums: without FMA instructions the multiplies would go.
inline constexpr int kFmaChains = kVectorRegisters == 32 ? 20 : 12;

template <class T, int... k>
TRAINSTEP_INLINE T fma_chains(std::size_t rounds, std::integer_sequence<int, k...>) {
    Vec<T> sum[] = {set1<T>(T(k))...};
    Vec<T> a = set1<T>(T(0x1p-10));
    const Vec<T> b = a;
    for (; rounds > 0; --rounds) ((opaque(a), sum[k] = fma(a, b, sum[k])), ...);
    return reduce_add<T>((sum[k] + ...));
}

template <class T>
T fma_probe(std::size_t rounds) {
    return fma_chains<T>(rounds, std::make_integer_sequence<int, kFmaChains>{});
}

namespace streams {

// f(i, k) for every vector, i its first element; eight a turn, of which it is the k-th.
template <class F>
TRAINSTEP_INLINE void for_each_vector_of_eight(std::size_t n, F f) {
    for (std::size_t i = 0; i < n; i += 8 * kWidth<float>)
        for (int k = 0; k < 8; ++k) f(i + std::size_t(k * kWidth<float>), k);
}

// Opaque values: the compiler knows memset and memcpy in a loop, and would call them.
inline float read(float* const* a, std::size_t n) {
    F32 sum[8] = {};
    for_each_vector_of_eight(n, [&](std::size_t i, int k) __attribute__((always_inline)) { sum[k] += load(a[0] + i); });
    return reduce_add<float>(((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
}

inline float write(float* const* a, std::size_t n) {
    F32 v = zero<float>();
    opaque(v);
    for_each_vector_of_eight(n, [=](std::size_t i, int) __attribute__((always_inline)) { store<float>(a[0] + i, v); });
    return 0;
}

inline float copy(float* const* a, std::size_t n) {
    for_each_vector_of_eight(n, [y = a[0], x = a[1]](std::size_t i, int) __attribute__((always_inline)) {
        F32 v = load(x + i);
        opaque(v);
        store<float>(y + i, v);
    });
    return 0;
}

inline float update(float* const* a, std::size_t n) {
    const F32 c = set1<float>(1);
    for_each_vector_of_eight(
        n, [=, x = a[0]](std::size_t i, int) __attribute__((always_inline)) { store<float>(x + i, load(x + i) + c); });
    return 0;
}

// No root and no division: they, and not the memory, would be what is measured in L1.
inline float adam(float* const* a, std::size_t n) {
    const F32 c = set1<float>(0.125f);
    for_each_vector_of_eight(n, [=, w = a[0], m = a[1], v = a[2], g = a[3]](std::size_t i, int) __attribute__((always_inline)) {
        const F32 dw = load(g + i), first = fma(c, dw - load(m + i), load(m + i)), second = fma(c, dw - load(v + i), load(v + i));
        store<float>(m + i, first);
        store<float>(v + i, second);
        store<float>(w + i, fma(c, first, load(w + i)));
    });
    return 0;
}

}  // namespace streams

}  // namespace trainstep::TRAINSTEP_ISA
#endif
