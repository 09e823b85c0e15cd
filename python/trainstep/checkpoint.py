"""A whole training run in one file: what `Trainer.save` writes and `Trainer.load` reads.

It is a model's file (`Sequential.save`, which `nn.load` reads too) with more arrays, whose names begin with "trainer/", and one
more entry of metadata, "trainer": a JSON object of all else. Its numbers are exact: each is the shortest text that gives it back.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from trainstep import optim
from trainstep._checks import integer, number, path_text
from trainstep.averages import AVERAGES
from trainstep.history import History
from trainstep.losses import LOSSES, Loss
from trainstep.metrics import METRICS
from trainstep.nn.sequential import EXTRA, Array, read_model, reading, write_model
from trainstep.schedules import SCHEDULES, Plateau, Schedule

if TYPE_CHECKING:
    from trainstep.trainer import Trainer

_VERSION = 1
_MOST = 2**62  # of what is counted


def save(trainer: "Trainer", path: Any) -> None:
    """Write a trainer; see `Trainer.save`."""
    path = path_text("save: path", path)
    optimizer, loss = trainer.optimizer, trainer.loss
    if type(optimizer).__name__ not in optim.__all__:
        raise TypeError(f"save: the optimizer is a {type(optimizer).__name__}, expected one of trainstep.optim")
    writer = _Writer()
    name_of = {place: name for name, place in trainer._places.items() if place is not None}
    state = optimizer.state_dict()
    running = trainer._runs[-1].callbacks if trainer._runs else []
    own = {
        "version": _VERSION,
        "loss": writer.plain({"name": loss.name, "options": asdict(loss)}) if isinstance(loss, Loss) else None,
        "rules": trainer._given,
        "fuse_update": trainer._fuse_update,
        "precision": trainer.precision,
        "seed": trainer._seed,
        "epoch": trainer.epoch,
        "owed": trainer._unseen() if trainer.epoch > trainer._ended else None,
        "unfinished": list(trainer._core.unfinished),
        "unfinished_of": trainer._unfinished_of,
        "passes": trainer.model._program.passes,
        "metrics": [writer.plain({"name": metric.name, "options": asdict(metric)}) for metric in trainer.metrics],
        "metric_sums": writer.plain(np.asarray(trainer._core.metric_sums)) if trainer.metrics else None,
        "average": _average_of(trainer, writer),
        "history": trainer.history.to_dict(),
        "optimizer": {
            "class": type(optimizer).__name__,
            "defaults": writer.plain(optimizer.defaults),
            "state_dtype": optimizer._state_dtype,
            "seed": optimizer._seed,
            "skipped": optimizer.skipped_steps,
            "rates": [[g, rate] for g, rate in optimizer._rates.items()],
            "groups": [
                {
                    "options": writer.plain({name: value for name, value in group.items() if name != "params"}),
                    "params": [name_of[i] for i in entry["params"]],
                }
                for group, entry in zip(optimizer.param_groups, state["param_groups"], strict=True)
            ],
            "state": {
                name_of[i]: {
                    name: writer.array(value, f"optimizer/{name_of[i]}/{name}") if isinstance(value, np.ndarray) else value
                    for name, value in entry.items()
                }
                for i, entry in state["state"].items()
            },
        },
        "callbacks": [[type(callback).__name__, writer.plain(callback.state_dict())] for callback in running],
    }
    write_model(trainer.model, path, {"trainer": json.dumps(own)}, writer.arrays)


def load(path: Any, loss: Any = None, schedule: Callable[[int], float] | None = None) -> "Trainer":
    """Read a trainer; see `Trainer.load`."""
    from trainstep.trainer import Trainer  # which imports this module

    path = path_text("load: path", path)
    if schedule is not None and not callable(schedule):
        raise TypeError(f"load: schedule is a {type(schedule).__name__}, expected a callable")
    with reading(path, "trainer") as file:
        own = json.loads(file.metadata()["trainer"])
        if own["version"] != _VERSION:
            raise ValueError(f"it is of version {own['version']!r}, expected {_VERSION}")
        model = read_model(file)
        reader = _Reader(file, schedule)
        saved = own["optimizer"]
        views = model.parameters()
        optimizer = _optimizer(reader, saved, views)
        if own["loss"] is not None:
            spec = reader.value(own["loss"])
            file_loss = LOSSES[spec["name"]](**spec["options"])
        state = _state(reader, saved, views)
        seed, epoch = integer("seed", own["seed"]), integer("epoch", own["epoch"], 0, _MOST)
        passes = integer("passes", own["passes"], 0, 2**32 - 1)
        owed = None if own["owed"] is None else {str(name): float(value) for name, value in own["owed"].items()}
        unfinished = _totals(own["unfinished"])
        history = History.from_dict(own["history"])
        states = [(str(name), reader.value(value)) for name, value in own["callbacks"]]
        metrics = [METRICS[spec["name"]](**spec["options"]) for spec in map(reader.value, own.get("metrics", []))]
        metric_sums = reader.value(own.get("metric_sums"))
        average = own.get("average")
        averaging = None if average is None else AVERAGES[average["class"]](**reader.value(average["options"]))
        averages = [
            {name: reader.array(average["arrays"][i][name], view.shape) for name, view in own_views.items()}
            for i, own_views in enumerate((views, model.buffers()) if average is not None else ())
        ]
        rates = {integer("group", g, 0): number("rate", rate, 0) for g, rate in saved["rates"]}
        skipped, unfinished_of = integer("skipped", saved["skipped"], 0, _MOST), own["unfinished_of"]
        rules = {name: own["rules"][name] for name in ("l1", "l2", "penalize_bias", "clip_norm", "max_norm")}
        fuse_update, precision = own["fuse_update"], own.get("precision")
    # What the caller gives is no matter of the file.
    if own["loss"] is not None and loss is not None:
        raise ValueError(f"load: loss is given, expected None: {path} has one of its own, {file_loss!r}")
    if own["loss"] is None and not callable(loss):
        raise ValueError(f"load: loss is {loss!r}, expected the function that the loss was: it is not in {path}")
    if reader.asked and schedule is None:
        raise ValueError(f"load: schedule is None, expected the function that lr was: it is not in {path}")
    if schedule is not None and not reader.asked:
        raise ValueError(f"load: schedule is given, expected None: no lr of {path} was a function of the caller's")
    try:
        trainer = Trainer(
            model,
            loss if own["loss"] is None else file_loss,
            optimizer,
            seed=seed,
            fuse_update=fuse_update,
            metrics=metrics,
            average=averaging,
            precision=precision,
            **rules,
        )
        optimizer.load_state_dict(state)
        trainer._core.epochs, trainer._core.unfinished = epoch, unfinished
        if metrics:
            trainer._core.metric_sums = np.asarray(metric_sums, np.float64).tolist()
        if average is not None:
            _set_average(trainer, average, averages)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"load: {path} is no whole trainstep checkpoint: {error}") from error
    optimizer._rates = {g: rates.get(g, rate) for g, rate in optimizer._rates.items()}
    optimizer._skipped = skipped
    model._program.passes = passes
    trainer._unfinished_of, trainer._history, trainer._callback_states = unfinished_of, history, states
    trainer._ended, trainer._owed = epoch - (owed is not None), owed
    return trainer


def _average_of(trainer: "Trainer", writer: "_Writer") -> dict[str, Any] | None:
    """Give the average of the weights, with its arrays."""
    average = trainer.average
    if average is None:
        return None
    arrays = [
        {name: writer.array(values, f"average/{kind}/{name}") for name, values in pairs}
        for kind, pairs in zip(("weights", "buffers"), trainer._core.average_arrays(trainer._core), strict=True)
    ]
    return {
        "class": type(average).__name__,
        "options": writer.plain(asdict(average)),
        "averages": trainer.averages,
        "arrays": arrays,
    }


def _set_average(trainer: "Trainer", average: Mapping[str, Any], arrays: list[dict[str, Array]]) -> None:
    for views, values in zip(trainer._core.average_arrays(trainer._core), arrays, strict=True):
        for name, view in views:
            if values[name].dtype != view.dtype:
                raise ValueError(f"the average of {name} is {values[name].dtype}, expected {view.dtype}")
            view[...] = values[name]
    trainer._core.averages = integer("averages", average["averages"], 0, _MOST)


def _optimizer(reader: "_Reader", saved: Mapping[str, Any], views: Mapping[str, Array]) -> optim.Optimizer:
    """Make the optimizer of a file over a model's parameters."""
    name = saved["class"]
    if name not in optim.__all__ or name == "Optimizer":
        raise ValueError(f"its optimizer is {name!r}")
    defaults = reader.value(saved["defaults"])
    extra = {} if saved["state_dtype"] is None else {"state_dtype": saved["state_dtype"], "seed": saved["seed"]}
    groups = [{**reader.value(g["options"]), "params": [views[p] for p in g["params"]]} for g in saved["groups"]]
    cls: Any = getattr(optim, name)
    known = inspect.signature(cls).parameters  # AdamW is Adam with an option that is not one
    made: optim.Optimizer = cls(groups, **{option: value for option, value in defaults.items() if option in known}, **extra)
    made._seed = integer("seed", saved["seed"])
    return made


