"""JAX: the whole step in one jit, parameters and optimizer state donated, data on the device beforehand."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax

from trainstep.bench.tasks import Array, OptimizerProblem, OptimizerTask, TrainProblem, TrainStep


def forward_loss(parameters: list[tuple[jax.Array, jax.Array]], x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of the network."""
    for w, b in parameters[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = parameters[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y).mean()


class JaxStep(TrainStep):
    """`jax.jit` over `value_and_grad` and `optax.adam` or `optax.sgd`."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Put the batch on the device; XLA takes its threads from the affinity mask and NPROC."""
        super().__init__(problem, variant, threads)
        self.optimizer = optimizer = (optax.adam if problem.optimizer == "adam" else optax.sgd)(problem.lr)

        @partial(jax.jit, donate_argnums=(0, 1))
        def train_step(parameters: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
            """Return the new parameters, the new state and the loss."""
            loss, gradients = jax.value_and_grad(forward_loss)(parameters, x, y)
            updates, state = optimizer.update(gradients, state)
            return optax.apply_updates(parameters, updates), state, loss

        self.train_step = train_step

    def reset(self) -> None:
        """Copy the initial weights: a donated buffer may be written to, so it must not alias NumPy's."""
        pairs = zip(self.problem.weights, self.problem.biases, strict=True)
        self.parameters = [(jnp.array(w, copy=True), jnp.array(b, copy=True)) for w, b in pairs]
        self.state = self.optimizer.init(self.parameters)
        self.rewind(jnp.array)  # labels become int32

    def step(self) -> jax.Array:
        """Start one step; the loss stays on the device."""
        self.parameters, self.state, loss = self.train_step(self.parameters, self.state, *next(self.batches))
        return loss

    def sync(self, loss: jax.Array) -> None:
        """Wait for the loss and for the update."""
        jax.block_until_ready((loss, self.parameters))

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the versions of JAX, its library and optax."""
        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "optax": optax.__version__}


# What makes optax's rules PyTorch's: the options are other ones, or have other defaults.
OPTAX = {
    "SGD": lambda lr=1e-3, **options: optax.sgd(lr, **options),
    # Inside the root, where PyTorch's epsilon would be another; both are far below the sums.
    "Adagrad": lambda lr=1e-2: optax.adagrad(lr, initial_accumulator_value=0.0, eps=0.0),
    "RMSprop": lambda lr=1e-2: optax.rmsprop(lr, decay=0.99, eps_in_sqrt=False),
    "Adadelta": lambda lr=1.0: optax.adadelta(lr),
    "Adam": lambda lr=1e-3: optax.adam(lr),
    "Adamax": lambda lr=2e-3: optax.adamax(lr),
}
OTHER = {
    "NAdam": "its NAdam has no momentum_decay",
    "RAdam": "its RAdam has the rectification in float32, and is 0.6% off at the sixth step",
}


class JaxOptimizer(OptimizerTask):
    """`optax` in one `jit`, parameters and state donated."""

    versions = staticmethod(JaxStep.versions)

    @staticmethod
    def lacks(problem: OptimizerProblem) -> str:
        """Name rules that are not PyTorch's."""
        return OTHER.get(problem.rule, "")

    def __init__(self, problem: OptimizerProblem, variant: str, threads: int) -> None:
        """Compile the step; XLA takes its threads from the affinity mask and NPROC."""
        super().__init__(problem, variant, threads)
        self.optimizer = optimizer = OPTAX[problem.rule](**problem.options)

        @partial(jax.jit, donate_argnums=(0, 1))
        def update(parameters: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            """Return the new parameters and the new state."""
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state

        self.update = update

    def give(self, step: int) -> None:
        """Put gradients on the device, and keep no others."""
        self.gradients, self.grads = None, [self.make(shape) for shape in self.problem.shapes]
        super().give(step)
        self.gradients = [jnp.array(g) for g in self.grads]
        self.params, self.grads = [], []

    def reset(self) -> None:
        """Make parameters and state anew, the old ones gone before."""
        self.parameters = self.state = None
        self.parameters = [jnp.zeros(shape) for shape in self.problem.shapes]
        self.state = self.optimizer.init(self.parameters)

    def step(self) -> None:
        """Start one step."""
        self.parameters, self.state = self.update(self.parameters, self.state, self.gradients)

    def sync(self, result: None) -> None:
        """Wait for the update."""
        jax.block_until_ready((self.parameters, self.state))

    def arrays(self) -> list[Array]:
        """Return the parameters; a view would forbid donation if it were kept."""
        return [np.asarray(p) for p in self.parameters]


TASKS = {"train_step": JaxStep, "optimizers": JaxOptimizer}
