"""The way to a Service from outside the cluster, read from the API's account of it. Nothing is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.backends.kubernetes.pods import Object


@dataclass(frozen=True)
class Way:
    """Where a Service is tried."""

    kind: str
    """LoadBalancer, NodePort or ClusterIP."""
    host: str
    ports: Mapping[int, int]
    """The Service's own ports to those of the host."""


def way_to(service: Object, node: str | None) -> Way | None:
    """The best way to a Service; `node` is the address of a node. None while a load balancer has no address yet."""
    spec = service["spec"]
    ports = {int(one["port"]): one for one in spec.get("ports") or ()}
    own = {port: port for port in ports}
    if spec.get("type") == "LoadBalancer":
        entries = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or ()
        host = next((one.get("ip") or one.get("hostname") for one in entries), None)
        return Way("LoadBalancer", host, own) if host else None
    if spec.get("type") == "NodePort" and node:
        return Way("NodePort", node, {port: int(one["nodePort"]) for port, one in ports.items()})
    return Way("ClusterIP", str(spec.get("clusterIP")), own)
