"""Networks: Sequential against the NumPy reference and finite differences, its arenas, its files, its initial weights."""

import copy
import gc
import itertools
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import trainstep as ts
from trainstep import _core, ops, reference
from trainstep.nn import Dense, Sequential, Standardize

from .activation_rules import OF_INPUT
from .helpers import Dlpack, buffer

# Every vector width (2, 4, 8, 16) less one, itself and one more is among them, and so are outputs of 1, 2, 3 and 10.
WIDTHS = [(1, 1), (4, 16, 3), (3, 7, 8, 9, 1), (17, 15, 16, 2), (33, 31, 67, 10), (64, 64, 10), (65, 1, 33)]
BATCHES = [1, 3, 17, 64, 600]
REAL_DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def network(widths: tuple[int, ...], activation: str | None = "relu", *, dtype: object = "float64", **layer: object) -> Sequential:
    """A network with `activation` after every layer but the last."""
    last = len(widths) - 2
    layers = [
        Dense(i, o, activation=activation if k < last else None, **layer) for k, (i, o) in enumerate(itertools.pairwise(widths))
    ]
    return Sequential(*layers, dtype=dtype, seed=3)


def reference_forward(model: Sequential, x: np.ndarray) -> list[np.ndarray]:
    """x and the output of every layer, in float64."""
    p = {name: v.astype(np.float64) for name, v in model.parameters().items()}
    ys = [np.asarray(x, np.float64)]
    for i, layer in enumerate(model.layers):
        ys.append(reference.dense(ys[-1], p[f"{i}.weight"], p.get(f"{i}.bias"), layer.activation))
    return ys


def reference_backward(model: Sequential, ys: list[np.ndarray], dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """dx and the gradients, in float64."""
    p = {name: v.astype(np.float64) for name, v in model.parameters().items()}
    gradients = {}
    for i in reversed(range(len(model.layers))):
        weight, activation = p[f"{i}.weight"], model.layers[i].activation
        y = reference.dense(ys[i], weight, p.get(f"{i}.bias")) if activation in OF_INPUT else ys[i + 1]
        dy, gradients[f"{i}.weight"], db = reference.dense_backward(np.asarray(dy, np.float64), ys[i], weight, y, activation)
        if model.layers[i].bias:
            gradients[f"{i}.bias"] = db
    return dy, gradients


def assert_near(got: np.ndarray, want: np.ndarray, dtype: np.dtype, what: str) -> None:
    """Within 200 eps of the largest element: what sums of some hundred terms through some layers lose at most."""
    scale = np.abs(want).max() + np.finfo(dtype).tiny
    assert got.shape == want.shape, what
    assert got.dtype == dtype, what
    assert np.abs(got - want).max() <= 200 * np.finfo(dtype).eps * scale, what


# --- values --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: "-".join(map(str, w)))
@pytest.mark.parametrize("activation", ["relu", None])
def test_exact_on_small_integers(
    widths: tuple[int, ...], activation: str | None, dtype: np.dtype, threads: int, rng: np.random.Generator
) -> None:
    """With integers every sum is exact in either dtype, so a term too few or too many shows at once."""
    for batch in BATCHES:
        model = network(widths, activation, dtype=dtype)
        for name, view in model.parameters().items():
            # Few nonzero weights keep the numbers small; biases of 1/2 and 1/4 keep a relu's input off 0.
            view[...] = rng.integers(-1, 2, view.shape) * (rng.random(view.shape) < 0.3) if "weight" in name else 0.5
        x = rng.integers(-2, 3, (batch, widths[0])).astype(dtype)
        dy = rng.integers(-1, 2, (batch, widths[-1])).astype(dtype)
        ys = reference_forward(model, x)
        dx, gradients = reference_backward(model, ys, dy)
        largest = max(np.abs(a).max() for a in [*ys, dx, *gradients.values()])
        assert largest * 4 < 2**22, "the data must stay exact"

        np.testing.assert_array_equal(model(x), ys[-1])
        np.testing.assert_array_equal(model.forward(x, training=True), ys[-1])
        np.testing.assert_array_equal(model.backward(dy), dx)
        for name, got in model.gradients().items():
            np.testing.assert_array_equal(got, gradients[name], err_msg=name)


@pytest.mark.parametrize("widths", WIDTHS[1:], ids=lambda w: "-".join(map(str, w)))
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_smooth_activations(
    widths: tuple[int, ...], activation: str, dtype: np.dtype, threads: int, rng: np.random.Generator
) -> None:
    for batch in BATCHES:
        model = network(widths, activation, dtype=dtype)
        for view in model.parameters().values():
            view += 0.1 * rng.standard_normal(view.shape)
        x = rng.standard_normal((batch, widths[0])).astype(dtype)
        dy = rng.standard_normal((batch, widths[-1])).astype(dtype)
        ys = reference_forward(model, x)
        dx, gradients = reference_backward(model, ys, dy)
        assert_near(model(x), ys[-1], dtype, "model(x)")
        assert_near(model.forward(x, training=True), ys[-1], dtype, "forward")
        assert_near(model.backward(dy), dx, dtype, "dx")
        assert model.gradients().keys() == gradients.keys()
        for name, got in model.gradients().items():
            assert_near(got, gradients[name], dtype, name)


@pytest.mark.parametrize(
    "activations", [(a, a, a) for a in _core.activations] + [("tanh", "relu", "sigmoid"), ("relu", "sigmoid", None)]
)
def test_finite_differences(activations: tuple[str | None, ...], rng: np.random.Generator) -> None:
    widths = (5, 9, 6, 3)
    layers = [Dense(i, o, activation=a) for (i, o), a in zip(itertools.pairwise(widths), activations, strict=True)]
    model = Sequential(*layers, dtype="float64")
    for view in model.parameters().values():
        view += 0.1 * rng.standard_normal(view.shape)
    x, c = rng.standard_normal((4, 5)), rng.standard_normal((4, 3))
    model.forward(x, training=True)
    dx = model.backward(c)
    h = 1e-6

    def check(array: np.ndarray, gradient: np.ndarray, name: str) -> None:
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + h
            above = (model(x) * c).sum()
            array[at] = kept - h
            below = (model(x) * c).sum()
            array[at] = kept
            assert gradient[at] == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=2e-8), (name, at)

    gradients = {name: g.copy() for name, g in model.gradients().items()}
    check(x, dx, "x")
    for name, view in model.parameters().items():
        check(view, gradients[name], name)


