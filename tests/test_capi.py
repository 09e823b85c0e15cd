"""The steps for C and Cython: the table in the capsule, and what is compiled against the installed header and .pxd.

Without a compiler the table is called through ctypes, which gives the GIL back as a C program would.
"""

import ctypes
import importlib.machinery
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, optim

from .helpers import Array, assert_same_bits, normal, output_of, untouched

pytestmark = pytest.mark.one_level

HERE = Path(__file__).parent
HEADER = re.sub(r"/\*.*?\*/", "", (Path(ts.get_include()) / "trainstep.h").read_text(), flags=re.DOTALL)
TYPES = {"size_t": ctypes.c_size_t, "int": ctypes.c_int, "double": ctypes.c_double, "int64_t": ctypes.c_int64}


def declared(kind: str, name: str) -> str:
    """What stands between the braces of a struct or an enum of the header."""
    found = re.search(rf"typedef {kind} {name} {{(.*?)}}", HEADER, re.DOTALL)
    assert found
    return found[1]


def fields(name: str) -> list[tuple[str, Any]]:
    rows = [row.split(maxsplit=1) for row in declared("struct", name).split(";") if row.strip()]
    return [(field.strip(), TYPES[kind]) for kind, names in rows for field in names.split(",")]


class Options(ctypes.Structure):
    _fields_ = fields("trainstep_options")


class Scalars(ctypes.Structure):
    _fields_ = fields("trainstep_scalars")


Pointers = ctypes.POINTER(ctypes.c_void_p)


class Table(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("abi_version", ctypes.c_int),
        ("options_init", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)),
        (
            "step",
            ctypes.CFUNCTYPE(
                *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
                *(Pointers, ctypes.c_void_p, ctypes.c_void_p),
            ),
        ),
        (
            "global_norm",
            ctypes.CFUNCTYPE(
                ctypes.c_int, ctypes.c_int, ctypes.c_size_t, Pointers, ctypes.POINTER(ctypes.c_size_t), ctypes.c_void_p
            ),
        ),
        ("error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int)),
    ]


def table() -> Table:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return Table.from_address(pointer(_core._C_API, b"trainstep._core._C_API"))


API = table()
CODES = re.findall(r"\w+", declared("enum", "trainstep_status"))
DTYPES = re.findall(r"trainstep_(\w+)", declared("enum", "trainstep_dtype"))
PAIRS = {"betas": ("beta1", "beta2"), "etas": ("eta_minus", "eta_plus"), "step_sizes": ("step_size_min", "step_size_max")}
SHARED = ("size", "grad_scale", "clip_value", "one_thread", "reserved")  # not of a rule

# Most options of every rule in use. No decay is 0, of the rules that have it.
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.02},
    "adagrad": {"lr": 0.01, "lr_decay": 0.05, "weight_decay": 0.02, "eps": 1e-3},
    "adadelta": {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.02},
    "rmsprop": {"lr": 0.01, "alpha": 0.9, "eps": 0.01, "weight_decay": 0.02, "momentum": 0.5, "centered": True},
    "adam": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02},
    "adamax": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02},
    "nadam": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02, "momentum_decay": 0.05},
    "radam": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02},
    "rprop": {"etas": (0.4, 1.3), "step_sizes": (0.005, 0.04)},
    "asgd": {"lr": 0.01, "lambd": 0.1, "alpha": 0.7, "t0": 2.0, "weight_decay": 0.02},
    "lion": {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.02},
    "lamb": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02},
    "lars": {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.02, "trust_coefficient": 0.05, "eps": 0.1, "nesterov": True},
}
# What only the generic function has.
RARE: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd, lr_in_velocity": ("sgd", {"momentum": 0.9, "lr_in_velocity": True, "weight_decay": 0.02, "l1": 0.003}),
    "sgd, plain": ("sgd", {"weight_decay": 0.02, "maximize": True}),
    "rmsprop, eps_inside_sqrt": ("rmsprop", {"eps_inside_sqrt": True, "weight_decay": 0.02, "l1": 0.003}),
    "adam, amsgrad": ("adam", {"amsgrad": True, "decoupled_weight_decay": True, "weight_decay": 0.02, "maximize": True}),
    "adam, slide": ("adam", {"bias_correction": False, "eps_inside_sqrt": True, "weight_decay": 0.02}),
    "rprop, l1": ("rprop", {"l1": 0.003, "maximize": True}),
    "lamb, no bias_correction": ("lamb", {"bias_correction": False, "weight_decay": 0.02, "l1": 0.003}),
    "lars, no momentum": ("lars", {"momentum": 0.0, "weight_decay": 0.02}),
}
CASES = {**{rule: (rule, options) for rule, options in RULES.items()}, **RARE}
STEPS = 6


