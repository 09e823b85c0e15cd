"""Initial weights: ``f(shape, *, rng, dtype)`` gives an array of shape (fan_in, fan_out).

Called with parameters but no shape, each gives the initialiser that has these parameters, for a layer's ``init``:
``Dense(64, 64, init=init.normal(std=0.02))``. By its name, ``init="normal"``, it has its defaults.

``rng`` is an int seed or a NumPy Generator, from which a seed is drawn; the numbers come from the core's Philox generator, so
they depend on neither the threads nor the ISA level.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeAlias, cast, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainstep import _core
from trainstep._checks import float_dtype, integer, number, switch

__all__ = [
    "constant",
    "for_activation",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "inverse_sqrt_normal",
    "inverse_sqrt_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Array = NDArray[Any]
Rng: TypeAlias = "int | np.random.Generator"  # text, so that importing this does not load numpy.random
Initializer = Callable[..., Array]
Fill = Callable[[Array, int], None]  # writes an array, given a seed
P = ParamSpec("P")

# What a layer's ``init="..."`` may name: every initialiser whose parameters have defaults. The decorator adds to both.
INITIALIZERS: dict[str, Initializer] = {}
# What has no defaults, and so is given as a callable.
WITHOUT_DEFAULTS: dict[str, Initializer] = {}


def _seed(rng: Rng) -> int:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(0, 2**64, dtype=np.uint64))
    try:
        return integer("rng", rng) % 2**64
    except TypeError as error:
        raise TypeError(f"{error} or a numpy.random.Generator") from None


def _extents(shape: tuple[int, ...], matrix: bool) -> tuple[int, ...]:
    wanted = "(fan_in, fan_out)" if matrix else "a tuple of ints"
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape is a {type(shape).__name__}, expected {wanted}")
    extents = tuple(integer(f"shape[{i}]", extent) for i, extent in enumerate(shape))
    if matrix and (len(extents) != 2 or min(extents) < 1):
        raise ValueError(f"shape is {extents}, expected (fan_in, fan_out), both at least 1")
    if min(extents, default=0) < 0:
        raise ValueError(f"shape is {extents}, expected extents of at least 0")
    return extents


@dataclass(frozen=True, repr=False)
class Bound:
    """An initialiser and its parameters: ``f(shape, *, rng, dtype)``. Equal to another with the same ones."""

    function: Initializer
    parameters: tuple[tuple[str, float], ...]

    def __call__(self, shape: tuple[int, ...], *, rng: "Rng | None" = None, dtype: DTypeLike = "float32") -> Array:
        """Give an array."""
        return self.function(shape, rng=rng, dtype=dtype, **dict(self.parameters))

    def __repr__(self) -> str:
        return f"init.{self.function.__name__}({', '.join(f'{name}={value!r}' for name, value in self.parameters)})"

    @property
    def _is_constant(self) -> bool:
        return is_constant(self.function)


class _Function(Protocol[P]):
    """An initialiser: with a shape it gives an array, with parameters alone itself with these parameters."""

    __name__: str

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Bound: ...
    @overload
    def __call__(
        self, shape: tuple[int, ...], *, rng: "Rng | None" = ..., dtype: DTypeLike = ..., **parameters: float
    ) -> Array: ...


class _OfGain(Protocol):
    """The same for one that has the parameter `gain`."""

    __name__: str

    @overload
    def __call__(self, *, gain: float = ...) -> Bound: ...
    @overload
    def __call__(self, shape: tuple[int, ...], *, rng: Rng, dtype: DTypeLike = ..., gain: float = ...) -> Array: ...


def is_constant(initializer: object) -> bool:
    """Tell whether an initialiser of this module gives all elements the same value."""
    return bool(getattr(initializer, "_is_constant", False))


def takes_any_shape(initializer: object) -> bool:
    """Tell whether an initialiser of this module needs no (fan_in, fan_out)."""
    return bool(getattr(initializer, "_takes_any_shape", False))


_SHAPES = {True: "(fan_in, fan_out), both at least 1.", False: "Any shape."}
_RNGS = {
    True: """rng : int or numpy.random.Generator
        The seed, or where to draw one from.""",
    False: """rng : int or numpy.random.Generator, optional
        Not used; there so that all initialisers are called alike.""",
}
# What all docstrings share. `{call}` stands where the parameters of the one at hand follow, `{returns}` behind them.
_CALL = """shape : tuple of int
        {shape} Left out, the result is this initialiser with the parameters given.
    {rng}
    dtype : dtype, default "float32"
        float32 or float64."""
_RETURNS = """Returns
    -------
    w : ndarray, shape `shape`, dtype `dtype`
        Without shape: a callable ``f(shape, *, rng, dtype)``, for a layer's ``init``.

    Raises
    ------
    TypeError, ValueError
        Where an argument is of a wrong kind or out of its range, or dtype cannot hold a number that is drawn."""


def _initializer(*, matrix: bool, random: bool) -> Callable[[Callable[P, Fill]], _Function[P]]:
    """Make an initialiser of a function that checks parameters and returns what fills an array.

    matrix: whether the shape must be (fan_in, fan_out); random: whether it needs a seed.
    """

    def decorate(formula: Callable[P, Fill]) -> _Function[P]:
        name, fill_of = formula.__name__, cast(Callable[..., Fill], formula)
        own = inspect.signature(formula)
        by_position = any(p.kind is p.POSITIONAL_OR_KEYWORD for p in own.parameters.values())

        def draw(shape: tuple[int, ...], *, rng: Any = None, dtype: DTypeLike = "float32", **parameters: Any) -> Array:
            fill = fill_of(**parameters)
            w = np.empty(_extents(shape, matrix), float_dtype("dtype", dtype))
            with np.errstate(over="ignore"):
                fill(w, _seed(rng) if random else 0)
            if not np.isfinite(w).all():
                raise ValueError(f"{name}: dtype is {w.dtype}, which cannot hold all that the parameters give")
            return w

        @functools.wraps(formula)
        def function(*args: Any, **options: Any) -> Any:
            has_shape = bool(args) and (isinstance(args[0], tuple | list) or not by_position)
            if has_shape or not options.keys().isdisjoint(("shape", "rng", "dtype")):
                return draw(*args, **options)
            fill_of(*args, **options)  # checks them
            bound = own.bind(*args, **options)
            bound.apply_defaults()
            plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in bound.arguments.items()}
            return Bound(function, tuple(plain.items()))

        shared = list(inspect.signature(draw).parameters.values())[:3]
        if random:
            shared[1] = shared[1].replace(default=inspect.Parameter.empty)
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own.parameters.values()]
        call = _CALL.format(shape=_SHAPES[matrix], rng=_RNGS[random])
        draw.__name__ = draw.__qualname__ = name  # what Python's own messages call it
        function.__doc__ = (formula.__doc__ or "").replace("{call}", call).replace("{returns}", _RETURNS)
        result = cast(Any, function)
        result.__signature__ = inspect.Signature([*shared, *parameters], return_annotation=Array)
        result._is_constant, result._takes_any_shape = not (matrix or random), not matrix
        has_defaults = all(p.default is not p.empty for p in parameters)
        (INITIALIZERS if has_defaults else WITHOUT_DEFAULTS)[name] = result
        return cast(_Function[P], result)

    return decorate


# --- constants -----------------------------------------------------------------------------------------------------------------


@_initializer(matrix=False, random=False)
def zeros() -> Fill:
    """Give zeros: for biases, and for the last layer of a residual branch.

    w = 0

    Never the default for weights: where all layers are constant, every unit of a layer gets the same gradient and stays the
    same. So a hidden layer takes it only by its name, ``init="zeros"``.

    Parameters
    ----------
    {call}

    {returns}

    References
    ----------
    The definition.

    Examples
    --------
    >>> from trainstep import init
    >>> init.zeros((2,))
    array([0., 0.], dtype=float32)
    """
    return lambda w, seed: w.fill(0)


@_initializer(matrix=False, random=False)
def ones() -> Fill:
    """Give ones: for the scale of a normalisation.

    w = 1

    The weights of a hidden layer take it only by its name, ``init="ones"``: see `zeros`.

    Parameters
    ----------
    {call}

    {returns}

    References
    ----------
    The definition.

    Examples
    --------
    >>> from trainstep import init
    >>> init.ones((2,))
    array([1., 1.], dtype=float32)
    """
    return lambda w, seed: w.fill(1)


@_initializer(matrix=False, random=False)
def constant(c: float) -> Fill:
    """Give one number everywhere: for biases, such as 0.01 against dead ReLUs.

    w = c

    The weights of a hidden layer do not take it: see `zeros`.

    Parameters
    ----------
    {call}
    c : float
        The number.

    {returns}

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.4.

    Examples
    --------
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2, activation="relu", bias_init=ts.init.constant(0.25)))
    >>> model.parameters()["0.bias"]
    array([0.25, 0.25], dtype=float32)
    """
    value = number("constant: c", c)
    return lambda w, seed: w.fill(value)


@_initializer(matrix=True, random=False)
def identity(*, gain: float = 1.0) -> Fill:
    """Give the identity, times a number: every layer begins by passing on what it gets.

    w_ij = gain * (i == j)

    A matrix that is not square passes on as many features as fit, and 0 for the others.

    Parameters
    ----------
    {call}
    gain : float, default 1
        The number on the diagonal, above 0.

    {returns}

    References
    ----------
    Le, Jaitly, Hinton: A simple way to initialize recurrent networks of rectified linear units (arXiv 1504.00941), section 2.

    Examples
    --------
    >>> from trainstep import init
    >>> init.identity((2, 3))
    array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    value = number("identity: gain", gain, above=0)

    def fill(w: Array, seed: int) -> None:
        w.fill(0)
        np.fill_diagonal(w, value)

    return fill


