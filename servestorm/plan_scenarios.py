"""The plan's sections that say what is asked of a deployment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from servestorm.plan_values import Count, EngineName, Images, Milliseconds, OneOrMore, Rate, Seconds, Strict, Warmup


class Steady(Strict):
    """Open-loop load at one rate."""

    rate_per_s: Rate = Field(description="requests per second")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")


class Bursty(Strict):
    """Open-loop load that switches between a base and a peak rate."""

    base_rate: Rate = Field(description="requests per second between bursts")
    peak_rate: Rate = Field(description="requests per second in a burst")
    on_s: Seconds = Field(description="seconds of a burst")
    off_s: Seconds = Field(description="seconds between bursts")
    objective_ms: Milliseconds | None = Field(
        default=None,
        description="latency of a request that a burst should keep; empty: recovery is back to before the bursts",
    )
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")

    @model_validator(mode="after")
    def _peak_is_above_base(self) -> Bursty:
        if self.peak_rate <= self.base_rate:
            raise ValueError(f"peak_rate ({self.peak_rate:g}) must be above base_rate ({self.base_rate:g})")
        return self


class Capacity(Strict):
    """The largest rate that keeps an objective: found by probes of open-loop load on one deployment."""

    p99_ms: Milliseconds = Field(description="longest 99th percentile of a request's latency, milliseconds")
    max_error_percent: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="largest share of failed or wrong answers, percent"
    )
    start_rate_per_s: Rate | None = Field(
        default=None,
        description="requests per second of the first probe; empty: half of what a short closed loop gives",
    )
    probe_s: Seconds = Field(
        default=20, description="measured seconds of a probe, after the warm-up; longer where a p99 needs it"
    )
    warmup_s: Warmup = Field(default=1, description="seconds left out of all numbers")
    most_probes: Annotated[int, Field(ge=3, le=100)] = Field(default=12, description="probes of one search")
    tolerance_percent: Annotated[float, Field(gt=0, le=50)] = Field(
        default=3, description="the search ends when pass and fail lie this close together, percent"
    )


class Scaling(Strict):
    """What more replicas give: throughput with so many requests in flight, or the capacity under the objective."""

    replicas: list[Count] = Field(default=[1, 2], min_length=1, description="replica counts, the first is the base")
    measure: Literal["throughput", "capacity"] = Field(
        default="throughput",
        description="throughput: closed loop with `concurrency` in flight; capacity: a search as `capacity` says",
    )
    concurrency: Count = Field(default=16, description="requests in flight")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")
    repetitions: Count | None = Field(default=None, description="runs of each replica count; empty: as the plan's")

    @model_validator(mode="after")
    def _counts_grow(self) -> Scaling:
        if self.replicas != sorted(set(self.replicas)):
            raise ValueError(f"replicas must grow, such as [1, 2], not {self.replicas}")
        return self


class Sweep(Strict):
    """Every combination of server settings and client batches, in a closed loop: throughput against p99."""

    max_batch_size: OneOrMore[Count] = Field(default=[1], description="of the server's batching; 1 means none")
    timeout_us: OneOrMore[Count] = Field(default=[1000], description="longest wait for a batch, microseconds")
    threads: OneOrMore[Count] = Field(default=[1], description="intra-op threads of a replica")
    workers: OneOrMore[Count] = Field(default=[1], description="replicas side by side")
    images_per_request: OneOrMore[Images] = Field(default=[1], description="images in one request")
    concurrency: OneOrMore[Count] = Field(default=[1, 8, 32], description="requests in flight")
    duration_s: Seconds = Field(default=5, description="measured seconds of one combination, after the warm-up")
    warmup_s: Warmup = Field(default=1, description="seconds left out of all numbers")
    repetitions: Count = Field(default=1, description="runs of each combination")


class Objective(Strict):
    """What a metric must keep; a study whose objectives are missed ends with exit code 1."""

    metric: str = Field(description="key of a row of the results, such as steady.p99 or capacity.images_per_s")
    at_most: float | None = Field(default=None, description="largest value, in the metric's own unit")
    at_least: float | None = Field(default=None, description="smallest value, in the metric's own unit")
    engines: list[EngineName] | None = Field(default=None, description="who must keep it; empty: every engine")

    @model_validator(mode="after")
    def _has_one_bound(self) -> Objective:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give either at_most or at_least")
        return self
