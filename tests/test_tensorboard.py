"""TensorBoard's event files, read back with its own reader."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.callbacks import TensorBoard

from .helpers import bits, classes, network

pytestmark = pytest.mark.one_level
X, Y = classes(96, 6, 3)


def trainer(**arguments: Any) -> ts.Trainer:
    return ts.Trainer(network((6, 8, 3), dtype="float32"), **arguments)


def events(directory: Path) -> Any:
    """The event files of a run, read; skips where tensorboard is not installed."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = reader.EventAccumulator(str(directory), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = events(directory)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def as_float32(steps: list[int], values: list[float]) -> list[tuple[int, float]]:
    return [(step, float(np.float32(value))) for step, value in zip(steps, values, strict=True)]


@pytest.mark.peers
def test_the_values_of_epochs_overlay(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    history = trainer().fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[TensorBoard(tmp_path)])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["train", "validation"]
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert set(train) == {"epoch/loss", "epoch/accuracy", "epoch/lr", "epoch/seconds"}
    assert set(validation) == {"epoch/loss", "epoch/accuracy"}
    for name, found in [(f"epoch/{name}", train) for name in ("loss", "accuracy", "lr", "seconds")]:
        assert found[name] == as_float32(history.epoch, history.history[name.removeprefix("epoch/")])
    for name in ("loss", "accuracy"):
        assert validation[f"epoch/{name}"] == as_float32(history.epoch, history.history[f"val_{name}"])


@pytest.mark.peers
def test_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    losses: list[float] = []
    watch = ts.callbacks.LambdaCallback(on_batch_end=lambda step, values: losses.append(values["loss"]))
    trainer().fit(X, Y, epochs=3, batch_size=16, callbacks=[TensorBoard(tmp_path, every_steps=4), watch])
    assert scalars(tmp_path / "steps") == {"step/loss": as_float32([4, 8, 12, 16], losses[3::4])}
    assert not (tmp_path / "validation").exists()


@pytest.mark.peers
def test_layers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watched, alone = trainer(), trainer()
    watched.model.freeze("0.bias")
    alone.model.freeze("0.bias")
    norms: list[dict[str, float]] = []
    weights: list[dict[str, np.ndarray]] = []

    def look(epoch: int, values: dict[str, float]) -> None:
        norms.append({name: float(np.sqrt(np.sum(np.square(g, dtype=float)))) for name, g in watched.model.gradients().items()})
        weights.append({name: w.astype(float) for name, w in watched.model.parameters().items()})

    board = TensorBoard(tmp_path, layers=True)
    watched.fit(X, Y, epochs=2, callbacks=[board, ts.callbacks.LambdaCallback(on_epoch_end=look)])
    alone.fit(X, Y, epochs=2)
    assert bits(watched.model) == bits(alone.model)
    found = events(tmp_path / "train")
    names = set(watched.model.parameters())
    assert set(found.Tags()["histograms"]) == {f"parameters/{name}" for name in names}
    for name in names:
        norm = [event.value for event in found.Scalars(f"gradient_norm/{name}")]
        assert norm == pytest.approx([n[name] for n in norms], rel=1e-6)
        assert (norm[0] == 0) == (name == "0.bias")
        for event, weight in zip(found.Histograms(f"parameters/{name}"), weights, strict=True):
            w, histogram = weight[name], event.histogram_value
            assert (histogram.min, histogram.max, histogram.num) == (w.min(), w.max(), w.size)
            assert [histogram.sum, histogram.sum_squares] == pytest.approx([w.sum(), (w**2).sum()], rel=1e-12)
            below = [(w < limit).sum() for limit in histogram.bucket_limit[:-1]]
            assert list(np.cumsum(histogram.bucket)) == [*below, w.size]


@pytest.mark.peers
def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = trainer(optimizer=ts.optim.SGD(lr=0.0))

    class Break(ts.callbacks.Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            run.model.parameters()["1.weight"][0, 0] = np.inf
            run.model.parameters()["1.bias"][...] = np.nan

    run.fit(X, Y, callbacks=[Break(), TensorBoard(tmp_path, layers=True)])
    found = events(tmp_path / "train")
    assert found.Histograms("parameters/1.weight")[0].histogram_value.num == 8 * 3 - 1
    assert found.Histograms("parameters/1.bias")[0].histogram_value.num == 0


@pytest.mark.peers
def test_a_resumed_run_replaces_what_it_does_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    whole = trainer()
    whole.fit(X, Y, epochs=5, callbacks=[TensorBoard(tmp_path / "whole", every_steps=1)])
    first = trainer()
    first.fit(X, Y, epochs=2)
    first.save(tmp_path / "run.safetensors")
    cut = trainer()
    cut.fit(X, Y, epochs=4, callbacks=[TensorBoard(tmp_path / "cut", every_steps=1)])
    for file in (tmp_path / "cut").rglob("events.*"):  # of a second that has passed
        file.rename(file.with_name(re.sub(r"tfevents\.\d+", "tfevents.1000000000", file.name)))
    resumed = ts.Trainer.load(tmp_path / "run.safetensors")
    resumed.fit(X, Y, until_epoch=5, callbacks=[TensorBoard(tmp_path / "cut", every_steps=1)])
    assert scalars(tmp_path / "cut" / "steps") == scalars(tmp_path / "whole" / "steps")
    cut_train, whole_train = scalars(tmp_path / "cut" / "train"), scalars(tmp_path / "whole" / "train")
    assert cut_train["epoch/loss"] == whole_train["epoch/loss"]


@pytest.mark.peers
def test_fits_in_quick_succession(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files of the same second, the tenth is read before the second: its number is text."""
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(0))
    run, board = trainer(), TensorBoard(tmp_path)
    for _ in range(12):
        run.fit(X, Y, callbacks=[board])
    assert sorted(step for step, _ in scalars(tmp_path / "train")["epoch/loss"]) == list(range(1, 13))


@pytest.mark.peers
def test_layers_want_gradients(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    message = "TensorBoard: layers is True, expected False with a Trainer whose steps keep no gradients"
    fused = trainer(fuse_update=True)
    with pytest.raises(ValueError, match=message):
        fused.fit(X, Y, callbacks=[TensorBoard(tmp_path, layers=True)])
    assert fused.steps == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peers
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"directory": 3}, TypeError, "TensorBoard: directory is a int, expected a str or a path"),
        ({"every_steps": 0}, ValueError, "TensorBoard: every_steps is 0, expected at least 1"),
        ({"layers": "yes"}, TypeError, "TensorBoard: layers is a str, expected a bool"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorBoard(**{"directory": "runs", **arguments})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"TensorBoard needs tensorboard: pip install trainstep\[tensorboard\]"):
        TensorBoard("runs")
