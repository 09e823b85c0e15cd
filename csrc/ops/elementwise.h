// Element-wise formulas on whole arrays: the kernel table, shared between threads.
#pragma once

#include <cstddef>

#include "kernels/table.h"

namespace trainstep {

// y = f(x) for any row of the table that maps one array to another.
template <class T>
void map(typename Kernels<T>::Map f, T* y, const T* x, std::size_t n);

// dx = dy * f'(x), from y.
template <class T>
void activation_backward(Activation f, T* dx, const T* dy, const T* y, std::size_t n);

}  // namespace trainstep
