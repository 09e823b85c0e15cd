"""What does not fit is refused: the type of the exception, the words that name the argument, and nothing written.

One row a wrong call. The rows of the command line are in test_cli.py, those of files that are no models in test_nn.py.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import trainstep as ts
from trainstep import _core, init, nn, ops, optim, reference

from .activation_rules import functions
from .helpers import Array, Dlpack, untouched

pytestmark = pytest.mark.one_level

Setting = SimpleNamespace
Call = Callable[[Setting], Any]


def of(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    return (1 + np.arange(np.prod(shape, dtype=int), dtype=np.float64) / 8).reshape(shape).astype(dtype)


def read_only(*shape: int) -> Array:
    result = of(shape)
    result.flags.writeable = False
    return result


def masked(*shape: int) -> Any:
    return np.ma.masked_array(of(shape), mask=np.zeros(shape, bool))


class ElsewhereTensor:
    """A tensor on a GPU."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("it is on cuda:0")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class Liar:
    """Says that it has the protocol, and gives nonsense."""

    def __dlpack__(self, **_: Any) -> Any:
        return 3

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Broken:
    """Raises when it is looked at."""

    @property
    def __dlpack__(self) -> Any:
        raise KeyError("broken")


TOO_LONG = np.broadcast_to(np.float32(1), (2**40, 3))  # 12 TB, were it not for its strides


def setting() -> Setting:
    """Arrays and objects that fit each other: a dense layer of 3 inputs and 5 outputs, and a batch of 4."""
    s = Setting(
        x=of((4, 3)),
        w=of((3, 5)),
        b=of((5,)),
        y=of((4, 5)),
        dy=of((4, 5)),
        dx=of((4, 3)),
        dw=of((3, 5)),
        db=of((5,)),
        out=of((4, 5)),
        x64=of((4, 3), np.float64),
        w64=of((3, 5), np.float64),
        y64=of((4, 5), np.float64),
        labels=np.array([0, 4, 2, 1]),
        probabilities=np.full((4, 5), 0.2, np.float32),
        p=of((6,)),
        g=of((6,)),
        m=np.zeros(6, np.float32),
        v=np.zeros(6, np.float32),
        p64=of((6,), np.float64),
        frozen=read_only(4, 5),
        frozen6=read_only(6),
        wide=of((4, 10)),
        model=nn.Sequential(nn.Dense(3, 4, activation="tanh"), nn.Dense(4, 5), seed=3),
        regression=nn.Sequential(nn.Dense(3, 5), seed=4),
        standardized=nn.Sequential(nn.Standardize(3), nn.Dense(3, 2), seed=5),
    )
    s.trainer = ts.Trainer(s.model, optimizer=optim.Adam(lr=0.1))
    s.trainer.step(s.x, s.labels)  # states that are not zero
    s.mse_trainer = ts.Trainer(s.regression, loss="mse", optimizer=optim.SGD(lr=0.1, momentum=0.9))
    s.mse_trainer.step(s.x, s.y)
    s.sgd = optim.SGD([s.p, s.b], lr=0.1, momentum=0.9)
    s.sgd.step([of((6,)), of((5,))])
    return s


def arrays_of(s: Setting) -> list[Array]:
    """All that could have been written."""
    arrays = [value for value in vars(s).values() if isinstance(value, np.ndarray)]
    for model in (s.model, s.regression, s.standardized):
        arrays += model.parameters().values()
        arrays += model.buffers().values()
        arrays += model.gradients().values()
    for optimizer in (s.trainer.optimizer, s.mse_trainer.optimizer, s.sgd):
        arrays += [view for entry in optimizer.state for view in entry.values() if isinstance(view, np.ndarray)]
    return arrays


def counts_of(s: Setting) -> list[Any]:
    """What is no array and must not have moved either."""
    optimizers = (s.trainer.optimizer, s.mse_trainer.optimizer, s.sgd)
    options = [{k: v for k, v in group.items() if k != "params"} for o in optimizers for group in o.param_groups]
    steps = [entry["step"] for o in optimizers for entry in o.state]
    return [ts.get_num_threads(), options, steps, s.trainer.steps, s.trainer.epoch, s.mse_trainer.steps, s.mse_trainer.epoch]


def check(call: Call, exception: type[Exception], words: str) -> None:
    s = setting()
    counts = counts_of(s)
    with untouched(*arrays_of(s)), pytest.raises(exception) as caught:
        call(s)
    assert type(caught.value) is exception or exception is MemoryError  # NumPy has one of its own
    message = str(caught.value)
    for word in words.split():
        assert word in message, f"{word!r} is not in {message!r}"
    assert "\n" not in message
    assert counts_of(s) == counts


Table = dict[str, tuple[Call, type[Exception], str]]


def table(rows: Table) -> Any:
    return pytest.mark.parametrize(("call", "exception", "words"), rows.values(), ids=rows.keys())


# --- ops -----------------------------------------------------------------------------------------------------------------------

DENSE: Table = {
    "columns": (lambda s: ops.dense(s.y, s.w), ValueError, "dense: x 5 columns w 3 rows"),
    "x of rank 1": (lambda s: ops.dense(s.b, s.w), ValueError, "dense: x (5,) (any, any)"),
    "x of rank 3": (lambda s: ops.dense(of((2, 4, 3)), s.w), ValueError, "dense: x (2, 4, 3)"),
    "w of rank 1": (lambda s: ops.dense(s.x, s.b), ValueError, "dense: w (5,)"),
    "w of rank 0": (lambda s: ops.dense(s.x, np.float32(1)), ValueError, "dense: w ()"),
    "b of wrong length": (lambda s: ops.dense(s.x, s.w, s.p), ValueError, "dense: b (6,) (5,)"),
    "b of rank 2": (lambda s: ops.dense(s.x, s.w, s.b[None]), ValueError, "dense: b (1, 5)"),
    "w of another dtype": (lambda s: ops.dense(s.x, s.w64), TypeError, "dense: w float64 float32"),
    "x of another dtype": (lambda s: ops.dense(s.x64, s.w), TypeError, "dense: w float32 float64"),
    "b of another dtype": (lambda s: ops.dense(s.x64, s.w64, s.b), TypeError, "dense: b float32"),
    "x of ints": (lambda s: ops.dense(s.x.astype(int), s.w), TypeError, "dense: x int64 float32 float64"),
    "x of halves": (lambda s: ops.dense(s.x.astype(np.float16), s.w), TypeError, "dense: x float16"),
    "x of complex": (lambda s: ops.dense(s.x.astype(complex), s.w), TypeError, "dense: x complex128"),
    "x of objects": (lambda s: ops.dense(s.x.astype(object), s.w), TypeError, "dense: x object"),
    "x of the other byte order": (lambda s: ops.dense(s.x.astype(">f4"), s.w), TypeError, "dense: x >f4"),
    "x is None": (lambda s: ops.dense(None, s.w), TypeError, "dense: x NoneType"),
    "x is a string": (lambda s: ops.dense("abc", s.w), TypeError, "dense: x str"),
    "x is bytes": (lambda s: ops.dense(b"abc", s.w), TypeError, "dense: x bytes"),
    "x is a dict": (lambda s: ops.dense({}, s.w), TypeError, "dense: x dict"),
    "x is a number": (lambda s: ops.dense(1.0, s.w), TypeError, "dense: x float"),
    "x is ragged": (lambda s: ops.dense([[1.0], [1.0, 2.0]], s.w64), TypeError, "dense: x"),
    "w is a string": (lambda s: ops.dense(s.x, "abc"), TypeError, "dense: w str"),
    "empty batch": (lambda s: ops.dense(s.x[:0], s.w), ValueError, "dense: x (0, 3)"),
    "no inputs": (lambda s: ops.dense(s.x[:, :0], s.w[:0]), ValueError, "dense: x (4, 0)"),
    "no outputs": (lambda s: ops.dense(s.x, s.w[:, :0]), ValueError, "dense: w (3, 0)"),
    "unknown activation": (lambda s: ops.dense(s.x, s.w, s.b, "rellu"), ValueError, "dense: activation 'rellu' relu tanh"),
    "activation is a number": (lambda s: ops.dense(s.x, s.w, s.b, 1), TypeError, "dense: activation int"),
    "out of wrong shape": (lambda s: ops.dense(s.x, s.w, out=s.dx), ValueError, "dense: out (4, 3) (4, 5)"),
    "out transposed": (lambda s: ops.dense(s.x, s.w, out=of((5, 4)).T), ValueError, "dense: out C-contiguous"),
    "out strided": (lambda s: ops.dense(s.x, s.w, out=s.wide[:, ::2]), ValueError, "dense: out C-contiguous"),
    "out of another dtype": (lambda s: ops.dense(s.x, s.w, out=s.y64), TypeError, "dense: out float64 float32"),
    "out is read-only": (lambda s: ops.dense(s.x, s.w, out=s.frozen), ValueError, "dense: out read-only"),
    "out is a list": (lambda s: ops.dense(s.x, s.w, out=[[0.0]]), TypeError, "dense: out"),
    "out is x": (lambda s: ops.dense(s.y, of((5, 5)), out=s.y), ValueError, "dense: out memory"),
    "out is w": (lambda s: ops.dense(of((3, 3)), s.w, out=s.w), ValueError, "dense: out memory"),
    "out overlaps b": (lambda s: ops.dense(s.x, s.w, s.out.reshape(-1)[2:7], out=s.out), ValueError, "dense: out memory"),
    "x is masked": (lambda s: ops.dense(masked(4, 3), s.w), TypeError, "dense: x MaskedArray mask"),
    "x on a GPU": (lambda s: ops.dense(ElsewhereTensor(), s.w), TypeError, "dense: x cuda:0"),
    "x lies": (lambda s: ops.dense(Liar(), s.w), TypeError, "dense: x cannot be read as an array"),
    "x is broken": (lambda s: ops.dense(Broken(), s.w), TypeError, "dense: x Broken"),
    "x of records": (lambda s: ops.dense(np.zeros((4, 3), "f4,f4"), s.w), TypeError, "dense: x has dtype"),
    "x of dates": (lambda s: ops.dense(np.zeros((4, 3), "M8[s]"), s.w), TypeError, "dense: x datetime64[s]"),
    "x of long doubles": (lambda s: ops.dense(of((4, 3), np.longdouble), s.w), TypeError, "dense: x expected float32 or float64"),
    "x of bools": (lambda s: ops.dense(s.x > 1, s.w), TypeError, "dense: x bool"),
    "x of more than the memory": (lambda s: ops.dense(TOO_LONG, s.w), MemoryError, "TiB float32"),
    "y of more than the memory": (
        lambda s: ops.dense(np.ones((2**26, 1), np.float32), np.ones((1, 2**26), np.float32)),
        MemoryError,
        "PiB float32",
    ),
    "out is masked": (lambda s: ops.dense(s.x, s.w, out=masked(4, 5)), TypeError, "dense: out MaskedArray"),
    "activation is bytes": (lambda s: ops.dense(s.x, s.w, activation=b"relu"), TypeError, "dense: activation bytes"),
    "activation is no UTF-8": (lambda s: ops.dense(s.x, s.w, activation="\ud800"), ValueError, "activation '\\ud800' relu"),
    "activation of two lines": (lambda s: ops.dense(s.x, s.w, activation="a\nb"), ValueError, "dense: activation 'a\\nb' relu"),
    "unknown precision": (
        lambda s: ops.dense(s.x, s.w, precision="tf32"),
        ValueError,
        "dense: precision 'tf32' float32, bf16_x6, bf16_x3, bf16 highest high medium",
    ),
    "precision is empty": (lambda s: ops.dense(s.x, s.w, precision=""), ValueError, "dense: precision '' bf16_x3"),
    "precision is a number": (lambda s: ops.dense(s.x, s.w, precision=3), TypeError, "dense: precision int"),
    "precision is no UTF-8": (lambda s: ops.dense(s.x, s.w, precision="\ud800"), ValueError, "precision '\\ud800' bf16"),
    "precision of pieces in float64": (
        lambda s: ops.dense(s.x64, s.w64, precision="high"),
        ValueError,
        "dense: precision 'bf16_x3' 'float32' float64",
    ),
}

