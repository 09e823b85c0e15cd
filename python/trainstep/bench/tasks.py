"""What the contenders share: the problems, each read from one file, and the protocols that worker.py speaks to.

Imported without the rest of trainstep where a peer's interpreter has none: it needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _named(weights: list[Array], biases: list[Array]) -> dict[str, Any]:
    """Name a network's arrays for a file."""
    return {f"weight{i}": w for i, w in enumerate(weights)} | {f"bias{i}": b for i, b in enumerate(biases)}


def _layers(data: Any) -> tuple[list[Array], list[Array]]:
    """Read them back: weights and biases."""
    layers = range(sum(name.startswith("weight") for name in data.files))
    return [data[f"weight{i}"] for i in layers], [data[f"bias{i}"] for i in layers]


def _sizes(weights: list[Array]) -> list[int]:
    """Return the widths from the input to the output."""
    return [w.shape[0] for w in weights] + [weights[-1].shape[1]]


@dataclass(frozen=True)
class TrainProblem:
    """Batches that are trained on in turn, initial weights (in, out) and biases, an optimizer ("adam", "sgd") and its rate.

    x is float32 (batches, B, I), y int64 (batches, B).
    """

    x: Array
    y: Array
    weights: list[Array]
    biases: list[Array]
    optimizer: str
    lr: float

    @staticmethod
    def load(path: str) -> TrainProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            weights, biases = _layers(data)
            return TrainProblem(data["x"], data["y"], weights, biases, str(data["optimizer"]), float(data["lr"]))

    def save(self, path: str) -> None:
        """Write everything a peer needs, so that all of them start from the same bits."""
        optimizer, lr = np.array(self.optimizer), np.float64(self.lr)
        np.savez(path, x=self.x, y=self.y, optimizer=optimizer, lr=lr, **_named(self.weights, self.biases))

    @property
    def sizes(self) -> list[int]:
        """Widths from the input to the output, such as [784, 128, 10]."""
        return _sizes(self.weights)

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return int(self.x.shape[1])


class Task:
    """What worker.py asks of a contender, whatever the task.

    A peer fills in `reset`, `step` and `versions`, and `sync` where `step` returns before its work is done.
    """

    problem_type: ClassVar[Any]

    # Ways to run that a good user of the peer would try; worker.py times each one shortly and keeps the fastest.
    variants: ClassVar[tuple[str, ...]] = ("default",)

    def __init__(self, problem: Any, variant: str, threads: int) -> None:
        """Take the problem, compile what has to be compiled; `reset` is called before the first step."""
        self.problem = problem

    @classmethod
    def ways(cls, variant: str) -> tuple[str, ...]:
        """Return the variants to try: all of `variants`, or of a contender "PEER:VARIANT" that one.

        A peer may try several ways of a variant; each then begins with its name and a space.
        """
        return (variant,) if variant else cls.variants

    @staticmethod
    def lacks(problem: Any) -> str:
        """Say why the peer cannot do this problem and is skipped; nothing where it can."""
        return ""

    def reset(self) -> None:
        """Go back to the initial state."""
        raise NotImplementedError

    def step(self) -> Any:
        """Do the task once; what it returns is turned into a number by `scalar`, outside the timed calls."""
        raise NotImplementedError

    def scalar(self, result: Any) -> float:
        """Turn a step's result into the number that is compared with the reference."""
        return float(result)

    def sync(self, result: Any) -> None:
        """Wait until the step that returned `result` is done; nothing to do for a peer that computes at once."""

    def losses(self, count: int) -> list[float]:
        """Return the numbers of the first `count` steps from the initial state."""
        self.reset()
        return [self.scalar(self.step()) for _ in range(count)]

    @staticmethod
    def versions() -> dict[str, str]:
        """Name what is being measured: packages, and the instruction set where the peer tells it."""
        raise NotImplementedError


class TrainStep(Task):
    """A training step: forward, relu, softmax cross-entropy, backward, and Adam or SGD with PyTorch's defaults.

    `step` returns the loss before the update, as the peer's own scalar. It takes its batch with ``next(self.batches)``.
    """

    problem_type = TrainProblem
    problem: TrainProblem

    def rewind(self, convert: Callable[[Array], Any] = np.ascontiguousarray) -> None:
        """Begin with the first batch again; the batches are where the peer wants them, as it wants them."""
        if not hasattr(self, "_pairs"):
            self._pairs = [(convert(x), convert(y)) for x, y in zip(self.problem.x, self.problem.y, strict=True)]
        self.batches: Iterator[tuple[Any, Any]] = cycle(self._pairs)


