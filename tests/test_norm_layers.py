"""BatchNorm, LayerNorm and Residual as layers of a network: against NumPy, differences, and what they promise on bits and files."""

import contextlib
import copy
import json
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import trainstep as ts
from trainstep import _core, optim, reference
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential, Standardize

from .helpers import Array, assert_same_bits, assert_within, bits, classes, eps, normal, state_bits
from .net_twin import Net, inside, scatter

IN = 5
ROWS = 6
# An eps that lets differences see a curve and not a jump, where a column hardly varies.
SOFT = 1e-2


def nets(width: int = 7) -> dict[str, list[Any]]:
    """Each layer in every place that it can have, on IN columns."""
    w = width
    block = [LayerNorm(), Dense(w, w + 4, activation="gelu"), Dense(w + 4, w)]
    batch_block = [Dense(w, w, bias=False), BatchNorm(eps=SOFT), Activation("tanh"), Dense(w, w), BatchNorm(eps=SOFT)]
    return {
        "batch_norm": [BatchNorm(IN, eps=SOFT)],
        "layer_norm": [LayerNorm(IN, eps=SOFT)],
        "batch_norm, not affine": [BatchNorm(IN, eps=SOFT, affine=False)],
        "layer_norm, not affine": [LayerNorm(IN, eps=SOFT, affine=False)],
        "batch_norm first": [BatchNorm(IN, eps=SOFT), Dense(IN, 3)],
        "layer_norm first": [LayerNorm(IN, eps=SOFT), Dense(IN, 3)],
        "batch_norm behind dense": [Dense(IN, w), BatchNorm(eps=SOFT), Activation("tanh"), Dense(w, 3)],
        "layer_norm behind dense": [Dense(IN, w), LayerNorm(), Activation("tanh"), Dense(w, 3)],
        "batch_norm behind an activation": [Dense(IN, w, activation="tanh"), BatchNorm(momentum=0.3, eps=SOFT), Dense(w, 3)],
        "layer_norm behind an activation": [Dense(IN, w, activation="tanh"), LayerNorm(eps=SOFT), Dense(w, 3)],
        "batch_norm last": [Dense(IN, w, activation="tanh"), Dense(w, 3), BatchNorm(eps=SOFT)],
        "layer_norm last": [Dense(IN, w, activation="tanh"), Dense(w, 3), LayerNorm(eps=SOFT)],
        "batch_norm behind no bias, not affine": [Dense(IN, w, bias=False), BatchNorm(eps=SOFT, affine=False), Dense(w, 3)],
        "in a row": [BatchNorm(IN, eps=SOFT), LayerNorm(), BatchNorm(eps=SOFT, affine=False), LayerNorm(affine=False)],
        "behind softmax": [Dense(IN, w), Activation("softmax"), LayerNorm(eps=SOFT), Activation("sigmoid"), BatchNorm(eps=SOFT)],
        "before softmax": [
            Dense(IN, w),
            BatchNorm(eps=SOFT),
            Activation("softmax"),
            Dense(w, 3),
            LayerNorm(),
            Activation("softmax"),
        ],
        "behind standardize": [Standardize(IN), BatchNorm(eps=SOFT), Dense(IN, 3)],
        "one feature": [Dense(IN, 1), BatchNorm(eps=SOFT), Activation("tanh"), LayerNorm(), Dense(1, 3)],
        "residual": [Residual(Dense(IN, IN, activation="tanh"), Dense(IN, IN))],
        "residual first": [Residual(Dense(IN, w, activation="tanh"), Dense(w, IN)), Dense(IN, 3)],
        "residual last": [Dense(IN, w, activation="tanh"), Residual(Dense(w, w, activation="tanh"))],
        "residual with a shortcut": [Residual(Dense(IN, w, activation="tanh"), Dense(w, 4), shortcut=Dense(IN, 4)), Dense(4, 3)],
        "shortcut alone": [Residual(Dense(IN, 3), shortcut=Dense(IN, 3, bias=False))],
        "shortcut with an activation": [Residual(Dense(IN, w), shortcut=Dense(IN, w, activation="sigmoid")), Dense(w, 3)],
        "residual of an activation": [Dense(IN, w), Residual(Activation("tanh")), Dense(w, 3)],
        "residual of batch_norm": [Residual(BatchNorm(IN, eps=SOFT)), Dense(IN, 3)],
        "residual of layer_norm": [Dense(IN, w), Residual(LayerNorm())],
        "activation behind residual": [Residual(Dense(IN, IN)), Activation("tanh"), Dense(IN, 3)],
        "batch_norm behind residual": [Residual(Dense(IN, IN, activation="tanh")), BatchNorm(eps=SOFT), Dense(IN, 3)],
        "residuals in a row": [Dense(IN, w), *[Residual(*block)] * 3, LayerNorm(), Dense(w, 3)],
        "blocks with batch_norm": [Dense(IN, w), Residual(*batch_block), Activation("tanh"), Residual(*batch_block), Dense(w, 3)],
        "nested": [
            Residual(
                Dense(IN, w, activation="tanh"),
                Residual(BatchNorm(eps=SOFT), Dense(w, w), Residual(Activation("tanh"), Dense(w, w), LayerNorm())),
                shortcut=Dense(IN, w, bias=False),
            ),
            Dense(w, 3),
        ],
        "residual alone in a residual": [Residual(Residual(Dense(IN, IN, activation="tanh"))), Dense(IN, 3)],
    }


PLACES = list(nets())


def made(place: str, dtype: Any = "float64", width: int = 7, seed: int = 3) -> Sequential:
    model = Sequential(*nets(width)[place], dtype=dtype, seed=seed)
    return scatter(model, np.random.default_rng(seed))


def problem(model: Sequential, rows: int = ROWS, seed: int = 0) -> tuple[Array, Array]:
    """x and dy."""
    rng = np.random.default_rng([seed, rows])
    program = model._program
    return normal(rng, model.dtype, rows, program.in_features), normal(rng, model.dtype, rows, program.out_features)


def near(got: Array, want: Array, dtype: Any, what: object, factor: float = 2000) -> None:
    """Within some roundings of the largest element, each of which a division by a small deviation makes larger."""
    assert got.dtype == np.dtype(dtype), what
    assert_within(got, want, factor * eps(dtype) * (1 + np.abs(want).max(initial=0.0)), what)


# --- values --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("dtype_name", "rows"), [*(("float64", n) for n in (1, 3, 17, 65, 300)), ("float32", 17), ("float32", 300)]
)
def test_forward_and_backward_are_the_formulas(place: str, dtype_name: str, rows: int) -> None:
    for width in (7, 33):
        model = made(place, dtype_name, width)
        net = Net(model)
        x, dy = problem(model, rows)
        near(model(x), net(x), dtype_name, "inference")
        y = model.forward(x, training=True)
        near(y, net.train(x), dtype_name, "training")
        dx, gradients = net.backward(dy)
        got = model.backward(dy)
        assert got is not None
        near(got, dx, dtype_name, "dx")
        assert model.gradients().keys() == gradients.keys()
        for name, g in model.gradients().items():
            near(g, gradients[name], dtype_name, name)
        for name, buffer in model.buffers().items():
            near(buffer, net.buffers[name], dtype_name, name, 20)
        near(model(x), net(x), dtype_name, "inference with the statistics of a step")


