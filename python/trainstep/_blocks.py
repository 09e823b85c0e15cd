"""Going over the rows of an array block by block, so that a memmap may be larger than memory: statistics, and formulas of rows."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK = 2**16  # elements that are looked at together: few enough for the cache


def real_array(function: str, x: Any) -> Array:
    """Give x as an array of numbers, without a copy where it is one; a memmap stays where it is."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{function}: x is a MaskedArray, expected an array without a mask")
    array: Array = np.from_dlpack(x) if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray) else np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{function}: x has dtype {array.dtype}, expected a real dtype")
    return array


def blocks(x: Array) -> Iterator[slice]:
    """Give slices of rows, in order, that make up all of x."""
    step = max(1, _BLOCK // max(1, x[:1].size))
    for first in range(0, len(x), step):
        yield slice(first, min(first + step, len(x)))


def column_statistics(function: str, x: Array, columns: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return mean and standard deviation (1 of a constant column) in float64, of x as `dtype` holds it and as rows of `columns`."""
    count = x.size // columns

    def values() -> Iterator[Array]:
        for rows in blocks(x):
            # Always in C order: the order of the sums is that of the memory.
            yield x[rows].reshape(-1, columns).astype(dtype, order="C").astype(np.float64)

    # Two passes: the squares of x itself would cancel where the mean is many times the spread.
    low, high, total = np.full(columns, np.inf), np.full(columns, -np.inf), np.zeros(columns)
    with np.errstate(over="ignore", invalid="ignore"):  # found and named below
        for block in values():
            np.minimum(low, block.min(axis=0), out=low)
            np.maximum(high, block.max(axis=0), out=high)
            total += block.sum(axis=0)
        mean = total / count
        squares, rest = np.zeros(columns), np.zeros(columns)
        for block in values():
            block -= mean
            squares += (block * block).sum(axis=0)
            rest += block.sum(axis=0)  # 0 but for the rounding of the mean, which is corrected by it
        constant = low == high  # asked so, for the rounding of the mean can make a spread of its own
        std = np.where(constant, 1.0, np.sqrt((squares - rest * rest / count) / count))
        mean = np.where(constant, low, mean + rest / count)
        scale = (1 / std).astype(dtype)
        fits = np.isfinite(mean) & np.isfinite(scale) & (scale >= np.finfo(dtype).tiny)
    for j in np.flatnonzero(~fits)[:1]:
        raise ValueError(
            f"{function}: column {j} of x has values from {low[j]:g} to {high[j]:g} and standard deviation {std[j]:g}, "
            f"expected finite numbers whose spread {dtype} can hold"
        )
    return mean, std


def map_rows(function: str, formula: Callable[[Array], Array], x: Array, shape: tuple[int, ...], out: Array | None) -> Array:
    """Give a formula of rows, calculated in float64: float64 of float64, of other dtypes float32, each row of a shape."""
    wanted = (len(x), *shape)
    if out is None:
        out = np.empty(wanted, np.float64 if x.dtype.kind == "f" and x.dtype.itemsize >= 8 else np.float32)
    elif not isinstance(out, np.ndarray) or out.dtype not in (np.float32, np.float64):
        kind = out.dtype if isinstance(out, np.ndarray) else f"a {type(out).__name__}"
        raise TypeError(f"{function}: out is {kind}, expected an array of float32 or float64")
    elif out.shape != wanted:
        raise ValueError(f"{function}: out has shape {out.shape}, expected {wanted}")
    elif not out.flags.writeable:
        raise ValueError(f"{function}: out is read-only")
    elif _overlap(x, out):
        raise ValueError(f"{function}: out overlaps x, expected x itself or memory of its own")
    with np.errstate(over="ignore", invalid="ignore"):  # IEEE's infinities and NaN, as everywhere
        for rows in blocks(x):
            out[rows] = formula(x[rows].astype(np.float64))
    return out


def _overlap(x: Array, out: Array) -> bool:
    """Whether a row of out may be written before another of x is read."""
    same = x.dtype == out.dtype and x.shape == out.shape and x.strides == out.strides and x.ctypes.data == out.ctypes.data
    return not same and np.shares_memory(x, out)
