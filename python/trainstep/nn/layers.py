"""Layers as descriptions: what a network is made of, with no arrays inside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from trainstep import _core
from trainstep.init import INITIALIZERS, Initializer, for_activation, zeros

InitLike = str | Callable[..., NDArray[Any]] | None


def initializer(init_like: InitLike, default: Initializer, argument: str) -> Initializer:
    """Resolve a layer's ``init=``: a name, a callable, or None for the default."""
    if init_like is None:
        return default
    if callable(init_like):
        return init_like
    if not isinstance(init_like, str):
        raise TypeError(f"Dense: {argument} is a {type(init_like).__name__}, expected a name or a callable")
    if argument == "bias_init" and init_like != "zeros":
        raise ValueError(f"Dense: bias_init is {init_like!r}, expected 'zeros' or a callable: a bias has no fan_in")
    if init_like not in INITIALIZERS:
        raise ValueError(f"Dense: {argument} is {init_like!r}, expected one of {', '.join(sorted(INITIALIZERS))}")
    return INITIALIZERS[init_like]


_WIDEST = 2**31 - 1


@dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    y = activation(x @ weight + bias)

    Parameters
    ----------
    in_features, out_features : int
        Widths of x and y, at least 1. weight is (in_features, out_features), bias (out_features,).
    activation : str, optional
        One of ``relu``, ``sigmoid``, ``tanh``, ``identity``; None is the identity.
    init : str or callable, optional
        Initial weights: a name from `trainstep.init`, or ``f(shape, *, rng, dtype) -> array``. Default: `he_normal` for relu,
        `xavier_uniform` otherwise.
    bias_init : str or callable, optional
        Initial biases, likewise. Default: zeros.
    bias : bool, default True
        Whether there is a bias.

    Raises
    ------
    ValueError
        Where a width is below 1, or a name is not known.
    TypeError
        Where an argument is of a wrong type.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.3.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.nn.Dense(784, 128, activation="relu")
    Dense(784, 128, activation='relu')
    """

    in_features: int
    out_features: int
    activation: str | None = None
    init: InitLike = None
    bias_init: InitLike = None
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("in_features", "out_features"):
            width = getattr(self, name)
            if isinstance(width, bool) or not hasattr(width, "__index__"):
                raise TypeError(f"Dense: {name} is a {type(width).__name__}, expected an int")
            if not 1 <= width <= _WIDEST:
                raise ValueError(f"Dense: {name} is {width}, expected 1 to {_WIDEST}")
        if self.activation is not None and self.activation not in _core.activations:
            raise ValueError(f"Dense: activation is {self.activation!r}, expected one of {', '.join(_core.activations)}")
        if not isinstance(self.bias, bool):
            raise TypeError(f"Dense: bias is a {type(self.bias).__name__}, expected a bool")
        for name in ("init", "bias_init"):
            initializer(getattr(self, name), zeros, name)

    def __repr__(self) -> str:
        shown = [str(self.in_features), str(self.out_features)]
        for name in ("activation", "init", "bias_init"):
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}={value if callable(value) else repr(value)}")
        return f"Dense({', '.join(shown)}{'' if self.bias else ', bias=False'})"

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {
            "kind": "dense",
            "in_features": int(self.in_features),
            "out_features": int(self.out_features),
            "activation": self.activation,
            "bias": bool(self.bias),
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name."""
        weight = {"weight": (self.in_features, self.out_features)}
        return weight | ({"bias": (self.out_features,)} if self.bias else {})

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name."""
        return {
            "weight": initializer(self.init, for_activation(self.activation), "init"),
            "bias": initializer(self.bias_init, zeros, "bias_init"),
        }


def from_spec(spec: dict[str, Any]) -> Dense:
    """Make the layer that `spec()` described. Raises ValueError where it describes none."""
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if kind != "dense":
        raise ValueError(f"no layer is of the kind {kind!r}")
    return Dense(**fields)