# --- a distribution of its own width -------------------------------------------------------------------------------------------


@_initializer(matrix=False, random=True)
def normal(std: float = 0.01) -> Fill:
    """Draw normal numbers of one standard deviation, whatever the width of the layer.

    w ~ N(0, std^2)

    At the default the signal of a deep network fades from layer to layer, at 1 its tanh units saturate: He and Xavier follow the
    width. It suits a last layer, whose loss then begins near that of equal probabilities.

    Parameters
    ----------
    {call}
    std : float, default 0.01
        The standard deviation, above 0.

    {returns}

    References
    ----------
    Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks (NIPS 2012), section 5.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.normal(std=0.02)((400, 200), rng=0)
    >>> bool(abs(w.std() / 0.02 - 1) < 0.01)
    True
    """
    std = number("normal: std", std, above=0)
    return lambda w, seed: _core.random_normal(w, seed, 0, std)


@_initializer(matrix=False, random=True)
def uniform(low: float, high: float) -> Fill:
    """Draw numbers that are equally likely anywhere between two bounds.

    w ~ U(low, high)

    Parameters
    ----------
    {call}
    low, high : float
        The bounds, low below high. Rounded to dtype, a number may be either of them.

    {returns}

    References
    ----------
    The definition.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.uniform(-0.5, 0.5)((400, 200), rng=0)
    >>> bool(abs(w).max() <= 0.5)
    True
    """
    low, high = number("uniform: low", low), number("uniform: high", high)
    if not low < high:
        raise ValueError(f"uniform: low is {low:g}, high is {high:g}, expected low < high")
    return lambda w, seed: _core.random_uniform(w, seed, 0, low, high)


