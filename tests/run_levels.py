"""Runs the test suite once under every ISA level that this CPU supports: ``python tests/run_levels.py [pytest options]``.

Tests with the mark ``one_level`` run on the last of them only; in a module with that mark, ``every_level`` takes one out again.

Exit status 1 where a run failed, or where a level that the CPU's own flags promise was not among them.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
# What /proc/cpuinfo must list for a level to run: the second opinion on what the core says that it supports.
CPU_FLAGS = {"generic": (), "avx2": ("avx2", "fma"), "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"), "neon": ("asimd",)}


def supported_levels() -> list[str]:
    code = "import trainstep; print(*trainstep.config()['isa_supported'])"
    environment = {k: v for k, v in os.environ.items() if k != "TRAINSTEP_ISA"}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout.split()


def promised_levels() -> list[str]:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = next((row for row in cpuinfo.splitlines() if row.lower().startswith(("flags", "features"))), "")
    has = set(line.split(":", 1)[-1].split())
    arm = "asimd" in has
    return [level for level, flags in CPU_FLAGS.items() if has.issuperset(flags) and (level == "neon") == arm and has]


def main(options: list[str]) -> int:
    levels = supported_levels()
    missing = [level for level in promised_levels() if level not in levels]
    if missing:
        print(f"run_levels: this CPU has {', '.join(missing)}, trainstep supports only {', '.join(levels)}", file=sys.stderr)
        return 1
    failed = []
    for level in levels:
        print(f"\n=== TRAINSTEP_ISA={level}", flush=True)
        command = [sys.executable, "-m", "pytest", str(TESTS), *options]
        environment = {
            "OPENBLAS_NUM_THREADS": "1",  # the reference's products would spin where the threads under test want to run
            **os.environ,
            "TRAINSTEP_ISA": level,
            "TRAINSTEP_TEST_ONE_LEVEL": str(int(level == levels[-1])),
        }
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(level)
    print(f"\nrun_levels: {', '.join(levels)} run; {'failed: ' + ', '.join(failed) if failed else 'all passed'}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
