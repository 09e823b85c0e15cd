"""trainstep.ops against the reference, against finite differences, and against itself on other threads, shapes and layouts."""

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, ops, reference

from .activation_rules import (
    ACTIVATIONS,
    OF_INPUT,
    amplified,
    backward_bound,
    dense_derivative_from,
    forward_bound,
    functions,
)
from .conftest import straddling_sizes, vector_width
from .helpers import Array, Frame, assert_same_bits, assert_within, eps, layouts, normal, numerical_gradient

LOSSES = _core.losses
REDUCTIONS = ("mean", "sum", "none")
DTYPES = (np.float32, np.float64)

# |error| <= PRODUCT_C * eps * (|x| @ |w|) for the sums of a product. Chains of up to 256 terms are rounded at each step; the error
# of a chain of random signs stays near eps * sum |terms|. The largest c found here, over all shapes and levels, is 1.9.
PRODUCT_C = 3.0
# One-signed terms are the worst case of a running sum: its error grows with the root of the chain's length. Largest c found: 4.6.
ONE_SIGNED_C = 8.0
FLOAT64_TINY = float(np.finfo(np.float64).tiny)


def function(module: Any, name: str, suffix: str = "") -> Any:
    return getattr(module, name + suffix)


def dense_shapes(dtype: Any, k: int) -> Iterator[tuple[int, int, int]]:
    """(batch, in, out) around the tiles' heights (4, 6, 12, and the short ones) and widths (up to 4 vectors), for one k."""
    width = vector_width(dtype)
    rows = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 25)
    columns = sorted({1, 2, width - 1, width, width + 1, 2 * width - 1, 2 * width, 2 * width + 1, 4 * width, 4 * width + 3} - {0})
    for m, n in product(rows, columns):
        yield m, k, n


# Beyond the size of a tile: operands are packed, blocks are crossed in each direction, threads share the work.
LARGE_SHAPES = [
    (200, 300, 400),
    (193, 513, 1030),
    (1, 300, 400),
    (2, 517, 303),
    (3, 700, 1100),
    (300, 400, 1),
    (1100, 700, 3),
    (400, 1, 300),
    (400, 2, 300),
    (97, 129, 10),
    (700, 500, 600),
]


def dense_problem(seed: int, dtype: Any, m: int, k: int, n: int) -> tuple[Array, Array, Array, Array]:
    """x, w, b and dy, scaled so that the activations are in their lively range."""
    rng = np.random.default_rng(seed)
    scale = np.asarray(1 / np.sqrt(k), dtype)
    return normal(rng, dtype, m, k), normal(rng, dtype, k, n) * scale, normal(rng, dtype, n), normal(rng, dtype, m, n)


def check_dense(x: Array, w: Array, b: Array | None, activation: str | None, c: float = PRODUCT_C) -> None:
    y = ops.dense(x, w, b, activation)
    assert y.dtype == x.dtype
    x64, w64, b64 = (None if a is None else a.astype(np.float64) for a in (x, w, b))
    exact = reference.dense(x64, w64, b64, activation)
    # What the sums are off by, as the activation passes it on, and its own error.
    name = activation or "identity"
    terms = np.abs(x64) @ np.abs(w64) + (0 if b64 is None else np.abs(b64))
    bound = c * eps(x.dtype) * amplified(name, terms) + forward_bound(name, reference.dense(x64, w64, b64), exact, x.dtype)
    assert_within(y, exact, bound, ("dense", x.shape, w.shape, activation))


def check_dense_backward(
    dy: Array, x: Array, w: Array, y: Array | None, activation: str | None, need_dx: bool = True, c: float = PRODUCT_C
) -> None:
    got = ops.dense_backward(dy, x, w, y, activation, need_dx)
    wide = [None if a is None else a.astype(np.float64) for a in (dy, x, w, y)]
    exact = reference.dense_backward(*wide, activation, need_dx)
    dy64, x64, w64, y64 = wide
    name = activation or "identity"
    dz = dy64 if y64 is None else reference.ACTIVATIONS[name][1](dy64, y64)
    # The sums' own error, and that of dz.
    dz = c * eps(x.dtype) * np.abs(dz) + backward_bound(name, dy64, dy64 if y64 is None else y64, dz, x.dtype)
    terms = (dz @ np.abs(w64).T, np.abs(x64).T @ dz, dz.sum(axis=0))
    for result, mine, wanted, bound in zip(("dx", "dw", "db"), got, exact, terms, strict=True):
        if wanted is None:
            assert mine is None
            continue
        assert mine.dtype == x.dtype
        assert_within(mine, wanted, bound, ("dense_backward", result, x.shape, w.shape, activation))


