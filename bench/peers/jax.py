"""JAX: the whole step in one jit, parameters and optimizer state donated, data on the device beforehand."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import optax

from trainstep.bench.tasks import TrainProblem, TrainStep


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


TASKS = {"train_step": JaxStep}
