"""Sequential: a list of layers, planned into one program over flat memory."""

import copy
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainstep import _core
from trainstep._blocks import column_statistics, real_array
from trainstep._checks import float_dtype, integer, number, path_text, switch
from trainstep._files import whole_file
from trainstep.nn.layers import Layer, Standardize, by_path, from_spec, initializers, refuse_constant_weights, with_widths
from trainstep.nn.pruning import (
    Pruning,
    masks_of_smallest,
    relative_change,
    smallest_units,
    without_their_numbers,
    without_units,
)

Array = NDArray[Any]

_PROGRAMS = {"float32": _core.ProgramFloat32, "float64": _core.ProgramFloat64}
_FORMAT = "trainstep-model-1"
_MASK = ".mask"  # behind the name of a parameter: the name of its mask in a file
EXTRA = "trainer/"  # before the names of arrays in a file that are not the network's


class Sequential:
    """A network of layers, one after the other.

    y = f_n(... f_2(f_1(x)))

    The parameters lie in one arena, their gradients in another; `parameters` and `gradients` give views into them.

    Parameters
    ----------
    *layers : Dense, Activation, Dropout, BatchNorm, LayerNorm, Residual or Standardize
        The layers from input to output; each takes as many features as the one before it gives. `Standardize` stands first only.
    seed : int, default 0
        What the initial weights follow from, and, unless the trainer has its own, the order of the data.
    dtype : dtype, default "float32"
        float32 or float64: parameters and all arithmetic.
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}, optional
        How the products of a float32 network are calculated, in training and after it; see `trainstep.set_matmul_precision`.
        Copies and files have it too. Default: as that has set it when a pass begins.

    Raises
    ------
    ValueError
        Where there is no layer, neighbours do not fit, a hidden layer's weights would all be the same (`Dense`: ``init``), or
        precision is unknown, or other than "float32" in float64.
    TypeError
        Where a layer is none, or dtype is not float32 or float64.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.Dense(32, 10), seed=0)
    >>> model(np.zeros((5, 64), dtype="float32")).shape
    (5, 10)
    >>> {name: w.shape for name, w in model.parameters().items()}
    {'0.weight': (64, 32), '0.bias': (32,), '1.weight': (32, 10), '1.bias': (10,)}
    """

    def __init__(self, *layers: Layer, seed: int = 0, dtype: DTypeLike = "float32", precision: str | None = None) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: layer {i} is a {type(layer).__name__}, expected a layer of trainstep.nn")
            if i > 0 and isinstance(layer, Standardize):
                raise ValueError(
                    f"Sequential: layer {i} is {layer!r}, expected it first: what another layer gives it changes in training"
                )
        layers = with_widths(layers)
        refuse_constant_weights(layers)
        self._layers = layers
        self._seed = integer("Sequential: seed", seed)
        self._dtype = float_dtype("Sequential: dtype", dtype)
        self._metadata: dict[str, Any] = {}
        self._pruning: Pruning | None = None
        name = self._dtype.name
        self._program = _PROGRAMS[name]([layer.spec() for layer in layers], self._seed % 2**64)
        self.precision = precision
        first_values = initializers(layers)
        for p, (parameter, view) in enumerate(self._program.parameters()):
            values = first_values[parameter](view.shape, rng=self._parameter_seed(p), dtype=name)
            try:
                values = np.asarray(values)
            except ValueError:  # a ragged list
                values = np.asarray(None)
            real = values.shape == view.shape and values.dtype.kind in "fiub"
            if real:
                with np.errstate(over="ignore"):
                    view[...] = values
            if not real or not np.isfinite(view).all():
                raise ValueError(
                    f"Sequential: the initialiser of {parameter} gave shape {values.shape}, dtype {values.dtype}, "
                    f"expected finite real numbers of shape {view.shape}"
                )

    def _parameter_seed(self, p: int) -> int:
        """Give parameter p a seed of its own: a Philox block under the network's seed."""
        seed = self._seed % 2**64
        low, high, _, _ = _core.philox4x32((p, 0, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))
        return high << 32 | low

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from input to output."""
        return self._layers

    @property
    def seed(self) -> int:
        """The seed that the network was made with."""
        return self._seed

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters and of all arithmetic."""
        return self._dtype

    @property
    def precision(self) -> str | None:
        """How the products of a float32 network are calculated; None: as `trainstep.get_matmul_precision` says. It can be set."""
        return self._program.precision

    @precision.setter
    def precision(self, precision: str | None) -> None:
        self._program.precision = precision

    @property
    def metadata(self) -> dict[str, Any]:
        """What is saved with the network and means nothing to it: a dict of the user's own, of what JSON can hold."""
        return self._metadata

    @property
    def num_parameters(self) -> int:
        """The number of trained numbers."""
        return sum(view.size for view in self.parameters().values())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by description and values; gradients and workspace are not carried along."""
        values = {name: view.copy() for name, view in self._arrays().items()}
        own = copy.deepcopy(self._metadata)
        masks, passes = self._masks(), self._program.passes
        return _rebuild, (
            self._layers,
            self._seed,
            self._dtype.name,
            values,
            own,
            self.frozen,
            masks,
            self._pruning,
            passes,
            self.precision,
        )

    def __repr__(self) -> str:
        inner = ",\n".join(f"    {layer!r}" for layer in self._layers)
        precision = "" if self.precision is None else f", precision={self.precision!r}"
        return f"Sequential(\n{inner},\n    seed={self._seed}, dtype={self._dtype.name!r}{precision})"

    def __call__(self, x: Any, *, out: Array | None = None) -> Array:
        """Run the network on x: `predict` on all rows at once.

        y = f_n(... f_2(f_1(x)))

        Parameters
        ----------
        x : array, shape (rows, in_features) or (rows, ...) with as many elements a row
            Any real dtype; it is cast to the network's.
        out : ndarray, shape (rows, out_features), optional
            Where to write y.

        Returns
        -------
        y : ndarray, shape (rows, out_features)
            An array of the caller's own.

        Raises
        ------
        ValueError
            Where the shape of x does not fit.
        TypeError
            Where x is no array of a real dtype.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), algorithm 6.3.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> model(np.ones((4, 3), dtype="uint8")).shape
        (4, 2)
        """
        return self._program.predict(x, out)

    def predict(self, x: Any, batch_size: int = 1024) -> Array:
        """Run the network on many rows, in batches.

        y = f_n(... f_2(f_1(x)))

        Parameters
        ----------
        x : array, shape (rows, in_features)
            Any real dtype; a batch at a time is read and cast, so x may be a memmap larger than memory.
        batch_size : int, default 1024
            Rows that are read at a time.

        Returns
        -------
        y : ndarray, shape (rows, out_features)

        Raises
        ------
        ValueError, TypeError
            As for a call of the model; ValueError where batch_size is below 1.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), algorithm 6.3.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> model.predict(np.ones((5000, 3)), batch_size=100).shape
        (5000, 2)
        """
        batch_size = integer("predict: batch_size", batch_size, 1)
        if not isinstance(x, np.ndarray) or x.ndim < 2 or len(x) <= batch_size:
            return self._program.predict(x)
        y = np.empty((len(x), self._program.out_features), self._dtype)
        for first in range(0, len(x), batch_size):
            self._program.predict(x[first : first + batch_size], y[first : first + batch_size])
        return y

    def forward(self, x: Any, training: bool = False) -> Array:
        """Run the network, and with ``training=True`` keep what `backward` needs.

        y = f_n(... f_2(f_1(x)))

        Parameters
        ----------
        x : array, shape (rows, in_features)
            Any real dtype.
        training : bool, default False
            Whether a `backward` follows.

        Returns
        -------
        y : ndarray, shape (rows, out_features)
            An array of the caller's own.

        Raises
        ------
        ValueError, TypeError
            As for a call of the model.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), algorithm 6.3.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> y = model.forward(np.ones((4, 3)), training=True)
        >>> model.backward(np.ones((4, 2), dtype="float32")).shape
        (4, 3)
        """
        return self._program.forward(x) if switch("forward: training", training) else self._program.predict(x)

    def backward(self, dy: Any, need_dx: bool = True, accumulate: bool = False) -> Array | None:
        """Back-propagate through the last ``forward(x, training=True)``.

        dx = J^T dy, and the gradient of every parameter likewise, J being the Jacobian of the network

        Parameters
        ----------
        dy : array, shape (rows, out_features), the network's dtype
            The gradient with respect to the output.
        need_dx : bool, default True
            Whether the gradient with respect to x is wanted.
        accumulate : bool, default False
            Add to the gradients that `gradients` shows, rather than overwrite them.

        Returns
        -------
        dx : ndarray, shape (rows, in_features), or None
            None where ``need_dx=False``.

        Raises
        ------
        RuntimeError
            Where no ``forward(x, training=True)`` came before it, or another batch has been run since.
        ValueError, TypeError
            Where dy does not fit.

        References
        ----------
        Rumelhart, Hinton, Williams: Learning representations by back-propagating errors (Nature 323, 1986), equations 4 to 7.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> y = model.forward(np.ones((4, 3)), training=True)
        >>> model.backward(np.ones((4, 2), dtype="float32"), need_dx=False)
        >>> model.gradients()["0.bias"]
        array([4., 4.], dtype=float32)
        """
        return self._program.backward(dy, switch("backward: need_dx", need_dx), switch("backward: accumulate", accumulate))

    def parameters(self) -> dict[str, Array]:
        """Give the parameters: writable views into the arena, by name."""
        return dict(self._program.parameters())

    def gradients(self) -> dict[str, Array]:
        """Give the gradients of the last backward or training step: views, by the parameters' names. Those of what is frozen are 0.

        RuntimeError after a step that kept none (``fuse_update`` of `Trainer`).
        """
        return dict(self._program.gradients())

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that are frozen."""
        return tuple(name for name, frozen in zip(self.parameters(), self._program.frozen, strict=True) if frozen)

    def freeze(self, *names: str) -> None:
        """Keep parameters as they are: training leaves them out, and goes back no further than the lowest layer that it changes.

        w <- w, where w is frozen

        Parameters
        ----------
        *names : str
            Layers, such as ``"0"``, blocks with what is in them, or parameters, such as ``"0.bias"``. None: all.

        Raises
        ------
        ValueError
            Where a name is none of the model's. Nothing has been changed then.

        References
        ----------
        Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks? (NIPS 2014), section 2.

        Examples
        --------
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 4, activation="relu"), ts.nn.Dense(4, 2))
        >>> model.freeze("0", "1.bias")
        >>> model.frozen
        ('0.weight', '0.bias', '1.bias')
        >>> model.unfreeze("1")
        >>> model.frozen
        ('0.weight', '0.bias')
        """
        self._set_frozen("freeze", names, True)

    def unfreeze(self, *names: str) -> None:
        """Train parameters again that were frozen: the reverse of `freeze`.

        w <- w - update(dL/dw), where w is not frozen

        Parameters
        ----------
        *names : str
            Layers, such as ``"0"``, blocks with what is in them, or parameters, such as ``"0.bias"``. None: all.

        Raises
        ------
        ValueError
            Where a name is none of the model's. Nothing has been changed then.

        References
        ----------
        Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks? (NIPS 2014), section 2.

        Examples
        --------
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2))
        >>> model.freeze()
        >>> model.unfreeze()
        >>> model.frozen
        ()
        """
        self._set_frozen("unfreeze", names, False)

    def _set_frozen(self, function: str, names: tuple[str, ...], value: bool) -> None:
        frozen = dict(zip(self.parameters(), self._program.frozen, strict=True))
        paths = by_path(self._layers)
        for name in names or [str(i) for i in range(len(self._layers))]:
            if not isinstance(name, str):
                raise TypeError(f"{function}: name is a {type(name).__name__}, expected a str such as '0' or '0.weight'")
            meant = [parameter for parameter in frozen if f"{parameter}.".startswith(f"{name}.")]
            if not meant and name not in paths:
                raise ValueError(f"{function}: name is {name!r}, expected a layer or one of {', '.join(frozen)}")
            frozen |= dict.fromkeys(meant, value)
        self._program.freeze(list(frozen.values()))

    def prune(self, amount: float, structured: bool = False, x: Any = None) -> "Sequential":
        """Take away the weights, or the units, that matter least by their size.

        w <- 0 for the share ``amount`` of all weights with the smallest |w|, now and after every training step; with ``structured``
        the share ``amount`` of each hidden layer's units j with the smallest sqrt(sum_i w_ij^2) is left out

        Weights of all `Dense` layers are compared with each other, frozen ones too; biases stay. What was pruned before counts:
        ``prune(0.5)`` after ``prune(0.3)`` ends with half of the weights. Of equal ones the first go first. The number that goes is
        rounded to the nearest.

        With ``structured`` units are taken out of `Dense` layers that another one follows, with nothing between that mixes columns:
        `Activation` (no softmax), `Dropout` and `BatchNorm`, whose numbers of these units go too. `Residual` blocks stay as they
        are. Of each layer at least one unit stays.

        Parameters
        ----------
        amount : float
            The share, 0 <= amount < 1.
        structured : bool, default False
            Whether whole units are taken out, into a smaller network.
        x : array, shape (rows, in_features), optional
            Any real dtype: where `pruning` tells how much the outputs change.

        Returns
        -------
        model : Sequential
            This network; with ``structured`` a new one, which shares nothing with it and has its seed, precision, metadata, frozen
            names and masks.

        Raises
        ------
        ValueError
            Where amount is out of range, x does not fit, or there is nothing that could be pruned. Nothing has been changed then.
        TypeError
            Where an argument is of a wrong type.

        References
        ----------
        Han, Pool, Tran, Dally: Learning both weights and connections for efficient neural networks (NIPS 2015), section 3.

        Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets (ICLR 2017), section 3.1 (of units, by sum |w|).

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.Dense(32, 10))
        >>> model.prune(0.9).pruning.parameters_after  # of 2048 + 320 weights; the biases are 0 too as yet
        237
        >>> history = ts.Trainer(model).fit(*ts.data.load_digits(), epochs=2)
        >>> int(np.count_nonzero(model.parameters()["0.weight"]) + np.count_nonzero(model.parameters()["1.weight"]))
        237
        >>> model.prune(0.5, structured=True).layers
        (Dense(64, 16, activation='relu'), Dense(16, 10))
        """
        amount = number("prune: amount", amount, 0, 1)
        if amount == 1:
            raise ValueError("prune: amount is 1, expected less: nothing would be left")
        structured = switch("prune: structured", structured)
        y = None if x is None else self.predict(x)
        before = self.num_parameters
        pruned, removed = self._with_fewer_units(amount) if structured else (self._with_fewer_weights(amount), {})
        values = pruned.parameters().values()
        after = pruned.num_parameters if structured else sum(int(np.count_nonzero(view)) for view in values)
        change = None if y is None else relative_change(y, pruned.predict(x))
        pruned._pruning = Pruning(amount, structured, before, after, removed, change)
        return pruned

    def _with_fewer_weights(self, amount: float) -> "Sequential":
        weights = {name: w for name, w in self.parameters().items() if name.rpartition(".")[2] == "weight" and w.ndim == 2}
        if not weights:
            raise ValueError("prune: the network has no Dense layer, expected one whose weights can be pruned")
        self._set_masks(self._masks() | masks_of_smallest(weights, self._masks(), amount))
        return self

    def _with_fewer_units(self, amount: float) -> "tuple[Sequential, dict[str, tuple[int, ...]]]":
        arrays = self._arrays()
        units = smallest_units(self._layers, arrays, amount)
        if not units:
            raise ValueError(
                "prune: no layer can lose units, expected a Dense one that another follows, with no layer between mixing columns"
            )
        pruned = _rebuild(
            without_units(self._layers, units),
            self._seed,
            self._dtype.name,
            without_their_numbers(arrays, units),
            copy.deepcopy(self._metadata),
            self.frozen,
            without_their_numbers(self._masks(), units),
            precision=self.precision,
        )
        return pruned, {str(i): tuple(gone.tolist()) for i, (_, gone) in units.items() if gone.size}

    @property
    def pruning(self) -> Pruning | None:
        """What the last `prune` did that gave this network; None before it, and of a network from a file."""
        return self._pruning

    def _masks(self) -> dict[str, Array]:
        """Give the masks by the parameters' names: False where a number is held at 0."""
        masks = zip(self.parameters(), self._program.masks(), strict=True)
        return {name: mask for name, mask in masks if mask is not None}

    def _set_masks(self, masks: Mapping[str, Array]) -> None:
        self._program.set_masks([masks.get(name) for name in self.parameters()])

    def param_groups(
        self, *, decay_bias: bool = True, lr: float | None = None, lr_factors: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """Sort the parameters that are not frozen into groups for an optimizer.

        lr of a layer = lr * lr_factors[layer];  weight_decay = 0 for what is no weight, unless decay_bias

        Parameters
        ----------
        decay_bias : bool, default True
            False: biases, gamma and beta are in groups with ``weight_decay=0``.
        lr : float, optional
            The learning rate that the factors multiply; needed with them.
        lr_factors : dict of float by layer, optional
            Factors of at least 0 for layers such as ``"0"`` or blocks, whose layers may have others; 1 for what is not named.

        Returns
        -------
        groups : list of dict
            Each with the entry ``params``, arrays that are views of the model's parameters, and what it has of its own of
            ``weight_decay`` and ``lr``.

        Raises
        ------
        ValueError
            Where a layer does not exist or has no parameters, a factor is negative or no number, or lr is missing.
        TypeError
            Where an argument is of a wrong type.

        References
        ----------
        Howard, Ruder: Universal language model fine-tuning for text classification (ACL 2018), equation 3 (a rate for each layer).

        Examples
        --------
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 4, activation="relu"), ts.nn.Dense(4, 2))
        >>> groups = model.param_groups(decay_bias=False, lr=1e-3, lr_factors={"0": 0.1})
        >>> [(group["lr"], group.get("weight_decay"), len(group["params"])) for group in groups]
        [(0.0001, None, 1), (0.0001, 0.0, 1), (0.001, None, 1), (0.001, 0.0, 1)]
        >>> trainer = ts.Trainer(model, optimizer=ts.optim.AdamW(groups, weight_decay=0.1))
        """
        decay_bias = switch("param_groups: decay_bias", decay_bias)
        factors = dict(lr_factors or {})
        layers = [path for path in by_path(self._layers) if any(name.startswith(f"{path}.") for name in self.parameters())]
        for layer, factor in factors.items():
            if layer not in layers:
                raise ValueError(f"param_groups: lr_factors has {layer!r}, expected layers with parameters: {', '.join(layers)}")
            if isinstance(factor, bool) or not isinstance(factor, int | float):
                raise TypeError(f"param_groups: lr_factors[{layer!r}] is a {type(factor).__name__}, expected a float")
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"param_groups: lr_factors[{layer!r}] is {factor}, expected a finite number of at least 0")
        if factors and lr is None:
            raise ValueError("param_groups: lr is None, expected the learning rate that lr_factors multiply")
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, view in self.parameters().items():
            if name in self.frozen:
                continue
            nearest = max((path for path in factors if name.startswith(f"{path}.")), key=len, default="")
            factor, decays = factors.get(nearest, 1.0), decay_bias or name.endswith(".weight")
            options = ({} if lr is None else {"lr": lr * factor}) | ({} if decays else {"weight_decay": 0.0})
            groups.setdefault((factor, decays), {"params": [], **options})["params"].append(view)
        return list(groups.values())

    def buffers(self) -> dict[str, Array]:
        """Give what layers keep and no optimizer trains, such as the mean of `Standardize`: writable views, by name."""
        return dict(self._program.buffers())

    def _arrays(self) -> dict[str, Array]:
        """All that a copy of the network needs besides its layers."""
        return self.parameters() | self.buffers()

    def standardize(self, x: Any) -> None:
        """Set what the network's `Standardize` layer takes off and multiplies by, from data.

        mean = mean of the column, scale = 1 / standard deviation of the column (1 where the column is constant)

        Both are of x as the network's dtype holds it, computed in float64; the standard deviation is that of all rows,
        ``sqrt(mean((x - mean)^2))``. `Trainer.fit` calls this where it has not been done.

        Parameters
        ----------
        x : array, shape (rows, in_features) or (rows, ...) with as many elements a row
            Any real dtype; a block of rows at a time is read, so x may be a memmap larger than memory.

        Raises
        ------
        ValueError
            Where the network has no such layer, the shape of x does not fit, x is not finite, or a column's spread or values are
            beyond what the dtype holds. Nothing has been changed then.
        TypeError
            Where x is no array of a real dtype.

        References
        ----------
        Chan, Golub, LeVeque: Algorithms for computing the sample variance (The American Statistician 37, 1983), equation 1.7.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Standardize(1), ts.nn.Dense(1, 1))
        >>> model.standardize(np.array([[3.0], [5.0]]))
        >>> model.buffers()
        {'0.mean': array([4.], dtype=float32), '0.scale': array([1.], dtype=float32)}
        """
        self._standardize("standardize", x)

    def _standardize(self, function: str, x: Any) -> None:
        if not isinstance(self._layers[0], Standardize):
            raise ValueError(f"{function}: the network has no Standardize layer, its first is {self._layers[0]!r}")
        mean, scale = _statistics(function, x, self._layers[0].features, self._dtype)
        buffers = self.buffers()
        buffers["0.mean"][...], buffers["0.scale"][...] = mean, scale

    def _is_standardized(self) -> bool:
        """Whether no `Standardize` layer waits for its statistics: one that changes nothing does."""
        buffers = self.buffers()
        return not isinstance(self._layers[0], Standardize) or bool(buffers["0.mean"].any() or (buffers["0.scale"] != 1).any())

    def summary(self) -> str:
        """Describe the layers, their shapes and their numbers of parameters, as text of a line each.

        Returns
        -------
        text : str

        Examples
        --------
        >>> import trainstep as ts
        >>> print(ts.nn.Sequential(ts.nn.Dense(64, 10)).summary())
        0  Dense(64, 10)  650 parameters
        total             650 parameters
        """
        sizes = [0] * len(self._layers)
        for name, view in self.parameters().items():
            sizes[int(name.partition(".")[0])] += view.size
        rows = [(f"{i}  {layer!r}", size) for i, (layer, size) in enumerate(zip(self._layers, sizes, strict=True))]
        rows.append(("total", sum(sizes)))
        width = max(len(text) for text, _ in rows)
        return "\n".join(f"{text:<{width}}  {size:,} parameters" for text, size in rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: parameters, buffers and masks, and the structure in its metadata.

        Parameters
        ----------
        path : str or path
            The file. It appears whole or not at all: it is written beside its place, then renamed.

        Raises
        ------
        OSError
            Where the file cannot be written.
        TypeError, ValueError
            Where `metadata` holds what JSON cannot.

        Examples
        --------
        >>> import os, tempfile
        >>> import trainstep as ts
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> ts.nn.Sequential(ts.nn.Dense(3, 2)).save(path)
        >>> ts.nn.load(path).layers
        (Dense(3, 2),)
        """
        write_model(self, path_text("save: path", path))


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a network that `Sequential.save` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    model : Sequential
        With the same layers, parameters, buffers, masks, seed, dtype, precision and metadata. Initialisers are not in the file. Of
        a file that `Trainer.save` wrote, the model.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where it is no trainstep model, or a damaged one.

    Examples
    --------
    >>> import os, tempfile
    >>> import trainstep as ts
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> model = ts.nn.Sequential(ts.nn.Dense(3, 2, activation="tanh"), seed=5)
    >>> model.save(path)
    >>> bool((ts.nn.load(path).parameters()["0.weight"] == model.parameters()["0.weight"]).all())
    True
    """
    with reading(path_text("load: path", path), "model") as file:
        return read_model(file)


def write_model(
    model: Sequential, path: str, more: Mapping[str, str] | None = None, more_arrays: Mapping[str, Array] | None = None
) -> None:
    """Write a network's file, with more metadata and more arrays, whose names begin with EXTRA."""
    from safetensors.numpy import save

    structure = {
        "format": _FORMAT,
        "layers": json.dumps([layer.spec() for layer in model._layers]),
        "seed": str(model._seed),
        "dtype": model._dtype.name,
        "metadata": json.dumps(model._metadata, allow_nan=False),
        "frozen": json.dumps(model.frozen),
    }
    if model.precision is not None:
        structure["precision"] = model.precision
    arrays = model._arrays() | {f"{name}{_MASK}": mask.astype(np.uint8) for name, mask in model._masks().items()}
    arrays |= more_arrays or {}
    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, structure | dict(more or {}))
    with whole_file(path) as partial, open(partial, "wb") as file:
        for part in _in_order(data):
            file.write(part)


