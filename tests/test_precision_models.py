"""Networks and trainers whose products are made of bfloat16 pieces: their gradients, their training, and what they keep in files.

The products by themselves are in test_precision.py.
"""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, nn, ops, optim, reference

from .activation_rules import ACTIVATIONS, OF_INPUT, functions
from .helpers import Array, assert_same_bits, assert_within, bits, classes, network, normal, state_bits

pytestmark = pytest.mark.pieces

MODES = ("bf16", "bf16_x3", "bf16_x6")
# What a mode leaves out of a product of two numbers, relative to it: see test_precision.py.
LEFT_OUT = {"bf16": 2.01 * 2.0**-8, "bf16_x3": 3.01 * 2.0**-16, "bf16_x6": 2.01 * 2.0**-24}
X, Y = classes(96, 20, 5)


def net(precision: str | None = None, widths: tuple[int, ...] = (20, 48, 33, 5), activation: str = "tanh") -> nn.Sequential:
    model = network(widths, activation, dtype="float32", seed=1)
    model.precision = precision
    return model


def sgd(model: nn.Sequential, **options: Any) -> ts.Trainer:
    """A trainer without a memory but the weights: what it does next follows from them."""
    return ts.Trainer(model, optimizer=optim.SGD(lr=0.1), **options)


def fit(trainer: ts.Trainer, **options: Any) -> ts.History:
    return trainer.fit(X, Y, batch_size=16, shuffle=False, **options)


@pytest.fixture
def restored() -> Any:
    yield
    ts.set_matmul_precision("float32")


@pytest.fixture(params=[False, True], ids=["as it pays", "shared always"])
def sharing(request: pytest.FixtureRequest) -> Any:
    """Whether each step is shared between the threads, however small it is."""
    _core.share_always(request.param)
    yield request.param
    _core.share_always(False)


# --- gradients ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_the_derivative_on_the_way_to_memory_is_that_of_the_formulas(mode: str, activation: str, rng: np.random.Generator) -> None:
    """A network is its layers one by one, to the bit: dx of a layer leaves it multiplied by the derivative below."""
    x, dy = normal(rng, np.float32, 37, 20), normal(rng, np.float32, 37, 40)
    model = nn.Sequential(nn.Dense(20, 64, activation=activation), nn.Dense(64, 40), precision=mode)
    p = model.parameters()
    y, dx = model.forward(x, training=True), model.backward(dy)
    g = model.gradients()
    forward, backward = functions(activation)
    z = ops.dense(x, p["0.weight"], p["0.bias"], precision=mode)
    h = ops.dense(x, p["0.weight"], p["0.bias"], activation, precision=mode)
    assert_same_bits(h, forward(z))
    assert_same_bits(y, ops.dense(h, p["1.weight"], p["1.bias"], precision=mode))
    dh, dw, db = ops.dense_backward(dy, h, p["1.weight"], precision=mode)
    assert_same_bits(g["1.weight"], dw)
    assert_same_bits(g["1.bias"], db)
    dz = backward(dh, z if activation in OF_INPUT else h)
    for got, wanted in zip((dx, g["0.weight"], g["0.bias"]), ops.dense_backward(dz, x, p["0.weight"], precision=mode), strict=True):
        assert_same_bits(got, wanted, activation)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_the_derivative(mode: str) -> None:
    """Against differences of the loss of the same network in float64."""
    rng = np.random.default_rng(2)
    x, dy = normal(rng, np.float32, 6, 5), normal(rng, np.float32, 6, 3)
    model = net(mode, (5, 7, 4, 3))
    model.forward(x, training=True)
    model.backward(dy)
    gradients = {name: g.astype(np.float64) for name, g in model.gradients().items()}
    weights = {name: w.astype(np.float64) for name, w in model.parameters().items()}

    def loss() -> float:
        h = x.astype(np.float64)
        for i in range(3):
            h = reference.dense(h, weights[f"{i}.weight"], weights[f"{i}.bias"], "tanh" if i < 2 else None)
        return float((dy * h).sum())

    for name, w in weights.items():
        exact = np.empty_like(w)
        for index in np.ndindex(w.shape):
            w[index] += 1e-5
            up = loss()
            w[index] -= 2e-5
            exact[index] = (up - loss()) / 2e-5
            w[index] += 1e-5
        # Three products forward and three backward lie behind each, which may add up in signs that differ from theirs.
        assert_within(gradients[name], exact, (6 * LEFT_OUT[mode] + 1e-6) * 3 * max(1.0, np.abs(exact).max()), (mode, name))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_that_are_added_up(mode: str, rng: np.random.Generator) -> None:
    x, dy = normal(rng, np.float32, 64, 20), normal(rng, np.float32, 64, 5)
    model = net(mode)
    sums: dict[str, Array] = {}
    for part in (slice(0, 40), slice(40, 64)):
        model.forward(x[part], training=True)
        model.backward(dy[part])
        for name, g in model.gradients().items():
            sums[name] = sums.get(name, 0) + g.astype(np.float64)
    for part in (slice(0, 40), slice(40, 64)):
        model.forward(x[part], training=True)
        model.backward(dy[part], accumulate=part.start > 0)
    for name, g in model.gradients().items():
        # A chain goes on from what is there: one rounding of the sum more or less, of terms that are larger than it.
        assert_within(g, sums[name], 2.0**-20 * max(1.0, np.abs(sums[name]).max()), (mode, name))


