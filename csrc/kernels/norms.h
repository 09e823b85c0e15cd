// Norms of arrays, and what their elements are multiplied with or clamped to.
#pragma once

#include "kernels/staging.h"

namespace trainstep::TRAINSTEP_ISA::norms {

// The sum of (scale * x)^2 in double precision: not finite where an x is not (float32 and less cannot overflow there).
template <class T>
double sum_of_squares(const void* x, Dtype dtype, std::size_t n, double scale) {
    constexpr Dtype own = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    alignas(64) T staged[kBlock];
    F64 sums[2] = {};
    for (std::size_t first = 0; first < n; first += kBlock) {
        const std::size_t count = n - first < kBlock ? n - first : kBlock;
        const T* block = static_cast<const T*>(x) + first;
        if (dtype != own) storage::load_as<T>(staged, x, dtype, first, count), block = staged;
        std::size_t k = 0;
        for_each_vector<T>(count, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            F64& sum = sums[k++ & 1];
            Vec<T> v = get<T>(block + i, part);
            if constexpr (sizeof(T) == 8) v = v * scale;
            sum = add_squares(sum, v);
        });
    }
    const double scaled = reduce_add<double>(sums[0] + sums[1]);
    return sizeof(T) == 8 ? scaled : scaled * scale * scale;
}

// x = factor * x, and x clamped to [-limit, limit]; NaN stays.
template <class T>
void scale(T* x, std::size_t n, T factor) {
    map(x, x, n, [=](Vec<T> v) __attribute__((always_inline)) { return factor * v; });
}
template <class T>
void clamp(T* x, std::size_t n, T limit) {
    map(x, x, n, [=](Vec<T> v) __attribute__((always_inline)) { return min(set1<T>(limit), max(set1<T>(-limit), v)); });
}

// The largest |x|; NaN where one is NaN.
template <class T>
T max_abs(const T* x, std::size_t n) {
    Vec<T> most{};
    for_each_vector<T>(n, [&](std::size_t i, auto part) __attribute__((always_inline)) {
        const Vec<T> a = abs(get<T>(x + i, part));
        most = most != most ? most : max(most, a);
    });
    T result = T(0);
    for (int i = 0; i < kWidth<T>; ++i) result = most[i] > result || most[i] != most[i] ? most[i] : result;
    return result;
}

}  // namespace trainstep::TRAINSTEP_ISA::norms
