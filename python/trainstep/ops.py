"""The formulas on arrays, compiled. `trainstep.reference` holds the same names with the same signatures in NumPy.

Arrays are NumPy arrays, or anything on the CPU with ``__dlpack__`` or the buffer protocol; all arrays of a call share a dtype,
float32 or float64, which is the result's. An input may be strided; an ``out=`` is C-contiguous and has memory of its own,
except that an element-wise function may write over its input.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trainstep import _core, reference
from trainstep._checks import switch
from trainstep._docs import documented_by

Array = NDArray[Any]

__all__ = [
    "clip_by_global_norm_",
    "clip_by_norm_",
    "clip_by_value_",
    "dense",
    "dense_backward",
    "global_norm",
    "identity",
    "identity_backward",
    "mse",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax_cross_entropy",
    "standardize",
    "standardize_backward",
    "tanh",
    "tanh_backward",
]


@documented_by(reference.dense, __name__)
def dense(x: Any, w: Any, b: Any = None, activation: str | None = None, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.dense(x, w, b, activation, out)


@documented_by(reference.dense_backward, __name__)
def dense_backward(  # noqa: D103
    dy: Any,
    x: Any,
    w: Any,
    y: Any = None,
    activation: str | None = None,
    need_dx: bool = True,
    *,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    return _core.dense_backward(dy, x, w, y, activation, switch("dense_backward: need_dx", need_dx), out)


@documented_by(reference.identity, __name__)
def identity(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("identity", x, out)


@documented_by(reference.identity_backward, __name__)
def identity_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("identity", dy, y, out)


@documented_by(reference.relu, __name__)
def relu(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("relu", x, out)


@documented_by(reference.relu_backward, __name__)
def relu_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("relu", dy, y, out)


@documented_by(reference.sigmoid, __name__)
def sigmoid(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("sigmoid", x, out)


@documented_by(reference.sigmoid_backward, __name__)
def sigmoid_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("sigmoid", dy, y, out)


@documented_by(reference.tanh, __name__)
def tanh(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("tanh", x, out)


@documented_by(reference.tanh_backward, __name__)
def tanh_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("tanh", dy, y, out)


@documented_by(reference.standardize, __name__)
def standardize(x: Any, mean: Any, scale: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.standardize(x, mean, scale, out)


@documented_by(reference.standardize_backward, __name__)
def standardize_backward(dy: Any, scale: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.standardize_backward(dy, scale, out)


@documented_by(reference.softmax_cross_entropy, __name__)
def softmax_cross_entropy(  # noqa: D103
    logits: Any, labels: Any, *, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    return _core.loss("softmax_cross_entropy", logits, labels, reduction, out)


@documented_by(reference.mse, __name__)
def mse(pred: Any, target: Any, *, reduction: str = "mean", out: Array | None = None) -> tuple[float | Array, Array]:  # noqa: D103
    return _core.loss("mse", pred, target, reduction, out)


@documented_by(reference.global_norm, __name__)
def global_norm(arrays: Sequence[Any]) -> float:  # noqa: D103
    return _core.global_norm(arrays)


@documented_by(reference.clip_by_global_norm_, __name__)
def clip_by_global_norm_(arrays: Sequence[Any], max_norm: float) -> float:  # noqa: D103
    return _core.clip_by_global_norm_(arrays, max_norm)


@documented_by(reference.clip_by_value_, __name__)
def clip_by_value_(arrays: Sequence[Any], limit: float) -> None:  # noqa: D103
    _core.clip_by_value_(arrays, limit)


@documented_by(reference.clip_by_norm_, __name__)
def clip_by_norm_(arrays: Sequence[Any], max_norm: float) -> list[float]:  # noqa: D103
    return _core.clip_by_norm_(arrays, max_norm)
