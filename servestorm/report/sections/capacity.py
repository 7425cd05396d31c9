"""The search for the largest rate that meets the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.results import Results, usable
from servestorm.analysis.run import SearchResult
from servestorm.methods.capacity_estimate import Crossing
from servestorm.methods.capacity_search import NO_ANSWER, Probe
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import settings
from servestorm.report.canvas import INK, LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, log_ticks, slug
from servestorm.report.part import (
    Section,
    SectionPart,
    Table,
    groups_of,
    make_part,
    marked,
    section_of,
    subtitle_of,
)

Searches = Mapping[str, Sequence[SearchResult]]
"""By engine, one search a run."""


def section(results: Results) -> Section:
    """One figure a group of searches."""
    return section_of("capacity", "Capacity", (_of_group(results, group) for group in groups_of(results, "capacity")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    used = usable(results.runs)
    # a DISTURBED search is left out where others count; one that is INVALID found no rate and shows its probes
    runs = [run for run in results.runs if run.group == group and run.capacity and (run in used or not run.disturbed)]
    data = {
        engine: [run.capacity for run in runs if run.engine == engine and run.capacity] for engine in results.engines
    }
    limit_ms = settings.capacity_p99_ms(results)
    name, row = f"search-{slug(group)}", results.metric(f"{group}.images_per_s")
    found = {
        engine: Capacity(rate, number(row.values[engine].value, row.unit))
        for engine, rate in results.figures.capacity_per_s.get(group, {}).items()
        if row and rate is not None
    }
    shown = part(name, results.engines, data, limit_ms, found, subtitle_of(results, group))
    return shown and replace(shown, caption=marked(results, group, shown.caption))


@dataclass(frozen=True)
class Capacity:
    """An engine's capacity: where it stands among the probes, and what the row of the results says."""

    requests_per_s: float
    text: str


def part(
    name: str,
    engines: Sequence[str],
    data: Searches,
    objective_ms: float | None,
    found: Mapping[str, Capacity],
    subtitle: str = "",
) -> SectionPart | None:
    """The searches for the largest rate that meets the objective, and the capacity `found` by engine."""
    drawing = _draw(name, engines, data, objective_ms, found)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        for place, search in enumerate(data.get(engine, []), 1):
            rows += _rows(f"{ENGINE_SHORT[engine]}, search {place}", search)
    limit = f" of {number(objective_ms, 'ms')}" if objective_ms else ""
    caption = (
        "Every probe of the searches by the rate it offered and the p99 it measured. Filled marks met the "
        f"objective{limit}, hollow ones did not; a mark at the upper edge has too few answers for a p99. The line "
        "is the capacity: the mean over searches of the largest rate that held twice. A band is the 95 % interval of "
        "the rate at which p99 meets the objective, estimated from all probes near it; without that interval, it "
        "reaches from the largest rate that held to the smallest that did not."
    )
    head = ["Probe", "requests/s", "p99, ms", "Verdict"]
    return make_part(name, drawing, caption, Table("Capacity by probes", head, rows), subtitle)


def _rows(title: str, search: SearchResult) -> list[list[str]]:
    rows = [[title, number(p.rate_per_s), number(p.p99_ms), _PROBE[p.verdict]] for p in search.probes]
    confirmed = "confirmed" if search.confirmed else "not confirmed"
    rows.append([f"{title}: capacity", _capacity_text(search), "", confirmed])
    if search.crossing:
        rows.append([f"{title}: p99 meets the objective at", _crossing_text(search.crossing), "", "estimated"])
    return rows


_PROBE = {"pass": "held", "fail": "did not hold", "invalid": "INVALID", "disturbed": "DISTURBED"}


def _capacity_text(search: SearchResult) -> str:
    """The largest rate that held and the smallest that did not, which is no confidence interval."""
    if search.high is None:
        return number(search.rate_per_s)
    last = [probe.verdict for probe in search.probes if probe.rate_per_s == search.high][-1]
    limits = {"invalid": "could not be offered", "disturbed": "was DISTURBED"}
    limit = limits.get(last, "did not hold")
    return f"{number(search.rate_per_s)}; {number(search.high)} {limit}"


