"""Batches and prefetch: which rows, in the same bits with a thread and without, and threads that end."""

import copy
import gc
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainstep as ts
from trainstep import _core
from trainstep.callbacks import Callback
from trainstep.data import Batches, augment, batch_size, prefetch
from trainstep.nn import Dropout

from .helpers import Dlpack, Frame, assert_same_bits, output_of, untouched
from .test_fit import ROWS, WEIGHTS, X, Y, net, run_bits, without_seconds

pytestmark = pytest.mark.one_level


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    if set(threading.enumerate()) != before:
        gc.collect()
    assert set(threading.enumerate()) == before


def all_bits(batches: Any) -> list[tuple[Any, ...]]:
    return [tuple((part.dtype.str, part.shape, part.tobytes()) for part in batch) for batch in batches]


# --- which rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_a_permutation_in_pieces(shuffle: bool, drop_last: bool, ahead: int) -> None:
    batches = Batches(X, Y, 16, shuffle=shuffle, drop_last=drop_last, sample_weight=WEIGHTS, seed=-3, prefetch=ahead)
    assert (batches.rows, batches.epoch, len(batches)) == (ROWS, 0, 6 if drop_last else 7)
    for epoch in range(3):
        order = _core.permutation(ROWS, 2**64 - 3, epoch) if shuffle else np.arange(ROWS)
        if drop_last:
            order = order[:96]
        with untouched(X, Y, WEIGHTS):
            got = list(batches)
        assert [len(x) for x, _, _ in got] == [16] * 6 + ([] if drop_last else [7])
        for part, whole in enumerate((X, Y, WEIGHTS)):
            assert_same_bits(np.concatenate([batch[part] for batch in got]), whole[order])
        assert batches.epoch == epoch + 1
    batches.set_epoch(1)
    again = list(batches)
    assert batches.epoch == 2
    for first in (0, 3, len(batches)):
        assert all_bits(batches.iterate(1, first)) == all_bits(again[first:])
    assert batches.epoch == 2


def test_batches_are_the_callers_own() -> None:
    x = X.copy()
    for shuffle in (False, True):
        for (xb,) in Batches(x, batch_size=10, shuffle=shuffle):
            xb[...] = 7
    np.testing.assert_array_equal(x, X)


