"""The report's figures that are drawn from its table of results: cold start, latency, scaling, resource use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number, phases_from_start
from servestorm.report.canvas import INK, LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, log_ticks

PHASE_OPACITY = {
    4: (1.0, 0.68, 0.42, 0.2),
    5: (1.0, 0.78, 0.56, 0.36, 0.18),
    7: (1.0, 0.86, 0.72, 0.58, 0.44, 0.3, 0.16),
}
"""Shades by the number of phases."""
_ORIGIN = {"docker": "the container start", "kubernetes": "the pod's creation"}


def slug(group: str) -> str:
    """A group's name as part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")


def cold_start(results: Results, group: str) -> Drawing:
    """Stacked bars by phase, one an engine; a tick for each start's first right answer."""
    backend = results.study.plan.backend
    named = phases_from_start(backend)
    phases = list(zip(named, PHASE_OPACITY[len(named)], strict=True))
    shown = [(phase, opacity) for phase, opacity in phases if results.metric(f"{group}.{phase}_s")]

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for row, engine in enumerate(results.engines):
            left = _phase_bars(axes, results, group, engine, phases)
            total = results.metric(f"{group}.total_s")
            runs = [run for run in (total.values[engine].runs if total else []) if run is not None]
            axes.plot(runs, [row + 0.36] * len(runs), "|", color=INK, markersize=7, markeredgewidth=1.2)
            if left:
                edge = max([left, *runs])
                axes.annotate(
                    number(left, "s"), (edge, row), xytext=(7, 0), textcoords="offset points", va="center", color=INK
                )
        axes.set_yticks(range(len(results.engines)), [ENGINE_SHORT[e] for e in results.engines], color=INK)
        axes.set_ylim(len(results.engines) - 0.45, -0.5)
        axes.set_xlim(0, axes.get_xlim()[1] * (1.16 if narrow else 1.08))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"seconds from {_ORIGIN.get(backend, 'the process start')}")
        from matplotlib.patches import Patch

        swatches = [Patch(facecolor=MUTED, alpha=opacity, linewidth=0) for _, opacity in shown]
        legend(figure, swatches, [named[phase] for phase, _ in shown], narrow)

    return draw(slug(group), paint, 1.35 + 0.62 * len(results.engines))


def _phase_bars(axes: Axes, results: Results, group: str, engine: str, phases: Sequence[tuple[str, float]]) -> float:
    """Draws the bar of mean phases; returns its end in seconds."""
    left, row = 0.0, results.engines.index(engine)
    for phase, opacity in phases:
        metric = results.metric(f"{group}.{phase}_s")
        mean = metric.values[engine].value if metric else None
        if mean is not None:
            axes.barh(row, mean, 0.46, left=left, color=engine_colour(row), alpha=opacity, linewidth=0)
            left += mean
    return left


def over_time(results: Results, group: str) -> Drawing | None:
    """Median and slowest answer of each bin, with the offered load beneath."""
    data = results.figures["over_time"].get(group)
    if not data or not any(ms is not None for own in data["engines"].values() for ms in own["slowest_ms"]):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        latency, load = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        handles = []
        times = [t + data["bin_s"] / 2 for t in data["t_s"]]
        for index, engine in enumerate(results.engines):
            handles.append(_over_time_line(latency, times, data["engines"][engine], index))
        log_ticks(latency)
        latency.set_ylabel("ms per image")
        edges = [*data["t_s"], data["t_s"][-1] + data["bin_s"]]
        load.stairs(data["offered_per_s"], edges, fill=True, color=MUTED, alpha=0.28, linewidth=0)
        load.stairs(data["offered_per_s"], edges, color=MUTED, linewidth=1.2)
        load.set_ylim(0, None)
        load.yaxis.set_major_locator(MaxNLocator(2))
        load.set_ylabel("requests/s")
        load.set_xlabel("seconds of measured load")
        load.set_xlim(edges[0], edges[-1])
        labels = [f"{ENGINE_SHORT[engine]}, median" for engine in results.engines]
        legend(figure, handles, labels, narrow)

    return draw(f"time-{slug(group)}", paint, 3.9)


def _over_time_line(axes: Axes, times: Sequence[float], data: dict[str, list[float | None]], index: int) -> Any:
    colour = engine_colour(index)
    median = [float("nan") if v is None else v for v in data["median_ms"]]
    slowest = [float("nan") if v is None else v for v in data["slowest_ms"]]
    axes.fill_between(times, median, slowest, color=colour, alpha=0.16, linewidth=0)
    axes.plot(times, slowest, color=colour, linewidth=0.7, alpha=0.6)
    (line,) = axes.plot(times, median, color=colour, linestyle=LINES[index % 3])
    return line


