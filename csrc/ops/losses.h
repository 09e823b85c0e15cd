// Losses on whole batches.
#pragma once

#include "kernels/table.h"

namespace trainstep {

// What the sum of the losses is divided by for their mean: the rows of a loss over classes, the elements of one over elements
// (PyTorch's defaults), or with weights their sum over those. A class weight counts as often as the target has its class.
template <class T>
double mean_count(Loss loss, const LossRows<T>& a);

// The mean, and the factor that it is: of weights that add up to 0 the mean is 0, and so is its gradient.
inline double mean_of(double sum, double count) { return count > 0 ? sum / count : 0; }
template <class T>
T mean_scale(double count) {
    return count > 0 ? T(1 / count) : T(0);
}

// Fills a.loss, a.dpred and a.correct. The rows are independent, so any sharing gives the same bits.
template <class T>
void loss_rows(Loss loss, const LossRows<T>& a);

// The sum of n numbers in float64, in order.
template <class T>
double sum_in_order(const T* x, std::size_t n);

}  // namespace trainstep
