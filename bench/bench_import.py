"""The time that ``import trainstep`` takes after ``import numpy``, in fresh interpreters, and numpy's own beside it.

``python bench/bench_import.py``, from the environment that the package is installed in.
"""

import statistics
import subprocess
import sys

CODE = """
from time import perf_counter
start = perf_counter()
import numpy
middle = perf_counter()
import trainstep
print(middle - start, perf_counter() - middle)
"""
RUNS = 31


def main() -> None:
    runs = []
    for _ in range(RUNS + 1):  # the first reads the disk
        result = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
        runs.append([1e3 * float(seconds) for seconds in result.stdout.split()])
    for name, times in zip(("numpy", "trainstep, beyond numpy"), zip(*runs[1:], strict=True), strict=True):
        print(f"{name}: {statistics.median(times):.1f} ms, median of {RUNS} ({min(times):.1f} to {max(times):.1f})")


if __name__ == "__main__":
    main()
