"""A deployment under load in one cell: each load is offered, measured and written into a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.samples.validity import generator_at_fault
from models.manifest import ModelDir
from servestorm.methods.disturbance import Disturbance, disturbance
from servestorm.methods.known_sums import sum_if_known
from servestorm.methods.slices import disturbances, of_turns, with_disturbance
from servestorm.plan.cells import Cell, Variant
from servestorm.plan.study_plan import Plan
from servestorm.rundir import files
from servestorm.rundir.counted_samples import machine_times
from servestorm.rundir.files import write_bytes, write_json
from servestorm.rundir.machine_table import machine_bytes, read_machine
from servestorm.rundir.record import read_finished_load, read_slices, read_use
from servestorm.rundir.shapes.cell import FinishedLoadFile
from servestorm.study.cores import Cores
from servestorm.study.faults import blamed_on
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
    on_warm_servers: bool = False
    """Whether another load of the round came before."""

    def offer(self, load: LoadCommand, folder: Path, most_attempts: int | None = None) -> FinishedLoadFile:
        """Offer the load and give its summary; again where it is DISTURBED, or only the generator was at fault.

        It is offered at most `most_attempts` times, by default as often as the plan says.
        """
        (summary,) = offer_until_valid([self], [folder], lambda: self._offer_once(load, folder), most_attempts)
        return summary

    def disturbance(self, folder: Path) -> Disturbance | None:
        """Why the load in that folder is DISTURBED; None where it is not."""
        return disturbance_in(folder, self.plan)

    def _offer_once(self, load: LoadCommand, folder: Path) -> None:
        with watched([self], [folder]), blamed_on(self.cell):
            self.generator.offer(self.order(load, folder))

    def order(
        self,
        load: LoadCommand,
        folder: Path,
        start_file: Path | None = None,
        cancelled: threading.Event | None = None,
    ) -> LoadOrder:
        """The order for the load generator; one that comes in turns starts when that file says so."""
        return LoadOrder(
            load,
            self.deployment,
            self.model,
            self.cell.engine,
            self.variant,
            seed=self.cell.seed,
            out=folder,
            cores=self.cores.generator,
            limit_s=load.length_s + self.plan.timeouts.generator_s,
            start_file=start_file,
            cancelled=cancelled or threading.Event(),
        )

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
    """Why the load or the start in that folder is DISTURBED; None where it is not, or was not watched.

    One that took turns is DISTURBED where most of its slices are; seconds in which another was loaded do not count.
    """
    limits, use = plan.disturbance_limits, read_use(folder)
    if not limits or not use:
        return None
    shares, slices = use.machine_shares, read_slices(folder)
    machine = machine_times(read_machine(folder / files.MACHINE)) if slices else None
    if not slices or not machine or not machine.covers(slices.turns.measured_ns, slices.turns.end_ns):
        return disturbance(shares, limits)
    turns, watched_causes = slices.turns, machine.watched
    found = disturbances(turns.measured_ns, turns.end_ns, machine, limits)
    return with_disturbance(of_turns(turns), found, watched_causes, "slices").disturbance or disturbance(
        shares, limits, but=watched_causes
    )


def offer_until_valid(
    loads: Sequence[CellLoad], folders: Sequence[Path], offer_once: Callable[[], None], most_attempts: int | None = None
) -> list[FinishedLoadFile]:
    """Offer the loads and give their summaries; all again where one is DISTURBED, or only its generator was at fault.

    They are offered at most `most_attempts` times, by default as often as the plan says.
    """
    for folder in folders:
        folder.mkdir(exist_ok=True)
    attempts = most_attempts or loads[0].plan.load_attempts
    for attempt in range(1, attempts + 1):
        offer_once()
        summaries = [read_finished_load(folder) for folder in folders]
        faulty = any(
            generator_at_fault(summary.reasons, percentile_counts=summary.percentile_counts) for summary in summaries
        )
        disturbed = any(load.disturbance(folder) for load, folder in zip(loads, folders, strict=True))
        if attempt == attempts or not (faulty or disturbed):
            break
        for folder in folders:
            _set_aside(folder, attempt)
    return summaries


@contextmanager
def watched(loads: Sequence[CellLoad], folders: Sequence[Path]) -> Iterator[None]:
    """While these deployments are loaded: what they use, and what the machine does, is written into each folder."""
    plan, cores = loads[0].plan, loads[0].cores
    ready = [use_now(load.deployment) for load in loads]
    watch = MachineWatch(
        [*cores.engine, *cores.generator],
        lambda: sum_if_known([load.deployment.cpu_elsewhere_s() for load in loads]),
        loads[0].machine,
        # a container or a pod is asked through its engine, which costs milliseconds
        elsewhere_each_s=plan.backend == "process",
    )
    for load, folder in zip(loads, folders, strict=True):
        load.events.add("load_started", detail=folder.name)
    try:
        yield
    finally:
        for load, folder in zip(loads, folders, strict=True):
            load.events.add("load_ended", detail=folder.name)
        machine = watch.stop()
        seconds = machine_bytes(watch.by_second(cores))
        for load, folder, begin in zip(loads, folders, ready, strict=True):
            use = {"ready": asdict(begin), "end": asdict(use_now(load.deployment)), "watch": asdict(machine)}
            write_json(folder / files.USE, use)
            if plan.load_from == "here":  # elsewhere the samples have another clock
                write_bytes(folder / files.MACHINE, seconds)


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
