"""Tables: what ``trainstep train FILE --target NAME`` learns."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import trainstep as ts
from trainstep.cli.common import UsageError
from trainstep.cli.problems import TEST_SHARE, Array, Measure, Problem, accuracy, split, with_validation

FEWEST_ROWS = 10


def load(path: Path, **options: Any) -> ts.data.Table:
    """Read a table; what is wrong with it is wrong usage."""
    try:
        return ts.data.load_table(path, **options)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def problem(arguments: argparse.Namespace, progress: bool) -> Problem:
    """Read the table that ``trainstep train`` was called with, and say how to learn from it."""
    path = Path(arguments.dataset)
    options = {name: getattr(arguments, name) for name in ("target", "task", "ignore") if getattr(arguments, name) is not None}
    table = load(path, **options, progress=progress)
    assert table.y is not None
    if len(table.y) < FEWEST_ROWS:
        raise UsageError(f"{path}: {len(table.y)} rows, at least {FEWEST_ROWS} are needed to train and to test")
    learn = _classification if table.task == "classification" else _regression
    try:
        return learn(path, table, arguments)
    except ValueError as error:  # of the split
        raise UsageError(f"{path}: {error}") from error


def check_classes(path: Path, table: ts.data.Table) -> None:
    """Raise UsageError where a class cannot be split."""
    assert table.y is not None
    assert table.classes is not None
    for c in np.flatnonzero(np.bincount(table.y) < 2)[:1]:
        raise UsageError(
            f'{path}: class {table.classes[c]} of column "{table.target}" has one row, at least 2 are needed to train and to test'
            + ("" if isinstance(table.classes[c], str) else " (or is it a number to predict: --task regression?)")
        )


def _classification(path: Path, table: ts.data.Table, arguments: argparse.Namespace) -> Problem:
    check_classes(path, table)
    assert table.y is not None
    assert table.classes is not None
    train, test = split(table.x, table.y, TEST_SHARE, arguments.seed)
    train, validation = with_validation(arguments, train)
    return Problem(
        f'{path}: classification of "{table.target}", {len(table.classes)} classes, {len(table.columns)} columns; ',
        "rows",
        train,
        test,
        len(table.classes),
        accuracy(*test),
        validation,
        first=[ts.nn.Standardize(table.x.shape[1])],
        dtype=_dtype(table.x),
        metadata={**_metadata(table), "classes": list(table.classes)},
    )


def _regression(path: Path, table: ts.data.Table, arguments: argparse.Namespace) -> Problem:
    assert table.y is not None
    train, (x_test, y_test) = split(table.x, table.y, TEST_SHARE, arguments.seed, stratify=False)
    train, validation = with_validation(arguments, train, stratify=False)
    # Learnt with mean 0 and standard deviation 1, so that neither the loss nor what the learning rate does depends on the unit.
    mean, std = train[1].mean(), train[1].std() or 1.0

    def scaled(x: Array, y: Array) -> tuple[Array, Array]:
        return x, (y[:, None] - mean) / std

    def finish(model: ts.nn.Sequential) -> None:
        # From here on the last layer, which is linear, gives the target in its own unit.
        last = len(model.layers) - 1
        weight, bias = model.parameters()[f"{last}.weight"], model.parameters()[f"{last}.bias"]
        weight *= std
        bias[...] = bias * std + mean

    def measure(model: ts.nn.Sequential) -> list[Measure]:
        errors = np.sum((model.predict(x_test)[:, 0].astype(np.float64) - y_test) ** 2)
        spread = np.sum((y_test - y_test.mean()) ** 2)
        rmse, r2 = float(np.sqrt(errors / len(y_test))), float(1 - errors / spread) if spread > 0 else None
        return [
            Measure("test_rmse", "test RMSE", f"{rmse:.6g} (standard deviation of the test targets: {y_test.std():.6g})", rmse),
            Measure("test_r2", "test R^2", "none, all test targets are equal" if r2 is None else f"{r2:.4f}", r2),
        ]

    return Problem(
        f'{path}: regression of "{table.target}", {len(table.columns)} columns; ',
        "rows",
        scaled(*train),
        scaled(x_test, y_test),
        1,
        measure,
        None if validation is None else scaled(*validation),
        task="regression",
        first=[ts.nn.Standardize(table.x.shape[1])],
        dtype=_dtype(table.x, table.y[:, None]),
        metadata=_metadata(table),
        finish=finish,
        unscale=lambda y: y * std + mean,
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
