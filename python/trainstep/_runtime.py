"""The machine side: which kernels run, and on how many threads."""

import os.path
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainstep import _core
from trainstep._checks import integer

MOST_THREADS = 4096


def config() -> dict[str, Any]:
    """Tell what this build is and how it runs here.

    Returns
    -------
    config : dict
        ``version``; ``isa``, the ISA level in use, and ``isa_reason``, why; ``isa_levels``, compiled, ``isa_supported``, of those
        that this CPU can run, and ``isa_base``, the level that each takes its kernels from, but for products of pieces in bfloat16;
        ``openmp``, whether several threads can be used, and ``num_threads``; ``matmul_precision``, see `set_matmul_precision`, and
        ``bf16_products``, what products of pieces are calculated with here; ``compiler`` and ``flags``, the compiler flags of each
        level.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.config()["isa"] in ts.config()["isa_supported"]
    True
    """
    return _core.config()


def show_config() -> None:
    """Print `config()`, a line each.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.show_config()  # doctest: +ELLIPSIS
    version           ...
    """
    values = config()
    flags = values.pop("flags")
    values["isa_base"] = [f"{level} on {base}" for level, base in values["isa_base"].items() if base != level]
    if not values["openmp"]:
        values["openmp"] = "no: built without OpenMP, one thread"
    for name, value in values.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{name:<17} {text}")
    for level, text in flags.items():
        print(f"flags {level:<11} {text or '(those of the platform)'}")


def get_matmul_precision() -> str:
    """Tell how the products of float32 matrices are calculated where a call, a model or a trainer does not say so.

    Returns
    -------
    precision : str
        What `set_matmul_precision` set, by its first name; "float32" where nobody did.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.get_matmul_precision()
    'float32'
    """
    return _core.get_matmul_precision()


def set_matmul_precision(precision: str) -> None:
    """Set how the products of float32 matrices are calculated where a call, a model or a trainer does not say so.

    A number in float32 is the sum of up to three pieces in bfloat16, which has fewer digits, and which many CPUs multiply faster.
    So a product can be calculated from the pieces. Weights, gradients, optimizer states and sums are float32 in all of them. What
    is left out of a product of two numbers is, relative to it, at most

    | ``float32``   nothing: the numbers as they are; also called ``"highest"``
    | ``bf16_x6``   2^-23, from three pieces of each and six products
    | ``bf16_x3``   3 * 2^-16, from two pieces of each and three products; also called ``"high"``
    | ``bf16``      2^-7, from one piece of each; also called ``"medium"``

    and then sums are rounded as in float32. `reference.matmul` is the definition of each.

    ``config()["bf16_products"]`` tells what they are calculated with. float32 arithmetic is exact and slower than float32's own
    products; AVX-512 BF16 and AMX take pieces below 2^-126 for 0, so that an infinity times such a number is NaN. float64 products
    are not touched by it.

    It holds for the whole process, and for what begins after it: each call of `ops` and each pass of a model over a batch. It is in
    no file: a run that must go on in the same bits says its precision to `Trainer` or `nn.Sequential`.

    Parameters
    ----------
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}
        The name.

    Raises
    ------
    TypeError
        Where precision is no str.
    ValueError
        Where it is none of these.

    References
    ----------
    Henry, Tang, Heinecke: Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations (ARITH 2019).

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.set_matmul_precision("high")
    >>> ts.get_matmul_precision()
    'bf16_x3'
    >>> ts.set_matmul_precision("float32")
    """
    _core.set_matmul_precision(precision)


def get_include() -> str:
    """Tell where the C header ``trainstep.h`` lies: what ``-I`` or ``include_dirs`` is given.

    The header has the optimizer steps for C, C++ and Cython, and documents them; `trainstep.cython_optim` can be cimported
    without it.

    Returns
    -------
    folder : str

    Examples
    --------
    >>> import pathlib
    >>> import trainstep as ts
    >>> (pathlib.Path(ts.get_include()) / "trainstep.h").is_file()
    True
    """
    return os.path.join(os.path.dirname(__file__), "include")


def get_num_threads() -> int:
    """Tell the most threads that a call may use; small work uses fewer.

    Returns
    -------
    n : int
        What `set_num_threads` set, else ``TRAINSTEP_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the number of CPUs in
        the process's affinity mask. A lower limit set by threadpoolctl holds.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Set the most threads that a call may use, for the whole process.

    Results do not depend on it: the same seed gives the same bits on any number of threads.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        Where n is no integer.
    ValueError
        Where n is not from 1 to 4096.

    Examples
    --------
    >>> import trainstep as ts
    >>> n = ts.get_num_threads()
    >>> ts.set_num_threads(1)
    >>> ts.get_num_threads()
    1
    >>> ts.set_num_threads(n)
    """
    _core.set_num_threads(integer("set_num_threads: n", n, 1, MOST_THREADS))


# What each running num_threads block goes back to, in the order in which they began.
_blocks: list[list[int]] = []
_blocks_lock = threading.Lock()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the most threads for the calls within a ``with`` block, for the whole process.

    Of blocks that run in several Python threads at once, the one that began last counts; when all have ended, what was set
    before them holds again.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        As `set_num_threads`.

    Examples
    --------
    >>> import trainstep as ts
    >>> with ts.num_threads(1):
    ...     ts.get_num_threads()
    1
    """
    n = integer("num_threads: n", n, 1, MOST_THREADS)
    with _blocks_lock:
        mine = [_core.set_num_threads(n)]  # as it was set, not as a limit from outside may have cut it
        _blocks.append(mine)
    try:
        yield
    finally:
        with _blocks_lock:
            at = next(i for i, block in enumerate(_blocks) if block is mine)
            later = _blocks[at + 1 :]
            if later:  # of another thread: it goes back to what this one would have
                later[0][:] = mine
            else:
                _core.set_num_threads(mine[0])
            del _blocks[at]
