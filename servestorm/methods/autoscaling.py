"""What bursts made an autoscaler do: when it decided, when new replicas were there, and what they cost. Pure.

Events tell of the replicas (a pod is one), samples of the answers. All seconds count from the begin of the measured
load, those of a burst from its onset; what was not seen is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from servestorm.methods.bursts import Burst, Flags, LoadSamples, late_or_failed, recovered_within
from servestorm.methods.events import Event

COOLDOWN_ENDED: Final = "cooldown_ended"
"""The event that ends the watching of a cell."""
_DECISION: Final = re.compile(r"(\d+) -> (\d+)")
_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class Reaction:
    """What followed one burst, until the next one or the end of the watching."""

    index: int
    start_s: float
    """The burst's onset, from the begin of the measured load."""
    end_s: float
    requests: int
    """Scheduled within the burst."""
    failed: int
    """Of those, without a right answer."""
    violations: int
    """Of those, failed or later than the objective."""
    ready: int
    """Replicas that were ready at the onset."""
    target: int | None
    """The most replicas that the autoscaler then asked for; None where it asked for no more than there were."""
    decision_s: float | None
    """From the onset to the first time that it asked for more."""
    first_ready_s: float | None
    """From the onset until the first replica made since then was ready."""
    last_ready_s: float | None
    """The same of the last one; None where one of them was never seen ready."""
    recover_s: float | None
    """From the onset until answers kept the objective again, within the burst or after it."""

    @property
    def violation_percent(self) -> float | None:
        """Violations as a share of the burst's requests; None without a request."""
        return 100 * self.violations / self.requests if self.requests else None


@dataclass(frozen=True)
class WayDown:
    """What followed the last burst's end, from which its seconds count."""

    decision_s: float | None
    """Until the autoscaler asked for fewer replicas for the first time."""
    least_s: float | None
    """Until it asked for no more than the least."""
    gone_s: float | None
    """Until no more than the least were left; None where there never were more, or some stayed."""


@dataclass(frozen=True)
class Autoscaled:
    """One run under an autoscaler."""

    watched_s: float
    """The time that everything below is about: the measured load and the cooldown after it."""
    requests: int
    """After the warm-up."""
    violations: int
    """Of those, failed or later than the objective, between bursts too."""
    reactions: list[Reaction]
    down: WayDown
    replica_seconds: float
    """Time that replicas existed, summed: from their creation until they were gone. That is what is paid for."""
    ready_replica_seconds: float
    """Time that they were ready, summed."""
    most_replicas: int
    """That were ready at once."""
    existing: list[tuple[float, int]]
    """[second, replicas that exist from then on]."""
    ready: list[tuple[float, int]]
    """[second, replicas that are ready from then on]."""


@dataclass(frozen=True)
class Shape:
    """What a cell asked for, in the words of the plan."""

    min_replicas: int
    objective_ms: float
    duration_s: float
    cooldown_s: float


@dataclass(frozen=True)
class _Decision:
    t_ns: int
    before: int
    after: int


@dataclass(frozen=True)
class _Replica:
    """Times in nanoseconds from the begin of the measured load; None: not seen."""

    created_ns: int
    ready_ns: int | None
    leaving_ns: int | None
    """When it was told to end, or was gone without a word."""
    gone_ns: int | None


