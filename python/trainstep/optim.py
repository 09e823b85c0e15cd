"""Optimizers: classes that step lists of arrays in place, and the bare formulas for one array.

Names, defaults, state names and results are those of ``torch.optim``. eps stands outside the root, as there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainstep import _core, reference
from trainstep._checks import integer
from trainstep._docs import documented_by

Array = NDArray[Any]
Params = Iterable[Any] | Iterable[Mapping[str, Any]]

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "adam_step_", "sgd_step_"]

_OPTIMIZERS = {"float32": _core.OptimizerFloat32, "float64": _core.OptimizerFloat64}


class ParamGroup(dict[str, Any]):
    """A param group: a dict of its parameters and options, whose options take effect when they are set."""

    def __init__(self, values: Mapping[str, Any], changed: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(values)
        self._changed = changed

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several options: all of them or, where one cannot be taken, none."""
        values = dict(*args, **kwargs)
        self._changed(values)
        super().update(values)

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __ior__(self, values: Any) -> "ParamGroup":  # type: ignore[override,misc]
        self.update(values)
        return self

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Give an option; one that is not there cannot be added."""
        if name not in self:
            self.update({name: default})
        return self[name]

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("a param group's entries can be set, not removed")

    __delitem__ = pop = popitem = clear = _refuse


class Optimizer:
    """What all optimizers share: parameters in groups, options, states, and one fused step.

    Not made directly: use `SGD`, `Adam` and the others.
    """

    _kind: ClassVar[str]
    _state_names: ClassVar[tuple[str, ...]]

    def __init__(self, params: Params | None, options: dict[str, Any]) -> None:
        self._options = options
        self._core: Any = None
        self._steps_before_core = 0
        self.param_groups: list[ParamGroup] = [ParamGroup(options | {"params": []}, self._option_setter(0))]
        self._check_options(options)
        if params is not None:
            self._bind(params)

    def _bind(self, params: Params) -> None:
        """Take the parameters: made with them, or given a model's by the Trainer."""
        who = type(self).__name__
        if self._core is not None:
            raise ValueError(f"{who}: it already has its parameters, expected an optimizer made without")
        given = _list_of_arrays(f"{who}: params", params, " or of param groups")
        if not given:
            raise ValueError(f"{who}: params is empty, expected at least one array")
        groups: list[Mapping[str, Any]] = (
            [g for g in given if isinstance(g, Mapping)] if isinstance(given[0], Mapping) else [{"params": given}]
        )
        if len(groups) != len(given) and isinstance(given[0], Mapping):
            raise TypeError(f"{who}: params mixes param groups and arrays")
        taken: list[ParamGroup] = []
        arrays: list[Any] = []
        group_of: list[int] = []
        for g, group in enumerate(groups):
            unknown = [name for name in group if name not in self.param_groups[0]]
            if unknown or "params" not in group:
                raise ValueError(f"{who}: params[{g}] has {f'unknown option {unknown[0]}' if unknown else 'no entry params'}")
            # A group's own options, else those that the optimizer was made with or has been set to since.
            own = _list_of_arrays(f"{who}: params[{g}]['params']", group["params"])
            values = {**self.param_groups[0], **group, "params": own}
            taken.append(ParamGroup(values, self._option_setter(g)))
            arrays += values["params"]
            group_of += [g] * len(values["params"])
        if not arrays:
            raise ValueError(f"{who}: params has only empty groups, expected at least one array")
        views = self._views(arrays)
        self._core = _OPTIMIZERS[views[0].dtype.name](
            self._kind,
            who,
            [{k: v for k, v in g.items() if k != "params"} for g in taken],
            [view.size for view in views],
            group_of,
        )
        self.param_groups = taken
        self._params = arrays
        self._shapes = [view.shape for view in views]
        self._dtype = views[0].dtype

    def _views(self, arrays: list[Any]) -> list[Array]:
        """Give the parameters as NumPy arrays over their memory, checked."""
        who = type(self).__name__
        views = [_as_array(a, f"{who}: params[{i}]") for i, a in enumerate(arrays)]
        for i, view in enumerate(views):
            if view.dtype.name not in _OPTIMIZERS or not view.dtype.isnative:
                raise TypeError(f"{who}: params[{i}] has dtype {view.dtype}, expected float32 or float64")
            if not (view.flags.c_contiguous and view.flags.aligned and view.flags.writeable):
                raise ValueError(f"{who}: params[{i}] is strided or read-only, expected a C-contiguous, writeable array")
        names = {view.dtype.name for view in views}
        if len(names) > 1:
            raise TypeError(f"{who}: params has dtypes {' and '.join(sorted(names))}, expected one dtype")
        spans = sorted((view.ctypes.data, view.ctypes.data + view.nbytes, i) for i, view in enumerate(views) if view.size)
        for (_, end, i), (start, _, j) in pairwise(spans):
            if start < end:
                raise ValueError(f"{who}: params[{max(i, j)}] shares memory with params[{min(i, j)}]")
        return views

    def _option_setter(self, group: int) -> Callable[[Mapping[str, Any]], None]:
        def changed(values: Mapping[str, Any]) -> None:
            who = type(self).__name__
            unknown = [name for name in values if name not in self._options]
            if unknown:
                raise ValueError(f"{who}: {unknown[0]} is no option that can be set; options are {', '.join(self._options)}")
            if self._core is None:
                self._check_options({k: v for k, v in self.param_groups[group].items() if k != "params"} | dict(values))
            else:
                self._core.set_options(who, group, dict(values))

        return changed

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise where an option's value cannot be taken."""
        _core.OptimizerFloat32(self._kind, type(self).__name__, [dict(options)], [], [])

    @property
    def lr(self) -> float:
        """The learning rate: that of the first param group; setting it sets all groups."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def step(self, grads: Sequence[Any]) -> None:
        """Update every parameter in place, in one fused pass.

        Parameters
        ----------
        grads : sequence of arrays
            The gradient of each parameter, in the order of the parameters: same shape, same dtype. Left as they are.

        Raises
        ------
        ValueError, TypeError
            Where the gradients do not fit the parameters. Nothing has been written then.
        RuntimeError
            Where the optimizer has no parameters yet.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> w = np.ones(2)
        >>> ts.optim.SGD([w], lr=0.5).step([np.array([1.0, -1.0])])
        >>> w
        array([0.5, 1.5])
        """
        if self._core is None:
            raise RuntimeError(f"{type(self).__name__}: it has no parameters yet; make it with params, or give it to a Trainer")
        self._core.step(self._params, grads)

    @property
    def state(self) -> list[dict[str, Any]]:
        """The state of each parameter: views by name, and ``step``, the number of updates."""
        if self._core is None:
            return []
        return [
            {"step": self._core.steps, **{name: self._core.state(i, s, shape) for s, name in enumerate(self._used_states(group))}}
            for i, (shape, group) in enumerate(zip(self._shapes, self._options_of_params(), strict=True))
        ]

    def _used_states(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Name the states that a parameter has under its group's options."""
        return self._state_names

    def _options_of_params(self) -> list[Mapping[str, Any]]:
        """Give the group of each parameter."""
        return [group for group in self.param_groups for _ in group["params"]]

    @property
    def state_nbytes(self) -> int:
        """The memory that the states take, in bytes."""
        return sum(v.nbytes for entry in self.state for v in entry.values() if isinstance(v, np.ndarray))

    def state_dict(self) -> dict[str, Any]:
        """Give states and options as plain dicts, in PyTorch's structure; the arrays are copies.

        Returns
        -------
        state : dict
            ``{"state": {i: {"step": ..., name: array}}, "param_groups": [{..., "params": [indices]}]}``

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> ts.optim.Adam([np.ones(2)]).state_dict()["state"][0]["exp_avg"]
        array([0., 0.])
        """
        at = 0
        groups = []
        for group in self.param_groups:
            groups.append({**group, "params": list(range(at, at + len(group["params"])))})
            at += len(group["params"])
        return {
            "state": {
                i: {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in entry.items()}
                for i, entry in enumerate(self.state)
            },
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take states and options from what `state_dict` gave.

        Parameters
        ----------
        state_dict : dict
            Of an optimizer of the same kind over parameters of the same shapes, in the same groups.

        Raises
        ------
        ValueError, TypeError
            Where it does not fit. Nothing has been taken then.
        RuntimeError
            Where the optimizer has no parameters yet.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> one, other = ts.optim.Adam([np.ones(2)]), ts.optim.Adam([np.ones(2)])
        >>> one.step([np.ones(2)])
        >>> other.load_state_dict(one.state_dict())
        >>> other.state[0]["exp_avg"]
        array([0.1, 0.1])
        """
        who = type(self).__name__
        if self._core is None:
            raise RuntimeError(f"{who}: it has no parameters yet; make it with params, or give it to a Trainer")
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{who}: state_dict is a {type(state_dict).__name__}, expected a dict")
        if not {"param_groups", "state"} <= set(state_dict):
            raise ValueError(f"{who}: state_dict has no entries param_groups and state")
        groups, states = state_dict["param_groups"], state_dict["state"]
        if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
            raise TypeError(f"{who}: state_dict['param_groups'] is no list of dicts")
        if not isinstance(states, Mapping) or not all(isinstance(entry, Mapping) for entry in states.values()):
            raise TypeError(f"{who}: state_dict['state'] is no dict of dicts")
        if len(groups) != len(self.param_groups) or len(states) != len(self._shapes):
            raise ValueError(
                f"{who}: state_dict has {len(groups)} groups and {len(states)} states, "
                f"expected {len(self.param_groups)} and {len(self._shapes)}"
            )
        options = []
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            params = theirs.get("params", ())
            if not isinstance(params, list | tuple) or len(params) != len(mine["params"]):
                raise ValueError(f"{who}: state_dict has a group with params {params!r}, expected {len(mine['params'])} of them")
            taken = {k: v for k, v in mine.items() if k != "params"} | {k: theirs[k] for k in self._options if k in theirs}
            self._check_options(taken)
            options += [taken]
        options_of_params = [taken for mine, taken in zip(self.param_groups, options, strict=True) for _ in mine["params"]]
        loaded = [
            self._loaded_states(i, shape, states.get(i, {}), self._used_states(taken))
            for i, (shape, taken) in enumerate(zip(self._shapes, options_of_params, strict=True))
        ]
        steps = {step for step, _ in loaded}
        if len(steps) != 1:
            raise ValueError(f"{who}: state_dict has parameters at steps {sorted(steps)}, expected one number")
        for mine, taken in zip(self.param_groups, options, strict=True):
            mine.update(taken)
        for i, (entry, (_, values)) in enumerate(zip(self.state, loaded, strict=True)):
            for s, name in enumerate(self._state_names):
                if name in entry or name in values:
                    self._core.state(i, s, self._shapes[i])[...] = values.get(name, 0)
        self._core.steps = steps.pop()

    def _loaded_states(
        self, param: int, shape: tuple[int, ...], entry: Mapping[str, Any], used: tuple[str, ...]
    ) -> tuple[int, dict[str, Array]]:
        """Give the step and the states that a state_dict has for a parameter, checked and in the parameter's dtype."""
        where = f"{type(self).__name__}: state_dict has"
        if "step" not in entry:
            raise ValueError(f"{where} no step for parameter {param}")
        step = entry["step"]
        try:  # PyTorch keeps it as a float, in a tensor
            count = integer(f"{where} a step that", int(step) if step == int(step) else step, 0, 2**63 - 1)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{where} step {step!r} for parameter {param}, expected an int of at least 0") from None
        values = {}
        for name in (*used, *(name for name in entry if name not in ("step", *used))):
            if name not in entry or name not in self._state_names:
                raise ValueError(f"{where} {'no' if name not in entry else 'an unknown state'} {name} for parameter {param}")
            given = np.asarray(entry[name])
            if given.dtype.kind not in "fiu":
                raise TypeError(f"{where} {name} of dtype {given.dtype} for parameter {param}, expected real numbers")
            if given.shape != shape:
                raise ValueError(f"{where} {name} of shape {given.shape} for parameter {param}, expected {shape}")
            with np.errstate(over="ignore"):
                values[name] = given.astype(self._dtype)
            if not np.array_equal(np.isfinite(values[name]), np.isfinite(given)):
                raise ValueError(f"{where} {name} for parameter {param} with numbers too large for {self._dtype}")
        return count, values

    def __repr__(self) -> str:
        options = {k: v for k, v in self.param_groups[0].items() if k != "params"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


def _list_of_arrays(where: str, params: Any, or_of: str = "") -> list[Any]:
    if isinstance(params, np.ndarray) or hasattr(params, "__dlpack__"):
        raise TypeError(f"{where} is one array, expected a list of arrays{or_of}")
    if not isinstance(params, Iterable) or isinstance(params, str | bytes | Mapping):
        raise TypeError(f"{where} is a {type(params).__name__}, expected a list of arrays{or_of}")
    return list(params)


def _as_array(value: Any, where: str) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a MaskedArray, expected an array without a mask")
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(memoryview(value))
    except Exception as error:  # whatever another library's object raises
        raise TypeError(f"{where} is a {type(value).__name__}, expected an array ({error})") from error


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    g += weight_decay * w + l1 * sign(w);  buf = momentum * buf + (1 - dampening) * g, buf = g at the first step;
    w -= lr * buf, or lr * (g + momentum * buf) with nesterov

    Parameters
    ----------
    params : list of arrays or of param groups, optional
        float32 or float64, all alike, C-contiguous; updated in place. Without, a Trainer gives it its model's.
    lr : float, default 1e-3
        Learning rate, at least 0.
    momentum : float, default 0
        How much of the last change is kept.
    dampening : float, default 0
        1 minus what the gradient enters the buffer with, from the second step on.
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    nesterov : bool, default False
        Nesterov's form; needs momentum and no dampening.
    maximize : bool, default False
        Step up the gradient.
    l1 : float, default 0
        Adds l1 * sign(w) to the gradient, 0 at w = 0.
    lr_in_velocity : bool, default False
        The textbook form: change = momentum * change + lr * g, change = 0 at the start; w -= change. The two forms differ
        where lr changes between steps.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning (ICML 2013),
    equations 1 to 4; PyTorch's ``torch.optim.SGD`` for the form.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> opt = ts.optim.SGD([w], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     opt.step([np.ones(1)])
    >>> w
    array([-1.25])
    """

    _kind = "sgd"
    _state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Params | None = None,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        lr_in_velocity: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "l1": l1,
                "lr_in_velocity": lr_in_velocity,
            },
        )

    def _used_states(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return self._state_names if options["momentum"] else ()


class Adam(Optimizer):
    """Adam: steps along a mean gradient, divided by its root mean square.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    params : list of arrays or of param groups, optional
        float32 or float64, all alike, C-contiguous; updated in place. Without, a Trainer gives it its model's.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        What the means keep at each step, each in [0, 1).
    eps : float, default 1e-8
        Added to the root (PyTorch and the paper's algorithm 1; Keras and the paper's section 2 have it before the bias
        correction).
    weight_decay : float, default 0
        Coupled (L2) decay: added to the gradient.
    decoupled_weight_decay : bool, default False
        AdamW's decay instead: w *= 1 - lr * weight_decay.
    maximize : bool, default False
        Step up the gradient.
    l1 : float, default 0
        Adds l1 * sign(w) to the gradient, 0 at w = 0.
    bias_correction : bool, default True
        False leaves out both corrections 1 - beta^t.
    eps_inside_sqrt : bool, default False
        sqrt(v + eps) instead of sqrt(v) + eps.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization (ICLR 2015), algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.zeros(1)
    >>> ts.optim.Adam([w], lr=0.5).step([np.array([7.0])])  # the first step is lr long, whatever the gradient
    >>> w.round(6)
    array([-0.5])
    """

    _kind = "adam"
    _state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
                "l1": l1,
                "bias_correction": bias_correction,
                "eps_inside_sqrt": eps_inside_sqrt,
            },
        )


class AdamW(Adam):
    """Adam with decoupled weight decay.

    w *= 1 - lr * weight_decay, then Adam's step

    Parameters
    ----------
    params, lr, betas, eps, maximize, l1, bias_correction, eps_inside_sqrt
        As for `Adam`.
    weight_decay : float, default 0.01
        The share of lr that a weight loses at each step.

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be taken; the message names it.

    References
    ----------
    Loshchilov, Hutter: Decoupled weight decay regularization (ICLR 2019), algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> import trainstep as ts
    >>> w = np.ones(1)
    >>> ts.optim.AdamW([w], lr=0.5, weight_decay=0.1).step([np.zeros(1)])
    >>> w
    array([0.95])
    """

    def __init__(
        self,
        params: Params | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            decoupled_weight_decay=True,
            maximize=maximize,
            l1=l1,
            bias_correction=bias_correction,
            eps_inside_sqrt=eps_inside_sqrt,
        )


@documented_by(reference.sgd_step_, __name__)
def sgd_step_(  # noqa: D103
    w: Array,
    g: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    lr_in_velocity: bool = False,
) -> None:
    options = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
        "l1": l1,
        "lr_in_velocity": lr_in_velocity,
    }
    states = () if momentum_buffer is None else (("momentum_buffer", momentum_buffer),)
    _core.step_array("sgd", "sgd_step_", w, g, states, step, options)


@documented_by(reference.adam_step_, __name__)
def adam_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    bias_correction: bool = True,
    eps_inside_sqrt: bool = False,
) -> None:
    options = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "decoupled_weight_decay": decoupled_weight_decay,
        "maximize": maximize,
        "l1": l1,
        "bias_correction": bias_correction,
        "eps_inside_sqrt": eps_inside_sqrt,
    }
    _core.step_array("adam", "adam_step_", w, g, (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)), step, options)