BACKWARD: Table = {
    "unknown precision": (
        lambda s: ops.dense_backward(s.dy, s.x, s.w, precision="lowest"),
        ValueError,
        "dense_backward: precision 'lowest' bf16_x3",
    ),
    "precision of pieces in float64": (
        lambda s: ops.dense_backward(s.y64, s.x64, s.w64, precision="bf16"),
        ValueError,
        "dense_backward: precision 'bf16' 'float32' float64",
    ),
    "y is missing": (lambda s: ops.dense_backward(s.dy, s.x, s.w, None, "tanh"), ValueError, "dense_backward: y None tanh"),
    "dy of wrong shape": (lambda s: ops.dense_backward(s.x, s.x, s.w), ValueError, "dense_backward: dy (4, 3) (4, 5)"),
    "w of wrong shape": (lambda s: ops.dense_backward(s.dy, s.x, s.y), ValueError, "dense_backward: w (4, 5) (3, any)"),
    "x of wrong rank": (lambda s: ops.dense_backward(s.dy, s.b, s.w), ValueError, "dense_backward: x (5,)"),
    "y of wrong shape": (lambda s: ops.dense_backward(s.dy, s.x, s.w, s.x, "relu"), ValueError, "dense_backward: y (4, 3)"),
    "y of another dtype": (lambda s: ops.dense_backward(s.dy, s.x, s.w, s.y64, "relu"), TypeError, "dense_backward: y float64"),
    "x of another dtype": (lambda s: ops.dense_backward(s.dy, s.x64, s.w), TypeError, "dense_backward: x float64"),
    "dy is None": (lambda s: ops.dense_backward(None, s.x, s.w), TypeError, "dense_backward: dy NoneType"),
    "w is a string": (lambda s: ops.dense_backward(s.dy, s.x, "w"), TypeError, "dense_backward: w str"),
    "empty batch": (lambda s: ops.dense_backward(s.dy[:0], s.x[:0], s.w), ValueError, "dense_backward: x (0, 3)"),
    "no outputs": (lambda s: ops.dense_backward(s.dy[:, :0], s.x, s.w[:, :0]), ValueError, "dense_backward: w (3, 0)"),
    "unknown activation": (lambda s: ops.dense_backward(s.dy, s.x, s.w, s.y, "x"), ValueError, "dense_backward: activation 'x'"),
    "out is an array": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=s.dx), TypeError, "dense_backward: out tuple"),
    "out of two": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.dw)), TypeError, "dense_backward: out (dx, dw, db)"),
    "dx of wrong shape": (
        lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.y, s.dw, s.db)),
        ValueError,
        "out[0] dx (4, 5) (4, 3)",
    ),
    "dw of wrong shape": (
        lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.dx, s.db)),
        ValueError,
        "out[1] dw (4, 3) (3, 5)",
    ),
    "db of wrong shape": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.dw, s.p)), ValueError, "out[2] db (6,) (5,)"),
    "dw of another dtype": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.w64, s.db)), TypeError, "out[1] float64"),
    "dx strided": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(of((3, 4)).T, s.dw, s.db)), ValueError, "out[0] C-contiguous"),
    "db read-only": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.dw, s.frozen[0])), ValueError, "out[2] read-only"),
    "dx is x": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.x, s.dw, s.db)), ValueError, "out[0] memory"),
    "dw is w": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.w, s.db)), ValueError, "out[1] memory"),
    "db in dw": (lambda s: ops.dense_backward(s.dy, s.x, s.w, out=(s.dx, s.dw, s.dw[0])), ValueError, "out[2] memory"),
    "db in y": (lambda s: ops.dense_backward(s.dy, s.x, s.w, s.y, "relu", out=(s.dx, s.dw, s.y[0])), ValueError, "out[2] memory"),
    "need_dx is a string": (
        lambda s: ops.dense_backward(s.dy, s.x, s.w, need_dx="no"),
        TypeError,
        "dense_backward: need_dx str bool",
    ),
    "need_dx is None": (lambda s: ops.dense_backward(s.dy, s.x, s.w, need_dx=None), TypeError, "need_dx NoneType bool"),
    "need_dx is an array": (lambda s: ops.dense_backward(s.dy, s.x, s.w, need_dx=s.b), TypeError, "need_dx ndarray bool"),
    "x is masked": (lambda s: ops.dense_backward(s.dy, masked(4, 3), s.w), TypeError, "dense_backward: x MaskedArray"),
}


def activation_rows() -> Table:
    rows: Table = {}
    for name in _core.activations:
        f, back = functions(name)
        me, source = f"{name}_backward:", "x" if name in _core.activations_of_input else "y"
        rows |= {
            f"{name}: ints": (lambda s, f=f: f(s.labels), TypeError, f"{name}: x int64"),
            f"{name}: None": (lambda s, f=f: f(None), TypeError, f"{name}: x NoneType"),
            f"{name}: string": (lambda s, f=f: f("x"), TypeError, f"{name}: x str"),
            f"{name}: out of wrong shape": (lambda s, f=f: f(s.x, out=s.y), ValueError, f"{name}: out (4, 5) (4, 3)"),
            f"{name}: out of another dtype": (lambda s, f=f: f(s.x, out=s.x64), TypeError, f"{name}: out float64"),
            f"{name}: out read-only": (lambda s, f=f: f(s.y, out=s.frozen), ValueError, f"{name}: out read-only"),
            f"{name}: out strided": (lambda s, f=f: f(s.y, out=s.wide[:, :5]), ValueError, f"{name}: out C-contiguous"),
            f"{name}: out overlaps x": (lambda s, f=f: f(s.p[1:], out=s.p[:-1]), ValueError, f"{name}: out memory"),
            f"{me} shapes": (lambda s, f=back: f(s.dy, s.x), ValueError, f"{me} {source} (4, 3) (4, 5)"),
            f"{me} dtypes": (lambda s, f=back: f(s.dy, s.y64), TypeError, f"{me} {source} float64"),
            f"{me} None": (lambda s, f=back: f(None, s.y), TypeError, f"{me} dy NoneType"),
            f"{me} out of wrong shape": (lambda s, f=back: f(s.dy, s.y, out=s.x), ValueError, f"{me} out (4, 3)"),
            f"{me} out read-only": (lambda s, f=back: f(s.dy, s.y, out=s.frozen), ValueError, f"{me} out read-only"),
            f"{me} out overlaps {source}": (lambda s, f=back: f(s.p[1:], s.g[1:], out=s.g[:-1]), ValueError, f"{me} out memory"),
        }
    for name, (argument, _) in _core.activation_parameters.items():
        f, back = functions(name)
        for value, kind in ((-0.5, ValueError), (np.inf, ValueError), (np.nan, ValueError), ("inf", TypeError)):
            words = f"{argument} {'str' if kind is TypeError else value}"
            rows |= {
                f"{name}: {value!r}": (lambda s, f=f, v=value: f(s.x, v, out=s.dx), kind, f"{name}: {words}"),
                f"{name}_backward: {value!r}": (
                    lambda s, f=back, v=value: f(s.dy, s.y, v, out=s.out),
                    kind,
                    f"{name}_backward: {words}",
                ),
            }
    for name in _core.activations_by_rows:
        f, back = functions(name)
        rows[f"{name}: no axis"] = (lambda s, f=f: f(of(())), ValueError, f"{name}: x ()")
        rows[f"{name}_backward: no axis"] = (lambda s, f=back: f(of(()), of(())), ValueError, f"{name}_backward: dy ()")
    gelu, back = ops.gelu, ops.gelu_backward
    rows["gelu: form"] = (lambda s: gelu(s.x, "erf", out=s.dx), ValueError, "gelu: approximate 'erf' 'none' 'tanh'")
    rows["gelu_backward: form"] = (lambda s: back(s.dy, s.y, None, out=s.out), ValueError, "gelu_backward: approximate None")
    return rows


def changed(array: Array, at: Any, value: float) -> Array:
    result = array.copy()
    result[at] = value
    return result


SOFTMAX: Table = {
    "label too large": (lambda s: cross(s.y, [0, 5, 1, 1]), ValueError, "labels 5 row 1"),
    "label negative": (lambda s: cross(s.y, [0, 1, 1, -1]), ValueError, "labels -1 row 3"),
    "label huge": (lambda s: cross(s.y, np.array([0, 1, 1, 2**63], np.uint64)), ValueError, "labels row 3"),
    "labels of wrong length": (lambda s: cross(s.y, s.labels[:3]), ValueError, "labels (3,) (4,)"),
    "labels of floats": (lambda s: cross(s.y, s.labels.astype(np.float32)), TypeError, "labels float32"),
    "labels of bools": (lambda s: cross(s.y, s.labels > 1), TypeError, "labels bool"),
    "labels as a column": (lambda s: cross(s.y, s.labels[:, None]), TypeError, "labels int64"),
    "label rows of ints": (lambda s: cross(s.y, s.probabilities.astype(int)), TypeError, "labels int64"),
    "labels are None": (lambda s: cross(s.y, None), TypeError, "labels NoneType"),
    "labels are a string": (lambda s: cross(s.y, "abcd"), TypeError, "labels str"),
    "probabilities of wrong shape": (lambda s: cross(s.y, s.x), ValueError, "labels (4, 3) (4, 5)"),
    "probabilities of another dtype": (lambda s: cross(s.y, s.y64), TypeError, "labels float64"),
    "probability NaN": (lambda s: cross(s.y, changed(s.probabilities, (1, 2), np.nan)), ValueError, "labels nan 7"),
    "probability negative": (lambda s: cross(s.y, changed(s.probabilities, (1, 2), -0.5)), ValueError, "labels -0.5"),
    "probability infinite": (lambda s: cross(s.y, changed(s.probabilities, (3, 4), np.inf)), ValueError, "labels inf"),
    "logits of rank 1": (lambda s: cross(s.b, s.labels), ValueError, "logits (5,)"),
    "logits of rank 3": (lambda s: cross(of((2, 2, 5)), s.labels), ValueError, "logits (2, 2, 5)"),
    "logits of ints": (lambda s: cross(s.y.astype(int), s.labels), TypeError, "logits int64"),
    "logits are None": (lambda s: cross(None, s.labels), TypeError, "logits NoneType"),
    "empty batch": (lambda s: cross(s.y[:0], s.labels[:0]), ValueError, "logits (0, 5)"),
    "no classes": (lambda s: cross(s.y[:, :0], s.labels), ValueError, "logits (4, 0)"),
    "unknown reduction": (lambda s: cross(s.y, s.labels, reduction="avg"), ValueError, "reduction 'avg' mean sum none"),
    "reduction is None": (lambda s: cross(s.y, s.labels, reduction=None), TypeError, "reduction NoneType"),
    "out of wrong shape": (lambda s: cross(s.y, s.labels, out=s.x), ValueError, "out (4, 3) (4, 5)"),
    "out of another dtype": (lambda s: cross(s.y, s.labels, out=s.y64), TypeError, "out float64"),
    "out read-only": (lambda s: cross(s.y, s.labels, out=s.frozen), ValueError, "out read-only"),
    "out is logits": (lambda s: cross(s.y, s.labels, out=s.y), ValueError, "out memory"),
    "out is labels": (lambda s: cross(s.y, s.probabilities, out=s.probabilities), ValueError, "out memory"),
    "labels of strings": (lambda s: cross(s.y, ["a"] * 4), TypeError, "labels <U1 integer"),
    "labels of objects": (lambda s: cross(s.y, s.labels.astype(object)), TypeError, "labels object integer"),
    "labels are an empty list": (lambda s: cross(s.y, []), TypeError, "labels float64 integer"),
    "labels are masked": (lambda s: cross(s.y, np.ma.masked_array(s.labels)), TypeError, "labels MaskedArray"),
}
cross = ops.softmax_cross_entropy

MSE: Table = {
    "target of wrong shape": (lambda s: ops.mse(s.y, s.x), ValueError, "mse: target (4, 3) (4, 5)"),
    "target that would broadcast": (lambda s: ops.mse(s.y, s.b), ValueError, "mse: target (5,) (4, 5)"),
    "target of another dtype": (lambda s: ops.mse(s.y, s.y64), TypeError, "mse: target float64"),
    "target NaN": (lambda s: ops.mse(s.y, changed(s.dy, (2, 3), np.nan)), ValueError, "mse: target nan 13"),
    "target is None": (lambda s: ops.mse(s.y, None), TypeError, "mse: target NoneType"),
    "pred is a dict": (lambda s: ops.mse({}, s.y), TypeError, "mse: pred dict"),
    "pred of ints": (lambda s: ops.mse(s.labels, s.labels), TypeError, "mse: pred int64"),
    "empty": (lambda s: ops.mse(s.y[:0], s.y[:0]), ValueError, "mse: pred (0, 5)"),
    "unknown reduction": (lambda s: ops.mse(s.y, s.y, reduction="median"), ValueError, "mse: reduction 'median'"),
    "out of wrong shape": (lambda s: ops.mse(s.y, s.dy, out=s.x), ValueError, "mse: out (4, 3)"),
    "out read-only": (lambda s: ops.mse(s.y, s.dy, out=s.frozen), ValueError, "mse: out read-only"),
    "out is target": (lambda s: ops.mse(s.y, s.dy, out=s.dy), ValueError, "mse: out memory"),
    "reduction is a number": (lambda s: ops.mse(s.y, s.dy, reduction=1), TypeError, "mse: reduction int"),
    "pred is masked": (lambda s: ops.mse(masked(4, 5), s.dy), TypeError, "mse: pred MaskedArray"),
}

LOSSES: Table = {
    "weights of wrong length": (lambda s: ops.mse(s.y, s.dy, sample_weight=s.b), ValueError, "mse: sample_weight (5,) (4,)"),
    "weights of another dtype": (
        lambda s: ops.mae(s.y, s.dy, sample_weight=s.p64[:4]),
        TypeError,
        "mae: sample_weight float64 float32",
    ),
    "weight negative": (
        lambda s: ops.huber(s.y, s.dy, sample_weight=of((4,)) * 0 - 1),
        ValueError,
        "huber: sample_weight -1 element 0",
    ),
    "weight infinite": (
        lambda s: cross(s.y, s.labels, sample_weight=changed(np.ones(4, np.float32), 2, np.inf)),
        ValueError,
        "softmax_cross_entropy: sample_weight inf element 2",
    ),
    "weights of a number": (
        lambda s: ops.mse(np.array(1.0), np.array(2.0), sample_weight=np.ones(1)),
        ValueError,
        "mse: sample_weight None pred rows",
    ),
    "class weights of wrong length": (
        lambda s: cross(s.y, s.labels, weight=s.p[:4]),
        ValueError,
        "softmax_cross_entropy: weight (4,) (5,)",
    ),
    "class weight NaN": (
        lambda s: cross(s.y, s.labels, weight=s.b * np.float32(np.nan)),
        ValueError,
        "softmax_cross_entropy: weight nan",
    ),
    "out holds weights": (
        lambda s: ops.mse(s.y, s.dy, sample_weight=s.out[0, :4], out=s.out),
        ValueError,
        "mse: out memory",
    ),
    "smoothing negative": (lambda s: cross(s.y, s.labels, label_smoothing=-0.1), ValueError, "label_smoothing -0.1 0 1"),
    "smoothing is NaN": (lambda s: cross(s.y, s.labels, label_smoothing=np.nan), ValueError, "label_smoothing nan"),
    "smoothing is a bool": (lambda s: cross(s.y, s.labels, label_smoothing=True), TypeError, "label_smoothing bool"),
    "smoothing is an array": (lambda s: cross(s.y, s.labels, label_smoothing=s.b), TypeError, "label_smoothing ndarray"),
    "delta negative": (lambda s: ops.huber(s.y, s.dy, -1.0), ValueError, "huber: delta -1 above 0"),
    "delta is None": (lambda s: ops.huber(s.y, s.dy, None), TypeError, "huber: delta NoneType"),
    "target of 2": (
        lambda s: ops.sigmoid_binary_cross_entropy(s.y, changed(s.probabilities, (1, 2), 2)),
        ValueError,
        "sigmoid_binary_cross_entropy: targets 2.0 element 7 0 to 1",
    ),
    "sign of 0": (lambda s: ops.hinge(s.y, s.y * 0), ValueError, "hinge: targets 0.0 element 0 -1 or 1"),
    "count negative": (
        lambda s: ops.poisson_nll(s.y, changed(s.probabilities, (0, 1), -1)),
        ValueError,
        "poisson_nll: counts -1.0 element 1 finite counts",
    ),
    "count infinite": (
        lambda s: ops.poisson_nll(s.y, changed(s.probabilities, (0, 1), np.inf)),
        ValueError,
        "poisson_nll: counts inf element 1",
    ),
    "probabilities of rank 1": (
        lambda s: ops.categorical_cross_entropy(s.b, s.b),
        ValueError,
        "categorical_cross_entropy: probs (5,) (any, any)",
    ),
    "one-hot of wrong shape": (
        lambda s: ops.categorical_cross_entropy(s.y, s.x),
        ValueError,
        "categorical_cross_entropy: onehot (4, 3) (4, 5) (4,)",
    ),
    "label too large": (
        lambda s: ops.kl_divergence(s.y, s.labels + 1),
        ValueError,
        "kl_divergence: probs 5 row 1 0 <= label < 5",
    ),
    "log rate of ints": (lambda s: ops.poisson_nll(s.labels, s.labels), TypeError, "poisson_nll: log_rate int64"),
    "scores is None": (lambda s: ops.hinge(None, s.y), TypeError, "hinge: scores NoneType"),
}


