"""``trainstep train``: options, a network, a training run, and what came of it."""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import trainstep as ts
from trainstep.cli import augmentation, checkpoints, network, problems, reports
from trainstep.cli.common import (
    Formatter,
    Interrupted,
    UsageError,
    add_json,
    add_no_progress,
    add_threads,
    check_directory,
    check_outputs,
    count,
    counted,
    part,
    says,
    seed,
    share,
    shows_progress,
    write_json,
)
from trainstep.cli.problems import DATASETS, TABLES, Measure, Problem

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
    train.add_argument("paths", metavar="PATH", nargs="*", default=[], type=Path, help="of mnist: its directory, or an .npz")
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
    training.add_argument(
        "--early-stopping",
        type=count,
        metavar="N",
        help="end after N epochs without a lower validation loss, with the weights of the best one",
    )
    training.add_argument(
        "--ema", type=share, metavar="DECAY", help="test and save the moving average of the weights; warmed up at the beginning"
    )
    training.add_argument("--metrics", type=_metrics, metavar="NAME,...", help="measure these too: f1, top_5_accuracy, r2, ...")
    training.add_argument(
        "--augment",
        type=augmentation.option,
        metavar="NAME,...",
        help="change images anew in each epoch: flip, vflip, crop, scale, rotation, cutout, noise, mixup; with a number where the "
        "default does not suit: crop:2,rotation:15",
    )
    add_threads(training)
    network.add_optimizer(train)
    network.add_penalties(train)
    files = train.add_argument_group("files")
    files.add_argument("--save", type=Path, metavar="FILE", help="write the trained model here (.safetensors)")
    plot = files.add_mutually_exclusive_group()
    plot.add_argument("--plot", type=Path, default=DEFAULT_PLOT, metavar="FILE", help="write the learning curves here: an image")
    plot.add_argument("--no-plot", action="store_true", help="write no learning curves")
    files.add_argument("--checkpoint", type=Path, metavar="FILE", help="keep the whole run here, so that it can go on")
    files.add_argument("--every", type=count, metavar="N", help="epochs from checkpoint to checkpoint; default: 1")
    files.add_argument("--resume", action="store_true", help="go on from the checkpoint if it is there, until --epochs in all")
    files.add_argument("--log", type=Path, metavar="FILE", help="write a row of measures for each epoch here, as CSV")
    files.add_argument("--tensorboard", type=Path, metavar="DIR", help="write event files for TensorBoard into this directory")
    add_json(files, "settings, history and results")
    output = train.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_no_progress(output)


def _batch_size(text: str) -> int | str:
    return text if text == "sqrt" else count(text)


def _metrics(text: str) -> list[ts.metrics.Metric]:
    made = []
    for name in text.split(","):
        top = re.fullmatch(r"top_([1-9]\d{0,8})_accuracy", name)
        if top is None and (name not in ts.metrics.METRICS or name == ts.metrics.TopK.name):
            known = [known for known in ts.metrics.METRICS if known != ts.metrics.TopK.name]
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}, top_5_accuracy")
        made.append(ts.metrics.TopK(int(top[1])) if top else ts.metrics.METRICS[name]())
    return made


def _check(arguments: argparse.Namespace) -> None:
    """Look at all that can be wrong with the call: nobody trains for an hour to learn of a typing error."""
    problems.check(arguments)
    network.check_network(arguments)
    network.check_schedule(arguments)
    try:
        network.optimizer(arguments, arguments.lr)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.early_stopping is not None and arguments.validation is None:
        raise UsageError("--early-stopping needs --validation SHARE, a part of the rows to look at: never the test part")
    if arguments.early_stopping is not None and arguments.ema is not None:
        raise UsageError("--ema: with --early-stopping the weights are those of the best epoch, not an average")
    if arguments.no_plot:
        arguments.plot = None
    outputs = {f"--{name}": getattr(arguments, name) for name in ("save", "plot", "checkpoint", "log", "json")}
    check_outputs(outputs, problems.inputs(arguments))
    check_directory("--tensorboard", arguments.tensorboard)
    if arguments.plot is not None and arguments.plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot: {arguments.plot} ends in none of {', '.join(PLOT_SUFFIXES)}")
    checkpoints.check(arguments)