@dataclass(frozen=True)
class FitProblem:
    """A whole training run: a table x float32 (rows, features) and labels, initial weights and biases, Adam's rate.

    Batches follow each other in the table's order, `epochs` times; the last one of an epoch may be smaller.
    """

    x: Array
    y: Array
    weights: list[Array]
    biases: list[Array]
    batch: int
    epochs: int
    lr: float

    @staticmethod
    def load(path: str) -> FitProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            weights, biases = _layers(data)
            return FitProblem(data["x"], data["y"], weights, biases, int(data["batch"]), int(data["epochs"]), float(data["lr"]))

    def save(self, path: str) -> None:
        """Write the arrays."""
        numbers: dict[str, Any] = {"batch": np.int64(self.batch), "epochs": np.int64(self.epochs), "lr": np.float64(self.lr)}
        np.savez(path, x=self.x, y=self.y, **numbers, **_named(self.weights, self.biases))

    @property
    def sizes(self) -> list[int]:
        """Widths from the input to the output."""
        return _sizes(self.weights)


class FitTask(Task):
    """A whole run from the initial weights; `step` returns the trained weights and biases, its number is their loss."""

    problem_type = FitProblem
    problem: FitProblem

    def reset(self) -> None:
        """Nothing: every run begins at the initial weights."""

    def scalar(self, result: Any) -> float:
        """Return the mean cross-entropy over the whole table, in float64."""
        weights, biases = result
        h: Array = self.problem.x.astype(np.float64)
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            h = np.maximum(h @ np.asarray(w, np.float64) + np.asarray(b, np.float64), 0)
        z = h @ np.asarray(weights[-1], np.float64) + np.asarray(biases[-1], np.float64)
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), self.problem.y]).mean())


@dataclass(frozen=True)
class PredictProblem:
    """A trained network and what it is asked: x float32 (rows, features); probe: the signs of the float64 outputs."""

    x: Array
    weights: list[Array]
    biases: list[Array]
    probe: Array

    @staticmethod
    def load(path: str) -> PredictProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            return PredictProblem(data["x"], *_layers(data), data["probe"])

    def save(self, path: str) -> None:
        """Write the arrays."""
        np.savez(path, x=self.x, probe=self.probe, **_named(self.weights, self.biases))

    @property
    def sizes(self) -> list[int]:
        """Widths from the input to the output."""
        return _sizes(self.weights)


class PredictTask(Task):
    """Inference: relu between the layers, nothing after the last. `step` returns the outputs, (rows, classes)."""

    problem_type = PredictProblem
    problem: PredictProblem

    def reset(self) -> None:
        """Nothing: a network that is asked does not change."""

    def scalar(self, result: Any) -> float:
        """Sum the outputs up, with the signs that they should have."""
        return float((np.asarray(result, np.float64) * self.problem.probe).sum())


@dataclass(frozen=True)
class DenseProblem:
    """One product of a dense layer: x float32 (M, K), w (K, N), dy (M, N), and which of the results are made.

    forward: y = x @ w. dw: x.T @ dy and the sum db of dy's rows, the backward of a first layer. dw_dx: these and dy @ w.T, the
    backward of any other. `exact` has the results of float64, in this order.
    """

    kind: str
    x: Array
    w: Array
    dy: Array
    exact: list[Array]

    @staticmethod
    def load(path: str) -> DenseProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            exact = [data[f"exact{i}"] for i in range(len(data.files) - 4)]
            return DenseProblem(str(data["kind"]), data["x"], data["w"], data["dy"], exact)

    def save(self, path: str) -> None:
        """Write the arrays."""
        exact: dict[str, Any] = {f"exact{i}": e for i, e in enumerate(self.exact)}
        np.savez(path, kind=np.array(self.kind), x=self.x, w=self.w, dy=self.dy, **exact)


class DenseTask(Task):
    """A product into arrays made beforehand, `results`; its number is 1 + the largest ||result - exact|| / ||exact|| of them.

    ||.|| is the Frobenius norm, the root of the sum of squares.
    """

    problem_type = DenseProblem
    problem: DenseProblem

    def __init__(self, problem: DenseProblem, variant: str, threads: int) -> None:
        """Make room for the results, and let `step` be the method for the problem's kind."""
        super().__init__(problem, variant, threads)
        self.results = [np.zeros(e.shape, np.float32) for e in problem.exact]
        self.step = getattr(self, problem.kind)  # type: ignore[method-assign]

    def reset(self) -> None:
        """Forget the last results, so that a step that does nothing is seen."""
        for result in self.results:
            result[...] = 0

    def scalar(self, result: Any) -> float:
        """Measure the results."""
        norm = np.linalg.norm
        errors = [norm(made - exact) / norm(exact) for made, exact in zip(self.made(), self.problem.exact, strict=True)]
        return 1 + float(np.max(errors))  # NaN where one is

    def made(self) -> list[Array]:
        """Return the results as arrays."""
        return self.results


