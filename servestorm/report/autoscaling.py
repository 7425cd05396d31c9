"""What the report shows of runs under an autoscaler: how it followed the bursts, and both sides of what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servestorm.methods.autoscaling import Autoscaled, Reaction
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report import plots_autoscaling
from servestorm.report.parts import Part, part

Runs = Mapping[str, Sequence[Autoscaled]]
"""By engine, in the order in which they ran."""
SEEN_NOT = "not seen"


def followed(
    name: str, engines: Sequence[str], data: Mapping[str, Any], runs: Runs, objective_ms: float, subtitle: str = ""
) -> Part | None:
    """Replicas and latencies over time, with every burst of every run as the table."""
    drawing = plots_autoscaling.followed(name, engines, data, objective_ms)
    if not drawing:
        return None
    caption = (
        f"Above, the {data['tail']} of a request in every {data['bin_s']:g} s, shaded up to the slowest answer, with "
        f"the objective of {number(objective_ms, 'ms')} (log scale). In the middle, the replicas that were ready, "
        "shaded up to all that existed and are paid for. Beneath, the offered load. All counted runs together. In the "
        "table seconds count from a burst's onset; recovered is the moment from which on 99 % of the burst's answers "
        "kept the objective, or, after its end, the first half second in which 95 % did."
    )
    head = ["Burst", "Replicas", "s to decision", "s to first ready", "s to all ready", "s to recover", "Violations"]
    rows = [row for engine in engines for row in _rows(engine, runs.get(engine, []))]
    return part(name, drawing, caption, {"title": "Bursts on the autoscaler", "head": head, "rows": rows}, subtitle)


def _rows(engine: str, runs: Sequence[Autoscaled]) -> Iterator[list[str]]:
    for place, run in enumerate(runs, 1):
        title = f"{ENGINE_SHORT[engine]}, run {place}" if len(runs) > 1 else ENGINE_SHORT[engine]
        for reaction in run.reactions:
            yield [f"{title}, burst {reaction.index + 1}", *_reaction(reaction)]
        down = run.down
        gone = SEEN_NOT if down.gone_s is None else f"gone after {number(down.gone_s)}"
        yield [f"{title}, after the last burst", "fewer", _seen(down.decision_s), "", "", gone, ""]


def _reaction(reaction: Reaction) -> list[str]:
    share = number(100 * reaction.violations / reaction.requests if reaction.requests else None, "%")
    violations = f"{reaction.violations:,} of {reaction.requests:,} ({share})"
    if reaction.target is None:
        return [f"{reaction.ready}, no more asked", "–", "–", "–", _seen(reaction.recover_s), violations]
    steps = (reaction.decision_s, reaction.first_ready_s, reaction.last_ready_s, reaction.recover_s)
    return [f"{reaction.ready} to {reaction.target}", *map(_seen, steps), violations]


def _seen(seconds: float | None) -> str:
    return SEEN_NOT if seconds is None else number(seconds)


def cost(
    name: str,
    engines: Sequence[str],
    data: Mapping[str, Sequence[Mapping[str, Any]]],
    most: int,
    late_percent: Mapping[str, float | None],
    subtitle: str = "",
) -> Part | None:
    """US dollars an hour beside a fixed fleet's; `late_percent` is the other side, answers over the objective."""
    drawing = plots_autoscaling.cost(name, engines, data)
    if not drawing:
        return None
    shown = [engine for engine in engines if data.get(engine)]
    paid = {e: {(r["provider"], r["instance"]): r for r in data[e]} for e in shown}
    rows = []
    for key, first in paid[shown[0]].items():
        costs = [paid[engine].get(key) for engine in shown]
        told = [number(row["usd_per_hour"] if row else None) for row in costs]
        rows.append([f"{first['instance']}, {first['provider']}", *told, number(first["fixed_usd_per_hour"])])
    late = [f"{number(late_percent.get(engine), '%')} on {ENGINE_SHORT[engine]}" for engine in shown]
    caption = (
        "What the replicas cost while they were watched, from their creation until they were gone, beside a fixed "
        f"fleet of {most}. A replica is charged the share of a machine that its CPU or memory limit fills. The other "
        f"side: answers over the objective, or none, were {_join(late)} of all. On-demand prices; the sources stand "
        "in results.json."
    )
    head = ["Instance", *(f"{ENGINE_SHORT[engine]}, USD an hour" for engine in shown), "fixed fleet, USD an hour"]
    return part(name, drawing, caption, {"title": "Cost of the replicas", "head": head, "rows": rows}, subtitle)


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
