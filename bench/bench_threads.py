"""What threads cost and bring: one product on 1 and on all threads, hot and after pauses of idling.

The team's workers spin for some milliseconds after a parallel region and then sleep; this prints what the next call pays.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import trainstep as ts

WIDTHS = (16, 32, 64, 128, 256, 512)
PAUSES_MS = (0, 1, 5, 10, 20, 100)


def seconds_per_call(n: int, pause_ms: float, calls: int) -> float:
    """Return the median seconds of a product of n x n matrices after a pause."""
    x = np.ones((n, n), np.float32)
    y = np.empty_like(x)
    times = []
    for _ in range(calls):
        if pause_ms:
            time.sleep(pause_ms / 1000)
        start = time.perf_counter()
        ts.ops.dense(x, x, out=y)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one table: rows are widths, columns are pauses, cells are microseconds on 1 and on all threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=ts.get_num_threads(), help="default: all")
    threads = parser.parse_args().threads
    print(f"us per call, 1 thread / {threads} threads; product of n x n matrices, float32, {ts.config()['isa']}\n")
    print("| n | " + " | ".join(f"{p} ms idle" if p else "hot" for p in PAUSES_MS) + " |")
    print("|---:|" + "---:|" * len(PAUSES_MS))
    for n in WIDTHS:
        cells = []
        for pause in PAUSES_MS:
            calls = 20 if pause else max(20, int(4e8 / (2 * n**3 + 1e5)))
            both = []
            for count in (1, threads):
                with ts.num_threads(count):
                    both.append(seconds_per_call(n, pause, calls) * 1e6)
            cells.append(f"{both[0]:.1f} / {both[1]:.1f}")
        print(f"| {n} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
