"""Splitting data into a part to train on and a part to test on."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from trainstep._checks import integer, switch

Array = npt.NDArray[Any]


def train_test_split(
    x: npt.ArrayLike, y: npt.ArrayLike, *, test_size: float | int = 0.2, stratify: bool = True, seed: int = 0
) -> tuple[Array, Array, Array, Array]:
    """Split rows at random into a training part and a test part.

    With stratify, each class keeps its share of the test part: of its n_c rows, ``n_test * n_c / n`` are drawn, rounded
    down; the rows still missing go to the classes with the largest remainders, one each.

    Parameters
    ----------
    x : array_like, shape (n, ...), any dtype
        Inputs, one a row.
    y : array_like, shape (n,) with stratify, else (n, ...), any dtype
        Labels or targets, one a row.
    test_size : float or int, default 0.2
        A float between 0 and 1 is a fraction of the rows, rounded up; an int is a number of rows.
    stratify : bool, default True
        Keep the classes' shares. False draws from all rows alike, as for regression.
    seed : int, default 0
        Seed of the NumPy generator (PCG64) that draws and shuffles.

    Returns
    -------
    x_train, x_test, y_train, y_test : ndarray
        Copies of the rows, shuffled. Dtypes are kept.

    Raises
    ------
    TypeError
        test_size is not a number, seed not an int, stratify not a bool, or x or y is masked.
    ValueError
        x and y differ in length; test_size leaves a part empty; with stratify: y is not one class a row, a class has
        only 1 member, or a part has fewer rows than there are classes.

    References
    ----------
    Largest remainders: M. L. Balinski & H. P. Young, Fair Representation (1982), there as the method of Hamilton.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data import train_test_split
    >>> x, y = np.arange(20).reshape(10, 2), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.5)
    >>> np.bincount(y_train), np.bincount(y_test)
    (array([3, 2]), array([3, 2]))
    """
    x, y = _array("x", x), _array("y", y)
    stratify, seed = switch("train_test_split: stratify", stratify), integer("train_test_split: seed", seed, 0)
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0:
            raise ValueError(f"train_test_split: {name} has no rows, it is a single value")
    if len(x) != len(y):
        raise ValueError(f"train_test_split: x has {len(x)} rows, y has {len(y)}")
    n_test = _count(test_size, len(y))
    rng = np.random.Generator(np.random.PCG64(seed))
    test = _stratified(y, n_test, rng) if stratify else rng.permutation(len(y))[:n_test]
    train = rng.permutation(np.setdiff1d(np.arange(len(y)), test))
    return x[train], x[test], y[train], y[test]


def _array(name: str, values: npt.ArrayLike) -> Array:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"train_test_split: {name} is a MaskedArray, wanted an array without a mask")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"train_test_split: {name} cannot be read as an array: {error}") from None


def _count(test_size: float | int, n: int) -> int:
    """Return the number of test rows."""
    if isinstance(test_size, bool) or not isinstance(test_size, (int, float, np.integer, np.floating)):
        raise TypeError(f"train_test_split: test_size is a {type(test_size).__name__}, wanted a float or an int")
    if isinstance(test_size, (int, np.integer)):
        if not 1 <= test_size < n:
            raise ValueError(f"train_test_split: test_size is {test_size}, wanted 1 to {n - 1} of {n} rows")
        return int(test_size)
    if not 0.0 < test_size < 1.0:
        raise ValueError(f"train_test_split: test_size is {test_size}, wanted a fraction between 0 and 1, or an int")
    # 0.07 * 100 is 7.000000000000001: without round() it would be 8 rows.
    n_test = math.ceil(round(float(test_size) * n, 6))
    if not 1 <= n_test < n:
        raise ValueError(f"train_test_split: test_size {test_size} of {n} rows leaves one part empty")
    return n_test


def _stratified(y: Array, n_test: int, rng: "np.random.Generator") -> npt.NDArray[np.intp]:
    """Return the rows of the test part, shuffled."""
    if y.ndim != 1:
        raise ValueError(f"train_test_split: y has shape {y.shape}, stratify=True wants one class a row")
    try:
        classes, class_of_row, members = np.unique(y, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise TypeError(f"train_test_split: y holds classes that cannot be sorted: {error}") from None
    for label in classes[members == 1][:1]:
        raise ValueError(f"train_test_split: class {label} has 1 member, stratify=True wants 2 or more of each")
    for part, rows in (("test", n_test), ("training", len(y) - n_test)):
        if rows < len(classes):
            raise ValueError(
                f"train_test_split: the {part} part has {rows} row{'s' * (rows != 1)}, fewer than the {len(classes)} classes"
            )

    # Whole numbers throughout, so that the quotas and their order are exact.
    quotas, remainders = np.divmod(n_test * members.astype(np.int64), len(y))
    missing = n_test - int(quotas.sum())
    # A stable sort: of equal remainders, the first class goes first.
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    drawn = [rng.permutation(np.flatnonzero(class_of_row == c))[:quota] for c, quota in enumerate(quotas)]
    return rng.permutation(np.concatenate(drawn))
