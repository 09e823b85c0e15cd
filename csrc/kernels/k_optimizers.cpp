// Optimizers: one update of a run of parameters, in place; norms; states in fewer bits.
#include "kernels/fill.h"
#include "kernels/norms.h"
#include "kernels/stepping.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T, OptimizerKind kind, template <class> class Rule>
void fill_rule(Kernels<T>& k) {
    k.optimizer[int(kind)] = optimizers::run<T, kind, Rule>;
    if constexpr (requires { typename Rule<T>::direction; })
        k.direction[int(kind)] = optimizers::run_direction<T, kind, Rule>;
    else
        k.direction[int(kind)] = nullptr;
}

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_OPTIMIZER(name, ...) fill_rule<T, OptimizerKind::name, optimizers::name>(k);
    TRAINSTEP_OPTIMIZERS(TRAINSTEP_OPTIMIZER)
#undef TRAINSTEP_OPTIMIZER
    k.sum_of_squares = norms::sum_of_squares<T>;
    k.max_abs = norms::max_abs<T>;
    k.scale = norms::scale<T>;
    k.clamp = norms::clamp<T>;
}

}  // namespace

void fill_optimizers(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
    table.load_state = storage::load_whole_state;
    table.store_state = storage::store_whole_state;
}

}  // namespace trainstep::TRAINSTEP_ISA
