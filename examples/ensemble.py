"""An ensemble: several networks, trained alike from different seeds, are better together than one by one.

p(class | x) = mean over the networks of softmax(f_k(x)). Each is trained on the same few digits; where they are unsure, they err in
different ways.

Prints the mean test accuracy of one network, and that of the mean of all.
"""

import argparse

import numpy as np

import trainstep as ts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--rows", type=int, default=300, help="training images")
    args = parser.parse_args(argv)

    x, y = ts.data.load_digits()
    x_train, x_test, y_train, y_test = ts.data.train_test_split(x, y, test_size=len(y) - args.rows, seed=0)
    probabilities = []
    for seed in range(args.networks):
        hidden = [ts.nn.Dense(inputs, 32, activation="relu") for inputs in (64, 32, 32)]
        model = ts.nn.Sequential(*hidden, ts.nn.Dense(32, 10), seed=seed)
        ts.Trainer(model, optimizer=ts.optim.Adam(lr=3e-3)).fit(x_train, y_train, epochs=args.epochs, batch_size=16)
        probabilities.append(ts.ops.softmax(model(x_test)))

    def accuracy(p: np.ndarray) -> float:
        return float((p.argmax(axis=1) == y_test).mean())

    alone = [accuracy(p) for p in probabilities]
    print(f"one network : accuracy {np.mean(alone):.4f} (from {min(alone):.4f} to {max(alone):.4f})")
    print(f"{args.networks} together : accuracy {accuracy(np.mean(probabilities, axis=0)):.4f}")


if __name__ == "__main__":
    main()
