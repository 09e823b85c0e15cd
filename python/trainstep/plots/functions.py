"""Functions of two variables to watch optimizers on: each gives its value and its gradient."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def ravine(w: ArrayLike) -> tuple[Any, Array]:
    """Give a narrow valley: 25 times as steep across as along.

    f(w) = (w_1^2 + 25 * w_2^2) / 2, df/dw = (w_1, 25 * w_2)

    Gradient descent zigzags across it from a rate of 1/25 on, and diverges from 2/25 on, where along it all rates below 2
    would do. The least value is 0, at (0, 0).

    Parameters
    ----------
    w : array, shape (2,) or (2, ...)
        Where; any real dtype, computed in float64.

    Returns
    -------
    value : float64, shape () or (...)
    gradient : ndarray, shape of w

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 4.3.1 and figure 4.6.

    Examples
    --------
    >>> from trainstep import plots
    >>> value, gradient = plots.ravine([2.0, 1.0])
    >>> float(value), gradient
    (14.5, array([ 2., 25.]))
    """
    a, b = _coordinates("ravine", w)
    return (a**2 + 25 * b**2) / 2, np.stack([a, 25 * b])


def rosenbrock(w: ArrayLike) -> tuple[Any, Array]:
    """Give Rosenbrock's valley, which is bent: to fall into it is easy, to follow it is not.

    f(w) = (1 - w_1)^2 + 100 * (w_2 - w_1^2)^2, df/dw = (-2 * (1 - w_1) - 400 * w_1 * (w_2 - w_1^2), 200 * (w_2 - w_1^2))

    The least value is 0, at (1, 1).

    Parameters
    ----------
    w : array, shape (2,) or (2, ...)
        Where; any real dtype, computed in float64.

    Returns
    -------
    value : float64, shape () or (...)
    gradient : ndarray, shape of w

    References
    ----------
    Rosenbrock: An automatic method for finding the greatest or least value of a function (The Computer Journal 3, 1960).

    Examples
    --------
    >>> from trainstep import plots
    >>> value, gradient = plots.rosenbrock([-1.0, 2.0])
    >>> float(value), gradient
    (104.0, array([396., 200.]))
    """
    a, b = _coordinates("rosenbrock", w)
    off = b - a**2
    return (1 - a) ** 2 + 100 * off**2, np.stack([-2 * (1 - a) - 400 * a * off, 200 * off])


def saddle(w: ArrayLike) -> tuple[Any, Array]:
    """Give a saddle: the way down across it begins level.

    f(w) = w_1^2 / 2 - w_2^2 / 2 + w_2^4 / 4, df/dw = (w_1, w_2^3 - w_2)

    At (0, 0) the gradient is 0 and the value 0; the least values are -1/4, at (0, 1) and (0, -1).

    Parameters
    ----------
    w : array, shape (2,) or (2, ...)
        Where; any real dtype, computed in float64.

    Returns
    -------
    value : float64, shape () or (...)
    gradient : ndarray, shape of w

    References
    ----------
    Dauphin et al.: Identifying and attacking the saddle point problem in high-dimensional non-convex optimization (NIPS 2014),
    section 3, for what saddles do; the quartic term, which gives it an end, is that of Nesterov: Introductory lectures on convex
    optimization (2004), example 1.2.2.

    Examples
    --------
    >>> from trainstep import plots
    >>> value, gradient = plots.saddle([1.0, 2.0])
    >>> float(value), gradient
    (2.5, array([1., 6.]))
    """
    a, b = _coordinates("saddle", w)
    return a**2 / 2 - b**2 / 2 + b**4 / 4, np.stack([a, b**3 - b])


def beale(w: ArrayLike) -> tuple[Any, Array]:
    """Give Beale's function: a flat middle between steep corners.

    f(w) = r_1^2 + r_2^2 + r_3^2, r_k = c_k - w_1 * (1 - w_2^k), c = (1.5, 2.25, 2.625)

    | df/dw = sum over k of 2 * r_k * (w_2^k - 1, k * w_1 * w_2^(k-1))

    The least value is 0, at (3, 0.5).

    Parameters
    ----------
    w : array, shape (2,) or (2, ...)
        Where; any real dtype, computed in float64.

    Returns
    -------
    value : float64, shape () or (...)
    gradient : ndarray, shape of w

    References
    ----------
    Moré, Garbow, Hillstrom: Testing unconstrained optimization software (ACM TOMS 7, 1981), problem 5.

    Examples
    --------
    >>> from trainstep import plots
    >>> value, gradient = plots.beale([3.0, 0.5])
    >>> float(value), gradient
    (0.0, array([0., 0.]))
    """
    a, b = _coordinates("beale", w)
    value, gradient = np.zeros(a.shape), np.zeros((2, *a.shape))
    for k, c in enumerate((1.5, 2.25, 2.625), start=1):
        r = c - a * (1 - b**k)
        value = value + r**2
        gradient += 2 * r * np.stack([b**k - 1, k * a * b ** (k - 1)])
    return value, gradient


def _coordinates(function: str, w: ArrayLike) -> Array:
    array = np.asarray(w)
    if array.dtype.kind not in "iuf" or array.ndim == 0 or len(array) != 2:
        raise ValueError(f"{function}: w has shape {array.shape} and dtype {array.dtype}, expected two real coordinates")
    return array.astype(np.float64)
