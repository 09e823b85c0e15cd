"""Progress bars: of `Trainer.fit`, and of work that is done piece by piece."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

_PATIENCE = 1.0  # seconds before the bar of an amount is drawn: what is done by then needs none


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


class Amount(AbstractContextManager["Amount"]):
    """How much is done of something counted, bytes or rows: a bar where it is shown and takes more than a second."""

    def __init__(self, what: str, unit: str, shown: bool, total: int = 0) -> None:
        self.count = 0
        self.total = total
        self._about: dict[str, Any] = {"desc": what, "unit": unit, "unit_scale": True, "dynamic_ncols": True, "delay": _PATIENCE}
        self._shown = shown
        self._bar: Any = None

    def reached(self, count: int) -> None:
        """Take in how much is done in all."""
        self.count = count
        if not self._shown:
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self.total, **self._about)
        self._bar.update(count - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
