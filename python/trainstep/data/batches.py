"""Batches: the rows of arrays, memmaps or files, epoch by epoch in an order that is a function of (seed, epoch)."""

import math
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainstep import _core
from trainstep._checks import float_dtype, integer, switch
from trainstep.data.ahead import MOST_AHEAD, ahead
from trainstep.data.augment import Draws

Array = NDArray[Any]

LARGEST_BATCH = 2**48  # more rows than there is memory for
_LAST_EPOCH = 2**32 - 1  # of which the order is drawn from a counter of 32 bits


def batch_size(rows: int, size: int | str = "sqrt") -> int:
    """Give the rows of a batch, as ``batch_size`` of `Trainer.fit` and `Batches` does.

    "sqrt" is sqrt(rows), rounded: as many updates in an epoch as rows in a batch.

    Parameters
    ----------
    rows : int
        Rows of the data, at least 1.
    size : int or "sqrt", default "sqrt"
        An int of at least 1 is the result.

    Returns
    -------
    size : int

    Raises
    ------
    TypeError, ValueError
        Where an argument is neither, or out of its range.

    Examples
    --------
    >>> from trainstep.data import batch_size
    >>> batch_size(60_000), batch_size(60_000, 128)
    (245, 128)
    """
    return batch_rows("batch_size: size", size, integer("batch_size: rows", rows, 1))


def batch_rows(where: str, size: Any, rows: int) -> int:
    """Give the rows of a batch, checked: an int, or "sqrt" of the rows there are, rounded."""
    if isinstance(size, str):
        if size != "sqrt":
            raise ValueError(f"{where} is {size!r}, expected an int or 'sqrt'")
        return max(1, round(math.sqrt(rows)))
    return integer(where, size, 1, LARGEST_BATCH)


