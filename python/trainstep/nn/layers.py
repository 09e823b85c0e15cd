"""Layers as descriptions: what a network is made of, with no arrays inside."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from trainstep import _core
from trainstep._checks import integer, number, switch
from trainstep.init import INITIALIZERS, WITHOUT_DEFAULTS, Initializer, for_activation, is_constant, takes_any_shape, zeros

InitLike = str | Callable[..., NDArray[Any]] | None


def initializer(init_like: InitLike, default: Initializer, argument: str) -> Initializer:
    """Resolve a layer's ``init=``: a name, a callable, or None for the default."""
    if init_like is None:
        return default
    if callable(init_like):
        return init_like
    if not isinstance(init_like, str):
        raise TypeError(f"Dense: {argument} is a {type(init_like).__name__}, expected a name or a callable")
    if init_like in WITHOUT_DEFAULTS:
        raise ValueError(f"Dense: {argument} is {init_like!r}, which has no defaults, expected init.{init_like}(...)")
    known = {name: f for name, f in INITIALIZERS.items() if argument == "init" or takes_any_shape(f)}
    if init_like not in known:
        if argument == "bias_init":
            names = ", ".join(map(repr, known))
            raise ValueError(f"Dense: bias_init is {init_like!r}, expected {names} or a callable: a bias has no fan_in")
        raise ValueError(f"Dense: {argument} is {init_like!r}, expected one of {', '.join(sorted(known))}")
    return known[init_like]


def _shown(init_like: InitLike) -> str:
    """Write an ``init=`` as it would be given."""
    name = getattr(init_like, "__name__", None)
    return f"init.{name}" if name and INITIALIZERS.get(name) is init_like else repr(init_like)


def refuse_constant_weights(layers: "Sequence[Layer]") -> None:
    """Refuse hidden weights that are all the same, unless asked for by name. The last layer's units differ by their targets."""
    dense = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    for i, layer in dense[:-1]:
        if is_constant(layer.init) and layer.out_features > 1:
            raise ValueError(
                f"Sequential: layer {i} is {layer!r}, expected weights that differ: the {layer.out_features} units of a hidden "
                "layer that start alike get the same gradient and stay identical, as one unit. Draw them at random, or ask "
                "for init='zeros' or init='ones' by name where that is meant"
            )


_WIDEST = 2**31 - 1


