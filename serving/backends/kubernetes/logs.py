"""The last lines of a container's log, through the API."""

from __future__ import annotations

from serving.backends.kubernetes.cluster import Cluster, asking
from serving.errors import DeploymentError


def tail(cluster: Cluster, namespace: str, pod: str, container: str, lines: int, *, previous: bool = False) -> str:
    """At most so many lines; '' where there are none (any more). `previous`: of the container before this one."""
    try:
        with asking(f"read the log of pod {pod}"):
            log = cluster.core.read_namespaced_pod_log(
                pod, namespace, container=container, tail_lines=lines, previous=previous, _preload_content=False
            )
            if log.status != 200:
                return ""
            return str(log.data.decode("utf-8", "replace")).rstrip("\n")
    except DeploymentError:
        return ""
