// Optimizers: the one list, and one functor per formula: how one vector of a parameter w, its gradient g and its states moves.
//
// What all of them share is done before the functor sees w and g (Penalties below):
//   g = scale * g (scale < 0 where the objective is maximized);  g = clamp(g, -clip_value, clip_value);
//   g += weight_decay * w (coupled);  g += l1 * sign(w);  w *= 1 - lr * weight_decay (decoupled).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/lists.h"
#include "kernels/storage.h"

// name, then its states under PyTorch's names: each may be kept in 8 bits as a number with a sign, without one, or not at all.
#define TRAINSTEP_OPTIMIZERS(X)                                                                       \
    X(sgd, {"momentum_buffer", with_sign})                                                            \
    X(adagrad, {"sum", without_sign})                                                                 \
    X(adadelta, {"square_avg", never}, {"acc_delta", never})                                          \
    X(rmsprop, {"square_avg", without_sign}, {"momentum_buffer", with_sign}, {"grad_avg", with_sign}) \
    X(adam, {"exp_avg", with_sign}, {"exp_avg_sq", without_sign}, {"max_exp_avg_sq", without_sign})   \
    X(adamax, {"exp_avg", never}, {"exp_inf", never})                                                 \
    X(nadam, {"exp_avg", never}, {"exp_avg_sq", never})                                               \
    X(radam, {"exp_avg", never}, {"exp_avg_sq", never})                                               \
    X(rprop, {"prev", never}, {"step_size", never})                                                   \
    X(asgd, {"ax", never})                                                                            \
    X(lion, {"exp_avg", with_sign})                                                                   \
    X(lamb, {"exp_avg", with_sign}, {"exp_avg_sq", without_sign})                                     \
    X(lars, {"momentum_buffer", never})

namespace trainstep {
TRAINSTEP_FAMILY(OptimizerKind, TRAINSTEP_OPTIMIZERS)

inline constexpr int kMaxStates = 3;

enum class EightBits { never, with_sign, without_sign };
struct StateInfo {
    const char* name = nullptr;
    EightBits eight_bits = EightBits::never;
};
struct OptimizerInfo {
    StateInfo states[kMaxStates];
};
// Not inline: a copy in each file, since symbols of the same name in the files of two ISA levels would merge.
namespace optimizer_info {
using enum EightBits;
#define TRAINSTEP_INFO(name, ...) {{__VA_ARGS__}},
constexpr OptimizerInfo kAll[] = {TRAINSTEP_OPTIMIZERS(TRAINSTEP_INFO)};
#undef TRAINSTEP_INFO
}  // namespace optimizer_info
static constexpr const OptimizerInfo& info(OptimizerKind kind) { return optimizer_info::kAll[int(kind)]; }

constexpr bool fits_eight_bits(OptimizerKind kind) {
    for (const StateInfo& state : info(kind).states)
        if (state.name && state.eight_bits == EightBits::never) return false;
    return true;
}

// What the user sets. An optimizer reads its own fields and no others.
struct OptimizerOptions {
    double lr = 1e-3;
    double weight_decay = 0, l1 = 0;
    bool decoupled_weight_decay = false, maximize = false;
    double momentum = 0, dampening = 0;
    bool nesterov = false, lr_in_velocity = false;
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    bool amsgrad = false, bias_correction = true, eps_inside_sqrt = false;
    double lr_decay = 0, initial_accumulator_value = 0;  // adagrad
    double rho = 0.9;                                    // adadelta
    double alpha = 0.99;                                 // rmsprop; asgd
    bool centered = false;                               // rmsprop
    double momentum_decay = 4e-3;                        // nadam
    double eta_minus = 0.5, eta_plus = 1.2;              // rprop
    double step_size_min = 1e-6, step_size_max = 50;     // rprop
    double lambd = 1e-4, t0 = 1e6;                       // asgd
    double trust_coefficient = 1e-3;                     // lars
};

// What follows from the options and the number of the step, once for a whole array (optim/terms.h).
struct StepTerms {
    double scale = 1;       // what the gradient is multiplied with
    double clip_value = 0;  // 0: no limit
    double coupled = 0, l1 = 0, shrink = 1;
    double step_size = 0;                     // what the direction is multiplied with
    double correction1 = 1, correction2 = 1;  // of the moments: 1 / (1 - beta^t)
    double gradient_size = 0;                 // nadam: what g itself is multiplied with in the update
    double average_gain = 1;                  // asgd: mu
    double trust = 1;                         // lamb, lars
    bool first = false;                       // step 1
    bool adaptive = true;                     // radam: the variance of the step is bounded
};

// One span of an array to step: n elements, or n elements of each of `rows` rows that begin `stride` elements apart, those of g
// `g_stride`. More than one row only where w, g and the states are all of T, and without zero_grads.
template <class T>
struct StepSpan {
    T* w;
    void* g;  // written only with zero_grads
    Dtype g_dtype;
    void* states[kMaxStates];             // those that the options ask for
    std::uint8_t* exponents[kMaxStates];  // of states in eight bits
    StateFormat format;                   // of all states; in float64 native
    std::uint16_t* bfloat16;              // the parameter, where w is its float32 master; else null
    std::size_t n, rows, stride, g_stride;
    OptimizerKind kind;
    const OptimizerOptions* options;
    const StepTerms* terms;
    bool zero_grads;
    RandomPlace place;

