"""Losses: each returns its value and its gradient, because training needs both and they share most of the work.

Those over classes (softmax_cross_entropy, categorical_cross_entropy, kl_divergence) have a loss for each row and a mean over
rows; the others have one for each element and a mean over elements. With weights a mean is sum(weight * loss) / sum(weight), and
0 where all weights are 0.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trainstep._checks import number

from ._sections import loss_over_elements, loss_over_rows
from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype


@loss_over_rows("a label is out of range", "a probability is negative, infinite or NaN")
def softmax_cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the cross-entropy of softmax(logits) against the labels, and its gradient.

    | ``p_k = exp(z_k) / sum_j exp(z_j)``
    | ``q_k = s * w_k * ((1 - label_smoothing) * t_k + label_smoothing / C)``
    | ``loss = -sum_k q_k * log(p_k)`` for each row, with t the label as a row of probabilities
    | ``dlogits_k = p_k * sum_j q_j - q_k``, which is ``p_k - t_k`` without weights and smoothing for a t that sums to 1

    A class index c stands for the row t with 1 at c and 0 elsewhere, so that the loss is ``-log(p_c)``, times the weights. With
    weights the mean is divided by the sum of ``s * sum_k w_k t_k``, which is that of the labels' weights: as PyTorch does for class
    indices. (For rows of probabilities it divides by B; here one-hot rows give what class indices give.)

    Parameters
    ----------
    logits : array_like, shape (B, C), float32 or float64
        Scores z, one row for each sample, one column for each class.
    labels : array_like, shape (B,), int32 or int64; or shape (B, C), dtype of logits
        Class indices from 0 to C - 1, or rows of probabilities (one-hot rows too).
    weight : array_like, shape (C,), dtype of logits, optional
        Weights w of the classes, finite and at least 0. Default: 1 each.
    {sample_weight}
    label_smoothing : float, default 0.0
        Share of each target, from 0 to 1, that is spread over all classes alike.
    {reduction}
    {out}

    {returns}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equations 4.104, 4.108 and 4.109; label smoothing: Szegedy et al.,
    Rethinking the Inception architecture for computer vision (2016), section 7.

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
    smoothing = number(f"{function}: label_smoothing", label_smoothing, 0, 1)
    z, t, s, dtype = _rows(function, "logits", logits, "labels", labels, sample_weight, reduction, out)
    w = _weights(function, "weight", weight, z.shape[1], dtype, "logits")
    with ieee():
        q = s[:, None] * w * ((1.0 - smoothing) * t + smoothing / z.shape[1])
        log_p = _log_softmax(z)
        row_losses = _show_nan(_zero_at_0(q, -q * log_p).sum(axis=1), log_p)
        dlogits = np.exp(log_p) * q.sum(axis=1, keepdims=True) - q
        of_class = (w * t).sum(axis=1) if weight is not None else 1.0
        return _reduce(row_losses, dlogits, s * of_class, reduction, dtype, out)


@loss_over_elements("a target is not between 0 and 1")
def sigmoid_binary_cross_entropy(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the cross-entropy of sigmoid(logits) against targets of 0 and 1, and its gradient.

    | ``p = 1 / (1 + exp(-z))``
    | ``loss = -t * log(p) - (1 - t) * log(1 - p) = max(z, 0) - z * t + log(1 + exp(-|z|))`` for each element
    | ``dlogits = p - t``

    The sigmoid is part of the loss: the model gives scores. Stable for scores of any size.

    Parameters
    ----------
    logits : array_like, any shape, float32 or float64
        Scores z: for two classes one column, for several labels at once one column each.
    targets : array_like, shape and dtype of logits
        Probabilities t from 0 to 1, most often 0 or 1.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equations 4.90 and 4.91.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import sigmoid_binary_cross_entropy
    >>> loss, dlogits = sigmoid_binary_cross_entropy([[0.0, 1e4]], [[1.0, 1.0]], reduction="sum")
    >>> round(loss, 6), dlogits
    (0.693147, array([[-0.5,  0. ]]))
    """
    function = "sigmoid_binary_cross_entropy"
    z, t, s, dtype = _elements(function, "logits", logits, "targets", targets, _FRACTIONS, sample_weight, reduction, out)
    with ieee():
        # p is taken from exp(-|z|) on either side, so that no exp overflows; what is left beside log(1 + exp(-|z|)) is |z| times
        # the probability of the other side.
        e = np.exp(-np.abs(z))
        other = np.where(z > 0.0, 1.0 - t, t)
        losses = np.log1p(e) + _zero_at_0(other, np.abs(z) * other)
        dlogits = np.where(z > 0.0, other - e / (1.0 + e), e / (1.0 + e) - other)
        return _reduce(s * losses, s * dlogits, s, reduction, dtype, out)


