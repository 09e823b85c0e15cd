"""scikit-learn: `MLPClassifier.partial_fit` on one batch, which is one step."""

from __future__ import annotations

from math import sqrt

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from trainstep.bench.tasks import TrainProblem, TrainStep

# scikit-learn adds epsilon before the bias correction. This is PyTorch's 1e-8 at step 1, where gradients near 0 matter
# most; the usual 1e-8 would move the losses by up to 1e-4.
EPSILON = 1e-8 * sqrt(1 - 0.999)


class SklearnStep(TrainStep):
    """float32, no shuffling, no input checks: the fastest settings that keep the result."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Make the classifier; its first `partial_fit` allocates the weights that `reset` then overwrites."""
        super().__init__(problem, variant, threads)
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        self.model = MLPClassifier(
            hidden_layer_sizes=problem.sizes[1:-1],
            solver=problem.optimizer,
            momentum=0.0,
            alpha=0.0,
            batch_size=problem.batch,
            learning_rate_init=problem.lr,
            epsilon=EPSILON,
            shuffle=False,
            tol=0.0,
            n_iter_no_change=2**62,
        )
        self.model.partial_fit(problem.x[0], problem.y[0], classes=np.arange(problem.sizes[-1]))

    def reset(self) -> None:
        """Set the weights; the optimizer has no public reset, but `partial_fit` makes a new one where none is."""
        for mine, initial in zip(self.model.coefs_, self.problem.weights, strict=True):
            mine[...] = initial
        for mine, initial in zip(self.model.intercepts_, self.problem.biases, strict=True):
            mine[...] = initial
        self.model.loss_curve_ = []
        if hasattr(self.model, "_optimizer"):
            del self.model._optimizer
        self.rewind()

    def step(self) -> float:
        """Do one step."""
        self.model.partial_fit(*next(self.batches))
        return self.model.loss_

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the versions of scikit-learn and NumPy."""
        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}


TASKS = {"train_step": SklearnStep}
