"""Schedules: each against its formula step by step, as the rate of an optimizer, and through fit."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import schedules
from trainstep.nn import Dense, Sequential
from trainstep.schedules import Plateau, Schedule

pytestmark = pytest.mark.one_level

STEPS = 60


def cycle(t: int, half: int) -> tuple[float, int]:
    """How far t is in its cycle, from 0 to 2, and the number of the cycle."""
    return (t % (2 * half)) / half, t // (2 * half)


def one_cycle(t: int) -> float:
    """one_cycle(1.0, 40) in words of its own: up over 11 steps, down over the other 28."""
    first, last = 1 / 25, 1 / 25e4
    if t <= 11:
        return first + (1 - first) * (1 - math.cos(math.pi * t / 11)) / 2
    return last + (1 - last) * (1 + math.cos(math.pi * min((t - 11) / 28, 1))) / 2


def restarted(t: int) -> float:
    length = 5
    while t >= length:
        t, length = t - length, 2 * length
    return 0.1 + 0.9 * (1 + math.cos(math.pi * t / length)) / 2


# A schedule, and its formula for one step.
FORMULAS: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "constant": (schedules.constant(0.3), lambda t: 0.3),
    "step_decay": (schedules.step_decay(0.8, 0.5, 7), lambda t: 0.8 * 0.5 ** (t // 7)),
    "piecewise": (schedules.piecewise(1.0, {20: 0.1, 5: 0.5}), lambda t: 1.0 if t < 5 else 0.5 if t < 20 else 0.05),
    "exponential": (schedules.exponential(2.0, 0.05), lambda t: 2 * math.exp(-0.05 * t)),
    "inverse_time": (schedules.inverse_time(0.2, 1.0), lambda t: 0.2 / (1 + t)),
    "inverse_time, recursive": (
        schedules.inverse_time(0.2, 0.03, recursive=True),
        lambda t: 0.2 / math.prod(1 + 0.03 * i for i in range(1, t + 1)),
    ),
    "cosine": (schedules.cosine(1.0, 40, 0.2), lambda t: 0.2 + 0.4 * (1 + math.cos(math.pi * min(t, 40) / 40))),
    "linear": (schedules.linear(0.1, 50, 0.6), lambda t: 0.1 + 0.5 * min(t, 50) / 50),
    "inverse_sqrt": (schedules.inverse_sqrt(3.0), lambda t: 3 / math.sqrt(max(t, 1))),
    "polynomial": (schedules.polynomial(1.0, 40, 1.7, 0.1), lambda t: 0.1 + 0.9 * (1 - min(t, 40) / 40) ** 1.7),
    "triangular": (schedules.cyclical(0.1, 0.9, 6), lambda t: 0.1 + 0.8 * (1 - abs(cycle(t, 6)[0] - 1))),
    "welch": (schedules.cyclical(0.1, 0.9, 6, "welch"), lambda t: 0.1 + 0.8 * (1 - (cycle(t, 6)[0] - 1) ** 2)),
    "hann, half": (
        schedules.cyclical(0.1, 0.9, 6, "hann", "half"),
        lambda t: 0.1 + 0.8 * (1 - math.cos(math.pi * cycle(t, 6)[0])) / 2 / 2 ** cycle(t, 6)[1],
    ),
    "triangular, exp": (
        schedules.cyclical(0.1, 0.9, 6, decay=("exp", 0.95)),
        lambda t: 0.1 + 0.8 * (1 - abs(cycle(t, 6)[0] - 1)) * 0.95**t,
    ),
    "one_cycle": (schedules.one_cycle(1.0, 40), one_cycle),
    "cosine_restarts": (schedules.cosine_restarts(1.0, 5, 2, 0.1), restarted),
    "cosine_restarts, alike": (
        schedules.cosine_restarts(1.0, 9),
        lambda t: (1 + math.cos(math.pi * (t % 9) / 9)) / 2,
    ),
    "warmup": (
        schedules.warmup(schedules.exponential(2.0, 0.1), 8, 0.5),
        lambda t: 0.5 + 1.5 * t / 8 if t < 8 else 2 * math.exp(-0.1 * (t - 8)),
    ),
    "warmup of one's own": (schedules.warmup(lambda t: 1 / (1 + t), 3), lambda t: t / 3 if t < 3 else 1 / (t - 2)),
    "join": (
        schedules.join({30: schedules.constant(0.1), 0: schedules.linear(1.0, 10)}),
        lambda t: 1 - min(t, 10) / 10 if t < 30 else 0.1,
    ),
    "deepseek": (
        schedules.deepseek(1.0, 50, warmup=4),
        lambda t: t / 4 if t < 4 else 1.0 if t < 40 else 0.316 if t < 45 else 0.316**2,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_formula(name: str) -> None:
    schedule, formula = FORMULAS[name]
    exact = [formula(t) for t in range(STEPS)]
    table = schedule(np.arange(STEPS))
    assert table.shape == (STEPS,)
    np.testing.assert_allclose(table, exact, rtol=1e-12, atol=1e-15)
    order = np.random.default_rng(0).permutation(STEPS).reshape(6, -1)
    np.testing.assert_array_equal(schedule(order), table[order])  # of one step whatever is asked for beside it
    assert [schedule(t) for t in range(STEPS)] == table.tolist()
    assert type(schedule(3)) is float


def test_every_function_is_met() -> None:
    assert {schedule.name for schedule, _ in FORMULAS.values()} == set(schedules.SCHEDULES)
    assert set(schedules.SCHEDULES) | {"Plateau", "Schedule", "iterations"} == set(schedules.__all__)


def test_the_tables_of_the_notes() -> None:
    assert [round(schedules.inverse_time(0.2, 1.0)(t), 3) for t in (1, 2, 3, 4)] == [0.1, 0.067, 0.05, 0.04]
    halved = schedules.step_decay(0.1, 0.1, 1)
    assert [round(halved(t), 6) for t in range(3)] == [0.1, 0.01, 0.001]
    deep = schedules.deepseek(4.2e-4, 100_000)
    assert deep(0) == 0
    assert deep(2000) == 4.2e-4
    assert deep(80_000) == pytest.approx(4.2e-4 * 0.316)
    assert deep(90_000) == pytest.approx(4.2e-5, rel=0.01)


def test_far_steps() -> None:
    far = 2**53
    assert schedules.exponential(1.0, 1.0)(far) == 0
    assert schedules.cosine(1.0, 10, 0.25)(far) == 0.25
    assert schedules.cyclical(0.0, 1.0, 3, decay="half")(10**6) == 0
    assert schedules.inverse_time(1.0, 1.0, recursive=True)(1000) == 0
    assert 0 <= schedules.cosine_restarts(1.0, 3, 2)(10**12) <= 1


@pytest.mark.parametrize("name", [name for name in FORMULAS if "own" not in name])
def test_a_schedule_is_a_value(name: str) -> None:
    schedule, _ = FORMULAS[name]
    again = pickle.loads(pickle.dumps(schedule))
    for twin in (again, copy.deepcopy(schedule)):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        np.testing.assert_array_equal(twin(np.arange(STEPS)), schedule(np.arange(STEPS)))
    assert schedule != schedules.constant(123.0)
    if not name.startswith(("warmup", "join", "piecewise")):
        assert eval(repr(schedule), {schedule.name: schedules.SCHEDULES[schedule.name]}) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(-1.0), "constant: lr is -1.0"),
        (lambda: schedules.constant("a"), "constant: lr is a str"),
        (lambda: schedules.step_decay(1.0, 0.5, 0), "step_decay: every is 0"),
        (lambda: schedules.step_decay(1.0, math.nan, 1), "step_decay: factor is nan"),
        (lambda: schedules.piecewise(1.0, [1]), "piecewise: factors is a list"),
        (lambda: schedules.piecewise(1.0, {-1: 0.5}), "piecewise: a step of factors is -1"),
        (lambda: schedules.piecewise(1.0, {1: -0.5}), r"piecewise: factors\[1\] is -0.5"),
        (lambda: schedules.exponential(1.0, -1.0), "exponential: k is -1.0"),
        (lambda: schedules.inverse_time(1.0, 1.0, recursive=1), "inverse_time: recursive is a int"),
        (lambda: schedules.cosine(1.0, 1.5), "cosine: total is"),
        (lambda: schedules.linear(1.0, 0), "linear: total is 0"),
        (lambda: schedules.polynomial(1.0, 10, 0.0), "polynomial: power is 0.0"),
        (lambda: schedules.cyclical(0.0, 1.0, 5, "square"), "cyclical: shape is 'square'"),
        (lambda: schedules.cyclical(0.0, 1.0, 5, decay="exp"), "cyclical: decay is 'exp'"),
        (lambda: schedules.cyclical(0.0, 1.0, 5, decay=("exp", 2.0)), "cyclical: gamma of decay is 2.0"),
        (lambda: schedules.one_cycle(1.0, 1), "one_cycle: total is 1"),
        (lambda: schedules.one_cycle(1.0, 10, pct_start=1.0), "one_cycle: pct_start is 1.0"),
        (lambda: schedules.one_cycle(1.0, 10, pct_start=0.6, three_phase=True), "one_cycle: pct_start is 0.6"),
        (lambda: schedules.one_cycle(1.0, 10, anneal_strategy="log"), "one_cycle: anneal_strategy is 'log'"),
        (lambda: schedules.cosine_restarts(1.0, 0), "cosine_restarts: period is 0"),
        (lambda: schedules.warmup(0.1, 5), "warmup: schedule is a float"),
        (lambda: schedules.warmup(schedules.constant(0.1), 0), "warmup: steps is 0"),
        (lambda: schedules.warmup(Plateau(0.1), 5), "warmup: schedule is a Plateau"),
        (lambda: schedules.join({}), "join: schedules begin at no step"),
        (lambda: schedules.join({5: schedules.constant(0.1)}), "join: schedules begin at 5"),
        (lambda: schedules.join([schedules.constant(0.1)]), "join: schedules is a list"),
        (lambda: schedules.deepseek(1.0, 1000), "deepseek: warmup is 2000"),
        (lambda: schedules.constant(0.1)(-1), "constant: t is -1"),
        (lambda: schedules.constant(0.1)(0.5), "constant: t is 0.5"),
        (lambda: Plateau(0.0), "Plateau: lr is 0.0"),
        (lambda: Plateau(0.1, factor=1.0), "Plateau: factor is 1.0"),
        (lambda: Plateau(0.1, patience=-1), "Plateau: patience is -1"),
        (lambda: Plateau(0.1, mode="least"), "Plateau: mode is 'least'"),
        (lambda: Plateau(0.1, threshold_mode="both"), "Plateau: threshold_mode is 'both'"),
        (lambda: Plateau(0.1, monitor=3), "Plateau: monitor is a int"),
        (lambda: Plateau(0.1).step("low"), "step: metric is a str"),
        (lambda: schedules.iterations(0, 10, 5), "iterations: epochs is 0"),
        (lambda: schedules.iterations(1, 10, 0), "iterations: batch_size is 0"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_iterations() -> None:
    assert schedules.iterations(2, 1000, 64) == 32
    assert schedules.iterations(2, 1000, 64, drop_last=True) == 30
    assert schedules.iterations(0.5, 1000, 64) == 8
    assert schedules.iterations(0.001, 10, 10) == 1


# --- plateau -------------------------------------------------------------------------------------------------------------------


def test_plateau_waits_falls_and_cools_down() -> None:
    plateau = Plateau(1.0, factor=0.5, patience=2, cooldown=1, min_lr=0.2)
    rates = []
    for metric in (5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0):
        plateau.step(metric)
        rates.append(plateau(0))
    # Better twice, then three without: down. One call of cooldown, three without: down again, and then to min_lr.
    assert rates == [1.0] * 4 + [0.5] * 4 + [0.25] * 4 + [0.2]


def test_plateau_of_what_should_grow() -> None:
    plateau = Plateau(1.0, patience=0, mode="max", threshold=0.1, threshold_mode="abs")
    for accuracy in (0.5, 0.65):
        plateau.step(accuracy)
    assert plateau.lr == 1.0
    plateau.step(0.7)  # by less than the threshold
    assert plateau.lr == pytest.approx(0.1)
    plateau.step(math.nan)
    assert plateau.lr == pytest.approx(0.01)


# --- training ------------------------------------------------------------------------------------------------------------------


def model_and_data(seed: int = 0) -> tuple[Sequential, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return Sequential(Dense(5, 8, activation="tanh"), Dense(8, 3), seed=1), rng.standard_normal((50, 5)), rng.integers(0, 3, 50)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kind", ["schedule", "callable"])
def test_fit_follows_a_schedule_step_by_step(kind: str, drop_last: bool) -> None:
    """The same bits as steps by hand whose rate is set before each."""
    formula = schedules.warmup(schedules.cosine(0.1, 20), 5)
    fitted, x, y = model_and_data()
    lr = formula if kind == "schedule" else lambda t: formula(t)
    trainer = ts.Trainer(fitted, optimizer=ts.optim.Adam(lr=lr, weight_decay=0.01))
    history = trainer.fit(x, y, epochs=3, batch_size=8, shuffle=False, drop_last=drop_last)
    stepped, _, _ = model_and_data()
    by_hand = ts.Trainer(stepped, optimizer=ts.optim.Adam(lr=1.0, weight_decay=0.01))
    last, t = [], 0
    for _ in range(3):
        for first in range(0, 48 if drop_last else 50, 8):
            by_hand.optimizer.lr = formula(t)
            by_hand.step(x[first : first + 8], y[first : first + 8])
            t += 1
        last.append(formula(t - 1))
    for name, w in stepped.parameters().items():
        np.testing.assert_array_equal(fitted.parameters()[name], w, err_msg=name)
    assert history.history["lr"] == last
    assert trainer.optimizer.lr == last[-1]


def test_groups_have_schedules_of_their_own() -> None:
    model, x, y = model_and_data()
    groups = model.param_groups(lr=1.0, lr_factors={"0": 0.0})
    groups[0]["lr"], groups[1]["lr"] = schedules.constant(0.0), schedules.linear(0.1, 10)
    before = {name: w.copy() for name, w in model.parameters().items()}
    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(groups))
    trainer.fit(x, y, epochs=1, batch_size=25)
    for name, w in model.parameters().items():
        assert np.array_equal(w, before[name]) == name.startswith("0."), name
    assert trainer.optimizer.param_groups[1]["lr"] == schedules.linear(0.1, 10)


def test_fit_and_step_go_on_where_the_other_was() -> None:
    model, x, y = model_and_data()
    asked = []

    def lr(t: int) -> float:
        asked.append(t)
        return 0.01

    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(lr=lr))
    trainer.fit(x, y, batch_size=25)
    trainer.step(x, y)
    trainer.fit(x, y, batch_size=25)
    assert sorted(set(asked)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_bad_rate_ends_fit_before_the_epoch(rate: float) -> None:
    model, x, y = model_and_data()
    before = {name: w.copy() for name, w in model.parameters().items()}
    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(lr=lambda t: rate if t == 3 else 0.1))
    with pytest.raises(ValueError, match="SGD: lr gave .* for t = 3"):
        trainer.fit(x, y, batch_size=10)
    for name, w in model.parameters().items():
        np.testing.assert_array_equal(w, before[name], err_msg=name)


def test_fit_feeds_a_plateau() -> None:
    model, x, y = model_and_data()
    plateau = Plateau(1e-3, factor=0.5, patience=0, threshold=10.0, threshold_mode="abs")  # nothing is better by so much
    history = ts.Trainer(model, optimizer=ts.optim.Adam(lr=plateau)).fit(x, y, epochs=4, batch_size=25, validation_data=(x, y))
    assert history.history["lr"] == [1e-3, 1e-3, 5e-4, 2.5e-4]  # the first epoch gives the best
    with pytest.raises(ValueError, match="Plateau: monitor is 'val_loss', expected one of loss"):
        ts.Trainer(model, optimizer=ts.optim.SGD(lr=Plateau(0.1, monitor="val_loss"))).fit(x, y)


def test_a_fit_that_is_interrupted_remembers_the_rate_of_its_last_step() -> None:
    model, x, _ = model_and_data()
    calls = []

    def loss(pred: np.ndarray, true: np.ndarray) -> tuple[float, np.ndarray]:
        calls.append(len(pred))
        if len(calls) == 4:
            raise RuntimeError("enough")
        return 0.0, np.zeros_like(pred)

    trainer = ts.Trainer(model, loss=loss, optimizer=ts.optim.SGD(lr=schedules.linear(1.0, 10)))
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(x, np.zeros(50), batch_size=10)
    assert trainer.steps == 3
    assert trainer.optimizer.lr == pytest.approx(0.8)
    calls.clear()
    calls.extend([0] * 10)
    trainer.step(x[:10], np.zeros(10))
    assert trainer.optimizer.lr == pytest.approx(0.7)
