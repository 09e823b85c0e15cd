// What is asked of weights besides a small loss: l1 * |w| + l2 * w^2 added to it, units of no more than a norm, zeros that stay.
#pragma once

#include "kernels/wide.h"

namespace trainstep::TRAINSTEP_ISA::penalty {

// The sum of l1 * |w| + l2 * w^2, in double precision.
template <class T>
double sum(const T* w, std::size_t n, double l1, double l2) {
    Wide<T> magnitudes{}, squares{};
    for_each_vector<T>(n, [&](std::size_t i, auto part) __attribute__((always_inline)) {
        const Wide<T> a = wide(abs(get<T>(w + i, part)));
        magnitudes = magnitudes + a;
        squares = fma<T>(a, a, squares);
    });
    return (l1 != 0 ? l1 * reduce_add(magnitudes) : 0) + (l2 != 0 ? l2 * reduce_add(squares) : 0);
}

// Its slope on top of a gradient: g += l1 * sign(w) + 2 * l2 * w, sign(0) being 0.
template <class T>
void add_slope(T* g, const T* w, std::size_t n, T l1, T l2) {
    const Vec<T> step = set1<T>(l1), twice = set1<T>(2 * l2);
    for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
        const Vec<T> v = get<T>(w + i, part);
        put<T>(g + i, part, get<T>(g + i, part) + fma(twice, v, step * sign<T>(v)));
    });
}

// x = x where mask is not 0, else 0.
template <class T>
void keep(T* x, const T* mask, std::size_t n) {
    for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
        put<T>(x + i, part, get<T>(mask + i, part) != zero<T>() ? get<T>(x + i, part) : zero<T>());
    });
}

// Of w, (rows, columns), each of the columns [n0, n1) whose Euclidean norm is above max_norm is scaled down to it.
template <class T>
void limit_units(T* w, std::size_t rows, std::size_t columns, std::size_t n0, std::size_t n1, double max_norm) {
    constexpr std::size_t most = 256;
    alignas(64) double squares[most];
    alignas(64) T factors[most];
    for (; n0 < n1; n0 += most) {
        const std::size_t count = least(n1 - n0, most);
        T* const block = w + n0;
        for (std::size_t r = 0; r < rows; ++r)
            for_each_vector<T>(count, [&](std::size_t i, auto part) __attribute__((always_inline)) {
                const Wide<T> v = wide(get<T>(block + r * columns + i, part));
                store_wide<T>(squares + i, fma<T>(v, v, r == 0 ? Wide<T>{} : load_wide<T>(squares + i)));
            });
        bool any = false;
        for_each_vector<T>(count, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            const Wide<T> factor = each<T>(
                [=](F64 s) __attribute__((always_inline)) {
                    const F64 norm = sqrt(s), limit = set1<double>(max_norm);
                    return norm > limit ? limit / norm : set1<double>(1);
                },
                load_wide<T>(squares + i));
            put<T>(factors + i, part, rounded(factor));
        });
        for (std::size_t i = 0; i < count; ++i) any = any || factors[i] != T(1);
        for (std::size_t r = 0; any && r < rows; ++r)
            zip<T>(block + r * columns, block + r * columns, factors, count,
                   [](Vec<T> x, Vec<T> f) __attribute__((always_inline)) { return x * f; });
    }
}

}  // namespace trainstep::TRAINSTEP_ISA::penalty
