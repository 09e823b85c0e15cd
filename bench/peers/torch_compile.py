"""PyTorch, compiled: loss, gradients and update in one graph, so that one call runs the whole step.

Compiling only the loss, or a step with `loss.backward()` and `torch.optim.Adam` inside, was two to five times slower
on small nets: those break into several graphs. The modes "reduce-overhead" and "max-autotune" are about CUDA graphs
and GPU templates, and gained nothing on a CPU. `torch._fused_adam_` cannot be traced next to `torch.func.grad`, so
Adam is written out and the compiler fuses it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from peers.torch_eager import TorchStep, make_parameters
from trainstep.bench.tasks import TrainProblem

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class CompiledStep(TorchStep):
    """One full graph from Inductor, called from Python or through its C++ wrapper."""

    variants = ("python_wrapper", "cpp_wrapper")

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Wrap the step; Inductor bakes the threads into its code."""
        super().__init__(problem, variant, threads)
        torch.set_grad_enabled(False)  # torch.func.grad works regardless; nothing here is meant for autograd
        options = {"cpp_wrapper": self.variant == "cpp_wrapper"}
        self.compiled = torch.compile(self._make_step(problem), fullgraph=True, dynamic=False, options=options)
        self.reset()
        self.step()

    def _make_step(self, problem: TrainProblem) -> Callable[..., torch.Tensor]:
        """Return the function to compile: it updates parameters and state in place and returns the loss."""
        lr, adam = problem.lr, problem.optimizer == "adam"
        grad_and_loss = torch.func.grad_and_value(self.forward_loss)

        def train_step(
            parameters: list[torch.Tensor],
            first: list[torch.Tensor],
            second: list[torch.Tensor],
            count: torch.Tensor,
            x: torch.Tensor,
            y: torch.Tensor,
        ) -> torch.Tensor:
            """One step of Adam or SGD, as torch.optim has it."""
            gradients, loss = grad_and_loss(parameters, x, y)
            if not adam:
                for p, g in zip(parameters, gradients, strict=True):
                    p.sub_(lr * g)
                return loss
            count.add_(1)
            rate = lr / (1 - BETA1**count)
            root = torch.sqrt(1 - BETA2**count)
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m.lerp_(g, 1 - BETA1)
                v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                p.sub_(rate * m / (v.sqrt() / root + EPS))
            return loss

        return train_step

    def reset(self) -> None:
        """Make parameters and state anew; shapes stay, so nothing is compiled again."""
        parameters = make_parameters(self.problem)
        first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.arguments = (parameters, first, second, torch.zeros(()))
        self.rewind(torch.from_numpy)

    def step(self) -> torch.Tensor:
        """Do one step; the loss stays a tensor."""
        return self.compiled(*self.arguments, *next(self.batches))


TASKS = {"train_step": CompiledStep}
