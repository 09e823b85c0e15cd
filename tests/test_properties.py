"""What holds for every input: drawn shapes, dtypes, memory layouts and thread counts, and the finite extremes of each function.

Every public name of `trainstep.ops` has its strategy here; one that has none fails the first test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import trainstep as ts
from trainstep import _core, init, ops, optim, reference

from .activation_rules import (
    ACTIVATIONS,
    BY_ROWS,
    amplified,
    backward_bound,
    derivative_from,
    exact_backward,
    exact_forward,
    forward_bound,
    functions,
)
from .helpers import Array, assert_same_bits, assert_within, eps, normal
from .optim_rules import CLASSES, ON_WHOLE_ARRAYS, Bare
from .test_normalize import check_batch_norm, check_dropout, check_ewma, check_layer_norm
from .test_ops import (
    ONE_SIGNED_C,
    REDUCTIONS,
    TARGET_KINDS,
    check_dense,
    check_dense_backward,
    check_loss,
    loss_bounds,
    loss_problem,
)

DTYPES = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])
THREADS = st.sampled_from([1, 2, 3, 5])
SEEDS = st.integers(0, 2**32 - 1)
# Mostly small, with the ends of vectors and blocks among them.
EXTENTS = st.one_of(st.sampled_from([0, 1, 1, 2, 15, 16, 17, 64, 65, 257, 513]), st.integers(1, 70))


# --- memory layouts ------------------------------------------------------------------------------------------------------------


def every_other(a: Array) -> Array:
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def unaligned(a: Array) -> Array:
    result = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


# Each gives an array of the same shape; broadcasting repeats the values of the first row.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "fortran": np.asfortranarray,
    "every other": every_other,
    "reversed": lambda a: a[(slice(None, None, -1),) * a.ndim],
    "first axis reversed": lambda a: a[::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape) if a.shape[0] else a,
    "constant": lambda a: np.broadcast_to(a.flat[0], a.shape) if a.size else a,
    "unaligned": unaligned,
}
LAYOUT = st.sampled_from(sorted(LAYOUTS))


def sums_c(chain: int, *arrays: Array | None) -> float:
    """What a sum may be off by, in eps of the sum of its terms' sizes.

    Where values are repeated, every rounding of a chain of up to `chain` terms may go the same way.
    """
    repeated = any(a is not None and a.size > 1 and 0 in a.strides for a in arrays)
    return ONE_SIGNED_C + (chain if repeated else 0)


def laid_out(draw: Any, a: Array) -> Array:
    return LAYOUTS[draw(LAYOUT)](a) if a.ndim else a


# --- ops -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A call, the check of its result against the reference, and whether it must be refused (an extent of 0)."""

    call: Callable[[], Any]
    check: Callable[[], None]
    refused: bool = False


def elementwise_shape(draw: Any) -> tuple[int, ...]:
    large = st.sampled_from([(4095,), (4097,), (60_001,), (3, 7, 5, 2)])
    return draw(st.one_of(large, st.lists(EXTENTS.filter(lambda n: n < 100), max_size=3).map(tuple)))


def dense_case(draw: Any, backward: bool) -> Case:
    dtype, seed = draw(DTYPES), draw(SEEDS)
    m, k, n = draw(st.tuples(EXTENTS, EXTENTS, EXTENTS))
    rng = np.random.default_rng(seed)
    x, w = (laid_out(draw, normal(rng, dtype, *shape)) for shape in ((m, k), (k, n)))
    activation = draw(st.sampled_from((None, *ACTIVATIONS)))
    if not backward:
        b = laid_out(draw, normal(rng, dtype, n)) if draw(st.booleans()) else None
        return Case(
            lambda: ops.dense(x, w, b, activation), lambda: check_dense(x, w, b, activation, sums_c(k, x, w, b)), 0 in (m, k, n)
        )
    dy, need_dx = laid_out(draw, normal(rng, dtype, m, n)), draw(st.booleans())
    y = None if activation is None else laid_out(draw, np.tanh(normal(rng, dtype, m, n)))
    return Case(
        lambda: ops.dense_backward(dy, x, w, y, activation, need_dx),
        lambda: check_dense_backward(dy, x, w, y, activation, need_dx, sums_c(max(m, n), dy, x, w, y)),
        0 in (m, k, n),
    )