_LEAST_MASS = 0.01  # a number is drawn until it is within the bounds: 100 times, on average, where they hold so much


@_initializer(matrix=False, random=True)
def truncated_normal(std: float = 0.01, low: float = -2.0, high: float = 2.0, *, corrected: bool = False) -> Fill:
    """Draw normal numbers, without those far from 0.

    w = std * z, z ~ N(0, 1) given low <= z <= high

    Cutting the tails off makes the spread smaller: at the default bounds the standard deviation of w is 0.8796 std. With
    ``corrected=True`` it is std itself.

    Parameters
    ----------
    {call}
    std : float, default 0.01
        The standard deviation, above 0: of the normal distribution before it is cut, or of w where `corrected`.
    low, high : float, default -2 and 2
        The bounds of z. Between them must lie a hundredth of the normal distribution or more. (PyTorch's ``a`` and ``b`` are
        bounds of w: ``low = a / std``.)
    corrected : bool, default False
        Whether w = std / s * z, s being the standard deviation of z.

    {returns}

    References
    ----------
    Johnson, Kotz, Balakrishnan: Continuous univariate distributions (2nd edition, 1994), volume 1, chapter 13, section 10.1.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.truncated_normal(std=0.02)((400, 200), rng=0)
    >>> bool(abs(w).max() <= 0.04)
    True
    >>> w = init.truncated_normal(std=0.02, corrected=True)((400, 200), rng=0)
    >>> bool(abs(w.std() / 0.02 - 1) < 0.01)
    True
    """
    std = number("truncated_normal: std", std, above=0)
    low, high = number("truncated_normal: low", low), number("truncated_normal: high", high)
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if not mass >= _LEAST_MASS:
        raise ValueError(
            f"truncated_normal: low is {low:g}, high is {high:g}, expected bounds with at least {_LEAST_MASS:g} of the normal "
            f"distribution between them, these have {max(mass, 0):.2g}"
        )
    if switch("truncated_normal: corrected", corrected):
        # The mean of z is (d(low) - d(high)) / mass, d being the density.
        at_low, at_high = (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / mass for z in (low, high))
        std /= math.sqrt(1 + low * at_low - high * at_high - (at_low - at_high) ** 2)

    def fill(w: Array, seed: int) -> None:
        z = np.empty(w.size)
        _core.random_normal(z, seed, 0, 1.0)
        outside = np.flatnonzero((z < low) | (z > high))
        stream = 0
        while outside.size:
            stream += 1
            again = np.empty(outside.size)
            _core.random_normal(again, seed, stream, 1.0)
            z[outside] = again
            outside = outside[(again < low) | (again > high)]
        w[...] = (std * z).reshape(w.shape)

    return fill


