// Exponentially weighted moving averages of whole arrays.
#pragma once

#include <cstddef>

namespace trainstep {

// y_t = beta * y_(t-1) + (1 - beta) * x_t down the columns of x, (rows, columns), from 0 on; with bias_correction divided by
// 1 - beta^t. y may be x.
template <class T>
void ewma(T* y, const T* x, std::size_t rows, std::size_t columns, double beta, bool bias_correction);

// average += rate * (x - average), and at rate 1 x itself.
template <class T>
void approach(T* average, const T* x, std::size_t n, double rate);

}  // namespace trainstep
