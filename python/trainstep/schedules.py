"""Learning rates that change with the steps: each function gives a schedule, a callable ``t -> lr``.

t counts the updates that have been made, so t = 0 is the first one. An optimizer takes a schedule as its ``lr``. A schedule is a
pure function of t: it can be called for any step, in any order, and with an array of steps; `Plateau` alone has a memory.

| ``schedules.warmup(schedules.cosine(1e-3, total=1000), steps=100)``
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, cast

import numpy as np
from numpy.typing import NDArray

from trainstep._checks import integer, number, switch

__all__ = [
    "Plateau",
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclical",
    "deepseek",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "iterations",
    "join",
    "linear",
    "one_cycle",
    "piecewise",
    "polynomial",
    "step_decay",
    "warmup",
]

Steps = NDArray[np.float64]
Formula = Callable[[Steps], Any]
P = ParamSpec("P")

# Every function that gives a schedule, by name.
SCHEDULES: dict[str, Callable[..., "Schedule"]] = {}


class Schedule:
    """A learning rate as a function of the step: what the functions of `trainstep.schedules` give.

    lr = f(t)

    Parameters
    ----------
    name : str
        The function that gave it.
    arguments : mapping of str to object
        What that was called with.
    formula : callable
        f on an array of steps in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep import schedules
    >>> schedule = schedules.linear(1.0, total=4)
    >>> schedule
    linear(lr=1.0, total=4, final=0.0)
    >>> schedule(1)
    0.75
    >>> schedule(np.arange(6))
    array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], formula: Formula) -> None:
        self.name, self.arguments, self._formula = name, dict(arguments), formula

    def __call__(self, t: Any) -> Any:
        """Give the rate of step t, a float, or those of an array of steps, an array of its shape."""
        steps = np.asarray(t)
        if steps.dtype.kind not in "iu" or (steps.size and steps.min() < 0):
            raise ValueError(f"{self.name}: t is {t!r}, expected integers of at least 0")
        # As an array also of one step: NumPy's loops and its scalars round powers differently.
        with np.errstate(over="ignore", under="ignore"):
            rates = np.asarray(self._formula(steps.ravel().astype(np.float64)), np.float64)
        return float(rates[0]) if steps.ndim == 0 else rates.reshape(steps.shape)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and (self.name, self.arguments) == (other.name, other.arguments)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.name, self.arguments)


def _again(name: str, arguments: dict[str, Any]) -> Schedule:
    """Make a schedule anew, from a pickle."""
    return SCHEDULES[name](**arguments)


_RETURNS = """Returns
    -------
    schedule : Schedule

    Raises
    ------
    ValueError, TypeError
        Where an argument is out of its range or of a wrong type."""


def _schedule(formula_of: Callable[P, Formula]) -> Callable[P, Schedule]:
    """Make a function that gives schedules of one that checks its arguments and gives the formula."""
    own = inspect.signature(formula_of)

    @functools.wraps(formula_of)
    def function(*args: P.args, **options: P.kwargs) -> Schedule:
        formula = formula_of(*args, **options)
        bound = own.bind(*args, **options)
        bound.apply_defaults()
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in bound.arguments.items()}
        return Schedule(formula_of.__name__, plain, formula)

    function.__doc__ = (formula_of.__doc__ or "").replace("{returns}", _RETURNS)
    cast(Any, function).__signature__ = own.replace(return_annotation=Schedule)
    SCHEDULES[formula_of.__name__] = function
    return function


def _rate(function: str, name: str, value: float) -> float:
    return number(f"{function}: {name}", value, 0)


def _steps(function: str, name: str, value: int, least: int = 1) -> int:
    return integer(f"{function}: {name}", value, least)


def _progress(t: Steps, total: int) -> Steps:
    """Give the share of `total` steps that is over: from 0 to 1."""
    share: Steps = np.minimum(t, total) / total
    return share


@_schedule
def constant(lr: float) -> Formula:
    """Keep one rate.

    lr(t) = lr

    Parameters
    ----------
    lr : float
        The rate, at least 0.

    {returns}

    References
    ----------
    Robbins, Monro: A stochastic approximation method (1951), what its section 2 asks of steps and this does not give.

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedules.constant(0.1)(1000)
    0.1
    """
    lr = _rate("constant", "lr", lr)
    return lambda t: np.full(t.shape, lr)