def autoscaled(
    events: Sequence[Event], load: LoadSamples, start_ns: int, bursts: Sequence[Burst], shape: Shape
) -> Autoscaled | None:
    """What a cell's events and samples tell together; `start_ns` is when the measured load began, on the events' clock.

    Times in `load` count from there, and `bursts` are its own, judged by the same objective. None where the events do
    not hold that moment, because the samples' clock is another machine's.
    """
    if not _holds(events, start_ns):
        return None
    until_ns = int((shape.duration_s + shape.cooldown_s) * _NS)
    ended = [event.t_ns - start_ns for event in events if event.name == COOLDOWN_ENDED]
    until_ns = min([until_ns, *ended])
    replicas, decisions = _replicas(events, start_ns), _decisions(events, start_ns)
    bad = late_or_failed(load, int(shape.objective_ms * 1e6))
    assert bad is not None
    measured = load.scheduled_ns >= 0
    existing = [(r.created_ns, r.gone_ns) for r in replicas]
    ready = [(r.ready_ns, r.leaving_ns) for r in replicas if r.ready_ns is not None]
    ready_steps = _steps(ready, until_ns)
    onsets_ns = [*(int(burst.start_s * _NS) for burst in bursts), until_ns]
    return Autoscaled(
        watched_s=until_ns / _NS,
        requests=int(measured.sum()),
        violations=int((bad & measured).sum()),
        reactions=[
            _reaction(burst, onsets_ns[place + 1], load, bad, replicas, decisions) for place, burst in enumerate(bursts)
        ],
        down=_way_down(int(bursts[-1].end_s * _NS), until_ns, existing, decisions, shape.min_replicas)
        if bursts
        else WayDown(None, None, None),
        replica_seconds=_seconds(existing, until_ns),
        ready_replica_seconds=_seconds(ready, until_ns),
        most_replicas=max((count for _, count in ready_steps), default=0),
        existing=_steps(existing, until_ns),
        ready=ready_steps,
    )


