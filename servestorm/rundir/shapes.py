"""What the files of a run directory hold, checked when they are read: a run is evidence, and anybody can edit it.

Only what an analysis uses is asked for. The files are written from servestorm's own types, so a fault here is an edit,
a file cut short, or another version's.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from servestorm.errors import StudyError
from servestorm.plan.cells import Cell, Scenario
from servestorm.plan.deployments import BatchingPlan
from servestorm.plan.scenarios import Autoscaling, Bursty, Capacity, Objective, Scaling, Steady, Sweep
from servestorm.plan.values import EngineName, Payload, Protocol

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


class _Limits(_Kept):
    cpus: Annotated[float, Field(gt=0, le=1e6)] | None = Field(default=None, exclude=True)
    memory_mib: Many | None = Field(default=None, exclude=True)


class _Docker(_Kept):
    """What is excluded may be missing: it is younger than some runs."""

    reach: Literal["direct", "published"] = Field(default="direct", exclude=True)
    balancer: Literal["none", "haproxy"] = Field(default="none", exclude=True)
    project: str | None = Field(default=None, exclude=True)


class _Kubernetes(_Kept):
    reach: Literal["service", "pods", "port-forward"] = Field(default="service", exclude=True)
    balancer: Literal["none", "haproxy"] = Field(default="none", exclude=True)


class _Plan(_Kept):
    """The plan with all its defaults, as far as an analysis reads it; what goes together is the plan's own matter."""

    model: Annotated[list[dict[str, Any]], Field(min_length=1)]
    engines: Annotated[list[EngineName], Field(min_length=1)]
    backend: Literal["process", "docker", "kubernetes", "attach"]
    docker: _Docker | None = None
    kubernetes: _Kubernetes | None = None
    limits: _Limits | None = None
    load_from: Literal["here", "cluster"] = Field(default="here", exclude=True)
    protocol: list[Protocol]
    payload: list[Payload]
    images_per_request: list[Many]
    repetitions: Many
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
    scaling: Scaling | None
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
    engines: dict[EngineName, str]
    cells: list[str]

    @model_validator(mode="after")
    def _its_cells_are_there_once(self) -> _Study:
        if twice := sorted({cell for cell in self.cells if self.cells.count(cell) > 1}):
            raise ValueError(f"cells: {twice[0]} is there twice")
        return self

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

    @model_validator(mode="after")
    def _its_id_says_what_it_is(self) -> _Cell:
        told = Cell(**self.model_dump(exclude={"id"})).id
        if told != self.id:
            raise ValueError(f"id: it is {self.id}, and the rest makes it {told}")
        return self


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
    valid: bool
    reasons: list[str]
    scheduled: Whole = 0
    rate: Share | None = None
    duration_s: Share = 0.0
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
    probes: Annotated[list[_Probe], Field(min_length=1)]
    reason: str

    @model_validator(mode="after")
    def _it_is_what_its_probes_tell(self) -> _Search:
        """The rule of `capacity_search.Search.result`: what a rate is worth is what its last probe said."""
        passed, high = self._standing()
        low = max(passed, default=None)
        promised = max((rate for rate, count in passed.items() if count > 1), default=None)
        told = {"rate_per_s": promised, "low": low, "high": high}
        for name, rate in told.items():
            if not _alike(given := getattr(self, name), rate):
                raise ValueError(f"{name}: it is {_or_none(given)}, and the probes tell {_or_none(rate)}")
        if self.confirmed != (promised is not None):
            raise ValueError("confirmed: the probes tell the opposite")
        return self

    @model_validator(mode="after")
    def _what_passed_kept_the_objective(self) -> _Search:
        for place, probe in enumerate(self.probes):
            if probe.verdict == "pass" and (probe.p99_ms is None or probe.p99_ms > self.objective.p99_ms):
                raise ValueError(f"probes.{place}: it passed, and its p99 is over the objective")
        return self

    def _standing(self) -> tuple[dict[float, int], float | None]:
        """How often each rate that stands passed, of those under the smallest that failed; and that one."""
        verdicts: dict[float, list[str]] = {}
        for probe in self.probes:
            verdicts.setdefault(probe.rate_per_s, []).append(probe.verdict)
        failed = [r for r, seen in verdicts.items() if seen[-1] == "fail" or seen[-2:] == ["invalid", "invalid"]]
        high = min(failed, default=math.inf)
        passed = {r: seen.count("pass") for r, seen in verdicts.items() if seen[-1] == "pass" and r < high}
        return passed, None if math.isinf(high) else high


def _alike(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


def _or_none(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}"


class _Point(_Kept):
    images_per_request: Many
    concurrency: Many
    images_per_s: Share | None
    p50_ms: Share | None
    p99_ms: Share | None
    valid: bool
    reasons: list[str]


class _Parity(_Kept):
    status: Literal["proved", "NOT PROVED EQUAL"]
    tolerance: Share
    images: Whole
    max_abs_difference: Share | None = None
    reason: str | None = None


class _Artifact(_Kept):
    sha256: str


class _Manifest(_Kept):
    name: str
    version: Whole = 1
    dataset: str | None = None
    parity: _Parity | None = None
    savedmodel: _Artifact | None = None
    mar: _Artifact | None = None


class _Node(_Kept):
    cpus: Share | None = None
    memory_bytes: Whole | None = None
    os_image: str | None = None
    instance_type: str | None = None


class _Cluster(_Kept):
    version: str | None = None
    nodes: list[_Node] | None = None


class _Environment(_Kept):
    cpu_model: str | None = None
    cores: Whole | None = None
    cores_usable: Whole | None = None
    memory_bytes: Whole | None = None
    system: str | None = None
    kernel: str | None = None
    python: str | None = None
    java: str | None = None
    packages: dict[str, str] = {}
    git_commit: str | None = None
    docker_engine: dict[str, Any] | None = None
    kubernetes: _Cluster | None = None


_SHAPES: Final[dict[str, TypeAdapter[Any]]] = {
    "study": TypeAdapter(_Study),
    "environment": TypeAdapter(_Environment),
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


class GpuUse(BaseModel):
    """What one GPU did during a load, as `used` writes it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    energy_j: Annotated[float, Field(ge=0, le=1e18)] | None
    utilisation_percent: Annotated[float, Field(ge=0, le=100)] | None
    memory_bytes: Annotated[int, Field(ge=0, le=10**18)] | None


class _GpuFields(BaseModel):
    gpus: list[GpuUse] | None


def read_gpu_use(path: Path, told: Any) -> list[GpuUse]:
    """What `used` wrote into the file, empty where there was no GPU; raises StudyError where it did not write that."""
    try:
        return _GpuFields.model_validate({"gpus": told}).gpus or []
    except ValidationError as error:
        raise StudyError(
            f"{path} is not as servestorm wrote it (watch.{first_fault(error)}): it was edited, or is of another "
            "version; run the study again."
        ) from error
