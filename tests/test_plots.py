"""Pictures of training: their numbers against the same calculated by hand, and the files."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import nn, optim, plots, schedules

from .helpers import Array

pytestmark = pytest.mark.one_level

Model = nn.Sequential


@pytest.fixture
def data() -> tuple[Array, Array]:
    x, y = ts.data.load_digits()
    return x[:60], y[:60]


def network(**options: Any) -> Model:
    return nn.Sequential(nn.Dense(64, 8, activation="relu"), nn.BatchNorm(8), nn.Dense(8, 10), seed=3, **options)


def state(model: Model) -> dict[str, Array]:
    return {name: view.copy() for name, view in (model.parameters() | model.buffers()).items()}


def parameters(model: Model) -> dict[str, Array]:
    return {name: view.copy() for name, view in model.parameters().items()}


def loss_at(model: Model, weights: dict[str, Array], x: Array, y: Array, loss: Any = "softmax_cross_entropy") -> float:
    """The loss of a copy of a model with other parameters."""
    other = copy.deepcopy(model)
    for name, view in other.parameters().items():
        view[...] = weights[name]
    return ts.Trainer(other, loss).evaluate(x, y)["loss"]


# --- landscapes ------------------------------------------------------------------------------------------------------------------


def test_a_landscape_is_the_loss_at_its_points(data: tuple[Array, Array], dtype: np.dtype) -> None:
    model = network(dtype=dtype)
    before = state(model)
    landscape = plots.landscape(model, *data, steps=5, span=0.5, seed=7)
    np.testing.assert_allclose(landscape.alpha, [-0.5, -0.25, 0, 0.25, 0.5])
    np.testing.assert_array_equal(landscape.alpha, landscape.beta)
    assert landscape.center == landscape.loss[2, 2] == ts.Trainer(model).evaluate(*data)["loss"]
    first, second = landscape.directions
    for i, j in ((0, 0), (1, 4), (4, 2)):
        a, b = landscape.alpha[i], landscape.beta[j]
        weights = {name: w + a * first[name] + b * second[name] for name, w in before.items() if name in first}
        np.testing.assert_allclose(landscape.loss[i, j], loss_at(model, weights, *data), rtol=1e-6)
    assert len(np.unique(landscape.loss)) == 25
    after = state(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_random_direction_is_as_long_as_the_weights_of_each_unit(data: tuple[Array, Array]) -> None:
    model = network()
    first, second = plots.landscape(model, *data, steps=2, seed=1).directions
    for direction in (first, second):
        for name, w in model.parameters().items():
            assert direction[name].shape == w.shape
            if w.ndim == 1:
                assert not direction[name].any()
            else:
                lengths = [np.linalg.norm(a.astype(float), axis=0) for a in (direction[name], w)]
                np.testing.assert_allclose(*lengths, rtol=1e-12)
    assert abs(np.sum(first["0.weight"] * second["0.weight"])) < 0.3 * np.sum(first["0.weight"] ** 2)


def test_random_directions_follow_from_the_seed(data: tuple[Array, Array]) -> None:
    model = network()
    one, same, other = (plots.landscape(model, *data, steps=2, seed=seed).loss for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_rescaled_relu_networks_look_the_same(data: tuple[Array, Array]) -> None:
    """What normalising by unit is for: relu(s * z) = s * relu(z), so a layer times s under one divided by s computes the same."""
    model = nn.Sequential(nn.Dense(64, 8, activation="relu"), nn.Dense(8, 10), seed=3, dtype="float64")
    rescaled = copy.deepcopy(model)
    views = rescaled.parameters()
    views["0.weight"] *= 16
    views["1.weight"] /= 16
    one, other = (plots.landscape(m, *data, steps=4).loss for m in (model, rescaled))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_what_is_pruned_stays_so_in_a_landscape(data: tuple[Array, Array]) -> None:
    model = network().prune(0.5)
    for direction in plots.landscape(model, *data, steps=2).directions:
        for name, w in model.parameters().items():
            assert not direction[name][w == 0].any()
        assert direction["0.weight"].any()


def test_directions_of_ones_own(data: tuple[Array, Array]) -> None:
    model = network(dtype="float64")
    bias = np.linspace(-1, 1, 10)
    weight = np.random.default_rng(0).normal(size=(8, 10))
    landscape = plots.landscape(model, *data, directions=({"2.bias": bias}, {"2.weight": weight}), steps=3, span=2.0)
    weights = parameters(model)
    weights["2.bias"] += 2 * bias
    weights["2.weight"] -= 2 * weight
    np.testing.assert_allclose(landscape.loss[2, 0], loss_at(model, weights, *data), rtol=1e-12)
    assert landscape.explained is None
    assert landscape.trajectory is None


def test_a_landscape_of_another_loss(data: tuple[Array, Array]) -> None:
    x, y = data
    model = network()
    targets = np.eye(10, dtype="float32")[y]

    def halved(pred: Array, true: Array) -> tuple[float, Array]:
        return float(((pred - true) ** 2).mean() / 2), (pred - true) / pred.size

    whole = plots.landscape(model, x, targets, loss="mse", steps=3)
    half = plots.landscape(model, x, targets, loss=halved, steps=3)
    np.testing.assert_allclose(whole.loss, 2 * half.loss, rtol=1e-6)


def test_the_model_is_not_touched_whatever_happens(data: tuple[Array, Array]) -> None:
    model = network()
    before, calls = state(model), 0

    def failing(pred: Array, true: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        now = state(model)
        assert all(np.array_equal(before[name], now[name]) for name in before)
        if calls == 5:
            raise RuntimeError("the fifth")
        return 1.0, np.zeros_like(pred)

    with pytest.raises(RuntimeError, match="the fifth"):
        plots.landscape(model, *data, loss=failing, steps=3)
    after = state(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_landscape_in_the_plane_of_a_trajectory(data: tuple[Array, Array]) -> None:
    model = network(dtype="float64")
    trainer = ts.Trainer(model, optimizer=optim.Adam(lr=0.01))
    states = [parameters(model)]
    for _ in range(6):
        trainer.fit(*data, epochs=1, batch_size=20)
        states.append(parameters(model))
    landscape = plots.landscape(model, *data, steps=3, trajectory=states)
    first, second = (np.concatenate([part.ravel() for part in d.values()]) for d in landscape.directions)
    ways = np.array([np.concatenate([(s[name] - states[-1][name]).ravel() for name in s]) for s in states])
    assert abs(first @ second) < 1e-9 * np.linalg.norm(first) * np.linalg.norm(second)
    # The places are the nearest points of the plane: what is left is perpendicular to it.
    places = landscape.trajectory
    assert places is not None
    rest = ways - places @ np.stack([first, second])
    assert np.abs(rest @ np.stack([first, second]).T).max() < 1e-9 * np.abs(ways).max()
    np.testing.assert_allclose(places[-1], 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(places).max(axis=0), 0.8)
    assert (places[0] <= 0).all()
    # And no plane is nearer: the eigenvalues of the second moments say how near one can be.
    eigenvalues = np.sort(np.linalg.eigvalsh(ways @ ways.T))[::-1]
    np.testing.assert_allclose(landscape.explained, eigenvalues[:2] / eigenvalues.sum())
    np.testing.assert_allclose((rest**2).sum(), eigenvalues[2:].sum(), rtol=1e-6)


def test_a_trajectory_over_random_directions(data: tuple[Array, Array]) -> None:
    model = network(dtype="float64")
    directions = plots.landscape(model, *data, steps=2).directions
    away = {name: w + 0.5 * directions[0][name] - 0.25 * directions[1][name] for name, w in model.parameters().items()}
    landscape = plots.landscape(model, *data, steps=2, directions="random", trajectory=iter([away]))
    np.testing.assert_allclose(landscape.trajectory, [[0.5, -0.25]], rtol=1e-12)


def test_a_loss_that_overflows_is_drawn(data: tuple[Array, Array], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = network()
    huge = {"2.weight": np.full((8, 10), 1e38)}
    landscape = plots.landscape(model, *data, directions=(huge, {"2.bias": np.arange(10.0)}), span=100.0, steps=3)
    assert not np.isfinite(landscape.loss[[0, 2]]).any()
    assert landscape.loss[1, 1] == landscape.center
    least, largest = landscape.loss[1].min(), landscape.loss[1].max()
    assert repr(landscape) == f"Landscape(center={landscape.center:.4g}, from {least:.4g} to {largest:.4g})"
    landscape.plot(tmp_path / "overflow.png", kind="both")
    assert len(landscape.figure("contour").axes) == 2, "the rest has contours, and their bar"


def test_a_network_that_has_diverged_is_drawn(data: tuple[Array, Array], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = network()
    model.parameters()["0.weight"][0, 0] = np.nan
    landscape = plots.landscape(model, *data, steps=2, kind="both", path=tmp_path / "nan.png")
    assert np.isnan(landscape.loss).all()
    assert repr(landscape) == "Landscape(nan)"
    assert (tmp_path / "nan.png").exists()


@pytest.mark.parametrize("kind", ["contour", "surface", "both"])
def test_landscapes_are_drawn(data: tuple[Array, Array], tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    model = network()
    other = {name: w + 0.1 * i for i, (name, w) in enumerate(model.parameters().items())}
    third = {name: w * 2 for name, w in model.parameters().items()}
    landscape = plots.landscape(model, *data, steps=5, kind=kind, path=tmp_path / "now.png", trajectory=[other, third])
    assert (tmp_path / "now.png").read_bytes().startswith(b"\x89PNG")
    names = [axes.name for axes in landscape.figure().axes if axes.get_label() != "<colorbar>"]
    assert names == {"contour": ["rectilinear"], "surface": ["3d"], "both": ["rectilinear", "3d"]}[kind]
    assert repr(landscape).startswith(f"Landscape(center={landscape.center:.4g}")
    assert "matplotlib.pyplot" not in sys.modules


# --- trajectories ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [plots.ravine, plots.rosenbrock, plots.saddle, plots.beale])
def test_gradients_are_those_of_the_values(f: Callable[[Any], Any]) -> None:
    points = np.random.default_rng(0).uniform(-2, 2, size=(2, 50))
    values, gradients = f(points)
    assert values.shape == (50,)
    assert gradients.shape == (2, 50)
    for k in range(2):
        step = np.zeros((2, 1))
        step[k] = 1e-5
        slope = (f(points + step)[0] - f(points - step)[0]) / 2e-5
        np.testing.assert_allclose(gradients[k], slope, rtol=1e-6, atol=1e-6)
    value, gradient = f(points[:, 0])
    # NumPy's loops and its scalars may round powers differently.
    np.testing.assert_allclose(value, values[0], rtol=1e-14)
    np.testing.assert_allclose(gradient, gradients[:, 0], rtol=1e-14)


@pytest.mark.parametrize(
    ("f", "lowest", "value"),
    [(plots.ravine, (0, 0), 0), (plots.rosenbrock, (1, 1), 0), (plots.saddle, (0, -1), -0.25), (plots.beale, (3, 0.5), 0)],
)
def test_lowest_points(f: Callable[[Any], Any], lowest: tuple[float, float], value: float) -> None:
    found, gradient = f(lowest)
    assert found == value
    assert not gradient.any()
    around = np.array(lowest, float)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(2, 100))
    assert (f(around)[0] > value).all()


def test_trajectories_are_the_formulas_by_hand() -> None:
    paths = plots.trajectories(
        {"SGD": optim.SGD(lr=0.05), "momentum": optim.SGD(lr=0.02, momentum=0.9), "Adam": optim.Adam(lr=0.3)},
        plots.ravine,
        start=(-4, 1),
        steps=20,
    )
    slope = np.array([1.0, 25.0])
    w = {name: np.array([-4.0, 1.0]) for name in paths.points}
    change, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(21):
        for name, points in paths.points.items():
            np.testing.assert_allclose(points[t], w[name], rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(paths.values[name][t], (slope * w[name] ** 2).sum() / 2, rtol=1e-9)
        w["SGD"] = w["SGD"] - 0.05 * slope * w["SGD"]
        change = 0.9 * change + slope * w["momentum"]
        w["momentum"] = w["momentum"] - 0.02 * change
        g = slope * w["Adam"]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w["Adam"] = w["Adam"] - 0.3 * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    assert all(points.shape == (21, 2) for points in paths.points.values())


def test_the_given_optimizers_stay_as_they_are() -> None:
    given = optim.Adam(lr=schedules.cosine(0.3, total=10))
    one, other = (plots.trajectories([given], plots.rosenbrock, (-1, 1), steps=10).points["Adam"] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert np.array_equal(one[-1], one[-2]) is False
    ts.Trainer(network(), optimizer=given)  # which only one without parameters can be given


def test_a_function_may_do_what_it_likes_with_its_argument() -> None:
    def spoiling(w: Array) -> tuple[float, Array]:
        gradient = w.copy()
        w[...] = 1000
        return 0.0, gradient

    points = plots.trajectories([optim.SGD(lr=0.5)], spoiling, (1, 2), steps=2).points["SGD"]
    np.testing.assert_array_equal(points, [[1, 2], [0.5, 1], [0.25, 0.5]])


def test_a_path_that_diverges_leaves_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    optimizers = [optim.SGD(lr=1.0), optim.SGD(lr=0.07)]
    paths = plots.trajectories(optimizers, plots.ravine, (-4, 1), steps=400)
    assert not np.isfinite(paths.values["SGD(lr=1.0)"][-1])
    (left, right), (bottom, top) = paths.limits
    assert -6 < left < -4 < 0 < right < 3
    assert -3 < bottom < 0 < 1 < top < 3
    paths.plot(tmp_path / "diverges.png")
    paths.plot(tmp_path / "diverges.png", kind="together")


def test_limits_of_ones_own() -> None:
    pytest.importorskip("matplotlib")
    paths = plots.trajectories([optim.SGD(lr=0.05)], plots.ravine, (-4, 1), steps=3, limits=((-9, 8), (-7, 6)))
    (axes,) = paths.figure().axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((-9, 8), (-7, 6))


def test_a_flat_function_and_a_path_of_one_point_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = plots.trajectories([optim.SGD(lr=0.1)], lambda w: (1.0, np.zeros(2)), (2, 3), path=tmp_path / "flat.png")
    assert (paths.points["SGD"] == [2, 3]).all()
    assert (tmp_path / "flat.png").exists()


def test_names_of_a_list() -> None:
    same = optim.SGD(lr=0.1)
    given = [optim.Adam(lr=0.1), same, optim.SGD(lr=0.1, momentum=0.9), same, optim.SGD(lr=0.2)]
    paths = plots.trajectories(given, plots.ravine, (1, 1), steps=1)
    assert list(paths.points) == [
        "Adam",
        "SGD(lr=0.1, momentum=0.0) 1",
        "SGD(lr=0.1, momentum=0.9)",
        "SGD(lr=0.1, momentum=0.0) 3",
        "SGD(lr=0.2, momentum=0.0)",
    ]
    assert repr(plots.trajectories([same], plots.ravine, (1, 1), steps=1)) == "Trajectories(SGD: 28.53)"


# --- schedules -------------------------------------------------------------------------------------------------------------------


def test_rates_are_the_schedules_numbers() -> None:
    cosine = schedules.cosine(0.1, total=30)

    def own(t: int) -> float:
        assert type(t) is int
        return 0.5 / (t + 1)

    rates = plots.schedules([cosine, schedules.linear(0.1, total=30), schedules.linear(0.2, total=30), own], steps=40)
    assert list(rates.rates) == ["cosine", "linear(lr=0.1)", "linear(lr=0.2)", "own"]
    np.testing.assert_array_equal(rates.rates["cosine"], cosine(np.arange(40)))
    np.testing.assert_array_equal(rates.rates["own"], [0.5 / (t + 1) for t in range(40)])
    assert repr(rates) == "Rates(cosine, linear(lr=0.1), linear(lr=0.2), own; steps=40)"


@pytest.mark.parametrize(("count", "kind", "panels"), [(1, "panels", 1), (5, "panels", 5), (9, "panels", 9), (9, "together", 1)])
def test_schedules_are_drawn(tmp_path: Path, count: int, kind: str, panels: int) -> None:
    pytest.importorskip("matplotlib")
    given = {f"rate {i}": schedules.exponential(0.1, 0.01 * i) for i in range(count)}
    rates = plots.schedules(given, 50, kind=kind, path=tmp_path / "rates.svg")
    assert (tmp_path / "rates.svg").read_text().startswith("<?xml")
    axes = rates.figure().axes
    assert len(axes) == panels
    lines = [line for a in axes for line in a.get_lines()]
    assert [line.get_label() for line in lines] == list(given)
    np.testing.assert_array_equal(lines[-1].get_ydata(), given[f"rate {count - 1}"](np.arange(50)))
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == (count if kind == "together" else 1)


# --- what does not fit -----------------------------------------------------------------------------------------------------------

SGD = optim.SGD(lr=0.1)
BOUND = optim.SGD([np.zeros(2)], lr=0.1)
NET = nn.Sequential(nn.Dense(2, 2), seed=0)
X, Y = np.eye(2), np.array([0, 1])
HERE = parameters(NET)
THERE = {name: w + 1 for name, w in HERE.items()}


def land(**options: Any) -> Any:
    return plots.landscape(NET, X, Y, **({"steps": 2} | options))


def go(optimizers: Any = (SGD,), f: Any = plots.ravine, start: Any = (1, 1), **options: Any) -> Any:
    return plots.trajectories(optimizers, f, start, **options)


def gives(result: Any) -> Callable[[Array], Any]:
    return lambda w: result


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no model": (lambda: plots.landscape(3, X, Y), TypeError, "landscape: model int"),
    "span": (lambda: land(span=0), ValueError, "landscape: span 0 above"),
    "one step": (lambda: land(steps=1), ValueError, "landscape: steps 1 at least 2"),
    "steps is a float": (lambda: land(steps=4.0), TypeError, "landscape: steps float"),
    "kind": (lambda: land(kind="3d"), ValueError, "landscape: kind '3d' 'contour', 'surface' 'both'"),
    "seed": (lambda: land(seed=-1), ValueError, "landscape: seed -1"),
    "loss": (lambda: land(loss="mean"), ValueError, "loss 'mean'"),
    "rows": (lambda: plots.landscape(NET, X, Y[:1], steps=2), ValueError, "y (1,) (2,)"),
    "directions is a word": (lambda: land(directions="pca"), ValueError, "landscape: directions 'pca' 'random'"),
    "one direction": (lambda: land(directions=(THERE,)), ValueError, "landscape: directions two dicts"),
    "a direction is an array": (lambda: land(directions=(X, X)), TypeError, "landscape: directions[0] ndarray"),
    "no parameter": (lambda: land(directions=(THERE, {"1.weight": X})), ValueError, "landscape: directions[1] '1.weight' 0.bias"),
    "a direction's shape": (lambda: land(directions=({"0.bias": X}, THERE)), ValueError, "directions[0]['0.bias'] (2, 2) (2,)"),
    "a direction of text": (lambda: land(directions=({"0.bias": "a"}, THERE)), TypeError, "directions[0]['0.bias'] str"),
    "a direction of NaN": (lambda: land(directions=({"0.bias": [0, np.nan]}, THERE)), ValueError, "directions[0] finite"),
    "no direction": (lambda: land(directions=(THERE, {})), ValueError, "landscape: directions[1] 0"),
    "trajectory is a dict": (lambda: land(trajectory=THERE), TypeError, "landscape: trajectory dict list"),
    "a state lacks one": (lambda: land(trajectory=[{"0.bias": np.ones(2)}]), ValueError, "trajectory[0] lacks 0.weight"),
    "views, not copies": (lambda: land(trajectory=[NET.parameters()] * 3), ValueError, "trajectory 3 states copies"),
    "no state": (lambda: land(trajectory=[]), ValueError, "trajectory 0 states"),
    "a line": (lambda: land(trajectory=[THERE, HERE]), ValueError, "trajectory two states line"),
    "a network of zeros": (
        lambda: plots.landscape(nn.Sequential(nn.Dense(2, 2, init="zeros")), X, Y),
        ValueError,
        "landscape: weights 0",
    ),
    "no optimizers": (lambda: go([]), ValueError, "trajectories: optimizers empty"),
    "optimizers is one": (lambda: go(SGD), TypeError, "trajectories: optimizers SGD list dict"),
    "a name is a number": (lambda: go({1: SGD}), TypeError, "trajectories: optimizers 1 str"),
    "a class": (lambda: go({"a": optim.Adam}), TypeError, "trajectories: optimizers['a'] class Adam"),
    "no optimizer": (lambda: go(["Adam"]), TypeError, "trajectories: optimizers['str'] str"),
    "it has parameters": (lambda: go([BOUND]), ValueError, "trajectories: optimizers['SGD'] parameters without"),
    "f": (lambda: go(f=3), TypeError, "trajectories: f int"),
    "f gives a value": (lambda: go(f=gives(1.0)), TypeError, "trajectories: f pair"),
    "f gives text": (lambda: go(f=gives(("a", X[0]))), TypeError, "trajectories: f pair numbers"),
    "f gives three": (lambda: go(f=gives((1.0, np.zeros(3)))), ValueError, "trajectories: f (3,) (2,)"),
    "f gives values": (lambda: go(f=gives((np.ones(2), np.zeros(2)))), ValueError, "trajectories: f (2,)"),
    "start is three": (lambda: go(start=(1, 2, 3)), ValueError, "trajectories: start (1, 2, 3)"),
    "start is infinite": (lambda: go(start=(1, np.inf)), ValueError, "trajectories: start inf finite"),
    "start is text": (lambda: go(start="ab"), TypeError, "trajectories: start 'ab'"),
    "no steps": (lambda: go(steps=0), ValueError, "trajectories: steps 0"),
    "kind of trajectories": (lambda: go(kind="contour"), ValueError, "trajectories: kind 'panels' 'together'"),
    "limits is two numbers": (lambda: go(limits=(0, 1)), TypeError, "trajectories: limits (0, 1)"),
    "limits the wrong way": (lambda: go(limits=((1, 0), (0, 1))), ValueError, "trajectories: limits left right"),
    "limits of text": (lambda: go(limits=(("a", 0), (0, 1))), TypeError, "trajectories: limits str"),
    "w of three": (lambda: plots.ravine([1, 2, 3]), ValueError, "ravine: w (3,)"),
    "w of text": (lambda: plots.beale(["a", "b"]), ValueError, "beale: w <U1"),
    "no schedules": (lambda: plots.schedules([], 5), ValueError, "schedules: schedules empty"),
    "schedules is one": (lambda: plots.schedules(schedules.constant(0.1), 5), TypeError, "schedules: schedules Schedule list"),
    "a rate": (lambda: plots.schedules([0.1], 5), TypeError, "schedules: schedules['float'] float"),
    "Plateau": (lambda: plots.schedules([schedules.Plateau(0.1)], 5), TypeError, "schedules: schedules['Plateau'] Plateau"),
    "a schedule gives NaN": (
        lambda: plots.schedules({"a": lambda t: 0.1 if t < 3 else np.nan}, 5),
        ValueError,
        "schedules: schedules['a'] nan t = 3",
    ),
    "a schedule gives text": (lambda: plots.schedules({"a": lambda t: "x"}, 5), ValueError, "schedules['a'] 'x' t = 0"),
    "no steps of schedules": (lambda: plots.schedules([schedules.constant(0.1)], 0), ValueError, "schedules: steps 0"),
    "kind of schedules": (lambda: plots.schedules([schedules.constant(0.1)], 5, kind=None), ValueError, "schedules: kind None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str) -> None:
    call, exception, words = WRONG[case]
    with pytest.raises(exception) as caught:
        call()
    assert all(word in str(caught.value) for word in words.split())


@pytest.mark.parametrize(
    "draw",
    [
        lambda **o: land(**o),
        lambda **o: go(**o),
        lambda **o: plots.schedules([schedules.constant(0.1)], 5, **o),
    ],
    ids=["landscape", "trajectories", "schedules"],
)
def test_files_that_cannot_be_written(draw: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(TypeError, match="path is a int, expected a str or a path"):
        draw(path=3)
    for name in ("curves", "curves.gif2"):
        with pytest.raises(ValueError, match=rf"path is .*{name}', expected one that ends in .*\.png"):
            draw(path=tmp_path / name)
    picture = draw()
    with pytest.raises(ValueError, match="plot: path is"):
        picture.plot(tmp_path / "curves")
    with pytest.raises(ValueError, match=r"figure: kind is '4d', expected '\w+'"):
        picture.figure("4d")
    with pytest.raises(FileNotFoundError):
        picture.plot(tmp_path / "nowhere" / "curves.png")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw() is not None, "the numbers need no matplotlib"
    for call in (lambda: picture.plot(tmp_path / "never.png"), lambda: draw(path=tmp_path / "never.png"), picture.figure):
        with pytest.raises(ImportError, match=r"pip install trainstep\[plot\]"):
            call()
