// Normalisation of whole arrays: the kernel table, shared between threads.
#pragma once

#include <cstddef>

#include "kernels/table.h"
#include "runtime/parallel.h"

namespace trainstep {

// y = (x - mean) / sqrt(variance + eps) * gamma + beta for each row of x, (rows, columns), and of each row the mean and
// inv_std = 1 / sqrt(variance + eps): null where they are not wanted. mean_low: what the mean has lost in T. gamma and beta
// (columns) may be null.
template <class T>
void layer_norm(T* y, T* mean, T* mean_low, T* inv_std, const T* x, const T* gamma, const T* beta, std::size_t rows,
                std::size_t columns, double eps);

// The gradients of x, gamma and beta from dy.
template <class T>
void layer_norm_backward(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean, const T* mean_low, const T* inv_std,
                         const T* gamma, std::size_t rows, std::size_t columns);

// Its parts: dx; and the gradients of gamma and beta, of the columns `some`.
template <class T>
void layer_norm_backward_input(T* dx, const T* dy, const T* x, const T* mean, const T* mean_low, const T* inv_std, const T* gamma,
                               std::size_t rows, std::size_t columns);
template <class T>
void layer_norm_backward_parameters(T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean, const T* mean_low,
                                    const T* inv_std, std::size_t rows, std::size_t columns, Range some);

// The same for each column: in training with the statistics of the batch, which move the running ones; otherwise with the running
// ones.
template <class T>
void batch_norm(const BatchNorm<T>& batch, bool training, std::size_t columns);
template <class T>
void batch_norm_backward(const BatchNormBackward<T>& batch, std::size_t columns);

// Their parts: statistics of some columns, then y of the rows; the gradients of some columns of gamma and beta, then dx of
// `rows` rows from dx, dy and x on; batch.rows is how many the whole batch has.
template <class T>
void batch_statistics(const BatchNorm<T>& batch, Range columns);
template <class T>
void running_statistics(const BatchNorm<T>& batch, Range columns);
template <class T>
void batch_norm_rows(const BatchNorm<T>& batch, std::size_t columns);
template <class T>
void batch_norm_backward_parameters(const BatchNormBackward<T>& batch, Range columns);
template <class T>
void batch_norm_backward_rows(const BatchNormBackward<T>& batch, std::size_t rows, std::size_t columns);

}  // namespace trainstep