def in_c(options: dict[str, Any]) -> dict[str, Any]:
    """The options under their names in C."""
    pairs = [
        list(zip(PAIRS.get(name, (name,)), value if name in PAIRS else (value,), strict=True)) for name, value in options.items()
    ]
    return dict(sum(pairs, []))


def usual(rule: str) -> Options:
    options = Options()
    assert API.options_init(_core.optimizers.index(rule), ctypes.addressof(options), ctypes.sizeof(options)) == 0
    return options


def address(a: Array | None) -> int | None:
    return None if a is None else a.ctypes.data


def c_step(rule: str, arrays: list[Array | None], numbers: Scalars, own: Options, **change: Any) -> str:
    """One step through the table: the name of the code that it returns. arrays: w, g and the states."""
    w, g, *states = arrays
    dtype = "float32" if w is None else w.dtype.name
    call = {
        "kind": _core.optimizers.index(rule),
        "dtype": DTYPES.index(dtype),
        "n": 0 if w is None else w.size,
        "w": address(w),
        "g": address(g),
        "g_dtype": DTYPES.index(dtype),
        "states": (ctypes.c_void_p * 3)(*map(address, states)),
        "scalars": ctypes.addressof(numbers),
        "options": ctypes.addressof(own),
    }
    return CODES[API.step(*{**call, **change}.values())]


def start(rng: np.random.Generator, dtype: Any, n: int) -> Array:
    """Rows w, g and three states, of which the second may be rprop's step sizes."""
    rows = normal(rng, dtype, 5, n)
    rows[0, ::7] = 0
    rows[2:] = 0
    rows[3] = 0.01
    return rows


def python_steps(rule: str, rows: Array, options: dict[str, Any], first: int = 1, last: int = STEPS) -> None:
    function = getattr(optim, f"{rule}_step_")
    count = len(_core.optimizer_states[rule])
    numbers = {"mu_product": 1.0} if rule == "nadam" else {}
    for t in range(first, last + 1):
        product = function(*rows[: 2 + count], step=t, **numbers, **options)
        if rule == "nadam":
            numbers["mu_product"] = product


def c_steps(rule: str, rows: Array, options: dict[str, Any], *, first: int = 1, last: int = STEPS, **shared: Any) -> Scalars:
    own = usual(rule)
    for name, value in {**in_c(options), **shared}.items():
        setattr(own, name, value)
    scalars = Scalars(1, 1.0, -1.0, 1.0)
    for t in range(first, last + 1):
        scalars.step = t
        assert c_step(rule, list(rows), scalars, own) == "TRAINSTEP_OK", API.error(CODES.index("TRAINSTEP_BAD_OPTION"))
    return scalars


def test_every_rule_has_its_case() -> None:
    assert set(RULES) == set(_core.optimizers)
    assert [f"trainstep_{rule}" for rule in _core.optimizers] == re.findall(r"\w+", declared("enum", "trainstep_kind"))


