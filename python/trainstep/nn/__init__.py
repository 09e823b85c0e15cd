"""Networks: layers as frozen descriptions, and `Sequential`, which plans them into one compiled program."""

from trainstep.nn.layers import Activation, Dense, Standardize
from trainstep.nn.sequential import Sequential, load

__all__ = ["Activation", "Dense", "Sequential", "Standardize", "load"]
