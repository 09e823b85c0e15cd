"""Handwritten digits, from data to a saved network: the shortest whole training run.

A network of one hidden layer on the 1,797 images of 8 x 8 pixels that come with the package: minimize the mean cross-entropy of
softmax(w2 relu(w1 x + b1) + b2) by Adam, with a rate that falls along a cosine.

Prints the epochs' losses and accuracies on held-out images, and how the images that it has not seen are classified in the end.
With --save it writes the network to a file, and with --plot the learning curves to another.
"""

import argparse

import trainstep as ts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", metavar="FILE.safetensors")
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args(argv)

    x, y = ts.data.load_digits()
    x_train, x_test, y_train, y_test = ts.data.train_test_split(x, y, test_size=0.2, seed=args.seed)
    steps = ts.schedules.iterations(args.epochs, rows=len(x_train), batch_size=32)

    model = ts.nn.Sequential(ts.nn.Dense(64, 128, activation="relu"), ts.nn.Dense(128, 10), seed=args.seed)
    trainer = ts.Trainer(model, "softmax_cross_entropy", ts.optim.Adam(lr=ts.schedules.cosine(3e-3, total=steps)))
    history = trainer.fit(x_train, y_train, epochs=args.epochs, batch_size=32, validation_data=(x_test, y_test))

    curves = history.history
    for epoch in sorted({1, 2, 5, 10, 20, args.epochs} & set(history.epoch)):
        loss, val_loss, val_accuracy = (curves[name][epoch - 1] for name in ("loss", "val_loss", "val_accuracy"))
        print(f"epoch {epoch:2}: training loss {loss:.4f}, test loss {val_loss:.4f}, test accuracy {val_accuracy:.4f}")
    right = model(x_test).argmax(axis=1) == y_test
    print(f"{right.sum()} of {len(right)} test images are right: {right.mean():.2%}")
    if args.save:
        model.save(args.save)
    if args.plot:
        history.plot(args.plot)


if __name__ == "__main__":
    main()
