"""EarlyStopping and TerminateOnNaN: what ends a training run."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainstep._checks import integer, number, switch
from trainstep.callbacks.base import Callback
from trainstep.callbacks.watch import check_mode, check_name, check_state, is_better, sign, value_of

if TYPE_CHECKING:
    from trainstep.trainer import DivergenceError

_WEIGHTS = ("parameters", "buffers")
_COUNTS = ("best_epoch", "stopped_epoch", "wait")


class EarlyStopping(Callback):
    """Ends the training when a value has stopped improving.

    An epoch improves on the best where value < best - min_delta ("max": value > best + min_delta). `Trainer.stop` is called after
    the first epoch that does not, with `patience` epochs or more since the last that did.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The value, one of those that `on_epoch_end` gets.
    min_delta : float, default 0.0
        By how much it must be better to count; its sign does not matter.
    patience : int, default 0
        The epochs without an improvement that are waited for; at least 0, and 0 is as 1.
    mode : {"auto", "min", "max"}, default "auto"
        Whether smaller or larger is better. "auto": larger for accuracy, precision, recall, f1, r2, auc and top-k, else smaller.
    baseline : float, optional
        What must be surpassed too: until it is, an epoch that improves on the best does not start the waiting anew.
    restore_best_weights : bool, default False
        Whether the model has at the end the parameters and buffers of the best epoch; also where it is not this callback that ends
        the training, and where no epoch surpasses the baseline, but not after an exception. The optimizer's states stay.
    start_from_epoch : int, default 0
        The epochs at the beginning of the trainer's life that are not looked at.

    Attributes
    ----------
    best : float or None
        The best value; None before there is one.
    best_epoch : int
        Its epoch, counted from 1; 0 before there is one.
    stopped_epoch : int
        The epoch after which the training was ended; 0 where it was not.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit; from `Trainer.fit` where its epochs have no value of this name.

    Notes
    -----
    The arguments mean what they do in Keras; epochs are counted from 1 over the life of the trainer. A `fit` begins anew, but goes
    on waiting where the trainer comes from a file that was saved while a fit ran (`Trainer.load`), and ends at once where that fit
    had been ended by this.

    References
    ----------
    Prechelt: Early stopping, but when? (Neural Networks: Tricks of the Trade, 1998). Goodfellow, Bengio, Courville: Deep Learning
    (2016), algorithm 7.1.

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> model = ts.nn.Sequential(ts.nn.Dense(64, 64, activation="relu"), ts.nn.Dense(64, 10))
    >>> stopping = ts.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    >>> validation = x[1000:], y[1000:]
    >>> history = ts.Trainer(model, optimizer=ts.optim.Adam(lr=0.01)).fit(
    ...     x[:1000], y[:1000], epochs=100, validation_data=validation, callbacks=[stopping]
    ... )
    >>> stopping.stopped_epoch == history.epoch[-1] == stopping.best_epoch + 3
    True
    >>> ts.Trainer(model).evaluate(*validation)["loss"] == stopping.best == min(history.history["val_loss"])
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self._monitor = check_name("EarlyStopping: monitor", monitor)
        self._min_delta = abs(number("EarlyStopping: min_delta", min_delta))
        self._patience = integer("EarlyStopping: patience", patience, 0)
        self._sign = sign(check_mode("EarlyStopping: mode", mode), self._monitor)
        self._baseline = None if baseline is None else number("EarlyStopping: baseline", baseline)
        self._restores = switch("EarlyStopping: restore_best_weights", restore_best_weights)
        self._first = integer("EarlyStopping: start_from_epoch", start_from_epoch, 0)
        self._resumed = False
        self._begin()

    def _begin(self) -> None:
        self.best: float | None = None
        self.best_epoch = self.stopped_epoch = self._wait = 0
        self._weights: dict[str, dict[str, NDArray[Any]]] = {}

    def on_train_begin(self) -> None:
        """Begin anew, or go on where a file has left off, which may have been the end."""
        if not self._resumed:
            self._begin()
        self._resumed = False
        if self.stopped_epoch:
            self.trainer.stop()

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """Look at the value, and end the training where it is time.

        Parameters
        ----------
        epoch : int
            Its number.
        values : dict of str to float
            Among them the one that is monitored.

        Examples
        --------
        >>> import trainstep as ts
        >>> stopping = ts.callbacks.EarlyStopping(patience=2)
        >>> stopping.on_epoch_end(1, {"val_loss": 0.5})
        >>> stopping.on_epoch_end(2, {"val_loss": 0.6})
        >>> stopping.best, stopping.best_epoch
        (0.5, 1)
        """
        value = value_of("EarlyStopping: monitor", self._monitor, values)
        if epoch <= self._first:
            return
        self._wait += 1
        if is_better(value, self.best, self._sign, self._min_delta):
            self.best, self.best_epoch = value, epoch
            self._keep()
            if self._baseline is None or is_better(value, self._baseline, self._sign, self._min_delta):
                self._wait = 0
            return
        if self._restores and not self._weights:  # NaN from the first epoch on: what there is to go back to
            self.best_epoch = epoch
            self._keep()
        if self._wait >= self._patience and epoch > 1:
            self.stopped_epoch = epoch
            self.trainer.stop()

    def _keep(self) -> None:
        """Copy the weights of the best epoch, into the same arrays each time."""
        if not self._restores:
            return
        for kind in _WEIGHTS:
            kept = self._weights.setdefault(kind, {})
            for name, view in getattr(self.trainer.model, kind)().items():
                if name in kept:
                    kept[name][...] = view
                else:
                    kept[name] = view.copy()

    def on_train_end(self) -> None:
        """Give the model the weights of the best epoch, where that was asked for and no exception has ended the training."""
        if self.interrupted:
            return
        for kind, kept in self._weights.items():
            for name, view in getattr(self.trainer.model, kind)().items():
                view[...] = kept[name]

    def state_dict(self) -> dict[str, Any]:
        """Give what a run that is resumed needs: the best value, its epoch and weights, and how long has been waited.

        Returns
        -------
        state : dict

        Examples
        --------
        >>> import trainstep as ts
        >>> stopping = ts.callbacks.EarlyStopping(patience=2)
        >>> stopping.on_epoch_end(1, {"val_loss": 0.5})
        >>> stopping.state_dict()
        {'best': 0.5, 'best_epoch': 1, 'stopped_epoch': 0, 'wait': 0, 'weights': {}}
        """
        weights = {kind: {name: array.copy() for name, array in kept.items()} for kind, kept in self._weights.items()}
        counts = zip(_COUNTS, (self.best_epoch, self.stopped_epoch, self._wait), strict=True)
        return {"best": self.best, **dict(counts), "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave.

        Parameters
        ----------
        state : dict
            Of a run of the same model.

        Raises
        ------
        ValueError, TypeError
            Where it is no such state, or of a model of other parameters. Nothing has been changed then.

        Examples
        --------
        >>> import trainstep as ts
        >>> stopping = ts.callbacks.EarlyStopping(patience=2)
        >>> stopping.load_state_dict({"best": 0.5, "best_epoch": 1, "stopped_epoch": 0, "wait": 0, "weights": {}})
        >>> stopping.best
        0.5
        """
        where = "EarlyStopping.load_state_dict:"
        check_state("EarlyStopping", state, {"best", *_COUNTS, "weights"})
        best = None if state["best"] is None else number(f"{where} best", state["best"])
        counts = [integer(f"{where} {name}", state[name], 0) for name in _COUNTS]
        if not isinstance(state["weights"], dict):
            raise TypeError(f"{where} weights is a {type(state['weights']).__name__}, expected a dict")
        weights = {}
        for kind in _WEIGHTS if self._restores and state["weights"] else ():
            views, saved = getattr(self.trainer.model, kind)(), state["weights"].get(kind, {})
            arrays = {name: np.asarray(saved[name]) for name in views if name in saved}
            if {name: a.shape for name, a in arrays.items()} != {name: v.shape for name, v in views.items()}:
                raise ValueError(f"{where} the weights of the best epoch are those of another model")
            weights[kind] = {name: array.astype(views[name].dtype) for name, array in arrays.items()}
        self.best, self._weights, self._resumed = best, weights, True
        self.best_epoch, self.stopped_epoch, self._wait = counts


class TerminateOnNaN(Callback):
    """Ends the training quietly where the loss is no longer finite; without it `Trainer.fit` raises `DivergenceError`.

    The model is put back to the last epoch with finite losses all the same, unless ``fit`` was told otherwise.

    Attributes
    ----------
    error : DivergenceError or None
        What would have been raised, with epoch, step and layer; None while the losses are finite.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> nan = ts.callbacks.TerminateOnNaN()
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1)), loss="mse", optimizer=ts.optim.SGD(lr=1e30))
    >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=9, batch_size=1, callbacks=[nan])
    >>> history.epoch, nan.error.epoch
    ([], 1)
    """

    handles_divergence = True

    def __init__(self) -> None:
        self.error: DivergenceError | None = None

    def on_train_begin(self) -> None:
        """Begin: there is no error yet."""
        self.error = None

    def on_divergence(self, error: "DivergenceError") -> None:
        """Keep the error.

        Parameters
        ----------
        error : DivergenceError
            What would have been raised.

        Examples
        --------
        >>> import trainstep as ts
        >>> nan = ts.callbacks.TerminateOnNaN()
        >>> nan.on_divergence(ts.DivergenceError(epoch=1, step=5, layer="0"))
        >>> nan.error.step
        5
        """
        self.error = error
