#include "ops/optimizer_step.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {
constexpr std::size_t kChunk = 16384;   // elements: the arrays of one chunk fit L2
constexpr double kNsPerElement = 0.34;  // Adam in L2, bound by root and division (Zen 4, AVX-512; 14-bit approximations: 0.43)
}  // namespace

template <class T>
void optimizer_step_block(OptimizerKind kind, const StepArray<T>& a, std::size_t width, Block block) {
    std::size_t n = block.columns.end - block.columns.begin, rows = block.rows.end - block.rows.begin;
    if (n == width) n *= rows, rows = 1;
    const std::size_t at = block.rows.begin * width + block.columns.begin;
    T* states[kMaxStates];
    for (int s = 0; s < kMaxStates; ++s) states[s] = a.states[s] ? a.states[s] + at : nullptr;
    kernels().of<T>().optimizer[int(kind)](a.w + at, states, a.g + at, n, rows, width, *a.options);
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
            optimizer_step_block(kind, arrays[i], n, {{0, 1}, {from, to}});
        }
    });
}

template void optimizer_step_block(OptimizerKind, const StepArray<float>&, std::size_t, Block);
template void optimizer_step_block(OptimizerKind, const StepArray<double>&, std::size_t, Block);
template void optimizer_step(OptimizerKind, const StepArray<float>*, std::size_t);
template void optimizer_step(OptimizerKind, const StepArray<double>*, std::size_t);

}  // namespace trainstep
