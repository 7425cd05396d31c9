"""Drawing pieces shared by all figures: matplotlib to inline SVG, coloured by the page.

Colours are written as placeholders and replaced by CSS variables, so that one drawing serves light, dark and print.
Each figure is drawn twice, wide and narrow, and the page shows the one that fits: shrunken text is not readable text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
ENGINE_COLOURS, PART_COLOURS = 3, 8
_VARIABLES = (
    {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
    | {f"#0a000{i}": f"--engine-{i}" for i in range(ENGINE_COLOURS)}
    | {f"#0b000{i}": f"--part-{i}" for i in range(PART_COLOURS)}
)
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "servestorm",
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
LINES = ("-", (0, (5, 1.5)), (0, (1, 1.5)))
WIDE_LETTERS = 120
"""Characters of a legend's labels, marks included, that fit into one line of a wide figure."""
MARKS = ("o", "s", "^")


@dataclass(frozen=True)
class Drawing:
    """A figure in both widths, as SVG text without an XML header."""

    wide: str
    narrow: str


def slug(group: str) -> str:
    """A group's name as part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")


def engine_colour(index: int) -> str:
    """Placeholder of the index-th engine's colour."""
    return f"#0a000{index % ENGINE_COLOURS}"


def part_colour(index: int) -> str:
    """Placeholder of the colour of the index-th part of a whole."""
    return f"#0b000{index % PART_COLOURS}"


def draw(
    name: str, painter: Callable[[Figure, bool], None], height_in: float = 3.2, narrow_in: float | None = None
) -> Drawing:
    """Paint the figure in both widths, heights in inches; `name` makes the ids of each drawing its own."""
    return Drawing(
        _render(f"{name}-w", painter, False, (9.4, height_in)),
        _render(f"{name}-n", painter, True, (4.5, narrow_in or height_in * 1.05)),
    )


def _render(name: str, painter: Callable[[Figure, bool], None], narrow: bool, size_in: tuple[float, float]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        painter(figure, narrow)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(sink.getvalue(), name)


def _inline(text: str, name: str) -> str:
    """The bare <svg>, with ids of its own, colours from CSS and the page's font."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="image[0-9a-f]+"', "", svg)  # of what is in them: the same picture may be there twice
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", '<svg focusable="false" aria-hidden="true" ', 1)


def _plain(value: float, _position: object = None) -> str:
    return f"{value:g}"


def log_ticks(axes: Axes) -> None:
    """A logarithmic y axis with ticks at round numbers, few enough to read."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    span = high / low
    steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if span < 12 else (1.0, 2.0, 5.0) if span < 300 else (1.0,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], narrow: bool, columns: int = 1) -> None:
    """A legend above the figure; `columns` is for narrow figures with more than two entries."""
    if not narrow:
        lines = 1 + len("".join(label + " " * 8 for label in labels)) // WIDE_LETTERS
        columns = math.ceil(len(labels) / lines)
    elif len(labels) <= 2:
        columns = len(labels)
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.6,
        borderaxespad=0.2,
    )


def gaps(values: Sequence[float | None]) -> list[float]:
    """The values of a line that is interrupted where there is none."""
    return [float("nan") if value is None else value for value in values]


def offered_load(axes: Axes, begins_s: Sequence[float], bin_s: float, per_s: Sequence[float]) -> list[float]:
    """A panel of the requests offered in each bin; returns the bins' edges in seconds."""
    edges = [*begins_s, begins_s[-1] + bin_s]
    axes.stairs(per_s, edges, fill=True, color=MUTED, alpha=0.28, linewidth=0)
    axes.stairs(per_s, edges, color=MUTED, linewidth=1.2)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.set_ylabel("requests/s")
    return edges
