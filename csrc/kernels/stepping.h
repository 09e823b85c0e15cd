// How a rule goes over a span of an array: at once where everything is stored as it is calculated with, else block by block; states
// in fewer bits are decoded, moved and encoded in registers.
#pragma once

#include <type_traits>

#include "kernels/optimizers.h"
#include "kernels/staging.h"

namespace trainstep::TRAINSTEP_ISA::optimizers {

// Some elements of one array, with everything in T: n of each row.
template <class T>
struct Elements {
    T* w;
    const T* g;
    T* states[kMaxStates];
    std::size_t n, rows = 1, stride = 0, g_stride = 0;
};

// Rows of up to so many elements are gone down one vector after the other, wider ones along.
template <class T>
constexpr std::size_t kNarrowRows = 8 * kWidth<T>;
constexpr std::size_t kRowsAhead = 8;

template <bool in_rows, class T, class Body>
__attribute__((noinline)) void step_elements(const Elements<T>& e_, Body& body_) {
    const Elements<T> e = e_;  // copies, which no store can change
    Body body = body_;
    const auto step = [&](std::size_t at, std::size_t at_g, auto part) __attribute__((always_inline)) {
        Vec<T> w = get<T>(e.w + at, part), state[kMaxStates];
        for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) { state[s] = get<T>(e.states[s] + at, part); });
        body(w, state, get<T>(e.g + at_g, part), part);
        if constexpr (Body::writes_w) put<T>(e.w + at, part, w);
        for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) { put<T>(e.states[s] + at, part, state[s]); });
    };
    if constexpr (in_rows) {
        // Rows inside: a thread that steps some columns of an array then goes in even strides, and its processor does not fetch
        // ahead what another thread steps. It hardly foresees strides; behind the last row there may be another thread's data.
        const std::size_t ahead = kRowsAhead * e.stride, ahead_g = kRowsAhead * e.g_stride;
        for_each_vector<T>(e.n, [&](std::size_t i, auto part) __attribute__((always_inline)) {
            for (std::size_t row = 0, at = i, at_g = i; row < e.rows; ++row, at += e.stride, at_g += e.g_stride) {
                if (row + kRowsAhead < e.rows) {
                    __builtin_prefetch(e.w + at + ahead);
                    __builtin_prefetch(e.g + at_g + ahead_g);
                    for_each_state<Body::reads>(
                        [&](int s) __attribute__((always_inline)) { __builtin_prefetch(e.states[s] + at + ahead); });
                }
                step(at, at_g, part);
            }
        });
    } else {
        // Arrays of NumPy often lie 16 bytes behind a cache line, and states are laid out as their parameter is.
        constexpr std::size_t bytes = kVectorBytes;
        const std::size_t ahead = (bytes - reinterpret_cast<std::uintptr_t>(e.w) % bytes) % bytes;
        const bool aligned = Body::writes_w && e.n >= kBlock && ahead % sizeof(T) == 0;  // sums do not depend on addresses
        for_each_vector<T>(
            e.n, [&](std::size_t i, auto part) __attribute__((always_inline)) { step(i, i, part); },
            aligned ? ahead / sizeof(T) : 0);
    }
    body_ = body;
}

// --- states in fewer bits -----------------------------------------------------------------------------------------------------

// n elements, from the first of a block on. There is room for whole blocks.
struct LowBitElements {
    float* w;
    const float* g;
    void* states[kMaxStates];
    std::uint8_t* exponents[kMaxStates];  // one a block
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
// look that far ahead by itself. 67 million parameters, ns an element on two threads: without 0.47 (bfloat16) and 0.54 (8 bits),
// one to four blocks ahead 0.43 to 0.45 and 0.47 to 0.49, eight 0.47 and 0.51.
constexpr std::size_t kAhead = 2 * kBlock;

// What one block of a span leaves to the next.
struct LowBitPass {
    storage::RandomBits random[2];  // of this block and of the one before or after it
    alignas(64) float moved[2][kMaxStates][kBlock];
    std::uint8_t* codes[kMaxStates];  // in eight bits: of the block before, still to be encoded
    std::uint8_t exponents[kMaxStates];
    int parity = 0;
    bool begun = false;
};

// Two vectors, of elements i and on. load(s, i) gives their state s, and keep(s, i, first, second) takes it.
template <class Body, class Load, class Keep>
TRAINSTEP_INLINE void step_two(const LowBitElements& e, std::size_t i, Body& body, Load load_state, Keep keep_state) {
    constexpr std::size_t width = kWidth<float>;
    F32 state[2][kMaxStates];
    for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) {
        const Pair pair = load_state(s, i);
        state[0][s] = (F32)pair.first, state[1][s] = (F32)pair.second;
    });
    for (int half = 0; half < 2; ++half) {
        const std::size_t at = i + std::size_t(half) * width;
        __builtin_prefetch(e.w + at + kAhead);
        __builtin_prefetch(e.g + at + kAhead);
        F32 w = load(e.w + at);
        body(w, state[half], load(e.g + at), counted(e.n, at));
        if constexpr (Body::writes_w) store<float>(e.w + at, w);
    }
    for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) { keep_state(s, i, state[0][s], state[1][s]); });
}

