"""Optimizer steps on one array, in place: the formulas of torch.optim and of the lecture notes."""

from typing import Any

import numpy as np

from .activations import Array, Float64, ieee, shared_dtype


def sgd_step_(
    w: Array,
    g: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    lr_in_velocity: bool = False,
) -> None:
    """Do one step of gradient descent with momentum, in place.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``v <- g`` at step 1, else ``v <- momentum * v + (1 - dampening) * g``
    | ``w <- w - lr * v``; with nesterov ``w <- w - lr * (g + momentum * v)``; without momentum ``w <- w - lr * g``

    With lr_in_velocity, the form of Sutskever et al. and of many lectures. It differs when lr changes between steps:

    | ``v <- momentum * v + lr * g``, v = 0 before step 1
    | ``w <- w - v``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    momentum_buffer : ndarray, shape and dtype of w, optional
        The velocity v. Changed in place where momentum is not 0, untouched otherwise. With lr_in_velocity it must hold
        0 before step 1; without, what it holds then does not matter.
    step : int, default 1
        The number of this step, from 1.
    lr : float, default 1e-3
        Learning rate.
    momentum : float, default 0.0
        How much of the velocity is kept.
    dampening : float, default 0.0
        How much of the gradient is kept out of the velocity.
    weight_decay : float, default 0.0
        L2 penalty: the gradient of ``weight_decay / 2 * sum(w^2)`` is added to g.
    nesterov : bool, default False
        Look ahead along the velocity. Needs momentum and no dampening.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).
    lr_in_velocity : bool, default False
        Keep lr inside the velocity. Goes with neither dampening nor nesterov.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or the buffer is read-only, the buffer is missing, step is below 1, a rate is negative, or
        options do not go together.

    References
    ----------
    Sutskever, Martens, Dahl & Hinton, On the importance of initialization and momentum in deep learning, ICML 2013,
    equations 1 to 4; torch.optim.SGD.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import sgd_step_
    >>> w, v = np.array([1.0, -2.0]), np.zeros(2)
    >>> for step in (1, 2):
    ...     sgd_step_(w, np.array([1.0, 0.0]), v, step=step, lr=0.1, momentum=0.5)
    >>> w, v
    (array([ 0.75, -2.  ]), array([1.5, 0. ]))
    """
    function = "sgd_step_"
    _check_arrays(function, w, g, momentum_buffer=momentum_buffer)
    _check_numbers(function, step, lr=lr, momentum=momentum, weight_decay=weight_decay, l1=l1)
    if nesterov and (momentum == 0.0 or dampening != 0.0):
        raise ValueError(f"{function}: nesterov needs momentum above 0 and dampening 0, got {momentum} and {dampening}")
    if lr_in_velocity and (nesterov or dampening != 0.0):
        raise ValueError(f"{function}: lr_in_velocity goes with neither nesterov nor dampening")
    if momentum != 0.0 and momentum_buffer is None:
        raise ValueError(f"{function}: momentum_buffer is None, and momentum is {momentum}")

    with ieee():
        w64 = w.astype(np.float64)
        g64 = _penalized(w64, g, maximize, weight_decay, l1)
        if momentum == 0.0 or momentum_buffer is None:
            w[...] = w64 - lr * g64
            return
        v = momentum_buffer.astype(np.float64)
        if lr_in_velocity:
            v = momentum * v + lr * g64
            change = v
        else:
            v = g64 if step == 1 else momentum * v + (1.0 - dampening) * g64
            change = lr * (g64 + momentum * v if nesterov else v)
        w[...] = w64 - change
        momentum_buffer[...] = v


