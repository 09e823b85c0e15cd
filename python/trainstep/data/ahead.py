"""What a thread makes ahead of its consumer."""

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from trainstep._checks import integer

T = TypeVar("T")
MOST_AHEAD = 2**16


def prefetch(iterable: Iterable[T], n: int = 2) -> Iterable[T]:
    """Have a thread make up to n items of an iterable ahead of what consumes them.

    The items and their order are those of the iterable, and so is what it raises, after the items before it. NumPy gathers,
    reads files and computes beside a training step, which holds the GIL as little as it does.

    Parameters
    ----------
    iterable : iterable
        What is gone through in the thread. It must not be used elsewhere meanwhile.
    n : int, default 2
        How many items there may be that the consumer has not taken, the one being made among them. 0: no thread.

    Returns
    -------
    items : iterable
        Where the iterable can be gone through again, so can this: each time has a thread of its own, which starts with the first
        item. Of an iterator this is an iterator. Leaving a loop over it ends the thread, once the item that it is at is made: with
        ``break``, by an exception, or where the iterator is no longer used. What was made ahead is lost with it.

    Raises
    ------
    TypeError
        Where iterable is none, or n is no int.
    ValueError
        Where n is below 0.

    Examples
    --------
    >>> from trainstep.data import prefetch
    >>> squares = prefetch([k * k for k in range(4)])
    >>> list(squares), list(squares)
    ([0, 1, 4, 9], [0, 1, 4, 9])
    """
    if not isinstance(iterable, Iterable):
        raise TypeError(f"prefetch: iterable is a {type(iterable).__name__}, expected one that a loop can go through")
    n = integer("prefetch: n", n, 0, MOST_AHEAD)
    if isinstance(iterable, Iterator):
        return ahead(lambda: _borrowed(iterable), n)
    return _Prefetched(iterable, n)


class _Prefetched(Generic[T]):
    """An iterable, with a thread for each time that it is gone through."""

    def __init__(self, iterable: Iterable[T], n: int) -> None:
        self._iterable, self._n = iterable, n

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]  # where it has none, that is the TypeError

    def __iter__(self) -> Iterator[T]:
        return ahead(lambda: _own(self._iterable), self._n)


def _own(iterable: Iterable[T]) -> Generator[T, None, None]:
    """Go through an iterable with an iterator that is closed with this one: nobody else has it."""
    yield from iterable


def _borrowed(iterator: Iterator[T]) -> Generator[T, None, None]:
    """Go through an iterator that remains open, for whose it is."""
    for item in iterator:  # noqa: UP028  # `yield from` would close it
        yield item


def ahead(start: Callable[[], Generator[T, None, None]], n: int) -> Iterator[T]:
    """Go through what `start` gives, which a thread makes up to n items ahead; without one where n is 0."""
    if n == 0:
        yield from start()
        return
    worker = _Worker(start, n)
    worker.thread.start()
    try:
        while (item := worker.take()) is not None:
            yield item[0]
    finally:
        worker.end()


class _Worker:
    """A thread and the two queues to and from it: leave to make an item, and items.

    They are SimpleQueues, whose `put` may be called anywhere: the garbage collector may end a generator in the midst of any call,
    in this very thread too. The thread has no reference to the generator, which could not be collected otherwise.
    """

    def __init__(self, start: Callable[[], Generator[Any, None, None]], n: int) -> None:
        self._start = start
        self._ended = False
        self._leave: SimpleQueue[None] = SimpleQueue()
        self._items: SimpleQueue[tuple[Any] | BaseException | None] = SimpleQueue()
        for _ in range(n):
            self._leave.put(None)
        # A daemon: an iterator that is left in the middle does not keep the interpreter from ending.
        self.thread = threading.Thread(target=self._run, name="trainstep-prefetch", daemon=True)

    def _run(self) -> None:
        try:
            with closing(self._start()) as items:
                while self._may_go_on():
                    self._items.put((next(items),))
        except StopIteration:
            self._items.put(None)
        except BaseException as error:
            self._items.put(error)

    def _may_go_on(self) -> bool:
        self._leave.get()
        return not self._ended

    def take(self) -> tuple[Any] | None:
        """Wait for the next item; None after the last."""
        item = self._items.get()
        if isinstance(item, BaseException):
            try:
                raise item
            finally:
                del item  # which refers to this frame, by its traceback
        self._leave.put(None)
        return item

    def end(self) -> None:
        """End the thread, and wait until it has."""
        self._ended = True
        self._leave.put(None)
        # Python no longer runs such threads once it is ending: there is no end to wait for.
        if self.thread is not threading.current_thread() and not sys.is_finalizing():
            self.thread.join()
