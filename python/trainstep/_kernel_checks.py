"""The checks of the self-test: every name that the core reports, on the ISA level of this process, against `trainstep.reference`.

A check makes cases; a case is a call of a kernel, the exact results, and what an error is measured in. Names, options and targets
are those that the core and the reference tell of, so that what is added there is checked here.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, count, pairwise, product
from typing import Any, NamedTuple

import numpy as np

from trainstep import _core, _exact, averages, metrics, nn, ops, optim, reference
from trainstep._exact import Array
from trainstep._runtime import get_num_threads, num_threads
from trainstep.selftest import SelftestRow
from trainstep.trainer import Trainer

Results = Sequence[Any]

MANY = 150_001  # elements: more than one thread takes, and a tail behind the last vector
LR = 0.05
OPTION = 0.25  # what an optimizer's numbers are set to, one or two at a time


class Case(NamedTuple):
    """A call, and what its results are measured by."""

    what: str
    run: Callable[[], Results]
    exact: Results
    # One error of eps, for each element of each result; None: an ULP of it.
    scale: Results | None = None


class Check(NamedTuple):
    """A row of the table: the kernel, the unit of its errors, their bound in float32 and in float64 (None: has none), its cases."""

    kernel: str
    unit: str
    bounds: tuple[float, float | None]
    cases: Callable[[np.dtype[Any], np.random.Generator], Iterator[Case]]


def checks() -> Iterator[Check]:
    """Every kernel that the core has."""
    # Where float64 is held to a reference in float64, that has roundings of its own.
    unit, of_float64 = ("ULP", 2) if _exact.LONG_IS_WIDER else ("ULP (of a float64 reference)", 3)
    for name in _core.vmath_functions:
        yield Check(name, unit, (2, of_float64), partial(_vmath, name))
    for name in _core.activations:
        yield Check(f"{name} forward", *_forward_unit(name), partial(_activation, name))
        yield Check(f"{name} backward", *_backward_unit(name), partial(_activation_backward, name))
    yield Check("standardize", "ULP", (2, 2), _standardize)
    yield Check("standardize_backward", "ULP", (2, 2), _standardize_backward)
    yield Check("layer_norm", "eps of the terms", (4, 24), _layer_norm)
    yield Check("layer_norm_backward", "eps of the terms", (4, 8), _layer_norm_backward)
    yield Check("batch_norm", "eps of the terms", (4, 24), _batch_norm)
    yield Check("batch_norm_backward", "eps of the terms", (4, 8), _batch_norm_backward)
    yield Check("dropout", "ULP", (2, 3), _dropout)
    yield Check("dropout_backward", "ULP", (2, 3), _dropout_backward)
    yield Check("ewma", "eps of the terms", (1, 8), _ewma)
    for name in _core.losses:
        yield Check(name, "eps of the row", (16, 24), partial(_loss, name))
    for name in (*_core.metrics, "confusion_matrix"):
        yield Check(f"metrics.{name}", "eps", (32, 32), partial(_metric, name))
    for name in _core.optimizers:
        yield Check(f"{name} step", "eps (|w|+|g|+|states|)", (4, 4), partial(_optimizer, name))
    for name in ("global_norm", "clip_by_global_norm_", "clip_by_norm_"):
        yield Check(name, "eps", (4, 4), partial(_clipping, name))
    yield Check("clip_by_value_", "exact", (0, 0), partial(_clipping, "clip_by_value_"))
    yield Check("dense", "eps (|x| @ |w|)", (4, 4), _dense)
    yield Check("dense_backward", "eps (|x| @ |w|)", (6, 6), _dense_backward)
    for name in _core.matmul_precisions[1:]:
        yield Check(f"dense, {name}", "eps (|x| @ |w|)", (4, None), partial(_dense_of_pieces, name))
    yield Check("philox4x32", "exact", (0, 0), _philox)
    yield Check("random_uniform", "ULP", (0.5, 0.5), _random_uniform)
    yield Check("random_normal", "eps", (2, 8), _random_normal)
    yield Check("permutation", "exact", (0, 0), _permutation)
    yield Check("gather", "exact", (0, 0), _gather)
    for name in _core.losses:
        yield Check(f"Trainer, {name}", "eps", (8, 8), partial(_trainer, name))
    yield Check("layers", "eps of the largest", (8, 32), _layers)
    yield Check("Trainer, penalties", "eps", (8, 8), _penalties)
    yield Check("Trainer, averages", "eps", (8, 8), _averages)


def run_checks() -> list[SelftestRow]:
    """Run all checks on this level, in float32 and float64."""
    return [
        _run(check, np.dtype(dtype), bound)
        for check in checks()
        for dtype, bound in zip(("f4", "f8"), check.bounds, strict=True)
        if bound is not None
    ]


def _run(check: Check, dtype: np.dtype[Any], bound: float) -> SelftestRow:
    worst, where, cases, same_bits = 0.0, "", 0, True
    try:
        for case in check.cases(dtype, np.random.default_rng(1)):
            cases += 1
            with num_threads(1):
                got = [np.array(a) for a in case.run()]
            same = all(a.tobytes() == np.asarray(b).tobytes() for a, b in zip(got, case.run(), strict=True))
            error = max(_errors(got, case), default=0.0)
            if error > worst or (same_bits and not same):
                where = case.what
            worst, same_bits = max(error, worst), same and same_bits
        if not cases:
            raise AssertionError("nothing to compare: the reference takes none of the inputs")
    except Exception as error:
        worst, where = math.inf, f"{type(error).__name__}: {error}"
    isa = _core.config()["isa"]
    return SelftestRow(check.kernel, isa, dtype.name, check.unit, worst, bound, same_bits, get_num_threads(), cases, where)


def _one(function: Callable[..., Any], *arguments: Any, **options: Any) -> Results:
    return [function(*arguments, **options)]


def _errors(got: list[Array], case: Case) -> Iterator[float]:
    for i, (a, exact) in enumerate(zip(got, case.exact, strict=True)):
        if a.shape != np.shape(exact):
            yield math.inf
        elif case.scale is None:
            yield _exact.worst_ulp(a, np.asarray(exact))[0]
        else:
            eps = float(np.finfo(a.dtype).eps)
            with np.errstate(all="ignore"):
                errors = np.abs(a - exact) / (eps * np.asarray(case.scale[i]))
            # Infinity minus infinity, and NaN where NaN is right.
            errors = np.where((a == exact) | (np.isnan(a) & np.isnan(exact)), 0, np.where(np.isnan(errors), math.inf, errors))
            yield float(errors.max(initial=0))


def _vmath_inputs(dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Every binade of both signs, the spans where functions bend, overflow or vanish, and the values that have rules."""
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    with np.errstate(all="ignore"):
        binades = np.ldexp(rng.uniform(1, 2, (16, len(exponents))), exponents).ravel()
        spans = [rng.uniform(a, b, 2000) for a, b in ((0, 1), (0.2, 0.6), (0, 6), (0, 20), (80, 110), (700, 750))]
        rules = [0, info.smallest_subnormal, info.tiny, 1, info.max, np.inf, np.nan]
        x = np.concatenate([binades, *spans, 1 + np.ldexp(1.0, -np.arange(1, info.nmant + 1)), rules]).astype(dtype)
    return np.concatenate([x, -x])


