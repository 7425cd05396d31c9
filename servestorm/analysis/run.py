"""One run with its own numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from servestorm.methods.autoscaling import Autoscaled
from servestorm.methods.bursts import Burst
from servestorm.methods.capacity_estimate import Crossing
from servestorm.methods.capacity_search import Probe, SearchObjective
from servestorm.methods.disturbance import Disturbance
from servestorm.methods.slices import SliceCount
from servestorm.plan.cells import Scenario

QUOTED = ("p50", "p90", "p95", "p99", "p999")
MIB = 1024 * 1024


@dataclass(frozen=True)
class SearchResult:
    """A search for the largest rate, with all its probes; rates in requests/s."""

    objective: SearchObjective
    rate_per_s: float | None
    """The largest rate that passed twice; None where none did."""
    low: float | None
    """The largest rate that passes under `high`, confirmed or not."""
    high: float | None
    """The smallest rate that fails, or that could not be offered undisturbed; None where every rate passed."""
    confirmed: bool
    probes: list[Probe]
    reason: str
    """What was found and what limited it, for a reader."""
    crossing: Crossing | None
    """The rate at which p99 meets the objective, estimated from all probes; None where they do not tell."""


@dataclass(frozen=True)
class SweepPoint:
    """One load of a sweep: a client setting on one deployment."""

    images_per_request: int
    concurrency: int
    images_per_s: float | None
    p50_ms: float | None
    """Of a request."""
    p99_ms: float | None
    valid: bool
    reasons: list[str]
    """Why the load is INVALID."""
    threads: int
    max_batch_size: int
    timeout_us: int
    replicas: int
    disturbed: Disturbance | None = None
    """Why the load is DISTURBED; null where it is not."""


@dataclass(frozen=True)
class Run:
    """One cell with its own numbers; a number that cannot be told is None."""

    id: str
    scenario: Scenario
    engine: str
    replicas: int
    repetition: int
    group: str
    """What it is a run of: the scenario, with the variant where there are several, such as 'steady[gRPC, 8 images]'."""
    state: str
    """complete, failed, interrupted, or unfinished where the study was killed."""
    valid: bool | None
    """Whether the load counts as a whole: rate, drops, failures and the generator's CPU. None where no load was asked
    or none ended."""
    reasons: list[str]
    numbers: dict[str, float | None]
    samples: int = 0
    """Right answers after the warm-up, in slices that count for every figure."""
    requests: int = 0
    """Requests scheduled after the warm-up."""
    phases_s: dict[str, float | None] = field(default_factory=dict)
    capacity: SearchResult | None = None
    """The search for the largest rate: its probes and what it found."""
    points: list[SweepPoint] = field(default_factory=list)
    """Of a sweep: its settings, with throughput and p99."""
    bursts: list[Burst] = field(default_factory=list)
    autoscaling: Autoscaled | None = None
    """What the autoscaler did; None where none was asked, or where its clock and the samples' cannot be compared."""
    disturbed: Disturbance | None = None
    """Why it is DISTURBED, by the worst of the loads that decide its numbers; null where it is not."""
    slices: SliceCount | None = None
    """How many slices of its load its numbers are of; null where no load was offered, or several were."""
    invalid_figures: dict[str, str] = field(default_factory=dict)
    """Numbers that are INVALID, and so null, though the run is not, with the reason: the load generator sent late."""

    @property
    def counts(self) -> bool:
        """Whether its numbers go into the results: complete, and neither INVALID nor DISTURBED."""
        return self.state == "complete" and self.valid is not False and self.disturbed is None


def mib(size_bytes: float | None) -> float | None:
    """MiB of a number of bytes; None stays None."""
    return None if size_bytes is None else size_bytes / MIB
