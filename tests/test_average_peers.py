"""Averages of the weights against torch.optim.swa_utils. Skipped without torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import optim
from trainstep.averages import EMA, SWA, Average

from .helpers import classes

pytestmark = [pytest.mark.peers, pytest.mark.one_level]
torch = pytest.importorskip("torch")
swa: Any = pytest.importorskip("torch.optim.swa_utils")

# Our names, and torch's of the same arrays.
NAMES = {
    "0.weight": "0.weight", "0.bias": "0.bias", "1.gamma": "1.weight", "1.beta": "1.bias",
    "2.weight": "2.weight", "2.bias": "2.bias", "1.running_mean": "1.running_mean", "1.running_var": "1.running_var",
}  # fmt: skip


def take(net: Any, model: ts.nn.Sequential) -> None:
    """Give a torch network the arrays of a model."""
    arrays, theirs = model.parameters() | model.buffers(), net.state_dict()
    for mine, name in NAMES.items():
        values = torch.from_numpy(arrays[mine].copy())
        theirs[name].copy_(values.T if name in ("0.weight", "2.weight") else values)


def assert_the_same(model: ts.nn.Sequential, net: Any, rtol: float) -> None:
    arrays, theirs = model.parameters() | model.buffers(), net.state_dict()
    for mine, name in NAMES.items():
        values = theirs[name].numpy()
        values = values.T if name in ("0.weight", "2.weight") else values
        np.testing.assert_allclose(arrays[mine], values, rtol=rtol, atol=rtol, err_msg=mine)


@pytest.mark.parametrize(
    ("average", "peer"),
    [
        (EMA(0.9), lambda: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.9)}),
        (EMA(0.999), lambda: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.999)}),
        (SWA(1), dict),
    ],
    ids=str,
)
def test_averages(average: Average, peer: Callable[[], dict[str, Any]], dtype: np.dtype) -> None:
    x, y = classes(96, 5, 3, dtype)
    torch_dtype = torch.float32 if dtype == np.float32 else torch.float64
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3)).to(torch_dtype)
    averaged = swa.AveragedModel(net, use_buffers=True, **peer())
    model = ts.nn.Sequential(ts.nn.Dense(5, 7), ts.nn.BatchNorm(), ts.nn.Dense(7, 3), dtype=dtype)
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.1), average=average)
    for _ in range(12):
        trainer.fit(x, y, batch_size=96)  # one update an epoch, which both kinds of average take in
        take(net, model)
        averaged.update_parameters(net)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    assert_the_same(trainer.averaged_model(), averaged.module, rtol)
    batches = [torch.from_numpy(x[first : first + 32].copy()) for first in range(0, 96, 32)]
    swa.update_bn(batches, averaged)
    assert_the_same(trainer.averaged_model(x, 32), averaged.module, rtol)