@table(LOSSES)
def test_losses(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


STANDARDIZE: Table = {
    "x of rank 1": (lambda s: ops.standardize(s.b, s.b, s.b), ValueError, "standardize: x (5,) (any, any)"),
    "x of no rows": (lambda s: ops.standardize(s.y[:0], s.b, s.b), ValueError, "standardize: x (0, 5)"),
    "x of ints": (lambda s: ops.standardize(s.y.astype(int), s.b, s.b), TypeError, "standardize: x int64"),
    "x is None": (lambda s: ops.standardize(None, s.b, s.b), TypeError, "standardize: x NoneType"),
    "mean of wrong length": (lambda s: ops.standardize(s.x, s.b, s.b), ValueError, "standardize: mean (5,) (3,)"),
    "mean that would broadcast": (lambda s: ops.standardize(s.y, s.y, s.b), ValueError, "standardize: mean (4, 5) (5,)"),
    "mean of another dtype": (lambda s: ops.standardize(s.y, s.y64[0], s.b), TypeError, "standardize: mean float64 float32"),
    "scale is a number": (lambda s: ops.standardize(s.y, s.b, 2.0), TypeError, "standardize: scale float"),
    "scale of wrong length": (lambda s: ops.standardize(s.y, s.b, s.p), ValueError, "standardize: scale (6,) (5,)"),
    "out of wrong shape": (lambda s: ops.standardize(s.y, s.b, s.b, out=s.x), ValueError, "standardize: out (4, 3) (4, 5)"),
    "out read-only": (lambda s: ops.standardize(s.y, s.b, s.b, out=s.frozen), ValueError, "standardize: out read-only"),
    "out holds mean": (lambda s: ops.standardize(s.y, s.out[0], s.b, out=s.out), ValueError, "standardize: out memory mean"),
    "out holds scale": (lambda s: ops.standardize(s.y, s.b, s.out[3], out=s.out), ValueError, "standardize: out memory scale"),
    "out meets x": (lambda s: ops.standardize(s.y[:3], s.b, s.b, out=s.y[1:]), ValueError, "standardize: out memory input"),
    "dy of rank 1": (lambda s: ops.standardize_backward(s.b, s.b), ValueError, "standardize_backward: dy (5,)"),
    "scale of wrong width": (lambda s: ops.standardize_backward(s.y, s.p), ValueError, "standardize_backward: scale (6,) (5,)"),
    "scale of strings": (lambda s: ops.standardize_backward(s.y, "abcde"), TypeError, "standardize_backward: scale str"),
    "dx holds scale": (
        lambda s: ops.standardize_backward(s.y, s.out[1], out=s.out),
        ValueError,
        "standardize_backward: out memory scale",
    ),
    "dx strided": (
        lambda s: ops.standardize_backward(s.y, s.b, out=s.wide[:, ::2]),
        ValueError,
        "standardize_backward: out C-cont",
    ),
}


@table(STANDARDIZE)
def test_standardize(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(DENSE)
def test_dense(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(BACKWARD)
def test_dense_backward(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(activation_rows())
def test_activations(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(SOFTMAX)
def test_softmax_cross_entropy(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, "softmax_cross_entropy: " + words)


@table(MSE)
def test_mse(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


# --- norms and clipping ----------------------------------------------------------------------------------------------------------


def clipping_rows() -> Table:
    rows: Table = {
        "limit negative": (lambda s: ops.clip_by_value_([s.p], -1.0), ValueError, "clip_by_value_: limit -1"),
        "limit NaN": (lambda s: ops.clip_by_value_([s.p], np.nan), ValueError, "clip_by_value_: limit nan"),
        "limit is text": (lambda s: ops.clip_by_value_([s.p], "1"), TypeError, "clip_by_value_: limit str"),
    }
    for name in ("clip_by_global_norm_", "clip_by_norm_"):
        f = getattr(ops, name)
        rows[f"{name} max_norm negative"] = (lambda s, f=f: f([s.p], -1.0), ValueError, f"{name}: max_norm -1")
        rows[f"{name} max_norm NaN"] = (lambda s, f=f: f([s.p], np.nan), ValueError, f"{name}: max_norm nan")
        rows[f"{name} max_norm None"] = (lambda s, f=f: f([s.p], None), TypeError, f"{name}: max_norm NoneType")
    for name in ("global_norm", "clip_by_global_norm_", "clip_by_norm_", "clip_by_value_"):
        f, limits = getattr(ops, name), () if name == "global_norm" else (0.5,)
        rows |= {
            f"{name} of one array": (lambda s, f=f, m=limits: f(s.p, *m), TypeError, f"{name}: arrays ndarray"),
            f"{name} of None": (lambda s, f=f, m=limits: f(None, *m), TypeError, f"{name}: arrays NoneType"),
            f"{name} of ints": (lambda s, f=f, m=limits: f([s.p, s.labels], *m), TypeError, f"{name}: arrays[1] int64"),
            f"{name} of text": (lambda s, f=f, m=limits: f([s.p, "a"], *m), TypeError, f"{name}: arrays[1] str"),
            f"{name} of a masked array": (lambda s, f=f, m=limits: f([masked(3)], *m), TypeError, f"{name}: arrays[0] MaskedArray"),
        }
        if limits:
            rows |= {
                f"{name} of a list": (lambda s, f=f: f([s.p, [1.0]], 0.5), TypeError, f"{name}: arrays[1] list"),
                f"{name} read-only": (lambda s, f=f: f([s.p, s.frozen], 0.5), ValueError, f"{name}: arrays[1] read-only"),
                f"{name} strided": (lambda s, f=f: f([s.p, s.wide[:, ::2]], 0.5), ValueError, f"{name}: arrays[1] C-contiguous"),
            }
    return rows


@table(clipping_rows())
def test_clipping(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


# --- optim ---------------------------------------------------------------------------------------------------------------------


def sgd(s: Setting, **options: Any) -> None:
    optim.sgd_step_(s.p, s.g, s.m, **options)


def adam(s: Setting, **options: Any) -> None:
    optim.adam_step_(s.p, s.g, s.m, s.v, **options)


BARE: Table = {
    "w of ints": (lambda s: optim.sgd_step_(np.arange(6), s.g), TypeError, "sgd_step_: w int64"),
    "w is a list": (lambda s: optim.sgd_step_([1.0, 2.0], [1.0, 2.0]), TypeError, "sgd_step_: w list"),
    "w is a tuple": (lambda s: optim.adam_step_((1.0,), *(np.zeros(1) for _ in range(3))), TypeError, "adam_step_: w tuple"),
    "w is None": (lambda s: optim.sgd_step_(None, s.g), TypeError, "sgd_step_: w NoneType"),
    "w is read-only": (lambda s: optim.sgd_step_(s.frozen6, s.g), ValueError, "sgd_step_: w read-only"),
    "w is strided": (lambda s: optim.sgd_step_(s.wide[0, :6:2], s.g[:3]), ValueError, "sgd_step_: w C-contiguous"),
    "g of wrong shape": (lambda s: optim.sgd_step_(s.p, s.b), ValueError, "sgd_step_: g (5,) (6,)"),
    "g of wrong rank": (lambda s: optim.sgd_step_(s.p, s.g[None]), ValueError, "sgd_step_: g (1, 6)"),
    "g of another dtype": (lambda s: optim.sgd_step_(s.p, s.p64), TypeError, "sgd_step_: g float64"),
    "g is w": (lambda s: optim.sgd_step_(s.p, s.p), ValueError, "sgd_step_: g memory w"),
    "buffer is missing": (lambda s: optim.sgd_step_(s.p, s.g, momentum=0.9), ValueError, "sgd_step_: momentum_buffer None"),
    "buffer of wrong shape": (lambda s: optim.sgd_step_(s.p, s.g, s.b, momentum=0.9), ValueError, "momentum_buffer (5,)"),
    "buffer is a list": (lambda s: optim.sgd_step_(s.p, s.g, [0.0] * 6, momentum=0.9), TypeError, "momentum_buffer list"),
    "buffer is w": (lambda s: optim.sgd_step_(s.p, s.g, s.p, momentum=0.9), ValueError, "momentum_buffer memory"),
    "buffer is g": (lambda s: optim.sgd_step_(s.p, s.g, s.g, momentum=0.9), ValueError, "momentum_buffer memory"),
    "buffer is read-only": (lambda s: optim.sgd_step_(s.p, s.g, s.frozen6, momentum=0.9), ValueError, "momentum_buffer read-only"),
    "states are one array": (lambda s: optim.adam_step_(s.p, s.g, s.m, s.m), ValueError, "adam_step_: exp_avg_sq memory"),
    "state of wrong shape": (lambda s: optim.adam_step_(s.p, s.g, s.m, s.b), ValueError, "adam_step_: exp_avg_sq (5,)"),
    "state of another dtype": (lambda s: optim.adam_step_(s.p, s.g, s.p64, s.v), TypeError, "adam_step_: exp_avg float64"),
    "state is None": (lambda s: optim.adam_step_(s.p, s.g, None, s.v), ValueError, "adam_step_: exp_avg None"),
    "state is a number": (lambda s: optim.adam_step_(s.p, s.g, 0.0, s.v), TypeError, "adam_step_: exp_avg float"),
    "optional state is missing": (
        lambda s: optim.adam_step_(s.p, s.g, s.m, s.v, amsgrad=True),
        ValueError,
        "adam_step_: max_exp_avg_sq None",
    ),
    "average is missing": (
        lambda s: optim.rmsprop_step_(s.p, s.g, s.m, s.v, centered=True),
        ValueError,
        "rmsprop_step_: grad_avg None",
    ),
    "one state for two": (lambda s: optim.rmsprop_step_(s.p, s.g, s.m, None, s.m, centered=True), ValueError, "grad_avg memory"),
    "mu_product is text": (
        lambda s: optim.nadam_step_(s.p, s.g, s.m, s.v, mu_product="1"),
        TypeError,
        "nadam_step_: mu_product str",
    ),
    "nadam of one beta": (lambda s: optim.nadam_step_(s.p, s.g, s.m, s.v, step=3, betas=(0.9,)), ValueError, "nadam_step_: betas"),
    "nadam's betas are text": (
        lambda s: optim.nadam_step_(s.p, s.g, s.m, s.v, step=3, betas="ab"),
        TypeError,
        "nadam_step_: betas[0] str",
    ),
    "nadam at step 0": (lambda s: optim.nadam_step_(s.p, s.g, s.m, s.v, step=0), ValueError, "nadam_step_: step 0"),
    "nadam with a step of text": (lambda s: optim.nadam_step_(s.p, s.g, s.m, s.v, step="2"), TypeError, "nadam_step_: step str"),
    "eta is text": (lambda s: optim.asgd_step_(s.p, s.g, s.m, eta="1"), TypeError, "asgd_step_: eta str"),
    "asgd with lr of text": (lambda s: optim.asgd_step_(s.p, s.g, s.m, lr="1"), TypeError, "asgd_step_: lr str"),
    "asgd with t0 of None": (lambda s: optim.asgd_step_(s.p, s.g, s.m, t0=None), TypeError, "asgd_step_: t0 NoneType"),
    "asgd with a step of text": (lambda s: optim.asgd_step_(s.p, s.g, s.m, step="2"), TypeError, "asgd_step_: step str"),
    "lr is a schedule": (lambda s: sgd(s, lr=lambda t: 0.1), TypeError, "sgd_step_: lr function"),
    "nesterov alone": (lambda s: sgd(s, nesterov=True), ValueError, "sgd_step_: nesterov momentum"),
    "nesterov with dampening": (lambda s: sgd(s, nesterov=True, momentum=0.9, dampening=0.5), ValueError, "nesterov dampening"),
    "lr_in_velocity, nesterov": (lambda s: sgd(s, lr_in_velocity=True, nesterov=True, momentum=0.9), ValueError, "lr_in_velocity"),
    "lr_in_velocity, dampening": (lambda s: sgd(s, lr_in_velocity=True, dampening=0.1), ValueError, "lr_in_velocity dampening"),
    "lr negative": (lambda s: sgd(s, lr=-0.1), ValueError, "sgd_step_: lr -0.1"),
    "lr NaN": (lambda s: adam(s, lr=np.nan), ValueError, "adam_step_: lr nan"),
    "lr infinite": (lambda s: adam(s, lr=np.inf), ValueError, "adam_step_: lr inf"),
    "lr is a string": (lambda s: sgd(s, lr="0.1"), TypeError, "sgd_step_: lr str"),
    "lr is None": (lambda s: adam(s, lr=None), TypeError, "adam_step_: lr NoneType"),
    "momentum negative": (lambda s: sgd(s, momentum=-0.1), ValueError, "sgd_step_: momentum -0.1"),
    "weight_decay negative": (lambda s: sgd(s, weight_decay=-1), ValueError, "sgd_step_: weight_decay -1"),
    "l1 negative": (lambda s: adam(s, l1=-1), ValueError, "adam_step_: l1 -1"),
    "eps negative": (lambda s: adam(s, eps=-1), ValueError, "adam_step_: eps -1"),
    "step 0": (lambda s: sgd(s, step=0), ValueError, "sgd_step_: step 0"),
    "step negative": (lambda s: adam(s, step=-3), ValueError, "adam_step_: step -3"),
    "step is a string": (lambda s: adam(s, step="1"), TypeError, "adam_step_: step str"),
    "beta1 of 1": (lambda s: adam(s, betas=(1.0, 0.9)), ValueError, "adam_step_: betas[0] 1"),
    "beta2 above 1": (lambda s: adam(s, betas=(0.9, 1.5)), ValueError, "adam_step_: betas[1] 1.5"),
    "beta1 negative": (lambda s: adam(s, betas=(-0.1, 0.9)), ValueError, "adam_step_: betas[0] -0.1"),
    "one beta": (lambda s: adam(s, betas=(0.9,)), ValueError, "adam_step_: betas"),
    "betas are a number": (lambda s: adam(s, betas=0.9), ValueError, "adam_step_: betas"),
    "unknown option": (lambda s: sgd(s, nestrov=True), TypeError, "nestrov"),
    "w is masked": (lambda s: optim.sgd_step_(masked(6), s.g), TypeError, "sgd_step_: w MaskedArray"),
    "w on a GPU": (lambda s: optim.sgd_step_(ElsewhereTensor(), s.g), TypeError, "sgd_step_: w cuda:0"),
    "w of the other byte order": (lambda s: optim.sgd_step_(np.zeros(6, ">f4"), s.g), TypeError, "sgd_step_: w >f4"),
    "w of complex": (lambda s: optim.sgd_step_(np.zeros(6, complex), s.g), TypeError, "sgd_step_: w complex128"),
    "w reversed": (lambda s: optim.sgd_step_(s.p[::-1], s.g), ValueError, "sgd_step_: w C-contiguous"),
    "w broadcast": (lambda s: optim.sgd_step_(np.broadcast_to(np.float32(1), 6), s.g), ValueError, "sgd_step_: w read-only"),
    "step past int64": (lambda s: sgd(s, step=2**70), ValueError, "sgd_step_: step 1180591620717411303424"),
    "step is a bool": (lambda s: sgd(s, step=True), TypeError, "sgd_step_: step bool"),
    "step is a float": (lambda s: adam(s, step=1.0), TypeError, "adam_step_: step float"),
    "lr is a bool": (lambda s: sgd(s, lr=True), TypeError, "sgd_step_: lr bool number"),
    "lr past float64": (lambda s: sgd(s, lr=10**400), ValueError, "sgd_step_: lr too large"),
    "lr is complex": (lambda s: adam(s, lr=1j), TypeError, "adam_step_: lr complex"),
    "lr is an array": (lambda s: adam(s, lr=s.p), TypeError, "adam_step_: lr ndarray"),
    "momentum is an array": (lambda s: sgd(s, momentum=s.p), TypeError, "sgd_step_: momentum ndarray"),
    "momentum infinite": (lambda s: sgd(s, momentum=np.inf), ValueError, "sgd_step_: momentum inf"),
    "dampening NaN": (lambda s: sgd(s, momentum=0.5, dampening=np.nan), ValueError, "sgd_step_: dampening nan"),
    "eps NaN": (lambda s: adam(s, eps=np.nan), ValueError, "adam_step_: eps nan"),
    "beta NaN": (lambda s: adam(s, betas=(0.9, np.nan)), ValueError, "adam_step_: betas[1] nan"),
    "betas are text": (lambda s: adam(s, betas="ab"), TypeError, "adam_step_: betas[0] str"),
    "eta above 1": (lambda s: optim.Rprop([s.p], etas=(1.2, 1.3)), ValueError, "Rprop: etas[0] 1.2"),
    "smallest step size negative": (lambda s: optim.Rprop([s.p], step_sizes=(-1.0, 1.0)), ValueError, "Rprop: step_sizes[0] -1"),
    "betas are bools": (lambda s: adam(s, betas=(False, False)), TypeError, "adam_step_: betas[0] bool"),
    "a switch of 2": (lambda s: adam(s, maximize=2), ValueError, "adam_step_: maximize 2 bool"),
    "a switch of NaN": (lambda s: adam(s, bias_correction=np.nan), ValueError, "adam_step_: bias_correction nan bool"),
    "a switch of text": (lambda s: adam(s, eps_inside_sqrt="no"), TypeError, "adam_step_: eps_inside_sqrt str bool"),
    "a switch of None": (lambda s: sgd(s, nesterov=None), TypeError, "sgd_step_: nesterov NoneType bool"),
}

CLASSES: Table = {
    "lr negative": (lambda s: optim.SGD(lr=-1), ValueError, "SGD: lr -1"),
    "lr is a string": (lambda s: optim.Adam(lr="1"), TypeError, "Adam: lr str"),
    "beta out of range": (lambda s: optim.Adam(betas=(0.9, 1.0)), ValueError, "Adam: betas[1] 1"),
    "alpha out of range": (lambda s: optim.RMSprop(alpha=1.5), ValueError, "RMSprop: alpha 1.5 0 < 1"),
    "betas are one number": (lambda s: optim.Adam(betas=0.9), ValueError, "Adam: betas 0.9"),
    "beta is None": (lambda s: optim.AdamW(betas=(0.9, None)), TypeError, "AdamW: betas NoneType"),
    "nesterov alone": (lambda s: optim.SGD(nesterov=True), ValueError, "SGD: nesterov momentum"),
    "lr_in_velocity, dampening": (lambda s: optim.SGD(lr_in_velocity=True, dampening=0.5), ValueError, "SGD: lr_in_velocity"),
    "unknown option": (lambda s: optim.Adam(foreach=True), TypeError, "foreach"),
    "option of another rule": (lambda s: optim.Rprop(weight_decay=0.1), TypeError, "weight_decay"),
    "low bits of a rule without": (lambda s: optim.ASGD(state_dtype="bfloat16"), TypeError, "state_dtype"),
    "8 bits of a rule without": (lambda s: optim.NAdam(state_dtype="8bit"), ValueError, "NAdam: state_dtype '8bit' 'bfloat16'"),
    "unknown state_dtype": (lambda s: optim.Adam(state_dtype="float16"), ValueError, "Adam: state_dtype 'float16' None '8bit'"),
    "state_dtype is a number": (lambda s: optim.Adam(state_dtype=8), ValueError, "Adam: state_dtype 8"),
    "seed is a string": (lambda s: optim.Adam(seed="1"), TypeError, "Adam: seed str int"),
    "seed is None": (lambda s: optim.Lion(seed=None), TypeError, "Lion: seed NoneType int"),
    "params is one array": (lambda s: optim.SGD(s.p), TypeError, "SGD: params list"),
    "params is empty": (lambda s: optim.SGD([]), ValueError, "SGD: params empty"),
    "params is a number": (lambda s: optim.SGD(3), TypeError, "SGD: params int"),
    "param is a string": (lambda s: optim.SGD(["w"]), TypeError, "SGD: params[0] str"),
    "param is None": (lambda s: optim.SGD([s.p, None]), TypeError, "SGD: params[1] NoneType"),
    "param is a list": (lambda s: optim.SGD([[1.0, 2.0]]), TypeError, "SGD: params[0] list"),
    "param of ints": (lambda s: optim.Adam([s.labels]), TypeError, "Adam: params[0] int64"),
    "bfloat16 states of float64": (lambda s: optim.Adam([s.p, s.p64], state_dtype="bfloat16"), ValueError, "params[1] float64"),
    "param read-only": (lambda s: optim.SGD([s.p, s.frozen]), ValueError, "SGD: params[1] read-only"),
    "param strided": (lambda s: optim.SGD([s.w.T]), ValueError, "SGD: params[0] C-contiguous"),
    "param twice": (lambda s: optim.SGD([s.p, s.w, s.p]), ValueError, "SGD: params[2] memory params[0]"),
    "params overlap": (lambda s: optim.SGD([s.p[:4], s.p[3:]]), ValueError, "SGD: params[1] memory params[0]"),
    "params overlap over groups": (lambda s: optim.SGD([{"params": [s.p]}, {"params": [s.p[2:3]]}]), ValueError, "SGD: params[1]"),
    "group without params": (lambda s: optim.SGD([{"lr": 0.1}]), ValueError, "SGD: params[0] params"),
    "group with an unknown option": (lambda s: optim.SGD([{"params": [s.p], "beta": 1}]), ValueError, "SGD: params[0] beta"),
    "group with a bad value": (lambda s: optim.SGD([{"params": [s.p], "lr": -1}]), ValueError, "SGD: lr -1"),
    "group added without params": (lambda s: s.sgd.add_param_group({"lr": 0.1}), ValueError, "SGD: group params"),
    "group added with an unknown option": (
        lambda s: s.sgd.add_param_group({"params": [s.w], "beta": 1}),
        ValueError,
        "SGD: group beta",
    ),
    "group added with a bad value": (lambda s: s.sgd.add_param_group({"params": [s.w], "lr": -1}), ValueError, "SGD: lr -1"),
    "group added that overlaps": (
        lambda s: s.sgd.add_param_group({"params": [s.w, s.p[2:]]}),
        ValueError,
        "SGD: params[3] params[0]",
    ),
    "group added is a list": (lambda s: s.sgd.add_param_group([s.w]), TypeError, "SGD: group list dict"),
    "group added to a trainer's": (
        lambda s: s.trainer.optimizer.add_param_group({"params": [s.w]}),
        RuntimeError,
        "Adam: Trainer group",
    ),
    "schedule that gives text": (lambda s: setattr(s.sgd, "lr", lambda t: "a"), TypeError, "SGD: lr str"),
    "schedule that gives None": (lambda s: optim.Adam([s.w], lr=lambda t: None), TypeError, "Adam: lr NoneType"),
    "schedule that turns negative": (lambda s: scheduled(s, lambda t: 0.1 - t), ValueError, "SGD: lr -0.9"),
    "schedule of another option": (lambda s: optim.SGD(momentum=lambda t: 0.9), TypeError, "SGD: momentum function"),
    "fit with a schedule that turns negative": (lambda s: fit_with_schedule(s), ValueError, "SGD: lr -0.125 2"),
    "grad_scale is text": (lambda s: s.sgd.step([s.g, s.db], grad_scale="1"), TypeError, "step: grad_scale str"),
    "grad_scale NaN": (lambda s: s.sgd.step([s.g, s.db], grad_scale=np.nan), ValueError, "step: grad_scale nan"),
    "grad_scale infinite": (lambda s: s.sgd.step([s.g, s.db], grad_scale=np.inf), ValueError, "step: grad_scale inf"),
    "grad_scale is None": (lambda s: s.sgd.step([s.g, s.db], grad_scale=None), TypeError, "step: grad_scale NoneType"),
    "clip_norm negative": (lambda s: s.sgd.step([s.g, s.db], clip_norm=-1), ValueError, "step: clip_norm -1"),
    "clip_norm NaN": (lambda s: s.sgd.step([s.g, s.db], clip_norm=np.nan), ValueError, "step: clip_norm nan"),
    "clip_norm is text": (lambda s: s.sgd.step([s.g, s.db], clip_norm="1"), TypeError, "step: clip_norm str"),
    "clip_value negative": (lambda s: s.sgd.step([s.g, s.db], clip_value=-1), ValueError, "step: clip_value -1"),
    "clip_value NaN": (lambda s: s.sgd.step([s.g, s.db], clip_value=np.nan), ValueError, "step: clip_value nan"),
    "clip_value is an array": (lambda s: s.sgd.step([s.g, s.db], clip_value=s.p), TypeError, "step: clip_value ndarray"),
    "zero_grads is text": (lambda s: s.sgd.step([s.g, s.db], zero_grads="no"), TypeError, "step: zero_grads str bool"),
    "zero_grads of a read-only grad": (
        lambda s: s.sgd.step([s.frozen6, s.db], zero_grads=True),
        ValueError,
        "step: grads[0] read-only",
    ),
    "zero_grads is None": (lambda s: s.sgd.step([s.g, s.db], zero_grads=None), TypeError, "step: zero_grads NoneType bool"),
    "skip_nonfinite of 2": (lambda s: s.sgd.step([s.g, s.db], skip_nonfinite=2), ValueError, "step: skip_nonfinite 2 bool"),
    "skip_nonfinite is text": (lambda s: s.sgd.step([s.g, s.db], skip_nonfinite="no"), TypeError, "step: skip_nonfinite str bool"),
    "clip_norm 0": (lambda s: s.sgd.step([s.g, s.db], clip_norm=0), ValueError, "step: clip_norm 0"),
    "both ways to clip": (lambda s: s.sgd.step([s.g, s.db], clip_norm=1, clip_value=1), ValueError, "step: clip_norm clip_value"),
    "unknown word": (lambda s: s.sgd.step([s.g, s.db], clip=1.0), TypeError, "clip"),
    "options by position": (lambda s: s.sgd.step([s.g, s.db], 0.5), TypeError, "positional"),
    "groups and arrays": (lambda s: optim.SGD([{"params": [s.p]}, s.w]), TypeError, "SGD: params"),
    "step without params": (lambda s: optim.SGD().step([s.g]), RuntimeError, "SGD: parameters"),
    "too few grads": (lambda s: s.sgd.step([s.g]), ValueError, "grads 1 2"),
    "too many grads": (lambda s: s.sgd.step([s.g, s.db, s.g]), ValueError, "grads 3 2"),
    "grads are None": (lambda s: s.sgd.step(None), TypeError, "grads"),
    "grad of wrong shape": (lambda s: s.sgd.step([s.g, s.g]), ValueError, "grads[1] (6,) (5,)"),
    "grad of ints": (lambda s: s.sgd.step([s.labels[:3].repeat(2), s.db]), TypeError, "grads[0] int64"),
    "grad of complex": (lambda s: s.sgd.step([s.g, s.db.astype(complex)]), TypeError, "grads[1] complex128"),
    "grad is text": (lambda s: s.sgd.step([s.g, "g"]), TypeError, "grads[1] str"),
    "grad is its param": (lambda s: s.sgd.step([s.p, s.db]), ValueError, "grads[0] memory params[0]"),
    "grad is another param": (lambda s: s.sgd.step([s.g, s.p[:5]]), ValueError, "grads[1] memory params[0]"),
    "lr set negative": (lambda s: setattr(s.sgd, "lr", -1), ValueError, "SGD: lr -1"),
    "lr set to a string": (lambda s: setattr(s.sgd, "lr", "a"), TypeError, "SGD: lr str"),
    "unknown option set": (lambda s: s.sgd.param_groups[0].__setitem__("beta", 1), ValueError, "SGD: beta momentum"),
    "nesterov set with dampening": (
        lambda s: s.sgd.param_groups[0].update(dampening=0.5, nesterov=True),
        ValueError,
        "SGD: nesterov dampening",
    ),
}


def option_rows() -> Table:
    """For every class, each number of its options out of range, and none of the right type."""
    rows: Table = {}
    for name in optim.__all__:
        cls = getattr(optim, name)
        if not isinstance(cls, type) or cls is optim.Optimizer:
            continue
        for option, value in cls().defaults.items():
            if option == "decoupled_weight_decay" and cls is optim.AdamW:
                continue
            me = f"{name}: {option}"
            if isinstance(value, bool):
                rows[f"{me} is text"] = (lambda s, c=cls, o=option: c(**{o: "yes"}), TypeError, f"{me} str bool")
            elif isinstance(value, tuple):
                rows[f"{me} is a number"] = (lambda s, c=cls, o=option: c(**{o: 0.5}), ValueError, f"{me} 0.5 two numbers")
                rows[f"{me} are three"] = (lambda s, c=cls, o=option: c(**{o: (0.5, 0.5, 0.5)}), ValueError, f"{me} two numbers")
                rows[f"{me} with a text"] = (lambda s, c=cls, o=option: c(**{o: (0.5, "a")}), TypeError, f"{me}[1] str")
            else:
                rows[f"{me} is text"] = (lambda s, c=cls, o=option: c(**{o: "1"}), TypeError, f"{me} str")
                rows[f"{me} NaN"] = (lambda s, c=cls, o=option: c(**{o: np.nan}), ValueError, f"{me} nan")
                rows[f"{me} infinite"] = (lambda s, c=cls, o=option: c(**{o: np.inf}), ValueError, f"{me} inf")
                if option != "dampening":
                    rows[f"{me} negative"] = (lambda s, c=cls, o=option: c(**{o: -0.5}), ValueError, f"{me} -0.5")
    return rows


def scheduled(s: Setting, schedule: Callable[[int], float]) -> None:
    optimizer = optim.SGD([s.p], lr=schedule)
    kept = s.p.copy()
    optimizer.step([np.zeros(6, np.float32)])
    np.testing.assert_array_equal(s.p, kept)
    optimizer.step([s.g])


def fit_with_schedule(s: Setting) -> None:
    trainer = ts.Trainer(s.standardized, optimizer=optim.SGD(lr=lambda t: 0.125 - 0.125 * t))
    trainer.fit(s.x, s.labels % 2, batch_size=1)


def load(change: Callable[[dict[str, Any]], object]) -> Call:
    """A call that loads the optimizer's own state_dict, with a change."""

    def call(s: Setting) -> None:
        state_dict = s.sgd.state_dict()
        change(state_dict)
        s.sgd.load_state_dict(state_dict)

    return call


def load_adam(change: Callable[[dict[str, Any]], object]) -> Call:
    """The same of the trainer's optimizer."""

    def call(s: Setting) -> None:
        state_dict = s.trainer.optimizer.state_dict()
        change(state_dict)
        s.trainer.optimizer.load_state_dict(state_dict)

    return call


def load_entry(**changed: Any) -> Call:
    return load(lambda d: d["state"][1].update(changed))


STATE_DICTS: Table = {
    "state of another optimizer": (lambda s: s.sgd.load_state_dict(optim.SGD([s.w]).state_dict()), ValueError, "SGD: state_dict"),
    "state_dict is empty": (lambda s: s.sgd.load_state_dict({}), ValueError, "SGD: state_dict"),
    "state_dict is None": (lambda s: s.sgd.load_state_dict(None), TypeError, "SGD: state_dict"),
    "without a step": (load_adam(lambda d: d["state"][1].pop("step")), ValueError, "Adam: state_dict no step parameter 1"),
    "state of another shape": (load_entry(momentum_buffer=of((4,))), ValueError, "SGD: state_dict momentum_buffer (4,) (5,)"),
    "param is masked": (lambda s: optim.SGD([masked(3)]), TypeError, "SGD: params[0] MaskedArray"),
    "param on a GPU": (lambda s: optim.SGD([ElsewhereTensor()]), TypeError, "SGD: params[0] cuda:0"),
    "param lies": (lambda s: optim.SGD([s.p, Liar()]), TypeError, "SGD: params[1] DLPack"),
    "param is broken": (lambda s: optim.SGD([Broken()]), TypeError, "SGD: params[0] Broken"),
    "param of the other byte order": (lambda s: optim.SGD([np.ones(3, ">f4")]), TypeError, "SGD: params[0] >f4"),
    "params is a dict of text": (lambda s: optim.SGD({"w": "p"}), TypeError, "SGD: params[0] str"),
    "params is an empty dict": (lambda s: optim.SGD({}), ValueError, "SGD: params empty"),
    "params of a group is an array": (lambda s: optim.SGD([{"params": s.w}]), TypeError, "SGD: params[0]['params'] array"),
    "params of a group is None": (lambda s: optim.SGD([{"params": None}]), TypeError, "SGD: params[0]['params'] NoneType"),
    "params of a group is a string": (lambda s: optim.SGD([{"params": "w"}]), TypeError, "SGD: params[0]['params'] str"),
    "groups are empty": (lambda s: optim.SGD([{"params": []}]), ValueError, "SGD: params empty"),
    "group with a number for a name": (lambda s: optim.SGD([{"params": [s.p], 3: 1}]), ValueError, "SGD: params[0] 3"),
    "arrays and a group": (lambda s: optim.SGD([s.p, {"params": [s.w]}]), TypeError, "SGD: params[1] dict"),
    "a switch of 2": (lambda s: optim.SGD(maximize=2), ValueError, "SGD: maximize 2 bool"),
    "lr is a bool": (lambda s: optim.Adam(lr=True), TypeError, "Adam: lr bool"),
    "lr set to NaN": (lambda s: setattr(s.sgd, "lr", np.nan), ValueError, "SGD: lr nan"),
    "options set in a dict of many": (
        lambda s: s.sgd.param_groups[0].update(lr=0.5, momentum=-1),
        ValueError,
        "SGD: momentum -1",
    ),
    "option removed": (lambda s: s.sgd.param_groups[0].pop("lr"), TypeError, "removed"),
    "grads are a dict": (lambda s: s.sgd.step({0: s.g, 1: s.db}), TypeError, "grads dict"),
    "grads are a generator": (lambda s: s.sgd.step(g for g in (s.g, s.db)), TypeError, "grads generator"),
    "grads are one array": (lambda s: s.sgd.step(s.g), TypeError, "grads ndarray"),
    "grad is masked": (lambda s: s.sgd.step([s.g, masked(5)]), TypeError, "grads[1] MaskedArray"),
    "grads of a trainer's optimizer": (lambda s: s.trainer.optimizer.step([s.g]), ValueError, "grads 1 4"),
    "without params": (lambda s: optim.Adam().load_state_dict({}), RuntimeError, "Adam: parameters"),
    "without groups": (load(lambda d: d.pop("param_groups")), ValueError, "SGD: state_dict param_groups"),
    "without states": (load(lambda d: d.pop("state")), ValueError, "SGD: state_dict state"),
    "groups are None": (load(lambda d: d.update(param_groups=None)), TypeError, "SGD: state_dict['param_groups'] list"),
    "groups are a dict": (load(lambda d: d.update(param_groups={"lr": 1})), TypeError, "SGD: state_dict['param_groups'] list"),
    "groups are numbers": (load(lambda d: d.update(param_groups=[3])), TypeError, "SGD: state_dict['param_groups'] dicts"),
    "too many groups": (load(lambda d: d["param_groups"].append({})), ValueError, "SGD: state_dict 2 groups 1"),
    "group without params": (load(lambda d: d["param_groups"][0].pop("params")), ValueError, "SGD: state_dict group params"),
    "params are None": (load(lambda d: d["param_groups"][0].update(params=None)), ValueError, "SGD: state_dict params None"),
    "too few params": (load(lambda d: d["param_groups"][0].update(params=[0])), ValueError, "SGD: state_dict params [0] 2"),
    "lr negative": (load(lambda d: d["param_groups"][0].update(lr=-1)), ValueError, "SGD: lr -1"),
    "lr is a string": (load(lambda d: d["param_groups"][0].update(lr="a")), TypeError, "SGD: lr str"),
    "options that do not go together": (
        load(lambda d: d["param_groups"][0].update(nesterov=True, dampening=0.5)),
        ValueError,
        "SGD: nesterov dampening",
    ),
    "states are None": (load(lambda d: d.update(state=None)), TypeError, "SGD: state_dict['state'] dict"),
    "states are a list": (load(lambda d: d.update(state=[{}, {}])), TypeError, "SGD: state_dict['state'] dict"),
    "an entry is None": (load(lambda d: d["state"].update({1: None})), TypeError, "SGD: state_dict['state'] dicts"),
    "names for numbers": (
        load(lambda d: d.update(state={str(k): v for k, v in d["state"].items()})),
        ValueError,
        "SGD: state_dict states ['0', '1'] [0, 1]",
    ),
    "a state of no parameter": (load(lambda d: d["state"].update({2: {}})), ValueError, "SGD: state_dict states [0, 1, 2] [0, 1]"),
    "an index twice": (load(lambda d: d["param_groups"][0].update(params=[1, 1])), ValueError, "SGD: state_dict states [1, 1]"),
    "indices that are none": (
        load(lambda d: d["param_groups"][0].update(params=[[0], 1])),
        ValueError,
        "params [[0], 1] 2 indices",
    ),
    "step negative": (load_entry(step=-1), ValueError, "SGD: state_dict step -1 parameter 1"),
    "step is no whole number": (load_entry(step=1.5), ValueError, "SGD: state_dict step 1.5"),
    "step NaN": (load_entry(step=np.nan), ValueError, "SGD: state_dict step nan"),
    "step infinite": (load_entry(step=np.inf), ValueError, "SGD: state_dict step inf"),
    "step past int64": (load_entry(step=2**70), ValueError, "SGD: state_dict step 1180591620717411303424"),
    "step is a string": (load_entry(step="a"), ValueError, "SGD: state_dict step 'a'"),
    "step is None": (load_entry(step=None), ValueError, "SGD: state_dict step None"),
    "without a state": (
        load(lambda d: d["state"][1].pop("momentum_buffer")),
        ValueError,
        "no momentum_buffer parameter 1",
    ),
    "unknown state": (load_entry(exp_avg=of((5,))), ValueError, "SGD: state_dict unknown exp_avg parameter 1"),
    "state is None": (load_entry(momentum_buffer=None), TypeError, "state_dict momentum_buffer object"),
    "state of strings": (load_entry(momentum_buffer=["a"] * 5), TypeError, "state_dict momentum_buffer <U1"),
    "state of complex": (load_entry(momentum_buffer=np.ones(5) * 1j), TypeError, "state_dict momentum_buffer complex128"),
    "state too large for float32": (load_entry(momentum_buffer=np.full(5, 1e300)), ValueError, "momentum_buffer too large float32"),
    "state that would broadcast": (load_entry(momentum_buffer=np.ones(1)), ValueError, "momentum_buffer (1,) (5,)"),
    "of another kind": (
        lambda s: optim.Adam([s.p, s.b]).load_state_dict(s.sgd.state_dict()),
        ValueError,
        "Adam: state_dict unknown momentum_buffer",
    ),
}


@table(BARE)
def test_bare_steps(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(STATE_DICTS)
def test_state_dicts(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(CLASSES | option_rows())
def test_optimizers(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


def test_a_refused_option_leaves_no_trace_in_the_next_step() -> None:
    def run(meddle: Callable[[optim.Optimizer], None] | None) -> Array:
        w = of((40,))
        optimizer = optim.Adam([w], lr=0.1, betas=(0.8, 0.9))
        optimizer.step([w / 2])
        if meddle:
            with pytest.raises((ValueError, TypeError)):
                meddle(optimizer)
        optimizer.step([w / 3])
        return w

    expected = run(None)
    group = "param_groups"
    for meddle in (
        lambda o: getattr(o, group)[0].__setitem__("betas", (0.1, 2.0)),
        lambda o: getattr(o, group)[0].__setitem__("betas", (0.1, "x")),
        lambda o: getattr(o, group)[0].__setitem__("eps", -1.0),
        lambda o: setattr(o, "lr", np.nan),
        lambda o: o.load_state_dict({**o.state_dict(), "param_groups": [{**o.state_dict()[group][0], "lr": 0.7, "eps": -1}]}),
    ):
        np.testing.assert_array_equal(run(meddle), expected)


# --- init --------------------------------------------------------------------------------------------------------------------

INIT: Table = {
    "rank 1": (lambda s: init.he_normal((3,), rng=0), ValueError, "shape (3,) (fan_in, fan_out)"),
    "rank 3": (lambda s: init.xavier_uniform((3, 4, 5), rng=0), ValueError, "shape (3, 4, 5)"),
    "shape is None": (lambda s: init.he_normal(None, rng=0), TypeError, "shape"),
    "no inputs": (lambda s: init.he_normal((0, 5), rng=0), ValueError, "shape (0, 5)"),
    "nothing": (lambda s: init.xavier_normal((0, 0), rng=0), ValueError, "shape (0, 0)"),
    "negative": (lambda s: init.he_uniform((-3, 5), rng=0), ValueError, "shape (-3, 5)"),
    "dtype int": (lambda s: init.zeros((3,), dtype=int), TypeError, "dtype int64 float32"),
    "dtype half": (lambda s: init.he_normal((3, 4), rng=0, dtype="float16"), TypeError, "dtype float16"),
    "rng is None": (lambda s: init.he_normal((3, 4), rng=None), TypeError, "rng NoneType"),
    "rng is a string": (lambda s: init.he_normal((3, 4), rng="0"), TypeError, "rng str"),
    "rng is a float": (lambda s: init.he_normal((3, 4), rng=1.5), TypeError, "rng float"),
    "extent is a float": (lambda s: init.he_normal((3.0, 4), rng=0), TypeError, "shape[0] float"),
    "extent is a bool": (lambda s: init.he_normal((3, True), rng=0), TypeError, "shape[1] bool"),
    "extent is a string": (lambda s: init.he_normal(("3", 4), rng=0), TypeError, "shape[0] str"),
    "extent is None": (lambda s: init.he_normal((None, 4), rng=0), TypeError, "shape[0] NoneType"),
    "shape is an int": (lambda s: init.he_normal(3, rng=0), TypeError, "shape int (fan_in, fan_out)"),
    "more than the memory": (lambda s: init.he_normal((2**20, 2**24), rng=0), MemoryError, "TiB"),
    "zeros of a negative extent": (lambda s: init.zeros((-1,)), ValueError, "shape (-1,) at least 0"),
    "zeros of text": (lambda s: init.zeros("ab"), TypeError, "shape str"),
    "zeros of None": (lambda s: init.zeros(None), TypeError, "shape NoneType"),
    "zeros of halves of a row": (lambda s: init.zeros((1.5,)), TypeError, "shape[0] float"),
    "dtype None": (lambda s: init.zeros((3,), dtype=None), TypeError, "dtype None float32"),
    "dtype unknown": (lambda s: init.he_normal((3, 4), rng=0, dtype="float23"), TypeError, "dtype 'float23' float32"),
    "dtype of the other byte order": (lambda s: init.he_normal((3, 4), rng=0, dtype=">f4"), TypeError, "dtype >f4 float32"),
    "rng is a bool": (lambda s: init.he_normal((3, 4), rng=True), TypeError, "rng bool Generator"),
    "rng of old": (lambda s: init.he_normal((3, 4), rng=np.random.RandomState(0)), TypeError, "rng RandomState Generator"),
    "no rng": (lambda s: init.he_normal((3, 4)), TypeError, "rng"),
    "weights of no shape": (lambda s: init.he_normal(rng=0), TypeError, "he_normal() shape"),
    "a parameter that is none": (lambda s: init.he_normal(std=1), TypeError, "he_normal() std"),
    "a parameter that is none, and a shape": (lambda s: init.he_normal((3, 4), rng=0, std=1), TypeError, "std"),
    "a parameter by place": (lambda s: init.orthogonal(2.0), TypeError, "shape float (fan_in, fan_out)"),
    "no rng, with parameters": (lambda s: init.normal()((3, 4)), TypeError, "rng NoneType"),
    "std 0": (lambda s: init.normal(std=0), ValueError, "normal: std 0 above 0"),
    "std negative": (lambda s: init.normal(-0.1), ValueError, "normal: std -0.1 above 0"),
    "std NaN": (lambda s: init.normal(np.nan), ValueError, "normal: std nan finite"),
    "std infinite": (lambda s: init.normal(np.float32(np.inf)), ValueError, "normal: std inf finite"),
    "std past a float": (lambda s: init.normal(10**400), ValueError, "normal: std finite"),
    "std is text": (lambda s: init.normal("0.1"), TypeError, "normal: std str number"),
    "std is a bool": (lambda s: init.normal(True), TypeError, "normal: std bool number"),
    "std is None": (lambda s: init.normal(None), TypeError, "normal: std NoneType"),
    "std is complex": (lambda s: init.normal(1j), TypeError, "normal: std complex"),
    "std past float32": (lambda s: init.normal(1e39)((3, 4), rng=0), ValueError, "normal: dtype float32 hold"),
    "std, with a shape": (lambda s: init.normal((3, 4), rng=0, std=-1), ValueError, "normal: std -1"),
    "constant of nothing": (lambda s: init.constant(), TypeError, "constant() 'c'"),
    "constant of infinity": (lambda s: init.constant(np.inf), ValueError, "constant: c inf finite"),
    "constant of text": (lambda s: init.constant("1"), TypeError, "constant: c str"),
    "constant past float32": (lambda s: init.constant(1e39)((3,)), ValueError, "constant: dtype float32 hold"),
    "constant of half a shape": (lambda s: init.constant(1)((1.5,)), TypeError, "shape[0] float"),
    "constant of a scalar's shape": (lambda s: init.constant(1)(3), TypeError, "shape int"),
    "uniform of nothing": (lambda s: init.uniform(), TypeError, "uniform() 'low' 'high'"),
    "uniform of one bound": (lambda s: init.uniform(1), TypeError, "uniform() 'high'"),
    "uniform the wrong way round": (lambda s: init.uniform(1, -1), ValueError, "uniform: low 1 high -1 low < high"),
    "uniform without room": (lambda s: init.uniform(1, 1), ValueError, "uniform: low 1 high 1 low < high"),
    "uniform of NaN": (lambda s: init.uniform(np.nan, 1), ValueError, "uniform: low nan"),
    "uniform to infinity": (lambda s: init.uniform(0, np.inf), ValueError, "uniform: high inf"),
    "uniform past float32": (lambda s: init.uniform(0, 1e300)((3,), rng=0), ValueError, "uniform: dtype float32 hold"),
    "uniform past float64": (lambda s: init.uniform(-1e308, 1e308)((3,), rng=0, dtype=float), ValueError, "uniform: dtype float64"),
    "bounds in the tail": (lambda s: init.truncated_normal(1, 3, 4), ValueError, "truncated_normal: low 3 high 4 0.01 0.0013"),
    "bounds next to each other": (lambda s: init.truncated_normal(1, 0, 0.01), ValueError, "truncated_normal: low high 0.01"),
    "bounds the wrong way round": (lambda s: init.truncated_normal(1, 2, -2), ValueError, "truncated_normal: low 2 high -2"),
    "bound infinite": (lambda s: init.truncated_normal(1, -2, np.inf), ValueError, "truncated_normal: high inf"),
    "truncated std 0": (lambda s: init.truncated_normal(0), ValueError, "truncated_normal: std 0"),
    "corrected is a number": (lambda s: init.truncated_normal(corrected=1), TypeError, "truncated_normal: corrected int bool"),
    "sparsity 1": (lambda s: init.sparse(1), ValueError, "sparse: sparsity 1 below 1"),
    "sparsity negative": (lambda s: init.sparse(-0.1), ValueError, "sparse: sparsity -0.1"),
    "sparsity NaN": (lambda s: init.sparse(np.nan), ValueError, "sparse: sparsity nan"),
    "sparse std 0": (lambda s: init.sparse(0.5, 0), ValueError, "sparse: std 0"),
    "gain 0": (lambda s: init.orthogonal(gain=0), ValueError, "orthogonal: gain 0 above 0"),
    "gain negative": (lambda s: init.he_normal(gain=-1), ValueError, "he_normal: gain -1 above 0"),
    "gain by name": (lambda s: init.xavier_uniform(gain="tanh"), TypeError, "xavier_uniform: gain str"),
    "gain of no identity": (lambda s: init.identity(gain=np.inf), ValueError, "identity: gain inf"),
    "orthogonal of rank 3": (lambda s: init.orthogonal((3, 3, 3), rng=0), ValueError, "shape (3, 3, 3)"),
    "identity of nothing": (lambda s: init.identity((0, 0)), ValueError, "shape (0, 0)"),
    "gain of an unknown activation": (lambda s: init.gain("rellu"), ValueError, "gain: activation 'rellu' leaky_relu"),
    "gain of a list": (lambda s: init.gain(["relu"]), ValueError, "gain: activation ['relu']"),
    "gain of a slope NaN": (lambda s: init.gain("leaky_relu", np.nan), ValueError, "gain: negative_slope nan"),
    "gain of a slope in text": (lambda s: init.gain("leaky_relu", "0"), TypeError, "gain: negative_slope str"),
    "for an unknown activation": (lambda s: init.for_activation("rellu"), ValueError, "for_activation: activation 'rellu' relu"),
    "for a list of activations": (lambda s: init.for_activation(["relu"]), ValueError, "for_activation: activation ['relu']"),
}


@table(INIT)
def test_init(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


# --- nn ------------------------------------------------------------------------------------------------------------------------


def made_by(value: Any) -> nn.Sequential:
    return nn.Sequential(nn.Dense(3, 4, init=lambda shape, **_: np.full(shape, value)))


NN: Table = {
    "no inputs": (lambda s: nn.Dense(0, 5), ValueError, "Dense: in_features 0"),
    "no outputs": (lambda s: nn.Dense(5, 0), ValueError, "Dense: out_features 0"),
    "negative width": (lambda s: nn.Dense(-1, 5), ValueError, "Dense: in_features -1"),
    "width is a float": (lambda s: nn.Dense(5.0, 5), TypeError, "Dense: in_features float"),
    "width is a string": (lambda s: nn.Dense(5, "5"), TypeError, "Dense: out_features str"),
    "width is None": (lambda s: nn.Dense(None, 5), TypeError, "Dense: in_features NoneType"),
    "unknown activation": (lambda s: nn.Dense(5, 5, activation="rellu"), ValueError, "Dense: activation 'rellu' relu"),
    "unknown init": (lambda s: nn.Dense(5, 5, init="hee"), ValueError, "Dense: init 'hee' he_normal"),
    "unknown bias_init": (lambda s: nn.Dense(5, 5, bias_init="one"), ValueError, "Dense: bias_init 'one' zeros"),
    "init without its parameters": (lambda s: nn.Dense(5, 5, init="uniform"), ValueError, "Dense: init 'uniform' init.uniform("),
    "bias_init without its parameters": (
        lambda s: nn.Dense(5, 5, bias_init="constant"),
        ValueError,
        "Dense: bias_init 'constant' init.constant(",
    ),
    "bias_init with a fan_in": (lambda s: nn.Dense(5, 5, bias_init="he_normal"), ValueError, "bias_init 'he_normal' 'ones' fan_in"),
    "hidden weights that are the same": (
        lambda s: nn.Sequential(nn.Dense(3, 4, init=init.constant(0.5)), nn.Dense(4, 5)),
        ValueError,
        "Sequential: layer 0 init.constant(c=0.5) 4 units identical",
    ),
    "no layers": (lambda s: nn.Sequential(), ValueError, "Sequential: layer"),
    "layer is a string": (lambda s: nn.Sequential("relu"), TypeError, "Sequential: layer 0 str"),
    "unknown precision": (
        lambda s: nn.Sequential(nn.Dense(3, 4), precision="bf16x3"),
        ValueError,
        "Sequential: precision 'bf16x3' bf16_x3 highest",
    ),
    "precision is a number": (lambda s: nn.Sequential(nn.Dense(3, 4), precision=16), TypeError, "Sequential: precision int"),
    "precision of pieces in float64": (
        lambda s: nn.Sequential(nn.Dense(3, 4), dtype="float64", precision="medium"),
        ValueError,
        "Sequential: precision 'bf16' 'float32' float64",
    ),
    "precision that is set is a number": (lambda s: setattr(s.model, "precision", 1), TypeError, "Sequential: precision int"),
    "precision that is set is none": (lambda s: setattr(s.model, "precision", "x"), ValueError, "Sequential: precision 'x' bf16"),
    "layers in a list": (lambda s: nn.Sequential([nn.Dense(1, 1)]), TypeError, "Sequential: layer 0 list"),
    "layers do not fit": (lambda s: nn.Sequential(nn.Dense(3, 4), nn.Dense(5, 6)), ValueError, "layer 1 5 4"),
    "dtype int": (lambda s: nn.Sequential(nn.Dense(3, 4), dtype=int), TypeError, "Sequential: dtype int64"),
    "dtype unknown": (lambda s: nn.Sequential(nn.Dense(3, 4), dtype="float23"), TypeError, "float23"),
    "seed is a string": (lambda s: nn.Sequential(nn.Dense(3, 4), seed="1"), TypeError, "Sequential: seed str"),
    "init of wrong shape": (
        lambda s: nn.Sequential(nn.Dense(3, 4, init=lambda shape, **_: np.zeros((4, 3)))),
        ValueError,
        "Sequential: 0.weight (4, 3) (3, 4)",
    ),
    "no columns to standardize": (lambda s: nn.Standardize(0), ValueError, "Standardize: features 0"),
    "columns to standardize in a tuple": (lambda s: nn.Standardize((3,)), TypeError, "Standardize: features tuple"),
    "Standardize not first": (
        lambda s: nn.Sequential(nn.Dense(3, 4), nn.Standardize(4)),
        ValueError,
        "Sequential: layer 1 Standardize(4) first",
    ),
    "statistics for no layer": (lambda s: s.model.standardize(s.x), ValueError, "standardize: Standardize Dense(3, 4"),
    "statistics of wrong width": (lambda s: s.standardized.standardize(s.y), ValueError, "standardize: x (4, 5) (rows, 3)"),
    "statistics of rank 1": (lambda s: s.standardized.standardize(s.x[0]), ValueError, "standardize: x (3,)"),
    "statistics of no rows": (lambda s: s.standardized.standardize(s.x[:0]), ValueError, "standardize: x (0, 3)"),
    "statistics of text": (lambda s: s.standardized.standardize(s.x.astype(str)), TypeError, "standardize: x <U"),
    "statistics of None": (lambda s: s.standardized.standardize(None), TypeError, "standardize: x object"),
    "statistics of NaN": (
        lambda s: s.standardized.standardize(changed(s.x, (2, 1), np.nan)),
        ValueError,
        "standardize: column 1 x nan finite",
    ),
    "statistics of infinity": (
        lambda s: s.standardized.standardize(changed(s.x, (3, 2), np.inf)),
        ValueError,
        "standardize: column 2 x inf finite",
    ),
    "statistics beyond float32": (
        lambda s: s.standardized.standardize(s.x64 * [1, 1, 1e39]),
        ValueError,
        "standardize: column 2 x inf float32",
    ),
    "spread below float32": (
        lambda s: s.standardized.standardize(s.x64 * [1e-40, 1, 1]),
        ValueError,
        "standardize: column 0 x deviation float32",
    ),
    "fit on NaN": (
        lambda s: ts.Trainer(s.standardized).fit(changed(s.x, (2, 1), np.nan), s.labels % 2),
        ValueError,
        "fit: column 1 x nan finite",
    ),
    "out is a buffer": (
        lambda s: s.standardized(s.x[:1], out=s.standardized.buffers()["0.mean"][None, :2]),
        ValueError,
        "model: out memory",
    ),
    "metadata that JSON cannot hold": (
        lambda s: (s.standardized.metadata.update(x=s.x), s.standardized.save("/nonexistent/model")),
        TypeError,
        "ndarray JSON",
    ),
    "metadata of NaN": (
        lambda s: (s.standardized.metadata.update(x=np.nan), s.standardized.save("/nonexistent/model")),
        ValueError,
        "JSON",
    ),
    "x of wrong width": (lambda s: s.model(s.y), ValueError, "model: x (4, 5) (rows, 3)"),
    "x of rank 1": (lambda s: s.model(s.x[0]), ValueError, "model: x (3,)"),
    "x is None": (lambda s: s.model(None), TypeError, "model: x NoneType"),
    "x of complex": (lambda s: s.model(s.x.astype(complex)), TypeError, "model: x complex128"),
    "x of strings": (lambda s: s.model(s.x.astype(str)), TypeError, "model: x"),
    "empty batch": (lambda s: s.model(s.x[:0]), ValueError, "model: x (0, 3)"),
    "out of wrong shape": (lambda s: s.model(s.x, out=s.x.copy()), ValueError, "model: out (4, 3) (4, 5)"),
    "out of another dtype": (lambda s: s.model(s.x, out=s.y64), TypeError, "model: out float64"),
    "out read-only": (lambda s: s.model(s.x, out=s.frozen), ValueError, "model: out read-only"),
    "out strided": (lambda s: s.model(s.x, out=s.wide[:, ::2]), ValueError, "model: out C-contiguous"),
    "out is x": (lambda s: nn.Sequential(nn.Dense(5, 5))(s.y, out=s.y), ValueError, "model: out memory"),
    "out is a parameter": (
        lambda s: s.model(s.x, out=s.model.parameters()["1.weight"]),
        ValueError,
        "model: out memory",
    ),
    "predict in batches of 0": (lambda s: s.model.predict(s.x, batch_size=0), ValueError, "predict: batch_size 0"),
    "predict in batches of a string": (lambda s: s.model.predict(s.x, batch_size="4"), TypeError, "predict: batch_size str"),
    "predict x of wrong width": (lambda s: s.model.predict(s.y, batch_size=2), ValueError, "x (2, 5)"),
    "forward x of wrong width": (lambda s: s.model.forward(s.y, training=True), ValueError, "forward: x (4, 5)"),
    "backward first": (lambda s: nn.Sequential(nn.Dense(3, 5)).backward(s.dy), RuntimeError, "backward: forward"),
    "load of nothing": (lambda s: nn.load("/nonexistent/model.safetensors"), FileNotFoundError, "model.safetensors"),
    "width is a bool": (lambda s: nn.Dense(True, 5), TypeError, "Dense: in_features bool"),
    "width past int32": (lambda s: nn.Dense(5, 2**31), ValueError, "Dense: out_features 2147483648"),
    "more weights than memory": (
        lambda s: nn.Sequential(nn.Dense(2**26, 2**26)),
        MemoryError,
        "no memory for 1.678e+07 GiB",
    ),
    "activation is a list": (lambda s: nn.Dense(5, 5, activation=["relu"]), ValueError, "Dense: activation ['relu'] relu"),
    "bias is None": (lambda s: nn.Dense(5, 5, bias=None), TypeError, "Dense: bias NoneType bool"),
    "bias is a number": (lambda s: nn.Dense(5, 5, bias=1), TypeError, "Dense: bias int bool"),
    "init is a number": (lambda s: nn.Dense(5, 5, init=3), TypeError, "Dense: init int"),
    "init gives text": (lambda s: made_by("a"), ValueError, "Sequential: 0.weight <U1"),
    "init gives nothing": (lambda s: made_by(None), ValueError, "Sequential: 0.weight object"),
    "init gives NaN": (lambda s: made_by(np.nan), ValueError, "Sequential: 0.weight finite"),
    "init gives complex": (lambda s: made_by(1j), ValueError, "Sequential: 0.weight complex128"),
    "init overflows": (lambda s: made_by(1e300), ValueError, "Sequential: 0.weight finite"),
    "init gives a ragged list": (
        lambda s: nn.Sequential(nn.Dense(2, 2, init=lambda *_, **__: [[1], [1, 2]])),
        ValueError,
        "Sequential: 0.weight (2, 2)",
    ),
    "dtype None": (lambda s: nn.Sequential(nn.Dense(3, 4), dtype=None), TypeError, "Sequential: dtype None"),
    "dtype of the other byte order": (lambda s: nn.Sequential(nn.Dense(3, 4), dtype=">f4"), TypeError, "Sequential: dtype >f4"),
    "dtype of records": (lambda s: nn.Sequential(nn.Dense(3, 4), dtype="f4,f4"), TypeError, "Sequential: dtype"),
    "seed is a float": (lambda s: nn.Sequential(nn.Dense(3, 4), seed=1.5), TypeError, "Sequential: seed float"),
    "x is masked": (lambda s: s.model(masked(4, 3)), TypeError, "model: x MaskedArray"),
    "x of more than the memory": (lambda s: s.model(TOO_LONG), MemoryError, "TiB"),
    "predict in batches of True": (lambda s: s.model.predict(s.x, batch_size=True), TypeError, "predict: batch_size bool"),
    "training is a string": (lambda s: s.model.forward(s.x, training="no"), TypeError, "forward: training str bool"),
    "need_dx is a string": (lambda s: s.model.backward(s.dy, need_dx="no"), TypeError, "backward: need_dx str bool"),
    "accumulate is None": (lambda s: s.model.backward(s.dy, accumulate=None), TypeError, "backward: accumulate NoneType bool"),
    "load of None": (lambda s: nn.load(None), TypeError, "load: path NoneType"),
    "load of a number": (lambda s: nn.load(3), TypeError, "load: path int"),
    "save to None": (lambda s: s.model.save(None), TypeError, "save: path NoneType"),
    "save into nowhere": (lambda s: s.model.save("/nonexistent/model"), FileNotFoundError, "/nonexistent/model"),
}


@table(NN)
def test_nn(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@pytest.mark.parametrize(
    ("dy", "exception", "words"),
    [
        (of((4, 3)), ValueError, "backward: dy (4, 3) (4, 5)"),
        (of((3, 5)), ValueError, "backward: dy (3, 5) (4, 5)"),
        (of((4, 5), np.float64), TypeError, "backward: dy float64"),
        (None, TypeError, "backward: dy NoneType"),
    ],
)
def test_backward(dy: Any, exception: type[Exception], words: str) -> None:
    s = setting()
    s.model.forward(s.x, training=True)
    with untouched(*arrays_of(s)), pytest.raises(exception) as caught:
        s.model.backward(dy)
    assert all(word in str(caught.value) for word in words.split()), caught.value
    s.model.backward(s.dy)  # and the forward is still there


# --- Trainer -------------------------------------------------------------------------------------------------------------------


TRAINER: Table = {
    "unknown precision": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), precision="x"),
        ValueError,
        "Trainer: precision 'x' bf16",
    ),
    "precision is a dtype": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), precision=np.float32),
        TypeError,
        "Trainer: precision type",
    ),
    "precision of pieces in float64": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5), dtype="float64"), optimizer=optim.SGD(lr=0.1), precision="bf16_x6"),
        ValueError,
        "Trainer: precision 'bf16_x6' 'float32' float64",
    ),
    "unknown loss": (lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss="nll"), ValueError, "Trainer: loss 'nll' mse"),
    "loss is None": (lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=None), ValueError, "Trainer: loss None"),
    "model is a layer": (lambda s: ts.Trainer(nn.Dense(3, 5)), TypeError, "Trainer: model Dense"),
    "optimizer is a name": (lambda s: ts.Trainer(s.model, optimizer="adam"), TypeError, "Trainer: optimizer str"),
    "optimizer is a class": (lambda s: ts.Trainer(s.model, optimizer=optim.Adam), TypeError, "Trainer: optimizer type"),
    "optimizer has parameters": (lambda s: ts.Trainer(s.model, optimizer=s.sgd), ValueError, "SGD: parameters"),
    "seed is a string": (lambda s: ts.Trainer(s.model, seed="0"), TypeError, "Trainer: seed str"),
    "loss is a list": (lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=["mse"]), ValueError, "Trainer: loss ['mse'] mse"),
    "loss is an array": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=np.array(["mse"] * 2)),
        ValueError,
        "Trainer: loss",
    ),
    "seed is a bool": (lambda s: ts.Trainer(s.model, seed=True), TypeError, "Trainer: seed bool"),
    "loss is a class": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=ts.losses.Huber),
        TypeError,
        "Trainer: loss class Huber Huber()",
    ),
    "loss of no kind": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=ts.losses.Loss()),
        ValueError,
        "Trainer: loss Loss() mse",
    ),
    "weights for other classes": (
        lambda s: ts.Trainer(nn.Sequential(nn.Dense(3, 5)), loss=ts.losses.SoftmaxCrossEntropy(weight=[1, 2, 3])),
        ValueError,
        "Trainer: loss weights 3 classes 5",
    ),
    "smoothing above 1": (lambda s: ts.losses.SoftmaxCrossEntropy(label_smoothing=1.5), ValueError, "label_smoothing 1.5 0 1"),
    "smoothing is a string": (lambda s: ts.losses.SoftmaxCrossEntropy(label_smoothing="a"), TypeError, "label_smoothing str"),
    "weight is a number": (lambda s: ts.losses.SoftmaxCrossEntropy(weight=2.0), ValueError, "SoftmaxCrossEntropy: weight ()"),
    "weight of strings": (lambda s: ts.losses.SoftmaxCrossEntropy(weight="ab"), TypeError, "SoftmaxCrossEntropy: weight 'ab'"),
    "class weight negative": (
        lambda s: ts.losses.SoftmaxCrossEntropy(weight=[1, -2]),
        ValueError,
        "SoftmaxCrossEntropy: weight[1] -2.0",
    ),
    "delta of 0": (lambda s: ts.losses.Huber(delta=0), ValueError, "Huber: delta 0 above 0"),
    "delta infinite": (lambda s: ts.losses.Huber(delta=np.inf), ValueError, "Huber: delta inf finite"),
    "delta is None": (lambda s: ts.losses.Huber(delta=None), TypeError, "Huber: delta NoneType"),
}

