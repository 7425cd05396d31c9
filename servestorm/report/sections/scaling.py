"""Throughput by replicas."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import settings
from servestorm.report.canvas import INK, MUTED, Drawing, draw, engine_colour, legend, slug
from servestorm.report.part import (
    Section,
    SectionPart,
    groups_of,
    make_part,
    marked,
    metric_table,
    section_of,
    subtitle_of,
)

_NUMBER_SHARE = 0.1
"""Share of the axis that a bar's number takes."""


def section(results: Results) -> Section:
    """One figure a group of loads on several numbers of replicas."""
    return section_of("scaling", "Scaling", (_of_group(results, group) for group in groups_of(results, "scaling")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    drawing = _draw(results, group)
    if not drawing:
        return None
    metrics = [m for m in results.metrics if m.group == group]
    what = (
        "Capacity under the objective"
        if settings.scaling_measures_capacity(results)
        else f"Throughput with {settings.scaling_concurrency(results)} requests in flight"
    )
    caption = (
        f"{what}, {settings.placed_text(results)}{settings.limits_text(results)}. The dotted line is linear scaling."
    )
    table = metric_table(results, "Throughput by replicas", metrics)
    name = f"replicas-{slug(group)}"
    return make_part(name, drawing, marked(results, group, caption), table, subtitle_of(results, group))


def _draw(results: Results, group: str) -> Drawing | None:
    """Throughput by replicas, beside linear scaling from the first count."""
    rows = [m for m in results.metrics if m.key.startswith(f"{group}.images_per_s_x")]
    counts = [int(metric.key.rpartition("x")[2]) for metric in rows]
    linear = {engine: dict(law.linear) for engine, law in results.figures.scaling_law.get(group, {}).items()}
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
            ideal = [linear[results.engines[index]].get(count, 0.0) for count in counts]
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
        if len(counts) > 1:
            handles.append(Line2D([], [], color=MUTED, linewidth=1.4, linestyle=(0, (2, 2))))
            labels.append("linear scaling")
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
