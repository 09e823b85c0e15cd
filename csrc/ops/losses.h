// Losses on whole batches.
#pragma once

#include "kernels/table.h"

namespace trainstep {

// What a loss divides its sum over the rows by when it takes the mean: rows for a loss over classes, elements for one over elements
// (PyTorch's defaults).
double mean_count(Loss loss, std::size_t rows, std::size_t columns);

// Whether a loss compares classes, so that it takes labels and comes with an accuracy.
bool is_classification(Loss loss);

// Fills a.loss, a.dpred and a.correct. The rows are independent, so any sharing gives the same bits.
template <class T>
void loss_rows(Loss loss, const LossRows<T>& a);

// The sum of n numbers in float64, in order.
template <class T>
double sum_in_order(const T* x, std::size_t n);

}  // namespace trainstep
