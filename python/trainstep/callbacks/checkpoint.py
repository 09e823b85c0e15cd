"""Checkpoint: the whole run in a file, every few epochs or steps."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from glob import escape, glob
from string import Formatter
from typing import TYPE_CHECKING, Any

from trainstep._checks import integer, number, path_text, switch
from trainstep._files import PARTIAL
from trainstep.callbacks.base import Callback
from trainstep.callbacks.watch import check_mode, check_name, check_state, is_better, sign, value_of

if TYPE_CHECKING:
    from trainstep.trainer import Trainer


class Checkpoint(Callback):
    """Saves the run with `Trainer.save`, every few epochs or steps: `Trainer.load` goes on from such a file to the same bits.

    Parameters
    ----------
    path : str or path
        The file. ``{epoch}``, ``{step}`` and the names of values stand for what they are when it is written, in Python's format
        language: ``"runs/{epoch:03d}-{val_loss:.4f}.safetensors"``. Directories that are not there are made.
    every : int, default 1
        The epochs after which it is written: those whose number it divides.
    keep : int or None, default 1
        How many files stay, where path gives them different names: after one has been written, the oldest that this callback wrote,
        also in the run that this one resumes, are deleted. None: all.
    monitor : str, optional
        With save_best_only, the value that decides. Default: "val_loss" where there is validation data, else "loss".
    mode : {"auto", "min", "max"}, default "auto"
        Whether smaller or larger is better, as for `EarlyStopping`.
    save_best_only : bool, default False
        Write only where the value is better than at all times before.
    every_steps : int, optional
        Write after the steps whose number it divides, and not at the end of epochs. The one value is then "loss", of the step.

    Attributes
    ----------
    best : float or None
        With save_best_only, the best value; None before there is one.
    files : list of str
        What it has written and not deleted, the newest last.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit; from `Trainer.fit` where there is no value of a name.
    OSError
        From `Trainer.fit`, where a file cannot be written.

    Notes
    -----
    A file appears whole or not at all. The state of the other callbacks is in it as this epoch or step has left it, wherever this
    one stands in the list.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import trainstep as ts
    >>> path = os.path.join(tempfile.mkdtemp(), "{epoch:03d}.safetensors")
    >>> x, y = np.eye(4), np.arange(4)
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(4, 4)))
    >>> history = trainer.fit(x, y, epochs=3, callbacks=[ts.callbacks.Checkpoint(path)])
    >>> newest = ts.callbacks.Checkpoint.latest(path)
    >>> os.path.basename(newest), ts.Trainer.load(newest).epoch
    ('003.safetensors', 3)
    """

    comes_last = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        keep: int | None = 1,
        monitor: str | None = None,
        mode: str = "auto",
        save_best_only: bool = False,
        every_steps: int | None = None,
    ) -> None:
        self._parts = _parts("Checkpoint: path", path_text("Checkpoint: path", path))
        self._every = integer("Checkpoint: every", every, 1)
        self._keep = None if keep is None else integer("Checkpoint: keep", keep, 1)
        self._monitor = None if monitor is None else check_name("Checkpoint: monitor", monitor)
        self._mode = check_mode("Checkpoint: mode", mode)
        self._best_only = switch("Checkpoint: save_best_only", save_best_only)
        if not self._best_only and monitor is not None:
            raise ValueError(f"Checkpoint: monitor is {monitor!r}, expected None where save_best_only is False")
        self._every_steps = None if every_steps is None else integer("Checkpoint: every_steps", every_steps, 1)
        if self._every_steps is not None:
            if self._every != 1:
                raise ValueError(f"Checkpoint: every is {every}, expected 1 where every_steps is given")
            self.on_batch_end = self._after_step  # type: ignore[method-assign]  # which costs nothing where there is none
        self.best: float | None = None
        self.files: list[str] = []
        self._of: Trainer | None = None
        self._resumed = False

    def on_train_begin(self) -> None:
        """Forget what was written of another trainer."""
        if self._of is not self.trainer and not self._resumed:
            self.best, self.files = None, []
        self._of, self._resumed = self.trainer, False

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Write the file, where it is its turn.

        Parameters
        ----------
        epoch : int
            Its number.
        values : dict of str to float
            What may stand in the path, and decide.

        Examples
        --------
        >>> import trainstep as ts
        >>> checkpoint = ts.callbacks.Checkpoint("run.safetensors", every=10)
        >>> checkpoint.on_epoch_end(1, {"loss": 0.5})
        >>> checkpoint.files
        []
        """
        if self._every_steps is None and epoch % self._every == 0:
            self._write(values)

    def _after_step(self, step: int, values: dict[str, float]) -> None:
        if self._every_steps is not None and step % self._every_steps == 0:
            self._write(values)

    def _write(self, values: Mapping[str, float]) -> None:
        best = self.best
        if self._best_only:
            name = self._monitor or ("val_loss" if "val_loss" in values else "loss")
            best = value_of("Checkpoint: monitor", name, values)
            if not is_better(best, self.best, sign(self._mode, name)):
                return
        path = self._name(values)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        before = self.best, self.files
        # What is saved knows of its own file, and of those that have yet to go: a run that is killed between the two goes on there.
        self.best, self.files = best, [*(file for file in self.files if file != path), path]
        try:
            self.trainer.save(path)
        except BaseException:
            self.best, self.files = before
            raise
        while self._keep is not None and len(self.files) > self._keep:
            with suppress(FileNotFoundError):
                os.remove(self.files[0])
            del self.files[0]

    def _name(self, values: Mapping[str, float]) -> str:
        counts = {"epoch": self.trainer.epoch, "step": self.trainer.steps}
        name = ""
        for text, field, spec in self._parts:
            name += text
            if field is not None:
                name += format(counts[field] if field in counts else value_of("Checkpoint: a field of path", field, values), spec)
        return name

    @staticmethod
    def latest(path: str | os.PathLike[str]) -> str | None:
        """Find the newest whole file of a run, to resume from.

        Parameters
        ----------
        path : str or path
            The directory, whatever its files are called, or what `Checkpoint` was given, fields included.

        Returns
        -------
        newest : str or None
            The file that was written last; None where there is none, or no such directory.

        Raises
        ------
        ValueError, TypeError
            Where path is none.

        Examples
        --------
        >>> import os, tempfile
        >>> import trainstep as ts
        >>> directory = tempfile.mkdtemp()
        >>> ts.callbacks.Checkpoint.latest(directory) is None
        True
        >>> ts.Trainer(ts.nn.Sequential(ts.nn.Dense(3, 2))).save(os.path.join(directory, "a.safetensors"))
        >>> ts.callbacks.Checkpoint.latest(directory) == os.path.join(directory, "a.safetensors")
        True
        """
        text = path_text("Checkpoint.latest: path", path)
        if os.path.isdir(text):
            found = [os.path.join(text, name) for name in os.listdir(text) if not name.endswith(PARTIAL)]
        else:
            parts = _parts("Checkpoint.latest: path", text)
            found = [name for name in glob(_wildcards(parts)) if _pattern(parts).fullmatch(name)]
        ages = {}
        for name in found:
            with suppress(FileNotFoundError):  # deleted by the run that goes on meanwhile
                ages[name] = os.stat(name).st_mtime_ns, [int(digits) for digits in re.findall(r"\d+", name)], name
        return next((name for name in sorted(ages, key=ages.__getitem__, reverse=True) if _is_whole(name)), None)

    def state_dict(self) -> dict[str, Any]:
        """Give what a run that is resumed needs: the best value, and the files that were written.

        Returns
        -------
        state : dict

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Checkpoint("run.safetensors").state_dict()
        {'best': None, 'files': []}
        """
        return {"best": self.best, "files": list(self.files)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave.

        Parameters
        ----------
        state : dict
            Of a run that is resumed. Of its files, those whose names path can give are taken over, and no others.

        Raises
        ------
        ValueError, TypeError
            Where it is no such state. Nothing has been changed then.

        Examples
        --------
        >>> import trainstep as ts
        >>> checkpoint = ts.callbacks.Checkpoint("{epoch}.safetensors")
        >>> checkpoint.load_state_dict({"best": None, "files": ["4.safetensors", "other.txt"]})
        >>> checkpoint.files
        ['4.safetensors']
        """
        check_state("Checkpoint", state, {"best", "files"})
        best = None if state["best"] is None else number("Checkpoint.load_state_dict: best", state["best"])
        if not isinstance(state["files"], list) or not all(isinstance(file, str) for file in state["files"]):
            raise TypeError("Checkpoint.load_state_dict: files is no list of str")
        # These will be deleted: whoever made up the state could name any.
        pattern = _pattern(self._parts)
        self.best, self.files = best, [file for file in state["files"] if pattern.fullmatch(file)]
        self._resumed = True


Part = tuple[str, str | None, str]


def _parts(where: str, path: str) -> list[Part]:
    """Take a path apart: text, and the field that follows with its format, the last of them without."""
    try:
        parts = [(text, field, spec or "") for text, field, spec, conversion in Formatter().parse(path) if not conversion]
        if len(parts) < len(list(Formatter().parse(path))):
            raise ValueError("a field with a conversion")
        for _, field, spec in parts:
            if field is not None:
                if not field.isidentifier():
                    raise ValueError(f"the field {field!r}, which is no name")
                format(1 if field in ("epoch", "step") else 0.5, spec)
    except ValueError as error:
        raise ValueError(f"{where} is {path!r}, expected a name with fields such as {{epoch}} or {{loss:.4f}}: {error}") from None
    if not path:
        raise ValueError(f"{where} is empty, expected a file")
    return parts


def _pattern(parts: list[Part]) -> re.Pattern[str]:
    """Give what names of these parts match. No field begins with a dot: none leads to a directory above."""
    return re.compile("".join(re.escape(text) + ("" if field is None else r"(?!\.)[^/\\]+") for text, field, _ in parts))


def _wildcards(parts: list[Part]) -> str:
    return "".join(escape(text) + ("" if field is None else "*") for text, field, _ in parts)


def _is_whole(path: str) -> bool:
    """Tell whether a file is one of `Trainer.save`, with all its bytes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # which compares the header with the length of the file
            return "trainer" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
