"""Adagrad and what came of it: steps divided by the size that the gradients had."""

import numpy as np

from ..activations import Array, ieee
from .common import average, check_arrays, check_kept, check_numbers, needed, prepared, root


def adagrad_step_(
    w: Array,
    g: Array,
    sum: Array,
    *,
    step: int = 1,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
    l1: float = 0.0,
    eps_inside_sqrt: bool = False,
) -> None:
    """Do one step of Adagrad, in place: the gradient over the root of the sum of all its squares.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``s <- s + g^2``
    | ``rate = lr / (1 + (step - 1) * lr_decay)``
    | ``w <- w - rate * g / (sqrt(s) + eps)``; with eps_inside_sqrt ``w <- w - rate * g / sqrt(s + eps)``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    sum : ndarray, shape and dtype of w
        The sum s of the squared gradients. Before step 1 it holds the initial accumulator value, in PyTorch 0.
        Changed in place.
    step : int, default 1
        The number of this step, from 1.
    lr : float, default 1e-2
        Learning rate.
    lr_decay : float, default 0.0
        How fast the rate falls with the steps, besides.
    weight_decay : float, default 0.0
        L2 penalty: the gradient of ``weight_decay / 2 * sum(w^2)`` is added to g.
    eps : float, default 1e-10
        Keeps the division from one by 0.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).
    eps_inside_sqrt : bool, default False
        Add eps under the root.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or the sum is read-only, step is below 1, or a rate is negative.

    Notes
    -----
    eps stands outside the root, as in PyTorch and in the paper (there delta). Keras adds its 1e-7 under the root, which
    is eps_inside_sqrt, and begins with a sum of 0.1.

    References
    ----------
    Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 12 (2011),
    figure 1 with diagonal matrices; torch.optim.Adagrad.

    Examples
    --------
    With one and the same gradient, step t is lr / sqrt(t) long, whatever the gradient's size.

    >>> import numpy as np
    >>> from trainstep.reference import adagrad_step_
    >>> w, s = np.array([1.0, 1.0]), np.zeros(2)
    >>> for step in (1, 2):
    ...     adagrad_step_(w, np.array([3.0, -0.01]), s, step=step, lr=0.1)
    >>> w.round(6)
    array([0.829289, 1.170711])
    """
    function = "adagrad_step_"
    check_arrays(function, w, g, sum=sum)
    check_numbers(function, step, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps, l1=l1)

    rate = lr / (1.0 + (step - 1) * lr_decay)
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
        s = sum.astype(np.float64) + g64 * g64
        w[...] = w64 - rate * g64 / root(s, eps, eps_inside_sqrt)
        sum[...] = s


