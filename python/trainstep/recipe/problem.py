"""What a recipe is run on: data as they are trained on, networks with the same first weights, and Python that says the same."""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainstep import init, ops, optim
from trainstep._checks import float_dtype, number
from trainstep.data import train_test_split
from trainstep.data.batches import batch_rows
from trainstep.losses import LOSSES, Loss
from trainstep.nn import Dense, Sequential, Standardize
from trainstep.optim import Optimizer
from trainstep.trainer import Trainer

Array = NDArray[Any]
Pair = tuple[Array, Array]

TASKS = ("classification", "regression")
OVER_CLASSES = ("softmax_cross_entropy", "categorical_cross_entropy")
_OF_TASK = {"classification": (*OVER_CLASSES, "sigmoid_binary_cross_entropy", "hinge"), "regression": ("mse", "mae", "huber")}
# Small, so that the first outputs are near 0 and the first loss is that of a network that knows nothing.
_LAST_LAYER_STD = 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """Data, a network before its first step, and what all trainings have in common."""

    task: str
    train: Pair
    validation: Pair
    outputs: int
    loss: Loss
    network: Sequential
    optimizer: Optimizer
    batch_size: int
    seed: int
    code: "Code"

    def trainer(self, rate: float | Callable[[int], float], decay: float) -> Trainer:
        """Make a trainer of a copy of the network."""
        optimizer = copy.deepcopy(self.optimizer)
        optimizer.param_groups[0].update(options(self.optimizer, rate, decay))
        return Trainer(copy.deepcopy(self.network), self.loss, optimizer)

    def ignorant_loss(self, y: Array) -> float:
        """Give the loss of outputs that say nothing."""
        return float(self._loss(self._ignorant(len(y)), y))

    def gain(self, model: Sequential, x: Array, y: Array) -> Array:
        """Give by how much the loss of each row is below that of outputs that say nothing."""
        losses = [self._loss(output, y, reduction="none") for output in (self._ignorant(len(y)), model.predict(x))]
        gains: Array = np.subtract(*losses, dtype=np.float64).reshape(len(y), -1).mean(axis=1)
        return gains

    def _ignorant(self, rows: int) -> Array:
        """Give outputs of 0 or, of probabilities, the same for each class."""
        value = 1 / self.outputs if self.loss.name == "categorical_cross_entropy" else 0
        return np.full((rows, self.outputs), value, self.network.dtype)

    def _loss(self, output: Array, y: Array, **reduction: str) -> Any:
        options = asdict(self.loss)
        if options.get("weight") is not None:
            options["weight"] = np.array(options["weight"], output.dtype)
        return getattr(ops, self.loss.name)(output, y, **options, **reduction)[0]

    def updates(self, rows: int) -> int:
        """Give the number of updates in an epoch."""
        return -(-rows // self.batch_size)


@dataclass(frozen=True)
class Code:
    """The lines of Python before a trainer is made, and what `fit` is called with."""

    data: tuple[str, ...]
    model: str
    loss: str
    fit: str
    after: tuple[str, ...]


def options(optimizer: Optimizer, rate: Any, decay: float) -> dict[str, Any]:
    """Give the options of a candidate; an optimizer without decay has the rate alone."""
    return {"lr": rate, "weight_decay": decay} if "weight_decay" in optimizer.defaults else {"lr": rate}


def of(
    x: Any,
    y: Any,
    task: str | None,
    hidden: Sequence[int] | Callable[[], Sequential],
    validation_data: tuple[Any, Any] | None,
    validation_size: float,
    loss: str | Loss | None,
    optimizer: str | Optimizer,
    batch_size: int | str,
    dtype: Any,
    seed: int,
) -> Problem:
    """Check the arguments of `run` and make a problem of them."""
    x, y = _inputs("x", x), _targets("y", y)
    if len(x) != len(y):
        raise ValueError(f"run: x has {len(x)} rows, y has {len(y)}")
    kind, found = _task_and_loss(task, loss, y)
    optimizer = _optimizer(optimizer)
    dtype = float_dtype("run: dtype", dtype)
    over_classes = found.name in OVER_CLASSES
    if over_classes and y.ndim == 1 and y.dtype.kind == "f":
        raise TypeError(f"run: y has dtype {y.dtype}, expected class indices, which are integers")
    lines = []
    if validation_data is None:
        size = number("run: validation_size", validation_size, above=0)
        if size >= 1:
            raise ValueError(f"run: validation_size is {validation_size}, expected a fraction below 1")
        stratify = over_classes and y.ndim == 1
        try:
            x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=size, stratify=stratify, seed=seed)
        except ValueError as error:
            raise ValueError(f"run: the part to validate on cannot be taken: {error}") from None
        shown = f"test_size={size!r}, {'' if stratify else 'stratify=False, '}seed={seed}"
        lines.append(f"x_train, x_val, y_train, y_val = ts.data.train_test_split(x, y, {shown})")
    else:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise TypeError("run: validation_data is not (x, y)")
        x_train, y_train = x, y
        x_val, y_val = _inputs("validation_data[0] (x)", validation_data[0]), _targets("validation_data[1] (y)", validation_data[1])
        if x_val.shape[1:] != x.shape[1:] or y_val.shape[1:] != y.shape[1:] or len(x_val) != len(y_val):
            raise ValueError(f"run: validation_data has shapes {x_val.shape} and {y_val.shape}, beside x {x.shape} and y {y.shape}")
        lines.append("x_train, y_train = x, y")
    y_train, y_val, outputs, more = _prepared(kind, over_classes, y_train, y_val, dtype)
    lines += more
    network, model = _network(hidden, x.shape[1], outputs, dtype, seed)
    if not network._is_standardized():
        network.standardize(x_train)
    size = batch_rows("run: batch_size", batch_size, len(x_train))
    after = ("# model.predict(x) * spread + center is the target in its own unit",) if kind == "regression" else ()
    code = Code(tuple(lines), model, _loss_text(found), f"batch_size={size}, validation_data=(x_val, y_val)", after)
    return Problem(kind, (x_train, y_train), (x_val, y_val), outputs, found, network, optimizer, size, seed, code)


