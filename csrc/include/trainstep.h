/* The optimizer steps of trainstep for C99, C++ and Cython: one array in place, without the GIL, from any thread.
 *
 *     #include <trainstep.h>                      // cc -I"$(python -c 'import trainstep; print(trainstep.get_include())')"
 *     if (trainstep_import() < 0) return NULL;    // with the GIL, once in every file that calls
 *     int error = trainstep_adam_step_f32(n, w, g, exp_avg, exp_avg_sq, step, 1e-3, 0.9, 0.999, 1e-8, 0.01);
 *     if (error) puts(trainstep_error(error));
 *
 * trainstep_step does all rules with all their options; the trainstep_<rule>_step_f32 and _f64 at the end of this file are the same
 * for the options that are used most. Nothing is linked: trainstep_import takes a table of functions from the module
 * trainstep._core, whatever its version, as long as TRAINSTEP_ABI_VERSION is the same and the table has all that this header knows.
 *
 * Every function that returns int returns 0, or a code whose text trainstep_error has, and then it has written nothing. Arrays are
 * C arrays of n elements in the units of the caller's model, aligned as their type. No two may share memory. n may be 0. Large
 * arrays are shared between the threads that trainstep.set_num_threads allows, with the same bits for any number of them;
 * one_thread in the options keeps a step on its caller's thread. Two threads must not step the same arrays at once.
 */
#ifndef TRAINSTEP_H
#define TRAINSTEP_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRAINSTEP_ABI_VERSION 1

/* What every rule does to the gradient first, in this order (trainstep.optim has the same, and the sources of the formulas):
 *
 *     g = grad_scale * g;  g = -g (maximize);  g = clamp(g, -clip_value, clip_value);
 *     g += weight_decay * w;  g += l1 * sign(w)       or, with decoupled_weight_decay and in lion:  w *= 1 - lr * weight_decay
 *
 * The gradient in memory stays. Then, with t = step, and the states in the order in which trainstep_step takes them: */
