"""What the tests of activations share: the functions of a name, what its derivative is taken from, and how far results may be off.

Bounds are multiples of eps times the value. Where a derivative vanishes by cancellation, or by factors that are rounded beside 1,
no kernel is good to the last digits of it: its error is measured in what is cancelled.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from trainstep import _core, ops, reference

from .helpers import Array, eps

ACTIVATIONS = _core.activations
OF_INPUT = _core.activations_of_input
BY_ROWS = _core.activations_by_rows
PARAMETERS = _core.activation_parameters
# Where no straight piece ends, and not near: differences over an end are no derivative.
ENDS = (-3.0, -1.0, 0.0, 1.0, 3.0)


def functions(name: str) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The forward and the backward function of ops for a name of the core."""
    if name == "gelu_tanh":
        return partial(ops.gelu, approximate="tanh"), partial(ops.gelu_backward, approximate="tanh")
    return getattr(ops, name), getattr(ops, f"{name}_backward")


def derivative_from(name: str, x: Array, y: Array) -> Array:
    """What the backward function takes beside dy: x or y."""
    return x if name in OF_INPUT else y


def dense_derivative_from(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """What dense_backward takes as y."""
    return ops.dense(x, w, b, None if activation in OF_INPUT else activation)


def away_from_ends(x: Array, distance: float = 1e-2) -> Array:
    """x with what is near the end of a straight piece moved away from it."""
    result = np.array(x)
    for end in ENDS:
        near = np.abs(result - end) < distance
        result[near] = end + distance
    return result


def forward_bound(name: str, x: Array, y: Array, dtype: Any) -> Array:
    """What y = f(x) may be off by."""
    x, y = _finite(x), _finite(y)
    unit = eps(dtype)
    if name == "softmax":  # exp(x - max): the difference is rounded, and so are the terms of the sum
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(y > 0, unit * y * (6 + of_sum(y) - np.log(y)), 0) + tiny(dtype)
    if name == "log_softmax":
        return unit * (6 + of_sum(y) + np.abs(y))
    if name in OF_INPUT:  # x times a gate, whose denormals are rounded
        return _of_gate(name, x) * (unit * np.abs(y) + tiny(dtype) * np.maximum(1, np.abs(x)))
    return 4 * unit * np.abs(y) + tiny(dtype)


def backward_bound(name: str, dy: Array, source: Array, dx: Array, dtype: Any) -> Array:
    """What dx = dy * f'(source) may be off by."""
    dy, source, dx = _finite(dy), _finite(source), _finite(dx)
    unit = eps(dtype)
    if name == "softmax":
        total = (np.abs(dy) * np.abs(source)).sum(axis=-1, keepdims=True)
        return unit * np.abs(source) * (6 * np.abs(dy) + (6 + of_sum(dy)) * total) + tiny(dtype)
    if name == "log_softmax":
        return unit * (6 * np.abs(dy) + (6 + of_sum(dy)) * np.exp(source) * np.abs(dy).sum(axis=-1, keepdims=True)) + tiny(dtype)
    if name in OF_INPUT:  # the gate, and x times the gate's derivative, of another sign below 0
        gate = np.divide(exact_forward(name, source), source, out=np.zeros_like(source), where=source != 0)
        with np.errstate(over="ignore"):
            terms = np.abs(gate * dy) + np.abs(dx - gate * dy)
            return _of_gate(name, source) * (unit * terms + tiny(dtype) * np.maximum(1, np.abs(source)) * np.maximum(1, np.abs(dy)))
    return (5 * unit * np.abs(dy) if name == "selu" else 4 * unit * np.abs(dx)) + tiny(dtype)


def _of_gate(name: str, x: Array) -> Array:
    """What the gate of an activation of its input may be off by, in eps of it."""
    if name == "gelu_tanh":  # the argument of exp is rounded: below 0, where that is steep, by so much of the result
        return 6 + 4 * np.abs(np.clip(x, -30, 0) + 0.044715 * np.clip(x, -30, 0) ** 3)
    return np.full_like(x, 9 if name == "gelu" else 6)


def of_sum(a: Array) -> float:
    """What the sum of a row may be off by, in eps: sums of 64 vectors, added up; equal terms may all be rounded the same way."""
    n = a.shape[-1]
    return 0.1 * (min(n, 64) + n / (64 * 2))  # the shortest vector has two elements


def _finite(a: Array) -> Array:
    return np.where(np.isfinite(a), a, 0).astype(np.float64)


def tiny(dtype: Any) -> float:
    """Below the normal numbers the ULP no longer shrinks."""
    return 2 * float(np.finfo(dtype).smallest_subnormal)


@cache
def steepness(name: str) -> float:
    """The largest |f'|: how much larger an error of x can become."""
    if name in BY_ROWS:
        return 2.0  # |dy_k - sum y_j dy_j| <= 2 max |dy|
    x = np.linspace(-8, 8, 1601)
    forward, backward = reference.ACTIVATIONS[name]
    return float(np.abs(backward(np.ones_like(x), derivative_from(name, x, forward(x)))).max())


def amplified(name: str, error: Array) -> Array:
    """What becomes of an error of x in y."""
    if name in BY_ROWS and error.ndim:
        error = np.broadcast_to(error.max(axis=-1, keepdims=True, initial=0), error.shape)
    return steepness(name) * error


def exact_forward(name: str, x: Array, **options: Any) -> Array:
    return overflowed(reference.ACTIVATIONS[name][0](x.astype(np.float64), **options), x.dtype)


def exact_backward(name: str, dy: Array, source: Array, **options: Any) -> Array:
    return overflowed(reference.ACTIVATIONS[name][1](dy.astype(np.float64), source.astype(np.float64), **options), dy.dtype)


def overflowed(exact: Array, dtype: Any) -> Array:
    """Exact values, infinite where the dtype holds none as large."""
    with np.errstate(over="ignore"):
        return np.where(np.isinf(exact.astype(dtype)), np.copysign(np.inf, exact), exact)
