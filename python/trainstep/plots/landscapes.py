"""The loss of a network over two directions in the space of its weights."""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from trainstep._checks import integer, number
from trainstep.losses import Loss
from trainstep.nn import Sequential
from trainstep.optim import SGD
from trainstep.plots.pictures import MARK, Picture, file_to_write, known_kind
from trainstep.trainer import CustomLoss, Trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
Direction = Mapping[str, Any]

_KINDS = ("contour", "surface", "both")
_LEVELS = 24
_MARGIN = 1.25  # how far a direction of a trajectory goes, in lengths of the way to its farthest point
_LOGARITHMIC = 20  # the largest loss over the smallest from which on levels are spaced by factors


@dataclass(frozen=True, eq=False, repr=False)
class Landscape(Picture):
    """What `landscape` gives: losses over two directions.

    Parameters
    ----------
    alpha, beta : ndarray, shape (steps,), float64
        How far along each direction.
    loss : ndarray, shape (steps, steps), float64
        loss[i, j] is that at alpha[i], beta[j].
    center : float
        The loss of the model itself.
    directions : tuple of two dicts of str to ndarray, float64
        The directions by the parameters' names.
    trajectory : ndarray, shape (states, 2), float64, or None
        Where the states of a trajectory lie: their alpha and beta.
    explained : tuple of two floats, or None
        The share of the trajectory's squared length that each of its own directions has.
    kind : str
        "contour", "surface" or "both".

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
    >>> landscape = ts.plots.landscape(model, np.eye(3), np.array([0, 1, 1]), steps=5)
    >>> landscape.loss.shape, bool(landscape.loss[2, 2] == landscape.center)
    ((5, 5), True)
    """

    alpha: Array
    beta: Array
    loss: Array
    center: float
    directions: tuple[dict[str, Array], dict[str, Array]]
    trajectory: Array | None = None
    explained: tuple[float, float] | None = None
    kind: str = "contour"

    _KINDS: ClassVar[tuple[str, ...]] = _KINDS

    def __repr__(self) -> str:
        loss, _ = self._finite()
        return (
            f"Landscape(center={self.center:.4g}, from {loss.min():.4g} to {loss.max():.4g})" if loss.count() else "Landscape(nan)"
        )

    def _draw(self, figure: "Figure", kind: str) -> None:
        both = kind == "both"
        figure.set_size_inches(10.4 if both else 5.6, 4.4)
        if kind != "surface":
            self._contour(figure, figure.add_subplot(1, 1 + both, 1))
        if kind != "contour":
            self._surface(figure.add_subplot(1, 1 + both, 1 + both, projection="3d"))

    def _finite(self) -> tuple[Any, bool]:
        """Give the losses without those that are not finite, and whether they span so much that it takes a logarithm to see it."""
        loss = np.ma.masked_invalid(self.loss)
        return loss, bool(loss.count() and loss.min() > 0 and loss.max() > _LOGARITHMIC * loss.min())

    def _labels(self) -> tuple[str, str]:
        if self.explained is None:
            return "direction 1", "direction 2"
        first, second = (f"principal direction {k + 1} ({share:.0%} of the path)" for k, share in enumerate(self.explained))
        return first, second

    def _contour(self, figure: "Figure", axes: "Axes") -> None:
        from matplotlib.colors import LogNorm, Normalize
        from matplotlib.ticker import LogLocator, MaxNLocator

        loss, logarithmic = self._finite()
        axes.set_facecolor("#BBBBBB")  # where the loss is not finite
        if loss.count() and loss.min() < loss.max():
            low, high = float(loss.min()), float(loss.max())
            levels = np.geomspace(low, high, _LEVELS) if logarithmic else MaxNLocator(_LEVELS).tick_values(low, high)
            norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
            filled = axes.contourf(self.alpha, self.beta, loss.T, levels, cmap="viridis", norm=norm)
            axes.contour(self.alpha, self.beta, loss.T, levels, colors="white", linewidths=0.4, alpha=0.6)
            ticks = LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(8)
            bar = figure.colorbar(filled, ax=axes, label="loss", ticks=ticks, format=lambda value, _: f"{value:.4g}")
            bar.ax.minorticks_off()
            bar.ax.tick_params(labelsize=8)
        if self.trajectory is not None:
            axes.plot(*self.trajectory.T, "o-", color="white", linewidth=3.2, markersize=5.5, markeredgewidth=0)
            axes.plot(*self.trajectory.T, "o-", color=MARK, linewidth=1.6, markersize=3.5, markeredgewidth=0)
        axes.plot(0, 0, "*", markersize=13, markerfacecolor=MARK, markeredgecolor="white")
        first, second = self._labels()
        axes.set(xlabel=first, ylabel=second, xlim=self.alpha[[0, -1]], ylim=self.beta[[0, -1]])
        axes.tick_params(labelsize=8)

    def _surface(self, axes: Any) -> None:
        loss, logarithmic = self._finite()
        height = np.ma.filled(np.ma.log10(loss) if logarithmic else loss, np.nan)
        a, b = np.meshgrid(self.alpha, self.beta, indexing="ij")
        if loss.count():
            low, high = np.nanmin(height), np.nanmax(height)
            axes.plot_surface(a, b, height, cmap="viridis", vmin=low, vmax=high, rcount=100, ccount=100, linewidth=0)
        axes.set(xlabel="direction 1", ylabel="direction 2", zlabel="log10 of the loss" if logarithmic else "loss")
        axes.view_init(elev=34, azim=-58)
        axes.set_box_aspect(None, zoom=0.86)  # else the label of z lies outside of the figure
        axes.tick_params(labelsize=7, pad=1)


