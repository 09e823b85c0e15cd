"""The five steps, each on a `Problem`: what is measured, by which rule it is good, and what that means."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainstep import ops
from trainstep._runtime import num_threads
from trainstep.callbacks import Callback
from trainstep.recipe.problem import Array, Problem
from trainstep.recipe.results import Candidate, Curves, Grid, InitialLoss, Overfit, RateTest
from trainstep.trainer import DivergenceError, Trainer

Item = TypeVar("Item")
Result = TypeVar("Result")

_FIRST_ROWS = 1024  # whose loss is the initial loss
_TOLERANCE = 0.1  # of the expected initial loss
_OVERFIT_BATCHES = 5
_OVERFIT_RATES = (1e-1, 1e-2, 1e-3, 1e-4)  # the notes' rates
_OVERFIT_UPDATES = 1000
# The share of the loss that may be left. An absolute error of a tenth is a squared one of a hundredth.
_LEARNT = {"mse": 0.01, "huber": 0.01, "mae": 0.1}
_LOWEST_RATE, _HIGHEST_RATE, _TEST_UPDATES = 1e-6, 10.0, 200
_BETA = 0.9  # an average over about 10 updates, a third of a decade of rates
_FALL = 20  # updates over which a fall is measured: above the noise of batches
_BLOWN_UP = 2.0  # times the initial loss
_TRIAL_UPDATES, _TRIAL_END = 100, 20
_STANDARD_ERRORS = 3.0
GRID_FACTORS = (10**-1, 10**-0.5, 1.0, 10**0.5, 10.0)

_FINE = ("good", "plateaued")  # verdicts on curves: neither under- nor overfitting, nor diverging


class Tick(Protocol):
    """Says that some of a step's work is done."""

    def __call__(self, n: int = 1) -> Any:  # noqa: D102
        ...


class Halt(Callback):
    """Ends a training after its epoch, once it is asked to."""

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Stop, if that was asked for."""
        if self._asked.is_set():
            self.trainer.stop()


def side_by_side(
    work: Callable[[Item, Halt], Result], items: Sequence[Item], threads: int, done: Callable[[Item], Any]
) -> list[Result]:
    """Do work on each item, several at once; the results are in the order of the items, and do not depend on threads.

    Several trainings at once are on a thread each: two small ones on two cores take as long as one, which is more than both cores
    on one after the other bring.
    """
    asked = threading.Event()
    threads = min(threads, len(items))
    if threads <= 1:
        results = []
        for item in items:
            results.append(work(item, Halt(asked)))
            done(item)
        return results

    from concurrent.futures import ThreadPoolExecutor, as_completed

    with num_threads(1), ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(work, item, Halt(asked)): item for item in items}
        try:
            for future in as_completed(futures):
                future.result()
                done(futures[future])
        except BaseException:  # Ctrl-C too: what runs ends after its epoch, what waits is not begun
            asked.set()
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]


# --- 1 ---------------------------------------------------------------------------------------------------------------------------


def initial_loss(problem: Problem) -> InitialLoss:
    """Hold the loss before the first update to that of a network that knows nothing."""
    x, y = _some(problem, _FIRST_ROWS)
    expected = problem.ignorant_loss(y)
    # In training, as batch normalisation has it, and without decay: a step's loss is that before its update.
    measured = problem.trainer(0.0, 0.0).step(x, y)
    rule = {
        "softmax_cross_entropy": f"ln {problem.outputs}",
        "categorical_cross_entropy": f"ln {problem.outputs}",
        "sigmoid_binary_cross_entropy": "ln 2",
        "mse": "the variance of the target",
    }.get(problem.loss.name, "the loss of outputs of 0")
    ok = math.isfinite(measured) and abs(measured - expected) <= _TOLERANCE * expected
    if ok:
        meaning = f"{measured:.4g}, expected {rule} = {expected:.4g}: before training the network prefers nothing"
    elif measured > expected or not math.isfinite(measured):
        meaning = (
            f"{measured:.4g}, expected {rule} = {expected:.4g}: the first outputs are too large; begin with a small last layer "
            "(init=ts.init.normal(std=0.01)), and standardize the inputs"
        )
    else:
        meaning = (
            f"{measured:.4g}, expected {rule} = {expected:.4g}: the network knows something before it was trained; "
            "are its weights trained already, or is the target among the inputs?"
        )
    return InitialLoss(bool(ok), meaning, expected, rule, measured)


def _some(problem: Problem, rows: int) -> tuple[Array, Array]:
    """Give some rows, drawn at random: the caller's may be sorted."""
    x, y = problem.train
    chosen = np.random.Generator(np.random.PCG64(problem.seed)).permutation(len(x))[:rows]
    return x[chosen], y[chosen]


