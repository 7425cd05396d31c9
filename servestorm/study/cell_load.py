"""A deployment under load in one cell: each load is offered, measured and written into a folder."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.samples.validity import generator_at_fault
from models.manifest import ModelDir
from servestorm.methods.disturbance import Disturbance, disturbance
from servestorm.plan.cells import Cell, Variant
from servestorm.plan.study_plan import Plan
from servestorm.rundir import files
from servestorm.rundir.files import write_bytes, write_json
from servestorm.rundir.machine_table import machine_bytes
from servestorm.rundir.record import read_finished_load, read_use
from servestorm.rundir.shapes.cell import FinishedLoadFile
from servestorm.study.cores import Cores
from servestorm.study.load import LoadCommand, LoadOrder, LoadSource
from servestorm.study.machine_counters import KERNEL, MachineReader, MachineWatch
from serving.deployment import Deployment, EventLog, Use
from serving.probe import first_answer
from serving.wire import WIRES


@dataclass(frozen=True)
class CellLoad:
    """A deployment that is ready, and everything that is needed to load it."""

    plan: Plan
    cell: Cell
    variant: Variant
    model: ModelDir
    deployment: Deployment
    events: EventLog
    generator: LoadSource
    cores: Cores
    machine: MachineReader = KERNEL
    since_start: MachineWatch | None = None
    """Of a server whose start is timed: the machine since before the start."""

    def offer(self, load: LoadCommand, folder: Path, most_attempts: int | None = None) -> FinishedLoadFile:
        """Offer the load and give its summary; again where it is DISTURBED, or only the generator was at fault.

        It is offered at most `most_attempts` times, by default as often as the plan says.
        """
        folder.mkdir(exist_ok=True)
        attempts = most_attempts or self.plan.load_attempts
        for attempt in range(1, attempts + 1):
            self._attempt(load, folder)
            summary = read_finished_load(folder)
            late = generator_at_fault(summary.reasons, percentile_counts=summary.percentile_counts)
            if attempt == attempts or not (self.disturbance(folder) or late):
                break
            _set_aside(folder, attempt)
        return summary

    def disturbance(self, folder: Path) -> Disturbance | None:
        """Why the load in that folder is DISTURBED; None where it is not."""
        return disturbance_in(folder, self.plan)

    def _attempt(self, load: LoadCommand, folder: Path) -> None:
        ready = use_now(self.deployment)
        watch = MachineWatch(
            [*self.cores.engine, *self.cores.generator],
            self.deployment.cpu_elsewhere_s,
            self.machine,
            # a container or a pod is asked through its engine, which costs milliseconds
            elsewhere_each_s=self.plan.backend == "process",
        )
        self.events.add("load_started", detail=folder.name)
        try:
            self.generator.offer(
                LoadOrder(
                    load,
                    self.deployment,
                    self.model,
                    self.cell.engine,
                    self.variant,
                    seed=self.cell.seed,
                    out=folder,
                    cores=self.cores.generator,
                    limit_s=load.length_s + self.plan.timeouts.generator_s,
                )
            )
        finally:
            self.events.add("load_ended", detail=folder.name)
            machine, end = watch.stop(), use_now(self.deployment)
            write_json(folder / files.USE, {"ready": asdict(ready), "end": asdict(end), "watch": asdict(machine)})
            if self.plan.load_from == "here":  # elsewhere the samples have another clock
                write_bytes(folder / files.MACHINE, machine_bytes(watch.by_second(self.cores)))

    def wait_drained(self) -> None:
        """Return when every replica answers again: what an overload left in its queue is not the next load's."""
        for endpoint in self.deployment.endpoints:
            first_answer(
                endpoint,
                WIRES[self.cell.engine],
                self.model,
                timeout_s=self.plan.timeouts.answer_s,
                alive=self.deployment.alive,
            )


def disturbance_in(folder: Path, plan: Plan) -> Disturbance | None:
    """Why the load or the start in that folder is DISTURBED; None where it is not, or was not watched."""
    limits, use = plan.disturbance_limits, read_use(folder)
    return disturbance(use.machine_shares, limits) if limits and use else None


def _set_aside(folder: Path, attempt: int) -> None:
    """Keep what an attempt left that is INVALID or DISTURBED, beside the attempt that counts."""
    aside = folder / f"{files.ATTEMPT}{attempt}"
    aside.mkdir()
    for name in files.OF_A_LOAD:
        if (folder / name).exists():
            (folder / name).rename(aside / name)


@dataclass(frozen=True, kw_only=True)
class TimedUse(Use):
    """What the servers had used at one moment, of the monotonic clock."""

    t_ns: int


def use_now(deployment: Deployment) -> TimedUse:
    """What the deployment's servers have used so far."""
    use = deployment.use()
    return TimedUse(t_ns=time.monotonic_ns(), **vars(use))