def landscape(
    model: Sequential,
    x: Any,
    y: Any,
    loss: str | Loss | CustomLoss = "softmax_cross_entropy",
    *,
    directions: Literal["random"] | tuple[Direction, Direction] | None = None,
    span: float = 1.0,
    steps: int = 41,
    kind: str = "contour",
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    trajectory: Iterable[Mapping[str, Any]] | None = None,
) -> Landscape:
    """Measure the loss around a network, over two directions in the space of its weights.

    loss(alpha, beta) = L(w + alpha * d_1 + beta * d_2)

    A random direction is normalised by unit: the part of d that leads into a unit is as long as the weights that do,
    d_u <- d_u / norm(d_u) * norm(w_u). A step along it is then the same share of every unit's weights, and networks that compute
    the same with larger and smaller layers look the same. Biases, gamma and beta stay as they are, and so does what is pruned. L is
    that of `Trainer.evaluate`, without dropout, and with the running statistics of batch normalisation as they are.

    Parameters
    ----------
    model : Sequential
        The network in the middle; it is left as it is, for a copy is measured.
    x, y : array
        What the loss is of, as for `Trainer.evaluate`. Some thousand rows are enough.
    loss : str, Loss or callable, default "softmax_cross_entropy"
        As for `Trainer`.
    directions : "random" or two dicts of arrays by parameters' names, optional
        The dicts are taken as they are, with 0 for parameters that they lack. Default: of a trajectory, if one is given, the
        first two principal directions of the way to its states from the model, each a quarter longer than the farthest of them
        is along it, and with the first state on the side of negative alpha and beta; all parameters take part in these. Else
        "random".
    span : float, default 1.0
        How far alpha and beta go to both sides, above 0.
    steps : int, default 41
        Points along each direction, at least 2; the model itself is among them where it is odd. There are steps^2 evaluations.
    kind : str, default "contour"
        "contour", "surface" or "both".
    seed : int, default 0
        What random directions follow from, at least 0.
    path : str or path, optional
        A file to draw the picture into; its ending (.png, .pdf, .svg) says the format.
    trajectory : list of dicts of arrays by parameters' names, optional
        States of the weights to show in the plane, such as copies of `Sequential.parameters` after each epoch.

    Returns
    -------
    landscape : Landscape
        The numbers, with `Picture.plot`.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit.
    ImportError
        Where path is given and matplotlib is not installed.

    References
    ----------
    Li, Xu, Taylor, Studer, Goldstein: Visualizing the loss landscape of neural nets (NeurIPS 2018), section 4 for the random
    directions (biases and norm parameters as in the authors' code) and section 7 for those of a trajectory.

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.Dense(32, 10))
    >>> history = ts.Trainer(model).fit(x, y, epochs=10)
    >>> landscape = ts.plots.landscape(model, x, y, steps=5)
    >>> bool((landscape.loss >= landscape.center).all())
    True
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"landscape: model is a {type(model).__name__}, expected a trainstep.nn.Sequential")
    span = number("landscape: span", span, above=0)
    steps, seed = integer("landscape: steps", steps, 2), integer("landscape: seed", seed, 0)
    kind = known_kind("landscape", kind, _KINDS)
    if path is not None:
        path = file_to_write("landscape", path)
    names = model.parameters()
    weights = _flat(names.values())
    ways = None if trajectory is None else _ways(names, weights, trajectory)
    explained = None
    if directions is None and ways is not None:
        plane, explained = _principal(ways)
    elif directions is None or (isinstance(directions, str) and directions == "random"):
        plane = _random(model, seed)
    else:
        plane = _given(names, directions)
    # Whole numbers about 0, so that the middle is the model to the bit and both sides are alike.
    along = (2 * np.arange(steps) - (steps - 1)) * (span / (steps - 1))
    measured = _Measured(model, x, y, loss)
    losses = np.array([[measured(weights + a * plane[0] + b * plane[1]) for b in along] for a in along])
    first, second = (_by_name(names, direction) for direction in plane)
    places = None if ways is None else np.linalg.lstsq(plane.T, ways.T, rcond=None)[0].T
    result = Landscape(along, along.copy(), losses, measured(weights), (first, second), places, explained, kind)
    if path is not None:
        result.plot(path)
    return result


class _Measured:
    """The loss as a function of all parameters, end to end: that of a copy of the model."""

    def __init__(self, model: Sequential, x: Any, y: Any, loss: str | Loss | CustomLoss) -> None:
        model = copy.deepcopy(model)
        self._views, self._x, self._y = list(model.parameters().values()), x, y
        self._trainer = Trainer(model, loss, SGD())

    def __call__(self, weights: Array) -> float:
        begin = 0
        for view in self._views:
            # Too large for float32 is infinite there, and so is the loss.
            with np.errstate(over="ignore"):
                view[...] = weights[begin : begin + view.size].reshape(view.shape)
            begin += view.size
        return self._trainer.evaluate(self._x, self._y)["loss"]


def _flat(arrays: Iterable[Any]) -> Array:
    """Give arrays end to end, in float64, which holds the weights of either dtype."""
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def _by_name(names: Mapping[str, Array], flat: Array) -> dict[str, Array]:
    ends = np.cumsum([view.size for view in names.values()])[:-1]
    return {name: part.reshape(names[name].shape) for name, part in zip(names, np.split(flat, ends), strict=True)}


def _random(model: Sequential, seed: int) -> Array:
    rng, masks = np.random.default_rng(seed), model._masks()
    plane = [_random_direction(model.parameters(), masks, rng) for _ in range(2)]
    if not all(direction.any() for direction in plane):
        raise ValueError(
            "landscape: all weights of the model are 0, expected some that are not: a random direction is as long as they"
        )
    return np.stack(plane)


def _random_direction(names: Mapping[str, Array], masks: Mapping[str, Array], rng: "np.random.Generator") -> Array:
    parts = []
    for name, view in names.items():
        if view.ndim < 2:
            parts.append(np.zeros(view.shape))
            continue
        direction = rng.standard_normal(view.shape) * masks.get(name, 1.0)
        # A unit is a column; one that has been pruned whole has a direction of length 0, and weights of that length too.
        length = np.linalg.norm(direction, axis=0)
        weight_length = np.linalg.norm(view.astype(np.float64), axis=0)
        parts.append(direction * np.divide(weight_length, length, out=np.zeros_like(length), where=length > 0))
    return _flat(parts)


def _given(names: Mapping[str, Array], directions: Any) -> Array:
    if isinstance(directions, str) or not isinstance(directions, Sequence) or len(directions) != 2:
        raise ValueError(f"landscape: directions is {directions!r:.60}, expected None, 'random' or two dicts of arrays by name")
    plane = []
    for i, direction in enumerate(directions):
        where = f"landscape: directions[{i}]"
        given = _arrays_by_name(where, names, direction)
        plane.append(_flat(given.get(name, np.zeros(view.shape)) for name, view in names.items()))
        if not plane[-1].any():
            raise ValueError(f"{where} is 0, expected a direction")
    return np.stack(plane)


def _ways(names: Mapping[str, Array], weights: Array, trajectory: Any) -> Array:
    """Give the way to each state of a trajectory from the model, a row each."""
    if isinstance(trajectory, Mapping | str) or not isinstance(trajectory, Iterable):
        raise TypeError(f"landscape: trajectory is a {type(trajectory).__name__}, expected a list of dicts of arrays by name")
    rows = []
    for i, state in enumerate(trajectory):
        where = f"landscape: trajectory[{i}]"
        given = _arrays_by_name(where, names, state)
        lacking = [name for name in names if name not in given]
        if lacking:
            raise ValueError(f"{where} lacks {lacking[0]}, expected all parameters of the model")
        rows.append(_flat(given[name] for name in names) - weights)
    if not np.any(rows):
        raise ValueError(
            f"landscape: trajectory has {len(rows)} states and none that differs from the model, expected copies of its parameters"
        )
    return np.stack(rows)


def _arrays_by_name(where: str, names: Mapping[str, Array], given: Any) -> dict[str, Array]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{where} is a {type(given).__name__}, expected a dict of arrays by parameters' names")
    arrays = {}
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{where} has {name!r}, expected names of parameters: {', '.join(names)}")
        try:
            arrays[name] = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{where}[{name!r}] is a {type(value).__name__}, expected an array") from None
        if arrays[name].shape != names[name].shape or not np.isfinite(arrays[name]).all():
            raise ValueError(
                f"{where}[{name!r}] has shape {arrays[name].shape}, expected finite numbers of shape {names[name].shape}"
            )
    return arrays


def _principal(ways: Array) -> tuple[Array, tuple[float, float]]:
    """Give the two directions in which a trajectory moved most, and their shares of its squared length."""
    _, lengths, axes = np.linalg.svd(ways, full_matrices=False)
    if len(lengths) < 2 or lengths[1] <= 1e-9 * lengths[0]:
        raise ValueError(
            "landscape: trajectory has fewer than two states off one line with the model, expected a plane, or directions"
        )
    axes, shares = axes[:2], lengths[:2] ** 2 / (lengths**2).sum()
    along = ways @ axes.T
    signs = np.where(along[0] > 0, -1.0, 1.0)
    plane: Array = axes * (signs * _MARGIN * np.abs(along).max(axis=0))[:, None]
    return plane, (float(shares[0]), float(shares[1]))
