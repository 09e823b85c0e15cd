"""Numbers of other widths: gradients of any float, bfloat16 parameters, states in bfloat16 and in 8 bits."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim

from .helpers import Array, Bfloat16, assert_same_bits, normal
from .optim_rules import CLASSES, HARD_OPTIONS, NO_LOW_BITS, ON_WHOLE_ARRAYS, advance, arrays_of, assert_close, gradient, start

EACH_RULE = pytest.mark.parametrize("rule", CLASSES)
WITH_LOW_BITS = [rule for rule in CLASSES if rule not in NO_LOW_BITS]
LOW_BITS = [(rule, "bfloat16") for rule in WITH_LOW_BITS] + [(rule, "8bit") for rule in _core.low_bit_optimizers]
EACH_LOW_BITS = pytest.mark.parametrize(("rule", "state_dtype"), LOW_BITS)
LENGTHS = (1, 67, 4095, 4096, 20_000, 40_003)


def low(rule: str, params: Any, state_dtype: str, **options: Any) -> optim.Optimizer:
    return CLASSES[rule](params, state_dtype=state_dtype, **options)  # type: ignore[call-arg]


# --- gradients and parameters --------------------------------------------------------------------------------------------------


@EACH_RULE
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_gradients_of_any_float(rule: str, kind: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    lengths = (1, 67, 40_003)
    params = [start(rng, dtype, n) for n in lengths]
    theirs = [w.copy() for w in params]
    given: list[Any] = [normal(rng, np.float32, n).astype("float32" if kind == "bfloat16" else kind) for n in lengths]
    if kind == "bfloat16":
        given = [Bfloat16(g) for g in given]
    cast = [(g.values if isinstance(g, Bfloat16) else g).astype(dtype) for g in given]
    optimizer, plain = (CLASSES[rule](p, **HARD_OPTIONS[rule]) for p in (params, theirs))
    for _ in range(2):
        optimizer.step(given)
        plain.step(cast)
    for got, wanted in zip((*params, *arrays_of(optimizer)), (*theirs, *arrays_of(plain)), strict=True):
        if rule in ON_WHOLE_ARRAYS:  # their norms are added up in other pieces
            assert_close(got, wanted, dtype)
        else:
            assert_same_bits(got, wanted)
    assert optimizer.step(given, clip_norm=50.0) == pytest.approx(plain.step(cast, clip_norm=50.0), rel=1e-6)
    for got, wanted in zip(params, theirs, strict=True):
        assert_close(got, wanted, np.float32)


@EACH_RULE
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_short_gradients_are_zeroed(rule: str, kind: str, rng: np.random.Generator) -> None:
    g: Any = normal(rng, np.float16, 100) if kind == "float16" else Bfloat16(normal(rng, np.float32, 100))
    CLASSES[rule]([np.ones(100, np.float32)], **HARD_OPTIONS[rule]).step([g], zero_grads=True)
    assert not (g.values if isinstance(g, Bfloat16) else g).any()


@EACH_RULE
def test_a_bfloat16_parameter_is_stepped_in_float32(rule: str, threads: int, rng: np.random.Generator) -> None:
    lengths = (1, 67, 40_003)
    params = [Bfloat16(start(rng, np.float32, n)) for n in lengths]
    masters = [w.values.copy() for w in params]
    optimizer, plain = CLASSES[rule](params, **HARD_OPTIONS[rule]), CLASSES[rule](masters, **HARD_OPTIONS[rule])
    for step in range(1, 11):
        grads = [gradient(w, step, normal(rng, np.float32, len(w))) for w in masters]
        optimizer.step(grads)
        plain.step(grads)
    for i, (w, master) in enumerate(zip(params, masters, strict=True)):
        mine, theirs = optimizer.state[i], plain.state[i]
        assert list(mine) == [*theirs, "master"]
        assert_same_bits(mine["master"], master)
        assert_same_bits(w.words, Bfloat16(master).words)
        for name, value in theirs.items():
            np.testing.assert_array_equal(mine[name], value)


def test_a_bfloat16_parameter_is_resumed_with_its_master(rng: np.random.Generator) -> None:
    params = [Bfloat16(start(rng, np.float32, 100))]
    optimizer = optim.Adam(params, lr=1e-4)
    grads = [[normal(rng, np.float32, 100)] for _ in range(20)]
    for g in grads[:10]:
        optimizer.step(g)
    other_params = [Bfloat16(params[0].values)]
    other = optim.Adam(other_params)
    other.load_state_dict(optimizer.state_dict())
    for g in grads[10:]:
        optimizer.step(g)
        other.step(g)
    assert_same_bits(other_params[0].words, params[0].words)
    assert_same_bits(other.state[0]["master"], optimizer.state[0]["master"])


def test_parameters_of_several_dtypes(rng: np.random.Generator) -> None:
    def run(*which: int) -> list[Array]:
        all_params: list[Any] = [np.ones(50, np.float32), np.ones(50), Bfloat16(np.ones(50))]
        params = [all_params[i] for i in which]
        optimizer = optim.Adam(params, lr=0.1)
        for g in (1.0, 0.5):
            optimizer.step([np.full(50, g, np.float32) for _ in which])
        return [w.values if isinstance(w, Bfloat16) else w for w in params]

    for got, wanted in zip(run(0, 1, 2), [run(i)[0] for i in range(3)], strict=True):
        assert_same_bits(got, wanted)


# --- states in fewer bits ------------------------------------------------------------------------------------------------------


@EACH_LOW_BITS
def test_low_bit_states_lead_nearly_as_far(rule: str, state_dtype: str, rng: np.random.Generator) -> None:
    starts, noises = ([f(rng, np.float32, n) for n in LENGTHS] for f in (start, normal))
    options = HARD_OPTIONS[rule] | {"l1": 0.0}  # nothing that changes its sign
    ends = []
    for kind in (None, state_dtype):
        params = [w.copy() for w in starts]
        optimizer = CLASSES[rule](params, **options) if kind is None else low(rule, params, kind, **options)
        advance(optimizer, params, noises, range(1, 31))
        ends.append(params)
    for n, w, exact, got in zip(LENGTHS, starts, *ends, strict=True):
        if state_dtype == "8bit" and n < 4096:
            assert_same_bits(got, exact, n)
            continue
        if n >= 4095:
            moved, off = (float(np.sqrt(np.mean(a**2))) for a in (exact - w, got - exact))
            assert 0 < off < 0.2 * moved, n


def distance_to_the_next(value: Array, name: str, state_dtype: str) -> Array:
    """How far a stored state may lie from the exact one: one step of its last digit, and of the lowest code in 8 bits."""
    if state_dtype == "bfloat16":
        return np.abs(value) * 2**-7
    largest = np.array([np.abs(value[i : i + 256]).max() for i in range(0, value.size, 256)]).repeat(256)[: value.size]
    lowest = 2**-30 if name in ("sum", "square_avg", "exp_avg_sq", "max_exp_avg_sq") else 2**-14
    return np.abs(value) / 8 + 1.2 * lowest * largest


@EACH_LOW_BITS
@pytest.mark.parametrize("n", [4096, 4097, 4096 + 255, 4096 + 257, 40_003])
def test_a_step_rounds_what_it_makes_of_decoded_states(
    rule: str, state_dtype: str, n: int, threads: int, rng: np.random.Generator
) -> None:
    params, noise, options = [start(rng, np.float32, n)], normal(rng, np.float32, n), HARD_OPTIONS[rule]
    optimizer = low(rule, params, state_dtype, **options)
    for step in range(1, 5):
        exact_params = [params[0].copy()]
        exact = CLASSES[rule](exact_params, **options)
        exact.load_state_dict(optimizer.state_dict())
        for each, w in ((exact, exact_params[0]), (optimizer, params[0])):
            each.step([gradient(w, step, noise)])
        if rule not in ON_WHOLE_ARRAYS:  # their second pass reads what the first has rounded
            assert_close(params[0], exact_params[0], np.float32, step)
        for name, value in exact.state[0].items():
            got = optimizer.state[0][name]
            if isinstance(value, np.ndarray):
                assert (np.abs(got - value) <= distance_to_the_next(value, name, state_dtype)).all(), (name, step)
                assert np.array_equal(got == 0, value == 0) or state_dtype == "8bit"


@pytest.mark.parametrize(("rule", "state_dtype"), [low for low in LOW_BITS if low[0] not in ON_WHOLE_ARRAYS])
def test_not_a_number_stays_where_it_is(rule: str, state_dtype: str, rng: np.random.Generator) -> None:
    n, at, length = 5000, 300, 256 if state_dtype == "8bit" else 1
    others = np.r_[0 : at // length * length, (at // length + 1) * length : n]
    g = normal(rng, np.float32, n)
    for bad in (0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000):
        spoilt = g.copy()
        spoilt.view(np.uint32)[at] = bad
        pair = []
        for each in (g, spoilt):
            params = [np.full(n, 0.5, np.float32)]
            optimizer = low(rule, params, state_dtype, **HARD_OPTIONS[rule] | {"lr": 0.01})
            for _ in range(2):
                optimizer.step([each.copy()])
            pair.append([params[0], *arrays_of(optimizer)])
        for expected, got in zip(*pair, strict=True):
            assert_same_bits(got[others], expected[others], hex(bad))
        moved = [a[at] for a in pair[1][1:]]
        assert not all(np.isfinite(moved)), hex(bad)
        if state_dtype == "8bit":
            assert all(np.isnan(a[at // length * length :][:length]).all() for a in pair[1][1:] if not np.isfinite(a[at])), hex(bad)


@EACH_LOW_BITS
def test_low_bit_states_take_less_memory(rule: str, state_dtype: str) -> None:
    n = 2**16
    w = [np.ones(n, np.float32)]
    options = HARD_OPTIONS[rule]
    states = len(arrays_of(CLASSES[rule](w, **options)))
    optimizer = low(rule, w, state_dtype, **options)
    assert CLASSES[rule](w, **options).state_nbytes == 4 * states * n
    if state_dtype == "bfloat16":
        assert optimizer.state_nbytes == 2 * n * states
    else:
        assert n * states <= optimizer.state_nbytes <= 1.05 * n * states
    for value in arrays_of(optimizer):
        assert (value.dtype, value.shape) == (np.float32, (n,))


@EACH_LOW_BITS
def test_low_bit_states_follow_from_the_seed_alone(rule: str, state_dtype: str, rng: np.random.Generator) -> None:
    starts, noises = ([f(rng, np.float32, n) for n in LENGTHS] for f in (start, normal))

    def run(threads: int, seed: int) -> list[bytes]:
        params = [w.copy() for w in starts]
        with ts.num_threads(threads):
            optimizer = low(rule, params, state_dtype, seed=seed, **HARD_OPTIONS[rule])
            advance(optimizer, params, noises, range(1, 6))
        return [a.tobytes() for a in (*params, *arrays_of(optimizer))]

    expected = run(1, 0)
    assert run(2, 0) == run(3, 0) == expected
    if state_dtype == "bfloat16":
        assert run(1, 1) != expected
        assert run(1, -1) == run(1, 2**64 - 1)


def test_bfloat16_states_are_rounded_up_as_often_as_is_fair() -> None:
    # 1 + 2^-10 lies an eighth of the way from 1 to the next bfloat16.
    n = 100_000
    optimizer = optim.SGD([np.zeros(n, np.float32)], lr=0.0, momentum=0.5, state_dtype="bfloat16")
    optimizer.step([np.full(n, 1 + 2**-10, np.float32)])
    values, counts = np.unique(optimizer.state[0]["momentum_buffer"], return_counts=True)
    assert values.tolist() == [1.0, 1 + 2**-7]
    assert abs(counts[1] / n - 1 / 8) < 5 * np.sqrt(1 / 8 * 7 / 8 / n)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
def test_elements_states_and_steps_are_rounded_each_for_itself(state_dtype: str) -> None:
    # Both moments of all elements lie half way between two codes, so that each is up or down with the same probability.
    n, half = 100_096, 1 + 2**-8 if state_dtype == "bfloat16" else 1 + 2**-4
    optimizer = optim.Adam([np.zeros(n, np.float32)], betas=(0.0, 0.0), lr=0.0, state_dtype=state_dtype)
    ups = []
    for _ in range(2):
        for g, name in ((half, "exp_avg"), (np.sqrt(half), "exp_avg_sq")):
            optimizer.step([np.full(n, g, np.float32)])
            ups.append(np.where(optimizer.state[0][name] > half, 1.0, -1.0))
    optimizer.step([np.full(n, half, np.float32)])
    by_state = [np.where(a > a.mean(), 1.0, -1.0) for a in arrays_of(optimizer)]
    pairs = [*combinations(ups, 2), tuple(by_state)]
    pairs += [(up, np.roll(up, shift)) for up in ups for shift in (1, 2, 4, 16, 32, 64, 128, 192, 256, 1024, 16384)]
    for i, (a, b) in enumerate(pairs):
        assert abs((a * b).mean()) < 5 / np.sqrt(n), i


@pytest.mark.parametrize("cls", [optim.Adagrad, optim.RMSprop, optim.Adam])
def test_squares_are_never_rounded_to_0(cls: Any, rng: np.random.Generator) -> None:
    n = 20_000
    g = (10 ** rng.uniform(-16, 0, n)).astype(np.float32)
    g[::5] = 0
    optimizer = cls([np.zeros(n, np.float32)], state_dtype="8bit")
    for _ in range(3):
        optimizer.step([g])
    squares = optimizer.state[0]["sum" if cls is optim.Adagrad else "square_avg" if cls is optim.RMSprop else "exp_avg_sq"]
    assert np.array_equal(squares == 0, g == 0)


def test_states_of_small_arrays_stay_as_they_are() -> None:
    optimizer = optim.Adam([np.ones(4095, np.float32), np.ones(4096, np.float32)], state_dtype="8bit")
    assert optimizer.state_nbytes == 2 * 4095 * 4 + 2 * (4096 + 4096 // 256)


def digits_problem() -> tuple[Array, Array, tuple[int, ...], str, int]:
    x, y = ts.data.load_digits()
    return x, y, (64, 256, 10), "softmax_cross_entropy", 15


def regression_problem() -> tuple[Array, Array, tuple[int, ...], str, int]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8192, 64))
    y = np.tanh(x @ rng.standard_normal((64, 32)) / 8) @ rng.standard_normal((32, 1)) / 5
    return x, y + 0.3 * rng.standard_normal(y.shape), (64, 128, 128, 1), "mse", 5


TRAINED: list[tuple[Any, dict[str, Any]]] = [
    (optim.AdamW, {}),
    (optim.SGD, {"lr": 0.02, "momentum": 0.9}),
    (optim.RMSprop, {"lr": 1e-3, "momentum": 0.5}),
    (optim.Adagrad, {}),
    (optim.Lion, {"lr": 3e-4}),
    (optim.LAMB, {"lr": 3e-3}),
]


@pytest.mark.one_level
@pytest.mark.parametrize("problem", [digits_problem, regression_problem])
@pytest.mark.parametrize(("cls", "options"), TRAINED, ids=lambda v: getattr(v, "__name__", ""))
def test_low_bit_states_train_to_the_same_loss(cls: Any, options: dict[str, Any], problem: Any) -> None:
    x, y, widths, loss, epochs = problem()
    reached = {}
    for state_dtype in (None, "bfloat16", "8bit"):
        runs = []
        for seed in range(3):
            layers = [ts.nn.Dense(n, m, activation=None if m == widths[-1] else "relu") for n, m in pairwise(widths)]
            optimizer = cls(**options, state_dtype=state_dtype)
            trainer = ts.Trainer(ts.nn.Sequential(*layers, seed=seed), loss=loss, optimizer=optimizer)
            with ts.num_threads(1):  # quick on a busy machine too
                runs.append(trainer.fit(x, y, epochs=epochs, batch_size=64, progress=False).history["loss"][-1])
        reached[state_dtype] = np.mean(runs)
    assert reached["bfloat16"] == pytest.approx(reached[None], rel=0.02)
    assert reached["8bit"] == pytest.approx(reached[None], rel=0.02)