@dataclass(frozen=True)
class Activation:
    """An activation by itself, or one with its parameter for `Dense`.

    y = f(x)

    Behind a `Dense` without an activation it is calculated with that layer, in the same pass over memory.

    Parameters
    ----------
    name : str
        One of ``identity``, ``relu``, ``sigmoid``, ``tanh``, ``leaky_relu``, ``elu``, ``selu``, ``softplus``, ``hardtanh``,
        ``hardsigmoid``, ``gelu``, ``gelu_tanh`` (its tanh form), ``silu``, ``hardswish``, ``mish``, ``softmax``, ``log_softmax``
        (these two over the features).
    features : int, optional
        Columns of x and y, at least 1. Default: those of the layer before it.
    negative_slope : float, optional
        Of leaky_relu, finite and at least 0. Default: 0.01.
    alpha : float, optional
        Of elu, finite and at least 0. Default: 1.

    Raises
    ------
    ValueError
        Where a name is not known, features is below 1, or a parameter is out of its range.
    TypeError
        Where an argument is of a wrong type, or the activation has no such parameter.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Activation("leaky_relu", 3, negative_slope=0.5))
    >>> model(np.array([[-2.0, 0.0, 2.0]]))
    array([[-1.,  0.,  2.]], dtype=float32)
    """

    name: str
    features: int | None = None
    negative_slope: float | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _core.activations:
            raise ValueError(f"Activation: name is {self.name!r}, expected one of {', '.join(_core.activations)}")
        if self.features is not None:
            object.__setattr__(self, "features", integer("Activation: features", self.features, 1, _WIDEST))
        own, _ = _core.activation_parameters.get(self.name, (None, 0.0))
        for parameter in _PARAMETERS:
            value = getattr(self, parameter)
            if value is None:
                continue
            if parameter != own:
                raise TypeError(f"Activation: {self.name} has no {parameter}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Activation: {parameter} is a {type(value).__name__}, expected a float")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Activation: {parameter} is {value}, expected a finite number of at least 0")
            object.__setattr__(self, parameter, float(value))

    def __repr__(self) -> str:
        shown = [repr(self.name)] + ([str(self.features)] if self.features is not None else [])
        shown += [f"{p}={getattr(self, p)!r}" for p in _PARAMETERS if getattr(self, p) is not None]
        return f"Activation({', '.join(shown)})"

    @property
    def in_features(self) -> int | None:
        """The width of x; None where it is that of the layer before."""
        return self.features

    @property
    def out_features(self) -> int | None:
        """The width of y; None where it is that of the layer before."""
        return self.features

    def described(self) -> str | list[Any]:
        """Describe the function alone: its name, or with a parameter that is not the default [name, parameter]."""
        parameter, default = _core.activation_parameters.get(self.name, ("name", None))
        value = getattr(self, parameter)
        return self.name if parameter == "name" or value in (None, default) else [self.name, value]

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "activation", "name": self.described(), "features": self.features}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name: there is none."""
        return {}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name: there is none."""
        return {}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name: there is none."""
        return {}


_PARAMETERS = tuple(sorted({parameter for parameter, _ in _core.activation_parameters.values()}, reverse=True))


def _activation(described: Any, **fields: Any) -> Activation:
    """Make the activation that `Activation.described` described. Raises ValueError where it describes none."""
    if isinstance(described, str):
        return Activation(described, **fields)
    if not isinstance(described, list) or len(described) != 2 or described[0] not in _core.activation_parameters:
        raise ValueError(f"no activation is described by {described!r}")
    parameter, _ = _core.activation_parameters[described[0]]
    return Activation(described[0], **fields, **{parameter: described[1]})


@dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    y = activation(x @ weight + bias)

    Parameters
    ----------
    in_features, out_features : int
        Widths of x and y, at least 1. weight is (in_features, out_features), bias (out_features,).
    activation : str or Activation, optional
        A name that `Activation` knows, or one of those with its parameter; None is the identity.
    init : str or callable, optional
        Initial weights: a name from `trainstep.init`, an initialiser with its parameters (``init.normal(std=0.02)``), or any
        ``f(shape, *, rng, dtype) -> array``. Default: what `init.for_activation` gives. A hidden layer takes
        constant weights only by name, ``"zeros"`` or ``"ones"``.
    bias_init : str or callable, optional
        Initial biases, likewise, of what needs no fan_in: ``"zeros"``, ``init.constant(0.01)``. Default: zeros.
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
    activation: str | Activation | None = None
    init: InitLike = None
    bias_init: InitLike = None
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("in_features", "out_features"):
            object.__setattr__(self, name, integer(f"Dense: {name}", getattr(self, name), 1, _WIDEST))
        if isinstance(self.activation, Activation):
            if self.activation.features not in (None, self.out_features):
                raise ValueError(f"Dense: activation has {self.activation.features} features, expected {self.out_features}")
        elif self.activation is not None and self.activation not in _core.activations:
            raise ValueError(f"Dense: activation is {self.activation!r}, expected one of {', '.join(_core.activations)}")
        object.__setattr__(self, "bias", switch("Dense: bias", self.bias))
        for name in ("init", "bias_init"):
            initializer(getattr(self, name), zeros, name)

    def __repr__(self) -> str:
        shown = [str(self.in_features), str(self.out_features)]
        for name in ("activation", "init", "bias_init"):
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}={repr(value) if name == 'activation' else _shown(value)}")
        return f"Dense({', '.join(shown)}{'' if self.bias else ', bias=False'})"

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {
            "kind": "dense",
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": self.activation.described() if isinstance(self.activation, Activation) else self.activation,
            "bias": self.bias,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name."""
        weight = {"weight": (self.in_features, self.out_features)}
        return weight | ({"bias": (self.out_features,)} if self.bias else {})

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name."""
        name = self.activation.name if isinstance(self.activation, Activation) else self.activation
        return {
            "weight": initializer(self.init, for_activation(name), "init"),
            "bias": initializer(self.bias_init, zeros, "bias_init"),
        }


@dataclass(frozen=True)
class Dropout:
    """Leaves units out at random while the network is trained, each by itself.

    y = x / (1 - rate) with probability 1 - rate, else 0, in training;  y = x otherwise

    The expectation of y is x either way. Which units are left out follows from the network's seed, the layer and the number of
    training passes so far, for any number of threads; `Sequential.backward` goes through the same ones. Not for the output layer.

    Parameters
    ----------
    rate : float
        The probability that a unit is left out, 0 <= rate < 1. Where a text gives p, the probability that a unit is kept, this is
        ``1 - p``; PyTorch's p is this rate.
    features : int, optional
        Columns of x and y, at least 1. Default: those of the layer before it.

    Raises
    ------
    ValueError
        Where rate is out of range, or features is below 1.
    TypeError
        Where an argument is of a wrong type.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout (JMLR 15, 2014), section 4; scaled in training, section 10.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dropout(0.5, 1000))
    >>> x = np.ones((1, 1000), dtype="float32")
    >>> sorted(set(model.forward(x, training=True).ravel().tolist()))
    [0.0, 2.0]
    >>> bool((model(x) == x).all())
    True
    """

    rate: float
    features: int | None = None

    def __post_init__(self) -> None:
        rate = number("Dropout: rate", self.rate, 0, 1)
        if rate == 1:
            raise ValueError("Dropout: rate is 1, expected less: nothing would be kept")
        object.__setattr__(self, "rate", rate)
        if self.features is not None:
            object.__setattr__(self, "features", integer("Dropout: features", self.features, 1, _WIDEST))

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g}{'' if self.features is None else f', {self.features}'})"

    @property
    def in_features(self) -> int | None:
        """The width of x; None where it is that of the layer before."""
        return self.features

    @property
    def out_features(self) -> int | None:
        """The width of y; None where it is that of the layer before."""
        return self.features

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "dropout", "rate": self.rate, "features": self.features}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name: there is none."""
        return {}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name: there is none."""
        return {}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name: there is none."""
        return {}


