"""What a call costs: every public function on tiny arrays, against the nearest call of NumPy and PyTorch. See README.md."""

from __future__ import annotations

import sys

from command import argument_parser, parse
from trainstep.bench import calls
from trainstep.bench.harness import header, machine_text, write

PEERS = ("trainstep", "numpy", "torch_eager")

if __name__ == "__main__":
    given, options = parse(argument_parser("Time calls on tiny arrays.", PEERS, [1]))
    data = header("calls", options) | calls.run(options)
    write(data, f"{calls.report(data)}\n{machine_text(data['machine'])}\n", given.json, given.markdown)
    sys.exit(int(calls.failed(data)))
