"""Compares contenders fairly: processes of their own, results first, then alternating blocks of time.

A benchmark (bench_<task>.py) describes cases and calls `main`; worker.py is the other end of each process.
Seconds everywhere; only the table speaks of microseconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

HERE = Path(__file__).resolve().parent
BASELINE = "trainstep"  # what ratios refer to, and what runs in this interpreter
PEER_PYTHON = HERE / ".venv-peers" / "bin" / "python"

SAMPLES = 10  # about as many timed runs in a block: quartiles need more points than there are blocks
COLD_CALLS = 10  # cold calls after each block
COLD_IDLE_SECONDS = 0.02  # long enough for thread teams to have gone to sleep
PAUSE_SECONDS = 0.15  # before each turn: OpenBLAS was seen spinning for 100 ms after a block, libgomp for 10
LISTEN_SECONDS = 0.1  # then all contenders sleep, and whatever runs is not ours
BUSY_LIMIT = 0.05  # of all CPUs; one thread short of its core slows a team's barrier many times over
WARM_SECONDS = 0.5
SETUP_TIMEOUT = 600.0  # compilers on a busy machine

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TRAINSTEP_NUM_THREADS", "NPROC")
RECORDED_PREFIXES = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "TRAINSTEP_", "XLA_", "TORCH", "ONEDNN_", "MALLOC_")
SIMD_FLAGS = ("sse2", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


@dataclass(frozen=True)
class Case:
    """One comparison: the problem file that every contender loads, and what a right answer is."""

    name: str
    problem: str
    flops: float
    reference: list[float]  # losses of the first steps, from a float64 reference
    rtol: float
    loss_range: tuple[float, float]  # where the loss still is after any number of steps


@dataclass
class Result:
    """What came of one contender in one case."""

    peer: str
    status: str = "timed"  # or skipped, rejected, failed; then `reason` says why
    reason: str = ""
    variant: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    losses: list[float] = field(default_factory=list)
    loss_error: float = math.nan
    blocks: list[list[float]] = field(default_factory=list)  # seconds per call, one list per block
    cold: list[float] = field(default_factory=list)

    def stop(self, status: str, reason: str) -> None:
        """Take the contender out of the comparison."""
        self.status, self.reason = status, reason

    def quartiles(self) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile of seconds per call."""
        return tuple(np.percentile(np.concatenate(self.blocks), (25, 50, 75)).tolist())

    def ratio_to(self, baseline: Result | None) -> tuple[float, float, float]:
        """Return the median, lowest and highest ratio to the baseline, block by block, so that drift cancels."""
        if baseline is None:
            return (math.nan,) * 3
        pairs = zip(self.blocks, baseline.blocks, strict=True)
        ratios = [float(np.median(mine) / np.median(base)) for mine, base in pairs]
        return float(np.median(ratios)), min(ratios), max(ratios)


class ContenderError(Exception):
    """A contender's process died or fell silent; the message is the reason to report."""


