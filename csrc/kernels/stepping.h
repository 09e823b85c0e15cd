// How a rule goes over a span of an array: at once where everything is stored as it is calculated with, else block by block; states
// in fewer bits are decoded, moved and encoded in registers.
#pragma once

#include <type_traits>

#include "kernels/optimizers.h"
#include "kernels/staging.h"

namespace trainstep::TRAINSTEP_ISA::optimizers {

// Some elements of one array, with everything in T.
template <class T>
struct Elements {
    T* w;
    const T* g;
    T* states[kMaxStates];
    std::size_t n;
};

template <class T, class Body>
__attribute__((noinline)) void step_elements(const Elements<T>& e_, Body& body_) {
    const Elements<T> e = e_;  // copies, which no store can change
    Body body = body_;
    // Arrays of NumPy often lie 16 bytes behind a cache line, and states are laid out as their parameter is.
    constexpr std::size_t bytes = kVectorBytes;
    const std::size_t ahead = (bytes - reinterpret_cast<std::uintptr_t>(e.w) % bytes) % bytes;
    const bool aligned = Body::writes_w && e.n >= kBlock && ahead % sizeof(T) == 0;  // sums do not depend on addresses
    for_each_vector<T>(
        e.n,
        [&](std::size_t i, auto part) __attribute__((always_inline)) {
            Vec<T> w = get<T>(e.w + i, part), state[kMaxStates];
            for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) { state[s] = get<T>(e.states[s] + i, part); });
            body(w, state, get<T>(e.g + i, part), part);
            if constexpr (Body::writes_w) put<T>(e.w + i, part, w);
            for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) { put<T>(e.states[s] + i, part, state[s]); });
        },
        aligned ? ahead / sizeof(T) : 0);
    body_ = body;
}

// --- states in fewer bits -----------------------------------------------------------------------------------------------------

// kBlock elements, of which the first n count.
struct LowBitBlock {
    float* w;
    const float* g;
    void* states[kMaxStates];
    std::uint8_t* exponents[kMaxStates];  // one each
    std::size_t n;
    RandomPlace place;
};

// Bit s: state s has a sign.
template <OptimizerKind kind>
constexpr unsigned signed_states() {
    unsigned mask = 0;
    for (int s = 0; s < kMaxStates; ++s) mask |= unsigned(info(kind).states[s].eight_bits == EightBits::with_sign) << s;
    return mask;
}

// Of the vector from element i on, the lanes that lie before element n.
TRAINSTEP_INLINE Tail<float> counted(std::size_t n, std::size_t i) {
    constexpr std::size_t width = kWidth<float>;
    return Tail<float>(std::ptrdiff_t(i + width <= n ? width : (i < n ? n - i : 0)));
}

// What is on its way from memory while the elements before it are calculated with: there is too much to do for the processor to
// look that far ahead by itself.
constexpr std::size_t kAhead = 2 * kBlock;

// What one block of a span leaves to the next.
struct LowBitPass {
    storage::RandomBits random[2];  // of this block and of the one before or after it
    alignas(64) float moved[2][kMaxStates][kBlock];
    LowBitBlock before;  // in eight bits: still to be encoded
    int parity = 0;
    bool begun = false;
};

// Two vectors, of elements i and on. load(s, i) gives their state s, and keep(s, i, first, second) takes it.
template <class Body, class Load, class Keep>
TRAINSTEP_INLINE void step_two(const LowBitBlock& b, std::size_t i, Body& body, Load load_state, Keep keep_state) {
    constexpr std::size_t width = kWidth<float>;
    F32 state[2][kMaxStates];
    for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) {
        const Pair pair = load_state(s, i);
        state[0][s] = (F32)pair.first, state[1][s] = (F32)pair.second;
    });
    for (int half = 0; half < 2; ++half) {
        const std::size_t at = i + std::size_t(half) * width;
        __builtin_prefetch(b.w + at + kAhead);
        __builtin_prefetch(b.g + at + kAhead);
        F32 w = load(b.w + at);
        body(w, state[half], load(b.g + at), counted(b.n, at));
        if constexpr (Body::writes_w) store<float>(b.w + at, w);
    }
    for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) { keep_state(s, i, state[0][s], state[1][s]); });
}

