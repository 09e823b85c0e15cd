"""The paths of optimizers over the contours of a function of two variables."""

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainstep._checks import integer, number
from trainstep.optim import Optimizer
from trainstep.plots.pictures import MARK, Picture, caption, file_to_write, known_kind, line_style, name_axes, named, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
Function = Callable[[Array], tuple[Any, Any]]
Limits = tuple[tuple[float, float], tuple[float, float]]

_KINDS = ("panels", "together")
_GRID = 121  # points of the contours' grid each way
_LEVELS = 22
_MARKED = 101  # the most points of a path that are seen one by one


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories(Picture):
    """What `trajectories` gives: where each optimizer went.

    Parameters
    ----------
    points : dict of str to ndarray, shape (steps + 1, 2), float64
        The start and where each step led, by the optimizer's name.
    values : dict of str to ndarray, shape (steps + 1,), float64
        The function there.
    f : callable
        The function, w -> (value, gradient).
    limits : ((left, right), (bottom, top))
        What part of the plane is drawn.
    kind : str
        "panels" or "together".

    Examples
    --------
    >>> import trainstep as ts
    >>> paths = ts.plots.trajectories([ts.optim.SGD(lr=0.07)], ts.plots.ravine, start=(-4, 1), steps=2)
    >>> paths.points["SGD"].round(4)
    array([[-4.    ,  1.    ],
           [-3.72  , -0.75  ],
           [-3.4596,  0.5625]])
    """

    points: dict[str, Array]
    values: dict[str, Array]
    f: Function
    limits: Limits
    kind: str = "panels"

    _KINDS: ClassVar[tuple[str, ...]] = _KINDS

    def __repr__(self) -> str:
        return f"Trajectories({', '.join(f'{name}: {values[-1]:.4g}' for name, values in self.values.items())})"

    def _draw(self, figure: "Figure", kind: str) -> None:
        a, b = (np.linspace(*limits, _GRID) for limits in self.limits)
        heights = np.array([[_value_and_slope(self.f, np.array([x, y]))[0] for x in a] for y in b])
        apart = kind == "panels"
        if apart:
            places = panels(figure, len(self.points), 3.3, 2.7)
        else:
            figure.set_size_inches(7.0, 5.0)
            places = [figure.add_subplot()] * len(self.points)
        for axes in dict.fromkeys(places):
            _contours(axes, a, b, heights)
            axes.set(xlim=self.limits[0], ylim=self.limits[1])
            axes.tick_params(labelsize=8)
        for i, (axes, (name, points)) in enumerate(zip(places, self.points.items(), strict=True)):
            style = {"color": MARK} if apart else line_style(i)
            label = f"{name}: f = {self.values[name][-1]:.2g}"
            marker = "o" if len(points) <= _MARKED else ""
            axes.plot(*points.T, linewidth=1.4, marker=marker, markersize=2.6, markeredgewidth=0, label=label, **style)
            axes.plot(*points[0], "o", markersize=6, markerfacecolor="white", markeredgecolor="black")
            axes.plot(*points[-1], "*", markersize=11, markerfacecolor=style["color"], markeredgecolor="black", markeredgewidth=0.7)
            if apart:
                caption(axes, label)
        name_axes(figure, places, "w1", "w2")
        if not apart:
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)


