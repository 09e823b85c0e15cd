"""The bare formulas on one array, compiled. `trainstep.reference` holds the same names with the same signatures in NumPy."""

from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from trainstep import _core, reference
from trainstep._docs import documented_by

Array = NDArray[Any]

_PUBLIC = "trainstep.optim"  # where users find them


@documented_by(reference.sgd_step_, _PUBLIC)
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
    _core.step_array("sgd", "sgd_step_", w, g, (("momentum_buffer", momentum_buffer),), step, options)


@documented_by(reference.adagrad_step_, _PUBLIC)
def adagrad_step_(  # noqa: D103
    w: Array,
    g: Array,
    sum: Array,
    *,
    step: int = 1,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
    l1: float = 0.0,
    eps_inside_sqrt: bool = False,
) -> None:
    options = {
        "lr": lr,
        "lr_decay": lr_decay,
        "weight_decay": weight_decay,
        "eps": eps,
        "maximize": maximize,
        "l1": l1,
        "eps_inside_sqrt": eps_inside_sqrt,
    }
    _core.step_array("adagrad", "adagrad_step_", w, g, (("sum", sum),), step, options)


@documented_by(reference.adadelta_step_, _PUBLIC)
def adadelta_step_(  # noqa: D103
    w: Array,
    g: Array,
    square_avg: Array,
    acc_delta: Array,
    *,
    step: int = 1,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "l1": l1}
    _core.step_array("adadelta", "adadelta_step_", w, g, (("square_avg", square_avg), ("acc_delta", acc_delta)), step, options)


@documented_by(reference.rmsprop_step_, _PUBLIC)
def rmsprop_step_(  # noqa: D103
    w: Array,
    g: Array,
    square_avg: Array,
    momentum_buffer: Array | None = None,
    grad_avg: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    eps_inside_sqrt: bool = False,
) -> None:
    options = {
        "lr": lr,
        "alpha": alpha,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "centered": centered,
        "maximize": maximize,
        "l1": l1,
        "eps_inside_sqrt": eps_inside_sqrt,
    }
    _core.step_array(
        "rmsprop",
        "rmsprop_step_",
        w,
        g,
        (("square_avg", square_avg), ("momentum_buffer", momentum_buffer), ("grad_avg", grad_avg)),
        step,
        options,
    )


@documented_by(reference.adam_step_, _PUBLIC)
def adam_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
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
        "amsgrad": amsgrad,
        "decoupled_weight_decay": decoupled_weight_decay,
        "maximize": maximize,
        "l1": l1,
        "bias_correction": bias_correction,
        "eps_inside_sqrt": eps_inside_sqrt,
    }
    _core.step_array(
        "adam",
        "adam_step_",
        w,
        g,
        (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq), ("max_exp_avg_sq", max_exp_avg_sq)),
        step,
        options,
    )


@documented_by(reference.adamax_step_, _PUBLIC)
def adamax_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_inf: Array,
    *,
    step: int = 1,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "l1": l1}
    _core.step_array("adamax", "adamax_step_", w, g, (("exp_avg", exp_avg), ("exp_inf", exp_inf)), step, options)


@documented_by(reference.nadam_step_, _PUBLIC)
def nadam_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    mu_product: float | None = None,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
) -> float:
    options = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum_decay": momentum_decay,
        "decoupled_weight_decay": decoupled_weight_decay,
        "maximize": maximize,
        "l1": l1,
    }
    if mu_product is None:
        mu_product = _nadam_product(step, betas, momentum_decay)
    if mu_product is not None:
        options["mu_product"] = mu_product
    product: float = _core.step_array(
        "nadam", "nadam_step_", w, g, (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)), step, options
    )["mu_product"]
    return product


def _nadam_product(step: int, betas: tuple[float, float], momentum_decay: float) -> float | None:
    """Multiply the mu of the steps before this one; None where an argument does not fit, which the core refuses by its name."""
    product = 1.0
    with suppress(TypeError, ValueError, ArithmeticError):
        beta1, _ = betas
        for t in range(1, step if 0 <= beta1 < 1 else 1):
            product *= beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
            if product == 0:
                break
        return product
    return None


@documented_by(reference.radam_step_, _PUBLIC)
def radam_step_(  # noqa: D103
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
) -> None:
    options = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "decoupled_weight_decay": decoupled_weight_decay,
        "maximize": maximize,
        "l1": l1,
    }
    _core.step_array("radam", "radam_step_", w, g, (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)), step, options)


@documented_by(reference.rprop_step_, _PUBLIC)
def rprop_step_(  # noqa: D103
    w: Array,
    g: Array,
    prev: Array,
    step_size: Array,
    *,
    step: int = 1,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {"etas": etas, "step_sizes": step_sizes, "maximize": maximize, "l1": l1}
    _core.step_array("rprop", "rprop_step_", w, g, (("prev", prev), ("step_size", step_size)), step, options)


@documented_by(reference.asgd_step_, _PUBLIC)
def asgd_step_(  # noqa: D103
    w: Array,
    g: Array,
    ax: Array,
    *,
    step: int = 1,
    eta: float | None = None,
    lr: float = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "maximize": maximize, "l1": l1}
    # What has no value here has an argument that the core refuses by its name.
    with suppress(TypeError, ValueError, ArithmeticError):
        options["eta"] = lr / (1 + lambd * lr * (step - 1)) ** alpha if eta is None else eta
        options["mu"] = 1 / max(1, step - 1 - t0)
    _core.step_array("asgd", "asgd_step_", w, g, (("ax", ax),), step, options)


@documented_by(reference.lion_step_, _PUBLIC)
def lion_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    *,
    step: int = 1,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize, "l1": l1}
    _core.step_array("lion", "lion_step_", w, g, (("exp_avg", exp_avg),), step, options)


@documented_by(reference.lamb_step_, _PUBLIC)
def lamb_step_(  # noqa: D103
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int = 1,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
    bias_correction: bool = True,
) -> None:
    options = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "maximize": maximize,
        "l1": l1,
        "bias_correction": bias_correction,
    }
    _core.step_array("lamb", "lamb_step_", w, g, (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)), step, options)


@documented_by(reference.lars_step_, _PUBLIC)
def lars_step_(  # noqa: D103
    w: Array,
    g: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int = 1,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
) -> None:
    options = {
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "trust_coefficient": trust_coefficient,
        "eps": eps,
        "nesterov": nesterov,
        "maximize": maximize,
        "l1": l1,
    }
    _core.step_array("lars", "lars_step_", w, g, (("momentum_buffer", momentum_buffer),), step, options)