@_schedule
def step_decay(lr: float, factor: float, every: int) -> Formula:
    """Multiply the rate by a factor every so many steps.

    lr(t) = lr * factor^floor(t / every)

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    factor : float
        At least 0: 0.5 halves the rate.
    every : int
        Steps between two changes, at least 1. PyTorch's ``StepLR(step_size=every, gamma=factor)``.

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.3.1.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [round(schedules.step_decay(0.1, 0.1, every=10)(t), 4) for t in (0, 9, 10, 20)]
    [0.1, 0.1, 0.01, 0.001]
    """
    lr, factor, every = _rate("step_decay", "lr", lr), _rate("step_decay", "factor", factor), _steps("step_decay", "every", every)
    return lambda t: lr * factor ** np.floor(t / every)


@_schedule
def piecewise(lr: float, factors: Mapping[int, float]) -> Formula:
    """Multiply the rate by a factor at each of some steps.

    lr(t) = lr * product of the factors of all steps up to t

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    factors : dict of float by int
        Steps of at least 0, and what the rate is multiplied by from then on, at least 0. PyTorch's ``MultiStepLR`` with one
        gamma for all; optax's ``piecewise_constant_schedule``.

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.3.1.

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedules.piecewise(1.0, {10: 0.5, 30: 0.1})(30)
    0.05
    """
    lr = _rate("piecewise", "lr", lr)
    if not isinstance(factors, Mapping):
        raise TypeError(f"piecewise: factors is a {type(factors).__name__}, expected a dict of factors by step")
    changes = {
        _steps("piecewise", "a step of factors", at, 0): _rate("piecewise", f"factors[{at}]", f) for at, f in factors.items()
    }
    return lambda t: lr * math.prod(
        (np.where(t >= at, factor, 1.0) for at, factor in sorted(changes.items())), start=np.ones(t.shape)
    )


@_schedule
def exponential(lr: float, k: float) -> Formula:
    """Let the rate fall by the same share at each step.

    lr(t) = lr * exp(-k * t)

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    k : float
        The rate of decay, at least 0. PyTorch's ``ExponentialLR`` has gamma = exp(-k).

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.3.1.

    Examples
    --------
    >>> from trainstep import schedules
    >>> round(schedules.exponential(1.0, 0.1)(10), 4)
    0.3679
    """
    lr, k = _rate("exponential", "lr", lr), _rate("exponential", "k", k)
    return lambda t: lr * np.exp(-k * t)


@_schedule
def inverse_time(lr: float, k: float, recursive: bool = False) -> Formula:
    """Divide the rate by what grows with the time.

    lr(t) = lr / (1 + k * t);  recursive: lr(t) = lr(t - 1) / (1 + k * t), lr(0) = lr

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    k : float
        The rate of decay, at least 0.
    recursive : bool, default False
        Whether each rate is that of the step before, divided: some slides have it so. It falls much faster.

    {returns}

    References
    ----------
    Robbins, Monro: A stochastic approximation method (1951), section 2.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [round(schedules.inverse_time(0.2, 1.0)(t), 3) for t in (1, 2, 3, 4)]
    [0.1, 0.067, 0.05, 0.04]
    """
    lr, k = _rate("inverse_time", "lr", lr), _rate("inverse_time", "k", k)
    if not switch("inverse_time: recursive", recursive):
        return lambda t: lr / (1 + k * t)

    def divided(t: Steps) -> Any:
        last = int(t.max(initial=0))
        return lr / np.cumprod(np.concatenate([[1.0], 1 + k * np.arange(1, last + 1)]))[t.astype(np.int64)]

    return divided


