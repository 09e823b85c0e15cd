"""Tables on the command line: what ``trainstep train FILE --target NAME`` learns, and ``trainstep predict``."""

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trainstep as ts
from trainstep.cli import Problem, UsageError, _check_file

Array = NDArray[Any]
FEWEST_ROWS = 10


def load(path: Path, **options: Any) -> ts.data.Table:
    """Read a table; what is wrong with it is wrong usage."""
    try:
        return ts.data.load_table(path, **options)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def problem(arguments: argparse.Namespace) -> Problem:
    """Read the table that ``trainstep train`` was called with, and say how to learn from it."""
    path = Path(arguments.dataset)
    options = {name: value for name, value in vars(arguments).items() if name in ("target", "task", "ignore")}
    if "target" not in options:
        raise UsageError(f"--target NAME is needed: the column of {path} that is to be predicted")
    table = load(path, **options)
    assert table.y is not None
    if len(table.y) < FEWEST_ROWS:
        raise UsageError(f"{path}: {len(table.y)} rows, at least {FEWEST_ROWS} are needed to train and to test")
    learn = _classification if table.task == "classification" else _regression
    try:
        return learn(path, table, arguments.seed)
    except ValueError as error:  # of the split
        raise UsageError(f"{path}: {error}") from error


def _classification(path: Path, table: ts.data.Table, seed: int) -> Problem:
    assert table.y is not None
    assert table.classes is not None
    members = np.bincount(table.y)
    for c in np.flatnonzero(members < 2)[:1]:
        raise UsageError(
            f'{path}: class {table.classes[c]} of column "{table.target}" has one row, at least 2 are needed to train and to test'
            + ("" if isinstance(table.classes[c], str) else " (or is it a number to predict: --task regression?)")
        )
    x, x_test, y, y_test = ts.data.train_test_split(table.x, table.y, seed=seed)
    return Problem(
        f'{path}: classification of "{table.target}", {len(table.classes)} classes, {len(table.columns)} columns; '
        f"{len(x):,} training rows, {len(x_test):,} held-out test rows",
        (x, y),
        (x_test, y_test),
        outputs=len(table.classes),
        first=[ts.nn.Standardize(x.shape[1])],
        dtype=_dtype(table.x),
        metadata={**_metadata(table), "classes": list(table.classes)},
    )


def _regression(path: Path, table: ts.data.Table, seed: int) -> Problem:
    assert table.y is not None
    x, x_test, y, y_test = ts.data.train_test_split(table.x, table.y, stratify=False, seed=seed)
    # Learnt with mean 0 and standard deviation 1, so that neither the loss nor what the learning rate does depends on the unit.
    mean, std = y.mean(), y.std() or 1.0

    def results(trainer: ts.Trainer) -> dict[str, str]:
        model = trainer.model
        # From here on the last layer, which is linear, gives the target in its own unit.
        last = len(model.layers) - 1
        weight, bias = model.parameters()[f"{last}.weight"], model.parameters()[f"{last}.bias"]
        weight *= std
        bias[...] = bias * std + mean
        errors = np.sum((model.predict(x_test)[:, 0].astype(np.float64) - y_test) ** 2)
        spread = np.sum((y_test - y_test.mean()) ** 2)
        return {
            "test RMSE": f"{np.sqrt(errors / len(y_test)):.6g} (standard deviation of the test targets: {y_test.std():.6g})",
            "test R^2": f"{1 - errors / spread:.4f}" if spread > 0 else "none, all test targets are equal",
        }

    return Problem(
        f'{path}: regression of "{table.target}", {len(table.columns)} columns; '
        f"{len(x):,} training rows, {len(x_test):,} held-out test rows",
        (x, (y[:, None] - mean) / std),
        (x_test, (y_test[:, None] - mean) / std),
        outputs=1,
        loss="mse",
        first=[ts.nn.Standardize(x.shape[1])],
        dtype=_dtype(table.x, table.y[:, None]),
        metadata=_metadata(table),
        results=results,
    )


def _metadata(table: ts.data.Table) -> dict[str, Any]:
    return {"task": table.task, "target": table.target, "columns": list(table.columns)}


def _dtype(*tables: Array) -> str:
    """Give float32, or float64 where float32 would shift values of a column by more than a thousandth of its spread."""
    for table in tables:
        spread = np.ptp(table.astype(np.float64), axis=0)
        with np.errstate(over="ignore"):
            held = table.astype(np.float32)
        shift = np.abs(table - held.astype(np.float64)).max(axis=0)
        # Squares and products of what is learnt need room too.
        varies = spread > 0
        if (shift > 1e-3 * spread)[varies].any() or np.abs(held).max() > 1e30 or (spread[varies] < 1e-30).any():
            return "float64"
    return "float32"


def predict(arguments: argparse.Namespace) -> None:
    """Run ``trainstep predict``: a saved model on the rows of a table."""
    _check_file("--output", arguments.output)
    if arguments.output and arguments.output.exists() and arguments.output.samefile(arguments.file):
        raise UsageError(f"--output: {arguments.output} is the table itself")
    try:
        model = ts.nn.load(arguments.model)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    meta = model.metadata
    classes, outputs = meta.get("classes", [None]), model.layers[-1].out_features
    if not {"task", "target", "columns"} <= meta.keys() or len(classes) != outputs:
        raise UsageError(f"{arguments.model} does not say which columns it takes: it was not made by trainstep train FILE")
    if arguments.probabilities and meta["task"] != "classification":
        raise UsageError(f"--probabilities: {arguments.model} predicts a number, not a class")

    y = model.predict(load(arguments.file, columns=meta["columns"]).x)
    header, columns = [meta["target"]], [y[:, 0]]
    if meta["task"] == "classification":
        columns = [np.array(classes, dtype=object)[y.argmax(axis=1)]]
        if arguments.probabilities:
            header += [f"P({c})" for c in classes]
            e = np.exp(y.astype(np.float64) - y.max(axis=1, keepdims=True))
            columns += list((e / e.sum(axis=1, keepdims=True)).astype(y.dtype).T)
    lines = zip(*(map(str, column) for column in columns), strict=True)
    if arguments.output is None:
        try:
            _write(sys.stdout, header, lines)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads, `head` for one, has had enough; the flush at exit would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            _write(file, header, lines)


def _write(file: Any, header: list[str], lines: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
