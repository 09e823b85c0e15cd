"""What the functions of kernels/vmath.h are held to: exact values in a wider dtype, and errors in ULP."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LONG = np.longdouble
# The 80 bits of x87 or the 128 of aarch64; where long double is only a double, float64 is held to itself.
LONG_IS_WIDER = float(np.finfo(LONG).eps) < float(np.finfo(np.float64).eps) / 100


def wider(dtype: np.dtype[Any]) -> Any:
    """Return the dtype that exact values for `dtype` are computed in."""
    return np.float64 if dtype == np.float32 else LONG


def vmath(name: str, x: Array, dtype: Any) -> Array:
    """Compute a function of ``_core.vmath_functions`` in `dtype`, which is that of x or wider."""
    with np.errstate(all="ignore"):
        wide = x.astype(dtype)
        result: Array = _OWN[name](wide) if name in _OWN else getattr(np, name)(wide)
    return result


def _sigmoid(x: Array) -> Array:
    result: Array = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    return result


def _erf(x: Array) -> Array:
    # Below 2^-35, x^3 no longer counts in 64 bits; from 7 on, 1 - erf(x) < 2^-70.
    a = np.abs(x)
    y: Array = np.copysign(np.minimum(a * (2 / np.sqrt(_PI)).astype(x.dtype), 1), x)
    bends = np.flatnonzero((a >= 2.0**-35) & (a < 7))
    y[bends] = _erf_libm(x[bends]) if x.dtype == np.float64 else _erf_long(x[bends])
    return y


_PI = 4 * np.arctan(LONG(1))


def _erf_libm(x: Array) -> Array:
    return np.fromiter(map(math.erf, x.tolist()), np.float64, len(x))


def _erf_long(x: Array) -> Array:
    """Abramowitz & Stegun 7.1.6, a series of one sign, up to |x| = 2, and 7.1.14, a continued fraction, from there on."""
    small = np.abs(x) < 2
    s, a = x[small], np.abs(x[~small])
    term = total = s
    for n in range(1, 60):  # the largest term's share: 8^60 / 121!! < 2^-100
        term = term * (2 * s * s / (2 * n + 1))
        total = total + term
    tail = a
    for n in range(120, 0, -1):
        tail = a + n / (2 * tail)
    y = np.empty_like(x)
    y[small] = 2 / np.sqrt(_PI) * np.exp(-s * s) * total
    y[~small] = np.copysign(1 - np.exp(-a * a) / (tail * np.sqrt(_PI)), x[~small])
    return y


_OWN = {"sigmoid": _sigmoid, "erf": _erf}


def worst_ulp(got: Array, exact: Array) -> tuple[float, int]:
    """Return the largest of `ulp_errors`, and which element has it; 0.5 stands for all that are the exact value rounded."""
    got, exact = got.ravel(), exact.ravel()
    unsigned = f"u{got.itemsize}"
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
    # Few elements differ from it, and only these are worth a closer look.
    off = np.flatnonzero((got.view(unsigned) != rounded.view(unsigned)) & ~(np.isnan(got) & np.isnan(rounded)))
    if not len(off):
        return 0.5 if got.size else 0.0, 0
    errors = ulp_errors(got[off], exact[off])
    worst = int(errors.argmax())
    return float(errors[worst]), int(off[worst])


def ulp_errors(got: Array, exact: Array) -> Array:
    """|got - exact| in units of the spacing of got's dtype at exact, in float64.

    What overflows counts as the next power of two. Infinite where one of the two is NaN, or a zero has the wrong sign.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        top = np.ldexp(exact.dtype.type(1), int(info.maxexp))
        y, e = (np.clip(a.astype(exact.dtype), -top, top) for a in (got, exact))
        exponent = np.clip(np.frexp(e)[1] - 1, int(info.minexp), int(info.maxexp) - 1)
        errors = np.asarray(np.ldexp(np.abs(y - e), int(info.nmant) - exponent), np.float64)
    errors[(got == 0) & (np.signbit(got) != np.signbit(exact))] = np.inf
    errors[np.isnan(errors)] = np.inf
    return errors
