"""What the replicas under an autoscaler cost, compared with a fixed number of replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from servestorm.analysis.cost import FleetCost
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import settings
from servestorm.report.canvas import MUTED, Drawing, draw, engine_colour, legend, slug
from servestorm.report.part import Section, SectionPart, Table, groups_of, make_part, section_of, subtitle_of
from servestorm.report.price_bars import instances, machine_rows, price_bar
from servestorm.report.sentences import listed

FleetCosts = Mapping[str, Sequence[FleetCost]]
"""By engine, one a machine for rent."""


def section(results: Results) -> Section:
    """One figure a group of runs under an autoscaler."""
    groups = groups_of(results, "autoscaling")
    return section_of("fleet-cost", "Cost of the replicas", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.fleet_cost.get(group, {})
    late = results.metric(f"{group}.violations_percent")
    shares = {engine: value.value for engine, value in late.values.items()} if late else {}
    most = settings.most_replicas(results)
    name = f"fleet-{slug(group)}"
    return _part(name, results.engines, data, most, shares, subtitle_of(results, group))


def _part(
    name: str,
    engines: Sequence[str],
    data: FleetCosts,
    most: int,
    late_percent: Mapping[str, float | None],
    subtitle: str = "",
) -> SectionPart | None:
    """US dollars an hour, compared with a fixed fleet. `late_percent`: requests over the objective or unanswered."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    shown = [engine for engine in engines if data.get(engine)]
    paid = {e: {(r.provider, r.instance): r for r in data[e]} for e in shown}
    rows = []
    for key, first in paid[shown[0]].items():
        costs = [paid[engine].get(key) for engine in shown]
        prices = [number(row.usd_per_hour if row else None) for row in costs]
        rows.append([f"{first.instance}, {first.provider}", *prices, number(first.fixed_usd_per_hour)])
    late = [f"{number(late_percent.get(engine), '%')} on {ENGINE_SHORT[engine]}" for engine in shown]
    caption = (
        "What the replicas cost during the measurement, from creation to removal, compared with a fixed "
        f"fleet of {most}. A replica is charged the share of a machine that its CPU or memory limit fills. Of all "
        f"requests, {listed(late)} were over the objective or unanswered. On-demand prices; the sources are in "
        "results.json."
    )
    head = ["Instance", *(f"{ENGINE_SHORT[engine]}, USD an hour" for engine in shown), "fixed fleet, USD an hour"]
    return make_part(name, drawing, caption, Table("Cost of the replicas", head, rows), subtitle)


def _draw(name: str, engines: Sequence[str], data: FleetCosts) -> Drawing | None:
    """US dollars an hour by machine: a bar for each engine's replicas, and one for a fixed fleet of the maximum.

    None where no engine has a price.
    """
    places = instances(data)
    if not places:
        return None
    fixed = {(r.provider, r.instance): r.fixed_usd_per_hour for rows in data.values() for r in rows}
    shown = [engine for engine in engines if data.get(engine)]

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        width = 0.8 / (len(shown) + 1)
        for place, key in enumerate(places):
            for bar, engine in enumerate(shown):
                paid = {(r.provider, r.instance): r.usd_per_hour for r in data[engine]}
                price_bar(
                    axes, place - 0.4 + width * (bar + 0.5), paid.get(key), width, engine_colour(engines.index(engine))
                )
            price_bar(axes, place - 0.4 + width * (len(shown) + 0.5), fixed[key], width, MUTED)
        machine_rows(axes, places, narrow)
        axes.set_xlabel("US dollars an hour")
        swatches = [Patch(facecolor=engine_colour(engines.index(engine)), linewidth=0) for engine in shown]
        labels = [*(f"{ENGINE_SHORT[engine]}, autoscaled" for engine in shown), "always max. replicas"]
        legend(figure, [*swatches, Patch(facecolor=MUTED, linewidth=0)], labels, narrow)

    row_in = 0.22 * (len(shown) + 1) + 0.16
    return draw(name, paint, 1.1 + row_in * len(places), 1.4 + (row_in + 0.1) * len(places))
