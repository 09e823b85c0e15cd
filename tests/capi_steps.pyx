# cython: language_level=3, boundscheck=False, freethreading_compatible=True
# What tests/test_capi.py compiles against the installed package: loops of steps without the GIL.
from cython cimport floating
from cython.parallel cimport prange

from trainstep.cython_optim cimport (
    adadelta_step_, adagrad_step_, adam_step_, adamax_step_, adamw_step_, asgd_step_, lamb_step_, lars_step_, lion_step_,
    nadam_step_, radam_step_, rmsprop_step_, rprop_step_, sgd_step_,
)


cdef int one_step(str rule, floating[:, ::1] a, int t, double* mu_product) except -1:
    """One step of rows w, g and three states."""
    cdef size_t n = a.shape[1]
    cdef floating *w = &a[0, 0], *g = &a[1, 0], *s0 = &a[2, 0], *s1 = &a[3, 0], *s2 = &a[4, 0]
    if rule == "sgd":
        return sgd_step_(n, w, g, s0, t, 0.01, 0.9, 0.1, 0.02, False)
    if rule == "adagrad":
        return adagrad_step_(n, w, g, s0, t, 0.01, 0.05, 0.02, 1e-3)
    if rule == "adadelta":
        return adadelta_step_(n, w, g, s0, s1, t, 0.5, 0.8, 1e-3, 0.02)
    if rule == "rmsprop":
        return rmsprop_step_(n, w, g, s0, s1, s2, t, 0.01, 0.9, 0.01, 0.02, 0.5, True)
    if rule == "adam":
        return adam_step_(n, w, g, s0, s1, t, 0.01, 0.8, 0.9, 1e-3, 0.02)
    if rule == "adamw":
        return adamw_step_(n, w, g, s0, s1, t, 0.01, 0.8, 0.9, 1e-3, 0.02)
    if rule == "adamax":
        return adamax_step_(n, w, g, s0, s1, t, 0.01, 0.8, 0.9, 1e-3, 0.02)
    if rule == "nadam":
        return nadam_step_(n, w, g, s0, s1, t, mu_product, 0.01, 0.8, 0.9, 1e-3, 0.02, 0.05)
    if rule == "radam":
        return radam_step_(n, w, g, s0, s1, t, 0.01, 0.8, 0.9, 1e-3, 0.02)
    if rule == "rprop":
        return rprop_step_(n, w, g, s0, s1, t, 0.4, 1.3, 0.005, 0.04)
    if rule == "asgd":
        return asgd_step_(n, w, g, s0, t, 0.01, 0.1, 0.7, 2, 0.02)
    if rule == "lion":
        return lion_step_(n, w, g, s0, t, 0.01, 0.8, 0.9, 0.02)
    if rule == "lamb":
        return lamb_step_(n, w, g, s0, s1, t, 0.01, 0.8, 0.9, 1e-3, 0.02)
    if rule == "lars":
        return lars_step_(n, w, g, s0, t, 0.3, 0.8, 0.02, 0.05, 0.1, True)
    raise KeyError(rule)


def run(str rule, floating[:, ::1] a, int steps):
    cdef double mu_product = 1
    cdef int t
    for t in range(1, steps + 1):
        one_step(rule, a, t, &mu_product)


def adamw_without_gil(floating[:, :, ::1] a, int first, int last):
    """Each array by one thread of a team."""
    cdef Py_ssize_t i
    cdef int t
    for i in prange(a.shape[0], nogil=True, num_threads=2):
        for t in range(first, last + 1):
            adamw_step_(a.shape[2], &a[i, 0, 0], &a[i, 1, 0], &a[i, 2, 0], &a[i, 3, 0], t, 0.01, 0.8, 0.9, 1e-3, 0.02)
