"""What every backend that starts servers checks and makes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.errors import ModelError
from models.manifest import ModelDir
from serving.deployment import Engine
from serving.errors import DeploymentError, ServingError


def verify(engine: Engine, model: ModelDir) -> None:
    """Raise ModelError where the artifact that the engine needs is missing or corrupt."""
    if engine.artifact not in ("savedmodel", "mar"):
        raise ModelError(f"engine {engine.name} needs an artifact {engine.artifact!r} that no model has.")
    model.verify("savedmodel" if engine.artifact == "savedmodel" else "mar")


def port_of(ports: Sequence[int] | None, index: int) -> int | None:
    """The REST port that was asked for; None where any will do. Raises ServingError where too few were given."""
    if ports is None:
        return None
    if index >= len(ports):
        raise ServingError(f"{len(ports)} ports were given for {index + 1} replicas: give one port each.")
    return ports[index]


def made(folder: Path) -> Path:
    """The folder, made where it is missing; raises DeploymentError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> DeploymentError:
    """The sentence for a folder that cannot be written."""
    return DeploymentError(f"{folder} cannot be written ({error.strerror}): free space or choose another folder.")
