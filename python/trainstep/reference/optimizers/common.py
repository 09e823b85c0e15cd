"""What all steps share: the checks of their arguments, and what happens to w and g before a rule's own formula."""

from typing import Any

import numpy as np

from ..activations import Array, Float64, shared_dtype


def check_arrays(function: str, w: Array, g: Array, **states: Array | None) -> None:
    """Raise unless w, g and the states that are given are of one shape and one float dtype, and can be written but for g."""
    arrays: dict[str, Any] = {"w": w, "g": g, **{name: s for name, s in states.items() if s is not None}}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{function}: {name} is a {type(array).__name__}, wanted an ndarray, to change it in place")
        if array.shape != w.shape:
            raise ValueError(f"{function}: {name} has shape {array.shape}, w has {w.shape}")
        if name != "g" and not array.flags.writeable:
            raise ValueError(f"{function}: {name} is read-only")
    shared_dtype(function, **arrays)


def check_numbers(function: str, step: int, **rates: float) -> None:
    """Raise unless step is at least 1 and every rate at least 0."""
    if step < 1:
        raise ValueError(f"{function}: step is {step}, wanted 1 or more")
    for name, value in rates.items():
        if not value >= 0.0:
            raise ValueError(f"{function}: {name} is {value}, wanted 0 or more")


def check_kept(function: str, name: str, value: float) -> None:
    """Raise unless value, what a moving average keeps, is in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{function}: {name} is {value}, wanted a number from 0 up to but not including 1")


def check_betas(function: str, betas: tuple[float, float]) -> None:
    """Raise unless betas are two numbers in [0, 1)."""
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"{function}: betas is {betas}, wanted two numbers from 0 up to but not including 1")


def needed(function: str, name: str, state: Array | None, because: str) -> Array:
    """Return a state that an option needs, or raise ValueError where it was not given."""
    if state is None:
        raise ValueError(f"{function}: {name} is None, and {because}")
    return state


def prepared(
    w: Array, g: Array, *, maximize: bool, l1: float, coupled: float = 0.0, decoupled: float = 0.0, lr: float = 0.0
) -> tuple[Float64, Float64]:
    """Return w and g in float64: g with its sign set and the penalties' gradients added, w decayed where that is decoupled."""
    w64, g64 = w.astype(np.float64), g.astype(np.float64)
    if maximize:
        g64 = -g64
    # A penalty of 0 adds nothing, not even NaN from 0 * infinity.
    if coupled != 0.0:
        g64 = g64 + coupled * w64
    if l1 != 0.0:
        g64 = g64 + l1 * np.sign(w64)
    if decoupled != 0.0:
        w64 = w64 * (1.0 - lr * decoupled)
    return w64, g64


def average(state: Array, kept: float, value: Float64) -> Float64:
    """Return the moving average ``kept * state + (1 - kept) * value``."""
    return kept * state.astype(np.float64) + (1.0 - kept) * value


def root(v: Float64, eps: float, eps_inside_sqrt: bool = False) -> Float64:
    """Return ``sqrt(v) + eps``, or ``sqrt(v + eps)``."""
    result: Float64 = np.sqrt(v + eps) if eps_inside_sqrt else np.sqrt(v) + eps
    return result
