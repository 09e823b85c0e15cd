"""The recipe: each step can say yes and no, the same on any number of threads; its call, its JSON and its report."""

import html.parser
import json
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.recipe import Candidate, Grid, Recipe, run, steps
from trainstep.recipe import problem as problems
from trainstep.recipe.charts import Line, chart

from .helpers import Array

pytestmark = pytest.mark.one_level

QUICK: dict[str, Any] = {"hidden": (16,), "rates": (0.01, 0.03), "decays": (0.0,), "grid_epochs": 2, "epochs": 6}


def digits(rows: int = 300) -> tuple[Array, Array]:
    x, y = ts.data.load_digits()
    return x[:rows], y[:rows]


def numbers(rows: int = 200) -> tuple[Array, Array]:
    """A regression in a unit of its own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return x, 1e5 + 300 * x[:, 0] + 100 * np.sin(2 * x[:, 1]) + rng.normal(0, 5, rows)


def noise(rows: int = 1500) -> tuple[Array, Array]:
    """Inputs that say nothing of the classes."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 10)), rng.integers(0, 2, rows)


@pytest.fixture(scope="module")
def of_digits() -> Recipe:
    return run(*digits(), **QUICK)


@pytest.fixture(scope="module")
def of_numbers() -> Recipe:
    return run(*numbers(), **QUICK)


def executed(recipe: Recipe, **names: Any) -> dict[str, Any]:
    space = dict(names)
    exec(recipe.call, space)
    return space


def problem_of(x: Any, y: Any, **options: Any) -> problems.Problem:
    usual = {"task": None, "hidden": (16,), "validation_data": None, "validation_size": 0.2, "loss": None, "optimizer": "adamw"}
    usual |= {"batch_size": "sqrt", "dtype": "float32", "seed": 0}
    return problems.of(x, y, **(usual | options))


def quiet(n: int = 1) -> None:
    pass


# --- 1: the initial loss ---------------------------------------------------------------------------------------------------------


def test_the_initial_loss_is_held_to_ln_c(of_digits: Recipe) -> None:
    step = of_digits.initial_loss
    assert step.ok
    assert step.rule == "ln 10"
    assert step.expected == pytest.approx(math.log(10), rel=1e-6)
    assert step.measured == pytest.approx(math.log(10), rel=0.1)


@pytest.mark.parametrize(
    ("loss", "y", "rule", "expected"),
    [
        ("softmax_cross_entropy", np.arange(60) % 3, "ln 3", math.log(3)),
        (ts.losses.SoftmaxCrossEntropy(weight=[1.0, 5.0, 2.0]), np.arange(60) % 3, "ln 3", math.log(3)),
        (ts.losses.SoftmaxCrossEntropy(label_smoothing=0.2), np.arange(60) % 3, "ln 3", math.log(3)),
        ("softmax_cross_entropy", np.eye(3)[np.arange(60) % 3], "ln 3", math.log(3)),
        ("sigmoid_binary_cross_entropy", np.arange(60) % 2, "ln 2", math.log(2)),
        ("hinge", np.arange(60) % 2 * 2 - 1, "the loss of outputs of 0", 1.0),
    ],
)
def test_what_a_network_that_knows_nothing_has(loss: Any, y: Array, rule: str, expected: float) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    step = steps.initial_loss(problem_of(x, y, loss=loss, validation_data=(x, y)))
    assert (step.ok, step.rule) == (True, rule)
    assert step.expected == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("loss", "expected"), [("mse", 1.0), ("mae", None), ("huber", None)])
def test_a_regression_begins_at_the_variance_of_its_target(loss: str, expected: float | None) -> None:
    x, y = numbers()
    step = steps.initial_loss(problem_of(x, y, loss=loss, validation_data=(x, y)))
    z = np.abs(y - y.mean()) / y.std()
    by_hand = {"mse": z**2, "mae": z, "huber": np.where(z <= 1, z**2 / 2, z - 0.5)}[loss].mean()
    assert step.ok
    assert step.expected == pytest.approx(by_hand, rel=1e-5)
    assert expected is None or step.expected == pytest.approx(expected, rel=1e-5)


