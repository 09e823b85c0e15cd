"""Losses with weights and options, compiled against the reference, and in the Trainer; losses of one's own.

test_ops.py has all losses without options, over all sizes; test_loss_peers.py has PyTorch.
"""

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import losses, ops, optim, reference
from trainstep.nn import Dense, Sequential

from .helpers import Array, assert_same_bits, assert_within, bits, classes, eps, network, numerical_gradient, state_bits
from .test_ops import CASES, LOSSES, OVER_CLASSES, REDUCTIONS, TARGET_KINDS, loss_problem
from .test_trainer import ReferenceTrainer, assert_same_training

Options = dict[str, Any]
CLOSE = {np.dtype("f4"): {"rtol": 1e-5, "atol": 1e-6}, np.dtype("f8"): {"rtol": 1e-9, "atol": 1e-12}}
SHAPES = [(1, 1), (3, 4), (17, 10), (65, 32), (64, 33), (130, 100)]
NUMBERS = {"huber": ("delta", 0.3), "softmax_cross_entropy": ("label_smoothing", 0.2)}


def option_sets(name: str, rng: np.random.Generator, dtype: Any, rows: int, columns: int) -> Iterator[Options]:
    """Each option of a loss by itself, and all of them."""
    everything: Options = {"sample_weight": (rng.uniform(0, 2, rows) * (rng.random(rows) < 0.8)).astype(dtype)}
    if name == "softmax_cross_entropy":
        everything["weight"] = (rng.uniform(0, 2, columns) * (rng.random(columns) < 0.8)).astype(dtype)
    if name in NUMBERS:
        option, value = NUMBERS[name]
        everything[option] = value
    for option, value in everything.items():
        yield {option: value}
    yield everything


