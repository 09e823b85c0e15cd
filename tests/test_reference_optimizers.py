"""The reference's optimizer steps and clipping against steps worked out by hand, and against what their papers promise."""

import inspect
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest

from trainstep import reference

from .helpers import Array, numerical_gradient

pytestmark = pytest.mark.one_level

INF, NAN = math.inf, math.nan
STEPS = [name for name in reference.__all__ if name.endswith("_step_")]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def state_names(name: str) -> list[str]:
    """The states that a step takes, optional ones included."""
    parameters = inspect.signature(getattr(reference, name)).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][2:]


def option_names(name: str) -> list[str]:
    parameters = inspect.signature(getattr(reference, name)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def arrays(name: str, shape: tuple[int, ...] = (5,)) -> list[Array]:
    """w, g and all states: signs of both kinds in w and g, sizes in the states."""
    return [rng(i).choice([-1.0, 1.0], shape) * rng(i + 9).uniform(0.5, 2.0, shape) for i in range(2)] + [
        rng(i + 20).uniform(0.5, 2.0, shape) for i in range(len(state_names(name)))
    ]


def decay(name: str) -> dict[str, float]:
    """Every penalty that the rule has."""
    return {option: 0.3 for option in ("weight_decay", "l1") if option in option_names(name)}


# What all rules share


@pytest.mark.parametrize("name", STEPS)
def test_a_step_keeps_float32_and_rounds_once(name: str) -> None:
    narrow = [a.astype(np.float32) for a in arrays(name)]
    wide = [a.astype(np.float64) for a in narrow]
    step_, g = getattr(reference, name), narrow[1].copy()
    step_(*narrow, step=3, **decay(name))
    step_(*wide, step=3, **decay(name))
    for got, exact in zip(narrow, wide, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, exact.astype(np.float32))
    np.testing.assert_array_equal(narrow[1], g)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_goes_through_strides(name: str) -> None:
    whole = arrays(name, (4, 3))
    arena = [np.stack([a, np.full_like(a, 7.0)], axis=-1) for a in whole]
    getattr(reference, name)(*whole, **decay(name))
    getattr(reference, name)(*(a[..., 0] for a in arena), **decay(name))
    for one, other in zip(whole, arena, strict=True):
        # A norm over another layout may be added up in another order.
        np.testing.assert_allclose(other[..., 0], one, rtol=1e-15)
        assert (other[..., 1] == 7.0).all()


@pytest.mark.parametrize("name", STEPS)
def test_maximize_is_the_other_gradient(name: str) -> None:
    up, down = arrays(name), arrays(name)
    down[1] *= -1
    getattr(reference, name)(*up, maximize=True, **decay(name))
    getattr(reference, name)(*down, **decay(name))
    for i in range(len(up)):
        np.testing.assert_array_equal(up[i], down[i] if i != 1 else -down[i])


@pytest.mark.parametrize("name", [name for name in STEPS if name != "lars_step_"])  # whose decay has a part in the local rate
def test_a_coupled_penalty_is_a_gradient(name: str) -> None:
    decoupled = ("lion_step_", "lamb_step_")
    plain, penalized = arrays(name), arrays(name)
    w = plain[0]
    coupled = 0.3 if "weight_decay" in option_names(name) and name not in decoupled else 0.0
    plain[1] = plain[1] + coupled * w + 0.2 * np.sign(w)
    getattr(reference, name)(*plain, step=2)
    getattr(reference, name)(*penalized, step=2, l1=0.2, **({"weight_decay": coupled} if coupled else {}))
    for i in range(len(plain)):
        if i != 1:
            np.testing.assert_array_equal(penalized[i], plain[i])


@pytest.mark.parametrize("name", [name for name in STEPS if "decoupled_weight_decay" in option_names(name)])
def test_a_decoupled_decay_is_a_shrinking_of_w(name: str) -> None:
    plain, decayed = arrays(name), arrays(name)
    plain[0] *= 1 - 0.5 * 0.3
    getattr(reference, name)(*plain, step=2, lr=0.5)
    getattr(reference, name)(*decayed, step=2, lr=0.5, weight_decay=0.3, decoupled_weight_decay=True)
    for one, other in zip(plain, decayed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", STEPS)
def test_nan_and_infinity_pass_without_warnings(name: str) -> None:
    for bad in (NAN, INF):
        given = arrays(name)
        given[1][2] = bad
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            getattr(reference, name)(*given, **decay(name))
        if np.isnan(bad):
            assert np.isnan(given[0][2])
        if name not in ("lamb_step_", "lars_step_"):  # in which one norm is everyone's
            assert np.isfinite(np.delete(given[0], 2)).all()


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_refuses(name: str) -> None:
    step_ = getattr(reference, name)
    given = arrays(name)
    before = [a.copy() for a in given]

    def refused(error: type[Exception], message: str, at: int | None = None, array: Any = None, **options: Any) -> None:
        with pytest.raises(error, match=rf"^{name}: {message}"):
            step_(*(array if i == at else a for i, a in enumerate(given)), **options)

    for at, argument in enumerate(["w", "g", *state_names(name)]):
        refused(TypeError, f"{argument} is a list, wanted an ndarray", at, [1.0] * 5)
        refused(TypeError, "[a-z_]+ has dtype float", at, given[at].astype(np.float32))
        refused(TypeError, f"{argument} has dtype int64, wanted float32 or float64", at, np.ones(5, np.int64))
        refused(ValueError, r"[a-z_]+ has shape \(.*\), w has \(", at, np.ones(4))
        if argument != "g":
            read_only = given[at].copy()
            read_only.flags.writeable = False
            refused(ValueError, f"{argument} is read-only", at, read_only)
    refused(ValueError, "step is 0, wanted 1 or more", step=0)
    for option, parameter in inspect.signature(step_).parameters.items():
        if isinstance(parameter.default, float) and option != "dampening":  # which may be negative, as in torch
            for bad in (-0.1, NAN):
                refused(ValueError, rf"{option} is {bad}, wanted ", **{option: bad})
    if "betas" in option_names(name):
        for betas in ((0.9, 1.0), (-0.1, 0.9), (NAN, 0.9), (0.9,), (0.9, 0.9, 0.9)):
            refused(ValueError, re.escape(f"betas is {betas}, wanted two numbers from 0 up to but not including 1"), betas=betas)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_single_rules_refuse() -> None:
    w, g, s, r = np.ones(3), np.ones(3), np.zeros(3), reference
    read: list[tuple[Any, tuple[Array, ...], dict[str, Any], str]] = [
        (r.sgd_step_, (), {"momentum": 0.9}, "momentum_buffer is None, and momentum is 0.9"),
        (r.sgd_step_, (s,), {"nesterov": True}, "nesterov needs momentum above 0 and dampening 0"),
        (r.sgd_step_, (s,), {"momentum": 0.9, "nesterov": True, "dampening": 0.1}, "nesterov needs momentum above 0"),
        (r.sgd_step_, (s,), {"momentum": 0.9, "nesterov": True, "lr_in_velocity": True}, "lr_in_velocity goes with neither"),
        (r.adadelta_step_, (s, s), {"rho": 1.0}, "rho is 1.0, wanted a number from 0 up to but not including 1"),
        (r.rmsprop_step_, (s,), {"alpha": 1.5}, "alpha is 1.5, wanted a number from 0 up to but not including 1"),
        (r.rmsprop_step_, (s,), {"momentum": 0.9}, "momentum_buffer is None, and momentum is 0.9"),
        (r.rmsprop_step_, (s, s), {"centered": True}, "grad_avg is None, and centered is True"),
        (r.adam_step_, (s, s), {"amsgrad": True}, "max_exp_avg_sq is None, and amsgrad is True"),
        (r.nadam_step_, (s, s), {"mu_product": 1.5}, "mu_product is 1.5, wanted a number from 0 to 1"),
        (r.nadam_step_, (s, s), {"mu_product": -0.5}, "mu_product is -0.5, wanted a number from 0 to 1"),
        (r.nadam_step_, (s, s), {"mu_product": NAN}, "mu_product is nan, wanted a number from 0 to 1"),
        (r.rprop_step_, (s, s), {"etas": (0.5, 1.0)}, r"etas is \(0.5, 1.0\), wanted a number between 0 and 1 and one above"),
        (r.rprop_step_, (s, s), {"etas": (0.0, 1.2)}, r"etas is \(0.0, 1.2\)"),
        (r.rprop_step_, (s, s), {"etas": (1.0, 1.2)}, r"etas is \(1.0, 1.2\)"),
        (r.rprop_step_, (s, s), {"step_sizes": (-1.0, 1.0)}, r"step_sizes is \(-1.0, 1.0\)"),
        (r.rprop_step_, (s, s), {"step_sizes": (2.0, 1.0)}, r"step_sizes is \(2.0, 1.0\), wanted two numbers from 0, the smaller"),
        (r.asgd_step_, (s,), {"eta": -1.0}, "eta is -1.0, wanted 0 or more"),
        (r.lars_step_, (), {}, "momentum_buffer is None, and momentum is 0.9"),
        (r.lars_step_, (s,), {"momentum": 0.0, "nesterov": True}, "nesterov needs momentum above 0, got 0.0"),
    ]
    for step_, states, options, message in read:
        with pytest.raises(ValueError, match=rf"{step_.__name__}: {message}"):
            step_(w, g, *states, **options)
    np.testing.assert_array_equal(w, 1.0)
    np.testing.assert_array_equal(s, 0.0)


# Steps worked out by hand. Every row begins at w = 1 with lr = 1/2 and weight_decay = 1/2, which a rule that has them is given
# unless the row says otherwise. G is the gradient with its decay, g + w/2.
HALF = {"lr": 0.5, "weight_decay": 0.5}
BETAS = {"betas": (0.5, 0.75), "eps": 0.0}
CENTERED = {"alpha": 0.5, "eps": 0.0, "centered": True}
HALVING = math.log(0.5) / math.log(0.96)  # the momentum_decay that halves NAdam's 0.96^(t * momentum_decay) at each step


@pytest.mark.parametrize(
    ("name", "states", "gradients", "options", "w_after", "states_after"),
    [
        # G = 3, 4: s = 9, 25; w = 1 - .5*3/3, then - .5*4/5
        ("adagrad", [0], [2.5, 3.75], {"eps": 0}, 0.1, [25]),
        ("adagrad", [0], [2.5, 3.75], {"eps": 0, "lr_decay": 1.0}, 0.3, [25]),  # the second rate is half of it
        ("adagrad", [0], [2.5], {"eps": 2.0}, 0.7, [9]),  # 1 - .5*3/(3 + 2)
        ("adagrad", [0], [2.5], {"eps": 7.0, "eps_inside_sqrt": True}, 0.625, [9]),  # 1 - .5*3/4
        ("adagrad", [16], [2.5], {"eps": 0}, 0.7, [25]),  # 1 - .5*3/5
        ("adagrad", [0], [2.0], {"eps": 0, "l1": 0.5}, 0.5, [9]),
        # G = 4: v = 4; d = sqrt(4 + 5) / sqrt(4 + 5) * 4; u = 3 + .25*16
        ("adadelta", [0, 4], [3.5], {"rho": 0.75, "eps": 5.0}, -1, [4, 7]),
        # G = 3: v = 2.25; d = sqrt(4) / sqrt(6.25) * 3 = 2.4; u = .25*2.4^2
        ("adadelta", [0, 0], [2.5], {"rho": 0.75, "eps": 4.0}, -0.2, [2.25, 1.44]),
        # G = 4, 2: v = 4, 3 + 1; w = 1 - .5*4/2, then - .5*2/2
        ("rmsprop", [0], [3.5, 2.0], {"alpha": 0.75, "eps": 0}, -0.5, [4]),
        ("rmsprop", [0, 0], [3.5, 2.0], {"alpha": 0.75, "eps": 0, "momentum": 0.5}, -1, [4, 2]),  # b = 2, 1 + 1
        ("rmsprop", [0], [3.5], {"alpha": 0.75, "eps": 2.0}, 0.5, [4]),  # 1 - .5*4/(2 + 2)
        ("rmsprop", [0], [3.5], {"alpha": 0.75, "eps": 5.0, "eps_inside_sqrt": True}, 1 / 3, [4]),  # 1 - .5*4/3
        # v = 8, 4 + 2; a = 2, 1 + 1; variances 4, 2; w = 1 - .5*4/2, then - .5*2/sqrt(2)
        ("rmsprop", [0, 9, 0], [3.5, 2.0], CENTERED, -math.sqrt(0.5), [6, 9, 2]),
        # variance 4, eps 5: d = 4/3; b = 4/3
        ("rmsprop", [0, 0, 0], [3.5], CENTERED | {"eps": 5.0, "momentum": 0.5, "eps_inside_sqrt": True}, 1 / 3, [8, 4 / 3, 2]),
        # G = 4, then 1: m = 2, 1.5; v = 4, 3.25; the largest is 4; mhat = 4, 2; vmax/(1 - .75^2) = 4/.4375
        ("adam", [0, 0, 0], [3.5, 0.75], BETAS | {"amsgrad": True}, 0.5 - math.sqrt(0.4375) / 2, [1.5, 3.25, 4]),
        # without corrections: w = 1 - .5*2/2 = .5, then - .5*1.5/2
        ("adam", [0, 0, 0], [3.5, 0.75], BETAS | {"amsgrad": True, "bias_correction": False}, 0.125, [1.5, 3.25, 4]),
        # G = 4: vmax = 4, vhat = 16, eps 9 under the root: 1 - .5*4/5
        ("adam", [0, 0, 0], [3.5], BETAS | {"amsgrad": True, "eps": 9.0, "eps_inside_sqrt": True}, 0.6, [2, 4, 4]),
        # G = 4, 1: m = 2, 1.5; u = 4, 3; w = 1 - .5/.5*2/4, then - .5/.75*1.5/3
        ("adamax", [0, 0], [3.5, 0.75], BETAS, 1 / 6, [1.5, 3]),
        ("adamax", [0, 0], [3.5], BETAS | {"eps": 4.0}, 0.75, [2, 8]),  # 1 - 1*2/8
        # G = 4, 4; mu is 1/4 always; m = 2, 3; v = 4, 7; sqrt(vhat) = 4, 4; products 1/4, 1/16
        # d = 4 + .25/(15/16)*2 = 68/15, then .75/(15/16)*4 + .25/(63/64)*3 = 416/105
        ("nadam", [0, 0], [3.5, 4 - 13 / 60], BETAS | {"momentum_decay": 0.0}, -13 / 210, [3, 7]),
        # mu = 3/8, 7/16; d = 4 + 7/16/(1 - 21/128)*2; w = 1 - .5*d/(4 + 4)
        ("nadam", [0, 0], [3.5], BETAS | {"momentum_decay": HALVING, "eps": 4.0}, 1 - (4 + 112 / 107) / 16, [2, 4]),
        # R = 3, so never corrected. G = 4, 1: m = 2, 1.5; w = 1 - .5*4, then - .5*1.5/.75
        ("radam", [0, 0], [3.5, 1.5], BETAS | {"betas": (0.5, 0.5)}, -2, [1.5, 4.5]),
        # eta = 1/2, 1/3, 1/4; G = 1, 1, 0: w = .5 - .5, 0 - 1/3, -1/3*.75; ax: the mean of the last two
        ("asgd", [NAN], [0.5, 1.0, 1 / 6], {"lambd": 1.0, "alpha": 1.0, "t0": 0}, -0.25, [-7 / 24]),
        # c = 1, w = .75 - .5, m = .5; c = .25 - .5, w = .25*.75 + .5, m = .375 - .25
        ("lion", [0], [2.0, -1.0], {"betas": (0.5, 0.75)}, 0.6875, [0.125]),
        ("lion", [0], [0.0], {}, 0.75, [0]),  # a sign of 0: the decay alone
        # |w| = 1: local = 1/(3 + .5*1) = 2/7, d = .5*2/7*3.5 = .5; then w = .5: local = .5/(1 + .25) = .4, d = .5*.4*1.25
        ("lars", [0], [3.0, 1.0], {"trust_coefficient": 1.0, "momentum": 0.5}, 0, [0.5]),
        # w = 1 - (.25 + .5) = .25; local = .25/(1 + .125) = 2/9, d = .5*2/9*1.125 = .125; v = .375; w = .25 - (.1875 + .125)
        ("lars", [0], [3.0, 1.0], {"trust_coefficient": 1.0, "momentum": 0.5, "nesterov": True}, -0.0625, [0.375]),
        ("lars", [9], [3.0], {"trust_coefficient": 1.0, "momentum": 0.0, "eps": 3.5}, 0.75, [9]),  # half the rate
        # local = 1/(4 + .5 + 4.5) with the l1 in the norm of g; d = .5*1/9*4.5
        ("lars", [0], [3.0], {"trust_coefficient": 1.0, "momentum": 0.5, "eps": 4.5, "l1": 1.0}, 0.75, [0.25]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_steps_by_hand(
    name: str, states: list[float], gradients: list[float], options: dict[str, Any], w_after: float, states_after: list[float]
) -> None:
    w, arrays_ = np.array([1.0]), [np.array([float(s)]) for s in states]
    for step, g in enumerate(gradients, 1):
        getattr(reference, f"{name}_step_")(w, np.array([g]), *arrays_, step=step, **HALF | options)
    np.testing.assert_allclose(w, [w_after], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(np.concatenate(arrays_), states_after, rtol=1e-14)


def test_sgd_by_hand() -> None:
    w, g = np.array([1.0, -2.0, 0.0]), np.array([0.5, 0.5, 0.5])
    kept = g.copy()
    reference.sgd_step_(w, g, lr=0.5)
    np.testing.assert_array_equal(w, [0.75, -2.25, -0.25])
    np.testing.assert_array_equal(g, kept)


# w after two steps from w = 1 with gradients 1 and 2, lr = 1/2, momentum = 1/2; worked out by hand.
@pytest.mark.parametrize(
    ("options", "expected_w", "expected_v"),
    [
        ({}, -0.75, 2.5),  # v = 1, 2.5; w = 1 - .5 - 1.25
        ({"dampening": 0.5}, -0.25, 1.5),  # v = 1, .5 + .5*2
        ({"nesterov": True}, -1.375, 2.5),  # d = 1 + .5*1, 2 + .5*2.5
        ({"maximize": True}, 2.75, -2.5),
        ({"lr_in_velocity": True}, -0.75, 1.25),  # v = .5, .25 + 1
        ({"weight_decay": 1.0}, -1.5, 3.0),  # g = 1 + 1, v = 2, w = 0; g = 2 + 0, v = 3
    ],
)
def test_sgd_momentum_by_hand(options: dict[str, Any], expected_w: float, expected_v: float) -> None:
    w, v = np.array([1.0]), np.zeros(1)
    for step, g in ((1, 1.0), (2, 2.0)):
        reference.sgd_step_(w, np.array([g]), v, step=step, lr=0.5, momentum=0.5, **options)
    assert w[0] == expected_w
    assert v[0] == expected_v


def test_velocity_forms_differ_when_lr_changes() -> None:
    results = []
    for lr_in_velocity in (False, True):
        w, v = np.array([1.0]), np.zeros(1)
        for step, lr in ((1, 1.0), (2, 0.5)):
            reference.sgd_step_(w, np.ones(1), v, step=step, lr=lr, momentum=0.5, lr_in_velocity=lr_in_velocity)
        results.append(w[0])
    assert results == [-0.75, -1.0]  # 1 - 1 - .5*1.5;  1 - 1 - (.5*1 + .5)


def test_penalties_are_gradients() -> None:
    w, weight_decay, l1 = np.array([1.5, -0.5, 2.0]), 0.3, 0.2
    penalty = numerical_gradient(lambda v: float(weight_decay / 2 * (v**2).sum() + l1 * np.abs(v).sum()), w)
    moved = w.copy()
    reference.sgd_step_(moved, np.zeros(3), lr=1.0, weight_decay=weight_decay, l1=l1)
    np.testing.assert_allclose(w - moved, penalty, rtol=1e-8)
    zero = np.zeros(1)
    reference.sgd_step_(zero, np.zeros(1), lr=1.0, l1=1.0)
    assert zero[0] == 0.0


def test_adam_first_step_is_lr_long() -> None:
    w, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    reference.adam_step_(w, np.array([1e-3, -5.0, 1e4]), m, v, lr=0.25, eps=0.0)
    np.testing.assert_allclose(w, [-0.25, 0.25, -0.25], rtol=1e-14)
    np.testing.assert_allclose(m, np.array([1e-3, -5.0, 1e4]) * 0.1, rtol=1e-14)
    np.testing.assert_allclose(v, np.array([1e-6, 25.0, 1e8]) * 0.001, rtol=1e-14)


def test_adam_two_steps_by_hand() -> None:
    w, m, v = np.zeros(1), np.zeros(1), np.zeros(1)
    reference.adam_step_(w, np.array([1.0]), m, v, step=1, lr=1.0, betas=(0.5, 0.75), eps=0.0)
    reference.adam_step_(w, np.array([3.0]), m, v, step=2, lr=1.0, betas=(0.5, 0.75), eps=0.0)
    assert m[0] == 1.75  # .5*.5 + .5*3
    assert v[0] == 2.4375  # .75*.25 + .25*9
    assert w[0] == pytest.approx(-1.0 - (1.75 / 0.75) / math.sqrt(2.4375 / 0.4375), rel=1e-14)


def test_adam_options_by_hand() -> None:
    def first_step(w: float, g: float, **options: Any) -> float:
        weights = np.array([w])
        reference.adam_step_(weights, np.array([g]), np.zeros(1), np.zeros(1), lr=0.5, betas=(0.5, 0.75), **options)
        return float(weights[0])

    # m = g/2, v = g^2/4: without correction m / sqrt(v) is 1 for g > 0.
    assert first_step(1.0, 3.0, bias_correction=False, eps=0.0) == 0.5
    assert first_step(1.0, 2.0, bias_correction=False, eps=3.0) == 1 - 0.5 * 1 / (1 + 3)
    assert first_step(1.0, 2.0, bias_correction=False, eps=3.0, eps_inside_sqrt=True) == 1 - 0.5 * 1 / 2
    assert first_step(1.0, 2.0, eps=2.0) == 1 - 0.5 * 2 / (2 + 2)
    assert first_step(1.0, 3.0, maximize=True, eps=0.0) == 1.5
    # Decoupled: w shrinks by lr * decay = 0.05 by itself. Coupled: the decay is in g, and a first step is lr long.
    assert first_step(1.0, 3.0, weight_decay=0.1, decoupled_weight_decay=True, eps=0.0) == pytest.approx(0.95 - 0.5)
    assert first_step(1.0, 3.0, weight_decay=0.1, eps=0.0) == pytest.approx(0.5)
    assert first_step(1.0, -0.1, weight_decay=0.3, eps=0.0) == pytest.approx(0.5)  # g = -0.1 + 0.3 > 0
    assert first_step(1.0, -0.1, l1=0.3, eps=0.0) == pytest.approx(0.5)


# What the rules promise


@pytest.mark.parametrize("name", ["adagrad_step_", "adam_step_", "adamax_step_", "lion_step_"])
def test_a_first_step_is_lr_long(name: str) -> None:
    w, g = np.array([1.0, -2.0, 3.0]), np.array([1e-3, -5.0, 1e4])
    stepped, states = w.copy(), [np.zeros(3) for _ in state_names(name)]
    exact: dict[str, Any] = {"eps": 0.0} if "eps" in option_names(name) else {}
    getattr(reference, name)(stepped, g, *states, lr=0.25, l1=0.1, **exact)
    np.testing.assert_allclose(stepped, w - 0.25 * np.sign(g + 0.1 * np.sign(w)), rtol=1e-14)


def test_adagrad_steps_shrink_with_the_root_of_their_number() -> None:
    w, s = np.zeros(1), np.zeros(1)
    for step in range(1, 101):
        reference.adagrad_step_(w, np.array([-7.0]), s, step=step, lr=0.5, eps=0.0)
    assert w[0] == pytest.approx(0.5 * sum(1 / math.sqrt(t) for t in range(1, 101)), rel=1e-13)


def test_adadelta_does_not_know_the_unit_of_the_loss() -> None:
    one, other = ([np.array([1.0]), np.zeros(1), np.zeros(1)] for _ in range(2))
    for step in range(1, 51):
        reference.adadelta_step_(one[0], np.array([math.cos(step)]), *one[1:], step=step, eps=1e-30)
        reference.adadelta_step_(other[0], np.array([1000 * math.cos(step)]), *other[1:], step=step, eps=1e-30)
    # Only eps in the first steps tells one unit from another.
    assert abs(one[0][0] - 1) > 1e-15
    assert other[0][0] - 1 == pytest.approx(one[0][0] - 1, rel=1e-6)


def test_amsgrad_never_forgets_a_large_gradient() -> None:
    w, states = np.zeros(1), [np.zeros(1) for _ in range(3)]
    largest = 0.0
    for step, g in enumerate([1.0, 10.0, *[0.1] * 50], 1):
        reference.adam_step_(w, np.array([g]), *states, step=step, betas=(0.9, 0.5), amsgrad=True, weight_decay=0.1)
        largest = max(largest, states[1][0])
        assert states[2][0] == largest
    assert states[1][0] < 1 < largest
    untouched = np.full(1, 3.0)
    reference.adam_step_(w, np.ones(1), *states[:2], untouched, step=60)
    assert untouched[0] == 3.0


def test_nadam_product_of_momenta() -> None:
    def mu(t: int) -> float:
        return 0.9 * (1 - 0.5 * 0.96 ** (t * 0.01))

    product: float | None = None
    carried, default = ([np.ones(2), np.zeros(2), np.zeros(2)] for _ in range(2))
    for step in range(1, 21):
        g, options = np.array([math.cos(step), 1.0]), {"momentum_decay": 0.01, "weight_decay": 0.1}
        product = reference.nadam_step_(carried[0], g, *carried[1:], step=step, mu_product=product, **options)
        again = reference.nadam_step_(default[0], g, *default[1:], step=step, **options)
        assert type(product) is float
        assert product == pytest.approx(math.prod(mu(t) for t in range(1, step + 1)), rel=1e-14)
        assert again == pytest.approx(product, rel=1e-14)
    for one, other in zip(carried, default, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    # What is given counts, not the number of the step.
    w = [np.ones(1) for _ in range(2)]
    assert reference.nadam_step_(w[0], np.ones(1), np.zeros(1), np.zeros(1), step=9, mu_product=0.5) == pytest.approx(
        0.5 * 0.9 * (1 - 0.5 * 0.96 ** (9 * 4e-3)), rel=1e-14
    )
    reference.nadam_step_(w[1], np.ones(1), np.zeros(1), np.zeros(1), step=9)
    assert w[0][0] != w[1][0]


def test_radam_divides_by_v_from_the_first_step_where_it_can() -> None:
    # b2 = 3/4: R = 7, and r passes 5 between steps 7 (4.84) and 8 (5.22).
    def stepped(v: float, step: int) -> float:
        w = np.zeros(1)
        options = {"lr": 1.0, "betas": (0.0, 0.75), "eps": 0.0, "weight_decay": 0.1}
        reference.radam_step_(w, np.array([2.0]), np.zeros(1), np.array([v]), step=step, **options)
        return float(w[0])

    assert stepped(1.0, 7) == stepped(100.0, 7) == -2.0
    # v = 4 stays 4: -2/2, times the correction of the bias and of the variance
    r = 7 - 16 * 0.75**8 / (1 - 0.75**8)
    variance = (r - 4) * (r - 2) * 7 / ((7 - 4) * (7 - 2) * r)
    assert stepped(4.0, 8) == pytest.approx(-math.sqrt((1 - 0.75**8) * variance), rel=1e-13)
    assert stepped(100.0, 8) > stepped(4.0, 8)


def test_radam_becomes_adam() -> None:
    rectified, adam = arrays("radam_step_"), arrays("adam_step_")[:4]
    for one, other in zip(rectified, adam, strict=True):
        np.testing.assert_array_equal(one, other)
    reference.radam_step_(*rectified, step=10**6, weight_decay=0.1)
    reference.adam_step_(*adam, step=10**6, weight_decay=0.1)
    np.testing.assert_allclose(rectified[0], adam[0], rtol=1e-13)


def test_rprop_follows_signs() -> None:
    w, prev, size = np.array([1.0]), np.zeros(1), np.array([0.5])
    seen = []
    for step, g in enumerate([3.0, 1e-3, 7.0, -1.0, -1.0, 1.0, -1.0, 1.0, 0.0, 1.0], 1):
        reference.rprop_step_(w, np.array([g]), prev, size, step=step, etas=(0.5, 2.0), step_sizes=(0.25, 1.0))
        seen.append((w[0], size[0], prev[0]))
    assert seen == [
        (0.5, 0.5, 3.0),  # no sign before
        (-0.5, 1.0, 1e-3),  # the same sign: twice as far
        (-1.5, 1.0, 7.0),  # no longer than the longest
        (-1.5, 0.5, 0.0),  # the sign turns: no step, and the sign is forgotten
        (-1.0, 0.5, -1.0),
        (-1.0, 0.25, 0.0),
        (-0.75, 0.25, -1.0),
        (-0.75, 0.25, 0.0),  # no shorter than the shortest
        (-0.75, 0.25, 0.0),
        (-1.0, 0.25, 1.0),
    ]


def test_rprop_knows_the_sign_of_the_smallest_gradients() -> None:
    smallest = np.array([5e-324, -5e-324])
    w, prev, size = np.zeros(2), smallest.copy(), np.ones(2)
    reference.rprop_step_(w, smallest * [1, -1], prev, size, l1=0.1)
    np.testing.assert_array_equal(size, [1.2, 0.5])
    np.testing.assert_array_equal(w, [-1.2, 0.0])


def test_asgd_averages_from_t0_on() -> None:
    t0, w, ax = 3, np.array([1.0, -2.0]), np.full(2, NAN)
    seen: list[Array] = []
    for step in range(1, 21):
        g = w * rng(step).normal(size=2)
        reference.asgd_step_(w, g, ax, step=step, lr=0.3, lambd=0.2, t0=t0, weight_decay=0.1)
        seen.append(w.copy())
        np.testing.assert_allclose(ax, w if step <= t0 + 2 else np.mean(seen[t0 + 1 :], axis=0), rtol=1e-13)


def test_asgd_rate() -> None:
    for step in (1, 2, 50):
        default, given = (np.ones(1) for _ in range(2))
        reference.asgd_step_(default, np.ones(1), np.zeros(1), step=step, lr=0.3, lambd=0.2, alpha=0.6)
        eta = 0.3 / (1 + 0.2 * 0.3 * (step - 1)) ** 0.6
        assert default[0] == pytest.approx(1 - 0.2 * eta - eta, rel=1e-14)
        # With eta given, lr does not count.
        reference.asgd_step_(given, np.ones(1), np.zeros(1), step=step, lr=99.0, lambd=0.2, eta=0.5)
        assert given[0] == pytest.approx(1 - 0.2 * 0.5 - 0.5, rel=1e-14)


def test_lion_steps_are_lr_long() -> None:
    w, m = arrays("lion_step_")[:2]
    for step in range(1, 21):
        shrunk = w * (1 - 0.01 * 0.3)
        reference.lion_step_(w, rng(step).normal(size=5) * 10.0 ** rng(step).integers(-5, 5), m, lr=0.01, weight_decay=0.3)
        np.testing.assert_allclose(np.abs(w - shrunk), 0.01, rtol=1e-12)


def test_lamb_by_hand() -> None:
    def first_step(w: list[float], g: list[float], **options: Any) -> list[float]:
        weights = np.array(w)
        zeros = np.zeros((2, len(w)))
        reference.lamb_step_(weights, np.array(g), *zeros, lr=0.5, betas=(0.5, 0.75), **options)
        return weights.tolist()

    # Adam's direction is (1, -1); u = (4, 3), and both norms are 5.
    assert first_step([3.0, 4.0], [5.0, -0.1], eps=0.0, weight_decay=1.0) == [1.0, 2.5]
    # (6, -6) over 6 + 6: u = (2, 1.5), half as long as w
    assert first_step([3.0, 4.0], [6.0, -6.0], eps=6.0, weight_decay=0.5) == [1.0, 2.5]
    # without correction (3, -3) over 3 + 3: the same
    assert first_step([3.0, 4.0], [6.0, -6.0], eps=3.0, weight_decay=0.5, bias_correction=False) == [1.0, 2.5]
    # A norm of 0 makes the ratio 1.
    assert first_step([0.0, 0.0], [5.0, -0.1], eps=0.0, weight_decay=1.0) == [-0.5, 0.5]
    assert first_step([3.0, 4.0], [0.0, 0.0]) == [3.0, 4.0]


def test_lamb_second_step_uses_its_averages() -> None:
    w, m, v = np.array([3.0, 4.0]), np.array([2.0, -1.0]), np.array([4.0, 1.0])
    options = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 0.0, "weight_decay": 0.25}
    reference.lamb_step_(w, np.array([4.0, 2.0]), m, v, step=2, **options)
    np.testing.assert_array_equal(m, [3.0, 0.5])
    np.testing.assert_array_equal(v, [7.0, 1.75])
    u = np.array([3 / 0.75 / 4 + 0.75, 0.5 / 0.75 / 2 + 1.0])  # vhat = 16, 4
    np.testing.assert_allclose(w, [3, 4] - 0.5 * 5 * u / math.hypot(*u), rtol=1e-14)


def test_lars_by_hand() -> None:
    w, v = np.array([3.0, 4.0]), np.array([2.0, -1.0])
    options = {"lr": 0.5, "momentum": 0.5, "weight_decay": 2.0, "trust_coefficient": 0.4}
    reference.lars_step_(w, np.array([8.0, -6.0]), v, step=2, **options)
    # local = .4*5/(10 + 2*5) = .1; d = .05*(8 + 6, -6 + 8)
    np.testing.assert_allclose(v, [1.7, -0.4], rtol=1e-14)
    np.testing.assert_allclose(w, [1.3, 4.4], rtol=1e-14)


def test_lars_takes_the_rate_1_where_a_norm_is_0() -> None:
    for w, g, after in ((0.0, 3.0, -1.5), (2.0, 0.0, 1.5)):
        weights = np.array([w])
        reference.lars_step_(weights, np.array([g]), lr=0.5, momentum=0.0, weight_decay=0.5)
        assert weights[0] == after


@pytest.mark.parametrize("name", ["lamb_step_", "lars_step_"])
def test_a_layer_wise_step_is_a_share_of_the_weights(name: str) -> None:
    # Decay would be a part of the step.
    w, g, *states = arrays(name, (3, 4))
    before, options = w.copy(), {"trust_coefficient": 0.5, "momentum": 0.0} if name == "lars_step_" else {}
    getattr(reference, name)(w, g, *states, lr=0.1, **options)
    share = 0.1 * options.get("trust_coefficient", 1.0)
    assert np.linalg.norm(w - before) == pytest.approx(share * np.linalg.norm(before), rel=1e-13)


@pytest.mark.parametrize(
    ("name", "weights", "gradients", "weight_decay"),
    [
        ("lamb_step_", 1.0, 1000.0, 0.3),  # the direction has no size
        ("lamb_step_", 1000.0, 1.0, 0.0),  # a step is as long as the weights ask for
        ("lars_step_", 1.0, 1000.0, 0.0),
        ("lars_step_", 1000.0, 1.0, 0.0),
        ("lars_step_", 1000.0, 1000.0, 0.3),  # with decay, when both have another unit
    ],
)
def test_layer_wise_rules_do_not_know_units(name: str, weights: float, gradients: float, weight_decay: float) -> None:
    w = rng().normal(size=(3, 4))
    one, other = ([a, *(np.zeros_like(w) for _ in state_names(name))] for a in (w.copy(), weights * w))
    for step in range(1, 21):
        g, options = rng(step).normal(size=(3, 4)), {"step": step, "lr": 0.1, "eps": 0.0, "weight_decay": weight_decay}
        getattr(reference, name)(one[0], g, *one[1:], **options)
        getattr(reference, name)(other[0], gradients * g, *other[1:], **options)
    assert np.linalg.norm(one[0] - w) > 1e-4
    np.testing.assert_allclose(other[0], weights * one[0], rtol=1e-11)


# Norms and clipping


def test_norms_by_hand() -> None:
    a, b = np.array([[1.0, 2.0], [2.0, 0.0]]), np.array([4.0], np.float32)
    assert reference.global_norm([a, b]) == 5.0
    assert reference.global_norm((b, np.zeros(0))) == 4.0
    assert type(reference.global_norm([])) is float
    assert reference.global_norm([]) == 0.0
    assert math.isnan(reference.global_norm([a, np.array([NAN])]))
    # float32 squares would overflow
    assert reference.global_norm([np.full(4, 1e30, np.float32)]) == pytest.approx(2e30, rel=1e-6)


def test_clipping_by_hand() -> None:
    def gradients() -> list[Array]:
        return [np.array([[1.0, 2.0], [2.0, 0.0]]), np.array([-4.0], np.float32)]

    whole = gradients()
    assert reference.clip_by_global_norm_(whole, 2.5) == 5.0
    for after, before in zip(whole, gradients(), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, (before.astype(np.float64) * (2.5 / 5.000001)).astype(before.dtype))
    each = gradients()
    assert reference.clip_by_norm_(each, 3.5) == [3.0, 4.0]
    np.testing.assert_array_equal(each[0], gradients()[0])
    np.testing.assert_allclose(each[1], [-3.5], rtol=1e-6)
    assert each[1].dtype == np.float32
    value = gradients()
    reference.clip_by_value_(value, 1.5)
    np.testing.assert_array_equal(value[0], [[1.0, 1.5], [1.5, 0.0]])
    np.testing.assert_array_equal(value[1], [-1.5])
    small = gradients()
    assert reference.clip_by_global_norm_(small, 100.0) == 5.0
    for after, before in zip(small, gradients(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_clipping_does_not_hide_nan() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g = [np.array([1.0, NAN]), np.array([2.0])]
        assert math.isnan(reference.clip_by_global_norm_(g, 1.0))
        assert np.isnan(np.concatenate(g)).all()
        g = [np.array([1.0, -INF]), np.array([2.0])]
        assert reference.clip_by_global_norm_(g, 1.0) == INF
        np.testing.assert_array_equal(np.concatenate(g), [0.0, NAN, 0.0])
        g = [np.array([1.0, NAN]), np.array([2.0])]
        norms = reference.clip_by_norm_(g, 1.0)
        assert math.isnan(norms[0])
        assert norms[1] == 2.0
        np.testing.assert_array_equal(np.isnan(np.concatenate(g)), [True, True, False])
        g = [np.array([NAN, INF, -INF])]
        reference.clip_by_value_(g, 1.0)
        np.testing.assert_array_equal(g[0], [NAN, 1.0, -1.0])


@pytest.mark.parametrize("name", ["global_norm", "clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"])
def test_what_clipping_refuses(name: str) -> None:
    function, bound = getattr(reference, name), () if name == "global_norm" else (0.5,)
    good, read_only = np.ones(3), np.ones(3)
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match=f"{name}: arrays is one array, wanted a list of arrays"):
        function(good, *bound)
    with pytest.raises(TypeError, match=rf"{name}: arrays\[1\] is a list, wanted an ndarray"):
        function([good, [1.0]], *bound)
    with pytest.raises(TypeError, match=rf"{name}: arrays\[1\] has dtype int64, wanted float32 or float64"):
        function([good, np.ones(3, np.int64)], *bound)
    if name == "global_norm":
        assert function([read_only]) == math.sqrt(3)
    else:
        with pytest.raises(ValueError, match=rf"{name}: arrays\[1\] is read-only"):
            function([good, read_only], *bound)
        for bad in (-1.0, NAN):
            with pytest.raises(ValueError, match=f"{name}: [a-z_]+ is {bad}, wanted 0 or more"):
                function([good], bad)
    np.testing.assert_array_equal(good, 1.0)