# --- a variance that follows the width -----------------------------------------------------------------------------------------

_DOC = """Draw {distribution} weights of variance {variance}.

    w ~ {formula}

    {purpose}

    Parameters
    ----------
    {{call}}
    gain : float, default {default}
        Above 0; the variance is {general}. The function `gain` gives that of an activation.

    {{returns}}

    References
    ----------
    {source}

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.{name}((400, 200), rng=0)
    >>> fan_in, fan_out = w.shape
    >>> bool(abs(w.var() / ({variance}) - 1) < 0.02)
    True
    """


def _of_variance(
    name: str,
    value: Callable[[int, int], float],
    variance: str,
    purpose: str,
    sources: tuple[str, str],
    *,
    general: str,
    usual_gain: float = 1.0,
    default: str = "1",
) -> tuple[_OfGain, _OfGain]:
    """Make the normal and the uniform initialiser of a variance that depends on the fans.

    variance: in words, at the usual gain, which `default` writes; general: at any.
    """

    # The usual gain cancels: 2 / fan_in is rounded once.
    def normal(*, gain: float = usual_gain) -> Fill:
        factor = (number(f"{name}_normal: gain", gain, above=0) / usual_gain) ** 2
        return lambda w, seed: _core.random_normal(w, seed, 0, math.sqrt(value(*w.shape) * factor))

    def uniform(*, gain: float = usual_gain) -> Fill:
        factor = (number(f"{name}_uniform: gain", gain, above=0) / usual_gain) ** 2

        def fill(w: Array, seed: int) -> None:
            limit = math.sqrt(3 * value(*w.shape) * factor)  # the variance of U(-a, a) is a^2 / 3
            _core.random_uniform(w, seed, 0, -limit, limit)

        return fill

    formulas = (f"N(0, {variance})", f"U(-a, a), a^2 = 3 * {variance}")
    for function, formula, source in zip((normal, uniform), formulas, sources, strict=True):
        distribution = function.__name__
        function.__name__ = function.__qualname__ = f"{name}_{distribution}"
        function.__doc__ = _DOC.format(
            name=function.__name__,
            distribution=distribution,
            variance=variance,
            general=general,
            default=default,
            formula=formula,
            purpose=purpose,
            source=source,
        )
    decorate = _initializer(matrix=True, random=True)
    return decorate(normal), decorate(uniform)


_GLOROT = "Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks (AISTATS 2010), equation "
_HE = "He, Zhang, Ren, Sun: Delving deep into rectifiers (ICCV 2015), equation 10."
_LECUN = "LeCun, Bottou, Orr, Müller: Efficient BackProp (1998), equation 16."

he_normal, he_uniform = _of_variance(
    "he",
    lambda fan_in, fan_out: 2 / fan_in,
    "2 / fan_in",
    "Keeps the variance of the signal through ReLU layers.",
    (_HE, _HE),
    general="gain^2 / fan_in",
    usual_gain=math.sqrt(2),
    default="sqrt(2)",
)
xavier_normal, xavier_uniform = _of_variance(
    "xavier",
    lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "2 / (fan_in + fan_out)",
    "Keeps the variance of signal and gradient through sigmoid and tanh layers.",
    (_GLOROT + "12.", _GLOROT + "16."),
    general="2 gain^2 / (fan_in + fan_out)",
)
lecun_normal, lecun_uniform = _of_variance(
    "lecun",
    lambda fan_in, fan_out: 1 / fan_in,
    "1 / fan_in",
    "Keeps the variance of the signal through linear layers.",
    (_LECUN, _LECUN),
    general="gain^2 / fan_in",
)