def widened(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


# --- weights and options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_options_against_the_reference(dtype: np.dtype, threads: int, name: str, kind: str, rng: np.random.Generator) -> None:
    for shape in SHAPES:
        pred, target = loss_problem(name, kind, rng, dtype, *shape)
        for options, reduction in product(option_sets(name, rng, dtype, *shape), REDUCTIONS):
            loss, gradient = getattr(ops, name)(pred, target, **options, reduction=reduction)
            wide = {k: widened(v) for k, v in options.items()}
            exact = getattr(reference, name)(widened(pred), widened(target), **wide, reduction=reduction)
            what = (name, kind, shape, reduction, list(options))
            assert gradient.dtype == dtype, what
            np.testing.assert_allclose(loss, exact[0], **CLOSE[dtype], err_msg=str(what))
            np.testing.assert_allclose(gradient, exact[1], **CLOSE[dtype], err_msg=str(what))


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_with_options_is_the_derivative(name: str, kind: str, reduction: str, rng: np.random.Generator) -> None:
    for shape in ((1, 1), (3, 4), (4, 9), (2, 40)):
        pred, target = loss_problem(name, kind, rng, np.dtype("f8"), *shape)
        for options in option_sets(name, rng, "f8", *shape):

            def total(p: Array, target: Array = target, options: Options = options) -> float:
                return float(np.sum(getattr(ops, name)(p, target, **options, reduction=reduction)[0]))

            gradient = getattr(ops, name)(pred, target, **options, reduction=reduction)[1]
            np.testing.assert_allclose(gradient, numerical_gradient(total, pred), rtol=1e-6, atol=1e-7, err_msg=str(options))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_weights_count_rows_as_often(dtype: np.dtype, name: str, kind: str, rng: np.random.Generator) -> None:
    """A weight of 3 is a row three times; the same weight for all is none; a weight of 0 leaves a row out."""
    pred, target = loss_problem(name, kind, rng, dtype, 30, 7)
    times = rng.integers(0, 4, 30)
    loss = getattr(ops, name)
    for reduction in ("mean", "sum"):
        weighted, gradient = loss(pred, target, sample_weight=times.astype(dtype), reduction=reduction)
        repeated, gradient_of_each = loss(pred.repeat(times, axis=0), target.repeat(times, axis=0), reduction=reduction)
        assert weighted == pytest.approx(repeated, rel=50 * eps(dtype))
        first = np.concatenate([[0], times.cumsum()[:-1]])
        for row in np.flatnonzero(times):
            np.testing.assert_allclose(gradient[row], times[row] * gradient_of_each[first[row]], **CLOSE[dtype])
        np.testing.assert_array_equal(gradient[times == 0], 0)
    alike = loss(pred, target, sample_weight=np.full(30, 0.25, dtype))
    plain = loss(pred, target)
    assert alike[0] == pytest.approx(plain[0], rel=50 * eps(dtype))
    np.testing.assert_allclose(alike[1], plain[1], **CLOSE[dtype])


@pytest.mark.parametrize("columns", [3, 32, 33])
def test_labels_of_every_form_agree_with_options(dtype: np.dtype, columns: int, rng: np.random.Generator) -> None:
    labels = rng.integers(0, columns, 70)
    one_hot = np.eye(columns, dtype=dtype)[labels]
    for name in OVER_CLASSES:
        pred, _ = loss_problem(name, "labels", rng, dtype, 70, columns)
        for options, reduction in product(option_sets(name, rng, dtype, 70, columns), REDUCTIONS):
            by_index = getattr(ops, name)(pred, labels, **options, reduction=reduction)
            narrow = getattr(ops, name)(pred, labels.astype(np.int32), **options, reduction=reduction)
            assert_same_bits(np.asarray(narrow[0]), np.asarray(by_index[0]))
            assert_same_bits(narrow[1], by_index[1])
            by_row = getattr(ops, name)(pred, one_hot, **options, reduction=reduction)
            np.testing.assert_allclose(by_row[0], by_index[0], **CLOSE[dtype])
            np.testing.assert_allclose(by_row[1], by_index[1], **CLOSE[dtype])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_weights_of_0_alone(dtype: np.dtype, name: str, kind: str, rng: np.random.Generator) -> None:
    pred, target = loss_problem(name, kind, rng, dtype, 5, 6)
    for module, reduction in product((ops, reference), REDUCTIONS):
        loss, gradient = getattr(module, name)(pred, target, sample_weight=np.zeros(5, dtype), reduction=reduction)
        np.testing.assert_array_equal(loss, np.zeros_like(loss))
        np.testing.assert_array_equal(gradient, np.zeros_like(pred))


def test_class_weights_of_a_batch_without_those_classes(dtype: np.dtype) -> None:
    weight = np.array([1, 0, 0], dtype)
    loss, gradient = ops.softmax_cross_entropy(np.ones((4, 3), dtype), np.array([1, 2, 2, 1]), weight=weight)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_bits_with_options_do_not_depend_on_threads(dtype: np.dtype, name: str, kind: str) -> None:
    def everything() -> Iterator[Array]:
        for shape in ((20_001, 10), (333, 1000)):
            rng = np.random.default_rng(0)
            pred, target = loss_problem(name, kind, rng, dtype, *shape)
            *_, options = option_sets(name, rng, dtype, *shape)
            for reduction in ("mean", "none"):
                yield from map(np.asarray, getattr(ops, name)(pred, target, **options, reduction=reduction))

    with ts.num_threads(1):
        expected = list(everything())
    for n in (2, 3):
        with ts.num_threads(n):
            for got, wanted in zip(everything(), expected, strict=True):
                assert_same_bits(got, wanted, (n, name))


# --- extremes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in CASES if n != "categorical_cross_entropy"])
def test_scores_of_1e4(dtype: np.dtype, name: str, kind: str, rng: np.random.Generator) -> None:
    for columns in (1, 2, 40):
        _, target = loss_problem(name, kind, rng, dtype, 20, columns)
        pred = rng.choice([-1e4, 1e4], (20, columns)).astype(dtype)
        for options in ({}, *option_sets(name, rng, dtype, 20, columns)):
            got = getattr(ops, name)(pred, target, **options, reduction="none")
            exact = getattr(reference, name)(
                widened(pred), widened(target), **{k: widened(v) for k, v in options.items()}, reduction="none"
            )
            for a, b in zip(got, exact, strict=True):
                np.testing.assert_allclose(a, b.astype(dtype), **CLOSE[dtype])
            if name != "poisson_nll":  # whose rate is exp(1e4)
                assert all(np.isfinite(a).all() for a in got)


def test_sigmoid_binary_cross_entropy_at_its_limits(dtype: np.dtype) -> None:
    z = np.array([1e4, 1e4, -1e4, -1e4, 0, np.inf, -np.inf, np.inf, np.nan], dtype)
    t = np.array([1, 0, 0, 1, 0.5, 1, 0, 0, 1], dtype)
    loss, gradient = ops.sigmoid_binary_cross_entropy(z, t, reduction="none")
    np.testing.assert_allclose(loss, [0, 1e4, 0, 1e4, math.log(2), 0, 0, np.inf, np.nan], rtol=4 * eps(dtype))
    np.testing.assert_array_equal(gradient, [0, 1, 0, -1, 0, 0, 0, 1, np.nan])
    # sigmoid(z) - t cancels where both are near 1; what is left is -exp(-z).
    small = ops.sigmoid_binary_cross_entropy(np.array([30.0], dtype), np.ones(1, dtype), reduction="sum")
    assert small[0] == pytest.approx(math.exp(-30), rel=4 * eps(dtype))
    assert small[1][0] == pytest.approx(-math.exp(-30), rel=4 * eps(dtype))


def test_one_class_only(dtype: np.dtype) -> None:
    for columns in (1, 3, 40):
        logits, labels = np.linspace(-1e4, 1e4, 6 * columns, dtype=dtype).reshape(6, columns), np.zeros(6, np.int64)
        loss, gradient = ops.softmax_cross_entropy(logits, labels, label_smoothing=0.1)
        exact = reference.softmax_cross_entropy(widened(logits), labels, label_smoothing=0.1)
        np.testing.assert_allclose(loss, exact[0], **CLOSE[dtype])
        np.testing.assert_allclose(gradient, exact[1], **CLOSE[dtype])
        if columns == 1:
            assert loss == 0
            np.testing.assert_array_equal(gradient, 0)


def test_probabilities_of_0(dtype: np.dtype) -> None:
    """What is wanted at probability 0 is an infinite loss; what is not wanted takes no part; NaN shows."""
    probs = np.array([[0, 1, 0], [1, 0, 0], [np.nan, 1, 0]], dtype)
    onehot = np.array([[0, 1, 0]] * 3, dtype)
    for module in (ops, reference):
        for target in (onehot, np.ones(3, np.int64)):
            losses_, gradient = module.categorical_cross_entropy(probs, target, reduction="none")
            np.testing.assert_array_equal(losses_, [0, np.inf, np.nan])
            np.testing.assert_array_equal(gradient, [[0, -1, 0], [0, -np.inf, 0], [np.nan, -1, 0]])
        loss, gradient = module.kl_divergence(np.array([[0, -np.inf, 1e4]], dtype), np.array([[0, 0, 1]], dtype))
        assert loss == 0
        np.testing.assert_array_equal(gradient, 0)


def test_poisson_at_its_limits(dtype: np.dtype) -> None:
    x, n = np.array([-1e4, -1e4, 1e4, -np.inf, np.inf, np.nan], dtype), np.array([0, 2, 3, 0, 5, 1], dtype)
    for module in (ops, reference):
        loss, gradient = module.poisson_nll(x, n, reduction="none")
        np.testing.assert_array_equal(loss, [0, 2e4, np.inf, 0, np.inf, np.nan])
        np.testing.assert_array_equal(gradient, [0, -2, np.inf, 0, np.inf, np.nan])


def test_kinks(dtype: np.dtype) -> None:
    for module in (ops, reference):
        loss, gradient = module.mae(np.array([1, -2, np.nan], dtype), np.array([1, 1, 0], dtype), reduction="none")
        np.testing.assert_array_equal(loss, [0, 3, np.nan])
        np.testing.assert_array_equal(gradient, [0, -1, np.nan])
        loss, gradient = module.hinge(np.array([1, 0.5, -3, np.nan], dtype), np.array([1, 1, 1, -1], dtype), reduction="none")
        np.testing.assert_array_equal(loss, [0, 0.5, 4, np.nan])
        np.testing.assert_array_equal(gradient, [0, -1, -1, np.nan])
        e = np.array([0.5, -0.5, 0.25, -4, np.inf, np.nan], dtype)
        loss, gradient = module.huber(e, np.zeros_like(e), 0.5, reduction="none")
        np.testing.assert_array_equal(loss[:4], [0.125, 0.125, 0.03125, 1.875])
        np.testing.assert_array_equal(gradient, [0.5, -0.5, 0.25, -0.5, 0.5, np.nan])


# --- Trainer: the losses by name and with options --------------------------------------------------------------------------------

# A loss of each kind, and what it is called by.
NAMED = [(name, kind, losses.LOSSES[name]) for name, kind in CASES]


def data_for(name: str, kind: str, rows: int, features: int, columns: int, dtype: Any = "f8", seed: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    _, y = loss_problem(name, kind, rng, np.dtype(dtype), rows, columns)
    return rng.standard_normal((rows, features)).astype(dtype), y


def net(name: str, widths: tuple[int, ...] = (6, 17, 5), dtype: Any = "float64", seed: int = 0) -> Sequential:
    """A network whose output the loss can take: probabilities for categorical_cross_entropy."""
    layers = network(widths, dtype=dtype).layers
    if name == "categorical_cross_entropy":
        layers = (*layers[:-1], Dense(widths[-2], widths[-1], activation="sigmoid"))
    return Sequential(*layers, dtype=dtype, seed=seed)


class OptionsTrainer(ReferenceTrainer):
    """The reference with options of the loss."""

    def __init__(self, model: Sequential, loss: str, **options: Any) -> None:
        super().__init__(model, loss, reference.sgd_step_, ("momentum_buffer",), {"lr": 0.02, "momentum": 0.9})
        formula = self.loss
        self.loss = reference.softmax_cross_entropy  # labels stay labels
        self.sample_weight: Array | None = None

        def with_options(pred: Array, y: Array) -> Any:
            return formula(pred, y, sample_weight=self.sample_weight, **options)

        self.formula = with_options

    def loss_of(self, x: Array, y: Array) -> Any:
        ys = [np.asarray(x, np.float64)]
        for i, layer in enumerate(self.layers):
            ys.append(reference.dense(ys[-1], self.p[f"{i}.weight"], self.p[f"{i}.bias"], layer.activation))
        loss, dy = self.formula(ys[-1], y if y.dtype.kind == "i" else widened(y))
        return loss, dy, ys


@pytest.mark.parametrize(("name", "kind", "cls"), NAMED)
def test_steps_with_each_loss(name: str, kind: str, cls: Any) -> None:
    for widths in ((6, 17, 5), (6, 40), (4, 9, 8, 3)):
        model = net(name, widths)
        wanted = OptionsTrainer(model, name)
        trainer = ts.Trainer(model, name, optim.SGD(lr=0.02, momentum=0.9))
        assert trainer.loss == cls()
        for rows in (17, 64, 1):
            x, y = data_for(name, kind, rows, widths[0], widths[-1])
            assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=1e-11, abs=1e-13)
        assert_same_training(trainer, wanted)


@pytest.mark.parametrize(("name", "kind", "cls"), NAMED)
def test_steps_with_weights_and_options(name: str, kind: str, cls: Any, threads: int) -> None:
    rng = np.random.default_rng(2)
    options: Options = {}
    if name == "softmax_cross_entropy":
        options = {"weight": rng.uniform(0, 2, 5), "label_smoothing": 0.1}
    if name == "huber":
        options = {"delta": 0.5}
    model = net(name)
    wanted = OptionsTrainer(model, name, **options)
    trainer = ts.Trainer(model, cls(**options), optim.SGD(lr=0.02, momentum=0.9))
    for rows, dtype in ((17, "f8"), (130, "f4"), (9, "i4")):
        x, y = data_for(name, kind, rows, 6, 5)
        weight = rng.uniform(0, 3, rows).astype(dtype)
        wanted.sample_weight = widened(weight).astype(np.float64)
        assert trainer.step(x, y, sample_weight=weight) == pytest.approx(wanted.step(x, y), rel=1e-11, abs=1e-13)
    assert_same_training(trainer, wanted)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("name", "kind", "cls"), NAMED)
