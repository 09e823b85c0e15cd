"""What ``trainstep train`` learns: data sets and tables, split into parts, with what the network has before its first layer."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trainstep as ts
from trainstep.cli.common import UsageError

Array = NDArray[Any]
Part = tuple[Array, Array]  # x, y

TEST_SHARE = 0.2
DATASETS = ("digits", "mnist")
TABLES = (".csv", ".npz", ".parquet")


@dataclass(frozen=True)
class Measure:
    """A result: its name in JSON, the name and the words for it that are printed, and the number."""

    name: str
    label: str
    text: str
    value: float | None


@dataclass
class Problem:
    """What is to be learnt: the data, the network's ends, and what is said and saved of it."""

    title: str
    rows: str  # what a row is: rows, images
    train: Part
    test: Part
    outputs: int
    measure: Callable[[ts.nn.Sequential], list[Measure]]  # of the trained network, on the test part
    validation: Part | None = None
    task: str = "classification"
    first: list[Any] = field(default_factory=list)  # layers before the dense ones
    shape: tuple[int, ...] | None = None  # of an image
    dtype: str = "float32"
    metadata: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[ts.nn.Sequential], None] = lambda model: None  # before the training
    finish: Callable[[ts.nn.Sequential], None] = lambda model: None  # after it
    unscale: Callable[[Array], Array] | None = None  # of targets that are learnt in another unit

    @property
    def targets(self) -> Array:
        """The targets of the test part, in the unit that the finished network gives them in."""
        return self.test[1] if self.unscale is None else self.unscale(self.test[1])

    @property
    def sizes(self) -> dict[str, int]:
        """The rows of each part."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        return {name: len(part[0]) for name, part in parts.items() if part is not None}

    def about(self) -> str:
        """Say what is learnt from what."""
        kinds = {"training": "training", "validation": "validation", "test": "held-out test"}
        parts = ", ".join(f"{size:,} {kinds[name]} {self.rows}" for name, size in self.sizes.items())
        return f"{self.title}{parts}"


def check(arguments: argparse.Namespace) -> None:
    """Raise UsageError where the data set is none, or an option is not for it."""
    name, paths = arguments.dataset, arguments.paths
    is_table = Path(name).suffix.lower() in TABLES
    if not is_table and name not in DATASETS:
        raise UsageError(
            f"unknown data set {name!r}, choose from {', '.join(DATASETS)}, or a file that ends in {', '.join(TABLES)}"
        )
    if name == "mnist":
        if not paths:
            raise UsageError(
                "mnist needs a PATH: the directory of its IDX files, or an .npz file of x_train, y_train, x_test and y_test"
            )
        if len(paths) > 1:
            raise UsageError(f"mnist takes one PATH, not {len(paths)}")
    elif paths:
        raise UsageError(f"{name} takes no PATH, {paths[0]} is one")
    if is_table and arguments.augment is not None:
        raise UsageError(f"--augment is for images, not for {name}")
    if not is_table:
        for option in ("target", "task", "ignore"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} is for tables, not for {name}")
    elif arguments.target is None:
        raise UsageError(f"--target NAME is needed: the column of {name} that is to be predicted")
    if arguments.label_smoothing is not None and arguments.task == "regression":
        raise UsageError("--label-smoothing is for classification, not for regression")


def inputs(arguments: argparse.Namespace) -> list[Path]:
    """Name the files that are read."""
    if arguments.dataset == "mnist":
        return [path for path in arguments.paths if path.is_file()]
    return [] if arguments.dataset in DATASETS else [Path(arguments.dataset)]


def load(arguments: argparse.Namespace, progress: bool) -> Problem:
    """Read the data and split it."""
    if arguments.dataset == "digits":
        return _digits(arguments)
    if arguments.dataset == "mnist":
        return _mnist(arguments)
    from trainstep.cli import tables

    return tables.problem(arguments, progress)


def split(x: Array, y: Array, share: float, seed: int, stratify: bool = True) -> tuple[Part, Part]:
    """Split off a share of the rows: what is left, and the share."""
    x_left, x_off, y_left, y_off = ts.data.train_test_split(x, y, test_size=share, stratify=stratify, seed=seed)
    return (x_left, y_left), (x_off, y_off)


# What train_test_split calls the part that --validation splits off.
_WORDS = {"the test part": "the validation part", "test_size ": "", ", stratify=True wants": ", expected"}


def with_validation(arguments: argparse.Namespace, train: Part, stratify: bool = True) -> tuple[Part, Part | None]:
    """Split the validation part off what is trained on, where one is asked for."""
    if arguments.validation is None:
        return train, None
    try:
        return split(*train, arguments.validation, arguments.seed, stratify)
    except ValueError as error:  # a part without rows, or with fewer than there are classes
        what = str(error).removeprefix("train_test_split: ")
        for of_function, of_command in _WORDS.items():
            what = what.replace(of_function, of_command)
        raise UsageError(f"--validation: {what}") from error


def accuracy(x: Array, y: Array) -> Callable[[ts.nn.Sequential], list[Measure]]:
    """Measure the share of rows whose first largest output is the label's."""

    def measure(model: ts.nn.Sequential) -> list[Measure]:
        right = int((model.predict(x).argmax(axis=1) == y).sum())
        return [Measure("test_accuracy", "test accuracy", f"{right / len(y):.4f} ({right} of {len(y)})", right / len(y))]

    return measure