    LowBitState low_bit(int state) const {
        return {states[state], exponents[state], format, info(kind).states[state].eight_bits == EightBits::with_sign};
    }
};

// Of a tensor: sum of squares of w and of the direction, whose ratio is the trust ratio of lamb and lars.
struct SquareSums {
    double w = 0, direction = 0;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/loops.h"

namespace trainstep::TRAINSTEP_ISA::optimizers {

// Each struct below holds its forms for a dtype, and `choose` calls f with the one that the options ask for. A form says which
// states it moves, as a bit mask, and moves one vector: w and the states in place, for the gradient g. A rule with a trust ratio
// has two passes: `choose_direction` gives the form of the first, which moves the states and returns the direction; then the ratio
// of the whole tensor is in terms.trust.

// a, with its distance to b made smaller by `gain`: a moving average.
template <class T>
TRAINSTEP_INLINE Vec<T> average(T keep, Vec<T> a, T gain, Vec<T> b) {
    return fma(set1<T>(keep), a, gain * b);
}
template <class T>
TRAINSTEP_INLINE Vec<T> average_squares(T keep, Vec<T> a, T gain, Vec<T> b) {
    return fma(set1<T>(keep), a, gain * b * b);
}
// The larger one; NaN where either is.
template <class T>
TRAINSTEP_INLINE Vec<T> max_or_nan(Vec<T> a, Vec<T> b) {
    return a != a ? a : max(a, b);
}
// sqrt(variance) + eps, or sqrt(variance + eps).
template <class T>
TRAINSTEP_INLINE Vec<T> deviation(Vec<T> variance, T eps, bool eps_inside_sqrt) {
    return eps_inside_sqrt ? sqrt(variance + eps) : sqrt(variance) + eps;
}

// SGD. Without momentum w -= lr * g. With it, PyTorch's form: buf = momentum * buf + (1 - dampening) * g, where the first step sets
// buf = g; w -= lr * buf, or w -= lr * (g + momentum * buf) with nesterov. lr_in_velocity is the textbook form:
// change = momentum * change + lr * g; w -= change. Sutskever et al. (ICML 2013), equations 1 to 4.
template <class T>
struct plain_descent {
    static constexpr unsigned states = 0;
    T lr;

    TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>*, Vec<T> g) const { w = fma(set1<T>(-lr), g, w); }
};
template <class T>
struct sgd {
    struct with_momentum {
        static constexpr unsigned states = 0b1;
        T lr, momentum, gain;  // gain: what g enters the buffer with
        bool first, nesterov, lr_in_velocity;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>& buf = state[0];
            buf = first ? g : average(momentum, buf, gain, g);
            if (lr_in_velocity)
                w = w - buf;
            else
                w = fma(set1<T>(-lr), nesterov ? fma(set1<T>(momentum), buf, g) : buf, w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        if (o.momentum == 0) return f(plain_descent<T>{T(o.lr)});
        f(with_momentum{T(o.lr), T(o.momentum), T(o.lr_in_velocity ? o.lr : 1 - o.dampening), t.first && !o.lr_in_velocity,
                        o.nesterov, o.lr_in_velocity});
    }
};

// Adagrad: s += g^2; w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps). Duchi, Hazan, Singer (JMLR 2011), figure 1.
template <class T>
struct adagrad {
    struct form {
        static constexpr unsigned states = 0b1;
        T step_size, eps;
        bool eps_inside_sqrt;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            state[0] = fma(g, g, state[0]);
            w = w - step_size * g / deviation(state[0], eps, eps_inside_sqrt);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{T(t.step_size), T(o.eps), o.eps_inside_sqrt});
    }
};

// Adadelta: v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) * g; u = rho u + (1 - rho) d^2; w -= lr * d.
// Zeiler (arXiv 1212.5701), algorithm 1.
template <class T>
struct adadelta {
    struct form {
        static constexpr unsigned states = 0b11;
        T lr, rho, gain, eps;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>&v = state[0], &u = state[1];
            v = average_squares(rho, v, gain, g);
            // One root for the quotient of two; both are at least sqrt(eps), and nothing overflows that did not before.
            const Vec<T> delta = sqrt((u + eps) / (v + eps)) * g;
            u = average_squares(rho, u, gain, delta);
            w = fma(set1<T>(-lr), delta, w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms&, F f) {
        f(form{T(o.lr), T(o.rho), T(1 - o.rho), T(o.eps)});
    }
};

// RMSprop: v = alpha v + (1 - alpha) g^2; d = g / (sqrt(v) + eps), centered: m = alpha m + (1 - alpha) g and v - m^2 in the place
// of v; w -= lr * d, or with momentum buf = momentum * buf + d; w -= lr * buf. Hinton (lecture 6e, 2012); centered: Graves (arXiv
// 1308.0850), equations 38 to 41.
template <class T>
struct rmsprop {
    template <bool with_momentum, bool centered>
    struct form {
        static constexpr unsigned states = 0b1 | with_momentum << 1 | centered << 2;
        T lr, alpha, gain, eps, momentum;
        bool eps_inside_sqrt;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            state[0] = average_squares(alpha, state[0], gain, g);
            Vec<T> variance = state[0];
            if constexpr (centered) {
                state[2] = average(alpha, state[2], gain, g);
                variance = max(zero<T>(), fma(-state[2], state[2], variance));  // rounding may leave it below 0
            }
            Vec<T> direction = g / deviation(variance, eps, eps_inside_sqrt);
            if constexpr (with_momentum) direction = state[1] = fma(set1<T>(momentum), state[1], direction);
            w = fma(set1<T>(-lr), direction, w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms&, F f) {
        const auto with = [&](auto form) __attribute__((always_inline)) {
            form.lr = T(o.lr), form.alpha = T(o.alpha), form.gain = T(1 - o.alpha), form.eps = T(o.eps);
            form.momentum = T(o.momentum), form.eps_inside_sqrt = o.eps_inside_sqrt;
            f(form);
        };
        if (o.momentum == 0)
            o.centered ? with(form<false, true>{}) : with(form<false, false>{});
        else
            o.centered ? with(form<true, true>{}) : with(form<true, false>{});
    }
};

// Adam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps).
// eps stands outside the root, as in the paper and PyTorch, unless eps_inside_sqrt; bias_correction = false leaves both corrections
// at 1; amsgrad has the largest v so far in the place of v. Kingma and Ba (ICLR 2015), algorithm 1; decoupled decay: Loshchilov
// and Hutter (ICLR 2019), algorithm 2; amsgrad: Reddi, Kale, Kumar (ICLR 2018), algorithm 2.
template <class T>
struct adam {
    template <bool amsgrad>
    struct form {
        static constexpr unsigned states = 0b11 | amsgrad << 2;
        T beta1, beta2, gain1, gain2, step_size, correction2, eps;
        bool eps_inside_sqrt;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>&m = state[0], &v = state[1];
            m = average(beta1, m, gain1, g);
            v = average_squares(beta2, v, gain2, g);
            if constexpr (amsgrad) state[2] = max_or_nan<T>(state[2], v);
            const Vec<T> variance = (amsgrad ? state[2] : v) * correction2;
            w = w - step_size * m / deviation(variance, eps, eps_inside_sqrt);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        const auto with = [&](auto form) __attribute__((always_inline)) {
            form.beta1 = T(o.beta1), form.beta2 = T(o.beta2), form.gain1 = T(1 - o.beta1), form.gain2 = T(1 - o.beta2);
            form.step_size = T(t.step_size), form.correction2 = T(t.correction2), form.eps = T(o.eps);
            form.eps_inside_sqrt = o.eps_inside_sqrt;
            f(form);
        };
        o.amsgrad ? with(form<true>{}) : with(form<false>{});
    }
};

// Adamax: m as Adam; u = max(beta2 u, |g| + eps); w -= lr / (1 - beta1^t) * m / u. Kingma and Ba (ICLR 2015), algorithm 2.
template <class T>
struct adamax {
    struct form {
        static constexpr unsigned states = 0b11;
        T beta1, gain1, beta2, step_size, eps;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            state[0] = average(beta1, state[0], gain1, g);
            state[1] = max_or_nan<T>(beta2 * state[1], abs(g) + eps);
            w = w - step_size * state[0] / state[1];
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{T(o.beta1), T(1 - o.beta1), T(o.beta2), T(t.step_size), T(o.eps)});
    }
};

// NAdam: m and v as Adam; w -= (gradient_size * g + step_size * m) / (sqrt(v / (1 - beta2^t)) + eps), where Nesterov's look-ahead
// makes the two sizes of mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2) and of its products. Dozat (ICLR workshop 2016),
// algorithm 2.
template <class T>
struct nadam {
    struct form {
        static constexpr unsigned states = 0b11;
        T beta1, beta2, gain1, gain2, gradient_size, step_size, correction2, eps;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            state[0] = average(beta1, state[0], gain1, g);
            state[1] = average_squares(beta2, state[1], gain2, g);
            w = w - fma(set1<T>(gradient_size), g, step_size * state[0]) / deviation(state[1] * correction2, eps, false);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{T(o.beta1), T(o.beta2), T(1 - o.beta1), T(1 - o.beta2), T(t.gradient_size), T(t.step_size), T(t.correction2),
               T(o.eps)});
    }
};

// RAdam: m and v as Adam; w -= step_size * m / (sqrt(v) + eps) once the variance of that is bounded, w -= step_size * m before.
// step_size holds both bias corrections and the rectification. Liu et al. (ICLR 2020), algorithm 2.
template <class T>
struct radam {
    struct form {
        static constexpr unsigned states = 0b11;
        T beta1, beta2, gain1, gain2, step_size, eps;
        bool adaptive;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            state[0] = average(beta1, state[0], gain1, g);
            state[1] = average_squares(beta2, state[1], gain2, g);
            if (adaptive)
                w = w - step_size * state[0] / deviation(state[1], eps, false);
            else
                w = fma(set1<T>(-step_size), state[0], w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{T(o.beta1), T(o.beta2), T(1 - o.beta1), T(1 - o.beta2), T(t.step_size), T(o.eps), t.adaptive});
    }
};

// Rprop: an element's own step grows by eta_plus while its gradient keeps its sign and shrinks by eta_minus where it turned; then
// this gradient counts as 0. w -= sign(g) * step. Riedmiller and Braun (ICNN 1993), as PyTorch has it.
template <class T>
struct rprop {
    struct form {
        static constexpr unsigned states = 0b11;
        T eta_minus, eta_plus, least, most;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>&previous = state[0], &size = state[1];
            const Vec<T> turn = sign<T>(g) * previous, none = zero<T>();  // g * previous could vanish
            const Vec<T> factor =
                turn > none ? set1<T>(eta_plus) : (turn < none ? set1<T>(eta_minus) : (turn == none ? set1<T>(T(1)) : turn));
            size = min(set1<T>(most), max(set1<T>(least), size * factor));
            previous = turn < none ? none : g;
            w = fma(-sign<T>(previous), size, w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms&, F f) {
        f(form{T(o.eta_minus), T(o.eta_plus), T(o.step_size_min), T(o.step_size_max)});
    }
};

// ASGD: w -= eta_t (lambd w + g); a += (w - a) * mu_t, where eta_t = lr / (1 + lambd lr t)^alpha and mu_t = 1 / max(1, t - t0).
// Polyak and Juditsky (SIAM J. Control Optim. 1992); the schedule is Bottou's (COMPSTAT 2010).
template <class T>
struct asgd {
    struct form {
        static constexpr unsigned states = 0b1;
        T shrink, eta, mu;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            w = fma(set1<T>(-eta), g, w * shrink);
            state[0] = mu == T(1) ? w : fma(set1<T>(mu), w - state[0], state[0]);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{T(1 - o.lambd * t.step_size), T(t.step_size), T(t.average_gain)});
    }
};

// Lion: w -= lr * sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g. Chen et al. (NeurIPS 2023), algorithm 2.
template <class T>
struct lion {
    struct form {
        static constexpr unsigned states = 0b1;
        T lr, beta1, gain1, beta2, gain2;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            w = fma(set1<T>(-lr), sign<T>(average(beta1, state[0], gain1, g)), w);
            state[0] = average(beta2, state[0], gain2, g);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms&, F f) {
        f(form{T(o.lr), T(o.beta1), T(1 - o.beta1), T(o.beta2), T(1 - o.beta2)});
    }
};

// LAMB: m and v as Adam; u = mhat / (sqrt(vhat) + eps) + weight_decay * w; w -= lr * |w| / |u| * u. You et al. (ICLR 2020),
// algorithm 2.
template <class T>
struct lamb {
    struct direction {
        static constexpr unsigned states = 0b11;
        T correction1, correction2, eps, weight_decay, beta1, beta2, gain1, gain2;