# --- dense ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4, 10, 64, 255, 256, 257, 513])
def test_dense_of_small_and_straddling_shapes(dtype: np.dtype, threads: int, k: int) -> None:
    for i, (m, _, n) in enumerate(dense_shapes(dtype, k)):
        x, w, b, dy = dense_problem(i, dtype, m, k, n)
        activation = (None, *ACTIVATIONS)[i % (len(ACTIVATIONS) + 1)]
        bias = b if i % 2 else None
        check_dense(x, w, bias, activation)
        check_dense_backward(dy, x, w, dense_derivative_from(x, w, bias, activation), activation)


@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_dense_of_large_shapes(dtype: np.dtype, threads: int, shape: tuple[int, int, int]) -> None:
    x, w, b, dy = dense_problem(7, dtype, *shape)
    check_dense(x, w, b, "tanh")
    check_dense(x, w, None, None)
    check_dense_backward(dy, x, w, None, None)
    check_dense_backward(dy, x, w, ops.dense(x, w, b, "tanh"), "tanh", need_dx=False)


@pytest.mark.parametrize("shape", [(64, 64), (517, 303), (300, 1100), (64, 10), (100, 1), (1000, 32), (2100, 7)], ids=str)
def test_a_row_has_the_same_bits_in_any_batch(dtype: np.dtype, threads: int, shape: tuple[int, int]) -> None:
    """Few rows take other ways through a product than many: wider tiles, or a large w read from end to end."""
    x, w, b, _ = dense_problem(5, dtype, 30, *shape)
    together = ops.dense(x, w, b, "relu")
    for rows in (1, 2, 3, 4):
        np.testing.assert_array_equal(ops.dense(x[:rows], w, b, "relu"), together[:rows])


@pytest.mark.parametrize("caches", [(1, 1), (16 * 1024, 128 * 1024), (2**20, 2**24)], ids=str)
def test_products_do_not_depend_on_the_caches(dtype: np.dtype, threads: int, caches: tuple[int, int]) -> None:
    """They are cut for the caches of the machine, but no sum is."""
    x, w, b, dy = dense_problem(5, dtype, 130, 300, 1100)
    here = _core.caches()
    assert all(size >= 4096 for size in here)
    y, gradients = ops.dense(x, w, b, "tanh"), ops.dense_backward(dy, x, w)
    try:
        _core.set_caches(*caches)
        assert_same_bits(ops.dense(x, w, b, "tanh"), y, caches)
        for mine, wanted in zip(ops.dense_backward(dy, x, w), gradients, strict=True):
            assert_same_bits(mine, wanted, caches)
    finally:
        _core.set_caches(*here)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_with_every_activation(dtype: np.dtype, threads: int, activation: str) -> None:
    for shape in ((5, 7, 9), (65, 130, 67), (300, 100, 150)):
        x, w, b, dy = dense_problem(3, dtype, *shape)
        check_dense(x, w, b, activation)
        source = dense_derivative_from(x, w, b, activation)
        check_dense_backward(dy, x, w, source, activation)
        none, *others = ops.dense_backward(dy, x, w, source, activation, need_dx=False)
        assert none is None
        for got, wanted in zip(others, ops.dense_backward(dy, x, w, source, activation)[1:], strict=True):
            assert_same_bits(got, wanted, shape)


@pytest.mark.parametrize("shape", [(4, 256, 33), (30, 1025, 40), (65, 2000, 130)], ids=str)
def test_dense_of_terms_of_one_sign(dtype: np.dtype, shape: tuple[int, int, int]) -> None:
    x, w, b, _ = dense_problem(11, dtype, *shape)
    check_dense(np.abs(x), np.abs(w), np.abs(b), None, ONE_SIGNED_C)


