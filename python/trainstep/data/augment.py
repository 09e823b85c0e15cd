"""Transforms of a batch that make new training data of old: flips, crops, scales, rotations, holes, noise, mixtures.

A list of them is given to `Batches`. Images have shape (rows, height, width) or (rows, height, width, channels). Every random
number is a function of (seed, epoch, sample, the transform's place in the list) and of nothing else: the size and the order of
batches, threads, and a run that was stopped and goes on, do not change what a sample becomes. (`Mixup` says what it needs besides.)
Flips, crops and holes move values and keep the dtype; the others give float64 of float64 and float32 of all else.

A transform of one's own is a function ``(x, y, draws) -> (x, y)`` that takes its random numbers from `Draws`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trainstep import _core
from trainstep._checks import integer, number
from trainstep.data.labels import rows_of

Array = npt.NDArray[Any]

__all__ = [
    "Cutout",
    "Draws",
    "GaussianNoise",
    "HorizontalFlip",
    "Mixup",
    "RandomCrop",
    "RandomRotation",
    "RandomScale",
    "Transform",
    "VerticalFlip",
]

_MOST_PIXELS = 2**31 - 1


class Draws:
    """The random numbers of some samples: each sample's are its own.

    Asked twice, it gives the same numbers again. Uniform and normal numbers are independent.

    Parameters
    ----------
    samples : array_like of int, shape (n,)
        Which rows of the data a batch holds, from 0.
    seed : int, default 0
        What all numbers follow from.
    epoch : int, default 0
        From 0.
    place : int, default 0
        Where in its list the transform stands, 0 to 255.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 3.3.

    Examples
    --------
    >>> from trainstep.data.augment import Draws
    >>> together, alone = Draws([4, 7, 2]).uniform(5), Draws([7]).uniform(5)
    >>> bool((together[1] == alone[0]).all())
    True
    """

    def __init__(self, samples: npt.ArrayLike, seed: int = 0, epoch: int = 0, place: int = 0) -> None:
        indices = np.asarray(samples)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"Draws: samples has dtype {indices.dtype}, expected integers")
        if indices.ndim != 1:
            raise ValueError(f"Draws: samples has shape {indices.shape}, expected (n,)")
        self._samples: npt.NDArray[np.int64] = indices.astype(np.int64, copy=False)
        self._key = (
            integer("Draws: seed", seed) % 2**64,
            integer("Draws: epoch", epoch, 0, 2**32 - 1),
            integer("Draws: place", place, 0, 255),
        )

    @property
    def seed(self) -> int:
        """What all numbers follow from, modulo 2^64."""
        return self._key[0]

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return self._key[1]

    @property
    def place(self) -> int:
        """Where in its list the transform stands."""
        return self._key[2]

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Which rows of the data the batch holds."""
        return self._samples

    def uniform(self, k: int) -> npt.NDArray[np.float64]:
        """Give the first k uniform numbers of each sample.

        Parameters
        ----------
        k : int
            At least 0.

        Returns
        -------
        u : ndarray, shape (n, k), float64
            In (0, 1), 52 bits each.

        Raises
        ------
        TypeError, ValueError
            k is no int or out of its range.

        Examples
        --------
        >>> from trainstep.data.augment import Draws
        >>> Draws([0, 1]).uniform(3).shape
        (2, 3)
        """
        return _core.sample_uniform(self._samples, integer("Draws.uniform: k", k, 0, _MOST_PIXELS), *self._key)

    def normal(self, k: int) -> npt.NDArray[np.float64]:
        """Give the first k normal numbers of each sample.

        Parameters
        ----------
        k : int
            At least 0.

        Returns
        -------
        z : ndarray, shape (n, k), float64
            With mean 0 and variance 1, the resolution of float32, and an absolute value below 6.67.

        Raises
        ------
        TypeError, ValueError
            k is no int or out of its range.

        Examples
        --------
        >>> from trainstep.data.augment import Draws
        >>> Draws([0, 1]).normal(3).shape
        (2, 3)
        """
        z = np.zeros((len(self._samples), integer("Draws.normal: k", k, 0, _MOST_PIXELS)))
        _core.sample_noise(z, self._samples, 1.0, *self._key)
        return z

    def _beta(self, alpha: float) -> npt.NDArray[np.float64]:
        """Give one number of the distribution beta(alpha, alpha) for each sample: a function of its first two uniform ones."""
        return _core.sample_beta(self._samples, alpha, *self._key)

    def _add_noise(self, x: Array, std: float) -> None:
        _core.sample_noise(x, self._samples, std, *self._key)


