"""Standardizer: data of mean 0 and standard deviation 1."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep._blocks import column_statistics, map_rows, real_array

Array = NDArray[Any]


class Standardizer:
    """Takes the mean off each feature, and divides by the standard deviation, of the data that it was fitted to.

    z = (x - mean) / scale, mean_j = 1/n sum_i x_ij, scale_j = sqrt(1/n sum_i (x_ij - mean_j)^2)

    The statistics are computed in float64 and two passes, a block of rows at a time, and z likewise: x and out may be memmaps
    larger than memory. A network can hold them too: `trainstep.nn.Standardize`.

    Parameters
    ----------
    per : {"feature", "channel"}, default "feature"
        Of x with the shape (n, ...): a mean and a scale for each place of a row; or, of images with the shape (n, H, W) or
        (n, H, W, C), one for each channel, over all pixels.

    Attributes
    ----------
    mean_ : ndarray, float64
        Shape x.shape[1:] per feature; (C,) per channel, or (1,) for images without.
    scale_ : ndarray, float64
        Standard deviations, of mean_'s shape: divided by n, as scikit-learn's are, and 1 where x is constant.

    Raises
    ------
    ValueError
        Where per is another.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr & K.-R. Müller: Efficient BackProp (1998), section 4.3; T. F. Chan, G. H. Golub & R. J. LeVeque:
    Algorithms for Computing the Sample Variance (The American Statistician 37, 1983), eq. 1.7, for the corrected second pass.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data import Standardizer
    >>> x = np.array([[1.0, 5.0], [3.0, 5.0]])
    >>> standardizer = Standardizer()
    >>> standardizer.fit_transform(x)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> standardizer.mean_, standardizer.scale_
    (array([2., 5.]), array([1., 1.]))
    """

    mean_: Array
    scale_: Array

    def __init__(self, per: str = "feature") -> None:
        if per not in ("feature", "channel"):
            raise ValueError(f"Standardizer: per is {per!r}, expected 'feature' or 'channel'")
        self.per = per

    def fit(self, x: Any) -> "Standardizer":
        """Compute means and standard deviations.

        Parameters
        ----------
        x : array, shape (n, ...), any real dtype
            The training data, with at least one row.

        Returns
        -------
        self : Standardizer

        Raises
        ------
        ValueError
            Where x has another shape, or a number is not finite.
        TypeError
            Where x holds no numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data import Standardizer
        >>> Standardizer(per="channel").fit(np.arange(12).reshape(1, 2, 2, 3)).mean_
        array([4.5, 5.5, 6.5])
        """
        x = real_array("Standardizer", x)
        if self.per == "channel":
            fits, wanted = x.ndim in (3, 4), "(n, H, W) or (n, H, W, C)"
            shape = x.shape[3:] or (1,)
        else:
            fits, wanted = x.ndim >= 2, "(n, features) or more dimensions"
            shape = x.shape[1:]
        if not fits or x.size == 0:
            raise ValueError(f"Standardizer: x has shape {x.shape}, expected {wanted} with at least one row")
        mean, scale = column_statistics("Standardizer", x, math.prod(shape), np.dtype(np.float64))
        self.mean_, self.scale_, self._dimensions = mean.reshape(shape), scale.reshape(shape), x.ndim
        return self

    def transform(self, x: Any, out: Array | None = None) -> Array:
        """Standardize data.

        z = (x - mean) / scale

        Parameters
        ----------
        x : array, shape (n, ...), any real dtype
            Rows of the shape that was fitted; per channel, images of any size with as many channels.
        out : array of x's shape, float32 or float64, optional
            Where the result goes; x itself, too. Default: a new array.

        Returns
        -------
        z : ndarray
            float64 of float64, else float32; out, where that is given.

        Raises
        ------
        ValueError
            Where `fit` has not been called, or a shape does not fit.
        TypeError
            Where x holds no numbers, or out is no such array.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data import Standardizer
        >>> Standardizer().fit(np.array([[0.0], [4.0]])).transform(np.array([[6.0]]))
        array([[2.]])
        """
        x = self._checked(x)
        return map_rows("Standardizer", lambda rows: (rows - self.mean_) / self.scale_, x, x.shape[1:], out)

    def inverse_transform(self, z: Any, out: Array | None = None) -> Array:
        """Give back the data that `transform` made z of, but for rounding.

        x = z * scale + mean

        Parameters
        ----------
        z : array, shape (n, ...), any real dtype
            As `transform` takes x.
        out : array of z's shape, float32 or float64, optional
            Where the result goes; z itself, too. Default: a new array.

        Returns
        -------
        x : ndarray
            float64 of float64, else float32; out, where that is given.

        Raises
        ------
        ValueError, TypeError
            As `transform`.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data import Standardizer
        >>> Standardizer().fit(np.array([[0.0], [4.0]])).inverse_transform(np.array([[2.0]]))
        array([[6.]])
        """
        z = self._checked(z)
        return map_rows("Standardizer", lambda rows: rows * self.scale_ + self.mean_, z, z.shape[1:], out)

    def fit_transform(self, x: Any, out: Array | None = None) -> Array:
        """Fit to data and standardize it.

        Parameters
        ----------
        x : array, shape (n, ...), any real dtype
            As `fit` takes it.
        out : array of x's shape, float32 or float64, optional
            As in `transform`.

        Returns
        -------
        z : ndarray
            As of `transform`.

        Raises
        ------
        ValueError, TypeError
            As `fit` and `transform`.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data import Standardizer
        >>> Standardizer().fit_transform(np.array([[0.0], [4.0]]))
        array([[-1.],
               [ 1.]])
        """
        x = real_array("Standardizer", x)
        return self.fit(x).transform(x, out)

    def _checked(self, x: Any) -> Array:
        if not hasattr(self, "mean_"):
            raise ValueError("Standardizer: the statistics are not set, expected fit(x) before")
        array = real_array("Standardizer", x)
        if self.per == "feature":
            fits, wanted = array.shape[1:] == self.mean_.shape, f"(n, {', '.join(map(str, self.mean_.shape))})"
        else:
            channels = self.mean_.shape if self._dimensions == 4 else ()
            fits = array.ndim == self._dimensions and array.shape[3:] == channels
            wanted = f"(n, H, W, {channels[0]})" if channels else "(n, H, W)"
        if array.ndim == 0 or not fits:
            raise ValueError(f"Standardizer: x has shape {array.shape}, expected {wanted}")
        return array
