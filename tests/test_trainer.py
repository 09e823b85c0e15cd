"""Training: every step against a float64 loop of reference formulas, and what a run promises on order, bits and interruptions."""

import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, _feeds, optim, reference
from trainstep.nn import Dense, Sequential

from .activation_rules import OF_INPUT
from .helpers import bits, classes, network, state_bits

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"


class ReferenceTrainer:
    """The same training with the formulas of trainstep.reference on float64 arrays."""

    def __init__(
        self, model: Sequential, loss: str, step: Callable[..., None], states: tuple[str, ...], options: dict[str, object]
    ):
        self.layers = model.layers
        self.p = {name: v.astype(np.float64) for name, v in model.parameters().items()}
        self.state = {name: {s: np.zeros_like(v) for s in states} for name, v in self.p.items()}
        self.loss, self.update, self.options, self.steps = getattr(reference, loss), step, options, 0

    def loss_of(self, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, list[np.ndarray]]:
        ys = [np.asarray(x, np.float64).reshape(len(x), -1)]
        for i, layer in enumerate(self.layers):
            ys.append(reference.dense(ys[-1], self.p[f"{i}.weight"], self.p[f"{i}.bias"], layer.activation))
        labels = self.loss is reference.softmax_cross_entropy and y.ndim == 1
        y = y.astype(np.int64) if labels else np.asarray(y, np.float64).reshape(ys[-1].shape)
        loss, dy = self.loss(ys[-1], y)
        return loss, dy, ys

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        loss, dy, ys = self.loss_of(x, y)
        gradients = {}
        for i in reversed(range(len(self.layers))):
            weight, bias, activation = self.p[f"{i}.weight"], self.p[f"{i}.bias"], self.layers[i].activation
            y = reference.dense(ys[i], weight, bias) if activation in OF_INPUT else ys[i + 1]
            dy, gradients[f"{i}.weight"], gradients[f"{i}.bias"] = reference.dense_backward(dy, ys[i], weight, y, activation)
        self.steps += 1
        for name, w in self.p.items():
            self.update(w, gradients[name], **self.state[name], step=self.steps, **self.options)
        return loss


# name: class, the bare formula, its states, what both are given
OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], Callable[..., None], tuple[str, ...], dict[str, object], dict[str, object]]] = {
    "sgd": (optim.SGD, reference.sgd_step_, (), {"lr": 0.1}, {}),
    "momentum": (
        optim.SGD,
        reference.sgd_step_,
        ("momentum_buffer",),
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01, "l1": 0.003},
        {},
    ),
    "nesterov": (optim.SGD, reference.sgd_step_, ("momentum_buffer",), {"lr": 0.05, "momentum": 0.8, "nesterov": True}, {}),
    "velocity": (optim.SGD, reference.sgd_step_, ("momentum_buffer",), {"lr": 0.05, "momentum": 0.8, "lr_in_velocity": True}, {}),
    "adam": (optim.Adam, reference.adam_step_, ("exp_avg", "exp_avg_sq"), {"lr": 0.01}, {}),
    "adam decayed": (
        optim.Adam,
        reference.adam_step_,
        ("exp_avg", "exp_avg_sq"),
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.02, "l1": 0.003},
        {},
    ),
    "adamw": (
        optim.AdamW,
        reference.adam_step_,
        ("exp_avg", "exp_avg_sq"),
        {"lr": 0.01, "weight_decay": 0.1},
        {"decoupled_weight_decay": True},
    ),
}


def pair(model: Sequential, loss: str, optimizer: str) -> tuple[ts.Trainer, ReferenceTrainer]:
    cls, formula, states, options, formula_only = OPTIMIZERS[optimizer]
    return ts.Trainer(model, loss, cls(**options)), ReferenceTrainer(model, loss, formula, states, options | formula_only)


