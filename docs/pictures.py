"""Draws the pictures of docs/training.md, some with numbers of a training run: ``python docs/pictures.py``."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

import trainstep as ts
from trainstep import optim, plots, schedules

HERE = Path(__file__).resolve().parent


def write(picture: plots.Picture, name: str) -> None:
    """Draw a picture into a file of 256 colours, a quarter of the size, for a repository keeps every version of it."""
    whole = BytesIO()
    picture.figure().savefig(whole)
    Image.open(whole).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        HERE / name, optimize=True
    )


def all_schedules(steps: int = 1000) -> dict[str, Any]:
    """Give every schedule, each with its end at that of the picture, by what it is called with there."""
    s = schedules
    # A loss that falls and then stays, five times, is what Plateau is fed with: each fifth ends in a fall of the rate.
    plateau, rates = s.Plateau(0.1, factor=0.5, patience=60), []
    for t in range(steps):
        rates.append(plateau.lr)
        plateau.step(1.0 / (1 + t // 200 + min(t % 200, 100) / 100))
    return {
        "constant": s.constant(0.1),
        "step_decay(factor=0.5)": s.step_decay(0.1, 0.5, every=steps // 5),
        "piecewise({400: 0.3, 800: 0.3})": s.piecewise(0.1, {400: 0.3, 800: 0.3}),
        "exponential(k=0.004)": s.exponential(0.1, 0.004),
        "inverse_time(k=0.01)": s.inverse_time(0.1, 0.01),
        "inverse_sqrt": s.inverse_sqrt(0.1),
        "linear": s.linear(0.1, steps),
        "polynomial(power=2)": s.polynomial(0.1, steps, 2.0),
        "cosine": s.cosine(0.1, steps),
        "cosine_restarts(mult=2)": s.cosine_restarts(0.1, steps // 7, mult=2),
        "one_cycle": s.one_cycle(0.1, steps),
        "warmup(cosine)": s.warmup(s.cosine(0.1, steps - 100), 100),
        "cyclical(decay='half')": s.cyclical(0.01, 0.1, steps // 6, decay="half"),
        "cyclical(shape='welch')": s.cyclical(0.01, 0.1, steps // 6, "welch"),
        "cyclical(shape='hann')": s.cyclical(0.01, 0.1, steps // 6, "hann"),
        "deepseek(warmup=100)": s.deepseek(0.1, steps, warmup=100),
        "join({0: ..., 500: ...})": s.join({0: s.constant(0.1), 500: s.exponential(0.05, 0.005)}),
        "Plateau(factor=0.5)": rates.__getitem__,
    }


def draw_trajectories() -> None:
    """Draw a ravine and a saddle, each with plain gradient descent and with what gets on better."""
    momentum = {"momentum": optim.SGD(lr=0.02, momentum=0.8)}
    rest = {"RMSprop": optim.RMSprop(lr=0.1), "Adam": optim.Adam(lr=0.3)}
    write(plots.trajectories({"SGD": optim.SGD(lr=0.07)} | momentum | rest, plots.ravine, start=(-4, 1), steps=40), "ravine.png")
    across = {"SGD": optim.SGD(lr=0.1), "momentum": optim.SGD(lr=0.1, momentum=0.9), "Adam": optim.Adam(lr=0.1)}
    write(plots.trajectories(across, plots.saddle, start=(-1.5, 1e-4), steps=60), "saddle.png")


def draw_landscapes() -> None:
    """Train on the digits, and look around where that ends, and at the way there."""
    x, y = ts.data.load_digits()
    layers = ts.nn.Dense(64, 64, activation="relu"), ts.nn.Dense(64, 64, activation="relu"), ts.nn.Dense(64, 10)
    model = ts.nn.Sequential(*layers, seed=0)
    trainer = ts.Trainer(model, optimizer=optim.SGD(lr=0.05, momentum=0.9))
    states = [{name: w.copy() for name, w in model.parameters().items()}]
    for _ in range(15):
        trainer.fit(x, y, epochs=1, batch_size=64)
        states.append({name: w.copy() for name, w in model.parameters().items()})
    write(plots.landscape(model, x, y, kind="both"), "landscape.png")
    write(plots.landscape(model, x, y, trajectory=states), "landscape_path.png")


if __name__ == "__main__":
    write(plots.schedules(all_schedules(), 1000), "schedules.png")
    draw_trajectories()
    draw_landscapes()
