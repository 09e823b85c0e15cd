"""``trainstep predict``: a saved model on the rows of a table."""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import trainstep as ts
from trainstep._progress import Amount
from trainstep.cli import tables
from trainstep.cli.common import (
    UsageError,
    add_json,
    add_no_progress,
    add_threads,
    check_outputs,
    says,
    shows_progress,
    to_stdout,
    write_json,
)
from trainstep.cli.problems import TABLES, Array

_ROWS_AT_ONCE = 16_384  # between two looks at the progress bar
_PARQUET = ".parquet"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    predict = commands.add_parser("predict", help="predict the target of a table with a model that train saved")
    predict.set_defaults(command=_predict)
    predict.add_argument("model", metavar="MODEL", type=Path, help="what trainstep train FILE --save MODEL wrote")
    predict.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help=f"a table ({', '.join(TABLES)}) with the model's columns, in any order; others are not looked at",
    )
    predict.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="where the predictions go: .parquet, else CSV; default: stdout, as CSV",
    )
    predict.add_argument("--probabilities", action="store_true", help="also write the probability of each class")
    add_threads(predict)
    add_json(predict, "the predictions")
    add_no_progress(predict)


def _predict(arguments: argparse.Namespace) -> None:
    check_outputs({"--output": arguments.output, "--json": arguments.json}, [arguments.file, arguments.model])
    as_parquet = arguments.output is not None and arguments.output.suffix.lower() == _PARQUET
    if as_parquet:
        _pyarrow()
    model = _load(arguments.model)
    task, target, classes = model.metadata["task"], model.metadata["target"], model.metadata.get("classes")
    if arguments.probabilities and task != "classification":
        raise UsageError(f"--probabilities: {arguments.model} predicts a number, not a class")

    progress = shows_progress(arguments)
    x = tables.load(arguments.file, columns=model.metadata["columns"], progress=progress).x
    y = _outputs(model, x, progress)
    columns: dict[str, Array] = {target: y[:, 0]}
    probabilities: dict[str, Array] = {}
    if classes is not None:
        columns[target] = np.array(classes, dtype=object)[y.argmax(axis=1)]
        if arguments.probabilities:
            e = np.exp(y.astype(np.float64) - y.max(axis=1, keepdims=True))
            shares = (e / e.sum(axis=1, keepdims=True)).astype(y.dtype).T
            probabilities = {str(c): share for c, share in zip(classes, shares, strict=True)}
    header = [target, *(f"P({c})" for c in probabilities)]
    values = [columns[target], *probabilities.values()]
    if as_parquet:
        _write_parquet(arguments.output, header, values)
    elif arguments.output is not None:
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            _write_csv(file, header, values, progress)
    elif says(arguments):
        to_stdout(lambda stdout: _write_csv(stdout, header, values, progress))
    if arguments.json is not None:
        result = {"task": task, "target": target, "rows": len(y), "predictions": columns[target].tolist()}
        extra = {"probabilities": probabilities} if arguments.probabilities else {}
        files = {"model": arguments.model, "file": arguments.file, "output": arguments.output}
        write_json(arguments.json, {"command": "predict", "version": ts.__version__, **files, **result, **extra})


def _load(path: Path) -> ts.nn.Sequential:
    """Read a model that knows the columns of its table."""
    try:
        model = ts.nn.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    meta = model.metadata
    classes, outputs = meta.get("classes", [None]), model.layers[-1].out_features
    if not {"task", "target", "columns"} <= meta.keys() or len(classes) != outputs:
        raise UsageError(f"{path} does not say which columns it takes: it was not made by trainstep train FILE")
    return model


def _outputs(model: ts.nn.Sequential, x: Array, progress: bool) -> Array:
    parts = []
    with Amount("predicting", "rows", progress, len(x)) as amount:
        for first in range(0, len(x), _ROWS_AT_ONCE):
            parts.append(model.predict(x[first : first + _ROWS_AT_ONCE]))
            amount.reached(min(first + _ROWS_AT_ONCE, len(x)))
    return np.concatenate(parts)


def _write_csv(file: Any, header: list[str], values: list[Array], progress: bool) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    rows = len(values[0])
    with Amount("writing", "rows", progress, rows) as amount:
        for first in range(0, rows, _ROWS_AT_ONCE):
            writer.writerows(_lines([column[first : first + _ROWS_AT_ONCE] for column in values]))
            amount.reached(min(first + _ROWS_AT_ONCE, rows))


def _lines(columns: list[Array]) -> Iterator[tuple[str, ...]]:
    return zip(*(map(str, column) for column in columns), strict=True)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("predict: a .parquet file needs pyarrow: pip install trainstep[parquet]") from error
    return pyarrow, parquet


def _write_parquet(path: Path, header: list[str], values: list[Array]) -> None:
    pyarrow, parquet = _pyarrow()
    # Classes are Python's own objects here: of one type, as a model's metadata has them.
    arrays = [pyarrow.array(column.tolist() if column.dtype == object else column) for column in values]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=header), path)
