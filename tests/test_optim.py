"""Optimizers over 60 steps: every option, every state, element-wise against the reference; sizes past chunks and threads."""

import copy
import inspect
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim, reference

from .conftest import vector_width
from .helpers import Array, Dlpack, assert_same_bits, buffer, layouts, normal

STEPS = 60
CHUNK = 16384  # elements that one thread takes at a time
RTOL = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}

# For each rule: its bare step, its class, its states, and options with their values. No decay is ever 0 except where said so.
PENALTIES = {"weight_decay": 0.02, "l1": 0.003}
SGD_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "lr_in_velocity": {"momentum": 0.9, "lr_in_velocity": True},
    "lr_in_velocity without momentum": {"lr_in_velocity": True},
    "dampening without momentum": {"dampening": 0.5},
}
ADAM_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "betas": {"betas": (0.7, 0.95)},
    "betas of 0": {"betas": (0.0, 0.9)},
    "eps": {"eps": 0.1},
    "eps_inside_sqrt": {"eps": 0.01, "eps_inside_sqrt": True},
    "no bias_correction": {"bias_correction": False, "eps": 1e-3},
    "no bias_correction, eps_inside_sqrt": {"bias_correction": False, "eps": 1e-3, "eps_inside_sqrt": True},
    "decoupled": {"decoupled_weight_decay": True},
}
RULES: dict[str, tuple[str, type[optim.Optimizer], tuple[str, ...], dict[str, dict[str, Any]]]] = {
    "sgd": ("sgd_step_", optim.SGD, ("momentum_buffer",), SGD_OPTIONS),
    "adam": ("adam_step_", optim.Adam, ("exp_avg", "exp_avg_sq"), ADAM_OPTIONS),
}
SHARED: dict[str, dict[str, Any]] = {"minimize": PENALTIES, "maximize": {**PENALTIES, "maximize": True}, "no penalties": {}}
SHARED |= {"weight_decay alone": {"weight_decay": 0.05}, "l1 alone": {"l1": 0.01}}

CASES = [
    pytest.param(rule, {"lr": 0.01, **own, **shared}, id=f"{rule}-{own_name}-{shared_name}")
    for rule, (_, _, _, options) in RULES.items()
    for own_name, own in options.items()
    for shared_name, shared in SHARED.items()
]


def test_the_rules_here_are_those_of_the_core() -> None:
    assert set(RULES) == set(_core.optimizers)
    classes = {c for c in vars(optim).values() if isinstance(c, type) and issubclass(c, optim.Optimizer)} - {optim.Optimizer}
    assert classes == {optim.SGD, optim.Adam, optim.AdamW}


@pytest.mark.parametrize("rule", RULES)
def test_every_option_is_tried(rule: str) -> None:
    step, cls, states, options = RULES[rule]
    tried = {name for group in (*options.values(), *SHARED.values()) for name in group} | {"lr"}
    assert set(inspect.signature(cls).parameters) - {"params"} == tried
    assert set(inspect.signature(getattr(optim, step)).parameters) - {"w", "g", "step", *states} == tried


def gradient(w: Array, step: int, noise: Array) -> Array:
    """A gradient that moves the states about: of a bowl, and noise that is the same for all copies of w."""
    return (w.dtype.type(0.3) * w + np.roll(noise, step)).astype(w.dtype)


