"""What ``trainstep train`` says of a run: a line before it, a table after it, and all of it as JSON."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainstep as ts
from trainstep.cli import augmentation
from trainstep.cli.common import counted, print_aligned
from trainstep.cli.problems import Measure, Problem

_OF_OUTPUT = {"command", "json", "plot", "no_plot", "save", "checkpoint", "every", "resume", "log", "tensorboard", "quiet"}
_OF_OUTPUT |= {"no_progress", "threads"}


_NO_CURVES = "skipped, matplotlib is not installed (pip install trainstep[plot])"


@dataclass(frozen=True)
class Run:
    """What a run has come to."""

    arguments: argparse.Namespace
    problem: Problem
    trainer: ts.Trainer
    batch_size: int
    measures: list[Measure]
    seconds: float  # of this call, as are its steps
    steps: int
    curves: Path | None  # None: not wanted, or matplotlib is not installed

    @property
    def microseconds_per_step(self) -> float:
        """The time of a step: an epoch's own seconds leave out what fit does around the epochs."""
        return sum(self.trainer.history.history.get("seconds", [self.seconds])) / max(self.trainer.steps, 1) * 1e6

    def show(self) -> None:
        """Print the results."""
        config = ts.config()
        print_aligned(
            {
                **{measure.label: measure.text for measure in self.measures},
                "total time": f"{self.seconds:.2f} s ({self.steps:,} steps)",
                "time per step": f"{self.microseconds_per_step:.1f} us",
                "ISA level": str(config["isa"]),
                "threads": str(config["num_threads"]),
                **({} if self.arguments.save is None else {"model": str(self.arguments.save)}),
                **({} if self.arguments.plot is None else {"learning curves": str(self.curves or _NO_CURVES)}),
            }
        )

    def as_json(self) -> dict[str, Any]:
        """Give all of it."""
        arguments, problem, history, config = self.arguments, self.problem, self.trainer.history, ts.config()
        return {
            "command": "train",
            "version": ts.__version__,
            "settings": settings(arguments, self.trainer, self.batch_size),
            "data": {
                "rows": problem.sizes,
                "columns": problem.train[0].shape[1],
                "outputs": problem.outputs,
                **problem.metadata,
            },
            "history": {"epoch": history.epoch, **history.history},
            "results": {measure.name: measure.value for measure in self.measures},
            "time": {"seconds": self.seconds, "steps": self.steps, "microseconds_per_step": self.microseconds_per_step},
            "machine": {"isa": config["isa"], "threads": config["num_threads"]},
            "files": {
                "model": arguments.save,
                "curves": self.curves,
                **{name: getattr(arguments, name) for name in ("checkpoint", "log", "tensorboard")},
            },
        }


def _widths(model: ts.nn.Sequential) -> list[int]:
    dense = [layer for outer in model.layers for layer in getattr(outer, "layers", (outer,)) if isinstance(layer, ts.nn.Dense)]
    return [dense[0].in_features, *(layer.out_features for layer in dense)]


def described(arguments: argparse.Namespace, trainer: ts.Trainer, batch_size: int) -> str:
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
        *([] if arguments.ema is None else [f"average of weights {arguments.ema:g}"]),
    ]
    course = "" if arguments.schedule == "constant" else f" {arguments.schedule}"
    warmup = "" if arguments.warmup is None else f" after a warm-up of {arguments.warmup[0]:g} {arguments.warmup[1]}"
    augment = "" if arguments.augment is None else f", augment {' '.join(augmentation.words(arguments.augment))}"
    accumulate = "" if arguments.accumulate == 1 else f" x {arguments.accumulate}"
    stopping = "" if arguments.early_stopping is None else f" or {arguments.early_stopping} without a lower validation loss"
    dtype = "" if model.dtype.name == "float32" else f" in {model.dtype.name}"
    precision = "" if model.precision is None else f", products in {model.precision}"
    return (
        f"network {'-'.join(map(str, _widths(model)))}{''.join(f', {part}' for part in layers)}, {model.num_parameters:,} "
        f"parameters{dtype}{precision}; {', '.join([optimizer, *rules])}{augment}, lr {arguments.lr:g}{course}{warmup}, "
        f"batch {batch_size}{accumulate}, {counted(arguments.epochs, 'epoch')}{stopping}, seed {arguments.seed}"
    )


def settings(arguments: argparse.Namespace, trainer: ts.Trainer, batch_size: int) -> dict[str, Any]:
    """Give all settings as they were used, by the names of the options."""
    given = {name: value for name, value in vars(arguments).items() if name not in _OF_OUTPUT}
    model, optimizer = trainer.model, trainer.optimizer
    group = {k: v for k, v in optimizer.param_groups[0].items() if k in ("weight_decay", "momentum")}
    rate = optimizer.param_groups[0]["lr"]
    return given | {
        "paths": [str(path) for path in arguments.paths],
        "optimizer": type(optimizer).__name__,
        "batch_size": batch_size,
        "dtype": model.dtype.name,
        "warmup": None if arguments.warmup is None else {arguments.warmup[1]: arguments.warmup[0]},
        "augment": None if arguments.augment is None else augmentation.words(arguments.augment),
        "metrics": None if arguments.metrics is None else [repr(metric) for metric in arguments.metrics],
        "learning_rate": rate if isinstance(rate, float) else repr(rate),
        "parameters": model.num_parameters,
        "layers": [repr(layer) for layer in model.layers],
        **group,
    }


def plot(history: ts.History, path: Path) -> Path | None:
    """Draw the curves: where they are, or nothing without matplotlib."""
    try:
        history.plot(path)
    except ImportError:
        return None
    return path
