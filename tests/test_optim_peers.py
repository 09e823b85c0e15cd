"""The optimizers against torch.optim over 60 steps: weights and states, element-wise. Skipped where torch is missing."""

from typing import Any

import numpy as np
import pytest

from trainstep import optim

from .helpers import Array, normal

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")

STEPS = 60
RTOL = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}
SHAPES = ((13, 7), (7,), (1,), (70, 35), (35,))
STATES = {"SGD": ("momentum_buffer",), "Adam": ("exp_avg", "exp_avg_sq"), "AdamW": ("exp_avg", "exp_avg_sq")}

# No decay is ever 0: a rule that is wrong about it must show.
CASES = [
    ("SGD", {"weight_decay": 0.02}),
    ("SGD", {"weight_decay": 0.02, "maximize": True}),
    ("SGD", {"weight_decay": 0.02, "momentum": 0.9}),
    ("SGD", {"weight_decay": 0.02, "momentum": 0.9, "maximize": True}),
    ("SGD", {"weight_decay": 0.02, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"weight_decay": 0.02, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"weight_decay": 0.02, "momentum": 0.8, "nesterov": True, "maximize": True}),
    ("Adam", {"weight_decay": 0.02}),
    ("Adam", {"weight_decay": 0.02, "maximize": True}),
    ("Adam", {"weight_decay": 0.02, "betas": (0.7, 0.95)}),
    ("Adam", {"weight_decay": 0.02, "eps": 0.1}),
    ("Adam", {"weight_decay": 0.02, "decoupled_weight_decay": True}),
    ("Adam", {"weight_decay": 0.02, "decoupled_weight_decay": True, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"weight_decay": 0.1, "betas": (0.0, 0.9), "eps": 1e-3}),
]


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


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "defaults")
def test_60_steps_are_torchs(name: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator) -> None:
    mine = [normal(rng, dtype, *shape) for shape in SHAPES]
    noises = [normal(rng, dtype, *shape) for shape in SHAPES]
    theirs = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in mine]
    groups = [2, len(mine)]  # two param groups, the first with a rate of its own
    optimizer = getattr(optim, name)([{"params": mine[: groups[0]], "lr": 0.03}, {"params": mine[groups[0] :]}], lr=0.01, **options)
    peer = getattr(torch.optim, name)(
        [{"params": theirs[: groups[0]], "lr": 0.03}, {"params": theirs[groups[0] :]}], lr=0.01, **options
    )
    for step in range(1, STEPS + 1):
        if step == 40:
            for group in (*optimizer.param_groups, *peer.param_groups):
                group["lr"] = group["lr"] / 3
                group["weight_decay"] = 0.05
        # Each takes the gradients of its own weights, so that both run as they would alone.
        their_grads = gradients([p.detach().numpy() for p in theirs], step, noises)
        optimizer.step(gradients(mine, step, noises))
        torch_step(peer, theirs, their_grads)
    for i, (w, p) in enumerate(zip(mine, theirs, strict=True)):
        assert_close(w, p, ("weights", i))
        names = STATES[name] if name != "SGD" or options.get("momentum") else ()
        assert set(optimizer.state[i]) == {"step", *names}
        for state in names:
            assert_close(optimizer.state[i][state], peer.state[p][state], (state, i))


@pytest.mark.parametrize("name", STATES)
def test_defaults_are_torchs(name: str) -> None:
    peer = getattr(torch.optim, name)([torch.zeros(1)])
    mine = getattr(optim, name)([np.zeros(1)])
    shared = mine.param_groups[0].keys() & peer.param_groups[0].keys() - {"params"}
    assert len(shared) >= 5
    for option in shared:
        assert mine.param_groups[0][option] == peer.param_groups[0][option], option


def test_options_that_exist_there_and_not_here_are_refused() -> None:
    for name, option in (("Adam", "amsgrad"), ("SGD", "foreach"), ("AdamW", "capturable")):
        with pytest.raises(TypeError, match=option):
            getattr(optim, name)([np.zeros(1)], **{option: True})


@pytest.mark.parametrize("name", ["Adam", "AdamW"])  # torch's SGD does not keep the number of the step
def test_state_dict_of_torch_can_be_taken(name: str, rng: np.random.Generator) -> None:
    w = normal(rng, np.float32, 9, 5)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    peer = getattr(torch.optim, name)([p], lr=0.02, weight_decay=0.03)
    for _ in range(10):
        torch_step(peer, [p], [normal(rng, np.float32, 9, 5)])
    mine = p.detach().numpy().copy()
    optimizer = getattr(optim, name)([mine])
    optimizer.load_state_dict(peer.state_dict())
    for _ in range(10):
        g = normal(rng, np.float32, 9, 5)
        torch_step(peer, [p], [g])
        optimizer.step([g])
    assert_close(mine, p, name)


@pytest.mark.parametrize("name", STATES)
def test_tensors_are_stepped_in_place(name: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    w, g = normal(rng, dtype, 6, 5), normal(rng, dtype, 6, 5)
    tensor, expected = torch.from_numpy(w.copy()), w.copy()
    getattr(optim, name)([tensor], lr=0.1).step([torch.from_numpy(g)])
    getattr(optim, name)([expected], lr=0.1).step([g])
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_a_parameter_that_requires_grad_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"params\[0\].*(detach|requires grad)"):
        optim.SGD([torch.nn.Parameter(torch.ones(3))])
