"""DeepSpeed: `DeepSpeedCPUAdam`, whose kernels it builds at first use, with a C++ compiler that it looks for itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

# The build looks for ninja, which pip puts beside the interpreter.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import deepspeed  # noqa: E402
from deepspeed.ops.adam import DeepSpeedCPUAdam  # noqa: E402

from peers.torch_eager import EagerOptimizer, torch_versions  # noqa: E402
from trainstep.bench.tasks import OptimizerProblem  # noqa: E402


class DeepSpeedOptimizer(EagerOptimizer):
    """Adam over PyTorch's tensors."""

    @staticmethod
    def lacks(problem: OptimizerProblem) -> str:
        """Name rules that it does not have, and what keeps its kernels from being built."""
        if problem.rule != "Adam":
            return f"it has no {problem.rule}"
        try:
            DeepSpeedCPUAdam([torch.nn.Parameter(torch.zeros(1))])
        except RuntimeError as error:
            return f"{error} ({error.__cause__})"
        return ""

    def make_optimizer(self) -> Any:
        """Make the optimizer; `adamw_mode` would decouple a weight decay, of which there is none."""
        return DeepSpeedCPUAdam(self.parameters, **self.problem.options, adamw_mode=False)

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the versions of DeepSpeed and PyTorch."""
        return {"deepspeed": deepspeed.__version__, "torch": torch_versions()["torch"]}


TASKS = {"optimizers": DeepSpeedOptimizer}