@pytest.mark.parametrize("case", CASES)
def test_a_step_has_the_bits_of_python(case: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    rule, options = CASES[case]
    for n in (0, 1, 257, 16384, 16385):
        rows = start(rng, dtype, n)
        expected = rows.copy()
        python_steps(rule, expected, options)
        c_steps(rule, rows, options)
        assert_same_bits(rows, expected, n)
        assert n < 257 or not np.array_equal(rows[0], start(rng, dtype, n)[0])


@pytest.mark.parametrize("rule", RULES)
def test_large_arrays_have_the_same_bits_on_any_number_of_threads(
    rule: str, dtype: np.dtype, threads: int, rng: np.random.Generator
) -> None:
    rows = start(rng, dtype, 200_003)
    expected, alone = rows.copy(), rows.copy()
    python_steps(rule, expected, RULES[rule], last=2)
    c_steps(rule, rows, RULES[rule], last=2)
    c_steps(rule, alone, RULES[rule], last=2, one_thread=1)
    assert_same_bits(rows, expected)
    assert_same_bits(alone, expected)


def test_several_threads_step_at_once(rng: np.random.Generator) -> None:
    jobs = [(rule, options, start(rng, "float32", 1000 + 20_011 * (k % 3))) for k, (rule, options) in enumerate(RULES.items())]
    expected = [rows.copy() for *_, rows in jobs]
    for (rule, options, _), rows in zip(jobs, expected, strict=True):
        python_steps(rule, rows, options)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda job: c_steps(job[0], job[2], job[1]), jobs))
    for (rule, _, rows), wanted in zip(jobs, expected, strict=True):
        assert_same_bits(rows, wanted, rule)


@pytest.mark.skipif(not ts.config()["openmp"] or sys.platform != "linux", reason="counts the threads of a process on Linux")
def test_one_thread_starts_no_other() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(HERE.parent)!r})
import numpy as np, trainstep as ts
from tests import test_capi as t
ts.set_num_threads(2)
counts = []
for shared in ({{"one_thread": 1}}, {{"one_thread": 0}}):
    for rule in ("adam", "lamb"):
        before = len(os.listdir("/proc/self/task"))
        t.c_steps(rule, t.start(np.random.default_rng(0), "float32", 2_000_000), t.RULES[rule], last=1, **shared)
        counts.append(len(os.listdir("/proc/self/task")) - before)
