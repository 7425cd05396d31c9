"""Where an engine runs. One module or package a backend."""

from __future__ import annotations

from serving.backend import Backend
from serving.backends.docker.backend import DockerBackend
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.process import ProcessBackend

BACKENDS: dict[str, Backend] = {
    "process": ProcessBackend(),
    "docker": DockerBackend(),
    "kubernetes": KubernetesBackend(),
}
"""Backend name to the backend, as it is without settings of its own."""

__all__ = ["BACKENDS", "DockerBackend", "KubernetesBackend", "ProcessBackend"]
