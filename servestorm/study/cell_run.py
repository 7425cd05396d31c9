"""One cell: a fresh deployment under one scenario, with everything it leaves written into the cell's folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from servestorm.plan.cells import Cell
from servestorm.rundir import files
from servestorm.rundir.files import now, write_bytes, write_json, write_text
from servestorm.rundir.metrics_table import table_bytes
from servestorm.study.cell_load import CellLoad, use_now
from servestorm.study.context import StudyContext, autoscaler_of
from servestorm.study.load import GeneratorError
from servestorm.study.page_cache import drop_page_cache, files_of_start
from servestorm.study.scenarios.coldstart import settle
from servestorm.study.scraper import scrape_once
from serving.deployment import Backend, Batching, Budget, Deployment, Endpoint, EventLog
from serving.errors import DeploymentError
from serving.orphans import scratch_folder
from serving.probe import first_answer
from serving.wire import WIRES

if TYPE_CHECKING:
    from serving.backends.kubernetes.backend import KubernetesBackend

MIB = 1024 * 1024
OWN_FIGURES_S = 5.0
"""A server that has just started may take long to write its first page of metrics."""


def run_cell(bench: StudyContext, cell: Cell, folder: Path) -> dict[str, Any]:
    """Run the cell and write its folder; returns outcome.json's content.

    A fault of the engine or of the generator makes the outcome `failed` with the reason, and the study may go on; an
    interruption, a full disk and our own bugs are written too, and raised on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / files.CELL, cell.as_dict())
    outcome: dict[str, Any] = {"state": "complete", "reason": None, "started_at": now()}
    try:
        _measure(bench, cell, folder)
    except (DeploymentError, GeneratorError) as error:
        outcome.update(state="failed", reason=_lasting(str(error), folder))
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        outcome.update(state=state, reason=str(error) or state)
        raise
    finally:
        outcome.update(ended_at=now(), scraper=bench.scraper.name)
        write_json(folder / files.OUTCOME, outcome)
    return outcome


def _lasting(reason: str, folder: Path) -> str:
    """The reason with the log's place in the run directory: the server's own work folder is gone by then."""
    return re.sub(r"\S+/replica-\d+/server\.log", str(folder / files.SERVER_LOG), reason)


def _measure(bench: StudyContext, cell: Cell, folder: Path) -> None:
    events = EventLog()
    workdir = scratch_folder()  # short, as sockets want it, and found again after a kill
    try:
        with _deployment(bench, cell, workdir, events, folder) as deployment:
            if cell.scenario == "coldstart":  # nobody scrapes a server whose start is timed
                _ready(bench, cell, deployment, events)
                _settle(bench, cell, deployment, folder)
            else:
                with ExitStack() as stack:
                    if bench.plan.backend == "kubernetes":  # pods have no address before they run
                        _ready(bench, cell, deployment, events)
                    stack.enter_context(_scraped(bench, cell, deployment, folder))
                    if bench.plan.backend != "kubernetes":
                        _ready(bench, cell, deployment, events)
                    bench.scraper.wait_first(cell.id, len(_with_metrics(deployment)))
                    _offer(bench, cell, deployment, events).carry_out(folder)
    finally:
        write_json(folder / files.EVENTS, [asdict(event) for event in events.events])
        shutil.rmtree(workdir, ignore_errors=True)


@contextmanager
def _deployment(bench: StudyContext, cell: Cell, workdir: Path, events: EventLog, folder: Path) -> Iterator[Deployment]:
    """A started deployment whose last log lines and records are kept whatever happens."""
    engine = bench.engines[cell.engine]
    events.add("start", detail=cell.engine)
    deployment = _backend(bench, cell).start(
        engine,
        bench.model(cell),
        replicas=cell.replicas,
        budget=_budget(bench, cell),
        batching=Batching(cell.max_batch_size, cell.timeout_us),
        workdir=workdir,
        events=events,
        before_spawn=(lambda: _drop(bench, cell, events)) if cell.page_cache == "cold" else None,
    )
    with deployment:
        try:
            yield deployment
        finally:
            write_text(folder / files.SERVER_LOG, deployment.logs(200) + "\n")
            for name, text in deployment.records().items():
                write_text(folder / name, text)


