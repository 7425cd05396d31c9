"""One round: fresh deployments under one load or several, with everything that they leave in the cells' folders."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from servestorm.plan.cells import Cell, loads_of
from servestorm.rundir import files
from servestorm.rundir.files import now, write_bytes, write_json, write_text
from servestorm.rundir.metrics_table import table_bytes
from servestorm.study.cell_load import CellLoad
from servestorm.study.context import StudyContext
from servestorm.study.faults import blamed_on, cell_at_fault
from servestorm.study.load import GeneratorError
from servestorm.study.machine_counters import MachineWatch
from servestorm.study.outcome import CellOutcome, CellState
from servestorm.study.scenario import StudyScenario
from servestorm.study.scenarios.table import SCENARIO_CELLS
from servestorm.study.settings_check import check_settings
from serving.backend import DeploymentOrder
from serving.deployment import Batching, Budget, Deployment, Endpoint, EventLog
from serving.errors import DeploymentError
from serving.orphans import scratch_folder
from serving.probe import first_answer
from serving.wire import WIRES

MIB = 1024 * 1024


def run_round(context: StudyContext, cells: Sequence[Cell], folders: Sequence[Path]) -> list[CellOutcome]:
    """Run the cells of a round, whose engines stand up at once and take turns under load, or one cell alone.

    Each has a folder. A fault of an engine or of a generator makes all outcomes `failed` with the reason, but for those
    of a load that had ended before, and the study may go on; an interruption, a full disk and our own bugs are written
    too, and raised on.
    """
    for cell, folder in zip(cells, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / files.CELL, cell.as_dict())
    loads = _loads(cells, folders)
    started_at, progress = now(), _Progress()
    state: CellState = "complete"
    reason: str | None = None
    fault_of: Cell | None = None
    try:
        _measure(context, loads, progress)
    except (DeploymentError, GeneratorError) as error:
        fault_of = cell_at_fault(error, cells)
        state, reason = "failed", _reason(error, cells, fault_of, progress)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(error) or state
        raise
    finally:
        if reason:
            reason = _lasting(reason, folders[cells.index(fault_of) if fault_of else 0])
        at_fault = fault_of.id if fault_of else None
        outcome = CellOutcome(state, reason, started_at, now(), context.scraper.name, at_fault)
        complete = replace(outcome, state="complete", reason=None, fault_of=None)
        kept = progress.ended if progress.ended < len(loads) else 0
        outcomes = [complete if place < kept else outcome for place, load in enumerate(loads) for _ in load.cells]
        for folder, of_cell in zip(folders, outcomes, strict=True):
            write_json(folder / files.OUTCOME, asdict(of_cell))
    return outcomes


@dataclass
class _Progress:
    """How far a round has come."""

    stands: bool = False
    """Whether every server of it has started and answered."""
    ended: int = 0
    """Loads of it that have ended."""


@dataclass(frozen=True)
class _RoundLoad:
    """One load of a round: a cell and a folder for each engine."""

    cells: Sequence[Cell]
    folders: Sequence[Path]

    @property
    def scenario(self) -> StudyScenario:
        """What is measured."""
        return SCENARIO_CELLS[self.cells[0].scenario]


def _loads(cells: Sequence[Cell], folders: Sequence[Path]) -> list[_RoundLoad]:
    """The loads of a round in their order, each with its engines in the order of the first."""
    folder_of = dict(zip(cells, folders, strict=True))
    first, *later = loads_of(cells)
    engines = [cell.engine for cell in first]
    ordered = [first, *(sorted(load, key=lambda cell: engines.index(cell.engine)) for load in later)]
    return [_RoundLoad(load, [folder_of[cell] for cell in load]) for load in ordered]


def _reason(error: Exception, cells: Sequence[Cell], fault_of: Cell | None, progress: _Progress) -> str:
    """The error; of several engines with the one at fault, and a remedy where it did not start beside the others."""
    if len(cells) == 1 or fault_of is None:
        return str(error)
    reason = f"{fault_of.engine}: {error}"
    if progress.stands:
        return reason
    others = " and ".join(cell.engine for cell in cells if cell != fault_of)
    return f"{reason} It was started beside {others}: if both cannot stand at once here, set `design: blocks`."


def _lasting(reason: str, folder: Path) -> str:
    """The reason with the log's place in the run directory: the server's own work folder is gone by then."""
    return re.sub(r"\S+/replica-\d+/server\.log", str(folder / files.SERVER_LOG), reason)


def _measure(context: StudyContext, loads: Sequence[_RoundLoad], progress: _Progress) -> None:
    first = loads[0]
    with ExitStack() as stack:
        since_start = stack.enter_context(_watched_start(context, first.scenario))
        standing = [
            stack.enter_context(_standing(context, cell, folders, since_start))
            for cell, *folders in zip(first.cells, *(load.folders for load in loads), strict=True)
        ]
        scraping = stack.enter_context(ExitStack())
        for server, folder in zip(standing, first.folders, strict=True):
            with blamed_on(server.cell):
                _make_ready(context, server, folder, scraping)
        progress.stands = True
        for load in loads:
            if load is not first:
                scraping.close()
                standing = [_loaded_next(server, cell) for server, cell in zip(standing, load.cells, strict=True)]
                for server, folder in zip(standing, load.folders, strict=True):
                    with blamed_on(server.cell):
                        server.wait_drained()
                    scraping.enter_context(_scraped(context, server, folder))
            _measure_load(context, load, standing)
            progress.ended += 1


def _loaded_next(server: CellLoad, cell: Cell) -> CellLoad:
    """A deployment that bears another load after the one that has ended."""
    return replace(server, cell=cell, on_warm_servers=True)


def _measure_load(context: StudyContext, load: _RoundLoad, standing: Sequence[CellLoad]) -> None:
    scenario = load.scenario

    def before_load() -> None:
        if scenario.scraped:
            for server in standing:
                context.scraper.wait_first(server.cell.id, len(_with_metrics(server.deployment)))
            _check_all_settings(context, standing, load.folders)

    if len(standing) == 1:
        before_load()
        scenario.measure(standing[0], load.folders[0])
    else:
        scenario.measure_round(standing, load.folders, before_load)
    if not scenario.scraped:
        _check_all_settings(context, standing, load.folders)  # no question may slow a start that is timed


@contextmanager
def _standing(
    context: StudyContext, cell: Cell, folders: Sequence[Path], since_start: MachineWatch | None
) -> Iterator[CellLoad]:
    """A started deployment, with everything that is needed to load it; it may not be ready yet.

    `folders` are those of its cells: one for each load of the round.
    """
    events = EventLog()
    workdir = scratch_folder()  # short, as sockets want it, and found again after a kill
    try:
        with ExitStack() as stack:
            with blamed_on(cell):
                deployment = stack.enter_context(_deployment(context, cell, workdir, events, folders))
            yield _load(context, cell, deployment, events, since_start)
    finally:
        for folder in folders:
            others = {other.name for other in folders if other != folder}
            own = [asdict(event) for event in events.events if event.detail not in others]
            write_json(folder / files.EVENTS, own)
        shutil.rmtree(workdir, ignore_errors=True)


@contextmanager
def _watched_start(context: StudyContext, scenario: StudyScenario) -> Iterator[MachineWatch | None]:
    """The machine is watched from before a start that is timed; None for any other, and in a cluster.

    What a container engine does for a start is part of it, so other programs are only told apart on backend process.
    """
    backend = context.plan.backend
    if not scenario.start_is_timed or backend == "kubernetes":
        yield None
        return
    cores = [*context.cores.engine, *context.cores.generator]
    own_s = 0.0 if backend == "process" else None
    watch = MachineWatch(cores, lambda: own_s, context.machine, elsewhere_each_s=True)
    try:
        yield watch
    finally:
        watch.close()


@contextmanager
def _deployment(
    context: StudyContext, cell: Cell, workdir: Path, events: EventLog, folders: Sequence[Path]
) -> Iterator[Deployment]:
    """A started deployment whose last log lines and records are kept whatever happens."""
    engine = context.engines[cell.engine]
    events.add("start", detail=cell.engine)
    scenario = SCENARIO_CELLS[cell.scenario]
    order = DeploymentOrder(
        engine,
        context.model(cell),
        replicas=cell.replicas,
        budget=_budget(context, cell),
        batching=_batching(cell),
        workdir=workdir,
        events=events,
        before_spawn=scenario.before_spawn(context, cell, events),
    )
    with scenario.backend(context).start(order) as deployment:
        try:
            yield deployment
        finally:
            for name, text in {files.SERVER_LOG: deployment.logs(200) + "\n", **deployment.records()}.items():
                for folder in folders:
                    write_text(folder / name, text)


def _budget(context: StudyContext, cell: Cell) -> Budget:
    cpus, memory_mib = context.plan.replica_limits
    return Budget(
        cpus=context.cores.engine,
        threads=cell.threads,
        warmup=cell.server_warmup,
        memory_bytes=memory_mib * MIB if memory_mib else None,
        cpu_quota=cpus,
    )


def _batching(cell: Cell) -> Batching:
    return Batching(cell.max_batch_size, cell.timeout_us)


def _check_all_settings(context: StudyContext, loads: Sequence[CellLoad], folders: Sequence[Path]) -> None:
    """The servers run with what the study set; of servers that ran already it is only written down."""
    for load, folder in zip(loads, folders, strict=True):
        cell, engine = load.cell, context.engines[load.cell.engine]
        ordered = None if context.plan.runs_already else engine.ordered(_budget(context, cell), _batching(cell))
        with blamed_on(cell):
            check_settings(engine, load.model, load.deployment, ordered, folder)


def _wait_answers(context: StudyContext, load: CellLoad) -> None:
    """Wait until the servers report ready and every replica has given a right answer."""
    deployment = load.deployment
    deployment.wait_ready(context.plan.timeouts.ready_s)
    for endpoint in deployment.endpoints:
        t_ns = first_answer(
            endpoint,
            WIRES[load.cell.engine],
            load.model,
            timeout_s=context.plan.timeouts.answer_s,
            alive=deployment.alive,
        )
        load.events.add("first_right_answer", replica=endpoint.replica, t_ns=t_ns)


def _load(
    context: StudyContext, cell: Cell, deployment: Deployment, events: EventLog, since_start: MachineWatch | None
) -> CellLoad:
    return CellLoad(
        context.plan,
        cell,
        context.variants[cell.variant],
        context.model(cell),
        deployment,
        events,
        context.generator,
        context.cores,
        context.machine,
        since_start,
    )


def _make_ready(context: StudyContext, load: CellLoad, folder: Path, scraping: ExitStack) -> None:
    """Wait for the deployment; its metrics are read from its start on where its addresses are known by then."""
    scraped = SCENARIO_CELLS[load.cell.scenario].scraped
    if scraped and context.backend.addressed_at_start:
        scraping.enter_context(_scraped(context, load, folder))
    _wait_answers(context, load)
    if scraped and not context.backend.addressed_at_start:
        scraping.enter_context(_scraped(context, load, folder))


@contextmanager
def _scraped(context: StudyContext, load: CellLoad, folder: Path) -> Iterator[None]:
    """The servers' metrics are read from now on, and kept when the block ends."""
    context.scraper.watch(load.cell.id, _with_metrics(load.deployment))
    try:
        yield
    finally:
        write_bytes(folder / files.METRICS, table_bytes(context.scraper.collect(load.cell.id)))


def _with_metrics(deployment: Deployment) -> list[Endpoint]:
    """The endpoints whose metrics may be read: one that runs elsewhere may have none."""
    return [endpoint for endpoint in deployment.endpoints if endpoint.metrics_url]
