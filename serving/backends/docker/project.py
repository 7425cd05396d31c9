"""Speaks to the containers of a compose project that runs already: nothing is started, stopped or scaled there.

Unlike endpoints that run elsewhere, containers can be looked into: what they use, write, and whether they run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.manifest import ModelDir
from serving.backend import NO_LEFTOVERS, AutoscalerOrder, Backend, DeploymentOrder, Leftovers, no_autoscaler
from serving.backends.attach import AttachedDeployment
from serving.backends.container_use import ContainerUse, total, use_of
from serving.backends.docker.engine import asking, connect, describe
from serving.backends.docker.replica import log_of, printed_by
from serving.backends.docker.settings import BALANCER, DockerSettings
from serving.backends.docker.use import Group, of_statistics, with_processes
from serving.backends.preparation import made
from serving.deployment import ContainerLaunch, Endpoint, Engine, Use
from serving.errors import DeploymentError, ServingError
from serving.ports import HOST
from serving.running_server import ContainerServer

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


class ProjectBackend:
    """The containers of a compose project, by the engines' names as its services have them."""

    name = "docker"
    addressed_at_start = True

    def __init__(self, project: str, settings: DockerSettings) -> None:
        self.project, self.settings = project, settings

    @functools.cached_property
    def client(self) -> Any:
        """Docker's client; raises EngineUnavailable where no engine can be asked."""
        return connect()

    def check(self, engine: Engine) -> str:
        """The image that the project's service runs; raises DeploymentError where it does not run."""
        container = self._containers(engine.name)[0]
        # The name it was started with: one image may have several.
        named = container.attrs["Config"]["Image"]
        return f"image {named} ({str(container.image.id)[:19]}) in project {self.project}"

    def environment(self) -> Mapping[str, Any]:
        """The Docker Engine."""
        return {"docker_engine": describe(self.client)}

    def leftovers(self) -> Leftovers:
        """None: nothing was started in the project."""
        return NO_LEFTOVERS

    def autoscaled(self, autoscaler: AutoscalerOrder) -> Backend:
        """Raise ServingError: a project that runs already is left as it is."""
        raise no_autoscaler(self.name)

    def alone(self) -> ProjectBackend:
        """This backend: it starts nothing."""
        return self

    def _containers(self, service: str) -> list[Any]:
        labels = [f"{_PROJECT}={self.project}", f"{_SERVICE}={service}"]
        with asking(f"look for project {self.project}"):
            containers = self.client.containers.list(filters={"label": labels})
        if not containers:
            raise DeploymentError(
                f"no container of service {service} runs in compose project {self.project}: start it with `docker "
                "compose up`, or look for the project's name with `docker compose ls`."
            )
        return sorted(containers, key=lambda container: str(container.name))

    def start(self, order: DeploymentOrder) -> ProjectDeployment:
        """Take the service's containers as they are; budget, batching and ports are whatever they were started with.

        Raises DeploymentError where none runs, ServingError where another number than the order's replicas does.
        """
        engine, replicas = order.engine, order.replicas
        containers = self._containers(engine.name)
        if len(containers) != replicas:
            raise ServingError(
                f"project {self.project} runs {len(containers)} of {engine.name} where the plan says "
                f"{replicas}: set docker.replicas, or `docker compose up --scale {engine.name}={replicas}`."
            )
        unused = made(Path(order.workdir) / "unused")
        launch = engine.contain(order.model, order.budget, order.batching, unused)
        endpoints = [self._endpoint(container, index, launch) for index, container in enumerate(containers)]
        front = None
        if self.settings.balancer != "none":
            front = self._endpoint(self._containers(BALANCER)[0], 0, launch)
            order.events.add("balancer_ready", detail=f"haproxy of project {self.project} at {front.rest_url}")
        return ProjectDeployment(engine, order.model, endpoints, self.client, containers, front, launch.management_port)

    def _endpoint(self, container: Any, index: int, launch: ContainerLaunch) -> Endpoint:
        """Where a container is reached; the balancer's ports are the servers' own."""
        attributes = container.attrs["NetworkSettings"]
        own = next((one["IPAddress"] for one in attributes["Networks"].values() if one.get("IPAddress")), None)

        def address(port: int) -> str:
            if self.settings.reach == "direct" and own:
                return f"{own}:{port}"
            for place in attributes["Ports"].get(f"{port}/tcp") or []:
                return f"{HOST}:{place['HostPort']}"
            raise ServingError(f"{container.name} publishes no port {port}: set docker.reach to direct.")

        return launch.endpoint(index, address)


class ProjectDeployment(AttachedDeployment):
    """Containers that run already; see Deployment."""

    def __init__(
        self,
        engine: Engine,
        model: ModelDir,
        endpoints: list[Endpoint],
        client: Any,
        containers: list[Any],
        front: Endpoint | None,
        management_port: int | None,
    ) -> None:
        super().__init__(engine, model, endpoints)
        self._client, self._containers, self._front = client, containers, front
        self._management_port = management_port

    @property
    def front(self) -> list[Endpoint]:
        """The project's balancer where the plan asks for it, else the replicas."""
        return [self._front] if self._front else self.endpoints

    def server(self, endpoint: Endpoint) -> ContainerServer:
        """The container of the replica; see Deployment."""
        container = self._containers[endpoint.replica]
        return ContainerServer(lambda command: printed_by(container, command), self._management_port)

    def alive(self) -> bool:
        """True while every container runs."""
        with asking("look after the containers"):
            for container in self._containers:
                container.reload()
        return all(container.status == "running" for container in self._containers)

    def use(self) -> Use:
        """What the containers have used since they were started."""
        used = total(self._used(container) for container in self._containers)
        return use_of(used, used, alive=True, disk_bytes=None)

    def _used(self, container: Any) -> ContainerUse:
        with asking(f"tell what {container.name} uses"):
            statistics = of_statistics(self._client.api.stats(container.id, stream=False, one_shot=True))
        return with_processes(statistics, _group(container))

    def cpu_s(self) -> float | None:
        """CPU of the containers since they were started; see Deployment."""
        groups = [_group(container) for container in self._containers]
        known = [seconds for group in groups if group and (seconds := group.cpu_s()) is not None]
        return sum(known) if len(known) == len(groups) else self.use().cpu_s

    def cpu_elsewhere_s(self) -> float | None:
        """CPU seconds of the servers' containers; the project's others count as other programs."""
        return self.cpu_s()

    def logs(self, lines: int = 20) -> str:
        """The last lines that each container wrote."""
        return "\n".join(
            f"[{container.name}] {line}"
            for container in self._containers
            for line in log_of(container, lines).splitlines()
        )


def _group(container: Any) -> Group | None:
    return Group.of(int(container.attrs["State"].get("Pid") or 0), str(container.id))
