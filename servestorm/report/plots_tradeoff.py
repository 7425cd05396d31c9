"""Figures of what one pays for throughput: latency (the sweep with its Pareto front), and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, log_ticks


def sweep(name: str, engines: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing | None:
    """p99 against throughput of every setting, those that nothing beats in both joined and numbered by throughput.

    `data`: {engine: [{"label", "images_per_s": float | None, "p99_ms": float | None, "front": bool}]}. Settings that
    lack a number are left out of the drawing; None where none is left.
    """
    points = {engine: drawable(data.get(engine, [])) for engine in engines}
    shown = [engine for engine in engines if points[engine]]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        handles = [_front(axes, points[engine], engines.index(engine)) for engine in shown]
        axes.set_xlim(left=0)
        axes.margins(x=0.08, y=0.12)
        axes.autoscale_view()
        axes.set_xlim(left=0)
        log_ticks(axes)
        axes.set_ylabel("p99, ms per request")
        axes.set_xlabel("images/s")
        handles.append(Line2D([], [], color=MUTED, marker="o", linestyle="none", markerfacecolor="none"))
        labels = [*(f"{ENGINE_SHORT[engine]}, Pareto front" for engine in shown), "beaten by another setting"]
        legend(figure, handles, labels, narrow)

    return draw(name, paint, 3.8, 4.2)


def drawable(settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The settings with both numbers, by throughput: the front's are numbered from 1 in this order."""
    known = [s for s in settings if s["images_per_s"] is not None and s["p99_ms"] is not None]
    return sorted(known, key=lambda setting: float(setting["images_per_s"]))


def _front(axes: Axes, settings: Sequence[Mapping[str, Any]], index: int) -> Line2D:
    colour, mark = engine_colour(index), MARKS[index % 3]
    beaten = [(s["images_per_s"], s["p99_ms"]) for s in settings if not s["front"]]
    if beaten:
        rates, latencies = zip(*beaten, strict=True)
        axes.plot(rates, latencies, mark, color=colour, markerfacecolor="none", markersize=5, alpha=0.65)
    best = [(s["images_per_s"], s["p99_ms"]) for s in settings if s["front"]]
    rates, latencies = zip(*best, strict=True) if best else ((), ())
    (line,) = axes.plot(
        rates, latencies, marker=mark, color=colour, linestyle=LINES[index % 3], linewidth=1.4, markersize=6
    )
    for place, (rate, latency_ms) in enumerate(best, 1):
        # the first engine's numbers above, the next one's below: fronts may lie close to each other
        side = (0, 7) if index % 2 == 0 else (0, -8)
        axes.annotate(
            str(place),
            (rate, latency_ms),
            xytext=side,
            textcoords="offset points",
            ha="center",
            va="bottom" if index % 2 == 0 else "top",
            color=colour,
            fontsize=8.5,
        )
    return line


def cost(name: str, engines: Sequence[str], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing | None:
    """Bars of US dollars a million images, by instance type, one bar an engine.

    `data`: {engine: [{"instance", "provider", "usd_per_million": float | None}]}. None where nothing has a price.
    """
    places = instances(data)
    if not any(row["usd_per_million"] is not None for rows in data.values() for row in rows):
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        width = 0.78 / len(engines)
        for index, engine in enumerate(engines):
            prices = {(r["provider"], r["instance"]): r["usd_per_million"] for r in data.get(engine, [])}
            for row, place in enumerate(places):
                _price(axes, row - 0.39 + width * (index + 0.5), prices.get(place), width, index)
        names = [f"{instance}\n{provider}" if narrow else f"{instance}, {provider}" for provider, instance in places]
        axes.set_yticks(range(len(places)), names, color=INK)
        axes.set_ylim(len(places) - 0.45, -0.55)
        axes.margins(x=0.14)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("US dollars a million images")
        swatches = [Patch(facecolor=engine_colour(index), linewidth=0) for index in range(len(engines))]
        legend(figure, swatches, [ENGINE_SHORT[engine] for engine in engines], narrow)

    row_in = 0.24 * len(engines) + 0.16
    return draw(name, paint, 1.1 + row_in * len(places), 1.3 + (row_in + 0.1) * len(places))


def instances(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """(provider, instance) of every price, in the order given."""
    return list(dict.fromkeys((row["provider"], row["instance"]) for rows in data.values() for row in rows))


def _price(axes: Axes, place: float, usd: float | None, width: float, index: int) -> None:
    if usd is not None:
        axes.barh(place, usd, width * 0.86, color=engine_colour(index), linewidth=0)
    axes.annotate(
        number(usd), (usd or 0, place), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5
    )