@dataclass(frozen=True)
class Transform:
    """What the transforms have in common: they are called with a batch, and leave it as it was.

    Examples
    --------
    A transform of one's own that is a class: brighter or darker by up to a tenth.

    >>> import numpy as np
    >>> import trainstep as ts
    >>> class Brightness(ts.data.augment.Transform):
    ...     def __call__(self, x, y, draws):
    ...         factor = 0.9 + 0.2 * draws.uniform(1)
    ...         return (x * factor.reshape(-1, *[1] * (x.ndim - 1))).astype(x.dtype), y
    >>> batches = ts.data.Batches(np.ones((4, 2, 2)), augment=[Brightness()])
    >>> ((x,),) = batches
    >>> bool((abs(x - 1) <= 0.1).all())
    True
    """

    _of_images: ClassVar[bool] = True

    def __call__(self, x: Array, y: Array | None, draws: Draws) -> tuple[Array, Array | None]:
        """Transform a batch.

        Parameters
        ----------
        x : ndarray
            Images, (rows, height, width) or (rows, height, width, channels); of any shape where nothing is moved.
        y : ndarray, optional
            Labels or targets of the rows.
        draws : Draws
            The random numbers of the rows.

        Returns
        -------
        x, y : ndarray
            New arrays, or what was given where nothing is changed.

        Raises
        ------
        TypeError, ValueError
            x or y is of a shape or dtype that the transform is not for.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data.augment import Draws, HorizontalFlip
        >>> images = np.arange(4).reshape(1, 2, 2)
        >>> x, y = HorizontalFlip(p=1.0)(images, None, Draws([0]))
        >>> x[0]
        array([[1, 0],
               [3, 2]])
        """
        name = type(self).__name__
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{name}: x is a {type(x).__name__}, expected a NumPy array")
        if self._of_images and (x.ndim not in (3, 4) or 0 in x.shape[1:]):
            raise ValueError(
                f"{name}: x has shape {x.shape}, expected images (rows, height, width) or (rows, height, width, channels); rows of "
                f"columns become images by the shape that Batches takes"
            )
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{name}: x has dtype {x.dtype}, expected a real dtype")
        if x.ndim == 0 or len(x) != len(draws.samples):
            raise ValueError(f"{name}: x has shape {x.shape}, expected {len(draws.samples)} rows, as draws has samples")
        return self._apply(x, y, draws)

    def _apply(self, x: Array, y: Array | None, draws: Draws) -> tuple[Array, Array | None]:
        return self._moved(x, draws), y

    def _moved(self, x: Array, draws: Draws) -> Array:
        raise NotImplementedError


def _floats(x: Array) -> Array:
    """Return a copy in C order: float64 of float64 (and wider), else float32."""
    return x.astype(np.float64 if x.dtype.kind == "f" and x.dtype.itemsize >= 8 else np.float32, order="C")


def _fill(name: str, fill: float, dtype: np.dtype[Any]) -> Array:
    """Give the value of what is not in the image, which x's dtype must be able to hold."""
    if dtype.kind != "f" and not (fill == int(fill) and _lowest(dtype) <= fill <= _highest(dtype)):
        raise ValueError(f"{name}: fill is {fill:g}, expected a value of x's dtype {dtype}")
    return np.array(fill, dtype) if dtype.kind == "f" else np.array(int(fill), dtype)


def _lowest(dtype: np.dtype[Any]) -> int:
    return 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


def _highest(dtype: np.dtype[Any]) -> int:
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


