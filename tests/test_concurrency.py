"""Many at once: Python threads on one model and on several, the GIL, fork, and signals in the middle of a fit."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, ops, optim
from trainstep.nn import Sequential

from .helpers import Array, assert_same_bits, bits, classes, network, normal, output_of, state_bits

pytestmark = pytest.mark.one_level

SIZES = pytest.mark.parametrize("widths", [(8, 16, 4), (256, 256, 4)], ids=lambda w: "-".join(map(str, w)))
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() here")


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs in Python threads that start together, and give their results."""
    results: list[Any] = [None] * len(jobs)
    failures: list[BaseException] = []
    gate = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        try:
            gate.wait(60)
            results[i] = jobs[i]()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    workers = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a call hangs"
    assert not failures, failures
    return results


def in_parallel(work: Callable[[int], Any], n: int = 6) -> list[Any]:
    return at_once(*(lambda i=i: work(i) for i in range(n)))


# --- the same bits as one after the other --------------------------------------------------------------------------------------


def test_calls_from_many_threads_give_the_same_bits(dtype: np.dtype, threads: int) -> None:
    def work(i: int) -> list[Array]:
        rng = np.random.default_rng(i % 3)
        result = []
        for m, k, n in ((300, 200, 250), (5, 7, 9), (64, 600, 300)):
            x, w = normal(rng, dtype, m, k), normal(rng, dtype, k, n)
            y = ops.dense(x, w, activation="tanh")
            result += [y, *ops.dense_backward(y, x, w, y, "tanh")]
            result += [np.asarray(r) for r in ops.softmax_cross_entropy(y, np.arange(m) % n)]
        p, g, a, v = (normal(rng, dtype, 100_001) for _ in range(4))
        v *= v
        optim.adam_step_(p, g, a, v, lr=0.1)
        return [*result, p, a, v]

    expected = [work(i) for i in range(6)]
    for got, wanted in zip(in_parallel(work), expected, strict=True):
        for mine, other in zip(got, wanted, strict=True):
            assert_same_bits(mine, other)


@SIZES
def test_models_trained_side_by_side_get_the_serial_bits(widths: tuple[int, ...]) -> None:
    x, y = classes(500, widths[0], 4)

    def train(seed: int) -> tuple[bytes, bytes]:
        trainer = ts.Trainer(network(widths, dtype="float32", seed=seed))
        trainer.fit(x, y, epochs=5, batch_size=100)
        return bits(trainer.model), state_bits(trainer)

    serial = [train(seed) for seed in range(4)]
    assert in_parallel(train, 4) == serial
    with ThreadPoolExecutor(3) as pool:  # workers that train one model after the other
        assert list(pool.map(train, [0, 1, 2, 3] * 2)) == serial * 2


@SIZES
def test_two_threads_on_one_model_take_turns(widths: tuple[int, ...]) -> None:
    """All steps are alike, so whoever's turn it is, the sum of them is that of one thread."""
    x, y = classes(128, widths[0], 4)
    steps = 300 if widths[0] == 8 else 40
    alone, shared = (ts.Trainer(network(widths, dtype="float32")) for _ in range(2))
    for _ in range(2 * steps):
        alone.step(x, y)

    def step() -> None:
        for _ in range(steps):
            shared.step(x, y)
            shared.model(x[:5])

    at_once(lambda: shared.fit(x, y, epochs=steps, batch_size=128, shuffle=False), step)
    assert shared.steps == alone.steps == 2 * steps
    assert bits(shared.model) == bits(alone.model)
    assert state_bits(shared) == state_bits(alone)


def test_two_threads_with_batches_of_their_own_give_one_of_the_orders() -> None:
    batches = [classes(64, 8, 4, seed=seed) for seed in range(2)]

    def train(order: list[int]) -> bytes:
        trainer = ts.Trainer(network((8, 16, 4), dtype="float32"))
        for i in order:
            trainer.step(*batches[i])
        return bits(trainer.model)

    possible = {train(order) for order in ([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0])}
    assert len(possible) == 6
    for _ in range(20):
        trainer = ts.Trainer(network((8, 16, 4), dtype="float32"))
        in_parallel(lambda i, trainer=trainer: [trainer.step(*batches[i]) for _ in range(2)], 2)
        assert bits(trainer.model) in possible


def test_threads_that_share_a_model_take_turns() -> None:
    x = normal(np.random.default_rng(0), np.float32, 200, 30)
    model = ts.nn.Sequential(ts.nn.Dense(30, 100, activation="relu"), ts.nn.Dense(100, 10))
    expected = [model(x[: 10 + 30 * i]) for i in range(6)]
    for _ in range(5):
        for got, wanted in zip(in_parallel(lambda i: model(x[: 10 + 30 * i])), expected, strict=True):
            assert_same_bits(got, wanted)
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.0))
    losses = in_parallel(lambda i: [trainer.step(x, np.arange(200) % 10) for _ in range(20)])
    assert len({loss for part in losses for loss in part}) == 1  # with lr = 0 every step sees the same model
    assert trainer.steps == 120


