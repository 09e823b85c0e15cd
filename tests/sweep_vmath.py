"""All 2^32 float32 inputs, and samples of float64, of every function of csrc/kernels/vmath.h, on every ISA level of this CPU.

``python tests/sweep_vmath.py [--quick] [--level NAME] [--function NAME] [--jobs N] [--log FILE]``; ``make sweep`` runs all of it.

The reference is float64 (NumPy's functions, libm's erf), itself checked against long double first; for float64 it is long double.
A line says the largest error in ULP, where, and of how many inputs. Exit status 1 where it is not the error that the header states,
where a NaN or an infinity comes or stays away that should not, or where a zero has the wrong sign.
"""

import argparse
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from trainstep import _core
from trainstep._exact import LONG_IS_WIDER, vmath, wider, worst_ulp

HEADER = Path(__file__).parents[1] / "csrc/kernels/vmath.h"
LOG = Path("build/sweep_vmath.log")
UINT = {"float32": np.uint32, "float64": np.uint64}
BLOCK = 1 << 14  # inputs looked at in one go: few enough that what is made of them stays in L2
MAX_REFERENCE_ERROR = 1e-3  # of float64, in ULP of float32


@dataclass(frozen=True)
class Part:
    """Inputs of one function, as bits: start, start + step, ... below stop; each with `drawn` lower bits drawn at random."""

    name: str
    dtype: str
    start: int
    stop: int
    step: int = 1
    drawn: int = 0


@dataclass(frozen=True)
class Found:
    """The largest error among some inputs."""

    ulp: float = 0.0
    x: float = math.nan
    inputs: int = 0

    def __add__(self, other: "Found") -> "Found":
        worst = max(self, other, key=lambda found: found.ulp)
        return Found(worst.ulp, worst.x, self.inputs + other.inputs)


def stated(level: str) -> dict[tuple[str, str], float]:
    """The largest error that the header states for each function and dtype on this level."""
    pattern = (
        r"Max error: float ([\d.]+), double ([\d.]+) \(generic: ([\d.]+), ([\d.]+)\)\.\n"
        r"template <class T>\nTRAINSTEP_INLINE Vec<T> (\w+)_of\("
    )
    result = {}
    for single, double, generic_single, generic_double, name in re.findall(pattern, HEADER.read_text()):
        of_level = (generic_single, generic_double) if level == "generic" else (single, double)
        result |= {(name, dtype): float(text) for dtype, text in zip(UINT, of_level, strict=True)}
    return result


def parts(name: str, dtype: str, quick: bool) -> Iterator[Part]:
    """What is swept of a function."""
    if dtype == "float32":
        if not quick:
            yield from (Part(name, dtype, start, start + (1 << 26)) for start in range(0, 1 << 32, 1 << 26))
            return
        # A prime step, so that the low bits of the mantissa vary; then where formulas change over and results end.
        yield Part(name, dtype, 0, 1 << 32, 4093)
        edges = [0.0, 2.0**-126, 2.0**-25, 0.25, 0.3466, 0.5, 0.9, 1.0, 2.0, 3.95, 9.1, 17.33, 18.0, 87.34, 88.73, 103.98, np.inf]
        for edge in edges:
            for sign in (1, -1):
                at = int(np.float32(sign * edge).view(np.uint32))
                yield Part(name, dtype, max(at - 4096, 0), min(at + 4096, 1 << 32))
        return
    # All exponents of both signs; more inputs of those where the functions bend.
    for sign in (0, 1 << 63):
        for first, last, bits in ((-1023, 1025, 6), (-60, 10, 12)) if quick else ((-1023, 1025, 11), (-60, 10, 14), (-10, 8, 21)):
            for exponent in range(first, last, 1 << max(19 - bits, 0)):
                stop = min(exponent + (1 << max(19 - bits, 0)), last)
                yield Part(name, dtype, sign + (exponent + 1023 << 52), sign + (stop + 1023 << 52), 1 << (52 - bits), 52 - bits)


