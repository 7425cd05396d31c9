"""What the study and every backend agree on: budgets, endpoints, events, use, engines and deployments.

Engines say *how* a server is started and spoken to; backends say *where* it runs. Neither knows its siblings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from models.manifest import ModelDir
from serving.headers import NO_HEADERS, Headers
from serving.server_settings import OrderedSettings, RunningServer, ServerSettings


@dataclass(frozen=True)
class Budget:
    """What one deployment may use. The same budget goes to every engine of a study."""

    cpus: tuple[int, ...]
    """CPU set shared by all replicas."""
    threads: int = 1
    """Intra-op threads of one replica; inter-op is always 1."""
    memory_bytes: int | None = None
    """Limit of one replica; only a backend that can enforce it takes one."""
    cpu_quota: float | None = None
    """CPUs that one replica may use on average, on top of the CPU set; only a backend that can enforce it takes one."""
    warmup: bool = True
    """Whether a server answers the warm-up requests that its artifact holds before it is ready."""


@dataclass(frozen=True)
class Batching:
    """Server-side batching, the same for every engine; max_batch_size 1 means off."""

    max_batch_size: int = 1
    timeout_us: int = 1000
    queue_size: int = 1000
    """Requests that may wait for a batch before the server refuses more."""


@dataclass(frozen=True)
class Endpoint:
    """Where one replica listens; addresses are reachable from the load generator."""

    replica: int
    rest_url: str
    """http://host:port, without a trailing slash."""
    grpc_target: str
    """host:port of the inference service."""
    metrics_url: str
    """Prometheus text."""
    management_url: str | None = None
    headers: Headers = NO_HEADERS
    """Sent with every request to `rest_url` and `grpc_target`."""
    metrics_headers: Headers = NO_HEADERS
    management_headers: Headers = NO_HEADERS


@dataclass(frozen=True)
class Event:
    """Something that happened to a deployment; t_ns is time.monotonic_ns()."""

    name: str
    t_ns: int
    replica: int | None = None
    detail: str = ""


@dataclass
class EventLog:
    """Collects events in order; `listener` sees each as it comes, one at a time, from any thread."""

    listener: Callable[[Event], None] | None = None
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, name: str, replica: int | None = None, detail: str = "", t_ns: int | None = None) -> Event:
        """Record an event now, or at the monotonic time given."""
        event = Event(name, time.monotonic_ns() if t_ns is None else t_ns, replica, detail)
        with self._lock:
            self.events.append(event)
            if self.listener:
                self.listener(event)
        return event


@dataclass(frozen=True)
class Use:
    """What the replicas have used since they started; None where it is unknown."""

    cpu_s: float | None
    rss_bytes: int | None
    """Now, all processes of all replicas."""
    rss_peak_bytes: int | None
    """Sum over processes of the kernel's high-water marks."""
    disk_bytes: int | None
    """Artifacts plus the work directories."""
    disk_read_bytes: int | None = None
    """Read from the disk itself by all processes that ever ran: what came from the page cache does not count."""
    disk_written_bytes: int | None = None
    """Sent to the disk, or on its way there from the page cache."""
    threads: int | None = None
    """Now, all processes of all replicas."""
    swap_bytes: int | None = None
    """Memory that is swapped out now."""
    throttled_s: float | None = None
    """Time for which the kernel kept the replicas' control group off the CPU for its quota (CFS bandwidth).

    The mean over replicas, where each has a group of its own.
    """
    memory_bytes: int | None = None
    """Charged to the replicas' own control groups now, page cache included: what a limit counts."""
    memory_peak_bytes: int | None = None
    """The most that was ever charged to each of them, summed."""
    network_received_bytes: int | None = None
    """By the replicas' own network interfaces."""
    network_sent_bytes: int | None = None
    pids: int | None = None
    """Tasks (processes and threads) in the replicas' own control groups now."""


@dataclass(frozen=True)
class Launch:
    """How one replica is started by the process backend."""

    command: Sequence[str]
    env: Mapping[str, str]
    """Added to the inherited environment."""
    endpoint: Endpoint
    workdir: Path
    ports: tuple[int, ...]
    """Every port it will bind, to be checked free."""
    scratch: tuple[Path, ...] = ()
    """Folders outside `workdir` that go with the replica."""
    precursor: Path | None = None
    """What appears shortly before the server is ready: asking any earlier only takes CPU from its start."""
    fatal: str | None = None
    """Regular expression: a log line that matches means that the model will never be ready."""