def test_threads_that_share_an_optimizer_take_turns() -> None:
    w, g = np.zeros(200_000, np.float32), np.ones(200_000, np.float32)
    optimizer = optim.SGD([w], lr=1.0)
    in_parallel(lambda _: [optimizer.step([g]) for _ in range(20)])
    assert (w == -120).all()
    assert optimizer.state[0]["step"] == 120


def test_an_option_set_by_another_thread_holds_for_whole_steps() -> None:
    w, g = np.zeros(2_000_000, np.float32), np.ones(2_000_000, np.float32)
    optimizer = optim.SGD([w], lr=1.0)
    done = threading.Event()

    def step() -> None:
        try:
            for _ in range(60):
                optimizer.step([g])
                assert w.min() == w.max()
        finally:
            done.set()

    def change() -> None:
        lr = 0.0
        while not done.is_set():
            optimizer.lr = lr
            lr = 1.0 - lr

    at_once(step, change)


def test_blocks_of_num_threads_in_several_threads() -> None:
    before = ts.get_num_threads()
    entered, may_leave, left = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with ts.num_threads(1):
            entered.set()
            may_leave.wait(60)
        left.set()

    def second() -> None:
        entered.wait(60)
        with ts.num_threads(3):
            may_leave.set()
            left.wait(60)
            assert ts.get_num_threads() == (3 if ts.config()["openmp"] else 1)

    at_once(first, second)
    assert ts.get_num_threads() == before  # not the 1 that the second block found
    in_parallel(lambda i: [enter_and_leave(1 + (i + j) % 4) for j in range(200)])
    assert ts.get_num_threads() == before


def enter_and_leave(n: int) -> None:
    x = np.ones((3, 3))
    with ts.num_threads(n):
        ops.dense(x, x)


# --- the GIL -------------------------------------------------------------------------------------------------------------------


def long_calls() -> dict[str, Callable[[], Any]]:
    """Calls of some hundred microseconds, long enough to be worth releasing the GIL for."""
    rng = np.random.default_rng(0)
    x, w = normal(rng, np.float32, 256, 300), normal(rng, np.float32, 300, 256)
    y, labels = normal(rng, np.float32, 256, 256), np.arange(256)
    line = normal(rng, np.float32, 300_000)
    trainer = ts.Trainer(Sequential(ts.nn.Dense(300, 256)))
    trained = Sequential(ts.nn.Dense(300, 256))
    trained.forward(x, training=True)
    data = trainer._core.data(x, labels, "fit", "x", "y")
    optimizer = optim.Adam([line.copy()])
    return {
        "dense": lambda: ops.dense(x, w),
        "dense_backward": lambda: ops.dense_backward(y, x, w),
        "tanh": lambda: ops.tanh(line),
        "tanh_backward": lambda: ops.tanh_backward(line, line),
        "softmax_cross_entropy": lambda: ops.softmax_cross_entropy(y, labels),
        "adam_step_": lambda: optim.adam_step_(line.copy(), line, np.zeros_like(line), np.zeros_like(line)),
        "Optimizer.step": lambda: optimizer.step([line]),
        "model": lambda: trainer.model(x),
        "forward": lambda: trainer.model.forward(x, training=True),
        "backward": lambda: trained.backward(y),
        "Trainer.step": lambda: trainer.step(x, labels),
        "an epoch of one batch": lambda: trainer._core.fit_epoch(data, 256, False, None),
        "evaluate": lambda: trainer._core.evaluate(data, 256),
    }