# Each of these is put to step, fit and evaluate alike.
BATCH: dict[str, tuple[Callable[[Setting], tuple[Any, Any]], type[Exception], str]] = {
    "x of wrong width": (lambda s: (s.y, s.labels), ValueError, "x (4, 5) (rows, 3)"),
    "x of rank 1": (lambda s: (s.p[:4], s.labels), ValueError, "x (4,)"),
    "x is None": (lambda s: (None, s.labels), TypeError, "x NoneType"),
    "x is a string": (lambda s: ("abcd", s.labels), TypeError, "x str"),
    "x is a dict": (lambda s: (dict.fromkeys(range(4)), s.labels), TypeError, "x dict"),
    "x of complex": (lambda s: (s.x.astype(complex), s.labels), TypeError, "x complex128"),
    "x of objects": (lambda s: (s.x.astype(object), s.labels), TypeError, "x object"),
    "empty batch": (lambda s: (s.x[:0], s.labels[:0]), ValueError, "x (0, 3)"),
    "y is None": (lambda s: (s.x, None), TypeError, "y NoneType"),
    "y is a string": (lambda s: (s.x, "abcd"), TypeError, "y str"),
    "too few labels": (lambda s: (s.x, s.labels[:3]), ValueError, "y 3 4"),
    "too many labels": (lambda s: (s.x[:3], s.labels), ValueError, "y 4 3"),
    "label too large": (lambda s: (s.x, np.array([0, 1, 5, 0])), ValueError, "y 5 row 2"),
    "label negative": (lambda s: (s.x, np.array([0, 1, -1, 0])), ValueError, "y -1 row 2"),
    "labels of floats": (lambda s: (s.x, s.p[:4]), TypeError, "y float32"),
    "probability NaN": (lambda s: (s.x, changed(s.probabilities, (1, 2), np.nan)), ValueError, "y nan"),
    "probability negative": (lambda s: (s.x, changed(s.probabilities, (1, 2), -1)), ValueError, "y -1"),
    "probabilities of wrong width": (lambda s: (s.x, s.x), ValueError, "y (4, 3) (4, 5)"),
    "probabilities of rank 3": (lambda s: (s.x, s.y[:, :, None]), ValueError, "y (4, 5, 1)"),
    "x is masked": (lambda s: (masked(4, 3), s.labels), TypeError, "x MaskedArray"),
    "x is a parameter": (lambda s: (s.model.parameters()["0.weight"].reshape(4, 3), s.labels), ValueError, "x model's own memory"),
    "labels are masked": (lambda s: (s.x, np.ma.masked_array(s.labels)), TypeError, "y MaskedArray"),
    "labels of bools": (lambda s: (s.x, s.labels > 1), TypeError, "y bool integer"),
    "labels of objects": (lambda s: (s.x, s.labels.astype(object)), TypeError, "y object integer"),
    "labels are ragged": (lambda s: (s.x, [[1], [1, 2]]), TypeError, "y cannot be read as an array"),
    "labels as a column": (lambda s: (s.x, s.labels[:, None]), ValueError, "y (4, 1) (4, 5) (4,)"),
    "label is one number": (lambda s: (s.x, 3), TypeError, "y int"),
    "probability infinite": (lambda s: (s.x, changed(s.probabilities, (3, 4), np.inf)), ValueError, "y inf 19"),
}
MSE_BATCH: dict[str, tuple[Callable[[Setting], tuple[Any, Any]], type[Exception], str]] = {
    "target NaN": (lambda s: (s.x, changed(s.y, (1, 2), np.nan)), ValueError, "y nan"),
    "target NaN, float64": (lambda s: (s.x, changed(s.y64, (1, 2), np.nan)), ValueError, "y nan"),
    "target is a parameter": (lambda s: (s.x[:3], s.regression.parameters()["0.weight"]), ValueError, "y model's own memory"),
    "target of wrong width": (lambda s: (s.x, s.x), ValueError, "y (4, 3) (4, 5)"),
    "target of rank 1": (lambda s: (s.x, s.labels), ValueError, "y (4,) (4, 5)"),
    "target of complex": (lambda s: (s.x, s.y.astype(complex)), TypeError, "y complex128"),
}