def _below(u: Array, n: Any) -> npt.NDArray[np.int64]:
    """Turn uniform numbers into whole ones from 0 to n - 1."""
    # u * n of the u next to 1 may round to n.
    result: npt.NDArray[np.int64] = np.minimum((u * n).astype(np.int64), n - 1)
    return result


def _pair(where: str, value: Any, low: int) -> tuple[int, int]:
    """Give a number of pixels down and to the right; one number is both."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{where} is {value!r}, expected an int or two: down and to the right")
        first, second = (integer(f"{where}[{i}]", v, low, _MOST_PIXELS) for i, v in enumerate(value))
        return first, second
    both = integer(where, value, low, _MOST_PIXELS)
    return both, both


@dataclass(frozen=True)
class _Flip(Transform):
    p: float = 0.5

    _axis: ClassVar[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", number(f"{type(self).__name__}: p", self.p, 0, 1))

    def _moved(self, x: Array, draws: Draws) -> Array:
        chosen = np.flatnonzero(draws.uniform(1)[:, 0] < self.p)
        result = x.copy()
        result[chosen] = np.flip(x[chosen], self._axis)
        return result


@dataclass(frozen=True)
class HorizontalFlip(_Flip):
    """Mirror images left to right, each with probability p.

    Parameters
    ----------
    p : float, default 0.5
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        p is no number or out of its range.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. E. Hinton, ImageNet classification with deep convolutional neural networks (NIPS 2012),
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, HorizontalFlip
    >>> HorizontalFlip(p=1.0)(np.array([[[1, 2, 3]]]), None, Draws([0]))[0].tolist()
    [[[3, 2, 1]]]
    """

    _axis = 2


@dataclass(frozen=True)
class VerticalFlip(_Flip):
    """Mirror images top to bottom, each with probability p.

    Parameters
    ----------
    p : float, default 0.5
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        p is no number or out of its range.

    References
    ----------
    C. Shorten, T. M. Khoshgoftaar, A survey on image data augmentation for deep learning (Journal of Big Data 6, 2019), "Flipping".

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, VerticalFlip
    >>> VerticalFlip(p=1.0)(np.array([[[1, 2], [3, 4]]]), None, Draws([0]))[0].tolist()
    [[[3, 4], [1, 2]]]
    """

    _axis = 1


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Pad images on all sides, and crop them back to their size at a random place: a shift by whole pixels.

    y[r, c] = x[r + down, c + right], down and right uniform on -padding ... padding

    Parameters
    ----------
    padding : int or (int, int)
        Pixels on each side; or above and below, and on the left and the right. At least 0.
    fill : float, default 0
        What the padding holds; of x's dtype.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range; when called: fill is not of x's dtype.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition (CVPR 2016), section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, RandomCrop
    >>> x = np.arange(1, 10, dtype="uint8").reshape(1, 3, 3)
    >>> RandomCrop(1)(x, None, Draws([0], seed=1))[0].shape
    (1, 3, 3)
    """

    padding: int | tuple[int, int]
    fill: float = 0.0

    def __post_init__(self) -> None:
        _pair("RandomCrop: padding", self.padding, 0)
        number("RandomCrop: fill", self.fill)

    def _moved(self, x: Array, draws: Draws) -> Array:
        padding = np.array(_pair("RandomCrop: padding", self.padding, 0))
        shift = _below(draws.uniform(2), 2 * padding + 1) - padding
        images = x if x.ndim == 4 else x[..., None]
        pixel = np.full(images.shape[3], _fill("RandomCrop", self.fill, x.dtype))
        return _core.shift_images(images, shift[:, 0], shift[:, 1], pixel).reshape(x.shape)


