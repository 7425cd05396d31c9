"""Labels for the owner of a release or a namespace: its process and its machine."""

from __future__ import annotations

import hashlib
from typing import Any

from serving.orphans import lives, machine, owner_tag

OWNER = "servestorm.owner"
MACHINE = "servestorm.machine"
DEPLOYMENT = "servestorm.deployment"


def labels(deployment: str) -> dict[str, str]:
    """What the release of a deployment is labelled with, and its pods are annotated with."""
    return {**owner_labels(), DEPLOYMENT: deployment}


def owner_labels() -> dict[str, str]:
    """This process and its machine, in the letters that a label may have."""
    return {OWNER: owner_tag().replace(":", "-"), MACHINE: machine_label()}


def machine_label() -> str:
    """This machine, process namespace and user."""
    return hashlib.sha256(machine().encode()).hexdigest()[:32]


def is_mine(item: Any) -> bool:
    """Whether this process made an object of the API."""
    return owner_labels().items() <= (item.metadata.labels or {}).items()


def is_left(item: Any) -> bool:
    """Whether an owner of this machine made it and lives no more."""
    marks = item.metadata.labels or {}
    return marks.get(MACHINE) == machine_label() and not lives(marks.get(OWNER, "").replace("-", ":"))