def start(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    """Weights with exact zeros among them, where l1's sign is 0."""
    w = normal(rng, dtype, *shape)
    w.reshape(-1)[::7] = 0
    return w


def run_bare(rule: str, module: Any, w: Array, noise: Array, options: dict[str, Any], steps: int = STEPS) -> list[Array]:
    """[w, states...] after some steps; the gradients must come back as they went in."""
    step_name, _, state_names, _ = RULES[rule]
    w = w.copy()
    states = [np.zeros_like(w) for _ in state_names]
    for step in range(1, steps + 1):
        # Both sides take the gradients of their own weights, in their own dtype.
        g = gradient(w, step, noise.astype(w.dtype))
        kept = g.copy()
        getattr(module, step_name)(w, g, *states, step=step, **options)
        assert_same_bits(g, kept)
    return [w, *states]


def assert_close(got: Array, expected: Array, dtype: np.dtype, what: object = "") -> None:
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(got, expected, rtol=RTOL[dtype], atol=RTOL[dtype] * scale, err_msg=str(what))


@pytest.mark.parametrize(("rule", "options"), CASES)
def test_bare_step_is_the_reference(rule: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    n = 4 * vector_width(dtype) + 3
    w, noise = start(rng, dtype, n), normal(rng, dtype, n)
    got = run_bare(rule, optim, w, noise, options)
    expected = run_bare(rule, reference, w.astype(np.float64), noise.astype(np.float64), options)
    for name, mine, wanted in zip(("w", *RULES[rule][2]), got, expected, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, wanted, dtype, name)
    assert not np.array_equal(got[0], w)


@pytest.mark.parametrize(("rule", "options"), CASES)
def test_class_is_the_bare_step(rule: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    _, cls, state_names, _ = RULES[rule]
    shapes = [(4 * vector_width(dtype) + 3,), (1,), (3, 5), (2, 3, 4), ()]
    starts = [start(rng, dtype, *shape) if shape else np.array(0.7, dtype) for shape in shapes]
    noises = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    params = [w.copy() for w in starts]
    optimizer = cls(params, **options)
    for step in range(1, STEPS + 1):
        optimizer.step([gradient(w, step, noise) for w, noise in zip(params, noises, strict=True)])
    uses_states = rule != "sgd" or options.get("momentum", 0) != 0
    for i, (w, noise) in enumerate(zip(starts, noises, strict=True)):
        expected = run_bare(rule, optim, w, noise, options)
        assert_same_bits(params[i], expected[0], (i, "w"))
        entry = optimizer.state[i]
        assert set(entry) == {"step", *(state_names if uses_states else ())}
        assert entry["step"] == STEPS
        for name, wanted in zip(state_names, expected[1:], strict=True):
            if uses_states:
                assert_same_bits(entry[name], wanted, (i, name))


def test_adamw_is_adam_with_decoupled_decay(dtype: np.dtype, rng: np.random.Generator) -> None:
    w, noise = start(rng, dtype, 100), normal(rng, dtype, 100)
    one, other = w.copy(), w.copy()
    adamw = optim.AdamW([one], lr=0.01, betas=(0.8, 0.9), l1=0.01, maximize=True)
    adam = optim.Adam([other], lr=0.01, betas=(0.8, 0.9), l1=0.01, maximize=True, weight_decay=0.01, decoupled_weight_decay=True)
    for step in range(1, STEPS + 1):
        adamw.step([gradient(one, step, noise)])
        adam.step([gradient(other, step, noise)])
    assert_same_bits(one, other)
    assert_same_bits(adamw.state[0]["exp_avg_sq"], adam.state[0]["exp_avg_sq"])
    assert isinstance(adamw, optim.Adam)


def sizes(dtype: Any) -> list[int]:
    width = vector_width(dtype)
    return [0, 1, 3, width - 1, width, width + 1, 255, 257, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 100_003]


HARD_OPTIONS = {
    "sgd": {"lr": 0.02, "momentum": 0.9, "dampening": 0.1, **PENALTIES},
    "adam": {"lr": 0.02, "decoupled_weight_decay": True, **PENALTIES},
}


@pytest.mark.parametrize("rule", RULES)
def test_sizes_past_chunks_and_threads(rule: str, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for n in sizes(dtype):
        w, noise = start(rng, dtype, n), normal(rng, dtype, n)
        got = run_bare(rule, optim, w, noise, HARD_OPTIONS[rule], steps=4)
        expected = run_bare(rule, reference, w.astype(np.float64), noise.astype(np.float64), HARD_OPTIONS[rule], steps=4)
        for mine, wanted in zip(got, expected, strict=True):
            assert_close(mine, wanted, dtype, n)


@pytest.mark.parametrize("rule", RULES)
def test_60_steps_of_a_list_of_many_sizes(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    # The pieces of work end within arrays, between them, and several arrays within one piece.
    lengths = [*sizes(dtype), 5000, 1, 0, 7, 12_345]
    starts, noises = ([f(rng, dtype, n) for n in lengths] for f in (start, normal))
    results = {}
    for n_threads in (1, 2, 3):
        params = [w.copy() for w in starts]
        with ts.num_threads(n_threads):
            optimizer = RULES[rule][1](params, **HARD_OPTIONS[rule])
            for step in range(1, STEPS + 1):
                optimizer.step([gradient(w, step, noise) for w, noise in zip(params, noises, strict=True)])
        states = [v for entry in optimizer.state for k, v in entry.items() if k != "step"]
        results[n_threads] = [*params, *states]
    for n_threads in (2, 3):
        for got, wanted in zip(results[n_threads], results[1], strict=True):
            assert_same_bits(got, wanted, n_threads)
    for i, (w, noise) in enumerate(zip(starts, noises, strict=True)):
        assert_same_bits(results[1][i], run_bare(rule, optim, w, noise, HARD_OPTIONS[rule])[0], i)
        # Not the large ones: of many weights, in float32 and 60 steps, one passes 0 a step later, and then l1 has another sign.
        if len(w) < 300:
            expected = run_bare(rule, reference, w.astype(np.float64), noise.astype(np.float64), HARD_OPTIONS[rule])
            assert_close(results[1][i], expected[0], dtype, i)


@pytest.mark.parametrize("rule", RULES)
def test_no_neighbour_is_touched(rule: str, dtype: np.dtype) -> None:
    step_name, _, state_names, _ = RULES[rule]
    for n in (1, 3, 8, 13, 31, 100):
        arenas = [np.full(n + 200, 7, dtype) for _ in range(1 + len(state_names))]
        w, *states = (arena[100 : 100 + n] for arena in arenas)
        getattr(optim, step_name)(w, np.ones(n, dtype), *states, **HARD_OPTIONS[rule])
        for arena in arenas:
            assert (np.delete(arena, np.s_[100 : 100 + n]) == 7).all()


@pytest.mark.parametrize("rule", RULES)
def test_nan_and_infinity_stay_where_they_are(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = start(rng, dtype, 100), normal(rng, dtype, 100)
    g[[13, 14, 15]] = np.nan, np.inf, -np.inf
    w[50] = np.nan
    step_name, _, state_names, _ = RULES[rule]
    mine, theirs = ([w.copy(), *(np.zeros(100, dtype) for _ in state_names)] for _ in range(2))
    getattr(optim, step_name)(mine[0], g, *mine[1:], **HARD_OPTIONS[rule])
    getattr(reference, step_name)(theirs[0], g, *theirs[1:], **HARD_OPTIONS[rule])
    for got, expected in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=RTOL[dtype], atol=1e-6)
    assert np.isfinite(np.delete(mine[0], [13, 14, 15, 50])).all()


def test_infinite_weights_without_penalties_are_no_nan(dtype: np.dtype) -> None:
    # A penalty of 0 adds nothing: not 0 * infinity.
    for name in ("sgd_step_", "adam_step_"):
        states = [np.zeros(3, dtype) for _ in RULES[name[: -len("_step_")]][2]]
        for options in ({}, {"weight_decay": 0.0, "l1": 0.01}):
            w, theirs = np.array([np.inf, 1, -np.inf], dtype), np.array([np.inf, 1, -np.inf], dtype)
            getattr(optim, name)(w, np.ones(3, dtype), *(s.copy() for s in states), **options)
            getattr(reference, name)(theirs, np.ones(3, dtype), *(s.copy() for s in states), **options)
            np.testing.assert_allclose(w, theirs, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_may_come_in_any_form(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = start(rng, dtype, 5, 9), normal(rng, dtype, 5, 9)
    step_name, cls, state_names, _ = RULES[rule]
    expected = w.copy()
    getattr(optim, step_name)(expected, g, *(np.zeros_like(w) for _ in state_names), **HARD_OPTIONS[rule])
    for layout, form in layouts(g).items():
        bare, params = w.copy(), w.copy()
        getattr(optim, step_name)(bare, form, *(np.zeros_like(w) for _ in state_names), **HARD_OPTIONS[rule])
        assert_same_bits(bare, expected, layout)
        cls([params], **HARD_OPTIONS[rule]).step((form,))
        assert_same_bits(params, expected, layout)


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


# --- objects ---------------------------------------------------------------------------------------------------------------------


def problem(rng: np.random.Generator, dtype: Any = np.float64) -> tuple[list[Array], list[Array]]:
    shapes = ((30, 20), (20,), (20, 7), (7,))
    return [start(rng, dtype, *s) for s in shapes], [normal(rng, dtype, *s) for s in shapes]


def advance(optimizer: optim.Optimizer, params: list[Array], noises: list[Array], steps: range) -> None:
    for step in steps:
        optimizer.step([gradient(w, step, noise) for w, noise in zip(params, noises, strict=True)])


OPTIMIZERS: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.SGD, {"lr": 0.01, **PENALTIES}),
    (optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, **PENALTIES}),
    (optim.SGD, {"lr": 0.01, "momentum": 0.9, "lr_in_velocity": True, **PENALTIES}),
    (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, **PENALTIES}),
    (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "l1": 0.01}),
]
EACH_OPTIMIZER = pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))


