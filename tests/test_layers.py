"""Activations inside networks: as part of a dense layer, behind one, and by themselves; dropout; and frozen parameters."""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, reference
from trainstep.nn import Activation, Dense, Dropout, Sequential, Standardize

from .helpers import Array, assert_same_bits, assert_within, normal, numerical_gradient

ROWS = 5
# Where a derivative jumps: inputs of the tests of gradients stay this far away from it.
KINKS = (-3.0, -1.0, 0.0, 1.0, 3.0)
SMOOTH = 1e-4


def with_parameters() -> Iterator[Activation]:
    """Every activation with its defaults, and those that have a parameter with another."""
    for name in _core.activations:
        yield Activation(name)
        for parameter, default in (_core.activation_parameters[name],) if name in _core.activation_parameters else ():
            yield Activation(name, **{parameter: default / 2 + 0.2})


ACTIVATIONS = list(with_parameters())
IDS = [repr(a) for a in ACTIVATIONS]


def formula(activation: Activation) -> Callable[[Array], Array]:
    """The activation of the reference."""
    name, options = activation.name, {}
    if name == "gelu_tanh":
        name, options = "gelu", {"approximate": "tanh"}
    elif name in _core.activation_parameters:
        parameter, _ = _core.activation_parameters[name]
        value = getattr(activation, parameter)
        options = {} if value is None else {parameter: value}
    return lambda x: getattr(reference, name)(x, **options)


def run(model: Sequential, x: Array) -> Array:
    """The network in NumPy, layer by layer."""
    values = model.parameters() | model.buffers()
    for i, layer in enumerate(model.layers):
        if isinstance(layer, Standardize):
            x = (x - values[f"{i}.mean"]) * values[f"{i}.scale"]
        elif isinstance(layer, Activation):
            x = formula(layer)(x)
        else:
            x = x @ values[f"{i}.weight"] + (values[f"{i}.bias"] if layer.bias else 0)
            if layer.activation is not None:
                x = formula(layer.activation if isinstance(layer.activation, Activation) else Activation(layer.activation))(x)
    return x


def networks(f: Activation) -> dict[str, Sequential]:
    """The activation in every place that it can have; small weights, so that no derivative vanishes."""
    layers: dict[str, list[Any]] = {
        "in dense": [Dense(4, 7, activation=f), Dense(7, 3)],
        "last in dense": [Dense(4, 3, activation=f)],
        "behind dense": [Dense(4, 7), f, Dense(7, 3)],
        "last behind dense": [Dense(4, 6, activation="tanh"), Dense(6, 3), f],
        "first": [Activation(f.name, 4, f.negative_slope, f.alpha), Dense(4, 3)],
        "alone": [Activation(f.name, 4, f.negative_slope, f.alpha)],
        "behind an activation": [Dense(4, 7, activation="tanh"), f, Dense(7, 3)],
        "twice": [Dense(4, 5), f, f, Dense(5, 3)],
        "behind standardize": [Standardize(4), f, Dense(4, 3)],
        "deep": [Dense(4, 6, activation=f), Dense(6, 5, activation=f), Dense(5, 3, activation=f)],
    }
    made = {}
    for name, parts in layers.items():
        model = made[name] = Sequential(*parts, seed=3, dtype="float64")
        for view in model.parameters().values():
            view[...] = 0.3 * np.random.default_rng(len(made)).standard_normal(view.shape)
        for buffer in model.buffers().values():
            buffer[...] = np.linspace(0.5, 1.0, buffer.size)
    return made


PLACES = list(networks(Activation("tanh")))


@pytest.fixture(params=ACTIVATIONS, ids=IDS)
def activation(request: pytest.FixtureRequest) -> Activation:
    return request.param


@pytest.mark.parametrize("place", PLACES)
def test_forward_is_the_formulas_one_after_the_other(activation: Activation, place: str, rng: np.random.Generator) -> None:
    model = networks(activation)[place]
    x = 2 * normal(rng, np.float64, 33, 4)
    expected = run(model, x)
    assert_within(model(x), expected, 1e-12 * (1 + abs(expected)))
    assert_same_bits(model.forward(x, training=True), model(x))