def target(kind: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    labels = rng.integers(0, columns, rows)
    if kind in ("int32", "int64", "uint8"):
        return labels.astype(kind)
    if kind == "one-hot":
        return np.eye(columns)[labels]
    if kind == "one-hot uint8":
        return np.eye(columns, dtype="uint8")[labels]
    if kind == "probabilities":
        return rng.dirichlet(np.ones(columns), rows)
    return rng.standard_normal((rows,) if kind == "(B,)" else (rows, columns))


TARGETS = [
    *(("softmax_cross_entropy", kind) for kind in ("int32", "int64", "uint8", "one-hot", "one-hot uint8", "probabilities")),
    ("mse", "(B, C)"),
]
NETS = [(4, 16, 3), (5, 9, 1), (7, 2), (6, 33, 17), (9, 31, 17, 10)]
# The dtype's rounding alone, and what Adam makes of it where a gradient is small: a difference of 1e-16 in it moves a whole lr.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def assert_same_training(trainer: ts.Trainer, wanted: ReferenceTrainer) -> None:
    assert trainer.steps == wanted.steps
    for (name, got), state in zip(trainer.model.parameters().items(), trainer.optimizer.state, strict=True):
        np.testing.assert_allclose(got, wanted.p[name], **CLOSE, err_msg=name)
        assert state.pop("step") == wanted.steps
        assert state.keys() == wanted.state[name].keys()
        for s, values in state.items():
            np.testing.assert_allclose(values, wanted.state[name][s], **CLOSE, err_msg=f"{name} {s}")


def train_ten_steps(widths: tuple[int, ...], loss: str, kind: str, optimizer: str, activation: str = "tanh") -> None:
    rng = np.random.default_rng(1)
    trainer, wanted = pair(network(widths, activation), loss, optimizer)
    for rows in (17, 64, 1, 3, 600, 17, 64, 1, 3, 65):
        x, y = rng.standard_normal((rows, widths[0])), target(kind, rows, widths[-1], rng)
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=1e-11, abs=1e-13)
    assert_same_training(trainer, wanted)


# --- a step --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("loss", "kind"), TARGETS)
def test_ten_steps(loss: str, kind: str, optimizer: str) -> None:
    for widths in NETS:
        train_ten_steps(widths, loss, kind, optimizer)


@pytest.mark.parametrize("kind", ["(B,)", "(B, C)"])
def test_ten_steps_to_one_output(kind: str) -> None:
    train_ten_steps((5, 9, 1), "mse", kind, "adam")


@pytest.mark.parametrize("activation", _core.activations)
def test_ten_steps_with_each_activation(activation: str, threads: int) -> None:
    for widths in ((4, 16, 3), (9, 31, 17, 10)):
        train_ten_steps(widths, "softmax_cross_entropy", "int64", "momentum", activation)


@pytest.mark.parametrize("activation", _core.activations)
def test_ten_steps_with_an_activation_on_the_output(activation: str) -> None:
    rng = np.random.default_rng(1)
    model = Sequential(Dense(6, 8, activation="tanh"), Dense(8, 3, activation=activation), dtype="float64")
    trainer, wanted = pair(model, "mse", "sgd")
    for _ in range(10):
        x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=1e-11)
    assert_same_training(trainer, wanted)


def test_a_large_net_on_several_threads(threads: int) -> None:
    """2 * 3 * 256 * 784 * 512 flops a step: enough that the threads are used."""
    x, y = classes(256, 784, 10, "float64")
    trainer, wanted = pair(network((784, 512, 10)), "softmax_cross_entropy", "momentum")
    for _ in range(2):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=1e-11)
    assert_same_training(trainer, wanted)


def test_float32_follows_the_reference() -> None:
    x, y = classes(64, 20, 5)
    trainer, wanted = pair(network((20, 33, 5), dtype="float32"), "softmax_cross_entropy", "adam")
    for _ in range(10):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=1e-5)
    for name, v in trainer.model.parameters().items():
        assert v.dtype == np.float32
        np.testing.assert_allclose(v, wanted.p[name], atol=2e-5)


def test_gradients_are_those_of_the_step() -> None:
    x, y = classes(33, 7, 3, "float64")
    model = network((7, 9, 3))
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.25))
    before = {name: v.copy() for name, v in model.parameters().items()}
    trainer.step(x, y)
    for name, v in model.parameters().items():
        np.testing.assert_allclose((before[name] - v) / 0.25, model.gradients()[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "dtype_of_x", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_x_of_any_real_dtype(dtype_of_x: str, dtype: np.dtype) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 2 if dtype_of_x == "bool" else 100, (50, 3, 4)).astype(dtype_of_x)
    y = rng.integers(0, 5, 50)
    trained = []
    for table in (x, x.astype(dtype).reshape(50, 12)):
        trainer = ts.Trainer(network((12, 8, 5), dtype=dtype))
        trainer.step(table, y)
        trainer.fit(table, y, epochs=2, batch_size=16)
        trainer.fit(table, y, batch_size=16, shuffle=False)
        trained.append((bits(trainer.model), trainer.evaluate(table, y)))
    assert trained[0] == trained[1]


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "uint8"])
def test_mse_targets_of_any_real_dtype(kind: str, dtype: np.dtype) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((50, 4)), rng.integers(0, 100, (50, 2)).astype(kind)
    trained = []
    for targets in (y, y.astype(dtype)):
        trainer = ts.Trainer(network((4, 8, 2), dtype=dtype), "mse")
        trainer.step(x, targets)
        trainer.fit(x, targets, epochs=2, batch_size=16)
        trained.append((bits(trainer.model), trainer.evaluate(x, targets)))
    assert trained[0] == trained[1]


