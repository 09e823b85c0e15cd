"""trainstep.torch against torch.optim: every option and state, and all that torch.optim.Optimizer does. Skipped without torch."""

import copy
import doctest
import inspect
import io
import pickle
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim

from .helpers import output_of

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
adapter = pytest.importorskip("trainstep.torch")

STEPS = 60
SHAPES = ((13, 7), (7,), (), (70, 35), (0, 4), (2, 3, 5), (35,), (41, 43))
CLASSES = {name: getattr(adapter, name) for name in adapter.__all__ if name != "Optimizer"}
PEERS = {name: getattr(torch.optim, name) for name in CLASSES if hasattr(torch.optim, name)}
LOW_BITS = {name: cls for name, cls in CLASSES.items() if "state_dtype" in inspect.signature(cls).parameters}
EIGHT_BITS = {name: cls for name, cls in LOW_BITS.items() if cls._kind in _core.low_bit_optimizers}
ASKED_FOR = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.8, "centered": True}, "Adam": {"amsgrad": True}}  # all states

# One value of each option that torch has, none its default: a rule that ignores one must show.
OTHER = {
    "lr": 0.03,
    "weight_decay": 0.05,
    "maximize": True,
    "momentum": 0.8,
    "dampening": 0.3,
    "nesterov": True,
    "lr_decay": 0.1,
    "initial_accumulator_value": 0.2,
    "eps": 1e-3,
    "rho": 0.7,
    "alpha": 0.8,
    "centered": True,
    "betas": (0.7, 0.95),
    "amsgrad": True,
    "decoupled_weight_decay": True,
    "momentum_decay": 0.1,
    "etas": (0.4, 1.3),
    "step_sizes": (1e-3, 0.05),
    "lambd": 0.05,
    "t0": 20.0,
}
NEEDS = {"dampening": {"momentum": 0.8}, "nesterov": {"momentum": 0.8}, "decoupled_weight_decay": {"weight_decay": 0.05}}
DECAY = {"weight_decay": 0.02}


def names(*classes: Any) -> Any:
    return pytest.mark.parametrize("name", *classes, ids=str)


def options_of(cls: Any) -> dict[str, Any]:
    return {k: v for k, v in cls([torch.zeros(1)]).param_groups[0].items() if k != "params"}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, peer in PEERS.items():
        options = options_of(peer).keys() - {"foreach", "fused", "capturable", "differentiable"}
        if name == "AdamW":
            options -= {"decoupled_weight_decay"}
        decay = {k: v for k, v in DECAY.items() if k in options}
        yield name, decay
        for option in sorted(options - {"weight_decay"}):
            yield name, decay | NEEDS.get(option, {}) | {option: OTHER[option]}
        both = {k: v for k, v in OTHER.items() if k in options and k not in ("dampening", "maximize")}
        yield name, both


CASES = list(cases())


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)  # which NAdam and ASGD of torch keep their numbers in
    yield request.param
    torch.set_default_dtype(before)


def parameters(dtype: Any = torch.float32, shapes: Any = SHAPES, seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def twins(name: str, dtype: Any = torch.float32, shapes: Any = SHAPES, **options: Any) -> Any:
    """Parameters and an optimizer of ours, and the same of torch's; two param groups, the first with a rate of its own."""
    result: list[Any] = []
    for cls in (CLASSES[name], PEERS[name]):
        params = parameters(dtype, shapes)
        own = {"lr": options.get("lr", options_of(cls)["lr"]) * 2}
        groups = [{"params": params[:2], **own}, {"params": params[2:]}]
        result += [params, cls(groups, **options)]
    return result


@cache
def noise(shape: Any, dtype: Any, i: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + i), dtype=torch.float64).to(dtype)


def set_gradients(params: list[Any], step: int) -> None:
    """Gradients that follow from the weights, so that each optimizer runs as it would alone."""
    for i, p in enumerate(params):
        p.grad = torch.add(noise(p.shape, p.dtype, i).roll(step), p.detach(), alpha=0.3)


