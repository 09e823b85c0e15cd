"""The optimizers against torch.optim over 60 steps: weights and states, element-wise. Skipped where torch is missing."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from trainstep import optim

from .helpers import Array, normal
from .optim_rules import RTOL, STEPS

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")

SHAPES = ((13, 7), (7,), (1,), (70, 35), (35,))
NAMES = ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD")

# No decay is ever 0: a rule that is wrong about it must show.
DECAY = {"weight_decay": 0.02}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.8, "nesterov": True},
    ],
    "Adagrad": [{}, {"lr_decay": 0.1}, {"initial_accumulator_value": 0.5, "eps": 0.1}],
    "Adadelta": [{"lr": 0.5}, {"lr": 0.5, "rho": 0.5, "eps": 0.1}],
    "RMSprop": [{}, {"alpha": 0.7, "eps": 0.1}, {"momentum": 0.6}, {"centered": True}, {"centered": True, "momentum": 0.6}],
    "Adam": [
        {},
        {"betas": (0.7, 0.95)},
        {"eps": 0.1},
        {"amsgrad": True, "betas": (0.8, 0.6)},
        {"decoupled_weight_decay": True},
        {"decoupled_weight_decay": True, "amsgrad": True},
    ],
    "AdamW": [{}, {"weight_decay": 0.1, "betas": (0.0, 0.9), "eps": 1e-3}, {"amsgrad": True, "betas": (0.8, 0.6)}],
    "Adamax": [{}, {"betas": (0.7, 0.95), "eps": 0.1}],
    "NAdam": [{}, {"betas": (0.7, 0.95), "eps": 0.1}, {"momentum_decay": 0.1}, {"decoupled_weight_decay": True}],
    "RAdam": [{}, {"betas": (0.7, 0.95), "eps": 0.1}, {"decoupled_weight_decay": True}],
    # A power of 2 leaves a weight that comes back to 0 at 0.
    "Rprop": [{"lr": 2**-7}, {"lr": 2**-7, "etas": (0.3, 1.5), "step_sizes": (0.005, 0.05)}],
    "ASGD": [{}, {"lambd": 0.1, "alpha": 0.3}, {"t0": 20.0}],
}
CASES = [
    (name, {"lr": 0.01, **({} if name == "Rprop" else DECAY), **own, **({"maximize": True} if maximize else {})})
    for name, all_own in OPTIONS.items()
    for own in all_own
    for maximize in (False, True)
]


@pytest.fixture(autouse=True)
def numbers_in_float64() -> Iterator[None]:
    """torch.optim keeps the numbers of NAdam and ASGD in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradients(params: list[Array], step: int, noises: list[Array]) -> list[Array]:
    return [(w.dtype.type(0.3) * w + np.roll(noise, step)).astype(w.dtype) for w, noise in zip(params, noises, strict=True)]


def torch_step(optimizer: Any, params: list[Any], grads: list[Array]) -> None:
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    optimizer.step()


def assert_close(got: Array, expected: Any, what: object) -> None:
    wanted = expected.detach().numpy()
    assert got.dtype == wanted.dtype
    rtol = RTOL[got.dtype]
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max(), err_msg=str(what))


def assert_same_state(mine: dict[str, Any], theirs: dict[str, Any], what: object) -> None:
    """All that torch.optim keeps of a parameter; its SGD has no step."""
    assert set(mine) - {"step"} == set(theirs) - {"step"}
    for name, value in theirs.items():
        if isinstance(mine[name], np.ndarray):
            assert_close(mine[name], value, (what, name))
        else:
            assert mine[name] == pytest.approx(float(value), rel=1e-12), (what, name)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "defaults")
def test_60_steps_are_torchs(name: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    mine = [normal(rng, dtype, *shape) for shape in SHAPES]
    noises = [normal(rng, dtype, *shape) for shape in SHAPES]
    theirs = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in mine]
    groups = [2, len(mine)]  # two param groups, the first with a rate of its own
    own = {"lr": 2 * options["lr"]}
    optimizer = getattr(optim, name)([{"params": mine[: groups[0]], **own}, {"params": mine[groups[0] :]}], **options)
    peer = getattr(torch.optim, name)([{"params": theirs[: groups[0]], **own}, {"params": theirs[groups[0] :]}], **options)
    for step in range(1, STEPS + 1):
        if step == 40:
            for group in (*optimizer.param_groups, *peer.param_groups):
                group["lr"] = group["lr"] / 2
                if "weight_decay" in group:
                    group["weight_decay"] = 0.05
        # Each takes the gradients of its own weights, so that both run as they would alone.
        their_grads = gradients([p.detach().numpy() for p in theirs], step, noises)
        optimizer.step(gradients(mine, step, noises))
        torch_step(peer, theirs, their_grads)
    for i, (w, p) in enumerate(zip(mine, theirs, strict=True)):
        assert_close(w, p, ("weights", i))
        assert_same_state(optimizer.state[i], peer.state[p], i)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_torchs(name: str) -> None:
    peer = getattr(torch.optim, name)([torch.zeros(1)])
    mine = getattr(optim, name)([np.zeros(1)])
    shared = mine.param_groups[0].keys() & peer.param_groups[0].keys() - {"params"}
    assert len(shared) >= 4
    for option in shared:
        assert mine.param_groups[0][option] == peer.param_groups[0][option], option