def test_a_large_last_layer_is_found() -> None:
    def large() -> ts.nn.Sequential:
        last = ts.nn.Dense(16, 10, init=ts.init.normal(std=3.0))
        return ts.nn.Sequential(ts.nn.Standardize(64), ts.nn.Dense(64, 16, activation="relu"), last)

    step = steps.initial_loss(problem_of(*digits(), hidden=large))
    assert not step.ok
    assert step.measured > 2 * step.expected
    assert "last layer" in step.meaning


def test_a_network_that_knows_the_answer_already_is_found() -> None:
    x, y = digits()
    trained = ts.nn.Sequential(ts.nn.Standardize(64), ts.nn.Dense(64, 10), seed=1)
    ts.Trainer(trained, optimizer=ts.optim.Adam(lr=0.01)).fit(x, y, epochs=20)
    step = steps.initial_loss(problem_of(x, y, hidden=lambda: trained))
    assert not step.ok
    assert step.measured < step.expected
    assert "trained already" in step.meaning


# --- 2: overfit ------------------------------------------------------------------------------------------------------------------


def test_a_few_batches_are_learnt_by_heart(of_digits: Recipe, of_numbers: Recipe) -> None:
    step = of_digits.overfit
    assert step.ok
    assert step.accuracy is not None
    assert step.accuracy[-1] == 1
    assert max(step.accuracy[:-1], default=0) < 1  # it ended there
    assert (step.batches, step.rows) == (5, 5 * of_digits.settings["batch_size"])
    assert step.updates == 5 * len(step.loss)
    step = of_numbers.overfit
    assert step.ok
    assert step.accuracy is None
    # Of five batches' own spread, a hundredth.
    assert step.loss[-1] < 0.015
    assert min(step.loss[:-1]) > step.loss[-1]


def test_rows_that_contradict_each_other_cannot_be_learnt() -> None:
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(5, 3)), 20, axis=0), rng.integers(0, 3, 100)
    step = steps.overfit(problem_of(x, y), 2, quiet)
    assert not step.ok
    assert step.accuracy is not None
    assert step.accuracy[-1] < 1
    assert step.contradictions == step.rows
    assert f"{step.rows} of the rows have the inputs of another row and another target" in step.meaning


def test_contradictions_are_counted_by_rows() -> None:
    x = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [5.0, 6.0]])
    assert steps._contradictions(x, np.array([0, 1, 2, 2, 0])) == 2
    assert steps._contradictions(x, np.array([[0.5], [0.5], [1.0], [1.5], [0.0]])) == 2
    assert steps._contradictions(x, np.array([1, 1, 2, 2, 0])) == 0


def test_a_network_too_small_to_learn_them_is_found() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, (200, 2)).astype(float) + rng.normal(0, 0.01, (200, 2))
    y = (x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)  # which no plane separates
    step = steps.overfit(problem_of(x, y, hidden=()), 1, quiet)
    assert not step.ok
    assert step.contradictions == 0
    assert "larger network" in step.meaning
    assert steps.overfit(problem_of(x, y, hidden=(32,)), 1, quiet).ok


# --- 3: the learning rate --------------------------------------------------------------------------------------------------------


def test_the_rate_test_follows_its_rule(of_digits: Recipe) -> None:
    step = of_digits.rate_test
    assert step.ok
    n = len(step.rates)
    assert n == len(step.loss) == len(step.smoothed) > 100
    np.testing.assert_allclose(step.rates, [1e-6 * 10 ** (7 * t / 199) for t in range(n)], rtol=1e-12)
    average, smoothed = 0.0, []
    for t, loss in enumerate(step.loss, 1):
        average = 0.9 * average + 0.1 * loss
        smoothed.append(average / (1 - 0.9**t))
    np.testing.assert_allclose(step.smoothed, smoothed, rtol=1e-12)
    limit = 2 * of_digits.initial_loss.measured
    assert max(smoothed[:-1]) <= limit
    assert n == 200 or smoothed[-1] > limit
    assert step.suggestion == pytest.approx(suggested(step.rates, smoothed), rel=0.05)  # two digits of it
    assert float(f"{step.suggestion:.1e}") == step.suggestion
    assert len(step.trial) == 100
    end = np.array(step.trial[-20:])
    assert end.mean() + 3 * end.std(ddof=1) / math.sqrt(20) < of_digits.initial_loss.measured


