"""TensorBoard: the values of a run, and its layers, as event files."""

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep._checks import integer, path_text, switch
from trainstep.callbacks.base import Callback

_BINS = 30


class TensorBoard(Callback):
    """Writes event files for TensorBoard (``tensorboard --logdir directory``): the values of epochs and steps, and the layers.

    Below the directory are the runs "train" and "validation", by epoch, and "steps", by step. A value has one name in both of the
    first, "epoch/loss", so that the two curves are in one chart.

    Parameters
    ----------
    directory : str or path
        Where they are written; it is made where it is not there.
    every_steps : int, optional
        Write the loss too of each step whose number this divides, as "step/loss". Default: of none.
    layers : bool, default False
        Write too, at the end of each epoch, a histogram of each parameter, "parameters/0.weight", and the Euclidean norm of its
        gradient in the last step, "gradient_norm/0.weight". Gradients are then kept: see ``fuse_update`` of `Trainer`.

    Raises
    ------
    ImportError
        Where tensorboard is not installed: ``pip install trainstep[tensorboard]``.
    ValueError, TypeError
        Where an argument does not fit; from `Trainer.fit` where layers is True and the trainer keeps no gradients.
    OSError
        From `Trainer.fit`, where a file cannot be written.

    Notes
    -----
    A run that is resumed goes on in the same charts: TensorBoard leaves out what was written before of the epochs and steps that
    are done again. So it does where another training begins in the same directory.

    The extra is the package tensorboard itself, and not the smaller tensorboardX: who writes these files wants to look at them.

    Examples
    --------
    >>> import trainstep as ts
    >>> ts.Trainer(model).fit(x, y, epochs=10, callbacks=[ts.callbacks.TensorBoard("runs/first")])  # doctest: +SKIP
    """

    def __init__(self, directory: str | os.PathLike[str], every_steps: int | None = None, layers: bool = False) -> None:
        self._directory = path_text("TensorBoard: directory", directory)
        self._every_steps = None if every_steps is None else integer("TensorBoard: every_steps", every_steps, 1)
        self._layers = switch("TensorBoard: layers", layers)
        self._writers: dict[str, Any] = {}
        self._written: dict[str, int] = {}
        if self._every_steps is not None:
            self.on_batch_end = self._after_step  # type: ignore[method-assign]  # which costs nothing where there is none
        _protocol()  # raises here rather than in fit

    def on_train_begin(self) -> None:
        """Ask for gradients before the first step, where they are wanted."""
        self._begun = {"train": self.trainer.epoch + 1, "validation": self.trainer.epoch + 1, "steps": self.trainer.steps + 1}
        if self._layers:
            self._gradients()

    def _gradients(self) -> dict[str, NDArray[Any]]:
        try:
            if not self.trainer._fuse_update:
                return self.trainer.model.gradients()
        except RuntimeError:  # such a step has been done before
            pass
        raise ValueError("TensorBoard: layers is True, expected False with a Trainer whose steps keep no gradients (fuse_update)")

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Write the values of an epoch.

        Parameters
        ----------
        epoch : int
            Its number.
        values : dict of str to float
            What is written: those whose names begin with "val_" into the run "validation", the others into "train".

        Examples
        --------
        >>> ts.callbacks.TensorBoard("runs/first").on_epoch_end(1, {"loss": 0.5})  # doctest: +SKIP
        """
        runs: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
        for name, value in values.items():
            run = "validation" if name.startswith("val_") else "train"
            runs[run][f"epoch/{name.removeprefix('val_')}"] = value
        if self._layers:
            runs["train"] |= {f"parameters/{name}": view for name, view in self.trainer.model.parameters().items()}
            for name, view in self._gradients().items():
                runs["train"][f"gradient_norm/{name}"] = float(np.linalg.norm(view.astype(np.float64)))
        for run, of_run in runs.items():
            if of_run:
                self._write(run, epoch, of_run)
        for writer in self._writers.values():
            writer.flush()

    def _after_step(self, step: int, values: dict[str, float]) -> None:
        if self._every_steps is not None and step % self._every_steps == 0:
            self._write("steps", step, {f"step/{name}": value for name, value in values.items()})

    def _write(self, run: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one event: scalars, and arrays as histograms."""
        writer_of, event_of, started, summary_of, histogram_of = _protocol()
        if run not in self._writers:
            self._writers[run] = writer_of(os.path.join(self._directory, run))
            # Readers forget what stands from this step on in files before this one. They order files by second and a counter as
            # text, so in quick succession not always rightly: what merely goes on asks for nothing to be forgotten.
            if self._begun[run] <= self._written.get(run, self._begun[run]):
                self._writers[run].add_event(event_of(wall_time=time.time(), step=self._begun[run], session_log=started))
        self._written[run] = step
        summary = summary_of()
        for tag, value in values.items():
            if isinstance(value, np.ndarray):
                summary.value.add(tag=tag, histo=histogram_of(**_histogram(value)))
            else:
                summary.value.add(tag=tag, simple_value=value)
        self._writers[run].add_event(event_of(wall_time=time.time(), step=step, summary=summary))

    def on_train_end(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _histogram(values: NDArray[Any]) -> dict[str, Any]:
    """Give what a histogram in an event has, of the values that are finite."""
    finite = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(finite, bins=_BINS)
    return {
        "min": finite.min(initial=edges[-1]),
        "max": finite.max(initial=edges[0]),
        "num": finite.size,
        "sum": finite.sum(),
        "sum_squares": np.square(finite).sum(),
        "bucket_limit": edges[1:],
        "bucket": counts,
    }


def _protocol() -> tuple[Any, Any, Any, Any, Any]:
    """Give what event files are made with: the writer, and the messages in them."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ImportError("TensorBoard needs tensorboard: pip install trainstep[tensorboard]") from error
    return EventFileWriter, Event, SessionLog(status=SessionLog.START), Summary, HistogramProto