def activation_shape(draw: Any, name: str) -> tuple[int, ...]:
    return elementwise_shape(draw) or ((1,) if name in BY_ROWS else ())


def activation_case(draw: Any, name: str) -> Case:
    dtype, rng, shape = draw(DTYPES), np.random.default_rng(draw(SEEDS)), activation_shape(draw, name)
    x = laid_out(draw, np.asarray(rng.standard_normal(shape) * 4, dtype))
    forward, _ = functions(name)

    def check() -> None:
        exact = exact_forward(name, x)
        assert_within(forward(x), exact, forward_bound(name, x, exact, dtype), name)

    return Case(lambda: forward(x), check)


def activation_backward_case(draw: Any, name: str) -> Case:
    dtype, rng, shape = draw(DTYPES), np.random.default_rng(draw(SEEDS)), activation_shape(draw, name)
    dy, y = (laid_out(draw, np.asarray(values, dtype)) for values in (rng.standard_normal(shape), rng.uniform(-1, 1, shape)))
    _, backward = functions(name)

    def check() -> None:
        exact = exact_backward(name, dy, y)
        assert_within(backward(dy, y), exact, backward_bound(name, dy, y, exact, dtype), name)

    return Case(lambda: backward(dy, y), check)


def loss_case(draw: Any, name: str) -> Case:
    dtype, rng = draw(DTYPES), np.random.default_rng(draw(SEEDS))
    rows, columns = draw(st.tuples(EXTENTS, EXTENTS))
    kind, reduction = draw(st.sampled_from(TARGET_KINDS[name])), draw(st.sampled_from(REDUCTIONS))
    empty = 0 in (rows, columns)
    problem = loss_problem(name, kind, rng, dtype, max(rows, 1), max(columns, 1))
    pred, target = (laid_out(draw, a if not empty else a[:rows, :columns] if a.ndim == 2 else a[:rows]) for a in problem)
    return Case(
        lambda: getattr(ops, name)(pred, target, reduction=reduction),
        lambda: check_loss(name, kind, pred, target, reduction, sums_c(columns, pred, target)),
        empty,
    )


def standardize_case(draw: Any, name: str) -> Case:
    dtype, rng = draw(DTYPES), np.random.default_rng(draw(SEEDS))
    rows, columns = draw(st.tuples(EXTENTS, EXTENTS))
    x, mean, scale = (laid_out(draw, normal(rng, dtype, *shape)) for shape in ((rows, columns), (columns,), (columns,)))
    arrays = (x, mean, scale) if name == "standardize" else (x, scale)

    def check() -> None:
        # x - mean is rounded once, which moves the product by no more than its own rounding.
        exact = getattr(reference, name)(*(a.astype(np.float64) for a in arrays))
        assert_within(getattr(ops, name)(*arrays), exact, 1.01 * eps(dtype) * np.abs(exact), name)

    return Case(lambda: getattr(ops, name)(*arrays), check, 0 in (rows, columns))


STRATEGIES: dict[str, Callable[[Any], Case]] = {
    "dense": lambda draw: dense_case(draw, backward=False),
    "dense_backward": lambda draw: dense_case(draw, backward=True),
}
PUBLIC_ACTIVATIONS = [name for name in ACTIVATIONS if name in ops.__all__]  # gelu_tanh is a form of gelu
STRATEGIES |= {name: lambda draw, name=name: activation_case(draw, name) for name in PUBLIC_ACTIVATIONS}
STRATEGIES |= {f"{name}_backward": lambda draw, name=name: activation_backward_case(draw, name) for name in PUBLIC_ACTIVATIONS}
STRATEGIES |= {name: lambda draw, name=name: standardize_case(draw, name) for name in ("standardize", "standardize_backward")}
STRATEGIES |= {name: lambda draw, name=name: loss_case(draw, name) for name in _core.losses}


