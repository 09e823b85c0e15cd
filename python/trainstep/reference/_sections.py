"""The sections that docstrings share, those of all activations and those of all losses, so that each shows only what is its own.

The own docstring of an activation has its line, its formula and its example; a forward function's also has its source. The
decorators put arguments, results and errors in between, as the signature has them.

The own docstring of a loss has places for the arguments that all losses have, and for results and errors: ``{sample_weight}``,
``{reduction}``, ``{out}``, ``{returns}``.
"""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

ANY = "any shape"
F = TypeVar("F", bound=Callable[..., Any])

_ARGUMENTS = {
    "x": "x : array_like, {shape}, float32 or float64\n    Input.",
    "dy": "dy : array_like, {shape}, float32 or float64\n    Gradient of y.",
    "y of backward": "y : array_like, shape and dtype of dy\n    Output of the forward function.{remark}",
    "x of backward": "x : array_like, shape and dtype of dy\n    Input of the forward function.",
    "negative_slope": "negative_slope : float, default 0.01\n    What negative inputs are multiplied by, at least 0.",
    "alpha": "alpha : float, default 1.0\n    The value for large negative inputs is -alpha; at least 0.",
    "approximate": 'approximate : {{"none", "tanh"}}, default "none"\n    The exact function, or the form with tanh.',
    "out": "out : ndarray, shape and dtype of {like}, optional\n    Where the result goes. Default: a new array.",
}
_REFUSED = {
    "negative_slope": ", or negative_slope is negative, infinite or NaN",
    "alpha": ", or alpha is negative, infinite or NaN",
    "approximate": ", or approximate is unknown",
}

_SECTIONS = """Parameters
----------
{arguments}

Returns
-------
{result} : ndarray, shape and dtype of {like}

Raises
------
TypeError
    {dtypes}, or out has another dtype.
ValueError
    {shapes} is read-only{refused}.
"""

# For each place in the docstring of a loss: what stands there in a loss over rows, and in one over elements.
_OF_LOSSES = {
    "sample_weight": (
        """sample_weight : array_like, shape (B,), dtype of {pred}, optional
    Weights s of the rows, finite and at least 0. Default: 1 each.""",
        """sample_weight : array_like, shape (rows,), dtype of {pred}, optional
    Weights s of the rows, the first dimension of {pred}, finite and at least 0: factors of all their elements. Default: 1 each.""",
    ),
    "reduction": (
        """reduction : {{"mean", "sum", "none"}}, default "mean"
    What is made of the B losses: their sum, divided by B or by the sum of the weights; their sum; or nothing.""",
        """reduction : {{"mean", "sum", "none"}}, default "mean"
    What is made of the elements' losses: their sum, divided by their number or by the sum of their weights; their sum; or
    nothing.""",
    ),
    "out": ("out : ndarray, shape and dtype of {pred}, optional\n    Where d{pred} goes. Default: a new array.",) * 2,
    "returns": (
        """Returns
-------
loss : float; ndarray of shape (B,), dtype of {pred}, for reduction "none"
d{pred} : ndarray, shape and dtype of {pred}
    Gradient of the loss; for reduction "none", of the sum.

Raises
------
TypeError
    {pred} is neither float32 nor float64, a weight has another dtype, or {target} has none of the dtypes above.
ValueError
    Shapes do not fit, the batch is empty, {refused}""",
        """Returns
-------
loss : float; ndarray of the shape and dtype of {pred} for reduction "none"
d{pred} : ndarray, shape and dtype of {pred}
    Gradient of the loss; for reduction "none", of the sum.

Raises
------
TypeError
    {pred}, {target} and the weights are not all float32 or all float64.
ValueError
    Shapes do not fit, {pred} is empty, {refused}""",
    ),
}

# For each place in the docstring of a metric: what stands there in one of classes, and in one of numbers.
_OF_METRICS = {
    "pred": (
        """pred : array_like, shape (rows, C), float32 or float64
    Scores, one column for each class; or shape (rows, 1) or (rows,): scores of the second of two classes, predicted where they are
    above 0. A model's outputs before or after the softmax; of a sigmoid those before it.""",
        """pred : array_like, shape (rows,) or (rows, columns), float32 or float64
    Predictions.""",
    ),
    "y": (
        """y : array_like, shape (rows,), any integer dtype; or the shape of pred, any real dtype
    Class indices from 0 to C - 1, or one-hot rows, of which the class is the first largest; of one column numbers from 0 to 1,
    above 0.5 the second class.""",
        """y : array_like, shape of pred, any real dtype
    Targets, cast to the dtype of pred. Of one column (rows,) and (rows, 1) are the same.""",
    ),
    "sample_weight": (
        """sample_weight : array_like, shape (rows,), any real dtype, optional
    Weights s of the rows, finite and at least 0. Default: 1 each. Where all are 0, so is the result.""",
        """sample_weight : array_like, shape (rows,), any real dtype, optional
    Weights s of the rows, finite and at least 0. Default: 1 each.""",
    ),
    "average": (
        """average : {"macro", "micro", "weighted", "binary"} or None, default "macro"
    What is made of the classes' numbers: their mean, over the classes that occur in y or in the predictions; the formula with the
    sums of TP, FP and FN over all classes; their mean weighted by the weights of each class's rows in y; the number of class 1 of
    two; or, with None, nothing.""",
    )
    * 2,
    "of_classes": (
        """Returns
-------
value : float; ndarray of shape (C,), float64, for average None""",
    )
    * 2,
    "raises": (
        """Raises
------
TypeError
    pred is neither float32 nor float64, or an argument is of another type than above.
ValueError
    Shapes do not fit, there are no rows, a label is out of range, an element of y or a weight is negative, infinite or NaN, or an
    option is unknown or does not fit the number of classes.""",
        """Raises
------
TypeError
    pred is neither float32 nor float64, or an argument is of another type than above.
ValueError
    Shapes do not fit, there are no rows, y holds a NaN, or a weight is negative, infinite or NaN.""",
    ),
}