# --- training -------------------------------------------------------------------------------------------------------------------


def losses(precision: str, widths: tuple[int, ...], steps: int = 20, **options: Any) -> tuple[list[float], nn.Sequential]:
    model = net(widths=widths, activation="relu")
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01), precision=precision, **options)
    return [trainer.step(X, Y) for _ in range(steps)], model


@pytest.mark.parametrize("widths", [(20, 64, 5), (20, 48, 33, 5)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_training_goes_as_in_float32(mode: str, widths: tuple[int, ...]) -> None:
    plain, _ = losses("float32", widths)
    mine, _ = losses(mode, widths)
    assert plain != mine
    assert plain[-1] < 0.5 * plain[0]
    np.testing.assert_allclose(mine, plain, rtol={"bf16": 0.03, "bf16_x3": 1e-3, "bf16_x6": 1e-4}[mode])


@pytest.mark.parametrize("widths", [(20, 64, 5), (20, 48, 33, 5), (20, 40, 513, 5)], ids=str)
@pytest.mark.parametrize("options", [{}, {"fuse_update": True}, {"clip_norm": 1.0}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_step_has_the_same_bits_on_any_number_of_threads(
    mode: str, options: dict[str, Any], widths: tuple[int, ...], sharing: bool
) -> None:
    results = set()
    for n in (1, 2, 3):
        with ts.num_threads(n):
            values, model = losses(mode, widths, 3, **options)
        results.add((tuple(values), bits(model)))
    assert len(results) == 1


@pytest.mark.parametrize("mode", MODES)
def test_batches_that_make_one_update(mode: str, threads: int) -> None:
    """accumulate=2 on 16 rows is close to one batch of 32, and the same on any number of threads."""
    models = []
    for options in ({"batch_size": 16, "accumulate": 2}, {"batch_size": 32}):
        models.append(net(mode))
        sgd(models[-1]).fit(X, Y, shuffle=False, epochs=2, **options)
    for (name, a), b in zip(models[0].parameters().items(), models[1].parameters().values(), strict=True):
        assert_within(a, b, 1e-5 if mode != "bf16" else 5e-3, name)
    with ts.num_threads(1):
        alone = net(mode)
        sgd(alone).fit(X, Y, shuffle=False, epochs=2, batch_size=16, accumulate=2)
    assert bits(alone) == bits(models[0])


@pytest.mark.parametrize("mode", MODES)
def test_rows_have_the_same_bits_in_any_batch(mode: str, threads: int) -> None:
    for widths in ((20, 64, 5), (20, 48, 33, 5)):
        model = net(mode, widths)
        together = model(X)
        for size in (1, 7, 32):
            assert_same_bits(model.predict(X, batch_size=size), together, size)
        assert_same_bits(model.forward(X, training=True), together)


# --- weights that are written between steps -------------------------------------------------------------------------------------


def write(trainer: ts.Trainer) -> None:
    """Through the views, past everything that could notice."""
    parameters = trainer.model.parameters()
    parameters["0.weight"][3] *= -1.5
    parameters["1.weight"][:, 2] = 0.25
    parameters["2.bias"] += 0.125


def put_others(trainer: ts.Trainer) -> None:
    """The weights of another network, as restoring the best ones does."""
    for name, values in nn.Sequential(*trainer.model.layers, seed=9).parameters().items():
        trainer.model.parameters()[name][...] = values


EVENTS: dict[str, Callable[[ts.Trainer], Any]] = {
    "write": write,
    "other weights": put_others,
    "prune": lambda trainer: trainer.model.prune(0.5),
    "freeze": lambda trainer: trainer.model.freeze("0", "1.weight"),
    "predict": lambda trainer: trainer.model.predict(X),
    "another precision": lambda trainer: setattr(
        trainer.model, "precision", "bf16_x6" if trainer.model.precision != "bf16_x6" else "bf16"
    ),
}


class At(ts.callbacks.Callback):
    """Lets an event happen after an epoch or a step."""

    def __init__(self, event: Callable[[ts.Trainer], Any], epoch: int = 0, step: int = 0) -> None:
        self._event, self._epoch, self._step = event, epoch, step

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        if epoch == self._epoch:
            self._event(self.trainer)

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        if step == self._step:
            self._event(self.trainer)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_happens_between_epochs_is_missed(mode: str, event: str) -> None:
    """What trains on is a network made anew of the same weights, which can have nothing left of those before."""
    one = net(mode)
    fit(sgd(one), epochs=2, callbacks=[At(EVENTS[event], epoch=1)])
    first = net(mode)
    trainer = sgd(first)
    fit(trainer, epochs=1)
    EVENTS[event](trainer)
    second = copy.deepcopy(first)
    fit(sgd(second), epochs=1)
    assert bits(one) == bits(second)
    assert bits(one) != bits(first)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_happens_between_steps_is_missed(mode: str, event: str) -> None:
    one, two = net(mode), net(mode)
    fit(sgd(one), epochs=1, callbacks=[At(EVENTS[event], step=3)])
    trainer = sgd(two)
    for i in range(6):
        if i == 3:
            EVENTS[event](trainer)
            two = copy.deepcopy(two)
            trainer = sgd(two)
        trainer.step(X[16 * i : 16 * (i + 1)], Y[16 * i : 16 * (i + 1)])
    assert bits(one) == bits(two)


# So large that the update leaves the pieces of weights for the next step; no width is a multiple of what they are packed by.
LARGE = (20, 523, 531, 5)


def steps(model: nn.Sequential, x: Array, epochs: int) -> None:
    trainer = sgd(model)
    for _ in range(epochs):
        for i in range(0, len(x), 32):
            trainer.step(x[i : i + 32], Y[i : i + 32])


@pytest.mark.parametrize("mode", MODES)
def test_pieces_that_an_update_leaves_are_those_of_the_weights(mode: str, threads: int) -> None:
    """fit takes what the update has packed; step packs the weights as it finds them."""
    one, two = net(mode, LARGE), net(mode, LARGE)
    sgd(one).fit(X, Y, epochs=2, batch_size=32, shuffle=False)
    steps(two, X, epochs=2)
    assert bits(one) == bits(two)


@pytest.mark.parametrize("event", EVENTS)
def test_pieces_of_other_weights_are_not_taken(event: str) -> None:
    one = net("bf16_x3", LARGE)
    trainer = sgd(one)

    def happen(epoch: int, values: dict[str, float]) -> None:
        if epoch == 1:
            EVENTS[event](trainer)

    # No hook for steps: between those of an epoch nothing else runs.
    trainer.fit(X, Y, epochs=2, batch_size=32, shuffle=False, callbacks=[ts.callbacks.LambdaCallback(on_epoch_end=happen)])
    two = net("bf16_x3", LARGE)
    trainer = sgd(two)
    trainer.fit(X, Y, epochs=1, batch_size=32, shuffle=False)
    EVENTS[event](trainer)
    assert_same_bits(two(X), copy.deepcopy(two)(X))
    two = copy.deepcopy(two)
    steps(two, X, epochs=1)
    assert bits(one) == bits(two)


@pytest.mark.parametrize("mode", MODES)
def test_a_weight_that_is_infinite_is_packed_by_each_step(mode: str) -> None:
    """A unit at -inf, which relu leaves at 0: its pieces would make NaN of the others' small terms."""
    x = np.abs(X) + np.float32(0.1)
    models = [net(mode, LARGE, "relu") for _ in range(2)]
    for model in models:
        model.parameters()["0.weight"][:, 7] = -np.inf
    history = sgd(models[0]).fit(x, Y, epochs=2, batch_size=32, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    steps(models[1], x, epochs=2)
    assert bits(models[0]) == bits(models[1])


@pytest.mark.parametrize("mode", MODES)
def test_writes_count_in_every_call_that_follows(mode: str) -> None:
    model = net(mode)
    trainer = sgd(model)
    for _ in range(3):
        write(trainer)
        fresh = copy.deepcopy(model)
        assert_same_bits(model(X), fresh(X))
        assert trainer.evaluate(X, Y) == sgd(fresh).evaluate(X, Y)
        trainer.step(X[:16], Y[:16])
        sgd(fresh).step(X[:16], Y[:16])
        assert bits(model) == bits(fresh)


@pytest.mark.parametrize("mode", MODES)
def test_an_average_is_taken_of_the_weights_in_float32(mode: str) -> None:
    model = net(mode)
    trainer = sgd(model, average=ts.averages.EMA(decay=0.5))
    mean = dict.fromkeys(model.parameters(), 0.0)
    for i in range(4):
        trainer.step(X[:16], Y[:16])
        for name, w in model.parameters().items():
            mean[name] = w.astype(np.float64) if i == 0 else 0.5 * mean[name] + 0.5 * w
    averaged = trainer.averaged_model()
    assert averaged.precision == mode
    for name, w in averaged.parameters().items():
        assert_within(w, mean[name], 1e-6, name)


# --- whose precision it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_trainers_precision_is_for_its_own_calls(mode: str) -> None:
    mine, model = net(), net(mode)
    trainer, other = sgd(mine, precision=mode), sgd(model)
    assert trainer.precision == mode
    assert mine.precision is None
    assert other.precision is None
    assert (
        fit(trainer, epochs=2, validation_data=(X, Y)).history["val_loss"]
        == fit(other, epochs=2, validation_data=(X, Y)).history["val_loss"]
    )
    assert bits(mine) == bits(model)
    assert trainer.evaluate(X, Y) == other.evaluate(X, Y)
    mine_y, model_y = mine(X), model(X)
    assert mine_y.tobytes() != model_y.tobytes()
    model.precision = "float32"
    assert_same_bits(model(X), mine_y)
    assert_same_bits(mine.forward(X, training=True), mine_y)


def test_a_trainer_in_float32_of_a_model_that_is_not() -> None:
    model, plain = net("bf16"), net("float32")
    sgd(model, precision="float32").step(X, Y)
    sgd(plain).step(X, Y)
    assert bits(model) == bits(plain)


def failing(y_pred: Array, y_true: Array) -> tuple[float, Array]:
    raise ArithmeticError


def test_a_step_that_fails_leaves_the_models_precision() -> None:
    model, plain = net(), net()
    x, expected = X[:16], plain(X[:16])
    with pytest.raises(ArithmeticError):
        ts.Trainer(model, failing, optim.SGD(lr=0.1), precision="bf16").step(x, Y[:16])
    assert_same_bits(model(x), expected)
    y, dx = model.forward(x, training=True), model.backward(np.ones((16, 5), np.float32))
    assert_same_bits(y, plain.forward(x, training=True))
    assert_same_bits(dx, plain.backward(np.ones((16, 5), np.float32)))


@pytest.mark.parametrize("mode", MODES)
def test_the_precision_of_the_process_is_asked_when_a_pass_begins(mode: str, restored: None) -> None:
    model, named, plain = net(), net(mode), net("float32")
    ts.set_matmul_precision(mode)
    assert_same_bits(model(X), named(X))
    sgd(model).step(X, Y)
    sgd(named).step(X, Y)
    assert bits(model) == bits(named)
    ts.set_matmul_precision("float32")
    for name, values in plain.parameters().items():
        values[...] = model.parameters()[name]
    assert_same_bits(model(X), plain(X))
    assert model.precision is None


def test_networks_of_float64_have_no_pieces(restored: None) -> None:
    model = network((20, 8, 5), dtype="float64")
    plain = model(X)
    ts.set_matmul_precision("bf16")
    assert_same_bits(model(X), plain)
    assert nn.Sequential(nn.Dense(3, 2), dtype="float64", precision="highest").precision == "float32"


def test_a_batch_norm_that_is_taken_along() -> None:
    """At inference a layer's columns are scaled in its product's epilogue."""
    model = nn.Sequential(nn.Dense(20, 33), nn.BatchNorm(), nn.Dense(33, 5), precision="bf16_x3")
    sgd(model).fit(X, Y, epochs=2)
    plain = copy.deepcopy(model)
    plain.precision = "float32"
    assert_within(model(X), plain(X), 1e-3)
    assert model(X).tobytes() != plain(X).tobytes()


def test_a_diagnosis_is_of_the_trainers_products() -> None:
    x, y = X[:32], Y[:32]
    monitored = ts.diagnosis.examine(sgd(net(), precision="bf16"), x, y)
    assert monitored == ts.diagnosis.examine(sgd(net("bf16")), x, y)
    assert monitored != ts.diagnosis.examine(sgd(net()), x, y)


# --- copies and files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, "float32", *MODES])
def test_copies_and_files_have_it(precision: str | None, tmp_path: Path) -> None:
    model = net(precision)
    path = tmp_path / "model.safetensors"
    model.save(path)
    made = {
        "copy": copy.copy(model),
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "file": nn.load(path),
        "prune": model.prune(0.25, structured=True),
    }
    for how, other in made.items():
        assert other.precision == precision, how
        if how != "prune":
            assert_same_bits(other(X), model(X), how)
    assert ("precision" in repr(model)) == (precision is not None)


def test_a_file_with_a_precision_that_is_none(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "model.safetensors"
    net("bf16").save(path)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["precision"] == "bf16"
    save_file(load_file(path), path, metadata | {"precision": "bf17"})
    with pytest.raises(ValueError, match="no whole trainstep model: Sequential: precision is 'bf17'"):
        nn.load(path)


@pytest.mark.parametrize("of_model", [None, "bf16_x6"])
@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_goes_on_in_the_same_bits(mode: str, of_model: str | None, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    trainer = ts.Trainer(net(of_model), optimizer=optim.Adam(lr=0.01), precision=mode)
    fit(trainer, epochs=1, callbacks=[At(lambda t: t.stop(), step=4)])
    trainer.save(path)
    resumed = ts.Trainer.load(path)
    assert resumed.precision == mode
    assert resumed.model.precision == of_model
    for t in (trainer, resumed):
        fit(t, epochs=2)
    assert bits(trainer.model) == bits(resumed.model)
    assert state_bits(trainer) == state_bits(resumed)


def test_it_can_be_set_on_a_model() -> None:
    model = net()
    assert model.precision is None
    for given, name in (("high", "bf16_x3"), ("bf16", "bf16"), (None, None)):
        model.precision = given
        assert model.precision == name
    with pytest.raises(ValueError, match="precision is 'low', expected one of float32"):
        model.precision = "low"
    assert model.precision is None
