"""Optimizers: classes that step lists of arrays in place, and the bare formulas for one array.

Names, defaults, state names and results are those of ``torch.optim`` where it has the optimizer. The functions' NumPy twins are
in `trainstep.reference`.
"""

from trainstep.optim.adagrad import Adadelta, Adagrad, RMSprop
from trainstep.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from trainstep.optim.formulas import (
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
from trainstep.optim.layerwise import LAMB, LARS
from trainstep.optim.optimizer import Optimizer
from trainstep.optim.sgd import ASGD, SGD
from trainstep.optim.signs import Lion, Rprop

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
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
