"""Checkpoint: what is written when, under which name, what is deleted, and what a killed and resumed run finds."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.callbacks import Callback, Checkpoint, LambdaCallback

from .helpers import assert_same_bits, bits, classes, network, run_python

pytestmark = pytest.mark.one_level

X, Y = classes(96, 6, 3)
STEPS = 3  # in an epoch of 32 rows a batch


def trainer() -> ts.Trainer:
    return ts.Trainer(network((6, 8, 3), dtype="float32"), optimizer=ts.optim.Adam(lr=0.02))


def names(directory: Path) -> list[str]:
    return sorted(entry.relative_to(directory).as_posix() for entry in directory.rglob("*") if entry.is_file())


@pytest.mark.parametrize(
    ("arguments", "epochs", "wanted"),
    [
        ({}, 3, ["3-9"]),
        ({"keep": 2}, 4, ["3-9", "4-12"]),
        ({"keep": None}, 3, ["1-3", "2-6", "3-9"]),
        ({"every": 2, "keep": None}, 5, ["2-6", "4-12"]),
        ({"every": 2}, 5, ["4-12"]),
        ({"every": 7}, 5, []),
        ({"every_steps": 2, "keep": None}, 2, ["0-2", "1-4", "1-6"]),  # the epochs that are complete
        ({"every_steps": 4, "keep": 1}, 3, ["2-8"]),
    ],
)
def test_when_it_is_written_and_what_stays(tmp_path: Path, arguments: dict[str, Any], epochs: int, wanted: list[str]) -> None:
    checkpoint = Checkpoint(tmp_path / "{epoch}-{step}.safetensors", **arguments)
    trainer().fit(X, Y, epochs=epochs, callbacks=[checkpoint])
    assert names(tmp_path) == sorted(f"{name}.safetensors" for name in wanted)
    assert sorted(checkpoint.files) == [str(tmp_path / name) for name in names(tmp_path)]


def test_the_bits_go_on(tmp_path: Path) -> None:
    whole = trainer()
    whole.fit(X, Y, epochs=6)
    for i, (arguments, steps) in enumerate([({"every": 4}, 12), ({"every_steps": 7}, 14), ({"every_steps": STEPS}, 15)]):
        path = tmp_path / str(i) / "run.safetensors"
        trainer().fit(X, Y, epochs=5, callbacks=[Checkpoint(path, **arguments)])
        resumed = ts.Trainer.load(Checkpoint.latest(path.parent) or "")
        assert resumed.steps == steps
        resumed.fit(X, Y, until_epoch=6)
        assert bits(resumed.model) == bits(whole.model)
        assert resumed.history.history["loss"] == whole.history.history["loss"]


def test_names_hold_values_and_directories_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a{{b}}" / "{epoch:03d}" / "{step}-{val_loss:.4f}-{accuracy:.1%}.safetensors"
    checkpoint = Checkpoint(str(path), keep=None)
    history = trainer().fit(X, Y, epochs=2, validation_data=(X[:9], Y[:9]), callbacks=[checkpoint]).history
    wanted = [
        f"a{{b}}/{epoch:03d}/{epoch * STEPS}-{history['val_loss'][epoch - 1]:.4f}-{history['accuracy'][epoch - 1]:.1%}.safetensors"
        for epoch in (1, 2)
    ]
    assert names(tmp_path) == wanted
    assert Checkpoint.latest(path) == str(tmp_path / wanted[1])


def test_a_name_that_comes_again_is_one_file(tmp_path: Path) -> None:
    class Same(Callback):
        pass

    checkpoint = Checkpoint(tmp_path / "run.safetensors", keep=2)
    trainer().fit(X, Y, epochs=3, callbacks=[Same(), checkpoint])
    assert checkpoint.files == [str(tmp_path / "run.safetensors")]
    assert ts.Trainer.load(checkpoint.files[0]).epoch == 3


def test_only_what_it_wrote_is_deleted(tmp_path: Path) -> None:
    other = tmp_path / "0.safetensors"  # a name that this path could give
    trainer().save(other)
    checkpoint = Checkpoint(tmp_path / "{epoch}.safetensors", keep=1)
    gone = LambdaCallback(on_epoch_begin=lambda epoch: (tmp_path / "2.safetensors").unlink() if epoch == 3 else None)
    trainer().fit(X, Y, epochs=4, callbacks=[checkpoint, gone])  # that somebody else has deleted one does no harm
    assert names(tmp_path) == ["0.safetensors", "4.safetensors"]


class Tell(Callback):
    """Gives the epochs a value of one's own, in place of what was measured."""

    def __init__(self, checkpoint: Checkpoint, name: str, told: list[float]) -> None:
        self.checkpoint, self.name, self.told = checkpoint, name, told

    def on_train_begin(self) -> None:
        self.checkpoint.trainer = self.trainer
        self.checkpoint.on_train_begin()

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        self.checkpoint.on_epoch_end(epoch, {"loss": 0.0, self.name: self.told[epoch - 1]})


