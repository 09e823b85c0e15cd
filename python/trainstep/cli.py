"""The command line: ``trainstep info``, ``selftest``, ``train``, ``predict`` and ``bench``.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on stderr.

Heavy modules are imported where they are used, so that ``--help`` and errors of usage answer at once.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from trainstep import History, Trainer

DATASETS = ("digits",)
TABLES = (".csv", ".npz")
DEFAULT_PLOT = Path("learning-curves.png")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


class UsageError(Exception):
    """The command was called in a wrong way: exit status 2."""


class Interrupted(Exception):
    """Ctrl-C came during training: exit status 130."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that leaves it to main() to print errors, in one line and without the usage."""

    def error(self, message: str) -> NoReturn:
        """Hand the message to main()."""
        raise UsageError(message)


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
    parser = Parser(prog="trainstep", description="Train dense networks fast on CPUs.")
    parser.add_argument("--version", action="version", version=f"trainstep {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    info = commands.add_parser("info", help="show version, instruction set, threads and compiler")
    info.set_defaults(command=_info)

    selftest = commands.add_parser("selftest", help="hold every compiled kernel to the reference, on every ISA level")
    selftest.set_defaults(command=_selftest)

    train = commands.add_parser(
        "train",
        help="train a network on a data set and test it on held-out data",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    train.set_defaults(command=_train)
    _add_table_options(train)
    predict = commands.add_parser("predict", help="predict the target of a table with a model that train saved")
    _add_predict_options(predict)
    # These defaults: test accuracy 0.972 or more in 40 of 40 runs (24 initial weights on the split of seed 0, 16 other
    # seeds), on average 0.984 over splits. With 128,64 and lr 1e-3, 2 of 12 seeds stayed below 0.97. NumPy, float32.
    train.add_argument("dataset", metavar="DATASET", help=f"{', '.join(DATASETS)}, or a table: FILE.csv, FILE.npz")
    train.add_argument("--hidden", type=_widths, default="256,128", metavar="N,N", help="widths of the hidden layers")
    train.add_argument("--epochs", type=_count, default=30, metavar="N", help="passes over the training data")
    train.add_argument("--batch-size", type=_count, default=32, metavar="N", help="rows (of digits: images) per step")
    train.add_argument("--lr", type=_rate, default=5e-3, metavar="RATE", help="learning rate")
    train.add_argument("--optimizer", default="adam", metavar="NAME", help="an optimizer of trainstep.optim")
    train.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of split, weights and shuffling")
    train.add_argument("--save", type=Path, metavar="FILE", help="write the trained model here (.safetensors)")
    train.add_argument(
        "--plot", type=Path, default=DEFAULT_PLOT, metavar="FILE", help="write the learning curves here, as an image"
    )
    train.add_argument("--no-progress", action="store_true", default=argparse.SUPPRESS, help="show no progress bar")

    bench = commands.add_parser("bench", help="measure this machine's roofline, training steps, products and calls, against NumPy")
    bench.set_defaults(command=_bench)
    bench.add_argument("--quick", action="store_true", help="some seconds, to see that it works: not figures to quote")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all figures and samples here")
    return parser


def _add_table_options(train: argparse.ArgumentParser) -> None:
    # No option has a default here: one that was given for digits is an error.
    table = train.add_argument_group("of a table", "All its columns but the target must hold numbers, with none missing.")
    table.add_argument("--target", metavar="NAME", default=argparse.SUPPRESS, help="the column to predict")
    table.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default=argparse.SUPPRESS,
        help="auto, the default: classification where the target is text, or whole numbers of at most 20 different values; "
        "else regression",
    )
    table.add_argument(
        "--ignore", metavar="NAME", action="append", default=argparse.SUPPRESS, help="a column to leave out; may be repeated"
    )


def _add_predict_options(predict: argparse.ArgumentParser) -> None:
    predict.set_defaults(command=_predict)
    predict.add_argument("model", metavar="MODEL", type=Path, help="what trainstep train FILE --save MODEL wrote")
    predict.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a table (.csv, .npz) with the model's columns, in any order; others are not looked at",
    )
    predict.add_argument("--output", metavar="FILE.csv", type=Path, help="where the predictions go; default: the standard output")
    predict.add_argument("--probabilities", action="store_true", help="also write the probability of each class")


def _version() -> str:
    from trainstep import __version__

    return __version__


