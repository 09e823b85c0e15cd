"""The machine side: random numbers, threads, ISA levels, fork, and calls from many threads at once."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, init

from .helpers import Array, assert_same_bits, output_of, run_python

pytestmark = pytest.mark.one_level  # random numbers come from no kernel of a level

LINUX = sys.platform == "linux"
OPENMP = ts.config()["openmp"]
needs_threads = pytest.mark.skipif(not OPENMP, reason="built without OpenMP")
needs_linux = pytest.mark.skipif(not LINUX, reason="affinity masks and /proc are Linux's")

# No thread variable but those that a test sets.
CLEAN: dict[str, str | None] = {
    "TRAINSTEP_NUM_THREADS": None,
    "OMP_NUM_THREADS": None,
    "OMP_THREAD_LIMIT": None,
    "OMP_DYNAMIC": None,
}
PRINT_THREADS = "import trainstep as ts; print(ts.get_num_threads(), ts.config()['num_threads'])"


# --- random numbers --------------------------------------------------------------------------------------------------------------


# kat_vectors of Random123 1.14, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    words = [tuple(int(word, 16) for word in text.split()) for text in (counter, key, expected)]
    assert _core.philox4x32(words[0], words[1]) == words[2]


def uniform(n: int, seed: int, stream: int = 0, low: float = 0.0, high: float = 1.0, dtype: Any = np.float64) -> Array:
    out = np.full(n, np.nan, dtype)
    _core.random_uniform(out, seed, stream, low, high)
    return out


def gaussian(n: int, seed: int, stream: int = 0, std: float = 1.0, dtype: Any = np.float64) -> Array:
    out = np.full(n, np.nan, dtype)
    _core.random_normal(out, seed, stream, std)
    return out


def kolmogorov_smirnov(values: Array, cdf: Array) -> float:
    """sqrt(n) times the largest distance between the empirical and the exact distribution; above 1.95 once in 1000."""
    n = len(values)
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * float(max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()))


N = 200_000


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_uniform_is_uniform(dtype: np.dtype, seed: int) -> None:
    x = uniform(N, seed, low=-2.0, high=3.0, dtype=dtype)
    assert x.min() >= -2.0
    assert x.max() <= 3.0
    unit = (np.sort(x).astype(np.float64) + 2) / 5
    assert kolmogorov_smirnov(unit, unit) < 1.95
    for k in (1, 2, 3, 4):  # moments, to 4 standard errors
        error = math.sqrt((1 / (2 * k + 1) - 1 / (k + 1) ** 2) / N)
        assert np.mean(unit**k) == pytest.approx(1 / (k + 1), abs=4 * error)
    assert len(np.unique(x)) > (0.98 if dtype == np.float32 else 1.0) * N - 1


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_normal_is_normal(dtype: np.dtype, seed: int) -> None:
    x = gaussian(N, seed, std=2.5, dtype=dtype).astype(np.float64) / 2.5
    assert np.isfinite(x).all()
    sorted_x = np.sort(x)
    assert kolmogorov_smirnov(sorted_x, np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in sorted_x])) < 1.95
    for k, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(x**k) == pytest.approx(moment, abs=4 * math.sqrt(variance / N))
    assert 4.0 < np.abs(x).max() < 7.0  # the tails are there: 1 in 16,000 is beyond 4


@pytest.mark.parametrize("draw", [uniform, gaussian])
def test_numbers_in_a_row_are_independent(draw: Any) -> None:
    x = draw(N, 5)
    x = (x - x.mean()) / x.std()
    for lag in (1, 2, 3, 4, 5, 1000):
        assert abs(np.mean(x[:-lag] * x[lag:])) < 4 / math.sqrt(N)
        assert abs(np.mean((x[:-lag] ** 2 - 1) * (x[lag:] ** 2 - 1))) < 4 * np.var(x**2) / math.sqrt(N)


@pytest.mark.parametrize("draw", [uniform, gaussian])
def test_seeds_and_streams_are_independent(draw: Any) -> None:
    draws = [draw(N, seed, stream) for seed, stream in ((0, 0), (1, 0), (2**32, 0), (0, 1), (0, 2**32 - 1))]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(N)
            assert not (a == b).any()


@pytest.mark.parametrize("draw", [uniform, gaussian])
def test_a_draw_is_a_prefix_of_a_longer_one(draw: Any, dtype: np.dtype) -> None:
    whole = draw(70_001, 9, dtype=dtype)
    assert_same_bits(draw(70_001, 9, dtype=dtype), whole)
    for n in (0, 1, 2, 3, 4, 5, 7, 8, 63, 4099, 70_000):
        assert_same_bits(draw(n, 9, dtype=dtype), whole[:n], n)


@pytest.mark.parametrize("draw", [uniform, gaussian])
def test_draws_do_not_depend_on_threads(draw: Any, dtype: np.dtype) -> None:
    with ts.num_threads(1):
        expected = draw(3_000_001, 4, dtype=dtype)
    for n in (2, 3):
        with ts.num_threads(n):
            assert_same_bits(draw(3_000_001, 4, dtype=dtype), expected)


def test_a_seed_gives_the_same_numbers_for_ever() -> None:
    # Two words of Philox make one number: what a seed gives is a promise to whoever wrote a seed down.
    words = [word for block in range(2) for word in _core.philox4x32((block, 0, 3, 0), (7, 0))]
    expected = [(((high << 32 | low) >> 12) + 0.5) / 2**52 for high, low in zip(words[::2], words[1::2], strict=True)]
    np.testing.assert_array_equal(uniform(4, 7, stream=3), expected)
    np.testing.assert_array_equal(uniform(4, 7, stream=3, dtype=np.float32), np.float32(expected))


def test_every_level_draws_the_same_numbers() -> None:
    code = "from trainstep import init; print(init.he_normal((64, 32), rng=11).tobytes().hex())"
    expected = init.he_normal((64, 32), rng=11).tobytes().hex()
    for level in ts.config()["isa_supported"]:
        assert output_of(code, {"TRAINSTEP_ISA": level}) == expected


def test_permutation_is_one() -> None:
    for n in (0, 1, 2, 3, 10, 1797, 100_003):
        order = _core.permutation(n, 3, 0)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_permutation_follows_from_seed_and_epoch() -> None:
    orders = {(seed, epoch): _core.permutation(1000, seed, epoch) for seed in (0, 1, 2**63) for epoch in (0, 1, 7)}
    for key, order in orders.items():
        assert_same_bits(_core.permutation(1000, *key), order)
        for other_key, other in orders.items():
            if key != other_key:
                assert (order == other).sum() < 10  # 1 on average
    # Every element comes to every place equally often.
    counts = np.zeros((5, 5))
    for epoch in range(6000):
        counts[np.arange(5), _core.permutation(5, 1, epoch)] += 1
    chi_square = ((counts - 1200) ** 2 / 1200).sum()
    assert chi_square < 40  # 16 degrees of freedom: above 39.3 once in 1000


# --- configuration ---------------------------------------------------------------------------------------------------------------


def test_config_says_what_runs() -> None:
    config = ts.config()
    assert set(config) == {
        "version",
        "isa",
        "isa_reason",
        "isa_levels",
        "isa_supported",
        "isa_base",
        "openmp",
        "num_threads",
        "matmul_precision",
        "bf16_products",
        "compiler",
        "flags",
    }
    assert config["isa"] in config["isa_supported"]
    assert set(config["isa_supported"]) <= set(config["isa_levels"])
    assert set(config["flags"]) == set(config["isa_levels"])
    assert config["version"] == ts.__version__
    assert config["num_threads"] == ts.get_num_threads() >= 1
    assert isinstance(config["openmp"], bool)
    assert config["matmul_precision"] == ts.get_matmul_precision()
    assert config["bf16_products"]
    assert set(config["isa_base"]) == set(config["isa_levels"]) >= set(config["isa_base"].values())
    assert config["compiler"].startswith(("g++ ", "clang "))
    assert config["isa_reason"]


def test_show_config_prints_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    ts.show_config()
    out = capsys.readouterr().out
    config = ts.config()
    for name in config:
        assert any(line.startswith(name) for line in out.splitlines()), name
    for value in (config["isa"], config["version"], config["compiler"], *config["isa_levels"]):
        assert value in out


@pytest.mark.parametrize("level", ts.config()["isa_supported"])
def test_every_level_can_be_forced(level: str) -> None:
    code = "import json, trainstep as ts; print(json.dumps(ts.config()))"
    config = json.loads(output_of(code, {"TRAINSTEP_ISA": level}))
    assert config["isa"] == level
    assert "TRAINSTEP_ISA" in config["isa_reason"]


def test_without_the_variable_the_widest_level_runs() -> None:
    code = "import json, trainstep as ts; print(json.dumps(ts.config()))"
    for unset in (None, ""):
        config = json.loads(output_of(code, {"TRAINSTEP_ISA": unset}))
        assert config["isa"] == config["isa_supported"][-1]


@pytest.mark.parametrize("level", ["avx1024", "AVX2 ", "0"])
def test_an_unknown_level_is_an_import_error_with_the_list(level: str) -> None:
    result = run_python("import trainstep", {"TRAINSTEP_ISA": level})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: TRAINSTEP_ISA={level}: ")
    for name in ts.config()["isa_supported"]:
        assert name in last


@pytest.mark.parametrize("how", ["script", "-m trainstep", "-mtrainstep", "-Bm trainstep"])
@pytest.mark.parametrize("setting", [{"TRAINSTEP_ISA": "avx1024"}, {"TRAINSTEP_NUM_THREADS": "many"}], ids=lambda s: next(iter(s)))
def test_the_command_says_a_wrong_setting_in_one_line(how: str, setting: dict[str, str | None], tmp_path: Path) -> None:
    script = tmp_path / "trainstep"
    script.write_text("import sys\nfrom trainstep.cli import main\nsys.exit(main())\n")
    run = [sys.executable, *([str(script)] if how == "script" else how.split())]
    environment = {**os.environ, **setting}
    result = subprocess.run([*run, "info"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    name, value = next(iter(setting.items()))
    assert result.stderr.startswith(f"trainstep: error: {name}={value}: ")
    assert result.stderr.count("\n") == 1


# --- threads ---------------------------------------------------------------------------------------------------------------------


@needs_threads
@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"TRAINSTEP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"TRAINSTEP_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
        ({"TRAINSTEP_NUM_THREADS": "5", "OMP_NUM_THREADS": "2"}, 5),
        ({"TRAINSTEP_NUM_THREADS": "", "OMP_NUM_THREADS": "4"}, 4),
        ({"TRAINSTEP_NUM_THREADS": "1"}, 1),
        ({"TRAINSTEP_NUM_THREADS": "4096"}, 4096),
    ],
)
def test_variables_set_the_number_of_threads(env: dict[str, str], expected: int) -> None:
    assert output_of(PRINT_THREADS, CLEAN | env) == f"{expected} {expected}"


@needs_threads
@needs_linux
def test_the_affinity_mask_sets_the_number_of_threads() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for n in {1, 2, len(allowed)}:
        if n <= len(allowed):
            assert output_of(PRINT_THREADS, CLEAN, cpus=set(allowed[-n:])) == f"{n} {n}"
    assert output_of(PRINT_THREADS, CLEAN | {"TRAINSTEP_NUM_THREADS": "3"}, cpus={allowed[0]}) == "3 3"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "2 ", "4097", "99999999999999999999", "1e1"])
def test_a_bad_variable_is_an_import_error(value: str) -> None:
    result = run_python("import trainstep", CLEAN | {"TRAINSTEP_NUM_THREADS": value})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: TRAINSTEP_NUM_THREADS={value}")
    assert "integer from 1 to 4096" in last


@needs_threads
def test_set_num_threads_and_the_context_manager() -> None:
    before = ts.get_num_threads()
    try:
        ts.set_num_threads(3)
        assert ts.get_num_threads() == ts.config()["num_threads"] == 3
        with ts.num_threads(5):
            assert ts.get_num_threads() == 5
            with ts.num_threads(1):
                assert ts.get_num_threads() == 1
            assert ts.get_num_threads() == 5
        assert ts.get_num_threads() == 3
        with pytest.raises(KeyError), ts.num_threads(2):
            raise KeyError
        assert ts.get_num_threads() == 3
        ts.set_num_threads(np.int64(2))
        assert ts.get_num_threads() == 2
    finally:
        ts.set_num_threads(before)


@needs_threads
def test_a_limit_of_threadpoolctl_is_kept() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
import threadpoolctl, trainstep as ts
assert any("trainstep" in library["filepath"] or library["user_api"] == "openmp" for library in threadpoolctl.threadpool_info())
print(ts.get_num_threads())
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    print(ts.get_num_threads())
    ts.set_num_threads(3)
    print(ts.get_num_threads())
print(ts.get_num_threads())
"""
    assert output_of(code, CLEAN | {"OMP_NUM_THREADS": "4"}).split() == ["4", "1", "1", "3"]


