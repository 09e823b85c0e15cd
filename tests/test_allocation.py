"""A training step allocates nothing once it is warm: neither the core, nor OpenMP, nor the binding, nor Python.

Python's small objects (the float that a step returns) come from its own arenas, so that a whole loop of steps asks the heap for
nothing. That is what is counted: every allocation of the process, by a library that stands in front of malloc.
"""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import trainstep as ts

from .helpers import run_python

pytestmark = [
    pytest.mark.one_level,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter stands in front of glibc's malloc"),
]

CODE = """
import ctypes, itertools, json, os
import numpy as np
import trainstep as ts

counter = ctypes.CDLL(os.environ["LD_PRELOAD"])
counter.counter_stop.restype = ctypes.c_long

class Place(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("start", ctypes.c_void_p)]

def first_stack():
    addresses, result = (ctypes.c_void_p * 16)(), []
    for address in addresses[: counter.counter_first_stack(addresses)]:
        place = Place()
        if ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(place)):
            result.append(f"{os.path.basename(place.file.decode())}+{address - place.base:#x} {(place.name or b'').decode()}")
    return result

def allocations(call, times=5):
    for _ in range(3):
        call()
    rounds = itertools.repeat(None, times)
    counter.counter_start()
    for _ in rounds:
        call()
    n = counter.counter_stop()
    return n, first_stack() if n else []

result = {"the counter": allocations(lambda: bytearray(5000))}
rng = np.random.default_rng(0)
for dtype, threads, widths in itertools.product(("float32", "float64"), (1, 2), ((4, 16, 3), (64, 64, 10), (200, 300, 10))):
    ts.set_num_threads(threads)
    rows = 128 if widths[0] == 200 else 64
    square = rng.standard_normal((600, 600)).astype(dtype)
    for _ in range(10):
        ts.ops.dense(square, square)  # every thread has packed once
    classes, x = widths[-1], rng.standard_normal((rows, widths[0])).astype(dtype)
    labels, images = rng.integers(0, classes, rows), rng.integers(0, 256, x.shape).astype("uint8")
    smoothed, weights = ts.losses.SoftmaxCrossEntropy(weight=[1.0] * classes, label_smoothing=0.1), np.ones(rows, dtype)
    measured = {"metrics": ["f1", ts.metrics.TopK(2)], "average": ts.averages.EMA()}
    for x_, loss, y_kind, weight, optimizer, more in (
        (x, "softmax_cross_entropy", "labels", None, ts.optim.Adam(), {}),
        (images, "softmax_cross_entropy", "one-hot", None, ts.optim.SGD(momentum=0.9), {}),
        (x, "mse", "values", None, ts.optim.AdamW(), {}),
        (x, smoothed, "labels", weights, ts.optim.Adam(), {}),
        (x, "softmax_cross_entropy", "labels", None, ts.optim.SGD(), measured),
        (x, "mse", "values", None, ts.optim.SGD(), {"metrics": ["r2"]}),
    ):
        layers = [ts.nn.Dense(i, o, activation="relu") for i, o in itertools.pairwise(widths)]
        trainer = ts.Trainer(ts.nn.Sequential(*layers, dtype=dtype), loss, optimizer, **more)
        y = labels if y_kind == "labels" else np.eye(classes, dtype=dtype)[labels]
        order = np.random.default_rng(1).permutation(rows)
        data = trainer._core.data(x_, y, "fit", "x", "y", weight)
        weighted = "" if weight is None else ", weighted"
        kinds = f"{y_kind}{weighted}{', '.join(['', *more])}"
        case = f"{dtype}, {threads} threads, {'-'.join(map(str, widths))}, x {x_.dtype}, {kinds}: "
        result[case + "step"] = allocations(lambda: trainer.step(x_, y, weight))
        result[case + "epoch in order"] = allocations(lambda: trainer._core.fit_epoch(data, rows // 3, False, None))
        result[case + "epoch, shuffled"] = allocations(lambda: trainer._core.fit_epoch(data, rows // 3, False, order))
        if not more:  # metrics of a measurement have sums of their own
            result[case + "evaluate"] = allocations(lambda: trainer._core.evaluate(data, rows // 3))
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counting library, made by the system's compiler."""
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("something else is preloaded")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        assert not os.environ.get("CI"), "CI has a compiler"
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("counter") / "liballocation_counter.so"
    source = Path(__file__).with_name("allocation_counter.cpp")
    command = [*compiler.split(), "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-builtin", str(source), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    return library


@pytest.fixture(scope="module")
def counts(counter: Path) -> dict[str, Any]:
    """The allocations of 5 calls in every case, and where the first came from."""
    result = run_python(CODE, {"LD_PRELOAD": str(counter), "TRAINSTEP_NUM_THREADS": None, "PYTHONMALLOC": None}, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_counter_counts(counts: dict[str, Any]) -> None:
    assert counts["the counter"][0] == 5


@pytest.mark.parametrize("what", ["step", "epoch in order", "epoch, shuffled", "evaluate"])
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.skipif(not ts.config()["openmp"], reason="no OpenMP"))])
def test_training_allocates_nothing(counts: dict[str, Any], what: str, threads: int) -> None:
    chosen = {case: found for case, found in counts.items() if case.endswith(f": {what}") and f" {threads} threads" in case}
    assert len(chosen) == (24 if what == "evaluate" else 36)
    assert {case: found for case, found in chosen.items() if found[0]} == {}
