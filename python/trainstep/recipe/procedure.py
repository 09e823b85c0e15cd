"""`run`: the five steps, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import DTypeLike

from trainstep._checks import integer, number, switch
from trainstep._runtime import get_num_threads
from trainstep.losses import Loss
from trainstep.nn import Sequential
from trainstep.optim import Optimizer
from trainstep.recipe import problem as problems
from trainstep.recipe import steps
from trainstep.recipe.results import Candidate, Curves, Recipe

DECAYS = (0.0, 1e-5, 1e-4)


def run(
    x: Any,
    y: Any,
    *,
    task: str | None = None,
    hidden: Sequence[int] | Callable[[], Sequential] = (128, 64),
    validation_data: tuple[Any, Any] | None = None,
    validation_size: float = 0.2,
    loss: str | Loss | None = None,
    optimizer: str | Optimizer = "adamw",
    batch_size: int | str = "sqrt",
    rates: Sequence[float] | None = None,
    decays: Sequence[float] | None = None,
    grid_epochs: int = 5,
    epochs: int = 20,
    dtype: DTypeLike = "float32",
    seed: int = 0,
    threads: int | None = None,
    about: str | None = None,
    progress: bool = False,
) -> Recipe:
    """Find out in five steps how a network learns from data: what works, what does not, and which settings to begin with.

    1. initial loss: |L_0 - L_nothing| <= L_nothing / 10, where L_nothing is ln C of a softmax over C classes
    2. overfit: 5 mini-batches are learnt by heart, to an accuracy of 1, at one of the rates 1e-1, 1e-2, 1e-3, 1e-4
    3. learning rate: lr_t = 1e-6 * 10^(7 t / 199), t = 0 ... 199; a tenth of the lr_t at which the smoothed loss v_t is smallest,
       or lr_(t-10) of the largest v_(t-20) - v_t before that, where it is smaller
    4. grid: rates 10^-1, 10^-1/2, 1, 10^1/2 and 10 times that, with each decay; the better half goes on after 1, 2, 4 ... epochs
    5. curves: the best candidate trained longer, and what its learning curves say

    Each step goes on from what the ones before have found, whether they say yes or no. Trainings of steps 2 and 4 run side by side,
    one a thread; meanwhile other calls of trainstep in the process are on one thread too. The result is the same for any number of
    threads.

    Parameters
    ----------
    x : array, shape (rows, columns)
        Finite real numbers of any dtype. The network's first layer standardizes the columns.
    y : array, shape (rows,) or (rows, outputs)
        Class indices, rows of probabilities, or targets. In regression they are standardized for training.
    task : {"classification", "regression"}, optional
        Default: that of the loss; without one, classification where y is one integer or bool a row.
    hidden : sequence of int, or callable, default (128, 64)
        Widths of the hidden layers, of ReLU; () for none. Or a function without arguments that makes a network.
    validation_data : (x, y), optional
        What candidates are compared on. Default: a part of x and y.
    validation_size : float, default 0.2
        The share of the rows that is this part, above 0 and below 1; it has the same classes as the rest.
    loss : str or Loss, optional
        ``softmax_cross_entropy`` (the default in classification), ``categorical_cross_entropy``, ``sigmoid_binary_cross_entropy``,
        ``hinge``; ``mse`` (in regression), ``mae``, ``huber``; or one of these with options, as `Trainer` takes it.
    optimizer : str or Optimizer, default "adamw"
        A name of `trainstep.optim`, or one made without parameters, whose lr and weight_decay are replaced:
        ``ts.optim.SGD(momentum=0.9)``.
    batch_size : int or "sqrt", default "sqrt"
        Rows in a batch; "sqrt": the square root of the number of rows to train on, rounded.
    rates : sequence of float, optional
        The learning rates of step 4, above 0. Default: five around the suggestion of step 3.
    decays : sequence of float, optional
        The weight decays of step 4, at least 0; the smallest above 0 also holds in step 3. Default: (0, 1e-5, 1e-4), or (0,) where
        the optimizer has none.
    grid_epochs : int, default 5
        How long the candidates that get furthest are trained in step 4, at least 1.
    epochs : int, default 20
        How long the best is trained in step 5, at least 1.
    dtype : {"float32", "float64"}, default "float32"
        Of the network, where hidden is widths.
    seed : int, default 0
        Of the split, the weights and the order of the rows; at least 0.
    threads : int, optional
        How many trainings run side by side. Default: `get_num_threads`.
    about : str, optional
        One line on the data, for the report. Default: rows, columns and classes.
    progress : bool, default False
        Show a progress bar for each step on stderr.

    Returns
    -------
    recipe : Recipe
        The result of each step, the settings, and the Python call that trains with them.

    Raises
    ------
    ValueError, TypeError
        Where an argument does not fit; nothing has been trained then.
    KeyboardInterrupt
        Where Ctrl-C was pressed.

    References
    ----------
    The steps: Karpathy, A recipe for training neural networks (2019), and Stanford's CS231n, Neural networks part 3. Step 3: Smith,
    Cyclical learning rates for training neural networks (WACV 2017), section 3.3. Halving: Jamieson, Talwalkar, Non-stochastic best
    arm identification and hyperparameter optimization (AISTATS 2016).

    Examples
    --------
    >>> import trainstep as ts
    >>> x, y = ts.data.load_digits()
    >>> recipe = ts.recipe.run(x, y, hidden=(32,), epochs=8)
    >>> [step.ok for step in recipe.steps().values()][:4]
    [True, True, True, True]
    >>> max(recipe.curves.val_accuracy) > 0.9
    True
    """
    grid_epochs, epochs = integer("run: grid_epochs", grid_epochs, 1), integer("run: epochs", epochs, 1)
    seed, progress = integer("run: seed", seed, 0, 2**63 - 1), switch("run: progress", progress)
    threads = get_num_threads() if threads is None else integer("run: threads", threads, 1)
    if about is not None and not isinstance(about, str):
        raise TypeError(f"run: about is a {type(about).__name__}, expected a str")
    tried = None if rates is None else _numbers("rates", rates, above=0)
    chosen_decays = None if decays is None else _numbers("decays", decays, low=0)
    problem = problems.of(
        x, y, task, hidden, validation_data, validation_size, loss, optimizer, batch_size, dtype, seed
    )  # fmt: skip
    can_decay = "weight_decay" in problem.optimizer.defaults
    if chosen_decays is None:
        chosen_decays = DECAYS if can_decay else (0.0,)
    elif not can_decay and chosen_decays != (0.0,):
        raise ValueError(f"run: decays is {chosen_decays}, expected (0,): {type(problem.optimizer).__name__} has no weight_decay")
    small_decay = min((decay for decay in chosen_decays if decay > 0), default=0.0)

    initial = steps.initial_loss(problem)
    with _bar("2/5 overfit", 4, progress) as tick:
        overfit = steps.overfit(problem, threads, tick)
    with _bar("3/5 learning rate", 300, progress) as tick:
        rate_test = steps.rate_test(problem, initial, small_decay, tick)
    tried = tried or steps.grid_rates(rate_test.suggestion)
    with _bar("4/5 grid", None, progress) as tick:
        grid = steps.grid(problem, tried, chosen_decays, grid_epochs, threads, tick)
    curves = steps.curves(problem, grid.best, epochs, progress)

    settings = _settings(problem, hidden, grid.best, curves, epochs)
    call = _call(problem, grid.best, settings["epochs"])
    return Recipe(about or _about(problem), initial, overfit, rate_test, grid, curves, settings, call)


def _numbers(name: str, values: Any, **bounds: float) -> tuple[float, ...]:
    """Give an argument that must be different numbers."""
    try:
        if isinstance(values, str):
            raise TypeError
        given = list(values)
    except TypeError:
        raise TypeError(f"run: {name} is a {type(values).__name__}, expected a sequence of numbers") from None
    numbers = tuple(number(f"run: {name}[{i}]", value, **bounds) for i, value in enumerate(given))
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"run: {name} is {numbers}, expected different numbers, at least one")
    return numbers


@contextmanager
def _bar(name: str, total: int | None, progress: bool) -> Iterator[steps.Tick]:
    """Show a bar for one step."""
    if not progress:
        yield lambda n=1: None
        return
    from tqdm.auto import tqdm

    with tqdm(desc=name, total=total, dynamic_ncols=True) as bar:
        yield bar.update


def _about(problem: problems.Problem) -> str:
    rows, columns = problem.train[0].shape
    kind = ("target", "targets") if problem.loss.name not in problems.OVER_CLASSES else ("class", "classes")
    outputs = f"{problem.outputs} {kind[problem.outputs > 1]}"
    return f"{problem.task}: {rows} rows and {len(problem.validation[0])} to validate on, {columns} columns, {outputs}"


def _settings(problem: problems.Problem, hidden: Any, best: Candidate, curves: Curves, epochs: int) -> dict[str, Any]:
    return {
        "task": problem.task,
        "hidden": None if callable(hidden) else [int(width) for width in hidden],
        "loss": problem.loss.name,
        "optimizer": type(problem.optimizer).__name__,
        "lr": best.rate,
        "weight_decay": best.decay,
        "batch_size": problem.batch_size,
        # Beyond the best epoch of a network that overfits, more training does harm.
        "epochs": curves.best_epoch if curves.verdict == "overfitting" else epochs,
        "seed": problem.seed,
        "dtype": problem.network.dtype.name,
    }


def _call(problem: problems.Problem, best: Candidate, epochs: int) -> str:
    code = problem.code
    optimizer = problems.optimizer_text(problem.optimizer, best.rate, best.decay)
    lines = [
        "import trainstep as ts",
        "",
        *code.data,
        code.model,
        f"trainer = ts.Trainer(model, loss={code.loss}, optimizer={optimizer})",
        f"history = trainer.fit(x_train, y_train, epochs={epochs}, {code.fit})",
        *code.after,
    ]
    return "\n".join(lines)
