// What stands between dense layers: layer_norm, batch_norm, dropout; moving averages; and what is asked of weights.
#include "kernels/ewma.h"
#include "kernels/fill.h"
#include "kernels/penalty.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
    k.layer_norm = normalize::layer_norm<T>;
    k.layer_norm_backward = normalize::layer_norm_backward<T>;
    k.layer_norm_parameters_of_sums = normalize::layer_norm_parameters_of_sums<T>;
    k.layer_norm_parameters = normalize::layer_norm_parameters<T>;
    k.batch_statistics = normalize::batch_statistics<T>;
    k.running_statistics = normalize::running_statistics<T>;
    k.batch_norm = normalize::batch_norm<T>;
    k.batch_norm_backward_parameters = normalize::batch_norm_backward_parameters<T>;
    k.batch_norm_backward = normalize::batch_norm_backward<T>;
    k.dropout = dropout::dropout<T>;
    k.dropout_masked = dropout::dropout_masked<T>;
    k.ewma = TRAINSTEP_ISA::ewma<T>;
    k.approach = TRAINSTEP_ISA::approach<T>;
    k.penalty_sum = penalty::sum<T>;
    k.add_penalty_slope = penalty::add_slope<T>;
    k.keep = penalty::keep<T>;
    k.limit_units = penalty::limit_units<T>;
}

}  // namespace

void fill_normalize(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
