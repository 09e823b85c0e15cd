"""The optimizer steps for Cython: cython_optim.pxd has what can be cimported. There is nothing to import from Python."""

from cython cimport floating
from libc.stdint cimport int64_t

# The compiler checks the arguments against the header: those of a call below are declared with their types just above it.
cdef extern from "trainstep.h" nogil:
    int TRAINSTEP_NO_RESOURCES
    int trainstep_import() except -1 with gil
    const char* trainstep_error(int code)
    int trainstep_sgd_step_f32(size_t n, ...)
    int trainstep_sgd_step_f64(size_t n, ...)
    int trainstep_adagrad_step_f32(size_t n, ...)
    int trainstep_adagrad_step_f64(size_t n, ...)
    int trainstep_adadelta_step_f32(size_t n, ...)
    int trainstep_adadelta_step_f64(size_t n, ...)
    int trainstep_rmsprop_step_f32(size_t n, ...)
    int trainstep_rmsprop_step_f64(size_t n, ...)
    int trainstep_adam_step_f32(size_t n, ...)
    int trainstep_adam_step_f64(size_t n, ...)
    int trainstep_adamw_step_f32(size_t n, ...)
    int trainstep_adamw_step_f64(size_t n, ...)
    int trainstep_adamax_step_f32(size_t n, ...)
    int trainstep_adamax_step_f64(size_t n, ...)
    int trainstep_nadam_step_f32(size_t n, ...)
    int trainstep_nadam_step_f64(size_t n, ...)
    int trainstep_radam_step_f32(size_t n, ...)
    int trainstep_radam_step_f64(size_t n, ...)
    int trainstep_rprop_step_f32(size_t n, ...)
    int trainstep_rprop_step_f64(size_t n, ...)
    int trainstep_asgd_step_f32(size_t n, ...)
    int trainstep_asgd_step_f64(size_t n, ...)
    int trainstep_lion_step_f32(size_t n, ...)
    int trainstep_lion_step_f64(size_t n, ...)
    int trainstep_lamb_step_f32(size_t n, ...)
    int trainstep_lamb_step_f64(size_t n, ...)
    int trainstep_lars_step_f32(size_t n, ...)
    int trainstep_lars_step_f64(size_t n, ...)


trainstep_import()


cdef int checked(int code) except -1 nogil:
    if code != 0:
        with gil:
            raise (MemoryError if code == TRAINSTEP_NO_RESOURCES else ValueError)(trainstep_error(code).decode())
    return 0


cdef int sgd_step_(
    size_t n, floating* w, const floating* g, floating* momentum_buffer, int64_t step, double lr, double momentum,
    double dampening, double weight_decay, bint nesterov
) except -1 nogil:
    if floating is float:
        return checked(trainstep_sgd_step_f32(n, w, g, momentum_buffer, step, lr, momentum, dampening, weight_decay, nesterov))
    else:
        return checked(trainstep_sgd_step_f64(n, w, g, momentum_buffer, step, lr, momentum, dampening, weight_decay, nesterov))


cdef int adagrad_step_(
    size_t n, floating* w, const floating* g, floating* sum, int64_t step, double lr, double lr_decay, double weight_decay,
    double eps
) except -1 nogil:
    if floating is float:
        return checked(trainstep_adagrad_step_f32(n, w, g, sum, step, lr, lr_decay, weight_decay, eps))
    else:
        return checked(trainstep_adagrad_step_f64(n, w, g, sum, step, lr, lr_decay, weight_decay, eps))


cdef int adadelta_step_(
    size_t n, floating* w, const floating* g, floating* square_avg, floating* acc_delta, int64_t step, double lr,
    double rho, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_adadelta_step_f32(n, w, g, square_avg, acc_delta, step, lr, rho, eps, weight_decay))
    else:
        return checked(trainstep_adadelta_step_f64(n, w, g, square_avg, acc_delta, step, lr, rho, eps, weight_decay))


