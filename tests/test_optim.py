"""Optimizers over many steps: every option, every state, element-wise against the reference; sizes past chunks and threads."""

import inspect
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim, reference

from .conftest import vector_width
from .helpers import Dlpack, assert_same_bits, buffer, layouts, normal
from .optim_rules import (
    CLASSES,
    HARD_OPTIONS,
    ON_WHOLE_ARRAYS,
    OPTIONS,
    RTOL,
    SHARED,
    STEPS,
    Bare,
    advance,
    arrays_of,
    assert_close,
    gradient,
    own_options,
    start,
    used_states,
)

CHUNK = 16384  # elements that one thread takes at a time

CASES = [
    pytest.param(rule, own_options(rule, own, shared), id=f"{rule}-{own_name}-{shared_name}")
    for rule, all_own in OPTIONS.items()
    for own_name, own in all_own.items()
    for shared_name, shared in SHARED.items()
]
EACH_RULE = pytest.mark.parametrize("rule", OPTIONS)


def test_the_rules_here_are_those_of_the_core() -> None:
    assert tuple(OPTIONS) == _core.optimizers
    assert set(CLASSES) == set(OPTIONS)
    classes = {c for c in vars(optim).values() if isinstance(c, type) and issubclass(c, optim.Optimizer)} - {optim.Optimizer}
    assert classes == {*CLASSES.values(), optim.AdamW}


@EACH_RULE
def test_every_option_is_tried(rule: str) -> None:
    tried = {name for _, options in (case.values for case in CASES if case.values[0] == rule) for name in options}
    assert set(inspect.signature(CLASSES[rule]).parameters) - {"params", "state_dtype", "seed"} == tried
    states = _core.optimizer_states[rule]
    bare = set(inspect.signature(getattr(optim, f"{rule}_step_")).parameters) - {"w", "g", "step", *states}
    kept_by_class = {"nadam": {"mu_product"}, "asgd": {"eta"}}.get(rule, set())
    fills_a_state = {"adagrad": {"initial_accumulator_value"}, "rprop": {"lr"}}.get(rule, set())
    assert bare - kept_by_class == tried - fills_a_state


@pytest.mark.parametrize(("rule", "options"), CASES)
def test_bare_step_is_the_reference(rule: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    n = 4 * vector_width(dtype) + 3
    w, noise = start(rng, dtype, n), normal(rng, dtype, n)
    got = Bare(rule, optim, w, options).run(noise, options)
    expected = Bare(rule, reference, w.astype(np.float64), options).run(noise.astype(np.float64), options)
    for name, mine in got.arrays.items():
        assert mine.dtype == dtype
        assert_close(mine, expected.arrays[name], dtype, name)
    for name, number in expected.numbers.items():
        assert got.numbers[name] == pytest.approx(number, rel=1e-12)
    assert not np.array_equal(got.w, w)


# The penalties are the same code for all: with them and without.
@pytest.mark.parametrize(("rule", "options"), [case for case in CASES if case.id.endswith(("-minimize", "-no penalties"))])
def test_class_is_the_bare_step(rule: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    shapes = [(4 * vector_width(dtype) + 3,), (1,), (3, 5), (2, 3, 4), ()]
    starts = [start(rng, dtype, *shape) if shape else np.array(0.7, dtype) for shape in shapes]
    noises = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    params = [w.copy() for w in starts]
    optimizer = CLASSES[rule](params, **options)
    advance(optimizer, params, noises, range(1, 21))
    for i, (w, noise) in enumerate(zip(starts, noises, strict=True)):
        expected = Bare(rule, optim, w, options).run(noise, options, steps=20)
        assert_same_bits(params[i], expected.w, (i, "w"))
        entry = optimizer.state[i]
        kept = {"nadam": {"mu_product"}, "asgd": {"eta", "mu"}}.get(rule, set())
        names = used_states(rule, options)
        assert set(entry) == {"step", *kept, *names}
        assert entry["step"] == 20
        for name in names:
            assert_same_bits(entry[name], expected.states[name], (i, name))
        for name, number in expected.numbers.items():
            assert entry[name] == pytest.approx(number, rel=1e-12)


def test_adamw_is_adam_with_decoupled_decay(dtype: np.dtype, rng: np.random.Generator) -> None:
    w, noise = start(rng, dtype, 100), normal(rng, dtype, 100)
    one, other = w.copy(), w.copy()
    adamw = optim.AdamW([one], lr=0.01, betas=(0.8, 0.9), l1=0.01, maximize=True, amsgrad=True)
    adam = optim.Adam(
        [other], 0.01, (0.8, 0.9), 1e-8, 0.01, True, l1=0.01, maximize=True, decoupled_weight_decay=True
    )  # positional as PyTorch's
    advance(adamw, [one], [noise], range(1, STEPS + 1))
    advance(adam, [other], [noise], range(1, STEPS + 1))
    assert_same_bits(one, other)
    for mine, theirs in zip(arrays_of(adamw), arrays_of(adam), strict=True):
        assert_same_bits(mine, theirs)
    assert isinstance(adamw, optim.Adam)


def test_the_numbers_that_nadam_and_asgd_keep_follow_from_the_step(dtype: np.dtype, rng: np.random.Generator) -> None:
    # Where they are not given, they are computed as if the options had always been as now.
    w, g = start(rng, dtype, 50), normal(rng, dtype, 50)
    states = {name: (normal(rng, dtype, 50), abs(normal(rng, dtype, 50))) for name in ("nadam", "asgd")}
    for step in (1, 2, 7, 60):
        for module in (optim, reference):
            given, left_out = w.copy(), w.copy()
            product = float(np.prod([0.8 * (1 - 0.5 * 0.96 ** (t * 0.1)) for t in range(1, step)]))
            options: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.9), "momentum_decay": 0.1, "step": step}
            m, v = states["nadam"]
            after = module.nadam_step_(given, g, m.copy(), v.copy(), mu_product=product, **options)
            assert module.nadam_step_(left_out, g, m.copy(), v.copy(), **options) == pytest.approx(after, rel=1e-12)
            assert_close(left_out, given, dtype, step)

            given, left_out = w.copy(), w.copy()
            eta = 0.1 / (1 + 0.2 * 0.1 * (step - 1)) ** 0.75
            module.asgd_step_(given, g, m.copy(), step=step, lr=0.1, lambd=0.2, eta=eta)
            module.asgd_step_(left_out, g, m.copy(), step=step, lr=0.1, lambd=0.2)
            assert_close(left_out, given, dtype, step)


