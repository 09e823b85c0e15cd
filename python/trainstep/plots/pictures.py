"""What all pictures share: an object of numbers that draws itself, a style, and names for what is drawn."""

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from trainstep._checks import path_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers can tell apart, without their yellow, which is too light for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Where there are more lines than colours, the second round differs by its dashes.
DASHES = ("-", "--", ":")
MARK = "#D55E00"  # what lies on a filled contour: the map, viridis, has no red
DPI = 120


class Picture:
    """Numbers that can be drawn: what `landscape`, `trajectories` and `schedules` give.

    Not made directly. The figure is matplotlib's, made without pyplot: no window system, no global state.
    """

    kind: str
    _KINDS: ClassVar[tuple[str, ...]]

    def _draw(self, figure: "Figure", kind: str) -> None:
        raise NotImplementedError

    def figure(self, kind: str | None = None) -> "Figure":
        """Draw the picture.

        Parameters
        ----------
        kind : str, optional
            How, if not as the function was asked for.

        Returns
        -------
        figure : matplotlib.figure.Figure
            To be changed, shown or saved.

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        ValueError
            Where kind is not known.

        Examples
        --------
        >>> import trainstep as ts
        >>> rates = ts.plots.schedules([ts.schedules.cosine(0.1, total=100), ts.schedules.inverse_sqrt(0.1)], steps=100)
        >>> [axes.get_title() for axes in rates.figure().axes]
        ['cosine', 'inverse_sqrt']
        >>> len(rates.figure("together").axes)
        1
        """
        need_matplotlib("figure")
        from matplotlib.figure import Figure

        kind = self.kind if kind is None else known_kind("figure", kind, self._KINDS)
        figure = Figure(dpi=DPI, layout="constrained")
        self._draw(figure, kind)
        return figure

    def plot(self, path: str | os.PathLike[str], kind: str | None = None) -> None:
        """Draw the picture into a file.

        Parameters
        ----------
        path : str or path
            The file; its ending (.png, .pdf, .svg) says the format.
        kind : str, optional
            How, if not as the function was asked for.

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        ValueError
            Where kind or the ending of path is not known.
        OSError
            Where the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import trainstep as ts
        >>> rates = ts.plots.schedules([ts.schedules.cosine(0.1, total=100)], steps=100)
        >>> rates.plot(os.path.join(tempfile.mkdtemp(), "cosine.png"))
        """
        path = file_to_write("plot", path)
        self.figure(kind).savefig(path)


def need_matplotlib(function: str) -> None:
    """Raise ImportError where matplotlib is not installed, and say how it is."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{function} needs matplotlib: pip install trainstep[plot]") from error


def file_to_write(function: str, path: Any) -> str:
    """Give a path as a str; what would make its writing fail after all the work is found before it."""
    text = path_text(f"{function}: path", path)
    need_matplotlib(function)
    from matplotlib.backend_bases import FigureCanvasBase

    ending = os.path.splitext(text)[1].lstrip(".").lower()
    endings = FigureCanvasBase.get_supported_filetypes()
    if ending not in endings:
        raise ValueError(f"{function}: path is {text!r}, expected one that ends in .{', .'.join(sorted(endings))}")
    return text


def known_kind(function: str, kind: Any, kinds: tuple[str, ...]) -> str:
    """Give the way to draw, which must be one of some."""
    if kind not in kinds:
        raise ValueError(f"{function}: kind is {kind!r}, expected {', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}")
    return str(kind)


def named(where: str, things: Any, describe: Callable[[Any], tuple[str, Mapping[str, Any]]], expected: str) -> dict[str, Any]:
    """Give a dict of things by name, or name those of a list: things of one kind by those of their options in which they differ."""
    if isinstance(things, Mapping):
        result = dict(things)
        wrong = [name for name in result if not isinstance(name, str)]
        if wrong:
            raise TypeError(f"{where} has the name {wrong[0]!r}, expected a str")
    elif isinstance(things, Iterable) and not isinstance(things, str | bytes):
        given = list(things)
        described = [describe(thing) for thing in given]
        texts = []
        for kind, options in described:
            alike = [others for name, others in described if name == kind]
            differing = [o for o in options if any(repr(others.get(o)) != repr(options[o]) for others in alike)]
            texts.append(f"{kind}({', '.join(f'{o}={options[o]!r}' for o in differing)})" if differing else kind)
        again = {text for text in texts if texts.count(text) > 1}
        numbered = [f"{text} {i}" if text in again else text for i, text in enumerate(texts)]
        result = dict(zip(numbered, given, strict=True))
    else:
        raise TypeError(f"{where} is a {type(things).__name__}, expected a list, or a dict by name, of {expected}")
    if not result:
        raise ValueError(f"{where} is empty, expected at least one of the {expected}")
    return result


def line_style(i: int) -> dict[str, Any]:
    """Give line i of several a colour and dashes of its own."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i // len(COLORS) % len(DASHES)]}


def panels(figure: "Figure", count: int, width: float, height: float) -> "list[Axes]":
    """Lay out small pictures in rows of at most four, each of a size in inches."""
    columns = next((c for c in (4, 3) if count % c == 0), 4 if count > 6 else 3) if count > 4 else count
    rows = -(-count // columns)
    figure.set_size_inches(width * columns, height * rows)
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def caption(axes: "Axes", text: str) -> None:
    """Put a title over a small picture; a long one in several lines, which would else run into its neighbour's."""
    lines = textwrap.wrap(text, 34, break_long_words=False)
    axes.set_title("\n".join(lines), fontsize=9)


def name_axes(figure: "Figure", places: "list[Axes]", x: str, y: str) -> None:
    """Say what the axes are: once for all small pictures, or on the one."""
    if len(set(places)) > 1:
        figure.supxlabel(x, fontsize=10)
        figure.supylabel(y, fontsize=10)
    else:
        places[0].set(xlabel=x, ylabel=y)


def plain(axes: "Axes") -> None:
    """Take away what a curve does not need: a grid in light grey, no frame above and on the right."""
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
