"""DeepSpeed: its optimizers for CPUs, whose kernels it builds at first use, with a C++ compiler that it looks for itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

# The build looks for ninja, which pip puts beside the interpreter.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import deepspeed  # noqa: E402
from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad  # noqa: E402
from deepspeed.ops.adam import DeepSpeedCPUAdam  # noqa: E402

from peers.torch_eager import EagerOptimizer, torch_versions  # noqa: E402
from trainstep.bench.tasks import OptimizerProblem  # noqa: E402

# By rule, with the options that make it PyTorch's.
OPTIMIZERS = {"Adam": (DeepSpeedCPUAdam, {"adamw_mode": False}), "Adagrad": (DeepSpeedCPUAdagrad, {})}


class DeepSpeedOptimizer(EagerOptimizer):
    """Adam and Adagrad over PyTorch's tensors."""

    @staticmethod
    def lacks(problem: OptimizerProblem) -> str:
        """Name rules that it does not have, and what keeps its kernels from being built."""
        if problem.rule not in OPTIMIZERS:
            return f"it has no {problem.rule}"
        try:
            OPTIMIZERS[problem.rule][0]([torch.nn.Parameter(torch.zeros(1))])
        except RuntimeError as error:
            return f"{error} ({error.__cause__})"
        return ""

    def make_optimizer(self) -> Any:
        """Make the optimizer over `parameters`."""
        make, options = OPTIMIZERS[self.problem.rule]
        return make(self.parameters, **self.problem.options, **options)

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the versions of DeepSpeed and PyTorch."""
        return {"deepspeed": deepspeed.__version__, "torch": torch_versions()["torch"]}


TASKS = {"optimizers": DeepSpeedOptimizer}
