"""Steps as long as the weights' norm asks for: one array, one layer's weights, has one trust ratio."""

import numpy as np

from ..activations import Array, Float64, ieee
from .common import average, check_arrays, check_betas, check_numbers, needed, prepared, root


def lamb_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
    bias_correction: bool = True,
) -> None:
    """Do one step of LAMB, in place: Adam's direction, as long as lr times the norm of the weights.

    | ``g <- -g`` if maximize
    | ``g <- g + l1 * sign(w)``
    | ``m <- b1 * m + (1 - b1) * g``
    | ``v <- b2 * v + (1 - b2) * g^2``
    | ``mhat = m / (1 - b1^step)``, ``vhat = v / (1 - b2^step)``; without bias_correction mhat = m, vhat = v
    | ``u = mhat / (sqrt(vhat) + eps) + weight_decay * w``
    | ``w <- w - lr * |w| / |u| * u``, with Euclidean norms over the whole array; ``w <- w - lr * u`` where one is 0

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
        Learning rate: the length of the step as a share of the norm of w.
    betas : tuple of 2 floats, default (0.9, 0.999)
        b1 and b2: how much of each average is kept.
    eps : float, default 1e-6
        Keeps the division from one by 0.
    weight_decay : float, default 0.0
        Decay of w, added to the direction beside the averages.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).
    bias_correction : bool, default True
        Make up for averages that begin at 0.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, or a beta is not in [0, 1).

    Notes
    -----
    eps is added to the root of the corrected average, as in the paper and in `adam_step_`. Keras adds its 1e-7 there
    too. PyTorch does not have this rule. The paper's function phi of the weights' norm is the norm itself here.

    References
    ----------
    You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, ICLR 2020, algorithm 2.

    Examples
    --------
    The weights have norm 5, so the step is 0.1 * 5 long, in the direction of the signs.

    >>> import numpy as np
    >>> from trainstep.reference import lamb_step_
    >>> w, m, v = np.array([3.0, 4.0]), np.zeros(2), np.zeros(2)
    >>> lamb_step_(w, np.array([0.1, -20.0]), m, v, lr=0.1)
    >>> w.round(4)
    array([2.6464, 4.3536])
    """
    function = "lamb_step_"
    check_arrays(function, w, g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    check_betas(function, betas)

    b1, b2 = betas
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1)
        m = average(exp_avg, b1, g64)
        v = average(exp_avg_sq, b2, g64 * g64)
        m_hat = m / (1.0 - b1**step) if bias_correction else m
        v_hat = v / (1.0 - b2**step) if bias_correction else v
        u = m_hat / root(v_hat, eps)
        if weight_decay != 0.0:
            u = u + weight_decay * w64
        w[...] = w64 - lr * _ratio(_norm(w64), _norm(u)) * u
        exp_avg[...] = m
        exp_avg_sq[...] = v


def lars_step_(
    w: Array,
    g: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of LARS, in place: gradient descent with momentum, at a rate that the norms of w and g set.

    | ``g <- -g`` if maximize
    | ``g <- g + l1 * sign(w)``
    | ``local = trust_coefficient * |w| / (|g| + weight_decay * |w| + eps)``, Euclidean norms over the whole array;
      1 where ``|w|`` or ``|g|`` is 0
    | ``d = lr * local * (g + weight_decay * w)``
    | ``v <- momentum * v + d``
    | ``w <- w - v``; with nesterov ``w <- w - (momentum * v + d)``; without momentum ``w <- w - d``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    momentum_buffer : ndarray, shape and dtype of w, optional
        The velocity v, lr included, 0 before step 1. Changed in place where momentum is not 0, untouched otherwise.
    step : int, default 1
        The number of this step, from 1. The formula does not depend on it; all rules take it.
    lr : float, default 0.1
        Learning rate, the global one of the paper.
    momentum : float, default 0.9
        How much of the velocity is kept.
    weight_decay : float, default 0.0
        L2 penalty, which the local rate knows of: without momentum a step is at most
        ``lr * trust_coefficient * |w|`` long.
    trust_coefficient : float, default 0.001
        How far one step may trust its gradient: the length of the step as a share of the norm of w, for lr 1.
    eps : float, default 0.0
        Added to the norms that are divided by.
    nesterov : bool, default False
        Look ahead along the velocity. Needs momentum.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or the buffer is read-only, the buffer is missing, step is below 1, a rate is negative, or
        nesterov is set without momentum.

    Notes
    -----
    The paper has no eps, so the default is 0: the case that needs one, norms of 0, takes the rate 1. Neither PyTorch nor
    Keras has this rule.

    References
    ----------
    You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, arXiv:1708.03888 (2017), algorithm 1.

    Examples
    --------
    The weights have norm 5, so the step is 0.1 * 5 long, whatever the gradient's size.

    >>> import numpy as np
    >>> from trainstep.reference import lars_step_
    >>> w = np.array([3.0, 4.0])
    >>> lars_step_(w, np.array([60.0, 80.0]), lr=1.0, momentum=0.0, trust_coefficient=0.1)
    >>> w.round(6)
    array([2.7, 3.6])
    """
    function = "lars_step_"
    check_arrays(function, w, g, momentum_buffer=momentum_buffer)
    check_numbers(function, step, lr=lr, momentum=momentum, weight_decay=weight_decay, l1=l1)
    check_numbers(function, step, trust_coefficient=trust_coefficient, eps=eps)
    if nesterov and momentum == 0.0:
        raise ValueError(f"{function}: nesterov needs momentum above 0, got {momentum}")
    if momentum != 0.0:
        momentum_buffer = needed(function, "momentum_buffer", momentum_buffer, f"momentum is {momentum}")

    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1)
        w_norm, g_norm = _norm(w64), _norm(g64)
        local = 1.0
        if w_norm != 0.0 and g_norm != 0.0:
            local = trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + eps)
        d = lr * local * (g64 if weight_decay == 0.0 else g64 + weight_decay * w64)
        if momentum != 0.0 and momentum_buffer is not None:
            v = momentum * momentum_buffer.astype(np.float64) + d
            d = momentum * v + d if nesterov else v
            momentum_buffer[...] = v
        w[...] = w64 - d


def _norm(x: Float64) -> np.float64:
    """Return the Euclidean norm over all elements, of any shape: a NumPy number, which divides as IEEE says."""
    return np.float64(np.sqrt(np.sum(x * x)))


def _ratio(above: np.float64, below: np.float64) -> np.float64:
    return np.float64(1.0) if above == 0.0 or below == 0.0 else above / below
