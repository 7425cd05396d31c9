"""What a process does in each of Locust's roles: alone, as a worker with a share, or as the master that collects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import gevent
from locust.stats import CSV_STATS_INTERVAL_SEC

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator.load import ROW
from loadtests.locust_side.live_load import LiveLoad
from loadtests.locust_side.locust_stats import LocustStatistics
from loadtests.options import read_options
from loadtests.samples.summary import FigureReadings, Summary, late_sentence
from loadtests.session import Collector, Prepared, Session, prepare

EXIT_VALID, EXIT_BUG, EXIT_USAGE, EXIT_ENVIRONMENT, EXIT_INVALID = 0, 70, 2, 3, 4
DEAL, ROWS, ENDED, REFUSED = "servestorm_deal", "servestorm_rows", "servestorm_ended", "servestorm_refused"
ASK = "servestorm_ask"
"""A worker that knows of no share of the load that begins asks for it."""
CONCLUDE = "servestorm_conclude"
"""The master ends the load: a worker sends what it has and reports its ending."""

POLL_S: Final = 0.1
DRAIN_S: Final = 2.0
SEND_S: Final = 0.5
LEAD_S: Final = 2.0
ANSWER_S: Final = 5.0
PATIENCE_S: Final = 10.0
SILENCE_S: Final = 7.0
SCHEDULED: Final = ROW.index("scheduled_ns")
TIMES: Final = [ROW.index(name) for name in ("scheduled_ns", "sent_ns", "first_byte_ns", "done_ns")]

logger = logging.getLogger("servestorm")


def prepare_from(environment: Any) -> Prepared:
    """Check the options of the command line, or of the web form. Raises LoadTestError."""
    namespace = environment.parsed_options
    namespace.host = environment.host or namespace.host
    options = read_options(namespace)
    if options.header and environment.web_ui and destination(environment) != environment.servestorm_destination:
        raise LoadTestError(
            "--header is sent only where the command line says: start Locust with this --host (and --grpc-target), "
            "and leave them as they are in the form."
        )
    shared = environment.web_ui or namespace.master or namespace.worker or namespace.csv_prefix or namespace.html_file
    if (options.turns or options.start_file) and shared:
        raise LoadTestError(
            "--turns and --start-file are for one headless process without Locust's own reports: leave out the web "
            "page, --master, --worker, --processes, --csv and --html."
        )
    return prepare(options, getattr(environment, "servestorm_run_time_s", None))


def destination(environment: Any) -> tuple[str, ...]:
    """Where requests go by the options as they are: a page in another tab could post a form with others."""
    namespace = environment.parsed_options
    return (environment.host or namespace.host or "", namespace.grpc_target, namespace.endpoints_file)


def announce(prepared: Prepared) -> None:
    """Say once, where the load begins, how a trace was read, and which secret everybody on this machine can see."""
    if prepared.trace_reading:
        logger.info(prepared.trace_reading)
    for sentence in prepared.options.headers.exposed:
        logger.warning(sentence)


class Role:
    """A load from Locust's test_start to its end; `conclude` may be called from several events and works once."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.live: LiveLoad | None = getattr(environment, "servestorm_live", None)
        """What the web page and the HTML report show; None where there is neither."""
        self.greenlet: Any = None
        self._collector: Collector | None = None
        self._concluded = False
        self._concluding = False

    def begin(self) -> None:
        """Start in a greenlet of its own."""
        self.greenlet = gevent.spawn(self._guarded)

    def conclude(self) -> None:
        """End now, write what there is, set Locust's exit code.

        Where another greenlet is doing that it is waited for: whoever leaves before would end it.
        """
        if self._concluded:
            while self._concluding:
                gevent.sleep(POLL_S)
            return
        self._concluded = self._concluding = True
        try:
            self._conclude()
        except LoadTestError as error:
            self._refuse(error)
        finally:
            self._concluding = False

    def _guarded(self) -> None:
        try:
            self._carry_out()
        except LoadTestError as error:
            self._concluded = True
            self._refuse(error)
        except Exception:
            logger.exception("the load generator failed: this is a bug of servestorm, please report it")
            self._concluded = True
            if self.live:
                self.live.refuse("the load generator failed; its log says why")
            self._leave(EXIT_BUG)
        else:
            stopped = self._concluded
            self.conclude()
            if not (stopped and self.environment.web_ui):  # it may run another load by now
                self._leave(None)

    def _carry_out(self) -> None:
        raise NotImplementedError

    def _conclude(self) -> None:
        raise NotImplementedError

    def _refuse(self, error: LoadTestError) -> None:
        logger.error(str(error))
        if self.live:
            self.live.refuse(str(error))
        self._leave(EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE)

    def _leave(self, code: int | None) -> None:
        """End Locust's test: quit where nobody watches, stop where the web UI goes on."""
        if code is not None:
            self.environment.process_exit_code = code
        if self._collector:
            self._collector.release()
        # Locust writes its CSV files once a second and not at the end.
        last_table_s = CSV_STATS_INTERVAL_SEC + 0.2 if self.environment.parsed_options.csv_prefix else 0
        runner = self.environment.runner
        gevent.spawn_later(last_table_s, runner.stop if self.environment.web_ui else runner.quit)

    def _tell(self, summary: Summary) -> None:
        good = summary.valid and summary.percentile_counts
        self.environment.process_exit_code = EXIT_VALID if good else EXIT_INVALID
        if self.live:
            self.live.end(summary)
        for line in summary_lines(summary):
            logger.info(line)


def drain(session: Session) -> None:
    """Stop a session and fetch what still comes, for a bounded time."""
    session.stop()
    with gevent.Timeout(DRAIN_S, False):
        while session.poll():
            gevent.sleep(POLL_S)


def locust_statistics(environment: Any, prepared: Prepared, measured_from_ns: Callable[[], int]) -> LocustStatistics:
    """What passes finished requests on to Locust's own statistics."""
    method, name = prepared.settings["protocol"].upper(), prepared.settings["model"]
    return LocustStatistics(environment, method, name, measured_from_ns)


def summary_lines(summary: Summary) -> list[str]:
    """The summary in a few lines for the log."""
    figures = ", ".join(f"{name} {_shown(summary.figures[name])}" for name in ("p50", "p95", "p99"))
    rate = f"{summary.offered_rate:.1f}/s offered, " if summary.offered_rate is not None else ""
    if summary.mean_in_flight is not None:
        rate = f"{summary.mean_in_flight:.1f} of {summary.closed_loop} under way on average, "
    answered = "right" if summary.answers == "checked" else "answered (answers: unchecked)"
    lines = [
        f"{summary.loop} loop, {rate}{summary.achieved_rate or 0:.1f}/s sent, "
        f"{summary.ok} of {summary.scheduled} {answered}, {figures}"
    ]
    if summary.errors:
        details = ", ".join(f"{n} x {name}" for name, n in summary.error_details.items())
        lines.append(f"failures: {details or summary.errors}")
    lines.append("VALID" if summary.valid else f"INVALID: {'; '.join(summary.reasons)}")
    if summary.invalid_figures:
        lines.append(late_sentence(summary))
    return lines


def _shown(figure: FigureReadings) -> str:
    if figure.scheduled_ms is None:
        return "too few samples"
    return f"{figure.scheduled_ms:.2f} ms" if figure.counts else "INVALID"
