"""What `trainstep bench` and bench/ are made of: probes, roofline, harness, cases. No figure is compared with a time."""

import math

import pytest

import trainstep as ts
from trainstep import _core

SECONDS = 1e-4  # a sample's length: these tests look at shapes and signs


def test_fma_probe(dtype: object, threads: int) -> None:
    rates = _core.fma_probe(str(dtype), SECONDS, 3)
    assert len(rates) == 3
    assert all(rate > 0 and math.isfinite(rate) for rate in rates)


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
    ("call", "error", "words"),
    [
        (
            lambda: _core.fma_probe("float16", SECONDS, 1),
            ValueError,
            "fma_probe: dtype is 'float16', expected one of float32, float64",
        ),
        (
            lambda: _core.fma_probe("float32", math.nan, 1),
            ValueError,
            "fma_probe: seconds is nan, expected more than 0 and at most 10.0",
        ),
        (lambda: _core.fma_probe("float32", SECONDS, 0), ValueError, "fma_probe: samples is 0.0, expected more than 0"),
        (lambda: _core.stream_probe("scale", 1, SECONDS, 1), ValueError, "stream_probe: stream is 'scale', expected one of read"),
        (lambda: _core.stream_probe("read", -1, SECONDS, 1), ValueError, "stream_probe: bytes is -1.0, expected more than 0"),
        (lambda: _core.round_trip_probe(0), ValueError, "round_trip_probe: samples is 0.0, expected more than 0"),
    ],
)
def test_probes_refuse(call: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
