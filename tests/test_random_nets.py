"""Networks that Hypothesis draws from all layers: their gradients, and what holds for every network.

Widths and batches are small, so that every element of every gradient is compared with differences.
"""

import copy
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import trainstep as ts
from trainstep import _core, optim
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential, Standardize

from .helpers import Array, assert_same_bits, assert_within
from .net_twin import Net, inside, scatter

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.integers(1, 9)
BATCHES = st.integers(1, 6)
# Small ones make jumps of what hardly varies: differences see those as kinks.
EPS = st.sampled_from([0.01, 0.1, 1.0])
Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def activations(draw: Draw) -> Activation:
    name = draw(st.sampled_from(_core.activations))
    options = {}
    if name in _core.activation_parameters and draw(st.booleans()):
        parameter, _ = _core.activation_parameters[name]
        options[parameter] = draw(st.sampled_from([0.2, 0.7, 1.5]))
    return Activation(name, **options)


def dense(draw: Draw, width: int, out: int) -> Dense:
    f = draw(st.none() | activations())
    # Without a parameter by its name: that is how a file gives it back.
    bare = f is None or f == Activation(f.name)
    return Dense(width, out, activation=f.name if f and bare else f, bias=draw(st.booleans()))


def drawn(draw: Draw, width: int, depth: int, kinds: tuple[str, ...], most: int) -> tuple[list[Any], int]:
    """Some layers for x of a width, residual blocks nested up to a depth; and the width of y."""
    layers: list[Any] = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(kinds if depth else tuple(k for k in kinds if k != "residual")))
        # A width may be left to the layer before: not where none is.
        features = None if layers and draw(st.booleans()) else width
        if kind == "dense":
            out = draw(WIDTHS)
            layers.append(dense(draw, width, out))
            width = out
        elif kind == "activation":
            f = draw(activations())
            layers.append(Activation(f.name, features, f.negative_slope, f.alpha))
        elif kind == "dropout":
            layers.append(Dropout(draw(st.sampled_from([0.0, 0.3, 0.6])), features))
        elif kind == "batch_norm":
            layers.append(BatchNorm(features, draw(st.sampled_from([0.0, 0.1, 1.0])), draw(EPS), draw(st.booleans())))
        elif kind == "layer_norm":
            layers.append(LayerNorm(features, draw(EPS), draw(st.booleans())))
        else:
            body, out = drawn(draw, width, depth - 1, kinds, 3)
            shortcut = None
            if draw(st.booleans()):
                shortcut = dense(draw, width, out)
            elif out != width:
                body.append(dense(draw, out, width))
                out = width
            layers.append(Residual(*body, shortcut=shortcut))
            width = out
    return layers, width


KINDS = ("dense", "dense", "activation", "batch_norm", "layer_norm", "residual")


@st.composite
def stacks(draw: Draw, kinds: tuple[str, ...] = KINDS) -> list[Any]:
    width = draw(WIDTHS)
    layers, _ = drawn(draw, width, 2, kinds, 5)
    return [Standardize(width), *layers] if draw(st.booleans()) else layers


