"""study.json: the plan with all its defaults, its variants and cells, and how far the study came."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, model_validator

from servestorm.errors import StudyError
from servestorm.methods.group_sequential import checked_shares
from servestorm.plan.cells import Scenario
from servestorm.plan.deployments import BatchingPlan, DeployedPlan, DisturbancePlan
from servestorm.plan.scenarios import Autoscaling, Bursty, Capacity, Objective, Scaling, Steady, Sweep
from servestorm.plan.training import Training
from servestorm.plan.values import Payload, Protocol, SideName
from servestorm.rundir.shapes.file_shape import FileShape, Many, Moment, Share, Whole, checked


class ModelSection(FileShape):
    """A model of the plan."""

    name: str


class LimitsSection(FileShape):
    """What one replica may use. Each may be missing, for it is younger than some runs."""

    cpus: Annotated[float, Field(gt=0, le=1e6)] | None = Field(default=None, exclude=True)
    memory_mib: Many | None = Field(default=None, exclude=True)


class DockerSection(FileShape):
    """How containers were reached. What is excluded may be missing: it is younger than some runs."""

    reach: Literal["direct", "published"] = Field(default="direct", exclude=True)
    balancer: Literal["none", "haproxy"] = Field(default="none", exclude=True)
    project: str | None = Field(default=None, exclude=True)


class KubernetesSection(FileShape):
    """How pods were reached."""

    reach: Literal["service", "pods", "port-forward"] = Field(default="service", exclude=True)
    balancer: Literal["none", "haproxy"] = Field(default="none", exclude=True)


class DeploymentSections(DeployedPlan, FileShape):
    """The keys of a plan that say where its servers run and where its load comes from."""

    backend: str = ""
    docker: DockerSection | None = None
    kubernetes: KubernetesSection | None = None
    limits: LimitsSection | None = None
    load_from: Literal["here", "cluster"] = Field(default="here", exclude=True)
    design: Literal["interleaved", "blocks"] = Field(default="blocks", exclude=True)
    """Younger than some runs, which were blocks."""
    disturbance: DisturbancePlan | Literal["ignored"] = Field(default_factory=DisturbancePlan, exclude=True)

    @property
    def docker_reach(self) -> DockerSection:
        """How containers are reached: the defaults where the plan does not say."""
        return self.docker or DockerSection()

    @property
    def cluster_reach(self) -> KubernetesSection:
        """How pods are reached: the defaults where the plan does not say."""
        return self.kubernetes or KubernetesSection()


class PlanFile(DeploymentSections):
    """The plan with all its defaults, as far as an analysis reads it.

    Whether its parts go together was checked when the plan was read from YAML (servestorm.plan.study_plan.Plan).
    """

    model: Annotated[list[ModelSection], Field(min_length=1)]
    engines: Annotated[list[SideName], Field(min_length=1)]
    backend: Literal["process", "docker", "kubernetes", "attach"]
    protocol: list[Protocol]
    payload: list[Payload]
    images_per_request: list[Many]
    repetitions: Many
    budget: Share | None = Field(default=None, exclude=True)
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
    training: Training | None = None

    def asked(self, scenario: Scenario) -> object:
        """What the plan asks of a scenario: its section, or the number of cold starts; falsy where it asks nothing."""
        sections: dict[Scenario, object] = {
            "coldstart": self.cold_starts,
            "steady": self.steady,
            "bursty": self.bursty,
            "capacity": self.capacity,
            "scaling": self.scaling,
            "sweep": self.sweep,
            "autoscaling": self.autoscaling,
            "training": self.training,
        }
        return sections[scenario]


class VariantFile(FileShape):
    """One combination of what the plan gives several values of; see servestorm.plan.cells.Variant."""

    index: Whole
    model: Whole
    """Index into the plan's models."""
    protocol: Protocol
    payload: Payload
    images_per_request: Many
    label: str
    server_label: str


class CoresFile(FileShape):
    """Which cores the servers and the load generator had, with what a reader should know of it."""

    engine: list[int]
    """Empty in a cluster, whose scheduler places the servers."""
    generator: list[int]
    notes: list[str]


class SpentFile(FileShape):
    """How much of its budget a study has spent; seconds."""

    all_s: Share
    before_rounds_s: Share | None
    """Before the first round that is repeated; None where there was none yet."""


class StudyFile(FileShape):
    """study.json."""

    id: str
    state: str
    """running, complete, incomplete (it came to its end, and runs of it failed), interrupted or failed."""
    reason: str | None
    """Why it is incomplete, interrupted or failed."""
    started_at: Moment
    resumed_at: list[str]
    plan: PlanFile
    variants: Annotated[list[VariantFile], Field(min_length=1)]
    cores: CoresFile
    engines: dict[SideName, str]
    """The version of each engine, or framework."""
    cells: list[str]
    """The ids of all runs that the plan asks for, in order; with a budget, those that may run."""
    looks: dict[str, list[Share]] = Field(default_factory=dict, exclude=True)
    """By group of runs: the information shares (0..1] at which the study looked at its verdicts, to end early."""
    budget_spent: SpentFile | None = Field(default=None, exclude=True)
    """Of a study with a budget."""

    @property
    def came_to_its_end(self) -> bool:
        """Whether every run that was to be tried was tried."""
        return self.state in ("complete", "incomplete")

    @model_validator(mode="after")
    def _its_cells_are_there_once(self) -> StudyFile:
        if twice := sorted({cell for cell in self.cells if self.cells.count(cell) > 1}):
            raise ValueError(f"cells: {twice[0]} is there twice")
        return self

    @model_validator(mode="after")
    def _looks_rise(self) -> StudyFile:
        for shares in self.looks.values():
            checked_shares(shares)
        return self

    @model_validator(mode="after")
    def _models_are_in_the_plan(self) -> StudyFile:
        if any(variant.model >= len(self.plan.model) for variant in self.variants):
            raise ValueError(f"a variant has a model beyond the {len(self.plan.model)} of the plan")
        return self


_STUDY: Final = TypeAdapter(StudyFile)


def checked_study(path: Path, value: Any) -> StudyFile:
    """The JSON value of study.json as its type; raises StudyError that names the file and its first fault."""
    study = checked(path, value, _STUDY)
    # a plan is written with all its defaults, so a key that has one is missing only where somebody took it out
    if missing := _missing(study.plan.model_dump(exclude_none=True), value["plan"], "plan"):
        raise StudyError(
            f"{path} is not as servestorm wrote it ({missing}: field required): it was edited; run the study again."
        )
    return study


def _missing(whole: Any, given: Any, place: str) -> str | None:
    """The first key that `whole` has and `given` lacks, such as 'plan.steady.warmup_s'."""
    if isinstance(whole, dict):
        if missing := sorted(whole.keys() - given.keys()):
            return f"{place}.{missing[0]}"
        pairs = [(f"{place}.{key}", whole[key], given[key]) for key in whole]
    elif isinstance(whole, list | tuple):
        pairs = [(f"{place}.{at}", one, other) for at, (one, other) in enumerate(zip(whole, given, strict=True))]
    else:
        return None
    return next((fault for at, one, other in pairs if (fault := _missing(one, other, at))), None)
