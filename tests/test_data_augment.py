"""Augmentation: every transform against its formula in NumPy, its numbers against Philox, and what they depend on."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core
from trainstep.data.augment import (
    Cutout,
    Draws,
    GaussianNoise,
    HorizontalFlip,
    Mixup,
    RandomCrop,
    RandomRotation,
    RandomScale,
    Transform,
    VerticalFlip,
)

from .helpers import Array, assert_same_bits, eps, layouts, untouched

pytestmark = pytest.mark.one_level

MANY = 4000  # samples for shares and moments


def images(rng: np.random.Generator, n: int, *shape: int, dtype: object = "float32") -> Array:
    drawn = rng.standard_normal((n, *shape)) if np.dtype(dtype).kind == "f" else rng.integers(0, 100, (n, *shape))
    return drawn.astype(dtype)


ALL: dict[str, Transform] = {
    "HorizontalFlip": HorizontalFlip(),
    "VerticalFlip": VerticalFlip(0.25),
    "RandomCrop": RandomCrop((1, 3), fill=2),
    "RandomScale": RandomScale(0.5, 2.0, fill=1),
    "RandomRotation": RandomRotation(90, fill=-1),
    "Cutout": Cutout((2, 3), count=2, fill=5),
    "GaussianNoise": GaussianNoise(0.5),
}
MOVE_VALUES = ("HorizontalFlip", "VerticalFlip", "RandomCrop", "Cutout")
transforms = pytest.mark.parametrize("transform", ALL.values(), ids=ALL.keys())


# --- random numbers --------------------------------------------------------------------------------------------------------------


def words(sample: int, block: int, seed: int, epoch: int, place: int) -> tuple[int, int, int, int]:
    """Block `block` of a sample, by the counter that it has: purpose 4 in the lowest byte of the last word."""
    last = (sample >> 32) << 16 | place << 8 | 4
    return _core.philox4x32((block, sample % 2**32, epoch, last), (seed % 2**32, seed % 2**64 >> 32))


def unit(high: int, low: int) -> float:
    return (((high << 32 | low) >> 12) + 0.5) / 2**52


WHERE = [(0, 0, 0, 0), (7, 3, 1, 2), (2**48 - 1, 2**64 - 1, 2**32 - 1, 255), (2**32 + 5, -1, 0, 1)]


@pytest.mark.parametrize(("sample", "seed", "epoch", "place"), WHERE)
def test_uniform_numbers_are_philox(sample: int, seed: int, epoch: int, place: int) -> None:
    blocks = [words(sample, b, seed, epoch, place) for b in range(4)]
    expected = [u for w in blocks for u in (unit(*w[:2]), unit(*w[2:]))][:7]
    assert Draws([sample], seed, epoch, place).uniform(7)[0].tolist() == expected


@pytest.mark.parametrize(("sample", "seed", "epoch", "place"), WHERE)
def test_normal_numbers_are_box_and_mullers(sample: int, seed: int, epoch: int, place: int) -> None:
    """In groups of sixteen blocks: the first of each pair of words 0 and 1, the second ones, then words 2 and 3."""
    got = Draws([sample], seed, epoch, place).normal(150)[0]
    expected = []
    for group in range(3):
        rows = [words(sample, 2**31 + 16 * group + j, seed, epoch, place) for j in range(16)]
        for pair in (0, 2):
            radius = [math.sqrt(-2 * math.log(((w[pair] >> 1) + 0.5) / 2**31)) for w in rows]
            turns = [(w[pair + 1] >> 30) / 4 + ((w[pair + 1] & (2**30 - 1)) / 2**30 - 0.5) / 4 for w in rows]
            for part in (math.cos, math.sin):
                expected += [r * part(2 * math.pi * t) for r, t in zip(radius, turns, strict=True)]
    np.testing.assert_allclose(got, expected[:150], rtol=0, atol=4 * eps("float32"))


def test_the_smallest_and_the_largest_words() -> None:
    """Every power of two as a radius, by the logarithm's formula on words that no Philox block is asked for."""
    z = Draws(range(MANY), seed=11).normal(1000).ravel()
    assert np.isfinite(z).all()
    assert np.abs(z).max() < 6.67
    n = z.size
    # Four sigma of the mean, the variance and the fourth moment, which have variances 1/n, 2/n and 96/n.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 4 * math.sqrt(variance / n), power
    tail = np.count_nonzero(np.abs(z) > 3) / n
    expected = math.erfc(3 / math.sqrt(2))
    assert abs(tail - expected) < 4 * math.sqrt(expected / n)
    neighbours = z.reshape(MANY, 1000)
    assert abs((neighbours[:, :-1] * neighbours[:, 1:]).mean()) < 4 / math.sqrt(n)
    assert abs((neighbours[:-1] * neighbours[1:]).mean()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 0.5, 1.0, 3.0, 1e6])