class Contender:
    """One peer in a process of its own, asked in JSON lines."""

    def __init__(self, peer: str, python: Path, task: str, threads: int, log: IO[bytes]) -> None:
        """Start the process, its stderr into `log`; `hello` waits until it has imported its peer."""
        self.result = Result(peer)
        self._log = log
        command = [str(python), str(HERE / "worker.py"), peer, task, str(threads)]
        environment = os.environ | thread_environment(threads)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0
        )

    def hello(self) -> None:
        """Read the versions, or why the peer cannot run."""
        answer = self._read(SETUP_TIMEOUT)
        self.result.versions = answer.get("versions", {})
        if "skip" in answer:
            self.result.stop("skipped", answer["skip"])

    def ask(self, command: str, timeout: float = SETUP_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        return self._read(timeout)

    def _read(self, timeout: float) -> dict[str, Any]:
        """Wait for one line; the worker writes a line at a time, so a readable pipe holds a whole one soon."""
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise ContenderError(f"no answer in {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        """Return the exit status and the last line on stderr: mostly the exception."""
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"exit status {status}: {lines[-1] if lines else 'no message'}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that make a peer use `threads` threads; worker.py sets the affinity mask too."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if threads == 1:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    # A pool of compiler processes would outlive the compilation and take time from whoever is timed.
    return variables | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


def prepare(contender: Contender, case: Case, seconds: float) -> None:
    """Import, build, compare with the reference, warm up; a contender that fails is marked, with the reason."""
    result = contender.result
    contender.hello()
    if result.status != "timed":
        return
    result.variant = contender.ask("setup", problem=case.problem)["variant"]
    result.losses = contender.ask("losses", count=len(case.reference))["losses"]
    result.loss_error = relative_error(result.losses, case.reference)
    if not result.loss_error <= case.rtol:
        result.stop("rejected", f"losses are off the float64 reference by {result.loss_error:.1e}, over {case.rtol:g}")
        return
    answer = contender.ask("calibrate", warm_seconds=WARM_SECONDS, sample_seconds=seconds / SAMPLES)
    result.calls = answer["calls"]


def relative_error(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Return the largest relative difference; NaN where a loss is NaN."""
    return float(np.max(np.abs(np.subtract(losses, reference)) / np.abs(reference)))


def time_block(contender: Contender, case: Case, seconds: float) -> None:
    """Give the contender one turn and check that its loss is still where training would have it."""
    result = contender.result
    answer = contender.ask("block", calls=result.calls, seconds=seconds, cold=COLD_CALLS, idle_seconds=COLD_IDLE_SECONDS)
    result.blocks.append(answer["seconds"])
    result.cold += answer["cold_seconds"]
    low, high = case.loss_range
    if not low <= answer["loss"] <= high:
        result.stop("rejected", f"loss {answer['loss']:.4g} after a timed block, outside {low:.4g} to {high:.4g}")


def guarded(action: Callable[..., None], contender: Contender, *arguments: Any) -> None:
    """Do one action; a contender that dies of it is out, the others go on."""
    try:
        action(contender, *arguments)
    except ContenderError as error:
        contender.result.stop("failed", str(error))


class Listener:
    """Adds up how busy other processes keep the machine while all contenders sleep; knows nothing without /proc."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.ticks, self.idle = 0, 0

    def pause(self) -> None:
        """Let the last contender's threads go to sleep, then listen."""
        time.sleep(PAUSE_SECONDS)
        before = self._read()
        time.sleep(LISTEN_SECONDS)
        after = self._read()
        self.ticks += sum(after) - sum(before)
        self.idle += sum(after[3:5]) - sum(before[3:5])

    @staticmethod
    def _read() -> list[int]:
        """Return the ticks of all CPUs: user, nice, system, idle, iowait, irq, softirq, steal."""
        path = Path("/proc/stat")
        return [int(n) for n in path.read_text().splitlines()[0].split()[1:9]] if path.exists() else []

    def busy(self) -> float | None:
        """Return the busy share of all CPUs."""
        return 1 - self.idle / self.ticks if self.ticks else None


def run_case(case: Case, task: str, options: argparse.Namespace, listener: Listener) -> list[Result]:
    """Check all contenders, then let those that passed take turns; each round another one begins."""
    with ExitStack() as stack:
        contenders = []
        for peer in options.peers:
            python = Path(sys.executable) if peer == BASELINE else options.peer_python
            log = stack.enter_context(tempfile.TemporaryFile())
            contenders.append(Contender(peer, python, task, options.threads, log))
            stack.callback(contenders[-1].close)
            say(f"{case.name}: {peer}: check")
            guarded(prepare, contenders[-1], case, options.seconds)
        for turn in range(options.blocks):
            say(f"{case.name}: block {turn + 1} of {options.blocks}")
            first = turn % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                if contender.result.status == "timed":
                    listener.pause()
                    guarded(time_block, contender, case, options.seconds)
        return [c.result for c in contenders]


def say(text: str) -> None:
    """Tell on stderr how far we are."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe where this runs, with every variable that steers threads or kernels."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "simd": [flag for flag in SIMD_FLAGS if flag in flags],
        "cpus": available_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(RECORDED_PREFIXES)},
    }


def available_cpus() -> int:
    """Count the CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def summary(case: Case, results: list[Result]) -> dict[str, Any]:
    """Turn one case into what the JSON file holds and the table is printed from."""
    baseline = next((r for r in results if r.peer == BASELINE and r.status == "timed"), None)
    rows = [row(case, result, baseline) for result in results]
    rows.sort(key=lambda r: r.get("seconds", {}).get("median", math.inf))
    return {"name": case.name, "flops": case.flops, "reference": case.reference, "rtol": case.rtol, "rows": rows}


def row(case: Case, result: Result, baseline: Result | None) -> dict[str, Any]:
    """Turn one contender's result into numbers; a contender that was not timed has none."""
    names = ("peer", "status", "reason", "variant", "versions", "losses")
    head = {name: getattr(result, name) for name in names}
    if result.status != "timed":
        return head
    low, median, high = result.quartiles()
    ratio, least, most = result.ratio_to(baseline)
    return head | {
        "loss_error": result.loss_error,
        "calls_per_sample": result.calls,
        "seconds": {"median": median, "lower_quartile": low, "upper_quartile": high},
        "gflops": case.flops / median / 1e9,
        "ratio": None if math.isnan(ratio) else {"median": ratio, "lowest": least, "highest": most},
        "cold_seconds": float(np.median(result.cold)),
        "samples": result.blocks,
        "cold_samples": result.cold,
    }


def digits(value: float) -> str:
    """Write a figure to three digits or so, without exponents."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(entry: dict[str, Any]) -> str:
    """Write the ratio with its range over the blocks."""
    ratio = entry["ratio"]
    return f"{digits(ratio['median'])} ({digits(ratio['lowest'])} to {digits(ratio['highest'])})" if ratio else "-"


# One row per column: title, and text from a row's numbers.
COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("contender", lambda r: r["peer"] + (f" ({r['variant']})" if r["variant"] != "default" else "")),
    ("us per call", lambda r: digits(r["seconds"]["median"] * 1e6)),
    (
        "quartiles",
        lambda r: " to ".join(digits(r["seconds"][q] * 1e6) for q in ("lower_quartile", "upper_quartile")),
    ),
    ("GFLOP/s", lambda r: digits(r["gflops"])),
    (f"times {BASELINE}'s (range)", ratio_text),
    ("cold call, us", lambda r: digits(r["cold_seconds"] * 1e6)),
)


def table(case: dict[str, Any]) -> str:
    """Write one case as Markdown: a table of those timed, a list of the others, a warning if others were busy."""
    lines = [f"### {case['name']} ({digits(case['flops'] / 1e6)} Mflop)", ""]
    timed = [r for r in case["rows"] if r["status"] == "timed"]
    if timed:
        lines.append("| " + " | ".join(title for title, _ in COLUMNS) + " |")
        lines.append("|---|" + "---:|" * (len(COLUMNS) - 1))
        lines += ["| " + " | ".join(text(r) for _, text in COLUMNS) + " |" for r in timed]
    others = [f"- {r['peer']}: {r['status']}: {r['reason']}" for r in case["rows"] if r["status"] != "timed"]
    if (case["busy_with_others"] or 0) > BUSY_LIMIT:
        share = f"{case['busy_with_others']:.0%}"
        others.append(f"- **Do not use these figures**: other processes kept {share} of the CPUs busy during this case.")
    return "\n".join(lines + ([""] if others else []) + others)


def report(title: str, data: dict[str, Any]) -> str:
    """Write the whole run as Markdown, beginning with what it ran on."""
    where, how = data["machine"], data["settings"]
    versions = {f"{k} {v}" for c in data["cases"] for r in c["rows"] for k, v in r["versions"].items() if k != "isa"}
    isa = {f"{r['peer']} {r['versions']['isa']}" for c in data["cases"] for r in c["rows"] if "isa" in r["versions"]}
    head = [
        f"## {title}",
        "",
        f"{where['cpu']}, {where['cpus']} CPUs ({', '.join(where['simd'])}); threads: {how['threads']}; "
        f"medians of {how['blocks']} blocks of {how['seconds']:g} s.",
        f"Versions: {', '.join(sorted(versions))}." + (f" ISA in use: {', '.join(sorted(isa))}." if isa else ""),
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(table(case) for case in data["cases"]) + "\n"


def argument_parser(description: str, peers: Sequence[str]) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    cpus = available_cpus()
    known = list(peers)
    parser.add_argument("--peers", type=lambda s: s.split(","), default=known, help=f"default: {','.join(known)}")
    parser.add_argument("--threads", type=int, choices=range(1, cpus + 1), default=cpus, help="default: all CPUs")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block (default 0.3)")
    parser.add_argument("--blocks", type=int, default=7, help="blocks per contender (default 7)")
    parser.add_argument("--peer-python", type=Path, default=None, help=f"default: {PEER_PYTHON.relative_to(HERE)}")
    parser.add_argument("--json", type=Path, help="write all figures and samples to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    parser.set_defaults(known=known)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, check, and find the peers' interpreter: without a venv of their own they get this one."""
    options = parser.parse_args()
    unknown = set(options.peers) - set(options.known)
    if unknown:
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(options.known)}")
    if options.peer_python and not options.peer_python.exists():
        parser.error(f"--peer-python: there is no {options.peer_python}")
    if options.seconds <= 0 or options.blocks < 1:
        parser.error("--seconds and --blocks must be positive")
    options.peer_python = options.peer_python or (PEER_PYTHON if PEER_PYTHON.exists() else Path(sys.executable))
    return options


def main(title: str, task: str, cases: Sequence[Case], options: argparse.Namespace) -> int:
    """Run all cases, print and write the report; 1 if a contender failed or gave wrong results, or none was timed."""
    settings = {name: getattr(options, name) for name in ("threads", "seconds", "blocks", "peers")}
    data: dict[str, Any] = {"benchmark": task, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    data |= {"settings": settings, "cases": []}
    for case in cases:
        listener = Listener()
        entry = summary(case, run_case(case, task, options, listener))
        data["cases"].append(entry | {"busy_with_others": listener.busy()})
    text = report(title, data)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)
    statuses = [r["status"] for case in data["cases"] for r in case["rows"]]
    return int("timed" not in statuses or "rejected" in statuses or "failed" in statuses)
