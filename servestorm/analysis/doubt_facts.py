"""The facts of a run under load that may be reasons to doubt it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from servestorm.analysis.balance import balance, counted_balance
from servestorm.errors import StudyError
from servestorm.methods.slices import SliceUse
from servestorm.rundir.record import CellRecord, LoadRecord
from servestorm.rundir.samples import read_requests_by_endpoint
from servestorm.rundir.shapes.cell import UseFile, Watch
from servestorm.rundir.shapes.study import StudyFile

SERVICE_READY = "service_ready"
"""Event of a deployment whose load goes to a Service."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of one run under load besides its latencies."""

    id: str
    replicas: int
    threads: int
    """Intra-op threads of one replica."""
    engine_cores: Sequence[int]
    generator_cores: Sequence[int]
    use: UseFile
    generator_cpu_share: float | None
    """Share of one core that the load generator's busiest process used; None where it is not known."""
    busiest_over_mean: float | None = None
    """Requests of the busiest replica over those of an average one."""
    repeats: int = 0
    """Tries of the load that were thrown away because the generator had been late."""
    quota_cpus: float | None = None
    """CPUs that the plan lets one replica use."""
    balanced: bool = False
    """Whether something stood in front of the replicas, so that the samples do not tell them apart."""
    by_service: bool = False
    """Whether that was a Service of a cluster alone."""
    load: str = ""
    """Which of the run's loads, such as probe-03; empty where it had one."""
    overload: bool = False
    """A probe that did not pass: how the generator fared under it says nothing about the numbers."""
    unchecked: bool = False
    """Whether any well-formed answer counted, because the right ones were not known."""
    idle_share: float | None = None
    """Share of one core that its servers used while other engines were loaded; None where that was not read."""
    slices: SliceUse | None = None
    """Which slices of its one load count."""


@dataclass(frozen=True)
class LoadConditions:
    """What the loads of a study have in common."""

    engine_cores: Sequence[int]
    generator_cores: Sequence[int]
    quota_cpus: float | None = None
    """CPUs that the plan lets one replica use."""
    loaded_from_here: bool = True
    """Whether the load generator ran on this machine: where it did not, what this machine did is no fact of a run."""
    haproxy: bool = False
    """Whether the plan asks for one in front of the replicas."""


def conditions_of(study: StudyFile) -> LoadConditions:
    """The conditions of a study's loads."""
    plan = study.plan
    return LoadConditions(
        study.cores.engine,
        study.cores.generator,
        quota_cpus=plan.replica_limits.cpus,
        loaded_from_here=plan.load_from == "here",
        haproxy="haproxy" in (plan.docker_reach.balancer, plan.cluster_reach.balancer),
    )


def facts_of_loads(record: CellRecord, conditions: LoadConditions, slices: SliceUse | None = None) -> list[RunFacts]:
    """The facts of every load of a cell that was watched: its own, a search's probes or a sweep's loads.

    `slices` are those of its own load. Raises StudyError for a broken file.
    """
    probes = record.capacity.probes if record.capacity else []
    passed = {number for number, probe in enumerate(probes, 1) if probe.verdict == "pass"}
    own = [replace(facts_of(record, conditions), slices=slices)] if record.use and record.use.is_of_a_load else []
    return own + [
        facts_of(record, conditions, load, overload=load.probe is not None and load.probe not in passed)
        for load in record.loads
        if load.use and load.use.is_of_a_load
    ]


def facts_of(
    record: CellRecord, conditions: LoadConditions, load: LoadRecord | None = None, overload: bool = False
) -> RunFacts:
    """The facts of a cell's own load, or of one of its loads where it has several.

    One load of several has no balance, for it may be of few requests, or of more than the replicas can take.
    `overload` as in RunFacts.
    """
    of = load or record
    use = of.use or UseFile()
    return RunFacts(
        id=record.cell.id,
        replicas=record.cell.replicas,
        threads=record.cell.threads,
        engine_cores=conditions.engine_cores,
        generator_cores=conditions.generator_cores,
        use=use if conditions.loaded_from_here else use.model_copy(update={"watch": Watch()}),
        generator_cpu_share=of.summary.cpu_share if of.summary else None,
        busiest_over_mean=None if load else busiest_over_mean(record),
        repeats=of.repeats,
        quota_cpus=conditions.quota_cpus,
        balanced=is_balanced(record),
        by_service=not conditions.haproxy and any(event.name == SERVICE_READY for event in record.events),
        load=load.path.name if load else "",
        overload=overload,
        unchecked=of.summary is not None and of.summary.answers == "unchecked",
        idle_share=None if load or not record.slices else record.slices.turns.idle_share,
    )


def is_balanced(record: CellRecord) -> bool:
    """Whether the load of a cell went through a balancer, or a Service."""
    return any(event.name in ("balancer_ready", SERVICE_READY) for event in record.events)


def busiest_over_mean(record: CellRecord) -> float | None:
    """Requests of the busiest replica over those of an average one; None for one replica, or where nothing tells.

    Nothing does under an autoscaler, whose replicas come and go.
    From the samples that were sent; where a balancer stood between, from the replicas' own counters.
    """
    replicas = record.cell.replicas
    if replicas < 2 or record.samples_path is None or record.cell.scenario == "autoscaling":
        return None
    if is_balanced(record):
        return counted_balance(record, replicas).largest_over_mean
    try:
        return balance(read_requests_by_endpoint(record.samples_path, replicas)).largest_over_mean
    except StudyError:
        return None  # whoever reads the latencies of a broken file says so
