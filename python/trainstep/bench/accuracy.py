"""What training comes to in each precision of products: whole runs on the same data, from the same initial weights, by seed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import trainstep as ts
from trainstep.bench.harness import machine, machine_text, say
from trainstep.bench.precision import FLOAT32
from trainstep.bench.tasks import Array
from trainstep.bench.text import markdown_table

TITLE = "Training in each precision"
# Of float32's, the mean over the seeds; what is farther away is marked.
WANTED_POINTS, WANTED_LOSS = 0.1, 0.02
WITHIN_SPREAD = ("bf16_x6", "bf16_x3")  # whose means are also wanted between the lowest and the highest of float32's seeds
SEED = 2024


@dataclass(frozen=True)
class Problem:
    """A network with relu between its layers, what it is trained on, and the rows that it is then tested on."""

    name: str
    sizes: tuple[int, ...]
    loss: str
    train: tuple[Array, Array]
    test: tuple[Array, Array]
    batch: int
    epochs: int

    @property
    def text(self) -> str:
        """What the report calls it."""
        rows = f"{len(self.train[0]):,} rows, tested on {len(self.test[0]):,}"
        return f"{self.name}, {'-'.join(map(str, self.sizes))}: {rows}, batch {self.batch}, {self.epochs} epochs"


def mnist(path: Path, epochs: int = 4) -> Problem:
    """Read MNIST from an .npz file of x_train, y_train, x_test and y_test."""
    with np.load(path) as data:
        x, test = ((data[name].reshape(-1, 784) / np.float32(255)).astype(np.float32) for name in ("x_train", "x_test"))
        y, labels = (data[name].astype(np.int64) for name in ("y_train", "y_test"))
    return Problem("MNIST", (784, 512, 512, 10), "softmax_cross_entropy", (x, y), (test, labels), 128, epochs)


def digits(epochs: int = 20) -> Problem:
    """Take the package's digits, every fifth row for the test."""
    x, y = ts.data.load_digits()
    test = np.arange(len(x)) % 5 == 0
    return Problem("digits", (64, 512, 512, 10), "softmax_cross_entropy", (x[~test], y[~test]), (x[test], y[test]), 64, epochs)


def regression(rows: int = 20_000, epochs: int = 10) -> Problem:
    """Draw numbers that a network of tanh makes of 32 others, with noise of a tenth of their spread; for one of six layers."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows + rows // 4, 32))
    h = x
    for inputs, outputs in pairwise((32, 64, 64)):
        h = np.tanh(h @ rng.standard_normal((inputs, outputs)) * (0.5 / np.sqrt(inputs)))
    y = h @ rng.standard_normal((64, 1))
    y = (y - y.mean()) / y.std() + 0.1 * rng.standard_normal(y.shape)
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Problem("regression", (32, *[256] * 5, 1), "mse", (x[:rows], y[:rows]), (x[rows:], y[rows:]), 128, epochs)


def train(problem: Problem, precision: str, seed: int) -> dict[str, float]:
    """Train with Adam, its rate falling from 1e-3 along a cosine; return what `evaluate` says of the test rows."""
    *hidden, last = pairwise(problem.sizes)
    layers = [*(ts.nn.Dense(*widths, activation="relu") for widths in hidden), ts.nn.Dense(*last)]
    steps = ts.schedules.iterations(problem.epochs, rows=len(problem.train[0]), batch_size=problem.batch)
    optimizer = ts.optim.Adam(lr=ts.schedules.cosine(1e-3, total=steps))
    trainer = ts.Trainer(ts.nn.Sequential(*layers, seed=seed), problem.loss, optimizer, precision=precision)
    trainer.fit(*problem.train, epochs=problem.epochs, batch_size=problem.batch)
    return trainer.evaluate(*problem.test)


def run(problems: Sequence[Problem], precisions: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Train all of them; return what the JSON file holds. float32 is always among the precisions."""
    data: dict[str, Any] = {"benchmark": "precision", "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    data |= {"config": ts.config(), "seeds": list(seeds), "problems": []}
    for problem in problems:
        runs: dict[str, list[dict[str, float]]] = {}
        for precision in dict.fromkeys([FLOAT32, *precisions]):
            say(f"{problem.name}: {precision}")
            runs[precision] = [train(problem, precision, seed) for seed in seeds]
        data["problems"].append({"name": problem.name, "text": problem.text, "runs": runs})
    return data


def report(data: dict[str, Any]) -> str:
    """Write a table for each problem: mean, lowest and highest of the seeds, and how far from float32's; marked where too far."""
    how = f"{machine_text(data['machine'])}, {data['config']['isa']}; means over {len(data['seeds'])} seeds (lowest to highest)."
    parts = [f"## {TITLE}", "", how]
    for problem in data["problems"]:
        runs = problem["runs"]
        measures = [name for name in ("accuracy", "loss") if name in runs[FLOAT32][0]]
        titles = ["precision", *(title for m in measures for title in (f"test {m}", f"{m} against {FLOAT32}"))]
        rows = [[precision, *(cell for m in measures for cell in cells(runs, precision, m))] for precision in runs]
        parts += ["", f"### {problem['text']}", "", *markdown_table(titles, rows)]
    return "\n".join(parts) + "\n"


def cells(runs: dict[str, list[dict[str, float]]], precision: str, measure: str) -> Iterator[str]:
    """Write a measure of a precision, and beside it how it compares with float32's: points of accuracy, or a quotient of losses."""
    found, plain = (np.array([run[measure] for run in runs[name]]) for name in (precision, FLOAT32))
    mean, base = float(found.mean()), float(plain.mean())
    points = measure == "accuracy"
    scale, form = (100, ".2f") if points else (1, ".5f")
    yield f"{scale * mean:{form}} ({scale * found.min():{form}} to {scale * found.max():{form}})"
    if precision == FLOAT32:
        yield ""
        return
    # A mean that is better is no loss; one that is NaN is not within anything.
    if points:
        against, near = f"{100 * (mean - base):+.2f} points", 100 * (base - mean) <= WANTED_POINTS
    else:
        against, near = f"{mean / base:.4f}", mean / base - 1 <= WANTED_LOSS
    notes = [] if near else [f"**over {f'{WANTED_POINTS:g} points' if points else f'{WANTED_LOSS:.0%}'} worse**"]
    if precision in WITHIN_SPREAD and not plain.min() <= mean <= plain.max():
        notes.append("**outside the seeds' spread**")
    yield ", ".join([against, *notes])
