"""What a recipe finds: a frozen record for each step, and all of them together."""

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

from trainstep._checks import path_text

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class InitialLoss:
    """Step 1: the loss before the first update, beside that of a network that knows nothing.

    Parameters
    ----------
    ok : bool
        Whether measured is within a tenth of expected.
    meaning : str
        What that says, in words.
    expected : float
        The loss of outputs that are 0 everywhere (of probabilities that are equal): ln C of a softmax over C classes, ln 2 of a
        sigmoid, the variance of a target of mean 0 in mse.
    rule : str
        What expected is, such as "ln 10".
    measured : float
        The loss of the network in training, without penalty or decay, before its first update.

    Examples
    --------
    >>> from trainstep.recipe import InitialLoss
    >>> InitialLoss(ok=True, meaning="as it should be", expected=2.3026, rule="ln 10", measured=2.3031).ok
    True
    """

    ok: bool
    meaning: str
    expected: float
    rule: str
    measured: float


@dataclass(frozen=True)
class Overfit:
    """Step 2: whether the network can learn a few mini-batches by heart.

    Parameters
    ----------
    ok : bool
        Whether it got every row right, or in regression all but a hundredth of the loss away (a tenth of `mae`).
    meaning : str
        What that says, in words.
    rows, batches : int
        How much it was shown again and again.
    rate : float
        The learning rate that got there with the fewest updates: of 1e-1, 1e-2, 1e-3 and 1e-4.
    updates : int
        How many those were; where it did not get there, how many were tried.
    contradictions : int
        Rows whose inputs are those of another row with another target, which no network can tell apart.
    loss : tuple of float
        After each pass over the batches.
    accuracy : tuple of float, optional
        Likewise; None in regression.

    Examples
    --------
    >>> from trainstep.recipe import Overfit
    >>> step = Overfit(True, "learnt by heart", 160, 5, 0.01, 35, 0, (1.2, 0.1), (0.7, 1.0))
    >>> step.updates
    35
    """

    ok: bool
    meaning: str
    rows: int
    batches: int
    rate: float
    updates: int
    contradictions: int
    loss: Numbers
    accuracy: Numbers | None


@dataclass(frozen=True)
class RateTest:
    """Step 3: the loss while the learning rate grows with every update, and at the rate that follows from it.

    Parameters
    ----------
    ok : bool
        Whether the loss falls within 100 updates at the suggested rate: by more than three times what the mean of the last 20
        losses is uncertain by.
    meaning : str
        What that says, in words.
    rates : tuple of float
        The learning rate of each update: log-spaced from 1e-6, up to where the smoothed loss was twice the initial, or to 10.
    loss : tuple of float
        The batch's loss before each update.
    smoothed : tuple of float
        Its exponentially weighted average, beta 0.9, with bias correction.
    suggestion : float
        A tenth of the rate at which the smoothed loss was smallest, or the rate in the middle of the 20 updates over which it fell
        most before that, where it is smaller.
    trial : tuple of float
        The losses of the 100 updates at the suggestion.

    Examples
    --------
    >>> from trainstep.recipe import RateTest
    >>> RateTest(True, "it falls", (0.01, 0.1), (2.0, 1.0), (2.0, 1.5), 0.01, (2.0, 1.5)).suggestion
    0.01
    """

    ok: bool
    meaning: str
    rates: Numbers
    loss: Numbers
    smoothed: Numbers
    suggestion: float
    trial: Numbers


