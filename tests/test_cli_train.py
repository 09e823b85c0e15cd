"""The options of ``trainstep train``: each does something, and says so; and each that means nothing is refused."""

import csv
import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import schedules
from trainstep.cli import main
from trainstep.cli.checkpoints import Saver
from trainstep.data import augment

pytestmark = pytest.mark.one_level

Capture = pytest.CaptureFixture[str]
# 300 rows, of which 240 are trained on: 8 steps an epoch.
SMALL = ["t.csv", "--target", "kind", "--hidden", "8,8", "--epochs", "3", "--plot", "c.png", "--json", "-"]


@pytest.fixture(autouse=True)
def _tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Curves take longer to draw than these networks to train.
    monkeypatch.setattr(ts.History, "plot", lambda *_: None)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 3))
    kind = (x @ [1.0, -2.0, 0.5] + rng.standard_normal(300) > 0).astype(int) + (x[:, 0] > 1)
    rows = ["a,b,c,kind", *(",".join(map(str, (*row, "xyz"[k]))) for row, k in zip(x.tolist(), kind, strict=True))]
    Path("t.csv").write_text("\n".join(rows) + "\n")
    Path("r.csv").write_text("a,y\n" + "".join(f"{v},{v * v}\n" for v in x[:, 0]))


def run(capsys: Capture, *options: str) -> dict[str, Any]:
    """What train says with --json -, when nothing else is said."""
    assert main(["train", *SMALL, *options]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    assert captured.err == ""
    result: dict[str, Any] = json.loads(captured.out)
    return result


def refused(capsys: Capture, *options: str, start: tuple[str, ...] = tuple(SMALL)) -> str:
    assert main(["train", *start, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"trainstep: error: [^\n]+\n", captured.err)
    return captured.err


# Each option with what it makes of the settings.
OPTIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "hidden": (["--hidden", "8,4"], {"hidden": [8, 4], "parameters": 3 * 8 + 8 + 8 * 4 + 4 + 4 * 3 + 3}),
    "activation": (["--activation", "tanh"], {"activation": "tanh"}),
    "batch norm": (["--norm", "batch"], {"norm": "batch", "parameters": 3 * 8 + 8 * 8 + 2 * 16 + 8 * 3 + 3}),
    "layer norm": (["--norm", "layer"], {"norm": "layer", "parameters": 3 * 8 + 8 * 8 + 2 * 16 + 8 * 3 + 3}),
    "dropout": (["--dropout", "0.5"], {"dropout": 0.5}),
    "residual": (["--residual"], {"residual": True}),
    "dtype": (["--dtype", "float64"], {"dtype": "float64"}),
    "precision": (["--precision", "bf16"], {"precision": "bf16"}),
    "precision by its other name": (["--precision", "high"], {"precision": "bf16_x3"}),
    "batch size": (["--batch-size", "16"], {"batch_size": 16}),
    "batch size by the root": (["--batch-size", "sqrt"], {"batch_size": 15}),  # of 240 rows
    "accumulate": (["--accumulate", "2"], {"accumulate": 2}),
    "seed": (["--seed", "3"], {"seed": 3}),
    "validation": (["--validation", "0.25"], {"validation": 0.25}),
    "optimizer": (["--optimizer", "SGD"], {"optimizer": "SGD", "momentum": 0.0}),
    "momentum": (["--optimizer", "sgd", "--momentum", "0.9"], {"momentum": 0.9, "optimizer": "SGD"}),
    "rate": (["--lr", "0.1"], {"lr": 0.1, "learning_rate": 0.1}),
    "weight decay": (["--weight-decay", "0.1"], {"weight_decay": 0.1}),
    "l1": (["--l1", "0.01"], {"l1": 0.01}),
    "l2": (["--l2", "0.01"], {"l2": 0.01}),
    "clip norm": (["--optimizer", "sgd", "--clip-norm", "0.01"], {"clip_norm": 0.01}),
    "max norm": (["--max-norm", "0.5"], {"max_norm": 0.5}),
    "label smoothing": (["--label-smoothing", "0.2"], {"label_smoothing": 0.2}),
    "ignore": (["--ignore", "a"], {"ignore": ["a"]}),
    "warm-up": (["--warmup", "4"], {"warmup": {"steps": 4.0}}),
}
# Steps: 3 epochs of 8. The rate of each as repr gives it.
RATES: dict[str, tuple[list[str], Any]] = {
    "cosine": (["--schedule", "cosine"], schedules.cosine(0.005, 24)),
    "cosine to": (["--schedule", "cosine", "--lr-final", "0.001"], schedules.cosine(0.005, 24, 0.001)),
    "linear": (["--schedule", "linear", "--lr", "0.1", "--lr-final", "0.01"], schedules.linear(0.1, 24, 0.01)),
    "step": (["--schedule", "step"], schedules.step_decay(0.005, 0.1, 8)),
    "step of": (["--schedule", "step", "--lr-factor", "0.5", "--lr-every", "0.5"], schedules.step_decay(0.005, 0.5, 4)),
    "one cycle": (["--schedule", "one_cycle"], schedules.one_cycle(0.005, 24)),
    "restarts": (["--schedule", "cosine_restarts", "--lr-every", "1"], schedules.cosine_restarts(0.005, 8, mult=2)),
    "warm-up of steps": (["--warmup", "5 steps"], schedules.warmup(schedules.constant(0.005), 5)),
    "warm-up of epochs": (
        ["--schedule", "cosine", "--warmup", "0.5epochs"],
        schedules.warmup(schedules.cosine(0.005, 20), 4),
    ),
    "plateau": (["--schedule", "plateau"], schedules.Plateau(0.005, patience=5, monitor="loss")),
    "plateau of": (
        ["--schedule", "plateau", "--lr-patience", "2", "--lr-factor", "0.5"],
        schedules.Plateau(0.005, factor=0.5, patience=2, monitor="loss"),
    ),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_does_something(capsys: Capture, options: list[str], expected: dict[str, Any]) -> None:
    result = run(capsys, *options)
    base = run(capsys, *(["--optimizer", "sgd"] if "sgd" in options and len(options) > 2 else []))
    for name, value in expected.items():
        assert result["settings"][name] == value, name
    name, value = next(iter(expected.items()))
    assert base["settings"][name] != value
    assert result["history"]["loss"] != base["history"]["loss"]


@pytest.mark.skipif(not ts.config()["openmp"], reason="built without OpenMP")
def test_threads_are_those_asked_for_and_change_nothing(capsys: Capture) -> None:
    before = ts.get_num_threads()
    results = [run(capsys, "--threads", str(n), "--save", f"{n}") for n in (1, 3)]
    assert [result["machine"]["threads"] for result in results] == [1, 3]
    assert results[0]["settings"] == results[1]["settings"]
    assert Path("1").read_bytes() == Path("3").read_bytes()
    assert ts.get_num_threads() == before
    checkpoint = ["--checkpoint", "c", "--resume"]
    run(capsys, *checkpoint, "--threads", "1", "--epochs", "1")
    assert run(capsys, *checkpoint, "--threads", "2")["history"]["loss"] == results[0]["history"]["loss"]


@pytest.mark.parametrize(("options", "expected"), RATES.values(), ids=RATES.keys())
def test_a_schedule_is_the_one_asked_for(capsys: Capture, options: list[str], expected: Any) -> None:
    result = run(capsys, *options)
    assert result["settings"]["learning_rate"] == repr(expected)
    if isinstance(expected, schedules.Schedule):
        # The history has the rate of each epoch's last step.
        assert result["history"]["lr"] == [expected(t) for t in (7, 15, 23)]


def test_an_exponential_schedule_ends_where_it_should(capsys: Capture) -> None:
    for options, final in (([], 0.005 * 0.01), (["--lr-final", "0.001"], 0.001)):
        rate = run(capsys, "--schedule", "exponential", *options)["history"]["lr"]
        k = np.log(0.005 / final) / 23  # from the first of 24 steps to the last
        np.testing.assert_allclose(rate, 0.005 * np.exp(-k * np.array([7, 15, 23])), rtol=1e-12)


def test_a_plateau_falls(capsys: Capture) -> None:
    # With a rate that is next to nothing no epoch is better by a ten-thousandth than the one before.
    options = ["--optimizer", "sgd", "--lr", "1e-6", "--schedule", "plateau", "--lr-factor", "0.5"]
    assert run(capsys, *options, "--lr-patience", "0")["history"]["lr"] == [1e-6, 1e-6, 0.5e-6]
    assert run(capsys, *options, "--lr-patience", "1")["history"]["lr"] == [1e-6] * 3


def test_the_network_has_the_layers_asked_for(capsys: Capture) -> None:
    run(capsys, "--activation", "gelu", "--dropout", "0.25", "--norm", "layer", "--residual", "--save", "m")
    nn = ts.nn
    block = [nn.Dense(8, 8, bias=False), nn.LayerNorm(8), nn.Activation("gelu", 8), nn.Dropout(0.25, 8)]
    expected = nn.Sequential(
        nn.Standardize(3), nn.Dense(3, 8, bias=False), nn.LayerNorm(8), nn.Activation("gelu"), nn.Dropout(0.25),
        nn.Residual(*block), nn.Dense(8, 3),
    )  # fmt: skip
    assert repr(ts.nn.load("m").layers) == repr(expected.layers)


def test_the_parts_of_the_data(capsys: Capture) -> None:
    result = run(capsys)
    assert result["data"]["rows"] == {"training": 240, "test": 60}
    with_validation = run(capsys, "--validation", "0.25")
    assert with_validation["data"]["rows"] == {"training": 180, "validation": 60, "test": 60}
    assert with_validation["data"]["classes"] == ["x", "y", "z"]
    # The curves are of the validation part then, the result of the test part.
    assert main(["train", *SMALL[:-2], "--validation", "0.25", "--save", "m"]) == 0
    assert "180 training rows, 60 validation rows, 60 held-out test rows" in capsys.readouterr().out
    table = ts.data.load_table("t.csv", target="kind")
    assert table.y is not None
    x, x_test, y, y_test = ts.data.train_test_split(table.x, table.y)
    _, x_val, _, y_val = ts.data.train_test_split(x, y, test_size=0.25)
    trainer = ts.Trainer(ts.nn.load("m"))
    assert with_validation["history"]["val_loss"][-1] == trainer.evaluate(x_val, y_val)["loss"]
    assert with_validation["results"]["test_accuracy"] == trainer.evaluate(x_test, y_test)["accuracy"]


def test_a_plateau_looks_at_the_validation_part_and_never_at_the_test_part(capsys: Capture) -> None:
    plateau = ("--schedule", "plateau")
    assert run(capsys, *plateau)["settings"]["learning_rate"] == repr(schedules.Plateau(0.005, patience=5))
    seen: list[str | None] = []
    original = schedules.Plateau.__init__

    def spy(self: schedules.Plateau, *args: Any, **options: Any) -> None:
        seen.append(options["monitor"])
        original(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules.Plateau, "__init__", spy)
        run(capsys, *plateau)
        run(capsys, *plateau, "--validation", "0.2")
    assert seen == ["loss", "val_loss"]


def test_regression_as_json(capsys: Capture) -> None:
    arguments = ["train", "r.csv", "--target", "y", "--hidden", "8", "--epochs", "2", "--plot", "c.png", "--json", "r.json"]
    assert main([*arguments, "--validation", "0.2", "--save", "m"]) == 0
    out = capsys.readouterr().out
    result = json.loads(Path("r.json").read_text())
    assert result["command"] == "train"
    assert result["version"] == ts.__version__
    assert result["history"]["epoch"] == [1, 2]
    assert set(result["history"]) == {"epoch", "loss", "val_loss", "lr", "seconds"}
    rmse = re.search(r"^test RMSE +(\S+)", out, re.MULTILINE)
    assert rmse is not None
    assert result["results"]["test_rmse"] == pytest.approx(float(rmse[1]), rel=1e-5)
    assert f"test R^2         {result['results']['test_r2']:.4f}" in out
    assert result["data"] == {
        "rows": {"training": 192, "validation": 48, "test": 60}, "columns": ["a"], "outputs": 1, "task": "regression",
        "target": "y",
    }  # fmt: skip
    assert result["time"]["steps"] == 12
    assert result["machine"] == {"isa": ts.config()["isa"], "threads": ts.config()["num_threads"]}
    assert result["files"] == {"model": "m", "curves": "c.png", "checkpoint": None, "log": None, "tensorboard": None}
    assert {"epochs": 2, "dataset": "r.csv", "target": "y", "optimizer": "Adam", "lr": 0.005}.items() <= result["settings"].items()


def test_a_number_that_is_none_is_null(capsys: Capture) -> None:
    Path("same.csv").write_text("a,y\n" + "".join(f"{i},{7 if i % 4 else i}\n" for i in range(12)))
    arguments = ["train", "same.csv", "--target", "y", "--task", "regression", "--hidden", "2", "--epochs", "1", "--json", "-"]
    for seed in range(50):  # until all test targets are 7
        assert main([*arguments, "--seed", str(seed)]) == 0
        text = capsys.readouterr().out
        assert "NaN" not in text
        if json.loads(text)["results"]["test_r2"] is None:
            return
    raise AssertionError("no split with equal test targets")


def test_quiet(capsys: Capture) -> None:
    assert main(["train", *SMALL[:-2], "--quiet", "--save", "m"]) == 0
    assert capsys.readouterr() == ("", "")
    assert Path("m").exists()
    assert run(capsys, "--quiet")["results"]["test_accuracy"] > 0


def test_what_is_not_as_by_default_is_said(capsys: Capture) -> None:
    options = ["--norm", "batch", "--dropout", "0.1", "--residual", "--activation", "silu", "--l2", "0.001", "--clip-norm", "1"]
    options += [
        "--weight-decay",
        "0.1",
        "--schedule",
        "cosine",
        "--warmup",
        "1epoch",
        "--label-smoothing",
        "0.1",
        "--max-norm",
        "3",
        "--precision",
        "medium",
    ]
    assert main(["train", *SMALL[:-2], *options]) == 0
    assert (
        "network 3-8-8-3, silu, batch norm, dropout 0.1, residual, 147 parameters, products in bf16; Adam, weight decay 0.1, "
        "l2 0.001, clip norm 1, max norm 3, label smoothing 0.1, lr 0.005 cosine after a warm-up of 1 epochs, batch 32, 3 epochs, "
        "seed 0\n"
    ) in capsys.readouterr().out


def test_a_progress_bar_is_for_terminals(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", *SMALL]) == 0
    assert capsys.readouterr().err == ""
    for options, shown in (([], True), (["--no-progress"], False), (["--quiet"], False)):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        assert main(["train", *SMALL, *options]) == 0
        captured = capsys.readouterr()
        assert ("24/24" in captured.err) == shown, options
        json.loads(captured.out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--activation", "rule"], "--activation: .*'rule'"),
        (["--norm", "group"], "--norm: invalid choice: 'group'"),
        (["--dropout", "1"], "--dropout: '1' is not a number of 0 or more, below 1"),
        (["--dropout", "x"], "--dropout: 'x' is not a number"),
        (["--residual", "--hidden", "8,4"], "--residual: of the hidden layers 8,4 none is as wide as the one before"),
        (["--dtype", "float16"], "--dtype: invalid choice: 'float16'"),
        (["--precision", "tf32"], "--precision: precision is 'tf32', expected one of float32, bf16_x6, bf16_x3, bf16, highest"),
        (["--precision", "high", "--dtype", "float64"], "--precision: bf16_x3 is for float32, not for float64"),
        (["--batch-size", "root"], "--batch-size: 'root' is not a whole number of 1 or more"),
        (["--validation", "1"], "--validation: '1' is not a number between 0 and 1"),
        (["--validation", "0"], "--validation: '0' is not a number between 0 and 1"),
        (["--validation", "0.001"], "--validation: the validation part has 1 row, fewer than the 3 classes"),
        (["--momentum", "0.9"], "--momentum: Adam has none"),
        (["--momentum", "1"], "--momentum: '1' is not a number of 0 or more, below 1"),
        (["--optimizer", "rprop", "--weight-decay", "0.1"], "--weight-decay: Rprop has none"),
        (["--weight-decay=-1"], "--weight-decay: '-1' is not a number of 0 or more"),
        (["--l1", "inf"], "--l1: 'inf' is not a number of 0 or more"),
        (["--l2=-1"], "--l2: '-1' is not a number of 0 or more"),
        (["--clip-norm", "0"], "--clip-norm: '0' is not a number above 0"),
        (["--max-norm", "0"], "--max-norm: '0' is not a number above 0"),
        (["--label-smoothing", "1"], "--label-smoothing: '1' is not a number of 0 or more, below 1"),
        (["--task", "regression", "--label-smoothing", "0.1"], "--label-smoothing is for classification, not for regression"),
        (["--schedule", "sine"], "--schedule: invalid choice: 'sine'"),
        (
            ["--lr-final", "0.1"],
            "--lr-final is for --schedule cosine or linear or exponential or cosine_restarts, not for constant",
        ),
        (["--schedule", "one_cycle", "--lr-factor", "0.1"], "--lr-factor is for --schedule step or plateau, not for one_cycle"),
        (["--schedule", "cosine", "--lr-every", "1"], "--lr-every is for --schedule step or cosine_restarts, not for cosine"),
        (["--schedule", "step", "--lr-patience", "1"], "--lr-patience is for --schedule plateau, not for step"),
        (["--schedule", "plateau", "--lr-patience", "0.5"], "--lr-patience: '0.5' is not a whole number of 0 or more"),
        (["--schedule", "exponential", "--lr-final", "0"], "--lr-final: an exponential schedule never comes to 0"),
        (["--schedule", "exponential", "--lr-final", "1"], "--lr-final: 1 is above --lr 0.005"),
        (["--warmup", "x"], "--warmup: 'x' is neither a number of steps such as 500 nor of epochs such as 2epochs"),
        (["--warmup", "1.5"], "--warmup: '1.5' is neither"),
        (["--warmup", "0"], "--warmup: '0' is neither"),
        (["--warmup", "24"], "--warmup: 24 steps, the training has 24"),
        (["--warmup", "3epochs"], "--warmup: 24 steps, the training has 24"),
        (["--schedule", "one_cycle", "--warmup", "3"], "--warmup: --schedule one_cycle has a rise of its own"),
        (["--schedule", "plateau", "--warmup", "3"], "--warmup: --schedule plateau"),
        (["--save", "t.csv"], "--save: t.csv is a file that is read"),
        (["--save", "./c.png"], "--plot: c.png is where --save writes"),
        (["--save", "m", "--json", "m"], "--json: m is where --save writes"),
        (["--json", "none/j"], "--json: there is no directory none"),
        (["--json", "."], "--json: . is a directory"),
        (["--accumulate", "0"], "--accumulate: '0' is not a whole number of 1 or more"),
        (["--warmup", "12", "--accumulate", "2"], "--warmup: 12 steps, the training has 12"),
        (["--early-stopping", "2"], "--early-stopping needs --validation SHARE"),
        (["--early-stopping", "0", "--validation", "0.2"], "--early-stopping: '0' is not a whole number of 1 or more"),
        (["--early-stopping", "2", "--validation", "0.2", "--ema", "0.9"], "--ema: with --early-stopping"),
        (["--ema", "1"], "--ema: '1' is not a number of 0 or more, below 1"),
        (["--metrics", "f1,f2"], "--metrics: 'f2' is not one of accuracy, precision, recall, f1, mse, mae, r2, top_5_accuracy"),
        (["--metrics", "top_0_accuracy"], "--metrics: 'top_0_accuracy' is not one of"),
        (["--metrics", "top_k_accuracy"], "--metrics: 'top_k_accuracy' is not one of"),
        (["--metrics", "r2"], "metrics has r2"),
        (["--log", "none/l"], "--log: there is no directory none"),
        (["--log", "m", "--save", "m"], "--log: m is where --save writes"),
        (["--tensorboard", "none/d"], "--tensorboard: there is no directory none"),
        (["--tensorboard", "t.csv"], "--tensorboard: t.csv is no directory"),
        (["--every", "2"], "--every is for a run with --checkpoint FILE"),
        (["--resume"], "--resume is for a run with --checkpoint FILE"),
        (["--checkpoint", "none/c"], "--checkpoint: there is no directory none"),
        (["--checkpoint", "t.csv"], "--checkpoint: t.csv is a file that is read"),
        (["--checkpoint", "r.csv"], "--checkpoint: r.csv is there already: --resume goes on from it"),
        (["--checkpoint", "r.csv", "--resume"], "--resume: load: r.csv is no whole trainstep checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(capsys: Capture, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("wrong usage must be found before training")

    monkeypatch.setattr(ts.Trainer, "fit", never)
    before = sorted(Path().iterdir())
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), refused(capsys, *options))
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "extra"], "digits takes no PATH, extra is one"),
        (["r.csv", "--target", "y", "--label-smoothing", "0.1"], "--label-smoothing is for classification, not for regression"),
        (["mnist"], "mnist needs a PATH"),
        (["mnist", "a", "b"], "mnist takes one PATH, not 2"),
        (["mnist", "absent.npz"], "No such file or directory: 'absent.npz'"),
        (["mnist", "t.csv"], "t.csv: it is no NPZ file"),
        (["mnist", "t.csv", "--target", "kind"], "--target is for tables, not for mnist"),
        (["mnist", "empty.npz"], "empty.npz: there is no array x_train, the arrays are x"),
        (["mnist", "labels.npz"], "labels.npz: y_train has shape (3,) and dtype int64, expected a label for each of 4 images"),
        (["mnist", "flat.npz"], "flat.npz: x_train has shape (4,) and dtype float64, expected numbers, one image a row"),
        (["mnist", "sizes.npz"], "sizes.npz: training images have 4 pixels, test images 9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_data_sets(capsys: Capture, arguments: list[str], message: str) -> None:
    np.savez("empty.npz", x=np.zeros(3))
    parts: dict[str, Any] = {"x_train": np.zeros((4, 2, 2)), "y_train": np.arange(4), "x_test": np.zeros((4, 2, 2))}
    parts["y_test"] = parts["y_train"]
    np.savez("labels.npz", **parts | {"y_train": np.arange(3)})
    np.savez("flat.npz", **parts | {"x_train": np.zeros(4)})
    np.savez("sizes.npz", **parts | {"x_test": np.zeros((4, 3, 3))})
    assert message in refused(capsys, start=tuple(arguments))


def images(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images of three kinds: which of three rows is bright."""
    y = rng.integers(0, 3, n)
    x = rng.integers(0, 100, (n, 3, 3), "uint8")
    x[np.arange(n), y] += 100
    return x, y.astype("uint8")


def write_idx(path: str, values: np.ndarray) -> None:
    """A file as MNIST has them: two zeros, the code of uint8, the number of dimensions, and each of them in four bytes."""
    data = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()
    Path(path).write_bytes(gzip.compress(data) if path.endswith(".gz") else data)


def test_images_from_idx_files(capsys: Capture) -> None:
    rng = np.random.default_rng(3)
    (x, y), (x_test, y_test) = images(200, rng), images(50, rng)
    np.savez("i.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    Path("idx").mkdir()
    write_idx("idx/train-images-idx3-ubyte.gz", x)
    write_idx("idx/train-labels-idx1-ubyte", y)
    write_idx("idx/t10k-images.idx3-ubyte", x_test)
    options = ["--hidden", "16", "--epochs", "2", "--quiet", "--json"]
    message = "idx: there is no file t10k-labels-idx1-ubyte, with or without .gz"
    assert message in refused(capsys, "mnist", "idx", *options, "-", start=())
    write_idx("idx/t10k-labels-idx1-ubyte.gz", y_test)
    for path in ("idx", "i.npz"):
        assert main(["train", "mnist", path, *options, f"{path}.json"]) == 0
    results = [json.loads(Path(name).read_text()) for name in ("idx.json", "i.npz.json")]
    assert results[0]["results"] == results[1]["results"]
    assert results[0]["history"]["loss"] == results[1]["history"]["loss"]
    Path("idx/train-labels-idx1-ubyte").write_bytes(b"no IDX file")
    assert "train-labels-idx1-ubyte" in refused(capsys, "mnist", "idx", *options, "-", start=())


def test_images_from_an_npz_file(capsys: Capture) -> None:
    rng = np.random.default_rng(3)
    (x, y), (x_test, y_test) = images(200, rng), images(50, rng)
    np.savez("i.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    arguments = ["mnist", "i.npz", "--hidden", "16", "--epochs", "10", "--plot", "c.png", "--save", "m"]
    assert main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert "i.npz: 3 classes; 200 training images, 50 held-out test images\nnetwork 9-16-3" in out
    model = ts.nn.load("m")
    # It takes pixels as they are in the file: one mean and one scale for all of them.
    buffers = model.buffers()
    np.testing.assert_allclose(buffers["0.mean"], x.mean(), rtol=1e-6)
    np.testing.assert_allclose(buffers["0.scale"], 1 / x.std(), rtol=1e-6)
    right = int((model.predict(x_test.reshape(50, 9)).argmax(axis=1) == y_test).sum())
    assert right > 40
    assert f"test accuracy    {right / 50:.4f} ({right} of 50)" in out


def test_early_stopping_ends_with_the_best_weights(capsys: Capture) -> None:
    # A network that is much too large for the few rows gets worse on the others soon.
    options = ["--validation", "0.3", "--hidden", "128", "--lr", "0.02", "--epochs", "60"]
    whole = run(capsys, *options)
    best = int(np.argmin(whole["history"]["val_loss"])) + 1
    assert best < 40
    result = run(capsys, *options, "--early-stopping", "5", "--save", "m")
    lowest, wait, expected = np.inf, 0, 0
    for epoch, loss in enumerate(whole["history"]["val_loss"], start=1):
        wait = 0 if loss < lowest else wait + 1
        lowest, expected = min(lowest, loss), expected if loss >= lowest else epoch
        if wait == 5:
            break
    assert result["history"]["val_loss"] == whole["history"]["val_loss"][:epoch]
    assert result["results"]["best_epoch"] == expected
    assert result["settings"]["early_stopping"] == 5
    # The model is that of the best epoch.
    run(capsys, *options, "--epochs", str(expected), "--save", "best")
    assert Path("m").read_bytes() == Path("best").read_bytes()


def test_an_interrupted_run_stops_early_where_the_whole_one_does(capsys: Capture) -> None:
    options = [
        "train",
        *SMALL[:-2],
        "--validation",
        "0.3",
        "--hidden",
        "128",
        "--lr",
        "0.02",
        "--epochs",
        "60",
        "--early-stopping",
        "5",
    ]
    assert main([*options, "--save", "whole", "--json", "whole.json"]) == 0
    options += ["--checkpoint", "run.ckpt", "--resume", "--save", "parts", "--json", "parts.json"]
    for step in (17, 33):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, step)
            assert main(options) == 130
    for _ in range(2):  # the second time there is nothing left to do
        assert main(options) == 0
        assert Path("parts").read_bytes() == Path("whole").read_bytes()
        whole, parts = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "parts"))
        assert parts["results"] == whole["results"]
        assert parts["history"]["val_loss"] == whole["history"]["val_loss"]


def test_a_log_has_a_row_for_each_epoch(capsys: Capture) -> None:
    options = ["--log", "l.csv", "--checkpoint", "run.ckpt", "--resume"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 13)
        assert main(["train", *SMALL, *options]) == 130
    capsys.readouterr()
    result = run(capsys, *options)
    with open("l.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    for name in ("loss", "accuracy", "val_loss", "lr"):
        assert [float(row[header.index(name)]) for row in rows] == result["history"][name]
    assert result["files"]["log"] == "l.csv"


@pytest.mark.peers
def test_event_files_for_tensorboard(capsys: Capture) -> None:
    pytest.importorskip("tensorboard")
    run(capsys, "--tensorboard", "runs")
    assert [path for path in Path("runs").rglob("*tfevents*") if path.stat().st_size > 100]


def test_tensorboard_is_looked_for_before_the_training(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", *(name for name in sys.modules if name.startswith("tensorboard."))):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(ts.Trainer, "fit", None)
    assert main(["train", *SMALL, "--tensorboard", "runs"]) == 1
    assert re.fullmatch(r"trainstep: error: .*pip install trainstep\[tensorboard\]\n", capsys.readouterr().err)
    assert not Path("runs").exists()


def test_metrics_of_classes(capsys: Capture) -> None:
    result = run(capsys, "--metrics", "f1,top_2_accuracy", "--save", "m")
    table = ts.data.load_table("t.csv", target="kind")
    assert table.y is not None
    _, x_test, _, y_test = ts.data.train_test_split(table.x, table.y)
    scores = ts.nn.load("m").predict(x_test)
    assert result["results"]["test_f1"] == pytest.approx(ts.metrics.f1(scores, y_test))
    assert result["results"]["test_top_2_accuracy"] == pytest.approx(ts.metrics.top_k_accuracy(scores, y_test, k=2))
    assert {"f1", "val_f1", "top_2_accuracy", "val_top_2_accuracy"} <= set(result["history"])
    assert len(result["settings"]["metrics"]) == 2


def test_metrics_of_numbers_are_in_the_targets_unit(capsys: Capture) -> None:
    arguments = ["train", "r.csv", "--target", "y", "--hidden", "8", "--epochs", "2", "--plot", "c.png", "--json", "-"]
    assert main([*arguments, "--metrics", "mae,r2", "--save", "m"]) == 0
    result = json.loads(capsys.readouterr().out)
    table = ts.data.load_table("r.csv", target="y")
    assert table.y is not None
    _, x_test, _, y_test = ts.data.train_test_split(table.x, table.y, stratify=False)
    assert result["results"]["test_mae"] == pytest.approx(np.abs(ts.nn.load("m").predict(x_test)[:, 0] - y_test).mean(), rel=1e-5)
    assert result["results"]["test_r2"] == pytest.approx(1 - result["results"]["test_rmse"] ** 2 / y_test.var(), rel=1e-5)


def test_the_average_of_the_weights_is_what_is_saved(capsys: Capture) -> None:
    plain, averaged = run(capsys, "--save", "plain"), run(capsys, "--ema", "0.9", "--save", "averaged")
    assert averaged["history"]["loss"] == plain["history"]["loss"]  # it is trained as without
    assert averaged["settings"]["ema"] == 0.9
    assert Path("averaged").read_bytes() != Path("plain").read_bytes()
    # Two trainings in parts give the same average as one.
    options = ["--ema", "0.9", "--checkpoint", "run.ckpt", "--resume", "--save", "parts"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 11)
        assert main(["train", *SMALL, *options]) == 130
    capsys.readouterr()
    run(capsys, *options)
    assert Path("parts").read_bytes() == Path("averaged").read_bytes()


# --- augmentation ----------------------------------------------------------------------------------------------------------------

DIGITS = ["digits", "--hidden", "8", "--epochs", "2", "--batch-size", "64", "--plot", "c.png", "--json", "-"]


def digits(capsys: Capture, *options: str) -> dict[str, Any]:
    assert main(["train", *DIGITS, *options]) == 0, capsys.readouterr().err
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize(
    ("words", "transform"),
    [
        ("flip", augment.HorizontalFlip(0.5)),
        ("vflip:0.25", augment.VerticalFlip(0.25)),
        ("crop", augment.RandomCrop(1)),
        ("crop:2", augment.RandomCrop(2)),
        ("scale:0.2", augment.RandomScale(0.8, 1.2)),
        ("rotation", augment.RandomRotation(10.0)),
        ("cutout", augment.Cutout(2)),
        ("mixup:0.4", augment.Mixup(0.4, classes=10)),
    ],
)
def test_images_are_augmented(capsys: Capture, words: str, transform: Any) -> None:
    result = digits(capsys, "--augment", words)
    assert result["settings"]["augment"] == [words]
    x, _, y, _ = ts.data.train_test_split(*ts.data.load_digits())
    model = ts.nn.Sequential(ts.nn.Dense(64, 8, activation="relu"), ts.nn.Dense(8, 10))
    trainer = ts.Trainer(model, optimizer=ts.optim.Adam(lr=0.005))
    history = trainer.fit(ts.data.Batches(x, y, 64, augment=[transform], shape=(8, 8)), epochs=2)
    assert result["history"]["loss"] == history.history["loss"]


def test_noise_is_measured_by_the_pixels(capsys: Capture) -> None:
    losses = [digits(capsys, "--augment", words)["history"]["loss"] for words in ("noise", "noise:0.1", "noise:2")]
    assert losses[0] == losses[1] != losses[2]
    assert losses[2][1] > losses[0][1]


def test_an_augmented_run_goes_on_in_the_same_bits(capsys: Capture) -> None:
    options = ["train", *DIGITS[:-2], "--quiet", "--augment", "crop,mixup", "--accumulate", "2", "--schedule", "cosine"]
    assert main([*options, "--save", "whole"]) == 0
    options += ["--checkpoint", "run.ckpt", "--resume", "--save", "parts"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 7)
        assert main(options) == 130
    assert main(options) == 0
    assert Path("parts").read_bytes() == Path("whole").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SMALL, "--augment", "flip"], "--augment is for images, not for t.csv"),
        (
            [*DIGITS, "--augment", "flop"],
            "--augment: 'flop' is not one of flip, vflip, crop, scale, rotation, cutout, noise, mixup",
        ),
        ([*DIGITS, "--augment", "crop:0.5"], "--augment: '0.5' is not a whole number of 1 or more"),
        ([*DIGITS, "--augment", "flip:2"], "--augment: '2' is not a number between 0 and 1"),
        ([*DIGITS, "--augment", "noise:"], "--augment: '' is not a number above 0"),
        (
            ["mnist", "rows.npz", "--augment", "flip"],
            "--augment is for images that have a height and a width, and rows.npz has rows",
        ),
        (["mnist", "narrow.npz", "--augment", "crop:5"], "--augment: crop:5 may leave nothing of images of 9 x 5 pixels"),
    ],
)
def test_wrong_augmentation(capsys: Capture, arguments: list[str], message: str) -> None:
    labels = np.arange(4)
    for name, images in {"rows.npz": np.eye(4), "narrow.npz": np.arange(180.0).reshape(4, 9, 5)}.items():
        np.savez(name, x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert message in refused(capsys, start=tuple(arguments))


# --- runs that go on -------------------------------------------------------------------------------------------------------------

# All that a step may depend on: masks, statistics, a rate that changes, more than one batch to a step.
RUN = [*SMALL[:-2], "--epochs", "4", "--dropout", "0.2", "--norm", "batch", "--schedule", "cosine", "--accumulate", "2", "--quiet"]


def stop_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C after this step."""

    def interrupt(_: Saver, at: int, values: dict[str, float]) -> None:
        if at == step:
            raise KeyboardInterrupt

    patch.setattr(Saver, "on_batch_end", interrupt)


@pytest.mark.parametrize("step", [1, 3, 6, 15])
def test_an_interrupted_run_goes_on_in_the_same_bits(capsys: Capture, step: int) -> None:
    assert main(["train", *RUN, "--save", "whole"]) == 0
    checkpoint = ["--checkpoint", "run.ckpt", "--resume", "--save", "parts"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        assert main(["train", *RUN, *checkpoint]) == 130
    words = f"trainstep: interrupted after {step} steps; the same command with --resume goes on from run.ckpt\n"
    assert capsys.readouterr().err == words
    assert not Path("parts").exists()
    assert main(["train", *RUN, *checkpoint, "--json", "r.json"]) == 0
    assert Path("parts").read_bytes() == Path("whole").read_bytes()
    result = json.loads(Path("r.json").read_text())
    assert result["history"]["epoch"] == [1, 2, 3, 4]
    assert result["time"]["steps"] == 16 - step
    assert capsys.readouterr().err == ""


def test_a_run_goes_on_from_its_last_checkpoint(capsys: Capture) -> None:
    # As after kill -9: the file is what was written at the end of an epoch.
    assert main(["train", *RUN, "--save", "whole"]) == 0
    saved = ts.Trainer.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ts.Trainer, "save", lambda self, path: saved(self, path) if self.epoch <= 2 else None)
        assert main(["train", *RUN, "--checkpoint", "run.ckpt", "--every", "2"]) == 0
    assert ts.Trainer.load("run.ckpt").epoch == 2
    assert main(["train", *RUN[:-1], "--checkpoint", "run.ckpt", "--resume", "--save", "parts"]) == 0
    assert "goes on from run.ckpt, after 2 epochs, 8 steps\n" in capsys.readouterr().out
    assert Path("parts").read_bytes() == Path("whole").read_bytes()


def test_checkpoints_come_every_so_many_epochs() -> None:
    written: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ts.Trainer, "save", lambda self, path: written.append(self.epoch))
        for options, epochs in (([], [1, 2, 3, 4]), (["--every", "3"], [3, 4]), (["--every", "4"], [4])):
            written.clear()
            assert main(["train", *RUN, "--checkpoint", "run.ckpt", *options]) == 0
            assert written == epochs


def test_a_run_may_have_more_epochs_where_no_rate_depends_on_them(capsys: Capture) -> None:
    small = [*SMALL[:-2], "--quiet"]
    assert main(["train", *small, "--epochs", "5", "--save", "whole"]) == 0
    for epochs in ("2", "5"):
        assert main(["train", *small, "--epochs", epochs, "--checkpoint", "run.ckpt", "--resume", "--save", "parts"]) == 0
    assert Path("parts").read_bytes() == Path("whole").read_bytes()
    # Nothing is left to do; the result is the same.
    assert main(["train", *small, "--epochs", "5", "--checkpoint", "run.ckpt", "--resume", "--save", "again"]) == 0
    assert Path("again").read_bytes() == Path("whole").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "0.1"], "--resume: run.ckpt was made with --lr 0.005, not 0.1"),
        (["--hidden", "8,4"], "--resume: run.ckpt was made with --hidden 8,8, not 8,4"),
        (["--dropout", "0.1"], "--resume: run.ckpt was made with --dropout 0.2, not 0.1"),
        (["--epochs", "5"], "--resume: run.ckpt was made with --epochs 4, not 5"),
        (["--clip-norm", "1"], "--resume: run.ckpt was made with --clip-norm as by default, not 1.0"),
        (["--warmup", "1"], "--resume: run.ckpt was made with --warmup as by default, not 1.0,steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_goes_on_only_as_it_began(capsys: Capture, options: list[str], message: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        assert main(["train", *RUN, "--checkpoint", "run.ckpt"]) == 130
    capsys.readouterr()
    before = Path("run.ckpt").read_bytes()
    assert message in refused(capsys, "--checkpoint", "run.ckpt", "--resume", *options, start=tuple(RUN))
    assert Path("run.ckpt").read_bytes() == before


def test_a_run_goes_on_only_with_its_data(capsys: Capture) -> None:
    assert main(["train", *RUN, "--checkpoint", "run.ckpt"]) == 0
    lines = Path("t.csv").read_text().splitlines(keepends=True)
    Path("t.csv").write_text("".join(lines[:-20]))
    message = "run.ckpt was made with data t.csv:,240 training,60 test, not t.csv:,224 training,56 test"
    assert message in refused(capsys, "--checkpoint", "run.ckpt", "--resume", start=tuple(RUN))


def test_a_trainer_of_ones_own_is_no_run(capsys: Capture) -> None:
    ts.Trainer(ts.nn.Sequential(ts.nn.Dense(3, 3))).save("run.ckpt")
    message = "--resume: run.ckpt was not made by trainstep train --checkpoint"
    assert message in refused(capsys, "--checkpoint", "run.ckpt", "--resume", start=tuple(RUN))


def test_a_loss_that_is_not_finite_is_a_failure(capsys: Capture) -> None:
    assert main(["train", *SMALL[:-2], "--quiet", "--optimizer", "sgd", "--lr", "1e30"]) == 1
    assert re.fullmatch(r"trainstep: error: fit: [^\n]* is not finite in epoch 1, step [^\n]*\n", capsys.readouterr().err)
