"""Whitener: data whose covariance is the identity."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep._blocks import blocks, column_statistics, map_rows, real_array
from trainstep._checks import integer, number

Array = NDArray[Any]


class Whitener:
    """Turns and scales data so that its features are uncorrelated and of variance 1.

    z = (x - mean) W, W = U S^(-1/2) for PCA, U S^(-1/2) U^T for ZCA, with the covariance C = U S U^T of the data fitted to

    C = 1/(n - 1) sum_i (x_i - mean)^T (x_i - mean), as `numpy.cov` has it; that of z is the identity. Directions without variance
    are left out, those with an eigenvalue of no more than what rounding makes of 0: with PCA z has a column for each of the others
    only; with ZCA it has all columns, and its covariance is the projection onto the others. Covariances are computed in
    float64, a block of rows at a time: x and out may be memmaps larger than memory, where the features, squared, are not.

    Parameters
    ----------
    method : {"pca", "zca"}, default "pca"
        Along the principal directions, largest variance first; or turned back, so that z is as close to x as can be, and an image
        remains one.
    eps : float, default 0.0
        Added to the variances that are divided by, at least 0: each direction's variance becomes s / (s + eps), and noise in small
        ones is not blown up.
    components : int, optional
        How many directions to keep, those of the largest variance. Default: all that have variance.

    Attributes
    ----------
    mean_ : ndarray, shape (features,), float64
    components_ : ndarray, shape (directions, features), float64
        The directions that are kept, as rows of length 1, with the element that is largest in magnitude positive.
    explained_variance_ : ndarray, shape (directions,), float64
        The variance along each.

    Raises
    ------
    TypeError, ValueError
        Where an argument is of another kind, or out of its range.

    References
    ----------
    A. J. Bell & T. J. Sejnowski: The "independent components" of natural scenes are edge filters (Vision Research 37, 1997), ZCA;
    A. Kessy, A. Lewin & K. Strimmer: Optimal Whitening and Decorrelation (The American Statistician 72, 2018), table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.data import Whitener
    >>> x = np.random.default_rng(0).standard_normal((100, 2)) @ np.array([[3.0, 1.0], [0.0, 0.1]])
    >>> np.cov(Whitener("zca").fit_transform(x), rowvar=False).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    mean_: Array
    components_: Array
    explained_variance_: Array

    def __init__(self, method: str = "pca", eps: float = 0.0, components: int | None = None) -> None:
        if method not in ("pca", "zca"):
            raise ValueError(f"Whitener: method is {method!r}, expected 'pca' or 'zca'")
        self.method = method
        self.eps = number("Whitener: eps", eps, 0)
        self.components = None if components is None else integer("Whitener: components", components, 1)

    def fit(self, x: Any) -> "Whitener":
        """Compute the mean, the principal directions and their variances.

        Parameters
        ----------
        x : array, shape (n, features), any real dtype
            The training data, with at least two rows that differ.

        Returns
        -------
        self : Whitener

        Raises
        ------
        ValueError
            Where x has another shape, a number is not finite, no direction has variance, or fewer have than ``components``.
        TypeError
            Where x holds no numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from trainstep.data import Whitener
        >>> whitener = Whitener().fit(np.array([[1.0, 1.0], [-1.0, -1.0], [3.0, 3.0]]))
        >>> whitener.components_.shape, whitener.explained_variance_
        ((1, 2), array([8.]))
        """
        x = real_array("Whitener", x)
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"Whitener: x has shape {x.shape}, expected (n, features) with at least one row")
        mean, _ = column_statistics("Whitener", x, x.shape[1], np.dtype(np.float64))
        covariance = _covariance(x, mean)
        variances, directions = np.linalg.eigh(covariance)
        variances, directions = variances[::-1], directions[:, ::-1]
        kept = int(np.count_nonzero(variances > _noise(x, mean, covariance, float(variances[0]))))
        if kept == 0:
            raise ValueError("Whitener: all rows of x are the same, expected data with variance")
        if self.components is not None:
            if self.components > kept:
                raise ValueError(f"Whitener: components is {self.components}, x has variance in only {kept} directions")
            kept = self.components
        variances, directions = variances[:kept], directions[:, :kept]
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(kept)]
        directions = directions * np.sign(largest)
        deviations = np.sqrt(variances)
        # Small eigenvalues are known to eps times the largest only. What the first whitening makes of the data is the identity
        # but for that, R; with R^(-1/2) after it, it is to the last digits.
        rest, turn = np.linalg.eigh(_covariance(x, mean, directions / deviations))
        shrink = np.sqrt(variances / (variances + self.eps))
        forward = directions / deviations @ (turn / np.sqrt(rest) @ turn.T) * shrink
        backward = (turn * np.sqrt(rest) @ turn.T * deviations @ directions.T) / shrink[:, None]
        if self.method == "zca":
            forward, backward = forward @ directions.T, directions @ backward
        self.mean_, self.components_, self.explained_variance_ = mean, np.ascontiguousarray(directions.T), variances.copy()
        self._forward, self._backward = forward, backward
        return self

    def transform(self, x: Any, out: Array | None = None) -> Array:
        """Whiten data.

        z = (x - mean) W

        Parameters
        ----------
        x : array, shape (n, features), any real dtype
            As many features as were fitted.
        out : array, shape (n, directions) for PCA, (n, features) for ZCA, float32 or float64, optional
            Where the result goes; x itself, too, where the shape is its own. Default: a new array.

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
        >>> from trainstep.data import Whitener
        >>> whitener = Whitener().fit(np.array([[1.0], [-1.0], [3.0]]))
        >>> whitener.transform(np.array([[3.0]]))
        array([[1.]])
        """
        return self._through("_forward", "x", x, out)

    def inverse_transform(self, z: Any, out: Array | None = None) -> Array:
        """Give back the data that `transform` made z of, but for rounding and what lay in directions that are not kept.

        x = z W^+ + mean

        Parameters
        ----------
        z : array, shape (n, directions) for PCA, (n, features) for ZCA, any real dtype
            Whitened data.
        out : array, shape (n, features), float32 or float64, optional
            Where the result goes; z itself, too, where the shape is its own. Default: a new array.

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
        >>> from trainstep.data import Whitener
        >>> whitener = Whitener().fit(np.array([[1.0], [-1.0], [3.0]]))
        >>> whitener.inverse_transform(np.array([[1.0]]))
        array([[3.]])
        """
        return self._through("_backward", "z", z, out)

    def fit_transform(self, x: Any, out: Array | None = None) -> Array:
        """Fit to data and whiten it.

        Parameters
        ----------
        x : array, shape (n, features), any real dtype
            As `fit` takes it.
        out : array, float32 or float64, optional
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
        >>> from trainstep.data import Whitener
        >>> Whitener().fit_transform(np.array([[1.0], [-1.0], [3.0]]))
        array([[ 0.],
               [-1.],
               [ 1.]])
        """
        x = real_array("Whitener", x)
        return self.fit(x).transform(x, out)

    def _through(self, matrix: str, name: str, x: Any, out: Array | None) -> Array:
        if not hasattr(self, "mean_"):
            raise ValueError("Whitener: the directions are not set, expected fit(x) before")
        array, by = real_array("Whitener", x), getattr(self, matrix)
        if array.ndim != 2 or array.shape[1] != len(by):
            raise ValueError(f"Whitener: {name} has shape {array.shape}, expected (n, {len(by)})")
        if matrix == "_forward":
            return map_rows("Whitener", lambda rows: (rows - self.mean_) @ by, array, by.shape[1:], out)
        return map_rows("Whitener", lambda rows: rows @ by + self.mean_, array, by.shape[1:], out)


def _covariance(x: Array, mean: Array, by: Array | None = None) -> Array:
    """Return the covariance of x, or of (x - mean) @ by; sums divided by n - 1."""
    width = x.shape[1] if by is None else by.shape[1]
    squares, rest = np.zeros((width, width)), np.zeros(width)
    for rows in blocks(x):
        block = x[rows].astype(np.float64) - mean
        if by is not None:
            block = block @ by
        squares += block.T @ block
        rest += block.sum(axis=0)  # 0 but for rounding
    return (squares - np.outer(rest, rest) / len(x)) / max(1, len(x) - 1)


def _noise(x: Array, mean: Array, covariance: Array, largest: float) -> float:
    """Give the most that rounding may have made of an eigenvalue that is 0, beside the largest."""
    # The eigenvalues are as exact as the sums: eps times the largest, for each of the features.
    sums: float = 16 * x.shape[1] * float(np.finfo(np.float64).eps) * largest
    # Numbers of x may have been rounded themselves, as of a column that is the sum of two: by less than eps of their size.
    own = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 0.0
    size = float((mean**2 + np.diag(covariance)).max())
    return max(sums, own * own * size)
