"""One training step (forward, relu, softmax cross-entropy, backward, Adam or SGD) against the peers. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.train_step import LARGE_NETS, NETS, RATES, TITLE, Net, make_cases, net_list

PEERS = ("trainstep", "numpy", "torch_eager", "torch_compile", "jax", "sklearn")

if __name__ == "__main__":
    parser = argument_parser("Time one training step of dense networks against the peers.", PEERS)
    parser.add_argument("--nets", type=net_list, default=list(NETS), help=f"default: {','.join(NETS)}")
    parser.add_argument("--large", action="store_true", help=f"add {' and '.join(LARGE_NETS)}")
    parser.add_argument("--optimizer", choices=RATES, default="adam", help="of the nets that do not name one (default adam)")
    given, options = parse(parser)
    chosen = given.nets + [net for net in LARGE_NETS if given.large and net not in given.nets]
    with tempfile.TemporaryDirectory() as scratch:
        cases = make_cases([Net.parse(net, given.optimizer) for net in chosen], scratch)
        sys.exit(main(TITLE, "train_step", cases, given, options))
