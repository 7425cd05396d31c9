"""One cell: a fresh deployment under one scenario, with everything it leaves written into the cell's folder."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.summary import SUMMARY, generator_at_fault
from models.manifest import MANIFEST_NAME, ModelDir
from servestorm.cells import Cell
from servestorm.cores import Cores
from servestorm.generator import Generator, GeneratorError, drive, length_s
from servestorm.plan import Plan
from servestorm.scrape import Scraper, table_bytes
from servestorm.store import ATTEMPT, now, read_json, write_bytes, write_json, write_text
from serving.deployment import Backend, Batching, Budget, Deployment, Engine, EventLog, Use
from serving.errors import DeploymentError
from serving.orphans import scratch_folder
from serving.probe import first_answer
from serving.wire import WIRES


@dataclass(frozen=True)
class Bench:
    """What every cell of a study shares."""

    plan: Plan
    model: ModelDir
    engines: Mapping[str, Engine]
    backend: Backend
    cores: Cores
    scraper: Scraper
    generator: Generator

    @property
    def budget(self) -> Budget:
        """The same for every engine."""
        return Budget(cpus=self.cores.engine, threads=self.plan.threads)

    @property
    def batching(self) -> Batching:
        """The same for every engine."""
        return Batching(self.plan.batching.max_batch_size, self.plan.batching.timeout_us)


def run_cell(bench: Bench, cell: Cell, folder: Path) -> dict[str, Any]:
    """Run the cell and write its folder; returns outcome.json's content.

    A fault of the engine or of the generator makes the outcome `failed` with the reason, and the study may go on; an
    interruption, a full disk and our own bugs are written too, and raised on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cell.json", cell.as_dict())
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
        write_json(folder / "outcome.json", outcome)
    return outcome


def _lasting(reason: str, folder: Path) -> str:
    """The reason with the log's place in the run directory: the server's own work folder is gone by then."""
    return re.sub(r"\S+/replica-\d+/server\.log", str(folder / "server.log"), reason)


def _measure(bench: Bench, cell: Cell, folder: Path) -> None:
    events = EventLog()
    workdir = scratch_folder()  # short, as sockets want it, and found again after a kill
    try:
        with _deployment(bench, cell, workdir, events, folder) as deployment:
            if cell.scenario == "coldstart":  # nobody scrapes a server whose start is timed
                _ready(bench, cell, deployment, events)
                write_json(folder / "use.json", {"start": _use(deployment.use())})
            else:
                with _scraped(bench, cell, deployment, folder):
                    _ready(bench, cell, deployment, events)
                    bench.scraper.wait_first(cell.id, len(deployment.endpoints))
                    _load(bench, cell, deployment, events, folder)
    finally:
        write_json(folder / "events.json", [asdict(event) for event in events.events])
        shutil.rmtree(workdir, ignore_errors=True)


@contextmanager
def _deployment(bench: Bench, cell: Cell, workdir: Path, events: EventLog, folder: Path) -> Iterator[Deployment]:
    """A started deployment whose last log lines are kept whatever happens."""
    engine = bench.engines[cell.engine]
    events.add("start", detail=cell.engine)
    deployment = bench.backend.start(
        engine,
        bench.model,
        replicas=cell.replicas,
        budget=bench.budget,
        batching=bench.batching,
        workdir=workdir,
        events=events,
    )
    with deployment:
        try:
            yield deployment
        finally:
            write_text(folder / "server.log", deployment.logs(200) + "\n")


def _ready(bench: Bench, cell: Cell, deployment: Deployment, events: EventLog) -> None:
    """Ready by its own word; then every replica must give a right answer before anything is measured on it."""
    deployment.wait_ready(bench.plan.timeouts.ready_s)
    for endpoint in deployment.endpoints:
        t_ns = first_answer(
            endpoint,
            WIRES[cell.engine],
            bench.model,
            timeout_s=bench.plan.timeouts.answer_s,
            alive=deployment.alive,
        )
        events.add("first_right_answer", replica=endpoint.replica, t_ns=t_ns)


@contextmanager
def _scraped(bench: Bench, cell: Cell, deployment: Deployment, folder: Path) -> Iterator[None]:
    """The servers' metrics are read from now on, and kept when the block ends."""
    bench.scraper.watch(cell.id, deployment.endpoints)
    try:
        yield
    finally:
        write_bytes(folder / "metrics.parquet", table_bytes(bench.scraper.collect(cell.id)))


def _load(bench: Bench, cell: Cell, deployment: Deployment, events: EventLog, folder: Path) -> None:
    """Offer the load; again, up to the plan's number of tries, where only the generator's own health was at fault."""
    for attempt in range(1, bench.plan.load_attempts + 1):
        _attempt(bench, cell, deployment, events, folder)
        if attempt == bench.plan.load_attempts or not generator_at_fault(read_json(folder / SUMMARY)["reasons"]):
            break
        _set_aside(folder, attempt)


def _attempt(bench: Bench, cell: Cell, deployment: Deployment, events: EventLog, folder: Path) -> None:
    command = bench.generator.command(bench.plan, cell, deployment.endpoints, bench.model.path / MANIFEST_NAME, folder)
    write_json(folder / "generator.json", command)
    used = {"ready": _use(deployment.use())}
    events.add("load_started")
    try:
        limit_s = length_s(bench.plan, cell) + bench.plan.timeouts.generator_s
        drive(command, out=folder, cores=bench.cores.generator, limit_s=limit_s, deployment=deployment)
    finally:
        events.add("load_ended")
        used["end"] = _use(deployment.use())
        write_json(folder / "use.json", used)


def _set_aside(folder: Path, attempt: int) -> None:
    """Keep what an INVALID try left, beside the try that counts."""
    aside = folder / f"{ATTEMPT}{attempt}"
    aside.mkdir()
    for name in ("samples.parquet", SUMMARY, "generator.log", "generator.json", "use.json"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)


def _use(use: Use) -> dict[str, Any]:
    return {"t_ns": time.monotonic_ns(), **asdict(use)}
