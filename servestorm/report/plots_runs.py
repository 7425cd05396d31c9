"""Figures of how far runs scatter and what that lets one say: box plots, and the verdicts' intervals."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from servestorm.plan.labels import ENGINE_SHORT
from servestorm.report.canvas import INK, MARKS, MUTED, Drawing, draw, engine_colour, legend

LINEAR_PERCENT = 40
"""The largest difference that is drawn on a linear axis."""
FEW_TICKS_PERCENT = 300
"""Beyond it the axis has room for few ticks."""
NARROW_LETTERS = 26
"""Of a line of a row's name on a narrow figure, which must leave room for the intervals."""


def boxes(
    name: str, engines: Sequence[str], data: Mapping[str, Mapping[str, Sequence[float | None]]]
) -> Drawing | None:
    """A panel for each metric, with a box over the runs of each engine and a mark for each run.

    `data`: {label of the metric: {engine: values over runs}}. None where no metric has a value. A box spans the
    quartiles with a line at the median; its whiskers reach the outermost runs.
    """
    panels = {label: rows for label, rows in data.items() if any(v is not None for r in rows.values() for v in r)}
    if not panels:
        return None
    shares = {False: min(3, len(panels)), True: 1}

    def paint(figure: Figure, narrow: bool) -> None:
        columns = shares[narrow]
        grid: Any = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False)
        for place, axes in enumerate(itertools.chain.from_iterable(grid)):
            if place >= len(panels):
                axes.set_axis_off()
                continue
            label = list(panels)[place]
            _panel(axes, engines, panels[label], named=place % columns == 0)
            letters = 52 if narrow else 32
            axes.set_title(textwrap.fill(label, letters), loc="left", fontsize=9.5, color=MUTED)

    row_in = 0.95 + 0.36 * len(engines)
    return draw(name, paint, row_in * math.ceil(len(panels) / shares[False]), row_in * len(panels))


def _panel(axes: Axes, engines: Sequence[str], rows: Mapping[str, Sequence[float | None]], named: bool) -> None:
    for index, engine in enumerate(engines):
        values = [value for value in rows.get(engine, ()) if value is not None]
        colour = engine_colour(index)
        if len(values) > 1:
            axes.boxplot(
                values,
                positions=[index],
                widths=0.5,
                orientation="horizontal",
                whis=(0, 100),
                showfliers=False,
                manage_ticks=False,
                boxprops={"color": colour, "linewidth": 1.2},
                whiskerprops={"color": colour, "linewidth": 1.2},
                capprops={"color": colour, "linewidth": 1.2},
                medianprops={"color": colour, "linewidth": 2.4},
            )
        axes.plot(values, [index] * len(values), MARKS[index % 3], color=colour, markersize=4.5, alpha=0.75)
    axes.set_yticks(range(len(engines)), [ENGINE_SHORT[e] if named else "" for e in engines], color=INK)
    axes.set_ylim(len(engines) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=False, axis="y")


