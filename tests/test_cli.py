"""The command line: what it prints, what it writes, how it fails."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trainstep as ts
from trainstep.bench import harness, suite
from trainstep.cli import main
from trainstep.selftest import SelftestResult, SelftestRow

pytestmark = pytest.mark.one_level

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning curves go to the current directory by default."""
    monkeypatch.chdir(tmp_path)


def check_error(capsys: Capture, arguments: list[str], status: int, pattern: str) -> None:
    """Run and expect one line on stderr that matches, and this status."""
    assert main(arguments) == status
    err = capsys.readouterr().err
    assert re.fullmatch(rf"trainstep: error: .*{pattern}.*\n", err), err


def test_info_shows_the_configuration(capsys: Capture) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert str(ts.config()["isa"]) in out
    ts.show_config()
    assert capsys.readouterr().out == out


def test_info_as_json(capsys: Capture) -> None:
    assert main(["info", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"command": "info", **ts.config()}
    assert main(["info", "--json", "i.json"]) == 0
    assert str(ts.config()["isa"]) in capsys.readouterr().out
    assert json.loads(Path("i.json").read_text())["version"] == ts.__version__


def test_selftest_as_json(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    good = SelftestRow("exp", "avx2", "float32", "ULP", 0.8, 2, True, 8, 71, "7 elements")
    bad = dataclasses.replace(good, kernel="log", error=math.inf)
    for rows, status in (((good,), 0), ((good, bad), 1)):
        monkeypatch.setattr(ts, "selftest", lambda rows=rows: SelftestResult(rows, 0.25))
        assert main(["selftest", "--json", "-"]) == status
        result = json.loads(capsys.readouterr().out)
        assert (result["command"], result["ok"], result["seconds"]) == ("selftest", not status, 0.25)
        assert [row["kernel"] for row in result["rows"]] == ["exp", "log"][: len(rows)]
        assert [row["ok"] for row in result["rows"]] == [True, False][: len(rows)]
    assert result["rows"][1]["error"] is None  # JSON has no infinity
    assert main(["selftest"]) == 1
    captured = capsys.readouterr()
    assert "2 checks" in captured.out
    assert captured.err == "trainstep: error: selftest: 1 of 2 checks failed\n"


def test_version_and_help(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trainstep {ts.__version__}\n"
    assert main(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "--hidden" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "the following arguments are required: DATASET"),
        (["train", "iris"], "unknown data set 'iris', choose from digits, mnist, or a file that ends in .csv, .npz, .parquet"),
        (["train", "digits", "--hidden", "128,x"], "--hidden: '128,x' is not a list of widths such as 128,64"),
        (["train", "digits", "--hidden", "128,0"], "--hidden: '128,0' is not a list of widths"),
        (
            ["train", "digits", "--hidden", "2147483648"],
            "--hidden: '2147483648' is not a list of widths",
        ),
        (["train", "digits", "--epo", "1"], "unrecognized arguments: --epo 1"),
        (["train", "digits", "--validation", "0.9999"], "--validation: 0.9999 of 1437 rows leaves one part empty"),
        (["train", "digits", "--validation", "0.0001"], "--validation: the validation part has 1 row, fewer than the 10 classes"),
        (["train", "digits", "--augment", "crop:8"], "--augment: crop:8 may leave nothing of images of 8 x 8 pixels"),
        (["train", "digits", "--hidden", ""], "--hidden: '' is not a list of widths"),
        (["train", "digits", "--epochs", "0"], "--epochs: '0' is not a whole number of 1 or more"),
        (["train", "digits", "--batch-size", "1.5"], "--batch-size: '1.5' is not a whole number"),
        (["train", "digits", "--lr", "nan"], "--lr: 'nan' is not a number above 0"),
        (["train", "digits", "--lr=-1"], "--lr: '-1' is not a number above 0"),
        (["train", "digits", "--seed=-1"], "--seed: '-1' is not a whole number of 0 or more"),
        (["train", "digits", "--optimizer", "foo"], "unknown name 'foo', choose from .*adam"),
        (["train", "digits", "--save", "none/m.safetensors"], "--save: there is no directory none"),
        (["train", "digits", "--save", "."], "--save: . is a directory"),
        (["train", "digits", "--plot", "none/c.png"], "--plot: there is no directory none"),
        (["train", "digits", "--plot", "c.doc"], "--plot: c.doc ends in none of .png"),
        (["train", "digits", "--no-plot", "--plot", "c.png"], "--plot: not allowed with argument --no-plot"),
        (["train", "digits", "--threads", "0"], "--threads: '0' is not a whole number from 1 to 4096"),
        (["predict", "m", "t.csv", "--threads", "5000"], "--threads: '5000' is not a whole number from 1 to 4096"),
        (["recipe", "digits", "--threads", "two"], "--threads: 'two' is not a whole number from 1 to 4096"),
        (["train", "digits", "--speed"], "unrecognized arguments: --speed"),
        (["bench", "--json", "none/b.json"], "--json: there is no directory none"),
        (["bench", "--json", "."], "--json: . is a directory"),
        (["info", "--json", "none/b.json"], "--json: there is no directory none"),
        (["selftest", "--json", "none/b.json"], "--json: there is no directory none"),
        (["bench", "--peers", "jax"], "unrecognized arguments: --peers jax"),
    ],
)
def test_wrong_usage(capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], pattern: str) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("wrong usage must be found before training")

    monkeypatch.setattr(ts.Trainer, "fit", never)
    monkeypatch.setattr(suite, "measure", never)
    check_error(capsys, arguments, 2, re.escape(pattern).replace(r"\.\*", ".*"))


