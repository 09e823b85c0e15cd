"""What `Trainer.fit` trains on: arrays, which the core goes through by itself, or batches that come one by one."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from trainstep import _core
from trainstep._checks import integer
from trainstep.data.batches import Batches, batch_rows

if TYPE_CHECKING:
    from trainstep.trainer import Trainer

PROGRESS_INTERVAL = 0.1  # seconds between two updates of the bar
# Called with the updates of the epoch so far, its rows, mean loss and accuracy.
Report = Callable[[int, int, float, float | None], None]


class Hooks:
    """What is called around each step of a `fit`."""

    def __init__(self, before: Callable[[], None] | None, after: Callable[[float], bool] | None) -> None:
        self.before, self.after = before, after


class Arrays:
    """Rows that are there at once, memmaps included."""

    def __init__(
        self, trainer: "Trainer", data: Any, batch_size: int | str, shuffle: bool, drop_last: bool, accumulate: int
    ) -> None:
        x, y, sample_weight = data
        self._data = trainer._core.data(x, y, "fit", "x", "y", sample_weight, callers_loss=trainer._custom_loss)
        rows = self._data.rows
        batch_size = batch_rows("fit: batch_size", batch_size, rows)
        self._batch_size, self._shuffle, self._drop_last = batch_size, shuffle, drop_last
        self._end = rows // batch_size * batch_size if drop_last else rows
        self._of_update = batch_size * accumulate
        # An unfinished epoch goes on only with data of which it may be a part.
        self.identity: list[Any] = ["arrays", rows, shuffle]

    def updates(self, done: int) -> int:
        """Count the updates that are left of an epoch of which so many rows are done."""
        return -(-max(0, self._end - done) // self._of_update)

    def run(self, trainer: "Trainer", hooks: Hooks, report: Report | None) -> bool:
        """Train on what is left of the epoch, and say whether it is over."""
        core, seed = trainer._core, trainer._seed % 2**64
        order = _core.permutation(self._data.rows, seed, core.epochs) if self._shuffle else None
        left = self.updates(core.unfinished[4])
        end = core.unfinished[6] + left
        rates, before = trainer._optimizer._rate_table(left), trainer.steps

        def after(loss: float) -> bool:
            goes_on = hooks.after is None or hooks.after(loss)
            if goes_on and hooks.before is not None and core.unfinished[6] < end:
                hooks.before()
            return goes_on

        core.set_fit(
            self._of_update // self._batch_size,
            None if report is None else (report, PROGRESS_INTERVAL),
            None if hooks.before is None and hooks.after is None else after,
            guarded=True,
        )
        core.set_rates(rates)
        if hooks.before is not None and left > 0:
            hooks.before()
        try:
            return bool(core.fit_epoch(self._data, self._batch_size, self._drop_last, order))
        finally:
            core.set_rates(None)
            trainer._optimizer._took_rates(rates, trainer.steps - before)


class Stream:
    """Batches from an iterable, a generator or a function of the epoch."""

    def __init__(self, x: Any, epochs: int, steps_per_epoch: int | None, accumulate: int) -> None:
        self.identity: list[Any] = x._identity() if isinstance(x, Batches) else ["stream"]
        self._source, self._accumulate = x, accumulate
        self._steps = None if steps_per_epoch is None else integer("fit: steps_per_epoch", steps_per_epoch, 1)
        self._once: Iterator[Any] | None = None
        if isinstance(x, Iterator):
            self._once = x
            if epochs > 1 and self._steps is None:
                raise ValueError(
                    f"fit: epochs is {epochs}, expected 1 where x is a {type(x).__name__}, which is gone through once; or give "
                    "steps_per_epoch, or a function of the epoch that gives its batches"
                )

    def updates(self, done: int) -> int | None:
        """Count the updates of an epoch, where that is known."""
        if self._steps is not None:
            return self._steps
        try:
            return -(-len(self._source) // self._accumulate)
        except TypeError:
            return None

    def _batches(self, epoch: int, done: int) -> Iterator[Any]:
        """Give the batches of an epoch from number `done` on."""
        if self._once is not None:
            return self._once
        if hasattr(self._source, "iterate"):
            return iter(self._source.iterate(epoch, done))
        batches = self._source(epoch) if callable(self._source) else self._source
        if isinstance(batches, Iterator):
            return islice(batches, done, None)  # not closed: the caller may go on with it
        return _from(batches, done)

    def run(self, trainer: "Trainer", hooks: Hooks, report: Report | None) -> bool:
        """Train on what is left of the epoch, and say whether it is over."""
        core = trainer._core
        core.set_fit(1, None, hooks.after, guarded=True)
        batches = self._batches(core.epochs, core.unfinished[5])
        try:
            return self._run(trainer, batches, hooks, report)
        finally:
            if self._once is None and hasattr(batches, "close"):
                batches.close()

    def _run(self, trainer: "Trainer", batches: Iterator[Any], hooks: Hooks, report: Report | None) -> bool:
        core, optimizer = trainer._core, trainer._optimizer
        last_report = time.perf_counter()
        coming = self._next(trainer, batches)
        if coming is None and core.unfinished[4] == 0:
            raise ValueError(f"fit: x has no batch for epoch {core.epochs + 1}")
        waiting = 0
        while coming is not None:
            batch, last = coming, self._steps is not None and core.unfinished[6] + 1 == self._steps
            waiting += 1
            if waiting == 1 and hooks.before is not None:
                hooks.before()
            # The last batch has to be known as such: an update does not wait for what never comes.
            full = waiting == self._accumulate
            coming = None if full and last else self._next(trainer, batches)
            updates = full or coming is None
            if updates and optimizer._rates:
                optimizer._prepare()
            goes_on = core.fit_batch(batch, updates)
            if core.diverged is not None or (not goes_on and coming is not None):
                return False
            if updates:
                waiting = 0
            now = time.perf_counter()
            if report is not None and now - last_report >= PROGRESS_INTERVAL:
                last_report = now
                loss, count, correct, judged, rows, _, done = core.unfinished
                report(done, rows, loss / count if count > 0 else 0.0, correct / judged if judged else None)
        core.end_epoch()
        return True

    def _next(self, trainer: "Trainer", batches: Iterator[Any]) -> Any:
        """Give the next batch, checked; None where there is none."""
        batch = next(batches, None)
        if batch is None:
            return None
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise TypeError(f"fit: x gave a {type(batch).__name__}, expected batches (x, y) or (x, y, sample_weight)")
        x, y, weight = (*batch, None)[:3]
        return trainer._core.data(
            x, y, "fit", "x of a batch", "y of a batch", weight, "sample_weight of a batch", trainer._custom_loss
        )


def _from(batches: Iterable[Any], done: int) -> Iterator[Any]:
    """Give the batches from number `done` on, of an iterator that is closed with this one."""
    iterator = iter(batches)
    try:
        yield from islice(iterator, done, None)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def gives_batches(x: Any, y: Any) -> bool:
    """Whether x gives batches, and is no array: raises where it can be neither."""
    if y is not None:
        return isinstance(x, Iterator) or callable(x) or hasattr(x, "iterate")
    if hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        raise TypeError("fit: y is a NoneType, expected an array beside an x that is one")
    if isinstance(x, str | bytes | Mapping) or not (callable(x) or isinstance(x, Iterable)):
        raise TypeError(f"fit: x is a {type(x).__name__}, expected an array, or what gives batches")
    return True
