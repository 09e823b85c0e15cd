"""Networks in NumPy, float64: every layer forward and backward by hand, running statistics, and training with its penalties.

The formulas of activations, losses and optimizers are those of trainstep.reference; all that lies between them is written here
again. Arrays may have a leading axis of as many networks as differences need at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainstep import _core, optim, reference
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential, Standardize

from .activation_rules import ENDS, OF_INPUT
from .helpers import Array

# Their derivatives jump somewhere in ENDS.
BENT = {"relu", "leaky_relu", "elu", "selu", "hardtanh", "hardsigmoid", "hardswish"}


def functions(activation: Activation | str | None) -> tuple[str, Callable[..., Array], Callable[..., Array], dict[str, float]]:
    """The name, forward, backward and options of an activation, as a layer names it."""
    f = activation if isinstance(activation, Activation) else Activation(activation or "identity")
    options = {}
    if f.name in _core.activation_parameters:
        parameter, _ = _core.activation_parameters[f.name]
        options = {} if getattr(f, parameter) is None else {parameter: getattr(f, parameter)}
    return f.name, *reference.ACTIVATIONS[f.name], options


def below(path: str, name: str) -> bool:
    """Whether a parameter's name is the path, or lies under it."""
    return f"{name}.".startswith(f"{path}.")


