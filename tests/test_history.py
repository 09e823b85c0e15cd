"""The record of a training run and its picture."""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from trainstep import History

pytestmark = pytest.mark.one_level


def example(epochs: int = 5, *, accuracy: bool = True) -> History:
    history = History()
    for epoch in range(1, epochs + 1):
        values = {"loss": 2.0 / epoch, "val_loss": 2.1 / epoch, "lr": 1e-3, "seconds": 0.01}
        if accuracy:
            values |= {"accuracy": 1 - 0.5 / epoch, "val_accuracy": 1 - 0.6 / epoch}
        history.append(epoch, **values)
    return history


def test_append() -> None:
    history = example(3)
    assert history.epoch == [1, 2, 3]
    assert history.history["loss"] == [2.0, 1.0, 2.0 / 3]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}


def test_lists_stay_as_long_as_epoch() -> None:
    history = History()
    history.append(1, loss=1.0)
    history.append(2, loss=0.5, val_loss=0.75)
    history.append(3, val_loss=0.5)
    assert [math.isnan(v) for v in history.history["loss"]] == [False, False, True]
    assert [math.isnan(v) for v in history.history["val_loss"]] == [True, False, False]


def test_values_become_plain_numbers() -> None:
    history = History()
    history.append(np.int64(1), loss=np.float32(0.5))  # type: ignore[arg-type]
    assert type(history.epoch[0]) is int
    assert type(history.history["loss"][0]) is float


def test_repr_is_short() -> None:
    assert repr(History()) == "History(epochs=0)"
    assert repr(example(1)) == "History(epochs=1, loss=2, val_loss=2.1, accuracy=0.5, val_accuracy=0.4)"


@pytest.mark.parametrize("epochs", [1, 5, 40])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot_writes_a_picture(tmp_path: Path, epochs: int, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"curves{suffix}"
    example(epochs).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert "matplotlib.pyplot" not in sys.modules  # it would choose a window system for the whole process


def test_plot_has_a_panel_for_each_measure(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    widths = []
    for name, history in {"one": example(accuracy=False), "two": example()}.items():
        path = tmp_path / f"{name}.png"
        history.plot(str(path))
        widths.append(image.imread(path).shape[1])
    assert widths[1] == 2 * widths[0]


def test_plot_of_a_run_that_diverged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = History()
    for epoch, loss in enumerate([2.0, math.inf, math.nan], start=1):
        history.append(epoch, loss=loss)
    history.plot(tmp_path / "diverged.png")


def test_plot_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"History.plot: there is nothing to draw, no epoch was recorded"):
        History().plot(tmp_path / "empty.png")
    history = History()
    history.append(1, lr=0.1)
    with pytest.raises(ValueError, match="neither loss nor accuracy was recorded"):
        history.plot(tmp_path / "empty.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install trainstep\[plot\]"):
        example().plot(tmp_path / "never.png")


@pytest.mark.parametrize(("rates", "height"), [([0.1] * 6, 1.0), ([0.1, 0.1, 0.01, 0.01, 0.001, 0.0], 1.4), ([], 1.0)])
def test_plot_has_a_panel_for_a_rate_that_changed(tmp_path: Path, rates: list[float], height: float) -> None:
    image = pytest.importorskip("matplotlib.image")
    history = History()
    for epoch in range(1, 7):
        history.append(epoch, loss=1 / epoch, **({"lr": rates[epoch - 1]} if rates else {}))
    history.plot(tmp_path / "curves.png")
    history.plot(tmp_path / "curves.svg")
    example(6, accuracy=False).plot(tmp_path / "plain.png")
    heights = [image.imread(tmp_path / f"{name}.png").shape[0] for name in ("curves", "plain")]
    assert heights[0] == pytest.approx(height * heights[1], rel=0.03)
    assert ("<!-- Learning rate -->" in (tmp_path / "curves.svg").read_text()) == (height > 1)


# --- files -----------------------------------------------------------------------------------------------------------------------

ODD = [0.1, 1e-300, 2.0**-1074, math.pi, math.nan, math.inf, -math.inf, -0.0]


def odd() -> History:
    history = History()
    for epoch, value in enumerate(ODD, start=3):
        history.append(epoch, **({"loss": value} if epoch % 2 else {"loss": value, "f1": -value}))
    return history


def same(one: History, other: History) -> bool:
    return repr((one.epoch, one.history)) == repr((other.epoch, other.history))  # in which NaN is NaN, and -0.0 is not 0.0


def test_as_json_and_back() -> None:
    for history in (History(), example(), odd()):
        text = json.dumps(history.to_dict(), allow_nan=False)
        again = History.from_dict(json.loads(text))
        assert same(again, history)
        again.append(99, loss=1.0)
        assert len(history.epoch) == len(json.loads(text)["epoch"])  # of its own


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ([], ValueError, "History.from_dict: record is no dict of 'epoch' and 'history'"),
        ({"epoch": []}, ValueError, "is no dict of 'epoch' and 'history'"),
        ({"epoch": 3, "history": []}, TypeError, "holds a int and a list, expected a list and a dict"),
        ({"epoch": [1.5], "history": {}}, TypeError, r"record\['epoch'\] is a float, expected an int"),
        ({"epoch": [1, 2], "history": {"loss": [1.0]}}, ValueError, r"\['history'\]\['loss'\] is no list of 2 numbers"),
        ({"epoch": [1], "history": {"loss": ["low"]}}, ValueError, r"\['loss'\] holds what is no number: could not convert"),
        ({"epoch": [1], "history": {"loss": [None]}}, ValueError, "holds what is no number"),
        ({"epoch": [1], "history": {"loss": [10**400]}}, ValueError, "holds what is no number"),
    ],
)
def test_a_record_that_is_none(record: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        History.from_dict(record)  # type: ignore[arg-type]


def test_to_csv(tmp_path: Path) -> None:
    history, path = odd(), tmp_path / "history.csv"
    path.write_text("what was here")
    history.to_csv(path)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "loss", "f1"]
    again = History()
    for row in rows:
        again.append(int(row[0]), **{name: float(cell) for name, cell in zip(header[1:], row[1:], strict=True)})
    assert same(again, history)
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.csv"]
    with pytest.raises(TypeError, match="to_csv: path is a int"):
        history.to_csv(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        history.to_csv(tmp_path / "nowhere" / "history.csv")
