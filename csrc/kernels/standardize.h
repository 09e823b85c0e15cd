// Standardize: each column less its mean, times its scale; and the backward beside it.
//
// The mean is taken off first. (Folded into the product that follows, x @ (scale * w) - mean @ (scale * w), two large sums would
// cancel where a mean is many times the spread.)
#pragma once

#include "kernels/loops.h"

namespace trainstep::TRAINSTEP_ISA {

// y = (x - mean) * scale;  x and y (rows, columns), mean and scale (columns)
template <class T>
TRAINSTEP_INLINE void standardize(T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns) {
    for (std::size_t i = 0; i < rows; ++i, y += columns, x += columns)
        for_each_vector<T>(columns, [=](std::size_t j, auto part) __attribute__((always_inline)) {
            put<T>(y + j, part, (get<T>(x + j, part) - get<T>(mean + j, part)) * get<T>(scale + j, part));
        });
}

// dx = dy * scale
template <class T>
TRAINSTEP_INLINE void standardize_backward(T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns) {
    for (std::size_t i = 0; i < rows; ++i, dx += columns, dy += columns)
        zip<T>(dx, dy, scale, columns, [](Vec<T> d, Vec<T> s) __attribute__((always_inline)) { return d * s; });
}

}  // namespace trainstep::TRAINSTEP_ISA
