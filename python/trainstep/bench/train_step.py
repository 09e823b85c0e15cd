"""One training step: the nets, the problem, the float64 reference."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case, Variant
from trainstep.bench.precision import FLOAT32
from trainstep.bench.tasks import Array, TrainProblem

TITLE = "One training step"
NETS = ("4-16-3:32", "64-64-10:64", "784-128-10:64", "784-512-512-10:128", "64-64-10:1:sgd")
LARGE_NETS = ("784-2048-2048-10:256", "4096-4096-4096-10:1024")
# Where products in other precisions than float32 are compared.
PRECISION_NETS = ("784-512-512-10:128", *LARGE_NETS)
RATES = {"adam": 1e-3, "sgd": 1e-2}  # by optimizer
# What an optimizer moves for a float32 parameter, w, g and states, and the mix of loads and stores that is most like it.
PARAMETER_BYTES = {"adam": (28, 16, "adam"), "sgd": (12, 8, "update")}  # moved, held, mix
SEED = 2024
RTOL = 2e-5  # set from what float32 costs here: see "How a contender is checked" in README.md
# By trainstep's precisions, set likewise; and PyTorch's ways to products in bfloat16.
RTOLS = {"bf16_x6": RTOL, "bf16_x3": 1e-3, "bf16": 5e-2}
LOWER_PEERS = {"bf16": ("torch_eager:medium", "torch_eager:autocast", "torch_compile:medium", "torch_compile:autocast")}


@dataclass(frozen=True)
class Net:
    """Widths, rows of a batch, optimizer; written "784-128-10:64:adam"."""

    sizes: tuple[int, ...]
    batch: int
    optimizer: str

    @staticmethod
    def parse(text: str, optimizer: str = "adam") -> Net:
        """Read a net; ValueError where it is none. The batch may be left out where the widths are those of one of ours."""
        known = {net.partition(":")[0]: net for net in (*reversed(NETS), *LARGE_NETS)}
        widths, batch, own = (*known.get(text, text).split(":"), "", "")[:3]
        numbers = [*widths.split("-"), batch]
        if len(numbers) < 3 or not all(n.isdigit() and int(n) > 0 for n in numbers):
            raise ValueError(f"{text!r} is not like 784-128-10:64 (widths, colon, batch)")
        if int(numbers[-2]) < 3:
            raise ValueError(f"{text!r}: at least 3 classes are needed")
        if (own or optimizer) not in RATES:
            raise ValueError(f"{text!r}: the optimizer is one of {', '.join(RATES)}")
        return Net(tuple(int(n) for n in numbers[:-1]), int(batch), own or optimizer)

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}, {self.optimizer}"

    @property
    def flops(self) -> float:
        """Those of the products: forward, dw, and dx except for the first layer."""
        products = [2.0 * self.batch * i * o for i, o in pairwise(self.sizes)]
        return 3 * sum(products) - products[0]

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        return sum((i + 1) * o for i, o in pairwise(self.sizes))


def make_problem(net: Net) -> TrainProblem:
    """Draw batches, He weights and small biases.

    Every input row comes twice, with different labels. So the loss stays above ln 2 on average. Labels that can be learnt by heart
    drive it to exactly 0 within 20,000 steps (0.3 s of a fast contender): gradients then vanish and underflow, and a step's time
    could depend on how many went before. In an even batch the two rows are in the same one. An odd one, such as one row, comes
    twice: the steps take the two in turn.
    """
    rng = np.random.default_rng(SEED)
    sizes, classes, even = net.sizes, net.sizes[-1], net.batch % 2 == 0
    half = net.batch // 2 if even else net.batch
    rows = rng.standard_normal((half, sizes[0]), np.float32)
    labels = rng.integers(0, classes, half)
    others = (labels + rng.integers(1, classes, half)) % classes
    weights = [rng.standard_normal(s, np.float32) * np.float32(math.sqrt(2 / s[0])) for s in pairwise(sizes)]
    biases = [rng.standard_normal(n, np.float32) * np.float32(0.01) for n in sizes[1:]]
    x, y = np.concatenate([rows, rows]), np.concatenate([labels, others])
    batches = 1 if even else 2
    return TrainProblem(
        x.reshape(batches, net.batch, -1), y.reshape(batches, -1), weights, biases, net.optimizer, RATES[net.optimizer]
    )


def reference_losses(problem: TrainProblem, count: int) -> list[float]:
    """Return the first losses in float64, from formulas written for reading: no contender shares this code."""
    x, y = problem.x.astype(np.float64), problem.y
    parameters = [a.astype(np.float64) for pair in zip(problem.weights, problem.biases, strict=True) for a in pair]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    losses = []
    for t in range(1, count + 1):
        batch = (t - 1) % len(x)
        loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
        losses.append(loss)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            if problem.optimizer == "sgd":
                p -= problem.lr * g
            else:
                m += (1 - 0.9) * (g - m)
                v += (1 - 0.999) * (g * g - v)
                p -= problem.lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return losses


def loss_and_gradients(parameters: list[Array], x: Array, y: Array) -> tuple[float, list[Array]]:
    """Return the mean cross-entropy and its gradients, ordered as the parameters: weight, bias, weight, bias..."""
    weights, biases, rows = parameters[::2], parameters[1::2], np.arange(len(x))
    h = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h.append(np.maximum(h[-1] @ w + b, 0))
    z = h[-1] @ weights[-1] + biases[-1]
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    dz = (np.exp(log_p) - np.eye(z.shape[1])[y]) / len(x)
    gradients: list[Array] = []
    for i in reversed(range(len(weights))):
        gradients = [h[i].T @ dz, dz.sum(axis=0), *gradients]
        dz = (dz @ weights[i].T) * (h[i] > 0)
    return float(-log_p[rows, y].mean()), gradients


def make_case(net: Net, folder: Path, precisions: Sequence[str] = ()) -> Case:
    """Turn a net into a case, with lower precisions as variants; large nets are checked on fewer steps."""
    problem = make_problem(net)
    path = str(folder / f"{net.name.replace(', ', '-')}.npz")
    problem.save(path)
    reference = reference_losses(problem, 20 if net.flops < 2e9 else 4)
    # After any number of steps: of two batches each has half of the labels, and its loss is on either side of the mean.
    loss_range = (math.log(2) * (0.999 if len(problem.x) == 1 else 0.5), max(reference) * 1.5)
    moved, held, stream = PARAMETER_BYTES[net.optimizer]
    activations = 4.0 * net.batch * sum(net.sizes)
    must_move = moved * net.parameters + activations
    lower = [p for p in precisions if p != FLOAT32]
    variants = {name: Variant(RTOLS[p], must_move) for p in lower for name in (f"trainstep:{p}", *LOWER_PEERS.get(p, ()))}
    return Case(
        net.name,
        path,
        reference,
        RTOL,
        loss_range,
        flops=net.flops,
        bytes=must_move,
        stream=stream,
        working_set=held * net.parameters + activations,
        variants=variants,
    )


def make_cases(nets: Sequence[Net], folder: str, precisions: Sequence[str] = ()) -> list[Case]:
    """Make the cases, with their files in `folder`."""
    return [make_case(net, Path(folder), precisions) for net in nets]


def net_list(text: str) -> list[str]:
    """Check a comma-separated list of nets."""
    try:
        for net in text.split(","):
            Net.parse(net)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.split(",")
