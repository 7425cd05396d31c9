"""The plan's sections that say what is asked of a deployment."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, FiniteFloat, SerializerFunctionWrapHandler, model_serializer, model_validator

from servestorm.plan.values import (
    BATCH_TIMEOUT,
    Count,
    Images,
    Milliseconds,
    OneOrMore,
    Rate,
    Seconds,
    SideName,
    Strict,
    Warmup,
)

SCALE_DOWN_PERIOD_S = 15
"""The autoscaler of a study lets one replica go in so many seconds."""

SLICE_S: Final = 2.0
"""Measured seconds of a slice, where a plan does not say."""


class Steady(Strict):
    """Open-loop load at one rate."""

    rate_per_s: Rate = Field(description="requests per second")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")
    slice_s: Annotated[float, Field(ge=0.5, le=60)] = Field(
        default=SLICE_S, description="measured seconds of a slice, where engines take turns (`design: interleaved`)"
    )

    @model_serializer(mode="wrap")
    def _as_before_where_slices_are_ordinary(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)  # slice_s is younger than run directories that may go on
        return {key: value for key, value in dumped.items() if key != "slice_s" or value != SLICE_S}


class Bursty(Strict):
    """Open-loop load that switches between a base and a peak rate."""

    base_rate: Rate = Field(description="requests per second between bursts")
    peak_rate: Rate = Field(description="requests per second in a burst")
    on_s: Seconds = Field(description="seconds of a burst")
    off_s: Seconds = Field(description="seconds between bursts")
    objective_ms: Milliseconds | None = Field(
        default=None,
        description="objective for a request's latency in a burst; empty: recovered means as before the bursts",
    )
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(
        default=2,
        description="seconds left out of all numbers; at most 1 after steady load on the same servers "
        "(`design: interleaved`)",
    )

    @model_validator(mode="after")
    def _peak_is_above_base(self) -> Bursty:
        if self.peak_rate <= self.base_rate:
            raise ValueError(f"peak_rate ({self.peak_rate:g}) must be above base_rate ({self.base_rate:g})")
        return self


class Capacity(Strict):
    """The largest rate that meets an objective, searched with probes of open-loop load on one deployment."""

    p99_ms: Milliseconds = Field(description="longest 99th percentile of a request's latency, milliseconds")
    max_error_percent: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="largest share of failed or wrong answers, percent"
    )
    start_rate_per_s: Rate | None = Field(
        default=None,
        description="requests per second of the first probe; empty: half the rate of a short closed loop",
    )
    probe_s: Seconds = Field(
        default=20, description="measured seconds of a probe, after the warm-up; longer if a p99 needs it"
    )
    warmup_s: Warmup = Field(default=1, description="seconds left out of all numbers")
    most_probes: Annotated[int, Field(ge=3, le=100)] = Field(default=12, description="probes of one search")
    tolerance_percent: Annotated[float, Field(gt=0, le=50)] = Field(
        default=3, description="the search ends when pass and fail lie this close together, percent"
    )
    promise: bool = Field(
        default=False,
        description="whether a probe passes only if p99 is within `p99_ms` with 99 % confidence, not just in the "
        "sample; the rate to promise is lower then, the more so the shorter the probes are",
    )

    @model_serializer(mode="wrap")
    def _as_before_where_no_promise_is_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)  # promise is younger than run directories that may go on
        return {key: value for key, value in dumped.items() if key != "promise" or value}


class Scaling(Strict):
    """What more replicas give: throughput at a fixed number of requests in flight, or capacity under the objective."""

    replicas: list[Count] = Field(
        default=[1, 2], min_length=1, description="replica counts; speed-ups are relative to the first"
    )
    measure: Literal["throughput", "capacity"] = Field(
        default="throughput",
        description="throughput: closed loop with `concurrency` in flight; capacity: a search as under `capacity`",
    )
    concurrency: Count = Field(default=16, description="requests in flight")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")
    repetitions: Count | None = Field(
        default=None, description="runs of each replica count; empty: `repetitions` of the plan"
    )

    @model_validator(mode="after")
    def _counts_grow(self) -> Scaling:
        if self.replicas != sorted(set(self.replicas)):
            raise ValueError(f"replicas must grow, such as [1, 2], not {self.replicas}")
        return self


class Autoscaling(Strict):
    """Bursts under a HorizontalPodAutoscaler by CPU: how fast it follows them, and what its replicas cost."""

    min_replicas: Count = Field(default=1, description="smallest number of replicas")
    max_replicas: Count = Field(default=3, description="largest number of replicas")
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=70, description="target CPU use, of what a replica requests (`limits.cpus`)"
    )
    base_rate: Rate = Field(description="requests per second between bursts")
    peak_rate: Rate = Field(description="requests per second in a burst")
    on_s: Seconds = Field(description="seconds of a burst")
    off_s: Seconds = Field(description="seconds between bursts")
    objective_ms: Milliseconds = Field(description="objective for a request's latency")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=10, description="seconds at the base rate, left out of all numbers")
    scale_down_stabilization_s: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=300, description="seconds of low load before it removes replicas (stabilization window)"
    )
    cooldown_s: Seconds | None = Field(
        default=None,
        description="seconds watched after the load, while replicas are removed; empty: scale_down_stabilization_s, "
        "plus 15 for each replica that may go, plus 60",
    )
    repetitions: Count | None = Field(
        default=None, description="runs for each engine; empty: `repetitions` of the plan"
    )

    @model_validator(mode="after")
    def _can_be_answered(self) -> Autoscaling:
        if self.peak_rate <= self.base_rate:
            raise ValueError(f"peak_rate ({self.peak_rate:g}) must be above base_rate ({self.base_rate:g})")
        if self.max_replicas <= self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be above min_replicas ({self.min_replicas})")
        if self.duration_s < self.off_s + self.on_s:
            raise ValueError(f"duration_s ({self.duration_s:g}) must hold a whole burst: off_s and on_s at least")
        return self

    @property
    def watch_after_s(self) -> float:
        """Seconds that are watched after the load."""
        if self.cooldown_s is not None:
            return self.cooldown_s
        return self.scale_down_stabilization_s + SCALE_DOWN_PERIOD_S * (self.max_replicas - self.min_replicas) + 60.0


class Sweep(Strict):
    """Every combination of server settings and client batches, in a closed loop: throughput against p99."""

    max_batch_size: OneOrMore[Count] = Field(default=[1], description="largest server-side batch; 1 means no batching")
    timeout_us: OneOrMore[Count] = Field(default=[1000], description=BATCH_TIMEOUT)
    threads: OneOrMore[Count] = Field(default=[1], description="intra-op threads of a replica")
    workers: OneOrMore[Count] = Field(default=[1], description="replicas side by side")
    images_per_request: OneOrMore[Images] = Field(default=[1], description="images in one request")
    concurrency: OneOrMore[Count] = Field(default=[1, 8, 32], description="requests in flight")
    duration_s: Seconds = Field(default=5, description="measured seconds of one combination, after the warm-up")
    warmup_s: Warmup = Field(default=1, description="seconds left out of all numbers")
    repetitions: Count = Field(default=1, description="runs of each combination")


class Objective(Strict):
    """A limit for a metric; a study that misses an objective ends with exit code 1."""

    metric: str = Field(description="key of a row of the results, such as steady.p99 or capacity.images_per_s")
    at_most: FiniteFloat | None = Field(default=None, description="largest value, in the metric's own unit")
    at_least: FiniteFloat | None = Field(default=None, description="smallest value, in the metric's own unit")
    engines: list[SideName] | None = Field(
        default=None, description="engines, or frameworks of a training, that must meet it; empty: every one"
    )

    @model_validator(mode="after")
    def _has_one_bound(self) -> Objective:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give either at_most or at_least")
        return self
