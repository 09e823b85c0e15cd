// Optimizers: one update of a run of parameters, in place.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_OPTIMIZER(name, states) k.optimizer[int(OptimizerKind::name)] = optimizers::run<T, optimizers::name>;
    TRAINSTEP_OPTIMIZERS(TRAINSTEP_OPTIMIZER)
#undef TRAINSTEP_OPTIMIZER
}

}  // namespace

void fill_optimizers(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
