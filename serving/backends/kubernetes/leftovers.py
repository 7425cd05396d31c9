"""Releases and namespaces that killed studies left on a cluster, and their removal.

Helm keeps a release in a secret that carries the release's labels, from before its first object is made. What has a
dead owner on this machine is a leftover; a cluster serves many machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.backend import Leftover
from serving.backends.kubernetes.cluster import Cluster, asking, forbidden
from serving.backends.kubernetes.helm import Helm
from serving.backends.kubernetes.namespace import read, remove_if_empty
from serving.backends.kubernetes.owner import MACHINE, is_left, labels, machine_label

__all__ = ["KINDS", "KubernetesLeftover", "labels", "leftovers", "remove"]

KINDS = ("release", "namespace")
"""In the order of their removal: a namespace goes only when it is empty."""


@dataclass(frozen=True)
class KubernetesLeftover(Leftover):
    """A release or a namespace that a killed study left."""

    namespace: str
    """That of the release, or the namespace itself."""

    def __str__(self) -> str:
        """Such as `release servestorm-1a2b3c in namespace servestorm`."""
        return f"{self.kind} {self.name}{f' in namespace {self.namespace}' if self.kind == 'release' else ''}"


def leftovers(cluster: Cluster, namespace: str) -> list[KubernetesLeftover]:
    """What owners of this machine that live no more left behind, in every namespace that we may look at.

    Where that is none but `namespace`, in that one. Raises DeploymentError where not even there.
    """
    secrets = _listed(
        f"list the secrets in namespace {namespace}, in which Helm keeps its releases",
        cluster.core.list_secret_for_all_namespaces,
        lambda marks: cluster.core.list_namespaced_secret(namespace, label_selector=marks).items,
        f"owner=helm,{MACHINE}={machine_label()}",
    )
    namespaces = _listed(
        f"read namespace {namespace}",
        cluster.core.list_namespace,
        lambda _: [one for one in [read(cluster, namespace)] if one],
        f"{MACHINE}={machine_label()}",
    )
    # a release has one secret for each of its revisions
    releases = {(one.metadata.labels["name"], one.metadata.namespace) for one in secrets if is_left(one)}
    left = {one.metadata.name for one in namespaces if is_left(one) and not one.metadata.deletion_timestamp}
    return [
        *(KubernetesLeftover("release", name, place) for name, place in sorted(releases)),
        *(KubernetesLeftover("namespace", name, name) for name in sorted(left)),
    ]


def _listed(
    what: str, everywhere: Callable[..., Any], here: Callable[[str], Sequence[Any]], selector: str
) -> Sequence[Any]:
    """What is labelled so: in all namespaces where that is allowed, else in the one."""
    from kubernetes.client import ApiException

    with asking(what):
        try:
            return list(everywhere(label_selector=selector).items)
        except ApiException as error:
            if not forbidden(error):
                raise
        return here(selector)


def remove(cluster: Cluster, helm: Helm, leftovers: Sequence[KubernetesLeftover]) -> None:
    """Remove them: releases by Helm, then namespaces, unless somebody else has put something into one."""
    for leftover in sorted(leftovers, key=lambda one: KINDS.index(one.kind)):
        if leftover.kind == "release":
            helm.uninstall(leftover.name, leftover.namespace)
        else:
            remove_if_empty(cluster, leftover.name)