FIT: Table = {
    "no epochs": (lambda s: s.trainer.fit(s.x, s.labels, epochs=0), ValueError, "fit: epochs 0"),
    "epochs is a float": (lambda s: s.trainer.fit(s.x, s.labels, epochs=1.5), TypeError, "fit: epochs float"),
    "batch of 0": (lambda s: s.trainer.fit(s.x, s.labels, batch_size=0), ValueError, "fit: batch_size 0"),
    "batch negative": (lambda s: s.trainer.fit(s.x, s.labels, batch_size=-1), ValueError, "fit: batch_size -1"),
    "batch is None": (lambda s: s.trainer.fit(s.x, s.labels, batch_size=None), TypeError, "fit: batch_size NoneType"),
    "nothing left": (lambda s: s.trainer.fit(s.x, s.labels, batch_size=5, drop_last=True), ValueError, "fit: batch_size 5 4"),
    "validation is one array": (lambda s: s.trainer.fit(s.x, s.labels, validation_data=s.x), TypeError, "fit: validation_data"),
    "validation of three": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.x, s.labels, s.x)),
        ValueError,
        "fit: validation_data[2] (sample_weight) (4, 3) (4,)",
    ),
    "validation of four": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.x, s.labels, s.p[:4], s.p[:4])),
        TypeError,
        "fit: validation_data sample_weight",
    ),
    "weight of a row missing": (
        lambda s: s.trainer.fit(s.x, s.labels, sample_weight=[1, 2, 3]),
        ValueError,
        "fit: sample_weight (3,) (4,)",
    ),
    "weight negative": (
        lambda s: s.trainer.fit(s.x, s.labels, sample_weight=[1, 2, -3, 4]),
        ValueError,
        "fit: sample_weight -3 element 2 finite weights",
    ),
    "weights of complex": (
        lambda s: s.trainer.fit(s.x, s.labels, sample_weight=np.ones(4, complex)),
        TypeError,
        "fit: sample_weight complex128 real",
    ),
    "weight NaN in a step": (
        lambda s: s.trainer.step(s.x, s.labels, sample_weight=np.array([1, np.nan, 1, 1])),
        ValueError,
        "step: sample_weight nan element 1",
    ),
    "weight is one number": (lambda s: s.trainer.step(s.x, s.labels, 2.0), TypeError, "step: sample_weight float"),
    "weight infinite in float32": (
        lambda s: s.trainer.evaluate(s.x, s.labels, sample_weight=[1e300, 1, 1, 1]),
        ValueError,
        "evaluate: sample_weight inf element 0",
    ),
    "validation of unequal lengths": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.x, s.labels[:3])),
        ValueError,
        "fit: validation_data 4 3",
    ),
    "validation of wrong width": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.y, s.labels)),
        ValueError,
        "validation_data x (4, 5)",
    ),
    "validation label too large": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.x, s.labels + 1)),
        ValueError,
        "validation_data 5",
    ),
    "evaluate in batches of 0": (lambda s: s.trainer.evaluate(s.x, s.labels, batch_size=0), ValueError, "evaluate: batch_size 0"),
    "evaluate in batches of a float": (
        lambda s: s.trainer.evaluate(s.x, s.labels, batch_size=2.0),
        TypeError,
        "evaluate: batch_size float",
    ),
    "epochs is a bool": (lambda s: s.trainer.fit(s.x, s.labels, epochs=True), TypeError, "fit: epochs bool"),
    "batch past int64": (
        lambda s: s.trainer.fit(s.x, s.labels, batch_size=2**64),
        ValueError,
        "fit: batch_size 18446744073709551616",
    ),
    "shuffle is a string": (lambda s: s.trainer.fit(s.x, s.labels, shuffle="no"), TypeError, "fit: shuffle str bool"),
    "shuffle is an array": (lambda s: s.trainer.fit(s.x, s.labels, shuffle=s.x), TypeError, "fit: shuffle ndarray bool"),
    "drop_last is a string": (lambda s: s.trainer.fit(s.x, s.labels, drop_last="no"), TypeError, "fit: drop_last str bool"),
    "drop_last is None": (lambda s: s.trainer.fit(s.x, s.labels, drop_last=None), TypeError, "fit: drop_last NoneType bool"),
    "progress is a string": (lambda s: s.trainer.fit(s.x, s.labels, progress="no"), TypeError, "fit: progress str bool"),
    "validation is a string": (lambda s: s.trainer.fit(s.x, s.labels, validation_data="xy"), TypeError, "fit: validation_data"),
    "validation without y": (
        lambda s: s.trainer.fit(s.x, s.labels, validation_data=(s.x, None)),
        TypeError,
        "fit: validation_data[1] NoneType",
    ),
    "more rows than memory": (
        lambda s: s.trainer.fit(TOO_LONG, np.broadcast_to(np.int64(1), 2**40)),
        MemoryError,
        "TiB",
    ),
    "evaluate past int64": (
        lambda s: s.trainer.evaluate(s.x, s.labels, batch_size=2**64),
        ValueError,
        "evaluate: batch_size 18446744073709551616",
    ),
}


