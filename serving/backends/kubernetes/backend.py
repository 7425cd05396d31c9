"""Runs replicas as pods of a release of the chart, each with a CPU quota and a memory limit of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.manifest import ModelDir
from serving.backends.kubernetes import leftovers as own
from serving.backends.kubernetes.access import require_access
from serving.backends.kubernetes.cluster import Cluster
from serving.backends.kubernetes.deployment import KubernetesDeployment
from serving.backends.kubernetes.helm import Helm, chart_folder
from serving.backends.kubernetes.namespace import claim
from serving.backends.kubernetes.settings import Autoscaling, KubernetesSettings
from serving.backends.kubernetes.values import server_image
from serving.backends.preparation import verify
from serving.deployment import Batching, Budget, Engine, EventLog
from serving.errors import ServingError


class KubernetesBackend:
    """Releases in one namespace of a cluster. Nothing of it is needed before something is asked of it."""

    name = "kubernetes"

    def __init__(self, settings: KubernetesSettings | None = None) -> None:
        self.settings = settings or KubernetesSettings()

    @functools.cached_property
    def cluster(self) -> Cluster:
        """Raises EngineUnavailable where none answers."""
        return Cluster.connect(self.settings.context)

    @functools.cached_property
    def helm(self) -> Helm:
        """Helm for the same cluster."""
        return Helm(self.cluster.kube_context)

    def autoscaled(self, scaling: Autoscaling) -> KubernetesBackend:
        """The same backend on the same cluster, whose deployments scale themselves."""
        return self._with(replace(self.settings, autoscaling=scaling))

    def alone(self) -> KubernetesBackend:
        """The same backend on the same cluster, whose deployments have no load agents beside them."""
        return self._with(replace(self.settings, alone=True))

    def _with(self, settings: KubernetesSettings) -> KubernetesBackend:
        other = KubernetesBackend(settings)
        other.__dict__.update({name: made for name, made in self.__dict__.items() if name in ("cluster", "helm")})
        return other

    def check(self, engine: Engine) -> str:
        """The engine's image and the cluster that will run it, whose rights, helm and chart are here; see Backend."""
        cluster = self.cluster
        assert self.helm.version
        chart_folder()
        require_access(cluster, self.settings)
        reference = server_image(self.settings, engine)
        return f"image {reference} in Kubernetes {cluster.version}, context {cluster.context}"

    def describe(self) -> dict[str, Any]:
        """The cluster and helm, for environment.json. Raises DeploymentError."""
        major, minor = self.helm.version
        uncertainty_ns = self.cluster.clock.uncertainty_ns
        return {
            **self.cluster.describe(),
            "helm": f"{major}.{minor}",
            "clock_uncertainty_ms": None if uncertainty_ns is None else uncertainty_ns / 1e6,
        }

    def leftovers(self) -> list[own.Leftover]:
        """What killed studies left on the cluster."""
        return own.leftovers(self.cluster, self.settings.namespace)

    def remove(self, found: list[own.Leftover]) -> None:
        """Remove leftovers."""
        own.remove(self.cluster, self.helm, found)

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
    ) -> KubernetesDeployment:
        """Install a release and return at once; see Backend. `budget.cpus` means nothing there and is ignored.

        Nothing stays after an error, unless the settings say `keep`: ModelError for a missing or corrupt artifact,
        EngineUnavailable where cluster, helm or rights are missing, ServingError where the namespace is another's or
        the chart refuses a value, DeploymentError where the cluster refuses something.
        """
        if replicas < 1:
            raise ServingError(f"{replicas} replicas were asked for: at least 1 is needed.")
        if ports is not None:
            raise ServingError("ports were given, which pods have no use for: each has an address of its own.")
        verify(engine, model)
        claim(self.cluster, self.settings.namespace)
        deployment = KubernetesDeployment(
            self.cluster, self.helm, self.settings, engine, model, budget, batching, Path(workdir), events
        )
        try:
            if before_spawn:
                before_spawn()
            deployment.install(replicas)
        except BaseException as error:
            if self.settings.keep and isinstance(error, ServingError):
                deployment.keep(error)
            else:
                deployment.stop()
            raise
        return deployment