class Dataset:
    """As a dataset of HDF5: rows are asked for by indices in ascending order, and are read then."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.asked = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        assert isinstance(index, np.ndarray)
        assert (np.diff(index) > 0).all()
        self.asked += len(index)
        return self.values[index]


def test_rows_from_anywhere(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    wanted = all_bits(Batches(X, Y, 10))
    dataset = Dataset(X)
    for x in (stored, stored[:], np.asarray(stored), dataset, np.asfortranarray(X), Frame(X), Dlpack(X), memoryview(X)):
        assert all_bits(Batches(x, Y, 10)) == wanted
        assert all_bits(Batches(x, Y, 10, shuffle=False)) == all_bits(Batches(X, Y, 10, shuffle=False))
    assert dataset.asked == 2 * ROWS
    assert all(type(x) is np.ndarray for x, _ in Batches(stored, Y))
    lists = Batches(X.astype(float).tolist(), Y.tolist(), 10)
    assert all_bits(lists) == all_bits(Batches(X.astype(float), Y, 10))


def test_a_memmap_is_read_in_ascending_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []

    class Watched(np.memmap):
        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, np.ndarray):
                asked.append(index)
            return super().__getitem__(index)

    X.tofile(tmp_path / "x")
    stored = Watched(tmp_path / "x", dtype=X.dtype, mode="r", shape=X.shape)
    assert all_bits(Batches(stored, batch_size=10)) == all_bits(Batches(X, batch_size=10))
    assert len(asked) == 11
    assert all((np.diff(index) > 0).all() for index in asked)


def test_dtypes() -> None:
    counts = (np.abs(X) * 50).astype(np.uint8)
    assert next(iter(Batches(counts)))[0].dtype == np.uint8
    for dtype in ("float32", "float64"):
        got = np.concatenate([x for (x,) in Batches(counts, dtype=dtype, shuffle=False)])
        assert_same_bits(got, counts.astype(dtype))


def test_the_root_of_the_rows() -> None:
    assert [batch_size(rows) for rows in (1, 2, 3, 6, 7, 100, 60_000)] == [1, 1, 2, 2, 3, 10, 245]
    assert batch_size(60_000, 32) == 32
    assert batch_size(rows=12, size="sqrt") == 3
    assert Batches(X, batch_size="sqrt").batch_size == 10


@given(rows=st.integers(1, 60), size=st.integers(1, 70), epoch=st.integers(0, 2**32 - 1), seed=st.integers(-(2**70), 2**70))
def test_every_row_once(rows: int, size: int, epoch: int, seed: int) -> None:
    batches = Batches(np.arange(rows), batch_size=size, seed=seed, prefetch=0)
    got = list(batches.iterate(epoch))
    assert len(got) == len(batches)
    assert sorted(np.concatenate([x for (x,) in got]).tolist()) == list(range(rows))


def test_copies_draw_the_same() -> None:
    batches = Batches(X, Y, 16, augment=[Noise()])
    next(iter(batches))
    for again in (copy.copy(batches), copy.deepcopy(batches), pickle.loads(pickle.dumps(batches))):
        assert again.epoch == 1
        assert all_bits(again) == all_bits(batches.iterate(1))


# --- augmentation ---------------------------------------------------------------------------------------------------------------


def uniform(samples: np.ndarray, epoch: int, seed: int, place: int) -> np.ndarray:
    """One number in [0, 1) for each sample, a function of these four and nothing else."""
    return np.array([np.random.default_rng([seed, epoch, place, int(s)]).random() for s in samples])


def of(draws: augment.Draws) -> np.ndarray:
    return uniform(draws.samples, draws.epoch, draws.seed, draws.place)


class Flip:
    def __call__(self, x: np.ndarray, y: Any, draws: augment.Draws) -> tuple[np.ndarray, Any]:
        flipped = of(draws) < 0.5
        x = x.copy()
        x[flipped] = x[flipped, :, ::-1]
        return x, y


class Noise:
    def __call__(self, x: np.ndarray, y: Any, draws: augment.Draws) -> tuple[np.ndarray, Any]:
        noise = of(draws).reshape(-1, *[1] * (x.ndim - 1))
        return x + noise, y


class Soft:
    """Labels become rows."""

    def __call__(self, x: np.ndarray, y: Any, draws: augment.Draws) -> tuple[np.ndarray, Any]:
        return x, ts.data.one_hot(y, 4) * np.float32(0.9) + np.float32(0.025)


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, x: np.ndarray, y: Any, draws: augment.Draws) -> tuple[np.ndarray, Any]:
        self.calls.append(
            (
                x.shape,
                None if y is None else y.shape,
                draws.samples.copy(),
                draws.samples.dtype,
                draws.epoch,
                draws.seed,
                draws.place,
            )
        )
        return x, y


def test_what_a_transform_gets() -> None:
    first, second = Recorder(), Recorder()
    batches = Batches(X, Y, 50, seed=-1, augment=[first, second], shape=(2, 4))
    got = list(batches.iterate(9))
    assert [x.shape for x, _ in got] == [(50, 8), (50, 8), (3, 8)]
    order = _core.permutation(ROWS, 2**64 - 1, 9)
    for place, recorder in enumerate((first, second)):
        assert [call[0] for call in recorder.calls] == [(50, 2, 4), (50, 2, 4), (3, 2, 4)]
        np.testing.assert_array_equal(np.concatenate([call[2] for call in recorder.calls]), order)
        assert {(call[3], *call[4:]) for call in recorder.calls} == {(np.dtype(np.int64), 9, 2**64 - 1, place)}
    alone = Recorder()
    list(Batches(X, augment=[alone], shape=(2, 2, 2)))
    assert alone.calls[0][:2] == ((32, 2, 2, 2), None)


@pytest.mark.parametrize("shape", [None, (2, 4), (2, 2, 2)])
def test_transforms_in_order_and_in_any_batch(shape: Any) -> None:
    x = X if shape else X.reshape(ROWS, 2, 4)
    made = {}
    for size, ahead, transforms in itertools.product((1, 7, ROWS), (0, 2), ([Flip(), Noise()], [Noise(), Flip()])):
        batches = Batches(x, Y, size, augment=transforms, seed=5, shape=shape, prefetch=ahead)
        order = _core.permutation(ROWS, 5, 3)
        got = np.empty((ROWS, *x.shape[1:]))
        got[order] = np.concatenate([xb for xb, _ in batches.iterate(3)])
        made.setdefault(type(transforms[0]).__name__, []).append(got.tobytes())
    assert all(len(set(found)) == 1 for found in made.values())
    assert made["Flip"] != made["Noise"]
    images = X.reshape(-1, *(shape or (2, 4)))
    got = np.frombuffer(made["Flip"][0]).reshape(images.shape)
    flips = uniform(np.arange(ROWS), 3, 5, 0) < 0.5
    noise = uniform(np.arange(ROWS), 3, 5, 1)
    for i in range(ROWS):
        np.testing.assert_array_equal(got[i], (images[i][:, ::-1] if flips[i] else images[i]) + noise[i])
    assert abs(flips.sum() - ROWS / 2) < 4 * np.sqrt(ROWS / 4)


# the transforms of data.augment
TRANSFORMS = [
    augment.HorizontalFlip(),
    augment.RandomCrop(1),
    augment.RandomRotation(20),
    augment.Cutout(2),
    augment.GaussianNoise(0.1),
]


@pytest.mark.parametrize("transforms", [TRANSFORMS, [*TRANSFORMS, augment.Mixup(0.4, classes=10)]], ids=["moved", "mixed"])
def test_the_same_bits_with_and_without_a_thread(transforms: list[Any]) -> None:
    x, y = ts.data.load_digits()
    x, y = x[:300], y[:300]

    def epoch(ahead: int, threads: int) -> list[tuple[np.ndarray, ...]]:
        with ts.num_threads(threads):
            return list(Batches(x, y, 64, augment=transforms, shape=(8, 8), seed=9, prefetch=ahead).iterate(4))

    expected = epoch(0, 1)
    assert expected[0][0].shape == (64, 64)
    for ahead, threads in ((0, 2), (1, 1), (2, 2), (5, 3)):
        for got, batch in zip(epoch(ahead, threads), expected, strict=True):
            for a, b in zip(got, batch, strict=True):
                assert_same_bits(a, b)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x, y = ts.data.load_digits()
    images = x[:40].reshape(40, 8, 8)

    def by_label(**options: Any) -> dict[int, bytes]:
        batches = Batches(images, np.arange(40), augment=TRANSFORMS, seed=2, **options)
        return {int(label): xb[i].tobytes() for xb, yb in batches.iterate(3) for i, label in enumerate(yb)}

    expected = by_label(batch_size=40)
    assert len(expected) == 40
    for options in ({"batch_size": 1}, {"batch_size": 7, "shuffle": False}, {"batch_size": 16, "prefetch": 0}):
        assert by_label(**options) == expected
    other = {
        int(label): xb[0].tobytes()
        for xb, yb in Batches(images, np.arange(40), 1, augment=TRANSFORMS, seed=2).iterate(4)
        for label in yb
    }
    assert sum(other[k] == expected[k] for k in expected) == 0  # another epoch, other pictures


def test_labels_may_change_and_dtypes_are_kept() -> None:
    got = list(Batches(X, Y, 16, augment=[Soft(), Noise()], dtype="float32"))
    assert {(x.dtype.name, y.shape[1]) for x, y in got} == {("float32", 4)}
    np.testing.assert_allclose(np.concatenate([y for _, y in got]).sum(axis=1), 1, rtol=1e-6)
    trainer = ts.Trainer(net())
    trainer.fit(Batches(X, Y, 16, augment=[Soft()]), epochs=2)
    assert trainer.steps == 14


# --- threads --------------------------------------------------------------------------------------------------------------------


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "trainstep-prefetch"]


def leave_by_break(items: Any) -> None:
    for _ in items:
        assert len(workers()) == 1
        break


def leave_by_exception(items: Any) -> None:
    def fail() -> None:
        for _ in items:
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def leave_by_close(items: Any) -> None:
    iterator = iter(items)
    next(iterator)
    iterator.close()


def leave_by_forgetting(items: Any) -> None:
    iterator = iter(items)
    next(iterator)
    del iterator


def leave_in_a_cycle(items: Any) -> None:
    cycle: list[Any] = [iter(items)]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()


def leave_at_the_end(items: Any) -> None:
    assert len(list(items)) == 11


def never_begin(items: Any) -> None:
    iterator = iter(items)
    assert not workers()
    del iterator


LEAVING = [leave_by_break, leave_by_exception, leave_by_close, leave_by_forgetting, leave_in_a_cycle, leave_at_the_end, never_begin]


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("leave", LEAVING)
def test_the_thread_ends_with_the_loop(leave: Callable[[Any], None], ahead: int) -> None:
    made = Batches(X, Y, 10)
    for items in (Batches(X, Y, 10, prefetch=ahead), prefetch(list(made), ahead), prefetch(Batches(X, batch_size=10, prefetch=0))):
        leave(items)
        assert not workers()


def test_no_thread_where_none_is_wanted() -> None:
    for items in (Batches(X, prefetch=0), prefetch(list(X), 0)):
        for _ in items:
            assert not workers()


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_is_made_than_was_asked_for(ahead: int) -> None:
    made = threading.Semaphore(0)
    count = itertools.count()

    def source() -> Iterator[int]:
        for item in count:
            made.release()
            yield item

    items = iter(prefetch(source(), ahead))
    for item in range(20):
        assert next(items) == item
        # The thread goes on to `ahead` more; what a test can hold without waiting for time is that it is not further.
        assert made._value <= item + 1 + ahead
    for _ in range(20 + ahead):
        assert made.acquire(timeout=60)
    items.close()  # type: ignore[attr-defined]
    assert not made.acquire(blocking=False)
    assert next(count) == 20 + ahead


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_what_a_source_raises_comes_after_what_it_gave(ahead: int) -> None:
    class Broken(Exception):
        pass

    def source() -> Iterator[Any]:
        yield None  # an item as any other
        yield Broken()
        raise Broken("here")

    got: list[Any] = []
    with pytest.raises(Broken, match="here") as caught:
        got.extend(prefetch(source(), ahead))
    assert got[0] is None
    assert isinstance(got[1], Broken)
    assert "source" in [entry.name for entry in caught.traceback]


def test_what_a_transform_raises_is_raised() -> None:
    class Failing:
        def __call__(self, x: Any, y: Any, draws: augment.Draws) -> Any:
            if draws.epoch == 1:
                raise OSError("no disk")
            return x[:5], y

    for ahead in (0, 2):
        batches = Batches(X, Y, augment=[Failing()], prefetch=ahead)
        with pytest.raises(ValueError, match=r"Batches: augment\[0\] gave other than the 32 rows that it got"):
            list(batches)
        with pytest.raises(OSError, match="no disk"):
            ts.Trainer(net()).fit(lambda epoch, batches=batches: batches.iterate(1))
        with pytest.raises(ValueError, match=r"Batches: x\[index\] has shape \(1, 8\) for 32 rows"):
            list(Batches(Short(X), prefetch=ahead))


class Short(Dataset):
    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.values[:1]


def test_a_source_is_closed_where_it_is_nobody_elses() -> None:
    closed = []

    class Source:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[int]:
            try:
                yield from range(3)
            finally:
                closed.append(threading.current_thread().name)

    items = prefetch(Source())
    assert len(items) == 3  # type: ignore[arg-type]
    assert [list(items), list(items)] == [[0, 1, 2]] * 2
    leave_by_break(items)
    assert closed == ["trainstep-prefetch"] * 3
    mine = iter(range(100))
    generator = (k for k in mine)
    for item in prefetch(generator, 1):
        if item == 3:
            break
    assert next(generator) in (4, 5, 6)  # what was made ahead is lost; it is open yet
    with pytest.raises(TypeError):
        len(prefetch(k for k in range(3)))  # type: ignore[arg-type]


def test_an_iterator_goes_on_over_epochs() -> None:
    def endless() -> Iterator[Any]:
        for epoch in itertools.count():
            yield from Batches(X, Y, 16, seed=1, prefetch=0).iterate(epoch)

    wanted, trainer = ts.Trainer(net()), ts.Trainer(net())
    wanted.fit(X, Y, epochs=3, batch_size=16)
    trainer.fit(prefetch(endless()), epochs=7, steps_per_epoch=3)
    assert run_bits(trainer) == run_bits(wanted)


def test_the_collector_may_end_an_iterator_in_any_thread() -> None:
    """Also in its own, which cannot wait for its own end."""
    held: list[Any] = []
    forgotten, ended = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        try:
            yield 0
            assert forgotten.wait(60)
            held.clear()  # the last reference, in the midst of making an item
            yield 1
        finally:
            ended.set()

    iterator = iter(prefetch(Reiterable(source), 2))
    next(iterator)
    held.append(iterator)
    (thread,) = workers()
    del iterator
    forgotten.set()
    assert ended.wait(60)
    thread.join(60)
    assert not thread.is_alive()


class Reiterable:
    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def test_an_iterator_that_is_left_does_not_keep_the_interpreter() -> None:
    code = """