typedef enum trainstep_kind {
    /* buf = momentum * buf + (1 - dampening) * g, at t = 1 buf = g;  w -= lr * buf, nesterov: w -= lr * (g + momentum * buf)
     * lr_in_velocity: buf = momentum * buf + lr * g;  w -= buf
     * states: momentum_buffer (momentum != 0). Options: lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0, nesterov = 0,
     * lr_in_velocity = 0 */
    trainstep_sgd,
    /* sum += g^2;  w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum) + eps)
     * states: sum. Options: lr = 1e-2, lr_decay = 0, weight_decay = 0, eps = 1e-10, eps_inside_sqrt = 0 */
    trainstep_adagrad,
    /* square_avg = rho * square_avg + (1 - rho) * g^2;  d = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * g;
     * acc_delta = rho * acc_delta + (1 - rho) * d^2;  w -= lr * d
     * states: square_avg, acc_delta. Options: lr = 1, rho = 0.9, eps = 1e-6, weight_decay = 0 */
    trainstep_adadelta,
    /* square_avg = alpha * square_avg + (1 - alpha) * g^2;  d = g / (sqrt(square_avg) + eps);  w -= lr * d
     * centered: grad_avg = alpha * grad_avg + (1 - alpha) * g, and square_avg - grad_avg^2 under the root
     * momentum: buf = momentum * buf + d;  w -= lr * buf
     * states: square_avg, momentum_buffer (momentum != 0), grad_avg (centered). Options: lr = 1e-2, alpha = 0.99, eps = 1e-8,
     * weight_decay = 0, momentum = 0, centered = 0, eps_inside_sqrt = 0 */
    trainstep_rmsprop,
    /* m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
     * w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps);  amsgrad: with the largest v so far
     * states: exp_avg (m), exp_avg_sq (v), max_exp_avg_sq (amsgrad). Options: lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
     * weight_decay = 0, decoupled_weight_decay = 0 (1: AdamW), amsgrad = 0, bias_correction = 1, eps_inside_sqrt = 0 */
    trainstep_adam,
    /* m as adam;  u = max(beta2 * u, |g| + eps);  w -= lr / (1 - beta1^t) * m / u
     * states: exp_avg (m), exp_inf (u). Options: lr = 2e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0 */
    trainstep_adamax,
    /* mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2);  mu_product *= mu_t;  m, v as adam;
     * w -= lr * ((1 - mu_t) / (1 - mu_product) * g + mu_(t+1) / (1 - mu_product * mu_(t+1)) * m) / (sqrt(v / (1 - beta2^t)) + eps)
     * states: exp_avg (m), exp_avg_sq (v). Scalar: mu_product, 1 before the first step. Options: lr = 2e-3, beta1 = 0.9,
     * beta2 = 0.999, eps = 1e-8, weight_decay = 0, momentum_decay = 4e-3, decoupled_weight_decay = 0 */
    trainstep_nadam,
    /* m, v as adam;  with L = 2 / (1 - beta2) - 1, l = L - 2 * t * beta2^t / (1 - beta2^t):  w -= lr * m / (1 - beta1^t)  where
     * l <= 5, else times  sqrt((l - 4) (l - 2) L / ((L - 4) (L - 2) l)) * sqrt(1 - beta2^t) / (sqrt(v) + eps)
     * states: exp_avg (m), exp_avg_sq (v). Options: lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0,
     * decoupled_weight_decay = 0 */
    trainstep_radam,
    /* step_size *= eta_plus where g * prev > 0, eta_minus and g = 0 where < 0;  step_size = clamp(step_size, step_size_min,
     * step_size_max);  w -= step_size * sign(g);  prev = g
     * states: prev, step_size (filled by the caller with the first step size, say 1e-2). Options: eta_minus = 0.5, eta_plus = 1.2,
     * step_size_min = 1e-6, step_size_max = 50 */
    trainstep_rprop,
    /* w *= 1 - lambd * eta;  w -= eta * g;  ax += mu * (w - ax);  then eta = lr / (1 + lambd * lr * t)^alpha,
     * mu = 1 / max(1, t - t0)
     * states: ax. Scalars: eta, mu; a negative eta has both worked out from t, with eta = lr and mu = 1 at t = 1.
     * Options: lr = 1e-2, lambd = 1e-4, alpha = 0.75, t0 = 1e6, weight_decay = 0 */
    trainstep_asgd,
    /* w -= lr * sign(beta1 * m + (1 - beta1) * g);  m = beta2 * m + (1 - beta2) * g
     * states: exp_avg (m). Options: lr = 1e-4, beta1 = 0.9, beta2 = 0.99, weight_decay = 0 (decoupled) */
    trainstep_lion,
    /* m, v as adam;  u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w;  w -= lr * |w| / |u| * u, norms of
     * the whole array, their ratio 1 where one is 0
     * states: exp_avg (m), exp_avg_sq (v). Options: lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6, weight_decay = 0,
     * bias_correction = 1 */
    trainstep_lamb,
    /* rate = lr * trust_coefficient * |w| / (|g| + weight_decay * |w| + eps), lr where a norm is 0;  d = g + weight_decay * w;
     * buf = momentum * buf + rate * d;  w -= buf, nesterov: w -= momentum * buf + rate * d
     * states: momentum_buffer (momentum != 0). Options: lr = 0.1, momentum = 0.9, weight_decay = 0, trust_coefficient = 1e-3,
     * eps = 0, nesterov = 0 */
    trainstep_lars
} trainstep_kind;

#define TRAINSTEP_MAX_STATES 3 /* of any rule */

/* Parameters and states have one of the first two, gradients any. */
typedef enum trainstep_dtype { trainstep_float32, trainstep_float64, trainstep_bfloat16, trainstep_float16 } trainstep_dtype;

/* The options of all rules. Fill it with trainstep_options_init, then set what is to differ. An option that the rule does not have
 * (those above, l1, maximize, and what is said to be for all) must stay as it is. */
typedef struct trainstep_options {
    size_t size; /* of the struct that the caller was compiled with */
    double lr, weight_decay, l1;
    double momentum, dampening;
    double beta1, beta2, eps;
    double lr_decay, rho, alpha, momentum_decay;
    double eta_minus, eta_plus, step_size_min, step_size_max;
    double lambd, t0;
    double trust_coefficient;
    double grad_scale; /* all rules: what the gradient is multiplied with, 1 */
    double clip_value; /* all rules: the largest |g| after that, 0 for no limit */
    int maximize, decoupled_weight_decay, nesterov, lr_in_velocity, amsgrad, bias_correction, eps_inside_sqrt, centered;
    int one_thread; /* all rules: 1 keeps the step on the caller's thread, 0 */
    int reserved;   /* 0 */
} trainstep_options;