@dataclass(frozen=True)
class ContainerLaunch:
    """How one replica is started as a container; ports are those inside it, the same for every replica."""

    command: Sequence[str]
    """Handed to the image's entry point."""
    env: Mapping[str, str]
    config: Path
    """Folder with its configuration, to be mounted read-only at `serving.containers.CONFIG`."""
    rest_port: int
    grpc_port: int
    metrics_port: int
    metrics_path: str
    management_port: int | None = None
    fatal: str | None = None
    """Regular expression: a log line that matches means that the model will never be ready."""

    def endpoint(self, replica: int, address: Callable[[int], str]) -> Endpoint:
        """Where the replica listens; `address` gives host:port of a port inside the container."""
        management = self.management_port
        return Endpoint(
            replica=replica,
            rest_url=f"http://{address(self.rest_port)}",
            grpc_target=address(self.grpc_port),
            metrics_url=f"http://{address(self.metrics_port)}{self.metrics_path}",
            management_url=f"http://{address(management)}" if management else None,
        )

    def ports(self) -> tuple[int, ...]:
        """Every port inside the container, each once, REST's first."""
        ports = (self.rest_port, self.grpc_port, self.metrics_port, self.management_port)
        return tuple(dict.fromkeys(port for port in ports if port))


class Engine(Protocol):
    """What serves an artifact. Implementations live in `serving.engines`, one module each."""

    name: str
    artifact: str
    """'savedmodel' or 'mar': which artifact of a model directory it needs."""

    @property
    def image(self) -> str:
        """Reference of the container image that serves it, where nobody names another."""

    def check(self) -> str:
        """Version of the engine; raises EngineUnavailable with the remedy where it cannot run here."""

    def launch(
        self,
        model: ModelDir,
        replica: int,
        budget: Budget,
        batching: Batching,
        workdir: Path,
        port: int | None,
    ) -> Launch:
        """Write the configuration into `workdir` and return the command; `port` fixes REST's, others are free."""

    def contain(self, model: ModelDir, budget: Budget, batching: Batching, config: Path) -> ContainerLaunch:
        """Write the configuration into the folder `config` and return how a container is started with it."""

    def ready(self, endpoint: Endpoint, model: ModelDir) -> bool:
        """True once the model answers; never raises for a server that is not up yet."""

    def ordered(self, budget: Budget, batching: Batching) -> OrderedSettings:
        """The settings that `launch` and `contain` start a server with."""

    def settings(self, server: RunningServer, model: ModelDir) -> ServerSettings:
        """The settings that a server which is ready really runs with; never raises."""


class Deployment(Protocol):
    """A started deployment. Stopping twice is harmless; `with` stops it."""

    use_disturbs: bool
    """Whether `use` takes CPU time of the servers: where a program in a pod is asked."""

    @property
    def name(self) -> str:
        """What the deployment is called where it runs, such as its Helm release; '' where it has no name."""

    @property
    def endpoints(self) -> list[Endpoint]:
        """Each replica; of those that are given their addresses later, those that have one already."""

    @property
    def front(self) -> list[Endpoint]:
        """Where load goes: the endpoints, or what stands in front of them; known once `wait_ready` has returned."""

    @property
    def front_file(self) -> Path | None:
        """JSON that always lists the ready replicas; None where they do not come and go.

        [{"rest": "http://host:port", "grpc": "host:port"}, ...]
        """

    def wait_ready(self, timeout_s: float) -> None:
        """Return when every replica is ready; raises DeploymentError with the last log lines otherwise."""

    def server(self, endpoint: Endpoint) -> RunningServer:
        """The replica at one of `endpoints`, to be looked at."""

    def alive(self) -> bool:
        """True while every replica's process or container runs."""

    def scale(self, replicas: int) -> None:
        """Start or stop replicas, without waiting for readiness."""

    def use(self) -> Use:
        """CPU, memory and disk used so far."""

    def cpu_s(self) -> float | None:
        """CPU seconds as `use` has them, read as quickly as they can be: between two slices of a load is a second."""

    def cpu_elsewhere_s(self) -> float | None:
        """CPU seconds of all that belongs to the deployment and does not descend from this process; None: unknown."""

    def logs(self, lines: int = 20) -> str:
        """The last lines that the replicas wrote."""

    def records(self) -> Mapping[str, str]:
        """What else is worth keeping of the deployment: file names, and what to write into them."""

    def stop(self) -> None:
        """Terminate everything that was started, and wait for it to be gone."""

    def __enter__(self) -> Deployment: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
