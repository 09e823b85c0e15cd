#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "runtime/isa.h"
#include "runtime/philox.h"

namespace trainstep {

namespace {

std::size_t blocks(std::size_t n) { return (n + kBlock - 1) / kBlock; }

std::size_t state_size(const StepArray& a) {
    switch (a.format) {
        case StateFormat::bfloat16:
            return a.n * 2;
        case StateFormat::eight_bits:
            return a.n + blocks(a.n);
        default:
            return a.n * (a.w_dtype == Dtype::float64 ? 8 : 4);
    }
}

// Between two large states. Arrays of the same index a power of two apart meet in the same sets of the caches and banks of the
// memory: Adam on 2^26 elements took 43 ms with none, 28 to 37 with a gap of 4 KiB or more (2 threads, Zen 4).
constexpr std::size_t kLarge = std::size_t{1} << 20, kGap = 5 * 1024 + 64;

// The room that a state takes in an arena.
std::size_t state_room(const StepArray& a) {
    const std::size_t bytes = state_size(a);
    return padded<char>(bytes + kAlignment) + (bytes >= kLarge ? kGap : 0);
}

// What a state is before the first step, where that is not 0.
double initial(OptimizerKind kind, int state, const OptimizerOptions& o) {
    if (kind == OptimizerKind::adagrad) return o.initial_accumulator_value;
    if (kind == OptimizerKind::rprop && state == 1) return o.lr;
    return 0;
}

void fill(const StepArray& a, const LowBitState& low_bit, void* state, double value) {
    if (a.w_dtype == Dtype::float64)
        std::fill_n(static_cast<double*>(state), a.n, value);
    else if (a.format == StateFormat::native)
        std::fill_n(static_cast<float*>(state), a.n, float(value));
    else
        kernels().store_state(low_bit, std::vector<float>(a.n, float(value)).data(), a.n);
}

}  // namespace

void Stepper::add(StepArray array, const StepScalars& scalars) {
    arrays_.push_back(array);
    scalars_.push_back(scalars);
}

void Stepper::plan() {
    std::vector<std::size_t> sizes;
    sizes.reserve(arrays_.size());
    for (const StepArray& a : arrays_) sizes.push_back(a.n);
    plan_ = StepPlan(sizes);
}

void Stepper::begin_step(double scale, double clip_value) {
    StepScalars before;  // of the array at hand
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
        StepArray& a = arrays_[i];
        if (!a.g) continue;
        // Arrays of one group mostly have had the same steps: then what one needs the next needs too.
        const bool like_last = i > 0 && arrays_[i - 1].g && arrays_[i - 1].options == a.options && scalars_[i] == before;
        before = scalars_[i];
        if (like_last) {
            a.terms = arrays_[i - 1].terms;
            scalars_[i] = scalars_[i - 1];
        } else {
            a.terms = next_step(kind_, *a.options, scalars_[i], scale);
            a.terms.clip_value = clip_value;
        }
        if (a.format != StateFormat::native) {
            const PhiloxStream random{seed_, Purpose::rounding, std::uint32_t(i)};
            a.rounding_key = random.at(std::uint64_t(scalars_[i].step))[0];
        }
    }
}

Stepper::Outcome Stepper::step(const StepRequest& request) {
    Outcome outcome;
    double scale = request.grad_scale;
    if (request.wants_norm()) {
        norm_arrays_.clear();
        for (const StepArray& a : arrays_) norm_arrays_.push_back({a.g, a.g_dtype});
        outcome.norm = std::abs(scale) * global_norm(norm_arrays_, plan_, norm_sums_);
        outcome.skipped = request.skip_nonfinite && !std::isfinite(outcome.norm);
        if (outcome.skipped) return outcome;
        if (request.clip_norm != 0) scale *= clip_factor(request.clip_norm, outcome.norm);
    }
    begin_step(scale, request.clip_value);
    update_all(request.zero_grads);
    return outcome;
}

void Optimizer::add_group(const OptimizerOptions& options, const std::vector<Parameter>& parameters) {
    options_.push_back(options);
    std::size_t masters = 0;
    for (const Parameter& p : parameters)
        if (p.dtype == Dtype::bfloat16) masters += padded<float>(p.n);
    arenas_.emplace_back(masters * sizeof(float));
    float* master = arenas_.back().as<float>();
    for (const Parameter& p : parameters) {
        StepArray a;
        a.n = p.n;
        a.w = const_cast<void*>(p.values);
        a.w_dtype = p.dtype;
        a.options = &options_.back();
        a.format = format_ == StateFormat::eight_bits && p.n < kLeastInEightBits ? StateFormat::native : format_;
        if (p.dtype == Dtype::bfloat16) {
            a.master = master;
            kernels().load_state(master, {const_cast<void*>(p.values), nullptr, StateFormat::bfloat16, true}, p.n);
            master += padded<float>(p.n);
        }
        add(a, {});
        shapes_.push_back(p.shape);
    }
    plan();
    allocate_states();
}

