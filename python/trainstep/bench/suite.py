"""What ``trainstep bench`` runs: the part of the benchmarks that needs no peer but NumPy, on all threads and on one."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Any

from trainstep import config, get_num_threads
from trainstep.bench import calls, dense, harness, optimizers, roofline, train_step

PEERS = ("trainstep", "numpy")
TITLES = {"train_step": train_step.TITLE, "dense": dense.TITLE, "optimizers": optimizers.TITLE}


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    nets: tuple[str, ...]
    shapes: tuple[str, ...]
    kinds: tuple[str, ...]
    steps: tuple[str, ...]  # of optimizers
    options: harness.Options


def plan(quick: bool) -> Plan:
    """Return the plan: some minutes, or with `quick` a third of one, which shows that all works but is not to be quoted."""
    most = min(get_num_threads(), harness.available_cpus())
    options = harness.Options(PEERS, sorted({1, most}), seconds=0.1, blocks=5, cold_calls=3, warm_seconds=0.2)
    if not quick:
        shapes = ("64x64x64", "64x784x128", "512x512x512")
        return Plan(train_step.NETS, shapes, ("forward", "dw_dx"), ("Adam:10000", "Adam:1000000"), options)
    short = replace(options, threads=[most], seconds=0.02, blocks=2, cold_calls=1, warm_seconds=0.02, quick=True)
    return Plan(("4-16-3:32", "64-64-10:1:sgd"), ("64x64x64",), ("forward",), ("Adam:1000",), short)


def run(chosen: Plan) -> dict[str, Any]:
    """Measure all of it; return what the JSON file holds, a part for the roofline and each of the tasks."""
    data = harness.header("suite", chosen.options) | {"config": config()}
    with tempfile.TemporaryDirectory() as scratch:
        nets = train_step.make_cases([train_step.Net.parse(net) for net in chosen.nets], scratch)
        products = dense.make_cases(chosen.shapes, chosen.kinds, scratch)
        steps = optimizers.make_cases(chosen.steps, scratch)
        data["train_step"] = harness.run("train_step", nets, chosen.options, data["roofline"])
        data["dense"] = harness.run("dense", products, chosen.options, data["roofline"])
        data["optimizers"] = harness.run("optimizers", steps, chosen.options, data["roofline"])
    data["calls"] = calls.run(chosen.options)
    return data


def report(data: dict[str, Any]) -> str:
    """Write all tables."""
    parts = [roofline.report(data["roofline"])]
    for task, title in TITLES.items():
        parts.append(harness.report(title, data | {"cases": data[task]}))
    return "\n".join([*parts, calls.report(data["calls"])])


def failed(data: dict[str, Any]) -> bool:
    """Tell whether a contender failed or gave wrong results."""
    return any(harness.failed(data[task]) for task in TITLES) or calls.failed(data["calls"])


def measure(quick: bool) -> dict[str, Any]:
    """Measure all of it, after a word on stderr about how long that takes."""
    print(f"about {'20 seconds' if quick else 'two and a half minutes'}; keep the machine idle", file=sys.stderr)
    return run(plan(quick))
