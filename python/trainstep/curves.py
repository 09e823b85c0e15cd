"""Reading learning curves: whether a run underfits, overfits, is good, or stands still.

What is compared are means over windows of epochs, and a difference counts where it is larger than the noise of these means and
than a share of the loss. The noise of a curve is estimated from its third differences x[i+3] - 3 x[i+2] + 3 x[i+1] - x[i], which
leave out any trend that is straight or bends like a parabola: for independent noise of standard deviation s theirs is sqrt(20) s,
and 1.4826 times the median of their absolute values estimates that, whatever a few steep epochs do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

_LEAST = 5  # epochs, before anything is said
_SIGMAS = 4.0  # how far apart two means must be, in standard errors of their difference
_FALLEN = 0.03  # by what share of the loss it must fall in the last third of the epochs to be still falling,
_FALLEN_OF_ALL = 0.005  # and by what share of all that it has fallen: a loss near 0 falls in name only
_RISEN = 0.05  # by what share of its best the validation loss must rise to be rising
_GAP = 0.15  # the largest share of the validation loss that is no gap to the training loss
_POOR_ACCURACY = 0.9  # training accuracy below which a network has not learnt its own rows,
_POOR_LOSS = 0.5  # or, without accuracy, the share of the first loss that is left

WORDS = {
    "too short": "too few epochs to tell: train for at least {least}",
    "diverging": "the training loss rises, or is not finite: a smaller learning rate, clipping (clip_norm) or another initialiser "
    "helps",
    "overfitting": "validation loss has risen from {best:.4g} to {last:.4g} since epoch {epoch}, and training loss has not: "
    "more data, augmentation, dropout or decay helps, or stopping there (EarlyStopping, restore_best_weights=True)",
    "underfitting": "training and validation loss are the same and {state}: train longer, use a bigger model or decay less",
    "good": "training and validation loss are both still falling, with a gap that does no harm: train longer",
    "plateaued": "{which} has stood still since epoch {epoch}: the run may end, or go on with a smaller learning rate",
    "improving": "the training loss is still falling: train longer; validation data would tell whether it overfits",
}


@dataclass(frozen=True)
class CurveReport:
    """What the curves of a run say, in a word and in a sentence: what `History.diagnosis` gives.

    Parameters
    ----------
    verdict : str
        "underfitting", "overfitting", "good" or "plateaued"; "improving", where there is no validation loss and the training loss
        falls; "diverging"; "too short".
    epoch : int or None
        The epoch since which: of the best validation loss where it is overfitting, of the last improvement where it has plateaued;
        else None.
    words : str
        What was seen, and what helps. Also ``str(report)``, after the verdict.

    Examples
    --------
    >>> from trainstep import History
    >>> history = History()
    >>> for epoch in range(1, 41):
    ...     history.append(epoch, loss=2 * 0.9**epoch, val_loss=2 * 0.9**epoch + 0.002 * epoch**1.5)
    >>> report = history.diagnosis()
    >>> report.verdict, report.epoch
    ('overfitting', 25)
    """

    verdict: str
    epoch: int | None
    words: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.words}"


def judge(epochs: Sequence[int], measures: Mapping[str, Sequence[float]]) -> CurveReport:
    """Say what curves show; see `History.diagnosis`."""
    loss, number = np.asarray(measures["loss"], np.float64), np.asarray(epochs)
    if not len(loss) or not np.isfinite(loss[-1]):
        return _report("diverging" if len(loss) else "too short")
    both = np.isfinite(loss)
    val = np.asarray(measures.get("val_loss", ()), np.float64)
    if np.isfinite(val).any():
        both &= np.isfinite(val)
    if both.sum() < _LEAST:
        return _report("too short")
    train, number = _Curve(loss[both]), number[both]
    if train.rise > max(train.doubt(_SIGMAS), 0.2 * abs(train.best), 0.02 * train.range):
        return _report("diverging")
    if not np.isfinite(val).any():
        return _report("improving") if train.falls else _plateau(number, train, "the training loss")
    held = _Curve(val[both])
    rises = held.rise > max(held.doubt(_SIGMAS), _RISEN * abs(held.best), 0.01 * held.range)
    if rises and train.last <= train.smooth[held.at] + train.doubt(_SIGMAS):
        return _report("overfitting", int(number[held.at]), best=held.best, last=held.last)
    third = max(2, train.length // 3)
    gap = float((held.values - train.values)[-third:].mean())
    same = gap <= max(held.doubt(_SIGMAS / 2), _GAP * abs(held.last))
    if held.falls:
        return _report("underfitting", state="both still falling") if same else _report("good")
    if same and _is_poor(train, measures.get("accuracy")):
        return _report("underfitting", state="poor: the training rows themselves are not learnt")
    return _plateau(number, held, "the validation loss")


class _Curve:
    """A loss over epochs, without its noise."""

    def __init__(self, values: Curve) -> None:
        self.values, self.length = values, len(values)
        window = max(2, self.length // 8)
        calm = values.copy()
        calm[1:-1] = np.median([values[:-2], values[1:-1], values[2:]], axis=0)  # a spike of one epoch says nothing
        means = np.convolve(calm, np.full(window, 1 / window), "valid")
        # As long as the curve: a mean stands at the middle of its window.
        self._calm = calm
        self.smooth = np.concatenate([np.full(window // 2, means[0]), means, np.full((window - 1) // 2, means[-1])])
        self.at = int(self.smooth.argmin())
        self.best, self.last = float(means.min()), float(means[-1])
        self.range = float(means[0]) - self.best
        tail = values[-max(10, self.length // 2) :]
        # The standard error of the difference of two means over windows.
        self._error = 1.4826 * float(np.median(np.abs(np.diff(tail, 3)))) / math.sqrt(20 * window / 2)
        self._window = window

    @property
    def rise(self) -> float:
        """How far it has risen since its best, where that is long enough ago."""
        return self.last - self.best if self.length - 1 - self.at >= self._window else 0.0

    @property
    def falls(self) -> bool:
        """Whether it is falling at its end."""
        half = max(2, self.length // 6)
        fall = float(self._calm[-2 * half : -half].mean() - self._calm[-half:].mean())
        noise = self._error * math.sqrt(self._window / half)
        return bool(fall > max(2.5 * noise, _FALLEN * abs(self.last), _FALLEN_OF_ALL * self.range))

    def doubt(self, sigmas: float) -> float:
        """Give how much two means may differ by noise."""
        return sigmas * self._error

    def still_since(self) -> int:
        """Give the index from which on it has been where it is at its end."""
        tolerance = max(self.doubt(_SIGMAS), _FALLEN * abs(self.last), _FALLEN_OF_ALL * self.range)
        away = np.flatnonzero(np.abs(self.smooth - self.last) > tolerance)
        return int(away[-1]) + 1 if len(away) else 0


def _is_poor(train: _Curve, accuracy: Sequence[float] | None) -> bool:
    if accuracy is not None and np.isfinite(accuracy[-1]):
        return accuracy[-1] < _POOR_ACCURACY
    return bool(train.last > _POOR_LOSS * train.values[0])


def _plateau(number: NDArray[np.int_], curve: _Curve, which: str) -> CurveReport:
    epoch = int(number[min(curve.still_since(), curve.length - 1)])
    return _report("plateaued", epoch, which=which)


def _report(verdict: str, epoch: int | None = None, **words: object) -> CurveReport:
    return CurveReport(verdict, epoch, WORDS[verdict].format(epoch=epoch, least=_LEAST, **words))
