"""Activations and their derivatives, taken from the output y, so that the input need not be kept.

The first part holds what all families of the reference share: dtypes in, dtypes out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

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
    y: npt.ArrayLike,
    out: Array | None,
) -> Array:
    """dx = formula(dy, y), for the backward functions."""
    dtype = shared_dtype(function, dy=dy, y=y)
    dy64, y64 = np.asarray(dy, np.float64), np.asarray(y, np.float64)
    if dy64.shape != y64.shape:
        raise ValueError(f"{function}: dy has shape {dy64.shape}, y has {y64.shape}")
    check_out(function, "out", out, y64.shape, dtype)
    with ieee():
        return deliver(formula(dy64, y64), dtype, out)


def identity(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return a copy of the input: the output layer's activation in regression.

    ``y = x``

    Parameters
    ----------
    x : array_like, any shape, float32 or float64
        Input.
    out : ndarray, shape and dtype of x, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or out has another dtype.
    ValueError
        out has another shape or is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2.1 (linear units).

    Examples
    --------
    >>> from trainstep.reference import identity
    >>> identity([-1.5, 2.0])
    array([-1.5,  2. ])
    """
    return _elementwise("identity", lambda x: x, x, out)


def identity_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = identity(x)``.

    ``dx = dy``

    Parameters
    ----------
    dy : array_like, any shape, float32 or float64
        Gradient of y.
    y : array_like, shape and dtype of dy
        Output of the forward function. Its values are not used.
    out : ndarray, shape and dtype of y, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of y

    Raises
    ------
    TypeError
        dy and y are not both float32 or both float64, or out has another dtype.
    ValueError
        dy or out has another shape than y, or out is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2.1 (linear units).

    Examples
    --------
    >>> from trainstep.reference import identity_backward
    >>> identity_backward([1.0, 10.0], [-1.5, 2.0])
    array([ 1., 10.])
    """
    return _chain("identity_backward", lambda dy, y: dy, dy, y, out)


def relu(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the rectified linear unit: negative inputs become 0.

    ``y = max(x, 0)``

    NaN stays NaN.

    Parameters
    ----------
    x : array_like, any shape, float32 or float64
        Input.
    out : ndarray, shape and dtype of x, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or out has another dtype.
    ValueError
        out has another shape or is read-only.

    References
    ----------
    Nair & Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010.

    Examples
    --------
    >>> from trainstep.reference import relu
    >>> relu([-1.5, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return _elementwise("relu", lambda x: np.maximum(x, 0.0), x, out)


def relu_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = relu(x)``.

    ``dx = dy where y > 0, else 0``

    At x = 0, where there is no derivative, 0 is taken. Where y is NaN, dy goes through.

    Parameters
    ----------
    dy : array_like, any shape, float32 or float64
        Gradient of y.
    y : array_like, shape and dtype of dy
        Output of the forward function.
    out : ndarray, shape and dtype of y, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of y

    Raises
    ------
    TypeError
        dy and y are not both float32 or both float64, or out has another dtype.
    ValueError
        dy or out has another shape than y, or out is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.3.1.

    Examples
    --------
    >>> from trainstep.reference import relu_backward
    >>> relu_backward([1.0, 10.0, 100.0], [0.0, 0.5, 2.0])
    array([  0.,  10., 100.])
    """
    return _chain("relu_backward", lambda dy, y: np.where(y <= 0.0, 0.0, dy), dy, y, out)


def sigmoid(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the logistic function: any number to one between 0 and 1.

    ``y = 1 / (1 + exp(-x))``

    Parameters
    ----------
    x : array_like, any shape, float32 or float64
        Input.
    out : ndarray, shape and dtype of x, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or out has another dtype.
    ValueError
        out has another shape or is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 3.10.

    Examples
    --------
    >>> from trainstep.reference import sigmoid
    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """

    def formula(x: Float64) -> Float64:
        # exp(-x) overflows for x < -709. With e = exp(-|x|) <= 1 the same value is 1/(1+e) for x >= 0, e/(1+e) below.
        e = np.exp(-np.abs(x))
        return np.where(x >= 0.0, 1.0, e) / (1.0 + e)

    return _elementwise("sigmoid", formula, x, out)


def sigmoid_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = sigmoid(x)``.

    ``dx = dy * y * (1 - y)``

    Parameters
    ----------
    dy : array_like, any shape, float32 or float64
        Gradient of y.
    y : array_like, shape and dtype of dy
        Output of the forward function.
    out : ndarray, shape and dtype of y, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of y

    Raises
    ------
    TypeError
        dy and y are not both float32 or both float64, or out has another dtype.
    ValueError
        dy or out has another shape than y, or out is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 3.10.

    Examples
    --------
    >>> from trainstep.reference import sigmoid_backward
    >>> sigmoid_backward([1.0, 1.0], [0.5, 1.0])
    array([0.25, 0.  ])
    """
    return _chain("sigmoid_backward", lambda dy, y: dy * y * (1.0 - y), dy, y, out)


def tanh(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent: any number to one between -1 and 1.

    ``y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``

    Parameters
    ----------
    x : array_like, any shape, float32 or float64
        Input.
    out : ndarray, shape and dtype of x, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or out has another dtype.
    ValueError
        out has another shape or is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.3.2.

    Examples
    --------
    >>> from trainstep.reference import tanh
    >>> tanh([-1000.0, 0.0, 1000.0])
    array([-1.,  0.,  1.])
    """
    return _elementwise("tanh", np.tanh, x, out)


def tanh_backward(dy: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = tanh(x)``.

    ``dx = dy * (1 - y^2)``

    Parameters
    ----------
    dy : array_like, any shape, float32 or float64
        Gradient of y.
    y : array_like, shape and dtype of dy
        Output of the forward function.
    out : ndarray, shape and dtype of y, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of y

    Raises
    ------
    TypeError
        dy and y are not both float32 or both float64, or out has another dtype.
    ValueError
        dy or out has another shape than y, or out is read-only.

    References
    ----------
    LeCun, Bottou, Orr & Müller, Efficient BackProp, in Neural Networks: Tricks of the Trade (1998), section 4.4.

    Examples
    --------
    >>> from trainstep.reference import tanh_backward
    >>> tanh_backward([1.0, 1.0], [0.0, 0.5])
    array([1.  , 0.75])
    """
    # (1 - y)(1 + y), because y*y near 1 would be rounded before the subtraction cancels all but that rounding.
    return _chain("tanh_backward", lambda dy, y: dy * ((1.0 - y) * (1.0 + y)), dy, y, out)


# The one list of the family: name -> (forward, backward). dense and dense_backward look their activation up here.
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (identity, identity_backward),
    "relu": (relu, relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
}