template <class Body>
__attribute__((noinline)) void step_bfloat16(LowBitPass& pass, const LowBitElements& e_, Body& body_) {
    constexpr std::size_t width = kWidth<float>;
    const LowBitElements e = e_;
    Body body = body_;
    if (Body::writes != 0 && !pass.begun) storage::fill(pass.random[pass.parity], e.place);
    pass.begun = true;
    for (std::size_t first = 0; first < e.n; first += kBlock) {
        const storage::RandomBits& random = pass.random[pass.parity];
        pass.parity = 1 - pass.parity;
        // The next one's, in time: what has just been stored is slow to load from another address.
        const std::uint32_t next = e.place.block + std::uint32_t(first / kBlock) + 1;
        if (Body::writes != 0) storage::fill(pass.random[pass.parity], {e.place.key, next});
        for (std::size_t i = first; i < first + kBlock; i += 2 * width)
            step_two(
                e, i, body,
                [&](int s, std::size_t i) __attribute__((always_inline)) {
                    const std::uint16_t* const bits = static_cast<const std::uint16_t*>(e.states[s]) + i;
                    __builtin_prefetch(bits + kAhead);
                    return as_upper_halves(load16(bits));
                },
                [&](int s, std::size_t i, F32 first, F32 second) __attribute__((always_inline)) {
                    const auto added = [&](F32 x, std::size_t at) __attribute__((always_inline)) {
                        return x == x ? random.add_below<16>(x, at, s) : (U32)x;  // NaN as calculations leave it is quiet
                    };
                    store16(static_cast<std::uint16_t*>(e.states[s]) + i,
                            upper_halves({added(first, i), added(second, i + width)}));
                });
    }
    body_ = body;
}

// The states of the block before, as they shall be, to their codes, now that their exponents are known.
template <unsigned with_sign, unsigned writes>
struct Encoding {
    const storage::RandomBits& random;
    const float (*moved)[kBlock];
    std::uint8_t *codes[kMaxStates], exponents[kMaxStates];

    TRAINSTEP_INLINE explicit Encoding(const LowBitPass& pass)
        : random(pass.random[1 - pass.parity]), moved(pass.moved[1 - pass.parity]) {
        for_each_state<writes>([&](int s)
                                   __attribute__((always_inline)) { codes[s] = pass.codes[s], exponents[s] = pass.exponents[s]; });
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
    TRAINSTEP_INLINE void finish() const {
        for_each_state<writes>([&](int s) __attribute__((always_inline)) {
            with_codes(s, [&](auto block) __attribute__((always_inline)) {
                if (exponents[s] == storage::kNonFinite) block.fill_nan(codes[s]);
            });
        });
    }
};
template <unsigned with_sign, unsigned writes>
TRAINSTEP_INLINE void encode_block(const LowBitPass& pass) {
    const Encoding<with_sign, writes> encode(pass);
    for (std::size_t i = 0; i < kBlock; i += 2 * kWidth<float>) encode(i);
    encode.finish();
}

// The codes of a block follow beside the next block, or at the end: only the whole block tells their exponent.
template <unsigned with_sign, class Body>
__attribute__((noinline)) void step_eight_bits(LowBitPass& pass, const LowBitElements& e_, bool is_end, Body& body_) {
    constexpr std::size_t width = kWidth<float>;
    const LowBitElements e = e_;
    Body body = body_;
    for (std::size_t first = 0; first < e.n; first += kBlock) {
        float(*const moved)[kBlock] = pass.moved[pass.parity];
        storage::Largest largest[kMaxStates];
        std::uint8_t exponents[kMaxStates];
        for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) { exponents[s] = e.exponents[s][first / kBlock]; });
        const auto step = [&](std::size_t i) __attribute__((always_inline)) {
            step_two(
                e, first + i, body,
                [&](int s, std::size_t at) __attribute__((always_inline)) {
                    const std::uint8_t* const codes = static_cast<const std::uint8_t*>(e.states[s]) + at;
                    __builtin_prefetch(codes + kAhead);
                    return with_sign >> s & 1 ? storage::BlockOfCodes<true>(exponents[s]).decode(codes)
                                              : storage::BlockOfCodes<false>(exponents[s]).decode(codes);
                },
                [&](int s, std::size_t, F32 one, F32 two) __attribute__((always_inline)) {
                    store<float>(moved[s] + i, one);
                    store<float>(moved[s] + i + width, two);
                    largest[s].add(one, with_sign >> s & 1);
                    largest[s].add(two, with_sign >> s & 1);
                });
        };
        if (Body::writes != 0 && pass.begun) {
            const Encoding<with_sign, Body::writes> encode_before(pass);
            for (std::size_t i = 0; i < kBlock; i += 2 * width) step(i), encode_before(i);
            encode_before.finish();
        } else {
            for (std::size_t i = 0; i < kBlock; i += 2 * width) step(i);
        }
        if (Body::writes == 0) continue;
        storage::fill(pass.random[pass.parity], {e.place.key, e.place.block + std::uint32_t(first / kBlock)});
        for_each_state<Body::writes>([&](int s) __attribute__((always_inline)) {
            pass.codes[s] = static_cast<std::uint8_t*>(e.states[s]) + first;
            pass.exponents[s] = e.exponents[s][first / kBlock] = largest[s].exponent();
        });
        pass.begun = true;
        pass.parity = 1 - pass.parity;
    }
    if (Body::writes != 0 && is_end) encode_block<with_sign, Body::writes>(pass);
    body_ = body;
}

