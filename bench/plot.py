"""Draws what a benchmark wrote: ``python bench/plot.py bench/results/train_step.json [--suffix svg]``.

NAME.png shows every contender's time over trainstep's, the line from the lowest block to the highest; NAME-roofline.png shows what
the machine can do at most, and where trainstep's rows lie under it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from trainstep.bench.roofline import fma_peak, plural, working_sets
from trainstep.bench.text import digits, size

BASELINE = "trainstep"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8B5A2B")  # the contenders' and the streams', told apart by all
OURS = "#D55E00"
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
BYTES = FuncFormatter(lambda value, _: size(value))


def ratios(data: dict[str, Any]) -> list[tuple[str, dict[str, tuple[float, float, float]]]]:
    """Return for each case or call: its name, and the median, lowest and highest ratio of each contender."""
    if data["benchmark"] == "calls":
        return [(row["name"], call_ratios(row["samples"])) for row in data["rows"] if len(row["samples"]) > 1]
    found = []
    for case in data["cases"]:
        rows = [r for r in case["rows"] if r["status"] == "timed" and r["ratio"] and r["peer"] != BASELINE]
        threads = f", {plural(case['threads'])}" if len(data["settings"]["threads"]) > 1 else ""
        found.append(
            (case["name"] + threads, {r["peer"]: tuple(r["ratio"][k] for k in ("median", "lowest", "highest")) for r in rows})
        )
    return found


def call_ratios(samples: dict[str, list[list[float]]]) -> dict[str, tuple[float, float, float]]:
    """Return the ratios block by block, as the harness does."""
    ours = np.median(samples[BASELINE], axis=1) if BASELINE in samples else np.array([])
    result = {}
    for peer, blocks in samples.items():
        if peer != BASELINE and len(blocks) == len(ours):
            each = np.median(blocks, axis=1) / ours
            result[peer] = (float(np.median(each)), float(each.min()), float(each.max()))
    return result


def draw_ratios(data: dict[str, Any]) -> Figure:
    """Draw a row per case, a dot with its range per contender; right of 1 trainstep is faster."""
    rows = [(name, of) for name, of in ratios(data) if of][::-1]
    timed = [peer for _, of in rows for peer in of]  # variants are not among the settings' peers
    peers = list(dict.fromkeys([peer for peer in data["settings"]["peers"] if peer in timed] + timed))
    step = 0.8 / max(len(peers), 1)
    figure = Figure(figsize=(9, 1.6 + len(rows) * (0.22 + 0.11 * len(peers))), layout="constrained")
    axes = figure.subplots()
    for i, peer in enumerate(peers):
        at = [(y + 0.4 - step * (i + 0.5), of[peer]) for y, (_, of) in enumerate(rows) if peer in of]
        again, colour = divmod(i, len(COLOURS))
        look = {"color": COLOURS[colour], "marker": "osD^"[again % 4], "linestyle": "none", "markersize": 5}
        axes.hlines([y for y, _ in at], [r[1] for _, r in at], [r[2] for _, r in at], color=COLOURS[colour], linewidth=1.5)
        axes.plot([r[0] for _, r in at], [y for y, _ in at], **look, label=peer.replace("_", " "))
    axes.axvline(1, color=OURS, linewidth=1.5, label=BASELINE)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    for y in range(len(rows) - 1):
        axes.axhline(y + 0.5, color="#EEEEEE", linewidth=0.8, zorder=0)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("time over trainstep's: median and range over blocks", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(peers) + 1, fontsize=8, frameon=False)
    return figure


def draw_roofline(data: dict[str, Any]) -> Figure:
    """Draw two panels per number of threads: rows under their roofs, and bandwidth by working set."""
    counts = data["settings"]["threads"]
    figure = Figure(figsize=(12.5, 0.6 + 4.2 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 2, squeeze=False)
    for (left, right), threads in zip(panels, counts, strict=True):
        draw_roofs(left, data, threads)
        draw_bandwidth(right, data["roofline"], threads)
    return figure


def draw_roofs(axes: Axes, data: dict[str, Any], threads: int) -> None:
    """Draw the multiply-adds' roof, that of each cache level, and trainstep's rows under them."""
    roof, peak = data["roofline"], fma_peak(data["roofline"], threads) / 1e9
    cases = [c for c in data.get("cases", []) if c["threads"] == threads and c["flops"]]
    points = [
        (c["flops"] / c["bytes"], r["gflops"], c["name"])
        for c in cases
        for r in c["rows"]
        if r["peer"] == BASELINE and "gflops" in r
    ]
    low = min([0.1, *(x / 2 for x, _, _ in points)])
    high = max([100, *(x * 2 for x, _, _ in points)])
    rates = {r["bytes"]: r["best"] / 1e9 for r in roof["bandwidth"] if (r["threads"], r["stream"]) == (threads, "read")}
    for (name, bytes_), colour in zip(working_sets(roof["caches"], threads).items(), COLOURS, strict=False):
        rate = rates[bytes_]
        corner = max(peak / rate, low)
        axes.plot([low, corner], [low * rate, corner * rate], color=colour, linewidth=1.2, label=f"{name}, {digits(rate)} GB/s")
    axes.plot([low, high], [peak, peak], color="black", linewidth=1.5, label=f"FMA, {digits(peak)} GFLOP/s")
    few = len(points) <= 20
    for i, (x, y, name) in enumerate(points, 1):
        axes.plot(x, y, "o", color=OURS, markersize=5, label=f"{i}: {name}" if few else (BASELINE if i == 1 else None))
    for x, y, numbers in grouped([(x, y) for x, y, _ in points]) if few else []:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
        axes.annotate(numbers, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8, bbox=box)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(top=2 * peak)
    axes.xaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlabel("flops per byte", fontsize=9)
    axes.set_ylabel("GFLOP/s", fontsize=9)
    axes.set_title(f"trainstep under the roofline, {plural(threads)}, float32", fontsize=10)
    finish(axes)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def grouped(points: list[tuple[float, float]]) -> list[tuple[float, float, str]]:
    """Number the points; those that lie so close that their numbers would overlap share a label."""
    labels: list[tuple[float, float, str]] = []
    for i, (x, y) in enumerate(points, 1):
        near = [k for k, (u, v, _) in enumerate(labels) if abs(np.log10(x / u)) < 0.15 and abs(np.log10(y / v)) < 0.1]
        if near:
            u, v, text = labels[near[0]]
            labels[near[0]] = (max(x, u), max(y, v), f"{text}, {i}")
        else:
            labels.append((x, y, str(i)))
    return labels


def draw_bandwidth(axes: Axes, roof: dict[str, Any], threads: int) -> None:
    """Draw each mix of loads and stores by working set, with the ends of the caches."""
    rows = [r for r in roof["bandwidth"] if r["threads"] == threads]
    for stream, colour in zip(dict.fromkeys(r["stream"] for r in rows), COLOURS, strict=False):
        line = [(r["bytes"], r["best"] / 1e9) for r in rows if r["stream"] == stream]
        axes.plot(*zip(*line, strict=True), "o-", color=colour, linewidth=1.2, markersize=3, label=stream)
    *private, last = roof["caches"].items()
    for name, end in [(name, n * threads) for name, n in private] + [last]:
        axes.axvline(end, color="#BBBBBB", linewidth=0.8, linestyle="--")
        axes.annotate(f"{name} ", (end, 1), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=8, color="#777777")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(BYTES)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlabel("working set of all threads", fontsize=9)
    axes.set_ylabel("GB/s", fontsize=9)
    axes.set_title(f"loads and stores, {plural(threads)}", fontsize=10)
    finish(axes)
    axes.legend(fontsize=7, ncols=2)


def finish(axes: Axes) -> None:
    """Set what both panels share."""
    axes.tick_params(labelsize=8)
    axes.grid(color="#EEEEEE", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--suffix", choices=("png", "svg"), default="png")
    arguments = parser.parse_args()
    for path in arguments.files:
        data = json.loads(path.read_text())
        pictures = {path.stem: draw_ratios(data), f"{path.stem}-roofline": draw_roofline(data)}
        for name, figure in pictures.items():
            figure.savefig(path.with_name(f"{name}.{arguments.suffix}"), dpi=130)


if __name__ == "__main__":
    main()
