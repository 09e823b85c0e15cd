"""Monitor: the diagnosis of a network while it is trained."""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from trainstep._checks import integer, path_text
from trainstep.callbacks.base import Callback

if TYPE_CHECKING:
    from trainstep.diagnosis import Report

_ROWS = 256


class Monitor(Callback):
    """Looks at the layers as they are trained: `diagnose` at the end of epochs, always with the same batch.

    Copies of the model and of the optimizer, with its states, take one step, without sample weights; what is trained goes on as it
    would without.

    Parameters
    ----------
    x, y : array, optional
        The batch, as for `Trainer.step`. Default: the first rows of what `fit` trains on, copied when it begins.
    rows : int, optional
        How many of those; at least 1, and not together with x. Default: 256, or as many as there are.
    every : int, default 1
        The epochs that are looked at: those whose number it divides.
    on_ill : {"ignore", "warn", "stop"}, default "ignore"
        What else to do about a verdict that is not "healthy": nothing, warn where it is another than before, or `Trainer.stop`.

    Attributes
    ----------
    reports : list of (int, Report)
        The number of the epoch and what was found, of all runs so far.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit; x and y are held to the model when `fit` begins.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks (AISTATS 2010), figures 2, 3 and 7.

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 64, activation="relu"), ts.nn.Dense(64, 10))
    >>> monitor = ts.callbacks.Monitor(every=2)
    >>> history = ts.Trainer(model).fit(x / 16, y, epochs=4, callbacks=[monitor])
    >>> [(epoch, report.verdict) for epoch, report in monitor.reports]
    [(2, 'healthy'), (4, 'healthy')]
    """

    def __init__(self, x: Any = None, y: Any = None, rows: int | None = None, every: int = 1, on_ill: str = "ignore") -> None:
        if (x is None) != (y is None):
            raise ValueError(f"Monitor: {'x' if x is None else 'y'} is None, expected both x and y, or neither")
        if x is not None and rows is not None:
            raise ValueError(f"Monitor: rows is {rows!r}, expected None where x is given: all its rows are used")
        self._rows = _ROWS if rows is None else integer("Monitor: rows", rows, 1)
        self._every = integer("Monitor: every", every, 1)
        if on_ill not in ("ignore", "warn", "stop"):
            raise ValueError(f"Monitor: on_ill is {on_ill!r}, expected 'ignore', 'warn' or 'stop'")
        self._on_ill = on_ill
        self._given = x, y
        self._batch: tuple[Any, Any] = (None, None)
        self.reports: list[tuple[int, Report]] = []

    @property
    def verdict(self) -> str | None:
        """The verdict of the last report; None before the first."""
        return self.reports[-1][1].verdict if self.reports else None

    def on_train_begin(self) -> None:
        """Take the batch, or hold the one that was given to the model."""
        self._batch = self._given
        if self._given[0] is None:
            run = self.trainer._runs[-1]
            self._batch = _first(run.x, self._rows), _first(run.y, self._rows)
        self.trainer._core.data(*self._batch, "Monitor", "x", "y", callers_loss=self.trainer._custom_loss)  # raises here, or never

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Look at the layers, where it is their turn.

        Parameters
        ----------
        epoch : int
            Its number.
        values : dict of str to float
            Not used.

        Examples
        --------
        >>> import trainstep as ts
        >>> monitor = ts.callbacks.Monitor(every=10)
        >>> monitor.on_epoch_end(1, {"loss": 0.5})
        >>> monitor.reports
        []
        """
        from trainstep.diagnosis import HELP, examine  # here: it stands on the trainer, which stands on this module

        if epoch % self._every:
            return
        before = self.verdict
        self.reports.append((epoch, examine(self.trainer._copy(), *self._batch)))
        if self.verdict == "healthy":
            return
        if self._on_ill == "warn" and self.verdict != before:
            warnings.warn(f"Monitor: {self.verdict} in epoch {epoch}; what helps: {HELP[str(self.verdict)]}", stacklevel=2)
        elif self._on_ill == "stop":
            self.trainer.stop()

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the spread of outputs, the gradients and the updates over the epochs, a line for each layer, into a file.

        Parameters
        ----------
        path : str or path
            The file; its ending says the format.

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        ValueError
            Where there is no report yet.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import trainstep as ts
        >>> monitor = ts.callbacks.Monitor()
        >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(3, 2)))
        >>> history = trainer.fit(np.ones((4, 3)), np.arange(4) % 2, epochs=3, callbacks=[monitor])
        >>> monitor.plot(os.path.join(tempfile.mkdtemp(), "layers.png"))
        """
        from trainstep.diagnosis import PANELS

        try:
            from matplotlib import colormaps
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise ImportError("Monitor.plot needs matplotlib: pip install trainstep[plot]") from error
        if not self.reports:
            raise ValueError("Monitor.plot: there is nothing to draw, no epoch was looked at")
        epochs = [epoch for epoch, _ in self.reports]
        found = [{layer.name: layer for layer in report.layers} for _, report in self.reports]
        names = list(dict.fromkeys(name for layers in found for name in layers))
        # From input (dark) to output; the end of the map is too light to be seen on white.
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(names)))
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axes, (title, column) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for name, color in zip(names, colors, strict=True):
                values = np.array([getattr(layers.get(name), column, np.nan) for layers in found])
                axes.plot(epochs, np.where(values > 0, values, np.nan), "o-", color=color, markersize=2, linewidth=1, label=name)
            axes.set(title=title, xlabel="epoch", yscale="log")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(visible=True, alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        shown = slice(None, None, -(-len(names) // _NAMED))
        figure.legend(handles[shown], labels[shown], title="layer", loc="outside right center", frameon=False)
        figure.savefig(path_text("plot: path", path), dpi=150)


_NAMED = 12  # the most layers in a legend


def _first(a: Any, rows: int) -> Any:
    """Copy the first rows of an array of any library."""
    a = np.from_dlpack(a) if hasattr(a, "__dlpack__") and not isinstance(a, np.ndarray) else np.asarray(a)
    return a[:rows].copy()
