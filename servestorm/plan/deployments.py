"""The plan's sections that say what is deployed, where, and with which share of the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from servestorm.methods.disturbance import OTHER_PERCENT, STEAL_PERCENT, SWAPPED_PERCENT, DisturbanceLimits
from servestorm.plan.values import (
    BATCH_TIMEOUT,
    HOLDS_SECRET,
    Count,
    DatasetName,
    NetworkName,
    Percent,
    PixelSize,
    Seconds,
    Strict,
)
from serving.addresses import endpoint_url, grpc_target, page_url
from serving.errors import AddressError, ServingError
from serving.headers import Headers, names_secret

CHART_CPUS, CHART_MEMORY_MIB = 1.0, 2048
"""Limits of a replica in a cluster where a plan has none: those of the chart."""


class ModelPlan(Strict):
    """The model to serve. It is trained and exported first if its directory does not exist."""

    name: str = Field(default="cnn", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="model name in URLs")
    path: Path | None = Field(
        default=None,
        description="model directory made by `servestorm export` or `import`; empty: build/models/NAME",
    )
    dataset: DatasetName = Field(default="digits", description="data set to train on, if it must be trained")
    network: NetworkName = Field(default="cnn", description="network to train, if it must be trained")
    size: PixelSize | None = Field(
        default=None,
        description="HEIGHTxWIDTH in pixels of the network's input, such as 64x64; empty: 32x32 for cnn, else 224x224",
    )
    classes: Count | None = Field(default=None, description="of data set synthetic; empty: 10")
    images: Count | None = Field(default=None, description="of data set synthetic, in all; empty: 1000")
    data_dir: Path | None = Field(default=None, description="directory or file of that data set")
    epochs: Count = Field(default=6, description="passes over the training data if it must be trained")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=0, description="seed of the training and of the data split"
    )
    weights_from: Literal["keras", "torch"] = Field(
        default="keras", description="the framework that trains the weights which both artifacts get"
    )


class Attached(Strict):
    """An endpoint that already runs: it is only sent requests."""

    rest: str = Field(description="REST address, such as http://10.0.0.7:8501, or https://HOST for TLS")
    grpc: str | None = Field(
        default=None, description="HOST:PORT of gRPC, or https://HOST:PORT for TLS; needed for protocol grpc"
    )
    metrics: str | None = Field(
        default=None, description="URL of its Prometheus metrics, without a path /metrics; empty: none are read"
    )
    management: str | None = Field(default=None, description="TorchServe's management address; empty: not used")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="names and values of headers that all requests carry, over gRPC as metadata; a value may be "
        "`env:NAME` or `file:PATH` (of JSON: `file:PATH#/a/b`), after one word such as `Bearer`, and must be if it is "
        "a secret; the same for all endpoints of an engine",
    )
    metrics_headers: dict[str, str] | None = Field(
        default=None, description="in place of `headers`, for its metrics; empty: `headers`"
    )
    management_headers: dict[str, str] | None = Field(
        default=None, description="in place of `headers`, for the management address; empty: `headers`"
    )

    @field_validator("headers", "metrics_headers", "management_headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str] | None) -> dict[str, str] | None:
        try:
            Headers.of_mapping(headers or {}, "header")
        except ServingError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return headers

    @model_serializer(mode="wrap")
    def _as_before_without_headers(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)  # of every type that an endpoint has; pydantic's own signature
        unused: dict[str, Any] = {"headers": {}, "metrics_headers": None, "management_headers": None}
        return {key: value for key, value in dumped.items() if key not in unused or value != unused[key]}

    @field_validator("rest", "grpc", "metrics", "management", mode="before")
    @classmethod
    def _holds_no_password(cls, address: object) -> object:
        if isinstance(address, str) and "@" in address:
            raise PydanticCustomError(
                HOLDS_SECRET,
                "a user name or password in an address is never sent, and would stay in the run directory: leave out "
                "all up to the @",
            )
        return address

    @field_validator("rest")
    @classmethod
    def _base_url(cls, address: str) -> str:
        return _normalised(address, endpoint_url)

    @field_validator("grpc")
    @classmethod
    def _grpc_target(cls, address: str | None) -> str | None:
        return address and _normalised(address, grpc_target)

    @field_validator("metrics")
    @classmethod
    def _metrics_page(cls, address: str | None) -> str | None:
        return address and _normalised(address, lambda text: page_url(text, "/metrics"))

    @field_validator("management")
    @classmethod
    def _management_base(cls, address: str | None) -> str | None:
        return address and _normalised(address, page_url).rstrip("/")

    @field_validator("metrics", "management")
    @classmethod
    def _holds_no_token(cls, address: str | None) -> str | None:
        parameters = parse_qsl(urlsplit(address or "").query, keep_blank_values=True)
        if any(names_secret(name) for name, _ in parameters):
            raise PydanticCustomError(
                HOLDS_SECRET,
                "a secret in an address would stay in the run directory: send it as a header, with env:NAME or "
                "file:PATH under metrics_headers or management_headers",
            )
        return address


def _normalised(address: str, read: Callable[[str], str]) -> str:
    """As `read` writes it; ValueError with its reason, to which the address is added for every key of a plan."""
    try:
        return read(address)
    except AddressError as error:
        raise ValueError(str(error).removeprefix(f"{address.strip()!r} ").rstrip(".")) from error


class Limits(Strict):
    """The most that one replica may use, the same for every engine. Only backends that can enforce it accept it."""

    cpus: Annotated[float, Field(gt=0, le=1024)] | None = Field(
        default=None,
        description="CPUs on average over 0.1 s (CFS quota), in addition to the cores; empty: no quota, in a "
        f"cluster {CHART_CPUS:g}",
    )
    memory_mib: Annotated[int, Field(ge=16)] | None = Field(
        default=None,
        description="memory in MiB, page cache included; a server that needs more is killed; empty: no limit, in a "
        f"cluster {CHART_MEMORY_MIB}",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Limits:
        if self.cpus is None and self.memory_mib is None:
            raise ValueError("give cpus, memory_mib or both, or leave limits out")
        return self


class DockerPlan(Strict):
    """How the containers of backend docker are created and reached."""

    images: dict[Literal["savedmodel", "torchserve", "tfserving", "haproxy"], str] = Field(
        default_factory=dict, description="image references instead of the default ones, by engine, or for haproxy"
    )
    reach: Literal["direct", "published"] = Field(
        default="direct",
        description="direct: at the containers' own addresses; published: at ports of 127.0.0.1, by Docker's proxy",
    )
    balancer: Literal["none", "haproxy"] = Field(
        default="none",
        description="haproxy: load for several replicas goes through an HAProxy on the generator's cores; none: the "
        "generator distributes it",
    )
    bake: bool = Field(
        default=False, description="build an image with the model in it for each deployment, instead of mounting it"
    )
    project: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="a running compose project to send load to; empty: containers are started",
    )
    replicas: Count = Field(default=1, description="containers of each engine that run in that project")


class KubernetesPlan(Strict):
    """Where in a cluster the chart is installed for backend kubernetes, and how its pods are reached."""

    context: str | None = Field(
        default=None,
        description="context of your kubeconfig; empty: the current one, or the account of the pod that runs this",
    )
    namespace: str = Field(
        default="servestorm",
        max_length=63,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="namespace of the releases; if there is none, it is created, and removed at the end",
    )
    images: dict[Literal["savedmodel", "torchserve", "tfserving", "haproxy", "generator"], str] = Field(
        default_factory=dict,
        description="image references instead of the chart's, by engine, or for haproxy, or for generator",
    )
    registry: str = Field(default="", description="prefix of the servestorm images; empty: the nodes have them already")
    model_image: str | None = Field(
        default=None, min_length=1, description="made by `servestorm image`; empty: servestorm/models-NAME"
    )
    values: list[Path] = Field(
        default=[], description="further values files of the chart; a later one overrides an earlier one"
    )
    reach: Literal["service", "pods", "port-forward"] = Field(
        default="service",
        description="service: load goes to the Service; pods: the generator distributes it over the ready pods, "
        "followed live; port-forward: to the pods, or to HAProxy, through the API server, if they cannot "
        "be reached directly",
    )
    balancer: Literal["none", "haproxy"] = Field(
        default="none",
        description="haproxy: the Service leads to the chart's HAProxy, which distributes requests; none: it leads to"
        " the pods, and distributes connections",
    )
    agents: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="generator pods, if load_from is cluster"
    )

    @model_validator(mode="after")
    def _balancer_is_reached(self) -> KubernetesPlan:
        if self.balancer != "none" and self.reach == "pods":
            raise ValueError("reach pods goes past the balancer: set reach: service, or balancer: none")
        return self


class Cpus(Strict):
    """Which cores the engine and the generator get."""

    engine: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], description="cores of all replicas together; not in a cluster, whose scheduler places them"
    )
    generator: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="cores of the load generator and of everything else"
    )


class BatchingPlan(Strict):
    """Server-side batching, the same for every engine."""

    max_batch_size: Count = Field(
        default=1, description="largest batch, in images (of TorchServe, in requests); 1 means no batching"
    )
    timeout_us: Count = Field(default=1000, description=BATCH_TIMEOUT)


class DisturbancePlan(Strict):
    """What else the machine may do during a run; one with more is DISTURBED: shown, without a verdict."""

    other_percent: Percent = Field(
        default=OTHER_PERCENT, description="of the study's cores, used by other programs; 100 switches this limit off"
    )
    steal_percent: Percent = Field(
        default=STEAL_PERCENT,
        description="of the study's cores, given to other machines by the hypervisor; 100 switches this limit off",
    )
    swapped_percent: Percent = Field(
        default=SWAPPED_PERCENT, description="of the servers' memory, in swap at the end; 100 switches this limit off"
    )


class Timeouts(Strict):
    """Time limits, after which a run fails."""

    ready_s: Seconds = Field(default=120, description="from the server's start to a ready server")
    answer_s: Seconds = Field(default=30, description="from ready to the first right answer")
    generator_s: Seconds = Field(default=60, description="for the generator, in addition to its load's length")


class ReplicaLimits(NamedTuple):
    """What one replica may use at most; None is no limit."""

    cpus: float | None
    """CPUs on average (CFS quota)."""
    memory_mib: int | None


class _Limits(Protocol):
    @property
    def cpus(self) -> float | None: ...

    @property
    def memory_mib(self) -> int | None: ...


class _Containers(Protocol):
    @property
    def project(self) -> str | None: ...


class _Deployments(Protocol):
    @property
    def backend(self) -> str: ...

    @property
    def load_from(self) -> str: ...

    @property
    def disturbance(self) -> DisturbancePlan | Literal["ignored"]: ...

    @property
    def docker(self) -> _Containers | None: ...

    @property
    def limits(self) -> _Limits | None: ...


class _ComparedDeployments(Protocol):
    @property
    def design(self) -> str: ...

    @property
    def engines(self) -> Sequence[str]: ...

    @property
    def load_from(self) -> str: ...


class _JudgedDeployments(_Deployments, Protocol):
    @property
    def runs_already(self) -> bool: ...


class DeployedPlan:
    """What follows from where a plan deploys its servers, whether a person wrote the plan or study.json holds it."""

    @property
    def runs_already(self: _Deployments) -> bool:
        """Whether the servers were started by somebody else, and are only asked."""
        return self.backend == "attach" or bool(self.docker and self.docker.project)

    @property
    def interleaved(self: _ComparedDeployments) -> bool:
        """Whether all engines of a comparison stand up at once and take turns with slices of load."""
        return self.design == "interleaved" and len(self.engines) > 1 and self.load_from == "here"

    @property
    def disturbance_limits(self: _JudgedDeployments) -> DisturbanceLimits | None:
        """From which shares on a run is DISTURBED; None where it never is: what this machine did is no fact of a load
        from elsewhere. Servers that ran already may be the other programs themselves, so these are not judged there.
        """
        limits = self.disturbance
        if isinstance(limits, str) or self.load_from != "here":
            return None
        percents = (limits.other_percent, limits.steal_percent, limits.swapped_percent)
        other_percent, steal_percent, swapped_percent = (_limit(percent) for percent in percents)
        return DisturbanceLimits(math.inf if self.runs_already else other_percent, steal_percent, swapped_percent)

    @property
    def replica_limits(self: _Deployments) -> ReplicaLimits:
        """What one replica may use: in a cluster there is always a limit, the chart's where the plan has none."""
        cpus = self.limits.cpus if self.limits else None
        memory_mib = self.limits.memory_mib if self.limits else None
        if self.backend == "kubernetes":
            return ReplicaLimits(cpus or CHART_CPUS, memory_mib or CHART_MEMORY_MIB)
        return ReplicaLimits(cpus, memory_mib)


def _limit(percent: float) -> float:
    """Infinity for the whole: a share that the kernel's ticks round up to 100.3 % is no more than that."""
    return percent if percent < 100 else math.inf