def inside(layers: Sequence[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer with its path, those of residual blocks among them."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        if isinstance(layer, Residual):
            yield from inside(layer.layers, f"{prefix}{i}.")
            if layer.shortcut is not None:
                yield f"{prefix}{i}.shortcut", layer.shortcut


@dataclass
class Pass:
    """One pass through a network: what each layer was given, and the gradients on the way back."""

    values: Mapping[str, Array]
    training: bool
    masks: Mapping[str, Array] = field(default_factory=dict)
    tape: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)
    distance: float = np.inf  # of an activation's input from where its derivative jumps

    def forward(self, layers: Sequence[Any], x: Array, prefix: str = "") -> Array:
        for i, layer in enumerate(layers):
            x = self._layer(layer, f"{prefix}{i}", x)
        return x

    def backward(self, layers: Sequence[Any], dy: Array, prefix: str = "") -> Array:
        for i, layer in reversed(list(enumerate(layers))):
            dy = self._back(layer, f"{prefix}{i}", dy)
        return dy

    def _activate(self, activation: Any, path: str, z: Array) -> Array:
        name, forward, _, options = functions(activation)
        if name in BENT:
            # Exactly at an end is what does not move: a relu of a relu, or a column without variance.
            away = np.abs(z[..., None] - np.array(ENDS))
            self.distance = min(self.distance, float(np.where(away == 0, np.inf, away).min(initial=np.inf)))
        y = forward(z, **options)
        self.tape[f"{path} activation"] = z if name in OF_INPUT else y
        return y

    def _activate_back(self, activation: Any, path: str, dy: Array) -> Array:
        _, _, backward, options = functions(activation)
        return backward(dy, self.tape[f"{path} activation"], **options)

    def _layer(self, layer: Any, path: str, x: Array) -> Array:
        def value(name: str, default: float) -> Any:
            found = self.values.get(f"{path}.{name}")
            return default if found is None else found[..., None, :]

        if isinstance(layer, Residual):
            skip = x if layer.shortcut is None else self._layer(layer.shortcut, f"{path}.shortcut", x)
            return self.forward(layer.layers, x, f"{path}.") + skip
        if isinstance(layer, Dense):
            self.tape[path] = x
            return self._activate(layer.activation, path, x @ self.values[f"{path}.weight"] + value("bias", 0.0))
        if isinstance(layer, Activation):
            return self._activate(layer, path, x)
        if isinstance(layer, Dropout):
            return x * self.masks[path] if self.training else x
        if isinstance(layer, Standardize):
            return (x - value("mean", 0.0)) * value("scale", 1.0)
        assert isinstance(layer, BatchNorm | LayerNorm)
        axis = -1 if isinstance(layer, LayerNorm) else -2
        if axis == -1 or self.training:
            mean = x.mean(axis=axis, keepdims=True)
            variance = ((x - mean) ** 2).mean(axis=axis, keepdims=True)
        else:
            mean, variance = value("running_mean", 0.0), value("running_var", 1.0)
        inv_std = 1 / np.sqrt(variance + layer.eps)
        normal = (x - mean) * inv_std
        self.tape[path] = normal, inv_std, mean, variance
        return normal * value("gamma", 1.0) + value("beta", 0.0)

    def _back(self, layer: Any, path: str, dy: Array) -> Array:
        if isinstance(layer, Residual):
            dx = dy if layer.shortcut is None else self._back(layer.shortcut, f"{path}.shortcut", dy)
            return self.backward(layer.layers, dy, f"{path}.") + dx
        if isinstance(layer, Dense):
            dz, x = self._activate_back(layer.activation, path, dy), self.tape[path]
            self.gradients[f"{path}.weight"] = x.T @ dz
            if layer.bias:
                self.gradients[f"{path}.bias"] = dz.sum(axis=0)
            return dz @ self.values[f"{path}.weight"].T
        if isinstance(layer, Activation):
            return self._activate_back(layer, path, dy)
        if isinstance(layer, Dropout):
            return dy * self.masks[path]
        if isinstance(layer, Standardize):
            return dy * self.values[f"{path}.scale"]
        # y = n * gamma + beta. A mean that moves with x takes off the part of g along 1, a variance that along n.
        normal, inv_std, _, _ = self.tape[path]
        if layer.affine:
            self.gradients[f"{path}.gamma"], self.gradients[f"{path}.beta"] = (dy * normal).sum(axis=0), dy.sum(axis=0)
            dy = dy * self.values[f"{path}.gamma"]
        axis = -1 if isinstance(layer, LayerNorm) else -2
        along = dy.mean(axis=axis, keepdims=True) + normal * (dy * normal).mean(axis=axis, keepdims=True)
        return inv_std * (dy - along)


class Net:
    """The formulas of a network on copies of its parameters and buffers."""

    def __init__(self, model: Sequential) -> None:
        self.layers = model.layers
        self.p = {name: view.astype(np.float64) for name, view in model.parameters().items()}
        self.buffers = {name: view.astype(np.float64) for name, view in model.buffers().items()}
        self.last = Pass({}, False)

    def __call__(self, x: Any, training: bool = False, masks: Mapping[str, Array] | None = None, **values: Array) -> Array:
        """Run x; values stand in the place of the parameters of their names. Training does not move the running statistics."""
        self.last = Pass(self.p | self.buffers | values, training, masks or {})
        return self.last.forward(self.layers, np.asarray(x, np.float64))

    def train(self, x: Any, masks: Mapping[str, Array] | None = None) -> Array:
        """A training pass, which moves the running statistics."""
        y = self(x, True, masks)
        for path, layer in inside(self.layers):
            if isinstance(layer, BatchNorm):
                _, _, mean, variance = self.last.tape[path]
                rows, share = len(x), layer.momentum
                self._move(f"{path}.running_mean", share, mean[0])
                if rows > 1:
                    self._move(f"{path}.running_var", share, variance[0] * rows / (rows - 1))
        return y

    def _move(self, name: str, share: float, to: Array) -> None:
        self.buffers[name] = (1 - share) * self.buffers[name] + share * to

    def backward(self, dy: Any) -> tuple[Array, dict[str, Array]]:
        """dx and the gradients of the last training pass."""
        dx = self.last.backward(self.layers, np.asarray(dy, np.float64))
        return dx, {name: self.last.gradients[name] for name in self.p}

    def differences(self, x: Array, dy: Array, name: str | None, h: float, masks: Mapping[str, Array] | None = None) -> Array:
        """Central differences of sum(y * dy) in training, by a parameter or, where name is None, by x: all elements in one pass."""
        at = np.asarray(x, np.float64) if name is None else self.p[name]
        moved = h * np.eye(at.size).reshape(at.size, *at.shape)
        sums = []
        for sign in (1, -1):
            given, values = (at + sign * moved, {}) if name is None else (x, {name: at + sign * moved})
            sums.append((self(given, True, masks, **values) * dy).sum(axis=(-1, -2)))
        return ((sums[0] - sums[1]) / (2 * h)).reshape(at.shape)


def scatter(model: Sequential, rng: np.random.Generator, spread: float = 0.4) -> Sequential:
    """Every parameter and buffer at random: gamma and scales around 1, variances above 0."""
    for name, view in (model.parameters() | model.buffers()).items():
        values = spread * rng.standard_normal(view.shape)
        if name.endswith(("gamma", "scale")):
            values = 1 + values
        elif name.endswith("running_var"):
            values = 0.3 + np.abs(values)
        view[...] = values
    return model


# --- training ------------------------------------------------------------------------------------------------------------------

# name: class, the bare formula, its states, what both are given
RULES: dict[str, tuple[type[optim.Optimizer], Callable[..., None], tuple[str, ...], dict[str, Any]]] = {
    "momentum": (
        optim.SGD,
        reference.sgd_step_,
        ("momentum_buffer",),
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    ),
    "adam": (
        optim.Adam,
        reference.adam_step_,
        ("exp_avg", "exp_avg_sq"),
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.02},
    ),
}


