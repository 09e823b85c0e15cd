"""What one step does besides its rule: scaling, clipping, zeroing, leaving out; and the same clipping as functions."""

from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import ops, optim, reference

from .helpers import Array, Dlpack, assert_same_bits, assert_within, eps
from .optim_rules import CLASSES, HARD_OPTIONS, RTOL, advance, arrays_of, gradient, problem

EACH_RULE = pytest.mark.parametrize("rule", CLASSES)
SHAPES = [(30, 20), (7,), (), (0,), (3, 5), (40_000,)]


def lists(rng: np.random.Generator, dtype: Any) -> tuple[list[Array], list[Array]]:
    """Parameters and gradients of sizes past the pieces that work is cut into."""
    return [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES], [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]


def norm_of(grads: list[Any]) -> float:
    return float(np.sqrt(sum(np.sum(np.asarray(g, np.float64) ** 2) for g in grads if g is not None)))


def treated(
    grads: list[Array], grad_scale: float = 1.0, clip_norm: float | None = None, clip_value: float | None = None
) -> list[Array]:
    """What a step makes of its gradients first, in float64."""
    wide = [np.asarray(g, np.float64) * grad_scale for g in grads]
    if clip_norm is not None:
        factor = min(1.0, clip_norm / (norm_of(wide) + 1e-6))
        wide = [g * factor for g in wide]
    return [g if clip_value is None else np.clip(g, -clip_value, clip_value) for g in wide]


TREATMENTS: list[dict[str, Any]] = [
    {"grad_scale": 1 / 128},
    {"grad_scale": -3.0},
    {"clip_norm": 1.0},
    {"clip_norm": 1e6},
    {"clip_value": 0.5},
    {"grad_scale": 4.0, "clip_norm": 30.0},
    {"grad_scale": 4.0, "clip_value": 0.7},
]


@EACH_RULE
@pytest.mark.parametrize("how", TREATMENTS, ids=lambda how: ", ".join(f"{k}={v:.3g}" for k, v in how.items()))
def test_gradients_are_scaled_and_clipped(rule: str, how: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    params, grads = lists(rng, dtype)
    theirs = [w.astype(np.float64) for w in params]
    # An eps with which a rounding of the gradient does not turn the update round where the gradient is near 0.
    options = HARD_OPTIONS[rule] | ({"eps": 0.1} if "eps" in HARD_OPTIONS[rule] else {})
    optimizer, plain = CLASSES[rule](params, **options), CLASSES[rule](theirs, **options)
    kept = [g.copy() for g in grads]
    for _ in range(3):
        norm = optimizer.step(grads, **how)
        assert plain.step(treated(grads, **how)) is None
        if "clip_norm" in how:
            expected = abs(how.get("grad_scale", 1.0)) * norm_of(grads)
            assert isinstance(norm, float)
            assert norm == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6)
        else:
            assert norm is None
    for got, wanted in zip(params, theirs, strict=True):
        size = float(np.abs(wanted).max(initial=1.0))
        np.testing.assert_allclose(got, wanted, rtol=RTOL[dtype], atol=RTOL[dtype] * size)
    for g, wanted in zip(grads, kept, strict=True):
        assert_same_bits(g, wanted)


