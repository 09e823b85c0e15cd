"""Initial weights: ``f(shape, *, rng, dtype)`` gives an array of shape (fan_in, fan_out).

``rng`` is an int seed or a NumPy Generator, from which a seed is drawn; the numbers come from the core's Philox generator, so
they depend on neither the threads nor the ISA level.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainstep import _core
from trainstep._checks import float_dtype, integer

__all__ = [
    "for_activation",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Rng: TypeAlias = "int | np.random.Generator"  # text, so that importing this does not load numpy.random
Initializer = Callable[..., NDArray[Any]]


def _seed(rng: Rng) -> int:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(0, 2**64, dtype=np.uint64))
    try:
        return integer("rng", rng) % 2**64
    except TypeError as error:
        raise TypeError(f"{error} or a numpy.random.Generator") from None


def _empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    return np.empty(shape, float_dtype("dtype", dtype))


def _extents(shape: tuple[int, ...], wanted: str) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape is a {type(shape).__name__}, expected {wanted}")
    return tuple(integer(f"shape[{i}]", extent) for i, extent in enumerate(shape))


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    extents = _extents(shape, "(fan_in, fan_out)")
    if len(extents) != 2 or min(extents) < 1:
        raise ValueError(f"shape is {extents}, expected (fan_in, fan_out), both at least 1")
    return extents[0], extents[1]


_DOC = """Draw {distribution} weights of variance {variance}.

    w ~ {formula}

    {purpose}

    Parameters
    ----------
    shape : tuple of int
        (fan_in, fan_out).
    rng : int or numpy.random.Generator
        The seed, or where to draw one from.
    dtype : dtype, default "float32"
        float32 or float64.

    Returns
    -------
    w : ndarray, shape `shape`, dtype `dtype`

    Raises
    ------
    TypeError, ValueError
        Where an argument is of a wrong kind, or shape is not (fan_in, fan_out).

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
    name: str, value: Callable[[int, int], float], variance: str, purpose: str, sources: tuple[str, str]
) -> tuple[Initializer, Initializer]:
    """Make the normal and the uniform initialiser of a variance that depends on the fans."""

    def normal(shape: tuple[int, ...], *, rng: Rng, dtype: DTypeLike = "float32") -> NDArray[Any]:
        std = math.sqrt(value(*_fans(shape)))
        out = _empty(shape, dtype)
        _core.random_normal(out, _seed(rng), 0, std)
        return out

    def uniform(shape: tuple[int, ...], *, rng: Rng, dtype: DTypeLike = "float32") -> NDArray[Any]:
        limit = math.sqrt(3 * value(*_fans(shape)))  # the variance of U(-a, a) is a^2 / 3
        out = _empty(shape, dtype)
        _core.random_uniform(out, _seed(rng), 0, -limit, limit)
        return out

    formulas = (f"N(0, {variance})", f"U(-a, a), a^2 = 3 * {variance}")
    for function, formula, source in zip((normal, uniform), formulas, sources, strict=True):
        distribution = function.__name__
        function.__name__ = function.__qualname__ = f"{name}_{distribution}"
        function.__doc__ = _DOC.format(
            name=function.__name__, distribution=distribution, variance=variance, formula=formula, purpose=purpose, source=source
        )
    return normal, uniform


_GLOROT = "Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks (AISTATS 2010), equation "
_HE = "He, Zhang, Ren, Sun: Delving deep into rectifiers (ICCV 2015), equation 10."
_LECUN = "LeCun, Bottou, Orr, Müller: Efficient BackProp (1998), equation 16."

he_normal, he_uniform = _of_variance(
    "he",
    lambda fan_in, fan_out: 2 / fan_in,
    "2 / fan_in",
    "Keeps the variance of the signal through ReLU layers.",
    (_HE, _HE),
)
xavier_normal, xavier_uniform = _of_variance(
    "xavier",
    lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "2 / (fan_in + fan_out)",
    "Keeps the variance of signal and gradient through sigmoid and tanh layers.",
    (_GLOROT + "12.", _GLOROT + "16."),
)
lecun_normal, lecun_uniform = _of_variance(
    "lecun",
    lambda fan_in, fan_out: 1 / fan_in,
    "1 / fan_in",
    "Keeps the variance of the signal through linear layers.",
    (_LECUN, _LECUN),
)


def zeros(shape: tuple[int, ...], *, rng: "Rng | None" = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """Give zeros: for biases, and for the last layer of a residual branch.

    w = 0

    Never the default for weights: where all layers are constant, every unit of a layer gets the same gradient and stays the
    same.

    Parameters
    ----------
    shape : tuple of int
        Any shape.
    rng : int or numpy.random.Generator, optional
        Not used; there so that all initialisers are called alike.
    dtype : dtype, default "float32"
        float32 or float64.

    Returns
    -------
    w : ndarray, shape `shape`, dtype `dtype`

    Raises
    ------
    TypeError, ValueError
        Where dtype is neither float32 nor float64, or shape is no tuple of ints of at least 0.

    References
    ----------
    The definition.

    Examples
    --------
    >>> from trainstep import init
    >>> init.zeros((2,))
    array([0., 0.], dtype=float32)
    """
    extents = _extents(shape, "a tuple of ints")
    if min(extents, default=0) < 0:
        raise ValueError(f"shape is {extents}, expected extents of at least 0")
    out = _empty(extents, dtype)
    out[...] = 0
    return out


glorot_normal, glorot_uniform = xavier_normal, xavier_uniform
kaiming_normal, kaiming_uniform = he_normal, he_uniform

# The one list: what a layer's ``init="..."`` may name.
INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f for f in (zeros, he_normal, he_uniform, xavier_normal, xavier_uniform, lecun_normal, lecun_uniform)
} | {
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
}

# What suits an activation where a layer's ``init`` is not given.
_BY_ACTIVATION: dict[str | None, Initializer] = {"relu": he_normal}


def for_activation(activation: str | None) -> Initializer:
    """Choose the initialiser that suits an activation: He for ReLU, Xavier (Glorot) for the others.

    f(activation) = he_normal where activation = relu, xavier_uniform elsewhere

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
    He et al. (ICCV 2015), section 2.2; Glorot and Bengio (AISTATS 2010), section 4.2.

    Examples
    --------
    >>> from trainstep import init
    >>> init.for_activation("relu").__name__
    'he_normal'
    """
    if activation is not None and activation not in _core.activations:
        raise ValueError(f"for_activation: activation is {activation!r}, expected one of {', '.join(_core.activations)}")
    return _BY_ACTIVATION.get(activation, xavier_uniform)
