"""Steps divided by the root of what squared gradients add up to or average."""

from trainstep.optim.optimizer import Optimizer, Params, Rate


class Adagrad(Optimizer):
    """Adagrad: divides by the root of the sum of all squared gradients.

    g += weight_decay * w + l1 * sign(w);  sum += g^2;
    w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum) + eps)

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-2
        Learning rate, at least 0, or a schedule of it.
    lr_decay : float, default 0
        How fast the learning rate shrinks with the steps.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    initial_accumulator_value : float, default 0
        What sum begins with (0.1 in Keras).
    eps : float, default 1e-10
        Added to the root, as in PyTorch; Keras has it (1e-7) under the root, the paper a small multiple of the identity on it.
    eps_inside_sqrt : bool, default False
        sqrt(sum + eps) instead of sqrt(sum) + eps.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Duchi, Hazan, Singer: Adaptive subgradient methods for online learning and stochastic optimization (JMLR 12, 2011),
    section 1.1.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.Adagrad([w], lr=0.5, initial_accumulator_value=16.0).step([np.array([3.0])])
    >>> w.round(6)
    array([-0.3])
    """

    _kind = "adagrad"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class Adadelta(Optimizer):
    """Adadelta: steps of the size that the last ones had.

    g += weight_decay * w + l1 * sign(w);  v = rho * v + (1 - rho) * g^2;
    d = sqrt(u + eps) / sqrt(v + eps) * g;  u = rho * u + (1 - rho) * d^2;  w -= lr * d

    v is the state ``square_avg``, u the state ``acc_delta``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1
        Learning rate, at least 0, or a schedule of it (the paper has none, Keras 1e-3).
    rho : float, default 0.9
        What the averages keep at each step, in [0, 1].
    eps : float, default 1e-6
        Under both roots, as in PyTorch, Keras (1e-7) and the paper.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Zeiler: ADADELTA: an adaptive learning rate method (arXiv 1212.5701, 2012), algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.Adadelta([w], rho=0.75, eps=0.25).step([np.array([2.0])])  # 0.5 / sqrt(1.25) * 2
    >>> w.round(6)
    array([-0.894427])
    """

    _kind = "adadelta"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class RMSprop(Optimizer):
    """RMSprop: divides by the root of an average of squared gradients.

    g += weight_decay * w + l1 * sign(w);  v = alpha * v + (1 - alpha) * g^2;
    with centered a = alpha * a + (1 - alpha) * g, and v - a^2 instead of v below;
    d = g / (sqrt(v) + eps);  with momentum buf = momentum * buf + d, and d = buf;  w -= lr * d

    v is the state ``square_avg``, a the state ``grad_avg``, buf the state ``momentum_buffer``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-2
        Learning rate, at least 0, or a schedule of it.
    alpha : float, default 0.99
        What the averages keep at each step, in [0, 1] (0.9 in the lecture and in Keras).
    eps : float, default 1e-8
        Added to the root, as in PyTorch; Keras has it (1e-7) under the root, the lecture has none.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    momentum : float, default 0
        How much of the last change is kept.
    centered : bool, default False
        Divide by the root of the variance: the squared average is taken off the average of squares.
    eps_inside_sqrt : bool, default False
        sqrt(v + eps) instead of sqrt(v) + eps.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Tieleman, Hinton: Lecture 6.5, rmsprop (Coursera: Neural networks for machine learning, 2012); Graves: Generating sequences
    with recurrent neural networks (arXiv 1308.0850, 2013), equations 38 to 41, for the centered form.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.RMSprop([w], lr=0.5, alpha=0.75).step([np.array([3.0])])  # 0.5 * 3 / sqrt(0.25 * 9)
    >>> w.round(6)
    array([-1.])
    """

    _kind = "rmsprop"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
