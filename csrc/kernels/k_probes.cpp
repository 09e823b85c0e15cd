// Probes: the speed of multiply-adds and of loads and stores.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T>
void fill(Kernels<T>& k) {
    k.fma_probe = fma_probe<T>;
    k.fma_probe_flops = 2.0 * kFmaChains * kWidth<T>;
}

}  // namespace

void fill_probes(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
#define TRAINSTEP_STREAM(name, ...) table.stream_probe[int(Stream::name)] = streams::name;
    TRAINSTEP_STREAMS(TRAINSTEP_STREAM)
#undef TRAINSTEP_STREAM
}

}  // namespace trainstep::TRAINSTEP_ISA
