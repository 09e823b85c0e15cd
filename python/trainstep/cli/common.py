"""What the commands have in common: errors, types of options, checks of paths, and how results are said."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from trainstep._files import check_whole_file
from trainstep._runtime import MOST_THREADS

STDOUT = Path("-")  # where --json may go, besides a file


class UsageError(Exception):
    """The command was called in a wrong way: exit status 2."""


class Interrupted(Exception):
    """Ctrl-C came during training: exit status 130."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes whole names, and leaves it to main() to print errors, in one line and without the usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Hand the message to main()."""
        raise UsageError(message)


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that names the default of each option that does something without being given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


# --- types of options ------------------------------------------------------------------------------------------------------------


def _number(text: str, convert: Callable[[str], Any], good: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = convert(text)
    except ValueError:
        value = None
    if value is None or not good(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def count(text: str) -> int:
    """Read a whole number of 1 or more."""
    return int(_number(text, int, lambda n: n >= 1, "a whole number of 1 or more"))


def natural(text: str) -> int:
    """Read a whole number of 0 or more."""
    return int(_number(text, int, lambda n: n >= 0, "a whole number of 0 or more"))


def seed(text: str) -> int:
    """Read a seed."""
    return int(_number(text, int, lambda n: 0 <= n < 2**63, "a whole number of 0 or more, below 2^63"))


def positive(text: str) -> float:
    """Read a finite number above 0."""
    return float(_number(text, float, lambda r: r > 0 and math.isfinite(r), "a number above 0"))


def at_least_0(text: str) -> float:
    """Read a finite number of 0 or more."""
    return float(_number(text, float, lambda r: r >= 0 and math.isfinite(r), "a number of 0 or more"))


def share(text: str) -> float:
    """Read a share from 0 up to, but not with, 1."""
    return float(_number(text, float, lambda r: 0 <= r < 1, "a number of 0 or more, below 1"))


def threads(text: str) -> int:
    """Read a number of threads."""
    return int(_number(text, int, lambda n: 1 <= n <= MOST_THREADS, f"a whole number from 1 to {MOST_THREADS}"))


def part(text: str) -> float:
    """Read a share between 0 and 1."""
    return float(_number(text, float, lambda r: 0 < r < 1, "a number between 0 and 1"))


def widths(text: str) -> list[int]:
    """Read numbers of units."""
    try:
        return [int(_number(number, int, lambda n: 1 <= n < 2**31, "a width")) for number in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 128,64, each from 1 to 2^31 - 1") from None


# --- paths -----------------------------------------------------------------------------------------------------------------------


# What is written beside the path first, and takes its place as a whole.
WHOLE_FILES = ("--save", "--log", "--checkpoint")


def check_file(option: str, path: Path | None) -> None:
    """Raise UsageError unless a file can be written at this path."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no directory {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option}: {path} cannot be written, permission denied")
    if option in WHOLE_FILES:
        try:
            check_whole_file(str(path))
        except OSError as error:
            raise UsageError(f"{option}: {path} cannot be written, {str(error.strerror).lower()}") from None


def check_directory(option: str, path: Path | None) -> None:
    """Raise UsageError unless files can be written into this directory, which may have to be made."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise UsageError(f"{option}: {path} is no directory")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option}: {path} cannot be written, permission denied")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path] = ()) -> None:
    """Raise UsageError unless each output can be written, and none lies where another does, or what is read."""
    seen = {os.path.realpath(path): f"{path} is a file that is read" for path in inputs}
    for option, path in outputs.items():
        if path is None or path == STDOUT:
            continue
        check_file(option, path)
        place = os.path.realpath(path)
        if place in seen:
            raise UsageError(f"{option}: {seen[place]}")
        seen[place] = f"{path} is where {option} writes"


# --- what is said ----------------------------------------------------------------------------------------------------------------


def counted(number: int, what: str) -> str:
    """Say how many there are: 1 epoch, 2 epochs."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def add_threads(parser: Any) -> None:
    """Add the option --threads, which main() sees to."""
    parser.add_argument(
        "--threads",
        type=threads,
        metavar="N",
        help="calculate with at most N threads: the results are the same",
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option --json."""
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write {what} as JSON; -: to stdout, and nothing else there")


def add_no_progress(parser: Any) -> None:
    """Add the option --no-progress."""
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar; without a terminal there is none")


def shows_progress(arguments: argparse.Namespace) -> bool:
    """Whether somebody may look at a progress bar."""
    return not (arguments.no_progress or getattr(arguments, "quiet", False)) and sys.stderr is not None and sys.stderr.isatty()


def says(arguments: argparse.Namespace) -> bool:
    """Whether words go to stdout."""
    return not getattr(arguments, "quiet", False) and arguments.json != STDOUT


def print_aligned(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def write_json(path: Path | None, data: Mapping[str, Any]) -> None:
    """Write an object to where --json says, if it does; a number that is not finite becomes null."""
    if path is None:
        return
    text = json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path == STDOUT:
        to_stdout(lambda stdout: stdout.write(text))
    else:
        path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def to_stdout(write: Callable[[TextIO], object]) -> None:
    """Write to stdout for as long as somebody reads: `head`, for one, may have had enough."""
    try:
        write(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # the flush at exit would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
