"""Optimizers for PyTorch: subclasses of ``torch.optim.Optimizer`` that step all parameters in one pass of the compiled core.

They take the place of the classes of ``torch.optim`` with the same names, for tensors on the CPU in float32, float64 or bfloat16;
`Lion`, `LAMB` and `LARS` come besides. What ``torch.optim.Optimizer`` does they do: param groups, hooks, closures, schedulers,
``state_dict`` (which either side takes from the other), copies and pickles. States are tensors in ``opt.state[p]``.

This module needs PyTorch, and nothing else in trainstep imports it: ``import trainstep.torch``.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from trainstep import _core
from trainstep._checks import integer

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_STATE_DTYPES = (None, "bfloat16", "8bit")
_NO_OPTIONS = ("self", "__class__", "params", "seed")  # of the arguments of a class
_HOW_TORCH_COMPUTES = ("foreach", "fused", "capturable", "differentiable")  # options of torch.optim that have no meaning here
_ASKED_FOR_BY = {"momentum_buffer": "momentum", "max_exp_avg_sq": "amsgrad", "grad_avg": "centered"}  # a state: an option
_NUMBERS = {"nadam": ("mu_product",), "asgd": ("eta", "mu")}  # that a kind keeps besides its states and the step
_WITHOUT_SIGN = ("sum", "square_avg", "exp_avg_sq", "max_exp_avg_sq")
_LEAST_IN_EIGHT_BITS = 4096
_BLOCK = 256
# Without its exchange functions a tensor that requires grad cannot be read.
_READ_AS_THEY_ARE = hasattr(Tensor, "__dlpack_c_exchange_api__")


class Optimizer(torch.optim.Optimizer):
    """What all optimizers of this module share: a ``torch.optim.Optimizer`` over the compiled core.

    Not made directly: use `SGD`, `Adam` and the others.

    Parameters
    ----------
    params : iterable of tensors, of (name, tensor) or of param groups
        As for ``torch.optim``: float32, float64 or bfloat16 on the CPU, each dense (contiguous, or permuted as in
        ``channels_last``), none sharing memory with another. A bfloat16 parameter keeps a float32 copy, ``master``, in its state,
        which is what is stepped; elements that somebody else has written to go on from what was written.
    lr : float or one-element tensor
        Learning rate, at least 0. Schedulers of ``torch.optim.lr_scheduler`` set it.
    maximize : bool, default False
        Step up the gradient.
    l1 : float, default 0
        Adds l1 * sign(w) to the gradient, 0 at w = 0.
    state_dtype : {None, "bfloat16", "8bit"}, default None
        What the states are kept in. None: as the parameter, float32 for bfloat16. "bfloat16": with stochastic rounding. "8bit"
        (`SGD`, `Adagrad`, `RMSprop`, `Adam`, `AdamW`, `Lion`, `LAMB`): codes in uint8, and beside them ``<name>_exponents``, one
        for every 256 elements; parameters of fewer than 4096 elements have states of their own dtype. An option of a param group.
    seed : int, default 0
        What the stochastic rounding follows from.

    Attributes
    ----------
    last_norm : float or None
        What the last step with clip_norm found: the norm of all gradients together, after scaling and before clipping.
    skipped_steps : int
        How many steps ``skip_nonfinite`` has left out.
    """

    _kind: ClassVar[str]

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        # A class hands in its locals(); what is left are its options.
        defaults = {name: value for name, value in arguments.items() if name not in _NO_OPTIONS}
        self._options = tuple(name for name in defaults if name != "state_dtype")
        self.seed = integer(f"{type(self).__name__}: seed", arguments.get("seed", 0), 0, 2**64 - 1)
        self.last_norm: float | None = None
        self.skipped_steps = 0
        super().__init__(arguments["params"], defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group.

        Parameters
        ----------
        param_group : dict
            ``params``, and options that differ from those that the optimizer was made with.

        Raises
        ------
        ValueError, TypeError
            Where it cannot be taken. Nothing has been changed then.

        Examples
        --------
        >>> w, b = torch.ones(2), torch.ones(1)
        >>> opt = SGD([w], lr=0.5)
        >>> opt.add_param_group({"params": [b], "lr": 0.25})
        >>> w.grad, b.grad = torch.ones(2), torch.ones(1)
        >>> opt.step()
        >>> w, b
        (tensor([0.5000, 0.5000]), tensor([0.7500]))
        """
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1], sum(len(group["params"]) for group in self.param_groups[:-1]))
            self._check_memory()
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: Mapping[str, Any], first: int) -> None:
        """Raise where options or parameters cannot be taken. The first parameter has that number."""
        who = type(self).__name__
        others = {name for cls in Optimizer.__subclasses__() for name in cls.__init__.__code__.co_varnames} - {"params"}
        for name, value in group.items():
            if name not in self.defaults and (name in others or (name in _HOW_TORCH_COMPUTES and value)):
                raise ValueError(f"{who}: a param group has {name}={value!r}, which is no option of {who}")
        low_bits = group.get("state_dtype")
        if low_bits not in _STATE_DTYPES:
            raise ValueError(f"{who}: state_dtype is {low_bits!r}, expected None, 'bfloat16' or '8bit'")
        _core.Optimizer(self._kind, who, [{name: group[name] for name in self._options}], [], [], low_bits, 0)
        for i, p in enumerate(group["params"], first):
            where = f"{who}: params[{i}]"
            if p.layout is not torch.strided or p.device.type != "cpu":
                raise TypeError(f"{where} is a {p.layout} tensor on {p.device}, expected a dense one on the CPU")
            if p.dtype not in _DTYPES:
                raise TypeError(f"{where} has dtype {p.dtype}, expected torch.float32, torch.float64 or torch.bfloat16")
            if low_bits and p.dtype is torch.float64:
                raise TypeError(f"{where} has dtype torch.float64, which does not go with state_dtype {low_bits!r}")
            if not p.is_contiguous() and torch.empty_like(p, device="meta").stride() != p.stride():
                raise ValueError(f"{where} has gaps or overlaps (strides {p.stride()}), expected a dense tensor")

    def _check_memory(self) -> None:
        """Raise where two parameters share memory: they are stepped at the same time."""
        params = enumerate(p for group in self.param_groups for p in group["params"])
        spans = sorted((p.data_ptr(), p.data_ptr() + p.nbytes, i) for i, p in params if p.numel())
        for (_, end, i), (start, _, j) in pairwise(spans):
            if start < end:
                raise ValueError(f"{type(self).__name__}: params[{max(i, j)}] shares memory with params[{min(i, j)}]")

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: float = 1.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        zero_grads: bool = False,
        skip_nonfinite: bool = False,
    ) -> Any:
        """Update every parameter that has a gradient in place, all of them in one fused pass.

        g <- grad_scale * g;  g <- g * min(1, clip_norm / (norm + 1e-6)), norm = sqrt(sum of all g^2);
        g <- min(max(g, -clip_value), clip_value);  then the optimizer's own update

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew, before the update.
        grad_scale : float, default 1
            What gradients are multiplied by first, such as 1 / (loss scale).
        clip_norm : float, optional
            The largest norm that all gradients together may keep; `last_norm` has their norm then.
        clip_value : float, optional
            The largest absolute value that an element of a gradient may keep.
        zero_grads : bool, default False
            Set the gradients to 0 once they are used.
        skip_nonfinite : bool, default False
            Do nothing where a gradient has a NaN or an infinity; `skipped_steps` counts how often that was.

        Returns
        -------
        loss : object
            What closure returned; None without it.

        Raises
        ------
        ValueError, TypeError
            Where a gradient, a state or an option cannot be taken. Nothing has been written then.

        Examples
        --------
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> opt = SGD([w], lr=0.5)
        >>> w.grad = torch.tensor([3.0, 4.0])
        >>> opt.step(clip_norm=10.0)
        >>> w.data, opt.last_norm
        (tensor([-1.5000, -2.0000]), 5.0)
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        options: list[dict[str, Any]] = []
        group_of: list[int] = []
        params: list[Tensor] = []
        grads: list[Tensor] = []
        states: list[dict[str, Any]] = []
        flattened: list[tuple[dict[str, Any], dict[str, Any]]] = []  # states of the core's own, and whose they are
        for g, group in enumerate(self.param_groups):
            options.append({name: group[name] for name in self._options})
            names = self._state_names(group)
            last = names[-1] if names else "step"
            for p in group["params"]:
                grad = p.grad
                if grad is None:
                    continue
                state = self.state[p]
                if last not in state:
                    self._begin(p, state, group)
                if not (_READ_AS_THEY_ARE and p.is_contiguous() and grad.is_contiguous()):
                    own = state
                    p, grad, state = self._flat(p, grad, own, zero_grads)
                    flattened.append((state, own))
                group_of.append(g)
                params.append(p)
                grads.append(grad)
                states.append(state)
        self.last_norm, skipped = _core.step_tensors(
            self._kind,
            type(self).__name__,
            options,
            group_of,
            params,
            grads,
            states,
            grad_scale,
            clip_norm,
            clip_value,
            zero_grads,
            skip_nonfinite,
            self.seed,
        )
        for state, own in flattened:
            own.update((name, value) for name, value in state.items() if not isinstance(value, Tensor))
        if skipped:
            self.skipped_steps += 1
            for state in self.state.values():
                if not state.get("step"):  # begins anew, with the options of its first step
                    state.clear()
        else:
            increment_version(params)  # so that autograd sees that they have changed
        return loss

    def _state_names(self, group: Mapping[str, Any]) -> list[str]:
        """Name the states that a param group's options ask for."""
        return [name for name in _core.optimizer_states[self._kind] if group.get(_ASKED_FOR_BY.get(name, ""), True)]

    def _begin(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """Make what a parameter's state lacks."""
        start = {"sum": group.get("initial_accumulator_value"), "step_size": group["lr"]}
        state.setdefault("step", 0)
        for name in self._state_names(group):
            if name not in state:
                _keep(state, name, torch.full_like(p, float(start.get(name, 0)), dtype=_wide(p)), group.get("state_dtype"))
        if p.dtype is torch.bfloat16:
            state.setdefault("master", p.detach().float())

    def _flat(self, p: Tensor, grad: Tensor, state: dict[str, Any], zero_grads: bool) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Give parameter, gradient and state tensors as lines in the order of the parameter's memory."""
        who = type(self).__name__
        if grad.layout is not torch.strided:
            raise TypeError(f"{who}: a gradient of shape {tuple(p.shape)} is a {grad.layout} tensor, expected a dense one")
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                raise ValueError(f"{who}: {name} has strides {value.stride()}, expected those of its parameter, {p.stride()}")
        if grad.stride() != p.stride():
            if zero_grads:
                raise ValueError(f"{who}: a gradient has strides {grad.stride()}, expected {p.stride()} to set it to 0")
            grad = torch.empty_like(p, dtype=grad.dtype).copy_(grad.detach())
        return _line(p), _line(grad), {name: _line(v) if isinstance(v, Tensor) else v for name, v in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Give states and options, as ``torch.optim`` has them; states of 8 bits in float32.

        Returns
        -------
        state : dict
            What `load_state_dict` takes, here or of the class of the same name in ``torch.optim``. ``step`` and what else is a
            number is a Python number, which PyTorch takes too.

        Examples
        --------
        >>> w = torch.ones(1)
        >>> w.grad = torch.ones(1)
        >>> opt = Adam([w])
        >>> opt.step()
        >>> opt.state_dict()["state"][0]["exp_avg"]
        tensor([0.1000])
        """
        packed: dict[str, Any] = super().state_dict()
        return packed | {"state": {i: _widened(entry) for i, entry in packed["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take states and options from what `state_dict` gave, here or in ``torch.optim``. The tensors are copied.

        Parameters
        ----------
        state_dict : dict
            Of an optimizer of the same kind over parameters of the same shapes, in the same groups. Options that it does not have
            become those that the optimizer was made with.

        Raises
        ------
        ValueError, TypeError
            Where it does not fit. Nothing has been taken then.

        Examples
        --------
        >>> w = torch.ones(1)
        >>> w.grad = torch.ones(1)
        >>> theirs, mine = torch.optim.Adam([w]), Adam([w])
        >>> theirs.step()
        >>> mine.load_state_dict(theirs.state_dict())
        >>> mine.state[w]["exp_avg"]
        tensor([0.1000])
        """
        taken: dict[Tensor, dict[str, Any]] = {}

        # PyTorch would cast every tensor to the parameter's dtype. So the states are taken out of its hands, after the user's hooks
        # before loading and ahead of those after it.
        def take(_: Any, given: dict[str, Any]) -> dict[str, Any]:
            first = 0
            for mine, theirs in zip(self.param_groups, given["param_groups"], strict=False):  # PyTorch compares their lengths
                group = self.defaults | theirs | {"params": mine["params"]}
                for name in _HOW_TORCH_COMPUTES:
                    group.pop(name, None)
                self._check_group(group, first)
                for i, (p, key) in enumerate(zip(mine["params"], theirs["params"], strict=False), first):
                    entry = {name: value for name, value in given["state"].get(key, {}).items() if value is not None}
                    if entry:
                        taken[p] = self._loaded(i, p, group, entry)
                first += len(mine["params"])
            return given | {"state": {}}

        before = self.register_load_state_dict_pre_hook(take)
        after = self.register_load_state_dict_post_hook(lambda _: self.state.update(taken), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _loaded(self, i: int, p: Tensor, group: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
        """Give the state that a state_dict has for a parameter, checked, in tensors of its own."""
        where = f"{type(self).__name__}: state_dict has"
        names = self._state_names(group)
        if self._kind == "sgd":
            entry = {"step": 1} | dict(entry)  # PyTorch's keeps no step, and only the first differs
        for name in ("step", *_NUMBERS.get(self._kind, ()), *names):
            if name not in entry:
                raise ValueError(f"{where} no {name} for params[{i}]")
        step = float(entry["step"])
        if not (step >= 0 and step.is_integer()):
            raise ValueError(f"{where} step {step} for params[{i}], expected an integer of at least 0")
        state: dict[str, Any] = {"step": int(step)}
        for name in _NUMBERS.get(self._kind, ()):
            state[name] = float(entry[name])
        for name in names:
            value = torch.as_tensor(entry[name])
            if not value.is_floating_point() or value.shape != p.shape:
                raise ValueError(
                    f"{where} {name} of {value.dtype} and shape {tuple(value.shape)} for params[{i}] of {tuple(p.shape)}"
                )
            _keep(state, name, torch.empty_like(p, dtype=_wide(p)).copy_(value), group.get("state_dtype"))
        if p.dtype is torch.bfloat16:
            state["master"] = torch.empty_like(p, dtype=_wide(p)).copy_(torch.as_tensor(entry.get("master", p)).detach())
        return state

    def __getstate__(self) -> dict[str, Any]:
        own = ("_options", "seed", "last_norm", "skipped_steps")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # which PyTorch adds
        for group in self.param_groups:
            for name in _HOW_TORCH_COMPUTES:
                group.pop(name, None)
            for name, value in self.defaults.items():
                group.setdefault(name, value)


def _wide(p: Tensor) -> torch.dtype:
    """Give the dtype that a parameter is computed in."""
    return torch.float64 if p.dtype is torch.float64 else torch.float32


def _line(t: Tensor) -> Tensor:
    """Give a dense tensor's elements as a line, in the order of memory."""
    return t.detach().as_strided((t.numel(),), (1,))


def _blocks(line: Tensor) -> Tensor:
    return torch.nn.functional.pad(line, (0, -line.numel() % _BLOCK)).view(-1, _BLOCK)


def _keep(state: dict[str, Any], name: str, values: Tensor, state_dtype: str | None) -> None:
    """Put a state's values in its dictionary, as state_dtype says."""
    if state_dtype == "8bit" and values.numel() >= _LEAST_IN_EIGHT_BITS:
        state[name], state[f"{name}_exponents"] = _encode(values, name not in _WITHOUT_SIGN)
    else:
        state[name] = values.to(torch.bfloat16) if state_dtype == "bfloat16" else values


def _encode(values: Tensor, with_sign: bool) -> tuple[Tensor, Tensor]:
    """Give float32 values as codes of 8 bits and the exponents of their blocks, to nearest (csrc/kernels/storage.h)."""
    x = _blocks(_line(values))
    bits = x.abs().view(torch.int32)
    exponents = ((bits.amax(1).clamp(max=255 << 23) + ((1 << 20) - 1)) >> 23).clamp(min=32)
    codes = (bits - ((exponents - (15 if with_sign else 31)) << 23)[:, None] + (1 << 19)) >> 20
    codes = codes.clamp(0, 127) | (x.signbit().int() << 7) if with_sign else torch.where(bits > 0, codes.clamp(1, 255), 0)
    kept = torch.empty_like(values, dtype=torch.uint8)
    _line(kept).copy_(codes.view(-1)[: kept.numel()])
    return kept, exponents.to(torch.uint8)


def _decode(codes: Tensor, exponents: Tensor, with_sign: bool) -> Tensor:
    """Give the float32 values of codes of 8 bits."""
    code, exponent = _blocks(_line(codes)).int(), exponents.int()[:, None]
    magnitude = code & 0x7F if with_sign else code
    x = ((magnitude << 20) + ((exponent - (15 if with_sign else 31)) << 23)).view(torch.float32)
    x = torch.where(magnitude == 0, 0.0, x)
    x = torch.where(exponent == 255, torch.nan, torch.where(code > magnitude, -x, x))
    values = torch.empty_like(codes, dtype=torch.float32)
    _line(values).copy_(x.reshape(-1)[: values.numel()])
    return values


def _widened(entry: dict[str, Any]) -> dict[str, Any]:
    """Give a parameter's state with those of 8 bits in float32."""
    codes = [name for name in entry if f"{name}_exponents" in entry]
    if not codes:
        return entry
    values = {name: _decode(entry[name], entry[f"{name}_exponents"], name not in _WITHOUT_SIGN) for name in codes}
    return {name: values.get(name, value) for name, value in entry.items() if not name.endswith("_exponents")}


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    The formula and its source are at `trainstep.optim.SGD`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, momentum, dampening, weight_decay, nesterov, lr_in_velocity
        As for `trainstep.optim.SGD`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> SGD([w]).step()
    >>> w.data
    tensor([0.9980])
    """

    _kind = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        lr_in_velocity: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class Adagrad(Optimizer):
    """Adagrad: divides by the root of the sum of all squared gradients.

    The formula and its source are at `trainstep.optim.Adagrad`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, lr_decay, weight_decay, initial_accumulator_value, eps, eps_inside_sqrt
        As for `trainstep.optim.Adagrad`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Adagrad([w]).step()
    >>> w.data
    tensor([0.9900])
    """

    _kind = "adagrad"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())

    def add_param_group(self, param_group: dict[str, Any]) -> None:  # noqa: D102
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:  # PyTorch's expects them of every parameter, whether it was stepped or not
            self._begin(p, self.state[p], self.param_groups[-1])


class Adadelta(Optimizer):
    """Adadelta: steps of the size that the last ones had.

    The formula and its source are at `trainstep.optim.Adadelta`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, rho, eps, weight_decay
        As for `trainstep.optim.Adadelta`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Adadelta([w]).step()
    >>> w.data
    tensor([0.9968])
    """

    _kind = "adadelta"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class RMSprop(Optimizer):
    """RMSprop: divides by the root of an average of squared gradients.

    The formula and its source are at `trainstep.optim.RMSprop`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, alpha, eps, weight_decay, momentum, centered, eps_inside_sqrt
        As for `trainstep.optim.RMSprop`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> RMSprop([w]).step()
    >>> w.data
    tensor([0.9000])
    """

    _kind = "rmsprop"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class Adam(Optimizer):
    """Adam: steps along a mean gradient, divided by its root mean square.

    The formula and its source are at `trainstep.optim.Adam`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay, bias_correction, eps_inside_sqrt
        As for `trainstep.optim.Adam`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Adam([w]).step()
    >>> w.data
    tensor([0.9990])
    """

    _kind = "adam"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class AdamW(Adam):
    """Adam with decoupled weight decay.

    The formula and its source are at `trainstep.optim.AdamW`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay, amsgrad, bias_correction, eps_inside_sqrt
        As for `trainstep.optim.AdamW`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> AdamW([w]).step()
    >>> w.data
    tensor([0.9990])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        eps_inside_sqrt: bool = False,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        Optimizer.__init__(self, locals() | {"decoupled_weight_decay": True})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a state of Adam's does not make this Adam
            group["decoupled_weight_decay"] = True


class Adamax(Optimizer):
    """Adamax: Adam with the largest gradient, slowly forgotten, for the root mean square.

    The formula and its source are at `trainstep.optim.Adamax`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay
        As for `trainstep.optim.Adamax`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Adamax([w]).step()
    >>> w.data
    tensor([0.9980])
    """

    _kind = "adamax"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's look ahead.

    The formula and its source are at `trainstep.optim.NAdam`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay
        As for `trainstep.optim.NAdam`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> NAdam([w]).step()
    >>> w.data
    tensor([0.9979])
    """

    _kind = "nadam"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class RAdam(Optimizer):
    """RAdam: Adam that divides only once its root mean square can be trusted.

    The formula and its source are at `trainstep.optim.RAdam`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay, decoupled_weight_decay
        As for `trainstep.optim.RAdam`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> RAdam([w]).step()
    >>> w.data
    tensor([0.9980])
    """

    _kind = "radam"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class Rprop(Optimizer):
    """Rprop: a step size for each weight, that grows while its gradient keeps its sign. For whole batches.

    The formula and its source are at `trainstep.optim.Rprop`.

    Parameters
    ----------
    params, maximize, l1
        As for every `Optimizer`.
    lr, etas, step_sizes
        As for `trainstep.optim.Rprop`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Rprop([w]).step()
    >>> w.data
    tensor([0.9900])
    """

    _kind = "rprop"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(locals())


class ASGD(Optimizer):
    """Averaged stochastic gradient descent: steps that shrink, and an average of the weights in the state.

    The formula and its source are at `trainstep.optim.ASGD`.

    Parameters
    ----------
    params, maximize, l1
        As for every `Optimizer`.
    lr, lambd, alpha, t0, weight_decay
        As for `trainstep.optim.ASGD`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> ASGD([w]).step()
    >>> w.data
    tensor([0.9800])
    """

    _kind = "asgd"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(locals())


class Lion(Optimizer):
    """Lion: steps of one size along the sign of a mean gradient.

    The formula and its source are at `trainstep.optim.Lion`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, weight_decay
        As for `trainstep.optim.Lion`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> Lion([w]).step()
    >>> w.data
    tensor([0.9999])
    """

    _kind = "lion"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class LAMB(Optimizer):
    """LAMB: Adam's direction, as long for each tensor as its weights say.

    The formula and its source are at `trainstep.optim.LAMB`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, betas, eps, weight_decay, bias_correction
        As for `trainstep.optim.LAMB`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> LAMB([w]).step()
    >>> w.data
    tensor([0.9990])
    """

    _kind = "lamb"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        bias_correction: bool = True,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())


class LARS(Optimizer):
    """LARS: gradient descent with momentum, as long for each tensor as its weights say.

    The formula and its source are at `trainstep.optim.LARS`.

    Parameters
    ----------
    params, maximize, l1, state_dtype, seed
        As for every `Optimizer`.
    lr, momentum, weight_decay, trust_coefficient, eps, nesterov
        As for `trainstep.optim.LARS`; lr also as a tensor.

    Examples
    --------
    >>> from torch.nn import Parameter
    >>> w = Parameter(torch.ones(1))
    >>> w.grad = torch.full((1,), 2.0)
    >>> LARS([w]).step()
    >>> w.data
    tensor([0.9999])
    """

    _kind = "lars"

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        state_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