def run(params: list[Any], optimizer: Any, steps: range) -> None:
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def assert_close(got: Any, expected: Any, what: object = "", rtol: float | None = None) -> None:
    expected = torch.as_tensor(expected).detach()
    got = torch.as_tensor(got, dtype=expected.dtype).detach()
    rtol = rtol or (1e-9 if expected.dtype is torch.float64 else 2e-4)
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol * scale, msg=lambda text: f"{what}: {text}")


def assert_alike(params: list[Any], mine: Any, theirs: list[Any], peer: Any, rtol: float | None = None) -> None:
    for i, (p, q) in enumerate(zip(params, theirs, strict=True)):
        assert_close(p, q, ("parameter", i), rtol)
        ours, wanted = mine.state.get(p, {}), peer.state.get(q, {})
        wanted = {k: v for k, v in wanted.items() if v is not None and (k, mine._kind) != ("step", "sgd")}
        assert ours.keys() - {"step", "master"} == wanted.keys() - {"step"}, i
        for k, v in wanted.items():
            assert_close(ours[k], v, (k, i), rtol)


def assert_same(params: list[Any], others: list[Any]) -> None:
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


# --- the family ------------------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_class_here() -> None:
    assert {cls._kind for cls in CLASSES.values()} == set(_core.optimizers)
    assert set(CLASSES) == {name for name in optim.__all__ if inspect.isclass(getattr(optim, name))} - {"Optimizer"}
    assert len(PEERS) >= 11


@names(CLASSES)
def test_signatures_are_those_of_trainstep_optim(name: str) -> None:
    mine, theirs = (inspect.signature(getattr(m, name)).parameters for m in (adapter, optim))
    assert [(p.name, p.kind, p.default) for p in mine.values()][1:] == [(p.name, p.kind, p.default) for p in theirs.values()][1:]


@names(PEERS)
def test_defaults_and_positions_are_torchs(name: str) -> None:
    mine, theirs = (options_of(cls[name]) for cls in (CLASSES, PEERS))
    assert theirs.keys() - mine.keys() <= {"foreach", "fused", "capturable", "differentiable"}
    for option in mine.keys() & theirs.keys():
        assert mine[option] == theirs[option], option
    mine, theirs = (inspect.signature(cls[name]).parameters.values() for cls in (CLASSES, PEERS))
    positional = [[p.name for p in side if p.kind is p.POSITIONAL_OR_KEYWORD] for side in (mine, theirs)]
    ours, their = positional
    assert ours == their[: len(ours)]
    assert not {"foreach", "maximize"} & set(ours)


def test_trainstep_does_not_import_torch() -> None:
    assert output_of("import sys, trainstep\nprint('torch' in sys.modules)").strip() == "False"


def test_examples_and_docstrings() -> None:
    assert doctest.testmod(adapter).failed == 0
    for name in adapter.__all__:
        cls = getattr(adapter, name)
        for thing in (cls, *(v for k, v in vars(cls).items() if inspect.isfunction(v) and not k.startswith("_"))):
            text = inspect.getdoc(thing)
            assert text, thing
            described = {part for line in text.splitlines() for part in line.split(" : ")[0].split(", ")}
            wanted = set(inspect.signature(thing).parameters) - {"self", "arguments"}
            assert wanted <= described, (thing, wanted - described)


# --- the same steps as torch's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{'-'.join(options) or 'defaults'}" for name, options in CASES])
def test_60_steps_are_torchs(name: str, options: dict[str, Any], dtype: Any) -> None:
    params, mine, theirs, peer = twins(name, dtype, **options)
    run(params, mine, range(STEPS))
    run(theirs, peer, range(STEPS))
    assert_alike(params, mine, theirs, peer)
    assert all(mine.state[p]["step"] == STEPS for p in params)


@names(CLASSES)
def test_steps_are_those_of_trainstep_optim(name: str) -> None:
    options = ASKED_FOR.get(name, {})
    params = parameters()
    arrays = [p.detach().numpy().copy() for p in params]
    mine, theirs = CLASSES[name](params, **options), getattr(optim, name)(arrays, **options)
    for step in range(5):
        set_gradients(params, step)
        mine.step(grad_scale=0.5, clip_norm=3.0)
        assert mine.last_norm == theirs.step([p.grad.numpy() for p in params], grad_scale=0.5, clip_norm=3.0)
    for i, (p, w) in enumerate(zip(params, arrays, strict=True)):
        np.testing.assert_array_equal(p.detach().numpy(), w)
        assert mine.state[p].keys() == theirs.state[i].keys()
        for state, value in theirs.state[i].items():
            np.testing.assert_array_equal(mine.state[p][state], value)


