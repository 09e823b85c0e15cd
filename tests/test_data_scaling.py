"""Standardizer and Whitener: statistics of any data, and what is made with them."""

import copy
import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import trainstep as ts
from trainstep.data import Standardizer, Whitener

from .helpers import Dlpack, assert_same_bits, untouched

pytestmark = pytest.mark.one_level

EPS = np.finfo(np.float64).eps


def exact_statistics(column: list[float]) -> tuple[float, float]:
    """Mean and standard deviation in whole fractions, rounded once."""
    values = [Fraction(v) for v in column]
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return float(mean), math.sqrt(variance)


def table(rng: np.random.Generator, rows: int = 700) -> np.ndarray:
    x = rng.standard_normal((rows, 5)) * [1.0, 1e-6, 1e5, 3.0, 1.0] + [0.0, 1.0, 1e8, -7.0, 0.0]
    x[:, 4] = 0.1
    return x


# --- Standardizer ---------------------------------------------------------------------------------------------------------------


def test_statistics_per_feature(rng: np.random.Generator) -> None:
    x = table(rng)
    standardizer = Standardizer().fit(x)
    for j in range(4):
        mean, std = exact_statistics(x[:, j].tolist())
        assert standardizer.mean_[j] == pytest.approx(mean, rel=4 * EPS, abs=4 * EPS)
        assert standardizer.scale_[j] == pytest.approx(std, rel=1e-13)
    assert (standardizer.mean_[4], standardizer.scale_[4]) == (0.1, 1.0)
    with untouched(x):
        z = standardizer.transform(x)
    assert (z[:, 4] == 0).all()
    np.testing.assert_allclose(z, (x - standardizer.mean_) / standardizer.scale_, rtol=1e-15)
    np.testing.assert_allclose(standardizer.inverse_transform(z), x, rtol=1e-14)
    for other in (np.asfortranarray(x), Dlpack(x), x.tolist(), x.astype(">f8")):
        assert_same_bits(Standardizer().fit_transform(other), z)


def test_a_mean_that_has_no_digits_left_for_the_spread(rng: np.random.Generator) -> None:
    offsets = rng.integers(0, 10, 999)
    _, std = exact_statistics(offsets.tolist())
    assert Standardizer().fit(2.0**52 + offsets[:, None]).scale_[0] == pytest.approx(std, rel=1e-12)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_statistics_per_channel(channels: tuple[int, ...], kind: str, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (40, 9, 11, *channels)).astype(kind)
    standardizer = Standardizer(per="channel").fit(images)
    for c, pixels in enumerate(np.moveaxis(images, -1, 0) if channels else [images]):
        mean, std = exact_statistics([float(v) for v in pixels.ravel()])
        assert standardizer.mean_[c] == pytest.approx(mean, rel=1e-14)
        assert standardizer.scale_[c] == pytest.approx(std, rel=1e-13)
    z = standardizer.transform(images)
    assert z.dtype == (np.float64 if kind == "float64" else np.float32)
    assert z.shape == images.shape
    axes = (0, 1, 2)
    np.testing.assert_allclose(z.mean(axis=axes, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=axes, dtype=np.float64), 1, rtol=1e-6)
    smaller = images[:2, :4, :5]  # other sizes have the same channels
    assert_same_bits(standardizer.transform(smaller), z[:2, :4, :5].copy())
    np.testing.assert_allclose(standardizer.inverse_transform(z), images, rtol=1e-5, atol=1e-4)


def test_images_per_feature_have_statistics_of_each_pixel(rng: np.random.Generator) -> None:
    images = rng.standard_normal((50, 3, 4))
    standardizer = Standardizer().fit(images)
    assert standardizer.mean_.shape == (3, 4)
    flat = Standardizer().fit(images.reshape(50, 12))
    np.testing.assert_array_equal(standardizer.scale_.ravel(), flat.scale_)


