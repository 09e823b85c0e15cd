"""Labels as rows of numbers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from trainstep._checks import float_dtype, integer


def one_hot(y: ArrayLike, classes: int | None = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """Turn class indices into rows with a 1 in the place of the class.

    out[i, j] = 1 where j = y[i], else 0

    The losses take class indices as they are; rows are for a loss of one's own, for `mse`, or for soft labels.

    Parameters
    ----------
    y : array_like, shape (n,), any integer dtype
        Class indices, from 0.
    classes : int, optional
        Their number. Default: the largest index + 1.
    dtype : dtype, default "float32"
        float32 or float64.

    Returns
    -------
    rows : ndarray, shape (n, classes), dtype

    Raises
    ------
    TypeError
        Where y holds no integers, classes is none, or dtype is another.
    ValueError
        Where y has another shape, an index is below 0 or not below classes, or y is empty and classes is not given.

    References
    ----------
    C. M. Bishop, Pattern Recognition and Machine Learning (2006), section 4.2, "1-of-K".

    Examples
    --------
    >>> from trainstep.data import one_hot
    >>> one_hot([2, 0, 1])
    array([[0., 0., 1.],
           [1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    classes = None if classes is None else integer("one_hot: classes", classes, 1)
    return rows_of("one_hot", y, classes, float_dtype("one_hot: dtype", dtype))


def rows_of(function: str, y: ArrayLike, classes: int | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Do the same for a function of another name."""
    if isinstance(y, np.ma.MaskedArray):
        raise TypeError(f"{function}: y is a MaskedArray, expected an array without a mask")
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"{function}: y has shape {labels.shape}, expected (n,)")
    if classes is None and labels.size == 0:
        raise ValueError(f"{function}: y is empty and classes is None, expected an int")
    if labels.dtype.kind not in "iu" and labels.size:  # an empty list has no dtype of its own
        raise TypeError(f"{function}: y has dtype {labels.dtype}, expected integers")
    if classes is None:
        classes = max(1, int(labels.max()) + 1)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise ValueError(f"{function}: y[{wrong[0]}] is {labels[wrong[0]]}, expected 0 to {classes - 1}")
    rows = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels.astype(np.intp)] = 1
    return rows
