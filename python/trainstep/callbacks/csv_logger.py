"""CSVLogger: a table of the epochs, written as they come."""

import math
import os
from contextlib import suppress
from typing import TextIO

from trainstep._checks import path_text, switch
from trainstep._files import whole_file
from trainstep.callbacks.base import Callback


class CSVLogger(Callback):
    """Writes a row for each epoch into a CSV file as it ends: its number, then its values.

    Parameters
    ----------
    path : str or path
        The file. Directories that are not there are made.
    append : bool, default False
        Go on with a file that is there: its rows stay, but for those of epochs that come again, and one that was left half-written.
        False: begin it anew with each `fit`.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit; from `Trainer.fit` where append is True and the file is no such table. It is then as it was.
    OSError
        From `Trainer.fit`, where the file cannot be written.

    Notes
    -----
    The columns are "epoch" and the values of the first epoch. A value that appears later gets a column of its own, for which the
    file is written anew. A cell without a value is ``nan``; numbers stand with all their digits.

    References
    ----------
    Shafranovich: Common format and MIME type for comma-separated values (CSV) files (RFC 4180, 2005).

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import trainstep as ts
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros")), loss="mse", optimizer=ts.optim.SGD(lr=0.25))
    >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=2, callbacks=[ts.callbacks.CSVLogger(path)])
    >>> with open(path) as file:
    ...     [line.split(",")[:2] for line in file]
    [['epoch', 'loss'], ['1', '1.0'], ['2', '0.0']]
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self._path = path_text("CSVLogger: path", path)
        self._append = switch("CSVLogger: append", append)
        self._columns: list[str] = []
        self._file: TextIO | None = None

    def on_train_begin(self) -> None:
        """Begin the file, or take up what it holds."""
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        rows: list[list[str]] = []
        if self._append:
            with suppress(FileNotFoundError):
                rows = self._rows()
        self._columns = rows[0] if rows else []
        self._rewrite([row for i, row in enumerate(rows) if i == 0 or int(row[0]) <= self.trainer.epoch])

    def _rows(self) -> list[list[str]]:
        """Read the file: its rows, without a last one that was not finished."""
        import csv

        with open(self._path, encoding="utf-8", newline="") as file:
            lines = list(file)
        if lines and not lines[-1].endswith("\n"):
            del lines[-1]
        rows = list(csv.reader(lines))
        if rows and rows[0][:1] != ["epoch"]:
            raise ValueError(f"CSVLogger: the first column of {self._path} is {rows[0][:1]}, expected 'epoch' where append is True")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(rows[0]) or not row[0].isdecimal():
                raise ValueError(
                    f"CSVLogger: row {number} of {self._path} is {row}, expected an epoch and {len(rows[0]) - 1} values"
                )
        return rows

    def _rewrite(self, rows: list[list[str]]) -> None:
        """Write the file whole, and leave it open at its end."""
        import csv

        self._close()
        with whole_file(self._path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        self._file = open(self._path, "a", encoding="utf-8", newline="")  # noqa: SIM115

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Write a row.

        Parameters
        ----------
        epoch : int
            Its number.
        values : dict of str to float
            What stands in it.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import trainstep as ts
        >>> log = ts.callbacks.CSVLogger(os.path.join(tempfile.mkdtemp(), "log.csv"))
        >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1)), loss="mse")
        >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=2, callbacks=[log])
        """
        import csv

        columns = self._columns or ["epoch"]
        new = [name for name in values if name not in columns]
        if new:
            self._columns = columns + new
            rows = self._rows()
            self._rewrite([self._columns, *(row + ["nan"] * len(new) for row in rows[1:])])
        assert self._file is not None
        csv.writer(self._file, lineterminator="\n").writerow([epoch, *(values.get(name, math.nan) for name in self._columns[1:])])
        self._file.flush()

    def on_train_end(self) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
