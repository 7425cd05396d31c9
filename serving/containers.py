"""What images of engines and their backends agree on: names, tags, and the folders in a container."""

from __future__ import annotations

import importlib.metadata

CONFIG = "/config"
"""Where `ContainerLaunch.config` is mounted, read-only."""
MODELS = "/models"
"""A model lies in the folder of its own name under it, read-only."""
USER = "10001:10001"
"""Whom everything in a container runs as."""
OURS = "servestorm/"
"""What the names of our own images begin with: no registry has them."""


def image(role: str) -> str:
    """Reference of our image for a role, such as servestorm/torchserve:0.1.0."""
    return f"{OURS}{role}:{own_version()}"


def own_version() -> str:
    """The version that is installed, which tags our images."""
    return importlib.metadata.version("servestorm")
