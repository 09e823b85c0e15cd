"""Matrix products as a dense layer has them, x (M, K) @ w (K, N) in float32, against NumPy's BLAS. See README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness import Case, argument_parser, main, parse
from peers.base import DenseProblem

PEERS = ("trainstep", "numpy")
SHAPES = ("32x64x64", "64x64x10", "64x64x64", "64x784x128", "128x512x512", "512x512x512", "1024x1024x1024", "2048x2048x2048")
SEED = 2024


def make_case(shape: str, folder: str) -> Case:
    """Turn "MxKxN" into a case; the reference is the product in float64."""
    m, k, n = (int(extent) for extent in shape.split("x"))
    rng = np.random.default_rng(SEED)
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    # The probe has the sign of the product, so that the sum does not cancel and rtol means what it says.
    probe = np.sign(exact).astype(np.float32)
    path = str(Path(folder) / f"{shape}.npz")
    DenseProblem(x, w, probe).save(path)
    total = float((exact * probe).sum())
    return Case(f"{m} x {k} @ {k} x {n}", path, 2.0 * m * k * n, [total], 1e-6, (total * (1 - 1e-6), total * (1 + 1e-6)))


def shape_list(text: str) -> list[str]:
    """Check a comma-separated list of shapes."""
    for shape in text.split(","):
        extents = shape.split("x")
        if len(extents) != 3 or not all(e.isdigit() and int(e) > 0 for e in extents):
            raise argparse.ArgumentTypeError(f"{shape!r} is not like 64x784x128 (M, K, N)")
    return text.split(",")


if __name__ == "__main__":
    parser = argument_parser("Time matrix products against NumPy.", PEERS)
    parser.add_argument("--shapes", type=shape_list, default=list(SHAPES), help=f"MxKxN; default: {','.join(SHAPES)}")
    arguments = parse(parser)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main("Matrix products", "dense", [make_case(shape, scratch) for shape in arguments.shapes], arguments))
