"""Runs replicas as pods of a release of the chart, each with a CPU quota and a memory limit of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from serving.backend import AutoscalerOrder, DeploymentOrder, Leftovers
from serving.backends.kubernetes import leftovers as own
from serving.backends.kubernetes.access import require_access
from serving.backends.kubernetes.cluster import Cluster
from serving.backends.kubernetes.deployment import KubernetesDeployment
from serving.backends.kubernetes.helm import Helm, chart_folder
from serving.backends.kubernetes.namespace import claim
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.backends.kubernetes.values import server_image
from serving.backends.preparation import verify
from serving.deployment import Engine
from serving.errors import ServingError


class KubernetesBackend:
    """Releases in one namespace of a cluster. Nothing of it is needed before something is asked of it."""

    name = "kubernetes"
    addressed_at_start = False

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

    def autoscaled(self, autoscaler: AutoscalerOrder) -> KubernetesBackend:
        """The same backend on the same cluster, whose deployments scale themselves."""
        return self._with(replace(self.settings, autoscaling=autoscaler))

    def alone(self) -> KubernetesBackend:
        """The same backend on the same cluster, whose deployments have no load agents beside them."""
        return self._with(replace(self.settings, alone=True)) if self.settings.agents else self

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
        """The cluster and helm. Raises DeploymentError."""
        major, minor = self.helm.version
        uncertainty_ns = self.cluster.clock.uncertainty_ns
        return {
            **self.cluster.describe(),
            "helm": f"{major}.{minor}",
            "clock_uncertainty_ms": None if uncertainty_ns is None else uncertainty_ns / 1e6,
        }

    def environment(self) -> Mapping[str, Any]:
        """The cluster and helm."""
        return {"kubernetes": self.describe()}

    def leftovers(self) -> Leftovers:
        """Releases and namespaces of killed studies on the cluster."""
        items = own.leftovers(self.cluster, self.settings.namespace)
        return Leftovers(items, lambda: own.remove(self.cluster, self.helm, items))

    def start(self, order: DeploymentOrder) -> KubernetesDeployment:
        """Install a release and return at once; see Backend. `budget.cpus` means nothing there and is ignored.

        Nothing stays after an error, unless the settings say `keep`: ModelError for a missing or corrupt artifact,
        EngineUnavailable where cluster, helm or rights are missing, ServingError where the namespace is another's or
        the chart refuses a value, DeploymentError where the cluster refuses something.
        """
        if order.replicas < 1:
            raise ServingError(f"{order.replicas} replicas were asked for: at least 1 is needed.")
        if order.ports is not None:
            raise ServingError("ports were given, which pods have no use for: each has an address of its own.")
        verify(order.engine, order.model)
        claim(self.cluster, self.settings.namespace)
        deployment = KubernetesDeployment(self.cluster, self.helm, self.settings, order)
        try:
            if order.before_spawn:
                order.before_spawn()
            deployment.install(order.replicas)
        except BaseException as error:
            if self.settings.keep and isinstance(error, ServingError):
                deployment.keep(error)
            else:
                deployment.stop()
            raise
        return deployment
