"""Schedules beside PyTorch's and optax's of the same kind, step by step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trainstep import schedules
from trainstep.schedules import Plateau, Schedule

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

STEPS = 60


def of_torch(make: Callable[[Any], Any], lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def torch_pairs() -> dict[str, tuple[Schedule, list[float]]]:
    s = torch.optim.lr_scheduler
    return {
        "step_decay": (schedules.step_decay(1.0, 0.3, 7), of_torch(lambda o: s.StepLR(o, 7, 0.3))),
        "piecewise": (schedules.piecewise(1.0, {10: 0.2, 30: 0.2}), of_torch(lambda o: s.MultiStepLR(o, [10, 30], 0.2))),
        "exponential": (schedules.exponential(1.0, 0.1), of_torch(lambda o: s.ExponentialLR(o, np.exp(-0.1)))),
        "cosine": (schedules.cosine(1.0, STEPS, 0.1), of_torch(lambda o: s.CosineAnnealingLR(o, STEPS, 0.1))),
        "linear": (schedules.linear(1.0, 40, 0.25), of_torch(lambda o: s.LinearLR(o, 1.0, 0.25, 40))),
        "polynomial": (schedules.polynomial(1.0, 40, 2.5), of_torch(lambda o: s.PolynomialLR(o, 40, 2.5))),
        "inverse_sqrt": (schedules.inverse_sqrt(1.0), of_torch(lambda o: s.LambdaLR(o, lambda t: max(t, 1) ** -0.5))),
        "triangular": (schedules.cyclical(0.1, 1.0, 7), of_torch(lambda o: s.CyclicLR(o, 0.1, 1.0, 7, cycle_momentum=False))),
        "half": (
            schedules.cyclical(0.1, 1.0, 7, decay="half"),
            of_torch(lambda o: s.CyclicLR(o, 0.1, 1.0, 7, mode="triangular2", cycle_momentum=False)),
        ),
        "exp": (
            schedules.cyclical(0.1, 1.0, 7, decay=("exp", 0.98)),
            of_torch(lambda o: s.CyclicLR(o, 0.1, 1.0, 7, mode="exp_range", gamma=0.98, cycle_momentum=False)),
        ),
        "one_cycle": (
            schedules.one_cycle(1.0, STEPS + 1),
            of_torch(lambda o: s.OneCycleLR(o, 1.0, STEPS + 1, cycle_momentum=False)),
        ),
        "one_cycle, other options": (
            schedules.one_cycle(1.0, STEPS + 1, 0.4, "linear", 10.0, 100.0, three_phase=True),
            of_torch(
                lambda o: s.OneCycleLR(
                    o,
                    1.0,
                    STEPS + 1,
                    pct_start=0.4,
                    anneal_strategy="linear",
                    div_factor=10.0,
                    final_div_factor=100.0,
                    three_phase=True,
                    cycle_momentum=False,
                )
            ),
        ),
        "cosine_restarts": (
            schedules.cosine_restarts(1.0, 4, 2, 0.1),
            of_torch(lambda o: s.CosineAnnealingWarmRestarts(o, 4, 2, 0.1)),
        ),
        "warmup": (
            schedules.warmup(schedules.exponential(1.0, 0.05), 10, 0.1),
            of_torch(lambda o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 10), s.ExponentialLR(o, np.exp(-0.05))], [10])),
        ),
    }


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of the epoch in SequentialLR
def test_torch() -> None:
    for name, (schedule, rates) in torch_pairs().items():
        np.testing.assert_allclose(schedule(np.arange(STEPS)), rates, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"mode": "max", "threshold": 0.05, "threshold_mode": "abs", "cooldown": 2, "min_lr": 0.05}]
)
def test_plateau(options: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, **options)
    ours = Plateau(1.0, factor=0.5, patience=2, **options)
    rng = np.random.default_rng(0)
    for metric in 1 + 0.1 * rng.standard_normal(80):
        theirs.step(metric)
        ours.step(metric)
        assert ours.lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours.lr < 1


def test_optax() -> None:
    optax = pytest.importorskip("optax")
    pairs = {
        "cosine": (schedules.cosine(1.0, 40, 0.1), optax.cosine_decay_schedule(1.0, 40, 0.1)),
        "linear": (schedules.linear(1.0, 40, 0.2), optax.linear_schedule(1.0, 0.2, 40)),
        "polynomial": (schedules.polynomial(1.0, 40, 2.0, 0.2), optax.polynomial_schedule(1.0, 0.2, 2.0, 40)),
        "piecewise": (schedules.piecewise(1.0, {10: 0.5, 20: 0.1}), optax.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})),
        "exponential": (schedules.exponential(1.0, 0.1), optax.exponential_decay(1.0, 1, float(np.exp(-0.1)))),
        "warmup": (
            schedules.warmup(schedules.cosine(1.0, 30), 10),
            optax.join_schedules([optax.linear_schedule(0.0, 1.0, 10), optax.cosine_decay_schedule(1.0, 30)], [10]),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        rates = [float(theirs(t)) for t in range(STEPS)]
        np.testing.assert_allclose(ours(np.arange(STEPS)), rates, rtol=2e-5, atol=1e-6, err_msg=name)  # float32
