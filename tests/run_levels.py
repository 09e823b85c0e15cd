"""Runs the test suite once under every ISA level that this CPU supports: ``python tests/run_levels.py [pytest options]``.

Tests with the mark ``one_level`` run on the last of them only; in a module with that mark, ``every_level`` takes one out again. Of
levels that share a base, and so all kernels but those of bfloat16 pieces, the widest runs everything, the others the tests with the
mark ``pieces``. Two levels run at a time, where there are two CPUs; what each of them says is printed when it is over.

Exit status 1 where a run failed, or where a level that the CPU's own flags promise was not among them.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parent
# What /proc/cpuinfo must list for a level to run: the second opinion on what the core says that it supports.
AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
CPU_FLAGS = {
    "generic": (),
    "avx2": ("avx2", "fma"),
    "avx512": AVX512,
    "avx512_bf16": (*AVX512, "avx512_bf16"),
    "amx": (*AVX512, "avx512_bf16", "amx_tile", "amx_bf16"),
    "neon": ("asimd",),
}
NO_TESTS = 5  # pytest's exit status where none was selected
AT_A_TIME = min(2, os.cpu_count() or 1)


def config() -> dict[str, object]:
    code = "import json, trainstep; print(json.dumps(trainstep.config()))"
    environment = {k: v for k, v in os.environ.items() if k != "TRAINSTEP_ISA"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(found.stdout))


def promised_levels() -> list[str]:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = next((row for row in cpuinfo.splitlines() if row.lower().startswith(("flags", "features"))), "")
    has = set(line.split(":", 1)[-1].split())
    arm = "asimd" in has
    return [level for level, flags in CPU_FLAGS.items() if has.issuperset(flags) and (level == "neon") == arm and has]


def with_mark(mark: str, options: list[str]) -> list[str]:
    """Pytest's options with one mark more that tests must have."""
    if "-m" not in options:
        return [*options, "-m", mark]
    at = options.index("-m") + 1
    return [*options[:at], f"({options[at]}) and {mark}", *options[at + 1 :]]


def run(level: str, widest: bool, whole: bool, options: list[str]) -> bool:
    """Whether the tests pass on a level: all of them, or where another with its kernels runs those, what it has of its own."""
    command = [sys.executable, "-m", "pytest", str(TESTS), *(options if whole else with_mark("pieces", options))]
    environment = {
        "OPENBLAS_NUM_THREADS": "1",  # the reference's products would spin where the threads under test want to run
        **os.environ,
        "TRAINSTEP_ISA": level,
        "TRAINSTEP_TEST_ONE_LEVEL": str(int(widest)),
    }
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f"\n=== TRAINSTEP_ISA={level}: {time.perf_counter() - began:.0f} s\n{done.stdout}", flush=True)
    return done.returncode == 0 or (not whole and done.returncode == NO_TESTS)


def main(options: list[str]) -> int:
    found = config()
    levels, base = list(found["isa_supported"]), dict(found["isa_base"])  # type: ignore[call-overload]
    refused = ["amx"] if "refuses" in str(found["isa_reason"]) else []  # the flags promise tiles, the operating system may not
    missing = [level for level in promised_levels() if level not in [*levels, *refused]]
    if missing:
        print(f"run_levels: this CPU has {', '.join(missing)}, trainstep supports only {', '.join(levels)}", file=sys.stderr)
        return 1
    widest_of = {base[level]: level for level in levels}
    with ThreadPoolExecutor(AT_A_TIME) as pool:  # the longest run first
        runs = {
            level: pool.submit(run, level, level == levels[-1], widest_of[base[level]] == level, options) for level in levels[::-1]
        }
    failed = [level for level in levels if not runs[level].result()]
    print(f"\nrun_levels: {', '.join(levels)} run; {'failed: ' + ', '.join(failed) if failed else 'all passed'}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
