"""Augmentation: a few images, each a little different in every epoch, teach more than the same images again and again.

A network is trained on a few digits as they are, and on the same digits turned by up to 10 degrees and scaled by up to a tenth,
anew in each epoch. What becomes of an image is a function of (seed, epoch, image), so a run that is resumed draws the same.

    python examples/augmentation.py               the 8 x 8 digits that come with the package, 100 of them
    python examples/augmentation.py mnist.npz     500 images of MNIST, also shifted by up to 2 pixels

Prints the accuracy on images that were not trained on, both ways, as means over several draws of the few.
"""

import argparse

import numpy as np

import trainstep as ts
from trainstep.data import augment


def few(path: str | None, rows: int, seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Draw some training images; the others, or those that are kept for it, are for the test."""
    if path is None:
        x, y = ts.data.load_digits()
        x_few, x_test, y_few, y_test = ts.data.train_test_split(x, y, test_size=len(y) - rows, seed=seed)
        return (x_few, y_few), (x_test, y_test)
    data = np.load(path)
    drawn = np.random.default_rng(seed).permutation(len(data["y_train"]))[:rows]
    x_few, x_test = (x.reshape(-1, 784).astype("float32") / 255 for x in (data["x_train"][drawn], data["x_test"]))
    return (x_few, data["y_train"][drawn]), (x_test, data["y_test"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="an NPZ file of x_train, y_train, x_test and y_test")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rows", type=int, help="training images")
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args(argv)

    side, rows = (8, args.rows or 100) if args.path is None else (28, args.rows or 500)
    changes = [augment.RandomRotation(10), augment.RandomScale(0.9, 1.1)]
    if args.path is not None:
        changes.append(augment.RandomCrop(padding=2))
    accuracies: dict[str, list[float]] = {"as they are": [], "augmented": []}
    for draw in range(args.draws):
        train, test = few(args.path, rows, seed=draw)
        for name in accuracies:
            hidden = ts.nn.Dense(side * side, 128, activation="relu")
            model = ts.nn.Sequential(hidden, ts.nn.Dense(128, 10), seed=draw)
            lr = ts.schedules.cosine(3e-3, total=ts.schedules.iterations(args.epochs, rows, batch_size=16))
            trainer = ts.Trainer(model, "softmax_cross_entropy", ts.optim.Adam(lr=lr))
            if name == "augmented":
                batches = ts.data.Batches(*train, batch_size=16, seed=draw, shape=(side, side), augment=changes)
                trainer.fit(batches, epochs=args.epochs)
            else:
                trainer.fit(*train, epochs=args.epochs, batch_size=16)
            accuracies[name].append(trainer.evaluate(*test)["accuracy"])
    for name, values in accuracies.items():
        print(f"{name:12}: accuracy {np.mean(values):.4f} (from {min(values):.4f} to {max(values):.4f})")


if __name__ == "__main__":
    main()
