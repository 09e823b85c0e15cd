"""layer_norm, batch_norm, dropout and ewma: against the reference, differences, Philox by itself, PyTorch, and other threads."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, ops, reference

from .conftest import straddling_sizes, vector_width
from .helpers import Array, assert_same_bits, assert_within, eps, normal, numerical_gradient
from .test_bad_input import Table, check, masked, of, read_only, table

FLOAT64_UNIT = 1e-12  # the reference has roundings of its own in float64


def unit(dtype: np.dtype) -> float:
    """What a result may be off by, in units of the terms that it is made of."""
    return 4 * eps(dtype) if dtype == np.float32 else FLOAT64_UNIT


def of_a_sum(dtype: np.dtype, exact: Array, terms: Array) -> Array:
    """What a sum in double precision may be off by: its one rounding to float32, whatever cancels."""
    return eps(dtype) * np.abs(exact) + FLOAT64_UNIT * terms


def wide(*arrays: Array | None) -> list[Any]:
    return [None if a is None else a.astype(np.float64) for a in arrays]


def shapes(dtype: np.dtype) -> Iterator[tuple[int, int]]:
    """Around vectors, pairs of them and the blocks of rows; and more than one thread's share."""
    width = vector_width(dtype)
    yield from product((1, 2, 3, 63, 64, 65, 130), sorted({1, 2, width - 1, width, width + 1, 2 * width, 4 * width + 3}))
    yield from ((300, 517), (2000, 33), (3, 5000))


def problem(dtype: np.dtype, rows: int, columns: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """x, dy, gamma, beta."""
    rng = np.random.default_rng([seed, rows, columns])
    x = (normal(rng, dtype, rows, columns) * 2 + 3).astype(dtype)
    return x, normal(rng, dtype, rows, columns), normal(rng, dtype, columns), normal(rng, dtype, columns)


def check_forward(
    got: tuple[Array, ...], exact: tuple[Array, ...], x: Array, gamma: Array | None, beta: Array | None, axis: int, what: object
) -> None:
    dtype = x.dtype
    x64, g, b = wide(x, gamma, beta)
    _, mean, inv_std = exact
    across = np.expand_dims(mean, axis) if axis else mean
    scale = np.expand_dims(inv_std, axis) if axis else inv_std
    # In float32 the mean has all the digits that x - mean needs: it is off by the rounding of distances, and not by its own.
    own = 1 if dtype == np.float32 else 32  # in float64 it is the reference whose sum of x has roundings
    from_mean = np.abs(across) * scale if dtype == np.float64 else 0
    terms = (np.abs(x64 - across) * scale + 1 + from_mean) * (1 if g is None else np.abs(g)) + (0 if b is None else np.abs(b))
    for name, mine, wanted, bound in zip(
        ("y", "mean", "inv_std"),
        got,
        exact,
        (unit(dtype) * terms, own * eps(dtype) * np.abs(mean) + unit(dtype) / inv_std, unit(dtype) * inv_std),
        strict=True,
    ):
        assert mine.dtype == dtype
        assert_within(mine, wanted, bound, (name, what))


def check_backward(
    got: tuple[Array, ...], exact: tuple[Array, ...], given: list[Array | None], axis: int, what: object, moves: bool = True
) -> None:
    dy, x, mean, inv_std, gamma = wide(*given)
    dtype = got[0].dtype
    across, scale = (np.expand_dims(a, axis) if axis else a for a in (mean, inv_std))
    x_hat = np.abs(x - across) * scale
    g = np.abs(dy) * (1 if gamma is None else np.abs(gamma))
    terms = g + (g.mean(axis=axis, keepdims=True) + x_hat * (g * x_hat).mean(axis=axis, keepdims=True) if moves else 0)
    others = tuple(range(x.ndim - 1))
    bounds = (
        unit(dtype) * scale * terms,
        unit(dtype) * (np.abs(dy) * x_hat).sum(axis=others),
        unit(dtype) * np.abs(dy).sum(axis=others),
    )
    for name, mine, wanted, bound in zip(("dx", "dgamma", "dbeta"), got, exact, bounds, strict=True):
        assert mine.dtype == dtype
        assert_within(mine, wanted, bound, (name, what))


def check_layer_norm(x: Array, dy: Array, gamma: Array | None, beta: Array | None) -> None:
    got = ops.layer_norm(x, gamma, beta)
    check_forward(got, reference.layer_norm(*wide(x, gamma, beta)), x, gamma, beta, -1, x.shape)
    given = [dy, x, *got[1:], gamma]
    check_backward(ops.layer_norm_backward(*given), reference.layer_norm_backward(*wide(*given)), given, -1, x.shape)


def check_batch_norm(x: Array, dy: Array, gamma: Array | None, beta: Array | None, training: bool) -> None:
    rng = np.random.default_rng(9)
    running = [normal(rng, x.dtype, x.shape[1]), rng.uniform(0.1, 3, x.shape[1]).astype(x.dtype)]
    before, exact_running = [a.copy() for a in running], wide(*running)
    options: dict[str, Any] = {"training": training, "momentum": 0.3}
    got = ops.batch_norm(x, gamma, beta, *running, **options)
    exact = reference.batch_norm(*wide(x, gamma, beta), *exact_running, **options)
    what = (x.shape, training)
    check_forward(got, exact, x, gamma, beta, 0, what)
    for mine, old, wanted in zip(running, before, exact_running, strict=True):
        if training:
            assert_within(mine, wanted, unit(x.dtype) * (np.abs(wanted) + np.abs(old)), ("running", what))
        else:
            assert_same_bits(mine, old, what)
    given = [dy, x, *got[1:], gamma]
    gradients = ops.batch_norm_backward(*given, training=training)
    check_backward(gradients, reference.batch_norm_backward(*wide(*given), training=training), given, 0, what, moves=training)


# --- layer_norm and batch_norm -------------------------------------------------------------------------------------------------


def test_layer_norm_of_all_sizes(dtype: np.dtype, threads: int) -> None:
    for i, (rows, columns) in enumerate(shapes(dtype)):
        x, dy, gamma, beta = problem(dtype, rows, columns)
        check_layer_norm(x, dy, gamma if i % 3 else None, beta if i % 2 else None)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_all_sizes(dtype: np.dtype, threads: int, training: bool) -> None:
    for i, (rows, columns) in enumerate(shapes(dtype)):
        x, dy, gamma, beta = problem(dtype, rows, columns)
        check_batch_norm(x, dy, gamma if i % 3 else None, beta if i % 2 else None, training)


def test_layer_norm_takes_any_leading_axes(dtype: np.dtype) -> None:
    x, dy, gamma, beta = problem(dtype, 24, 7)
    y, mean, inv_std = ops.layer_norm(x, gamma, beta)
    dx, dgamma, dbeta = ops.layer_norm_backward(dy, x, mean, inv_std, gamma)
    for shape in ((24,), (2, 12), (2, 3, 4)):
        got = ops.layer_norm(x.reshape(*shape, 7), gamma, beta)
        for mine, wanted in zip(got, (y.reshape(*shape, 7), mean.reshape(shape), inv_std.reshape(shape)), strict=True):
            assert_same_bits(mine, wanted)
        got = ops.layer_norm_backward(dy.reshape(*shape, 7), x.reshape(*shape, 7), *got[1:], gamma)
        for mine, wanted in zip(got, (dx.reshape(*shape, 7), dgamma, dbeta), strict=True):
            assert_same_bits(mine, wanted)
    row = ops.layer_norm(x[0], gamma, beta)
    assert (row[0].shape, row[1].shape) == ((7,), ())
    assert_same_bits(row[0], y[0])
    assert ops.layer_norm_backward(dy[0], x[0], *row[1:], gamma)[1].shape == (7,)


def objective(function: Callable[..., tuple[Array, ...]], dy: Array, *given: Any, **options: Any) -> float:
    return float((dy * function(*given, **options)[0]).sum())


@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (4, 1), (1, 6), (9, 17)], ids=str)
@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm in training", "batch_norm"])
def test_backward_is_the_derivative(kind: str, shape: tuple[int, int]) -> None:
    x, dy, gamma, beta = problem(np.dtype(np.float64), *shape)
    name = kind.split()[0]
    forward, backward = getattr(ops, name), getattr(ops, name + "_backward")
    options: dict[str, Any] = {} if name == "layer_norm" else {"training": kind != "batch_norm"}
    running = (np.full(shape[1], 0.5), np.full(shape[1], 1.5)) if kind == "batch_norm" else ()
    _, mean, inv_std = forward(x, gamma, beta, *running, **options)
    got = backward(dy, x, mean, inv_std, gamma, **options)
    wanted = (
        numerical_gradient(lambda v: objective(forward, dy, v, gamma, beta, *running, **options), x, 1e-5),
        numerical_gradient(lambda v: objective(forward, dy, x, v, beta, *running, **options), gamma, 1e-5),
        numerical_gradient(lambda v: objective(forward, dy, x, gamma, v, *running, **options), beta, 1e-5),
    )
    for mine, difference in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, difference, rtol=1e-6, atol=1e-7)