@pytest.mark.parametrize("place", PLACES)
def test_backward_is_the_slope_of_forward(place: str) -> None:
    """Every gradient against differences of the network in NumPy; and the gradients in NumPy too, which other tests rely on."""
    model = made(place)
    net = Net(model)
    x, dy = problem(model)
    model.forward(x, training=True)
    got: dict[str | None, Any] = {None: model.backward(dy), **model.gradients()}
    net(x, training=True)
    dx, gradients = net.backward(dy)
    by_hand: dict[str | None, Any] = {None: dx, **gradients}
    for name, g in got.items():
        slope = net.differences(x, dy, name, 1e-5)
        error = np.abs(slope - net.differences(x, dy, name, 2e-5)).max()  # 3 times what the finer one is off by
        assert error < 1e-5, name
        bound = error + 1e-8 * (1 + np.abs(slope).max())
        assert_within(by_hand[name], slope, bound, ("by hand", name))
        assert_within(g, slope, bound, name)


@pytest.mark.parametrize("place", PLACES)
def test_accumulate_need_dx_and_repeated_backward(place: str) -> None:
    model = made(place)
    net = Net(model)
    (x, dy), (x2, dy2) = problem(model), problem(model, 4, seed=1)
    model.forward(x, training=True)
    dx = model.backward(dy)
    assert dx is not None
    once = {name: g.copy() for name, g in model.gradients().items()}
    again = model.backward(dy)
    assert again is not None
    assert_same_bits(again, dx)
    assert model.backward(2 * dy, need_dx=False) is None
    for name, g in model.gradients().items():
        assert_same_bits(g, 2 * once[name], name)
    model.forward(x2, training=True)
    model.backward(dy2, accumulate=True)
    net(x2, training=True)
    _, second = net.backward(dy2)
    for name, g in model.gradients().items():
        near(g, 2 * once[name] + second[name], "float64", name)
    from_zero = made(place)
    for g in from_zero.gradients().values():
        g[...] = 0
    from_zero.forward(x, training=True)
    from_zero.backward(dy, need_dx=False, accumulate=True)
    for name, g in from_zero.gradients().items():
        near(g, once[name], "float64", name, 20)


@pytest.mark.parametrize("place", PLACES)
def test_what_comes_between_forward_and_backward_changes_nothing(place: str) -> None:
    model, twin = made(place), made(place)
    x, dy = problem(model)
    wanted = []
    for m in (model, twin):
        given = x.copy()
        y = m.forward(given, training=True)
        if m is model:
            given[...], y[...] = np.nan, np.nan
            m(x[:2])
            m.predict(x, batch_size=2)
        dx = m.backward(dy)
        assert dx is not None
        wanted.append([dx, *m.gradients().values(), *m.buffers().values()])
    for a, b in zip(*wanted, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("place", PLACES)
def test_batches_of_all_sizes_after_each_other(place: str) -> None:
    """What a pass keeps grows with the largest batch; nothing of it is left in a smaller one."""
    model = made(place)
    net = Net(model)
    for rows in (3, 100, 1, 400, 2, 100):
        passes_are_the_formulas(model, net, *problem(model, rows))


@pytest.mark.parametrize("place", ["batch_norm", "layer_norm", "in a row"])
def test_rows_that_do_not_fit_the_cache(place: str, threads: int) -> None:
    """Nets without products take them in blocks, on each thread."""
    model = made(place)
    passes_are_the_formulas(model, Net(model), *problem(model, 5000), 20000)  # sums of so many rows, some of which cancel


def passes_are_the_formulas(model: Sequential, net: Net, x: Array, dy: Array, factor: float = 2000) -> None:
    """Forward and backward, with a caller who writes to x and y between them."""
    given, rows = x.copy(), len(x)
    y = model.forward(given, training=True)
    near(y, net.train(x), "float64", rows)
    given[...], y[...] = np.nan, np.nan
    dx, gradients = net.backward(dy)
    got = model.backward(dy)
    assert got is not None
    near(got, dx, "float64", rows)
    for name, g in model.gradients().items():
        near(g, gradients[name], "float64", (rows, name), factor)


@pytest.mark.one_level
def test_parameters_and_buffers_have_their_names_and_first_values(dtype: np.dtype) -> None:
    model = Sequential(
        Dense(4, 6),
        BatchNorm(),
        Residual(
            LayerNorm(),
            Dense(6, 5, activation="relu"),
            Residual(Dense(5, 5), BatchNorm(affine=False)),
            shortcut=Dense(6, 5, bias=False),
        ),
        LayerNorm(affine=False),
        dtype=dtype,
    )
    names = ["0.weight", "0.bias", "1.gamma", "1.beta", "2.0.gamma", "2.0.beta", "2.1.weight", "2.1.bias", "2.2.0.weight"]
    assert set(model.parameters()) == {*names, "2.2.0.bias", "2.shortcut.weight"}
    assert list(model.gradients()) == list(model.parameters())
    assert set(model.buffers()) == {"1.running_mean", "1.running_var", "2.2.1.running_mean", "2.2.1.running_var"}
    for name, view in (model.parameters() | model.buffers()).items():
        assert view.dtype == dtype
        own = name.rpartition(".")[2]
        if own != "weight":
            assert (view == (own in ("gamma", "running_var"))).all(), name
        else:
            assert view.any()
    widths = [view.shape for name, view in model.parameters().items() if name.endswith(("gamma", "beta"))]
    assert widths == [(6,)] * 4
    assert model.num_parameters == 4 * 6 + 6 + 12 + 12 + 6 * 5 + 5 + 5 * 5 + 5 + 6 * 5


@pytest.mark.one_level
def test_layers_are_frozen_values_that_their_repr_makes_again() -> None:
    model = Sequential(
        Dense(4, 6),
        BatchNorm(momentum=0.3, eps=1e-3),
        Residual(LayerNorm(eps=1e-6, affine=False), Dense(6, 6, activation="relu"), Residual(BatchNorm(affine=False))),
        Residual(Dense(6, 3), shortcut=Dense(6, 3, bias=False)),
        LayerNorm(),
        seed=7,
    )
    again = eval(repr(model), vars(ts.nn))  # noqa: S307
    assert again.layers == model.layers
    assert bits(again) == bits(model)
    assert BatchNorm(4) == BatchNorm(4) != BatchNorm(4, momentum=0.2)
    assert LayerNorm(4) != LayerNorm(4, affine=False)
    assert Residual(Dense(3, 3)) == Residual(Dense(3, 3)) != Residual(Dense(3, 3), shortcut=Dense(3, 3))
    assert len({BatchNorm(4), BatchNorm(4), LayerNorm(4), Residual(Dense(3, 3)), Residual(Dense(3, 3))}) == 3
    for layer, name in ((BatchNorm(4), "momentum"), (LayerNorm(4), "eps"), (Residual(Dense(3, 3)), "shortcut")):
        with pytest.raises(AttributeError):
            setattr(layer, name, 0.5)
    assert "total" in model.summary().splitlines()[-1]


@pytest.mark.one_level
@pytest.mark.parametrize("place", ["nested", "blocks with batch_norm"])
def test_layers_in_a_residual_get_weights_of_their_own(place: str) -> None:
    model = Sequential(*nets()[place], seed=1, dtype="float64")
    weights = [view.ravel() for name, view in model.parameters().items() if name.endswith("weight")]
    first = [tuple(w[:3]) for w in weights]
    assert len(set(first)) == len(first)
    assert bits(model) == bits(Sequential(*nets()[place], seed=1, dtype="float64"))
    assert bits(model) != bits(Sequential(*nets()[place], seed=2, dtype="float64"))


# --- running statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_over_some_steps(momentum: float, affine: bool, dtype: np.dtype, rng: np.random.Generator) -> None:
    """Unbiased variances; a batch of one row has none and leaves the running one as it is."""
    model = Sequential(BatchNorm(3, momentum=momentum, affine=affine), dtype=dtype)
    mean, var = np.zeros(3), np.ones(3)
    for rows in (8, 1, 2, 33, 1):
        x = (rng.standard_normal((rows, 3)) * [1, 10, 0.1] + [0, 5, -100]).astype(dtype)
        kept = {name: v.copy() for name, v in model.buffers().items()}
        wide = x.astype(np.float64)
        model.forward(x, training=True)
        mean = (1 - momentum) * mean + momentum * wide.mean(axis=0)
        if rows > 1:
            var = (1 - momentum) * var + momentum * wide.var(axis=0, ddof=1)
        got = model.buffers()
        assert_within(got["0.running_mean"], mean, 10 * eps(dtype) * np.abs([1, 10, 100]), rows)
        assert_within(got["0.running_var"], var, 20 * eps(dtype) * np.abs(var) + 1e-10 * (dtype == np.float64), rows)
        if momentum == 0:
            for name, v in got.items():
                assert_same_bits(v, kept[name])
        if rows == 1:
            assert_same_bits(got["0.running_var"], kept["0.running_var"])


def test_only_training_moves_the_running_statistics(rng: np.random.Generator) -> None:
    model = Sequential(Dense(4, 5), BatchNorm(), Residual(Dense(5, 5), BatchNorm()), seed=1, dtype="float64")
    x, y = rng.standard_normal((20, 4)), np.arange(20) % 5
    trainer = ts.Trainer(model)

    def moved(run: Callable[[], object]) -> bool:
        before = [v.copy() for v in model.buffers().values()]
        run()
        changed = [not np.array_equal(a, b) for a, b in zip(before, model.buffers().values(), strict=True)]
        assert all(changed) == any(changed)
        return all(changed)

    assert not moved(lambda: model(x))
    assert not moved(lambda: model.predict(x, batch_size=3))
    assert not moved(lambda: model.forward(x))
    assert not moved(lambda: trainer.evaluate(x, y))
    assert not moved(model.parameters)
    assert moved(lambda: model.forward(x, training=True))
    assert not moved(lambda: model.backward(np.ones((20, 5))))
    assert moved(lambda: trainer.step(x, y))
    assert moved(lambda: trainer.fit(x, y))


@pytest.mark.parametrize("where", ["shape of x", "label", "label in fit", "loss", "loss in fit"])
def test_what_is_refused_leaves_the_running_statistics(where: str, rng: np.random.Generator) -> None:
    model = Sequential(Dense(4, 5), BatchNorm(), Residual(Dense(5, 5), BatchNorm()), seed=1, dtype="float64")
    x, y = rng.standard_normal((20, 4)), np.arange(20) % 5
    calls = 0

    def loss(p: Array, t: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise LookupError
        return 0.5, 0.1 * p

    own = where.startswith("loss")
    trainer = ts.Trainer(model, loss if own else "softmax_cross_entropy", optim.SGD(lr=0.1, momentum=0.9))
    trainer.step(x, y)
    before = [bits(model), state_bits(trainer), *(v.tobytes() for v in model.buffers().values())]
    wrong = np.where(np.arange(20) == 19, 5, y)
    run: dict[str, Callable[[], object]] = {
        "shape of x": lambda: model.forward(x[:, :3], training=True),
        "label": lambda: trainer.step(x, wrong),
        "label in fit": lambda: trainer.fit(x, wrong, batch_size=5),
        "loss": lambda: trainer.step(x, y),
        "loss in fit": lambda: trainer.fit(x, y, batch_size=5),
    }
    with pytest.raises(LookupError if own else ValueError):
        run[where]()
    assert [bits(model), state_bits(trainer), *(v.tobytes() for v in model.buffers().values())] == before
    assert trainer.steps == 1


def test_statistics_set_by_hand_are_used_by_the_next_call(dtype: np.dtype, rng: np.random.Generator) -> None:
    """What is folded into weights for inference must not be kept beyond a change of any of its parts."""
    model = Sequential(Dense(4, 20), BatchNorm(), Activation("tanh"), Dense(20, 3), seed=1, dtype=dtype)
    x = rng.standard_normal((9, 4)).astype(dtype)
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.1))
    for name in ("1.running_mean", "1.running_var", "1.gamma", "1.beta", "0.weight", "0.bias", "trainer", "training"):
        if name == "trainer":
            trainer.step(x, np.arange(9) % 3)
        elif name == "training":
            model.forward(x, training=True)
        else:
            view = (model.parameters() | model.buffers())[name]
            view[...] = rng.uniform(0.5, 1.5, view.shape)
        near(model(x), Net(model)(x), dtype, name)


