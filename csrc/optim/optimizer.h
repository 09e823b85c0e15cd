// Stepper: a rule over arrays that somebody owns. Optimizer: one that owns param groups and the state of every parameter.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "kernels/optimizers.h"
#include "ops/optimizer_step.h"
#include "optim/terms.h"
#include "runtime/arena.h"

namespace trainstep {

// What goes with one step: gradients are multiplied by grad_scale and then clipped, to a global norm or by value.
struct StepRequest {
    double grad_scale = 1;
    double clip_norm = 0, clip_value = 0;  // 0: none
    bool zero_grads = false;
    bool skip_nonfinite = false;  // nothing is done where a gradient is not finite
    bool wants_norm() const { return clip_norm != 0 || skip_nonfinite; }
};

// Arrays to step, with their states and scalars.
class Stepper {
  public:
    Stepper(OptimizerKind kind, std::uint64_t seed) : kind_(kind), seed_(seed) {}

    // The array's options must stay where they are; plan() once after the last.
    void add(StepArray array, const StepScalars& scalars);
    void plan();

    // One update of every array that has a gradient, in place. Returns the norm of all gradients after grad_scale where it is asked
    // for; `skipped` says that a gradient was not finite and nothing has been done.
    struct Outcome {
        double norm = 0;
        bool skipped = false;
    };
    Outcome step(const StepRequest& request);

    // The same in pieces, for who updates a part as soon as its gradient is there: begin_step once, then every element once.
    void begin_step(double scale = 1, double clip_value = 0);
    void update_all(bool zero_grads = false) { optimizer_step(kind_, arrays_, plan_, sums_, zero_grads); }
    void update(std::size_t i, std::size_t row, Range rows, Range columns, const void* g, std::size_t g_stride) {
        optimizer_step_block(kind_, arrays_[i], row, rows, columns, g, g_stride);
    }

    OptimizerKind kind() const { return kind_; }
    const std::vector<StepArray>& arrays() const { return arrays_; }
    const StepScalars& scalars(std::size_t i) const { return scalars_[i]; }

  protected:
    std::vector<StepArray> arrays_;
    std::vector<StepScalars> scalars_;  // one per array

  private:
    OptimizerKind kind_;
    std::uint64_t seed_;
    StepPlan plan_;
    std::vector<SquareSums> sums_;
    std::vector<double> norm_sums_;
    std::vector<NormArray> norm_arrays_;
};

// What steps change in an optimizer, apart from its parameters.
struct OptimizerState {
    std::deque<Arena> arenas;
    std::vector<StepScalars> scalars;
    std::int64_t skipped = 0;
};

class Optimizer : public Stepper {
  public:
    // values: where it lies; one in bfloat16 gets a master in float32.
    struct Parameter {
        std::vector<std::int64_t> shape;
        std::size_t n;
        Dtype dtype;
        const void* values;
    };

    // States in eight bits are for arrays of kLeastInEightBits or more.
    static constexpr std::size_t kLeastInEightBits = 4096;
    Optimizer(OptimizerKind kind, StateFormat format, std::uint64_t seed) : Stepper(kind, seed), format_(format) {}
    Optimizer(const Optimizer&) = delete;

    void add_group(const OptimizerOptions& options, const std::vector<Parameter>& parameters);

    // Where parameter i and its gradient lie; read again before every step by whoever does not own them. No gradient: the parameter
    // is left out of the step.
    void place(std::size_t i, void* w, void* g, Dtype g_dtype);

    double step(const StepRequest& request);
    // A step in pieces: first whatever it may still lack, before anything is written (may throw); then its terms, which can be
    // taken back where that was said, if nothing has been updated.
    void prepare(bool can_be_taken_back = false);
    void begin_prepared_step();
    void take_back_step();
    // Whether any ranges may be updated on their own: rounding goes by blocks, and a trust ratio by the whole tensor.
    bool updates_in_parts() const { return format_ == StateFormat::native && !has_trust_ratio(kind()); }

    OptimizerOptions& options(std::size_t group) { return options_[group]; }
    std::size_t groups() const { return options_.size(); }
    const std::vector<std::int64_t>& shape(std::size_t i) const { return shapes_[i]; }
    void set_scalars(std::size_t i, const StepScalars& scalars);
    // A copy of all states, and that back. States that options have asked for since then stay as they are.
    void keep(OptimizerState& state) const;
    void restore(const OptimizerState& state);

    unsigned used(std::size_t i) const { return used_states(kind(), *arrays_[i].options); }
    // Makes room for the states that options ask for: with them or, where they were set later, at the next step.
    void allocate_states();
    std::size_t state_bytes() const;
    LowBitState low_bit(std::size_t i, int state) const;

    std::atomic<std::int64_t> steps{0};  // of the parameter that has had most; read at any time, written by the holder of the lock
    std::atomic<std::int64_t> skipped{0};  // steps left out by skip_nonfinite

    // Held by whoever steps or sets options; two threads that use one optimizer take turns. Taken after a program's lock, where
    // both are.
    std::mutex lock;

  private:
    void count_steps();

    StateFormat format_;
    std::vector<StepScalars> scalars_before_;  // a step that can be taken back
    std::deque<OptimizerOptions> options_;     // one per group; arrays_ points into it
    std::vector<std::vector<std::int64_t>> shapes_;
    std::deque<Arena> arenas_;  // of states: what Python has views of stays where it is
};

}  // namespace trainstep