def _number(text: str, convert: Callable[[str], Any], good: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = convert(text)
    except ValueError:
        value = None
    if value is None or not good(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _count(text: str) -> int:
    return int(_number(text, int, lambda n: n >= 1, "a whole number of 1 or more"))


def _seed(text: str) -> int:
    return int(_number(text, int, lambda n: 0 <= n < 2**63, "a whole number of 0 or more, below 2^63"))


def _rate(text: str) -> float:
    return float(_number(text, float, lambda r: r > 0 and math.isfinite(r), "a number above 0"))


def _widths(text: str) -> list[int]:
    try:
        return [_count(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 128,64") from None


def _info(arguments: argparse.Namespace) -> None:
    import trainstep

    trainstep.show_config()


def _selftest(arguments: argparse.Namespace) -> None:
    import trainstep

    result = trainstep.selftest()
    print(result)
    if not result.ok:
        raise RuntimeError(f"selftest: {len(result.failures)} of {len(result.rows)} checks failed")


@dataclass
class Problem:
    """What train is to learn: the data, the network's ends and its loss, and what is said and saved of it."""

    about: str
    data: tuple[Any, Any]  # x, y
    test_data: tuple[Any, Any]
    outputs: int
    loss: str = "softmax_cross_entropy"
    first: list[Any] = field(default_factory=list)  # layers before the dense ones
    dtype: str = "float32"
    metadata: dict[str, Any] = field(default_factory=dict)
    results: "Callable[[Trainer], dict[str, str]] | None" = None  # of the trained network; None: its accuracy


def _digits(arguments: argparse.Namespace) -> Problem:
    for option in ("target", "task", "ignore"):
        if hasattr(arguments, option):
            raise UsageError(f"--{option} is for tables, not for {arguments.dataset}")
    import trainstep as ts

    x, x_test, y, y_test = ts.data.train_test_split(*ts.data.load_digits(), test_size=0.2, seed=arguments.seed)
    about = f"{arguments.dataset}: {len(x):,} training images, {len(x_test):,} held-out test images"
    return Problem(about, (x, y), (x_test, y_test), outputs=10)


def _table(arguments: argparse.Namespace) -> Problem:
    from trainstep import cli_tables

    return cli_tables.problem(arguments)


def _predict(arguments: argparse.Namespace) -> None:
    from trainstep import cli_tables

    cli_tables.predict(arguments)


def _bench(arguments: argparse.Namespace) -> None:
    _check_file("--json", arguments.json)

    from trainstep.bench import suite

    suite.main(arguments.quick, arguments.json)


def _train(arguments: argparse.Namespace) -> None:
    # All that can be wrong with the call is looked at first: nobody trains for an hour to learn of a typing error.
    is_table = Path(arguments.dataset).suffix.lower() in TABLES
    if not is_table and arguments.dataset not in DATASETS:
        raise UsageError(
            f"unknown data set {arguments.dataset!r}, choose from {', '.join(DATASETS)}, or a file that ends in {', '.join(TABLES)}"
        )
    _check_file("--save", arguments.save)
    _check_file("--plot", arguments.plot)
    if arguments.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot: {arguments.plot} ends in none of {', '.join(PLOT_SUFFIXES)}")
    optimizer_class = _optimizer_class(arguments.optimizer)

    import trainstep as ts

    problem = _table(arguments) if is_table else _digits(arguments)
    x, y = problem.data
    widths = [x.shape[1], *arguments.hidden, problem.outputs]
    layers = [ts.nn.Dense(i, o, activation="relu") for i, o in pairwise(widths[:-1])]
    last = ts.nn.Dense(widths[-2], widths[-1])
    model = ts.nn.Sequential(*problem.first, *layers, last, seed=arguments.seed, dtype=problem.dtype)
    model.metadata.update(problem.metadata)
    trainer = ts.Trainer(model, loss=problem.loss, optimizer=optimizer_class(lr=arguments.lr))

    print(problem.about)
    dtype = "" if problem.dtype == "float32" else f" in {problem.dtype}"
    print(
        f"network {'-'.join(map(str, widths))}, {model.num_parameters:,} parameters{dtype}; {optimizer_class.__name__}, "
        f"lr {arguments.lr:g}, batch {arguments.batch_size}, {arguments.epochs} epochs, seed {arguments.seed}",
        flush=True,  # before the progress bar, which goes to stderr
    )
    start = time.perf_counter()
    try:
        history = trainer.fit(
            x,
            y,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            # For the curves only. Nothing is chosen by it, so the test part stays held out.
            validation_data=problem.test_data,
            progress=not getattr(arguments, "no_progress", False),
        )
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted after {trainer.steps:,} steps") from None
    seconds = time.perf_counter() - start

    results = (problem.results or _accuracy(*problem.test_data))(trainer)
    if arguments.save is not None:
        model.save(arguments.save)
    config = ts.config()
    _print_aligned(
        {
            **results,
            "total time": f"{seconds:.2f} s ({trainer.steps:,} steps)",
            "time per step": f"{_microseconds_per_step(history, seconds, trainer.steps):.1f} us",
            "ISA level": str(config["isa"]),
            "threads": str(config["num_threads"]),
            **({} if arguments.save is None else {"model": str(arguments.save)}),
            "learning curves": _plot(history, arguments.plot),
        }
    )


def _accuracy(x: Any, y: Any) -> "Callable[[Trainer], dict[str, str]]":
    def results(trainer: "Trainer") -> dict[str, str]:
        accuracy = trainer.evaluate(x, y)["accuracy"]
        return {"test accuracy": f"{accuracy:.4f} ({round(accuracy * len(y))} of {len(y)})"}

    return results


def _microseconds_per_step(history: "History", total: float, steps: int) -> float:
    # An epoch's own seconds leave out what fit does around the epochs; without them the whole time has to do.
    return sum(history.history.get("seconds", [total])) / max(steps, 1) * 1e6


def _plot(history: "History", path: Path) -> str:
    """Draw the curves and return what is to be said about them."""
    try:
        history.plot(path)
    except ImportError:
        return "skipped, matplotlib is not installed (pip install trainstep[plot])"
    return str(path)


def _print_aligned(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def _check_file(option: str, path: Path | None) -> None:
    """Raise UsageError unless a file can be written at this path."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no directory {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option}: {path} cannot be written, permission denied")


def _optimizer_class(name: str) -> Any:
    """Look an optimizer up by its class name, in any case."""
    from trainstep import optim

    public = {attribute.lower(): getattr(optim, attribute) for attribute in optim.__all__}
    classes = {key: value for key, value in public.items() if isinstance(value, type) and key != "optimizer"}
    if name.lower() not in classes:
        raise UsageError(f"--optimizer: unknown name {name!r}, choose from {', '.join(classes)}")
    return classes[name.lower()]