def sizes(dtype: Any) -> list[int]:
    width = vector_width(dtype)
    return [0, 1, 3, width - 1, width, width + 1, 255, 257, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 100_003]


@EACH_RULE
def test_sizes_past_chunks_and_threads(rule: str, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for n in sizes(dtype):
        w, noise = start(rng, dtype, n), normal(rng, dtype, n)
        options = HARD_OPTIONS[rule]
        got = Bare(rule, optim, w, options).run(noise, options, steps=4)
        expected = Bare(rule, reference, w.astype(np.float64), options).run(noise.astype(np.float64), options, steps=4)
        for name, mine in got.arrays.items():
            assert_close(mine, expected.arrays[name], dtype, (n, name))


@EACH_RULE
def test_15_steps_of_a_list_of_many_sizes(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    # The pieces of work end within arrays, between them, and several arrays within one piece.
    lengths = [*sizes(dtype), 5000, 1, 0, 7, 12_345]
    starts, noises = ([f(rng, dtype, n) for n in lengths] for f in (start, normal))
    options = HARD_OPTIONS[rule]
    results = {}
    for n_threads in (1, 2, 3):
        params = [w.copy() for w in starts]
        with ts.num_threads(n_threads):
            optimizer = CLASSES[rule](params, **options)
            advance(optimizer, params, noises, range(1, 16))
        results[n_threads] = [*params, *arrays_of(optimizer)]
    for n_threads in (2, 3):
        for got, wanted in zip(results[n_threads], results[1], strict=True):
            assert_same_bits(got, wanted, n_threads)
    for i, (w, noise) in enumerate(zip(starts, noises, strict=True)):
        bare = Bare(rule, optim, w, options).run(noise, options, steps=15).w
        if rule in ON_WHOLE_ARRAYS:  # whose norms are added up in the pieces that the list is cut into
            assert_close(results[1][i], bare, dtype, i)
        else:
            assert_same_bits(results[1][i], bare, i)
        # Not the large ones: of many weights, in float32, one passes 0 a step later, and then l1 has another sign.
        if len(w) < 300:
            expected = Bare(rule, reference, w.astype(np.float64), options).run(noise.astype(np.float64), options, steps=15)
            assert_close(results[1][i], expected.w, dtype, i)


@EACH_RULE
def test_no_neighbour_is_touched(rule: str, dtype: np.dtype) -> None:
    options = {k: v for k, v in HARD_OPTIONS[rule].items() if k != "initial_accumulator_value" and (rule, k) != ("rprop", "lr")}
    for n in (1, 3, 8, 13, 31, 100):
        arenas = [np.full(n + 200, 7, dtype) for _ in range(1 + len(_core.optimizer_states[rule]))]
        w, *states = (arena[100 : 100 + n] for arena in arenas)
        getattr(optim, f"{rule}_step_")(w, np.ones(n, dtype), *states, **options)
        for arena in arenas:
            assert (np.delete(arena, np.s_[100 : 100 + n]) == 7).all()


@EACH_RULE
def test_nan_and_infinity_stay_where_they_are(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = start(rng, dtype, 100), normal(rng, dtype, 100)
    g[[13, 14, 15]] = np.nan, np.inf, -np.inf
    w[50] = np.nan
    mine, theirs = (Bare(rule, module, w, HARD_OPTIONS[rule]) for module in (optim, reference))
    for one in (mine, theirs):
        one.step(g, HARD_OPTIONS[rule])
    for name, got in mine.arrays.items():
        np.testing.assert_allclose(got, theirs.arrays[name], rtol=RTOL[dtype], atol=1e-6, err_msg=name)
    if rule not in ON_WHOLE_ARRAYS:
        assert np.isfinite(np.delete(mine.w, [13, 14, 15, 50])).all()


@EACH_RULE
def test_infinite_weights_without_penalties_are_no_nan(rule: str, dtype: np.dtype) -> None:
    # A penalty of 0 adds nothing: not 0 * infinity.
    w = np.array([np.inf, 1, -np.inf], dtype)
    for shared in ({"weight_decay": 0.0}, {"weight_decay": 0.0, "l1": 0.01}):
        options = own_options(rule, {"lambd": 0.0} if rule == "asgd" else {}, shared)
        mine, theirs = (Bare(rule, module, w, options) for module in (optim, reference))
        for one in (mine, theirs):
            one.step(np.ones(3, dtype), options)
        np.testing.assert_allclose(mine.w, theirs.w, rtol=1e-6)


@EACH_RULE
def test_gradients_may_come_in_any_form(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = start(rng, dtype, 5, 9), normal(rng, dtype, 5, 9)
    options = HARD_OPTIONS[rule]
    expected = Bare(rule, optim, w, options)
    expected.step(g, options)
    bare_options = {k: v for k, v in options.items() if k != "initial_accumulator_value" and (rule, k) != ("rprop", "lr")}
    for layout, form in layouts(g).items():
        bare = Bare(rule, optim, w, options)
        bare.function(bare.w, form, *bare.states.values(), **bare_options)
        assert_same_bits(bare.w, expected.w, layout)
        param = w.copy()
        CLASSES[rule]([param], **options).step((form,))
        assert_same_bits(param, expected.w, layout)


@pytest.mark.parametrize("wrap", [Dlpack, buffer], ids=["dlpack", "buffer"])
def test_parameters_may_be_of_another_library(wrap: Any, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = start(rng, dtype, 5, 9), normal(rng, dtype, 5, 9)
    expected = w.copy()
    optim.sgd_step_(expected, g, lr=0.1)
    bare, param = wrap(w.copy()), wrap(w.copy())
    optim.sgd_step_(bare, g, lr=0.1)
    optim.SGD([param], lr=0.1).step([g])
    for form in (bare, param):
        assert_same_bits(np.from_dlpack(form) if isinstance(form, Dlpack) else np.asarray(form), expected)


def test_rules_after_very_many_steps(dtype: np.dtype, rng: np.random.Generator) -> None:
    # The bias corrections vanish: 0.9^t and 0.999^t underflow.
    for rule in ("adam", "adamax", "radam", "lamb", "adagrad", "asgd"):
        for step in (1000, 10**5, 10**9, 2**40):
            w, g, *states = (normal(rng, dtype, 50) for _ in range(2 + len(_core.optimizer_states[rule])))
            for state in states[-2:]:
                state *= state
            mine, theirs = ([a.copy() for a in (w, g, *states)] for _ in range(2))
            getattr(optim, f"{rule}_step_")(*mine, step=step, lr=0.1)
            getattr(reference, f"{rule}_step_")(*theirs, step=step, lr=0.1)
            for got, expected in zip(mine, theirs, strict=True):
                assert_close(got, expected, dtype, (rule, step))


def test_lamb_and_lars_step_as_far_as_their_weights_say(dtype: np.dtype) -> None:
    # Both norms of 0: the trust ratio is 1. A gradient a thousand times larger: the same step.
    for rule, options in (("lamb", {"weight_decay": 0.0}), ("lars", {"trust_coefficient": 0.5, "momentum": 0.0})):
        for n in (7, 2 * CHUNK + 5):
            zeros = np.zeros(n, dtype)
            CLASSES[rule]([zeros], lr=0.25, **options).step([np.ones(n, dtype)])
            np.testing.assert_allclose(zeros, -0.25, rtol=1e-5)
            lengths = []
            for scale in (1, 1000):
                w = np.ones(n, dtype)
                CLASSES[rule]([w], lr=0.25, **options).step([np.full(n, scale, dtype)])
                lengths.append(1 - w[0])
            np.testing.assert_allclose(lengths, 0.25 if rule == "lamb" else 0.125, rtol=1e-5)


def test_a_step_moves_along_its_gradient(dtype: np.dtype) -> None:
    for rule, cls in CLASSES.items():
        w = np.ones(1, dtype)
        optimizer = cls([w], lr=0.05)
        for _ in range(3):
            optimizer.step([gradient(w, 1, np.ones(1, dtype))])
        assert w[0] < 1, rule
