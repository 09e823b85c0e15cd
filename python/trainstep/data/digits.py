"""The UCI optical digits, shipped with the package: real data without a download."""

import os

import numpy as np
import numpy.typing as npt


def load_digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return 1,797 images of handwritten digits, 8 x 8 pixels each, and which digit each shows.

    It is the test part of the data set, the same images in the same order as scikit-learn's ``load_digits``. A pixel
    counts the inked points, 0 to 16, in a 4 x 4 block of the scan; here it is divided by 16.

    Returns
    -------
    x : ndarray, shape (1797, 64), float32
        Images, one a row, from 0 (paper) to 1 (ink).
    y : ndarray, shape (1797,), int64
        Labels from 0 to 9, of each 174 to 183.

    Notes
    -----
    Licensed under CC BY 4.0, https://creativecommons.org/licenses/by/4.0/.

    References
    ----------
    E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49.

    Examples
    --------
    >>> from trainstep.data import load_digits
    >>> x, y = load_digits()
    >>> x.shape, y.shape
    ((1797, 64), (1797,))
    >>> print((x[0].reshape(8, 8) * 16).astype(int))
    [[ 0  0  5 13  9  1  0  0]
     [ 0  0 13 15 10 15  5  0]
     [ 0  3 15  2  0 11  8  0]
     [ 0  4 12  0  0  8  8  0]
     [ 0  5  8  0  0  9  8  0]
     [ 0  4 11  0  1 12  7  0]
     [ 0  2 14  5 10 12  0  0]
     [ 0  0  6 13 10  0  0  0]]
    >>> int(y[0])
    0
    """
    with np.load(os.path.join(os.path.dirname(__file__), "digits.npz")) as arrays:
        return arrays["images"].astype(np.float32) / np.float32(16), arrays["labels"].astype(np.int64)
