"""One step of an optimizer over float32 arrays: the rules, the sizes, the problem, the float64 reference."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt
from pathlib import Path

import numpy as np

from trainstep.bench.harness import Case, Variant
from trainstep.bench.tasks import Array, OptimizerProblem

TITLE = "One step of an optimizer"
LOW_BIT = "Adam:67108864"  # the size at which states of fewer bits are compared
SIZES = ("1000", "10000", "100000", "1000000", "16777216", "67108864", "200x64x64")
OTHERS = ("SGD", "Adagrad", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax")
CASES = (*(f"Adam:{n}" for n in SIZES), *(f"{rule}:1000000" for rule in OTHERS))
SEED = 2024
STEPS = 10  # RAdam's rectification begins at the sixth
PERIOD = 65_521  # elements of the pattern, a prime: no two blocks of a contender's get the same numbers
# Elements are between 0.5 and 1.5 of it. So small that Adam's epsilon and its place are seen.
GRADIENT = 3e-4
RTOL = 2e-5  # set from what float32 costs here: see "How a contender is checked" in README.md
# Bytes that a state takes besides those of float32, and the rtol that goes with them.
STATE_BYTES = {"bfloat16": (2, 0.1), "8bit": (1, 0.5)}


def sgd(gradients: Array, lr: float = 1e-3, momentum: float = 0.0) -> Iterator[Array]:
    """Yield what each step takes off."""
    velocity = np.zeros_like(gradients[0])
    for g in gradients:
        velocity = momentum * velocity + g
        yield lr * velocity


def adagrad(gradients: Array, lr: float = 1e-2, eps: float = 1e-10) -> Iterator[Array]:
    """Yield what each step takes off."""
    for squares, g in zip(np.cumsum(gradients**2, axis=0), gradients, strict=True):
        yield lr * g / (np.sqrt(squares) + eps)


def rmsprop(gradients: Array, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8) -> Iterator[Array]:
    """Yield what each step takes off."""
    for v, g in zip(averages(gradients**2, alpha), gradients, strict=True):
        yield lr * g / (np.sqrt(v) + eps)


def adadelta(gradients: Array, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6) -> Iterator[Array]:
    """Yield what each step takes off."""
    changes = np.zeros_like(gradients[0])
    for v, g in zip(averages(gradients**2, rho), gradients, strict=True):
        change = np.sqrt(changes + eps) / np.sqrt(v + eps) * g
        changes = rho * changes + (1 - rho) * change**2
        yield lr * change


def adam(gradients: Array, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Iterator[Array]:
    """Yield what each step takes off."""
    for t, (m, v) in enumerate(zip(averages(gradients, beta1), averages(gradients**2, beta2), strict=True), 1):
        yield lr * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)


def adamax(gradients: Array, lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Iterator[Array]:
    """Yield what each step takes off."""
    largest = np.zeros_like(gradients[0])
    for t, (m, g) in enumerate(zip(averages(gradients, beta1), gradients, strict=True), 1):
        largest = np.maximum(beta2 * largest, np.abs(g) + eps)
        yield lr / (1 - beta1**t) * m / largest


def nadam(gradients: Array, lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Iterator[Array]:
    """Yield what each step takes off."""
    mu = [beta1 * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t in range(1, len(gradients) + 2)]
    moments = zip(gradients, averages(gradients, beta1), averages(gradients**2, beta2), strict=True)
    for t, (g, m, v) in enumerate(moments, 1):
        now, after = (1 - mu[t - 1]) / (1 - prod(mu[:t])), mu[t] / (1 - prod(mu[: t + 1]))
        yield lr * (now * g + after * m) / (np.sqrt(v / (1 - beta2**t)) + eps)


def radam(gradients: Array, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Iterator[Array]:
    """Yield what each step takes off."""
    last = 2 / (1 - beta2) - 1
    for t, (m, v) in enumerate(zip(averages(gradients, beta1), averages(gradients**2, beta2), strict=True), 1):
        rho = last - 2 * t * beta2**t / (1 - beta2**t)
        change = lr * m / (1 - beta1**t)
        if rho > 5:
            rectified = sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
            change *= rectified * sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
        yield change


def averages(values: Array, beta: float) -> Iterator[Array]:
    """Yield the exponential moving averages, from 0."""
    mean = np.zeros_like(values[0])
    for value in values:
        mean = beta * mean + (1 - beta) * value
        yield mean


@dataclass(frozen=True)
class Rule:
    """A rule's float64 formula, the arrays of state that it keeps, and the options in which it differs from PyTorch's defaults."""

    changes: Callable[..., Iterator[Array]]
    states: int
    options: dict[str, float] = field(default_factory=dict)

    @property
    def moved(self) -> int:
        """The bytes that a float32 parameter's step moves: w and the states are read and written, g is read."""
        return 4 * (3 + 2 * self.states)

    @property
    def held(self) -> int:
        """The bytes of a parameter, its gradient and its states."""
        return 4 * (2 + self.states)


