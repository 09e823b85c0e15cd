// What is asked of weights besides a small loss, on whole arrays: the kernel table, shared between threads.
#pragma once

#include <cstddef>
#include <vector>

#include "ops/dense.h"

namespace trainstep {

// The sum of l1 * |w| + l2 * w^2. sums: room for those of its pieces, kept from call to call.
template <class T>
double penalty(const T* w, std::size_t n, double l1, double l2, std::vector<double>& sums);

// g += l1 * sign(w) + 2 * l2 * w, (rows, columns).
template <class T>
void add_penalty_slope(Rows<T> g, Rows<const T> w, std::size_t rows, std::size_t columns, double l1, double l2);

// x = x where mask is not 0, else 0; (rows, columns).
template <class T>
void keep(Rows<T> x, Rows<const T> mask, std::size_t rows, std::size_t columns);

// Each column of w, (rows, columns), whose Euclidean norm is above max_norm is scaled down to it.
template <class T>
void limit_units(T* w, std::size_t rows, std::size_t columns, double max_norm);

}  // namespace trainstep
