"""The digits and the split."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainstep.data import load_digits, train_test_split


def test_digits_are_the_digits() -> None:
    x, y = load_digits()
    assert (x.shape, y.shape) == ((1797, 64), (1797,))
    assert (x.dtype, y.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    assert x.min() == 0.0
    assert x.max() == 1.0
    np.testing.assert_array_equal(x * 16, np.rint(x * 16))
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    np.testing.assert_array_equal(y[:10], range(10))


@pytest.mark.peers
def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = load_digits()
    np.testing.assert_array_equal(x, images / 16)
    np.testing.assert_array_equal(y, labels)


def test_digits_are_the_callers_own() -> None:
    load_digits()[0][:] = 7.0
    assert load_digits()[0].max() == 1.0


@given(
    members=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
    stratify=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_split_is_a_partition_and_keeps_shares(members: list[int], share: float, stratify: bool, seed: int) -> None:
    n = sum(members)
    n_test = int(share * n)
    assume(len(members) <= n_test <= n - len(members))
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(members)), members))
    x = np.column_stack([np.arange(n), y])
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=n_test, stratify=stratify, seed=seed)
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (n - n_test, n - n_test, n_test, n_test)
    np.testing.assert_array_equal(np.sort(np.concatenate([x_train, x_test])[:, 0]), np.arange(n))
    np.testing.assert_array_equal(x_train[:, 1], y_train)
    np.testing.assert_array_equal(x_test[:, 1], y_test)
    if stratify:
        exact = n_test * np.array(members) / n
        assert (np.abs(np.bincount(y_test, minlength=len(members)) - exact) < 1.0).all()


def test_largest_remainders_by_hand() -> None:
    # Quotas of 5 test rows from 7, 6 and 4 of 17: 2.06, 1.76, 1.18. Rounded down: 2, 1, 1. The second has the largest
    # remainder and gets the one left.
    y = np.repeat(["a", "b", "c"], [7, 6, 4])
    y_test = train_test_split(np.arange(17), y, test_size=5)[3]
    assert [int((y_test == label).sum()) for label in "abc"] == [2, 2, 1]


def test_split_of_the_digits() -> None:
    x, y = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(x, y)
    assert (x_train.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert (x_train.dtype, y_train.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    shares = np.bincount(y) / len(y)
    np.testing.assert_allclose(np.bincount(y_test) / 360, shares, atol=1 / 360)
    assert (np.diff(y_test) < 0).any()  # shuffled, not sorted by class


@pytest.mark.parametrize("stratify", [True, False])
def test_seed_decides(stratify: bool) -> None:
    x, y = np.arange(100), np.arange(100) % 4
    first, again, other = (train_test_split(x, y, stratify=stratify, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("test_size", "expected"), [(0.2, 20), (0.07, 7), (0.201, 21), (1, 1), (np.int64(30), 30)])
def test_test_size(test_size: float, expected: int) -> None:
    x = np.arange(100)
    assert len(train_test_split(x, x, test_size=test_size, stratify=False)[1]) == expected


def test_rows_may_have_any_shape() -> None:
    x, y = np.zeros((10, 2, 3)), np.zeros((10, 4))
    parts = train_test_split(x, y, stratify=False)
    assert [part.shape for part in parts] == [(8, 2, 3), (2, 2, 3), (8, 4), (2, 4)]
    assert len(train_test_split([[1], [2], [3], [4]], [0, 0, 1, 1], test_size=0.5)[0]) == 2


def test_split_errors() -> None:
    x, y = np.arange(10), np.arange(10) % 2
    with pytest.raises(ValueError, match="train_test_split: x has 10 rows, y has 9"):
        train_test_split(x, y[:9])
    for test_size in (0.0, 1.0, -0.5, 2.5, float("nan")):
        with pytest.raises(ValueError, match=r"test_size is .*, wanted a fraction between 0 and 1"):
            train_test_split(x, y, test_size=test_size)
    for count in (0, 10, -1):
        with pytest.raises(ValueError, match=rf"test_size is {count}, wanted 1 to 9 of 10 rows"):
            train_test_split(x, y, test_size=count)
    with pytest.raises(ValueError, match=r"test_size 0.95 of 10 rows leaves one part empty"):
        train_test_split(x, y, test_size=0.95)
    for wrong in ("0.2", None, True):
        with pytest.raises(TypeError, match=r"test_size is a .*, wanted a float or an int"):
            train_test_split(x, y, test_size=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class 7 has 1 member, stratify=True wants 2 or more of each"):
        train_test_split(x, [0, 0, 0, 0, 0, 1, 1, 1, 1, 7])
    with pytest.raises(ValueError, match="the test part has 1 rows, fewer than the 2 classes"):
        train_test_split(x, y, test_size=1)
    with pytest.raises(ValueError, match="the training part has 1 rows, fewer than the 2 classes"):
        train_test_split(x, y, test_size=9)
    with pytest.raises(ValueError, match=r"y has shape \(10, 2\), stratify=True wants one class a row"):
        train_test_split(x, np.zeros((10, 2)))
    with pytest.raises(ValueError, match="y has no rows, it is a single value"):
        train_test_split(x, 3)
