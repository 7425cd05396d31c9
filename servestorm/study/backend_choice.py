"""Where the plan's servers run, and where its load comes from."""

from __future__ import annotations

from servestorm.plan.study_plan import DockerPlan, KubernetesPlan, Plan
from servestorm.study.cores import Cores
from servestorm.study.generator_cluster import ClusterGenerator
from servestorm.study.generator_local import LocalGenerator
from servestorm.study.load import Generator
from serving.backends import BACKENDS, DockerBackend, KubernetesBackend
from serving.backends.docker.leftovers import counted
from serving.backends.docker.project import ProjectBackend
from serving.backends.docker.settings import DockerSettings
from serving.backends.kubernetes.leftovers import counted as counted_releases
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Backend


def remove_leftovers(backend: Backend) -> str:
    """What was removed of the leftovers, counted in words; '' for nothing."""
    if isinstance(backend, DockerBackend) and (left := backend.leftovers()):
        backend.remove(left)
        return counted(left)
    if isinstance(backend, KubernetesBackend) and (stale := backend.leftovers()):
        backend.remove(stale)
        return counted_releases(stale)
    return ""


def backend_of(plan: Plan, cores: Cores, keep: bool = False) -> Backend:
    """Where the plan's engines run. `keep` leaves a release where it failed."""
    if plan.backend == "kubernetes":
        return _kubernetes(plan, plan.kubernetes or KubernetesPlan(), keep)
    if plan.backend == "docker":
        return _docker(plan.docker or DockerPlan(), cores)
    if plan.backend == "attach":
        from serving.backends.attach import Address, AttachBackend

        return AttachBackend(
            {engine: [Address(**place.model_dump()) for place in places] for engine, places in plan.attach.items()}
        )
    return BACKENDS[plan.backend]


def generator_of(plan: Plan, backend: Backend) -> Generator:
    """Where the plan's load comes from."""
    if plan.load_from == "cluster" and isinstance(backend, KubernetesBackend):
        return ClusterGenerator(backend)
    pods_change = plan.backend == "kubernetes" and (plan.kubernetes or KubernetesPlan()).reach == "pods"
    return LocalGenerator(follows=pods_change)


def _kubernetes(plan: Plan, said: KubernetesPlan, keep: bool) -> Backend:
    return KubernetesBackend(
        KubernetesSettings(
            context=said.context,
            namespace=said.namespace,
            images={str(name): reference for name, reference in said.images.items()},
            registry=said.registry,
            model_image=said.model_image,
            values=tuple(said.values),
            reach=said.reach,
            balancer=said.balancer,
            agents=said.agents if plan.load_from == "cluster" else 0,
            keep=keep,
        )
    )


def _docker(said: DockerPlan, cores: Cores) -> Backend:
    settings = DockerSettings(
        images={str(name): reference for name, reference in said.images.items()},
        reach=said.reach,
        balancer=said.balancer,
        balancer_cpus=cores.generator,
        bake=said.bake,
    )
    return ProjectBackend(said.project, settings) if said.project else DockerBackend(settings)
