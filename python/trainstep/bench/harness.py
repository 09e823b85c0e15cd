"""Compares contenders fairly: processes of their own, results first, then alternating blocks of time.

A task (train_step.py, dense.py, optimizers.py) describes cases, `run` times them; worker.py is the other end of each process.
The machine's roofline is measured in the same run. Seconds everywhere; only the tables speak of microseconds. bench/README.md of
the source tree says how to read them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from trainstep.bench import roofline
from trainstep.bench.text import digits, markdown_table, size

HERE = Path(__file__).resolve().parent
BASELINE = "trainstep"  # what ratios refer to, and what runs in this interpreter

SAMPLES = 10  # about as many timed runs in a block: quartiles need more points than there are blocks
COLD_IDLE_SECONDS = 0.02  # long enough for thread teams to have gone to sleep
PAUSE_SECONDS = 0.15  # before each turn: OpenBLAS was seen spinning for 100 ms after a block, libgomp for 10
LISTEN_SECONDS = 0.1  # then all contenders sleep, and whatever runs is not ours
BUSY_LIMIT = 0.05  # of all CPUs; one thread short of its core slows a team's barrier many times over
SETUP_TIMEOUT = 600.0  # compilers on a busy machine

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TRAINSTEP_NUM_THREADS", "NPROC")
RECORDED_PREFIXES = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "TRAINSTEP_", "XLA_", "TORCH", "ONEDNN_", "MALLOC_")
SIMD_FLAGS = ("sse2", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


class Variant(NamedTuple):
    """How a contender "PEER:VARIANT" differs from the others of its case: less exact, fewer bytes."""

    rtol: float
    bytes: float
    loss_range: tuple[float, float] | None = None  # where it is not the case's


@dataclass(frozen=True)
class Case:
    """One comparison: the problem file that every contender loads, what a right answer is, and the work that it takes."""

    name: str
    problem: str
    reference: list[float]  # losses of the first steps, from a float64 reference
    rtol: float
    loss_range: tuple[float, float]  # where the loss still is after any number of steps
    flops: float  # of the products; 0 where moving bytes is all there is
    bytes: float  # that have to be moved
    stream: str  # the mix of loads and stores that they are most like: one of roofline's
    working_set: float  # bytes
    bare_loop: bool = False  # times a bare loop of that mix and working set in the same rounds
    variants: Mapping[str, Variant] = field(default_factory=dict)  # contenders besides those of the options, by "PEER:VARIANT"


@dataclass(frozen=True)
class Options:
    """How to measure: contenders, numbers of threads, and each contender's turns."""

    peers: Sequence[str]
    threads: Sequence[int]
    seconds: float = 0.3
    blocks: int = 7
    cold_calls: int = 10  # after each block; fewer where they take longer than the block
    warm_seconds: float = 0.5
    peer_python: Path = Path(sys.executable)
    peer_folder: Path = HERE  # whose peers/ has those that are not in this folder's
    quick: bool = False  # the roofline too


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


class ContenderError(Exception):
    """A contender's process died or fell silent; the message is the reason to report."""