def clipping_case(draw: Any, name: str) -> Case:
    dtype, rng = draw(DTYPES), np.random.default_rng(draw(SEEDS))
    arrays = [np.asarray(rng.standard_normal(elementwise_shape(draw)), dtype) for _ in range(draw(st.integers(0, 4)))]
    limits = () if name == "global_norm" else (draw(st.sampled_from([1e-3, 0.5, 1.0, 100.0])),)

    def run(module: Any, given: list[Array]) -> tuple[Array, ...]:
        copies = [a.copy() for a in given]
        result = getattr(module, name)(copies, *limits)
        return (*copies, *np.ravel([] if result is None else result))

    def check() -> None:
        exact = run(reference, [a.astype(np.float64) for a in arrays])
        for got, wanted in zip(run(ops, arrays), exact, strict=True):
            assert_within(got, wanted, 4 * eps(dtype) * np.abs(wanted), name)

    return Case(lambda: run(ops, arrays), check)


def norm_case(draw: Any, name: str) -> Case:
    dtype, rng = draw(DTYPES), np.random.default_rng(draw(SEEDS))
    rows, columns = draw(st.tuples(EXTENTS, EXTENTS))
    x, dy = (laid_out(draw, normal(rng, dtype, rows, columns)) for _ in range(2))
    gamma, beta = (laid_out(draw, normal(rng, dtype, columns)) if draw(st.booleans()) else None for _ in range(2))
    statistics = normal(rng, dtype, columns if name.startswith("batch") else rows)
    options = {"training": draw(st.booleans())} if name.startswith("batch") else {}
    means, positive = statistics, np.abs(statistics)

    def check() -> None:  # forward and backward
        if options:
            check_batch_norm(x, dy, gamma, beta, **options)
        else:
            check_layer_norm(x, dy, gamma, beta)

    def call() -> Any:
        if name.endswith("backward"):
            return getattr(ops, name)(dy, x, means, positive, gamma, **options)
        running = (means.copy(), positive.copy()) if options else ()  # which may be written
        return getattr(ops, name)(x, gamma, beta, *running, **options)

    return Case(call, check, 0 in (rows, columns))


def dropout_case(draw: Any, backward: bool) -> Case:
    dtype, rng, shape = draw(DTYPES), np.random.default_rng(draw(SEEDS)), elementwise_shape(draw)
    x = laid_out(draw, np.asarray(rng.standard_normal(shape), dtype))
    options = {
        "rate": draw(st.one_of(st.sampled_from([0.0, 0.5]), st.floats(0, 1, exclude_max=True))),
        "seed": draw(st.integers(-(2**63), 2**70)),
        "counter": draw(st.integers(0, 2**32 - 1)),
    }
    function = ops.dropout_backward if backward else ops.dropout
    return Case(lambda: function(x, **options), lambda: check_dropout(x, **options))


def ewma_case(draw: Any) -> Case:
    dtype, rng, shape = draw(DTYPES), np.random.default_rng(draw(SEEDS)), elementwise_shape(draw) or (1,)
    x = laid_out(draw, np.asarray(rng.standard_normal(shape), dtype))
    options = (draw(st.one_of(st.sampled_from([0.0, 0.9, 0.999]), st.floats(0, 1, exclude_max=True))), draw(st.booleans()))
    return Case(lambda: ops.ewma(x, *options), lambda: check_ewma(x, *options))


