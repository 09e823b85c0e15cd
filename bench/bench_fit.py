"""A whole training run on the digits, from the initial weights to the last epoch, against scikit-learn. See README.md."""

from __future__ import annotations

import sys
import tempfile

from command import argument_parser, main, parse
from trainstep.bench.fit import TITLE, make_cases

PEERS = ("trainstep", "sklearn")

if __name__ == "__main__":
    given, options = parse(argument_parser("Time a whole training run against the peers.", PEERS))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(TITLE, "fit", make_cases(scratch), given, options))
