"""Steps that follow the signs of gradients, not their sizes."""

from trainstep.optim.optimizer import Optimizer, Params, Rate


class Rprop(Optimizer):
    """Rprop: a step size for each weight, that grows while its gradient keeps its sign. For whole batches.

    g += l1 * sign(w);  s *= etaplus where g * prev > 0, etaminus where g * prev < 0;
    s = min(max(s, step_sizes[0]), step_sizes[1]);  g = 0 where g * prev < 0;  w -= sign(g) * s;  prev = g

    s is the state ``step_size``, which begins with lr; prev begins with 0.

    Parameters
    ----------
    params, maximize, l1
        As for every `Optimizer`.
    lr : float or callable, default 1e-2
        The first step size, at least 0; of a schedule, what it gives first.
    etas : (float, float), default (0.5, 1.2)
        etaminus in (0, 1) and etaplus above 1.
    step_sizes : (float, float), default (1e-6, 50)
        The smallest and the largest step size.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Riedmiller, Braun: A direct adaptive method for faster backpropagation learning: the RPROP algorithm (ICNN 1993); Igel,
    Huesken: Improving the Rprop learning algorithm (NC 2000), for this form, iRprop-.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(2)
    >>> opt = ts.optim.Rprop([w], lr=0.5)
    >>> for g in ([3.0, -0.01], [3.0, 0.01]):
    ...     opt.step([np.array(g)])
    >>> w, opt.state[0]["step_size"]
    (array([-1.1,  0.5]), array([0.6 , 0.25]))
    """

    _kind = "rprop"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(locals())


class Lion(Optimizer):
    """Lion: steps of one size along the sign of a mean gradient.

    g += l1 * sign(w);  c = beta1 * m + (1 - beta1) * g;  w = w * (1 - lr * weight_decay) - lr * sign(c);
    m = beta2 * m + (1 - beta2) * g

    m is the state ``exp_avg``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-4
        Learning rate, at least 0, or a schedule of it: how far each weight moves (3 to 10 times less than for AdamW).
    betas : (float, float), default (0.9, 0.99)
        What of m goes into the step, and what m keeps of itself, each in [0, 1).
    weight_decay : float, default 0
        Decoupled decay: the share of lr that a weight loses at each step (3 to 10 times that for AdamW).

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu, Le: Symbolic discovery of optimization algorithms
    (NeurIPS 2023), algorithm 2. There is no eps.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.array([1.0, 1.0, 1.0])
    >>> ts.optim.Lion([w], lr=0.25).step([np.array([7.0, -0.01, 0.0])])
    >>> w
    array([0.75, 1.25, 1.  ])
    """

    _kind = "lion"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