        TRAINSTEP_INLINE Vec<T> of(Vec<T> w, const Vec<T>* state) const {
            const Vec<T> u = correction1 * state[0] / deviation(state[1] * correction2, eps, false);
            return weight_decay == T(0) ? u : fma(set1<T>(weight_decay), w, u);
        }
        TRAINSTEP_INLINE Vec<T> operator()(Vec<T> w, Vec<T>* state, Vec<T> g) const {
            state[0] = average(beta1, state[0], gain1, g);
            state[1] = average_squares(beta2, state[1], gain2, g);
            return of(w, state);
        }
    };
    struct form {
        static constexpr unsigned states = 0b11;
        static constexpr bool moves_states = false;  // the first pass has
        direction u;
        T step_size;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T>) const {
            w = fma(set1<T>(-step_size), u.of(w, state), w);
        }
    };
    static TRAINSTEP_INLINE direction direction_of(const OptimizerOptions& o, const StepTerms& t) {
        return {T(t.correction1), T(t.correction2), T(o.eps),       T(o.weight_decay),
                T(o.beta1),       T(o.beta2),       T(1 - o.beta1), T(1 - o.beta2)};
    }
    template <class F>
    static TRAINSTEP_INLINE void choose_direction(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(direction_of(o, t));
    }
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        f(form{direction_of(o, t), T(o.lr * t.trust)});
    }
};