def test_dense_is_exact_on_small_integers(dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    # Every sum is an integer that the dtype holds, so no rounding hides a wrong element.
    for m, k, n in ((13, 257, 35), (200, 300, 400), (3, 513, 100)):
        x, w = rng.integers(-3, 4, (m, k)).astype(dtype), rng.integers(-3, 4, (k, n)).astype(dtype)
        b, dy = rng.integers(-9, 9, n).astype(dtype), rng.integers(-3, 4, (m, n)).astype(dtype)
        np.testing.assert_array_equal(ops.dense(x, w, b), x @ w + b)
        dx, dw, db = ops.dense_backward(dy, x, w)
        np.testing.assert_array_equal(dx, dy @ w.T)
        np.testing.assert_array_equal(dw, x.T @ dy)
        np.testing.assert_array_equal(db, dy.sum(axis=0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_dense_spreads_nan_and_infinity_to_their_row_and_column_alone(dtype: np.dtype, bad: float) -> None:
    for m, k, n in ((7, 20, 18), (150, 300, 200)):
        x, w, b, dy = dense_problem(1, dtype, m, k, n)
        clean = ops.dense(x, w, b)
        x[m // 2, k - 1] = bad
        y = ops.dense(x, w, b)
        assert not np.isfinite(y[m // 2]).any()
        others = np.arange(m) != m // 2
        assert_same_bits(y[others], clean[others])
        assert np.isnan(ops.dense(x, w, b, "relu")[m // 2]).all() or bad == np.inf
        _, clean_dw, clean_db = ops.dense_backward(dy, np.where(np.isfinite(x), x, 0), w)
        _, dw, db = ops.dense_backward(dy, x, w)
        assert not np.isfinite(dw[k - 1]).any()
        assert_same_bits(dw[: k - 1], clean_dw[: k - 1])
        assert_same_bits(db, clean_db)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_do_not_depend_on_their_batch(dtype: np.dtype, activation: str) -> None:
    for m, k, n in ((40, 30, 10), (33, 300, 70), (300, 520, 130), (40, 300, 1), (40, 1, 30)):
        x, w, b, dy = dense_problem(5, dtype, m, k, n)
        y, source = ops.dense(x, w, b, activation), dense_derivative_from(x, w, b, activation)
        dx = ops.dense_backward(dy, x, w, source, activation)[0]
        for part in (slice(3, 4), slice(0, 1), slice(5, 8), slice(m - 1, m), slice(2, 25)):
            assert_same_bits(ops.dense(x[part], w, b, activation), y[part], (m, k, n, part))
            part_dx = ops.dense_backward(dy[part], x[part], w, source[part], activation)[0]
            assert_same_bits(part_dx, dx[part], (m, k, n, part))


def test_columns_do_not_depend_on_the_width(dtype: np.dtype) -> None:
    # Sums for one column, for up to 32 and for more are each cut in their own way.
    few = (slice(0, 2), slice(3, 7), slice(0, 17), slice(8, 32))
    many = (slice(0, 33), slice(3, 60), slice(8, 99))
    for n, parts in ((32, few), (100, many)):
        x, w, b, _ = dense_problem(5, dtype, 50, 300, n)
        y = ops.dense(x, w, b, "sigmoid")
        for part in parts:
            assert_same_bits(ops.dense(x, w[:, part], b[part], "sigmoid"), np.ascontiguousarray(y[:, part]), (n, part))


# --- standardize ---------------------------------------------------------------------------------------------------------------


def test_standardize_of_all_sizes(dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    """One subtraction and one multiplication, each rounded once: NumPy's bits, on every level."""
    for rows, columns in [*product((1, 2, 5), [n for n in straddling_sizes(dtype) if n]), (3000, 3), (40_001, 17)]:
        x, mean, scale = normal(rng, dtype, rows, columns) + 1000, normal(rng, dtype, columns) + 1000, normal(rng, dtype, columns)
        assert_same_bits(ops.standardize(x, mean, scale), (x - mean) * scale, (rows, columns))
        assert_same_bits(ops.standardize_backward(x, scale), x * scale, (rows, columns))
        exact = reference.standardize(*(a.astype(np.float64) for a in (x, mean, scale)))
        assert_within(ops.standardize(x, mean, scale), exact, 1.01 * eps(dtype) * np.abs(exact), (rows, columns))


def special_values(dtype: np.dtype) -> Array:
    info = np.finfo(dtype)
    positive = [
        0.0,
        info.smallest_subnormal,
        info.tiny,
        1e-20,
        1e-4,
        0.3,
        1.0,
        5.0,
        9.0,
        20.0,
        87.0,
        100.0,
        709.0,
        1e30,
        info.max,
        np.inf,
    ]
    return np.array([*positive, *(-v for v in positive), np.nan], dtype)


def test_standardize_of_special_values(dtype: np.dtype) -> None:
    x = special_values(dtype).reshape(-1, 1)
    mean, scale = np.array([1.0, 0.0, np.inf], dtype), np.array([2.0, 1e30, 0.0], dtype)
    for m, s in product(mean, scale):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(ops.standardize(x, np.array([m]), np.array([s])), (x - m) * s)
            np.testing.assert_array_equal(ops.standardize_backward(x, np.array([s])), x * s)


def test_standardize_backward_is_the_derivative(rng: np.random.Generator) -> None:
    x, dy, mean, scale = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), rng.standard_normal(5), rng.uniform(0.1, 9, 5)
    expected = numerical_gradient(lambda v: float((dy * ops.standardize(v, mean, scale)).sum()), x)
    np.testing.assert_allclose(ops.standardize_backward(dy, scale), expected, rtol=1e-7, atol=1e-8)


def test_standardize_may_write_over_its_input(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, mean, scale = normal(rng, dtype, 5, 7), normal(rng, dtype, 7), normal(rng, dtype, 7)
    y, dx = ops.standardize(x, mean, scale), ops.standardize_backward(x, scale)
    again = x.copy()
    assert ops.standardize(x, mean, scale, out=x) is x
    assert_same_bits(x, y)
    assert ops.standardize_backward(again, scale, out=again) is again
    assert_same_bits(again, dx)


# --- losses --------------------------------------------------------------------------------------------------------------------


def loss_sizes(dtype: np.dtype) -> Iterator[tuple[int, int]]:
    width = vector_width(dtype)
    yield from product((1, 3, 63, 64, 65), sorted({1, 2, 3, 10, max(width - 1, 1), width, width + 1, 4 * width + 3}))
    yield from ((130, 1000), (5000, 10), (700, 129))


def loss_problem(name: str, kind: str, rng: np.random.Generator, dtype: np.dtype, rows: int, classes: int) -> tuple[Array, Array]:
    pred = normal(rng, dtype, rows, classes) * dtype.type(1 if kind == "counts" else 3)
    if name == "categorical_cross_entropy":
        pred = rng.uniform(0.01, 1, (rows, classes)).astype(dtype)
    if kind == "labels":
        return pred, rng.integers(0, classes, rows)
    if kind == "values":
        return pred, normal(rng, dtype, rows, classes)
    if kind == "signs":
        return pred, rng.choice([-1, 1], (rows, classes)).astype(dtype)
    if kind == "bits":
        return pred, rng.integers(0, 2, (rows, classes)).astype(dtype)
    if kind == "fractions":
        return pred, rng.random((rows, classes)).astype(dtype)
    if kind == "counts":
        return pred, rng.poisson(2, (rows, classes)).astype(dtype)
    target = rng.random((rows, classes)) * (rng.random((rows, classes)) < 0.7)  # some are exactly 0
    if kind == "probabilities":
        target /= np.maximum(target.sum(axis=1, keepdims=True), 1e-3)
    return pred, target.astype(dtype)


# Each loss with the kinds of target that it takes; a new loss must be put here before the tests pass.
TARGET_KINDS = {
    "softmax_cross_entropy": ("labels", "probabilities", "weights"),
    "sigmoid_binary_cross_entropy": ("bits", "fractions"),
    "categorical_cross_entropy": ("labels", "probabilities"),
    "mse": ("values",),
    "mae": ("values",),
    "huber": ("values",),
    "hinge": ("signs",),
    "poisson_nll": ("counts",),
    "kl_divergence": ("labels", "probabilities"),
}
OVER_CLASSES = tuple(name for name in LOSSES if "labels" in TARGET_KINDS[name])
CASES = [(name, kind) for name in LOSSES for kind in TARGET_KINDS[name]]


def loss_bounds(name: str, pred: Array, target: Array, sums_c: float = 0.0) -> tuple[Array, Array]:
    """What the losses of a row (or an element) and the gradient of their sum may be off by, in units of eps.

    sums_c is what a row's sums may be off by: nothing that counts among drawn numbers, more where all are alike.
    """
    p, t = pred.astype(np.float64), target
    if t.ndim == 1:
        t = np.eye(p.shape[1])[t]
    t = t.astype(np.float64)
    size = np.abs(p - t)
    if name == "mse":
        return 3 * size**2, 6 * size
    if name == "mae":
        return size, np.zeros_like(p)
    if name == "huber":
        return 4 * np.minimum(size, size**2), np.minimum(size, 1)
    if name == "hinge":
        return 1 + np.abs(p), np.zeros_like(p)
    if name == "poisson_nll":
        return 3 * (np.exp(p) + t * np.abs(p)), 3 * (np.exp(p) + t)
    if name == "sigmoid_binary_cross_entropy":
        other = np.where(p > 0, 1 - t, t)
        return 5 * (np.log1p(np.exp(-np.abs(p))) + np.abs(p) * other), 5 * (other + np.exp(-np.abs(p)))
    if name == "categorical_cross_entropy":
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(t == 0, 0, t * np.abs(np.log(p)))
            return (4 + ONE_SIGNED_C + sums_c) * terms.sum(axis=1), 3 * np.where(t == 0, 0, t / np.abs(p))
    information = np.where(t > 0, -t * np.log(np.where(t > 0, t, 1)), 0) * (name == "kl_divergence")
    shifted = p - p.max(axis=1, keepdims=True)
    sums = np.exp(shifted).sum(axis=1, keepdims=True)
    probability = np.exp(shifted) / sums
    # x - max is rounded, which moves exp by that times |x - max|; then come exp's and log's ULPs and the sum's roundings.
    rounding = 4 + sums_c + np.abs(shifted)
    log_error = (probability * rounding).sum(axis=1, keepdims=True) + 2 * np.log(sums)
    terms = t * (np.abs(shifted) + np.log(sums)) + np.abs(information)
    loss = (2 + ONE_SIGNED_C) * terms.sum(axis=1) + (t * log_error).sum(axis=1)
    gradient = t.sum(axis=1, keepdims=True) * probability * (rounding + log_error) + 2 * t
    return 2 * loss, 2 * gradient  # the reference's own error, and the fewer bits that sums have without FMA


def check_loss(name: str, kind: str, pred: Array, target: Array, reduction: str, sums_c: float = 0.0) -> None:
    wide = (pred.astype(np.float64), target if kind == "labels" else target.astype(np.float64))
    loss_bound, gradient_bound = loss_bounds(name, pred, target, sums_c)
    loss, gradient = function(ops, name)(pred, target, reduction=reduction)
    exact_loss, exact_gradient = function(reference, name)(*wide, reduction=reduction)
    what = (name, kind, reduction, pred.shape)
    count = np.size(loss_bound) if reduction == "mean" else 1
    unit = eps(pred.dtype)
    assert gradient.dtype == pred.dtype
    assert_within(gradient, exact_gradient, unit * (gradient_bound + np.abs(exact_gradient) * count) / count, what)
    if reduction == "none":
        assert loss.dtype == pred.dtype
        assert_within(loss, exact_loss, unit * loss_bound, what)
    else:
        assert type(loss) is float
        # Their sum is taken in float64, one after the other; where they repeat, every rounding may go the same way.
        slack = FLOAT64_TINY + (1e-13 + (eps(np.float64) * np.size(loss_bound) if sums_c else 0)) * abs(exact_loss)
        assert abs(loss - exact_loss) <= unit * loss_bound.sum() / count + slack, what


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_loss_of_all_sizes(dtype: np.dtype, threads: int, name: str, kind: str, rng: np.random.Generator) -> None:
    for rows, classes in loss_sizes(dtype):
        pred, target = loss_problem(name, kind, rng, dtype, rows, classes)
        for reduction in REDUCTIONS if rows * classes < 10_000 else ("mean",):
            check_loss(name, kind, pred, target, reduction)


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_gradient_is_the_derivative(name: str, kind: str, reduction: str, rng: np.random.Generator) -> None:
    for rows, classes in ((1, 1), (3, 4), (5, 9)):
        pred, target = loss_problem(name, kind, rng, np.dtype(np.float64), rows, classes)
        loss = function(ops, name)
        expected = numerical_gradient(lambda p: float(np.sum(loss(p, target, reduction=reduction)[0])), pred)  # noqa: B023
        # A sum of some hundred has digits to 1e-13, and the difference is divided by 1e-6.
        np.testing.assert_allclose(loss(pred, target, reduction=reduction)[1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("label_dtype", [np.int32, np.int64])
def test_label_forms_agree(dtype: np.dtype, label_dtype: Any, rng: np.random.Generator) -> None:
    logits, labels = normal(rng, dtype, 70, 12), rng.integers(0, 12, 70)
    loss, gradient = ops.softmax_cross_entropy(logits, labels)
    other_loss, other_gradient = ops.softmax_cross_entropy(logits, labels.astype(label_dtype))
    assert other_loss == loss
    assert_same_bits(other_gradient, gradient)
    assert ops.softmax_cross_entropy(logits, labels[::-1].copy()[::-1])[0] == loss
    assert ops.softmax_cross_entropy(logits, labels.tolist())[0] == loss
    row_loss, row_gradient = ops.softmax_cross_entropy(logits, np.eye(12, dtype=dtype)[labels])
    assert row_loss == pytest.approx(loss, rel=4 * eps(dtype))
    np.testing.assert_allclose(row_gradient, gradient, rtol=8 * eps(dtype), atol=eps(dtype) / 70)


def test_cross_entropy_of_extreme_logits(dtype: np.dtype) -> None:
    big = float(np.finfo(dtype).max) / 4
    rows = [
        [big, -big],
        [big, -big],
        [0.0, -np.inf],
        [0.0, -np.inf],
        [np.nan, 0.0],
        [0.0, np.nan],
        [np.inf, 0.0],
        [-np.inf, -np.inf],
    ]
    logits, labels = np.array(rows, dtype), np.array([0, 1, 0, 1, 1, 0, 0, 1])
    for target in (labels, np.eye(2, dtype=dtype)[labels]):
        losses, gradient = ops.softmax_cross_entropy(logits, target, reduction="none")
        exact_losses, exact_gradient = reference.softmax_cross_entropy(logits, target, reduction="none")
        np.testing.assert_array_equal(losses, exact_losses)
        np.testing.assert_array_equal(gradient, exact_gradient)
        assert np.isnan(ops.softmax_cross_entropy(logits, target)[0])


def test_cross_entropy_shows_nan_logits_where_all_weights_are_zero(dtype: np.dtype) -> None:
    logits = np.array([[np.nan, 0.0, 1.0], [0.0, 1.0, 2.0]], dtype)
    losses, _ = ops.softmax_cross_entropy(logits, np.zeros((2, 3), dtype), reduction="none")
    np.testing.assert_array_equal(losses, [np.nan, 0.0])


def test_cross_entropy_rows_do_not_depend_on_their_batch(dtype: np.dtype, rng: np.random.Generator) -> None:
    for classes in (3, 10, 100):
        logits, labels = normal(rng, dtype, 150, classes), rng.integers(0, classes, 150)
        losses, gradient = ops.softmax_cross_entropy(logits, labels, reduction="none")
        for part in (slice(3, 4), slice(60, 70), slice(149, 150)):
            part_losses, part_gradient = ops.softmax_cross_entropy(logits[part], labels[part], reduction="none")
            assert_same_bits(part_losses, losses[part])
            assert_same_bits(part_gradient, gradient[part])


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in OVER_CLASSES])
def test_a_loss_over_elements_takes_any_shape(dtype: np.dtype, name: str, rng: np.random.Generator) -> None:
    loss, exact = function(ops, name), function(reference, name)
    for shape in ((), (1,), (7,), (2, 3, 4)):
        size = int(np.prod(shape))
        pred, target = (a.reshape(shape) for a in loss_problem(name, TARGET_KINDS[name][0], rng, dtype, 1, size))
        losses, gradient = loss(pred, target, reduction="none")
        assert losses.shape == gradient.shape == shape
        assert loss(pred, target)[0] == pytest.approx(exact(pred, target)[0], rel=20 * eps(dtype))


# --- what all functions share --------------------------------------------------------------------------------------------------


def calls(dtype: np.dtype, rng: np.random.Generator) -> dict[str, tuple[Any, dict[str, Array], dict[str, Any]]]:
    """Every function of ops, with its array arguments and its other ones."""
    x, w, b, dy = normal(rng, dtype, 9, 20), normal(rng, dtype, 20, 13), normal(rng, dtype, 13), normal(rng, dtype, 9, 13)
    y = ops.dense(x, w, b, "tanh")
    result: dict[str, tuple[Any, dict[str, Array], dict[str, Any]]] = {
        "dense": (ops.dense, {"x": x, "w": w, "b": b}, {"activation": "tanh"}),
        "dense_backward": (ops.dense_backward, {"dy": dy, "x": x, "w": w, "y": y}, {"activation": "tanh"}),
        "standardize": (ops.standardize, {"x": dy, "mean": b, "scale": w[0]}, {}),
        "standardize_backward": (ops.standardize_backward, {"dy": dy, "scale": b}, {}),
        "dropout": (ops.dropout, {"x": x}, {"rate": 0.4, "seed": 1, "counter": 2}),
        "dropout_backward": (ops.dropout_backward, {"dy": dy}, {"rate": 0.4, "seed": 1, "counter": 2}),
        "ewma": (ops.ewma, {"x": x}, {"beta": 0.9}),
    }
    for name, of_one, options in (("layer_norm", dy[:, 0], {}), ("batch_norm", b, {"training": False})):
        statistics = {"mean": of_one, "inv_std": of_one * of_one}
        running = {"running_mean": b, "running_var": b * b} if options else {}
        result[name] = (function(ops, name), {"x": y, "gamma": b, "beta": w[0], **running}, options)
        result[f"{name}_backward"] = (function(ops, name, "_backward"), {"dy": dy, "x": y, **statistics, "gamma": b}, options)
    for name in ACTIVATIONS:
        forward, backward = functions(name)
        result[name] = (forward, {"x": x}, {})
        result[name + "_backward"] = (backward, {"dy": dy, "x" if name in OF_INPUT else "y": y}, {})
    for name, kind in CASES:
        pred, target = loss_problem(name, kind, rng, dtype, 9, 13)
        names = list(inspect.signature(function(ops, name)).parameters)[:2]
        arrays = dict(zip(names, (pred, target), strict=True))
        result[f"{name} of {kind}"] = (function(ops, name), arrays, {})
        weights = {"sample_weight": rng.uniform(0.5, 2, 9).astype(dtype)}
        if name == "softmax_cross_entropy":
            weights["weight"] = rng.uniform(0.5, 2, 13).astype(dtype)
        result[f"{name} of {kind}, weighted"] = (function(ops, name), arrays | weights, {})
    return result


def arrays_in(result: Any) -> list[Array]:
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


def test_the_table_of_calls_holds_every_function(rng: np.random.Generator) -> None:
    of_lists = {"global_norm", "clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"}  # see test_optim_fused.py
    called = {getattr(f, "func", f).__name__ for f, _, _ in calls(np.dtype(np.float32), rng).values()}
    assert called == set(ops.__all__) - of_lists


def test_inputs_of_any_layout_give_the_same_bits(dtype: np.dtype, rng: np.random.Generator) -> None:
    for name, (f, arrays, options) in calls(dtype, rng).items():
        expected = arrays_in(f(**arrays, **options))
        before = {key: a.copy() for key, a in arrays.items()}
        for argument, values in arrays.items():
            for layout, form in layouts(values).items():
                got = arrays_in(f(**{**arrays, argument: form}, **options))
                for mine, wanted in zip(got, expected, strict=True):
                    assert_same_bits(mine, wanted, (name, argument, layout))
        for key, a in arrays.items():
            assert_same_bits(a, before[key], (name, key))


def test_lists_are_read_as_numpy_reads_them(rng: np.random.Generator) -> None:
    for name, (f, arrays, options) in calls(np.dtype(np.float64), rng).items():
        expected = arrays_in(f(**arrays, **options))
        for mine, wanted in zip(arrays_in(f(**{k: a.tolist() for k, a in arrays.items()}, **options)), expected, strict=True):
            assert_same_bits(mine, wanted, name)


def test_what_has_array_is_read_as_numpy_reads_it(dtype: np.dtype, rng: np.random.Generator) -> None:
    for name, (f, arrays, options) in calls(dtype, rng).items():
        expected = arrays_in(f(**arrays, **options))
        for mine, wanted in zip(arrays_in(f(**{k: Frame(a) for k, a in arrays.items()}, **options)), expected, strict=True):
            assert_same_bits(mine, wanted, name)
    with pytest.raises(TypeError, match="^relu: x cannot be read as an array: "):
        ops.relu(Frame("no"))
    with pytest.raises(TypeError, match="^relu: x is a MaskedArray, expected an array without a mask"):
        ops.relu(Frame(np.ma.masked_array(np.zeros(3, dtype), [True, False, False])))
    with pytest.raises(TypeError, match="^relu: out is no NumPy array$"):
        ops.relu(np.zeros(3, dtype), out=Frame(np.zeros(3, dtype)))
    with pytest.raises(TypeError, match="Frame, expected a NumPy array, or an object with __dlpack__ or the buffer"):
        ts.optim.Adam([Frame(np.zeros(3, dtype))])


def test_out_is_written_and_returned(dtype: np.dtype, rng: np.random.Generator) -> None:
    for name, (f, arrays, options) in calls(dtype, rng).items():
        expected = f(**arrays, **options)
        if isinstance(expected, tuple) and f.__name__ not in LOSSES:
            out: Any = tuple(np.full_like(a, np.nan) for a in expected)
            results = zip(f(**arrays, **options, out=out), out, expected, strict=True)
        else:
            array_result = expected[1] if isinstance(expected, tuple) else expected
            out = np.full_like(array_result, np.nan)
            result = f(**arrays, **options, out=out)
            results = zip(*((r[1] if isinstance(r, tuple) else r,) for r in (result, out, expected)), strict=True)
        for got, given_array, wanted in results:
            assert got is given_array, name
            assert_same_bits(got, wanted, name)


def test_dense_backward_writes_only_the_outs_that_are_given(dtype: np.dtype) -> None:
    x, w, _, dy = dense_problem(0, dtype, 6, 5, 4)
    dx, dw, db = ops.dense_backward(dy, x, w)
    mine = np.full_like(dw, np.nan)
    got = ops.dense_backward(dy, x, w, out=(None, mine, None))
    assert got[1] is mine
    for one, other in zip(got, (dx, dw, db), strict=True):
        assert_same_bits(one, other)
    none, _, _ = ops.dense_backward(dy, x, w, need_dx=False, out=(None, mine, None))
    assert none is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_backward_is_the_derivative(activation: str, rng: np.random.Generator) -> None:
    for shape in ((1, 1, 1), (3, 4, 2), (5, 3, 9)):
        x, w, b, dy = dense_problem(2, np.float64, *shape)
        b += np.sign(b) * 0.01  # off the ends of straight pieces
        dx, dw, db = ops.dense_backward(dy, x, w, dense_derivative_from(x, w, b, activation), activation)
        gradients = [
            numerical_gradient(lambda v: float((dy * ops.dense(v, w, b, activation)).sum()), x),  # noqa: B023
            numerical_gradient(lambda v: float((dy * ops.dense(x, v, b, activation)).sum()), w),  # noqa: B023
            numerical_gradient(lambda v: float((dy * ops.dense(x, w, v, activation)).sum()), b),  # noqa: B023
        ]
        for got, expected in zip((dx, dw, db), gradients, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def test_any_number_of_threads_gives_the_same_bits(dtype: np.dtype) -> None:
    shapes = (
        (700, 500, 600),
        (701, 513, 37),
        (3, 2000, 1500),
        (2000, 700, 3),
        (37, 3000, 130),
        (6000, 700, 1),
        (1, 2000, 1500),
    )
    products = [dense_problem(1, dtype, *shape) for shape in shapes]
    losses = [
        (name, loss_problem(name, kind, np.random.default_rng(0), dtype, *size))
        for name, kind in CASES
        for size in ((20_001, 10), (333, 1000))
    ]

    def everything() -> Iterator[Array]:
        for x, w, b, dy in products:
            y = ops.dense(x, w, b, "sigmoid")
            yield y
            yield from ops.dense_backward(dy, x, w, y, "sigmoid")
        values = np.linspace(-9, 9, 200_003, dtype=dtype)
        for name in ACTIVATIONS:
            forward, backward = functions(name)
            yield forward(values)
            yield backward(values, values)
        table = values[:200_000].reshape(-1, 50)
        yield ops.standardize(table, table[0], table[-1])
        yield ops.standardize_backward(table, table[0])
        for name, problem in losses:
            yield from (np.asarray(r) for r in function(ops, name)(*problem))

    with ts.num_threads(1):
        expected = list(everything())
    for n in (2, 3):
        with ts.num_threads(n):
            for i, (got, wanted) in enumerate(zip(everything(), expected, strict=True)):
                assert_same_bits(got, wanted, (n, i))
