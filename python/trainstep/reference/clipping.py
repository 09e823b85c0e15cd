"""Norms of a list of arrays, and clipping by them, in place: what is done to gradients before a step."""

from collections.abc import Sequence

import numpy as np

from .activations import Array, ieee, shared_dtype


def global_norm(arrays: Sequence[Array]) -> float:
    """Return the Euclidean norm over all elements of all arrays.

    ``norm = sqrt(sum of x^2 over every x of every array)``

    Parameters
    ----------
    arrays : list of ndarray, any shapes, each float32 or float64
        The arrays; not one array. None, or none with an element: the norm is 0.

    Returns
    -------
    norm : float
        Worked out in float64.

    Raises
    ------
    TypeError
        arrays is itself an array, or one of them is neither float32 nor float64.

    References
    ----------
    Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import global_norm
    >>> global_norm([np.array([3.0, 0.0]), np.array([[4.0]])])
    5.0
    """
    _check("global_norm", arrays, written=False)
    return _norm(arrays)


def clip_by_global_norm_(arrays: Sequence[Array], max_norm: float) -> float:
    """Scale all arrays by one factor, in place, so that their norm together is at most max_norm.

    | ``norm = global_norm(arrays)``
    | ``x <- x * min(1, max_norm / (norm + 1e-6))`` for every array

    Parameters
    ----------
    arrays : list of ndarray, any shapes, each float32 or float64
        The gradients. Changed in place.
    max_norm : float
        The largest norm that they may have, at least 0.

    Returns
    -------
    norm : float
        The norm before clipping. Where it is NaN, all elements become NaN; where it is infinite, 0 or NaN.

    Raises
    ------
    TypeError
        arrays is itself an array, or one of them is neither float32 nor float64.
    ValueError
        max_norm is negative or NaN, or an array is read-only.

    Notes
    -----
    The 1e-6 is PyTorch's, in ``clip_grad_norm_``. Keras and the paper divide by the norm as it is.

    References
    ----------
    Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import clip_by_global_norm_
    >>> a, b = np.array([3.0, 0.0]), np.array([4.0])
    >>> clip_by_global_norm_([a, b], 1.0)
    5.0
    >>> a.round(4), b.round(4)
    (array([0.6, 0. ]), array([0.8]))
    """
    _check("clip_by_global_norm_", arrays, max_norm=max_norm)
    norm = _norm(arrays)
    for array in arrays:
        _scale(array, norm, max_norm)
    return norm


def clip_by_value_(arrays: Sequence[Array], limit: float) -> None:
    """Move every element into [-limit, limit], in place.

    ``x <- min(max(x, -limit), limit)``; NaN stays NaN

    Parameters
    ----------
    arrays : list of ndarray, any shapes, each float32 or float64
        The gradients. Changed in place.
    limit : float
        The largest size that an element may have, at least 0.

    Raises
    ------
    TypeError
        arrays is itself an array, or one of them is neither float32 nor float64.
    ValueError
        limit is negative or NaN, or an array is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 10.11.1 (element-wise clipping).

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import clip_by_value_
    >>> g = np.array([-3.0, 0.5, np.inf])
    >>> clip_by_value_([g], 1.0)
    >>> g
    array([-1. ,  0.5,  1. ])
    """
    _check("clip_by_value_", arrays, limit=limit)
    with ieee():
        for array in arrays:
            array[...] = np.clip(array.astype(np.float64), -limit, limit)


def clip_by_norm_(arrays: Sequence[Array], max_norm: float) -> list[float]:
    """Scale each array by a factor of its own, in place, so that its norm is at most max_norm.

    ``x <- x * min(1, max_norm / (norm + 1e-6))`` with the Euclidean norm of that array

    Parameters
    ----------
    arrays : list of ndarray, any shapes, each float32 or float64
        The gradients. Changed in place.
    max_norm : float
        The largest norm that each may have, at least 0.

    Returns
    -------
    norms : list of float
        The norm of each array before clipping.

    Raises
    ------
    TypeError
        arrays is itself an array, or one of them is neither float32 nor float64.
    ValueError
        max_norm is negative or NaN, or an array is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), equations 10.48 and 10.49, for each array by itself.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import clip_by_norm_
    >>> a, b = np.array([3.0, 4.0]), np.array([0.5])
    >>> clip_by_norm_([a, b], 1.0)
    [5.0, 0.5]
    >>> a.round(4), b
    (array([0.6, 0.8]), array([0.5]))
    """
    _check("clip_by_norm_", arrays, max_norm=max_norm)
    norms = [_norm([array]) for array in arrays]
    for array, norm in zip(arrays, norms, strict=True):
        _scale(array, norm, max_norm)
    return norms


def _norm(arrays: Sequence[Array]) -> float:
    with ieee():
        return float(np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in arrays)))


def _scale(array: Array, norm: float, max_norm: float) -> None:
    with ieee():
        # NumPy's minimum keeps NaN, as an infinite or unknown gradient must not come out as an ordinary one.
        array[...] = array.astype(np.float64) * np.minimum(1.0, np.float64(max_norm) / (norm + 1e-6))


def _check(function: str, arrays: Sequence[Array], *, written: bool = True, **bounds: float) -> None:
    if isinstance(arrays, np.ndarray):
        raise TypeError(f"{function}: arrays is one array, wanted a list of arrays")
    for i, array in enumerate(arrays):
        name = f"arrays[{i}]"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{function}: {name} is a {type(array).__name__}, wanted an ndarray")
        shared_dtype(function, **{name: array})
        if written and not array.flags.writeable:
            raise ValueError(f"{function}: {name} is read-only")
    for name, bound in bounds.items():
        if not bound >= 0.0:
            raise ValueError(f"{function}: {name} is {bound}, wanted 0 or more")
