"""The recipe on the command line: what it prints and writes, and everything that can be wrong with the call."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.cli import main

from .helpers import Array

pytestmark = pytest.mark.one_level

Capture = pytest.CaptureFixture[str]
HOSTILE = "<script>alert('a, b')</script>"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_csv(name: str, columns: dict[str, Array]) -> None:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))


def flowers(rows: int = 120) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, rows)
    columns = {"length": kind * 2.0 + rng.normal(0, 0.4, rows), "width": rng.normal(5, 1, rows)}
    return columns | {"row": np.arange(rows), HOSTILE: np.array(["rose", "tulip", "<b>iris</b>"])[kind]}


def prices(rows: int = 120) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    area = rng.uniform(30, 200, rows)
    return {"area": area, "seconds": 1.7e9 + rng.integers(0, 100, rows), "price": 2e5 + 3e3 * area + rng.normal(0, 1e3, rows)}


def test_a_table_gives_words_json_and_a_report(capsys: Capture) -> None:
    write_csv("f.csv", flowers())
    arguments = ["f.csv", "--target", HOSTILE, "--ignore", "row", "--hidden", "16,8", "--epochs", "6", "--seed", "2"]
    assert main(["recipe", *arguments, "--json", "r.json", "--report", "r.html"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0] == f'f.csv: classification of "{HOSTILE}", 3 classes, 2 columns, 120 rows'
    assert [line[0] for line in lines[1:6]] == list("12345")
    data = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert data["command"] == "recipe"
    assert data["initial_loss"]["rule"] == "ln 3"
    assert data["settings"]["hidden"] == [16, 8]
    assert data["settings"]["seed"] == 2
    assert len(data["curves"]["loss"]) == 6
    assert data["files"] == {"report": "r.html"}
    assert data["call"] in captured.out
    page = Path("r.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert lines[-1] == "report  r.html"

    # The Python that is printed runs as it stands, and gives the curves of the report.
    space: dict[str, Any] = {}
    exec(data["call"], space)
    epochs = data["settings"]["epochs"]
    assert space["history"].history["loss"] == data["curves"]["loss"][:epochs]
    assert space["history"].history["val_loss"] == data["curves"]["val_loss"][:epochs]


@pytest.mark.parametrize("optimizer", ["adamw", "rprop"])
def test_the_command_that_it_ends_with_runs(capsys: Capture, optimizer: str) -> None:
    write_csv("f.csv", flowers())
    assert (
        main(["recipe", "f.csv", "--target", HOSTILE, "--hidden", "8", "--epochs", "2", "--optimizer", optimizer, "--json", "-"])
        == 0
    )
    captured = capsys.readouterr()
    data = json.loads(captured.out)  # and nothing else on stdout
    words = shlex.split(data["train"])
    assert words[:3] == ["trainstep", "train", "f.csv"]
    assert ("--weight-decay" in words) == (optimizer == "adamw")
    assert main([*words[1:], "--json", "t.json", "--plot", "c.png"]) == 0
    used = json.loads(Path("t.json").read_text(encoding="utf-8"))["settings"]
    assert used["lr"] == data["settings"]["lr"]
    assert used["batch_size"] == data["settings"]["batch_size"]


def test_a_regression_in_float64_where_the_table_needs_it(capsys: Capture) -> None:
    write_csv("h.csv", prices())
    assert main(["recipe", "h.csv", "--target", "price", "--hidden", "16", "--epochs", "3", "--json", "r.json"]) == 0
    out = capsys.readouterr().out
    assert 'h.csv: regression of "price", 2 columns, 120 rows' in out
    data = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert data["settings"]["dtype"] == "float64"
    assert data["initial_loss"]["rule"] == "the variance of the target"
    space: dict[str, Any] = {}
    exec(data["call"], space)
    epochs = data["settings"]["epochs"]
    assert space["history"].history["loss"] == data["curves"]["loss"][:epochs]
    # As the call's last line says.
    y = space["model"].predict(space["x"]) * space["spread"] + space["center"]
    assert y.mean() == pytest.approx(prices()["price"].mean(), rel=0.5)


def test_digits_without_a_file(capsys: Capture) -> None:
    assert main(["recipe", "digits", "--hidden", "16", "--epochs", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert re.search(r"^1 initial loss +yes +2\.\d+, expected ln 10 = 2\.303", captured.out, re.MULTILINE)
    assert "x, y = ts.data.load_digits()" in captured.out


def test_bars_are_for_terminals(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments = ["recipe", "digits", "--hidden", "8", "--epochs", "1"]
    assert main(arguments) == 0
    assert "4/5 grid" in capsys.readouterr().err
    assert main([*arguments, "--no-progress"]) == 0
    assert capsys.readouterr().err == ""


def test_interrupt(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ts.Trainer, "fit", interrupted)
    assert main(["recipe", "digits"]) == 130
    assert capsys.readouterr().err == "trainstep: interrupted\n"


def test_failure_at_run_time(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ts.recipe.Recipe, "report", fail)
    assert main(["recipe", "digits", "--hidden", "8", "--epochs", "1", "--report", "r.html"]) == 1
    assert capsys.readouterr() == ("", "trainstep: error: disk full\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "FILE"),
        (["f.csv"], "--target NAME is needed: the column of f.csv that is to be predicted"),
        (["f.csv", "--target", "kind"], 'f.csv: there is no column "kind"'),
        (["f.csv", "--target", "length"], 'f.csv: row 1, column "<script>'),
        (["f.csv", "--target", "length", "--task", "guess"], "--task: invalid choice: 'guess'"),
        (["f.csv", "--target", "length", "--ignore", "x"], 'there is no column "x"'),
        (["few.csv", "--target", "b"], "few.csv: 9 rows, at least 10 are needed"),
        (["single.csv", "--target", "b"], 'single.csv: class 5 of column "b" has one row, at least 2'),
        (["many.csv", "--target", "b"], "many.csv: run: the part to validate on cannot be taken: "),
        (["absent.csv", "--target", "b"], "No such file or directory: 'absent.csv'"),
        (["f.xlsx", "--target", "b"], "f.xlsx ends in none of .csv, .npz, .parquet"),
        (["digits", "--target", "b"], "--target is for tables, not for digits"),
        (["digits", "--ignore", "b"], "--ignore is for tables, not for digits"),
        (["digits", "--hidden", "8,x"], "--hidden: '8,x' is not a list of widths such as 128,64"),
        (["digits", "--epochs", "0"], "--epochs: '0' is not a whole number of 1 or more"),
        (["digits", "--seed=-1"], "--seed: '-1' is not a whole number of 0 or more"),
        (["digits", "--optimizer", "foo"], "--optimizer: unknown name 'foo', choose from .*adam"),
        (["digits", "--json", "none/r.json"], "--json: there is no directory none"),
        (["digits", "--report", "."], "--report: . is a directory"),
        (["digits", "--json", "r", "--report", "./r"], "--report: r is where --json writes"),
        (["f.csv", "--target", "length", "--report", "f.csv"], "--report: f.csv is a file that is read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    write_csv("f.csv", flowers(40))
    write_csv("few.csv", {"a": np.arange(9.0), "b": np.arange(9) % 2})
    write_csv("single.csv", {"a": np.arange(20.0), "b": np.where(np.arange(20) == 3, 5, np.arange(20) % 2)})
    write_csv("many.csv", {"a": np.arange(20.0), "b": np.arange(20) // 2})
    before = {path.name: path.read_bytes() for path in Path().iterdir()}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("wrong usage must be found before training")

    for name in ("fit", "step"):
        monkeypatch.setattr(ts.Trainer, name, never)
    assert main(["recipe", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"trainstep: error: .*{re.escape(message).replace(re.escape('.*'), '.*')}.*\n", captured.err)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before
