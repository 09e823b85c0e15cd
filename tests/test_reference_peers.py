"""The reference's optimizers and clipping against PyTorch's in float64: weights, states, scalars. Skipped without torch."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from trainstep import reference

from .helpers import Array

pytestmark = [pytest.mark.peers, pytest.mark.one_level]
torch = pytest.importorskip("torch")

STEPS, NEW_LR_AT = 60, 40
LR, NEW_LR = 0.03, 0.01
RTOL = 1e-9
# By torch's class: the function, and its states in the order of its arguments.
RULES = {
    "SGD": (reference.sgd_step_, ("momentum_buffer",)),
    "Adagrad": (reference.adagrad_step_, ("sum",)),
    "Adadelta": (reference.adadelta_step_, ("square_avg", "acc_delta")),
    "RMSprop": (reference.rmsprop_step_, ("square_avg", "momentum_buffer", "grad_avg")),
    "Adam": (reference.adam_step_, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "Adamax": (reference.adamax_step_, ("exp_avg", "exp_inf")),
    "NAdam": (reference.nadam_step_, ("exp_avg", "exp_avg_sq")),
    "RAdam": (reference.radam_step_, ("exp_avg", "exp_avg_sq")),
    "Rprop": (reference.rprop_step_, ("prev", "step_size")),
    "ASGD": (reference.asgd_step_, ("ax",)),
}
DECAY = {"weight_decay": 0.02}
DECOUPLED = DECAY | {"decoupled_weight_decay": True}

# No decay is ever 0: a rule that is wrong about it must show. (Rprop has none.)
CASES = [
    ("SGD", DECAY),
    ("SGD", DECAY | {"maximize": True}),
    ("SGD", DECAY | {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", DECAY | {"momentum": 0.8, "nesterov": True, "maximize": True}),
    ("Adagrad", DECAY),
    ("Adagrad", DECAY | {"lr_decay": 0.1, "eps": 1e-3, "maximize": True}),
    ("Adagrad", DECAY | {"initial_accumulator_value": 0.2}),
    ("Adadelta", DECAY),
    ("Adadelta", DECAY | {"rho": 0.7, "eps": 1e-2, "maximize": True}),
    ("RMSprop", DECAY),
    ("RMSprop", DECAY | {"alpha": 0.8, "eps": 1e-2, "maximize": True}),
    ("RMSprop", DECAY | {"momentum": 0.9}),
    ("RMSprop", DECAY | {"centered": True}),
    ("RMSprop", DECAY | {"centered": True, "momentum": 0.5, "alpha": 0.9}),
    ("Adam", DECAY),
    ("Adam", DECAY | {"betas": (0.7, 0.95), "eps": 0.1, "maximize": True}),
    ("Adam", DECAY | {"amsgrad": True, "betas": (0.9, 0.6)}),
    ("Adam", DECOUPLED),
    ("Adam", DECOUPLED | {"amsgrad": True, "betas": (0.9, 0.6), "maximize": True}),
    ("Adamax", DECAY),
    ("Adamax", DECAY | {"betas": (0.7, 0.9), "eps": 0.1, "maximize": True}),
    ("NAdam", DECAY),
    ("NAdam", DECAY | {"momentum_decay": 0.1, "betas": (0.95, 0.9), "eps": 0.1, "maximize": True}),
    ("NAdam", DECOUPLED),
    ("RAdam", DECAY),  # corrected from step 6 on
    ("RAdam", DECAY | {"betas": (0.7, 0.9), "eps": 0.1, "maximize": True}),
    ("RAdam", DECAY | {"betas": (0.9, 0.5)}),  # never corrected
    ("RAdam", DECOUPLED),
    ("Rprop", {}),
    ("Rprop", {"etas": (0.3, 1.5), "step_sizes": (1e-2, 0.1), "maximize": True}),
    ("ASGD", DECAY),
    ("ASGD", DECAY | {"lambd": 0.05, "alpha": 0.6, "t0": 20, "maximize": True}),
    ("ASGD", DECAY | {"lambd": 0.05, "t0": 0}),
]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """NAdam's mu_product and ASGD's eta and mu have torch's default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gradient(w: Array, step: int, noise: Array) -> Array:
    return 0.3 * w + np.roll(noise, step)