@pytest.mark.parametrize("place", PLACES)
def test_backward_is_the_slope_of_forward(activation: Activation, place: str, rng: np.random.Generator) -> None:
    """All gradients against differences of the network in NumPy, where that has no kink between the two points."""
    model = networks(activation)[place]
    x, dy = 0.9 * normal(rng, np.float64, ROWS, 4) + 0.05, normal(rng, np.float64, ROWS, model._program.out_features)
    twin = copy.deepcopy(model)

    def objective(changed: Array) -> float:
        return float((run(twin, changed) * dy).sum())

    model.forward(x, training=True)
    dx = model.backward(dy)
    assert dx is not None
    compare(dx, objective, x)
    for name, gradient in model.gradients().items():
        view = twin.parameters()[name]
        kept = view.copy()

        def of_parameter(changed: Array, view: Array = view) -> float:
            view[...] = changed
            return float((run(twin, x) * dy).sum())

        compare(gradient, of_parameter, kept, name)
        view[...] = kept


def compare(gradient: Array, f: Callable[[Array], float], at: Array, what: str = "dx") -> None:
    """Differences on two scales that agree are of a smooth place; kinks are few."""
    fine, coarse = numerical_gradient(f, at, 1e-6), numerical_gradient(f, at, SMOOTH)
    smooth = abs(fine - coarse) <= 1e-5 * (1 + abs(fine))
    assert smooth.mean() > 0.5, what
    assert_within(gradient[smooth], fine[smooth], 2e-7 * (1 + abs(fine[smooth])), what)


@pytest.mark.parametrize("sizes", [(64, 64, 10), (30, 200, 7), (9, 33, 40), (16, 8, 1)], ids=str)
def test_a_layer_of_its_own_has_the_bits_of_an_epilogue(activation: Activation, sizes: tuple[int, int, int], dtype: Any) -> None:
    first, hidden, out = sizes
    epilogue = Sequential(Dense(first, hidden, activation=activation), Dense(hidden, out), seed=4, dtype=dtype)
    layer = Sequential(Dense(first, hidden), activation, Dense(hidden, out), seed=4, dtype=dtype)
    for (_, a), (_, b) in zip(epilogue.parameters().items(), layer.parameters().items(), strict=True):
        assert_same_bits(b, a, "initial weights")
    x, y = np.random.default_rng(1).standard_normal((50, first)), np.arange(50) % out
    for model in (epilogue, layer):
        ts.Trainer(model, optimizer=ts.optim.AdamW(lr=0.01)).fit(x, y, epochs=2, batch_size=16)
    for (name, a), (_, b) in zip(epilogue.parameters().items(), layer.parameters().items(), strict=True):
        assert_same_bits(b, a, name)


def assert_same_bits_for_any_number_of_threads(layers: list[Any], dtype: Any) -> None:
    """Two steps that share all their work, however small."""
    trained = {}
    _core.share_always(True)
    try:
        for n in (1, 2, 3):
            model = Sequential(*layers, seed=4, dtype=dtype)
            first, last = model.layers[0].in_features, model.layers[-1].out_features
            x, y = np.random.default_rng(1).standard_normal((70, first)), np.arange(70) % last
            with ts.num_threads(n):
                trainer = ts.Trainer(model, optimizer=ts.optim.AdamW(lr=0.01, weight_decay=0.1))
                losses = [trainer.step(x, y) for _ in range(2)]
            trained[n] = [np.array(losses), *model.parameters().values()]
    finally:
        _core.share_always(False)
    for n in (2, 3):
        for a, b in zip(trained[n], trained[1], strict=True):
            assert_same_bits(a, b, f"{n} threads")


