"""trainstep: one call into C++."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import trainstep as ts
from trainstep import _core
from trainstep.bench.tasks import (
    DROPOUT_RATE,
    Array,
    Call,
    CallTask,
    DenseProblem,
    DenseTask,
    FitTask,
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
from trainstep.nn.layers import Layer

OPTIMIZERS = {"adam": ts.optim.Adam, "sgd": ts.optim.SGD}
FIT_STEPS = 1000  # steps in the `fit` that is divided by them


class TrainstepStep(TrainStep):
    """`Trainer.step` on a `Sequential` of `Dense`; a variant is the trainer's `precision`."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Build the network; its threads come from TRAINSTEP_NUM_THREADS."""
        super().__init__(problem, variant, threads)
        self.options: dict[str, Any] = {} if variant == "default" else {"precision": variant}
        self.model = network(problem.sizes)

    def reset(self) -> None:
        """Write the initial weights through the views, which are not kept: a live view forbids cached forms."""
        fill(self.model, self.problem.weights, self.problem.biases)
        optimizer = OPTIMIZERS[self.problem.optimizer](lr=self.problem.lr)
        self.trainer = ts.Trainer(self.model, loss="softmax_cross_entropy", optimizer=optimizer, **self.options)
        self.rewind()

    def step(self) -> float:
        """Do one step."""
        x, y = next(self.batches)
        return self.trainer.step(x, y)

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the version and the ISA level in use."""
        return {"trainstep": ts.__version__, "isa": str(ts.config()["isa"])}


def network(sizes: list[int]) -> ts.nn.Sequential:
    """Build a network with relu between its layers."""
    pairs = list(pairwise(sizes))
    return ts.nn.Sequential(*(ts.nn.Dense(i, o, activation="relu") for i, o in pairs[:-1]), ts.nn.Dense(*pairs[-1]), seed=0)


def fill(model: ts.nn.Sequential, weights: list[Array], biases: list[Array]) -> None:
    """Give a network its weights."""
    parameters = model.parameters()
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        parameters[f"{i}.weight"][...] = w
        parameters[f"{i}.bias"][...] = b


class TrainstepFit(FitTask):
    """`Trainer.fit`, with a trainer and an optimizer made anew."""

    versions = staticmethod(TrainstepStep.versions)

    def step(self) -> tuple[list[Array], list[Array]]:
        """Train from the initial weights."""
        p = self.problem
        model = network(p.sizes)
        fill(model, p.weights, p.biases)
        trainer = ts.Trainer(model, loss="softmax_cross_entropy", optimizer=ts.optim.Adam(lr=p.lr))
        trainer.fit(p.x, p.y, epochs=p.epochs, batch_size=p.batch, shuffle=False)
        trained = list(model.parameters().values())
        return trained[::2], trained[1::2]


class TrainstepPredict(PredictTask):
    """A call of the network."""

    versions = staticmethod(TrainstepStep.versions)

    def __init__(self, problem: PredictProblem, variant: str, threads: int) -> None:
        """Build the network."""
        super().__init__(problem, variant, threads)
        self.model = network(problem.sizes)
        fill(self.model, problem.weights, problem.biases)

    def step(self) -> Array:
        """Ask it."""
        return self.model(self.problem.x)


class TrainstepDense(DenseTask):
    """`ops.dense` and `ops.dense_backward`; a variant is their `precision`."""

    versions = staticmethod(TrainstepStep.versions)

    def __init__(self, problem: DenseProblem, variant: str, threads: int) -> None:
        """Add the variant to the functions' arguments."""
        super().__init__(problem, variant, threads)
        functions: list[Callable[..., Any]] = [ts.ops.dense, ts.ops.dense_backward]
        if variant != "default":
            functions = [partial(function, precision=variant) for function in functions]
        self.dense, self.dense_backward = functions

    def forward(self) -> None:
        """Make y."""
        self.dense(self.problem.x, self.problem.w, out=self.results[0])

    def dw(self) -> None:
        """Make dw and db."""
        out = (None, self.results[0], self.results[1])
        self.dense_backward(self.problem.dy, self.problem.x, self.problem.w, need_dx=False, out=out)

    def dw_dx(self) -> None:
        """Make dw, db and dx."""
        dw, db, dx = self.results
        self.dense_backward(self.problem.dy, self.problem.x, self.problem.w, out=(dx, dw, db))


