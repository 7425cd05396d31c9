"""Figures of how much an engine bears: the search for its capacity, and throughput by replicas with the fitted law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, LINES, MARKS, MUTED, Drawing, draw, engine_colour, legend, log_ticks


def capacity(
    name: str, engines: Sequence[str], data: Mapping[str, Mapping[str, Any]], objective_ms: float | None
) -> Drawing | None:
    """Every probe of the searches by its rate and p99, with each engine's mean capacity and the runs' intervals.

    `data`: {engine: {"runs": [{"rate": r | None, "low": l | None, "high": h | None, "confirmed": bool,
    "probes": [{"rate_per_s", "verdict": "pass" | "fail" | "invalid", "p99_ms": ms | None}], "crossing": {"low",
    "high"} | None}]}}, rates in requests/s.
    None where there is no probe. A probe without a p99 stands at the upper edge.
    """
    shown = [engine for engine in engines if any(run["probes"] for run in data.get(engine, {}).get("runs", []))]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        latencies = [p["p99_ms"] for e in shown for p in _probes(data[e]) if p["p99_ms"]] + [objective_ms or 1.0]
        top_ms = max(latencies) * 1.6
        axes.set_ylim(min(latencies) / 1.4, top_ms * 1.15)
        for engine in shown:
            _intervals(axes, data[engine]["runs"], engines.index(engine))
            _marks(axes, _probes(data[engine]), engines.index(engine), top_ms)
        if objective_ms:
            axes.axhline(objective_ms, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
        log_ticks(axes)
        axes.set_xlim(left=0)
        axes.margins(x=0.04)
        axes.set_ylabel("p99, ms per request")
        axes.set_xlabel("requests/s offered")
        handles, labels = _capacity_legend(engines, shown, bool(objective_ms))
        legend(figure, handles, labels, narrow, columns=2)

    return draw(name, paint, 3.6, 4.0)


def _probes(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [probe for run in found["runs"] for probe in run["probes"]]


def _intervals(axes: Axes, runs: Sequence[Mapping[str, Any]], index: int) -> None:
    """A band over each run's interval, and a line at the mean of the capacities found."""
    for run in runs:
        between = run["crossing"] or run
        if between["low"] is not None and between["high"] is not None:
            axes.axvspan(
                between["low"], between["high"], color=engine_colour(index), alpha=0.25 / len(runs), linewidth=0
            )
    rates = [run["rate"] for run in runs if run["rate"] is not None]
    if rates:
        mean = sum(rates) / len(rates)
        axes.axvline(mean, color=engine_colour(index), linewidth=1.4, linestyle=LINES[index % 3])
        # engines whose capacities are close must not write over each other
        axes.annotate(
            f"{number(mean)}/s",
            (mean, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -4 - 12 * index),
            textcoords="offset points",
            va="top",
            color=engine_colour(index),
        )


def _marks(axes: Axes, probes: Sequence[Mapping[str, Any]], index: int, top_ms: float) -> None:
    colour = engine_colour(index)
    faces = {"pass": colour, "fail": "none", "invalid": "none"}
    for verdict, face in faces.items():
        places = [(p["rate_per_s"], p["p99_ms"] or top_ms) for p in probes if p["verdict"] == verdict]
        if places:
            rates, latencies = zip(*places, strict=True)
            mark, edge = ("x", MUTED) if verdict == "invalid" else (MARKS[index % 3], colour)
            axes.plot(
                rates, latencies, mark, color=edge, markerfacecolor=face, markersize=6, markeredgewidth=1.4, alpha=0.9
            )


def _capacity_legend(engines: Sequence[str], shown: Sequence[str], objective: bool) -> tuple[list[Line2D], list[str]]:
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
    labels += ["held", "did not hold", "INVALID"]
    if objective:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, linestyle=(0, (4, 2))))
        labels.append("objective")
    return handles, labels


def usl(name: str, engines: Sequence[str], data: Mapping[str, Mapping[str, Any]]) -> Drawing | None:
    """Throughput by replicas, the Universal Scalability Law's curve through it, and what adding up would give.

    `data`: {engine: {"points": [[replicas, images/s], ...], "lambda": images/s of one replica | None, "curve":
    [[replicas, images/s], ...]}}; the curve may be empty where nothing could be fitted. None without a point.
    """
    shown = [engine for engine in engines if data.get(engine, {}).get("points")]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        handles = []
        for engine in shown:
            handles.append(_law(axes, data[engine], engines.index(engine)))
        most = max(n for engine in shown for n, _ in [*data[engine]["points"], *data[engine]["curve"]])
        highest = max(x for engine in shown for _, x in [*data[engine]["points"], *data[engine]["curve"]])
        axes.set_xlim(0, most * 1.04)
        axes.set_ylim(0, highest * 1.12)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_ylabel("images/s")
        axes.set_xlabel("replicas")
        handles += [
            Line2D([], [], color=MUTED, linewidth=1.4),
            Line2D([], [], color=MUTED, linewidth=1.4, linestyle=(0, (2, 2))),
        ]
        labels = [*(ENGINE_SHORT[engine] for engine in shown), "fitted law", "if replicas added up"]
        legend(figure, handles, labels, narrow, columns=2)

    return draw(name, paint, 3.4, 3.8)


def _law(axes: Axes, found: Mapping[str, Any], index: int) -> Line2D:
    colour = engine_colour(index)
    counts, rates = zip(*found["points"], strict=True)
    (marks,) = axes.plot(counts, rates, MARKS[index % 3], color=colour, markersize=6, markerfacecolor="none")
    marks.set_markeredgewidth(1.5)
    if found["curve"]:
        axes.plot(*zip(*found["curve"], strict=True), color=colour, linestyle=LINES[index % 3], linewidth=1.6)
    if found["lambda"]:
        most = max(counts)
        axes.plot([0, most], [0, found["lambda"] * most], color=colour, linewidth=1.1, linestyle=(0, (2, 2)), alpha=0.7)
    return marks
