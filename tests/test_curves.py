"""The verdict on learning curves: on made-up ones of each kind, with noise, and on real trainings."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import trainstep as ts
from trainstep import CurveReport, History

pytestmark = pytest.mark.one_level

Curves = tuple[np.ndarray, np.ndarray]
Rng = np.random.Generator
SEEDS = range(40)


def recorded(**measures: np.ndarray | list[float]) -> History:
    history = History()
    for epoch, values in enumerate(zip(*measures.values(), strict=True), start=1):
        history.append(epoch, **dict(zip(measures, map(float, values), strict=True)))
    return history


# Each kind as a formula of the time t in (0, 1], drawn anew for each seed.
def overfitting(t: np.ndarray, rng: Rng) -> Curves:
    train = np.exp(-t / rng.uniform(0.12, 0.3))
    return train, train + 0.05 * t + rng.uniform(0.3, 1) * np.maximum(0, t - rng.uniform(0.25, 0.6)) ** 1.3


def memorized(t: np.ndarray, rng: Rng) -> Curves:
    """Overfitting where the training loss has long reached 0."""
    return np.exp(-t / 0.03), np.exp(-t / 0.05) + 0.3 + rng.uniform(0.2, 0.6) * t


def good(t: np.ndarray, rng: Rng) -> Curves:
    train = 0.1 + 0.9 * np.exp(-t / rng.uniform(0.3, 0.6))
    return train, train * rng.uniform(1.25, 1.6)


def too_early(t: np.ndarray, rng: Rng) -> Curves:
    """Underfitting: no gap, both still falling."""
    train = 0.3 + 0.7 * np.exp(-t / rng.uniform(0.4, 1))
    return train, train * rng.uniform(0.95, 1.06)


def too_small(t: np.ndarray, rng: Rng) -> Curves:
    """Underfitting: no gap, both stand still and are poor."""
    train = 0.65 + 0.35 * np.exp(-t / rng.uniform(0.05, 0.12))
    return train, train * rng.uniform(0.97, 1.06)


def plateaued(t: np.ndarray, rng: Rng) -> Curves:
    train = 0.1 + 0.9 * np.exp(-t / rng.uniform(0.05, 0.1))
    return train, train + rng.uniform(0.05, 0.1)


def gap_widens(t: np.ndarray, rng: Rng) -> Curves:
    """Only the training loss goes on falling."""
    return 0.01 + 0.9 * np.exp(-t / rng.uniform(0.2, 0.3)), 0.3 + 0.9 * np.exp(-t / rng.uniform(0.04, 0.07))


def diverging(t: np.ndarray, rng: Rng) -> Curves:
    train = 0.2 + np.exp(-t / 0.15) + rng.uniform(0.5, 2) * np.maximum(0, t - 0.6)
    return train, train * 1.1


KINDS: dict[Callable[[np.ndarray, Rng], Curves], str] = {
    overfitting: "overfitting",
    memorized: "overfitting",
    good: "good",
    too_early: "underfitting",
    too_small: "underfitting",
    plateaued: "plateaued",
    gap_widens: "plateaued",
    diverging: "diverging",
}


@pytest.mark.parametrize("scale", [1e-3, 2.3, 1e4])
@pytest.mark.parametrize(
    ("epochs", "noise", "share"),  # of the seeds, that are at least told right
    [(12, 0.0, 0.95), (20, 0.0, 1), (60, 0.0, 1), (20, 0.01, 0.95), (60, 0.01, 1), (60, 0.03, 0.9), (200, 0.05, 0.9)],
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_made_up_curves(kind: Callable[[np.ndarray, Rng], Curves], epochs: int, noise: float, share: float, scale: float) -> None:
    found: Counter[str] = Counter()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        curves = kind(np.arange(1, epochs + 1) / epochs, rng)
        train, val = (scale * curve * (1 + noise * rng.standard_normal(epochs)) for curve in curves)
        found[recorded(loss=train, val_loss=val).diagnosis().verdict] += 1
    assert found[KINDS[kind]] >= share * len(SEEDS), found


@pytest.mark.parametrize("epochs", [16, 40, 100])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_is_no_trend(noise: float, epochs: int) -> None:
    found: Counter[str] = Counter()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        train, val = (level + noise * rng.standard_normal(epochs) for level in (1.0, 1.5))
        found[recorded(loss=train, val_loss=val, accuracy=np.full(epochs, 0.95)).diagnosis().verdict] += 1
    assert found["plateaued"] >= 85, found


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_where_overfitting_began(noise: float) -> None:
    errors = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        train, val = overfitting(np.arange(1, 101) / 100, rng)
        report = recorded(loss=train, val_loss=val * (1 + noise * rng.standard_normal(100))).diagnosis()
        assert report.epoch is not None
        errors.append(report.epoch - (int(val.argmin()) + 1))
        assert f"since epoch {report.epoch}" in str(report)
    assert np.abs(errors).max() <= (2 if noise == 0 else 15)
    assert abs(np.median(errors)) <= 4


def test_where_it_plateaued() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        loss = np.maximum(0.2, 1 - np.arange(60) / 30) + 0.002 * rng.standard_normal(60)  # a line that ends at epoch 25
        report = recorded(loss=loss, val_loss=loss + 0.1).diagnosis()
        assert report.verdict == "plateaued"
        assert abs((report.epoch or 0) - 25) <= 5


def test_without_validation() -> None:
    t = np.arange(1, 41) / 40
    assert recorded(loss=np.exp(-2 * t)).diagnosis().verdict == "improving"
    flat = recorded(loss=np.exp(-40 * t) + 0.1).diagnosis()
    assert flat.verdict == "plateaued"
    assert "the training loss has stood still since epoch" in flat.words
    assert recorded(loss=np.exp(-2 * t), val_loss=[math.nan] * 40).diagnosis().verdict == "improving"


def test_validation_now_and_then() -> None:
    train, val = overfitting(np.arange(1, 101) / 100, np.random.default_rng(0))
    val[np.arange(100) % 5 != 4] = np.nan
    report = recorded(loss=train, val_loss=val).diagnosis()
    assert report.verdict == "overfitting"
    assert report.epoch is not None
    assert report.epoch % 5 == 0


def test_accuracy_tells_a_poor_network_from_one_that_is_done() -> None:
    loss = 0.35 + 0.2 * np.exp(-np.arange(40) / 3)
    for accuracy, verdict in ((0.97, "plateaued"), (0.7, "underfitting")):
        assert recorded(loss=loss, val_loss=loss, accuracy=np.full(40, accuracy)).diagnosis().verdict == verdict


@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_too_few_epochs(epochs: int) -> None:
    history = recorded(loss=np.linspace(2, 1, epochs), val_loss=np.linspace(2, 1, epochs))
    if epochs == 0:
        with pytest.raises(ValueError, match=r"History.diagnosis: no loss was recorded"):
            history.diagnosis()
        history.history["loss"] = []
    assert history.diagnosis().verdict == "too short"
    assert "at least 5" in str(history.diagnosis())


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(last: float) -> None:
    assert recorded(loss=[2.0, 1.0, last]).diagnosis().verdict == "diverging"
    assert recorded(loss=[*np.linspace(2, 1, 20), last], val_loss=np.ones(21)).diagnosis().verdict == "diverging"
    spike = np.linspace(2, 1, 30)
    spike[7] = last
    assert recorded(loss=spike).diagnosis().verdict == "improving"


def test_a_spike_of_one_epoch_says_nothing() -> None:
    train, val = good(np.arange(1, 61) / 60, np.random.default_rng(0))
    train[41], val[50] = 9.0, 9.0
    assert recorded(loss=train, val_loss=val).diagnosis().verdict == "good"


def test_all_losses_the_same() -> None:
    assert recorded(loss=[1.0] * 20, val_loss=[1.0] * 20).diagnosis().verdict == "underfitting"
    assert recorded(loss=[0.0] * 20, val_loss=[0.0] * 20).diagnosis() == recorded(loss=[0.0] * 20, val_loss=[0.0] * 20).diagnosis()


def test_the_report_reads_as_a_sentence() -> None:
    for kind in KINDS:
        report = recorded(**dict(zip(("loss", "val_loss"), kind(np.arange(1, 61) / 60, np.random.default_rng(1)), strict=True)))
        found = report.diagnosis()
        assert isinstance(found, CurveReport)
        assert str(found) == f"{found.verdict}: {found.words}"
        assert "{" not in found.words


# --- real trainings --------------------------------------------------------------------------------------------------------------


def train(width: int, rows: int, epochs: int, lr: float, noise: float = 0.0) -> CurveReport:
    x, y = ts.data.load_digits()
    x, y = x[:1000], y[:1000].copy()
    rng = np.random.default_rng(0)
    wrong = rng.random(1000) < noise
    y[wrong] = rng.integers(0, 10, int(wrong.sum()))
    model = ts.nn.Sequential(ts.nn.Dense(64, width, activation="relu"), ts.nn.Dense(width, 10), seed=0)
    trainer = ts.Trainer(model, optimizer=ts.optim.Adam(lr=lr))
    return trainer.fit(x[:rows], y[:rows], epochs=epochs, validation_data=(x[500:], y[500:])).diagnosis()


def test_a_big_network_on_few_rows_overfits() -> None:
    report = train(256, 200, 60, 1e-2, noise=0.2)
    assert report.verdict == "overfitting"
    assert report.epoch is not None
    assert report.epoch < 20


def test_a_tiny_network_underfits() -> None:
    assert train(2, 500, 40, 3e-3).verdict == "underfitting"


def test_a_rate_that_is_too_small_underfits() -> None:
    assert train(64, 500, 15, 1e-4).verdict == "underfitting"
