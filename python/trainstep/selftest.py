"""The self-test: every compiled kernel against the reference, on every ISA level of this machine, on one and on all threads."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from trainstep._runtime import config

__all__ = ["SelftestResult", "SelftestRow", "selftest"]

_CHILD = """
import sys
sys.path[:] = sys.argv[1:]  # what this process imports is what is tested
import json
from trainstep._kernel_checks import run_checks
print(json.dumps([vars(row) for row in run_checks()]))
"""
_PATIENCE = 600  # seconds that one level may take before it counts as hung


@dataclass(frozen=True)
class SelftestRow:
    """What was found of one kernel, on one ISA level, in one dtype.

    Parameters
    ----------
    kernel, isa, dtype : str
        What was run.
    unit : str
        What the error is measured in: ULP of the exact value, or float epsilons of what is named.
    error, bound : float
        The largest error among all elements of all cases, and the largest that is right. Infinity where a result is of another
        kind (NaN, another shape, another sign of zero), or where a case could not run.
    same_bits : bool
        Whether one thread and all threads gave the same bits.
    threads : int
        How many all threads are.
    cases : int
        How many calls were compared.
    where : str
        The case with the largest error, or what was raised.

    Examples
    --------
    >>> from trainstep.selftest import SelftestRow
    >>> row = SelftestRow("exp", "avx2", "float32", "ULP", 2.5, 2, True, 8, 71, "7 elements")
    >>> row.ok
    False
    >>> print(row)
    exp on avx2, float32: 2.5 ULP, bound 2 (7 elements)
    """

    kernel: str
    isa: str
    dtype: str
    unit: str
    error: float
    bound: float
    same_bits: bool
    threads: int
    cases: int
    where: str

    @property
    def ok(self) -> bool:
        """Whether the kernel does what it should."""
        return self.same_bits and self.error <= self.bound

    def __str__(self) -> str:
        what = f"{self.kernel} on {self.isa}, {self.dtype}"
        if not self.same_bits:
            return f"{what}: other bits on {self.threads} threads than on 1 ({self.where})"
        return f"{what}: {self.error:.4g} {self.unit}, bound {self.bound:g} ({self.where})"


@dataclass(frozen=True)
class SelftestResult:
    """What `selftest` found; its ``str()`` is a table.

    Parameters
    ----------
    rows : tuple of SelftestRow
        One for each kernel, ISA level and dtype.
    seconds : float
        How long it took.

    Examples
    --------
    >>> from trainstep.selftest import SelftestResult, SelftestRow
    >>> result = SelftestResult((SelftestRow("exp", "avx2", "float32", "ULP", 0.8, 2, True, 8, 71, "7 elements"),), 0.25)
    >>> result.ok
    True
    >>> print(result)
                            avx2
    kernel  unit  bound  float32
    exp     ULP       2     0.80
    <BLANKLINE>
    1 checks of 71 calls, each on 1 and on 8 threads, in 0.2 s: all passed
    """

    rows: tuple[SelftestRow, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every row is."""
        return not self.failures

    @property
    def failures(self) -> tuple[SelftestRow, ...]:
        """The rows that are not ok."""
        return tuple(row for row in self.rows if not row.ok)

    def __str__(self) -> str:
        columns = list(dict.fromkeys((row.isa, row.dtype) for row in self.rows))
        kernels: dict[str, dict[tuple[str, str], SelftestRow]] = {}
        for row in self.rows:
            kernels.setdefault(row.kernel, {})[row.isa, row.dtype] = row
        lines = [["", "", "", *(isa for isa, _ in columns)], ["kernel", "unit", "bound", *(dtype for _, dtype in columns)]]
        for kernel, cells in kernels.items():
            some = next(iter(cells.values()))
            bounds = dict.fromkeys(f"{row.bound:g}" for row in cells.values())
            lines.append([kernel, some.unit, " / ".join(bounds), *(_cell(cells.get(column)) for column in columns)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join([f"{line[0]:<{widths[0]}}", f"{line[1]:<{widths[1]}}", *_right(line[2:], widths[2:])]) for line in lines]
        cases, threads = sum(row.cases for row in self.rows), max((row.threads for row in self.rows), default=1)
        summary = f"{len(self.rows)} checks of {cases:,} calls, each on 1 and on {threads} threads, in {self.seconds:.1f} s: "
        failures = [f"FAILED: {row}" for row in self.failures]
        return "\n".join([*table, "", *failures, summary + (f"{len(failures)} failed" if failures else "all passed")])


def _cell(row: SelftestRow | None) -> str:
    if row is None:
        return ""
    return f"{row.error:.2f}" if row.ok else ("bits!" if not row.same_bits else f"{row.error:.3g}!")


def _right(line: list[str], widths: list[int]) -> list[str]:
    return [f"{text:>{width}}" for text, width in zip(line, widths, strict=True)]


def selftest(isa: Sequence[str] | None = None) -> SelftestResult:
    """Hold every compiled kernel to the NumPy reference, on this machine.

    Every function, activation, loss and optimizer that the core has, dense layers, random numbers and training steps, in float32
    and float64; on every ISA level, each in a process of its own; on one thread and on all, which must give the same bits.

    Parameters
    ----------
    isa : sequence of str, optional
        ISA levels. Default: all that this CPU supports.

    Returns
    -------
    result : SelftestResult
        ``result.ok`` says whether all is well, ``result.rows`` holds the errors, ``print(result)`` shows them as a table.

    Raises
    ------
    ValueError
        Where a level is not one that this CPU supports.

    Examples
    --------
    >>> import trainstep as ts
    >>> result = ts.selftest(["generic"])  # doctest: +SKIP
    >>> result.ok  # doctest: +SKIP
    True
    """
    supported = config()["isa_supported"]
    levels = supported if isa is None else [isa] if isinstance(isa, str) else list(isa)
    for level in levels:
        if level not in supported:
            raise ValueError(f"selftest: isa is {level!r}, expected levels among {', '.join(supported)}")
    start = time.perf_counter()
    rows = [row for level in levels for row in _run_level(level)]
    return SelftestResult(tuple(rows), time.perf_counter() - start)


def _run_level(level: str) -> list[SelftestRow]:
    """Return the rows of a level, from a new process: a process chooses its level when it imports the core."""
    import json
    import subprocess

    threads = config()["num_threads"]
    environment = {**os.environ, "TRAINSTEP_ISA": level, "TRAINSTEP_NUM_THREADS": str(threads)}
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, *sys.path],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if child.returncode == 0:
            return [SelftestRow(**row) for row in json.loads(child.stdout.splitlines()[-1])]
        last_words = child.stderr.strip().splitlines()[-1:] or [""]
        reason = f"exit status {child.returncode}: {last_words[0]}"
    except subprocess.TimeoutExpired:
        reason = f"no answer after {_PATIENCE} s"
    return [SelftestRow("process", level, "", "", float("inf"), 0, True, threads, 0, reason)]
