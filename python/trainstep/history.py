"""What a training run measured, epoch by epoch."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trainstep._checks import integer, path_text
from trainstep.curves import CurveReport, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's blue and vermilion: told apart by colour-blind readers, and in grey print by the line style.
_TRAIN: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "label": "training"}
_VALIDATION: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "label": "validation"}


_NUMBER = (int, float, np.number)


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
            if not isinstance(value, _NUMBER):
                raise TypeError(f"History.append: {name} is a {type(value).__name__}, expected a number")
        for name in values:
            if name not in self.history:
                self.history[name] = [math.nan] * len(self.epoch)
        self.epoch.append(number)
        for name, numbers in self.history.items():
            numbers.append(float(values.get(name, math.nan)))

    def __repr__(self) -> str:
        last = {name: numbers[-1] for name, numbers in self.history.items() if name not in ("lr", "seconds")}
        return f"History(epochs={len(self.epoch)}{''.join(f', {name}={value:.4g}' for name, value in last.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as what strict JSON can hold: numbers that are not finite are text ("nan", "inf", "-inf").

        Returns
        -------
        record : dict
            "epoch" and "history", as the attributes.

        Examples
        --------
        >>> from trainstep import History
        >>> history = History()
        >>> history.append(1, loss=2.25, val_loss=float("nan"))
        >>> history.to_dict()
        {'epoch': [1], 'history': {'loss': [2.25], 'val_loss': ['nan']}}
        """
        plain = {name: [v if math.isfinite(v) else repr(v) for v in numbers] for name, numbers in self.history.items()}
        return {"epoch": list(self.epoch), "history": plain}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "History":
        """Make a history of what `to_dict` gave.

        Parameters
        ----------
        record : dict
            "epoch" and "history".

        Returns
        -------
        history : History

        Raises
        ------
        ValueError, TypeError
            Where it is no such dict.

        Examples
        --------
        >>> from trainstep import History
        >>> History.from_dict({"epoch": [1, 2], "history": {"loss": [2.25, "nan"]}})
        History(epochs=2, loss=nan)
        """
        where = "History.from_dict: record"
        if not isinstance(record, Mapping) or set(record) != {"epoch", "history"}:
            raise ValueError(f"{where} is no dict of 'epoch' and 'history'")
        epochs, measures = record["epoch"], record["history"]
        if not isinstance(epochs, list) or not isinstance(measures, Mapping):
            raise TypeError(f"{where} holds a {type(epochs).__name__} and a {type(measures).__name__}, expected a list and a dict")
        history = cls()
        history.epoch = [integer(f"{where}['epoch']", epoch) for epoch in epochs]
        for name, numbers in measures.items():
            if not isinstance(name, str) or not isinstance(numbers, list) or len(numbers) != len(epochs):
                raise ValueError(f"{where}['history'][{name!r}] is no list of {len(epochs)} numbers")
            try:
                history.history[name] = [float(number) for number in numbers]
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{where}['history'][{name!r}] holds what is no number: {error}") from None
        return history

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        r"""Write a table: a row for each epoch, its number and then the measures.

        Parameters
        ----------
        path : str or path-like
            The file. It appears whole or not at all.

        Raises
        ------
        OSError
            Where it cannot be written.

        References
        ----------
        Shafranovich: Common format and MIME type for comma-separated values (CSV) files (RFC 4180, 2005).

        Examples
        --------
        >>> import os, tempfile
        >>> from trainstep import History
        >>> history = History()
        >>> history.append(1, loss=2.25)
        >>> history.append(2, loss=1.5, val_loss=1.75)
        >>> path = os.path.join(tempfile.mkdtemp(), "history.csv")
        >>> history.to_csv(path)
        >>> with open(path) as file:
        ...     file.read()
        'epoch,loss,val_loss\n1,2.25,nan\n2,1.5,1.75\n'
        """
        import csv

        from trainstep._files import whole_file

        with whole_file(path_text("to_csv: path", path)) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *self.history])
            writer.writerows(zip(self.epoch, *self.history.values(), strict=True))

    def diagnosis(self) -> CurveReport:
        """Read the learning curves: does the network underfit, overfit, is it good, or does it stand still.

        Overfitting: the validation loss has risen since its best, long ago, while the training loss fell or stayed. Underfitting:
        training and validation loss are the same, and both still fall, or the training rows themselves are not learnt. Good: the
        validation loss still falls, with a gap to the training loss. Plateaued: it stands still. All that from losses alone; where
        there is an accuracy of training, it tells whether its rows are learnt.

        Returns
        -------
        report : CurveReport
            With ``verdict``, ``epoch`` and ``words``; as a str both.

        Raises
        ------
        ValueError
            Where no loss was recorded.

        Notes
        -----
        Noise is told from a trend by means over windows of epochs: a rise must be larger than four standard errors, which come from
        the third differences of the curve, and than a share of the loss (`trainstep.curves`).

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), sections 5.2 and 11.4; Prechelt: Early stopping, but when? (1998).

        Examples
        --------
        >>> import trainstep as ts
        >>> x, y = ts.data.load_digits()
        >>> model = ts.nn.Sequential(ts.nn.Dense(64, 2, activation="tanh"), ts.nn.Dense(2, 10))
        >>> history = ts.Trainer(model).fit(x[:900], y[:900], epochs=20, validation_data=(x[900:], y[900:]))
        >>> history.diagnosis().verdict
        'underfitting'
        """
        if "loss" not in self.history:
            raise ValueError("History.diagnosis: no loss was recorded")
        return judge(self.epoch, self.history)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the learning curves, loss and accuracy over epochs, into a file, and below them the learning rate where it changed.

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
        rates = {rate for rate in self.history.get("lr", ()) if math.isfinite(rate)}
        heights = [3.8, 1.6] if len(rates) > 1 else [3.8]
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.08)
        figure = Figure(figsize=(5.2 * len(measures), sum(heights)), dpi=150, layout=layout)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(heights), len(measures), height_ratios=heights)
        for index, name in enumerate(measures):
            self._draw(figure.add_subplot(grid[0, index]), name)
        if len(rates) > 1:
            self._draw_rate(figure.add_subplot(grid[1, :]), rates)
        figure.savefig(path)

    def _draw_rate(self, axes: "Axes", rates: set[float]) -> None:
        """Draw the learning rate at the end of each epoch, over the whole width."""
        self._frame(axes, "Learning rate")
        axes.plot(self.epoch, self.history["lr"], color="#444444", linewidth=1.8, marker=self._marker(), markersize=3.5)
        # On a linear axis all of what is below a thirtieth of the largest looks like 0.
        if min(rates) > 0 and max(rates) > 30 * min(rates):
            axes.set_yscale("log")
        else:
            axes.update_datalim([(self.epoch[0], 0.0)])
            axes.autoscale_view()

    def _marker(self) -> str:
        # A single epoch is a point, which a line alone would not show; many markers would hide the line.
        return "o" if len(self.epoch) <= 20 else ""

    def _draw(self, axes: "Axes", name: str) -> None:
        """Draw one measure, training and validation, into one panel."""
        for key, style in ((name, _TRAIN), (f"val_{name}", _VALIDATION)):
            if key in self.history:
                axes.plot(self.epoch, self.history[key], linewidth=1.8, marker=self._marker(), markersize=3.5, **style)
        self._frame(axes, name.capitalize())
        axes.set_ylabel(name)
        if name == "loss":
            # Measured from 0, so that a small change late in training does not look like a big one.
            axes.update_datalim([(self.epoch[0], 0.0)])
            axes.autoscale_view()
        axes.legend(frameon=False)

    def _frame(self, axes: "Axes", title: str) -> None:
        """Give a panel its title, the axis of the epochs, and a grid behind the curves."""
        from matplotlib.ticker import MaxNLocator

        axes.set_title(title, fontsize=12, fontweight="bold", loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.02)
        if len(self.epoch) == 1:
            axes.set_xlim(self.epoch[0] - 1, self.epoch[0] + 1)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