NORMS = ("layer_norm", "layer_norm_backward", "batch_norm", "batch_norm_backward")
STRATEGIES |= {name: lambda draw, name=name: norm_case(draw, name) for name in NORMS}
STRATEGIES |= {
    "dropout": lambda draw: dropout_case(draw, backward=False),
    "dropout_backward": lambda draw: dropout_case(draw, backward=True),
    "ewma": ewma_case,
}

CLIPPING = ("global_norm", "clip_by_global_norm_", "clip_by_norm_", "clip_by_value_")
STRATEGIES |= {name: lambda draw, name=name: clipping_case(draw, name) for name in CLIPPING}


def test_every_function_of_ops_has_a_strategy() -> None:
    assert set(STRATEGIES) == set(ops.__all__)


def arrays_in(result: Any) -> list[Array]:
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("name", ops.__all__)
@settings(max_examples=30)
@given(data=st.data(), threads=THREADS)
def test_any_shape_layout_and_number_of_threads(name: str, data: st.DataObject, threads: int) -> None:
    case = STRATEGIES[name](data.draw)
    with ts.num_threads(threads):
        if case.refused:
            with pytest.raises(ValueError, match=rf"^{name}: .* has shape"):
                case.call()
            return
        case.check()
        result = arrays_in(case.call())
    with ts.num_threads(1):
        for got, wanted in zip(result, arrays_in(case.call()), strict=True):
            assert_same_bits(got, wanted)


# --- finite extremes -----------------------------------------------------------------------------------------------------------


def extremes(dtype: np.dtype) -> list[float]:
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny, np.nextafter(info.tiny, 0, dtype=dtype), info.eps, 1.0, 1 / info.eps]
    positive += [np.sqrt(info.max), info.max / 2, info.max]
    return [sign * float(value) for value in positive for sign in (1, -1)]


def extreme_arrays(draw: Any, dtype: np.dtype, shape: tuple[int, ...], count: int) -> list[Array]:
    values = st.sampled_from(extremes(dtype))
    size = int(np.prod(shape))
    return [np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(shape) for _ in range(count)]


def assert_sane(got: Array, exact: Array, bound: Array, what: object, may_overflow: Array | bool = False) -> None:
    """Within the bound of the exact value rounded to the dtype; where an intermediate overflows, infinite rather than NaN."""
    tiny = 2 * float(np.finfo(got.dtype).smallest_subnormal)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(got.dtype)
    assert not (np.isnan(got) & ~np.isnan(exact)).any(), what
    overflowed = np.broadcast_to(may_overflow, got.shape) & np.isinf(got)
    # Just below the largest number a rounding more is infinity.
    edge = np.isinf(got) & (np.abs(exact) >= np.finfo(got.dtype).max * (1 - 4 * eps(got.dtype)))
    skip = overflowed | edge
    assert_within(np.where(skip, 0, got), np.where(skip, 0, rounded), np.where(skip, 0, bound) + tiny, what)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_all_extremes(dtype: np.dtype, name: str) -> None:
    x = np.array(extremes(dtype), dtype)
    if name in BY_ROWS:  # pairs of them
        x = np.stack([a.ravel() for a in np.meshgrid(x, x)], axis=1)
    forward, backward = functions(name)
    exact = exact_forward(name, x)
    y = forward(x)
    assert_sane(y, exact, forward_bound(name, x, exact, dtype), name)
    if name in BY_ROWS:  # sums of dy overflow where dy is near the largest number
        dy, source = normal(np.random.default_rng(0), dtype, *x.shape), y
    else:
        dy, source = (a.ravel() for a in np.meshgrid(x, derivative_from(name, x, y)))
    exact_dx = exact_backward(name, dy, source)
    assert_sane(backward(dy, source), exact_dx, backward_bound(name, dy, source, exact_dx, dtype), (name, "backward"))


