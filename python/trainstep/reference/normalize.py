"""Normalisation: of each sample over its features (layer_norm), and of each feature over the batch (batch_norm)."""

import numpy as np
import numpy.typing as npt

from .activations import Array, Float64, check_out, deliver, ieee, shared_dtype

Outs = tuple[Array | None, Array | None, Array | None]


def layer_norm(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None = None,
    beta: npt.ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: Outs | None = None,
) -> tuple[Array, Array, Array]:
    """Return x with each row brought to mean 0 and variance 1, scaled and shifted; and the mean and the scale of each row.

    | ``mean = mean of x``, ``variance = mean of (x - mean)^2``, both over the last axis
    | ``inv_std = 1 / sqrt(variance + eps)``
    | ``y = (x - mean) * inv_std * gamma + beta``

    Parameters
    ----------
    x : array_like, shape (..., I), float32 or float64
        Samples of I features each.
    gamma : array_like, shape (I,), dtype of x, optional
        Scale of each feature. Default: none, as if it were 1.
    beta : array_like, shape (I,), dtype of x, optional
        Shift of each feature. Default: none, as if it were 0.
    eps : float, default 1e-5
        Keeps a row without variance from a division by 0; at least 0.
    out : tuple of three ndarrays (y, mean, inv_std), optional
        Where the results go; None in the place of one: a new array. Default: new arrays.

    Returns
    -------
    y : ndarray, shape and dtype of x
    mean, inv_std : ndarray, shape of x without its last axis, dtype of x
        What :func:`layer_norm_backward` needs.

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64, or eps is no number.
    ValueError
        Shapes do not fit, x is empty, eps is negative or not finite, or an array of out is read-only.

    Notes
    -----
    The variance is divided by I, as in PyTorch. It is right wherever the mean lies.

    References
    ----------
    Ba, Kiros & Hinton, Layer Normalization (2016), arXiv:1607.06450, equations 3 and 4.

    Examples
    --------
    >>> from trainstep.reference import layer_norm
    >>> y, mean, inv_std = layer_norm([[1.0, 3.0], [10.0, 30.0]], eps=0.0)
    >>> y
    array([[-1.,  1.],
           [-1.,  1.]])
    >>> mean, inv_std
    (array([ 2., 20.]), array([1. , 0.1]))
    """
    function = "layer_norm"
    dtype = shared_dtype(function, x=x, gamma=gamma, beta=beta)
    _check_eps(function, eps)
    x64 = _filled(function, "x", x)
    scale, shift = _columns(function, "gamma", gamma, x64, 1.0), _columns(function, "beta", beta, x64, 0.0)
    y_out, mean_out, inv_std_out = _outs(
        function, out, ("y", "mean", "inv_std"), (x64.shape, x64.shape[:-1], x64.shape[:-1]), dtype
    )
    with ieee():
        mean = x64.mean(axis=-1, keepdims=True)
        inv_std = 1.0 / np.sqrt(((x64 - mean) ** 2).mean(axis=-1, keepdims=True) + eps)
        y = (x64 - mean) * inv_std * scale + shift
    return deliver(y, dtype, y_out), deliver(mean[..., 0], dtype, mean_out), deliver(inv_std[..., 0], dtype, inv_std_out)


