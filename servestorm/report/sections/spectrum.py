"""Latency at every percentile that the samples are enough for."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from servestorm.analysis.results import Results
from servestorm.methods.percentiles import QUANTILES
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import LINES, MARKS, Drawing, draw, engine_colour, legend, log_ticks, slug
from servestorm.report.part import Section, SectionPart, Table, groups_with_samples, make_part, marked, section_of

_EVERY = 4
"""Of the shares between the percentiles of the results, the table has one in so many."""


def section(results: Results) -> Section:
    """One figure a group of runs under load."""
    groups = groups_with_samples(results)
    return section_of("spectrum", "Percentile spectrum", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    drawing = _draw(results, group)
    if not drawing:
        return None
    data = results.figures.spectrum[group]
    shares = sorted({share for points in data.values() for share, _ in points})
    by_engine = {engine: dict(points) for engine, points in data.items()}
    rows = [
        [f"p{100 * share:.4g}", *(number(by_engine[engine].get(share)) for engine in results.engines)]
        for place, share in enumerate(shares)
        if place % _EVERY == 0 or share in QUANTILES.values()
    ]
    title = results.groups[group]
    head = ["Share", *(f"{ENGINE_SHORT[engine]}, ms per image" for engine in results.engines)]
    caption = (
        "Latency at each percentile, mean over runs as in the results (both axes logarithmic). A line ends where no "
        "run has answers enough."
    )
    table = Table(f"Percentile spectrum, {title}", head, rows)
    return make_part(f"tail-{slug(group)}", drawing, marked(results, group, caption), table, title)


def _draw(results: Results, group: str) -> Drawing | None:
    """Latency at every percentile that the samples are enough for."""
    data = results.figures.spectrum.get(group)
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
                [1 / (1 - share) for share in shares], values, color=engine_colour(index), linestyle=LINES[index % 3]
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
