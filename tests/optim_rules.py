"""What the tests of optimizers share: every rule with its options, and 60 steps of it in any form."""

from typing import Any

import numpy as np

from trainstep import _core, optim

from .helpers import Array, assert_same_bits, normal

STEPS = 60
RTOL = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}

Options = dict[str, Any]

# No decay is ever 0 except where said so.
SHARED: dict[str, Options] = {
    "minimize": {"weight_decay": 0.02, "l1": 0.003},
    "maximize": {"weight_decay": 0.02, "l1": 0.003, "maximize": True},
    "no penalties": {"weight_decay": 0.0},
    "weight_decay alone": {"weight_decay": 0.05},
    "l1 alone": {"weight_decay": 0.0, "l1": 0.01},
}

EPS: dict[str, Options] = {"eps": {"eps": 0.1}}
BETAS: dict[str, Options] = {"betas": {"betas": (0.7, 0.95)}, "betas of 0": {"betas": (0.0, 0.9)}}
INSIDE: dict[str, Options] = {"eps_inside_sqrt": {"eps": 0.01, "eps_inside_sqrt": True}}
DECOUPLED: dict[str, Options] = {"decoupled": {"decoupled_weight_decay": True}}

# For each rule, the options that it has of its own.
OPTIONS: dict[str, dict[str, Options]] = {
    "sgd": {
        "plain": {},
        "momentum": {"momentum": 0.9},
        "dampening": {"momentum": 0.9, "dampening": 0.3},
        "nesterov": {"momentum": 0.8, "nesterov": True},
        "lr_in_velocity": {"momentum": 0.9, "lr_in_velocity": True},
        "lr_in_velocity without momentum": {"lr_in_velocity": True},
        "dampening without momentum": {"dampening": 0.5},
    },
    "adagrad": {
        "plain": {},
        "lr_decay": {"lr_decay": 0.1},
        "initial_accumulator_value": {"initial_accumulator_value": 0.5},
        **EPS,
        **INSIDE,
    },
    "adadelta": {"plain": {}, "rho": {"rho": 0.5}, **EPS},
    "rmsprop": {
        "plain": {},
        "alpha": {"alpha": 0.7},
        "momentum": {"momentum": 0.6},
        "centered": {"centered": True, "alpha": 0.9},
        "centered, momentum": {"centered": True, "momentum": 0.6, "eps": 0.01},
        "centered, eps_inside_sqrt": {"centered": True, "eps": 0.01, "eps_inside_sqrt": True},
        **EPS,
        **INSIDE,
    },
    "adam": {
        "plain": {},
        "amsgrad": {"amsgrad": True, "betas": (0.8, 0.6)},
        "amsgrad, eps_inside_sqrt": {"amsgrad": True, "betas": (0.8, 0.6), "eps": 0.01, "eps_inside_sqrt": True},
        "amsgrad, decoupled": {"amsgrad": True, "betas": (0.8, 0.6), "decoupled_weight_decay": True},
        "no bias_correction": {"bias_correction": False, "eps": 1e-3},
        "no bias_correction, amsgrad": {"bias_correction": False, "eps": 1e-3, "amsgrad": True, "betas": (0.8, 0.6)},
        "no bias_correction, eps_inside_sqrt": {"bias_correction": False, "eps": 1e-3, "eps_inside_sqrt": True},
        **BETAS,
        **EPS,
        **INSIDE,
        **DECOUPLED,
    },
    "adamax": {"plain": {}, **BETAS, **EPS},
    "nadam": {"plain": {}, "momentum_decay": {"momentum_decay": 0.1}, **BETAS, **EPS, **DECOUPLED},
    "radam": {"plain": {}, **BETAS, **EPS, **DECOUPLED},
    "rprop": {"plain": {}, "etas": {"etas": (0.3, 1.5)}, "step_sizes": {"step_sizes": (0.005, 0.05)}},
    "asgd": {
        "plain": {},
        "lambd": {"lambd": 0.1},
        "alpha": {"lambd": 0.1, "alpha": 0.3},
        "t0": {"t0": 20.0},
        "t0 of half a step": {"t0": 20.5, "lambd": 0.05},
    },
    "lion": {"plain": {}, **BETAS},
    "lamb": {"plain": {}, "no bias_correction": {"bias_correction": False}, **BETAS, **EPS},
    "lars": {
        "plain": {},
        "no momentum": {"momentum": 0.0},
        "trust_coefficient": {"trust_coefficient": 0.05},
        "eps": {"trust_coefficient": 0.05, "eps": 3.0},
        "nesterov": {"trust_coefficient": 0.05, "nesterov": True, "momentum": 0.7},
    },
}
CLASSES: dict[str, type[optim.Optimizer]] = {
    name.lower(): getattr(optim, name) for name in optim.__all__ if name.lower() in OPTIONS
}
NO_LOW_BITS = ("rprop", "asgd")  # rules whose states have the parameter's dtype alone
ON_WHOLE_ARRAYS = ("lamb", "lars")  # rules that take norms, so that a NaN is everywhere
# Lion and Rprop add and subtract their rate: a power of 2 leaves a weight that comes back to 0 at 0, in float32 and in float64.
RATES = {"adadelta": 0.5, "lars": 0.3, "lion": 2**-7, "rprop": 2**-7}