def _state(reader: "_Reader", saved: Mapping[str, Any], views: Mapping[str, Array]) -> dict[str, Any]:
    """Give the optimizer's states in the structure of `Optimizer.load_state_dict`."""
    names = [name for group in saved["groups"] for name in group["params"]]
    groups, at = [], 0
    for group in saved["groups"]:
        groups.append({"params": list(range(at, at + len(group["params"])))})
        at += len(group["params"])
    state = {}
    for i, name in enumerate(names):
        if name in saved["state"]:
            state[i] = {
                key: reader.array(value, views[name].shape) if isinstance(value, Mapping) else value
                for key, value in saved["state"][name].items()
            }
    return {"state": state, "param_groups": groups}


def _totals(values: Any) -> tuple[float, float, int, int, int, int, int]:
    loss, count, *counts = values
    correct, judged, rows, batches, updates = (integer("unfinished", n, 0, _MOST) for n in counts)
    return number("unfinished", loss), number("unfinished", count, 0), correct, judged, rows, batches, updates


class _Writer:
    """Turns values into what JSON can hold, and keeps the arrays among them."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._plateaus: dict[int, int] = {}

    def array(self, value: Array, name: str) -> dict[str, str]:
        """Keep an array and say where."""
        self.arrays[EXTRA + name] = value
        return {"array": name}

    def plain(self, value: Any) -> Any:
        """Give what JSON can hold of a value."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.ndarray):
            return self.array(value, f"array/{len(self.arrays)}")
        if isinstance(value, list):
            return [self.plain(v) for v in value]
        if isinstance(value, tuple):
            return {"tuple": [self.plain(v) for v in value]}
        if isinstance(value, Mapping):
            return {"dict": [[self.plain(k), self.plain(v)] for k, v in value.items()]}
        if isinstance(value, Schedule):
            return {"schedule": value.name, "arguments": self.plain(value.arguments)}
        if isinstance(value, Plateau):
            known = len(self._plateaus)
            number_of = self._plateaus.setdefault(id(value), known)
            return {"plateau": number_of} | ({"state": self.plain(value.__getstate__())} if number_of == known else {})
        if callable(value):
            return {"function": repr(value)}
        raise TypeError(f"save: a {type(value).__name__} cannot be saved, expected what JSON can hold or an array")