def test_fit_with_weights_equals_its_steps(name: str, kind: str, cls: Any, shuffle: bool, dtype: np.dtype) -> None:
    rows, batch = 103, 25
    x, y = data_for(name, kind, rows, 6, 5, dtype)
    weight = np.random.default_rng(1).uniform(0, 2, rows).astype(dtype)
    weight[:30] = 0  # in order, the first batch counts for nothing
    fitted, stepped = (ts.Trainer(net(name, dtype=dtype.name), cls(), seed=11) for _ in range(2))
    history = fitted.fit(x, y, epochs=2, batch_size=batch, shuffle=shuffle, sample_weight=weight)
    for epoch in range(2):
        order = ts._core.permutation(rows, 11, epoch) if shuffle else np.arange(rows)
        total = mass = 0.0
        for first in range(0, rows, batch):
            chosen = order[first : first + batch]
            of_batch = float(weight[chosen].astype(np.float64).sum())
            total += stepped.step(x[chosen], y[chosen], sample_weight=weight[chosen]) * of_batch
            mass += of_batch
        assert history.history["loss"][epoch] == pytest.approx(total / mass, rel=20 * eps(dtype))
    assert bits(fitted.model) == bits(stepped.model)
    assert state_bits(fitted) == state_bits(stepped)


@pytest.mark.parametrize(("name", "kind", "cls"), NAMED)
def test_evaluate_is_the_loss_of_the_model(name: str, kind: str, cls: Any, dtype: np.dtype) -> None:
    x, y = data_for(name, kind, 200, 6, 5, dtype)
    weight = np.random.default_rng(1).uniform(0, 2, 200).astype(dtype)
    trainer = ts.Trainer(net(name, dtype=dtype.name), cls())
    for given in (None, weight):
        measures = trainer.evaluate(x, y, batch_size=37, sample_weight=given)
        assert measures["loss"] == pytest.approx(
            getattr(ops, name)(trainer.model(x), y, sample_weight=given)[0], rel=20 * eps(dtype)
        )
    plain, weighted = trainer.evaluate(x, y), trainer.evaluate(x, y, sample_weight=weight)
    history = trainer.fit(x, y, epochs=1, validation_data=(x, y, weight)).history
    assert history["val_loss"] == [trainer.evaluate(x, y, sample_weight=weight)["loss"]]
    classified = name in OVER_CLASSES or name in ("sigmoid_binary_cross_entropy", "hinge")
    assert ("accuracy" in history) == ("val_accuracy" in history) == ("accuracy" in plain) == classified
    assert plain.get("accuracy") == weighted.get("accuracy")


