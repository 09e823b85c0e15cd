"""One training step (forward, relu, softmax cross-entropy, backward, Adam or SGD) against the peers. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import add_precision, argument_parser, lower, main, parse
from trainstep.bench.precision import summary
from trainstep.bench.train_step import LARGE_NETS, NETS, PRECISION_NETS, RATES, TITLE, Net, make_cases, net_list

PEERS = ("trainstep", "numpy", "torch_eager", "torch_compile", "jax", "sklearn")

if __name__ == "__main__":
    parser = argument_parser("Time one training step of dense networks against the peers.", PEERS)
    default = f"default: {','.join(NETS)}; where precisions are compared {','.join(PRECISION_NETS)}"
    parser.add_argument("--nets", type=net_list, help=default)
    parser.add_argument("--large", action="store_true", help=f"add {' and '.join(LARGE_NETS)}")
    parser.add_argument("--optimizer", choices=RATES, default="adam", help="of the nets that do not name one (default adam)")
    add_precision(parser)
    given, options = parse(parser)
    nets = given.nets or list(PRECISION_NETS if lower(given) else NETS)
    chosen = nets + [net for net in LARGE_NETS if given.large and net not in nets]
    with tempfile.TemporaryDirectory() as scratch:
        cases = make_cases([Net.parse(net, given.optimizer) for net in chosen], scratch, given.precision)
        sys.exit(main(TITLE, "train_step", cases, given, options, summary if lower(given) else None))
