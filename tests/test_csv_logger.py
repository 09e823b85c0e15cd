"""CSVLogger: what the file holds after each epoch, and after runs that were cut off."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

import trainstep as ts
from trainstep.callbacks import Callback, CSVLogger, LambdaCallback

from .helpers import classes, network

pytestmark = pytest.mark.one_level

X, Y = classes(96, 6, 3)


def trainer() -> ts.Trainer:
    return ts.Trainer(network((6, 8, 3), dtype="float32"))


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def told(logger: CSVLogger, epochs: list[dict[str, float]], run: ts.Trainer | None = None) -> None:
    """Log made-up values."""

    class Tell(Callback):
        def on_train_begin(self) -> None:
            logger.trainer = self.trainer
            logger.on_train_begin()

        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            logger.on_epoch_end(epoch, epochs.pop(0))

        def on_train_end(self) -> None:
            logger.on_train_end()

    (run or trainer()).fit(X, Y, epochs=len(epochs), callbacks=[Tell()])


def test_a_row_an_epoch_with_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.csv"
    history = trainer().fit(X, Y, epochs=4, validation_data=(X, Y), callbacks=[CSVLogger(path)])
    header, *table = rows(path)
    assert header == ["epoch", *history.history]
    assert [int(row[0]) for row in table] == history.epoch
    for i, name in enumerate(history.history, start=1):
        assert [float(row[i]) for row in table] == history.history[name]
    assert b"\r" not in path.read_bytes()


def test_rows_are_there_as_they_come(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.csv", []
    look = LambdaCallback(on_epoch_begin=lambda epoch: seen.append(len(rows(path))))
    trainer().fit(X, Y, epochs=3, callbacks=[look, CSVLogger(path)])
    assert seen == [0, 2, 3]


def test_an_exception_leaves_a_whole_file(tmp_path: Path) -> None:
    def fail(epoch: int, values: dict[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    path = tmp_path / "log.csv"
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(X, Y, epochs=3, callbacks=[CSVLogger(path), LambdaCallback(on_epoch_end=fail)])
    assert [row[0] for row in rows(path)] == ["epoch", "1", "2"]


def test_values_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    told(CSVLogger(path), [{"loss": 1.5}, {"loss": 1.25, "f1": 0.5}, {"f1": math.inf}, {"loss": math.nan, "f1": 1e-300}])
    wanted = [["epoch", "loss", "f1"], ["1", "1.5", "nan"], ["2", "1.25", "0.5"], ["3", "nan", "inf"], ["4", "nan", "1e-300"]]
    assert rows(path) == wanted
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("append", [False, True])
def test_another_fit(tmp_path: Path, append: bool) -> None:
    path = tmp_path / "log.csv"
    path.write_text("what was here\n" if not append else "")
    logger, run = CSVLogger(path, append=append), trainer()
    run.fit(X, Y, epochs=2, callbacks=[logger])
    run.fit(X, Y, epochs=2, callbacks=[logger])
    assert [row[0] for row in rows(path)] == ["epoch"] + ["1", "2"] * append + ["3", "4"]


@pytest.mark.parametrize("rest", ["", "5,0.2", "5,0.25,0.", "5", "5,0.25,0.5,"])
def test_a_resumed_run_goes_on(tmp_path: Path, rest: str) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    values = [{"loss": 1 / epoch, "lr": 0.5} for epoch in range(1, 7)]
    told(CSVLogger(whole), list(values))
    first = trainer()
    told(CSVLogger(cut), values[:2], first)
    first.save(tmp_path / "run.safetensors")
    told(CSVLogger(cut, append=True), values[2:4], first)
    with cut.open("a") as file:
        file.write(rest)  # killed in the middle of a row
    told(CSVLogger(cut, append=True), values[2:], ts.Trainer.load(tmp_path / "run.safetensors"))
    assert cut.read_bytes() == whole.read_bytes()


def test_appending_to_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch,lr,loss\n1,0.5,2.5\n2,0.5,2.25\n")
    run = trainer()
    run.fit(X, Y, epochs=1)
    told(CSVLogger(path, append=True), [{"loss": 2.0, "accuracy": 0.75}], run)
    assert rows(path) == [["epoch", "lr", "loss", "accuracy"], ["1", "0.5", "2.5", "nan"], ["2", "nan", "2.0", "0.75"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss,lr\n1,2\n", r"CSVLogger: the first column of .*log.csv is \['loss'\], expected 'epoch'"),
        ("epoch,loss\n1,2,3\n", r"CSVLogger: row 2 of .*log.csv is \['1', '2', '3'\], expected an epoch and 1 values"),
        ("epoch,loss\n1,2\none,2\n", r"CSVLogger: row 3 of .*log.csv is \['one', '2'\]"),
        ("epoch,loss\n\n1,2\n", r"CSVLogger: row 2 of .*log.csv is \[\]"),
    ],
)
def test_a_file_that_is_no_log_stays_as_it_is(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    run = trainer()
    with pytest.raises(ValueError, match=message):
        run.fit(X, Y, callbacks=[CSVLogger(path, append=True)])
    assert path.read_text() == text
    assert run.epoch == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": 3}, TypeError, "CSVLogger: path is a int, expected a str or a path"),
        ({"path": "a.csv", "append": 1}, TypeError, "CSVLogger: append is a int, expected a bool"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CSVLogger(**arguments)
