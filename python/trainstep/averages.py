"""Averages of the weights over a training run: ``Trainer(model, average=ts.averages.EMA(0.999))``.

The trainer keeps the average beside the model, which is trained as without it; `Trainer.averaged_model` gives a network that
has it.
What `fit` and `evaluate` measure is the model itself.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainstep._checks import integer, number, switch
from trainstep.nn import Sequential
from trainstep.nn.layers import from_spec

__all__ = ["EMA", "SWA", "Average"]

_MOST = 2**62


@dataclass(frozen=True)
class Average:
    """What all averages have in common. Not made directly."""

    def _due(self, epoch: int, last: int) -> bool:
        """Whether the average takes in the weights at the end of an epoch, of a `fit` whose last one is known."""
        return False

    def _decay(self) -> tuple[float | None, bool]:
        """Give the decay at each update, as the core takes it, and whether it is warmed up."""
        return None, False


@dataclass(frozen=True)
class EMA(Average):
    """The exponential moving average of parameters and buffers, after every update.

    ``average <- d * average + (1 - d) * w``, and at first ``average = w``

    d is the decay or, with warm-up, min(decay, (1 + t) / (10 + t)) where t averages were taken before: as TensorFlow's
    ``ExponentialMovingAverage`` has it, with t for ``num_updates``. So the first weights are soon forgotten.

    Parameters
    ----------
    decay : float, default 0.999
        What is kept of the average at each update, at least 0 and below 1: it is one over about 1 / (1 - decay) updates.
    warmup : bool, default False
        Whether the decay is smaller at the beginning.

    Raises
    ------
    ValueError, TypeError
        decay is no number of at least 0 and below 1, or warmup is no bool.

    References
    ----------
    Polyak & Juditsky, Acceleration of stochastic approximation by averaging (1992); Tarvainen & Valpola, Mean teachers are better
    role models (2017), section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros"), dtype="float64")
    >>> trainer = ts.Trainer(model, "mse", ts.optim.SGD(lr=0.25), average=ts.averages.EMA(decay=0.5))
    >>> for _ in range(2):
    ...     loss = trainer.step([[0.0]], [[1.0]])
    >>> float(model.parameters()["0.bias"][0]), float(trainer.averaged_model().parameters()["0.bias"][0])
    (0.75, 0.625)
    """

    decay: float = 0.999
    warmup: bool = False

    def __post_init__(self) -> None:
        decay = number("EMA: decay", self.decay, 0)
        if decay >= 1:
            raise ValueError(f"EMA: decay is {self.decay}, expected a number of at least 0 and below 1")
        object.__setattr__(self, "decay", decay)
        object.__setattr__(self, "warmup", switch("EMA: warmup", self.warmup))

    def _decay(self) -> tuple[float | None, bool]:
        return self.decay, self.warmup


@dataclass(frozen=True)
class SWA(Average):
    """The mean of the weights at the ends of the last epochs: stochastic weight averaging.

    ``average = (w_1 + ... + w_n) / n``, n the epochs that were taken in

    It is worth most with a rate that stays high, or cycles (`schedules.cyclical`) with the ends of cycles taken in. Statistics of
    BatchNorm are those of other weights: give `Trainer.averaged_model` rows to take them from anew.

    Parameters
    ----------
    start : float or int, default 0.75
        An int: the first epoch that is taken in, from 1, counted over the life of the trainer. A float, at least 0 and below 1: the
        share of the epochs that come before it, of all that the trainer will have had when this `fit` ends.
    every : int, default 1
        One of so many epochs is taken in.

    Raises
    ------
    ValueError, TypeError
        start is neither an int of at least 1 nor a float from 0 to below 1, or every is no int of at least 1.

    References
    ----------
    Izmailov et al., Averaging weights leads to wider optima and better generalization (UAI 2018), algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1)), "mse", average=ts.averages.SWA(start=0.5))
    >>> history = trainer.fit(x, 2 * x, epochs=8)
    >>> trainer.averages
    4
    """

    start: float = 0.75
    every: int = 1

    def __post_init__(self) -> None:
        start: float
        if isinstance(self.start, float | np.floating):
            start = number("SWA: start", self.start, 0)
            if start >= 1:
                raise ValueError(f"SWA: start is {self.start}, expected an int, or a float of at least 0 and below 1")
        else:
            start = integer("SWA: start", self.start, 1, _MOST)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "every", integer("SWA: every", self.every, 1, _MOST))

    def _due(self, epoch: int, last: int) -> bool:
        first = math.floor(self.start * last) + 1 if isinstance(self.start, float) else self.start
        return epoch >= first and (epoch - first) % self.every == 0


def take_statistics(model: Sequential, x: Any, batch_size: int) -> None:
    """Set the running statistics of all BatchNorm layers to the means of those of the batches of x."""
    x = np.from_dlpack(x) if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray) else np.asarray(x)
    features = model._program.in_features
    if x.ndim < 2 or len(x) < 2 or x[0].size != features:
        raise ValueError(f"averaged_model: x has shape {x.shape}, expected (rows, {features}) with at least two rows")
    # A network whose running statistics are those of the last batch alone.
    layers = [from_spec(_of_last_batch(layer.spec())) for layer in model.layers]
    twin = Sequential(*layers, seed=model.seed, dtype=model.dtype, precision=model.precision)
    for mine, its in ((model.parameters(), twin.parameters()), (model.buffers(), twin.buffers())):
        for name, values in mine.items():
            its[name][...] = values
    of_batch = {name: view for name, view in twin.buffers().items() if name.rpartition(".")[2] in ("running_mean", "running_var")}
    sums = {name: np.zeros(view.shape) for name, view in of_batch.items()}
    # A last batch of one row is left out: it has no variance.
    batches = [x[first : first + batch_size] for first in range(0, len(x) - 1, batch_size)]
    for batch in batches:
        twin.forward(batch, training=True)
        for name, total in sums.items():
            total += of_batch[name]
    for name, total in sums.items():
        model.buffers()[name][...] = total / len(batches)


def _of_last_batch(spec: dict[str, Any]) -> dict[str, Any]:
    """Give the description of a layer with a momentum of 1 in all its BatchNorm layers."""
    changed: dict[str, Any] = {"momentum": 1.0} if spec["kind"] == "batch_norm" else {}
    if spec["kind"] == "residual":
        changed = {"layers": [_of_last_batch(layer) for layer in spec["layers"]]}
    return {**spec, **changed}


# The one list of the family, by which a file names them.
AVERAGES: dict[str, type[Average]] = {cls.__name__: cls for cls in (EMA, SWA)}
