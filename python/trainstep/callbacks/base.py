"""What all callbacks are: methods that `Trainer.fit` calls."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainstep.trainer import DivergenceError, Trainer


class Callback:
    """What all callbacks have in common: methods that `Trainer.fit` calls, none of which does anything here.

    What a method raises ends the training, with the model as the last whole step left it.

    Attributes
    ----------
    trainer : Trainer
        Whose `fit` runs, or ran last; set before `on_train_begin`.
    interrupted : bool
        Whether an exception or Ctrl-C has ended that `fit`; set before `on_train_end`.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> class Printer(ts.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, values):
    ...         print(epoch, sorted(values), f"{values['loss']:.3f}")
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros")), loss="mse")
    >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), callbacks=[Printer()])
    1 ['loss', 'lr', 'seconds'] 1.000
    """

    trainer: "Trainer"
    interrupted = False
    handles_divergence = False  # whether on_divergence is called in place of an exception
    comes_last = False  # whether it is called after all others: what it saves of them is then as they leave the epoch or step

    def on_train_begin(self) -> None:
        """Begin: the data has been checked, nothing has been trained by this `fit`."""

    def on_train_end(self) -> None:
        """End, where `on_train_begin` did not raise: after the last epoch, and also where an exception or Ctrl-C ends `fit`."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Begin an epoch.

        Parameters
        ----------
        epoch : int
            Its number, counted from 1 over the life of the trainer.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().on_epoch_begin(1)
        """

    def on_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        """End an epoch; `Trainer.stop` makes it the last.

        Parameters
        ----------
        epoch : int
            Its number, as in `History`.
        values : dict of str to float
            What `History` has taken of this epoch: "loss", "lr", "seconds" and, where they were measured, "accuracy", "val_loss"
            and "val_accuracy". A copy: what is changed in it changes nothing else.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().on_epoch_end(1, {"loss": 0.5})
        """

    def on_batch_begin(self, step: int) -> None:
        """Begin a step; only a class that has this method for itself is called, and costs something.

        Parameters
        ----------
        step : int
            The number of the update that follows, counted from 1 over the life of the trainer.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().on_batch_begin(1)
        """

    def on_batch_end(self, step: int, values: dict[str, float]) -> None:
        """End a step, which may be of several batches (``accumulate``); `Trainer.stop` makes it the last.

        Parameters
        ----------
        step : int
            The number of the update.
        values : dict of str to float
            "loss", the mean over its rows before the update.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().on_batch_end(1, {"loss": 0.5})
        """

    def on_divergence(self, error: "DivergenceError") -> None:
        """Take notice of a loss that is not finite, after the model has been put back; called where `handles_divergence` is True.

        `fit` then ends, and does not raise the error.

        Parameters
        ----------
        error : DivergenceError
            What would have been raised.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().on_divergence(ts.DivergenceError(epoch=1, step=5, layer="0"))
        """

    def state_dict(self) -> dict[str, Any]:
        """Give what a run that is resumed needs of this callback: what JSON can hold, and NumPy arrays. Here: nothing.

        Returns
        -------
        state : dict

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().state_dict()
        {}
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave, before `on_train_begin`, where the trainer comes from a file (`Trainer.load`).

        Parameters
        ----------
        state : dict
            Of the callback of the same class, in the order of the list.

        Examples
        --------
        >>> import trainstep as ts
        >>> ts.callbacks.Callback().load_state_dict({})
        """


@contextmanager
def running(callbacks: Iterable[Callback], trainer: "Trainer") -> Iterator[None]:
    """Begin a training run for callbacks, and end it for all of them that began, however it ends."""
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.trainer, callback.interrupted = trainer, False
            callback.on_train_begin()
            begun.append(callback)
        yield
    except BaseException:
        for callback in begun:
            callback.interrupted = True
        raise
    finally:
        with ExitStack() as ends:  # which goes on with the others where one raises
            for callback in reversed(begun):
                ends.callback(callback.on_train_end)


class LambdaCallback(Callback):
    """A callback of plain functions, for what needs no class.

    Parameters
    ----------
    on_train_begin, on_train_end : callable, optional
        Called with nothing.
    on_epoch_begin : callable, optional
        Called with the number of the epoch.
    on_epoch_end : callable, optional
        Called with the number of the epoch and its values.
    on_batch_begin : callable, optional
        Called with the number of the step.
    on_batch_end : callable, optional
        Called with the number of the step and its values.

    Raises
    ------
    TypeError
        Where one of them cannot be called.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> losses = []
    >>> watch = ts.callbacks.LambdaCallback(on_batch_end=lambda step, values: losses.append((step, round(values["loss"], 2))))
    >>> trainer = ts.Trainer(ts.nn.Sequential(ts.nn.Dense(1, 1, init="zeros")), loss="mse", optimizer=ts.optim.SGD(lr=0.1))
    >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2, callbacks=[watch])
    >>> losses
    [(1, 1.0), (2, 0.36)]
    """

    def __init__(
        self,
        on_train_begin: Callable[[], Any] | None = None,
        on_train_end: Callable[[], Any] | None = None,
        on_epoch_begin: Callable[[int], Any] | None = None,
        on_epoch_end: Callable[[int, dict[str, float]], Any] | None = None,
        on_batch_begin: Callable[[int], Any] | None = None,
        on_batch_end: Callable[[int, dict[str, float]], Any] | None = None,
    ) -> None:
        given = {
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_batch_begin": on_batch_begin,
            "on_batch_end": on_batch_end,
        }
        for name, function in given.items():
            if function is not None and not callable(function):
                raise TypeError(f"LambdaCallback: {name} is a {type(function).__name__}, expected a function")
        # In place of the methods, so that a hook that was not given costs what it costs elsewhere: nothing.
        vars(self).update({name: function for name, function in given.items() if function is not None})