def test_bits_do_not_depend_on_threads(dtype: np.dtype, rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((256, 784)).astype(dtype), rng.standard_normal((256, 10)).astype(dtype)
    seen = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            model = Sequential(Dense(784, 512, activation="tanh"), Dense(512, 77, activation="relu"), Dense(77, 10), dtype=dtype)
            initial = [p.tobytes() for p in model.parameters().values()]
            for _ in range(2):  # the first call wakes the threads, the second finds them awake
                y = model.forward(x, training=True)
                dx = model.backward(dy)
            seen.append(
                [*initial, y.tobytes(), model(x).tobytes(), dx.tobytes(), *(g.tobytes() for g in model.gradients().values())]
            )
    assert seen[0] == seen[1]
    assert seen[0] == seen[2]


@pytest.mark.parametrize("batch", [5, 300])  # 300: more than one block of the sums over the batch
def test_gradients_of_narrow_layers(dtype: np.dtype, threads: int, batch: int, rng: np.random.Generator) -> None:
    """Few columns of dw are calculated transposed; a sum that goes on from what is there is the same chain as one from nothing."""
    for width in (1, 2, 3, 4, 6, 7, 9, 10, 12, 13):
        model = network((70, 64, width), "tanh", dtype=dtype)
        x, dy = rng.standard_normal((batch, 70)).astype(dtype), rng.standard_normal((batch, width)).astype(dtype)
        _, gradients = reference_backward(model, reference_forward(model, x), dy)
        model.forward(x, training=True)
        model.backward(dy)
        once = {name: g.copy() for name, g in model.gradients().items()}
        for name, got in once.items():
            assert_near(got, gradients[name], dtype, (width, name))
        for g in model.gradients().values():
            g[...] = 0
        model.backward(dy, accumulate=True)
        for name, g in model.gradients().items():
            np.testing.assert_array_equal(g, once[name], err_msg=f"{width} {name}")


def test_nan_and_infinity_go_through() -> None:
    model = Sequential(Dense(3, 4, activation="relu"), Dense(4, 2), dtype="float64")
    x = np.zeros((3, 3))
    x[1, 0], x[2, 0] = np.nan, np.inf
    y = model(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[2]).any()


# --- forward and backward ------------------------------------------------------------------------------------------------------


def test_accumulate_adds(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = network((17, 33, 5), "tanh", dtype=dtype)
    x, dy = rng.standard_normal((30, 17)).astype(dtype), rng.standard_normal((30, 5)).astype(dtype)
    model.forward(x[:10], training=True)
    model.backward(dy[:10])
    first = {name: g.copy() for name, g in model.gradients().items()}
    model.forward(x[10:], training=True)
    model.backward(dy[10:], accumulate=True)
    both = {name: g.copy() for name, g in model.gradients().items()}
    model.backward(dy[10:])
    for name, second in model.gradients().items():
        assert_near(both[name], first[name].astype("float64") + second, dtype, name)
    model.forward(x, training=True)
    model.backward(dy)
    for name, whole in model.gradients().items():
        assert_near(both[name], whole.astype("float64"), dtype, name)


def test_backward_overwrites_and_can_be_repeated(rng: np.random.Generator) -> None:
    model = network((7, 9, 3), "sigmoid")
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 3))
    for g in model.gradients().values():
        g[...] = np.nan
    model.forward(x, training=True)
    dx = model.backward(dy)
    first = {name: g.copy() for name, g in model.gradients().items()}
    assert all(np.isfinite(g).all() for g in first.values())
    np.testing.assert_array_equal(model.backward(dy), dx)
    for name, g in model.gradients().items():
        np.testing.assert_array_equal(g, first[name])


def test_need_dx(rng: np.random.Generator) -> None:
    model = network((7, 9, 3), "tanh")
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 3))
    model.forward(x, training=True)
    assert model.backward(dy).shape == (6, 7)
    with_dx = {name: g.copy() for name, g in model.gradients().items()}
    assert model.backward(dy, need_dx=False) is None
    for name, g in model.gradients().items():
        np.testing.assert_array_equal(g, with_dx[name])


def test_caller_may_do_as_he_likes_between_forward_and_backward(rng: np.random.Generator) -> None:
    model = network((7, 9, 3), "tanh")
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 3))
    dx, gradients = reference_backward(model, reference_forward(model, x), dy)
    y = model.forward(x, training=True)
    y[...] = np.nan
    x[...] = np.nan
    kept = dy.copy()
    np.testing.assert_allclose(model.backward(dy), dx, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(dy, kept)
    for name, g in model.gradients().items():
        np.testing.assert_allclose(g, gradients[name], rtol=1e-12, atol=1e-14)


def test_y_is_the_callers_own(rng: np.random.Generator) -> None:
    model = network((7, 9, 3), "tanh")
    a, b = rng.standard_normal((6, 7)), rng.standard_normal((6, 7))
    for run in (model, model.predict, model.forward, lambda x: model.forward(x, training=True)):
        y = run(a)
        kept = y.copy()
        run(b)
        np.testing.assert_array_equal(y, kept)
        assert y.flags.writeable
        assert y.flags.c_contiguous


def test_batches_of_all_sizes_after_each_other(rng: np.random.Generator) -> None:
    """The workspace grows with the largest batch, and a smaller one after it uses a part of it."""
    model = network((5, 17, 2), "tanh")
    for batch in (3, 100, 1, 700, 100):
        x, dy = rng.standard_normal((batch, 5)), rng.standard_normal((batch, 2))
        ys = reference_forward(model, x)
        dx, gradients = reference_backward(model, ys, dy)
        np.testing.assert_allclose(model.forward(x, training=True), ys[-1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.backward(dy), dx, rtol=1e-12, atol=1e-14)
        for name, g in model.gradients().items():
            np.testing.assert_allclose(g, gradients[name], rtol=1e-11, atol=1e-13)


def test_backward_needs_its_forward(rng: np.random.Generator) -> None:
    model = network((7, 9, 3))
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 3))
    with pytest.raises(RuntimeError, match="backward: no forward"):
        model.backward(dy)
    model.forward(x)  # without training=True
    with pytest.raises(RuntimeError, match="backward: no forward"):
        model.backward(dy)
    model.forward(x, training=True)
    wanted = model.backward(dy)
    model(x[:2])  # inference between the two leaves the pass as it is
    np.testing.assert_array_equal(model.backward(dy), wanted)


