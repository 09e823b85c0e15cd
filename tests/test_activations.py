"""Every activation against the reference, against finite differences, at its limits, and as the epilogue of a dense layer."""

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
    BY_ROWS,
    OF_INPUT,
    PARAMETERS,
    away_from_ends,
    backward_bound,
    dense_derivative_from,
    derivative_from,
    exact_backward,
    exact_forward,
    forward_bound,
    functions,
)
from .conftest import straddling_sizes
from .helpers import Array, assert_same_bits, assert_within, normal, numerical_gradient

INF, NAN = np.inf, np.nan
# The paths that a product takes: one row, one column, few columns, tiles, packed blocks.
DENSE_SHAPES = [(1, 30, 40), (33, 20, 1), (17, 20, 10), (64, 64, 64), (130, 90, 70), (3, 257, 300)]


def shapes(name: str, dtype: Any) -> Iterator[tuple[int, ...]]:
    if name in BY_ROWS:
        yield from product((1, 3), sorted({*range(1, 71), *straddling_sizes(dtype)} - {0}))
        yield from ((0, 5), (500, 10), (65, 129))
    else:
        yield from ((n,) for n in sorted({*range(71), *straddling_sizes(dtype)}))


def special_values(name: str, dtype: Any) -> Array:
    """The values that have rules; of a function over rows each beside a 0."""
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny, 1e-20, 1e-4, 0.3, 1.0, 3.0, 5.0, 9.0, 20.0, 87.0, 100.0, 709.0, 1e4, 1e30]
    x = np.array([*positive, info.max, INF, *(-v for v in positive), -info.max, -INF, NAN], dtype)
    return np.stack([x, np.zeros_like(x)], axis=1) if name in BY_ROWS else x


def check_forward(name: str, x: Array, parameter: float | None = None, **options: float) -> Array:
    y = _core.activation(name, x, None, parameter) if parameter is not None else functions(name)[0](x)
    exact = exact_forward(name, x, **options)
    assert y.dtype == x.dtype
    assert_within(y, exact, forward_bound(name, x, exact, x.dtype), (name, x.shape, options))
    return y


def check_backward(name: str, dy: Array, source: Array, parameter: float | None = None, **options: float) -> Array:
    dx = _core.activation_backward(name, dy, source, None, parameter) if parameter is not None else functions(name)[1](dy, source)
    exact = exact_backward(name, dy, source, **options)
    assert dx.dtype == dy.dtype
    assert_within(dx, exact, backward_bound(name, dy, source, exact, dy.dtype), (name, "backward", dy.shape, options))
    return dx


