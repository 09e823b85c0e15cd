"""Metrics: how good predictions are, as functions on arrays and, for a Trainer, as objects: ``Trainer(model, metrics=["f1"])``.

The functions take what a model gives and what its loss takes: scores and class indices (or one-hot rows), or numbers. Their twins
in NumPy are in `trainstep.reference.metrics`. An object holds the options of a metric; where its defaults will do, the name alone
says the same. Two objects with the same options are equal; none can be changed.

The class of a row is that of its largest score, of equal ones the first; of one column it is 1 where the score is above 0, else 0.
A row with a NaN is of no class, and so wrong.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from trainstep import _core
from trainstep._checks import integer
from trainstep._docs import documented_by
from trainstep.reference import metrics as _twins

__all__ = [
    "F1",
    "MAE",
    "MSE",
    "R2",
    "Accuracy",
    "Metric",
    "Precision",
    "Recall",
    "TopK",
    "accuracy",
    "confusion_matrix",
    "f1",
    "mae",
    "mse",
    "precision",
    "r2",
    "recall",
    "top_k_accuracy",
]

Array = NDArray[Any]
_MOST = 2**62


@documented_by(_twins.accuracy, "trainstep")
def accuracy(pred: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: D103
    return _number("accuracy", pred, y, sample_weight)


@documented_by(_twins.top_k_accuracy, "trainstep")
def top_k_accuracy(pred: Any, y: Any, k: int = 5, sample_weight: Any = None) -> float:  # noqa: D103
    return _number("top_k_accuracy", pred, y, sample_weight, k=integer("top_k_accuracy: k", k, 1, _MOST))


@documented_by(_twins.precision, "trainstep")
def precision(pred: Any, y: Any, average: str | None = "macro", sample_weight: Any = None) -> float | Array:  # noqa: D103
    return _of_classes("precision", pred, y, average, sample_weight)


@documented_by(_twins.recall, "trainstep")
def recall(pred: Any, y: Any, average: str | None = "macro", sample_weight: Any = None) -> float | Array:  # noqa: D103
    return _of_classes("recall", pred, y, average, sample_weight)


@documented_by(_twins.f1, "trainstep")
def f1(pred: Any, y: Any, average: str | None = "macro", sample_weight: Any = None) -> float | Array:  # noqa: D103
    return _of_classes("f1", pred, y, average, sample_weight)


@documented_by(_twins.confusion_matrix, "trainstep")
def confusion_matrix(pred: Any, y: Any, sample_weight: Any = None, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.confusion_matrix(pred, y, sample_weight, out)


@documented_by(_twins.mse, "trainstep")
def mse(pred: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: D103
    return _number("mse", pred, y, sample_weight)


@documented_by(_twins.mae, "trainstep")
def mae(pred: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: D103
    return _number("mae", pred, y, sample_weight)


@documented_by(_twins.r2, "trainstep")
def r2(pred: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: D103
    return _number("r2", pred, y, sample_weight)


# How the core takes a metric: its name, k, and the average.
_Setting = tuple[str, int, str]


def _number(name: str, pred: Any, y: Any, sample_weight: Any, k: int = 1) -> float:
    value: float = _core.metric((name, k, "macro"), pred, y, sample_weight)
    return value


def _of_classes(name: str, pred: Any, y: Any, average: str | None, sample_weight: Any) -> float | Array:
    average = "none" if average is None else _average(f"{name}: average", average, " or None")
    value: float | Array = _core.metric((name, 1, average), pred, y, sample_weight)
    return value


def _average(where: str, average: Any, or_else: str = "") -> str:
    if not isinstance(average, str):
        raise TypeError(f"{where} is a {type(average).__name__}, expected a name{or_else}")
    if average not in _twins.AVERAGES:
        raise ValueError(f"{where} is {average!r}, expected one of {', '.join(_twins.AVERAGES)}{or_else}")
    return average


@dataclass(frozen=True)
class Metric:
    """What all metrics have in common: a name, under which `History` has the numbers. Not made directly."""

    name: ClassVar[str]

    @property
    def measure(self) -> str:
        """The name in `History` and in what `Trainer.evaluate` gives: that of the metric, with its k."""
        return self.name

    def _setting(self) -> _Setting:
        return self.name, 1, "macro"


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of rows whose class is predicted rightly: see `trainstep.metrics.accuracy`.

    Losses of classes have it without being asked, unweighted; this one is weighted with the rows.
    """

    name: ClassVar[str] = "accuracy"


