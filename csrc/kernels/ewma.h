// Moving averages: exponentially weighted ones down the columns of an array, and a step of one towards new values.
#pragma once

#include "kernels/wide.h"

namespace trainstep::TRAINSTEP_ISA {

// y_t = beta * y_(t-1) + (1 - beta) * x_t with y before the first row 0, for the columns [n0, n1) of `rows` rows that are `columns`
// elements long. bias_correction: divided by the weights of x so far, 1 - beta^t, which are the average of ones. y may be x. In
// double precision, or the roundings of 1 / (1 - beta) rows would add up.
template <class T>
void ewma(T* y, const T* x, std::size_t rows, std::size_t columns, std::size_t n0, std::size_t n1, double beta,
          bool bias_correction) {
    for_each_strip<T>(n0, n1, [=](std::size_t j, auto part, auto strip) __attribute__((always_inline)) {
        constexpr int vectors = decltype(strip)::count;
        const double rest = 1 - beta;
        const Wide<T> keep = wide1<T>(beta);
        Wide<T> average[vectors] = {};
        double weight = 0;
        for (std::size_t t = 0; t < rows; ++t) {
            weight = beta * weight + rest;
            const double factor = bias_correction ? 1 / weight : 1;
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) {
                const std::size_t at = t * columns + j + std::size_t(v) * kWidth<T>;
                average[v] = fma(keep, average[v], rest * wide(get<T>(x + at, part)));
                put<T>(y + at, part, rounded(factor * average[v]));
            }
        }
    });
}

// average += rate * (x - average): one that is equal to x stays so, to the bit.
template <class T>
void approach(T* average, const T* x, std::size_t n, T rate) {
    zip<T>(average, average, x, n, [=](Vec<T> a, Vec<T> v) __attribute__((always_inline)) { return fma(set1<T>(rate), v - a, a); });
}

}  // namespace trainstep::TRAINSTEP_ISA
