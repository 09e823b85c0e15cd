"""Trainer: a model, a loss and an optimizer, run as one compiled step."""

import copy
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from trainstep import _core, checkpoint
from trainstep._checks import integer, number, switch
from trainstep._feeds import Arrays, Hooks, Stream, gives_batches
from trainstep._progress import Bar
from trainstep.averages import Average, take_statistics
from trainstep.callbacks.base import Callback, running
from trainstep.data.batches import LARGEST_BATCH
from trainstep.history import History
from trainstep.losses import LOSSES, Loss
from trainstep.metrics import METRICS, Metric
from trainstep.nn import Sequential
from trainstep.optim import Adam, Optimizer

_TRAINERS = {"float32": _core.TrainerFloat32, "float64": _core.TrainerFloat64}
# A loss of one's own: (y_pred, y_true) -> (loss, dy).
CustomLoss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]
_EVALUATION_BATCH = 1024


class DivergenceError(RuntimeError):
    """A loss of `Trainer.fit` that is not finite, or has stopped being so.

    Parameters
    ----------
    epoch, step : int
        Where it came up, counted from 1 over the life of the trainer.
    layer : str
        The first layer that gave a number that is not finite, by its path in the network ("0", within a block "3.0"); "loss" where
        all outputs were finite.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> model = ts.nn.Sequential(ts.nn.Dense(1, 1, init="ones"))
    >>> trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.SGD(lr=1e3))
    >>> try:
    ...     history = trainer.fit(np.full((4, 1), 1e3), np.zeros((4, 1)), epochs=10)
    ... except ts.DivergenceError as error:
    ...     print(error.epoch, error.step, error.layer)
    3 3 loss
    """

    def __init__(self, epoch: int, step: int, layer: str) -> None:
        where = "the loss" if layer == "loss" else f"the output of layer {layer}"
        super().__init__(
            f"fit: {where} is not finite in epoch {epoch}, step {step}; what helps: a smaller lr, clip_norm, a standardized x"
        )
        self.epoch, self.step, self.layer = epoch, step, layer

    def __reduce__(self) -> tuple[Any, ...]:
        return DivergenceError, (self.epoch, self.step, self.layer)


