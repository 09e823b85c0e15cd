"""Metrics of a training run: what fit and evaluate measure is what the functions of trainstep.metrics say of the predictions."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import metrics, optim

from .helpers import Array, classes, network, normal, run_python, state_bits

OF_CLASSES = [metrics.Accuracy(), metrics.TopK(2), metrics.Precision(), metrics.Recall("micro"), metrics.F1("weighted")]
OF_NUMBERS = [metrics.MSE(), metrics.MAE(), metrics.R2()]


def told(metric: metrics.Metric, pred: Array, y: Array, weight: Array | None = None) -> float:
    """What the function of a metric's name says, with its options."""
    options = {name: getattr(metric, name) for name in ("k", "average") if hasattr(metric, name)}
    return getattr(metrics, metric.name)(pred, y, **options, sample_weight=weight)


def problem(loss: str, rng: np.random.Generator, columns: int) -> tuple[Array, Array]:
    """A table and targets of its kind."""
    rows = 203
    if loss in ("softmax_cross_entropy", "kl_divergence", "categorical_cross_entropy"):
        return classes(rows, 6, columns, "float64")
    x = normal(rng, "float64", rows, 6)
    if loss == "sigmoid_binary_cross_entropy":
        return x, (x[:, :1] > 0.3).astype(float)
    if loss == "hinge":
        return x, np.where(x[:, :1] > 0.3, 1.0, -1.0)
    return x, x[:, :columns] ** 2 + 0.1 * normal(rng, "float64", rows, columns)


CASES = [
    ("softmax_cross_entropy", 4, OF_CLASSES),
    ("kl_divergence", 4, OF_CLASSES),
    ("sigmoid_binary_cross_entropy", 1, [metrics.Accuracy(), metrics.Precision("binary"), metrics.F1("binary")]),
    ("hinge", 1, OF_CLASSES[:4]),
    ("mse", 1, OF_NUMBERS),
    ("huber", 3, OF_NUMBERS),
    ("mae", 4, [*OF_NUMBERS, *OF_CLASSES]),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "columns", "wanted"), CASES, ids=[f"{loss}-{columns}" for loss, columns, _ in CASES])
def test_evaluate_and_validation(
    loss: str, columns: int, wanted: list[metrics.Metric], weighted: bool, threads: int, rng: np.random.Generator
) -> None:
    x, y = problem(loss, rng, columns)
    if loss == "mae":
        y = np.eye(columns)[rng.integers(0, columns, len(x))]
    weight = rng.uniform(0.1, 2, len(x)) if weighted else None
    model = network((6, 8, columns))
    trainer = ts.Trainer(model, loss, optim.SGD(lr=0.0), metrics=wanted)
    exact = {m.measure: told(m, model(x), (y + 1) / 2 if loss == "hinge" else y, weight) for m in wanted}
    for batch_size in (1024, 50):
        measured = trainer.evaluate(x, y, batch_size=batch_size, sample_weight=weight)
        assert {name: measured[name] for name in exact} == pytest.approx(exact, rel=1e-12)
    history = trainer.fit(x, y, epochs=2, batch_size=17, validation_data=(x, y, weight), sample_weight=weight).history
    for name, value in exact.items():  # with a rate of 0 every batch is predicted by the same network
        assert history[name] == pytest.approx([value] * 2, rel=1e-12)
        assert history[f"val_{name}"] == pytest.approx([value] * 2, rel=1e-12)


def test_an_epoch_measures_what_is_predicted_before_each_update(rng: np.random.Generator) -> None:
    x, y = classes(90, 5, 3, "float64")
    trainer = ts.Trainer(network((5, 6, 3)), optimizer=optim.SGD(lr=0.5), metrics=["f1", metrics.TopK(2)])
    watched = ts.Trainer(network((5, 6, 3)), optimizer=optim.SGD(lr=0.5))
    for epoch in range(3):
        predicted = []
        for first in range(0, 90, 16):
            predicted.append(watched.model(x[first : first + 16]))
            watched.step(x[first : first + 16], y[first : first + 16])
        history = trainer.fit(x, y, batch_size=16, shuffle=False).history
        assert history["f1"] == [pytest.approx(metrics.f1(np.concatenate(predicted), y), rel=1e-12)], epoch
        assert history["top_2_accuracy"] == [pytest.approx(metrics.top_k_accuracy(np.concatenate(predicted), y, k=2), rel=1e-12)]


