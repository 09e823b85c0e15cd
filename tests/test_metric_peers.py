"""Metrics against scikit-learn's. Skipped without it."""

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest

from trainstep import metrics
from trainstep.reference import metrics as twins

from .helpers import Array, normal

pytestmark = [pytest.mark.peers, pytest.mark.one_level]
peers = pytest.importorskip("sklearn.metrics")

SHAPES = [(1, 2), (7, 1), (50, 2), (300, 1), (40, 3), (300, 10), (30, 40)]


def problem(rng: np.random.Generator, dtype: Any, rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Scores, labels of which some never occur, and predicted classes."""
    pred, y = normal(rng, dtype, rows, columns), rng.integers(0, max(2, columns - 1), rows)
    return pred, y, (pred[:, 0] > 0).astype(int) if columns == 1 else pred.argmax(axis=1)


def weight_sets(rng: np.random.Generator, rows: int) -> tuple[Array | None, Array]:
    return None, rng.uniform(0.1, 2, rows)


@pytest.mark.parametrize("module", [metrics, twins])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_classes(module: Any, rows: int, columns: int, dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, y, chosen = problem(rng, dtype, rows, columns)
    classes = max(columns, 2)
    for weight in weight_sets(rng, rows):
        w = {"sample_weight": None if weight is None else weight.astype(dtype)}
        close = {"rel": 1e-12, "abs": 1e-13}
        assert module.accuracy(pred, y, **w) == pytest.approx(peers.accuracy_score(y, chosen, **w), **close)
        matrix = peers.confusion_matrix(y, chosen, labels=range(classes), **w)
        np.testing.assert_allclose(module.confusion_matrix(pred, y, **w), matrix, rtol=1e-12)
        for name, average in product(("precision", "recall", "f1"), ("macro", "micro", "weighted", "binary")):
            if average == "binary" and classes != 2:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes without predictions: 0, as here
                wanted = getattr(peers, f"{name}_score")(y, chosen, average=average, **w)
            assert getattr(module, name)(pred, y, average=average, **w) == pytest.approx(wanted, **close), (name, average)
        for name in ("precision", "recall", "f1"):
            wanted = getattr(peers, f"{name}_score")(y, chosen, average=None, labels=range(classes), zero_division=0, **w)
            np.testing.assert_allclose(getattr(module, name)(pred, y, average=None, **w), wanted, rtol=1e-12)


@pytest.mark.parametrize("module", [metrics, twins])
def test_top_k(module: Any, dtype: np.dtype, rng: np.random.Generator) -> None:
    """Scores that differ: of equal ones scikit-learn takes the last."""
    for (rows, columns), k in product(((50, 3), (300, 10), (300, 40)), (1, 2)):
        pred, y, _ = problem(rng, dtype, rows, columns)
        for weight in weight_sets(rng, rows):
            w = None if weight is None else weight.astype(dtype)
            wanted = peers.top_k_accuracy_score(y, pred, k=k, sample_weight=w, labels=range(columns))
            assert module.top_k_accuracy(pred, y, k=k, sample_weight=w) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("module", [metrics, twins])
def test_numbers(module: Any, dtype: np.dtype, rng: np.random.Generator) -> None:
    for rows, columns in ((2, 1), (7, 3), (300, 1), (3000, 5)):
        pred = normal(rng, dtype, rows, columns)
        y = (pred + normal(rng, dtype, rows, columns)).astype(dtype)
        for weight in weight_sets(rng, rows):
            w = None if weight is None else weight.astype(dtype)
            a, b = y.astype(float), pred.astype(float)
            s = None if w is None else w.astype(float)
            assert module.mse(pred, y, w) == pytest.approx(peers.mean_squared_error(a, b, sample_weight=s), rel=1e-11)
            assert module.mae(pred, y, w) == pytest.approx(peers.mean_absolute_error(a, b, sample_weight=s), rel=1e-11)
            assert module.r2(pred, y, w) == pytest.approx(peers.r2_score(a, b, sample_weight=s), rel=1e-10)


@pytest.mark.parametrize("module", [metrics, twins])
def test_r2_of_equal_targets(module: Any, dtype: np.dtype) -> None:
    y = np.full((6, 1), 2, dtype)
    for pred in (y, y + 1, np.hstack([y, y + 1])):
        t = np.broadcast_to(y, pred.shape)
        assert module.r2(pred, t) == peers.r2_score(t, pred)
