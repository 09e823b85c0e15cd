"""Every function of kernels/vmath.h within 2 ULP of the exact value: all exponents, both signs, and the values that have rules."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core

from .conftest import vector_width
from .helpers import Array, assert_same_bits, eps, output_of

MAX_ULP = 2.0
INF, NAN = math.inf, math.nan

# float32 is held to float64; float64 to the 80 bits of x87 or the 128 of aarch64, where long double has them. Where it has not, and
# for erf, which Python has in float64 alone, the reference's own error, below 1 ULP, is added.
LONG = np.longdouble
LONG_IS_LONGER = np.finfo(LONG).eps < np.finfo(np.float64).eps / 100


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.astype(np.float64).tolist()])


EXACT: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "erf": erf,
}
NAMES = _core.vmath_functions

SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (1e4, INF), (-1e4, -1.0)],
    "log": [(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-1.0, NAN), (-1e-30, NAN), (-INF, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-1e30, NAN), (-INF, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (50.0, 1.0), (-50.0, -1.0), (1e30, 1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e4, 1.0), (-1e4, 0.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (9.0, 1.0), (-9.0, -1.0), (1e30, 1.0)],
}
RANGE = {"exp": (0, INF), "expm1": (-1, INF), "tanh": (-1, 1), "sigmoid": (0, 1), "erf": (-1, 1)}
ODD = ("tanh", "erf")


def test_the_tables_hold_every_function() -> None:
    assert set(EXACT) == set(SPECIAL) == set(NAMES)


def every_exponent(dtype: Any, per_exponent: int) -> Array:
    """Numbers of both signs from all binades, denormal ones too, powers of two and their neighbours among them."""
    info = np.finfo(dtype)
    exponents = np.arange(math.frexp(float(info.smallest_subnormal))[1] - 1, math.frexp(float(info.max))[1])
    mantissas = 1 + np.random.default_rng(1).random((len(exponents), per_exponent))
    with np.errstate(under="ignore"):
        x = np.ldexp(mantissas, exponents[:, None]).astype(dtype).ravel()
        powers = np.ldexp(np.ones(len(exponents)), exponents).astype(dtype)
    x = np.concatenate([x[np.isfinite(x)], powers, np.nextafter(powers, dtype(0)), np.nextafter(powers, dtype(INF))])
    return np.concatenate([x, -x])


def lively(dtype: Any, n: int) -> Array:
    """Where the functions bend, overflow and cancel: drawn denser than all exponents alone would have it."""
    rng = np.random.default_rng(2)
    spans = [(-1, 1), (0.2, 0.6), (-6, 6), (-20, 20), (-110, 90), (-750, 710), (708, 710), (-746, -744), (88, 89), (-104, -87)]
    near_one = 1 + np.concatenate([s * np.logspace(-17, -0.01, n) for s in (1, -1)])
    return np.concatenate([rng.uniform(a, b, n) for a, b in spans] + [near_one, -near_one, near_one - 1]).astype(dtype)


def ulp_errors(got: Array, exact: Array, dtype: Any) -> Array:
    """|got - exact| in units of the spacing of dtype at exact. What overflows counts as the next power of two."""
    info = np.finfo(dtype)
    top = LONG(2.0) ** int(info.maxexp)
    got, exact = (np.clip(a.astype(LONG), -top, top) for a in (got, exact))
    spacing = np.ldexp(LONG(1), np.maximum(np.frexp(exact)[1] - 1, int(info.minexp)) - int(info.nmant))
    return np.asarray(np.abs(got - exact) / spacing, np.float64)


def check(name: str, x: Array) -> None:
    dtype = x.dtype.type
    wide = np.float64 if dtype == np.float32 else LONG
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(wide))
    got = _core.vmath(name, x)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
    numbers = ~np.isnan(exact)
    errors = ulp_errors(got[numbers], exact[numbers], dtype)
    reference_is_exact = dtype == np.float32 or (LONG_IS_LONGER and name != "erf")
    worst = int(errors.argmax())
    assert errors[worst] <= MAX_ULP + (0 if reference_is_exact else 1), (name, x[numbers][worst], errors[worst])


@pytest.mark.parametrize("name", NAMES)
def test_all_exponents(name: str, dtype: np.dtype) -> None:
    check(name, every_exponent(dtype.type, 400 if dtype == np.float32 else 40))


@pytest.mark.parametrize("name", NAMES)
def test_lively_ranges(name: str, dtype: np.dtype) -> None:
    check(name, lively(dtype.type, 10_000))


def erf_in_decimals(x: float) -> Decimal:
    """erf(x) = 2 / sqrt(pi) * sum_n (-1)^n x^(2n+1) / (n! (2n+1)), with 70 digits for what cancels."""
    with localcontext() as context:
        context.prec = 70
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
        d = Decimal(x)
        term = total = d
        n = 0
        while abs(term) > abs(total) * Decimal(10) ** -40 or n < 2:
            n += 1
            term *= -d * d / n
            total += term / (2 * n + 1)
        return 2 / pi.sqrt() * total


def test_erf_of_float64_against_decimals() -> None:
    x = np.concatenate([np.random.default_rng(3).uniform(0, 6, 300), np.linspace(0.9, 1.1, 100), 10.0 ** np.arange(-300, 0, 10)])
    got = _core.vmath("erf", x)
    for value, mine in zip(x.tolist(), got.tolist(), strict=True):
        exact = erf_in_decimals(value)
        spacing = Decimal(math.ulp(float(exact)))
        assert abs(Decimal(mine) - exact) <= Decimal(MAX_ULP) * spacing, value


@pytest.mark.parametrize("name", NAMES)
def test_special_values_are_exact(name: str, dtype: np.dtype) -> None:
    x, expected = (np.array(column, dtype) for column in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    # In every lane of a vector and of its tail.
    for shift in range(len(x)):
        for n in (len(x), 3 * len(x)):
            got = _core.vmath(name, np.resize(np.roll(x, shift), n))
            wanted = np.resize(np.roll(expected, shift), n)
            np.testing.assert_array_equal(got, wanted)
            zero = wanted == 0
            np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]))


@pytest.mark.parametrize("name", NAMES)
def test_results_stay_in_range_and_symmetric(name: str, dtype: np.dtype) -> None:
    x = np.concatenate([every_exponent(dtype.type, 20), lively(dtype.type, 3000)])
    y = _core.vmath(name, x)
    low, high = RANGE.get(name, (-INF, INF))
    numbers = y[~np.isnan(y)]
    assert numbers.min() >= low
    assert numbers.max() <= high
    if name in ODD:
        assert_same_bits(_core.vmath(name, -x), -y)


@pytest.mark.parametrize("name", NAMES)
def test_results_grow_with_their_arguments(name: str, dtype: np.dtype) -> None:
    # Rounding may turn neighbours back by an ULP or two, never more.
    x = np.sort(np.concatenate([every_exponent(dtype.type, 20), lively(dtype.type, 3000)]))
    y = _core.vmath(name, x).astype(np.float64)
    y = y[np.isfinite(y)]
    highest = np.maximum.accumulate(y)
    assert (highest - y <= 2 * MAX_ULP * eps(dtype) * np.abs(highest)).all()


@pytest.mark.parametrize("name", NAMES)
def test_bits_depend_on_neither_place_nor_threads(name: str, dtype: np.dtype) -> None:
    x = np.random.default_rng(4).uniform(-3, 5, 100_003).astype(dtype)
    with ts.num_threads(1):
        y = _core.vmath(name, x)
    with ts.num_threads(3):
        assert_same_bits(_core.vmath(name, x), y)
    width = vector_width(dtype)
    for first in (0, 1, width - 1, 5):
        for n in (1, 2, width - 1, width, width + 1, 4 * width + 3):
            assert_same_bits(_core.vmath(name, x[first : first + n]), y[first : first + n], (first, n))
    in_place = x.copy()
    assert _core.vmath(name, in_place, in_place) is in_place
    assert_same_bits(in_place, y)


BITS = """
import hashlib, numpy as np
from trainstep import _core
x = np.random.default_rng(5).uniform(-30, 30, 200_000)
for dtype in (np.float32, np.float64):
    for name in _core.vmath_functions:
        y = _core.vmath(name, x.astype(dtype))
        y[np.isnan(y)] = np.nan  # a NaN's sign means nothing
        print(name, hashlib.sha256(y.tobytes()).hexdigest())
"""


@pytest.mark.skipif(not {"avx2", "avx512"} <= set(ts.config()["isa_supported"]), reason="needs two levels with FMA")
def test_levels_with_fma_give_the_same_bits() -> None:
    env = {"TRAINSTEP_NUM_THREADS": "1"}
    assert output_of(BITS, env | {"TRAINSTEP_ISA": "avx2"}) == output_of(BITS, env | {"TRAINSTEP_ISA": "avx512"})


def test_an_unknown_function_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="vmath: name is 'sinh', expected one of exp, "):
        _core.vmath("sinh", np.ones(3))
