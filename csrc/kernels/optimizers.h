// Optimizers: the one list, and one functor per formula: how one vector of a parameter w, its gradient g and its states moves.
//
// What all of them share is done before the functor sees g (optimizer_loop below):
//   g = scale * g (scale < 0 where the objective is maximized);  g += weight_decay * w (coupled);  g += l1 * sign(w);
//   w *= 1 - lr * weight_decay (decoupled).
#pragma once

#include <cstdint>

#include "kernels/lists.h"

// name, states
#define TRAINSTEP_OPTIMIZERS(X) X(sgd, 1) X(adam, 2)

namespace trainstep {
TRAINSTEP_FAMILY(OptimizerKind, TRAINSTEP_OPTIMIZERS)

inline constexpr int kMaxStates = 2;

#define TRAINSTEP_STATES(name, states) states,
inline constexpr int kOptimizerStates[] = {TRAINSTEP_OPTIMIZERS(TRAINSTEP_STATES)};
#undef TRAINSTEP_STATES

// Everything that a step of any optimizer depends on besides the arrays. An optimizer reads its own fields and no others.
struct OptimizerOptions {
    double lr = 1e-3;
    double weight_decay = 0, l1 = 0;
    bool decoupled_weight_decay = false, maximize = false;
    double momentum = 0, dampening = 0;  // sgd
    bool nesterov = false, lr_in_velocity = false;
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  // adam
    bool bias_correction = true, eps_inside_sqrt = false;
    std::int64_t step = 1;  // 1 for the first update
    double grad_scale = 1;
};

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/loops.h"

namespace trainstep::TRAINSTEP_ISA::optimizers {

// beta^step by squaring: no library call, so the same bits on every level and system.
inline double power(double beta, std::int64_t step) {
    double result = 1;
    for (; step > 0; step >>= 1, beta *= beta)
        if (step & 1) result *= beta;
    return result;
}

// Each struct below holds its forms for a dtype, and `choose` calls f with the one that the options ask for. A form says how many
// states it moves, and moves one vector: w and the states in place, for the gradient g.

// SGD. Without momentum w -= lr * g. With it, PyTorch's form: buf = momentum * buf + (1 - dampening) * g, where the first step sets
// buf = g; w -= lr * buf, or w -= lr * (g + momentum * buf) with nesterov. lr_in_velocity is the textbook form:
// change = momentum * change + lr * g; w -= change. Sutskever et al. (ICML 2013), equations 1 to 4.
template <class T>
struct sgd {
    struct plain {
        static constexpr int states = 0;
        T lr;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>*, Vec<T> g) const { w = fma(set1<T>(-lr), g, w); }
    };
    struct with_momentum {
        static constexpr int states = 1;
        T lr, momentum, gain;  // gain: what g enters the buffer with
        bool first, nesterov, lr_in_velocity;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>& buf = state[0];
            buf = first ? g : fma(set1<T>(momentum), buf, gain * g);
            if (lr_in_velocity)
                w = w - buf;
            else
                w = fma(set1<T>(-lr), nesterov ? fma(set1<T>(momentum), buf, g) : buf, w);
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, F f) {
        if (o.momentum == 0) return f(plain{T(o.lr)});
        f(with_momentum{T(o.lr), T(o.momentum), T(o.lr_in_velocity ? o.lr : 1 - o.dampening), o.step == 1 && !o.lr_in_velocity,
                        o.nesterov, o.lr_in_velocity});
    }
};

// Adam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps).
// eps stands outside the root, as in the paper and PyTorch, unless eps_inside_sqrt; bias_correction = false leaves both corrections
// at 1. Kingma and Ba (ICLR 2015), algorithm 1; decoupled decay: Loshchilov and Hutter (ICLR 2019), algorithm 2.
template <class T>
struct adam {
    struct form {
        static constexpr int states = 2;
        T beta1, beta2, gain1, gain2, step_size, correction2, eps;
        bool eps_inside_sqrt;

        TRAINSTEP_INLINE void operator()(Vec<T>& w, Vec<T>* state, Vec<T> g) const {
            Vec<T>&m = state[0], &v = state[1];
            m = fma(set1<T>(beta1), m, gain1 * g);
            v = fma(set1<T>(beta2), v, gain2 * g * g);
            const Vec<T> variance = v * correction2;
            const Vec<T> deviation = eps_inside_sqrt ? sqrt(variance + eps) : sqrt(variance) + eps;
            w = w - step_size * m / deviation;
        }
    };
    template <class F>
    static TRAINSTEP_INLINE void choose(const OptimizerOptions& o, F f) {
        const double correction1 = o.bias_correction ? 1 - power(o.beta1, o.step) : 1;
        const double correction2 = o.bias_correction ? 1 - power(o.beta2, o.step) : 1;
        f(form{T(o.beta1), T(o.beta2), T(1 - o.beta1), T(1 - o.beta2), T(o.lr / correction1), T(1 / correction2), T(o.eps),
               o.eps_inside_sqrt});
    }
};

// What every optimizer shares, around its form. decays: some decay is not zero; most calls have none and skip those operations.
template <class T, bool decays, class Form>
TRAINSTEP_INLINE void step(T* w, T* const* states, const T* g, std::size_t n, const Form& form, const OptimizerOptions& o) {
    const T scale = T(o.maximize ? -o.grad_scale : o.grad_scale), l1 = T(o.l1);
    const T coupled = T(o.decoupled_weight_decay ? 0 : o.weight_decay);
    const T shrink = T(o.decoupled_weight_decay ? 1 - o.lr * o.weight_decay : 1);
    for_each_vector<T>(n, [&](std::size_t i, auto part) __attribute__((always_inline)) {
        Vec<T> wi = get<T>(w + i, part), gi = scale * get<T>(g + i, part), state[kMaxStates];
        for (int s = 0; s < Form::states; ++s) state[s] = get<T>(states[s] + i, part);
        if constexpr (decays) {
            // Each only where it is asked for: 0 * inf would be NaN.
            if (coupled != T(0)) gi = fma(set1<T>(coupled), wi, gi);
            if (l1 != T(0)) gi = fma(set1<T>(l1), sign<T>(wi), gi);
            if (shrink != T(1)) wi = wi * shrink;
        }
        form(wi, state, gi);
        put<T>(w + i, part, wi);
        for (int s = 0; s < Form::states; ++s) put<T>(states[s] + i, part, state[s]);
    });
}

template <class T, template <class> class Optimizer>
void run(T* w, T* const* states, const T* g, std::size_t n, const OptimizerOptions& options) {
    Optimizer<T>::choose(options, [&](const auto& form) __attribute__((always_inline)) {
        if (options.weight_decay != 0 || options.l1 != 0)
            step<T, true>(w, states, g, n, form, options);
        else
            step<T, false>(w, states, g, n, form, options);
    });
}

}  // namespace trainstep::TRAINSTEP_ISA::optimizers
#endif
