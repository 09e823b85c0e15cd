"""What the peers share: the problem, read from one file, and the protocol that worker.py speaks to."""

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


class TrainStep:
    """A training step: forward, relu, softmax cross-entropy, backward, Adam with PyTorch's defaults.

    A peer fills in `reset`, `step` and `versions`, and `sync` where `step` returns before its work is done.
    """

    problem_type = TrainProblem

    # Ways to run that a good user of the peer would try; worker.py times each one shortly and keeps the fastest.
    variants: tuple[str, ...] = ("default",)

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Take the problem, compile what has to be compiled; `reset` is called before the first step."""
        self.problem = problem

    def reset(self) -> None:
        """Go back to the initial weights and a fresh optimizer state."""
        raise NotImplementedError

    def step(self) -> Any:
        """Do one whole training step; return its loss, before the update, as the peer's own scalar."""
        raise NotImplementedError

    def sync(self, loss: Any) -> None:
        """Wait until the step that returned `loss` is done; nothing to do for a peer that computes at once."""

    def losses(self, count: int) -> list[float]:
        """Return the losses of the first `count` steps from the initial state."""
        self.reset()
        return [float(self.step()) for _ in range(count)]

    @staticmethod
    def versions() -> dict[str, str]:
        """Name what is being measured: packages, and the instruction set where the peer tells it."""
        raise NotImplementedError
