"""The options that the benchmarks of this folder share, and their course: measure, print, write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainstep.bench import roofline
from trainstep.bench.harness import Case, Options, available_cpus, failed, header, report, run, write
from trainstep.bench.precision import FLOAT32, PRECISIONS, precision_list

HERE = Path(__file__).resolve().parent
PEER_PYTHON = HERE / ".venv-peers" / "bin" / "python"


def argument_parser(description: str, peers: Sequence[str], threads: Sequence[int] | None = None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has; `threads` is their default, all CPUs where it is not given."""
    parser = argparse.ArgumentParser(description=description)
    cpus = available_cpus()
    default = list(threads or [cpus])

    def thread_list(text: str) -> list[int]:
        counts = [int(part) for part in text.split(",")]
        if not all(1 <= n <= cpus for n in counts):
            raise argparse.ArgumentTypeError(f"{text} is not from 1 to {cpus}, the CPUs of the affinity mask")
        return counts

    parser.add_argument("--peers", type=lambda s: s.split(","), default=list(peers), help=f"default: {','.join(peers)}")
    parser.add_argument(
        "--threads", type=thread_list, default=default, help=f"one number or more; default: {','.join(map(str, default))}"
    )
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block (default 0.3)")
    parser.add_argument("--blocks", type=int, default=7, help="blocks per contender (default 7)")
    parser.add_argument("--peer-python", type=Path, help=f"default: {PEER_PYTHON.relative_to(HERE.parent)}")
    parser.add_argument("--json", type=Path, help="write all figures and samples to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    parser.add_argument("--quick", action="store_true", help="measure the roofline in a second: to try things out")
    parser.set_defaults(known=list(peers))
    return parser


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the option that names precisions."""
    known = f"beside {FLOAT32}, which is always measured, and with the peers' own; of {','.join(PRECISIONS)}"
    parser.add_argument("--precision", type=precision_list, default=[FLOAT32], help=f"of trainstep's products, {known}")


def lower(given: argparse.Namespace) -> bool:
    """Tell whether other precisions than float32 are compared."""
    return any(precision != FLOAT32 for precision in given.precision)


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Options]:
    """Parse, check, and find the peers' interpreter: without a venv of their own they get this one."""
    given = parser.parse_args()
    unknown = set(given.peers) - set(given.known)
    if unknown:
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(given.known)}")
    if given.peer_python and not given.peer_python.exists():
        parser.error(f"--peer-python: there is no {given.peer_python}")
    if given.seconds <= 0 or given.blocks < 1:
        parser.error("--seconds and --blocks must be positive")
    python = given.peer_python or (PEER_PYTHON if PEER_PYTHON.exists() else Path(sys.executable))
    options = Options(
        given.peers,
        given.threads,
        given.seconds,
        given.blocks,
        peer_python=python,
        peer_folder=HERE,
        quick=given.quick,
    )
    return given, options


def main(
    title: str,
    task: str,
    cases: Sequence[Case],
    given: argparse.Namespace,
    options: Options,
    summary: Callable[[list[dict[str, Any]]], str] | None = None,
) -> int:
    """Run all cases, print and write the report; 1 if a contender failed or gave wrong results, or none was timed.

    `summary` makes of the cases what the report ends with.
    """
    data = header(task, options)
    data["cases"] = run(task, cases, options, data["roofline"])
    parts = [report(title, data), roofline.report(data["roofline"])] + ([summary(data["cases"])] if summary else [])
    write(data, "\n".join(parts), given.json, given.markdown)
    return int(failed(data["cases"]))
