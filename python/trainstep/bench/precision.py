"""The precisions that trainstep has for products of float32 matrices: as options, as contenders, and what each of them gained."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from trainstep._core import matmul_precisions
from trainstep.bench.harness import BASELINE, ratio_of, ratio_text
from trainstep.bench.roofline import plural
from trainstep.bench.text import digits, markdown_table

PRECISIONS = matmul_precisions
FLOAT32 = "float32"  # which is measured always: what the others are held against


def precision_list(text: str) -> list[str]:
    """Check a comma-separated list of precisions."""
    for precision in text.split(","):
        if precision not in PRECISIONS:
            raise argparse.ArgumentTypeError(f"{precision!r} is not one of {', '.join(PRECISIONS)}")
    return text.split(",")


def summary(cases: Iterable[dict[str, Any]]) -> str:
    """Write a row per case and precision: its speed and error, and how much longer others take, the fastest of each kind."""
    rows = []
    for case in cases:
        timed = {r["peer"]: r for r in case["rows"] if r["status"] == "timed"}  # fastest first
        exact = [r for peer, r in timed.items() if ":" not in peer and peer != BASELINE]
        lower = [r for peer, r in timed.items() if ":" in peer and not peer.startswith(f"{BASELINE}:")]
        for precision in PRECISIONS:
            ours = timed.get(BASELINE if precision == FLOAT32 else f"{BASELINE}:{precision}")
            if ours:
                rows.append(
                    [
                        f"{case['name']}, {plural(case['threads'])}",
                        precision,
                        digits(ours["gflops"]),
                        f"{ours['loss_error']:.1e}",
                        fastest_over([timed[BASELINE]] if BASELINE in timed else [], ours),
                        fastest_over(exact, ours),
                        fastest_over(lower, ours),
                    ]
                )
    over = ("trainstep's float32", "the fastest peer in float32", "the fastest peer at a lower precision")
    titles = ["case", "precision", "GFLOP/s", "off float64", *(f"{of}: its time over ours (range)" for of in over)]
    return "\n".join(["## Precisions: summary", "", *markdown_table(titles, rows)]) + "\n"


def fastest_over(peers: Sequence[dict[str, Any]], ours: dict[str, Any]) -> str:
    """Write the time of the first of `peers`, which is the fastest, over ours; a dash where there is none."""
    if not peers:
        return "-"
    name = "" if peers[0]["peer"] == BASELINE else f"{peers[0]['peer']} "
    return name + ratio_text({"ratio": ratio_of(peers[0]["samples"], ours["samples"])})
