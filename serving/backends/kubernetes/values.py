"""Values of the chart for one deployment of a study: the same limits and threads whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.manifest import ModelDir
from serving.backend import AutoscalerOrder
from serving.backends.kubernetes.settings import (
    BALANCER,
    DEFAULT_CPUS,
    DEFAULT_MEMORY_MIB,
    KubernetesSettings,
)
from serving.containers import OURS, image
from serving.deployment import Batching, Budget, Engine

_MIB = 1024**2
SHORT_DRAIN = {"beforeStopSeconds": 0, "finishSeconds": 3}
"""Of a study's pods, to which nobody sends anything when they go."""


def values_of(
    settings: KubernetesSettings,
    engine: Engine,
    model: ModelDir,
    budget: Budget,
    batching: Batching,
    replicas: int,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a study sets itself, over the chart's own values and the plan's files; `annotations` go to the pods.

    `budget.cpus` means nothing in a cluster: a scheduler chooses the node, and a quota holds there.
    """
    limits = {"cpu": _cpus(budget.cpu_quota), "memory": _memory(budget.memory_bytes)}
    values: dict[str, Any] = {
        "engine": engine.name,
        "models": [{"name": model.name, "source": {"image": _model_image(settings, model)}}],
        "replicas": replicas,
        "resources": {"requests": dict(limits), "limits": dict(limits)},
        "threads": budget.threads,
        "workers": 1,
        "batching": {
            "maxSize": batching.max_batch_size,
            "timeoutMicros": batching.timeout_us,
            "queueSize": batching.queue_size,
        },
        "warmup": budget.warmup,
        # a capacity search overloads a server on purpose: to be started again for it would be its end
        "probes": {"liveness": {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 60}},
        # with a balancer a study always goes through it, or one replica and two would differ by more than a replica
        "balancer": {"mode": "always" if settings.balancer == BALANCER else "never", "replicas": 1},
        # what a study does not need, it needs no right for either
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "podAnnotations": dict(annotations or {}),
        "images": {"registry": settings.registry} | _images(settings),
        "autoscaling": {"enabled": False} if settings.autoscaling is None else _autoscaling(settings.autoscaling),
        "load": _load(settings),
    }
    if settings.autoscaling is None:
        # nobody sends anything to a study's pods when they go
        values["drain"] = dict(SHORT_DRAIN)
    return values


def server_image(settings: KubernetesSettings, engine: Engine) -> str:
    """Reference of the engine's image, with the registry that the chart puts before our own."""
    reference = settings.images.get(engine.name) or engine.image
    behind = settings.registry and reference.startswith(OURS)
    return f"{settings.registry.removesuffix('/')}/{reference}" if behind else reference


def _model_image(settings: KubernetesSettings, model: ModelDir) -> dict[str, str]:
    return split_reference(settings.model_image or image(f"models-{model.name}"))


def _images(settings: KubernetesSettings) -> dict[str, dict[str, str]]:
    return {name: split_reference(reference) for name, reference in settings.images.items()}


def split_reference(reference: str) -> dict[str, str]:
    """As the chart takes an image: a tag is what follows a colon after the last slash, a digest an at sign."""
    name, _, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return {"repository": f"{folder}{slash}{base}", "tag": tag, "digest": digest}


def _cpus(quota: float | None) -> str:
    return f"{round((DEFAULT_CPUS if quota is None else quota) * 1000)}m"


def _memory(limit_bytes: int | None) -> str:
    return f"{DEFAULT_MEMORY_MIB}Mi" if limit_bytes is None else f"{limit_bytes // _MIB}Mi"


def _autoscaling(scaling: AutoscalerOrder) -> dict[str, Any]:
    return {
        "enabled": True,
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "targets": {
            "cpuPercent": scaling.cpu_percent,
            "requestsInFlight": None,
            "requestsQueued": None,
            "requestsPerSecond": None,
        },
        "scaleUp": {"stabilizationSeconds": scaling.scale_up_stabilization_s},
        "scaleDown": {
            "stabilizationSeconds": scaling.scale_down_stabilization_s,
            "pods": 1,
            "periodSeconds": scaling.scale_down_period_s,
        },
    }


def _load(settings: KubernetesSettings) -> dict[str, Any]:
    """Idle pods of the generator, or none."""
    if not settings.agents or settings.alone:
        return {"enabled": False}
    return {"enabled": True, "mode": "agents", "workers": settings.agents, "checkAnswers": True}
