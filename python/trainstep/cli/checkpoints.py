"""``trainstep train --checkpoint FILE --resume``: a run that was stopped goes on in the same bits."""

import argparse
from pathlib import Path
from typing import Any

import trainstep as ts
from trainstep.cli import augmentation
from trainstep.cli.common import UsageError

_RUN = "run"  # in the metadata of a checkpoint's model: what it was made with
# What may be another when a run goes on: where its results go, and how they are said.
_FREE = {"command", "dataset", "paths", "epochs", "checkpoint", "every", "resume", "save", "plot", "log", "tensorboard", "json"}
_FREE |= {"quiet", "no_progress", "no_plot", "threads"}


class Saver(ts.callbacks.Callback):
    """Writes a checkpoint after every so many epochs, and where the training ends, also by Ctrl-C in the middle of an epoch.

    It stands last among the callbacks, and so ends first: before others put back what they hold to be the best weights.
    """

    def __init__(self, path: Path, every: int, run: dict[str, Any]) -> None:
        self._path, self._every, self._run = path, every, run
        self._saved: tuple[int, int] | None = None

    def on_train_begin(self) -> None:
        """Note where the run goes on from."""
        self._saved = self._place() if self._path.exists() else None

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Save, where it is time."""
        if epoch % self._every == 0:
            self._save()

    def on_train_end(self) -> None:
        """Save where the training has come to."""
        if self._place() != self._saved:
            self._save()

    def _place(self) -> tuple[int, int]:
        return self.trainer.epoch, self.trainer.steps

    def _save(self) -> None:
        metadata = self.trainer.model.metadata
        metadata[_RUN] = self._run
        try:
            self.trainer.save(self._path)
        finally:
            del metadata[_RUN]
        self._saved = self._place()


def check(arguments: argparse.Namespace) -> None:
    """Raise UsageError where the options of checkpoints do not go together, or the file must not be replaced."""
    if arguments.checkpoint is None:
        for option in ("every", "resume"):
            if getattr(arguments, option):
                raise UsageError(f"--{option} is for a run with --checkpoint FILE")
    elif arguments.checkpoint.exists() and not arguments.resume:
        raise UsageError(
            f"--checkpoint: {arguments.checkpoint} is there already: --resume goes on from it, and without it there is a new run"
        )


def resumed(arguments: argparse.Namespace, run: dict[str, Any]) -> ts.Trainer | None:
    """Read the trainer of the run that is to go on; nothing where there is none yet."""
    path = arguments.checkpoint
    if not arguments.resume or not path.exists():
        return None
    try:
        trainer = ts.Trainer.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--resume: {error}") from error
    made_with = trainer.model.metadata.pop(_RUN, None)
    if not isinstance(made_with, dict):
        raise UsageError(f"--resume: {path} was not made by trainstep train --checkpoint")
    for name in run:
        if made_with.get(name) != run[name]:
            option = f"--{name.replace('_', '-')}" if name in vars(arguments) else name
            raise UsageError(f"--resume: {path} was made with {option} {_said(made_with.get(name))}, not {_said(run[name])}")
    return trainer


def _said(value: Any) -> str:
    return "as by default" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def run_of(arguments: argparse.Namespace, epochs_matter: bool, sizes: dict[str, int]) -> dict[str, Any]:
    """Give all that makes a run what it is, as JSON has it."""
    run = {name: value for name, value in vars(arguments).items() if name not in _FREE}
    run["warmup"] = None if arguments.warmup is None else list(arguments.warmup)
    run["metrics"] = None if arguments.metrics is None else [repr(metric) for metric in arguments.metrics]
    run["augment"] = None if arguments.augment is None else augmentation.words(arguments.augment)
    run["data"] = [f"{Path(arguments.dataset).name}:", *(f"{size} {part}" for part, size in sizes.items())]
    return run | ({"epochs": arguments.epochs} if epochs_matter else {})
