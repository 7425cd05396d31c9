"""What a load came to: rates, exact percentiles from the samples, the generator's own health, and VALID or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.generator.load import RETRY_NS
from loadtests.samples.in_flight import slot_use
from loadtests.samples.measured_samples import SliceOf, Tally, slices_of_answers, spans_of, tally_of
from loadtests.samples.slices import FigureSlices, reading, seconds_of, usable_slices
from loadtests.samples.validity import (
    GAVE_UP,
    GENERATOR,
    MAX_CPU_SHARE,
    MAX_RATE_DEVIATION,
    MIN_IN_FLIGHT_SHARE,
    MOST_MOVED,
    figure_counts,
    moved_by,
    percentile_counts,
)
from serving.authorisation import REFUSED, REMEDY

SUMMARY: Final = "summary.json"
_NS_PER_MS: Final = 1e6


class Distribution(BaseModel):
    """Milliseconds; a figure that the samples cannot support, or that is INVALID, is None."""

    model_config = ConfigDict(extra="forbid")

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = Field(default=None, description="99.9th percentile")
    max: float | None = None


class FigureReadings(BaseModel):
    """One figure of the latency, read twice over the same slices: with the generator's lag and without it."""

    model_config = ConfigDict(extra="forbid")

    scheduled_ms: float | None = Field(description="from the scheduled times; None where the samples are too few")
    sent_ms: float | None = Field(description="from the sends")
    slices: int = Field(description="turns, or seconds of the schedule, in which a request was due that got an answer")
    slices_used: int = Field(description="those that the readings are of")
    counts: bool | None = Field(description="False: INVALID, the lag moved it too far; None: too few samples")

    @property
    def moved_by(self) -> float | None:
        """Share by which the lag moved the figure; None where there is none."""
        return None if self.scheduled_ms is None or self.sent_ms is None else moved_by(self.scheduled_ms, self.sent_ms)


class Summary(BaseModel):
    """`summary.json`. Warm-up is left out of every figure."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    loop: str = Field(description="open or closed")
    engine: str
    protocol: str
    model: str
    payload: str
    images_per_request: int | None = Field(description="None where a trace says it: see samples.parquet")
    arrivals: dict[str, Any] = Field(description="process and its parameters")
    rate: float | None = Field(description="requests/s asked for; None in a closed loop")
    duration_s: float = Field(description="seconds that were to be measured; of all turns")
    measured_s: float = Field(default=0, description="those that passed: fewer where the load was stopped or given up")
    warmup_s: float = Field(description="seconds from the start to the first measured moment")
    slices: int | None = Field(default=None, description="turns that were measured; None without --turns")
    timeout_s: float
    max_in_flight: int
    connections: int
    closed_loop: int = Field(description="requests to be kept under way; 0 in an open loop")
    seed: int
    endpoints: list[str]
    workers: int = 1
    started_at: str = Field(description="ISO 8601, UTC, of the first scheduled moment")
    scheduled: int
    sent: int
    dropped: int
    ok: int
    errors: dict[str, int] = Field(description="failures by outcome")
    error_details: dict[str, int] = Field(description="failures by cause")
    wrong_answers: int
    answers: str = Field(description="checked or unchecked")
    offered_rate: float | None = Field(description="requests/s in the schedule; None in a closed loop")
    achieved_rate: float | None = Field(description="requests/s sent, over the time that sending took")
    mean_in_flight: float | None = Field(
        default=None, description="requests under way on average; None in an open loop"
    )
    rested_s: float | None = Field(
        default=None, description="seconds without a request under way, over all slots of a closed loop"
    )
    requests_per_s: float | None = Field(description="right answers/s until the last one")
    images_per_s: float | None
    latency_ms: Distribution = Field(description="of right answers, from the scheduled time; see `figures`")
    figures: dict[str, FigureReadings] = Field(description="how far the generator's lag moved each of latency_ms")
    service_ms: Distribution = Field(description="of right answers, from the send")
    lag_ms: Distribution = Field(description="send minus scheduled time")
    cpu_share: float | None = Field(description="of one core, the busiest generator process")
    valid: bool
    reasons: list[str] = Field(description="why not VALID, empty otherwise")
    gave_up: bool = Field(default=False, description="ended early, see --give-up-in-flight; the reasons say when")
    notes: list[str] = Field(default_factory=list)

    @property
    def percentile_counts(self) -> bool:
        """False where the generator's lag made every percentile INVALID that the samples are enough for."""
        return percentile_counts({name: figure.counts for name, figure in self.figures.items()})

    @property
    def invalid_figures(self) -> list[str]:
        """Names of the figures that the generator's lag moved too far."""
        return [name for name, figure in self.figures.items() if figure.counts is False]


class GaveUp(NamedTuple):
    """When a load was given up, and because of how many requests under way."""

    after_s: float
    """Seconds from the load's start."""
    in_flight: int


