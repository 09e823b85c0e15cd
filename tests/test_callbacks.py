"""What fit calls, when, with what, and how it ends; and Monitor, which must see the next step and change nothing."""

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.callbacks import Callback, LambdaCallback, Monitor
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, Residual, Sequential

from .helpers import assert_same_bits, bits, classes, network, state_bits

pytestmark = pytest.mark.one_level

X, Y = classes(96, 6, 3)


def net(seed: int = 0, dtype: str = "float32") -> Sequential:
    return network((6, 8, 3), dtype=dtype, seed=seed)


class Recorder(Callback):
    """Writes down each call."""

    def __init__(self, calls: list[Any], name: str = "") -> None:
        self.calls, self.name = calls, name

    def on_train_begin(self) -> None:
        self.calls.append((self.name, "train begin", self.trainer.epoch))

    def on_train_end(self) -> None:
        self.calls.append((self.name, "train end", self.trainer.epoch))

    def on_epoch_begin(self, epoch: int) -> None:
        self.calls.append((self.name, "epoch begin", epoch))

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        self.calls.append((self.name, "epoch end", epoch))


class Raiser(Callback):
    """Raises in one of the methods."""

    def __init__(self, method: str, error: BaseException, epoch: int = 1) -> None:
        def raising(*arguments: Any) -> None:
            if not arguments or arguments[0] == epoch:
                raise error

        setattr(self, method, raising)


# --- the protocol ----------------------------------------------------------------------------------------------------------------


def test_the_order_of_calls() -> None:
    calls: list[Any] = []
    trainer = ts.Trainer(net())
    trainer.fit(X, Y, epochs=2, callbacks=(Recorder(calls, "a"), Recorder(calls, "b")))
    wanted = [("train begin", 0), ("epoch begin", 1), ("epoch end", 1), ("epoch begin", 2), ("epoch end", 2), ("train end", 2)]
    assert calls == [(name, *call) for call in wanted for name in "ab"]
    calls.clear()
    trainer.fit(X, Y, callbacks=[Recorder(calls)])  # epochs count on
    assert [call[1:] for call in calls] == [("train begin", 2), ("epoch begin", 3), ("epoch end", 3), ("train end", 3)]