def test_no_variance_gives_beta(dtype: np.dtype) -> None:
    width = vector_width(dtype)
    for value, columns in product((0.0, 0.1, -1e4, 1e30), (1, width, 2 * width + 3)):
        x, beta = np.full((67, columns), value, dtype), np.linspace(-1, 1, columns).astype(dtype)
        gamma = np.full(columns, 3, dtype)
        dy = np.linspace(-1, 1, x.size).astype(dtype).reshape(x.shape)
        running = [np.zeros(columns, dtype), np.ones(columns, dtype)]
        for y, mean, inv_std in (ops.layer_norm(x, gamma, beta), ops.batch_norm(x, gamma, beta, *running, training=True)):
            assert_same_bits(y, np.broadcast_to(beta, x.shape))
            assert (mean == x.flat[0]).all()
            np.testing.assert_allclose(inv_std, 1 / math.sqrt(1e-5), rtol=2 * eps(dtype))
        np.testing.assert_allclose(running[1], 0.9, rtol=2 * eps(dtype))
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, x, mean, inv_std, gamma, training=True)
        exact = 3 / math.sqrt(1e-5) * (dy - dy.mean(axis=0, dtype=np.float64))
        np.testing.assert_allclose(dx, exact, atol=3 / math.sqrt(1e-5) * 4 * eps(dtype))
        assert not dgamma.any()
        np.testing.assert_allclose(dbeta, dy.sum(axis=0, dtype=np.float64), rtol=2 * eps(dtype), atol=67 * eps(dtype))


def test_a_batch_of_one_row(dtype: np.dtype) -> None:
    x, dy, gamma, beta = problem(dtype, 1, 37)
    running = [np.full(37, 2, dtype), np.full(37, 5, dtype)]
    y, mean, inv_std = ops.batch_norm(x, gamma, beta, *running, training=True)
    assert_same_bits(y, beta[None])
    assert_same_bits(mean, x[0])
    np.testing.assert_allclose(running[0], 0.9 * 2 + 0.1 * x[0], rtol=4 * eps(dtype))
    assert (running[1] == 5).all(), "there is nothing to estimate a variance from"
    dx, dgamma, dbeta = ops.batch_norm_backward(dy, x, mean, inv_std, gamma, training=True)
    assert not dx.any()
    assert not dgamma.any()
    assert_same_bits(dbeta, dy[0])


@pytest.mark.parametrize("mean", [1e4, -1e4, 1e6])
def test_a_mean_far_from_0_costs_no_digits(dtype: np.dtype, threads: int, mean: float, rng: np.random.Generator) -> None:
    """Of a spread of 1: in float32 the squares of x have no digit left for it, nor has the mean of 1e6 for a sixteenth."""
    x = (rng.standard_normal((300, 70)) + mean).astype(dtype)
    dy, gamma, beta = normal(rng, dtype, 300, 70), normal(rng, dtype, 70), normal(rng, dtype, 70)
    check_layer_norm(x, dy, gamma, beta)
    check_batch_norm(x, dy, gamma, beta, training=True)
    x64 = x.astype(np.float64)
    np.testing.assert_allclose(ops.batch_norm(x, training=True)[2], 1 / np.sqrt(x64.var(axis=0) + 1e-5), rtol=2 * eps(np.float32))
    np.testing.assert_allclose(ops.layer_norm(x)[2], 1 / np.sqrt(x64.var(axis=1) + 1e-5), rtol=2 * eps(np.float32))


