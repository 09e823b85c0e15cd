"""Tables on the command line: train on one, save, predict; and everything that can be wrong with them."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trainstep as ts
from trainstep.cli import main

from .helpers import Array

pytestmark = pytest.mark.one_level

Capture = pytest.CaptureFixture[str]
QUICK = ["--hidden", "16", "--no-progress", "--plot", "c.png"]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_csv(name: str, **columns: Array) -> None:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))


def read_csv(text: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(text.splitlines())
    return header, rows


def penguins(n: int = 200) -> dict[str, Array]:
    """Three kinds that differ in columns of very different size, offset and importance."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    bill = np.array([39.0, 47.5, 48.8])[kind] + rng.normal(0, 1, n)
    ratio = (np.array([2.1, 3.2, 2.65])[kind] + rng.normal(0, 0.1, n)) * 1e-4
    year = 1e5 + rng.integers(0, 3, n)
    species = np.array(["Adelie", "Gentoo, or Johnny", "Chinstrap"])[kind]
    return {"bill": bill, "ratio": ratio, "year": year, "constant": np.full(n, 7.5), "species": species}


def prices(n: int = 300) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    area, rooms = rng.uniform(30, 200, n), rng.integers(1, 7, n)
    return {"area": area, "rooms": rooms, "price": 2e5 + 3e3 * area + 1e4 * rooms + rng.normal(0, 1e3, n)}


