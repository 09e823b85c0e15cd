"""trainstep.torch on the inputs of PyTorch's own optimizer tests, which torch brings along: options, errors and schedulers."""

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
adapter = pytest.importorskip("trainstep.torch")
pytest.importorskip("expecttest")  # which torch's tests import
common = pytest.importorskip("torch.testing._internal.common_optimizers")

OF_OTHER_DEVICES = ("capturable", "foreach", "fused", "differentiable")
INFOS = [info for info in common.optim_db if hasattr(adapter, info.optim_cls.__name__)]


def inputs() -> list[Any]:
    cases = []
    for info in INFOS:
        for given in info.optim_inputs_func(device="cpu"):
            if not any(given.kwargs.get(name) for name in OF_OTHER_DEVICES):
                name = info.optim_cls.__name__
                cases.append(pytest.param(name, given.kwargs, id=f"{name}-{given.desc}".replace(" ", "_")))
    return cases


def errors() -> list[Any]:
    cases = []
    for info in INFOS:
        for given in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            wrong = given.optimizer_error_input
            # What foreach does not go with does not matter here, and numbers may be tensors of one element.
            taken = "foreach" in wrong.kwargs or any(torch.is_tensor(beta) for beta in wrong.kwargs.get("betas", ()))
            if given.error_on is common.OptimizerErrorEnum.CONSTRUCTION_ERROR and not taken:
                name = info.optim_cls.__name__
                cases.append(pytest.param(name, wrong, given.error_type, id=f"{name}-{wrong.desc}".replace(" ", "_")))
    return cases


def network() -> Any:
    """A vector and matrices, as the parameters of a small net in float64, and its loss."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Any:
        return torch.nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

    weight, bias, x = drawn(10, 5), drawn(10), drawn(5).detach()
    hidden, above = drawn(7, 10), drawn(3, 7)

    def loss() -> Any:
        return (above @ torch.tanh(hidden @ (weight @ x + bias))).pow(2).sum()

    return [weight, bias, hidden, above], loss


@pytest.mark.parametrize(("name", "options"), inputs())
def test_every_input_of_torchs_tests(name: str, options: dict[str, Any]) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # which NAdam and ASGD of torch keep their numbers in
    try:
        ends = []
        for module in (adapter, torch.optim):
            params, loss = network()
            optimizer = getattr(module, name)(params, **{k: v for k, v in options.items() if k not in OF_OTHER_DEVICES})
            for _ in range(12):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
            ends.append([p.detach().numpy() for p in params])
    finally:
        torch.set_default_dtype(before)
    for got, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "wrong", "error"), errors())
def test_what_torch_refuses_is_refused(name: str, wrong: Any, error: type[Exception]) -> None:
    params = [torch.nn.Parameter(torch.randn(1))] if wrong.params is None else wrong.params
    options = {k: v for k, v in wrong.kwargs.items() if k not in OF_OTHER_DEVICES}
    with pytest.raises((error, TypeError, ValueError)):
        getattr(adapter, name)(params, **options)


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.optim_cls.__name__)
def test_the_schedulers_of_torchs_tests(info: Any) -> None:
    for makes in info.scheduler_inputs:
        ends = []
        for module in (adapter, torch.optim):
            params, loss = network()
            optimizer = getattr(module, info.optim_cls.__name__)(params, lr=0.01)
            schedulers = [make(optimizer) for make in makes]
            for _ in range(20):
                value = loss()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                for scheduler in schedulers:
                    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                    scheduler.step(value.detach()) if plateau else scheduler.step()
            ends.append(([p.detach().numpy() for p in params], optimizer.param_groups[0]["lr"]))
        assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-12)
        for got, expected in zip(ends[0][0], ends[1][0], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