def test_an_outlier_in_front_costs_no_digits(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, dy = normal(rng, dtype, 500, 40), normal(rng, dtype, 500, 40)
    x[0], x[:, 0] = 1e3, 1e3
    check_layer_norm(x, dy, None, None)
    check_batch_norm(x, dy, None, None, training=True)


def test_errors_do_not_grow_with_the_batch(threads: int, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((300_000, 3)) + 100).astype(np.float32)
    dy = rng.uniform(0, 1, x.shape).astype(np.float32)
    check_batch_norm(x, dy, None, None, training=True)
    check_layer_norm(np.ascontiguousarray(x.T), np.ascontiguousarray(dy.T), None, None)


def test_infinity_and_nan_stay_in_their_row_or_column(dtype: np.dtype) -> None:
    for bad, at in product((np.inf, -np.inf, np.nan), ((0, 0), (40, 21))):
        x, dy, gamma, beta = problem(dtype, 70, 37)
        rows, columns = np.arange(70) != at[0], np.arange(37) != at[1]
        clean, clean_columns = ops.layer_norm(x, gamma, beta), ops.batch_norm(x, gamma, beta, training=True)
        x[at] = bad
        with_rows, with_columns = ops.layer_norm(x, gamma, beta), ops.batch_norm(x, gamma, beta, training=True)
        exact = (*reference.layer_norm(x), *reference.batch_norm(x, training=True))
        for got, wanted in zip((*with_rows, *with_columns), exact, strict=True):
            np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
        assert np.isnan(with_rows[0][at[0]]).all()
        assert np.isnan(with_columns[0][:, at[1]]).all()
        for got, wanted in zip(with_rows, clean, strict=True):
            assert_same_bits(got[rows], wanted[rows])
        for got, wanted in zip(with_columns, clean_columns, strict=True):
            assert_same_bits(np.ascontiguousarray(got[..., columns]), np.ascontiguousarray(wanted[..., columns]))


def test_large_values() -> None:
    x = np.array([[1e18, -1e18], [-3e18, 3e18], [-3e17, 1e15]], np.float32)
    for got, exact in (
        (ops.batch_norm(x, training=True), reference.batch_norm(x.astype(np.float64), training=True)),
        (ops.layer_norm(x), reference.layer_norm(x.astype(np.float64))),
    ):
        np.testing.assert_allclose(got[1], exact[1], rtol=1e-6)
        np.testing.assert_allclose(got[2], exact[2], rtol=1e-6)
        np.testing.assert_allclose(got[0], exact[0], rtol=1e-5)


def test_a_column_and_a_row_have_the_same_bits_in_any_company(dtype: np.dtype) -> None:
    x, dy, gamma, beta = problem(dtype, 90, 101)
    columns = ops.batch_norm(x, gamma, beta, training=True)
    rows = ops.layer_norm(x, gamma, beta)
    for part in (slice(0, 1), slice(3, 40), slice(50, 101)):
        some = ops.batch_norm(x[:, part], gamma[part], beta[part], training=True)
        for mine, wanted in zip(some, columns, strict=True):
            assert_same_bits(mine, np.ascontiguousarray(wanted[..., part]))
    for part in (slice(0, 1), slice(3, 40), slice(50, 90)):
        for mine, wanted in zip(ops.layer_norm(x[part], gamma, beta), rows, strict=True):
            assert_same_bits(mine, wanted[part])


def test_many_steps_bring_running_statistics_to_those_of_the_data(dtype: np.dtype, rng: np.random.Generator) -> None:
    mean, std = np.array([5.0, -100.0, 0.0]), np.array([0.1, 10.0, 1.0])
    running = [np.zeros(3, dtype), np.ones(3, dtype)]
    for _ in range(300):
        ops.batch_norm(
            (mean + std * rng.standard_normal((64, 3))).astype(dtype), None, None, *running, training=True, momentum=0.05
        )
    np.testing.assert_allclose(running[0], mean, atol=0.1 * std.max())
    np.testing.assert_allclose(running[1], std**2, rtol=0.15)


# --- dropout -------------------------------------------------------------------------------------------------------------------


def words_by_hand(n: int, seed: int, counter: int) -> Array:
    """The 32 bits of each element, from the scalar Philox."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    blocks = [_core.philox4x32((block, 0, counter, 3), key) for block in range(16 * -(-n // 64))]
    return np.array([blocks[16 * (e // 64) + e % 16][e // 16 % 4] for e in range(n)], np.uint64)


@pytest.mark.parametrize(("seed", "counter"), [(0, 0), (1, 7), (2**64 - 1, 2**32 - 1), (0x243F6A8885A308D3, 0x13198A2E)])
def test_the_mask_is_philoxs(seed: int, counter: int) -> None:
    words = words_by_hand(1000, seed, counter)
    for rate in (0.1, 0.5, 0.9):
        mask = ops.dropout(np.ones(1000, np.float32), rate, seed=seed, counter=counter)[1]
        np.testing.assert_array_equal(mask, words >= round(rate * 2**32))


def test_blocks_beyond_32_bits_are_told_apart() -> None:
    """The reference's Philox, which numbers of so many elements are left to, against the scalar one."""
    from trainstep.reference.dropout import _philox

    blocks = np.array([2**32 - 1, 2**32, 2**40 + 5], np.uint64)
    words = np.stack(_philox(blocks, 9, 2**63 + 1), axis=1)
    for block, row in zip(blocks.tolist(), words.tolist(), strict=True):
        assert tuple(row) == _core.philox4x32((block & 0xFFFFFFFF, block >> 32, 9, 3), (1, 2**31))


def check_dropout(x: Array, rate: float, seed: int, counter: int) -> None:
    options: dict[str, Any] = {"seed": seed, "counter": counter}
    y, mask = ops.dropout(x, rate, **options)
    exact, exact_mask = reference.dropout(x.astype(np.float64), rate, **options)
    np.testing.assert_array_equal(mask, exact_mask)
    assert (y.dtype, mask.dtype) == (x.dtype, np.bool_)
    assert_within(y, exact, 2 * eps(x.dtype) * np.abs(exact), x.shape)
    for dx in (ops.dropout_backward(x, rate, mask), ops.dropout_backward(x, rate, **options)):
        assert_same_bits(dx, y)
    for exact_dx in (reference.dropout_backward(x, rate, mask), reference.dropout_backward(x, rate, **options)):
        assert_same_bits(exact_dx, np.asarray(exact, x.dtype))


def test_dropout_of_all_sizes(dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for n in (*straddling_sizes(dtype), 63, 64, 65, 129, 100_003):
        check_dropout(normal(rng, dtype, n), 0.3, seed=5, counter=n)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.8, 0.99])