@_schedule
def cosine(lr: float, total: int, final: float = 0.0) -> Formula:
    """Let the rate fall along half a wave of the cosine.

    lr(t) = final + (lr - final) * (1 + cos(pi * t / total)) / 2 up to `total`, then final

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    total : int
        Steps until the rate is `final`, at least 1. As PyTorch's ``CosineAnnealingLR(T_max=total, eta_min=final)``, which goes up
        again after that.
    final : float, default 0.0
        The last rate, at least 0.

    {returns}

    References
    ----------
    Loshchilov, Hutter: SGDR (ICLR 2017), equation 5.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [round(schedules.cosine(0.2, total=4)(t), 4) for t in range(6)]
    [0.2, 0.1707, 0.1, 0.0293, 0.0, 0.0]
    """
    lr, total, final = _rate("cosine", "lr", lr), _steps("cosine", "total", total), _rate("cosine", "final", final)
    return lambda t: final + (lr - final) * (1 + np.cos(np.pi * _progress(t, total))) / 2


@_schedule
def linear(lr: float, total: int, final: float = 0.0) -> Formula:
    """Let the rate fall, or rise, along a line.

    lr(t) = lr + (final - lr) * t / total up to `total`, then final

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    total : int
        Steps until the rate is `final`, at least 1.
    final : float, default 0.0
        The last rate, at least 0.

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), equation 8.14.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [schedules.linear(1.0, total=4)(t) for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    lr, total, final = _rate("linear", "lr", lr), _steps("linear", "total", total), _rate("linear", "final", final)
    return lambda t: lr + (final - lr) * _progress(t, total)


@_schedule
def inverse_sqrt(lr: float) -> Formula:
    """Divide the rate by the root of the time.

    lr(t) = lr / sqrt(max(t, 1))

    Parameters
    ----------
    lr : float
        The rate of the first two steps, at least 0.

    {returns}

    References
    ----------
    Vaswani et al.: Attention is all you need (NIPS 2017), equation 3, without its warm-up.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [schedules.inverse_sqrt(1.0)(t) for t in (0, 1, 4, 100)]
    [1.0, 1.0, 0.5, 0.1]
    """
    lr = _rate("inverse_sqrt", "lr", lr)
    return lambda t: lr / np.sqrt(np.maximum(t, 1))


@_schedule
def polynomial(lr: float, total: int, power: float, final: float = 0.0) -> Formula:
    """Let the rate fall along a power of the time that is left.

    lr(t) = final + (lr - final) * (1 - t / total)^power up to `total`, then final

    Parameters
    ----------
    lr : float
        The first rate, at least 0.
    total : int
        Steps until the rate is `final`, at least 1.
    power : float
        Above 0: 1 is a line. PyTorch's ``PolynomialLR`` with final 0.
    final : float, default 0.0
        The last rate, at least 0.

    {returns}

    References
    ----------
    Liu, Rabinovich, Berg: ParseNet (2015), section 4, "poly".

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedules.polynomial(1.0, total=4, power=2.0)(2)
    0.25
    """
    lr, total, final = _rate("polynomial", "lr", lr), _steps("polynomial", "total", total), _rate("polynomial", "final", final)
    power = number("polynomial: power", power, above=0)
    return lambda t: final + (lr - final) * (1 - _progress(t, total)) ** power


# How high a cycle stands at u of its 2 half-cycles: 0 at both ends, 1 in the middle.
_SHAPES: dict[str, Callable[[Steps], Steps]] = {
    "triangular": lambda u: 1 - np.abs(u - 1),
    "welch": lambda u: 1 - (u - 1) ** 2,
    "hann": lambda u: np.sin(np.pi * u / 2) ** 2,
}


@_schedule
def cyclical(
    base_lr: float,
    max_lr: float,
    step_size: int,
    shape: Literal["triangular", "welch", "hann"] = "triangular",
    decay: Literal["half"] | tuple[Literal["exp"], float] | None = None,
) -> Formula:
    """Let the rate go up and down between two bounds.

    lr(t) = base_lr + (max_lr - base_lr) * w(u) * d, u = t / step_size modulo 2

    | triangular: w = 1 - abs(u - 1);  welch: w = 1 - (u - 1)^2;  hann: w = sin(pi * u / 2)^2
    | d = 1;  half: 1 / 2^floor(t / (2 * step_size));  ("exp", gamma): gamma^t

    Parameters
    ----------
    base_lr, max_lr : float
        The bounds, at least 0.
    step_size : int
        Steps of half a cycle, at least 1; `iterations` gives those of some epochs.
    shape : str, default "triangular"
        "triangular", "welch" (a parabola) or "hann" (a wave).
    decay : "half" or ("exp", gamma), optional
        How cycles grow smaller: by half each, or by gamma, from 0 to 1, at every step. PyTorch's ``CyclicLR`` has these as
        mode "triangular2" and "exp_range". Default: they do not.

    {returns}

    References
    ----------
    Smith: Cyclical learning rates for training neural networks (WACV 2017), section 3.1.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [schedules.cyclical(0.0, 1.0, step_size=2, decay="half")(t) for t in range(8)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]
    """
    base_lr, max_lr = _rate("cyclical", "base_lr", base_lr), _rate("cyclical", "max_lr", max_lr)
    step_size = _steps("cyclical", "step_size", step_size)
    if shape not in _SHAPES:
        raise ValueError(f"cyclical: shape is {shape!r}, expected one of {', '.join(_SHAPES)}")
    window, gamma = _SHAPES[shape], 1.0
    if isinstance(decay, tuple | list) and len(decay) == 2 and decay[0] == "exp":
        gamma = number("cyclical: gamma of decay", decay[1], 0, 1)
    elif decay not in (None, "half"):
        raise ValueError(f"cyclical: decay is {decay!r}, expected None, 'half' or ('exp', gamma)")
    half = decay == "half"

    def rates(t: Steps) -> Any:
        height = (max_lr - base_lr) * window(np.mod(t / step_size, 2)) * gamma**t
        return base_lr + (height / 2 ** np.floor(t / (2 * step_size)) if half else height)

    return rates


_ANNEALS: dict[str, Callable[[Steps], Steps]] = {
    "cos": lambda share: (1 - np.cos(np.pi * share)) / 2,
    "linear": lambda share: share,
}


@_schedule
def one_cycle(
    max_lr: float,
    total: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Formula:
    """Let the rate rise to a peak and fall far below where it began, once.

    lr goes from max_lr / div_factor at t = 0 to max_lr, and to max_lr / (div_factor * final_div_factor) at t = total - 1

    As PyTorch's ``OneCycleLR`` without its cycle of the momentum.

    Parameters
    ----------
    max_lr : float
        The peak, at least 0.
    total : int
        All steps, at least 2; after the last the rate stays.
    pct_start : float, default 0.3
        The share of the steps in which the rate rises: its peak is at ``pct_start * total - 1``; above 0 and below 1.
    anneal_strategy : str, default "cos"
        "cos", along half a wave, or "linear".
    div_factor, final_div_factor : float, default 25.0 and 1e4
        Above 0.
    three_phase : bool, default False
        Whether the rate falls to where it began as fast as it rose, and only then to its end; pct_start is then at most 0.5.

    {returns}

    References
    ----------
    Smith, Topin: Super-convergence (2018), section 4.

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedule = schedules.one_cycle(1.0, total=10, div_factor=10)
    >>> [round(schedule(t), 6) for t in (0, 2, 9)]
    [0.1, 1.0, 1e-05]
    """
    max_lr, total = _rate("one_cycle", "max_lr", max_lr), _steps("one_cycle", "total", total, 2)
    pct_start = number("one_cycle: pct_start", pct_start, above=0)
    three_phase = switch("one_cycle: three_phase", three_phase)
    if pct_start >= 1 or (three_phase and pct_start > 0.5):
        raise ValueError(f"one_cycle: pct_start is {pct_start}, expected {'at most 0.5' if three_phase else 'less than 1'}")
    if anneal_strategy not in _ANNEALS:
        raise ValueError(f"one_cycle: anneal_strategy is {anneal_strategy!r}, expected one of {', '.join(_ANNEALS)}")
    anneal = _ANNEALS[anneal_strategy]
    first = max_lr / number("one_cycle: div_factor", div_factor, above=0)
    last = first / number("one_cycle: final_div_factor", final_div_factor, above=0)
    peak = pct_start * total - 1
    ends = [0.0, peak, 2 * peak, total - 1.0] if three_phase else [0.0, peak, total - 1.0]
    levels = [first, max_lr, first, last] if three_phase else [first, max_lr, last]

    def rates(t: Steps) -> Any:
        result = np.full(t.shape, last)
        for begin, end, low, high in reversed(list(zip(ends, ends[1:], levels, levels[1:], strict=False))):
            share = np.clip((t - begin) / (end - begin), 0, 1) if end > begin else np.ones(t.shape)
            result = np.where(t <= end, low + (high - low) * anneal(share), result)
        return result

    return rates


@_schedule
def cosine_restarts(lr: float, period: int, mult: int = 1, final: float = 0.0) -> Formula:
    """Let the rate fall along half a wave of the cosine, again and again.

    lr(t) = final + (lr - final) * (1 + cos(pi * u)) / 2, u being the share of the period at hand that is over

    As PyTorch's ``CosineAnnealingWarmRestarts(T_0=period, T_mult=mult, eta_min=final)``.

    Parameters
    ----------
    lr : float
        The rate at the begin of each period, at least 0.
    period : int
        Steps of the first period, at least 1.
    mult : int, default 1
        How many times as long each period is as the one before it, at least 1.
    final : float, default 0.0
        What the rate falls to, at least 0.

    {returns}

    References
    ----------
    Loshchilov, Hutter: SGDR (ICLR 2017), section 3, equation 5.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [round(schedules.cosine_restarts(1.0, period=2, mult=2)(t), 4) for t in range(7)]
    [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]
    """
    lr, final = _rate("cosine_restarts", "lr", lr), _rate("cosine_restarts", "final", final)
    period, mult = _steps("cosine_restarts", "period", period), _steps("cosine_restarts", "mult", mult)

    def rates(t: Steps) -> Any:
        begin, length, u = np.zeros(t.shape), np.full(t.shape, float(period)), np.mod(t, period) / period
        if mult > 1:
            for _ in range(int(math.log(t.max(initial=0) / period * (mult - 1) + 1, mult)) + 1):
                over = t >= begin + length
                begin, length = np.where(over, begin + length, begin), np.where(over, length * mult, length)
            u = (t - begin) / length
        return final + (lr - final) * (1 + np.cos(np.pi * u)) / 2

    return rates


def _part(function: str, name: str, schedule: Any) -> Callable[[Any], Any]:
    """Give a schedule within another as a function of an array of steps: one's own callable is called for each."""
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, Plateau) or not callable(schedule):
        raise TypeError(f"{function}: {name} is a {type(schedule).__name__}, expected a schedule, a callable t -> lr")
    return lambda t: np.array([float(schedule(int(step))) for step in t.ravel()], np.float64).reshape(t.shape)


