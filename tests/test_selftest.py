"""The self-test passes, holds every name of the core, and catches a kernel that is wrong."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, _exact, _kernel_checks, ops, optim, reference
from trainstep.selftest import SelftestResult, SelftestRow

from .helpers import Array
from .test_vmath import erf_in_decimals

pytestmark = pytest.mark.one_level

LEVEL = ts.config()["isa"]
CHECKS = {check.kernel: check for check in _kernel_checks.checks()}


def run(kernel: str, dtype: str = "float32") -> SelftestRow:
    check = CHECKS[kernel]
    return _kernel_checks._run(check, np.dtype(dtype), check.bounds[dtype == "float64"])


@pytest.mark.every_level
def test_every_kernel_passes_on_this_level(capfd: pytest.CaptureFixture[str]) -> None:
    result = ts.selftest([LEVEL])
    assert result.ok, str(result)
    assert {(row.kernel, row.dtype) for row in result.rows} == {
        (name, dtype)
        for name, check in CHECKS.items()
        for dtype, bound in zip(("float32", "float64"), check.bounds, strict=True)
        if bound is not None
    }
    assert all(row.isa == LEVEL and row.cases >= 3 and row.threads == ts.get_num_threads() for row in result.rows)
    rounded = [row for row in result.rows if "eps" in row.unit and row.dtype == "float32"]
    assert all(row.error > 0 for row in rounded), "an error of 0: nothing was compared"
    assert result.seconds > 0
    assert capfd.readouterr() == ("", "")


def test_every_name_of_the_core_has_a_row() -> None:
    names = {*_core.vmath_functions, *(f"{name} step" for name in _core.optimizers)}
    names |= {f"{name} {way}" for name in _core.activations for way in ("forward", "backward")}
    names |= {text for name in _core.losses for text in (name, f"Trainer, {name}")}
    activations = {f"{name}{suffix}" for name in _core.activations for suffix in ("", "_backward")}
    assert names | set(ops.__all__) - activations <= set(CHECKS)


def test_every_option_and_target_is_tried() -> None:
    rng = np.random.default_rng(0)
    tried = " ".join(case.what for case in CHECKS["adam step"].cases(np.dtype("f4"), rng))
    for option in (
        "betas",
        "eps",
        "weight_decay",
        "decoupled_weight_decay",
        "maximize",
        "l1",
        "bias_correction",
        "eps_inside_sqrt",
    ):
        assert f"'{option}'" in tried
    tried = " ".join(case.what for case in CHECKS["sgd step"].cases(np.dtype("f4"), rng))
    for option in ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "l1", "lr_in_velocity"):
        assert f"'{option}'" in tried
    tried = " ".join(case.what for case in CHECKS["softmax_cross_entropy"].cases(np.dtype("f4"), rng))
    for kind in ("labels", "probabilities", "weight, sample_weight, label_smoothing", "reduction none", "reduction mean"):
        assert kind in tried
    for name, (parameter, _) in _core.activation_parameters.items():
        for way in ("forward", "backward"):
            tried = " ".join(case.what for case in CHECKS[f"{name} {way}"].cases(np.dtype("f4"), rng))
            assert f"'{parameter}'" in tried
    targets = {"sigmoid_binary_cross_entropy": "fractions", "hinge": "signs", "poisson_nll": "counts", "huber": "delta"}
    for name, kind in targets.items():
        assert any(kind in case.what for case in CHECKS[name].cases(np.dtype("f4"), rng)), name


# --- kernels that are wrong ------------------------------------------------------------------------------------------------------


def last_moved(array: Any, ulps: int) -> Array:
    """The array with its last element some ULP higher."""
    result = np.array(array)
    if result.size:
        result.reshape(-1)[-1] += ulps * np.spacing(np.abs(result.reshape(-1)[-1]))
    return result


def wrong(function: Callable[..., Any], ulps: int) -> Callable[..., Any]:
    """A function whose last result is some ULP too high in its last element."""

    def deviating(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return (*result[:-1], last_moved(result[-1], ulps))
        return last_moved(result, ulps)

    return deviating


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kernel", "owner", "name", "ulps"),
    [
        ("exp", _core, "vmath", 4),
        ("erf", _core, "vmath", 4),
        ("relu forward", _core, "activation", 5),
        ("tanh backward", _core, "activation_backward", 8),
        ("elu forward", _core, "activation", 12),
        ("gelu forward", _core, "activation", 2**20),
        ("silu backward", _core, "activation_backward", 2**20),
        ("softmax forward", _core, "activation", 2**20),
        ("softmax_cross_entropy", ops, "softmax_cross_entropy", 2000),
        ("mse", ops, "mse", 2000),
        ("dense", ops, "dense", 1000),
        ("dense_backward", ops, "dense_backward", 1000),
        ("permutation", _core, "permutation", 0),
        ("philox4x32", _core, "philox4x32", 0),
    ],
)
def test_a_deviating_result_is_caught(
    monkeypatch: pytest.MonkeyPatch, kernel: str, owner: Any, name: str, ulps: int, dtype: str
) -> None:
    right = getattr(owner, name)
    if ulps:
        monkeypatch.setattr(owner, name, wrong(right, ulps))
    else:
        monkeypatch.setattr(owner, name, lambda *a: (*right(*a)[:-1], right(*a)[-1] ^ 1) if len(right(*a)) else right(*a))
    row = run(kernel, dtype)
    assert not row.ok
    assert row.same_bits
    assert row.bound < row.error
    assert row.where


@pytest.mark.parametrize(
    ("kernel", "name", "change"),
    [
        ("sgd step", "sgd_step_", lambda f: lambda *a, lr, **o: f(*a, lr=lr * 1.0001, **o)),
        ("adam step", "adam_step_", lambda f: lambda *a, eps=1e-8, **o: f(*a, eps=eps * 1.001, **o)),
        ("Trainer, mse", "mse", lambda f: lambda p, t: (f(p, t)[0], f(p, t)[1] * 1.01)),
        ("Trainer, softmax_cross_entropy", "dense_backward", lambda f: lambda *a: (*f(*a)[:2], f(*a)[2] * 1.01)),
    ],
)
def test_another_formula_is_caught(monkeypatch: pytest.MonkeyPatch, kernel: str, name: str, change: Any) -> None:
    right = getattr(reference, name)
    changed = change(right)
    if name.endswith("step_"):
        changed.__signature__ = inspect.signature(right)  # where the options are read from
    monkeypatch.setattr(reference, name, changed)
    row = run(kernel)
    assert not row.ok
    assert row.error > row.bound


@pytest.mark.parametrize(
    "kernel", ["tanh forward", "sigmoid backward", "leaky_relu forward", "mish forward", "selu backward", "log_softmax backward"]
)
def test_another_activation_is_caught(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    name, way = kernel.split()
    forward, backward = reference.ACTIVATIONS[name]
    changed = (
        (lambda x, **o: forward(x, **o) * (1 + 1e-6), backward)
        if way == "forward"
        else (forward, lambda dy, source, **o: backward(dy, source, **o) * (1 + 1e-6))
    )
    monkeypatch.setitem(reference.ACTIVATIONS, name, changed)
    row = run(kernel)
    assert not row.ok
    assert row.error > row.bound


def test_other_bits_on_more_threads_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _core.vmath
    monkeypatch.setattr(_core, "vmath", lambda *a: last_moved(right(*a), 1) if ts.get_num_threads() > 1 else right(*a))
    with ts.num_threads(2):
        row = run("expm1")
    assert row.error <= row.bound
    assert not row.same_bits
    assert not row.ok
    assert "other bits on 2 threads than on 1" in str(row)


def test_nothing_compared_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no")

    for module in (ops, reference):
        monkeypatch.setattr(module, "mse", refuse)
    row = run("mse")
    assert not row.ok
    assert "nothing to compare" in row.where


def test_what_is_raised_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(reference, "mse")
    row = run("mse")
    assert not row.ok
    assert row.where.startswith("AttributeError: ")


@pytest.mark.parametrize(("owner", "name"), [(ops, "mse"), (optim, "sgd_step_")])
def test_what_the_reference_refuses_must_be_refused(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no")

    refuse.__signature__ = inspect.signature(getattr(reference, name))  # type: ignore[attr-defined]
    monkeypatch.setattr(reference, name, refuse)
    row = run("mse" if owner is ops else "sgd step")
    assert not row.ok
    assert "the reference refuses them" in row.where


# --- the result ------------------------------------------------------------------------------------------------------------------


def row(**changes: Any) -> SelftestRow:
    values = {"kernel": "exp", "isa": "avx2", "dtype": "float32", "unit": "ULP", "error": 0.875, "bound": 2.0, "same_bits": True}
    return SelftestRow(**{**values, "threads": 2, "cases": 1000, "where": "7 elements", **changes})


def test_the_table() -> None:
    good = SelftestResult((row(), row(isa="generic", error=1.5), row(kernel="mse", unit="eps", bound=16.0)), 1.25)
    assert good.ok
    assert not good.failures
    assert str(good).splitlines() == [
        "                        avx2  generic",
        "kernel  unit  bound  float32  float32",
        "exp     ULP       2     0.88     1.50",
        "mse     eps      16     0.88         ",
        "",
        "3 checks of 3,000 calls, each on 1 and on 2 threads, in 1.2 s: all passed",
    ]
    bad = SelftestResult((row(), row(kernel="log", error=2.5), row(kernel="erf", same_bits=False)), 1.25)
    assert not bad.ok
    assert [r.kernel for r in bad.failures] == ["log", "erf"]
    lines = str(bad).splitlines()
    assert lines[3].endswith(" 2.5!")
    assert lines[4].endswith(" bits!")
    assert lines[6] == "FAILED: log on avx2, float32: 2.5 ULP, bound 2 (7 elements)"
    assert lines[7] == "FAILED: erf on avx2, float32: other bits on 2 threads than on 1 (7 elements)"
    assert lines[8].endswith(": 2 failed")


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_no_number_is_no_pass(error: float) -> None:
    assert not row(error=error).ok


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="selftest: isa is 'sse9', expected levels among .*generic|neon"):
        ts.selftest(["sse9"])


# In the processes of the command line, which start with this: only a few checks, one of which may be made wrong.
PATCH = """
import json, os, trainstep
from trainstep import _core, _kernel_checks
todo = json.loads(os.environ["SELFTEST_PATCH"])
all_checks = _kernel_checks.checks
_kernel_checks.checks = lambda: [c for c in all_checks() if c.kernel in ("expm1", "gather")]
right = _core.vmath
if todo.get("wrong") == _core.config()["isa"]:
    _core.vmath = lambda name, x: right(name, x) * x.dtype.type(1.0001)
