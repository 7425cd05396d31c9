"""Versions of a model: which are to be served, where their folders are, and how far each has come."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.versions.servable import Servable
from serving.savedmodel_server.versions.version_number import version_number

LOG = logging.getLogger("savedmodel_server")


class State(IntEnum):
    """TensorFlow Serving's states of a version (ModelVersionStatus.State)."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions found are served: the latest `latest`, or those of `specific`, or all."""

    latest: int = 1
    specific: frozenset[int] | None = None
    every: bool = False

    def choose(self, versions: Iterable[int]) -> set[int]:
        """The versions to serve."""
        if self.every:
            return set(versions)
        if self.specific is not None:
            return set(versions) & self.specific
        return set(sorted(versions)[-self.latest :])


@dataclass(frozen=True)
class ModelConfig:
    """One model that the server is to serve."""

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Version:
    """One version of a model; `error` is why it failed."""

    model: str
    number: int
    path: Path
    state: State = State.START
    error: RequestError | None = None
    servable: Servable | None = None
    in_flight: int = 0
    attempts: int = 0
    next_attempt_s: float = 0.0


def version_folders(base_path: Path) -> dict[int, Path] | None:
    """Folders whose names are whole numbers; None where the base path is gone or cannot be read."""
    try:
        found = ((version_number(entry.name), entry) for entry in sorted(base_path.iterdir(), reverse=True))
        return {number: entry for number, entry in found if number is not None and entry.is_dir()}
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        LOG.warning("event=base_path_unreadable path=%s error=%r", base_path, str(error))
        return None


def unavailable(number: int, model: str) -> str:
    """What is said of a label that names a version that is not loaded."""
    return (
        f"Request to assign label to version {number} of model {model}, which is not currently available for inference"
    )
