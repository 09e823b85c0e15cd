"""The reference against facts that do not come from it: finite differences, values worked out by hand, identities."""

import inspect
import math
import warnings
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainstep import reference

from .helpers import numerical_gradient

pytestmark = pytest.mark.one_level

Float64 = npt.NDArray[np.float64]
INF, NAN = math.inf, math.nan
NAMES = sorted(reference.ACTIVATIONS)
ENDS = (-3, -1, 0, 1, 3)  # where straight pieces end


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Activations


def source_of(name: str, x: Float64) -> Float64:
    """What the backward function takes beside dy: x or y, as it calls it."""
    forward, backward = reference.ACTIVATIONS[name]
    return x if "x" in inspect.signature(backward).parameters else forward(x)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50)
@given(x=st.lists(st.floats(-5, 5).filter(lambda v: min(abs(v - end) for end in ENDS) > 1e-3), min_size=1, max_size=5))
def test_activation_backward_is_the_derivative(name: str, x: list[float]) -> None:
    forward, backward = reference.ACTIVATIONS[name]
    x64 = np.array(x)
    dy = np.linspace(0.5, 2.0, len(x))
    expected = numerical_gradient(lambda z: float(dy @ forward(z)), x64)
    np.testing.assert_allclose(backward(dy, source_of(name, x64)), expected, rtol=1e-6, atol=1e-8)


def test_activation_values_by_hand() -> None:
    x = np.array([-2.0, 0.0, math.log(3.0)])
    np.testing.assert_array_equal(reference.identity(x), x)
    np.testing.assert_array_equal(reference.relu(x), [0.0, 0.0, math.log(3.0)])
    np.testing.assert_allclose(reference.sigmoid(x), [1 / (1 + math.exp(2.0)), 0.5, 0.75], rtol=1e-15)
    np.testing.assert_allclose(reference.tanh(x), [math.tanh(-2.0), 0.0, 0.8], rtol=1e-15)  # (3 - 1/3) / (3 + 1/3)


@given(x=st.floats(-700, 700))
def test_sigmoid_identities(x: float) -> None:
    plus, minus = reference.sigmoid([x, -x])
    assert plus + minus == pytest.approx(1.0, rel=1e-15)
    assert minus == pytest.approx(plus * math.exp(-x), rel=1e-13)
    assert reference.tanh([x / 2])[0] == pytest.approx(2 * plus - 1, rel=1e-13, abs=1e-15)


def test_extreme_inputs_give_limits_without_warnings() -> None:
    x = np.array([-INF, -1e300, -800.0, -0.0, 800.0, 1e300, INF, NAN])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(reference.sigmoid(x), [0, 0, math.exp(-800.0), 0.5, 1, 1, 1, NAN])
        np.testing.assert_array_equal(reference.tanh(x), [-1, -1, -1, 0, 1, 1, 1, NAN])
        np.testing.assert_array_equal(reference.relu(x), [0, 0, 0, 0, 800, 1e300, INF, NAN])
        np.testing.assert_array_equal(reference.identity(x), x)
        np.testing.assert_array_equal(reference.softplus(x), [0, 0, 0, math.log(2.0), 800, 1e300, INF, NAN])
        for name in ("gelu", "gelu_tanh", "silu", "hardswish", "mish"):
            forward, backward = reference.ACTIVATIONS[name]
            np.testing.assert_array_equal(forward(x), [0, 0, 0, 0, 800, 1e300, INF, NAN], name)
            np.testing.assert_allclose(backward(np.ones(8), x), [0, 0, 0, 0.6 if name == "mish" else 0.5, 1, 1, 1, NAN], 1e-15)
        for name in NAMES:
            assert np.isnan(reference.ACTIVATIONS[name][1]([NAN], [0.5]))[0]


def test_saturated_tanh_keeps_its_small_derivative() -> None:
    y = np.nextafter(1.0, 0.0)
    # 1 - y^2 = (1 - y)(1 + y), and here 1 - y is 2^-53 exactly.
    np.testing.assert_allclose(reference.tanh_backward([1.0, 1.0], [y, -y]), 2.0**-52, rtol=1e-15)


