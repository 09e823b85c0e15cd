"""Initial weights: what is drawn, element by element and as a distribution; what a layer takes; what the choice does to a net."""

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, init, optim
from trainstep.nn import Dense, Sequential

from .helpers import Array, assert_same_bits, classes, output_of

pytestmark = pytest.mark.one_level  # no kernel of a level is in it

SHAPE = (120, 80)
# Every initialiser, with parameters where it has no defaults.
ALL: dict[str, Callable[..., Array]] = init.INITIALIZERS | {"constant": init.constant(0.5), "uniform": init.uniform(-1, 2)}
RANDOM = sorted(set(ALL) - {"zeros", "ones", "constant", "identity"})


def words(n: int, seed: int) -> Array:
    """n uniform numbers in (0, 1) of Philox under a seed, from its words."""
    blocks = [_core.philox4x32((i, 0, 0, 0), (seed & 0xFFFFFFFF, seed >> 32)) for i in range((n + 1) // 2)]
    high, low = np.array(blocks, np.uint64).reshape(-1, 2).T
    return ((((high << np.uint64(32)) | low) >> np.uint64(12)).astype(float)[:n] + 0.5) / 2**52


def standard_normal(n: int, seed: int) -> Array:
    """Box and Muller's pairs of those."""
    u = words(n + n % 2, seed).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:n]


# What each is, by its formula: a standard deviation, or a bound, as a function of the fans.
NORMALS: list[tuple[str, Callable[..., Array], Callable[[int, int], float]]] = [
    ("normal", init.normal, lambda i, o: 0.01),
    ("normal of 0.3", init.normal(std=0.3), lambda i, o: 0.3),
    ("he", init.he_normal, lambda i, o: math.sqrt(2 / i)),
    ("he of gain 0.5", init.he_normal(gain=0.5), lambda i, o: 0.5 / math.sqrt(i)),
    ("kaiming", init.kaiming_normal, lambda i, o: math.sqrt(2 / i)),
    ("xavier", init.xavier_normal, lambda i, o: math.sqrt(2 / (i + o))),
    ("xavier of gain 5/3", init.xavier_normal(gain=5 / 3), lambda i, o: 5 / 3 * math.sqrt(2 / (i + o))),
    ("glorot", init.glorot_normal, lambda i, o: math.sqrt(2 / (i + o))),
    ("lecun", init.lecun_normal, lambda i, o: 1 / math.sqrt(i)),
    ("lecun of gain 2", init.lecun_normal(gain=2), lambda i, o: 2 / math.sqrt(i)),
    ("inverse sqrt", init.inverse_sqrt_normal, lambda i, o: 1 / math.sqrt(i)),
]
UNIFORMS: list[tuple[str, Callable[..., Array], Callable[[int, int], float]]] = [
    ("uniform", init.uniform(-0.25, 0.25), lambda i, o: 0.25),
    ("he", init.he_uniform, lambda i, o: math.sqrt(6 / i)),
    ("he of gain 0.5", init.he_uniform(gain=0.5), lambda i, o: 0.5 * math.sqrt(3 / i)),
    ("kaiming", init.kaiming_uniform, lambda i, o: math.sqrt(6 / i)),
    ("xavier", init.xavier_uniform, lambda i, o: math.sqrt(6 / (i + o))),
    ("xavier of gain 5/3", init.xavier_uniform(gain=5 / 3), lambda i, o: 5 / 3 * math.sqrt(6 / (i + o))),
    ("glorot", init.glorot_uniform, lambda i, o: math.sqrt(6 / (i + o))),
    ("lecun", init.lecun_uniform, lambda i, o: math.sqrt(3 / i)),
    ("inverse sqrt", init.inverse_sqrt_uniform, lambda i, o: 1 / math.sqrt(i)),
]


def named(rows: list[tuple[str, Any, Any]]) -> Any:
    return pytest.mark.parametrize(("f", "size"), [row[1:] for row in rows], ids=[row[0] for row in rows])


# --- what is drawn -------------------------------------------------------------------------------------------------------------


@named(NORMALS)
def test_normals_are_philox_times_the_deviation(f: Any, size: Any, dtype: np.dtype) -> None:
    for shape in ((1, 1), (3, 5), (17, 4), (64, 33)):
        expected = size(*shape) * standard_normal(shape[0] * shape[1], 11).reshape(shape)
        w = f(shape, rng=11, dtype=dtype)
        np.testing.assert_allclose(w, expected, rtol=2 * np.finfo(dtype).eps, atol=2e-15 * size(*shape))


@named(UNIFORMS)
def test_uniforms_are_philox_between_the_bounds(f: Any, size: Any, dtype: np.dtype) -> None:
    for shape in ((1, 1), (3, 5), (17, 4), (64, 33)):
        expected = size(*shape) * (2 * words(shape[0] * shape[1], 11).reshape(shape) - 1)
        w = f(shape, rng=11, dtype=dtype)
        np.testing.assert_allclose(w, expected, rtol=2 * np.finfo(dtype).eps, atol=1e-15 * size(*shape))


def assert_moments(w: Array, mean: float, std: float, kurtosis: float) -> None:
    """Mean and variance within 4 of their own standard deviations."""
    w = np.asarray(w, float)
    assert abs(w.mean() - mean) < 4 * std / math.sqrt(w.size)
    assert abs(w.var() / std**2 - 1) < 4 * math.sqrt((kurtosis - 1) / w.size)


@named(NORMALS)
def test_moments_of_normals(f: Any, size: Any) -> None:
    w = f(SHAPE, rng=3)
    assert_moments(w, 0, size(*SHAPE), 3)
    assert 3 < np.abs(w).max() / size(*SHAPE) < 6


@named(UNIFORMS)
def test_moments_of_uniforms(f: Any, size: Any) -> None:
    w, limit = f(SHAPE, rng=3), size(*SHAPE)
    assert_moments(w, 0, limit / math.sqrt(3), 1.8)
    assert 0.999 * limit < np.abs(w).max() <= limit * (1 + 1e-7)


def test_a_uniform_that_is_not_symmetric() -> None:
    w = init.uniform(2, 5)(SHAPE, rng=3, dtype="float64")
    assert_moments(w, 3.5, 3 / math.sqrt(12), 1.8)
    assert 2 < w.min() < 2.001
    assert 4.999 < w.max() < 5
    assert_same_bits(init.uniform(low=2, high=5)(SHAPE, rng=3, dtype="float64"), w)
    assert_same_bits(init.uniform(SHAPE, rng=3, dtype="float64", low=2, high=5), w)


def test_constants(dtype: np.dtype) -> None:
    for shape in ((), (0,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)):
        for f, value in ((init.zeros, 0), (init.ones, 1), (init.constant(-2.5), -2.5), (init.constant(7), 7)):
            assert_same_bits(f(shape, dtype=dtype), np.full(shape, value, dtype))
            assert_same_bits(f(shape, rng=3, dtype=dtype), np.full(shape, value, dtype))


def test_identity(dtype: np.dtype) -> None:
    for shape in ((1, 1), (4, 4), (3, 7), (7, 3), (1, 5), (5, 1)):
        assert_same_bits(init.identity(shape, dtype=dtype), np.eye(*shape, dtype=dtype))
        assert_same_bits(init.identity(gain=0.5)(shape, rng=1, dtype=dtype), np.eye(*shape, dtype=dtype) / 2)
    x = np.random.default_rng(0).standard_normal((5, 6))
    model = Sequential(*[Dense(6, 6, init="identity") for _ in range(3)], dtype="float64")
    np.testing.assert_array_equal(model(x), x)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4, 5), (0, 3)])
