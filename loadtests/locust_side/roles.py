"""Who drives a load in each of Locust's roles: alone, as a worker with a share, or as the master that collects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
import numpy as np
from locust.runners import STATE_MISSING
from locust.stats import CSV_STATS_INTERVAL_SEC

from loadtests.arrivals import processes
from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator.generator import ROW
from loadtests.locust_side.locust_stats import LocustStatistics
from loadtests.options import read_options
from loadtests.samples.prometheus import GeneratorMetrics, expose
from loadtests.samples.summary import Summary
from loadtests.session import Collector, Ending, Prepared, Rows, Session, prepare, renumbered

EXIT_VALID, EXIT_BUG, EXIT_USAGE, EXIT_ENVIRONMENT, EXIT_INVALID = 0, 70, 2, 3, 4
DEAL, ROWS, ENDED, REFUSED = "servestorm_deal", "servestorm_rows", "servestorm_ended", "servestorm_refused"
ASK = "servestorm_ask"
"""A worker that knows of no share of the load that begins asks for it."""

_POLL_S: Final = 0.1
_DRAIN_S: Final = 2.0
_SEND_S: Final = 0.5
_LEAD_S: Final = 2.0
_ANSWER_S: Final = 5.0
_PATIENCE_S: Final = 10.0
_SILENCE_S: Final = 7.0
_SCHEDULED: Final = ROW.index("scheduled_ns")
_TIMES: Final = [ROW.index(name) for name in ("scheduled_ns", "sent_ns", "first_byte_ns", "done_ns")]

logger = logging.getLogger("servestorm")


def prepare_from(environment: Any) -> Prepared:
    """Check the options of the command line, or of the web form. Raises LoadTestError."""
    namespace = environment.parsed_options
    namespace.host = environment.host or namespace.host
    return prepare(read_options(namespace), getattr(environment, "servestorm_run_time_s", None))


class Drive:
    """A load from Locust's test_start to its end; `conclude` may be called from several events and works once."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.greenlet: Any = None
        self._concluded = False

    def begin(self) -> None:
        """Start in a greenlet of its own."""
        self.greenlet = gevent.spawn(self._guarded)

    def conclude(self) -> None:
        """End now, write what there is, set Locust's exit code."""
        if self._concluded:
            return
        self._concluded = True
        try:
            self._conclude()
        except LoadTestError as error:
            self._refuse(error)

    def _guarded(self) -> None:
        try:
            self._drive()
        except LoadTestError as error:
            self._concluded = True
            self._refuse(error)
        except Exception:
            logger.exception("the load generator failed: this is a bug of servestorm, please report it")
            self._concluded = True
            self._leave(EXIT_BUG)
        else:
            self.conclude()
            self._leave(None)

    def _drive(self) -> None:
        raise NotImplementedError

    def _conclude(self) -> None:
        raise NotImplementedError

    def _refuse(self, error: LoadTestError) -> None:
        logger.error(str(error))
        self._leave(EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE)

    def _leave(self, code: int | None) -> None:
        """End Locust's test: quit where nobody watches, stop where the web UI goes on."""
        if code is not None:
            self.environment.process_exit_code = code
        # Locust writes its CSV files once a second and not at the end.
        last_table_s = CSV_STATS_INTERVAL_SEC + 0.2 if self.environment.parsed_options.csv_prefix else 0
        runner = self.environment.runner
        gevent.spawn_later(last_table_s, runner.stop if self.environment.web_ui else runner.quit)

    def _tell(self, summary: Summary) -> None:
        self.environment.process_exit_code = EXIT_VALID if summary.valid else EXIT_INVALID
        for line in told(summary):
            logger.info(line)


class LocalDrive(Drive):
    """Alone: one session, collected here."""

    def __init__(self, environment: Any, prepared: Prepared | None) -> None:
        super().__init__(environment)
        self._prepared = prepared
        self._session: Session | None = None
        self._collector: Collector | None = None
        self._close_metrics: Callable[[], None] | None = None

    def _drive(self) -> None:
        prepared = self._prepared or prepare_from(self.environment)
        feeds = [_locust_feed(self.environment, prepared)]

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
            gevent.sleep(_POLL_S)

    def _conclude(self) -> None:
        if self._session is None or self._collector is None:
            return
        drain(self._session)
        if self._close_metrics:
            self._close_metrics()
        self._tell(self._collector.finish([self._session.ending()], []))


