"""What threads cost and bring: trainstep alone, on 1 and on all threads.

The first table: a product, hot and after pauses of idling. Workers look for work for some milliseconds after a parallel region and
then sleep; this shows what the next call pays. The others: products and training steps over widths and batch sizes, hot, on one
thread, on all threads, and as the cost model and the trials choose; each cell is the time as chosen over the better of the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import trainstep as ts
from trainstep import _core

IDLE_WIDTHS = (16, 32, 64, 128, 256, 512)
PAUSES_MS = (0, 1, 5, 10, 20, 100)
WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 4, 16, 64, 256, 1024)
ROUNDS = 9


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


def print_idling(threads: int) -> None:
    """Print microseconds of a product on 1 and on all threads: rows are widths, columns are pauses."""
    print(f"Product of n x n matrices, us a call, 1 thread / {threads} threads\n")
    print("| n | " + " | ".join(f"{p} ms idle" if p else "hot" for p in PAUSES_MS) + " |")
    print("|---:|" + "---:|" * len(PAUSES_MS))
    for n in IDLE_WIDTHS:
        cells = []
        for pause in PAUSES_MS:
            calls = 20 if pause else max(20, int(4e8 / (2 * n**3 + 1e5)))
            both = []
            for count in (1, threads):
                with ts.num_threads(count):
                    both.append(seconds_per_call(n, pause, calls) * 1e6)
            cells.append(f"{both[0]:.1f} / {both[1]:.1f}")
        print(f"| {n} | " + " | ".join(cells) + " |")


def choice_over_best(make: Callable[[], Callable[[], object]], threads: int) -> float:
    """Return the time of a call as chosen over that on 1 or on all threads, whichever is less: medians of alternating runs.

    Each way has an object of its own, so that what one has found out by trials does not guide another.
    """
    ways = {"alone": (1, False), "all": (threads, True), "chosen": (threads, False)}
    calls = {way: make() for way in ways}

    def run(way: str, count: int) -> float:
        most, always = ways[way]
        call = calls[way]
        with ts.num_threads(most):
            _core.share_always(always)
            start = time.perf_counter()
            for _ in range(count):
                call()
            taken = time.perf_counter() - start
            _core.share_always(False)
        return taken / count

    count = 1
    while run("alone", count) * count < 0.01:
        count *= 2
    for way in ways:
        run(way, 2 * count if count > 1 else 1)
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            run(way, max(1, count // 8))  # awake, and its data near
            samples[way].append(run(way, count))
    median = {way: statistics.median(times) for way, times in samples.items()}
    return median["chosen"] / min(median["alone"], median["all"])


def product_of(width: int, batch: int) -> Callable[[], Callable[[], object]]:
    """Return a maker of calls (batch, width) @ (width, width), all on the same arrays."""
    x, w, y = (np.ones(shape, np.float32) for shape in ((batch, width), (width, width), (batch, width)))
    return lambda: lambda: ts.ops.dense(x, w, out=y)


def step_of(width: int, batch: int) -> Callable[[], Callable[[], object]]:
    """Return a maker of training steps of a width-width-10 net."""

    def make() -> Callable[[], object]:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((batch, width)).astype(np.float32), rng.integers(0, 10, batch)
        trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(width, width, activation="relu"), ts.nn.Dense(width, 10), seed=0))
        return lambda: trainer.step(x, y)

    return make


def print_choices(title: str, task: Callable[[int, int], Callable[[], Callable[[], object]]], threads: int) -> None:
    """Print the choice's time over the best for every width and batch."""
    print(f"\n{title}: time as chosen over the better of 1 and {threads} threads\n")
    print("| width | " + " | ".join(f"batch {b}" for b in BATCHES) + " |")
    print("|---:|" + "---:|" * len(BATCHES))
    worst = (0.0, 0, 0)
    for width in WIDTHS:
        ratios = [choice_over_best(task(width, batch), threads) for batch in BATCHES]
        worst = max(worst, *((r, width, b) for r, b in zip(ratios, BATCHES, strict=True)))
        print(f"| {width} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |", flush=True)
    print("\nThe worst: {:.2f} at width {}, batch {}.".format(*worst))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=ts.get_num_threads(), help="default: all")
    parser.add_argument("--only", choices=("idling", "products", "steps"), help="this table alone")
    given = parser.parse_args()
    if not 1 <= given.threads <= 4096:
        parser.error(f"--threads is {given.threads}, expected 1 to 4096")
    print(f"float32, {ts.config()['isa']}\n")
    if given.only in (None, "idling"):
        print_idling(given.threads)
    if given.only in (None, "products"):
        print_choices("(batch, width) @ (width, width)", product_of, given.threads)
    if given.only in (None, "steps"):
        print_choices("A training step of width-width-10, Adam", step_of, given.threads)


if __name__ == "__main__":
    main()