# By the name of the class in torch.optim and trainstep.optim.
RULES = {
    "SGD": Rule(sgd, 1, {"momentum": 0.9}),
    "Adagrad": Rule(adagrad, 1),
    "RMSprop": Rule(rmsprop, 1),
    "Adadelta": Rule(adadelta, 2),
    "Adam": Rule(adam, 2),
    "Adamax": Rule(adamax, 2),
    "NAdam": Rule(nadam, 2),
    "RAdam": Rule(radam, 2),
}


def parse(text: str) -> tuple[str, list[tuple[int, ...]]]:
    """Read "Adam:1000000" or "Adam:200x64x64" (200 arrays of 64 x 64): a rule, in any case, and shapes; else ValueError."""
    given, _, size = text.partition(":")
    rule = next((name for name in RULES if name.lower() == given.lower()), "")
    extents = size.split("x")
    if not rule:
        raise ValueError(f"{text!r}: the rule is one of {', '.join(RULES)}")
    if not all(e.isdigit() and int(e) > 0 for e in extents):
        raise ValueError(f"{text!r} is not like Adam:1000000 or Adam:200x64x64 (arrays, then their shape)")
    count, *shape = [int(e) for e in extents]
    return rule, [tuple(shape)] * count if shape else [(count,)]


def make_problem(rule: str, shapes: list[tuple[int, ...]]) -> OptimizerProblem:
    """Draw gradients whose elements keep their sign from step to step and change in size, so that no sum cancels."""
    rng = np.random.default_rng(SEED)
    period = min(PERIOD, sum(prod(shape) for shape in shapes))
    sizes = rng.uniform(0.5, 1.5, (STEPS, period)) * GRADIENT
    gradients = (sizes * rng.choice([-1.0, 1.0], period)).astype(np.float32)
    changes = RULES[rule].changes(gradients.astype(np.float64), **RULES[rule].options)
    expected = -np.cumsum(list(changes), axis=0)
    return OptimizerProblem(rule, RULES[rule].options, shapes, gradients, expected.astype(np.float32))


def make_case(text: str, folder: Path) -> Case:
    """Turn "Adam:1000000" into a case."""
    rule, shapes = parse(text)
    problem = make_problem(rule, shapes)
    path = str(folder / f"{text.replace(':', '-')}.npz")
    problem.save(path)
    n = sum(prod(shape) for shape in shapes)
    name = f"{n:,}" if len(shapes) == 1 else f"{len(shapes)} arrays of {' x '.join(map(str, shapes[0]))}"
    moved, states = RULES[rule].moved, 2 * RULES[rule].states
    low_bit = {
        f"trainstep:{dtype}": Variant(rtol, float(n * (moved - (4 - size) * states)))
        for dtype, (size, rtol) in STATE_BYTES.items()
        if text.lower() == LOW_BIT.lower()
    }
    return Case(
        f"{rule}, {name}",
        path,
        [1.0] * STEPS,
        RTOL,
        # The first step of a block takes each element so far; those after it, with the same gradient, take it further.
        (0.5 * float(np.abs(problem.expected[0]).min()), math.inf),
        flops=0,
        bytes=float(n * moved),
        stream="adam",
        working_set=float(n * RULES[rule].held),
        bare_loop=True,
        variants=low_bit,
    )


def make_cases(texts: Sequence[str], folder: str) -> list[Case]:
    """Make the cases, with their files in `folder`."""
    return [make_case(text, Path(folder)) for text in texts]


def case_list(text: str) -> list[str]:
    """Check a comma-separated list of cases."""
    try:
        for case in text.split(","):
            parse(case)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.split(",")
