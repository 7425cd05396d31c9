"""The study plan: what a person writes in YAML, checked strictly before anything starts."""

from __future__ import annotations

import difflib
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from servestorm.errors import StudyError

EngineName = Literal["savedmodel", "torchserve", "tfserving"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000)]


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
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = Field(default=2, description="seconds left out of all numbers")


class Bursty(_Strict):
    """Open-loop load that switches between a base and a peak rate."""

    base_rate: Rate = Field(description="requests per second between bursts")
    peak_rate: Rate = Field(description="requests per second in a burst")
    on_s: Seconds = Field(description="seconds of a burst")
    off_s: Seconds = Field(description="seconds between bursts")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = Field(default=2, description="seconds left out of all numbers")

    @model_validator(mode="after")
    def _peak_is_above_base(self) -> Bursty:
        if self.peak_rate <= self.base_rate:
            raise ValueError(f"peak_rate ({self.peak_rate:g}) must be above base_rate ({self.base_rate:g})")
        return self


class Scaling(_Strict):
    """Throughput with a fixed number of requests in flight (closed loop) at several replica counts."""

    replicas: list[Count] = Field(default=[1, 2], min_length=1, description="replica counts, the first is the base")
    concurrency: Count = Field(default=16, description="requests in flight")
    duration_s: Seconds = Field(description="measured seconds, after the warm-up")
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = Field(default=2, description="seconds left out of all numbers")
    repetitions: Count = Field(default=1, description="runs of each replica count")

    @model_validator(mode="after")
    def _counts_grow(self) -> Scaling:
        if self.replicas != sorted(set(self.replicas)):
            raise ValueError(f"replicas must grow, such as [1, 2], not {self.replicas}")
        return self


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

    ready_s: Seconds = Field(default=120, description="from the process start to a ready server")
    answer_s: Seconds = Field(default=30, description="from ready to the first right answer")
    generator_s: Seconds = Field(default=60, description="for the generator beyond its load's own length")


class Plan(_Strict):
    """A study: one model, the engines to compare, and what is asked of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$", description="of the study; part of the run's ID")
    model: ModelPlan = Field(default_factory=ModelPlan, description="which model is studied")
    engines: list[EngineName] = Field(min_length=1, description="what serves it, in the order of the report")
    protocol: Literal["rest", "grpc"] = Field(default="rest", description="how requests travel")
    payload: Literal["image", "b64", "tensor"] = Field(
        default="image", description="encoded bytes, base64 in JSON, or decoded float32 pixels"
    )
    images_per_request: Annotated[int, Field(ge=1, le=1024)] = Field(default=1, description="images")
    repetitions: Count = Field(default=3, description="runs of steady and bursty load for each engine")
    load_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=1, description="tries of a load whose only fault is that the generator was late or busy; all are kept"
    )
    cold_starts: Annotated[int, Field(ge=0, le=1000)] = Field(default=5, description="cold starts of each engine")
    steady: Steady | None = Field(default=None, description="steady load; empty: none")
    bursty: Bursty | None = Field(default=None, description="bursty load; empty: none")
    scaling: Scaling | None = Field(default=None, description="scaling; empty: none")
    cpus: Cpus | Literal["auto"] = Field(
        default="auto", description="auto: the last core for the generator, as many as the replicas want for the engine"
    )
    threads: Count = Field(default=1, description="intra-op threads of one replica")
    batching: BatchingPlan = Field(default_factory=BatchingPlan, description="server-side batching")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=1, description="of the order of the runs and of the arrivals"
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="how long anything may take")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Plan:
        if len(set(self.engines)) != len(self.engines):
            raise ValueError(f"engines names one twice: {', '.join(self.engines)}")
        if not (self.cold_starts or self.steady or self.bursty or self.scaling):
            raise ValueError("nothing is asked: give cold_starts, steady, bursty or scaling")
        return self


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


def _nearest(where: list[Any]) -> str:
    """', did you mean `x`?' or the list of keys that exist beside the wrong one."""
    model: type[BaseModel] = Plan
    for part in where[:-1]:
        model = _model_of(model, part) or model
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    return f", did you mean `{close[0]}`?" if close else f"; the keys are {', '.join(known)}"


def _model_of(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    field = model.model_fields.get(str(key))
    kinds = (typing.get_args(field.annotation) or (field.annotation,)) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


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