/* The numbers that go with an array. The caller counts step; a step moves mu_product (nadam), eta and mu (asgd) on. */
typedef struct trainstep_scalars {
    int64_t step; /* the number of this update, from 1 on */
    double mu_product;
    double eta, mu;
} trainstep_scalars;
#define TRAINSTEP_SCALARS_INIT {1, 1.0, -1.0, 1.0}

typedef enum trainstep_status {
    TRAINSTEP_OK,
    TRAINSTEP_BAD_KIND,
    TRAINSTEP_BAD_DTYPE,
    TRAINSTEP_NULL, /* a pointer to an array, a state that the options ask for, options, scalars or a result */
    TRAINSTEP_UNALIGNED,
    TRAINSTEP_OVERLAP,
    TRAINSTEP_BAD_SIZE,   /* n elements are more than memory can have */
    TRAINSTEP_BAD_OPTION, /* trainstep_error names the option, what came and what was wanted */
    TRAINSTEP_BAD_STEP,
    TRAINSTEP_BAD_SCALAR,
    TRAINSTEP_NO_RESOURCES, /* memory or threads */
    TRAINSTEP_NOT_IMPORTED
} trainstep_status;

/* What trainstep._core hands out. It grows at its end only, which size tells; any other change is another ABI version. */
typedef struct trainstep_api {
    size_t size;
    int abi_version;
    int (*options_init)(int kind, trainstep_options* options, size_t size);
    int (*step)(int kind, int dtype, size_t n, void* w, const void* g, int g_dtype, void* const* states, trainstep_scalars* scalars,
                const trainstep_options* options);
    int (*global_norm)(int dtype, size_t count, const void* const* arrays, const size_t* sizes, double* norm);
    const char* (*error)(int code);
} trainstep_api;

static const trainstep_api* trainstep_table = NULL; /* of this file, set by trainstep_import */

/* Imports trainstep. 0, or -1 with a Python exception set. */
static inline int trainstep_import(void) {
    const trainstep_api* table = (const trainstep_api*)PyCapsule_Import("trainstep._core._C_API", 0);
    if (!table) return -1;
    if (table->abi_version != TRAINSTEP_ABI_VERSION || table->size < sizeof(trainstep_api)) {
        PyErr_Format(PyExc_ImportError,
                     "trainstep.h has version %d of the C ABI and a table of %zu bytes, the installed trainstep version %d and %zu",
                     TRAINSTEP_ABI_VERSION, sizeof(trainstep_api), table->abi_version, table->size);
        return -1;
    }
    trainstep_table = table;
    return 0;
}

/* What a code means, in English. Of TRAINSTEP_BAD_OPTION the last in the calling thread; valid until the next one there. */
static inline const char* trainstep_error(int code) {
    return trainstep_table ? trainstep_table->error(code) : "trainstep_import has not been called in this file, or has failed";
}

/* The defaults of a rule. */
static inline int trainstep_options_init(trainstep_kind kind, trainstep_options* options) {
    return trainstep_table ? trainstep_table->options_init(kind, options, sizeof *options) : TRAINSTEP_NOT_IMPORTED;
}

/* One update of w with the gradient g, in place. dtype: of w and its states, float32 or float64. states: as many pointers as the
 * rule has states, in its order; one that the options do not ask for may be NULL, and so may states itself where it has no other.
 */
static inline int trainstep_step(trainstep_kind kind, trainstep_dtype dtype, size_t n, void* w, const void* g,
                                 trainstep_dtype g_dtype, void* const* states, trainstep_scalars* scalars,
                                 const trainstep_options* options) {
    return trainstep_table ? trainstep_table->step(kind, dtype, n, w, g, g_dtype, states, scalars, options)
                           : TRAINSTEP_NOT_IMPORTED;
}

/* *norm = sqrt of the sum of the squares of all elements of `count` arrays of sizes[i] elements, in double precision; infinite or
 * NaN where an element is. To clip by it, as torch.nn.utils.clip_grad_norm_: options.grad_scale = min(1, max_norm / (norm + 1e-6)).
 */
static inline int trainstep_global_norm(trainstep_dtype dtype, size_t count, const void* const* arrays, const size_t* sizes,
                                        double* norm) {
    return trainstep_table ? trainstep_table->global_norm(dtype, count, arrays, sizes, norm) : TRAINSTEP_NOT_IMPORTED;
}