# --- 2 ---------------------------------------------------------------------------------------------------------------------------


class _UntilLearnt(Callback):
    """Measures after each epoch, and stops where all is learnt."""

    def __init__(self, x: Array, y: Array, enough: float | None) -> None:
        self._x, self._y, self._enough = x, y, enough
        self.loss: list[float] = []
        self.accuracy: list[float] = []
        self.learnt = False

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Measure what the network knows of the rows that it was shown."""
        measures = self.trainer.evaluate(self._x, self._y)
        self.loss.append(measures["loss"])
        self.accuracy.append(measures.get("accuracy", math.nan))
        self.learnt = self.accuracy[-1] == 1 if self._enough is None else self.loss[-1] <= self._enough
        if self.learnt:
            self.trainer.stop()


def overfit(problem: Problem, threads: int, tick: Tick) -> Overfit:
    """Learn a few mini-batches by heart, at each of the notes' rates."""
    x, y = _some(problem, _OVERFIT_BATCHES * problem.batch_size)
    batches = problem.updates(len(x))
    enough = _LEARNT[problem.loss.name] * problem.ignorant_loss(y) if problem.task == "regression" else None

    def learn(rate: float, halt: Halt) -> _UntilLearnt:
        watch = _UntilLearnt(x, y, enough)
        _fit(problem.trainer(rate, 0.0), x, y, problem, -(-_OVERFIT_UPDATES // batches), [watch, halt])
        return watch

    runs = side_by_side(learn, _OVERFIT_RATES, threads, lambda _: tick())
    # The fewest epochs of those that got there, else the smallest loss in the end.
    order = [(not run.learnt, len(run.loss) if run.learnt else min(run.loss[-1:], default=math.inf)) for run in runs]
    best = min(range(len(runs)), key=order.__getitem__)
    run, rate = runs[best], _OVERFIT_RATES[best]
    updates = len(run.loss) * batches
    contradictions = _contradictions(x, y)
    what = f"{len(x)} rows in {batches} {'batch' if batches == 1 else 'batches'}"
    by_accuracy = problem.task == "classification"
    if run.learnt:
        meaning = f"{what} learnt by heart in {updates} updates at rate {rate:g}: the network is large enough, the training works"
    elif not run.loss:
        meaning = f"{what} are not learnt by heart: at every rate the loss was not finite in the first pass over them"
    else:
        left = f"accuracy {run.accuracy[-1]:.3f}" if by_accuracy else f"loss {run.loss[-1]:.4g}"
        meaning = f"{what} are not learnt by heart in {updates} updates ({left}): " + (
            f"{contradictions} of the rows have the inputs of another row and another target"
            if contradictions
            else "a larger network, less regularization, or look whether inputs and targets belong together"
        )
    accuracy = tuple(run.accuracy) if by_accuracy else None
    return Overfit(run.learnt, meaning, len(x), batches, rate, updates, contradictions, tuple(run.loss), accuracy)


def _contradictions(x: Array, y: Array) -> int:
    """Count the rows whose inputs occur with another target too."""
    _, group = np.unique(x, axis=0, return_inverse=True)
    group = group.reshape(-1)  # NumPy 2.0 gives a column
    pairs = np.unique(np.column_stack([group, y]), axis=0)
    return int((np.bincount(pairs[:, 0].astype(np.intp)) > 1)[group].sum())


def _fit(trainer: Trainer, x: Array, y: Array, problem: Problem, epochs: int, callbacks: list[Callback]) -> bool:
    """Train, and tell whether the loss stayed finite."""
    try:
        trainer.fit(x, y, epochs=epochs, batch_size=problem.batch_size, callbacks=callbacks)
    except DivergenceError:
        return False
    return True


# --- 3 ---------------------------------------------------------------------------------------------------------------------------


class _Recorder(Callback):
    """Keeps the loss of each update, and stops after so many, or where the smoothed loss is beyond a limit."""

    def __init__(self, updates: int, limit: float, tick: Tick) -> None:
        self._updates, self._limit, self._tick = updates, limit, tick
        self.loss: list[float] = []

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        """Keep the loss."""
        self.loss.append(values["loss"])
        self._tick()
        if len(self.loss) == self._updates or not smooth(self.loss)[-1] <= self._limit:
            self.trainer.stop()


def smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Give the exponentially weighted average with bias correction."""
    return np.asarray(ops.ewma(np.array(values, np.float64), _BETA, True))


def rate_test(problem: Problem, initial: InitialLoss, decay: float, tick: Tick) -> RateTest:
    """Let the rate grow with every update, suggest one by the loss, and try it."""
    x, y = problem.train
    rates = np.geomspace(_LOWEST_RATE, _HIGHEST_RATE, _TEST_UPDATES)
    limit = _BLOWN_UP * (initial.measured if math.isfinite(initial.measured) else initial.expected)

    def record(rate: float | Callable[[int], float], updates: int, limit: float) -> list[float]:
        recorder = _Recorder(updates, limit, tick)
        _fit(problem.trainer(rate, decay), x, y, problem, -(-updates // problem.updates(len(x))), [recorder])
        return recorder.loss

    loss = record(lambda t: float(rates[min(t, len(rates) - 1)]), len(rates), limit)
    smoothed = smooth(loss) if loss else np.array([])
    suggestion = _two_digits(_suggested(rates, smoothed))
    trial = record(suggestion, _TRIAL_UPDATES, math.inf)
    end = np.array(trial[-_TRIAL_END:])
    whole = len(trial) == _TRIAL_UPDATES
    ok = whole and bool(end.mean() + _STANDARD_ERRORS * _standard_error(end) < initial.measured)
    if ok:
        meaning = f"{suggestion:g}: the loss falls from {initial.measured:.4g} to {end.mean():.4g} within {_TRIAL_UPDATES} updates"
    else:
        meaning = (
            f"{suggestion:g}, but the loss does not fall within {_TRIAL_UPDATES} updates: "
            "the inputs may say nothing of the target, or the network passes no gradient on (see ts.diagnose)"
        )
    tested = tuple(rates[: len(loss)].tolist())
    return RateTest(ok, meaning, tested, tuple(loss), tuple(smoothed.tolist()), suggestion, tuple(trial))


def _suggested(rates: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """Give a tenth of the rate at the minimum, or the rate in the middle of the steepest fall, where that is smaller.

    The tenth alone is too large where few rows are learnt by heart during the test: then the loss stays near 0, whatever the rate.
    The fall alone is hard to see where batches are small and differ much.
    """
    if not len(smoothed):
        return float(rates[0])
    lowest = int(smoothed.argmin())
    if lowest < _FALL:
        return float(rates[lowest] / 10)
    falls = smoothed[: lowest + 1 - _FALL] - smoothed[_FALL : lowest + 1]
    steepest = int(falls.argmax()) + _FALL // 2
    return float(min(rates[lowest] / 10, rates[steepest]))


def _standard_error(values: NDArray[np.float64]) -> float:
    """Give what the mean is uncertain by."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")


def grid_rates(suggestion: float) -> tuple[float, ...]:
    """Give the rates around a suggestion: half a decade apart, a decade down and up."""
    return tuple(_two_digits(suggestion * factor) for factor in GRID_FACTORS)


# --- 4 ---------------------------------------------------------------------------------------------------------------------------


def halvings(epochs: int) -> list[int]:
    """Give the epochs at which candidates are compared: 1, 2, 4 ... and in place of the last of these, the given number."""
    return [2**k for k in range(epochs.bit_length() - 1)] + [epochs]


def grid(problem: Problem, rates: Sequence[float], decays: Sequence[float], epochs: int, threads: int, tick: Tick) -> Grid:
    """Train all pairs side by side; after 1, 2, 4 ... epochs the better half goes on."""
    trainers = {(rate, decay): problem.trainer(rate, decay) for rate in rates for decay in decays}
    found: dict[tuple[float, float], Candidate] = {}
    going = list(trainers)
    for until in halvings(epochs):

        def train(key: tuple[float, float], halt: Halt, until: int = until) -> Candidate:
            trainer = trainers[key]
            if not _fit(trainer, *problem.train, problem, until - trainer.epoch, [halt]):
                return Candidate(*key, trainer.epoch, math.inf, None)
            measures = trainer.evaluate(*problem.validation)
            loss = measures["loss"] if math.isfinite(measures["loss"]) else math.inf
            return Candidate(*key, trainer.epoch, loss, measures.get("accuracy"))

        results = side_by_side(train, going, threads, lambda _: tick())
        found.update(zip(going, results, strict=True))
        ranked = sorted((key for key in going if math.isfinite(found[key].loss)), key=lambda key: found[key].loss)
        going = ranked[: -(-len(going) // 2)]
        if not going:
            break
    candidates = sorted(found.values(), key=lambda c: (not math.isfinite(c.loss), -c.epochs, c.loss))
    best = candidates[0]
    nothing = problem.ignorant_loss(problem.validation[1])
    gain = problem.gain(trainers[best.rate, best.decay].model, *problem.validation) if math.isfinite(best.loss) else np.array([0.0])
    ok = gain.mean() > _STANDARD_ERRORS * _standard_error(gain)
    chosen = f"rate {best.rate:g}, decay {best.decay:g}"
    accuracy = "" if best.accuracy is None else f", accuracy {best.accuracy:.3f}"
    if not math.isfinite(best.loss):
        meaning = "every candidate diverged: try smaller rates"
    elif not ok:
        meaning = (
            f"{chosen} is best, but its validation loss {best.loss:.4g} is not clearly below {nothing:.4g}, that of "
            "knowing nothing: what is learnt does not hold on unseen data"
        )
    else:
        meaning = f"{chosen}: validation loss {best.loss:.4g}{accuracy} after {best.epochs} {_epochs(best.epochs)}"
        if len(rates) > 1 and best.rate in (min(rates), max(rates)):
            side = "smallest" if best.rate == min(rates) else "largest"
            meaning += f"; it is the {side} rate of the grid, so try {'smaller' if side == 'smallest' else 'larger'} ones too"
    return Grid(bool(ok), meaning, tuple(candidates))


def _epochs(n: int) -> str:
    return "epoch" if n == 1 else "epochs"


# --- 5 ---------------------------------------------------------------------------------------------------------------------------


def curves(problem: Problem, best: Candidate, epochs: int, progress: bool) -> Curves:
    """Train the best candidate longer, and read its curves."""
    trainer = problem.trainer(best.rate, best.decay)
    diverged = ""
    try:
        trainer.fit(
            *problem.train, epochs=epochs, batch_size=problem.batch_size, validation_data=problem.validation, progress=progress
        )
    except DivergenceError as error:
        diverged = str(error)
    measured = {name: tuple(numbers) for name, numbers in trainer.history.history.items()}
    loss, val_loss = measured.get("loss", ()), measured.get("val_loss", ())
    best_epoch = int(np.argmin(val_loss)) + 1 if val_loss else 0
    if diverged:
        verdict, meaning = "diverged", diverged
    else:
        found = trainer.history.diagnosis()
        verdict, meaning = found.verdict, str(found)
    return Curves(
        verdict in _FINE, meaning, verdict, best_epoch, loss, val_loss, measured.get("accuracy"), measured.get("val_accuracy")
    )
