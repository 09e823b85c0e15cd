// The names of vmath.h: the per-ISA kernels, the bindings, the tests and the benchmarks all expand this one list.
#pragma once

#define TRAINSTEP_VMATH_FUNCTIONS(X) X(exp) X(expm1) X(log) X(log1p) X(tanh) X(sigmoid) X(erf)
