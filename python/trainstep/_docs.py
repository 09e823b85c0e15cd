"""One text for the two forms of a formula: the compiled function takes its docstring from its NumPy twin."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def documented_by(twin: Callable[..., object], module: str) -> Callable[[F], F]:
    """Give a function of `module` the docstring of its twin in ``trainstep.reference``."""

    def decorate(function: F) -> F:
        function.__doc__ = (twin.__doc__ or "").replace("trainstep.reference", module)
        return function

    return decorate
