"""A cold start: a server is started and asked until its answers are steady."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from models.manifest import ModelDir
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.rundir.files import MACHINE, METRICS, SETTLED, USE, JsonObject, write_bytes, write_json
from servestorm.rundir.machine_table import machine_bytes
from servestorm.rundir.metrics_table import table_bytes
from servestorm.study.cell_load import CellLoad, use_now
from servestorm.study.context import StudyContext
from servestorm.study.page_cache import drop_page_cache, files_of_start
from servestorm.study.scenario import StudyScenario
from servestorm.study.scraper import scrape_once
from serving.backend import Backend
from serving.deployment import Endpoint, EventLog
from serving.errors import DeploymentError
from serving.http_client import connection_to, no_answer_reason
from serving.probe import KnownRequest
from serving.wire import WIRES, Wire

SETTLE_GUESS_S = 2.0
OWN_FIGURES_S = 5.0
"""A server that has just started may take long to write its first page of metrics."""
_REQUEST_TIMEOUT_S = 10.0


class ColdStartCells(StudyScenario):
    """One start of one replica, with a warm or a cold page cache. Nobody scrapes a server whose start is timed."""

    label = "cold start"
    scraped = False
    start_is_timed = True

    def measure(self, load: CellLoad, folder: Path) -> None:
        """The answers after the first, one by one, until they are steady; and the server's own figures."""
        use = None if load.deployment.use_disturbs else use_now(load.deployment)
        (endpoint,) = load.deployment.endpoints
        write_json(folder / SETTLED, settle(endpoint, WIRES[load.cell.engine], load.model))
        watched = _watched(load, folder)
        write_json(folder / USE, {"start": asdict(use or use_now(load.deployment)), **watched})
        write_bytes(folder / METRICS, table_bytes(scrape_once(endpoint, OWN_FIGURES_S)))

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        return SETTLE_GUESS_S

    def runs(self, plan: Plan) -> int:
        """See StudyScenario."""
        return plan.cold_starts

    def backend(self, context: StudyContext) -> Backend:
        """Without load agents: nothing else starts beside a server whose start is timed."""
        return context.backend.alone()

    def before_spawn(self, context: StudyContext, cell: Cell, events: EventLog) -> Callable[[], None] | None:
        """Make the page cache cold where the cell asks for it, last of all: checking the artifact has just read it."""
        if cell.page_cache != "cold":
            return None

        def drop() -> None:
            events.add("page_cache_drop")
            dropped = drop_page_cache(files_of_start(cell.engine, context.model(cell).path))
            events.add("page_cache_dropped", detail=dropped.sentence)

        return drop


def _watched(load: CellLoad, folder: Path) -> JsonObject:
    """What the machine did since before the start, for use.json and machine.parquet; empty where nobody watched."""
    if not load.since_start:
        return {}
    machine = load.since_start.stop()
    write_bytes(folder / MACHINE, machine_bytes(load.since_start.by_second(load.cores)))
    return {"watch": asdict(machine)}


def settle(
    endpoint: Endpoint, wire: Wire, model: ModelDir, *, most_requests: int = 300, most_s: float = 5.0
) -> list[tuple[int, float]]:
    """Ask one question after the other, on one connection: (monotonic ns of the answer, latency in ms) of each.

    Call it at once after the first right answer. Raises DeploymentError for a wrong answer, or none.
    """
    question = KnownRequest.of(wire, model)
    connection = connection_to(endpoint.rest_url, _REQUEST_TIMEOUT_S)
    answers: list[tuple[int, float]] = []
    end_ns = time.monotonic_ns() + round(most_s * 1e9)
    try:
        connection.connect()
        while len(answers) < most_requests and time.monotonic_ns() < end_ns:
            answers.append(_ask(connection, question))
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(
            f"{endpoint.rest_url} gave no answer after its first right one ({no_answer_reason(error)}): see its log."
        ) from error
    finally:
        connection.close()
    return answers


def _ask(connection: http.client.HTTPConnection, question: KnownRequest) -> tuple[int, float]:
    request = question.request
    begin_ns = time.monotonic_ns()
    connection.request(request.method, request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    done_ns = time.monotonic_ns()
    verdict = question.verdict(response.status, body)
    if verdict != "right":
        raise DeploymentError(f"the server answered {verdict} after its first right answer: see its log.")
    return done_ns, (done_ns - begin_ns) / 1e6
