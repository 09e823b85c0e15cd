"""Inference on one row, which shows what a call costs, and on many: the nets, the problem, the float64 reference."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case
from trainstep.bench.tasks import PredictProblem

TITLE = "Inference"
NETS = ("64-64-10:1", "64-64-10:10000", "784-128-10:1", "784-128-10:10000", "784-512-512-10:1", "784-512-512-10:10000")
SEED = 2024
RTOL = 1e-6


def parse(text: str) -> tuple[tuple[int, ...], int]:
    """Read widths and rows, written "784-128-10:1"; ValueError where they are none."""
    widths, _, rows = text.partition(":")
    numbers = [*widths.split("-"), rows]
    if len(numbers) < 3 or not all(n.isdigit() and int(n) > 0 for n in numbers):
        raise ValueError(f"{text!r} is not like 784-128-10:1 (widths, colon, rows)")
    return tuple(int(n) for n in numbers[:-1]), int(rows)


def net_list(text: str) -> list[str]:
    """Check a comma-separated list of nets and rows."""
    try:
        for net in text.split(","):
            parse(net)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.split(",")


def make_case(net: str, folder: Path) -> Case:
    """Turn a net and its rows into a case."""
    sizes, rows = parse(net)
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows, sizes[0]), np.float32)
    weights = [rng.standard_normal(s, np.float32) * np.float32(math.sqrt(2 / s[0])) for s in pairwise(sizes)]
    biases = [rng.standard_normal(n, np.float32) * np.float32(0.01) for n in sizes[1:]]
    z = x.astype(np.float64)
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = (np.maximum(z, 0) if i else z) @ w.astype(np.float64) + b.astype(np.float64)
    problem = PredictProblem(x, weights, biases, np.sign(z).astype(np.float32))
    path = str(folder / f"predict-{net.replace(':', '-')}.npz")
    problem.save(path)
    total = float(np.abs(z).sum())
    parameters, ends = sum((i + 1) * o for i, o in pairwise(sizes)), rows * (sizes[0] + sizes[-1])
    return Case(
        f"{'-'.join(map(str, sizes))}, {rows:,} row{'s' * (rows > 1)}",
        path,
        [total],
        RTOL,
        (total * (1 - RTOL), total * (1 + RTOL)),
        flops=sum(2.0 * rows * i * o for i, o in pairwise(sizes)),
        bytes=4.0 * (parameters + ends),
        stream="read",
        working_set=4.0 * (parameters + ends),
    )


def make_cases(nets: Sequence[str], folder: str) -> list[Case]:
    """Make the cases, with their files in `folder`."""
    return [make_case(net, Path(folder)) for net in nets]