# --- inference -----------------------------------------------------------------------------------------------------------------

FOLDED: dict[str, list[Any]] = {
    "one": [Dense(9, 20), BatchNorm(), Activation("relu"), Dense(20, 4)],
    "wide": [Dense(9, 200), BatchNorm(), Activation("gelu"), Dense(200, 70), BatchNorm(), Activation("relu"), Dense(70, 4)],
    "no bias": [Dense(9, 33, bias=False), BatchNorm(), Activation("tanh"), Dense(33, 4)],
    "not affine": [Dense(9, 33), BatchNorm(affine=False), Activation("tanh"), Dense(33, 4)],
    "last": [Dense(9, 33, activation="tanh"), Dense(33, 4), BatchNorm()],
    "twice": [Dense(9, 33), BatchNorm(), BatchNorm(), Dense(33, 4)],
    "dropout between": [Dense(9, 33), Dropout(0.5), BatchNorm(), Dense(33, 4)],
    "layer_norm between": [Dense(9, 33), LayerNorm(), BatchNorm(), Dense(33, 4)],
    "behind an activation": [Dense(9, 33, activation="relu"), BatchNorm(), Dense(33, 4)],
    "first": [BatchNorm(9), Dense(9, 33), BatchNorm(), Activation("relu"), Dense(33, 4)],
    "in a residual": [
        Dense(9, 33),
        Residual(Dense(33, 33), BatchNorm(), Activation("relu"), Dense(33, 33)),
        BatchNorm(),
        Dense(33, 4),
    ],
    "behind a shortcut": [Residual(Dense(9, 33), BatchNorm(), shortcut=Dense(9, 33)), BatchNorm(), Dense(33, 4)],
    "read by what goes past": [Dense(9, 33), Residual(BatchNorm(), Activation("relu"), Dense(33, 33)), Dense(33, 4)],
    "read by a shortcut": [Dense(9, 33), Residual(BatchNorm(), shortcut=Dense(33, 33)), Residual(Dropout(0.5)), Dense(33, 4)],
    "alone in a residual": [Dense(9, 4), Residual(BatchNorm())],
    "only": [Dense(9, 4), BatchNorm()],
}


def folded(place: str, dtype: Any) -> Sequential:
    return scatter(Sequential(*FOLDED[place], dtype=dtype, seed=2), np.random.default_rng(4))


@pytest.mark.parametrize("place", FOLDED)
def test_inference_is_the_formula_of_the_running_statistics(place: str, dtype: np.dtype, threads: int) -> None:
    model = folded(place, dtype)
    net = Net(model)
    for rows in (1, 2, 33, 1100):
        x, _ = problem(model, rows)
        near(model(x), net(x), dtype, rows, 400)