@dataclass(frozen=True)
class OptimizerProblem:
    """Arrays of zeros that are stepped with given gradients; rule: a class of torch.optim, options: those unlike its defaults.

    The gradients of the first steps and what float64 makes of the arrays by then, `expected`, are float32 (steps, period): a
    pattern that is repeated over the arrays, one after another.
    """

    rule: str
    options: dict[str, float]
    shapes: list[tuple[int, ...]]
    gradients: Array
    expected: Array

    @staticmethod
    def load(path: str) -> OptimizerProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            options = dict(zip(data["names"].tolist(), data["values"].tolist(), strict=True))
            shapes = [tuple(shape) for shape in data["shapes"].tolist()]
            return OptimizerProblem(str(data["rule"]), options, shapes, data["gradients"], data["expected"])

    def save(self, path: str) -> None:
        """Write the pattern, not the arrays."""
        names, values = np.array(list(self.options)), np.array(list(self.options.values()), np.float64)
        arrays: dict[str, Any] = {"names": names, "values": values, "shapes": np.array(self.shapes)}
        np.savez(path, rule=np.array(self.rule), gradients=self.gradients, expected=self.expected, **arrays)


class OptimizerTask(Task):
    """One step of an optimizer over float32 arrays; variants keep its states in fewer bits.

    A peer has its arrays and their gradients in `params` and `grads`, or overrides `give` and `arrays`. Its `reset` puts all arrays
    to zero, without new ones beside the old: they may be large.
    """

    problem_type = OptimizerProblem
    problem: OptimizerProblem

    def __init__(self, problem: OptimizerProblem, variant: str, threads: int) -> None:
        """Make the arrays, and give the gradients of the first step."""
        super().__init__(problem, variant, threads)
        self.params, self.grads = ([self.make(shape) for shape in problem.shapes] for _ in range(2))
        self.give(0)

    def make(self, shape: tuple[int, ...]) -> Array:
        """Make one array, or a view of the peer's own."""
        return np.empty(shape, np.float32)

    def give(self, step: int) -> None:
        """Fill the gradients with those of a step."""
        for piece, place in self._pieces(self.grads):
            piece[...] = self.problem.gradients[step, place]

    def arrays(self) -> list[Array]:
        """Return the parameters as arrays."""
        return self.params

    def losses(self, count: int) -> list[float]:
        """Return for each step the quotient of an element and its float64 value that is farthest from 1."""
        self.reset()
        numbers = []
        for step in range(count):
            self.give(step)
            self.sync(self.step())
            quotients = (w / self.problem.expected[step, place] for w, place in self._pieces(self.arrays()))
            farthest = (float(q[np.abs(q - 1).argmax()]) for q in quotients)  # argmax takes NaN for the largest
            numbers.append(max(farthest, key=lambda q: abs(q - 1) if q == q else np.inf))
        self.give(0)
        return numbers

    def scalar(self, result: Any) -> float:
        """Return the least way that an element has gone against its gradient: it grows with each step from the initial state."""
        signs = np.sign(self.problem.gradients[0])
        return min(float((w * -signs[place]).min()) for w, place in self._pieces(self.arrays()))

    def _pieces(self, arrays: list[Array]) -> Iterator[tuple[Array, slice]]:
        """Cut arrays into flat pieces that lie within one repetition of the pattern, each with its place there."""
        at, period = 0, self.problem.gradients.shape[1]
        for flat in (a.reshape(-1) for a in arrays):
            begin = 0
            while begin < flat.size:
                length = min(period - at, flat.size - begin)
                yield flat[begin : begin + length], slice(at, at + length)
                begin, at = begin + length, (at + length) % period


DROPOUT_RATE = 0.5
UNTRAINED = ("x", "dy", "target", "mean", "scale", "running_mean", "running_var")  # arrays that are no parameters