@pytest.mark.parametrize("sizes", [(64, 64, 10), (30, 200, 7), (20, 100, 60, 10)], ids=str)
def test_same_bits_for_any_number_of_threads(activation: Activation, sizes: tuple[int, ...], dtype: Any) -> None:
    layers = [Dense(i, o, activation=activation) for i, o in zip(sizes, sizes[1:-1], strict=False)]
    assert_same_bits_for_any_number_of_threads([*layers, Dense(*sizes[-2:])], dtype)


def test_a_step_is_forward_loss_backward_and_update(activation: Activation) -> None:
    stepped = Sequential(Dense(20, 40, activation=activation), Dense(40, 10, activation=activation), seed=4, dtype="float64")
    by_hand = copy.deepcopy(stepped)
    x, y = np.random.default_rng(1).standard_normal((30, 20)), np.arange(30) % 10
    trainer = ts.Trainer(stepped, optimizer=ts.optim.AdamW(lr=0.01, weight_decay=0.1))
    optimizer = ts.optim.AdamW(list(by_hand.parameters().values()), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        loss, dy = reference.softmax_cross_entropy(by_hand.forward(x, training=True), y)
        by_hand.backward(dy)
        optimizer.step(list(by_hand.gradients().values()))
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-12)
    for name, view in stepped.parameters().items():
        assert_within(view, by_hand.parameters()[name], 1e-10, name)


def test_save_and_load_keep_the_activation(activation: Activation, tmp_path: Any) -> None:
    model = Sequential(Dense(4, 5, activation=activation), Dense(5, 3), activation, seed=2)
    model.save(tmp_path / "model")
    loaded = ts.nn.load(tmp_path / "model")
    x = np.random.default_rng(0).standard_normal((6, 4))
    assert_same_bits(loaded(x), model(x))
    assert loaded.layers[2] == model.layers[2]
    assert_same_bits(copy.deepcopy(model)(x), model(x))


def test_width_comes_from_the_layer_before() -> None:
    model = Sequential(Dense(4, 5), Activation("relu"), Activation("tanh"))
    assert [layer.out_features for layer in model.layers] == [5, 5, 5]
    assert repr(model.layers[1]) == "Activation('relu', 5)"