def test_the_trainer_is_there_and_the_model_is_between_two_steps() -> None:
    class Looker(Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            assert self.trainer is trainer
            assert trainer.steps == 3 * epoch
            trainer.model(X)
            trainer.evaluate(X, Y)

    trainer = ts.Trainer(net())
    trainer.fit(X, Y, epochs=2, callbacks=[Looker()])


@pytest.mark.parametrize("validation", [None, (X, Y)], ids=["alone", "validation"])
def test_values_are_those_of_the_history_and_changing_them_changes_nothing(validation: Any) -> None:
    seen: list[dict[str, float]] = []

    class Changer(Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            seen.append(dict(values))
            values["loss"] = 7.0
            values.pop("lr")

    history = ts.Trainer(net()).fit(X, Y, epochs=3, validation_data=validation, callbacks=[Changer(), Changer()])
    assert seen[::2] == seen[1::2]
    assert {name: [values[name] for values in seen[::2]] for name in history.history} == history.history
    assert all(set(values) == set(history.history) for values in seen)


def test_without_accuracy_there_is_none() -> None:
    class Looker(Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            assert set(values) == {"loss", "lr", "seconds"}

    ts.Trainer(net(), loss="mse").fit(X, np.zeros((96, 3)), callbacks=[Looker()])


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("method", "epochs", "began"),
    [("on_train_begin", 0, "a"), ("on_epoch_begin", 1, "ac"), ("on_epoch_end", 2, "ac"), ("on_train_end", 3, "ac")],
)
def test_what_a_callback_raises_ends_fit(method: str, epochs: int, began: str, error: BaseException) -> None:
    calls: list[Any] = []
    trainer = ts.Trainer(net())
    with pytest.raises(type(error)) as caught:
        trainer.fit(X, Y, epochs=3, callbacks=[Recorder(calls, "a"), Raiser(method, error, 2), Recorder(calls, "c")])
    assert caught.value is error
    assert [name for name, what, _ in calls if what == "train end"] == list(began)
    twin = ts.Trainer(net())
    if epochs:
        twin.fit(X, Y, epochs=epochs)
    assert bits(trainer.model) == bits(twin.model)
    assert state_bits(trainer) == state_bits(twin)
    trainer.fit(X, Y, epochs=4 - epochs)  # it goes on where it was
    twin.fit(X, Y, epochs=4 - epochs)
    assert bits(trainer.model) == bits(twin.model)


def test_ctrl_c_ends_the_run_for_callbacks_too() -> None:
    calls: list[Any] = []
    x, y = classes(20_000, 6, 3)

    class Interrupt(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        ts.Trainer(network((6, 256, 256, 3))).fit(x, y, epochs=1000, batch_size=8, callbacks=[Recorder(calls), Interrupt()])
    assert calls[-1][1] == "train end"
    assert ("", "epoch end", 1) not in calls


def test_stop_ends_fit_after_the_epoch() -> None:
    calls: list[Any] = []

    class Stopper(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            if epoch == 2:
                self.trainer.stop()

    trainer = ts.Trainer(net())
    history = trainer.fit(X, Y, epochs=10, callbacks=[Stopper(), Recorder(calls)])
    assert history.epoch == [1, 2]
    assert [what for _, what, _ in calls][-2:] == ["epoch end", "train end"]
    assert trainer.fit(X, Y, epochs=2).epoch == [3, 4]  # the next run is another
    with pytest.raises(RuntimeError, match="stop: no fit runs"):
        trainer.stop()


def test_a_fit_inside_of_a_fit() -> None:
    class Inner(Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            if epoch == 1:
                assert self.trainer.fit(X, Y, epochs=3, callbacks=[Stopper()]).epoch == [2]

    class Stopper(Callback):
        def on_epoch_begin(self, epoch: int) -> None:
            self.trainer.stop()

    assert ts.Trainer(net()).fit(X, Y, epochs=2, callbacks=[Inner()]).epoch == [1, 3]


def test_callbacks_change_no_bit() -> None:
    one, other = ts.Trainer(net()), ts.Trainer(net())
    assert one.fit(X, Y, epochs=3).history["loss"] == other.fit(X, Y, epochs=3, callbacks=[Callback()]).history["loss"]
    assert bits(one.model) == bits(other.model)


@pytest.mark.parametrize("callbacks", [None, [], (), iter([])], ids=["None", "list", "tuple", "iterator"])
def test_there_may_be_none(callbacks: Any) -> None:
    assert ts.Trainer(net()).fit(X, Y, callbacks=callbacks).epoch == [1]


def one_and(second: Any) -> Iterator[Any]:
    yield Callback()
    yield second


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Callback(), r"fit: callbacks is a Callback, expected a list of callbacks"),
        (3, r"fit: callbacks is a int, expected a list"),
        ([Callback(), print], r"fit: callbacks\[1\] is a builtin_function_or_method, expected a trainstep.callbacks.Callback"),
        (one_and(None), r"fit: callbacks\[1\] is a NoneType"),
        ([Monitor], r"fit: callbacks\[0\] is the class Monitor, expected an object: Monitor\(\)"),
    ],
)
def test_what_is_no_list_of_callbacks_is_refused(callbacks: Any, message: str) -> None:
    trainer = ts.Trainer(net())
    with pytest.raises(TypeError, match=message):
        trainer.fit(X, Y, callbacks=callbacks)
    assert trainer.epoch == 0


@pytest.mark.parametrize("error", [None, RuntimeError("mine"), KeyboardInterrupt()], ids=["none", "error", "ctrl-c"])
@pytest.mark.parametrize("method", ["on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_interrupted_says_how_fit_ended(method: str, error: BaseException | None) -> None:
    seen: list[bool] = []

    class Looker(Callback):
        def on_train_end(self) -> None:
            seen.append(self.interrupted)

    def end(*_: Any) -> None:
        if error is not None:
            raise error
        if method != "on_train_begin":
            trainer.stop()

    trainer, looker = ts.Trainer(net()), Looker()
    with nullcontext() if error is None else pytest.raises(type(error)):
        trainer.fit(X, Y, epochs=2, callbacks=[looker, LambdaCallback(**{method: end})])
    trainer.fit(X, Y, callbacks=[looker])
    assert seen == [error is not None, False]


# --- LambdaCallback --------------------------------------------------------------------------------------------------------------

HOOKS = ("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")


def test_functions_are_called_as_methods_are() -> None:
    class Methods(Callback):
        pass

    by_class: list[Any] = []
    by_function: list[Any] = []
    for name in HOOKS:
        setattr(Methods, name, lambda self, *given, name=name: by_class.append((name, *given)))
    functions: dict[str, Any] = {name: lambda *given, name=name: by_function.append((name, *given)) for name in HOOKS}
    ts.Trainer(net()).fit(X, Y, epochs=2, callbacks=[Methods(), LambdaCallback(**functions)])
    assert by_function == by_class
    assert [call[0] for call in by_class[:4]] == ["on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end"]
    assert len(by_class) == 2 + 2 * 2 + 6 * 2


def test_only_functions_that_were_given_are_called() -> None:
    calls: list[int] = []
    callback = LambdaCallback(on_batch_end=lambda step, values: calls.append(step))
    ts.Trainer(net()).fit(X, Y, epochs=2, batch_size=48, callbacks=[callback, LambdaCallback()])
    assert calls == [1, 2, 3, 4]


@pytest.mark.parametrize("name", HOOKS)
def test_what_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"LambdaCallback: {name} is a int, expected a function"):
        LambdaCallback(**{name: 3})  # type: ignore[arg-type]


# --- Monitor ---------------------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[], ts.optim.Optimizer]] = {
    "momentum": lambda: ts.optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda: ts.optim.Adam(lr=0.01),
    "adam in 16 bits": lambda: ts.optim.Adam(lr=0.01, state_dtype="bfloat16"),
    "lamb": lambda: ts.optim.LAMB(lr=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_monitor_sees_the_next_step_and_changes_no_bit(optimizer: str) -> None:
    """The update ratio is that of the step that the trainer itself would take: optimizer states and numbers of steps included."""
    watched, alone = (ts.Trainer(net(), optimizer=OPTIMIZERS[optimizer]()) for _ in range(2))
    monitor = Monitor(X[:40], Y[:40])
    history = watched.fit(X, Y, epochs=3, callbacks=[monitor])
    assert history.history["loss"] == alone.fit(X, Y, epochs=3).history["loss"]
    assert bits(watched.model) == bits(alone.model)
    assert state_bits(watched) == state_bits(alone)
    assert [epoch for epoch, _ in monitor.reports] == [1, 2, 3]
    before = {name: view.copy() for name, view in watched.model.parameters().items()}
    assert watched.step(X[:40], Y[:40]) == monitor.reports[-1][1].loss
    for layer in monitor.reports[-1][1].layers:
        w = before[f"{layer.name}.weight"].astype(np.float64)
        change = watched.model.parameters()[f"{layer.name}.weight"] - w
        assert layer.update_ratio == pytest.approx(np.sqrt((change**2).mean() / (w**2).mean()), rel=1e-12)


def test_monitor_sees_the_trainers_own_rules() -> None:
    """Clipping, penalties, the largest norm, masks, and what BatchNorm and Dropout do in training."""

    def trainer() -> ts.Trainer:
        model = Sequential(Dense(6, 8), BatchNorm(), Activation("relu"), Residual(Dense(8, 8), Dropout(0.5)), Dense(8, 3))
        rules: dict[str, Any] = {"clip_norm": 0.1, "l1": 0.01, "l2": 0.02, "max_norm": 0.7, "penalize_bias": True}
        return ts.Trainer(model.prune(0.3), optimizer=ts.optim.SGD(lr=0.5), seed=7, **rules)

    watched, alone, monitor = trainer(), trainer(), Monitor()
    history = watched.fit(X, Y, epochs=3, callbacks=[monitor])
    assert history.history["loss"] == alone.fit(X, Y, epochs=3).history["loss"]
    assert bits(watched.model) == bits(alone.model)
    for name, values in watched.model.buffers().items():
        assert_same_bits(values, alone.model.buffers()[name], name)
    before = {name: view.copy() for name, view in watched.model.parameters().items()}
    twin = ts.Trainer(pickle.loads(pickle.dumps(watched.model)), optimizer=ts.optim.SGD(lr=0.5), **watched._given)
    twin.model._program.passes = 0  # Monitor draws the same masks each time
    assert twin.step(X, Y) == monitor.reports[-1][1].loss
    ratios = {layer.name: layer.update_ratio for layer in monitor.reports[-1][1].layers if f"{layer.name}.weight" in before}
    assert set(ratios) == {"0", "3.0", "4"}
    for name, ratio in ratios.items():
        w = before[f"{name}.weight"].astype(np.float64)
        change = twin.model.parameters()[f"{name}.weight"] - w
        assert ratio == pytest.approx(np.sqrt((change**2).mean() / (w**2).mean()), rel=1e-12)


def test_monitor_with_param_groups_and_frozen_layers() -> None:
    model = net()
    model.freeze("0")
    optimizer = ts.optim.Adam(model.param_groups(lr=1e-3, decay_bias=False, lr_factors={"1": 0.1}))
    monitor = Monitor()
    trainer = ts.Trainer(model, optimizer=optimizer)
    trainer.fit(X, Y, callbacks=[monitor])
    first, last = monitor.reports[0][1].layers
    before = model.parameters()["1.weight"].astype(np.float64)
    trainer.step(X, Y)
    change = model.parameters()["1.weight"] - before
    assert first.update_ratio == 0.0
    assert last.update_ratio == pytest.approx(np.sqrt((change**2).mean() / (before**2).mean()), rel=1e-12)


def test_monitor_takes_the_first_rows_and_copies_them() -> None:
    x, y = X.copy(), Y.copy()

    class Changer(Callback):
        def on_train_begin(self) -> None:
            x[:10] = 0.0

    taken, given = Monitor(rows=10), Monitor(X[:10], Y[:10])
    ts.Trainer(net()).fit(x, y, callbacks=[taken, Changer(), given])
    assert taken.reports == given.reports


def test_monitor_takes_256_rows_or_all() -> None:
    x, y = classes(300, 6, 3)
    default, given = Monitor(), Monitor(x[:256], y[:256])
    ts.Trainer(net()).fit(x, y, callbacks=[default, given])
    assert default.reports == given.reports
    few, all_rows = Monitor(rows=1000), Monitor(X, Y)
    ts.Trainer(net()).fit(X, Y, callbacks=[few, all_rows])
    assert few.reports == all_rows.reports


def test_monitor_looks_at_every_other_epoch_and_counts_on() -> None:
    monitor = Monitor(every=2)
    assert (monitor.reports, monitor.verdict) == ([], None)
    trainer = ts.Trainer(net())
    trainer.fit(X, Y, epochs=3, callbacks=[monitor])
    trainer.fit(X, Y, epochs=3, callbacks=[monitor])
    assert [epoch for epoch, _ in monitor.reports] == [2, 4, 6]
    assert monitor.verdict == monitor.reports[-1][1].verdict == "healthy"


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (ts.losses.SoftmaxCrossEntropy(weight=[1.0, 5.0, 2.0], label_smoothing=0.1), Y),
        ("softmax_cross_entropy", np.eye(3)[Y]),
        (ts.losses.Huber(delta=0.3), X[:, :3]),
        ("kl_divergence", np.full((96, 3), 1 / 3)),
        (lambda pred, true: (float((pred**2).mean()), (2 * pred / pred.size).astype(pred.dtype)), Y),
    ],
    ids=["options", "one-hot", "huber", "kl", "own"],
)
def test_gradients_are_those_of_the_trainers_loss(loss: Any, y: np.ndarray) -> None:
    trainer, monitor = ts.Trainer(net(dtype="float64"), loss=loss), Monitor(rows=1)
    trainer.fit(X, y, callbacks=[monitor])
    trainer.step(X[:1], y[:1])  # of one row, what the report has the root mean square of is the gradient of the bias
    for layer in monitor.reports[0][1].layers:
        wanted = np.sqrt((trainer.model.gradients()[f"{layer.name}.bias"] ** 2).mean())
        assert layer.gradient == pytest.approx(wanted, rel=1e-12)
        assert wanted > 0


def test_dropout_is_the_same_in_every_epoch() -> None:
    model = Sequential(Dense(6, 8, activation="relu"), Dropout(0.5), Dense(8, 3))
    monitor = Monitor()
    ts.Trainer(model, optimizer=ts.optim.SGD(lr=0.0)).fit(X, Y, epochs=3, callbacks=[monitor])
    assert len({report.loss for _, report in monitor.reports}) == 1


def exploding() -> ts.Trainer:
    return ts.Trainer(network((6, 8, 3), "relu"), optimizer=ts.optim.SGD(lr=1e4))


def test_on_ill() -> None:
    quiet, stopping = Monitor(), Monitor(on_ill="stop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exploding().fit(X, Y, epochs=3, callbacks=[quiet]).epoch == [1, 2, 3]
        assert quiet.verdict == "exploding"
        assert exploding().fit(X, Y, epochs=3, callbacks=[stopping]).epoch == [1]
        assert ts.Trainer(net()).fit(X, Y, epochs=2, callbacks=[Monitor(on_ill="stop"), Monitor(on_ill="warn")]).epoch == [1, 2]
    with pytest.warns(UserWarning, match="Monitor: exploding in epoch 1; what helps: a smaller learning rate") as caught:
        assert exploding().fit(X, Y, epochs=3, callbacks=[Monitor(on_ill="warn")]).epoch == [1, 2, 3]
    assert len(caught) == 1  # not in every epoch


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X}, ValueError, "Monitor: y is None, expected both"),
        ({"y": Y}, ValueError, "Monitor: x is None, expected both"),
        ({"x": X, "y": Y, "rows": 4}, ValueError, "Monitor: rows is 4, expected None where x is given"),
        ({"rows": 0}, ValueError, "Monitor: rows is 0, expected at least 1"),
        ({"rows": 2.5}, TypeError, "Monitor: rows is a float, expected an int"),
        ({"every": 0}, ValueError, "Monitor: every is 0, expected at least 1"),
        ({"every": "1"}, TypeError, "Monitor: every is a str, expected an int"),
        ({"on_ill": "cry"}, ValueError, "Monitor: on_ill is 'cry', expected 'ignore', 'warn' or 'stop'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Monitor(**arguments)


@pytest.mark.parametrize(("x", "y"), [(X[:, :5], Y), (X, Y[:5]), (X, Y + 1)], ids=["columns", "rows", "labels"])
def test_a_batch_that_does_not_fit_is_refused_before_training(x: np.ndarray, y: np.ndarray) -> None:
    trainer = ts.Trainer(net())
    before = bits(trainer.model)
    with pytest.raises(ValueError, match="Monitor: [xy]"):
        trainer.fit(X, Y, callbacks=[Monitor(x, y)])
    assert bits(trainer.model) == before


@pytest.mark.parametrize("depth", [1, 30])
def test_plot(tmp_path: Path, depth: int) -> None:
    monitor = Monitor()
    with pytest.raises(ValueError, match="Monitor.plot: there is nothing to draw"):
        monitor.plot(tmp_path / "none.png")
    model = network((6, *[8] * depth, 3))
    model.freeze("0")  # an update of 0 cannot be drawn on a logarithmic axis
    ts.Trainer(model).fit(X, Y, epochs=3, callbacks=[monitor])
    monitor.plot(tmp_path / "layers.svg")
    text = (tmp_path / "layers.svg").read_text()
    assert all(f"<!-- {label} -->" in text for label in ("epoch", "layer", "gradient", "0"))
    monitor.reports[0][1].plot(tmp_path / "report.svg")
    assert "<!-- spread of outputs -->" in (tmp_path / "report.svg").read_text()
    with pytest.raises(TypeError, match="plot: path is a int"):
        monitor.plot(3)  # type: ignore[arg-type]


def test_the_copy_that_takes_the_step_shares_nothing() -> None:
    trainer = ts.Trainer(net(), optimizer=ts.optim.Adam(lr=0.1))
    trainer.step(X, Y)
    copied = trainer._copy()
    before = bits(trainer.model), state_bits(trainer)
    assert (bits(copied.model), state_bits(copied)) == before
    assert copied.step(X, Y) is not None
    assert (bits(trainer.model), state_bits(trainer)) == before
    trainer.step(X, Y)
    for name, view in trainer.model.parameters().items():
        assert_same_bits(view, copied.model.parameters()[name], name)
    assert state_bits(copied) == state_bits(trainer)