@pytest.mark.parametrize("columns", [1, 5, 40])
@pytest.mark.parametrize("name", [*OVER_CLASSES, "sigmoid_binary_cross_entropy", "hinge"])
def test_accuracy(name: str, columns: int, dtype: np.dtype) -> None:
    for kind in TARGET_KINDS[name]:
        x, y = data_for(name, kind, 130, 6, columns, dtype)
        trainer = ts.Trainer(net(name, (6, columns), dtype=dtype.name), name)
        pred = trainer.model(x)
        if name in OVER_CLASSES:
            wanted = (pred.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))).mean()
        else:
            wanted = ((pred > 0) == (y > (0 if name == "hinge" else 0.5))).mean()
        assert trainer.evaluate(x, y, batch_size=50)["accuracy"] == pytest.approx(wanted, rel=1e-12)
        x[7] = np.nan
        assert trainer.evaluate(x, y, batch_size=50)["accuracy"] <= wanted


def test_labels_of_two_classes_in_one_column() -> None:
    """The targets of a binary classifier are one vector, bools too."""
    x, y = classes(400, 5, 2, "float64", seed=2)
    trainer = ts.Trainer(network((5, 8, 1)), "sigmoid_binary_cross_entropy", optim.Adam(lr=0.01))
    trainer.fit(x, y, epochs=30)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95
    assert trainer.evaluate(x, y == 1) == trainer.evaluate(x, y.astype("float32")[:, None])


