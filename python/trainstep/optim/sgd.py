"""Gradient descent: with momentum, and with an average of the weights."""

from trainstep.optim.optimizer import Optimizer, Params, Rate


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    g += weight_decay * w + l1 * sign(w);  buf = momentum * buf + (1 - dampening) * g, buf = g at the first step;
    w -= lr * buf, or lr * (g + momentum * buf) with nesterov

    buf is the state ``momentum_buffer``, which there is where momentum is not 0.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-3
        Learning rate, at least 0, or a schedule of it.
    momentum : float, default 0
        How much of the last change is kept.
    dampening : float, default 0
        1 minus what the gradient enters the buffer with, from the second step on.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    nesterov : bool, default False
        Nesterov's form; needs momentum and no dampening.
    lr_in_velocity : bool, default False
        The textbook form: change = momentum * change + lr * g, change = 0 at the start; w -= change. The two forms differ
        where lr changes between steps.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning (ICML 2013),
    equations 1 to 4; PyTorch's ``torch.optim.SGD`` for the form.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> opt = ts.optim.SGD([w], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     opt.step([np.ones(1)])
    >>> w
    array([-1.25])
    """

    _kind = "sgd"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        lr_in_velocity: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class ASGD(Optimizer):
    """Averaged stochastic gradient descent: steps that shrink, and an average of the weights in the state.

    g += weight_decay * w + l1 * sign(w);  w *= 1 - lambd * eta;  w -= eta * g;
    ax = w where mu = 1, else ax + mu * (w - ax);  then, for the next step,
    eta = lr / (1 + lambd * lr * t)^alpha;  mu = 1 / max(1, t - t0)

    Parameters
    ----------
    params, maximize, l1
        As for every `Optimizer`.
    lr : float or callable, default 1e-2
        Learning rate, at least 0, or a schedule of it. eta is lr at the first step.
    lambd : float, default 1e-4
        How fast eta shrinks; and a decay of w.
    alpha : float, default 0.75
        The power that eta shrinks with.
    t0 : float, default 1e6
        The step that the average ``ax`` begins at; until then it is w.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Polyak, Juditsky: Acceleration of stochastic approximation by averaging (SIAM J. Control and Optimization 30, 1992);
    PyTorch's ``torch.optim.ASGD`` for the form.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> opt = ts.optim.ASGD([w], lr=0.5, lambd=0.0, t0=1)
    >>> for _ in range(4):
    ...     opt.step([np.ones(1)])
    >>> w, opt.state[0]["ax"]
    (array([-2.]), array([-1.75]))
    """

    _kind = "asgd"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(locals())