template <class Body>
__attribute__((noinline)) void step_bfloat16(LowBitPass& pass, const LowBitBlock& b_, Body& body_) {
    constexpr std::size_t width = kWidth<float>;
    const LowBitBlock b = b_;
    Body body = body_;
    const storage::RandomBits& random = pass.random[pass.parity];
    const auto step = [&](std::size_t i) __attribute__((always_inline)) {
        step_two(
            b, i, body,
            [&](int s, std::size_t i) __attribute__((always_inline)) {
                const std::uint16_t* const bits = static_cast<const std::uint16_t*>(b.states[s]) + i;
                __builtin_prefetch(bits + kAhead);
                return as_upper_halves(load16(bits));
            },
            [&](int s, std::size_t i, F32 first, F32 second) __attribute__((always_inline)) {
                const auto rounded = [&](F32 x, std::size_t at) __attribute__((always_inline)) {
                    return x == x ? random.add_below<16>(x, at, s) : (U32)x;  // NaN as calculations leave it is quiet
                };
                store16(static_cast<std::uint16_t*>(b.states[s]) + i,
                        upper_halves({rounded(first, i), rounded(second, i + width)}));
            });
    };
    if (Body::writes != 0) {
        if (!pass.begun) storage::fill(pass.random[pass.parity], b.place);
        pass.begun = true;
        pass.parity = 1 - pass.parity;
        storage::fill(pass.random[pass.parity], {b.place.key, b.place.block + 1});  // in time: what is just stored is slow to load
    }
    for (std::size_t i = 0; i < kBlock; i += 2 * width) step(i);
    body_ = body;
}

// The states of a block, as they shall be, to their codes, whose exponents are known.
template <unsigned with_sign, unsigned writes>
struct Encoding {
    const storage::RandomBits& random;
    const float (*moved)[kBlock];
    std::uint8_t *codes[kMaxStates], exponents[kMaxStates];

    Encoding(const LowBitPass& pass, int of) : random(pass.random[of]), moved(pass.moved[of]) {
        for_each_state<writes>([&](int s) __attribute__((always_inline)) {
            codes[s] = static_cast<std::uint8_t*>(pass.before.states[s]);
            exponents[s] = *pass.before.exponents[s];
        });
    }
    template <class F>
    TRAINSTEP_INLINE void with_codes(int s, F f) const {
        with_sign >> s & 1 ? f(storage::BlockOfCodes<true>(exponents[s])) : f(storage::BlockOfCodes<false>(exponents[s]));
    }
    TRAINSTEP_INLINE void operator()(std::size_t i) const {
        for_each_state<writes>([&](int s) __attribute__((always_inline)) {
            with_codes(s, [&](auto block) __attribute__((always_inline)) {
                const auto added = [&](std::size_t at) __attribute__((always_inline)) {
                    return random.template add_below<storage::kRoundedBits>(load(moved[s] + at), at, s);
                };
                block.encode(codes[s] + i, {added(i), added(i + kWidth<float>)});
            });
        });
    }
    void finish() const {
        for_each_state<writes>([&](int s) __attribute__((always_inline)) {
            with_codes(s, [&](auto block) __attribute__((always_inline)) {
                if (exponents[s] == storage::kNonFinite) block.fill_nan(codes[s]);
            });
        });
    }
};

