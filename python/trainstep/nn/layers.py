"""Layers as descriptions: what a network is made of, with no arrays inside."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from trainstep import _core
from trainstep._checks import integer, number, switch
from trainstep.init import INITIALIZERS, WITHOUT_DEFAULTS, Initializer, for_activation, is_constant, ones, takes_any_shape, zeros

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


_WIDEST = 2**31 - 1


class _SameWidth:
    """A layer that gives as many features as it takes; by itself one without parameters and buffers."""

    features: int | None

    def _check_features(self) -> None:
        if self.features is not None:
            object.__setattr__(self, "features", integer(f"{type(self).__name__}: features", self.features, 1, _WIDEST))

    @property
    def in_features(self) -> int | None:
        """The width of x; None where it is that of the layer before."""
        return self.features

    @property
    def out_features(self) -> int | None:
        """The width of y; None where it is that of the layer before."""
        return self.features

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name."""
        return {}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name."""
        return {}


class _Affine(_SameWidth):
    """One that ends in y = ... * gamma + beta, where ``affine`` says so."""

    affine: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name."""
        return {"gamma": (self.features or 0,), "beta": (self.features or 0,)} if self.affine else {}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name."""
        return {"gamma": ones, "beta": zeros}


@dataclass(frozen=True)
class Activation(_SameWidth):
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
        self._check_features()
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

    def described(self) -> str | list[Any]:
        """Describe the function alone: its name, or with a parameter that is not the default [name, parameter]."""
        parameter, default = _core.activation_parameters.get(self.name, ("name", None))
        value = getattr(self, parameter)
        return self.name if parameter == "name" or value in (None, default) else [self.name, value]

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "activation", "name": self.described(), "features": self.features}


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
class Dropout(_SameWidth):
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
        self._check_features()

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g}{'' if self.features is None else f', {self.features}'})"

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "dropout", "rate": self.rate, "features": self.features}


@dataclass(frozen=True)
class Standardize(_SameWidth):
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

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "standardize", "features": self.features}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {"mean": (self.features,), "scale": (self.features,)}


@dataclass(frozen=True)
class BatchNorm(_Affine):
    """Brings each feature to mean 0 and variance 1 over the batch, then scales and shifts it as is learnt.

    y = (x - mean) / sqrt(variance + eps) * gamma + beta

    In training (steps of a `Trainer`, ``forward(x, training=True)``) mean and variance are those of the batch, the variance divided
    by its number of rows, and the buffers follow them:

    | ``running_mean <- (1 - momentum) * running_mean + momentum * mean``
    | ``running_var <- (1 - momentum) * running_var + momentum * variance * rows / (rows - 1)``

    Otherwise they are the buffers, and a `Dense` without an activation before the layer takes it along: its products are multiplied
    and shifted on their way to memory. Of a batch of one row y is beta, and running_var stays. The buffers of a frozen layer go on
    following.

    Parameters
    ----------
    features : int, optional
        Columns of x and y, at least 1. Default: those of the layer before it.
    momentum : float, default 0.1
        The share of the batch in the running statistics, from 0 to 1. (That of Keras is 1 minus this.)
    eps : float, default 1e-5
        Added to the variance, finite and at least 0.
    affine : bool, default True
        Whether there are gamma and beta, each (features,), which begin as 1 and 0.

    Raises
    ------
    ValueError
        Where a number is out of its range.
    TypeError
        Where an argument is of a wrong type.

    References
    ----------
    Ioffe, Szegedy: Batch normalization (ICML 2015), algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.BatchNorm(1, eps=0.0))
    >>> model.forward(np.array([[1.0], [3.0]]), training=True).ravel().tolist()
    [-1.0, 1.0]
    >>> {name: round(float(values[0]), 3) for name, values in model.buffers().items()}
    {'0.running_mean': 0.2, '0.running_var': 1.1}
    """

    features: int | None = None
    momentum: float = 0.1
    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        self._check_features()
        object.__setattr__(self, "momentum", number("BatchNorm: momentum", self.momentum, 0, 1))
        object.__setattr__(self, "eps", number("BatchNorm: eps", self.eps, 0))
        object.__setattr__(self, "affine", switch("BatchNorm: affine", self.affine))

    def __repr__(self) -> str:
        return _with_options(self, momentum=0.1, eps=1e-5, affine=True)

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        values = {"features": self.features, "momentum": self.momentum, "eps": self.eps, "affine": self.affine}
        return {"kind": "batch_norm", **values}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {"running_mean": (self.features or 0,), "running_var": (self.features or 0,)}


@dataclass(frozen=True)
class LayerNorm(_Affine):
    """Brings each row to mean 0 and variance 1 over its features, then scales and shifts them as is learnt.

    y = (x - mean) / sqrt(variance + eps) * gamma + beta

    mean and variance are those of the row, the variance divided by the number of features, in training and out of it.

    Parameters
    ----------
    features : int, optional
        Columns of x and y, at least 1. Default: those of the layer before it.
    eps : float, default 1e-5
        Added to the variance, finite and at least 0.
    affine : bool, default True
        Whether there are gamma and beta, each (features,), which begin as 1 and 0.

    Raises
    ------
    ValueError
        Where a number is out of its range.
    TypeError
        Where an argument is of a wrong type.

    References
    ----------
    Ba, Kiros, Hinton: Layer normalization (2016), equations 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.LayerNorm(2, eps=0.0))
    >>> model(np.array([[1.0, 3.0], [50.0, 10.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """

    features: int | None = None
    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        self._check_features()
        object.__setattr__(self, "eps", number("LayerNorm: eps", self.eps, 0))
        object.__setattr__(self, "affine", switch("LayerNorm: affine", self.affine))

    def __repr__(self) -> str:
        return _with_options(self, eps=1e-5, affine=True)

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        return {"kind": "layer_norm", "features": self.features, "eps": self.eps, "affine": self.affine}


@dataclass(frozen=True, init=False)
class Residual:
    """Layers and a way past them: what they give is added to what they took.

    y = layers(x) + shortcut(x)

    Where the last layer begins as zeros, ``Dense(n, n, init="zeros")``, the block begins as the identity.

    Parameters
    ----------
    *layers : layer
        One after the other, as in `Sequential`; other `Residual` among them. `Standardize` is none of them.
    shortcut : Dense, optional
        What x goes through on its way past them: needed where the widths differ. Default: the identity.

    Raises
    ------
    ValueError
        Where there is no layer. (Whether widths fit is seen by `Sequential`.)
    TypeError
        Where a layer is none, or shortcut is no Dense.

    References
    ----------
    He, Zhang, Ren, Sun: Deep residual learning for image recognition (CVPR 2016), equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> block = ts.nn.Residual(ts.nn.Dense(3, 8, activation="relu"), ts.nn.Dense(8, 3, init="zeros"))
    >>> model = ts.nn.Sequential(block)
    >>> model(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    >>> list(model.parameters())
    ['0.0.weight', '0.0.bias', '0.1.weight', '0.1.bias']
    """

    layers: "tuple[Layer, ...]"
    shortcut: Dense | None

    def __init__(self, *layers: "Layer", shortcut: Dense | None = None) -> None:
        if not layers:
            raise ValueError("Residual: there are no layers, expected at least one")
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: layer {i} is a {type(layer).__name__}, expected a layer of trainstep.nn")
            if isinstance(layer, Standardize):
                raise ValueError(f"Residual: layer {i} is {layer!r}, which stands first in a Sequential")
        if not isinstance(shortcut, Dense | None):
            raise TypeError(f"Residual: shortcut is a {type(shortcut).__name__}, expected a Dense or None")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "shortcut", shortcut)

    def __repr__(self) -> str:
        shown = [repr(layer) for layer in self.layers] + ([f"shortcut={self.shortcut!r}"] if self.shortcut else [])
        return f"Residual({', '.join(shown)})"

    @property
    def in_features(self) -> int | None:
        """The width of x; None where it is that of the layer before."""
        return self.layers[0].in_features

    @property
    def out_features(self) -> int | None:
        """The width of y; None where it is that of the layer before."""
        return self.layers[-1].out_features

    def spec(self) -> dict[str, Any]:
        """Describe the layer to the planner, and in a saved file: plain values only."""
        shortcut = None if self.shortcut is None else self.shortcut.spec()
        return {"kind": "residual", "layers": [layer.spec() for layer in self.layers], "shortcut": shortcut}

    def _parts(self) -> "dict[str, Layer]":
        """Name the layers within."""
        parts: dict[str, Layer] = {str(i): layer for i, layer in enumerate(self.layers)}
        return parts | ({"shortcut": self.shortcut} if self.shortcut else {})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each parameter by name."""
        return {f"{part}.{name}": shape for part, layer in self._parts().items() for name, shape in layer.shapes().items()}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of each array that is not trained, by name."""
        return {f"{part}.{name}": shape for part, layer in self._parts().items() for name, shape in layer.buffer_shapes().items()}

    def initializers(self) -> dict[str, Initializer]:
        """Give the initialiser of each parameter by name."""
        past = {} if self.shortcut is None else self.shortcut.initializers()
        return initializers(self.layers) | {f"shortcut.{name}": f for name, f in past.items()}


Layer = Dense | Activation | Dropout | Standardize | BatchNorm | LayerNorm | Residual
_KINDS: dict[str, type[Layer]] = {
    "dense": Dense,
    "activation": Activation,
    "dropout": Dropout,
    "standardize": Standardize,
    "batch_norm": BatchNorm,
    "layer_norm": LayerNorm,
    "residual": Residual,
}


def _with_options(layer: BatchNorm | LayerNorm, **defaults: Any) -> str:
    """Write a layer with its width, and the options that are not the default."""
    shown = [] if layer.features is None else [str(layer.features)]
    shown += [f"{name}={getattr(layer, name)!r}" for name, default in defaults.items() if getattr(layer, name) != default]
    return f"{type(layer).__name__}({', '.join(shown)})"


def from_spec(spec: dict[str, Any]) -> Layer:
    """Make the layer that `spec()` described. Raises ValueError where it describes none."""
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"no layer is of the kind {kind!r}")
    if isinstance(fields.get("activation"), list):
        fields["activation"] = _activation(fields["activation"])
    layer: Layer
    if kind == "activation":
        layer = _activation(fields.pop("name", None), **fields)
    elif kind == "residual":
        shortcut = fields.get("shortcut")
        layer = Residual(*map(from_spec, fields["layers"]), shortcut=None if shortcut is None else from_spec(shortcut))  # type: ignore[arg-type]
    else:
        layer = _KINDS[kind](**fields)
    if set(spec) != set(layer.spec()):
        raise ValueError(f"a {kind} layer is not described by {', '.join(fields)}")
    return layer


def by_path(layers: Sequence[Layer], prefix: str = "") -> dict[str, Layer]:
    """Give all layers by their paths: a block, such as "3", before those within it, "3.0" and "3.shortcut"."""
    found: dict[str, Layer] = {}
    for i, layer in enumerate(layers):
        found[f"{prefix}{i}"] = layer
        if isinstance(layer, Residual):
            found |= by_path(layer.layers, f"{prefix}{i}.")
            if layer.shortcut is not None:
                found[f"{prefix}{i}.shortcut"] = layer.shortcut
    return found


def with_widths(layers: Sequence[Layer], before: int | None = None, prefix: str = "") -> tuple[Layer, ...]:
    """Give the layers with every width said: one without features takes those of the layer before it."""
    known: list[Layer] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, Residual):
            layer = Residual(*with_widths(layer.layers, before, f"{prefix}{i}."), shortcut=layer.shortcut)  # noqa: PLW2901
        elif not isinstance(layer, Dense) and layer.features is None:
            if before is None:
                raise ValueError(
                    f"Sequential: layer {prefix}{i} is {layer!r}, expected one with features: no layer before it has any"
                )
            layer = replace(layer, features=before)  # noqa: PLW2901
        known.append(layer)
        before = layer.out_features
    return tuple(known)


def initializers(layers: Sequence[Layer]) -> dict[str, Initializer]:
    """Give the initialiser of each parameter by name: a Dense with an activation behind it begins as if that were its own."""
    found: dict[str, Initializer] = {}
    for i, layer in enumerate(layers):
        behind = layers[i + 1] if i + 1 < len(layers) else None
        if isinstance(layer, Dense) and layer.activation is None and isinstance(behind, Activation):
            layer = replace(layer, activation=behind.name)  # noqa: PLW2901
        found |= {f"{i}.{name}": f for name, f in layer.initializers().items()}
    return found


def refuse_constant_weights(layers: Sequence[Layer]) -> None:
    """Refuse hidden weights that are all the same, unless asked for by name. The last layer's units differ by their targets."""
    dense = [(path, layer) for path, layer in by_path(layers).items() if isinstance(layer, Dense)]
    hidden = dense if dense and "." in dense[-1][0] else dense[:-1]
    for path, layer in hidden:
        if is_constant(layer.init) and layer.out_features > 1:
            raise ValueError(
                f"Sequential: layer {path} is {layer!r}, expected weights that differ: the {layer.out_features} units of a hidden "
                "layer that start alike get the same gradient and stay identical, as one unit. Draw them at random, or ask "
                "for init='zeros' or init='ones' by name where that is meant"
            )
