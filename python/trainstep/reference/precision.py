"""Products of float32 matrices from pieces in bfloat16: what each precision adds up."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype

# The products of each precision, by the number of a's piece and of b's (1 is the largest), in the order in which they are added.
TERMS = {
    "bf16_x6": ((3, 1), (2, 2), (1, 3), (2, 1), (1, 2), (1, 1)),
    "bf16_x3": ((2, 1), (1, 2), (1, 1)),
    "bf16": ((1, 1),),
}
ALIASES = {"highest": "float32", "high": "bf16_x3", "medium": "bf16"}
_LARGEST = np.array(0x7F7F0000, np.uint32)  # the bits of the largest finite bfloat16, as a float32


def split_bfloat16(x: npt.ArrayLike, pieces: int) -> list[Array]:
    """Cut numbers into pieces that each fit bfloat16: each is what those before it leave, rounded to nearest, ties to even.

    ``x_1 = bfloat16(x), x_2 = bfloat16(x - x_1), x_3 = bfloat16(x - x_1 - x_2)``

    bfloat16 has the exponents of float32 and 8 bits of its significand, so that three pieces give the number back, but for what is
    below its smallest one, 2^-133. What would be rounded to infinity is cut into the largest finite bfloat16 and the rest. The
    pieces of infinities and NaN are themselves, and then 0.

    Parameters
    ----------
    x : array_like, any shape, float32
        The numbers.
    pieces : int
        How many pieces, 1 to 3.

    Returns
    -------
    pieces : list of ndarray, shape of x, float32
        From the largest to the smallest.

    Raises
    ------
    TypeError
        x is not float32.
    ValueError
        pieces is not 1 to 3.

    References
    ----------
    Henry, Tang, Heinecke: Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations (ARITH 2019),
    section II.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import split_bfloat16
    >>> high, low = split_bfloat16(np.array([1.0, 3.1415927], dtype="float32"), 2)
    >>> high, low
    (array([1.      , 3.140625], dtype=float32), array([0.        , 0.00096893], dtype=float32))
    """
    rest = np.array(x)
    if rest.dtype != np.float32:
        raise TypeError(f"split_bfloat16: x has dtype {rest.dtype}, wanted float32")
    if pieces not in (1, 2, 3):
        raise ValueError(f"split_bfloat16: pieces is {pieces!r}, wanted 1, 2 or 3")
    result: list[Array] = []
    with ieee():
        for _ in range(pieces):
            result.append(_bfloat16(rest))
            # Exact: both are multiples of the last place of rest, and the difference has no more digits than that.
            rest = np.where(np.isfinite(rest), rest - result[-1], np.float32(0))
    return result


def _bfloat16(x: Array) -> Array:
    """Round to nearest, ties to even, on the bits: half of the last place is added, or just less where that place is even."""
    bits = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)
    kept = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    sign = bits & np.uint32(0x80000000)
    too_large = (kept & np.uint32(0x7FFFFFFF)) > _LARGEST
    kept = np.where(too_large, sign | _LARGEST, kept)
    rounded: Array = np.where(np.isfinite(x), kept.view(np.float32), x)
    return rounded


def matmul(a: npt.ArrayLike, b: npt.ArrayLike, precision: str = "float32", *, out: Array | None = None) -> Array:
    """Return the product of two matrices, in float32 from the pieces of their numbers in bfloat16.

    | ``bf16     a_1 b_1``
    | ``bf16_x3  a_2 b_1 + a_1 b_2 + a_1 b_1``
    | ``bf16_x6  a_3 b_1 + a_2 b_2 + a_1 b_3 + a_2 b_1 + a_1 b_2 + a_1 b_1``

    with a_p the p-th piece of `split_bfloat16`. A product of two pieces is exact in float32. Infinities and NaN count in a_1 b_1
    alone and as 0 in the other terms, where they would meet rests and zeros.

    Parameters
    ----------
    a : array_like, shape (M, K), float32 or float64
        The left factor.
    b : array_like, shape (K, N), dtype of a
        The right factor.
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}, default "float32"
        What is multiplied: the numbers as they are ("float32", also called "highest"), or pieces of float32 ones ("high" is
        bf16_x3, "medium" bf16).
    out : ndarray, shape (M, N), dtype of a, optional
        Where the result goes. Default: a new array.

    Returns
    -------
    c : ndarray, shape (M, N), dtype of a

    Raises
    ------
    TypeError
        The arrays are not both float32 or both float64.
    ValueError
        Shapes do not fit, the precision is unknown, or is one of pieces and the arrays are float64.

    References
    ----------
    Henry, Tang, Heinecke: Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations (ARITH 2019),
    section II.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import matmul
    >>> a, b = np.array([[3.1415927]], dtype="float32"), np.array([[2.7182817]], dtype="float32")
    >>> [float(matmul(a, b, p)[0, 0]) for p in ("float32", "bf16_x6", "bf16_x3", "bf16")]
    [8.53973388671875, 8.53973388671875, 8.539734840393066, 8.53857421875]
    """
    dtype = shared_dtype("matmul", a=a, b=b)
    name = precision_named("matmul", precision, dtype)
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul: a has shape {a.shape}, b has {b.shape}, wanted (M, K) and (K, N)")
    check_out("matmul", "out", out, (a.shape[0], b.shape[1]), dtype)
    with ieee():
        return deliver(product(a, b, name), dtype, out)


def precision_named(function: str, precision: str | None, dtype: np.dtype[Any]) -> str:
    """Return the name of a precision, of which it may be an alias, or raise; None is float32."""
    name = "float32" if precision is None else ALIASES.get(precision, precision)
    if name != "float32" and name not in TERMS:
        raise ValueError(f"{function}: precision is {precision!r}, wanted one of {', '.join(['float32', *TERMS, *ALIASES])}")
    if name != "float32" and dtype != np.float32:
        raise ValueError(f"{function}: precision is {name!r}, wanted 'float32' with {dtype} arrays")
    return name


def product(a: Array, b: Array, name: str) -> Float64:
    """Return the product as `matmul` has it, before it is rounded; of pieces, a and b must be float32."""
    if name == "float32":
        return np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    count = max(p for p, _ in TERMS[name])
    of_a, of_b = ([piece.astype(np.float64) for piece in split_bfloat16(x, count)] for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]))
    for p, q in TERMS[name]:
        left, right = of_a[p - 1], of_b[q - 1]
        if (p, q) != (1, 1):
            left, right = np.where(np.isfinite(left), left, 0), np.where(np.isfinite(right), right, 0)
        total += left @ right
    return total
