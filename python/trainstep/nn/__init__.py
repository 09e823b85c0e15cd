"""Networks: layers as frozen descriptions, and `Sequential`, which plans them into one compiled program."""

from trainstep.nn.layers import Activation, Dense, Dropout, Standardize
from trainstep.nn.sequential import Sequential, load

__all__ = ["Activation", "Dense", "Dropout", "Sequential", "Standardize", "load"]