def test_dense_before_an_activation_begins_as_if_it_had_it() -> None:
    behind = Sequential(Dense(40, 50), Activation("relu"), seed=9).parameters()["0.weight"]
    assert_same_bits(behind, Sequential(Dense(40, 50, activation="relu"), seed=9).parameters()["0.weight"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Activation("swish"), ValueError, "Activation: name is 'swish', expected one of identity"),
        (lambda: Activation("relu", 0), ValueError, "Activation: features is 0, expected 1 to"),
        (lambda: Activation("relu", 2.0), TypeError, "Activation: features is a float"),
        (lambda: Activation("relu", alpha=1.0), TypeError, "Activation: relu has no alpha"),
        (lambda: Activation("elu", negative_slope=1.0), TypeError, "Activation: elu has no negative_slope"),
        (lambda: Activation("elu", alpha=-1.0), ValueError, "Activation: alpha is -1.0, expected a finite number of at least 0"),
        (lambda: Activation("elu", alpha=float("nan")), ValueError, "Activation: alpha is nan"),
        (lambda: Activation("elu", alpha="1"), TypeError, "Activation: alpha is a str, expected a float"),
        (lambda: Dense(2, 3, activation="swish"), ValueError, "Dense: activation is 'swish'"),
        (lambda: Dense(2, 3, activation=Activation("relu", 4)), ValueError, "Dense: activation has 4 features, expected 3"),
        (lambda: Sequential(Activation("relu")), ValueError, "layer 0 is Activation('relu'), expected one with features"),
        (lambda: Sequential(Dense(2, 3), Activation("relu", 4)), ValueError, "layer 1 takes 4 features, layer 0 gives 3"),
    ],
)
def test_wrong_activations(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make()


# --- dropout ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_scales_it(rate: float, dtype: Any, rng: np.random.Generator) -> None:
    model = Sequential(Dropout(rate, 301), seed=7, dtype=dtype)
    x = normal(rng, dtype, 200, 301) + dtype.type(10)
    y, n = model.forward(x, training=True), x.size
    kept = y != 0
    assert abs(kept.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / n)
    assert_within(y[kept], x[kept] / (1 - rate), 2 * np.finfo(dtype).eps * abs(x[kept]) / (1 - rate))
    columns, rows = kept.mean(axis=0), kept.mean(axis=1)  # no unit and no row is favoured
    assert abs(columns - (1 - rate)).max() <= 6 * np.sqrt(rate * (1 - rate) / 200)
    assert abs(rows - (1 - rate)).max() <= 6 * np.sqrt(rate * (1 - rate) / 301)


def test_dropout_goes_back_through_the_same_units(dtype: Any, rng: np.random.Generator) -> None:
    model = Sequential(Dropout(0.4, 67), seed=7, dtype=dtype)
    x, dy = normal(rng, dtype, 33, 67) + dtype.type(10), normal(rng, dtype, 33, 67)
    for _ in range(3):
        kept = model.forward(x, training=True) != 0
        dx = model.backward(dy)
        assert dx is not None
        assert_within(dx, np.where(kept, dy / 0.6, 0), 3 * np.finfo(dtype).eps * abs(dy) / 0.6)


def test_dropout_draws_anew_each_pass_and_by_seed_and_layer() -> None:
    x = np.ones((8, 100), "float32")

    def masks(seed: int) -> list[Array]:
        model = Sequential(Dropout(0.5, 100), seed=seed)
        return [model.forward(x, training=True) for _ in range(3)]

    for a, b in zip(masks(1), masks(1), strict=True):
        assert_same_bits(a, b)
    first, second, third = masks(1)
    assert (first != second).mean() > 0.4
    assert (second != third).mean() > 0.4
    assert (first != masks(2)[0]).mean() > 0.4
    twice = Sequential(Dropout(0.5, 100), Dropout(0.5), seed=1)
    both = twice.forward(x, training=True)
    assert abs((both != 0).mean() - 0.25) < 0.08  # the second layer does not draw what the first drew


@pytest.mark.parametrize("f", ["relu", "tanh", "gelu", "softmax"])
def test_dropout_in_a_net_is_the_formulas(f: str, rng: np.random.Generator) -> None:
    """Forward and gradients against NumPy, with the masks read off the network's own layers."""
    model = Sequential(Dropout(0.2, 6), Dense(6, 9, activation=f), Dropout(0.5), Dense(9, 3), seed=5, dtype="float64")
    x, dy = normal(rng, np.float64, 20, 6) + 3, normal(rng, np.float64, 20, 3)
    y = model.forward(x, training=True)
    dx = model.backward(dy)
    p = model.parameters()
    (_, _, x0, _), (_, _, h, _), (_, _, h2, _), _ = model._program.passed()
    m0, m2 = np.where(x0 != 0, 1 / 0.8, 0), np.where(h2 != 0, 2.0, 0)
    z = (x * m0) @ p["1.weight"] + p["1.bias"]
    activate = formula(Activation(f))
    assert_within(h, activate(z), 1e-12)
    assert_within(h2, h * m2, 1e-12)
    assert_within(y, (h * m2) @ p["3.weight"] + p["3.bias"], 1e-12)
    dh = (dy @ p["3.weight"].T) * m2
    source = z if f in _core.activations_of_input else h
    dz = getattr(reference, f"{f}_backward")(dh, source)
    gradients = model.gradients()
    for got, expected in (
        (gradients["3.weight"], (h * m2).T @ dy),
        (gradients["1.weight"], (x * m0).T @ dz),
        (gradients["1.bias"], dz.sum(axis=0)),
        (dx, (dz @ p["1.weight"].T) * m0),
    ):
        assert_within(got, expected, 1e-11 * (1 + abs(expected).max()))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=IDS)
