"""Data that comes with the package, and how to split data."""

from .digits import load_digits
from .split import train_test_split

__all__ = ["load_digits", "train_test_split"]
