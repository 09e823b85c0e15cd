"""Products as a dense layer has them, forward and backward, against the peers. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.dense import KINDS, SHAPES, TITLE, kind_list, make_cases, shape_list
from trainstep.bench.harness import available_cpus

PEERS = ("trainstep", "numpy", "torch_eager")

if __name__ == "__main__":
    threads = sorted({1, available_cpus()})
    parser = argument_parser("Time a dense layer's products against the peers.", PEERS, threads)
    parser.add_argument("--shapes", type=shape_list, default=list(SHAPES), help=f"MxKxN; default: {','.join(SHAPES)}")
    parser.add_argument("--kinds", type=kind_list, default=list(KINDS), help=f"default: {','.join(KINDS)}")
    given, options = parse(parser)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(TITLE, "dense", make_cases(given.shapes, given.kinds, scratch), given, options))
