"""Products as a dense layer has them, forward and backward, in float32: the shapes, the problem, the float64 reference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case, Variant
from trainstep.bench.precision import FLOAT32
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
# Where products in other precisions than float32 are compared.
SQUARES = tuple(f"{n}x{n}x{n}" for n in (256, 512, 1024, 2048, 4096))
SEED = 2024
# ||result - exact|| / ||exact|| of results in float32, and in the precisions of trainstep. NumPy's, MKL's and trainstep's float32
# products are off by 2e-7 to 4e-7, NumPy's sums down many rows by up to 1e-6; two pieces of bfloat16 by 4.4e-6, one by 2.3e-3, and
# where the result is bfloat16 too, as PyTorch's, by 2.9e-3.
LIMITS = {FLOAT32: 2e-6, "bf16_x6": 2e-6, "bf16_x3": 1e-5, "bf16": 5e-3}


def make_case(shape: str, kind: str, folder: Path, precisions: Sequence[str] = ()) -> Case:
    """Turn "MxKxN" and a kind into a case, with trainstep's other precisions as variants; the reference is in float64."""
    m, k, n = (int(extent) for extent in shape.split("x"))
    rng = np.random.default_rng(SEED)
    x, w, dy = (rng.standard_normal(s, np.float32) for s in ((m, k), (k, n), (m, n)))
    exact_x, exact_w, exact_dy = (a.astype(np.float64) for a in (x, w, dy))
    if kind == "forward":
        exact = [exact_x @ exact_w]
    else:
        exact = [exact_x.T @ exact_dy, exact_dy.sum(axis=0)] + ([exact_dy @ exact_w.T] if kind == "dw_dx" else [])
    path = str(folder / f"{kind}-{shape}.npz")
    DenseProblem(kind, x, w, dy, exact).save(path)
    inputs = {"forward": (x, w), "dw": (x, dy), "dw_dx": (x, w, dy)}[kind]
    read, written = 4.0 * sum(a.size for a in inputs), 4.0 * sum(e.size for e in exact)
    return Case(
        f"{m} x {k} @ {k} x {n}, {kind.replace('_', ' and ')}",
        path,
        [1.0],
        LIMITS[FLOAT32],
        (1.0, 1 + LIMITS[FLOAT32]),
        flops=2.0 * m * k * n * KINDS[kind],
        bytes=read + written,
        stream="read" if read > written else "write",
        working_set=read + written,
        variants=variants(precisions, read + written),
    )


def variants(precisions: Sequence[str], moved: float) -> dict[str, Variant]:
    """Name the contenders at lower precision; PyTorch's have operands and results that are bfloat16 already."""

    def variant(precision: str, bytes_: float) -> Variant:
        return Variant(LIMITS[precision], bytes_, (1.0, 1 + LIMITS[precision]))

    found = {f"trainstep:{p}": variant(p, moved) for p in precisions if p != FLOAT32}
    return found | ({"torch_eager:bf16": variant("bf16", moved / 2)} if "bf16" in precisions else {})


def make_cases(shapes: Sequence[str], kinds: Sequence[str], folder: str, precisions: Sequence[str] = ()) -> list[Case]:
    """Make the cases, with their files in `folder`."""
    return [make_case(shape, kind, Path(folder), precisions) for shape in shapes for kind in kinds]


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
