"""Tables from files: columns of numbers by name, and one of them as the target."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainstep._checks import switch

if TYPE_CHECKING:
    from pathlib import Path  # it, csv and zipfile are imported where a file is read: importing trainstep loads none of them

    from trainstep._progress import Amount

Array = npt.NDArray[Any]
# The columns of x and the column of y, as positions among the names.
Choice = tuple[list[int], int | None]

TASKS = ("auto", "classification", "regression")
MOST_CLASSES = 20  # different whole numbers that are still taken for classes
# Columns that pandas adds for an index without a name: counts of rows, not data.
_PANDAS_INDEX = "__index_level_"
# Text of so few rows stays in the cache: 100,000 rows of 51 columns take 2.7 s with 128 rows at once, 4.3 s with 4096.
_ROWS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Table:
    """A table as `load_table` reads it: numbers in x, and what is to be predicted in y.

    Parameters
    ----------
    x : ndarray, shape (n, k)
        The columns of numbers: float64 from a CSV file, from an NPZ or a Parquet file the dtype that all its columns fit in.
    columns : tuple of str
        Their k names.
    y : ndarray, shape (n,), optional
        Class indices, int64, or targets, float64. None where no target was named.
    target : str, optional
        The name of the column that y comes from.
    task : {"classification", "regression"}, optional
        What y is for.
    classes : tuple of str, int or float, optional
        In classification: what the class indices stand for, in ascending order.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from trainstep.data import load_table
    >>> path = os.path.join(tempfile.mkdtemp(), "table.npz")
    >>> np.savez(path, x=np.eye(2, dtype="float32"), price=[3.5, 2.5])
    >>> table = load_table(path, target="price")
    >>> table.columns, table.task, table.x.dtype
    (('x[0]', 'x[1]'), 'regression', dtype('float32'))
    """

    x: Array
    columns: tuple[str, ...]
    y: Array | None = None
    target: str | None = None
    task: str | None = None
    classes: tuple[str | int | float, ...] | None = None


def load_table(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    task: str = "auto",
    columns: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    progress: bool = False,
) -> Table:
    """Read a table of numbers from a CSV, an NPZ or a Parquet file.

    CSV: UTF-8, a first row with the names of the columns, fields separated by commas (or semicolons or tabs, where the first row
    has no comma) and perhaps in double quotes. Space around a field and empty lines are left out. NPZ: an array of one dimension
    is a column of its name; an array x of two dimensions is the columns x[0], x[1], ... Parquet, which needs
    ``pip install trainstep[parquet]``: columns of numbers, booleans and text; only those that are asked for are read, one row group
    after the other; what pandas adds for an index without a name is no column.

    Every value must be there and be a finite number, but for the target, which may be text. Rows are counted from 1, below
    the names.

    Parameters
    ----------
    path : str or path
        The file: its name ends in .csv, .npz or .parquet.
    target : str, optional
        The column that y is made of. Default: none, y is None.
    task : {"auto", "classification", "regression"}, default "auto"
        What y is for. auto: classification where the target is text, or whole numbers of at most 20 different values;
        regression otherwise. A column of both numbers and text is refused, unless classification is asked for.
    columns : sequence of str, optional
        The columns of x, in this order; others are not looked at. Default: all but the target, in the file's order.
    ignore : sequence of str, optional
        Columns that are left out of x.
    progress : bool, default False
        Show a progress bar on stderr where reading takes more than a second.

    Returns
    -------
    table : Table

    Raises
    ------
    ImportError
        A Parquet file without pyarrow.
    OSError
        The file cannot be read.
    TypeError
        columns or ignore is a single str.
    ValueError
        The file is of another kind or damaged; a name is not there, is empty or occurs twice; a row has too few or too many
        fields; a value is missing, is no number or is not finite (the message says in which row and column); there is no row,
        no column for x, or only one class.

    Examples
    --------
    >>> import os, tempfile
    >>> from trainstep.data import load_table
    >>> path = os.path.join(tempfile.mkdtemp(), "flowers.csv")
    >>> with open(path, "w") as file:
    ...     for line in ("length,width,kind", "1.5,0.5,rose", "2.5,1.0,tulip", "1.0,0.5,rose"):
    ...         print(line, file=file)
    >>> table = load_table(path, target="kind")
    >>> table.x
    array([[1.5, 0.5],
           [2.5, 1. ],
           [1. , 0.5]])
    >>> table.columns, table.classes, table.y
    (('length', 'width'), ('rose', 'tulip'), array([0, 1, 0]))
    """
    if task not in TASKS:
        raise ValueError(f"load_table: task is {task!r}, expected one of {', '.join(TASKS)}")
    for argument, value in (("columns", columns), ("ignore", ignore)):
        if isinstance(value, str):
            raise TypeError(f"load_table: {argument} is a str, expected a sequence of them")
    progress = switch("load_table: progress", progress)
    from pathlib import Path

    from trainstep._progress import Amount

    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"load_table: {path} ends in none of {', '.join(_READERS)}")

    def choose(names: Sequence[str]) -> Choice:
        for position, name in enumerate(names):
            if not name:
                raise ValueError(f"column {position + 1} has no name")
            if name in names[:position]:
                raise ValueError(f'two columns are named "{name}"')
        for name in (*([] if target is None else [target]), *(columns or ()), *ignore):
            if name not in names:
                raise ValueError(f'there is no column "{name}", the columns are {_listed(names)}')
        left_out = {target, *ignore}
        kept = [n for n in (names if columns is None else columns) if n not in left_out]
        if not kept:
            raise ValueError(f"there is no column to learn from, the columns are {_listed(names)}")
        return [names.index(n) for n in kept], None if target is None else names.index(target)

    try:
        with Amount(path.name, "B", progress) as amount:
            x, x_names, values = read(path, choose, amount)
        if target is None:
            return Table(x, x_names)
        y, found_task, classes = _target(target, values, task)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: {'not UTF-8 text' if isinstance(error, UnicodeDecodeError) else error}") from error
    return Table(x, x_names, y, target, found_task, classes)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")


def _read_csv(path: "Path", choose: Callable[[Sequence[str]], Choice], amount: "Amount") -> tuple[Array, tuple[str, ...], Any]:
    import csv
    import io

    # The bytes are opened by themselves, for text that is iterated over does not tell how far it is.
    with path.open("rb") as data, io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as file:
        amount.total = path.stat().st_size
        first = file.readline()
        delimiter = next((d for d in ",;\t" if d in first), ",")
        file.seek(0)
        lines = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            names = [name.strip() for name in next((line for line in lines if line), [])]
            if not names:
                raise ValueError("the file is empty, expected the names of the columns in its first row")
            of_x, of_y = choose(names)
            parts: list[Array] = []
            labels: list[str] = []
            row = 1
            while read := list(islice(lines, _ROWS_AT_ONCE)):
                rows = [fields for fields in read if fields]
                for at, fields in enumerate(rows, row):
                    if len(fields) != len(names):
                        raise ValueError(f"row {at} has {len(fields)} fields, the first row names {len(names)} columns")
                if rows:
                    texts = list(zip(*rows, strict=True))
                    parts.append(np.stack([_numbers(names[c], texts[c], row) for c in of_x], axis=1))
                    labels += [] if of_y is None else texts[of_y]
                row += len(rows)
                amount.reached(data.tell())
        except csv.Error as error:
            raise ValueError(f"line {lines.line_num}: {error}") from error
    if not parts:
        raise ValueError("there are no rows below the names of the columns")
    return np.concatenate(parts), tuple(names[c] for c in of_x), labels


def _read_npz(path: "Path", choose: Callable[[Sequence[str]], Choice], amount: "Amount") -> tuple[Array, tuple[str, ...], Any]:
    import zipfile

    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no NPZ file")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                held: dict[str, Array] = dict(arrays)
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    names: list[str] = []
    values: list[Array] = []
    for name, array in held.items():
        if array.ndim not in (1, 2):
            raise ValueError(f'array "{name}" has shape {array.shape}, expected one or two dimensions')
        if len(array) != len(next(iter(held.values()))):
            first = next(iter(held))
            raise ValueError(f'array "{name}" has {len(array)} rows, "{first}" has {len(held[first])}')
        if array.dtype.kind not in "biufUS":
            raise ValueError(f'array "{name}" has dtype {array.dtype}, expected numbers or text')
        names += [name] if array.ndim == 1 else [f"{name}[{j}]" for j in range(array.shape[1])]
        values += [array] if array.ndim == 1 else list(array.T)
    of_x, of_y = choose(names)
    if len(values[of_x[0]]) == 0:
        raise ValueError("there are no rows")
    x = np.stack([_numbers(names[c], values[c], 1) for c in of_x], axis=1)
    y = None if of_y is None else values[of_y]
    return x, tuple(names[c] for c in of_x), y if y is None or y.dtype.kind not in "US" else y.astype(str).tolist()


def _read_parquet(path: "Path", choose: Callable[[Sequence[str]], Choice], amount: "Amount") -> tuple[Array, tuple[str, ...], Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("load_table: a .parquet file needs pyarrow: pip install trainstep[parquet]") from error
    with path.open("rb") as data:
        try:
            return _read_groups(parquet.ParquetFile(data), choose, amount)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(str(error)) from error


def _read_groups(file: Any, choose: Callable[[Sequence[str]], Choice], amount: "Amount") -> tuple[Array, tuple[str, ...], Any]:
    names = [name for name in file.schema_arrow.names if not name.startswith(_PANDAS_INDEX)]
    of_x, of_y = choose(names)
    x_names, target = tuple(names[c] for c in of_x), None if of_y is None else names[of_y]
    wanted = [*x_names, *([] if target is None else [target])]
    dtypes = {name: _dtype_of(name, file.schema_arrow.field(name).type) for name in wanted}
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows == 0:
        raise ValueError("there are no rows")
    # Text may hold numbers: _numbers takes it for them, or says where it does not.
    x = np.empty((rows, len(x_names)), np.result_type(*(dtypes[name] or np.float64 for name in x_names)))
    parts: list[Any] = []
    amount.total = sum(group.total_byte_size for group in groups)
    row = 0
    for i, group in enumerate(groups):
        columns = file.read_row_group(i, columns=wanted)
        if columns.num_rows != group.num_rows:
            raise ValueError(f"row group {i} has {columns.num_rows} rows, expected {group.num_rows}")
        for place, name in enumerate(x_names):
            x[row : row + group.num_rows, place] = _numbers(name, _values(name, columns.column(name), row + 1), row + 1)
        if target is not None:
            parts.append(_values(target, columns.column(target), row + 1))
        row += group.num_rows
        amount.reached(amount.count + group.total_byte_size)
    if target is None or dtypes[target] is not None:
        return x, x_names, np.concatenate(parts) if parts else None
    return x, x_names, [text for part in parts for text in part]


def _dtype_of(name: str, kind: Any) -> "np.dtype[Any] | None":
    """Give the NumPy dtype for a column of this Arrow type: None for text."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return None
    if types.is_decimal(kind):
        return np.dtype(np.float64)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return dtype
    raise ValueError(f'column "{name}" has type {kind}, expected numbers or text')


