"""The Locust users: one that drives a whole load by itself, open loop or closed, and what surrounds it.

`import locust` patches the process (gevent), so only this module and the locustfiles import it.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from typing import Any

import gevent
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.locust_stats import LocustStatistics
from loadtests.options import add_options, read_options
from loadtests.session import Prepared, Session, prepare
from loadtests.summary import Summary

_POLL_S = 0.1
_DRAIN_S = 2.0
EXIT_VALID, EXIT_USAGE, EXIT_ENVIRONMENT, EXIT_INVALID, EXIT_INTERRUPTED = 0, 2, 3, 4, 130

logger = logging.getLogger("servestorm")


class LoadUser(User):  # type: ignore[misc] # locust ships no types
    """Drives the whole load of this process by itself: `-u` and `-r` do not matter.

    Open loop by default (`--arrivals`), closed loop with `--closed-loop N`. Requests are not sent by Locust users but
    by one generator thread a process, so that a reply that is late never delays the next request.
    """

    abstract = True
    fixed_count = 1

    @task  # type: ignore[untyped-decorator]
    def drive(self) -> None:
        """Run the load from its first arrival to its summary."""
        environment = self.environment
        try:
            prepared = _prepared(environment)
        except LoadTestError as error:
            _refuse(environment, error)
            raise StopUser from error
        statistics = LocustStatistics(environment, prepared.settings["protocol"].upper(), prepared.settings["model"])
        session = _started(environment, prepared, statistics)
        try:
            while session.poll():
                gevent.sleep(_POLL_S)
        finally:
            # Reached with GreenletExit too: Ctrl-C, the web UI's stop button, Locust's own quit.
            session.stop()
            _drain(session)
            _conclude(environment, session)
        raise StopUser  # the task would be started again


def _started(environment: Any, prepared: Prepared, statistics: LocustStatistics) -> Session:
    try:
        session = Session(prepared, statistics.feed)
        session.start()
    except LoadTestError as error:
        _refuse(environment, error)
        raise StopUser from error
    return session


def _drain(session: Session) -> None:
    with gevent.Timeout(_DRAIN_S, False):
        while session.poll():
            gevent.sleep(_POLL_S)


def _conclude(environment: Any, session: Session) -> None:
    try:
        summary = session.finish()
    except LoadTestError as error:
        _refuse(environment, error)
        return
    environment.process_exit_code = EXIT_VALID if summary.valid else EXIT_INVALID
    for line in told(summary):
        logger.info(line)
    # Locust writes its CSV files once a second and not at the end.
    last_table_s = CSV_STATS_INTERVAL_SEC + 0.2 if environment.parsed_options.csv_prefix else 0
    runner = environment.runner
    gevent.spawn_later(last_table_s, runner.stop if environment.web_ui else runner.quit)


def told(summary: Summary) -> list[str]:
    """The summary in a few lines for the log."""
    latency = summary.latency_ms
    figures = ", ".join(
        f"{name} {value:.2f} ms" if value is not None else f"{name} too few samples"
        for name, value in (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    )
    rate = f"{summary.offered_rate:.1f}/s offered, " if summary.offered_rate is not None else ""
    lines = [
        f"{summary.loop} loop, {rate}{summary.achieved_rate or 0:.1f}/s sent, {summary.ok} of {summary.scheduled} "
        f"{'right' if summary.answers == 'checked' else 'answered (answers: unchecked)'}, {figures}"
    ]
    if summary.errors:
        details = ", ".join(f"{n} x {name}" for name, n in summary.error_details.items())
        lines.append(f"failures (warm-up included): {details}")
    lines.append("VALID" if summary.valid else f"INVALID: {'; '.join(summary.reasons)}")
    return lines


def install(arrivals_default: str) -> None:
    """Declare the options and the checks on Locust's events; called once by a locustfile."""

    @events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
    def _declare(parser: Any, **_: object) -> None:
        add_options(parser, arrivals_default)

    @events.init.add_listener  # type: ignore[untyped-decorator]
    def _check(environment: Any, **_: object) -> None:
        _take_over(environment)


def _take_over(environment: Any) -> None:
    """Before the load: warn of what is ignored, take -t over, and in a headless run refuse what cannot work."""
    options: Namespace = environment.parsed_options
    if options.num_users not in (None, 1) or options.spawn_rate not in (None, 1):
        logger.warning("-u and -r are ignored: one open-loop user a worker drives the whole load.")
    # Locust would kill the user at -t, in the middle of what is under way; the schedule is cut instead.
    environment.servestorm_run_time_s = options.run_time
    options.run_time = None
    if isinstance(environment.runner, MasterRunner | WorkerRunner):
        return
    if options.headless:
        try:
            environment.servestorm_prepared = _prepare(environment)
        except LoadTestError as error:
            print(f"servestorm: {error}", file=sys.stderr)
            sys.exit(EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE)


def _prepared(environment: Any) -> Prepared:
    """What the headless check prepared, or, from the web UI, what the form says now."""
    ready = getattr(environment, "servestorm_prepared", None)
    environment.servestorm_prepared = None
    return ready or _prepare(environment)


def _prepare(environment: Any) -> Prepared:
    namespace = environment.parsed_options
    namespace.host = environment.host or namespace.host
    return prepare(read_options(namespace), environment.servestorm_run_time_s)


def _refuse(environment: Any, error: LoadTestError) -> None:
    logger.error(str(error))
    environment.process_exit_code = EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE
    runner = environment.runner
    gevent.spawn_later(0, runner.stop if environment.web_ui else runner.quit)


def start_locust(locustfile: str, arrivals_default: str) -> None:
    """`python LOCUSTFILE ...` is `locust -f LOCUSTFILE ...`, and its --help explains our options too.

    Locust's own --help answers before it has read the locustfile.
    """
    from locust.argument_parser import get_parser
    from locust.main import main

    if {"-h", "--help"} & set(sys.argv[1:]):
        install(arrivals_default)
        get_parser().parse_args(["--help"])
    sys.argv[1:1] = ["-f", locustfile]
    main()


def bind_to_loopback() -> None:
    """Locust's web UI and master listen on every interface by default, unauthenticated; ours do not."""
    os.environ.setdefault("LOCUST_WEB_HOST", "127.0.0.1")
    os.environ.setdefault("LOCUST_MASTER_BIND_HOST", "127.0.0.1")
