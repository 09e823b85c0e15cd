"""Optimizer steps on one array, in place: the formulas of ``torch.optim``, of the papers and of the lecture notes."""

from .adagrad import adadelta_step_, adagrad_step_, rmsprop_step_
from .adam import adam_step_, adamax_step_, nadam_step_, radam_step_
from .layerwise import lamb_step_, lars_step_
from .sgd import asgd_step_, sgd_step_
from .signs import lion_step_, rprop_step_

__all__ = [
    "adadelta_step_",
    "adagrad_step_",
    "adam_step_",
    "adamax_step_",
    "asgd_step_",
    "lamb_step_",
    "lars_step_",
    "lion_step_",
    "nadam_step_",
    "radam_step_",
    "rmsprop_step_",
    "rprop_step_",
    "sgd_step_",
]