def _values(name: str, column: Any, first_row: int) -> Any:
    """Give a column of a row group as an array of numbers or a list of texts; none may be missing."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        at = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(f'row {first_row + at}, column "{name}": missing value')
    dtype = _dtype_of(name, column.type)
    return column.to_pylist() if dtype is None else column.to_numpy().astype(dtype)


_READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}


def _is_number(text: str) -> bool:
    """Whether a text is a number, finite or not; Python's own 1_000 is none."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _numbers(name: str, values: Any, first_row: int) -> Array:
    """Return a column as finite numbers, or raise ValueError that names the first row with anything else."""
    if not isinstance(values, np.ndarray) or values.dtype.kind in "US":
        values = [str(v) for v in values] if isinstance(values, np.ndarray) else values
        try:
            numbers = np.fromiter(map(float, values), np.float64, len(values))
        except ValueError:
            numbers = np.array([float(v) if _is_number(v) else np.nan for v in values])
        if np.isfinite(numbers).all() and "_" not in "".join(values):
            return numbers
        finite = [bool(f) and _is_number(v) for f, v in zip(np.isfinite(numbers), values, strict=True)]
    else:
        numbers = values
        finite = np.isfinite(numbers)  # type: ignore[assignment]
        if np.all(finite):
            return numbers
    at = int(np.argmin(finite))
    text = str(values[at]).strip()
    problem = "missing value" if text.lower() in ("", "nan") else f'"{text}" is not a {"finite " * _is_number(text)}number'
    raise ValueError(f'row {first_row + at}, column "{name}": {problem}')