def test_a_standardizer_is_a_standardize_layer(rng: np.random.Generator) -> None:
    x = table(rng)
    model = ts.nn.Sequential(ts.nn.Standardize(5), ts.nn.Dense(5, 1), dtype="float64")
    model.standardize(x)
    standardizer = Standardizer().fit(x)
    assert_same_bits(standardizer.mean_, model.buffers()["0.mean"].copy())
    assert_same_bits(1 / standardizer.scale_, model.buffers()["0.scale"].copy())


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardizer_beside_scikit_learn(dtype: str, rng: np.random.Generator) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = (rng.standard_normal((300, 4)) * [1, 10, 0.1, 1] + [0, 3, 0, 100]).astype(dtype)
    x[:, 3] = 2
    theirs, mine = preprocessing.StandardScaler().fit(x), Standardizer().fit(x)
    np.testing.assert_allclose(mine.mean_, theirs.mean_, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mine.scale_, theirs.scale_, rtol=1e-6)
    np.testing.assert_allclose(mine.transform(x), theirs.transform(x), rtol=1e-4, atol=1e-5)


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=30), st.sampled_from([1e-3, 1.0, 1e3]))
def test_any_column(values: list[float], factor: float) -> None:
    column = np.array(values).reshape(-1, 1) * factor
    mean, std = exact_statistics(column.ravel().tolist())
    assume(std == 0 or std > 1e-100)
    standardizer = Standardizer().fit(column)
    size = float(np.abs(column).max())
    assert abs(standardizer.mean_[0] - mean) <= 4 * EPS * size
    wanted = std if column.min() != column.max() else 1.0
    assert standardizer.scale_[0] == pytest.approx(wanted, rel=1e-9, abs=4 * EPS * size)


# --- Whitener -------------------------------------------------------------------------------------------------------------------


def covariance(x: np.ndarray) -> np.ndarray:
    """By its definition, element by element."""
    centred = np.array([[v - math.fsum(column) / len(column) for v in column] for column in x.T.tolist()])
    return np.array([[math.fsum(a * b) / (len(a) - 1) for b in centred] for a in centred])


def mixed(rng: np.random.Generator, rows: int, features: int, spread: float = 1.0) -> np.ndarray:
    """Correlated columns, of standard deviations that differ by 10 to the spread."""
    x = rng.standard_normal((rows, features)) @ rng.standard_normal((features, features))
    return x * np.logspace(0, spread, features) + 3