def _inputs(name: str, values: Any) -> Array:
    try:
        x = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"run: {name} cannot be read as an array: {error}") from None
    if x.dtype.kind not in "fiub":
        raise TypeError(f"run: {name} has dtype {x.dtype}, expected real numbers")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"run: {name} has shape {x.shape}, expected (rows, columns), at least one of each")
    _finite(name, x)
    return x


def _targets(name: str, values: Any) -> Array:
    try:
        y = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"run: {name} cannot be read as an array: {error}") from None
    if y.dtype.kind not in "fiub":
        raise TypeError(f"run: {name} has dtype {y.dtype}, expected class indices or real numbers")
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ValueError(f"run: {name} has shape {y.shape}, expected (rows,) or (rows, outputs)")
    _finite(name, y)
    return y


def _finite(name: str, values: Array) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise ValueError(f"run: {name} is not finite in row {row}")


def _task_and_loss(task: str | None, loss: str | Loss | None, y: Array) -> tuple[str, Loss]:
    if task not in (None, *TASKS):
        raise ValueError(f"run: task is {task!r}, expected None or one of {', '.join(TASKS)}")
    if isinstance(loss, str) and loss in LOSSES:
        loss = LOSSES[loss]()
    known = [name for names in _OF_TASK.values() for name in names]
    if loss is not None and (not isinstance(loss, Loss) or loss.name not in known):
        shown = repr(loss.name if isinstance(loss, Loss) else loss)
        raise ValueError(f"run: loss is {shown}, expected one of {', '.join(known)}, or one of trainstep.losses of such a name")
    if task is None:
        by_loss = [name for name, names in _OF_TASK.items() if loss is not None and loss.name in names]
        task = by_loss[0] if by_loss else "classification" if y.ndim == 1 and y.dtype.kind in "iub" else "regression"
    if loss is None:
        loss = LOSSES[_OF_TASK[task][0]]()
    if loss.name not in _OF_TASK[task]:
        raise ValueError(f"run: loss is {loss.name!r}, expected one of {', '.join(_OF_TASK[task])} for {task}")
    return task, loss


def _optimizer(given: Any) -> Optimizer:
    if isinstance(given, Optimizer):
        if given.param_groups[0]["params"]:
            raise ValueError("run: optimizer has its parameters, expected one made without")
        return given
    if not isinstance(given, str):
        raise TypeError(f"run: optimizer is a {type(given).__name__}, expected a name or one of trainstep.optim")
    classes = {name.lower(): value for name, value in vars(optim).items() if isinstance(value, type) and name in optim.__all__}
    del classes["optimizer"]
    if given.lower() not in classes:
        raise ValueError(f"run: optimizer is {given!r}, expected one of {', '.join(classes)}")
    made: Optimizer = classes[given.lower()]()
    return made


