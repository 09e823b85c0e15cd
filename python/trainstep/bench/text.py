"""How figures are written: three digits or so, Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def digits(value: float) -> str:
    """Write a figure to three digits or so, without exponents."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table, the first column to the left, figures to the right; cells are padded to read well as plain text too."""
    cells = [list(titles), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]
    return [lines[0], "|" + "|".join(rule) + "|", *lines[1:]]


def size(n: float) -> str:
    """Write a number of bytes in binary units."""
    power = sum(n >= 1 << 10 * k for k in (1, 2, 3))
    return f"{n / (1 << 10 * power):.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
