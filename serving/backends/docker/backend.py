"""Runs replicas as containers of a Docker Engine, each with a CPU quota and a memory limit of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from serving.backend import AutoscalerOrder, Backend, DeploymentOrder, Leftovers, no_autoscaler
from serving.backends.docker import leftovers as own
from serving.backends.docker.balancer import image_of
from serving.backends.docker.deployment import DockerDeployment
from serving.backends.docker.engine import connect, describe, require_image
from serving.backends.docker.settings import DockerSettings
from serving.backends.preparation import verify
from serving.deployment import Engine
from serving.errors import ServingError


class DockerBackend:
    """Containers on a network of their own. Nothing of Docker is needed before something is asked of it."""

    name = "docker"
    addressed_at_start = True

    def __init__(self, settings: DockerSettings | None = None) -> None:
        self.settings = settings or DockerSettings()

    @functools.cached_property
    def client(self) -> Any:
        """Docker's client; raises EngineUnavailable where no engine can be asked."""
        return connect()

    def check(self, engine: Engine) -> str:
        """The engine's image, pulled first where it must be; see Backend."""
        if self.settings.balancer != "none":
            require_image(self.client, image_of(self.settings))
        reference = self._reference(engine)
        digest = str(require_image(self.client, reference).id)
        return f"image {reference} ({digest[:19]})"

    def environment(self) -> Mapping[str, Any]:
        """The Docker Engine."""
        return {"docker_engine": describe(self.client)}

    def leftovers(self) -> Leftovers:
        """Containers, networks and images of killed studies on the engine."""
        items = own.leftovers(self.client)
        return Leftovers(items, lambda: own.remove(self.client, items))

    def autoscaled(self, autoscaler: AutoscalerOrder) -> Backend:
        """Raise ServingError: nothing adds containers by itself."""
        raise no_autoscaler(self.name)

    def alone(self) -> DockerBackend:
        """This backend: it starts servers, and a balancer only in front of several."""
        return self

    def _reference(self, engine: Engine) -> str:
        return self.settings.images.get(engine.name) or engine.image

    def start(self, order: DeploymentOrder) -> DockerDeployment:
        """Start replicas and return at once; see Backend. Ports that are given are published on 127.0.0.1.

        Nothing runs after an error: ModelError for a missing or corrupt artifact, EngineUnavailable where no engine
        or image is here, ServingError where ports do not fit, DeploymentError where Docker refuses something.
        """
        if order.replicas < 1:
            raise ServingError(f"{order.replicas} replicas were asked for: at least 1 is needed.")
        verify(order.engine, order.model)
        reference = self._reference(order.engine)
        deployment = DockerDeployment(self.client, self.settings, order)
        try:
            deployment.prepare(reference)
            if order.before_spawn:
                order.before_spawn()
            deployment.scale(order.replicas)
        except BaseException:
            deployment.stop()
            raise
        return deployment
