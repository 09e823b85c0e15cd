"""How fit goes through data: batches from anywhere, gradients of several, hooks around steps, epochs that go on, divergence."""

import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core
from trainstep.callbacks import Callback
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential

from .helpers import Frame, bits

pytestmark = pytest.mark.one_level
RNG = np.random.default_rng(0)
ROWS = 103
X, Y = RNG.standard_normal((ROWS, 8)).astype("float32"), RNG.integers(0, 4, ROWS)
TARGETS = RNG.standard_normal((ROWS, 4))
WEIGHTS = RNG.uniform(0.0, 2.0, ROWS)


def net(dtype: str = "float32", *more: Any) -> Sequential:
    return Sequential(Dense(8, 16, activation="tanh"), *more, Dense(16, 4), seed=1, dtype=dtype)


def run_bits(trainer: ts.Trainer) -> list[bytes]:
    """All that training changes."""
    states = [entry[name].tobytes() for entry in trainer.optimizer.state for name in entry if isinstance(entry[name], np.ndarray)]
    buffers = [view.tobytes() for view in trainer.model.buffers().values()]
    return [bits(trainer.model), *buffers, *states, str(trainer.steps).encode(), str(trainer.model._program.passes).encode()]


def without_seconds(history: ts.History) -> dict[str, list[float]]:
    return {name: values for name, values in history.history.items() if name != "seconds"}


