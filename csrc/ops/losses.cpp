#include "ops/losses.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

template <class T>
double mean_count(Loss loss, const LossRows<T>& a) {
    const bool classes = facts(loss).over == LossOver::classes;
    const double each = classes ? 1 : double(a.columns);
    if (!a.weight && !a.options.class_weight) return double(a.rows) * each;
    double total = 0;
    for (std::size_t r = 0; r < a.rows; ++r) {
        double weight = a.weight ? double(a.weight[r]) : 1;
        if (const T* of_class = a.options.class_weight) {
            double of_target = 0;
            if (a.target.labels)
                of_target = double(of_class[a.target.labels[r]]);
            else
                for (std::size_t j = 0; j < a.columns; ++j)
                    of_target += double(of_class[j]) * double(a.target.values[r * a.columns + j]);
            weight *= of_target;
        }
        total += weight;
    }
    return total * each;
}

template <class T>
void loss_rows(Loss loss, const LossRows<T>& a) {
    const auto kernel = kernels().of<T>().loss[int(loss)];
    const bool elements = facts(loss).over == LossOver::elements;
    const double ns_per_row = elements && a.columns == 1 ? 1 : 10 + (elements ? 0.4 : 1.0) * double(a.columns);
    parallel_for(a.rows, 64, ns_per_row, [&](std::size_t begin, std::size_t end) { kernel(a.part(begin, end)); });
}

template <class T>
double sum_in_order(const T* x, std::size_t n) {
    constexpr std::size_t chains = 8;  // so that an addition need not wait for the one before
    double sums[chains] = {}, total = 0;
    std::size_t i = 0;
    for (; i + chains <= n; i += chains)
        for (std::size_t c = 0; c < chains; ++c) sums[c] += double(x[i + c]);
    for (; i < n; ++i) total += double(x[i]);
    for (double sum : sums) total += sum;
    return total;
}

template double mean_count(Loss, const LossRows<float>&);
template double mean_count(Loss, const LossRows<double>&);
template void loss_rows(Loss, const LossRows<float>&);
template void loss_rows(Loss, const LossRows<double>&);
template double sum_in_order(const float*, std::size_t);
template double sum_in_order(const double*, std::size_t);

}  // namespace trainstep