@pytest.mark.parametrize("name", ["normal", "uniform", "truncated_normal"])
def test_what_has_no_fans_takes_any_shape(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    w = ALL[name](shape, rng=5, dtype=dtype)
    assert (w.shape, w.dtype) == (shape, dtype)
    flat = ALL[name]((math.prod(shape),), rng=5, dtype=dtype)
    assert_same_bits(w.ravel(), flat)


# --- truncated normal ----------------------------------------------------------------------------------------------------------


def density(low: float, high: float) -> tuple[Array, Array]:
    """The truncated normal distribution at the middles of many steps: places and shares of the whole, by the midpoint rule."""
    edges = np.linspace(low, high, 100_001)
    z = (edges[1:] + edges[:-1]) / 2
    share = np.exp(-z * z / 2)
    return z, share / share.sum()


BOUNDS = [(-2.0, 2.0), (-1.0, 1.0), (-0.5, 3.0), (0.0, 2.0), (-8.0, 8.0), (0.5, 0.55), (1.5, 2.5)]


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_truncated_normal(low: float, high: float, corrected: bool, dtype: np.dtype) -> None:
    z, share = density(low, high)
    mean = (z * share).sum()
    deviation = math.sqrt(((z - mean) ** 2 * share).sum())
    kurtosis = ((z - mean) ** 4 * share).sum() / deviation**4
    scale = 0.3 / deviation if corrected else 0.3
    w = init.truncated_normal(0.3, low, high, corrected=corrected)((200, 100), rng=6, dtype=dtype)
    rounding = 1e-6 * scale
    assert scale * low - rounding <= w.min() <= w.max() <= scale * high + rounding
    if high < 3:
        assert w.max() > scale * (high - 0.1 * (high - low))
    if low > -3:
        assert w.min() < scale * (low + 0.1 * (high - low))
    assert_moments(w, scale * mean, scale * deviation, kurtosis)
    if corrected:
        assert_moments(w - scale * mean, 0, 0.3, kurtosis)
    # The whole distribution (Kolmogorov and Smirnov): 1.95 is exceeded once in a thousand seeds.
    ordered = np.sort(np.asarray(w, float).ravel() / scale)
    below = np.interp(ordered, z, np.cumsum(share))
    assert np.abs(below - (np.arange(w.size) + 0.5) / w.size).max() * math.sqrt(w.size) < 1.95


def test_the_truncated_normal_redraws_only_what_is_outside() -> None:
    z = init.normal(1.0)(SHAPE, rng=8, dtype="float64")
    w = init.truncated_normal(1.0)(SHAPE, rng=8, dtype="float64")
    inside = np.abs(z) <= 2
    assert 0.03 < 1 - inside.mean() < 0.06  # 4.55% are outside
    np.testing.assert_array_equal(w[inside], z[inside])
    assert len(np.unique(w)) == w.size
    assert_same_bits(init.truncated_normal(0.01)(SHAPE, rng=8, dtype="float64"), 0.01 * w)


def test_the_standard_deviation_at_the_usual_bounds() -> None:
    """0.87962566103423978, a constant of Keras and JAX."""
    plain, corrected = (init.truncated_normal(1.0, corrected=c)((50, 50), rng=1, dtype="float64") for c in (False, True))
    np.testing.assert_allclose(plain / corrected, 0.87962566103423978, rtol=1e-14)


# --- orthogonal ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2), 0.1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (32, 32), (50, 17), (17, 50), (130, 130)], ids=str)
def test_orthogonal(shape: tuple[int, int], gain: float, dtype: np.dtype) -> None:
    w = init.orthogonal(shape, rng=2, gain=gain, dtype=dtype)
    assert (w.shape, w.dtype) == (shape, dtype)
    assert w.flags.c_contiguous
    wide = np.asarray(w, float)
    product = wide.T @ wide if shape[0] >= shape[1] else wide @ wide.T
    np.testing.assert_allclose(product, gain**2 * np.eye(min(shape)), atol=20 * gain**2 * np.finfo(dtype).eps)
    x = np.random.default_rng(0).standard_normal((4, shape[0]))
    if shape[0] <= shape[1]:
        np.testing.assert_allclose(np.linalg.norm(x @ wide, axis=1), gain * np.linalg.norm(x, axis=1), rtol=1e-5)


def test_orthogonal_matrices_are_equally_likely() -> None:
    """Without the signs of R, LAPACK's Q has a diagonal that is mostly negative, and a (1, 1) is always 1."""
    drawn = np.array([init.orthogonal((3, 3), rng=seed, dtype="float64") for seed in range(600)])
    assert np.abs(drawn.mean(axis=0)).max() < 4 / math.sqrt(3 * 600)  # an element has mean 0 and variance 1/3
    assert np.abs((drawn**2).mean(axis=0) - 1 / 3).max() < 4 * math.sqrt(4 / 45 / 600)  # and is uniform
    assert 0.4 < (np.linalg.det(drawn) > 0).mean() < 0.6
    signs = {init.orthogonal((1, 1), rng=seed).item() for seed in range(20)}
    assert signs == {-1.0, 1.0}


# --- sparse --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fan_in", "sparsity", "zeros"),
    [
        (10, 0.9, 9),
        (100, 0.07, 7),  # 0.07 * 100 > 7
        (100, 0.071, 8),
        (30, 0.0, 0),
        (30, 0.5, 15),
        (7, 0.5, 4),
        (5, 0.99, 4),  # one stays
        (1, 0.9, 0),
        (64, 0.1, 7),
    ],
)
def test_sparse_counts(fan_in: int, sparsity: float, zeros: int, dtype: np.dtype) -> None:
    w = init.sparse(sparsity, std=0.2)((fan_in, 40), rng=4, dtype=dtype)
    np.testing.assert_array_equal((w == 0).sum(axis=0), zeros)
    dense = init.normal(0.2)((fan_in, 40), rng=4, dtype=dtype)
    np.testing.assert_array_equal(w[w != 0], dense[w != 0])