def test_several_labels_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6))
    y = (x @ rng.standard_normal((6, 3)) > 0).astype(np.uint8)
    trainer = ts.Trainer(network((6, 16, 3)), "sigmoid_binary_cross_entropy", optim.Adam(lr=0.01))
    trainer.fit(x, y, epochs=20)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95


def test_weights_turn_to_the_rare_class() -> None:
    x, y = classes(600, 3, 2, "float64", seed=3)
    keep = (y == 0) | (np.arange(600) % 12 == 0)
    x, y = x[keep], y[keep]

    def recall(**options: Any) -> float:
        trainer = ts.Trainer(network((3, 2)), losses.SoftmaxCrossEntropy(**options), optim.Adam(lr=0.05))
        trainer.fit(x, y, epochs=20)
        return float((trainer.model(x)[y == 1].argmax(axis=1) == 1).mean())

    assert recall(weight=[1, 20]) > recall() + 0.1


def test_losses_are_values() -> None:
    assert losses.Huber(2) == losses.Huber(delta=2.0) != losses.Huber()
    assert losses.SoftmaxCrossEntropy(weight=np.array([1, 2])) == losses.SoftmaxCrossEntropy(weight=[1.0, 2.0])
    assert hash(losses.SoftmaxCrossEntropy(weight=np.array([1, 2]))) == hash(losses.SoftmaxCrossEntropy(weight=(1, 2)))
    with pytest.raises(AttributeError):
        losses.Huber().delta = 3.0  # type: ignore[misc]


