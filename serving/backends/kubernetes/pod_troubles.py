"""Why a pod does not become ready, in sentences with the remedy. Nothing is asked here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.backends.kubernetes.pods import (
    SERVER,
    Object,
    condition,
    container_of,
    disruption,
    ending,
    image_of,
    is_lost,
    memory_limit_of,
    name_of,
    node_of,
    short,
    started_at,
    state,
)

PATIENCE_S = 15.0
"""For what the kubelet tries again by itself: a registry may have been away for a moment."""


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready, in a sentence with the remedy."""

    sentence: str
    patience_s: float = 0.0
    """For how long it may recover by itself; infinite: it is reported only when time is up."""
    container: str | None = None
    """Whose last log lines belong to it."""
    previous: bool = False


def trouble(pod: Object, who: str, warning: str | None = None) -> Trouble | None:
    """Why the pod is not ready, where that is known; `who` begins the sentence, `warning` is the pod's last warning."""
    if is_lost(pod):
        return Trouble(lost(pod, who))
    if (gone := disruption(pod)) or pod.get("status", {}).get("phase") == "Failed":
        message = short(gone.get("message") or pod["status"].get("message") or pod["status"].get("reason"))
        return Trouble(f"{who} was taken off node {node_of(pod)} ({message}): give it a node that has room for it.")
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        if cause := _init_trouble(pod, status, who):
            return cause
    return _server_trouble(pod, who) or _pending(pod, who, warning)


def lost(pod: Object, who: str) -> str:
    """The sentence for a replica whose node does not answer any more."""
    return (
        f"{who} is lost, because its node {node_of(pod)} does not answer any more: look at it with `kubectl describe "
        f"node {node_of(pod)}`, then run the study again."
    )


def _init_trouble(pod: Object, status: Object, who: str) -> Trouble | None:
    if trouble := _image_trouble(pod, status, who):
        return trouble
    end = ending(status)
    if end is None or end.code == 0:
        return None
    name, image = str(status.get("name")), image_of(pod, str(status.get("name")))
    return Trouble(
        f"{who} got no model, because its init container {name} ended with exit code {end.code}: make its image "
        f"{image} with `servestorm image`.",
        container=name,
        previous=end.previous,
    )


def _server_trouble(pod: Object, who: str) -> Trouble | None:
    status = container_of(pod)
    end = ending(status)
    if end is None:
        return _image_trouble(pod, status, who)
    if end.reason == "OOMKilled":
        limit = memory_limit_of(pod)
        cause = f"its memory limit of {limit}" if limit else "want of memory"
        return Trouble(f"{who} was killed by the kernel for {cause}: raise `limits.memory_mib`.")
    return Trouble(f"{who} ended with exit code {end.code}.", container=SERVER, previous=end.previous)


_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
_PULLING = (*_HOPELESS, "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")
_STARTING = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError")


def _image_trouble(pod: Object, status: Object, who: str) -> Trouble | None:
    waiting = state(status, "waiting")
    reason, name = str(waiting.get("reason") or ""), str(status.get("name"))
    patience_s = 0.0 if reason in _HOPELESS else PATIENCE_S
    if reason in _PULLING:
        return Trouble(
            f"the image {image_of(pod, name)} of {who} is not on node {node_of(pod)} and cannot be pulled "
            f"({short(waiting.get('message') or reason)}): load it into the cluster's nodes, push it and name the "
            "registry under `kubernetes.registry`, or name another one under `kubernetes.images`.",
            patience_s,
        )
    if reason in _STARTING:
        return Trouble(
            f"{who} cannot be started ({reason}: {short(waiting.get('message'))}): look at it with `kubectl describe "
            f"pod {name_of(pod)} --namespace {pod['metadata'].get('namespace')}`.",
            patience_s,
        )
    return None


_ROOM = ("Insufficient", "Too many pods", "exceed")
_PLACE = ("node affinity", "node selector", "untolerated taint", "had taint")


def _pending(pod: Object, who: str, warning: str | None) -> Trouble | None:
    """It may yet be placed, so it is reported only when time is up."""
    refused = condition(pod, "PodScheduled")
    if refused.get("status") == "False":
        message = str(refused.get("message") or refused.get("reason") or "no node takes it")
        if any(mark in message for mark in _ROOM):
            remedy = "lower `limits` or the number of replicas, or give the cluster a larger node"
        elif any(mark in message for mark in _PLACE):
            remedy = "set nodeSelector or tolerations in a file under `kubernetes.values`"
        else:
            remedy = f"look at it with `kubectl describe pod {name_of(pod)}`"
        return Trouble(f"{who} stays Pending ({short(message)}): {remedy}.", math.inf)
    if warning and not started_at(pod):
        return Trouble(
            f"{who} has not started ({short(warning)}): look at it with `kubectl describe pod {name_of(pod)}`.",
            math.inf,
        )
    return None


def not_created(message: str, who: str) -> Trouble:
    """Why no pod could be made, from the ReplicaSet controller's conditions."""
    if "quota" in message:
        remedy = "raise the namespace's quota, or lower `limits` or the number of replicas"
    elif "PodSecurity" in message:
        remedy = "leave out what weakens the pods' security under `kubernetes.values`"
    else:
        remedy = "change the namespace's rules, or choose another one under `kubernetes.namespace`"
    return Trouble(f"no pod of {who} may be made ({short(message)}): {remedy}.", PATIENCE_S)


def unscaled(autoscaler: Object) -> Trouble | None:
    """Why the autoscaler cannot decide; None while it can. A pod has no metrics in its first half minute."""
    active = condition(autoscaler, "ScalingActive")
    if active.get("status") == "True":
        return None
    message = str(active.get("message") or "it has not looked yet")
    absent = "could not find the requested resource" in message
    return Trouble(
        f"the autoscaler gets no metrics ({short(message)}): install metrics-server, so that `kubectl top pods` "
        "answers.",
        PATIENCE_S if absent else math.inf,
    )