@EACH_RULE
def test_the_same_bits_for_any_number_of_threads(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    starts, grads = lists(rng, dtype)
    results = []
    for n_threads in (1, 2, 3):
        params = [w.copy() for w in starts]
        optimizer = CLASSES[rule](params, **HARD_OPTIONS[rule])
        with ts.num_threads(n_threads):
            norms = [optimizer.step(grads, clip_norm=3.0, skip_nonfinite=True) for _ in range(3)]
            optimizer.step(grads, clip_value=0.5)
        results.append((norms, [a.tobytes() for a in (*params, *arrays_of(optimizer))]))
    assert results[0] == results[1] == results[2]


@EACH_RULE
def test_gradients_are_zeroed_in_the_same_pass(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    params, grads = lists(rng, dtype)
    theirs, kept = [w.copy() for w in params], [g.copy() for g in grads]
    optimizer, plain = (CLASSES[rule](p, **HARD_OPTIONS[rule]) for p in (params, theirs))
    optimizer.step(grads, zero_grads=True, clip_norm=1.0)
    plain.step(kept, clip_norm=1.0)
    for got, wanted, g in zip(params, theirs, grads, strict=True):
        assert_same_bits(got, wanted)
        assert not g.any()


@EACH_RULE
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(
    rule: str, bad: float, dtype: np.dtype, rng: np.random.Generator
) -> None:
    params, grads = lists(rng, dtype)
    optimizer = CLASSES[rule](params, **HARD_OPTIONS[rule])
    optimizer.step(grads, skip_nonfinite=True)
    before = [a.copy() for a in (*params, *arrays_of(optimizer))]
    numbers = [{k: v for k, v in entry.items() if not isinstance(v, np.ndarray)} for entry in optimizer.state]
    for i, at in ((0, 599), (1, 0), (5, 39_999), (5, 17_000)):
        spoilt = [g.copy() for g in grads]
        spoilt[i].reshape(-1)[at] = bad
        norm = optimizer.step(spoilt, skip_nonfinite=True, clip_norm=1.0 if i else None)
        assert norm is None if i == 0 else not np.isfinite(norm)
        for got, wanted in zip((*params, *arrays_of(optimizer)), before, strict=True):
            assert_same_bits(got, wanted)
    assert [{k: v for k, v in e.items() if not isinstance(v, np.ndarray)} for e in optimizer.state] == numbers
    assert optimizer.skipped_steps == 4
    optimizer.step(grads, skip_nonfinite=True)
    assert optimizer.skipped_steps == 4
    assert optimizer.state[0]["step"] == 2
    if np.isnan(bad):
        optimizer.step(spoilt)  # who does not ask for it gets it
        assert np.isnan(params[5]).any()


@EACH_RULE
def test_a_parameter_without_a_gradient_is_left_out(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    params, noises = problem(rng, dtype)
    alone = [w.copy() for w in params]
    optimizer = CLASSES[rule](params, **HARD_OPTIONS[rule])
    singles = [CLASSES[rule]([w], **HARD_OPTIONS[rule]) for w in alone]
    for step in range(1, 13):
        active = [(step + i) % (i + 2) != 0 for i in range(len(params))]
        grads = [gradient(w, step, n) if on else None for w, n, on in zip(params, noises, active, strict=True)]
        optimizer.step(grads)
        for i, on in enumerate(active):
            if on:
                advance(singles[i], alone[i : i + 1], noises[i : i + 1], range(step, step + 1))
    steps = [entry["step"] for entry in optimizer.state]
    assert len(set(steps)) > 1
    assert steps == [single.state[0]["step"] for single in singles]
    for got, wanted in zip(params, alone, strict=True):
        assert_same_bits(got, wanted)
    for mine, single in zip(optimizer.state, singles, strict=True):
        for got, wanted in zip(mine.values(), single.state[0].values(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_missing_gradient_is_none_of_the_norm() -> None:
    params = [np.ones(2), np.ones(1)]
    optimizer = optim.SGD(params, lr=1.0)
    assert optimizer.step([np.array([3.0, 4.0]), None], clip_norm=10.0) == 5.0
    assert optimizer.step([None, None], clip_norm=10.0) == 0.0
    assert [w.tolist() for w in params] == [[-2.0, -3.0], [1.0]]


def test_a_norm_past_the_largest_number_of_its_dtype() -> None:
    # The squares of 1e30 are infinite in float32, the norm is not.
    w = np.zeros(4, np.float32)
    norm = optim.SGD([w], lr=1.0).step([np.full(4, 1e30, np.float32)], clip_norm=2.0)
    assert norm == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(w, -1.0, rtol=1e-6)


# --- the functions -------------------------------------------------------------------------------------------------------------


def test_global_norm_is_the_reference(dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    arrays, _ = lists(rng, dtype)
    assert ops.global_norm(arrays) == pytest.approx(reference.global_norm(arrays), rel=10 * eps(dtype))
    assert ops.global_norm([Dlpack(a) for a in arrays]) == ops.global_norm(arrays)
    assert ops.global_norm([]) == 0.0


@pytest.mark.parametrize("name", ["clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"])
@pytest.mark.parametrize("limit", [1e-3, 0.5, 3.0, 1e6])
def test_clipping_is_the_reference(name: str, limit: float, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    mine, _ = lists(rng, dtype)
    theirs = [a.astype(np.float64) for a in mine]
    result, expected = getattr(ops, name)(mine, limit), getattr(reference, name)(theirs, limit)
    np.testing.assert_allclose([result or 0.0] if name != "clip_by_norm_" else result, np.ravel(expected or 0.0), rtol=1e-5)
    for got, wanted in zip(mine, theirs, strict=True):
        assert got.dtype == dtype
        assert_within(got, wanted, 8 * eps(dtype) * np.abs(wanted), name)


def test_what_is_within_the_limit_keeps_its_bits(dtype: np.dtype, rng: np.random.Generator) -> None:
    arrays, _ = lists(rng, dtype)
    kept = [a.copy() for a in arrays]
    for name in ("clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"):
        getattr(ops, name)(arrays, 1e4)
        for got, wanted in zip(arrays, kept, strict=True):
            assert_same_bits(got, wanted, name)


def test_clipping_by_value_keeps_nan(dtype: np.dtype) -> None:
    a = np.array([np.nan, np.inf, -np.inf, 0.25, -0.0] * 7, dtype)
    ops.clip_by_value_([a], 0.5)
    np.testing.assert_array_equal(a, np.array([np.nan, 0.5, -0.5, 0.25, -0.0] * 7, dtype))
