"""``trainstep train --augment flip,crop:2``: images that are changed anew in each epoch."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trainstep as ts
from trainstep.cli.common import UsageError, count, part, positive
from trainstep.cli.problems import Problem


@dataclass(frozen=True)
class Images:
    """What the numbers of --augment are measured by."""

    shape: tuple[int, ...]  # height, width, and channels where it has them
    spread: float  # the standard deviation of all pixels
    classes: int

    @property
    def side(self) -> int:
        """The shorter side."""
        return min(self.shape[:2])


@dataclass(frozen=True)
class Kind:
    """A transform: how the number behind its name is read, what it is without one, and what is made of it."""

    read: Callable[[str], float]
    default: Callable[[Images], float]
    make: Callable[[float, Images], Any]


def _kinds() -> dict[str, Kind]:
    augment = ts.data.augment
    return {
        "flip": Kind(part, lambda i: 0.5, lambda p, i: augment.HorizontalFlip(p)),
        "vflip": Kind(part, lambda i: 0.5, lambda p, i: augment.VerticalFlip(p)),
        "crop": Kind(count, lambda i: max(1, i.side // 8), _crop),
        "scale": Kind(part, lambda i: 0.1, lambda by, i: augment.RandomScale(1 - by, 1 + by)),
        "rotation": Kind(positive, lambda i: 10.0, lambda degrees, i: augment.RandomRotation(degrees)),
        "cutout": Kind(count, lambda i: max(1, i.side // 4), lambda size, i: augment.Cutout(int(size))),
        "noise": Kind(positive, lambda i: 0.1, lambda by, i: augment.GaussianNoise(by * i.spread)),
        "mixup": Kind(positive, lambda i: 0.2, lambda alpha, i: augment.Mixup(alpha, classes=i.classes)),
    }


def _crop(padding: float, images: Images) -> Any:
    if padding >= images.side:
        raise ValueError(f"crop:{padding:g} may leave nothing of images of {images.shape[0]} x {images.shape[1]} pixels")
    return ts.data.augment.RandomCrop(int(padding))


def option(text: str) -> list[tuple[str, float | None]]:
    """Read --augment: names, each with a number or without."""
    kinds, chosen = _kinds(), []
    for word in text.split(","):
        name, colon, number = word.partition(":")
        if name not in kinds:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(kinds)}")
        chosen.append((name, kinds[name].read(number) if colon else None))
    return chosen


def batches(arguments: argparse.Namespace, problem: Problem, batch_size: int) -> ts.data.Batches:
    """Give the training part in batches, augmented."""
    x, y = problem.train
    if problem.shape is None:
        raise UsageError(f"--augment is for images that have a height and a width, and {arguments.paths[0]} has rows of pixels")
    images = Images(problem.shape, float(x.std()), problem.outputs)
    try:
        transforms = [_made(name, number, images) for name, number in arguments.augment]
        return ts.data.Batches(x, y, batch_size, seed=arguments.seed, augment=transforms, shape=problem.shape)
    except ValueError as error:  # of a number that is too large
        raise UsageError(f"--augment: {error}") from error


def _made(name: str, number: float | None, images: Images) -> Any:
    kind = _kinds()[name]
    return kind.make(kind.default(images) if number is None else number, images)


def words(chosen: list[tuple[str, float | None]]) -> list[str]:
    """Give the names and numbers as they were written."""
    return [name if number is None else f"{name}:{number:g}" for name, number in chosen]