@names(PEERS)
def test_schedulers(name: str, dtype: Any) -> None:
    params, mine, theirs, peer = twins(name, dtype)
    for side, optimizer in ((params, mine), (theirs, peer)):
        schedulers = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=5),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
        ]
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, [8])
        for step in range(20):
            run(side, optimizer, range(step, step + 1))
            scheduler.step()
    assert mine.param_groups[1]["lr"] == peer.param_groups[1]["lr"] != peer.param_groups[1]["initial_lr"]
    assert_alike(params, mine, theirs, peer)


@names(["SGD", "Adam"])
def test_one_cycle_moves_momentum_too(name: str) -> None:
    params, mine, theirs, peer = twins(name, **ASKED_FOR[name])
    for side, optimizer in ((params, mine), (theirs, peer)):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.01, 0.02], total_steps=12)
        for step in range(11):
            run(side, optimizer, range(step, step + 1))
            scheduler.step()
    assert_alike(params, mine, theirs, peer)


@names(PEERS)
def test_the_rate_as_a_tensor(name: str) -> None:
    rate = torch.tensor(0.0625)
    params, others = parameters(), parameters()
    mine, other = CLASSES[name](params, lr=rate), CLASSES[name](others, lr=0.0625)
    for side, optimizer in ((params, mine), (others, other)):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for step in range(4):
            run(side, optimizer, range(step, step + 1))
            scheduler.step()
    assert mine.param_groups[0]["lr"] is rate
    assert_same(params, others)


@names(PEERS)
def test_gradients_that_are_none_are_left_out(name: str) -> None:
    params, mine, theirs, peer = twins(name)
    for side, optimizer in ((params, mine), (theirs, peer)):
        for step in range(9):
            set_gradients(side, step)
            side[step % 3].grad = None
            side[5].grad = None
            optimizer.step()
    assert_alike(params, mine, theirs, peer)
    assert mine.state[params[0]]["step"] == 6
    assert not mine.state[params[5]].get("step")


@names(PEERS)
def test_a_param_group_added_midway(name: str) -> None:
    params, mine, theirs, peer = twins(name)
    for side, optimizer in ((params, mine), (theirs, peer)):
        run(side, optimizer, range(5))
        more = parameters(shapes=((5, 4), (3,)), seed=1)
        optimizer.add_param_group({"params": more, "lr": 0.005})
        side += more
        run(side, optimizer, range(5, 12))
    assert_alike(params, mine, theirs, peer)


@names(PEERS)
def test_a_network_is_trained_as_torchs_optimizer_does(name: str) -> None:
    losses = []
    for cls in (CLASSES[name], PEERS[name]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4))
        net = net.to(memory_format=torch.channels_last)
        assert not net[0].weight.is_contiguous()
        optimizer = cls(net.named_parameters())
        x, y = torch.randn(16, 3, 8, 8), torch.randint(4, (16,))

        def closure(net: Any = net, optimizer: Any = optimizer, x: Any = x, y: Any = y) -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            return loss

        losses.append([optimizer.step(closure).item() for _ in range(20)])
        assert optimizer.param_groups[0]["param_names"][0] == "0.weight"
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)


# From (1.5, 1.5) towards the minimum at (1, 1).
@names(CLASSES)
def test_rosenbrocks_function_falls(name: str) -> None:
    rate = {"SGD": 1e-3, "ASGD": 1e-3, "RAdam": 1e-3, "Lion": 1e-3, "LAMB": 1e-3, "LARS": 2.0, "Adadelta": 1.0, "Adagrad": 0.1}.get(
        name, 5e-3
    )
    p = torch.nn.Parameter(torch.tensor([1.5, 1.5], dtype=torch.float64))
    optimizer = CLASSES[name]([p], lr=rate, **({"weight_decay": 0.0} if name in ("AdamW", "LAMB") else {}))

    def closure() -> Any:
        optimizer.zero_grad()
        value = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        value.backward()
        return value

    first = optimizer.step(closure).item()
    for _ in range(600):
        last = optimizer.step(closure).item()
    assert last < 0.02 * first


