"""Figures of what happens under load: where a request's time goes, and what each burst does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, MARKS, MUTED, PAPER, Drawing, draw, engine_colour, legend, part_colour

_TOLD_SHARE = 0.06
"""A part this large, against the longest bar, has room for its number."""


def split(name: str, engines: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing | None:
    """A stacked bar an engine: the parts of a request's mean latency in the order in which they pass.

    `data`: {engine: [{"part": name, "ms": mean a request | None}]}, None where the server does not tell. None where no
    engine has a part. A part under nothing (its sources disagree) is not drawn; the table has it.
    """
    parts = part_names(data)
    totals = {engine: sum(max(0.0, row["ms"] or 0.0) for row in data.get(engine, [])) for engine in engines}
    longest = max(totals.values(), default=0.0)
    if not longest:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for row, engine in enumerate(engines):
            found = {entry["part"]: entry["ms"] for entry in data.get(engine, [])}
            _stack(axes, row, parts, found, longest * (1.6 if narrow else 1.0))
            end = number(totals[engine] or None, "ms")
            axes.annotate(end, (totals[engine], row), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
        axes.set_yticks(range(len(engines)), [ENGINE_SHORT[e] for e in engines], color=INK)
        axes.set_ylim(len(engines) - 0.5, -0.5)
        axes.set_xlim(0, longest * (1.2 if narrow else 1.1))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms per request, mean")
        drawn = [
            place
            for place, part in enumerate(parts)
            if any(row["part"] == part and row["ms"] for engine in engines for row in data.get(engine, []))
        ]
        swatches = [Patch(facecolor=part_colour(place), linewidth=0) for place in drawn]
        legend(figure, swatches, [parts[place] for place in drawn], narrow, columns=2)

    height_in = 0.75 + 0.55 * len(engines)
    return draw(name, paint, height_in + 0.3, height_in + 0.2 * ((len(parts) + 1) // 2))


def part_names(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Every part of any engine, in the order given."""
    return list(dict.fromkeys(row["part"] for rows in data.values() for row in rows))


def _stack(
    axes: Axes, row: int, parts: Sequence[str], found: Mapping[str, float | None], longest_told_ms: float
) -> None:
    left = 0.0
    for index, part in enumerate(parts):
        size = found.get(part) or 0.0
        if size <= 0:
            continue
        axes.barh(row, size, 0.56, left=left, color=part_colour(index), edgecolor=PAPER, linewidth=0.8)
        if size >= _TOLD_SHARE * longest_told_ms:
            axes.text(left + size / 2, row, number(size), ha="center", va="center", color=PAPER, fontsize=8.5)
        left += size


def bursts(name: str, engines: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing | None:
    """By burst: the share of requests over the objective or failed, the longest queue, and the time to recover.

    `data`: {engine: [{"index": from 0, "violations": requests | None, "requests", "queue_peak": requests | None,
    "recover_s": seconds after the burst's end | None where that was not seen}]}; several runs may give the same index.
    Without an objective (no violations are known) the first panel is left out. None without a burst.
    """
    shown = [engine for engine in engines if data.get(engine)]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        judged = any(violation_percent(row) is not None for engine in shown for row in data[engine])
        panels: Any = figure.subplots(3 if judged else 2, 1, sharex=True)
        for axes, title in zip(panels, ("violations, %", "longest queue", "s to recover")[-len(panels) :], strict=True):
            axes.set_title(title, loc="left", fontsize=9.5, color=MUTED)
        for engine in shown:
            _burst_marks(panels, data[engine], engines, engine)
        _never_recovered(panels[-1], engines, shown, data)
        for axes in panels:
            top = axes.get_ylim()[1]
            axes.set_ylim(-0.07 * top, 1.1 * top)  # whole marks at 0 and at the top
            axes.yaxis.set_major_locator(MaxNLocator(3))
        panels[-1].xaxis.set_major_locator(MaxNLocator(6 if narrow else 12, integer=True))
        panels[-1].set_xlabel("burst")
        handles = [
            Line2D([], [], color=engine_colour(i), marker=MARKS[i % 3], linestyle="none")
            for i in map(engines.index, shown)
        ]
        handles.append(Line2D([], [], color=MUTED, marker="x", linestyle="none", markeredgewidth=1.6))
        legend(figure, handles, [*(ENGINE_SHORT[e] for e in shown), "not seen to recover"], narrow)

    return draw(name, paint, 4.6, 5.0)


def violation_percent(burst: Mapping[str, Any]) -> float | None:
    """Share of a burst's requests; None without an objective or a request."""
    if burst["violations"] is None or not burst["requests"]:
        return None
    return float(100 * burst["violations"] / burst["requests"])


def _dodge(engines: Sequence[str], engine: str) -> float:
    """Engines side by side, so that equal values do not hide each other."""
    return (engines.index(engine) - (len(engines) - 1) / 2) * 0.16


def _burst_marks(
    panels: Sequence[Axes], rows: Sequence[Mapping[str, Any]], engines: Sequence[str], engine: str
) -> None:
    index = engines.index(engine)
    shares = [(row, violation_percent(row)) for row in rows]
    series = (shares, [(row, row["queue_peak"]) for row in rows], [(row, row["recover_s"]) for row in rows])
    for axes, values in zip(panels, series[-len(panels) :], strict=True):
        known = [(row["index"] + 1 + _dodge(engines, engine), value) for row, value in values if value is not None]
        if known:
            places, heights = zip(*known, strict=True)
            axes.plot(places, heights, MARKS[index % 3], color=engine_colour(index), markersize=5.5, alpha=0.85)


def _never_recovered(
    axes: Axes, engines: Sequence[str], shown: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    known = [row["recover_s"] for engine in shown for row in data[engine] if row["recover_s"] is not None]
    top = max([*known, 0.1]) * 1.15
    axes.set_ylim(0, top)
    for engine in shown:
        places = [row["index"] + 1 + _dodge(engines, engine) for row in data[engine] if row["recover_s"] is None]
        axes.plot(
            places,
            [top] * len(places),
            "x",
            color=engine_colour(engines.index(engine)),
            markersize=6,
            markeredgewidth=1.6,
        )