print(counts)
"""
    assert output_of(code, {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}) == "[0, 0, 1, 0]"


@pytest.mark.parametrize("g_dtype", DTYPES)
def test_gradients_of_every_dtype(g_dtype: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    rows = start(rng, dtype, 1000)
    g = (rows[1] * 64).round() / 64  # the same number in every dtype
    rows[1] = g = np.where(abs(g) < 2, g, 0)
    kept = (
        (g.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # exact: 7 bits are all there are
        if g_dtype == "bfloat16"
        else g.astype(g_dtype)
    )
    expected = rows.copy()
    python_steps("adam", expected, RULES["adam"], last=1)
    options = usual("adam")
    for name, value in in_c(RULES["adam"]).items():
        setattr(options, name, value)
    code = c_step("adam", list(rows), Scalars(1, 1, -1, 1), options, g=kept.ctypes.data, g_dtype=DTYPES.index(g_dtype))
    assert code == "TRAINSTEP_OK"
    assert_same_bits(rows, expected)


def test_scale_then_clip(dtype: np.dtype, rng: np.random.Generator) -> None:
    rows = start(rng, dtype, 1000)
    expected = rows.copy()
    expected[1] = np.clip(rows[1] / 2, -0.25, 0.25)
    python_steps("adam", expected, RULES["adam"])
    c_steps("adam", rows, RULES["adam"], grad_scale=0.5, clip_value=0.25)
    assert_same_bits(rows[2:], expected[2:])
    assert_same_bits(rows[0], expected[0])


def test_scalars_go_on() -> None:
    rows = start(np.random.default_rng(0), "float64", 5)
    nadam = c_steps("nadam", rows, RULES["nadam"])
    mu = [0.8 * (1 - 0.5 * 0.96 ** (t * 0.05)) for t in range(1, STEPS + 1)]
    assert nadam.step == STEPS
    assert nadam.mu_product == pytest.approx(np.prod(mu), rel=1e-14)
    asgd = c_steps("asgd", rows, RULES["asgd"])
    assert asgd.eta == pytest.approx(0.01 / (1 + 0.1 * 0.01 * STEPS) ** 0.7, rel=1e-14)
    assert asgd.mu == 1 / (STEPS - 2)


def test_asgd_finds_its_rate_from_the_step(rng: np.random.Generator) -> None:
    rows = start(rng, "float64", 100)
    expected = rows.copy()
    python_steps("asgd", expected, RULES["asgd"], first=7, last=7)
    c_steps("asgd", rows, RULES["asgd"], first=7, last=7)
    assert_same_bits(rows, expected)


@pytest.mark.parametrize("rule", RULES)
def test_options_are_those_of_python(rule: str) -> None:
    """Names and defaults; an option that the rule does not have is refused by its name."""
    parameters = inspect.signature(getattr(optim, f"{rule}_step_")).parameters.values()
    given = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("step", "mu_product", "eta")}
    wanted = in_c(given)
    has = {name: getattr(usual(rule), name) for name, _ in Options._fields_ if name in wanted}
    assert has == wanted
    rows = start(np.random.default_rng(0), "float64", 3)
    for name, kind in Options._fields_:
        if name in SHARED:
            continue
        options = usual(rule)
        setattr(options, name, 1 - getattr(options, name) if kind is ctypes.c_int else getattr(options, name) + 0.0005)
        code = c_step(rule, list(rows.copy()), Scalars(1, 1, -1, 1), options)
        refused = code == "TRAINSTEP_BAD_OPTION" and API.error(CODES.index(code)) == f"{rule} has no option {name}".encode()
        assert refused == (name not in wanted), name


# What is changed in a good call of adam, and the code that it gets.
BAD_CALLS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "kind": (lambda _: {"kind": len(_core.optimizers)}, "BAD_KIND"),
    "kind below 0": (lambda _: {"kind": -1}, "BAD_KIND"),
    "dtype": (lambda _: {"dtype": DTYPES.index("bfloat16")}, "BAD_DTYPE"),
    "dtype of g": (lambda _: {"g_dtype": len(DTYPES)}, "BAD_DTYPE"),
    "w": (lambda _: {"w": None}, "NULL"),
    "g": (lambda _: {"g": None}, "NULL"),
    "no states": (lambda _: {"states": None}, "NULL"),
    "one state": (lambda rows: {"states": (ctypes.c_void_p * 3)(rows[2].ctypes.data)}, "NULL"),
    "scalars": (lambda _: {"scalars": None}, "NULL"),
    "options": (lambda _: {"options": None}, "NULL"),
    "unaligned": (lambda rows: {"w": rows[0].ctypes.data + 1, "n": 2}, "UNALIGNED"),
    "g is w": (lambda rows: {"g": rows[0].ctypes.data}, "OVERLAP"),
    "g reaches into a state": (lambda rows: {"g": rows[1].ctypes.data + 8}, "OVERLAP"),
    "too many": (lambda _: {"n": 2**63}, "BAD_SIZE"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_writes_nothing(case: str, rng: np.random.Generator) -> None:
    change, code = BAD_CALLS[case]
    rows = start(rng, "float64", 10)
    with untouched(rows):
        assert c_step("adam", list(rows), Scalars(1, 1, -1, 1), usual("adam"), **change(rows)) == f"TRAINSTEP_{code}"


@pytest.mark.parametrize(
    ("rule", "name", "value", "text"),
    [
        ("adam", "beta2", 1.5, "adam: beta2 is 1.5, expected 0 <= beta2 < 1"),
        ("adam", "lr", float("nan"), "adam: lr is nan"),
        ("lion", "weight_decay", -1.0, "lion: weight_decay is -1"),
        ("sgd", "nesterov", 1, "sgd: nesterov needs momentum"),
        ("adam", "momentum", 0.9, "adam has no option momentum"),
        ("adam", "size", 8, "trainstep_options_init"),
        ("adam", "grad_scale", float("inf"), "grad_scale is not finite"),
        ("adam", "clip_value", -1.0, "clip_value is not"),
        ("adam", "reserved", 1, "reserved is not 0"),
    ],
)
def test_a_bad_option_is_named(rule: str, name: str, value: Any, text: str, rng: np.random.Generator) -> None:
    options = usual(rule)
    setattr(options, name, value)
    rows = start(rng, "float64", 10)
    with untouched(rows):
        assert c_step(rule, list(rows), Scalars(1, 1, -1, 1), options) == "TRAINSTEP_BAD_OPTION"
    assert text in API.error(CODES.index("TRAINSTEP_BAD_OPTION")).decode()


@pytest.mark.parametrize(
    ("rule", "scalars", "code"),
    [
        ("adam", (0, 1, -1, 1), "BAD_STEP"),
        ("adam", (2**63 - 1, 1, -1, 1), "BAD_STEP"),
        ("nadam", (1, -0.5, -1, 1), "BAD_SCALAR"),
        ("nadam", (1, float("nan"), -1, 1), "BAD_SCALAR"),
        ("asgd", (1, 1, float("nan"), 1), "BAD_SCALAR"),
        ("asgd", (1, 1, 0.01, 0), "BAD_SCALAR"),
    ],
)
def test_a_bad_scalar_writes_nothing(rule: str, scalars: tuple[Any, ...], code: str, rng: np.random.Generator) -> None:
    rows, numbers = start(rng, "float64", 10), Scalars(*scalars)
    with untouched(rows):
        assert c_step(rule, list(rows), numbers, usual(rule)) == f"TRAINSTEP_{code}"
    assert bytes(numbers) == bytes(Scalars(*scalars))


def test_no_elements_need_no_arrays() -> None:
    for rule in RULES:
        scalars = Scalars(3, 1, -1, 1)
        assert c_step(rule, [None] * 5, scalars, usual(rule), states=None) == "TRAINSTEP_OK"
        assert (scalars.mu_product < 1, scalars.eta > 0) == (rule == "nadam", rule == "asgd")  # the others are not its own


def test_every_code_has_a_text() -> None:
    texts = [API.error(code).decode() for code in range(len(CODES))]
    own = texts[: CODES.index("TRAINSTEP_NOT_IMPORTED")]  # whose text the header has
    assert len(set(own)) == len(own)
    assert API.error(-1) == API.error(99) == b"no code of trainstep"


def test_options_of_another_size_are_refused() -> None:
    options = Options()
    for kind, at, size, code in (
        (0, ctypes.addressof(options), 8, "BAD_OPTION"),
        (0, None, ctypes.sizeof(options), "NULL"),
        (99, ctypes.addressof(options), ctypes.sizeof(options), "BAD_KIND"),
    ):
        assert CODES[API.options_init(kind, at, size)] == f"TRAINSTEP_{code}"
    assert bytes(options) == bytes(Options())


def test_global_norm(dtype: np.dtype, rng: np.random.Generator) -> None:
    arrays = [normal(rng, dtype, n) for n in (0, 3, 100_003)]
    result = ctypes.c_double(-1)
    pointers, sizes = (ctypes.c_void_p * 3)(*map(address, arrays)), (ctypes.c_size_t * 3)(*(a.size for a in arrays))
    kind, out = DTYPES.index(dtype.name), ctypes.addressof(result)
    for call, code in (
        ((99, 3, pointers, sizes, out), "BAD_DTYPE"),
        ((kind, 3, None, sizes, out), "NULL"),
        ((kind, 3, pointers, sizes, None), "NULL"),
        ((kind, 3, (ctypes.c_void_p * 3)(), sizes, out), "NULL"),
    ):
        assert CODES[API.global_norm(*call)] == f"TRAINSTEP_{code}"
        assert result.value == -1
    assert API.global_norm(kind, 3, pointers, sizes, out) == 0
    assert result.value == _core.global_norm(arrays)
    assert API.global_norm(kind, 0, None, None, out) == 0
    assert result.value == 0


# --- compiled against the installed package ---------------------------------------------------------------------------------------


def absent(what: str) -> None:
    assert not os.environ.get("CI"), f"CI has {what}"
    pytest.skip(f"no {what}")


@pytest.fixture(scope="module")
def compiler() -> list[str]:
    """The system's C compiler, with the folders of both headers."""
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("something is preloaded, which the compiler would run under")
    command = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not command:
        absent("C compiler")
    python = sysconfig.get_path("include")
    if not (Path(python) / "Python.h").exists():
        absent("Python.h")
    return [*shlex.split(str(command)), "-isystem", python, f"-I{ts.get_include()}"]