@pytest.mark.parametrize("what", ["step", "fit", "evaluate"])
def test_backward_refuses_what_a_trainer_ran(what: str, rng: np.random.Generator) -> None:
    """A trainer's batch is the caller's memory, which may be gone by now."""
    model = network((7, 9, 3))
    x, y = rng.standard_normal((6, 7)), np.zeros(6, "int64")
    model.forward(x, training=True)
    trainer = ts.Trainer(model)
    getattr(trainer, what)(x, y)
    with pytest.raises(RuntimeError, match="backward: no forward"):
        model.backward(np.ones((6, 3)))


# --- the arena -----------------------------------------------------------------------------------------------------------------


def address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def test_parameters_and_gradients_lie_in_one_arena_each(dtype: np.dtype) -> None:
    model = network((17, 33, 5, 1), dtype=dtype)
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    parameters, gradients = model.parameters(), model.gradients()
    assert list(parameters) == list(gradients) == names
    offsets = []
    for views in (parameters, gradients):
        for view in views.values():
            assert view.dtype == dtype
            assert view.flags.writeable
            assert view.flags.c_contiguous
            assert not view.flags.owndata
            assert address(view) % 64 == 0
        for a, b in itertools.pairwise(views.values()):
            assert address(b) == address(a) + -(-a.nbytes // 64) * 64
        offsets.append([address(v) - address(views["0.weight"]) for v in views.values()])
    assert offsets[0] == offsets[1]
    assert {name: v.shape for name, v in parameters.items()} == {name: v.shape for name, v in gradients.items()}
    for a, b in itertools.product(parameters.values(), gradients.values()):
        assert not np.shares_memory(a, b)
    for name, again in model.parameters().items():
        assert address(again) == address(parameters[name])
    assert all((g == 0).all() for g in gradients.values())


def test_views_keep_the_memory_alive(rng: np.random.Generator) -> None:
    model = network((64, 64, 10))
    parameters, gradients = model.parameters(), model.gradients()
    one = parameters["1.weight"]
    values = {name: v.copy() for name, v in parameters.items()}
    del model
    gc.collect()
    others = [network((64, 64, 10), init="zeros") for _ in range(20)]  # would take the freed memory and clear it
    for name, v in parameters.items():
        np.testing.assert_array_equal(v, values[name])
    for g in gradients.values():
        g[...] = 1.0
    del parameters, gradients
    gc.collect()
    others += [network((64, 64, 10), init="zeros") for _ in range(20)]
    np.testing.assert_array_equal(one, values["1.weight"])
    one[...] = 2.0
    assert all((v == 0).all() for m in others for v in m.parameters().values())


def test_writes_are_seen_by_the_next_call(rng: np.random.Generator) -> None:
    model = network((7, 9, 3), "tanh")
    trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.SGD(lr=0.5))
    x, t = rng.standard_normal((6, 7)), rng.standard_normal((6, 3))
    views = model.parameters()
    for _ in range(3):
        for view in views.values():
            view[...] = rng.standard_normal(view.shape)
        ys = reference_forward(model, x)
        np.testing.assert_allclose(model(x), ys[-1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.forward(x, training=True), ys[-1], rtol=1e-12, atol=1e-14)
        loss, dy = reference.mse(ys[-1], t)
        _, gradients = reference_backward(model, ys, dy)
        wanted = {name: v - 0.5 * gradients[name] for name, v in views.items()}
        assert trainer.step(x, t) == pytest.approx(loss, rel=1e-12)
        for name, v in views.items():
            np.testing.assert_allclose(v, wanted[name], rtol=1e-11, atol=1e-13)


# --- inference on tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REAL_DTYPES)
def test_x_of_any_real_dtype(kind: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    model = network((19, 8, 3), dtype=dtype)
    x = (rng.random((50, 19)) * 100 - (0 if kind.startswith(("u", "bool")) else 50)).astype(kind)
    wanted = model(x.astype(dtype))
    assert wanted.dtype == dtype
    for got in (model(x), model.predict(x, batch_size=7), model.forward(x), model.forward(x, training=True)):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("batch_size", [1, 7, 512, 513, 1199, 1200, 5000])
def test_predict_in_batches_equals_the_whole(batch_size: int, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    model = network((33, 40, 10), "tanh", dtype=dtype)
    x = rng.standard_normal((1200, 33)).astype(dtype)
    whole = model(x)
    assert_near(whole, reference_forward(model, x)[-1], dtype, "model(x)")
    np.testing.assert_array_equal(model.predict(x, batch_size=batch_size), whole)
    np.testing.assert_array_equal(np.concatenate([model(row[None]) for row in x[:40]]), whole[:40])


def test_x_of_any_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    model = network((12, 8, 3), dtype="float32")
    x = rng.integers(0, 256, (100, 12)).astype("uint8")
    wanted = model(x)
    wide = np.repeat(x, 2, axis=1)
    on_disk = np.memmap(tmp_path / "x", "uint8", "w+", shape=x.shape)
    on_disk[...] = x
    on_disk.flush()
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.astype("float32").tobytes(), "float32", offset=1).reshape(x.shape)
    layouts = {
        "strided": wide[:, ::2],
        "reversed": x[::-1].copy()[::-1],
        "fortran": np.asfortranarray(x),
        "transposed": x.T.copy().T,
        "memmap": on_disk,
        "memmap read-only": np.memmap(tmp_path / "x", "uint8", "r", shape=x.shape),
        "read-only": read_only,
        "unaligned": unaligned,
        "images": x.reshape(100, 3, 4),
        "images with channels": x.reshape(100, 3, 2, 2),
        "list": x.tolist(),
        "buffer": memoryview(x),
    }
    for name, given in layouts.items():
        np.testing.assert_array_equal(model(given), wanted, err_msg=name)
        np.testing.assert_array_equal(model.predict(given, batch_size=9), wanted, err_msg=name)
        np.testing.assert_array_equal(model.forward(given, training=True), wanted, err_msg=name)


def test_out(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = network((12, 8, 3), dtype=dtype)
    x = rng.standard_normal((20, 12)).astype(dtype)
    out = np.empty((20, 3), dtype)
    assert model(x, out=out) is out
    np.testing.assert_array_equal(out, model(x))


def bad_outs(x: np.ndarray) -> dict[str, tuple[object, type[Exception]]]:
    read_only = np.full((6, 7), 9.0)
    read_only.flags.writeable = False
    return {
        "shape": (np.full((6, 6), 9.0), ValueError),
        "dtype": (np.full((6, 7), 9.0, "float32"), TypeError),
        "read-only": (read_only, ValueError),
        "strided": (np.full((6, 14), 9.0)[:, ::2], ValueError),
        "overlap": (x, ValueError),
        "list": ([[9.0] * 7] * 6, TypeError),
    }


@pytest.mark.parametrize("case", ["shape", "dtype", "read-only", "strided", "overlap", "list"])
def test_a_bad_out_is_refused_unwritten(case: str, rng: np.random.Generator) -> None:
    model = network((7, 7))
    x = rng.standard_normal((6, 7))
    out, error = bad_outs(x)[case]
    kept = np.array(out)
    with pytest.raises(error, match="model: out"):
        model(x, out=out)
    np.testing.assert_array_equal(out, kept)


BAD_X: dict[str, tuple[object, type[Exception]]] = {
    "columns": (np.zeros((4, 6)), ValueError),
    "columns of images": (np.zeros((4, 2, 3)), ValueError),
    "one dimension": (np.zeros(7), ValueError),
    "no dimension": (np.zeros(()), ValueError),
    "no rows": (np.zeros((0, 7)), ValueError),
    "complex": (np.zeros((4, 7), complex), TypeError),
    "objects": (np.zeros((4, 7), object), TypeError),
    "strings": (np.zeros((4, 7), "U3"), TypeError),
    "dates": (np.zeros((4, 7), "M8[s]"), TypeError),
    "text": ("text", TypeError),
    "None": (None, TypeError),
    "a number": (7, TypeError),
}


@pytest.mark.parametrize("case", BAD_X)
def test_a_bad_x_is_refused(case: str) -> None:
    x, error = BAD_X[case]
    model = network((7, 9, 3))
    for run in (model, model.predict, model.forward, lambda x: model.forward(x, training=True)):
        with pytest.raises(error, match=": x "):
            run(x)


BAD_DY: dict[str, tuple[object, type[Exception]]] = {
    "columns": (np.zeros((6, 2)), ValueError),
    "rows": (np.zeros((5, 3)), ValueError),
    "no rows": (np.zeros((0, 3)), ValueError),
    "one dimension": (np.zeros(18), ValueError),
    "float32": (np.zeros((6, 3), "float32"), TypeError),
    "int64": (np.zeros((6, 3), "int64"), TypeError),
    "None": (None, TypeError),
}


@pytest.mark.parametrize("case", BAD_DY)
def test_a_bad_dy_is_refused_unwritten(case: str, rng: np.random.Generator) -> None:
    dy, error = BAD_DY[case]
    model = network((7, 9, 3))
    model.forward(rng.standard_normal((6, 7)), training=True)
    for g in model.gradients().values():
        g[...] = 9.0
    with pytest.raises(error, match="backward: dy "):
        model.backward(dy)
    assert all((g == 9.0).all() for g in model.gradients().values())
    assert model.backward(np.zeros((6, 3))).shape == (6, 7)  # the model has not lost its forward


# --- initial weights -----------------------------------------------------------------------------------------------------------


def weights(*layers: Dense, **options: object) -> list[np.ndarray]:
    return [v for name, v in Sequential(*layers, **options).parameters().items() if name.endswith("weight")]


UNIFORM = np.array([-0.8021966237127518, 0.030304645665107155, -0.106583608196405])
NORMAL = np.array(
    [-0.6947948514559892, -1.588986178885764, 0.6898368634215774, 1.5682724160509858, 1.5828112500408733, -0.8549198679190241]
)


def test_initial_weights_follow_from_the_seed_alone() -> None:
    """The same numbers on every ISA level, number of threads and dtype; the C library may round a normal's last bit its own way."""
    layers = Dense(4, 3, init="xavier_uniform"), Dense(3, 2, init="he_normal")
    for n in (1, 2, 3):
        with ts.num_threads(n):
            uniform, normal = weights(*layers, seed=42, dtype="float64")
        np.testing.assert_array_equal(uniform[0], UNIFORM)
        np.testing.assert_allclose(normal.ravel(), NORMAL, rtol=1e-14)
    narrow = weights(*layers, seed=42, dtype="float32")
    np.testing.assert_array_equal(narrow[0], uniform.astype("float32"))
    np.testing.assert_allclose(narrow[1], normal, rtol=1e-7)


def test_seeds_give_different_weights() -> None:
    seeds = [0, 1, 2, -1, 2**32, 2**40, 2**63]
    drawn = [weights(Dense(8, 8), seed=seed, dtype="float64")[0] for seed in seeds]
    for a, b in itertools.combinations(drawn, 2):
        assert not (a == b).any()
    np.testing.assert_array_equal(weights(Dense(8, 8), seed=2**64 + 1, dtype="float64")[0], drawn[1])
    np.testing.assert_array_equal(weights(Dense(8, 8), seed=np.int64(1), dtype="float64")[0], drawn[1])


def test_layers_get_different_weights() -> None:
    drawn = weights(*[Dense(40, 40, activation=a) for a in ("relu", "relu", "tanh", "tanh", None)], dtype="float64")
    for a, b in itertools.combinations(drawn, 2):
        assert not (a == b).any()
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.12  # 40 * 40 independent pairs: 0.025 is one standard deviation


@pytest.mark.parametrize(
    ("init", "activation"),
    [
        (None, "relu"),
        (None, "tanh"),
        (None, None),
        ("he_normal", "relu"),
        ("he_uniform", "relu"),
        ("kaiming_normal", "relu"),
        ("xavier_normal", "tanh"),
        ("xavier_uniform", "tanh"),
        ("glorot_normal", None),
        ("lecun_normal", None),
        ("lecun_uniform", "tanh"),
    ],
)
def test_thirty_layers_keep_the_variance(init: str | None, activation: str | None, rng: np.random.Generator) -> None:
    """A variance 10% off in each layer would change the last one's 17 times. The width leaves a factor of about 2 to chance."""
    scale = 1e-3 if activation == "tanh" else 1.0  # where tanh is linear
    model = Sequential(*[Dense(256, 256, activation=activation, init=init) for _ in range(30)], seed=1)
    x = scale * rng.standard_normal((64, 256)).astype("float32")
    y = model(x)
    # relu halves what it is given: E[relu(z)^2] = Var(z) / 2.
    ratio = np.mean(np.square(y, dtype=float)) / np.mean(np.square(x, dtype=float))
    assert 1 / 5 < ratio < 5


def test_biases_start_at_zero_unless_told() -> None:
    model = Sequential(Dense(4, 3, activation="relu"), Dense(3, 2))
    assert all((v == 0).all() for name, v in model.parameters().items() if name.endswith("bias"))
    model = Sequential(Dense(4, 3, bias_init=lambda shape, *, rng, dtype: np.arange(3.0)))
    np.testing.assert_array_equal(model.parameters()["0.bias"], [0, 1, 2])


def test_an_initialiser_of_ones_own() -> None:
    calls = []

    def mine(shape: tuple[int, ...], *, rng: int, dtype: str) -> np.ndarray:
        calls.append((shape, rng, np.dtype(dtype)))
        return np.random.default_rng(rng).standard_normal(shape)

    model = Sequential(Dense(4, 3, init=mine), Dense(3, 2, init=mine, bias_init=mine), seed=5)
    assert [shape for shape, _, _ in calls] == [(4, 3), (3, 2), (2,)]
    assert len({rng for _, rng, _ in calls}) == 3
    assert {d for _, _, d in calls} == {np.dtype("float32")}
    wanted = np.random.default_rng(calls[1][1]).standard_normal((3, 2))
    np.testing.assert_array_equal(model.parameters()["1.weight"], wanted.astype("float32"))
    again = Sequential(Dense(4, 3, init=mine), Dense(3, 2, init=mine, bias_init=mine), seed=5)
    for name, v in again.parameters().items():
        np.testing.assert_array_equal(v, model.parameters()[name])


@pytest.mark.parametrize("shape", [(3, 4), (4,), (3,), (), (4, 3, 1)])
def test_an_initialiser_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"initialiser of 0\.weight gave shape .*expected .* of shape \(4, 3\)"):
        Sequential(Dense(4, 3, init=lambda *_, **__: np.zeros(shape)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1j])
def test_an_initialiser_of_wrong_values_is_refused(value: complex) -> None:
    with pytest.raises(ValueError, match=r"initialiser of 0\.weight .*expected finite real numbers"):
        Sequential(Dense(4, 3, init=lambda shape, **_: np.full(shape, value)))


def test_copies_and_pickles(rng: np.random.Generator) -> None:
    model = network((7, 9, 3))
    model.parameters()["0.bias"][...] = rng.standard_normal(9)
    x = rng.standard_normal((5, 7))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (copied.layers, copied.seed, copied.dtype) == (model.layers, model.seed, model.dtype)
        np.testing.assert_array_equal(copied(x), model(x))
        copied.parameters()["0.bias"][...] = 0  # memory of its own
        assert (copied(x) != model(x)).any()


# --- standardize and buffers ---------------------------------------------------------------------------------------------------


def standardized(*widths: int, dtype: object = "float64", seed: int = 3) -> Sequential:
    """A network that begins with Standardize."""
    layers = [Dense(i, o, activation="tanh") for i, o in itertools.pairwise(widths)]
    return Sequential(Standardize(widths[0]), *layers, dtype=dtype, seed=seed)


def test_standardize_is_the_identity_until_it_is_set(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = standardized(5, 4, dtype=dtype)
    plain = Sequential(*model.layers[1:], dtype=dtype)
    for (_, to), values in zip(plain.parameters().items(), model.parameters().values(), strict=True):
        to[...] = values
    x = rng.standard_normal((9, 5)).astype(dtype)
    assert model(x).tobytes() == plain(x).tobytes()
    ts.Trainer(model, loss="mse").step(x, np.ones((9, 4)))
    assert {name: v.tolist() for name, v in model.buffers().items()} == {"0.mean": [0] * 5, "0.scale": [1] * 5}


@pytest.mark.parametrize("batch", [1, 17, 600])
def test_standardize_against_the_reference(batch: int, dtype: np.dtype, threads: int, rng: np.random.Generator) -> None:
    for widths in ((3, 2), (17, 33, 4)):
        model = standardized(*widths, dtype=dtype)
        x = (rng.standard_normal((batch, widths[0])) * 5 + 40).astype(dtype)
        dy = rng.standard_normal((batch, widths[-1])).astype(dtype)
        mean, scale = model.buffers().values()
        mean[...], scale[...] = rng.normal(40, 1, widths[0]), rng.uniform(0.1, 0.3, widths[0])
        inner = Sequential(*model.layers[1:], dtype=dtype)
        for to, values in zip(inner.parameters().values(), model.parameters().values(), strict=True):
            to[...] = values
        ys = reference_forward(inner, reference.standardize(*(a.astype(np.float64) for a in (x, mean, scale))))
        dx, gradients = reference_backward(inner, ys, dy)
        assert_near(model(x), ys[-1], dtype, "model(x)")
        assert_near(model.forward(x, training=True), ys[-1], dtype, "forward")
        assert model.backward(dy, need_dx=False) is None  # at first, so that nothing can be left over from a whole pass
        for name, got in model.gradients().items():
            layer, _, own_name = name.partition(".")
            assert_near(got, gradients[f"{int(layer) - 1}.{own_name}"], dtype, name)
        without_dx = [g.copy() for g in model.gradients().values()]
        assert_near(model.backward(dy), dx * scale.astype(np.float64), dtype, "dx")
        for got, want in zip(model.gradients().values(), without_dx, strict=True):
            assert got.tobytes() == want.tobytes()


def test_finite_differences_through_standardize(rng: np.random.Generator) -> None:
    model = standardized(4, 6, 3)
    x, c = rng.standard_normal((5, 4)) * [1, 10, 100, 0.1] + [0, 5, -50, 3], rng.standard_normal((5, 3))
    model.standardize(x)
    model.forward(x, training=True)
    arrays = {"x": (x, model.backward(c))} | {k: (v, model.gradients()[k].copy()) for k, v in model.parameters().items()}
    for name, (array, gradient) in arrays.items():
        spread = np.broadcast_to(array.std(axis=0) if name == "x" else 1.0, array.shape)
        for at in np.ndindex(array.shape):
            kept, h = array[at], 1e-6 * spread[at]
            array[at] = kept + h
            above = (model(x) * c).sum()
            array[at] = kept - h
            below = (model(x) * c).sum()
            array[at] = kept
            assert gradient[at] == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=2e-8 / spread[at]), (name, at)


@pytest.mark.parametrize("below", _core.activations)
def test_standardize_multiplies_by_the_derivative_below(below: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    """The compiled layer may stand anywhere, as every layer: it leaves the dz of the one below it."""
    specs = [Dense(4, 19, activation=below).spec(), Standardize(19).spec()]
    program = getattr(_core, f"Program{dtype.name.capitalize()}")(specs, 0)
    weight, bias = (view for _, view in program.parameters())
    mean, scale = (view for _, view in program.buffers())
    for view in (weight, bias, mean, scale):
        view[...] = rng.standard_normal(view.shape)
    x, dy = rng.standard_normal((7, 4)).astype(dtype), rng.standard_normal((7, 19)).astype(dtype)
    program.forward(x)
    dx = program.backward(dy)
    wide = [a.astype(np.float64) for a in (dy * scale, x, weight)]
    y = reference.dense(*wide[1:], bias.astype(np.float64), None if below in OF_INPUT else below)
    expected = reference.dense_backward(*wide, y, below)
    for got, want in zip((dx, *(g for _, g in program.gradients())), expected, strict=True):
        assert_near(got, want, dtype, below)


def test_buffers_are_no_parameters(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = standardized(7, 5, 2, dtype=dtype)
    names = ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(model.parameters()) == list(model.gradients()) == names
    assert model.num_parameters == 7 * 5 + 5 + 5 * 2 + 2
    assert model.summary().splitlines()[0].startswith("0  Standardize(7)")
    buffers = model.buffers()
    assert {name: (v.shape, v.dtype) for name, v in buffers.items()} == {"0.mean": ((7,), dtype), "0.scale": ((7,), dtype)}
    assert Sequential(Dense(2, 2)).buffers() == {}
    trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.SGD(lr=0.1, weight_decay=0.5))
    assert len(trainer.optimizer.param_groups[0]["params"]) == 4
    buffers["0.mean"][...] = 3
    buffers["0.scale"][...] = 2
    for _ in range(3):
        trainer.step(rng.standard_normal((4, 7)), rng.standard_normal((4, 2)))
    assert all((v == value).all() for v, value in zip(model.buffers().values(), (3, 2), strict=True))
    x = rng.standard_normal((4, 7)).astype(dtype)
    seen = model(x)
    buffers["0.mean"][0] = 4  # a view: the next call sees it
    assert (model(x) != seen).any()
    del model, trainer
    gc.collect()
    assert buffers["0.mean"].tolist() == [4] + [3] * 6


def test_statistics_are_those_of_the_data(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5000, 6)) * [1, 1e-3, 1e4, 1, 5, 1] + [0, 100, -1e5, 1e6, 0, 0]
    x[:, 4], x[:, 5] = 0.1, np.arange(5000) == 7
    model = standardized(6, 2, dtype=dtype)
    model.standardize(x)
    held = x.astype(dtype).astype(np.float64)
    mean, std = np.array([math.fsum(column) / 5000 for column in held.T]), held.std(axis=0)
    mean[4], std[4] = dtype.type(0.1), 1  # constant: what NumPy's rounding makes of its spread is none
    np.testing.assert_allclose(model.buffers()["0.mean"], mean, rtol=2 * np.finfo(dtype).eps, atol=1e-12)
    np.testing.assert_allclose(model.buffers()["0.scale"], 1 / std, rtol=1e-9 if dtype == np.float64 else 1e-6)
    y = reference.standardize(x.astype(dtype), *model.buffers().values()).astype(np.float64)
    assert (y[:, 4] == 0).all()
    # What is left of the mean is its own rounding to the dtype.
    np.testing.assert_array_less(np.abs(y.mean(axis=0)), (np.abs(mean) / std + 4) * np.finfo(dtype).eps)
    # Of any dtype, layout and kind, and read a block at a time, they are the same.
    once = [v.copy() for v in model.buffers().values()]
    for other in (np.asfortranarray(x), x.reshape(5000, 2, 3), Dlpack(x), buffer(x), x.tolist()):
        model.standardize(other)
        for got, want in zip(model.buffers().values(), once, strict=True):
            assert got.tobytes() == want.tobytes()
    counts = rng.integers(0, 200, (300, 6))
    for kind in ("uint8", "int16", "int64", "float16", "float32", ">f8"):
        model.standardize(counts.astype(kind))
        np.testing.assert_allclose(model.buffers()["0.mean"], counts.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(model.buffers()["0.scale"], 1 / counts.std(axis=0), rtol=1e-6)
    model.standardize(x[:1])  # one row: every column is constant
    np.testing.assert_array_equal(model.buffers()["0.scale"], 1)


def test_a_mean_of_many_spreads_is_taken_off_exactly(rng: np.random.Generator) -> None:
    """Folded into the weights, float32 would leave nothing of these columns."""
    x = (rng.integers(0, 64, (1000, 3)) + 2.0**23).astype("float32")
    model = standardized(3, 2, dtype="float32")
    model.standardize(x)
    y = ops.standardize(x, *model.buffers().values())
    exact = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64)
    assert np.abs(y - exact).max() < 0.05  # the mean is rounded to a whole number here, a spread is 18
    assert len(np.unique(y[:, 0])) == 64


def test_fit_sets_the_statistics_once(dtype: np.dtype, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((200, 3)) * [1, 1e3, 1e-3] + [0, 1e4, 5]).astype(dtype)
    y = (x[:, :1] - x[:, :1].mean()).astype(dtype)
    model = standardized(3, 16, 1, dtype=dtype)
    trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.Adam(lr=0.01))
    history = trainer.fit(x, y, epochs=3)
    by_hand = standardized(3, 16, 1, dtype=dtype)
    by_hand.standardize(x)
    assert (
        ts.Trainer(by_hand, loss="mse", optimizer=ts.optim.Adam(lr=0.01)).fit(x, y, epochs=3).history["loss"]
        == history.history["loss"]
    )
    kept = [v.copy() for v in model.buffers().values()]
    for got, want in zip(by_hand.buffers().values(), kept, strict=True):
        assert got.tobytes() == want.tobytes()
    trainer.fit(x * 2 + 1, y, epochs=1)  # more data, or other: the network goes on with what it has learnt
    for got, want in zip(model.buffers().values(), kept, strict=True):
        assert got.tobytes() == want.tobytes()
    mine = standardized(3, 16, 1, dtype=dtype)
    mine.buffers()["0.scale"][0] = 0.5  # set by hand is set
    ts.Trainer(mine, loss="mse").fit(x, y)
    assert mine.buffers()["0.scale"].tolist() == [0.5, 1, 1]


def test_a_refused_fit_sets_no_statistics(rng: np.random.Generator) -> None:
    model = standardized(3, 1)
    x = rng.standard_normal((20, 3)) + 5
    with pytest.raises(ValueError, match=r"validation_data\[0\]"):
        ts.Trainer(model, loss="mse").fit(x, x[:, :1], validation_data=(x[:, :2], x[:, :1]))
    assert not model.buffers()["0.mean"].any()


def test_standardize_costs_no_gradient_of_the_input(rng: np.random.Generator) -> None:
    """A step gives the same parameters as one on data that was standardized before."""
    x = rng.standard_normal((64, 9)) * 3 + 7
    y = rng.integers(0, 2, 64)
    model = standardized(9, 8, 2)
    model.standardize(x)
    plain = Sequential(*model.layers[1:], dtype="float64")
    for to, values in zip(plain.parameters().values(), model.parameters().values(), strict=True):
        to[...] = values
    z = ops.standardize(x, *model.buffers().values())
    a, b = ts.Trainer(model, seed=0), ts.Trainer(plain, seed=0)
    for _ in range(3):
        assert a.step(x, y) == b.step(z, y)
    for got, want in zip(model.parameters().values(), plain.parameters().values(), strict=True):
        assert got.tobytes() == want.tobytes()


def test_statistics_and_metadata_are_saved_and_copied(tmp_path: Path, dtype: np.dtype, rng: np.random.Generator) -> None:
    model = standardized(4, 3, dtype=dtype)
    model.standardize(rng.standard_normal((50, 4)) * 7 + 3)
    model.metadata["columns"] = ["a", "b", "c", "ü"]
    model.metadata["of"] = {"n": 3, "x": 0.5, "none": None}
    model.save(tmp_path / "m")
    assert safetensors.numpy.load_file(tmp_path / "m").keys() == {"0.mean", "0.scale", "1.weight", "1.bias"}
    x = rng.standard_normal((6, 4))
    for copied in (ts.nn.load(tmp_path / "m"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.layers == model.layers
        assert copied.metadata == model.metadata
        assert copied(x).tobytes() == model(x).tobytes()
        for name, v in copied.buffers().items():
            assert v.tobytes() == model.buffers()[name].tobytes()
        copied.metadata["columns"].append("e")
        assert len(model.metadata["columns"]) == 4
    again = eval(repr(model), vars(ts.nn))  # noqa: S307
    assert again.layers == model.layers


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """The library alone writes metadata in another order each time."""
    files = [tmp_path / str(i) for i in range(5)]
    for file in files:
        model = standardized(5, 3, dtype="float32", seed=7)
        model.metadata["Ünits"] = '\x00\x1f\x7f"\\/\n\t\u2028\U0001f600'
        model.save(file)
    assert len({file.read_bytes() for file in files}) == 1
    loaded = ts.nn.load(files[0])
    assert loaded.metadata == model.metadata
    with safetensors.safe_open(files[0], framework="numpy") as file:
        assert file.metadata()["format"] == "trainstep-model-1"
    header = int.from_bytes(files[0].read_bytes()[:8], "little")
    assert header % 8 == 0


def test_a_layer_of_one_parameter_free_kind_is_a_network(rng: np.random.Generator) -> None:
    model = Sequential(Standardize(3), dtype="float64")
    x = rng.standard_normal((5, 3))
    model.standardize(x)
    assert np.abs(model(x).std(axis=0) - 1).max() < 1e-12
    model.forward(x, training=True)
    np.testing.assert_array_equal(model.backward(x), x * model.buffers()["0.scale"])
    assert model.num_parameters == 0


# --- layers and descriptions ---------------------------------------------------------------------------------------------------


def test_no_bias(dtype: np.dtype, rng: np.random.Generator) -> None:
    model = network((5, 17, 2), "tanh", dtype=dtype, bias=False)
    assert list(model.parameters()) == list(model.gradients()) == ["0.weight", "1.weight"]
    assert model.num_parameters == 5 * 17 + 17 * 2
    x, dy = rng.standard_normal((9, 5)).astype(dtype), rng.standard_normal((9, 2)).astype(dtype)
    ys = reference_forward(model, x)
    dx, gradients = reference_backward(model, ys, dy)
    assert_near(model.forward(x, training=True), ys[-1], dtype, "y")
    assert_near(model.backward(dy), dx, dtype, "dx")
    for name, g in model.gradients().items():
        assert_near(g, gradients[name], dtype, name)


def test_repr_and_summary() -> None:
    model = Sequential(
        Dense(64, 32, activation="relu"), Dense(32, 16, activation="tanh", init="lecun_normal", bias=False), Dense(16, 10), seed=7
    )
    again = eval(repr(model), vars(ts.nn))  # noqa: S307
    assert again.layers == model.layers
    assert (again.seed, again.dtype) == (7, np.float32)
    for name, v in again.parameters().items():
        np.testing.assert_array_equal(v, model.parameters()[name])
    lines = model.summary().splitlines()
    assert len(lines) == 4
    assert [line.split()[-2].replace(",", "") for line in lines] == ["2080", "512", "170", "2762"]
    assert lines[1].startswith("1  Dense(32, 16, activation='tanh'")
    assert lines[-1].startswith("total")
    assert model.num_parameters == 2762
    assert model.dtype == np.float32
    assert model.seed == 7


def test_layers_are_frozen_values() -> None:
    layer = Dense(4, 3, activation="relu")
    with pytest.raises(AttributeError):
        layer.in_features = 5
    assert layer == Dense(4, 3, activation="relu") != Dense(4, 3)
    assert hash(layer) == hash(Dense(4, 3, activation="relu"))
    twice = Sequential(Dense(4, 4), Dense(4, 4))
    assert not np.shares_memory(twice.parameters()["0.weight"], twice.parameters()["1.weight"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features is 0"),
        ({"out_features": -3}, ValueError, "out_features is -3"),
        ({"in_features": 2.0}, TypeError, "in_features is a float"),
        ({"out_features": True}, TypeError, "out_features is a bool"),
        ({"out_features": "3"}, TypeError, "out_features is a str"),
        ({"activation": "rleu"}, ValueError, "activation is 'rleu', expected one of identity, relu"),
        ({"init": "he"}, ValueError, "init is 'he', expected one of"),
        ({"bias_init": "he"}, ValueError, "bias_init is 'he', expected 'zeros'"),
    ],
    ids=str,
)
def test_a_wrong_layer_is_refused(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Dense: {message}"):
        Dense(**{"in_features": 4, "out_features": 3} | arguments)


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        Sequential()
    with pytest.raises(ValueError, match="layer 1 takes 9 features, layer 0 gives 8"):
        Sequential(Dense(4, 8), Dense(9, 3))
    with pytest.raises(TypeError, match="layer 1 is a str"):
        Sequential(Dense(4, 8), "relu")
    with pytest.raises(TypeError, match="layer 0 is a list"):
        Sequential([Dense(4, 8)])
    for seed in ("0", 1.5, True, None):
        with pytest.raises(TypeError, match="seed is a"):
            Sequential(Dense(4, 8), seed=seed)
    for dtype in ("float16", "int32", "complex64"):
        with pytest.raises(TypeError, match=f"dtype is {dtype}, expected float32 or float64"):
            Sequential(Dense(4, 8), dtype=dtype)


# --- files ---------------------------------------------------------------------------------------------------------------------


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{tmp_path}'"):
        ts.nn.load(tmp_path)


@pytest.mark.parametrize("as_path", [str, Path])
def test_save_and_load(tmp_path: Path, dtype: np.dtype, as_path: type, rng: np.random.Generator) -> None:
    layers = Dense(17, 9, activation="relu"), Dense(9, 8, activation="sigmoid", bias=False), Dense(8, 3, activation="tanh")
    model = Sequential(*layers, seed=2**50 + 1, dtype=dtype)
    for v in model.parameters().values():
        v[...] = rng.standard_normal(v.shape)
    path = as_path(tmp_path / "model.safetensors")
    model.save(path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    loaded = ts.nn.load(path)
    assert loaded.layers == layers
    assert (loaded.seed, loaded.dtype) == (2**50 + 1, dtype)
    assert loaded.parameters().keys() == model.parameters().keys()
    for name, v in loaded.parameters().items():
        assert v.dtype == dtype
        assert v.tobytes() == model.parameters()[name].tobytes()
    x = rng.standard_normal((11, 17))
    np.testing.assert_array_equal(loaded(x), model(x))
    ts.Trainer(loaded, loss="mse").step(x, np.zeros((11, 3)))  # a loaded model trains like any other


def test_a_saved_model_is_a_safetensors_file(tmp_path: Path) -> None:
    model = network((4, 16, 3), dtype="float32")
    model.save(tmp_path / "m")
    arrays = safetensors.numpy.load_file(tmp_path / "m")
    assert arrays.keys() == model.parameters().keys()
    for name, a in arrays.items():
        np.testing.assert_array_equal(a, model.parameters()[name])


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    network((4, 16, 3)).save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for size in (0, 1, 7, 8, 9, 60, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="load: .*part is no whole trainstep model"):
            ts.nn.load(tmp_path / "part")
    (tmp_path / "part").write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="no whole trainstep model"):
        ts.nn.load(tmp_path / "part")


@pytest.mark.parametrize(
    "content",
    [b"", b"no model at all", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 64, bytes(64), b"{}"],
    ids=lambda b: str(b[:8]),
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="load: .*file is no whole trainstep model"):
        ts.nn.load(tmp_path / "file")


DENSE_SPEC = {"kind": "dense", "in_features": 4, "out_features": 3, "activation": None, "bias": True}
GOOD = {"0.weight": np.zeros((4, 3), "float32"), "0.bias": np.zeros(3, "float32")}


def as_metadata(**changed: object) -> dict[str, str]:
    return {"format": "trainstep-model-1", "layers": json.dumps([DENSE_SPEC]), "seed": "0", "dtype": "float32"} | changed


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        (GOOD, None),
        (GOOD, {}),
        (GOOD, as_metadata(format="another-model")),
        (GOOD, as_metadata(layers="[")),
        (GOOD, as_metadata(layers="null")),
        (GOOD, as_metadata(layers="{}")),
        (GOOD, as_metadata(layers="[]")),
        (GOOD, as_metadata(layers="[1]")),
        (GOOD, as_metadata(layers='["dense"]')),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"kind": "convolution"}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"activation": "swish"}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"activation": 3}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"in_features": "four"}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"in_features": 10**30}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"in_features": 10**12}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"in_features": 5}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC | {"groups": 5}]))),
        (GOOD, as_metadata(layers=json.dumps([DENSE_SPEC, DENSE_SPEC]))),
        (GOOD, as_metadata(layers=json.dumps([{"kind": "standardize", "features": 4}, DENSE_SPEC]))),
        (GOOD, as_metadata(layers=json.dumps([{"kind": ["dense"]}]))),
        (GOOD, as_metadata(metadata="{")),
        (GOOD, as_metadata(metadata="[1]")),
        (GOOD, as_metadata(seed="zero")),
        (GOOD, as_metadata(dtype="float16")),
        (GOOD, as_metadata(dtype="float64")),
        (GOOD, as_metadata(dtype="no dtype")),
        ({"0.weight": GOOD["0.weight"]}, as_metadata()),
        (GOOD | {"1.weight": GOOD["0.weight"]}, as_metadata()),
        (GOOD | {"0.weight": np.zeros((3, 4), "float32")}, as_metadata()),
        (GOOD | {"0.weight": np.zeros((4, 3), "float64")}, as_metadata()),
        (GOOD | {"0.weight": np.zeros((4, 3), "int32")}, as_metadata()),
    ],
)
def test_corrupt_models_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None) -> None:
    (tmp_path / "file").write_bytes(safetensors.numpy.save(arrays, metadata))
    with pytest.raises(ValueError, match="load: .*file is no whole trainstep model"):
        ts.nn.load(tmp_path / "file")


def test_the_good_file_of_the_corrupt_ones_loads(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(safetensors.numpy.save(GOOD, as_metadata()))
    assert ts.nn.load(tmp_path / "file").layers == (Dense(4, 3),)


def test_what_cannot_be_read_or_written_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        ts.nn.load(tmp_path / "absent")
    with pytest.raises(OSError):
        ts.nn.load(tmp_path)
    with pytest.raises(OSError):
        network((4, 3)).save(tmp_path / "absent" / "model")


@pytest.mark.parametrize("broken", ["replace", "fsync", "write"])
def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "model"
    network((4, 16, 3)).save(path)
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "write":
        monkeypatch.setattr(safetensors.numpy, "save", fail)
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        network((4, 8, 3)).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model"]
