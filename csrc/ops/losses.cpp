#include "ops/losses.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

bool is_classification(Loss loss) { return loss == Loss::softmax_cross_entropy; }

double mean_count(Loss loss, std::size_t rows, std::size_t columns) {
    return is_classification(loss) ? double(rows) : double(rows) * double(columns);
}

template <class T>
void loss_rows(Loss loss, const LossRows<T>& a) {
    const auto kernel = kernels().of<T>().loss[int(loss)];
    const double ns_per_row = 10 + 1.0 * double(a.columns);
    parallel_for(a.rows, 64, ns_per_row, [&](std::size_t begin, std::size_t end) { kernel(a.part(begin, end)); });
}

template <class T>
double sum_in_order(const T* x, std::size_t n) {
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) total += double(x[i]);
    return total;
}

template void loss_rows(Loss, const LossRows<float>&);
template void loss_rows(Loss, const LossRows<double>&);
template double sum_in_order(const float*, std::size_t);
template double sum_in_order(const double*, std::size_t);

}  // namespace trainstep