def _vmath(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    x = _vmath_inputs(dtype, rng)
    exact = _exact.vmath(name, x, _exact.wider(dtype))
    many = np.resize(x, MANY)
    yield Case(f"{MANY:,} elements", partial(_one, _core.vmath, name, many), [np.resize(exact, MANY)])
    for n in range(0, 70):  # each lane of a vector and of a tail
        part = slice(7 * n, 8 * n)
        yield Case(f"{n} elements", partial(_one, _core.vmath, name, x[part]), [exact[part]])


Unit = tuple[str, tuple[float, float]]


def _forward_unit(name: str) -> Unit:
    if name in _core.activations_by_rows:
        return "eps of the row", (3, 3)
    # Of these y nearly vanishes where x is far below 0, by factors that are rounded where they are near 0 or 1.
    return ("eps |x|", (3, 4)) if name in _core.activations_of_input else ("ULP", (3, 4))


def _backward_unit(name: str) -> Unit:
    if name in _core.activations_by_rows:
        return "eps of the row", (3, 3)
    # Of the second kind the derivative is a sum that cancels: at a minimum of f, or with a constant that no dtype holds.
    return ("eps |dy|", (4, 5)) if name in (*_core.activations_of_input, "selu") else ("ULP", (3, 4))


def _activation_sizes(name: str) -> Iterator[tuple[int, ...]]:
    if name in _core.activations_by_rows:
        yield from (*product((1, 3), range(1, 70)), (MANY // 67, 67), (2, MANY // 2))
    else:
        yield from ((n,) for n in (*range(0, 70), MANY))


def _activation_options(name: str) -> Iterator[tuple[float | None, dict[str, float]]]:
    """Give the default and another value, for the core and for the reference."""
    yield None, {}
    if name in _core.activation_parameters:
        yield OPTION, {_core.activation_parameters[name][0]: OPTION}


def _size_of(name: str, a: Array) -> Array:
    """Return |a|, or the largest of its row where these depend on each other; for infinities and NaN 1."""
    size = np.abs(np.where(np.isfinite(a), a, 1).astype(np.float64))
    return np.broadcast_to(size.max(axis=-1, keepdims=True), size.shape) if name in _core.activations_by_rows else size


def _value_scale(name: str, x: Array, y: Array) -> Array:
    """Return what an error of y = f(x) is measured in where it is no ULP; an error is not below the smallest number."""
    if name not in _core.activations_by_rows:
        scale: Array = _size_of(name, x) + float(np.finfo(x.dtype).tiny)
        return scale
    with np.errstate(over="ignore"):
        return 1 + _size_of(name, x) + _size_of(name, y)


def _activation(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    forward = reference.ACTIVATIONS[name][0]
    info = np.finfo(dtype)
    rules = np.array([info.smallest_subnormal, info.tiny, 1e4, info.max, np.inf, np.nan], dtype)
    drawn = [(4 * rng.standard_normal(shape)).astype(dtype) for shape in _activation_sizes(name)]
    tails = rng.uniform(-40, 40, (300, 10)).astype(dtype)
    for (parameter, options), x in product(_activation_options(name), (rules, -rules, rules[:, None], tails, *drawn)):
        exact = forward(x.astype(np.float64), **options)
        scales = None if _forward_unit(name)[0] == "ULP" else [_value_scale(name, x, exact)]
        yield Case(f"{x.shape}, {options}", partial(_one, _core.activation, name, x, None, parameter), [exact], scales)


def _activation_backward(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    backward = reference.ACTIVATIONS[name][1]
    sizes = list(_activation_sizes(name))
    for (parameter, options), shape in product(_activation_options(name), sizes):
        x, dy = rng.standard_normal((2, *shape)).astype(dtype)
        x *= 4
        source = x if name in _core.activations_of_input else _core.activation(name, x, None, parameter)
        exact = backward(dy.astype(np.float64), source.astype(np.float64), **options)
        scales = None if _backward_unit(name)[0] == "ULP" else [_slope_scale(name, dy)]
        run = partial(_one, _core.activation_backward, name, dy, source, None, parameter)
        yield Case(f"{shape}, {options}", run, [exact], scales)


def _slope_scale(name: str, dy: Array) -> Array:
    """Return what an error of dz = dy * f'(z) is measured in where it is no ULP; a row's sums are those of all its dy."""
    if name in _core.activations_by_rows:
        total: Array = np.broadcast_to(np.abs(dy.astype(np.float64)).sum(axis=-1, keepdims=True), dy.shape)
        return total
    return np.abs(dy.astype(np.float64))


def _tables(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[tuple[str, Array, Array, Array]]:
    """Give x, and a mean and a scale for each of its columns."""
    for rows, columns in (*product((1, 3), range(1, 70)), (MANY // 67, 67)):
        mean, scale = rng.standard_normal((2, columns)).astype(dtype)
        yield f"{rows} x {columns}", rng.standard_normal((rows, columns)).astype(dtype), mean, scale


def _standardize(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, *given in _tables(dtype, rng):
        wide = [a.astype(np.float64) for a in given]
        yield Case(what, partial(_one, ops.standardize, *given), [reference.standardize(*wide)])


def _standardize_backward(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, dy, _, scale in _tables(dtype, rng):
        exact = reference.standardize_backward(dy.astype(np.float64), scale.astype(np.float64))
        yield Case(what, partial(_one, ops.standardize_backward, dy, scale), [exact])


def _norm_tables(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[tuple[str, Array, Array, Array, Array]]:
    """Give x, dy, gamma and beta."""
    for what, x, gamma, beta in _tables(dtype, rng):
        yield what, x + dtype.type(3), rng.standard_normal(x.shape).astype(dtype), gamma, beta


def _wide(*arrays: Array) -> list[Array]:
    return [a.astype(np.float64) for a in arrays]


def _norm_scales(x: Array, exact: Results, gamma: Array, beta: Array, axis: int) -> Results:
    """Give what y, mean and inv_std are made of."""
    _, mean, inv_std = exact
    across, scale = np.expand_dims(mean, axis), np.expand_dims(inv_std, axis)
    terms = (np.abs(x - across) + np.abs(across)) * scale * np.abs(gamma) + np.abs(beta)
    return terms, np.abs(x).mean(axis=axis), inv_std


def _norm_gradient_scales(given: Sequence[Array], axis: int) -> Results:
    """Give what dx, dgamma and dbeta are made of."""
    dy, x, mean, inv_std, gamma = given
    across, scale = np.expand_dims(mean, axis), np.expand_dims(inv_std, axis)
    normal, g = np.abs(x - across) * scale, np.abs(dy * gamma)
    terms = scale * (g + g.mean(axis=axis, keepdims=True) + normal * (g * normal).mean(axis=axis, keepdims=True))
    return terms, (np.abs(dy) * normal).sum(axis=0), np.abs(dy).sum(axis=0)


def _layer_norm(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, x, _, gamma, beta in _norm_tables(dtype, rng):
        x64, gamma64, beta64 = _wide(x, gamma, beta)
        exact = reference.layer_norm(x64, gamma64, beta64)
        yield Case(what, partial(ops.layer_norm, x, gamma, beta), exact, _norm_scales(x64, exact, gamma64, beta64, 1))


def _layer_norm_backward(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, x, dy, gamma, _ in _norm_tables(dtype, rng):
        given = (dy, x, *ops.layer_norm(x)[1:], gamma)
        exact, scale = reference.layer_norm_backward(*_wide(*given)), _norm_gradient_scales(_wide(*given), 1)
        yield Case(what, partial(ops.layer_norm_backward, *given), exact, scale)


def _batch_norm(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    def normalized(function: Callable[..., Any], *arrays: Array, training: bool) -> Results:
        *given, running_mean, running_var = (a.copy() for a in arrays)
        return [*function(*given, running_mean, running_var, training=training), running_mean, running_var]

    for what, x, _, gamma, beta in _norm_tables(dtype, rng):
        arrays = (x, gamma, beta, beta, np.abs(gamma) + dtype.type(0.1))
        x64, gamma64, beta64, *_ = wide = _wide(*arrays)
        for training in (True, False):
            exact = normalized(reference.batch_norm, *wide, training=training)
            scale = [*_norm_scales(x64, exact[:3], gamma64, beta64, 0), 20 + np.abs(exact[3]), 20 + np.abs(exact[4])]
            scale[1] = scale[1] + np.abs(exact[1])
            yield Case(
                f"{what}, {'training' if training else 'inference'}",
                partial(normalized, ops.batch_norm, *arrays, training=training),
                exact,
                scale,
            )


def _batch_norm_backward(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, x, dy, gamma, _ in _norm_tables(dtype, rng):
        given = (dy, x, *ops.batch_norm(x, training=True)[1:], gamma)
        for training in (True, False):
            exact = reference.batch_norm_backward(*_wide(*given), training=training)
            run = partial(ops.batch_norm_backward, *given, training=training)
            yield Case(f"{what}, {'training' if training else 'inference'}", run, exact, _norm_gradient_scales(_wide(*given), 0))


def _dropout(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    def dropped(function: Callable[..., Any], x: Array, *, rate: float, seed: int) -> Results:
        y, mask = function(x, rate, seed=seed, counter=len(x))
        return [y, mask.astype(x.dtype)]

    for seed, (n, rate) in enumerate(product((*range(0, 70), 1000, MANY), (0.1, 0.5))):
        x = rng.standard_normal(n).astype(dtype)
        exact = dropped(reference.dropout, x.astype(np.float64), rate=rate, seed=seed)
        yield Case(f"{n:,} elements, rate {rate}", partial(dropped, ops.dropout, x, rate=rate, seed=seed), exact)


def _dropout_backward(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for n in (*range(0, 70), 1000, MANY):
        dy, mask = rng.standard_normal(n).astype(dtype), rng.random(n) < 0.7
        how: tuple[dict[str, Any], ...] = ({"mask": mask}, {"seed": n, "counter": 3})
        for options in how:
            exact = reference.dropout_backward(dy.astype(np.float64), 0.3, **options)
            run = partial(_one, ops.dropout_backward, dy, 0.3, **options)
            yield Case(f"{n:,} elements, {' and '.join(options)}", run, [exact])


def _ewma(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, x, *_ in _tables(dtype, rng):
        for beta, bias_correction in ((0.0, False), (0.9, False), (0.99, True)):
            exact, scale = (reference.ewma(a.astype(np.float64), beta, bias_correction) for a in (x, np.abs(x)))
            run = partial(_one, ops.ewma, x, beta, bias_correction)
            yield Case(f"{what}, beta {beta}{', corrected' * bias_correction}", run, [exact], [scale])


def _targets(rng: np.random.Generator, dtype: np.dtype[Any], rows: int, columns: int) -> dict[str, Array]:
    """All kinds of target that there are; a loss takes some of them."""
    probabilities = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.7)
    return {
        "labels": rng.integers(0, columns, rows),
        "probabilities": probabilities.astype(dtype),
        "values": rng.standard_normal((rows, columns)).astype(dtype),
        "signs": rng.choice([-1, 1], (rows, columns)).astype(dtype),
        "fractions": rng.random((rows, columns)).astype(dtype),
        "counts": rng.poisson(2, (rows, columns)).astype(dtype),
    }


def _taken(loss: Callable[..., Any], pred: Array, target: Array) -> bool:
    try:
        loss(pred, target)
    except (ValueError, TypeError):
        return False
    return True


def _takes_probabilities(loss: Callable[..., Any]) -> bool:
    """Whether the first argument is no score but a probability."""
    return next(iter(inspect.signature(loss).parameters)) == "probs"


def _loss_options(
    loss: Callable[..., Any], rng: np.random.Generator, dtype: np.dtype[Any], rows: int, columns: int
) -> dict[str, Any]:
    """Give all the options that a loss has: weights, and numbers."""
    options: dict[str, Any] = {}
    for name, parameter in inspect.signature(loss).parameters.items():
        if name in ("sample_weight", "weight"):
            options[name] = rng.uniform(0.5, 2, rows if name == "sample_weight" else columns).astype(dtype)
        elif isinstance(parameter.default, float):
            options[name] = OPTION
    return options


def _loss(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    compiled, exact = getattr(ops, name), getattr(reference, name)
    for rows, columns in (*product((1, 3, 64, 65), (1, 2, 7, 10, 17, 67)), (33, 1000), (5000, 10)):
        pred = (3 * rng.standard_normal((rows, columns))).astype(dtype)
        if _takes_probabilities(exact):
            pred = rng.uniform(0.01, 1, (rows, columns)).astype(dtype)
        options = _loss_options(exact, rng, dtype, rows, columns)
        for (kind, target), given in product(_targets(rng, dtype, rows, columns).items(), ({}, options)):
            wide = (pred.astype(np.float64), target if kind == "labels" else target.astype(np.float64))
            if not _taken(exact, *wide):
                if _taken(compiled, pred, target):
                    raise AssertionError(f"{kind} are taken, and the reference refuses them")
                continue
            exactly = partial(exact, *wide, **{k: v.astype(np.float64) if np.ndim(v) else v for k, v in given.items()})
            row_losses, row_gradients = exactly(reduction="none")
            size = 1 + np.abs(pred).max(axis=1, keepdims=True)
            loss_scale = np.broadcast_to(size, (rows, columns)) if row_losses.ndim == 2 else size[:, 0]
            loss_scale = loss_scale + np.abs(row_losses)
            gradient_scale = np.broadcast_to(1 + np.abs(row_gradients).max(axis=1, keepdims=True), row_gradients.shape)
            for reduction in ("none", "sum", "mean"):
                results = exactly(reduction=reduction)
                n = row_losses.sum() / results[0] if reduction == "mean" and results[0] else 1
                yield Case(
                    f"{kind}, {rows} x {columns}, {', '.join(given) or 'no options'}, reduction {reduction}",
                    partial(compiled, pred, target, **given, reduction=reduction),
                    results,
                    (loss_scale if reduction == "none" else _of_total(loss_scale, dtype) / n, gradient_scale / n),
                )


def _metric(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare a metric with and without weights, over ties, NaN, classes that do not occur, and targets far from 0."""
    compiled, exact = getattr(metrics, name), getattr(reference.metrics, name)
    options: list[dict[str, Any]] = [{}]
    if "average" in inspect.signature(exact).parameters:
        options = [{"average": average} for average in ("macro", "micro", "weighted", None)]
    if "k" in inspect.signature(exact).parameters:
        options = [{"k": 1}, {"k": 2}]
    for rows, columns in (*product((2, 3, 64, 65), (1, 2, 7, 10, 17, 67)), (33, 1000), (5000, 3)):
        pred = (np.round(8 * rng.standard_normal((rows, columns))) / 4).astype(dtype)
        if name in ("mse", "mae", "r2"):
            y = (pred + 100 + rng.standard_normal((rows, columns))).astype(dtype)
        else:
            pred[rng.random(rows) < 0.05, 0] = np.nan
            y = rng.integers(0, columns // 2 + 1 + (columns < 2), rows)
        for weight, given in product((None, (10 ** rng.uniform(-4, 4, rows)).astype(dtype)), options):
            result = np.asarray(exact(pred, y, **given, sample_weight=weight), np.float64)
            run = partial(_as_float64, compiled, pred, y, **given, sample_weight=weight)
            what = f"{rows} x {columns}, {'no weights' if weight is None else 'weights'}, {given}"
            yield Case(what, run, [result], [1 + np.abs(result)])


def _as_float64(function: Callable[..., Any], *arguments: Any, **options: Any) -> Results:
    return [np.asarray(function(*arguments, **options), np.float64)]


def _of_total(scale: Array, dtype: np.dtype[Any]) -> float:
    """Return the scale of a sum in float64 of losses that each have been rounded to `dtype`."""
    rounded = float(np.finfo(dtype).eps) / float(np.finfo(np.float64).eps)
    return float(scale.sum()) * (rounded + math.sqrt(scale.size))


def _option_sets(step: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Give the defaults, each option changed, and each pair of options."""
    changed: dict[str, Any] = {}
    for name, parameter in inspect.signature(step).parameters.items():
        default = parameter.default
        if parameter.kind is not parameter.KEYWORD_ONLY or name in ("step", "lr"):
            continue
        if isinstance(default, bool):
            changed[name] = not default
        elif isinstance(default, tuple):
            changed[name] = tuple(value / 2 for value in default) if max(default) <= 1 else (default[0] / 2, default[1] * 2)
        elif isinstance(default, float) or default is None:
            changed[name] = OPTION
        else:
            raise AssertionError(f"{name}: no value to try is known for an option whose default is {default!r}")
    for number in (0, 1, 2):
        for names in combinations(changed, number):
            yield {name: changed[name] for name in names} | ({"lr": LR} if "lr" in inspect.signature(step).parameters else {})


def _optimizer(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    compiled, exact = getattr(optim, f"{name}_step_"), getattr(reference, f"{name}_step_")
    states = _core.optimizer_states[name]

    def stepped(formula: Callable[..., None], arrays: list[Array], **options: Any) -> list[Array]:
        w, g, *states = (a.copy() for a in arrays)
        formula(w, g, *states, **options)
        return [w, *states]

    for options in _option_sets(exact):
        for step, n in ((1, 67), (7, MANY // 3 if len(options) <= 2 else 1000)):
            # Sizes between 0.5 and 2 of both signs, so that no sum cancels to a small part of its terms by design.
            w, g = rng.uniform(0.5, 2, (2, n)) * rng.choice([-1, 1], (2, n))
            # An average of gradients is small beside that of their squares, so that the variance is not 0.
            before = [rng.uniform(0.5, 2, n) * (step > 1) * (0.25 if state == "grad_avg" else 1) for state in states]
            arrays = [a.astype(dtype) for a in (w, g, *before)]
            what = f"step {step}, {n:,} elements, {options}"
            try:
                after = stepped(exact, [a.astype(np.float64) for a in arrays], step=step, **options)
            except ValueError:
                try:
                    stepped(compiled, arrays, step=step, **options)
                except ValueError:
                    continue
                raise AssertionError(f"{options} are taken, and the reference refuses them") from None
            scale = [np.abs(w) + np.abs(g) + np.abs(a) for a in after]
            yield Case(what, partial(stepped, compiled, arrays, step=step, **options), after, scale)


def _clipping(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    compiled, exact = getattr(ops, name), getattr(reference, name)

    def clipped(function: Callable[..., Any], arrays: list[Array], *limit: float) -> list[Any]:
        copies = [a.copy() for a in arrays]
        result = function(copies, *limit)
        return [*copies, *(arrays[0].dtype.type(norm) for norm in np.ravel([] if result is None else result))]

    for sizes in ((1,), (67,), (MANY,), (0, 3, 1000, 17, 20_001)):
        arrays = [rng.standard_normal(n).astype(dtype) for n in sizes]
        for limit in ((),) if name == "global_norm" else ((0.5,), (1e6,)):
            after = clipped(exact, [a.astype(np.float64) for a in arrays], *limit)
            yield Case(f"{sizes} elements, {limit}", partial(clipped, compiled, arrays, *limit), after, [np.abs(a) for a in after])


def _dense_problems(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[tuple[str, str | None, list[Array]]]:
    """Give an activation and x, w, b, dy: of shapes that straddle vectors and tiles, of thin ones, and of ones that are packed."""
    rows, columns = (1, 2, 3, 5, 6, 11, 13, 25), (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 64, 67)
    small = [(m, k, n) for (m, n), k in zip(product(rows, columns), _cycle((1, 3, 10, 64, 257)), strict=False)]
    large = [(200, 300, 400), (1, 300, 400), (3, 520, 600), (300, 400, 1), (600, 520, 3), (400, 1, 300), (97, 129, 10)]
    activations = _cycle((None, *_core.activations))
    for m, k, n in (*small, *large):
        activation = next(activations)
        x, w = rng.standard_normal((m, k)), rng.standard_normal((k, n)) / np.sqrt(k)
        b, dy = rng.standard_normal(n), rng.standard_normal((m, n))
        yield f"{m} x {k} x {n}, {activation}", activation, [a.astype(dtype) for a in (x, w, b, dy)]


def _cycle(values: tuple[Any, ...]) -> Iterator[Any]:
    return (values[i % len(values)] for i in count())


def _dense(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for i, (what, activation, (x, w, b, _)) in enumerate(_dense_problems(dtype, rng)):
        bias = b if i % 2 else None
        x64, w64, b64 = x.astype(np.float64), w.astype(np.float64), None if bias is None else bias.astype(np.float64)
        exact = reference.dense(x64, w64, b64, activation)
        terms = np.abs(x64) @ np.abs(w64) + (0 if b64 is None else np.abs(b64))
        scale = _size_of(activation or "identity", terms) + np.abs(exact)
        yield Case(what, partial(_one, ops.dense, x, w, bias, activation), [exact], [scale])


def _dense_backward(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for what, activation, (x, w, b, dy) in _dense_problems(dtype, rng):
        name = activation or "identity"
        y = ops.dense(x, w, b, None if name in _core.activations_of_input else activation)
        x64, w64, y64, dy64 = (a.astype(np.float64) for a in (x, w, y, dy))
        exact = reference.dense_backward(dy64, x64, w64, y64, activation)
        dz = np.abs(reference.ACTIVATIONS[name][1](dy64, y64))
        if _backward_unit(name)[0] != "ULP":
            dz = dz + _slope_scale(name, dy)
        scale = (dz @ np.abs(w64).T, np.abs(x64).T @ dz, dz.sum(axis=0))
        yield Case(what, partial(ops.dense_backward, dy, x, w, y, activation), exact, scale)


def _dense_of_pieces(precision: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    def products(module: Any, x: Array, w: Array, b: Array, dy: Array) -> Results:
        return [module.dense(x, w, b, precision=precision), *module.dense_backward(dy, x, w, precision=precision)[:2]]

    for what, _, arrays in _dense_problems(dtype, rng):
        x, w, b, dy = (np.abs(a).astype(np.float64) for a in arrays)
        yield Case(what, partial(products, ops, *arrays), products(reference, *arrays), [x @ w + b, dy @ w.T, x.T @ dy])


# Random123's known answers for ten rounds: counter, key, result.
PHILOX = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def _philox(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for counter, key, words in PHILOX:
        yield _exactly(f"counter {counter}", partial(_core.philox4x32, counter, key), words)


def _exactly(what: str, run: Callable[[], Any], exact: Any) -> Case:
    """Make a case whose results may not differ at all: the number of those that do is the error."""
    return Case(what, lambda: [np.float64(np.count_nonzero(np.asarray(run()) != np.asarray(exact)))], [0.0], [1.0])


def _units(n: int, seed: int, stream: int) -> Array:
    """n numbers in (0, 1), two of each Philox block."""
    words = [_core.philox4x32((i, 0, stream, 0), (seed, 0)) for i in range((n + 1) // 2)]
    bits = np.array(words, np.uint64).reshape(-1, 2)
    result: Array = (((bits[:, 0] << np.uint64(32) | bits[:, 1]) >> np.uint64(12)).astype(np.float64) + 0.5) / 2**52
    return result[:n]


def _drawn(function: Callable[..., None], n: int, dtype: np.dtype[Any], *arguments: float) -> Array:
    out = np.empty(n, dtype)
    function(out, 7, 3, *arguments)
    return out


def _random_uniform(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for n in (0, 1, 2, 1023, 20_001):
        yield Case(f"{n} numbers", partial(_one, _drawn, _core.random_uniform, n, dtype, 0.0, 1.0), [_units(n, 7, 3)])


def _random_normal(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for n in (0, 1, 2, 1023, 20_001):
        u = _units(n + n % 2, 7, 3)
        radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
        exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:n]
        yield Case(f"{n} numbers", partial(_one, _drawn, _core.random_normal, n, dtype, 1.0), [exact], [1 + np.abs(exact)])


def _permutation(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    for n in (0, 1, 2, 1000):
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            high, low, *_ = _core.philox4x32((i, 0, 5, 1), (7, 0))
            j = ((high << 32 | low) * (i + 1)) >> 64
            order[i], order[j] = order[j], order[i]
        yield _exactly(f"{n} numbers", partial(_core.permutation, n, 7, 5), order)


def _gather(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare a model on a table of any dtype with the model on that table cast."""
    model = nn.Sequential(nn.Dense(33, 5), dtype=dtype.name)
    for code in "?bBhHiIqQfd":
        x = (100 * rng.random((67, 33))).astype(code)
        yield _exactly(f"x of {x.dtype}", partial(model, x), model(x.astype(dtype)))


def _trainer(loss: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare two steps with the formulas: every optimizer class, activation and kind of target, on nets small to large."""
    # Not the rules that take a gradient's sign alone, which a rounding turns round.
    classes = [getattr(optim, name) for name in optim.__all__]
    optimizers = [c for c in classes if getattr(c, "_kind", "lion") not in ("lion", "rprop")]
    # Nor an activation all of whose outputs are far below 0: sums of them cancel, and their errors are many eps of the loss.
    activations = [name for name in _core.activations if name != "log_softmax"]
    nets: list[tuple[tuple[int, ...], int]] = [((4, 16, 3), 17), ((64, 33, 17, 10), 65), ((200, 300, 10), 130)]
    for i in range(max(len(optimizers), len(nets), len(activations), 4)):
        optimizer, activation = optimizers[i % len(optimizers)], activations[i % len(activations)]
        widths, rows = nets[i % len(nets)]
        x = rng.standard_normal((rows, widths[0])).astype(dtype)
        pred = np.full((rows, widths[-1]), 0.5, dtype)
        output = "sigmoid" if _takes_probabilities(getattr(reference, loss)) else None
        targets = _targets(rng, dtype, rows, widths[-1])
        kinds = [kind for kind, target in targets.items() if _taken(getattr(reference, loss), pred, target)]
        kind = kinds[i % len(kinds)]
        model, new_optimizer = partial(_network, widths, activation, output, dtype), partial(optimizer, **_smooth(optimizer))
        exact = _reference_steps(model(), loss, new_optimizer(), x, targets[kind])
        what = f"{'-'.join(map(str, widths))}, {activation}, {optimizer.__name__}, {kind}"
        yield Case(what, partial(_steps, model, loss, new_optimizer, x, targets[kind]), exact, [1 + np.abs(a) for a in exact])


def _layers(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare LayerNorm and, around BatchNorm, Residual with the formulas: y, dx and the gradients."""
    for rows, columns in ((2, 3), (7, 16), (67, 33), (300, 200)):
        x, dy = rng.standard_normal((2, rows, columns)).astype(dtype)
        model = nn.Sequential(nn.LayerNorm(columns), nn.Residual(nn.BatchNorm()), dtype=dtype.name)
        for view in model.parameters().values():
            view[...] = rng.uniform(0.5, 1.5, view.shape)
        p = {name: view.astype(np.float64) for name, view in model.parameters().items()}
        x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
        normal, mean, inv_std = reference.layer_norm(x64, p["0.gamma"], p["0.beta"])
        statistics = np.zeros(columns), np.ones(columns)
        y, batch_mean, batch_inv_std = reference.batch_norm(normal, p["1.0.gamma"], p["1.0.beta"], *statistics, training=True)
        back, *of_batch = reference.batch_norm_backward(dy64, normal, batch_mean, batch_inv_std, p["1.0.gamma"], training=True)
        exact = [normal + y, *reference.layer_norm_backward(dy64 + back, x64, mean, inv_std, p["0.gamma"]), *of_batch]
        yield Case(f"{rows} x {columns}", partial(_both_ways, model, x, dy), exact, [1 + np.abs(a).max() for a in exact])


def _both_ways(model: nn.Sequential, x: Array, dy: Array) -> Results:
    """Return y, dx and the gradients."""
    y = model.forward(x, training=True)
    return [y, model.backward(dy), *(g.copy() for g in model.gradients().values())]


def _penalties(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare a step of SGD with l1, l2, a clipped norm, units of limited norm and some weights masked with the formulas."""
    l1, l2, clip, most = 0.01, 0.02, 0.5, 0.75
    for rows, n, m in ((3, 1, 1), (17, 33, 5), (40, 300, 200)):
        x, y = rng.standard_normal((rows, n)).astype(dtype), rng.standard_normal((rows, m)).astype(dtype)
        mask = rng.random((n, m)) < 0.7
        w = np.where(mask, nn.Sequential(nn.Dense(n, m, bias=False), dtype=dtype.name).parameters()["0.weight"].astype(float), 0)
        value, dy = reference.mse(x.astype(float) @ w, y.astype(float))
        loss = value + l1 * np.abs(w).sum() + l2 * (w * w).sum()
        g = np.where(mask, x.astype(float).T @ dy + l1 * np.sign(w) + 2 * l2 * w, 0)
        w = w - LR * min(1.0, clip / (float(np.linalg.norm(g)) + 1e-6)) * g
        norm = np.linalg.norm(w, axis=0)
        exact = [loss, w * np.where(norm > most, most / np.where(norm > most, norm, 1), 1)]
        run = partial(_penalized_step, mask, x, y, {"l1": l1, "l2": l2, "clip_norm": clip, "max_norm": most})
        yield Case(f"{rows} x {n} x {m}", run, exact, [1 + np.abs(a) for a in exact])


def _penalized_step(mask: Array, x: Array, y: Array, rules: dict[str, Any]) -> Results:
    """Return the loss of a step, and the weight after it."""
    model = nn.Sequential(nn.Dense(mask.shape[0], mask.shape[1], bias=False), dtype=x.dtype.name)
    model._program.set_masks([mask])
    loss = Trainer(model, "mse", optim.SGD(lr=LR), **rules).step(x, y)
    return [x.dtype.type(loss), model.parameters()["0.weight"]]


def _averages(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Compare moving averages of weights over three steps with the formula."""
    for rows, n, m in ((3, 1, 1), (17, 33, 5), (40, 300, 200)):
        x, y = rng.standard_normal((rows, n)).astype(dtype), rng.standard_normal((rows, m)).astype(dtype)
        states = _averaged_steps(x, y)[1]
        exact = states[0]
        for w in states[1:]:
            exact = [0.75 * a + 0.25 * b for a, b in zip(exact, w, strict=True)]
        run = partial(lambda x, y: _averaged_steps(x, y)[0], x, y)
        yield Case(f"{rows} x {n} x {m}", run, exact, [1 + np.abs(a) for a in exact])


def _averaged_steps(x: Array, y: Array) -> tuple[Results, list[list[Array]]]:
    """Return the average after three steps, and the weights after each in float64."""
    model = nn.Sequential(nn.Dense(x.shape[1], y.shape[1]), dtype=x.dtype.name)
    trainer = Trainer(model, "mse", optim.SGD(lr=LR), average=averages.EMA(0.75))
    states = []
    for _ in range(3):
        trainer.step(x, y)
        states.append(_wide(*model.parameters().values()))
    return list(trainer.averaged_model().parameters().values()), states


def _smooth(optimizer: Any) -> dict[str, float]:
    """Options with which a change of the gradient by an eps does not turn the update round where the gradient is near 0."""
    return {"lr": LR, **({"eps": OPTION} if "eps" in inspect.signature(optimizer).parameters else {})}


def _steps(
    new_model: Callable[[], nn.Sequential], loss: str, new_optimizer: Callable[[], optim.Optimizer], x: Array, y: Array
) -> Results:
    """Return the losses of two steps, and the parameters after them."""
    model = new_model()
    trainer = Trainer(model, loss, new_optimizer())
    losses = [model.dtype.type(trainer.step(x, y)) for _ in range(2)]
    return [*losses, *model.parameters().values()]


def _network(widths: tuple[int, ...], activation: str, output: str | None, dtype: np.dtype[Any]) -> nn.Sequential:
    *hidden, last = pairwise(widths)
    layers = [*(nn.Dense(i, o, activation=activation) for i, o in hidden), nn.Dense(*last, activation=output)]
    return nn.Sequential(*layers, seed=3, dtype=dtype.name)


def _reference_steps(model: nn.Sequential, loss: str, optimizer: optim.Optimizer, x: Array, y: Array) -> list[Any]:
    """Return what `_steps` should give, in float64."""
    p = {name: w.astype(np.float64) for name, w in model.parameters().items()}
    states = {name: [np.zeros_like(w) for _ in _core.optimizer_states[optimizer._kind]] for name, w in p.items()}
    update = getattr(reference, f"{optimizer._kind}_step_")
    known = inspect.signature(update).parameters
    options = {name: value for name, value in optimizer.param_groups[0].items() if name in known}
    activations = [str(layer.activation or "identity") for layer in model.layers if isinstance(layer, nn.Dense)]
    target = y if y.dtype.kind == "i" else y.astype(np.float64)
    losses = []
    for step in (1, 2):
        ys: list[Any] = [x.astype(np.float64)]
        for i, activation in enumerate(activations):
            ys.append(reference.dense(ys[-1], p[f"{i}.weight"], p[f"{i}.bias"], activation))
        value, dy = getattr(reference, loss)(ys[-1], target)
        losses.append(value)
        gradients: dict[str, Any] = {}
        for i, activation in reversed(list(enumerate(activations))):
            w, b = p[f"{i}.weight"], p[f"{i}.bias"]
            source = reference.dense(ys[i], w, b) if activation in _core.activations_of_input else ys[i + 1]
            dy, gradients[f"{i}.weight"], gradients[f"{i}.bias"] = reference.dense_backward(dy, ys[i], w, source, activation)
        for name, w in p.items():
            update(w, gradients[name], *states[name], step=step, **options)
    return [*losses, *p.values()]
