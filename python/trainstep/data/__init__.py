"""Data: what comes with the package, files, splits, statistics taken out, and batches for a training run."""

from . import augment
from .ahead import prefetch
from .batches import Batches, batch_size
from .digits import load_digits
from .idx import load_idx
from .labels import one_hot
from .split import train_test_split
from .standardizer import Standardizer
from .table import Table, load_table
from .whitener import Whitener

__all__ = [
    "Batches",
    "Standardizer",
    "Table",
    "Whitener",
    "augment",
    "batch_size",
    "load_digits",
    "load_idx",
    "load_table",
    "one_hot",
    "prefetch",
    "train_test_split",
]