@pytest.fixture
def no_switching() -> Iterator[None]:
    """A thread keeps the GIL until it gives it away."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("no_switching")
@pytest.mark.parametrize("name", long_calls())
def test_another_thread_runs_during_a_call(name: str) -> None:
    """Another thread waits for the GIL when the call begins. Only if the call releases it can that thread see it going on."""
    call = long_calls()[name]
    inside = False
    seen = threading.Event()
    begun = threading.Semaphore(0)

    def watch() -> None:
        while begun.acquire() and not seen.is_set():
            if inside:
                seen.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for _ in range(5000):  # the first or the second, on an idle machine
        begun.release()
        inside = True
        call()
        inside = False
        if seen.is_set():
            break
    seen_during_a_call = seen.is_set()
    seen.set()
    begun.release()
    watcher.join(60)
    assert seen_during_a_call


def fit_until_called(trainer: ts.Trainer, x: Array, y: Array, callback: Callable[[], object]) -> None:
    """Train until the progress callback, which runs between two batches, has been called once."""
    called = []

    def progress(*_: object) -> None:
        if not called:
            callback()
            called.append(True)

    data = trainer._core.data(x, y, "fit", "x", "y")
    while not called:
        trainer._core.set_fit(1, (progress, 0.0))
        trainer._core.fit_epoch(data, 4, False, None)


@pytest.mark.parametrize("models", [1, 2])
def test_two_fits_are_under_way_at_once(models: int) -> None:
    """Each waits, in the middle of its epoch, until the other is in the middle of its own; so does one model's lock not stand."""
    x, y = classes(100_000, 32, 4)
    both_inside = threading.Barrier(2)
    networks = [network((32, 64, 4), dtype="float32") for _ in range(models)]
    trainers = [ts.Trainer(networks[i % models]) for i in range(2)]
    in_parallel(lambda i: fit_until_called(trainers[i], x, y, lambda: both_inside.wait(60)), 2)


def test_a_trainer_is_in_one_threads_fit_at_a_time() -> None:
    """Another thread's is refused before it changes anything; one from a callback of the first is not."""
    x, y = classes(60, 8, 4)
    trainer, alone = (ts.Trainer(network((8, 16, 4), dtype="float32")) for _ in range(2))
    refused = []

    class Both(ts.callbacks.Callback):
        def on_epoch_end(self, epoch: int, values: dict[str, Any]) -> None:
            if epoch != 2:
                return
            with ThreadPoolExecutor(1) as other:
                refused.append(other.submit(trainer.fit, x[:7], y[:7], epochs=3).exception())
            trainer.fit(x[:20], y[:20], epochs=1)

    trainer.fit(x, y, epochs=2, callbacks=[Both()])
    assert str(refused[0]) == "fit: another thread is in a fit of this trainer, expected one at a time"
    alone.fit(x, y, epochs=2)
    alone.fit(x[:20], y[:20], epochs=1)
    assert (trainer.epoch, bits(trainer.model)) == (alone.epoch, bits(alone.model))


def test_the_end_of_a_fit_meets_no_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fit's copy is freed, no other can have begun, and made its own, since it was seen to be the last."""
    x, y = classes(60, 8, 4)
    trainer = ts.Trainer(network((8, 16, 4), dtype="float32"))
    core = type(trainer._core)
    forget, alone = core.forget, []

    def seen(self: Any) -> None:
        alone.append(trainer._turn.locked() and not trainer._runs)
        forget(self)

    monkeypatch.setattr(core, "forget", seen)
    trainer.fit(x, y, epochs=1)
    assert alone == [True]


def test_without_a_copy_nothing_is_restored() -> None:
    trainer = ts.Trainer(network((8, 16, 4), dtype="float32"))
    views = trainer.model.parameters()
    before = bits(trainer.model)
    with pytest.raises(RuntimeError, match="there is no copy of the parameters"):
        trainer._core.restore()
    assert bits(trainer.model) == before
    assert all(np.shares_memory(view, views[name]) for name, view in trainer.model.parameters().items())


def test_a_callback_may_use_the_model_that_is_trained() -> None:
    x, y = classes(100_000, 32, 4)
    trainer = ts.Trainer(network((32, 64, 4), dtype="float32"))
    counts = []

    def use() -> None:
        before = trainer.steps
        trainer.step(x[:300], y[:300])  # more rows than the batches of the fit: the workspace grows under it
        trainer.evaluate(x[:50], y[:50])
        counts.append((before, trainer.steps))

    fit_until_called(trainer, x, y, use)
    assert counts[0][1] == counts[0][0] + 1
    assert np.isfinite(trainer.step(x, y))


# --- signals -------------------------------------------------------------------------------------------------------------------


