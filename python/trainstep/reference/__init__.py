"""The formulas in NumPy, in float64: the definition that the compiled :mod:`trainstep.ops` are held to.

Each function has the name and the signature of its twin in ``trainstep.ops`` (the ``_step_`` functions: in
``trainstep.optim``). It computes in float64 and rounds once, to the dtype of its input. Who wants the float64 value
passes float64.

Nothing here is fast, on purpose: each function is its formula and nothing else.
"""

from .activations import (
    ACTIVATIONS,
    identity,
    identity_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from .clipping import clip_by_global_norm_, clip_by_norm_, clip_by_value_, global_norm
from .dense import dense, dense_backward
from .losses import mse, softmax_cross_entropy
from .optimizers import (
    adadelta_step_,
    adagrad_step_,
    adam_step_,
    adamax_step_,
    asgd_step_,
    lamb_step_,
    lars_step_,
    lion_step_,
    nadam_step_,
    radam_step_,
    rmsprop_step_,
    rprop_step_,
    sgd_step_,
)
from .standardize import standardize, standardize_backward

__all__ = [
    "ACTIVATIONS",
    "adadelta_step_",
    "adagrad_step_",
    "adam_step_",
    "adamax_step_",
    "asgd_step_",
    "clip_by_global_norm_",
    "clip_by_norm_",
    "clip_by_value_",
    "dense",
    "dense_backward",
    "global_norm",
    "identity",
    "identity_backward",
    "lamb_step_",
    "lars_step_",
    "lion_step_",
    "mse",
    "nadam_step_",
    "radam_step_",
    "relu",
    "relu_backward",
    "rmsprop_step_",
    "rprop_step_",
    "sgd_step_",
    "sigmoid",
    "sigmoid_backward",
    "softmax_cross_entropy",
    "standardize",
    "standardize_backward",
    "tanh",
    "tanh_backward",
]
