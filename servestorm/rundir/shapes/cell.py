"""The JSON files in a cell's folder that every kind of run may leave."""

from __future__ import annotations

import datetime
from dataclasses import fields
from typing import Annotated, Final

from pydantic import Field, model_validator

from loadtests.samples.validity import percentile_counts
from servestorm.methods.capacity_search import LoadOutcome
from servestorm.methods.disturbance import MachineShares, share_percent
from servestorm.plan.cells import Cell, Scenario
from servestorm.rundir.shapes.file_shape import FileShape, Many, Moment, Number, Share, Whole


class CellFile(FileShape):
    """cell.json: which run of the study this is."""

    id: str
    index: Whole
    scenario: Scenario
    engine: str
    replicas: Many
    repetition: Whole
    seed: int
    variant: Whole
    page_cache: str
    server_warmup: bool
    threads: Many
    max_batch_size: Whole
    timeout_us: Whole
    training: Whole | None = None
    """Younger than some runs."""

    @property
    def cell(self) -> Cell:
        """The run itself."""
        return Cell(**{field.name: getattr(self, field.name) for field in fields(Cell)})

    @model_validator(mode="after")
    def _its_id_says_what_it_is(self) -> CellFile:
        if (own := self.cell.id) != self.id:
            raise ValueError(f"id: it is {self.id}, and the rest makes it {own}")
        return self


class OutcomeFile(FileShape):
    """outcome.json: how the run ended."""

    state: str
    """complete, failed or interrupted."""
    reason: str | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None


class EventFile(FileShape):
    """One entry of events.json."""

    name: str
    t_ns: Whole
    """Of the monotonic clock."""
    replica: int | None
    """None where it is about the deployment as a whole."""
    detail: str


Answer = Annotated[
    tuple[Annotated[Whole, Field(strict=True)], Annotated[Number, Field(strict=True)]], Field(strict=False)
]
"""One entry of settled.json: [t_ns of the monotonic clock, latency in milliseconds], in JSON a list."""


class Use(FileShape):
    """What all servers of a deployment had used at one moment; None is what could not be read.

    Counters (cpu_s, disk_read_bytes, ...) count from the servers' start; the others are of that moment.
    """

    t_ns: Whole = 0
    """The moment, of the monotonic clock."""
    cpu_s: Share | None = None
    rss_bytes: Whole | None = None
    rss_peak_bytes: Whole | None = None
    disk_bytes: Whole | None = None
    disk_read_bytes: Whole | None = None
    disk_written_bytes: Whole | None = None
    network_received_bytes: Whole | None = None
    network_sent_bytes: Whole | None = None
    threads: Whole | None = None
    swap_bytes: Whole | None = None
    throttled_s: Share | None = None


class GpuUse(FileShape):
    """What one GPU of the machine did during a load; None is what its driver does not report."""

    name: str
    energy_j: Annotated[float, Field(ge=0, le=1e18)] | None
    utilisation_percent: Annotated[float, Field(ge=0, le=100)] | None
    memory_bytes: Annotated[int, Field(ge=0, le=10**18)] | None


class Watch(FileShape):
    """What the machine did during a load (see servestorm.study.machine_counters); None is what is unknown."""

    elapsed_s: Share | None = None
    wall_drift_ms: Number | None = None
    clocksource: str | None = None
    cores: list[int] | None = None
    ours_s: Number | None = None
    other_s: Number | None = None
    steal_s: Share | None = None
    swapped_pages: Whole | None = None
    throttled_s: Share | None = None
    gpus: list[GpuUse] | None = None


class UseFile(FileShape):
    """use.json: what the servers had used at three moments, and what the machine did during the load.

    A moment that was not looked at has a Use without any figure.
    """

    start: Use = Use()
    """After a cold start."""
    ready: Use = Use()
    """Before the load."""
    end: Use = Use()
    """After the load."""
    watch: Watch = Watch()

    @property
    def is_of_a_load(self) -> bool:
        """Whether it was written after a load, and not after a cold start."""
        return "end" in self.model_fields_set

    @property
    def machine_shares(self) -> MachineShares:
        """What the machine did meanwhile, of which the servers' memory is known after a load only."""
        watch, end = self.watch, self.end
        cores = len(watch.cores or [])
        swapped_bytes, resident_bytes = end.swap_bytes, end.rss_bytes
        memory_bytes = (swapped_bytes or 0) + (resident_bytes or 0)
        return MachineShares(
            other_percent=share_percent(watch.other_s, watch.elapsed_s, cores),
            steal_percent=share_percent(watch.steal_s, watch.elapsed_s, cores),
            swapped_percent=100 * swapped_bytes / memory_bytes if swapped_bytes and memory_bytes else None,
        )

    @property
    def load_cpu_s(self) -> float | None:
        """CPU time that the servers used between the moments before and after the load; None where one is unknown."""
        before_s, after_s = self.ready.cpu_s, self.end.cpu_s
        return after_s - before_s if before_s is not None and after_s is not None else None

    @property
    def load_s(self) -> float | None:
        """Seconds between the moments before and after the load; None where one of them was not written down."""
        if "t_ns" in self.ready.model_fields_set and "t_ns" in self.end.model_fields_set:
            return (self.end.t_ns - self.ready.t_ns) / 1e9
        return None


