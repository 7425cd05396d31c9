"""CPU time and memory of the servers under load."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, MUTED, Drawing, draw, engine_colour, slug
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

_PANELS = (("cpu_ms_per_image", "CPU per image, ms"), ("rss_peak_mib", "peak memory, MiB"))


def section(results: Results) -> Section:
    """One figure a group of runs under steady load, or under bursty load where there are none."""
    groups = groups_of(results, "steady") or groups_of(results, "bursty")
    return section_of("use", "Resource use", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    drawing = _draw(results, group)
    if not drawing:
        return None
    names = ("cpu_ms_per_image", "rss_peak_mib")
    metrics = [m for m in results.metrics if m.group == group and m.key.rpartition(".")[2] in names]
    caption = (
        "CPU time and peak memory of all the servers' processes, from the kernel. Memory that processes share is "
        "counted in each of them."
    )
    name = f"used-{slug(group)}"
    table = metric_table(results, "Resource use", metrics)
    return make_part(name, drawing, marked(results, group, caption), table, subtitle_of(results, group))


def _draw(results: Results, group: str) -> Drawing | None:
    """CPU time an image and peak memory under a load."""
    rows = [(results.metric(f"{group}.{name}"), title) for name, title in _PANELS]
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