class _Reader:
    """Turns what `_Writer` gave back into values."""

    def __init__(self, file: Any, schedule: Callable[[int], float] | None) -> None:
        self._file, self._schedule = file, schedule
        self._plateaus: dict[int, Plateau] = {}
        self.asked = False  # whether a function of the caller's was met

    def array(self, value: Mapping[str, Any], shape: Iterable[int] | None = None) -> Array:
        """Read an array, of a shape where one is wanted."""
        name = EXTRA + value["array"]
        if shape is not None and tuple(self._file.get_slice(name).get_shape()) != tuple(shape):
            raise ValueError(f"{name} has shape {tuple(self._file.get_slice(name).get_shape())}, expected {tuple(shape)}")
        array: Array = self._file.get_tensor(name)
        return array

    def value(self, plain: Any) -> Any:
        """Give the value that was saved."""
        if isinstance(plain, list):
            return [self.value(v) for v in plain]
        if not isinstance(plain, dict):
            return plain
        if "tuple" in plain:
            return tuple(self.value(v) for v in plain["tuple"])
        if "dict" in plain:
            return {self.value(k): self.value(v) for k, v in plain["dict"]}
        if "array" in plain:
            return self.array(plain)
        if "schedule" in plain:
            return SCHEDULES[plain["schedule"]](**self.value(plain["arguments"]))
        if "plateau" in plain:
            if plain["plateau"] not in self._plateaus:
                self._plateaus[plain["plateau"]] = made = Plateau.__new__(Plateau)
                made.__setstate__(self.value(plain["state"]))
            return self._plateaus[plain["plateau"]]
        if "function" in plain:
            self.asked = True
            return self._schedule if self._schedule is not None else _unknown
        raise ValueError(f"{sorted(plain)} is no value")


def _unknown(t: int) -> float:
    """Stand for a schedule that the file does not have, until that is said."""
    return 0.0
