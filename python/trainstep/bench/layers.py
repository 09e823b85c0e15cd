"""Every layer by itself, forward and backward, and every loss with its gradient: arrays, problems, the float64 reference."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainstep import _core, reference
from trainstep.bench.harness import BASELINE, BUSY_LIMIT, Case, ratio_text
from trainstep.bench.roofline import plural
from trainstep.bench.tasks import Array, LayerProblem
from trainstep.bench.text import digits, markdown_table
from trainstep.losses import LOSSES

TITLE = "Layers and losses"
WANTED = 1.5  # how many times trainstep's time a peer's should be
ACTIVATIONS = tuple(name for name in _core.activations if name != "identity")  # which in PyTorch gives x itself back: no work
PARAMETRIC = ("dense", "dense_relu", "residual", "batch_norm", "layer_norm")
LAYERS = (*PARAMETRIC, "dropout", "standardize", *ACTIVATIONS)
NAMES = (*LAYERS, *LOSSES)
LAYER_SHAPES = ("128x512", "1024x1024")
LOSS_SHAPES = ("128x512", "1024x10")
DENSE_LAYERS = {"dense": 1, "dense_relu": 1, "residual": 2}  # how many of them are in one
SEED = 2024
RTOL = 2e-6  # set from what float32 costs here: see "How a contender is checked" in README.md


def draw(name: str, rows: int, features: int) -> dict[str, Array]:
    """Draw the arrays of a layer or a loss, as `LayerProblem` names them."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows, features), np.float32)
    if name in LOSSES:
        return draw_loss(name, x, rng)
    arrays: dict[str, Array] = {"x": x, "dy": rng.standard_normal((rows, features), np.float32)}
    if name in DENSE_LAYERS:
        for i in range(DENSE_LAYERS[name]):
            path = f"{i}." if name == "residual" else ""
            arrays[path + "weight"] = rng.standard_normal((features, features), np.float32) / np.float32(np.sqrt(features))
            arrays[path + "bias"] = rng.standard_normal(features, np.float32)
    elif name in ("batch_norm", "layer_norm"):
        arrays |= {"gamma": rng.uniform(0.5, 1.5, features), "beta": rng.standard_normal(features)}
    if name == "batch_norm":
        arrays |= {"running_mean": np.zeros(features), "running_var": np.ones(features)}
    elif name == "standardize":
        arrays |= {"mean": rng.standard_normal(features), "scale": rng.uniform(0.5, 1.5, features)}
    return {array: values.astype(np.float32, copy=False) for array, values in arrays.items()}


