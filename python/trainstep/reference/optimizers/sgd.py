"""Gradient descent: with momentum, and with an average of the weights."""

import numpy as np

from ..activations import Array, ieee
from .common import check_arrays, check_numbers, needed, prepared


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
    check_arrays(function, w, g, momentum_buffer=momentum_buffer)
    check_numbers(function, step, lr=lr, momentum=momentum, weight_decay=weight_decay, l1=l1)
    if nesterov and (momentum == 0.0 or dampening != 0.0):
        raise ValueError(f"{function}: nesterov needs momentum above 0 and dampening 0, got {momentum} and {dampening}")
    if lr_in_velocity and (nesterov or dampening != 0.0):
        raise ValueError(f"{function}: lr_in_velocity goes with neither nesterov nor dampening")
    if momentum != 0.0:
        momentum_buffer = needed(function, "momentum_buffer", momentum_buffer, f"momentum is {momentum}")

    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
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


def asgd_step_(
    w: Array,
    g: Array,
    ax: Array,
    *,
    step: int = 1,
    eta: float | None = None,
    lr: float = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of averaged stochastic gradient descent, in place: the rate falls, and ax follows the mean of w.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``eta = lr / (1 + lambd * lr * (step - 1))^alpha``
    | ``w <- w * (1 - lambd * eta) - eta * g``
    | ``mu = 1 / max(1, step - 1 - t0)``
    | ``ax <- ax + mu * (w - ax)``: w itself up to step t0 + 2, from there on the mean of all w since

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    ax : ndarray, shape and dtype of w
        The averaged weights, the ones to predict with. What it holds before step 1 does not matter. Changed in place.
    step : int, default 1
        The number of this step, from 1.
    eta : float, optional
        The rate of this step. Default: the formula above. PyTorch works it out at the end of the step before, so that
        a new lr counts one step later there; pass that value for the same numbers.
    lr : float, default 1e-2
        Learning rate of step 1.
    lambd : float, default 1e-4
        How fast the rate falls, and how much w decays by itself.
    alpha : float, default 0.75
        The power with which the rate falls.
    t0 : float, default 1e6
        The number of steps before averaging begins.
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
        Shapes differ, w or ax is read-only, step is below 1, or a rate is negative.

    Notes
    -----
    There is no eps, here or in PyTorch. Keras does not have this rule; it averages weights as an option of all rules.

    References
    ----------
    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30 (1992);
    Xu, Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent, arXiv:1107.2490 (the
    rate); torch.optim.ASGD.

    Examples
    --------
    The weights are 0.9, 0.8 and 0.7. The average begins anew at the second and holds the mean of the last two.

    >>> import numpy as np
    >>> from trainstep.reference import asgd_step_
    >>> w, ax = np.array([1.0]), np.zeros(1)
    >>> for step in (1, 2, 3):
    ...     asgd_step_(w, np.array([1.0]), ax, step=step, lr=0.1, lambd=0.0, t0=0)
    >>> w.round(6), ax.round(6)
    (array([0.7]), array([0.75]))
    """
    function = "asgd_step_"
    check_arrays(function, w, g, ax=ax)
    check_numbers(function, step, lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, l1=l1)
    if eta is None:
        eta = lr / (1.0 + lambd * lr * (step - 1)) ** alpha
    check_numbers(function, step, eta=eta)

    mu = 1.0 / max(1.0, step - 1 - t0)
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
        w64 = w64 * (1.0 - lambd * eta) - eta * g64
        ax64 = ax.astype(np.float64)
        w[...] = w64
        # Where mu is 1, what ax held does not matter, be it NaN.
        ax[...] = w64 if mu == 1.0 else ax64 + mu * (w64 - ax64)