def trajectories(
    optimizers: Mapping[str, Optimizer] | Iterable[Optimizer],
    f: Function,
    start: ArrayLike,
    steps: int = 50,
    *,
    kind: str = "panels",
    limits: Limits | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Trajectories:
    """Follow optimizers down a function of two variables.

    w_0 = start, w_(t+1) = w_t - update(df/dw(w_t)), in float64, by the steps of `trainstep.optim`

    In the picture a circle is the start, a star the last point, and the number beside a name the function's value there.

    Parameters
    ----------
    optimizers : list of Optimizer, or dict of them by name
        Made without params. Those of a list are called by their class and, where that comes again, by the options in which they
        differ. They stay as they are: copies make the steps.
    f : callable
        w, shape (2,), float64, -> (value, gradient of w's shape), such as `ravine`, `rosenbrock`, `saddle` and `beale`. It is given
        copies.
    start : array, shape (2,)
        Where all begin.
    steps : int, default 50
        How many, at least 1.
    kind : str, default "panels"
        "panels", a small picture each, or "together", all in one.
    limits : ((left, right), (bottom, top)), optional
        What part of the plane is drawn. Default: where the paths are, but for points where f is more above its value at the start
        than that is above the least found: a path that diverges leaves the picture.
    path : str or path, optional
        A file to draw the picture into; its ending (.png, .pdf, .svg) says the format.

    Returns
    -------
    trajectories : Trajectories
        The numbers, with `Picture.plot`.

    Raises
    ------
    ValueError, TypeError
        Where an argument is out of its range or of a wrong type, or what f gives does not fit.
    ImportError
        Where path is given and matplotlib is not installed.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), figures 4.6 and 8.5.

    Examples
    --------
    >>> import trainstep as ts
    >>> optimizers = {"SGD": ts.optim.SGD(lr=0.07), "momentum": ts.optim.SGD(lr=0.02, momentum=0.8)}
    >>> paths = ts.plots.trajectories(optimizers, ts.plots.ravine, start=(-4, 1), steps=30)
    >>> {name: round(float(values[-1]), 4) for name, values in paths.values.items()}
    {'SGD': 0.1028, 'momentum': 0.0121}
    """
    given = named("trajectories: optimizers", optimizers, _describe, "optimizers")
    for name, optimizer in given.items():
        if not isinstance(optimizer, Optimizer):
            kind_of = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else f"a {type(optimizer).__name__}"
            raise TypeError(f"trajectories: optimizers[{name!r}] is {kind_of}, expected one of trainstep.optim")
        if any(group["params"] for group in optimizer.param_groups):
            raise ValueError(f"trajectories: optimizers[{name!r}] already has its parameters, expected an optimizer made without")
    if not callable(f):
        raise TypeError(f"trajectories: f is a {type(f).__name__}, expected a callable w -> (value, gradient)")
    first = _point(start)
    steps = integer("trajectories: steps", steps, 1)
    kind = known_kind("trajectories", kind, _KINDS)
    limits = None if limits is None else _limits(limits)
    if path is not None:
        path = file_to_write("trajectories", path)
    runs = {name: _follow(optimizer, f, first, steps) for name, optimizer in given.items()}
    points, values = ({name: run[part] for name, run in runs.items()} for part in (0, 1))
    result = Trajectories(points, values, f, limits or _around(points, values), kind)
    if path is not None:
        result.plot(path)
    return result


def _describe(optimizer: Any) -> tuple[str, Mapping[str, Any]]:
    options = optimizer.param_groups[0] if isinstance(optimizer, Optimizer) else {}
    return type(optimizer).__name__, {name: value for name, value in options.items() if name != "params"}


def _follow(optimizer: Optimizer, f: Function, start: Array, steps: int) -> tuple[Array, Array]:
    """Make the steps of a copy of an optimizer; give the points and the values of f."""
    optimizer, w = copy.deepcopy(optimizer), start.copy()
    optimizer._take([w])
    points, values = np.empty((steps + 1, 2)), np.empty(steps + 1)
    for t in range(steps + 1):
        points[t] = w
        values[t], gradient = _value_and_slope(f, w)
        if t < steps:
            optimizer.step([gradient])
    return points, values


def _value_and_slope(f: Function, w: Array) -> tuple[float, Array]:
    with np.errstate(all="ignore"):  # where a path has gone to infinity
        result = f(w.copy())
    try:
        value, gradient = result
        value, gradient = np.float64(value), np.array(gradient, np.float64)
    except (TypeError, ValueError):
        raise TypeError("trajectories: f gave no pair of a value and a gradient, expected numbers") from None
    if np.shape(value) or gradient.shape != (2,):
        raise ValueError(
            f"trajectories: f gave shapes {np.shape(value)} and {gradient.shape}, expected a value () and a gradient (2,)"
        )
    return float(value), gradient


def _point(start: ArrayLike) -> Array:
    try:
        point = np.array(start, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"trajectories: start is {start!r}, expected two numbers") from None
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"trajectories: start is {start!r}, expected two finite numbers")
    return point


def _limits(limits: Any) -> Limits:
    try:
        (left, right), (bottom, top) = limits
    except (TypeError, ValueError):
        raise TypeError(f"trajectories: limits is {limits!r}, expected ((left, right), (bottom, top))") from None
    a, b, c, d = (number("trajectories: a number of limits", value) for value in (left, right, bottom, top))
    if a >= b or c >= d:
        raise ValueError(f"trajectories: limits is {limits!r}, expected left below right, and bottom below top")
    return (a, b), (c, d)


def _around(points: Mapping[str, Array], values: Mapping[str, Array]) -> Limits:
    """Give the part of the plane where the paths are, but for where they diverge."""
    everywhere, heights = np.concatenate(list(points.values())), np.concatenate(list(values.values()))
    first = heights[0]
    known = np.isfinite(everywhere).all(axis=1) & np.isfinite(heights)
    least = heights[known].min(initial=first if np.isfinite(first) else 0.0)
    near = everywhere[known & (heights <= first + (first - least))]
    if not len(near):
        near = everywhere[:1]
    low, high = near.min(axis=0), near.max(axis=0)
    # A path along an axis still has a plane around it: at least a third of its length, and something around a point.
    wide = np.maximum(high - low, max((high - low).max() / 3, 1e-3))
    middle = (low + high) / 2
    (left, bottom), (right, top) = middle - 0.62 * wide, middle + 0.62 * wide
    return (float(left), float(right)), (float(bottom), float(top))


def _contours(axes: "Axes", a: Array, b: Array, heights: Array) -> None:
    """Draw contours that lie closer where the function is low: there the paths end."""
    finite = heights[np.isfinite(heights)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        return
    levels = low + (high - low) * np.linspace(0, 1, _LEVELS) ** 3
    shown = np.where(np.isfinite(heights), heights, high)
    # Equal colours for equal steps between levels, else all but the highest would look the same.
    shades = (np.linspace(0.95, 0.55, _LEVELS - 1)[:, None] * np.ones(3)).tolist()
    axes.contourf(a, b, shown, levels, colors=shades[::-1])
    axes.contour(a, b, shown, levels, colors="white", linewidths=0.5, linestyles="solid")