def draw_loss(name: str, x: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Draw what the predictions x are held against; of a loss of probabilities make them such."""
    rows, classes = x.shape
    other = rng.standard_normal(x.shape, np.float32)
    if name == "categorical_cross_entropy":
        x = reference.softmax(x)
    targets: dict[str, Any] = {
        "softmax_cross_entropy": lambda: rng.integers(0, classes, rows),
        "categorical_cross_entropy": lambda: rng.integers(0, classes, rows),
        "kl_divergence": lambda: reference.softmax(other),
        "sigmoid_binary_cross_entropy": lambda: (other > 0).astype(np.float32),
        "hinge": lambda: np.sign(other),
        "poisson_nll": lambda: rng.poisson(1.0, x.shape).astype(np.float32),
    }
    return {"x": x, "target": targets.get(name, lambda: other)()}


def exact_results(name: str, arrays: dict[str, Array]) -> list[Array]:
    """Return y, dx and the gradients of the parameters, or a loss and its gradient, in float64."""
    a = {array: values.astype(np.float64) if values.dtype == np.float32 else values for array, values in arrays.items()}
    x = a["x"]
    if name in LOSSES:
        return [np.asarray(result) for result in getattr(reference, name)(x, a["target"])]
    dy = a["dy"]
    if name in ("dense", "dense_relu"):
        return exact_dense(dy, x, a["weight"], a["bias"], "relu" if name == "dense_relu" else None)
    if name == "residual":
        inner = reference.dense(x, a["0.weight"], a["0.bias"], "relu")
        y, dinner, dw1, db1 = exact_dense(dy, inner, a["1.weight"], a["1.bias"], None)
        _, dx, dw0, db0 = exact_dense(dinner, x, a["0.weight"], a["0.bias"], "relu")
        return [y + x, dx + dy, dw0, db0, dw1, db1]
    if name == "layer_norm":
        y, mean, inv_std = reference.layer_norm(x, a["gamma"], a["beta"])
        return [y, *reference.layer_norm_backward(dy, x, mean, inv_std, a["gamma"])]
    if name == "batch_norm":
        y, mean, inv_std = reference.batch_norm(x, a["gamma"], a["beta"], training=True)
        return [y, *reference.batch_norm_backward(dy, x, mean, inv_std, a["gamma"], training=True)]
    if name == "standardize":
        return [reference.standardize(x, a["mean"], a["scale"]), reference.standardize_backward(dy, a["scale"])]
    forward, backward = reference.ACTIVATIONS[name]
    y = forward(x)
    return [y, backward(dy, x if name in _core.activations_of_input else y)]


def exact_dense(dy: Array, x: Array, w: Array, b: Array, activation: str | None) -> list[Array]:
    """Return y, dx, dw and db of a dense layer."""
    y = reference.dense(x, w, b, activation)
    dx, dw, db = reference.dense_backward(dy, x, w, y, activation)
    return [y, np.asarray(dx), dw, db]


def make_problem(name: str, rows: int, features: int) -> LayerProblem:
    """Draw the arrays, and probe what float64 makes of them."""
    arrays = draw(name, rows, features)
    if name == "dropout":  # every contender draws its own mask: half is kept, and both passes are by the mask
        return LayerProblem(name, arrays, [], [0.5, 1.0, 1.0])
    exact = exact_results(name, arrays)
    rng = np.random.default_rng(SEED + 1)
    # A probe has the sign of its result, so that the sum does not cancel, and is not 0 where that is: another relu would not show
    # there. Weights, as any softmax has the same plain sum.
    probes = [(np.where(e < 0, -1, 1) * rng.uniform(0.5, 1.5, e.shape)).astype(np.float32) for e in exact]
    return LayerProblem(name, arrays, probes, [float((e * p).sum()) for e, p in zip(exact, probes, strict=True)])


def make_case(name: str, shape: str, folder: Path) -> Case:
    """Turn a name and "ROWSxFEATURES" into a case."""
    rows, features = (int(extent) for extent in shape.split("x"))
    problem = make_problem(name, rows, features)
    path = str(folder / f"{name}-{shape}.npz")
    problem.save(path)
    elements = rows * features
    parameters = sum(a.size for n, a in problem.arrays.items() if n in problem.trained)
    if name in LOSSES:  # predictions and targets are read, the gradient is written
        moved = held = 8.0 * elements + problem.arrays["target"].nbytes
    else:  # forward reads x and writes y; backward reads dy, writes dx, and most of them read x or y again
        kept = name not in ("dropout", "standardize")
        moved, held = 4.0 * ((4 + kept) * elements + 3 * parameters), 4.0 * (4 * elements + 2 * parameters)
    # The share that dropout keeps is a mean of draws of 0 or 1: six standard deviations of it.
    rtol = 6 / np.sqrt(elements) if name == "dropout" else RTOL
    flops = 6.0 * elements * features * DENSE_LAYERS.get(name, 0)
    return Case(
        f"{name}, {rows} x {features}",
        path,
        problem.expected,
        rtol,
        (1 - rtol, 1 + rtol),
        flops=flops,
        bytes=moved,
        stream="copy",
        working_set=held,
        bare_loop=not flops,
    )


def make_cases(names: Sequence[str], shapes: Sequence[str], folder: str) -> list[Case]:
    """Make the cases, with their files in `folder`; without shapes each has those of its kind."""
    return [
        make_case(name, shape, Path(folder))
        for name in names
        for shape in shapes or (LOSS_SHAPES if name in LOSSES else LAYER_SHAPES)
    ]


def name_list(text: str) -> list[str]:
    """Check a comma-separated list of layers and losses."""
    for name in text.split(","):
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(NAMES)}")
    return text.split(",")


def shape_list(text: str) -> list[str]:
    """Check a comma-separated list of shapes."""
    for shape in text.split(","):
        extents = shape.split("x")
        if len(extents) != 2 or not all(e.isdigit() and int(e) > 0 for e in extents):
            raise argparse.ArgumentTypeError(f"{shape!r} is not like 128x512 (rows, features)")
    return text.split(",")


def summary(cases: Iterable[dict[str, Any]]) -> str:
    """Write a row per case with its fastest peer, marked where that takes less than `WANTED` times trainstep's time."""
    rows, below, without, busy = [], 0, 0, 0
    for case in cases:
        status = {r["peer"]: r["status"] for r in case["rows"]}
        timed = {r["peer"]: r for r in case["rows"] if r["status"] == "timed"}  # fastest first
        ours, peers = timed.pop(BASELINE, None), list(timed.values())
        ratio = peers[0]["ratio"] if ours and peers else None
        under = ratio is not None and ratio["median"] < WANTED
        below += under
        without += ratio is None
        busy += (case["busy_with_others"] or 0) > BUSY_LIMIT
        rows.append(
            [
                f"{case['name']}, {plural(case['threads'])}",
                digits(ours["seconds"]["median"] * 1e6) if ours else status.get(BASELINE, "-"),
                digits(peers[0]["seconds"]["median"] * 1e6) if peers else "-",
                peers[0]["peer"] if peers else "-",
                ratio_text(peers[0]) if ours and peers else "-",
                f"**below {WANTED}**" if under else "",
            ]
        )
    titles = ["case", f"{BASELINE}, us", "best peer, us", "which", f"times {BASELINE}'s (range)", f"wanted: {WANTED}"]
    counted = f"{below} of {len(rows)} below {WANTED}" + (f", {without} without a ratio" if without else "") + "."
    counted += f" **The machine was busy with others in {busy}: do not use their figures.**" if busy else ""
    return "\n".join([f"## {TITLE}: summary", "", *markdown_table(titles, rows), "", counted]) + "\n"