def _train(arguments: argparse.Namespace) -> None:
    _check(arguments)
    progress, stopping, callbacks = shows_progress(arguments), _stopping(arguments), _callbacks(arguments)
    problem = problems.load(arguments, progress)
    rows = len(problem.train[0])
    batch_size = ts.data.batch_size(rows, arguments.batch_size)
    rate = network.learning_rate(arguments, epoch=-(-rows // (batch_size * arguments.accumulate)))
    run = checkpoints.run_of(arguments, network.needs_epochs(arguments), problem.sizes)
    trainer = checkpoints.resumed(arguments, run) or _trainer(arguments, problem, rate)
    feed: tuple[Any, Any] = problem.train
    if arguments.augment is not None:
        feed = augmentation.batches(arguments, problem, batch_size), None
    begun = trainer.steps
    if says(arguments):
        print(problem.about())
        print(reports.described(arguments, trainer, batch_size))
        if begun:
            print(f"goes on from {arguments.checkpoint}, after {counted(trainer.epoch, 'epoch')}, {counted(begun, 'step')}")
        sys.stdout.flush()  # before the progress bar, which goes to stderr
    saver = [] if arguments.checkpoint is None else [checkpoints.Saver(arguments.checkpoint, arguments.every or 1, run)]
    start = time.perf_counter()
    try:
        trainer.fit(
            feed[0],
            feed[1],
            until_epoch=arguments.epochs,
            batch_size=batch_size,
            accumulate=arguments.accumulate,
            # The test part for the curves only. Nothing is chosen by it, so it stays held out.
            validation_data=problem.validation or problem.test,
            progress=progress,
            callbacks=[*stopping, *callbacks, *saver],
        )
    except KeyboardInterrupt:
        where = "" if arguments.checkpoint is None else f"; the same command with --resume goes on from {arguments.checkpoint}"
        raise Interrupted(f"interrupted after {trainer.steps:,} steps{where}") from None
    seconds = time.perf_counter() - start

    model = trainer.model if arguments.ema is None else trainer.averaged_model()
    problem.finish(model)
    measures = [*problem.measure(model), *_metrics_of(arguments, problem, model), *_best(stopping, trainer.epoch)]
    if arguments.save is not None:
        model.save(arguments.save)
    curves = None if arguments.plot is None else reports.plot(trainer.history, arguments.plot)
    done = reports.Run(arguments, problem, trainer, batch_size, measures, seconds, trainer.steps - begun, curves)
    if says(arguments):
        done.show()
    write_json(arguments.json, done.as_json())


def _stopping(arguments: argparse.Namespace) -> list[ts.callbacks.EarlyStopping]:
    if arguments.early_stopping is None:
        return []
    return [ts.callbacks.EarlyStopping(patience=arguments.early_stopping, restore_best_weights=True)]


def _callbacks(arguments: argparse.Namespace) -> list[ts.callbacks.Callback]:
    """Make what follows the training, which raises ImportError before anything is loaded."""
    made: list[ts.callbacks.Callback] = []
    if arguments.log is not None:
        made.append(ts.callbacks.CSVLogger(arguments.log, append=arguments.resume))
    if arguments.tensorboard is not None:
        made.append(ts.callbacks.TensorBoard(arguments.tensorboard))
    return made


def _metrics_of(arguments: argparse.Namespace, problem: Problem, model: ts.nn.Sequential) -> list[Measure]:
    """Measure what --metrics asks for on the test part."""
    if not arguments.metrics:
        return []
    measured = ts.Trainer(model, _loss(arguments, problem), metrics=arguments.metrics).evaluate(problem.test[0], problem.targets)
    names = [name for name in measured if name not in ("loss", "accuracy")]
    return [Measure(f"test_{name}", f"test {name.replace('_', ' ')}", f"{measured[name]:.6g}", measured[name]) for name in names]


def _best(stopping: list[ts.callbacks.EarlyStopping], epochs: int) -> list[Measure]:
    return [
        Measure("best_epoch", "best epoch", f"{s.best_epoch} of {epochs} (validation loss {s.best:.6g})", s.best_epoch)
        for s in stopping
        if s.best is not None
    ]


def _trainer(arguments: argparse.Namespace, problem: Problem, rate: Any) -> ts.Trainer:
    inner = network.layers(arguments, problem.train[0].shape[1], problem.outputs)
    dtype = arguments.dtype or problem.dtype
    if dtype == "float64" and arguments.precision not in (None, "float32"):
        why = "" if arguments.dtype else ", which this table needs: --dtype float32 does without"
        raise UsageError(f"--precision: {arguments.precision} is for float32, not for float64{why}")
    model = ts.nn.Sequential(*problem.first, *inner, seed=arguments.seed, dtype=dtype, precision=arguments.precision)
    model.metadata.update(problem.metadata)
    problem.prepare(model)
    try:
        return ts.Trainer(
            model,
            loss=_loss(arguments, problem),
            optimizer=network.optimizer(arguments, rate),
            clip_norm=arguments.clip_norm,
            l1=arguments.l1,
            l2=arguments.l2,
            max_norm=arguments.max_norm,
            metrics=arguments.metrics,
            average=None if arguments.ema is None else ts.averages.EMA(arguments.ema, warmup=True),
        )
    except ValueError as error:  # of metrics that do not go with the loss
        raise UsageError(str(error)) from error


def _loss(arguments: argparse.Namespace, problem: Problem) -> ts.losses.Loss:
    if problem.task == "classification":
        return ts.losses.SoftmaxCrossEntropy(label_smoothing=arguments.label_smoothing or 0.0)
    if arguments.label_smoothing is not None:
        raise UsageError("--label-smoothing is for classification, not for regression")
    return ts.losses.MSE()