class TrainstepOptimizer(OptimizerTask):
    """The optimizer's `step`; a variant is its `state_dtype`."""

    versions = staticmethod(TrainstepStep.versions)

    def __init__(self, problem: OptimizerProblem, variant: str, threads: int) -> None:
        """Add the variant to the options."""
        super().__init__(problem, variant, threads)
        self.options: dict[str, Any] = problem.options | ({} if variant == "default" else {"state_dtype": variant})

    def reset(self) -> None:
        """Make the optimizer anew, its old states gone before."""
        self.optimizer: Any = None
        for p in self.params:
            p[...] = 0
        self.optimizer = getattr(ts.optim, self.problem.rule)(self.params, **self.options)

    def step(self) -> None:
        """Do one step."""
        self.optimizer.step(self.grads)


class TrainstepLayer(LayerTask):
    """`Sequential.forward` and `backward` of a network of one layer; of a loss, its function in `ops`."""

    versions = staticmethod(TrainstepStep.versions)

    def __init__(self, problem: LayerProblem, variant: str, threads: int) -> None:
        """Take the arrays, and let `step` be the method for the kind."""
        super().__init__(problem, variant, threads)
        self.x = problem.arrays["x"]
        if problem.is_loss:
            self.target, self.function = problem.arrays["target"], getattr(ts.ops, problem.name)
        else:
            self.dy = problem.arrays["dy"]
        self.step = self.loss if problem.is_loss else self.layer  # type: ignore[method-assign]

    def reset(self) -> None:
        """Make the network anew, with the parameters and buffers of the problem; the views of them are not kept."""
        self.y: Any = None
        self.dx: Any = None
        if not self.problem.is_loss:
            self.model = ts.nn.Sequential(layer(self.problem.name, self.x.shape[1]))
            for name, view in (self.model.parameters() | self.model.buffers()).items():
                view[...] = self.problem.arrays[name.removeprefix("0.")]

    def layer(self) -> None:
        """Go forward and backward."""
        self.y = self.dx = None
        self.y = self.model.forward(self.x, training=True)
        self.dx = self.model.backward(self.dy)

    def loss(self) -> None:
        """Make the loss and its gradient."""
        self.y = self.dx = None
        self.y, self.dx = self.function(self.x, self.target)

    def results(self) -> list[Array]:
        """Return y, dx and the gradients, or the loss and its gradient."""
        gradients = {} if self.problem.is_loss else self.model.gradients()
        return [self.y, self.dx, *(gradients[f"0.{name}"] for name in self.problem.trained)]


def layer(name: str, width: int) -> Layer:
    """Make a layer of as many outputs as inputs."""
    dense = partial(ts.nn.Dense, width, width)
    makers: dict[str, Callable[[], Layer]] = {
        "dense": dense,
        "dense_relu": lambda: dense(activation="relu"),
        "residual": lambda: ts.nn.Residual(dense(activation="relu"), dense()),
        "batch_norm": lambda: ts.nn.BatchNorm(width),
        "layer_norm": lambda: ts.nn.LayerNorm(width),
        "dropout": lambda: ts.nn.Dropout(DROPOUT_RATE, width),
        "standardize": lambda: ts.nn.Standardize(width),
    }
    return makers[name]() if name in makers else ts.nn.Activation(name, width)


