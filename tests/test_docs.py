"""Every public name is documented, its examples run, and a formula stands in all the places that must know it."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import trainstep as ts
from trainstep import _core, losses, metrics, ops, optim, reference

pytestmark = pytest.mark.one_level

PUBLIC_MODULES = [
    "",
    ".ops",
    ".reference",
    ".optim",
    ".init",
    ".losses",
    ".averages",
    ".metrics",
    ".reference.metrics",
    ".nn",
    ".data",
    ".callbacks",
    ".plots",
    ".trainer",
    ".history",
    ".selftest",
    ".cli",
]
# trainstep.torch needs PyTorch: tests/test_torch.py looks at it.
NO_MODULES = ("trainstep._core", "trainstep.__main__", "trainstep.torch")
ALL_MODULES = sorted(name for _, name, _ in pkgutil.walk_packages(ts.__path__, "trainstep.") if name not in NO_MODULES)
# What is computed by a formula, and so names where the formula comes from.
FORMULA_MODULES = (
    "trainstep.ops",
    "trainstep.reference",
    "trainstep.init",
    "trainstep.metrics",
    "trainstep.reference.metrics",
    "trainstep.plots",
)
FORMULA_CLASSES = {c for c in optim.__all__ if isinstance(getattr(optim, c), type)} - {"Optimizer"}
FORMULA_CLASSES |= {"Dense", "Standardize", "Sequential", "Trainer", "SoftmaxCrossEntropy", "Huber", "EMA", "SWA"}
FORMULA_CLASSES |= {"Standardizer", "Whitener"}


def module(name: str) -> ModuleType:
    return importlib.import_module("trainstep" + name)


def public_names(m: ModuleType) -> list[str]:
    if m.__name__ == "trainstep.cli":
        return ["main"]  # the rest is the parser's inside
    if hasattr(m, "__all__"):
        return [name for name in m.__all__ if not name.startswith("__")]
    return [
        name
        for name, value in vars(m).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == m.__name__
    ]


def objects() -> Iterator[tuple[str, Any]]:
    """All public functions, classes and their public methods, by the name that a user writes."""
    for suffix in PUBLIC_MODULES:
        m = module(suffix)
        for name in public_names(m):
            value = getattr(m, name)
            path = f"{m.__name__}.{name}"
            if inspect.isfunction(value):
                yield path, value
            elif inspect.isclass(value):
                yield path, value
                for method, function in vars(value).items():
                    if not method.startswith("_") or method == "__call__":
                        yield f"{path}.{method}", function.fget if isinstance(function, property) else function


OBJECTS = {path: value for path, value in objects() if inspect.isfunction(value) or inspect.isclass(value)}


def sections(docstring: str) -> dict[str, str]:
    """The text under each underlined heading of a numpydoc docstring."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_parameters(text: str) -> set[str]:
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return {name.strip().lstrip("*") for head in heads for name in head.split(" : ")[0].split(",")}