def forest(
    name: str, engines: Sequence[str], rows: Sequence[Mapping[str, Any]], margin_percent: float
) -> Drawing | None:
    """Each verdict's difference with its 95 % interval, over the band in which two engines count as equal.

    `rows`: [{"label", "a", "b": engines, "difference_percent": float | None, "ci_percent": [lo, hi] | None, "outcome":
    "A" | "B" | "equivalent" | "inconclusive"}]. None without a row. Linear within LINEAR_PERCENT, beyond that
    logarithmic outside the margin, because one metric may differ by 3 % and the next one threefold.
    """
    if not rows:
        return None
    names = {narrow: [_row_name(row, rows, narrow) for row in rows] for narrow in (False, True)}

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.axvspan(-margin_percent, margin_percent, color=MUTED, alpha=0.16, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, row in enumerate(rows):
            _interval(axes, place, row, engines)
        _percent_axis(axes, rows, margin_percent, narrow)
        axes.set_yticks(range(len(rows)), names[narrow], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(textwrap.fill(_axis_name(rows), 26 if narrow else 80))
        _forest_legend(figure, engines, rows, narrow)

    most_lines = max(name.count("\n") for name in names[True]) + 1
    return draw(name, paint, 1.2 + 0.34 * len(rows), 1.5 + (0.2 + 0.17 * most_lines) * len(rows))


def _many_pairs(rows: Sequence[Mapping[str, Any]]) -> bool:
    return len({(row["a"], row["b"]) for row in rows}) > 1


def _row_name(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], narrow: bool) -> str:
    label = textwrap.fill(row["label"], NARROW_LETTERS) if narrow else str(row["label"])
    if not _many_pairs(rows):
        return label
    pair = f"{ENGINE_SHORT[row['b']]} against {ENGINE_SHORT[row['a']]}"
    return f"{label}\n{pair}" if narrow else f"{label}, {pair}"


def _axis_name(rows: Sequence[Mapping[str, Any]]) -> str:
    if _many_pairs(rows):
        return "difference, %"
    return f"{ENGINE_SHORT[rows[0]['b']]} against {ENGINE_SHORT[rows[0]['a']]}, %"


def _winner(row: Mapping[str, Any]) -> str | None:
    return {"A": row["a"], "B": row["b"]}.get(row["outcome"])


def _interval(axes: Axes, place: int, row: Mapping[str, Any], engines: Sequence[str]) -> None:
    winner = _winner(row)
    index = engines.index(winner) if winner else None
    colour = MUTED if index is None else engine_colour(index)
    if row["difference_percent"] is None:
        axes.annotate("no number", (0, place), xytext=(6, 0), textcoords="offset points", va="center", color=MUTED)
        return
    if row["ci_percent"] is not None:
        axes.plot(row["ci_percent"], [place, place], color=colour, linewidth=2)
    mark = "D" if row["outcome"] == "equivalent" else "o" if index is None else MARKS[index % 3]
    hollow = row["outcome"] == "inconclusive"
    axes.plot(
        row["difference_percent"],
        place,
        mark,
        color=colour,
        markersize=7,
        markeredgewidth=1.5,
        markerfacecolor="none" if hollow else colour,
    )


def _percent_axis(axes: Axes, rows: Sequence[Mapping[str, Any]], margin_percent: float, narrow: bool) -> None:
    known = [row["difference_percent"] for row in rows if row["difference_percent"] is not None]
    known += [end for row in rows for end in row["ci_percent"] or ()]
    low, high = min([*known, -margin_percent]), max([*known, margin_percent])
    if max(-low, high) <= LINEAR_PERCENT:
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9))
    else:
        axes.set_xscale("symlog", linthresh=margin_percent, linscale=0.6)
        axes.set_xlim(low * 1.4, high * 1.4)
        few = narrow or max(-low, high) > FEW_TICKS_PERCENT
        steps = (5, 30, 200, 1000, 10_000) if few else (5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
        ticks = [sign * step for step in steps if step >= margin_percent for sign in (-1, 1)]
        axes.xaxis.set_major_locator(FixedLocator([0, *(tick for tick in ticks if low * 1.4 <= tick <= high * 1.4)]))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_signed))


def _signed(value: float, _position: object = None) -> str:
    text = f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"
    return text.replace("-", "\N{MINUS SIGN}") if value else "0"


def _forest_legend(figure: Figure, engines: Sequence[str], rows: Sequence[Mapping[str, Any]], narrow: bool) -> None:
    handles, labels = [], []
    outcomes = {row["outcome"] for row in rows}
    for index, engine in enumerate(engines):
        if any(_winner(row) == engine for row in rows):
            handles.append(Line2D([], [], color=engine_colour(index), marker=MARKS[index % 3], markersize=7))
            labels.append(f"{ENGINE_SHORT[engine]} is better")
    if "equivalent" in outcomes:
        handles.append(Line2D([], [], color=MUTED, marker="D", markersize=7))
        labels.append("equivalent")
    if "inconclusive" in outcomes:
        handles.append(Line2D([], [], color=MUTED, marker="o", markersize=7, markerfacecolor="none"))
        labels.append("inconclusive")
    legend(figure, handles, labels, narrow, columns=2)