def test_the_share_that_is_kept(rate: float) -> None:
    n = 400_000
    for seed in range(3):
        y, mask = ops.dropout(np.ones(n, np.float32), rate, seed=seed, counter=1)
        sigma = math.sqrt(n * rate * (1 - rate))
        assert abs(mask.sum() - n * (1 - rate)) < 4 * sigma
        # Of neighbours, and of elements in the same place of their blocks, too.
        for distance in (1, 16, 64):
            both = int((mask[distance:] & mask[:-distance]).sum())
            p = (1 - rate) ** 2
            assert abs(both - (n - distance) * p) < 6 * math.sqrt(n * p * (1 - p))
        np.testing.assert_allclose(y[mask], np.float32(1 / (1 - rate)))
        assert abs(y.mean(dtype=np.float64) - 1) < 4 * sigma / n / (1 - rate) + 1e-6


def test_masks_are_functions_of_seed_counter_and_element_alone(dtype: np.dtype) -> None:
    def mask(seed: int, counter: int, *shape: int) -> Array:
        return ops.dropout(np.ones(shape, dtype), 0.5, seed=seed, counter=counter)[1]

    base = mask(3, 4, 2000)
    assert_same_bits(mask(3, 4, 40, 50).ravel(), base)
    assert_same_bits(mask(3, 4, 777), base[:777])
    assert_same_bits(mask(3 + 2**64, 4, 2000), base)
    assert_same_bits(mask(-1, 4, 2000), mask(2**64 - 1, 4, 2000))
    for other in (mask(4, 4, 2000), mask(3, 5, 2000), mask(3 + 2**32, 4, 2000), mask(4, 3, 2000)):
        assert 800 < (other ^ base).sum() < 1200
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(ops.dropout(np.full(2000, np.nan, dtype), 0.5, seed=3, counter=4)[1], base)


def test_rates_at_the_ends(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = normal(rng, dtype, 1000)
    y, mask = ops.dropout(x, 0, seed=1, counter=0)
    assert_same_bits(y, x)
    assert mask.all()
    y, mask = ops.dropout(x, np.nextafter(1.0, 0.0), seed=1, counter=0)
    assert not mask.any()
    assert_same_bits(y, np.zeros_like(x))
    assert_same_bits(ops.dropout_backward(x, 0.0, mask), np.zeros_like(x))


def test_what_is_dropped_is_0_whatever_it_was(dtype: np.dtype) -> None:
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 1e30], dtype), 50)
    y, mask = ops.dropout(x, 0.5, seed=2, counter=0)
    assert_same_bits(y[~mask], np.zeros_like(y[~mask]))
    np.testing.assert_array_equal(y[mask], (x * dtype.type(2))[mask])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (3, 5), (2, 3, 4)], ids=str)
