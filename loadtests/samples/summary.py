"""What a load came to: rates, exact percentiles from the samples, the generator's own health, and VALID or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from loadtests.generator.load import RETRY_NS
from loadtests.samples.in_flight import slot_use
from loadtests.samples.validity import (
    GENERATOR,
    MAX_CPU_SHARE,
    MAX_LAG_MS,
    MAX_LAG_SHARE,
    MAX_RATE_DEVIATION,
    MIN_IN_FLIGHT_SHARE,
    samples_needed,
)

SUMMARY: Final = "summary.json"
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_NS_PER_MS: Final = 1e6


class Distribution(BaseModel):
    """Milliseconds; a percentile that the samples cannot support is None."""

    model_config = ConfigDict(extra="forbid")

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = Field(default=None, description="99.9th percentile")
    max: float | None = None


class Summary(BaseModel):
    """`summary.json`. Warm-up is left out of every figure."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    loop: str = Field(description="open or closed")
    engine: str
    protocol: str
    model: str
    payload: str
    images_per_request: int
    arrivals: dict[str, Any] = Field(description="process and its parameters")
    rate: float | None = Field(description="requests/s asked for; None in a closed loop")
    duration_s: float
    warmup_s: float
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
    latency_ms: Distribution = Field(description="of right answers, from the scheduled time")
    service_ms: Distribution = Field(description="of right answers, from the send")
    lag_ms: Distribution = Field(description="send minus scheduled time")
    cpu_share: float | None = Field(description="of one core, the busiest generator process")
    valid: bool
    reasons: list[str] = Field(description="why not VALID, empty otherwise")
    notes: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class LoadFacts:
    """What is known of a load besides its samples."""

    settings: Mapping[str, Any]
    """The fields of Summary that were asked for."""
    measured_from_ns: int
    measured_until_ns: int
    cpu_share: float | None
    """Of one core, the busiest generator process."""
    error_details: Mapping[str, int]
    answers: str
    faults: list[str] = field(default_factory=list)
    """Reasons to doubt that only the runner knows (stopped early, a lost worker)."""
    notes: list[str] = field(default_factory=list)


def distribution(values_ns: NDArray[np.int64]) -> Distribution:
    """Exact percentiles (nearest rank) of nanoseconds, in milliseconds; sorts `values_ns` in place."""
    count = len(values_ns)
    if count == 0:
        return Distribution()
    values_ns.sort()
    percentiles = {
        name: float(values_ns[min(count - 1, int(np.ceil(q * count)) - 1)]) / _NS_PER_MS
        for name, q in PERCENTILES.items()
        if count >= samples_needed(q)
    }
    return Distribution(mean=float(values_ns.mean()) / _NS_PER_MS, max=float(values_ns[-1]) / _NS_PER_MS, **percentiles)


def summarise(samples: Path, facts: LoadFacts) -> Summary:
    """Read samples.parquet column by column and summarise the load."""
    tally = _tally(samples)
    counts, sent = tally.counts, tally.sent
    ok = counts.get("ok", 0)
    scheduled = sum(counts.values())
    dropped = counts.get("dropped", 0)
    latency = distribution(_spans(samples, "scheduled_ns", "done_ns", only_ok=True))
    service = distribution(_spans(samples, "sent_ns", "done_ns", only_ok=True))
    lag = distribution(_spans(samples, "scheduled_ns", "sent_ns", only_ok=False))
    duration_s = (facts.measured_until_ns - facts.measured_from_ns) / 1e9
    open_loop = facts.settings["loop"] == "open"
    send_s = max(duration_s, (tally.last_sent_ns - facts.measured_from_ns) / 1e9) if sent else duration_s
    answer_s = max(duration_s, (tally.last_ok_ns - facts.measured_from_ns) / 1e9) if ok else None
    requests_per_s = ok / answer_s if answer_s else None
    images = facts.settings["images_per_request"]
    fields = {
        **facts.settings,
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
        "images_per_s": requests_per_s * images if requests_per_s is not None else None,
        "latency_ms": latency,
        "service_ms": service,
        "lag_ms": lag,
        "cpu_share": facts.cpu_share,
        "notes": facts.notes,
    }
    draft = Summary(valid=True, reasons=[], **fields)
    reasons = [*facts.faults, *doubts(draft)]
    return draft.model_copy(update={"valid": not reasons, "reasons": reasons})


