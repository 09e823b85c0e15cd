"""Metrics: how good predictions are, in numbers that are looked at and not trained for.

Those of classes take scores, shape (rows, C): the class of a row is that of its largest score, of equal ones the first. One column
is the score of the second of two classes, 0 and 1: it is predicted where the score is above 0. A row with a NaN is of no class, and
so wrong. Class indices are as good as one-hot rows; of rows of probabilities the class is the first largest, too.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from trainstep._checks import integer

from ._sections import metric
from .activations import Array, Float64, check_out, ieee, shared_dtype

__all__ = ["accuracy", "confusion_matrix", "f1", "mae", "mse", "precision", "r2", "recall", "top_k_accuracy"]

AVERAGES = ("macro", "micro", "weighted", "binary")
Indices = npt.NDArray[np.int64]


@metric("classes")
def accuracy(pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the share of rows whose class is predicted rightly.

    ``sum_i s_i [class(pred_i) = y_i] / sum_i s_i``

    Parameters
    ----------
    {pred}
    {y}
    {sample_weight}

    Returns
    -------
    accuracy : float

    {raises}

    References
    ----------
    Goodfellow, Bengio & Courville, Deep Learning (2016), section 5.1.2.

    Examples
    --------
    >>> from trainstep.reference.metrics import accuracy
    >>> accuracy([[0.1, 0.7], [0.4, 0.3], [0.2, 0.2]], [1, 1, 0])
    0.6666666666666666
    """
    scores, wanted, s, _ = _classes("accuracy", pred, y, sample_weight)
    return _mean(_predicted(scores) == wanted, s)


