"""What the files of a run directory hold, checked when they are read: a run is evidence, and anybody can edit it.

Only what an analysis uses is asked for. The files are written from servestorm's own types, so a fault here is an edit,
a file cut short, or another version's.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from servestorm.cells import Scenario
from servestorm.errors import StudyError
from servestorm.plan_deployments import BatchingPlan
from servestorm.plan_scenarios import Autoscaling, Bursty, Capacity, Objective, Scaling, Steady, Sweep
from servestorm.plan_values import Payload, Protocol

Number = Annotated[float, Field(ge=-1e18, le=1e18)]
"""Neither infinite nor not-a-number: both are outside. 1e18 ns are 30 years."""
Share = Annotated[float, Field(ge=0, le=1e18)]
Whole = Annotated[int, Field(ge=0, le=10**18)]
Many = Annotated[int, Field(ge=1, le=10**9)]


def _a_moment(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Moment = Annotated[str, AfterValidator(_a_moment)]
"""ISO 8601."""


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Variant(_Kept):
    index: Whole
    model: Whole
    protocol: Protocol
    payload: Payload
    images_per_request: Many
    label: str
    server_label: str


class _Cores(_Kept):
    engine: list[int]
    generator: list[int]
    notes: list[str]


class _Plan(_Kept):
    """The plan with all its defaults, as far as an analysis reads it; what goes together is the plan's own matter."""

    model: Annotated[list[dict[str, Any]], Field(min_length=1)]
    engines: Annotated[list[str], Field(min_length=1)]
    backend: str
    protocol: list[Protocol]
    images_per_request: list[Many]
    cold_starts: Whole
    page_cache: list[str]
    server_warmup: list[bool]
    objectives: list[Objective]
    margin_percent: Share
    threads: list[Many]
    batching: list[BatchingPlan]
    seed: int
    steady: Steady | None = None
    bursty: Bursty | None = None
    capacity: Capacity | None = None
    scaling: Scaling | None = None
    sweep: Sweep | None = None
    autoscaling: Autoscaling | None = None


class _Study(_Kept):
    id: str
    state: str
    reason: str | None
    started_at: Moment
    resumed_at: list[str]
    plan: _Plan
    variants: Annotated[list[_Variant], Field(min_length=1)]
    cores: _Cores
    engines: dict[str, str]
    cells: list[str]

    @model_validator(mode="after")
    def _models_are_in_the_plan(self) -> _Study:
        if any(variant.model >= len(self.plan.model) for variant in self.variants):
            raise ValueError(f"a variant has a model beyond the {len(self.plan.model)} of the plan")
        return self


class _Cell(_Kept):
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


class _Outcome(_Kept):
    state: str
    reason: str | None = None


class _Event(_Kept):
    name: str
    t_ns: Whole
    replica: int | None
    detail: str


class _Use(_Kept):
    t_ns: Whole = 0
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


class _Watch(_Kept):
    elapsed_s: Share | None = None
    wall_drift_ms: Number | None = None
    clocksource: str | None = None
    cores: list[int] | None = None
    ours_s: Number | None = None
    other_s: Number | None = None
    steal_s: Share | None = None
    swapped_pages: Whole | None = None
    throttled_s: Share | None = None


class _Used(_Kept):
    start: _Use = _Use()
    ready: _Use = _Use()
    end: _Use = _Use()
    watch: _Watch = _Watch()


class _Summary(_Kept):
    valid: bool = True
    reasons: list[str] = []
    started_at: Moment = ""
    warmup_s: Share = 0.0
    cpu_share: Number | None = None

    @model_validator(mode="after")
    def _its_warmup_is_told(self) -> _Summary:
        if "started_at" in self.model_fields_set and "warmup_s" not in self.model_fields_set:
            raise ValueError("warmup_s: field required")
        return self


class _Objective(_Kept):
    p99_ms: Annotated[float, Field(gt=0, le=1e9)]
    max_error_percent: Share


class _Probe(_Kept):
    rate_per_s: Annotated[float, Field(gt=0, le=1e9)]
    verdict: Literal["pass", "fail", "invalid"]
    reason: str
    p99_ms: Share | None
    error_percent: Share | None
    confirms: bool


class _Search(_Kept):
    objective: _Objective
    rate_per_s: Share | None
    low: Share | None
    high: Share | None
    confirmed: bool
    probes: list[_Probe]
    reason: str


class _Point(_Kept):
    images_per_request: Many
    concurrency: Many
    images_per_s: Share | None
    p50_ms: Share | None
    p99_ms: Share | None
    valid: bool
    reasons: list[str]


class _Manifest(_Kept):
    name: str


_SHAPES: Final[dict[str, TypeAdapter[Any]]] = {
    "study": TypeAdapter(_Study),
    "environment": TypeAdapter(dict[str, Any]),
    "manifest": TypeAdapter(_Manifest),
    "cell": TypeAdapter(_Cell),
    "outcome": TypeAdapter(_Outcome),
    "events": TypeAdapter(list[_Event]),
    "use": TypeAdapter(_Used),
    "summary": TypeAdapter(_Summary),
    "capacity": TypeAdapter(_Search),
    "sweep": TypeAdapter(list[_Point]),
    "settled": TypeAdapter(list[Annotated[list[Number], Field(min_length=2, max_length=2)]]),
}


def _missing(whole: Any, given: Any, place: str) -> str | None:
    """The first key that `whole` has and `given` has not; a plan is kept with all its defaults."""
    if isinstance(whole, dict):
        if missing := sorted(whole.keys() - given.keys()):
            return f"{place}.{missing[0]}"
        pairs = [(f"{place}.{key}", whole[key], given[key]) for key in whole]
    elif isinstance(whole, list | tuple):
        pairs = [(f"{place}.{at}", one, other) for at, (one, other) in enumerate(zip(whole, given, strict=True))]
    else:
        return None
    return next((found for at, one, other in pairs if (found := _missing(one, other, at))), None)


def checked(path: Path, value: Any, shape: str) -> Any:
    """The value as it is; raises StudyError naming the file and its first fault where it is not of the shape."""
    try:
        found = _SHAPES[shape].validate_python(value)
    except ValidationError as error:
        raise StudyError(
            f"{path} is not as servestorm wrote it ({first_fault(error)}): it was edited, or is of another version; "
            "run the study again."
        ) from error
    if isinstance(found, _Study) and (
        missing := _missing(found.plan.model_dump(exclude_none=True), value["plan"], "plan")
    ):
        raise StudyError(
            f"{path} is not as servestorm wrote it ({missing}: field required): it was edited; run the study again."
        )
    return value


def first_fault(error: ValidationError) -> str:
    """Where the first fault is and what it is, without a capital or a full stop."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message[:1].lower()}{message[1:]}"
