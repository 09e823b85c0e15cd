"""Trainer.save and Trainer.load: the same bits as the run that was not stopped, and files that are whole or refused."""

import copy
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainstep as ts
from trainstep import schedules
from trainstep.callbacks import Callback
from trainstep.nn import BatchNorm, Dense, Dropout, LayerNorm, Residual, Sequential

from .helpers import bits
from .test_fit import X, Y, batches, net, run_bits, without_seconds

pytestmark = pytest.mark.one_level


def own_rate(t: int) -> float:
    return 0.01 / (1 + t)


def own_loss(pred: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    return ts.reference.softmax_cross_entropy(pred, y)


class SaveAt(Callback):
    comes_last = True

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        if step == self.step:
            self.trainer.save(self.path)


RUNS: dict[str, Callable[[], ts.optim.Optimizer]] = {
    **{name: lambda name=name: getattr(ts.optim, name)() for name in ("Adagrad", "Adadelta", "RMSprop", "Adamax", "RAdam", "ASGD")},
    "NAdam": lambda: ts.optim.NAdam(weight_decay=0.01),
    "Rprop": lambda: ts.optim.Rprop(lr=1e-3),
    "LAMB": lambda: ts.optim.LAMB(weight_decay=0.01),
    "LARS": lambda: ts.optim.LARS(lr=0.1, momentum=0.9),
    "momentum": lambda: ts.optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "amsgrad": lambda: ts.optim.Adam(amsgrad=True, weight_decay=0.01),
    "AdamW, eight bits": lambda: ts.optim.AdamW(state_dtype="8bit", seed=3),
    "Lion, bfloat16": lambda: ts.optim.Lion(lr=1e-3, state_dtype="bfloat16", seed=3),
    "warm-up, cosine": lambda: ts.optim.AdamW(lr=schedules.warmup(schedules.cosine(1e-2, total=40), steps=5)),
    "joined": lambda: ts.optim.Adam(
        lr=schedules.join({0: schedules.piecewise(1e-3, {5: 0.5}), 10: schedules.cyclical(1e-4, 1e-3, 4, decay=("exp", 0.9))})
    ),
    "plateau": lambda: ts.optim.RMSprop(lr=schedules.Plateau(0.01, patience=0, factor=0.5, monitor="val_loss", mode="max")),
}


def wide() -> Sequential:
    """With arrays of more than 4,096 numbers, whose states are kept in eight bits where that is asked for."""
    return Sequential(
        Dense(8, 80, activation="gelu"),
        BatchNorm(80),
        Dropout(0.3),
        Residual(Dense(80, 80), LayerNorm()),
        Dropout(0.2),
        Dense(80, 4),
        seed=1,
    )


OPTIONS: dict[str, Any] = {"batch_size": 16, "validation_data": (X[:20], Y[:20])}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_in_the_same_bits(run: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    whole = ts.Trainer(wide(), optimizer=RUNS[run](), clip_norm=1.0, l1=1e-4)
    whole.fit(X, Y, epochs=4, callbacks=[SaveAt(17, path)], **OPTIONS)
    resumed = ts.Trainer.load(path)
    assert (resumed.steps, resumed.epoch) == (17, 2)
    assert resumed.history.epoch == [1, 2]
    resumed.fit(X, Y, until_epoch=4, **OPTIONS)
    assert run_bits(resumed) == run_bits(whole)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.optimizer.lr == whole.optimizer.lr
    assert repr(resumed.optimizer) == repr(whole.optimizer)
    for name, gradient in whole.model.gradients().items():
        np.testing.assert_array_equal(resumed.model.gradients()[name], gradient, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_trainer_is_made_of(dtype: str, tmp_path: Path) -> None:
    model = Sequential(Dense(8, 32, activation="relu"), Dense(32, 32), Dense(32, 4), seed=9, dtype=dtype).prune(0.5)
    model.metadata["about"] = {"a": [1, None]}
    model.freeze("1")
    groups = model.param_groups(lr=0.01, lr_factors={"2": 0.1}, decay_bias=False)
    trainer = ts.Trainer(
        model,
        loss=ts.losses.SoftmaxCrossEntropy(weight=(1.0, 2.0, 0.5, 1.0), label_smoothing=0.1),
        optimizer=ts.optim.AdamW(groups, weight_decay=0.2, betas=(0.8, 0.99)),
        seed=-5,
        max_norm=2.0,
        penalize_bias=True,
        l2=1e-3,
        fuse_update=False,
    )
    trainer.fit(X, Y, epochs=2)
    trainer.save(tmp_path / "run")
    again = ts.Trainer.load(tmp_path / "run")
    assert again.loss == trainer.loss
    assert again.model.metadata == model.metadata
    assert again.model.frozen == model.frozen
    assert again._given == trainer._given
    assert (again._seed, again._fuse_update) == (-5, False)
    mine, theirs = ([{k: v for k, v in g.items() if k != "params"} for g in t.optimizer.param_groups] for t in (trainer, again))
    assert mine == theirs
    for t in (trainer, again):
        t.fit(X, Y, epochs=2)
    assert run_bits(again) == run_bits(trainer)
    assert ts.nn.load(tmp_path / "run").layers == model.layers  # the model of it is a model's file
    assert (ts.nn.load(tmp_path / "run").parameters()["2.bias"].dtype) == dtype


def test_steps_by_hand_go_on_too(tmp_path: Path) -> None:
    trainer = ts.Trainer(net("float32", Dropout(0.5)))
    for batch in batches(0):
        trainer.step(*batch)
    trainer.save(tmp_path / "run")
    again = ts.Trainer.load(tmp_path / "run")
    for t in (trainer, again):
        for batch in batches(1):
            t.step(*batch)
    assert run_bits(again) == run_bits(trainer)


def test_batches_from_a_function_go_on(tmp_path: Path) -> None:
    whole = ts.Trainer(net("float32", Dropout(0.3)))
    whole.fit(batches, epochs=3, accumulate=2, callbacks=[SaveAt(6, tmp_path / "run")])
    resumed = ts.Trainer.load(tmp_path / "run")
    resumed.fit(batches, until_epoch=3, accumulate=2)
    assert run_bits(resumed) == run_bits(whole)


def test_a_plateau_of_two_groups_stays_one(tmp_path: Path) -> None:
    plateau = schedules.Plateau(0.1, patience=2, monitor="loss", mode="max")  # falls soon
    model = net()
    groups = model.param_groups(lr=0.1, decay_bias=False)
    for group in groups:
        group["lr"] = plateau
    trainer = ts.Trainer(model, optimizer=ts.optim.SGD(groups, lr=0.1, weight_decay=0.1))
    trainer.fit(X, Y, epochs=2)
    trainer.save(tmp_path / "run")
    again = ts.Trainer.load(tmp_path / "run")
    first, second = (group["lr"] for group in again.optimizer.param_groups)
    assert first is second
    for t in (trainer, again):
        t.fit(X, Y, epochs=3)
    assert run_bits(again) == run_bits(trainer)
    assert again.optimizer.lr == trainer.optimizer.lr == pytest.approx(0.01)


class Remembering(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []
        self.best = np.zeros(0)

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        self.seen.append(values["loss"])
        self.best = self.trainer.model.parameters()["0.weight"].copy()

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "best": self.best, "nested": {1: (None, True, float("inf"), "text"), "list": [np.float32(0.1)]}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["nested"] == {1: (None, True, float("inf"), "text"), "list": [float(np.float32(0.1))]}
        self.seen, self.best = state["seen"], state["best"]


def test_callbacks_have_their_states_again(tmp_path: Path) -> None:
    whole = [Remembering(), Remembering()]
    trainer = ts.Trainer(net())
    trainer.fit(X, Y, epochs=4, callbacks=[SaveAt(14, tmp_path / "run"), *whole], batch_size=16)
    resumed = [Remembering(), Remembering()]
    again = ts.Trainer.load(tmp_path / "run")
    again.fit(X, Y, until_epoch=4, callbacks=resumed, batch_size=16)
    assert [c.seen[1:] for c in resumed] == [c.seen[1:] for c in whole]  # the step's hook comes before the epoch's
    for mine, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(mine.best, theirs.best)
    later = Remembering()
    again.fit(X, Y, callbacks=[later])  # the states were for one fit
    assert len(later.seen) == 1


# --- what the file cannot hold --------------------------------------------------------------------------------------------------


def test_functions_of_ones_own_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "run"
    trainer = ts.Trainer(net(), loss=own_loss, optimizer=ts.optim.SGD(lr=own_rate))
    trainer.fit(X, Y, epochs=2)
    trainer.save(path)
    with pytest.raises(ValueError, match="load: loss is None, expected the function that the loss was"):
        ts.Trainer.load(path)
    with pytest.raises(ValueError, match="load: schedule is None, expected the function that lr was"):
        ts.Trainer.load(path, loss=own_loss)
    with pytest.raises(TypeError, match="load: schedule is a float, expected a callable"):
        ts.Trainer.load(path, loss=own_loss, schedule=0.1)  # type: ignore[arg-type]
    again = ts.Trainer.load(path, loss=own_loss, schedule=own_rate)
    for t in (trainer, again):
        t.fit(X, Y, epochs=2)
    assert run_bits(again) == run_bits(trainer)
    ts.Trainer(net()).save(path)
    with pytest.raises(ValueError, match="load: loss is given, expected None"):
        ts.Trainer.load(path, loss=own_loss)
    with pytest.raises(ValueError, match="load: schedule is given, expected None"):
        ts.Trainer.load(path, schedule=own_rate)


def test_what_cannot_be_saved_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    class Mine(ts.optim.Adam):
        pass

    class Holding(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"file": object()}

        def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
            self.trainer.save(path)

    path = tmp_path / "run"
    trainer = ts.Trainer(net())
    trainer.save(path)
    old = path.read_bytes()
    with pytest.raises(TypeError, match="save: the optimizer is a Mine, expected one of trainstep.optim"):
        ts.Trainer(net(), optimizer=Mine()).save(path)
    with pytest.raises(TypeError, match="save: a object cannot be saved"):
        trainer.fit(X, Y, callbacks=[Holding()])
    trainer.model.metadata["x"] = {1, 2}
    with pytest.raises(TypeError):
        trainer.save(path)
    with pytest.raises(TypeError, match="save: path is a int"):
        trainer.save(3)  # type: ignore[arg-type]
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["run"]


def test_files_that_are_not_a_trainers(tmp_path: Path) -> None:
    model = tmp_path / "model"
    net().save(model)
    with pytest.raises(ValueError, match="is no whole trainstep checkpoint: its metadata does not name"):
        ts.Trainer.load(model)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"\x89PNG and so on" * 100)
    for name in ("empty", "text"):
        with pytest.raises(ValueError, match=f"load: .*{name} is no whole trainstep checkpoint"):
            ts.Trainer.load(tmp_path / name)
    with pytest.raises(OSError):
        ts.Trainer.load(tmp_path / "absent")


# --- damaged and hostile files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    more: dict[str, Any] = {"metrics": ["f1", ts.metrics.TopK(2)], "average": ts.averages.EMA(0.9)}
    trainer = ts.Trainer(net("float32", BatchNorm()), optimizer=ts.optim.Adam(lr=schedules.Plateau(0.1)), **more)
    trainer.fit(X, Y, epochs=2, callbacks=[Remembering(), SaveAt(7, path)], batch_size=16)
    return path


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + rest


def refused(path: Path, data: bytes) -> None:
    """A file is loaded, or refused in words; nothing else, and nothing large."""
    path.write_bytes(data)
    try:
        ts.Trainer.load(path)
    except ValueError as error:
        assert "load: " in str(error)  # noqa: PT017


def test_every_cut_is_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "run"
    for length in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="is no whole trainstep checkpoint"):
            ts.Trainer.load(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_found_or_harmless(whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    damaged = bytearray(whole.read_bytes())
    length = struct.unpack("<Q", damaged[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 8 + length - 1))] ^= data.draw(st.integers(1, 255))  # an array's bytes may be any
    refused(tmp_path_factory.mktemp("flipped") / "run", bytes(damaged))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, v in inner for place in places(v, (*at, key)))]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_may_be_another(whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    header, rest = header_of(whole.read_bytes())
    own = json.loads(header["__metadata__"]["trainer"])
    place = data.draw(st.sampled_from(places(own)))
    junk = data.draw(JUNK)
    if place:
        at = own
        for key in place[:-1]:
            at = at[key]
        if data.draw(st.booleans()):
            at[place[-1]] = junk
        else:
            del at[place[-1]]
    else:
        own = junk
    header["__metadata__"]["trainer"] = json.dumps(own)
    refused(tmp_path_factory.mktemp("changed") / "run", with_header(header, rest))


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own.update(version=2),
        lambda own: own["optimizer"].update({"class": "Optimizer"}),
        lambda own: own["optimizer"].update({"class": "__doc__"}),
        lambda own: own["optimizer"]["groups"][0]["params"].append("0.weight"),
        lambda own: own["optimizer"]["groups"][0]["params"].pop(),
        lambda own: own["optimizer"]["state"]["0.weight"]["exp_avg"].update(array="optimizer/0.bias/exp_avg"),
        lambda own: own["optimizer"]["state"]["0.weight"]["exp_avg"].update(array="../../etc"),
        lambda own: own["optimizer"]["state"]["0.weight"].update(step=-1),
        lambda own: own["optimizer"]["defaults"]["dict"].append(["lr", -1.0]),
        lambda own: own.update(epoch=-1),
        lambda own: own.update(passes=2**32),
        lambda own: own["unfinished"].__setitem__(4, 0.5),
        lambda own: own["history"]["epoch"].append(3),
        lambda own: own["loss"].update(name="system"),
        lambda own: own.update(fuse_update="yes"),
        lambda own: own["metrics"].pop(),
        lambda own: own["metrics"].append(own["metrics"][0]),
        lambda own: own["metrics"][0]["dict"].__setitem__(0, ["name", "mse"]),
        lambda own: own.update(metric_sums=[1.0]),
        lambda own: own.update(metric_sums=None),
        lambda own: own["average"].update({"class": "Average"}),
        lambda own: own["average"].update(averages=-1),
        lambda own: own["average"]["options"]["dict"].append(["decay", 2.0]),
        lambda own: own["average"]["arrays"].pop(),
        lambda own: own["average"]["arrays"][0].pop("0.weight"),
        lambda own: own["average"]["arrays"][0]["0.weight"].update(array="average/weights/0.bias"),
    ],
)
def test_values_that_do_not_fit(whole: Path, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    header, rest = header_of(whole.read_bytes())
    own = json.loads(header["__metadata__"]["trainer"])
    if "dict" in own["loss"]:
        own["loss"] = dict(own["loss"]["dict"])
    change(own)
    header["__metadata__"]["trainer"] = json.dumps(own)
    path = tmp_path / "run"
    path.write_bytes(with_header(header, rest))
    with pytest.raises(ValueError, match="load: "):
        ts.Trainer.load(path)


HUGE = r"""
import json, resource, struct, sys
import trainstep as ts
data = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + length])
layers = json.loads(header["__metadata__"]["layers"])
layers[0]["out_features"] = layers[-1]["in_features"] = 10**8
header["__metadata__"]["layers"] = json.dumps(layers)
header["0.weight"]["shape"] = [8, 10**8]
text = json.dumps(header).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + data[8 + length:])
limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, lying in (("shape", sys.argv[2]),):
    try:
        ts.Trainer.load(lying)
        print("loaded")
    except ValueError as error:
        print("refused" if "no whole trainstep checkpoint" in str(error) else error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit < 50_000)
"""


def test_sizes_that_lie_take_no_memory(whole: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HUGE, whole, tmp_path / "huge"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "True"]


# --- killed at any moment -------------------------------------------------------------------------------------------------------

SAVING = r"""
import sys
import trainstep as ts
trainer = ts.Trainer.load(sys.argv[1])
print("ready", flush=True)
while True:
    for view in trainer.model.parameters().values():
        view += 1
    trainer.save(sys.argv[1])
"""


@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_trainer_is_copied_by_save_and_load_alone(copies: Callable[[Any], Any]) -> None:
    trainer = ts.Trainer(Sequential(Dense(4, 3)))
    with pytest.raises(TypeError, match="^Trainer: a trainer cannot be pickled or copied, expected save and load$"):
        copies(trainer)
    with pytest.raises(TypeError, match=r"^diagnose: model is a Trainer, expected a trainstep\.nn\.Sequential$"):
        ts.diagnose(trainer, np.ones((2, 4)), [0, 1])  # type: ignore[arg-type]


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    rng = np.random.default_rng(4)
    trainer = ts.Trainer(Sequential(Dense(64, 256), Dense(256, 10)))
    trainer.save(path)
    first = [float(view.flat[0]) for view in trainer.model.parameters().values()]
    saved = 0
    for _ in range(25):
        process = subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        # Not a wait for something to be done: the moment is to be any.
        try:
            process.wait(timeout=float(rng.uniform(0.0, 0.03)))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        values = ts.Trainer.load(path).model.parameters().values()
        moved = {round(float(view.flat[0]) - before) for view, before in zip(values, first, strict=True)}
        assert len(moved) == 1  # all arrays are of one save
        assert moved.pop() >= saved
        saved = round(float(next(iter(values)).flat[0]) - first[0])
    assert saved > 0
    trainer.save(path)
    assert os.listdir(tmp_path) == ["run"]  # what the killed had begun is gone
    assert bits(ts.Trainer.load(path).model) == bits(trainer.model)