@metric("classes")
def top_k_accuracy(pred: npt.ArrayLike, y: npt.ArrayLike, k: int = 5, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the share of rows whose class is among the k of the largest scores.

    ``sum_i s_i [rank(y_i) < k] / sum_i s_i``, rank the number of classes with larger scores, or with equal ones and lower indices

    So of equal scores the first come first, and k = 1 is `accuracy`. (scikit-learn takes the last first.)

    Parameters
    ----------
    {pred}
    {y}
    k : int, default 5
        How many classes may be named, 1 to the number of classes.
    {sample_weight}

    Returns
    -------
    accuracy : float

    {raises}

    References
    ----------
    Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 115, 2015), section 4.1 (1 - the top-5 error).

    Examples
    --------
    >>> from trainstep.reference.metrics import top_k_accuracy
    >>> top_k_accuracy([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [2, 2], k=2)
    0.5
    """
    scores, wanted, s, classes = _classes("top_k_accuracy", pred, y, sample_weight)
    k = integer("top_k_accuracy: k", k, 1)
    if k > classes:
        raise ValueError(f"top_k_accuracy: k is {k}, expected at most the {classes} classes")
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    named = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return _mean((named == wanted[:, None]).any(axis=1) & ~np.isnan(scores).any(axis=1), s)


@metric("classes")
def precision(
    pred: npt.ArrayLike, y: npt.ArrayLike, average: str | None = "macro", sample_weight: npt.ArrayLike | None = None
) -> float | Array:
    """Return the share of what was predicted to be of a class that is.

    ``P_c = TP_c / (TP_c + FP_c)`` for each class c, and 0 where nothing was predicted to be of it

    Parameters
    ----------
    {pred}
    {y}
    {average}
    {sample_weight}

    {of_classes}

    {raises}

    References
    ----------
    Sokolova & Lapalme, A systematic analysis of performance measures for classification tasks (2009), table 3.

    Examples
    --------
    >>> from trainstep.reference.metrics import precision
    >>> precision([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1], average=None)
    array([0.5, 1. ])
    """
    return _of_classes("precision", pred, y, average, sample_weight)


@metric("classes")
def recall(
    pred: npt.ArrayLike, y: npt.ArrayLike, average: str | None = "macro", sample_weight: npt.ArrayLike | None = None
) -> float | Array:
    """Return the share of a class that was predicted to be of it.

    ``R_c = TP_c / (TP_c + FN_c)`` for each class c, and 0 where no row is of it

    Parameters
    ----------
    {pred}
    {y}
    {average}
    {sample_weight}

    {of_classes}

    {raises}

    References
    ----------
    Sokolova & Lapalme, A systematic analysis of performance measures for classification tasks (2009), table 3.

    Examples
    --------
    >>> from trainstep.reference.metrics import recall
    >>> recall([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1], average=None)
    array([1. , 0.5])
    """
    return _of_classes("recall", pred, y, average, sample_weight)


@metric("classes")
def f1(
    pred: npt.ArrayLike, y: npt.ArrayLike, average: str | None = "macro", sample_weight: npt.ArrayLike | None = None
) -> float | Array:
    """Return the harmonic mean of precision and recall.

    ``F_c = 2 TP_c / (2 TP_c + FP_c + FN_c)`` for each class c, and 0 where a class neither is nor was predicted

    Parameters
    ----------
    {pred}
    {y}
    {average}
    {sample_weight}

    {of_classes}

    {raises}

    References
    ----------
    van Rijsbergen, Information Retrieval (1979), chapter 7; Sokolova & Lapalme, A systematic analysis of performance measures for
    classification tasks (2009), table 3. The mean of the classes' F, as scikit-learn has it, not the F of the mean precision and
    recall.

    Examples
    --------
    >>> from trainstep.reference.metrics import f1
    >>> round(f1([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1]), 4)
    0.6667
    """
    return _of_classes("f1", pred, y, average, sample_weight)


@metric("classes")
def confusion_matrix(
    pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None, *, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Return how many rows of each class were predicted to be of each.

    ``M_cd = sum_i s_i [y_i = c] [class(pred_i) = d]``

    Rows that are of no class for a NaN are left out.

    Parameters
    ----------
    {pred}
    {y}
    {sample_weight}
    out : ndarray, shape (C, C), int64, or float64 with weights, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    matrix : ndarray, shape (C, C), int64, or float64 with weights
        A row for each class of y, a column for each that was predicted.

    {raises}

    References
    ----------
    Sokolova & Lapalme, A systematic analysis of performance measures for classification tasks (2009), section 2.

    Examples
    --------
    >>> from trainstep.reference.metrics import confusion_matrix
    >>> confusion_matrix([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1])
    array([[1, 0],
           [1, 1]])
    """
    scores, wanted, s, classes = _classes("confusion_matrix", pred, y, sample_weight)
    dtype = np.dtype(np.int64 if sample_weight is None else np.float64)
    check_out("confusion_matrix", "out", out, (classes, classes), dtype)
    predicted = _predicted(scores)
    known = predicted >= 0
    matrix = np.zeros((classes, classes), np.longdouble)
    np.add.at(matrix, (wanted[known], predicted[known]), s[known])
    if out is None:
        return matrix.astype(dtype)
    out[...] = matrix
    return out


@metric("numbers")
def mse(pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the mean squared error.

    ``sum_i s_i (pred_i - y_i)^2 / sum_i s_i``, and the mean of that over the columns

    Parameters
    ----------
    {pred}
    {y}
    {sample_weight}

    Returns
    -------
    mse : float

    {raises}

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), section 1.1.

    Examples
    --------
    >>> from trainstep.reference.metrics import mse
    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    x, t, s = _numbers("mse", pred, y, sample_weight)
    with ieee():
        return float(np.mean([_mean((x[:, j] - t[:, j]) ** 2, s) for j in range(x.shape[1])]))


@metric("numbers")
def mae(pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the mean absolute error.

    ``sum_i s_i |pred_i - y_i| / sum_i s_i``, and the mean of that over the columns

    Parameters
    ----------
    {pred}
    {y}
    {sample_weight}

    Returns
    -------
    mae : float

    {raises}

    References
    ----------
    Willmott & Matsuura, Advantages of the mean absolute error over the root mean square error (2005).

    Examples
    --------
    >>> from trainstep.reference.metrics import mae
    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    x, t, s = _numbers("mae", pred, y, sample_weight)
    with ieee():
        return float(np.mean([_mean(np.abs(x[:, j] - t[:, j]), s) for j in range(x.shape[1])]))


@metric("numbers")
def r2(pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the coefficient of determination, the share of the spread of y that the predictions explain.

    ``1 - sum_i s_i (y_i - pred_i)^2 / sum_i s_i (y_i - mean(y))^2``, and the mean of that over the columns

    1 is perfect, 0 what the mean of y would do, and less is worse than that. Of a column whose targets are all equal it is 1 where
    they are all met, and else 0, as in scikit-learn; of less than two rows it is NaN.

    Parameters
    ----------
    {pred}
    {y}
    {sample_weight}

    Returns
    -------
    r2 : float

    {raises}

    References
    ----------
    Draper & Smith, Applied Regression Analysis (1998), section 1.3.

    Examples
    --------
    >>> from trainstep.reference.metrics import r2
    >>> r2([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    x, t, s = _numbers("r2", pred, y, sample_weight)
    if len(x) < 2 or s.sum() == 0:
        return math.nan
    explained = []
    with ieee():
        for own, target in zip(x.T.copy(), t.T.copy(), strict=True):
            moved = target - target[0]  # equal targets are 0 from here on, and so is their spread
            squares = ((own - target) ** 2 * s).sum()
            spread = ((moved - _mean(moved, s)) ** 2 * s).sum()
            explained.append(1 - squares / spread if spread > 0 else 1.0 if squares == 0 else 0 * squares)
    return float(np.mean(explained))


def _mean(values: npt.NDArray[Any], weights: Float64) -> float:
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total > 0 else 0.0


def _predicted(scores: Float64) -> Indices:
    """Return the class of each row, -1 where it is none."""
    classes = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return np.where(np.isnan(scores).any(axis=1), -1, classes)


def _of_classes(
    function: str, pred: npt.ArrayLike, y: npt.ArrayLike, average: str | None, sample_weight: npt.ArrayLike | None
) -> float | Array:
    scores, wanted, s, classes = _classes(function, pred, y, sample_weight)
    if average is not None and average not in AVERAGES:
        raise ValueError(f"{function}: average is {average!r}, expected one of {', '.join(AVERAGES)} or None")
    if average == "binary" and classes != 2:
        raise ValueError(f"{function}: average is 'binary' with {classes} classes, expected two classes")
    predicted = _predicted(scores)

    def of(chosen: Any, given: Any) -> float:
        hits, are, were = (s[given & chosen].sum(), s[given].sum(), s[chosen].sum())
        top, bottom = {"precision": (hits, were), "recall": (hits, are), "f1": (2 * hits, are + were)}[function]
        return float(top / bottom) if bottom > 0 else 0.0

    each = np.array([of(predicted == c, wanted == c) for c in range(classes)])
    if average is None:
        return each
    if average == "binary":
        return float(each[1])
    if average == "micro":  # every row is given once, and chosen once unless it is of no class
        hits, were = s[predicted == wanted].sum(), s[predicted >= 0].sum()
        top, bottom = {"precision": (hits, were), "recall": (hits, s.sum()), "f1": (2 * hits, were + s.sum())}[function]
        return float(top / bottom) if bottom > 0 else 0.0
    occurs = np.isin(np.arange(classes), np.concatenate([wanted, predicted])).astype(np.float64)
    return _mean(each, occurs if average == "macro" else np.array([s[wanted == c].sum() for c in range(classes)]))


def _columns(function: str, pred: npt.ArrayLike) -> tuple[Float64, np.dtype[Any]]:
    dtype = shared_dtype(function, pred=pred)
    x = np.asarray(pred, np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"{function}: pred has shape {np.shape(pred)}, expected (rows, columns) and no extent of 0")
    return x, dtype


def _row_weights(function: str, sample_weight: npt.ArrayLike | None, rows: int, dtype: np.dtype[Any]) -> Float64:
    if sample_weight is None:
        return np.ones(rows)
    s = np.asarray(sample_weight).astype(dtype).astype(np.float64)
    if s.shape != (rows,):
        raise ValueError(f"{function}: sample_weight has shape {s.shape}, expected {(rows,)}")
    for i in np.flatnonzero(~((s >= 0) & np.isfinite(s)))[:1]:
        raise ValueError(f"{function}: sample_weight[{i}] is {s[i]}, expected a finite weight of at least 0")
    return s


def _classes(
    function: str, pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Float64, Indices, Float64, int]:
    """Check the arguments; give scores, the class of each row, the weights of the rows and the number of classes."""
    scores, dtype = _columns(function, pred)
    rows, columns = scores.shape
    s = _row_weights(function, sample_weight, rows, dtype)
    given = np.asarray(y)
    if columns > 1 and given.ndim == 1:
        if given.dtype.kind not in "iu":
            raise TypeError(f"{function}: y has dtype {given.dtype}, expected integer class indices")
        if given.shape != (rows,):
            raise ValueError(f"{function}: y has shape {given.shape}, expected {(rows,)}")
        for row in np.flatnonzero((given < 0) | (given >= columns))[:1]:
            raise ValueError(f"{function}: y holds {given[row]} at row {row}, expected 0 <= label < {columns}")
        return scores, given.astype(np.int64), s, columns
    if given.shape not in ((rows, columns), *(((rows,),) if columns == 1 else ())):
        raise ValueError(f"{function}: y has shape {given.shape}, expected {(rows, columns)} or {(rows,)}")
    t = given.reshape(rows, columns).astype(dtype).astype(np.float64)
    if not ((t >= 0) & np.isfinite(t) & (t <= (1 if columns == 1 else np.inf))).all():
        raise ValueError(f"{function}: y holds what is no probability")
    wanted = (t[:, 0] > 0.5).astype(np.int64) if columns == 1 else t.argmax(axis=1)
    return scores, wanted, s, max(columns, 2)


def _numbers(
    function: str, pred: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Float64, Float64, Float64]:
    """Check the arguments; give predictions and targets as columns, and the weights of the rows."""
    x, dtype = _columns(function, pred)
    given = np.asarray(y)
    if given.shape not in (x.shape, *(((len(x),),) if x.shape[1] == 1 else ())):
        raise ValueError(f"{function}: y has shape {given.shape}, expected {x.shape}")
    t = given.reshape(x.shape).astype(dtype).astype(np.float64)
    if np.isnan(t).any():
        raise ValueError(f"{function}: y holds nan, expected numbers")
    return x, t, _row_weights(function, sample_weight, len(x), dtype)
