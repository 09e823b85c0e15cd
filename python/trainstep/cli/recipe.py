"""``trainstep recipe``: five steps from a table to settings that train."""

import argparse
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import trainstep as ts
from trainstep.cli import network, tables
from trainstep.cli.common import (
    Formatter,
    UsageError,
    add_json,
    add_no_progress,
    add_threads,
    check_outputs,
    count,
    says,
    seed,
    shows_progress,
    widths,
    write_json,
)
from trainstep.cli.problems import TABLES

DIGITS = "digits"
_EXAMPLES = """examples:
  trainstep recipe digits --report recipe.html
  trainstep recipe wine.csv --target kind --hidden 32 --json recipe.json"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    recipe = commands.add_parser(
        "recipe",
        help="find out in five steps how a network learns from a table, and with which settings",
        description="Five steps: the initial loss, a few batches learnt by heart, the learning rate, a grid of rates and decays, "
        "and the learning curves of the best. What each of them says is printed, with the calls that train with the settings.",
        epilog=_EXAMPLES,
        formatter_class=Formatter,
    )
    recipe.set_defaults(command=_recipe)
    recipe.add_argument("file", metavar="FILE", help=f"a table: FILE{', FILE'.join(TABLES)}; or {DIGITS}")
    recipe.add_argument("--target", metavar="NAME", help="the column to predict; the others hold numbers, with none missing")
    recipe.add_argument("--task", choices=("auto", "classification", "regression"), help="as for trainstep train")
    recipe.add_argument("--ignore", metavar="NAME", action="append", help="a column to leave out; may be repeated")
    recipe.add_argument("--hidden", type=widths, default="128,64", metavar="N,N", help="widths of the hidden layers")
    recipe.add_argument("--optimizer", default="adamw", metavar="NAME", help="an optimizer of trainstep.optim")
    recipe.add_argument("--epochs", type=count, default=20, metavar="N", help="how long the best is trained in the last step")
    recipe.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of split, weights and shuffling")
    recipe.add_argument("--report", type=Path, metavar="FILE.html", help="write a report with plots: one file, for any screen")
    add_threads(recipe)
    add_json(recipe, "the results of all steps, and the settings")
    add_no_progress(recipe)


def _recipe(arguments: argparse.Namespace) -> None:
    is_table = arguments.file != DIGITS
    check_outputs({"--json": arguments.json, "--report": arguments.report}, [Path(arguments.file)] if is_table else [])
    network.optimizer_class(arguments.optimizer)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("hidden", "optimizer", "epochs", "seed")}
    of_table = {name: getattr(arguments, name) for name in ("target", "task", "ignore") if getattr(arguments, name) is not None}
    if is_table:
        about, loading, x, y, more = _table(Path(arguments.file), of_table, shows_progress(arguments))
        options |= more
    else:
        for option in of_table:
            raise UsageError(f"--{option} is for tables, not for {arguments.file}")
        about, loading = "digits: 1,797 images, 64 pixels, 10 classes", "x, y = ts.data.load_digits()"
        x, y = ts.data.load_digits()
    try:
        recipe = ts.recipe.run(x, y, about=about, progress=shows_progress(arguments), **options)
    except ValueError as error:  # of the data: nothing has been trained
        raise UsageError(f"{arguments.file}: {error}") from error
    imports, _, rest = recipe.call.partition("\n\n")
    recipe = replace(recipe, call=f"{imports}\n\n{loading}\n{rest}")
    if arguments.report is not None:
        recipe.report(arguments.report)
    command = _command(arguments.file, of_table, recipe.settings)
    if says(arguments):
        print(f"{recipe}\n\n{command}\n\n{recipe.call}")
        if arguments.report is not None:
            print(f"\nreport  {arguments.report}")
    write_json(
        arguments.json,
        {"command": "recipe", "version": ts.__version__, **asdict(recipe), "train": command, "files": {"report": arguments.report}},
    )


def _table(path: Path, options: dict[str, Any], progress: bool) -> tuple[str, str, Any, Any, dict[str, Any]]:
    """Read a table: a line about it, the Python that reads it, x and y, and what `run` is told of them."""
    if "target" not in options:
        raise UsageError(f"--target NAME is needed: the column of {path} that is to be predicted")
    table = tables.load(path, **options, progress=progress)
    assert table.y is not None
    if len(table.y) < tables.FEWEST_ROWS:
        raise UsageError(f"{path}: {len(table.y)} rows, at least {tables.FEWEST_ROWS} are needed to train and to compare")
    if table.classes is not None:
        tables.check_classes(path, table)
    kinds = "" if table.classes is None else f", {len(table.classes)} classes"
    about = f'{path}: {table.task} of "{table.target}"{kinds}, {len(table.columns)} columns, {len(table.y):,} rows'
    shown = "".join(f", {name}={value!r}" for name, value in options.items())
    loading = f"table = ts.data.load_table({str(path)!r}{shown})\nx, y = table.x, table.y"
    held = (table.x,) if table.classes is not None else (table.x, table.y[:, None])
    return about, loading, table.x, table.y, {"task": table.task, "dtype": tables._dtype(*held)}


def _command(file: str, of_table: dict[str, Any], settings: dict[str, Any]) -> str:
    """Write the call of ``trainstep train`` that has these settings."""
    words = ["trainstep", "train", file]
    for name, value in of_table.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name}", each]
    words += ["--hidden", ",".join(map(str, settings["hidden"])), "--optimizer", settings["optimizer"].lower()]
    words += ["--lr", f"{settings['lr']:g}"]
    if "weight_decay" in network.optimizer_class(settings["optimizer"])().defaults:
        words += ["--weight-decay", f"{settings['weight_decay']:g}"]
    words += ["--batch-size", str(settings["batch_size"]), "--epochs", str(settings["epochs"])]
    if settings["seed"]:
        words += ["--seed", str(settings["seed"])]
    return shlex.join(words)