def test_lr_set_between_steps_takes_effect() -> None:
    x, y = classes(33, 7, 3, "float64")
    for name in ("adam", "momentum", "velocity"):
        trainer, wanted = pair(network((7, 9, 3)), "softmax_cross_entropy", name)
        for lr in (0.1, 0.01, 0.0, 0.3):
            trainer.optimizer.lr = wanted.options["lr"] = lr
            trainer.step(x, y)
            wanted.step(x, y)
        assert_same_training(trainer, wanted)
    trainer.optimizer.param_groups[0]["momentum"] = wanted.options["momentum"] = 0.5
    trainer.step(x, y)
    wanted.step(x, y)
    assert_same_training(trainer, wanted)
    assert trainer.fit(x, y, epochs=2).history["lr"] == [0.3, 0.3]


def test_an_optimizer_step_of_ones_own_between_trainer_steps() -> None:
    """trainer.optimizer.step(grads) is an update like any other; the next step of the trainer uses its own gradients again."""
    x, y = classes(33, 7, 3, "float64")
    trainer, wanted = pair(network((7, 9, 3)), "softmax_cross_entropy", "adam")
    for _ in range(2):
        trainer.step(x, y)
        wanted.step(x, y)
        mine = {name: np.full(v.shape, 0.5) for name, v in wanted.p.items()}
        trainer.optimizer.step(list(mine.values()))
        wanted.steps += 1
        for name, w in wanted.p.items():
            reference.adam_step_(w, mine[name], **wanted.state[name], step=wanted.steps, **wanted.options)
    trainer.step(x, y)
    wanted.step(x, y)
    assert_same_training(trainer, wanted)


def test_initial_loss_is_the_log_of_the_number_of_classes(dtype: np.dtype) -> None:
    for count in (1, 2, 3, 10, 17, 100):
        model = Sequential(Dense(8, 16, activation="relu"), Dense(16, count, init="zeros"), dtype=dtype)
        x, y = classes(40, 8, count)
        assert ts.Trainer(model).step(x, y) == pytest.approx(math.log(count), rel=40 * float(np.finfo(dtype).eps), abs=1e-30)


def test_units_that_start_alike_stay_alike() -> None:
    """Why weights are drawn at random: the units of a constant layer get one gradient, and the layer works as a single unit."""
    x, y = classes(60, 5, 4, "float64")

    def spread(init: object) -> float:
        model = network((5, 8, 4), init=init)
        ts.Trainer(model, optimizer=optim.SGD(lr=0.5, momentum=0.9)).fit(x, y, epochs=10)
        w = model.parameters()["0.weight"]
        assert np.abs(w).max() > 0.1 or init == "zeros"
        return float(np.ptp(w, axis=1).max())

    assert spread("zeros") == 0.0
    assert spread(lambda shape, *, rng, dtype: np.full(shape, 0.1)) < 1e-12
    assert spread(None) > 0.1


# --- fit -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("loss", "kind"), [*TARGETS, ("mse", "(B,)")])
def test_fit_equals_its_steps(loss: str, kind: str, drop_last: bool, shuffle: bool, dtype: np.dtype) -> None:
    rng = np.random.default_rng(3)
    rows, batch_size, epochs, columns = 103, 25, 3, 1 if kind == "(B,)" else 5
    x, y = rng.standard_normal((rows, 6)).astype(dtype), target(kind, rows, columns, rng)
    fitted, stepped = (ts.Trainer(network((6, 17, columns), dtype=dtype), loss, seed=11) for _ in range(2))
    history = fitted.fit(x, y, epochs=epochs, batch_size=batch_size, drop_last=drop_last, shuffle=shuffle)
    for epoch in range(epochs):
        order = _core.permutation(rows, 11, epoch) if shuffle else np.arange(rows)
        losses, correct, seen = [], 0, 0
        for first in range(0, 100 if drop_last else rows, batch_size):
            chosen = order[first : first + batch_size]
            if loss == "softmax_cross_entropy":
                wanted = y[chosen] if y.ndim == 1 else y[chosen].argmax(axis=1)
                correct += int((stepped.model(x[chosen]).argmax(axis=1) == wanted).sum())
            losses.append(stepped.step(x[chosen], y[chosen]) * len(chosen))
            seen += len(chosen)
        assert history.history["loss"][epoch] == pytest.approx(sum(losses) / seen, rel=1e-12)
        if loss == "softmax_cross_entropy":
            assert history.history["accuracy"][epoch] == correct / seen
        else:
            assert "accuracy" not in history.history
    assert bits(fitted.model) == bits(stepped.model)
    assert state_bits(fitted) == state_bits(stepped)
    assert fitted.steps == stepped.steps == epochs * (4 if drop_last else 5)


