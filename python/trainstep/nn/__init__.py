"""Networks: layers as frozen descriptions, and `Sequential`, which plans them into one compiled program."""

from trainstep.nn.layers import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Standardize
from trainstep.nn.pruning import Pruning
from trainstep.nn.sequential import Sequential, load

__all__ = [
    "Activation",
    "BatchNorm",
    "Dense",
    "Dropout",
    "LayerNorm",
    "Pruning",
    "Residual",
    "Sequential",
    "Standardize",
    "load",
]
