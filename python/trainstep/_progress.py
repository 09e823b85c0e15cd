"""The progress bar of `Trainer.fit`."""

from collections.abc import Mapping
from typing import Any


class Bar:
    """A progress bar over all epochs, counted in updates, or where their number is not known in epochs."""

    def __init__(self, epochs: int, updates: int | None) -> None:
        from tqdm.auto import tqdm

        self._updates = updates
        self._done = 0
        total, unit = (epochs, "epoch") if updates is None else (epochs * updates, "step")
        self._bar: Any = tqdm(total=total, unit=unit, dynamic_ncols=True)

    def update(self, updates: int, rows: int, loss: float, accuracy: float | None) -> None:
        """Show where the running epoch stands."""
        if self._updates is not None:
            self._bar.n = self._done + updates
        self._show({"loss": loss, "accuracy": accuracy})

    def end_epoch(self, values: Mapping[str, Any]) -> None:
        """Show the measures of an epoch that has ended."""
        self._done += 1 if self._updates is None else self._updates
        self._bar.n = self._done
        self._show({k: v for k, v in values.items() if k not in ("lr", "seconds")})

    def _show(self, values: Mapping[str, Any]) -> None:
        self._bar.set_postfix({k: f"{v:.4f}" for k, v in values.items() if v is not None}, refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Draw the bar a last time."""
        self._bar.refresh()
        self._bar.close()