@_initializer(matrix=True, random=True)
def inverse_sqrt_normal() -> Fill:
    """Draw standard normal numbers, divided by the square root of the number of inputs.

    w = z / sqrt(fan_in), z ~ N(0, 1)

    The same numbers as `lecun_normal`, under the name of its formula.

    Parameters
    ----------
    {call}

    {returns}

    References
    ----------
    LeCun, Bottou, Orr, Müller: Efficient BackProp (1998), equation 16.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.inverse_sqrt_normal((400, 200), rng=0)
    >>> bool(abs(w.std() * 400**0.5 - 1) < 0.01)
    True
    """
    return lambda w, seed: _core.random_normal(w, seed, 0, math.sqrt(1 / w.shape[0]))


@_initializer(matrix=True, random=True)
def inverse_sqrt_uniform() -> Fill:
    """Draw numbers equally likely within the inverse square root of the number of inputs.

    w ~ U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))

    PyTorch's default for linear layers. Its variance, 1 / (3 fan_in), is a third of what keeps that of the signal.

    Parameters
    ----------
    {call}

    {returns}

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks (AISTATS 2010), equation 1.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.inverse_sqrt_uniform((400, 200), rng=0)
    >>> bool(abs(w).max() <= 0.05)
    True
    """

    def fill(w: Array, seed: int) -> None:
        limit = math.sqrt(1 / w.shape[0])
        _core.random_uniform(w, seed, 0, -limit, limit)

    return fill


# --- a structure ---------------------------------------------------------------------------------------------------------------


@_initializer(matrix=True, random=True)
def orthogonal(*, gain: float = 1.0) -> Fill:
    """Draw a matrix whose columns, or rows where they are fewer, are orthonormal, times a number.

    w^T w = gain^2 I, or w w^T = gain^2 I where fan_in < fan_out; all such matrices equally likely

    Q of the QR decomposition of a matrix of standard normal numbers, with the signs that make R's diagonal positive. NumPy
    decomposes, in float64: the last bits depend on its LAPACK.

    Parameters
    ----------
    {call}
    gain : float, default 1
        The singular values of w, above 0. The function `gain` gives that of an activation.

    {returns}

    References
    ----------
    Saxe, McClelland, Ganguli: Exact solutions to the nonlinear dynamics of learning in deep linear neural networks (ICLR 2014),
    section 2. Mezzadri: How to generate random matrices from the classical compact groups (Notices of the AMS 54, 2007),
    section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep import init
    >>> w = init.orthogonal((40, 20), rng=0, gain=2.0, dtype="float64")
    >>> bool(np.allclose(w.T @ w, 4 * np.eye(20)))
    True
    """
    value = number("orthogonal: gain", gain, above=0)

    def fill(w: Array, seed: int) -> None:
        tall = np.empty((max(w.shape), min(w.shape)))
        _core.random_normal(tall, seed, 0, 1.0)
        q, r = np.linalg.qr(tall)
        q *= np.copysign(value, np.diagonal(r))
        w[...] = q if q.shape == w.shape else q.T

    return fill


@_initializer(matrix=True, random=True)
def sparse(sparsity: float = 0.9, std: float = 0.01) -> Fill:
    """Draw normal weights, and set the same share of each unit's to zero.

    w_ij ~ N(0, std^2), and ceil(sparsity * fan_in) elements of each column, drawn at random, are 0

    At least one element of a column stays.

    Parameters
    ----------
    {call}
    sparsity : float, default 0.9
        The share of zeros, at least 0 and below 1.
    std : float, default 0.01
        The standard deviation of the others, above 0.

    {returns}

    References
    ----------
    Martens: Deep learning via Hessian-free optimization (ICML 2010), section 5.

    Examples
    --------
    >>> from trainstep import init
    >>> w = init.sparse(sparsity=0.8)((10, 4), rng=0)
    >>> (w == 0).sum(axis=0)
    array([8, 8, 8, 8])
    """
    share, std = number("sparse: sparsity", sparsity), number("sparse: std", std, above=0)
    if not 0 <= share < 1:
        raise ValueError(f"sparse: sparsity is {share:g}, expected at least 0 and below 1")

    def fill(w: Array, seed: int) -> None:
        fan_in = len(w)
        # Rounded first: 0.07 * 100 is a little more than 7.
        zeros = min(math.ceil(round(share * fan_in, 6)), fan_in - 1)
        _core.random_normal(w, seed, 0, std)
        rank = np.empty(w.shape)
        _core.random_uniform(rank, seed, 1, 0.0, 1.0)
        np.put_along_axis(w, np.argpartition(rank, zeros, axis=0)[:zeros], 0, axis=0)

    return fill