@needs_threads
def test_the_context_manager_does_not_make_a_limit_of_threadpoolctl_permanent() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
import threadpoolctl, trainstep as ts
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    with ts.num_threads(3):
        print(ts.get_num_threads())
print(ts.get_num_threads())
"""
    assert output_of(code, CLEAN | {"OMP_NUM_THREADS": "4"}).split() == ["1", "4"]


LARGE_PRODUCT = """
import numpy as np, trainstep as ts
rng = np.random.default_rng(0)
x, w = rng.standard_normal((400, 500), np.float32), rng.standard_normal((500, 600), np.float32)
"""


@needs_threads
@needs_linux
@pytest.mark.parametrize("n", [1, 2, 3])
def test_large_work_uses_the_threads_and_small_work_does_not(n: int) -> None:
    code = (
        LARGE_PRODUCT
        + """
import os
tasks = lambda: len(os.listdir("/proc/self/task"))
ts.ops.dense(x[:2], w[:, :3].copy())
before = tasks()
ts.ops.dense(x[:2], w[:, :3].copy())
ts.ops.relu(x[0])
small = tasks() - before
for _ in range(3): ts.ops.dense(x, w)
print(small, tasks() - before)
"""
    )
    env = CLEAN | {"TRAINSTEP_NUM_THREADS": str(n), "OPENBLAS_NUM_THREADS": "1"}
    assert output_of(code, env) == f"0 {n - 1}"


def test_the_package_prints_nothing_when_imported(tmp_path: Path) -> None:
    assert output_of(f"import os; os.chdir({str(tmp_path)!r}); import trainstep") == ""
    assert not list(tmp_path.iterdir())


def test_the_table_of_threads_has_no_cliff() -> None:
    """More work gets as many threads or more, none of them less than its share, and large work gets all."""
    share = 4e3
    works = np.geomspace(10, 1e8, 400)
    for most in (1, 2, 3, 7, 16, 64):
        chosen = [_core.threads_worth(ns, share, most) for ns in works]
        assert chosen == sorted(chosen)
        assert all(n == 1 or ns / n >= share for n, ns in zip(chosen, works, strict=True))
        assert all(n == most or ns / (n + 1) < share or ns < 2 * share for n, ns in zip(chosen, works, strict=True))
        assert chosen[0] == 1
        assert chosen[-1] == most


@needs_threads
@needs_linux
def test_regions_can_be_made_to_take_all_threads() -> None:
    """For the benchmark that shows what the choice costs; the results are the same."""
    code = (
        LARGE_PRODUCT
        + """
import os
tasks = lambda: len(os.listdir("/proc/self/task"))
alone = ts.ops.dense(x[:2], w[:, :40].copy())
before = tasks()
ts._core.share_always(True)
shared = ts.ops.dense(x[:2], w[:, :40].copy())
print(tasks() - before, (alone == shared).all())
"""
    )
    env = CLEAN | {"TRAINSTEP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1"}
    assert output_of(code, env) == "2 True"
