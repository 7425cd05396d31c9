"""Where the plan's servers run, and where its load comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servestorm.plan.deployments import Attached
from servestorm.plan.study_plan import DockerPlan, KubernetesPlan, Plan
from servestorm.study.cores import Cores
from servestorm.study.generator_cluster import ClusterGenerator
from servestorm.study.generator_local import LocalGenerator
from servestorm.study.load import LoadSource
from serving.backend import Backend
from serving.backends import BACKENDS, DockerBackend, KubernetesBackend
from serving.backends.docker.project import ProjectBackend
from serving.backends.docker.settings import DockerSettings
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.headers import Headers


@dataclass(frozen=True)
class BackendChoice:
    """Where a study's servers run, and where its load comes from."""

    backend: Backend
    generator: LoadSource


def choose_backend(plan: Plan, cores: Cores, keep: bool = False) -> BackendChoice:
    """As the plan says. `keep` leaves a release where it failed."""
    if plan.backend == "kubernetes":
        backend = _kubernetes(plan, plan.kubernetes or KubernetesPlan(), keep)
        inside = plan.load_from == "cluster"
        generator = ClusterGenerator(backend) if inside else LocalGenerator(follows=backend.settings.reach == "pods")
        return BackendChoice(backend, generator)
    return BackendChoice(_other_backend(plan, cores), LocalGenerator())


def _other_backend(plan: Plan, cores: Cores) -> Backend:
    if plan.backend == "docker":
        return _docker(plan.docker or DockerPlan(), cores)
    if plan.backend == "attach":
        from serving.backends.attach import AttachBackend, ReplicaAddress

        def address(place: Attached) -> ReplicaAddress:
            return ReplicaAddress(
                place.rest,
                place.grpc,
                place.metrics,
                place.management,
                headers=_headers(place.headers),
                metrics_headers=None if place.metrics_headers is None else _headers(place.metrics_headers),
                management_headers=None if place.management_headers is None else _headers(place.management_headers),
            )

        return AttachBackend({engine: [address(place) for place in places] for engine, places in plan.attach.items()})
    return BACKENDS[plan.backend]


def _headers(written: Mapping[str, str]) -> Headers:
    return Headers.of_mapping(written, "header")


def _kubernetes(plan: Plan, section: KubernetesPlan, keep: bool) -> KubernetesBackend:
    return KubernetesBackend(
        KubernetesSettings(
            context=section.context,
            namespace=section.namespace,
            images={str(name): reference for name, reference in section.images.items()},
            registry=section.registry,
            model_image=section.model_image,
            values=tuple(section.values),
            reach=section.reach,
            balancer=section.balancer,
            agents=section.agents if plan.load_from == "cluster" else 0,
            keep=keep,
        )
    )


def _docker(section: DockerPlan, cores: Cores) -> Backend:
    settings = DockerSettings(
        images={str(name): reference for name, reference in section.images.items()},
        reach=section.reach,
        balancer=section.balancer,
        balancer_cpus=cores.generator,
        bake=section.bake,
    )
    return ProjectBackend(section.project, settings) if section.project else DockerBackend(settings)