// LARS: the trust ratio is trust_coefficient * |w| / (|g| + weight_decay * |w| + eps); d = lr * trust * (g + weight_decay * w);
// buf = momentum * buf + d; w -= buf, or w -= momentum * buf + d with nesterov. You, Gitman, Ginsburg (arXiv 1708.03888),
// algorithm 1.
template <class T>
struct lars {
    struct direction {
        static constexpr unsigned states = 0;
        TRAINSTEP_INLINE Vec<T> operator()(Vec<T>, Vec<T>*, Vec<T> g) const { return g; }
    };
    template <bool with_momentum>
    struct form {
        static constexpr unsigned states = with_momentum;
        T step_size, weight_decay, momentum;
        bool nesterov;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            if (weight_decay != T(0)) g = fma(set1<T>(weight_decay), w, g);
            Vec<T> change = step_size * g;
            if constexpr (with_momentum) {
                state[0] = fma(set1<T>(momentum), state[0], change);
                change = nesterov ? fma(set1<T>(momentum), state[0], change) : state[0];
            }
            w = w - change;
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose_direction(const OptimizerOptions&, const StepTerms&, F f) {
        f(direction{});
    }
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, const StepTerms& t, F f) {
        const T step_size = T(o.lr * t.trust), decay = T(o.weight_decay);
        o.momentum == 0 ? f(form<false>{step_size, decay, T(0), false})
                        : f(form<true>{step_size, decay, T(o.momentum), o.nesterov});
    }
};