@pytest.mark.parametrize(("kind", "wanted"), [("labels", OF_CLASSES), ("one-hot", OF_CLASSES), ("numbers", OF_NUMBERS)])
def test_with_a_loss_of_ones_own(kind: str, wanted: list[metrics.Metric], rng: np.random.Generator) -> None:
    x, labels = classes(64, 5, 4, "float64")
    y = {"labels": labels, "one-hot": np.eye(4)[labels], "numbers": normal(rng, "float64", 64, 4)}[kind]

    def loss(pred: Array, y: Array) -> tuple[float, Array]:
        return float((pred**2).mean()), 2 * pred / pred.size

    model = network((5, 6, 4))
    trainer = ts.Trainer(model, loss, optim.SGD(lr=0.0), metrics=wanted)
    measured, history = trainer.evaluate(x, y), trainer.fit(x, y, batch_size=10).history
    for m in wanted:
        assert measured[m.measure] == pytest.approx(told(m, model(x), y), rel=1e-12)
        assert history[m.measure] == [pytest.approx(told(m, model(x), y), rel=1e-12)]
    assert list(measured) == ["loss", *(m.measure for m in wanted)]


def test_batches_that_come_one_by_one(rng: np.random.Generator) -> None:
    x, y = normal(rng, "float64", 60, 3), normal(rng, "float64", 60, 2)
    of_arrays = ts.Trainer(network((3, 2)), "mse", metrics=["r2", "mae"])
    of_batches = ts.Trainer(network((3, 2)), "mse", metrics=["r2", "mae"])
    wanted = of_arrays.fit(x, y, epochs=2, batch_size=20, shuffle=False).history
    got = of_batches.fit([(x[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)], epochs=2).history
    assert got["r2"] == wanted["r2"]
    assert got["mae"] == wanted["mae"]


@pytest.mark.parametrize("metric", ["f1", "r2"])
def test_the_same_bits_for_any_number_of_threads(metric: str, rng: np.random.Generator) -> None:
    x, y = classes(500, 40, 5)
    target = y if metric == "f1" else normal(rng, "float32", 500, 5)
    histories = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            loss = "softmax_cross_entropy" if metric == "f1" else "mse"
            trainer = ts.Trainer(network((40, 60, 5), dtype="float32"), loss, metrics=[metric])
            histories.append(trainer.fit(x, target, epochs=2, batch_size=130, validation_data=(x, target)).history)
    for name, other in product((metric, f"val_{metric}"), histories[1:]):
        assert other[name] == histories[0][name]


def test_metrics_change_no_bit_of_the_training() -> None:
    x, y = classes(120, 8, 3)
    trainers = [ts.Trainer(network((8, 9, 3), dtype="float32"), metrics=given) for given in (None, OF_CLASSES)]
    histories = [trainer.fit(x, y, epochs=3, batch_size=32).history for trainer in trainers]
    assert state_bits(trainers[0]) == state_bits(trainers[1])
    assert histories[0]["loss"] == histories[1]["loss"]
    assert histories[0]["accuracy"] == pytest.approx(histories[1]["accuracy"], rel=1e-12)


def test_accuracy_as_a_metric_is_weighted(rng: np.random.Generator) -> None:
    x, y = classes(100, 4, 3, "float64")
    weight = rng.uniform(0, 2, 100)
    model = network((4, 3))
    plain = ts.Trainer(model).evaluate(x, y, sample_weight=weight)["accuracy"]
    asked = ts.Trainer(model, metrics=["accuracy"]).evaluate(x, y, sample_weight=weight)["accuracy"]
    assert asked == pytest.approx(metrics.accuracy(model(x), y, weight), rel=1e-12)
    assert plain == metrics.accuracy(model(x), y) != asked


# --- runs that are left and go on ------------------------------------------------------------------------------------------------


class StopAfter(ts.callbacks.Callback):
    def __init__(self, step: int) -> None:
        self.last = step

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        if step == self.last:
            self.trainer.stop()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_that_is_resumed_measures_the_same(accumulate: int, tmp_path: Path) -> None:
    x, y = classes(200, 6, 3)

    def new() -> ts.Trainer:
        return ts.Trainer(network((6, 7, 3), dtype="float32"), metrics=["f1", metrics.TopK(2), "accuracy"])

    options: dict[str, Any] = {"batch_size": 16, "accumulate": accumulate, "until_epoch": 3}
    whole = new()
    whole.fit(x, y, **options)
    run = new()
    for step in (2, 4):
        run.fit(x, y, callbacks=[StopAfter(step)], **options)
        run.save(tmp_path / "run.safetensors")
        run = ts.Trainer.load(tmp_path / "run.safetensors")
        assert run.metrics == whole.metrics
    run.fit(x, y, **options)
    for name in ("loss", "accuracy", "f1", "top_2_accuracy"):
        assert run.history.history[name] == whole.history.history[name], name
    assert state_bits(run) == state_bits(whole)


def test_what_waits_for_an_update_is_left_out_of_the_sums() -> None:
    x, y = normal(np.random.default_rng(0), "float64", 60, 3), np.arange(60.0)[:, None]
    calls: list[int] = []

    def loss(pred: Array, y: Array) -> tuple[float, Array]:
        calls.append(len(pred))
        if len(calls) in stops:
            raise KeyError("stop")
        return float(((pred - y) ** 2).mean()), 2 * (pred - y) / y.size

    stops: set[int] = set()  # the second batch of an update, in the first epoch and at the beginning of the second
    runs = []
    for broken in (False, True):
        calls.clear()
        stops = {6, 15} if broken else set()
        trainer = ts.Trainer(network((3, 1)), loss, optim.SGD(lr=1e-4), metrics=["r2", "mae"])
        while trainer.epoch < 2:
            try:
                trainer.fit(x, y, until_epoch=2, batch_size=5, accumulate=2)
            except KeyError:
                assert broken
        runs.append(trainer.history.history)
    for name in ("loss", "r2", "mae"):
        assert runs[1][name] == runs[0][name], name


def test_divergence_takes_the_sums_back() -> None:
    x, y = np.ones((8, 1)), np.ones((8, 1))
    y[5] = 1e200
    trainer = ts.Trainer(network((1, 1)), "mse", optim.SGD(lr=0.1), metrics=["r2"])
    for on_divergence, rows in (("restore", 0), ("keep", 4)):
        with pytest.raises(ts.DivergenceError):
            trainer.fit(x, y, batch_size=2, shuffle=False, on_divergence=on_divergence)
        assert trainer._core.metric_sums[0] == rows


# --- what does not fit -----------------------------------------------------------------------------------------------------------


def own(pred: Array, y: Array) -> tuple[float, Array]:
    return 0.0, pred


REFUSED: list[tuple[str, Any, int, Any, type[Exception], str]] = [
    ("a name", "mse", 2, "r2", TypeError, "metrics is 'r2', expected a list of names or metrics"),
    ("an object", "mse", 2, metrics.R2(), TypeError, r"metrics is R2\(\), expected a list of names or metrics"),
    ("a number", "mse", 2, 3, TypeError, "metrics is 3, expected a list"),
    ("unknown", "mse", 2, ["rmse"], ValueError, r"metrics\[0\] is 'rmse', expected one of accuracy, top_k_accuracy"),
    ("a class", "mse", 2, ["r2", metrics.MSE], TypeError, r"metrics\[1\] is the class MSE, expected an object: MSE\(\)"),
    ("the base", "mse", 2, [metrics.Metric()], ValueError, r"metrics\[0\] is Metric\(\), expected one of"),
    ("twice", "softmax_cross_entropy", 3, ["f1", metrics.F1("micro")], ValueError,
     r"metrics\[1\] is a second f1, expected one of each"),
    ("numbers", "softmax_cross_entropy", 3, ["mse"], ValueError,
     "metrics has mse, of numbers, expected none of those with softmax_cross_entropy"),
    ("rates", "poisson_nll", 2, ["r2"], ValueError, "metrics has r2, of numbers, expected none of those with poisson_nll"),
    ("counts", "poisson_nll", 2, ["f1"], ValueError, "metrics has f1, of classes, expected none of those with poisson_nll"),
    ("labels", "sigmoid_binary_cross_entropy", 3, ["f1"], ValueError,
     "metrics has f1, of one class a row, expected none of those with sigmoid_binary_cross_entropy of 3 columns"),
    ("a column", "mse", 1, ["accuracy"], ValueError,
     "metrics has accuracy, of classes, expected none of those with mse of one column"),
    ("both", own, 3, ["mse", "f1"], ValueError,
     "metrics has f1, of classes, beside mse, expected those of classes or those of numbers"),
    ("k", "softmax_cross_entropy", 3, ["top_k_accuracy"], ValueError, "k is 5, expected at most the 3 classes"),
    ("binary", "softmax_cross_entropy", 3, [metrics.F1("binary")], ValueError, "average is 'binary' with 3 classes"),
]  # fmt: skip


@pytest.mark.one_level
@pytest.mark.parametrize(
    ("loss", "columns", "given", "kind", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_does_not_fit(loss: Any, columns: int, given: Any, kind: type[Exception], words: str) -> None:
    optimizer = optim.Adam()
    with pytest.raises(kind, match=f"^Trainer: {words}"):
        ts.Trainer(network((2, columns)), loss, optimizer, metrics=given)
    ts.Trainer(network((2, columns)), loss, optimizer)  # it is as it was


def test_targets_of_a_loss_of_ones_own_that_metrics_cannot_take() -> None:
    trainer = ts.Trainer(network((2, 3)), own, metrics=["accuracy"])
    with pytest.raises(ValueError, match="^fit: y holds 3 at row 1, expected 0 <= label < 3"):
        trainer.fit(np.ones((2, 2)), [0, 3])
    with pytest.raises(TypeError, match="^evaluate: y has dtype float64, expected integer class indices"):
        trainer.evaluate(np.ones((2, 2)), [0.0, 1.0])


def test_r2_of_one_row_is_nan_and_is_saved(tmp_path: Path) -> None:
    trainer = ts.Trainer(network((1, 1)), "mse", metrics=["r2"])
    assert math.isnan(trainer.fit(np.ones((1, 1)), np.ones((1, 1))).history["r2"][0])
    trainer.save(tmp_path / "run.safetensors")
    assert math.isnan(ts.Trainer.load(tmp_path / "run.safetensors").history.history["r2"][0])


@pytest.mark.one_level
def test_two_threads_measure_at_the_same_time() -> None:
    """Each has sums of its own."""
    code = """
import threading, numpy as np, trainstep as ts
rng = np.random.default_rng(0)
x, y = rng.standard_normal((20000, 8)), rng.standard_normal((20000, 2))
trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(8, 2), dtype="float64"), "mse", metrics=["r2", "mae"])
wanted, got = [trainer.evaluate(s * x, y, 64) for s in (1, 2)], {}
def work(i):
    got[i] = [trainer.evaluate((i + 1) * x, y, 64) for _ in range(3)]
threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
[t.start() for t in threads]
[t.join() for t in threads]
print(all(m == wanted[i] for i in (0, 1) for m in got[i]))
"""
    result = run_python(code, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("True", "")