@pytest.mark.parametrize("place", FOLDED)
def test_rows_have_the_same_bits_alone_and_together(place: str, dtype: np.dtype, threads: int) -> None:
    model = folded(place, dtype)
    x, _ = problem(model, 1200)
    whole = model(x)
    assert_same_bits(np.concatenate([model(row[None]) for row in x[:60]]), whole[:60])
    for batch_size in (7, 513, 1199):
        assert_same_bits(model.predict(x, batch_size=batch_size), whole)
    assert_same_bits(model.forward(x), whole)
    out = np.empty_like(whole)
    assert model(x, out=out) is out
    assert_same_bits(out, whole)
    y = np.arange(1200) % 4
    loss, _ = reference.softmax_cross_entropy(whole.astype(np.float64), y)
    for batch_size in (100, 1024):
        measured = ts.Trainer(model).evaluate(x, y, batch_size=batch_size)
        assert measured["loss"] == pytest.approx(loss, rel=40 * eps(dtype))
        assert measured["accuracy"] == (whole.argmax(axis=1) == y).mean()


@pytest.mark.parametrize("shape", [(512, 512), (3, 100_000)], ids=str)
def test_layer_norm_alone_of_many_elements(shape: tuple[int, int], dtype: np.dtype, threads: int) -> None:
    """A call that is shared within the layer: at inference nothing keeps the statistics of its rows."""
    model = Sequential(LayerNorm(shape[1]), dtype=dtype)
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y = model(x)
    near(y, Net(model)(x), dtype, shape, 20)
    assert_same_bits(model.forward(x, training=True), y)


# --- extremes ------------------------------------------------------------------------------------------------------------------


def test_a_column_without_variance_is_beta(dtype: np.dtype) -> None:
    model = Sequential(BatchNorm(3), dtype=dtype)
    model.parameters()["0.beta"][...] = [1, 2, 3]
    x = np.broadcast_to(np.array([0, 3, -8], dtype), (16, 3))
    assert (model.forward(x, training=True) == [1, 2, 3]).all()
    dx = model.backward(np.arange(48, dtype=dtype).reshape(16, 3))
    assert dx is not None
    assert np.isfinite(dx).all()
    assert not model.gradients()["0.gamma"].any()
    assert_within(model.buffers()["0.running_var"], [0.9] * 3, 2 * eps(dtype))
    rows = Sequential(LayerNorm(4), dtype=dtype)
    rows.parameters()["0.beta"][...] = [1, 2, 3, 4]
    x = np.broadcast_to(np.array([[0], [3], [-8]], dtype), (3, 4))
    for y in (rows(x), rows.forward(x, training=True)):
        assert (y == [1, 2, 3, 4]).all()
    dx = rows.backward(np.ones((3, 4), dtype))
    assert dx is not None
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_of_one_row(affine: bool, dtype: np.dtype) -> None:
    model = Sequential(BatchNorm(3, affine=affine), dtype=dtype)
    beta = np.array([1, 2, 3], dtype) if affine else np.zeros(3, dtype)
    if affine:
        model.parameters()["0.beta"][...] = beta
    x, dy = np.array([[5, -7, 0.3]], dtype), np.array([[1, 2, 4]], dtype)
    assert (model.forward(x, training=True) == beta).all()
    dx = model.backward(dy)
    assert dx is not None
    assert not dx.any()
    if affine:
        assert not model.gradients()["0.gamma"].any()
        assert_same_bits(model.gradients()["0.beta"], dy[0])
    assert_within(model.buffers()["0.running_mean"], 0.1 * x[0], 2 * eps(dtype) * np.abs(x[0]))
    assert (model.buffers()["0.running_var"] == 1).all()


def test_a_row_of_one_feature_is_beta(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = Sequential(LayerNorm(1), dtype=dtype)
    model.parameters()["0.beta"][...] = 0.25
    x = rng.standard_normal((40, 1)).astype(dtype)
    for y in (model(x), model.forward(x, training=True)):
        assert (y == 0.25).all()
    dx = model.backward(x)
    assert dx is not None
    assert not dx.any()
    one = Sequential(BatchNorm(1), dtype=dtype)
    net = Net(one)
    near(one.forward(x, training=True), net.train(x), dtype, "one column", 100)
    near(one(x), net(x), dtype, "one column at inference", 100)


@pytest.mark.parametrize("kind", ["batch_norm", "layer_norm"])
def test_a_mean_of_many_spreads_is_taken_off_exactly(kind: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    """1e4 +- 1e-2: some twenty values that float32 can tell apart, all lost to one that subtracts squares."""
    model = Sequential(BatchNorm(20, momentum=1.0) if kind == "batch_norm" else LayerNorm(20), dtype=dtype)
    x = (1e4 + 1e-2 * rng.standard_normal((64, 20))).astype(dtype)
    net = Net(model)
    bound = 160 * eps(dtype) if dtype == np.float32 else 4e-9  # NumPy's own mean is off by 1e-12 in 1e4, of a spread of 1e-2
    assert_within(model.forward(x, training=True), net.train(x), bound)
    dy = normal(rng, dtype, 64, 20)
    dx, gradients = net.backward(dy)
    got = model.backward(dy)
    assert got is not None
    # What backward has of the mean is rounded to the dtype, as in ops.batch_norm_backward: by 5e-4 here, in float32.
    bound += eps(dtype) * 1e4 / 1e-2
    assert_within(got, dx, 4 * bound * np.abs(dx).max())
    for name, g in model.gradients().items():
        assert_within(g, gradients[name], bound * (64 if name.endswith("gamma") else 1))
    if kind == "batch_norm":
        var = x.astype(np.float64).var(axis=0, ddof=1)
        assert_within(model.buffers()["0.running_var"], var, 40 * eps(dtype) * var + 1e-13)
        # At inference the mean is the buffer's number: x - mean is exact, whatever its own rounding was.
        values = {name: v.astype(np.float64) for name, v in model.buffers().items()}
        y = (x - values["0.running_mean"]) / np.sqrt(values["0.running_var"] + 1e-5)
        assert_within(model(x), y, 160 * eps(dtype) * np.abs(y).max())


def test_nan_stays_in_its_column_or_row() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4))
    x[2, 1] = np.nan
    y = Sequential(BatchNorm(4), dtype="float64").forward(x, training=True)
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(np.delete(y, 1, axis=1)).all()
    y = Sequential(LayerNorm(4), dtype="float64").forward(x, training=True)
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, axis=0)).all()
    y = Sequential(Residual(Dense(4, 4, init="zeros")), dtype="float64")(x)
    assert np.isfinite(np.delete(y, 2, axis=0)).all()
    assert np.isnan(y[2]).all()


# --- residual ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        [Dense(6, 6, init="zeros")],
        [Dense(6, 30, activation="relu"), Dense(30, 6, init="zeros")],
        [LayerNorm(), Dense(6, 9, activation="gelu"), Dropout(0.5), Dense(9, 6, init="zeros")],
        [BatchNorm(), Dense(6, 9, activation="gelu"), Residual(Dense(9, 9)), Dense(9, 6, init="zeros")],
    ],
    ids=len,
)
def test_a_last_layer_of_zeros_makes_a_block_the_identity(body: list[Any], training: bool, dtype: np.dtype, threads: int) -> None:
    """Exactly: of y and of dx, at every depth."""
    body = [layer if k or not isinstance(layer, BatchNorm | LayerNorm) else type(layer)(6) for k, layer in enumerate(body)]
    model = Sequential(*[Residual(*body)] * 5, dtype=dtype)
    x, dy = problem(model, 130)
    y = model.forward(x, training=training)
    assert_same_bits(y + 0, x + 0)
    if training:
        dx = model.backward(dy)
        assert dx is not None
        assert (dx == dy).all()