def numbers_of(scaled: Autoscaled) -> dict[str, float | None]:
    """The figures of a run, by the names of their rows.

    Times to a decision and to new replicas are means over the bursts for which more were asked, for one that finds
    enough of them there has nothing to wait for; each is None where one of those bursts was not seen to get that far.
    The time to recover is the longest of all bursts, for a mean would count those that lost nothing too.
    """
    asked = [reaction for reaction in scaled.reactions if reaction.target is not None]
    paid_s = scaled.replica_seconds
    return {
        "decision_s": _mean([reaction.decision_s for reaction in asked]),
        "ready_s": _mean([reaction.first_ready_s for reaction in asked]),
        "all_ready_s": _mean([reaction.last_ready_s for reaction in asked]),
        "recover_s": _longest([reaction.recover_s for reaction in scaled.reactions]),
        "violations_percent": 100 * scaled.violations / scaled.requests if scaled.requests else None,
        "down_decision_s": scaled.down.decision_s,
        "down_gone_s": scaled.down.gone_s,
        "replica_seconds": paid_s,
        "replicas_mean": paid_s / scaled.watched_s if scaled.watched_s else None,
        "ready_percent": 100 * scaled.ready_replica_seconds / paid_s if paid_s else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing: the slowest are those that are not seen."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None


def _longest(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return max(there) if there and len(there) == len(values) else None


def _holds(events: Sequence[Event], start_ns: int) -> bool:
    """Whether the load's events enclose its begin: with another machine's clock they would not."""
    begins = [event.t_ns for event in events if event.name == "load_started"]
    ends = [event.t_ns for event in events if event.name == "load_ended"]
    return bool(begins and ends) and begins[-1] <= start_ns <= ends[-1]


def _decisions(events: Sequence[Event], start_ns: int) -> list[_Decision]:
    """The autoscaler's, by time."""
    matches = [(event, _DECISION.search(event.detail)) for event in events if event.name == "hpa_scaled"]
    decisions = [_Decision(event.t_ns - start_ns, int(match[1]), int(match[2])) for event, match in matches if match]
    return sorted(decisions, key=lambda decision: decision.t_ns)


def _replicas(events: Sequence[Event], start_ns: int) -> list[_Replica]:
    """Every replica that was created, with the first time of each of its events."""
    times: dict[int, dict[str, int]] = {}
    for event in sorted(events, key=lambda event: event.t_ns):
        if event.replica is not None:
            times.setdefault(event.replica, {}).setdefault(event.name, event.t_ns - start_ns)
    return [_replica(seen) for seen in times.values() if "spawned" in seen]


def _replica(seen: Mapping[str, int]) -> _Replica:
    leaving = [seen[name] for name in ("terminating", "stopped") if name in seen]
    return _Replica(seen["spawned"], seen.get("ready"), min(leaving, default=None), seen.get("stopped"))


def _reaction(
    burst: Burst,
    limit_ns: int,
    load: LoadSamples,
    bad: Flags,
    replicas: Sequence[_Replica],
    decisions: Sequence[_Decision],
) -> Reaction:
    onset_ns = int(burst.start_s * _NS)
    more = [d for d in decisions if onset_ns <= d.t_ns < limit_ns and d.after > d.before]
    new = [replica for replica in replicas if onset_ns <= replica.created_ns < limit_ns]
    ready_ns = [replica.ready_ns for replica in new if replica.ready_ns is not None]
    assert burst.violations is not None
    return Reaction(
        index=burst.index,
        start_s=burst.start_s,
        end_s=burst.end_s,
        requests=burst.requests,
        failed=burst.failed,
        violations=burst.violations,
        ready=_count([(r.ready_ns, r.leaving_ns) for r in replicas if r.ready_ns is not None], onset_ns),
        target=max((decision.after for decision in more), default=None),
        decision_s=_after(more[0].t_ns, onset_ns) if more else None,
        first_ready_s=_after(min(ready_ns), onset_ns) if ready_ns else None,
        last_ready_s=_after(max(ready_ns), onset_ns) if ready_ns and len(ready_ns) == len(new) else None,
        recover_s=_recover_s(burst, load, bad),
    )


def _after(t_ns: int, begin_ns: int) -> float:
    return (t_ns - begin_ns) / _NS


def _recover_s(burst: Burst, load: LoadSamples, bad: Flags) -> float | None:
    """From the onset: within the burst where it kept the objective from some moment on, else after it."""
    begin_ns, end_ns = int(burst.start_s * _NS), int(burst.end_s * _NS)
    within_ns = recovered_within(load.scheduled_ns, bad, begin_ns, end_ns)
    if within_ns is not None:
        return within_ns / _NS
    return None if burst.recover_s is None else burst.end_s - burst.start_s + burst.recover_s


Spans = Sequence[tuple[int, int | None]]
"""[from, until) in nanoseconds; without an end: to the end of the watching."""


def _way_down(end_ns: int, until_ns: int, existing: Spans, decisions: Sequence[_Decision], least: int) -> WayDown:
    fewer = [d for d in decisions if end_ns <= d.t_ns < until_ns and d.after < d.before]
    lowest = [decision for decision in fewer if decision.after <= least]
    return WayDown(
        decision_s=_after(fewer[0].t_ns, end_ns) if fewer else None,
        least_s=_after(lowest[-1].t_ns, end_ns) if lowest else None,
        gone_s=_gone_s(end_ns, until_ns, existing, least),
    )


def _gone_s(end_ns: int, until_ns: int, existing: Spans, least: int) -> float | None:
    """From `end_ns` to the last moment at which the number of replicas fell to the least, and stayed there."""
    fell_ns = None
    before = _count(existing, end_ns)
    for t_ns in sorted({t for span in existing for t in span if t is not None and end_ns < t < until_ns}):
        count = _count(existing, t_ns)
        if before > least >= count:
            fell_ns = t_ns
        before = count
    return None if fell_ns is None or before > least else _after(fell_ns, end_ns)


def _count(spans: Spans, t_ns: int) -> int:
    return sum(begin <= t_ns and (end is None or t_ns < end) for begin, end in spans)


def _seconds(spans: Spans, until_ns: int) -> float:
    """The sum of the spans' parts between 0 and `until_ns`."""
    parts = ((max(0, begin), until_ns if end is None else min(end, until_ns)) for begin, end in spans)
    return sum(max(0, end - begin) for begin, end in parts) / _NS


def _steps(spans: Spans, until_ns: int) -> list[tuple[float, int]]:
    """[second, how many from then on], from 0 on and at each change before `until_ns`."""
    changes = sorted({0, *(t for span in spans for t in span if t is not None and 0 < t < until_ns)})
    counts = [(t_ns, _count(spans, t_ns)) for t_ns in changes]
    return [
        (t_ns / _NS, count) for place, (t_ns, count) in enumerate(counts) if place == 0 or count != counts[place - 1][1]
    ]