def test_options_that_exist_there_and_not_here_are_refused() -> None:
    for name, option in (("Adam", "fused"), ("SGD", "foreach"), ("AdamW", "capturable")):
        with pytest.raises(TypeError, match=option):
            getattr(optim, name)([np.zeros(1)], **{option: True})


def resumed_problem(name: str, rng: np.random.Generator, dtype: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    """An optimizer of torch.optim after 10 steps, its parameters, of which the last has never been stepped, and its options."""
    options = next(own for own in reversed(OPTIONS[name]) if "lr" not in own or name in ("Adadelta", "Rprop"))
    options = {"lr": 0.02} | ({} if name == "Rprop" else DECAY) | options
    params = [torch.nn.Parameter(torch.from_numpy(normal(rng, dtype, *shape))) for shape in SHAPES]
    peer = getattr(torch.optim, name)([{"params": params[:2]}, {"params": params[2:], "lr": 0.01}], **options)
    for _ in range(10):
        torch_step(peer, params[:-1], [normal(rng, dtype, *shape) for shape in SHAPES[:-1]])
    return peer, params, options


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_of_torch_can_be_taken(name: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    peer, params, _ = resumed_problem(name, rng, dtype)
    mine = [p.detach().numpy().copy() for p in params]
    optimizer = getattr(optim, name)([{"params": mine[:2]}, {"params": mine[2:]}])
    optimizer.load_state_dict(peer.state_dict())
    for _ in range(10):
        grads = [normal(rng, dtype, *shape) for shape in SHAPES]
        torch_step(peer, params, grads)
        optimizer.step(grads)
    for i, (w, p) in enumerate(zip(mine, params, strict=True)):
        assert_close(w, p, i)
        assert_same_state(optimizer.state[i], peer.state[p], i)


def tensors(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state_dict with its arrays as tensors."""
    state = {
        i: {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in entry.items()}
        for i, entry in state_dict["state"].items()
    }
    return {**state_dict, "state": state}


@pytest.mark.parametrize("name", NAMES)
def test_torch_can_take_a_state_dict(name: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    _, params, options = resumed_problem(name, rng, dtype)
    mine = [p.detach().numpy().copy() for p in params]
    optimizer = getattr(optim, name)([{"params": mine[:2]}, {"params": mine[2:], "lr": 0.01}], **options)
    for _ in range(10):
        optimizer.step([*(normal(rng, dtype, *shape) for shape in SHAPES[:-1]), None])
    theirs = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in mine]
    peer = getattr(torch.optim, name)([{"params": theirs[:2]}, {"params": theirs[2:]}])
    peer.load_state_dict(copy.deepcopy(tensors(optimizer.state_dict())))
    for _ in range(10):
        grads = [normal(rng, dtype, *shape) for shape in SHAPES]
        torch_step(peer, theirs, grads)
        optimizer.step(grads)
    for i, (w, p) in enumerate(zip(mine, theirs, strict=True)):
        assert_close(w, p, i)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_stepped_in_place(name: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = normal(rng, dtype, 6, 5), normal(rng, dtype, 6, 5)
    tensor, expected = torch.from_numpy(w.copy()), w.copy()
    getattr(optim, name)([tensor], lr=0.1).step([torch.from_numpy(g)])
    getattr(optim, name)([expected], lr=0.1).step([g])
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_bfloat16(name: str, rng: np.random.Generator) -> None:
    tensor = torch.from_numpy(normal(rng, np.float32, 300)).bfloat16()
    master = tensor.float().numpy()
    optimizer, plain = getattr(optim, name)([tensor], lr=0.1), getattr(optim, name)([master], lr=0.1)
    for _ in range(5):
        g = torch.from_numpy(normal(rng, np.float32, 300)).bfloat16()
        optimizer.step([g])
        plain.step([g.float().numpy()])
    np.testing.assert_array_equal(tensor.float().numpy(), torch.from_numpy(master).bfloat16().float().numpy())


def test_a_state_of_bfloat16_can_be_taken(rng: np.random.Generator) -> None:
    p = torch.nn.Parameter(torch.from_numpy(normal(rng, np.float32, 50)).bfloat16())
    peer = torch.optim.Adam([p])
    p.grad = torch.ones_like(p)
    peer.step()
    optimizer = optim.Adam([p.detach()])
    optimizer.load_state_dict(peer.state_dict())
    np.testing.assert_array_equal(optimizer.state[0]["exp_avg"], peer.state[p]["exp_avg"].float().numpy())


def test_a_parameter_that_requires_grad_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"params\[0\].*(detach|requires grad)"):
        optim.SGD([torch.nn.Parameter(torch.ones(3))])