def test_sparse_chooses_at_random() -> None:
    w = init.sparse((40, 3000), rng=4, sparsity=0.75)
    share = (w == 0).mean(axis=1)
    assert np.abs(share - 0.75).max() < 4 * math.sqrt(0.75 * 0.25 / 3000)
    assert len({column.tobytes() for column in (w == 0).T}) == 3000
    assert abs(np.corrcoef(w[0] == 0, w[1] == 0)[0, 1] + 1 / 39) < 4 / math.sqrt(3000)  # one fewer place for the other
    assert_moments(w[w != 0], 0, 0.01, 3)


# --- seeds, dtypes, threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides(name: str, dtype: np.dtype) -> None:
    f = ALL[name]
    w = f(SHAPE, rng=7, dtype=dtype)
    assert (w.shape, w.dtype) == (SHAPE, dtype)
    for same in (7, np.int64(7), 7 - 2**64, 7 + 2**64):
        assert_same_bits(f(list(SHAPE), rng=same, dtype=dtype.name), w)
    for other in (8, -7, 7 + 2**32, 7 + 2**63):
        assert (f(SHAPE, rng=other, dtype=dtype) == w).mean() < (0.9 if name == "sparse" else 0.01)


@pytest.mark.parametrize("name", RANDOM)
def test_a_generator_gives_the_seed(name: str) -> None:
    f, generator, twin = ALL[name], np.random.default_rng(5), np.random.default_rng(5)
    first, second = f(SHAPE, rng=generator), f(SHAPE, rng=generator)
    assert_same_bits(first, f(SHAPE, rng=int(twin.integers(0, 2**64, dtype=np.uint64))))
    assert_same_bits(second, f(SHAPE, rng=int(twin.integers(0, 2**64, dtype=np.uint64))))
    assert (first != second).any()