@pytest.mark.parametrize("columns", [1, 37, 1200])
def test_what_an_activation_keeps(activation: Activation, columns: int, dtype: Any, rng: np.random.Generator) -> None:
    """Backward gives what the formula does on x and y, whatever the caller has written to his since; more rows than a block."""
    name = activation.name
    parameter = getattr(activation, _core.activation_parameters[name][0]) if name in _core.activation_parameters else None
    x, dy = normal(rng, dtype, 75, columns) * 3, normal(rng, dtype, 75, columns)
    special = np.array([0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 1e-30, -200.0, 200.0, np.inf, -np.inf, np.nan])
    if name not in _core.activations_by_rows:
        x.ravel()[:: x.size // special.size][: special.size] = special
    model = Sequential(dataclasses.replace(activation, features=columns), dtype=dtype)
    y = model.forward(x, training=True)
    np.testing.assert_array_equal(y, _core.activation(name, x, None, parameter))
    expected = _core.activation_backward(name, dy, x if name in _core.activations_of_input else y, None, parameter)
    x[...], y[...] = np.nan, np.nan
    rtol = 8 * np.finfo(dtype).eps if name == "softplus" else 0.0  # whose derivative comes from x here
    for _ in range(2):
        np.testing.assert_allclose(model.backward(dy), expected, rtol)


@pytest.mark.parametrize("sizes", [(64, 64, 10), (20, 100, 60, 10)], ids=str)
def test_dropout_same_bits_for_any_number_of_threads(sizes: tuple[int, ...], dtype: Any) -> None:
    layers: list[Any] = [Dropout(0.1, sizes[0])]
    for i, o in zip(sizes, sizes[1:-1], strict=False):
        layers += [Dense(i, o, activation="relu"), Dropout(0.3)]
    assert_same_bits_for_any_number_of_threads([*layers, Dense(*sizes[-2:])], dtype)


def test_a_step_with_dropout_is_forward_loss_backward_and_update() -> None:
    stepped = Sequential(Dense(20, 40, activation="gelu"), Dropout(0.5), Dense(40, 10), seed=4, dtype="float64")
    by_hand = Sequential(Dense(20, 40, activation="gelu"), Dropout(0.5), Dense(40, 10), seed=4, dtype="float64")
    x, y = np.random.default_rng(1).standard_normal((30, 20)), np.arange(30) % 10
    trainer = ts.Trainer(stepped, optimizer=ts.optim.SGD(lr=0.1))
    optimizer = ts.optim.SGD(list(by_hand.parameters().values()), lr=0.1)
    for _ in range(3):
        loss, dy = reference.softmax_cross_entropy(by_hand.forward(x, training=True), y)
        by_hand.backward(dy)
        optimizer.step(list(by_hand.gradients().values()))
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-12)
    for name, view in stepped.parameters().items():
        assert_within(view, by_hand.parameters()[name], 1e-11, name)


def test_dropout_changes_nothing_at_inference(tmp_path: Any, dtype: Any) -> None:
    with_it = Sequential(
        Dropout(0.3, 5), Dense(5, 8, activation="relu"), Dropout(0.5), Dropout(0.5), Dense(8, 4), Dropout(0.2), seed=3, dtype=dtype
    )
    without = Sequential(Dense(5, 8, activation="relu"), Dense(8, 4), seed=3, dtype=dtype)
    for view, value in zip(with_it.parameters().values(), without.parameters().values(), strict=True):
        view[...] = value
    x, y = np.random.default_rng(0).standard_normal((700, 5)), np.arange(700) % 4
    with_it.save(tmp_path / "model")
    for model in (with_it, copy.deepcopy(with_it), ts.nn.load(tmp_path / "model")):
        assert_same_bits(model(x), without(x))
        assert_same_bits(model.predict(x, batch_size=64), without(x))
        assert ts.Trainer(model).evaluate(x, y) == ts.Trainer(without).evaluate(x, y)
    assert ts.nn.load(tmp_path / "model").layers == with_it.layers


