"""Activations and their derivatives: from the output y where that tells it, so that the input need not be kept, else from x.

The first part holds what all families of the reference share: dtypes in, dtypes out.
"""

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ._sections import backward, forward

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


def ieee() -> np.errstate:
    """Quiet NumPy's warnings: infinities and NaN are values that pass through, not accidents."""
    return np.errstate(all="ignore")


def shared_dtype(function: str, **arrays: npt.ArrayLike | None) -> np.dtype[Any]:
    """Return the one float dtype of all arrays that are given, or raise TypeError."""
    given = {name: np.asarray(array).dtype for name, array in arrays.items() if array is not None}
    first = next(iter(given))
    for name, dtype in given.items():
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"{function}: {name} has dtype {dtype}, wanted float32 or float64")
        if dtype != given[first]:
            raise TypeError(f"{function}: {name} has dtype {dtype}, {first} has {given[first]}")
    return given[first]


def check_out(function: str, name: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless ``out`` is None or an array that the result fits exactly."""
    if out is None:
        return
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"{function}: {name} is {_describe(out)}, wanted a {dtype} array")
    if out.shape != shape:
        raise ValueError(f"{function}: {name} has shape {out.shape}, wanted {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{function}: {name} is read-only")


def deliver(value: Float64, dtype: np.dtype[Any], out: Array | None) -> Array:
    """Round a float64 value to ``dtype``, into ``out`` where one is given. The only rounding of a result."""
    with ieee():
        result: Array = np.array(value, dtype)
    if out is None:
        return result
    out[...] = result
    return out


def _describe(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _elementwise(function: str, formula: Callable[[Float64], Float64], x: npt.ArrayLike, out: Array | None) -> Array:
    """y = formula(x), for the forward functions."""
    dtype = shared_dtype(function, x=x)
    x64 = np.asarray(x, np.float64)
    check_out(function, "out", out, x64.shape, dtype)
    with ieee():
        return deliver(formula(x64), dtype, out)


def _chain(
    function: str,
    formula: Callable[[Float64, Float64], Float64],
    dy: npt.ArrayLike,
    out: Array | None,
    **source: npt.ArrayLike,
) -> Array:
    """dx = formula(dy, y), or formula(dy, x), for the backward functions."""
    ((name, given),) = source.items()
    dtype = shared_dtype(function, dy=dy, **source)
    dy64, source64 = np.asarray(dy, np.float64), np.asarray(given, np.float64)
    if dy64.shape != source64.shape:
        raise ValueError(f"{function}: dy has shape {dy64.shape}, {name} has {source64.shape}")
    check_out(function, "out", out, source64.shape, dtype)
    with ieee():
        return deliver(formula(dy64, source64), dtype, out)


def _at_least_0(function: str, name: str, value: float) -> float:
    """Return an option that must be a finite number of at least 0."""
    if not isinstance(value, Real):
        raise TypeError(f"{function}: {name} is a {type(value).__name__}, wanted a number")
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{function}: {name} is {value}, wanted a finite number of at least 0")
    return float(value)


# Linear, and linear in pieces


@forward()
def identity(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return a copy of the input: the output layer's activation in regression.

    ``y = x``

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2.1 (linear units).

    Examples
    --------
    >>> identity([-1.5, 2.0])
    array([-1.5,  2. ])
    """
    return _elementwise("identity", lambda x: x, x, out)


@backward(identity, remark=" Its values are not used.")
def identity_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = identity(x)``.

    ``dx = dy``

    Examples
    --------
    >>> identity_backward([1.0, 10.0], [-1.5, 2.0])
    array([ 1., 10.])
    """
    return _chain("identity_backward", lambda dy, y: dy, dy, out, y=y)


@forward()
def relu(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the rectified linear unit: negative inputs become 0.

    ``y = max(x, 0)``

    NaN stays NaN.

    References
    ----------
    Nair & Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010.

    Examples
    --------
    >>> relu([-1.5, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return _elementwise("relu", lambda x: np.maximum(x, 0.0), x, out)


@backward(relu)
def relu_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = relu(x)``.

    ``dx = dy where y > 0, else 0``

    At x = 0, where there is no derivative, 0 is taken. Where y is NaN, dy goes through.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.3.1.

    Examples
    --------
    >>> relu_backward([1.0, 10.0, 100.0], [0.0, 0.5, 2.0])
    array([  0.,  10., 100.])
    """
    return _chain("relu_backward", lambda dy, y: np.where(y <= 0.0, 0.0, dy), dy, out, y=y)


@forward()
def leaky_relu(x: npt.ArrayLike, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """Return the leaky rectified linear unit: negative inputs become small instead of 0.

    ``y = x where x > 0, else negative_slope * x``

    References
    ----------
    Maas, Hannun & Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013, equation 2.

    Examples
    --------
    >>> leaky_relu([-1.5, 0.0, 2.0])
    array([-0.015,  0.   ,  2.   ])
    """
    slope = _at_least_0("leaky_relu", "negative_slope", negative_slope)
    return _elementwise("leaky_relu", lambda x: np.where(x > 0.0, x, slope * x), x, out)


@backward(leaky_relu)
def leaky_relu_backward(dy: npt.ArrayLike, y: npt.ArrayLike, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = leaky_relu(x, negative_slope)``.

    ``dx = dy where y > 0, else negative_slope * dy``

    At x = 0, where there is no derivative, negative_slope is taken. Where y is NaN, dy goes through.

    Examples
    --------
    >>> leaky_relu_backward([1.0, 10.0, 100.0], [-0.015, 0.0, 2.0])
    array([1.e-02, 1.e-01, 1.e+02])
    """
    slope = _at_least_0("leaky_relu_backward", "negative_slope", negative_slope)
    return _chain("leaky_relu_backward", lambda dy, y: np.where(y <= 0.0, slope * dy, dy), dy, out, y=y)


@forward()
def hardtanh(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the input cut off at -1 and 1: tanh in three straight pieces.

    ``y = min(max(x, -1), 1)``

    NaN stays NaN.

    References
    ----------
    Collobert, Large Scale Machine Learning, thesis, Université de Paris VI (2004); Goodfellow, Bengio & Courville, Deep Learning
    (2016), section 6.3.3.

    Examples
    --------
    >>> hardtanh([-1.5, 0.25, 2.0])
    array([-1.  ,  0.25,  1.  ])
    """
    return _elementwise("hardtanh", lambda x: np.clip(x, -1.0, 1.0), x, out)


@backward(hardtanh)
def hardtanh_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = hardtanh(x)``.

    ``dx = dy where -1 < y < 1, else 0``

    At x = -1 and x = 1, where there is no derivative, 0 is taken. Where y is NaN, dy goes through.

    Examples
    --------
    >>> hardtanh_backward([1.0, 10.0, 100.0], [-1.0, 0.25, 1.0])
    array([ 0., 10.,  0.])
    """
    return _chain("hardtanh_backward", lambda dy, y: np.where(np.abs(y) >= 1.0, 0.0, dy), dy, out, y=y)


@forward()
def hardsigmoid(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the sigmoid in three straight pieces: 0 up to -3, 1 from 3 on.

    ``y = min(max(x + 3, 0), 6) / 6``

    NaN stays NaN.

    References
    ----------
    Howard et al., Searching for MobileNetV3, ICCV 2019, section 5.2.

    Examples
    --------
    >>> hardsigmoid([-4.0, 0.0, 1.5, 4.0])
    array([0.  , 0.5 , 0.75, 1.  ])
    """
    return _elementwise("hardsigmoid", _hardsigmoid, x, out)


@backward(hardsigmoid)
def hardsigmoid_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = hardsigmoid(x)``.

    ``dx = dy / 6 where 0 < y < 1, else 0``

    At x = -3 and x = 3, where there is no derivative, 0 is taken. Where y is NaN, dy / 6 goes through.

    Examples
    --------
    >>> hardsigmoid_backward([6.0, 12.0, 18.0], [0.0, 0.75, 1.0])
    array([0., 2., 0.])
    """
    return _chain("hardsigmoid_backward", lambda dy, y: np.where((y <= 0.0) | (y >= 1.0), 0.0, dy / 6.0), dy, out, y=y)


def _hardsigmoid(x: Float64) -> Float64:
    return np.asarray(np.clip(x + 3.0, 0.0, 6.0) / 6.0)


# Of exponentials


def _sigmoid(x: Float64) -> Float64:
    # exp(-x) overflows for x < -709. With e = exp(-|x|) <= 1 the same value is 1/(1+e) for x >= 0, e/(1+e) below.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)


def _softplus(x: Float64) -> Float64:
    # log(1 + exp(x)) = log(exp(x) (exp(-x) + 1)), and of the two the one whose exp is at most 1.
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


@forward()
def sigmoid(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the logistic function: any number to one between 0 and 1.

    ``y = 1 / (1 + exp(-x))``

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 3.10.

    Examples
    --------
    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    return _elementwise("sigmoid", _sigmoid, x, out)


@backward(sigmoid)
def sigmoid_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = sigmoid(x)``.

    ``dx = dy * y * (1 - y)``

    Examples
    --------
    >>> sigmoid_backward([1.0, 1.0], [0.5, 1.0])
    array([0.25, 0.  ])
    """
    return _chain("sigmoid_backward", lambda dy, y: dy * y * (1.0 - y), dy, out, y=y)


@forward()
def tanh(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent: any number to one between -1 and 1.

    ``y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.3.2.

    Examples
    --------
    >>> tanh([-1000.0, 0.0, 1000.0])
    array([-1.,  0.,  1.])
    """
    return _elementwise("tanh", np.tanh, x, out)


@backward(tanh)
def tanh_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = tanh(x)``.

    ``dx = dy * (1 - y^2)``

    References
    ----------
    LeCun, Bottou, Orr & Müller, Efficient BackProp, in Neural Networks: Tricks of the Trade (1998), section 4.4.

    Examples
    --------
    >>> tanh_backward([1.0, 1.0], [0.0, 0.5])
    array([1.  , 0.75])
    """
    # (1 - y)(1 + y), because y*y near 1 would be rounded before the subtraction cancels all but that rounding.
    return _chain("tanh_backward", lambda dy, y: dy * ((1.0 - y) * (1.0 + y)), dy, out, y=y)


@forward()
def elu(x: npt.ArrayLike, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Return the exponential linear unit: negative inputs go smoothly to -alpha.

    ``y = x where x > 0, else alpha * (exp(x) - 1)``

    References
    ----------
    Clevert, Unterthiner & Hochreiter, Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs), ICLR 2016,
    section 3.

    Examples
    --------
    >>> elu([-1000.0, 0.0, 2.0])
    array([-1.,  0.,  2.])
    """
    a = _at_least_0("elu", "alpha", alpha)
    return _elementwise("elu", lambda x: np.where(x > 0.0, x, a * np.expm1(x)), x, out)


@backward(elu)
def elu_backward(dy: npt.ArrayLike, y: npt.ArrayLike, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = elu(x, alpha)``.

    ``dx = dy where y > 0, else dy * (y + alpha)``

    Where y is NaN, dy goes through.

    Examples
    --------
    >>> elu_backward([1.0, 1.0, 1.0], [-1.0, -0.25, 2.0])
    array([0.  , 0.75, 1.  ])
    """
    a = _at_least_0("elu_backward", "alpha", alpha)
    return _chain("elu_backward", lambda dy, y: np.where(y <= 0.0, dy * (y + a), dy), dy, out, y=y)


# With these a standard normal input gives an output of mean 0 and variance 1: the two equations that determine them.
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


@forward()
def selu(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the self-normalizing exponential linear unit: elu with a scale that keeps mean 0 and variance 1.

    ``y = scale * x where x > 0, else scale * alpha * (exp(x) - 1)``

    scale = 1.0507009873554805, alpha = 1.6732632423543772.

    References
    ----------
    Klambauer, Unterthiner, Mayr & Hochreiter, Self-Normalizing Neural Networks, NIPS 2017, equation 2.

    Examples
    --------
    >>> selu([-1000.0, 0.0, 2.0])
    array([-1.75809934,  0.        ,  2.10140197])
    """
    return _elementwise("selu", lambda x: _SELU_SCALE * np.where(x > 0.0, x, _SELU_ALPHA * np.expm1(x)), x, out)


@backward(selu)
def selu_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = selu(x)``.

    ``dx = dy * scale where y > 0, else dy * (y + scale * alpha)``

    Where y is NaN, dy * scale goes through.

    Examples
    --------
    >>> selu_backward([1.0, 1.0], [0.0, 2.0])
    array([1.75809934, 1.05070099])
    """
    scale, floor = _SELU_SCALE, _SELU_SCALE * _SELU_ALPHA
    return _chain("selu_backward", lambda dy, y: dy * np.where(y <= 0.0, y + floor, scale), dy, out, y=y)


@forward()
def softplus(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the smooth rectified linear unit, whose derivative is the sigmoid.

    ``y = log(1 + exp(x))``

    References
    ----------
    Dugas, Bengio, Bélisle, Nadeau & Garcia, Incorporating Second-Order Functional Knowledge for Better Option Pricing, NIPS 2000.

    Examples
    --------
    >>> softplus([-1000.0, 0.0, 1000.0])
    array([0.00000000e+00, 6.93147181e-01, 1.00000000e+03])
    """
    return _elementwise("softplus", _softplus, x, out)


@backward(softplus)
def softplus_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = softplus(x)``.

    ``dx = dy * (1 - exp(-y))``

    Which is dy * sigmoid(x).

    Examples
    --------
    >>> import math
    >>> softplus_backward([1.0, 1.0], [0.0, math.log(2)])
    array([0. , 0.5])
    """
    return _chain("softplus_backward", lambda dy, y: dy * -np.expm1(-y), dy, out, y=y)


# The input times a gate that opens from 0 to 1. They fall before they rise, so y does not tell the derivative.


def _gated(gate: Callable[[Float64], Float64]) -> Callable[[Float64], Float64]:
    """y = x * gate(x). A gate that is 0 lets nothing through, of minus infinity neither: the limit."""

    def formula(x: Float64) -> Float64:
        opened = gate(x)
        return np.where(opened == 0.0, 0.0, x * opened)

    return formula


def _gated_chain(slope: Callable[[Float64], Float64]) -> Callable[[Float64, Float64], Float64]:
    """dx = dy * slope(x). All slopes are 0 or 1 long before 1000, where they are spared infinity times 0."""
    return lambda dy, x: np.asarray(dy * slope(np.clip(x, -1000.0, 1000.0)))


@forward()
def silu(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the sigmoid linear unit, also called swish: the input times its sigmoid.

    ``y = x / (1 + exp(-x))``

    Minus infinity becomes 0, the limit.

    References
    ----------
    Elfwing, Uchibe & Doya, Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement Learning,
    Neural Networks 107 (2018), section 2.

    Examples
    --------
    >>> silu([-1.0, 0.0, 1.0])
    array([-0.26894142,  0.        ,  0.73105858])
    """
    return _elementwise("silu", _gated(_sigmoid), x, out)


@backward(silu)
def silu_backward(dy: npt.ArrayLike, x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = silu(x)``.

    ``dx = dy * s * (1 + x * (1 - s))``, with s = sigmoid(x)

    Examples
    --------
    >>> silu_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 1.0])
    array([0.07232949, 0.5       , 0.92767051])
    """
    # 1 - s = sigmoid(-x), which keeps its digits where s is near 1.
    return _chain("silu_backward", _gated_chain(lambda x: _sigmoid(x) * (1.0 + x * _sigmoid(-x))), dy, out, x=x)


@forward()
def hardswish(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the input times its hardsigmoid: silu without an exponential.

    ``y = x * min(max(x + 3, 0), 6) / 6``

    Minus infinity becomes 0, the limit.

    References
    ----------
    Howard et al., Searching for MobileNetV3, ICCV 2019, section 5.2.

    Examples
    --------
    >>> hardswish([-4.0, -1.5, 1.5, 4.0])
    array([ 0.   , -0.375,  1.125,  4.   ])
    """
    return _elementwise("hardswish", _gated(_hardsigmoid), x, out)


@backward(hardswish)
def hardswish_backward(dy: npt.ArrayLike, x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = hardswish(x)``.

    ``dx = dy * (2 * x + 3) / 6 where -3 < x < 3, 0 below, dy above``

    At x = -3 and x = 3, where there is no derivative, 0 and 1 are taken.

    Examples
    --------
    >>> hardswish_backward([1.0, 1.0, 1.0, 1.0], [-4.0, -1.5, 1.5, 4.0])
    array([0., 0., 1., 1.])
    """

    def formula(dy: Float64, x: Float64) -> Float64:
        return np.where(x <= -3.0, 0.0, np.where(x >= 3.0, dy, dy * ((2.0 * x + 3.0) / 6.0)))

    return _chain("hardswish_backward", formula, dy, out, x=x)


def gelu_form(function: str, approximate: str) -> str:
    """Return the name in ACTIVATIONS of a form of gelu, or raise ValueError."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{function}: approximate is {approximate!r}, wanted 'none' or 'tanh'")
    return "gelu" if approximate == "none" else "gelu_tanh"


@forward()
def gelu(x: npt.ArrayLike, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Return the Gaussian error linear unit: the input times the probability of a normal number below it.

    | ``y = x * Phi(x)``, with Phi(x) = (1 + erf(x / sqrt(2))) / 2
    | ``y = x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))`` for approximate "tanh"

    Minus infinity becomes 0, the limit. As a layer's activation the second form is "gelu_tanh".

    References
    ----------
    Hendrycks & Gimpel, Gaussian Error Linear Units (GELUs), arXiv:1606.08415 (2016), section 2.

    Examples
    --------
    >>> gelu([-1.0, 0.0, 1.0])
    array([-0.15865525,  0.        ,  0.84134475])
    >>> gelu([-1.0, 0.0, 1.0], approximate="tanh")
    array([-0.15880801,  0.        ,  0.84119199])
    """
    gate = _normal_cdf if gelu_form("gelu", approximate) == "gelu" else lambda x: _sigmoid(_gelu_argument(x))
    return _elementwise("gelu", _gated(gate), x, out)


@backward(gelu)
def gelu_backward(dy: npt.ArrayLike, x: npt.ArrayLike, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = gelu(x, approximate)``.

    | ``dx = dy * (Phi(x) + x * phi(x))``, with phi(x) = exp(-x^2 / 2) / sqrt(2 * pi)
    | ``dx = dy * s * (1 + x * (1 - s) * u')`` for approximate "tanh", with s = sigmoid(u),
      u = 2 * sqrt(2/pi) * (x + 0.044715 * x^3)

    Examples
    --------
    >>> gelu_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 1.0])
    array([-0.08331547,  0.5       ,  1.08331547])
    """

    def exact(x: Float64) -> Float64:
        return _normal_cdf(x) + x * _exp_of_half_square(x) / math.sqrt(2.0 * math.pi)

    def with_tanh(x: Float64) -> Float64:
        u, du = _gelu_argument(x), _GELU_SLOPE * (1.0 + 3.0 * _GELU_CUBE * x * x)
        return _sigmoid(u) * (1.0 + x * _sigmoid(-u) * du)

    slope = exact if gelu_form("gelu_backward", approximate) == "gelu" else with_tanh
    return _chain("gelu_backward", _gated_chain(slope), dy, out, x=x)


def _normal_cdf(x: Float64) -> Float64:
    # erfc keeps its digits far below 0, where 1 + erf is rounded to 0. There it falls as exp(-t^2), so that a rounding of t counts
    # 2 t^2 times: what has been lost of x^2 / 2 = t^2 is put back.
    x = np.maximum(x, -1000.0)
    t = x / -math.sqrt(2.0)
    lost = np.exp(np.where(x < 0.0, np.square(t, dtype=np.longdouble) - np.square(x, dtype=np.longdouble) / 2, 0.0))
    return np.asarray(0.5 * np.vectorize(math.erfc, otypes=[np.float64])(t) * lost, np.float64)


def _exp_of_half_square(x: Float64) -> Float64:
    return np.exp(np.square(x, dtype=np.longdouble) / -2).astype(np.float64)


_GELU_SLOPE, _GELU_CUBE = 2.0 * math.sqrt(2.0 / math.pi), 0.044715


def _gelu_argument(x: Float64) -> Float64:
    # (1 + tanh(v)) / 2 = sigmoid(2 * v), which keeps its digits far below 0. Beyond 1000 it is 0 or 1, and x^3 shall not overflow.
    x = np.clip(x, -1000.0, 1000.0)
    return _GELU_SLOPE * (x + _GELU_CUBE * x * x * x)


@forward()
def mish(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the input times the tanh of its softplus.

    ``y = x * tanh(log(1 + exp(x)))``

    Minus infinity becomes 0, the limit.

    References
    ----------
    Misra, Mish: A Self Regularized Non-Monotonic Activation Function, BMVC 2020, equation 1.

    Examples
    --------
    >>> mish([-1.0, 0.0, 1.0])
    array([-0.30340146,  0.        ,  0.86509839])
    """
    return _elementwise("mish", _gated(lambda x: np.tanh(_softplus(x))), x, out)


@backward(mish)
def mish_backward(dy: npt.ArrayLike, x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = mish(x)``.

    ``dx = dy * (tanh(p) + x * sigmoid(x) / cosh(p)^2)``, with p = softplus(x)

    Examples
    --------
    >>> mish_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 1.0])
    array([0.05921676, 0.6       , 1.04903622])
    """

    def slope(x: Float64) -> Float64:
        p = _softplus(x)
        return np.asarray(np.tanh(p) + x * _sigmoid(x) / np.cosh(p) ** 2)

    return _chain("mish_backward", _gated_chain(slope), dy, out, x=x)


# Over rows


@forward(shape="shape (..., C)")
def softmax(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return each row, over the last axis, as probabilities that sum to 1.

    ``y_k = exp(x_k) / sum_j exp(x_j)``

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), equation 6.29.

    Examples
    --------
    >>> softmax([[0.0, 0.0], [1e4, -1e4]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """

    def formula(x: Float64) -> Float64:
        e = np.exp(x - _largest(x))
        return np.asarray(e / _row_sum(e))

    _check_rows("softmax", "x", x)
    return _elementwise("softmax", formula, x, out)


@backward(softmax, shape="shape (..., C)")
def softmax_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = softmax(x)``.

    ``dx_k = y_k * (dy_k - sum_j dy_j * y_j)``

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equation 4.106.

    Examples
    --------
    >>> softmax_backward([[1.0, 0.0]], [[0.5, 0.5]])
    array([[ 0.25, -0.25]])
    """
    _check_rows("softmax_backward", "dy", dy)
    return _chain("softmax_backward", lambda dy, y: y * (dy - _row_sum(dy * y)), dy, out, y=y)


@forward(shape="shape (..., C)")
def log_softmax(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the logarithms of softmax(x), over the last axis.

    ``y_k = x_k - log(sum_j exp(x_j))``

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), equation 6.30.

    Examples
    --------
    >>> log_softmax([[0.0, 0.0], [1e4, -1e4]])
    array([[-6.93147181e-01, -6.93147181e-01],
           [ 0.00000000e+00, -2.00000000e+04]])
    """

    def formula(x: Float64) -> Float64:
        shifted = x - _largest(x)
        return np.asarray(shifted - np.log(_row_sum(np.exp(shifted))))

    _check_rows("log_softmax", "x", x)
    return _elementwise("log_softmax", formula, x, out)


@backward(log_softmax, shape="shape (..., C)")
def log_softmax_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = log_softmax(x)``.

    ``dx_k = dy_k - exp(y_k) * sum_j dy_j``

    Examples
    --------
    >>> import math
    >>> log_softmax_backward([[1.0, 0.0]], [[math.log(0.5), math.log(0.5)]])
    array([[ 0.5, -0.5]])
    """
    _check_rows("log_softmax_backward", "dy", dy)
    return _chain("log_softmax_backward", lambda dy, y: dy - np.exp(y) * _row_sum(dy), dy, out, y=y)


def _check_rows(function: str, name: str, array: npt.ArrayLike) -> None:
    if np.ndim(array) == 0:
        raise ValueError(f"{function}: {name} has shape (), wanted at least one axis")


def _largest(x: Float64) -> Float64:
    """Return the maximum of each row. Softmax does not change when it is taken from the row, and then exp cannot overflow."""
    return np.asarray(x.max(axis=-1, keepdims=True, initial=-np.inf))


def _row_sum(x: Float64) -> Float64:
    return np.asarray(x.sum(axis=-1, keepdims=True))


# The one list of the family: name -> (forward, backward). dense and dense_backward look their activation up here.
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (identity, identity_backward),
    "relu": (relu, relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "leaky_relu": (leaky_relu, leaky_relu_backward),
    "elu": (elu, elu_backward),
    "selu": (selu, selu_backward),
    "softplus": (softplus, softplus_backward),
    "hardtanh": (hardtanh, hardtanh_backward),
    "hardsigmoid": (hardsigmoid, hardsigmoid_backward),
    "gelu": (gelu, gelu_backward),
    "gelu_tanh": (partial(gelu, approximate="tanh"), partial(gelu_backward, approximate="tanh")),
    "silu": (silu, silu_backward),
    "hardswish": (hardswish, hardswish_backward),
    "mish": (mish, mish_backward),
    "softmax": (softmax, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_backward),
}