// Elements whose states are stored in fewer bits: whole blocks, or a part of one at the end of an array. Of that a copy is stepped,
// filled up with its last element, which changes neither the exponents nor the sums.
template <OptimizerKind kind, class Body>
void step_low_bit(LowBitPass& pass, StateFormat format, LowBitElements e, bool is_end, Body& body) {
    const std::size_t size = format == StateFormat::bfloat16 ? 2 : 1;
    alignas(64) float w[kBlock], g[kBlock];
    alignas(64) std::uint16_t states[kMaxStates][kBlock];
    const LowBitElements own = e;
    const bool is_part = e.n % kBlock != 0;
    if (is_part) {
        const auto fill_up = [n = e.n](auto* to, const auto* from) __attribute__((always_inline)) {
            for (std::size_t i = 0; i < kBlock; ++i) to[i] = from[i < n ? i : n - 1];
            return to;
        };
        e.w = fill_up(w, own.w), e.g = fill_up(g, own.g);
        for_each_state<Body::reads>([&](int s) __attribute__((always_inline)) {
            e.states[s] = states[s];
            size == 2 ? (void)fill_up(states[s], static_cast<const std::uint16_t*>(own.states[s]))
                      : (void)fill_up(reinterpret_cast<std::uint8_t*>(states[s]), static_cast<const std::uint8_t*>(own.states[s]));
        });
    }
    if (format == StateFormat::bfloat16)
        step_bfloat16(pass, e, body);
    else if constexpr (fits_eight_bits(kind))
        step_eight_bits<signed_states<kind>()>(pass, e, is_end, body);
    if (is_part) {
        if constexpr (Body::writes_w) __builtin_memcpy(own.w, w, e.n * sizeof *w);
        for_each_state<Body::writes>(
            [&](int s) __attribute__((always_inline)) { __builtin_memcpy(own.states[s], states[s], e.n * size); });
    }
}

// --- spans --------------------------------------------------------------------------------------------------------------------

// A block that is to come soon.
TRAINSTEP_INLINE void prefetch_block(const void* array, std::size_t size, std::size_t first) {
    const char* const from = static_cast<const char*>(array) + (first + kAhead) * size;
    for (std::size_t i = 0; i < kBlock * size; i += 64) __builtin_prefetch(from + i);
}

// Calls body for every vector of the span: at once where everything is stored in T, else in as large parts as there is room to
// stage gradients and bfloat16 parameters.
template <class T, OptimizerKind kind, class Body>
TRAINSTEP_INLINE void step_span(const StepSpan<T>& s, Body& body) {
    constexpr Dtype own = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    const bool low_bits = sizeof(T) == 4 && s.format != StateFormat::native, staged = s.g_dtype != own || s.bfloat16;
    if (!staged && !low_bits) {
        Elements<T> e{s.w, static_cast<const T*>(s.g), {}, s.n, s.rows, s.stride, s.g_stride};
        for (int i = 0; i < kMaxStates; ++i) e.states[i] = static_cast<T*>(s.states[i]);
        if (s.rows > 1 && s.n <= kNarrowRows<T>) return step_elements<true>(e, body);
        for (std::size_t row = 0; row < s.rows; ++row) {
            step_elements<false>(e, body);
            e.w += s.stride, e.g += s.g_stride;
            for_each_state<Body::reads>([&](int i) __attribute__((always_inline)) { e.states[i] += s.stride; });
        }
        return;
    }
    alignas(64) T gradient[kBlock];
    LowBitPass pass;
    for (std::size_t first = 0, count; first < s.n; first += count) {
        count = s.n - first;
        if (count > kBlock) count = staged ? kBlock : count / kBlock * kBlock;
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
            step_elements<false>(e, body);
        } else if constexpr (sizeof(T) == 4) {
            LowBitElements e{w, g, {}, {}, count, {s.place.key, s.place.block + std::uint32_t(first / kBlock)}};
            for_each_state<Body::reads>([&](int i) __attribute__((always_inline)) {
                e.states[i] = static_cast<char*>(s.states[i]) + first * (s.format == StateFormat::bfloat16 ? 2 : 1);
                if (s.exponents[i]) e.exponents[i] = s.exponents[i] + first / kBlock;
            });
            step_low_bit<kind>(pass, s.format, e, first + count == s.n, body);
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