def assert_close(got: object, expected: Any, what: object) -> None:
    wanted = expected.detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=RTOL, atol=RTOL * np.abs(wanted).max(), err_msg=str(what))


@pytest.mark.parametrize("lr_changes", [True, False], ids=["lr changes", "one lr"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "defaults")
def test_60_steps_are_torchs(name: str, options: dict[str, Any], lr_changes: bool) -> None:
    rng = np.random.default_rng(0)
    step_, state_names = RULES[name]
    w, noise = rng.standard_normal((2, 13, 7))
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    peer = getattr(torch.optim, name)([p], lr=LR, **options)
    mine = options.copy()
    begin = {"sum": mine.pop("initial_accumulator_value", 0.0), "step_size": LR}
    states = {state: np.full_like(w, begin.get(state, 0.0)) for state in state_names}

    scalars: dict[str, float] = {}
    for step in range(1, STEPS + 1):
        lr = NEW_LR if lr_changes and step >= NEW_LR_AT else LR
        peer.param_groups[0]["lr"] = lr
        if name != "Rprop":  # whose lr is where step_size begins
            mine["lr"] = lr
        # Each takes the gradient of its own weights, so that both run as they would alone.
        p.grad = torch.from_numpy(gradient(p.detach().numpy(), step, noise))
        peer.step()
        product = step_(w, gradient(w, step, noise), *states.values(), step=step, **mine, **scalars)
        if lr_changes and name == "NAdam":
            scalars = {"mu_product": product}
        if lr_changes and name == "ASGD":
            scalars = {"eta": float(peer.state[p]["eta"])}

    assert_close(w, p, "weights")
    kept = {state for state, value in peer.state[p].items() if torch.is_tensor(value) and value.ndim}
    assert kept <= states.keys()
    for state, values in states.items():
        if state in kept:
            assert_close(values, peer.state[p][state], state)
        else:
            np.testing.assert_array_equal(values, 0.0, f"{state} is not in use")
    if name == "NAdam":
        assert_close(product, peer.state[p]["mu_product"], "mu_product")
    if name == "ASGD":
        defaults = peer.defaults
        assert float(peer.state[p]["eta"]) == pytest.approx(lr / (1 + defaults["lambd"] * lr * STEPS) ** defaults["alpha"], RTOL)


def test_every_option_of_torch_is_in_a_case() -> None:
    how_not_what = {"foreach", "fused", "capturable", "differentiable"}
    begins_a_state = {"Adagrad": {"initial_accumulator_value"}, "Rprop": {"lr"}}  # no option of a step
    for name, (step_, _) in RULES.items():
        theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
        options = theirs.keys() - how_not_what
        assert options == {"lr"} | {option for case, given in CASES if case == name for option in given}
        for option in options - begins_a_state.get(name, set()):
            assert inspect.signature(step_).parameters[option].default == theirs[option], (name, option)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 100.0, math.inf])
def test_clipping_is_torchs(max_norm: float) -> None:
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(shape)) for shape in ((3, 4), (5,), (0,), ())]
    params = [torch.nn.Parameter(torch.zeros(a.shape)) for a in arrays]

    def reset() -> list[Array]:
        for p, a in zip(params, arrays, strict=True):
            p.grad = torch.from_numpy(a.copy())
        return [a.copy() for a in arrays]

    def assert_same(mine: list[Array]) -> None:
        for a, p in zip(mine, params, strict=True):
            np.testing.assert_allclose(a, p.grad.numpy(), rtol=1e-14)

    mine = reset()
    norm = float(torch.nn.utils.clip_grad_norm_(params, max_norm))
    assert reference.global_norm(mine) == pytest.approx(norm, rel=1e-14)
    assert reference.clip_by_global_norm_(mine, max_norm) == pytest.approx(norm, rel=1e-14)
    assert_same(mine)

    mine = reset()
    norms = [float(torch.nn.utils.clip_grad_norm_([p], max_norm)) for p in params]
    assert reference.clip_by_norm_(mine, max_norm) == pytest.approx(norms, rel=1e-14)
    assert_same(mine)

    mine = reset()
    torch.nn.utils.clip_grad_value_(params, max_norm)
    reference.clip_by_value_(mine, max_norm)
    assert_same(mine)