import itertools
import numpy as np
import trainstep as ts
batches = iter(ts.data.Batches(np.zeros((100, 2)), batch_size=1))
endless = iter(ts.data.prefetch(itertools.count(), 5))
next(batches), next(endless)
print("done")
"""
    assert output_of(code) == "done"


def test_nothing_waits_for_a_thread_once_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        assert going_on.wait(60)

    iterator = iter(prefetch(Reiterable(source)))
    next(iterator)
    (thread,) = workers()
    with monkeypatch.context() as patch:
        patch.setattr("sys.is_finalizing", lambda: True)
        iterator.close()  # type: ignore[attr-defined]
    assert thread.is_alive()
    going_on.set()
    thread.join(60)
    assert not thread.is_alive()


# --- training -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True}, {"sample_weight": WEIGHTS}], ids=str)
def test_fit_on_batches_is_fit_on_arrays(options: dict[str, Any], ahead: int) -> None:
    arrays, stream = ts.Trainer(net("float32", Dropout(0.3))), ts.Trainer(net("float32", Dropout(0.3)))
    wanted = arrays.fit(X, Y, epochs=3, batch_size="sqrt", accumulate=2, **options)
    got = stream.fit(Batches(X, Y, "sqrt", seed=1, prefetch=ahead, **options), epochs=3, accumulate=2)
    assert run_bits(stream) == run_bits(arrays)
    assert without_seconds(got) == without_seconds(wanted)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        if step == self.step:
            self.trainer.stop()


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("step", [5, 7, 9, 14])
def test_a_run_that_was_stopped_goes_on(step: int, ahead: int, tmp_path: Path) -> None:
    def batches() -> Batches:
        return Batches(X, Y, 16, seed=1, augment=[Flip(), Noise()], shape=(2, 4), prefetch=ahead)

    whole = ts.Trainer(net("float32", Dropout(0.3)))
    whole.fit(batches(), epochs=3)
    trainer = ts.Trainer(net("float32", Dropout(0.3)))
    trainer.fit(batches(), epochs=3, callbacks=[StopAt(step)])
    assert trainer.steps == step
    assert not workers()
    trainer.save(tmp_path / "run")
    resumed = ts.Trainer.load(tmp_path / "run")
    for one in (trainer, resumed):
        one.fit(batches(), until_epoch=3)
        assert run_bits(one) == run_bits(whole)
        assert without_seconds(one.history) == without_seconds(whole.history)


def test_an_epoch_goes_on_with_the_same_batches_only(tmp_path: Path) -> None:
    """The fifth batch of 16 rows is no batch of 8, 32 or of another order: an epoch of those begins anew."""
    for other in ({"batch_size": 8}, {"batch_size": 16, "seed": 2}, {"batch_size": 16, "shuffle": False}):
        trainer = ts.Trainer(net())
        trainer.fit(Batches(X, Y, 16, seed=1), callbacks=[StopAt(5)])
        trainer.save(tmp_path / "run")
        resumed = ts.Trainer.load(tmp_path / "run")
        batches = Batches(X, Y, **other)
        resumed.fit(batches)
        assert resumed.steps == 5 + len(batches)


def test_a_hook_that_raises_ends_the_thread() -> None:
    class Failing(Callback):
        def on_batch_end(self, step: int, values: dict[str, float]) -> None:
            raise KeyError

    for source in (Batches(X, Y, 16), prefetch(list(Batches(X, Y, 16, prefetch=0)))):
        with pytest.raises(KeyError) as caught:
            ts.Trainer(net()).fit(source, callbacks=[Failing()])
        assert not workers()  # though the traceback lives
        del caught


# --- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((3,), {}, TypeError, r"Batches: x is a int, expected an array, or what gives one as x\[index\]"),
        (("text",), {}, TypeError, "Batches: x is a str"),
        (({0: X},), {}, TypeError, "Batches: x is a dict"),
        ((iter(X),), {}, TypeError, "Batches: x is a .*iterator"),
        ((np.array(3.0),), {}, ValueError, "Batches: x has no rows, it is a single value"),
        ((X[:0],), {}, ValueError, "Batches: x has no rows"),
        ((np.ma.array(X),), {}, TypeError, "Batches: x is a MaskedArray"),
        ((np.array(["a"]),), {}, TypeError, "Batches: x has dtype <U1, expected a real dtype"),
        ((X, Y[:5]), {}, ValueError, "Batches: y has 5 rows, x has 103"),
        ((X, 3), {}, TypeError, "Batches: y is a int"),
        ((X, Y, 0), {}, ValueError, "Batches: batch_size is 0, expected 1 to"),
        ((X, Y, "root"), {}, ValueError, "Batches: batch_size is 'root', expected an int or 'sqrt'"),
        ((X, Y, 2.0), {}, TypeError, "Batches: batch_size is a float"),
        ((X, Y), {"shuffle": 1}, TypeError, "Batches: shuffle is a int, expected a bool"),
        ((X, Y), {"drop_last": None}, TypeError, "Batches: drop_last is a NoneType"),
        ((X, Y, 104), {"drop_last": True}, ValueError, "Batches: drop_last is True, expected False where x has 103 rows"),
        ((X,), {"sample_weight": WEIGHTS}, ValueError, "Batches: sample_weight is given, expected None where y is"),
        ((X, Y), {"sample_weight": WEIGHTS[1:]}, ValueError, r"sample_weight has shape \(102,\), expected \(103,\)"),
        ((X, Y), {"sample_weight": -WEIGHTS}, ValueError, r"sample_weight\[0\] is -.*, expected a finite number of at least 0"),
        ((X, Y), {"sample_weight": WEIGHTS * np.nan}, ValueError, r"sample_weight\[0\] is nan"),
        ((X, Y), {"sample_weight": ["a"] * ROWS}, TypeError, "Batches: sample_weight has dtype <U1"),
        ((X, Y), {"seed": 1.5}, TypeError, "Batches: seed is a float"),
        ((X, Y), {"prefetch": -1}, ValueError, "Batches: prefetch is -1, expected 0 to"),
        ((X, Y), {"prefetch": True}, TypeError, "Batches: prefetch is a bool"),
        ((X, Y), {"dtype": "int8"}, TypeError, "Batches: dtype is int8, expected float32 or float64"),
        ((X, Y), {"augment": Flip()}, TypeError, "Batches: augment is a Flip, expected a list of transforms"),
        ((X, Y), {"augment": [Flip]}, TypeError, r"Batches: augment\[0\] is the class Flip, expected a transform"),
        ((X, Y), {"augment": [Flip(), 3]}, TypeError, r"Batches: augment\[1\] is a int, expected a transform"),
        ((X, Y), {"augment": [Flip()] * 257}, ValueError, "Batches: augment has 257 transforms, expected at most 256"),
        ((X, Y), {"shape": (2, 4)}, ValueError, "Batches: shape is given, expected None without augment"),
        ((X, Y), {"shape": (3, 4), "augment": [Flip()]}, ValueError, r"Batches: x has shape \(103, 8\), expected \(rows, 12\)"),
        ((X, Y), {"shape": 8, "augment": [Flip()]}, ValueError, r"Batches: shape is 8, expected \(H, W\) or \(H, W, C\)"),
        ((X, Y), {"shape": (0, 8), "augment": [Flip()]}, ValueError, r"Batches: shape\[0\] is 0, expected at least 1"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Batches(*arguments, **options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Batches(X).set_epoch(-1), ValueError, "set_epoch: epoch is -1, expected 0 to"),
        (lambda: Batches(X).iterate(0.5), TypeError, "iterate: epoch is a float"),
        (lambda: Batches(X).iterate(0, 5), ValueError, "iterate: first is 5, expected 0 to 4"),
        (lambda: prefetch(3), TypeError, "prefetch: iterable is a int"),
        (lambda: prefetch([], -1), ValueError, "prefetch: n is -1, expected 0 to"),
        (lambda: prefetch([], 1.0), TypeError, "prefetch: n is a float"),
        (lambda: batch_size(0), ValueError, "batch_size: rows is 0, expected at least 1"),
        (lambda: batch_size(10, 0), ValueError, "batch_size: size is 0, expected 1 to"),
        (lambda: batch_size(10, "half"), ValueError, "batch_size: size is 'half', expected an int or 'sqrt'"),
        (lambda: ts.Trainer(net()).fit(Batches(X)), TypeError, r"fit: x gave a tuple, expected batches \(x, y\)"),
        (lambda: ts.Trainer(net()).fit(Batches(X, Y), Y), ValueError, "fit: y is given, expected None where x gives batches"),
    ],
)
def test_bad_calls(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
