"""What training does to a network, layer by layer: whether signals and gradients vanish, explode, saturate or die."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep import ops
from trainstep._checks import path_text
from trainstep.losses import Loss
from trainstep.nn import Sequential
from trainstep.optim import Optimizer
from trainstep.trainer import CustomLoss, Trainer

Array = NDArray[Any]

# Outputs beyond which the slope is less than a tenth of its largest: of tanh 1 - y^2 < 0.1, of sigmoid y (1 - y) < 0.025.
_FLAT = {"tanh": lambda y: np.abs(y) > 0.9487, "sigmoid": lambda y: np.abs(y - 0.5) > 0.4743}
# A unit of these that gives 0 for a whole batch gets no gradient from it.
_RECTIFIERS = ("relu",)

_MANY = 0.5  # the share of outputs, or of units, from which on a layer is ill
_VANISHED = 1e-3  # a layer's gradient, over the largest of all layers
_GROWN = 1e3  # a layer's gradient, over that of the last
_TOO_FAR = 1.0  # an update, over the weights that it changes

_TICKS = 8  # the most layers that a panel names
PANELS = (("spread of outputs", "std"), ("gradient", "gradient"), ("update / weight", "update_ratio"))

HELP = {
    "vanishing": "Xavier (tanh) or He (ReLU) initial weights, ReLU for sigmoid, batch normalisation, residual blocks",
    "exploding": "a smaller learning rate, clipping of the gradient's norm, smaller initial weights, batch normalisation",
    "saturated": "smaller initial weights (Xavier), ReLU in place of tanh and sigmoid, batch normalisation, standardized inputs",
    "dead": "a smaller learning rate, leaky ReLU, He initial weights, biases of 0 or slightly above",
}


@dataclass(frozen=True)
class LayerReport:
    """What `diagnose` found of one layer.

    Parameters
    ----------
    name : str
        The layer's path in the network, as in its parameters' names: "0", or "3.0" inside of a residual block, whose sum is "3".
    activation : str
        The function that it ends in.
    mean, std : float
        Of its outputs.
    gradient : float
        Root mean square of the loss's gradient with respect to what the activation is applied to.
    update_ratio : float
        Root mean square of one update of the weight over that of the weight; NaN where there is no weight, or it is 0.
    saturated : float
        Share of outputs of tanh or sigmoid where the slope is below a tenth of its largest; 0 for other functions.
    dead : float
        Share of ReLU units that give 0 for every row; 0 for other functions.
    nonfinite : int
        Outputs, gradients and updated parameters that are infinite or NaN.
    verdict : str
        "vanishing", "exploding", "saturated", "dead" or "healthy".

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 4, activation="relu"), ts.nn.Dense(4, 2))
    >>> first, last = ts.diagnose(model, np.ones((4, 3)), np.array([0, 1, 0, 1])).layers
    >>> first.name, first.activation, first.saturated, last.nonfinite
    ('0', 'relu', 0.0, 0)
    """

    name: str
    activation: str
    mean: float
    std: float
    gradient: float
    update_ratio: float
    saturated: float
    dead: float
    nonfinite: int
    verdict: str


@dataclass(frozen=True)
class Report:
    """What `diagnose` found: a `LayerReport` for each layer, and the loss of the batch.

    Printed, it is a table with a verdict in words.

    Parameters
    ----------
    loss : float
        Of the batch, before the update.
    layers : tuple of LayerReport
        From input to output.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 3, activation="tanh"), ts.nn.Dense(3, 2, init="zeros"))
    >>> report = ts.diagnose(model, np.ones((4, 3)), np.array([0, 1, 0, 1]))
    >>> round(report.loss, 4), len(report.layers)
    (0.6931, 2)
    """

    loss: float
    layers: tuple[LayerReport, ...]

    @property
    def verdict(self) -> str:
        """The verdict on the network: that of most layers that are not healthy, or "healthy"."""
        ill = [layer.verdict for layer in self.layers if layer.verdict != "healthy"]
        return max(ill, key=lambda verdict: (ill.count(verdict), -ill.index(verdict))) if ill else "healthy"

    def __str__(self) -> str:
        columns = [field.name for field in fields(LayerReport)]
        rows = [[_text(getattr(layer, column)) for column in columns] for layer in self.layers]
        widths = [max(len(row[c]) for row in [columns, *rows]) for c in range(len(columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [columns, *rows]]
        verdict = f"loss {self.loss:.4g}: {self.verdict}"
        return "\n".join([*lines, verdict + (f"; what helps: {HELP[self.verdict]}" if self.verdict in HELP else "")])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the layers' outputs, gradients and updates to a picture file.

        Parameters
        ----------
        path : str or path
            The file; its ending says the format.

        Raises
        ------
        ImportError
            Where matplotlib is not installed.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> report = ts.diagnose(model, np.ones((4, 3)), np.array([0, 1, 0, 1]))
        >>> report.plot(os.path.join(tempfile.mkdtemp(), "layers.png"))
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3), layout="constrained")
        place = np.arange(len(self.layers))
        shown = place[:: -(-len(place) // _TICKS)]
        for axes, (title, column) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            values = np.array([getattr(layer, column) for layer in self.layers])
            axes.plot(place, np.where(values > 0, values, np.nan), "o-", color="#0072B2", markersize=3)
            axes.set(title=title, xlabel="layer", yscale="log")
            axes.set_xticks(shown, [self.layers[i].name for i in shown])
            axes.grid(visible=True, alpha=0.3)
        figure.savefig(path_text("plot: path", path), dpi=150)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def diagnose(
    model: Sequential,
    x: Any,
    y: Any,
    *,
    loss: str | Loss | CustomLoss = "softmax_cross_entropy",
    optimizer: Optimizer | None = None,
) -> Report:
    """Look at one training step of a network, layer by layer, without changing it.

    gradient of layer l = sqrt(mean((dL/dz_l)^2)), z_l being what its activation is applied to

    The verdict on a layer is the first of these that holds. exploding: something is infinite or NaN, or an update is larger than
    the weights that it changes. dead: half of the ReLU units give 0 for the whole batch. saturated: half of the outputs of tanh or
    sigmoid are where the slope is below a tenth of its largest. exploding: the gradient is 1000 times that of the last layer.
    vanishing: the gradient is less than a thousandth of the largest among the layers; where it is 0 because a weight behind the
    layer still is, as in a residual block that begins as the identity, and that weight moves, this is no illness.

    Parameters
    ----------
    model : Sequential
        The network. It is not changed: what would be updated is a copy.
    x : array, shape (rows, in_features)
        Any real dtype; some hundred rows tell enough.
    y : array
        What `Trainer.step` takes with this loss.
    loss : str, Loss or callable, default "softmax_cross_entropy"
        As for `Trainer`. A function of one's own is called twice.
    optimizer : Optimizer, optional
        One made without parameters, whose first update is looked at; it stays unbound. Default: ``Adam()``.

    Returns
    -------
    report : Report

    Raises
    ------
    ValueError, TypeError
        As for a step of `Trainer`.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks (AISTATS 2010), section 3 and
    figures 6 and 7.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 64, activation="tanh"), ts.nn.Dense(64, 10))
    >>> ts.diagnose(model, x[:100] / 16, y[:100]).verdict
    'healthy'
    >>> ts.diagnose(model, x[:100] * 16, y[:100]).verdict
    'saturated'
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"diagnose: model is a {type(model).__name__}, expected a trainstep.nn.Sequential")
    return examine(Trainer(copy.deepcopy(model), loss=loss, optimizer=copy.deepcopy(optimizer)), x, y)


