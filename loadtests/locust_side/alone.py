"""A process that sends the whole load itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent

from loadtests.arrivals.blocks import MeasuredAmong
from loadtests.locust_side.roles import POLL_S, Role, announce, drain, locust_statistics, prepare_from
from loadtests.samples.prometheus import GeneratorMetrics, expose
from loadtests.samples.recorder import measured_rows, without_gaps
from loadtests.session import Collector, Prepared, Rows, Session
from loadtests.start_file import agreed_start_ns

_SETTLE_S: Final = 3 * POLL_S


class AloneRole(Role):
    """Alone: one session, collected here."""

    def __init__(self, environment: Any, prepared: Prepared | None) -> None:
        super().__init__(environment)
        self._prepared = prepared
        self._session: Session | None = None
        self._close_metrics: Callable[[], None] | None = None

    def _carry_out(self) -> None:
        prepared = self._prepared or prepare_from(self.environment)
        announce(prepared)
        measured_feeds: list[Callable[[Rows], None]] = []
        feeds: list[Callable[[Rows], None]] = []

        def sink(rows: Rows) -> None:
            measured = measured_rows(rows, session.measured)
            if prepared.options.turns:
                # Locust's rates are over the time from its first to its last request
                measured = without_gaps(measured, session.measured)
            for feed in measured_feeds:
                feed(measured)
            for feed in feeds:
                feed(rows)

        start_file = prepared.options.start_file
        start_at_ns = agreed_start_ns(Path(start_file), gevent.sleep) if start_file else 0
        session = self._session = Session(prepared, sink, start_at_ns)
        statistics = locust_statistics(self.environment, prepared, lambda: session.measured_from_ns)
        measured_feeds.append(statistics.feed)
        self._collector = Collector(prepared, lambda: session.generator.start_ns)
        feeds.append(self._collector.add)
        if self.live:
            self.live.begin(prepared, lambda: session.generator.start_ns, _SETTLE_S)
            feeds.append(self.live.add)
        if prepared.options.metrics_port:
            offered = Offered(prepared, session)
            feeds.append(offered.feed)
            metrics = GeneratorMetrics(offered, lambda: session.generator.in_flight)
            self._close_metrics = expose(metrics, prepared.options.metrics_host, prepared.options.metrics_port)
            measured_feeds.append(metrics.feed)
        session.start()
        while session.poll():
            statistics.tick()
            gevent.sleep(POLL_S)

    def _conclude(self) -> None:
        if self._session is None or self._collector is None:
            return
        drain(self._session)
        if self._close_metrics:
            self._close_metrics()
        self._tell(self._collector.finish([self._session.ending()], []))


class Offered:
    """Requests that the generator began after the warm-up: a count that never falls."""

    def __init__(self, prepared: Prepared, session: Session) -> None:
        self._session = session
        self._closed_loop = bool(prepared.load.closed_loop)
        self._among = MeasuredAmong(prepared.load.schedule, prepared.load.measured)
        self._warmup = 0
        """In a closed loop: requests of the warm-up that have ended."""
        self._count = 0

    def feed(self, rows: Rows) -> None:
        """Take samples, (n, len(ROW)) int64, of the warm-up too."""
        if self._closed_loop:
            self._warmup += len(rows) - len(measured_rows(rows, self._session.measured))

    def __call__(self) -> int:
        """The count so far."""
        from_ns = self._session.measured_from_ns
        if from_ns and time.monotonic_ns() >= from_ns:
            self._count = max(self._count, self._begun(self._session.generator.fired))
        return self._count

    def _begun(self, fired: int) -> int:
        if self._closed_loop:
            return fired - self._warmup
        return self._among.first(fired)
