"""EarlyStopping against a model of its rule written down step by step, its weights and its resumption; TerminateOnNaN."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.callbacks import Callback, Checkpoint, EarlyStopping, TerminateOnNaN
from trainstep.nn import Activation, BatchNorm, Dense, Sequential

from .helpers import assert_same_bits, classes, network

pytestmark = pytest.mark.one_level

X, Y = classes(96, 6, 3)
NAN = math.nan


class Told(Callback):
    """Puts made-up values in front of a callback: epochs are trained, but what was measured is told."""

    def __init__(self, callback: EarlyStopping, values: list[float]) -> None:
        self.callback, self.values = callback, values
        self.weights: list[dict[str, np.ndarray]] = []

    def on_train_begin(self) -> None:
        self.callback.trainer, self.callback.interrupted = self.trainer, False
        self.callback.on_train_begin()

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        arrays = self.trainer.model.parameters() | self.trainer.model.buffers()
        self.weights.append({name: view.copy() for name, view in arrays.items()})
        self.callback.on_epoch_end(epoch, {"loss": 1.0, "val_loss": self.values[epoch - 1], "accuracy": self.values[epoch - 1]})

    def on_train_end(self) -> None:
        self.callback.interrupted = self.interrupted
        self.callback.on_train_end()


def net() -> Sequential:
    return Sequential(Dense(6, 8), BatchNorm(), Activation("relu"), Dense(8, 3), seed=1)


def run(values: list[float], **arguments: Any) -> tuple[EarlyStopping, Told, ts.Trainer, list[int]]:
    stopping = EarlyStopping(**arguments)
    told, trainer = Told(stopping, values), ts.Trainer(net())
    return stopping, told, trainer, trainer.fit(X, Y, epochs=len(values), callbacks=[told]).epoch


# What Keras 3's EarlyStopping does with these values, in epochs that count from 1: (best, best_epoch, stopped_epoch).
RULES: list[tuple[dict[str, Any], list[float], tuple[float | None, int, int]]] = [
    ({}, [3, 2, 1, 1, 0], (1, 3, 4)),  # equal is no improvement
    ({"patience": 1}, [3, 2, 1, 1, 0], (1, 3, 4)),
    ({"patience": 2}, [3, 2, 1, 1, 0], (0, 5, 0)),
    ({"patience": 2}, [3, 1, 2, 2, 0], (1, 2, 4)),
    ({"patience": 2}, [3, 1, 2, 0.5, 2, 2, 0], (0.5, 4, 6)),  # the waiting begins anew
    ({"patience": 9}, [3, 1, 2, 2], (1, 2, 0)),
    ({"min_delta": 0.5}, [3, 2.6, 0], (3, 1, 2)),
    ({"min_delta": 0.5}, [3, 2.5, 0], (3, 1, 2)),  # by more than min_delta
    ({"min_delta": -0.5}, [3, 2.6, 0], (3, 1, 2)),
    ({"min_delta": 0.5, "patience": 2}, [3, 2.75, 2.25, 2.125, 2.0], (2.25, 3, 5)),  # measured from the best, not from the last
    ({"mode": "max"}, [1, 2, 3, 3, 4], (3, 3, 4)),
    ({"mode": "max", "min_delta": 0.5}, [1, 1.25, 9], (1, 1, 2)),
    ({"monitor": "accuracy"}, [0.1, 0.2, 0.1, 0.9], (0.2, 2, 3)),
    ({"monitor": "accuracy", "mode": "min"}, [0.3, 0.2, 0.25, 0.1], (0.2, 2, 3)),
    ({"baseline": 1.5, "patience": 2}, [3, 2, 1.9, 1.8, 1.7], (1.7, 5, 0)),  # what improves never ends it
    ({"baseline": 1.5, "patience": 2}, [3, 2, 2.5, 1.0], (2, 2, 3)),
    ({"baseline": 1.5, "patience": 2}, [3, 1, 2, 2, 0], (1, 2, 4)),
    ({"baseline": 1.5, "patience": 2, "mode": "max"}, [1, 2, 1, 1, 3], (2, 2, 4)),
    ({"start_from_epoch": 2}, [0, 5, 3, 4, 1], (3, 3, 4)),
    ({"start_from_epoch": 2, "patience": 2}, [0, 0, 3, 4, 2, 3, 3], (2, 5, 7)),
    ({}, [NAN, NAN, 1], (None, 0, 2)),  # the first epoch is never the last
    ({}, [1, NAN, 0], (1, 1, 2)),
    ({"patience": 3}, [NAN, 2, 3, 1, NAN], (1, 4, 0)),
    ({}, [math.inf, 1], (1, 2, 0)),
]


@pytest.mark.parametrize(("arguments", "values", "wanted"), RULES)
def test_when_it_stops(arguments: dict[str, Any], values: list[float], wanted: tuple[float | None, int, int]) -> None:
    stopping, _, trainer, epochs = run(values, **arguments)
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == wanted
    assert epochs == list(range(1, (wanted[2] or len(values)) + 1))
    assert trainer.epoch == epochs[-1]


def rule(values: list[float], patience: int, min_delta: float, sign: float) -> int:
    """When the training ends: after the first epoch at least `patience` epochs after the last that was better than all before."""
    for epoch in range(2, len(values) + 1):
        best, best_epoch = math.inf, 0
        for i, value in enumerate(values[:epoch], start=1):
            if sign * value < best - min_delta:
                best, best_epoch = sign * value, i
        if epoch - best_epoch >= max(patience, 1):
            return epoch
    return 0


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_made_up_runs(seed: int, patience: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    values = list((np.exp(-np.arange(40) / 8) + 0.1 * rng.standard_normal(40)) * (1 if mode == "min" else -1))
    stopped: list[int] = []
    stopping = EarlyStopping(patience=patience, mode=mode, min_delta=0.02)
    monkeypatch.setattr(stopping, "trainer", type("Stopper", (), {"stop": lambda _: stopped.append(1)})(), raising=False)
    for epoch, value in enumerate(values, start=1):
        stopping.on_epoch_end(epoch, {"val_loss": value})
        if stopped:
            break
    assert stopping.stopped_epoch == rule(values, patience, 0.02, 1.0 if mode == "min" else -1.0)


@pytest.mark.parametrize(
    ("monitor", "rises"),
    [
        ("loss", False),
        ("val_loss", False),
        ("mae", False),
        ("val_mse", False),
        ("lr", False),
        ("accuracy", True),
        ("val_accuracy", True),
        ("val_f1", True),
        ("r2", True),
        ("top_5", True),
        ("val_precision", True),
        ("recall", True),
    ],
)
def test_mode_auto(monitor: str, rises: bool) -> None:
    stopping = EarlyStopping(monitor, patience=5)
    for epoch, value in enumerate([0.5, 0.75, 0.25], start=1):
        stopping.on_epoch_end(epoch, {monitor: value})
    assert stopping.best == (0.75 if rises else 0.25)


@pytest.mark.parametrize(
    ("arguments", "values", "epoch"),
    [
        ({}, [3, 1, 2, 0], 2),
        ({"patience": 9}, [3, 1, 2, 2], 2),  # the epochs ran out
        ({"baseline": 0.5, "patience": 3}, [3, 1, 2, 2], 2),  # never below the baseline
        ({}, [3, 2, 1], 3),
        ({}, [NAN, NAN, 0], 1),  # no best one: the first
        ({"patience": 2}, [NAN, 2, 3, 3], 2),
    ],
)
def test_the_best_weights_come_back_with_buffers(arguments: dict[str, Any], values: list[float], epoch: int) -> None:
    stopping, told, trainer, _ = run(values, restore_best_weights=True, **arguments)
    assert stopping.best_epoch == epoch
    assert {"1.running_mean", "1.running_var"} <= set(trainer.model.buffers())
    for name, view in (trainer.model.parameters() | trainer.model.buffers()).items():
        assert_same_bits(view, told.weights[epoch - 1][name], name)


def test_without_restoring_the_last_weights_stay() -> None:
    _, told, trainer, epochs = run([3, 1, 2, 0])
    assert_same_bits(trainer.model.parameters()["0.weight"], told.weights[epochs[-1] - 1]["0.weight"])


def test_after_an_exception_the_last_weights_stay() -> None:
    class Interrupt(Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

    told, trainer = Told(EarlyStopping(restore_best_weights=True, patience=9), [3, 1, 2]), ts.Trainer(net())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, epochs=5, callbacks=[told, Interrupt()])
    for name, view in (trainer.model.parameters() | trainer.model.buffers()).items():
        assert_same_bits(view, told.weights[2][name], name)


def test_another_fit_begins_anew() -> None:
    stopping = EarlyStopping("loss", patience=2, min_delta=10)  # nothing ever improves
    trainer = ts.Trainer(net())
    assert trainer.fit(X, Y, epochs=9, callbacks=[stopping]).epoch == [1, 2, 3]
    assert (stopping.best_epoch, stopping.stopped_epoch) == (1, 3)
    assert trainer.fit(X, Y, epochs=9, callbacks=[stopping]).epoch == [4, 5, 6]
    assert (stopping.best_epoch, stopping.stopped_epoch) == (4, 6)


def test_a_value_that_is_not_there() -> None:
    trainer = ts.Trainer(net())
    wanted = r"EarlyStopping: monitor is 'val_loss', expected one of the values there are: loss, accuracy, seconds, lr"
    with pytest.raises(ValueError, match=wanted):
        trainer.fit(X, Y, epochs=3, callbacks=[EarlyStopping()])


@pytest.mark.parametrize("back", [0, 1, 2, 5, 8])
def test_a_resumed_run_stops_where_the_unbroken_one_does(tmp_path: Path, back: int) -> None:
    def fit(trainer: ts.Trainer, path: Path) -> tuple[EarlyStopping, ts.Trainer]:
        stopping = EarlyStopping(patience=4, min_delta=0.01, restore_best_weights=True)
        callbacks = [Checkpoint(path / "{epoch}.safetensors", keep=None), stopping]
        trainer.fit(X[:64], Y[:64], until_epoch=60, validation_data=(X[64:], Y[64:]), callbacks=callbacks)
        return stopping, trainer

    whole, trainer = fit(ts.Trainer(net(), optimizer=ts.optim.Adam(lr=0.02)), tmp_path / "whole")
    assert 8 < whole.stopped_epoch < 60
    assert whole.best_epoch < whole.stopped_epoch
    at = whole.stopped_epoch - back  # the end itself, epochs of waiting, and before
    resumed, again = fit(ts.Trainer.load(tmp_path / "whole" / f"{at}.safetensors"), tmp_path / "again")
    assert (resumed.best, resumed.best_epoch, resumed.stopped_epoch) == (whole.best, whole.best_epoch, whole.stopped_epoch)
    assert again.epoch == trainer.epoch
    for name, view in (trainer.model.parameters() | trainer.model.buffers()).items():
        assert_same_bits(view, (again.model.parameters() | again.model.buffers())[name], name)


def test_the_state_is_a_copy_and_goes_into_another() -> None:
    stopping, told, trainer, _ = run([3, 1, 2], restore_best_weights=True, patience=5)
    state = stopping.state_dict()
    trainer.model.parameters()["0.weight"][...] = 0.0
    stopping.on_epoch_end(4, {"val_loss": 0.0})
    other = EarlyStopping(restore_best_weights=True, patience=5)
    other.trainer = trainer
    other.load_state_dict(state)
    other.on_train_begin()
    assert (other.best, other.best_epoch) == (1, 2)
    other.on_train_end()
    assert_same_bits(trainer.model.parameters()["0.weight"], told.weights[1]["0.weight"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"wait": -1}, ValueError, "EarlyStopping.load_state_dict: wait is -1, expected at least 0"),
        ({"best": "low"}, TypeError, "EarlyStopping.load_state_dict: best is a str"),
        ({"best_epoch": 1.5}, TypeError, "EarlyStopping.load_state_dict: best_epoch is a float"),
        ({"weights": 3}, TypeError, "EarlyStopping.load_state_dict: weights is a int, expected a dict"),
        ({"weights": {"parameters": {"0.weight": np.zeros(3)}}}, ValueError, "the weights of the best epoch are those of another"),
        (
            {"more": 1},
            ValueError,
            "state has 'best', 'best_epoch', 'more', 'stopped_epoch', 'wait', 'weights', expected",
        ),
    ],
)
def test_a_state_that_is_none(change: dict[str, Any], error: type[Exception], message: str) -> None:
    stopping = EarlyStopping(restore_best_weights=True)
    stopping.trainer = ts.Trainer(net())
    with pytest.raises(error, match=message):
        stopping.load_state_dict({"best": 1.0, "best_epoch": 2, "stopped_epoch": 0, "wait": 0, "weights": {}} | change)
    assert (stopping.best, stopping.best_epoch) == (None, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"monitor": 3}, TypeError, "EarlyStopping: monitor is a int, expected a str"),
        ({"patience": -1}, ValueError, "EarlyStopping: patience is -1, expected at least 0"),
        ({"patience": 1.5}, TypeError, "EarlyStopping: patience is a float, expected an int"),
        ({"min_delta": NAN}, ValueError, "EarlyStopping: min_delta is nan, expected a finite number"),
        ({"mode": "down"}, ValueError, "EarlyStopping: mode is 'down', expected 'auto', 'min' or 'max'"),
        ({"baseline": "1"}, TypeError, "EarlyStopping: baseline is a str, expected a number"),
        ({"restore_best_weights": 1}, TypeError, "EarlyStopping: restore_best_weights is a int, expected a bool"),
        ({"start_from_epoch": -2}, ValueError, "EarlyStopping: start_from_epoch is -2, expected at least 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EarlyStopping(**arguments)


# --- TerminateOnNaN --------------------------------------------------------------------------------------------------------------


def exploding() -> ts.Trainer:
    return ts.Trainer(network((6, 8, 3), "relu", dtype="float32"), loss="mse", optimizer=ts.optim.SGD(lr=1e20))


def test_divergence_ends_quietly() -> None:
    y = np.eye(3)[Y]
    with pytest.raises(ts.DivergenceError) as raised:
        exploding().fit(X, y, epochs=5)
    trainer, nan, ends = exploding(), TerminateOnNaN(), []
    before = {name: view.copy() for name, view in trainer.model.parameters().items()}
    end = ts.callbacks.LambdaCallback(on_train_end=lambda: ends.append(trainer.epoch))
    assert trainer.fit(X, y, epochs=5, callbacks=[nan, end]).epoch == []
    assert nan.error is not None
    assert (nan.error.epoch, nan.error.step, nan.error.layer) == (
        raised.value.epoch,
        raised.value.step,
        raised.value.layer,
    )
    assert ends == [0]
    for name, view in trainer.model.parameters().items():
        assert_same_bits(view, before[name], name)
    trainer.optimizer.lr = 1e-3
    assert trainer.fit(X, y, epochs=2, callbacks=[nan]).epoch == [1, 2]
    assert nan.error is None