def _slot_use(samples: Path, facts: LoadFacts) -> dict[str, float]:
    """The fields of Summary about a closed loop's slots; empty in an open loop."""
    slots = facts.settings["closed_loop"]
    use = slot_use(samples, slots, facts.measured_from_ns, facts.measured_until_ns) if slots else None
    return {"mean_in_flight": use.mean_in_flight, "rested_s": use.rested_s} if use else {}


def doubts(summary: Summary) -> list[str]:
    """Why a load must not be believed, a sentence each."""
    reasons = []
    if not summary.ok:
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
    if (lag := summary.lag_ms.p99) is not None and summary.loop == "open":
        limit = max(MAX_LAG_MS, MAX_LAG_SHARE * (summary.latency_ms.p50 or 0))
        if lag > limit:
            reasons.append(f"{GENERATOR} sent late: p99 lag {lag:.2f} ms, over {limit:.2f} ms")
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
    if failed > MAX_RATE_DEVIATION * max(summary.scheduled, 1):
        reasons.append(f"{failed} of {summary.scheduled} requests failed{_mostly(summary)}")
    return reasons


def _too_few_connections(summary: Summary) -> bool:
    """Whether slots of a closed loop wait for a connection: over HTTP/1.1 each takes one request at a time."""
    return summary.protocol == "rest" and summary.connections * len(summary.endpoints) < summary.closed_loop


def _mostly(summary: Summary) -> str:
    """The most frequent cause of the failures, after a comma; empty where no cause is known."""
    others = ("dropped", "wrong_answer")
    causes = {cause: n for cause, n in summary.error_details.items() if not cause.startswith(others)}
    return f", most often: {max(causes, key=lambda cause: causes[cause])}" if causes else ""


@dataclass
class _Tally:
    counts: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    last_sent_ns: int = 0
    last_ok_ns: int = 0


def _tally(samples: Path) -> _Tally:
    """Counts and last moments of the measured samples."""
    tally = _Tally()
    for table in _measured(samples, ["sent_ns", "done_ns", "outcome"]):
        for entry in pc.value_counts(table["outcome"].combine_chunks().cast("string")).to_pylist():
            tally.counts[entry["values"]] = tally.counts.get(entry["values"], 0) + entry["counts"]
        tally.sent += len(table) - table["sent_ns"].null_count
        tally.last_sent_ns = max(tally.last_sent_ns, pc.max(table["sent_ns"]).as_py() or 0)
        answered = table.filter(_is_ok(table))
        tally.last_ok_ns = max(tally.last_ok_ns, pc.max(answered["done_ns"]).as_py() or 0)
    return tally


def _measured(samples: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Measured samples by row group, so that a long run's table never lies in memory whole."""
    with pq.ParquetFile(samples) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[*columns, "warmup"])
            yield table.filter(pc.invert(table["warmup"]))


def _is_ok(table: pa.Table) -> Any:
    return pc.equal(table["outcome"].cast("string"), "ok")


def _spans(samples: Path, begin: str, end: str, *, only_ok: bool) -> NDArray[np.int64]:
    """end - begin of the measured samples, in row groups, so that only the result lies in memory."""
    spans = np.empty(pq.read_metadata(samples).num_rows, np.int64)
    filled = 0
    for table in _measured(samples, [begin, end, "outcome"]):
        keep = pc.is_valid(table[end])
        selected = table.filter(pc.and_(keep, _is_ok(table)) if only_ok else keep)
        part = selected[end].to_numpy() - selected[begin].to_numpy()
        spans[filled : filled + len(part)] = part
        filled += len(part)
    return spans[:filled]