@pytest.mark.parametrize("name", ALL_MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), report=True)
    assert result.failed == 0
    assert not list(tmp_path.iterdir()), "an example leaves files behind"


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [t for name in ALL_MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert len(tests) > 50


@pytest.mark.parametrize("suffix", PUBLIC_MODULES)
def test_a_module_says_what_it_is_and_lists_its_names(suffix: str) -> None:
    m = module(suffix)
    assert m.__doc__
    assert m.__doc__[0].isupper()
    names = public_names(m)
    assert names
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(m, name)


@pytest.mark.parametrize(
    "suffix",
    ["", ".ops", ".reference", ".optim", ".init", ".losses", ".averages", ".metrics", ".nn", ".data", ".callbacks", ".plots"],
)
def test_a_public_module_has_all(suffix: str) -> None:
    assert hasattr(module(suffix), "__all__")


@pytest.mark.parametrize("path", OBJECTS)
def test_docstring(path: str) -> None:
    value = OBJECTS[path]
    assert value.__doc__, "no docstring"
    lines = inspect.cleandoc(value.__doc__).splitlines()
    assert lines[0].endswith("."), "the first line is one sentence"
    assert len(lines) == 1 or lines[1] == "", "the first line stands alone"
    found = sections(value.__doc__)
    signature = inspect.signature(value)
    names = {n.lstrip("*") for n in signature.parameters} - {"self", "cls"}
    if names and value is not optim.Optimizer:  # which is not made directly
        wanted = ["Parameters", "Examples"]
        if inspect.isfunction(value) and signature.return_annotation not in (None, "None") and "Iterator" not in str(signature):
            wanted.append("Returns")
        for heading in wanted:
            assert heading in found, f"no section {heading}"
        assert names <= documented_parameters(found["Parameters"]), "a parameter is not described"
    if "Examples" in found:
        assert ">>>" in found["Examples"]
    module_name, _, name = path.rpartition(".")
    if (module_name in FORMULA_MODULES and inspect.isfunction(value)) or name in FORMULA_CLASSES:
        assert "References" in found, "no section References"
    assert not re.search(r"\bTODO\b|\bFIXME\b", value.__doc__)


# --- families --------------------------------------------------------------------------------------------------------------------


def same_signature(one: Any, other: Any) -> None:
    mine, theirs = ([(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()] for f in (one, other))
    assert mine == theirs


# Those that are a form of another, with an option in place of a name of their own.
FORMS = {"gelu_tanh": ("gelu", {"approximate": "tanh"})}


@pytest.mark.parametrize("name", _core.activations)
def test_an_activation_is_whole(name: str) -> None:
    public, options = FORMS.get(name, (name, {}))
    for suffix, function in zip(("", "_backward"), reference.ACTIVATIONS[name], strict=True):
        assert public + suffix in ops.__all__
        assert public + suffix in reference.__all__
        if options:
            assert function.keywords == options
            function = function.func
        assert function is getattr(reference, public + suffix)
    assert ts.nn.Dense(2, 3, activation=name).activation == name
    for function in (ops.dense, ops.dense_backward):
        assert f'"{name}"' in (function.__doc__ or ""), f"{function.__name__} does not list {name}"


@pytest.mark.parametrize("name", _core.losses)
def test_a_loss_is_whole(name: str) -> None:
    assert name in ops.__all__
    assert name in reference.__all__
    cls = losses.LOSSES[name]
    assert cls.name == name
    assert cls.__name__ in losses.__all__
    assert ts.Trainer(ts.nn.Sequential(ts.nn.Dense(2, 3)), loss=name).loss == cls()
    assert name in (ts.Trainer.__doc__ or "")
    assert f"trainstep.ops.{name}`" in (cls.__doc__ or "")
    of_function = inspect.signature(getattr(ops, name)).parameters
    for option in inspect.signature(cls).parameters.values():
        assert of_function[option.name].default == option.default


@pytest.mark.parametrize("name", _core.metrics)
def test_a_metric_is_whole(name: str) -> None:
    cls = metrics.METRICS[name]
    assert cls.name == name
    assert cls.__name__ in metrics.__all__
    assert f"trainstep.metrics.{name}`" in (cls.__doc__ or "")
    of_function = inspect.signature(getattr(metrics, name)).parameters
    for option in inspect.signature(cls).parameters.values():
        assert of_function[option.name].default == option.default


@pytest.mark.parametrize("name", reference.metrics.__all__)
def test_metrics_share_signature_and_text(name: str) -> None:
    mine, theirs = getattr(metrics, name), getattr(reference.metrics, name)
    same_signature(mine, theirs)
    assert mine.__doc__ == (theirs.__doc__ or "").replace("trainstep.reference", "trainstep")


@pytest.mark.parametrize("name", _core.optimizers)
def test_an_optimizer_is_whole(name: str) -> None:
    step = f"{name}_step_"
    assert step in optim.__all__
    assert step in reference.__all__
    same_signature(getattr(optim, step), getattr(reference, step))
    classes = [getattr(optim, c) for c in optim.__all__ if getattr(getattr(optim, c), "_kind", None) == name]
    assert classes
    states = _core.optimizer_states[name]
    options = set(inspect.signature(getattr(optim, step)).parameters) - {"w", "g", "step", *states}
    of_objects = {"params", "state_dtype", "seed"}
    fills_a_state = {"adagrad": {"initial_accumulator_value"}, "rprop": {"lr"}}.get(name, set())
    for cls in classes:
        assert set(inspect.signature(cls).parameters) - of_objects - fills_a_state <= options
        assert cls is optim.AdamW or all(re.search(rf"\b{state}\b", cls.__doc__ or "") for state in states)


def test_nothing_is_half_removed() -> None:
    activations = set(_core.activations) - set(FORMS)
    backward = {f"{name}_backward" for name in activations}
    families = {*activations, *backward, *_core.losses, "dense", "dense_backward", "standardize", "standardize_backward"}
    families |= {"global_norm", "clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"}
    families |= {name + way for name in ("batch_norm", "layer_norm", "dropout") for way in ("", "_backward")} | {"ewma"}
    assert set(ops.__all__) == families
    steps = {f"{name}_step_" for name in _core.optimizers}
    assert set(reference.__all__) == families | steps | {"ACTIVATIONS", "matmul", "split_bfloat16"}
    assert set(reference.ACTIVATIONS) == set(_core.activations)
    assert tuple(losses.LOSSES) == _core.losses
    assert tuple(metrics.METRICS) == _core.metrics
    assert set(reference.metrics.__all__) == {*_core.metrics, "confusion_matrix"}
    assert {*reference.metrics.AVERAGES, "none"} == set(_core.metric_averages)


@pytest.mark.parametrize("name", ops.__all__)
def test_twins_share_signature_and_text(name: str) -> None:
    mine, theirs = getattr(ops, name), getattr(reference, name)
    same_signature(mine, theirs)
    assert mine.__doc__ == (theirs.__doc__ or "").replace("trainstep.reference", "trainstep.ops")


def test_the_stub_names_what_the_core_has() -> None:
    stub = ast.parse((Path(ts.__file__).parent / "_core.pyi").read_text())
    names = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    public = {name for name in names if not name.startswith("_")}
    assert public == {name for name in vars(_core) if not name.startswith("_")}
    assert (Path(ts.__file__).parent / "py.typed").exists()
