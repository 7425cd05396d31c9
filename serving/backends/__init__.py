"""Where an engine runs. One module a backend."""

from __future__ import annotations

from serving.backends.process import ProcessBackend
from serving.deployment import Backend

BACKENDS: dict[str, Backend] = {"process": ProcessBackend()}
"""Backend name to the backend."""

__all__ = ["BACKENDS", "ProcessBackend"]
