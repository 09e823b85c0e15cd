"""What several test files share: error bounds, memory layouts, gradients by differences, networks, and fresh interpreters."""

import ctypes
import itertools
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import trainstep as ts
from trainstep.nn import Dense, Sequential

Array = NDArray[Any]


class Frame:
    """As a table of pandas: an index is by label, here another than the number of the row."""

    iloc = None

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.values

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError


def eps(dtype: DTypeLike) -> float:
    """The distance from 1 to the next number: one ULP of a number in [1, 2)."""
    return float(np.finfo(dtype).eps)


def normal(rng: np.random.Generator, dtype: DTypeLike, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def assert_same_bits(got: Array, expected: Array, what: object = "") -> None:
    assert got.dtype == expected.dtype, what
    assert got.shape == expected.shape, what
    assert got.tobytes() == expected.tobytes(), what


def assert_within(got: ArrayLike, expected: ArrayLike, bound: ArrayLike, what: object = "") -> None:
    """|got - expected| <= bound in every element; NaN and infinities must be the same."""
    got64, expected64 = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got64.shape == expected64.shape, what
    with np.errstate(all="ignore"):
        same = (got64 == expected64) | (np.isnan(got64) & np.isnan(expected64))
        near = np.abs(got64 - expected64) <= bound
    wrong = np.argwhere(~(same | (near & np.isfinite(expected64))))
    if len(wrong):
        at = tuple(wrong[0])
        limit = np.broadcast_to(np.asarray(bound), got64.shape)[at]
        raise AssertionError(
            f"{what}: {len(wrong)} of {got64.size} wrong, the first at {at}: {got64[at]!r}, expected {expected64[at]!r} "
            f"within {limit!r}"
        )


def numerical_gradient(f: Callable[[Array], float], x: Array, h: float = 1e-6) -> Array:
    """Central differences: (f(x + h) - f(x - h)) / 2h for each element."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (f(up) - f(down)) / (2 * h)
    return gradient


class Dlpack:
    """An object with the DLPack protocol and nothing else, as another library's tensor on the CPU."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._values.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()


class Bfloat16:
    """A tensor of bfloat16, which NumPy does not know, with the DLPack protocol and nothing else."""

    def __init__(self, values: ArrayLike) -> None:
        """Round float32 numbers to the nearest, ties to even."""
        words = np.array(values, np.float32).view(np.uint32)
        self.words = np.asarray((words + 0x7FFF + (words >> 16 & 1)) >> 16, np.uint16)
        nan = np.isnan(np.asarray(values))
        self.words[nan] = 0x7FC0

    @property
    def values(self) -> Array:
        return np.asarray(self.words.astype(np.uint32) << 16).view(np.float32)

    def __dlpack__(self, **_: Any) -> Any:
        # The capsule of the words holds a DLManagedTensor; the code of its dtype is made that of bfloat16.
        capsule = self.words.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address = pointer(capsule, b"dltensor")
        dtype_code = address + ctypes.sizeof(ctypes.c_void_p) + 3 * ctypes.sizeof(ctypes.c_int32)  # after data, device and ndim
        ctypes.c_uint8.from_address(dtype_code).value = 4
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def buffer(values: Array) -> memoryview:
    """A copy of the values in an object with the buffer protocol that NumPy did not make."""
    flat = array(values.dtype.char, values.ravel().tolist())
    return memoryview(flat).cast("B").cast(values.dtype.char, values.shape)


def layouts(values: Array) -> dict[str, Any]:
    """The same values in every other form that an input may come in."""
    wide = np.empty((*values.shape, 3), values.dtype)
    wide[..., 1] = values
    unaligned = np.empty(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    unaligned[...] = values
    reverse = (slice(None, None, -1),) * values.ndim
    return {
        "fortran": np.asfortranarray(values),
        "every third": wide[..., 1],
        "negative strides": values[reverse].copy()[reverse],
        "no stride": np.broadcast_to(values, (2, *values.shape))[1],
        "unaligned": unaligned,
        "read-only": _read_only(values),
        "dlpack": Dlpack(values),
        "buffer": buffer(values),
    }


def _read_only(values: Array) -> Array:
    result = values.copy()
    result.flags.writeable = False
    return result


def network(
    widths: tuple[int, ...], activation: str = "tanh", *, dtype: object = "float64", seed: int = 0, **layer: object
) -> Sequential:
    """A network with `activation` after every layer but the last."""
    last = len(widths) - 2
    layers = [
        Dense(i, o, activation=activation if k < last else None, **layer) for k, (i, o) in enumerate(itertools.pairwise(widths))
    ]
    return Sequential(*layers, dtype=dtype, seed=seed)


def classes(rows: int, features: int, count: int, dtype: object = "float32", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A table of `count` classes that can be told apart, but not without mistakes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, count, rows)
    return (rng.standard_normal((count, features))[y] + rng.standard_normal((rows, features))).astype(dtype), y


def bits(model: Sequential) -> bytes:
    return b"".join(v.tobytes() for v in model.parameters().values())


def state_bits(trainer: ts.Trainer) -> bytes:
    return b"".join(v.tobytes() for entry in trainer.optimizer.state for v in entry.values() if isinstance(v, np.ndarray))


@contextmanager
def untouched(*arrays: Any) -> Iterator[None]:
    """The block must leave every byte of the arrays as it was."""
    before = [a.tobytes() if isinstance(a, np.ndarray) else None for a in arrays]
    yield
    for i, (array_, bytes_) in enumerate(zip(arrays, before, strict=True)):
        assert bytes_ is None or array_.tobytes() == bytes_, f"array {i} of {len(arrays)} was written"


def run_python(
    code: str,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 60,
    cpus: set[int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with variables set (or unset: None) and bound to some CPUs."""
    environment = {k: v for k, v in {**os.environ, **(env or {})}.items() if v is not None}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
    )


def output_of(code: str, env: Mapping[str, str | None] | None = None, **kwargs: Any) -> str:
    """What the code prints; it must succeed and say nothing on stderr."""
    result = run_python(code, env, **kwargs)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()
