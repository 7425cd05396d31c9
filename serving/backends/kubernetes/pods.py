"""A pod as the API describes it: when it reached each stage, and what is wrong with it. Nothing is asked here.

Objects are as the API sends them: parsed JSON with its own key names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Object = Mapping[str, Any]

SERVER = "server"
"""Name of the chart's server container."""
_LONGEST = 300
"""Characters of Kubernetes' message that go into a sentence."""


@dataclass(frozen=True)
class Moment:
    """How far a pod came: the name of an event, and the API's own time of it, which has whole seconds."""

    name: str
    stamp: datetime | None


@dataclass(frozen=True)
class ContainerExit:
    """How a container ended."""

    code: int | None
    reason: str
    previous: bool
    """Whether another one has taken its place in the pod, so that its log is the previous one's."""


def stamp_of(text: str | None) -> datetime | None:
    """A time as the API writes it; None where it wrote none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def name_of(item: Object) -> str:
    """The object's name."""
    return str(item["metadata"]["name"])


def node_of(pod: Object) -> str | None:
    """Name of the node that it was given to."""
    node: str | None = pod.get("spec", {}).get("nodeName")
    return node


def address_of(pod: Object) -> str | None:
    """Its own address, once it has one."""
    address: str | None = pod.get("status", {}).get("podIP")
    return address


def condition(item: Object, kind: str) -> Object:
    """One of the conditions of its status; {} where there is none of the kind."""
    conditions: Iterable[Object] = item.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def is_leaving(pod: Object) -> bool:
    """Whether it was asked to end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    """Whether it is ready, and not about to go."""
    return condition(pod, "Ready").get("status") == "True" and not is_leaving(pod)


def container_of(pod: Object, name: str = SERVER) -> Object:
    """Status of a container; {} before it has one."""
    status = pod.get("status", {})
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((one for one in every if one.get("name") == name), {})


def moments(pod: Object) -> list[Moment]:
    """How far it has come, in order: spawned, scheduled, initialized, started, ready, terminating."""
    passed = [
        ("spawned", pod["metadata"].get("creationTimestamp")),
        ("scheduled", _since(pod, "PodScheduled")),
        ("initialized", _initialized(pod)),
        ("started", started_at(pod)),
        ("ready", None if is_leaving(pod) else _since(pod, "Ready")),
    ]
    moments = [Moment(name, stamp_of(text)) for name, text in passed if text]
    return [*moments, Moment("terminating", _asked_to_end_at(pod))] if is_leaving(pod) else moments


def _since(pod: Object, kind: str) -> str | None:
    held = condition(pod, kind)
    return held.get("lastTransitionTime") if held.get("status") == "True" else None


def _initialized(pod: Object) -> str | None:
    """When the last init container ended: the condition is written later, with whatever else there is to write."""
    since = _since(pod, "Initialized")
    done = [state(one, "terminated").get("finishedAt") for one in pod["status"].get("initContainerStatuses") or ()]
    return max((text for text in done if text), default=since) if since else None


def started_at(pod: Object) -> str | None:
    """When its server was started, as the API writes it."""
    server = container_of(pod)
    running, ended = state(server, "running"), state(server, "terminated")
    return running.get("startedAt") or ended.get("startedAt")


def _asked_to_end_at(pod: Object) -> datetime | None:
    """The deletion's time is that by which its grace is over."""
    over = stamp_of(pod["metadata"].get("deletionTimestamp"))
    grace_s = pod["metadata"].get("deletionGracePeriodSeconds") or 0
    return over - timedelta(seconds=grace_s) if over else None


def state(status: Object, name: str) -> Object:
    """What is known of one state of a container, `waiting`, `running` or `terminated`; {} where it is in another."""
    return (status.get("state") or {}).get(name) or {}


def ending(status: Object) -> ContainerExit | None:
    """How a container ended last; None for one that has not."""
    now = state(status, "terminated")
    before = (status.get("lastState") or {}).get("terminated") or {}
    last = now or before
    if not last:
        return None
    return ContainerExit(last.get("exitCode"), str(last.get("reason") or ""), previous=not now)


def has_failed(pod: Object) -> bool:
    """Whether its server ended unasked, or it was taken off its node: gone, even if another one takes its place."""
    if disruption(pod) or is_lost(pod):
        return True
    return not is_leaving(pod) and (ending(container_of(pod)) is not None or pod["status"].get("phase") == "Failed")


def is_lost(pod: Object) -> bool:
    """Whether its node does not answer any more."""
    return bool(pod.get("status", {}).get("reason") == "NodeLost")


def disruption(pod: Object) -> Object:
    """The condition by which an eviction is announced; a scale-down has none."""
    held = condition(pod, "DisruptionTarget")
    return held if held.get("status") == "True" else {}


def image_of(pod: Object, container: str) -> str:
    """The image that a container was asked for with."""
    spec = pod.get("spec", {})
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((str(one.get("image")) for one in every if one.get("name") == container), container)


def memory_limit_of(pod: Object) -> str | None:
    """Memory that its server may take, as the API writes it; None without a limit."""
    every = pod.get("spec", {}).get("containers") or ()
    server: Object = next((one for one in every if one.get("name") == SERVER), {})
    return ((server.get("resources") or {}).get("limits") or {}).get("memory")


def short(message: object) -> str:
    """Kubernetes' message on one line; of a long message the end, where the reason stands."""
    text = " ".join(str(message or "without a reason").split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"... {text[-_LONGEST:]}"


def pull_detail(message: str) -> str:
    """The kubelet's message about the server's image: 'already present', or how long the pull took."""
    if "already present" in message:
        return "already present"
    took = re.search(r" in ([0-9.]+(?:ms|s|m[0-9.]+s))\b", message)
    return f"pulled in {took[1]}" if took else short(message)