@table(TRAINER)
def test_trainer(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@table(FIT)
def test_fit_and_evaluate(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, words)


@pytest.mark.parametrize("method", ["step", "fit", "evaluate"])
@table(BATCH)
def test_batches(method: str, call: Any, exception: type[Exception], words: str) -> None:
    check(lambda s: getattr(s.trainer, method)(*call(s)), exception, f"{method}: {words}")


@pytest.mark.parametrize("method", ["step", "fit", "evaluate"])
@table(MSE_BATCH)
def test_batches_for_mse(method: str, call: Any, exception: type[Exception], words: str) -> None:
    check(lambda s: getattr(s.mse_trainer, method)(*call(s)), exception, f"{method}: {words}")


# --- threads -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "exception"),
    [
        (0, ValueError),
        (-1, ValueError),
        (4097, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_number_of_threads(n: Any, exception: type[Exception]) -> None:
    before = ts.get_num_threads()
    with pytest.raises(exception, match="set_num_threads: n "):
        ts.set_num_threads(n)
    with pytest.raises(exception, match="^num_threads: n "), ts.num_threads(n):
        pass
    assert ts.get_num_threads() == before


def test_dlpack_of_another_dtype_is_named() -> None:
    check(lambda s: ops.dense(Dlpack(s.labels.reshape(2, 2)), s.w), TypeError, "dense: x int64")


# --- data and history ----------------------------------------------------------------------------------------------------------

split = ts.data.train_test_split
TWO = np.array([0, 0, 1, 1])

DATA: Table = {
    "lengths": (lambda s: split(s.x, TWO[:3]), ValueError, "x 4 rows y 3"),
    "x is a number": (lambda s: split(3, TWO), ValueError, "x no rows"),
    "x is None": (lambda s: split(None, TWO), ValueError, "x no rows"),
    "x is ragged": (lambda s: split([[1], [1, 2]], TWO[:2]), ValueError, "x cannot be read as an array"),
    "x is masked": (lambda s: split(masked(4, 3), TWO), TypeError, "x MaskedArray"),
    "y is masked": (lambda s: split(s.x, np.ma.masked_array(TWO)), TypeError, "y MaskedArray"),
    "nothing": (lambda s: split(s.x[:0], TWO[:0]), ValueError, "test_size 0.2 0 rows"),
    "classes that cannot be sorted": (lambda s: split(s.x, np.array([0, "a", 0, "a"], object)), TypeError, "y sorted"),
    "rows of targets": (lambda s: split(s.x, s.y), ValueError, "y (4, 5) stratify"),
    "class of one": (lambda s: split(s.x, np.array([0, 0, 0, 1])), ValueError, "class 1 1 member"),
    "too few for the classes": (lambda s: split(s.x, TWO, test_size=1), ValueError, "1 row 2 classes"),
    "test_size 0": (lambda s: split(s.x, TWO, test_size=0), ValueError, "test_size 0"),
    "test_size all": (lambda s: split(s.x, TWO, test_size=4), ValueError, "test_size 4 3 of 4"),
    "test_size 1.0": (lambda s: split(s.x, TWO, test_size=1.0), ValueError, "test_size 1.0 fraction"),
    "test_size NaN": (lambda s: split(s.x, TWO, test_size=np.nan), ValueError, "test_size nan"),
    "test_size infinite": (lambda s: split(s.x, TWO, test_size=np.inf), ValueError, "test_size inf"),
    "test_size is a bool": (lambda s: split(s.x, TWO, test_size=True), TypeError, "test_size bool"),
    "test_size is a string": (lambda s: split(s.x, TWO, test_size="0.5"), TypeError, "test_size str"),
    "test_size is complex": (lambda s: split(s.x, TWO, test_size=1j), TypeError, "test_size complex"),
    "stratify is a string": (lambda s: split(s.x, TWO, stratify="no"), TypeError, "stratify str bool"),
    "seed negative": (lambda s: split(s.x, TWO, seed=-1), ValueError, "seed -1"),
    "seed is a string": (lambda s: split(s.x, TWO, seed="1"), TypeError, "seed str"),
    "seed is a float": (lambda s: split(s.x, TWO, seed=1.5), TypeError, "seed float"),
    "seed is None": (lambda s: split(s.x, TWO, seed=None), TypeError, "seed NoneType"),
}


@table(DATA)
def test_train_test_split(call: Call, exception: type[Exception], words: str) -> None:
    check(call, exception, "train_test_split: " + words)


@pytest.mark.parametrize(
    ("arguments", "values", "words"),
    [
        (("a",), {"loss": 1.0}, "History.append: epoch str"),
        ((1.5,), {"loss": 1.0}, "History.append: epoch float"),
        ((2,), {"loss": "a"}, "History.append: loss str"),
        ((2,), {"loss": 1.0, "accuracy": None}, "History.append: accuracy NoneType"),
    ],
)
def test_history(arguments: Any, values: Any, words: str) -> None:
    history = ts.History()
    history.append(1, loss=2.0)
    with pytest.raises(TypeError) as caught:
        history.append(*arguments, **values)
    assert all(word in str(caught.value) for word in words.split())
    assert (history.epoch, history.history) == ([1], {"loss": [2.0]})


@pytest.mark.parametrize(("precision", "exception"), [("float16", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)])
def test_precision_of_the_process(precision: Any, exception: type[Exception]) -> None:
    with pytest.raises(exception, match="^set_matmul_precision: precision is "):
        ts.set_matmul_precision(precision)
    assert ts.get_matmul_precision() == "float32"


def test_precision_of_the_reference() -> None:
    x, w = of((4, 3)), of((3, 5))
    calls: dict[str, Callable[[str, Any], Any]] = {
        "dense": lambda p, t: reference.dense(x.astype(t), w.astype(t), precision=p),
        "dense_backward": lambda p, t: reference.dense_backward(of((4, 5), t), x.astype(t), w.astype(t), precision=p),
        "matmul": lambda p, t: reference.matmul(x.astype(t), w.astype(t), p),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}: precision is 'x', wanted one of float32, bf16_x6"):
            call("x", np.float32)
        with pytest.raises(ValueError, match=f"^{name}: precision is 'bf16', wanted 'float32' with float64 arrays"):
            call("medium", np.float64)
    with pytest.raises(ValueError, match="matmul: a has shape"):
        reference.matmul(x, x)
    with pytest.raises(TypeError, match="matmul: b has dtype float64"):
        reference.matmul(x, w.astype(np.float64))
    with pytest.raises(TypeError, match="split_bfloat16: x has dtype float64"):
        reference.split_bfloat16(x.astype(np.float64), 2)
    for pieces in (0, 4, 1.5):
        with pytest.raises(ValueError, match="split_bfloat16: pieces is"):
            reference.split_bfloat16(x, pieces)
