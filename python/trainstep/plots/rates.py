"""Learning rates over the steps."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainstep._checks import integer
from trainstep.plots.pictures import Picture, caption, file_to_write, known_kind, line_style, name_axes, named, panels, plain
from trainstep.schedules import Plateau, Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
_KINDS = ("panels", "together")


@dataclass(frozen=True, eq=False, repr=False)
class Rates(Picture):
    """What `schedules` gives: the rates of each schedule.

    Parameters
    ----------
    rates : dict of str to ndarray, shape (steps,), float64
        The rate of each step, from 0 on, by the schedule's name.
    kind : str
        "panels" or "together".

    Examples
    --------
    >>> import trainstep as ts
    >>> rates = ts.plots.schedules({"down": ts.schedules.linear(1.0, total=4)}, steps=5)
    >>> rates.rates["down"]
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    rates: dict[str, Array]
    kind: str = "panels"

    _KINDS: ClassVar[tuple[str, ...]] = _KINDS

    def __repr__(self) -> str:
        return f"Rates({', '.join(self.rates)}; steps={len(next(iter(self.rates.values())))})"

    def _draw(self, figure: "Figure", kind: str) -> None:
        apart = kind == "panels"
        if apart:
            places = panels(figure, len(self.rates), 2.6, 1.9)
        else:
            figure.set_size_inches(7.0, 4.0)
            places = [figure.add_subplot()] * len(self.rates)
        for i, (axes, (name, rates)) in enumerate(zip(places, self.rates.items(), strict=True)):
            style = line_style(0 if apart else i)
            axes.plot(np.arange(len(rates)), rates, linewidth=1.8, label=name, marker="o" if len(rates) == 1 else "", **style)
            if apart:
                caption(axes, name)
        for axes in dict.fromkeys(places):
            plain(axes)
            axes.margins(x=0.02)
            axes.set_ylim(bottom=0)
            axes.tick_params(labelsize=8)
            axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.4g}")
        name_axes(figure, places, "step", "learning rate")
        if not apart:
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)


def schedules(
    schedules: Mapping[str, Callable[[int], float]] | Iterable[Callable[[int], float]],
    steps: int,
    *,
    kind: str = "panels",
    path: str | os.PathLike[str] | None = None,
) -> Rates:
    """Show learning rates over the steps.

    lr(t), t = 0 ... steps - 1

    Parameters
    ----------
    schedules : list of callables, or dict of them by name
        Schedules, callables t -> lr. Those of a list are called by the name of their function and, where that comes again, by the
        arguments in which they differ. A `trainstep.schedules.Plateau` depends on a metric and cannot be among them.
    steps : int
        How many, at least 1.
    kind : str, default "panels"
        "panels", a small picture each, or "together", lines in one.
    path : str or path, optional
        A file to draw the picture into; its ending (.png, .pdf, .svg) says the format.

    Returns
    -------
    rates : Rates
        The numbers, with `Picture.plot`.

    Raises
    ------
    ValueError, TypeError
        Where an argument is out of its range or of a wrong type, or a schedule gives what is no rate.
    ImportError
        Where path is given and matplotlib is not installed.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.3.1.

    Examples
    --------
    >>> import trainstep as ts
    >>> cosine = ts.schedules.cosine(0.1, total=4)
    >>> rates = ts.plots.schedules([cosine, ts.schedules.warmup(cosine, steps=2)], steps=6)
    >>> rates
    Rates(cosine, warmup; steps=6)
    >>> rates.rates["warmup"].round(3)
    array([0.   , 0.05 , 0.1  , 0.085, 0.05 , 0.015])
    """
    given = named("schedules: schedules", schedules, _describe, "schedules")
    steps = integer("schedules: steps", steps, 1)
    kind = known_kind("schedules", kind, _KINDS)
    if path is not None:
        path = file_to_write("schedules", path)
    result = Rates({name: _rates(name, schedule, steps) for name, schedule in given.items()}, kind)
    if path is not None:
        result.plot(path)
    return result


def _describe(schedule: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(schedule, Schedule):
        return schedule.name, schedule.arguments
    return getattr(schedule, "__name__", type(schedule).__name__), {}


def _rates(name: str, schedule: Any, steps: int) -> Array:
    if isinstance(schedule, Plateau) or not callable(schedule):
        raise TypeError(f"schedules: schedules[{name!r}] is a {type(schedule).__name__}, expected a schedule, a callable t -> lr")
    times = np.arange(steps)
    values = schedule(times) if isinstance(schedule, Schedule) else [schedule(t) for t in range(steps)]
    try:
        rates = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        rates = np.empty(0)
    wrong = np.flatnonzero(~np.isfinite(rates)) if rates.shape == (steps,) else np.zeros(1, int)
    if wrong.size:
        raise ValueError(f"schedules: schedules[{name!r}] gave {values[wrong[0]]!r} for t = {wrong[0]}, expected a finite number")
    return rates