@dataclass(frozen=True)
class Candidate:
    """One learning rate and decay of the grid.

    Parameters
    ----------
    rate, decay : float
        The learning rate and the optimizer's weight_decay.
    epochs : int
        How long it was trained.
    loss : float
        On the validation part after that; infinite where the training diverged.
    accuracy : float, optional
        Likewise; None in regression, or where the training diverged.

    Examples
    --------
    >>> from trainstep.recipe import Candidate
    >>> min([Candidate(0.01, 0.0, 5, 0.3, 0.9), Candidate(0.1, 0.0, 5, 0.7, 0.8)], key=lambda c: c.loss).rate
    0.01
    """

    rate: float
    decay: float
    epochs: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Grid:
    """Step 4: candidates of learning rate and decay, of which the better half goes on at each halving.

    Parameters
    ----------
    ok : bool
        Whether the best says more of unseen data than a network that knows nothing: by three times what the mean over rows is
        uncertain by.
    meaning : str
        What that says, in words.
    candidates : tuple of Candidate
        All of them, the best first: by epochs, and by loss.

    Examples
    --------
    >>> from trainstep.recipe import Candidate, Grid
    >>> Grid(True, "better than nothing", (Candidate(0.01, 0.0, 5, 0.3, 0.9),)).best.rate
    0.01
    """

    ok: bool
    meaning: str
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The candidate that was trained longest and then had the smallest loss."""
        return self.candidates[0]


@dataclass(frozen=True)
class Curves:
    """Step 5: the learning curves of the best candidate, trained longer, and what they say.

    Parameters
    ----------
    ok : bool
        Whether the verdict is "good" or "plateaued": training and validation agree, and the network has learnt what it can.
    meaning : str
        The verdict in words, and what helps.
    verdict : str
        That of `History.diagnosis`, or "diverged".
    best_epoch : int
        The epoch with the smallest loss on the validation part, counted from 1; 0 where there is none.
    loss, val_loss : tuple of float
        Of each epoch.
    accuracy, val_accuracy : tuple of float, optional
        Likewise; None in regression.

    Examples
    --------
    >>> from trainstep.recipe import Curves
    >>> Curves(True, "keep it", "good", 2, (0.5, 0.3), (0.6, 0.4), (0.8, 0.9), (0.7, 0.8)).best_epoch
    2
    """

    ok: bool
    meaning: str
    verdict: str
    best_epoch: int
    loss: Numbers
    val_loss: Numbers
    accuracy: Numbers | None
    val_accuracy: Numbers | None


@dataclass(frozen=True)
class Recipe:
    """What `run` found: each of the five steps, and the settings that come out of them.

    Printed, it is a line for each step.

    Parameters
    ----------
    about : str
        What it was run on.
    initial_loss : InitialLoss
    overfit : Overfit
    rate_test : RateTest
    grid : Grid
    curves : Curves
        The steps, in their order.
    settings : dict
        What was chosen: task, loss, optimizer, lr, weight_decay, batch_size, epochs, seed, dtype and hidden (the widths; None where
        a function made the network).
    call : str
        Python that trains with these settings, on arrays x and y, and x_val and y_val where they were given to `run`.

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> recipe = ts.recipe.run(x[:400], y[:400], hidden=(32,), grid_epochs=1, epochs=5)
    >>> recipe.initial_loss.rule, recipe.overfit.ok, recipe.rate_test.ok
    ('ln 10', True, True)
    >>> sorted(recipe.settings)[:4]
    ['batch_size', 'dtype', 'epochs', 'hidden']
    """

    about: str
    initial_loss: InitialLoss
    overfit: Overfit
    rate_test: RateTest
    grid: Grid
    curves: Curves
    settings: dict[str, Any]
    call: str

    def __str__(self) -> str:
        lines = [self.about]
        for (title, step), number in zip(self.steps().items(), range(1, 6), strict=True):
            lines.append(f"{number} {title:<20} {'yes' if step.ok else 'NO ':<3}  {step.meaning}")
        return "\n".join(lines)

    def steps(self) -> dict[str, InitialLoss | Overfit | RateTest | Grid | Curves]:
        """Give the steps by their titles.

        Returns
        -------
        steps : dict

        Examples
        --------
        >>> import trainstep as ts
        >>> x, y = ts.data.load_digits()
        >>> recipe = ts.recipe.run(x[:100], y[:100], hidden=(16,), rates=(0.01,), decays=(0.0,), grid_epochs=1, epochs=2)
        >>> list(recipe.steps())
        ['initial loss', 'overfit', 'learning rate', 'grid', 'curves']
        """
        titles = ("initial loss", "overfit", "learning rate", "grid", "curves")
        return dict(zip(titles, (self.initial_loss, self.overfit, self.rate_test, self.grid, self.curves), strict=True))

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give all of it as JSON: an object with the names of the attributes; a number that is not finite is null.

        Parameters
        ----------
        path : str or path, optional
            A file to write it to as well.

        Returns
        -------
        text : str

        Raises
        ------
        OSError
            Where the file cannot be written.

        Examples
        --------
        >>> import json
        >>> import trainstep as ts
        >>> x, y = ts.data.load_digits()
        >>> recipe = ts.recipe.run(x[:100], y[:100], hidden=(16,), rates=(0.01,), decays=(0.0,), grid_epochs=1, epochs=2)
        >>> json.loads(recipe.to_json())["settings"]["lr"]
        0.01
        """
        import json

        text = json.dumps(_finite(asdict(self)), indent=2, ensure_ascii=False)
        if path is not None:
            with open(path_text("to_json: path", path), "w", encoding="utf-8") as file:
                file.write(text + "\n")
        return text

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a report with the plots: one HTML file that needs nothing else, for screens of any width.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        OSError
            Where it cannot be written.

        Examples
        --------
        >>> recipe.report("recipe.html")  # doctest: +SKIP
        """
        from trainstep.recipe.report import html

        path = path_text("report: path", path)
        text = html(self)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _finite(value: Any) -> Any:
    """Give the same with None in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
