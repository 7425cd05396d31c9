"""Figures of an autoscaler: how replicas followed the load, and what they cost beside a fixed fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, LINES, MUTED, Drawing, draw, engine_colour, legend, log_ticks
from servestorm.report.plots_tradeoff import instances

_DOTTED = (0, (2, 2))


def followed(name: str, engines: Sequence[str], data: Mapping[str, Any], objective_ms: float) -> Drawing | None:
    """Latency, replicas and offered load on one time axis, with the bursts shaded.

    `data`: servestorm.analysis.results_schema.OverScaling as a dict. None where no engine has an answer.
    """
    shown = [engine for engine in engines if any(ms is not None for ms in data["engines"][engine]["slowest_ms"])]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        latency, replicas, load = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.7, 1))
        for axes in (latency, replicas, load):
            for begin_s, end_s in data["bursts"]:
                axes.axvspan(begin_s, end_s, color=MUTED, alpha=0.13, linewidth=0)
        for engine in shown:
            _latency(latency, data, engine, engines.index(engine))
            _replicas(replicas, data, engine, engines.index(engine))
        latency.axhline(objective_ms, color=INK, linewidth=1.2, linestyle=_DOTTED)
        log_ticks(latency)
        latency.set_ylabel("ms per request")
        replicas.set_ylim(0, None)
        replicas.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        replicas.set_ylabel("replicas")
        _offered(load, data)
        load.set_xlim(0, data["watched_s"])
        tail = data["tail"]
        handles: list[Any] = [
            Line2D([], [], color=engine_colour(index), linestyle=LINES[index % 3])
            for index in map(engines.index, shown)
        ]
        handles += [
            Line2D([], [], color=INK, linewidth=1.2, linestyle=_DOTTED),
            Patch(facecolor=MUTED, alpha=0.25, linewidth=0),
        ]
        labels = [*(f"{ENGINE_SHORT[e]}: {tail}; ready replicas" for e in shown), "objective", "burst"]
        legend(figure, handles, labels, narrow)

    return draw(name, paint, 5.0, 5.6)


def _latency(axes: Axes, data: Mapping[str, Any], engine: str, index: int) -> None:
    times = [t + data["bin_s"] / 2 for t in data["t_s"]]
    tail, slowest = (
        [float("nan") if ms is None else ms for ms in data["engines"][engine][name]]
        for name in ("tail_ms", "slowest_ms")
    )
    colour = engine_colour(index)
    axes.fill_between(times, tail, slowest, color=colour, alpha=0.14, linewidth=0)
    axes.plot(times, slowest, color=colour, linewidth=0.7, alpha=0.6)
    axes.plot(times, tail, color=colour, linestyle=LINES[index % 3])


def _replicas(axes: Axes, data: Mapping[str, Any], engine: str, index: int) -> None:
    """A line for those that are ready; shaded above it, those that exist besides."""
    own, colour = data["engines"][engine], engine_colour(index)
    ready, existing = ([*own[name], [data["watched_s"], own[name][-1][1]]] for name in ("ready", "existing"))
    places = sorted({t for t, _ in (*ready, *existing)})
    below, above = ([_at(steps, t) for t in places] for steps in (ready, existing))
    axes.fill_between(places, below, above, step="post", color=colour, alpha=0.22, linewidth=0)
    axes.step(places, below, where="post", color=colour, linestyle=LINES[index % 3], linewidth=1.7)


def _at(steps: Sequence[Sequence[float]], t_s: float) -> float:
    return [count for begin_s, count in steps if begin_s <= t_s][-1]


def _offered(axes: Axes, data: Mapping[str, Any]) -> None:
    edges = [*data["t_s"], data["t_s"][-1] + data["bin_s"]]
    axes.stairs(data["offered_per_s"], edges, fill=True, color=MUTED, alpha=0.28, linewidth=0)
    axes.stairs(data["offered_per_s"], edges, color=MUTED, linewidth=1.2)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.set_ylabel("requests/s")
    axes.set_xlabel("seconds from the begin of the measured load")


def cost(name: str, engines: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing | None:
    """US dollars an hour by machine: a bar for each engine's replicas, and one for a fleet that always has the most.

    `data`: {engine: [servestorm.analysis.cost.FleetCost as a dict, ...]}. None where no engine has a price.
    """
    places = instances(data)
    if not places:
        return None
    fixed = {(r["provider"], r["instance"]): r["fixed_usd_per_hour"] for rows in data.values() for r in rows}
    shown = [engine for engine in engines if data.get(engine)]

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        width = 0.8 / (len(shown) + 1)
        for place, key in enumerate(places):
            for bar, engine in enumerate(shown):
                paid = {(r["provider"], r["instance"]): r["usd_per_hour"] for r in data[engine]}
                _bar(
                    axes, place - 0.4 + width * (bar + 0.5), paid.get(key), width, engine_colour(engines.index(engine))
                )
            _bar(axes, place - 0.4 + width * (len(shown) + 0.5), fixed[key], width, MUTED)
        names = [f"{instance}\n{provider}" if narrow else f"{instance}, {provider}" for provider, instance in places]
        axes.set_yticks(range(len(places)), names, color=INK)
        axes.set_ylim(len(places) - 0.45, -0.55)
        axes.margins(x=0.14)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("US dollars an hour")
        swatches = [Patch(facecolor=engine_colour(engines.index(engine)), linewidth=0) for engine in shown]
        labels = [*(f"{ENGINE_SHORT[engine]}, autoscaled" for engine in shown), "always the most replicas"]
        legend(figure, [*swatches, Patch(facecolor=MUTED, linewidth=0)], labels, narrow)

    row_in = 0.22 * (len(shown) + 1) + 0.16
    return draw(name, paint, 1.1 + row_in * len(places), 1.4 + (row_in + 0.1) * len(places))


def _bar(axes: Axes, place: float, usd: float | None, width: float, colour: str) -> None:
    if usd is not None:
        axes.barh(place, usd, width * 0.86, color=colour, linewidth=0)
    axes.annotate(
        number(usd), (usd or 0, place), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5
    )
