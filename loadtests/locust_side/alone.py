"""A process that sends the whole load itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from loadtests.locust_side.roles import POLL_S, Role, drain, locust_feed, prepare_from
from loadtests.samples.prometheus import GeneratorMetrics, expose
from loadtests.session import Collector, Prepared, Rows, Session


class AloneRole(Role):
    """Alone: one session, collected here."""

    def __init__(self, environment: Any, prepared: Prepared | None) -> None:
        super().__init__(environment)
        self._prepared = prepared
        self._session: Session | None = None
        self._collector: Collector | None = None
        self._close_metrics: Callable[[], None] | None = None

    def _carry_out(self) -> None:
        prepared = self._prepared or prepare_from(self.environment)
        feeds = [locust_feed(self.environment, prepared)]

        def sink(rows: Rows) -> None:
            for feed in feeds:
                feed(rows)

        session = self._session = Session(prepared, sink)
        self._collector = Collector(prepared, lambda: session.generator.start_ns)
        feeds.append(self._collector.add)
        if prepared.options.metrics_port:
            metrics = GeneratorMetrics(lambda: session.generator.fired, lambda: session.generator.in_flight)
            self._close_metrics = expose(metrics, prepared.options.metrics_host, prepared.options.metrics_port)
            feeds.append(metrics.feed)
        session.start()
        while session.poll():
            gevent.sleep(POLL_S)

    def _conclude(self) -> None:
        if self._session is None or self._collector is None:
            return
        drain(self._session)
        if self._close_metrics:
            self._close_metrics()
        self._tell(self._collector.finish([self._session.ending()], []))