@settings(max_examples=60)
@given(data=st.data(), dtype=DTYPES, shape=st.tuples(*[st.integers(1, 4)] * 3), activation=st.sampled_from((None, *ACTIVATIONS)))
def test_dense_of_extremes(data: st.DataObject, dtype: np.dtype, shape: tuple[int, int, int], activation: str | None) -> None:
    m, k, n = shape
    x, w, b = (extreme_arrays(data.draw, dtype, s, 1)[0] for s in ((m, k), (k, n), (n,)))
    wide = [a.astype(np.longdouble) for a in (x, w, b)]
    terms = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    name = activation or "identity"
    fits = terms < np.finfo(dtype).max  # else the order of the sum decides
    if name in BY_ROWS:
        fits = np.broadcast_to(fits.all(axis=1, keepdims=True), fits.shape)
    z = np.where(fits, wide[0] @ wide[1] + wide[2], 0).astype(np.float64)
    exact = exact_forward(name, z)
    # The sum may be off by less than its terms' rounding, and the activation passes that on.
    terms = np.where(fits, terms, 0).astype(np.float64) + (k + 1) * float(np.finfo(dtype).tiny) / eps(dtype)
    bound = 8 * amplified(name, eps(dtype) * terms) + forward_bound(name, z, exact, dtype)
    y = np.where(fits, ops.dense(x, w, b, activation), functions(name)[0](np.zeros((m, n), dtype)))
    assert_sane(y.astype(dtype), exact, bound, activation)


@settings(max_examples=60)
@given(
    data=st.data(),
    dtype=DTYPES,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    name_and_kind=st.sampled_from([(name, kind) for name in _core.losses for kind in TARGET_KINDS[name]]),
)
def test_losses_of_extremes(data: st.DataObject, dtype: np.dtype, shape: tuple[int, int], name_and_kind: tuple[str, str]) -> None:
    name, kind = name_and_kind
    (pred,) = extreme_arrays(data.draw, dtype, shape, 1)
    if name == "categorical_cross_entropy":
        pred = np.abs(pred)
    if kind == "values":
        (target,) = extreme_arrays(data.draw, dtype, shape, 1)
    else:
        _, target = loss_problem(name, kind, np.random.default_rng(data.draw(SEEDS)), dtype, *shape)
    losses, gradient = getattr(ops, name)(pred, target, reduction="none")
    wide = (pred.astype(np.float64), target if kind == "labels" else target.astype(np.float64))
    exact_losses, exact_gradient = getattr(reference, name)(*wide, reduction="none")
    with np.errstate(over="ignore"):
        assert not (np.isnan(losses) & np.isfinite(exact_losses.astype(dtype))).any()
        assert not (np.isnan(gradient) & np.isfinite(exact_gradient.astype(dtype))).any()
        if name in ("softmax_cross_entropy", "kl_divergence"):
            assert (gradient.sum(axis=1) <= 1e-3).all()  # each row sums to 0
            assert (losses >= (0 if name == "softmax_cross_entropy" or kind == "labels" else -1e-5)).all()
        else:
            bound, gradient_bound = loss_bounds(name, *wide)
            difference_overflows = np.isinf((wide[0] - wide[1]).astype(dtype)) if kind == "values" else False
            assert_sane(losses, exact_losses, eps(dtype) * np.nan_to_num(bound), name, difference_overflows)
            assert_sane(
                gradient,
                exact_gradient,
                eps(dtype) * np.nan_to_num(gradient_bound + np.abs(exact_gradient)),
                name,
                difference_overflows,
            )
    mean, mean_gradient = getattr(ops, name)(pred, target)
    assert not np.isnan(mean)
    assert not np.isnan(mean_gradient).any()


