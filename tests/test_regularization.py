"""Penalties, clipping, the longest column and masks: a trainer's steps against a NumPy network, on every path that a step takes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim, reference
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential

from .helpers import Array, assert_same_bits, assert_within, bits, classes, eps, network, state_bits
from .net_twin import RULES, NetTrainer, scatter

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "l1": {"l1": 0.003},
    "l2": {"l2": 0.02},
    "l1 and l2": {"l1": 0.002, "l2": 0.01},
    "biases too": {"l1": 0.002, "l2": 0.01, "penalize_bias": True},
    "clip": {"clip_norm": 0.25},
    "clip that leaves it": {"clip_norm": 1e3},
    "max_norm": {"max_norm": 0.7},
    "all": {"l1": 0.002, "l2": 0.01, "penalize_bias": True, "clip_norm": 0.3, "max_norm": 0.7},
}
# A single hidden layer of a few outputs, deeper ones, no hidden layer, and every kind of layer.
NETS: dict[str, Callable[[], Sequential]] = {
    "4-16-3": lambda: network((4, 16, 3), seed=2),
    "6-33-17": lambda: network((6, 33, 17), seed=2),
    "5-40-33": lambda: network((5, 40, 33), seed=2),
    "9-31-17-10": lambda: network((9, 31, 17, 10), seed=2),
    "7-2": lambda: network((7, 2), seed=2),
    "no bias": lambda: network((6, 12, 5), seed=2, bias=False),
    "normed": lambda: scatter(
        Sequential(
            Dense(6, 8),
            BatchNorm(eps=1e-2),
            Activation("tanh"),
            Residual(LayerNorm(eps=1e-2), Dense(8, 12, activation="tanh"), Dense(12, 8)),
            Residual(Dense(8, 5, activation="tanh"), BatchNorm(eps=1e-2), shortcut=Dense(8, 5, bias=False)),
            LayerNorm(affine=False),
            Dense(5, 4),
            dtype="float64",
        ),
        np.random.default_rng(3),
    ),
}
FROZEN = {"4-16-3": ("0.weight",), "9-31-17-10": ("0", "2.bias"), "normed": ("1.gamma", "3.1", "4.shortcut")}
# The dtype's rounding alone, over steps that each pass it on.
CLOSE = 1e-9


def pair(model: Sequential, rule: str, loss: str = "softmax_cross_entropy", **options: Any) -> tuple[ts.Trainer, NetTrainer]:
    cls, _, _, own = RULES[rule]
    wanted = NetTrainer(model, loss, rule, **options)
    return ts.Trainer(model, loss=loss, optimizer=cls(**own), **options), wanted


def batches(model: Sequential, steps: int, rows: tuple[int, ...] = (17, 64, 3, 33, 65), seed: int = 1) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(seed)
    width, outputs = model._program.in_features, model._program.out_features
    sizes = [rows[step % len(rows)] for step in range(steps)]
    return [(rng.standard_normal((n, width)).astype(model.dtype), rng.integers(0, outputs, n)) for n in sizes]


def close(got: Array, want: Array, what: object, tolerance: float = CLOSE) -> None:
    assert_within(got, want, tolerance * (1 + np.abs(want)), what)


def assert_same_training(trainer: ts.Trainer, wanted: NetTrainer) -> None:
    assert trainer.steps == wanted.steps
    for (name, view), state in zip(trainer.model.parameters().items(), trainer.optimizer.state, strict=True):
        close(view, wanted.net.p[name], name)
        for s, values in state.items():
            if s != "step":
                close(values, wanted.state[name][s], (name, s))
    for name, buffer in trainer.model.buffers().items():
        close(buffer, wanted.net.buffers[name], name)


def half(model: Sequential, seed: int = 0, names: tuple[str, ...] = ("weight",)) -> dict[str, Array]:
    """A mask for each parameter of these names, about half of it kept."""
    rng = np.random.default_rng(seed)
    return {name: rng.random(v.shape) < 0.5 for name, v in model.parameters().items() if name.endswith(names)}


def prune(model: Sequential, masks: dict[str, Array]) -> None:
    model._program.set_masks([masks.get(name) for name in model.parameters()])


# --- steps ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("net", NETS)
def test_thirty_steps(net: str, options: str, rule: str) -> None:
    model = NETS[net]()
    trainer, wanted = pair(model, rule, **OPTIONS[options])
    clipped = 0
    for x, y in batches(model, 30):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
        for name, g in model.gradients().items():  # whole: before it is clipped
            close(g, wanted.gradients[name], name)
        clipped += wanted.clip_norm is not None and wanted.norm > wanted.clip_norm
    assert_same_training(trainer, wanted)
    if options == "clip":
        assert clipped > 0
    if options == "clip that leaves it":
        assert clipped == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", ["l1 and l2", "biases too", "clip", "max_norm", "all"])
@pytest.mark.parametrize("net", FROZEN)
def test_what_is_frozen_is_not_counted(net: str, options: str, rule: str) -> None:
    """Neither in the penalty, nor in the norm, nor is it made shorter."""
    model = NETS[net]()
    for name in FROZEN[net]:
        for parameter, view in model.parameters().items():
            if f"{parameter}.".startswith(f"{name}."):
                view *= 3  # longer than max_norm allows
    model.freeze(*FROZEN[net])
    frozen = {name: model.parameters()[name].copy() for name in model.frozen}
    trainer, wanted = pair(model, rule, **OPTIONS[options])
    for x, y in batches(model, 30):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
        for name, g in model.gradients().items():
            close(g, wanted.gradients[name], name)
    for name, view in model.parameters().items():
        close(view, wanted.net.p[name], name)
        if name in frozen:
            assert_same_bits(view, frozen[name], name)


def test_what_is_trained_again_is_counted_again() -> None:
    x, y = classes(40, 6, 4, "float64")
    model = network((6, 9, 4))
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.0), l1=0.1, l2=0.2)
    plain = ts.Trainer(network((6, 9, 4))).evaluate(x, y)["loss"]
    for frozen in ((), ("0",), (), ("0.weight", "1"), ("0.bias",)):
        model.unfreeze()
        if frozen:
            model.freeze(*frozen)
        counted = [w for name, w in model.parameters().items() if name.endswith("weight") and name not in model.frozen]
        penalty = sum(0.1 * np.abs(w).sum() + 0.2 * (w * w).sum() for w in counted)
        assert trainer.evaluate(x, y)["loss"] == pytest.approx(plain + penalty, rel=1e-12)
        assert trainer.step(x, y) == pytest.approx(plain + penalty, rel=1e-12)


@pytest.mark.parametrize("options", ["l1 and l2", "biases too", "clip", "all"])
@pytest.mark.parametrize(("loss", "outputs"), [("mse", 3), ("mse", 1), ("sigmoid_binary_cross_entropy", 3)])
def test_with_other_losses(loss: str, outputs: int, options: str) -> None:
    model = network((6, 20, outputs), seed=2)
    trainer, wanted = pair(model, "momentum", loss, **OPTIONS[options])
    rng = np.random.default_rng(0)
    for rows in (17, 64, 1, 3) * 8:
        x, y = rng.standard_normal((rows, 6)), (rng.standard_normal((rows, outputs)) > 0).astype(float)
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
    assert_same_training(trainer, wanted)


@pytest.mark.parametrize("options", ["biases too", "clip", "all"])
def test_with_a_loss_of_ones_own(options: str) -> None:
    def loss(p: Array, t: Array) -> tuple[float, Array]:
        value, dy = reference.softmax_cross_entropy(p, t)
        return float(value), dy

    model, twin = NETS["normed"](), NETS["normed"]()
    trainer = ts.Trainer(model, loss=loss, optimizer=optim.SGD(lr=0.05), **OPTIONS[options])
    built_in = ts.Trainer(twin, optimizer=optim.SGD(lr=0.05), **OPTIONS[options])
    for x, y in batches(model, 10):
        assert trainer.step(x, y) == pytest.approx(built_in.step(x, y), rel=CLOSE)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(built_in.evaluate(x, y)["loss"], rel=CLOSE)
    for name, view in model.parameters().items():
        close(view, twin.parameters()[name], name)


def test_with_weights_of_rows() -> None:
    """The penalty is added to the weighted mean, as it is."""
    model = network((6, 20, 4), seed=2)
    trainer, wanted = pair(model, "adam", **OPTIONS["all"])
    rng = np.random.default_rng(3)
    for x, y in batches(model, 30):
        weight = rng.uniform(0.1, 3, len(x))
        assert trainer.step(x, y, weight) == pytest.approx(wanted.step(x, y, weight), rel=CLOSE)
    assert_same_training(trainer, wanted)


def test_with_dropout_everything_is_as_by_hand() -> None:
    def net() -> Sequential:
        body = [LayerNorm(), Dense(20, 30, activation="tanh"), Dropout(0.4), Dense(30, 20)]
        return Sequential(Dense(6, 20), Residual(*body), Dense(20, 4), seed=5, dtype="float64")

    model, twin = net(), net()
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.1), l1=0.002, l2=0.01, clip_norm=0.3, max_norm=0.9)
    for x, y in batches(model, 10):
        p = twin.parameters()
        weights = [w for name, w in p.items() if name.endswith("weight")]
        value, dy = reference.softmax_cross_entropy(twin.forward(x, training=True), y)
        value += sum(0.002 * np.abs(w).sum() + 0.01 * (w * w).sum() for w in weights)
        twin.backward(dy)
        gradients = {
            name: g + (0.002 * np.sign(p[name]) + 0.02 * p[name]) * (p[name].ndim == 2) for name, g in twin.gradients().items()
        }
        norm = math.sqrt(sum((g * g).sum() for g in gradients.values()))
        for name, g in gradients.items():
            p[name] -= 0.1 * min(1.0, 0.3 / (norm + 1e-6)) * g
        for w in weights:
            w *= np.minimum(1.0, 0.9 / np.sqrt((w * w).sum(axis=0)))
        assert trainer.step(x, y) == pytest.approx(value, rel=CLOSE)
    for name, view in model.parameters().items():
        close(view, twin.parameters()[name], name)


EACH = [
    o for o in optim.__all__ if isinstance(c := getattr(optim, o), type) and issubclass(c, optim.Optimizer) and o != "Optimizer"
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("net", ["6-33-17", "normed"])
@pytest.mark.parametrize("name", EACH)
def test_with_each_optimizer(name: str, net: str, masked: bool) -> None:
    """An update is that of the optimizer by itself with the gradients made before it, also where it takes whole arrays."""
    model, twin = NETS[net](), NETS[net]()
    options = {"lr": 0.01} | ({} if name == "Rprop" else {"weight_decay": 0.02})
    optimizer = getattr(optim, name)(list(twin.parameters().values()), **options)
    trainer = ts.Trainer(model, optimizer=getattr(optim, name)(**options), **OPTIONS["all"])
    masks = half(model) if masked else {}
    for m in (model, twin):
        prune(m, masks)
    twin._program.set_masks([None] * len(twin.parameters()))
    p = twin.parameters()
    for x, y in batches(model, 5):
        _, dy = reference.softmax_cross_entropy(twin.forward(x, training=True), y)
        twin.backward(dy)
        gradients = [(g + 0.002 * np.sign(p[n]) + 0.02 * p[n]) * masks.get(n, 1) for n, g in twin.gradients().items()]
        norm = math.sqrt(sum((g * g).sum() for g in gradients))
        optimizer.step([min(1.0, 0.3 / (norm + 1e-6)) * g for g in gradients])
        for n, w in p.items():
            w *= masks.get(n, 1)
            if w.ndim == 2:
                w *= 0.7 / np.maximum(np.sqrt((w * w).sum(axis=0)), 0.7)
        trainer.step(x, y)
    for n, view in model.parameters().items():
        close(view, p[n], (name, n), 1e-7)


@pytest.mark.parametrize("options", ["l1 and l2", "biases too", "clip", "max_norm", "all"])
def test_with_groups_of_another_order(options: str) -> None:
    """The optimizer's parameters lie in another order than the model's, each with a rate of its own."""
    model = network((9, 31, 17, 10), seed=2)
    masks = half(model)
    prune(model, masks)
    wanted = NetTrainer(model, "softmax_cross_entropy", "momentum", **OPTIONS[options])
    wanted.prune(masks)
    groups = model.param_groups(decay_bias=False, lr=0.1, lr_factors={"0": 0.2, "1": 0.5})[::-1]
    plain = wanted.update
    rates = {"0": 0.02, "1": 0.05, "2": 0.1}
    own = {id(w): {"lr": rates[n[0]], "momentum": 0.9, "weight_decay": 0.5 * n.endswith("weight")} for n, w in wanted.net.p.items()}
    wanted.options = {}
    wanted.update = lambda w, g, **state: plain(w, g, **state, **own[id(w)])
    trainer = ts.Trainer(model, optimizer=optim.SGD(groups, momentum=0.9, weight_decay=0.5), **OPTIONS[options])
    for x, y in batches(model, 10):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
    for name, view in model.parameters().items():
        close(view, wanted.net.p[name], name)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
def test_with_states_in_fewer_bits(state_dtype: str) -> None:
    x, y = classes(64, 100, 10)
    model = network((100, 300, 10), dtype="float32")
    masks = half(model)
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.1, state_dtype=state_dtype), **OPTIONS["all"])
    for step in range(6):
        trainer.step(x, y)
        if step == 2:
            prune(model, masks)
    for name, mask in masks.items():
        w = model.parameters()[name].astype(np.float64)
        assert not w[~mask].any()
        assert np.sqrt((w * w).sum(axis=0)).max() <= 0.7 * (1 + 1e-6)


def test_the_penalty_of_many_float32_weights() -> None:
    """Added up in as many digits as the loss has."""
    model = network((500, 700, 10), dtype="float32")
    p = [w.astype(np.float64) for name, w in model.parameters().items() if name.endswith("weight")]
    x, y = classes(20, 500, 10)
    plain = ts.Trainer(model).evaluate(x, y)["loss"]
    penalty = sum(0.1 * np.abs(w).sum() + 0.3 * (w * w).sum() for w in p)
    trainer = ts.Trainer(model, l1=0.1, l2=0.3)
    assert penalty > 100 * plain
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(plain + penalty, rel=1e-6)
    assert trainer.step(x, y) == pytest.approx(plain + penalty, rel=1e-6)


def test_two_trainers_of_one_model() -> None:
    """Each has penalties of its own."""
    model = network((6, 9, 4))
    x, y = classes(40, 6, 4, "float64")
    plain, first, second = (ts.Trainer(model, optimizer=optim.SGD(lr=0.0), l1=l1, l2=l2) for l1, l2 in ((0, 0), (0.1, 0), (0, 0.2)))
    weights = [w for name, w in model.parameters().items() if name.endswith("weight")]
    for _ in range(2):
        bare = plain.step(x, y)
        assert first.step(x, y) == pytest.approx(bare + sum(0.1 * np.abs(w).sum() for w in weights), rel=1e-12)
        assert second.step(x, y) == pytest.approx(bare + sum(0.2 * (w * w).sum() for w in weights), rel=1e-12)
        model.forward(x, training=True)
        _, dy = reference.softmax_cross_entropy(model(x), y)
        model.backward(dy)  # no trainer's: without penalties
        ours = {name: g.copy() for name, g in model.gradients().items()}
        plain.step(x, y)
        for name, g in model.gradients().items():
            close(g, ours[name], name)


def test_the_sign_of_0_is_0() -> None:
    model = Sequential(Dense(4, 3, init="zeros"), dtype="float64")
    trainer = ts.Trainer(model, loss="mse", optimizer=optim.SGD(lr=0.1), l1=0.5)
    x, y = np.ones((5, 4)), np.zeros((5, 3))
    assert trainer.step(x, y) == 0.0
    assert not any(g.any() for g in model.gradients().values())
    assert not any(w.any() for w in model.parameters().values())
    model.parameters()["0.weight"][0] = [1e-300, -1e-300, -0.0]
    ts.Trainer(model, loss="mse", optimizer=optim.SGD(lr=0.0), l1=0.5).step(0 * x, y)
    assert model.gradients()["0.weight"][0].tolist() == [0.5, -0.5, 0.0]


def test_penalties_by_default_are_of_the_matrices_named_weight() -> None:
    """gamma and beta are left alone, and so are biases; with penalize_bias all of them are penalised."""
    model = NETS["normed"]()
    x, y = batches(model, 1)[0]
    p = {name: v.copy() for name, v in model.parameters().items()}
    plain = NETS["normed"]()
    alone = ts.Trainer(plain, optimizer=optim.SGD(lr=0.1)).step(x, y)
    for every in (False, True):
        model = NETS["normed"]()
        trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.1), l1=0.1, l2=0.3, penalize_bias=every)
        counted = [w for name, w in p.items() if every or name.endswith("weight")]
        assert len(counted) == (len(p) if every else 6)
        penalty = sum(0.1 * np.abs(w).sum() + 0.3 * (w * w).sum() for w in counted)
        assert trainer.step(x, y) == pytest.approx(alone + penalty, rel=1e-11)
        for name, g in model.gradients().items():
            added = 0.1 * np.sign(p[name]) + 0.6 * p[name] if every or name.endswith("weight") else 0
            close(g, plain.gradients()[name] + added, name)


# --- losses of fit and evaluate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["4-16-3", "9-31-17-10", "normed"])
@pytest.mark.parametrize("options", ["l1 and l2", "biases too", "clip", "max_norm", "all"])
def test_fit_and_evaluate_count_the_penalties(net: str, options: str) -> None:
    model = NETS[net]()
    trainer, wanted = pair(model, "adam", **OPTIONS[options])
    x, y = batches(model, 1, (103,))[0]
    assert trainer.evaluate(x, y, batch_size=30)["loss"] == pytest.approx(wanted.measure(x, y), rel=CLOSE)
    history = trainer.fit(x, y, epochs=3, batch_size=25, validation_data=(x[:40], y[:40])).history
    for epoch in range(3):
        order = _core.permutation(103, model.seed, epoch)
        losses = [wanted.step(x[rows], y[rows]) * len(rows) for rows in (order[first : first + 25] for first in range(0, 103, 25))]
        assert history["loss"][epoch] == pytest.approx(sum(losses) / 103, rel=CLOSE)
        assert history["val_loss"][epoch] == pytest.approx(wanted.measure(x[:40], y[:40]), rel=CLOSE)
    assert_same_training(trainer, wanted)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(wanted.measure(x, y), rel=CLOSE)


def test_accuracy_and_predictions_know_nothing_of_penalties() -> None:
    x, y = classes(60, 8, 4, "float64")
    model = network((8, 9, 4))
    bare, penalized = ts.Trainer(model).evaluate(x, y), ts.Trainer(model, l1=0.1, l2=1.0, penalize_bias=True).evaluate(x, y)
    assert bare["accuracy"] == penalized["accuracy"]
    penalty = sum(0.1 * np.abs(w).sum() + (w * w).sum() for w in model.parameters().values())
    assert penalized["loss"] == pytest.approx(bare["loss"] + penalty, rel=1e-12)


def test_nothing_asked_for_gives_the_bits_of_a_plain_trainer(dtype: np.dtype) -> None:
    x, y = classes(120, 8, 4)
    trained = []
    for options in (
        {},
        {"l1": 0.0, "l2": 0.0, "clip_norm": None, "max_norm": None, "penalize_bias": True},
        {"clip_norm": 1e4},
        {"max_norm": 1e4},
    ):
        trainer = ts.Trainer(network((8, 20, 4), dtype=dtype), optimizer=optim.Adam(lr=0.01), **options)
        history = trainer.fit(x, y, epochs=3).history
        trained.append((bits(trainer.model), state_bits(trainer), history["loss"]))
    assert all(each == trained[0] for each in trained)


# --- clipping and the longest column -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e6, 1e25])
def test_clipping_is_by_the_norm_of_all_gradients_together(scale: float, dtype: np.dtype) -> None:
    """Also where the squares of float32 gradients would overflow."""
    x, y = classes(40, 8, 3)
    model = network((8, 20, 3), dtype=dtype)
    before = {name: v.astype(np.float64) for name, v in model.parameters().items()}
    trainer = ts.Trainer(
        model, loss=lambda p, _: (0.0, (scale * np.ones_like(p)).astype(p.dtype)), optimizer=optim.SGD(lr=1.0), clip_norm=0.5
    )
    trainer.step(x, y)
    g = {name: v.astype(np.float64) for name, v in model.gradients().items()}
    norm = math.sqrt(sum((v * v).sum() for v in g.values()))
    factor = min(1.0, 0.5 / (norm + 1e-6))
    assert (factor < 1) == (scale > 0.1)
    for name, view in model.parameters().items():
        bound = 20 * eps(dtype) * (np.abs(before[name]) + factor * np.abs(g[name]))
        assert_within(view, before[name] - factor * g[name], bound, name)


def test_no_column_is_longer_than_max_norm(dtype: np.dtype, threads: int) -> None:
    x, y = classes(300, 8, 4)
    model = network((8, 70, 33, 4), dtype=dtype)
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.1), max_norm=0.6)
    trainer.fit(x, y, epochs=2)
    touched = 0
    for view in model.parameters().values():
        if view.ndim == 2:
            norms = np.sqrt((view.astype(np.float64) ** 2).sum(axis=0))
            assert norms.max() <= 0.6 * (1 + 8 * eps(dtype))
            touched += (norms > 0.6 * (1 - 8 * eps(dtype))).sum()
    assert touched > 10


def test_max_norm_leaves_shorter_columns_and_biases_alone() -> None:
    """Column by column, after the update: what is short enough keeps the bits that the update gave it."""
    x, y = classes(40, 8, 3, "float64")
    plain, held = network((8, 20, 3)), network((8, 20, 3))
    for model in (plain, held):
        model.parameters()["0.weight"][:, ::2] *= 10
        model.parameters()["0.weight"][:, 5] = 0
        model.parameters()["0.bias"][...] = 50
    ts.Trainer(plain, optimizer=optim.SGD(lr=0.1)).step(x, y)
    ts.Trainer(held, optimizer=optim.SGD(lr=0.1), max_norm=2.0).step(x, y)
    w, v = plain.parameters()["0.weight"], held.parameters()["0.weight"]
    norms = np.sqrt((w * w).sum(axis=0))
    long = norms > 2.0
    assert 0 < long.sum() < 20
    assert_same_bits(np.ascontiguousarray(v[:, ~long]), np.ascontiguousarray(w[:, ~long]))
    close(v[:, long], w[:, long] * 2.0 / norms[long], "long", 1e-13)
    for name in ("0.bias", "1.bias"):
        assert_same_bits(held.parameters()[name], plain.parameters()[name])


# --- paths: threads, large nets, fused updates; above the kernels, so that one level will do ------------------------------------

PATHS: dict[str, tuple[tuple[int, ...], int]] = {
    "one hidden layer": ((64, 64, 10), 64),
    "many rows": ((50, 100, 7), 300),
    "more outputs": ((41, 120, 40), 90),
    "deep": ((20, 70, 150, 3), 128),
    "no hidden layer": ((300, 5), 600),
    "tiles": ((530, 300, 5), 40),
}


@pytest.mark.one_level
@pytest.mark.parametrize("options", ["biases too", "clip", "max_norm", "all"])
@pytest.mark.parametrize("path", PATHS)
def test_bits_do_not_depend_on_threads(path: str, options: str, dtype: np.dtype) -> None:
    widths, batch = PATHS[path]
    x, y = classes(2 * batch + 5, widths[0], widths[-1])
    trained = []
    for n, always in ((1, False), (2, False), (3, False), (3, True)):
        _core.share_always(always)
        try:
            with ts.num_threads(n):
                trainer = ts.Trainer(network(widths, "relu", dtype=dtype), optimizer=optim.Adam(lr=0.01), **OPTIONS[options])
                history = trainer.fit(x, y, epochs=2, batch_size=batch, validation_data=(x[:30], y[:30])).history
        finally:
            _core.share_always(False)
        trained.append((bits(trainer.model), state_bits(trainer), history["loss"], history["val_loss"]))
    assert all(each == trained[0] for each in trained)


@pytest.mark.one_level
@pytest.mark.parametrize("options", ["biases too", "all"])
def test_bits_of_normed_nets_do_not_depend_on_threads(options: str, dtype: np.dtype) -> None:
    trained = []
    _core.share_always(True)
    try:
        for n in (1, 2, 3):
            with ts.num_threads(n):
                block = [LayerNorm(), Dense(90, 70, activation="relu"), Dense(70, 90)]
                model = Sequential(Dense(33, 90), BatchNorm(), Activation("relu"), Residual(*block), Dense(90, 4), dtype=dtype)
                trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01), **OPTIONS[options])
                losses = [trainer.step(x, y) for x, y in batches(model, 20, (130, 63, 257))]
            trained.append((bits(model), state_bits(trainer), losses, *(b.tobytes() for b in model.buffers().values())))
    finally:
        _core.share_always(False)
    assert trained[0] == trained[1] == trained[2]


@pytest.mark.one_level
@pytest.mark.parametrize("options", ["l1 and l2", "biases too"])
@pytest.mark.parametrize("path", PATHS)
def test_a_fused_update_with_penalties_gives_the_same_bits(path: str, options: str, dtype: np.dtype, threads: int) -> None:
    widths, batch = PATHS[path]
    x, y = classes(2 * batch + 5, widths[0], widths[-1])
    trained = []
    for fuse in (False, True, None):
        trainer = ts.Trainer(
            network(widths, "relu", dtype=dtype),
            optimizer=optim.AdamW(lr=0.01, weight_decay=0.1),
            fuse_update=fuse,
            **OPTIONS[options],
        )
        history = trainer.fit(x, y, epochs=2, batch_size=batch).history
        trained.append((bits(trainer.model), state_bits(trainer), history["loss"]))
    assert trained[0] == trained[1]
    assert trained[0] == trained[2]


LARGE = (784, 512, 512, 10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", ["biases too", "all"])
def test_a_large_net_is_the_formulas(options: str, rule: str) -> None:
    """Where updates are fused unless clip_norm or max_norm is there."""
    model = network(LARGE, "tanh", seed=2)
    trainer, wanted = pair(model, rule, **OPTIONS[options])
    for x, y in batches(model, 2, (128,)):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
    for name, view in model.parameters().items():
        close(view, wanted.net.p[name], name)


@pytest.mark.one_level
@pytest.mark.parametrize("options", ["biases too", "clip", "max_norm", "all"])
def test_a_large_net_has_the_same_bits_for_any_number_of_threads(options: str) -> None:
    x, y = classes(128, LARGE[0], LARGE[-1])
    trained = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            trainer = ts.Trainer(network(LARGE, "relu", dtype="float32"), optimizer=optim.Adam(lr=1e-3), **OPTIONS[options])
            losses = [trainer.step(x, y) for _ in range(3)]
        trained.append((bits(trainer.model), state_bits(trainer), losses))
    assert trained[0] == trained[1] == trained[2]


def test_clipping_keeps_whole_gradients_where_they_would_be_fused() -> None:
    x, y = classes(64, 600, 10)
    for options, kept in (({}, False), ({"l2": 0.1}, False), ({"clip_norm": 1.0}, True), ({"max_norm": 1.0}, True)):
        model = network((600, 500, 10), "relu", dtype="float32")
        ts.Trainer(model, **options).step(x, y)
        if kept:
            assert all(g.any() for g in model.gradients().values())
        else:
            with pytest.raises(RuntimeError, match="gradients: the last training step kept none"):
                model.gradients()


# --- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.one_level
@pytest.mark.parametrize("name", ["l1", "l2", "clip_norm", "max_norm"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (-math.inf, ValueError),
        (True, TypeError),
        ("0.1", TypeError),
        ([0.1], TypeError),
    ],
    ids=repr,
)
def test_wrong_numbers(name: str, value: object, error: type[Exception]) -> None:
    model, optimizer = network((4, 3)), optim.SGD(lr=0.1)
    with pytest.raises(error, match=f"^Trainer: {name} is "):
        ts.Trainer(model, optimizer=optimizer, **{name: value})
    ts.Trainer(model, optimizer=optimizer)  # the refused trainer had not taken it


@pytest.mark.one_level
def test_wrong_switches() -> None:
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match="^Trainer: penalize_bias is a "):
            ts.Trainer(network((4, 3)), penalize_bias=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ts.Trainer(network((4, 3)), "mse", None, None, 0.0, 0.0, None, None, None, True)  # type: ignore[misc]
    for name in ("l1", "l2"):
        with pytest.raises(TypeError, match=f"^Trainer: {name} is a NoneType"):
            ts.Trainer(network((4, 3)), **{name: None})


@pytest.mark.one_level
@pytest.mark.parametrize(
    "options", [{"clip_norm": 1.0}, {"max_norm": 1.0}, {"clip_norm": 1.0, "max_norm": 1.0, "l1": 0.1}], ids=repr
)
def test_what_needs_whole_gradients_or_columns_is_not_fused(options: dict[str, float]) -> None:
    model, optimizer = network((4, 3)), optim.SGD(lr=0.1)
    with pytest.raises(ValueError, match="^Trainer: fuse_update is True, expected None or False with "):
        ts.Trainer(model, optimizer=optimizer, fuse_update=True, **options)
    ts.Trainer(model, optimizer=optimizer, fuse_update=True, l1=0.1, l2=0.1, penalize_bias=True)
    ts.Trainer(network((4, 3)), fuse_update=False, **options)


# --- masks ---------------------------------------------------------------------------------------------------------------------


def test_masks_are_set_and_given() -> None:
    model = network((6, 9, 4))
    assert model._program.masks() == [None] * 4
    masks = half(model)
    before = {name: v.copy() for name, v in model.parameters().items()}
    prune(model, masks)
    for name, view in model.parameters().items():
        np.testing.assert_array_equal(view, before[name] * masks.get(name, 1))
    given = model._program.masks()
    assert [m is None for m in given] == [False, True, False, True]
    for name, mask in zip(model.parameters(), given, strict=True):
        if mask is not None:
            np.testing.assert_array_equal(mask, masks[name])
            mask[...] = False  # a copy
    np.testing.assert_array_equal(model._program.masks()[0], masks["0.weight"])
    model._program.set_masks([None] * 4)
    assert model._program.masks() == [None] * 4


def test_wrong_masks_change_nothing() -> None:
    model = network((6, 9, 4))
    good = np.zeros((6, 9), bool)
    before = bits(model)
    for wrong, error in (
        ([good], ValueError),
        ([good, None, None, None, None], ValueError),
        ([good, None, np.zeros((9, 5), bool), None], ValueError),
        ([good, None, np.zeros(36, bool), None], ValueError),
        ([good, None, "mask", None], (TypeError, ValueError)),
        ([good, None, 3, None], (TypeError, ValueError)),
    ):
        with pytest.raises(error):
            model._program.set_masks(wrong)
        assert bits(model) == before
        assert model._program.masks() == [None] * 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", ["nothing", "biases too", "clip", "max_norm", "all"])
@pytest.mark.parametrize("net", NETS)
def test_masks_in_the_middle_of_thirty_steps(net: str, options: str, rule: str) -> None:
    """The optimizer's averages go on from before; a weight that is left out stays 0 all the same."""
    model = NETS[net]()
    trainer, wanted = pair(model, rule, **OPTIONS[options])
    masks = half(model, names=("weight", "0.bias", "gamma"))
    for step, (x, y) in enumerate(batches(model, 30)):
        if step == 10:
            prune(model, masks)
            wanted.prune(masks)
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
        for name, g in model.gradients().items():
            close(g, wanted.gradients[name], name)
        if step >= 10:
            for name, mask in masks.items():
                assert not model.parameters()[name][~mask].any()
                assert not model.gradients()[name][~mask].any()
    assert_same_training(trainer, wanted)
    prune(model, {})  # and what is trained again starts from 0
    wanted.masks = {}
    for x, y in batches(model, 3, seed=7):
        assert trainer.step(x, y) == pytest.approx(wanted.step(x, y), rel=CLOSE)
    assert_same_training(trainer, wanted)