def examine(trainer: Trainer, x: Any, y: Any) -> Report:
    """Let a trainer take one step, and tell what it did to each layer: `diagnose` of a trainer that is a copy already."""
    stepped = trainer.model
    stepped._program.passes = 0  # always the same masks of Dropout
    watched = copy.deepcopy(stepped)
    if trainer.precision is not None:
        watched.precision = trainer.precision
    with np.errstate(all="ignore"):
        step_loss = trainer.step(x, y)
        program = watched._program
        output = program.forward(x, watched=True)
        program.backward(
            _loss_gradient(trainer.loss, output, y), watched=True
        )  # with dx, so that it goes down through layers that are frozen
        passed = program.passed()
        gradients = [_rms(dz) for _, _, _, dz in passed]
        before, after = watched.parameters(), stepped.parameters()
        # Weights that are 0, and so let no gradient through, until this step.
        opening = [name for name in before if name.endswith(".weight") and not before[name].any() and after[name].any()]
        reports = []
        for layer, (path, activation, out, dz) in enumerate(passed):
            own = [name for name in before if name.rpartition(".")[0] == path]
            weight = f"{path}.weight"
            ratio = _ratio(before[weight], after[weight]) if weight in before else float("nan")
            bad = sum(int((~np.isfinite(a)).sum()) for a in (out, dz, *(after[name] for name in own)))
            flat = float(_FLAT[activation](out).mean()) if activation in _FLAT else 0.0
            dead = float((out == 0).all(axis=0).mean()) if activation in _RECTIFIERS else 0.0
            verdict = _verdict(bad, ratio, flat, dead, gradients, layer)
            if verdict == "vanishing" and gradients[layer] == 0 and any(_behind(path, name) for name in opening):
                verdict = "healthy"
            values = (float(out.mean(dtype=np.float64)), float(out.std(dtype=np.float64)), gradients[layer], ratio, flat, dead)
            reports.append(LayerReport(path, activation, *values, bad, verdict))
    return Report(step_loss, tuple(reports))


def _verdict(bad: int, ratio: float, flat: float, dead: float, gradients: Sequence[float], layer: int) -> str:
    gradient = gradients[layer]
    if bad or ratio > _TOO_FAR:
        return "exploding"
    if dead >= _MANY:
        return "dead"
    if flat >= _MANY:
        return "saturated"
    if gradient > _GROWN * gradients[-1]:
        return "exploding"
    return "vanishing" if gradient < _VANISHED * max(gradients) else "healthy"


def _behind(path: str, weight: str) -> bool:
    """Tell whether what comes out of a layer goes through a weight, with no way past it."""
    block, _, number = weight.rpartition(".")[0].rpartition(".")
    if not f".{path}.".startswith(f".{block}." if block else "."):
        return False
    own = path[len(block) :].lstrip(".").partition(".")[0]  # the number of what the layer is in, or is, in the weight's list
    return own.isdecimal() and number.isdecimal() and int(own) < int(number)


def _loss_gradient(loss: Loss | CustomLoss, output: Array, y: Any) -> Array:
    """Give the gradient of a loss that `Trainer.step` has just taken."""
    y = np.from_dlpack(y) if hasattr(y, "__dlpack__") and not isinstance(y, np.ndarray) else np.asarray(y)
    if not isinstance(loss, Loss):
        return loss(output, y)[1]
    target = y if y.ndim == 1 and output.shape[1] > 1 else y.reshape(output.shape).astype(output.dtype)
    options = {field.name: getattr(loss, field.name) for field in fields(loss)}
    if options.get("weight") is not None:
        options["weight"] = np.asarray(options["weight"], output.dtype)
    gradient: Array = getattr(ops, loss.name)(output, target, **options)[1]
    return gradient


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


def _ratio(before: Array, after: Array) -> float:
    size = _rms(before)
    return _rms(after.astype(np.float64) - before) / size if size > 0 else float("nan")