class Batches:
    """The rows of x and y in batches, once an epoch; a thread gathers the next ones meanwhile.

    order = permutation(rows, seed, epoch); batch i = rows order[i * batch_size : (i + 1) * batch_size]

    A loop over it is an epoch; `Trainer.fit` takes it in place of x and y. With the trainer's seed the batches are those that
    ``fit(x, y, batch_size=...)`` makes itself, and a run that was stopped in an epoch goes on at its next batch.

    Parameters
    ----------
    x : array or indexable, shape (rows, ...)
        Inputs: an array, a memmap, or what has a length and gives an array as ``x[index]`` for an array of int64, as datasets
        of HDF5 do. Of all but arrays in memory a batch's rows are asked for in ascending order, which is what a disk is fast at;
        the batch is the same.
    y : array or indexable, shape (rows, ...), optional
        Labels or targets. Default: none, batches are ``(x,)``.
    batch_size : int or "sqrt", default 32
        Rows in a batch; the last of an epoch may be smaller. "sqrt": see `trainstep.data.batch_size`.
    shuffle : bool, default True
        Whether each epoch takes the rows in an order of its own.
    drop_last : bool, default False
        Leave out a last batch that is smaller.
    sample_weight : array, shape (rows,), optional
        Weights of the rows, at least 0, of any real dtype: batches are ``(x, y, sample_weight)``.
    seed : int, default 0
        What orders and augmentations follow from.
    augment : sequence, optional
        Transforms of `data.augment`, or functions ``(x, y, draws) -> (x, y)`` of one's own, at most 256: called for each batch in
        this order, with an `augment.Draws` of the rows' random numbers. Each gives new arrays, of as many rows.
    prefetch : int, default 2
        How many batches a thread may make ahead. 0: no thread, and the same bits.
    dtype : dtype, optional
        float32 or float64, which batches of x are cast to, before they are augmented and after. Default: as they come.
    shape : tuple of int, optional
        (H, W) or (H, W, C): what transforms see the rows of an x with the shape (rows, features) as. They come out as rows again.

    Raises
    ------
    TypeError
        Where an argument is of another kind.
    ValueError
        Where x has no rows or other than y or sample_weight, there would be no batch, or a number is out of its range.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.1.3.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data import Batches
    >>> batches = Batches(np.arange(5), batch_size=2, seed=7)
    >>> len(batches), [x.tolist() for x, in batches], [x.tolist() for x, in batches]
    (3, [[0, 1], [3, 4], [2]], [[2, 1], [0, 4], [3]])
    >>> batches.epoch
    2
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | str = 32,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        sample_weight: Any = None,
        seed: int = 0,
        augment: Sequence[Any] | None = None,
        prefetch: int = 2,
        dtype: DTypeLike | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._x, self._y = _indexable("x", x), None if y is None else _indexable("y", y)
        self.rows = rows = len(self._x)
        if rows == 0:
            raise ValueError("Batches: x has no rows")
        if self._y is not None and len(self._y) != rows:
            raise ValueError(f"Batches: y has {len(self._y)} rows, x has {rows}")
        if isinstance(self._x, np.ndarray) and self._x.dtype.kind not in "biuf":
            raise TypeError(f"Batches: x has dtype {self._x.dtype}, expected a real dtype")
        self.batch_size = batch_rows("Batches: batch_size", batch_size, rows)
        self.shuffle, self.drop_last = switch("Batches: shuffle", shuffle), switch("Batches: drop_last", drop_last)
        if self.drop_last and rows < self.batch_size:
            raise ValueError(f"Batches: drop_last is True, expected False where x has {rows} rows, a batch {self.batch_size}")
        self._weight = None if sample_weight is None else _weights(sample_weight, rows)
        if self._weight is not None and y is None:
            raise ValueError("Batches: sample_weight is given, expected None where y is")
        self.seed = integer("Batches: seed", seed)
        self._augment = _transforms(augment)
        self.prefetch = integer("Batches: prefetch", prefetch, 0, MOST_AHEAD)
        self._dtype = None if dtype is None else float_dtype("Batches: dtype", dtype)
        self._shape = None if shape is None else self._image(shape)
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next loop draws, from 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next loop draws.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        TypeError, ValueError
            Where it is none.

        Examples
        --------
        >>> from trainstep.data import Batches
        >>> batches = Batches([1.0, 2.0, 3.0])
        >>> first = [x.tolist() for x, in batches]
        >>> batches.set_epoch(0)
        >>> [x.tolist() for x, in batches] == first
        True
        """
        self._epoch = integer("set_epoch: epoch", epoch, 0, _LAST_EPOCH)

    def __len__(self) -> int:
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.iterate(epoch)

    def iterate(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, ...]]:
        """Give the batches of an epoch, from one of them on; `epoch` stays.

        Parameters
        ----------
        epoch : int
            From 0.
        first : int, default 0
            The number of the first batch, from 0; where it is the length, there is none.

        Returns
        -------
        batches : iterator
            Whose thread, if it has one, starts with the first batch and ends with the loop over it.

        Raises
        ------
        TypeError, ValueError
            Where an argument is no int, or out of its range.

        Examples
        --------
        >>> from trainstep.data import Batches
        >>> batches = Batches([1.0, 2.0, 3.0], [0, 1, 2], batch_size=1, shuffle=False)
        >>> next(batches.iterate(epoch=5, first=2))
        (array([3.]), array([2]))
        """
        epoch = integer("iterate: epoch", epoch, 0, _LAST_EPOCH)
        first = integer("iterate: first", first, 0, len(self))
        return ahead(lambda: self._make(epoch, first), self.prefetch)

    def _make(self, epoch: int, first: int) -> Generator[tuple[Array, ...], None, None]:
        order = _core.permutation(self.rows, self.seed % 2**64, epoch) if self.shuffle else None
        for at in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            end = min(at + self.batch_size, self.rows)
            yield self._batch(np.arange(at, end, dtype=np.int64) if order is None else order[at:end], epoch)

    def _batch(self, samples: NDArray[np.int64], epoch: int) -> tuple[Array, ...]:
        x = _gather("x", self._x, samples)
        y = None if self._y is None else _gather("y", self._y, samples)
        if self._dtype is not None:
            x = x.astype(self._dtype, copy=False)
        if self._augment:
            x, y = self._augmented(x, y, samples, epoch)
        if y is None:
            return (x,)
        return (x, y) if self._weight is None else (x, y, self._weight[samples])

    def _augmented(self, x: Array, y: Array | None, samples: NDArray[np.int64], epoch: int) -> tuple[Array, Array | None]:
        if self._shape is not None:
            x = x.reshape(-1, *self._shape)
        for place, transform in enumerate(self._augment):
            x, y = transform(x, y, Draws(samples, self.seed, epoch, place))
            if len(x) != len(samples) or (y is not None and len(y) != len(samples)):
                raise ValueError(f"Batches: augment[{place}] gave other than the {len(samples)} rows that it got")
        if self._shape is not None:
            x = x.reshape(len(samples), -1)
        return (x if self._dtype is None else x.astype(self._dtype, copy=False)), y

    def _image(self, shape: Any) -> tuple[int, ...]:
        if not self._augment:
            raise ValueError("Batches: shape is given, expected None without augment")
        if not isinstance(shape, tuple | list) or len(shape) not in (2, 3):
            raise ValueError(f"Batches: shape is {shape!r}, expected (H, W) or (H, W, C)")
        image = tuple(integer(f"Batches: shape[{i}]", size, 1) for i, size in enumerate(shape))
        whole = getattr(self._x, "shape", None)
        if whole is not None and (len(whole) != 2 or whole[1] != math.prod(image)):
            raise ValueError(f"Batches: x has shape {tuple(whole)}, expected (rows, {math.prod(image)}) for shape {image}")
        return image

    def _identity(self) -> list[Any]:
        """Give what an epoch that was left can go on with: the same batches."""
        return ["batches", self.rows, self.batch_size, self.shuffle, self.drop_last, self.seed]