@dataclass(frozen=True)
class RandomScale(Transform):
    """Make what the images show larger or smaller about their centre, by a factor uniform on low ... high.

    A pixel has the value at the place that it comes from, between the four pixels around it (bilinear); fill lies around the image.

    Parameters
    ----------
    low, high : float
        The factors: above 0, low at most high. 2 is twice as large.
    fill : float, default 0
        What lies around the image.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range.

    References
    ----------
    P. Y. Simard, D. Steinkraus, J. C. Platt, Best practices for convolutional neural networks applied to visual document analysis
    (ICDAR 2003), section 2: displacement fields and bilinear interpolation.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, RandomScale
    >>> RandomScale(2.0, 2.0)(np.eye(4)[None], None, Draws([0]))[0][0, 1]
    array([0.5625, 0.625 , 0.375 , 0.1875])
    """

    low: float
    high: float
    fill: float = 0.0

    def __post_init__(self) -> None:
        low = number("RandomScale: low", self.low, above=0)
        number("RandomScale: high", self.high, low)
        number("RandomScale: fill", self.fill)

    def _moved(self, x: Array, draws: Draws) -> Array:
        u = draws.uniform(1)[:, 0]
        return _warped(x, np.zeros(len(x)), self.low + (self.high - self.low) * u, self.fill)


@dataclass(frozen=True)
class RandomRotation(Transform):
    """Turn images about their centre, by an angle uniform on -degrees ... degrees.

    A pixel has the value at the place that it comes from, between the four pixels around it (bilinear); fill lies around the image.
    Positive angles are against the clock.

    Parameters
    ----------
    degrees : float
        The largest angle, from 0 to 360.
    fill : float, default 0
        What lies around the image.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range.

    References
    ----------
    P. Y. Simard, D. Steinkraus, J. C. Platt, Best practices for convolutional neural networks applied to visual document analysis
    (ICDAR 2003), section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, RandomRotation
    >>> RandomRotation(15)(np.ones((1, 4, 4, 3), dtype="uint8"), None, Draws([0]))[0].dtype
    dtype('float32')
    """

    degrees: float
    fill: float = 0.0

    def __post_init__(self) -> None:
        number("RandomRotation: degrees", self.degrees, 0, 360)
        number("RandomRotation: fill", self.fill)

    def _moved(self, x: Array, draws: Draws) -> Array:
        angle = (2 * draws.uniform(1)[:, 0] - 1) * (self.degrees * (np.pi / 180))
        return _warped(x, angle, np.ones(len(x)), self.fill)


def _warped(x: Array, angle: Array, scale: Array, fill: float) -> Array:
    images = _floats(x)
    return _core.warp(images if x.ndim == 4 else images[..., None], angle, scale, fill).reshape(x.shape)


@dataclass(frozen=True)
class Cutout(Transform):
    """Put rectangles of one value over images, each about a random pixel; what of them lies outside is cut off.

    Parameters
    ----------
    size : int or (int, int)
        The side of a square; or height and width. At least 1.
    count : int, default 1
        How many in each image, 1 to 1000. They may overlap.
    fill : float, default 0
        The value; of x's dtype.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range; when called: fill is not of x's dtype.

    References
    ----------
    T. DeVries, G. W. Taylor, Improved regularization of convolutional neural networks with Cutout (2017, arXiv:1708.04552),
    section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Cutout, Draws
    >>> x, _ = Cutout(1)(np.ones((1, 3, 3), dtype="uint8"), None, Draws([0]))
    >>> int(x.sum())
    8
    """

    size: int | tuple[int, int]
    count: int = 1
    fill: float = 0.0

    def __post_init__(self) -> None:
        _pair("Cutout: size", self.size, 1)
        integer("Cutout: count", self.count, 1, 1000)
        number("Cutout: fill", self.fill)

    def _moved(self, x: Array, draws: Draws) -> Array:
        size, fill = np.array(_pair("Cutout: size", self.size, 1)), _fill("Cutout", self.fill, x.dtype)
        u = draws.uniform(2 * self.count).reshape(len(x), self.count, 2)
        starts = _below(u, np.array(x.shape[1:3])) - size // 2
        r, c = np.arange(x.shape[1])[None, :, None], np.arange(x.shape[2])[None, None, :]
        result = x.copy()
        for top, left in starts.transpose(1, 2, 0)[..., None, None]:
            result[(r >= top) & (r < top + size[0]) & (c >= left) & (c < left + size[1])] = fill
        return result


