"""Every function of kernels/vmath.h within 2 ULP of the exact value: all exponents, both signs, and the values that have rules."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core

from . import sweep_vmath
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


# --- the sweep -------------------------------------------------------------------------------------------------------------------


def run_sweep(script: Path, log: Path, *options: str) -> tuple[int, list[str]]:
    """The exit status, and the lines of the functions: what is printed stands in the log too."""
    command = [sys.executable, "-W", "error", str(script), "--quick", "--jobs", "1", "--log", str(log), *options]
    command += ["--level", ts.config()["isa"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    assert done.stdout == log.read_text()
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith(ts.config()["isa"])]


def test_a_quick_sweep_stays_within_what_the_header_states(tmp_path: Path) -> None:
    status, lines = run_sweep(Path(sweep_vmath.__file__), tmp_path / "log")
    assert status == 0, lines
    assert [line.split()[1:3] for line in lines] == [[dtype, name] for dtype in ("float32", "float64") for name in NAMES]
    assert all(line.endswith("ok") for line in lines)


def test_a_sweep_fails_where_the_header_states_less(tmp_path: Path) -> None:
    for path in (Path(sweep_vmath.__file__), sweep_vmath.HEADER):
        copy = tmp_path / path.relative_to(sweep_vmath.HEADER.parents[2])
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
    header = tmp_path / "csrc/kernels/vmath.h"
    stated = sweep_vmath.stated(ts.config()["isa"])["tanh", "float32"]
    header.write_text(header.read_text().replace(f"{stated:.2f}", "1.01"))
    status, lines = run_sweep(tmp_path / "tests/sweep_vmath.py", tmp_path / "log", "--function", "tanh")
    assert status == 1
    assert lines[0].endswith("FAILED: the header states 1.01")


def test_the_header_states_an_error_for_each_function() -> None:
    for level in ts.config()["isa_levels"]:
        bounds = sweep_vmath.stated(level)
        assert set(bounds) == {(name, dtype) for name in NAMES for dtype in ("float32", "float64")}
        assert all(0.5 <= bound <= MAX_ULP for bound in bounds.values())


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
def test_parts_of_a_sweep_meet_all_inputs_once(dtype_name: str, quick: bool) -> None:
    parts = list(sweep_vmath.parts("exp", dtype_name, quick))
    assert all(0 <= part.start < part.stop <= 2 ** (32 if dtype_name == "float32" else 64) for part in parts)
    if dtype_name == "float32" and not quick:
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == 2**32
        assert {part.step for part in parts} == {1}
    if dtype_name == "float64":
        assert {part.start >> 52 for part in parts} >= {0, 2048}
        assert {part.stop >> 52 for part in parts} >= {2048, 4096}


@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
def test_a_sweep_finds_one_wrong_result(monkeypatch: pytest.MonkeyPatch, dtype_name: str) -> None:
    one = int(np.ones(1, dtype_name).view(f"u{np.dtype(dtype_name).itemsize}")[0])
    part = sweep_vmath.Part("log1p", dtype_name, one - 1000, one + 100_000)
    right = sweep_vmath.sweep(part)
    assert right.inputs == 101_000
    assert 0.5 <= right.ulp <= MAX_ULP
    assert not sweep_vmath.verdict(right, MAX_ULP, whole=False)
    assert sweep_vmath.verdict(right, MAX_ULP, whole=True).endswith("more than there is")
    core = _core.vmath
    for wrong in (NAN, INF, -0.0, 0.7):

        def deviating(name: str, x: Array, value: float = wrong) -> Array:
            y = core(name, x)
            y[x == 1] = value
            return y

        monkeypatch.setattr(_core, "vmath", deviating)
        found = sweep_vmath.sweep(part)
        assert found.ulp > 1000
        assert found.x == 1
        assert sweep_vmath.verdict(found, MAX_ULP, whole=False)


def test_a_sweep_finds_a_zero_of_the_wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    core = _core.vmath
    monkeypatch.setattr(_core, "vmath", lambda name, x: np.abs(core(name, x)))
    assert sweep_vmath.sweep(sweep_vmath.Part("tanh", "float32", 2**31, 2**31 + 1)).ulp == INF
    assert sweep_vmath.sweep(sweep_vmath.Part("tanh", "float32", 0, 1)).ulp == 0.5