@_schedule
def warmup(schedule: Callable[[int], float], steps: int, start: float = 0.0) -> Formula:
    """Let the rate rise along a line before a schedule begins.

    lr(t) = start + (schedule(0) - start) * t / steps for t < steps, then schedule(t - steps)

    As optax's ``join_schedules`` of a line and the schedule.

    Parameters
    ----------
    schedule : callable
        What follows.
    steps : int
        Steps of the rise, at least 1.
    start : float, default 0.0
        The first rate, at least 0.

    {returns}

    References
    ----------
    Goyal et al.: Accurate, large minibatch SGD (2017), section 2.2.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [schedules.warmup(schedules.linear(1.0, total=4), steps=2)(t) for t in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    after, steps, start = _part("warmup", "schedule", schedule), _steps("warmup", "steps", steps), _rate("warmup", "start", start)

    def rates(t: Steps) -> Any:
        peak = after(np.zeros(1, np.int64))[0]
        return np.where(t < steps, start + (peak - start) * t / steps, after(np.maximum(t - steps, 0).astype(np.int64)))

    return rates


@_schedule
def join(schedules: Mapping[int, Callable[[int], float]]) -> Formula:
    """Put schedules one after the other.

    lr(t) = schedules[s](t - s), s being the last step among them that is not after t

    Parameters
    ----------
    schedules : dict of callable by int
        Each with the step from which on it counts, from its own 0 again; 0 is among them.

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.3.1.

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedule = schedules.join({0: schedules.constant(1.0), 2: schedules.exponential(0.5, 0.0)})
    >>> schedule([0, 1, 2, 3])
    array([1. , 1. , 0.5, 0.5])
    """
    if not isinstance(schedules, Mapping):
        raise TypeError(f"join: schedules is a {type(schedules).__name__}, expected a dict of schedules by step")
    parts = {_steps("join", "a step", at, 0): _part("join", f"schedules[{at}]", part) for at, part in schedules.items()}
    if 0 not in parts:
        raise ValueError(
            f"join: schedules begin at {', '.join(map(str, sorted(parts))) or 'no step'}, expected one that begins at 0"
        )

    def rates(t: Steps) -> Any:
        result = np.zeros(t.shape)
        for at, part in sorted(parts.items()):
            result = np.where(t >= at, part(np.maximum(t - at, 0).astype(np.int64)), result)
        return result

    return rates


@_schedule
def deepseek(lr: float, total: int, warmup: int = 2000) -> Formula:
    """Warm up along a line, then fall in two steps towards the end.

    lr(t) = lr * t / warmup for t < warmup, then lr; from 80% of `total` on lr * 0.316, from 90% on lr * 0.316^2

    Parameters
    ----------
    lr : float
        The highest rate, at least 0.
    total : int
        All steps, at least 1.
    warmup : int, default 2000
        Steps of the rise, at least 1 and at most 80% of `total`.

    {returns}

    References
    ----------
    DeepSeek-AI: DeepSeek LLM (2024), section 2.3.

    Examples
    --------
    >>> from trainstep import schedules
    >>> [round(schedules.deepseek(1.0, total=10_000)(t), 4) for t in (0, 1000, 2000, 7999, 8000, 9000)]
    [0.0, 0.5, 1.0, 1.0, 0.316, 0.0999]
    """
    lr, total, warmup = _rate("deepseek", "lr", lr), _steps("deepseek", "total", total), _steps("deepseek", "warmup", warmup)
    if warmup > 0.8 * total:
        raise ValueError(f"deepseek: warmup is {warmup}, expected at most 80% of the {total} steps in total")
    falls = 0.316
    return lambda t: np.where(
        t < warmup, lr * t / warmup, lr * np.where(t >= 0.8 * total, falls, 1) * np.where(t >= 0.9 * total, falls, 1)
    )


class Plateau:
    """A rate that falls where a metric no longer improves: fed with it, after an epoch or whenever one will.

    lr <- max(lr * factor, min_lr) when the metric was no better than its best for more than `patience` calls of `step`

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    factor : float, default 0.1
        What the rate is multiplied by; at least 0, below 1.
    patience : int, default 10
        Calls without a better metric that are waited for.
    threshold : float, default 1e-4
        What counts as better: by this share of the best ("rel") or by so much ("abs"); at least 0.
    threshold_mode : str, default "rel"
        "rel" or "abs".
    mode : str, default "min"
        "min", where smaller is better, or "max".
    cooldown : int, default 0
        Calls after a fall in which nothing is counted.
    min_lr : float, default 0.0
        The smallest rate.
    eps : float, default 1e-8
        The rate stays where the fall would be no larger.
    monitor : str, optional
        What `Trainer.fit` gives it of each epoch, such as "accuracy". Default: "val_loss" where there is validation data, else
        "loss".

    Raises
    ------
    ValueError, TypeError
        Where an argument is out of its range or of a wrong type.

    References
    ----------
    He, Zhang, Ren, Sun: Deep residual learning for image recognition (CVPR 2016), section 3.4. As PyTorch's ``ReduceLROnPlateau``.

    Examples
    --------
    >>> from trainstep import schedules
    >>> plateau = schedules.Plateau(0.1, patience=1)
    >>> for loss in (1.0, 0.9, 0.9, 0.9):
    ...     plateau.step(loss)
    >>> round(plateau(0), 4)
    0.01
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        mode: Literal["min", "max"] = "min",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        monitor: str | None = None,
    ) -> None:
        self.lr = number("Plateau: lr", lr, above=0)
        self._factor = _rate("Plateau", "factor", factor)
        if self._factor >= 1:
            raise ValueError(f"Plateau: factor is {factor}, expected less than 1")
        self._patience, self._cooldown = _steps("Plateau", "patience", patience, 0), _steps("Plateau", "cooldown", cooldown, 0)
        self._threshold, self._min_lr = _rate("Plateau", "threshold", threshold), _rate("Plateau", "min_lr", min_lr)
        self._eps = _rate("Plateau", "eps", eps)
        for name, value, known in (("threshold_mode", threshold_mode, ("rel", "abs")), ("mode", mode, ("min", "max"))):
            if value not in known:
                raise ValueError(f"Plateau: {name} is {value!r}, expected {known[0]!r} or {known[1]!r}")
        self._relative, self._sign = threshold_mode == "rel", 1.0 if mode == "min" else -1.0
        if not isinstance(monitor, str | None):
            raise TypeError(f"Plateau: monitor is a {type(monitor).__name__}, expected a str such as 'val_loss' or None")
        self.monitor = monitor
        self._best, self._bad, self._waiting = math.inf, 0, 0  # the best so far, negated for "max"

    def __getstate__(self) -> dict[str, Any]:
        arguments = {
            "lr": self.lr,
            "factor": self._factor,
            "patience": self._patience,
            "threshold": self._threshold,
            "threshold_mode": "rel" if self._relative else "abs",
            "mode": "min" if self._sign > 0 else "max",
            "cooldown": self._cooldown,
            "min_lr": self._min_lr,
            "eps": self._eps,
            "monitor": self.monitor,
        }
        return {"arguments": arguments, "best": self._best, "bad": self._bad, "waiting": self._waiting}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]  # checks them
        self._best = state["best"] if state["best"] == math.inf else number("Plateau: best", state["best"])
        self._bad, self._waiting = integer("Plateau: bad", state["bad"], 0), integer("Plateau: waiting", state["waiting"], 0)

    def __call__(self, t: int) -> float:
        """Give the rate as it is, whatever t."""
        return self.lr

    def __repr__(self) -> str:
        return f"Plateau(lr={self.lr!r}, factor={self._factor!r}, patience={self._patience})"

    def step(self, metric: float) -> None:
        """Take in a metric: the rate falls where it is time.

        Parameters
        ----------
        metric : float
            Such as an epoch's loss; NaN is no better than anything.

        Raises
        ------
        TypeError
            Where metric is no number.

        Examples
        --------
        >>> from trainstep import schedules
        >>> plateau = schedules.Plateau(1.0, factor=0.5, patience=0)
        >>> plateau.step(3.0)
        >>> plateau.step(3.0)
        >>> plateau.lr
        0.5
        """
        if isinstance(metric, bool | str) or not isinstance(metric, int | float | np.number):
            raise TypeError(f"step: metric is a {type(metric).__name__}, expected a number")
        value = self._sign * float(metric)
        margin = self._threshold * abs(self._best) if self._relative and math.isfinite(self._best) else self._threshold
        if value < (self._best - margin if math.isfinite(self._best) else self._best):
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._waiting > 0:
            self._waiting, self._bad = self._waiting - 1, 0
        if self._bad > self._patience:
            lower = max(self.lr * self._factor, self._min_lr)
            if self.lr - lower > self._eps:
                self.lr = lower
            self._waiting, self._bad = self._cooldown, 0


def iterations(epochs: float, rows: int, batch_size: int, drop_last: bool = False) -> int:
    """Turn epochs into steps, for arguments such as ``step_size``, ``every`` or ``total``.

    steps = round(epochs * ceil(rows / batch_size)), or of floor with drop_last; at least 1

    Parameters
    ----------
    epochs : float
        Above 0.
    rows : int
        Of the data.
    batch_size : int
        Rows of a step.
    drop_last : bool, default False
        Whether a last batch that is smaller is left out.

    Returns
    -------
    steps : int

    Raises
    ------
    ValueError, TypeError
        Where an argument is out of its range or of a wrong type.

    References
    ----------
    Smith: Cyclical learning rates for training neural networks (WACV 2017), section 3.2.

    Examples
    --------
    >>> from trainstep import schedules
    >>> schedules.iterations(2, rows=1000, batch_size=64)
    32
    """
    epochs = number("iterations: epochs", epochs, above=0)
    rows, batch_size = integer("iterations: rows", rows, 1), integer("iterations: batch_size", batch_size, 1)
    each = rows // batch_size if switch("iterations: drop_last", drop_last) else -(-rows // batch_size)
    return max(1, round(epochs * each))
