"""PyTorch, eager: plain functions, autograd, fused optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from trainstep.bench.tasks import (
    DROPOUT_RATE,
    Array,
    Call,
    CallTask,
    DenseProblem,
    DenseTask,
    LayerProblem,
    LayerTask,
    OptimizerProblem,
    OptimizerTask,
    PredictProblem,
    PredictTask,
    TrainProblem,
    TrainStep,
    tiny_arrays,
)

FUSED = ("SGD", "Adagrad", "Adam")  # of torch.optim, those with a fused kernel for CPUs


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


class TorchStep(TrainStep):
    """A step that also comes at a lower precision, each of its variants: as "medium VARIANT" and "autocast VARIANT"."""

    versions = staticmethod(torch_versions)

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Set threads and precision: "medium" allows products of float32 in bfloat16, autocast casts what goes into them."""
        super().__init__(problem, variant, threads)
        torch.set_num_threads(threads)
        precision, _, self.variant = variant.rpartition(" ")
        torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
        self.forward_loss = forward_loss
        if precision == "autocast":
            self.forward_loss = torch.autocast("cpu", torch.bfloat16)(forward_loss)

    @classmethod
    def ways(cls, variant: str) -> tuple[str, ...]:
        """Return all variants, at the precision that was asked for."""
        return tuple(f"{variant} {way}".strip() for way in cls.variants)