# --- what torch.optim.Optimizer does ---------------------------------------------------------------------------------------------


@names(CLASSES)
def test_hooks_and_closures(name: str) -> None:
    (p,) = parameters(shapes=((3,),))
    optimizer = CLASSES[name]([p])
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    after = optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> Any:
        assert torch.is_grad_enabled()
        seen.append("closure")
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() > 0
    assert seen == ["before", "closure", "after"]
    after.remove()
    optimizer.step()
    assert seen[3:] == ["before"]
    optimizer.zero_grad()
    assert p.grad is None


@names(PEERS)
@pytest.mark.parametrize("back", [False, True], ids=["torchs to ours", "ours to torchs"])
def test_state_dicts_go_both_ways_midway(name: str, back: bool, dtype: Any) -> None:
    options = ASKED_FOR.get(name, {}) | {"lr": 0.02}
    params, mine, theirs, peer = twins(name, dtype, **options)
    first, second = (mine, peer) if back else (peer, mine)
    first_params, second_params = (params, theirs) if back else (theirs, params)
    for step in range(20):
        set_gradients(first_params, step)
        first_params[1].grad = None  # this one has no state, or one that no step has changed
        first.step()
    with torch.no_grad():
        for p, q in zip(first_params, second_params, strict=True):
            q.copy_(p)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(first_params, first, range(20, 40))
    run(second_params, second, range(20, 40))
    assert_alike(params, mine, theirs, peer)
    for group, other in zip(mine.param_groups, peer.param_groups, strict=True):
        assert group["lr"] == other["lr"]
        assert not {"foreach", "fused", "capturable", "differentiable"} & group.keys()


