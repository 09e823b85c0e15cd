"""Standardizing: each column brought to mean 0 and standard deviation 1."""

import numpy as np
import numpy.typing as npt

from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype


def standardize(x: npt.ArrayLike, mean: npt.ArrayLike, scale: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return x with the mean of each column taken off, times the scale of the column.

    ``y = (x - mean) * scale``

    With the mean and one over the standard deviation of the columns of x, those of y have mean 0 and standard deviation 1.

    Parameters
    ----------
    x : array_like, shape (B, I), float32 or float64
        A batch of B inputs, one a row.
    mean : array_like, shape (I,), dtype of x
        What is taken off each column.
    scale : array_like, shape (I,), dtype of x
        What each column is then multiplied by.
    out : ndarray, shape and dtype of x, optional
        Where the result goes; x itself is allowed. Default: a new array.

    Returns
    -------
    y : ndarray, shape and dtype of x

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64.
    ValueError
        Shapes do not fit, or out is read-only.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr & K.-R. Mueller, Efficient BackProp (1998), section 4.3.

    Examples
    --------
    >>> from trainstep.reference import standardize
    >>> standardize([[1.0, 10.0], [3.0, 50.0]], [2.0, 30.0], [1.0, 0.05])
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    dtype = shared_dtype("standardize", x=x, mean=mean, scale=scale)
    x64 = _rows("standardize", "x", x, mean=mean, scale=scale)
    check_out("standardize", "out", out, x64.shape, dtype)
    with ieee():
        return deliver((x64 - np.asarray(mean, np.float64)) * np.asarray(scale, np.float64), dtype, out)


def standardize_backward(dy: npt.ArrayLike, scale: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """Return the gradient of x for ``y = standardize(x, mean, scale)``.

    ``dx = dy * scale``

    Parameters
    ----------
    dy : array_like, shape (B, I), float32 or float64
        Gradient of y.
    scale : array_like, shape (I,), dtype of dy
        Scale of the forward function.
    out : ndarray, shape and dtype of dy, optional
        Where the result goes; dy itself is allowed. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of dy

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64.
    ValueError
        Shapes do not fit, or out is read-only.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr & K.-R. Mueller, Efficient BackProp (1998), section 4.3.

    Examples
    --------
    >>> from trainstep.reference import standardize_backward
    >>> standardize_backward([[1.0, 2.0]], [1.0, 0.05])
    array([[1. , 0.1]])
    """
    dtype = shared_dtype("standardize_backward", dy=dy, scale=scale)
    dy64 = _rows("standardize_backward", "dy", dy, scale=scale)
    check_out("standardize_backward", "out", out, dy64.shape, dtype)
    with ieee():
        return deliver(dy64 * np.asarray(scale, np.float64), dtype, out)


def _rows(function: str, name: str, array: npt.ArrayLike, **columns: npt.ArrayLike) -> Float64:
    """Return a matrix in float64, checked to have as many columns as each of the others has elements."""
    matrix = np.asarray(array, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{function}: {name} has shape {matrix.shape}, wanted rows and columns, at least one of each")
    for other, values in columns.items():
        if np.shape(values) != matrix.shape[1:]:
            raise ValueError(f"{function}: {other} has shape {np.shape(values)}, wanted {matrix.shape[1:]}")
    return matrix
