"""Networks of norm and residual layers beside PyTorch's: values, gradients, running statistics and training steps."""

import copy

import numpy as np
import pytest

import trainstep as ts
from trainstep.nn import Activation, BatchNorm, Dense, LayerNorm, Residual, Sequential

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

# Of the largest element. float32: PyTorch's own sums are less exact than ours.
BOUNDS = {"float64": 1e-9, "float32": 2e-5}


class Block(torch.nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, *body: torch.nn.Module, shortcut: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = torch.nn.Sequential(*body), shortcut or torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


def networks(dtype: str) -> dict[str, tuple[Sequential, torch.nn.Module]]:
    """Each network with its twin: the same layers, and the weights of the first."""
    nn, linear = torch.nn, torch.nn.Linear
    made = {
        "batch_norm": (
            [Dense(7, 12), BatchNorm(), Activation("relu"), Dense(12, 3)],
            nn.Sequential(linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), linear(12, 3)),
        ),
        "batch_norm, other options": (
            [BatchNorm(7, momentum=0.3, eps=1e-3, affine=False), Dense(7, 3, activation="tanh")],
            nn.Sequential(nn.BatchNorm1d(7, momentum=0.3, eps=1e-3, affine=False), linear(7, 3), nn.Tanh()),
        ),
        "layer_norm": (
            [Dense(7, 12), LayerNorm(eps=1e-3), Activation("gelu"), Dense(12, 3), LayerNorm(affine=False)],
            nn.Sequential(
                linear(7, 12), nn.LayerNorm(12, eps=1e-3), nn.GELU(), linear(12, 3), nn.LayerNorm(3, elementwise_affine=False)
            ),
        ),
        "residual": (
            [
                Residual(Dense(7, 9, activation="silu"), Dense(9, 7)),
                Residual(LayerNorm(), Dense(7, 5), shortcut=Dense(7, 5)),
                Dense(5, 3),
            ],
            nn.Sequential(
                Block(linear(7, 9), nn.SiLU(), linear(9, 7)),
                Block(nn.LayerNorm(7), linear(7, 5), shortcut=linear(7, 5)),
                linear(5, 3),
            ),
        ),
        "nested": (
            [Dense(7, 6), Residual(Residual(BatchNorm(), Activation("relu"), Dense(6, 6)), Activation("tanh")), Dense(6, 3)],
            nn.Sequential(linear(7, 6), Block(Block(nn.BatchNorm1d(6), nn.ReLU(), linear(6, 6)), nn.Tanh()), linear(6, 3)),
        ),
    }
    pairs = {}
    for name, (layers, twin) in made.items():
        model, twin = Sequential(*layers, seed=3, dtype=dtype), twin.to(getattr(torch, dtype))  # noqa: PLW2901
        rng = np.random.default_rng(5)
        for view, p in zip(model.parameters().values(), twin.parameters(), strict=True):
            view[...] = 0.5 * rng.standard_normal(view.shape) + (view.ndim == 1)
            p.data = torch.from_numpy(np.ascontiguousarray(view.T))
        pairs[name] = model, twin
    return pairs


NAMES = list(networks("float32"))


def assert_near(got: np.ndarray, wanted: torch.Tensor, what: str) -> None:
    exact = wanted.detach().numpy()
    bound = BOUNDS[str(got.dtype)] * (1 + abs(exact).max())
    assert abs(got - exact).max() <= bound, f"{what}: {abs(got - exact).max()} of {bound}"


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_and_statistics(name: str, dtype: str, rng: np.random.Generator) -> None:
    model, twin = networks(dtype)[name]
    for rows in (2, 9, 64):
        x, dy = rng.standard_normal((rows, 7)).astype(dtype) + 1, rng.standard_normal((rows, 3)).astype(dtype)
        tensor = torch.from_numpy(x.copy()).requires_grad_()
        twin.train()
        twin.zero_grad()
        wanted = twin(tensor)
        wanted.backward(torch.from_numpy(dy))
        assert_near(model.forward(x, training=True), wanted, f"y of {rows} rows")
        assert_near(model.backward(dy), tensor.grad, f"dx of {rows} rows")
        for (own_name, g), p in zip(model.gradients().items(), twin.parameters(), strict=True):
            assert_near(g, p.grad.T if g.ndim == 2 else p.grad, f"{own_name} of {rows} rows")
        statistics = [b for b in twin.buffers() if b.ndim == 1]
        for (own_name, b), s in zip(model.buffers().items(), statistics, strict=True):
            assert_near(b, s, f"{own_name} of {rows} rows")
        twin.eval()
        assert_near(model(x), twin(torch.from_numpy(x)), f"inference on {rows} rows")


@pytest.mark.parametrize("name", NAMES)
def test_training_steps(name: str, rng: np.random.Generator) -> None:
    """Ten steps of Adam with a clipped norm, in float64."""
    model, twin = networks("float64")[name]
    model, twin = copy.deepcopy(model), copy.deepcopy(twin)
    x, y = rng.standard_normal((17, 7)), rng.integers(0, 3, 17)
    trainer = ts.Trainer(model, optimizer=ts.optim.Adam(lr=0.01, weight_decay=0.1), clip_norm=0.5)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01, weight_decay=0.1)
    twin.train()
    for step in range(10):
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        adam.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-7), step
    for (own_name, w), p in zip(model.parameters().items(), twin.parameters(), strict=True):
        # A bias in front of BatchNorm has no gradient but rounding, and Adam makes steps of it.
        if (name, own_name) != ("batch_norm", "0.bias"):
            np.testing.assert_allclose(w, p.detach().numpy().T, rtol=1e-6, atol=1e-7, err_msg=own_name)