def test_beta_numbers_have_their_moments(alpha: float) -> None:
    t = Draws(range(100 * MANY), seed=1)._beta(alpha)
    assert ((t >= 0) & (t <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    centred = t - 0.5
    # Of beta(a, a): the fourth central moment is 3 / (16 (2a + 1) (2a + 3)).
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(centred.mean()) < 4 * math.sqrt(variance / t.size)
    assert abs((centred**2).mean() - variance) < 4 * math.sqrt(max(fourth - variance**2, 1e-12 * variance) / t.size)
    if alpha == 1.0:
        counts = np.histogram(t, 20, (0, 1))[0]
        assert ((counts - t.size / 20) ** 2 / (t.size / 20)).sum() < 19 + 4 * math.sqrt(2 * 19)


def test_numbers_are_each_samples_own() -> None:
    together = Draws([5, 2, 9], 1, 2, 3)
    for k in (1, 2, 3, 64, 65, 200):
        for i, sample in enumerate((5, 2, 9)):
            alone = Draws([sample], 1, 2, 3)
            assert_same_bits(alone.uniform(k)[0], together.uniform(k)[i])
            assert_same_bits(alone.normal(k)[0], together.normal(k)[i])
            assert_same_bits(alone.uniform(1)[0], together.uniform(k)[i, :1])
            assert_same_bits(alone.normal(1)[0], together.normal(k)[i, :1])
    others = [Draws([6], 1, 2, 3), Draws([5], 2, 2, 3), Draws([5], 1, 3, 3), Draws([5], 1, 2, 4), Draws([5 + 2**32], 1, 2, 3)]
    drawn = {d.uniform(1).item() for d in (Draws([5], 1, 2, 3), *others)}
    assert len(drawn) == 6
    assert Draws([], 0).uniform(3).shape == (0, 3) if np.asarray([]).dtype.kind == "i" else True


# --- what all transforms have in common ------------------------------------------------------------------------------------------


@transforms
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (1, 1), (9, 1, 2)], ids=str)
def test_a_sample_alone_is_the_sample_in_a_batch(transform: Transform, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, y = images(rng, 17, *shape), np.arange(17)
    samples = rng.permutation(1000)[:17]
    with untouched(x, y):
        together, y_out = transform(x, y, Draws(samples, 3, 4, 5))
    assert y_out is y
    assert together.shape == x.shape
    for i in range(17):
        alone, _ = transform(x[i : i + 1], y[i : i + 1], Draws(samples[i : i + 1], 3, 4, 5))
        assert_same_bits(alone[0], together[i])
    order = rng.permutation(17)
    shuffled, _ = transform(x[order], y[order], Draws(samples[order], 3, 4, 5))
    assert_same_bits(shuffled, together[order])


@transforms
def test_threads_change_no_bit(transform: Transform, rng: np.random.Generator) -> None:
    x = images(rng, 200, 28, 28)
    results = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            results.append(transform(x, None, Draws(range(200), 1))[0])
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@transforms
@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i8", "f2", "f4", "f8"])
def test_dtypes(transform: Transform, dtype: str, rng: np.random.Generator) -> None:
    x = images(rng, 8, 6, 5, dtype=dtype)
    if dtype == "?" and type(transform).__name__ in MOVE_VALUES and getattr(transform, "fill", 0) not in (0, 1):
        transform = type(transform)(*(v for v in (getattr(transform, "padding", None), getattr(transform, "size", None)) if v))
    if dtype == "u1" and isinstance(transform, RandomRotation):
        assert transform.fill < 0  # of a result in float32
    got, _ = transform(x, None, Draws(range(8)))
    keeps = type(transform).__name__ in MOVE_VALUES
    assert got.dtype == (x.dtype if keeps else np.float64 if dtype == "f8" else np.float32)
    wide, _ = transform(x.astype("f8" if dtype == "f8" else "f4"), None, Draws(range(8)))
    assert_same_bits(got.astype(wide.dtype), wide)


@transforms
def test_layouts(transform: Transform, rng: np.random.Generator) -> None:
    x = images(rng, 6, 5, 4, 2)
    expected, _ = transform(x, None, Draws(range(6)))
    for name, other in layouts(x).items():
        if isinstance(other, np.ndarray):
            assert_same_bits(transform(other, None, Draws(range(6)))[0], expected, name)


@transforms
def test_no_rows(transform: Transform) -> None:
    got, _ = transform(np.empty((0, 4, 4)), None, Draws(np.arange(0)))
    assert got.shape == (0, 4, 4)


@pytest.mark.parametrize("transform", [*ALL.values(), Mixup(0.4, classes=3)], ids=[*ALL, "Mixup"])
def test_transforms_are_values(transform: Transform) -> None:
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert eval(repr(transform), {type(transform).__name__: type(transform)}) == transform
    assert hash(again) == hash(transform)


# --- flips, crops and holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flip", "axis"), [(HorizontalFlip, 2), (VerticalFlip, 1)])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_flips(flip: type[Any], axis: int, p: float, rng: np.random.Generator) -> None:
    x = images(rng, MANY, 3, 4, 2, dtype="u1")
    got, _ = flip(p)(x, None, Draws(range(MANY), seed=2))
    chosen = Draws(range(MANY), seed=2).uniform(1)[:, 0] < p
    mirrored = x[:, :, ::-1] if axis == 2 else x[:, ::-1]
    assert_same_bits(got, np.where(chosen[:, None, None, None], mirrored, x))
    assert abs(chosen.mean() - p) <= 4 * math.sqrt(p * (1 - p) / MANY)


@pytest.mark.parametrize(("shape", "padding"), [((5, 4), 0), ((5, 4), 2), ((6, 3, 3), (0, 5)), ((2, 2, 1), 4), ((3, 7), (1, 2))])
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_crops(shape: tuple[int, ...], padding: Any, dtype: str, rng: np.random.Generator) -> None:
    """Padded by NumPy and cut out at a place that the image tells: all places occur, the picture is that of one of them."""
    n = 400
    x = images(rng, n, *shape, dtype=dtype)
    down, right = padding if isinstance(padding, tuple) else (padding, padding)
    got, _ = RandomCrop(padding, fill=7)(x, None, Draws(range(n)))
    padded = np.pad(x, [(0, 0), (down, down), (right, right), *[(0, 0)] * (len(shape) - 2)], constant_values=7)
    u = Draws(range(n)).uniform(2)
    places = np.floor(u * [2 * down + 1, 2 * right + 1]).astype(int)
    for i, (r, c) in enumerate(places):
        assert_same_bits(got[i], padded[i, r : r + shape[0], c : c + shape[1]])
    counts = np.unique(places, axis=0, return_counts=True)[1]
    expected = n / ((2 * down + 1) * (2 * right + 1))
    assert len(counts) == (2 * down + 1) * (2 * right + 1)
    assert (np.abs(counts - expected) < 5 * math.sqrt(expected)).all()


def test_a_crop_may_leave_nothing(rng: np.random.Generator) -> None:
    down, right = np.array([9, -9, 0, 0, 3]), np.array([0, 0, 9, -9, -4])
    x = images(rng, 5, 3, 4, 2)
    got = _core.shift_images(x, down, right, np.array([1, 2], "f4"))
    assert_same_bits(got, np.broadcast_to(np.array([1, 2], "f4"), x.shape).copy())


def test_each_pixel_is_cut_out_as_often_as_another() -> None:
    n = 20_000
    got, _ = Cutout(1)(np.ones((n, 6, 7), "u1"), None, Draws(range(n)))
    assert (np.abs((got == 0).mean(axis=0) - 1 / 42) < 4.5 * math.sqrt(1 / 42 / n)).all()


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 1), ((2, 5), 3), (100, 1)])
def test_cutout(size: Any, count: int, rng: np.random.Generator) -> None:
    n, h, w = 200, 6, 7
    x = images(rng, n, h, w, 2)
    got, _ = Cutout(size, count, fill=9)(x, None, Draws(range(n), place=1))
    height, width = size if isinstance(size, tuple) else (size, size)
    u = Draws(range(n), place=1).uniform(2 * count)
    expected = x.copy()
    for i in range(n):
        for hole in range(count):
            r, c = int(u[i, 2 * hole] * h), int(u[i, 2 * hole + 1] * w)  # the middle, or the first pixel after it
            top, left = r - height // 2, c - width // 2
            expected[i, max(top, 0) : top + height, max(left, 0) : left + width] = 9
    assert_same_bits(got, expected)
    assert (got == 9).any(axis=(1, 2, 3)).all()