def test_the_norm_counts_only_what_is_kept(dtype: np.dtype) -> None:
    x, y = classes(40, 8, 3)
    model, plain = network((8, 20, 3), dtype=dtype), network((8, 20, 3), dtype=dtype)
    masks = half(model)
    for m in (model, plain):
        prune(m, masks)
    before = {name: v.astype(np.float64) for name, v in model.parameters().items()}
    plain._program.set_masks([None] * 4)
    ts.Trainer(plain, optimizer=optim.SGD(lr=1.0)).step(x, y)
    g = {name: v.astype(np.float64) * masks.get(name, 1) for name, v in plain.gradients().items()}
    norm = math.sqrt(sum((v * v).sum() for v in g.values()))
    whole = math.sqrt(sum((v.astype(np.float64) ** 2).sum() for v in plain.gradients().values()))
    assert norm < 0.9 * whole
    ts.Trainer(model, optimizer=optim.SGD(lr=1.0), clip_norm=norm / 2).step(x, y)
    for name, view in model.parameters().items():
        want = before[name] - g[name] * (norm / 2) / (norm + 1e-6)
        assert_within(view, want, 40 * eps(dtype) * (np.abs(before[name]) + np.abs(g[name])), name)


@pytest.mark.parametrize("path", PATHS)
def test_masked_bits_do_not_depend_on_threads(path: str, dtype: np.dtype) -> None:
    widths, batch = PATHS[path]
    x, y = classes(batch, widths[0], widths[-1])
    trained = []
    for n, always in ((1, False), (2, True), (3, True), (2, False)):
        _core.share_always(always)
        try:
            with ts.num_threads(n):
                model = network(widths, "relu", dtype=dtype)
                trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01), **OPTIONS["all"])
                losses = [trainer.step(x, y) for _ in range(2)]
                prune(model, half(model))
                losses += [trainer.step(x, y) for _ in range(4)]
        finally:
            _core.share_always(False)
        trained.append((bits(model), state_bits(trainer), losses))
    assert all(each == trained[0] for each in trained)