def test_relu_backward_at_zero_and_nan() -> None:
    dy = np.array([1.0, INF, 2.0, 3.0])
    np.testing.assert_array_equal(reference.relu_backward(dy, [0.0, -0.0, NAN, 1.0]), [0.0, 0.0, 2.0, 3.0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_result_keeps_dtype_and_shape(name: str, shape: tuple[int, ...]) -> None:
    forward, backward = reference.ACTIVATIONS[name]
    if name.endswith("softmax") and not shape:
        with pytest.raises(ValueError, match=rf"^{name}: x has shape \(\), wanted at least one axis"):
            forward(1.0)
        with pytest.raises(ValueError, match=rf"^{name}_backward: dy has shape \(\), wanted at least one axis"):
            backward(1.0, 1.0)
        return
    x = rng().normal(size=shape)
    y32 = forward(np.float32(x))
    assert y32.dtype == np.float32
    assert y32.shape == shape
    # Computed in float64, rounded once.
    np.testing.assert_array_equal(y32, forward(np.float32(x).astype(np.float64)).astype(np.float32))
    dx = backward(np.ones_like(y32), y32)
    assert dx.dtype == np.float32
    assert dx.shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_out_is_written_and_returned(name: str) -> None:
    forward, backward = reference.ACTIVATIONS[name]
    x = rng().normal(size=(3, 4))
    expected = forward(x)
    out = np.empty_like(x)
    assert forward(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    expected_dx = backward(x, expected)
    assert backward(x, expected, out=x) is x  # out may be an input
    np.testing.assert_array_equal(x, expected_dx)


def test_more_activation_values_by_hand() -> None:
    x, third = np.array([-2.0, -0.5, 0.0, math.log(3.0)]), math.log(1 / 3)
    np.testing.assert_array_equal(reference.leaky_relu(x, 0.25), [-0.5, -0.125, 0.0, math.log(3.0)])
    np.testing.assert_allclose(reference.elu([third, 2.0], 3.0), [-2.0, 2.0], rtol=1e-15)
    np.testing.assert_allclose(reference.elu_backward([1.0, 1.0], [-2.0, 2.0], 3.0), [1.0, 1.0], rtol=1e-15)
    np.testing.assert_allclose(reference.softplus([0.0, math.log(3.0)]), [math.log(2.0), math.log(4.0)], rtol=1e-15)
    np.testing.assert_array_equal(reference.hardtanh(x), [-1.0, -0.5, 0.0, 1.0])
    np.testing.assert_array_equal(reference.hardsigmoid([-3.0, -1.5, 0.0, 3.0]), [0.0, 0.25, 0.5, 1.0])
    np.testing.assert_array_equal(reference.hardswish([-3.0, -1.5, 0.0, 3.0]), [0.0, -0.375, 0.0, 3.0])
    np.testing.assert_allclose(reference.silu(x)[3], 0.75 * math.log(3.0), rtol=1e-15)
    np.testing.assert_allclose(reference.mish(x)[3], 15 / 17 * math.log(3.0), rtol=1e-15)  # tanh(ln 4) = (4 - 1/4) / (4 + 1/4)
    np.testing.assert_allclose(reference.gelu(x)[0], -2 * 0.022750131948179207, rtol=1e-14)
    np.testing.assert_allclose(reference.softmax([0.0, math.log(3.0)]), [0.25, 0.75], rtol=1e-15)
    np.testing.assert_allclose(reference.log_softmax([0.0, math.log(3.0)]), [math.log(0.25), math.log(0.75)], rtol=1e-14)
    # The forms of gelu are told to differ by less than this.
    grid = np.linspace(-6, 6, 1201)
    assert 1e-5 < np.abs(reference.gelu(grid) - reference.gelu(grid, "tanh")).max() < 5e-4


def test_selu_keeps_a_standard_normal() -> None:
    # What its two constants are for: mean 0, variance 1, by integrals over a grid.
    x = np.linspace(-12, 12, 240_001)
    weight = np.exp(-x * x / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    y = reference.selu(x)
    assert (y * weight).sum() == pytest.approx(0.0, abs=1e-8)
    assert (y * y * weight).sum() == pytest.approx(1.0, rel=1e-8)


def gelu_in_decimals(x: float) -> Decimal:
    """x * Phi(x) for x < -1: phi(x) * x over the continued fraction of Abramowitz & Stegun 26.2.14."""
    with localcontext() as context:
        context.prec = 60
        t = fraction = -Decimal(x)
        for k in range(3000, 0, -1):
            fraction = t + k / fraction
        root = (2 * Decimal("3.14159265358979323846264338327950288419716939937510582097494459")).sqrt()
        return -t * (-t * t / 2).exp() / root / fraction


def test_tails_keep_their_digits() -> None:
    def tolerance(x: float) -> float:
        # Where long double is only a double, what is lost of x^2 is not put back.
        return 2e-15 if np.finfo(np.longdouble).eps < 1e-18 else 2e-16 * (8 + x * x)

    for x in (-1.5, -3.0, -7.3, -12.25, -20.1, -30.0, -36.9):
        exact = float(gelu_in_decimals(x))
        assert reference.gelu([x])[0] == pytest.approx(exact, rel=tolerance(x)), x
        # Its derivative is Phi(x) + x phi(x).
        phi = float(np.exp(-(np.longdouble(x) ** 2) / 2)) / math.sqrt(2 * math.pi)
        assert reference.gelu_backward([1.0], [x])[0] == pytest.approx(exact / x + x * phi, rel=4 * tolerance(x)), x
    for x in (-30.0, -300.0, -700.0):
        e = math.exp(x)  # beside 1 nothing
        assert reference.silu([x])[0] == pytest.approx(x * e, rel=1e-12)
        assert reference.silu_backward([1.0], [x])[0] == pytest.approx((1 + x) * e, rel=1e-12)
        assert reference.mish([x])[0] == pytest.approx(x * e, rel=1e-12)
        assert reference.mish_backward([1.0], [x])[0] == pytest.approx((1 + x) * e, rel=1e-12)
        assert reference.softplus([x])[0] == pytest.approx(e, rel=1e-12)


def test_rows_of_softmax() -> None:
    x = rng().normal(scale=5.0, size=(3, 4, 5))
    y = reference.softmax(x)
    np.testing.assert_allclose(y.sum(axis=-1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(reference.softmax(x + 1e4), y, rtol=1e-10)
    np.testing.assert_allclose(reference.log_softmax(x), np.log(y), rtol=1e-12)
    np.testing.assert_array_equal(reference.softmax([[1e4, -1e4], [-INF, 3.0]]), [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(reference.log_softmax([[1e4, -1e4], [-INF, 3.0]]), [[0.0, -2e4], [-INF, 0.0]])
    assert np.isnan(reference.softmax([[NAN, 1.0], [INF, 1.0]])).all()
    with pytest.raises(ValueError, match=r"softmax_backward: dy has shape \(5,\), y has \(3, 4, 5\)"):
        reference.softmax_backward(np.ones(5), y)


def test_activation_options_are_checked() -> None:
    for name, option in (("leaky_relu", "negative_slope"), ("elu", "alpha")):
        for function in reference.ACTIVATIONS[name]:
            arrays = [np.ones(2)] * (2 if function.__name__.endswith("_backward") else 1)
            for value in (-0.5, INF, NAN):
                with pytest.raises(ValueError, match=rf"^{function.__name__}: {option} is {value}, wanted a finite number"):
                    function(*arrays, value)
            with pytest.raises(TypeError, match=rf"^{function.__name__}: {option} is a str, wanted a number"):
                function(*arrays, "0.1")
    with pytest.raises(ValueError, match="^gelu: approximate is 'erf', wanted 'none' or 'tanh'"):
        reference.gelu([1.0], "erf")
    with pytest.raises(ValueError, match="^gelu_backward: approximate is None, wanted 'none' or 'tanh'"):
        reference.gelu_backward([1.0], [1.0], None)


def test_identity_returns_a_copy() -> None:
    x = np.ones(3)
    assert not np.shares_memory(reference.identity(x), x)


def test_activation_errors() -> None:
    x = np.ones((2, 3))
    read_only = np.empty((2, 3))
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="relu: x has dtype int64, wanted float32 or float64"):
        reference.relu(np.ones(3, np.int64))
    with pytest.raises(ValueError, match=r"relu: out has shape \(3,\), wanted \(2, 3\)"):
        reference.relu(x, out=np.empty(3))
    with pytest.raises(TypeError, match="relu: out is an array of float32, wanted a float64 array"):
        reference.relu(x, out=np.empty((2, 3), np.float32))
    with pytest.raises(ValueError, match="relu: out is read-only"):
        reference.relu(x, out=read_only)
    with pytest.raises(ValueError, match=r"tanh_backward: dy has shape \(3,\), y has \(2, 3\)"):
        reference.tanh_backward(np.ones(3), x)
    with pytest.raises(TypeError, match="tanh_backward: y has dtype float64, dy has float32"):
        reference.tanh_backward(np.float32(x), x)


# Standardize


def test_standardize_by_hand() -> None:
    x, mean, scale = np.array([[1.0, 10.0], [3.0, 50.0]]), np.array([2.0, 30.0]), np.array([1.0, 0.05])
    np.testing.assert_array_equal(reference.standardize(x, mean, scale), [[-1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(reference.standardize_backward(x, scale), [[1.0, 0.5], [3.0, 2.5]])
    single = reference.standardize(np.float32(x), np.float32(mean), np.float32(scale))
    assert single.dtype == np.float32
    out = np.empty_like(x)
    assert reference.standardize(x, mean, scale, out=out) is out
    assert reference.standardize_backward(x, scale, out=x) is x


def test_standardize_errors() -> None:
    x, mean = np.ones((2, 3)), np.ones(3)
    with pytest.raises(ValueError, match=r"standardize: x has shape \(3,\), wanted rows and columns"):
        reference.standardize(mean, mean, mean)
    with pytest.raises(ValueError, match=r"standardize: x has shape \(0, 3\), wanted rows and columns"):
        reference.standardize(x[:0], mean, mean)
    with pytest.raises(ValueError, match=r"standardize: mean has shape \(2,\), wanted \(3,\)"):
        reference.standardize(x, mean[:2], mean)
    with pytest.raises(ValueError, match=r"standardize_backward: scale has shape \(1, 3\), wanted \(3,\)"):
        reference.standardize_backward(x, x[:1])
    with pytest.raises(TypeError, match="standardize: scale has dtype float32, x has float64"):
        reference.standardize(x, mean, np.float32(mean))


# Dense


def test_dense_by_hand() -> None:
    x, w, b = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [3.0, -2.0]]), np.array([0.5, 0.25])
    np.testing.assert_array_equal(reference.dense(x, w), [[7.0, -5.0]])
    np.testing.assert_array_equal(reference.dense(x, w, b), [[7.5, -4.75]])
    np.testing.assert_array_equal(reference.dense(x, w, b, "relu"), [[7.5, 0.0]])


def test_dense_float32_is_exact_where_float32_sums_are_not() -> None:
    x = np.array([[1.0, 2.0**24, -(2.0**24)]], np.float32)
    y = reference.dense(x, np.ones((3, 1), np.float32))
    assert y.dtype == np.float32
    assert y[0, 0] == 1.0


@pytest.mark.parametrize("activation", [None, *NAMES])
@settings(max_examples=15)
@given(batch=st.integers(1, 4), inputs=st.integers(1, 4), outputs=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_dense_backward_is_the_derivative(activation: str | None, batch: int, inputs: int, outputs: int, seed: int) -> None:
    r = rng(seed)
    x, w, b = r.normal(size=(batch, inputs)), r.normal(size=(inputs, outputs)), r.normal(size=outputs)
    z = x @ w + b
    # A kink within h of a pre-activation would make the difference quotient meaningless.
    if min(np.abs(z - end).min() for end in ENDS) < 1e-4:
        return
    dy = r.normal(size=z.shape)

    def objective(x: Float64, w: Float64, b: Float64) -> float:
        return float((dy * reference.dense(x, w, b, activation)).sum())

    dx, dw, db = reference.dense_backward(dy, x, w, source_of(activation or "identity", z), activation)
    assert dx is not None
    np.testing.assert_allclose(dx, numerical_gradient(lambda v: objective(v, w, b), x), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(dw, numerical_gradient(lambda v: objective(x, v, b), w), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(db, numerical_gradient(lambda v: objective(x, w, v), b), rtol=1e-5, atol=1e-7)


def test_dense_backward_options() -> None:
    r = rng()
    dy, x, w = r.normal(size=(4, 2)), r.normal(size=(4, 3)), r.normal(size=(3, 2))
    dx, dw, db = reference.dense_backward(dy, x, w)
    assert dx is not None
    none, dw2, db2 = reference.dense_backward(dy, x, w, need_dx=False)
    assert none is None
    np.testing.assert_array_equal(dw2, dw)
    np.testing.assert_array_equal(db2, db)
    out = (np.empty_like(x), np.empty_like(w), np.empty(2))
    for got, given_array, expected in zip(reference.dense_backward(dy, x, w, out=out), out, (dx, dw, db), strict=True):
        assert got is given_array
        np.testing.assert_array_equal(given_array, expected)
    assert reference.dense_backward(dy, x, w, need_dx=False, out=(None, *out[1:]))[0] is None


def test_dense_errors() -> None:
    x, w = np.ones((2, 3)), np.ones((4, 5))
    with pytest.raises(ValueError, match="dense: x has 3 columns, w has 4 rows"):
        reference.dense(x, w)
    with pytest.raises(ValueError, match="dense: x has 1 dimensions, wanted 2"):
        reference.dense(np.ones(4), w)
    with pytest.raises(ValueError, match=r"dense: b has shape \(4,\), w has 5 columns"):
        reference.dense(np.ones((2, 4)), w, np.ones(4))
    with pytest.raises(ValueError, match="dense: activation is 'rellu', wanted None or one of identity, relu"):
        reference.dense(np.ones((2, 4)), w, activation="rellu")
    with pytest.raises(TypeError, match="dense: w has dtype float64, x has float32"):
        reference.dense(np.ones((2, 4), np.float32), w)
    dy, x = np.ones((2, 5)), np.ones((2, 4))
    with pytest.raises(ValueError, match="dense_backward: y is None, and the derivative of tanh is taken from y"):
        reference.dense_backward(dy, x, w, activation="tanh")
    with pytest.raises(ValueError, match=r"dense_backward: dy has shape \(2, 4\), x @ w has \(2, 5\)"):
        reference.dense_backward(x, x, w)
    with pytest.raises(ValueError, match=r"dense_backward: y has shape \(2, 4\), dy has \(2, 5\)"):
        reference.dense_backward(dy, x, w, x, "relu")
    dw = np.full((4, 5), 7.0)
    with pytest.raises(ValueError, match=r"dense_backward: out\[2\] \(db\) has shape \(4,\), wanted \(5,\)"):
        reference.dense_backward(dy, x, w, out=(np.empty((2, 4)), dw, np.empty(4)))
    assert (dw == 7.0).all()  # nothing is written before all is checked


# Losses


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_cross_entropy_of_equal_logits_is_ln_c(classes: int) -> None:
    loss, dlogits = reference.softmax_cross_entropy(np.zeros((4, classes)), np.arange(4) % classes)
    assert isinstance(loss, float)
    assert loss == pytest.approx(math.log(classes), rel=1e-14)
    assert dlogits[0, 0] == pytest.approx((1 / classes - 1) / 4)


def test_cross_entropy_by_hand() -> None:
    # p = 1/4 and 3/4; labels 1 and 0.
    logits = np.log(np.array([[1.0, 3.0], [1.0, 3.0]])) + np.array([[100.0], [-100.0]])
    labels = np.array([1, 0], np.int32)
    losses, dlogits = reference.softmax_cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(losses, [math.log(4 / 3), math.log(4)], rtol=1e-13)
    np.testing.assert_allclose(dlogits, [[0.25, -0.25], [-0.75, 0.75]], rtol=1e-13)
    loss, dmean = reference.softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(math.log(16 / 3) / 2)
    np.testing.assert_allclose(dmean, dlogits / 2)
    loss, dsum = reference.softmax_cross_entropy(logits, labels, reduction="sum")
    assert loss == pytest.approx(math.log(16 / 3))
    np.testing.assert_array_equal(dsum, dlogits)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["indices", "probabilities", "weights"])
@settings(max_examples=15)
@given(batch=st.integers(1, 4), classes=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_cross_entropy_gradient(reduction: str, kind: str, batch: int, classes: int, seed: int) -> None:
    r = rng(seed)
    logits = r.normal(scale=3.0, size=(batch, classes))
    labels: npt.NDArray[np.int64] | Float64 = r.integers(0, classes, batch)
    if kind != "indices":
        labels = r.random((batch, classes))
    if kind == "probabilities":
        labels = labels / labels.sum(axis=1, keepdims=True)

    def objective(z: Float64) -> float:
        return float(reference.softmax_cross_entropy(z, labels, reduction=reduction)[0])

    _, dlogits = reference.softmax_cross_entropy(logits, labels, reduction=reduction)
    np.testing.assert_allclose(dlogits, numerical_gradient(objective, logits), rtol=1e-5, atol=1e-8)


def test_one_hot_rows_equal_indices() -> None:
    logits, labels = rng().normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
    by_index = reference.softmax_cross_entropy(logits, labels)
    by_row = reference.softmax_cross_entropy(logits, np.eye(4, dtype=np.float32)[labels])
    assert by_index[0] == by_row[0]
    assert by_index[1].dtype == np.float32
    np.testing.assert_array_equal(by_index[1], by_row[1])


def test_cross_entropy_of_extreme_logits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses, dlogits = reference.softmax_cross_entropy(
            np.array([[1e300, -1e300], [1e300, -1e300], [0.0, -INF], [NAN, 0.0], [INF, 0.0]]),
            np.array([0, 1, 0, 1, 0]),
            reduction="none",
        )
    np.testing.assert_array_equal(losses, [0.0, 2e300, 0.0, NAN, NAN])
    assert not np.signbit(losses).any()
    np.testing.assert_array_equal(dlogits[:3], [[0, 0], [1, -1], [0, 0]])
    assert np.isnan(dlogits[3:]).all()


def test_mse_by_hand() -> None:
    pred, target = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 4.0], [3.0, 1.0]])
    loss, dpred = reference.mse(pred, target)
    assert loss == (1 + 4 + 0 + 9) / 4
    np.testing.assert_array_equal(dpred, np.array([[1.0, -2.0], [0.0, 3.0]]) / 2)
    assert reference.mse(pred, target, reduction="sum")[0] == 14
    losses, dsum = reference.mse(pred, target, reduction="none")
    np.testing.assert_array_equal(losses, [[1, 4], [0, 9]])
    np.testing.assert_array_equal(dsum, [[2, -4], [0, 6]])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mse_gradient(shape: tuple[int, ...], reduction: str) -> None:
    pred, target = rng().normal(size=shape), rng(1).normal(size=shape)
    out = np.empty(shape)
    assert reference.mse(pred, target, reduction=reduction, out=out)[1] is out
    expected = numerical_gradient(lambda p: float(reference.mse(p, target, reduction=reduction)[0]), pred)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-8)


def test_loss_errors() -> None:
    logits = np.zeros((2, 3))
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=rf"softmax_cross_entropy: labels\[1\] is {bad}, wanted 0 to 2"):
            reference.softmax_cross_entropy(logits, np.array([0, bad]))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\), logits has 2 rows"):
        reference.softmax_cross_entropy(logits, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"labels\[1, 2\] is nan, wanted a probability"):
        reference.softmax_cross_entropy(logits, np.array([[1.0, 0, 0], [0, 0, NAN]]))
    with pytest.raises(TypeError, match="labels has dtype float32, wanted int32, int64 or float64 as logits"):
        reference.softmax_cross_entropy(logits, np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"logits is empty, its shape is \(0, 3\)"):
        reference.softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="reduction is 'avg', wanted one of mean, sum, none"):
        reference.softmax_cross_entropy(logits, np.array([0, 1]), reduction="avg")
    with pytest.raises(ValueError, match=r"mse: pred has shape \(2, 3\), target has \(3,\)"):
        reference.mse(logits, np.zeros(3))
    with pytest.raises(ValueError, match="mse: pred is empty"):
        reference.mse(np.zeros(0), np.zeros(0))
