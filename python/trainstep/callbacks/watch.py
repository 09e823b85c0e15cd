"""One value of an epoch that is watched, and which way of it is better."""

import math
from collections.abc import Mapping
from typing import Any

# Names that begin like this, after "val_", are better where they are larger; losses and errors are better where they are smaller.
_RISING = ("accuracy", "auc", "f1", "precision", "r2", "recall", "top")


def check_mode(where: str, mode: Any) -> str:
    """Give a mode that must be one of the three."""
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"{where} is {mode!r}, expected 'auto', 'min' or 'max'")
    return str(mode)


def check_name(where: str, name: Any) -> str:
    """Give the name of a value."""
    if not isinstance(name, str):
        raise TypeError(f"{where} is a {type(name).__name__}, expected a str such as 'val_loss'")
    return name


def check_state(callback: str, state: Any, names: set[str]) -> None:
    """Refuse what is no state of a callback."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{callback}.load_state_dict: state is a {type(state).__name__}, expected a dict")
    if set(state) != names:
        given = ", ".join(sorted(map(repr, state))) or "nothing"
        raise ValueError(f"{callback}.load_state_dict: state has {given}, expected {', '.join(sorted(map(repr, names)))}")


def sign(mode: str, name: str) -> float:
    """Give 1 where smaller is better and -1 where larger is: times this, all values are better where they are smaller."""
    rises = mode == "max" or (mode == "auto" and name.removeprefix("val_").startswith(_RISING))
    return -1.0 if rises else 1.0


def value_of(where: str, name: str, values: Mapping[str, float]) -> float:
    """Give a value by its name."""
    try:
        return float(values[name])
    except KeyError:
        raise ValueError(f"{where} is {name!r}, expected one of the values there are: {', '.join(values)}") from None


def is_better(value: float, best: float | None, sign: float, min_delta: float = 0.0) -> bool:
    """Tell whether a value is better than the best by more than min_delta; NaN is never, a finite one is better than none."""
    return sign * value + min_delta < (math.inf if best is None else sign * best)