def suggested(rates: Sequence[float], smoothed: list[float]) -> float:
    """The rule, as run's description has it."""
    lowest = smoothed.index(min(smoothed))
    falls = {smoothed[t - 20] - smoothed[t]: rates[t - 10] for t in range(20, lowest + 1)}
    return min(rates[lowest] / 10, falls[max(falls)] if falls else math.inf)


def test_a_loss_that_stays_at_0_suggests_no_large_rate() -> None:
    # Few rows in one batch are learnt by heart during the test, and then no rate does harm.
    x, y = digits(200)
    problem = problem_of(x, y, batch_size=200, hidden=(64,))
    step = steps.rate_test(problem, steps.initial_loss(problem), 0.0, quiet)
    assert step.rates[int(np.argmin(step.smoothed))] > 1
    assert step.ok
    assert step.suggestion == pytest.approx(suggested(step.rates, list(step.smoothed)), rel=0.05)
    assert 1e-4 < step.suggestion < 0.1


@pytest.mark.parametrize(
    ("smoothed", "expected"),
    [
        ([], 1e-6),
        ([1.0], 1e-7),
        ([1.0, 0.9, 0.8, 2.0], 1.2e-7),  # the lowest at the third rate, and no 20 updates before it
    ],
)
def test_a_rate_test_that_ended_early(smoothed: list[float], expected: float) -> None:
    rates = np.geomspace(1e-6, 10, 200)
    assert steps._suggested(rates, np.array(smoothed)) == pytest.approx(expected, rel=0.03)


def test_the_rate_test_ends_where_the_loss_blows_up() -> None:
    problem = problem_of(*digits(), optimizer="sgd")
    initial = steps.initial_loss(problem)
    assert 100 < len(steps.rate_test(problem, initial, 0.0, quiet).rates) < 200
    # With twice this the first loss is above the limit already.
    harsh = replace(initial, measured=0.45 * initial.measured)
    assert len(steps.rate_test(problem, harsh, 0.0, quiet).rates) == 1


@pytest.mark.parametrize(("decays", "expected"), [((1e-3, 0.0, 1e-2), 1e-3), ((0.0,), 0.0), (None, 1e-5)])
def test_the_rate_test_has_the_smallest_decay(
    monkeypatch: pytest.MonkeyPatch, decays: tuple[float, ...] | None, expected: float
) -> None:
    seen: list[float] = []

    def rate_test(problem: Any, initial: Any, decay: float, tick: Any) -> Any:
        seen.append(decay)
        raise InterruptedError

    monkeypatch.setattr(steps, "rate_test", rate_test)
    with pytest.raises(InterruptedError):
        run(*digits(), hidden=(16,), decays=decays)
    assert seen == [expected]


def test_inputs_that_say_nothing_are_found() -> None:
    recipe = run(*noise(), hidden=(16,), epochs=10)
    assert recipe.initial_loss.ok
    assert not recipe.rate_test.ok
    assert "does not fall" in recipe.rate_test.meaning
    assert not recipe.grid.ok
    assert "does not hold on unseen data" in recipe.grid.meaning


# --- 4: the grid -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (4, [1, 2, 4]), (5, [1, 2, 5]), (9, [1, 2, 4, 9])]
)
def test_the_epochs_of_halving(epochs: int, expected: list[int]) -> None:
    assert steps.halvings(epochs) == expected


def test_the_better_half_goes_on() -> None:
    rates, decays = (1e-4, 1e-3, 1e-2), (0.0, 1e-3)
    x, y = digits()
    problem = problem_of(x, y)
    ticks: list[int] = []
    grid = steps.grid(problem, rates, decays, 4, 2, lambda n=1: ticks.append(n))
    assert len(ticks) == 6 + 3 + 2
    assert sorted((c.rate, c.decay) for c in grid.candidates) == sorted((r, d) for r in rates for d in decays)
    assert sorted(c.epochs for c in grid.candidates) == [1, 1, 1, 2, 4, 4]

    # Each of them by itself, as a reader of the description would do it.
    def loss(c: Candidate, epochs: int) -> float:
        trainer = ts.Trainer(
            problem.network.__class__(*problem.network.layers, seed=0),
            "softmax_cross_entropy",
            ts.optim.AdamW(lr=c.rate, weight_decay=c.decay),
        )
        trainer.fit(*problem.train, epochs=epochs, batch_size=problem.batch_size)
        return trainer.evaluate(*problem.validation)["loss"]

    assert [loss(c, c.epochs) for c in grid.candidates] == [c.loss for c in grid.candidates]
    first = sorted(loss(c, 1) for c in grid.candidates)
    assert sorted(loss(c, 1) for c in grid.candidates if c.epochs > 1) == first[:3]
    assert grid.best.loss == min(c.loss for c in grid.candidates if c.epochs == 4)