def test_dropout_takes_any_shape(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    x = np.ones(shape, dtype)
    y, mask = ops.dropout(x, 0.5, seed=1, counter=0)
    assert y.shape == mask.shape == shape
    assert_same_bits(ops.dropout_backward(x, 0.5, mask), y)
    assert_same_bits(reference.dropout(x, 0.5, seed=1, counter=0)[0], y)


# --- ewma ----------------------------------------------------------------------------------------------------------------------


def check_ewma(x: Array, beta: float, bias_correction: bool) -> None:
    v = ops.ewma(x, beta, bias_correction)
    assert v.dtype == x.dtype
    exact = reference.ewma(x.astype(np.float64), beta, bias_correction)
    terms = reference.ewma(np.abs(x).astype(np.float64), beta, bias_correction)
    assert_within(v, exact, of_a_sum(x.dtype, exact, terms), (x.shape, beta, bias_correction))


@pytest.mark.parametrize("bias_correction", [False, True])
def test_ewma_of_all_sizes(dtype: np.dtype, threads: int, bias_correction: bool, rng: np.random.Generator) -> None:
    width = vector_width(dtype)
    all_shapes = [(1,), (1000,), (20, 3, 5), (40, 5001), *product((1, 2, 7), (1, width - 1, width, width + 1, 4 * width + 3))]
    for shape, beta in product(all_shapes, (0.0, 0.5, 0.9, 0.999)):
        check_ewma(normal(rng, dtype, *shape) + 1, beta, bias_correction)


def test_ewma_by_hand(dtype: np.dtype) -> None:
    x = np.array([4, 4, 8], dtype)
    np.testing.assert_array_equal(ops.ewma(x, 0.5), [2, 3, 5.5])
    np.testing.assert_allclose(ops.ewma(x, 0.5, bias_correction=True), [4, 4, 5.5 / 0.875], rtol=eps(dtype))
    assert_same_bits(ops.ewma(x, 0), x)
    for shape in ((0,), (0, 3), (3, 0)):
        assert_same_bits(ops.ewma(np.empty(shape, dtype), 0.9), np.empty(shape, dtype))


def test_the_corrected_average_of_a_constant_is_the_constant(dtype: np.dtype) -> None:
    for beta in (0.0, 0.9, 0.999, 1 - 1e-9):
        x = np.full((2000, 3), 7.3, dtype)
        np.testing.assert_allclose(ops.ewma(x, beta, bias_correction=True), x, rtol=max(eps(dtype), 1e-13))
        uncorrected = ops.ewma(x, beta)[-1]
        np.testing.assert_allclose(uncorrected, -7.3 * np.expm1(2000 * np.log(beta)) if beta else 7.3, rtol=1e-6)


def test_ewma_keeps_its_digits_over_a_long_time() -> None:
    """In float32 the roundings of 1 / (1 - beta) steps would add up."""
    x = (np.random.default_rng(0).standard_normal(100_000) + 1000).astype(np.float32)
    check_ewma(x, 0.9999, False)


# --- all of them -----------------------------------------------------------------------------------------------------------------


def calls(dtype: np.dtype, rows: int = 700, columns: int = 517) -> dict[str, tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
    """Each function with arguments that fit it."""
    x, dy, gamma, beta = problem(dtype, rows, columns)
    layer, batch = ops.layer_norm(x), ops.batch_norm(x, training=True)
    running_var = np.abs(beta) + dtype.type(0.1)
    mask = np.random.default_rng(0).random((rows, columns)) < 0.7
    return {
        "layer_norm": (ops.layer_norm, [x, gamma, beta], {}),
        "layer_norm_backward": (ops.layer_norm_backward, [dy, x, *layer[1:], gamma], {}),
        "batch_norm": (ops.batch_norm, [x, gamma, beta, gamma.copy(), running_var], {}),
        "batch_norm in training": (ops.batch_norm, [x, gamma, beta], {"training": True}),
        "batch_norm_backward": (ops.batch_norm_backward, [dy, x, *batch[1:], gamma], {"training": True}),
        "batch_norm_backward, fixed statistics": (ops.batch_norm_backward, [dy, x, *batch[1:], gamma], {"training": False}),
        "dropout": (ops.dropout, [x, 0.4], {"seed": 1, "counter": 2}),
        "dropout_backward": (ops.dropout_backward, [dy, 0.4, mask], {}),
        "dropout_backward, drawn": (ops.dropout_backward, [dy, 0.4], {"seed": 1, "counter": 2}),
        "ewma": (ops.ewma, [x, 0.9], {}),
    }


NAMES = list(calls(np.dtype(np.float32), 2, 3))


def as_tuple(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_any_number_of_threads(dtype: np.dtype, name: str) -> None:
    for rows, columns in ((700, 517), (65, 2100)):
        function, arguments, options = calls(dtype, rows, columns)[name]
        with ts.num_threads(1):
            wanted = as_tuple(function(*arguments, **options))
        for n in (2, 3):
            with ts.num_threads(n):
                for mine, one in zip(as_tuple(function(*arguments, **options)), wanted, strict=True):
                    assert_same_bits(mine, one, (name, n))


def test_running_statistics_have_the_same_bits_on_any_number_of_threads(dtype: np.dtype) -> None:
    x = problem(dtype, 300, 1000)[0]
    results = []
    for n in (1, 2, 3):
        running = [np.zeros(1000, dtype), np.ones(1000, dtype)]
        with ts.num_threads(n):
            ops.batch_norm(x, None, None, *running, training=True)
        results.append(running)
    for other in results[1:]:
        for mine, one in zip(other, results[0], strict=True):
            assert_same_bits(mine, one)


@pytest.mark.parametrize("name", NAMES)
def test_results_go_where_they_are_asked_for(dtype: np.dtype, name: str) -> None:
    function, arguments, options = calls(dtype, 9, 37)[name]
    wanted = as_tuple(function(*arguments, **options))
    to = tuple(np.empty_like(a) for a in wanted)
    got = function(*arguments, **options, out=to if len(to) > 1 else to[0])
    for mine, given, one in zip(as_tuple(got), to, wanted, strict=True):
        assert mine is given
        assert_same_bits(mine, one)
    if len(to) > 1:  # some of them
        to[0][...] = 0
        some = function(*arguments, **options, out=(to[0], *[None] * (len(to) - 1)))
        assert some[0] is to[0]
        for mine, one in zip(some, wanted, strict=True):
            assert_same_bits(mine, one)


@pytest.mark.parametrize("name", ["dropout", "dropout_backward", "dropout_backward, drawn", "ewma"])
def test_elementwise_functions_may_write_over_their_input(dtype: np.dtype, name: str) -> None:
    function, (x, *others), options = calls(dtype, 9, 37)[name]
    wanted = as_tuple(function(x, *others, **options))
    got = as_tuple(function(x, *others, **options, out=(x, None) if name == "dropout" else x))
    assert got[0] is x
    for mine, one in zip(got, wanted, strict=True):
        assert_same_bits(mine, one)


# --- what is refused -------------------------------------------------------------------------------------------------------------

MASK = np.ones((4, 5), bool)
NUMBERS = [np.nan, -0.1, 1.0, np.inf]


def batch(s: Any, *given: Any, **options: Any) -> Any:
    return ops.batch_norm(s.y, *given, **{"training": True, **options})


LAYER_NORM: Table = {
    "x of rank 0": (lambda s: ops.layer_norm(np.array(1.0)), ValueError, "layer_norm: x () axis"),
    "x empty": (lambda s: ops.layer_norm(s.y[:0]), ValueError, "layer_norm: x (0, 5) extent of 0"),
    "x of ints": (lambda s: ops.layer_norm(s.labels), TypeError, "layer_norm: x int64"),
    "x is None": (lambda s: ops.layer_norm(None), TypeError, "layer_norm: x NoneType"),
    "x is masked": (lambda s: ops.layer_norm(masked(4, 5)), TypeError, "layer_norm: x MaskedArray"),
    "gamma of wrong length": (lambda s: ops.layer_norm(s.y, s.p), ValueError, "layer_norm: gamma (6,) (5,)"),
    "gamma of another dtype": (lambda s: ops.layer_norm(s.y, s.y64[0]), TypeError, "layer_norm: gamma float64 float32"),
    "beta of wrong rank": (lambda s: ops.layer_norm(s.y, s.b, s.y), ValueError, "layer_norm: beta (4, 5) (5,)"),
    "eps below 0": (lambda s: ops.layer_norm(s.y, eps=-1e-9), ValueError, "layer_norm: eps -1e-09 at least 0"),
    "eps is NaN": (lambda s: ops.layer_norm(s.y, eps=math.nan), ValueError, "layer_norm: eps nan"),
    "eps is infinite": (lambda s: ops.layer_norm(s.y, eps=math.inf), ValueError, "layer_norm: eps inf finite"),
    "eps is a string": (lambda s: ops.layer_norm(s.y, eps="x"), TypeError, "layer_norm: eps str number"),
    "out is an array": (lambda s: ops.layer_norm(s.y, out=s.out), TypeError, "layer_norm: out tuple (y, mean, inv_std)"),
    "out of two": (lambda s: ops.layer_norm(s.y, out=(s.out, None)), TypeError, "layer_norm: out tuple"),
    "y of wrong shape": (lambda s: ops.layer_norm(s.y, out=(s.x, None, None)), ValueError, "layer_norm: out[0] (y) (4, 3) (4, 5)"),
    "y is x": (lambda s: ops.layer_norm(s.y, out=(s.y, None, None)), ValueError, "layer_norm: out[0] (y) memory"),
    "y read-only": (lambda s: ops.layer_norm(s.y, out=(s.frozen, None, None)), ValueError, "layer_norm: out[0] (y) read-only"),
    "mean of wrong shape": (lambda s: ops.layer_norm(s.y, out=(None, s.b, None)), ValueError, "out[1] (mean) (5,) (4,)"),
    "mean in gamma": (lambda s: ops.layer_norm(s.y, s.b, out=(None, s.b[:4], None)), ValueError, "out[1] (mean) memory"),
    "inv_std in y": (lambda s: ops.layer_norm(s.y, out=(s.out, None, s.out[0, :4])), ValueError, "out[2] (inv_std) memory"),
}
LAYER_NORM_BACKWARD: Table = {
    "dy of wrong shape": (lambda s: ops.layer_norm_backward(s.x, s.y, s.b[:4], s.b[:4]), ValueError, "dy (4, 3) (4, 5)"),
    "x of another dtype": (lambda s: ops.layer_norm_backward(s.dy, s.y64, s.b[:4], s.b[:4]), TypeError, "x float64 float32"),
    "x empty": (lambda s: ops.layer_norm_backward(s.dy[:0], s.y[:0], s.b[:0], s.b[:0]), ValueError, "x (0, 5) extent of 0"),
    "mean of wrong shape": (lambda s: ops.layer_norm_backward(s.dy, s.y, s.b, s.b[:4]), ValueError, "mean (5,) (4,)"),
    "inv_std of wrong shape": (lambda s: ops.layer_norm_backward(s.dy, s.y, s.b[:4], s.b), ValueError, "inv_std (5,) (4,)"),
    "mean is None": (lambda s: ops.layer_norm_backward(s.dy, s.y, None, s.b[:4]), TypeError, "mean NoneType"),
    "gamma of wrong length": (lambda s: ops.layer_norm_backward(s.dy, s.y, s.b[:4], s.b[:4], s.p), ValueError, "gamma (6,) (5,)"),
    "dx is dy": (
        lambda s: ops.layer_norm_backward(s.dy, s.y, s.b[:4], s.b[:4], out=(s.dy, None, None)),
        ValueError,
        "out[0] (dx) memory",
    ),
    "dbeta is dgamma": (
        lambda s: ops.layer_norm_backward(s.dy, s.y, s.p[:4], s.p[:4], out=(None, s.b, s.b)),
        ValueError,
        "out[2] (dbeta) memory",
    ),
}
BATCH_NORM: Table = {
    "x of rank 1": (lambda s: ops.batch_norm(s.b, training=True), ValueError, "batch_norm: x (5,) (any, any)"),
    "x of rank 3": (lambda s: ops.batch_norm(of((2, 3, 4)), training=True), ValueError, "batch_norm: x (2, 3, 4)"),
    "x empty": (lambda s: ops.batch_norm(s.y[:0], training=True), ValueError, "batch_norm: x (0, 5) extent of 0"),
    "x of halves": (lambda s: ops.batch_norm(s.y.astype("f2"), training=True), TypeError, "batch_norm: x float16"),
    "gamma of wrong length": (lambda s: batch(s, s.p), ValueError, "batch_norm: gamma (6,) (5,)"),
    "beta of another dtype": (lambda s: batch(s, s.b, s.y64[0]), TypeError, "batch_norm: beta float64 float32"),
    "no running statistics": (lambda s: ops.batch_norm(s.y), ValueError, "batch_norm: running_mean None without training"),
    "no running variance": (lambda s: ops.batch_norm(s.y, None, None, s.b), ValueError, "batch_norm: running_var None"),
    "one of the two": (lambda s: batch(s, None, None, s.b), ValueError, "batch_norm: running_var None both"),
    "the other of the two": (lambda s: batch(s, None, None, None, s.b), ValueError, "batch_norm: running_mean None both"),
    "running mean of wrong length": (lambda s: batch(s, None, None, s.p, s.b), ValueError, "batch_norm: running_mean (6,) (5,)"),
    "running var of wrong length": (lambda s: batch(s, None, None, s.b, s.p), ValueError, "batch_norm: running_var (6,) (5,)"),
    "running mean read-only": (
        lambda s: batch(s, None, None, read_only(5), s.b),
        ValueError,
        "batch_norm: running_mean read-only",
    ),
    "running var of another dtype": (
        lambda s: batch(s, None, None, s.b, s.y64[0]),
        TypeError,
        "batch_norm: running_var float64 float32",
    ),
    "running var a list": (lambda s: batch(s, None, None, s.b, [1.0] * 5), TypeError, "batch_norm: running_var list"),
    "running var strided": (
        lambda s: batch(s, None, None, s.b, s.wide[0, ::2]),
        ValueError,
        "batch_norm: running_var C-contiguous",
    ),
    "running mean in x": (lambda s: batch(s, None, None, s.y[0], s.b), ValueError, "batch_norm: running_mean memory x"),
    "running var is gamma": (lambda s: batch(s, s.b, None, s.dy[0], s.b), ValueError, "batch_norm: running_var memory gamma"),
    "both in one": (lambda s: batch(s, None, None, s.b, s.b), ValueError, "batch_norm: running_var memory running_mean"),
    "y over running mean": (
        lambda s: batch(s, None, None, s.out[1], s.b, out=(s.out, None, None)),
        ValueError,
        "batch_norm: out[0] (y) memory",
    ),
    "momentum above 1": (lambda s: batch(s, momentum=1.1), ValueError, "batch_norm: momentum 1.1 0 <= momentum <= 1"),
    "momentum below 0": (lambda s: batch(s, momentum=-0.1), ValueError, "batch_norm: momentum -0.1"),
    "momentum is NaN": (lambda s: batch(s, momentum=math.nan), ValueError, "batch_norm: momentum nan"),
    "momentum is None": (lambda s: batch(s, momentum=None), TypeError, "batch_norm: momentum NoneType number"),
    "eps below 0": (lambda s: batch(s, eps=-1), ValueError, "batch_norm: eps -1"),
    "training is a number": (lambda s: batch(s, training=1), TypeError, "batch_norm: training int bool"),
    "inv_std of wrong shape": (lambda s: batch(s, out=(None, None, s.p)), ValueError, "batch_norm: out[2] (inv_std) (6,) (5,)"),
    "mean over inv_std": (lambda s: batch(s, out=(None, s.b, s.b)), ValueError, "batch_norm: out[2] (inv_std) memory"),
    "out is a list": (lambda s: batch(s, out=[None] * 3), TypeError, "batch_norm: out tuple (y, mean, inv_std)"),
}


def batch_backward(s: Any, *given: Any, **options: Any) -> Any:
    return ops.batch_norm_backward(*given, **{"training": True, **options})


BATCH_NORM_BACKWARD: Table = {
    "dy of wrong shape": (lambda s: batch_backward(s, s.x, s.y, s.b, s.b), ValueError, "batch_norm_backward: dy (4, 3) (4, 5)"),
    "x of rank 1": (lambda s: batch_backward(s, s.b, s.b, s.b, s.b), ValueError, "batch_norm_backward: x (5,)"),
    "mean of wrong length": (lambda s: batch_backward(s, s.dy, s.y, s.p, s.b), ValueError, "batch_norm_backward: mean (6,) (5,)"),
    "inv_std of another dtype": (lambda s: batch_backward(s, s.dy, s.y, s.b, s.y64[0]), TypeError, "inv_std float64 float32"),
    "gamma of wrong length": (lambda s: batch_backward(s, s.dy, s.y, s.b, s.b, s.p), ValueError, "gamma (6,) (5,)"),
    "training is missing": (lambda s: ops.batch_norm_backward(s.dy, s.y, s.b, s.b), TypeError, "training"),
    "training is a string": (lambda s: batch_backward(s, s.dy, s.y, s.b, s.b, training="no"), TypeError, "training str bool"),
    "dx is x": (lambda s: batch_backward(s, s.dy, s.y, s.b, s.b, out=(s.y, None, None)), ValueError, "out[0] (dx) memory"),
    "dgamma in dx": (
        lambda s: batch_backward(s, s.dy, s.y, s.b, s.b, out=(s.out, s.out[0], None)),
        ValueError,
        "out[1] (dgamma) memory",
    ),
}
DROPOUT: Table = {
    **{
        f"rate {rate}": (lambda s, r=rate: ops.dropout(s.y, r, seed=0, counter=0), ValueError, "dropout: rate 0 <= rate < 1")
        for rate in NUMBERS
    },
    "rate is a string": (lambda s: ops.dropout(s.y, "0.5", seed=0, counter=0), TypeError, "dropout: rate str number"),
    "rate is a bool": (lambda s: ops.dropout(s.y, True, seed=0, counter=0), TypeError, "dropout: rate bool number"),
    "seed is missing": (lambda s: ops.dropout(s.y, 0.5, counter=0), TypeError, "seed"),
    "seed is None": (lambda s: ops.dropout(s.y, 0.5, seed=None, counter=0), TypeError, "dropout: seed NoneType int"),
    "seed is a float": (lambda s: ops.dropout(s.y, 0.5, seed=1.0, counter=0), TypeError, "dropout: seed float int"),
    "counter below 0": (lambda s: ops.dropout(s.y, 0.5, seed=0, counter=-1), ValueError, "dropout: counter -1 0 4294967295"),
    "counter too large": (lambda s: ops.dropout(s.y, 0.5, seed=0, counter=2**32), ValueError, "dropout: counter 4294967296"),
    "x of ints": (lambda s: ops.dropout(s.labels, 0.5, seed=0, counter=0), TypeError, "dropout: x int64"),
    "mask of floats": (
        lambda s: ops.dropout(s.y, 0.5, seed=0, counter=0, out=(None, s.out)),
        TypeError,
        "dropout: out[1] (mask) float32 bool",
    ),
    "mask of wrong shape": (
        lambda s: ops.dropout(s.y, 0.5, seed=0, counter=0, out=(None, MASK[0])),
        ValueError,
        "dropout: out[1] (mask) (5,) (4, 5)",
    ),
    "mask in y": (
        lambda s: ops.dropout(s.y, 0.5, seed=0, counter=0, out=(s.out, s.out.view(bool)[:, :5].reshape(4, 5))),
        ValueError,
        "dropout: out[1] (mask)",
    ),
    "out is an array": (lambda s: ops.dropout(s.y, 0.5, seed=0, counter=0, out=s.out), TypeError, "dropout: out tuple (y, mask)"),
    "y meets x": (
        lambda s: ops.dropout(s.y[:3], 0.5, seed=0, counter=0, out=(s.y[1:], None)),
        ValueError,
        "dropout: out[0] (y) memory",
    ),
}
DROPOUT_BACKWARD: Table = {
    "nothing to draw from": (lambda s: ops.dropout_backward(s.dy, 0.5), ValueError, "dropout_backward: seed None mask"),
    "no counter": (lambda s: ops.dropout_backward(s.dy, 0.5, seed=1), ValueError, "dropout_backward: counter None mask"),
    "mask and seed": (lambda s: ops.dropout_backward(s.dy, 0.5, MASK, seed=1), ValueError, "dropout_backward: seed given mask"),
    "mask and counter": (lambda s: ops.dropout_backward(s.dy, 0.5, MASK, counter=1), ValueError, "dropout_backward: counter given"),
    "mask of floats": (lambda s: ops.dropout_backward(s.dy, 0.5, s.y), TypeError, "dropout_backward: mask float32 bool"),
    "mask of wrong shape": (
        lambda s: ops.dropout_backward(s.dy, 0.5, MASK[:2]),
        ValueError,
        "dropout_backward: mask (2, 5) (4, 5)",
    ),
    "rate of 1": (lambda s: ops.dropout_backward(s.dy, 1.0, MASK), ValueError, "dropout_backward: rate 1.0"),
    "counter is a float": (lambda s: ops.dropout_backward(s.dy, 0.5, seed=1, counter=1.5), TypeError, "counter float int"),
    "out of wrong shape": (lambda s: ops.dropout_backward(s.dy, 0.5, MASK, out=s.x), ValueError, "out (4, 3) (4, 5)"),
    "dy is None": (lambda s: ops.dropout_backward(None, 0.5, MASK), TypeError, "dropout_backward: dy NoneType"),
}
EWMA: Table = {
    **{f"beta {beta}": (lambda s, b=beta: ops.ewma(s.y, b), ValueError, "ewma: beta 0 <= beta < 1") for beta in NUMBERS},
    "beta is None": (lambda s: ops.ewma(s.y, None), TypeError, "ewma: beta NoneType number"),
    "x of rank 0": (lambda s: ops.ewma(np.array(1.0), 0.9), ValueError, "ewma: x () axis"),
    "x of ints": (lambda s: ops.ewma(s.labels, 0.9), TypeError, "ewma: x int64"),
    "bias_correction is a number": (lambda s: ops.ewma(s.y, 0.9, 1), TypeError, "ewma: bias_correction int bool"),
    "out of wrong shape": (lambda s: ops.ewma(s.y, 0.9, out=s.x), ValueError, "ewma: out (4, 3) (4, 5)"),
    "out meets x": (lambda s: ops.ewma(s.y[:3], 0.9, out=s.y[1:]), ValueError, "ewma: out memory"),
    "out strided": (lambda s: ops.ewma(s.y, 0.9, out=s.wide[:, ::2]), ValueError, "ewma: out C-contiguous"),
}
REFUSED = {
    f"{function}: {name}": row
    for function, rows in (
        ("layer_norm", LAYER_NORM),
        ("layer_norm_backward", LAYER_NORM_BACKWARD),
        ("batch_norm", BATCH_NORM),
        ("batch_norm_backward", BATCH_NORM_BACKWARD),
        ("dropout", DROPOUT),
        ("dropout_backward", DROPOUT_BACKWARD),
        ("ewma", EWMA),
    )
    for name, row in rows.items()
}


@pytest.mark.one_level
@table(REFUSED)
def test_what_is_refused(call: Callable[..., Any], exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@pytest.mark.one_level
def test_what_the_reference_refuses() -> None:
    x, b, mask = np.ones((4, 5)), np.ones(5), np.ones((4, 5), bool)
    with pytest.raises(ValueError, match=r"layer_norm: gamma has shape \(4,\), wanted \(5,\)"):
        reference.layer_norm(x, b[:4])
    with pytest.raises(ValueError, match=r"layer_norm: x has shape \(0, 5\)"):
        reference.layer_norm(x[:0])
    with pytest.raises(ValueError, match="layer_norm: eps is -1"):
        reference.layer_norm(x, eps=-1)
    with pytest.raises(TypeError, match=r"layer_norm: out must be a tuple \(y, mean, inv_std\)"):
        reference.layer_norm(x, out=x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layer_norm_backward: mean has shape \(5,\), wanted \(4,\)"):
        reference.layer_norm_backward(x, x, b, b)
    with pytest.raises(ValueError, match="batch_norm: running_mean is None, wanted an array"):
        reference.batch_norm(x)
    with pytest.raises(ValueError, match="batch_norm: running_var is None, wanted both or none"):
        reference.batch_norm(x, None, None, b, training=True)
    with pytest.raises(ValueError, match="batch_norm: running_mean is read-only"):
        reference.batch_norm(x, None, None, np.broadcast_to(1.0, 5), b, training=True)
    with pytest.raises(ValueError, match="batch_norm: momentum is 2"):
        reference.batch_norm(x, training=True, momentum=2)
    with pytest.raises(ValueError, match=r"batch_norm_backward: out\[1\] \(dgamma\) has shape \(4, 5\), wanted \(5,\)"):
        reference.batch_norm_backward(x, x, b, b, training=True, out=(None, x, None))
    with pytest.raises(ValueError, match="dropout: rate is 1.0, wanted 0 <= rate < 1"):
        reference.dropout(x, 1.0, seed=0, counter=0)
    with pytest.raises(TypeError, match=r"dropout: out\[1\] \(mask\) is no array of bools"):
        reference.dropout(x, 0.5, seed=0, counter=0, out=(None, x))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dropout_backward: mask has shape \(2, 5\), wanted \(4, 5\)"):
        reference.dropout_backward(x, 0.5, mask[:2])
    with pytest.raises(ValueError, match="dropout_backward: seed is given, expected None beside a mask"):
        reference.dropout_backward(x, 0.5, mask, seed=1)
    with pytest.raises(ValueError, match="ewma: beta is 1.0, wanted 0 <= beta < 1"):
        reference.ewma(x, 1.0)


# --- PyTorch -------------------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs(dtype: np.dtype, training: bool, affine: bool) -> None:
    torch = pytest.importorskip("torch")
    for rows, columns in ((2, 3), (64, 33), (300, 100)):
        x, dy, gamma, beta = problem(dtype, rows, columns)
        running = [np.zeros(columns, dtype), np.ones(columns, dtype)]
        theirs = [torch.from_numpy(a.copy()) for a in running]
        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *((gamma, beta) if affine else ()))]
        for _ in range(3):
            wanted = torch.nn.functional.batch_norm(leaves[0], *theirs, *leaves[1:], training=training, momentum=0.2, eps=1e-3)
            given = (gamma, beta) if affine else (None, None)
            y, mean, inv_std = ops.batch_norm(x, *given, *running, training=training, momentum=0.2, eps=1e-3)
        wanted.backward(torch.from_numpy(dy))
        got = ops.batch_norm_backward(dy, x, mean, inv_std, given[0], training=training)
        of_torch = [wanted.detach(), *theirs, *(leaf.grad for leaf in leaves)]
        compare_with_torch((y, *running, *got[: len(leaves)]), of_torch, dtype, (rows, columns))


@pytest.mark.peers
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_is_torchs(dtype: np.dtype, affine: bool) -> None:
    torch = pytest.importorskip("torch")
    for rows, columns in ((1, 5), (64, 33), (300, 100)):
        x, dy, gamma, beta = problem(dtype, rows, columns)
        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *((gamma, beta) if affine else ()))]
        wanted = torch.nn.functional.layer_norm(leaves[0], (columns,), *leaves[1:], eps=1e-3)
        wanted.backward(torch.from_numpy(dy))
        given = (gamma, beta) if affine else (None, None)
        y, mean, inv_std = ops.layer_norm(x, *given, eps=1e-3)
        got = ops.layer_norm_backward(dy, x, mean, inv_std, given[0])
        compare_with_torch((y, *got[: len(leaves)]), [wanted.detach(), *(leaf.grad for leaf in leaves)], dtype, (rows, columns))


@pytest.mark.peers
def test_dropout_backward_is_torchs(dtype: np.dtype) -> None:
    torch = pytest.importorskip("torch")
    dy = problem(dtype, 40, 33)[1]
    mask = ops.dropout(dy, 0.3, seed=0, counter=0)[1]
    wanted = torch.ops.aten.native_dropout_backward(torch.from_numpy(dy), torch.from_numpy(mask), 1 / 0.7)
    compare_with_torch((ops.dropout_backward(dy, 0.3, mask),), [wanted], dtype, "dropout")


def compare_with_torch(got: tuple[Array, ...], wanted: list[Any], dtype: np.dtype, what: object) -> None:
    """At rtol 1e-5 in float32, where torch's own sums and its mean of x are rounded to float32, and 1e-9 in float64."""
    rtol, floor = (1e-5, 1e-6) if dtype == np.float32 else (1e-9, 1e-10)
    for mine, theirs in zip(got, wanted, strict=True):
        exact = theirs.numpy()
        assert mine.dtype == exact.dtype
        np.testing.assert_allclose(mine, exact, rtol=rtol, atol=floor * max(1.0, float(np.abs(exact).max())), err_msg=str(what))