BETAS = st.tuples(st.sampled_from([0.0, 0.7, 0.9]), st.sampled_from([0.0, 0.9, 0.999]))
EPS = st.sampled_from([1e-8, 1e-4, 0.1])
MOMENTUM = st.sampled_from([0.0, 0.5, 0.9, 0.999])
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "sgd": {
        "momentum": MOMENTUM,
        "dampening": st.sampled_from([0.0, 0.3]),
        "nesterov": st.booleans(),
        "lr_in_velocity": st.booleans(),
    },
    "adagrad": {
        "lr_decay": st.sampled_from([0.0, 0.5]),
        "initial_accumulator_value": st.sampled_from([0.0, 0.1]),
        "eps": EPS,
        "eps_inside_sqrt": st.booleans(),
    },
    "adadelta": {"rho": st.sampled_from([0.0, 0.5, 0.9]), "eps": EPS},
    "rmsprop": {
        "alpha": st.sampled_from([0.5, 0.9, 0.99]),
        "eps": EPS,
        "momentum": MOMENTUM,
        "centered": st.booleans(),
        "eps_inside_sqrt": st.booleans(),
    },
    "adam": {
        "betas": BETAS,
        "eps": EPS,
        "amsgrad": st.booleans(),
        "decoupled_weight_decay": st.booleans(),
        "bias_correction": st.booleans(),
        "eps_inside_sqrt": st.booleans(),
    },
    "adamax": {"betas": BETAS, "eps": EPS},
    "nadam": {
        "betas": BETAS,
        "eps": EPS,
        "momentum_decay": st.sampled_from([0.0, 4e-3, 0.5]),
        "decoupled_weight_decay": st.booleans(),
    },
    "radam": {"betas": BETAS, "eps": EPS, "decoupled_weight_decay": st.booleans()},
    "rprop": {"etas": st.sampled_from([(0.5, 1.2), (0.1, 3.0)]), "step_sizes": st.sampled_from([(1e-6, 50.0), (0.1, 0.2)])},
    "asgd": {
        "lambd": st.sampled_from([0.0, 1e-4, 0.5]),
        "alpha": st.sampled_from([0.0, 0.75]),
        "t0": st.sampled_from([0.0, 1.0, 1e6]),
    },
    "lion": {"betas": BETAS},
    "lamb": {"betas": BETAS, "eps": EPS, "bias_correction": st.booleans()},
    "lars": {
        "momentum": MOMENTUM,
        "trust_coefficient": st.sampled_from([0.001, 0.5]),
        "eps": st.sampled_from([0.0, 0.1]),
        "nesterov": st.booleans(),
    },
}
SHARED_OPTIONS = {
    "lr": st.sampled_from([1e-4, 0.01, 0.5]),
    "weight_decay": st.sampled_from([0.0, 0.02, 0.1]),
    "l1": st.sampled_from([0.0, 0.003]),
    "maximize": st.booleans(),
}
PARAMETER_SHAPES = st.one_of(
    st.sampled_from([(), (0,), (1,), (0, 3), (16383,), (40_000,)]), st.lists(st.integers(0, 20), max_size=3).map(tuple)
)


def test_every_rule_and_option_is_drawn() -> None:
    assert set(OPTIONS) == set(CLASSES) == set(_core.optimizers)
    for rule, cls in CLASSES.items():
        drawn = set(OPTIONS[rule]) | set(SHARED_OPTIONS) - ({"weight_decay"} if rule == "rprop" else set())
        assert drawn == set(cls().param_groups[0]) - {"params"}


def draw_options(data: st.DataObject, rule: str) -> dict[str, Any]:
    options = {name: data.draw(values) for name, values in (OPTIONS[rule] | SHARED_OPTIONS).items()}
    if rule == "rprop":
        del options["weight_decay"]
    if rule == "lars":
        options["nesterov"] &= options["momentum"] > 0
    if rule == "sgd":  # what goes with what
        options["nesterov"] &= options["momentum"] > 0 and options["dampening"] == 0
        options["lr_in_velocity"] &= not options["nesterov"] and options["dampening"] == 0
    return options