def test_history() -> None:
    x, y = classes(100, 8, 4)
    trainer = ts.Trainer(network((8, 4), dtype="float32"))
    history = trainer.fit(x, y, epochs=3, validation_data=(x[:30], y[:30]))
    assert history.epoch == [1, 2, 3]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    assert all(len(v) == 3 for v in history.history.values())
    assert history.history["lr"] == [1e-3] * 3
    assert all(0 < s < 5 for s in history.history["seconds"])
    after = trainer.evaluate(x[:30], y[:30])
    assert history.history["val_loss"][-1] == after["loss"]
    assert history.history["val_accuracy"][-1] == after["accuracy"]


def test_validation_changes_nothing() -> None:
    x, y = classes(100, 8, 4)
    trained = []
    for validation in (None, (x[:30], y[:30]), [x[:1], y[:1]]):
        trainer = ts.Trainer(network((8, 9, 4), dtype="float32"))
        trainer.fit(x, y, epochs=3, validation_data=validation)
        trained.append(bits(trainer.model) + state_bits(trainer))
    assert trained[0] == trained[1] == trained[2]


@pytest.mark.parametrize(("loss", "kind"), [*TARGETS, ("mse", "(B,)")])
@pytest.mark.parametrize("batch_size", [1, 32, 1024])
def test_evaluate(loss: str, kind: str, batch_size: int, threads: int) -> None:
    rng = np.random.default_rng(4)
    columns = 1 if kind == "(B,)" else 5
    x, y = rng.standard_normal((333, 6)), target(kind, 333, columns, rng)
    trainer, wanted = pair(network((6, 17, columns)), loss, "adam")
    before = bits(trainer.model) + state_bits(trainer)
    measures = trainer.evaluate(x, y, batch_size=batch_size)
    value, _, ys = wanted.loss_of(x, y)
    assert measures["loss"] == pytest.approx(value, rel=1e-12)
    if loss == "softmax_cross_entropy":
        assert measures["accuracy"] == (ys[-1].argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))).mean()
    else:
        assert measures.keys() == {"loss"}
    assert bits(trainer.model) + state_bits(trainer) == before
    assert (trainer.steps, trainer.epoch) == (0, 0)


def test_epochs_and_steps_count_on() -> None:
    x, y = classes(100, 8, 4)
    once, twice = (ts.Trainer(network((8, 4), dtype="float32", seed=5)) for _ in range(2))
    assert (once.epoch, once.steps) == (0, 0)
    whole = once.fit(x, y, epochs=5, batch_size=30)
    assert (once.epoch, once.steps) == (5, 20)
    twice.fit(x, y, epochs=2, batch_size=30)
    assert (twice.epoch, twice.steps) == (2, 8)
    rest = twice.fit(x, y, epochs=3, batch_size=30)
    assert rest.epoch == [3, 4, 5]
    assert rest.history["loss"] == whole.history["loss"][2:]
    assert bits(once.model) == bits(twice.model)
    once.step(x, y)
    assert (once.epoch, once.steps) == (5, 21)


