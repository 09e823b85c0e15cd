"""The activations against PyTorch's: values and gradients, element-wise. Skipped where torch is missing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trainstep import reference

from .activation_rules import ACTIVATIONS, BY_ROWS, derivative_from, functions
from .helpers import Array

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
F = torch.nn.functional

THEIRS: dict[str, Callable[..., Any]] = {
    "identity": torch.nn.Identity(),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, threshold=1000),  # beyond its threshold, 20 by default, torch takes x
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "softmax": lambda x: F.softmax(x, dim=-1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
}


def of_torch(name: str, x: Array, dy: Array, **options: float) -> tuple[Array, Array]:
    given = torch.from_numpy(x.copy()).requires_grad_()
    y = THEIRS[name](given, **options)
    y.backward(torch.from_numpy(dy.copy()))
    return y.detach().numpy(), given.grad.numpy()


def inputs(name: str, dtype: np.dtype, rng: np.random.Generator) -> tuple[Array, Array]:
    """Drawn, far out, and the finite extremes; of a function over rows all in rows of ten."""
    x = np.concatenate(
        [3 * rng.standard_normal(2000), rng.uniform(-60, 60, 1000), [0, -0.0, 1e-30, -1e-30, 1, -1, 3, -3, 1e4, -1e4]]
    )
    x = x.reshape(-1, 10).astype(dtype)
    return (x if name in BY_ROWS else x.ravel()), rng.standard_normal(x.shape if name in BY_ROWS else x.size).astype(dtype)


def compare(name: str, module: Any, dtype: np.dtype, rng: np.random.Generator, **options: float) -> None:
    x, dy = inputs(name, dtype, rng)
    y, dx = of_torch(name, x, dy, **options)
    forward, backward = reference.ACTIVATIONS[name] if module is reference else functions(name)
    # In float64 the floor is what is left of 1 + erf, 1 + tanh and 1 - exp where torch subtracts them.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-13}
    mine = forward(x, **options)
    np.testing.assert_allclose(mine, y, **tolerance)
    if name == "hardsigmoid":  # torch multiplies by a float32 of 1/6, also in float64
        tolerance["rtol"] = max(tolerance["rtol"], 1e-7)
    if name == "gelu_tanh" and dtype == np.float32:  # torch's 1 + tanh is a rounding far below 0, and is multiplied by x^3
        tolerance["atol"] = 5e-6
    np.testing.assert_allclose(backward(dy, derivative_from(name, x, mine), **options), dx, **tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("module", ["ops", "reference"])
def test_values_and_gradients_are_torchs(dtype: np.dtype, name: str, module: str, rng: np.random.Generator) -> None:
    compare(name, reference if module == "reference" else None, dtype, rng)


@pytest.mark.parametrize(("name", "option", "value"), [("leaky_relu", "negative_slope", 0.3), ("elu", "alpha", 0.7)])
def test_options_are_torchs(dtype: np.dtype, name: str, option: str, value: float, rng: np.random.Generator) -> None:
    compare(name, None, dtype, rng, **{option: value})


@pytest.mark.parametrize("name", ["hardtanh", "hardsigmoid", "hardswish", "relu", "leaky_relu", "elu", "selu"])
def test_what_is_taken_at_the_end_of_a_piece_is_torchs(dtype: np.dtype, name: str) -> None:
    x = np.array([-3, -1, 0, 1, 3], dtype)
    y, dx = of_torch(name, x, np.ones_like(x))
    forward, backward = functions(name)
    mine = forward(x)
    np.testing.assert_allclose(mine, y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(backward(np.ones_like(x), derivative_from(name, x, mine)), dx, rtol=1e-6, atol=1e-7)