def train(capsys: Capture, *arguments: str) -> str:
    assert main(["train", *arguments, *QUICK]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys: Capture, *arguments: str) -> str:
    """What stderr says, in one line, of a call that is wrong usage."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trainstep: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def measured(out: str, what: str) -> float:
    found = re.search(rf"^{re.escape(what)} +(\S+)", out, re.MULTILINE)
    assert found, out
    return float(found[1])


def test_classification_from_csv_to_predictions(capsys: Capture) -> None:
    columns = penguins()
    write_csv("p.csv", **columns)
    out = train(capsys, "p.csv", "--target", "species", "--save", "p.safetensors")
    assert 'p.csv: classification of "species", 3 classes, 4 columns; 160 training rows, 40 held-out test rows' in out
    assert "network 4-16-3, 131 parameters; Adam" in out
    assert measured(out, "test accuracy") >= 0.95

    model = ts.nn.load("p.safetensors")
    assert model.layers[0] == ts.nn.Standardize(4)
    classes = ["Adelie", "Chinstrap", "Gentoo, or Johnny"]
    names = ["bill", "ratio", "year", "constant"]
    assert model.metadata == {"task": "classification", "target": "species", "columns": names, "classes": classes}

    # Columns in another order, without the target, with one that is not the model's.
    x = np.stack([columns[name] for name in names], axis=1)
    write_csv("new.csv", note=np.array(["text", ""] * 100), **{name: columns[name] for name in reversed(names)})
    assert main(["predict", "p.safetensors", "new.csv", "--probabilities"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    header, rows = read_csv(captured.out)
    assert header == ["species", *(f"P({c})" for c in classes)]
    logits = model(x).astype(np.float64)
    assert [row[0] for row in rows] == [classes[i] for i in logits.argmax(axis=1)]
    assert np.mean(columns["species"] == np.array([row[0] for row in rows])) >= 0.95
    probabilities = np.array([row[1:] for row in rows], float)
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, exact, rtol=1e-6, atol=1e-12)

    assert main(["predict", "p.safetensors", "p.csv", "--output", "out.csv"]) == 0
    assert capsys.readouterr().out == ""
    header, again = read_csv(Path("out.csv").read_text(encoding="utf-8"))
    assert header == ["species"]
    assert [row[0] for row in again] == [row[0] for row in rows]


def line_model() -> None:
    """A model of classes 3 and 7, that gives 7 where x is above 0."""
    model = ts.nn.Sequential(ts.nn.Dense(1, 2, init="zeros"))
    model.parameters()["0.weight"][:] = [[0.0, 2.0]]
    model.metadata.update(task="classification", target="n", columns=["x"], classes=[3, 7])
    model.save("model")


def test_predictions_as_json(capsys: Capture) -> None:
    line_model()
    write_csv("t.csv", x=np.array([1.0, -1.0, 0.5]))
    assert main(["predict", "model", "t.csv", "--json", "-", "--probabilities"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {k: result[k] for k in ("command", "version", "model", "file", "output", "task", "target", "rows", "predictions")} == {
        "command": "predict", "version": ts.__version__, "model": "model", "file": "t.csv", "output": None,
        "task": "classification", "target": "n", "rows": 3, "predictions": [7, 3, 7],
    }  # fmt: skip
    shares = 1 / (1 + np.exp(-2 * np.array([1.0, -1.0, 0.5])))
    np.testing.assert_allclose(result["probabilities"]["7"], shares, rtol=1e-6)
    np.testing.assert_allclose(result["probabilities"]["3"], 1 - shares, rtol=1e-6)
    assert main(["predict", "model", "t.csv", "--json", "p.json", "--output", "p.csv"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("p.json").read_text())["predictions"] == [7, 3, 7]
    assert Path("p.csv").read_text() == "n\n7\n3\n7\n"
    assert main(["predict", "model", "t.csv", "--json", "p.json"]) == 0
    assert capsys.readouterr().out == "n\n7\n3\n7\n"


def test_predictions_go_on_over_blocks_of_rows(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    line_model()
    x = np.random.default_rng(0).standard_normal(40_000)
    write_csv("t.csv", x=x)
    monkeypatch.setattr("trainstep._progress._PATIENCE", 0.0)
    for terminal, options, shown in ((False, [], False), (True, ["--no-progress"], False), (True, [], True)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        assert main(["predict", "model", "t.csv", *options]) == 0
        captured = capsys.readouterr()
        assert captured.out.split() == ["n", *np.where(x > 0, "7", "3").tolist()]
        for what in ("t.csv", "predicting", "writing"):
            assert (re.search(rf"{what}: +100%", captured.err) is not None) == shown


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_regression_from_file_to_predictions(capsys: Capture, kind: str) -> None:
    columns = prices()
    if kind == "csv":
        write_csv("h.csv", **columns)
    else:
        np.savez("h.npz", **columns)
    out = train(capsys, f"h.{kind}", "--target", "price", "--epochs", "60", "--save", "h.safetensors")
    assert f'h.{kind}: regression of "price", 2 columns; 240 training rows, 60 held-out test rows' in out
    assert measured(out, "test R^2") > 0.98
    model = ts.nn.load("h.safetensors")
    assert model.metadata == {"task": "regression", "target": "price", "columns": ["area", "rooms"]}

    # The network gives the target in its own unit; RMSE and R^2 are of the test part.
    x, y = np.stack([columns["area"], columns["rooms"]], axis=1), columns["price"]
    _, x_test, _, y_test = ts.data.train_test_split(x, y, stratify=False, seed=0)
    errors = model(x_test)[:, 0].astype(np.float64) - y_test
    assert measured(out, "test RMSE") == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert measured(out, "test R^2") == pytest.approx(1 - np.mean(errors**2) / y_test.var(), abs=1e-4)

    assert main(["predict", "h.safetensors", f"h.{kind}"]) == 0
    header, rows = read_csv(capsys.readouterr().out)
    assert header == ["price"]
    np.testing.assert_array_equal(np.array([row[0] for row in rows], "float32"), model(x)[:, 0])


def test_the_unit_of_the_target_does_not_matter(capsys: Capture) -> None:
    columns = prices()
    lines = []
    for i, unit in enumerate((2.0**-60, 1.0, 2.0**60)):
        write_csv(f"{i}.csv", **(columns | {"price": columns["price"] * unit}))
        lines.append(measured(train(capsys, f"{i}.csv", "--target", "price", "--optimizer", "sgd", "--lr", "0.01"), "test R^2"))
    assert lines[0] == lines[1] == lines[2] > 0.9


def test_the_same_seed_gives_the_same_model(capsys: Capture) -> None:
    write_csv("p.csv", **penguins())
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train(capsys, "p.csv", "--target", "species", "--seed", seed, "--save", name)
    a, b, c = ([w.tobytes() for w in ts.nn.load(name).parameters().values()] for name in "abc")
    assert a == b
    assert a != c


def test_digits_beyond_float32_are_learnt_in_float64(capsys: Capture) -> None:
    rng = np.random.default_rng(2)
    seconds = 1.7e9 + rng.integers(0, 100, 300)
    write_csv("t.csv", seconds=seconds, y=(seconds % 100 > 50).astype(int))
    out = train(capsys, "t.csv", "--target", "y", "--save", "t.safetensors")
    assert "network 1-16-2, 66 parameters in float64; Adam" in out
    assert measured(out, "test accuracy") > 0.9
    assert ts.nn.load("t.safetensors").dtype == np.float64
    assert main(["predict", "t.safetensors", "t.csv"]) == 0
    assert set(capsys.readouterr().out.split()) == {"y", "0", "1"}


def test_ignored_columns_and_the_task(capsys: Capture) -> None:
    columns = prices() | {"id": np.array([f"h{i}" for i in range(300)]), "street": np.array(["a"] * 300)}
    write_csv("h.csv", **columns)
    out = train(capsys, "h.csv", "--target", "rooms", "--ignore", "id", "--ignore", "street", "--epochs", "1")
    assert 'classification of "rooms", 6 classes, 2 columns' in out
    out = train(
        capsys, "h.csv", "--target", "rooms", "--ignore", "id", "--ignore", "street", "--epochs", "1", "--task", "regression"
    )
    assert 'regression of "rooms", 2 columns' in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "p.csv"], "--target NAME is needed: the column of p.csv that is to be predicted"),
        (
            ["train", "p.csv", "--target", "kind"],
            'p.csv: there is no column "kind", the columns are bill, ratio, year, constant, species',
        ),
        (["train", "p.csv", "--target", "bill"], 'p.csv: row 1, column "species": "'),
        (["train", "p.csv", "--target", "species", "--task", "regression"], 'p.csv: row 1, column "species": "'),
        (["train", "p.csv", "--target", "species", "--task", "guess"], "--task: invalid choice: 'guess'"),
        (["train", "p.csv", "--target", "species", "--ignore", "x"], 'there is no column "x"'),
        (["train", "p.csv", "--target", "bill", "--task", "classification", "--ignore", "species"], "has one row, at least 2"),
        (["train", "few.csv", "--target", "b"], "few.csv: 9 rows, at least 10 are needed"),
        (["train", "single.csv", "--target", "b"], 'class 5 of column "b" has one row, at least 2 .*--task regression'),
        (["train", "many.csv", "--target", "b"], "many.csv: train_test_split: the test part has 4 rows, fewer than the 10 classes"),
        (["train", "absent.csv", "--target", "b"], "No such file or directory: 'absent.csv'"),
        (["train", "p.xlsx", "--target", "b"], "unknown data set 'p.xlsx', choose from digits, .*a file that ends in .csv, .npz"),
        (["train", "p.csv", "--target", "species", "--save", "none/m"], "--save: there is no directory none"),
        (["train", "digits", "--target", "species"], "--target is for tables, not for digits"),
        (["train", "digits", "--task", "auto"], "--task is for tables, not for digits"),
        (["train", "digits", "--ignore", "x"], "--ignore is for tables, not for digits"),
        (["predict"], "MODEL, FILE"),
        (["predict", "absent", "p.csv"], "No such file or directory"),
        (["predict", "p.csv", "p.csv"], "p.csv is no whole trainstep model"),
        (["predict", "plain", "p.csv"], "plain does not say which columns it takes: it was not made by trainstep train FILE"),
        (["predict", "model", "few.csv"], 'few.csv: there is no column "area", the columns are a, b'),
        (["predict", "model", "gap.csv"], 'gap.csv: row 2, column "rooms": missing value'),
        (["predict", "model", "absent.csv"], "No such file or directory: 'absent.csv'"),
        (["predict", "model", "table.txt"], "table.txt ends in none of .csv, .npz"),
        (["predict", "model", "h.csv", "--probabilities"], "--probabilities: model predicts a number, not a class"),
        (["predict", "model", "h.csv", "--output", "none/o.csv"], "--output: there is no directory none"),
        (["predict", "model", "h.csv", "--json", "none/o"], "--json: there is no directory none"),
        (["predict", "model", "h.csv", "--json", "model"], "--json: model is a file that is read"),
        (["predict", "model", "h.csv", "--json", "o", "--output", "o"], "--json: o is where --output writes"),
        (["predict", "model", "h.csv", "--output", "./h.csv"], "--output: h.csv is a file that is read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    write_csv("p.csv", **penguins(40))
    write_csv("h.csv", **prices(40))
    write_csv("few.csv", a=np.arange(9.0), b=np.arange(9) % 2)
    write_csv("single.csv", a=np.arange(20.0), b=np.where(np.arange(20) == 3, 5, np.arange(20) % 2))
    write_csv("many.csv", a=np.arange(20.0), b=np.arange(20) // 2)
    Path("gap.csv").write_text("rooms,area\n1,2\n,3\n")
    ts.nn.Sequential(ts.nn.Dense(2, 1)).save("plain")
    model = ts.nn.Sequential(ts.nn.Dense(2, 1))
    model.metadata.update(task="regression", target="price", columns=["area", "rooms"])
    model.save("model")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("wrong usage must be found before training")

    monkeypatch.setattr(ts.Trainer, "fit", never)
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), refused(capsys, *arguments))
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_parquet_wants_pyarrow(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    line_model()
    write_csv("t.csv", x=np.array([1.0]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("t.parquet").touch()
    for arguments in (["predict", "model", "t.csv", "--output", "p.parquet"], ["train", "t.parquet", "--target", "x"]):
        assert main(arguments) == 1
        assert re.fullmatch(r"trainstep: error: .* needs pyarrow: pip install trainstep\[parquet\]\n", capsys.readouterr().err)
    assert not Path("p.parquet").exists()


def test_a_reader_that_stops_early_is_no_error() -> None:
    model = ts.nn.Sequential(ts.nn.Dense(1, 1))
    model.metadata.update(task="regression", target="y", columns=["x"])
    model.save("model")
    write_csv("t.csv", x=np.arange(50_000))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "trainstep", "predict", "model", "t.csv"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