def test_predict_between_forward_and_backward_leaves_the_pass_alone(rng: np.random.Generator) -> None:
    model, twin = (Sequential(Dropout(0.5, 30), Dense(30, 4), seed=2) for _ in range(2))
    x, dy = normal(rng, np.float32, 9, 30), normal(rng, np.float32, 9, 4)
    for m in (model, twin):
        m.forward(x, training=True)
    model(x[:3])
    a, b = model.backward(dy), twin.backward(dy)
    assert a is not None
    assert b is not None
    assert_same_bits(a, b)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dropout(1.0), ValueError, "Dropout: rate is 1, expected less"),
        (lambda: Dropout(-0.1), ValueError, "Dropout: rate is -0.1, expected a finite number from 0 to 1"),
        (lambda: Dropout(float("nan")), ValueError, "Dropout: rate is nan"),
        (lambda: Dropout("0.5"), TypeError, "Dropout: rate is a str, expected a number"),
        (lambda: Dropout(0.5, 0), ValueError, "Dropout: features is 0"),
        (lambda: Sequential(Dropout(0.5)), ValueError, "layer 0 is Dropout(0.5), expected one with features"),
        (lambda: Sequential(Dense(2, 3), Dropout(0.5, 4)), ValueError, "layer 1 takes 4 features, layer 0 gives 3"),
    ],
)
def test_wrong_dropout(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make()


# --- frozen parameters --------------------------------------------------------------------------------------------------------

X = np.random.default_rng(5).standard_normal((48, 12)).astype("float32")
Y = np.arange(48) % 4


def small(hidden: tuple[int, ...] = (20, 16)) -> Sequential:
    sizes = (12, *hidden, 4)
    layers = [Dense(i, o, activation="relu") for i, o in zip(sizes, sizes[1:-1], strict=False)]
    return Sequential(*layers, Dense(*sizes[-2:]), seed=1)


@pytest.mark.parametrize("fuse_update", [None, True, False])
@pytest.mark.parametrize("hidden", [(20,), (20, 16), (64,)], ids=str)
@pytest.mark.parametrize("names", [("0",), ("0.weight", "1.bias"), ("1",), ()], ids=str)
def test_frozen_parameters_stay_and_the_others_learn_as_before(
    names: tuple[str, ...], hidden: tuple[int, ...], fuse_update: bool | None, threads: int
) -> None:
    """The others' first update is the same as where nothing is frozen; what is frozen keeps its bits through decay and momentum."""
    free, part = small(hidden), small(hidden)
    before = {name: view.copy() for name, view in part.parameters().items()}
    part.freeze(*names)
    assert part.frozen
    _core.share_always(True)
    try:
        for model, steps in ((free, 1), (part, 1)):
            trainer = ts.Trainer(model, optimizer=ts.optim.AdamW(lr=0.1, weight_decay=0.5), fuse_update=fuse_update)
            for _ in range(steps):
                trainer.step(X, Y)
    finally:
        _core.share_always(False)
    for name, view in part.parameters().items():
        assert_same_bits(view, before[name] if name in part.frozen else free.parameters()[name], name)
    assert any((view != before[name]).any() for name, view in part.parameters().items()) == (len(part.frozen) < len(before))


def test_unfreezing_goes_on() -> None:
    model = small()
    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(lr=0.1, momentum=0.9))
    model.freeze("0")
    trainer.step(X, Y)
    kept = model.parameters()["0.weight"].copy()
    model.unfreeze()
    assert model.frozen == ()
    trainer.step(X, Y)
    assert (model.parameters()["0.weight"] != kept).any()


def test_gradients_of_what_is_frozen_are_0() -> None:
    model = small()
    model.forward(X, training=True)
    model.backward(np.ones((48, 4), "float32"))
    assert model.gradients()["0.weight"].any()
    model.freeze("0.weight")
    model.forward(X, training=True)
    dx = model.backward(np.ones((48, 4), "float32"))
    assert not model.gradients()["0.weight"].any()
    assert model.gradients()["0.bias"].any()
    assert dx is not None
    assert dx.any()