def batches(epoch: int, size: int = 16, seed: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What fit makes of the arrays itself."""
    order = _core.permutation(ROWS, seed, epoch)
    for first in range(0, ROWS, size):
        yield X[order[first : first + size]], Y[order[first : first + size]]


# --- batches from anywhere ------------------------------------------------------------------------------------------------------


class Loader:
    """As PyTorch's DataLoader: gone through once an epoch, with a length."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        return batches(self.epoch - 1)


@pytest.mark.parametrize("source", [lambda: batches, Loader], ids=["function of the epoch", "iterable"])
def test_batches_give_what_arrays_give(source: Callable[[], Any]) -> None:
    arrays, stream = ts.Trainer(net("float32", Dropout(0.3))), ts.Trainer(net("float32", Dropout(0.3)))
    wanted = arrays.fit(X, Y, epochs=3, batch_size=16)
    got = stream.fit(source(), epochs=3)
    assert run_bits(stream) == run_bits(arrays)
    assert without_seconds(got) == without_seconds(wanted)
    assert (stream.epoch, stream.steps) == (3, 21)


def test_an_iterator_is_gone_through_once() -> None:
    wanted, trainer = ts.Trainer(net()), ts.Trainer(net())
    wanted.fit(X, Y, batch_size=16)
    trainer.fit(batches(0))
    assert run_bits(trainer) == run_bits(wanted)
    with pytest.raises(ValueError, match="fit: epochs is 2, expected 1 where x is a generator"):
        trainer.fit(batches(0), epochs=2)
    empty = iter(())
    with pytest.raises(ValueError, match="fit: x has no batch for epoch 2"):
        trainer.fit(empty)


def test_steps_per_epoch_cut_an_endless_iterator() -> None:
    def endless() -> Iterator[Any]:
        epoch = 0
        while True:
            yield from batches(epoch)
            epoch += 1

    wanted, trainer = ts.Trainer(net()), ts.Trainer(net())
    wanted.fit(X, Y, epochs=3, batch_size=16)
    history = trainer.fit(endless(), epochs=7, steps_per_epoch=3)
    assert run_bits(trainer) == run_bits(wanted)
    assert history.epoch == [1, 2, 3, 4, 5, 6, 7]
    left = iter(list(batches(0)))
    trainer.fit(left, steps_per_epoch=3, accumulate=2)
    assert len(list(left)) == 1  # of seven batches, six made three updates


def test_weights_in_batches() -> None:
    def weighted(epoch: int) -> Iterator[Any]:
        order = _core.permutation(ROWS, 1, epoch)
        for first in range(0, ROWS, 16):
            rows = order[first : first + 16]
            yield [X[rows], Y[rows], WEIGHTS[rows]]

    wanted, trainer = ts.Trainer(net()), ts.Trainer(net())
    a, b = wanted.fit(X, Y, batch_size=16, epochs=2, sample_weight=WEIGHTS), trainer.fit(weighted, epochs=2)
    assert run_bits(trainer) == run_bits(wanted)
    assert a.history["loss"] == b.history["loss"]


def test_schedules_and_a_loss_of_ones_own_with_batches() -> None:
    def loss(pred: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        return ts.reference.softmax_cross_entropy(pred, y)

    rates = [ts.schedules.cosine(1e-2, total=21) for _ in range(2)]
    trainers = [ts.Trainer(net(), loss=loss, optimizer=ts.optim.Adam(lr=rate)) for rate in rates]
    trainers[0].fit(X, Y, epochs=3, batch_size=16)
    trainers[1].fit(batches, epochs=3)
    assert run_bits(trainers[0]) == run_bits(trainers[1])
    assert trainers[0].optimizer.lr == trainers[1].optimizer.lr


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((batches, Y), {}, ValueError, "fit: y is given, expected None where x gives batches"),
        ((batches,), {"sample_weight": WEIGHTS}, ValueError, "fit: sample_weight is given"),
        ((X, Y), {"steps_per_epoch": 3}, ValueError, "fit: steps_per_epoch is 3, expected None where x is an array"),
        ((batches,), {"steps_per_epoch": 0}, ValueError, "fit: steps_per_epoch is 0, expected at least 1"),
        ((X,), {}, TypeError, "fit: y is a NoneType, expected an array"),
        ((3,), {}, TypeError, "fit: x is a int, expected an array, or what gives batches"),
        (([X],), {}, TypeError, r"fit: x gave a ndarray, expected batches \(x, y\)"),
        (([(X,)],), {}, TypeError, "fit: x gave a tuple, expected batches"),
        (([(X[:, :3], Y)],), {}, ValueError, "fit: x of a batch has shape"),
        (([(X, Y[:3])],), {}, ValueError, "fit: y of a batch has shape"),
        (([(X, Y, -WEIGHTS)],), {}, ValueError, "fit: sample_weight of a batch"),
        ((X, Y), {"batch_size": "root"}, ValueError, "fit: batch_size is 'root', expected an int or 'sqrt'"),
        ((X, Y), {"accumulate": 0}, ValueError, "fit: accumulate is 0, expected 1 to"),
        ((X, Y), {"accumulate": 1.5}, TypeError, "fit: accumulate is a float"),
        ((X, Y), {"until_epoch": 0}, ValueError, "fit: until_epoch is 0"),
        ((X, Y), {"until_epoch": 3, "epochs": 2}, ValueError, "fit: epochs is 2, expected None beside until_epoch"),
        ((X, Y), {"on_divergence": "go"}, ValueError, "fit: on_divergence is 'go', expected 'restore' or 'keep'"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str) -> None:
    trainer = ts.Trainer(net())
    before = run_bits(trainer)
    with pytest.raises(error, match=words):
        trainer.fit(*arguments, **options)
    assert run_bits(trainer) == before


def test_standardize_needs_data_for_batches() -> None:
    trainer = ts.Trainer(Sequential(ts.nn.Standardize(8), Dense(8, 4)))
    with pytest.raises(ValueError, match=r"fit: .*expected model.standardize\(x\) where x gives batches"):
        trainer.fit(batches)
    trainer.model.standardize(X)
    trainer.fit(batches)


def test_what_a_source_raises_comes_through() -> None:
    class Broken(Exception):
        pass

    closed = []

    def broken(epoch: int) -> Iterator[Any]:
        try:
            yield X[:16], Y[:16]
            yield X[:16], Y[:16]
            raise Broken
        finally:
            closed.append(epoch)

    trainer = ts.Trainer(net())
    with pytest.raises(Broken):
        trainer.fit(broken)
    assert (trainer.steps, trainer.epoch, closed) == (1, 0, [0])


def test_the_batch_size_that_is_the_root_of_the_rows() -> None:
    root, ten = ts.Trainer(net()), ts.Trainer(net())
    root.fit(X, Y, batch_size="sqrt")
    ten.fit(X, Y, batch_size=10)
    assert run_bits(root) == run_bits(ten)


# --- gradients of several batches -----------------------------------------------------------------------------------------------

RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalties": {"l1": 1e-2, "l2": 1e-2, "penalize_bias": True},
    "clipped": {"clip_norm": 0.1},
    "limited": {"max_norm": 0.5},
}


def assert_close(one: ts.Trainer, other: ts.Trainer) -> None:
    assert one.steps == other.steps
    for name, values in one.model.parameters().items():
        np.testing.assert_allclose(values, other.model.parameters()[name], rtol=1e-10, atol=1e-12, err_msg=name)
    for mine, theirs in zip(one.optimizer.state, other.optimizer.state, strict=True):
        for name, values in mine.items():
            np.testing.assert_allclose(values, theirs[name], rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weights"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "LAMB"])
def test_accumulated_batches_are_one_large_one(optimizer: str, weights: Any, rule: str, threads: int) -> None:
    large, small = (
        ts.Trainer(net("float64", LayerNorm()), optimizer=getattr(ts.optim, optimizer)(lr=1e-2, weight_decay=1e-2), **RULES[rule])
        for _ in range(2)
    )
    wanted = large.fit(X, Y, epochs=2, batch_size=32, sample_weight=weights)
    got = small.fit(X, Y, epochs=2, batch_size=8, accumulate=4, sample_weight=weights)
    assert_close(large, small)
    np.testing.assert_allclose(got.history["loss"], wanted.history["loss"], rtol=1e-12)
    for name, gradient in large.model.gradients().items():
        np.testing.assert_allclose(small.model.gradients()[name], gradient, rtol=1e-9, atol=1e-13, err_msg=name)


def test_accumulated_with_other_losses_masks_and_frozen_layers() -> None:
    def own(pred: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        return ts.reference.mse(pred, y)

    for loss in ("mse", own, ts.losses.Huber(delta=0.3)):
        models = [net("float64", Dense(16, 16, activation="relu")).prune(0.4) for _ in range(2)]
        for model in models:
            model.freeze("0")
        large, small = (ts.Trainer(model, loss=loss, optimizer=ts.optim.Adam(lr=1e-2), l2=1e-3) for model in models)
        large.fit(X, TARGETS, epochs=2, batch_size=32)
        small.fit(X, TARGETS, epochs=2, batch_size=16, accumulate=2)
        assert_close(large, small)


def test_accumulated_bits_do_not_depend_on_threads_or_on_the_source() -> None:
    found = []
    for threads in (1, 2, 3):
        with ts.num_threads(threads):
            trainer = ts.Trainer(net("float32", BatchNorm(), Dropout(0.2)), l1=1e-3)
            trainer.fit(X, Y, epochs=2, batch_size=16, accumulate=3)
            found.append(run_bits(trainer))
    trainer = ts.Trainer(net("float32", BatchNorm(), Dropout(0.2)), l1=1e-3)
    trainer.fit(batches, epochs=2, accumulate=3)
    assert found == [run_bits(trainer)] * 3
    assert trainer.steps == 6  # of seven batches an epoch


def test_schedules_count_updates() -> None:
    trainer = ts.Trainer(net(), optimizer=ts.optim.SGD(lr=ts.schedules.linear(1.0, total=100)))
    trainer.fit(X, Y, epochs=2, batch_size=16, accumulate=3)
    assert trainer.optimizer.lr == pytest.approx(1 - 5 / 100)


def test_weights_that_are_all_zero_give_no_gradient() -> None:
    trainer = ts.Trainer(net(), optimizer=ts.optim.SGD(lr=1.0))
    before = bits(trainer.model)
    trainer.fit(X, Y, batch_size=8, accumulate=4, sample_weight=np.zeros(ROWS))
    assert bits(trainer.model) == before
    assert trainer.steps == 4


# --- hooks around steps ---------------------------------------------------------------------------------------------------------


class Steps(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[Any] = []
        self.stop_at = stop_at

    def on_batch_begin(self, step: int) -> None:
        self.calls.append(("begin", step, self.trainer.steps))

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        self.calls.append(("end", step, self.trainer.steps))
        self.losses = [*getattr(self, "losses", []), values["loss"]]
        if step == self.stop_at:
            self.trainer.stop()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("source", [(X, Y), (batches,)], ids=["arrays", "batches"])
def test_hooks_of_steps(source: tuple[Any, ...], accumulate: int) -> None:
    steps, trainer, quiet = Steps(), ts.Trainer(net()), ts.Trainer(net())
    trainer.fit(*source, epochs=2, batch_size=16, accumulate=accumulate, callbacks=[steps])
    quiet.fit(X, Y, epochs=2, batch_size=16, accumulate=accumulate)
    assert run_bits(trainer) == run_bits(quiet)
    number = 14 if accumulate == 1 else 6
    assert steps.calls == [call for n in range(1, number + 1) for call in (("begin", n, n - 1), ("end", n, n))]


def test_the_loss_of_a_step() -> None:
    steps, trainer, by_hand = Steps(), ts.Trainer(net("float64")), ts.Trainer(net("float64"))
    trainer.fit(X, Y, batch_size=16, callbacks=[steps])
    assert steps.losses == [by_hand.step(*batch) for batch in batches(0)]
    steps, trainer = Steps(), ts.Trainer(net("float64"))
    trainer.fit(X, Y, batch_size=16, accumulate=2, callbacks=[steps], sample_weight=WEIGHTS)
    by_hand = ts.Trainer(net("float64"))
    order = _core.permutation(ROWS, 1, 0)
    losses = [by_hand.step(X[o], Y[o], WEIGHTS[o]) for o in (order[first : first + 32] for first in range(0, ROWS, 32))]
    np.testing.assert_allclose(steps.losses, losses, rtol=1e-10)


def test_hooks_that_nobody_has_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Callback, "on_batch_begin", fail)
    monkeypatch.setattr(Callback, "on_batch_end", fail)
    ts.Trainer(net()).fit(X, Y, callbacks=[Callback(), ts.callbacks.Monitor()])


def test_an_exception_in_a_hook_of_a_step_leaves_whole_steps() -> None:
    class Failing(Callback):
        def on_batch_end(self, step: int, values: dict[str, float]) -> None:
            if step == 4:
                raise KeyError(step)

    for source in ((X, Y), (batches,)):
        trainer, wanted = ts.Trainer(net()), ts.Trainer(net())
        with pytest.raises(KeyError):
            trainer.fit(*source, batch_size=16, callbacks=[Failing()])
        for batch, _ in zip(batches(0), range(4), strict=False):
            wanted.step(*batch)
        assert run_bits(trainer) == run_bits(wanted)


def test_callbacks_that_come_last() -> None:
    calls: list[str] = []

    class Named(Callback):
        def __init__(self, name: str, last: bool) -> None:
            self.name, self.comes_last = name, last

        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            calls.append(self.name)

        def on_batch_end(self, step: int, values: dict[str, float]) -> None:
            calls.append(self.name)

    ts.Trainer(net()).fit(X, Y, batch_size=ROWS, callbacks=[Named("a", True), Named("b", False), Named("c", False)])
    assert calls == ["b", "c", "a"] * 2


# --- epochs that go on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 6, 7, 8, 20, 21])
@pytest.mark.parametrize("source", [(X, Y), (batches,)], ids=["arrays", "batches"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_that_was_stopped_goes_on(source: tuple[Any, ...], stop_at: int, accumulate: int) -> None:
    def trainer() -> ts.Trainer:
        return ts.Trainer(
            net("float32", BatchNorm(), Dropout(0.3)),
            optimizer=ts.optim.Adam(lr=ts.schedules.cosine(1e-2, total=21)),
            clip_norm=1.0,
        )

    options: dict[str, Any] = {"batch_size": 16, "validation_data": (X[:20], Y[:20]), "accumulate": accumulate}
    whole, broken = trainer(), trainer()
    whole.fit(*source, epochs=3, **options)
    broken.fit(*source, epochs=3, callbacks=[Steps(stop_at)], **options)
    updates = 7 if accumulate == 1 else 4
    assert broken.steps == min(stop_at, 3 * updates)
    assert broken.epoch == min(3, stop_at // updates)
    broken.fit(*source, until_epoch=3, **options)
    assert run_bits(broken) == run_bits(whole)
    assert without_seconds(broken.history) == without_seconds(whole.history)
    assert broken.history.epoch == [1, 2, 3]
    assert broken.fit(*source, until_epoch=3, **options).epoch == []  # there is nothing left to do
    assert run_bits(broken) == run_bits(whole)


@pytest.mark.parametrize("saved", [False, True], ids=["same trainer", "from a file"])
@pytest.mark.parametrize("where", ["the last step", "validation"])
@pytest.mark.parametrize("source", [(X, Y), (batches,)], ids=["arrays", "batches"])
def test_the_end_of_an_epoch_that_an_exception_took_away(
    source: tuple[Any, ...], where: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Callback):
        def on_batch_end(self, step: int, values: dict[str, float]) -> None:
            if step == 14 and where == "the last step":
                raise KeyboardInterrupt

    class Watching(Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            self.losses.append(values["loss"])

    def trainer() -> ts.Trainer:
        plateau = ts.schedules.Plateau(0.1, factor=0.5, patience=0, mode="max", monitor="loss")  # falls each time
        return ts.Trainer(net(), optimizer=ts.optim.SGD(lr=plateau), metrics=["f1"], average=ts.averages.SWA(start=1))

    options: dict[str, Any] = {"batch_size": 16, "validation_data": (X[:20], Y[:20])}
    whole, broken = trainer(), trainer()
    whole.fit(*source, epochs=4, **options)
    broken.fit(*source, epochs=1, **options)
    if where == "validation":
        monkeypatch.setattr(broken, "_measure", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        broken.fit(*source, epochs=3, callbacks=[Interrupting()], **options)
    monkeypatch.undo()
    assert (broken.steps, broken.history.epoch) == (14, [1])
    if saved:
        broken.save(tmp_path / "run")
        broken = ts.Trainer.load(tmp_path / "run")
    watching = Watching()
    history = broken.fit(*source, until_epoch=4, callbacks=[watching], **options)
    assert history.epoch == [2, 3, 4]
    assert run_bits(broken) == run_bits(whole)
    assert without_seconds(broken.history) == without_seconds(whole.history)
    assert watching.losses == whole.history.history["loss"][1:]
    assert broken.averages == whole.averages
    assert bits(broken.averaged_model()) == bits(whole.averaged_model())


def test_an_epoch_goes_on_only_with_data_of_which_it_was_a_part() -> None:
    trainer = ts.Trainer(net())
    trainer.fit(X, Y, batch_size=16, callbacks=[Steps(3)])
    assert trainer._core.unfinished[4] == 48
    trainer.fit(X[:50], Y[:50], batch_size=16)  # another epoch, from its beginning
    assert (trainer.steps, trainer.epoch) == (3 + 4, 1)


def test_another_batch_size_goes_on_at_the_same_row() -> None:
    trainer = ts.Trainer(net(), optimizer=ts.optim.SGD(lr=ts.schedules.constant(0.1)))
    trainer.fit(X, Y, batch_size=16, callbacks=[Steps(3)])
    trainer.fit(X, Y, batch_size=11)
    assert (trainer.steps, trainer.epoch) == (3 + 5, 1)


def test_stop_before_the_first_epoch_trains_nothing() -> None:
    class Never(Callback):
        def on_train_begin(self) -> None:
            self.trainer.stop()

    trainer = ts.Trainer(net())
    assert trainer.fit(X, Y, epochs=3, callbacks=[Never()]).epoch == []
    assert trainer.steps == 0


def test_the_history_of_all_fits() -> None:
    trainer = ts.Trainer(net())
    first, second = trainer.fit(X, Y, epochs=2), trainer.fit(X, Y)
    assert trainer.history.epoch == [1, 2, 3]
    assert trainer.history.history["loss"] == first.history["loss"] + second.history["loss"]


# --- divergence -----------------------------------------------------------------------------------------------------------------


def diverging(optimizer: ts.optim.Optimizer | None = None, *more: Any) -> ts.Trainer:
    """Trains for two epochs, and then with a rate that is far too large."""
    trainer = ts.Trainer(net("float32", *more), loss="mse", optimizer=optimizer or ts.optim.SGD(lr=0.01))
    trainer.fit(X, TARGETS, epochs=2, batch_size=16)
    trainer.optimizer.lr = 1e8
    return trainer


@pytest.mark.parametrize("make", [lambda: None, lambda: ts.optim.NAdam(lr=0.01), lambda: ts.optim.SGD(lr=0.01, momentum=0.9)])
@pytest.mark.parametrize("more", [(), (BatchNorm(), Dropout(0.3))], ids=["plain", "norm"])
@pytest.mark.parametrize("source", ["arrays", "batches"])
def test_a_loss_that_is_not_finite(make: Callable[[], Any], more: tuple[Any, ...], source: str, threads: int) -> None:
    def stream(epoch: int) -> Iterator[Any]:
        for first in range(0, ROWS, 16):
            yield X[first : first + 16], TARGETS[first : first + 16] * 1e20  # 1e40 is no float32

    trainer = diverging(make(), *more)
    before, rows = run_bits(trainer), trainer.history.epoch.copy()
    with pytest.raises(ts.DivergenceError) as caught:
        trainer.fit(
            *((X, TARGETS * 1e20) if source == "arrays" else (lambda e: ((x, t * 1e20) for x, t in stream(e)),)), batch_size=16
        )
    error = caught.value
    assert error.epoch == 3
    assert error.step == 15
    assert error.layer == "loss"
    assert run_bits(trainer) == before
    assert (trainer.epoch, trainer.steps, trainer.history.epoch) == (2, 14, rows)
    trainer.optimizer.lr = 0.01
    assert np.isfinite(trainer.fit(X, TARGETS, batch_size=16).history["loss"][0])
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


@pytest.mark.parametrize(
    ("layers", "culprit"),
    [
        ((Dense(8, 8), Dense(8, 4)), "0"),
        ((Dense(8, 8, activation="relu"), Residual(Dense(8, 8), Dense(8, 8)), Dense(8, 4)), "1.0"),
        ((Dense(8, 8, activation="tanh"), LayerNorm(), Dense(8, 4)), "2"),
    ],
)
def test_the_layer_where_it_began(layers: tuple[Any, ...], culprit: str) -> None:
    trainer = ts.Trainer(Sequential(*layers, seed=3), loss="mse")
    weight = trainer.model.parameters()[f"{culprit}.weight"]
    weight[...] = 3e38
    before = run_bits(trainer)
    with pytest.raises(ts.DivergenceError, match=f"the output of layer {culprit} is not finite in epoch 1, step 1"):
        trainer.fit(np.full_like(X, 100.0), TARGETS)
    assert run_bits(trainer) == before


def test_an_activation_has_the_name_of_its_layer() -> None:
    trainer = ts.Trainer(Sequential(Dense(8, 4), Activation("relu"), seed=3), loss="mse")
    trainer.model.parameters()["0.weight"][...] = 3e38
    with pytest.raises(ts.DivergenceError) as caught:
        trainer.fit(np.full_like(X, 100.0), TARGETS)
    assert caught.value.layer == "0"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_keep_leaves_all_as_it_was_before_the_step(accumulate: int) -> None:
    bad = TARGETS.copy()
    bad[_core.permutation(ROWS, 1, 0)[70]] = 1e25  # in the fifth batch of the first epoch
    trainer, wanted = (ts.Trainer(net("float32", BatchNorm()), loss="mse", optimizer=ts.optim.NAdam()) for _ in range(2))
    with pytest.raises(ts.DivergenceError) as caught:
        trainer.fit(X, bad, batch_size=16, accumulate=accumulate, on_divergence="keep")
    wanted.fit(X, TARGETS, batch_size=16, accumulate=accumulate, callbacks=[Steps(4 // accumulate)])
    assert run_bits(trainer)[:-1] == run_bits(wanted)[:-1]  # but for the passes
    assert caught.value.step == 4 // accumulate + 1


def test_nothing_is_learned_from_a_loss_of_ones_own_that_is_not_finite() -> None:
    def loss(pred: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        return float("nan"), np.zeros_like(pred)

    trainer = ts.Trainer(net(), loss=loss)
    before = run_bits(trainer)
    with pytest.raises(ts.DivergenceError, match="the loss is not finite in epoch 1, step 1"):
        trainer.fit(X, Y)
    assert run_bits(trainer) == before


def test_a_callback_may_take_it() -> None:
    class Taking(Callback):
        handles_divergence = True

        def on_divergence(self, error: ts.DivergenceError) -> None:
            self.error = error

    trainer, taking = diverging(), Taking()
    history = trainer.fit(X, TARGETS, epochs=9, batch_size=16, callbacks=[taking])
    assert history.epoch == []
    assert taking.error.epoch == 3
    assert trainer.epoch == 2


def test_step_itself_gives_what_it_finds() -> None:
    trainer = ts.Trainer(net(), loss="mse")
    assert not np.isfinite(trainer.step(X, np.full((ROWS, 4), 1e30)))
    assert trainer.steps == 1


def test_frames_train_as_arrays_do(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, y, weight = np.asfortranarray(rng.standard_normal((40, 5))), rng.integers(0, 3, 40), rng.random(40)
    results = []
    for of in (np.asarray, Frame):
        model = Sequential(Dense(5, 7, activation="tanh"), Dense(7, 3), dtype=dtype, seed=1)
        trainer = ts.Trainer(model)
        history = trainer.fit(of(x), of(y), epochs=3, batch_size=16, sample_weight=of(weight), validation_data=(of(x), of(y)))
        step = trainer.step(of(x), of(y), of(weight))
        assert model.predict(of(x)).shape == (40, 3)
        results.append((bits(model), history.history["val_loss"], step, trainer.evaluate(of(x), of(y)), model(of(x)).tobytes()))
    assert results[0] == results[1]
    with pytest.raises(ValueError, match=r"^fit: y has shape \(40, 1\), expected \(40, 3\) or \(40,\)$"):
        trainer.fit(Frame(x), Frame(y[:, None]))