def sweep(part: Part) -> Found:
    """Run a part on the level of this process."""
    rng = np.random.default_rng(part.start)
    found = Found()
    for start in range(part.start, part.stop, BLOCK * part.step):
        count = len(range(start, min(start + BLOCK * part.step, part.stop), part.step))
        bits = np.arange(count, dtype=UINT[part.dtype]) * UINT[part.dtype](part.step) + UINT[part.dtype](start)
        if part.drawn:  # the first and the last of them as they are: powers of two and their neighbours
            bits[1:-1] |= rng.integers(0, 1 << part.drawn, count - 2, dtype=np.uint64)
            bits[-1] |= np.uint64((1 << part.drawn) - 1)
        x = bits.view(part.dtype)
        ulp, at = worst_ulp(_core.vmath(part.name, x), vmath(part.name, x, wider(x.dtype)))
        found += Found(ulp, float(x[at]), count)
    return found


def reference_error(name: str) -> float:
    """The largest error of the float64 reference, in ULP of float32, over 2^18 floats; NaN where there is nothing wider."""
    if not LONG_IS_WIDER:
        return math.nan
    x = np.arange(7, 1 << 32, 1 << 14, dtype=np.uint32).view(np.float32)
    exact, reference = (vmath(name, x, dtype) for dtype in (np.longdouble, np.float64))
    numbers = np.isfinite(exact) & np.isfinite(reference) & (np.abs(exact) < 2.0**128)
    info = np.finfo(np.float32)
    spacing = np.ldexp(1.0, np.maximum(np.frexp(reference[numbers])[1] - 1, int(info.minexp)) - int(info.nmant))
    return float((np.abs(exact[numbers] - reference[numbers]) / spacing).max())


def verdict(found: Found, bound: float, whole: bool) -> str:
    """What is wrong with the largest error, or nothing. The header's is the one of a whole sweep, rounded up to two digits."""
    if not found.ulp <= bound:
        return f"the header states {bound}"
    if whole and found.ulp <= bound - 0.01:
        return f"the header states {bound}, which is more than there is"
    return ""


def level_lines(level: str, functions: Iterable[str], quick: bool, run: Any) -> Iterable[tuple[str, bool]]:
    """One line per function and dtype, and whether it passes; `run` maps `sweep` over parts."""
    bounds = stated(level)
    for dtype in UINT:
        for name in functions:
            begin = time.perf_counter()
            found = sum(run(sweep, list(parts(name, dtype, quick))), Found())
            wrong = verdict(found, bounds[name, dtype], dtype == "float32" and not quick)
            text = f"{level:<8} {dtype:<8} {name:<8} {found.ulp:6.4f} ULP at x = {found.x!r:<24} {found.inputs:>13,} inputs"
            yield f"{text} {time.perf_counter() - begin:6.1f} s  {'FAILED: ' + wrong if wrong else 'ok'}", not wrong


def check_level(level: str) -> None:
    assert _core.config()["isa"] == level


def main(arguments: list[str] | None = None) -> int:
    """Sweep, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    supported = _core.config()["isa_supported"]
    parser.add_argument("--quick", action="store_true", help="every 4093rd float, the edges, and fewer doubles")
    parser.add_argument("--level", action="append", choices=supported, help="an ISA level (default: all that this CPU supports)")
    parser.add_argument("--function", action="append", choices=_core.vmath_functions, help="a function (default: all)")
    parser.add_argument("--jobs", type=int, default=_core.get_num_threads(), help="processes (default: one per CPU)")
    parser.add_argument("--log", type=Path, default=LOG, help=f"file that the lines are written to (default: {LOG})")
    options = parser.parse_args(arguments)
    functions = options.function or _core.vmath_functions
    options.log.parent.mkdir(parents=True, exist_ok=True)
    passed = True
    with options.log.open("w") as log:

        def say(line: str) -> None:
            for file in (sys.stdout, log):
                print(line, file=file, flush=True)

        say(f"trainstep {_core.__version__}, {_core.config()['compiler']}, NumPy {np.__version__}, {platform.platform()}")
        for name in functions:
            error = reference_error(name)
            passed &= not error > MAX_REFERENCE_ERROR
            say(f"reference         {name:<8} {error:.1e} ULP of float32 (float64 against long double, 262,144 inputs)")
        for level in options.level or supported:
            # A level is chosen at import, so each has processes of its own.
            os.environ |= {"TRAINSTEP_ISA": level, "TRAINSTEP_NUM_THREADS": "1"}
            with ProcessPoolExecutor(options.jobs, get_context("spawn"), check_level, (level,)) as pool:
                for line, ok in level_lines(level, functions, options.quick, pool.map):
                    say(line)
                    passed &= ok
        say("all passed" if passed else "FAILED")
    return int(not passed)


if __name__ == "__main__":
    raise SystemExit(main())
