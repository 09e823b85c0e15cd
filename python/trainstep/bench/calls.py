"""What a call costs: every public function on tiny arrays, where next to all of the time is overhead. One thread, nanoseconds."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from typing import Any

import numpy as np

from trainstep.bench.harness import BASELINE, Contender, ContenderError, Options, say
from trainstep.bench.text import digits, markdown_table

TITLE = "Calls on tiny arrays"
RTOL = 1e-5  # float32, other formulas
SAMPLES = 3  # a turn


def run(options: Options) -> dict[str, Any]:
    """Start all contenders, compare what their calls return with trainstep's, and time call by call in turns.

    A block lasts options.seconds / 10 for each call and contender, all of them `options.blocks` times.
    """
    with ExitStack() as stack:
        contenders: list[tuple[Contender, dict[str, list[float] | None]]] = []
        status: dict[str, dict[str, Any]] = {}
        for peer in options.peers:
            contender = Contender(peer, options, "calls", 1, stack.enter_context(tempfile.TemporaryFile()))
            stack.callback(contender.close)
            try:
                contender.hello()
                results = contender.ask("names")["results"] if contender.result.status == "timed" else {}
            except ContenderError as error:
                contender.result.stop("failed", str(error))
                results = {}
            status[peer] = {"status": contender.result.status, "reason": contender.result.reason}
            status[peer] |= {"versions": contender.result.versions}
            contenders.append((contender, results))
        reference = dict(contenders)[next(c for c, _ in contenders if c.result.peer == BASELINE)]
        rejected = {
            (c.result.peer, name): off
            for c, results in contenders
            for name, numbers in results.items()
            if not (off := difference(numbers, reference.get(name))) <= RTOL
        }
        times: dict[str, dict[str, list[list[float]]]] = {name: {} for _, results in contenders for name in results}
        for turn in range(options.blocks):
            say(f"calls: round {turn + 1} of {options.blocks}")
            for name, row in times.items():
                for contender, results in contenders:
                    peer = contender.result.peer
                    if name in results and (peer, name) not in rejected:
                        answer = contender.ask("time", name=name, seconds=options.seconds / 10 / SAMPLES, samples=SAMPLES)
                        row.setdefault(peer, []).append(answer["seconds"])
    rows = [
        {"name": name, "seconds": {peer: float(np.median(blocks)) for peer, blocks in row.items()}, "samples": row}
        for name, row in times.items()
    ]
    wrong = [{"peer": peer, "name": name, "error": off} for (peer, name), off in rejected.items()]
    return {"contenders": status, "rows": rows, "rejected": wrong}


def difference(numbers: list[float] | None, reference: list[float] | None) -> float:
    """Return the largest difference relative to the largest number; 0 where there is nothing to compare with."""
    if numbers is None or reference is None:
        return 0.0
    if len(numbers) != len(reference):
        return math.inf
    return float(np.max(np.abs(np.subtract(numbers, reference))) / max(np.max(np.abs(reference)), 1e-30))


def report(data: dict[str, Any]) -> str:
    """Write the table: a row per call, nanoseconds per contender."""
    peers = [peer for peer, entry in data["contenders"].items() if entry["status"] == "timed"]
    rows = [[r["name"], *(digits(r["seconds"][p] * 1e9) if p in r["seconds"] else "-" for p in peers)] for r in data["rows"]]
    lines = [f"## {TITLE}", "", "Nanoseconds a call, one thread", "", *markdown_table(["call", *peers], rows)]
    notes = [f"- {p}: {e['status']}: {e['reason']}" for p, e in data["contenders"].items() if e["status"] != "timed"]
    notes += [f"- {r['peer']}: {r['name']}: rejected, off trainstep's result by {r['error']:.1e}" for r in data["rejected"]]
    return "\n".join(lines + ([""] if notes else []) + notes) + "\n"


def failed(data: dict[str, Any]) -> bool:
    """Tell whether a contender failed or gave wrong results."""
    return bool(data["rejected"]) or any(entry["status"] == "failed" for entry in data["contenders"].values())
