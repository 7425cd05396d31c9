"""Latency over time, with the offered load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from servestorm.analysis.figures import Series
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import LINES, Drawing, draw, engine_colour, gaps, legend, log_ticks, offered_load, slug
from servestorm.report.part import Section, SectionPart, Table, groups_with_samples, make_part, marked, section_of


def section(results: Results) -> Section:
    """One figure a group of runs under load."""
    groups = groups_with_samples(results)
    return section_of("over-time", "Latency over time", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.over_time[group]
    drawing = _draw(results, group)
    if not drawing:
        return None
    head = ["s", "offered requests/s"]
    for engine in results.engines:
        head += [f"{ENGINE_SHORT[engine]} median, ms", f"{ENGINE_SHORT[engine]} slowest, ms"]
    rows = []
    for index, second in enumerate(data.t_s):
        row = [f"{second:g}", number(data.offered_per_s[index])]
        for engine in results.engines:
            series = data.engines[engine]
            row += [number(series.median_ms[index]), number(series.slowest_ms[index])]
        rows.append(row)
    caption = (
        f"Top: median latency in bins of {data.bin_s:g} s, shaded up to the slowest answer, all counted runs "
        "together (log scale). Bottom: the offered load."
    )
    title = results.groups[group]
    table = Table(f"Latency over time, {title}", head, rows)
    return make_part(f"over-time-{slug(group)}", drawing, marked(results, group, caption), table, title)


def _draw(results: Results, group: str) -> Drawing | None:
    """Median and slowest latency of each bin, above the offered load."""
    data = results.figures.over_time.get(group)
    if not data or not any(ms is not None for own in data.engines.values() for ms in own.slowest_ms):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        latency, load = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        handles = []
        times = [t + data.bin_s / 2 for t in data.t_s]
        for index, engine in enumerate(results.engines):
            handles.append(_line(latency, times, data.engines[engine], index))
        log_ticks(latency)
        latency.set_ylabel("ms per image")
        edges = offered_load(load, data.t_s, data.bin_s, data.offered_per_s)
        load.set_xlabel("seconds of measured load")
        load.set_xlim(edges[0], edges[-1])
        labels = [f"{ENGINE_SHORT[engine]}, median" for engine in results.engines]
        legend(figure, handles, labels, narrow)

    return draw(f"time-{slug(group)}", paint, 3.9)


def _line(axes: Axes, times: Sequence[float], data: Series, index: int) -> Any:
    colour = engine_colour(index)
    median = gaps(data.median_ms)
    slowest = gaps(data.slowest_ms)
    axes.fill_between(times, median, slowest, color=colour, alpha=0.16, linewidth=0)
    axes.plot(times, slowest, color=colour, linewidth=0.7, alpha=0.6)
    (line,) = axes.plot(times, median, color=colour, linestyle=LINES[index % 3])
    return line
