"""The study plan: what a person writes in YAML, checked strictly before anything starts."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from servestorm.errors import StudyError

EngineName = Literal["savedmodel", "torchserve", "tfserving"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]
Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Warmup = Annotated[float, Field(ge=0, le=3600)]
Protocol = Literal["rest", "grpc"]
Payload = Literal["image", "b64", "tensor"]
Images = Annotated[int, Field(ge=1, le=1024)]
Item = TypeVar("Item")
OneOrMore = Annotated[list[Item], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1)]
"""One value, or a list of values that are all studied."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPlan(_Strict):
    """Which model is studied. It is trained and exported first where its directory does not exist."""

    name: str = Field(default="cnn", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="model name in URLs")
    path: Path | None = Field(
        default=None,
        description="model directory made by `servestorm export` or `import`; empty: build/models/NAME",
    )
    dataset: Literal["digits", "cifar10", "folder"] = Field(
        default="digits", description="what it is trained on if it must be trained"
    )
    data_dir: Path | None = Field(default=None, description="where that data set lies (cifar10, folder)")
    epochs: Count = Field(default=6, description="passes over the training data if it must be trained")
    seed: int = Field(default=0, ge=0, description="of the training and of the data split")
    weights_from: Literal["keras", "torch"] = Field(
        default="keras", description="the framework that trains the weights which both artifacts get"
    )


class Steady(_Strict):
    """Open-loop load at one rate."""

    rate_per_s: Rate = Field(description="requests per second")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Warmup = Field(default=2, description="seconds left out of all numbers")


class Bursty(_Strict):
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


class Capacity(_Strict):
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


class Scaling(_Strict):
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


class Sweep(_Strict):
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


class Objective(_Strict):
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


class Attached(_Strict):
    """An endpoint that runs already, and is only asked."""

    rest: str = Field(pattern=r"^https?://[^/\s]+$", description="REST address, such as http://10.0.0.7:8501")
    grpc: str | None = Field(default=None, description="HOST:PORT of gRPC; needed where the protocol is grpc")
    metrics: str | None = Field(default=None, description="address of its Prometheus text; empty: none is read")
    management: str | None = Field(default=None, description="TorchServe's management address; empty: none is asked")


class Limits(_Strict):
    """What one replica may use at most; the same for every engine. Only a backend that can enforce them takes them."""

    cpus: Annotated[float, Field(gt=0, le=1024)] | None = Field(
        default=None, description="CPUs on average over 0.1 s (CFS quota), on top of the cores; empty: the cores alone"
    )
    memory_mib: Annotated[int, Field(ge=16)] | None = Field(
        default=None, description="memory in MiB, page cache included; who needs more is killed; empty: none"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Limits:
        if self.cpus is None and self.memory_mib is None:
            raise ValueError("give cpus, memory_mib or both, or leave limits out")
        return self


class DockerPlan(_Strict):
    """How the containers of backend docker are made and reached."""

    images: dict[Literal["savedmodel", "torchserve", "tfserving", "haproxy"], str] = Field(
        default_factory=dict, description="image references in place of the default ones, by engine, or for haproxy"
    )
    reach: Literal["direct", "published"] = Field(
        default="direct",
        description="direct: at the containers' own addresses; published: at ports of 127.0.0.1, by Docker's proxy",
    )
    balancer: Literal["none", "haproxy"] = Field(
        default="none",
        description="haproxy: load for several replicas goes through an HAProxy on the generator's cores; none: the "
        "generator deals it out",
    )
    bake: bool = Field(
        default=False, description="build an image with the model in it for each deployment, instead of mounting it"
    )
    project: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="a running compose project whose containers are asked; empty: containers are started",
    )
    replicas: Count = Field(default=1, description="containers of each engine that run in that project")


class Cpus(_Strict):
    """Which cores the engine and the generator get."""

    engine: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="cores of all replicas together")
    generator: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="cores of the load generator and of everything else"
    )


class BatchingPlan(_Strict):
    """Server-side batching, the same for every engine."""

    max_batch_size: Count = Field(default=1, description="images; 1 means no batching")
    timeout_us: Count = Field(default=1000, description="longest wait for a batch, microseconds")


class Timeouts(_Strict):
    """How long anything may take before it counts as failed."""

    ready_s: Seconds = Field(default=120, description="from the server's start to a ready server")
    answer_s: Seconds = Field(default=30, description="from ready to the first right answer")
    generator_s: Seconds = Field(default=60, description="for the generator beyond its load's own length")