def test_who_got_further_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # A loss that grows as training goes on, and with the rate.
    monkeypatch.setattr(ts.Trainer, "evaluate", lambda self, *_: {"loss": self.epoch + self.optimizer.lr, "accuracy": 0.5})
    found = steps.grid(problem_of(*digits()), (1e-2, 1e-3, 1e-4, 1e-5), (0.0,), 4, 1, quiet).candidates
    assert [(c.epochs, c.rate) for c in found] == [(4, 1e-5), (2, 1e-4), (1, 1e-3), (1, 1e-2)]


def test_the_grid_names_its_edge() -> None:
    problem = problem_of(*digits())
    low = steps.grid(problem, (1e-4, 1e-3), (0.0,), 1, 1, quiet)
    assert (low.best.rate, low.ok) == (1e-3, True)
    assert "the largest rate of the grid" in low.meaning
    high = steps.grid(problem, (1e-2, 5.0), (0.0,), 1, 1, quiet)
    assert "the smallest rate of the grid" in high.meaning
    assert "of the grid" not in steps.grid(problem, (1e-4, 1e-2, 5.0), (0.0,), 1, 1, quiet).meaning


def test_rates_that_all_diverge() -> None:
    recipe = run(*digits(), hidden=(16,), optimizer="sgd", rates=(1e30, 1e32), decays=(0.0,), epochs=2)
    assert recipe.rate_test.ok
    assert not recipe.grid.ok
    assert "every candidate diverged" in recipe.grid.meaning
    assert [c.loss for c in recipe.grid.candidates] == [math.inf, math.inf]
    assert (recipe.curves.ok, recipe.curves.verdict, recipe.curves.best_epoch) == (False, "diverged", 0)
    assert [c["loss"] for c in json.loads(recipe.to_json())["grid"]["candidates"]] == [None, None]


# --- 5: the curves, and what comes out -------------------------------------------------------------------------------------------


def test_a_large_network_on_few_noisy_rows_overfits() -> None:
    x, y = noise(120)
    recipe = run(x, y, hidden=(128,), rates=(0.01,), decays=(0.0,), grid_epochs=1, epochs=30, batch_size=8)
    assert (recipe.curves.ok, recipe.curves.verdict) == (False, "overfitting")
    assert recipe.curves.best_epoch == int(np.argmin(recipe.curves.val_loss)) + 1 < 15
    assert recipe.settings["epochs"] == recipe.curves.best_epoch
    assert tuple(executed(recipe, x=x, y=y)["history"].history["loss"]) == recipe.curves.loss[: recipe.curves.best_epoch]


def test_curves_that_do_well(of_numbers: Recipe) -> None:
    x, y = numbers(400)
    curves = run(x, y, **(QUICK | {"epochs": 15})).curves
    assert curves.ok
    assert curves.verdict in ("good", "plateaued")
    assert len(curves.loss) == len(curves.val_loss) == 15
    assert curves.accuracy is curves.val_accuracy is None
    assert of_numbers.curves.meaning


