"""Checks of plain arguments that several modules share. A message begins with `where`: the function and the argument."""

import math
import operator
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

_FLOATS = ("float32", "float64")


def integer(where: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Give an argument that must be an integer, within bounds where there are some."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{where} is a {type(value).__name__}, expected an int") from None
    if low is not None and number < low or high is not None and number > high:
        raise ValueError(f"{where} is {number}, expected {f'at least {low}' if high is None else f'{low} to {high}'}")
    return number


def number(where: str, value: Any, low: float = -math.inf, high: float = math.inf, above: float = -math.inf) -> float:
    """Give an argument that must be a finite number: from `low` to `high`, and more than `above`."""
    try:
        if isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{where} is a {type(value).__name__}, expected a number") from None
    except OverflowError:
        result = math.inf
    if not (low <= result <= high and result > above and math.isfinite(result)):
        between = f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
        bounds = f" above {above:g}" if above > -math.inf else between if low > -math.inf else ""
        raise ValueError(f"{where} is {value}, expected a finite number{bounds}")
    return result


def switch(where: str, value: Any) -> bool:
    """Give an argument that must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where} is a {type(value).__name__}, expected a bool")
    return bool(value)


def float_dtype(where: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Give a dtype that must be float32 or float64."""
    try:
        known = np.dtype(dtype) if dtype is not None else None
    except TypeError:
        known = None
    if known is None or known.name not in _FLOATS or not known.isnative:
        raise TypeError(f"{where} is {known or repr(dtype)}, expected float32 or float64")
    return known


def path_text(where: str, path: Any) -> str:
    """Give a path as a str."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{where} is a {type(path).__name__}, expected a str or a path") from None


def seed_and_counter(function: str, seed: Any, counter: Any) -> tuple[int, int]:
    """Give what a dropout mask is drawn from."""
    return integer(f"{function}: seed", seed) % 2**64, integer(f"{function}: counter", counter, 0, 2**32 - 1)


def mask_source(function: str, mask: Any, seed: Any, counter: Any) -> tuple[int, int]:
    """Give the same where there is no mask; zeros where there is one, and must be neither of them."""
    for name, value in (("seed", seed), ("counter", counter)):
        if (mask is None) == (value is None):
            state = "None, expected a mask, or a seed and a counter" if mask is None else "given, expected None beside a mask"
            raise ValueError(f"{function}: {name} is {state}")
    return (0, 0) if mask is not None else seed_and_counter(function, seed, counter)
