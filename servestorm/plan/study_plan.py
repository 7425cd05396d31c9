"""The study plan: what a person writes in YAML, checked strictly before anything starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from servestorm.errors import StudyError
from servestorm.plan.budget import PlannedLoads
from servestorm.plan.deployments import (
    Attached,
    BatchingPlan,
    Cpus,
    DeployedPlan,
    DisturbancePlan,
    DockerPlan,
    KubernetesPlan,
    Limits,
    ModelPlan,
    Timeouts,
)
from servestorm.plan.scenarios import Autoscaling, Bursty, Capacity, Objective, Scaling, Steady, Sweep
from servestorm.plan.training import Training
from servestorm.plan.values import (
    Count,
    Duration,
    EngineName,
    FrameworkName,
    Images,
    OneOrMore,
    Payload,
    Protocol,
    SideName,
    Strict,
)
from servestorm.plan.yaml_text import checked, text_of
from serving.errors import ServingError
from serving.headers import Headers

__all__ = [
    "Autoscaling",
    "BatchingPlan",
    "Bursty",
    "Cpus",
    "DisturbancePlan",
    "DockerPlan",
    "KubernetesPlan",
    "ModelPlan",
    "Plan",
    "ignoring_disturbance",
    "load_plan",
    "loaded_from",
    "parse_plan",
]

YOUNGER = {
    "docker": None,
    "limits": None,
    "kubernetes": None,
    "load_from": "here",
    "autoscaling": None,
    "training": None,
    "design": "blocks",
    "budget": None,
    "disturbance": DisturbancePlan().model_dump(),
}
"""Keys that are younger than run directories that may go on, with what they are where a plan does not use them."""
ENFORCED_BY = {
    "docker": ("docker",),
    "kubernetes": ("kubernetes",),
    "limits": ("docker", "kubernetes"),
    "autoscaling": ("kubernetes",),
}
"""The backends that a key is of."""
FRAMEWORKS = get_args(FrameworkName)
OF_ANY_STUDY = ("name", "repetitions", "design", "objectives", "margin_percent", "prices", "seed", "disturbance")
"""The keys that a plan with `training` may have besides."""


class Plan(DeployedPlan, Strict):
    """A study: the models, the engines to compare, and the scenarios to measure."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$", description="name of the study; part of the run's ID"
    )
    model: OneOrMore[ModelPlan] = Field(
        default_factory=lambda: [ModelPlan()], description="the model to serve; a list: each of them"
    )
    engines: list[SideName] = Field(
        min_length=1,
        description="the servers to compare, in the order of the report; a plan with `training` has none, and compares "
        "its frameworks",
    )
    backend: Literal["process", "docker", "kubernetes", "attach"] = Field(
        default="process",
        description="where the engines run: as processes on this machine, in containers (docker), in pods of a "
        "cluster (kubernetes), or already, somewhere else (attach)",
    )
    attach: dict[EngineName, OneOrMore[Attached]] = Field(
        default_factory=dict, description="for backend attach: each engine's endpoints"
    )
    docker: DockerPlan | None = Field(default=None, description="for backend docker; empty: its defaults")
    kubernetes: KubernetesPlan | None = Field(default=None, description="for backend kubernetes; empty: its defaults")
    limits: Limits | None = Field(
        default=None,
        description="for backends docker and kubernetes: CPU and memory of each replica; empty: no limit, in a "
        "cluster the chart's",
    )
    load_from: Literal["here", "cluster"] = Field(
        default="here",
        description="where the load generator runs: on this machine, or for backend kubernetes as pods of the cluster",
    )
    protocol: OneOrMore[Protocol] = Field(
        default=["rest"], description="protocol of the requests; a list: each of them"
    )
    payload: OneOrMore[Payload] = Field(
        default=["image"],
        description="encoded bytes, base64 in JSON, or decoded pixels as the model takes them; a list: each of them",
    )
    images_per_request: OneOrMore[Images] = Field(
        default=[1], description="images in one request; a list: each of them"
    )
    repetitions: Annotated[int, Field(ge=3, le=10_000)] = Field(
        default=5, description="runs of every load for each engine; fewer than 3 allow no statistics"
    )
    budget: Duration | None = Field(
        default=None,
        description="time that the study may take, in place of `repetitions`: every load is repeated until its "
        "questions are decided, or until this time has passed",
    )
    design: Literal["interleaved", "blocks"] = Field(
        default="interleaved",
        description="interleaved: the engines of a comparison stand up at once and take turns with slices of load, so "
        "that a drift of the machine hits all alike; blocks: each run is for itself, where they cannot stand at once, "
        "and needs many more repetitions for the same answer",
    )
    load_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=1,
        description="attempts at a load whose only fault is a late or busy generator, or a disturbed machine; all are "
        "kept",
    )
    cold_starts: Annotated[int, Field(ge=0, le=1000)] = Field(default=5, description="cold starts of each engine")
    page_cache: OneOrMore[Literal["warm", "cold"]] = Field(
        default=["warm"], description="before a cold start; cold evicts the server's and the model's files from memory"
    )
    server_warmup: OneOrMore[bool] = Field(
        default=[True],
        description="in a cold start: whether the server answers its artifact's warm-up requests before it is ready",
    )
    steady: Steady | None = Field(default=None, description="steady load; empty: none")
    bursty: Bursty | None = Field(default=None, description="bursty load; empty: none")
    capacity: Capacity | None = Field(default=None, description="largest rate under an objective; empty: none")
    scaling: Scaling | None = Field(default=None, description="scaling; empty: none")
    sweep: Sweep | None = Field(default=None, description="server settings against each other; empty: none")
    autoscaling: Autoscaling | None = Field(
        default=None, description="for backend kubernetes: bursts on an autoscaler; empty: none"
    )
    training: Training | None = Field(
        default=None, description="trainings instead of servers, in a plan of their own; empty: none"
    )
    objectives: list[Objective] = Field(default=[], description="limits that the results must meet")
    margin_percent: Annotated[float, Field(gt=0, le=50)] = Field(
        default=5, description="smaller differences do not matter: the verdict is then `equivalent`"
    )
    prices: Path | None = Field(
        default=None, description="price file, in the format of the bundled one; empty: the bundled one"
    )
    cpus: Cpus | Literal["auto"] = Field(
        default="auto",
        description="auto: the last core for the generator, and as many as the replicas need for the engine",
    )
    threads: OneOrMore[Count] = Field(default=[1], description="intra-op threads of one replica; a list: each of them")
    batching: OneOrMore[BatchingPlan] = Field(
        default_factory=lambda: [BatchingPlan()], description="server-side batching; a list: each of them"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=1, description="seed of the order of the runs and of the arrivals"
    )
    disturbance: DisturbancePlan | Literal["ignored"] = Field(
        default_factory=DisturbancePlan,
        description="from what on a run is DISTURBED by other programs and other machines; ignored: never, as on a "
        "shared CI runner",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="time limits")

    @model_validator(mode="before")
    @classmethod
    def _compares_servers_or_frameworks(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("training") is None:
            return given
        if foreign := [key for key in given if key in cls.model_fields and key not in (*OF_ANY_STUDY, "training")]:
            raise ValueError(
                f"a training is measured without servers, which `{foreign[0]}` is about: leave it out, or put it into "
                "a plan of its own"
            )
        try:
            sides = Training.model_validate(given["training"]).frameworks
        except ValidationError:  # which the section itself will tell with its key
            sides = list(FRAMEWORKS)
        return {**given, "engines": sides, "cold_starts": 0}

    @model_validator(mode="after")
    def _names_frameworks_where_it_trains(self) -> Plan:
        if self.training is None and (wrong := next((name for name in self.engines if name in FRAMEWORKS), None)):
            raise ValueError(f"{wrong} is no server: put it under training.frameworks")
        return self

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
        asked = (self.cold_starts, self.steady, self.bursty, self.capacity, self.scaling, self.sweep, self.autoscaling)
        if not any((*asked, self.training)):
            raise ValueError(
                "nothing is asked: give cold_starts, steady, bursty, capacity, scaling, sweep, autoscaling or training"
            )
        if self.scaling and self.scaling.measure == "capacity" and not self.capacity:
            raise ValueError("scaling by capacity needs `capacity`, which says what the objective is")
        return self

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
        for name in ("threads", "batching"):
            if name in self.model_fields_set:
                raise ValueError(f"an endpoint that runs already has {name} of its own: leave it out")
        if not (self.steady or self.bursty or self.capacity):
            raise ValueError("nothing is asked of the endpoint: give steady, bursty or capacity")
        return self

    @model_validator(mode="after")
    def _headers_suit_the_engine(self) -> Plan:
        for name, places in self.attach.items():
            if any(place.headers != places[0].headers for place in places):
                raise ValueError(
                    f"attach.{name} has endpoints with different headers, and its load sends the same to all: give all "
                    "of them the same headers, or put a gateway with one token before them"
                )
            if "grpc" in self.protocol:
                try:
                    Headers.of_mapping(places[0].headers, "header").check_for_grpc()
                except ServingError as error:
                    raise ValueError(str(error).rstrip(".")) from None
        return self

    @model_validator(mode="after")
    def _only_containers_are_limited(self) -> Plan:
        for name, backends in ENFORCED_BY.items():
            if getattr(self, name) is not None and self.backend not in backends:
                right = " or ".join(backends)
                raise ValueError(
                    f"backend {self.backend} cannot enforce `{name}`: set backend: {right}, or leave it out"
                )
        if self.backend in ("docker", "kubernetes") and "cold" in self.page_cache:
            raise ValueError("the files of an image cannot be dropped from the page cache: leave page_cache at warm")
        docker = self.docker
        if docker and docker.project and (self.limits or docker.bake or docker.images):
            raise ValueError("containers of a running project cannot be given limits, a model or other images")
        if docker and docker.replicas > 1 and not docker.project:
            raise ValueError("docker.replicas is of a running project: studies of their own have `scaling`")
        return self

    @model_validator(mode="after")
    def _pods_are_placed_by_the_cluster(self) -> Plan:
        in_cluster = self.backend == "kubernetes"
        if self.load_from == "cluster" and not in_cluster:
            raise ValueError(f"backend {self.backend} has no cluster that load could come from: leave load_from out")
        if isinstance(self.cpus, Cpus) and in_cluster and self.cpus.engine:
            raise ValueError("the cluster's scheduler places the servers: leave cpus.engine out")
        if isinstance(self.cpus, Cpus) and not in_cluster and not self.cpus.engine:
            raise ValueError("`cpus.engine` is missing")
        if self.kubernetes and self.kubernetes.model_image and len(self.model) > 1:
            raise ValueError("kubernetes.model_image is of one model: leave it out where several are studied")
        return self

    @property
    def planned_loads(self) -> PlannedLoads:
        """What is asked of the engines under load."""
        requests = len(self.protocol) * len(self.payload) * len(self.images_per_request)
        return PlannedLoads(
            engines=len(self.engines),
            variants=requests * len(self.model) * len(self.threads) * len(self.batching),
            repetitions=self.repetitions,
            backend=self.backend,
            steady=self.steady,
            bursty=self.bursty,
            capacity=self.capacity,
            scaling=self.scaling,
            sweep=self.sweep,
            autoscaling=self.autoscaling,
        )

    @property
    def most_repetitions(self) -> int:
        """Repetitions of every load; with a budget, the most that it can hold."""
        return self.repetitions if self.budget is None else self.planned_loads.most_repetitions(self.budget)

    @model_validator(mode="after")
    def _budget_is_long_enough(self) -> Plan:
        if self.budget is None:
            return self
        if "repetitions" in self.model_fields_set:
            raise ValueError("budget takes the place of repetitions: give one of them")
        if not (self.steady or self.bursty or self.capacity):
            raise ValueError("budget repeats steady, bursty or capacity, and the plan has none of them: leave it out")
        if len(self.engines) < 2:
            raise ValueError("budget ends a comparison when it is decided, and there is one engine: give repetitions")
        if not self.interleaved:
            why = "design is blocks" if self.design == "blocks" else "load comes from the cluster"
            raise ValueError(f"budget needs engines that take turns, and {why}: give repetitions")
        if self.budget < (least_s := self.planned_loads.shortest_study_s):
            raise ValueError(
                f"a budget of {self.budget:g} s is too short for two instances of each engine: their loads alone take "
                f"{math.ceil(least_s)} s; give more, or shorten the loads"
            )
        return self

    @model_validator(mode="after")
    def _engines_can_stand_at_once(self) -> Plan:
        places = [place.rest for name, places in self.attach.items() if name in self.engines for place in places]
        if self.interleaved and len(set(places)) < len(places):
            raise ValueError("attach names one endpoint twice, which cannot take turns with itself: set design: blocks")
        return self

    @model_serializer(mode="wrap")
    def _as_before_where_nothing_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)  # of every type that a plan has; pydantic's own signature
        return {key: value for key, value in dumped.items() if key not in YOUNGER or value != YOUNGER[key]}


def load_plan(path: Path) -> Plan:
    """Read and check a plan; raises StudyError with the key, its line if known, and the nearest right key."""
    return checked(Plan, text_of(path), str(path))


def parse_plan(text: str, source: str) -> Plan:
    """Check the YAML text of a plan; `source` names it in errors."""
    return checked(Plan, text, source)


def ignoring_disturbance(plan: Plan) -> Plan:
    """The plan in which no run is DISTURBED."""
    return plan.model_copy(update={"disturbance": "ignored"})


def loaded_from(plan: Plan, where: Literal["here", "cluster"]) -> Plan:
    """The plan with its load generator here or in the cluster; raises StudyError where it has none."""
    if where == "cluster" and plan.backend != "kubernetes":
        raise StudyError(f"--load-from cluster needs backend kubernetes, and the plan's is {plan.backend}.")
    return plan.model_copy(update={"load_from": where})