def adadelta_step_(
    w: Array,
    g: Array,
    square_avg: Array,
    acc_delta: Array,
    *,
    step: int = 1,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of Adadelta, in place: the gradient, scaled by the size of past steps over that of past gradients.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``v <- rho * v + (1 - rho) * g^2``
    | ``d = sqrt(u + eps) / sqrt(v + eps) * g``
    | ``u <- rho * u + (1 - rho) * d^2``
    | ``w <- w - lr * d``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    square_avg : ndarray, shape and dtype of w
        Moving average v of the squared gradient, 0 before step 1. Changed in place.
    acc_delta : ndarray, shape and dtype of w
        Moving average u of the squared step d, 0 before step 1. Changed in place.
    step : int, default 1
        The number of this step, from 1. The formula does not depend on it; all rules take it.
    lr : float, default 1.0
        What the step is multiplied by. The paper has none.
    rho : float, default 0.9
        How much of each average is kept.
    eps : float, default 1e-6
        Keeps the division from one by 0, and sets the size of the first steps.
    weight_decay : float, default 0.0
        L2 penalty: the gradient of ``weight_decay / 2 * sum(w^2)`` is added to g.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, or rho is not in [0, 1).

    Notes
    -----
    eps stands under both roots, as in the paper, PyTorch and Keras (there 1e-7, with rho 0.95 and lr 0.001).

    References
    ----------
    Zeiler, ADADELTA: An Adaptive Learning Rate Method, arXiv:1212.5701 (2012), algorithm 1; torch.optim.Adadelta.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import adadelta_step_
    >>> w, v, u = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adadelta_step_(w, np.array([2.0]), v, u, eps=0.2)  # d = sqrt(0.2) / sqrt(0.1 * 2^2 + 0.2) * 2
    >>> w.round(6), v.round(6), u.round(6)
    (array([-0.154701]), array([0.4]), array([0.133333]))
    """
    function = "adadelta_step_"
    check_arrays(function, w, g, square_avg=square_avg, acc_delta=acc_delta)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    check_kept(function, "rho", rho)

    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
        v = average(square_avg, rho, g64 * g64)
        d = np.sqrt(acc_delta.astype(np.float64) + eps) / np.sqrt(v + eps) * g64
        w[...] = w64 - lr * d
        square_avg[...] = v
        acc_delta[...] = average(acc_delta, rho, d * d)


def rmsprop_step_(
    w: Array,
    g: Array,
    square_avg: Array,
    momentum_buffer: Array | None = None,
    grad_avg: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    eps_inside_sqrt: bool = False,
) -> None:
    """Do one step of RMSprop, in place: the gradient over the root of the average of its squares.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``v <- alpha * v + (1 - alpha) * g^2``
    | ``d = g / (sqrt(v) + eps)``; with eps_inside_sqrt ``d = g / sqrt(v + eps)``
    | ``w <- w - lr * d``; with momentum ``b <- momentum * b + d``, ``w <- w - lr * b``

    With centered, the variance stands in the place of v in d:

    | ``a <- alpha * a + (1 - alpha) * g``
    | ``d = g / (sqrt(v - a^2) + eps)``; with eps_inside_sqrt ``d = g / sqrt(v - a^2 + eps)``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    square_avg : ndarray, shape and dtype of w
        Moving average v of the squared gradient, 0 before step 1. Changed in place.
    momentum_buffer : ndarray, shape and dtype of w, optional
        The velocity b, 0 before step 1. Changed in place where momentum is not 0, untouched otherwise.
    grad_avg : ndarray, shape and dtype of w, optional
        Moving average a of the gradient, 0 before step 1. Changed in place where centered, untouched otherwise.
    step : int, default 1
        The number of this step, from 1. The formula does not depend on it; all rules take it.
    lr : float, default 1e-2
        Learning rate.
    alpha : float, default 0.99
        How much of each average is kept.
    eps : float, default 1e-8
        Keeps the division from one by 0.
    weight_decay : float, default 0.0
        L2 penalty: the gradient of ``weight_decay / 2 * sum(w^2)`` is added to g.
    momentum : float, default 0.0
        How much of the velocity is kept.
    centered : bool, default False
        Divide by the deviation of the gradient from its average.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).
    eps_inside_sqrt : bool, default False
        Add eps under the root.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, a state that an option needs is missing, step is below 1, a rate is
        negative, or alpha is not in [0, 1).

    Notes
    -----
    eps stands outside the root, as in PyTorch. Keras adds its 1e-7 under the root, which is eps_inside_sqrt, and keeps
    lr inside the velocity. Hinton's lecture has no eps; Graves has 1e-4 under the root.

    References
    ----------
    Tieleman & Hinton, Neural Networks for Machine Learning, Coursera 2012, lecture 6e, slide 29; Graves, Generating
    Sequences With Recurrent Neural Networks, arXiv:1308.0850 (2013), equations 38 to 41 (centered, with momentum);
    torch.optim.RMSprop.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import rmsprop_step_
    >>> w, v = np.array([1.0]), np.zeros(1)
    >>> rmsprop_step_(w, np.array([2.0]), v, lr=0.1, alpha=0.75)  # the root of 0.25 * 2^2 is 1
    >>> w.round(6), v
    (array([0.8]), array([1.]))
    """
    function = "rmsprop_step_"
    check_arrays(function, w, g, square_avg=square_avg, momentum_buffer=momentum_buffer, grad_avg=grad_avg)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, momentum=momentum, l1=l1)
    check_kept(function, "alpha", alpha)
    if momentum != 0.0:
        momentum_buffer = needed(function, "momentum_buffer", momentum_buffer, f"momentum is {momentum}")
    if centered:
        grad_avg = needed(function, "grad_avg", grad_avg, "centered is True")

    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
        v = variance = average(square_avg, alpha, g64 * g64)
        if centered and grad_avg is not None:
            a = average(grad_avg, alpha, g64)
            variance = v - a * a
            grad_avg[...] = a
        d = g64 / root(variance, eps, eps_inside_sqrt)
        if momentum != 0.0 and momentum_buffer is not None:
            d = momentum * momentum_buffer.astype(np.float64) + d
            momentum_buffer[...] = d
        w[...] = w64 - lr * d
        square_avg[...] = v