@dataclass(frozen=True)
class GaussianNoise(Transform):
    """Add normal noise to every value.

    y = x + std * z, z normal with mean 0 and variance 1

    Parameters
    ----------
    std : float
        The noise's standard deviation, at least 0, in the unit of x.

    Raises
    ------
    TypeError, ValueError
        std is no number or out of its range.

    References
    ----------
    C. M. Bishop, Training with noise is equivalent to Tikhonov regularization (Neural Computation 7, 1995), section 2; G. E. P.
    Box, M. E. Muller, A note on the generation of random normal deviates (1958).

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, GaussianNoise
    >>> x, _ = GaussianNoise(0.1)(np.zeros((2, 1000)), None, Draws([0, 1]))
    >>> bool(abs(x.std() - 0.1) < 0.01)
    True
    """

    std: float

    _of_images = False

    def __post_init__(self) -> None:
        number("GaussianNoise: std", self.std, 0)

    def _moved(self, x: Array, draws: Draws) -> Array:
        result = _floats(x)
        draws._add_noise(result, self.std)
        return result


@dataclass(frozen=True)
class Mixup(Transform):
    """Mix each sample with another of its batch, x and labels alike.

    x' = t x + (1 - t) x[partner], y' = t y + (1 - t) y[partner], t of the distribution beta(alpha, alpha)

    t is a function of (seed, epoch, sample, place), as is the number that decides who is whose partner: each sample's is the one of
    its batch whose number is the next larger, and the first that of the last. So the result depends on which samples are in the
    batch, and not on their order in it. A sample that is alone in its batch stays as it is. Sample weights are not mixed.

    Parameters
    ----------
    alpha : float
        Above 0. Small ones leave most samples nearly alone; 1 makes t uniform.
    classes : int, optional
        How many there are, at least 1, where y holds class indices: they become rows of probabilities. Targets that are floating
        point numbers, rows of probabilities among them, are mixed as they are.

    Raises
    ------
    TypeError, ValueError
        An argument is of another kind or out of its range; when called: y is None, holds class indices and classes is not given, or
        holds one that is out of range.

    References
    ----------
    H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, mixup: beyond empirical risk minimization (ICLR 2018), section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data.augment import Draws, Mixup
    >>> x, y = Mixup(alpha=1.0, classes=3)(np.eye(3), np.array([0, 1, 2]), Draws([0, 1, 2]))
    >>> bool(np.allclose(x, y) and np.allclose(y.sum(axis=1), 1))
    True
    """

    alpha: float
    classes: int | None = None

    _of_images = False

    def __post_init__(self) -> None:
        number("Mixup: alpha", self.alpha, above=0)
        if self.classes is not None:
            integer("Mixup: classes", self.classes, 1)

    def _apply(self, x: Array, y: Array | None, draws: Draws) -> tuple[Array, Array | None]:
        if y is None:
            raise ValueError("Mixup: y is None, expected labels or targets")
        if len(y) != len(x):
            raise ValueError(f"Mixup: y has {len(y)} rows, x has {len(x)}")
        mixed = _floats(x)
        if y.dtype.kind in "iu":
            if self.classes is None:
                raise ValueError(f"Mixup: classes is None, expected their number where y holds class indices ({y.dtype})")
            targets = rows_of("Mixup", y, self.classes, mixed.dtype)
        elif y.dtype.kind == "f":
            targets = _floats(y)
        else:
            raise TypeError(f"Mixup: y has dtype {y.dtype}, expected class indices or floating point numbers")
        # The first two uniform numbers are beta's.
        order = np.lexsort((draws.samples, draws.uniform(3)[:, 2]))
        partner = np.empty_like(order)
        partner[order] = np.roll(order, -1)
        rest = 1 - draws._beta(self.alpha)
        return _mixed(mixed, partner, rest), _mixed(targets, partner, rest)


def _mixed(values: Array, partner: Array, rest: Array) -> Array:
    """Return v + (v[partner] - v) * rest: v itself where the two are the same."""
    share = rest.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    result: Array = values + (values[partner] - values) * share
    return result
