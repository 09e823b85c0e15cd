"""What training comes to in each precision of products: MNIST and a regression by six layers, some seeds each. See README.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trainstep as ts
from trainstep.bench.accuracy import digits, mnist, regression, report, run
from trainstep.bench.harness import write
from trainstep.bench.precision import PRECISIONS, precision_list

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist.npz"


def main() -> None:
    """Train, print and write the report."""
    parser = argparse.ArgumentParser(description="Train two networks in each precision, and compare what they come to.")
    parser.add_argument("--precision", type=precision_list, default=list(PRECISIONS), help=f"default: {','.join(PRECISIONS)}")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, 2... up to this number of them (default 3)")
    parser.add_argument("--threads", type=int, default=ts.get_num_threads(), help="default: all")
    parser.add_argument(
        "--mnist",
        type=Path,
        default=MNIST if MNIST.exists() else None,
        help="an .npz file of x_train, y_train, x_test, y_test; default: ../shared/data/mnist.npz, and digits if it is not there",
    )
    parser.add_argument("--json", type=Path, help="write the figures of all runs to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    parser.add_argument("--quick", action="store_true", help="an epoch of the digits, two of few rows: to try things out")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds is {given.seeds}, expected at least 1")
    if not 1 <= given.threads <= 4096:
        parser.error(f"--threads is {given.threads}, expected 1 to 4096")
    if given.mnist and not given.mnist.exists():
        parser.error(f"--mnist: there is no {given.mnist}")
    if given.quick:
        problems = [digits(epochs=1), regression(rows=1000, epochs=2)]
    else:
        problems = [mnist(given.mnist) if given.mnist else digits(), regression()]
    with ts.num_threads(given.threads):
        data = run(problems, given.precision, range(given.seeds))
    write(data, report(data), given.json, given.markdown)


if __name__ == "__main__":
    sys.exit(main())
