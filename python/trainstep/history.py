"""What a training run measured, epoch by epoch."""

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trainstep._checks import integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's blue and vermilion: told apart by colour-blind readers, and in grey print by the line style.
_TRAIN: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "label": "training"}
_VALIDATION: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "label": "validation"}


class History:
    """The record that ``Trainer.fit`` returns: one number for each measure and epoch.

    Attributes
    ----------
    epoch : list of int
        The epochs, in order, counted from 1 over the life of the trainer.
    history : dict of str to list of float
        The measures: "loss", "accuracy", "val_loss", "val_accuracy", "lr" and "seconds", as far as they were taken.
        Each list is as long as ``epoch``, with NaN where an epoch has no such number.

    Examples
    --------
    >>> from trainstep import History
    >>> history = History()
    >>> history.append(1, loss=2.25, accuracy=0.5)
    >>> history.append(2, loss=1.5, accuracy=0.75)
    >>> history.history["loss"]
    [2.25, 1.5]
    >>> history
    History(epochs=2, loss=1.5, accuracy=0.75)
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def append(self, epoch: int, **values: float) -> None:
        """Add the measures of one epoch.

        Parameters
        ----------
        epoch : int
            The number of the epoch.
        **values : float
            The measures by name, such as ``loss=0.25``.

        Examples
        --------
        >>> from trainstep import History
        >>> history = History()
        >>> history.append(1, loss=2.25)
        >>> history.append(2, loss=1.5, val_loss=1.75)
        >>> history.history
        {'loss': [2.25, 1.5], 'val_loss': [nan, 1.75]}
        """
        number = integer("History.append: epoch", epoch)
        for name, value in values.items():
            if not isinstance(value, int | float | np.number):
                raise TypeError(f"History.append: {name} is a {type(value).__name__}, expected a number")
        for name in values:
            self.history.setdefault(name, [math.nan] * len(self.epoch))
        self.epoch.append(number)
        for name, numbers in self.history.items():
            numbers.append(float(values.get(name, math.nan)))

    def __repr__(self) -> str:
        last = {name: numbers[-1] for name, numbers in self.history.items() if name not in ("lr", "seconds")}
        return f"History(epochs={len(self.epoch)}{''.join(f', {name}={value:.4g}' for name, value in last.items())})"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the learning curves, loss and accuracy over epochs, into a file.

        Without accuracy, as in regression, there is one panel.

        Parameters
        ----------
        path : str or path-like
            The file; its suffix (.png, .pdf, .svg) says what is written.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            No epoch was recorded, or matplotlib does not know the suffix.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> history.plot("curves.png")  # doctest: +SKIP
        """
        try:
            # Figure by itself, without pyplot: no window system, no global state, safe in threads.
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.layout_engine import ConstrainedLayoutEngine
        except ImportError as error:
            raise ImportError("History.plot needs matplotlib: pip install trainstep[plot]") from error
        if not self.epoch:
            raise ValueError("History.plot: there is nothing to draw, no epoch was recorded")

        measures = [name for name in ("loss", "accuracy") if name in self.history or f"val_{name}" in self.history]
        if not measures:
            raise ValueError("History.plot: there is nothing to draw, neither loss nor accuracy was recorded")
        figure = Figure(figsize=(5.2 * len(measures), 3.8), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.15))
        FigureCanvasAgg(figure)
        for index, name in enumerate(measures):
            self._draw(figure.add_subplot(1, len(measures), index + 1), name)
        figure.savefig(path)

    def _draw(self, axes: "Axes", name: str) -> None:
        """Draw one measure, training and validation, into one panel."""
        from matplotlib.ticker import MaxNLocator

        # A single epoch is a point, which a line alone would not show; many markers would hide the line.
        marker = "o" if len(self.epoch) <= 20 else ""
        for key, style in ((name, _TRAIN), (f"val_{name}", _VALIDATION)):
            if key in self.history:
                axes.plot(self.epoch, self.history[key], linewidth=1.8, marker=marker, markersize=3.5, **style)
        axes.set_title(name.capitalize(), fontsize=12, fontweight="bold", loc="left")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.02)
        if name == "loss":
            # Measured from 0, so that a small change late in training does not look like a big one.
            axes.update_datalim([(self.epoch[0], 0.0)])
            axes.autoscale_view()
        if len(self.epoch) == 1:
            axes.set_xlim(self.epoch[0] - 1, self.epoch[0] + 1)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
