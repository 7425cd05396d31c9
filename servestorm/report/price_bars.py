"""Bars of US dollars for each rented machine, shared by the sections on cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.cost import Cost, FleetCost
from servestorm.plan.labels import number
from servestorm.report.canvas import INK


def instances(data: Mapping[str, Sequence[Cost | FleetCost]]) -> list[tuple[str, str]]:
    """(provider, instance) of every price, in the order given."""
    return list(dict.fromkeys((row.provider, row.instance) for rows in data.values() for row in rows))


def dated(days: Iterable[str]) -> str:
    """'2026-06-18 to 2026-07-30': when prices were read, from the first day to the last; '' of none."""
    known = sorted(days)
    return " to ".join(dict.fromkeys([known[0], known[-1]])) if known else ""


def machine_rows(axes: Axes, places: Sequence[tuple[str, str]], narrow: bool) -> None:
    """One row a machine, with its name and provider beside it and room for a number at the end of each bar."""
    names = [f"{instance}\n{provider}" if narrow else f"{instance}, {provider}" for provider, instance in places]
    axes.set_yticks(range(len(places)), names, color=INK)
    axes.set_ylim(len(places) - 0.45, -0.55)
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def price_bar(axes: Axes, place: float, usd: float | None, width: float, colour: str) -> None:
    """A bar around `place` with its number beside it; an unknown price is a dash. `width` is the room for the bar."""
    if usd is not None:
        axes.barh(place, usd, width * 0.86, color=colour, linewidth=0)
    axes.annotate(
        number(usd), (usd or 0, place), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5
    )