@pytest.mark.parametrize("name", sorted(ALL))
def test_float32_is_float64_rounded(name: str) -> None:
    wide = ALL[name](SHAPE, rng=9, dtype="float64")
    assert_same_bits(ALL[name](SHAPE, rng=9), wide.astype("float32"))


@pytest.mark.parametrize("name", sorted(ALL))
def test_threads_give_the_same_bits(name: str, dtype: np.dtype) -> None:
    shape = (90, 1001)
    drawn = []
    _core.share_always(True)
    try:
        for n in (1, 2, 3):
            with ts.num_threads(n):
                drawn.append(ALL[name](shape, rng=1, dtype=dtype))
    finally:
        _core.share_always(False)
    for w in drawn[1:]:
        assert_same_bits(w, drawn[0])


def test_levels_give_the_same_bits() -> None:
    code = (
        "import hashlib\nfrom trainstep import init\n"
        "for name, f in sorted(init.INITIALIZERS.items()):\n"
        "    print(name, hashlib.sha256(f((65, 33), rng=3).tobytes()).hexdigest())"
    )
    default, *others = {level: output_of(code, {"TRAINSTEP_ISA": level}) for level in ts.config()["isa_supported"]}.values()
    assert len(default.splitlines()) == len(init.INITIALIZERS)
    assert all(other == default for other in others)