@pytest.mark.parametrize(
    ("name", "arguments", "told", "wanted"),
    [
        ("val_loss", {}, [3, 4, 2, 2, 1, 5], [1, 3, 5]),
        ("loss", {}, [3, 4, 2, 2, 1, 5], [1, 3, 5]),
        ("val_loss", {"monitor": "val_loss", "mode": "max"}, [3, 4, 2, 4, 5], [1, 2, 5]),
        ("accuracy", {"monitor": "accuracy"}, [0.1, 0.5, 0.25, 0.75], [1, 2, 4]),
        ("accuracy", {"monitor": "accuracy", "mode": "min"}, [0.5, 0.1, 0.2], [1, 2]),
        ("val_loss", {}, [math.nan, 3, math.nan, 2], [2, 4]),
        ("val_loss", {"every": 2}, [0, 3, 2, 4, 1, 1], [2, 6]),
    ],
)
def test_the_best_only(tmp_path: Path, name: str, arguments: dict[str, Any], told: list[float], wanted: list[int]) -> None:
    checkpoint = Checkpoint(tmp_path / "{epoch}.safetensors", save_best_only=True, keep=None, **arguments)
    assert checkpoint.best is None
    trainer().fit(X, Y, epochs=len(told), callbacks=[Tell(checkpoint, name, told)])
    assert names(tmp_path) == [f"{epoch}.safetensors" for epoch in wanted]
    assert checkpoint.best == told[wanted[-1] - 1]


def test_the_best_of_all_fits_of_a_trainer(tmp_path: Path) -> None:
    checkpoint, one, other = Checkpoint(tmp_path / "{epoch}.safetensors", save_best_only=True, keep=None), trainer(), trainer()
    one.fit(X, Y, epochs=2, callbacks=[Tell(checkpoint, "val_loss", [3, 2])])
    one.fit(X, Y, epochs=2, callbacks=[Tell(checkpoint, "val_loss", [0, 0, 4, 1])])
    assert names(tmp_path) == ["1.safetensors", "2.safetensors", "4.safetensors"]
    other.fit(X, Y, epochs=1, callbacks=[Tell(checkpoint, "val_loss", [9])])
    assert (checkpoint.best, checkpoint.files) == (9, [str(tmp_path / "1.safetensors")])


def test_a_resumed_run_keeps_and_compares_as_the_unbroken_one(tmp_path: Path) -> None:
    def checkpoint(directory: str) -> Checkpoint:
        return Checkpoint(tmp_path / directory / "{epoch}.safetensors", keep=2, save_best_only=True, monitor="loss")

    told = [5, 4, 3, 9, 2, 9, 1]
    unbroken = checkpoint("unbroken")
    trainer().fit(X, Y, epochs=7, callbacks=[unbroken, Teller(told)])
    assert names(tmp_path / "unbroken") == ["5.safetensors", "7.safetensors"]

    first, second = checkpoint("broken"), checkpoint("broken")
    trainer().fit(X, Y, epochs=4, callbacks=[first, Teller(told)])
    assert names(tmp_path / "broken") == ["2.safetensors", "3.safetensors"]
    resumed = ts.Trainer.load(Checkpoint.latest(tmp_path / "broken") or "")
    assert resumed.epoch == 3
    resumed.fit(X, Y, until_epoch=7, callbacks=[second, Teller(told)])
    assert names(tmp_path / "broken") == ["5.safetensors", "7.safetensors"]
    assert second.best == unbroken.best == 1


class Teller(Callback):
    """Puts a value of one's own before what a checkpoint compares."""

    def __init__(self, told: list[float]) -> None:
        self.told = told

    def on_train_begin(self) -> None:
        (checkpoint,) = (c for c in self.trainer._runs[-1].callbacks if isinstance(c, Checkpoint))
        whole = type(checkpoint).on_epoch_end
        checkpoint.on_epoch_end = lambda epoch, values: whole(checkpoint, epoch, {"loss": self.told[epoch - 1]})  # type: ignore[method-assign]


