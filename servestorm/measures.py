"""From one cell's folder to its numbers. What cannot be told is None."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from servestorm.labels import PHASES
from servestorm.samples import Samples, read_samples
from servestorm.statistics import QUANTILES, percentile
from servestorm.store import CellRecord

QUOTED = ("p50", "p95", "p99")
MIB = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One cell with its own numbers; a number that cannot be told is None."""

    id: str
    scenario: str
    engine: str
    replicas: int
    repetition: int
    state: str
    """complete, failed, interrupted, or unfinished where the study was killed."""
    valid: bool | None
    """The load generator's judgement; None where no load was asked or none ended."""
    reasons: list[str]
    numbers: dict[str, float | None]
    samples: int = 0
    """Right answers after the warm-up."""
    requests: int = 0
    """Requests scheduled after the warm-up."""
    phases_s: dict[str, float | None] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether its numbers go into the results: complete and not INVALID."""
        return self.state == "complete" and self.valid is not False


def measure(record: CellRecord, plan: dict[str, Any]) -> tuple[Run, Samples | None]:
    """A cell's run, and its samples where it is complete and was under load. Raises StudyError for a broken file."""
    cell, outcome = record.cell, record.outcome or {"state": "unfinished", "reason": "the study was killed in it"}
    samples = None
    numbers: dict[str, float | None] = {}
    reasons = [outcome["reason"]] if outcome.get("reason") else []
    if record.complete and cell["scenario"] != "coldstart" and record.samples_path:
        samples = read_samples(record.samples_path)
        numbers = _load_numbers(samples, record, plan[cell["scenario"]]["duration_s"])
    phases = _phases(record.events)
    if cell["scenario"] == "coldstart" and record.complete:
        numbers = {"total_s": _between(record.events, "spawned", "first_right_answer")}
        numbers.update({f"{phase}_s": seconds for phase, seconds in phases.items()})
        numbers["rss_mib"] = _mib((record.use or {}).get("start", {}).get("rss_bytes"))
    summary = record.summary or {}
    run = Run(
        **{key: cell[key] for key in ("id", "scenario", "engine", "replicas", "repetition")},
        state=outcome["state"],
        valid=bool(summary["valid"]) if record.complete and "valid" in summary else None,
        reasons=reasons + list(summary.get("reasons", [])),
        numbers=numbers,
        samples=int(samples.ok.sum()) if samples else 0,
        requests=int(samples.ok.size) if samples else 0,
        phases_s=phases,
    )
    return run, samples


def _load_numbers(samples: Samples, record: CellRecord, duration_s: float) -> dict[str, float | None]:
    latency = samples.image_latency_ms
    numbers: dict[str, float | None] = {name: percentile(latency, QUANTILES[name]) for name in QUOTED}
    numbers["mean_ms"] = float(latency.mean()) if latency.size else None
    numbers["images_per_s"] = samples.images_per_s(duration_s)
    numbers["failed_percent"] = 100 * float(1 - samples.ok.mean()) if samples.ok.size else None
    use = record.use or {}
    ready, end = use.get("ready", {}), use.get("end", {})
    known = ready.get("cpu_s") is not None and end.get("cpu_s") is not None and samples.images_with_warmup
    # the servers' CPU seconds hold the warm-up, so its images count here too
    numbers["cpu_ms_per_image"] = 1000 * (end["cpu_s"] - ready["cpu_s"]) / samples.images_with_warmup if known else None
    numbers["rss_peak_mib"] = _mib(end.get("rss_peak_bytes"))
    numbers["disk_mib"] = _mib(end.get("disk_bytes"))
    return numbers


def _mib(size_bytes: float | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB


def _phases(events: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Seconds of each cold-start phase of the first replica, by the event that ends it."""
    names = ["spawned", *PHASES]
    return {end: _between(events, begin, end) for begin, end in itertools.pairwise(names)}


def _between(events: Sequence[dict[str, Any]], begin: str, end: str) -> float | None:
    times: dict[str, int] = {}
    for event in events:
        if event.get("replica") in (None, 0):
            times.setdefault(event["name"], event["t_ns"])
    return (times[end] - times[begin]) / 1e9 if begin in times and end in times else None
