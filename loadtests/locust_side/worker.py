"""A worker: sends its share of the load, and reports every arrival to the master."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import numpy as np

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.locust_side.clocks import boot_id, wall_minus_monotonic_ns
from loadtests.locust_side.roles import (
    ANSWER_S,
    ASK,
    ENDED,
    EXIT_ENVIRONMENT,
    EXIT_USAGE,
    POLL_S,
    REFUSED,
    ROWS,
    SEND_S,
    TIMES,
    Role,
    drain,
    locust_statistics,
    logger,
    prepare_from,
)
from loadtests.samples.recorder import measured_rows
from loadtests.session import Prepared, Rows, Session


class WorkerRole(Role):
    """A worker: waits for its share, runs it, sends samples to the master."""

    def __init__(self, environment: Any, dealt: Callable[[], dict[str, Any] | None]) -> None:
        super().__init__(environment)
        self._dealt = dealt
        self._deal: dict[str, Any] | None = None
        self._prepared: Prepared | None = None
        self._session: Session | None = None
        self._rows: list[Rows] = []
        self._to_master_ns = 0
        """What to add to a moment of this machine's clock for the master's."""

    def _carry_out(self) -> None:
        self._deal = self._dealt() or self._asked()
        if self._deal["worker"] is None:
            logger.warning("this load was dealt before this worker came: it takes no part in it.")
            return
        self.environment.servestorm_run_time_s = self._deal["run_time_s"]
        prepared = prepare_from(self.environment).share(self._deal["worker"], self._deal["workers"])
        self._prepared = prepared
        if self._deal["boot"] != boot_id():
            # Another machine's clock: converted through both wall clocks, once, so that a scheduled moment comes back
            # to the master as exactly the one that it dealt.
            self._to_master_ns = wall_minus_monotonic_ns() - self._deal["wall_minus_monotonic_ns"]
        start_at_ns = self._deal["start_ns"] - self._to_master_ns

        def sink(rows: Rows) -> None:
            statistics.feed(measured_rows(rows, session.measured))
            self._rows.append(rows)

        session = self._session = Session(prepared, sink, start_at_ns)
        statistics = locust_statistics(self.environment, prepared, lambda: session.measured_from_ns)
        session.start()
        sent_at = time.monotonic()
        while session.poll():
            statistics.tick()
            if time.monotonic() - sent_at >= SEND_S:
                sent_at = time.monotonic()
                self._send()
            gevent.sleep(POLL_S)

    def _asked(self) -> dict[str, Any]:
        """The share, from the master: Locust may start a load before it has given this process its runner.

        What the master sent until then is lost. Raises LoadTestError where it does not answer.
        """
        until_s, asked = time.monotonic() + ANSWER_S, False
        while time.monotonic() < until_s:
            if self.environment.runner is not None and not asked:
                asked = True
                self._message(ASK, {})
            if (deal := self._dealt()) is not None:
                return deal
            gevent.sleep(POLL_S / 10)
        raise LoadTestError("the master is not servestorm's: start it with the same locustfile.")

    def _send(self) -> None:
        if self._rows and self._deal is not None:
            rows = np.concatenate(self._rows)
            self._rows.clear()
            if self._to_master_ns:
                rows[:, TIMES] = np.where(rows[:, TIMES] >= 0, rows[:, TIMES] + self._to_master_ns, rows[:, TIMES])
            endpoints = self._prepared.endpoints if self._prepared and self._prepared.options.file else None
            self._message(ROWS, {"worker": self._deal["worker"], "rows": rows.tobytes(), "endpoints": endpoints})

    def _report_statistics(self) -> None:
        """Locust would send its statistics in up to 3 s; the master's CSV files and report need them by the end."""
        report: dict[str, Any] = {}
        runner = self.environment.runner
        self.environment.events.report_to_master.fire(client_id=runner.client_id, data=report)
        self._message("stats", report)

    def _conclude(self) -> None:
        if self._session is None or self._deal is None:
            return
        drain(self._session)
        self._send()
        self._report_statistics()
        ending = self._session.ending()
        self._message(
            ENDED,
            {
                "worker": self._deal["worker"],
                "error_details": dict(ending.error_details),
                "cpu_share": ending.cpu_share,
                "stopped_after_ns": ending.stopped_after_ns,
                "gave_up_after_ns": ending.gave_up_after_ns,
                "kept_awake": ending.kept_awake,
            },
        )

    def _message(self, kind: str, data: dict[str, Any]) -> None:
        self.environment.runner.send_message(kind, data)

    def _refuse(self, error: LoadTestError) -> None:
        code = EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE
        self._message(REFUSED, {"sentence": str(error), "code": code})

    def _leave(self, code: int | None) -> None:
        """The master decides when everybody leaves."""
        if code is not None:
            self._message(REFUSED, {"sentence": "a worker failed; its log says why", "code": code})
