"""Throughput by replicas, with the Universal Scalability Law fitted to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.figures import Law
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, slug
from servestorm.report.part import Section, SectionPart, Table, groups_of, make_part, marked, section_of, subtitle_of


def section(results: Results) -> Section:
    """One figure a group of loads on several numbers of replicas, where there are enough of them for the law."""
    return section_of("scaling-law", "Scaling law", (_of_group(results, g) for g in groups_of(results, "scaling")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.scaling_law.get(group, {})
    if not any(law.curve for law in data.values()):
        return None
    shown = part(f"law-{slug(group)}", results.engines, data, subtitle_of(results, group))
    return shown and replace(shown, caption=marked(results, group, shown.caption))


def part(name: str, engines: Sequence[str], data: Mapping[str, Law], subtitle: str = "") -> SectionPart | None:
    """Throughput by replicas with the Universal Scalability Law fitted to it."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    laws = {engine: data.get(engine, _NO_RUNS) for engine in engines}
    counts = sorted({n for law in laws.values() for n, _ in law.points})
    head = ["Replicas", *(f"{ENGINE_SHORT[engine]}, images/s" for engine in engines)]
    rows = [[_replicas(n), *(number(dict(laws[engine].means).get(n)) for engine in engines)] for n in counts]
    for title, value_of in _COEFFICIENTS:
        rows.append([title, *(_coefficient(value_of(laws[engine])) for engine in engines)])
    caption = (
        "Each mark is one run; the line is Gunther's Universal Scalability Law fitted to them: throughput = λn / "
        "(1 + σ(n − 1) + κn(n − 1)). σ is contention: the share of the work that replicas can only do one at a time. "
        "κ is coherency: what each pair of replicas loses by keeping in step. The dotted line is linear scaling from "
        "the mean throughput of the first number of replicas."
    )
    return make_part(name, drawing, caption, Table("Throughput by replicas, and the fitted law", head, rows), subtitle)


_NO_RUNS = Law(points=[], lambda_=None, sigma=None, kappa=None, r2=None, peak_replicas=None, curve=[])
_COEFFICIENTS: tuple[tuple[str, Callable[[Law], float | None]], ...] = (
    ("λ, images/s of one replica", lambda law: law.lambda_),
    ("σ, contention", lambda law: law.sigma),
    ("κ, coherency", lambda law: law.kappa),
    ("R², share explained", lambda law: law.r2),
)


def _replicas(count: float) -> str:
    return f"{count:g} replica{'s' if count != 1 else ''}, mean"


def _coefficient(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1000 else number(value)


def _draw(name: str, engines: Sequence[str], data: Mapping[str, Law]) -> Drawing | None:
    """Throughput by replicas, the Universal Scalability Law's curve through it, and linear scaling.

    None without a point; without a curve where nothing could be fitted.
    """
    shown = [engine for engine in engines if data.get(engine, _NO_RUNS).points]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        handles = []
        for engine in shown:
            handles.append(_draw_law(axes, data[engine], engines.index(engine)))
        most = max(n for engine in shown for n, _ in [*data[engine].points, *data[engine].curve])
        highest = max(x for engine in shown for _, x in [*data[engine].points, *data[engine].curve])
        axes.set_xlim(0, most * 1.04)
        axes.set_ylim(0, highest * 1.12)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_ylabel("images/s")
        axes.set_xlabel("replicas")
        handles += [
            Line2D([], [], color=MUTED, linewidth=1.4),
            Line2D([], [], color=MUTED, linewidth=1.4, linestyle=(0, (2, 2))),
        ]
        labels = [*(ENGINE_SHORT[engine] for engine in shown), "fitted law", "linear scaling"]
        legend(figure, handles, labels, narrow, columns=2)

    return draw(name, paint, 3.4, 3.8)


def _draw_law(axes: Axes, law: Law, index: int) -> Line2D:
    colour = engine_colour(index)
    counts, rates = zip(*law.points, strict=True)
    (marks,) = axes.plot(counts, rates, MARKS[index % 3], color=colour, markersize=6, markerfacecolor="none")
    marks.set_markeredgewidth(1.5)
    if law.curve:
        axes.plot(*zip(*law.curve, strict=True), color=colour, linestyle=LINES[index % 3], linewidth=1.6)
    if law.linear:
        places, rates = zip((0, 0.0), *law.linear, strict=True)
        axes.plot(places, rates, color=colour, linewidth=1.1, linestyle=(0, (2, 2)), alpha=0.7)
    return marks
