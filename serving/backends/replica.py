"""One replica of the process backend: a server process in a session of its own, watched until it is ready."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from models.manifest import ModelDir
from serving import processes
from serving.deployment import Engine, Event, EventLog, Launch
from serving.errors import DeploymentError, ServingError
from serving.failed_load import REST_OF_LOG_S, reason
from serving.orphans import OWNER_VARIABLE, owner_tag
from serving.ports import is_bound
from serving.supervisor import supervise

REPLICA_VARIABLE = "SERVESTORM_REPLICA"
_BOUND_POLL_S = 0.003
_READY_POLL_S = 0.01
_LOG_TAIL_BYTES = 64 * 1024
_ALL_LINES = 1000
_LOG_POLL_S = 0.25
_GROWING = ("cpu_s", "rss_peak_bytes", "disk_read_bytes", "disk_written_bytes")
"""What of its use outlives it."""


class ProcessReplica:
    """A started server. `changed` is notified when it becomes ready, ends, or reports that it never will be.

    `failure` is the log line that shows it.
    """

    def __init__(
        self,
        index: int,
        launch: Launch,
        engine: Engine,
        model: ModelDir,
        tag: str,
        events: EventLog,
        changed: threading.Condition,
    ) -> None:
        self.index, self.launch, self.ready = index, launch, False
        self.failure: str | None = None
        self._engine, self._model, self._tag = engine, model, tag
        self._events, self._changed = events, changed
        self._log = launch.workdir / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._handle: psutil.Process | None = None
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"replica-{index}", daemon=True)
        self._spent = processes.Usage(0.0, 0, 0)

    def spawn(self, cpus: Sequence[int]) -> None:
        """Start the process on `cpus` and watch it. Raises DeploymentError where it cannot be started."""
        supervise()  # before its start is timed
        environment = {
            **os.environ,
            **self.launch.env,
            OWNER_VARIABLE: owner_tag(),
            REPLICA_VARIABLE: self._tag,
        }
        with self._log.open("ab") as log, _pinned(cpus):
            self._events.add("spawned", self.index)
            try:
                self._process = subprocess.Popen(
                    list(self.launch.command),
                    cwd=self.launch.workdir,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches the study alone, which then stops us in order
                )
            except OSError as error:
                raise DeploymentError(
                    f"{self.launch.command[0]} cannot be started ({error.strerror}): check its installation."
                ) from error
        with suppress(psutil.Error):
            self._handle = psutil.Process(self._process.pid)
        self._watcher.start()

    def exit_code(self) -> int | None:
        """None while the process runs, or was never started."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int | None:
        """Of its own process; None where it was never started."""
        return self._process.pid if self._process else None

    def tail(self, lines: int) -> str:
        """The last lines of its log."""
        try:
            with self._log.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def usage(self) -> processes.Usage:
        """CPU seconds, disk and memory, now and at its peak; after its end, what was last seen and nothing of now."""
        if self._process is None or self._process.poll() is not None:
            return self._spent
        now = processes.usage(self._family())
        grown = {name: max(getattr(now, name), getattr(self._spent, name)) for name in _GROWING}
        self._spent = processes.Usage(rss_bytes=0, **grown)
        return dataclasses.replace(now, **grown)

    def throttled_s(self) -> float | None:
        """Seconds for which its control group was kept off the CPU; None where the kernel does not report it."""
        return processes.throttled_s(self._process.pid) if self._process else None

    def folders(self) -> list[Path]:
        """Where it writes."""
        return [self.launch.workdir, *self.launch.scratch]

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._stopping.set()
        if self._process and self._process.poll() is None:
            self.usage()
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """Wait for its own process to end, at most `timeout_s`."""
        if self._process:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(timeout_s, 0))

    def destroy(self) -> None:
        """Kill whatever of it still runs, descendants included, and remove its scratch folders."""
        self._stopping.set()
        processes.kill(self._family())
        self.wait(processes.KILL_TIMEOUT_S)
        for folder in self.launch.scratch:
            shutil.rmtree(folder, ignore_errors=True)

    def _family(self) -> list[psutil.Process]:
        return processes.family(self._handle, REPLICA_VARIABLE, self._tag)

    def _fatal_line(self) -> str | None:
        pattern = self.launch.fatal
        return reason(self.tail(_ALL_LINES).splitlines(), pattern) if pattern else None

    def _answers(self) -> bool:
        precursor = self.launch.precursor
        if precursor and not precursor.exists():
            return False
        return self._engine.ready(self.launch.endpoint, self._model) and not self._stopping.is_set()

    def _watch(self) -> None:
        """Record when the port is bound and when the model is ready; ends then, or with the process."""
        port, pause_s = self.launch.ports[0], _BOUND_POLL_S
        bound: Event | None = None
        log_read_s = time.monotonic()
        while not self._stopping.wait(pause_s) and self.exit_code() is None and not self.ready:
            if time.monotonic() - log_read_s > _LOG_POLL_S:
                log_read_s = time.monotonic()
                if self._fatal_line():
                    self._stopping.wait(REST_OF_LOG_S)
                    self.failure = self._fatal_line()
                    break
            if bound is None and is_bound(port):
                bound, pause_s = self._events.add("port_bound", self.index, str(port)), _READY_POLL_S
            if bound and self._answers():
                self._events.add("ready", self.index)
                self.ready = True
        with self._changed:
            self._changed.notify_all()


@contextmanager
def _pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Run the calling thread on `cpus` for a moment: what it spawns is there from its first instruction."""
    before = os.sched_getaffinity(0)
    try:
        with suppress(OSError):  # none of them exists: raised below
            os.sched_setaffinity(0, cpus)
        if missing := set(cpus) - os.sched_getaffinity(0):
            raise ServingError(f"CPU {min(missing)} is not available here: choose a CPU set that is.")
        yield
    finally:
        os.sched_setaffinity(0, before)