# --- scale and rotation ----------------------------------------------------------------------------------------------------------


def bilinear(image: Array, matrix: Array, fill: float) -> Array:
    """An image (height, width, channels) seen at matrix @ (place - centre) + centre, linear between pixels of a padded one."""
    h, w, _ = image.shape
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    place = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), axis=-1) - centre
    source = place @ matrix.T + centre
    # Pixel k weighs max(0, 1 - |distance|) in each direction: a hat function.
    rows, columns = np.arange(-1, h + 1), np.arange(-1, w + 1)
    row_weight = np.maximum(0, 1 - np.abs(source[..., 0, None] - rows))
    column_weight = np.maximum(0, 1 - np.abs(source[..., 1, None] - columns))
    padded = np.pad(image.astype(float), [(1, 1), (1, 1), (0, 0)], constant_values=fill)
    inside = np.einsum("rci,rcj,ijk->rck", row_weight, column_weight, padded)
    missing = 1 - row_weight.sum(axis=-1) * column_weight.sum(axis=-1)  # of what lies beyond the padding
    result: Array = inside + fill * missing[..., None]
    return result


def turned(angle: float, scale: float) -> Array:
    """Where (down, right) of a picture turned against the clock comes from: complex numbers with the real part to the right."""
    back = np.exp(-1j * angle) / scale

    def source(down: float, right: float) -> tuple[float, float]:
        z = (right - 1j * down) * back  # up is -down
        return -z.imag, z.real

    return np.array([source(1, 0), source(0, 1)]).T