def adam_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    bias_correction: bool = True,
    eps_inside_sqrt: bool = False,
) -> None:
    """Do one step of Adam, or of AdamW with decoupled_weight_decay, in place.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``; a decoupled decay stays out of g
    | ``w <- w * (1 - lr * weight_decay)`` if decoupled
    | ``m <- b1 * m + (1 - b1) * g``
    | ``v <- b2 * v + (1 - b2) * g^2``
    | ``mhat = m / (1 - b1^step)``, ``vhat = v / (1 - b2^step)``; without bias_correction mhat = m, vhat = v
    | ``w <- w - lr * mhat / (sqrt(vhat) + eps)``; with eps_inside_sqrt ``w <- w - lr * mhat / sqrt(vhat + eps)``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    exp_avg : ndarray, shape and dtype of w
        Moving average m of the gradient, 0 before step 1. Changed in place.
    exp_avg_sq : ndarray, shape and dtype of w
        Moving average v of the squared gradient, 0 before step 1. Changed in place.
    step : int, default 1
        The number of this step, from 1.
    lr : float, default 1e-3
        Learning rate.
    betas : tuple of 2 floats, default (0.9, 0.999)
        b1 and b2: how much of each average is kept.
    eps : float, default 1e-8
        Keeps the division from one by 0.
    weight_decay : float, default 0.0
        L2 penalty, or decay of w itself where decoupled.
    decoupled_weight_decay : bool, default False
        Decay w by itself, outside of the averages: AdamW.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).
    bias_correction : bool, default True
        Make up for averages that begin at 0.
    eps_inside_sqrt : bool, default False
        Add eps under the root.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, or a beta is not in [0, 1).

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.
    Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.

    Examples
    --------
    The first step is lr long, whatever the gradient's size.

    >>> import numpy as np
    >>> from trainstep.reference import adam_step_
    >>> w, m, v = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> adam_step_(w, np.array([3.0, -0.01]), m, v, lr=0.1)
    >>> w.round(6)
    array([0.9, 1.1])
    """
    function = "adam_step_"
    _check_arrays(function, w, g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    _check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    b1, b2 = betas
    if not (0.0 <= b1 < 1.0 and 0.0 <= b2 < 1.0):
        raise ValueError(f"{function}: betas is {betas}, wanted two numbers from 0 up to but not including 1")

    with ieee():
        w64 = w.astype(np.float64)
        g64 = _penalized(w64, g, maximize, 0.0 if decoupled_weight_decay else weight_decay, l1)
        if decoupled_weight_decay:
            w64 = w64 * (1.0 - lr * weight_decay)
        m = b1 * exp_avg.astype(np.float64) + (1.0 - b1) * g64
        v = b2 * exp_avg_sq.astype(np.float64) + (1.0 - b2) * g64 * g64
        m_hat = m / (1.0 - b1**step) if bias_correction else m
        v_hat = v / (1.0 - b2**step) if bias_correction else v
        root = np.sqrt(v_hat + eps) if eps_inside_sqrt else np.sqrt(v_hat) + eps
        w[...] = w64 - lr * m_hat / root
        exp_avg[...] = m
        exp_avg_sq[...] = v


def _penalized(w64: Float64, g: Array, maximize: bool, weight_decay: float, l1: float) -> Float64:
    """Return the gradient with its sign set and the penalties' gradients added."""
    g64 = g.astype(np.float64)
    if maximize:
        g64 = -g64
    # A penalty of 0 adds nothing, not even NaN from 0 * infinity.
    if weight_decay != 0.0:
        g64 = g64 + weight_decay * w64
    if l1 != 0.0:
        g64 = g64 + l1 * np.sign(w64)
    return g64


def _check_arrays(function: str, w: Array, g: Array, **states: Array | None) -> None:
    arrays: dict[str, Any] = {"w": w, "g": g, **{name: s for name, s in states.items() if s is not None}}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{function}: {name} is a {type(array).__name__}, wanted an ndarray, to change it in place")
        if array.shape != w.shape:
            raise ValueError(f"{function}: {name} has shape {array.shape}, w has {w.shape}")
        if name != "g" and not array.flags.writeable:
            raise ValueError(f"{function}: {name} is read-only")
    shared_dtype(function, **arrays)


def _check_numbers(function: str, step: int, **rates: float) -> None:
    if step < 1:
        raise ValueError(f"{function}: step is {step}, wanted 1 or more")
    for name, value in rates.items():
        if not value >= 0.0:
            raise ValueError(f"{function}: {name} is {value}, wanted 0 or more")