def spectrum(results: Results, group: str) -> Drawing | None:
    """Latency at every share of answers that the samples suffice for."""
    data = results.figures["spectrum"].get(group)
    if not data or not any(data.values()):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        handles, labels = [], []
        for index, engine in enumerate(results.engines):
            if not data[engine]:
                continue
            shares, values = zip(*data[engine], strict=True)
            (line,) = axes.plot(
                [1 / (1 - share) for share in shares],
                values,
                color=engine_colour(index),
                linestyle=LINES[index % 3],
            )
            axes.plot(1 / (1 - shares[-1]), values[-1], MARKS[index % 3], color=engine_colour(index), markersize=5)
            handles.append(line)
            labels.append(ENGINE_SHORT[engine])
        axes.set_xscale("log")
        end = max(1 / (1 - points[-1][0]) for points in data.values() if points)
        ticks = [share for share in (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999) if 1 / (1 - share) <= end * 1.3]
        axes.set_xticks([1 / (1 - share) for share in ticks], [f"p{100 * share:g}" for share in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        log_ticks(axes)
        axes.set_ylabel("ms per image")
        axes.set_xlabel("share of answers that were faster")
        legend(figure, handles, labels, narrow)

    return draw(f"spectrum-{slug(group)}", paint)


_NUMBER_SHARE = 0.1
"""Of the axis, that a bar's number takes."""


def scaling(results: Results, group: str) -> Drawing | None:
    """Throughput by replicas, beside what the first count would give if replicas simply added up."""
    rows = [m for m in results.metrics if m.key.startswith(f"{group}.images_per_s_x")]
    counts = [int(metric.key.rpartition("x")[2]) for metric in rows]
    if not any(value.value is not None for metric in rows for value in metric.values.values()):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        width = 0.8 / len(results.engines)
        for index, engine in enumerate(results.engines):
            values = [metric.values[engine] for metric in rows]
            places = [place - 0.4 + width * (index + 0.5) for place in range(len(counts))]
            heights = [value.value or 0 for value in values]
            axes.bar(places, heights, width * 0.86, color=engine_colour(index), linewidth=0, label=ENGINE_SHORT[engine])
            ideal = [heights[0] * count / counts[0] for count in counts]
            for place, value, level in zip(places, values, ideal, strict=True):
                if value.value is not None:
                    axes.annotate(
                        number(value.value),
                        (place, _clear_of(level, value.value, max(heights + ideal))),
                        xytext=(0, 4),
                        textcoords="offset points",
                        ha="center",
                        color=INK,
                    )
            _ideal(axes, places, ideal, width)
        axes.set_xticks(range(len(counts)), [f"{c} replica{'s' if c > 1 else ''}" for c in counts], color=INK)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.14)
        axes.set_ylabel("images/s")
        handles, labels = axes.get_legend_handles_labels()
        from matplotlib.lines import Line2D

        if len(counts) > 1:
            handles.append(Line2D([], [], color=MUTED, linewidth=1.4, linestyle=(0, (2, 2))))
            labels.append("if replicas added up")
        legend(figure, handles, labels, narrow)

    return draw(slug(group), paint)


def _clear_of(level: float, value: float, highest: float) -> float:
    """Where a bar's number stands: on the bar, or on the dotted line where that would cross it."""
    return level if value < level < value + _NUMBER_SHARE * highest else value


def _ideal(axes: Axes, places: Sequence[float], levels: Sequence[float], width: float) -> None:
    for place, level in list(zip(places, levels, strict=True))[1:]:
        if level:
            axes.plot(
                [place - width * 0.43, place + width * 0.43],
                [level, level],
                color=MUTED,
                linewidth=1.4,
                linestyle=(0, (2, 2)),
            )


USE_ROWS = (
    ("cpu_ms_per_image", "CPU per image, ms"),
    ("rss_peak_mib", "peak memory, MiB"),
)


def use(results: Results, group: str) -> Drawing | None:
    """CPU time an image and peak memory under a load."""
    rows = [(results.metric(f"{group}.{name}"), title) for name, title in USE_ROWS]
    if not any(m and any(v.value is not None for v in m.values.values()) for m, _ in rows):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        panels: Any = figure.subplots(2 if narrow else 1, 1 if narrow else 2)
        for axes, (metric, title) in zip(panels, rows, strict=True):
            for row, engine in enumerate(results.engines):
                value = metric.values[engine].value if metric else None
                axes.barh(row, value or 0, 0.5, color=engine_colour(row), linewidth=0)
                axes.annotate(
                    number(value), (value or 0, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK
                )
            axes.set_yticks(range(len(results.engines)), [ENGINE_SHORT[e] for e in results.engines], color=INK)
            axes.set_ylim(len(results.engines) - 0.5, -0.5)
            axes.margins(x=0.18)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(visible=False, axis="y")
            axes.set_title(title, loc="left", fontsize=9.5, color=MUTED)

    return draw(f"use-{slug(group)}", paint, 1.15 + 0.5 * len(results.engines), 1.7 + 0.9 * len(results.engines))
