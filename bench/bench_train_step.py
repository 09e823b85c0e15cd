"""One training step: forward, relu, softmax cross-entropy, backward, Adam; against the peers. See README.md."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness import Case, argument_parser, main, parse
from peers.base import TrainProblem

PEERS = ("trainstep", "numpy", "torch_eager", "torch_compile", "jax", "sklearn")
NETS = ("4-16-3:32", "64-64-10:64", "784-128-10:64", "784-512-512-10:128")
LARGE_NETS = ("784-2048-2048-10:256", "4096-4096-4096-10:1024")
SEED = 2024
LR = 1e-3
RTOL = 2e-5  # set from what float32 costs here: see "How a contender is checked" in README.md


def make_problem(sizes: list[int], batch: int) -> TrainProblem:
    """Draw a batch, He weights and small biases.

    Every input row comes twice, with different labels. So the loss stays above ln 2. Labels that can be learnt by
    heart drive it to exactly 0 within 20,000 steps (0.3 s of a fast contender): gradients then vanish and underflow,
    and a step's time could depend on how many went before.
    """
    rng = np.random.default_rng(SEED)
    classes = sizes[-1]
    half = rng.standard_normal((batch // 2, sizes[0]), np.float32)
    labels = rng.integers(0, classes, batch // 2)
    others = (labels + rng.integers(1, classes, batch // 2)) % classes
    weights = [rng.standard_normal(s, np.float32) * np.float32(math.sqrt(2 / s[0])) for s in pairwise(sizes)]
    biases = [rng.standard_normal(n, np.float32) * np.float32(0.01) for n in sizes[1:]]
    return TrainProblem(np.concatenate([half, half]), np.concatenate([labels, others]), weights, biases, LR)


def reference_losses(problem: TrainProblem, count: int) -> list[float]:
    """Return the first losses in float64, from formulas written for reading: no contender shares this code."""
    x, y = problem.x.astype(np.float64), problem.y
    parameters = [a.astype(np.float64) for pair in zip(problem.weights, problem.biases, strict=True) for a in pair]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    losses = []
    for t in range(1, count + 1):
        loss, gradients = loss_and_gradients(parameters, x, y)
        losses.append(loss)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m += (1 - 0.9) * (g - m)
            v += (1 - 0.999) * (g * g - v)
            p -= problem.lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return losses


def loss_and_gradients(parameters: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Return the mean cross-entropy and its gradients, ordered as the parameters: weight, bias, weight, bias..."""
    weights, biases, rows = parameters[::2], parameters[1::2], np.arange(len(x))
    h = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h.append(np.maximum(h[-1] @ w + b, 0))
    z = h[-1] @ weights[-1] + biases[-1]
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    dz = (np.exp(log_p) - np.eye(z.shape[1])[y]) / len(x)
    gradients: list[np.ndarray] = []
    for i in reversed(range(len(weights))):
        gradients = [h[i].T @ dz, dz.sum(axis=0), *gradients]
        dz = (dz @ weights[i].T) * (h[i] > 0)
    return float(-log_p[rows, y].mean()), gradients


def step_flops(sizes: list[int], batch: int) -> float:
    """Count the flops of the matrix products: forward, dw, and dx except for the first layer."""
    products = [2.0 * batch * i * o for i, o in pairwise(sizes)]
    return 3 * sum(products) - products[0]


def make_case(net: str, folder: str) -> Case:
    """Turn "784-128-10:64" into a case; large nets are checked on fewer steps."""
    widths, _, batch = net.partition(":")
    sizes = [int(n) for n in widths.split("-")]
    problem, flops = make_problem(sizes, int(batch)), step_flops(sizes, int(batch))
    path = str(Path(folder) / f"{widths}.npz")
    problem.save(path)
    reference = reference_losses(problem, 20 if flops < 2e9 else 4)
    loss_range = (math.log(2) * 0.999, max(reference) * 1.5)
    return Case(f"{widths}, batch {batch}", path, flops, reference, RTOL, loss_range)


def net_list(text: str) -> list[str]:
    """Check a comma-separated list of nets; a batch may be left out where the net is one of ours."""
    known = {net.partition(":")[0]: net for net in NETS + LARGE_NETS}
    nets = [known.get(net, net) for net in text.split(",")]
    for net in nets:
        widths, _, batch = net.partition(":")
        numbers = [*widths.split("-"), batch]
        if len(numbers) < 3 or not all(n.isdigit() and int(n) > 0 for n in numbers):
            raise argparse.ArgumentTypeError(f"{net!r} is not like 784-128-10:64 (widths, colon, batch)")
        if int(batch) % 2 or int(numbers[-2]) < 3:
            raise argparse.ArgumentTypeError(f"{net!r}: an even batch and at least 3 classes are needed")
    return nets


if __name__ == "__main__":
    parser = argument_parser("Time one training step of dense networks against the peers.", PEERS)
    parser.add_argument("--nets", type=net_list, default=list(NETS), help=f"default: {','.join(NETS)}")
    parser.add_argument("--large", action="store_true", help=f"add {' and '.join(LARGE_NETS)}")
    arguments = parse(parser)
    chosen = arguments.nets + [net for net in LARGE_NETS if arguments.large and net not in arguments.nets]
    with tempfile.TemporaryDirectory() as scratch:
        problems = [make_case(net, scratch) for net in chosen]
        sys.exit(main("One training step", "train_step", problems, arguments))
