"""Adam and its relatives: averages of the gradient and of its size."""

import math

import numpy as np

from ..activations import Array, ieee
from .common import average, check_arrays, check_betas, check_numbers, needed, prepared, root


def adam_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
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

    With amsgrad, ``vmax <- max(vmax, v)`` stands in the place of v in vhat.

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
    max_exp_avg_sq : ndarray, shape and dtype of w, optional
        The largest v so far, vmax, 0 before step 1. Changed in place where amsgrad is set, untouched otherwise.
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
    amsgrad : bool, default False
        Divide by the largest average of the squared gradient so far, so that no step's rate grows.
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
        Shapes differ, w or a state is read-only, amsgrad is set and max_exp_avg_sq missing, step is below 1, a rate is
        negative, or a beta is not in [0, 1).

    Notes
    -----
    eps is added to the root of the corrected average, as in PyTorch and in the paper's algorithm 1. Keras, and the form
    at the end of the paper's section 2, add it (in Keras 1e-7) to the root of v before the correction: an eps that is
    larger by ``1 / sqrt(1 - b2^step)`` here. amsgrad takes the largest v before the correction, as PyTorch does; its
    paper has no correction at all.

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.
    Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
    Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018, algorithm 2 (amsgrad).

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
    check_arrays(function, w, g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, max_exp_avg_sq=max_exp_avg_sq)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    check_betas(function, betas)
    if amsgrad:
        max_exp_avg_sq = needed(function, "max_exp_avg_sq", max_exp_avg_sq, "amsgrad is True")

    b1, b2 = betas
    coupled, decoupled = (0.0, weight_decay) if decoupled_weight_decay else (weight_decay, 0.0)
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=coupled, decoupled=decoupled, lr=lr)
        m = average(exp_avg, b1, g64)
        v = size = average(exp_avg_sq, b2, g64 * g64)
        if amsgrad and max_exp_avg_sq is not None:
            size = np.maximum(max_exp_avg_sq.astype(np.float64), v)
            max_exp_avg_sq[...] = size
        m_hat = m / (1.0 - b1**step) if bias_correction else m
        v_hat = size / (1.0 - b2**step) if bias_correction else size
        w[...] = w64 - lr * m_hat / root(v_hat, eps, eps_inside_sqrt)
        exp_avg[...] = m
        exp_avg_sq[...] = v


def adamax_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_inf: Array,
    *,
    step: int = 1,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    """Do one step of Adamax, in place: Adam with the largest recent gradient in the place of the root mean square.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``
    | ``m <- b1 * m + (1 - b1) * g``
    | ``u <- max(b2 * u, |g| + eps)``
    | ``w <- w - lr / (1 - b1^step) * m / u``

    Parameters
    ----------
    w : ndarray, any shape, float32 or float64
        Weights. Changed in place.
    g : ndarray, shape and dtype of w
        Gradient of the loss. Left as it is.
    exp_avg : ndarray, shape and dtype of w
        Moving average m of the gradient, 0 before step 1. Changed in place.
    exp_inf : ndarray, shape and dtype of w
        The infinity norm u of the gradients, older ones weighted less. 0 before step 1. Changed in place.
    step : int, default 1
        The number of this step, from 1.
    lr : float, default 2e-3
        Learning rate.
    betas : tuple of 2 floats, default (0.9, 0.999)
        b1 and b2: how much of the average and of the norm is kept.
    eps : float, default 1e-8
        Keeps the division from one by 0.
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
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, or a beta is not in [0, 1).

    Notes
    -----
    eps is added to each gradient's size, as in PyTorch. Keras adds its 1e-7 to u where it divides; the paper has none.

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 2; torch.optim.Adamax.

    Examples
    --------
    The first step is lr long, whatever the gradient's size.

    >>> import numpy as np
    >>> from trainstep.reference import adamax_step_
    >>> w, m, u = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> adamax_step_(w, np.array([3.0, -0.01]), m, u, lr=0.1)
    >>> w.round(6)
    array([0.9, 1.1])
    """
    function = "adamax_step_"
    check_arrays(function, w, g, exp_avg=exp_avg, exp_inf=exp_inf)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    check_betas(function, betas)

    b1, b2 = betas
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=weight_decay)
        m = average(exp_avg, b1, g64)
        u = np.maximum(b2 * exp_inf.astype(np.float64), np.abs(g64) + eps)
        w[...] = w64 - lr / (1.0 - b1**step) * m / u
        exp_avg[...] = m
        exp_inf[...] = u


