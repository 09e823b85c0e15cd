"""The dense layer: forward and backward."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .activations import ACTIVATIONS, Array, Float64, check_out, deliver, ieee, shared_dtype
from .precision import precision_named, product


def dense(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    activation: str | None = None,
    *,
    out: Array | None = None,
    precision: str | None = None,
) -> Array:
    """Return the output of a dense layer.

    ``y = f(x @ w + b)``

    Parameters
    ----------
    x : array_like, shape (B, I), float32 or float64
        A batch of B inputs, one a row.
    w : array_like, shape (I, O), dtype of x
        Weights: row i holds what goes out from input i.
    b : array_like, shape (O,), dtype of x, optional
        Bias. Default: none, as if it were 0.
    activation : str, optional
        The name of f: "identity", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu", "softplus", "hardtanh", "hardsigmoid",
        "gelu", "gelu_tanh", "silu", "hardswish", "mish", "softmax" or "log_softmax", with the defaults of the function of that
        name. Default: the identity.
    out : ndarray, shape (B, O), dtype of x, optional
        Where the result goes. Default: a new array.
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}, optional
        How ``x @ w`` of float32 arrays is calculated: from the numbers as they are, or from their pieces in bfloat16, as the
        reference's ``matmul`` has it. Default: "float32"; for the compiled function what `trainstep.set_matmul_precision` has set.

    Returns
    -------
    y : ndarray, shape (B, O), dtype of x

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64.
    ValueError
        Shapes do not fit, the activation or the precision is unknown, out is read-only, or a precision of pieces is given with
        float64 arrays.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), algorithm 6.3 (there with W transposed).

    Examples
    --------
    >>> from trainstep.reference import dense
    >>> dense([[1.0, 2.0]], [[1.0, -1.0], [3.0, -2.0]], [0.5, 0.5], "relu")
    array([[7.5, 0. ]])
    """
    dtype = shared_dtype("dense", x=x, w=w, b=b)
    name = precision_named("dense", precision, dtype)
    forward, _ = _lookup("dense", activation)
    x64, w64 = _matrix("dense", "x", x), _matrix("dense", "w", w)
    if x64.shape[1] != w64.shape[0]:
        raise ValueError(f"dense: x has {x64.shape[1]} columns, w has {w64.shape[0]} rows")
    b64 = np.zeros(w64.shape[1]) if b is None else np.asarray(b, np.float64)
    if b64.shape != w64.shape[1:]:
        raise ValueError(f"dense: b has shape {b64.shape}, w has {w64.shape[1]} columns")
    check_out("dense", "out", out, (x64.shape[0], w64.shape[1]), dtype)
    with ieee():
        z = product(np.asarray(x), np.asarray(w), name) + b64
        return deliver(np.asarray(forward(z), np.float64), dtype, out)


def dense_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    activation: str | None = None,
    need_dx: bool = True,
    *,
    out: tuple[Array | None, Array, Array] | None = None,
    precision: str | None = None,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of x, w and b for ``y = dense(x, w, b, activation)``.

    | ``dz = dy * f'(z)``, with z = x @ w + b and f' taken from y = f(z), or from z itself
    | ``dx = dz @ w.T``
    | ``dw = x.T @ dz``
    | ``db = sum of the rows of dz``

    Parameters
    ----------
    dy : array_like, shape (B, O), float32 or float64
        Gradient of y.
    x : array_like, shape (B, I), dtype of dy
        Input of the forward function.
    w : array_like, shape (I, O), dtype of dy
        Weights of the forward function.
    y : array_like, shape (B, O), dtype of dy, optional
        What the derivative of the activation is taken from: the output of the forward function; for gelu, gelu_tanh, silu,
        hardswish and mish, whose output does not tell it, ``x @ w + b``. Needed unless the activation is the identity.
    activation : str, optional
        The name of f: "identity", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu", "softplus", "hardtanh", "hardsigmoid",
        "gelu", "gelu_tanh", "silu", "hardswish", "mish", "softmax" or "log_softmax". Default: the identity.
    need_dx : bool, default True
        False leaves dx out: the first layer of a network has no use for it.
    out : tuple of ndarray (dx, dw, db), shapes and dtypes of x, w and b, optional
        Where the results go. dx is ignored, and may be None, where need_dx is False. Default: new arrays.
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}, optional
        As of `dense`, for ``dz @ w.T`` and ``x.T @ dz``: from pieces of dz once it is rounded to float32.

    Returns
    -------
    dx : ndarray, shape (B, I), dtype of dy, or None where need_dx is False
    dw : ndarray, shape (I, O), dtype of dy
    db : ndarray, shape (O,), dtype of dy

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64, or out is not a tuple of three.
    ValueError
        Shapes do not fit, the activation or the precision is unknown, y is missing, an array of out is read-only, or a precision
        of pieces is given with float64 arrays.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), algorithm 6.4 (there with W transposed).

    Examples
    --------
    >>> from trainstep.reference import dense_backward
    >>> dx, dw, db = dense_backward([[1.0, 1.0]], [[1.0, 2.0]], [[1.0, -1.0], [3.0, -2.0]], [[7.5, 0.0]], "relu")
    >>> dx
    array([[1., 3.]])
    >>> dw
    array([[1., 0.],
           [2., 0.]])
    >>> db
    array([1., 0.])
    """
    dtype = shared_dtype("dense_backward", dy=dy, x=x, w=w, y=y)
    name = precision_named("dense_backward", precision, dtype)
    _, backward = _lookup("dense_backward", activation)
    dy64, x64, w64 = (_matrix("dense_backward", name, a) for name, a in (("dy", dy), ("x", x), ("w", w)))
    if x64.shape[1] != w64.shape[0]:
        raise ValueError(f"dense_backward: x has {x64.shape[1]} columns, w has {w64.shape[0]} rows")
    if dy64.shape != (x64.shape[0], w64.shape[1]):
        raise ValueError(f"dense_backward: dy has shape {dy64.shape}, x @ w has {(x64.shape[0], w64.shape[1])}")
    if y is None:
        if activation not in (None, "identity"):
            raise ValueError(f"dense_backward: y is None, and the derivative of {activation} is taken from y")
        y = dy64
    y64 = _matrix("dense_backward", "y", y)
    if y64.shape != dy64.shape:
        raise ValueError(f"dense_backward: y has shape {y64.shape}, dy has {dy64.shape}")
    out_dx, out_dw, out_db = _three(out)
    if need_dx:
        check_out("dense_backward", "out[0] (dx)", out_dx, x64.shape, dtype)
    check_out("dense_backward", "out[1] (dw)", out_dw, w64.shape, dtype)
    check_out("dense_backward", "out[2] (db)", out_db, w64.shape[1:], dtype)

    with ieee():
        dz = np.asarray(backward(dy64, y64), np.float64)
        # All three before any is written: out may share memory with x or w.
        factor = dz if name == "float32" else deliver(dz, dtype, None)
        dx = product(factor, np.asarray(w).T, name) if need_dx else None
        dw, db = product(np.asarray(x).T, factor, name), dz.sum(axis=0)
    return (
        None if dx is None else deliver(dx, dtype, out_dx),
        deliver(dw, dtype, out_dw),
        deliver(db, dtype, out_db),
    )


def _lookup(function: str, activation: str | None) -> tuple[Callable[..., Array], Callable[..., Array]]:
    name = "identity" if activation is None else activation
    if name not in ACTIVATIONS:
        raise ValueError(f"{function}: activation is {name!r}, wanted None or one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _matrix(function: str, name: str, array: npt.ArrayLike) -> Float64:
    matrix = np.asarray(array, np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{function}: {name} has {matrix.ndim} dimensions, wanted 2")
    return matrix


def _three(out: tuple[Array | None, Array, Array] | None) -> tuple[Array | None, Array | None, Array | None]:
    if out is None:
        return None, None, None
    if not isinstance(out, tuple) or len(out) != 3:
        raise TypeError("dense_backward: out is not a tuple (dx, dw, db)")
    return out
