"""The package as it is installed: where it lies, what importing it loads, and the checks of what goes into a wheel."""

import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

import trainstep as ts

from . import check_wheel, weak_symbols
from .helpers import output_of

pytestmark = pytest.mark.one_level


def test_the_installed_package_is_tested() -> None:
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert Path(ts.__file__).resolve().parents[1] in installed


def test_importing_loads_nothing_that_is_not_needed_yet() -> None:
    code = """
import sys, numpy
before = set(sys.modules)
import trainstep
print(*sorted(set(sys.modules) - before))
"""
    loaded = output_of(code).split()
    assert "trainstep._core" in loaded
    rare = {"argparse", "tqdm", "safetensors", "matplotlib", "threadpoolctl", "importlib.resources", "pathlib", "numpy.random"}
    assert not rare & set(loaded)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="not a free-threaded Python")
def test_importing_leaves_the_gil_off() -> None:
    assert output_of("import sys, trainstep; print(sys._is_gil_enabled())", {"PYTHON_GIL": None}) == "False"


@pytest.mark.parametrize(
    ("symbol", "is_foreign"),
    [
        ("W _ZN9trainstep6avx5124gemmIfEEvRKNS_4GemmIT_EE", False),
        ("W _ZNK9trainstep6avx5123VecIfE4loadEv", False),
        ("u _ZZN9trainstep6avx5121fEvE1n", False),
        ("u _ZGVZN9trainstep6avx5121fEvE1n", False),
        ("V DW.ref.__gxx_personality_v0", False),
        ("T _ZN9trainstep1fEv", False),  # strong: two of a name would not link
        ("w __cxa_finalize", True),
        ("W _ZSt16__introsort_loopIPN9trainstep6avx5123VecIfEElEvT_S5_T0_", True),
        ("W _ZN9trainstep4avx24gemmIfEEvv", True),
        ("W _ZN9trainstep8share_ofEmmNS_4TeamE", True),
        ("V _ZTVSt9exception", True),
        ("u _ZN9trainstep1nE", True),
    ],
)
def test_a_weak_symbol_outside_its_level_is_found(symbol: str, is_foreign: bool) -> None:
    output = f"                 U memset\n                 w __gmon_start__\n0000000000000010 {symbol}\n"
    assert weak_symbols.foreign(output, "avx512") == [symbol.split()[1]] * is_foreign


def make_wheel(path: Path, *, without: str = "", extra: str = "", requires: str = "tqdm>=4.60", size: int = 10) -> Path:
    names = [*check_wheel.WANTED, *(f"trainstep/{module}.cpython-311-x86_64-linux-gnu.so" for module in check_wheel.COMPILED)]
    names += ["trainstep.libs/libgomp-1.so.1", "trainstep-1.dist-info/licenses/LICENSE", extra]
    with ZipFile(path, "w") as wheel:
        for name in filter(None, names):
            if name != without:
                wheel.writestr(name, bytes(size))
        requirements = "".join(f"Requires-Dist: {r}\n" for r in ("numpy>=1.23", "safetensors>=0.4", requires, "x; extra == 'test'"))
        wheel.writestr("trainstep-1.dist-info/METADATA", f"Metadata-Version: 2.4\nName: trainstep\n{requirements}")
    return path


def test_a_good_wheel_passes(tmp_path: Path) -> None:
    assert check_wheel.main([str(make_wheel(tmp_path / "trainstep-1-cp311-cp311-manylinux_2_28_x86_64.whl"))]) == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"size": 1_000_000}, "at most 4,000,000"),
        ({"without": "trainstep/py.typed"}, "py.typed is missing"),
        ({"without": "trainstep/_core.cpython-311-x86_64-linux-gnu.so"}, "0 compiled _core"),
        ({"without": "trainstep/cython_optim.cpython-311-x86_64-linux-gnu.so"}, "0 compiled cython_optim"),
        ({"without": "trainstep/include/trainstep.h"}, "trainstep.h is missing"),
        ({"without": "trainstep-1.dist-info/licenses/LICENSE"}, "no licence"),
        ({"without": "trainstep.libs/libgomp-1.so.1"}, "libgomp of its own"),
        ({"extra": "tests/test_ops.py"}, "tests/test_ops.py is no part"),
        ({"requires": "torch>=2"}, "requires ['numpy', 'safetensors', 'torch']"),
    ],
)
def test_a_fault_of_a_wheel_is_found(
    tmp_path: Path, change: dict[str, object], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_wheel(tmp_path / "trainstep-1-cp311-cp311-manylinux_2_28_x86_64.whl", **change)  # type: ignore[arg-type]
    assert check_wheel.main([str(path)]) == 1
    assert fault in capsys.readouterr().err
