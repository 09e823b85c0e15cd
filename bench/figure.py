"""Draws docs/train_step.png from what bench_train_step.py wrote: ``python bench/figure.py bench/results/train_step.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TARGET = Path(__file__).resolve().parent.parent / "docs" / "train_step.png"
OURS, THEIRS = "#D55E00", "#8FA3B0"


def draw_case(axes: Axes, case: dict[str, Any]) -> None:
    """Draw one net: a bar per contender, its time at the end, the fastest on top."""
    rows = [r for r in case["rows"] if r["status"] == "timed"][::-1]
    micros = [r["seconds"]["median"] * 1e6 for r in rows]
    colours = [OURS if r["peer"] == "trainstep" else THEIRS for r in rows]
    axes.barh([r["peer"].replace("_", " ") for r in rows], micros, color=colours)
    for i, value in enumerate(micros):
        axes.text(value, i, f" {value:,.1f} us" if value < 100 else f" {value:,.0f} us", va="center", fontsize=8)
    axes.set_title(case["name"], fontsize=10)
    axes.set_xscale("log")
    axes.set_xlim(min(micros) * 0.6, max(micros) * 4)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_visible(False)  # every bar carries its figure
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def main(path: str) -> None:
    """Read the figures and write the picture."""
    data = json.loads(Path(path).read_text())
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    threads = max(data["settings"]["threads"])
    cases = [case for case in data["cases"] if case["threads"] == threads]
    for axes, case in zip(figure.subplots(2, 2).flat, cases, strict=False):
        draw_case(axes, case)
    figure.supxlabel(f"time of one training step (log scale), {threads} threads, float32", fontsize=9)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1])