class NetTrainer:
    """Steps of a network: loss and penalties, gradients, masks, clipping, the optimizer's formula, the longest column."""

    def __init__(
        self,
        model: Sequential,
        loss: str,
        rule: str,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        penalize_bias: bool = False,
        clip_norm: float | None = None,
        max_norm: float | None = None,
    ) -> None:
        self.net, self.loss = Net(model), getattr(reference, loss)
        _, self.update, states, self.options = RULES[rule]
        self.state = {name: {s: np.zeros_like(w) for s in states} for name, w in self.net.p.items()}
        self.trained = [name for name in self.net.p if name not in model.frozen]
        self.penalized = [name for name in self.trained if penalize_bias or name.endswith("weight")]
        self.l1, self.l2, self.clip_norm, self.max_norm = l1, l2, clip_norm, max_norm
        self.masks: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.steps, self.norm = 0, 0.0

    def penalty(self) -> float:
        weights = [self.net.p[name] for name in self.penalized]
        return float(sum(self.l1 * np.abs(w).sum() + self.l2 * (w * w).sum() for w in weights))

    def measure(self, x: Array, target: Array) -> float:
        return float(self.loss(self.net(x), target)[0]) + self.penalty()

    def prune(self, masks: Mapping[str, Array]) -> None:
        self.masks = dict(masks)
        for name, mask in masks.items():
            self.net.p[name] *= mask

    def step(self, x: Array, target: Array, weight: Array | None = None, dropped: Mapping[str, Array] | None = None) -> float:
        p = self.net.p
        options = {} if weight is None else {"sample_weight": weight}
        loss, dy = self.loss(self.net.train(x, dropped), target, **options)
        loss += self.penalty()
        _, gradients = self.net.backward(dy)
        for name in p:
            g = gradients[name]
            if name not in self.trained:
                g = np.zeros_like(g)
            if name in self.penalized:
                g = g + self.l1 * np.sign(p[name]) + 2 * self.l2 * p[name]
            gradients[name] = g * self.masks.get(name, 1.0)
        self.gradients = gradients
        self.norm = float(np.sqrt(sum((g * g).sum() for g in gradients.values())))
        factor = 1.0 if self.clip_norm is None else min(1.0, self.clip_norm / (self.norm + 1e-6))
        self.steps += 1
        for name in self.trained:
            w = p[name]
            self.update(w, factor * gradients[name], **self.state[name], step=self.steps, **self.options)
            w *= self.masks.get(name, 1.0)
            if self.max_norm is not None and w.ndim == 2:
                norms = np.sqrt((w * w).sum(axis=0))
                w *= np.where(norms > self.max_norm, self.max_norm / np.maximum(norms, 1e-300), 1.0)
        return float(loss)