@pytest.mark.parametrize("shortcut", [None, "dense"])
def test_a_residual_with_dropout_inside(shortcut: str | None) -> None:
    """The mask is read off a network of the same layers whose weights let it through."""
    width = 6 if shortcut is None else 4

    def net() -> Sequential:
        body = [Dense(6, 8, activation="tanh"), Dropout(0.4), Dense(8, width)]
        return Sequential(
            Residual(*body, shortcut=None if shortcut is None else Dense(6, 4)), Dense(width, 8), seed=5, dtype="float64"
        )

    x, dy = np.random.default_rng(1).standard_normal((20, 6)), np.random.default_rng(2).standard_normal((20, 8))
    model, seen = net(), []
    for part in (slice(0, width), slice(8 - width, 8)):  # a body of fewer columns shows some of them at a time
        bare = net()
        p = bare.parameters()
        for name in p:
            p[name][...] = 0
        p["0.0.bias"][...] = 0.5
        p["0.2.weight"][part] = np.eye(width)
        p["1.weight"][:, part] = np.eye(width)
        seen.append(bare.forward(0 * x, training=True)[:, part] / np.tanh(0.5))
    mask = np.empty((20, 8))
    mask[:, :width], mask[:, 8 - width :] = seen
    assert_within(np.unique(mask.round(9)), [0, round(1 / 0.6, 9)], 0)
    twin = Net(model)
    near(model.forward(x, training=True), twin.train(x, {"0.1": mask}), "float64", "y")
    got, (dx, gradients) = model.backward(dy), twin.backward(dy)
    assert got is not None
    near(got, dx, "float64", "dx")
    for name, g in model.gradients().items():
        near(g, gradients[name], "float64", name)
    near(model(x), twin(x), "float64", "inference")


# --- frozen layers -------------------------------------------------------------------------------------------------------------


def block() -> Sequential:
    layers = [
        Dense(5, 8),
        BatchNorm(eps=SOFT),
        Activation("tanh"),
        Residual(Dense(8, 9, activation="tanh"), Residual(LayerNorm(), Dense(9, 9)), Dense(9, 8), shortcut=Dense(8, 8, bias=False)),
        Dense(8, 4),
    ]
    return scatter(Sequential(*layers, seed=1, dtype="float64"), np.random.default_rng(8))


FREEZES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "gamma": (("1.gamma",), {"1.gamma"}),
    "beta": (("1.beta",), {"1.beta"}),
    "batch_norm": (("1",), {"1.gamma", "1.beta"}),
    "a layer in a residual": (("3.0",), {"3.0.weight", "3.0.bias"}),
    "a parameter in a residual": (("3.0.bias",), {"3.0.bias"}),
    "a residual in a residual": (("3.1",), {"3.1.0.gamma", "3.1.0.beta", "3.1.1.weight", "3.1.1.bias"}),
    "deep": (("3.1.0", "3.1.1.weight"), {"3.1.0.gamma", "3.1.0.beta", "3.1.1.weight"}),
    "shortcut": (("3.shortcut",), {"3.shortcut.weight"}),
    "all but the shortcut": (
        ("0", "1", "3.0", "3.1", "3.2"),
        {
            *("0.weight", "0.bias", "1.gamma", "1.beta", "3.0.weight", "3.0.bias"),
            *("3.1.0.gamma", "3.1.0.beta", "3.1.1.weight", "3.1.1.bias", "3.2.weight", "3.2.bias"),
        },
    ),
    "below": (("0", "1"), {"0.weight", "0.bias", "1.gamma", "1.beta"}),
    "the head": (("4",), {"4.weight", "4.bias"}),
}


@pytest.mark.parametrize("case", FREEZES)
def test_frozen_parts_stay_and_the_others_learn_as_before(case: str, threads: int) -> None:
    names, frozen = FREEZES[case]
    free, part = block(), block()
    part.freeze(*names)
    assert set(part.frozen) == frozen
    before = {name: view.copy() for name, view in part.parameters().items()}
    x, y = classes(40, 5, 4, "float64")
    _core.share_always(True)
    try:
        for model in (free, part):
            ts.Trainer(model, optimizer=optim.AdamW(lr=0.1, weight_decay=0.5)).step(x, y)
    finally:
        _core.share_always(False)
    for name, view in part.parameters().items():
        assert_same_bits(view, before[name] if name in frozen else free.parameters()[name], name)
    for name, buffer in part.buffers().items():  # statistics are no parameters
        assert_same_bits(buffer, free.buffers()[name], name)
        assert (buffer != block().buffers()[name]).all()
    part.unfreeze(names[0])
    assert set(part.frozen) == {name for name in frozen if not f"{name}.".startswith(f"{names[0]}.")}


@pytest.mark.parametrize("case", FREEZES)
def test_gradients_of_what_is_frozen_are_0_and_dx_is_the_same(case: str) -> None:
    names, frozen = FREEZES[case]
    model = block()
    model.freeze(*names)
    net = Net(model)
    x, dy = problem(model)
    model.forward(x, training=True)
    net(x, training=True)
    got, (dx, gradients) = model.backward(dy), net.backward(dy)
    assert got is not None
    near(got, dx, "float64", "dx")
    for name, g in model.gradients().items():
        near(g, gradients[name] * (name not in frozen), "float64", name)


@pytest.mark.one_level
def test_a_prefix_ends_at_a_dot() -> None:
    model = Sequential(*[Dense(3, 3) for _ in range(12)], Residual(*[Dense(3, 3) for _ in range(11)]))
    model.freeze("1", "12.1")
    assert model.frozen == ("1.weight", "1.bias", "12.1.weight", "12.1.bias")
    model.unfreeze()
    model.freeze("12")
    assert len(model.frozen) == 22
    model.unfreeze("12.10")
    assert len(model.frozen) == 20


@pytest.mark.one_level
@pytest.mark.parametrize(
    "name", ["5", "1.weight", "3.7", "3.0.gamma", "3.1.2", "3.1.shortcut", "1.shortcut", "3.", "3.0.", "", ".", "shortcut"]
)
def test_wrong_names_change_nothing(name: str) -> None:
    model = block()
    with pytest.raises(ValueError, match=re.escape(f"freeze: name is {name!r}")):
        model.freeze("0", name)
    assert model.frozen == ()


@pytest.mark.one_level
def test_rates_of_parts_of_a_residual() -> None:
    """The longest path that a parameter lies under gives its factor."""
    model = block()
    factors = {"3": 0.1, "3.1": 0.5, "3.1.0": 0.0, "1": 2.0}
    addresses = {view.ctypes.data: name for name, view in model.parameters().items()}
    rates = {
        addresses[view.ctypes.data]: group["lr"]
        for group in model.param_groups(lr=1.0, lr_factors=factors)
        for view in group["params"]
    }
    assert len(rates) == len(addresses)
    for name, rate in rates.items():
        under = [path for path in factors if f"{name}.".startswith(f"{path}.")]
        assert rate == (factors[max(under, key=len)] if under else 1.0), name
    decayed = {
        addresses[view.ctypes.data]
        for group in model.param_groups(decay_bias=False)
        if group.get("weight_decay") != 0.0
        for view in group["params"]
    }
    assert decayed == {name for name in rates if name.endswith("weight")}
    for wrong in ("2", "3.7", "3.1.", "9"):
        with pytest.raises(ValueError, match=re.escape(f"lr_factors has {wrong!r}")):
            model.param_groups(lr=1.0, lr_factors={wrong: 0.1})


