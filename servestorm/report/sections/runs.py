"""The scatter of each metric between runs."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, MARKS, MUTED, Drawing, draw, engine_colour
from servestorm.report.part import Section, SectionPart, Table, make_part, section_of
from servestorm.report.result_table import mark_of

RunValues = Mapping[str, Mapping[str, Sequence[float | None]]]
"""Values over runs, by the metric's label and the engine."""


def section(results: Results) -> Section:
    """One figure with a panel for each judged metric."""
    return section_of("runs", "Scatter between runs", [_of_study(results)])


def _of_study(results: Results) -> SectionPart | None:
    """Every metric that is judged, with its runs."""
    asked = dict.fromkeys(judged.metric for judged in results.verdicts)
    metrics = [metric for metric in results.metrics if metric.key in asked]
    data = {
        f"{results.groups[m.group]}: {m.label}, {m.unit}": {e: m.values[e].runs for e in results.engines}
        for m in metrics
    }
    shown = part("runs-figure", results.engines, data)
    marks = {
        f"{results.groups[m.group]} on {ENGINE_SHORT[e]}: {mark}"
        for m in metrics
        for e in results.engines
        if (mark := mark_of(m.values[e]))
    }
    if not shown or not marks:
        return shown
    return replace(shown, caption=f"Only runs that do not count ({'; '.join(sorted(marks))}). {shown.caption}")


def part(name: str, engines: Sequence[str], data: RunValues, subtitle: str = "") -> SectionPart | None:
    """A box plot of each metric's runs."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    rows = [
        [f"{label}: {ENGINE_SHORT[engine]}", ", ".join(number(value) for value in values.get(engine, []))]
        for label, values in data.items()
        for engine in engines
    ]
    caption = (
        "Each mark is one run. A box spans the middle half of the runs, with a line at their median; its whiskers "
        "reach the outermost runs. Every panel has its own scale, which need not begin at 0."
    )
    return make_part(name, drawing, caption, Table("Every run's value", ["Metric", "Runs"], rows), subtitle)


def _draw(name: str, engines: Sequence[str], data: RunValues) -> Drawing | None:
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