// What every optimizer shares, before its form.
template <class T>
struct Penalties {
    T scale, clip_value, coupled, l1, shrink;

    explicit Penalties(const StepTerms& t)
        : scale(T(t.scale)), clip_value(T(t.clip_value)), coupled(T(t.coupled)), l1(T(t.l1)), shrink(T(t.shrink)) {}

    // Most calls have none of these and skip them all.
    bool any() const { return clip_value != T(0) || coupled != T(0) || l1 != T(0) || shrink != T(1); }

    template <bool any>
    TRAINSTEP_INLINE void apply(Vec<T>& w, Vec<T>& g) const {
        g = scale * g;
        if constexpr (any) {
            // Each only where it is asked for: 0 * inf would be NaN.
            if (clip_value != T(0)) g = min(set1<T>(clip_value), max(set1<T>(-clip_value), g));
            if (coupled != T(0)) g = fma(set1<T>(coupled), w, g);
            if (l1 != T(0)) g = fma(set1<T>(l1), sign<T>(w), g);
            if (shrink != T(1)) w = w * shrink;
        }
    }
};

template <unsigned mask, class F>
TRAINSTEP_INLINE void for_each_state(F f) {
    for (int s = 0; s < kMaxStates; ++s)
        if (mask >> s & 1) f(s);
}

// The states that a form reads and writes again; those of some it only reads.
template <class Form>
constexpr unsigned moved_states() {
    if constexpr (requires { Form::moves_states; })
        return 0;
    else
        return Form::states;
}

// What is done with each vector: w and its states for the next step.
template <class T, bool penalized, class Form>
struct Update {
    static constexpr unsigned reads = Form::states, writes = moved_states<Form>();
    static constexpr bool writes_w = true;
    Form form;
    Penalties<T> penalties;

    template <class Part>
    TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g, Part) {
        penalties.template apply<penalized>(w, g);
        form(w, state, g);
    }
};

// The first pass of a rule with a trust ratio: states for the next step, and the squares of w and of the direction.
template <class T, bool penalized, class Form>
struct Measure {
    static constexpr unsigned reads = Form::states, writes = Form::states;
    static constexpr bool writes_w = false;
    Form form;
    Penalties<T> penalties;
    F64 of_w{}, of_direction{};

    template <class Part>
    TRAINSTEP_INLINE void operator()(Vec<T> w, Vec<T>* state, Vec<T> g, Part part) {
        penalties.template apply<penalized>(w, g);
        const Vec<T> direction = form(w, state, g);
        of_w = add_squares(of_w, or_else<T>(w, part, zero<T>()));
        of_direction = add_squares(of_direction, or_else<T>(direction, part, zero<T>()));
    }
};

}  // namespace trainstep::TRAINSTEP_ISA::optimizers
#endif
