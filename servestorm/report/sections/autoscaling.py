"""How replicas followed the load under an autoscaler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from servestorm.analysis.figures import OverScaling
from servestorm.analysis.results import Results, usable
from servestorm.methods.autoscaling import Autoscaled, Reaction
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import settings
from servestorm.report.canvas import (
    INK,
    LINES,
    MUTED,
    Drawing,
    draw,
    engine_colour,
    gaps,
    legend,
    log_ticks,
    offered_load,
    slug,
)
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

Runs = Mapping[str, Sequence[Autoscaled]]
"""By engine, in the order in which they ran."""
NOT_SEEN = "not seen"
_DOTTED = (0, (2, 2))


def section(results: Results) -> Section:
    """One figure a group of runs under an autoscaler."""
    groups = groups_of(results, "autoscaling")
    return section_of("autoscaling", "Autoscaling", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    data = results.figures.autoscaling.get(group)
    if not data:
        return None
    counted = [run for run in usable(results.runs) if run.group == group]
    runs = {e: [run.autoscaling for run in counted if run.engine == e and run.autoscaling] for e in results.engines}
    limit_ms = settings.autoscaling_objective_ms(results)
    name = f"followed-{slug(group)}"
    shown = _part(name, results.engines, data, runs, limit_ms, subtitle_of(results, group))
    return shown and replace(shown, caption=marked(results, group, shown.caption))


def _part(
    name: str, engines: Sequence[str], data: OverScaling, runs: Runs, objective_ms: float, subtitle: str = ""
) -> SectionPart | None:
    """Replicas and latencies over time, with every burst of every run as the table."""
    drawing = _draw(name, engines, data, objective_ms)
    if not drawing:
        return None
    caption = (
        f"Top: the {data.tail} of requests in bins of {data.bin_s:g} s, shaded up to the slowest answer, with "
        f"the objective of {number(objective_ms, 'ms')} (log scale). Middle: the replicas that were ready, shaded up "
        "to all that existed and are paid for. Bottom: the offered load. All counted runs together. In the table "
        "seconds count from a burst's onset; recovered is the moment from which on 99 % of the burst's answers met "
        "the objective, or, after its end, the first half second in which 95 % did."
    )
    head = ["Burst", "Replicas", "s to decision", "s to first ready", "s to all ready", "s to recover", "Violations"]
    rows = [row for engine in engines for row in _rows(engine, runs.get(engine, []))]
    return make_part(name, drawing, caption, Table("Bursts on the autoscaler", head, rows), subtitle)


def _rows(engine: str, runs: Sequence[Autoscaled]) -> Iterator[list[str]]:
    for place, run in enumerate(runs, 1):
        title = f"{ENGINE_SHORT[engine]}, run {place}" if len(runs) > 1 else ENGINE_SHORT[engine]
        for reaction in run.reactions:
            yield [f"{title}, burst {reaction.index + 1}", *_reaction(reaction)]
        down = run.down
        gone = NOT_SEEN if down.gone_s is None else f"gone after {number(down.gone_s)}"
        yield [f"{title}, after the last burst", "fewer", _seen(down.decision_s), "", "", gone, ""]


def _reaction(reaction: Reaction) -> list[str]:
    share = number(reaction.violation_percent, "%")
    violations = f"{reaction.violations:,} of {reaction.requests:,} ({share})"
    if reaction.target is None:
        return [f"{reaction.ready}, no scale-up", "–", "–", "–", _seen(reaction.recover_s), violations]
    steps = (reaction.decision_s, reaction.first_ready_s, reaction.last_ready_s, reaction.recover_s)
    return [f"{reaction.ready} to {reaction.target}", *map(_seen, steps), violations]


def _seen(seconds: float | None) -> str:
    return NOT_SEEN if seconds is None else number(seconds)


def _draw(name: str, engines: Sequence[str], data: OverScaling, objective_ms: float) -> Drawing | None:
    """Latency, replicas and offered load on one time axis, with the bursts shaded; None without any answer."""
    shown = [engine for engine in engines if any(ms is not None for ms in data.engines[engine].slowest_ms)]
    if not shown:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        latency, replicas, load = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.7, 1))
        for axes in (latency, replicas, load):
            for begin_s, end_s in data.bursts:
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
        offered_load(load, data.t_s, data.bin_s, data.offered_per_s)
        load.set_xlabel("seconds from the begin of the measured load")
        load.set_xlim(0, data.watched_s)
        tail = data.tail
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


def _latency(axes: Axes, data: OverScaling, engine: str, index: int) -> None:
    times = [t + data.bin_s / 2 for t in data.t_s]
    own = data.engines[engine]
    tail, slowest = gaps(own.tail_ms), gaps(own.slowest_ms)
    colour = engine_colour(index)
    axes.fill_between(times, tail, slowest, color=colour, alpha=0.14, linewidth=0)
    axes.plot(times, slowest, color=colour, linewidth=0.7, alpha=0.6)
    axes.plot(times, tail, color=colour, linestyle=LINES[index % 3])


def _replicas(axes: Axes, data: OverScaling, engine: str, index: int) -> None:
    """A line at the ready replicas, shaded up to those that exist."""
    own, colour = data.engines[engine], engine_colour(index)
    ready, existing = ([*steps, (data.watched_s, steps[-1][1])] for steps in (own.ready, own.existing))
    places = sorted({t for t, _ in (*ready, *existing)})
    below, above = ([_at(steps, t) for t in places] for steps in (ready, existing))
    axes.fill_between(places, below, above, step="post", color=colour, alpha=0.22, linewidth=0)
    axes.step(places, below, where="post", color=colour, linestyle=LINES[index % 3], linewidth=1.7)


def _at(steps: Sequence[tuple[float, float]], t_s: float) -> float:
    return [count for begin_s, count in steps if begin_s <= t_s][-1]
