// Element-wise formulas on whole arrays: the kernel table, shared between threads.
#pragma once

#include <cstddef>

#include "kernels/table.h"

namespace trainstep {

// y = f(x) for any row of the table that maps one array to another.
template <class T>
void map(typename Kernels<T>::Map f, T* y, const T* x, std::size_t n);

// The kernels of an activation with its number, for products.
template <class T>
ActivationCall<T> activation_call(const Activation& f);
template <class T>
DerivativeCall<T> derivative_call(const Activation& f);

// y = f(x), and dx = dy * f'(x) from x, y or the slope itself, as info(f.kind) and f.of_slope have it. y may be x, dx may be dy.
// (rows, columns); where f does not go by rows, only their product counts.
template <class T>
void activation(const Activation& f, T* y, const T* x, std::size_t rows, std::size_t columns);
template <class T>
void activation_backward(const Activation& f, T* dx, const T* dy, const T* source, std::size_t rows, std::size_t columns);

// y = f(x) and slope = f'(x), n elements; of activations that have a slope for each element.
template <class T>
void activation_with_slope(const Activation& f, T* y, T* slope, const T* x, std::size_t n);

// Of activations whose derivative has two values: y = f(x), or with x null what is there already, and a byte for each of its n
// elements, which tells the derivative; and dx = dy * f'(x) from them.
template <class T>
void activation_sides(const Activation& f, T* y, std::uint8_t* sides, const T* x, std::size_t n);
template <class T>
void backward_of_sides(const Activation& f, T* dx, const T* dy, const std::uint8_t* sides, std::size_t n);

template <class T>
void copy(T* y, const T* x, std::size_t n);

// y = a + b; y may be one of them.
template <class T>
void sum(T* y, const T* a, const T* b, std::size_t n);

// y = (x - mean) * scale;  x and y (rows, columns), mean and scale (columns). y may be x.
template <class T>
void standardize(T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns);

// dx = dy * scale. dx may be dy.
template <class T>
void standardize_backward(T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns);

}  // namespace trainstep
