// Optimizers: one update of a run of parameters, in place; norms; states in fewer bits.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T, template <class> class Rule>
void fill_rule(Kernels<T>& k, OptimizerKind kind) {
    k.optimizer[int(kind)] = optimizers::run<T, Rule>;
    if constexpr (requires { typename Rule<T>::direction; })
        k.direction[int(kind)] = optimizers::run_direction<T, Rule>;
    else
        k.direction[int(kind)] = nullptr;
}

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_OPTIMIZER(name, ...) fill_rule<T, optimizers::name>(k, OptimizerKind::name);
    TRAINSTEP_OPTIMIZERS(TRAINSTEP_OPTIMIZER)
#undef TRAINSTEP_OPTIMIZER
    k.sum_of_squares = optimizers::sum_of_squares<T>;
    k.max_abs = optimizers::max_abs<T>;
    k.scale = optimizers::scale<T>;
    k.clamp = optimizers::clamp<T>;
}

}  // namespace

void fill_optimizers(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
    table.load_state = optimizers::load_whole_state;
    table.store_state = optimizers::store_whole_state;
}

}  // namespace trainstep::TRAINSTEP_ISA