@pytest.mark.parametrize("shape", [(7, 7, 1), (8, 5, 3), (1, 6, 1), (28, 28, 1)], ids=str)
@pytest.mark.parametrize("fill", [0.0, -2.5])
def test_warp(shape: tuple[int, ...], fill: float, dtype: np.dtype, rng: np.random.Generator) -> None:
    n = 12
    x = images(rng, n, *shape, dtype=dtype)
    angle, scale = rng.uniform(-4, 4, n), np.exp(rng.uniform(-2, 2, n))
    got = _core.warp(x, angle, scale, fill)
    expected = [bilinear(x[i], turned(angle[i], scale[i]), fill) for i in range(n)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=16 * eps(dtype) * max(np.abs(x).max(), abs(fill)) + 1e-13)


def test_warp_by_nothing_and_by_quarters(rng: np.random.Generator) -> None:
    x = images(rng, 4, 6, 6, 2)
    still = _core.warp(x, np.zeros(4), np.ones(4), 3.0)
    assert_same_bits(still, x)
    quarters = _core.warp(x, np.arange(4) * np.pi / 2, np.ones(4), 0.0)
    for k in range(4):
        np.testing.assert_allclose(quarters[k], np.rot90(x[k], k), atol=1e-6)  # against the clock, as NumPy's
    larger = _core.warp(np.ones((1, 5, 5, 1)), np.zeros(1), np.full(1, 1e300), 0.0)
    assert (larger == 1).all()
    smaller = _core.warp(np.ones((1, 4, 4, 1)), np.zeros(1), np.full(1, 1e-300), 0.0)
    assert (smaller == 0).all()


