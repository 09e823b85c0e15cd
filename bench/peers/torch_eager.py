"""PyTorch, eager: plain functions, autograd, fused Adam."""

from __future__ import annotations

import torch
from torch.nn import functional

from peers.base import TrainProblem, TrainStep


def make_parameters(problem: TrainProblem) -> list[torch.Tensor]:
    """Copy weight, bias, weight, bias... into tensors of PyTorch's own layout (out, in)."""
    pairs = zip(problem.weights, problem.biases, strict=True)
    return [torch.from_numpy(a.T.copy()) for pair in pairs for a in pair]


def forward_loss(parameters: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the network; without nn.Module, whose bookkeeping costs a few per cent here."""
    for i in range(0, len(parameters) - 2, 2):
        x = functional.relu(functional.linear(x, parameters[i], parameters[i + 1]))
    return functional.cross_entropy(functional.linear(x, parameters[-2], parameters[-1]), y)


def torch_versions() -> dict[str, str]:
    """Return PyTorch's version and the instruction set its own kernels use."""
    return {"torch": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability()}


class EagerStep(TrainStep):
    """Autograd and `torch.optim.Adam(fused=True)`; gradients dropped between steps, or kept and zeroed."""

    variants = ("set_to_none", "zero_in_place")

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Set the threads and wrap the batch."""
        super().__init__(problem, variant, threads)
        torch.set_num_threads(threads)
        self.set_to_none = variant == "set_to_none"
        self.x, self.y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)

    def reset(self) -> None:
        """Make parameters and optimizer anew."""
        self.parameters = [p.requires_grad_() for p in make_parameters(self.problem)]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.problem.lr, fused=True)

    def step(self) -> torch.Tensor:
        """Do one step; the loss stays a tensor."""
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        loss = forward_loss(self.parameters, self.x, self.y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @staticmethod
    def versions() -> dict[str, str]:
        """Return PyTorch's version and instruction set."""
        return torch_versions()


TASKS = {"train_step": EagerStep}
