"""IDX files: how MNIST and its kin store arrays."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trainstep._checks import path_text

# The third byte of the file, and the numbers that follow, with the most significant byte first.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_CHUNK = 2**20  # bytes that are asked for at once


def load_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST's images and labels.

    The file is two zero bytes, one for the dtype, one for the number of dimensions, each dimension in four bytes, and the numbers;
    all with the most significant byte first. It may be compressed with gzip, which its first bytes tell, whatever its name.

    No more is read than the header promises, and a byte to see that there is no more: memory is used for what is there,
    not for what a damaged or hostile header promises.

    Parameters
    ----------
    path : str or path
        The file, such as ``train-images-idx3-ubyte.gz``.

    Returns
    -------
    array : ndarray
        Of the file's shape and dtype: uint8, int8, int16, int32, float32 or float64, in the machine's byte order.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where it is no IDX file, is damaged, or holds fewer or more bytes than its header promises.

    References
    ----------
    Y. LeCun, C. Cortes & C. J. C. Burges: The MNIST database of handwritten digits (1998), "the IDX file format".

    Examples
    --------
    >>> import os, tempfile
    >>> from trainstep.data import load_idx
    >>> path = os.path.join(tempfile.mkdtemp(), "labels-idx1-ubyte")
    >>> with open(path, "wb") as file:
    ...     written = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    >>> load_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    name = path_text("load_idx: path", path)
    with open(name, "rb") as file:
        compressed = file.peek(2)[:2] == _GZIP
        if not compressed:
            return _read(name, file.read)
        import gzip  # where a file needs it: importing trainstep loads none of it
        import zlib

        try:
            with gzip.GzipFile(fileobj=file) as inside:
                return _read(name, inside.read)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"load_idx: {name} is a damaged gzip file: {error}") from None


def _read(name: str, read: Callable[[int], bytes]) -> npt.NDArray[Any]:
    head = _at_most(read, 4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise ValueError(f"load_idx: {name} begins with {bytes(head).hex(' ') or 'nothing'}, expected an IDX file")
    dtype, ndim = np.dtype(_DTYPES[head[2]]), head[3]
    sizes = _at_most(read, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"load_idx: {name} ends within its {ndim} dimensions")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    promised = math.prod(shape) * dtype.itemsize
    content = _at_most(read, promised + 1)
    if len(content) != promised:
        found = f"{len(content)} bytes" if len(content) < promised else "more"
        raise ValueError(f"load_idx: {name} promises {promised} bytes of shape {shape}, and holds {found}")
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:  # more dimensions than NumPy has, or beside one of 0 others that are too large
        raise ValueError(f"load_idx: {name} has {ndim} dimensions, which NumPy refuses: {error}") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def _at_most(read: Callable[[int], bytes], count: int) -> bytearray:
    """Read so many bytes, or as many as there are: memory grows with what has been read."""
    content = bytearray()
    while len(content) < count:
        chunk = read(min(_CHUNK, count - len(content)))
        if not chunk:
            break
        content += chunk
    return content