@names(CLASSES)
@pytest.mark.parametrize("low_bits", [None, "bfloat16", "8bit"])
def test_state_dicts_and_copies_go_on_with_the_same_bits(name: str, low_bits: str | None) -> None:
    if low_bits and name not in (EIGHT_BITS if low_bits == "8bit" else LOW_BITS):
        with pytest.raises((TypeError, ValueError), match="state_dtype"):
            CLASSES[name]([torch.zeros(2)], state_dtype=low_bits)
        return
    options = ASKED_FOR.get(name, {}) | ({"state_dtype": low_bits, "seed": 5} if low_bits else {})
    cls = CLASSES[name]
    params = [*parameters(), *parameters(torch.bfloat16, ((7, 9), (70, 70)))]
    optimizer = cls(params, **options)
    run(params, optimizer, range(7))

    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded_params = copy.deepcopy(params)
    loaded = cls(loaded_params, **{k: v for k, v in options.items() if k == "seed"})
    loaded.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(optimizer)
    pickled = pickle.loads(pickle.dumps(optimizer))
    assert pickled.seed == optimizer.seed
    for other in (copied, pickled):
        assert {p.data_ptr() for p in other.param_groups[0]["params"]}.isdisjoint({p.data_ptr() for p in params if p.numel()})

    run(params, optimizer, range(7, 14))
    for other in (loaded, copied, pickled):
        others = other.param_groups[0]["params"]
        run(others, other, range(7, 14))
        assert_same(params, others)
        for entry, wanted in zip(other.state_dict()["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
            assert entry.keys() == wanted.keys()
            assert_same([torch.as_tensor(v) for v in entry.values()], [torch.as_tensor(wanted[k]) for k in entry])
        assert [s.keys() for s in other.state.values()] == [s.keys() for s in optimizer.state.values()]


def test_a_state_dict_of_trainstep_optim_can_be_taken() -> None:
    (p,) = parameters(shapes=((70, 70),))
    w = p.detach().numpy().copy()
    theirs = optim.Adam([w], state_dtype="8bit")
    theirs.step([np.full_like(w, 0.25)])
    mine = adapter.Adam([p], state_dtype="8bit")
    mine.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(mine.state_dict()["state"][0]["exp_avg"], theirs.state[0]["exp_avg"])


def test_hooks_of_loading_see_what_they_should() -> None:
    params, mine, theirs, peer = twins("Adam")
    run(theirs, peer, range(2))
    seen = []
    mine.register_load_state_dict_pre_hook(lambda _, given: seen.append(sorted(given["state"])))
    mine.register_load_state_dict_post_hook(lambda optimizer: seen.append(optimizer.state[params[0]]["step"]))
    mine.load_state_dict(peer.state_dict())
    assert seen == [list(range(len(SHAPES))), 2]
    peer.state[theirs[0]]["exp_avg"].zero_()
    assert mine.state[params[0]]["exp_avg"].abs().sum() > 0  # a copy


def test_an_adamw_stays_one_whatever_it_loads() -> None:
    (p,) = parameters(shapes=((3,),))
    mine = adapter.AdamW([p])
    mine.load_state_dict(torch.optim.Adam([p]).state_dict())
    assert mine.param_groups[0]["decoupled_weight_decay"] is True


def test_autograd_sees_that_a_step_has_changed_parameters() -> None:
    (p,) = parameters(shapes=((3,),))
    p.grad = torch.ones(3)
    loss = (p * p).sum()
    adapter.SGD([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- layouts and dtypes ----------------------------------------------------------------------------------------------------------

PERMUTED = {
    "transposed": lambda: torch.randn(7, 5).t(),
    "channels_last": lambda: torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
}


@names(CLASSES)
@pytest.mark.parametrize("layout", PERMUTED)
def test_permuted_parameters_are_stepped_through_their_layout(name: str, layout: str) -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(PERMUTED[layout]())
    q = torch.nn.Parameter(p.detach().contiguous())
    mine, other = CLASSES[name]([p]), CLASSES[name]([q])
    strides = p.stride()
    assert not p.is_contiguous()
    for step in range(3):
        set_gradients([q], step)
        p.grad = q.grad.clone() if step else q.grad.clone().as_strided(p.shape, strides).copy_(q.grad)
        mine.step()
        other.step()
    assert p.stride() == strides
    assert mine.state[p]["step"] == 3
    assert_close(p, q, rtol=1e-6)
    for state, value in other.state[q].items():
        assert_close(mine.state[p][state], value, state, rtol=1e-6)
    copied = CLASSES[name]([p])
    copied.load_state_dict(other.state_dict())
    p.grad, q.grad = q.grad.clone(), q.grad.clone()
    copied.step()
    other.step()
    assert_close(p, q, rtol=1e-6)


@names(EIGHT_BITS)
def test_codes_of_eight_bits_lie_as_their_parameter(name: str) -> None:
    (q,) = parameters(shapes=((80, 90),))
    p = torch.nn.Parameter(q.detach().clone().t())
    options = ASKED_FOR.get(name, {}) | {"state_dtype": "8bit"}
    mine, other = CLASSES[name]([p], **options), CLASSES[name]([q], **options)
    for step in range(4):
        set_gradients([q], step)
        p.grad = q.grad.t().contiguous()
        mine.step()
        other.step()
        if step == 1:
            mine.load_state_dict(mine.state_dict())
    assert_same([p], [q.t()])
    for state in mine._state_names(mine.param_groups[0]):
        assert_same([mine.state[p][state]], [other.state[q][state].t()])


def test_strided_gradients_and_gradients_of_another_dtype() -> None:
    p, q = parameters(shapes=((6, 4), (6, 4)))
    q.data.copy_(p.data)
    g = torch.randn(4, 6).to(torch.bfloat16)
    p.grad, q.grad = None, g.t().float().contiguous()
    p.grad_dtype = None
    p.grad = g.t()
    assert not p.grad.is_contiguous()
    for w in (p, q):
        adapter.Adam([w]).step()
    assert_same([p], [q])


@names(CLASSES)
def test_bfloat16_parameters_follow_their_float32_masters(name: str) -> None:
    params = parameters(torch.bfloat16)
    masters = [torch.nn.Parameter(p.detach().float()) for p in params]
    options = ASKED_FOR.get(name, {})
    mine, other = CLASSES[name](params, **options), CLASSES[name](masters, **options)
    for step in range(12):
        set_gradients(params, step)
        for p, w in zip(params, masters, strict=True):
            w.grad = p.grad.float()
        mine.step()
        other.step()
    for p, w in zip(params, masters, strict=True):
        assert_same([mine.state[p]["master"], p], [w.detach(), w.bfloat16()])
        for state, value in other.state[w].items():
            torch.testing.assert_close(mine.state[p][state], value, rtol=0, atol=0)


def test_a_bfloat16_parameter_that_another_has_written_to_goes_on_from_there() -> None:
    (p,) = parameters(torch.bfloat16, ((9,),))
    mine, peer = adapter.Adam([p], lr=0.1), torch.optim.Adam([p], lr=0.1)
    run([p], mine, range(2))
    peer.load_state_dict(copy.deepcopy(mine.state_dict()))
    run([p], peer, range(2, 9))  # which keeps the master in its state and does not step it
    mine.load_state_dict(peer.state_dict())
    with torch.no_grad():
        p[3] = 7.0
    before = p.detach().clone()
    mine.param_groups[0]["lr"] = 0.0
    mine.step()
    assert_same([p], [before])


def test_a_state_that_pytorch_has_as_none_begins_anew() -> None:
    (p,) = parameters(shapes=((9,),))
    mine = adapter.SGD([p], momentum=0.9, dampening=0.5)
    given = mine.state_dict()
    mine.load_state_dict(given | {"state": {0: {"momentum_buffer": None}}})
    p.grad = torch.ones(9)
    mine.step()
    assert_same([mine.state[p]["momentum_buffer"]], [p.grad])


@names(LOW_BITS)
@pytest.mark.parametrize("low_bits", ["bfloat16", "8bit"])
def test_states_of_few_bits_stay_near(name: str, low_bits: str) -> None:
    if low_bits == "8bit" and name not in EIGHT_BITS:
        return
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop", "LARS") else {}
    shapes = ((70, 70), (9, 9), (4096,), (4097,))
    params, others = parameters(shapes=shapes), parameters(shapes=shapes)
    starts = copy.deepcopy(params)
    mine, other = CLASSES[name](params, state_dtype=low_bits, **options), CLASSES[name](others, **options)
    run(params, mine, range(30))
    run(others, other, range(30))
    for p, q, start in zip(params, others, starts, strict=True):
        eight = low_bits == "8bit" and p.numel() >= 4096
        away = (p - q).norm().item()
        assert away <= (0.03 if low_bits == "bfloat16" else 0.1) * (q - start).norm().item()
        assert (away > 0) == (eight or low_bits == "bfloat16") or name == "Lion"  # whose steps are signs
        for state in mine._state_names(mine.param_groups[0]):
            assert mine.state[p][state].dtype is (
                torch.uint8 if eight else torch.bfloat16 if low_bits == "bfloat16" else torch.float32
            )
            assert (f"{state}_exponents" in mine.state[p]) == eight
            assert mine.state[p][state].shape == p.shape
    assert mine.state_dict()["state"][0].keys() == other.state_dict()["state"][0].keys()


@names(EIGHT_BITS)
def test_codes_of_eight_bits_mean_what_the_core_means(name: str) -> None:
    """One step of the core from states of zeros, whose results are known; and codes of what it gave are its codes again."""
    p = torch.nn.Parameter(torch.ones(5000))
    p.grad = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 5000)
    options = ASKED_FOR.get(name, {})
    mine, other = (CLASSES[name]([w], **options, **low) for w, low in ((p, {"state_dtype": "8bit"}), (p.detach().clone(), {})))
    (w,) = other.param_groups[0]["params"]
    w.grad = p.grad
    mine.step()
    other.step()
    for state in mine._state_names(mine.param_groups[0]):
        codes, exponents = mine.state[p][state], mine.state[p][f"{state}_exponents"]
        signed = state not in adapter._WITHOUT_SIGN
        values = adapter._decode(codes, exponents, signed)
        for got, wanted in zip(adapter._blocks(values), adapter._blocks(other.state[w][state]), strict=True):
            assert ((got - wanted).abs() <= wanted.abs() / 8 + wanted.abs().max() * 2.0**-14).all(), state
        assert_same([adapter._decode(*adapter._encode(values, signed), signed)], [values])
    special = torch.tensor([1.0, torch.nan, 0.0, torch.inf] * 64 + [0.0, -0.0, 1e-30, 3.0] * 64)
    assert adapter._decode(*adapter._encode(special, True), True)[:256].isnan().all()


# --- what goes with a step -------------------------------------------------------------------------------------------------------


def test_clipping_is_torchs() -> None:
    for limit in (0.5, 1e3):
        params, mine, theirs, peer = twins("Adam", shapes=((13, 7), (70, 35), (7,)))
        for step in range(5):
            set_gradients(params, step)
            set_gradients(theirs, step)
            norm = torch.nn.utils.clip_grad_norm_(theirs, limit)
            mine.step(clip_norm=limit)
            peer.step()
            assert mine.last_norm == pytest.approx(float(norm), rel=1e-6)
        assert_alike(params, mine, theirs, peer)
        mine.step()
        assert mine.last_norm is None
    params, mine, theirs, peer = twins("SGD", shapes=((13, 7), (70, 35)), momentum=0.9)
    for step in range(5):
        set_gradients(params, step)
        set_gradients(theirs, step)
        torch.nn.utils.clip_grad_value_(theirs, 0.4)
        mine.step(clip_value=0.4)
        peer.step()
    assert_alike(params, mine, theirs, peer)


@names(CLASSES)
def test_steps_with_gradients_that_are_not_finite_are_skipped(name: str) -> None:
    params = parameters()
    optimizer, other = CLASSES[name](params), CLASSES[name](copy.deepcopy(params))
    set_gradients(params, 0)
    params[3].grad[4, 5] = torch.nan
    before = copy.deepcopy(params)
    optimizer.param_groups[0]["lr"] *= 3
    for _ in range(2):
        optimizer.step(skip_nonfinite=True)
    optimizer.param_groups[0]["lr"] /= 3
    assert_same(params, before)
    assert optimizer.skipped_steps == 2
    run(params, optimizer, range(3))
    run(other.param_groups[0]["params"], other, range(3))
    assert_same(params, other.param_groups[0]["params"])


def test_scaled_and_zeroed_gradients_and_l1() -> None:
    (p,) = parameters(shapes=((5,),))
    before = p.detach().clone()
    p.grad = torch.full((5,), 6.0)
    adapter.SGD([p], lr=0.5, l1=0.25).step(grad_scale=0.5, zero_grads=True)
    assert_close(p, before - 0.5 * (3 + 0.25 * before.sign()))
    assert_same([p.grad], [torch.zeros(5)])


def test_the_same_bits_on_any_number_of_threads() -> None:
    results = []
    for n in (1, 2, 3):
        params = parameters(shapes=((300, 200), (70, 70), (5,)))
        with ts.num_threads(n):
            run(params, adapter.LAMB(params, state_dtype="8bit", seed=3), range(5))
        results.append(params)
    for one, other in pairwise(results):
        assert_same(one, other)


def test_an_option_that_asks_for_a_state_can_be_set_midway() -> None:
    params, mine, theirs, peer = twins("SGD", lr=0.1)
    for side, optimizer in ((params, mine), (theirs, peer)):
        run(side, optimizer, range(2))
        for group in optimizer.param_groups:
            group["momentum"] = 0.9
        run(side, optimizer, range(2, 5))
    assert_alike(params, mine, theirs, peer)
    assert mine.state[params[0]]["step"] == 5


# --- errors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(3, device="meta"), r"params\[1\].*meta.*CPU"),
        (lambda: torch.zeros(3, dtype=torch.complex64), r"params\[1\].*complex64.*float32"),
        (lambda: torch.zeros(3, dtype=torch.float16), r"params\[1\].*float16.*float32"),
        (lambda: torch.zeros(3, dtype=torch.int64), r"params\[1\].*int64.*float32"),
        (lambda: torch.zeros(3, 8)[:, ::2], r"params\[1\].*gaps.*dense"),
        (lambda: torch.zeros(3, 1).expand(3, 4), r"params\[1\].*overlaps.*dense"),
        (lambda: torch.eye(3).to_sparse(), r"params\[1\].*sparse.*dense"),
    ],
    ids=["meta", "complex", "float16", "int", "gaps", "expanded", "sparse"],
)
def test_parameters_that_cannot_be_stepped(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        adapter.Adam([torch.zeros(2), make()])
    optimizer = adapter.Adam([torch.zeros(2)])
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.add_param_group({"params": [make()]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": torch.ones(2)}, "lr is a Tensor"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] is 1"),
        ({"eps": "small"}, "eps is a str"),
        ({"state_dtype": "4bit"}, "state_dtype is '4bit'"),
        ({"seed": 0.5}, "seed"),
        ({"fused": True}, "fused"),
        ({"foreach": True}, "foreach"),
        ({"capturable": True}, "capturable"),
        ({"differentiable": True}, "differentiable"),
        ({"momentum": 0.9}, "momentum"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_options_that_cannot_be_taken(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        adapter.Adam([torch.zeros(2)], **options)
    with pytest.raises((TypeError, ValueError), match=message):
        adapter.Adam([{"params": [torch.zeros(2)], **options}])
    optimizer = adapter.Adam([{"params": [torch.zeros(2)], "note": "kept", "fused": None}])
    assert optimizer.param_groups[0]["note"] == "kept"


def test_parameters_that_share_memory() -> None:
    both = torch.zeros(8)
    for params in ([both, both[4:]], [both[:5], torch.zeros(2), both[4:]]):
        with pytest.raises(ValueError, match=r"params\[\d\] shares memory with params\[0\]"):
            adapter.SGD(params)
    adapter.SGD([both[:4], both[4:], both[4:4]])
    optimizer = adapter.SGD([both])
    with pytest.raises(ValueError, match="shares memory"):
        optimizer.add_param_group({"params": [both.view(2, 4)]})


def test_states_of_few_bits_of_float64() -> None:
    with pytest.raises(TypeError, match=r"params\[0\].*float64.*bfloat16"):
        adapter.Adam([torch.zeros(2, dtype=torch.float64)], state_dtype="bfloat16")


def test_sparse_gradients() -> None:
    table = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = adapter.Adam(table.parameters())
    table(torch.tensor([1, 2])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(TypeError, match="sparse"):
        optimizer.step()
    assert_same([table.weight], [before])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["state"][0].pop("exp_avg"), r"no exp_avg for params\[0\]"),
        (lambda s: s["state"][1].pop("step"), r"no step for params\[1\]"),
        (lambda s: s["state"][1].update(step=-1), r"step -1.0 for params\[1\]"),
        (lambda s: s["state"][1].update(step=1.5), r"step 1.5 for params\[1\]"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(3)), r"exp_avg of .*\(3,\) for params\[0\]"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(2, 2, dtype=torch.uint8)), r"exp_avg of torch.uint8"),
        (lambda s: s["param_groups"][0].update(eps=-1.0), "eps is -1"),
        (lambda s: s["param_groups"][0].update(params=[0]), "size"),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), "different number"),
    ],
)
def test_state_dicts_that_do_not_fit_change_nothing(change: Any, message: str) -> None:
    params = parameters(shapes=((2, 2), (3,)))
    optimizer = adapter.Adam(params, lr=0.1)
    run(params, optimizer, range(2))
    given = copy.deepcopy(optimizer.state_dict())
    given["param_groups"][0]["lr"] = 0.7
    change(given)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.load_state_dict(given)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, entry in before["state"].items():
        assert entry["step"] == after["state"][i]["step"]
        assert_same([entry["exp_avg"]], [after["state"][i]["exp_avg"]])


def test_a_layout_that_changes_after_the_first_step() -> None:
    p = torch.nn.Parameter(torch.randn(2, 3, 4, 4))
    optimizer = adapter.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    p.data = p.data.to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="exp_avg has strides"):
        optimizer.step()
