"""Every layer by itself, forward and backward, and every loss with its gradient, against the peers. See README.md."""

from __future__ import annotations

import os
import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.layers import LAYER_SHAPES, LOSS_SHAPES, NAMES, TITLE, make_cases, name_list, shape_list, summary

PEERS = ("trainstep", "torch_eager")
# glibc in every contender keeps what is freed, arrays of up to 32 MiB (the most that it takes). Else it depends on the order of a
# process's arrays whether a call fetches 4 MiB from the system page by page, 1,000 faults, or none.
KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}

if __name__ == "__main__":
    parser = argument_parser("Time every layer and loss by itself, forward and backward, against the peers.", PEERS)
    parser.add_argument("--layers", type=name_list, default=list(NAMES), help=f"layers and losses; default: {','.join(NAMES)}")
    shapes = f"rows x features; default: {','.join(LAYER_SHAPES)}, of losses {','.join(LOSS_SHAPES)}"
    parser.add_argument("--shapes", type=shape_list, default=[], help=shapes)
    given, options = parse(parser)
    os.environ |= KEEP_FREED | os.environ
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(TITLE, "layers", make_cases(given.layers, given.shapes, scratch), given, options, summary))
