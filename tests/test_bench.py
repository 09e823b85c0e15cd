"""What `trainstep bench` and bench/ are made of: probes, roofline, harness, tasks. No figure is compared with a time."""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, reference
from trainstep.bench import (
    accuracy,
    calls,
    dense,
    fit,
    harness,
    layers,
    optimizers,
    precision,
    predict,
    roofline,
    suite,
    text,
    train_step,
    worker,
)
from trainstep.bench.peers import numpy as numpy_peer
from trainstep.bench.peers import trainstep as trainstep_peer
from trainstep.bench.tasks import (
    DenseProblem,
    DenseTask,
    FitProblem,
    LayerProblem,
    LayerTask,
    OptimizerProblem,
    PredictProblem,
    TrainProblem,
)
from trainstep.nn.layers import Layer

pytestmark = pytest.mark.one_level

RATIO = ("median", "lowest", "highest")
SECONDS = 1e-4  # a sample's length: these tests look at shapes and signs
QUICK = harness.Options(suite.PEERS, [1], seconds=0.002, blocks=2, cold_calls=1, warm_seconds=0.002, quick=True)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness waits for silence before each turn, which only figures need."""
    monkeypatch.setattr(harness, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(harness, "LISTEN_SECONDS", 0.0)


# --- probes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.every_level
def test_fma_probe(dtype: object, threads: int) -> None:
    rates = _core.fma_probe(str(dtype), SECONDS, 3)
    assert len(rates) == 3
    assert all(rate > 0 and math.isfinite(rate) for rate in rates)


@pytest.mark.every_level
@pytest.mark.parametrize("stream", _core.streams)
@pytest.mark.parametrize("size", [1, 5000, 1 << 20])
def test_stream_probe(stream: str, size: int, threads: int) -> None:
    rates = _core.stream_probe(stream, size, SECONDS, 2)
    assert len(rates) == 2
    assert all(rate > 0 and math.isfinite(rate) for rate in rates)


def test_round_trip_probe(threads: int) -> None:
    seconds = _core.round_trip_probe(5)
    if threads == 1 or not ts.config()["openmp"]:
        assert seconds == []
    else:
        assert 1 <= len(seconds) <= 5
        assert min(seconds) > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _core.fma_probe("float16", SECONDS, 1), "fma_probe: dtype is 'float16', expected one of float32, float64"),
        (lambda: _core.fma_probe("float32", math.nan, 1), "fma_probe: seconds is nan, expected more than 0 and at most 10.0"),
        (lambda: _core.fma_probe("float32", SECONDS, 0), "fma_probe: samples is 0.0, expected more than 0"),
        (lambda: _core.stream_probe("scale", 1, SECONDS, 1), "stream_probe: stream is 'scale', expected one of read"),
        (lambda: _core.stream_probe("read", -1, SECONDS, 1), "stream_probe: bytes is -1.0, expected more than 0"),
        (lambda: _core.round_trip_probe(0), "round_trip_probe: samples is 0.0, expected more than 0"),
    ],
)
def test_probes_refuse(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


# --- roofline --------------------------------------------------------------------------------------------------------------------


def test_working_sets_are_inside_the_caches() -> None:
    known = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
    assert roofline.working_sets(known, 2) == {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20, "memory": 128 << 20}
    assert roofline.working_sets({"L2": 1 << 20}, 4) == {"L2": 1 << 19, "memory": 4 << 20}
    assert roofline.working_sets(known | {"L3": 1 << 30}, 1)["memory"] == roofline.LARGEST
    assert min(roofline.caches().values()) > 1000


def test_the_roofline_has_every_level_stream_and_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "caches", lambda: {"L1": 1 << 15, "L2": 1 << 17})
    measured = roofline.measure([1, 2], quick=True)
    expected = {(isa, n, d) for isa in ts.config()["isa_supported"] for n in (1, 2) for d in ("float32", "float64")}
    assert {(r["isa"], r["threads"], r["dtype"]) for r in measured["fma"]} == expected
    sets = {(b, n) for n in (1, 2) for b in roofline.working_sets(measured["caches"], n).values()}
    assert {(r["stream"], r["bytes"], r["threads"]) for r in measured["bandwidth"]} == {
        (s, *b) for s in _core.streams for b in sets
    }
    assert all(0 < r["median"] <= r["best"] for r in measured["fma"] + measured["bandwidth"])
    printed = roofline.report(measured)
    assert all(word in printed for word in (*ts.config()["isa_supported"], *_core.streams, "memory: 512 KiB"))
    assert json.loads(json.dumps(measured)) == measured


ROOF = {
    "fma": [
        {"isa": "generic", "threads": 1, "dtype": "float32", "best": 5e10, "median": 5e10},
        {"isa": "avx2", "threads": 1, "dtype": "float32", "best": 1e11, "median": 9e10},
        {"isa": "avx2", "threads": 1, "dtype": "float64", "best": 5e11, "median": 5e11},
        {"isa": "avx2", "threads": 2, "dtype": "float32", "best": 2e11, "median": 2e11},
    ],
    "bandwidth": [
        {"stream": s, "bytes": b, "threads": 1, "best": rate, "median": rate}
        for s, b, rate in [("read", 1 << 14, 2e11), ("read", 1 << 27, 1e10), ("adam", 1 << 14, 1e11)]
    ],
}


def test_a_share_is_of_what_binds() -> None:
    work = {"flops": 1e6, "bytes": 1000, "stream": "read", "working_set": 20_000}
    of_fma = roofline.share(ROOF, 2e-5, work, 1)
    assert of_fma["bound"] == "fma"
    assert of_fma["share"] == pytest.approx(0.5)
    assert roofline.share_text(of_fma) == "50% of 100 GFLOP/s"
    of_memory = roofline.share(ROOF, 4e-4, work | {"bytes": 1e6, "working_set": 1e8}, 1)
    assert of_memory["bound"] == "memory"
    assert of_memory["share"] == pytest.approx(0.25)
    assert of_memory["fma_share"] == pytest.approx(0.025)
    assert roofline.share_text(of_memory) == "25% of 10.0 GB/s"


def test_a_bare_loop_beside_is_the_roof() -> None:
    work = {"flops": 0, "bytes": 1e6, "stream": "read", "working_set": 1e8, "bare_loop_rates": [1e9, 4e9, 5e9]}
    of_loop = roofline.share(ROOF, 5e-4, work, 1)
    assert (of_loop["bound"], of_loop["stream_peak"]) == ("memory", 4e9)
    assert of_loop["share"] == pytest.approx(0.5)
    assert all(rate > 0 for rate in roofline.bare_loop("adam", 10_000, 1))


# --- text ------------------------------------------------------------------------------------------------------------------------


def test_figures_and_tables() -> None:
    assert [text.digits(v) for v in (1234.5, 123.4, 12.34, 1.234)] == ["1,234", "123", "12.3", "1.23"]
    assert [text.size(n) for n in (5, 1024, 1536, 32 << 20, 1 << 30)] == ["5 B", "1 KiB", "1.5 KiB", "32 MiB", "1 GiB"]
    assert text.markdown_table(["a", "b"], [["long", "1"]]) == ["| a    | b |", "|------|--:|", "| long | 1 |"]


# --- tasks -----------------------------------------------------------------------------------------------------------------------


def test_nets_are_read() -> None:
    net = train_step.Net.parse("784-128-10:64")
    assert net == train_step.Net((784, 128, 10), 64, "adam")
    assert train_step.Net.parse("64-64-10:1:sgd", "adam").optimizer == "sgd"
    assert train_step.Net.parse("64-64-10", "sgd") == train_step.Net((64, 64, 10), 64, "sgd")
    assert net.parameters == 784 * 128 + 128 + 1280 + 10
    assert net.flops == 2 * 64 * (2 * 784 * 128 + 3 * 1280)
    for wrong in ("784", "784-128-10:0", "4-2:8", "a-3:1", "4-3:1:lion"):
        with pytest.raises(ValueError):
            train_step.Net.parse(wrong)


@pytest.mark.parametrize(("batch", "batches"), [(1, 2), (3, 2), (4, 1)])
def test_every_row_comes_with_two_labels(batch: int, batches: int, tmp_path: Path) -> None:
    problem = train_step.make_problem(train_step.Net((5, 6, 3), batch, "sgd"))
    assert problem.x.shape == (batches, batch, 5)
    assert problem.y.shape == (batches, batch)
    x, y = problem.x.reshape(-1, 5), problem.y.ravel()
    half = len(x) // 2
    assert np.array_equal(x[:half], x[half:])
    assert (y[:half] != y[half:]).all()
    problem.save(str(tmp_path / "p.npz"))
    loaded = TrainProblem.load(str(tmp_path / "p.npz"))
    assert (loaded.optimizer, loaded.lr, loaded.batch, loaded.sizes) == ("sgd", 0.01, batch, [5, 6, 3])


@pytest.mark.parametrize("peer", [trainstep_peer.TrainstepStep, numpy_peer.NumpyStep])
@pytest.mark.parametrize("net", ["4-8-3:6:adam", "4-8-3:6:sgd", "4-8-3:1:sgd"])
def test_contenders_train_as_the_reference(peer: Any, net: str, tmp_path: Path) -> None:
    case = train_step.make_case(train_step.Net.parse(net), tmp_path)
    contender = peer(TrainProblem.load(case.problem), "default", 1)
    for _ in range(2):  # a reset goes back to the start
        losses = contender.losses(len(case.reference))
        assert harness.relative_error(losses, case.reference) < case.rtol
    for _ in range(500):
        loss = contender.step()
    assert case.loss_range[0] < contender.scalar(loss) < case.loss_range[1]


@pytest.mark.parametrize("peer", [trainstep_peer.TrainstepDense, numpy_peer.NumpyDense])
@pytest.mark.parametrize("kind", dense.KINDS)
def test_contenders_make_the_products(peer: Any, kind: str, tmp_path: Path) -> None:
    case = dense.make_case("3x5x4", kind, tmp_path)
    contender = peer(DenseProblem.load(case.problem), "default", 1)
    assert contender.losses(1) == pytest.approx(case.reference, rel=case.rtol)
    contender.results[-1][...] = 0  # and the number shows it where a result is not made
    assert contender.scalar(None) == 2
    contender.results[-1][...] = math.nan
    assert not case.loss_range[0] <= contender.scalar(None) <= case.loss_range[1]


def bfloat16(a: Any) -> Any:
    """Round float32 to the nearest bfloat16; the halves that random numbers never meet would go up."""
    return ((a.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


class GivenProducts(DenseTask):
    """A contender whose result is x @ w as some pieces of bfloat16 give it, exactly but for rounding at the end."""

    def __init__(self, problem: DenseProblem, pieces: int) -> None:
        super().__init__(problem, "default", 1)
        kept = []
        for rest in (problem.x, problem.w):
            total = np.zeros(rest.shape)
            for _ in range(pieces):
                total += bfloat16(rest)
                rest = rest - bfloat16(rest)
            kept.append(total)
        self.results = [(kept[0] @ kept[1]).astype(np.float32)]

    def forward(self) -> None: ...


@pytest.mark.parametrize(
    ("pieces", "limit", "passes"), [(3, "bf16_x6", ()), (2, "bf16_x3", ("bf16_x6",)), (1, "bf16", ("bf16_x3",))]
)
def test_products_of_fewer_pieces_are_told_apart(pieces: int, limit: str, passes: tuple[str, ...], tmp_path: Path) -> None:
    case = dense.make_case("64x128x48", "forward", tmp_path)
    error = GivenProducts(DenseProblem.load(case.problem), pieces).scalar(None) - 1
    assert 0 < error <= dense.LIMITS[limit]
    assert all(error > dense.LIMITS[stricter] for stricter in passes)
    assert (error <= case.rtol) == (pieces == 3), "float32's own limit lets no other precision pass but six products"


def test_precisions_are_variants_with_limits_of_their_own(tmp_path: Path) -> None:
    case = dense.make_case("8x16x4", "dw_dx", tmp_path, ["float32", "bf16_x3", "bf16"])
    assert {name: v.rtol for name, v in case.variants.items()} == {
        "trainstep:bf16_x3": 1e-5,
        "trainstep:bf16": 5e-3,
        "torch_eager:bf16": 5e-3,
    }
    assert case.variants["trainstep:bf16"].bytes == case.bytes == 2 * case.variants["torch_eager:bf16"].bytes
    assert case.variants["trainstep:bf16_x3"].loss_range == (1, 1 + 1e-5)
    assert dense.make_case("8x16x4", "dw_dx", tmp_path, ["float32"]).variants == {}
    net = train_step.Net.parse("4-8-3:6")
    assert set(train_step.make_case(net, tmp_path, ["bf16_x6", "float32"]).variants) == {"trainstep:bf16_x6"}
    lower = train_step.make_case(net, tmp_path, precision.PRECISIONS)
    assert lower.rtol == lower.variants["trainstep:bf16_x6"].rtol == train_step.RTOL
    assert {"trainstep:bf16", "torch_eager:medium", "torch_eager:autocast", "torch_compile:autocast"} <= set(lower.variants)
    assert precision.precision_list("bf16,float32") == ["bf16", "float32"]
    with pytest.raises(argparse.ArgumentTypeError, match="'bf17' is not one of float32, bf16_x6, bf16_x3, bf16"):
        precision.precision_list("bf16,bf17")


@pytest.mark.parametrize("name", precision.PRECISIONS[1:])
@pytest.mark.parametrize("kind", dense.KINDS)
def test_products_in_every_precision(name: str, kind: str, tmp_path: Path) -> None:
    case = dense.make_case("40x70x33", kind, tmp_path, [name])
    contender = trainstep_peer.TrainstepDense(DenseProblem.load(case.problem), name, 1)
    error = contender.losses(1)[0] - 1
    assert error <= dense.LIMITS[name]
    assert (error > dense.LIMITS["float32"]) == (name != "bf16_x6"), "the variant reaches the product"


@pytest.mark.parametrize("name", precision.PRECISIONS[1:])
def test_steps_in_every_precision(name: str, tmp_path: Path) -> None:
    case = train_step.make_case(train_step.Net.parse("70-40-10:64"), tmp_path, [name])
    problem = TrainProblem.load(case.problem)
    limit = case.variants[f"trainstep:{name}"].rtol
    plain = trainstep_peer.TrainstepStep(problem, "default", 1).losses(len(case.reference))
    losses = trainstep_peer.TrainstepStep(problem, name, 1).losses(len(case.reference))
    assert harness.relative_error(losses, case.reference) < limit
    assert losses != plain, "the variant reaches the trainer"


@pytest.mark.parametrize("peer", [trainstep_peer.TrainstepPredict, numpy_peer.NumpyPredict])
@pytest.mark.parametrize("net", ["4-8-3:1", "4-8-3:1100", "70-520-600-3:700"])
def test_contenders_answer_as_the_reference(peer: Any, net: str, tmp_path: Path) -> None:
    case = predict.make_case(net, tmp_path)
    contender = peer(PredictProblem.load(case.problem), "default", 1)
    assert harness.relative_error(contender.losses(2), case.reference * 2) <= case.rtol
    contender.problem.biases[-1][...] += 1e-3
    assert peer is trainstep_peer.TrainstepPredict or harness.relative_error(contender.losses(1), case.reference) > case.rtol


@pytest.mark.parametrize("text", ["4-8-3", "4-8-3:", "4-8-3:0", "4:1", "4-x-3:1"])
def test_nets_to_ask_are_read(text: str) -> None:
    assert predict.parse("784-128-10:1000") == ((784, 128, 10), 1000)
    with pytest.raises(ValueError, match="is not like 784-128-10:1"):
        predict.parse(text)


def test_a_run_ends_as_the_reference(tmp_path: Path) -> None:
    problem = fit.make_problem(train_step.Net((64, 16, 10), 200, "adam"), epochs=3)
    problem.save(str(tmp_path / "fit.npz"))
    problem = FitProblem.load(str(tmp_path / "fit.npz"))
    loss = fit.reference_loss(problem)
    contender = trainstep_peer.TrainstepFit(problem, "default", 1)
    assert harness.relative_error(contender.losses(2), [loss, loss]) <= fit.RTOL
    faster = trainstep_peer.TrainstepFit(replace(problem, lr=1.02 * problem.lr), "default", 1)
    assert harness.relative_error(faster.losses(1), [loss]) > fit.RTOL


def test_steps_of_optimizers_are_read() -> None:
    assert optimizers.parse("Adam:1000") == ("Adam", [(1000,)])
    assert optimizers.parse("rmsprop:2x3x4") == ("RMSprop", [(3, 4), (3, 4)])
    assert all(optimizers.parse(case) for case in optimizers.CASES)
    for wrong in ("Adam", "Adam:0", "Adam:1e6", "lion:10", ":10"):
        with pytest.raises(ValueError):
            optimizers.parse(wrong)


def test_what_a_step_moves(tmp_path: Path) -> None:
    moved = {rule: optimizers.make_case(f"{rule}:10", tmp_path).bytes for rule in ("Adam", "SGD")}
    assert moved == {"Adam": 280, "SGD": 200}
    assert optimizers.make_case("Adam:10", tmp_path).variants == {}
    low_bit = optimizers.make_case(optimizers.LOW_BIT, tmp_path)
    assert {name: v.bytes / 67_108_864 for name, v in low_bit.variants.items()} == {"trainstep:bfloat16": 20, "trainstep:8bit": 16}


STEPS = [(numpy_peer.NumpyOptimizer, rule) for rule in optimizers.RULES]
STEPS += [(trainstep_peer.TrainstepOptimizer, rule) for rule in optimizers.RULES if hasattr(ts.optim, rule)]


@pytest.mark.parametrize(("peer", "rule"), STEPS)
@pytest.mark.parametrize("size", ["100000", "3x5x7"])
def test_contenders_step_as_the_reference(peer: Any, rule: str, size: str, tmp_path: Path) -> None:
    case = optimizers.make_case(f"{rule}:{size}", tmp_path)
    contender = peer(OptimizerProblem.load(case.problem), "default", 1)
    for _ in range(2):  # a reset goes back to the start
        assert harness.relative_error(contender.losses(len(case.reference)), case.reference) < case.rtol
    contender.reset()
    for _ in range(3):
        assert case.loss_range[0] < contender.scalar(contender.step()) < case.loss_range[1]
    contender.params[-1].flat[-1] = 0  # a single element that was left out
    assert not case.loss_range[0] < contender.scalar(None)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("SGD", {"momentum": 0.91}),
        ("Adagrad", {"eps": 1e-7}),
        ("RMSprop", {"alpha": 0.991}),
        ("RMSprop", {"eps": 0.0}),
        ("Adadelta", {"rho": 0.91}),
        ("Adam", {"beta1": 0.91}),
        ("Adam", {"beta2": 0.9991}),
        ("Adam", {"eps": 0.0}),
        ("Adam", {"lr": 1.0001e-3}),
        ("Adamax", {"beta2": 0.9991}),
        ("NAdam", {"beta1": 0.901}),
        ("RAdam", {"beta2": 0.9991}),
    ],
)
def test_another_rule_is_seen(rule: str, options: dict[str, float], tmp_path: Path) -> None:
    case = optimizers.make_case(f"{rule}:1000", tmp_path)
    problem = OptimizerProblem.load(case.problem)
    contender = numpy_peer.NumpyOptimizer(replace(problem, options=problem.options | options), "default", 1)
    assert harness.relative_error(contender.losses(len(case.reference)), case.reference) > case.rtol


def test_an_element_that_is_no_number_is_seen(tmp_path: Path) -> None:
    case = optimizers.make_case("SGD:100000", tmp_path)
    contender = numpy_peer.NumpyOptimizer(OptimizerProblem.load(case.problem), "default", 1)
    contender.reset()  # what np.empty has found may be anything
    contender.update.states[0, 70_000] = math.nan
    contender.reset = lambda: None  # type: ignore[method-assign]
    assert not harness.relative_error(contender.losses(1), case.reference[:1]) <= case.rtol


def test_layers_and_shapes_are_read() -> None:
    assert layers.name_list("gelu_tanh,mse") == ["gelu_tanh", "mse"]
    assert layers.shape_list("2x3,128x512") == ["2x3", "128x512"]
    assert set(layers.NAMES) >= {*_core.activations, *ts.losses.LOSSES} - {"identity"}
    for read, wrong in [
        (layers.name_list, "identity"),
        (layers.shape_list, "2"),
        (layers.shape_list, "2x3x4"),
        (layers.shape_list, "0x3"),
    ]:
        with pytest.raises(argparse.ArgumentTypeError):
            read(wrong)


def test_every_layer_is_timed() -> None:
    made = {type(trainstep_peer.layer(name, 4)) for name in layers.LAYERS}
    assert made == set(get_args(Layer))


def test_layers_and_losses_have_shapes_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layers, "LAYER_SHAPES", ("4x2",))
    monkeypatch.setattr(layers, "LOSS_SHAPES", ("3x2",))
    made = [layers.make_cases(["relu", "mse"], shapes, str(tmp_path)) for shapes in ([], ["5x6"])]
    assert [[case.name for case in cases] for cases in made] == [["relu, 4 x 2", "mse, 3 x 2"], ["relu, 5 x 6", "mse, 5 x 6"]]


def test_what_a_layer_moves(tmp_path: Path) -> None:
    cases = {
        name: layers.make_case(name, "4x8", tmp_path) for name in ("relu", "standardize", "layer_norm", "dense", "residual", "mse")
    }
    moved = {name: case.bytes / 4 for name, case in cases.items()}
    assert moved == {"relu": 160, "standardize": 128, "layer_norm": 208, "dense": 376, "residual": 592, "mse": 96}
    assert {name: case.flops for name, case in cases.items() if case.flops} == {
        "dense": 6 * 4 * 8 * 8,
        "residual": 2 * 6 * 4 * 8 * 8,
    }
    assert {name for name, case in cases.items() if not case.bare_loop} == {"dense", "residual"}


@pytest.mark.parametrize("name", layers.NAMES)
def test_contenders_go_forward_and_backward_as_the_reference(name: str, tmp_path: Path) -> None:
    case = layers.make_case(name, "64x40", tmp_path)
    contender = trainstep_peer.TrainstepLayer(LayerProblem.load(case.problem), "default", 1)
    for _ in range(2):  # a reset goes back to the start
        numbers = contender.losses(len(case.reference))
        assert len(numbers) == len(case.reference)
        assert harness.relative_error(numbers, case.reference) <= case.rtol
    for _ in range(3):
        result = contender.step()
    assert case.loss_range[0] <= contender.scalar(result) <= case.loss_range[1]
    contender.dx[-1] = 0  # a row that was left out
    assert not case.loss_range[0] <= contender.scalar(result) <= case.loss_range[1]


class Given(LayerTask):
    """A contender whose step makes what it was given."""

    def __init__(self, problem: LayerProblem, made: list[Any]) -> None:
        super().__init__(problem, "default", 1)
        self.made = made

    def reset(self) -> None: ...

    def step(self) -> None: ...

    def results(self) -> list[Any]:
        return self.made


def layer_norm_with_another_eps(a: dict[str, Any]) -> list[Any]:
    y, mean, inv_std = reference.layer_norm(a["x"], a["gamma"], a["beta"], eps=1e-6)
    return [y, *reference.layer_norm_backward(a["dy"], a["x"], mean, inv_std, a["gamma"])]


def batch_norm_of_the_running_statistics(a: dict[str, Any]) -> list[Any]:
    y, mean, inv_std = reference.batch_norm(a["x"], a["gamma"], a["beta"], a["running_mean"], a["running_var"])
    return [y, *reference.batch_norm_backward(a["dy"], a["x"], mean, inv_std, a["gamma"], training=False)]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("layer_norm", layer_norm_with_another_eps),
        ("batch_norm", batch_norm_of_the_running_statistics),
        ("gelu", lambda a: layers.exact_results("gelu_tanh", a)),
        ("softmax", lambda a: layers.exact_results("softmax", a | {"x": 2 * a["x"]})),
        ("relu", lambda a: [layers.exact_results("relu", a)[0], a["dy"]]),
        ("dense", lambda a: [*layers.exact_results("dense", a)[:3], 0 * a["bias"]]),
        ("residual", lambda a: layers.exact_results("residual", a | {"0.bias": 0 * a["0.bias"]})),
        ("mse", lambda a: [r / 2 for r in layers.exact_results("mse", a)]),
        ("huber", lambda a: layers.exact_results("mae", a)),
        ("standardize", lambda a: [math.nan * r for r in layers.exact_results("standardize", a)]),
    ],
)
def test_another_layer_is_seen(name: str, made: Any, tmp_path: Path) -> None:
    case = layers.make_case(name, "64x40", tmp_path)
    problem = LayerProblem.load(case.problem)
    right = Given(problem, layers.exact_results(name, problem.arrays))
    assert harness.relative_error(right.losses(1), case.reference) < 1e-12
    wrong = Given(problem, made(problem.arrays))
    assert not harness.relative_error(wrong.losses(1), case.reference) <= case.rtol
    assert not case.loss_range[0] <= wrong.scalar(None) <= case.loss_range[1]


def test_the_numbers_of_dropout(tmp_path: Path) -> None:
    case = layers.make_case("dropout", "100x100", tmp_path)
    problem = LayerProblem.load(case.problem)
    x, dy = problem.arrays["x"], problem.arrays["dy"]
    mask = np.indices(x.shape).sum(axis=0) % 2
    assert Given(problem, [2 * x * mask, 2 * dy * mask]).losses(3) == case.reference == [0.5, 1, 1]
    assert Given(problem, [2 * x * mask, 2 * dy * (1 - mask)]).losses(3) == [0.5, 1, 0]
    assert Given(problem, [x * mask, 2 * dy * mask]).losses(3) == [0.5, 0, 1]
    assert Given(problem, [2 * x, 2 * dy]).losses(3) == [1, 1, 1]
    assert case.rtol == pytest.approx(0.06)
    assert Given(problem, [2 * x, 2 * dy]).scalar(None) == 2


def test_the_summary_marks_what_is_below(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(name: str, ratio: float, **others: Any) -> dict[str, Any]:
        rows = [{"peer": "trainstep", "status": "timed", "seconds": {"median": 1e-6}, "ratio": dict.fromkeys(RATIO, 1.0)}]
        rows.append(rows[0] | {"peer": "other", "seconds": {"median": ratio * 1e-6}, "ratio": dict.fromkeys(RATIO, ratio)})
        rows.sort(key=lambda r: r["seconds"]["median"])
        return {"name": name, "threads": 1, "rows": rows, "busy_with_others": 0.0} | others

    failed = case("c", 2.0)
    failed["rows"][0] = {"peer": "trainstep", "status": "failed"}
    printed = layers.summary([case("a", 1.6), case("b", 1.4), case("d", 0.5), failed])
    marked = [line.split(",")[0].strip("| ") for line in printed.splitlines() if "**below 1.5**" in line]
    assert marked == ["b", "d"]
    assert "failed" in printed
    assert printed.endswith("\n2 of 4 below 1.5, 1 without a ratio.\n")
    assert "busy with others in 1" in layers.summary([case("a", 1.6, busy_with_others=0.5)])


def test_every_public_function_is_called() -> None:
    names = set(trainstep_peer.TrainstepCalls().calls())
    assert {f"ops.{name}" for name in ts.ops.__all__} <= names
    assert {f"optim.{name}_step_" for name in _core.optimizers} <= names
    assert {"optim.SGD.step", "optim.Adam.step", "init.he_normal", "config", "Trainer.step 4-16-3, 16 rows"} <= names
    assert set(numpy_peer.NumpyCalls().calls()) <= names, "a call of NumPy's that none of trainstep's is compared with"


# --- harness ---------------------------------------------------------------------------------------------------------------------


def run_quickly(monkeypatch: pytest.MonkeyPatch, case: harness.Case, options: harness.Options) -> dict[str, Any]:
    monkeypatch.setattr(roofline, "round_trip", lambda: 1e-7)
    (entry,) = harness.run("train_step", [case], options, ROOF)
    return entry


def small_case(folder: Path) -> harness.Case:
    return train_step.make_case(train_step.Net((4, 8, 3), 6, "adam"), folder)


def test_contenders_are_checked_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = run_quickly(monkeypatch, small_case(tmp_path), QUICK)
    assert sorted(row["peer"] for row in entry["rows"]) == ["numpy", "trainstep"]
    for row in entry["rows"]:
        assert row["status"] == "timed", row["reason"]
        assert len(row["samples"]) == 2
        assert row["seconds"]["lower_quartile"] <= row["seconds"]["median"] <= row["seconds"]["upper_quartile"]
        assert row["cold_seconds"] > 0
        assert row["roofline"]["share"] > 0
    assert entry["round_trip_seconds"] == []  # one thread
    assert not harness.failed([entry])
    printed = harness.table(entry)
    assert "4-8-3, batch 6, adam, 1 thread" in printed
    assert "of the roofline" in printed


def test_round_trips_are_recorded_around_the_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = iter([1e-7, 1.1e-7, 5.4e-7])
    monkeypatch.setattr(roofline, "round_trip", lambda: next(seconds))
    entry = harness.run_case(small_case(tmp_path), "train_step", 2, QUICK)
    assert entry["round_trip_seconds"] == [1e-7, 1.1e-7, 5.4e-7]
    for row in entry["rows"]:
        row["roofline"] = roofline.share(ROOF, row["seconds"]["median"], entry, 1)
    assert "Core to core and back: 100 ns before, 540 ns after; **the cores have moved" in harness.table(entry)


def test_a_wrong_contender_is_rejected_before_it_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = small_case(tmp_path)
    wrong = replace(case, reference=[loss * 1.001 for loss in case.reference])
    entry = run_quickly(monkeypatch, wrong, QUICK)
    assert {row["status"] for row in entry["rows"]} == {"rejected"}
    assert all("samples" not in row for row in entry["rows"])
    assert "off the float64 reference by 1.0e-03" in harness.table(entry)
    assert harness.failed([entry])


def test_a_peer_that_is_missing_is_skipped_and_one_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "absent.py").write_text("import no_such_package\n")
    (tmp_path / "peers" / "broken.py").write_text("raise RuntimeError('out of order')\n")
    unable = "class Unable:\n    versions = dict\n    class problem_type:\n        load = str\n"
    unable += "    @staticmethod\n    def lacks(problem):\n        return 'it has no such thing'\nTASKS = {'train_step': Unable}\n"
    (tmp_path / "peers" / "unable.py").write_text(unable)
    options = replace(QUICK, peers=["absent", "broken", "unable", "trainstep"], peer_folder=tmp_path)
    rows = {row["peer"]: row for row in run_quickly(monkeypatch, small_case(tmp_path), options)["rows"]}
    assert rows["trainstep"]["status"] == "timed", rows["trainstep"]["reason"]
    assert (rows["absent"]["status"], rows["broken"]["status"]) == ("skipped", "failed")
    assert "no_such_package is not installed" in rows["absent"]["reason"]
    assert "out of order" in rows["broken"]["reason"]
    assert (rows["unable"]["status"], rows["unable"]["reason"]) == ("skipped", "it has no such thing")


def test_variants_are_contenders_with_a_tolerance_and_bytes_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variants = {name: harness.Variant(1.0, 7.0) for name in ("trainstep:bf16_x6", "numpy:other", "absent:other")}
    case = replace(small_case(tmp_path), rtol=0.0, flops=0, bare_loop=True, variants=variants)
    options = replace(QUICK, peers=["trainstep", "numpy"])
    entry = run_quickly(monkeypatch, case, options)
    rows = {row["peer"]: row for row in entry["rows"]}
    assert set(rows) == {"trainstep", "numpy", "trainstep:bf16_x6", "numpy:other"}
    assert rows["trainstep"]["status"] == rows["numpy"]["status"] == "rejected"
    for name in ("trainstep:bf16_x6", "numpy:other"):
        assert rows[name]["status"] == "timed", rows[name]["reason"]
        assert rows[name]["gbytes_per_second"] == pytest.approx(7e-9 / rows[name]["seconds"]["median"])
        assert rows[name]["roofline"]["stream_peak"] == pytest.approx(np.median(entry["bare_loop_rates"]))
    printed = harness.table(entry)
    assert "of a bare loop" in printed
    assert "GFLOP/s" not in printed


def test_a_variant_may_have_a_range_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variants = {
        f"trainstep:{name}": harness.Variant(1.0, 7.0, loss_range) for name, loss_range in (("bf16_x6", None), ("bf16", (-1, 0)))
    }
    entry = run_quickly(monkeypatch, replace(small_case(tmp_path), variants=variants), replace(QUICK, peers=["trainstep"]))
    statuses = {row["peer"]: (row["status"], row["reason"]) for row in entry["rows"]}
    assert statuses["trainstep"][0] == statuses["trainstep:bf16_x6"][0] == "timed"
    assert statuses["trainstep:bf16"][0] == "rejected"
    assert "after a timed block, outside -1 to 0" in statuses["trainstep:bf16"][1]


class Ways(DenseTask):
    """A peer with two ways of its own, and the same two of a variant."""

    variants = ("slow", "quick")

    def __init__(self, problem: Any, variant: str, threads: int) -> None:
        self.problem, self.variant = problem, variant

    @classmethod
    def ways(cls, variant: str) -> tuple[str, ...]:
        return tuple(f"{variant} {way}".strip() for way in cls.variants)

    def reset(self) -> None: ...

    def step(self) -> None: ...

    def scalar(self, result: None) -> float:
        return 0.0


def test_a_worker_keeps_the_fastest_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = dense.make_case("2x3x4", "forward", tmp_path).problem
    monkeypatch.setattr(worker.Worker, "_try", staticmethod(lambda peer: 2.0 if peer.variant.endswith("slow") else 1.0))
    asked = worker.Worker(Ways, 1)
    assert asked.setup(problem) == {"variant": "quick", "variant_seconds": {"slow": 2.0, "quick": 1.0}}
    assert asked.setup(problem, "low")["variant"] == "quick"
    assert asked.peer.variant == "low quick"
    alone = worker.Worker(numpy_peer.NumpyDense, 1)
    assert alone.setup(problem) == alone.setup(problem, "low") == {"variant": "default"}


def test_cold_calls_take_no_longer_than_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = worker.Worker(Ways, 1)
    asked.peer = Ways(None, "", 1)
    for each, count in ((0.0, 7), (1e-3, 2), (1.0, 1)):
        monkeypatch.setattr(asked, "_cold_call", lambda idle, each=each: each)
        assert len(asked.block(calls=1, seconds=2e-3, cold=7, idle_seconds=0)["cold_seconds"]) == count


def test_the_summary_of_precisions_names_the_fastest_of_each_kind() -> None:
    def row(peer: str, microseconds: float) -> dict[str, Any]:
        blocks = [[1e-6 * microseconds] * 3, [2e-6 * microseconds] * 2]
        return {"peer": peer, "status": "timed", "samples": blocks, "gflops": 1 / microseconds, "loss_error": 1e-7}

    times = {"torch:low": 1, "trainstep:bf16": 2, "torch:lower": 3, "torch": 4, "trainstep": 6, "numpy": 8}
    rows = [row(peer, t) for peer, t in times.items()] + [{"peer": "trainstep:bf16_x3", "status": "rejected"}]
    lines = precision.summary([{"name": "a", "threads": 2, "rows": rows}]).splitlines()[4:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [c[:2] for c in cells] == [["a, 2 threads", "float32"], ["a, 2 threads", "bf16"]]
    assert cells[0][4:] == ["1.00 (1.00 to 1.00)", "torch 0.67 (0.67 to 0.67)", "torch:low 0.17 (0.17 to 0.17)"]
    assert cells[1][4:] == ["3.00 (3.00 to 3.00)", "torch 2.00 (2.00 to 2.00)", "torch:low 0.50 (0.50 to 0.50)"]
    alone = precision.summary([{"name": "a", "threads": 2, "rows": rows[1:2]}])
    assert [cell.strip() for cell in alone.splitlines()[4].strip("|").split("|")][4:] == ["-", "-", "-"]


def test_a_peer_runs_without_the_compiled_core() -> None:
    code = f"import sys; sys.path[0] = {str(Path(worker.__file__).parent)!r}\nimport worker; worker.adopt_package()\n"
    code += "import trainstep.bench.peers.numpy\nassert 'trainstep._core' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_calls_are_compared_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = calls.run(replace(QUICK, blocks=1))
    assert data["rejected"] == []
    assert not calls.failed(data)
    rows = {row["name"]: row["seconds"] for row in data["rows"]}
    assert set(rows["ops.tanh"]) == {"trainstep", "numpy"}
    assert all(seconds > 0 for row in rows.values() for seconds in row.values())
    printed = calls.report(data)
    assert all(name in printed for name in rows)


def test_a_difference_is_relative_to_the_largest_number() -> None:
    assert calls.difference([1.0, 100.1], [1.0, 100.0]) == pytest.approx(1e-3)
    assert calls.difference(None, [1.0]) == calls.difference([1.0], None) == 0
    assert calls.difference([1.0], [1.0, 2.0]) == math.inf
    assert not calls.difference([math.nan], [1.0]) <= 1


# --- training runs ---------------------------------------------------------------------------------------------------------------


def test_runs_in_every_precision(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [accuracy.digits(epochs=1), accuracy.regression(rows=400, epochs=1)]
    assert [len(p.train[0]) + len(p.test[0]) for p in problems] == [1797, 500]
    small = [replace(problem, sizes=(problem.sizes[0], 16, problem.sizes[-1])) for problem in problems]
    data = accuracy.run(small, ["bf16", "bf16_x6"], [0, 1])
    for problem in data["problems"]:
        runs = problem["runs"]
        assert list(runs) == ["float32", "bf16", "bf16_x6"], "float32 is always there to compare with"
        assert all(math.isfinite(value) for of in runs.values() for run in of for value in run.values())
        assert runs["float32"][0] != runs["float32"][1], "seeds differ"
        assert runs["float32"] != runs["bf16"], "precisions differ"
        for run, plain in zip(runs["bf16_x6"], runs["float32"], strict=True):
            assert run["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    printed = accuracy.report(data)
    assert "### digits, 64-16-10: 1,437 rows, tested on 360, batch 64, 1 epochs" in printed
    assert "digits: bf16_x6" in capsys.readouterr().err
    assert json.loads(json.dumps(data)) == data


def test_mnist_is_read(tmp_path: Path) -> None:
    images = np.full((3, 28, 28), 255, np.uint8)
    np.savez(
        tmp_path / "m.npz", x_train=images, y_train=np.arange(3, dtype=np.uint8), x_test=images[:1], y_test=np.zeros(1, np.uint8)
    )
    problem = accuracy.mnist(tmp_path / "m.npz")
    assert problem.train[0].shape == (3, 784)
    assert (problem.train[0] == 1).all()
    assert problem.train[0].dtype == np.float32
    assert problem.test[1].dtype == np.int64


@pytest.mark.parametrize(
    ("name", "accuracy_", "loss", "against"),
    [
        ("bf16", 0.9812, 0.0509, ["-0.09 points", "1.0180"]),
        ("bf16", 0.9810, 0.0511, ["-0.11 points, **over 0.1 points worse**", "1.0220, **over 2% worse**"]),
        ("bf16", 0.9900, 0.0400, ["+0.79 points", "0.8000"]),
        ("bf16_x3", 0.9900, 0.0501, ["+0.79 points, **outside the seeds' spread**", "1.0020"]),
        ("bf16_x6", 0.9821, math.nan, ["+0.00 points", "nan, **over 2% worse**, **outside the seeds' spread**"]),
    ],
)
def test_what_is_too_far_from_float32_is_marked(name: str, accuracy_: float, loss: float, against: list[str]) -> None:
    plain = [{"accuracy": 0.9820, "loss": 0.049}, {"accuracy": 0.9822, "loss": 0.051}]
    runs = {"float32": plain, name: [{"accuracy": accuracy_, "loss": loss}]}
    assert list(accuracy.cells(runs, "float32", "accuracy")) == ["98.21 (98.20 to 98.22)", ""]
    assert list(accuracy.cells(runs, "float32", "loss")) == ["0.05000 (0.04900 to 0.05100)", ""]
    assert [list(accuracy.cells(runs, name, measure))[1] for measure in ("accuracy", "loss")] == against