def test_a_plain_image_stays_plain() -> None:
    x = np.full((50, 9, 9), 0.1, "f4")
    got, _ = RandomRotation(45, fill=0.1)(x, None, Draws(range(50)))
    assert_same_bits(got, x)


def test_scales_and_angles_are_those_drawn(rng: np.random.Generator) -> None:
    x = images(rng, 30, 6, 6, 1, dtype="f8")
    u = Draws(range(30), 8, 1, 2).uniform(1)[:, 0]
    got, _ = RandomScale(0.5, 3.0, fill=1)(x, None, Draws(range(30), 8, 1, 2))
    expected = [bilinear(x[i], turned(0, 0.5 + 2.5 * u[i]), 1) for i in range(30)]
    np.testing.assert_allclose(got, expected, atol=1e-13)
    got, _ = RandomRotation(60, fill=1)(x, None, Draws(range(30), 8, 1, 2))
    expected = [bilinear(x[i], turned(math.radians(60) * (2 * u[i] - 1), 1), 1) for i in range(30)]
    np.testing.assert_allclose(got, expected, atol=1e-13)


# --- noise and mixtures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 2), (9, 9, 2)], ids=str)
def test_noise(shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> None:
    x = images(rng, 20, *shape, dtype=dtype)
    got, _ = GaussianNoise(0.3)(x, None, Draws(range(20), 4))
    z = Draws(range(20), 4).normal(math.prod(shape)).reshape(x.shape)
    np.testing.assert_allclose(got, x + 0.3 * z, rtol=0, atol=4 * eps(dtype) * 5)
    still, _ = GaussianNoise(0.0)(x, None, Draws(range(20)))
    assert_same_bits(still, x)


def partners(samples: list[int], draws: Draws) -> list[int]:
    """Each sample's partner is the one with the next larger third number; of the last the first."""
    by_number = [s for _, s in sorted(zip(draws.uniform(3)[:, 2].tolist(), samples, strict=True))]
    return [by_number[(by_number.index(s) + 1) % len(samples)] for s in samples]


@pytest.mark.parametrize("kind", ["labels", "rows", "numbers"])
def test_mixup(kind: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    x = images(rng, 40, 4, 3, dtype=dtype)
    labels = rng.integers(0, 5, 40)
    y = {"labels": labels.astype("u1"), "rows": np.eye(5)[labels], "numbers": rng.standard_normal(40).astype("f4")}[kind]
    draws = Draws(range(40), 6, 1)
    with untouched(x, y):
        got_x, got_y = Mixup(0.4, classes=5 if kind == "labels" else None)(x, y, draws)
    t, other = draws._beta(0.4), partners(list(range(40)), draws)
    rows = np.eye(5)[labels] if kind == "labels" else y
    for got, values in ((got_x, x), (got_y, rows)):
        share = t.reshape(-1, *[1] * (values.ndim - 1))
        np.testing.assert_allclose(got, share * values + (1 - share) * values[other], atol=8 * eps("float32"))
    assert got_x.dtype == dtype
    assert got_y.dtype == {"labels": dtype, "rows": np.dtype("f8"), "numbers": np.dtype("f4")}[kind]
    assert sorted(other) == list(range(40))  # each is a partner once, and none its own
    assert all(a != b for a, b in enumerate(other))
    if kind != "numbers":
        np.testing.assert_allclose(got_y.sum(axis=1), 1, rtol=0, atol=2 * eps(got_y.dtype))
        assert (got_y >= 0).all()


def test_mixup_depends_on_which_samples_are_there_and_not_on_their_order(rng: np.random.Generator) -> None:
    x, y = images(rng, 12, 4), np.arange(12)
    mix = Mixup(1.0, classes=12)
    order = rng.permutation(12)
    got_x, got_y = mix(x, y, Draws(y))
    shuffled_x, shuffled_y = mix(x[order], y[order], Draws(order))
    assert_same_bits(shuffled_x, got_x[order])
    assert_same_bits(shuffled_y, got_y[order])
    # Without one sample, only the one that had it for a partner has another.
    gone = 5
    fewer_x, _ = mix(np.delete(x, gone, 0), np.delete(y, gone), Draws(np.delete(y, gone)))
    changed = (fewer_x != np.delete(got_x, gone, 0)).any(axis=1)
    assert np.delete(y, gone)[changed].tolist() == [partners(list(range(12)), Draws(y)).index(gone)]
    alone_x, alone_y = mix(x[:1], y[:1], Draws([0]))
    assert_same_bits(alone_x, x[:1])
    assert alone_y.tolist() == [np.eye(12)[0].tolist()]


def test_a_network_learns_from_mixtures() -> None:
    x, y = ts.data.load_digits()
    trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.Dense(32, 10), seed=1))
    trainer.optimizer.lr = 1e-2
    batches = ts.data.Batches(x, y, 64, augment=[RandomCrop(1), Mixup(0.2, classes=10)], shape=(8, 8))
    trainer.fit(batches, epochs=12)
    assert trainer.evaluate(x, y)["accuracy"] > 0.85


