"""The formulas on arrays, compiled. `trainstep.reference` holds the same names with the same signatures in NumPy.

Arrays are NumPy arrays, or anything on the CPU with ``__dlpack__``, ``__array__`` or the buffer protocol; all arrays of a call
share a dtype, float32 or float64, which is the result's. An input may be strided; an ``out=`` is C-contiguous and has memory of its
own, except that an element-wise function may write over its input.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trainstep import _core, reference
from trainstep._checks import mask_source, number, seed_and_counter, switch
from trainstep._docs import documented_by

Array = NDArray[Any]
Outs = tuple[Array | None, Array | None, Array | None]

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "categorical_cross_entropy",
    "clip_by_global_norm_",
    "clip_by_norm_",
    "clip_by_value_",
    "dense",
    "dense_backward",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "ewma",
    "gelu",
    "gelu_backward",
    "global_norm",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "hinge",
    "huber",
    "identity",
    "identity_backward",
    "kl_divergence",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "mae",
    "mish",
    "mish_backward",
    "mse",
    "poisson_nll",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_binary_cross_entropy",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softplus",
    "softplus_backward",
    "standardize",
    "standardize_backward",
    "tanh",
    "tanh_backward",
]


@documented_by(reference.dense, __name__)
def dense(  # noqa: D103
    x: Any, w: Any, b: Any = None, activation: str | None = None, *, out: Array | None = None, precision: str | None = None
) -> Array:
    return _core.dense(x, w, b, activation, out, precision)


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
    precision: str | None = None,
) -> tuple[Array | None, Array, Array]:
    return _core.dense_backward(dy, x, w, y, activation, switch("dense_backward: need_dx", need_dx), out, precision)


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


@documented_by(reference.leaky_relu, __name__)
def leaky_relu(x: Any, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("leaky_relu", x, out, negative_slope)


@documented_by(reference.leaky_relu_backward, __name__)
def leaky_relu_backward(dy: Any, y: Any, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("leaky_relu", dy, y, out, negative_slope)


@documented_by(reference.hardtanh, __name__)
def hardtanh(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("hardtanh", x, out)


@documented_by(reference.hardtanh_backward, __name__)
def hardtanh_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("hardtanh", dy, y, out)


@documented_by(reference.hardsigmoid, __name__)
def hardsigmoid(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("hardsigmoid", x, out)


@documented_by(reference.hardsigmoid_backward, __name__)
def hardsigmoid_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("hardsigmoid", dy, y, out)


@documented_by(reference.hardswish, __name__)
def hardswish(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("hardswish", x, out)


@documented_by(reference.hardswish_backward, __name__)
def hardswish_backward(dy: Any, x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("hardswish", dy, x, out)


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


@documented_by(reference.elu, __name__)
def elu(x: Any, alpha: float = 1.0, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("elu", x, out, alpha)


@documented_by(reference.elu_backward, __name__)
def elu_backward(dy: Any, y: Any, alpha: float = 1.0, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("elu", dy, y, out, alpha)


@documented_by(reference.selu, __name__)
def selu(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("selu", x, out)


@documented_by(reference.selu_backward, __name__)
def selu_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("selu", dy, y, out)


@documented_by(reference.softplus, __name__)
def softplus(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("softplus", x, out)


@documented_by(reference.softplus_backward, __name__)
def softplus_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("softplus", dy, y, out)


@documented_by(reference.silu, __name__)
def silu(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("silu", x, out)


@documented_by(reference.silu_backward, __name__)
def silu_backward(dy: Any, x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("silu", dy, x, out)


@documented_by(reference.gelu, __name__)
def gelu(x: Any, approximate: str = "none", *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation(reference.activations.gelu_form("gelu", approximate), x, out)


@documented_by(reference.gelu_backward, __name__)
def gelu_backward(dy: Any, x: Any, approximate: str = "none", *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward(reference.activations.gelu_form("gelu_backward", approximate), dy, x, out)


@documented_by(reference.mish, __name__)
def mish(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("mish", x, out)


@documented_by(reference.mish_backward, __name__)
def mish_backward(dy: Any, x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("mish", dy, x, out)


@documented_by(reference.softmax, __name__)
def softmax(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("softmax", x, out)


@documented_by(reference.softmax_backward, __name__)
def softmax_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("softmax", dy, y, out)


@documented_by(reference.log_softmax, __name__)
def log_softmax(x: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation("log_softmax", x, out)


@documented_by(reference.log_softmax_backward, __name__)
def log_softmax_backward(dy: Any, y: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.activation_backward("log_softmax", dy, y, out)


@documented_by(reference.standardize, __name__)
def standardize(x: Any, mean: Any, scale: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.standardize(x, mean, scale, out)


@documented_by(reference.standardize_backward, __name__)
def standardize_backward(dy: Any, scale: Any, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.standardize_backward(dy, scale, out)


@documented_by(reference.layer_norm, __name__)
def layer_norm(  # noqa: D103
    x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5, out: Outs | None = None
) -> tuple[Array, Array, Array]:
    return _core.layer_norm(x, gamma, beta, eps, out)


@documented_by(reference.layer_norm_backward, __name__)
def layer_norm_backward(  # noqa: D103
    dy: Any, x: Any, mean: Any, inv_std: Any, gamma: Any = None, *, out: Outs | None = None
) -> tuple[Array, Array, Array]:
    return _core.layer_norm_backward(dy, x, mean, inv_std, gamma, out)


@documented_by(reference.batch_norm, __name__)
def batch_norm(  # noqa: D103
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Outs | None = None,
) -> tuple[Array, Array, Array]:
    in_training = switch("batch_norm: training", training)
    return _core.batch_norm(x, gamma, beta, running_mean, running_var, in_training, momentum, eps, out)


@documented_by(reference.batch_norm_backward, __name__)
def batch_norm_backward(  # noqa: D103
    dy: Any, x: Any, mean: Any, inv_std: Any, gamma: Any = None, *, training: bool, out: Outs | None = None
) -> tuple[Array, Array, Array]:
    return _core.batch_norm_backward(dy, x, mean, inv_std, gamma, switch("batch_norm_backward: training", training), out)


@documented_by(reference.dropout, __name__)
def dropout(  # noqa: D103
    x: Any, rate: float, *, seed: int, counter: int, out: tuple[Array | None, Array | None] | None = None
) -> tuple[Array, Array]:
    return _core.dropout(x, rate, *seed_and_counter("dropout", seed, counter), out)


@documented_by(reference.dropout_backward, __name__)
def dropout_backward(  # noqa: D103
    dy: Any, rate: float, mask: Any = None, *, seed: int | None = None, counter: int | None = None, out: Array | None = None
) -> Array:
    return _core.dropout_backward(dy, rate, mask, *mask_source("dropout_backward", mask, seed, counter), out)


@documented_by(reference.ewma, __name__)
def ewma(x: Any, beta: float, bias_correction: bool = False, *, out: Array | None = None) -> Array:  # noqa: D103
    return _core.ewma(x, beta, switch("ewma: bias_correction", bias_correction), out)


# What follows sample_weight among the options that the core takes: weight, label_smoothing and delta.
_DEFAULTS = (None, 0.0, 1.0)
_NO_SMOOTHING = 0.0  # the default itself: who gives none goes the short way


@documented_by(reference.softmax_cross_entropy, __name__)
def softmax_cross_entropy(  # noqa: D103
    logits: Any,
    labels: Any,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = _NO_SMOOTHING,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    if weight is None and sample_weight is None and label_smoothing is _NO_SMOOTHING:
        return _core.loss("softmax_cross_entropy", logits, labels, reduction, out)
    smoothing = number("softmax_cross_entropy: label_smoothing", label_smoothing, 0, 1)
    options = (sample_weight, weight, smoothing, 1.0)
    return _core.loss_with_options("softmax_cross_entropy", logits, labels, reduction, out, options)


@documented_by(reference.sigmoid_binary_cross_entropy, __name__)
def sigmoid_binary_cross_entropy(  # noqa: D103
    logits: Any, targets: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("sigmoid_binary_cross_entropy", logits, targets, reduction, out)
    return _core.loss_with_options("sigmoid_binary_cross_entropy", logits, targets, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.categorical_cross_entropy, __name__)
def categorical_cross_entropy(  # noqa: D103
    probs: Any, onehot: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("categorical_cross_entropy", probs, onehot, reduction, out)
    return _core.loss_with_options("categorical_cross_entropy", probs, onehot, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.mse, __name__)
def mse(  # noqa: D103
    pred: Any, target: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("mse", pred, target, reduction, out)
    return _core.loss_with_options("mse", pred, target, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.mae, __name__)
def mae(  # noqa: D103
    pred: Any, target: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("mae", pred, target, reduction, out)
    return _core.loss_with_options("mae", pred, target, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.huber, __name__)
def huber(  # noqa: D103
    pred: Any, target: Any, delta: float = 1.0, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None and type(delta) is float and delta == 1.0:
        return _core.loss("huber", pred, target, reduction, out)
    options = (sample_weight, None, 0.0, number("huber: delta", delta, above=0))
    return _core.loss_with_options("huber", pred, target, reduction, out, options)


@documented_by(reference.hinge, __name__)
def hinge(  # noqa: D103
    scores: Any, targets: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("hinge", scores, targets, reduction, out)
    return _core.loss_with_options("hinge", scores, targets, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.poisson_nll, __name__)
def poisson_nll(  # noqa: D103
    log_rate: Any, counts: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("poisson_nll", log_rate, counts, reduction, out)
    return _core.loss_with_options("poisson_nll", log_rate, counts, reduction, out, (sample_weight, *_DEFAULTS))


@documented_by(reference.kl_divergence, __name__)
def kl_divergence(  # noqa: D103
    logits: Any, probs: Any, *, sample_weight: Any = None, reduction: str = "mean", out: Array | None = None
) -> tuple[float | Array, Array]:
    if sample_weight is None:
        return _core.loss("kl_divergence", logits, probs, reduction, out)
    return _core.loss_with_options("kl_divergence", logits, probs, reduction, out, (sample_weight, *_DEFAULTS))


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
