"""NumPy written by hand for speed: every result goes to a buffer made beforehand, Adam runs over one flat array."""

from __future__ import annotations

from math import sqrt

import numpy as np

from peers.base import Dense, TrainProblem, TrainStep

CHUNK = 32_768  # Adam's five arrays in pieces of 128 KB: together they stay in a core's L2


class NumpyStep(TrainStep):
    """Parameters, gradients and Adam's state in one flat array each; the layers hold views."""

    def __init__(self, problem: TrainProblem, variant: str, threads: int) -> None:
        """Allocate all that a step writes; threads come from OPENBLAS_NUM_THREADS."""
        super().__init__(problem, variant, threads)
        batch, size = len(problem.x), sum(w.size + b.size for w, b in self._initial())
        self.flat = np.zeros((5, size), np.float32)  # rows: weights, gradients, first and second moment, scratch
        self.w, self.b = self._views(self.flat[0])
        self.dw, self.db = self._views(self.flat[1])
        self.wt = [w.T for w in self.w]
        self.chunks = [tuple(self.flat[:, i : i + CHUNK]) for i in range(0, size, CHUNK)]
        self.h = [problem.x] + [np.empty((batch, n), np.float32) for n in problem.sizes[1:]]
        self.ht = [h.T for h in self.h]
        self.dh = [np.empty_like(h) for h in self.h]
        self.positive = [np.empty(h.shape, bool) for h in self.h]
        self.column = np.empty((batch, 1), np.float32)
        self.rows, self.picked = np.arange(batch), np.empty(batch, np.float32)

    def _initial(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair the initial weights with their biases."""
        return list(zip(self.problem.weights, self.problem.biases, strict=True))

    def _views(self, row: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
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

    def step(self) -> float:
        """Do one step."""
        loss = self._forward()
        self._backward()
        self._adam()
        return loss

    def _forward(self) -> float:
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
        np.log(dz[self.rows, self.problem.y], out=self.picked)
        dz[self.rows, self.problem.y] -= 1
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


class NumpyDense(Dense):
    """`numpy.dot` with `out=`, which has less overhead than `matmul`."""

    versions = staticmethod(NumpyStep.versions)

    def step(self) -> np.ndarray:
        """Do one product."""
        return np.dot(self.problem.x, self.problem.w, out=self.y)


TASKS = {"train_step": NumpyStep, "dense": NumpyDense}