class Alarm(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[..., None], float, float], None]]:
    """Start an interval timer: alarm(handler, first, interval). It is stopped after the test."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler: Callable[..., None], first: float, interval: float = 0.0) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, first, interval)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
LOSSES = pytest.mark.parametrize(("loss", "kind"), [("softmax_cross_entropy", "labels"), ("mse", "values")])


def problem(loss: str, rows: int) -> tuple[ts.Trainer, Array, Array]:
    """float64, momentum and steps large enough for two threads."""
    x, y = classes(rows, 32, 4, "float64")
    trainer = ts.Trainer(network((32, 96, 4)), loss, optim.SGD(lr=0.01, momentum=0.9))
    return trainer, x, y if loss == "softmax_cross_entropy" else np.eye(4)[y]


@needs_timer
@LOSSES
@pytest.mark.parametrize("first", [0.002, 0.06])
def test_a_handler_that_raises_leaves_a_whole_step(alarm: Any, loss: str, kind: str, first: float) -> None:
    trainer, x, y = problem(loss, 4000)

    def ring(*_: object) -> None:
        raise Alarm

    alarm(ring, first)
    with ts.num_threads(2), pytest.raises(Alarm):
        trainer.fit(x, y, epochs=10**6, batch_size=256)
    again, _, _ = problem(loss, 4000)
    assert trainer.epoch == trainer.steps // 16
    for step in range(trainer.steps):
        epoch, batch = divmod(step, 16)
        chosen = _core.permutation(4000, 0, epoch)[batch * 256 : (batch + 1) * 256]
        again.step(x[chosen], y[chosen])
    assert bits(trainer.model) == bits(again.model)
    assert state_bits(trainer) == state_bits(again)
    assert {entry["step"] for entry in trainer.optimizer.state} == {trainer.steps}


@needs_timer
@LOSSES
def test_a_handler_that_returns_leaves_no_trace(alarm: Any, loss: str, kind: str) -> None:
    disturbed, x, y = problem(loss, 4000)
    alone, _, _ = problem(loss, 4000)
    seen = []
    alarm(lambda *_: seen.append((disturbed.steps, disturbed.evaluate(x[:10], y[:10])["loss"])), 0.001, 0.003)
    epochs = 0
    while len(seen) < 3:
        disturbed.fit(x, y, epochs=5, batch_size=256)
        epochs += 5
    signal.setitimer(signal.ITIMER_REAL, 0)
    alone.fit(x, y, epochs=epochs, batch_size=256)
    assert bits(disturbed.model) == bits(alone.model)
    assert state_bits(disturbed) == state_bits(alone)
    assert [steps for steps, _ in seen] == sorted(steps for steps, _ in seen)


# --- fork ----------------------------------------------------------------------------------------------------------------------

LARGE_PRODUCT = """
import numpy as np, trainstep as ts
rng = np.random.default_rng(0)
x, w = rng.standard_normal((400, 500), np.float32), rng.standard_normal((500, 600), np.float32)
"""
FORK = (
    LARGE_PRODUCT
    + """
import os, sys, warnings
def everything():
    y = ts.ops.dense(x, w, activation="tanh")
    model = ts.nn.Sequential(ts.nn.Dense(500, 600, activation="relu"), ts.nn.Dense(600, 10))
    loss = ts.Trainer(model).step(x, np.arange(400) % 10)
    p, m, v = (np.ones(300_000, np.float32) for _ in range(3))
    ts.optim.adam_step_(p, m * 2, m, v)
    return y.tobytes() + p.tobytes() + repr(loss).encode() + model(x).tobytes()
ts.set_num_threads(3)
expected = everything()
warnings.simplefilter("ignore")  # Python 3.12 warns of forking with threads, which is what is tested
for generation in range(2):
    child = os.fork()
    if child == 0:
        ok = everything() == expected
        ts.set_num_threads(2)
        ok = ok and everything() == expected
        if generation == 0 and ok:
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if everything() == expected else 3)
            ok = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        os._exit(0 if ok else 2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
    assert everything() == expected  # the parent's team lives on
print("same")
"""
)


@needs_fork
def test_a_forked_child_computes_the_same_and_does_not_hang() -> None:
    assert output_of(FORK, timeout=60) == "same"


@needs_fork
def test_a_child_forked_before_any_team_may_use_threads() -> None:
    code = LARGE_PRODUCT + (
        "import os\nts.set_num_threads(2)\nchild = os.fork()\ny = ts.ops.dense(x, w)\nif child == 0: os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert output_of(code, timeout=60) == "0"


MULTIPROCESSING = """
import multiprocessing, warnings
import numpy as np, trainstep as ts

def train(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((600, 200), np.float32), rng.integers(0, 10, 600)
    model = ts.nn.Sequential(ts.nn.Dense(200, 300, activation="relu"), ts.nn.Dense(300, 10), seed=seed)
    history = ts.Trainer(model).fit(x, y, epochs=2, batch_size=200)
    return history.history["loss"], [w.tobytes() for w in model.parameters().values()]

ts.set_num_threads(3)
expected = [train(seed) for seed in range(4)]
warnings.simplefilter("ignore")  # Python 3.12 warns of forking with threads, which is what is tested
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(train, range(4)) == expected
assert train(0) == expected[0]
print("same")
"""


@needs_fork
def test_a_pool_of_forked_workers_trains_to_the_same_bits() -> None:
    assert output_of(MULTIPROCESSING, timeout=60) == "same"