def batch(model: Sequential, rows: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng([seed, rows])
    program = model._program
    return tuple(rng.standard_normal((rows, n)).astype(model.dtype) for n in (program.in_features, program.out_features))  # type: ignore[return-value]


# --- gradients -----------------------------------------------------------------------------------------------------------------


def far_from_kinks(layers: list[Any], rows: int, seed: int) -> tuple[Sequential, Array, Array] | None:
    """The network with parameters and a batch that keep every activation's input away from where its derivative jumps."""
    for attempt in range(20):
        model = scatter(Sequential(*layers, seed=seed, dtype="float64"), np.random.default_rng([attempt, seed]), 0.7)
        x, dy = batch(model, rows, seed + attempt)
        net = Net(model)
        net(x, training=True)
        if net.last.distance > 3e-4:
            return model, x, dy
    return None


@settings(max_examples=300)
@given(layers=stacks(), rows=BATCHES, seed=SEEDS)
def test_gradients_of_any_network(layers: list[Any], rows: int, seed: int) -> None:
    found = far_from_kinks(layers, rows, seed)
    assume(found is not None)
    assert found is not None
    model, x, dy = found
    net = Net(model)
    inference = net(x)
    assert_within(model(x), inference, 1e-10 * (1 + np.abs(inference)), "inference")
    y = net.train(x)
    assert_within(model.forward(x, training=True), y, 1e-10 * (1 + np.abs(y)), "training")
    for name, buffer in model.buffers().items():
        assert_within(buffer, net.buffers[name], 1e-11 * (1 + np.abs(net.buffers[name])), name)
    dx, by_hand = net.backward(dy)
    got: dict[str | None, Any] = {None: model.backward(dy), **{name: g.copy() for name, g in model.gradients().items()}}
    largest = 1 + max(np.abs(g).max() for g in (dx, *by_hand.values()))
    for name, g in got.items():
        wanted = dx if name is None else by_hand[name]
        assert_within(g, wanted, 1e-9 * largest, name)
        slope = net.differences(x, dy, name, 1e-5)
        error = np.abs(slope - net.differences(x, dy, name, 2e-5)).max()  # 3 times what the finer one is off by
        assert error < 1e-3 * largest, name
        assert_within(g, slope, error + 1e-8 * largest, name)
    assert model.backward(dy, need_dx=False) is None
    for name, g in model.gradients().items():
        assert_same_bits(g, got[name], name)


# --- properties ----------------------------------------------------------------------------------------------------------------

WITH_DROPOUT = (*KINDS, "dropout")
DTYPES = st.sampled_from(["float32", "float64"])


def passes(model: Sequential, rows: int, seed: int) -> list[Array]:
    """What some passes and steps give, and what they leave behind."""
    x, dy = batch(model, rows, seed)
    got = [model(x), model.forward(x, training=True), model.backward(dy)]
    got += [g.copy() for g in model.gradients().values()]
    if model.parameters():
        trainer = ts.Trainer(model, loss="mse", optimizer=optim.AdamW(lr=0.01, weight_decay=0.1), l1=1e-3, clip_norm=1.0)
        got.append(np.array([trainer.step(x, dy) for _ in range(2)]))
    return [*got, *model.parameters().values(), *model.buffers().values(), model(x)]


@settings(max_examples=60)
@given(layers=stacks(WITH_DROPOUT), rows=BATCHES, seed=SEEDS, dtype=DTYPES)
def test_any_network_has_the_same_bits_on_any_number_of_threads(layers: list[Any], rows: int, seed: int, dtype: str) -> None:
    seen = []
    _core.share_always(True)
    try:
        for n in (1, 3):
            with ts.num_threads(n):
                model = scatter(Sequential(*layers, seed=seed, dtype=dtype), np.random.default_rng(seed))
                seen.append(passes(model, rows, seed))
    finally:
        _core.share_always(False)
    for a, b in zip(*seen, strict=True):
        assert_same_bits(a, b)


@settings(max_examples=60)
@given(layers=stacks(WITH_DROPOUT), rows=BATCHES, seed=SEEDS, dtype=DTYPES)
def test_any_network_predicts_each_row_by_itself(layers: list[Any], rows: int, seed: int, dtype: str) -> None:
    model = scatter(Sequential(*layers, seed=seed, dtype=dtype), np.random.default_rng(seed))
    x, _ = batch(model, rows, seed)
    whole = model(x)
    for row in range(rows):
        assert_same_bits(model(x[row : row + 1]), whole[row : row + 1])
    assert_same_bits(model.predict(x, batch_size=2), whole)
    assert_same_bits(model.forward(x), whole)
    tolerance = 1e-10 if dtype == "float64" else 1e-2
    wanted = Net(model)(x)
    assert_within(whole, wanted, tolerance * (1 + np.abs(wanted).max()))


@pytest.mark.one_level
@settings(max_examples=40)
@given(layers=stacks(WITH_DROPOUT), rows=BATCHES, seed=SEEDS, dtype=DTYPES)
def test_any_network_is_copied_and_saved_whole(layers: list[Any], rows: int, seed: int, dtype: str) -> None:
    model = scatter(Sequential(*layers, seed=seed, dtype=dtype), np.random.default_rng(seed))
    names = list(model.parameters())
    if names:
        model.freeze(names[seed % len(names)])
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "m")
        others = [ts.nn.load(Path(folder) / "m"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in others:
        assert other.layers == model.layers
        assert repr(other) == repr(model)
        assert other.frozen == model.frozen
        assert list(other.parameters()) == names
    given_by = [passes(each, rows, seed) for each in (model, *others)]
    for other in given_by[1:]:
        for a, b in zip(other, given_by[0], strict=True):
            assert_same_bits(a, b)
    again = eval(repr(model), vars(ts.nn))  # noqa: S307
    assert again.layers == model.layers


@pytest.mark.one_level
@settings(max_examples=40)
@given(layers=stacks(WITH_DROPOUT), seed=SEEDS)
def test_the_names_of_any_network_are_its_paths(layers: list[Any], seed: int) -> None:
    model = Sequential(*layers, seed=seed)
    own = {path: layer for path, layer in inside(model.layers) if not isinstance(layer, Residual)}
    shapes, buffers = {}, {}
    for path, layer in own.items():
        if isinstance(layer, Dense):
            shapes[f"{path}.weight"] = (layer.in_features, layer.out_features)
            if layer.bias:
                shapes[f"{path}.bias"] = (layer.out_features,)
        elif isinstance(layer, BatchNorm | LayerNorm) and layer.affine:
            shapes |= {f"{path}.{name}": (layer.features,) for name in ("gamma", "beta")}
        kept = {BatchNorm: ("running_mean", "running_var"), Standardize: ("mean", "scale")}.get(type(layer), ())
        buffers |= {f"{path}.{name}": (layer.features,) for name in kept}
    assert {name: view.shape for name, view in model.parameters().items()} == shapes
    assert {name: view.shape for name, view in model.buffers().items()} == buffers
    model.freeze()
    assert set(model.frozen) == set(shapes)
    model.unfreeze()
    for path, _ in inside(model.layers):
        below = {name for name in shapes if f"{name}.".startswith(f"{path}.")}
        if below:
            model.freeze(path)
            assert set(model.frozen) == below
            model.unfreeze(path)
            assert model.frozen == ()