@dataclass(frozen=True)
class Standardize:
    """Brings each column of the network's input to mean 0 and standard deviation 1.

    y = (x - mean) * scale

    It stands first, so that a saved network takes x as it was measured. mean and scale are buffers, not parameters: they are set
    from data once, by the first `Trainer.fit` or by `Sequential.standardize`, and then stay. Until then mean is 0 and scale is
    1, and the layer changes nothing. A column that is constant in that data has scale 1.

    Parameters
    ----------
    features : int
        Columns of x and y, at least 1.

    Raises
    ------
    ValueError
        Where features is below 1.
    TypeError
        Where features is no int.

    References
    ----------
    LeCun, Bottou, Orr, Mueller: Efficient BackProp (1998), section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Standardize(2), ts.nn.Dense(2, 1))
    >>> model.standardize(np.array([[1000.0, 0.1], [1004.0, 0.3]]))
    >>> {name: values.round(3).tolist() for name, values in model.buffers().items()}
    {'0.mean': [1002.0, 0.20000000298023224], '0.scale': [0.5, 10.0]}
    """

    features: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", integer("Standardize: features", self.features, 1, _WIDEST))

    def __repr__(self) -> str:
        return f"Standardize({self.features})"

    @property
    def in_features(self) -> int:
        """The width of x."""
        return self.features

    @property
    def out_features(self) -> int:
        """The width of y."""
        return self.features

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "standardize", "features": self.features}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name: there is none."""
        return {}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {"mean": (self.features,), "scale": (self.features,)}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name: there is none."""
        return {}


Layer = Dense | Activation | Dropout | Standardize
_KINDS: dict[str, type[Layer]] = {"dense": Dense, "activation": Activation, "dropout": Dropout, "standardize": Standardize}


def from_spec(spec: dict[str, Any]) -> Layer:
    """Make the layer that `spec()` described. Raises ValueError where it describes none."""
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"no layer is of the kind {kind!r}")
    if isinstance(fields.get("activation"), list):
        fields["activation"] = _activation(fields["activation"])
    layer = _activation(fields.pop("name", None), **fields) if kind == "activation" else _KINDS[kind](**fields)
    if set(spec) != set(layer.spec()):
        raise ValueError(f"a {kind} layer is not described by {', '.join(fields)}")
    return layer