def test_param_groups_have_options_of_their_own(dtype: np.dtype, rng: np.random.Generator) -> None:
    params, noises = problem(rng, dtype)
    alone = [w.copy() for w in params]
    groups = [
        {"params": params[:1], "lr": 0.1, "weight_decay": 0.2},
        {"params": params[1:3], "betas": (0.5, 0.9)},
        {"params": iter(params[3:])},
    ]
    optimizer = optim.Adam(groups, lr=0.01, l1=0.001)
    own: list[dict[str, Any]] = [{"lr": 0.1, "weight_decay": 0.2}, {"betas": (0.5, 0.9)}, {"betas": (0.5, 0.9)}, {}]
    singles = [optim.Adam([w], **{"lr": 0.01, "l1": 0.001, **o}) for w, o in zip(alone, own, strict=True)]
    for steps in (range(1, 31), range(31, 61)):
        advance(optimizer, params, noises, steps)
        for i, single in enumerate(singles):
            advance(single, alone[i : i + 1], noises[i : i + 1], steps)
            assert_same_bits(params[i], alone[i], i)
        optimizer.param_groups[1]["lr"] = singles[1].lr = singles[2].lr = 0.05
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.05, 0.01]
    assert optimizer.lr == 0.1
    optimizer.lr = 0.3
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("cls", "before", "after"),
    [
        (optim.SGD, {"momentum": 0.9, **PENALTIES}, {"lr": 0.2}),
        (optim.SGD, {"momentum": 0.9, **PENALTIES}, {"momentum": 0.5}),
        (optim.SGD, {"momentum": 0.9, **PENALTIES}, {"dampening": 0.5}),
        (optim.SGD, {"momentum": 0.9, **PENALTIES}, {"nesterov": True}),
        (optim.SGD, PENALTIES, {"weight_decay": 0.3}),
        (optim.SGD, PENALTIES, {"l1": 0.0}),
        (optim.SGD, PENALTIES, {"maximize": True}),
        (optim.SGD, {"momentum": 0.9, "lr_in_velocity": True, **PENALTIES}, {"lr": 0.2}),
        (optim.Adam, PENALTIES, {"lr": 0.2}),
        (optim.Adam, PENALTIES, {"betas": (0.5, 0.6)}),
        (optim.Adam, PENALTIES, {"eps": 0.1}),
        (optim.Adam, PENALTIES, {"weight_decay": 0.0}),
        (optim.Adam, PENALTIES, {"decoupled_weight_decay": True}),
        (optim.Adam, PENALTIES, {"bias_correction": False}),
        (optim.Adam, PENALTIES, {"eps": 0.1, "eps_inside_sqrt": True}),
        (optim.AdamW, {"l1": 0.01}, {"maximize": True}),
    ],
)
def test_options_set_midway_take_effect(
    cls: type[optim.Optimizer], before: dict[str, Any], after: dict[str, Any], rng: np.random.Generator
) -> None:
    w, noise = start(rng, np.float64, 70), normal(rng, np.float64, 70)
    theirs = w.copy()
    optimizer = cls([w], lr=0.01, **before)
    rule = optimizer._kind
    advance(optimizer, [w], [noise], range(1, 31))
    for name, value in after.items():
        if name == "lr":
            optimizer.lr = value
            assert optimizer.lr == value
        else:
            optimizer.param_groups[0][name] = value
    untouched_w = w.copy()
    advance(optimizer, [w], [noise], range(31, 61))
    states = [np.zeros_like(theirs) for _ in RULES[rule][2]]
    base = {k: v for k, v in cls(lr=0.01, **before).param_groups[0].items() if k != "params"}
    for step in range(1, 61):
        options = base if step <= 30 else base | after
        getattr(reference, f"{rule}_step_")(theirs, gradient(theirs, step, noise), *states, step=step, **options)
    assert_close(w, theirs, np.dtype(np.float64))
    assert not np.array_equal(w, untouched_w)


