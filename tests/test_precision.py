"""Products of float32 matrices from bfloat16 pieces: the splits against exact arithmetic, the products against their definition.

What models and trainers do with them is in test_precision_models.py.
"""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, ops, reference

from .activation_rules import ACTIVATIONS, amplified, backward_bound, dense_derivative_from, forward_bound
from .helpers import Array, assert_same_bits, assert_within, layouts, normal

pytestmark = pytest.mark.pieces

MODES = ("bf16", "bf16_x3", "bf16_x6")
PIECES = {"bf16": 1, "bf16_x3": 2, "bf16_x6": 3}
U = 2.0**-24  # half a last place of float32: what one rounding is off by
TINY = 2.0**-126  # units of bfloat16 take smaller pieces for 0, and give smaller results as 0

# What the definition leaves out of a product of two numbers, relative to it. A number is off its first piece by 2^-8 of itself at
# most, off the first two by 2^-16, and off all three by nothing. So bf16 has 2 * 2^-8 + 2^-16; bf16_x3 lacks a2 b2 and what two
# pieces leave of a and of b, 3 * 2^-16 and smaller ones; bf16_x6 lacks a2 b3, a3 b2 and a3 b3.
LEFT_OUT = {"float32": 0.0, "bf16": 2.01 * 2.0**-8, "bf16_x3": 3.01 * 2.0**-16, "bf16_x6": 2.01 * 2.0**-24}


def summing(k: int, c: float = 1.0) -> float:
    """What sums may be off by, in |A| @ |B|: a chain of at most 512 terms of k, which is rounded at each, then the chains.

    The products themselves are exact. The small terms come first and are at most 3 * 2^-8 of the large one together, and so is what
    is lost to their roundings: the 1.02. With random signs the errors do not add up: c takes that into account.
    """
    return c * U * (1.02 * min(k, 512) + k / 256 + 3)


def bound(a: Array, b: Array, c: float = 1.0) -> Array:
    """What a product may be off from its definition."""
    terms = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    return summing(a.shape[1], c) * terms + 8 * a.shape[1] * TINY


def every_exponent() -> Array:
    """Numbers of every exponent and both signs, halfway between two bfloat16, beside that, and at the ends."""
    exponents = np.arange(256, dtype=np.uint32) << 23
    ends = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000, 0x18001, 0x12345, 0x7F7FFF, 0x7F8000, 0x7FFFFF, 0x5A5A5A])
    bits = np.add.outer(exponents, ends.astype(np.uint32)).ravel()
    values = np.concatenate([bits, bits | np.uint32(0x80000000)]).view(np.float32)
    return values[np.isfinite(values)]


def exact_bfloat16(x: float) -> Fraction:
    """The nearest number of 8 digits with float32's exponents, ties to even, and none beyond the largest."""
    value = Fraction(x)
    exponent = max(np.frexp(x)[1] - 1, -126)
    place = Fraction(2) ** (int(exponent) - 7)
    rounded = round(value / place) * place
    largest = (2 - Fraction(2) ** -7) * Fraction(2) ** 127
    return max(-largest, min(largest, rounded))


@pytest.mark.one_level
def test_pieces_are_what_exact_arithmetic_gives() -> None:
    x = every_exponent()
    pieces = reference.split_bfloat16(x, 3)
    assert all(piece.dtype == np.float32 for piece in pieces)
    for i, number in enumerate(x.tolist()):
        rest = Fraction(number)
        for piece in pieces:
            expected = exact_bfloat16(float(rest))
            assert Fraction(float(piece[i])) == expected, (number, rest)
            rest -= expected
        assert abs(rest) < Fraction(2) ** -133  # of a number with more digits than three pieces have room for above 2^-133


@pytest.mark.one_level
def test_fewer_pieces_are_the_first_ones() -> None:
    x = every_exponent()
    three = reference.split_bfloat16(x, 3)
    for n in (1, 2):
        for fewer, more in zip(reference.split_bfloat16(x, n), three, strict=False):
            assert_same_bits(fewer, more)


@pytest.mark.one_level
def test_what_is_not_finite_is_its_first_piece() -> None:
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    first, *others = reference.split_bfloat16(x, 3)
    np.testing.assert_array_equal(first, x)
    for piece in others:
        np.testing.assert_array_equal(piece, np.zeros(3))


