// Normalisation of whole arrays: the kernel table, shared between threads.
#pragma once

#include <cstddef>

#include "kernels/table.h"
#include "runtime/parallel.h"

namespace trainstep {

// y = (x - mean) / sqrt(variance + eps) * gamma + beta for each row of x, (rows, columns), and of each row the mean and
// inv_std = 1 / sqrt(variance + eps), and normalized = x^ = (x - mean) * inv_std: null where they are not wanted. gamma and beta
// (columns) may be null.
template <class T>
void layer_norm(T* y, T* mean, T* inv_std, T* normalized, const T* x, const T* gamma, const T* beta, std::size_t rows,
                std::size_t columns, double eps);

// The gradients of x, gamma and beta, in one pass over dy and x; dgamma and dbeta null: of x alone. `sums`: room for
// layer_norm_sums(rows, columns).
constexpr std::size_t layer_norm_sums(std::size_t rows, std::size_t columns) {
    return (rows + kSumRows - 1) / kSumRows * 2 * padded_wide(columns);
}
template <class T>
void layer_norm_backward(const LayerNormBackward<T>& a, double* sums);
// Its parts, to the same bits: dx of all rows; and the gradients of gamma and beta, of the columns `some`.
template <class T>
void layer_norm_backward_input(const LayerNormBackward<T>& a);
template <class T>
void layer_norm_backward_parameters(const LayerNormBackward<T>& a, Range some);

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