def test_a_large_net_with_masks() -> None:
    """Its updates would be fused: they are not, and asked for they are refused."""
    model = network((600, 500, 10), "relu", dtype="float32")
    masks = half(model)
    prune(model, masks)
    with pytest.raises(ValueError, match="^Trainer: fuse_update is True, expected None or False with "):
        ts.Trainer(model, fuse_update=True)
    x, y = classes(64, 600, 10)
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01))
    for _ in range(3):
        trainer.step(x, y)
    for name, mask in masks.items():
        assert not model.parameters()[name][~mask].any()
        assert model.parameters()[name][mask].all()
        assert not model.gradients()[name][~mask].any()


def test_masks_that_come_after_fused_steps() -> None:
    model = network((600, 500, 10), "relu", dtype="float32")
    x, y = classes(64, 600, 10)
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.1, momentum=0.9))
    for _ in range(3):
        trainer.step(x, y)
    masks = half(model)
    prune(model, masks)
    for _ in range(3):
        trainer.step(x, y)
        for name, mask in masks.items():
            assert not model.parameters()[name][~mask].any()
    prune(model, {})
    trainer.step(x, y)
    assert all(model.parameters()[name][~mask].any() for name, mask in masks.items())


def test_what_is_frozen_and_masked() -> None:
    model = network((6, 9, 4))
    masks = half(model)
    prune(model, masks)
    model.freeze("0")
    kept = model.parameters()["0.weight"].copy()
    x, y = classes(40, 6, 4, "float64")
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.1), **OPTIONS["all"])
    for _ in range(3):
        trainer.step(x, y)
    assert_same_bits(model.parameters()["0.weight"], kept)
    assert not model.parameters()["1.weight"][~masks["1.weight"]].any()