class EagerStep(TorchStep):
    """Autograd and `torch.optim`'s Adam or SGD with `fused=True`; gradients dropped between steps, or kept and zeroed."""

    variants = ("set_to_none", "zero_in_place")

    def reset(self) -> None:
        """Make parameters and optimizer anew."""
        self.parameters = [p.requires_grad_() for p in make_parameters(self.problem)]
        make = torch.optim.Adam if self.problem.optimizer == "adam" else torch.optim.SGD
        self.optimizer = make(self.parameters, lr=self.problem.lr, fused=True)
        self.rewind(torch.from_numpy)

    def step(self) -> torch.Tensor:
        """Do one step; the loss stays a tensor."""
        self.optimizer.zero_grad(set_to_none=self.variant == "set_to_none")
        loss = self.forward_loss(self.parameters, *next(self.batches))
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class EagerDense(DenseTask):
    """`torch.mm` and `torch.sum` with `out=`, no autograd; the variant "bf16" has operands and results that are bfloat16."""

    versions = staticmethod(torch_versions)

    def __init__(self, problem: DenseProblem, variant: str, threads: int) -> None:
        """Set the threads and wrap the arrays."""
        super().__init__(problem, variant, threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        dtype = torch.bfloat16 if variant == "bf16" else torch.float32
        self.x, self.w, self.dy = (torch.from_numpy(a).to(dtype) for a in (problem.x, problem.w, problem.dy))
        self.out = [torch.zeros(e.shape, dtype=dtype) for e in problem.exact]

    def reset(self) -> None:
        """Forget the last results."""
        for out in self.out:
            out.zero_()

    def made(self) -> list[Array]:
        """Return the results as arrays, of float32: NumPy has no bfloat16."""
        return [out.float().numpy() for out in self.out]

    def forward(self) -> None:
        """Make y."""
        torch.mm(self.x, self.w, out=self.out[0])

    def dw(self) -> None:
        """Make dw and db."""
        torch.mm(self.x.T, self.dy, out=self.out[0])
        torch.sum(self.dy, 0, out=self.out[1])

    def dw_dx(self) -> None:
        """Make dw, db and dx."""
        self.dw()
        torch.mm(self.dy, self.w.T, out=self.out[2])


class EagerOptimizer(OptimizerTask):
    """The class of `torch.optim`, fused where it can be, else `foreach`; parameters and gradients are PyTorch's own memory."""

    versions = staticmethod(torch_versions)

    def __init__(self, problem: OptimizerProblem, variant: str, threads: int) -> None:
        """Set the threads, and make the tensors."""
        torch.set_num_threads(threads)
        self.tensors: list[torch.Tensor] = []
        super().__init__(problem, variant, threads)
        half = len(self.tensors) // 2
        self.parameters = [t.requires_grad_() for t in self.tensors[:half]]
        for p, g in zip(self.parameters, self.tensors[half:], strict=True):
            p.grad = g

    def make(self, shape: tuple[int, ...]) -> Array:
        """Make a tensor; parameters come first, then gradients."""
        self.tensors.append(torch.empty(shape))
        return self.tensors[-1].numpy()

    def reset(self) -> None:
        """Make the optimizer anew, its old states gone before."""
        self.optimizer = None
        for p in self.params:
            p[...] = 0
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> Any:
        """Make the optimizer over `parameters`."""
        how = {"fused": True} if self.problem.rule in FUSED else {"foreach": True}
        return getattr(torch.optim, self.problem.rule)(self.parameters, **self.problem.options, **how)

    def step(self) -> None:
        """Do one step."""
        self.optimizer.step()


def residual(x: torch.Tensor, w0: torch.Tensor, b0: torch.Tensor, w1: torch.Tensor, b1: torch.Tensor) -> torch.Tensor:
    """Two layers beside an identity; autograd needs neither what relu nor what the addition is given, so both work in place."""
    return functional.linear(functional.linear(x, w0, b0).relu_(), w1, b1).add_(x)


# Layers and losses of the arrays of a problem, in its order. In place where autograd allows it, which saves an array.
FORMULAS: dict[str, Callable[..., torch.Tensor]] = {
    "dense": functional.linear,
    "dense_relu": lambda x, w, b: functional.linear(x, w, b).relu_(),
    "residual": residual,
    "batch_norm": lambda x, gamma, beta, mean, var: functional.batch_norm(x, mean, var, gamma, beta, training=True),
    "layer_norm": lambda x, gamma, beta: functional.layer_norm(x, gamma.shape, gamma, beta),
    "dropout": lambda x: functional.dropout(x, DROPOUT_RATE),
    "standardize": lambda x, mean, scale: (x - mean).mul_(scale),
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": torch.selu,
    "softplus": functional.softplus,
    "hardtanh": functional.hardtanh,
    "hardsigmoid": functional.hardsigmoid,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "mish": functional.mish,
    "softmax": lambda x: torch.softmax(x, 1),
    "log_softmax": lambda x: torch.log_softmax(x, 1),
    "softmax_cross_entropy": functional.cross_entropy,
    "sigmoid_binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "categorical_cross_entropy": lambda p, labels: functional.nll_loss(p.log(), labels),
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "hinge": lambda scores, t: (1 - t * scores).relu_().mean(),  # functional's are of other shapes
    "poisson_nll": functional.poisson_nll_loss,
    "kl_divergence": lambda z, t: functional.kl_div(torch.log_softmax(z, 1), t, reduction="batchmean"),
}


class EagerLayer(LayerTask):
    """Functions and autograd: gradients into `.grad`, dropped before each step, or from `torch.autograd.grad`."""

    versions = staticmethod(torch_versions)
    variants = ("backward", "autograd_grad")

    @staticmethod
    def lacks(problem: LayerProblem) -> str:
        """Say where there is no formula."""
        return "" if problem.name in FORMULAS else f"PyTorch has no {problem.name}"

    def __init__(self, problem: LayerProblem, variant: str, threads: int) -> None:
        """Set the threads, and make the tensors, weights in PyTorch's own layout (out, in)."""
        super().__init__(problem, variant, threads)
        torch.set_num_threads(threads)
        a = {n: torch.from_numpy(v.T.copy() if n.endswith("weight") else v) for n, v in problem.arrays.items()}
        self.dy = a.pop("dy", None)
        self.arguments = tuple(a.values())
        self.leaves = [a[name].requires_grad_() for name in ("x", *problem.trained)]
        self.formula = FORMULAS[problem.name]
        self.step = getattr(self, variant)

    def reset(self) -> None:
        """Forget the last results."""
        self.y, self.gradients = None, ()
        for leaf in self.leaves:
            leaf.grad = None

    def backward(self) -> None:
        """Go forward and backward, gradients into `.grad`."""
        self.reset()
        self.y = self.formula(*self.arguments)
        self.y.backward(self.dy)

    def autograd_grad(self) -> None:
        """Go forward and backward, gradients as results."""
        self.y, self.gradients = None, ()
        self.y = self.formula(*self.arguments)
        self.gradients = torch.autograd.grad(self.y, self.leaves, self.dy)

    def results(self) -> list[Array]:
        """Return y and the gradients, those of weights as (in, out)."""
        dx, *others = self.gradients or [leaf.grad for leaf in self.leaves]
        named = zip(self.problem.trained, others, strict=True)
        turned = [g.T if name.endswith("weight") else g for name, g in named]
        return [tensor.detach().numpy() for tensor in (self.y, dx, *turned)]


class EagerCalls(CallTask):
    """The calls of PyTorch that come nearest, gradients off; backward formulas as autograd calls them."""

    versions = staticmethod(torch_versions)

    def calls(self) -> dict[str, Call]:
        """Make all calls."""
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        a = {name: torch.from_numpy(array) for name, array in tiny_arrays().items()}
        x, y, dy, w, grad = a["x"], a["y"], a["dy"], a["w"], a["grad"]

        def dense_backward(dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return dy @ w.T, x.T @ dy, dy.sum(0)

        def optimizer_step(make: Any) -> Call:
            param = a["param"].clone()
            param.grad = grad
            return Call(make([param], lr=1e-3, fused=True).step, shows=param)

        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        return {
            "ops.dense": Call(torch.mm, (x, w)),
            "ops.dense_backward": Call(dense_backward, (dy, x, w)),
            "ops.identity": Call(torch.clone, (x,)),
            "ops.relu": Call(torch.relu, (x,)),
            "ops.relu_backward": Call(torch.ops.aten.threshold_backward, (dy, y, 0)),
            "ops.sigmoid": Call(torch.sigmoid, (x,)),
            "ops.sigmoid_backward": Call(torch.ops.aten.sigmoid_backward, (dy, y)),
            "ops.tanh": Call(torch.tanh, (x,)),
            "ops.tanh_backward": Call(torch.ops.aten.tanh_backward, (dy, y)),
            "optim.SGD.step": optimizer_step(torch.optim.SGD),
            "optim.Adam.step": optimizer_step(torch.optim.Adam),
            "optim.AdamW.step": optimizer_step(torch.optim.AdamW),
            "init.zeros": Call(torch.zeros, (4, 4)),
            "nn 64-64-10: model(x), 1 row": Call(model, (a["row"],), shows=()),  # other weights: not compared
            "get_num_threads": Call(torch.get_num_threads),
            "set_num_threads": Call(torch.set_num_threads, (1,)),
        }


class EagerPredict(PredictTask):
    """Functions without autograd: eager, or traced and frozen by TorchScript."""

    versions = staticmethod(torch_versions)
    variants = ("eager", "frozen")

    def __init__(self, problem: PredictProblem, variant: str, threads: int) -> None:
        """Set the threads and make the network."""
        super().__init__(problem, variant, threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.x = torch.from_numpy(problem.x)
        modules: list[torch.nn.Module] = []
        for w, b in zip(problem.weights, problem.biases, strict=True):
            linear = torch.nn.Linear(*w.shape)
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
            modules += [linear, torch.nn.ReLU()]
        self.model: Any = torch.nn.Sequential(*modules[:-1]).eval()
        if variant == "frozen":
            self.model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(self.model, self.x)))

    def step(self) -> torch.Tensor:
        """Ask the network."""
        with torch.inference_mode():
            return self.model(self.x)


TASKS = {
    "train_step": EagerStep,
    "predict": EagerPredict,
    "dense": EagerDense,
    "optimizers": EagerOptimizer,
    "layers": EagerLayer,
    "calls": EagerCalls,
}