def test_every_way_of_setting_a_group_option_takes_effect_or_raises() -> None:
    def after(change: Any) -> float:
        w = np.ones(1)
        optimizer = optim.SGD([w], lr=0.5)
        try:
            change(optimizer.param_groups[0])
        except (TypeError, ValueError):
            return 0.0  # refused
        assert optimizer.param_groups[0]["lr"] == 0.0
        optimizer.step([np.ones(1)])
        return float(1 - w[0])

    def ior(group: Any) -> None:
        group |= {"lr": 0.0}

    for change in (lambda g: g.__setitem__("lr", 0.0), lambda g: g.update(lr=0.0), lambda g: g.update({"lr": 0.0}), ior):
        assert after(change) == 0.0


def test_momentum_set_later_starts_from_an_empty_buffer(rng: np.random.Generator) -> None:
    w, noise = start(rng, np.float64, 20), normal(rng, np.float64, 20)
    theirs, buffer_ = w.copy(), np.zeros(20)
    optimizer = optim.SGD([w], lr=0.1, weight_decay=0.1)
    for step in range(1, 5):
        if step == 3:
            optimizer.param_groups[0]["momentum"] = 0.9
        optimizer.step([noise * step])
        momentum = 0.9 if step >= 3 else 0.0
        reference.sgd_step_(theirs, noise * step, buffer_, step=step, lr=0.1, weight_decay=0.1, momentum=momentum)
    assert_close(w, theirs, np.dtype(np.float64))
    assert "momentum_buffer" in optimizer.state[0]