SENT_LATE: Final = "the generator sent late"
"""How an earlier generator's reason began."""


class FigureReadingsFile(FileShape):
    """One figure of a load, as far as it is read; see loadtests.samples.summary.FigureReadings."""

    counts: bool | None
    """False where the generator's lag moved it too far; None where the samples are too few."""


class SummaryFile(FileShape):
    """summary.json of the load generator, as far as an analysis reads it; see loadtests.samples.summary.Summary."""

    valid: bool
    reasons: list[str]
    """Why it is INVALID; empty otherwise."""
    scheduled: Whole = 0
    ok: Whole = 0
    """Right answers, or unchecked ones, after the warm-up."""
    wrong_answers: Whole = 0
    rate: Share | None = None
    """Requests/s that were asked for; None in a closed loop."""
    duration_s: Share = 0.0
    started_at: Moment = ""
    """UTC, of the first request's scheduled time."""
    warmup_s: Share = 0.0
    cpu_share: Number | None = None
    """Share of one core that the generator's busiest process used."""
    answers: str = ""
    """checked or unchecked: whether the right answers were known; empty where the file does not say."""
    figures: dict[str, FigureReadingsFile] = Field(default_factory=dict)
    """By name; empty in a file of an earlier generator."""

    @property
    def percentile_counts(self) -> bool:
        """False where the generator's lag made every percentile INVALID that the samples are enough for."""
        return percentile_counts({name: figure.counts for name, figure in self.figures.items()})

    @model_validator(mode="after")
    def _a_start_has_a_warmup(self) -> SummaryFile:
        if self.has("started_at") and not self.has("warmup_s"):
            raise ValueError("warmup_s: field required")
        return self

    @property
    def faults(self) -> list[str]:
        """Why the load is INVALID as a whole.

        An earlier generator called a load INVALID as a whole where it had sent late: that is judged figure by figure
        today, from the samples.
        """
        return [reason for reason in self.reasons if not reason.startswith(SENT_LATE)]

    @property
    def valid_as_a_whole(self) -> bool:
        """Whether the load counts, whichever of its figures do."""
        return self.valid or (bool(self.reasons) and not self.faults)

    def has(self, name: str) -> bool:
        """Whether the file has that key: some runs' generators did not write all of them."""
        return name in self.model_fields_set

    @property
    def measured_from_unix_ms(self) -> int | None:
        """When the warm-up ended; None where the file does not say when the load began."""
        if not self.has("started_at"):
            return None
        begin_s = datetime.datetime.fromisoformat(self.started_at).timestamp()
        return int(1000 * (begin_s + self.warmup_s))


class PercentilesFile(FileShape):
    """Milliseconds; None where the samples are too few."""

    p50: Share | None = None
    p99: Number | None = None


class FinishedLoadFile(SummaryFile):
    """summary.json as the study reads it that has just offered the load."""

    ok: Whole
    dropped: Whole
    wrong_answers: Whole
    errors: dict[str, Whole]
    """Failures by outcome."""
    images_per_s: Share | None = None
    latency_ms: PercentilesFile
    service_ms: PercentilesFile
    lag_ms: PercentilesFile
    gave_up: bool = False
    """Whether it was ended early because too many requests were in flight."""

    @property
    def outcome(self) -> LoadOutcome:
        """The load as a search judges it."""
        return LoadOutcome(
            valid=self.valid,
            reasons=self.reasons,
            scheduled=self.scheduled,
            ok=self.ok,
            dropped=self.dropped,
            wrong_answers=self.wrong_answers,
            lost=self.errors.get("lost_worker", 0),
            p99_ms=self.latency_ms.p99,
            service_p99_ms=self.service_ms.p99,
            lag_p99_ms=self.lag_ms.p99,
            given_up=self.gave_up,
        )
