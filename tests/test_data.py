"""The digits, the split, and tables from files."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainstep.data import load_digits, load_table, train_test_split

pytestmark = pytest.mark.one_level


def test_digits_are_the_digits() -> None:
    x, y = load_digits()
    assert (x.shape, y.shape) == ((1797, 64), (1797,))
    assert (x.dtype, y.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    assert x.min() == 0.0
    assert x.max() == 1.0
    np.testing.assert_array_equal(x * 16, np.rint(x * 16))
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    np.testing.assert_array_equal(y[:10], range(10))


@pytest.mark.peers
def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = load_digits()
    np.testing.assert_array_equal(x, images / 16)
    np.testing.assert_array_equal(y, labels)


def test_digits_are_the_callers_own() -> None:
    load_digits()[0][:] = 7.0
    assert load_digits()[0].max() == 1.0


@given(
    members=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
    stratify=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_split_is_a_partition_and_keeps_shares(members: list[int], share: float, stratify: bool, seed: int) -> None:
    n = sum(members)
    n_test = int(share * n)
    assume(len(members) <= n_test <= n - len(members))
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(members)), members))
    x = np.column_stack([np.arange(n), y])
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=n_test, stratify=stratify, seed=seed)
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (n - n_test, n - n_test, n_test, n_test)
    np.testing.assert_array_equal(np.sort(np.concatenate([x_train, x_test])[:, 0]), np.arange(n))
    np.testing.assert_array_equal(x_train[:, 1], y_train)
    np.testing.assert_array_equal(x_test[:, 1], y_test)
    if stratify:
        exact = n_test * np.array(members) / n
        assert (np.abs(np.bincount(y_test, minlength=len(members)) - exact) < 1.0).all()


def test_largest_remainders_by_hand() -> None:
    # Quotas of 5 test rows from 7, 6 and 4 of 17: 2.06, 1.76, 1.18. Rounded down: 2, 1, 1. The second has the largest
    # remainder and gets the one left.
    y = np.repeat(["a", "b", "c"], [7, 6, 4])
    y_test = train_test_split(np.arange(17), y, test_size=5)[3]
    assert [int((y_test == label).sum()) for label in "abc"] == [2, 2, 1]


def test_split_of_the_digits() -> None:
    x, y = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(x, y)
    assert (x_train.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert (x_train.dtype, y_train.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    shares = np.bincount(y) / len(y)
    np.testing.assert_allclose(np.bincount(y_test) / 360, shares, atol=1 / 360)
    assert (np.diff(y_test) < 0).any()  # shuffled, not sorted by class


@pytest.mark.parametrize("stratify", [True, False])
def test_seed_decides(stratify: bool) -> None:
    x, y = np.arange(100), np.arange(100) % 4
    first, again, other = (train_test_split(x, y, stratify=stratify, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("test_size", "expected"), [(0.2, 20), (0.07, 7), (0.201, 21), (1, 1), (np.int64(30), 30)])
def test_test_size(test_size: float, expected: int) -> None:
    x = np.arange(100)
    assert len(train_test_split(x, x, test_size=test_size, stratify=False)[1]) == expected


def test_rows_may_have_any_shape() -> None:
    x, y = np.zeros((10, 2, 3)), np.zeros((10, 4))
    parts = train_test_split(x, y, stratify=False)
    assert [part.shape for part in parts] == [(8, 2, 3), (2, 2, 3), (8, 4), (2, 4)]
    assert len(train_test_split([[1], [2], [3], [4]], [0, 0, 1, 1], test_size=0.5)[0]) == 2


# --- tables ----------------------------------------------------------------------------------------------------------------------

FLOWERS = "length,width,kind\n1.5,0.5,rose\n2.5,1e0,tulip\n-3,.25,rose\n"


def csv_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def npz_file(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "table.npz", **arrays)
    return folder / "table.npz"


@pytest.mark.parametrize(
    "text",
    [
        FLOWERS,
        FLOWERS.replace("\n", "\r\n"),
        FLOWERS.rstrip(),
        "\ufeff" + FLOWERS,
        FLOWERS.replace(",", ";"),
        FLOWERS.replace(",", "\t"),
        FLOWERS.replace(",", " , "),
        "\n" + FLOWERS.replace("\n", "\n\n"),
        '"length","width","kind"\n"1.5","0.5","rose"\n2.5,"1e0", "tulip"\n-3,.25,rose\n',
    ],
    ids=["plain", "crlf", "no last newline", "byte order mark", "semicolons", "tabs", "spaces", "empty lines", "quotes"],
)
def test_a_csv_file_is_read(tmp_path: Path, text: str) -> None:
    table = load_table(csv_file(tmp_path, text), target="kind")
    np.testing.assert_array_equal(table.x, [[1.5, 0.5], [2.5, 1.0], [-3, 0.25]])
    assert table.x.dtype == np.float64
    assert (table.columns, table.target) == (("length", "width"), "kind")
    assert (table.task, table.classes) == ("classification", ("rose", "tulip"))
    np.testing.assert_array_equal(table.y, [0, 1, 0])
    assert table.y.dtype == np.int64


def test_quotes_hold_delimiters_quotes_and_newlines(tmp_path: Path) -> None:
    table = load_table(csv_file(tmp_path, '"a, b","kind"\n1,"x ""y"",\nz"\n2,w\n'), target="kind")
    assert table.columns == ("a, b",)
    assert table.classes == ("w", 'x "y",\nz')


def test_numbers_keep_every_digit(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1000, 3)) * 10.0 ** rng.integers(-300, 300, (1000, 3))  # more rows than are read at once
    text = "a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())
    got = load_table(csv_file(tmp_path, text))
    assert got.x.tobytes() == x.tobytes()
    assert (got.y, got.target, got.task, got.classes) == (None, None, None, None)


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "id,a,b,c\nx,1,2,3\ny,4,5,6\n")
    table = load_table(path, columns=["c", "a"])  # what is in the others does not matter
    np.testing.assert_array_equal(table.x, [[3, 1], [6, 4]])
    assert table.columns == ("c", "a")
    table = load_table(path, target="b", ignore=["id"])
    assert table.columns == ("a", "c")
    np.testing.assert_array_equal(table.x, [[1, 3], [4, 6]])


@pytest.mark.parametrize(
    ("values", "task", "found", "classes", "y"),
    [
        (["b", "a", "b", "c"], "auto", "classification", ("a", "b", "c"), [1, 0, 1, 2]),
        (["2", "0", "2.0", "7"], "auto", "classification", (0, 2, 7), [1, 0, 1, 2]),
        (["2", "0", "2", "7"], "regression", "regression", None, [2, 0, 2, 7]),
        (["2", "0.5", "2", "7"], "auto", "regression", None, [2, 0.5, 2, 7]),
        (["2", "0.5", "2", "7"], "classification", "classification", (0.5, 2.0, 7.0), [1, 0, 1, 2]),
        (["2", "0.5", "2", "x"], "classification", "classification", ("0.5", "2", "x"), [1, 0, 1, 2]),
        ([str(i) for i in range(20)], "auto", "classification", tuple(range(20)), range(20)),
        ([str(i) for i in range(21)], "auto", "regression", None, range(21)),
        ([str(i) for i in range(21)], "classification", "classification", tuple(range(21)), range(21)),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_the_task_follows_from_the_target(
    tmp_path: Path, values: list[str], task: str, found: str, classes: tuple | None, y: list[float], kind: str
) -> None:
    if kind == "csv":
        path = csv_file(tmp_path, "a,t\n" + "".join(f"1,{v}\n" for v in values))
    else:
        texts = np.array(values)
        numbers = all(v.replace(".", "").isdigit() for v in values)
        path = npz_file(tmp_path, a=np.ones(len(values)), t=texts.astype(float) if numbers else texts)
    table = load_table(path, target="t", task=task)
    assert (table.task, table.classes) == (found, classes)
    assert [type(c) for c in table.classes or ()] == [type(c) for c in classes or ()]
    np.testing.assert_array_equal(table.y, y)
    assert table.y.dtype == (np.int64 if classes else np.float64)


def test_an_npz_file_is_read(tmp_path: Path) -> None:
    path = npz_file(tmp_path, x=np.arange(6, dtype="uint8").reshape(3, 2), age=np.array([7, 8, 9], "int16"), y=np.array([0, 1, 1]))
    table = load_table(path, target="y")
    assert table.columns == ("x[0]", "x[1]", "age")
    assert table.x.dtype == np.int16
    np.testing.assert_array_equal(table.x, [[0, 1, 7], [2, 3, 8], [4, 5, 9]])
    assert load_table(path, target="y", ignore=["age"]).x.dtype == np.uint8
    np.testing.assert_array_equal(load_table(path, columns=["age", "x[1]"]).x, [[7, 1], [8, 3], [9, 5]])
    table = load_table(npz_file(tmp_path, x=np.eye(2), y=np.array([True, False])), target="y")
    assert (table.task, table.classes, table.y.tolist()) == ("classification", (0, 1), [1, 0])
    table = load_table(npz_file(tmp_path, x=np.eye(2), y=np.array([b"no", b"yes"])), target="y")
    assert table.classes == ("no", "yes")


WRONG_CSV = {
    "missing value": ("a,b,t\n1,2,x\n3,,y\n", 'row 2, column "b": missing value'),
    "missing value of spaces": ("a,b,t\n1,2,x\n3,  ,y\n", 'row 2, column "b": missing value'),
    "nan": ("a,b,t\n1,2,x\nNaN,3,y\n", 'row 2, column "a": missing value'),
    "not a number": ("a,b,t\n1,2,x\n3,abc,y\n", 'row 2, column "b": "abc" is not a number'),
    "NA": ("a,b,t\nNA,2,x\n3,1,y\n", 'row 1, column "a": "NA" is not a number'),
    "decimal comma": ("a;b;t\n1;2,5;x\n3;4;y\n", 'row 1, column "b": "2,5" is not a number'),
    "underscore": ("a,b,t\n1,1_000,x\n3,4,y\n", 'row 1, column "b": "1_000" is not a number'),
    "infinity": ("a,b,t\n1,2,x\n3,-inf,y\n", 'row 2, column "b": "-inf" is not a finite number'),
    "overflow": ("a,b,t\n1,2,x\n3,1e999,y\n", 'row 2, column "b": "1e999" is not a finite number'),
    "row of the 300th": ("a,b,t\n\n" + "1,2,x\n" * 299 + "3,?,y\n", 'row 300, column "b": "?" is not a number'),
    "no label": ("a,b,t\n1,2,x\n3,4,\n", 'row 2, column "t": missing value'),
    "target of both kinds": ("a,b,t\n1,2,7\n3,4,n/a\n", 'row 2, column "t": "n/a" is not a number, and others are'),
    "target nan": ("a,b,t\n1,2,7\n3,4,nan\n", 'row 2, column "t": missing value'),
    "target inf": ("a,b,t\n1,2,7\n3,4,inf\n", 'row 2, column "t": "inf" is not a finite number'),
    "too few fields": ("a,b,t\n1,2,x\n3,y\n", "row 2 has 2 fields, the first row names 3 columns"),
    "too many fields": ("a,b,t\n1,2,x,\n3,4,y\n", "row 1 has 4 fields, the first row names 3 columns"),
    "unknown target": ("a,b,c\n1,2,x\n", 'there is no column "t", the columns are a, b, c'),
    "many columns": (",".join(f"c{i}" for i in range(30)) + "\n", 'no column "t", the columns are c0, .*c19, ... (30 in all)'),
    "two of a name": ("a,b, a,t\n1,2,3,x\n", 'two columns are named "a"'),
    "no name": (",a,t\n0,1,x\n", "column 1 has no name"),
    "empty": ("", "the file is empty"),
    "empty lines": ("\n\n", "the file is empty"),
    "no rows": ("a,b,t\n\n", "no rows below the names"),
    "target alone": ("t\nx\ny\n", "there is no column to learn from"),
    "one class": ("a,b,t\n1,2,x\n3,4,x\n", 'column "t" is x in every row'),
    "one value": ("a,b,t\n1,2,0.5\n3,4,0.5\n", 'column "t" is 0.5 in every row'),
    "open quote": ('a,b,t\n1,2,"x\n3,4,y\n', "unexpected end of data"),
    "text after a quote": ('a,b,t\n1,2,x\n3,"4"5,y\n', "line 3: ',' expected after '\"'"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_CSV.values(), ids=WRONG_CSV.keys())
def test_a_wrong_csv_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = csv_file(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message).replace(r"\.\*", ".*")):
        load_table(path, target="t")


def test_a_text_target_is_no_regression(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "a,t\n1,7\n3,x\n")
    with pytest.raises(ValueError, match='row 2, column "t": "x" is not a number$'):
        load_table(path, target="t", task="regression")


def test_other_encodings_are_named(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "größe,t\n1,x\n2,y\n", "latin-1")
    with pytest.raises(ValueError, match=r"table\.csv: not UTF-8 text"):
        load_table(path, target="t")


X, T = np.eye(3), np.array(["x", "y", "x"])
WRONG_NPZ = {
    "text column": ({"a": np.array(["1", "b", "3"]), "t": T}, 'row 2, column "a": "b" is not a number'),
    "nan": ({"x": np.array([[1, 2], [3, np.nan], [5, 6]]), "t": T}, 'row 2, column "x[1]": missing value'),
    "infinity": ({"x": X, "a": np.array([1, 2, np.inf]), "t": T}, 'row 3, column "a": "inf" is not a finite number'),
    "nan in the target": ({"x": X, "t": np.array([1, np.nan, 2])}, 'row 2, column "t": missing value'),
    "text in a target of numbers": ({"x": X, "t": np.array(["1", "b", "3"])}, 'row 2, column "t": "b" is not a number, and others'),
    "lengths": ({"x": X, "t": T[:2]}, 'array "t" has 2 rows, "x" has 3'),
    "three dimensions": ({"x": np.ones((3, 2, 2)), "t": T}, 'array "x" has shape (3, 2, 2)'),
    "no dimension": ({"x": X, "t": np.array(1)}, 'array "t" has shape ()'),
    "complex": ({"x": X + 1j, "t": T}, 'array "x" has dtype complex128'),
    "dates": ({"x": np.array(["2024-01-01"] * 3, "datetime64[D]"), "t": T}, 'array "x" has dtype datetime64[D]'),
    "objects": ({"x": X, "t": np.array(["x", 1, None], object)}, "allow_pickle"),
    "unknown target": ({"x": X, "y": T}, 'there is no column "t", the columns are x[0], x[1], x[2], y'),
    "no rows": ({"x": X[:0], "t": T[:0]}, "there are no rows"),
    "no columns": ({"x": X[:, :0], "t": T}, "there is no column to learn from"),
    "two of a name": ({"x": X, "x[1]": np.ones(3), "t": T}, 'two columns are named "x[1]"'),
    "nothing": ({}, 'there is no column "t"'),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG_NPZ.values(), ids=WRONG_NPZ.keys())
def test_a_wrong_npz_file_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = npz_file(tmp_path, **arrays)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        load_table(path, target="t")


def test_a_damaged_npz_file_is_refused(tmp_path: Path) -> None:
    path = npz_file(tmp_path, x=X, t=T)
    whole = path.read_bytes()
    middle = whole.index(b"\x93NUMPY") + 200  # among the numbers of x: the checksum tells
    for damaged in (b"", b"no table", whole[:100], whole[:-5], whole[:middle] + b"\xff" + whole[middle + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            load_table(path, target="t")


def test_wrong_arguments_of_load_table(tmp_path: Path) -> None:
    path = csv_file(tmp_path, FLOWERS)
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"load_table: .*table\.txt ends in none of \.csv, \.npz"):
        load_table(tmp_path / "table.txt")
    with pytest.raises(ValueError, match="load_table: task is 'clustering', expected one of auto, classification, regression"):
        load_table(path, target="kind", task="clustering")
    for argument in ("columns", "ignore"):
        with pytest.raises(TypeError, match=f"load_table: {argument} is a str"):
            load_table(path, **{argument: "length"})
        with pytest.raises(ValueError, match='there is no column "height", the columns are length, width, kind'):
            load_table(path, **{argument: ["length", "height"]})
    with pytest.raises(TypeError, match="load_table: progress is a int, expected a bool"):
        load_table(path, progress=1)


def test_a_parquet_file_wants_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"load_table: a \.parquet file needs pyarrow: pip install trainstep\[parquet\]"):
        load_table(tmp_path / "table.parquet")


def test_what_takes_a_second_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_file(tmp_path, "a,b\n" + "1.5,2\n" * 40_000)
    load_table(path, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("trainstep._progress._PATIENCE", 0.0)
    load_table(path)
    assert capsys.readouterr().err == ""
    load_table(path, progress=True)
    assert re.search(r"table\.csv: +100%.* 240k/240k", capsys.readouterr().err)
