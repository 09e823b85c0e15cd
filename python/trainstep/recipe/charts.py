"""Line charts as SVG: text stays text, colours come from the page's style, so that they follow its light and dark mode.

Drawn here and not by matplotlib, whose SVG has fixed colours and names its parts alike in every picture of a page. A chart is 400
units wide, about as many points as a phone has: what is 14 units high is readable there; wider screens take smaller letters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 46
_MOST_TICKS = 6
_FEW = 25  # points that are shown as dots on their line


@dataclass(frozen=True)
class Line:
    """One line, or dots without one: the points, and what their style is called in the page."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    dots: bool = False


def chart(title: str, x_label: str, y_label: str, lines: Sequence[Line], log_x: bool = False, mark: float | None = None) -> str:
    """Draw lines into one panel, with a legend above and a vertical line at `mark`.

    Points that are not finite are left out.
    """
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return '<p class="none">nothing to draw: no loss was finite</p>'
    xs = [x for x, _ in points] + ([] if mark is None else [mark])
    # Losses and shares are measured from 0, so that a small change does not look like a big one.
    low_y, high_y = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    high_y = high_y if high_y > low_y else low_y + 1
    y_ticks = _linear_ticks(low_y, high_y)
    high_y = max(high_y, y_ticks[-1])
    x_ticks = _decades(min(xs), max(xs)) if log_x else _linear_ticks(min(xs), max(xs), whole=True)
    place_x = _scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT, math.log10 if log_x else float)
    place_y = _scale(low_y, high_y, HEIGHT - _BOTTOM, _TOP, float)
    bottom = HEIGHT - _BOTTOM

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_described(title, x_label, lines))}">']
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x = place_x(tick)
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{WIDTH - _RIGHT}"/>')
    across, down = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    parts.append(f'<text class="label" x="{across:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'x="14" y="{down:.1f}" transform="rotate(-90 14 {down:.1f})"'
    parts.append(f'<text class="label" {turned} text-anchor="middle">{escape(y_label)}</text>')
    if mark is not None:
        parts.append(f'<path class="mark" d="M{place_x(mark):.1f} {_TOP}V{bottom}"/>')
    for line in lines:
        parts += _drawn(line, place_x, place_y)
    parts.append("</svg>")
    return _legend(lines, mark) + "".join(parts)


def _drawn(line: Line, place_x: Callable[[float], float], place_y: Callable[[float], float]) -> list[str]:
    points = [(place_x(x), place_y(y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    parts = []
    if not line.dots:
        parts.append(f'<path class="line {line.style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
    # Many dots would hide the line that they lie on, or each other.
    if line.dots or len(points) <= _FEW:
        radius = 1.5 if len(points) > _FEW else 3.5 if line.dots else 2.5
        parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in points]
    return parts


def _legend(lines: Sequence[Line], mark: float | None) -> str:
    keys = [(_key(line), line.name) for line in lines]
    if mark is not None:
        keys.append(('<path class="mark" d="M0 5H24"/>', f"suggested: {mark:g}"))
    if len(keys) == 1:
        return ""
    shown = (
        f'<span><svg class="key" viewBox="0 0 24 10" aria-hidden="true">{key}</svg> {escape(name)}</span>' for key, name in keys
    )
    return f'<p class="legend">{" ".join(shown)}</p>'


def _key(line: Line) -> str:
    if line.dots:
        return f'<circle class="dot {line.style}" cx="12" cy="5" r="3"/>'
    return f'<path class="line {line.style}" d="M0 5H24"/>'


def _described(title: str, x_label: str, lines: Sequence[Line]) -> str:
    """Say in words what is seen: where each line begins, ends, and is lowest or highest."""
    parts = []
    for line in lines:
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
        if points:
            low, high = min(y for _, y in points), max(y for _, y in points)
            parts.append(f"{line.name} from {points[0][1]:.3g} to {points[-1][1]:.3g}, lowest {low:.3g}, highest {high:.3g}")
    return f"{title}, over {x_label}: {'; '.join(parts)}"


def _scale(low: float, high: float, start: float, end: float, of: Callable[[float], float]) -> Callable[[float], float]:
    """Give where numbers from low to high are drawn; a single number in the middle."""
    a, b = of(low), of(high)
    return (lambda v: start + (of(v) - a) / (b - a) * (end - start)) if b > a else (lambda v: (start + end) / 2)


def _linear_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Give round numbers within low and high, 1, 2 or 5 times a power of ten apart; with whole, integers."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= _MOST_TICKS)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Give powers of ten within low and high, or low and high where there is none."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = -(-(last - first + 1) // _MOST_TICKS) or 1
    return [10.0**k for k in range(first, last + 1, every)] or sorted({low, high})
