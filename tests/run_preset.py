"""Builds CMake presets and runs tests against each: ``python tests/run_preset.py clang|asan|tsan ...``.

clang is the whole project by that compiler, with its OpenMP runtime. asan finds memory errors, undefined behaviour and leaks;
tsan finds data races. The interpreter is not instrumented, so the sanitizer's runtime is preloaded. What is suppressed stands in
tests/suppressions/, with the reason. Exit status 1 where a test failed or a sanitizer found something.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLANG = "clang++-19"
LIBOMP = Path("/usr/lib/llvm-19/lib/libomp.so")
SUPPRESSIONS = ROOT / "tests" / "suppressions"
KERNELS = ["test_ops.py", "test_optim.py", "test_optim_dtypes.py", "test_optim_fused.py", "test_vmath.py"]
PROGRAMS = [
    "test_capi.py",
    "test_nn.py",
    "test_layers.py",
    "test_norm_layers.py",
    "test_precision.py",
    "test_precision_models.py",
    "test_regularization.py",
    "test_trainer.py",
    "test_fit.py",
    "test_metrics.py",
    "test_averages.py",
    "test_data_augment.py",
    "test_runtime.py",
    "test_concurrency.py",
]
# Whole trainings are slow here and tell nothing new; tsan has a thread of its own, which tests that count threads would count.
SLOW = "tests/test_optim_dtypes.py::test_low_bit_states_train_to_the_same_loss"
DESELECTED = {
    "asan": [SLOW],
    "tsan": [
        SLOW,
        "tests/test_runtime.py::test_large_work_uses_the_threads_and_small_work_does_not",
        "tests/test_runtime.py::test_regions_can_be_made_to_take_all_threads",
        "tests/test_capi.py::test_one_thread_starts_no_other",
    ],
}


def library(name: str) -> str:
    """The path of one of the compiler's libraries; the name alone where it is not there."""
    return subprocess.run([CLANG, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()


def missing() -> list[str]:
    """Debian packages that are not there."""
    if not shutil.which(CLANG):
        return ["clang-19", "libclang-rt-19-dev", "libomp-19-dev"]
    found = {"libclang-rt-19-dev": Path(library("libclang_rt.tsan-x86_64.so")), "libomp-19-dev": LIBOMP}
    return [package for package, path in found.items() if not path.exists()]


def build(preset: str) -> Path:
    """Build a preset, and put the package together as it would be installed."""
    folder = ROOT / "build" / preset
    configure = ["cmake", "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}", "--log-level=WARNING"]
    for command in (configure, ["cmake", "--build", "--preset", preset]):
        subprocess.run(command, cwd=ROOT, check=True)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "python", site, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["cmake", "--install", str(folder), "--prefix", str(site)], check=True, stdout=subprocess.DEVNULL)
    return site


def environment(preset: str) -> dict[str, str]:
    """What a sanitizer needs."""
    if preset == "clang":
        return {}
    preload = {
        "LD_PRELOAD": f"{library(f'libclang_rt.{preset}-x86_64.so')} {library('libstdc++.so.6')}",
        "PYTHONMALLOC": "malloc",  # every object is an allocation that the sanitizer sees
        "OPENBLAS_NUM_THREADS": "1",
    }
    if preset == "asan":
        return preload | {
            "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
            "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'leaks.txt'}:print_suppressions=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
    return preload | {
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:die_after_fork=0:suppressions={SUPPRESSIONS / 'threads.txt'}"
    }


def run(preset: str, options: list[str]) -> bool:
    """Run the tests on a preset; whether all passed."""
    site = build(preset)
    env = os.environ | {"PYTHONPATH": str(site)} | environment(preset)
    code = f"import trainstep as ts; assert ts.__file__.startswith({str(site)!r}); print(*ts.config()['isa_supported'])"
    levels = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout.split()
    failed = []
    for level in levels:
        # Kernels differ from level to level; what is above them, and how it shares work between threads, does not.
        widest = level == levels[-1]
        files = (KERNELS if widest or preset == "asan" else []) + (PROGRAMS if widest else [])
        if not files:
            continue
        print(f"\n=== {preset}, TRAINSTEP_ISA={level}", flush=True)
        # Output is captured in Python alone: a sanitizer that ends the process writes its report past it.
        command = [sys.executable, "-m", "pytest", "-q", "--capture=sys", *(str(ROOT / "tests" / file) for file in files), *options]
        command += [f"--deselect={test}" for test in DESELECTED.get(preset, [])]
        if subprocess.run(command, env=env | {"TRAINSTEP_ISA": level}, check=False).returncode:
            failed.append(level)
    print(f"\nrun_preset: {preset}: {'failed on ' + ', '.join(failed) if failed else 'all passed'}", flush=True)
    return not failed


def main(argv: list[str]) -> int:
    if packages := missing():
        print(f"run_preset: Debian packages are missing: apt-get install {' '.join(packages)}", file=sys.stderr)
        return 1
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # cmake and ninja of this environment
    presets = [arg for arg in argv if not arg.startswith("-")]
    passed = [run(preset, [arg for arg in argv if arg.startswith("-")]) for preset in presets]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