class Plan(_Strict):
    """A study: one model, the engines to compare, and what is asked of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$", description="of the study; part of the run's ID")
    model: OneOrMore[ModelPlan] = Field(
        default_factory=lambda: [ModelPlan()], description="which model is studied; a list: each of them"
    )
    engines: list[EngineName] = Field(min_length=1, description="what serves it, in the order of the report")
    backend: Literal["process", "docker", "attach"] = Field(
        default="process",
        description="where the engines run: as processes here, as containers (docker), or elsewhere already (attach)",
    )
    attach: dict[EngineName, OneOrMore[Attached]] = Field(
        default_factory=dict, description="for backend attach: each engine's endpoints"
    )
    docker: DockerPlan | None = Field(default=None, description="for backend docker; empty: its defaults")
    limits: Limits | None = Field(default=None, description="for backend docker: of each replica; empty: none")
    protocol: OneOrMore[Protocol] = Field(default=["rest"], description="how requests travel; a list: each of them")
    payload: OneOrMore[Payload] = Field(
        default=["image"], description="encoded bytes, base64 in JSON, or decoded float32 pixels; a list: each of them"
    )
    images_per_request: OneOrMore[Images] = Field(default=[1], description="images; a list: each of them")
    repetitions: Annotated[int, Field(ge=3, le=10_000)] = Field(
        default=5, description="runs of every load for each engine; fewer than 3 can show nothing"
    )
    load_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=1, description="tries of a load whose only fault is that the generator was late or busy; all are kept"
    )
    cold_starts: Annotated[int, Field(ge=0, le=1000)] = Field(default=5, description="cold starts of each engine")
    page_cache: OneOrMore[Literal["warm", "cold"]] = Field(
        default=["warm"], description="of a cold start: cold drops the server's and the model's files from memory first"
    )
    server_warmup: OneOrMore[bool] = Field(
        default=[True],
        description="of a cold start: whether the server answers its artifact's warm-up requests before it is ready",
    )
    steady: Steady | None = Field(default=None, description="steady load; empty: none")
    bursty: Bursty | None = Field(default=None, description="bursty load; empty: none")
    capacity: Capacity | None = Field(default=None, description="largest rate under an objective; empty: none")
    scaling: Scaling | None = Field(default=None, description="scaling; empty: none")
    sweep: Sweep | None = Field(default=None, description="server settings against each other; empty: none")
    objectives: list[Objective] = Field(default=[], description="what the results must keep")
    margin_percent: Annotated[float, Field(gt=0, le=50)] = Field(
        default=5, description="differences inside it count as none: the verdict is then `equivalent`"
    )
    prices: Path | None = Field(
        default=None, description="price file in the form of the one that comes with servestorm; empty: that one"
    )
    cpus: Cpus | Literal["auto"] = Field(
        default="auto", description="auto: the last core for the generator, as many as the replicas want for the engine"
    )
    threads: OneOrMore[Count] = Field(default=[1], description="intra-op threads of one replica; a list: each of them")
    batching: OneOrMore[BatchingPlan] = Field(
        default_factory=lambda: [BatchingPlan()], description="server-side batching; a list: each of them"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=1, description="of the order of the runs and of the arrivals"
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="how long anything may take")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Plan:
        for name in (
            "engines",
            "model",
            "protocol",
            "payload",
            "images_per_request",
            "threads",
            "page_cache",
            "server_warmup",
        ):
            values = [value.name if isinstance(value, ModelPlan) else value for value in getattr(self, name)]
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")
        if not (self.cold_starts or self.steady or self.bursty or self.capacity or self.scaling or self.sweep):
            raise ValueError("nothing is asked: give cold_starts, steady, bursty, capacity, scaling or sweep")
        if self.scaling and self.scaling.measure == "capacity" and not self.capacity:
            raise ValueError("scaling by capacity needs `capacity`, which says what the objective is")
        return self

    @property
    def runs_already(self) -> bool:
        """Whether the servers were started by somebody else, and are only asked."""
        return self.backend == "attach" or bool(self.docker and self.docker.project)

    @model_validator(mode="after")
    def _attaches_to_what_is_named(self) -> Plan:
        if self.attach and self.backend != "attach":
            raise ValueError(f"attach names endpoints, but backend is {self.backend}: set backend: attach")
        if not self.runs_already:
            return self
        if self.backend == "attach" and (missing := [name for name in self.engines if name not in self.attach]):
            raise ValueError(f"backend attach needs the endpoints of {missing[0]} under `attach`")
        for name in ("cold_starts", "scaling", "sweep"):
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"an endpoint that runs already has no {name}: leave it out")
        if not (self.steady or self.bursty or self.capacity):
            raise ValueError("nothing is asked of the endpoint: give steady, bursty or capacity")
        return self

    @model_validator(mode="after")
    def _only_containers_are_limited(self) -> Plan:
        for name in ("limits", "docker"):
            if getattr(self, name) is not None and self.backend != "docker":
                raise ValueError(f"backend {self.backend} cannot enforce `{name}`: set backend: docker or leave it out")
        if self.backend == "docker" and "cold" in self.page_cache:
            raise ValueError("the files of an image cannot be dropped from the page cache: leave page_cache at warm")
        docker = self.docker
        if docker and docker.project and (self.limits or docker.bake or docker.images):
            raise ValueError("containers of a running project cannot be given limits, a model or other images")
        if docker and docker.replicas > 1 and not docker.project:
            raise ValueError("docker.replicas is of a running project: studies of their own have `scaling`")
        return self

    @model_serializer(mode="wrap")
    def _as_before_where_nothing_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys that are younger than the run directories that may go on, where a plan does not use them."""
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key not in ("docker", "limits") or value is not None}