# --- what is refused -------------------------------------------------------------------------------------------------------------

X = np.zeros((3, 4, 4))
D = Draws([0, 1, 2])
U1 = X.astype("u1")
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "p of 2": (lambda: HorizontalFlip(2.0), ValueError, "HorizontalFlip: p 2.0 from 0 to 1"),
    "p of text": (lambda: VerticalFlip("a"), TypeError, "VerticalFlip: p str"),
    "padding below 0": (lambda: RandomCrop(-1), ValueError, "RandomCrop: padding -1"),
    "padding float": (lambda: RandomCrop(1.5), TypeError, "RandomCrop: padding float"),
    "padding of three": (lambda: RandomCrop((1, 2, 3)), ValueError, "RandomCrop: padding (1, 2, 3) two"),
    "padding of a negative": (lambda: RandomCrop((1, -2)), ValueError, "RandomCrop: padding[1] -2"),
    "fill of text": (lambda: RandomCrop(1, "a"), TypeError, "RandomCrop: fill str"),
    "fill infinite": (lambda: RandomRotation(1, np.inf), ValueError, "RandomRotation: fill inf finite"),
    "fill too large": (lambda: RandomCrop(1, 256)(U1, None, D), ValueError, "RandomCrop: fill 256 uint8"),
    "fill of a half": (lambda: Cutout(1, fill=0.5)(U1, None, D), ValueError, "Cutout: fill 0.5 uint8"),
    "fill below 0": (lambda: Cutout(1, fill=-1)(U1, None, D), ValueError, "Cutout: fill -1 uint8"),
    "fill of two in bools": (lambda: Cutout(1, fill=2)(X > 0, None, D), ValueError, "Cutout: fill 2 bool"),
    "scale 0": (lambda: RandomScale(0, 1), ValueError, "RandomScale: low 0 above 0"),
    "scale upside down": (lambda: RandomScale(2, 1), ValueError, "RandomScale: high 1 at least 2"),
    "degrees negative": (lambda: RandomRotation(-5), ValueError, "RandomRotation: degrees -5"),
    "degrees text": (lambda: RandomRotation("5"), TypeError, "RandomRotation: degrees str"),
    "size 0": (lambda: Cutout(0), ValueError, "Cutout: size 0"),
    "size of a 0": (lambda: Cutout((1, 0)), ValueError, "Cutout: size[1] 0"),
    "no holes": (lambda: Cutout(1, 0), ValueError, "Cutout: count 0 1 to 1000"),
    "std negative": (lambda: GaussianNoise(-1), ValueError, "GaussianNoise: std -1"),
    "alpha 0": (lambda: Mixup(0), ValueError, "Mixup: alpha 0 above 0"),
    "no classes": (lambda: Mixup(1, classes=0), ValueError, "Mixup: classes 0"),
    "classes unknown": (lambda: Mixup(1)(X, np.arange(3), D), ValueError, "Mixup: classes None int64"),
    "label out of range": (lambda: Mixup(1, 2)(X, np.arange(3), D), ValueError, "Mixup: y[2] 2 expected 0 to 1"),
    "nothing to mix": (lambda: Mixup(1, 2)(X, None, D), ValueError, "Mixup: y None"),
    "y of another length": (lambda: Mixup(1, 2)(X, np.arange(2), D), ValueError, "Mixup: y 2 rows x 3"),
    "y of bools": (lambda: Mixup(1, 2)(X, np.ones(3, bool), D), TypeError, "Mixup: y bool"),
    "rows of columns": (
        lambda: HorizontalFlip()(X.reshape(3, 16), None, D),
        ValueError,
        "HorizontalFlip: x (3, 16) images shape Batches",
    ),
    "rank 5": (lambda: RandomCrop(1)(X[..., None, None], None, D), ValueError, "RandomCrop: x (3, 4, 4, 1, 1) images"),
    "no height": (lambda: RandomRotation(1)(X[:, :0], None, D), ValueError, "RandomRotation: x (3, 0, 4) images"),
    "complex": (lambda: HorizontalFlip()(X + 1j, None, D), TypeError, "HorizontalFlip: x complex128"),
    "objects": (lambda: RandomCrop(1)(X.astype(object), None, D), TypeError, "RandomCrop: x object"),
    "a list": (lambda: GaussianNoise(1)([[1.0]], None, D), TypeError, "GaussianNoise: x list"),
    "more rows than samples": (lambda: GaussianNoise(1)(np.zeros((4, 2)), None, D), ValueError, "GaussianNoise: x (4, 2) 3 rows"),
    "samples of floats": (lambda: Draws([0.5]), TypeError, "Draws: samples float64"),
    "samples of rank 2": (lambda: Draws([[0]]), ValueError, "Draws: samples (1, 1)"),
    "samples below 0": (lambda: Draws([-1]).uniform(1), ValueError, "samples -1 expected 0 to"),
    "samples of too many": (lambda: Draws([2**48]).normal(1), ValueError, "samples 281474976710656"),
    "seed of text": (lambda: Draws([0], "a"), TypeError, "Draws: seed str"),
    "epoch negative": (lambda: Draws([0], epoch=-1), ValueError, "Draws: epoch -1"),
    "place 256": (lambda: Draws([0], place=256), ValueError, "Draws: place 256 0 to 255"),
    "k negative": (lambda: D.uniform(-1), ValueError, "Draws.uniform: k -1"),
    "k of a float": (lambda: D.normal(1.0), TypeError, "Draws.normal: k float"),
}


