"""Data that comes with the package, tables from files, and how to split data."""

from .digits import load_digits
from .split import train_test_split
from .table import Table, load_table

__all__ = ["Table", "load_digits", "load_table", "train_test_split"]
