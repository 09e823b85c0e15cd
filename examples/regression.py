"""Regression with a deep network: residual blocks against the same layers without them.

Friedman's function of ten inputs, of which five matter,
y = 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise of standard deviation 1,
is learnt by 102 dense layers of 16 units: as 50 blocks x + w2 relu(w1 x + b1) + b2, which begin as the identity (w2 = 0), and
one after the other. Both are trained alike: mean squared error, AdamW, a cosine, gradients clipped to a norm of 1.

Prints R2 = 1 - sum (y - f(x))^2 / sum (y - mean y)^2 of both on test data, for three seeds, and the most that the noise leaves to
explain. A plain network may stay at the mean of y, R2 0: through so many layers hardly any gradient comes.
"""

import argparse

import numpy as np

import trainstep as ts

WIDTH, BLOCKS = 16, 50


def friedman(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(size=(rows, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x.astype("float32"), (y + rng.normal(size=rows)).astype("float32")[:, None]


def network(residual: bool, seed: int) -> ts.nn.Sequential:
    blocks = []
    for _ in range(BLOCKS):
        first = ts.nn.Dense(WIDTH, WIDTH, activation="relu")
        if residual:
            blocks += [ts.nn.Residual(first, ts.nn.Dense(WIDTH, WIDTH, init="zeros"))]
        else:
            blocks += [first, ts.nn.Dense(WIDTH, WIDTH, activation="relu")]
    return ts.nn.Sequential(ts.nn.Standardize(10), ts.nn.Dense(10, WIDTH), *blocks, ts.nn.Dense(WIDTH, 1), seed=seed)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(argv)

    for seed in args.seeds:
        rng = np.random.default_rng(seed)
        (x_train, y_train), (x_test, y_test) = friedman(4000, rng), friedman(4000, rng)
        mean, std = y_train.mean(), y_train.std()
        steps = ts.schedules.iterations(args.epochs, rows=len(x_train), batch_size=64)
        r2 = {}
        for name in ("residual", "plain"):
            model = network(name == "residual", seed)
            optimizer = ts.optim.AdamW(lr=ts.schedules.cosine(2e-3, total=steps), weight_decay=0.01)
            trainer = ts.Trainer(model, "mse", optimizer, clip_norm=1.0)
            trainer.fit(x_train, (y_train - mean) / std, epochs=args.epochs, batch_size=64)
            error = y_test - (model(x_test) * std + mean)
            r2[name] = 1 - (error**2).sum() / ((y_test - y_test.mean()) ** 2).sum()
        print(f"seed {seed}: R2 {r2['residual']:.4f} residual, {r2['plain']:.4f} plain, {1 - 1 / y_test.var():.4f} possible")


if __name__ == "__main__":
    main()