def _digits(arguments: argparse.Namespace) -> Problem:
    train, test = split(*ts.data.load_digits(), TEST_SHARE, arguments.seed)
    train, validation = with_validation(arguments, train)
    return Problem("digits: ", "images", train, test, 10, accuracy(*test), validation, shape=(8, 8))


# --- MNIST -----------------------------------------------------------------------------------------------------------------------

_IDX = {"x_train": "train-images", "y_train": "train-labels", "x_test": "t10k-images", "y_test": "t10k-labels"}


def _mnist(arguments: argparse.Namespace) -> Problem:
    path = arguments.paths[0]
    try:
        held = _idx_files(path) if path.is_dir() else _npz_file(path)
        (x, y), test = _images(path, held, "train"), _images(path, held, "test")
        train, validation = with_validation(arguments, (x, y))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if x.shape[1] != test[0].shape[1]:
        raise UsageError(f"{path}: training images have {x.shape[1]} pixels, test images {test[0].shape[1]}")
    mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64)) or 1.0

    def prepare(model: ts.nn.Sequential) -> None:
        # One mean and one scale for all pixels: with one each, those that are almost never inked would count most.
        buffers = model.buffers()
        buffers["0.mean"][...], buffers["0.scale"][...] = mean, 1 / std

    shape = held["x_train"].shape[1:]
    classes = int(max(y.max(), test[1].max())) + 1
    title, first = f"{path}: {classes} classes; ", [ts.nn.Standardize(x.shape[1])]
    return Problem(
        title,
        "images",
        train,
        test,
        classes,
        accuracy(*test),
        validation,
        first=first,
        shape=shape if len(shape) > 1 else None,
        prepare=prepare,
    )


def _idx_files(folder: Path) -> dict[str, Array]:
    held = {}
    for name, begin in _IDX.items():
        found = sorted(p for p in folder.iterdir() if p.name.startswith(begin) and p.is_file())
        if not found:
            raise ValueError(f"{folder}: there is no file {begin}-idx{3 if name[0] == 'x' else 1}-ubyte, with or without .gz")
        held[name] = ts.data.load_idx(found[0])
    return held


def _npz_file(path: Path) -> dict[str, Array]:
    import zipfile

    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: it is no NPZ file")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                missing = [name for name in _IDX if name not in arrays]
                if missing:
                    raise ValueError(f"there is no array {missing[0]}, the arrays are {', '.join(arrays) or 'none'}")
                return {name: arrays[name] for name in _IDX}
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _images(path: Path, held: dict[str, Array], part: str) -> Part:
    x, y = held[f"x_{part}"], held[f"y_{part}"]
    if x.ndim < 2 or x.dtype.kind not in "uif" or 0 in x.shape:
        raise ValueError(f"{path}: x_{part} has shape {x.shape} and dtype {x.dtype}, expected numbers, one image a row")
    if y.shape != (len(x),) or y.dtype.kind not in "ui" or y.min() < 0:
        raise ValueError(f"{path}: y_{part} has shape {y.shape} and dtype {y.dtype}, expected a label for each of {len(x)} images")
    return x.reshape(len(x), -1), y.astype(np.int64)