def _in_order(data: bytes) -> tuple[bytes, memoryview]:
    """Give a safetensors file with its metadata in the order of the names, so that the same model is the same file.

    The library lays them out in another order each time. The header is the JSON of so many bytes as the first eight say, filled up
    with spaces to a multiple of eight.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(data)[end:]


@contextmanager
def reading(path: str, what: str) -> Iterator[Any]:
    """Open a file of safetensors for reading; what is wrong with it is a ValueError that names it."""
    from safetensors import SafetensorError, safe_open

    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    name = {"model": "model", "trainer": "checkpoint"}[what]
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or (what == "trainer" and what not in metadata):
                raise ValueError(f"its metadata does not name a trainstep {name}")
            yield file
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"load: {path} is no whole trainstep {name}: {error}") from error


def read_model(file: Any) -> Sequential:
    """Make the network of an open file."""
    metadata = file.metadata()
    layers = [from_spec(spec) for spec in json.loads(metadata["layers"])]
    # What the layers say is believed only where the arrays in the file bear it out: nothing large is made before.
    shapes = {
        f"{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in (layer.shapes() | layer.buffer_shapes()).items()
    }
    own = [name for name in file.keys() if not name.startswith(EXTRA)]  # noqa: SIM118
    found = {name: tuple(file.get_slice(name).get_shape()) for name in own}
    trained = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.shapes()}
    masked = [name for name in trained if name + _MASK in found]
    if found != shapes | {name + _MASK: shapes[name] for name in masked}:
        raise ValueError("its arrays are not those of its layers")
    values = {name: file.get_tensor(name) for name in shapes}
    masks = {name: _mask(name, file.get_tensor(name + _MASK), values[name]) for name in masked}
    wrong = [name for name, value in values.items() if value.dtype != metadata["dtype"]]
    if wrong:
        raise ValueError(f"{wrong[0]} is {values[wrong[0]].dtype}, expected {metadata['dtype']}")
    users = json.loads(metadata.get("metadata", "{}"))
    if not isinstance(users, dict):
        raise ValueError(f"its own metadata is a {type(users).__name__}, expected a dict")
    frozen = json.loads(metadata.get("frozen", "[]"))
    if not isinstance(frozen, list):
        raise ValueError(f"what it has frozen is a {type(frozen).__name__}, expected a list")
    precision = metadata.get("precision")
    return _rebuild(layers, int(metadata["seed"]), metadata["dtype"], values, users, frozen, masks, precision=precision)


def _rebuild(
    layers: Sequence[Layer],
    seed: int,
    dtype: str,
    values: Mapping[str, Array],
    metadata: Mapping[str, Any],
    frozen: Sequence[str] = (),
    masks: Mapping[str, Array] | None = None,
    pruning: Pruning | None = None,
    passes: int = 0,
    precision: str | None = None,
) -> Sequential:
    """Make a network with given parameters and buffers."""
    model = Sequential(*layers, seed=seed, dtype=dtype, precision=precision)
    for name, view in model._arrays().items():
        view[...] = values[name]
    model.metadata.update(metadata)
    if frozen:
        model.freeze(*frozen)
    if masks:
        model._set_masks(masks)
    model._pruning = pruning
    model._program.passes = passes
    return model


def _mask(name: str, stored: Array, values: Array) -> Array:
    """Give the mask of a parameter that a file holds."""
    if stored.dtype != np.uint8:
        raise ValueError(f"{name}{_MASK} is {stored.dtype}, expected uint8")
    if stored.max() > 1:
        raise ValueError(f"{name}{_MASK} has the value {stored.max()}, expected 0 and 1")
    if values[stored == 0].any():
        raise ValueError(f"{name} is not 0 where its mask is")
    return stored.astype(bool)


def _statistics(function: str, x: Any, features: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the mean of each column of x, and what to multiply it by; in float64, of x as `dtype` holds it."""
    x = real_array(function, x)
    rows = len(x) if x.ndim > 1 else 0
    if rows == 0 or x.size != rows * features:
        raise ValueError(f"{function}: x has shape {x.shape}, expected (rows, {features}) with at least one row")
    mean, std = column_statistics(function, x, features, dtype)
    return mean, 1 / std
