"""Throughput against latency of every setting of a sweep, with its Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.figures import Setting
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, log_ticks, slug
from servestorm.report.part import (
    Section,
    SectionPart,
    Table,
    groups_of,
    make_part,
    section_of,
    subtitle_of,
)

Settings = Mapping[str, Sequence[Setting]]
"""By engine."""


def section(results: Results) -> Section:
    """One figure a group of sweeps."""
    groups = groups_of(results, "sweep")
    return section_of("sweep", "Throughput against latency", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.sweep.get(group, {})
    return part(f"front-{slug(group)}", results.engines, data, subtitle_of(results, group))


def part(name: str, engines: Sequence[str], data: Settings, subtitle: str = "") -> SectionPart | None:
    """Throughput against p99 of every setting that was tried."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        place = 0
        for setting in _drawable(data.get(engine, [])):
            place += setting.front
            mark = f"front, {place}" if setting.front else "DISTURBED" if setting.disturbed else "beaten"
            title = f"{ENGINE_SHORT[engine]}, {setting.label}"
            rows.append([title, number(setting.images_per_s), number(setting.p99_ms), mark])
        lacking = [s for s in data.get(engine, []) if s.images_per_s is None or s.p99_ms is None]
        rows += [
            [f"{ENGINE_SHORT[engine]}, {s.label}", number(s.images_per_s), number(s.p99_ms), "no number"]
            for s in lacking
        ]
    caption = (
        "Every setting by its throughput and its p99 (log scale): the lower right is better. The line is the "
        "engine's Pareto front: no other setting beats these in both; the table has their numbers."
    )
    head = ["Setting", "images/s", "p99, ms per request", "Pareto front"]
    return make_part(name, drawing, caption, Table("Throughput against p99", head, rows), subtitle)


def _draw(name: str, engines: Sequence[str], data: Settings) -> Drawing | None:
    """p99 against throughput of every setting; the Pareto front is joined and numbered by throughput.

    Settings that lack a number are left out of the drawing; None where none is left.
    """
    points = {engine: _drawable(data.get(engine, [])) for engine in engines}
    shown = [engine for engine in engines if points[engine]]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        handles = [_front(axes, points[engine], engines.index(engine)) for engine in shown]
        axes.set_xlim(left=0)
        axes.margins(x=0.08, y=0.12)
        axes.autoscale_view()
        axes.set_xlim(left=0)
        log_ticks(axes)
        axes.set_ylabel("p99, ms per request")
        axes.set_xlabel("images/s")
        handles.append(Line2D([], [], color=MUTED, marker="o", linestyle="none", markerfacecolor="none"))
        labels = [*(f"{ENGINE_SHORT[engine]}, Pareto front" for engine in shown), "beaten by another setting"]
        if any(setting.disturbed for engine in shown for setting in points[engine]):
            handles.append(Line2D([], [], color=MUTED, marker="x", linestyle="none"))
            labels.append("DISTURBED")
        legend(figure, handles, labels, narrow)

    return draw(name, paint, 3.8, 4.2)


def _drawable(settings: Sequence[Setting]) -> list[Setting]:
    """The settings with both numbers, by throughput: the front's are numbered from 1 in this order."""
    known = [s for s in settings if s.images_per_s is not None and s.p99_ms is not None]
    return sorted(known, key=lambda setting: setting.images_per_s or 0.0)


def _front(axes: Axes, settings: Sequence[Setting], index: int) -> Line2D:
    colour, mark = engine_colour(index), MARKS[index % 3]
    beaten = [(s.images_per_s, s.p99_ms) for s in settings if not s.front and not s.disturbed]
    if beaten:
        rates, latencies = zip(*beaten, strict=True)
        axes.plot(rates, latencies, mark, color=colour, markerfacecolor="none", markersize=5, alpha=0.65)
    if disturbed := [(s.images_per_s, s.p99_ms) for s in settings if s.disturbed]:
        rates, latencies = zip(*disturbed, strict=True)
        axes.plot(rates, latencies, "x", color=MUTED, markersize=5, alpha=0.65)
    best = [(s.images_per_s, s.p99_ms) for s in settings if s.front]
    rates, latencies = zip(*best, strict=True) if best else ((), ())
    (line,) = axes.plot(
        rates, latencies, marker=mark, color=colour, linestyle=LINES[index % 3], linewidth=1.4, markersize=6
    )
    for place, (rate, latency_ms) in enumerate(best, 1):
        # the first engine's numbers above, the next one's below: fronts may lie close to each other
        side = (0, 7) if index % 2 == 0 else (0, -8)
        axes.annotate(
            str(place),
            (rate, latency_ms),
            xytext=side,
            textcoords="offset points",
            ha="center",
            va="bottom" if index % 2 == 0 else "top",
            color=colour,
            fontsize=8.5,
        )
    return line
