"""Tables from Parquet files, and predictions into them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep.cli import main
from trainstep.data import load_table

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = [pytest.mark.one_level, pytest.mark.peers]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(columns: dict[str, Any], name: str = "t.parquet", row_group_size: int | None = None) -> Path:
    arrays = [pyarrow.array(values) for values in columns.values()]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=list(columns)), name, row_group_size=row_group_size)
    return Path(name)


@pytest.mark.parametrize("row_group_size", [1, 3, 100])
def test_columns_and_rows_keep_their_place(row_group_size: int) -> None:
    columns = {"a": np.arange(7, dtype="int16"), "kind": list("xyxzzyx"), "b.c": np.linspace(0, 1, 7, dtype="float32")}
    table = load_table(write(columns, row_group_size=row_group_size), target="kind")
    assert table.columns == ("a", "b.c")
    assert table.x.dtype == np.float32
    np.testing.assert_array_equal(table.x, np.stack([columns["a"], columns["b.c"]], axis=1))
    assert (table.task, table.classes) == ("classification", ("x", "y", "z"))
    np.testing.assert_array_equal(table.y, [0, 1, 0, 2, 2, 1, 0])
    again = load_table("t.parquet", columns=["b.c", "a"])
    np.testing.assert_array_equal(again.x, table.x[:, ::-1])
    assert again.y is None


def test_every_kind_of_number_and_text() -> None:
    import decimal

    numbers = {
        **{kind: np.array([1, 0, 3], kind) for kind in ("int8", "uint8", "int32", "int64", "float16", "float32", "float64")},
        "bool": np.array([True, False, True]),
        "decimal": pyarrow.array([decimal.Decimal("1.5"), decimal.Decimal("-2"), decimal.Decimal(0)]),
        "text": ["1.5", " 2", "-3e2"],
        "categories of text": pyarrow.array(["7", "8", "7"]).dictionary_encode(),
        "large text": pyarrow.array(["1", "2", "3"], pyarrow.large_string()),
    }
    table = load_table(write(numbers))
    assert table.x.dtype == np.float64
    for name, values in {
        "int8": [1, 0, 3],
        "uint8": [1, 0, 3],
        "float16": [1, 0, 3],
        "bool": [1, 0, 1],
        "decimal": [1.5, -2, 0],
        "text": [1.5, 2, -300],
        "categories of text": [7, 8, 7],
        "large text": [1, 2, 3],
    }.items():
        np.testing.assert_array_equal(table.x[:, table.columns.index(name)], values, err_msg=name)
    assert load_table("t.parquet", columns=["uint8", "int8"]).x.dtype == np.int16
    assert load_table("t.parquet", columns=["bool"]).x.dtype == np.bool_


@pytest.mark.parametrize(
    ("values", "task", "classes", "y"),
    [
        ([3, 1, 3], "classification", (1, 3), [1, 0, 1]),
        ([3.5, 1.0, 3.0], "regression", None, [3.5, 1, 3]),
        ([True, False, True], "classification", (0, 1), [1, 0, 1]),
        (["2", "1", "2"], "classification", (1, 2), [1, 0, 1]),
        (pyarrow.array(["no", "yes", "no"]).dictionary_encode(), "classification", ("no", "yes"), [0, 1, 0]),
    ],
)
def test_the_target(values: Any, task: str, classes: tuple | None, y: list[float]) -> None:
    table = load_table(write({"a": [1.0, 2.0, 3.0], "t": values}, row_group_size=2), target="t")
    assert (table.task, table.classes) == (task, classes)
    np.testing.assert_array_equal(table.y, y)


def test_an_index_that_pandas_has_added_is_no_column() -> None:
    table = load_table(write({"a": [1.0, 2.0], "__index_level_0__": [10, 11], "b": [3.0, 4.0]}))
    assert table.columns == ("a", "b")


A = [1.0, 2.0, 3.0, 4.0, 5.0]
T = list("xyxyx")
WRONG = {
    "null": ({"a": [1.0, 2.0, 3.0, None, 5.0], "t": T}, 'row 4, column "a": missing value'),
    "null of integers": ({"a": [1, 2, 3, 4, None], "t": T}, 'row 5, column "a": missing value'),
    "null in the target": ({"a": A, "t": ["x", "y", "x", None, "x"]}, 'row 4, column "t": missing value'),
    "all null": ({"a": pyarrow.nulls(5), "t": T}, 'column "a" has type null, expected numbers or text'),
    "nan": ({"a": [1.0, 2.0, 3.0, np.nan, 5.0], "t": T}, 'row 4, column "a": missing value'),
    "infinity": ({"a": [1.0, 2.0, 3.0, 4.0, -np.inf], "t": T}, 'row 5, column "a": "-inf" is not a finite number'),
    "text": ({"a": ["1", "2", "3", "four", "5"], "t": T}, 'row 4, column "a": "four" is not a number'),
    "dates": ({"a": np.array(["2024-01-01"] * 5, "datetime64[ms]"), "t": T}, 'column "a" has type timestamp[ms], expected numbers'),
    "lists": ({"a": [[1.0], [2.0], [3.0], [4.0], [5.0]], "t": T}, 'column "a" has type list<'),
    "structs": ({"a": [{"b": 1.0}] * 5, "t": T}, 'column "a" has type struct<'),
    "unknown target": ({"a": A, "y": T}, 'there is no column "t", the columns are a, y'),
    "no rows": ({"a": pyarrow.array([], "float64"), "t": pyarrow.array([], "string")}, "there are no rows"),
    "target alone": ({"t": T}, "there is no column to learn from"),
    "one class": ({"a": A, "t": ["x"] * 5}, 'column "t" is x in every row'),
}


@pytest.mark.parametrize(("columns", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_refused(columns: dict[str, Any], message: str) -> None:
    path = write(columns, row_group_size=3)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        load_table(path, target="t")


def test_two_columns_of_a_name_are_refused() -> None:
    arrays = [pyarrow.array([1.0, 2.0])] * 2
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=["a", "a"]), "t.parquet")
    with pytest.raises(ValueError, match='two columns are named "a"'):
        load_table("t.parquet")


def test_a_damaged_file_is_refused() -> None:
    path = write({"a": np.random.default_rng(0).standard_normal(1000), "t": ["x", "y"] * 500})
    whole = path.read_bytes()
    for damaged in (b"", b"no table", whole[:100], whole[:-5], b"PAR1" + bytes(1000) + whole[1004:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            load_table(path, target="t")


def test_from_a_file_to_predictions_in_another(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((120, 2))
    kind = np.where(x.sum(axis=1) > 0, "up", "down")
    write({"a": x[:, 0], "b": x[:, 1], "kind": kind.tolist()}, row_group_size=50)
    options = ["--hidden", "16", "--epochs", "20", "--save", "m.safetensors", "--plot", "c.png"]
    assert main(["train", "t.parquet", "--target", "kind", *options]) == 0
    assert "2 columns; 96 training rows, 24 held-out test rows" in capsys.readouterr().out
    assert main(["predict", "m.safetensors", "t.parquet", "--output", "p.parquet", "--probabilities"]) == 0
    assert capsys.readouterr() == ("", "")
    held = parquet.read_table("p.parquet")
    assert held.column_names == ["kind", "P(down)", "P(up)"]
    assert np.mean(held.column("kind").to_numpy() == kind) > 0.9
    shares = np.stack([held.column(name).to_numpy() for name in held.column_names[1:]], axis=1)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    logits = ts.nn.load("m.safetensors")(x)
    np.testing.assert_array_equal(shares[:, 1] > 0.5, logits[:, 1] > logits[:, 0])


def test_classes_of_numbers_and_regression_keep_their_type(capsys: pytest.CaptureFixture[str]) -> None:
    model = ts.nn.Sequential(ts.nn.Dense(1, 2))
    model.metadata.update(task="classification", target="n", columns=["a"], classes=[3, 7])
    model.save("classes")
    model = ts.nn.Sequential(ts.nn.Dense(1, 1), dtype="float64")
    model.metadata.update(task="regression", target="y", columns=["a"])
    model.save("number")
    write({"a": [1.0, -1.0]})
    for name, kind in (("classes", np.int64), ("number", np.float64)):
        assert main(["predict", name, "t.parquet", "--output", "p.parquet"]) == 0
        assert parquet.read_table("p.parquet").column(0).to_numpy().dtype == kind
