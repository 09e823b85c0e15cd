// Optimizer: a rule, its param groups, and the state of every parameter.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/optimizers.h"
#include "ops/optimizer_step.h"
#include "runtime/arena.h"

namespace trainstep {

template <class T>
class Optimizer {
  public:
    // sizes[i] elements in parameter i, which belongs to group groups[i]. States start at zero.
    Optimizer(OptimizerKind kind, std::vector<OptimizerOptions> options, const std::vector<std::size_t>& sizes,
              const std::vector<std::size_t>& groups)
        : kind_(kind), options_(options.begin(), options.end()) {
        const int states = kOptimizerStates[int(kind)];
        std::size_t total = 0;
        for (std::size_t n : sizes) total += padded<T>(n);
        state_arena_ = Arena(total * states * sizeof(T));
        T* at = state_arena_.template as<T>();
        arrays_.resize(sizes.size());
        for (std::size_t i = 0; i < sizes.size(); ++i) arrays_[i] = {nullptr, nullptr, {}, sizes[i], &options_[groups[i]]};
        for (int s = 0; s < states; ++s)
            for (StepArray<T>& a : arrays_) {
                a.states[s] = at;
                at += padded<T>(a.n);
            }
    }
    Optimizer(const Optimizer&) = delete;

    // Where parameter i and its gradient lie; read again before every step by whoever does not own them.
    void place(std::size_t i, T* w, const T* g) {
        arrays_[i].w = w;
        arrays_[i].g = g;
    }

    // One update of every parameter, in place.
    void step() {
        begin_step();
        update_all();
    }

    // The same in pieces, for who updates a part as soon as its gradient is there: begin_step once, then every element once.
    void begin_step() {
        const std::int64_t step = steps.load(std::memory_order_relaxed) + 1;
        steps.store(step, std::memory_order_relaxed);
        for (OptimizerOptions& o : options_) o.step = step;
    }
    void update_all() { optimizer_step(kind_, arrays_.data(), arrays_.size()); }
    void update(std::size_t i, Range elements) { optimizer_step_range(kind_, arrays_[i], elements); }

    OptimizerKind kind() const { return kind_; }
    OptimizerOptions& options(std::size_t group) { return options_[group]; }
    std::size_t groups() const { return options_.size(); }
    const std::vector<StepArray<T>>& arrays() const { return arrays_; }

    std::atomic<std::int64_t> steps{0};  // updates so far; read at any time, written by the holder of the lock

    // Held by whoever steps or sets options; two threads that use one optimizer take turns. Taken after a program's lock, where
    // both are.
    std::mutex lock;

  private:
    OptimizerKind kind_;
    std::deque<OptimizerOptions> options_;  // one per group; arrays_ points into it
    std::vector<StepArray<T>> arrays_;
    Arena state_arena_;
};

}  // namespace trainstep
