"""A whole training run on the digits: the problem and the float64 reference."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case
from trainstep.bench.tasks import FitProblem
from trainstep.bench.train_step import PARAMETER_BYTES, Net, loss_and_gradients
from trainstep.data import load_digits

TITLE = "A whole training run"
NET, EPOCHS, RATE = Net((64, 64, 10), 64, "adam"), 20, 1e-3
SEED = 2024
RTOL = 1e-3  # the loss at the end: what float32 makes of some hundred steps


def make_problem(net: Net = NET, epochs: int = EPOCHS) -> FitProblem:
    """Shuffle the digits, between 0 and 1, and draw He weights; all from one seed."""
    x, y = load_digits()
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(x))
    weights = [rng.standard_normal(s, np.float32) * np.float32(math.sqrt(2 / s[0])) for s in pairwise(net.sizes)]
    biases = [np.zeros(n, np.float32) for n in net.sizes[1:]]
    table = np.ascontiguousarray(x[order], np.float32)
    return FitProblem(table, y[order].astype(np.int64), weights, biases, net.batch, epochs, RATE)


def reference_loss(problem: FitProblem) -> float:
    """Return the loss over the table at the end, in float64."""
    x, y = problem.x.astype(np.float64), problem.y
    parameters = [a.astype(np.float64) for pair in zip(problem.weights, problem.biases, strict=True) for a in pair]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    t = 0
    for _ in range(problem.epochs):
        for begin in range(0, len(x), problem.batch):
            t += 1
            part = slice(begin, begin + problem.batch)
            _, gradients = loss_and_gradients(parameters, x[part], y[part])
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m += (1 - 0.9) * (g - m)
                v += (1 - 0.999) * (g * g - v)
                p -= problem.lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return loss_and_gradients(parameters, x, y)[0]


def make_cases(folder: str) -> list[Case]:
    """Make the one case, with its file in `folder`."""
    problem = make_problem()
    path = str(Path(folder) / "fit.npz")
    problem.save(path)
    loss = reference_loss(problem)
    steps = problem.epochs * math.ceil(len(problem.x) / problem.batch)
    moved, held, stream = PARAMETER_BYTES["adam"]
    name = f"digits, {'-'.join(map(str, NET.sizes))}, batch {NET.batch}, {EPOCHS} epochs, {NET.optimizer}"
    return [
        Case(
            name,
            path,
            [loss],
            RTOL,
            (loss * (1 - RTOL), loss * (1 + RTOL)),
            flops=NET.flops * problem.epochs * len(problem.x) / NET.batch,
            bytes=float(moved * NET.parameters * steps),
            stream=stream,
            working_set=float(held * NET.parameters),
        )
    ]
