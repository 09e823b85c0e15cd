"""What the tests of compiled code share: dtypes, thread counts, and sizes that straddle vectors.

The ISA level is chosen once, at import, so a run of pytest tests one level. tests/run_levels.py runs them all, and is what
``make test`` calls.
"""

import os
import signal

import numpy as np
import pytest
from hypothesis import settings

import trainstep as ts

# Every run draws the same examples; --hypothesis-profile=random draws new ones.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("deterministic")

VECTOR_BYTES = {"generic": 16, "avx2": 32, "avx512": 64, "neon": 16}


def vector_width(dtype: object) -> int:
    """The number of elements in a vector of the level under test."""
    config = ts.config()
    return VECTOR_BYTES[config["isa_base"][config["isa"]]] // np.dtype(dtype).itemsize


def straddling_sizes(dtype: object, grain: int = 4096) -> list[int]:
    """Sizes around a vector, several vectors, and the grain that work is cut at between threads."""
    width = vector_width(dtype)
    return sorted({0, 1, width - 1, width, width + 1, 2 * width, 4 * width + 3, grain - 1, grain, grain + 1, 5 * grain + 7})


def pytest_configure() -> None:
    """Let Ctrl-C be tested: what a shell starts in the background ignores it, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    config = ts.config()
    return f"trainstep {config['version']}, ISA level {config['isa']} ({config['isa_reason']})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what run_levels.py runs on another level."""
    if os.environ.get("TRAINSTEP_TEST_ONE_LEVEL") == "0":
        once = [item for item in items if item.get_closest_marker("one_level")]
        left_out = [item for item in once if not item.get_closest_marker("every_level")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, scope="session")
def the_level_asked_for() -> None:
    """A run that was asked for a level and uses another proves nothing."""
    asked = os.environ.get("TRAINSTEP_ISA")
    assert not asked or ts.config()["isa"] == asked


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"{n}threads")
def threads(request: pytest.FixtureRequest) -> int:
    with ts.num_threads(request.param):
        yield request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)
