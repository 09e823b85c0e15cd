"""Transfer: a network that has learnt to tell digits apart needs few images to learn which of them are odd.

It is trained on half of the digits. Its hidden layers are taken over and frozen, and a new head is trained on a few images from
the other half, labelled odd or even; then all layers are trained at a tenth of the rate. Beside it the same network is trained from
scratch on the same few images, for as many epochs.

Prints the accuracy on all images that were in neither training, after each of these, as means over several draws.
"""

import argparse

import numpy as np

import trainstep as ts

RATE = 3e-3


def network(outputs: int, seed: int) -> ts.nn.Sequential:
    hidden = ts.nn.Dense(64, 128, activation="relu"), ts.nn.Dense(128, 64, activation="relu")
    return ts.nn.Sequential(*hidden, ts.nn.Dense(64, outputs), seed=seed)


def train(model: ts.nn.Sequential, x: np.ndarray, y: np.ndarray, lr: float, epochs: int) -> None:
    ts.Trainer(model, "softmax_cross_entropy", ts.optim.Adam(lr=lr)).fit(x, y, epochs=epochs, batch_size=16)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--few", type=int, default=20, help="images labelled odd or even")
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args(argv)

    x, y = ts.data.load_digits()
    accuracies: dict[str, list[float]] = {"head alone": [], "then all layers": [], "from scratch": []}
    for draw in range(args.draws):
        x_known, x_new, y_known, y_new = ts.data.train_test_split(x, y, test_size=0.5, seed=draw)
        x_few, x_test, y_few, y_test = ts.data.train_test_split(x_new, y_new, test_size=len(y_new) - args.few, seed=draw)
        known = network(10, seed=draw)
        train(known, x_known, y_known, RATE, epochs=20)

        model = network(2, seed=draw)
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            model.parameters()[name][...] = known.parameters()[name]
        model.freeze("0", "1")
        train(model, x_few, y_few % 2, RATE, args.epochs)
        accuracies["head alone"].append((model(x_test).argmax(axis=1) == y_test % 2).mean())
        model.unfreeze()
        train(model, x_few, y_few % 2, RATE / 10, args.epochs)
        accuracies["then all layers"].append((model(x_test).argmax(axis=1) == y_test % 2).mean())

        scratch = network(2, seed=draw)
        train(scratch, x_few, y_few % 2, RATE, 2 * args.epochs)
        accuracies["from scratch"].append((scratch(x_test).argmax(axis=1) == y_test % 2).mean())
    for name, values in accuracies.items():
        print(f"{name:15}: accuracy {np.mean(values):.3f} (from {min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
