"""What a locustfile of ours declares: a user class for Locust, and the listeners that run the load.

`import locust` patches the process (gevent), so only this module, its neighbours `roles` and `locust_stats`, and the
locustfiles import it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import Namespace
from contextlib import suppress
from typing import Any

import gevent
from locust import User, events, task
from locust.runners import MasterRunner, WorkerRunner

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.locust_side.alone import AloneRole
from loadtests.locust_side.live_load import LiveLoad
from loadtests.locust_side.master import MasterRole
from loadtests.locust_side.master_address import install_master_address
from loadtests.locust_side.page import attach
from loadtests.locust_side.roles import (
    ASK,
    CONCLUDE,
    DEAL,
    ENDED,
    EXIT_ENVIRONMENT,
    EXIT_USAGE,
    REFUSED,
    ROWS,
    Role,
    destination,
    prepare_from,
)
from loadtests.locust_side.silent_master import install_silence_limit
from loadtests.locust_side.worker import WorkerRole
from loadtests.options import add_options, headers_of
from serving.interrupts import INTERRUPTED

logger = logging.getLogger("servestorm")


class LoadUser(User):  # type: ignore[misc] # locust ships no types
    """Stands for the load among Locust's users; the requests are sent by one generator a process.

    A Locust user waits for each reply before it sends again. The load here must not: it starts with Locust's test_start
    in every worker, whatever `-u` says, and this user only keeps Locust's test running meanwhile.
    """

    abstract = True
    fixed_count = 1

    @task  # type: ignore[untyped-decorator]
    def wait_for_the_end(self) -> None:
        """Nothing to do until Locust stops the test."""
        gevent.sleep(3600)


class _RunningTest:
    """What this process does in the test that runs, if one does."""

    role: Role | None = None
    deal: dict[str, Any] | None = None
    interrupted = False
    """Whether Ctrl-C or SIGTERM ends the program."""

    def conclude(self) -> None:
        """End the load, if one runs."""
        if self.role is not None:
            self.role.conclude()

    def take_deal(self) -> dict[str, Any] | None:
        """This worker's share of the load that begins, once."""
        deal, self.deal = self.deal, None
        return deal

    @property
    def master(self) -> MasterRole:
        """The role, where messages of workers come to it."""
        assert isinstance(self.role, MasterRole)
        return self.role


_installed: list[str] = []
"""The default arrival process of the locustfile that has called `install`."""


def install(arrivals_default: str) -> None:
    """Declare the options and the listeners on Locust's events; called once by a locustfile."""
    if _installed:
        print(
            f"servestorm: a load is one arrival process, and this is a second locustfile of ours after that of "
            f"{_installed[0]}: give one of them with -f.",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    _installed.append(arrivals_default)
    running = _RunningTest()
    install_master_address()

    def declare(parser: Any, **_: object) -> None:
        add_options(parser, arrivals_default)

    def check(environment: Any, **_: object) -> None:
        _interrupt_in_main(running)
        _take_over(environment)
        _listen_to_messages(environment, running)
        _show(environment)

    def begin(environment: Any, **_: object) -> None:
        _take_run_time_of_form(environment)
        running.role = _role_for(environment, running)
        running.role.begin()

    def conclude(**_: object) -> None:
        running.conclude()

    def leave(environment: Any, **_: object) -> None:
        gevent.sleep(0)  # Locust and we hear of a signal in one turn, in either order
        running.conclude()
        if running.interrupted:
            environment.process_exit_code = INTERRUPTED

    events.init_command_line_parser.add_listener(declare)
    events.init.add_listener(check)
    events.test_start.add_listener(begin)
    events.test_stopping.add_listener(conclude)
    # Ctrl-C computes the exit code before it stops the test.
    events.quitting.add_listener(leave)


def _interrupt_in_main(running: _RunningTest) -> None:
    """Let Ctrl-C raise in Locust's own greenlet, which waits for it, and not in whichever happens to run.

    Python raises KeyboardInterrupt between any two instructions of the main thread: in the middle of a write of ours it
    cost a traceback. SIGTERM has a handler of Locust's; this one only takes it down.
    """
    main = gevent.getcurrent()

    def interrupt() -> None:
        if not running.interrupted:
            running.interrupted = True
            gevent.kill(main, KeyboardInterrupt)

    def terminated() -> None:
        running.interrupted = True

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        gevent.signal_handler(signal.SIGINT, interrupt)
    gevent.signal_handler(signal.SIGTERM, terminated)


def _role_for(environment: Any, running: _RunningTest) -> Role:
    # A worker may have to start before Locust has put its runner into the environment; nobody else is.
    if environment.runner is None or isinstance(environment.runner, WorkerRunner):
        return WorkerRole(environment, running.take_deal)
    prepared = getattr(environment, "servestorm_prepared", None)
    environment.servestorm_prepared = None
    if isinstance(environment.runner, MasterRunner):
        return MasterRole(environment, prepared)
    return AloneRole(environment, prepared)


def _listen_to_messages(environment: Any, running: _RunningTest) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        install_silence_limit(environment)
        runner.register_message(DEAL, lambda environment, msg: setattr(running, "deal", msg.data))
        runner.register_message(CONCLUDE, lambda environment, msg: running.conclude(), concurrent=True)
    elif isinstance(runner, MasterRunner):
        runner.register_message(ROWS, lambda environment, msg: running.master.take_rows(msg.data))
        runner.register_message(ENDED, lambda environment, msg: running.master.take_ending(msg.data))
        runner.register_message(REFUSED, lambda environment, msg: running.master.take_refusal(msg.data))
        runner.register_message(ASK, lambda environment, msg: running.master.take_question(msg.node_id))


def _show(environment: Any) -> None:
    """Follow the load for the web page and the HTML report; a load with neither does without the work."""
    if environment.web_ui or (environment.parsed_options.html_file and not environment.parsed_options.worker):
        environment.servestorm_live = LiveLoad()
        attach(environment, environment.servestorm_live)


def _take_over(environment: Any) -> None:
    """Before the load: warn of what is ignored, take -t over, and in a headless run refuse what cannot work."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options: Namespace = environment.parsed_options
    if options.num_users not in (None, 1) or options.spawn_rate not in (None, 1):
        logger.warning("-u and -r are ignored: one open-loop user a worker drives the whole load.")
    with suppress(LoadTestError):  # refused where the load begins
        options.header = headers_of(options).written or None  # a worker may have another working directory
    environment.servestorm_header, environment.servestorm_destination = options.header, destination(environment)
    # Locust would stop the test at -t, in the middle of what is under way; the schedule is cut instead.
    environment.servestorm_run_time_s = environment.servestorm_cli_run_time_s = options.run_time
    options.run_time = None
    if options.headless:
        try:
            environment.servestorm_prepared = prepare_from(environment)
        except LoadTestError as error:
            print(f"servestorm: {error}", file=sys.stderr)
            sys.exit(EXIT_ENVIRONMENT if isinstance(error, LoadEnvironmentError) else EXIT_USAGE)


def _take_run_time_of_form(environment: Any) -> None:
    """The web form's run time cuts the schedule of this start as -t does; without one -t holds.

    Headers are those of the command line.
    """
    if environment.web_ui is None:
        return
    options: Namespace = environment.parsed_options
    options.header = environment.servestorm_header  # a form may name no file or variable of this machine
    environment.servestorm_run_time_s = options.run_time or environment.servestorm_cli_run_time_s
    if options.run_time:
        options.run_time = None
        environment.web_ui._cancel_run_time_timer()


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