@dataclass(frozen=True)
class TopK(Metric):
    """The share of rows whose class is among the k of the largest scores: see `trainstep.metrics.top_k_accuracy`.

    Parameters
    ----------
    k : int, default 5
        How many classes may be named, at least 1 and at most all of them.

    Raises
    ------
    ValueError, TypeError
        k is no integer of at least 1.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.metrics.TopK(3).measure
    'top_3_accuracy'
    """

    name: ClassVar[str] = "top_k_accuracy"
    k: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", integer("TopK: k", self.k, 1, _MOST))

    @property
    def measure(self) -> str:
        """The name in `History` and in what `Trainer.evaluate` gives, such as "top_5_accuracy"."""
        return f"top_{self.k}_accuracy"

    def _setting(self) -> _Setting:
        return self.name, self.k, "macro"


@dataclass(frozen=True)
class _OfClasses(Metric):
    average: str = "macro"

    def __post_init__(self) -> None:
        object.__setattr__(self, "average", _average(f"{type(self).__name__}: average", self.average))

    def _setting(self) -> _Setting:
        return self.name, 1, self.average


@dataclass(frozen=True)
class Precision(_OfClasses):
    """The share of what was predicted to be of a class that is: see `trainstep.metrics.precision`.

    Parameters
    ----------
    average : {"macro", "micro", "weighted", "binary"}, default "macro"
        What one number is made of those of the classes by.

    Raises
    ------
    ValueError, TypeError
        average is none of these.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.metrics.Precision(average="weighted")
    Precision(average='weighted')
    """

    name: ClassVar[str] = "precision"


@dataclass(frozen=True)
class Recall(_OfClasses):
    """The share of a class that was predicted to be of it: see `trainstep.metrics.recall`.

    Parameters
    ----------
    average : {"macro", "micro", "weighted", "binary"}, default "macro"
        What one number is made of those of the classes by.

    Raises
    ------
    ValueError, TypeError
        average is none of these.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.metrics.Recall() == ts.metrics.Recall(average="macro")
    True
    """

    name: ClassVar[str] = "recall"


@dataclass(frozen=True)
class F1(_OfClasses):
    """The harmonic mean of precision and recall: see `trainstep.metrics.f1`.

    Parameters
    ----------
    average : {"macro", "micro", "weighted", "binary"}, default "macro"
        What one number is made of those of the classes by.

    Raises
    ------
    ValueError, TypeError
        average is none of these.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.metrics.F1().measure
    'f1'
    """

    name: ClassVar[str] = "f1"


@dataclass(frozen=True)
class MSE(Metric):
    """The mean squared error: see `trainstep.metrics.mse`."""

    name: ClassVar[str] = "mse"


@dataclass(frozen=True)
class MAE(Metric):
    """The mean absolute error: see `trainstep.metrics.mae`."""

    name: ClassVar[str] = "mae"


@dataclass(frozen=True)
class R2(Metric):
    """The share of the spread of y that the predictions explain: see `trainstep.metrics.r2`."""

    name: ClassVar[str] = "r2"


# The one list of the family: name -> class. Trainer looks names up here.
METRICS: dict[str, type[Metric]] = {cls.name: cls for cls in (Accuracy, TopK, Precision, Recall, F1, MSE, MAE, R2)}
