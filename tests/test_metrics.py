"""Metrics on arrays: the compiled functions against their twins in NumPy, and what is said of ties, NaN and absent classes.

scikit-learn is in test_metric_peers.py, metrics of a training run are in test_trainer_metrics.py.
"""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import metrics
from trainstep.reference import metrics as twins

from .conftest import vector_width
from .helpers import Array, assert_same_bits, layouts, normal

OF_CLASSES = ("accuracy", "top_k_accuracy", "precision", "recall", "f1", "confusion_matrix")
OF_NUMBERS = ("mse", "mae", "r2")
AVERAGES = ("macro", "micro", "weighted", None)


def options_of(name: str, columns: int) -> list[dict[str, Any]]:
    classes = max(columns, 2)
    if name == "top_k_accuracy":
        return [{"k": k} for k in sorted({1, 2, (classes + 1) // 2, classes})]
    if name in ("precision", "recall", "f1"):
        return [{"average": average} for average in (*AVERAGES, *(["binary"] if classes == 2 else []))]
    return [{}]


def scores(rng: np.random.Generator, dtype: Any, rows: int, columns: int) -> Array:
    """Few different numbers, so that many are equal, and some that are none."""
    pred = (np.round(3 * rng.standard_normal((rows, columns))) / 2).astype(dtype)
    pred[rng.random((rows, columns)) < 0.02] = np.nan
    pred[rng.random((rows, columns)) < 0.02] = -np.inf
    return pred


def widths(dtype: Any) -> tuple[int, ...]:
    return 1, 2, 3, vector_width(dtype), 2 * vector_width(dtype) + 1


def weights(rng: np.random.Generator, rows: int) -> Array:
    return rng.uniform(0, 2, rows) * (rng.random(rows) < 0.8)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_of_classes_against_the_twin(name: str, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for rows, columns in (
        *product((1, 2, 65), widths(dtype)),
        (5000, 3),
        (5000, 1),
        (130, 300),
    ):
        pred = scores(rng, dtype, rows, columns)
        y = rng.integers(0, max(2, columns - columns // 4) if columns != 1 else 2, rows).clip(max=max(columns - 1, 1))
        for weight, given in product((None, weights(rng, rows)), options_of(name, columns)):
            got = getattr(metrics, name)(pred, y, **given, sample_weight=weight)
            exact = getattr(twins, name)(pred, y, **given, sample_weight=weight)
            assert type(got) is type(exact)
            np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-13, err_msg=f"{rows} x {columns}, {given}")


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_of_numbers_against_the_twin(name: str, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for rows, columns in (*product((1, 2, 65, 1023, 1025), widths(dtype)), (9000, 2)):
        pred = normal(rng, dtype, rows, columns)
        y = (pred + normal(rng, dtype, rows, columns) + 10).astype(dtype)
        for weight in (None, weights(rng, rows)):
            got, exact = (getattr(m, name)(pred, y, sample_weight=weight) for m in (metrics, twins))
            np.testing.assert_allclose(got, exact, rtol=1e-11, err_msg=f"{rows} x {columns}")


def test_the_same_bits_for_any_number_of_threads(dtype: np.dtype, rng: np.random.Generator) -> None:
    rows, columns = 30_000, 7
    pred, y, weight = scores(rng, dtype, rows, columns), rng.integers(0, columns, rows), weights(rng, rows)
    numbers = normal(rng, dtype, rows, columns)

    def all_of_them() -> Array:
        of_classes = [metrics.accuracy, metrics.top_k_accuracy, metrics.precision, metrics.recall, metrics.f1]
        of_numbers = [metrics.mse, metrics.mae, metrics.r2]
        values = [f(pred, y, sample_weight=weight) for f in of_classes] + [f(numbers, 2 * numbers, weight) for f in of_numbers]
        return np.array([*values, *metrics.confusion_matrix(pred, y, weight).ravel()])

    with ts.num_threads(1):
        alone = all_of_them()
    for n in (2, 3):
        with ts.num_threads(n):
            assert_same_bits(all_of_them(), alone, n)


# --- what is said in words ---------------------------------------------------------------------------------------------------


def test_of_equal_scores_the_first_come_first(dtype: np.dtype) -> None:
    pred = np.ones((5, 5), dtype)
    assert metrics.accuracy(pred, np.arange(5)) == 0.2
    for k in range(1, 6):
        assert metrics.top_k_accuracy(pred, np.arange(5), k=k) == k / 5
    zero = np.zeros((2, 1), dtype)  # one column: not above 0 is the first class
    assert metrics.confusion_matrix(zero, [0, 1]).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("columns", [2, 9, 40])
def test_the_largest_score_wherever_it_lies(columns: int, dtype: np.dtype, rng: np.random.Generator) -> None:
    pred = rng.standard_normal((columns, columns)).astype(dtype)
    pred[np.arange(columns), np.arange(columns)] = 10
    assert metrics.accuracy(pred, np.arange(columns)) == 1
    assert metrics.accuracy(pred, np.roll(np.arange(columns), 1)) == 0
    assert (metrics.confusion_matrix(pred, np.arange(columns)) == np.eye(columns)).all()


def test_top_1_is_accuracy(dtype: np.dtype, rng: np.random.Generator) -> None:
    for columns in (1, 2, 10, 33):
        pred, y = scores(rng, dtype, 200, columns), rng.integers(0, max(columns, 2), 200)
        assert metrics.top_k_accuracy(pred, y, k=1) == metrics.accuracy(pred, y)


def test_a_row_with_a_nan_is_of_no_class(dtype: np.dtype) -> None:
    pred = np.array([[0, 1, np.nan], [np.nan, 1, 0], [0, 1, 0]], dtype)
    y = [1, 1, 1]
    assert metrics.accuracy(pred, y) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy(pred, y, k=3) == pytest.approx(1 / 3)
    assert metrics.precision(pred, y, average=None).tolist() == [0, 1, 0]
    assert metrics.recall(pred, y, average=None).tolist() == [0, pytest.approx(1 / 3), 0]
    assert metrics.confusion_matrix(pred, y).sum() == 1
    column = np.array([np.nan, 1, -1], dtype)
    assert metrics.accuracy(column, [1, 1, 0]) == pytest.approx(2 / 3)
    assert math.isnan(metrics.mse(column, np.zeros(3)))
    assert math.isnan(metrics.r2(column, np.zeros(3)))


def test_infinite_scores_are_the_largest_and_the_least(dtype: np.dtype) -> None:
    pred = np.array([[np.inf, 1, 2], [-np.inf, -np.inf, -np.inf], [-np.inf, 0, -np.inf]], dtype)
    assert metrics.accuracy(pred, [0, 0, 1]) == 1


def test_one_hot_rows_are_as_good_as_indices(dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, y = scores(rng, dtype, 100, 6), rng.integers(0, 6, 100)
    for name, rows in product(OF_CLASSES, (np.eye(6)[y], np.eye(6, dtype=int)[y], 0.1 + 0.4 * np.eye(6, dtype="f4")[y])):
        got, of_indices = (getattr(metrics, name)(pred, t) for t in (rows, y))
        assert np.array_equal(got, of_indices), name


def test_one_column_is_two_classes(dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, y = scores(rng, dtype, 100, 1), rng.integers(0, 2, 100)
    pred = np.nan_to_num(pred)
    two = np.hstack([np.zeros_like(pred), pred])
    for name in ("accuracy", "precision", "recall", "f1", "confusion_matrix"):
        wanted = getattr(metrics, name)(two, y)
        for x, t in product((pred, pred[:, 0]), (y, y[:, None], y.astype("f8"), y.astype(bool), 0.2 + 0.6 * y)):
            assert np.array_equal(getattr(metrics, name)(x, t), wanted), name


def test_a_class_that_does_not_occur_is_not_in_the_mean(dtype: np.dtype) -> None:
    pred = np.array([[9, 0, 0, 0], [9, 0, 0, 0], [0, 0, 9, 0]], dtype)  # 1 and 3 are nowhere
    y = [0, 2, 2]
    assert metrics.precision(pred, y, average=None).tolist() == [0.5, 0, 1, 0]
    assert metrics.precision(pred, y) == 0.75
    assert metrics.recall(pred, y) == 0.75
    # Predicted and never there, or there and never predicted: in the mean, as 0.
    assert metrics.f1(pred, [1, 1, 2], average=None).tolist() == [0, 0, 1, 0]
    assert metrics.f1(pred, [1, 1, 2]) == pytest.approx(1 / 3)
    # A weight of 0 takes no class away.
    assert metrics.f1(pred, [0, 2, 2], sample_weight=[1, 0, 0]) == 0.5


def test_weights_count_rows_as_often(dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, numbers, y = scores(rng, dtype, 40, 5), normal(rng, dtype, 40, 5), rng.integers(0, 5, 40)
    count = rng.integers(1, 4, 40)
    for name in OF_CLASSES:
        got = getattr(metrics, name)(pred, y, sample_weight=count)
        np.testing.assert_allclose(got, getattr(metrics, name)(pred.repeat(count, 0), y.repeat(count)), rtol=1e-13)
    for name in OF_NUMBERS:
        got = getattr(metrics, name)(numbers, 2 * numbers, count)
        repeated = numbers.repeat(count, 0)
        np.testing.assert_allclose(got, getattr(metrics, name)(repeated, 2 * repeated), rtol=1e-12)


def test_no_weight_at_all(dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, y, none = normal(rng, dtype, 4, 3), [0, 1, 2, 0], np.zeros(4)
    for name in OF_CLASSES:
        k = {"k": 2} if name == "top_k_accuracy" else {}
        assert not np.any(getattr(metrics, name)(pred, y, sample_weight=none, **k)), name
    assert metrics.mse(pred, pred + 1, none) == metrics.mae(pred, pred + 1, none) == 0
    assert math.isnan(metrics.r2(pred, pred + 1, none))


def test_r2_of_targets_far_from_0_keeps_its_digits(threads: int, rng: np.random.Generator) -> None:
    y = rng.standard_normal((5000, 2))
    pred = y + 0.1 * rng.standard_normal(y.shape)
    for far in (0.0, 1e6, 1e9):
        t, x = y + far, pred + far
        exact = np.mean([1 - ((x - t)[:, j] ** 2).sum() / np.var(t[:, j] - t[0, j]) / 5000 for j in (0, 1)])
        assert metrics.r2(x, t) == pytest.approx(exact, rel=1e-13)


def test_r2_of_equal_targets(dtype: np.dtype) -> None:
    for rows, value in product((2, 3, 1500), (0.1, 1e30, -7.3)):
        y = np.full(rows, value, dtype)
        assert metrics.r2(y, y) == 1
        assert metrics.r2(y * 2, y) == 0
        assert metrics.r2(np.stack([y, y * 2], 1), np.stack([y, y], 1)) == 0.5
    assert math.isnan(metrics.r2(np.ones(1, dtype), np.ones(1)))


@pytest.mark.parametrize("name", [*OF_CLASSES, *OF_NUMBERS])
def test_any_layout_and_dtype_of_arguments(name: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, weight = normal(rng, dtype, 12, 6), rng.uniform(0.5, 2, 12).astype(np.float32)
    y: Array = rng.integers(-20, 20, (12, 6)) if name in OF_NUMBERS else rng.integers(0, 6, 12)
    wanted = getattr(metrics, name)(pred, y, sample_weight=weight)
    for what, form in layouts(pred).items():
        assert np.array_equal(getattr(metrics, name)(form, y, sample_weight=weight), wanted), what
    for what, form in layouts(y).items():
        assert np.array_equal(getattr(metrics, name)(pred, form, sample_weight=weight), wanted), what
    for t in (y.astype(np.int8), y.tolist(), *([y.astype(np.float16)] if name in OF_NUMBERS else [y.astype(np.uint16)])):
        assert np.array_equal(getattr(metrics, name)(pred, t, sample_weight=weight), wanted)
    for w in (weight.astype(np.float64), weight.tolist()):
        assert np.array_equal(getattr(metrics, name)(pred, y, sample_weight=w), wanted)


def test_confusion_matrix_into_an_array(dtype: np.dtype, rng: np.random.Generator) -> None:
    pred, y = normal(rng, dtype, 30, 4), rng.integers(0, 4, 30)
    out = np.full((4, 4), -1)
    assert metrics.confusion_matrix(pred, y, out=out) is out
    assert_same_bits(out, metrics.confusion_matrix(pred, y))
    weighted = np.full((4, 4), -1.0)
    assert metrics.confusion_matrix(pred, y, np.ones(30), out=weighted) is weighted
    assert np.array_equal(weighted, out)


# --- objects -----------------------------------------------------------------------------------------------------------------


def test_objects_compare_print_and_stay_as_they_are() -> None:
    assert metrics.TopK(3) == metrics.TopK(k=3) != metrics.TopK()
    assert hash(metrics.F1("micro")) == hash(metrics.F1(average="micro"))
    assert repr(metrics.TopK(3)) == "TopK(k=3)"
    assert [cls().measure for cls in metrics.METRICS.values()] == [
        "accuracy", "top_5_accuracy", "precision", "recall", "f1", "mse", "mae", "r2"
    ]  # fmt: skip
    with pytest.raises(AttributeError):
        metrics.TopK(3).k = 4  # type: ignore[misc]


# --- what does not fit ---------------------------------------------------------------------------------------------------------

X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])
ONE = np.zeros((4, 1), np.float32)
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: metrics.accuracy(X.astype(int), Y), TypeError, "accuracy: pred has dtype int64, expected float32 or float64"),
    (lambda: metrics.accuracy("scores", Y), TypeError, "accuracy: pred is a str, expected a NumPy array"),
    (lambda: metrics.accuracy(np.zeros((4, 3, 2)), Y), ValueError, r"accuracy: pred has shape \(4, 3, 2\), expected \(any, any\)"),
    (lambda: metrics.accuracy(np.zeros((0, 3)), Y), ValueError, r"accuracy: pred has shape \(0, 3\), expected no extent of 0"),
    (lambda: metrics.accuracy(X, Y[:3]), ValueError, r"accuracy: y has shape \(3,\), expected \(4,\)"),
    (lambda: metrics.accuracy(X, Y.astype(float)), TypeError, "accuracy: y has dtype float64, expected integer class indices"),
    (lambda: metrics.f1(X, Y + 1), ValueError, "f1: y holds 3 at row 2, expected 0 <= label < 3"),
    (lambda: metrics.f1(X, np.eye(4)), ValueError, r"f1: y has shape \(4, 4\), expected \(4, 3\) or \(4,\)"),
    (lambda: metrics.f1(X, np.full((4, 3), -1.0)), ValueError, "f1: y holds -1.0.* expected finite probabilities of at least 0"),
    (lambda: metrics.f1(ONE, [0, 1, 2, 0]), ValueError, "f1: y holds 2.0.* at element 2, expected numbers from 0 to 1"),
    (lambda: metrics.f1(ONE, [0, 1]), ValueError, r"f1: y has shape \(2, 1\), expected \(4, 1\) or \(4,\)"),
    (lambda: metrics.recall(X, Y, sample_weight=np.ones(3)), ValueError, r"recall: sample_weight has shape \(3,\), expected"),
    (lambda: metrics.recall(X, Y, sample_weight=[1, 1, -1, 1]), ValueError, "recall: sample_weight"),
    (lambda: metrics.recall(X, Y, sample_weight=[1, 1, np.nan, 1]), ValueError, "recall: sample_weight"),
    (lambda: metrics.precision(X, Y, average="mean"), ValueError,
     "precision: average is 'mean', expected one of macro, micro, weighted, binary or None"),
    (lambda: metrics.precision(X, Y, average="none"), ValueError, "precision: average is 'none', expected one of"),
    (lambda: metrics.precision(X, Y, average=2), TypeError, "precision: average is a int, expected a name or None"),
    (lambda: metrics.precision(X, Y, average="binary"), ValueError,
     "precision: average is 'binary' with 3 classes, expected two classes"),
    (lambda: metrics.top_k_accuracy(X, Y, k=0), ValueError, "top_k_accuracy: k is 0, expected"),
    (lambda: metrics.top_k_accuracy(X, Y, k=4), ValueError, "top_k_accuracy: k is 4, expected at most the 3 classes"),
    (lambda: metrics.top_k_accuracy(ONE, Y * 0, k=3), ValueError, "top_k_accuracy: k is 3, expected at most the 2 classes"),
    (lambda: metrics.top_k_accuracy(X, Y, k=1.5), TypeError, "top_k_accuracy: k is a float, expected an int"),
    (lambda: metrics.mse(X, Y), ValueError, r"mse: y has shape \(4,\), expected \(4, 3\)"),
    (lambda: metrics.mse(ONE, [1, 2, np.nan, 0]), ValueError, "mse: y holds nan at element 2, expected numbers"),
    (lambda: metrics.r2(X[:, 0], X), ValueError, r"r2: y has shape \(4, 3\), expected \(4, 1\) or \(4,\)"),
    (lambda: metrics.confusion_matrix(X, Y, out=np.zeros((3, 3))), TypeError,
     "confusion_matrix: out has dtype float64, expected int"),
    (lambda: metrics.confusion_matrix(X, Y, out=np.zeros((2, 3), int)), ValueError,
     r"confusion_matrix: out has shape \(2, 3\), expected \(3, 3\)"),
    (lambda: metrics.confusion_matrix(X, Y, np.ones(4), out=np.zeros((3, 3), int)), TypeError,
     "confusion_matrix: out has dtype int64"),
    (lambda: metrics.TopK(0), ValueError, "TopK: k is 0, expected"),
    (lambda: metrics.TopK("5"), TypeError, "TopK: k is a str, expected an int"),
    (lambda: metrics.F1(average=None), TypeError, "F1: average is a NoneType, expected a name"),
    (lambda: metrics.Recall("samples"), ValueError, "Recall: average is 'samples', expected one of macro, micro, weighted, binary"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED, ids=[words[:50] for _, _, words in REFUSED])
def test_what_does_not_fit(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"^{words}"):
        call()
