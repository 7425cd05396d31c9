"""Runs replicas as processes on this machine, on a CPU set, and always tears them down."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.manifest import size_of
from serving.backend import NO_LEFTOVERS, AutoscalerOrder, Backend, DeploymentOrder, Leftovers, no_autoscaler
from serving.backends.preparation import made, port_of, unwritable, verify
from serving.backends.replica import ProcessReplica
from serving.deployment import Endpoint, Engine, Launch, Use
from serving.errors import DeploymentError, ServingError
from serving.ports import require_free
from serving.running_server import LocalServer

STOP_GRACE_S = 5.0
"""How long a server may take to end after SIGTERM before it is killed."""
_ERROR_LINES = 15


class ProcessBackend:
    """Server processes on this machine. It cannot enforce a limit of memory or a CPU quota, and refuses them."""

    name = "process"
    addressed_at_start = True

    def check(self, engine: Engine) -> str:
        """Version of the engine that is installed here; see Backend."""
        return engine.check()

    def environment(self) -> Mapping[str, Any]:
        """Nothing: servers run on this machine, which is recorded anyway."""
        return {}

    def leftovers(self) -> Leftovers:
        """None: processes of killed studies are ended by `serving.orphans`."""
        return NO_LEFTOVERS

    def autoscaled(self, autoscaler: AutoscalerOrder) -> Backend:
        """Raise ServingError: nothing adds processes by itself."""
        raise no_autoscaler(self.name)

    def alone(self) -> ProcessBackend:
        """This backend: it starts servers only."""
        return self

    def start(self, order: DeploymentOrder) -> ProcessDeployment:
        """Start replicas and return at once; see Backend.

        Nothing runs after an error: ModelError for a missing or corrupt artifact, EngineUnavailable,
        ServingError where budget or ports do not fit, DeploymentError where a port is taken or a process
        cannot start.
        """
        if order.replicas < 1:
            raise ServingError(f"{order.replicas} replicas were asked for: at least 1 is needed.")
        if order.budget.memory_bytes is not None or order.budget.cpu_quota is not None:
            raise ServingError("processes cannot be given limits of memory or CPU here: use the backend docker.")
        verify(order.engine, order.model)
        order.engine.check()
        if order.before_spawn:
            order.before_spawn()
        deployment = ProcessDeployment(order)
        try:
            deployment.scale(order.replicas)
        except BaseException:
            deployment.stop()
            raise
        return deployment


class ProcessDeployment:
    """Replicas that run as processes; see Deployment."""

    use_disturbs = False
    front_file: Path | None = None

    def __init__(self, order: DeploymentOrder) -> None:
        self.endpoints: list[Endpoint] = []
        self._order = order
        self._engine, self._model, self._events = order.engine, order.model, order.events
        self._id = uuid.uuid4().hex
        self._started = 0
        self._replicas: list[ProcessReplica] = []
        self._retired: list[ProcessReplica] = []
        self._changed = threading.Condition()

    @property
    def name(self) -> str:
        """What its processes carry in their environment."""
        return self._id

    @property
    def front(self) -> list[Endpoint]:
        """The replicas themselves: the load generator deals requests out to them."""
        return self.endpoints

    def wait_ready(self, timeout_s: float) -> None:
        """Return when every replica is ready; see Deployment."""
        with self._changed:
            self._changed.wait_for(self._settled, timeout_s)
        for replica in self._replicas:
            who = f"{self._engine.name} replica {replica.index}"
            if (code := replica.exit_code()) is not None:
                raise DeploymentError(f"{who} ended with {_exit_text(code)}.{self._last_lines(replica)}")
            if replica.failure:
                raise DeploymentError(
                    f"{who} cannot load the model ({replica.failure}): correct it, then export or import it "
                    "again."
                    f"{self._last_lines(replica)}"
                )
            if not replica.ready:
                raise DeploymentError(
                    f"{who} was not ready within {timeout_s:g} s: raise the timeout or see its log."
                    f"{self._last_lines(replica)}"
                )

    def _settled(self) -> bool:
        ended = any(replica.exit_code() is not None or replica.failure for replica in self._replicas)
        return ended or all(replica.ready for replica in self._replicas)

    def _last_lines(self, replica: ProcessReplica) -> str:
        tail = replica.tail(_ERROR_LINES)
        return f" Its log {replica.launch.workdir / 'server.log'} ends with:\n{tail}" if tail else ""

    def server(self, endpoint: Endpoint) -> LocalServer:
        """The process of the replica; see Deployment."""
        pids = [replica.pid for replica in self._replicas if replica.launch.endpoint == endpoint]
        return LocalServer(endpoint, pids[0] if pids else None)

    def alive(self) -> bool:
        """True while every replica's process runs; False when none was started or left."""
        return bool(self._replicas) and all(replica.exit_code() is None for replica in self._replicas)

    def scale(self, replicas: int) -> None:
        """Start or stop replicas, without waiting for readiness; see Deployment."""
        if replicas < 0:
            raise ServingError(f"{replicas} replicas were asked for: at least 0 are possible.")
        surplus = self._replicas[replicas:]
        self._end(surplus)
        while len(self._replicas) < replicas:
            self._add()

    def _add(self) -> None:
        launch = self._launch(len(self._replicas))
        require_free(launch.ports)
        tag = f"{self._id}/{self._started}"
        replica = ProcessReplica(
            launch.endpoint.replica, launch, self._engine, self._model, tag, self._events, self._changed
        )
        self._started += 1
        self._replicas.append(replica)  # before it runs, so that an interrupt in between is cleaned up too
        self.endpoints.append(launch.endpoint)
        replica.spawn(self._order.budget.cpus)

    def _launch(self, index: int) -> Launch:
        order, port = self._order, port_of(self._order.ports, index)
        folder = made(order.workdir / f"replica-{index}")
        try:
            return order.engine.launch(order.model, index, order.budget, order.batching, folder, port)
        except OSError as error:
            raise unwritable(folder, error) from error

    def use(self) -> Use:
        """CPU of all replicas that ever ran, memory of those that run, disk of artifact and work folders."""
        usages = [replica.usage() for replica in self._replicas]
        past = [replica.usage() for replica in self._retired]
        alive = self.alive()
        throttled = [seconds for r in self._replicas if (seconds := r.throttled_s()) is not None]
        return Use(
            cpu_s=sum(usage.cpu_s for usage in usages + past),
            rss_bytes=sum(usage.rss_bytes for usage in usages) if alive else None,
            rss_peak_bytes=sum(usage.rss_peak_bytes for usage in usages or past),
            disk_bytes=self._disk_bytes(),
            disk_read_bytes=sum(usage.disk_read_bytes for usage in usages + past),
            disk_written_bytes=sum(usage.disk_written_bytes for usage in usages + past),
            threads=sum(usage.threads for usage in usages) if alive else None,
            swap_bytes=sum(usage.swap_bytes for usage in usages) if alive else None,
            throttled_s=max(throttled, default=None) if alive else None,  # processes here share a control group
        )

    def cpu_s(self) -> float | None:
        """CPU of all replicas that ever ran; see Deployment."""
        return sum(replica.usage().cpu_s for replica in [*self._replicas, *self._retired])

    def _disk_bytes(self) -> int | None:
        try:
            artifact = getattr(self._model.manifest, self._engine.artifact)
            folders = [folder for replica in self._replicas for folder in replica.folders()]
            return size_of(self._model.path / artifact.path) + sum(map(size_of, folders))
        except OSError:  # a file went while it was measured
            return None

    def cpu_elsewhere_s(self) -> float:
        """0: every replica descends from this process."""
        return 0.0

    def logs(self, lines: int = 20) -> str:
        """The last lines that each replica wrote."""
        return "\n".join(
            f"[replica {replica.index}] {line}"
            for replica in self._replicas or self._retired
            for line in replica.tail(lines).splitlines()
        )

    def records(self) -> dict[str, str]:
        """None: everything is in the events and the logs."""
        return {}

    def stop(self) -> None:
        """Terminate what was started and wait for it to be gone, also through Ctrl-C; see Deployment."""
        self._end(list(self._replicas))

    def _end(self, replicas: list[ProcessReplica]) -> None:
        asked = interrupted = done = False
        while not done:
            try:
                if not asked:
                    asked = True
                    _ask_to_end(replicas)
                for replica in self._left(replicas):
                    self._destroy(replica)
                done = True
            except KeyboardInterrupt:  # an impatient second Ctrl-C must not leave a server behind
                interrupted = True
        if interrupted:
            raise KeyboardInterrupt

    def _left(self, replicas: list[ProcessReplica]) -> list[ProcessReplica]:
        return [replica for replica in replicas if replica in self._replicas]

    def _destroy(self, replica: ProcessReplica) -> None:
        replica.destroy()
        self._events.add("stopped", replica.index)
        if replica.launch.endpoint in self.endpoints:
            self.endpoints.remove(replica.launch.endpoint)
        self._retired.append(replica)
        self._replicas.remove(replica)

    def __enter__(self) -> ProcessDeployment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _ask_to_end(replicas: list[ProcessReplica]) -> None:
    """SIGTERM to all of them together, then one grace period for all."""
    for replica in replicas:
        replica.terminate()
    deadline = time.monotonic() + STOP_GRACE_S
    for replica in replicas:
        replica.wait(deadline - time.monotonic())


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