def test_bits_of_weighted_training_do_not_depend_on_threads(dtype: np.dtype) -> None:
    x, y = classes(300, 64, 10, dtype)
    weight = np.random.default_rng(0).uniform(0, 2, 300)
    loss = losses.SoftmaxCrossEntropy(weight=np.linspace(0.5, 2, 10), label_smoothing=0.1)
    trained = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            trainer = ts.Trainer(network((64, 64, 10), "relu", dtype=dtype.name), loss)
            history = trainer.fit(x, y, epochs=10, batch_size=64, sample_weight=weight).history
        trained.append((bits(trainer.model), state_bits(trainer), history["loss"], history["accuracy"]))
    assert trained[0] == trained[1] == trained[2]


# --- losses of one's own ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_a_function_of_ops_is_a_loss_of_ones_own(name: str, dtype: np.dtype, threads: int) -> None:
    """It gives the bits of the built-in loss: nothing else of a step is different."""
    x, y = data_for(name, TARGET_KINDS[name][0], 103, 6, 5, dtype)
    given, built_in = (ts.Trainer(net(name, dtype=dtype.name), loss) for loss in (getattr(ops, name), name))
    assert given.loss is getattr(ops, name)
    for trainer in (given, built_in):
        trainer.step(x, y)
    histories = [trainer.fit(x, y, epochs=2, batch_size=25, validation_data=(x, y)).history for trainer in (given, built_in)]
    assert bits(given.model) == bits(built_in.model)
    assert state_bits(given) == state_bits(built_in)
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose(histories[0][key], histories[1][key], rtol=20 * eps(dtype))
    assert "accuracy" not in histories[0]
    assert given.evaluate(x, y)["loss"] == pytest.approx(built_in.evaluate(x, y)["loss"], rel=20 * eps(dtype))


def test_a_large_net_with_a_loss_of_ones_own(threads: int) -> None:
    x, y = classes(256, 300, 10, "float32")
    given, built_in = (
        ts.Trainer(network((300, 512, 10), dtype="float32"), loss) for loss in (ops.softmax_cross_entropy, "softmax_cross_entropy")
    )
    for trainer in (given, built_in):
        trainer.fit(x, y, epochs=2, batch_size=64)
    assert bits(given.model) == bits(built_in.model)


