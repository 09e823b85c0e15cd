"""One step of an optimizer against the peers, from arrays that fit the first cache to some that fit none. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.optimizers import CASES, TITLE, case_list, make_cases

PEERS = ("trainstep", "numpy", "torch_eager", "deepspeed", "jax")

if __name__ == "__main__":
    parser = argument_parser("Time one step of an optimizer against the peers.", PEERS)
    parser.add_argument("--cases", type=case_list, default=list(CASES), help=f"default: {','.join(CASES)}")
    given, options = parse(parser)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(TITLE, "optimizers", make_cases(given.cases, scratch), given, options))