@dataclass(frozen=True)
class LoadFacts:
    """What is known of a load besides its samples."""

    settings: Mapping[str, Any]
    """The fields of Summary that were asked for."""
    measured: MeasuredTime
    """On the clock of the samples."""
    ended_ns: int
    """When no more requests were due."""
    cpu_share: float | None
    """Of one core, the busiest generator process."""
    error_details: Mapping[str, int]
    answers: str
    faults: list[str] = field(default_factory=list)
    """Reasons to doubt that only the runner knows (stopped early, a lost worker)."""
    notes: list[str] = field(default_factory=list)
    gave_up: GaveUp | None = None

    @property
    def duration_s(self) -> float:
        """Measured seconds."""
        return self.measured.within_ns(self.measured.from_ns, self.ended_ns) / 1e9

    @property
    def slice_of(self) -> SliceOf:
        """Scheduled times to slices: to turns, or to seconds."""
        if self.settings.get("slices") is not None:
            return self.measured.interval_of
        return lambda scheduled_ns: seconds_of(scheduled_ns, self.measured.from_ns)


def distribution(values_ns: NDArray[np.int64]) -> Distribution:
    """Exact percentiles (nearest rank) of nanoseconds, in milliseconds; sorts `values_ns` in place."""
    count = len(values_ns)
    if count == 0:
        return Distribution()
    values_ns.sort()
    figures = {name: _ms(reading(name, values_ns)) for name in MOST_MOVED}
    return Distribution(max=float(values_ns[-1]) / _NS_PER_MS, **figures)


def summarise(samples: Path, facts: LoadFacts) -> Summary:
    """Read samples.parquet column by column and summarise the load."""
    tally = tally_of(samples, facts.measured, facts.slice_of)
    counts, sent = tally.counts, tally.sent
    ok = counts.get("ok", 0)
    scheduled = sum(counts.values())
    dropped = counts.get("dropped", 0)
    latency = distribution(spans_of(samples, "scheduled_ns", "done_ns", only_ok=True))
    service = distribution(spans_of(samples, "sent_ns", "done_ns", only_ok=True))
    lag = distribution(spans_of(samples, "scheduled_ns", "sent_ns", only_ok=False))
    figures = _figures(samples, facts, latency, service, tally)
    duration_s = facts.duration_s
    open_loop = facts.settings["loop"] == "open"
    send_s = duration_s + _overhang_s(tally.last_sent_ns, facts)
    answer_s = duration_s + _overhang_s(tally.last_ok_ns, facts) if ok else None
    requests_per_s = ok / answer_s if answer_s else None
    fields = {
        **facts.settings,
        "measured_s": duration_s,
        "scheduled": scheduled,
        "sent": sent,
        "dropped": dropped,
        "ok": ok,
        "errors": {name: n for name, n in counts.items() if name != "ok" and n},
        "error_details": dict(facts.error_details),
        "wrong_answers": counts.get("wrong_answer", 0),
        "answers": facts.answers,
        "offered_rate": scheduled / duration_s if open_loop and duration_s else None,
        "achieved_rate": sent / send_s if send_s else None,
        **_slot_use(samples, facts),
        "requests_per_s": requests_per_s,
        "images_per_s": tally.ok_images / answer_s if answer_s else None,
        "latency_ms": latency.model_copy(
            update={name: figure.scheduled_ms if figure.counts else None for name, figure in figures.items()}
        ),
        "figures": figures,
        "service_ms": service,
        "lag_ms": lag,
        "cpu_share": facts.cpu_share,
        "gave_up": facts.gave_up is not None,
        "notes": facts.notes,
    }
    draft = Summary(valid=True, reasons=[], **fields)
    reasons = [*facts.faults, *_given_up(facts.gave_up), *doubts(draft)]
    return draft.model_copy(update={"valid": not reasons, "reasons": reasons})


def _slot_use(samples: Path, facts: LoadFacts) -> dict[str, float]:
    """The fields of Summary about a closed loop's slots; empty in an open loop."""
    slots = facts.settings["closed_loop"]
    use = slot_use(samples, slots, facts.measured.from_ns, facts.ended_ns) if slots else None
    return {"mean_in_flight": use.mean_in_flight, "rested_s": use.rested_s} if use else {}


def _figures(
    samples: Path, facts: LoadFacts, latency: Distribution, service: Distribution, tally: Tally
) -> dict[str, FigureReadings]:
    """The readings of each figure; of fewer slices where the lag moved one of them too far in all."""
    slices = len(tally.slices)
    figures = {}
    for name in MOST_MOVED:
        scheduled, sent = getattr(latency, name), getattr(service, name)
        ruled = facts.settings["loop"] == "open"
        counts = None if scheduled is None else not ruled or figure_counts(name, scheduled, sent)
        figures[name] = FigureReadings(
            scheduled_ms=scheduled, sent_ms=sent, slices=slices, slices_used=slices, counts=counts
        )
    if any(figure.counts is False for figure in figures.values()):
        # rare, and this alone takes all latencies in memory at once
        scheduled_ns = spans_of(samples, "scheduled_ns", "done_ns", only_ok=True)
        sent_ns = spans_of(samples, "sent_ns", "done_ns", only_ok=True)
        used = usable_slices(scheduled_ns, sent_ns, slices_of_answers(samples, facts.slice_of))
        return {name: _in_ms(figure, slices) for name, figure in used.items()}
    return figures