def small() -> ts.nn.Sequential:
    return ts.nn.Sequential(ts.nn.Dense(64, 16, activation="tanh"), ts.nn.Dropout(0.2), ts.nn.Dense(16, 10), seed=7)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("digits", {}),
        ("digits", {"optimizer": ts.optim.SGD(momentum=0.9, nesterov=True), "seed": 3, "batch_size": 20}),
        ("digits", {"optimizer": "rprop", "decays": None}),
        ("digits", {"dtype": "float64", "hidden": ()}),
        ("digits", {"loss": ts.losses.SoftmaxCrossEntropy(label_smoothing=0.1), "validation_size": 0.5}),
        ("digits", {"hidden": small}),
        ("bool", {}),
        ("bool", {"loss": "sigmoid_binary_cross_entropy"}),
        ("onehot", {"loss": "softmax_cross_entropy"}),
        ("numbers", {}),
        ("numbers", {"loss": ts.losses.Huber(delta=0.5), "optimizer": "Adam"}),
        ("two", {"task": "regression"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [False, True], ids=["split", "given"])
def test_the_call_trains_to_the_same_bits(data: str, options: dict[str, Any], given: bool) -> None:
    x, y = numbers() if data in ("numbers", "two") else digits()
    if data != "digits":
        y = {
            "bool": lambda: y > 4,
            "onehot": lambda: np.eye(10)[y],
            "two": lambda: np.stack([y, -(y**2)], 1),
            "numbers": lambda: y,
        }[data]()
    names: dict[str, Any] = {"x": x, "y": y, "small": small}
    options = QUICK | {"rates": (0.01,), "grid_epochs": 1, "epochs": 2} | options
    if given:
        names |= {"x": x[50:], "y": y[50:], "x_val": x[:50], "y_val": y[:50]}
        options = options | {"validation_data": (x[:50], y[:50])}
    recipe = run(names["x"], names["y"], **options)
    assert "import trainstep as ts" in recipe.call
    history = executed(recipe, **names)["history"].history
    assert tuple(history["loss"]) == recipe.curves.loss[: recipe.settings["epochs"]]
    assert tuple(history["val_loss"]) == recipe.curves.val_loss[: recipe.settings["epochs"]]


def test_the_settings_say_what_was_chosen(of_digits: Recipe) -> None:
    assert set(of_digits.settings) == {
        "task", "hidden", "loss", "optimizer", "lr", "weight_decay", "batch_size", "epochs", "seed", "dtype"
    }  # fmt: skip
    best = of_digits.grid.best
    assert (of_digits.settings["lr"], of_digits.settings["weight_decay"]) == (best.rate, best.decay)
    assert of_digits.settings["batch_size"] == round(math.sqrt(240))
    assert of_digits.about == "classification: 240 rows and 60 to validate on, 64 columns, 10 classes"


def test_default_rates_are_around_the_suggestion() -> None:
    recipe = run(*digits(), hidden=(16,), decays=(0.0,), grid_epochs=1, epochs=1)
    rates = sorted({c.rate for c in recipe.grid.candidates})
    np.testing.assert_allclose(rates, recipe.rate_test.suggestion * 10 ** np.array([-1, -0.5, 0, 0.5, 1]), rtol=0.05)


def test_the_same_on_any_number_of_threads() -> None:
    x, y = digits()
    texts = [run(x, y, hidden=(16,), epochs=3, threads=threads).to_json() for threads in (1, 2, 5)]
    assert texts[0] == texts[1] == texts[2]
    assert run(x, y, hidden=(16,), epochs=3, seed=1).to_json() != texts[0]


def test_ctrl_c_ends_what_runs_side_by_side() -> None:
    before, waiting, ended = ts.get_num_threads(), threading.Barrier(2, timeout=30), []

    def work(item: int, halt: steps.Halt) -> None:
        waiting.wait()
        if item == 0:
            raise KeyboardInterrupt
        x, y = digits(50)
        trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(64, 10)))
        trainer.fit(x, y, epochs=10**9, callbacks=[halt])
        ended.append(trainer.epoch)

    with pytest.raises(KeyboardInterrupt):
        steps.side_by_side(work, [0, 1], 2, quiet)
    assert len(ended) == 1
    assert ts.get_num_threads() == before


def test_one_at_a_time_where_there_is_one_thread() -> None:
    seen: list[Any] = []

    def work(item: int, halt: steps.Halt) -> int:
        seen.append((item, threading.current_thread() is threading.main_thread()))
        return item * 2

    done: list[int] = []
    assert steps.side_by_side(work, [3, 1, 2], 1, done.append) == [6, 2, 4]
    assert seen == [(3, True), (1, True), (2, True)]
    assert done == [3, 1, 2]


def test_nothing_that_was_given_is_changed() -> None:
    x, y = digits()
    network, optimizer = small(), ts.optim.SGD(lr=7.0, momentum=0.9)
    before = {name: w.copy() for name, w in network.parameters().items()}, x.copy(), y.copy()
    run(x, y, **(QUICK | {"hidden": lambda: network, "optimizer": optimizer, "epochs": 1}))
    assert all((w == before[0][name]).all() for name, w in network.parameters().items())
    assert optimizer.param_groups[0]["lr"] == 7.0
    np.testing.assert_array_equal(x, before[1])
    np.testing.assert_array_equal(y, before[2])