@pytest.mark.one_level
def test_a_diagnosis_names_the_layers_of_a_residual() -> None:
    x, y = classes(40, 5, 4, "float64")
    paths = [report.name for report in ts.diagnose(block(), x, y).layers]
    assert set(paths) >= {"0", "1", "3.0", "3.1.0", "3.1.1", "3.1", "3.2", "3.shortcut", "3", "4"}


# --- training ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in PLACES if not place.endswith("_norm, not affine")])  # which has no parameters
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
def test_a_step_is_forward_loss_backward_and_update(place: str, loss: str) -> None:
    stepped, by_hand = made(place), made(place)
    trainer = ts.Trainer(stepped, loss, optim.SGD(lr=0.05, momentum=0.9, weight_decay=0.01))
    optimizer = optim.SGD(list(by_hand.parameters().values()), lr=0.05, momentum=0.9, weight_decay=0.01)
    width = stepped._program.out_features
    for rows in (17, 30, 3, 30):
        x, y = problem(stepped, rows)
        target = np.arange(rows) % width if loss == "softmax_cross_entropy" else y
        value, dy = getattr(reference, loss)(by_hand.forward(x, training=True), target)
        by_hand.backward(dy)
        optimizer.step(list(by_hand.gradients().values()))
        assert trainer.step(x, target) == pytest.approx(value, rel=1e-9)
    for name, view in (stepped.parameters() | stepped.buffers()).items():
        near(view, (by_hand.parameters() | by_hand.buffers())[name], "float64", name, 1e5)


@pytest.mark.parametrize("place", [place for place in PLACES if not place.endswith("_norm, not affine")])
@pytest.mark.parametrize("rows", [1, ROWS, 300])
def test_a_step_takes_nothing_from_a_backward_before_it(place: str, rows: int) -> None:
    """Which asked for dx, as the step does not."""
    stepped, twin = made(place), made(place)
    x, y = problem(stepped, rows)
    for model in (stepped, twin):
        z = model.forward(3 * x + 1, training=True)
        if model is stepped:
            model.backward(z)
        ts.Trainer(model, "mse", optim.SGD(lr=0.05)).step(x, y)
    for name, view in (stepped.parameters() | stepped.buffers()).items():
        assert_same_bits(view, (twin.parameters() | twin.buffers())[name], name)


def test_a_step_with_dropout_in_a_block_is_forward_loss_backward_and_update() -> None:
    def net() -> Sequential:
        body = [LayerNorm(), Dense(40, 50, activation="gelu"), Dropout(0.5), Dense(50, 40), Dropout(0.1)]
        return Sequential(Dense(20, 40), Residual(*body), BatchNorm(), Dropout(0.3), Dense(40, 10), seed=4, dtype="float64")

    stepped, by_hand = net(), net()
    x, y = np.random.default_rng(1).standard_normal((30, 20)), np.arange(30) % 10
    trainer = ts.Trainer(stepped, optimizer=optim.SGD(lr=0.1))
    optimizer = optim.SGD(list(by_hand.parameters().values()), lr=0.1)
    for _ in range(3):
        loss, dy = reference.softmax_cross_entropy(by_hand.forward(x, training=True), y)
        by_hand.backward(dy)
        optimizer.step(list(by_hand.gradients().values()))
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-9)
    for name, view in (stepped.parameters() | stepped.buffers()).items():
        near(view, (by_hand.parameters() | by_hand.buffers())[name], "float64", name, 1e5)


def test_fit_equals_its_steps(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, y = classes(103, IN, 3, dtype)
    fitted, stepped = (ts.Trainer(made("blocks with batch_norm", dtype), seed=11) for _ in range(2))
    fitted.fit(x, y, epochs=3, batch_size=25, validation_data=(x[:9], y[:9]))
    for epoch in range(3):
        order = _core.permutation(103, 11, epoch)
        for first in range(0, 103, 25):
            stepped.step(x[order[first : first + 25]], y[order[first : first + 25]])
    assert bits(fitted.model) == bits(stepped.model)
    for name, buffer in fitted.model.buffers().items():
        assert_same_bits(buffer, stepped.model.buffers()[name], name)
    assert fitted.evaluate(x, y) == stepped.evaluate(x, y)


BIG: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "narrow": (
        [
            Dense(7, 20),
            BatchNorm(),
            Activation("relu"),
            Residual(LayerNorm(), Dense(20, 30, activation="gelu"), Dense(30, 20)),
            Dense(20, 4),
        ],
        (1, 15, 16, 17, 65),
    ),
    "one hidden layer": ([Dense(30, 64), BatchNorm(), Activation("relu"), Dense(64, 4)], (63, 64, 65, 130)),
    "odd": (
        [
            BatchNorm(33),
            Dense(33, 67, activation="tanh"),
            LayerNorm(),
            Residual(Dense(67, 35), Dense(35, 67)),
            BatchNorm(),
            Dense(67, 4),
        ],
        (31, 129, 257),
    ),
    "wide": (
        [
            Dense(200, 256),
            BatchNorm(),
            Activation("relu"),
            Residual(LayerNorm(), Dense(256, 160, activation="relu"), Dense(160, 256)),
            Residual(Dense(256, 100, activation="relu"), BatchNorm(), shortcut=Dense(256, 100)),
            LayerNorm(),
            Dense(100, 4),
        ],
        (128, 257),
    ),
    "with dropout": (
        [
            Dense(60, 130),
            Dropout(0.2),
            BatchNorm(),
            Residual(LayerNorm(), Dense(130, 100, activation="gelu"), Dropout(0.5), Dense(100, 130)),
            Dense(130, 4),
        ],
        (65, 300),
    ),
}


@pytest.mark.parametrize(
    "always",
    [
        pytest.param(True, id="shared always"),
        pytest.param(False, id="shared where it pays", marks=pytest.mark.one_level),
    ],
)
@pytest.mark.parametrize("place", BIG)
def test_bits_do_not_depend_on_threads(place: str, always: bool, dtype: np.dtype) -> None:
    """Forward, backward and 8 steps of Adam, over batches that straddle a vector and a block of rows."""
    layers, batches = BIG[place]
    seen = []
    _core.share_always(always)
    try:
        for n in (1, 2, 3):
            with ts.num_threads(n):
                model = Sequential(*layers, seed=4, dtype=dtype)
                got = []
                for rows in batches:
                    x, dy = problem(model, rows)
                    got += [model(x), model.forward(x, training=True), model.backward(dy)]
                    got += [g.copy() for g in model.gradients().values()]
                    model.backward(dy, need_dx=False, accumulate=True)
                    got += [g.copy() for g in model.gradients().values()]
                trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01))
                losses = []
                for step in range(8):
                    x, _ = problem(model, batches[step % len(batches)], seed=step)
                    losses.append(trainer.step(x, np.arange(len(x)) % 4))
                got += [np.array(losses), *model.parameters().values(), *model.buffers().values(), model(x)]
            seen.append([np.asarray(a).tobytes() for a in got])
    finally:
        _core.share_always(False)
    assert seen[0] == seen[1]
    assert seen[0] == seen[2]


@pytest.mark.one_level
@pytest.mark.parametrize("place", BIG)
def test_a_fused_update_gives_the_same_bits(place: str, dtype: np.dtype, threads: int) -> None:
    layers, batches = BIG[place]
    trained = []
    for fuse in (False, True, None):
        model = Sequential(*layers, seed=4, dtype=dtype)
        trainer = ts.Trainer(model, optimizer=optim.AdamW(lr=0.01, weight_decay=0.1), fuse_update=fuse, l2=1e-3)
        losses = []
        for rows in batches * 2:
            x, _ = problem(model, rows)
            losses.append(trainer.step(x, np.arange(rows) % 4))
        trained.append((bits(model), state_bits(trainer), losses, *(v.tobytes() for v in model.buffers().values())))
    assert trained[0] == trained[1]
    assert trained[0] == trained[2]