def nadam_step_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    mu_product: float | None = None,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
) -> float:
    """Do one step of NAdam, in place: Adam that looks ahead along its momentum, which grows to b1 over the steps.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``; a decoupled decay stays out of g
    | ``w <- w * (1 - lr * weight_decay)`` if decoupled
    | ``mu_t = b1 * (1 - 0.96^(t * momentum_decay) / 2)`` for any step t; ``mu = mu_step``, ``next = mu_(step + 1)``
    | ``P <- P * mu``
    | ``m <- b1 * m + (1 - b1) * g``
    | ``v <- b2 * v + (1 - b2) * g^2``
    | ``d = (1 - mu) / (1 - P) * g + next / (1 - P * next) * m``
    | ``w <- w - lr * d / (sqrt(v / (1 - b2^step)) + eps)``

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
    mu_product : float, optional
        P, the product of the mu of all steps before this one. Default: worked out from step, as if b1 and
        momentum_decay had always been what they are now.
    lr : float, default 2e-3
        Learning rate.
    betas : tuple of 2 floats, default (0.9, 0.999)
        b1 and b2: how much of each average is kept.
    eps : float, default 1e-8
        Keeps the division from one by 0.
    weight_decay : float, default 0.0
        L2 penalty, or decay of w itself where decoupled.
    momentum_decay : float, default 4e-3
        How fast the momentum grows from b1 / 2 to b1.
    decoupled_weight_decay : bool, default False
        Decay w by itself, outside of the averages.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Returns
    -------
    mu_product : float
        P with this step's mu: what the next step takes.

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, a beta is not in [0, 1), or
        mu_product is not in [0, 1].

    Notes
    -----
    eps is added to the root of the corrected average, as in PyTorch, Keras (there 1e-7) and the paper.

    References
    ----------
    Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop, algorithm 2; torch.optim.NAdam.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import nadam_step_
    >>> w, m, v = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> product = nadam_step_(w, np.array([3.0, -0.01]), m, v, lr=0.1, momentum_decay=0.0)
    >>> product, w.round(6)  # lr, and 0.45 / (1 - 0.45^2) * 0.1 of it for the look ahead
    (0.45, array([0.894357, 1.105643]))
    >>> product = nadam_step_(w, np.array([3.0, -0.01]), m, v, step=2, mu_product=product, lr=0.1, momentum_decay=0.0)
    >>> round(product, 6)
    0.2025
    """
    function = "nadam_step_"
    check_arrays(function, w, g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay, l1=l1)
    check_betas(function, betas)
    if mu_product is not None and not 0.0 <= mu_product <= 1.0:
        raise ValueError(f"{function}: mu_product is {mu_product}, wanted a number from 0 to 1")

    b1, b2 = betas

    def mu(t: int) -> float:
        return float(b1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay)))

    before = math.prod(mu(t) for t in range(1, step)) if mu_product is None else mu_product
    product, following = before * mu(step), mu(step + 1)
    coupled, decoupled = (0.0, weight_decay) if decoupled_weight_decay else (weight_decay, 0.0)
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=coupled, decoupled=decoupled, lr=lr)
        m = average(exp_avg, b1, g64)
        v = average(exp_avg_sq, b2, g64 * g64)
        d = (1.0 - mu(step)) / (1.0 - product) * g64 + following / (1.0 - product * following) * m
        w[...] = w64 - lr * d / root(v / (1.0 - b2**step), eps)
        exp_avg[...] = m
        exp_avg_sq[...] = v
    return product


def radam_step_(
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
) -> None:
    """Do one step of RAdam, in place: Adam that waits until its average of squares can be relied on.

    | ``g <- -g`` if maximize
    | ``g <- g + weight_decay * w + l1 * sign(w)``; a decoupled decay stays out of g
    | ``w <- w * (1 - lr * weight_decay)`` if decoupled
    | ``m <- b1 * m + (1 - b1) * g``
    | ``v <- b2 * v + (1 - b2) * g^2``
    | ``mhat = m / (1 - b1^step)``
    | ``R = 2 / (1 - b2) - 1``, ``r = R - 2 * step * b2^step / (1 - b2^step)``
    | ``w <- w - lr * mhat`` where ``r <= 5``, that is in the first steps; else
    | ``c = sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r))``
    | ``w <- w - lr * c * mhat * sqrt(1 - b2^step) / (sqrt(v) + eps)``

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
        Decay w by itself, outside of the averages.
    maximize : bool, default False
        Go up the gradient.
    l1 : float, default 0.0
        L1 penalty: the gradient of ``l1 * sum(|w|)`` is added to g (0 where w is 0).

    Raises
    ------
    TypeError
        An array is not an ndarray, or they are not all float32 or all float64.
    ValueError
        Shapes differ, w or a state is read-only, step is below 1, a rate is negative, or a beta is not in [0, 1).

    Notes
    -----
    eps is added to the root of v before the bias correction, as in PyTorch: unlike in `adam_step_`. The paper has no
    eps, and r > 4 in the place of PyTorch's r > 5, which is here. Keras does not have this rule.

    References
    ----------
    Liu, Jiang, He, Chen, Liu, Gao & Han, On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    algorithm 2; torch.optim.RAdam.

    Examples
    --------
    The first step goes along the gradient.

    >>> import numpy as np
    >>> from trainstep.reference import radam_step_
    >>> w, m, v = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
    >>> radam_step_(w, np.array([3.0, -0.01]), m, v, lr=0.1)
    >>> w.round(6)
    array([0.7  , 1.001])
    """
    function = "radam_step_"
    check_arrays(function, w, g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    check_numbers(function, step, lr=lr, eps=eps, weight_decay=weight_decay, l1=l1)
    check_betas(function, betas)

    b1, b2 = betas
    longest = 2.0 / (1.0 - b2) - 1.0
    length = longest - 2.0 * step * b2**step / (1.0 - b2**step)
    coupled, decoupled = (0.0, weight_decay) if decoupled_weight_decay else (weight_decay, 0.0)
    with ieee():
        w64, g64 = prepared(w, g, maximize=maximize, l1=l1, coupled=coupled, decoupled=decoupled, lr=lr)
        m = average(exp_avg, b1, g64)
        v = average(exp_avg_sq, b2, g64 * g64)
        d = m / (1.0 - b1**step)
        if length > 5.0:
            rectified = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
            d = d * math.sqrt(rectified * (1.0 - b2**step)) / root(v, eps)
        w[...] = w64 - lr * d
        exp_avg[...] = m
        exp_avg_sq[...] = v
