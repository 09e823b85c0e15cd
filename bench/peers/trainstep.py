"""trainstep: one call into C++."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import trainstep as ts
from peers.base import Dense, TrainProblem, TrainStep


class TrainstepStep(TrainStep):
    """`Trainer.step` on a `Sequential` of `Dense`."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Build the network; its threads come from TRAINSTEP_NUM_THREADS."""
        super().__init__(problem, variant, threads)
        pairs = list(pairwise(problem.sizes))
        layers = [ts.nn.Dense(i, o, activation="relu") for i, o in pairs[:-1]]
        self.model = ts.nn.Sequential(*layers, ts.nn.Dense(*pairs[-1]), seed=0)

    def reset(self) -> None:
        """Write the initial weights through the views, which are not kept: a live view forbids cached forms."""
        parameters = self.model.parameters()
        for i, (w, b) in enumerate(zip(self.problem.weights, self.problem.biases, strict=True)):
            parameters[f"{i}.weight"][...] = w
            parameters[f"{i}.bias"][...] = b
        adam = ts.optim.Adam(lr=self.problem.lr)
        self.trainer = ts.Trainer(self.model, loss="softmax_cross_entropy", optimizer=adam)

    def step(self) -> float:
        """Do one step."""
        return self.trainer.step(self.problem.x, self.problem.y)

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the version and the ISA level in use."""
        return {"trainstep": ts.__version__, "isa": str(ts.config()["isa"])}


class TrainstepDense(Dense):
    """`ops.dense`."""

    versions = staticmethod(TrainstepStep.versions)

    def step(self) -> Any:
        """Do one product."""
        return ts.ops.dense(self.problem.x, self.problem.w, out=self.y)


TASKS = {"train_step": TrainstepStep, "dense": TrainstepDense}
