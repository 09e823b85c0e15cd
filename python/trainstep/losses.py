"""Losses for a Trainer, with their options: ``Trainer(model, loss=ts.losses.Huber(delta=2.0))``.

Where the defaults will do, the name alone says the same: ``loss="huber"``. The formulas are the functions of `trainstep.ops` of
that name. Two losses with the same options are equal; none can be changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainstep._checks import number

__all__ = [
    "MAE",
    "MSE",
    "CategoricalCrossEntropy",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Loss",
    "PoissonNLL",
    "SigmoidBinaryCrossEntropy",
    "SoftmaxCrossEntropy",
]


@dataclass(frozen=True)
class Loss:
    """What all losses have in common: a name. Not made directly."""

    name: ClassVar[str]

    def _options(self) -> tuple[tuple[float, ...] | None, float, float]:
        """Class weights, label_smoothing and delta, as the core takes them."""
        return None, 0.0, 1.0


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(model(x)) against labels: classification.

    ``loss = -sum_k w_k t_k log p_k``, see `trainstep.ops.softmax_cross_entropy`

    Parameters
    ----------
    weight : sequence of float, one for each class, optional
        Weights of the classes, such as the inverse of how often each occurs; at least 0. The mean is divided by the sum of the
        weights of the classes in the batch. Default: 1 each.
    label_smoothing : float, default 0.0
        Share of each target, from 0 to 1, that goes to all classes alike.

    Raises
    ------
    ValueError, TypeError
        An option is no number, or out of range.

    References
    ----------
    Bishop, Pattern Recognition and Machine Learning (2006), equation 4.108; label smoothing: Szegedy et al., Rethinking the
    Inception architecture for computer vision (2016), section 7.

    Examples
    --------
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(4, 2))
    >>> trainer = ts.Trainer(model, loss=ts.losses.SoftmaxCrossEntropy(weight=[1.0, 5.0], label_smoothing=0.1))
    >>> trainer.loss
    SoftmaxCrossEntropy(weight=(1.0, 5.0), label_smoothing=0.1)
    """

    name: ClassVar[str] = "softmax_cross_entropy"
    weight: Sequence[float] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        who = type(self).__name__
        if self.weight is not None:
            try:
                weights: Any = np.asarray(self.weight, np.float64)
            except (TypeError, ValueError):
                raise TypeError(f"{who}: weight is {self.weight!r}, expected one number for each class") from None
            if weights.ndim != 1 or weights.size == 0:
                raise ValueError(f"{who}: weight has shape {weights.shape}, expected (classes,)")
            for i in np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))[:1]:
                raise ValueError(f"{who}: weight[{i}] is {weights[i]}, expected a finite weight of at least 0")
            object.__setattr__(self, "weight", tuple(weights.tolist()))
        object.__setattr__(self, "label_smoothing", number(f"{who}: label_smoothing", self.label_smoothing, 0, 1))

    def _options(self) -> tuple[tuple[float, ...] | None, float, float]:
        return None if self.weight is None else tuple(self.weight), self.label_smoothing, 1.0


@dataclass(frozen=True)
class SigmoidBinaryCrossEntropy(Loss):
    """Cross-entropy of sigmoid(model(x)) against 0 or 1 in each column: two classes, or several labels at once.

    ``loss = max(z, 0) - z t + log(1 + exp(-|z|))``, see `trainstep.ops.sigmoid_binary_cross_entropy`
    """

    name: ClassVar[str] = "sigmoid_binary_cross_entropy"


@dataclass(frozen=True)
class CategoricalCrossEntropy(Loss):
    """Cross-entropy of a model whose last activation is softmax already.

    ``loss = -sum_k t_k log p_k``, see `trainstep.ops.categorical_cross_entropy`; `SoftmaxCrossEntropy` is the stable form.
    """

    name: ClassVar[str] = "categorical_cross_entropy"


@dataclass(frozen=True)
class MSE(Loss):
    """Mean squared error: regression.

    ``loss = (pred - target)^2``, see `trainstep.ops.mse`
    """

    name: ClassVar[str] = "mse"


@dataclass(frozen=True)
class MAE(Loss):
    """Mean absolute error: regression that large errors do not govern.

    ``loss = |pred - target|``, see `trainstep.ops.mae`
    """

    name: ClassVar[str] = "mae"


@dataclass(frozen=True)
class Huber(Loss):
    """Squared for small errors, absolute for large ones.

    ``loss = e^2 / 2`` for ``|e| <= delta``, else ``delta (|e| - delta / 2)``, see `trainstep.ops.huber`

    Parameters
    ----------
    delta : float, default 1.0
        The error from which on the loss grows linearly; above 0.

    Raises
    ------
    ValueError, TypeError
        delta is no finite number above 0.

    References
    ----------
    Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964).

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.Trainer(ts.nn.Sequential(ts.nn.Dense(4, 1)), loss=ts.losses.Huber(delta=2.0)).loss
    Huber(delta=2.0)
    """

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", number("Huber: delta", self.delta, above=0))

    def _options(self) -> tuple[tuple[float, ...] | None, float, float]:
        return None, 0.0, self.delta


@dataclass(frozen=True)
class Hinge(Loss):
    """The margin that is missing to a score of 1 on the right side: a linear support vector machine's loss.

    ``loss = max(0, 1 - t s)`` with t -1 or 1, see `trainstep.ops.hinge`
    """

    name: ClassVar[str] = "hinge"


@dataclass(frozen=True)
class PoissonNLL(Loss):
    """Negative log-likelihood of counts whose log rate the model gives.

    ``loss = exp(z) - n z``, see `trainstep.ops.poisson_nll`
    """

    name: ClassVar[str] = "poisson_nll"


@dataclass(frozen=True)
class KLDivergence(Loss):
    """Divergence of softmax(model(x)) from rows of probabilities, such as another model's.

    ``loss = sum_k t_k (log t_k - log p_k)``, see `trainstep.ops.kl_divergence`
    """

    name: ClassVar[str] = "kl_divergence"


# The one list of the family: name -> class. Trainer looks names up here.
LOSSES: dict[str, type[Loss]] = {
    cls.name: cls
    for cls in (
        SoftmaxCrossEntropy,
        SigmoidBinaryCrossEntropy,
        CategoricalCrossEntropy,
        MSE,
        MAE,
        Huber,
        Hinge,
        PoissonNLL,
        KLDivergence,
    )
}