void Optimizer::allocate_states() {
    const auto missing = [&](std::size_t i) {
        unsigned states = used(i);
        for (int s = 0; s < kMaxStates; ++s)
            if (arrays_[i].states[s]) states &= ~(1u << s);
        return states;
    };
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < arrays_.size(); ++i)
        for (unsigned states = missing(i); states; states &= states - 1) bytes += state_room(arrays_[i]);
    if (bytes == 0) return;
    arenas_.emplace_back(bytes);
    char* at = arenas_.back().as<char>();
    for (int s = 0; s < kMaxStates; ++s)
        for (std::size_t i = 0; i < arrays_.size(); ++i) {
            if (!(missing(i) >> s & 1)) continue;
            StepArray& a = arrays_[i];
            // As far behind a cache line as the parameter, so that both can be moved in aligned vectors.
            const std::size_t offset =
                a.format == StateFormat::native && !a.master ? reinterpret_cast<std::uintptr_t>(a.w) % kAlignment : 0;
            a.states[s] = at + offset;  // not null, even for no elements
            if (a.format == StateFormat::eight_bits) a.exponents[s] = static_cast<std::uint8_t*>(a.states[s]) + a.n;
            at += state_room(a);
            if (const double value = initial(kind(), s, *a.options); value != 0) fill(a, low_bit(i, s), a.states[s], value);
        }
}

std::size_t Optimizer::state_bytes() const {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
        for (int s = 0; s < kMaxStates; ++s)
            if (used(i) >> s & 1) bytes += state_size(arrays_[i]);
        if (arrays_[i].master) bytes += arrays_[i].n * sizeof(float);
    }
    return bytes;
}

LowBitState Optimizer::low_bit(std::size_t i, int state) const {
    const StepArray& a = arrays_[i];
    return {a.states[state], a.exponents[state], a.format, info(kind()).states[state].eight_bits == EightBits::with_sign};
}

void Optimizer::place(std::size_t i, void* w, void* g, Dtype g_dtype) {
    StepArray& a = arrays_[i];
    if (a.w == w && a.g == g && a.g_dtype == g_dtype) return;  // its lines stay with the threads that have them
    a.w = w;
    a.g = g;
    a.g_dtype = g_dtype;
}

void Optimizer::set_scalars(std::size_t i, const StepScalars& scalars) {
    scalars_[i] = scalars;
    count_steps();
}

void Optimizer::keep(OptimizerState& state) const {
    state.arenas.resize(arenas_.size());
    for (std::size_t i = 0; i < arenas_.size(); ++i) copy_arena(state.arenas[i], arenas_[i]);
    state.scalars = scalars_;
    state.skipped = skipped.load(std::memory_order_relaxed);
}

void Optimizer::restore(const OptimizerState& state) {
    for (std::size_t i = 0; i < state.arenas.size(); ++i) copy_arena(arenas_[i], state.arenas[i]);
    scalars_ = state.scalars;
    skipped.store(state.skipped, std::memory_order_relaxed);
    count_steps();
}

void Optimizer::count_steps() {
    std::int64_t most = 0;
    for (const StepScalars& s : scalars_) most = std::max(most, s.step);
    steps.store(most, std::memory_order_relaxed);
}

void Optimizer::prepare(bool can_be_taken_back) {
    allocate_states();
    if (can_be_taken_back) scalars_before_ = scalars_;
    if (kind() != OptimizerKind::rprop) return;
    for (std::size_t i = 0; i < arrays_.size(); ++i)  // the first steps are as long as lr is by then
        if (arrays_[i].g && scalars_[i].step == 0) fill(arrays_[i], low_bit(i, 1), arrays_[i].states[1], arrays_[i].options->lr);
}

void Optimizer::begin_prepared_step() {
    Stepper::begin_step();
    count_steps();
}

void Optimizer::take_back_step() {
    scalars_ = scalars_before_;
    count_steps();
}

double Optimizer::step(const StepRequest& request) {
    prepare();
    const Outcome outcome = Stepper::step(request);
    if (outcome.skipped) skipped.fetch_add(1, std::memory_order_relaxed);
    count_steps();
    return outcome.norm;
}

}  // namespace trainstep
