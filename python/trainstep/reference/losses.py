"""Losses: each returns its value and its gradient, because training needs both and they share most of the work."""

import numpy as np
import numpy.typing as npt

from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype

Labels = npt.NDArray[np.int64] | Float64


def softmax_cross_entropy(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    """Return the cross-entropy of softmax(logits) against the labels, and its gradient.

    | ``p_k = exp(z_k) / sum_j exp(z_j)``
    | ``loss = -sum_k t_k * log(p_k)`` for each row, with t the label as a row of probabilities
    | ``dlogits_k = p_k * sum_j t_j - t_k``, which is ``p_k - t_k`` for a t that sums to 1

    A class index c stands for the row t with 1 at c and 0 elsewhere, so that the loss is ``-log(p_c)``.

    Parameters
    ----------
    logits : array_like, shape (B, C), float32 or float64
        Scores z, one row for each sample, one column for each class.
    labels : array_like, shape (B,), int32 or int64; or shape (B, C), dtype of logits
        Class indices from 0 to C - 1, or rows of probabilities (one-hot rows too).
    reduction : {"mean", "sum", "none"}, default "mean"
        What is made of the B losses: their mean, their sum, or nothing.
    out : ndarray, shape and dtype of logits, optional
        Where dlogits goes. Default: a new array.

    Returns
    -------
    loss : float; ndarray of shape (B,), dtype of logits, for reduction "none"
    dlogits : ndarray, shape and dtype of logits
        Gradient of the loss; for reduction "none", of the sum.

    Raises
    ------
    TypeError
        logits is neither float32 nor float64, or labels has none of the dtypes above.
    ValueError
        Shapes do not fit, the batch is empty, a label is out of range, a probability is negative, infinite or NaN, the
        reduction is unknown, or out is read-only.

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equations 4.104, 4.108 and 4.109.

    Examples
    --------
    Ten classes of equal score: the loss is ln 10.

    >>> import numpy as np
    >>> from trainstep.reference import softmax_cross_entropy
    >>> loss, dlogits = softmax_cross_entropy(np.zeros((1, 10)), np.array([3]))
    >>> round(loss, 6)
    2.302585
    >>> dlogits.round(2)
    array([[ 0.1,  0.1,  0.1, -0.9,  0.1,  0.1,  0.1,  0.1,  0.1,  0.1]])
    """
    function = "softmax_cross_entropy"
    _check_reduction(function, reduction)
    dtype = shared_dtype(function, logits=logits)
    z = np.asarray(logits, np.float64)
    if z.ndim != 2:
        raise ValueError(f"{function}: logits has {z.ndim} dimensions, wanted 2")
    if z.size == 0:
        raise ValueError(f"{function}: logits is empty, its shape is {z.shape}")
    t = _probabilities(function, labels, z.shape, dtype)
    check_out(function, "out", out, z.shape, dtype)

    with ieee():
        # Softmax does not change when a constant is taken from a row. With the maximum at 0, exp cannot overflow.
        shifted = z - z.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Where t is 0 the term is 0, even where log_p is minus infinity.
        row_losses = np.where(t == 0.0, 0.0, -t * log_p).sum(axis=1)
        dlogits = np.exp(log_p) * t.sum(axis=1, keepdims=True) - t
        # NaN logits must show in the loss, also where every t of theirs is 0.
        row_losses = np.where(np.isnan(log_p).any(axis=1), np.nan, row_losses)
        return _reduce(row_losses, dlogits, reduction, dtype, out)


def mse(
    pred: npt.ArrayLike, target: npt.ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    """Return the mean squared error of a prediction, and its gradient.

    | ``loss = mean over all elements of (pred - target)^2``
    | ``dpred = 2 * (pred - target) / number of elements``

    Parameters
    ----------
    pred : array_like, any shape, float32 or float64
        Predictions.
    target : array_like, shape and dtype of pred
        What they should be.
    reduction : {"mean", "sum", "none"}, default "mean"
        What is made of the squared errors: their mean over all elements, their sum, or nothing.
    out : ndarray, shape and dtype of pred, optional
        Where dpred goes. Default: a new array.

    Returns
    -------
    loss : float; ndarray of the shape and dtype of pred for reduction "none"
    dpred : ndarray, shape and dtype of pred
        Gradient of the loss; for reduction "none", of the sum.

    Raises
    ------
    TypeError
        pred and target are not both float32 or both float64.
    ValueError
        Shapes differ, pred is empty, the reduction is unknown, or out is read-only.

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 5.1.4.

    Examples
    --------
    >>> from trainstep.reference import mse
    >>> mse([[1.0, 2.0]], [[0.0, 4.0]])
    (2.5, array([[ 1., -2.]]))
    """
    _check_reduction("mse", reduction)
    dtype = shared_dtype("mse", pred=pred, target=target)
    p, t = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if p.shape != t.shape:
        raise ValueError(f"mse: pred has shape {p.shape}, target has {t.shape}")
    if p.size == 0:
        raise ValueError(f"mse: pred is empty, its shape is {p.shape}")
    check_out("mse", "out", out, p.shape, dtype)
    with ieee():
        error = p - t
        return _reduce(error * error, 2.0 * error, reduction, dtype, out)


def _reduce(
    losses: Float64, gradient_of_sum: Float64, reduction: str, dtype: np.dtype[np.floating], out: Array | None
) -> tuple[float | Array, Array]:
    """Make one loss of many, and scale the gradient to match."""
    if reduction == "none":
        return deliver(losses, dtype, None), deliver(gradient_of_sum, dtype, out)
    if reduction == "sum":
        return float(losses.sum()), deliver(gradient_of_sum, dtype, out)
    return float(losses.mean()), deliver(gradient_of_sum / losses.size, dtype, out)


def _check_reduction(function: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{function}: reduction is {reduction!r}, wanted one of mean, sum, none")


def _probabilities(function: str, labels: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Float64:
    """Return the labels as rows of probabilities, shape (B, C)."""
    rows, classes = shape
    given = np.asarray(labels)
    if given.dtype in (np.int32, np.int64):
        if given.shape != (rows,):
            raise ValueError(f"{function}: labels has shape {given.shape}, logits has {rows} rows")
        for row in np.flatnonzero((given < 0) | (given >= classes))[:1]:
            raise ValueError(f"{function}: labels[{row}] is {given[row]}, wanted 0 to {classes - 1}")
        one_hot = np.zeros(shape)
        one_hot[np.arange(rows), given] = 1.0
        return one_hot
    if given.dtype != dtype:
        raise TypeError(f"{function}: labels has dtype {given.dtype}, wanted int32, int64 or {dtype} as logits")
    if given.shape != shape:
        raise ValueError(f"{function}: labels has shape {given.shape}, logits has {shape}")
    for row, column in np.argwhere(~((given >= 0) & np.isfinite(given)))[:1]:
        raise ValueError(f"{function}: labels[{row}, {column}] is {given[row, column]}, wanted a probability")
    return given.astype(np.float64)
