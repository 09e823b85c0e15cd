"""NumPy written by hand for speed: every result goes to a buffer made beforehand, optimizers run over pieces that stay in L2."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from trainstep.bench.tasks import (
    Array,
    Call,
    CallTask,
    DenseTask,
    OptimizerProblem,
    OptimizerTask,
    PredictProblem,
    PredictTask,
    TrainProblem,
    TrainStep,
    tiny_arrays,
)

CHUNK = 32_768  # Adam's four arrays and two of scratch in pieces of 128 KB: together they stay in a core's L2


class NumpyRule:
    """An optimizer over a list of arrays; calling it does one step.

    Moments are kept as m / (1 - beta1), v / (1 - beta2), which saves two passes. The scalars of a step are made once, in float32.
    """

    def __init__(self, rule: str, options: dict[str, float], params: list[Array], grads: list[Array]) -> None:
        """Make the states, and cut everything into pieces: w, g, the states and two of scratch."""
        self.step: Callable[..., None] = getattr(self, f"_{rule.lower()}")
        self.options = options
        count = {"sgd": int("momentum" in options), "adagrad": 1, "rmsprop": 1}.get(rule.lower(), 2)
        self.states = np.zeros((count, sum(p.size for p in params)), np.float32)
        scratch = np.empty((2, CHUNK), np.float32)
        self.pieces: list[tuple[Array, ...]] = []
        at = 0
        for w, g in zip((p.reshape(-1) for p in params), (g.reshape(-1) for g in grads), strict=True):
            for i in range(0, w.size, CHUNK):
                n = min(CHUNK, w.size - i)
                states = self.states[:, at + i : at + i + n]
                self.pieces.append((w[i : i + n], g[i : i + n], *states, *scratch[:, :n]))
            at += w.size
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        self.states[...] = 0
        self.beta1_t = self.beta2_t = self.mu_t = 1.0
        self.count = 0

    def __call__(self) -> None:
        """Do one step."""
        self.count += 1
        self.step(**self.options)

    def _sgd(self, lr: float = 1e-3, momentum: float = 0.0) -> None:
        rate, keep = np.float32(lr), np.float32(momentum)
        for w, g, *velocity, t, _ in self.pieces:
            for v in velocity:
                v *= keep
                v += g
                g = v
            w -= np.multiply(g, rate, out=t)

    def _adagrad(self, lr: float = 1e-2, eps: float = 1e-10) -> None:
        self._by_root(lr, 1.0, 1.0, eps)

    def _rmsprop(self, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8) -> None:
        self._by_root(lr, alpha, 1 / (1 - alpha), eps)

    def _by_root(self, lr: float, keep: float, scale: float, eps: float) -> None:
        """v = keep * v + g * g; w -= lr * g / (sqrt(v / scale) + eps)."""
        rate, keep_, small = np.float32(lr * sqrt(scale)), np.float32(keep), np.float32(eps * sqrt(scale))
        for w, g, v, t, u in self.pieces:
            if keep < 1:
                v *= keep_
            v += np.multiply(g, g, out=t)
            np.sqrt(v, out=t)
            t += small
            np.multiply(g, rate, out=u)
            w -= np.divide(u, t, out=t)

    def _adadelta(self, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6) -> None:
        rate, keep, small = np.float32(lr), np.float32(rho), np.float32(eps / (1 - rho))
        for w, g, v, d, t, u in self.pieces:
            v *= keep
            v += np.multiply(g, g, out=t)
            np.add(v, small, out=t)
            np.add(d, small, out=u)
            np.divide(u, t, out=t)
            np.sqrt(t, out=t)
            t *= g
            d *= keep
            d += np.multiply(t, t, out=u)
            if lr != 1:
                t *= rate
            w -= t

    def _adam(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.beta1_t *= beta1
        self.beta2_t *= beta2
        scale = sqrt((1 - self.beta2_t) / (1 - beta2))
        self._by_moments(lr * (1 - beta1) / (1 - self.beta1_t) * scale, beta1, beta2, eps * scale)

    def _radam(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.beta1_t *= beta1
        self.beta2_t *= beta2
        last = 2 / (1 - beta2) - 1
        rho = last - 2 * self.count * self.beta2_t / (1 - self.beta2_t)
        rate, scale = lr * (1 - beta1) / (1 - self.beta1_t), sqrt(1 / (1 - beta2))
        if rho > 5:
            rectified = sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
            self._by_moments(rate * rectified * sqrt(1 - self.beta2_t) * scale, beta1, beta2, eps * scale)
            return
        rate_, keep1, keep2 = np.float32(rate), np.float32(beta1), np.float32(beta2)
        for w, g, m, v, t, _ in self.pieces:
            m *= keep1
            m += g
            v *= keep2
            v += np.multiply(g, g, out=t)
            w -= np.multiply(m, rate_, out=t)

    def _by_moments(self, rate: float, beta1: float, beta2: float, eps: float) -> None:
        """m = beta1 * m + g; v = beta2 * v + g * g; w -= rate * m / (sqrt(v) + eps)."""
        rate_, small, keep1, keep2 = np.float32(rate), np.float32(eps), np.float32(beta1), np.float32(beta2)
        for w, g, m, v, t, _ in self.pieces:
            m *= keep1
            m += g
            v *= keep2
            v += np.multiply(g, g, out=t)
            np.sqrt(v, out=t)
            t += small
            np.divide(m, t, out=t)
            t *= rate_
            w -= t

    def _adamax(self, lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.beta1_t *= beta1
        rate, small = np.float32(lr * (1 - beta1) / (1 - self.beta1_t)), np.float32(eps)
        keep1, keep2 = np.float32(beta1), np.float32(beta2)
        for w, g, m, largest, t, _ in self.pieces:
            m *= keep1
            m += g
            np.abs(g, out=t)
            t += small
            largest *= keep2
            np.maximum(largest, t, out=largest)
            np.divide(m, largest, out=t)
            t *= rate
            w -= t

    def _nadam(self, lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        mu, after = (beta1 * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t in (self.count, self.count + 1))
        self.mu_t *= mu
        self.beta2_t *= beta2
        scale = sqrt((1 - self.beta2_t) / (1 - beta2))
        of_g = np.float32(lr * scale * (1 - mu) / (1 - self.mu_t))
        of_m = np.float32(lr * scale * after * (1 - beta1) / (1 - self.mu_t * after))
        small, keep1, keep2 = np.float32(eps * scale), np.float32(beta1), np.float32(beta2)
        for w, g, m, v, t, u in self.pieces:
            m *= keep1
            m += g
            v *= keep2
            v += np.multiply(g, g, out=t)
            np.multiply(g, of_g, out=t)
            t += np.multiply(m, of_m, out=u)
            np.sqrt(v, out=u)
            u += small
            w -= np.divide(t, u, out=t)


class NumpyStep(TrainStep):
    """Parameters and gradients in one flat array each; the layers hold views."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Allocate all that a step writes; threads come from OPENBLAS_NUM_THREADS."""
        super().__init__(problem, variant, threads)
        batch, size = problem.batch, sum(w.size + b.size for w, b in self._initial())
        self.flat = np.zeros((2, size), np.float32)  # rows: parameters, gradients
        self.w, self.b = self._views(self.flat[0])
        self.dw, self.db = self._views(self.flat[1])
        self.wt = [w.T for w in self.w]
        self.update = NumpyRule(problem.optimizer, {"lr": problem.lr}, [self.flat[0]], [self.flat[1]])
        self.h = [np.empty((batch, n), np.float32) for n in problem.sizes]  # the first one is replaced by each batch
        self.ht = [h.T for h in self.h]
        self.dh = [np.empty_like(h) for h in self.h]
        self.positive = [np.empty(h.shape, bool) for h in self.h]
        self.column = np.empty((batch, 1), np.float32)
        self.rows, self.picked = np.arange(batch), np.empty(batch, np.float32)

    def _initial(self) -> list[tuple[Array, Array]]:
        """Pair the initial weights with their biases."""
        return list(zip(self.problem.weights, self.problem.biases, strict=True))

    def _views(self, row: Array) -> tuple[list[Array], list[Array]]:
        """Cut one flat row into weights (in, out) and biases."""
        weights, biases, at = [], [], 0
        for w, b in self._initial():
            weights.append(row[at : at + w.size].reshape(w.shape))
            biases.append(row[at + w.size : at + w.size + b.size])
            at += w.size + b.size
        return weights, biases

    def reset(self) -> None:
        """Copy the initial weights in and forget the optimizer's state."""
        self.update.reset()
        for i, (w, b) in enumerate(self._initial()):
            self.w[i][:], self.b[i][:] = w, b
        self.rewind(lambda a: (a, a.T))

    def step(self) -> float:
        """Do one step."""
        (self.h[0], self.ht[0]), (y, _) = next(self.batches)
        loss = self._forward(y)
        self._backward()
        self.update()
        return loss

    def _forward(self, y: Array) -> float:
        """Fill `h`, leave dloss/dlogits in the last `dh`, return the mean cross-entropy."""
        last = len(self.w) - 1
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            h = np.dot(self.h[i], w, out=self.h[i + 1])
            h += b
            if i < last:
                np.maximum(h, 0, out=h)
        dz = self.dh[-1]
        h -= np.maximum.reduce(h, axis=1, keepdims=True, out=self.column)
        np.exp(h, out=dz)
        sums = np.add.reduce(dz, axis=1, keepdims=True, out=self.column)
        dz /= sums
        np.log(dz[self.rows, y], out=self.picked)
        dz[self.rows, y] -= 1
        dz *= np.float32(1 / len(dz))
        return -float(np.add.reduce(self.picked)) / len(dz)

    def _backward(self) -> None:
        """Fill `dw` and `db` from the last `dh` down; the first layer needs no dx."""
        for i in range(len(self.w) - 1, -1, -1):
            dz = self.dh[i + 1]
            np.dot(self.ht[i], dz, out=self.dw[i])
            np.add.reduce(dz, axis=0, out=self.db[i])
            if i:
                dh = np.dot(dz, self.wt[i], out=self.dh[i])
                dh *= np.greater(self.h[i], 0, out=self.positive[i])

    @staticmethod
    def versions() -> dict[str, str]:
        """Return NumPy's version and its BLAS."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}"}


class NumpyDense(DenseTask):
    """`numpy.dot` with `out=`, which has less overhead than `matmul`; BLAS reads a transposed view where it lies."""

    versions = staticmethod(NumpyStep.versions)

    def forward(self) -> None:
        """Make y."""
        np.dot(self.problem.x, self.problem.w, out=self.results[0])

    def dw(self) -> None:
        """Make dw and db."""
        np.dot(self.problem.x.T, self.problem.dy, out=self.results[0])
        np.add.reduce(self.problem.dy, axis=0, out=self.results[1])

    def dw_dx(self) -> None:
        """Make dw, db and dx."""
        self.dw()
        np.dot(self.problem.dy, self.problem.w.T, out=self.results[2])


class NumpyOptimizer(OptimizerTask):
    """Ufuncs with `out=`; they know one thread."""

    versions = staticmethod(NumpyStep.versions)

    def __init__(self, problem: OptimizerProblem, variant: str, threads: int) -> None:
        """Make the states."""
        super().__init__(problem, variant, threads)
        self.update = NumpyRule(problem.rule, problem.options, self.params, self.grads)
        self.step = self.update.__call__  # type: ignore[method-assign]

    def reset(self) -> None:
        """Forget all steps."""
        for p in self.params:
            p[...] = 0
        self.update.reset()


class NumpyCalls(CallTask):
    """What one would write in NumPy, in few calls and without `out=`."""

    versions = staticmethod(NumpyStep.versions)

    def calls(self) -> dict[str, Call]:
        """Make all calls."""
        a = tiny_arrays()
        x, y, dy, w, row = a["x"], a["y"], a["dy"], a["w"], np.arange(4)
        param, grad, rate = a["param"].copy(), a["grad"], np.float32(1e-3)

        def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
            return dy @ w.T, x.T @ dy, dy.sum(axis=0)

        def mse(pred: Array, target: Array) -> tuple[float, Array]:
            d = pred - target
            return float((d * d).mean()), d * np.float32(2 / d.size)

        def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
            e = np.exp(logits - logits.max(axis=1, keepdims=True))
            e /= e.sum(axis=1, keepdims=True)
            loss = -float(np.log(e[row, labels]).mean())
            e[row, labels] -= 1
            e *= np.float32(1 / len(e))
            return loss, e

        def sgd_step(w: Array, g: Array) -> None:
            np.subtract(w, g * rate, out=w)

        return {
            "python: pass": Call(lambda: None),
            "ops.dense": Call(np.dot, (x, w)),
            "ops.dense_backward": Call(dense_backward, (dy, x, w)),
            "ops.identity": Call(np.copy, (x,)),
            "ops.relu": Call(np.maximum, (x, np.float32(0))),
            "ops.relu_backward": Call(lambda dy, y: dy * (y > 0), (dy, y)),
            "ops.sigmoid": Call(lambda x: 1 / (1 + np.exp(-x)), (x,)),
            "ops.sigmoid_backward": Call(lambda dy, y: dy * y * (1 - y), (dy, y)),
            "ops.tanh": Call(np.tanh, (x,)),
            "ops.tanh_backward": Call(lambda dy, y: dy * (1 - y * y), (dy, y)),
            "ops.standardize": Call(lambda x, mean, scale: (x - mean) * scale, (x, a["mean"], a["scale"])),
            "ops.standardize_backward": Call(np.multiply, (dy, a["scale"])),
            "ops.mse": Call(mse, (a["pred"], a["target"])),
            "ops.softmax_cross_entropy": Call(softmax_cross_entropy, (a["logits"], a["labels"])),
            "optim.sgd_step_": Call(sgd_step, (param, grad), shows=param),
            "init.zeros": Call(np.zeros, ((4, 4), np.float32)),
        }


class NumpyPredict(PredictTask):
    """Products with `out=`, bias and relu in place."""

    versions = staticmethod(NumpyStep.versions)

    def __init__(self, problem: PredictProblem, variant: str, threads: int) -> None:
        """Make the buffers."""
        super().__init__(problem, variant, threads)
        self.outputs = [np.empty((len(problem.x), n), np.float32) for n in problem.sizes[1:]]

    def step(self) -> Array:
        """Ask the network."""
        h = self.problem.x
        for i, (w, b, z) in enumerate(zip(self.problem.weights, self.problem.biases, self.outputs, strict=True)):
            np.matmul(h, w, out=z)
            z += b
            if i + 1 < len(self.outputs):
                np.maximum(z, 0, out=z)
            h = z
        return h


TASKS = {
    "train_step": NumpyStep,
    "predict": NumpyPredict,
    "dense": NumpyDense,
    "optimizers": NumpyOptimizer,
    "calls": NumpyCalls,
}
