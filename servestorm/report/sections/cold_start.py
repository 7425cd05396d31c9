"""Cold starts, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number, phases_from_start
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

PHASE_OPACITY = {
    4: (1.0, 0.68, 0.42, 0.2),
    5: (1.0, 0.78, 0.56, 0.36, 0.18),
    7: (1.0, 0.86, 0.72, 0.58, 0.44, 0.3, 0.16),
}
"""Shades by the number of phases."""
_ORIGIN = {"docker": "the container start", "kubernetes": "the pod's creation"}
_PAGE_CACHE = {
    "warm": "Files were in the page cache after the first start.",
    "cold": "Files were not in the page cache.",
}


def section(results: Results) -> Section:
    """One figure a group of cold starts."""
    return section_of("cold-start", "Cold start", (_of_group(results, g) for g in groups_of(results, "coldstart")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    metrics = [m for m in results.metrics if m.group == group]
    if not any(value.value is not None for metric in metrics for value in metric.values.values()):
        return None
    named = phases_from_start(settings.backend(results))
    caption = (
        f"Mean seconds of each phase: {', '.join(named.values())}. Each tick is one start's first right answer. The "
        "number at a bar's end is the mean time to steady answers, or to the first right one where none became "
        f"steady. {_PAGE_CACHE['cold' if 'cold page cache' in group else 'warm']}"
    )
    table = metric_table(results, "Cold start by phase", metrics)
    name = f"start-{slug(group)}"
    caption = marked(results, group, caption)
    return make_part(name, _draw(results, group), caption, table, subtitle_of(results, group))


def _draw(results: Results, group: str) -> Drawing:
    """Stacked bars by phase, one an engine; a tick for each start's first right answer."""
    backend = settings.backend(results)
    named = phases_from_start(backend)
    phases = list(zip(named, PHASE_OPACITY[len(named)], strict=True))
    shown = [(phase, opacity) for phase, opacity in phases if results.metric(f"{group}.{phase}_s")]

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for row, engine in enumerate(results.engines):
            left = _phase_bars(axes, results, group, engine, phases)
            total, steady = (results.metric(f"{group}.{name}") for name in ("total_s", "to_steady_s"))
            runs = [run for run in (total.values[engine].runs if total else []) if run is not None]
            axes.plot(runs, [row + 0.36] * len(runs), "|", color=INK, markersize=7, markeredgewidth=1.2)
            ends = [m.values[engine].value for m in (steady, total) if m and m.values[engine].value is not None]
            if left and ends:
                edge, text = max([left, *runs]), number(ends[0], "s")
                axes.annotate(text, (edge, row), xytext=(7, 0), textcoords="offset points", va="center", color=INK)
        axes.set_yticks(range(len(results.engines)), [ENGINE_SHORT[e] for e in results.engines], color=INK)
        axes.set_ylim(len(results.engines) - 0.45, -0.5)
        axes.set_xlim(0, axes.get_xlim()[1] * (1.16 if narrow else 1.08))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"seconds from {_ORIGIN.get(backend, 'the process start')}")
        swatches = [Patch(facecolor=MUTED, alpha=opacity, linewidth=0) for _, opacity in shown]
        legend(figure, swatches, [named[phase] for phase, _ in shown], narrow)

    return draw(slug(group), paint, 1.35 + 0.62 * len(results.engines))


def _phase_bars(axes: Axes, results: Results, group: str, engine: str, phases: Sequence[tuple[str, float]]) -> float:
    """Draws the bar of mean phases; returns where it ends on the axis."""
    left, row = 0.0, results.engines.index(engine)
    for phase, opacity in phases:
        metric = results.metric(f"{group}.{phase}_s")
        mean = metric.values[engine].value if metric else None
        if mean is not None:
            axes.barh(row, mean, 0.46, left=left, color=engine_colour(row), alpha=opacity, linewidth=0)
            left += mean
    return left
