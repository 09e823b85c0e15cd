"""Steps whose direction is the sign of a gradient, and whose length does not depend on its size."""

import numpy as np

from ..activations import Array, ieee
from .common import average, check_arrays, check_betas, check_numbers, prepared


def rprop_step_(
    w: Array,
    g: Array,
    prev: Array,
    step_size: Array,
    *,
    step: int = 1,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of resilient backpropagation, in place: longer where the gradient's sign stays, shorter where it turns.

    | ``g <- -g`` if maximize
    | ``g <- g + l1 * sign(w)``
    | ``s <- etas[1] * s`` where g and prev have one sign, ``etas[0] * s`` where they have two, s where one of them is 0
    | ``s <- min(max(s, step_sizes[0]), step_sizes[1])``
    | ``g <- 0`` where they have two signs
    | ``w <- w - s * sign(g)``
    | ``prev <- g``

    Made for gradients of the whole data set: between batches a sign means little.

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    prev : ndarray, shape and dtype of w
        The gradient of the step before, 0 where its sign had turned. 0 before step 1. Changed in place.
    step_size : ndarray, shape and dtype of w
        The length s of each element's step. Before step 1 it holds the learning rate, in `Rprop` 1e-2. Changed in
        place.
    step : int, default 1
        The number of this step, from 1. The formula does not depend on it; all rules take it.
    etas : tuple of 2 floats, default (0.5, 1.2)
        What a step shrinks by, between 0 and 1, and what it grows by, above 1.
    step_sizes : tuple of 2 floats, default (1e-6, 50)
        The shortest and the longest step.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, l1 is negative, etas or step_sizes are not in order.

    Notes
    -----
    There is no eps, here, in PyTorch or in the papers. Signs are compared, not products of gradients, so that two small
    gradients count as any others. There is no weight decay, as in PyTorch. Keras does not have this rule.

    References
    ----------
    Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm, ICNN 1993;
    Igel & Huesken, Improving the Rprop Learning Algorithm, NC 2000 (iRprop-, which this is); torch.optim.Rprop.

    Examples
    --------
    The step doubles while the sign stays. Where it turns, there is none, and the next one is shorter.

    >>> import numpy as np
    >>> from trainstep.reference import rprop_step_
    >>> w, prev, size = np.array([10.0]), np.zeros(1), np.full(1, 0.5)
    >>> for g in (3.0, 0.1, -2.0, -2.0):
    ...     rprop_step_(w, np.array([g]), prev, size, etas=(0.5, 2.0))
    ...     print(w, size)
    [9.5] [0.5]
    [8.5] [1.]
    [8.5] [0.5]
    [9.] [0.5]
    """
    function = "rprop_step_"
    check_arrays(function, w, g, prev=prev, step_size=step_size)
    check_numbers(function, step, l1=l1)
    if len(etas) != 2 or not 0.0 < etas[0] < 1.0 < etas[1]:
        raise ValueError(f"{function}: etas is {etas}, wanted a number between 0 and 1 and one above 1")
    if len(step_sizes) != 2 or not 0.0 <= step_sizes[0] <= step_sizes[1]:
        raise ValueError(f"{function}: step_sizes is {step_sizes}, wanted two numbers from 0, the smaller one first")

    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1)
        agreement = np.sign(g64) * np.sign(prev.astype(np.float64))
        # NaN as the gradient of an element makes its step NaN, as in every other rule.
        factor = np.select([agreement > 0.0, agreement < 0.0, agreement == 0.0], [etas[1], etas[0], 1.0], np.nan)
        s = np.clip(step_size.astype(np.float64) * factor, *step_sizes)
        g64 = np.where(agreement < 0.0, 0.0, g64)
        w[...] = w64 - s * np.sign(g64)
        prev[...] = g64
        step_size[...] = s


def lion_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    *,
    step: int = 1,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of Lion, in place: lr along the sign of an average of the gradient.

    | ``g <- -g`` if maximize
    | ``g <- g + l1 * sign(w)``
    | ``c = b1 * m + (1 - b1) * g``
    | ``w <- w * (1 - lr * weight_decay) - lr * sign(c)``
    | ``m <- b2 * m + (1 - b2) * g``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    exp_avg : ndarray, shape and dtype of w
        Moving average m of the gradient, 0 before step 1. Changed in place.
    step : int, default 1
        The number of this step, from 1. The formula does not depend on it; all rules take it.
    lr : float, default 1e-4
        Learning rate: the length of each element's step.
    betas : tuple of 2 floats, default (0.9, 0.99)
        b1: how much of the average goes into this step. b2: how much of it is kept.
    weight_decay : float, default 0.0
        Decay of w itself, decoupled from the gradient.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or the average is read-only, step is below 1, a rate is negative, or a beta is not in [0, 1).

    Notes
    -----
    There is no eps, here, in Keras or in the paper. PyTorch does not have this rule.

    References
    ----------
    Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import lion_step_
    >>> w, m = np.array([1.0, 1.0, 1.0]), np.zeros(3)
    >>> lion_step_(w, np.array([3.0, -0.01, 0.0]), m, lr=0.25)
    >>> w, m.round(6)
    (array([0.75, 1.25, 1.  ]), array([ 0.03  , -0.0001,  0.    ]))
    """
    function = "lion_step_"
    check_arrays(function, w, g, exp_avg=exp_avg)
    check_numbers(function, step, lr=lr, weight_decay=weight_decay, l1=l1)
    check_betas(function, betas)

    b1, b2 = betas
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, decoupled=weight_decay, lr=lr)
        w[...] = w64 - lr * np.sign(average(exp_avg, b1, g64))
        exp_avg[...] = average(exp_avg, b2, g64)