def _crossing_text(crossing: Crossing) -> str:
    within = crossing.interval
    span = f"{number(within[0])} to {number(within[1])}" if within else "the probes scatter too much for an interval"
    return f"{number(crossing.rate_per_s)} ({span})"


def _draw(
    name: str, engines: Sequence[str], data: Searches, objective_ms: float | None, found: Mapping[str, Capacity]
) -> Drawing | None:
    """Every probe of the searches by its rate and p99, with each engine's capacity and the runs' intervals.

    None where there is no probe. A probe without a p99 stands at the upper edge.
    """
    shown = [engine for engine in engines if any(search.probes for search in data.get(engine, []))]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        latencies = [p.p99_ms for e in shown for p in _probes(data[e]) if p.p99_ms] + [objective_ms or 1.0]
        top_ms = max(latencies) * 1.6
        axes.set_ylim(min(latencies) / 1.4, top_ms * 1.15)
        for engine in shown:
            _intervals(axes, data[engine], engines.index(engine))
            if engine in found:
                _capacity_line(axes, found[engine], engines.index(engine))
            _marks(axes, _probes(data[engine]), engines.index(engine), top_ms)
        if objective_ms:
            axes.axhline(objective_ms, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
        log_ticks(axes)
        axes.set_xlim(left=0)
        axes.margins(x=0.04)
        axes.set_ylabel("p99, ms per request")
        axes.set_xlabel("requests/s offered")
        handles, labels = _legend(engines, shown, bool(objective_ms))
        legend(figure, handles, labels, narrow, columns=2)

    return draw(name, paint, 3.6, 4.0)


def _probes(searches: Sequence[SearchResult]) -> list[Probe]:
    return [probe for search in searches for probe in search.probes]


def _intervals(axes: Axes, searches: Sequence[SearchResult], index: int) -> None:
    """A band over each search's interval."""
    for search in searches:
        crossing = search.crossing
        low, high = (crossing and crossing.interval) or (search.low, search.high)
        if low is not None and high is not None:
            axes.axvspan(low, high, color=engine_colour(index), alpha=0.25 / len(searches), linewidth=0)


def _capacity_line(axes: Axes, found: Capacity, index: int) -> None:
    axes.axvline(found.requests_per_s, color=engine_colour(index), linewidth=1.4, linestyle=LINES[index % 3])
    # engines whose capacities are close must not write over each other
    axes.annotate(
        found.text,
        (found.requests_per_s, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4 - 12 * index),
        textcoords="offset points",
        va="top",
        color=engine_colour(index),
    )


def _marks(axes: Axes, probes: Sequence[Probe], index: int, top_ms: float) -> None:
    colour = engine_colour(index)
    faces = {"pass": colour, "fail": "none", "invalid": "none", "disturbed": "none"}
    for verdict, face in faces.items():
        places = [(p.rate_per_s, p.p99_ms or top_ms) for p in probes if p.verdict == verdict]
        if places:
            rates, latencies = zip(*places, strict=True)
            mark, edge = ("x", MUTED) if verdict in NO_ANSWER else (MARKS[index % 3], colour)
            axes.plot(
                rates, latencies, mark, color=edge, markerfacecolor=face, markersize=6, markeredgewidth=1.4, alpha=0.9
            )


def _legend(engines: Sequence[str], shown: Sequence[str], objective: bool) -> tuple[list[Line2D], list[str]]:
    handles, labels = [], []
    for engine in shown:
        index = engines.index(engine)
        handles.append(Line2D([], [], color=engine_colour(index), marker=MARKS[index % 3], linestyle=LINES[index % 3]))
        labels.append(ENGINE_SHORT[engine])
    handles += [
        Line2D([], [], color=MUTED, marker="o", linestyle="none"),
        Line2D([], [], color=MUTED, marker="o", linestyle="none", markerfacecolor="none", markeredgewidth=1.4),
        Line2D([], [], color=MUTED, marker="x", linestyle="none", markeredgewidth=1.4),
    ]
    labels += ["held", "did not hold", "INVALID or DISTURBED"]
    if objective:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, linestyle=(0, (4, 2))))
        labels.append("objective")
    return handles, labels
