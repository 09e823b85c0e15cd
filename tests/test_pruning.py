"""Pruning: which weights and units go, that they stay away through training, copies and files, and what is left of the network."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import trainstep as ts
from trainstep.nn import Activation, BatchNorm, Dense, Dropout, LayerNorm, Pruning, Residual, Sequential, Standardize

from .helpers import assert_same_bits, assert_within, bits, classes, network

pytestmark = pytest.mark.one_level

X, Y = classes(96, 6, 3)
WEIGHTS = ("0.weight", "1.weight", "2.weight")


def net(dtype: object = "float32", seed: int = 0) -> Sequential:
    """A network whose biases are not 0."""
    model = network((6, 9, 7, 3), "relu", dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    for name, view in model.parameters().items():
        if name.endswith("bias"):
            view[...] = rng.uniform(0.1, 0.5, view.shape)
    return model


def zeros(model: Sequential) -> int:
    return sum(int((w == 0).sum()) for name, w in model.parameters().items() if name.endswith("weight"))


def values(model: Sequential) -> dict[str, np.ndarray]:
    return {name: view.copy() for name, view in model._arrays().items()}


# --- weights ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0, 0.0, 0.001, 0.3, 0.5, np.float64(0.9), 0.99])
def test_the_smallest_of_all_weights_together_go(amount: float, dtype: np.dtype) -> None:
    model = net(dtype)
    before = values(model)
    assert model.prune(amount) is model
    size = np.sort(np.concatenate([np.abs(before[name]).ravel() for name in WEIGHTS]))
    count = round(float(amount) * size.size)
    limit = -1.0 if count == 0 else size[count - 1]
    for name, view in model.parameters().items():
        kept = np.abs(before[name]) > limit if name in WEIGHTS else True
        assert_same_bits(np.abs(view), np.abs(np.where(kept, before[name], 0).astype(dtype)), name)
    assert zeros(model) == count
    assert model.pruning == Pruning(float(amount), False, model.num_parameters, model.num_parameters - count, {}, None)


def test_of_equal_weights_the_first_go() -> None:
    model = Sequential(Dense(2, 3), Dense(3, 2))
    for view in model.parameters().values():
        view[...] = 0.5
    model.parameters()["1.weight"][2, 1] = -0.25
    model.prune(5 / 12)
    assert model.parameters()["0.weight"].tolist() == [[0, 0, 0], [0, 0.5, 0.5]]
    assert model.parameters()["1.weight"].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 0]]


def test_what_is_pruned_already_counts() -> None:
    once, twice = net(), net()
    once.prune(0.5)
    twice.prune(0.3).prune(0.5)
    assert bits(once) == bits(twice)
    assert once.pruning == twice.pruning
    twice.prune(0.1)  # no more than there is already
    assert bits(once) == bits(twice)
    assert zeros(twice) == round(0.5 * 138)


def test_what_is_held_at_0_goes_before_what_happens_to_be_0() -> None:
    model = net()
    model.prune(0.4)
    held = model._masks()
    for name in WEIGHTS:
        kept = held[name]
        view = model.parameters()[name]
        view[kept] = 0  # everywhere: nothing tells them apart but the masks
    model.prune(0.4)
    assert all((model._masks()[name] == held[name]).all() for name in WEIGHTS)


def test_weights_in_between_training_are_judged_by_what_they_are_then() -> None:
    model = net()
    model.prune(0.3)
    ts.Trainer(model).fit(X, Y, epochs=3)
    before = values(model)
    model.prune(0.6)
    size = np.sort(np.concatenate([np.abs(before[name]).ravel() for name in WEIGHTS]))
    limit = size[round(0.6 * size.size) - 1]
    assert all(((model.parameters()[name] == 0) == (np.abs(before[name]) <= limit)).all() for name in WEIGHTS)


def test_frozen_weights_are_pruned_too() -> None:
    model, free = net(), net()
    model.freeze("0")
    assert bits(model.prune(0.5)) == bits(free.prune(0.5))
    assert model.frozen == ("0.weight", "0.bias")


def test_nan_is_no_small_weight() -> None:
    model = net()
    model.parameters()["1.weight"][2, 3] = np.nan
    model.prune(0.9)
    assert np.isnan(model.parameters()["1.weight"][2, 3])
    assert zeros(model) == round(0.9 * 138)


OPTIMIZERS: dict[str, Callable[[], ts.optim.Optimizer]] = {
    "momentum": lambda: ts.optim.SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: ts.optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda: ts.optim.Adam(lr=0.01),
    "adamw in 8 bits": lambda: ts.optim.AdamW(lr=0.01, state_dtype="8bit"),
    "rprop": lambda: ts.optim.Rprop(lr=0.01),
    "lamb": lambda: ts.optim.LAMB(lr=0.01),
}


@pytest.mark.every_level
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_pruned_stays_0_in_training(optimizer: str, when: str, threads: int) -> None:
    """Also where the optimizer has moved it before, and still has a momentum that would."""
    model = net()
    if when == "before":
        model.prune(0.6)
    trainer = ts.Trainer(model, optimizer=OPTIMIZERS[optimizer]())
    if when == "after":
        trainer.fit(X, Y, epochs=2)
        model.prune(0.6)
    held = {name: view == 0 for name, view in model.parameters().items()}
    before = values(model)
    trainer.fit(X, Y, epochs=3, batch_size=20)
    trainer.step(X[:7], Y[:7])
    for name in WEIGHTS:
        assert not model.parameters()[name][held[name]].any()
        assert (model.parameters()[name] != before[name])[~held[name]].mean() > 0.5
    assert zeros(model) == round(0.6 * 138)


@pytest.mark.every_level
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_training_is_that_of_the_formulas_with_the_gradients_masked(optimizer: str) -> None:
    model, other = net("float64"), net("float64")
    model.prune(0.5)
    other.prune(0.5)
    masks = {name: model._masks().get(name, True) for name in model.parameters()}
    trainer = ts.Trainer(model, optimizer=OPTIMIZERS[optimizer]())
    views, by_hand = list(other.parameters().values()), OPTIMIZERS[optimizer]()
    by_hand._take(views)
    for _ in range(20):
        _, dy = ts.ops.softmax_cross_entropy(other.forward(X, training=True), Y)
        other.backward(dy)
        by_hand.step([gradient * masks[name] for name, gradient in other.gradients().items()])
        for name, view in other.parameters().items():
            view *= masks[name]
        trainer.step(X, Y)
    for name, view in model.parameters().items():
        assert_within(view, other.parameters()[name], 1e-10, name)


def test_the_same_bits_for_any_number_of_threads() -> None:
    trained = []
    for n in (1, 2, 3):
        with ts.num_threads(n):
            model = net().prune(0.7)
            ts.Trainer(model).fit(X, Y, epochs=2, batch_size=16)
            trained.append(bits(model))
    assert trained[0] == trained[1] == trained[2]


# --- units -----------------------------------------------------------------------------------------------------------------------


def by_hand(model: Sequential, keep: dict[int, list[int]]) -> list[np.ndarray]:
    """Weights and biases of a network of Dense layers without the units that are not kept."""
    p = values(model)
    result = []
    rows: Any = slice(None)
    for i in range(3):
        columns = keep.get(i, slice(None))
        result += [p[f"{i}.weight"][rows][:, columns], p[f"{i}.bias"][columns]]
        rows = columns
    return result


@pytest.mark.every_level
def test_the_smaller_network_is_that_made_by_hand(dtype: np.dtype) -> None:
    model = net(dtype, seed=3)
    model.metadata["columns"] = ["a"]
    model.freeze("1", "2.bias")
    before = values(model)
    gone = {}
    for i, count in ((0, round(0.4 * 9)), (1, round(0.4 * 7))):
        norms = np.linalg.norm(before[f"{i}.weight"].astype(np.float64), axis=0)
        gone[i] = tuple(sorted(np.argsort(norms)[:count].tolist()))
    smaller = model.prune(0.4, structured=True, x=X)
    keep = {i: [j for j in range((9, 7)[i]) if j not in gone[i]] for i in gone}
    wanted = by_hand(model, keep)
    assert smaller is not model
    assert smaller.layers == (Dense(6, 5, activation="relu"), Dense(5, 4, activation="relu"), Dense(4, 3))
    for (name, view), value in zip(smaller.parameters().items(), wanted, strict=True):
        assert_same_bits(view, np.ascontiguousarray(value), name)
    h = X.astype(np.float64)
    for k in range(3):
        z = h @ wanted[2 * k] + wanted[2 * k + 1]
        h = np.maximum(z, 0) if k < 2 else z
    assert_within(smaller(X), h, 1e-4 if dtype == np.float32 else 1e-12)
    assert (smaller.seed, smaller.dtype, smaller.frozen) == (3, dtype, ("1.weight", "1.bias", "2.bias"))
    assert smaller.metadata == {"columns": ["a"]}
    assert smaller.metadata["columns"] is not model.metadata["columns"]
    y = model(X).astype(np.float64)
    report = smaller.pruning
    assert report is not None
    assert report.removed == {"0": gone[0], "1": gone[1]}
    assert (report.parameters_before, report.parameters_after) == (
        6 * 9 + 9 + 9 * 7 + 7 + 7 * 3 + 3,
        6 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3,
    )
    assert report.output_change == pytest.approx(np.linalg.norm(smaller(X).astype(np.float64) - y) / np.linalg.norm(y), rel=1e-12)
    for name, view in model._arrays().items():  # the larger one is as it was
        assert_same_bits(view, before[name], name)
    assert model.pruning is None


def test_dead_units_go_first_and_leave_the_output_as_it_is() -> None:
    model = network((6, 9, 3), "relu")
    model.parameters()["0.weight"][:, [2, 5]] = 0
    model.parameters()["0.bias"][[2, 5]] = -1
    smaller = model.prune(2 / 9, structured=True, x=X)
    assert smaller.pruning is not None
    assert smaller.pruning.removed == {"0": (2, 5)}
    assert smaller.pruning.output_change < 1e-15  # type: ignore[operator]


def test_of_equal_units_the_first_go_and_one_stays() -> None:
    model = Sequential(Dense(2, 4, activation="tanh"), Dense(4, 1), Dense(1, 3), Dense(3, 2))
    for view in model.parameters().values():
        view[...] = 0.5
    smaller = model.prune(0.5, structured=True)
    assert smaller.pruning is not None
    assert smaller.pruning.removed == {"0": (0, 1), "2": (0, 1)}  # 1.5 of 3 is rounded to the even number
    least = model.prune(0.99, structured=True)
    assert [layer.out_features for layer in least.layers] == [1, 1, 1, 2]


def test_layers_between_are_made_narrower() -> None:
    model = Sequential(
        Standardize(6),
        Dense(6, 8),
        Activation("leaky_relu", negative_slope=0.3),
        Dropout(0.5),
        Dense(8, 4, activation=Activation("elu", 4, alpha=0.5), bias=False),
        Dense(4, 3),
    )
    model.standardize(X)
    smaller = model.prune(0.5, structured=True)
    assert smaller.layers == (
        Standardize(6),
        Dense(6, 4),
        Activation("leaky_relu", 4, negative_slope=0.3),
        Dropout(0.5, 4),
        Dense(4, 2, activation=Activation("elu", alpha=0.5), bias=False),
        Dense(2, 3),
    )
    assert_same_bits(smaller.buffers()["0.mean"], model.buffers()["0.mean"])
    removed = smaller.pruning.removed  # type: ignore[union-attr]
    keep = [j for j in range(8) if j not in removed["1"]]
    assert_same_bits(smaller.parameters()["1.bias"], model.parameters()["1.bias"][keep])
    ts.Trainer(smaller).fit(X, Y)


def with_batch_norm(dtype: object = "float64") -> Sequential:
    model = Sequential(
        BatchNorm(6),
        Dense(6, 8),
        BatchNorm(eps=1e-3),
        Activation("relu"),
        Dropout(0.25),
        BatchNorm(affine=False),
        Dense(8, 5, activation="tanh"),
        Dense(5, 3),
        dtype=dtype,
    )
    ts.Trainer(model, optimizer=ts.optim.Adam(lr=0.01)).fit(X, Y, epochs=3)
    return model


@pytest.mark.every_level
def test_batch_norm_between_loses_its_numbers_of_these_units(dtype: np.dtype) -> None:
    model = with_batch_norm(dtype)
    smaller = model.prune(0.5, structured=True)
    gone = smaller.pruning.removed  # type: ignore[union-attr]
    assert {layer: len(units) for layer, units in gone.items()} == {"1": 4, "6": 2}
    assert smaller.layers[2:6] == (BatchNorm(4, eps=1e-3), Activation("relu", 4), Dropout(0.25, 4), BatchNorm(4, affine=False))
    p = values(model)
    for name in ("2.gamma", "2.beta", "2.running_mean", "2.running_var", "5.running_mean", "5.running_var", "1.bias"):
        assert_same_bits(smaller._arrays()[name], np.delete(p[name], gone["1"]), name)
    for name in ("0.gamma", "0.running_var", "7.bias"):
        assert_same_bits(smaller._arrays()[name], p[name], name)
    # As the larger network where nothing goes on from these units.
    model.parameters()["6.weight"][list(gone["1"])] = 0
    model.parameters()["7.weight"][list(gone["6"])] = 0
    assert_within(smaller(X), model(X), 1e-5 if dtype == np.float32 else 1e-13)
    ts.Trainer(smaller).fit(X, Y)


def with_blocks() -> Sequential:
    return Sequential(
        Dense(6, 8, activation="relu"),
        Residual(Dense(8, 8, activation="relu"), Dense(8, 4), shortcut=Dense(8, 4)),
        Dense(4, 8),
        LayerNorm(),
        Dense(8, 8),
        BatchNorm(),
        Dense(8, 3),
    )


def test_blocks_and_layer_norm_keep_the_units_in_front_of_them() -> None:
    smaller = with_blocks().prune(0.5, structured=True)
    assert list(smaller.pruning.removed) == ["4"]  # type: ignore[union-attr]
    assert smaller.layers[:4] == with_blocks().layers[:4]
    with pytest.raises(ValueError, match="prune: no layer can lose units"):
        Sequential(*with_blocks().layers[:4], Dense(8, 3)).prune(0.5, structured=True)


def test_weights_within_blocks_are_pruned_and_no_others() -> None:
    model = with_blocks()
    before = values(model)
    model.prune(0.5)
    weights = [name for name in before if name.endswith("weight")]
    assert {"1.0.weight", "1.1.weight", "1.shortcut.weight"} < set(weights)
    assert set(model._masks()) == set(weights)
    size = np.sort(np.concatenate([np.abs(before[name]).ravel() for name in weights]))
    for name, view in model.parameters().items():
        wanted = np.abs(before[name]) <= size[size.size // 2 - 1] if name in weights else before[name] == 0
        assert ((view == 0) == wanted).all(), name
    held = {name: view == 0 for name, view in model.parameters().items() if name in weights}
    ts.Trainer(model, clip_norm=1.0, l1=1e-3, l2=1e-3, max_norm=1.0).fit(X, Y, epochs=3)
    assert all(not model.parameters()[name][where].any() for name, where in held.items())


def test_a_trainer_from_before_holds_to_the_masks() -> None:
    model = net()
    trainer, fused = ts.Trainer(model), ts.Trainer(model, fuse_update=True)
    trainer.fit(X, Y)
    fused.fit(X, Y)
    model.prune(0.5)
    trainer.fit(X, Y)
    assert zeros(model) == round(0.5 * 138)
    for train in (lambda: fused.step(X, Y), lambda: fused.fit(X, Y), lambda: ts.Trainer(model, fuse_update=True)):
        with pytest.raises(ValueError, match="fuse_update is True, expected None or False with a model that is pruned"):
            train()


@pytest.mark.parametrize(
    ("layers", "removed"),
    [
        ([Dense(6, 4, activation="softmax"), Dense(4, 4), Dense(4, 3)], ["1"]),
        ([Dense(6, 4), Activation("log_softmax"), Dense(4, 4), Dense(4, 3)], ["2"]),
        ([Dense(6, 4), Dropout(0.5), Activation("softmax"), Dense(4, 4), Dense(4, 3)], ["3"]),
        ([Dense(6, 4, activation="softplus"), Dense(4, 3, activation="softmax")], ["0"]),
        ([Activation("relu", 6), Dense(6, 4), Dense(4, 3), Activation("softmax")], ["1"]),
    ],
)
def test_units_that_reach_others_stay(layers: list[Any], removed: list[str]) -> None:
    report = Sequential(*layers).prune(0.5, structured=True).pruning
    assert report is not None
    assert list(report.removed) == removed


def test_initialisers_for_one_shape_do_not_matter() -> None:
    def identity(shape: tuple[int, int], *, rng: int, dtype: str) -> np.ndarray:
        assert shape == (6, 6)
        return np.diag(np.arange(1.0, 7.0)).astype(dtype)

    model = Sequential(Dense(6, 6, init=identity, bias_init=ts.init.constant(0.5)), Dense(6, 6, init=identity), Dense(6, 3))
    smaller = model.prune(0.5, structured=True)
    assert smaller.layers == (Dense(6, 3), Dense(3, 3), Dense(3, 3))
    assert smaller.parameters()["1.weight"].tolist() == [[4, 0, 0], [0, 5, 0], [0, 0, 6]]
    assert smaller.parameters()["0.bias"].tolist() == [0.5] * 3


def test_masks_are_carried_into_the_smaller_network() -> None:
    model = net().prune(0.5)
    masks = model._masks()
    smaller = model.prune(0.4, structured=True)
    gone = smaller.pruning.removed  # type: ignore[union-attr]
    assert_same_bits(smaller._masks()["0.weight"], np.delete(masks["0.weight"], gone["0"], axis=1))
    wanted = np.delete(np.delete(masks["1.weight"], gone["0"], axis=0), gone["1"], axis=1)
    assert_same_bits(smaller._masks()["1.weight"], wanted)
    assert set(smaller._masks()) == set(WEIGHTS)
    before = zeros(smaller)
    ts.Trainer(smaller).fit(X, Y, epochs=2)
    assert zeros(smaller) == before > 0


# --- the report ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [False, True])
def test_the_change_of_the_output(structured: bool, dtype: np.dtype) -> None:
    model = net(dtype)
    y = model(X).astype(np.float64)
    pruned = model.prune(0.5, structured, x=X.astype("float64"))
    change = math.sqrt(((pruned(X).astype(np.float64) - y) ** 2).mean() / (y**2).mean())
    assert pruned.pruning is not None
    assert pruned.pruning.output_change == pytest.approx(change, rel=1e-12)
    assert 0 < change < 2


def test_no_change_is_0_and_one_from_nothing_is_infinite() -> None:
    model = net()
    assert model.prune(0.0, x=X).pruning.output_change == 0.0  # type: ignore[union-attr]
    for name, view in model.parameters().items():
        view[...] = 0.0 if name.endswith("bias") else 1.0
    assert model.prune(0.0, x=np.zeros((4, 6))).pruning.output_change == 0.0  # type: ignore[union-attr]
    one = Sequential(Dense(1, 1, bias=True))
    one.parameters()["0.weight"][...], one.parameters()["0.bias"][...] = 0.5, -0.5
    assert one.prune(0.9, x=np.ones((2, 1))).pruning.output_change == math.inf  # type: ignore[union-attr]


@pytest.mark.parametrize("structured", [False, True])
def test_same_network_same_pruning(structured: bool) -> None:
    one, other = (net().prune(0.5, structured, x=X) for _ in range(2))
    assert one.pruning == other.pruning
    assert bits(one) == bits(other)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"amount": -0.1}, ValueError, "prune: amount is -0.1, expected a finite number from 0 to 1"),
        ({"amount": 1.5}, ValueError, "prune: amount is 1.5, expected a finite number from 0 to 1"),
        ({"amount": 1.0}, ValueError, "prune: amount is 1, expected less"),
        ({"amount": np.nan}, ValueError, "prune: amount is nan"),
        ({"amount": "0.5"}, TypeError, "prune: amount is a str, expected a number"),
        ({"amount": True}, TypeError, "prune: amount is a bool, expected a number"),
        ({"x": X[:, :5]}, ValueError, "x has"),
        ({"x": X.astype(complex)}, TypeError, "x has dtype complex128"),
    ],
)
def test_wrong_arguments(structured: bool, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = net()
    before = bits(model)
    with pytest.raises(error, match=message):
        model.prune(**{"amount": 0.5, "structured": structured, **arguments})
    assert bits(model) == before
    assert model.pruning is None
    assert not model._masks()


def test_structured_is_a_switch() -> None:
    with pytest.raises(TypeError, match="prune: structured is a str, expected a bool"):
        net().prune(0.5, "yes")  # type: ignore[arg-type]


def test_where_there_is_nothing_to_prune() -> None:
    with pytest.raises(ValueError, match="prune: the network has no Dense layer"):
        Sequential(Activation("relu", 3)).prune(0.5)
    for layers in ([Dense(3, 2)], [Dense(3, 2, activation="softmax"), Dense(2, 2)], [Activation("relu", 3)]):
        with pytest.raises(ValueError, match="prune: no layer can lose units"):
            Sequential(*layers).prune(0.5, structured=True)


# --- copies and files ------------------------------------------------------------------------------------------------------------


def saved(model: Sequential, path: Path) -> Sequential:
    model.save(path / "model")
    return ts.nn.load(path / "model")


COPIES: dict[str, Callable[[Sequential, Path], Sequential]] = {
    "copy": lambda model, _: copy.copy(model),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "file": saved,
}


@pytest.mark.parametrize("way", COPIES)
def test_masks_are_in_copies_and_files(way: str, tmp_path: Path, dtype: np.dtype) -> None:
    model = net(dtype).prune(0.7)
    copied = COPIES[way](model, tmp_path)
    assert bits(copied) == bits(model)
    assert set(copied._masks()) == set(WEIGHTS)
    for name, mask in copied._masks().items():
        assert_same_bits(mask, model._masks()[name], name)
    assert copied.pruning == (None if way == "file" else model.pruning)
    for each in (model, copied):
        ts.Trainer(each).fit(X, Y, epochs=2)
    assert bits(copied) == bits(model)
    assert zeros(copied) == round(0.7 * 138)
    copied._set_masks({})  # which are its own
    assert model._masks()


def test_a_file_holds_masks_only_where_there_are_some(tmp_path: Path) -> None:
    model = net()
    model.save(tmp_path / "m")
    assert set(safetensors.numpy.load_file(tmp_path / "m")) == set(model.parameters())
    model.parameters()["0.weight"][...] = 9.0  # none of these goes
    model.prune(0.4).save(tmp_path / "m")
    arrays = safetensors.numpy.load_file(tmp_path / "m")
    assert set(arrays) == {*model.parameters(), "1.weight.mask", "2.weight.mask"}
    assert arrays["1.weight.mask"].dtype == np.uint8
    assert ((arrays["1.weight.mask"] == 0) == (arrays["1.weight"] == 0)).all()
    arrays["1.weight.mask"][...] = 1
    assert zeros(ts.nn.load(rewritten(tmp_path, {"1.weight.mask": arrays["1.weight.mask"]}))) == zeros(model)


def rewritten(path: Path, changes: dict[str, np.ndarray]) -> Path:
    """The file of a model with some arrays changed."""
    with safetensors.safe_open(path / "m", framework="numpy") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path / "m") | changes
    (path / "m").write_bytes(safetensors.numpy.save(arrays, metadata))
    return path / "m"


ONES = np.ones((9, 7), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"1.weight.mask": ONES[:, :6].copy()}, "its arrays are not those of its layers"),
        ({"1.weight.mask": ONES.reshape(-1)}, "its arrays are not those of its layers"),
        ({"3.weight.mask": ONES}, "its arrays are not those of its layers"),
        ({"1.mask": ONES}, "its arrays are not those of its layers"),
        ({"1.weight.mask.mask": ONES}, "its arrays are not those of its layers"),
        ({"1.weight.mask": ONES.astype(bool)}, "1.weight.mask is bool, expected uint8"),
        ({"1.weight.mask": ONES.astype("float32")}, "1.weight.mask is float32, expected uint8"),
        ({"1.weight.mask": 2 * ONES}, "1.weight.mask has the value 2, expected 0 and 1"),
        ({"1.weight.mask": 0 * ONES}, "1.weight is not 0 where its mask is"),
    ],
)
def test_damaged_masks_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    net().prune(0.5).save(tmp_path / "m")
    with pytest.raises(ValueError, match=f"no whole trainstep model: {message}"):
        ts.nn.load(rewritten(tmp_path, changes))


def test_a_buffer_has_no_mask(tmp_path: Path) -> None:
    Sequential(Standardize(3), Dense(3, 2)).save(tmp_path / "m")
    with pytest.raises(ValueError, match="its arrays are not those of its layers"):
        ts.nn.load(rewritten(tmp_path, {"0.scale.mask": np.ones(3, np.uint8)}))
