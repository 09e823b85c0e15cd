"""Optimizers as objects: param groups, options set midway, schedules, states and where they are kept, copies."""

import copy
import gc
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim, reference

from .helpers import Array, assert_same_bits, normal
from .optim_rules import CLASSES, HARD_OPTIONS, NO_LOW_BITS, Bare, advance, arrays_of, assert_close, own_options, problem, start

pytestmark = pytest.mark.one_level

PENALTIES = {"weight_decay": 0.02, "l1": 0.003}
EACH_RULE = pytest.mark.parametrize("rule", CLASSES)


# --- param groups and options --------------------------------------------------------------------------------------------------


def test_param_groups_have_options_of_their_own(dtype: np.dtype, rng: np.random.Generator) -> None:
    params, noises = problem(rng, dtype)
    alone = [w.copy() for w in params]
    groups = [
        {"params": params[:1], "lr": 0.1, "weight_decay": 0.2},
        {"params": dict(zip("ab", params[1:3], strict=True)), "betas": (0.5, 0.9)},
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


@EACH_RULE
def test_a_group_added_later_begins_anew_and_the_others_go_on(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    params, noises = problem(rng, dtype)
    alone = [w.copy() for w in params]
    optimizer = CLASSES[rule](params[:2], **HARD_OPTIONS[rule])
    advance(optimizer, params[:2], noises[:2], range(1, 6))
    optimizer.param_groups[0]["l1"] = 0.05  # a group that is added gets what the optimizer was made with
    optimizer.add_param_group({"params": params[2:], "lr": 0.02})
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 2]
    assert [entry["step"] for entry in optimizer.state] == [5, 5, 0, 0]
    advance(optimizer, params, noises, range(6, 11))
    for i, (w, noise) in enumerate(zip(alone, noises, strict=True)):
        single = CLASSES[rule]([w], **{**HARD_OPTIONS[rule], **({"lr": 0.02} if i > 1 else {})})
        if i < 2:
            advance(single, [w], [noise], range(1, 6))
            single.param_groups[0]["l1"] = 0.05
        advance(single, [w], [noise], range(6, 11))
        assert_same_bits(params[i], w, i)
        for got, wanted in zip(optimizer.state[i].values(), single.state[0].values(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_first_group_can_be_added() -> None:
    w = np.ones(3)
    optimizer = optim.SGD(lr=0.5)
    optimizer.add_param_group({"params": [w]})
    optimizer.step([np.ones(3)])
    np.testing.assert_array_equal(w, 0.5)


def test_a_model_s_parameters_can_be_stepped() -> None:
    model = ts.nn.Sequential(ts.nn.Dense(3, 2, init="zeros"))
    optim.SGD(model.parameters(), lr=0.5).step([np.ones(w.shape, w.dtype) for w in model.parameters().values()])
    for w in model.parameters().values():
        np.testing.assert_array_equal(w, -0.5)


MIDWAY: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sgd", {"momentum": 0.9}, {"lr": 0.2}),
    ("sgd", {"momentum": 0.9}, {"momentum": 0.5}),
    ("sgd", {"momentum": 0.9}, {"dampening": 0.5}),
    ("sgd", {"momentum": 0.9}, {"nesterov": True}),
    ("sgd", {}, {"momentum": 0.9}),
    ("sgd", {}, {"weight_decay": 0.3}),
    ("sgd", {}, {"l1": 0.0}),
    ("sgd", {}, {"maximize": True}),
    ("sgd", {"momentum": 0.9, "lr_in_velocity": True}, {"lr": 0.2}),
    ("adagrad", {}, {"lr_decay": 0.1}),
    ("adagrad", {}, {"eps": 0.1}),
    ("adagrad", {}, {"eps": 0.1, "eps_inside_sqrt": True}),
    ("adadelta", {}, {"rho": 0.5}),
    ("adadelta", {}, {"eps": 0.1}),
    ("rmsprop", {}, {"alpha": 0.5}),
    ("rmsprop", {}, {"momentum": 0.5}),
    ("rmsprop", {"centered": True}, {"centered": False}),
    ("rmsprop", {"eps": 0.1}, {"eps_inside_sqrt": True}),
    ("adam", {}, {"lr": 0.2}),
    ("adam", {}, {"betas": (0.5, 0.6)}),
    ("adam", {}, {"eps": 0.1}),
    ("adam", {}, {"weight_decay": 0.0}),
    ("adam", {}, {"decoupled_weight_decay": True}),
    ("adam", {}, {"bias_correction": False}),
    ("adam", {}, {"eps": 0.1, "eps_inside_sqrt": True}),
    ("adam", {}, {"amsgrad": True}),
    ("adamax", {}, {"betas": (0.5, 0.6)}),
    ("nadam", {}, {"betas": (0.5, 0.6)}),
    ("nadam", {}, {"momentum_decay": 0.1}),
    ("nadam", {}, {"decoupled_weight_decay": True}),
    ("radam", {}, {"betas": (0.5, 0.9)}),
    ("rprop", {}, {"etas": (0.2, 1.1)}),
    ("rprop", {}, {"step_sizes": (0.02, 0.03)}),
    ("asgd", {}, {"lr": 0.1}),
    ("asgd", {}, {"lambd": 0.2}),
    ("lion", {}, {"betas": (0.5, 0.6)}),
    ("lion", {}, {"weight_decay": 0.5}),
    ("lamb", {}, {"weight_decay": 0.5}),
    ("lamb", {}, {"bias_correction": False}),
    ("lars", {}, {"trust_coefficient": 0.1}),
    ("lars", {}, {"momentum": 0.0}),
    ("lars", {}, {"nesterov": True}),
]


@pytest.mark.parametrize(("rule", "before", "after"), MIDWAY)
def test_options_set_midway_take_effect(rule: str, before: dict[str, Any], after: dict[str, Any], rng: np.random.Generator) -> None:
    w, noise = start(rng, np.float64, 70), normal(rng, np.float64, 70)
    options = own_options(rule, before, PENALTIES)
    theirs, unchanged = (Bare(rule, module, w, options) for module in (reference, optim))
    optimizer = CLASSES[rule]([w], **options)
    advance(optimizer, [w], [noise], range(1, 31))
    for name, value in after.items():
        if name == "lr":
            optimizer.lr = value
            assert optimizer.lr == value
        else:
            optimizer.param_groups[0][name] = value
    advance(optimizer, [w], [noise], range(31, 61))
    theirs.run(noise, options, 30).run(noise, options | after, 30)
    assert_close(w, theirs.w, np.float64)
    assert not np.allclose(w, unchanged.run(noise, options).w, rtol=1e-6)


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
    assert_close(w, theirs, np.float64)
    assert "momentum_buffer" in optimizer.state[0]


# --- schedules -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in CLASSES if rule != "rprop"])  # which uses its rate once
def test_a_schedule_is_asked_once_a_step(rule: str, rng: np.random.Generator) -> None:
    params, noises = problem(rng)
    theirs = [w.copy() for w in params]
    asked: list[int] = []

    def schedule(t: int) -> float:
        asked.append(t)
        return 0.1 / (1 + t)

    options = own_options(rule, {}, PENALTIES)
    optimizer = CLASSES[rule]([{"params": params[:2]}, {"params": params[2:]}], **{**options, "lr": schedule})
    by_hand = CLASSES[rule](theirs, **options)
    for t in range(5):
        by_hand.lr = 0.1 / (1 + t)
        advance(optimizer, params, noises, range(t + 1, t + 2))
        advance(by_hand, theirs, noises, range(t + 1, t + 2))
        assert optimizer.lr == by_hand.lr
        for got, wanted in zip(params, theirs, strict=True):
            assert_same_bits(got, wanted, t)
    assert asked == [0, 1, 2, 3, 4]
    assert optimizer.param_groups[1]["lr"] is schedule
    assert optimizer.state_dict()["param_groups"][1]["lr"] == optimizer.lr == 0.1 / 5
    assert f"lr={0.1 / 5!r}" in repr(optimizer)


def test_a_schedule_can_come_and_go() -> None:
    w = np.zeros(1)
    optimizer = optim.SGD([w], lr=0.5)
    path = [0.0]
    for change in (None, lambda t: t + 1.0, None, 0.25, lambda t: 1.0 / t):
        if change is not None:
            optimizer.lr = change
        optimizer.step([np.ones(1)])
        path.append(float(w[0]))
    np.testing.assert_allclose([a - b for a, b in pairwise(path)], [0.5, 2.0, 3.0, 0.25, 0.25])


def test_a_group_may_have_a_schedule_of_its_own() -> None:
    v, w = np.zeros(1), np.zeros(1)
    optimizer = optim.SGD([{"params": [v]}, {"params": [w], "lr": lambda t: 0.25 * t}], lr=1.0)
    for _ in range(3):
        optimizer.step([np.ones(1), np.ones(1)])
    assert (v[0], w[0]) == (-3.0, -0.75)
    assert optimizer.lr == 1.0


def test_a_step_that_is_left_out_does_not_move_a_schedule() -> None:
    w = np.zeros(1)
    optimizer = optim.SGD([w], lr=lambda t: t + 1.0)
    for g in (1.0, np.nan, 1.0):
        optimizer.step([np.full(1, g)], skip_nonfinite=True)
    assert w[0] == -3.0


def test_a_schedule_goes_on_where_a_loaded_state_says() -> None:
    rates = []
    for resumed in (False, True):
        w = np.zeros(1)
        optimizer = optim.SGD([w], lr=lambda t: 1.0 + t)
        for _ in range(3):
            optimizer.step([np.ones(1)])
        if resumed:
            saved, optimizer = optimizer.state_dict(), optim.SGD([w], lr=lambda t: 1.0 + t)
            optimizer.load_state_dict(saved)
            assert optimizer.lr == 3.0
        optimizer.step([np.ones(1)])
        rates.append((optimizer.lr, w[0]))
    assert rates == [(4.0, -10.0)] * 2


def test_a_trainer_s_steps_follow_a_schedule() -> None:
    model = ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros"), dtype="float64")
    trainer = ts.Trainer(model, loss="mse", optimizer=optim.SGD(lr=lambda t: 0.25 * t))
    biases = []
    for _ in range(3):
        trainer.step(np.zeros((1, 1)), np.ones((1, 1)))  # d loss / d bias = 2 (bias - 1)
        biases.append(float(model.parameters()["0.bias"][0]))
    assert biases == [0.0, 0.5, 1.0]


# --- states --------------------------------------------------------------------------------------------------------------------


def test_state_is_a_view_and_is_counted(dtype: np.dtype) -> None:
    params = [np.ones((10, 3), dtype), np.ones(7, dtype)]
    numbers = 37 * dtype.itemsize
    assert optim.SGD(params).state_nbytes == 0
    assert optim.SGD(params, momentum=0.9).state_nbytes == numbers
    assert optim.Adam(params).state_nbytes == 2 * numbers
    assert optim.Adam(params, amsgrad=True).state_nbytes == 3 * numbers
    assert optim.RMSprop(params).state_nbytes == numbers
    assert optim.RMSprop(params, momentum=0.5, centered=True).state_nbytes == 3 * numbers
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
    gc.collect()
    np.testing.assert_allclose(view, 0.2)


def test_states_before_the_first_step() -> None:
    w = [np.ones(3)]
    assert optim.Adagrad(w, initial_accumulator_value=0.25).state[0]["sum"].tolist() == [0.25] * 3
    assert optim.Rprop(w, lr=0.125).state[0]["step_size"].tolist() == [0.125] * 3
    assert optim.Rprop(w, lr=lambda t: 0.125).state[0]["step_size"].tolist() == [0.125] * 3
    assert optim.NAdam(w).state[0]["mu_product"] == 1
    assert optim.ASGD(w, lr=0.125).state[0] | {"ax": None} == {"step": 0, "eta": 0.125, "mu": 1, "ax": None}
    assert optim.Adam().state == []


def test_step_counts_and_lr_shrinks_along(dtype: np.dtype) -> None:
    w = np.zeros(1, dtype)
    optimizer = optim.SGD([w])
    path = [float(w[0])]
    for _ in range(10):
        optimizer.lr = 0.5 / (optimizer.state[0]["step"] + 1)
        optimizer.step([np.ones(1, dtype)])
        path.append(float(w[0]))
    np.testing.assert_allclose([a - b for a, b in pairwise(path)], [0.5 / t for t in range(1, 11)], rtol=1e-5)


def test_repr_tells_the_options() -> None:
    assert repr(optim.SGD(lr=0.5, momentum=0.9)).startswith("SGD(lr=0.5, momentum=0.9, ")


# --- state_dict, copies --------------------------------------------------------------------------------------------------------

# A rule, the dtype of its parameters, and that of its states where it is another.
KEPT = [(rule, dtype, None) for rule in CLASSES for dtype in ("float32", "float64")]
KEPT += [(rule, "float32", "bfloat16") for rule in CLASSES if rule not in NO_LOW_BITS]
KEPT += [(rule, "float32", "8bit") for rule in _core.low_bit_optimizers]


def state_dict_of(optimizer: optim.Optimizer, params: list[Array]) -> tuple[optim.Optimizer, list[Array]]:
    copies = [w.copy() for w in params]
    keywords: dict[str, Any] = {} if optimizer._state_dtype is None else {"state_dtype": optimizer._state_dtype, "seed": 3}
    other = type(optimizer)([{"params": copies[:2]}, {"params": copies[2:]}], **keywords)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other, copies


def deep_copy(optimizer: optim.Optimizer, params: list[Array]) -> tuple[optim.Optimizer, list[Array]]:
    return copy.deepcopy((optimizer, params))


def pickled(optimizer: optim.Optimizer, params: list[Array]) -> tuple[optim.Optimizer, list[Array]]:
    # On its own; the copies of the parameters are in its groups.
    other = pickle.loads(pickle.dumps(optimizer))
    return other, [w for group in other.param_groups for w in group["params"]]


@pytest.mark.parametrize(("rule", "dtype", "state_dtype"), KEPT)
@pytest.mark.parametrize("how", [state_dict_of, deep_copy, pickled])
def test_a_copy_goes_on_with_the_same_bits(
    rule: str,
    dtype: str,
    state_dtype: str | None,
    how: Callable[[optim.Optimizer, list[Array]], tuple[optim.Optimizer, list[Array]]],
    rng: np.random.Generator,
) -> None:
    params, noises = problem(rng, dtype)
    params, noises = [*params, start(rng, dtype, 70, 70)], [*noises, normal(rng, dtype, 70, 70)]  # large enough for 8 bits
    groups = [{"params": params[:2], "lr": 0.03}, {"params": params[2:]}]
    keywords = {} if state_dtype is None else {"state_dtype": state_dtype, "seed": 3}
    optimizer = CLASSES[rule](groups, **HARD_OPTIONS[rule], **keywords)
    advance(optimizer, params, noises, range(1, 11))
    other, copies = how(optimizer, params)
    assert [{**g, "params": 0} for g in other.param_groups] == [{**g, "params": 0} for g in optimizer.param_groups]
    for one, its in ((optimizer, params), (other, copies)):
        advance(one, its, noises, range(11, 21))
    for got, wanted in zip(copies, params, strict=True):
        assert_same_bits(got, wanted)
    for mine, theirs in zip(other.state, optimizer.state, strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["step"] == theirs["step"] == 20
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], name)


def test_a_copied_group_is_a_plain_dict() -> None:
    w = np.ones(2)
    group = optim.SGD([w]).param_groups[0]
    copied = copy.deepcopy(group)
    assert type(copied) is dict
    assert copied["params"][0] is not w
    copied["anything"] = 1


def test_an_optimizer_without_parameters_can_be_copied() -> None:
    optimizer = optim.SGD(momentum=0.5)
    optimizer.lr = 0.25
    other = copy.deepcopy(optimizer)
    assert repr(other) == repr(optimizer)
    other.add_param_group({"params": [np.ones(1)]})
    assert optimizer.state == []


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


@EACH_RULE
def test_state_dict_is_a_copy_in_torchs_structure(rule: str) -> None:
    params = [np.ones((2, 3)), np.ones(4)]
    optimizer = CLASSES[rule](params, **HARD_OPTIONS[rule])
    optimizer.step([np.ones((2, 3)), np.ones(4)])
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    assert set(saved) == {"state", "param_groups"}
    assert [g["params"] for g in saved["param_groups"]] == [[0, 1]]
    assert set(saved["state"]) == {0, 1}
    assert all(type(group) is dict for group in saved["param_groups"])
    for i, shape in enumerate([(2, 3), (4,)]):
        entry = saved["state"][i]
        assert entry["step"] == 1
        assert {v.shape for v in entry.values() if isinstance(v, np.ndarray)} == {shape}
    optimizer.step([np.ones((2, 3)), np.ones(4)])
    np.testing.assert_equal(saved, kept)


@EACH_RULE
def test_a_parameter_without_an_entry_has_not_been_stepped(rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    params, noises = problem(rng, dtype)
    options = HARD_OPTIONS[rule]
    optimizer = CLASSES[rule](params, **options)
    advance(optimizer, params, noises, range(1, 4))
    saved = optimizer.state_dict()
    del saved["state"][1]
    saved["param_groups"][0] |= {"foreach": None, "fused": True, "capturable": False, "differentiable": False}  # PyTorch's
    optimizer.load_state_dict(saved)
    fresh = CLASSES[rule]([params[1]], **options)
    for got, wanted in zip(optimizer.state[1].values(), fresh.state[0].values(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert [entry["step"] for entry in optimizer.state] == [3, 0, 3, 3]
    expected = params[1].copy()
    fresh = CLASSES[rule]([expected], **options)
    advance(optimizer, params, noises, range(4, 5))
    advance(fresh, [expected], noises[1:2], range(4, 5))
    assert_same_bits(params[1], expected)


def test_sgd_takes_a_state_without_a_step_as_torchs() -> None:
    # A buffer that is there has had a gradient: what dampening leaves of the next one is added to it.
    w = np.zeros(1)
    optimizer = optim.SGD([w], lr=1.0, momentum=0.5, dampening=0.75)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {0: {"momentum_buffer": np.full(1, 4.0)}}, "param_groups": groups})
    assert optimizer.state[0]["step"] == 1
    optimizer.step([np.ones(1)])
    assert w[0] == -2.25
    optimizer.load_state_dict({"state": {0: {}}, "param_groups": groups})
    assert optimizer.state[0]["step"] == 0


def test_a_buffer_that_has_had_no_gradient_is_not_saved() -> None:
    optimizer = optim.SGD([np.zeros(1), np.zeros(1)], momentum=0.5)
    optimizer.step([np.ones(1), None])
    saved = optimizer.state_dict()["state"]
    assert ["momentum_buffer" in saved[i] for i in (0, 1)] == [True, False]


def test_views_of_states_show_what_is_loaded(dtype: np.dtype) -> None:
    w = np.ones(3, dtype)
    source, target = (optim.Adam([w]) for _ in range(2))
    source.step([np.ones(3, dtype)])
    views = arrays_of(target)
    target.load_state_dict(source.state_dict())
    for view, wanted in zip(views, arrays_of(source), strict=True):
        assert_same_bits(view, wanted)