def test_frozen_names_survive_copies_and_files(tmp_path: Any) -> None:
    model = small()
    model.freeze("1", "0.bias")
    model.save(tmp_path / "model")
    assert copy.deepcopy(model).frozen == ts.nn.load(tmp_path / "model").frozen == ("0.bias", "1.weight", "1.bias")


def test_wrong_names_change_nothing() -> None:
    model = small()
    for names in (("0", "3"), ("0", "0.scale"), ("0", "")):
        with pytest.raises(ValueError, match=re.escape(f"freeze: name is {names[1]!r}, expected a layer or one of 0.weight")):
            model.freeze(*names)
    with pytest.raises(TypeError, match="freeze: name is a int, expected a str"):
        model.freeze(0)  # type: ignore[arg-type]
    assert model.frozen == ()


def test_param_groups_give_each_layer_its_rate_and_biases_no_decay() -> None:
    """Against one optimizer for each kind of parameter."""
    model, twin = small(), small()
    groups = model.param_groups(decay_bias=False, lr=0.1, lr_factors={"0": 0.1})
    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(groups, lr=7.0, weight_decay=0.5))
    parameters, gradients = twin.parameters(), twin.gradients()
    for _ in range(3):
        loss, dy = reference.softmax_cross_entropy(twin.forward(X, training=True), Y)
        twin.backward(dy)
        for name, w in parameters.items():
            g = gradients[name] + (0.5 * w if name.endswith("weight") else 0)
            w -= (0.01 if name.startswith("0") else 0.1) * g
        assert trainer.step(X, Y) == pytest.approx(loss, rel=1e-5)
    for name, view in model.parameters().items():
        assert_within(view, parameters[name], 1e-5, name)


def test_head_first_then_all() -> None:
    """Transfer: an optimizer of the head alone, while the rest is frozen, and then one of everything."""
    model = small()
    model.freeze("0", "1")
    assert [len(group["params"]) for group in model.param_groups()] == [2]
    before = model.parameters()["1.weight"].copy()
    head = ts.Trainer(model, optimizer=ts.optim.Adam(model.param_groups(), lr=0.01))
    head.fit(X, Y, epochs=2, batch_size=16)
    assert_same_bits(model.parameters()["1.weight"], before)
    model.unfreeze()
    with pytest.raises(ValueError, match="Trainer: 0.weight is neither frozen nor among the optimizer's parameters"):
        head.step(X, Y)
    ts.Trainer(model, optimizer=ts.optim.Adam(model.param_groups(), lr=0.001)).step(X, Y)
    assert (model.parameters()["1.weight"] != before).any()


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    model, other = small(), small()
    with pytest.raises(ValueError, match="Adam: it already has its parameters, expected an optimizer made without"):
        ts.Trainer(model, optimizer=ts.optim.Adam(list(other.parameters().values())))
    with pytest.raises(ValueError, match=r"Trainer: the optimizer lacks 2.weight, expected all parameters that are not frozen"):
        ts.Trainer(model, optimizer=ts.optim.Adam([v for k, v in model.parameters().items() if not k.startswith("2")]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr_factors": {"0": 0.1}}, ValueError, "param_groups: lr is None"),
        ({"lr": 1.0, "lr_factors": {"7": 0.1}}, ValueError, "lr_factors has '7', expected layers with parameters: 0, 1"),
        ({"lr": 1.0, "lr_factors": {"0": -1.0}}, ValueError, "param_groups: lr_factors['0'] is -1.0"),
        ({"lr": 1.0, "lr_factors": {"0": "1"}}, TypeError, "param_groups: lr_factors['0'] is a str"),
        ({"decay_bias": 1}, TypeError, "param_groups: decay_bias is a int, expected a bool"),
    ],
)
def test_wrong_param_groups(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        small().param_groups(**arguments)
