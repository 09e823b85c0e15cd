// What a step of a rule depends on besides the arrays, from the options and from how many steps the array has had.
#pragma once

#include <cstdint>

#include "kernels/optimizers.h"

namespace trainstep {

// The numbers that go with an array's states, under PyTorch's names.
struct StepScalars {
    std::int64_t step = 0;    // updates so far
    double mu_product = 1;    // nadam: the product of all mu_t so far
    double eta = -1, mu = 1;  // asgd: the rate and the gain of the next step; eta < 0: lr, before the first

    bool operator==(const StepScalars&) const = default;
};

// The terms of the next step, to which `scalars` go on. grad_scale multiplies the gradient.
StepTerms next_step(OptimizerKind kind, const OptimizerOptions& options, StepScalars& scalars, double grad_scale = 1);

// The states that a rule keeps under its options, as a bit mask.
unsigned used_states(OptimizerKind kind, const OptimizerOptions& options);

}  // namespace trainstep