cdef int rmsprop_step_(
    size_t n, floating* w, const floating* g, floating* square_avg, floating* momentum_buffer, floating* grad_avg,
    int64_t step, double lr, double alpha, double eps, double weight_decay, double momentum, bint centered
) except -1 nogil:
    if floating is float:
        return checked(trainstep_rmsprop_step_f32(
            n, w, g, square_avg, momentum_buffer, grad_avg, step, lr, alpha, eps, weight_decay, momentum, centered
        ))
    else:
        return checked(trainstep_rmsprop_step_f64(
            n, w, g, square_avg, momentum_buffer, grad_avg, step, lr, alpha, eps, weight_decay, momentum, centered
        ))


cdef int adam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_adam_step_f32(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))
    else:
        return checked(trainstep_adam_step_f64(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))


cdef int adamw_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_adamw_step_f32(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))
    else:
        return checked(trainstep_adamw_step_f64(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))


cdef int adamax_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_inf, int64_t step, double lr, double beta1,
    double beta2, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_adamax_step_f32(n, w, g, exp_avg, exp_inf, step, lr, beta1, beta2, eps, weight_decay))
    else:
        return checked(trainstep_adamax_step_f64(n, w, g, exp_avg, exp_inf, step, lr, beta1, beta2, eps, weight_decay))


cdef int nadam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double* mu_product,
    double lr, double beta1, double beta2, double eps, double weight_decay, double momentum_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_nadam_step_f32(
            n, w, g, exp_avg, exp_avg_sq, step, mu_product, lr, beta1, beta2, eps, weight_decay, momentum_decay
        ))
    else:
        return checked(trainstep_nadam_step_f64(
            n, w, g, exp_avg, exp_avg_sq, step, mu_product, lr, beta1, beta2, eps, weight_decay, momentum_decay
        ))


cdef int radam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_radam_step_f32(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))
    else:
        return checked(trainstep_radam_step_f64(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))


cdef int rprop_step_(
    size_t n, floating* w, const floating* g, floating* prev, floating* step_size, int64_t step, double eta_minus,
    double eta_plus, double step_size_min, double step_size_max
) except -1 nogil:
    if floating is float:
        return checked(trainstep_rprop_step_f32(n, w, g, prev, step_size, step, eta_minus, eta_plus, step_size_min, step_size_max))
    else:
        return checked(trainstep_rprop_step_f64(n, w, g, prev, step_size, step, eta_minus, eta_plus, step_size_min, step_size_max))


cdef int asgd_step_(
    size_t n, floating* w, const floating* g, floating* ax, int64_t step, double lr, double lambd, double alpha, double t0,
    double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_asgd_step_f32(n, w, g, ax, step, lr, lambd, alpha, t0, weight_decay))
    else:
        return checked(trainstep_asgd_step_f64(n, w, g, ax, step, lr, lambd, alpha, t0, weight_decay))


cdef int lion_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, int64_t step, double lr, double beta1, double beta2,
    double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_lion_step_f32(n, w, g, exp_avg, step, lr, beta1, beta2, weight_decay))
    else:
        return checked(trainstep_lion_step_f64(n, w, g, exp_avg, step, lr, beta1, beta2, weight_decay))


cdef int lamb_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil:
    if floating is float:
        return checked(trainstep_lamb_step_f32(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))
    else:
        return checked(trainstep_lamb_step_f64(n, w, g, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay))


cdef int lars_step_(
    size_t n, floating* w, const floating* g, floating* momentum_buffer, int64_t step, double lr, double momentum,
    double weight_decay, double trust_coefficient, double eps, bint nesterov
) except -1 nogil:
    if floating is float:
        return checked(trainstep_lars_step_f32(
            n, w, g, momentum_buffer, step, lr, momentum, weight_decay, trust_coefficient, eps, nesterov
        ))
    else:
        return checked(trainstep_lars_step_f64(
            n, w, g, momentum_buffer, step, lr, momentum, weight_decay, trust_coefficient, eps, nesterov
        ))