def compiled(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("language", [("c", "c99"), ("c", "c11"), ("c++", "c++11"), ("c++", "c++20")], ids=lambda v: v[1])
def test_the_header_compiles_without_a_warning(compiler: list[str], language: tuple[str, str], tmp_path: Path) -> None:
    source = tmp_path / "header"
    source.write_text("#include <trainstep.h>\nint f(void) { return trainstep_import(); }\n")
    kind, standard = language
    compiled(*compiler, "-x", kind, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", str(source))


def test_a_c_program(compiler: list[str], tmp_path: Path) -> None:
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not (folder / library).exists():
        pytest.skip("no shared libpython")
    program = tmp_path / "program"
    source = str(HERE / "capi_program.c")
    warnings = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    compiled(*compiler, *warnings, source, "-o", str(program), str(folder / library), f"-Wl,-rpath,{folder}")
    path = os.pathsep.join(p for p in sys.path if p)
    result = subprocess.run(
        [program],
        env={**os.environ, "PYTHONHOME": sys.base_prefix, "PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    expected = b""
    for dtype in (np.float32, np.float64):
        rows = np.zeros((5, 1000), dtype)
        rows[0] = (np.arange(1000) % 17 - 8) / 8
        for rule, options in (
            ("adam", {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.02}),
            ("rmsprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.02, "l1": 0.003}),
        ):
            rows[2:] = 0
            for t in range(1, 6):
                rows[1] = rows[0] / 2
                python_steps(rule, rows, options, t, t)
        expected += rows[0].tobytes()
    assert result.stdout == expected


@pytest.fixture(scope="module")
def cython_module(compiler: list[str], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """tests/capi_steps.pyx, by Cython and the system's compiler."""
    if not importlib.util.find_spec("Cython"):
        absent("Cython")
    folder = tmp_path_factory.mktemp("cython")
    source = folder / "capi_steps.c"
    command = [sys.executable, "-m", "cython", "-3", str(HERE / "capi_steps.pyx"), "-o", str(source)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, run.stderr
    path = folder / f"capi_steps{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    link = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-fopenmp"]
    compiled(*compiler, "-O0", "-fPIC", "-shared", str(source), "-o", str(path), *link)
    spec = importlib.util.spec_from_file_location("capi_steps", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rule", [*RULES, "adamw"])
def test_every_rule_from_cython(cython_module: ModuleType, rule: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    rows = start(rng, dtype, 1003)
    expected = rows.copy()
    if rule == "adamw":
        python_steps("adam", expected, {**RULES["adam"], "decoupled_weight_decay": True})
    else:
        python_steps(rule, expected, RULES[rule])
    cython_module.run(rule, rows, STEPS)
    assert_same_bits(rows, expected)


def test_a_parallel_loop_of_cython(cython_module: ModuleType, dtype: np.dtype, rng: np.random.Generator) -> None:
    arrays = np.stack([start(rng, dtype, 70_001) for _ in range(4)])
    expected = arrays.copy()
    for rows in expected:
        python_steps("adam", rows, {**RULES["adam"], "decoupled_weight_decay": True})
    cython_module.adamw_without_gil(arrays, 1, STEPS)
    assert_same_bits(arrays, expected)


def test_python_threads_in_cython(cython_module: ModuleType, rng: np.random.Generator) -> None:
    jobs = [np.stack([start(rng, "float32", 5003)]) for _ in range(6)]
    expected = [job.copy() for job in jobs]
    for job in expected:
        python_steps("adam", job[0], {**RULES["adam"], "decoupled_weight_decay": True})
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda job: cython_module.adamw_without_gil(job, 1, STEPS), jobs))
    for job, wanted in zip(jobs, expected, strict=True):
        assert_same_bits(job, wanted)


def test_a_bad_step_raises_in_cython(cython_module: ModuleType, rng: np.random.Generator) -> None:
    arrays = np.stack([start(rng, "float64", 10)])
    with untouched(arrays), pytest.raises(ValueError, match=r"step is not from 1 to"):
        cython_module.adamw_without_gil(arrays, 0, 0)
    with pytest.raises(KeyError):
        cython_module.run("none", arrays[0], 1)