def test_a_write_that_fails_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, run = Checkpoint(tmp_path / "{epoch}.safetensors", keep=1), trainer()
    run.fit(X, Y, epochs=1, callbacks=[checkpoint])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            run.fit(X, Y, epochs=1, callbacks=[checkpoint])
    assert names(tmp_path) == ["1.safetensors"]
    assert checkpoint.files == [str(tmp_path / "1.safetensors")]
    run.fit(X, Y, epochs=1, callbacks=[checkpoint])
    assert names(tmp_path) == ["3.safetensors"]


def test_a_run_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    code = f"""
import os, signal
import numpy as np
import trainstep as ts
from trainstep import _files
model = ts.nn.Sequential(ts.nn.Dense(6, 3, init="zeros"))
real = os.replace
def replace(partial, path):
    if path.endswith("3.safetensors"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(partial, path)
os.replace = replace
path = {str(tmp_path / "{epoch}.safetensors")!r}
ts.Trainer(model).fit(np.ones((8, 6)), np.arange(8) % 3, epochs=5, callbacks=[ts.callbacks.Checkpoint(path, keep=2)])
"""
    assert run_python(code).returncode == -9
    newest = Checkpoint.latest(tmp_path)
    assert newest == Checkpoint.latest(tmp_path / "{epoch}.safetensors") == str(tmp_path / "2.safetensors")
    resumed = ts.Trainer.load(newest)
    checkpoint = Checkpoint(tmp_path / "{epoch}.safetensors", keep=2)
    resumed.fit(np.ones((8, 6)), np.arange(8) % 3, until_epoch=5, callbacks=[checkpoint])
    assert names(tmp_path) == ["4.safetensors", "5.safetensors"]  # and nothing that the killed one had begun


def test_what_is_saved_has_the_other_callbacks_at_this_epoch(tmp_path: Path) -> None:
    class Counts(Callback):
        count = 0

        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    path, counts = tmp_path / "run.safetensors", Counts()
    trainer().fit(X, Y, epochs=2, callbacks=[Checkpoint(path), Counts()])
    ts.Trainer.load(path).fit(X, Y, epochs=1, callbacks=[counts])
    assert counts.count == 3


def test_without_every_steps_a_step_costs_nothing() -> None:
    class Run:
        callbacks = [Checkpoint("run.safetensors"), Callback(), LambdaCallback(on_epoch_end=print)]
        stopped = False

    hooks = ts.trainer._Run.hooks
    run: Any = Run()
    assert hooks(run, trainer()).after is None
    run.callbacks = [Checkpoint("run.safetensors", every_steps=1)]
    assert hooks(run, trainer()).after is not None
    assert hooks(run, trainer()).before is None


# --- latest ----------------------------------------------------------------------------------------------------------------------


def test_latest_is_the_newest_whole_one(tmp_path: Path) -> None:
    template = tmp_path / "{epoch}.safetensors"
    for place in (tmp_path, template, tmp_path / "nowhere", tmp_path / "nowhere" / "{epoch}"):
        assert Checkpoint.latest(place) is None
    run = trainer()
    for epoch in (9, 10, 11):
        run.save(tmp_path / f"{epoch}.safetensors")
        os.utime(tmp_path / f"{epoch}.safetensors", (1e9, 1e9))  # at the same time: by the numbers in the names
    assert Checkpoint.latest(template) == Checkpoint.latest(tmp_path) == str(tmp_path / "11.safetensors")
    os.utime(tmp_path / "9.safetensors", (2e9, 2e9))
    assert Checkpoint.latest(template) == str(tmp_path / "9.safetensors")

    whole = (tmp_path / "9.safetensors").read_bytes()
    for broken in (whole[:-1], whole[:20], b"", whole + b"\0"):
        (tmp_path / "9.safetensors").write_bytes(broken)
        assert Checkpoint.latest(tmp_path) == str(tmp_path / "11.safetensors")
    run.model.save(tmp_path / "9.safetensors")  # a network is no run
    assert Checkpoint.latest(tmp_path) == str(tmp_path / "11.safetensors")
    (tmp_path / "12.safetensors").mkdir()
    assert Checkpoint.latest(tmp_path) == str(tmp_path / "11.safetensors")

    run.save(tmp_path / "other.txt")
    run.save(tmp_path / "x11.safetensors")
    assert Checkpoint.latest(template) in {str(tmp_path / f"{n}.safetensors") for n in ("11", "x11")}
    assert Checkpoint.latest(tmp_path / "other.txt") == str(tmp_path / "other.txt")
    assert Checkpoint.latest(tmp_path / "run-{epoch}.txt") is None


