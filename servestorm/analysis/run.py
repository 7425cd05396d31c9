"""One run with its own numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from servestorm.methods.autoscaling import Autoscaled
from servestorm.methods.bursts import Burst

QUOTED = ("p50", "p90", "p95", "p99", "p999")


MIB = 1024 * 1024


LOADS = ("steady", "bursty", "scaling", "autoscaling")
"""Scenarios with one load a cell, whose samples lie in the cell's own folder."""


@dataclass(frozen=True)
class Run:
    """One cell with its own numbers; a number that cannot be told is None."""

    id: str
    scenario: str
    engine: str
    replicas: int
    repetition: int
    group: str
    """What it is a run of: the scenario, with the variant where there are several, such as 'steady[gRPC, 8 images]'."""
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
    capacity: dict[str, Any] | None = None
    """The search for the largest rate: its probes and what it found."""
    points: list[dict[str, Any]] = field(default_factory=list)
    """Of a sweep: its settings, with throughput and p99."""
    bursts: list[Burst] = field(default_factory=list)
    autoscaling: Autoscaled | None = None
    """What the autoscaler did; None where none was asked, or where its clock and the samples' cannot be compared."""

    @property
    def counts(self) -> bool:
        """Whether its numbers go into the results: complete and not INVALID."""
        return self.state == "complete" and self.valid is not False


def mib(size_bytes: float | None) -> float | None:
    """MiB of a number of bytes; None stays None."""
    return None if size_bytes is None else size_bytes / MIB