def _backend(bench: StudyContext, cell: Cell) -> Backend:
    """Where the cell runs: under an autoscaler where it asks for one, which the plan allows for one backend only.

    Nothing else starts beside a server whose start is timed, and so no load agent.
    """
    if cell.scenario == "coldstart" and bench.plan.load_from == "cluster":
        return cast("KubernetesBackend", bench.backend).alone()
    autoscaler = autoscaler_of(bench.plan)
    if cell.scenario != "autoscaling" or autoscaler is None:
        return bench.backend
    return cast("KubernetesBackend", bench.backend).autoscaled(autoscaler)


def _budget(bench: StudyContext, cell: Cell) -> Budget:
    cpus, memory_mib = bench.plan.replica_limits
    return Budget(
        cpus=bench.cores.engine,
        threads=cell.threads,
        warmup=cell.server_warmup,
        memory_bytes=memory_mib * MIB if memory_mib else None,
        cpu_quota=cpus,
    )


def _drop(bench: StudyContext, cell: Cell, events: EventLog) -> None:
    """Make the page cache cold: last of all, for checking the artifact has just read it."""
    events.add("page_cache_drop")
    dropped = drop_page_cache(files_of_start(cell.engine, bench.model(cell).path))
    events.add("page_cache_dropped", detail=dropped.sentence)


def _ready(bench: StudyContext, cell: Cell, deployment: Deployment, events: EventLog) -> None:
    """Ready by its own word; then every replica must give a right answer before anything is measured on it."""
    deployment.wait_ready(bench.plan.timeouts.ready_s)
    for endpoint in deployment.endpoints:
        t_ns = first_answer(
            endpoint,
            WIRES[cell.engine],
            bench.model(cell),
            timeout_s=bench.plan.timeouts.answer_s,
            alive=deployment.alive,
        )
        events.add("first_right_answer", replica=endpoint.replica, t_ns=t_ns)


def _settle(bench: StudyContext, cell: Cell, deployment: Deployment, folder: Path) -> None:
    """The answers after the first, one by one, until they have become steady; and the server's own figures."""
    in_cluster = bench.plan.backend == "kubernetes"
    if not in_cluster:
        write_json(folder / files.USE, {"start": use_now(deployment.use())})
    (endpoint,) = deployment.endpoints
    write_json(folder / files.SETTLED, settle(endpoint, WIRES[cell.engine], bench.model(cell)))
    if in_cluster:  # a pod is asked by a program in it, which takes time and of its CPU
        write_json(folder / files.USE, {"start": use_now(deployment.use())})
    write_bytes(folder / files.METRICS, table_bytes(scrape_once(endpoint, OWN_FIGURES_S)))


def _offer(bench: StudyContext, cell: Cell, deployment: Deployment, events: EventLog) -> CellLoad:
    return CellLoad(
        bench.plan,
        cell,
        bench.variants[cell.variant],
        bench.model(cell),
        deployment,
        events,
        bench.generator,
        bench.cores,
    )


@contextmanager
def _scraped(bench: StudyContext, cell: Cell, deployment: Deployment, folder: Path) -> Iterator[None]:
    """The servers' metrics are read from now on, and kept when the block ends."""
    bench.scraper.watch(cell.id, _with_metrics(deployment))
    try:
        yield
    finally:
        write_bytes(folder / files.METRICS, table_bytes(bench.scraper.collect(cell.id)))


def _with_metrics(deployment: Deployment) -> list[Endpoint]:
    """The endpoints whose metrics may be read: one that runs elsewhere may have none."""
    return [endpoint for endpoint in deployment.endpoints if endpoint.metrics_url]
