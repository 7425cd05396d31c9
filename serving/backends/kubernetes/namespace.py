"""The namespace of a study: made where it is absent, and never another's."""

from __future__ import annotations

import atexit
import time
from contextlib import suppress
from typing import Any

from serving.backends.kubernetes.cluster import ROLE, Cluster, asking, forbidden
from serving.backends.kubernetes.owner import is_mine, owner_labels
from serving.errors import DeploymentError, EngineUnavailable, ServingError

LABEL = ("servestorm", "studies")
"""Marks a namespace that studies may use."""
_GOING_S = 120.0
"""A namespace on its way out takes its objects' grace, and some seconds more."""
_EMPTYING_S = 30.0
_POLL_S = 0.5
_ALWAYS_THERE = {"kube-root-ca.crt", "openshift-service-ca.crt", "default"}


def claim(cluster: Cluster, name: str) -> bool:
    """See to it that studies may use the namespace `name`; True where it was made here.

    One that was made here is removed when this process ends, and not before: the next deployment of the study needs
    it again. Raises ServingError where it is another's, EngineUnavailable where it may not be made.
    """
    namespace = _settled(cluster, name)
    if namespace is None:
        if not _make(cluster, name):
            return claim(cluster, name)
        atexit.register(give_back, cluster, name)
        return True
    if (namespace.metadata.labels or {}).get(LABEL[0]) != LABEL[1]:
        raise ServingError(
            f"the namespace {name} is there already and not marked as one for studies: choose another one under "
            f"kubernetes.namespace, or mark it with `kubectl label namespace {name} {'='.join(LABEL)}`."
        )
    return False


def give_back(cluster: Cluster, name: str) -> None:
    """Remove the namespace if this process made it and nothing is in it; what cannot be removed now is a leftover."""
    with suppress(DeploymentError):
        with asking(f"read namespace {name}"):
            namespace = read(cluster, name)
        if namespace is not None and is_mine(namespace):
            remove_if_empty(cluster, name)


def remove_if_empty(cluster: Cluster, name: str) -> bool:
    """Remove the namespace unless something stays in it; its own end is the cluster's business.

    What is just being removed is waited for. Raises DeploymentError.
    """
    end = time.monotonic() + _EMPTYING_S
    with asking(f"remove namespace {name}"):
        while objects := _contents(cluster, name):
            if time.monotonic() > end or not all(_goes(item) for item in objects):
                return False
            time.sleep(_POLL_S)
        _delete(cluster, name)
    return True


def read(cluster: Cluster, name: str) -> Any:
    """The namespace (V1Namespace); None where there is none."""
    from kubernetes.client import ApiException

    try:
        return cluster.core.read_namespace(name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _settled(cluster: Cluster, name: str) -> Any:
    """The namespace, once it is not on its way out; None where there is none."""
    end = time.monotonic() + _GOING_S
    with asking(f"read namespace {name}"):
        while (namespace := read(cluster, name)) is not None and namespace.metadata.deletion_timestamp:
            if time.monotonic() > end:
                raise DeploymentError(
                    f"the namespace {name} does not come to its end: see what holds it with `kubectl describe "
                    f"namespace {name}`, or choose another one under kubernetes.namespace."
                )
            time.sleep(_POLL_S)
    return namespace


def _make(cluster: Cluster, name: str) -> bool:
    """False where somebody else made it meanwhile."""
    from kubernetes.client import ApiException, V1Namespace, V1ObjectMeta

    marks = {LABEL[0]: LABEL[1], **owner_labels()}
    with asking(f"make namespace {name}"):
        try:
            cluster.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name, labels=marks)))
        except ApiException as error:
            if error.status == 409:
                return False
            if forbidden(error):
                raise EngineUnavailable(_not_made(name)) from error
            raise
    return True


def _not_made(name: str) -> str:
    return (
        f"there is no namespace {name}, and you may not make one: have somebody run `kubectl create namespace {name}` "
        f"and `kubectl label namespace {name} {'='.join(LABEL)}`, and give you the rights in {ROLE} there."
    )


def _contents(cluster: Cluster, name: str) -> list[Any]:
    """What is in it, without what Kubernetes puts there of itself."""
    core, apps = cluster.core, cluster.apps
    looks = (
        core.list_namespaced_pod,
        core.list_namespaced_service,
        core.list_namespaced_config_map,
        core.list_namespaced_secret,
        core.list_namespaced_persistent_volume_claim,
        core.list_namespaced_service_account,
        apps.list_namespaced_deployment,
        apps.list_namespaced_stateful_set,
    )
    return [item for look in looks for item in look(name).items if item.metadata.name not in _ALWAYS_THERE]


def _goes(item: Any) -> bool:
    """Whether it is on its way out; a pod goes after what controls it, which is looked at itself."""
    return bool(item.metadata.deletion_timestamp or item.metadata.owner_references)


def _delete(cluster: Cluster, name: str) -> None:
    from kubernetes.client import ApiException

    try:
        cluster.core.delete_namespace(name)
    except ApiException as error:
        if error.status not in (404, 409):
            raise
