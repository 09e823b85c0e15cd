"""``trainstep info``, ``selftest`` and ``bench``: what runs here, whether it is right, how fast it is."""

import argparse
from dataclasses import asdict
from typing import Any

import trainstep as ts
from trainstep.cli.common import add_json, check_outputs, says, write_json


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    info = commands.add_parser("info", help="show version, instruction set, threads and compiler")
    info.set_defaults(command=_info)
    add_json(info, "the same")

    selftest = commands.add_parser("selftest", help="hold every compiled kernel to the reference, on every ISA level")
    selftest.set_defaults(command=_selftest)
    add_json(selftest, "every check")

    bench = commands.add_parser("bench", help="measure this machine's roofline, training steps, products and calls, against NumPy")
    bench.set_defaults(command=_bench)
    bench.add_argument("--quick", action="store_true", help="some seconds, to see that it works: not figures to quote")
    add_json(bench, "all figures and samples")


def _info(arguments: argparse.Namespace) -> None:
    check_outputs({"--json": arguments.json})
    if says(arguments):
        ts.show_config()
    write_json(arguments.json, {"command": "info", **ts.config()})


def _selftest(arguments: argparse.Namespace) -> None:
    check_outputs({"--json": arguments.json})
    result = ts.selftest()
    if says(arguments):
        print(result)
    rows = [asdict(row) | {"ok": row.ok} for row in result.rows]
    write_json(arguments.json, {"command": "selftest", "ok": result.ok, "seconds": result.seconds, "rows": rows})
    if not result.ok:
        raise RuntimeError(f"selftest: {len(result.failures)} of {len(result.rows)} checks failed")


def _bench(arguments: argparse.Namespace) -> None:
    check_outputs({"--json": arguments.json})
    from trainstep.bench import suite

    data = suite.measure(arguments.quick)
    if says(arguments):
        print(suite.report(data))
    write_json(arguments.json, {"command": "bench", **data})
    if suite.failed(data):
        raise RuntimeError("a contender failed or gave wrong results: see the tables")
