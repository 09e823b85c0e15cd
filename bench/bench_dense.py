"""Products as a dense layer has them, forward and backward, against the peers. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import add_precision, argument_parser, lower, main, parse
from trainstep.bench.dense import KINDS, SHAPES, SQUARES, TITLE, kind_list, make_cases, shape_list
from trainstep.bench.harness import available_cpus
from trainstep.bench.precision import summary

PEERS = ("trainstep", "numpy", "torch_eager")

if __name__ == "__main__":
    threads = sorted({1, available_cpus()})
    parser = argument_parser("Time a dense layer's products against the peers.", PEERS, threads)
    default = f"default: {','.join(SHAPES)}; where precisions are compared {','.join(SQUARES)}"
    parser.add_argument("--shapes", type=shape_list, help=f"MxKxN; {default}")
    parser.add_argument("--kinds", type=kind_list, default=list(KINDS), help=f"default: {','.join(KINDS)}")
    add_precision(parser)
    given, options = parse(parser)
    shapes = given.shapes or (SQUARES if lower(given) else SHAPES)
    with tempfile.TemporaryDirectory() as scratch:
        cases = make_cases(shapes, given.kinds, scratch, given.precision)
        sys.exit(main(TITLE, "dense", cases, given, options, summary if lower(given) else None))
