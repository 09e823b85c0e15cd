"""Averages of the weights against their formulas, and what a trainer does with them. PyTorch is in test_average_peers.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import optim
from trainstep.averages import EMA, SWA
from trainstep.nn import BatchNorm, Dense, Dropout, Residual, Sequential, Standardize

from .helpers import Array, assert_same_bits, bits, classes, network, normal

Arrays = dict[str, Array]


def with_batch_norm(dtype: str = "float64", seed: int = 3) -> Sequential:
    block = Residual(BatchNorm(), Dense(7, 7, activation="tanh"))
    return Sequential(Dense(5, 7, activation="relu"), BatchNorm(momentum=0.3), block, Dense(7, 3), seed=seed, dtype=dtype)


def arrays_of(model: Sequential) -> Arrays:
    return {name: view.copy() for name, view in (model.parameters() | model.buffers()).items()}


def sum_of(states: list[Arrays], shares: list[float]) -> Arrays:
    return {name: sum(share * state[name] for share, state in zip(shares, states, strict=True)) for name in states[0]}


def ema_shares(decays: list[float]) -> list[float]:
    """What each of the weights has in the average, whose first is a copy: (1 - d_i) * d_(i+1) * d_(i+2) * ..."""
    decays = [0.0, *decays[1:]]
    return [(1 - d) * float(np.prod(decays[i + 1 :])) for i, d in enumerate(decays)]


def trained(trainer: ts.Trainer, steps: int, rng: np.random.Generator) -> list[Arrays]:
    """The arrays after each of some steps."""
    x, y = normal(rng, "float64", steps, 20, 5), rng.integers(0, 3, (steps, 20))
    states = []
    for i in range(steps):
        trainer.step(x[i], y[i])
        states.append(arrays_of(trainer.model))
    return states


def assert_close(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, values in got.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-11, atol=1e-13, err_msg=name)


# --- EMA ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_its_formula(decay: float, warmup: bool, threads: int, rng: np.random.Generator) -> None:
    trainer = ts.Trainer(with_batch_norm(), optimizer=optim.Adam(lr=0.05), average=EMA(decay, warmup))
    states = trained(trainer, 30, rng)
    decays = [min(decay, (1 + t) / (10 + t)) if warmup else decay for t in range(30)]
    assert_close(arrays_of(trainer.averaged_model()), sum_of(states, ema_shares(decays)))
    assert trainer.averages == 30


@pytest.mark.parametrize(
    "options", [{}, {"fuse_update": True}, {"clip_norm": 0.1}, {"max_norm": 0.5}, {"optimizer": optim.LAMB}], ids=str
)
def test_ema_sees_the_weights_as_every_kind_of_step_leaves_them(options: dict[str, Any], rng: np.random.Generator) -> None:
    made = options.get("optimizer", optim.SGD)(lr=0.1)
    trainer = ts.Trainer(with_batch_norm(), average=EMA(0.8), **(options | {"optimizer": made}))
    states = trained(trainer, 6, rng)
    assert_close(arrays_of(trainer.averaged_model()), sum_of(states, ema_shares([0.8] * 6)))


def test_ema_counts_updates(rng: np.random.Generator) -> None:
    x, y = classes(100, 5, 3, "float64")
    trainer = ts.Trainer(with_batch_norm(), average=EMA(0.8))
    trainer.fit(x, y, epochs=2, batch_size=10, accumulate=4)
    assert trainer.averages == trainer.steps == 6


def test_the_same_bits_for_any_number_of_threads(dtype: np.dtype) -> None:
    x, y = classes(200, 40, 5, dtype)
    results = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            trainer = ts.Trainer(network((40, 300, 5), dtype=dtype), average=EMA(0.9))
            trainer.fit(x, y, epochs=2, batch_size=64)
            results.append(bits(trainer.averaged_model()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("average", [EMA(0.9), SWA(1)])
def test_training_goes_as_without(average: ts.averages.Average) -> None:
    x, y = classes(100, 5, 3)
    trainers = [ts.Trainer(with_batch_norm("float32"), average=given) for given in (None, average)]
    histories = [trainer.fit(x, y, epochs=3, validation_data=(x, y)).history for trainer in trainers]
    assert bits(trainers[0].model) == bits(trainers[1].model)
    for name in ("loss", "val_loss"):
        assert histories[0][name] == histories[1][name]


def test_what_is_frozen_is_its_own_average(dtype: np.dtype) -> None:
    x, y = classes(100, 5, 3, dtype)
    for average in (EMA(0.7), SWA(1)):
        model = network((5, 6, 3), dtype=dtype)
        model.freeze("0")
        trainer = ts.Trainer(model, average=average)
        trainer.fit(x, y, epochs=4)
        averaged = trainer.averaged_model()
        assert averaged.frozen == model.frozen
        for name in ("0.weight", "0.bias"):
            assert_same_bits(averaged.parameters()[name], model.parameters()[name])
        assert not np.array_equal(averaged.parameters()["1.weight"], model.parameters()["1.weight"])


def test_what_is_pruned_stays_0_in_the_average() -> None:
    x, y = classes(100, 5, 3, "float64")
    model = network((5, 8, 3))
    trainer = ts.Trainer(model, average=EMA(0.9))
    trainer.fit(x, y)
    whole = trainer.averaged_model()
    model._program.set_masks([np.arange(40).reshape(5, 8) % 2 == 0, None, None, None])
    trainer.fit(x, y)
    averaged = trainer.averaged_model()
    gone = np.arange(40).reshape(5, 8) % 2 == 1
    assert whole.parameters()["0.weight"][gone].all()
    assert not averaged.parameters()["0.weight"][gone].any()
    assert averaged.parameters()["0.weight"][~gone].all()
    ts.Trainer(averaged).fit(x, y)
    assert not averaged.parameters()["0.weight"][gone].any()


def test_a_standardize_layer_that_fit_sets(rng: np.random.Generator) -> None:
    model = Sequential(Standardize(2), Dense(2, 1))
    trainer = ts.Trainer(model, "mse", average=EMA(0.9))
    x = normal(rng, "float32", 50, 2) + 4
    trainer.fit(x, x[:, :1], epochs=2)
    for name, view in model.buffers().items():
        assert_same_bits(trainer.averaged_model().buffers()[name], view)


def test_a_loss_that_is_not_finite_takes_the_average_back() -> None:
    x, y = np.ones((8, 1)), np.ones((8, 1))
    trainer = ts.Trainer(network((1, 1)), "mse", optim.SGD(lr=0.1), average=EMA(0.5))
    trainer.fit(x, y, batch_size=2)
    before, y[5] = arrays_of(trainer.averaged_model()), 1e200
    for on_divergence, count in (("restore", 4), ("keep", 6)):
        with pytest.raises(ts.DivergenceError):
            trainer.fit(x, y, batch_size=2, shuffle=False, on_divergence=on_divergence)
        assert trainer.averages == count
        same = all(np.array_equal(before[name], view) for name, view in trainer.averaged_model().parameters().items())
        assert same == (on_divergence == "restore")


# --- SWA ---------------------------------------------------------------------------------------------------------------------


class Ends(ts.callbacks.Callback):
    """Keeps the arrays at the end of each epoch."""

    def __init__(self) -> None:
        self.states: list[Arrays] = []

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        self.states.append(arrays_of(self.trainer.model))


@pytest.mark.parametrize(
    ("average", "taken"),
    [
        (SWA(), [7, 8]),
        (SWA(0.5), [5, 6, 7, 8]),
        (SWA(0.0), [1, 2, 3, 4, 5, 6, 7, 8]),
        (SWA(0.99), [8]),
        (SWA(6), [6, 7, 8]),
        (SWA(1, every=3), [1, 4, 7]),
        (SWA(0.3, every=2), [3, 5, 7]),
    ],
    ids=str,
)
def test_swa_is_the_mean_of_the_epochs_ends(average: SWA, taken: list[int], threads: int) -> None:
    x, y = classes(60, 5, 3, "float64")
    ends = Ends()
    trainer = ts.Trainer(with_batch_norm(), optimizer=optim.SGD(lr=0.1), average=average)
    trainer.fit(x, y, epochs=8, callbacks=[ends])
    states = [ends.states[epoch - 1] for epoch in taken]
    assert_close(arrays_of(trainer.averaged_model()), sum_of(states, [1 / len(taken)] * len(taken)))
    assert trainer.averages == len(taken)


def test_swa_counts_the_epochs_of_all_fits() -> None:
    x, y = classes(60, 5, 3, "float64")
    trainer = ts.Trainer(network((5, 3)), average=SWA(4))
    counts = []
    for _ in range(6):
        trainer.fit(x, y)
        counts.append(trainer.averages)
    assert counts == [0, 0, 0, 1, 2, 3]


# --- BatchNorm's statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("rows", "batch_size"), [(40, 16), (40, 40), (41, 8), (2, 100)])
def test_statistics_from_rows(momentum: float, rows: int, batch_size: int, rng: np.random.Generator) -> None:
    x, y = classes(64, 5, 3, "float64")
    model = Sequential(Dense(5, 7), BatchNorm(momentum=momentum), Dense(7, 3), dtype="float64")
    trainer = ts.Trainer(model, average=SWA(1))
    trainer.fit(x, y, epochs=3)
    averaged = trainer.averaged_model(x[:rows], batch_size)
    hidden = x[:rows] @ averaged.parameters()["0.weight"] + averaged.parameters()["0.bias"]
    batches = [b for b in np.split(hidden, range(batch_size, rows, batch_size)) if len(b) > 1]
    means, variances = (np.mean([f(b) for b in batches], axis=0) for f in (lambda b: b.mean(0), lambda b: b.var(0, ddof=1)))
    assert_close(averaged.buffers(), {"1.running_mean": means, "1.running_var": variances})
    assert averaged.layers == model.layers


def test_statistics_within_blocks_and_of_any_x(rng: np.random.Generator) -> None:
    x, y = classes(64, 5, 3)
    trainer = ts.Trainer(with_batch_norm("float32"), average=EMA(0.9))
    trainer.fit(x, y, epochs=3)
    averaged = trainer.averaged_model(x, 64)
    p = averaged.parameters()
    hidden = np.maximum(x @ p["0.weight"] + p["0.bias"], 0)
    normal_ = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5) * p["1.gamma"] + p["1.beta"]
    np.testing.assert_allclose(averaged.buffers()["2.0.running_mean"], normal_.mean(0), atol=1e-5)
    np.testing.assert_allclose(averaged.buffers()["2.0.running_var"], normal_.var(0, ddof=1), rtol=1e-4)
    for other in (x.astype("float64"), x.reshape(64, 5, 1), x.tolist()):
        for name, view in trainer.averaged_model(other, 64).buffers().items():
            assert_same_bits(view, averaged.buffers()[name])


def test_the_average_is_the_callers_own(rng: np.random.Generator) -> None:
    x, y = classes(64, 5, 3, "float64")
    trainer = ts.Trainer(with_batch_norm(), average=EMA(0.9))
    trainer.fit(x, y)
    before = arrays_of(trainer.averaged_model())
    for view in trainer.averaged_model().parameters().values():
        view[...] = 7
    trainer.model.metadata["note"] = "kept"
    after = trainer.averaged_model()
    assert_close(arrays_of(after), before)
    assert after.metadata == {"note": "kept"}


# --- files -------------------------------------------------------------------------------------------------------------------


class StopAfter(ts.callbacks.Callback):
    def __init__(self, step: int) -> None:
        self.last = step

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        if step == self.last:
            self.trainer.stop()


@pytest.mark.parametrize("average", [EMA(0.9, warmup=True), SWA(0.5), SWA(2, every=2)], ids=str)
def test_a_run_that_is_resumed_has_the_same_average(average: ts.averages.Average, tmp_path: Path) -> None:
    x, y = classes(200, 5, 3)

    def model() -> Sequential:
        return Sequential(Dense(5, 7), BatchNorm(), Dropout(0.2), Dense(7, 3), seed=1)

    whole = ts.Trainer(model(), average=average)
    whole.fit(x, y, until_epoch=4)
    run = ts.Trainer(model(), average=average)
    for step in (3, 9, 16):
        run.fit(x, y, until_epoch=4, callbacks=[StopAfter(step)])
        run.save(tmp_path / "run.safetensors")
        run = ts.Trainer.load(tmp_path / "run.safetensors")
        assert run.average == average
    run.fit(x, y, until_epoch=4)
    assert run.averages == whole.averages
    one, other = run.averaged_model(), whole.averaged_model()
    assert bits(one) == bits(other)
    for name, view in one.buffers().items():
        assert_same_bits(view, other.buffers()[name])


# --- what does not fit ---------------------------------------------------------------------------------------------------------


def averaged(average: Any, *arguments: Any) -> Callable[[], Any]:
    def call() -> Any:
        trainer = ts.Trainer(network((5, 3)), average=average)
        if arguments:
            trainer.step(np.ones((2, 5)), [0, 1])
        return trainer.averaged_model(*arguments)

    return call


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: EMA(1.0), ValueError, "EMA: decay is 1.0, expected a number of at least 0 and below 1"),
    (lambda: EMA(-0.1), ValueError, "EMA: decay is -0.1, expected a finite number of at least 0"),
    (lambda: EMA("0.9"), TypeError, "EMA: decay is a str, expected a number"),  # type: ignore[arg-type]
    (lambda: EMA(0.9, 1), TypeError, "EMA: warmup is a int, expected a bool"),  # type: ignore[arg-type]
    (lambda: SWA(1.0), ValueError, "SWA: start is 1.0, expected an int, or a float of at least 0 and below 1"),
    (lambda: SWA(-0.5), ValueError, "SWA: start is -0.5, expected a finite number of at least 0"),
    (lambda: SWA(0), ValueError, "SWA: start is 0, expected"),
    (lambda: SWA("half"), TypeError, "SWA: start is a str, expected an int"),  # type: ignore[arg-type]
    (lambda: SWA(0.5, 0), ValueError, "SWA: every is 0, expected"),
    (averaged("ema"), TypeError, "Trainer: average is 'ema', expected one of trainstep.averages"),
    (averaged(EMA), TypeError, "Trainer: average is <class 'trainstep.averages.EMA'>, expected one of trainstep.averages"),
    (averaged(ts.averages.Average()), TypeError, r"Trainer: average is Average\(\), expected one of trainstep.averages"),
    (averaged(None), ValueError, r"averaged_model: the trainer keeps no average, expected Trainer\(..., average=\)"),
    (averaged(EMA(0.5)), ValueError, r"averaged_model: nothing has been averaged yet, expected some training with EMA\(decay=0.5"),
    (averaged(EMA(0.5), np.ones((9, 4))), ValueError, r"averaged_model: x has shape \(9, 4\), expected \(rows, 5\) with at least"),
    (averaged(EMA(0.5), np.ones((1, 5))), ValueError, r"averaged_model: x has shape \(1, 5\), expected \(rows, 5\) with at least"),
    (averaged(EMA(0.5), np.ones((3, 5)), 1), ValueError, "averaged_model: batch_size is 1, expected"),
]  # fmt: skip


@pytest.mark.one_level
@pytest.mark.parametrize(("call", "kind", "words"), REFUSED, ids=[words[:60] for _, _, words in REFUSED])
def test_what_does_not_fit(call: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"^{words}"):
        call()


@pytest.mark.one_level
def test_objects_compare_and_print() -> None:
    assert EMA(0.99) == EMA(decay=0.99) != EMA()
    assert repr(SWA(3)) == "SWA(start=3, every=1)"
    assert isinstance(SWA(np.int64(3)).start, int)  # type: ignore[arg-type]
    assert SWA(np.float32(0.5)).start == 0.5  # type: ignore[arg-type]
