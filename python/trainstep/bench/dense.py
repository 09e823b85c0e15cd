"""Products as a dense layer has them, forward and backward, in float32: the shapes, the problem, the float64 reference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case
from trainstep.bench.tasks import DenseProblem

TITLE = "Products of a dense layer"
SHAPES = (
    "1x1024x1024",
    "32x64x64",
    "64x64x10",
    "64x64x64",
    "64x784x128",
    "128x512x512",
    "512x512x512",
    "1024x1024x1024",
    "2048x2048x2048",
)
# Products of each kind: see DenseProblem.
KINDS = {"forward": 1, "dw": 1, "dw_dx": 2}
SEED = 2024
RTOL = 1e-6


def make_case(shape: str, kind: str, folder: Path) -> Case:
    """Turn "MxKxN" and a kind into a case; the reference is in float64."""
    m, k, n = (int(extent) for extent in shape.split("x"))
    rng = np.random.default_rng(SEED)
    x, w, dy = (rng.standard_normal(s, np.float32) for s in ((m, k), (k, n), (m, n)))
    exact_x, exact_w, exact_dy = (a.astype(np.float64) for a in (x, w, dy))
    if kind == "forward":
        exact = [exact_x @ exact_w]
    else:
        exact = [exact_x.T @ exact_dy, exact_dy.sum(axis=0)] + ([exact_dy @ exact_w.T] if kind == "dw_dx" else [])
    # A probe has the sign of its result, so that the sum does not cancel and rtol means what it says.
    probes = [np.sign(e).astype(np.float32) for e in exact]
    path = str(folder / f"{kind}-{shape}.npz")
    DenseProblem(kind, x, w, dy, probes).save(path)
    total = sum(float((e * p).sum()) for e, p in zip(exact, probes, strict=True))
    inputs = {"forward": (x, w), "dw": (x, dy), "dw_dx": (x, w, dy)}[kind]
    read, written = 4.0 * sum(a.size for a in inputs), 4.0 * sum(e.size for e in exact)
    return Case(
        f"{m} x {k} @ {k} x {n}, {kind.replace('_', ' and ')}",
        path,
        [total],
        RTOL,
        (total * (1 - RTOL), total * (1 + RTOL)),
        flops=2.0 * m * k * n * KINDS[kind],
        bytes=read + written,
        stream="read" if read > written else "write",
        working_set=read + written,
    )


def make_cases(shapes: Sequence[str], kinds: Sequence[str], folder: str) -> list[Case]:
    """Make the cases, with their files in `folder`."""
    return [make_case(shape, kind, Path(folder)) for shape in shapes for kind in kinds]


def shape_list(text: str) -> list[str]:
    """Check a comma-separated list of shapes."""
    for shape in text.split(","):
        extents = shape.split("x")
        if len(extents) != 3 or not all(e.isdigit() and int(e) > 0 for e in extents):
            raise argparse.ArgumentTypeError(f"{shape!r} is not like 64x784x128 (M, K, N)")
    return text.split(",")


def kind_list(text: str) -> list[str]:
    """Check a comma-separated list of kinds."""
    for kind in text.split(","):
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not one of {', '.join(KINDS)}")
    return text.split(",")
