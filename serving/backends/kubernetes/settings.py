"""The kubernetes backend's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.backend import AutoscalerOrder

BALANCER = "haproxy"
DEFAULT_CPUS = 1.0
"""Of one replica, where the plan has no limit: both the request and the limit."""
DEFAULT_MEMORY_MIB = 2048


@dataclass(frozen=True)
class KubernetesSettings:
    """How a release is made and reached."""

    context: str | None = None
    """Of the kubeconfig; None: the current one, or the account of the pod that we run in."""
    namespace: str = "servestorm"
    images: Mapping[str, str] = field(default_factory=dict)
    """References instead of the chart's, by engine's name, `haproxy` or `generator`."""
    registry: str = ""
    """Put before our own images, servestorm/..."""
    model_image: str | None = None
    """None: servestorm/models-NAME:VERSION, as `servestorm image` makes it."""
    values: tuple[Path, ...] = ()
    """Further Helm values files; what a study sets itself goes over theirs."""
    reach: Literal["service", "pods", "port-forward"] = "service"
    balancer: Literal["none", "haproxy"] = "none"
    autoscaling: AutoscalerOrder | None = None
    agents: int = 0
    """Pods of the load generator, idle until a load is offered."""
    alone: bool = False
    """Without those pods, though load would come from them: they would start beside a server whose start is timed."""
    keep: bool = False
    """Leave a release where it failed."""
