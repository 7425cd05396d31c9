"""Runs replicas as containers of a Docker Engine, each with a CPU quota and a memory limit of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.manifest import ModelDir
from serving.backends.docker import leftovers as own
from serving.backends.docker.balancer import image_of
from serving.backends.docker.deployment import DockerDeployment
from serving.backends.docker.engine import connect, describe, require_image
from serving.backends.docker.settings import DockerSettings
from serving.backends.preparation import verify
from serving.deployment import Batching, Budget, Engine, EventLog
from serving.errors import ServingError


class DockerBackend:
    """Containers on a network of their own. Nothing of Docker is needed before something is asked of it."""

    name = "docker"

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

    def describe(self) -> dict[str, Any]:
        """The Docker Engine, for environment.json."""
        return describe(self.client)

    def leftovers(self) -> list[own.Leftover]:
        """What killed studies left on the engine."""
        return own.leftovers(self.client)

    def remove(self, found: list[own.Leftover]) -> None:
        """Remove leftovers."""
        own.remove(self.client, found)

    def _reference(self, engine: Engine) -> str:
        return self.settings.images.get(engine.name) or engine.image

    def start(
        self,
        engine: Engine,
        model: ModelDir,
        *,
        replicas: int,
        budget: Budget,
        batching: Batching,
        workdir: Path,
        events: EventLog,
        ports: Sequence[int] | None = None,
        before_spawn: Callable[[], None] | None = None,
    ) -> DockerDeployment:
        """Start replicas and return at once; see Backend. `ports` are published on 127.0.0.1 whatever `reach` is.

        Nothing runs after an error: ModelError for a missing or corrupt artifact, EngineUnavailable where no engine
        or image is here, ServingError where ports do not fit, DeploymentError where Docker refuses something.
        """
        if replicas < 1:
            raise ServingError(f"{replicas} replicas were asked for: at least 1 is needed.")
        verify(engine, model)
        reference = self._reference(engine)
        deployment = DockerDeployment(
            self.client, self.settings, engine, model, budget, batching, Path(workdir), events, ports
        )
        try:
            deployment.prepare(reference)
            if before_spawn:
                before_spawn()
            deployment.scale(replicas)
        except BaseException:
            deployment.stop()
            raise
        return deployment