@pytest.mark.parametrize(("call", "exception", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused(call: Callable[[], Any], exception: type[Exception], words: str) -> None:
    with untouched(X, U1), pytest.raises(exception) as caught:
        call()
    assert all(word in str(caught.value) for word in words.split()), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.warp(X[..., None], np.zeros(2), np.ones(3), 0.0),
        lambda: _core.warp(X, np.zeros(3), np.ones(3), 0.0),
        lambda: _core.shift_images(X, [0] * 3, [0] * 3, np.zeros(1)),
        lambda: _core.shift_images(X[..., None], np.zeros(2, int), np.zeros(3, int), np.zeros(1)),
        lambda: _core.shift_images(X[..., None], np.zeros(3, int), np.zeros(3, int), np.zeros(1, "f4")),
        lambda: _core.shift_images(X[..., None], np.zeros(3, int), np.zeros(3, int), np.zeros(2)),
        lambda: _core.sample_noise(X, np.zeros(2, int), 1.0, 0, 0, 0),
        lambda: _core.sample_uniform(np.zeros((2, 2), int), 1, 0, 0, 0),
    ],
)
def test_the_core_guards_its_memory(call: Callable[[], Any]) -> None:
    with untouched(X), pytest.raises(ValueError, match="shape|fill"):
        call()