def test_unwritable_directory(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr("os.access", lambda *_: False)
    check_error(capsys, ["train", "digits", "--save", "m.safetensors"], 2, "--save: m.safetensors cannot be written")


def test_failure_at_run_time(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full\nand more")

    monkeypatch.setattr(ts.Trainer, "fit", fail)
    check_error(capsys, ["train", "digits"], 1, "disk full and more")


def test_interrupt(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = ts.Trainer.fit

    def interrupted(self: ts.Trainer, *args: Any, **kwargs: Any) -> None:
        fit(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(ts.Trainer, "fit", interrupted)
    assert main(["train", "digits", "--epochs", "1", "--batch-size", "32", "--no-progress"]) == 130
    assert capsys.readouterr().err == "trainstep: interrupted after 45 steps\n"  # 1437 images in batches of 32


def test_train_reports_and_writes(capsys: Capture) -> None:
    arguments = ["train", "digits", "--hidden", "32", "--epochs", "3", "--batch-size", "64", "--lr", "0.005"]
    arguments += ["--optimizer", "ADAM", "--seed", "7", "--save", "m.safetensors", "--no-progress"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    out = captured.out
    assert "1,437 training images, 360 held-out test images" in out
    assert "network 64-32-10, 2,410 parameters; Adam, lr 0.005, batch 64, 3 epochs, seed 7" in out
    accuracy = re.search(r"^test accuracy +(\d\.\d{4}) \((\d+) of 360\)$", out, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) == pytest.approx(int(accuracy[2]) / 360, abs=1e-4)
    assert float(accuracy[1]) > 0.7
    assert re.search(r"^total time +\d+\.\d\d s \(69 steps\)$", out, re.MULTILINE)
    assert re.search(r"^time per step +\d+\.\d us$", out, re.MULTILINE)
    assert re.search(rf"^ISA level +{ts.config()['isa']}$", out, re.MULTILINE)
    assert re.search(rf"^threads +{ts.config()['num_threads']}$", out, re.MULTILINE)
    assert Path("m.safetensors").stat().st_size > 2410 * 4


def test_curves_are_drawn_where_matplotlib_is(capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    assert main(["train", "digits", "--epochs", "1", "--no-progress", "--plot", "c.png"]) == 0
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^learning curves +c\.png$", capsys.readouterr().out, re.MULTILINE)


def test_curves_are_skipped_where_matplotlib_is_not(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", "digits", "--epochs", "1", "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^learning curves +skipped, .*pip install trainstep\[plot\]", out, re.MULTILINE)
    assert not Path("learning-curves.png").exists()


def test_curves_are_not_drawn_where_they_are_not_wanted(capsys: Capture) -> None:
    assert main(["train", "digits", "--epochs", "1", "--no-progress", "--no-plot"]) == 0
    assert "learning curves" not in capsys.readouterr().out
    assert not Path("learning-curves.png").exists()


def test_defaults_reach_the_promised_accuracy(capsys: Capture) -> None:
    assert main(["train", "digits", "--no-progress"]) == 0
    accuracy = re.search(r"^test accuracy +(\d\.\d+)", capsys.readouterr().out, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.97


def small_plan(quick: bool) -> suite.Plan:
    options = harness.Options(("trainstep",), [1], seconds=0.002, blocks=1, cold_calls=0, warm_seconds=0.002, quick=True)
    return suite.Plan(("4-16-3:32",), ("4x4x4",), ("forward",), ("Adam:100",), options)


def test_bench_prints_tables_and_writes_figures(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "plan", small_plan)
    assert main(["bench", "--json", "b.json"]) == 0
    out = capsys.readouterr().out
    for words in (
        "## Roofline",
        "4-16-3, batch 32, adam, 1 thread",
        "4 x 4 @ 4 x 4, forward, 1 thread",
        "Adam, 100, 1 thread",
        "ops.softmax_cross_entropy",
    ):
        assert words in out
    data = json.loads(Path("b.json").read_text())
    assert {"machine", "config", "settings", "roofline", "train_step", "dense", "optimizers", "calls"} <= set(data)
    assert data["train_step"][0]["rows"][0]["roofline"]["share"] > 0
    monkeypatch.setattr(suite, "run", lambda *_: data)
    assert main(["bench", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == data


def test_bench_fails_where_a_contender_does(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("run", {}), ("report", "tables"), ("failed", True)):
        monkeypatch.setattr(suite, name, lambda _, value=value: value)
    assert main(["bench"]) == 1
    assert capsys.readouterr().err.endswith("trainstep: error: a contender failed or gave wrong results: see the tables\n")


def test_the_plans_are_valid() -> None:
    for plan in (suite.plan(False), suite.plan(True)):
        assert plan.nets
        assert plan.shapes
        assert plan.steps
        assert plan.options.threads[-1] == min(ts.get_num_threads(), harness.available_cpus())


def test_module_runs_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainstep", "train", "digits", "--epochs", "2"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    result = subprocess.run([*command[:4], "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    expected = "unknown data set 'nothing', choose from digits, mnist, or a file that ends in .csv, .npz, .parquet"
    assert result.stderr == f"trainstep: error: {expected}\n"