// The codes of a block follow beside the next block, or after the last one: only its end tells their exponent.
template <unsigned with_sign, class Body>
__attribute__((noinline)) void step_eight_bits(LowBitPass& pass, const LowBitBlock& b_, bool is_last, Body& body_) {
    constexpr std::size_t two = 2 * kWidth<float>;
    using Codes = Encoding<with_sign, Body::writes>;
    const LowBitBlock b = b_;
    Body body = body_;
    float(*const moved)[kBlock] = pass.moved[pass.parity];
    storage::Largest largest[kMaxStates];
    std::uint8_t exponents[kMaxStates];
    for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) { exponents[s] = *b.exponents[s]; });
    const auto step = [&](std::size_t i) __attribute__((always_inline)) {
        step_two(
            b, i, body,
            [&](int s, std::size_t i) __attribute__((always_inline)) {
                const std::uint8_t* const codes = static_cast<const std::uint8_t*>(b.states[s]) + i;
                __builtin_prefetch(codes + kAhead);
                return with_sign >> s & 1 ? storage::BlockOfCodes<true>(exponents[s]).decode(codes)
                                          : storage::BlockOfCodes<false>(exponents[s]).decode(codes);
            },
            [&](int s, std::size_t i, F32 first, F32 second) __attribute__((always_inline)) {
                store<float>(moved[s] + i, first);
                store<float>(moved[s] + i + two / 2, second);
                largest[s].add(first, with_sign >> s & 1);
                largest[s].add(second, with_sign >> s & 1);
            });
    };
    if constexpr (Body::writes == 0) {
        for (std::size_t i = 0; i < kBlock; i += two) step(i);
    } else {
        storage::fill(pass.random[pass.parity], b.place);
        if (pass.begun) {
            const Codes encode_before(pass, 1 - pass.parity);
            for (std::size_t i = 0; i < kBlock; i += two) step(i), encode_before(i);
            encode_before.finish();
        } else {
            for (std::size_t i = 0; i < kBlock; i += two) step(i);
        }
        for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) { *b.exponents[s] = largest[s].exponent(); });
        pass.before = b;
        pass.begun = true;
        pass.parity = 1 - pass.parity;
        if (is_last) {
            const Codes encode(pass, 1 - pass.parity);
            for (std::size_t i = 0; i < kBlock; i += two) encode(i);
            encode.finish();
        }
    }
    body_ = body;
}

// One block of a span whose states are stored in fewer bits. An array's last block may be a part of one: then a copy of it is
// stepped, filled up with its last element, which changes neither the exponents nor the sums.
template <OptimizerKind kind, class Body>
void step_low_bit(LowBitPass& pass, StateFormat format, LowBitBlock b, bool is_last, Body& body) {
    const std::size_t size = format == StateFormat::bfloat16 ? 2 : 1;
    alignas(64) float w[kBlock], g[kBlock];
    alignas(64) std::uint16_t states[kMaxStates][kBlock];
    const LowBitBlock own = b;
    if (b.n < kBlock) {
        const auto fill_up = [n = b.n](auto* to, const auto* from) __attribute__((always_inline)) {
            for (std::size_t i = 0; i < kBlock; ++i) to[i] = from[i < n ? i : n - 1];
            return to;
        };
        b.w = fill_up(w, own.w), b.g = fill_up(g, own.g);
        for_each_state<Body::reads>([&](int i) __attribute__((always_inline)) {
            b.states[i] = states[i];
            size == 2 ? (void)fill_up(states[i], static_cast<const std::uint16_t*>(own.states[i]))
                      : (void)fill_up(reinterpret_cast<std::uint8_t*>(states[i]), static_cast<const std::uint8_t*>(own.states[i]));
        });
    }
    if (format == StateFormat::bfloat16) {
        step_bfloat16(pass, b, body);
    } else if constexpr (fits_eight_bits(kind)) {
        step_eight_bits<signed_states<kind>()>(pass, b, is_last, body);
    }
    if (b.n < kBlock) {
        if constexpr (Body::writes_w) __builtin_memcpy(own.w, w, b.n * sizeof *w);
        for_each_state<Body::writes>(
            [&](int i) __attribute__((always_inline)) { __builtin_memcpy(own.states[i], states[i], b.n * size); });
    }
}

// --- spans --------------------------------------------------------------------------------------------------------------------

// A block that is to come soon.
TRAINSTEP_INLINE void prefetch_block(const void* array, std::size_t size, std::size_t first) {
    const char* const from = static_cast<const char*>(array) + (first + kAhead) * size;
    for (std::size_t i = 0; i < kBlock * size; i += 64) __builtin_prefetch(from + i);
}

