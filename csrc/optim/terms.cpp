#include "optim/terms.h"

#include <algorithm>
#include <cmath>

namespace trainstep {

namespace {

// beta1^t and beta2^t by squaring: no library call, so the same bits on every system; together, for either is a chain of products
// that the processor waits for. What is below kNothing counts as 0: nobody adds it to anything so small.
struct Powers {
    double of_beta1, of_beta2;
};
constexpr double kNothing = 0x1p-200;
Powers powers(double beta1, double beta2, std::int64_t t) {
    Powers result{1, 1};
    for (; t > 0; t >>= 1, beta1 *= beta1, beta2 *= beta2) {
        if (beta1 < kNothing && beta2 < kNothing) return {0, 0};
        result.of_beta1 *= t & 1 ? beta1 : 1;
        result.of_beta2 *= t & 1 ? beta2 : 1;
    }
    return result;
}

// Dozat (ICLR workshop 2016): the momentum of step t.
double nadam_momentum(const OptimizerOptions& o, std::int64_t t) {
    return o.beta1 * (1 - 0.5 * std::pow(0.96, double(t) * o.momentum_decay));
}

// Liu et al. (ICLR 2020), algorithm 2: the length of the approximated simple moving average, and from it the rectification; 0 where
// the variance is not bounded.
double rectification(double beta2, std::int64_t t) {
    const double power2 = powers(beta2, beta2, t).of_beta2, longest = 2 / (1 - beta2) - 1;
    const double length = longest - 2 * double(t) * power2 / (1 - power2);
    if (length <= 5) return 0;
    return std::sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
}

}  // namespace

StepTerms next_step(OptimizerKind kind, const OptimizerOptions& o, StepScalars& scalars, double grad_scale) {
    using enum OptimizerKind;
    const std::int64_t t = scalars.step + 1;
    StepTerms terms;
    terms.first = t == 1;
    terms.scale = o.maximize ? -grad_scale : grad_scale;
    terms.l1 = o.l1;
    if (kind == lion || o.decoupled_weight_decay)
        terms.shrink = 1 - o.lr * o.weight_decay;
    else if (kind != lamb && kind != lars)  // their decay is a part of the direction
        terms.coupled = o.weight_decay;
    const bool corrects = o.bias_correction && (kind == adam || kind == adamax || kind == nadam || kind == radam || kind == lamb);
    const Powers decayed = corrects ? powers(o.beta1, o.beta2, t) : Powers{0, 0};
    const double bias1 = 1 - decayed.of_beta1, bias2 = 1 - decayed.of_beta2;
    terms.correction1 = 1 / bias1;
    terms.correction2 = 1 / bias2;
    terms.step_size = o.lr / bias1;
    if (kind == adagrad) {
        terms.step_size = o.lr / (1 + double(t - 1) * o.lr_decay);
    } else if (kind == nadam) {
        const double mu = nadam_momentum(o, t), next = nadam_momentum(o, t + 1);
        scalars.mu_product *= mu;
        terms.gradient_size = o.lr * (1 - mu) / (1 - scalars.mu_product);
        terms.step_size = o.lr * next / (1 - scalars.mu_product * next);
    } else if (kind == radam) {
        const double rectified = rectification(o.beta2, t);
        terms.adaptive = rectified > 0;
        if (terms.adaptive) terms.step_size *= rectified * std::sqrt(bias2);
    } else if (kind == asgd) {
        terms.step_size = scalars.eta < 0 ? o.lr : scalars.eta;
        terms.average_gain = scalars.mu;
        scalars.eta = o.lr / std::pow(1 + o.lambd * o.lr * double(t), o.alpha);
        scalars.mu = 1 / std::max(1.0, double(t) - o.t0);
    }
    scalars.step = t;
    return terms;
}

unsigned used_states(OptimizerKind kind, const OptimizerOptions& o) {
    unsigned all = 0;
    for (int s = 0; s < kMaxStates; ++s)
        if (info(kind).states[s].name) all |= 1u << s;
    switch (kind) {
        case OptimizerKind::sgd:
        case OptimizerKind::lars:
            return o.momentum != 0;
        case OptimizerKind::rmsprop:
            return 0b1 | unsigned(o.momentum != 0) << 1 | unsigned(o.centered) << 2;
        case OptimizerKind::adam:
            return o.amsgrad ? all : 0b11;
        default:
            return all;
    }
}

}  // namespace trainstep