@EACH_OPTIMIZER
def test_state_dict_resumes_to_the_same_bits(
    cls: type[optim.Optimizer], options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator
) -> None:
    params, noises = problem(rng, dtype)
    optimizer = cls([{"params": params[:2], "lr": 0.03}, {"params": params[2:]}], **options)
    advance(optimizer, params, noises, range(1, 31))
    saved, saved_params = copy.deepcopy(optimizer.state_dict()), [w.copy() for w in params]
    advance(optimizer, params, noises, range(31, 61))

    resumed = cls([{"params": saved_params[:2]}, {"params": saved_params[2:]}])
    resumed.load_state_dict(saved)
    assert [{**g, "params": None} for g in resumed.param_groups] == [{**g, "params": None} for g in saved["param_groups"]]
    advance(resumed, saved_params, noises, range(31, 61))
    for got, wanted in zip(saved_params, params, strict=True):
        assert_same_bits(got, wanted)
    for mine, theirs in zip(resumed.state, optimizer.state, strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["step"] == theirs["step"] == 60
        for name in mine.keys() - {"step"}:
            assert_same_bits(mine[name], theirs[name], name)


def test_state_dict_loads_over_options_of_any_kind(rng: np.random.Generator) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "lr_in_velocity": True},
    ]
    for old in kinds:
        for new in kinds:
            w, noise = start(rng, np.float64, 20), normal(rng, np.float64, 20)
            theirs = w.copy()
            source = optim.SGD([theirs], lr=0.1, **new)
            advance(source, [theirs], [noise], range(1, 4))
            target = optim.SGD([w], **old)
            target.load_state_dict(source.state_dict())
            w[...] = theirs
            advance(source, [theirs], [noise], range(4, 8))
            advance(target, [w], [noise], range(4, 8))
            assert_same_bits(w, theirs, (old, new))