def layer_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    inv_std: npt.ArrayLike,
    gamma: npt.ArrayLike | None = None,
    *,
    out: Outs | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, gamma and beta for ``y, mean, inv_std = layer_norm(x, gamma, beta)``.

    | ``x^ = (x - mean) * inv_std``, ``g = dy * gamma``
    | ``dx = inv_std * (g - mean of g - x^ * mean of (g * x^))``, means over the last axis
    | ``dgamma = sum of dy * x^``, ``dbeta = sum of dy``, over all others

    Parameters
    ----------
    dy : array_like, shape (..., I), float32 or float64
        Gradient of y.
    x : array_like, shape and dtype of dy
        Input of the forward function.
    mean, inv_std : array_like, shape of x without its last axis, dtype of dy
        What the forward function gave besides y.
    gamma : array_like, shape (I,), dtype of dy, optional
        Scale of the forward function. Default: none, as if it were 1.
    out : tuple of three ndarrays (dx, dgamma, dbeta), optional
        Where the results go; None in the place of one: a new array. Default: new arrays.

    Returns
    -------
    dx : ndarray, shape and dtype of dy
    dgamma, dbeta : ndarray, shape (I,), dtype of dy

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64.
    ValueError
        Shapes do not fit, x is empty, or an array of out is read-only.

    References
    ----------
    Ba, Kiros & Hinton, Layer Normalization (2016), arXiv:1607.06450; the derivatives as Ioffe & Szegedy have them for batch_norm,
    with rows for columns.

    Examples
    --------
    >>> from trainstep.reference import layer_norm, layer_norm_backward
    >>> x = [[1.0, 3.0, 5.0]]
    >>> _, mean, inv_std = layer_norm(x)
    >>> dx, dgamma, dbeta = layer_norm_backward([[1.0, 0.0, 0.0]], x, mean, inv_std)
    >>> dx.round(3), dgamma.round(3), dbeta
    (array([[ 0.102, -0.204,  0.102]]), array([-1.225,  0.   ,  0.   ]), array([1., 0., 0.]))
    """
    function = "layer_norm_backward"
    dtype = shared_dtype(function, dy=dy, x=x, mean=mean, inv_std=inv_std, gamma=gamma)
    x64 = _filled(function, "x", x)
    dy64 = _of_shape(function, "dy", dy, x64.shape)
    mean64, inv_std64 = (_of_shape(function, n, a, x64.shape[:-1])[..., None] for n, a in (("mean", mean), ("inv_std", inv_std)))
    scale = _columns(function, "gamma", gamma, x64, 1.0)
    width = x64.shape[-1:]
    dx_out, dgamma_out, dbeta_out = _outs(function, out, ("dx", "dgamma", "dbeta"), (x64.shape, width, width), dtype)
    with ieee():
        normal = (x64 - mean64) * inv_std64
        g = dy64 * scale
        dx = inv_std64 * (g - g.mean(axis=-1, keepdims=True) - normal * (g * normal).mean(axis=-1, keepdims=True))
        others = tuple(range(x64.ndim - 1))
        dgamma, dbeta = (dy64 * normal).sum(axis=others), dy64.sum(axis=others)
    return deliver(dx, dtype, dx_out), deliver(dgamma, dtype, dgamma_out), deliver(dbeta, dtype, dbeta_out)


def batch_norm(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None = None,
    beta: npt.ArrayLike | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Outs | None = None,
) -> tuple[Array, Array, Array]:
    """Return x with each column brought to mean 0 and variance 1, scaled and shifted; and the mean and the scale of each column.

    | in training: ``mean = mean of x``, ``variance = mean of (x - mean)^2``, both over the batch
    | otherwise: ``mean = running_mean``, ``variance = running_var``
    | ``inv_std = 1 / sqrt(variance + eps)``
    | ``y = (x - mean) * inv_std * gamma + beta``

    In training the running statistics, where they are given, are changed in place:

    | ``running_mean <- (1 - momentum) * running_mean + momentum * mean``
    | ``running_var <- (1 - momentum) * running_var + momentum * variance * B / (B - 1)``

    Parameters
    ----------
    x : array_like, shape (B, I), float32 or float64
        A batch of B inputs, one a row.
    gamma : array_like, shape (I,), dtype of x, optional
        Scale of each column. Default: none, as if it were 1.
    beta : array_like, shape (I,), dtype of x, optional
        Shift of each column. Default: none, as if it were 0.
    running_mean, running_var : ndarray, shape (I,), dtype of x, optional
        Statistics over many batches, which begin as 0 and 1. Both or, in training, none.
    training : bool, default False
        Whether the statistics are those of the batch.
    momentum : float, default 0.1
        The share of a batch in the running statistics, from 0 to 1.
    eps : float, default 1e-5
        Keeps a column without variance from a division by 0; at least 0.
    out : tuple of three ndarrays (y, mean, inv_std), optional
        Where the results go; None in the place of one: a new array. Default: new arrays.

    Returns
    -------
    y : ndarray, shape and dtype of x
    mean, inv_std : ndarray, shape (I,), dtype of x
        What :func:`batch_norm_backward` needs.

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64, or an option is of another type.
    ValueError
        Shapes do not fit, x is empty, momentum or eps is out of range, running statistics are missing, or one that is to be written
        or an array of out is read-only.

    Notes
    -----
    The conventions are PyTorch's: a batch is normalised by its variance divided by B, the running variance takes that divided by
    B - 1, and momentum is the share of the new (Keras: of the old). A batch of one row has no variance: y is beta, and the running
    variance stays as it is. (PyTorch refuses such a batch.)

    References
    ----------
    Ioffe & Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, ICML 2015,
    algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from trainstep.reference import batch_norm
    >>> running_mean, running_var = np.zeros(2), np.ones(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, inv_std = batch_norm(x, None, None, running_mean, running_var, training=True, eps=0.0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> running_mean, running_var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    function = "batch_norm"
    dtype = shared_dtype(function, x=x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    _check_eps(function, eps)
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"{function}: momentum is {momentum}, wanted 0 to 1")
    x64 = _filled(function, "x", x, ndim=2)
    scale, shift = _columns(function, "gamma", gamma, x64, 1.0), _columns(function, "beta", beta, x64, 0.0)
    width = x64.shape[1:]
    if (running_mean is None or running_var is None) and not (training and running_mean is running_var):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{function}: {missing} is None, wanted {'both or none' if training else 'an array, without training'}")
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None:
            _of_shape(function, name, running, width)
            if training:
                check_out(function, name, running, width, dtype)
    y_out, mean_out, inv_std_out = _outs(function, out, ("y", "mean", "inv_std"), (x64.shape, width, width), dtype)
    with ieee():
        if training:
            mean = x64.mean(axis=0)
            variance = ((x64 - mean) ** 2).mean(axis=0)
            rows = len(x64)
            if running_mean is not None and running_var is not None:
                running_mean[...] = (1.0 - momentum) * running_mean.astype(np.float64) + momentum * mean
                if rows > 1:
                    unbiased = variance * (rows / (rows - 1))
                    running_var[...] = (1.0 - momentum) * running_var.astype(np.float64) + momentum * unbiased
        else:
            mean, variance = np.asarray(running_mean, np.float64), np.asarray(running_var, np.float64)
        inv_std = 1.0 / np.sqrt(variance + eps)
        y = (x64 - mean) * inv_std * scale + shift
    return deliver(y, dtype, y_out), deliver(mean, dtype, mean_out), deliver(inv_std, dtype, inv_std_out)


def batch_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    inv_std: npt.ArrayLike,
    gamma: npt.ArrayLike | None = None,
    *,
    training: bool,
    out: Outs | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, gamma and beta for ``y, mean, inv_std = batch_norm(x, gamma, beta, ..., training=training)``.

    | ``x^ = (x - mean) * inv_std``
    | ``dgamma = sum of dy * x^``, ``dbeta = sum of dy``, over the batch
    | in training: ``dx = gamma * inv_std * (dy - dbeta / B - x^ * dgamma / B)``
    | otherwise: ``dx = gamma * inv_std * dy``, since the statistics do not move with x

    Parameters
    ----------
    dy : array_like, shape (B, I), float32 or float64
        Gradient of y.
    x : array_like, shape and dtype of dy
        Input of the forward function.
    mean, inv_std : array_like, shape (I,), dtype of dy
        What the forward function gave besides y.
    gamma : array_like, shape (I,), dtype of dy, optional
        Scale of the forward function. Default: none, as if it were 1.
    training : bool
        As in the forward function.
    out : tuple of three ndarrays (dx, dgamma, dbeta), optional
        Where the results go; None in the place of one: a new array. Default: new arrays.

    Returns
    -------
    dx : ndarray, shape and dtype of dy
    dgamma, dbeta : ndarray, shape (I,), dtype of dy

    Raises
    ------
    TypeError
        The arrays are not all float32 or all float64, or training is no bool.
    ValueError
        Shapes do not fit, x is empty, or an array of out is read-only.

    References
    ----------
    Ioffe & Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, ICML 2015,
    section 3 (the gradients after algorithm 1).

    Examples
    --------
    >>> from trainstep.reference import batch_norm, batch_norm_backward
    >>> x = [[1.0], [3.0], [5.0]]
    >>> _, mean, inv_std = batch_norm(x, training=True)
    >>> dx, dgamma, dbeta = batch_norm_backward([[1.0], [0.0], [0.0]], x, mean, inv_std, training=True)
    >>> dx.ravel().round(3), dgamma.round(3), dbeta
    (array([ 0.102, -0.204,  0.102]), array([-1.225]), array([1.]))
    """
    function = "batch_norm_backward"
    dtype = shared_dtype(function, dy=dy, x=x, mean=mean, inv_std=inv_std, gamma=gamma)
    x64 = _filled(function, "x", x, ndim=2)
    dy64 = _of_shape(function, "dy", dy, x64.shape)
    width, rows = x64.shape[1:], len(x64)
    mean64, inv_std64 = _of_shape(function, "mean", mean, width), _of_shape(function, "inv_std", inv_std, width)
    scale = _columns(function, "gamma", gamma, x64, 1.0)
    dx_out, dgamma_out, dbeta_out = _outs(function, out, ("dx", "dgamma", "dbeta"), (x64.shape, width, width), dtype)
    with ieee():
        normal = (x64 - mean64) * inv_std64
        dgamma, dbeta = (dy64 * normal).sum(axis=0), dy64.sum(axis=0)
        dx = scale * inv_std64 * (dy64 - dbeta / rows - normal * dgamma / rows if training else dy64)
    return deliver(dx, dtype, dx_out), deliver(dgamma, dtype, dgamma_out), deliver(dbeta, dtype, dbeta_out)


def _check_eps(function: str, eps: float) -> None:
    if not 0.0 <= eps < np.inf:
        raise ValueError(f"{function}: eps is {eps}, wanted a finite number of at least 0")


def _filled(function: str, name: str, array: npt.ArrayLike, ndim: int | None = None) -> Float64:
    values = np.asarray(array, np.float64)
    if values.ndim == 0 or values.size == 0 or ndim not in (None, values.ndim):
        raise ValueError(f"{function}: {name} has shape {values.shape}, wanted {ndim or 'one or more'} axes, none of them empty")
    return values


def _of_shape(function: str, name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> Float64:
    if np.shape(array) != shape:
        raise ValueError(f"{function}: {name} has shape {np.shape(array)}, wanted {shape}")
    return np.asarray(array, np.float64)


def _columns(function: str, name: str, array: npt.ArrayLike | None, x: Float64, default: float) -> Float64:
    return np.full(x.shape[-1:], default) if array is None else _of_shape(function, name, array, x.shape[-1:])


def _outs(
    function: str, out: Outs | None, names: tuple[str, str, str], shapes: tuple[tuple[int, ...], ...], dtype: np.dtype[np.floating]
) -> Outs:
    """Return the three arrays to write, each checked."""
    if out is None:
        return None, None, None
    if not isinstance(out, tuple) or len(out) != 3:
        raise TypeError(f"{function}: out must be a tuple ({', '.join(names)})")
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        check_out(function, f"out[{i}] ({name})", out[i], shape, dtype)
    return out
