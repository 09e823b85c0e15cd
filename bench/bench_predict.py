"""Inference on one row and on many against the peers. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.predict import NETS, TITLE, make_cases, net_list

PEERS = ("trainstep", "numpy", "torch_eager", "onnxruntime", "sklearn")

if __name__ == "__main__":
    parser = argument_parser("Time inference against the peers.", PEERS)
    parser.add_argument("--nets", type=net_list, default=list(NETS), help=f"widths:rows; default: {','.join(NETS)}")
    given, options = parse(parser)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(TITLE, "predict", make_cases(given.nets, scratch), given, options))