def forward(shape: str = ANY) -> Callable[[F], F]:
    """Complete the docstring of ``f(x)``, whose input has a shape."""

    def decorate(f: F) -> F:
        dtypes, shapes = "x is neither float32 nor float64", "out has another shape or"
        names = list(inspect.signature(f).parameters)
        return _complete(f, names, shape=shape, like="x", result="y", dtypes=dtypes, shapes=shapes)

    return decorate


def backward(f: Callable[..., Any], shape: str = ANY, remark: str = "") -> Callable[[F], F]:
    """Complete the docstring of ``f_backward(dy, y)`` or ``f_backward(dy, x)``; its source is that of f unless it has its own.

    The remark is one on y.
    """

    def decorate(f_backward: F) -> F:
        dy, source, *options = inspect.signature(f_backward).parameters
        dtypes = f"dy and {source} are not both float32 or both float64"
        shapes = f"dy or out has another shape than {source}, or out"
        if "References\n" not in (f_backward.__doc__ or ""):
            theirs = re.search(r"^References\n-+\n.*?\n\n", f.__doc__ or "", re.MULTILINE | re.DOTALL)
            f_backward.__doc__ = _before_heading(f_backward.__doc__, theirs.group() if theirs else "")
        names = [dy, f"{source} of backward", *options]
        return _complete(f_backward, names, shape=shape, remark=remark, like=source, result="dx", dtypes=dtypes, shapes=shapes)

    return decorate


def loss_over_rows(*refused: str) -> Callable[[F], F]:
    """Complete the docstring of a loss ``f(pred, target)`` that has one value a row; refused: what else is a ValueError."""
    return _loss(0, refused)


def loss_over_elements(*refused: str) -> Callable[[F], F]:
    """Complete the docstring of a loss ``f(pred, target)`` that has one value an element; refused: what else is a ValueError."""
    return _loss(1, refused)


def metric(of: str) -> Callable[[F], F]:
    """Complete the docstring of a metric of "classes" or of "numbers"."""

    def decorate(f: F) -> F:
        text = inspect.cleandoc(f.__doc__ or "") + "\n"
        for place, forms in _OF_METRICS.items():
            text = text.replace(f"{{{place}}}", forms[0 if of == "classes" else 1])
        f.__doc__ = text
        return f

    return decorate


def _loss(form: int, refused: tuple[str, ...]) -> Callable[[F], F]:
    always = ("a weight is negative, infinite or NaN", "the reduction is unknown", "or out is read-only.")

    def decorate(f: F) -> F:
        pred, target, *_ = inspect.signature(f).parameters
        text = inspect.cleandoc(f.__doc__ or "") + "\n"
        for place, forms in _OF_LOSSES.items():
            shared = forms[form].format(pred=pred, target=target, refused=", ".join((*refused, *always)))
            text = text.replace(f"{{{place}}}", "\n".join(map(_wrapped, shared.splitlines())))
        f.__doc__ = text
        return f

    return decorate


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 128, subsequent_indent="    ")


def _complete(f: F, names: list[str], **words: str) -> F:
    arguments = "\n".join(_ARGUMENTS[name] for name in names).format(**words)
    refused = "".join(_REFUSED.get(name, "") for name in names) + (", or there is no last axis" if words["shape"] != ANY else "")
    text = _before_heading(f.__doc__, _SECTIONS.format(arguments=arguments, refused=refused, **words) + "\n")
    imported = f">>> from trainstep.reference import {f.__name__}\n"
    f.__doc__ = text.replace("Examples\n--------\n", "Examples\n--------\n" + imported)
    return f


def _before_heading(docstring: str | None, sections: str) -> str:
    """Put sections before the first that a docstring has."""
    text = inspect.cleandoc(docstring or "") + "\n"
    heading = re.search(r"^\w+\n-{3,}$", text, re.MULTILINE)
    at = heading.start() if heading else len(text)
    return text[:at] + sections + text[at:]