@pytest.mark.parametrize("rule", CLASSES)
@settings(max_examples=25)
@given(
    data=st.data(),
    dtype=DTYPES,
    threads=THREADS,
    shapes=st.lists(PARAMETER_SHAPES, min_size=1, max_size=4),
    seed=SEEDS,
)
def test_optimizers_of_any_shapes_and_options(
    data: st.DataObject, rule: str, dtype: np.dtype, threads: int, shapes: list[tuple[int, ...]], seed: int
) -> None:
    options = draw_options(data, rule)
    rng = np.random.default_rng(seed)
    # Gradients of at least 1, so that no penalty cancels one: what is left would be rounding, and Adam would divide it by itself.
    starts = [np.asarray(rng.uniform(-1, 1, shape), dtype) for shape in shapes]
    grads = [
        [laid_out(data.draw, np.asarray(rng.uniform(1, 3, shape) * rng.choice([-1, 1], shape), dtype)) for shape in shapes]
        for _ in range(3)
    ]
    params = [w.copy() for w in starts]
    with ts.num_threads(threads):
        optimizer = CLASSES[rule](params, **options)
        for g in grads:
            optimizer.step(g)
    for i, start in enumerate(starts):
        bare, wide = Bare(rule, optim, start, options), Bare(rule, reference, start.astype(np.float64), options)
        for g in grads:
            bare.step(g[i], options)
            wide.step(g[i].astype(np.float64), options)
        # A change of at most the weights' own size, by numbers that are each off by a few roundings.
        bound = (2e-4 if dtype == np.float32 else 1e-11) * (1 + np.abs(wide.w) + np.abs(start.astype(np.float64)))
        assert_within(params[i], wide.w, bound, (rule, options))
        if rule in ON_WHOLE_ARRAYS:  # whose norms are added up in the pieces that the list is cut into
            assert_within(params[i], bare.w, bound)
        else:
            assert_same_bits(params[i], bare.w)


# Not the rules whose formulas divide or subtract what is infinite, such as two norms.
@pytest.mark.parametrize("rule", sorted(set(CLASSES) - {"adadelta", "rmsprop", *ON_WHOLE_ARRAYS}))
@settings(max_examples=25)
@given(data=st.data(), dtype=DTYPES, n=st.integers(1, 9))
def test_optimizers_of_extremes(data: st.DataObject, rule: str, dtype: np.dtype, n: int) -> None:
    options = draw_options(data, rule)
    # A quarter of the largest, so that a gradient and its penalties can be added up.
    w, *grads = (a / a.dtype.type(4) for a in extreme_arrays(data.draw, dtype, (n,), 4))
    optimizer = CLASSES[rule]([w], **options)
    for g in grads[: 1 if options["lr"] > 0.1 else 3]:
        optimizer.step([g])
        arrays = [w, *(v for entry in optimizer.state for k, v in entry.items() if k != "step")]
        assert not any(np.isnan(a).any() for a in arrays), options
        if not all(np.isfinite(a).all() for a in arrays):
            break  # what overflowed is infinite, and a step from there may have no value


# --- initialisers --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(init.INITIALIZERS)),
    fan_in=st.integers(1, 300),
    fan_out=st.integers(1, 300),
    dtype=DTYPES,
    seed=st.integers(-(2**70), 2**70),
)
@example("he_uniform", 1, 1, np.dtype(np.float32), -1)
def test_initialisers_of_any_shape(name: str, fan_in: int, fan_out: int, dtype: np.dtype, seed: int) -> None:
    f = init.INITIALIZERS[name]
    w = f((fan_in, fan_out), rng=seed, dtype=dtype)
    assert (w.shape, w.dtype) == ((fan_in, fan_out), dtype)
    assert_same_bits(f([fan_in, fan_out], rng=seed, dtype=dtype.name), w)
    # The widest that is drawn, He's, has a variance of 2 / fan_in; beyond 7 deviations a normal draw is once in 10^11. Others are
    # at most 1, but for the rounding of an orthogonal one.
    assert np.abs(w).max() <= max(7 * np.sqrt(2 / fan_in), 1 + 1e-6)
    assert np.isfinite(w).all()