@loss_over_rows("a label is out of range", "an element of onehot is negative, infinite or NaN")
def categorical_cross_entropy(
    probs: npt.ArrayLike,
    onehot: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the cross-entropy of probabilities against one-hot rows, and its gradient.

    | ``loss = -sum_k t_k * log(p_k)`` for each row
    | ``dprobs_k = -t_k / p_k``, and 0 where t_k is 0

    Where p_k is 0 and t_k is not, the loss is infinite and the gradient minus infinity: nothing is cut off. `softmax_cross_entropy`
    takes the scores before the softmax and has no such point.

    Parameters
    ----------
    probs : array_like, shape (B, C), float32 or float64
        Probabilities p, one row for each sample, such as a softmax gives.
    onehot : array_like, shape (B, C), dtype of probs; or shape (B,), int32 or int64
        Rows t of probabilities, or class indices.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2.3.

    Examples
    --------
    >>> from trainstep.reference import categorical_cross_entropy
    >>> loss, dprobs = categorical_cross_entropy([[0.5, 0.25, 0.25]], [[0.0, 1.0, 0.0]])
    >>> round(loss, 6), dprobs
    (1.386294, array([[ 0., -4.,  0.]]))
    """
    function = "categorical_cross_entropy"
    p, t, s, dtype = _rows(function, "probs", probs, "onehot", onehot, sample_weight, reduction, out)
    with ieee():
        row_losses = _show_nan(_zero_at_0(t, -t * np.log(p)).sum(axis=1), p)
        dprobs = np.where((t == 0.0) & np.isnan(p), np.nan, _zero_at_0(t, -t / p))
        return _reduce(s * row_losses, s[:, None] * dprobs, s, reduction, dtype, out)


@loss_over_elements()
def mse(
    pred: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the mean squared error of a prediction, and its gradient.

    | ``loss = (pred - target)^2`` for each element
    | ``dpred = 2 * (pred - target)``, divided by the number of elements for the mean

    Parameters
    ----------
    pred : array_like, any shape, float32 or float64
        Predictions.
    target : array_like, shape and dtype of pred
        What they should be.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 5.1.4.

    Examples
    --------
    >>> from trainstep.reference import mse
    >>> mse([[1.0, 2.0]], [[0.0, 4.0]])
    (2.5, array([[ 1., -2.]]))
    """
    p, t, s, dtype = _elements("mse", "pred", pred, "target", target, None, sample_weight, reduction, out)
    with ieee():
        return _reduce(s * (p - t) ** 2, s * 2.0 * (p - t), s, reduction, dtype, out)


@loss_over_elements()
def mae(
    pred: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the mean absolute error of a prediction, and its gradient.

    | ``loss = |pred - target|`` for each element
    | ``dpred = sign(pred - target)``, 0 where they are equal, divided by the number of elements for the mean

    Parameters
    ----------
    pred : array_like, any shape, float32 or float64
        Predictions.
    target : array_like, shape and dtype of pred
        What they should be.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), section 1.5.5.

    Examples
    --------
    >>> from trainstep.reference import mae
    >>> mae([[1.0, 2.0]], [[0.0, 4.0]])
    (1.5, array([[ 0.5, -0.5]]))
    """
    p, t, s, dtype = _elements("mae", "pred", pred, "target", target, None, sample_weight, reduction, out)
    with ieee():
        return _reduce(s * np.abs(p - t), s * np.sign(p - t), s, reduction, dtype, out)


@loss_over_elements("delta is not above 0")
def huber(
    pred: npt.ArrayLike,
    target: npt.ArrayLike,
    delta: float = 1.0,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return Huber's loss of a prediction, squared for small errors and absolute for large, and its gradient.

    | ``e = pred - target``
    | ``loss = e^2 / 2`` where ``|e| <= delta``, else ``delta * (|e| - delta / 2)``
    | ``dpred = e`` where ``|e| <= delta``, else ``delta * sign(e)``; divided by the number of elements for the mean

    Parameters
    ----------
    pred : array_like, any shape, float32 or float64
        Predictions.
    target : array_like, shape and dtype of pred
        What they should be.
    delta : float, default 1.0
        The error from which on the loss grows linearly, above 0.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964).

    Examples
    --------
    >>> from trainstep.reference import huber
    >>> huber([[0.5, 3.0]], [[0.0, 0.0]], reduction="sum")
    (2.625, array([[0.5, 1. ]]))
    """
    d = number("huber: delta", delta, above=0)
    p, t, s, dtype = _elements("huber", "pred", pred, "target", target, None, sample_weight, reduction, out)
    with ieee():
        e = p - t
        # The piece within delta is what e^2 / 2 has collected there, the rest grows by delta a unit.
        inside = np.clip(e, -d, d)
        losses = 0.5 * inside * inside + d * (np.abs(e) - np.abs(inside))
        return _reduce(s * losses, s * inside, s, reduction, dtype, out)


@loss_over_elements("a target is neither -1 nor 1")
def hinge(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the hinge loss of scores against signs, and its gradient.

    | ``loss = max(0, 1 - t * scores)`` for each element
    | ``dscores = -t`` where ``t * scores < 1``, else 0; divided by the number of elements for the mean

    Parameters
    ----------
    scores : array_like, any shape, float32 or float64
        Scores; the sign of each says the class, and its size how sure that is.
    targets : array_like, shape and dtype of scores
        The sides t: -1 or 1.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), section 7.1.2.

    Examples
    --------
    >>> from trainstep.reference import hinge
    >>> hinge([[0.5, 2.0, -1.0]], [[1.0, 1.0, 1.0]], reduction="sum")
    (2.5, array([[-1.,  0., -1.]]))
    """
    x, t, s, dtype = _elements("hinge", "scores", scores, "targets", targets, _SIGNS, sample_weight, reduction, out)
    with ieee():
        margin = 1.0 - t * x
        slope = np.where(margin > 0.0, -t, np.where(np.isnan(margin), np.nan, 0.0))
        return _reduce(s * np.maximum(margin, 0.0), s * slope, s, reduction, dtype, out)


@loss_over_elements("a count is negative, infinite or NaN")
def poisson_nll(
    log_rate: npt.ArrayLike,
    counts: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the negative log-likelihood of counts under Poisson rates, and its gradient.

    | ``loss = exp(log_rate) - n * log_rate`` for each element, with 0 for n * log_rate where the count n is 0, and infinite
      where exp(log_rate) is
    | ``dlog_rate = exp(log_rate) - n``

    The term log(n!), which does not depend on the prediction, is left out, as by PyTorch's default.

    Parameters
    ----------
    log_rate : array_like, any shape, float32 or float64
        Logarithms of the expected counts.
    counts : array_like, shape and dtype of log_rate
        Counts n, finite and at least 0.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    McCullagh & Nelder, Generalized Linear Models (1989), section 6.2.

    Examples
    --------
    >>> from trainstep.reference import poisson_nll
    >>> poisson_nll([[0.0, 0.0]], [[1.0, 3.0]], reduction="sum")
    (2.0, array([[ 0., -2.]]))
    """
    function = "poisson_nll"
    x, n, s, dtype = _elements(function, "log_rate", log_rate, "counts", counts, _FROM_0, sample_weight, reduction, out)
    with ieee():
        rate = np.exp(x)
        losses = np.where(np.isinf(rate), rate, rate - _zero_at_0(n, n * x))
        return _reduce(s * losses, s * (rate - n), s, reduction, dtype, out)


@loss_over_rows("a label is out of range", "a probability is negative, infinite or NaN")
def kl_divergence(
    logits: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """Return the Kullback-Leibler divergence of softmax(logits) from probabilities, and its gradient.

    | ``p_k = exp(z_k) / sum_j exp(z_j)``
    | ``loss = sum_k t_k * (log(t_k) - log(p_k))`` for each row, with 0 where t_k is 0
    | ``dlogits_k = p_k * sum_j t_j - t_k``

    The mean is over rows, which is PyTorch's ``batchmean``.

    Parameters
    ----------
    logits : array_like, shape (B, C), float32 or float64
        Scores z, one row for each sample.
    probs : array_like, shape (B, C), dtype of logits; or shape (B,), int32 or int64
        Rows t of probabilities, or class indices, whose divergence is the cross-entropy.
    {sample_weight}
    {reduction}
    {out}

    {returns}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equation 1.113.

    Examples
    --------
    >>> from trainstep.reference import kl_divergence
    >>> loss, dlogits = kl_divergence([[0.0, 0.0]], [[0.25, 0.75]])
    >>> round(loss, 6), dlogits
    (0.130812, array([[ 0.25, -0.25]]))
    """
    function = "kl_divergence"
    z, t, s, dtype = _rows(function, "logits", logits, "probs", probs, sample_weight, reduction, out)
    with ieee():
        log_p = _log_softmax(z)
        row_losses = _show_nan(_zero_at_0(t, t * (np.log(t) - log_p)).sum(axis=1), log_p)
        dlogits = np.exp(log_p) * t.sum(axis=1, keepdims=True) - t
        return _reduce(s * row_losses, s[:, None] * dlogits, s, reduction, dtype, out)


# What targets may be, where it is not any number: the name, and what is right of an array.
_Kind = tuple[str, Callable[[Float64], npt.NDArray[np.bool_]]]
_FRACTIONS: _Kind = ("a number from 0 to 1", lambda t: (t >= 0.0) & (t <= 1.0))
_SIGNS: _Kind = ("-1 or 1", lambda t: np.abs(t) == 1.0)
_FROM_0: _Kind = ("a finite number of at least 0", lambda t: (t >= 0.0) & np.isfinite(t))


def _log_softmax(z: Float64) -> Float64:
    # Softmax does not change when a constant is taken from a row. With the maximum at 0, exp cannot overflow.
    shifted = z - z.max(axis=1, keepdims=True)
    result: Float64 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _zero_at_0(factor: Float64, product: Float64) -> Float64:
    """Where the factor is 0 the product is 0, even where the other factor is infinite."""
    return np.where(factor == 0.0, 0.0, product)


def _show_nan(row_losses: Float64, pred: Float64) -> Float64:
    """NaN predictions must show in the loss, also where every t of theirs is 0."""
    return np.where(np.isnan(pred).any(axis=1), np.nan, row_losses)


def _elements(
    function: str,
    pred_name: str,
    pred: npt.ArrayLike,
    target_name: str,
    target: npt.ArrayLike,
    kind: _Kind | None,
    sample_weight: npt.ArrayLike | None,
    reduction: str,
    out: Array | None,
) -> tuple[Float64, Float64, Float64, np.dtype[np.floating]]:
    """Check the arguments of a loss over elements; give predictions, targets and weights of one shape, and the dtype."""
    _check_reduction(function, reduction)
    dtype = shared_dtype(function, **{pred_name: pred, target_name: target})
    p, t = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if p.shape != t.shape:
        raise ValueError(f"{function}: {pred_name} has shape {p.shape}, {target_name} has {t.shape}")
    if p.size == 0:
        raise ValueError(f"{function}: {pred_name} is empty, its shape is {p.shape}")
    if kind is not None:
        wanted, fits = kind
        for at in np.argwhere(~fits(t))[:1]:
            raise ValueError(f"{function}: {target_name}[{', '.join(map(str, at))}] is {t[tuple(at)]}, wanted {wanted}")
    if sample_weight is not None and p.ndim == 0:
        raise ValueError(f"{function}: sample_weight is given, wanted None: {pred_name} has no rows")
    s = _weights(function, "sample_weight", sample_weight, len(p) if p.ndim else 1, dtype, pred_name)
    check_out(function, "out", out, p.shape, dtype)
    return p, t, np.broadcast_to(s.reshape((-1,) + (1,) * (p.ndim - 1)) if p.ndim else s[0], p.shape), dtype


def _rows(
    function: str,
    pred_name: str,
    pred: npt.ArrayLike,
    target_name: str,
    target: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None,
    reduction: str,
    out: Array | None,
) -> tuple[Float64, Float64, Float64, np.dtype[np.floating]]:
    """Check the arguments of a loss over classes; give predictions, targets as rows, weights of the rows, and the dtype."""
    _check_reduction(function, reduction)
    dtype = shared_dtype(function, **{pred_name: pred})
    p = np.asarray(pred, np.float64)
    if p.ndim != 2:
        raise ValueError(f"{function}: {pred_name} has {p.ndim} dimensions, wanted 2")
    if p.size == 0:
        raise ValueError(f"{function}: {pred_name} is empty, its shape is {p.shape}")
    t = _probabilities(function, pred_name, target_name, target, p.shape, dtype)
    s = _weights(function, "sample_weight", sample_weight, len(p), dtype, pred_name)
    check_out(function, "out", out, p.shape, dtype)
    return p, t, s, dtype


def _weights(function: str, name: str, weights: npt.ArrayLike | None, count: int, dtype: np.dtype[np.floating], of: str) -> Float64:
    if weights is None:
        return np.ones(count)
    given = np.asarray(weights)
    if given.dtype != dtype:
        raise TypeError(f"{function}: {name} has dtype {given.dtype}, wanted {dtype} as {of}")
    if given.shape != (count,):
        raise ValueError(f"{function}: {name} has shape {given.shape}, wanted {(count,)}")
    for i in np.flatnonzero(~_FROM_0[1](given))[:1]:
        raise ValueError(f"{function}: {name}[{i}] is {given[i]}, wanted {_FROM_0[0]}")
    return given.astype(np.float64)


def _reduce(
    losses: Float64,
    gradient_of_sum: Float64,
    weights: Float64,
    reduction: str,
    dtype: np.dtype[np.floating],
    out: Array | None,
) -> tuple[float | Array, Array]:
    """Make one loss of many, each with its weight in it, and scale the gradient to match."""
    if reduction == "none":
        return deliver(losses, dtype, None), deliver(gradient_of_sum, dtype, out)
    if reduction == "sum":
        return float(losses.sum()), deliver(gradient_of_sum, dtype, out)
    total = float(weights.sum())
    if total == 0.0:  # the mean of nothing
        return 0.0, deliver(0.0 * gradient_of_sum, dtype, out)
    return float(losses.sum() / total), deliver(gradient_of_sum / total, dtype, out)


def _check_reduction(function: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{function}: reduction is {reduction!r}, wanted one of mean, sum, none")


def _probabilities(
    function: str,
    pred_name: str,
    target_name: str,
    target: npt.ArrayLike,
    shape: tuple[int, ...],
    dtype: np.dtype[np.floating],
) -> Float64:
    """Return labels or rows as rows of probabilities, shape (B, C)."""
    rows, classes = shape
    given = np.asarray(target)
    if given.dtype in (np.int32, np.int64):
        if given.shape != (rows,):
            raise ValueError(f"{function}: {target_name} has shape {given.shape}, {pred_name} has {rows} rows")
        for row in np.flatnonzero((given < 0) | (given >= classes))[:1]:
            raise ValueError(f"{function}: {target_name}[{row}] is {given[row]}, wanted 0 to {classes - 1}")
        one_hot = np.zeros(shape)
        one_hot[np.arange(rows), given] = 1.0
        return one_hot
    if given.dtype != dtype:
        raise TypeError(f"{function}: {target_name} has dtype {given.dtype}, wanted int32, int64 or {dtype} as {pred_name}")
    if given.shape != shape:
        raise ValueError(f"{function}: {target_name} has shape {given.shape}, {pred_name} has {shape}")
    for row, column in np.argwhere(~((given >= 0) & np.isfinite(given)))[:1]:
        raise ValueError(f"{function}: {target_name}[{row}, {column}] is {given[row, column]}, wanted a probability")
    return given.astype(np.float64)
