"""Pruning: which weights are held at 0, and which units are taken out of a network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep import _core
from trainstep.nn.layers import Activation, BatchNorm, Dense, Dropout, Layer

Array = NDArray[Any]

_BY_COLUMN = (Activation, Dropout, BatchNorm)  # what makes each column of y from the same column of x


@dataclass(frozen=True)
class Pruning:
    """What `Sequential.prune` did.

    Parameters
    ----------
    amount : float
        The share that was asked for.
    structured : bool
        Whether units were taken out.
    parameters_before : int
        The number of parameters before it.
    parameters_after : int
        The number after it; without ``structured`` of those that are not 0.
    removed : dict of str to tuple of int
        For each layer that lost units, by its path, their numbers in the network before; empty without ``structured``.
    output_change : float or None
        sqrt(mean((y_after - y_before)^2) / mean(y_before^2)) on the x that was given; None without x.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 4, activation="relu"), ts.nn.Dense(4, 2))
    >>> model.parameters()["0.weight"][:, 1] = 0
    >>> smaller = model.prune(0.25, structured=True, x=np.ones((5, 3)))
    >>> smaller.pruning
    Pruning(amount=0.25, structured=True, parameters_before=26, parameters_after=20, removed={'0': (1,)}, output_change=0.0)
    """

    amount: float
    structured: bool
    parameters_before: int
    parameters_after: int
    removed: dict[str, tuple[int, ...]]
    output_change: float | None


def masks_of_smallest(weights: Mapping[str, Array], masks: Mapping[str, Array], amount: float) -> dict[str, Array]:
    """Give the masks that hold a share of all weights together at 0: what masks hold there already, then the smallest."""
    # -1 for what is held at 0 already, which so comes before any other 0.
    sizes = [np.where(masks[name], np.abs(w), -1).ravel() if name in masks else np.abs(w).ravel() for name, w in weights.items()]
    size = np.concatenate(sizes)
    count = max(round(amount * size.size), int((size < 0).sum()))
    kept = np.ones(size.size, bool)
    kept[np.argsort(size, kind="stable")[:count]] = False
    parts = np.split(kept, np.cumsum([w.size for w in weights.values()])[:-1])
    return {name: part.reshape(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True) if not part.all()}


def smallest_units(layers: Sequence[Layer], arrays: Mapping[str, Array], amount: float) -> dict[int, tuple[int, Array]]:
    """Give, for each hidden layer that can lose units, the next Dense layer, and the units with the smallest incoming weights."""
    result = {}
    for i, following in _hidden(layers):
        norms = np.sqrt(np.square(arrays[f"{i}.weight"], dtype=np.float64).sum(axis=0))
        count = min(round(amount * norms.size), norms.size - 1)
        result[i] = following, np.sort(np.argsort(norms, kind="stable")[:count])
    return result


def _hidden(layers: Sequence[Layer]) -> Iterator[tuple[int, int]]:
    """Give the Dense layers whose units each reach the next Dense layer by themselves, and the number of that layer."""
    for i, layer in enumerate(layers):
        if not isinstance(layer, Dense) or _over_rows(layer.activation):
            continue
        following = next((k for k in range(i + 1, len(layers)) if not _by_column(layers[k])), None)
        if following is not None and isinstance(layers[following], Dense):
            yield i, following


def _by_column(layer: Layer) -> bool:
    return isinstance(layer, _BY_COLUMN) and not (isinstance(layer, Activation) and _over_rows(layer))


def _over_rows(activation: str | Activation | None) -> bool:
    return (activation.name if isinstance(activation, Activation) else activation) in _core.activations_by_rows


def without_units(layers: Sequence[Layer], units: Mapping[int, tuple[int, Array]]) -> list[Layer]:
    """Give the layers without some units of theirs."""
    result: list[Any] = list(layers)
    for i, (following, gone) in units.items():
        if gone.size == 0:
            continue
        width = result[i].out_features - gone.size
        activation = result[i].activation
        if isinstance(activation, Activation):
            activation = replace(activation, features=None)
        # Initialisers may be made for one shape; what they would give is not used.
        result[i] = replace(result[i], out_features=width, activation=activation, init=None, bias_init=None)
        for k in range(i + 1, following):
            result[k] = replace(result[k], features=width)
        result[following] = replace(result[following], in_features=width, init=None, bias_init=None)
    return result


def without_their_numbers(arrays: Mapping[str, Array], units: Mapping[int, tuple[int, Array]]) -> dict[str, Array]:
    """Give parameters and buffers, or their masks, without what belongs to some units: columns here, rows in the next weight."""
    result = dict(arrays)
    for i, (following, gone) in units.items():
        for name in arrays:
            if i <= int(name.partition(".")[0]) < following:
                result[name] = np.delete(result[name], gone, axis=-1)
            elif name == f"{following}.weight":
                result[name] = np.delete(result[name], gone, axis=0)
    return result


def relative_change(before: Array, after: Array) -> float:
    """Give sqrt(mean((after - before)^2) / mean(before^2)); 0 where nothing has changed."""
    with np.errstate(all="ignore"):  # what is not finite comes out as such
        before, after = before.astype(np.float64), after.astype(np.float64)
        change = np.sqrt(np.mean((after - before) ** 2))
        return float(change / np.sqrt(np.mean(before**2))) if change != 0 else 0.0