def load_plan(path: Path) -> Plan:
    """Read and check a plan; raises StudyError with the key, its line if known, and the nearest right key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: give a plan such as studies/quickstart.yaml.") from error
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read as a plan ({error}): give a YAML file.") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, source: str) -> Plan:
    """Check the YAML text of a plan; `source` names it in errors."""
    try:
        document = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError(f"{source}{line}: this is not YAML: {problem}.") from error
    if not isinstance(document, dict):
        raise StudyError(f"{source}: a plan is a mapping that begins with `name:` and `engines:`.")
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        raise StudyError(_explain(error, tree, source)) from error


def _explain(error: ValidationError, tree: yaml.Node | None, source: str) -> str:
    """One sentence for the first fault: unknown keys before the gaps that they leave."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    # a union's branch (`cpus.Cpus.engine`) is no key that a person wrote
    where = [part for part in fault["loc"] if not (isinstance(part, str) and part[:1].isupper())]
    where = _as_written(tree, where)
    line = _line_of(tree, where)
    place = f"{source}:{line}" if line else source
    key = ".".join(str(part) for part in where)
    more = f" ({len(faults) - 1} more after it)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"{place}: there is no key `{key}`{_nearest(where)}.{more}"
    if fault["type"] == "missing":
        return f"{place}: `{key}` is missing.{more}"
    message = re.sub(r"valid dictionary or instance of \w+", "mapping", fault["msg"].removeprefix("Value error, "))
    if where == ["cpus"]:
        message = "auto or a mapping such as {engine: [0], generator: [1]} is wanted"
    given = "" if isinstance(fault["input"], (dict, BaseModel)) else f", not {fault['input']!r}"
    label = f"`{key}`: " if key else ""
    return f"{place}: {label}{message[:1].lower()}{message[1:]}{given}.{more}"


def _as_written(node: yaml.Node | None, where: list[Any]) -> list[Any]:
    """The place without the index of a value that stands alone where a list may stand."""
    found: list[Any] = []
    for part in where:
        if isinstance(part, int) and not isinstance(node, yaml.SequenceNode):
            continue
        found.append(part)
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
    return found


def _nearest(where: list[Any]) -> str:
    """', did you mean `x`?' or the list of keys that exist beside the wrong one."""
    model: type[BaseModel] = Plan
    for part in where[:-1]:
        model = _model_of(model, part) or model  # an index of a list leaves the model as it is
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    return f", did you mean `{close[0]}`?" if close else f"; the keys are {', '.join(known)}"


def _model_of(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    field = model.model_fields.get(str(key))
    return next(_models_in(field.annotation), None) if field else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _line_of(node: yaml.Node | None, where: list[Any]) -> int | None:
    """Line (from 1) of the deepest key of `where` that the text holds."""
    line = None
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