def _indexable(name: str, values: Any) -> Any:
    """Give what has a length and rows: as it is, where it reads them itself."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"Batches: {name} is a MaskedArray, expected an array without a mask")
    # Lists take no index of several rows, and those of pandas are not numbers of rows.
    in_memory = isinstance(values, list | tuple | range | array | memoryview) or hasattr(values, "iloc")
    if hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray):
        values = np.from_dlpack(values)
    elif in_memory:
        values = np.asarray(values)
    if isinstance(values, str | bytes | Mapping) or not (hasattr(values, "__getitem__") and hasattr(values, "__len__")):
        raise TypeError(f"Batches: {name} is a {type(values).__name__}, expected an array, or what gives one as {name}[index]")
    if getattr(values, "shape", None) == ():
        raise ValueError(f"Batches: {name} has no rows, it is a single value")
    return values


def _weights(values: Any, rows: int) -> Array:
    weights = np.asarray(values)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"Batches: sample_weight has dtype {weights.dtype}, expected a real dtype")
    if weights.shape != (rows,):
        raise ValueError(f"Batches: sample_weight has shape {weights.shape}, expected ({rows},)")
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        raise ValueError(f"Batches: sample_weight[{wrong[0]}] is {weights[wrong[0]]}, expected a finite number of at least 0")
    return weights


def _transforms(augment: Any) -> tuple[Any, ...]:
    if augment is None:
        return ()
    if not isinstance(augment, list | tuple):
        raise TypeError(f"Batches: augment is a {type(augment).__name__}, expected a list of transforms")
    if len(augment) > 256:
        raise ValueError(f"Batches: augment has {len(augment)} transforms, expected at most 256")
    for place, transform in enumerate(augment):
        if isinstance(transform, type) or not callable(transform):
            name = f"the class {transform.__name__}" if isinstance(transform, type) else f"a {type(transform).__name__}"
            raise TypeError(f"Batches: augment[{place}] is {name}, expected a transform of data.augment or a function")
    return tuple(augment)


def _gather(name: str, values: Any, samples: NDArray[np.int64]) -> Array:
    """Give rows as an array of its own."""
    if type(values) is np.ndarray and not _on_disk(values):
        return np.asarray(values[samples])
    ascending = np.argsort(samples)
    rows = np.asarray(values[samples[ascending]])
    if rows.shape[:1] != samples.shape:
        raise ValueError(f"Batches: {name}[index] has shape {rows.shape} for {len(samples)} rows")
    batch = np.empty_like(rows, subok=False)
    batch[ascending] = rows
    return batch


def _on_disk(values: Array) -> bool:
    """Whether an array is a view of a memmap."""
    base = values.base
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False
