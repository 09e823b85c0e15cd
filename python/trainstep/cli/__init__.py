"""The command line: ``trainstep info``, ``selftest``, ``train``, ``predict``, ``recipe`` and ``bench``.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on stderr.

A command is a module of this package with a function ``add(commands)`` that makes its parser; what several of them need is in
``common``.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from trainstep import num_threads
from trainstep.cli import machine, predict, recipe, train
from trainstep.cli.common import Interrupted, Parser, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments. Default: those of the process.

    Returns
    -------
    status : int
        0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Examples
    --------
    >>> from trainstep.cli import main
    >>> main(["train", "digits", "--epochs", "0"])  # says on stderr that --epochs wants 1 or more
    2
    """
    try:
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], None] = arguments.command
        threads = getattr(arguments, "threads", None)
        with nullcontext() if threads is None else num_threads(threads):
            command(arguments)
    except SystemExit as exit_:  # argparse after --help and --version
        return int(exit_.code or 0)
    except UsageError as error:
        return _fail(f"error: {error}", 2)
    except Interrupted as error:
        return _fail(str(error), 130)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:  # whatever went wrong, the user gets one line
        return _fail(f"error: {error or type(error).__name__}", 1)
    return 0


def _fail(message: str, status: int) -> int:
    print("trainstep:", " ".join(message.split()), file=sys.stderr)
    return status


def _parser() -> Parser:
    from trainstep import __version__

    parser = Parser(prog="trainstep", description="Train dense networks fast on CPUs.")
    parser.add_argument("--version", action="version", version=f"trainstep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (machine, train, predict, recipe):
        module.add(commands)
    return parser