/* One rule each, float32 (_f32) and float64 (_f64): arrays of n elements (w, g, states), the number of the step from 1 on, then the
 * options in PyTorch's order. Formulas, states and units: trainstep_kind above. adamw is adam with decoupled_weight_decay. A state
 * that the options do not ask for may be NULL. */
#define TRAINSTEP_RULES(T, suffix, dtype)                                                                                          \
    static inline int trainstep_sgd_step_##suffix(size_t n, T* w, const T* g, T* momentum_buffer, int64_t step, double lr,         \
                                                  double momentum, double dampening, double weight_decay, int nesterov) {          \
        TRAINSTEP_BEGIN(sgd, momentum_buffer, NULL, NULL)                                                                          \
        o.lr = lr, o.momentum = momentum, o.dampening = dampening, o.weight_decay = weight_decay, o.nesterov = nesterov;           \
        TRAINSTEP_END(sgd, dtype)                                                                                                  \
    }                                                                                                                              \
    static inline int trainstep_adagrad_step_##suffix(size_t n, T* w, const T* g, T* sum, int64_t step, double lr,                 \
                                                      double lr_decay, double weight_decay, double eps) {                          \
        TRAINSTEP_BEGIN(adagrad, sum, NULL, NULL)                                                                                  \
        o.lr = lr, o.lr_decay = lr_decay, o.weight_decay = weight_decay, o.eps = eps;                                              \
        TRAINSTEP_END(adagrad, dtype)                                                                                              \
    }                                                                                                                              \
    static inline int trainstep_adadelta_step_##suffix(size_t n, T* w, const T* g, T* square_avg, T* acc_delta, int64_t step,      \
                                                       double lr, double rho, double eps, double weight_decay) {                   \
        TRAINSTEP_BEGIN(adadelta, square_avg, acc_delta, NULL)                                                                     \
        o.lr = lr, o.rho = rho, o.eps = eps, o.weight_decay = weight_decay;                                                        \
        TRAINSTEP_END(adadelta, dtype)                                                                                             \
    }                                                                                                                              \
    static inline int trainstep_rmsprop_step_##suffix(size_t n, T* w, const T* g, T* square_avg, T* momentum_buffer, T* grad_avg,  \
                                                      int64_t step, double lr, double alpha, double eps, double weight_decay,      \
                                                      double momentum, int centered) {                                             \
        TRAINSTEP_BEGIN(rmsprop, square_avg, momentum_buffer, grad_avg)                                                            \
        o.lr = lr, o.alpha = alpha, o.eps = eps, o.weight_decay = weight_decay, o.momentum = momentum, o.centered = centered;      \
        TRAINSTEP_END(rmsprop, dtype)                                                                                              \
    }                                                                                                                              \
    static inline int trainstep_adam_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_avg_sq, int64_t step, double lr, \
                                                   double beta1, double beta2, double eps, double weight_decay) {                  \
        TRAINSTEP_BEGIN(adam, exp_avg, exp_avg_sq, NULL)                                                                           \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        TRAINSTEP_END(adam, dtype)                                                                                                 \
    }                                                                                                                              \
    static inline int trainstep_adamw_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_avg_sq, int64_t step,           \
                                                    double lr, double beta1, double beta2, double eps, double weight_decay) {      \
        TRAINSTEP_BEGIN(adam, exp_avg, exp_avg_sq, NULL)                                                                           \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        o.decoupled_weight_decay = 1;                                                                                              \
        TRAINSTEP_END(adam, dtype)                                                                                                 \
    }                                                                                                                              \
    static inline int trainstep_adamax_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_inf, int64_t step, double lr,  \
                                                     double beta1, double beta2, double eps, double weight_decay) {                \
        TRAINSTEP_BEGIN(adamax, exp_avg, exp_inf, NULL)                                                                            \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        TRAINSTEP_END(adamax, dtype)                                                                                               \
    }                                                                                                                              \
    static inline int trainstep_nadam_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_avg_sq, int64_t step,           \
                                                    double* mu_product, double lr, double beta1, double beta2, double eps,         \
                                                    double weight_decay, double momentum_decay) {                                  \
        TRAINSTEP_BEGIN(nadam, exp_avg, exp_avg_sq, NULL)                                                                          \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        o.momentum_decay = momentum_decay;                                                                                         \
        if (!mu_product) return TRAINSTEP_NULL;                                                                                    \
        scalars.mu_product = *mu_product;                                                                                          \
        error = trainstep_step(trainstep_nadam, dtype, n, w, g, dtype, states, &scalars, &o);                                      \
        if (!error) *mu_product = scalars.mu_product;                                                                              \
        return error;                                                                                                              \
    }                                                                                                                              \
    static inline int trainstep_radam_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_avg_sq, int64_t step,           \
                                                    double lr, double beta1, double beta2, double eps, double weight_decay) {      \
        TRAINSTEP_BEGIN(radam, exp_avg, exp_avg_sq, NULL)                                                                          \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        TRAINSTEP_END(radam, dtype)                                                                                                \
    }                                                                                                                              \
    static inline int trainstep_rprop_step_##suffix(size_t n, T* w, const T* g, T* prev, T* step_size, int64_t step,               \
                                                    double eta_minus, double eta_plus, double step_size_min,                       \
                                                    double step_size_max) {                                                        \
        TRAINSTEP_BEGIN(rprop, prev, step_size, NULL)                                                                              \
        o.eta_minus = eta_minus, o.eta_plus = eta_plus, o.step_size_min = step_size_min, o.step_size_max = step_size_max;          \
        TRAINSTEP_END(rprop, dtype)                                                                                                \
    }                                                                                                                              \
    static inline int trainstep_asgd_step_##suffix(size_t n, T* w, const T* g, T* ax, int64_t step, double lr, double lambd,       \
                                                   double alpha, double t0, double weight_decay) {                                 \
        TRAINSTEP_BEGIN(asgd, ax, NULL, NULL)                                                                                      \
        o.lr = lr, o.lambd = lambd, o.alpha = alpha, o.t0 = t0, o.weight_decay = weight_decay;                                     \
        TRAINSTEP_END(asgd, dtype)                                                                                                 \
    }                                                                                                                              \
    static inline int trainstep_lion_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, int64_t step, double lr, double beta1,  \
                                                   double beta2, double weight_decay) {                                            \
        TRAINSTEP_BEGIN(lion, exp_avg, NULL, NULL)                                                                                 \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.weight_decay = weight_decay;                                                \
        TRAINSTEP_END(lion, dtype)                                                                                                 \
    }                                                                                                                              \
    static inline int trainstep_lamb_step_##suffix(size_t n, T* w, const T* g, T* exp_avg, T* exp_avg_sq, int64_t step, double lr, \
                                                   double beta1, double beta2, double eps, double weight_decay) {                  \
        TRAINSTEP_BEGIN(lamb, exp_avg, exp_avg_sq, NULL)                                                                           \
        o.lr = lr, o.beta1 = beta1, o.beta2 = beta2, o.eps = eps, o.weight_decay = weight_decay;                                   \
        TRAINSTEP_END(lamb, dtype)                                                                                                 \
    }                                                                                                                              \
    static inline int trainstep_lars_step_##suffix(size_t n, T* w, const T* g, T* momentum_buffer, int64_t step, double lr,        \
                                                   double momentum, double weight_decay, double trust_coefficient, double eps,     \
                                                   int nesterov) {                                                                 \
        TRAINSTEP_BEGIN(lars, momentum_buffer, NULL, NULL)                                                                         \
        o.lr = lr, o.momentum = momentum, o.weight_decay = weight_decay, o.trust_coefficient = trust_coefficient;                  \
        o.eps = eps, o.nesterov = nesterov;                                                                                        \
        TRAINSTEP_END(lars, dtype)                                                                                                 \
    }

#define TRAINSTEP_BEGIN(kind, state0, state1, state2)              \
    void* states[TRAINSTEP_MAX_STATES] = {state0, state1, state2}; \
    trainstep_scalars scalars = TRAINSTEP_SCALARS_INIT;            \
    trainstep_options o;                                           \
    int error = trainstep_options_init(trainstep_##kind, &o);      \
    if (error) return error;                                       \
    scalars.step = step;
#define TRAINSTEP_END(kind, dtype) return trainstep_step(trainstep_##kind, dtype, n, w, g, dtype, states, &scalars, &o);

TRAINSTEP_RULES(float, f32, trainstep_float32)
TRAINSTEP_RULES(double, f64, trainstep_float64)

#undef TRAINSTEP_RULES
#undef TRAINSTEP_BEGIN
#undef TRAINSTEP_END

#ifdef __cplusplus
}
#endif
#endif
