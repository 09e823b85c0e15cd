"""Losses and their gradients against PyTorch's, in float32 and float64, with every option that both have. Skipped without torch."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, losses, ops, reference

from .helpers import Array, network
from .test_ops import CASES, REDUCTIONS, loss_problem

pytestmark = [pytest.mark.peers, pytest.mark.one_level]
torch = pytest.importorskip("torch")
F: Any = torch.nn.functional

CLOSE = {"float32": {"rtol": 1e-5, "atol": 1e-6}, "float64": {"rtol": 1e-9, "atol": 1e-13}}


def kl(x: Any, t: Any, reduction: str) -> Any:
    each = F.kl_div(F.log_softmax(x, 1), t, reduction="none").sum(1)
    batchmean = F.kl_div(F.log_softmax(x, 1), t, reduction="batchmean")
    return {"none": each, "sum": each.sum(), "mean": batchmean}[reduction]


def hinge(x: Any, t: Any, reduction: str) -> Any:  # PyTorch has the formula, not the function
    each = torch.relu(1 - t * x)
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


# Each loss as PyTorch calls it, with the options to try.
PEERS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "softmax_cross_entropy": (F.cross_entropy, [{}, {"label_smoothing": 0.2}]),
    "sigmoid_binary_cross_entropy": (F.binary_cross_entropy_with_logits, [{}]),
    "categorical_cross_entropy": (lambda p, t, **o: F.nll_loss(torch.log(p), t, **o), [{}]),
    "mse": (F.mse_loss, [{}]),
    "mae": (F.l1_loss, [{}]),
    "huber": (F.huber_loss, [{}, {"delta": 0.3}]),
    "hinge": (hinge, [{}]),
    "poisson_nll": (F.poisson_nll_loss, [{}]),
    "kl_divergence": (kl, [{}]),
}
# PyTorch's nll_loss knows class indices alone, and kl_div rows alone.
TAKEN = [(n, k) for n, k in CASES if (n, k) not in {("categorical_cross_entropy", "probabilities"), ("kl_divergence", "labels")}]


def test_every_loss_has_a_peer() -> None:
    assert tuple(PEERS) == _core.losses


def peers_result(f: Callable[..., Any], pred: Array, target: Array, reduction: str, **options: Any) -> tuple[Any, Array]:
    x = torch.from_numpy(pred.copy()).requires_grad_()
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    loss = f(x, torch.from_numpy(target), reduction=reduction, **tensors)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize(("name", "kind"), TAKEN)
def test_losses_are_torchs(name: str, kind: str, dtype: np.dtype, rng: np.random.Generator) -> None:
    peer, option_sets = PEERS[name]
    for shape, reduction, options in product(((1, 1), (7, 3), (65, 10), (33, 100)), REDUCTIONS, option_sets):
        pred, target = loss_problem(name, kind, rng, dtype, *shape)
        wanted = peers_result(peer, pred, target, reduction, **options)
        for module in (ops, reference):
            got = getattr(module, name)(pred, target, **options, reduction=reduction)
            for mine, theirs in zip(got, wanted, strict=True):
                np.testing.assert_allclose(mine, theirs, **CLOSE[dtype.name], err_msg=f"{name} {shape} {reduction} {options}")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_class_weights_are_torchs(kind: str, label_smoothing: float, dtype: np.dtype, rng: np.random.Generator) -> None:
    for shape, reduction in product(((7, 3), (65, 10), (33, 100)), REDUCTIONS):
        if kind == "probabilities" and reduction == "mean":
            continue  # which PyTorch divides by the rows, and by the weights for labels
        logits, labels = loss_problem("softmax_cross_entropy", kind, rng, dtype, *shape)
        options = {"weight": rng.uniform(0.1, 2, shape[1]).astype(dtype), "label_smoothing": label_smoothing}
        wanted = peers_result(F.cross_entropy, logits, labels, reduction, **options)
        for module in (ops, reference):
            for mine, theirs in zip(
                module.softmax_cross_entropy(logits, labels, **options, reduction=reduction), wanted, strict=True
            ):
                np.testing.assert_allclose(mine, theirs, **CLOSE[dtype.name], err_msg=f"{shape} {reduction}")


def test_training_with_options_is_torchs() -> None:
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((64, 6)), rng.integers(0, 4, 64), rng.uniform(0.1, 2, 4)
    model = network((6, 9, 4))
    params = [torch.from_numpy(v.copy()).requires_grad_() for v in model.parameters().values()]
    trainer = ts.Trainer(model, losses.SoftmaxCrossEntropy(weight=weight, label_smoothing=0.1), ts.optim.SGD(lr=0.1))
    sgd = torch.optim.SGD(params, lr=0.1)
    for _ in range(10):
        out = torch.tanh(torch.from_numpy(x) @ params[0] + params[1]) @ params[2] + params[3]
        loss = F.cross_entropy(out, torch.from_numpy(y), weight=torch.from_numpy(weight), label_smoothing=0.1)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        assert trainer.step(x, y) == pytest.approx(float(loss.detach()), rel=1e-10)
    for mine, theirs in zip(model.parameters().values(), params, strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)