# --- gain ----------------------------------------------------------------------------------------------------------------------


def test_gains_of_the_field() -> None:
    for name in (None, "linear", "identity", "sigmoid", "softmax", "log_softmax"):
        assert init.gain(name) == 1
    assert init.gain("tanh") == 5 / 3
    assert init.gain("relu") == math.sqrt(2)
    assert init.gain("leaky_relu") == math.sqrt(2 / 1.0001)
    assert init.gain("leaky_relu", 0.2) == init.gain("leaky_relu", negative_slope=-0.2) == math.sqrt(2 / 1.04)
    assert init.gain("leaky_relu", 0) == init.gain("relu")
    assert init.gain("leaky_relu", 1) == init.gain("identity")
    assert init.gain("selu") == 3 / 4


def test_there_is_a_gain_for_every_activation() -> None:
    assert all(init.gain(name) > 0 for name in _core.activations)


Z, SHARE = density(-12.0, 12.0)
FORMULAS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "gelu": lambda z: z * (1 + np.array([math.erf(v / math.sqrt(2)) for v in z])) / 2,
    "gelu_tanh": lambda z: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.logaddexp(0, z),
    "hardtanh": lambda z: np.clip(z, -1, 1),
    "hardsigmoid": lambda z: np.clip(z / 6 + 1 / 2, 0, 1),
    "hardswish": lambda z: z * np.clip(z / 6 + 1 / 2, 0, 1),
    "mish": lambda z: z * np.tanh(np.logaddexp(0, z)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_gain_keeps_the_second_moment(name: str) -> None:
    second_moment = (FORMULAS[name](Z) ** 2 * SHARE).sum()
    assert init.gain(name) ** 2 * second_moment == pytest.approx(1, abs=1e-5)


def test_every_gain_is_checked() -> None:
    fixed = {None, "linear", "identity", "sigmoid", "softmax", "log_softmax", "tanh", "selu"}
    assert set(init._GAINS) | {"leaky_relu"} == fixed | set(FORMULAS)


def test_the_gain_of_an_initialiser_is_a_factor() -> None:
    for name in ("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "lecun_uniform", "orthogonal"):
        f, usual = ALL[name], math.sqrt(2) if name.startswith("he") else 1.0
        w = f(SHAPE, rng=2, dtype="float64")
        assert_same_bits(f(SHAPE, rng=2, dtype="float64", gain=usual), w)
        np.testing.assert_allclose(f(SHAPE, rng=2, dtype="float64", gain=3 * usual), 3 * w, rtol=1e-14, atol=1e-16)
    assert_same_bits(init.he_normal(SHAPE, rng=2, gain=init.gain("relu")), init.he_normal(SHAPE, rng=2))
    np.testing.assert_allclose(init.he_normal(SHAPE, rng=2, gain=1), init.lecun_normal(SHAPE, rng=2), rtol=1e-6)
    assert_same_bits(init.inverse_sqrt_normal(SHAPE, rng=2), init.lecun_normal(SHAPE, rng=2))


def test_the_initialiser_of_an_activation() -> None:
    for name in (None, *_core.activations):
        like_relu = name in ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "hardswish", "mish")
        expected = init.he_normal if like_relu else init.lecun_normal if name == "selu" else init.xavier_uniform
        assert init.for_activation(name) is expected


# --- names and parameters ------------------------------------------------------------------------------------------------------


def test_every_initialiser_can_be_named() -> None:
    others = {"for_activation", "gain"}
    assert set(init.__all__) == set(init.INITIALIZERS) | set(init.WITHOUT_DEFAULTS) | others
    assert set(init.WITHOUT_DEFAULTS) == {"constant", "uniform"}
    for name, f in (init.INITIALIZERS | init.WITHOUT_DEFAULTS).items():
        assert getattr(init, name) is f


@pytest.mark.parametrize("name", sorted(init.INITIALIZERS))
def test_a_name_has_the_defaults(name: str) -> None:
    model = Sequential(Dense(8, 6, init=name), Dense(6, 3), seed=4)
    w = model.parameters()["0.weight"]
    again = Sequential(Dense(8, 6, init=copy.copy(name)), Dense(6, 3), seed=4)
    assert_same_bits(again.parameters()["0.weight"], w)
    f = init.INITIALIZERS[name]
    assert_same_bits(f()((8, 6), rng=1), f((8, 6), rng=1))
    assert_same_bits(f()(shape=(8, 6), rng=1), f(shape=(8, 6), rng=1))
    if name not in ("zeros", "ones"):
        assert_same_bits(Sequential(Dense(8, 6, init=f), Dense(6, 3), seed=4).parameters()["0.weight"], w)
        assert_same_bits(Sequential(Dense(8, 6, init=f()), Dense(6, 3), seed=4).parameters()["0.weight"], w)


def test_parameters_are_seen() -> None:
    def weight(f: object) -> Array:
        return Sequential(Dense(40, 30, init=f), Dense(30, 3), seed=4, dtype="float64").parameters()["0.weight"]

    np.testing.assert_allclose(weight(init.normal(std=0.02)), 2 * weight("normal"), rtol=1e-15)
    np.testing.assert_allclose(weight(init.normal(0.02)), 2 * weight("normal"), rtol=1e-15)
    np.testing.assert_allclose(weight(init.truncated_normal(0.02)), 2 * weight("truncated_normal"), rtol=1e-15)
    np.testing.assert_allclose(weight(init.orthogonal(gain=2)), 2 * weight("orthogonal"), rtol=1e-15)
    np.testing.assert_array_equal(weight(init.identity(gain=2)), 2 * weight("identity"))
    assert ((weight(init.sparse(0.5)) == 0).sum(axis=0) == 20).all()
    assert np.abs(weight(init.truncated_normal(1, -0.5, 0.5))).max() <= 0.5


def test_initialisers_with_parameters_are_values() -> None:
    assert init.normal() == init.normal(0.01) == init.normal(std=np.float64(0.01)) != init.normal(0.02)
    assert init.normal(2) == init.normal(2.0)
    assert hash(init.normal()) == hash(init.normal(0.01))
    assert init.he_normal(gain=1) != init.lecun_normal(gain=1)
    assert repr(init.uniform(-1, high=2)) == "init.uniform(low=-1, high=2)"
    assert repr(init.normal(np.float32(0.5))) == "init.normal(std=0.5)"
    layer = Dense(4, 3, init=init.orthogonal(gain=2.0), bias_init=init.constant(0.01))
    assert repr(layer) == "Dense(4, 3, init=init.orthogonal(gain=2.0), bias_init=init.constant(c=0.01))"
    assert eval(repr(layer), {"Dense": Dense, "init": init}) == layer  # noqa: S307
    assert repr(Dense(4, 3, init=init.he_normal)) == "Dense(4, 3, init=init.he_normal)"
    assert hash(layer) == hash(Dense(4, 3, init=init.orthogonal(gain=2), bias_init=init.constant(0.01)))
    model = Sequential(layer, seed=3)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.layers == model.layers
        assert_same_bits(again.parameters()["0.weight"], model.parameters()["0.weight"])


@pytest.mark.parametrize("name", ["zeros", "ones", "normal", "truncated_normal"])
def test_biases_by_name(name: str) -> None:
    bias = Sequential(Dense(8, 6, bias_init=name), Dense(6, 3), seed=4).parameters()["0.bias"]
    assert bias.shape == (6,)
    assert {"zeros": (bias == 0).all(), "ones": (bias == 1).all()}.get(name, len(set(bias.tolist())) == 6)


def test_biases_of_one_number() -> None:
    layers = [Dense(8, 6, activation="relu", bias_init=init.constant(0.01)), Dense(6, 3, bias_init=init.ones)]
    parameters = Sequential(*layers, dtype="float64").parameters()
    np.testing.assert_array_equal(parameters["0.bias"], np.full(6, 0.01))
    np.testing.assert_array_equal(parameters["1.bias"], np.ones(3))


# --- constant weights ----------------------------------------------------------------------------------------------------------


def shown(f: Any) -> str:
    return getattr(f, "__name__", repr(f))


CONSTANTS = [init.zeros, init.ones, init.zeros(), init.ones(), init.constant(0.1)]


@pytest.mark.parametrize("f", CONSTANTS, ids=shown)
def test_constant_weights_of_hidden_units_are_refused(f: Callable[..., Array]) -> None:
    for layers in (
        [Dense(4, 8, init=f), Dense(8, 3)],
        [Dense(4, 8), Dense(8, 8, init=f), Dense(8, 3)],
        [ts.nn.Standardize(4), Dense(4, 8, init=f), Dense(8, 3, init=f)],
    ):
        at = next(i for i, layer in enumerate(layers) if isinstance(layer, Dense) and layer.init is f)
        with pytest.raises(ValueError, match=rf"Sequential: layer {at} is Dense\(.*the 8 units .*identical.*init='zeros'"):
            Sequential(*layers)


@pytest.mark.parametrize("f", [*CONSTANTS, "zeros", "ones"], ids=shown)
def test_constant_weights_elsewhere_are_not(f: Any) -> None:
    for last in (0, 1, 2):
        model = Sequential(*[Dense(4, 4) for _ in range(last)], Dense(4, 3, init=f))
        assert np.ptp(model.parameters()[f"{last}.weight"]) == 0
    Sequential(Dense(4, 1, init=f), Dense(1, 3))  # one unit has no other to be like


@pytest.mark.parametrize(("name", "value"), [("zeros", 0), ("ones", 1)])
def test_constant_weights_by_name(name: str, value: float) -> None:
    model = Sequential(Dense(4, 8, init=name), Dense(8, 8, init=name), Dense(8, 3, init=name))
    assert all((w == value).all() for key, w in model.parameters().items() if key.endswith("weight"))


# --- what the choice does to a network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_hidden_units_that_start_alike_stay_identical(name: str) -> None:
    """Two hidden layers of eight and six units train, and are one unit each, eight and six times."""
    x, y = classes(60, 5, 4, "float64")

    def trained(first: str | None, others: str | None) -> tuple[Array, Array, float]:
        layers = Dense(5, 8, "sigmoid", first), Dense(8, 6, "sigmoid", others), Dense(6, 4, None, others)
        model = Sequential(*layers, dtype="float64", seed=1)
        before = {key: w.copy() for key, w in model.parameters().items()}
        trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.05))
        loss = trainer.fit(x, y, epochs=40, batch_size=20).history["loss"][-1]
        parameters = model.parameters()
        if name == "ones" or first is None:
            assert all(np.abs(w - before[key]).max() > 0.01 for key, w in parameters.items())
        return parameters["0.weight"], parameters["1.weight"], loss

    w0, w1, alike = trained(name, name)
    for w in (w0, w1):
        assert (w == w[:, :1]).all(), "the columns of identical units"
    w0, w1, random = trained(None, None)
    for w in (w0, w1):
        assert min(np.abs(a - b).max() for a, b in itertools.combinations(w.T, 2)) > 0.1
    assert random < 0.7 * alike