@dataclass(frozen=True)
class LayerProblem:
    """A layer by itself, or a loss: its name and, float32 but for labels, its arrays.

    A layer has x (rows, features), dy, and its parameters and buffers by the names that they have in trainstep, a weight being
    (in, out); a loss has x, which are the predictions, and target. `probes` has an array of each result's shape that sums it up
    to one number, and `expected` is what float64 makes of that. Dropout has no probes: its numbers are `dropout_numbers`.
    """

    name: str
    arrays: dict[str, Array]
    probes: list[Array]
    expected: list[float]

    @staticmethod
    def load(path: str) -> LayerProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            arrays = {name.removeprefix("array "): data[name] for name in data.files if name.startswith("array ")}
            probes = [data[name] for name in data.files if name.startswith("probe")]
            return LayerProblem(str(data["name"]), arrays, probes, data["expected"].tolist())

    def save(self, path: str) -> None:
        """Write the arrays."""
        arrays: dict[str, Any] = {f"array {name}": a for name, a in self.arrays.items()}
        probes: dict[str, Any] = {f"probe{i}": p for i, p in enumerate(self.probes)}
        np.savez(path, name=np.array(self.name), expected=np.array(self.expected), **arrays, **probes)

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss."""
        return "target" in self.arrays

    @property
    def trained(self) -> list[str]:
        """The names of the parameters."""
        return [name for name in self.arrays if name not in UNTRAINED]


class LayerTask(Task):
    """A layer forward, as in training, and backward to dx and its parameters' gradients; or a loss and its gradient.

    `step` first drops what the last one made, so that every contender has the same arrays alive; `results` gives what it made.
    """

    problem_type = LayerProblem
    problem: LayerProblem

    def results(self) -> list[Array]:
        """Return y, dx and the gradients of `problem.trained`, or the loss and its gradient, as the last step made them."""
        raise NotImplementedError

    def numbers(self) -> list[float]:
        """Sum each result up."""
        results = [np.asarray(r) for r in self.results()]
        if self.problem.name == "dropout":
            return dropout_numbers(self.problem, *results)
        return [float((r.astype(np.float64) * p).sum()) for r, p in zip(results, self.problem.probes, strict=True)]

    def losses(self, count: int) -> list[float]:
        """Return the number of each result of one step."""
        self.reset()
        self.sync(self.step())
        return self.numbers()

    def scalar(self, result: Any) -> float:
        """Return the quotient of a number and its float64 value that is farthest from 1."""
        quotients = np.divide(self.numbers(), self.problem.expected)
        return float(quotients[np.abs(quotients - 1).argmax()])  # argmax takes NaN for the largest


def dropout_numbers(problem: LayerProblem, y: Array, dx: Array) -> list[float]:
    """Return the share of y that is kept, and 1 or 0 for each of y and dx: whether it is what this mask makes of x or dy."""
    kept = y != 0
    pairs = ((y, problem.arrays["x"]), (dx, problem.arrays["dy"]))
    exact = [np.array_equal(made, np.where(kept, given / np.float32(1 - DROPOUT_RATE), 0)) for made, given in pairs]
    return [float(kept.mean()), *map(float, exact)]


class Call(NamedTuple):
    """A call of a public function on tiny arrays, which does `per_call` of what its name says."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = MappingProxyType({})
    shows: Any = None  # the array that a call in place works on: its result
    per_call: int = 1


class CallTask:
    """Calls on tiny arrays, by name. A peer gives the same name to what comes nearest to trainstep's call of that name."""

    def calls(self) -> dict[str, Call]:
        """Make all calls, each on `tiny_arrays` of its own where it works in place."""
        raise NotImplementedError

    @staticmethod
    def versions() -> dict[str, str]:
        """Name what is being measured."""
        raise NotImplementedError


def tiny_arrays() -> dict[str, Array]:
    """Return the arguments of the calls, by the name that a signature has for them: (4, 4), (4,) or, for an optimizer, (10,)."""
    rng = np.random.default_rng(2024)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (4, 4),
        "w": (4, 4),
        "y": (4, 4),
        "dy": (4, 4),
        "logits": (4, 4),
        "pred": (4, 4),
        "target": (4, 4),
    }
    shapes |= {"mean": (4,), "scale": (4,), "param": (10,), "grad": (10,), "row": (1, 64), "batch": (16, 4)}
    arrays: dict[str, Array] = {name: rng.uniform(0.1, 0.9, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["targets"] = np.ones((4, 4), np.float32)  # which hinge and sigmoid_binary_cross_entropy both take
    return arrays | {"labels": rng.integers(0, 4, 4), "batch_labels": rng.integers(0, 3, 16)}
