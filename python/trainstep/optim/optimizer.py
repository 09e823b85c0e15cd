"""What all optimizers share: parameters in groups, options, states, and one fused step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainstep import _core
from trainstep._checks import integer, switch
from trainstep.schedules import Plateau, Schedule

Array = NDArray[Any]
Params = Iterable[Any] | Iterable[Mapping[str, Any]] | Mapping[str, Any]
Rate = float | Callable[[int], float]

_NO_OPTIONS = ("self", "__class__", "params", "state_dtype", "seed")  # of the arguments of a class


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

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy belongs to no optimizer


class Optimizer:
    """What all optimizers share: parameters in groups, options, states, and one fused step.

    Not made directly: use `SGD`, `Adam` and the others. Optimizers can be copied and pickled, with their parameters and states.

    Parameters
    ----------
    params : list of arrays, dict of arrays by name, or list of param groups, optional
        NumPy arrays, or anything on the CPU with ``__dlpack__`` or the buffer protocol: float32, float64 or bfloat16,
        C-contiguous, none overlapping another; updated in place. A bfloat16 parameter keeps a float32 copy, ``master``, in its
        state. A param group is a dict with the entry ``params`` and options of its own. Without, a Trainer gives it its model's.
    lr : float or callable
        Learning rate, at least 0; or a schedule, called once a step with the number of updates so far (0 before the first).
    maximize : bool, default False
        Step up the gradient.
    l1 : float, default 0
        Adds l1 * sign(w) to the gradient, 0 at w = 0.
    state_dtype : {None, "bfloat16", "8bit"}, default None
        What the states are kept in. None: as the parameter, float32 for bfloat16. For parameters of these two, "bfloat16": with
        stochastic rounding; and "8bit" (`SGD`, `Adagrad`, `RMSprop`, `Adam`, `AdamW`, `Lion`, `LAMB`): with a scale for every
        256 elements, but those of a parameter of fewer than 4096 elements stay float32.
    seed : int, default 0
        What the stochastic rounding follows from.
    """

    _kind: ClassVar[str]

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        # A class hands in its locals(); what is left are its options, in the order of its signature.
        options = {name: value for name, value in arguments.items() if name not in _NO_OPTIONS}
        self._begin(options, arguments.get("state_dtype"), arguments.get("seed", 0))
        if arguments["params"] is None:
            self.param_groups[0].update(options)  # checks them
        else:
            self._take(arguments["params"])

    def _begin(self, options: dict[str, Any], state_dtype: str | None, seed: int) -> None:
        who = type(self).__name__
        self.defaults = options
        self._state_dtype = state_dtype
        self._seed = integer(f"{who}: seed", seed)
        self._core: Any = None
        self._params: list[Any] = []
        self._in_trainer = False
        self._skipped = 0  # by cores before this one
        self._rates: dict[int, float] = {}  # the number that a group's schedule gave last
        self._evaluated: tuple[int, dict[int, tuple[Any, Any]]] = (0, {})  # what schedules gave for a number of updates
        self.param_groups: list[ParamGroup] = [ParamGroup(options | {"params": []}, partial(self._change, 0))]

    def _bind(self, params: Mapping[str, Array]) -> dict[str, int | None]:
        """Take a model's parameters, for the Trainer, or find them among those it has: which of them each is."""
        if self._core is None:
            self._take(list(params.values()))
        own = {_address(array): i for i, array in enumerate(self._params)}
        places = {name: own.get(_address(view)) for name, view in params.items()}
        if len(own) > sum(place is not None for place in places.values()):
            who = type(self).__name__
            raise ValueError(f"{who}: it already has its parameters, expected an optimizer made without, or with the model's alone")
        self._in_trainer = True
        return places

    def _take(self, params: Params) -> None:
        who = type(self).__name__
        if self._core is not None:
            raise ValueError(f"{who}: it already has its parameters, expected an optimizer made without")
        given = _list_of_arrays(f"{who}: params", params, " or of param groups")
        if not given:
            raise ValueError(f"{who}: params is empty, expected at least one array")
        if not isinstance(given[0], Mapping):
            given = [{"params": given}]
        elif not all(isinstance(group, Mapping) for group in given):
            raise TypeError(f"{who}: params mixes param groups and arrays")
        # A group's own options, else those that the optimizer was made with or has been set to since.
        groups = [self._group(f"{who}: params[{g}]", group, self.param_groups[0]) for g, group in enumerate(given)]
        if not any(group["params"] for group in groups):
            raise ValueError(f"{who}: params has only empty groups, expected at least one array")
        self._make(groups, [self._numbers(group) for group in groups])

    def _group(self, where: str, group: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
        """Give a whole param group: its own options and, for the rest, those of another."""
        unknown = [name for name in group if name != "params" and name not in self.defaults]
        if unknown or "params" not in group:
            raise ValueError(f"{where} has {f'unknown option {unknown[0]}' if unknown else 'no entry params'}")
        return {**others, **group, "params": _list_of_arrays(f"{where}['params']", group["params"])}

    def _make(self, groups: Sequence[Mapping[str, Any]], numbers: list[dict[str, Any]]) -> None:
        """Make the core for param groups and their options as numbers."""
        params = [array for group in groups for array in group["params"]]
        group_of = [g for g, group in enumerate(groups) for _ in group["params"]]
        self._core = self._new_core(numbers, params, group_of)
        self._params = params
        self.param_groups = [ParamGroup(group, partial(self._change, g)) for g, group in enumerate(groups)]
        self._rates = {g: float(numbers[g]["lr"]) for g, group in enumerate(groups) if callable(group["lr"])}

    def _new_core(self, numbers: list[dict[str, Any]], params: list[Any], group_of: list[int]) -> Any:
        who = type(self).__name__
        return _core.Optimizer(self._kind, who, numbers, params, group_of, self._state_dtype, self._seed % 2**64)

    def _numbers(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Give options as the core takes them: the learning rate as the number that a schedule has for the next update."""
        numbers = {name: value for name, value in options.items() if name != "params"}
        if callable(numbers.get("lr")):
            numbers["lr"] = self._evaluate(numbers["lr"])
        return numbers

    def _evaluate(self, schedule: Callable[[int], float]) -> float:
        """Call a schedule, once for a number of updates, however many groups share it."""
        t = 0 if self._core is None else self._core.steps
        if self._evaluated[0] != t:
            self._evaluated = (t, {})
        results = self._evaluated[1]
        if id(schedule) not in results:
            results[id(schedule)] = (schedule, schedule(t))  # the schedule too, so that no other gets its id
        rate: float = results[id(schedule)][1]
        return rate

    def _change(self, group: int, values: Mapping[str, Any]) -> None:
        """Let a param group's new options take effect, or raise."""
        who = type(self).__name__
        unknown = [name for name in values if name not in self.defaults]
        if unknown:
            raise ValueError(f"{who}: {unknown[0]} is no option that can be set; options are {', '.join(self.defaults)}")
        numbers = self._numbers(values)
        if self._core is None:
            self._new_core([self._numbers(self.param_groups[group]) | numbers], [], [])
        else:
            self._core.set_options(who, group, numbers)
        if "lr" in values:
            self._rates.pop(group, None)
            if callable(values["lr"]):
                self._rates[group] = float(numbers["lr"])

    @property
    def lr(self) -> float:
        """The learning rate: that of the first param group; setting it sets all groups. Of a schedule, its last number."""
        return float(self._rates.get(0, self.param_groups[0]["lr"]))

    @lr.setter
    def lr(self, value: Rate) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def step(
        self,
        grads: Sequence[Any],
        *,
        grad_scale: float = 1.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        zero_grads: bool = False,
        skip_nonfinite: bool = False,
    ) -> float | None:
        """Update every parameter in place, in one fused pass.

        g <- grad_scale * g;  g <- g * min(1, clip_norm / (norm + 1e-6)), norm = sqrt(sum of all g^2), or
        g <- min(max(g, -clip_value), clip_value);  then the optimizer's own update

        Parameters
        ----------
        grads : sequence of arrays
            The gradient of each parameter, in the order of the parameters: same shape, float32, float64, float16 or bfloat16.
            None leaves its parameter out of this step. Left as they are.
        grad_scale : float, default 1
            What gradients are multiplied by first, such as 1 / (loss scale).
        clip_norm : float, optional
            The largest norm that all gradients together may keep.
        clip_value : float, optional
            The largest absolute value that an element of a gradient may keep. Goes with no clip_norm.
        zero_grads : bool, default False
            Set the gradients to 0 once they are used.
        skip_nonfinite : bool, default False
            Do nothing where a gradient has a NaN or an infinity; `skipped_steps` counts how often that was.

        Returns
        -------
        norm : float or None
            Of all gradients together, after scaling and before clipping; None without clip_norm.

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
        >>> opt = ts.optim.SGD([w], lr=0.5)
        >>> opt.step([np.array([1.0, -1.0])])
        >>> w
        array([0.5, 1.5])
        >>> opt.step([np.array([3.0, 4.0])], clip_norm=1.0)
        5.0
        """
        if self._core is None or self._rates:
            self._prepare()
        try:
            norm: float | None = self._core.step(self._params, grads, grad_scale, clip_norm, clip_value, zero_grads, skip_nonfinite)
        except TypeError:  # where it is the binding's own, it names no argument
            if not isinstance(grad_scale, int | float | np.number):
                raise TypeError(f"step: grad_scale is a {type(grad_scale).__name__}, expected a number") from None
            switch("step: zero_grads", zero_grads)
            switch("step: skip_nonfinite", skip_nonfinite)
            raise
        return norm

    def _prepare(self) -> None:
        """Do what some steps need first: hand the core the rates of schedules."""
        if self._core is None:
            raise RuntimeError(f"{type(self).__name__}: it has no parameters yet; make it with params, or give it to a Trainer")
        for g in self._rates:
            rate = self._evaluate(self.param_groups[g]["lr"])
            self._core.set_options(type(self).__name__, g, {"lr": rate})
            self._rates[g] = float(rate)

    def _rate_table(self, updates: int) -> NDArray[np.float64] | None:
        """Give the rates of the next updates, (updates, groups), NaN where a group has no schedule; None where none has."""
        if not self._rates:
            return None
        steps = np.arange(self._core.steps, self._core.steps + updates)
        table = np.full((updates, len(self.param_groups)), np.nan)
        for g in self._rates:
            schedule = self.param_groups[g]["lr"]
            rates = schedule(steps) if isinstance(schedule, Schedule) else [schedule(int(t)) for t in steps]
            table[:, g] = rates
            wrong = np.flatnonzero(~(np.isfinite(table[:, g]) & (table[:, g] >= 0)))
            if wrong.size:
                who, t, rate = type(self).__name__, steps[wrong[0]], table[wrong[0], g]
                raise ValueError(f"{who}: lr gave {rate} for t = {t}, expected a finite number of at least 0")
        return table

    def _took_rates(self, table: NDArray[np.float64] | None, updates: int) -> None:
        """Remember the last of the rates that the core has used, so many of a table."""
        if table is not None and updates > 0:
            self._rates = {g: float(table[updates - 1, g]) for g in self._rates}

    def _feed_plateaus(self, values: Mapping[str, float]) -> None:
        """Give each `Plateau` among the schedules, once, what it watches of an epoch's values."""
        for plateau in {id(s): s for g in self._rates if isinstance(s := self.param_groups[g]["lr"], Plateau)}.values():
            watched = plateau.monitor or ("val_loss" if "val_loss" in values else "loss")
            if watched not in values:
                raise ValueError(f"Plateau: monitor is {watched!r}, expected one of {', '.join(values)}")
            plateau.step(values[watched])

    @property
    def state(self) -> list[dict[str, Any]]:
        """The state of each parameter: ``step``, the number of its updates, other numbers, and the arrays by name.

        The arrays are views, or copies in float32 where the state is kept in fewer bits.
        """
        return [
            self._core.scalars(i) | {name: self._core.state(i, name) for name in self._core.used_states(i)}
            for i in range(len(self._params))
        ]

    @property
    def state_nbytes(self) -> int:
        """The memory that the states take, in bytes."""
        return 0 if self._core is None else int(self._core.state_nbytes)

    @property
    def skipped_steps(self) -> int:
        """How many steps ``skip_nonfinite`` has left out."""
        return self._skipped + (0 if self._core is None else int(self._core.skipped))

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a param group.

        The states move: views that `state` gave before no longer show them.

        Parameters
        ----------
        group : dict
            ``params``, and options that differ from those that the optimizer was made with.

        Raises
        ------
        ValueError, TypeError
            Where it cannot be taken. Nothing has been changed then.
        RuntimeError
            Where the parameters are a Trainer's model's.

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> w, b = np.ones(2), np.ones(1)
        >>> opt = ts.optim.SGD([w], lr=0.5)
        >>> opt.add_param_group({"params": [b], "lr": 0.25})
        >>> opt.step([np.ones(2), np.ones(1)])
        >>> w, b
        (array([0.5, 0.5]), array([0.75]))
        """
        who = type(self).__name__
        if self._in_trainer:
            raise RuntimeError(f"{who}: its parameters are those of a Trainer's model, and no group can be added to them")
        if not isinstance(group, Mapping):
            raise TypeError(f"{who}: group is a {type(group).__name__}, expected a dict")
        added = self._group(f"{who}: group", group, self.defaults)
        before, state, skipped = ([], [], 0) if self._core is None else (self.param_groups, self.state, self.skipped_steps)
        groups = [*before, added]
        self._make(groups, [self._numbers(g) for g in groups])
        self._skipped = skipped
        for i, entry in enumerate(state):
            self._set_state(i, entry)

    def _set_state(self, i: int, entry: Mapping[str, Any]) -> None:
        """Take the state of a parameter as `state` or `state_dict` has it."""
        self._core.set_scalars(i, {name: entry[name] for name in self._core.scalars(i)})
        for name in self._core.used_states(i):
            if name in entry:
                self._core.set_state(i, name, entry[name])

    def state_dict(self) -> dict[str, Any]:
        """Give states and options as plain dicts, in PyTorch's structure; the arrays are copies.

        PyTorch's optimizers take it once its arrays are tensors: see the second example. A schedule is in it as the number that
        it gave last.

        Returns
        -------
        state : dict
            ``{"state": {i: {"step": ..., name: array}}, "param_groups": [{..., "params": [indices]}]}``

        Examples
        --------
        >>> import numpy as np
        >>> import trainstep as ts
        >>> w = np.ones(2, dtype="float32")
        >>> opt = ts.optim.Adam([w])
        >>> opt.state_dict()["state"][0]["exp_avg"]
        array([0., 0.], dtype=float32)

        >>> import torch  # doctest: +SKIP
        >>> saved = opt.state_dict()
        >>> for entry in saved["state"].values():
        ...     entry.update((k, torch.from_numpy(v)) for k, v in entry.items() if k.startswith("exp"))  # doctest: +SKIP
        >>> peer = torch.optim.Adam([torch.nn.Parameter(torch.from_numpy(w))])  # doctest: +SKIP
        >>> peer.load_state_dict(saved)  # doctest: +SKIP
        """
        at = 0
        groups = []
        for g, group in enumerate(self.param_groups):
            groups.append({**group, "lr": self._rates.get(g, group["lr"]), "params": list(range(at, at + len(group["params"])))})
            at += len(group["params"])
        state = {}
        for i, entry in enumerate(self.state):
            state[i] = {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in entry.items()}
            if self._kind == "sgd" and entry["step"] == 0:
                state[i].pop("momentum_buffer", None)  # PyTorch takes one that is there for one with a gradient in it
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take states and options from what `state_dict` gave, or that of PyTorch's optimizer of this name.

        A param group whose lr is a schedule keeps it, and goes on where the state's number of updates says. PyTorch's options
        that do not exist here (foreach, fused, capturable, differentiable) are left out; a parameter without an entry has not
        been stepped yet. `SGD` of PyTorch does not keep the number of updates: it is 1 then.

        Parameters
        ----------
        state_dict : dict
            Of an optimizer of the same kind over parameters of the same shapes, in the same groups; arrays or tensors.

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
        groups, states = _parts(f"{who}: state_dict", state_dict, self.param_groups, len(self._params))
        numbers = []
        for g, (mine, theirs) in enumerate(zip(self.param_groups, groups, strict=True)):
            now = {**mine, "lr": self._rates.get(g, mine["lr"])}
            numbers.append({name: theirs.get(name, now[name]) for name in self.defaults})
        # One array of each group tells what states its options need, and what they are before the first update.
        fresh = _core.Optimizer(self._kind, who, numbers, [np.zeros(1) for _ in groups], list(range(len(groups))), None, 0)
        group_of = [g for g, group in enumerate(self.param_groups) for _ in group["params"]]
        loaded = [self._loaded(i, fresh, g, states.get(i)) for i, g in enumerate(group_of)]
        for g, (mine, taken) in enumerate(zip(self.param_groups, numbers, strict=True)):
            self._core.set_options(who, g, taken)
            dict.update(mine, {name: value for name, value in taken.items() if name != "lr" or g not in self._rates})
            self._rates |= {g: float(taken["lr"])} if g in self._rates else {}
        for i, entry in enumerate(loaded):
            self._set_state(i, entry)

    def _loaded(self, i: int, fresh: Any, g: int, entry: Mapping[str, Any] | None) -> dict[str, Any]:
        """Give what a state_dict has for a parameter, checked and in the parameter's dtype."""
        names = fresh.used_states(g)
        shape, dtype = self._core.shape(i), self._core.dtype(i)
        result: dict[str, Any] = dict(fresh.scalars(g))
        begin = {name: fresh.state(g, name)[0] for name in names}
        if entry is None:
            return result | {name: np.full(shape, value, dtype) for name, value in begin.items()}
        where = f"{type(self).__name__}: state_dict has"
        known = {*result, *_core.optimizer_states[self._kind], "master"}
        unknown = [name for name in entry if name not in known]
        if unknown:
            raise ValueError(f"{where} an unknown state {unknown[0]} for parameter {i}")
        unstepped_sgd = self._kind == "sgd" and "step" not in entry  # PyTorch's
        for name in result:
            if name == "step" and unstepped_sgd:
                result[name] = int(entry.get("momentum_buffer") is not None)
            elif name not in entry:
                raise ValueError(f"{where} no {name} for parameter {i}")
            else:
                result[name] = (_count if name == "step" else _number)(f"{where} {name}", entry[name], i)
        for name in (*names, "master"):
            if name in entry:
                result[name] = _state_array(f"{where} {name}", entry[name], i, shape, dtype)
            elif name in begin and result["step"] > 0:
                raise ValueError(f"{where} no {name} for parameter {i}")
            elif name in begin:
                result[name] = np.full(shape, begin[name], dtype)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {
            "defaults": self.defaults,
            "state_dtype": self._state_dtype,
            "seed": self._seed,
            "groups": [dict(group) for group in self.param_groups],
            "rates": self._rates,
            "skipped": self.skipped_steps,
            "state": None if self._core is None else self.state_dict()["state"],
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._begin(saved["defaults"], saved["state_dtype"], saved["seed"])
        groups, rates = saved["groups"], saved["rates"]
        if saved["state"] is None:
            self.param_groups[0].update({name: value for name, value in groups[0].items() if name != "params"})
            return
        self._make(groups, [self._numbers({**group, "lr": rates.get(g, group["lr"])}) for g, group in enumerate(groups)])
        self._skipped = saved["skipped"]
        for i, entry in saved["state"].items():
            self._set_state(i, entry)

    def _over(self, params: Sequence[Any]) -> "Optimizer":
        """Give a copy, options and states included, that updates other arrays: one in place of each that this one has."""
        saved = self.__getstate__()
        others = iter(params)
        groups = [{**group, "params": [next(others) for _ in group["params"]]} for group in saved["groups"]]
        copied = type(self).__new__(type(self))
        copied.__setstate__({**saved, "groups": groups})
        return copied

    def __repr__(self) -> str:
        options = {name: value for name, value in self.param_groups[0].items() if name != "params"}
        options["lr"] = self._rates.get(0, options["lr"])
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _address(array: Any) -> tuple[int, tuple[int, ...]] | int:
    """Tell a NumPy array's place and shape; of anything else, nothing that another has."""
    return (array.ctypes.data, array.shape) if isinstance(array, np.ndarray) else id(array)


def _list_of_arrays(where: str, params: Any, or_of: str = "") -> list[Any]:
    if isinstance(params, np.ndarray) or hasattr(params, "__dlpack__"):
        raise TypeError(f"{where} is one array, expected a list of arrays{or_of}")
    if not isinstance(params, Iterable) or isinstance(params, str | bytes):
        raise TypeError(f"{where} is a {type(params).__name__}, expected a list of arrays{or_of}")
    return list(params.values() if isinstance(params, Mapping) else params)


def _parts(where: str, state_dict: Any, mine: Sequence[Mapping[str, Any]], params: int) -> tuple[Any, dict[int, Any]]:
    """Give the param groups of a state_dict and the entry of each parameter by its index here."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{where} is a {type(state_dict).__name__}, expected a dict")
    if not {"param_groups", "state"} <= set(state_dict):
        raise ValueError(f"{where} has no entries param_groups and state")
    groups, states = state_dict["param_groups"], state_dict["state"]
    if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
        raise TypeError(f"{where}['param_groups'] is no list of dicts")
    if not isinstance(states, Mapping) or not all(isinstance(entry, Mapping) for entry in states.values()):
        raise TypeError(f"{where}['state'] is no dict of dicts")
    if len(groups) != len(mine):
        raise ValueError(f"{where} has {len(groups)} groups, expected {len(mine)}")
    indices: list[Any] = []
    for group, own in zip(groups, mine, strict=True):
        given = group.get("params", ())
        if not isinstance(given, list | tuple) or len(given) != len(own["params"]) or not all(isinstance(k, int) for k in given):
            raise ValueError(f"{where} has a group with params {given!r}, expected {len(own['params'])} indices")
        indices += given
    unknown = [key for key in states if key not in indices]
    if unknown or len(set(indices)) != params:
        raise ValueError(f"{where} has states of parameters {list(states)}, and its groups have {indices}")
    return groups, {i: states[key] for i, key in enumerate(indices) if key in states}


def _count(where: str, value: Any, i: int) -> int:
    try:  # PyTorch keeps it as a float, in a tensor
        return integer(where, int(value) if value == int(value) else value, 0, 2**63 - 1)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where} {value!r} for parameter {i}, expected an int of at least 0") from None


def _number(where: str, value: Any, i: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{where} {value!r} for parameter {i}, expected a number")
    return number


def _state_array(where: str, value: Any, i: int, shape: tuple[int, ...], dtype: str) -> Array:
    # NumPy knows no bfloat16; a tensor of it can be had as float32.
    given = np.asarray(value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value)
    if given.dtype.kind not in "fiu" and given.dtype.name != "bfloat16":
        raise TypeError(f"{where} of dtype {given.dtype} for parameter {i}, expected real numbers")
    if given.shape != shape:
        raise ValueError(f"{where} of shape {given.shape} for parameter {i}, expected {shape}")
    with np.errstate(over="ignore"):
        result = given.astype(dtype, order="C")
    if not np.array_equal(np.isfinite(result), np.isfinite(given)):
        raise ValueError(f"{where} for parameter {i} with numbers too large for {dtype}")
    return result