def thirty_layers(activation: str, f: object, width: int = 256) -> tuple[list[Array], list[float]]:
    """Thirty layers on standard normal input: what each gives its activation, in NumPy, and the second moment of that."""
    model = Sequential(*[Dense(width, width, activation=activation, init=f) for _ in range(30)], seed=1, dtype="float64")
    weights = [w for name, w in model.parameters().items() if name.endswith("weight")]
    y, zs = np.random.default_rng(0).standard_normal((32, width)), []
    for w in weights:
        zs.append(y @ w)
        y = np.maximum(zs[-1], 0) if activation == "relu" else np.tanh(zs[-1])
    return zs, [float(np.mean(z * z)) for z in zs]


def saturated(zs: list[Array]) -> list[float]:
    """The share of each layer's tanh units that pass on a twentieth of the gradient, or less."""
    return [float(np.mean(1 - np.tanh(z) ** 2 <= 0.05)) for z in zs]


@pytest.mark.parametrize(
    ("activation", "f"),
    [
        ("relu", None),
        ("relu", "he_normal"),
        ("relu", "he_uniform"),
        ("relu", init.orthogonal(gain=init.gain("relu"))),
        ("tanh", init.xavier_normal(gain=init.gain("tanh"))),
        ("tanh", init.xavier_uniform(gain=init.gain("tanh"))),
        ("tanh", init.orthogonal(gain=init.gain("tanh"))),
    ],
    ids=str,
)
def test_thirty_layers_keep_the_second_moment(activation: str, f: object) -> None:
    _, moments = thirty_layers(activation, f)
    ratios = [b / a for a, b in itertools.pairwise(moments)]
    assert 0.5 < min(ratios) <= max(ratios) < 2
    assert 0.1 < moments[-1] / moments[0] < 10


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_small_weights_make_the_signal_vanish(activation: str) -> None:
    _, moments = thirty_layers(activation, init.normal(std=0.01))
    assert moments[-1] < 1e-6
    assert all(b < 0.1 * a for a, b in itertools.pairwise(moments))


