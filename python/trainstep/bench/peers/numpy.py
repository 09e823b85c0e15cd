"""NumPy written by hand for speed: every result goes to a buffer made beforehand, Adam runs over one flat array."""

from __future__ import annotations

from math import sqrt

import numpy as np

from trainstep.bench.tasks import Array, Call, CallTask, DenseTask, TrainProblem, TrainStep, tiny_arrays

CHUNK = 32_768  # Adam's five arrays in pieces of 128 KB: together they stay in a core's L2


class NumpyStep(TrainStep):
    """Parameters, gradients and Adam's state in one flat array each; the layers hold views."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Allocate all that a step writes; threads come from OPENBLAS_NUM_THREADS."""
        super().__init__(problem, variant, threads)
        batch, size = problem.batch, sum(w.size + b.size for w, b in self._initial())
        self.flat = np.zeros((5, size), np.float32)  # rows: weights, gradients, first and second moment, scratch
        self.w, self.b = self._views(self.flat[0])
        self.dw, self.db = self._views(self.flat[1])
        self.wt = [w.T for w in self.w]
        self.chunks = [tuple(self.flat[:, i : i + CHUNK]) for i in range(0, size, CHUNK)]
        self.h = [np.empty((batch, n), np.float32) for n in problem.sizes]  # the first one is replaced by each batch
        self.ht = [h.T for h in self.h]
        self.dh = [np.empty_like(h) for h in self.h]
        self.positive = [np.empty(h.shape, bool) for h in self.h]
        self.column = np.empty((batch, 1), np.float32)
        self._update = self._adam if problem.optimizer == "adam" else self._sgd
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
        """Copy the initial weights in and forget Adam's state."""
        self.flat[:] = 0
        for i, (w, b) in enumerate(self._initial()):
            self.w[i][:], self.b[i][:] = w, b
        self.beta1_t = self.beta2_t = 1.0
        self.rewind(lambda a: (a, a.T))

    def step(self) -> float:
        """Do one step."""
        (self.h[0], self.ht[0]), (y, _) = next(self.batches)
        loss = self._forward(y)
        self._backward()
        self._update()
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

    def _sgd(self) -> None:
        """w -= lr * g over the flat arrays."""
        rate = np.float32(self.problem.lr)
        for w, g, _, _, t in self.chunks:
            w -= np.multiply(g, rate, out=t)

    def _adam(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        """Adam over the flat arrays; the moments are kept as m/(1-beta1), v/(1-beta2), which saves two passes."""
        self.beta1_t *= beta1
        self.beta2_t *= beta2
        scale = sqrt((1 - self.beta2_t) / (1 - beta2))
        rate = np.float32(self.problem.lr * (1 - beta1) / (1 - self.beta1_t) * scale)
        small, beta1_, beta2_ = np.float32(eps * scale), np.float32(beta1), np.float32(beta2)
        for w, g, m, v, t in self.chunks:
            m *= beta1_
            m += g
            v *= beta2_
            v += np.multiply(g, g, out=t)
            np.sqrt(v, out=t)
            t += small
            np.divide(m, t, out=t)
            t *= rate
            w -= t

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


TASKS = {"train_step": NumpyStep, "dense": NumpyDense, "calls": NumpyCalls}