@EACH_OPTIMIZER
def test_state_dict_is_a_copy_in_torchs_structure(cls: type[optim.Optimizer], options: dict[str, Any]) -> None:
    params = [np.ones((2, 3)), np.ones(4)]
    optimizer = cls(params, **options)
    optimizer.step([np.ones((2, 3)), np.ones(4)])
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    assert set(saved) == {"state", "param_groups"}
    assert [g["params"] for g in saved["param_groups"]] == [[0, 1]]
    assert set(saved["state"]) == {0, 1}
    assert all(type(group) is dict for group in saved["param_groups"])
    for i, shape in enumerate([(2, 3), (4,)]):
        assert saved["state"][i]["step"] == 1
        assert all(v.shape == shape for k, v in saved["state"][i].items() if k != "step")
    optimizer.step([np.ones((2, 3)), np.ones(4)])
    np.testing.assert_equal(saved, kept)


def test_state_is_a_view_and_is_counted(dtype: np.dtype) -> None:
    params = [np.ones((10, 3), dtype), np.ones(7, dtype)]
    numbers = 37 * dtype.itemsize
    assert optim.SGD(params).state_nbytes == 0
    assert optim.SGD(params, momentum=0.9).state_nbytes == numbers
    assert optim.Adam(params).state_nbytes == 2 * numbers
    assert optim.Adam().state_nbytes == 0
    optimizer = optim.SGD(params, lr=0.5, momentum=0.5)
    optimizer.step([np.zeros((10, 3), dtype), np.zeros(7, dtype)])
    optimizer.state[1]["momentum_buffer"][...] = 4
    optimizer.step([np.zeros((10, 3), dtype), np.zeros(7, dtype)])
    np.testing.assert_array_equal(params[1], 0)  # 1 - 0.5 * (0.5 * 4)


def test_views_of_states_outlive_their_optimizer() -> None:
    optimizer = optim.Adam([np.ones(1000)])
    optimizer.step([np.full(1000, 2.0)])
    view = optimizer.state[0]["exp_avg"]
    del optimizer
    np.testing.assert_allclose(view, 0.2)


def test_step_counts_and_lr_shrinks_along(dtype: np.dtype) -> None:
    w = np.zeros(1, dtype)
    optimizer = optim.SGD([w])
    path = [float(w[0])]
    for _ in range(10):
        optimizer.lr = 0.5 / (optimizer.state[0]["step"] + 1)
        optimizer.step([np.ones(1, dtype)])
        path.append(float(w[0]))
    np.testing.assert_allclose([a - b for a, b in pairwise(path)], [0.5 / t for t in range(1, 11)], rtol=1e-5)


def test_adam_after_very_many_steps(dtype: np.dtype, rng: np.random.Generator) -> None:
    # The bias corrections vanish: 0.9^t and 0.999^t underflow.
    for step in (1000, 10**5, 10**9, 2**40):
        w, g, m, v = (normal(rng, dtype, 50) for _ in range(4))
        v *= v
        mine, theirs = ([a.copy() for a in (w, g, m, v)] for _ in range(2))
        optim.adam_step_(*mine, step=step, lr=0.1)
        reference.adam_step_(*theirs, step=step, lr=0.1)
        for got, expected in zip(mine, theirs, strict=True):
            assert_close(got, expected, dtype, step)


def test_repr_tells_the_options() -> None:
    assert repr(optim.SGD(lr=0.5, momentum=0.9)).startswith("SGD(lr=0.5, momentum=0.9, ")
