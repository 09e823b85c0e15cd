"""The examples run, and show what they are for: each as a user would start it, with fewer epochs."""

import gzip
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts

pytestmark = pytest.mark.one_level

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name: str, *arguments: Any) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def numbers(text: str, before: str) -> list[float]:
    """The first number behind each of some words."""
    return [float(found) for found in re.findall(rf"{before}\D*?(-?\d+\.\d+)", text)]


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    model, curves = tmp_path / "digits.safetensors", tmp_path / "curves.png"
    run("digits", "--epochs", 5, "--save", model, "--plot", curves)
    out = capsys.readouterr().out
    assert out.count("epoch ") == 3
    (percent,) = numbers(out, r"images are right: ")
    assert percent > 90
    x, y = ts.data.load_digits()
    assert (ts.nn.load(model)(x).argmax(axis=1) == y).mean() > 0.9
    assert curves.stat().st_size > 1000


@pytest.mark.skipif(not MNIST.exists(), reason="the data is not here")
def test_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    run("mnist", MNIST, "--epochs", 2, "--rows", 3000)
    accuracies = numbers(capsys.readouterr().out, "test accuracy ")
    assert len(accuracies) == 3
    assert 0.85 < accuracies[1] == pytest.approx(accuracies[2] / 100, abs=1e-4)


@pytest.mark.skipif(not MNIST.exists(), reason="the data is not here")
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_from_its_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    arrays = np.load(MNIST)
    written = {"train-images-idx3": arrays["x_train"][:1000], "train-labels-idx1": arrays["y_train"][:1000]}
    written |= {"t10k-images.idx3": arrays["x_test"][:500], "t10k-labels.idx1": arrays["y_test"][:500]}
    for name, array in written.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        content = header + array.tobytes()
        (tmp_path / f"{name}-ubyte{ending}").write_bytes(gzip.compress(content) if ending else content)
    run("mnist", tmp_path, "--epochs", 3, "--batch-size", 64)
    assert numbers(capsys.readouterr().out, "test accuracy ")[-1] > 75


def test_regression(capsys: pytest.CaptureFixture[str]) -> None:
    run("regression", "--epochs", 4, "--seeds", 0)
    (residual,) = numbers(capsys.readouterr().out, "R2 ")
    assert 0.8 < residual < 0.97


def test_transfer(capsys: pytest.CaptureFixture[str]) -> None:
    run("transfer", "--draws", 3)
    head, whole, scratch = numbers(capsys.readouterr().out, "accuracy ")
    assert scratch < head < whole < 1


def test_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    run("ensemble", "--networks", 5)
    alone, together = numbers(capsys.readouterr().out, "accuracy ")
    assert 0.9 < alone < together < 1


def test_augmentation(capsys: pytest.CaptureFixture[str]) -> None:
    run("augmentation", "--epochs", 20, "--draws", 2)
    as_they_are, augmented = numbers(capsys.readouterr().out, "accuracy ")
    assert as_they_are > 0.8
    assert augmented > 0.8


@pytest.mark.skipif(not MNIST.exists(), reason="the data is not here")
def test_augmentation_of_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    run("augmentation", MNIST, "--epochs", 30, "--draws", 1, "--rows", 300)
    as_they_are, augmented = numbers(capsys.readouterr().out, "accuracy ")
    assert as_they_are + 0.02 < augmented


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_what_it_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert "Prints " in text
    assert f"def test_{name}(" in Path(__file__).read_text(), "no test runs it"
    assert f"{name}.py" in (EXAMPLES / "README.md").read_text(), "examples/README.md does not list it"
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    assert text.split('"""')[1].splitlines()[0] in capsys.readouterr().out


def test_the_guide_shows_every_schedule_and_its_pictures_are_there() -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    for name in [*ts.schedules.SCHEDULES, "Plateau"]:
        assert f"| `{name}(" in guide, f"docs/training.md lacks {name}"
        assert f"s.{name}(" in (ROOT / "docs" / "pictures.py").read_text(), f"docs/pictures.py does not draw {name}"
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", guide):
        assert (ROOT / "docs" / picture).is_file()


def test_the_calls_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    x, y = ts.data.load_digits()
    x, y = x[:200], y[:200]
    model = ts.nn.Sequential(ts.nn.Dense(64, 8, activation="relu"), ts.nn.Dense(8, 10))
    names: dict[str, Any] = {"ts": ts, "x": x, "y": y, "model": model, "trainer": ts.Trainer(model)}
    calls = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), flags=re.DOTALL)
    assert len(calls) == 4
    for call in calls:
        exec(call.replace("epochs=20, rows=len(x)", "epochs=200, rows=len(x)"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"rates.png", "ravine.png", "landscape.png", "path.png"}