def own_options(rule: str, own: Options, shared: Options) -> Options:
    """Options of a class, with a rate; a rule without weight_decay gets none."""
    options = {"lr": RATES.get(rule, 0.01), **own, **shared}
    if rule == "rprop":
        del options["weight_decay"]
    return options


# One set of options for each rule that has most of it in use.
HARD_OPTIONS: dict[str, Options] = {
    rule: own_options(rule, own, SHARED["minimize"])
    for rule, own in {
        "sgd": {"momentum": 0.9, "dampening": 0.1},
        "adagrad": {"lr_decay": 0.05, "initial_accumulator_value": 0.1, "eps": 1e-3},
        "adadelta": {"rho": 0.8, "eps": 1e-3},
        "rmsprop": {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 0.01},
        "adam": {"decoupled_weight_decay": True, "amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-3},
        "adamax": {"betas": (0.8, 0.9), "eps": 1e-3},
        "nadam": {"betas": (0.8, 0.9), "eps": 1e-3, "momentum_decay": 0.05},
        "radam": {"betas": (0.8, 0.9), "eps": 1e-3},
        "rprop": {"etas": (0.4, 1.3)},
        "asgd": {"lambd": 0.1, "t0": 2.0},
        "lion": {"betas": (0.8, 0.9)},
        "lamb": {"betas": (0.8, 0.9), "eps": 1e-3},
        "lars": {"trust_coefficient": 0.05, "eps": 0.1, "nesterov": True},
    }.items()
}


def gradient(w: Array, step: int, noise: Array) -> Array:
    """A gradient that moves the states about: of a bowl, and noise that is the same for all copies of w."""
    return (w.dtype.type(0.3) * w + np.roll(noise, step)).astype(w.dtype)


def start(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    """Weights with exact zeros among them, where l1's sign is 0."""
    w = normal(rng, dtype, *shape)
    w.reshape(-1)[::7] = 0
    return w


class Bare:
    """One array, stepped by the bare function of a module; the numbers that a rule keeps are carried from step to step."""

    def __init__(self, rule: str, module: Any, w: Array, options: Options) -> None:
        self.rule, self.function = rule, getattr(module, f"{rule}_step_")
        self.w = w.copy()
        begin = {"sum": options.get("initial_accumulator_value", 0.0), "step_size": options["lr"]}
        self.states = {name: np.full_like(w, begin.get(name, 0)) for name in _core.optimizer_states[rule]}
        self.count = 0
        self.numbers: dict[str, float] = {"nadam": {"mu_product": 1.0}, "asgd": {"eta": options["lr"]}}.get(rule, {})

    def step(self, g: Array, options: Options) -> None:
        self.count += 1
        own = {k: v for k, v in options.items() if k != "initial_accumulator_value" and (self.rule, k) != ("rprop", "lr")}
        kept = g.copy()
        result = self.function(self.w, g, *self.states.values(), step=self.count, **self.numbers, **own)
        assert_same_bits(g, kept)  # it comes back as it went in
        if self.rule == "nadam":
            self.numbers = {"mu_product": result}
        elif self.rule == "asgd":
            lr, lambd, alpha = options["lr"], options.get("lambd", 1e-4), options.get("alpha", 0.75)
            self.numbers = {"eta": lr / (1 + lambd * lr * self.count) ** alpha}

    def run(self, noise: Array, options: Options, steps: int = STEPS) -> "Bare":
        # Both sides take the gradients of their own weights, in their own dtype.
        for _ in range(steps):
            self.step(gradient(self.w, self.count + 1, noise.astype(self.w.dtype)), options)
        return self

    @property
    def arrays(self) -> dict[str, Array]:
        return {"w": self.w, **self.states}


def used_states(rule: str, options: Options) -> tuple[str, ...]:
    """The states that a class has with these options."""
    needs = {
        "momentum_buffer": options.get("momentum", 0.9 if rule == "lars" else 0.0) != 0,
        "grad_avg": options.get("centered", False),
        "max_exp_avg_sq": options.get("amsgrad", False),
    }
    return tuple(name for name in _core.optimizer_states[rule] if needs.get(name, True))


def assert_close(got: Array, expected: Array, dtype: Any, what: object = "") -> None:
    rtol = RTOL[np.dtype(dtype)]
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale, err_msg=str(what))


def problem(rng: np.random.Generator, dtype: Any = np.float64) -> tuple[list[Array], list[Array]]:
    shapes = ((30, 20), (20,), (20, 7), (7,))
    return [start(rng, dtype, *s) for s in shapes], [normal(rng, dtype, *s) for s in shapes]


def advance(optimizer: optim.Optimizer, params: list[Array], noises: list[Array], steps: range, **how: Any) -> None:
    for step in steps:
        optimizer.step([gradient(w, step, noise) for w, noise in zip(params, noises, strict=True)], **how)


def arrays_of(optimizer: optim.Optimizer) -> list[Array]:
    """All arrays of the states."""
    return [value for entry in optimizer.state for value in entry.values() if isinstance(value, np.ndarray)]