glorot_normal, glorot_uniform = xavier_normal, xavier_uniform
kaiming_normal, kaiming_uniform = he_normal, he_uniform
INITIALIZERS |= {
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
}

# --- activations ---------------------------------------------------------------------------------------------------------------

# What suits an activation where a layer's ``init`` is not given, and it is not Xavier.
_BY_ACTIVATION: dict[str | None, Initializer] = {
    "relu": he_normal,
    "leaky_relu": he_normal,
    "elu": he_normal,
    "gelu": he_normal,
    "gelu_tanh": he_normal,
    "silu": he_normal,
    "hardswish": he_normal,
    "mish": he_normal,
    "selu": lecun_normal,
}

# What makes up for what an activation takes from the signal. Below the line: 1 / sqrt(E[f(z)^2]), z ~ N(0, 1), as sqrt(2) is for
# ReLU; integrated numerically.
_GAINS: dict[str | None, float] = {
    None: 1.0,
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "softmax": 1.0,
    "log_softmax": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
    # ---
    "elu": 1.245198,
    "gelu": 1.533530,
    "gelu_tanh": 1.533581,
    "silu": 1.676532,
    "softplus": 1.041867,
    "hardtanh": 1.392036,
    "hardsigmoid": 1.897840,
    "hardswish": 1.736657,
    "mish": 1.486848,
}


def gain(activation: str | None, negative_slope: float = 0.01) -> float:
    """Give what weights of variance 1 / fan_in are multiplied by, so that an activation keeps the size of the signal.

    identity, sigmoid, softmax, log_softmax 1; tanh 5/3; relu sqrt(2); leaky_relu sqrt(2 / (1 + negative_slope^2)); selu 3/4;
    others 1 / sqrt(E[f(z)^2]), z ~ N(0, 1)

    The first are the field's, as in PyTorch; of them relu's and leaky_relu's are 1 / sqrt(E[f(z)^2]) too. sigmoid's makes up
    for nothing. selu's trades the normalisation it was made for, which asks for 1, for steadier gradients.

    Parameters
    ----------
    activation : str or None
        The name of an activation; ``"linear"`` and None are the identity.
    negative_slope : float, default 0.01
        The slope of leaky_relu below 0; not used for others.

    Returns
    -------
    gain : float
        For the ``gain`` of `he_normal`, `xavier_normal`, `lecun_normal`, their uniform kin and `orthogonal`.

    Raises
    ------
    ValueError
        Where activation is not known, or negative_slope is not finite.
    TypeError
        Where negative_slope is no number.

    References
    ----------
    He, Zhang, Ren, Sun: Delving deep into rectifiers (ICCV 2015), equations 8 to 10 and 15, with f for the rectifier.
    Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks (NIPS 2017), for selu.

    Examples
    --------
    >>> from trainstep import init
    >>> init.gain("leaky_relu", 0.2)
    1.3867504905630728
    >>> w = init.xavier_normal((64, 64), rng=0, gain=init.gain("tanh"))
    """
    slope = number("gain: negative_slope", negative_slope)
    if activation == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if activation is not None and not isinstance(activation, str) or activation not in _GAINS:
        names = sorted([*filter(None, _GAINS), "leaky_relu"])
        raise ValueError(f"gain: activation is {activation!r}, expected one of {', '.join(names)}")
    return _GAINS[activation]


def for_activation(activation: str | None) -> Initializer:
    """Choose the initialiser that suits an activation: He for ReLU and its kin, LeCun for selu, Xavier (Glorot) for the others.

    f(activation) = he_normal for relu, leaky_relu, elu, gelu, gelu_tanh, silu, hardswish and mish; lecun_normal for selu;
    xavier_uniform elsewhere

    Parameters
    ----------
    activation : str or None
        The layer's activation.

    Returns
    -------
    f : callable
        An initialiser of this module.

    Raises
    ------
    ValueError
        Where activation is not known.

    References
    ----------
    He et al. (ICCV 2015), section 2.2; Klambauer et al. (NIPS 2017), section 4; Glorot and Bengio (AISTATS 2010), section 4.2.

    Examples
    --------
    >>> from trainstep import init
    >>> init.for_activation("relu").__name__
    'he_normal'
    """
    if activation is not None and activation not in _core.activations:
        raise ValueError(f"for_activation: activation is {activation!r}, expected one of {', '.join(_core.activations)}")
    return _BY_ACTIVATION.get(activation, xavier_uniform)