def _in_ms(figure: FigureSlices, slices: int) -> FigureReadings:
    """Readings of nanoseconds."""
    return FigureReadings(
        scheduled_ms=_ms(figure.scheduled),
        sent_ms=_ms(figure.sent),
        slices=slices,
        slices_used=int(figure.used.sum()),
        counts=figure.counts,
    )


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / _NS_PER_MS


def _overhang_s(last_ns: NDArray[np.int64], facts: LoadFacts) -> float:
    """Seconds by which the last event of each measured interval, (intervals,), came after the interval's end."""
    return float(np.maximum(last_ns - np.minimum(facts.measured.end_ns, facts.ended_ns), 0).sum()) / 1e9


def _given_up(gave_up: GaveUp | None) -> list[str]:
    if gave_up is None:
        return []
    return [f"{GAVE_UP} after {gave_up.after_s:.1f} s: {gave_up.in_flight} requests were under way at once"]


def doubts(summary: Summary) -> list[str]:
    """Why a load must not be believed, a sentence each."""
    reasons = []
    if not summary.ok and not summary.gave_up:
        reasons.append("no right answer came")
    # the generator's own turn is a gap as well, and nearly as long as the answer of a very fast server
    may_rest = bool(summary.errors) or _too_few_connections(summary)
    mean = summary.mean_in_flight
    if may_rest and mean is not None and mean < MIN_IN_FLIGHT_SHARE * summary.closed_loop:
        reasons.append(
            f"only {mean:.1f} of {summary.closed_loop} requests of the closed loop were under way on average: a slot "
            f"whose request failed, or that had no free connection, rests at least {RETRY_NS / 1e6:g} ms"
        )
    if summary.dropped:
        reasons.append(f"{summary.dropped} arrivals were dropped: {summary.max_in_flight} requests were under way")
    if summary.wrong_answers:
        reasons.append(f"{summary.wrong_answers} answers were wrong")
    if summary.cpu_share is not None and summary.cpu_share > MAX_CPU_SHARE and summary.loop == "open":
        reasons.append(f"{GENERATOR} was busy: {summary.cpu_share:.0%} of a core, over {MAX_CPU_SHARE:.0%}")
    if summary.offered_rate and summary.achieved_rate is not None:
        deviation = abs(summary.achieved_rate - summary.offered_rate) / summary.offered_rate
        if deviation > MAX_RATE_DEVIATION:
            reasons.append(
                f"the achieved rate {summary.achieved_rate:.1f}/s is {deviation:.1%} off the offered "
                f"{summary.offered_rate:.1f}/s"
            )
    failed = sum(n for name, n in summary.errors.items() if name not in ("dropped", "wrong_answer", "lost_worker"))
    refused = {cause: n for cause, n in summary.error_details.items() if cause.startswith(REFUSED)}
    refusals = min(sum(refused.values()), failed)
    most = MAX_RATE_DEVIATION * max(summary.scheduled, 1)
    if refusals > most:
        reasons.append(
            f"{refusals} of {summary.scheduled} requests were {max(refused, key=refused.__getitem__)}: {REMEDY}"
        )
    if failed - refusals > most:
        reasons.append(f"{failed - refusals} of {summary.scheduled} requests failed{_mostly(summary)}")
    return reasons


def late_sentence(summary: Summary) -> str:
    """What the generator's lag cost: the INVALID figures, each with how far it was moved."""
    moved = [(name, summary.figures[name].moved_by) for name in summary.invalid_figures]
    named = ", ".join(f"{name} (moved by {share:.1%}, over {100 * MOST_MOVED[name]:g}%)" for name, share in moved)
    which = "some figures are" if summary.percentile_counts else "no percentile counts, and these are"
    return f"{GENERATOR} sent late, so {which} INVALID: {named}"


def _too_few_connections(summary: Summary) -> bool:
    """Whether slots of a closed loop wait for a connection: over HTTP/1.1 each takes one request at a time."""
    return summary.protocol == "rest" and summary.connections * len(summary.endpoints) < summary.closed_loop


def _mostly(summary: Summary) -> str:
    """The most frequent cause of the failures, after a comma; empty where no cause is known."""
    others = ("dropped", "wrong_answer", REFUSED)
    causes = {cause: n for cause, n in summary.error_details.items() if not cause.startswith(others)}
    return f", most often: {max(causes, key=lambda cause: causes[cause])}" if causes else ""
