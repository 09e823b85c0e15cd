"""scikit-learn: `partial_fit` of `MLPClassifier` on one batch, which is one step; its `fit`; `predict` of `MLPRegressor`."""

from __future__ import annotations

import warnings
from math import sqrt

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from trainstep.bench.tasks import Array, FitProblem, FitTask, PredictProblem, PredictTask, TrainProblem, TrainStep

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


class SklearnFit(FitTask):
    """`fit` from weights that are given: `warm_start` goes on from those there are, with an optimizer of its own."""

    versions = staticmethod(SklearnStep.versions)

    def __init__(self, problem: FitProblem, variant: str, threads: int) -> None:
        """Make the classifier with its arrays."""
        super().__init__(problem, variant, threads)
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs are wanted
        self.model = MLPClassifier(
            hidden_layer_sizes=problem.sizes[1:-1],
            alpha=0.0,
            batch_size=problem.batch,
            learning_rate_init=problem.lr,
            max_iter=problem.epochs,
            epsilon=EPSILON,
            shuffle=False,
            tol=0.0,
            n_iter_no_change=2**62,
            warm_start=True,
        )
        self.model.fit(problem.x, problem.y)

    def step(self) -> tuple[list[Array], list[Array]]:
        """Train from the initial weights."""
        self.model.coefs_ = [w.copy() for w in self.problem.weights]
        self.model.intercepts_ = [b.copy() for b in self.problem.biases]
        self.model.loss_curve_ = []
        self.model.fit(self.problem.x, self.problem.y)
        return self.model.coefs_, self.model.intercepts_


class SklearnPredict(PredictTask):
    """`predict` of a regressor of many outputs."""

    versions = staticmethod(SklearnStep.versions)

    def __init__(self, problem: PredictProblem, variant: str, threads: int) -> None:
        """Make the regressor and give it its weights."""
        super().__init__(problem, variant, threads)
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        sizes = problem.sizes
        self.model = MLPRegressor(hidden_layer_sizes=sizes[1:-1])
        self.model.partial_fit(problem.x[:1], np.zeros((1, sizes[-1]), np.float32))
        self.model.coefs_, self.model.intercepts_ = problem.weights, problem.biases

    def step(self) -> Array:
        """Ask the network."""
        return self.model.predict(self.problem.x)


TASKS = {"train_step": SklearnStep, "fit": SklearnFit, "predict": SklearnPredict}