# --- states and arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "runs/../1.safetensors",
        "runs/..",
        "runs/a/b.safetensors",
        "runs/1.safetensors.bak",
        "x/runs/1.safetensors",
        "",
    ],
)
def test_a_state_names_no_file_but_its_own(file: str) -> None:
    checkpoint = Checkpoint("runs/{epoch}.safetensors", keep=1)
    checkpoint.load_state_dict({"best": None, "files": ["runs/1.safetensors", file]})
    assert checkpoint.files == ["runs/1.safetensors"]
    above = Checkpoint("runs/{epoch}/model.safetensors", keep=1)
    above.load_state_dict({"best": None, "files": ["runs/../model.safetensors"]})
    assert above.files == []


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"best": None}, ValueError, "Checkpoint.load_state_dict: state has 'best', expected 'best', 'files'"),
        ({"best": "x", "files": []}, TypeError, "Checkpoint.load_state_dict: best is a str, expected a number"),
        ({"best": None, "files": [3]}, TypeError, "Checkpoint.load_state_dict: files is no list of str"),
        ([], TypeError, "Checkpoint.load_state_dict: state is a list, expected a dict"),
    ],
)
def test_a_state_that_is_none(state: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Checkpoint("run").load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": 3}, TypeError, "Checkpoint: path is a int, expected a str or a path"),
        ({"path": ""}, ValueError, "Checkpoint: path is empty"),
        ({"path": "{epoch"}, ValueError, "Checkpoint: path is '{epoch', expected a name with fields"),
        ({"path": "{}"}, ValueError, "the field '', which is no name"),
        ({"path": "{epoch.real}"}, ValueError, "the field 'epoch.real', which is no name"),
        ({"path": "{epoch!r}"}, ValueError, "a field with a conversion"),
        ({"path": "{epoch:.4f}{loss:d}"}, ValueError, "Unknown format code 'd'"),
        ({"every": 0}, ValueError, "Checkpoint: every is 0, expected at least 1"),
        ({"keep": 0}, ValueError, "Checkpoint: keep is 0, expected at least 1"),
        ({"keep": 1.5}, TypeError, "Checkpoint: keep is a float, expected an int"),
        ({"every_steps": 0}, ValueError, "Checkpoint: every_steps is 0, expected at least 1"),
        ({"every_steps": 5, "every": 2}, ValueError, "Checkpoint: every is 2, expected 1 where every_steps is given"),
        ({"monitor": "loss"}, ValueError, "Checkpoint: monitor is 'loss', expected None where save_best_only is False"),
        ({"monitor": 3, "save_best_only": True}, TypeError, "Checkpoint: monitor is a int, expected a str"),
        ({"mode": "up", "save_best_only": True}, ValueError, "Checkpoint: mode is 'up', expected 'auto'"),
        ({"save_best_only": 1}, TypeError, "Checkpoint: save_best_only is a int, expected a bool"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Checkpoint(**{"path": "run.safetensors", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"path": "{val_loss}.safetensors"},
            "Checkpoint: a field of path is 'val_loss', expected one of the values there are: loss",
        ),
        ({"path": "{accuracy}", "every_steps": 1}, "Checkpoint: a field of path is 'accuracy', expected one of the .*: loss$"),
        ({"monitor": "f1", "save_best_only": True}, "Checkpoint: monitor is 'f1', expected one of the values there are: loss, acc"),
    ],
)
def test_values_that_are_not_there(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = tmp_path / arguments.pop("path", "run.safetensors")
    with pytest.raises(ValueError, match=message):
        trainer().fit(X, Y, callbacks=[Checkpoint(path, **arguments)])
    assert names(tmp_path) == []


def test_latest_refuses_what_is_no_path() -> None:
    with pytest.raises(TypeError, match="Checkpoint.latest: path is a int"):
        Checkpoint.latest(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Checkpoint.latest: path is '{', expected a name with fields"):
        Checkpoint.latest("{")


def test_the_file_holds_the_state_of_its_own_writing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "{epoch}.safetensors", keep=2)
    trainer().fit(X, Y, epochs=3, callbacks=[checkpoint])
    seen = Checkpoint(tmp_path / "{epoch}.safetensors", keep=9)
    resumed = ts.Trainer.load(tmp_path / "3.safetensors")
    weights = {name: view.copy() for name, view in resumed.model.parameters().items()}
    look = LambdaCallback(on_train_begin=lambda: None)
    resumed.fit(X, Y, until_epoch=3, callbacks=[seen, look])
    # The first had yet to go when the third was written.
    assert seen.files == [str(tmp_path / f"{epoch}.safetensors") for epoch in (1, 2, 3)]
    for name, view in resumed.model.parameters().items():
        assert_same_bits(view, weights[name], name)
