"""``trainstep train``: options, a network, a training run, and what came of it."""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import trainstep as ts
from trainstep.cli import checkpoints, network, problems
from trainstep.cli.common import (
    Formatter,
    Interrupted,
    UsageError,
    add_json,
    add_no_progress,
    check_outputs,
    count,
    part,
    print_aligned,
    says,
    seed,
    shows_progress,
    write_json,
)
from trainstep.cli.problems import DATASETS, TABLES, Problem

DEFAULT_PLOT = Path("learning-curves.png")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")
_EXAMPLES = """examples:
  trainstep train digits
  trainstep train wine.csv --target kind --hidden 32 --save wine.safetensors
  trainstep train mnist DIR --hidden 512,512 --dropout 0.2 --schedule cosine --warmup 1epoch --checkpoint run.ckpt --resume"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    train = commands.add_parser(
        "train",
        help="train a network on a data set and test it on held-out data",
        usage="trainstep train DATASET [PATH] [options]",
        description="Train a network on a data set or a table, and test it on a fifth of the rows, or on mnist's own test part.",
        epilog=_EXAMPLES,
        formatter_class=Formatter,
    )
    train.set_defaults(command=_train)
    train.add_argument("dataset", metavar="DATASET", help=f"{', '.join(DATASETS)}, or a table: FILE{', FILE'.join(TABLES)}")
    train.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="of mnist: the directory of its IDX files, or an .npz")
    table = train.add_argument_group("of a table", "All its columns but the target must hold numbers, with none missing.")
    table.add_argument("--target", metavar="NAME", help="the column to predict")
    table.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        help="auto, the default: classification where the target is text, or whole numbers of at most 20 different values; "
        "else regression",
    )
    table.add_argument("--ignore", metavar="NAME", action="append", help="a column to leave out; may be repeated")
    network.add_network(train)
    training = train.add_argument_group("training")
    training.add_argument("--epochs", type=count, default=30, metavar="N", help="passes over the training data")
    training.add_argument("--batch-size", type=_batch_size, default=32, metavar="N", help="rows per step; sqrt: the root of all")
    training.add_argument("--accumulate", type=count, default=1, metavar="K", help="make one step of the gradients of K batches")
    training.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of split, weights and shuffling")
    training.add_argument(
        "--validation",
        type=part,
        metavar="SHARE",
        help="hold out this share of the training rows too, to choose by; default: none",
    )
    network.add_optimizer(train)
    network.add_penalties(train)
    files = train.add_argument_group("files")
    files.add_argument("--save", type=Path, metavar="FILE", help="write the trained model here (.safetensors)")
    files.add_argument("--plot", type=Path, default=DEFAULT_PLOT, metavar="FILE", help="write the learning curves here: an image")
    files.add_argument("--checkpoint", type=Path, metavar="FILE", help="keep the whole run here, so that it can go on")
    files.add_argument("--every", type=count, metavar="N", help="epochs from checkpoint to checkpoint; default: 1")
    files.add_argument("--resume", action="store_true", help="go on from the checkpoint if it is there, until --epochs in all")
    add_json(files, "settings, history and results")
    output = train.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_no_progress(output)


def _batch_size(text: str) -> int | str:
    return text if text == "sqrt" else count(text)


def _check(arguments: argparse.Namespace) -> None:
    """Look at all that can be wrong with the call: nobody trains for an hour to learn of a typing error."""
    problems.check(arguments)
    network.check_network(arguments)
    network.check_schedule(arguments)
    try:
        network.optimizer(arguments, arguments.lr)
    except ValueError as error:
        raise UsageError(str(error)) from error
    outputs = {"--save": arguments.save, "--plot": arguments.plot, "--checkpoint": arguments.checkpoint, "--json": arguments.json}
    check_outputs(outputs, problems.inputs(arguments))
    if arguments.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot: {arguments.plot} ends in none of {', '.join(PLOT_SUFFIXES)}")
    checkpoints.check(arguments)


def _train(arguments: argparse.Namespace) -> None:
    _check(arguments)
    progress = shows_progress(arguments)
    problem = problems.load(arguments, progress)
    x, y = problem.train
    batch_size = max(1, round(math.sqrt(len(x)))) if arguments.batch_size == "sqrt" else arguments.batch_size
    rate = network.learning_rate(arguments, epoch=-(-len(x) // (batch_size * arguments.accumulate)))
    run = checkpoints.run_of(arguments, network.needs_epochs(arguments), problem.sizes)
    trainer = checkpoints.resumed(arguments, run) or _trainer(arguments, problem, rate)
    model, begun = trainer.model, trainer.steps
    if says(arguments):
        print(problem.about())
        print(_described(arguments, trainer, batch_size))
        if begun:
            print(f"goes on from {arguments.checkpoint}, after {trainer.epoch} epochs, {begun:,} steps")
        sys.stdout.flush()  # before the progress bar, which goes to stderr
    callbacks: list[ts.callbacks.Callback] = []
    if arguments.checkpoint is not None:
        callbacks.append(checkpoints.Saver(arguments.checkpoint, arguments.every or 1, run))
    start = time.perf_counter()
    try:
        trainer.fit(
            x,
            y,
            until_epoch=arguments.epochs,
            batch_size=batch_size,
            accumulate=arguments.accumulate,
            # The test part for the curves only. Nothing is chosen by it, so it stays held out.
            validation_data=problem.validation or problem.test,
            progress=progress,
            callbacks=callbacks,
        )
    except KeyboardInterrupt:
        where = "" if arguments.checkpoint is None else f"; the same command with --resume goes on from {arguments.checkpoint}"
        raise Interrupted(f"interrupted after {trainer.steps:,} steps{where}") from None
    seconds, history = time.perf_counter() - start, trainer.history

    problem.finish(model)
    measures = problem.measure(model)
    if arguments.save is not None:
        model.save(arguments.save)
    curves = _plot(history, arguments.plot)
    # An epoch's own seconds leave out what fit does around the epochs.
    step = sum(history.history.get("seconds", [seconds])) / max(trainer.steps, 1) * 1e6
    config = ts.config()
    if says(arguments):
        print_aligned(
            {
                **{measure.label: measure.text for measure in measures},
                "total time": f"{seconds:.2f} s ({trainer.steps - begun:,} steps)",
                "time per step": f"{step:.1f} us",
                "ISA level": str(config["isa"]),
                "threads": str(config["num_threads"]),
                **({} if arguments.save is None else {"model": str(arguments.save)}),
                "learning curves": str(curves or "skipped, matplotlib is not installed (pip install trainstep[plot])"),
            }
        )
    write_json(
        arguments.json,
        {
            "command": "train",
            "version": ts.__version__,
            "settings": _settings(arguments, trainer, batch_size),
            "data": {"rows": problem.sizes, "columns": x.shape[1], "outputs": problem.outputs, **problem.metadata},
            "history": {"epoch": history.epoch, **history.history},
            "results": {measure.name: measure.value for measure in measures},
            "time": {"seconds": seconds, "steps": trainer.steps - begun, "microseconds_per_step": step},
            "machine": {"isa": config["isa"], "threads": config["num_threads"]},
            "files": {"model": arguments.save, "curves": curves, "checkpoint": arguments.checkpoint},
        },
    )


def _trainer(arguments: argparse.Namespace, problem: Problem, rate: Any) -> ts.Trainer:
    inner = network.layers(arguments, problem.train[0].shape[1], problem.outputs)
    model = ts.nn.Sequential(*problem.first, *inner, seed=arguments.seed, dtype=arguments.dtype or problem.dtype)
    model.metadata.update(problem.metadata)
    problem.prepare(model)
    return ts.Trainer(
        model,
        loss=_loss(arguments, problem),
        optimizer=network.optimizer(arguments, rate),
        clip_norm=arguments.clip_norm,
        l1=arguments.l1,
        l2=arguments.l2,
        max_norm=arguments.max_norm,
    )


def _loss(arguments: argparse.Namespace, problem: Problem) -> ts.losses.Loss:
    if problem.task == "classification":
        return ts.losses.SoftmaxCrossEntropy(label_smoothing=arguments.label_smoothing or 0.0)
    if arguments.label_smoothing is not None:
        raise UsageError("--label-smoothing is for classification, not for regression")
    return ts.losses.MSE()


def _widths(model: ts.nn.Sequential) -> list[int]:
    dense = [layer for outer in model.layers for layer in getattr(outer, "layers", (outer,)) if isinstance(layer, ts.nn.Dense)]
    return [dense[0].in_features, *(layer.out_features for layer in dense)]


def _described(arguments: argparse.Namespace, trainer: ts.Trainer, batch_size: int) -> str:
    """Say in a line what is trained and how: what is as it is by default is left out, but for the numbers that matter most."""
    model, optimizer = trainer.model, type(trainer.optimizer).__name__
    layers = [
        *([] if arguments.activation == "relu" else [arguments.activation]),
        *([] if arguments.norm is None else [f"{arguments.norm} norm"]),
        *([f"dropout {arguments.dropout:g}"] if arguments.dropout else []),
        *(["residual"] if arguments.residual else []),
    ]
    rules = [
        *([] if arguments.momentum is None else [f"momentum {arguments.momentum:g}"]),
        *([] if arguments.weight_decay is None else [f"weight decay {arguments.weight_decay:g}"]),
        *([f"{name} {getattr(arguments, name):g}" for name in ("l1", "l2") if getattr(arguments, name)]),
        *([] if arguments.clip_norm is None else [f"clip norm {arguments.clip_norm:g}"]),
        *([] if arguments.max_norm is None else [f"max norm {arguments.max_norm:g}"]),
        *([] if arguments.label_smoothing is None else [f"label smoothing {arguments.label_smoothing:g}"]),
    ]
    course = "" if arguments.schedule == "constant" else f" {arguments.schedule}"
    warmup = "" if arguments.warmup is None else f" after a warm-up of {arguments.warmup[0]:g} {arguments.warmup[1]}"
    accumulate = "" if arguments.accumulate == 1 else f" x {arguments.accumulate}"
    dtype = "" if model.dtype.name == "float32" else f" in {model.dtype.name}"
    return (
        f"network {'-'.join(map(str, _widths(model)))}{''.join(f', {part}' for part in layers)}, {model.num_parameters:,} "
        f"parameters{dtype}; {', '.join([optimizer, *rules])}, lr {arguments.lr:g}{course}{warmup}, "
        f"batch {batch_size}{accumulate}, {arguments.epochs} epochs, seed {arguments.seed}"
    )


def _settings(arguments: argparse.Namespace, trainer: ts.Trainer, batch_size: int) -> dict[str, Any]:
    """Give all settings as they were used, by the names of the options."""
    left_out = ("command", "json", "plot", "save", "checkpoint", "every", "resume", "quiet", "no_progress")
    given = {name: value for name, value in vars(arguments).items() if name not in left_out}
    model, optimizer = trainer.model, trainer.optimizer
    group = {k: v for k, v in optimizer.param_groups[0].items() if k in ("weight_decay", "momentum")}
    rate = optimizer.param_groups[0]["lr"]
    return given | {
        "paths": [str(path) for path in arguments.paths],
        "optimizer": type(optimizer).__name__,
        "batch_size": batch_size,
        "dtype": model.dtype.name,
        "warmup": None if arguments.warmup is None else {arguments.warmup[1]: arguments.warmup[0]},
        "learning_rate": rate if isinstance(rate, float) else repr(rate),
        "parameters": model.num_parameters,
        "layers": [repr(layer) for layer in model.layers],
        **group,
    }


def _plot(history: ts.History, path: Path) -> Path | None:
    """Draw the curves: where they are, or nothing without matplotlib."""
    try:
        history.plot(path)
    except ImportError:
        return None
    return path
