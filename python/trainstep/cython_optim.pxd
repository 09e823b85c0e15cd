"""The steps of trainstep.h for Cython, without the GIL: ``from trainstep.cython_optim cimport adam_step_``.

One update of w in place, with the gradient g; arrays of n elements of float or double, the number of the step from 1 on, then the
options in PyTorch's order. Formulas, states and units: trainstep/include/trainstep.h (`trainstep.get_include`), which has all
options of all rules and can be used from Cython too. adamw_step_ is adam_step_ with decoupled weight decay. A state that the
options do not ask for may be NULL. Bad input raises ValueError before anything is written; 0 is returned.
"""

from cython cimport floating
from libc.stdint cimport int64_t

cdef int sgd_step_(
    size_t n, floating* w, const floating* g, floating* momentum_buffer, int64_t step, double lr, double momentum,
    double dampening, double weight_decay, bint nesterov
) except -1 nogil
cdef int adagrad_step_(
    size_t n, floating* w, const floating* g, floating* sum, int64_t step, double lr, double lr_decay, double weight_decay,
    double eps
) except -1 nogil
cdef int adadelta_step_(
    size_t n, floating* w, const floating* g, floating* square_avg, floating* acc_delta, int64_t step, double lr,
    double rho, double eps, double weight_decay
) except -1 nogil
cdef int rmsprop_step_(
    size_t n, floating* w, const floating* g, floating* square_avg, floating* momentum_buffer, floating* grad_avg,
    int64_t step, double lr, double alpha, double eps, double weight_decay, double momentum, bint centered
) except -1 nogil
cdef int adam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil
cdef int adamw_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil
cdef int adamax_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_inf, int64_t step, double lr, double beta1,
    double beta2, double eps, double weight_decay
) except -1 nogil
cdef int nadam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double* mu_product,
    double lr, double beta1, double beta2, double eps, double weight_decay, double momentum_decay
) except -1 nogil
cdef int radam_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil
cdef int rprop_step_(
    size_t n, floating* w, const floating* g, floating* prev, floating* step_size, int64_t step, double eta_minus,
    double eta_plus, double step_size_min, double step_size_max
) except -1 nogil
cdef int asgd_step_(
    size_t n, floating* w, const floating* g, floating* ax, int64_t step, double lr, double lambd, double alpha, double t0,
    double weight_decay
) except -1 nogil
cdef int lion_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, int64_t step, double lr, double beta1, double beta2,
    double weight_decay
) except -1 nogil
cdef int lamb_step_(
    size_t n, floating* w, const floating* g, floating* exp_avg, floating* exp_avg_sq, int64_t step, double lr,
    double beta1, double beta2, double eps, double weight_decay
) except -1 nogil
cdef int lars_step_(
    size_t n, floating* w, const floating* g, floating* momentum_buffer, int64_t step, double lr, double momentum,
    double weight_decay, double trust_coefficient, double eps, bint nesterov
) except -1 nogil