class Trainer:
    """Trains a model: forward, loss, backward and update in one call into the core.

    w <- w - update(dL/dw), L = mean over the batch of loss(model(x), y)

    Parameters
    ----------
    model : Sequential
        What is trained, in place.
    loss : str, Loss or callable, default "softmax_cross_entropy"
        The name of a function of `trainstep.ops`: for class indices or rows of probabilities ``softmax_cross_entropy``,
        ``kl_divergence`` and, where the model's last activation is softmax, ``categorical_cross_entropy``; for columns of 0 and 1
        ``sigmoid_binary_cross_entropy``, for -1 and 1 ``hinge``; for numbers ``mse``, ``mae`` and ``huber``; for counts
        ``poisson_nll``. Or one of `trainstep.losses`, with options: ``Huber(delta=2.0)``. Or a function of one's own,
        ``loss(y_pred, y_true) -> (loss, dy)``: it is called once in a step, with copies of the model's output, shape (rows,
        out_features), and of the batch's rows of y, which may then be any array; it gives the mean loss and its gradient with
        respect to y_pred, of y_pred's shape and dtype, finite or not. All else of the step is compiled as before. What it raises
        ends the step or epoch with nothing changed by that batch. It cannot run the model itself (RuntimeError), and takes no
        sample_weight.
    optimizer : Optimizer, optional
        Made without parameters, or with the model's own, as `Sequential.param_groups` gives them: each that is not frozen must be
        there. Default: ``Adam()``.
    clip_norm : float, optional
        The norm that all gradients together may have, above 0: they are multiplied by min(1, clip_norm / (norm + 1e-6)), as
        `torch.nn.utils.clip_grad_norm_` does. Default: they are not clipped.
    l1, l2 : float, default 0.0
        At least 0: the loss, also that of `evaluate`, is L + l1 * sum(abs(w)) + l2 * sum(w^2) over the weights of the dense layers
        that are not frozen, as Keras has it, and the gradients that of it. (An optimizer's ``weight_decay`` is its own.)
    max_norm : float, optional
        The Euclidean norm that the weights of a unit, a column, may have, above 0: after the update a longer one is scaled down to
        it. Frozen weights stay. Default: any.
    seed : int, optional
        What the order of the data follows from. Default: the model's.
    fuse_update : bool, optional
        Whether each tile of a weight's gradient goes through the optimizer while it is in cache and never reaches memory. The bits
        are the same. There is then no gradient to look at: `Sequential.gradients` raises RuntimeError after such a step. Default:
        where it pays, in steps of 16 to 128 rows on 1 MiB of parameters or more, of a network of one hidden layer and at most 32
        outputs 128 KiB, unless gradients were asked for before the first. Not together with ``clip_norm``, ``max_norm`` or a model
        that is pruned.
    penalize_bias : bool, default False
        Whether l1 and l2 are of all parameters, biases, gamma and beta among them.
    metrics : list of str or Metric, optional
        What `fit` and `evaluate` measure besides the loss, by the names of `trainstep.metrics` or with options: ``["f1",
        ts.metrics.TopK(5)]``. Those of classes go with losses of classes, with a loss of two classes on one column, and with
        ``mse``, ``mae`` and ``huber`` on one-hot rows; those of numbers with the latter three; with a loss of one's own either the
        ones or the others, with y as they take it. Weights of the rows count. "accuracy" takes the place of the loss's own.
    average : Average, optional
        An average of the weights that is kept beside the model: one of `trainstep.averages`. Default: none.
    precision : {"float32", "bf16_x6", "bf16_x3", "bf16", "highest", "high", "medium"}, optional
        How the products of a float32 model are calculated in `step`, `fit` and `evaluate`; see `trainstep.set_matmul_precision`.
        Outside of them the model keeps its own. Default: the model's.

    Raises
    ------
    ValueError
        Where loss is not known or its weight has another length than the output, the optimizer has parameters that are not the
        model's or lacks one that is not frozen, a number is out of its range, precision is unknown, or other than "float32" with a
        float64 model, or fuse_update is True where the update needs whole
        gradients (``clip_norm``, LAMB, LARS) or arrays (``max_norm``, a model that is pruned, states in fewer bits).
    TypeError
        Where model or optimizer is of another kind.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), sections 8.1.3, 7.1 (l1, l2) and 10.11.1 (clip_norm); Srivastava et al.:
    Dropout (JMLR 15, 2014), section 5.1 (max_norm).

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.Dense(32, 10), seed=0)
    >>> trainer = ts.Trainer(model, loss="softmax_cross_entropy", optimizer=ts.optim.Adam(lr=1e-2))
    >>> history = trainer.fit(x, y, epochs=5, batch_size=64)
    >>> history.history["accuracy"][-1] > 0.9
    True
    """

    def __init__(
        self,
        model: Sequential,
        loss: str | Loss | CustomLoss = "softmax_cross_entropy",
        optimizer: Optimizer | None = None,
        clip_norm: float | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        max_norm: float | None = None,
        seed: int | None = None,
        fuse_update: bool | None = None,
        *,
        penalize_bias: bool = False,
        metrics: Iterable[str | Metric] | None = None,
        average: Average | None = None,
        precision: str | None = None,
    ) -> None:
        if not isinstance(model, Sequential):
            raise TypeError(f"Trainer: model is a {type(model).__name__}, expected a trainstep.nn.Sequential")
        optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer: optimizer is a {type(optimizer).__name__}, expected one of trainstep.optim")
        precision = _core.matmul_precision_named("Trainer", precision, model.dtype.name)
        seed = model.seed if seed is None else integer("Trainer: seed", seed)
        self._loss = _loss_of(loss)
        rules: dict[str, Any] = {
            "l1": number("Trainer: l1", l1, 0),
            "l2": number("Trainer: l2", l2, 0),
            "penalize_bias": switch("Trainer: penalize_bias", penalize_bias),
            "clip_norm": 0.0 if clip_norm is None else number("Trainer: clip_norm", clip_norm, above=0),
            "max_norm": 0.0 if max_norm is None else number("Trainer: max_norm", max_norm, above=0),
        }
        if fuse_update is not None:
            fuse_update = switch("Trainer: fuse_update", fuse_update)
        whole = [name for name in ("clip_norm", "max_norm") if rules[name]]
        if fuse_update and (whole or any(mask is not None for mask in model._program.masks())):
            raise ValueError(
                f"Trainer: fuse_update is True, expected None or False with {whole[0] if whole else 'a model that is pruned'}"
            )
        if fuse_update and optimizer._kind in _core.whole_tensor_optimizers:
            raise ValueError(
                f"Trainer: fuse_update is True, expected None or False with {type(optimizer).__name__}, which needs whole gradients"
            )
        if fuse_update and optimizer._state_dtype is not None:
            raise ValueError(
                f"Trainer: fuse_update is True, expected None or False with an optimizer whose state_dtype is "
                f"{optimizer._state_dtype!r}: its states are stepped in whole blocks"
            )
        name: str | None = None
        options: tuple[tuple[float, ...] | None, float, float] = (None, 0.0, 1.0)
        if isinstance(self._loss, Loss):
            name, options = self._loss.name, self._loss._options()
            classes = model._program.out_features
            if options[0] is not None and len(options[0]) != classes:
                raise ValueError(f"Trainer: loss has weights for {len(options[0])} classes, the model has {classes}")
        self._metrics = _metrics_of(metrics)
        settings = [metric._setting() for metric in self._metrics]
        _core.check_metrics(settings, name, model._program.out_features)
        if isinstance(average, type) or not isinstance(average, Average | None) or type(average) is Average:
            raise TypeError(f"Trainer: average is {average!r}, expected one of trainstep.averages, such as EMA()")
        places = optimizer._bind(model.parameters())
        lacking = [parameter for parameter, place in places.items() if place is None and parameter not in model.frozen]
        if lacking:
            raise ValueError(f"Trainer: the optimizer lacks {lacking[0]}, expected all parameters that are not frozen")
        self._model = model
        self._optimizer = optimizer
        self._seed = seed
        self._custom_loss = None if isinstance(self._loss, Loss) else self._loss
        self._given: dict[str, Any] = {rule: value or None if rule.endswith("_norm") else value for rule, value in rules.items()}
        self._places = places
        self._runs: list[_Run] = []
        self._turn = threading.Lock()  # so that of two threads that begin or end a fit one sees the other
        self._fuse_update = fuse_update
        self._callback_states: list[tuple[str, dict[str, Any]]] = []  # of a file, for the next fit
        self._history = History()
        self._unfinished_of: list[Any] | None = None  # the identity of the feed whose epoch is not over
        # An exception may come between an epoch's last step and its end, which the next fit then sees to.
        self._ended = 0  # epochs whose end has been seen to
        self._owed: dict[str, float] | None = None  # the measures of another, where it comes from a file
        self._core = _TRAINERS[model.dtype.name](
            model._program, name, options, optimizer._core, list(places.values()), fuse_update, rules, precision
        )
        self._core.set_metrics(settings)
        self._average = average
        if average is not None:
            self._core.keep_average(*average._decay())

    @property
    def model(self) -> Sequential:
        """The model that is trained."""
        return self._model

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, with the model's parameters."""
        return self._optimizer

    @property
    def loss(self) -> Loss | CustomLoss:
        """The loss, with its options."""
        return self._loss

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured besides the loss."""
        return self._metrics

    @property
    def average(self) -> Average | None:
        """The average of the weights that is kept."""
        return self._average

    @property
    def precision(self) -> str | None:
        """How the products of a step are calculated; None: as the model's own."""
        return self._core.precision

    @property
    def averages(self) -> int:
        """How often weights have been taken into the average."""
        return int(self._core.averages)

    @property
    def history(self) -> History:
        """The record of all epochs, also of those before `save` and `load`."""
        return self._history

    @property
    def epoch(self) -> int:
        """The number of epochs that have been completed."""
        return int(self._core.epochs)

    @property
    def steps(self) -> int:
        """The number of updates so far."""
        return int(self._optimizer._core.steps)

    def _copy(self) -> "Trainer":
        """Give a trainer over a copy of the model, whose next step does what this one's would."""
        model = copy.deepcopy(self._model)
        place_of = {place: name for name, place in self._places.items() if place is not None}
        views = model.parameters()
        optimizer = self._optimizer._over([views[place_of[place]] for place in sorted(place_of)])
        return Trainer(model, self._loss, optimizer, seed=self._seed, precision=self.precision, **self._given)

    def averaged_model(self, x: Any = None, batch_size: int = _EVALUATION_BATCH) -> Sequential:
        """Make a network that has the average of the weights.

        A copy of the model: what is frozen, pruned and in its metadata is as there. Its buffers are averaged like the weights or,
        with x, taken from x anew: the running statistics of BatchNorm are then the means of those of the batches, in training mode,
        as `torch.optim.swa_utils.update_bn` makes them.

        Parameters
        ----------
        x : array, shape (rows, in_features), optional
            Rows to take the statistics of BatchNorm from, such as those of the training; any real dtype.
        batch_size : int, default 1024
            Rows of x in a batch, at least 2; the last may be smaller, and is left out where it has one row, and no variance.

        Returns
        -------
        model : Sequential

        Raises
        ------
        ValueError, TypeError
            Where the trainer keeps no average, or has taken none yet, or an argument does not fit.

        References
        ----------
        Izmailov et al., Averaging weights leads to wider optima and better generalization (UAI 2018), section 3.2.

        Examples
        --------
        >>> import trainstep as ts
        >>> x, y = ts.data.load_digits()
        >>> model = ts.nn.Sequential(ts.nn.Dense(64, 32, activation="relu"), ts.nn.BatchNorm(), ts.nn.Dense(32, 10), seed=0)
        >>> trainer = ts.Trainer(model, optimizer=ts.optim.Adam(lr=1e-2), average=ts.averages.EMA(decay=0.99, warmup=True))
        >>> history = trainer.fit(x, y, epochs=3)
        >>> averaged = trainer.averaged_model()
        >>> bool((averaged.predict(x).argmax(axis=1) == y).mean() > 0.9)
        True
        """
        batch_size = integer("averaged_model: batch_size", batch_size, 2, LARGEST_BATCH)
        if self._average is None:
            raise ValueError("averaged_model: the trainer keeps no average, expected Trainer(..., average=)")
        if self.averages == 0:
            raise ValueError(f"averaged_model: nothing has been averaged yet, expected some training with {self._average!r}")
        model = copy.deepcopy(self._model)
        weights, buffers = self._core.average_arrays(self._core)
        masks = model._masks()
        for views, averaged in ((model.parameters(), weights), (model.buffers(), buffers)):
            for name, values in averaged:
                views[name][...] = values * masks[name] if name in masks else values
        if x is not None:
            take_statistics(model, x, batch_size)
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of the run to a file: model, optimizer with states and schedules, loss, history, and where it stands.

        A trainer that `load` makes of it goes on in the same bits, also in the middle of an epoch, with the same arguments of
        `fit`. While a `fit` runs, the states of its callbacks are saved too (`Callback.state_dict`).

        Parameters
        ----------
        path : str or path
            The file, of safetensors. It appears whole or not at all: it is written beside its place, then renamed.

        Raises
        ------
        OSError
            Where the file cannot be written.
        TypeError, ValueError
            Where the optimizer is of a class of one's own, or `Sequential.metadata` or a callback's state cannot be saved.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import trainstep as ts
        >>> x, y = np.eye(4), np.arange(4)
        >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(4, 4)))
        >>> history = trainer.fit(x, y, epochs=2)
        >>> trainer.save(path)
        >>> resumed = ts.Trainer.load(path)
        >>> resumed.fit(x, y, epochs=2).history["loss"] == trainer.fit(x, y, epochs=2).history["loss"]
        True
        """
        checkpoint.save(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, loss: CustomLoss | None = None, schedule: Callable[[int], float] | None = None
    ) -> "Trainer":
        """Read a trainer that `save` wrote.

        The layers' initialisers and `Sequential.pruning` are not in the file.

        Parameters
        ----------
        path : str or path
            The file.
        loss : callable, optional
            The loss, where it was a function of one's own.
        schedule : callable, optional
            The optimizer's lr, where it was a function of one's own, for each param group where it was.

        Returns
        -------
        trainer : Trainer
            Which goes on as the one that was saved.

        Raises
        ------
        OSError
            Where the file cannot be read.
        ValueError
            Where it is no trainer's file, or a damaged one; where loss or schedule are lacking, or the file has its own.

        Examples
        --------
        >>> import os, tempfile
        >>> import trainstep as ts
        >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> ts.Trainer(ts.nn.Sequential(ts.nn.Dense(3, 2)), loss="mse", optimizer=ts.optim.SGD(lr=0.5)).save(path)
        >>> ts.Trainer.load(path).optimizer.lr
        0.5
        """
        return checkpoint.load(path, loss, schedule)

    def step(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        """Do one training step on a batch.

        w <- w - update(dL/dw), L = mean over the batch of loss(model(x), y)

        With weights the mean is sum(weight * loss) / sum(weight), and 0 where all weights are.

        Parameters
        ----------
        x : array, shape (rows, in_features)
            Any real dtype.
        y : array
            Class indices, shape (rows,), any integer dtype, or one row of targets for each row of x.
        sample_weight : array, shape (rows,), optional
            Weights of the rows, at least 0; any real dtype. Default: 1 each.

        Returns
        -------
        loss : float
            L before the update.

        Raises
        ------
        ValueError, TypeError
            Where x or y does not fit; nothing has been changed then.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), algorithms 6.4 and 8.1.

        Examples
        --------
        With ten classes and all weights zero the loss is ln 10.

        >>> import numpy as np
        >>> import trainstep as ts
        >>> model = ts.nn.Sequential(ts.nn.Dense(3, 10, init="zeros"))
        >>> round(ts.Trainer(model).step(np.ones((4, 3), dtype="float32"), np.arange(4)), 4)
        2.3026
        """
        if self._optimizer._rates:
            self._optimizer._prepare()
        return self._core.step(x, y, sample_weight, self._custom_loss)

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int | None = None,
        batch_size: int | str = 32,
        validation_data: tuple[Any, Any] | tuple[Any, Any, Any] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        sample_weight: Any = None,
        progress: bool = False,
        callbacks: Iterable[Callback] | None = None,
        *,
        until_epoch: int | None = None,
        accumulate: int = 1,
        steps_per_epoch: int | None = None,
        on_divergence: str = "restore",
    ) -> History:
        """Train for some more epochs.

        A `Standardize` layer whose mean and scale are not set yet gets them from x first (`Sequential.standardize`).

        Where the optimizer's lr is a schedule, each step has the rate of the number of updates before it. A `schedules.Plateau`
        takes in each epoch's loss.

        Ctrl-C is answered between two steps: KeyboardInterrupt is raised with the model as the last whole step left it. An epoch
        that ended so, or by `stop`, goes on in the next `fit` on as many rows, also after `save` and `load`: the order of the rows
        is a function of (seed, epoch).

        Parameters
        ----------
        x : array, shape (rows, in_features), or batches
            Any real dtype; batches are gathered and cast as they are used, so x may be a memmap larger than memory. Or
            `data.Batches`, or any iterable, iterator or function of the epoch (0 is the first) that gives an iterable of batches
            ``(x, y)`` or ``(x, y, sample_weight)``: each is gone through once an epoch, an iterator once in all. y and
            sample_weight must be None then, and batch_size, shuffle and drop_last do not apply: batches are taken as they come.
            Where an epoch goes on, those that have been trained on are left out.
        y : array, optional
            Class indices, shape (rows,), or one row of targets for each row of x.
        epochs : int, default 1
            Passes over x.
        batch_size : int or "sqrt", default 32
            Rows in a batch; the last of an epoch may be smaller. "sqrt": the square root of the number of rows, rounded.
        validation_data : (x, y) or (x, y, sample_weight), optional
            What is evaluated after each epoch.
        shuffle : bool, default True
            Whether each epoch takes the rows in a new order, a function of (seed, epoch).
        drop_last : bool, default False
            Leave out a last batch that is smaller.
        sample_weight : array, shape (rows,), optional
            Weights of the rows, at least 0; any real dtype. The mean of a batch is divided by the sum of its weights, and an
            epoch's loss by that of all. Accuracy is not weighted. Default: 1 each.
        progress : bool, default False
            Show a progress bar with loss and accuracy on stderr.
        callbacks : list of Callback, optional
            What is called before and after the training, each epoch and each step, in this order: see `trainstep.callbacks`. What
            one of them raises ends the training; `stop` ends it after the epoch, in a step's hook after the step.
        until_epoch : int, optional
            Train until `epoch` is this, in place of so many epochs: nothing, where it is already.
        accumulate : int, default 1
            Batches whose gradients make one update, that of the mean over all their rows, as one large batch has it. The last
            update of an epoch may be of fewer.
        steps_per_epoch : int, optional
            Updates in an epoch, where x gives batches. Default: until they end.
        on_divergence : {"restore", "keep"}, default "restore"
            What a loss that is not finite leaves: all as it was after the last epoch whose loss was finite, of which a copy of
            parameters and states is kept, or all as it was before that step.

        Returns
        -------
        history : History
            Of this call: ``loss`` (mean over the epoch, before the updates), ``accuracy``, the trainer's metrics (of the same
            predictions), ``val_loss``, ``val_accuracy`` and others with ``val_``, ``lr`` and ``seconds`` (of training) for each
            epoch. That of all calls is `Trainer.history`.

        Raises
        ------
        ValueError, TypeError
            Where an argument does not fit; nothing has been changed then.
        DivergenceError
            Where a step's loss is not finite: see on_divergence.
        RuntimeError
            Where another thread is in a fit of this trainer.
        KeyboardInterrupt
            Where Ctrl-C was pressed.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 8.1.3.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> x = np.linspace(-1, 1, 200, dtype="float32").reshape(-1, 1)
        >>> model = ts.nn.Sequential(ts.nn.Dense(1, 16, activation="tanh"), ts.nn.Dense(16, 1))
        >>> trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.Adam(lr=0.01))
        >>> history = trainer.fit(x, x**2, epochs=100, batch_size=20)
        >>> history.history["loss"][-1] < 0.01
        True
        """
        epochs = self._epochs(epochs, until_epoch)
        accumulate = integer("fit: accumulate", accumulate, 1, LARGEST_BATCH)
        shuffle, drop_last = switch("fit: shuffle", shuffle), switch("fit: drop_last", drop_last)
        progress = switch("fit: progress", progress)
        if on_divergence not in ("restore", "keep"):
            raise ValueError(f"fit: on_divergence is {on_divergence!r}, expected 'restore' or 'keep'")
        called = _callbacks(callbacks)
        feed: Arrays | Stream
        if gives_batches(x, y):
            if y is not None or sample_weight is not None:
                name = "sample_weight" if y is None else "y"
                raise ValueError(f"fit: {name} is given, expected None where x gives batches")
            feed = Stream(x, epochs, steps_per_epoch, accumulate)
        else:
            if steps_per_epoch is not None:
                raise ValueError(f"fit: steps_per_epoch is {steps_per_epoch!r}, expected None where x is an array")
            feed = Arrays(self, (x, y, sample_weight), batch_size, shuffle, drop_last, accumulate)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
                raise TypeError("fit: validation_data is neither (x, y) nor (x, y, sample_weight)")
            validation = self._core.data(
                *validation_data[:2],
                "fit",
                "validation_data[0] (x)",
                "validation_data[1] (y)",
                validation_data[2] if len(validation_data) == 3 else None,
                "validation_data[2] (sample_weight)",
                self._custom_loss,
            )
        with self._run(x, y, called) as run:
            self._begin(feed, x)
            self._resume(called)
            history = History()
            bar = Bar(epochs, feed.updates(0)) if progress else None
            with closing(bar) if bar else nullcontext(), running(called, self):
                last = self.epoch + epochs
                if self.epoch > self._ended:
                    self._end_epoch(run, validation, last, history)
                for _ in range(epochs):
                    if run.stopped or not self._epoch(feed, run, on_divergence == "restore", bar):
                        break
                    values = self._end_epoch(run, validation, last, history)
                    if bar:
                        bar.end_epoch(values)
        return history

    def _begin(self, feed: "Arrays | Stream", x: Any) -> None:
        """Go on with the epoch that is not over where the feed may be of it, or else begin one."""
        self._core.set_fit()  # leaves out what waited for an update
        if self._unfinished_of != feed.identity:
            self._core.unfinished = (0.0, 0.0, 0, 0, 0, 0, 0)
        updates = feed.updates(self._core.unfinished[4])
        if isinstance(feed, Arrays) and updates:
            self._optimizer._rate_table(updates)  # raises where a rate is none, before anything is changed
        if not self._model._is_standardized():
            if isinstance(feed, Stream):
                raise ValueError(
                    "fit: the network's Standardize layer is not set, expected model.standardize(x) where x gives batches"
                )
            self._model._standardize("fit", x)
        self._unfinished_of = feed.identity

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("Trainer: a trainer cannot be pickled or copied, expected save and load")

    def _resume(self, called: list[Callback]) -> None:
        """Give callbacks the states that a file had of callbacks of their class, in order."""
        states, self._callback_states = self._callback_states, []
        for callback in called:
            mine = next((entry for entry in states if entry[0] == type(callback).__name__), None)
            if mine is not None:
                states.remove(mine)
                callback.trainer = self
                callback.load_state_dict(mine[1])

    def _epochs(self, epochs: int | None, until_epoch: int | None) -> int:
        """Give the number of epochs to train for."""
        if until_epoch is None:
            return 1 if epochs is None else integer("fit: epochs", epochs, 1)
        if epochs is not None:
            raise ValueError(f"fit: epochs is {epochs!r}, expected None beside until_epoch")
        return max(0, integer("fit: until_epoch", until_epoch, 1) - self.epoch)

    def _epoch(self, feed: "Arrays | Stream", run: "_Run", restores: bool, bar: Bar | None) -> bool:
        """Train on an epoch, or what is left of it: whether it came to its end."""
        for callback in run.callbacks:
            callback.on_epoch_begin(self.epoch + 1)
        if restores:
            self._core.remember()
        start = time.perf_counter()
        try:
            whole = feed.run(self, run.hooks(self), bar.update if bar else None)
        finally:
            self._core.set_fit()
            run.seconds += time.perf_counter() - start
        if self._core.diverged is None:
            return whole
        error = DivergenceError(self.epoch + 1, self.steps + 1, self._core.diverged)
        if restores:
            self._core.restore()
        handlers = [callback for callback in run.callbacks if callback.handles_divergence]
        if not handlers:
            raise error
        for handler in handlers:
            handler.on_divergence(error)
        return False

    def _end_epoch(self, run: "_Run", validation: Any, last: int, history: History) -> dict[str, float]:
        """See to all that comes at the end of an epoch, and give what was measured of it."""
        values = {**self._unseen(), "seconds": run.seconds}
        if validation is not None:
            values |= {f"val_{name}": value for name, value in self._measure(validation, _EVALUATION_BATCH).items()}
        values["lr"] = self._optimizer.lr
        for record in (history, self._history):
            record.append(self.epoch, **values)
        self._optimizer._feed_plateaus(values)
        if self._average is not None and self._average._due(self.epoch, last):
            self._core.average()
        self._ended, self._owed, run.seconds = self.epoch, None, 0.0
        for callback in run.callbacks:
            callback.on_epoch_end(self.epoch, values.copy())
        return values

    def _unseen(self) -> dict[str, float]:
        """Give the measures of the epoch whose end has not been seen to."""
        return self._measures(*self._core.last_epoch()) if self._owed is None else self._owed

    def stop(self) -> None:
        """End the `fit` that runs after the epoch that it is in, or from a step's hook after that step: for callbacks.

        Raises
        ------
        RuntimeError
            Where no fit runs.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> class UntilGood(ts.callbacks.Callback):
        ...     def on_epoch_end(self, epoch, values):
        ...         if values["loss"] < 0.5:
        ...             self.trainer.stop()
        >>> model = ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros"))
        >>> trainer = ts.Trainer(model, loss="mse", optimizer=ts.optim.SGD(lr=0.1))
        >>> history = trainer.fit(np.ones((8, 1)), np.ones((8, 1)), epochs=100, batch_size=8, callbacks=[UntilGood()])
        >>> history.epoch
        [1, 2]
        """
        if not self._runs:
            raise RuntimeError("stop: no fit runs")
        self._runs[-1].stopped = True

    @contextmanager
    def _run(self, x: Any, y: Any, callbacks: list[Callback]) -> Iterator["_Run"]:
        run = _Run(x, y, callbacks, threading.get_ident())
        try:
            with self._turn:
                if self._runs and self._runs[0].thread != run.thread:
                    raise RuntimeError("fit: another thread is in a fit of this trainer, expected one at a time")
                self._runs.append(run)  # a list, for a callback may call fit itself
            yield run
        finally:
            with self._turn:
                if run in self._runs:
                    self._runs.remove(run)
                    if not self._runs:
                        self._core.forget()

    def evaluate(self, x: Any, y: Any, batch_size: int = _EVALUATION_BATCH, sample_weight: Any = None) -> dict[str, float]:
        """Measure loss and accuracy without changing anything.

        L = mean over all rows of loss(model(x), y)

        Accuracy is the share of rows whose first largest output is the first largest target, or of elements that are on the
        target's side of 0 (``sigmoid_binary_cross_entropy``, where a target above 0.5 is the upper side, and ``hinge``).

        Parameters
        ----------
        x : array, shape (rows, in_features)
            Any real dtype.
        y : array
            As for `step`.
        batch_size : int, default 1024
            Rows that are run at a time.
        sample_weight : array, shape (rows,), optional
            Weights of the rows in the loss, at least 0; any real dtype. Default: 1 each.

        Returns
        -------
        measures : dict
            ``loss``, ``accuracy`` where the loss is one for classification, and the metrics that the trainer was given.

        Raises
        ------
        ValueError, TypeError
            Where an argument does not fit.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 5.1.2.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(3, 10, init="zeros")))
        >>> measures = trainer.evaluate(np.ones((4, 3)), np.array([0, 1, 2, 3]))
        >>> round(measures["loss"], 4), measures["accuracy"]
        (2.3026, 0.25)
        """
        batch_size = integer("evaluate: batch_size", batch_size, 1, LARGEST_BATCH)
        data = self._core.data(x, y, "evaluate", "x", "y", sample_weight, callers_loss=self._custom_loss)
        return self._measure(data, batch_size)

    def _measure(self, data: Any, batch_size: int) -> dict[str, float]:
        return self._measures(*self._core.evaluate(data, batch_size))

    def _measures(self, loss: float, accuracy: float | None, metrics: tuple[float, ...]) -> dict[str, float]:
        values = {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}
        return values | {metric.measure: value for metric, value in zip(self._metrics, metrics, strict=True)}


def _metrics_of(metrics: Any) -> tuple[Metric, ...]:
    if metrics is None:
        return ()
    if isinstance(metrics, str | Metric) or not isinstance(metrics, Iterable):
        raise TypeError(f"Trainer: metrics is {metrics!r}, expected a list of names or metrics")
    made: list[Metric] = []
    for i, metric in enumerate(metrics):
        if isinstance(metric, str) and metric in METRICS:
            metric = METRICS[metric]()
        if isinstance(metric, type) and issubclass(metric, Metric):
            raise TypeError(f"Trainer: metrics[{i}] is the class {metric.__name__}, expected an object: {metric.__name__}()")
        if not (isinstance(metric, Metric) and hasattr(metric, "name")):
            raise ValueError(f"Trainer: metrics[{i}] is {metric!r}, expected one of {', '.join(METRICS)} or a Metric")
        if metric.measure in (other.measure for other in made):
            raise ValueError(f"Trainer: metrics[{i}] is a second {metric.measure}, expected one of each")
        made.append(metric)
    return tuple(made)


def _loss_of(loss: Any) -> Loss | CustomLoss:
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(f"Trainer: loss is the class {loss.__name__}, expected an object: {loss.__name__}()")
    if isinstance(loss, Loss) and hasattr(loss, "name"):
        return loss
    if not callable(loss):
        raise ValueError(f"Trainer: loss is {loss!r}, expected one of {', '.join(LOSSES)}, a Loss or a callable")
    custom: CustomLoss = loss
    return custom


@dataclass(eq=False)
class _Run:
    """One `fit`, while it runs."""

    x: Any
    y: Any
    callbacks: list[Callback]
    thread: int
    stopped: bool = False
    seconds: float = 0.0  # of the epoch

    def hooks(self, trainer: Trainer) -> Hooks:
        """Give what is called around each step: nothing, where no callback has a method for it."""
        before = [c.on_batch_begin for c in self.callbacks if _has_own(c, "on_batch_begin")]
        after = [c.on_batch_end for c in self.callbacks if _has_own(c, "on_batch_end")]

        def begin() -> None:
            for call in before:
                call(trainer.steps + 1)

        def end(loss: float) -> bool:
            for call in after:
                call(trainer.steps, {"loss": loss})
            return not self.stopped

        return Hooks(begin if before else None, end if after else None)


def _has_own(callback: Callback, method: str) -> bool:
    """Whether a callback has a method that is not that of `Callback`, which does nothing."""
    return getattr(getattr(callback, method), "__func__", None) is not getattr(Callback, method)


def _callbacks(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"fit: callbacks is a {type(callbacks).__name__}, expected a list of callbacks")
    called = list(callbacks)
    for i, callback in enumerate(called):
        if isinstance(callback, type):
            raise TypeError(f"fit: callbacks[{i}] is the class {callback.__name__}, expected an object: {callback.__name__}()")
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: callbacks[{i}] is a {type(callback).__name__}, expected a trainstep.callbacks.Callback")
    return sorted(called, key=lambda callback: callback.comes_last)
