"""A worker ends when its master has been silent for a minute, by the monotonic clock.

Locust itself compares moments of the wall clock: where that is set forward, all workers would leave a load at once.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import gevent
from locust.runners import HEARTBEAT_INTERVAL, MASTER_HEARTBEAT_TIMEOUT

logger = logging.getLogger("servestorm")


class MasterSilence:
    """Hears the master's heartbeats for a worker's runner, in place of Locust's own check."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._heard_s: float | None = None
        """When the last one came; None before the first, for which a worker waits without a limit."""
        if runner.last_heartbeat_timestamp is not None:
            self.heard()

    def heard(self, **_: object) -> None:
        """A heartbeat came: a listener of Locust's event `heartbeat_received`."""
        self._heard_s = time.monotonic()
        self._runner.last_heartbeat_timestamp = None  # without one Locust's own check does nothing

    def is_too_long(self) -> bool:
        """Whether the last heartbeat came more than a minute ago."""
        return self._heard_s is not None and time.monotonic() - self._heard_s > MASTER_HEARTBEAT_TIMEOUT

    def watch(self) -> None:
        """Quit once it is; for a greenlet of its own."""
        while not self.is_too_long():
            gevent.sleep(HEARTBEAT_INTERVAL)
        logger.error(f"the master has been silent for {MASTER_HEARTBEAT_TIMEOUT} s: this worker leaves the load.")
        self._runner.quit()


def install_silence_limit(environment: Any) -> None:
    """Watch the master of this worker."""
    silence = MasterSilence(environment.runner)
    environment.events.heartbeat_received.add_listener(silence.heard)
    gevent.spawn(silence.watch)
