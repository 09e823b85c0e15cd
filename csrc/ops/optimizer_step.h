// One optimizer step over many arrays.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/table.h"
#include "runtime/parallel.h"

namespace trainstep {

// One array to step: n elements of w, their gradient, their states, and the options of the param group they belong to.
template <class T>
struct StepArray {
    T* w;
    const T* g;
    T* states[kMaxStates];
    std::size_t n;
    const OptimizerOptions* options;
};

// Steps all arrays in one parallel region, cut into chunks of equal size that do not depend on the number of threads.
template <class T>
void optimizer_step(OptimizerKind kind, const StepArray<T>* arrays, std::size_t count);

// Steps a range of one array, on the calling thread.
template <class T>
void optimizer_step_range(OptimizerKind kind, const StepArray<T>& array, Range elements);

}  // namespace trainstep
