"""One cell: a fresh deployment under one scenario, with everything it leaves written into the cell's folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from servestorm.plan.cells import Cell
from servestorm.rundir import files
from servestorm.rundir.files import now, write_bytes, write_json, write_text
from servestorm.rundir.metrics_table import table_bytes
from servestorm.study.cell_load import CellLoad
from servestorm.study.context import StudyContext
from servestorm.study.load import GeneratorError
from servestorm.study.machine_counters import MachineWatch
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
CellState = Literal["complete", "failed", "interrupted"]


@dataclass(frozen=True)
class CellOutcome:
    """outcome.json: how a run ended."""

    state: CellState
    reason: str | None
    """Why it did not complete."""
    started_at: str
    ended_at: str
    scraper: str
    """What read the servers' metrics."""


def run_cell(context: StudyContext, cell: Cell, folder: Path) -> CellOutcome:
    """Run the cell and write its folder.

    A fault of the engine or of the generator makes the outcome `failed` with the reason, and the study may go on; an
    interruption, a full disk and our own bugs are written too, and raised on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / files.CELL, cell.as_dict())
    started_at = now()
    state: CellState = "complete"
    reason: str | None = None
    try:
        _measure(context, cell, folder)
    except (DeploymentError, GeneratorError) as error:
        state, reason = "failed", _lasting(str(error), folder)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(error) or state
        raise
    finally:
        outcome = CellOutcome(state, reason, started_at, now(), context.scraper.name)
        write_json(folder / files.OUTCOME, asdict(outcome))
    return outcome


def _lasting(reason: str, folder: Path) -> str:
    """The reason with the log's place in the run directory: the server's own work folder is gone by then."""
    return re.sub(r"\S+/replica-\d+/server\.log", str(folder / files.SERVER_LOG), reason)


def _measure(context: StudyContext, cell: Cell, folder: Path) -> None:
    events = EventLog()
    workdir = scratch_folder()  # short, as sockets want it, and found again after a kill
    scenario = SCENARIO_CELLS[cell.scenario]
    try:
        with (
            _watched_start(context, scenario) as since_start,
            _deployment(context, cell, workdir, events, folder) as deployment,
        ):
            load = _load(context, cell, deployment, events, since_start)
            if not scenario.scraped:
                _ready(context, cell, deployment, events)
                scenario.measure(load, folder)
                _check_settings(context, cell, deployment, folder)  # no question may slow a start that is timed
            else:
                with _ready_and_scraped(context, cell, deployment, events, folder):
                    _check_settings(context, cell, deployment, folder)
                    scenario.measure(load, folder)
    finally:
        write_json(folder / files.EVENTS, [asdict(event) for event in events.events])
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
    context: StudyContext, cell: Cell, workdir: Path, events: EventLog, folder: Path
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
            write_text(folder / files.SERVER_LOG, deployment.logs(200) + "\n")
            for name, text in deployment.records().items():
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


def _check_settings(context: StudyContext, cell: Cell, deployment: Deployment, folder: Path) -> None:
    """The servers run with what the study set; of servers that ran already it is only written down."""
    engine = context.engines[cell.engine]
    ordered = None if context.plan.runs_already else engine.ordered(_budget(context, cell), _batching(cell))
    check_settings(engine, context.model(cell), deployment, ordered, folder)


def _ready(context: StudyContext, cell: Cell, deployment: Deployment, events: EventLog) -> None:
    """Wait until the servers report ready and every replica has given a right answer."""
    deployment.wait_ready(context.plan.timeouts.ready_s)
    for endpoint in deployment.endpoints:
        t_ns = first_answer(
            endpoint,
            WIRES[cell.engine],
            context.model(cell),
            timeout_s=context.plan.timeouts.answer_s,
            alive=deployment.alive,
        )
        events.add("first_right_answer", replica=endpoint.replica, t_ns=t_ns)


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


@contextmanager
def _ready_and_scraped(
    context: StudyContext, cell: Cell, deployment: Deployment, events: EventLog, folder: Path
) -> Iterator[None]:
    """The deployment is ready, and its metrics are read from its start on where its addresses are known by then."""
    with ExitStack() as stack:
        if not context.backend.addressed_at_start:
            _ready(context, cell, deployment, events)
        stack.enter_context(_scraped(context, cell, deployment, folder))
        if context.backend.addressed_at_start:
            _ready(context, cell, deployment, events)
        context.scraper.wait_first(cell.id, len(_with_metrics(deployment)))
        yield


@contextmanager
def _scraped(context: StudyContext, cell: Cell, deployment: Deployment, folder: Path) -> Iterator[None]:
    """The servers' metrics are read from now on, and kept when the block ends."""
    context.scraper.watch(cell.id, _with_metrics(deployment))
    try:
        yield
    finally:
        write_bytes(folder / files.METRICS, table_bytes(context.scraper.collect(cell.id)))


def _with_metrics(deployment: Deployment) -> list[Endpoint]:
    """The endpoints whose metrics may be read: one that runs elsewhere may have none."""
    return [endpoint for endpoint in deployment.endpoints if endpoint.metrics_url]
