"""Steps whose length follows the norm of the weights, array by array: for large batches."""

from trainstep.optim.optimizer import Optimizer, Params, Rate


class LAMB(Optimizer):
    """LAMB: Adam's direction, as long for each array as its weights say.

    g += l1 * sign(w);  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w;
    w -= lr * norm(w) / norm(u) * u, norm(w) / norm(u) being 1 where either is 0

    m is the state ``exp_avg``, v the state ``exp_avg_sq``; the norms are Euclidean, of a whole array.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-3
        Learning rate, at least 0, or a schedule of it: the share of its norm that an array moves at each step.
    betas : (float, float), default (0.9, 0.999)
        What the means keep at each step, each in [0, 1).
    eps : float, default 1e-6
        Added to the root after the bias correction, as in the paper and in Keras; PyTorch has no LAMB.
    weight_decay : float, default 0.01
        Added to u as weight_decay * w.
    bias_correction : bool, default True
        False leaves out both corrections 1 - beta^t.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer, Hsieh: Large batch optimization for deep learning:
    training BERT in 76 minutes (ICLR 2020), algorithm 2, with phi(norm) = norm.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.array([3.0, 4.0])
    >>> ts.optim.LAMB([w], lr=0.1, weight_decay=0.0).step([np.array([1.0, 0.0])])  # 0.1 * 5 along u = (1, 0)
    >>> w.round(4)
    array([2.5, 4. ])
    """

    _kind = "lamb"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class LARS(Optimizer):
    """LARS: gradient descent with momentum, as long for each array as its weights say.

    g += l1 * sign(w);  local = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w) + eps), 1 where a norm is 0;
    d = lr * local * (g + weight_decay * w);  v = momentum * v + d;  w -= v, or momentum * v + d with nesterov

    v is the state ``momentum_buffer``, which there is where momentum is not 0; the norms are Euclidean, of a whole array.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 0.1
        Learning rate, at least 0, or a schedule of it.
    momentum : float, default 0.9
        How much of the last change is kept.
    weight_decay : float, default 0
        Decay, added to the gradient once its norm is taken.
    trust_coefficient : float, default 0.001
        The share of its norm that an array moves at each step, times lr.
    eps : float, default 0
        Added to the sum of the norms; the paper has none, PyTorch and Keras have no LARS.
    nesterov : bool, default False
        Nesterov's form; needs momentum.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    You, Gitman, Ginsburg: Large batch training of convolutional networks (arXiv 1708.03888, 2017), algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.array([3.0, 4.0])
    >>> ts.optim.LARS([w], trust_coefficient=0.5).step([np.array([0.1, 0.0])])  # 0.1 * 0.5 * 5 along (1, 0)
    >>> w
    array([2.75, 4.  ])
    """

    _kind = "lars"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
