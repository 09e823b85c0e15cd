"""What this machine can do at most, measured by the probes of the compiled core: the roofline that rows are held against.

Flops and bytes per second, seconds; a multiply-add counts as two flops, a byte counts once when it is loaded and once when it is
stored. ``python -m trainstep.bench.roofline`` prints the multiply-adds of one ISA level, and is how `measure` gets the others'.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainstep import _core, config, num_threads
from trainstep.bench.text import digits, markdown_table, size

SMALLEST = 1 << 14  # bytes of the smallest working set: below, a pass is over in some tens of nanoseconds
LARGEST = 1 << 30  # of the working set that stands for memory
ASSUMED_CACHES = {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 25}  # where the system does not tell
ROUND_TRIPS = 20  # samples of the core to core probe: some milliseconds


def caches() -> dict[str, int]:
    """Return the bytes of the data caches of the first CPU, by level; assumed where the system does not tell."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            text = (folder / "size").read_text().strip()
            found[f"L{(folder / 'level').read_text().strip()}"] = int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1], 0)
    return found or dict(ASSUMED_CACHES)


def working_sets(known: dict[str, int], threads: int) -> dict[str, int]:
    """Return a working set for each level: half of a private cache for each thread, half of the last one, four times it."""
    *private, last = known.values()
    sets = {name: n // 2 * threads for name, n in zip(known, private, strict=False)}
    return sets | {list(known)[-1]: last // 2, "memory": min(4 * last, LARGEST)}


def spread(rates: Sequence[float]) -> dict[str, float]:
    """Keep the best sample, which is the roof, and the median, which tells how steady the machine is."""
    return {"best": max(rates), "median": float(np.median(rates))}


def fma(threads: Sequence[int], quick: bool = False) -> list[dict[str, Any]]:
    """Measure multiply-adds on this process's ISA level."""
    seconds, samples = (0.002, 3) if quick else (0.005, 10)
    rows = []
    for count in threads:
        for dtype in ("float32", "float64"):
            with num_threads(count):
                rates = _core.fma_probe(dtype, seconds, samples)
            rows.append({"isa": config()["isa"], "threads": count, "dtype": dtype} | spread(rates))
    return rows


def fma_of_level(isa: str, threads: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """Measure multiply-adds on one ISA level, in a process of its own: the level is chosen once, at import."""
    command = [sys.executable, "-m", "trainstep.bench.roofline", *map(str, threads), *(["--quick"] if quick else [])]
    environment = os.environ | {"TRAINSTEP_ISA": isa}
    rows: list[dict[str, Any]] = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    return rows


def bandwidth(threads: Sequence[int], quick: bool = False) -> list[dict[str, Any]]:
    """Measure loads and stores by working set and mix: powers of two up to four times the last cache, and a set for each level."""
    seconds, samples = (0.001, 2) if quick else (0.003, 7)
    known = caches()
    end = max(working_sets(known, max(threads)).values()).bit_length()
    powers = [] if quick else [1 << k for k in range(SMALLEST.bit_length() - 1, end)]
    rows = []
    for count in threads:
        for bytes_ in sorted({*powers, *working_sets(known, count).values()}):
            for stream in _core.streams:
                with num_threads(count):
                    rates = _core.stream_probe(stream, bytes_, seconds, samples)
                rows.append({"stream": stream, "bytes": bytes_, "threads": count} | spread(rates))
    return rows


def bare_loop(stream: str, bytes_: float, threads: int) -> list[float]:
    """Measure one mix at one working set: bytes per second, a few samples."""
    with num_threads(threads):
        return _core.stream_probe(stream, bytes_, 0.003, 3)


def round_trip() -> float | None:
    """Return the median seconds that a cache line takes from one core to another and back; None where there is one thread."""
    with num_threads(max(2, _core.get_num_threads())):
        samples = _core.round_trip_probe(ROUND_TRIPS)
    return float(np.median(samples)) if samples else None


def measure(threads: Sequence[int], quick: bool = False) -> dict[str, Any]:
    """Measure the roofline for each number of threads; some seconds, or one with `quick`."""
    return {
        "fma": [row for isa in config()["isa_supported"] for row in fma_of_level(isa, threads, quick)],
        "bandwidth": bandwidth(threads, quick),
        "caches": caches(),
        "round_trip_seconds": round_trip() if max(threads) > 1 else None,
    }


def fma_peak(roofline: dict[str, Any], threads: int, dtype: str = "float32") -> float:
    """Return the flops per second of the best ISA level."""
    return float(max(row["best"] for row in roofline["fma"] if (row["threads"], row["dtype"]) == (threads, dtype)))


def stream_peak(roofline: dict[str, Any], stream: str, bytes_: float, threads: int) -> float:
    """Return the bytes per second of a mix at the measured working set that is nearest in ratio."""
    rows = [row for row in roofline["bandwidth"] if (row["stream"], row["threads"]) == (stream, threads)]
    nearest = min(rows, key=lambda row: abs(math.log(row["bytes"] / max(bytes_, 1))))
    return float(nearest["best"])


def share(roofline: dict[str, Any], seconds: float, work: dict[str, Any], threads: int) -> dict[str, Any]:
    """Hold a measured time against the roofline.

    work: its flops; the bytes it must at least move, the mix (stream) that this is most like, and its working set. The bound is
    what would take longer at full speed, and the share is that time over the measured one. Where a bare loop of the same mix and
    working set was timed beside it, its median is the full speed of the memory.
    """
    peak, beside = fma_peak(roofline, threads), work.get("bare_loop_rates")
    rate = float(np.median(beside)) if beside else stream_peak(roofline, work["stream"], work["working_set"], threads)
    compute, memory = work["flops"] / peak / seconds, work["bytes"] / rate / seconds
    bound = "fma" if compute >= memory else "memory"
    return {
        "bound": bound,
        "share": max(compute, memory),
        "fma_share": compute,
        "memory_share": memory,
        "fma_peak": peak,
        "stream_peak": rate,
    }


def share_text(entry: dict[str, Any]) -> str:
    """Write a share with the roof that it is of."""
    of_fma = entry["bound"] == "fma"
    roof = f"{digits(entry['fma_peak'] / 1e9)} GFLOP/s" if of_fma else f"{digits(entry['stream_peak'] / 1e9)} GB/s"
    return f"{entry['share']:.0%} of {roof}"


def report(roofline: dict[str, Any]) -> str:
    """Write the roofline as Markdown: best sample, and the median in brackets where it is lower by a tenth or more."""
    threads = sorted({row["threads"] for row in roofline["fma"]})
    lines = ["## Roofline", "", "Multiply-adds in registers, GFLOP/s; best (median)", ""]
    levels = list(dict.fromkeys(row["isa"] for row in roofline["fma"]))
    titles = ["ISA level"] + [f"{dtype}, {plural(n)}" for dtype in ("float32", "float64") for n in threads]
    by_key = {(row["isa"], row["dtype"], row["threads"]): row for row in roofline["fma"]}
    rows = [[isa, *(best(by_key[isa, d, n]) for d in ("float32", "float64") for n in threads)] for isa in levels]
    lines += markdown_table(titles, rows)
    for n in threads:
        rates = {(row["stream"], row["bytes"]): row for row in roofline["bandwidth"] if row["threads"] == n}
        sets = working_sets(roofline["caches"], n)
        lines += ["", f"Loads and stores, GB/s, {plural(n)}; best (median)", ""]
        titles = ["working set", *_core.streams]
        lines += markdown_table(
            titles, [[f"{name}: {size(b)}", *(best(rates[s, b]) for s in _core.streams)] for name, b in sets.items()]
        )
    if roofline["round_trip_seconds"] is not None:
        lines += ["", f"Core to core and back: {roofline['round_trip_seconds'] * 1e9:.0f} ns for a cache line."]
    return "\n".join(lines) + "\n"


def plural(threads: int) -> str:
    """Write a number of threads."""
    return f"{threads} thread{'s' * (threads > 1)}"


def best(row: dict[str, Any]) -> str:
    """Write the best rate in 10^9 a second, and the median beside it where it says something."""
    text = digits(row["best"] / 1e9)
    return text if row["median"] > 0.9 * row["best"] else f"{text} ({digits(row['median'] / 1e9)})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the multiply-adds of one ISA level as JSON.")
    parser.add_argument("threads", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(fma(arguments.threads, arguments.quick)))