if todo.get("die") == _core.config()["isa"]:
    _kernel_checks.run_checks = lambda: os._exit(3)
"""


def command_line(tmp_path: Path, **todo: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "SELFTEST_PATCH": json.dumps(todo)}
    command = [sys.executable, "-m", "trainstep", "selftest"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_command_line_runs_every_level(tmp_path: Path) -> None:
    done = command_line(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    heads = done.stdout.splitlines()[0].split()
    assert heads == [level for level in ts.config()["isa_supported"] for _ in range(2)]
    assert done.stdout.endswith("all passed\n")


@pytest.mark.parametrize("what", ["wrong", "die"])
def test_command_line_fails_where_a_level_fails(tmp_path: Path, what: str) -> None:
    supported = ts.config()["isa_supported"]
    done = command_line(tmp_path, **{what: supported[-1]})
    failed = 2 if what == "wrong" else 1
    rows = 4 * len(supported) - (0 if what == "wrong" else 3)
    assert done.returncode == 1
    assert done.stderr == f"trainstep: error: selftest: {failed} of {rows} checks failed\n"
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED: ")]
    assert len(failures) == failed
    assert f"on {supported[-1]}" in failures[0]
    assert ("expm1" in failures[0]) if what == "wrong" else ("exit status 3" in failures[0])


# --- what is exact ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not _exact.LONG_IS_WIDER, reason="long double is no wider than double here")
def test_erf_of_long_double_against_decimals() -> None:
    x = np.concatenate([np.random.default_rng(3).uniform(-7, 7, 100), [1.9999, 2.0, 2.0001, 6.999, 7.0, 1e-11, 2.0**-35, 1e-300]])
    got = _exact.vmath("erf", x, np.longdouble)
    for value, mine in zip(x.tolist(), got, strict=True):
        exact = erf_in_decimals(value)
        # As two doubles, since Decimal takes no long double.
        high = float(mine)
        error = abs(float(exact - type(exact)(high) - type(exact)(float(mine - np.longdouble(high)))))
        assert error <= 2**-8 * np.spacing(abs(high)), value


def test_ulp_errors() -> None:
    got = np.array([1.0, 1.0, 2.0, 0.0, -0.0, 0.0, np.inf, np.inf, 1.0, np.nan], np.float32)
    eps = 2.0**-23
    exact = np.array([1.0, 1 + 0.75 * eps, 2 - eps / 2, 2.0**-150, 0.0, -0.0, 2.0**128 - 2.0**103, np.inf, np.nan, 1.0])
    with np.errstate(all="ignore"):
        errors = _exact.ulp_errors(got, exact)
    np.testing.assert_array_equal(errors, [0, 0.75, 0.5, 0.5, np.inf, np.inf, 0.5, 0, np.inf, np.inf])
    assert _exact.worst_ulp(got[:4], exact[:4]) == (0.75, 1)
    assert _exact.worst_ulp(got[:4].reshape(2, 2), exact[:4].reshape(2, 2)) == (0.75, 1)
    assert _exact.worst_ulp(got[:1], exact[:1]) == (0.5, 0)
    assert _exact.worst_ulp(got[4:5], exact[4:5])[0] == np.inf
    assert _exact.worst_ulp(np.array([np.nan], "f4"), np.array([np.nan])) == (0.5, 0)