# --- values -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_all_sizes(dtype: np.dtype, threads: int, name: str, rng: np.random.Generator) -> None:
    for shape in shapes(name, dtype):
        x, dy = normal(rng, dtype, *shape) * dtype.type(4), normal(rng, dtype, *shape)
        y = check_forward(name, x)
        check_backward(name, dy, derivative_from(name, x, y))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_as_near_as_pytorch_users_expect(dtype: np.dtype, name: str, rng: np.random.Generator) -> None:
    """To 1e-5 and 1e-9 of the value, with a floor of 1e-6 and 1e-15."""
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-15}
    x, dy = rng.uniform(-30, 30, (500, 10)).astype(dtype), normal(rng, dtype, 500, 10)
    forward, backward = functions(name)
    y = forward(x)
    source = derivative_from(name, x, y)
    np.testing.assert_allclose(y, exact_forward(name, x), **tolerance)
    np.testing.assert_allclose(backward(dy, source), exact_backward(name, dy, source), **tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bits_do_not_depend_on_threads(dtype: np.dtype, name: str, rng: np.random.Generator) -> None:
    shapes_ = [(70_001, 10), (3, 200_003)] if name in BY_ROWS else [(600_011,)]
    forward, backward = functions(name)
    for shape in shapes_:
        x, dy = 3 * normal(rng, dtype, *shape), normal(rng, dtype, *shape)
        with ts.num_threads(1):
            y = forward(x)
            source = derivative_from(name, x, y)
            dx = backward(dy, source)
        for n in (2, 3):
            with ts.num_threads(n):
                assert_same_bits(forward(x), y, (name, shape, n))
                assert_same_bits(backward(dy, source), dx, (name, shape, n))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_is_the_derivative(name: str, rng: np.random.Generator) -> None:
    x, dy = away_from_ends(rng.uniform(-5, 5, (6, 7))), rng.standard_normal((6, 7))
    forward, backward = functions(name)
    expected = numerical_gradient(lambda z: float((dy * forward(z)).sum()), x)
    np.testing.assert_allclose(backward(dy, derivative_from(name, x, forward(x))), expected, rtol=1e-7, atol=2e-8)


# --- limits -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_values(dtype: np.dtype, name: str) -> None:
    x = special_values(name, dtype)
    y = check_forward(name, x)
    # What is infinite times a derivative that only one of the two dtypes tells from 0 says nothing.
    for value in (1.0, -0.0, NAN) if name in (*OF_INPUT, "selu") else (1.0, -0.0, INF, NAN):
        check_backward(name, np.full_like(x, value), derivative_from(name, x, y))


# name: f(-inf), f(inf), and the derivatives there
LIMITS = {
    "identity": (-INF, INF, 1, 1),
    "relu": (0, INF, 0, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "leaky_relu": (-INF, INF, 0.01, 1),
    "elu": (-1, INF, 0, 1),
    "softplus": (0, INF, 0, 1),
    "hardtanh": (-1, 1, 0, 0),
    "hardsigmoid": (0, 1, 0, 0),
    **dict.fromkeys(("gelu", "gelu_tanh", "silu", "hardswish", "mish"), (0, INF, 0, 1)),
    "selu": (-1.7580993408473766, INF, 0, 1.0507009873554805),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 40])
def test_limits(dtype: np.dtype, name: str, n: int) -> None:
    """At infinity, and where the dtype ends: in a vector and behind the last."""
    if name in BY_ROWS:
        assert name not in LIMITS
        return
    forward, backward = functions(name)
    low, high, low_slope, high_slope = (float(dtype.type(v)) for v in LIMITS[name])
    one = np.ones(n, dtype)
    near = {"rtol": 4 * np.finfo(dtype).eps, "atol": 4 * np.finfo(dtype).eps}
    for x, y, slope in ((-INF, low, low_slope), (INF, high, high_slope), (-1e4, None, low_slope), (1e4, None, high_slope)):
        xs = np.full(n, x, dtype)
        ys = forward(xs)
        np.testing.assert_allclose(ys, exact_forward(name, xs) if y is None else y, **near)
        np.testing.assert_allclose(backward(one, derivative_from(name, xs, ys)), slope, **near)
    assert np.isnan(forward(np.full(n, NAN, dtype))).all()


def test_softmax_of_extreme_rows(dtype: np.dtype) -> None:
    for columns in (3, 40):
        x = np.full((5, columns), -1e4, dtype)
        x[0, 1] = 1e4
        x[1] = 1e4
        x[2, :2] = NAN, 1
        x[3, 0] = INF
        x[4, 0] = -INF
        y, log_y = ops.softmax(x), ops.log_softmax(x)
        one_hot = np.arange(columns) == 1
        np.testing.assert_array_equal(y[0], one_hot)
        np.testing.assert_array_equal(log_y[0], np.where(one_hot, 0, -2e4))
        np.testing.assert_allclose(y[1], 1 / columns, rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(log_y[1], -np.log(columns), rtol=4 * np.finfo(dtype).eps)
        assert np.isnan(y[2:4]).all()
        assert np.isnan(log_y[2:4]).all()
        assert y[4, 0] == 0
        assert log_y[4, 0] == -INF
        np.testing.assert_allclose(y[4, 1:], 1 / (columns - 1), rtol=4 * np.finfo(dtype).eps)
        # dx of a row whose winner has it all is 0, and each row of dx sums to 0.
        dy = np.tile(np.arange(columns, dtype=dtype), (5, 1))
        np.testing.assert_array_equal(ops.softmax_backward(dy, y)[0], 0)
        dx = ops.log_softmax_backward(dy, log_y)
        np.testing.assert_allclose(dx[[0, 1, 4]].sum(axis=1), 0, atol=1e-3)


def test_softmax_sums_to_one(dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for columns in straddling_sizes(dtype)[1:]:
        y = ops.softmax(20 * normal(rng, dtype, 3, columns))
        np.testing.assert_allclose(y.astype(np.float64).sum(axis=1), 1, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", BY_ROWS)
def test_a_row_depends_on_itself_alone(dtype: np.dtype, threads: int, name: str, rng: np.random.Generator) -> None:
    for rows, columns in ((9, 1), (40, 3), (7, 17), (300, 67), (5, 3000)):
        x, dy = normal(rng, dtype, rows, columns), normal(rng, dtype, rows, columns)
        forward, backward = functions(name)
        y = forward(x)
        dx = backward(dy, y)
        for part in (slice(0, 1), slice(rows - 1, rows), slice(2, 5)):
            assert_same_bits(forward(x[part]), y[part], (rows, columns, part))
            assert_same_bits(backward(dy[part], y[part]), dx[part], (rows, columns, part))
        bad = x.copy()
        bad[rows // 2, 0] = NAN
        others = np.arange(rows) != rows // 2
        assert np.isnan(forward(bad)[rows // 2]).all()
        assert_same_bits(forward(bad)[others], y[others])


def test_activations_that_only_choose_are_exact(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = np.concatenate([special_values("relu", dtype), normal(rng, dtype, 1000)])
    assert_same_bits(ops.identity(x), x)
    np.testing.assert_array_equal(ops.relu(x), reference.relu(x))
    np.testing.assert_array_equal(ops.hardtanh(x), reference.hardtanh(x))
    assert not np.shares_memory(ops.identity(x), x)


# --- arguments --------------------------------------------------------------------------------------------------------------------


def test_the_core_and_the_reference_know_the_same() -> None:
    assert tuple(reference.ACTIVATIONS) == ACTIVATIONS
    assert set(LIMITS) | set(BY_ROWS) == set(ACTIVATIONS)
    assert set(OF_INPUT) | set(BY_ROWS) | set(PARAMETERS) <= set(ACTIVATIONS)
    for name in ACTIVATIONS:
        parameters = inspect.signature(reference.ACTIVATIONS[name][1]).parameters
        assert list(parameters)[:2] == ["dy", "x" if name in OF_INPUT else "y"]
        options = {p.name: p.default for p in parameters.values() if p.name not in ("dy", "x", "y", "out", "approximate")}
        assert options == (dict([PARAMETERS[name]]) if name in PARAMETERS else {})


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (3, 5), (2, 3, 4, 5)], ids=str)
def test_any_shape(dtype: np.dtype, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = np.asarray(rng.standard_normal(shape), dtype)
    if name in BY_ROWS and not shape:
        pytest.skip("no row")
    forward, backward = functions(name)
    y = check_forward(name, x)
    dx = check_backward(name, x, derivative_from(name, x, y))
    assert y.shape == dx.shape == shape
    flat = x.reshape(-1, shape[-1]) if name in BY_ROWS and x.size else x.ravel()
    assert_same_bits(y.ravel(), forward(flat).ravel())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_may_write_over_its_input(dtype: np.dtype, name: str, rng: np.random.Generator) -> None:
    x, dy = normal(rng, dtype, 5, 7), normal(rng, dtype, 5, 7)
    forward, backward = functions(name)
    y = forward(x)
    out = np.empty_like(x)
    assert forward(x, out=out) is out
    assert_same_bits(out, y)
    source = derivative_from(name, x, y).copy()
    dx = backward(dy, source)
    assert backward(dy, source, out=out) is out
    assert_same_bits(out, dx)
    assert forward(x, out=x) is x
    assert_same_bits(x, y)
    over_source = source.copy()
    assert backward(dy, over_source, out=over_source) is over_source
    assert_same_bits(over_source, dx)
    assert backward(dy, source, out=dy) is dy
    assert_same_bits(dy, dx)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, 3.5])
def test_parameters(dtype: np.dtype, threads: int, name: str, value: float, rng: np.random.Generator) -> None:
    argument, default = PARAMETERS[name]
    forward, backward = functions(name)
    for n in (1, 33, 20_487):
        x, dy = normal(rng, dtype, n), normal(rng, dtype, n)
        y = check_forward(name, x, value, **{argument: value})
        dx = check_backward(name, dy, y, value, **{argument: value})
        assert_same_bits(forward(x, value), y)
        assert_same_bits(forward(x, **{argument: np.float32(value)}), forward(x, float(np.float32(value))))
        assert_same_bits(backward(dy, y, value), dx)
        assert_same_bits(forward(x), forward(x, default))
        assert_same_bits(backward(dy, y), backward(dy, y, default))


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [0.3, 2.0])
def test_backward_with_a_parameter_is_the_derivative(name: str, value: float, rng: np.random.Generator) -> None:
    x, dy = away_from_ends(rng.uniform(-5, 5, 30)), rng.standard_normal(30)
    forward, backward = functions(name)
    expected = numerical_gradient(lambda z: float(dy @ forward(z, value)), x)
    np.testing.assert_allclose(backward(dy, forward(x, value), value), expected, rtol=1e-7, atol=2e-8)


def test_forms_of_gelu(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, dy = normal(rng, dtype, 100), normal(rng, dtype, 100)
    for form, name in (("none", "gelu"), ("tanh", "gelu_tanh")):
        assert_same_bits(ops.gelu(x, form), _core.activation(name, x))
        assert_same_bits(ops.gelu_backward(dy, x, form), _core.activation_backward(name, dy, x))
    assert (ops.gelu(x) != ops.gelu(x, "tanh")).any()


# --- of a dense layer -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_applies_it(dtype: np.dtype, name: str, rng: np.random.Generator) -> None:
    """The bits of the layer without it, and then of the function alone."""
    for shape in DENSE_SHAPES:
        m, k, n = shape
        x, w, b = normal(rng, dtype, m, k), normal(rng, dtype, k, n) / dtype.type(np.sqrt(k)), normal(rng, dtype, n)
        dy = normal(rng, dtype, m, n)
        forward, backward = functions(name)
        for bias in (b, None):
            assert_same_bits(ops.dense(x, w, bias, name), forward(ops.dense(x, w, bias)), shape)
        source = dense_derivative_from(x, w, b, name)
        dz = backward(dy, source)
        for threads in (1, 2, 3):
            with ts.num_threads(threads):
                assert_same_bits(ops.dense(x, w, b, name), forward(ops.dense(x, w, b)), (shape, threads))
                for got, wanted in zip(ops.dense_backward(dy, x, w, source, name), ops.dense_backward(dz, x, w), strict=True):
                    assert_same_bits(got, wanted, (shape, threads))
