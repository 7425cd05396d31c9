"""One replica of the docker backend: a container, watched until it is ready and until it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from models.manifest import ModelDir
from serving.backends.container_use import ContainerUse
from serving.backends.docker.engine import asking
from serving.backends.docker.leftovers import DockerLeftover
from serving.backends.docker.use import Group, of_statistics, with_processes
from serving.deployment import ContainerLaunch, Endpoint, Engine, Event, EventLog
from serving.failed_load import REST_OF_LOG_S, reason
from serving.ports import HOST, is_bound, stays_open
from serving.probe import http_get
from serving.running_server import ContainerServer

_BOUND_POLL_S = 0.003
_READY_POLL_S = 0.01
_LOG_POLL_S = 1.0
"""Reading a log asks the engine, which may run on the replica's own core."""
_ALL_LINES = 1000
_LAST_LINES = 200
"""Of the log, once the container is gone."""
KILL_TIMEOUT_S = 10.0


class ContainerReplica:
    """A container that was created. `changed` is notified when it becomes ready, fails or ends.

    `failure` is the log line that shows it; `published` maps its ports to ports of 127.0.0.1, empty where it is reached
    at its own address.
    """

    def __init__(
        self,
        index: int,
        container: Any,
        client: Any,
        launch: ContainerLaunch,
        engine: Engine,
        model: ModelDir,
        published: Mapping[int, int],
        events: EventLog,
        changed: threading.Condition,
    ) -> None:
        self.index, self.launch, self.ready, self.bound = index, launch, False, False
        self.failure: str | None = None
        self.endpoint: Endpoint | None = None
        self.out_of_memory = False
        self._container, self._client = container, client
        self._engine, self._model, self._published = engine, model, published
        self._events, self._changed = events, changed
        self._host = HOST
        self._group: Group | None = None
        self._code: int | None = None
        self._ended, self._stopping = threading.Event(), threading.Event()
        self._spent = ContainerUse()
        self._last_log: str | None = None

    def start(self) -> Endpoint:
        """Start and watch the container; returns where it listens. Raises DeploymentError where it does not start."""
        self._events.add("spawned", self.index)
        with asking(f"start {self._engine.name} replica {self.index}"):
            self._container.start()
            self._events.add("started", self.index)
            self._container.reload()
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        if not self._published:
            self._host = next(iter(networks.values()))["IPAddress"] or HOST
        state = self._container.attrs["State"]
        self._group = Group.of(int(state.get("Pid") or 0), str(self._container.id))
        self.endpoint = self.launch.endpoint(self.index, self._address)
        for watch in (self._watch_end, self._watch_start):
            threading.Thread(target=watch, name=f"container-{self.index}", daemon=True).start()
        return self.endpoint

    def _port(self, port: int) -> int:
        return self._published.get(port, port)

    def _address(self, port: int) -> str:
        return f"{self._host}:{self._port(port)}"

    def inside(self, port: int) -> str:
        """Its own address, for what stands on the same network: host:port."""
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        return f"{next(iter(networks.values()))['IPAddress']}:{port}"

    def exit_code(self) -> int | None:
        """None while the container runs, or was never started."""
        return self._code if self._ended.is_set() else None

    def tail(self, lines: int) -> str:
        """The last lines that it wrote; of a container that is gone, those that were kept."""
        if self._last_log is not None:
            return "\n".join(self._last_log.splitlines()[-lines:])
        return log_of(self._container, lines)

    def use(self) -> ContainerUse:
        """Used since its start; after its end, what was last seen of what does not end with it."""
        if self.endpoint is None or self._ended.is_set() or self._last_log is not None:
            return self._spent
        with asking(f"tell what {self._engine.name} replica {self.index} uses"):
            statistics = self._client.api.stats(self._container.id, stream=False, one_shot=True)
        use = of_statistics(statistics)
        if use.cpu_s is None or use.memory_bytes is None:  # it ended at this moment
            return self._spent
        use = with_processes(use, self._group)
        self._spent = use.spent()
        return use

    def cpu_s(self) -> float | None:
        """CPU seconds since its start: of the kernel where it runs on this one, for the engine may take a second."""
        if self.endpoint is None or self._ended.is_set() or self._last_log is not None:
            return self._spent.cpu_s
        seconds = self._group.cpu_s() if self._group else None
        return self.use().cpu_s if seconds is None else seconds

    def server(self) -> ContainerServer:
        """Itself, to be looked at from inside."""
        return ContainerServer(lambda command: printed_by(self._container, command), self.launch.management_port)

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._stopping.set()
        if self.endpoint is not None and not self._ended.is_set():
            _leniently(self.use)
            _leniently(lambda: self._container.kill(signal="SIGTERM"))

    def wait(self, timeout_s: float) -> None:
        """Wait for it to end, at most `timeout_s`."""
        if self.endpoint is not None:
            self._ended.wait(max(timeout_s, 0))

    def destroy(self) -> None:
        """Keep its last lines; who removes it follows."""
        self._stopping.set()
        if self._last_log is None:
            self._last_log = log_of(self._container, _LAST_LINES)

    def leftover(self) -> list[DockerLeftover]:
        """Its container, to be removed."""
        return [DockerLeftover("container", str(self._container.name), self._container)]

    def _watch_end(self) -> None:
        """Wait without limit for the container's end; one that the engine no longer knows counts as ended."""
        with suppress(Exception):
            self._code = int(self._client.api.wait(self._container.id, timeout=None)["StatusCode"])
        with suppress(Exception):
            self._container.reload()
            self.out_of_memory |= bool(self._container.attrs["State"].get("OOMKilled"))
        if self._code is None:
            self._code = -1
        self._ended.set()
        self._notify()

    def _watch_start(self) -> None:
        """Record when the port is bound and when the model is ready; ends then, or with the container."""
        pause_s, looked_s = _BOUND_POLL_S, time.monotonic()
        bound: Event | None = None
        while not self._stopping.wait(pause_s) and not self._ended.is_set() and not self.ready:
            if time.monotonic() - looked_s > _LOG_POLL_S:
                looked_s = time.monotonic()
                if self._fails():
                    break
            if bound is None and self._listens(self.launch.rest_port):
                bound = self._events.add("port_bound", self.index, self._address(self.launch.rest_port))
                pause_s, self.bound = _READY_POLL_S, True
            if bound and self._answers():
                self._events.add("ready", self.index)
                self.ready = True
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fails(self) -> bool:
        """Whether it reports that it will never be ready, or the kernel has killed it."""
        if self._group and self._group.out_of_memory():
            self.out_of_memory = True
        if self._fatal_line():
            self._stopping.wait(REST_OF_LOG_S)
            self.failure = self._fatal_line()
        return self.out_of_memory or self.failure is not None

    def _fatal_line(self) -> str | None:
        pattern = self.launch.fatal
        return reason(self.tail(_ALL_LINES).splitlines(), pattern) if pattern else None

    def _listens(self, port: int) -> bool:
        if not self._published:
            return is_bound(port, host=self._host)
        # Docker's proxy listens from the start, and hangs up while nothing does behind it
        if port == self.launch.rest_port:
            return http_get(f"http://{self._address(port)}/") is not None
        return stays_open(self._host, self._port(port))

    def _answers(self) -> bool:
        if self.endpoint is None or self._stopping.is_set():
            return False
        if self._published and not self._listens(self.launch.grpc_port):
            return False
        return self._engine.ready(self.endpoint, self._model)


def log_of(container: Any, lines: int) -> str:
    """The last lines of a container; '' where the engine no longer has them."""
    log = b""

    def read() -> None:
        nonlocal log
        log = container.logs(tail=lines)

    _leniently(read)
    return log.decode("utf-8", "replace").rstrip("\n")


def printed_by(container: Any, command: Sequence[str]) -> bytes | None:
    """What a command in the container printed; None where it failed, or cannot be run."""
    done: Any = None

    def run() -> None:
        nonlocal done
        done = container.exec_run(list(command), stderr=False)

    _leniently(run)
    return None if done is None or done.exit_code else bytes(done.output)


def _leniently(ask: Callable[[], object]) -> None:
    """Ask the engine something that it may refuse, because the container is ending or gone."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    from serving.errors import DeploymentError

    with suppress(DockerException, RequestException, DeploymentError):
        ask()
