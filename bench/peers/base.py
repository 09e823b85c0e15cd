"""What the peers share: the problems, each read from one file, and the protocol that worker.py speaks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TrainProblem:
    """One batch (x float32 (B, I), y int64 (B,)), the initial weights (in, out) and biases, and Adam's rate."""

    x: np.ndarray
    y: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    lr: float

    @staticmethod
    def load(path: str) -> TrainProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            layers = range(sum(name.startswith("weight") for name in data.files))
            weights = [data[f"weight{i}"] for i in layers]
            biases = [data[f"bias{i}"] for i in layers]
            return TrainProblem(data["x"], data["y"], weights, biases, float(data["lr"]))

    def save(self, path: str) -> None:
        """Write everything a peer needs, so that all of them start from the same bits."""
        arrays = {f"weight{i}": w for i, w in enumerate(self.weights)}
        arrays |= {f"bias{i}": b for i, b in enumerate(self.biases)}
        np.savez(path, x=self.x, y=self.y, lr=np.float64(self.lr), **arrays)

    @property
    def sizes(self) -> list[int]:
        """Widths from the input to the output, such as [784, 128, 10]."""
        return [w.shape[0] for w in self.weights] + [self.weights[-1].shape[1]]


class Task:
    """What worker.py asks of a contender, whatever the task.

    A peer fills in `reset`, `step` and `versions`, and `sync` where `step` returns before its work is done.
    """

    problem_type: Any

    # Ways to run that a good user of the peer would try; worker.py times each one shortly and keeps the fastest.
    variants: tuple[str, ...] = ("default",)

    def __init__(self, problem: Any, variant: str, threads: int) -> None:
        """Take the problem, compile what has to be compiled; `reset` is called before the first step."""
        self.problem = problem

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
    """A training step: forward, relu, softmax cross-entropy, backward, Adam with PyTorch's defaults.

    `step` returns the loss before the update, as the peer's own scalar.
    """

    problem_type = TrainProblem
    problem: TrainProblem


@dataclass(frozen=True)
class DenseProblem:
    """Two matrices x float32 (M, K), w float32 (K, N), and a probe (M, N) that sums the product up to one number."""

    x: np.ndarray
    w: np.ndarray
    probe: np.ndarray

    @staticmethod
    def load(path: str) -> DenseProblem:
        """Read the file that `save` wrote."""
        with np.load(path) as data:
            return DenseProblem(data["x"], data["w"], data["probe"])

    def save(self, path: str) -> None:
        """Write the arrays."""
        np.savez(path, x=self.x, w=self.w, probe=self.probe)


class Dense(Task):
    """The product y = x @ w into an array made beforehand; its number is the sum of y * probe in float64."""

    problem_type = DenseProblem
    problem: DenseProblem

    def __init__(self, problem: DenseProblem, variant: str, threads: int) -> None:
        """Make room for y."""
        super().__init__(problem, variant, threads)
        self.y = np.zeros(problem.probe.shape, np.float32)

    def reset(self) -> None:
        """Forget the last result, so that a step that does nothing is seen."""
        self.y[...] = 0

    def scalar(self, result: Any) -> float:
        """Sum the result up."""
        return float((result.astype(np.float64) * self.problem.probe).sum())