class Recorder:
    """A squared error that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Array, Any]] = []

    def __call__(self, y_pred: Array, y_true: Array) -> tuple[float, Array]:
        self.calls.append((y_pred, y_true))
        error = y_pred - y_true.reshape(len(y_true), -1)[:, : y_pred.shape[1]].astype(y_pred.dtype)
        return float((error**2).mean()), 2 * error / error.size


def test_a_loss_of_ones_own_is_called_once_a_step_with_copies(dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 6)).astype(dtype), rng.integers(0, 9, (10, 2, 4)).astype(np.int16)
    loss = Recorder()
    model = network((6, 3), dtype=dtype.name)
    trainer = ts.Trainer(model, loss)
    before = model(x)
    trainer.step(x, y)
    ((y_pred, y_true),) = loss.calls
    assert_same_bits(y_pred, before)
    assert_same_bits(y_true, y)
    assert not np.shares_memory(y_true, y)
    y_pred[...] = y_true[...] = 7  # ours: the model must not see it
    loss.calls.clear()
    trainer.fit(x, y, batch_size=4)
    order = ts._core.permutation(10, 0, 0)
    assert [len(pred) for pred, _ in loss.calls] == [4, 4, 2]
    for (_, y_true), chosen in zip(loss.calls, (order[:4], order[4:8], order[8:]), strict=True):
        assert_same_bits(y_true, y[chosen])
    loss.calls.clear()
    trainer.evaluate(x, y, batch_size=6)
    assert [len(pred) for pred, _ in loss.calls] == [6, 4]
    assert_same_bits(loss.calls[1][1], y[6:])


def test_a_loss_of_ones_own_that_is_not_finite_is_taken() -> None:
    x = np.ones((4, 6))
    trainer = ts.Trainer(network((6, 3)), lambda p, _: (math.inf, np.full_like(p, np.nan)))
    assert trainer.step(x, np.zeros(4)) == math.inf
    assert all(np.isnan(v).any() for v in trainer.model.parameters().values())


def zeros(p: Array, _: Array) -> tuple[float, Array]:
    return 0.0, np.zeros_like(p)


BAD_RESULTS: dict[str, tuple[Callable[[Array], Any], type[BaseException], str | None]] = {
    "None": (lambda p: None, TypeError, r"^Trainer: loss gave a NoneType, expected a pair \(loss, dy\)$"),
    "a number": (lambda p: 1.0, TypeError, "gave a float"),
    "three": (lambda p: (1.0, p, p), TypeError, "expected a pair"),
    "an array": (lambda p: p, TypeError, "gave a ndarray"),
    "loss is text": (lambda p: ("a", p), TypeError, "value of loss is a str, expected a number"),
    "loss for each row": (lambda p: (p[:, 0], p), TypeError, "value of loss is a ndarray"),
    "dy of another shape": (lambda p: (0.0, p[:2]), ValueError, r"dy of loss has shape \(2, 3\), expected \(4, 3\)"),
    "dy that would broadcast": (lambda p: (0.0, p[:1]), ValueError, r"dy of loss has shape \(1, 3\)"),
    "dy of another dtype": (lambda p: (0.0, p.astype("f4")), TypeError, "dy of loss has dtype float32, expected float64"),
    "dy is None": (lambda p: (0.0, None), TypeError, "dy of loss is a NoneType"),
    "raises": (lambda p: 1 / 0, ZeroDivisionError, "division by zero"),
    "interrupts": (lambda p: (_ for _ in ()).throw(KeyboardInterrupt), KeyboardInterrupt, None),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
@pytest.mark.parametrize("method", ["step", "fit", "evaluate", "validation"])
def test_a_bad_loss_of_ones_own_leaves_the_model_as_it_was(case: str, method: str) -> None:
    bad, exception, words = BAD_RESULTS[case]
    calls = 0

    def loss(p: Array, y: Array) -> Any:
        nonlocal calls
        calls += 1
        return bad(p) if calls > 1 else (0.5, 0.1 * p)

    x, y = np.random.default_rng(0).standard_normal((4, 6)), np.zeros(4)
    trainer = ts.Trainer(network((6, 9, 3)), loss, optim.SGD(lr=0.1, momentum=0.9))
    trainer.step(x, y)
    before = bits(trainer.model) + state_bits(trainer)
    run = {
        "step": lambda: trainer.step(x, y),
        "fit": lambda: trainer.fit(x, y, batch_size=4),
        "evaluate": lambda: trainer.evaluate(x, y),
        "validation": lambda: trainer.fit(x, y, epochs=2, batch_size=4, validation_data=(x, y)),
    }[method]
    with pytest.raises(exception, match=words):
        run()
    assert bits(trainer.model) + state_bits(trainer) == before
    assert (trainer.steps, trainer.epoch) == (1, 0)
    with pytest.raises(RuntimeError, match="no forward"):
        trainer.model.backward(np.zeros((4, 3)))
    bad = lambda p: (0.0, p)  # noqa: E731
    trainer.step(x, y)
    assert trainer.steps == 2


def test_a_loss_of_ones_own_takes_no_weights() -> None:
    trainer = ts.Trainer(network((6, 3)), zeros)
    x, y, weight = np.ones((4, 6)), np.zeros(4), np.ones(4)
    for run in (
        lambda: trainer.step(x, y, weight),
        lambda: trainer.fit(x, y, sample_weight=weight),
        lambda: trainer.evaluate(x, y, sample_weight=weight),
        lambda: trainer.fit(x, y, validation_data=(x, y, weight)),
    ):
        with pytest.raises(ValueError, match="sample_weight.* is given, expected None"):
            run()
    with pytest.raises(ValueError, match=r"step: y has shape \(3,\), expected 4 rows as x"):
        trainer.step(x, np.zeros(3))


def test_a_loss_of_ones_own_cannot_run_its_model() -> None:
    """It would wait for itself; another model it may run, and its own optimizer it may set."""
    x, y = np.ones((4, 6)), np.zeros((4, 3))
    other = network((6, 3))
    attempts: list[Callable[[], object]] = [
        lambda: trainer.model(x),
        lambda: trainer.model.forward(x, training=True),
        lambda: trainer.step(x, y),
        lambda: trainer.evaluate(x, y),
    ]
    refused = 0

    def loss(p: Array, t: Array) -> tuple[float, Array]:
        nonlocal refused
        other(x)
        trainer.optimizer.lr = 0.25
        for attempt in attempts:
            with pytest.raises(RuntimeError, match="in the middle of a step"):
                attempt()
            refused += 1
        return zeros(p, t)

    trainer = ts.Trainer(network((6, 3)), loss)
    trainer.step(x, y)
    assert refused == len(attempts)
    assert trainer.optimizer.lr == 0.25
    trainer.model(x)


def test_another_thread_waits_for_its_turn() -> None:
    """While a loss of one's own runs, another thread's call of the model waits, and neither stops the other."""
    x, y = np.ones((4, 6)), np.zeros((4, 3))
    seen: list[Array] = []
    inside = threading.Event()

    def loss(p: Array, t: Array) -> tuple[float, Array]:
        inside.set()
        return zeros(p, t)

    trainer = ts.Trainer(network((6, 3)), loss)

    def run() -> None:
        inside.wait(10)
        seen.append(trainer.model(x))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(20):
        trainer.step(x, y)
    thread.join(10)
    assert_same_bits(seen[0], trainer.model(x))


def test_a_loss_of_ones_own_is_no_cycle() -> None:
    """An object whose method is the loss and that holds the trainer is collected."""

    class Run:
        def __init__(self) -> None:
            self.trainer = ts.Trainer(network((6, 3)), self.loss)

        def loss(self, p: Array, t: Array) -> tuple[float, Array]:
            return zeros(p, t)

    run = Run()
    run.trainer.step(np.ones((4, 6)), np.zeros(4))
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None


def test_by_hand() -> None:
    """Values that do not come from the code: the formulas, worked out."""
    third = math.log(3)
    assert ops.sigmoid_binary_cross_entropy([third], [1.0])[0] == pytest.approx(math.log(4 / 3), rel=1e-14)  # sigmoid is 3/4
    assert ops.categorical_cross_entropy([[0.25, 0.75]], [1])[0] == pytest.approx(math.log(4 / 3), rel=1e-14)
    assert ops.kl_divergence([[0.0, 0.0]], [[0.25, 0.75]])[0] == pytest.approx(0.75 * math.log(3) - math.log(2), rel=1e-14)
    assert ops.poisson_nll([third], [2.0])[0] == pytest.approx(3 - 2 * third, rel=1e-14)
    assert ops.huber([3.0], [0.0], 2.0)[0] == 2.0 * (3.0 - 1.0)
    loss, gradient = ops.softmax_cross_entropy(np.zeros((2, 2)), np.array([0, 1]), weight=np.array([1.0, 3.0]))
    assert loss == pytest.approx(math.log(2), rel=1e-15)
    assert_within(gradient, [[-0.125, 0.125], [0.375, -0.375]], 1e-15)
    smooth, _ = ops.softmax_cross_entropy([[third, 0.0]], [0], label_smoothing=0.5)  # t = (3/4, 1/4), p = (3/4, 1/4)
    assert smooth == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-14)