class Contender:
    """One peer in a process of its own, asked in JSON lines."""

    def __init__(self, peer: str, options: Options, task: str, threads: int, log: IO[bytes]) -> None:
        """Start the process, its stderr into `log`; `hello` waits until it has imported its peer."""
        self.result = Result(peer)
        self._log = log
        module, _, self.variant = peer.partition(":")
        python = Path(sys.executable) if module == BASELINE else options.peer_python
        folder = HERE if (HERE / "peers" / f"{module}.py").exists() else options.peer_folder
        command = [str(python), str(HERE / "worker.py"), str(folder), module, task, str(threads)]
        environment = os.environ | thread_environment(threads)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def hello(self) -> None:
        """Read the versions, or why the peer cannot run."""
        answer = self._read(SETUP_TIMEOUT)
        self.result.versions = answer.get("versions", {})
        if "skip" in answer:
            self.result.stop("skipped", answer["skip"])

    def ask(self, command: str, timeout: float = SETUP_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        try:
            self._to.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        return self._read(timeout)

    def _read(self, timeout: float) -> dict[str, Any]:
        """Wait for one line; the worker writes a line at a time, so a readable pipe holds a whole one soon."""
        if not select.select([self._from], [], [], timeout)[0]:
            raise ContenderError(f"no answer in {timeout:.0f} s")
        line = self._from.readline()
        if not line:
            raise ContenderError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

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
        self._to.close()
        self._from.close()


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that make a peer use `threads` threads; worker.py sets the affinity mask too."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if threads == 1:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    # A pool of compiler processes would outlive the compilation and take time from whoever is timed.
    return variables | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


def prepare(contender: Contender, case: Case, options: Options) -> None:
    """Import, build, compare with the reference, warm up; a contender that fails is marked, with the reason."""
    result = contender.result
    contender.hello()
    if result.status != "timed":
        return
    answer = contender.ask("setup", problem=case.problem, variant=contender.variant)
    if "skip" in answer:
        result.stop("skipped", answer["skip"])
        return
    result.variant = answer["variant"]
    result.losses = contender.ask("losses", count=len(case.reference))["losses"]
    result.loss_error = relative_error(result.losses, case.reference)
    rtol = case.variants[result.peer].rtol if contender.variant else case.rtol
    if not result.loss_error <= rtol:
        result.stop("rejected", f"results are off the float64 reference by {result.loss_error:.1e}, over {rtol:g}")
        return
    answer = contender.ask("calibrate", warm_seconds=options.warm_seconds, sample_seconds=options.seconds / SAMPLES)
    result.calls = answer["calls"]


def relative_error(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Return the largest relative difference; NaN where a loss is NaN."""
    return float(np.max(np.abs(np.subtract(losses, reference)) / np.abs(reference)))


def time_block(contender: Contender, case: Case, options: Options) -> None:
    """Give the contender one turn and check that its loss is still where training would have it."""
    result = contender.result
    answer = contender.ask(
        "block", calls=result.calls, seconds=options.seconds, cold=options.cold_calls, idle_seconds=COLD_IDLE_SECONDS
    )
    result.blocks.append(answer["seconds"])
    result.cold += answer["cold_seconds"]
    own = case.variants[result.peer].loss_range if contender.variant else None
    low, high = own or case.loss_range
    if not low <= answer["loss"] <= high:
        result.stop("rejected", f"result {answer['loss']:.4g} after a timed block, outside {low:.4g} to {high:.4g}")


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


def run_case(case: Case, task: str, threads: int, options: Options) -> dict[str, Any]:
    """Check all contenders, then let those that passed take turns, each round another one first; return numbers.

    Before each round and after the last, a cache line is sent from one core to another and back: what threads hand each other costs
    so much, and a virtual machine's cores may move apart in the middle of a run. A bare loop is timed before each round.
    """
    listener, trips, rates = Listener(), [], []
    name = f"{case.name}, {roofline.plural(threads)}"
    with ExitStack() as stack:
        contenders = []
        for peer in (*options.peers, *(v for v in case.variants if v.partition(":")[0] in options.peers)):
            log = stack.enter_context(tempfile.TemporaryFile())
            contenders.append(Contender(peer, options, task, threads, log))
            stack.callback(contenders[-1].close)
            say(f"{name}: {peer}: check")
            guarded(prepare, contenders[-1], case, options)
        for turn in range(options.blocks):
            say(f"{name}: block {turn + 1} of {options.blocks}")
            if case.bare_loop:
                listener.pause()
                rates += roofline.bare_loop(case.stream, case.working_set, threads)
            first = turn % len(contenders)
            for i, contender in enumerate(contenders[first:] + contenders[:first]):
                if contender.result.status == "timed":
                    listener.pause()
                    if i == 0 and threads > 1:
                        trips.append(roofline.round_trip())
                    guarded(time_block, contender, case, options)
        if threads > 1:
            time.sleep(PAUSE_SECONDS)
            trips.append(roofline.round_trip())
    entry = summary(case, [c.result for c in contenders])
    heard = {"busy_with_others": listener.busy(), "round_trip_seconds": trips, "bare_loop_rates": rates}
    return entry | {"threads": threads} | heard


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


def ratio_of(blocks: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the median, lowest and highest ratio to the baseline, block by block, so that drift cancels."""
    ratios = [float(np.median(mine) / np.median(base)) for mine, base in zip(blocks, baseline, strict=True)]
    return {"median": float(np.median(ratios)), "lowest": min(ratios), "highest": max(ratios)}


def summary(case: Case, results: list[Result]) -> dict[str, Any]:
    """Turn one case into what the JSON file holds and the table is printed from."""
    baseline = next((r for r in results if r.peer == BASELINE and r.status == "timed"), None)
    rows = [row(case, result, baseline) for result in results]
    rows.sort(key=lambda r: r.get("seconds", {}).get("median", math.inf))
    names = ("name", "flops", "bytes", "stream", "working_set", "reference", "rtol")
    return {name: getattr(case, name) for name in names} | {"rows": rows}


def row(case: Case, result: Result, baseline: Result | None) -> dict[str, Any]:
    """Turn one contender's result into numbers; a contender that was not timed has none."""
    names = ("peer", "status", "reason", "variant", "versions", "losses")
    head = {name: getattr(result, name) for name in names}
    if result.status != "timed":
        return head
    low, median, high = result.quartiles()
    moved = case.variants[result.peer].bytes if result.peer in case.variants else case.bytes
    return head | {
        "loss_error": result.loss_error,
        "calls_per_sample": result.calls,
        "seconds": {"median": median, "lower_quartile": low, "upper_quartile": high},
        "bytes": moved,
        "gflops": case.flops / median / 1e9,
        "gbytes_per_second": moved / median / 1e9,
        "ratio": ratio_of(result.blocks, baseline.blocks) if baseline else None,
        "cold_seconds": float(np.median(result.cold)) if result.cold else None,
        "samples": result.blocks,
        "cold_samples": result.cold,
    }


def ratio_text(entry: dict[str, Any]) -> str:
    """Write the ratio with its range over the blocks."""
    ratio = entry["ratio"]
    return f"{digits(ratio['median'])} ({digits(ratio['lowest'])} to {digits(ratio['highest'])})" if ratio else "-"


# One row per column: title, and text from a row's numbers. A case has the columns of MULTIPLYING or of MOVING.
COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("contender", lambda r: r["peer"] + (f" ({r['variant']})" if r["variant"] != "default" else "")),
    ("us per call", lambda r: digits(r["seconds"]["median"] * 1e6)),
    (
        "quartiles",
        lambda r: " to ".join(digits(r["seconds"][q] * 1e6) for q in ("lower_quartile", "upper_quartile")),
    ),
    ("GFLOP/s", lambda r: digits(r["gflops"])),
    ("GB/s", lambda r: digits(r["gbytes_per_second"])),
    ("of the roofline", lambda r: roofline.share_text(r["roofline"])),
    ("of a bare loop", lambda r: roofline.share_text(r["roofline"])),
    ("off float64", lambda r: f"{r['loss_error']:.1e}"),
    (f"times {BASELINE}'s (range)", ratio_text),
    ("cold call, us", lambda r: digits(r["cold_seconds"] * 1e6) if r["cold_samples"] else "-"),
)
MULTIPLYING, MOVING = ("GFLOP/s", "of the roofline"), ("GB/s", "of a bare loop")


def table(case: dict[str, Any]) -> str:
    """Write one case as Markdown: a table of those timed, a list of the others, and what else was seen."""
    work = f"{digits(case['flops'] / 1e6)} Mflop" if case["flops"] else f"{size(case['bytes'])} moved"
    lines = [f"### {case['name']}, {roofline.plural(case['threads'])} ({work})", ""]
    columns = [column for column in COLUMNS if column[0] not in (MOVING if case["flops"] else MULTIPLYING)]
    timed = [r for r in case["rows"] if r["status"] == "timed"]
    if timed:
        lines += markdown_table([title for title, _ in columns], [[text(r) for _, text in columns] for r in timed])
    notes = [f"- {r['peer']}: {r['status']}: {r['reason']}" for r in case["rows"] if r["status"] != "timed"]
    trips = [t * 1e9 for t in case["round_trip_seconds"] if t is not None]
    if trips:
        change = "" if max(trips) < 1.5 * min(trips) else "; **the cores have moved: do not compare these rows with other runs**"
        notes.append(f"- Core to core and back: {trips[0]:.0f} ns before, {trips[-1]:.0f} ns after" + change + ".")
    if (case["busy_with_others"] or 0) > BUSY_LIMIT:
        busy = f"{case['busy_with_others']:.0%}"
        notes.append(f"- **Do not use these figures**: other processes kept {busy} of the CPUs busy during this case.")
    return "\n".join(lines + ([""] if notes else []) + notes)


def report(title: str, data: dict[str, Any]) -> str:
    """Write the whole run as Markdown, beginning with what it ran on."""
    how = data["settings"]
    versions = {f"{k} {v}" for c in data["cases"] for r in c["rows"] for k, v in r["versions"].items() if k != "isa"}
    isa = {f"{r['peer']} {r['versions']['isa']}" for c in data["cases"] for r in c["rows"] if "isa" in r["versions"]}
    head = [
        f"## {title}",
        "",
        f"{machine_text(data['machine'])}; medians of {how['blocks']} blocks of {how['seconds']:g} s.",
        f"Versions: {', '.join(sorted(versions))}." + (f" ISA in use: {', '.join(sorted(isa))}." if isa else ""),
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(table(case) for case in data["cases"]) + "\n"


def machine_text(where: dict[str, Any]) -> str:
    """Write the machine in a line."""
    return f"{where['cpu']}, {where['cpus']} CPUs ({', '.join(where['simd'])})"


def header(task: str, options: Options) -> dict[str, Any]:
    """Begin what the JSON file holds: the machine, its roofline, the settings."""
    say("roofline")
    names = ("seconds", "blocks", "cold_calls")
    settings = {name: getattr(options, name) for name in names} | {"peers": list(options.peers), "threads": list(options.threads)}
    data: dict[str, Any] = {"benchmark": task, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    return data | {"settings": settings, "roofline": roofline.measure(options.threads, options.quick)}


def run(task: str, cases: Sequence[Case], options: Options, roof: dict[str, Any]) -> list[dict[str, Any]]:
    """Time all cases on each number of threads, and hold every row against the roofline."""
    entries = [run_case(case, task, threads, options) for case in cases for threads in options.threads]
    for entry in entries:
        for r in entry["rows"]:
            if r["status"] == "timed":
                r["roofline"] = roofline.share(roof, r["seconds"]["median"], entry | {"bytes": r["bytes"]}, entry["threads"])
    return entries


def failed(cases: list[dict[str, Any]]) -> bool:
    """Tell whether a contender failed or gave wrong results, or none was timed."""
    statuses = [r["status"] for case in cases for r in case["rows"]]
    return "timed" not in statuses or "rejected" in statuses or "failed" in statuses


def write(data: dict[str, Any], text: str, json_file: Path | None, markdown: Path | None = None) -> None:
    """Print the report, and write the files that were asked for."""
    print(text)
    if json_file:
        json_file.write_text(json.dumps(data, indent=1) + "\n")
    if markdown:
        markdown.write_text(text)