@pytest.mark.parametrize("spread", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("method", ["pca", "zca"])
def test_the_covariance_is_the_identity(method: str, spread: float, rng: np.random.Generator) -> None:
    x = mixed(rng, 400, 6, spread)
    whitener = Whitener(method)
    with untouched(x):
        z = whitener.fit_transform(x)
    assert z.shape == x.shape
    np.testing.assert_allclose(covariance(z), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    back = whitener.inverse_transform(z)
    np.testing.assert_allclose(back, x, atol=1e-9 * np.abs(x).max())
    np.testing.assert_allclose(whitener.components_ @ whitener.components_.T, np.eye(6), atol=1e-12)
    assert (np.diff(whitener.explained_variance_) < 0).all()
    largest = np.abs(whitener.components_).argmax(axis=1)
    assert (whitener.components_[np.arange(6), largest] > 0).all()
    assert whitener.explained_variance_.sum() == pytest.approx(np.trace(covariance(x)), rel=1e-12)


def test_pca_and_zca_by_their_definitions(rng: np.random.Generator) -> None:
    x = mixed(rng, 200, 4)
    c = covariance(x)
    zca = Whitener("zca").fit(x)
    z = zca.transform(x)
    root = z.T @ (x - x.mean(axis=0)) / (len(x) - 1)  # of z = x W with W = C^(-1/2): C^(1/2), which is symmetric and positive
    np.testing.assert_allclose(root, root.T, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(root @ root, c, rtol=1e-9)
    assert (np.linalg.eigvalsh(root) > 0).all()
    pca = Whitener("pca").fit(x)
    for direction, variance in zip(pca.components_, pca.explained_variance_, strict=True):
        np.testing.assert_allclose(c @ direction, variance * direction, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        pca.transform(x) * np.sqrt(pca.explained_variance_), (x - x.mean(axis=0)) @ pca.components_.T, rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_directions_without_variance(kind: str, rng: np.random.Generator) -> None:
    base = (rng.integers(0, 100, (300, 3)) if kind == "uint8" else mixed(rng, 300, 3)).astype(kind)
    x = np.column_stack([base, base[:, 0] + base[:, 1], np.full(300, 7, kind), base[:, 2]]).astype(kind)
    pca, zca = Whitener("pca").fit(x), Whitener("zca").fit(x)
    assert pca.components_.shape == (3, 6)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(np.cov(pca.transform(wide), rowvar=False), np.eye(3), atol=1e-9)
    c = np.cov(zca.transform(wide), rowvar=False)
    np.testing.assert_allclose(c @ c, c, atol=1e-6)
    assert np.trace(c) == pytest.approx(3, abs=1e-6)
    for whitener in (pca, zca):
        np.testing.assert_allclose(whitener.inverse_transform(whitener.transform(wide)), wide, rtol=1e-5, atol=1e-5)
    few = mixed(rng, 4, 9)  # fewer rows than columns
    z = Whitener().fit_transform(few)
    assert z.shape == (4, 3)
    np.testing.assert_allclose(np.cov(z, rowvar=False), np.eye(3), atol=1e-9)
    with pytest.raises(ValueError, match="Whitener: components is 4, x has variance in only 3 directions"):
        Whitener(components=4).fit(x)
    with pytest.raises(ValueError, match="Whitener: all rows of x are the same"):
        Whitener().fit(np.ones((5, 2)))
    with pytest.raises(ValueError, match="Whitener: all rows of x are the same"):
        Whitener().fit(few[:1])


def test_what_rounding_of_the_data_made_is_no_direction(rng: np.random.Generator) -> None:
    x = rng.standard_normal((500, 2)).astype(np.float32) + np.float32(1000)
    x = np.column_stack([x, x[:, 0] + x[:, 1]])  # a sum in float32: its last digits are noise
    assert len(Whitener().fit(x).components_) == 2
    x[:, 2] += rng.standard_normal(500).astype(np.float32) * 0.01
    assert len(Whitener().fit(x).components_) == 3


def test_components_and_eps(rng: np.random.Generator) -> None:
    x = mixed(rng, 300, 5)
    whole, two = Whitener().fit(x), Whitener(components=2).fit(x)
    np.testing.assert_allclose(two.transform(x), whole.transform(x)[:, :2], rtol=1e-9, atol=1e-12)
    zca = Whitener("zca", components=2).fit(x)
    near = zca.inverse_transform(zca.transform(x)) - x.mean(axis=0)
    onto = two.components_.T @ two.components_
    np.testing.assert_allclose(near, (x - x.mean(axis=0)) @ onto, atol=1e-9)
    for method in ("pca", "zca"):
        soft = Whitener(method, eps=0.5).fit(x)
        z = soft.transform(x)
        s = soft.explained_variance_
        variances = np.sort(np.linalg.eigvalsh(np.cov(z, rowvar=False)))[::-1]
        np.testing.assert_allclose(variances, s / (s + 0.5), rtol=1e-9)
        np.testing.assert_allclose(soft.inverse_transform(z), x, rtol=1e-9, atol=1e-9)


@pytest.mark.peers
def test_whitener_beside_scikit_learn(rng: np.random.Generator) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = mixed(rng, 200, 5)
    theirs, mine = decomposition.PCA(3, whiten=True).fit(x), Whitener(components=3).fit(x)
    np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=1e-10)
    signs = np.sign((mine.components_ * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(mine.transform(x), theirs.transform(x) * signs, rtol=1e-8, atol=1e-9)


# --- both -----------------------------------------------------------------------------------------------------------------------

BOTH = [Standardizer, Whitener, lambda: Whitener("zca", eps=1e-3)]


@pytest.mark.parametrize("make", BOTH)
def test_results_where_they_are_wanted(make: Any, dtype: np.dtype, rng: np.random.Generator) -> None:
    x = mixed(rng, 3000, 50).astype(dtype)  # several blocks
    fitted = make().fit(x)
    z = fitted.transform(x)
    assert z.dtype == dtype
    assert_same_bits(fitted.fit_transform(x), z)
    out = np.empty_like(x)
    assert fitted.transform(x, out=out) is out
    assert_same_bits(out, z)
    strided = np.empty((3000, 100), dtype)[:, ::2]
    fitted.transform(x, out=strided)
    np.testing.assert_array_equal(strided, z)
    single = np.empty(x.shape, np.float32)
    np.testing.assert_array_equal(fitted.transform(x, out=single), z.astype(np.float32))
    in_place = x.copy()
    fitted.transform(in_place, out=in_place)
    assert_same_bits(in_place, z)
    fitted.inverse_transform(in_place, out=in_place)
    np.testing.assert_allclose(in_place, x, rtol=0, atol=1e4 * np.finfo(dtype).eps * np.abs(x).max())
    assert fitted.transform(x[:0]).shape == (0, 50)
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert_same_bits(again.transform(x), z)


@pytest.mark.parametrize("make", BOTH)
def test_memmaps_and_integers(make: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 256, (5000, 30)).astype(np.uint8)
    np.save(tmp_path / "x.npy", values)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    fitted = make().fit(stored)
    out = np.lib.format.open_memmap(tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=values.shape)
    fitted.transform(stored, out=out)
    np.testing.assert_array_equal(out, make().fit_transform(values))
    np.testing.assert_array_equal(out, make().fit(values.astype(np.float64)).transform(values))


def fitted(name: str) -> Any:
    x = np.random.default_rng(1).standard_normal((20, 4))
    if name == "channel":
        return Standardizer("channel").fit(x.reshape(5, 2, 2, 4))
    return Standardizer().fit(x) if name == "feature" else Whitener(components=3).fit(x)


X = np.arange(24.0).reshape(6, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Standardizer("row"), ValueError, "Standardizer: per is 'row', expected 'feature' or 'channel'"),
        (lambda: Whitener("lda"), ValueError, "Whitener: method is 'lda', expected 'pca' or 'zca'"),
        (lambda: Whitener(eps=-1.0), ValueError, "Whitener: eps is -1.0, expected a finite number of at least 0"),
        (lambda: Whitener(eps="x"), TypeError, "Whitener: eps is a str, expected a number"),
        (lambda: Whitener(components=0), ValueError, "Whitener: components is 0, expected at least 1"),
        (lambda: Whitener(components=1.5), TypeError, "Whitener: components is a float"),
        (lambda: Standardizer().fit(np.arange(3)), ValueError, r"Standardizer: x has shape \(3,\), expected \(n, features\)"),
        (lambda: Standardizer().fit(X[:0]), ValueError, r"Standardizer: x has shape \(0, 4\)"),
        (lambda: Standardizer().fit([["a"]]), TypeError, "Standardizer: x has dtype <U1, expected a real dtype"),
        (lambda: Standardizer().fit(np.ma.array(X)), TypeError, "Standardizer: x is a MaskedArray"),
        (lambda: Standardizer().fit(X * np.nan), ValueError, "Standardizer: column 0 of x has values from nan"),
        (lambda: Standardizer("channel").fit(X), ValueError, r"Standardizer: x has shape \(6, 4\), expected \(n, H, W\)"),
        (lambda: Whitener().fit(X.reshape(2, 3, 4)), ValueError, r"Whitener: x has shape \(2, 3, 4\), expected \(n, features\)"),
        (lambda: Whitener().fit(X + np.inf), ValueError, "Whitener: column 0 of x has values from inf"),
        (lambda: Standardizer().transform(X), ValueError, r"Standardizer: the statistics are not set, expected fit\(x\) before"),
        (lambda: Standardizer().inverse_transform(X), ValueError, "Standardizer: the statistics are not set"),
        (lambda: Whitener().transform(X), ValueError, r"Whitener: the directions are not set, expected fit\(x\) before"),
        (lambda: fitted("feature").transform(X[:, :3]), ValueError, r"Standardizer: x has shape \(6, 3\), expected \(n, 4\)"),
        (lambda: fitted("feature").transform(X[0]), ValueError, r"Standardizer: x has shape \(4,\), expected \(n, 4\)"),
        (lambda: fitted("channel").transform(X[None]), ValueError, r"x has shape \(1, 6, 4\), expected \(n, H, W, 4\)"),
        (lambda: fitted("whitener").transform(X[:, :3]), ValueError, r"Whitener: x has shape \(6, 3\), expected \(n, 4\)"),
        (lambda: fitted("whitener").inverse_transform(X), ValueError, r"Whitener: z has shape \(6, 4\), expected \(n, 3\)"),
        (lambda: fitted("feature").transform(X, out=X[1:]), ValueError, r"out has shape \(5, 4\), expected \(6, 4\)"),
        (lambda: fitted("feature").transform(X, out=[1]), TypeError, "out is a list, expected an array of float32 or float64"),
        (lambda: fitted("feature").transform(X, out=X.astype(int)), TypeError, "out is int64, expected an array of float32"),
        (lambda: fitted("feature").transform(X, out=np.broadcast_to(0.0, (6, 4))), ValueError, "out is read-only"),
        (lambda: fitted("feature").transform(X, out=X[::-1]), ValueError, "out overlaps x"),
    ],
)
def test_what_is_refused(call: Any, error: type[Exception], words: str) -> None:
    with untouched(X), pytest.raises(error, match=words):
        call()


def test_a_refused_fit_leaves_the_old_one() -> None:
    for name in ("feature", "whitener"):
        one = fitted(name)
        before = one.transform(X)
        with pytest.raises(ValueError):
            one.fit(X * np.nan)
        assert_same_bits(one.transform(X), before)