def test_the_seed_decides() -> None:
    x, y = classes(100, 8, 4)

    def trained(model_seed: int, seed: int | None) -> bytes:
        trainer = ts.Trainer(network((8, 9, 4), dtype="float32", seed=model_seed), seed=seed)
        trainer.fit(x, y, epochs=2)
        return bits(trainer.model)

    assert trained(1, None) == trained(1, None) == trained(1, 1)
    assert len({trained(1, None), trained(2, None), trained(1, 2), trained(1, -1)}) == 4


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = [_core.permutation(50, 0, epoch) for epoch in range(5)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    for a, b in itertools.combinations(orders, 2):
        assert (a != b).sum() > 40


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
def test_bits_do_not_depend_on_threads(loss: str, dtype: np.dtype) -> None:
    x, y = classes(600, 784, 10, dtype)
    y = y if loss == "softmax_cross_entropy" else np.eye(10)[y]
    trained = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            trainer = ts.Trainer(network((784, 512, 10), "relu", dtype=dtype), loss)
            history = trainer.fit(x, y, epochs=2, batch_size=256, validation_data=(x, y))
            losses = [trainer.step(x[:256], y[:256]) for _ in range(2)]
        del history.history["seconds"]
        trained.append((bits(trainer.model), state_bits(trainer), losses, history.history))
    assert trained[0] == trained[1] == trained[2]


@pytest.mark.parametrize(
    ("widths", "batch", "standardized"),  # the last: the dtype in which the net has a Standardize
    [
        ((64, 64, 10), 64, "float32"),
        ((50, 100, 7), 161, "float64"),
        ((97, 200, 2), 70, "float32"),
        ((70, 160, 32), 90, "float64"),
        ((41, 520, 17), 33, "float32"),
        ((60, 300, 1), 75, "float64"),
        ((96, 80, 48, 10), 256, "float32"),
        ((20, 7, 200, 150, 3), 128, "float64"),
        ((33, 100, 50, 70), 200, "float64"),
        ((300, 5), 600, "float32"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bits_do_not_depend_on_how_a_step_is_shared(
    widths: tuple[int, ...], batch: int, standardized: str, dtype: np.dtype
) -> None:
    """Steps of these sizes run on one thread or on the team: 21 steps try both."""
    x, y = classes(2 * batch + 22, widths[0], widths[-1])
    if widths[-1] == 1:
        y = np.sin(x[:, :1])
    trained = []
    for n in (1, 2, 3):
        layers = network(widths, "tanh", dtype=dtype).layers
        first = [ts.nn.Standardize(widths[0])] if dtype == standardized else []
        with ts.num_threads(n):
            model = Sequential(*first, *layers, dtype=dtype.name, seed=1)
            trainer = ts.Trainer(model, "mse" if widths[-1] == 1 else "softmax_cross_entropy")
            trainer.fit(x, y, epochs=7, batch_size=batch)
        trained.append((bits(trainer.model), state_bits(trainer)))
    assert trained[0] == trained[1] == trained[2]


# --- gradients that reach no memory --------------------------------------------------------------------------------------------

PARTWISE = [o for o in optim.__all__ if isinstance(c := getattr(optim, o), type) and issubclass(c, optim.Optimizer)]
PARTWISE = [o for o in PARTWISE if o not in ("Optimizer", "LAMB", "LARS")]


def fused_and_not(widths: tuple[int, ...], batch: int, make: Callable[[], optim.Optimizer], dtype: np.dtype, threads: int) -> None:
    x, y = classes(2 * batch + 5, widths[0], widths[-1])
    trained = []
    with ts.num_threads(threads):
        for fuse in (False, True):
            trainer = ts.Trainer(network(widths, "relu", dtype=dtype), optimizer=make(), fuse_update=fuse)
            history = trainer.fit(x, y, epochs=3, batch_size=batch).history
            trained.append((bits(trainer.model), state_bits(trainer), history["loss"]))
    assert trained[0] == trained[1], (widths, batch)


@pytest.mark.parametrize(
    ("widths", "batch"), [((64, 64, 10), 64), ((50, 100, 7), 161), ((20, 70, 150, 3), 128), ((530, 1100, 5), 40), ((7, 5, 3), 1)]
)
def test_a_fused_update_gives_the_same_bits(widths: tuple[int, ...], batch: int, dtype: np.dtype, threads: int) -> None:
    """Small nets go alone, shared by units and by rows; 530 x 1100 has several tiles either way, the last ones smaller."""
    fused_and_not(widths, batch, lambda: optim.AdamW(lr=0.01, weight_decay=0.1, l1=1e-4), dtype, threads)


@pytest.mark.parametrize("name", PARTWISE)
def test_a_fused_update_with_each_optimizer(name: str) -> None:
    decay = {} if name == "Rprop" else {"weight_decay": 0.01}
    fused_and_not((210, 530, 4), 300, lambda: getattr(optim, name)(**decay), np.dtype(np.float32), 2)


def test_a_fused_step_keeps_no_gradients() -> None:
    x, y = classes(64, 8, 3)
    trainer = ts.Trainer(network((8, 6, 3), dtype="float32"), fuse_update=True)
    trainer.step(x, y)
    with pytest.raises(RuntimeError, match="gradients: the last training step kept none"):
        trainer.model.gradients()
    trainer.model.forward(x, training=True)
    trainer.model.backward(np.ones((64, 3), np.float32))
    assert all(np.isfinite(g).all() and g.any() for g in trainer.model.gradients().values())
    trainer.step(x, y)
    with pytest.raises(RuntimeError, match="fuse_update=False"):
        trainer.model.gradients()


def test_where_a_fused_update_is_the_default() -> None:
    x, y = classes(200, 600, 10)

    def keeps(
        rows: int, widths: tuple[int, ...] = (600, 500, 10), optimizer: optim.Optimizer | None = None, ask: bool = False
    ) -> bool:
        model = network(widths, "relu", dtype="float32")
        if ask:
            model.gradients()
        ts.Trainer(model, optimizer=optimizer).step(x[:rows, : widths[0]], y[:rows] % widths[-1])
        try:
            return any(g.any() for g in model.gradients().values())
        except RuntimeError:
            return False

    assert not keeps(64)
    assert keeps(8)
    assert keeps(200)
    assert keeps(64, (64, 64, 10))
    assert keeps(64, ask=True)
    assert keeps(64, optimizer=optim.LAMB())
    assert keeps(64, optimizer=optim.Adam(state_dtype="bfloat16"))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda: optim.LAMB(), "LAMB, which needs whole gradients"),
        (lambda: optim.LARS(lr=0.1), "LARS, which needs whole gradients"),
        (lambda: optim.Adam(state_dtype="8bit"), "state_dtype is '8bit'"),
        (lambda: optim.Adam(state_dtype="bfloat16"), "state_dtype is 'bfloat16'"),
    ],
)
def test_what_cannot_be_fused_is_refused(optimizer: Callable[[], optim.Optimizer], words: str) -> None:
    model, given = network((4, 3), dtype="float32"), optimizer()
    with pytest.raises(ValueError, match=f"^Trainer: fuse_update is True, expected None or False with .*{words}"):
        ts.Trainer(model, optimizer=given, fuse_update=True)
    x, y = classes(10, 4, 3)
    ts.Trainer(model, optimizer=given).step(x, y)  # it was left as it was
    with pytest.raises(TypeError, match="^Trainer: fuse_update is a str, expected a bool"):
        ts.Trainer(model, fuse_update="yes")  # type: ignore[arg-type]


# --- interruptions -------------------------------------------------------------------------------------------------------------


def assert_left_at_a_whole_step(trainer: ts.Trainer, x: np.ndarray, y: np.ndarray, batch_size: int) -> None:
    """The interrupted run must equal as many steps run by hand."""
    again = ts.Trainer(Sequential(*trainer.model.layers, seed=trainer.model.seed))
    per_epoch = -(-len(x) // batch_size)
    assert trainer.steps > 0
    assert trainer.epoch == trainer.steps // per_epoch
    for step in range(trainer.steps):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0:
            order = _core.permutation(len(x), 0, epoch)
        chosen = order[batch * batch_size : (batch + 1) * batch_size]
        again.step(x[chosen], y[chosen])
    assert bits(trainer.model) == bits(again.model)
    assert state_bits(trainer) == state_bits(again)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to SIGINT, which a process started in the background may have been told to ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("rows", [200, 100_000], ids=["many short epochs", "long epochs"])
def test_ctrl_c_is_answered_between_two_batches(rows: int) -> None:
    x, y = classes(rows, 32, 4)
    trainer = ts.Trainer(network((32, 64, 4), dtype="float32"))
    sent = []

    def press() -> None:
        time.sleep(0.15)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, epochs=10**8 // rows, batch_size=64)  # some ten seconds, were it not for the interrupt
    answered = time.perf_counter()
    thread.join()
    assert answered - sent[0] < 2.0  # far more than a batch, for a machine that is busy
    assert_left_at_a_whole_step(trainer, x, y, 64)
    history = trainer.fit(x, y, batch_size=64)  # and the trainer can go on
    assert math.isfinite(history.history["loss"][0])


def test_an_epoch_counts_from_its_last_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an epoch whose validation was interrupted would be trained again, in the same order."""
    x, y = classes(100, 8, 4)
    interrupted, whole = (ts.Trainer(network((8, 4), dtype="float32")) for _ in range(2))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, "_measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(x, y, validation_data=(x, y))
    monkeypatch.undo()
    assert (interrupted.steps, interrupted.epoch) == (4, 1)
    interrupted.fit(x, y)
    whole.fit(x, y, epochs=2)
    assert bits(interrupted.model) == bits(whole.model)


class Stop(Exception):
    pass


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_exception_in_a_progress_callback_comes_through(error: type[BaseException]) -> None:
    x, y = classes(100_000, 32, 4)
    trainer = ts.Trainer(network((32, 64, 4), dtype="float32"))
    calls = []

    def progress(batches: int, rows: int, loss: float, accuracy: float) -> None:
        calls.append((batches, rows, loss, accuracy, trainer.steps))
        if len(calls) < 3:
            return
        if error is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)  # Python's handler raises in the next bytecode
        raise error

    order = _core.permutation(len(x), 0, 0)

    def train() -> None:
        trainer._core.set_fit(1, (progress, 0.0))
        while True:
            trainer._core.fit_epoch(trainer._core.data(x, y, "fit", "x", "y"), 4, False, order)

    with pytest.raises(error):
        train()
    assert len(calls) == 3
    batches, rows, loss, accuracy, steps = calls[0]
    assert batches == steps
    assert rows == 4 * batches
    assert 0 < loss < 5
    assert 0 < accuracy < 1
    assert trainer.steps == calls[-1][-1]


def test_a_progress_bar_that_fails_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Bar:
        def __init__(self, *_: object) -> None: ...

        def update(self, *_: object) -> None:
            raise Stop

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(ts.trainer, "Bar", Bar)
    monkeypatch.setattr(_feeds, "PROGRESS_INTERVAL", 0.0)
    x, y = classes(100_000, 32, 4)
    trainer = ts.Trainer(network((32, 64, 4), dtype="float32"))
    with pytest.raises(Stop):
        trainer.fit(x, y, epochs=100, batch_size=4, progress=True)
    assert closed == [True]
    assert trainer.steps > 0


def test_progress_shows_loss_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = classes(500, 8, 4)
    with_bar, without = (ts.Trainer(network((8, 9, 4), dtype="float32")) for _ in range(2))
    history = with_bar.fit(x, y, epochs=2, validation_data=(x, y), progress=True)
    without.fit(x, y, epochs=2, validation_data=(x, y))
    shown = capsys.readouterr()
    assert shown.out == ""
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert f"{name}={history.history[name][-1]:.4f}" in shown.err
    assert "32/32" in shown.err
    assert bits(with_bar.model) == bits(without.model)


# --- what is refused -----------------------------------------------------------------------------------------------------------


def label_errors() -> dict[str, tuple[str, object, type[Exception]]]:
    labels, one_hot, values = np.arange(60) % 4, np.eye(4)[np.arange(60) % 4], np.zeros((60, 4))

    def changed(a: np.ndarray, value: float) -> np.ndarray:
        a = a.copy()
        a.reshape(-1)[-1] = value
        return a

    return {
        "label too large": ("softmax_cross_entropy", changed(labels, 4), ValueError),
        "label negative": ("softmax_cross_entropy", changed(labels, -1), ValueError),
        "label too large, uint8": ("softmax_cross_entropy", changed(labels.astype("uint8"), 255), ValueError),
        "label too large, uint64": ("softmax_cross_entropy", changed(labels.astype("uint64"), 2**63), ValueError),
        "float labels": ("softmax_cross_entropy", labels.astype("float32"), TypeError),
        "bool labels": ("softmax_cross_entropy", labels > 1, TypeError),
        "probability NaN": ("softmax_cross_entropy", changed(one_hot, np.nan), ValueError),
        "probability negative": ("softmax_cross_entropy", changed(one_hot, -0.5), ValueError),
        "probability infinite": ("softmax_cross_entropy", changed(one_hot, np.inf), ValueError),
        "probability negative, int8": ("softmax_cross_entropy", changed(one_hot.astype("int8"), -1), ValueError),
        "probability infinite in float32": ("softmax_cross_entropy", changed(one_hot, 1e300), ValueError),
        "too few labels": ("softmax_cross_entropy", labels[:-1], ValueError),
        "too few columns": ("softmax_cross_entropy", one_hot[:, :-1], ValueError),
        "three dimensions": ("softmax_cross_entropy", one_hot[:, :, None], ValueError),
        "no labels": ("softmax_cross_entropy", None, TypeError),
        "text": ("softmax_cross_entropy", np.array(["a"] * 60), TypeError),
        "value NaN": ("mse", changed(values, np.nan), ValueError),
        "value NaN, float32": ("mse", changed(values.astype("float32"), np.nan), ValueError),
        "too few values": ("mse", values[:-1], ValueError),
        "values for one output": ("mse", values[:, 0], ValueError),
        "complex values": ("mse", values + 1j, TypeError),
    }


@pytest.mark.parametrize("case", label_errors())
@pytest.mark.parametrize("call", ["step", "fit", "fit shuffled", "evaluate", "validation"])
def test_bad_targets_are_refused_before_anything_is_trained(case: str, call: str) -> None:
    """The fault is in the last row, which an epoch in order reaches last."""
    loss, y, error = label_errors()[case]
    x = classes(60, 8, 4)[0]
    trainer = ts.Trainer(network((8, 9, 4), dtype="float32"), loss)
    before = bits(trainer.model) + state_bits(trainer)
    good = np.arange(60) % 4 if loss == "softmax_cross_entropy" else np.zeros((60, 4))
    run = {
        "step": lambda: trainer.step(x, y),
        "fit": lambda: trainer.fit(x, y, epochs=2, batch_size=10, shuffle=False),
        "fit shuffled": lambda: trainer.fit(x, y, epochs=2, batch_size=10),
        "evaluate": lambda: trainer.evaluate(x, y, batch_size=10),
        "validation": lambda: trainer.fit(x, good, epochs=2, batch_size=10, validation_data=(x, y)),
    }
    with pytest.raises(error):
        run[call]()
    assert bits(trainer.model) + state_bits(trainer) == before
    assert (trainer.steps, trainer.epoch) == (0, 0)


BAD_X: dict[str, tuple[object, type[Exception]]] = {
    "columns": (np.zeros((60, 7)), ValueError),
    "rows": (np.zeros((59, 8)), ValueError),
    "no rows": (np.zeros((0, 8)), ValueError),
    "one dimension": (np.zeros(60), ValueError),
    "complex": (np.zeros((60, 8), complex), TypeError),
    "objects": (np.zeros((60, 8), object), TypeError),
    "None": (None, TypeError),
    "a number": (8, TypeError),
}


@pytest.mark.parametrize("case", BAD_X)
@pytest.mark.parametrize("call", ["step", "fit", "evaluate", "validation"])
def test_a_bad_x_is_refused_before_anything_is_trained(case: str, call: str) -> None:
    x, error = BAD_X[case]
    good_x, y = classes(60, 8, 4)
    trainer = ts.Trainer(network((8, 9, 4), dtype="float32"))
    before = bits(trainer.model) + state_bits(trainer)
    run = {
        "step": lambda: trainer.step(x, y),
        "fit": lambda: trainer.fit(x, y, batch_size=10),
        "evaluate": lambda: trainer.evaluate(x, y),
        "validation": lambda: trainer.fit(good_x, y, validation_data=(x, y)),
    }
    with pytest.raises(error):
        run[call]()
    assert bits(trainer.model) + state_bits(trainer) == before
    assert (trainer.steps, trainer.epoch) == (0, 0)


def test_an_optimizer_has_one_owner() -> None:
    made_with_params = optim.Adam([np.zeros(3)])
    with pytest.raises(ValueError, match="Adam: it already has its parameters"):
        ts.Trainer(network((8, 4)), optimizer=made_with_params)
    optimizer = optim.SGD(lr=0.1)
    with pytest.raises(ValueError, match="loss"):
        ts.Trainer(network((8, 4)), loss="nll", optimizer=optimizer)
    ts.Trainer(network((8, 4)), optimizer=optimizer)  # the refused trainer had not taken it
    with pytest.raises(ValueError, match="SGD: it already has its parameters"):
        ts.Trainer(network((8, 4)), optimizer=optimizer)


def test_a_trainer_keeps_its_model_alive() -> None:
    x, y = classes(60, 8, 4)
    trainer = ts.Trainer(network((8, 9, 4), dtype="float32"))
    core = trainer._core
    optimizer = trainer.optimizer
    del trainer
    others = [network((8, 9, 4), dtype="float32", init="zeros") for _ in range(20)]
    assert math.isfinite(core.step(x, y))
    del core
    optimizer.step([np.zeros(p.shape, "float32") for p in optimizer.param_groups[0]["params"]])
    assert all((v == 0).all() for m in others for v in m.parameters().values())


# --- it learns -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype_of_model", ["float32", "float64"])
def test_digits_are_learned(dtype_of_model: str) -> None:
    x_train, x_test, y_train, y_test = ts.data.train_test_split(*ts.data.load_digits(), seed=0)
    trainer = ts.Trainer(network((64, 64, 10), "relu", dtype=dtype_of_model), optimizer=optim.Adam(lr=3e-3))
    history = trainer.fit(x_train, y_train, epochs=20)
    assert history.history["loss"][-1] < 0.1 < history.history["loss"][0]
    assert trainer.evaluate(x_test, y_test)["accuracy"] > 0.95


@pytest.mark.one_level
@pytest.mark.skipif(not MNIST.exists(), reason="MNIST is not there")
def test_mnist_in_one_epoch() -> None:
    with np.load(MNIST) as file:
        x_train, y_train, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    trainer = ts.Trainer(network((784, 128, 10), "relu", dtype="float32"))
    trainer.fit(x_train.astype("float32") / 255, y_train, batch_size=64)
    assert trainer.evaluate(x_test.astype("float32") / 255, y_test)["accuracy"] > 0.93