def _target(name: str, values: Any, task: str) -> tuple[Array, str, tuple[str | int | float, ...] | None]:
    """Return y, what it is for, and the classes that its indices stand for."""
    numbers = None
    if isinstance(values, list):
        values = [v.strip() for v in values]
        if "" in values:
            raise ValueError(f'row {values.index("") + 1}, column "{name}": missing value')
        are_numbers = [_is_number(v) for v in values]
        if all(are_numbers) or task == "regression":
            numbers = _numbers(name, values, 1)
        elif task == "auto" and any(are_numbers):
            at = are_numbers.index(False)
            raise ValueError(
                f'row {at + 1}, column "{name}": "{values[at]}" is not a number, and others are '
                "(the task classification would take all of them as text)"
            )
    else:
        numbers = _numbers(name, values, 1)
    found, y = np.unique(values if numbers is None else numbers, return_inverse=True)
    if len(found) == 1:
        raise ValueError(f'column "{name}" is {found[0]} in every row, there is nothing to learn')
    whole = numbers is not None and (found == np.rint(found)).all()
    if task == "regression" or (task == "auto" and numbers is not None and not (whole and len(found) <= MOST_CLASSES)):
        return np.asarray(numbers, np.float64), "regression", None
    return y.astype(np.int64), "classification", tuple(int(c) if whole else c for c in found.tolist())
