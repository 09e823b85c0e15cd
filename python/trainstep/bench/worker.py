"""One contender in a process of its own: reads commands as JSON lines, does them, answers in JSON lines.

Started by harness.py in the interpreter that has the peer: `python worker.py FOLDER PEER TASK THREADS`, where FOLDER has peers/.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

REHEAT_SECONDS = 0.02  # untimed calls before a block: caches, clock and thread team as in steady use


def adopt_package() -> None:
    """Let peers import `trainstep.bench.tasks` from this folder without trainstep and its compiled core.

    Their interpreter may have no trainstep, or be another Python. Where it has one, its thread team would be one too many.
    """
    package = ModuleType("trainstep")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["trainstep"] = package


def limit_cpus(threads: int) -> None:
    """Keep this process on as many CPUs as it may use threads: the only limit that every peer heeds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def run_calls(peer: Any, calls: int) -> tuple[float, Any]:
    """Return the seconds that `calls` steps and one synchronisation take, and the last loss."""
    step = peer.step
    start = time.perf_counter()
    for _ in repeat(None, calls):
        loss = step()
    peer.sync(loss)
    return time.perf_counter() - start, loss


def run_for(peer: Any, seconds: float) -> float:
    """Run steps, in doubling batches, until one batch takes half of `seconds`; return seconds per call."""
    calls = 1
    while (elapsed := run_calls(peer, calls)[0]) < seconds / 2:
        calls *= 2
    return elapsed / calls


class Worker:
    """The commands: each method takes the request's arguments and returns a dict to answer with."""

    def __init__(self, peer_class: Any, threads: int) -> None:
        """Remember what to build."""
        self.peer_class, self.threads = peer_class, threads

    def setup(self, problem: str, variant: str = "") -> dict[str, Any]:
        """Build the peer on the problem file in every way there is, or in those of the variant asked for, and keep the fastest."""
        loaded = self.peer_class.problem_type.load(problem)
        reason = self.peer_class.lacks(loaded)
        if reason:
            return {"skip": reason}
        made = {way: self.peer_class(loaded, way, self.threads) for way in self.peer_class.ways(variant)}
        if len(made) == 1:
            ((way, self.peer),) = made.items()
            return {"variant": "default" if variant else way}  # a contender's name has its variant already
        seconds = {way: self._try(peer) for way, peer in made.items()}
        way = min(seconds, key=seconds.__getitem__)
        self.peer = made[way]
        return {"variant": way.removeprefix(variant).strip(), "variant_seconds": seconds}

    @staticmethod
    def _try(peer: Any) -> float:
        """Return a variant's best seconds per call of three short runs."""
        peer.reset()
        return min(run_for(peer, 0.1) for _ in range(3))

    def losses(self, count: int) -> dict[str, Any]:
        """Return the first losses, for comparison with the reference."""
        return {"losses": self.peer.losses(count)}

    def calibrate(self, warm_seconds: float, sample_seconds: float) -> dict[str, Any]:
        """Warm up, then return how many calls fill one sample."""
        run_for(self.peer, warm_seconds)
        return {"calls": max(1, round(sample_seconds / run_for(self.peer, sample_seconds)))}

    def block(self, calls: int, seconds: float, cold: int, idle_seconds: float) -> dict[str, Any]:
        """Time one turn from the initial state: runs of `calls` calls for `seconds`, then calls after idling.

        Those are `cold` in number, or as many as take `seconds`.
        """
        self.peer.reset()
        gc.collect()
        gc.disable()
        run_for(self.peer, REHEAT_SECONDS)
        samples: list[float] = []
        while sum(samples) < seconds:
            elapsed, loss = run_calls(self.peer, calls)
            samples.append(elapsed)
        colds: list[float] = []
        while len(colds) < cold and sum(colds) < seconds:
            colds.append(self._cold_call(idle_seconds))
        gc.enable()
        return {"seconds": [t / calls for t in samples], "cold_seconds": colds, "loss": self.peer.scalar(loss)}

    def _cold_call(self, idle_seconds: float) -> float:
        """Return the seconds of one call after the process has slept."""
        time.sleep(idle_seconds)
        return run_calls(self.peer, 1)[0]


class CallWorker:
    """The commands of the task "calls": many tiny calls, known by name."""

    def __init__(self, peer_class: Any, threads: int) -> None:
        """Make the calls."""
        self.calls = peer_class().calls()

    def names(self) -> dict[str, Any]:
        """Tell which calls there are, and what comes of each as a flat list of numbers, or null where it is none."""
        return {"results": {name: self._numbers(name) for name in self.calls}}

    def _numbers(self, name: str) -> list[float] | None:
        """Do one call, and write what came of it as a list of floats."""
        call = self.calls[name]
        result = call.function(*call.arguments, **call.keywords)
        result = result if call.shows is None else call.shows
        parts = result if isinstance(result, tuple | list) else [result]
        try:
            return [float(v) for part in parts if part is not None for v in np.asarray(part, np.float64).ravel()] or None
        except TypeError:
            return None

    def time(self, name: str, seconds: float, samples: int) -> dict[str, Any]:
        """Return `samples` times of seconds per call, each a mean over a loop of about `seconds`."""
        call = self.calls[name]
        count = 1
        while (elapsed := self._loop(call, count)) < seconds / 2:
            count *= 2
        count = max(1, round(count * seconds / elapsed))
        gc.collect()
        gc.disable()
        times = [self._loop(call, count) / count / call.per_call for _ in range(samples)]
        gc.enable()
        return {"seconds": times}

    @staticmethod
    def _loop(call: Any, count: int) -> float:
        """Return the seconds of `count` calls."""
        function, arguments, keywords = call.function, call.arguments, call.keywords
        start = time.perf_counter()
        for _ in repeat(None, count):
            function(*arguments, **keywords)
        return time.perf_counter() - start


def take_stdout() -> IO[str]:
    """Keep the protocol's pipe to ourselves and send whatever a library prints to stderr."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return pipe


def main() -> None:
    """Import the peer, say so, then answer requests until the input ends."""
    pipe = take_stdout()
    folder, peer, task, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    limit_cpus(threads)
    # This file's own folder may hold the name of a package that a peer imports.
    sys.path[:] = [folder, *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]
    if peer != "trainstep":
        adopt_package()
    try:
        peer_class = importlib.import_module(f"peers.{peer}").TASKS[task]
    except ModuleNotFoundError as error:
        print(json.dumps({"skip": f"{error.name} is not installed in {sys.executable}"}), file=pipe)
        return
    worker = CallWorker(peer_class, threads) if task == "calls" else Worker(peer_class, threads)
    print(json.dumps({"versions": peer_class.versions()}), file=pipe)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), file=pipe)


if __name__ == "__main__":
    main()
