"""IDX files, whole and hostile, and labels as rows."""

import gzip
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainstep.data import load_idx, one_hot

from .helpers import output_of

pytestmark = pytest.mark.one_level

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"
CODES = {"uint8": (8, "B"), "int8": (9, "b"), "int16": (11, "h"), "int32": (12, "i"), "float32": (13, "f"), "float64": (14, "d")}


def idx_bytes(values: np.ndarray) -> bytes:
    """The format in the words of its description, number by number."""
    code, letter = CODES[values.dtype.name]
    head = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return head + struct.pack(f">{values.size}{letter}", *values.ravel().tolist())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (1, 2, 1, 2, 3), (0, 7), ()])
def test_an_array_comes_back(shape: tuple[int, ...], dtype: str, compressed: bool, tmp_path: Path) -> None:
    values = (np.random.default_rng(3).standard_normal(shape) * 50).astype(np.int8 if dtype == "uint8" else dtype).astype(dtype)
    path = tmp_path / "any.name"
    data = idx_bytes(values)
    path.write_bytes(gzip.compress(data) if compressed else data)
    got = load_idx(path)
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    assert got.shape == shape
    np.testing.assert_array_equal(got, values)
    np.testing.assert_array_equal(load_idx(str(path)), values)


def test_mnist_through_its_own_files(tmp_path: Path) -> None:
    if not MNIST.exists():
        pytest.skip("no copy of MNIST")
    with np.load(MNIST) as arrays:
        stored = {name: arrays[name] for name in arrays.files if len(arrays[name]) < 20_000}  # the test part
    assert stored
    for name, values in stored.items():
        values = values.astype(np.uint8)
        head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        path = tmp_path / f"{name}.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(head + values.tobytes())
        np.testing.assert_array_equal(load_idx(path), values)


GOOD = idx_bytes(np.arange(12, dtype=np.int16).reshape(3, 4))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing, expected an IDX file"),
        (b"\0\0\x08", "begins with 00 00 08, expected an IDX file"),
        (b"\x89PNG\r\n", "begins with 89 50 4e 47, expected an IDX file"),
        (b"\0\0\x0a\x01" + bytes(8), "begins with 00 00 0a 01"),
        (GOOD[:9], "ends within its 2 dimensions"),
        (GOOD[:12], r"promises 24 bytes of shape \(3, 4\), and holds 0 bytes"),
        (GOOD[:-1], "promises 24 bytes .* holds 23 bytes"),
        (GOOD + b"\0", r"promises 24 bytes .* holds more"),
        (b"\0\0\x08\xff" + b"\xff" * 1020, r"promises .* holds 0 bytes"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\7", "has 255 dimensions, which NumPy refuses"),
        (b"\0\0\x0e\4" + b"\0\0\0\0" + b"\xff" * 12, "which NumPy refuses"),
        (gzip.compress(GOOD)[:-9], "damaged gzip file"),
        (gzip.compress(GOOD)[:-8] + bytes(8), "damaged gzip file"),
        (gzip.compress(GOOD)[:12], "damaged gzip file"),
        (gzip.compress(GOOD) + b"rest", "damaged gzip file"),
        (gzip.compress(GOOD[:-2]), "promises 24 bytes .* holds 22 bytes"),
        (gzip.compress(GOOD + GOOD), "holds more"),
        (gzip.compress(b"no array"), "begins with 6e 6f 20 61"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"load_idx: {re.escape(str(path))} .*{words}|load_idx: .*{words}"):
        load_idx(path)


def test_paths() -> None:
    with pytest.raises(TypeError, match="load_idx: path is a int, expected a str or a path"):
        load_idx(3)  # type: ignore[arg-type]
    with pytest.raises(OSError):
        load_idx("no/such/file")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_an_array_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([GOOD, gzip.compress(GOOD, mtime=0)]))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged)
    try:
        load_idx(path)
    except ValueError as error:
        assert str(error).startswith("load_idx: ")  # noqa: PT017


LYING = r"""
import gzip, os, resource
import trainstep as ts
most = 0
path = os.path.join(os.environ["HERE"], "file")
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def lying(file):
    file.write(b"\0\0\x0e\3" + b"\x7f" * 12 + b"some")
def bomb(file):
    file.write(b"\0\0\x08\1\0\0\0\4")
    for _ in range(64):
        file.write(bytes(2**20))
for write, opened in ((lying, open), (lying, gzip.open), (bomb, gzip.open), (bomb, open)):
    with opened(path, "wb") as file:
        write(file)
    before = peak()
    try:
        ts.data.load_idx(path)
    except ValueError:
        continue
    finally:
        most = max(most, peak() - before)
    raise SystemExit("not refused")
print(most // 1024)
"""


def test_a_header_or_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    # In another process: the highest mark of this one is somebody else's.
    assert int(output_of(LYING, {"HERE": str(tmp_path)})) < 16  # MiB


# --- labels ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4", "list"])
def test_rows_of_labels(kind: str, dtype: np.dtype) -> None:
    labels = [3, 0, 1, 1, 4]
    y: Any = labels if kind == "list" else np.array(labels, kind)
    for classes, width in ((None, 5), (7, 7)):
        rows = one_hot(y, classes, dtype)
        assert rows.dtype == dtype
        assert rows.shape == (5, width)
        for i, label in enumerate(labels):
            assert [j for j in range(width) if rows[i, j] != 0] == [label]
            assert math.fsum(rows[i]) == 1.0
    np.testing.assert_array_equal(one_hot([], classes=3), np.empty((0, 3), np.float32))


@pytest.mark.parametrize(
    ("y", "options", "error", "words"),
    [
        ([0, -1], {}, ValueError, r"one_hot: y\[1\] is -1, expected 0 to 0"),
        ([0, 3], {"classes": 3}, ValueError, r"one_hot: y\[1\] is 3, expected 0 to 2"),
        (np.array([2**64 - 1], np.uint64), {"classes": 3}, ValueError, r"one_hot: y\[0\] is 18446744073709551615"),
        ([0.0, 1.0], {}, TypeError, "one_hot: y has dtype float64, expected integers"),
        ([True], {}, TypeError, "one_hot: y has dtype bool"),
        (["a"], {}, TypeError, "one_hot: y has dtype <U1"),
        ([[0], [1]], {}, ValueError, r"one_hot: y has shape \(2, 1\), expected \(n,\)"),
        (3, {}, ValueError, r"one_hot: y has shape \(\)"),
        ([], {}, ValueError, "one_hot: y is empty and classes is None"),
        ([0], {"classes": 0}, ValueError, "one_hot: classes is 0, expected at least 1"),
        ([0], {"classes": 2.0}, TypeError, "one_hot: classes is a float, expected an int"),
        ([0], {"dtype": "int8"}, TypeError, "one_hot: dtype is int8, expected float32 or float64"),
        (np.ma.array([0, 1]), {}, TypeError, "one_hot: y is a MaskedArray"),
    ],
)
def test_labels_that_are_refused(y: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        one_hot(y, **options)