@pytest.mark.one_level
def test_the_definition_written_out() -> None:
    """Each mode on two numbers whose pieces can be seen in their bits."""
    (a1, a2, a3), (b1, b2, b3) = (1 + 2.0**-7, 2.0**-10, 2.0**-19), (1.5, -(2.0**-9), 2.0**-18)
    a, b = np.array([[a1 + a2 + a3]], np.float32), np.array([[b1 + b2 + b3]], np.float32)
    assert [float(piece[0, 0]) for piece in reference.split_bfloat16(a, 3)] == [a1, a2, a3]
    assert [float(piece[0, 0]) for piece in reference.split_bfloat16(b, 3)] == [b1, b2, b3]
    three = a2 * b1 + a1 * b2 + a1 * b1
    for mode, value in {"bf16": a1 * b1, "bf16_x3": three, "bf16_x6": a3 * b1 + a2 * b2 + a1 * b3 + three}.items():
        assert reference.matmul(a, b, mode)[0, 0] == np.float32(value), mode
        assert abs(float(ops.dense(a, b, precision=mode)[0, 0]) - value) <= 4 * U, mode


@pytest.mark.parametrize("mode", MODES)
def test_a_number_times_one_is_the_sum_of_its_pieces(mode: str) -> None:
    x = every_exponent()
    x = x[np.abs(x) >= 2.0**-100]  # whose pieces no unit takes for 0
    if mode == "bf16_x3":
        x = x[np.abs(x) < 3.4e38]  # beyond, two pieces add up to 2^128
    x = x[: len(x) // 8 * 8].reshape(-1, 8)
    exact = sum(piece.astype(np.float64) for piece in reference.split_bfloat16(x, PIECES[mode])).astype(np.float32)
    one = np.eye(8, dtype=np.float32)
    assert_same_bits(ops.dense(x, one, precision=mode), exact)
    assert_same_bits(ops.dense(np.eye(len(x), dtype=np.float32), x, precision=mode), exact)
    if mode == "bf16_x6":
        assert_same_bits(exact, x)


SIZES = (1, 2, 15, 16, 17, 31, 32, 33, 257, 513, 600)


def shapes() -> list[tuple[int, int, int]]:
    """(m, k, n): every size of each, beside small and large ones of the others."""
    few = {(m, k, n) for m, k, n in product((1, 16, 33), (1, 17, 257), (1, 32, 17))}
    for size in SIZES:
        few |= {(size, 5, 33), (17, size, 33), (33, 5, size), (size, 70, 1), (1, size, 31)}
    return sorted(few | {(257, 513, 600), (600, 257, 33), (33, 600, 257), (130, 1030, 70), (2, 1030, 1)})


def check_products(mode: str, shape: tuple[int, int, int], seed: int) -> None:
    """The three products of a layer, y = x @ w, dx = dy @ w^T and dw = x^T @ dy, against their definition and the exact ones."""
    rng = np.random.default_rng(seed)
    m, k, n = shape
    x, w, dy = normal(rng, np.float32, m, k), normal(rng, np.float32, k, n), normal(rng, np.float32, m, n)
    dx, dw, _ = ops.dense_backward(dy, x, w, precision=mode)
    results = {"y": (ops.dense(x, w, precision=mode), x, w), "dx": (dx, dy, w.T), "dw": (dw, x.T, dy)}
    for name, (got, a, b) in results.items():
        what = (mode, shape, name)
        assert_within(got, reference.matmul(a, b, mode), bound(a, b), what)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        terms = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
        assert_within(got, exact, bound(a, b) + LEFT_OUT[mode] * terms, what)


@pytest.mark.parametrize("mode", MODES)
def test_products_of_all_sizes(mode: str, threads: int) -> None:
    for i, shape in enumerate(shapes()):
        check_products(mode, shape, i)


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_those_of_random_signs(mode: str) -> None:
    """Far below the worst case of long chains: 512 roundings do not all go one way. Largest found: a sixth of this."""
    rng = np.random.default_rng(1)
    a, b = normal(rng, np.float32, 100, 600), normal(rng, np.float32, 600, 90)
    assert_within(ops.dense(a, b, precision=mode), reference.matmul(a, b, mode), bound(a, b, 1 / 50), mode)


@pytest.mark.parametrize("mode", MODES)
def test_every_term_is_there(mode: str) -> None:
    """Sums of one: without a term, or with one too many, some of these many products are off by more than all roundings."""
    rng = np.random.default_rng(2)
    a, b = normal(rng, np.float32, 400, 1), normal(rng, np.float32, 1, 300)
    got, twin = ops.dense(a, b, precision=mode), reference.matmul(a, b, mode)
    assert_within(got, twin, 7 * U * np.abs(a * b).astype(np.float64) + TINY, mode)
    for other in MODES:
        if other != mode:
            assert (np.abs(reference.matmul(a, b, other) - twin) > 7 * U * np.abs(a * b)).any() or {mode, other} == set(MODES) - {
                "bf16"
            }
    if mode == "bf16_x6":  # float32's own error, where bf16_x3 has up to 3 * 2^-16
        exact = a.astype(np.float64) @ b.astype(np.float64)
        assert np.abs(got / exact - 1).max() < 4 * U < 2.0**-17 < np.abs(ops.dense(a, b, precision="bf16_x3") / exact - 1).max()


@pytest.mark.parametrize("mode", MODES)
def test_products_of_small_integers_are_exact(mode: str, threads: int, rng: np.random.Generator) -> None:
    for m, k, n in ((13, 257, 35), (200, 300, 400), (3, 513, 100), (40, 1100, 1)):
        x, w = rng.integers(-3, 4, (m, k)).astype(np.float32), rng.integers(-3, 4, (k, n)).astype(np.float32)
        b, dy = rng.integers(-9, 9, n).astype(np.float32), rng.integers(-3, 4, (m, n)).astype(np.float32)
        np.testing.assert_array_equal(ops.dense(x, w, b, precision=mode), x @ w + b)
        dx, dw, db = ops.dense_backward(dy, x, w, precision=mode)
        np.testing.assert_array_equal(dx, dy @ w.T)
        np.testing.assert_array_equal(dw, x.T @ dy)
        np.testing.assert_array_equal(db, dy.sum(axis=0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_bias_and_every_activation(mode: str, activation: str) -> None:
    for m, k, n in ((5, 7, 9), (65, 130, 67), (40, 300, 20)):
        rng = np.random.default_rng(m)
        x, w = normal(rng, np.float32, m, k), normal(rng, np.float32, k, n) / np.float32(np.sqrt(k))
        b, dy = normal(rng, np.float32, n), normal(rng, np.float32, m, n)
        y = ops.dense(x, w, b, activation, precision=mode)
        z = reference.dense(x, w, b, precision=mode).astype(np.float64)
        exact = reference.ACTIVATIONS[activation][0](z)
        slack = bound(x, w) + U * (np.abs(z) + np.abs(b))
        assert_within(y, exact, amplified(activation, slack) + forward_bound(activation, z, exact, np.float32), (mode, activation))

        source = dense_derivative_from(x, w, b, activation)
        dx, dw, _ = ops.dense_backward(dy, x, w, source, activation, precision=mode)
        twin_dx, twin_dw, _ = reference.dense_backward(dy, x, w, source, activation, precision=mode)
        dy64, source64 = dy.astype(np.float64), source.astype(np.float64)
        dz = np.asarray(reference.ACTIVATIONS[activation][1](dy64, source64))
        # Where dz is off by a last place, its first piece may be the next bfloat16: what is left out then is another part.
        slack = (LEFT_OUT[mode] + summing(max(m, n))) * np.abs(dz) + backward_bound(activation, dy64, source64, dz, np.float32)
        assert_within(dx, twin_dx, slack @ np.abs(w.astype(np.float64)).T, (mode, activation, "dx"))
        assert_within(dw, twin_dw, np.abs(x.astype(np.float64)).T @ slack, (mode, activation, "dw"))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    shapes = ((700, 500, 600), (701, 513, 37), (3, 2000, 1500), (2000, 700, 3), (37, 3000, 130), (6000, 700, 1), (1, 2000, 1500))
    rng = np.random.default_rng(3)
    problems = [(normal(rng, np.float32, m, k), normal(rng, np.float32, k, n), normal(rng, np.float32, m, n)) for m, k, n in shapes]

    def everything() -> list[Array]:
        return [
            result
            for mode in MODES
            for x, w, dy in problems
            for result in (ops.dense(x, w, dy[0], "tanh", precision=mode), *ops.dense_backward(dy, x, w, precision=mode))
        ]

    with ts.num_threads(1):
        expected = everything()
    for n in (2, 3):
        with ts.num_threads(n):
            for i, (got, wanted) in enumerate(zip(everything(), expected, strict=True)):
                assert_same_bits(got, wanted, (n, i))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("caches", [(1, 1), (16 * 1024, 128 * 1024), (2**20, 2**24)], ids=str)
def test_products_do_not_depend_on_the_caches(mode: str, threads: int, caches: tuple[int, int], rng: np.random.Generator) -> None:
    x, w, dy = normal(rng, np.float32, 130, 700), normal(rng, np.float32, 700, 300), normal(rng, np.float32, 130, 300)
    here = _core.caches()
    results = [ops.dense(x, w, precision=mode), *ops.dense_backward(dy, x, w, precision=mode)]
    try:
        _core.set_caches(*caches)
        again = [ops.dense(x, w, precision=mode), *ops.dense_backward(dy, x, w, precision=mode)]
    finally:
        _core.set_caches(*here)
    for got, wanted in zip(again, results, strict=True):
        assert_same_bits(got, wanted, caches)


@pytest.mark.parametrize("mode", MODES)
def test_rows_and_columns_do_not_depend_on_the_others(mode: str) -> None:
    rng = np.random.default_rng(4)
    for m, k, n in ((40, 30, 10), (33, 300, 70), (300, 520, 130), (40, 300, 1), (40, 1, 30)):
        x, w, b = normal(rng, np.float32, m, k), normal(rng, np.float32, k, n), normal(rng, np.float32, n)
        dy = normal(rng, np.float32, m, n)
        y, dx = ops.dense(x, w, b, "sigmoid", precision=mode), ops.dense_backward(dy, x, w, precision=mode)[0]
        for part in (slice(3, 4), slice(0, 1), slice(5, 8), slice(m - 1, m), slice(2, 25)):
            assert_same_bits(ops.dense(x[part], w, b, "sigmoid", precision=mode), y[part], (m, k, n, part))
            assert_same_bits(ops.dense_backward(dy[part], x[part], w, precision=mode)[0], dx[part], (m, k, n, part))
    for part in (slice(33, 70), slice(8, 99)):
        x, w = normal(rng, np.float32, 50, 300), normal(rng, np.float32, 300, 100)
        y = ops.dense(x, w, precision=mode)
        assert_same_bits(ops.dense(x, w[:, part], precision=mode), np.ascontiguousarray(y[:, part]), part)


@pytest.mark.parametrize("mode", MODES)
def test_arrays_in_any_layout(mode: str, rng: np.random.Generator) -> None:
    x, w = normal(rng, np.float32, 20, 40), normal(rng, np.float32, 40, 30)
    y = ops.dense(x, w, precision=mode)
    for name, form in layouts(x).items():
        assert_same_bits(ops.dense(form, w, precision=mode), y, name)
    out = np.empty_like(y)
    assert ops.dense(x, w, precision=mode, out=out) is out
    assert_same_bits(out, y)


# --- values at the ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_infinities_and_nan_are_those_of_float32(mode: str, threads: int) -> None:
    """An infinity times a rest would have any sign, times a rest of 0 no value: they count with the first pieces alone."""
    rng = np.random.default_rng(5)
    specials = np.array([np.inf, -np.inf, np.nan, 0, -0.0], np.float32)
    for m, k, n in ((1, 1, 1), (7, 20, 18), (40, 300, 70), (150, 600, 33)):
        for share in (1 / k, 0.3):
            a, b = normal(rng, np.float32, m, k), normal(rng, np.float32, k, n)
            for array in (a, b):
                chosen = rng.random(array.shape) < share
                array[chosen] = rng.choice(specials, int(chosen.sum()))
            with np.errstate(all="ignore"):
                plain = a @ b
            got, twin = ops.dense(a, b, precision=mode), reference.matmul(a, b, mode)
            for result in (got, twin):
                np.testing.assert_array_equal(np.isnan(result), np.isnan(plain))
                np.testing.assert_array_equal(np.where(np.isinf(result), result, 0), np.where(np.isinf(plain), plain, 0))
            finite = np.isfinite(plain)
            with np.errstate(all="ignore"):
                limit = np.where(finite, bound(np.nan_to_num(a, posinf=0, neginf=0), np.nan_to_num(b, posinf=0, neginf=0)), 0)
            assert_within(got, twin, limit, (mode, m, k, n))


@pytest.mark.parametrize("mode", MODES)
def test_an_infinity_keeps_its_sign_beside_any_number(mode: str) -> None:
    """With b rounded up, b2 is negative, and inf * b2 would turn the result into NaN."""
    b = np.array([[1.0, 1 + 2.0**-8 + 2.0**-9, 1 - 2.0**-10, 3.4e38, -1e-30, 2.0**-20]], np.float32)
    np.testing.assert_array_equal(ops.dense(np.array([[np.inf]], np.float32), b, precision=mode), np.inf * np.sign(b))
    np.testing.assert_array_equal(ops.dense(b.T.copy(), np.array([[-np.inf]], np.float32), precision=mode), -np.inf * np.sign(b.T))


@pytest.mark.parametrize("mode", MODES)
def test_large_numbers_stay_finite(mode: str) -> None:
    """What rounds to infinity in bfloat16 is the largest finite one and a rest, which is no more than the mode leaves out."""
    largest = np.finfo(np.float32).max
    a = np.array([[largest, -largest, 3.3961e38, 3.39e38, 2.0**127, 1e38]], np.float32).T
    b = np.array([[0.5, -0.25, 2.0**-10, 1 / 3, 0.9]], np.float32)
    got, exact = ops.dense(a, b, precision=mode), a.astype(np.float64) @ b.astype(np.float64)
    assert_within(got, reference.matmul(a, b, mode), 4 * U * np.abs(exact), mode)
    assert_within(got, exact, (LEFT_OUT[mode] + 4 * U) * np.abs(exact), mode)
    if mode != "bf16_x3":  # whose two pieces of the largest number add up to 2^128
        assert np.isfinite(ops.dense(a, np.ones((1, 1), np.float32), precision=mode)).all()
    # They cancel: nothing on the way is infinite.
    pair = np.array([[largest, largest]], np.float32)
    assert_within(ops.dense(pair, np.array([[0.75], [-0.75]], np.float32), precision=mode), [[0.0]], 4 * U * float(largest))


@pytest.mark.parametrize("mode", MODES)
def test_small_numbers_are_off_by_no_more_than_the_smallest_normal_one(mode: str) -> None:
    rng = np.random.default_rng(6)
    for scale in (2.0**-149, 2.0**-130, 2.0**-120, 2.0**-110):
        a = (normal(rng, np.float64, 20, 33) * scale).astype(np.float32)
        b = normal(rng, np.float32, 33, 17)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        left_out = LEFT_OUT[mode] * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
        # Of every number of a two pieces may be taken for 0, and every sum up to TINY.
        flushed = TINY * (3 * np.abs(b).sum(axis=0) + 6 * a.shape[1])
        assert_within(ops.dense(a, b, precision=mode), exact, bound(a, b) + left_out + flushed, (mode, scale))


# --- what a call uses ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Any:
    yield
    ts.set_matmul_precision("float32")


def problem() -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    return normal(rng, np.float32, 20, 40), normal(rng, np.float32, 40, 30)


def test_aliases_are_the_modes(restored: None) -> None:
    x, w = problem()
    for alias, name in {"highest": "float32", "high": "bf16_x3", "medium": "bf16"}.items():
        assert_same_bits(ops.dense(x, w, precision=alias), ops.dense(x, w, precision=name))
        assert_same_bits(reference.matmul(x, w, alias), reference.matmul(x, w, name))
        ts.set_matmul_precision(alias)
        assert ts.get_matmul_precision() == ts.config()["matmul_precision"] == name
    assert _core.matmul_precisions == ("float32", "bf16_x6", "bf16_x3", "bf16")
    assert {*reference.precision.TERMS, "float32"} == set(_core.matmul_precisions)


@pytest.mark.parametrize("mode", MODES)
def test_the_precision_of_the_process_is_for_calls_that_name_none(mode: str, restored: None) -> None:
    x, w = problem()
    named, plain = ops.dense(x, w, precision=mode), ops.dense(x, w)
    dx, dw, _ = ops.dense_backward(named, x, w, precision=mode)
    assert named.tobytes() != plain.tobytes()
    ts.set_matmul_precision(mode)
    assert_same_bits(ops.dense(x, w), named)
    assert_same_bits(ops.dense_backward(named, x, w)[0], dx)
    assert_same_bits(ops.dense_backward(named, x, w)[1], dw)
    assert_same_bits(ops.dense(x, w, precision="float32"), plain)


def test_float64_has_no_pieces(restored: None) -> None:
    x, w = (a.astype(np.float64) for a in problem())
    plain = ops.dense(x, w)
    ts.set_matmul_precision("bf16")
    assert_same_bits(ops.dense(x, w), plain)
    assert_same_bits(ops.dense(x, w, precision="float32"), plain)
    assert_same_bits(ops.dense_backward(plain, x, w)[0], ops.dense_backward(plain, x, w, precision="highest")[0])