class WorkerDrive(Drive):
    """A worker: waits for its share, runs it, sends samples to the master."""

    def __init__(self, environment: Any, dealt: Callable[[], dict[str, Any] | None]) -> None:
        super().__init__(environment)
        self._dealt = dealt
        self._deal: dict[str, Any] | None = None
        self._prepared: Prepared | None = None
        self._session: Session | None = None
        self._rows: list[Rows] = []
        self._close_metrics: Callable[[], None] | None = None

    def _drive(self) -> None:
        self._deal = self._dealt() or self._asked()
        if self._deal["worker"] is None:
            logger.warning("this load was dealt before this worker came: it takes no part in it.")
            return
        self.environment.servestorm_run_time_s = self._deal["run_time_s"]
        prepared = prepare_from(self.environment).share(self._deal["worker"], self._deal["workers"])
        self._prepared = prepared
        feed = _locust_feed(self.environment, prepared)
        start_at_ns = self._deal["start_wall_ns"] - wall_minus_monotonic_ns()
        if self._deal["boot"] == boot_id():
            start_at_ns = self._deal["start_ns"]

        def sink(rows: Rows) -> None:
            feed(rows)
            self._rows.append(rows)

        session = self._session = Session(prepared, sink, start_at_ns)
        session.start()
        sent_at = time.monotonic()
        while session.poll():
            if time.monotonic() - sent_at >= _SEND_S:
                sent_at = time.monotonic()
                self._send()
            gevent.sleep(_POLL_S)

    def _asked(self) -> dict[str, Any]:
        """The share, from the master: Locust may start a load before it has given this process its runner.

        What the master sent until then is lost. Raises LoadTestError where it does not answer.
        """
        until_s, asked = time.monotonic() + _ANSWER_S, False
        while time.monotonic() < until_s:
            if self.environment.runner is not None and not asked:
                asked = True
                self._message(ASK, {})
            if (deal := self._dealt()) is not None:
                return deal
            gevent.sleep(_POLL_S / 10)
        raise LoadTestError("the master is not servestorm's: start it with the same locustfile.")

    def _send(self) -> None:
        if self._rows and self._deal is not None:
            rows = np.concatenate(self._rows)
            self._rows.clear()
            if self._deal["boot"] != boot_id():
                # Another machine's clock: told in the master's time through both wall clocks.
                shift = wall_minus_monotonic_ns() - self._deal["wall_minus_monotonic_ns"]
                rows[:, _TIMES] = np.where(rows[:, _TIMES] >= 0, rows[:, _TIMES] + shift, rows[:, _TIMES])
            endpoints = self._prepared.endpoints if self._prepared and self._prepared.options.file else None
            self._message(ROWS, {"worker": self._deal["worker"], "rows": rows.tobytes(), "endpoints": endpoints})

    def _conclude(self) -> None:
        if self._session is None or self._deal is None:
            return
        drain(self._session)
        self._send()
        ending = self._session.ending()
        self._message(
            ENDED,
            {
                "worker": self._deal["worker"],
                "error_details": dict(ending.error_details),
                "cpu_share": ending.cpu_share,
                "stopped_early": ending.stopped_early,
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


class MasterDrive(Drive):
    """The master: deals the schedule, collects samples, and accounts for workers that are lost."""

    def __init__(self, environment: Any, prepared: Prepared | None) -> None:
        super().__init__(environment)
        self._prepared = prepared
        self._collector: Collector | None = None
        self._start_ns = 0
        self._workers: list[str] = []
        self._deals: dict[str, dict[str, Any]] = {}
        self._seen: dict[int, list[Rows]] = {}
        self._endings: dict[int, Ending] = {}
        self._lost: set[int] = set()
        self._missing_since_s: dict[int, float] = {}
        self._metrics: GeneratorMetrics | None = None
        self._close_metrics: Callable[[], None] | None = None
        self._fired = 0

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
        runner = self.environment.runner
        self._workers = [client.id for client in runner.clients.ready]
        self._start_ns = time.monotonic_ns() + int(_LEAD_S * 1e9)
        self._collector = Collector(prepared, lambda: self._start_ns, len(self._workers))
        if prepared.options.metrics_port:
            self._metrics = GeneratorMetrics(lambda: self._fired, lambda: 0)
            self._close_metrics = expose(self._metrics, prepared.options.metrics_host, prepared.options.metrics_port)
        offset = wall_minus_monotonic_ns()
        for worker, client in enumerate(self._workers):
            deal = {
                "worker": worker,
                "workers": len(self._workers),
                "start_ns": self._start_ns,
                "start_wall_ns": self._start_ns + offset,
                "wall_minus_monotonic_ns": offset,
                "boot": boot_id(),
                "run_time_s": getattr(self.environment, "servestorm_run_time_s", None),
            }
            self._deals[client] = deal
            runner.send_message(DEAL, deal, client_id=client)

    def take_question(self, client: str) -> None:
        """A worker knows of no share: it has lost it, or there is none because it came too late."""
        if client not in self._deals:
            logger.warning(f"worker {client} came after the load was dealt: it takes no part in it.")
        self.environment.runner.send_message(DEAL, self._deals.get(client, {"worker": None}), client_id=client)

    def take_rows(self, data: dict[str, Any]) -> None:
        """Samples of a worker."""
        if self._collector is None or self._prepared is None or self._concluded:
            return
        rows = np.frombuffer(data["rows"], np.int64).reshape(-1, len(ROW))
        if data["endpoints"] is not None:
            rows = renumbered(rows, data["endpoints"], self._prepared.endpoints)
        self._collector.add(rows)
        self._seen.setdefault(data["worker"], []).append(rows[:, _SCHEDULED].copy())
        self._fired += len(rows)
        if self._metrics:
            self._metrics.feed(rows)

    def take_ending(self, data: dict[str, Any]) -> None:
        """A worker has done its share."""
        self._endings[data["worker"]] = Ending(
            data["error_details"], data["cpu_share"], data["stopped_early"], data["kept_awake"]
        )

    def take_refusal(self, data: dict[str, Any]) -> None:
        """A worker cannot do its share, so nobody should."""
        if not self._concluded:
            self._concluded = True
            logger.error(data["sentence"])
            self._leave(data["code"])

    def _drive(self) -> None:
        assert self._prepared is not None
        load = self._prepared.load
        limit_ns = self._start_ns + load.duration_ns + load.timeout_ns + int(_PATIENCE_S * 1e9)
        while len(self._endings) + len(self._lost) < len(self._workers) and not self._concluded:
            self._look_for_lost(time.monotonic_ns() > limit_ns)
            gevent.sleep(_POLL_S)

    def _look_for_lost(self, too_late: bool) -> None:
        """Locust misses a worker after 3 s; one that its machine starves for a moment comes back."""
        clients, now_s = self.environment.runner.clients, time.monotonic()
        for worker, client in enumerate(self._workers):
            node = clients.get(client)
            if node is not None and node.state != STATE_MISSING:
                self._missing_since_s.pop(worker, None)
            elif worker not in self._endings:
                since_s = self._missing_since_s.setdefault(worker, now_s)
                if now_s - since_s > _SILENCE_S:
                    self._lost.add(worker)
            if too_late and worker not in self._endings:
                self._lost.add(worker)

    def _conclude(self) -> None:
        if self._collector is None or self._prepared is None:
            return
        with gevent.Timeout(_DRAIN_S + _POLL_S, False):
            while len(self._endings) + len(self._lost) < len(self._workers):
                self._look_for_lost(False)
                gevent.sleep(_POLL_S)
        if self._close_metrics:
            self._close_metrics()
        missing = [w for w in range(len(self._workers)) if w not in self._endings]
        faults = [f"worker {worker + 1} of {len(self._workers)} was lost" for worker in missing]
        for worker in missing:
            self._collector.add_lost(self._unseen(worker))
        self._tell(self._collector.finish(list(self._endings.values()), faults))

    def _unseen(self, worker: int) -> processes.Schedule:
        """The arrivals dealt to a worker that no sample came of."""
        assert self._prepared is not None
        dealt = processes.deal(self._prepared.load.schedule, worker, len(self._workers))
        seen = self._seen.get(worker)
        if not seen:
            return dealt
        # Two arrivals may share a nanosecond, so they are counted, not only looked up.
        moments, counts = np.unique(np.concatenate(seen) - self._start_ns, return_counts=True)
        known, dealt_counts = np.unique(dealt, return_counts=True)
        found = np.zeros(len(known), np.int64)
        shared = np.isin(moments, known)
        found[np.searchsorted(known, moments[shared])] = counts[shared]
        return np.repeat(known, np.maximum(dealt_counts - found, 0))


def drain(session: Session) -> None:
    """Stop a session and fetch what still comes, for a bounded time."""
    session.stop()
    with gevent.Timeout(_DRAIN_S, False):
        while session.poll():
            gevent.sleep(_POLL_S)


def _locust_feed(environment: Any, prepared: Prepared) -> Callable[[Rows], None]:
    return LocustStatistics(environment, prepared.settings["protocol"].upper(), prepared.settings["model"]).feed


def wall_minus_monotonic_ns() -> int:
    """What to add to this machine's monotonic clock for the wall clock."""
    return time.time_ns() - time.monotonic_ns()


def boot_id() -> str:
    """Equal for processes that share one monotonic clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def told(summary: Summary) -> list[str]:
    """The summary in a few lines for the log."""
    latency = summary.latency_ms
    figures = ", ".join(
        f"{name} {value:.2f} ms" if value is not None else f"{name} too few samples"
        for name, value in (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    )
    rate = f"{summary.offered_rate:.1f}/s offered, " if summary.offered_rate is not None else ""
    answered = "right" if summary.answers == "checked" else "answered (answers: unchecked)"
    lines = [
        f"{summary.loop} loop, {rate}{summary.achieved_rate or 0:.1f}/s sent, "
        f"{summary.ok} of {summary.scheduled} {answered}, {figures}"
    ]
    if summary.errors:
        details = ", ".join(f"{n} x {name}" for name, n in summary.error_details.items())
        lines.append(f"failures (warm-up included): {details or summary.errors}")
    lines.append("VALID" if summary.valid else f"INVALID: {'; '.join(summary.reasons)}")
    return lines
