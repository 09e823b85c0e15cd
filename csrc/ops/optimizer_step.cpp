#include "ops/optimizer_step.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {
constexpr std::size_t kChunk = 16384;   // elements: the arrays of one chunk fit L2
constexpr double kNsPerElement = 0.34;  // Adam in L2, bound by root and division (Zen 4, AVX-512; 14-bit approximations: 0.43)
}  // namespace

template <class T>
void optimizer_step_range(OptimizerKind kind, const StepArray<T>& a, Range elements) {
    T* states[kMaxStates];
    for (int s = 0; s < kMaxStates; ++s) states[s] = a.states[s] ? a.states[s] + elements.begin : nullptr;
    kernels().of<T>().optimizer[int(kind)](a.w + elements.begin, states, a.g + elements.begin, elements.end - elements.begin,
                                           *a.options);
}

template <class T>
void optimizer_step(OptimizerKind kind, const StepArray<T>* arrays, std::size_t count) {
    std::size_t total = 0;
    for (std::size_t i = 0; i < count; ++i) total += arrays[i].n;
    // The arrays lie end to end on one line, which is cut at multiples of kChunk; an array is cut where the line is.
    parallel_for(total, kChunk, kNsPerElement, [&](std::size_t begin, std::size_t end) {
        std::size_t at = 0;
        for (std::size_t i = 0; i < count && at < end; at += arrays[i++].n) {
            const std::size_t n = arrays[i].n;
            if (at + n <= begin) continue;
            const std::size_t from = begin > at ? begin - at : 0, to = end < at + n ? end - at : n;
            optimizer_step_range(kind, arrays[i], {from, to});
        }
    });
}

template void optimizer_step_range(OptimizerKind, const StepArray<float>&, Range);
template void optimizer_step_range(OptimizerKind, const StepArray<double>&, Range);
template void optimizer_step(OptimizerKind, const StepArray<float>*, std::size_t);
template void optimizer_step(OptimizerKind, const StepArray<double>*, std::size_t);

}  // namespace trainstep
