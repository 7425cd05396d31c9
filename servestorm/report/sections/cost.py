"""What a million images cost on rented machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from servestorm.analysis.cost import Cost
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import Drawing, draw, engine_colour, legend, slug
from servestorm.report.part import (
    Section,
    SectionPart,
    Table,
    groups_of,
    make_part,
    section_of,
    subtitle_of,
)
from servestorm.report.price_bars import dated, instances, machine_rows, price_bar

Costs = Mapping[str, Sequence[Cost]]
"""By engine, one a machine for rent."""


def section(results: Results) -> Section:
    """One figure a group of searches for the capacity."""
    return section_of("cost", "Cost", (_of_group(results, group) for group in groups_of(results, "capacity")))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.cost.get(group, {})
    days = dated(row.dated for rows in data.values() for row in rows)
    source = (
        f"On-demand prices of {days}; every vCPU is taken to be as fast as one core of the study: a value to "
        "compare engines by, not a bill. The sources are in results.json."
    )
    return part(f"cost-{slug(group)}", results.engines, data, source, subtitle_of(results, group))


def part(name: str, engines: Sequence[str], data: Costs, source: str, subtitle: str = "") -> SectionPart | None:
    """US dollars a million images; `source` says where the prices are from, in a sentence."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    costs = {e: {(r.provider, r.instance): r for r in data.get(e, [])} for e in engines}
    rows = [
        [f"{instance}, {provider}", *(_usd(costs[engine].get((provider, instance))) for engine in engines)]
        for provider, instance in instances(data)
    ]
    caption = (
        f"What a million images cost on instances that always run at capacity. {_memory_text(data)} {source}"
    ).strip()
    head = ["Instance", *(f"{ENGINE_SHORT[engine]}, USD" for engine in engines)]
    return make_part(name, drawing, caption, Table("Cost of a million images", head, rows), subtitle)


_TOO_SMALL = "too little memory"


def _usd(row: Cost | None) -> str:
    """'0.12', or '0.12 (too little memory)' where the servers that fill the vCPUs do not fit."""
    if row is None:
        return number(None)
    price = number(row.usd_per_million)
    return f"{price} ({_TOO_SMALL})" if row.memory_enough is False else price


def _memory_text(data: Costs) -> str:
    """The instances whose memory is too small for the servers that fill the vCPUs, or that this is unknown."""
    priced = [(engine, row) for engine, rows in data.items() for row in rows]
    small = [f"{ENGINE_SHORT[e]} on {row.instance}" for e, row in priced if row.memory_enough is False]
    if small:
        return (
            f"By peak memory, the servers that fill the vCPUs do not fit ({_TOO_SMALL}): {', '.join(small)}; "
            "these prices do not apply."
        )
    unknown = list(dict.fromkeys(ENGINE_SHORT[e] for e, row in priced if row.memory_enough is None))
    if unknown:
        return f"The peak memory of {' and '.join(unknown)} is unknown."
    return "By peak memory, the servers that fill the vCPUs fit into every instance."


def _draw(name: str, engines: Sequence[str], data: Costs) -> Drawing | None:
    """Bars of US dollars a million images, by instance type, one bar an engine; None where nothing has a price."""
    places = instances(data)
    if not places:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        width = 0.78 / len(engines)
        for index, engine in enumerate(engines):
            prices = {(r.provider, r.instance): r.usd_per_million for r in data.get(engine, [])}
            for row, place in enumerate(places):
                price_bar(axes, row - 0.39 + width * (index + 0.5), prices.get(place), width, engine_colour(index))
        machine_rows(axes, places, narrow)
        axes.set_xlabel("US dollars a million images")
        swatches = [Patch(facecolor=engine_colour(index), linewidth=0) for index in range(len(engines))]
        legend(figure, swatches, [ENGINE_SHORT[engine] for engine in engines], narrow)

    row_in = 0.24 * len(engines) + 0.16
    return draw(name, paint, 1.1 + row_in * len(places), 1.3 + (row_in + 0.1) * len(places))
