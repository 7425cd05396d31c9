"""What a load came to, as far as a search and a sweep judge it, and what it must keep to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoadObjective:
    """What a load must keep to pass."""

    p99_ms: float
    """Largest 99th percentile of a request's latency."""
    max_error_percent: float
    """Largest share of requests without a right answer."""


@dataclass(frozen=True)
class LoadResult:
    """The figures of a load's summary.json; warm-up is left out, and None is what the samples cannot support."""

    valid: bool
    reasons: tuple[str, ...]
    """Why it is INVALID; empty otherwise."""
    scheduled: int
    ok: int
    """Right answers."""
    dropped: int
    wrong_answers: int
    lost: int
    """Requests that went with a lost worker of the generator."""
    images_per_s: float | None
    p50_ms: float | None
    """Of right answers, from the scheduled time."""
    p99_ms: float | None
    service_p99_ms: float | None
    """Of right answers, from the send."""
    lag_p99_ms: float | None
    """Send minus scheduled time."""

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> LoadResult:
        """The JSON value of summary.json (loadtests.samples.summary.Summary) as its type."""
        latency_ms = summary["latency_ms"]
        return cls(
            valid=summary["valid"],
            reasons=tuple(summary["reasons"]),
            scheduled=summary["scheduled"],
            ok=summary["ok"],
            dropped=summary["dropped"],
            wrong_answers=summary["wrong_answers"],
            lost=summary["errors"].get("lost_worker", 0),
            images_per_s=summary.get("images_per_s"),
            p50_ms=latency_ms.get("p50"),
            p99_ms=latency_ms["p99"],
            service_p99_ms=summary.get("service_ms", {}).get("p99"),
            lag_p99_ms=summary.get("lag_ms", {}).get("p99"),
        )