@pytest.mark.parametrize("place", ["normed", "residual"])
def test_predictions_of_several_python_threads(place: str) -> None:
    """What inference derives from the statistics is not another call's."""
    layers = [Dense(30, 64), BatchNorm(), Activation("relu"), LayerNorm(), Dense(64, 4)]
    if place == "residual":
        layers[3:4] = [Residual(LayerNorm(), Dense(64, 64), BatchNorm()), BatchNorm()]
    model = scatter(Sequential(*layers, seed=1), np.random.default_rng(0))
    tables = [problem(model, rows)[0] for rows in (1, 7, 65, 300)]
    wanted = [model(x) for x in tables]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(model, tables * 50), wanted * 50, strict=True):
            assert_same_bits(got, want)


def test_a_deep_network_learns_with_blocks() -> None:
    """Thirty layers, each block the identity at first."""
    x, y = ts.data.load_digits()
    block = [LayerNorm(), Dense(32, 32, activation="relu"), Dense(32, 32, init="zeros")]
    model = Sequential(Dense(64, 32), *[Residual(*block)] * 15, Dense(32, 10), seed=0)
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=1e-3))
    trainer.fit(x / 16, y, epochs=4)
    assert trainer.evaluate(x / 16, y)["accuracy"] > 0.9


# --- copies and files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_copies_and_files_carry_everything(place: str, dtype: np.dtype, tmp_path: Path) -> None:
    model = made(place, dtype)
    x, dy = problem(model)
    model.forward(x, training=True)
    if model.parameters():
        model.freeze(next(iter(model.parameters())))
    model.save(tmp_path / "m")
    assert safetensors.numpy.load_file(tmp_path / "m").keys() >= model.parameters().keys() | model.buffers().keys()
    for again in (ts.nn.load(tmp_path / "m"), copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert again.layers == model.layers
        assert again.frozen == model.frozen
        for ours, theirs in ((model.parameters(), again.parameters()), (model.buffers(), again.buffers())):
            assert ours.keys() == theirs.keys()
            for name, view in ours.items():
                assert_same_bits(theirs[name], view, name)
                assert not np.shares_memory(theirs[name], view)
        assert_same_bits(again(x), model(x))
        original = copy.deepcopy(model)
        assert_same_bits(again.forward(x, training=True), original.forward(x, training=True))
        a, b = again.backward(dy), original.backward(dy)
        assert a is not None
        assert b is not None
        assert_same_bits(a, b)
        for name, buffer in again.buffers().items():
            assert_same_bits(buffer, original.buffers()[name])


def file_of(model: Sequential, tmp_path: Path) -> tuple[dict[str, Array], dict[str, str], list[Any]]:
    """The arrays, the metadata and the layers' description of a saved model."""
    model.save(tmp_path / "good")
    with safetensors.safe_open(tmp_path / "good", framework="numpy") as file:
        metadata = dict(file.metadata())
    return safetensors.numpy.load_file(tmp_path / "good"), metadata, json.loads(metadata["layers"])


def body_of(spec: dict[str, Any]) -> list[Any]:
    """The layers of a residual's description."""
    return next(value for value in spec.values() if isinstance(value, list))


def small_block() -> Sequential:
    return Sequential(Dense(4, 3), BatchNorm(), Residual(Dense(3, 3), LayerNorm(), shortcut=Dense(3, 3)), seed=1)


DAMAGE: dict[str, Callable[[dict[str, Array], list[Any]], object]] = {
    "no running_mean": lambda arrays, _: arrays.pop("1.running_mean"),
    "no running_var": lambda arrays, _: arrays.pop("1.running_var"),
    "no gamma": lambda arrays, _: arrays.pop("1.gamma"),
    "no array of the body": lambda arrays, _: arrays.pop("2.0.weight"),
    "no array of the shortcut": lambda arrays, _: arrays.pop("2.shortcut.weight"),
    "one array more": lambda arrays, _: arrays.update({"2.2.weight": arrays["2.0.weight"]}),
    "longer running_var": lambda arrays, _: arrays.update({"1.running_var": np.ones(4, "float32")}),
    "running_var of float64": lambda arrays, _: arrays.update({"1.running_var": np.ones(3)}),
    "other shape in the body": lambda arrays, _: arrays.update({"2.0.weight": np.ones((3, 4), "float32")}),
    "momentum above 1": lambda _, layers: layers[1].update(momentum=1.5),
    "momentum a word": lambda _, layers: layers[1].update(momentum="0.1"),
    "momentum None": lambda _, layers: layers[1].update(momentum=None),
    "eps negative": lambda _, layers: layers[1].update(eps=-1e-5),
    "eps NaN": lambda _, layers: layers[1].update(eps=float("nan")),
    "affine a number": lambda _, layers: layers[1].update(affine=1),
    "not affine, with gamma": lambda _, layers: layers[1].update(affine=False),
    "features 0": lambda _, layers: layers[1].update(features=0),
    "features that do not fit": lambda _, layers: layers[1].update(features=5),
    "features beyond memory": lambda _, layers: layers[1].update(features=2**31 - 1),
    "one field more": lambda _, layers: layers[1].update(groups=3),
    "one field less": lambda _, layers: layers[1].pop("eps"),
    "body empty": lambda _, layers: body_of(layers[2]).clear(),
    "body a number": lambda _, layers: body_of(layers[2]).append(3),
    "body with a list": lambda _, layers: body_of(layers[2]).append([]),
    "body with the unknown": lambda _, layers: body_of(layers[2])[0].update(kind="convolution"),
    "body with standardize": lambda _, layers: body_of(layers[2]).insert(0, {"kind": "standardize", "features": 3}),
    "body too wide": lambda _, layers: body_of(layers[2])[0].update(out_features=4),
    "body of another input": lambda _, layers: body_of(layers[2])[0].update(in_features=4),
    "shortcut too wide": lambda _, layers: layers[2]["shortcut"].update(out_features=4),
    "shortcut no dense": lambda _, layers: layers[2].update(shortcut={"kind": "dropout", "rate": 0.5, "features": 3}),
    "shortcut a number": lambda _, layers: layers[2].update(shortcut=1),
    "shortcut a list": lambda _, layers: layers[2].update(shortcut=[]),
    "no shortcut": lambda _, layers: layers[2].update(shortcut=None),
    "residual without fields": lambda _, layers: layers.__setitem__(2, {"kind": "residual"}),
}


@pytest.mark.one_level
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_refused(case: str, tmp_path: Path) -> None:
    arrays, metadata, layers = file_of(small_block(), tmp_path)
    DAMAGE[case](arrays, layers)
    (tmp_path / "bad").write_bytes(safetensors.numpy.save(arrays, metadata | {"layers": json.dumps(layers)}))
    with pytest.raises(ValueError, match="load: .*bad is no whole trainstep model"):
        ts.nn.load(tmp_path / "bad")
    again = tmp_path / "again"
    arrays, metadata, layers = file_of(small_block(), tmp_path)
    again.write_bytes(safetensors.numpy.save(arrays, metadata | {"layers": json.dumps(layers)}))
    assert ts.nn.load(again).layers == small_block().layers  # it was the damage


@pytest.mark.one_level
@pytest.mark.parametrize("depth", [1, 20, 200, 900, 3000, 100_000])
@pytest.mark.parametrize("closed", [True, False])
def test_a_file_of_blocks_in_blocks_ends_nothing(depth: int, closed: bool, tmp_path: Path) -> None:
    """Each depth is either loaded or refused with ValueError."""
    arrays, metadata, layers = file_of(Sequential(Residual(Dense(3, 3)), seed=1), tmp_path)
    inner = json.dumps(body_of(layers[0])[0])
    before, after = json.dumps(layers[0]).split(inner)
    text = "[" + before * depth + inner + (after * depth + "]" if closed else "")
    path = "0." * (depth + 1)
    deep = {f"{path}{name.rpartition('.')[2]}": value for name, value in arrays.items()}
    (tmp_path / "deep").write_bytes(safetensors.numpy.save(deep, metadata | {"layers": text}))
    try:
        model = ts.nn.load(tmp_path / "deep")
    except ValueError as error:
        assert "is no whole trainstep model" in str(error)  # noqa: PT017
        assert depth > 20 or not closed
    else:
        assert closed
        x = np.ones((2, 3), "float32")
        weight, bias = (a.astype(np.float64) for a in (deep[f"{path}weight"], deep[f"{path}bias"]))
        near(model(x), x @ weight + bias + depth * x, "float32", depth)


@pytest.mark.one_level
def test_blocks_in_blocks_end_nothing() -> None:
    layer: Any = Dense(2, 2)
    with contextlib.suppress(ValueError, RecursionError):
        for _ in range(5000):
            layer = Residual(layer)
        Sequential(layer)(np.ones((1, 2)))


# --- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.one_level
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *((lambda cls=cls: cls(0), ValueError, f"{cls.__name__}: features is 0") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(-3), ValueError, f"{cls.__name__}: features is -3") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(2.0), TypeError, f"{cls.__name__}: features is a float") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(True), TypeError, f"{cls.__name__}: features is a bool") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, eps=-1e-9), ValueError, f"{cls.__name__}: eps is -1e-09") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, eps=float("nan")), ValueError, f"{cls.__name__}: eps is nan") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, eps=float("inf")), ValueError, f"{cls.__name__}: eps is inf") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, eps="1e-5"), TypeError, f"{cls.__name__}: eps is a str") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, eps=True), TypeError, f"{cls.__name__}: eps is a bool") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, affine=1), TypeError, f"{cls.__name__}: affine is a int") for cls in (BatchNorm, LayerNorm)),
        *((lambda cls=cls: cls(3, affine=None), TypeError, f"{cls.__name__}: affine is a None") for cls in (BatchNorm, LayerNorm)),
        (lambda: BatchNorm(3, momentum=-0.1), ValueError, "BatchNorm: momentum is -0.1"),
        (lambda: BatchNorm(3, momentum=1.1), ValueError, "BatchNorm: momentum is 1.1"),
        (lambda: BatchNorm(3, momentum=float("nan")), ValueError, "BatchNorm: momentum is nan"),
        (lambda: BatchNorm(3, momentum=None), TypeError, "BatchNorm: momentum is a None"),
        (lambda: BatchNorm(3, momentum=True), TypeError, "BatchNorm: momentum is a bool"),
        (lambda: Residual(), ValueError, "Residual: "),
        (lambda: Residual("relu"), TypeError, "Residual: "),
        (lambda: Residual([Dense(3, 3)]), TypeError, "Residual: "),
        (lambda: Residual(Dense(3, 3), shortcut="dense"), TypeError, "Residual: shortcut is a str"),
        (lambda: Residual(Dense(3, 3), shortcut=Activation("relu", 3)), TypeError, "Residual: shortcut is a"),
        (lambda: Residual(Dense(3, 3), shortcut=Residual(Dense(3, 3))), TypeError, "Residual: shortcut is a"),
        (lambda: Sequential(BatchNorm()), ValueError, "layer 0 is BatchNorm("),
        (lambda: Sequential(LayerNorm()), ValueError, "layer 0 is LayerNorm("),
        (lambda: Sequential(Residual(LayerNorm())), ValueError, "layer 0"),
        (lambda: Sequential(Residual(Activation("relu"), Dense(3, 3))), ValueError, "layer 0"),
        (lambda: Sequential(Dense(2, 3), BatchNorm(4)), ValueError, "layer 1 takes 4 features, layer 0 gives 3"),
        (lambda: Sequential(Dense(2, 3), LayerNorm(4)), ValueError, "layer 1 takes 4 features, layer 0 gives 3"),
    ],
)
def test_wrong_layers(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make()


@pytest.mark.one_level
@pytest.mark.parametrize(
    ("layers", "path"),
    [
        ([Dense(4, 8), Residual(Dense(9, 8))], r"1(\.0)?\b"),
        ([Dense(4, 8), Residual(Dense(8, 8), Dense(9, 8))], r"1\.1"),
        ([Dense(4, 8), Residual(Dense(8, 8), BatchNorm(9))], r"1\.1"),
        ([Dense(4, 8), Residual(LayerNorm(9), Dense(9, 8))], r"1(\.0)?\b"),
        ([Dense(4, 8), Residual(Dense(8, 9))], r"1\b"),
        ([Dense(4, 8), Residual(Dense(8, 9), Activation("relu"))], r"1\b"),
        ([Dense(4, 8), Residual(Dense(8, 9), shortcut=Dense(8, 8))], r"1(\.shortcut)?\b"),
        ([Dense(4, 8), Residual(Dense(8, 9), shortcut=Dense(7, 9))], r"1\.shortcut"),
        ([Dense(4, 8), Residual(Dense(8, 8), Residual(Dense(8, 8), Dense(7, 8)))], r"1\.1\.1"),
        ([Dense(4, 8), Residual(Dense(8, 8), Residual(Dense(8, 7)), Dense(8, 8))], r"1\.1\b"),
        ([Residual(Dense(4, 8), shortcut=Dense(4, 8)), Dense(4, 3)], r"1\b"),
    ],
    ids=repr,
)
def test_widths_that_do_not_fit_are_named_by_their_path(layers: list[Any], path: str) -> None:
    with pytest.raises(ValueError, match=rf"layer {path}"):
        Sequential(*layers)


@pytest.mark.one_level
def test_standardize_stands_first_of_the_network_only() -> None:
    for make in (
        lambda: Sequential(Residual(Standardize(3), Dense(3, 3))),
        lambda: Sequential(Dense(3, 3), Residual(Dense(3, 3), Residual(Standardize(3)))),
    ):
        with pytest.raises((ValueError, TypeError), match="Standardize"):
            make()
    Sequential(Standardize(3), Residual(Dense(3, 3)))


@pytest.mark.one_level
def test_constant_weights_inside_a_residual() -> None:
    """Those of a hidden layer are refused, as everywhere; by name they are what is meant."""
    same = ts.init.constant(0.1)
    for body in ([Dense(4, 4, init=same), Dense(4, 4)], [Dense(4, 8, init=same), Activation("relu"), Dense(8, 4)]):
        with pytest.raises(ValueError, match=r"layer 1\.0 is Dense\(4, .*expected weights that differ"):
            Sequential(Dense(3, 4), Residual(*body), Dense(4, 2))
    for name in ("zeros", "ones"):
        Sequential(Dense(3, 4), Residual(Dense(4, 4), Dense(4, 4, init=name)), Dense(4, 2))
        Sequential(Residual(Dense(4, 4, init=name), Dense(4, 4)), Dense(4, 2))


@pytest.mark.one_level
def test_every_layer_is_in_a_place() -> None:
    kinds = {type(layer) for layers in nets().values() for _, layer in inside(layers)}
    assert kinds == {Dense, Activation, BatchNorm, LayerNorm, Residual, Standardize}