// Calls body for every vector of the span: at once where everything is stored in T, else block by block, with gradients and
// bfloat16 parameters through buffers.
template <class T, OptimizerKind kind, class Body>
TRAINSTEP_INLINE void step_span(const StepSpan<T>& s, Body& body) {
    constexpr Dtype own = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    const bool low_bits = sizeof(T) == 4 && s.format != StateFormat::native;
    if (s.g_dtype == own && !low_bits && !s.bfloat16) {
        Elements<T> e{s.w, static_cast<const T*>(s.g), {}, s.n};
        for (int i = 0; i < kMaxStates; ++i) e.states[i] = static_cast<T*>(s.states[i]);
        return step_elements<T>(e, body);
    }
    alignas(64) T gradient[kBlock];
    LowBitPass pass;
    for (std::size_t first = 0; first < s.n; first += kBlock) {
        const std::size_t count = s.n - first < kBlock ? s.n - first : kBlock;
        T* const w = s.w + first;
        const T* g = static_cast<const T*>(s.g) + first;
        if (s.g_dtype != own) {
            prefetch_block(s.g, dtype_size(s.g_dtype), first);
            storage::load_as<T>(gradient, s.g, s.g_dtype, first, count);
            g = gradient;
        }
        if constexpr (sizeof(T) == 4)
            if (s.bfloat16) {
                prefetch_block(s.bfloat16, 2, first);
                storage::take_written(w, s.bfloat16 + first, count);
            }
        if (!low_bits) {
            prefetch_block(w, sizeof(T), 0);
            Elements<T> e{w, g, {}, count};
            for_each_state<Body::reads>([&](int i) __attribute__((always_inline)) {
                e.states[i] = static_cast<T*>(s.states[i]) + first;
                prefetch_block(e.states[i], sizeof(T), 0);
            });
            step_elements<T>(e, body);
        } else if constexpr (sizeof(T) == 4) {
            LowBitBlock b{w, g, {}, {}, count, s.place};
            b.place.block += std::uint32_t(first / kBlock);
            for_each_state<Body::reads>([&](int i) __attribute__((always_inline)) {
                b.states[i] = static_cast<char*>(s.states[i]) + first * (s.format == StateFormat::bfloat16 ? 2 : 1);
                if (s.exponents[i]) b.exponents[i] = s.exponents[i] + first / kBlock;
            });
            step_low_bit<kind>(pass, s.format, b, first + kBlock >= s.n, body);
        }
        if constexpr (sizeof(T) == 4)
            if (Body::writes_w && s.bfloat16) storage::store_bfloat16(s.bfloat16 + first, w, count);
    }
}

template <class T, OptimizerKind kind, template <class> class Rule>
void run(const StepSpan<T>& s) {
    const Penalties<T> penalties(*s.terms);
    Rule<T>::choose(*s.options, *s.terms, [&](const auto& form) __attribute__((always_inline)) {
        using Form = std::remove_cvref_t<decltype(form)>;
        const auto step = [&](auto body) __attribute__((always_inline)) { step_span<T, kind>(s, body); };
        penalties.any() ? step(Update<T, true, Form>{form, penalties}) : step(Update<T, false, Form>{form, penalties});
    });
    if (s.zero_grads) __builtin_memset(s.g, 0, s.n * dtype_size(s.g_dtype));
}

template <class T, OptimizerKind kind, template <class> class Rule>
void run_direction(const StepSpan<T>& s, SquareSums& sums) {
    const Penalties<T> penalties(*s.terms);
    Rule<T>::choose_direction(*s.options, *s.terms, [&](const auto& form) __attribute__((always_inline)) {
        using Form = std::remove_cvref_t<decltype(form)>;
        const auto measure = [&](auto body) __attribute__((always_inline)) {
            step_span<T, kind>(s, body);
            sums.w += reduce_add<double>(body.of_w);
            sums.direction += reduce_add<double>(body.of_direction);
        };
        penalties.any() ? measure(Measure<T, true, Form>{form, penalties}) : measure(Measure<T, false, Form>{form, penalties});
    });
}

}  // namespace trainstep::TRAINSTEP_ISA::optimizers
