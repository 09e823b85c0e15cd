"""Dropout: units left out at random, by a mask that can be drawn again."""

import numpy as np
import numpy.typing as npt

from trainstep._checks import mask_source, seed_and_counter

from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype

Mask = npt.NDArray[np.bool_]
_Words = npt.NDArray[np.uint64]

_PURPOSE = 3  # of the numbers, in the counter: no other use of a seed shares one
_LOW = np.uint64(0xFFFFFFFF)


def dropout(
    x: npt.ArrayLike,
    rate: float,
    *,
    seed: int,
    counter: int,
    out: tuple[Array | None, Mask | None] | None = None,
) -> tuple[Array, Mask]:
    """Return x with each element set to 0 with probability rate and scaled otherwise, and the mask of those that are kept.

    ``y = x / (1 - rate) where mask, else 0``

    The expectation of y is x, so that nothing is to be done where nothing is dropped (at inference). With p = 1 - rate for the
    probability that a unit is kept, ``y = mask * x / p``.

    Parameters
    ----------
    x : array_like, any shape, float32 or float64
        Input.
    rate : float
        The probability that an element is dropped, 0 <= rate < 1.
    seed : int
        What the mask is drawn from, modulo 2^64.
    counter : int
        Which of the seed's masks it is, from 0 to 2^32 - 1: in training the number of the step.
    out : tuple of two ndarrays (y, mask), optional
        Where the results go; None in the place of one: a new array. y may be x. Default: new arrays.

    Returns
    -------
    y : ndarray, shape and dtype of x
    mask : ndarray, shape of x, bool
        True where an element is kept.

    Raises
    ------
    TypeError
        x is neither float32 nor float64, or an option is of another type.
    ValueError
        rate or counter is out of range, or an array of out has another shape or is read-only.

    Notes
    -----
    The mask is a function of seed, counter and the number of the element alone. It does not depend on the values, the dtype, the
    threads or the instruction set. Element e is kept where word e // 16 % 4 of the Philox block 16 * (e // 64) + e % 16 is at least
    rate * 2^32. A dropped element is 0 whatever it was, NaN too.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, Dropout: A Simple Way to Prevent Neural Networks from Overfitting,
    JMLR 15 (2014), section 4; scaled in training as in its section 10. Philox: Salmon, Moraes, Dror & Shaw, SC 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import dropout
    >>> y, mask = dropout(np.ones(8), 0.5, seed=0, counter=0)
    >>> y
    array([0., 2., 0., 2., 0., 2., 0., 0.])
    >>> bool((y == 2 * mask).all())
    True
    """
    dtype = shared_dtype("dropout", x=x)
    threshold = _threshold("dropout", rate)
    drawn_from = seed_and_counter("dropout", seed, counter)
    x64 = np.asarray(x, np.float64)
    y_out, mask_out = (None, None) if out is None else out
    check_out("dropout", "out[0] (y)", y_out, x64.shape, dtype)
    _check_mask("dropout", "out[1] (mask)", mask_out, x64.shape)
    mask = _mask(x64.shape, threshold, *drawn_from)
    y = deliver(_apply(x64, rate, mask), dtype, y_out)
    if mask_out is None:
        return y, mask
    mask_out[...] = mask
    return y, mask_out


def dropout_backward(
    dy: npt.ArrayLike,
    rate: float,
    mask: Mask | None = None,
    *,
    seed: int | None = None,
    counter: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of x for ``y, mask = dropout(x, rate, seed=seed, counter=counter)``.

    ``dx = dy / (1 - rate) where mask, else 0``

    Parameters
    ----------
    dy : array_like, any shape, float32 or float64
        Gradient of y.
    rate : float
        That of the forward function, 0 <= rate < 1.
    mask : array_like, shape of dy, bool, optional
        What the forward function gave besides y. Default: drawn again from seed and counter.
    seed, counter : int, optional
        Those of the forward function, where there is no mask.
    out : ndarray, shape and dtype of dy, optional
        Where the result goes; dy itself is allowed. Default: a new array.

    Returns
    -------
    dx : ndarray, shape and dtype of dy

    Raises
    ------
    TypeError
        dy is neither float32 nor float64, mask is not of bools, or an option is of another type.
    ValueError
        Shapes do not fit, rate or counter is out of range, there is neither a mask nor a seed and a counter, or both, or out is
        read-only.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, Dropout: A Simple Way to Prevent Neural Networks from Overfitting,
    JMLR 15 (2014), section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import dropout, dropout_backward
    >>> _, mask = dropout(np.ones(4), 0.5, seed=7, counter=0)
    >>> mask
    array([ True, False,  True, False])
    >>> dropout_backward(np.array([1.0, 2.0, 3.0, 4.0]), 0.5, mask)
    array([2., 0., 6., 0.])
    >>> dropout_backward(np.array([1.0, 2.0, 3.0, 4.0]), 0.5, seed=7, counter=0)
    array([2., 0., 6., 0.])
    """
    dtype = shared_dtype("dropout_backward", dy=dy)
    threshold = _threshold("dropout_backward", rate)
    dy64 = np.asarray(dy, np.float64)
    drawn_from = mask_source("dropout_backward", mask, seed, counter)
    if mask is None:
        kept = _mask(dy64.shape, threshold, *drawn_from)
    else:
        kept = np.asarray(mask)
        _check_mask("dropout_backward", "mask", kept, dy64.shape, written=False)
    check_out("dropout_backward", "out", out, dy64.shape, dtype)
    return deliver(_apply(dy64, rate, kept), dtype, out)


def _apply(x: Float64, rate: float, mask: Mask) -> Float64:
    with ieee():
        return np.where(mask, x / (1.0 - rate), 0.0)


def _threshold(function: str, rate: float) -> np.uint64:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{function}: rate is {rate}, wanted 0 <= rate < 1")
    return np.uint64(min(round(rate * 2.0**32), 2**32 - 1))


def _check_mask(function: str, name: str, mask: Mask | None, shape: tuple[int, ...], *, written: bool = True) -> None:
    if mask is None:
        return
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"{function}: {name} is no array of bools")
    if mask.shape != shape:
        raise ValueError(f"{function}: {name} has shape {mask.shape}, wanted {shape}")
    if written and not mask.flags.writeable:
        raise ValueError(f"{function}: {name} is read-only")


def _mask(shape: tuple[int, ...], threshold: np.uint64, seed: int, counter: int) -> Mask:
    size = int(np.prod(shape, dtype=np.int64))
    groups = -(-size // 64)
    words = _philox(np.arange(16 * groups, dtype=np.uint64), counter, seed)
    # (group, block, word) -> (group, word, block)
    return (np.stack(words, axis=-1).reshape(groups, 16, 4).swapaxes(1, 2).reshape(-1)[:size] >= threshold).reshape(shape)


def _philox(block: _Words, counter: int, seed: int) -> tuple[_Words, _Words, _Words, _Words]:
    """Return the four words of each block of Philox4x32-10: ten rounds of two products of 32 by 32 bits."""
    c0, c1 = block & _LOW, block >> np.uint64(32)
    c2, c3 = np.full_like(block, counter), np.full_like(block, _PURPOSE)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = p1 >> np.uint64(32) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = p0 >> np.uint64(32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3