def test_progress_shows_a_bar_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    run(*digits(), **(QUICK | {"epochs": 1}), progress=True)
    err = capsys.readouterr().err
    assert all(name in err for name in ("2/5 overfit", "3/5 learning rate", "4/5 grid", "loss="))
    run(*digits(), **(QUICK | {"epochs": 1}))
    assert capsys.readouterr() == ("", "")


# --- JSON, text ------------------------------------------------------------------------------------------------------------------


def lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lists(part) for key, part in value.items()}
    return [lists(part) for part in value] if isinstance(value, tuple | list) else value


def test_json_holds_all_of_it(of_digits: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    text = of_digits.to_json(path)
    assert json.loads(text) == lists(asdict(of_digits))
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(text)
    assert of_digits.to_json() == text


def test_json_has_no_numbers_that_json_does_not_know(of_digits: Recipe) -> None:
    worst = Candidate(1.0, 0.0, 1, math.inf, None)
    recipe = replace(of_digits, grid=Grid(False, "none", (worst,)), about="naïve – ü")

    def never(name: str) -> None:
        raise AssertionError(name)

    data = json.loads(recipe.to_json(), parse_constant=never)
    assert data["grid"]["candidates"] == [{"rate": 1.0, "decay": 0.0, "epochs": 1, "loss": None, "accuracy": None}]
    assert data["about"] == "naïve – ü"


def test_a_recipe_prints_a_line_for_each_step(of_digits: Recipe) -> None:
    lines = str(of_digits).splitlines()
    assert lines[0] == of_digits.about
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]
    assert [("yes" in line[:28]) for line in lines[1:]] == [step.ok for step in of_digits.steps().values()]
    with pytest.raises(FrozenInstanceError):
        of_digits.about = "x"  # type: ignore[misc]


