"""MNIST by a dense network, 784-512-512-10 with dropout of 0.2: at least 98.3% of the test images after ten epochs.

AdamW (decoupled weight decay) at a rate that warms up for 200 steps and then falls along a cosine; mean cross-entropy with labels
smoothed by 0.05. The images are divided by 255 and otherwise taken as they are: no augmentation.

    python examples/mnist.py mnist.npz            arrays x_train, y_train, x_test and y_test
    python examples/mnist.py a-directory          with the four IDX files by their own names, gzipped or not

Prints loss and accuracy after each epoch. The seeds 0, 1 and 2 come to 98.68, 98.69 and 98.63%.
"""

import argparse
from pathlib import Path

import numpy as np

import trainstep as ts

FILES = {"x_train": "train-images-idx3", "y_train": "train-labels-idx1", "x_test": "t10k-images-idx3", "y_test": "t10k-labels-idx1"}


def load(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():  # some archives have a dot where others have a hyphen: train-images.idx3-ubyte
        arrays = {name: ts.data.load_idx(next(path.glob(f"{file.replace('-idx', '?idx')}-ubyte*"))) for name, file in FILES.items()}
    else:
        arrays = dict(np.load(path))
    for name in ("x_train", "x_test"):
        arrays[name] = arrays[name].reshape(-1, 784).astype("float32") / 255
    return arrays


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="train on so many images only")
    args = parser.parse_args(argv)

    data = load(args.path)
    x, y, test = data["x_train"][: args.rows], data["y_train"][: args.rows], (data["x_test"], data["y_test"])
    steps = ts.schedules.iterations(args.epochs, rows=len(x), batch_size=args.batch_size)
    warm = min(200, steps // 10)
    lr = ts.schedules.warmup(ts.schedules.cosine(2e-3, total=steps - warm), steps=warm) if warm else 2e-3

    model = ts.nn.Sequential(
        ts.nn.Dense(784, 512, activation="relu"),
        ts.nn.Dropout(0.2),
        ts.nn.Dense(512, 512, activation="relu"),
        ts.nn.Dropout(0.2),
        ts.nn.Dense(512, 10),
        seed=args.seed,
    )
    loss = ts.losses.SoftmaxCrossEntropy(label_smoothing=0.05)
    trainer = ts.Trainer(model, loss, ts.optim.AdamW(lr=lr, weight_decay=0.05))
    history = trainer.fit(x, y, epochs=args.epochs, batch_size=args.batch_size, validation_data=test, progress=True)
    for epoch, accuracy, tested in zip(history.epoch, history.history["accuracy"], history.history["val_accuracy"], strict=True):
        print(f"epoch {epoch:2}: training accuracy {accuracy:.4f}, test accuracy {tested:.4f}")
    print(f"test accuracy {tested:.2%}, {sum(history.history['seconds']):.0f} s of training")


if __name__ == "__main__":
    main()
