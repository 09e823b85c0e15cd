"""Adam and what came of it: steps along a mean gradient, divided by a mean size."""

from trainstep.optim.optimizer import Optimizer, Params, Rate


class Adam(Optimizer):
    """Adam: steps along a mean gradient, divided by its root mean square.

    g += weight_decay * w + l1 * sign(w);  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    m is the state ``exp_avg``, v the state ``exp_avg_sq``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-3
        Learning rate, at least 0, or a schedule of it.
    betas : (float, float), default (0.9, 0.999)
        What the means keep at each step, each in [0, 1).
    eps : float, default 1e-8
        Added to the root (PyTorch and the paper's algorithm 1; Keras and the paper's section 2 have it before the bias
        correction).
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    amsgrad : bool, default False
        Divide by the largest v so far, the state ``max_exp_avg_sq``, which is taken before the bias correction.
    decoupled_weight_decay : bool, default False
        AdamW's decay instead: w *= 1 - lr * weight_decay.
    bias_correction : bool, default True
        False leaves out both corrections 1 - beta^t.
    eps_inside_sqrt : bool, default False
        sqrt(v + eps) instead of sqrt(v) + eps, after the bias correction.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization (ICLR 2015), algorithm 1; Reddi, Kale, Kumar: On the convergence of
    Adam and beyond (ICLR 2018), algorithm 2, for amsgrad.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.Adam([w], lr=0.5).step([np.array([7.0])])  # the first step is lr long, whatever the gradient
    >>> w.round(6)
    array([-0.5])
    """

    _kind = "adam"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class AdamW(Adam):
    """Adam with decoupled weight decay.

    w *= 1 - lr * weight_decay, then Adam's step

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, amsgrad, bias_correction, eps_inside_sqrt
        As for `Adam`.
    weight_decay : float, default 0.01
        The share of lr that a weight loses at each step.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Loshchilov, Hutter: Decoupled weight decay regularization (ICLR 2019), algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.ones(1)
    >>> ts.optim.AdamW([w], lr=0.5, weight_decay=0.1).step([np.zeros(1)])
    >>> w
    array([0.95])
    """

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        Optimizer.__init__(self, locals() | {"decoupled_weight_decay": True})


class Adamax(Optimizer):
    """Adamax: Adam with the largest gradient, slowly forgotten, for the root mean square.

    g += weight_decay * w + l1 * sign(w);  m = beta1 * m + (1 - beta1) * g;  u = max(beta2 * u, abs(g) + eps);
    w -= lr / (1 - beta1^t) * m / u

    m is the state ``exp_avg``, u the state ``exp_inf``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 2e-3
        Learning rate, at least 0, or a schedule of it.
    betas : (float, float), default (0.9, 0.999)
        What m and u keep at each step, each in [0, 1).
    eps : float, default 1e-8
        Added to abs(g), as in PyTorch; Keras adds it (1e-7) to u where it divides, the paper has none.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization (ICLR 2015), algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> opt = ts.optim.Adamax([w], lr=0.5, betas=(0.5, 0.5))
    >>> for g in (4.0, 0.0):  # 0.5 * 4 / 4, then 0.5 * (4 / 3) / 2
    ...     opt.step([np.array([g])])
    >>> w.round(6)
    array([-0.833333])
    """

    _kind = "adamax"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's look ahead.

    g += weight_decay * w + l1 * sign(w);  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    mu_t = beta1 * (1 - 0.5 * 0.96^(t * momentum_decay));  P_t = mu_1 * ... * mu_t;
    w -= lr * ((1 - mu_t) / (1 - P_t) * g + mu_(t+1) / (1 - P_(t+1)) * m) / (sqrt(v / (1 - beta2^t)) + eps)

    m is the state ``exp_avg``, v the state ``exp_avg_sq``, P the number ``mu_product``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 2e-3
        Learning rate, at least 0, or a schedule of it.
    betas : (float, float), default (0.9, 0.999)
        What the means keep at each step, each in [0, 1).
    eps : float, default 1e-8
        Added to the root after the bias correction, as in PyTorch, Keras (1e-7) and the paper.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    momentum_decay : float, default 4e-3
        How fast mu rises to beta1.
    decoupled_weight_decay : bool, default False
        AdamW's decay instead: w *= 1 - lr * weight_decay.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Dozat: Incorporating Nesterov momentum into Adam (ICLR workshop 2016), algorithm 2; PyTorch's ``torch.optim.NAdam`` for mu.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> opt = ts.optim.NAdam([w], lr=0.5)
    >>> opt.step([np.array([7.0])])
    >>> w.round(4), round(opt.state[0]["mu_product"], 4)
    (array([-0.5282]), 0.4501)
    """

    _kind = "nadam"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class RAdam(Optimizer):
    """RAdam: Adam that divides only once its root mean square can be trusted.

    g += weight_decay * w + l1 * sign(w);  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    rho_inf = 2 / (1 - beta2) - 1;  rho = rho_inf - 2 * t * beta2^t / (1 - beta2^t);
    where rho > 5:  r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) and
    w -= lr * r / (1 - beta1^t) * m * sqrt(1 - beta2^t) / (sqrt(v) + eps);  else  w -= lr / (1 - beta1^t) * m

    m is the state ``exp_avg``, v the state ``exp_avg_sq``.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr : float or callable, default 1e-3
        Learning rate, at least 0, or a schedule of it.
    betas : (float, float), default (0.9, 0.999)
        What the means keep at each step, each in [0, 1).
    eps : float, default 1e-8
        Added to the root before the bias correction, as in PyTorch; the paper has none. Keras has no RAdam.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    decoupled_weight_decay : bool, default False
        AdamW's decay instead: w *= 1 - lr * weight_decay.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Liu, Jiang, He, Chen, Liu, Gao, Han: On the variance of the adaptive learning rate and beyond (ICLR 2020), algorithm 2,
    which has rho > 4; 5 is PyTorch's.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.RAdam([w], lr=0.5).step([np.array([7.0])])  # the first steps are as long as the gradient says
    >>> w.round(6)
    array([-3.5])
    """

    _kind = "radam"

    def __init__(
        self,
        params: Params | None = None,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