# --- the report ------------------------------------------------------------------------------------------------------------------

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Reads a page: every tag that is opened is closed in order; what it refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(recipe: Recipe, tmp_path: Path) -> tuple[Page, str]:
    recipe.report(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    return Page(text), text


@pytest.mark.parametrize("which", ["of_digits", "of_numbers"])
def test_the_report_is_one_file_that_loads_nothing(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    recipe = request.getfixturevalue(which)
    page, text = page_of(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.html"]
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text
    references = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src", "xlink:href")]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(references) <= {f"#{name}" for name in ids}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_the_report_fits_any_screen_and_says_what_is_drawn(of_digits: Recipe, tmp_path: Path) -> None:
    page, text = page_of(of_digits, tmp_path)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in text
    drawn = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert len(drawn) == 7  # overfit 2, learning rate 2, grid 1, curves 2
    for attrs in drawn:
        assert attrs["role"] == "img"
        assert re.search(r"from [\d.e-]+ to [\d.e-]+", attrs["aria-label"] or "")
        assert "viewbox" in attrs
        assert "width" not in attrs  # the page's width is its own
    for word in (of_digits.call, of_digits.overfit.meaning, of_digits.about, "AdamW"):
        assert word.lower() in page.text.lower()
    assert page.text.count("Does training begin where it should?") == 1


def test_the_report_escapes_what_comes_from_data(of_digits: Recipe, tmp_path: Path) -> None:
    hostile = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;"
    recipe = replace(of_digits, about=hostile, call=hostile, settings={hostile: hostile})
    page, text = page_of(recipe, tmp_path)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count(hostile) == 5  # title, heading, name, value, call
    assert "<script" not in text


def test_the_report_of_a_run_in_which_nothing_was_finite(tmp_path: Path) -> None:
    recipe = run(*digits(), hidden=(16,), optimizer="sgd", rates=(1e30, 1e32), decays=(0.0,), epochs=1)
    page, _ = page_of(recipe, tmp_path)
    assert "nothing to draw" in page.text
    assert "diverged" in page.text


def test_a_network_whose_loss_is_never_finite(tmp_path: Path) -> None:
    huge = ts.init.normal(std=1e25)

    def unusable() -> ts.nn.Sequential:
        return ts.nn.Sequential(ts.nn.Dense(64, 8, init=huge), ts.nn.Dense(8, 10, init=huge))

    recipe = run(*digits(), **(QUICK | {"hidden": unusable}))
    assert not any(step.ok for step in recipe.steps().values())
    assert "at every rate the loss was not finite" in recipe.overfit.meaning
    page, _ = page_of(recipe, tmp_path)
    assert page.text.count("nothing to draw") == 6  # no epoch, so no accuracy of one


def test_many_candidates_are_cut(of_digits: Recipe, tmp_path: Path) -> None:
    many = tuple(Candidate(0.01 * (k + 1), 0.0, 1 if k else 2, 1.0 + k, 0.5) for k in range(40))
    page, _ = page_of(replace(of_digits, grid=Grid(True, "many", many)), tmp_path)
    assert "The best 30 of 40." in page.text
    rows = [attrs for tag, attrs in page.tags if tag == "tr" and attrs == {"class": "best"}]
    assert len(rows) == 1


def test_a_chart_puts_points_where_they_belong() -> None:
    drawn = chart("t", "x", "y", [Line("a", [1, 10, 100], [0.0, 2.0, 4.0], "one")], log_x=True)
    path = re.search(r'class="line one" d="M([\d. L]+)"', drawn)
    assert path
    points = np.array([part.split() for part in path[1].split("L")], float)
    assert points[1, 0] == pytest.approx((points[0, 0] + points[2, 0]) / 2, abs=0.1)  # equal ratios, equal distances
    assert points[1, 1] == pytest.approx((points[0, 1] + points[2, 1]) / 2, abs=0.1)
    assert points[0, 1] > points[2, 1]  # up is more
    ticks = dict(re.findall(r'class="tick" x="([\d.]+)" y="[\d.]+" text-anchor="middle">([\d.]+)<', drawn))
    assert [float(x) for x in ticks] == pytest.approx(points[:, 0])
    assert list(ticks.values()) == ["1", "10", "100"]


@pytest.mark.parametrize(
    ("x", "y", "log_x"),
    [
        ([1], [2.0], False),
        ([0.3], [0.0], True),
        ([1, 2], [5.0, 5.0], False),
        ([0.2, 0.4], [-1.0, 3.0], True),
        ([1, 2], [1.0, math.nan], False),
    ],
)
def test_a_chart_of_little(x: list[float], y: list[float], log_x: bool) -> None:
    drawn = chart("t", "x", "y", [Line("a", x, y, "one")], log_x=log_x)
    page = Page(drawn)
    assert "nan" not in drawn
    assert [tag for tag, _ in page.tags].count("circle") == sum(map(math.isfinite, y))


# --- wrong usage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"x": np.ones(300)}, ValueError, r"run: x has shape \(300,\), expected \(rows, columns\)"),
        ({"x": np.ones((0, 3))}, ValueError, r"run: x has shape \(0, 3\)"),
        ({"x": [["a", "b"]] * 300}, TypeError, "run: x has dtype <U1, expected real numbers"),
        ({"x": [[1.0], [1.0, 2.0]]}, ValueError, "run: x cannot be read as an array"),
        ({"x": np.ones((299, 3))}, ValueError, "run: x has 299 rows, y has 300"),
        ({"x": np.where(np.arange(900).reshape(300, 3) == 7, np.nan, 1.0)}, ValueError, "run: x is not finite in row 2"),
        ({"y": ["a"] * 300}, TypeError, "run: y has dtype <U1, expected class indices or real numbers"),
        ({"y": np.ones((300, 2, 2))}, ValueError, r"run: y has shape \(300, 2, 2\), expected \(rows,\) or \(rows, outputs\)"),
        ({"y": np.full(300, np.inf)}, ValueError, "run: y is not finite in row 0"),
        ({"y": np.zeros(300, int)}, ValueError, "run: y has one class, 0, expected at least 2"),
        ({"y": np.arange(300) % 2 - 1}, ValueError, "run: y has class -1, expected class indices of at least 0"),
        ({"y": np.full(300, 2.5)}, ValueError, "run: y has one value, 2.5, in column 0, expected at least 2"),
        ({"y": np.arange(300.0), "task": "classification"}, TypeError, "run: y has dtype float64, expected class indices"),
        ({"y": np.arange(300)}, ValueError, "run: the part to validate on cannot be taken: .*class"),
        ({"task": "guess"}, ValueError, "run: task is 'guess', expected None or one of classification, regression"),
        (
            {"task": "regression", "loss": "hinge"},
            ValueError,
            "run: loss is 'hinge', expected one of mse, mae, huber for regression",
        ),
        ({"loss": "poisson_nll"}, ValueError, "run: loss is 'poisson_nll', expected one of softmax_cross_entropy, .*, huber"),
        ({"loss": lambda p, t: (0.0, p)}, ValueError, "run: loss is <function"),
        ({"hidden": "64"}, ValueError, "run: hidden is '64', expected widths of at least 1"),
        ({"hidden": (8, 0)}, ValueError, r"run: hidden is \(8, 0\), expected widths"),
        ({"hidden": 8}, TypeError, "run: hidden is a int, expected widths, or a function"),
        ({"hidden": lambda: 3}, TypeError, "run: hidden gave a int, expected a trainstep.nn.Sequential"),
        (
            {"hidden": lambda: ts.nn.Sequential(ts.nn.Dense(64, 3))},
            ValueError,
            "run: hidden gave a network of 3 outputs, y needs 10",
        ),
        ({"validation_data": 3}, TypeError, r"run: validation_data is not \(x, y\)"),
        (
            {"validation_data": (np.ones((5, 3)), np.zeros(5, int))},
            ValueError,
            r"run: validation_data has shapes \(5, 3\) and \(5,\)",
        ),
        ({"validation_data": ([[np.nan] * 64], [1])}, ValueError, r"run: validation_data\[0\] \(x\) is not finite in row 0"),
        ({"validation_size": 1.0}, ValueError, "run: validation_size is 1.0, expected a fraction below 1"),
        ({"validation_size": 0}, ValueError, "run: validation_size is 0, expected a finite number above 0"),
        ({"optimizer": "foo"}, ValueError, "run: optimizer is 'foo', expected one of .*adamw"),
        ({"optimizer": ts.optim.SGD}, TypeError, "run: optimizer is a type, expected a name or one of trainstep.optim"),
        ({"optimizer": ts.optim.SGD([np.ones(3)])}, ValueError, "run: optimizer has its parameters, expected one made without"),
        (
            {"optimizer": "rprop", "decays": (0.1,)},
            ValueError,
            r"run: decays is \(0.1,\), expected \(0,\): Rprop has no weight_decay",
        ),
        ({"batch_size": 0}, ValueError, "run: batch_size is 0, expected at least 1|run: batch_size is 0, expected 1 to"),
        ({"rates": ()}, ValueError, r"run: rates is \(\), expected different numbers, at least one"),
        ({"rates": (0.1, 0.1)}, ValueError, r"run: rates is \(0.1, 0.1\), expected different numbers"),
        ({"rates": (0.1, 0)}, ValueError, r"run: rates\[1\] is 0, expected a finite number above 0"),
        ({"rates": 0.1}, TypeError, "run: rates is a float, expected a sequence of numbers"),
        ({"rates": "0.1"}, TypeError, "run: rates is a str, expected a sequence of numbers"),
        ({"decays": (-1e-4,)}, ValueError, r"run: decays\[0\] is -0.0001, expected a finite number of at least 0"),
        ({"grid_epochs": 0}, ValueError, "run: grid_epochs is 0, expected at least 1"),
        ({"epochs": 1.5}, TypeError, "run: epochs is a float, expected an int"),
        ({"dtype": "float16"}, TypeError, "run: dtype is float16, expected float32 or float64"),
        ({"seed": -1}, ValueError, "run: seed is -1, expected 0 to"),
        ({"threads": 0}, ValueError, "run: threads is 0, expected at least 1"),
        ({"about": 3}, TypeError, "run: about is a int, expected a str"),
        ({"progress": 1}, TypeError, "run: progress is a int, expected a bool"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("wrong usage must be found before training")

    for name in ("fit", "step"):
        monkeypatch.setattr(ts.Trainer, name, never)
    x, y = digits()
    with pytest.raises(kind, match=message):
        run(**({"x": x, "y": y} | options))


def test_a_path_that_cannot_be_written(of_digits: Recipe, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        of_digits.report(tmp_path / "none" / "r.html")
    with pytest.raises(FileNotFoundError):
        of_digits.to_json(tmp_path / "none" / "r.json")
    for write, where in ((of_digits.report, "report"), (of_digits.to_json, "to_json")):
        with pytest.raises(TypeError, match=rf"{where}: path is a int, expected a str or a path"):
            write(3)  # type: ignore[arg-type]
