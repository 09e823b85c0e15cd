"""Moving averages."""

import numpy as np
import numpy.typing as npt

from .activations import Array, check_out, deliver, ieee, shared_dtype


def ewma(x: npt.ArrayLike, beta: float, bias_correction: bool = False, *, out: Array | None = None) -> Array:
    """Return the exponentially weighted moving average of x along its first axis.

    | ``v_t = beta * v_(t-1) + (1 - beta) * x_t``, ``v_0 = 0``
    | with bias correction: ``v_t / (1 - beta^t)``

    It is an average over about the last 1 / (1 - beta) values. Without bias correction it starts too low, from 0.

    Parameters
    ----------
    x : array_like, shape (n, ...), float32 or float64
        Values, x_1 first.
    beta : float
        What is kept of the average at each step, 0 <= beta < 1.
    bias_correction : bool, default False
        Whether each average is divided by the sum of its weights.
    out : ndarray, shape and dtype of x, optional
        Where the result goes; x itself is allowed. Default: a new array.

    Returns
    -------
    v : ndarray, shape and dtype of x
        v_1 first.

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or an option is of another type.
    ValueError
        x has no axis, beta is out of range, or out has another shape or is read-only.

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1 and section 3 (the correction).

    Examples
    --------
    >>> from trainstep.reference import ewma
    >>> ewma([4.0, 4.0, 8.0], 0.5)
    array([2. , 3. , 5.5])
    >>> ewma([4.0, 4.0, 8.0], 0.5, bias_correction=True).round(3)
    array([4.   , 4.   , 6.286])
    """
    dtype = shared_dtype("ewma", x=x)
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"ewma: beta is {beta}, wanted 0 <= beta < 1")
    x64 = np.asarray(x, np.float64)
    if x64.ndim == 0:
        raise ValueError("ewma: x has shape (), wanted one axis or more")
    check_out("ewma", "out", out, x64.shape, dtype)
    averages = np.empty_like(x64)
    average = np.zeros(x64.shape[1:])
    with ieee():
        for t, values in enumerate(x64, start=1):
            average = beta * average + (1.0 - beta) * values
            averages[t - 1] = average / -np.expm1(t * np.log(beta)) if bias_correction else average
    return deliver(averages, dtype, out)
