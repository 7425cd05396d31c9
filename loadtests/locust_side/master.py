"""The master: deals the schedule out to its workers, collects their samples, and accounts for every arrival."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import numpy as np
from locust.runners import STATE_MISSING

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.arrivals.unseen import Unseen
from loadtests.errors import LoadTestError
from loadtests.generator.load import ROW
from loadtests.locust_side.clocks import boot_id, wall_minus_monotonic_ns
from loadtests.locust_side.locust_stats import LocustStatistics
from loadtests.locust_side.roles import (
    CONCLUDE,
    DEAL,
    DRAIN_S,
    LEAD_S,
    PATIENCE_S,
    POLL_S,
    SCHEDULED,
    SEND_S,
    SILENCE_S,
    Role,
    announce,
    locust_statistics,
    logger,
    prepare_from,
)
from loadtests.samples.prometheus import GeneratorMetrics, expose
from loadtests.samples.recorder import measured_rows
from loadtests.session import Collector, Prepared, Rows, SessionEnd, renumbered

_SETTLE_S: Final = 2 * SEND_S + 2 * POLL_S


class MasterRole(Role):
    """The master: deals the schedule, collects samples, and accounts for workers that are lost."""

    def __init__(self, environment: Any, prepared: Prepared | None) -> None:
        super().__init__(environment)
        self._prepared = prepared
        self._start_ns = 0
        self._workers: list[str] = []
        self._deals: dict[str, dict[str, Any]] = {}
        self._unseen: Unseen | None = None
        self._endings: dict[int, SessionEnd] = {}
        self._lost: set[int] = set()
        self._missing_since_s: dict[int, float] = {}
        self._statistics: LocustStatistics | None = None
        """Its requests come in the workers' reports; here it leaves the warm-up out, and adds lost arrivals."""
        self._metrics: GeneratorMetrics | None = None
        self._close_metrics: Callable[[], None] | None = None
        self._offered = 0
        self._carried_out = False
        """Whether the load came to its end: every worker did its share or is lost, or one gave up."""
        self._finished = False

    def begin(self) -> None:
        """Deal before Locust sends its spawn messages, then wait in a greenlet."""
        try:
            self._begin()
        except LoadTestError as error:
            self._concluded = True
            self._refuse(error)
            return
        super().begin()

    def _begin(self) -> None:
        prepared = self._prepared = self._prepared or prepare_from(self.environment)
        announce(prepared)
        runner = self.environment.runner
        self._workers = [client.id for client in runner.clients.ready]
        self._start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        self._unseen = Unseen(prepared.load.schedule, len(self._workers))
        self._collector = Collector(prepared, lambda: self._start_ns, len(self._workers))
        self._statistics = locust_statistics(self.environment, prepared, lambda: self._measured.from_ns)
        if self.live:
            self.live.begin(prepared, lambda: self._start_ns, _SETTLE_S)
        if prepared.options.metrics_port:
            self._metrics = GeneratorMetrics(lambda: self._offered, lambda: 0)
            self._close_metrics = expose(self._metrics, prepared.options.metrics_host, prepared.options.metrics_port)
        offset = wall_minus_monotonic_ns()
        for worker, client in enumerate(self._workers):
            deal = {
                "worker": worker,
                "workers": len(self._workers),
                "start_ns": self._start_ns,
                "wall_minus_monotonic_ns": offset,
                "boot": boot_id(),
                "run_time_s": getattr(self.environment, "servestorm_run_time_s", None),
            }
            self._deals[client] = deal
            runner.send_message(DEAL, deal, client_id=client)

    @property
    def _measured(self) -> MeasuredTime:
        assert self._prepared is not None
        return self._prepared.load.measured.started(self._start_ns)

    def take_question(self, client: str) -> None:
        """A worker knows of no share: it has lost it, or there is none because it came too late."""
        if client not in self._deals:
            logger.warning(f"worker {client} came after the load was dealt: it takes no part in it.")
        self.environment.runner.send_message(DEAL, self._deals.get(client, {"worker": None}), client_id=client)

    def take_rows(self, data: dict[str, Any]) -> None:
        """Samples of a worker."""
        if self._collector is None or self._prepared is None or self._unseen is None or self._finished:
            return
        rows = np.frombuffer(data["rows"], np.int64).reshape(-1, len(ROW))
        if data["endpoints"] is not None:
            rows = renumbered(rows, data["endpoints"], self._prepared.endpoints)
        self._collector.add(rows)
        self._unseen.see(data["worker"], rows[:, SCHEDULED] - self._start_ns)
        if self.live:
            self.live.add(rows)
        measured = measured_rows(rows, self._measured)
        self._offered += len(measured)
        if self._metrics:
            self._metrics.feed(measured)

    def take_ending(self, data: dict[str, Any]) -> None:
        """A worker has done its share."""
        self._endings[data["worker"]] = SessionEnd(
            data["error_details"],
            data["cpu_share"],
            data["stopped_after_ns"],
            data["gave_up_after_ns"],
            data["kept_awake"],
        )

    def take_refusal(self, data: dict[str, Any]) -> None:
        """A worker cannot do its share, so nobody should."""
        if not self._concluded:
            self._concluded = True
            logger.error(data["sentence"])
            if self.live:
                self.live.refuse(data["sentence"])
            self._leave(data["code"])

    def _carry_out(self) -> None:
        assert self._prepared is not None and self._statistics is not None
        load = self._prepared.load
        limit_ns = self._start_ns + load.duration_ns + load.timeout_ns + int(PATIENCE_S * 1e9)
        while self._is_anyone_out() and not self._concluded:
            if any(ending.gave_up_after_ns is not None for ending in self._endings.values()):
                break  # the others end with it
            self._look_for_lost(time.monotonic_ns() > limit_ns)
            self._statistics.tick()
            gevent.sleep(POLL_S)
        self._carried_out = not self._concluded

    def _is_anyone_out(self) -> bool:
        """Whether a worker has neither ended nor is lost; one that was lost may come back, and end after all."""
        return len(self._endings.keys() | self._lost) < len(self._workers)

    def _look_for_lost(self, too_late: bool) -> None:
        """Locust misses a worker after 3 s; one that its machine starves for a moment comes back."""
        clients, now_s = self.environment.runner.clients, time.monotonic()
        for worker, client in enumerate(self._workers):
            node = clients.get(client)
            if node is not None and node.state != STATE_MISSING:
                self._missing_since_s.pop(worker, None)
            elif worker not in self._endings:
                since_s = self._missing_since_s.setdefault(worker, now_s)
                if now_s - since_s > SILENCE_S:
                    self._lost.add(worker)
            if too_late and worker not in self._endings:
                self._lost.add(worker)

    def _conclude(self) -> None:
        if self._collector is None or self._unseen is None:
            return
        stopped_after_ns = None if self._carried_out else max(0, time.monotonic_ns() - self._start_ns)
        for worker, client in enumerate(self._workers):
            if worker in self._endings or worker in self._lost:
                continue
            # Locust stops its workers only after this; their last samples belong to this load.
            self.environment.runner.send_message(CONCLUDE, None, client_id=client)
        with gevent.Timeout(DRAIN_S + SEND_S, False):
            while self._is_anyone_out():
                self._look_for_lost(False)
                gevent.sleep(POLL_S)
        if self._close_metrics:
            self._close_metrics()
        self._finished = True
        missing = [w for w in range(len(self._workers)) if w not in self._endings]
        faults = [f"worker {worker + 1} of {len(self._workers)} was lost" for worker in missing]
        for moments_ns in self._unseen.rest(missing) if missing else ():
            due_ns = moments_ns if stopped_after_ns is None else moments_ns[moments_ns <= stopped_after_ns]
            self._count_lost(self._collector.add_lost(due_ns))
        endings = list(self._endings.values())
        if stopped_after_ns is not None:
            endings += [SessionEnd({}, None, stopped_after_ns) for _ in missing]
        self._tell(self._collector.finish(endings, faults))

    def _count_lost(self, rows: Rows) -> None:
        if self.live:
            self.live.add(rows)
        if self._statistics:
            self._statistics.feed(measured_rows(rows, self._measured))
