"""What each burst of a load did: violations, queue and recovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.results import Results, usable
from servestorm.methods.bursts import Burst
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import settings
from servestorm.report.canvas import MARKS, MUTED, Drawing, draw, engine_colour, legend, slug
from servestorm.report.part import Section, SectionPart, Table, groups_of, make_part, marked, section_of, subtitle_of

Bursts = Mapping[str, Sequence[Burst]]
"""By engine, those of all runs."""


def section(results: Results) -> Section:
    """One figure a group of runs under bursty load."""
    return section_of("bursts", "Burst by burst", (_of_group(results, group) for group in groups_of(results, "bursty")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    runs = [run for run in usable(results.runs) if run.group == group and run.valid is not False]
    data = {
        engine: [burst for run in runs if run.engine == engine for burst in run.bursts] for engine in results.engines
    }
    limit_ms = settings.burst_objective_ms(results)
    rule = (
        f"The objective is {number(limit_ms, 'ms')} a request."
        if limit_ms
        else "Without an objective, recovered means as fast as 99 % of the answers before the first burst."
    )
    shown = part(f"by-{slug(group)}", results.engines, data, rule, subtitle_of(results, group))
    return shown and replace(shown, caption=marked(results, group, shown.caption))


def part(name: str, engines: Sequence[str], data: Bursts, rule: str = "", subtitle: str = "") -> SectionPart | None:
    """What each burst did; `rule` says what counts as a violation and as recovered, in a sentence."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        for burst in data.get(engine, []):
            recover = "not seen" if burst.recover_s is None else number(burst.recover_s)
            share = number(burst.violation_percent, "%")
            violations = f"{_count(burst.violations)} of {burst.requests:,} ({share})"
            title = f"{ENGINE_SHORT[engine]}, burst {burst.index + 1}"
            rows.append([title, violations, _count(burst.queue_peak), recover])
    caption = (
        "For each burst: the share of its requests that violated the objective, the most requests in flight at "
        f"once, and the seconds after its end until latency had recovered. {rule}"
    ).strip()
    head = ["Burst", "Violations", "Longest queue", "s to recover"]
    return make_part(name, drawing, caption, Table("Burst by burst", head, rows), subtitle)


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _draw(name: str, engines: Sequence[str], data: Bursts) -> Drawing | None:
    """By burst: the share of requests over the objective or failed, the longest queue, and the time to recover.

    Several runs may give bursts of the same index.
    Without an objective (no violations are known) the first panel is left out. None without a burst.
    """
    shown = [engine for engine in engines if data.get(engine)]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        judged = any(row.violation_percent is not None for engine in shown for row in data[engine])
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


def _dodge(engines: Sequence[str], engine: str) -> float:
    """Engines side by side, so that equal values do not hide each other."""
    return (engines.index(engine) - (len(engines) - 1) / 2) * 0.16


def _burst_marks(panels: Sequence[Axes], rows: Sequence[Burst], engines: Sequence[str], engine: str) -> None:
    index = engines.index(engine)
    shares = [(row, row.violation_percent) for row in rows]
    series = (shares, [(row, row.queue_peak) for row in rows], [(row, row.recover_s) for row in rows])
    for axes, values in zip(panels, series[-len(panels) :], strict=True):
        known = [(row.index + 1 + _dodge(engines, engine), value) for row, value in values if value is not None]
        if known:
            places, heights = zip(*known, strict=True)
            axes.plot(places, heights, MARKS[index % 3], color=engine_colour(index), markersize=5.5, alpha=0.85)


def _never_recovered(axes: Axes, engines: Sequence[str], shown: Sequence[str], data: Bursts) -> None:
    known = [row.recover_s for engine in shown for row in data[engine] if row.recover_s is not None]
    top = max([*known, 0.1]) * 1.15
    axes.set_ylim(0, top)
    for engine in shown:
        places = [row.index + 1 + _dodge(engines, engine) for row in data[engine] if row.recover_s is None]
        axes.plot(
            places,
            [top] * len(places),
            "x",
            color=engine_colour(engines.index(engine)),
            markersize=6,
            markeredgewidth=1.6,
        )