def test_large_weights_saturate_tanh() -> None:
    zs, _ = thirty_layers("tanh", init.normal(std=1.0), width=512)
    assert min(saturated(zs)) > 0.9
    zs, _ = thirty_layers("tanh", init.xavier_normal(gain=init.gain("tanh")))
    assert max(saturated(zs)) < 0.25


def test_the_gradient_vanishes_with_the_signal() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((64, 128)), rng.standard_normal((64, 128))

    def passed_on(f: object) -> float:
        model = Sequential(*[Dense(128, 128, activation="tanh", init=f) for _ in range(30)], seed=1, dtype="float64")
        model.forward(x, training=True)
        return float(np.mean(model.backward(dy) ** 2) / np.mean(dy**2))

    assert passed_on(init.normal(std=0.01)) < 1e-40
    assert 1e-3 < passed_on(init.xavier_normal(gain=init.gain("tanh"))) < 1e3


@pytest.mark.parametrize("count", [2, 3, 10, 100])
@pytest.mark.parametrize("f", ["zeros", "normal", init.constant(0.3)], ids=str)
def test_the_initial_loss_is_the_log_of_the_number_of_classes(f: Any, count: int) -> None:
    """Where the last layer starts small: the loss has half the variance of the logits on top, which is 1 to 2 with Xavier there."""
    x, y = np.random.default_rng(1).standard_normal((600, 20)), np.arange(600) % count
    for seed in range(5):
        layers = Dense(20, 256, activation="relu"), Dense(256, 256, activation="relu"), Dense(256, count, init=f)
        loss = ts.Trainer(Sequential(*layers, seed=seed)).evaluate(x, y)["loss"]
        assert loss == pytest.approx(math.log(count), rel=0.05)


def test_the_initial_loss_on_digits() -> None:
    x, y = ts.data.load_digits()
    for seed in range(5):
        model = Sequential(Dense(64, 128, activation="relu"), Dense(128, 10, init="normal"), seed=seed)
        assert ts.Trainer(model).evaluate(x, y)["loss"] == pytest.approx(math.log(10), rel=0.05)