class TrainstepCalls(CallTask):
    """Every public function: the arguments follow from the names in its signature, so that a new one is measured as it comes."""

    versions = staticmethod(TrainstepStep.versions)

    def calls(self) -> dict[str, Call]:
        """Make all calls."""
        return {"python: pass": Call(lambda: None)} | dict(
            [*self._formulas(), *self._optimizers(), *self._initializers(), *self._networks(), *self._settings()]
        )

    @staticmethod
    def _formulas() -> Iterator[tuple[str, Call]]:
        """All of `ops`, on 4 x 4 matrices."""
        given: dict[str, Any] = {**tiny_arrays(), "max_norm": 1.0, "limit": 0.5, "beta": 0.9, "rate": 0.5, "seed": 0, "counter": 0}
        given["arrays"] = [given["w"].copy(), given["y"].copy()]  # some are clipped in place
        given |= {"inv_std": given["scale"], "training": True, "running_mean": given["mean"], "running_var": given["scale"]}
        for name in ts.ops.__all__:
            function = getattr(ts.ops, name)
            needed = {*required(function), "running_mean", "running_var", "seed", "counter"}  # some of them only as the call goes
            arguments = {p: given.get(p, given["x"]) for p in parameters(function) if p in needed}
            yield f"ops.{name}", Call(function, keywords=arguments)

    @staticmethod
    def _optimizers() -> Iterator[tuple[str, Call]]:
        """All of `optim`: the step of an object, and the bare formula, on one array of 10 elements."""
        for name in ts.optim.__all__:
            value, given = getattr(ts.optim, name), tiny_arrays()
            w, g = given["param"], given["grad"]
            if isinstance(value, type) and value is not ts.optim.Optimizer:
                yield f"optim.{name}.step", Call(value([w]).step, ([g],), shows=w)
            elif not isinstance(value, type):
                states: list[Array] = [g * 0 for _ in _core.optimizer_states[name.removesuffix("_step_")]]
                yield f"optim.{name}", Call(value, (w, g, *states), shows=w)

    @staticmethod
    def _initializers() -> Iterator[tuple[str, Call]]:
        """All functions of `init`, for a 4 x 4 matrix."""
        given: dict[str, Any] = {"shape": (4, 4), "rng": 0, "activation": "relu", "c": 0.5, "low": -1.0, "high": 1.0}
        for name in ts.init.__all__:
            function = getattr(ts.init, name)
            if inspect.isfunction(function):
                yield (
                    f"init.{name}",
                    Call(function, keywords={p: given[p] for p in ("rng", *required(function)) if p in parameters(function)}),
                )

    @staticmethod
    def _networks() -> Iterator[tuple[str, Call]]:
        """Run a network on one row, and train a small one."""
        given = tiny_arrays()
        row, x, y = given["row"], given["batch"], given["batch_labels"]
        model = network([64, 64, 10])
        model.forward(row, training=True)
        dy = model(row)
        yield "nn 64-64-10: model(x), 1 row", Call(model, (row,))
        yield "nn 64-64-10: predict, 1 row", Call(model.predict, (row,))
        yield "nn 64-64-10: forward, 1 row", Call(model.forward, (row, True))
        yield "nn 64-64-10: backward, 1 row", Call(model.backward, (dy,))
        yield "nn 64-64-10: parameters()", Call(model.parameters)
        yield "nn 64-64-10: gradients()", Call(model.gradients)
        yield "Trainer.step 4-16-3, 16 rows", Call(ts.Trainer(network([4, 16, 3])).step, (x, y))
        yield "Trainer.evaluate 4-16-3, 16 rows", Call(ts.Trainer(network([4, 16, 3])).evaluate, (x, y))
        table, labels = x.repeat(FIT_STEPS, axis=0), y.repeat(FIT_STEPS)
        fit = ts.Trainer(network([4, 16, 3])).fit
        yield (
            "Trainer.fit 4-16-3, a step of 16 rows",
            Call(fit, (table, labels), {"epochs": 1, "batch_size": 16}, per_call=FIT_STEPS),
        )

    @staticmethod
    def _settings() -> Iterator[tuple[str, Call]]:
        """Ask for settings, and set one."""
        yield "config", Call(ts.config)
        yield "get_num_threads", Call(ts.get_num_threads)
        yield "set_num_threads", Call(ts.set_num_threads, (ts.get_num_threads(),))


def parameters(function: Any) -> list[str]:
    """Return the names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def required(function: Any) -> list[str]:
    """Return the names of the parameters that have no default."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]


TASKS = {
    "train_step": TrainstepStep,
    "fit": TrainstepFit,
    "predict": TrainstepPredict,
    "dense": TrainstepDense,
    "optimizers": TrainstepOptimizer,
    "layers": TrainstepLayer,
    "calls": TrainstepCalls,
}
