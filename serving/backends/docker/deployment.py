"""A deployment of the docker backend: replicas as containers on a network of their own, always torn down."""

from __future__ import annotations

import stat
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from models.manifest import ModelDir, size_of
from serving.backend import DeploymentOrder
from serving.backends.container_use import ContainerUse, total, use_of
from serving.backends.docker import leftovers as own
from serving.backends.docker.bake import bake
from serving.backends.docker.balancer import Balancer, start_balancer
from serving.backends.docker.engine import asking, brings_init, require_image
from serving.backends.docker.replica import ContainerReplica
from serving.backends.docker.settings import DockerSettings, server_settings
from serving.backends.interrupts import through_interrupts
from serving.backends.preparation import made, port_of
from serving.deployment import Endpoint, Engine, Use
from serving.errors import DeploymentError, ServingError
from serving.ports import free_ports, require_free
from serving.running_server import ContainerServer

STOP_GRACE_S = 5.0
"""How long a server may take to end after SIGTERM before it is killed."""
_ERROR_LINES = 15
_MIB = 1024 * 1024


class DockerDeployment:
    """Replicas that run as containers; see Deployment."""

    use_disturbs = False
    front_file: Path | None = None

    def __init__(self, client: Any, settings: DockerSettings, order: DeploymentOrder) -> None:
        self.endpoints: list[Endpoint] = []
        self._client, self._settings = client, settings
        self._engine, self._model, self._budget, self._batching = (
            order.engine,
            order.model,
            order.budget,
            order.batching,
        )
        self._workdir, self._events, self._ports = Path(order.workdir), order.events, order.ports
        self._id = uuid.uuid4().hex[:12]
        self._labels = own.labels(self._id)
        self._network = f"servestorm-{self._id}"
        self._image: Any = None
        self._created = 0
        self._replicas: list[ContainerReplica] = []
        self._retired: list[ContainerReplica] = []
        self._balancer: Balancer | None = None
        self._gone = False
        self._changed = threading.Condition()

    @property
    def name(self) -> str:
        """Its network's name, with which those of its containers begin."""
        return self._network

    def prepare(self, reference: str) -> None:
        """Get or build the image, and make the network. Raises EngineUnavailable and DeploymentError."""
        image = require_image(self._client, reference)
        if self._settings.bake:
            self._events.add("image_build", detail=reference)
            image = bake(self._client, reference, self._engine, self._model, self._labels, self._id)
            self._events.add("image_built", detail=str(image.id)[:19])
        else:
            _require_readable(self._model, self._engine)
        self._image = image
        self._events.add("image_present", detail=f"{reference} {str(image.id)[:19]}")
        with asking("make a network"):
            self._client.networks.create(self._network, driver="bridge", labels=self._labels, check_duplicate=True)

    @property
    def front(self) -> list[Endpoint]:
        """The balancer where one stands in front of several replicas, else the replicas; see Deployment."""
        return [self._balancer.endpoint] if self._balancer else self.endpoints

    def scale(self, replicas: int) -> None:
        """Start or stop replicas, without waiting for readiness; see Deployment."""
        if replicas < 0:
            raise ServingError(f"{replicas} replicas were asked for: at least 0 are possible.")
        if replicas != len(self._replicas):
            self._drop_balancer()
        surplus = self._replicas[replicas:]
        self._retire(surplus)
        while len(self._replicas) < replicas:
            self._add()

    def _add(self) -> None:
        index = len(self._replicas)
        config = made(made(self._workdir / f"replica-{index}") / "config")
        launch = self._engine.contain(self._model, self._budget, self._batching, config)
        _open_to_readers(config)
        published = self._published(launch.ports(), index)
        settings = server_settings(
            launch,
            self._budget,
            model=None if self._settings.bake else (self._model.name, self._model.path),
            published=published,
            init=not brings_init(self._image),
        )
        name = f"{self._network}-{self._engine.name}-{self._created}"
        self._created += 1
        with asking(f"create {self._engine.name} replica {index}"):
            container = self._client.containers.create(
                self._image.id, name=name, network=self._network, labels=self._labels, **settings
            )
        self._events.add("created", index, str(container.id)[:12])
        replica = ContainerReplica(
            index, container, self._client, launch, self._engine, self._model, published, self._events, self._changed
        )
        self._replicas.append(replica)  # before it runs, so that an interrupt in between is cleaned up too
        self.endpoints.append(replica.start())

    def _published(self, inside: tuple[int, ...], index: int) -> dict[int, int]:
        """Ports of 127.0.0.1 for those of the container; none where it is reached at its own address."""
        if self._settings.reach == "direct" and self._ports is None:
            return {}
        first, *others = free_ports(len(inside))
        outside = [port_of(self._ports, index) or first, *others]
        require_free(outside)
        return dict(zip(inside, outside, strict=True))

    def wait_ready(self, timeout_s: float) -> None:
        """Return when every replica, and the balancer where there is one, is ready; see Deployment."""
        with self._changed:
            self._changed.wait_for(self._settled, timeout_s)
        for replica in self._replicas:
            if fault := self._fault(replica, timeout_s):
                tail = replica.tail(_ERROR_LINES)
                raise DeploymentError(fault + (f" Its log ends with:\n{tail}" if tail else ""))
        if self._settings.balancer != "none" and len(self._replicas) > 1 and self._balancer is None:
            self._balance()

    def _settled(self) -> bool:
        ended = any(r.exit_code() is not None or r.failure or r.out_of_memory for r in self._replicas)
        return ended or all(replica.ready for replica in self._replicas)

    def _fault(self, replica: ContainerReplica, timeout_s: float) -> str | None:
        """Why the replica is not ready, in a sentence."""
        who = f"{self._engine.name} replica {replica.index}"
        if replica.out_of_memory:
            limit = self._budget.memory_bytes
            cause = f"its memory limit of {limit / _MIB:,.0f} MiB" if limit else "want of memory"
            return f"{who} was killed by the kernel for {cause}: raise `limits.memory_mib`."
        if (code := replica.exit_code()) is not None:
            return f"{who} ended with exit code {code}."
        if replica.failure:
            return f"{who} cannot load the model ({replica.failure}): correct it, then export or import it again."
        if replica.ready:
            return None
        hint = ""
        if not replica.bound and self._settings.reach == "direct":
            hint = (
                " Nothing listened at its address: where Docker's own networks cannot be reached from here (Docker "
                "Desktop, rootless Docker), set docker.reach to published."
            )
        return f"{who} was not ready within {timeout_s:g} s: raise the timeout or see its log.{hint}"

    def _balance(self) -> None:
        launch = self._replicas[0].launch
        self._balancer = start_balancer(
            self._client,
            self._settings,
            name=f"{self._network}-balancer-{self._created}",
            network=self._network,
            labels=self._labels,
            ports=(launch.rest_port, launch.grpc_port),
            rest=[replica.inside(launch.rest_port) for replica in self._replicas],
            grpc=[replica.inside(launch.grpc_port) for replica in self._replicas],
            workdir=self._workdir,
            events=self._events,
        )

    def _drop_balancer(self) -> None:
        if self._balancer:
            self._balancer.remove()
            self._balancer = None

    def server(self, endpoint: Endpoint) -> ContainerServer:
        """The container of the replica; see Deployment."""
        return next(replica.server() for replica in self._replicas if replica.endpoint == endpoint)

    def alive(self) -> bool:
        """True while every replica's container runs; False when none was started or left."""
        return bool(self._replicas) and all(replica.exit_code() is None for replica in self._replicas)

    def use(self) -> Use:
        """CPU, disk and network of all replicas that ever ran, memory of those that run; see Use."""
        running = [replica.use() for replica in self._replicas]
        ended = [replica.use() for replica in self._retired]
        return use_of(total(running or ended), total([*running, *ended]), self.alive(), self._disk_bytes())

    def cpu_s(self) -> float | None:
        """CPU of all replicas that ever ran, where one tells it; see Deployment."""
        return total(ContainerUse(cpu_s=seconds) for seconds in self._replicas_cpu_s()).cpu_s

    def cpu_elsewhere_s(self) -> float | None:
        """CPU seconds of the replicas and the balancer: containers do not descend from this process."""
        used_s = self._replicas_cpu_s()
        if any(seconds is None for seconds in used_s):
            return None
        return sum(seconds or 0.0 for seconds in used_s) + (self._balancer.cpu_s() if self._balancer else 0.0)

    def _replicas_cpu_s(self) -> list[float | None]:
        return [replica.cpu_s() for replica in [*self._replicas, *self._retired]]

    def _disk_bytes(self) -> int | None:
        try:
            artifact = getattr(self._model.manifest, self._engine.artifact)
            folders = [replica.launch.config for replica in self._replicas]
            return size_of(self._model.path / artifact.path) + sum(map(size_of, folders))
        except OSError:  # a file went while it was measured
            return None

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
        """Remove everything that the deployment made, also through Ctrl-C; see Deployment."""
        if self._gone:
            return
        through_interrupts(self._retire_all, self._sweep)
        self._gone = True

    def _retire_all(self) -> None:
        self._retire(list(self._replicas))

    def _retire(self, replicas: list[ContainerReplica]) -> None:
        """Ask all of them together to end, give them one grace period, and remove them."""
        left = [replica for replica in replicas if replica in self._replicas]
        for replica in left:
            replica.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        for replica in left:
            replica.wait(deadline - time.monotonic())
        for replica in left:
            replica.destroy()
            self._remove(replica)

    def _remove(self, replica: ContainerReplica) -> None:
        own.remove(self._client, replica.leftover())
        self._events.add("stopped", replica.index)
        if replica.endpoint in self.endpoints:
            self.endpoints.remove(replica.endpoint)
        self._retired.append(replica)
        self._replicas.remove(replica)

    def _sweep(self) -> None:
        """Whatever else carries the deployment's label: balancer, network, image, what an interrupt left half made."""
        self._balancer = None
        own.remove(self._client, own.of_deployment(self._client, self._id))

    def __enter__(self) -> DockerDeployment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _open_to_readers(folder: Path) -> None:
    """Let the container's user read the configuration: it is another user than ours."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def _require_readable(model: ModelDir, engine: Engine) -> None:
    """Raise DeploymentError where the container's user could not read the artifact, which would show much later."""
    artifact = model.path / getattr(model.manifest, engine.artifact).path
    for path in (model.path, artifact, *(artifact.rglob("*") if artifact.is_dir() else ())):
        with suppress(OSError):
            mode = path.stat().st_mode
            wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
            if mode & wanted != wanted:
                raise DeploymentError(
                    f"{path} cannot be read by the user of the containers: run `chmod -R a+rX {model.path}`."
                )
