// Losses: value and gradient of a block of rows.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_LOSS(name, ...) k.loss[int(Loss::name)] = losses::name::run<T>;
    TRAINSTEP_LOSSES(TRAINSTEP_LOSS)
#undef TRAINSTEP_LOSS
}

}  // namespace

void fill_losses(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