def _prepared(task: str, over_classes: bool, y: Array, y_val: Array, dtype: np.dtype[Any]) -> tuple[Array, Array, int, list[str]]:
    """Give targets as the loss takes them, the outputs that they need, and the lines that do the same."""
    if over_classes and y.ndim == 1:
        lowest, highest = int(min(y.min(), y_val.min())), int(max(y.max(), y_val.max()))
        if lowest < 0:
            raise ValueError(f"run: y has class {lowest}, expected class indices of at least 0")
        if y.min() == y.max():
            raise ValueError(f"run: y has one class, {int(y[0])}, expected at least 2")
        if y.dtype.kind in "iu":
            return y, y_val, highest + 1, []
        return y.astype(np.int64), y_val.astype(np.int64), 2, ['y_train, y_val = y_train.astype("int64"), y_val.astype("int64")']
    if over_classes:
        return y.astype(dtype), y_val.astype(dtype), y.shape[1], []
    lines = []
    if y.ndim == 1:
        y, y_val = y[:, None], y_val[:, None]
        lines.append("y_train, y_val = y_train[:, None], y_val[:, None]")
    if task == "regression":
        # Learnt with mean 0 and standard deviation 1, so that neither the loss nor what the learning rate does depends on the unit.
        center, spread = y.mean(axis=0), y.std(axis=0)
        for column in np.flatnonzero(~(spread > 0))[:1]:
            raise ValueError(f"run: y has one value, {y[0, column]:g}, in column {column}, expected at least 2")
        y, y_val = (y - center) / spread, (y_val - center) / spread
        lines.append("center, spread = y_train.mean(axis=0), y_train.std(axis=0)")
        lines.append("y_train, y_val = (y_train - center) / spread, (y_val - center) / spread")
    return y.astype(dtype), y_val.astype(dtype), y.shape[1], lines


def _network(
    hidden: Sequence[int] | Callable[[], Sequential], columns: int, outputs: int, dtype: np.dtype[Any], seed: int
) -> tuple[Sequential, str]:
    """Make the network, and the text that makes it."""
    if callable(hidden):
        network = hidden()
        if not isinstance(network, Sequential):
            raise TypeError(f"run: hidden gave a {type(network).__name__}, expected a trainstep.nn.Sequential")
        width = network.layers[-1].out_features
        if width != outputs:
            raise ValueError(f"run: hidden gave a network of {width} outputs, y needs {outputs}")
        return network, f"model = {getattr(hidden, '__name__', 'make_model')}()"
    if not isinstance(hidden, Sequence):
        raise TypeError(f"run: hidden is a {type(hidden).__name__}, expected widths, or a function that makes a network")
    if not all(isinstance(width, int | np.integer) and width >= 1 for width in hidden):
        raise ValueError(f"run: hidden is {hidden!r}, expected widths of at least 1, or a function that makes a network")
    widths = [columns, *map(int, hidden)]
    layers = [Dense(n, m, activation="relu") for n, m in pairwise(widths)]
    last = Dense(widths[-1], outputs, init=init.normal(std=_LAST_LAYER_STD))
    network = Sequential(Standardize(columns), *layers, last, seed=seed, dtype=dtype)
    shown = [f"Standardize({columns})", *(f'Dense({n}, {m}, activation="relu")' for n, m in pairwise(widths))]
    shown.append(f"Dense({widths[-1]}, {outputs}, init=ts.init.normal(std={_LAST_LAYER_STD}))")
    rest = f"seed={seed}" if dtype == np.float32 else f'seed={seed}, dtype="{dtype}"'
    lines = ["model = ts.nn.Sequential(", *(f"    ts.nn.{layer}," for layer in shown), f"    {rest},", ")"]
    return network, "\n".join(lines)


def _loss_text(loss: Loss) -> str:
    return f'"{loss.name}"' if loss == LOSSES[loss.name]() else f"ts.losses.{loss!r}"


def optimizer_text(optimizer: Optimizer, rate: float, decay: float) -> str:
    """Write the call that makes an optimizer with a candidate's options."""
    usual = inspect.signature(type(optimizer)).parameters
    group = {**optimizer.param_groups[0], "state_dtype": optimizer._state_dtype, "seed": optimizer._seed}
    chosen = options(optimizer, rate, decay)
    others = {
        name: group[name]
        for name, parameter in usual.items()
        if name in group and name not in ("params", *chosen) and group[name] != parameter.default
    }
    return f"ts.optim.{type(optimizer).__name__}({', '.join(f'{k}={v!r}' for k, v in (chosen | others).items())})"
