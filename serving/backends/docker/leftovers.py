"""Labels by which containers, networks and images of ours are found again, and the removal of what was left.

Everything that a deployment makes carries its owner (pid and start time, as `serving.orphans` has it) and its owner's
machine, for a Docker Engine may serve several. What has a dead owner on this machine is a leftover.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from serving.backend import Leftover
from serving.backends.docker.engine import asking
from serving.orphans import lives, machine, owner_tag

OWNER = "servestorm.owner"
MACHINE = "servestorm.machine"
DEPLOYMENT = "servestorm.deployment"

KINDS = ("container", "network", "image")
"""In the order of their removal: a network is held by its containers, an image too."""


@dataclass(frozen=True)
class DockerLeftover(Leftover):
    """A container, network or image that a killed study left."""

    item: Any
    """docker's own model of it."""


def labels(deployment: str) -> dict[str, str]:
    """What everything of a deployment is labelled with."""
    return {OWNER: owner_tag(), MACHINE: machine(), DEPLOYMENT: deployment}


def leftovers(client: Any) -> list[DockerLeftover]:
    """What owners of this machine that live no more left behind. Raises DeploymentError."""
    labelled = _labelled(client, f"{MACHINE}={machine()}")
    return [leftover for leftover in labelled if not lives(_labels(leftover).get(OWNER, ""))]


def of_deployment(client: Any, deployment: str) -> list[DockerLeftover]:
    """Everything that a deployment has made and that is still there."""
    return list(_labelled(client, f"{DEPLOYMENT}={deployment}"))


def _labelled(client: Any, label: str) -> Iterator[DockerLeftover]:
    filters = {"label": label}
    with asking("list what is labelled as servestorm's"):
        for container in client.containers.list(all=True, filters=filters, ignore_removed=True):
            yield DockerLeftover("container", container.name, container)
        for network in client.networks.list(filters=filters):
            yield DockerLeftover("network", network.name, network)
        for image in client.images.list(filters=filters):
            yield DockerLeftover("image", (image.tags or [image.short_id])[0], image)


def _labels(leftover: DockerLeftover) -> dict[str, str]:
    attributes = leftover.item.attrs
    return (attributes.get("Config") or attributes).get("Labels") or {}


def remove(client: Any, leftovers: list[DockerLeftover]) -> None:
    """Remove them, containers by force; what is gone already is fine. Raises DeploymentError."""
    for leftover in sorted(leftovers, key=lambda one: KINDS.index(one.kind)):
        with asking(f"remove the {leftover.kind} {leftover.name}"):
            _remove(client, leftover)


def _remove(client: Any, leftover: DockerLeftover) -> None:
    from docker.errors import APIError, NotFound

    with suppress(NotFound):
        try:
            if leftover.kind == "container":
                leftover.item.remove(force=True, v=True)
            elif leftover.kind == "network":
                leftover.item.remove()
            else:
                client.images.remove(leftover.item.id, force=True)
        except APIError as error:
            if "already in progress" not in str(error):
                raise
