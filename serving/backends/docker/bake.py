"""Builds an image that holds the model, on top of an engine's: what a deployment that ships images has to do."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.manifest import MANIFEST_NAME, ModelDir
from serving.backends.docker.image_build import build_image
from serving.containers import MODELS, OURS
from serving.deployment import Engine


def bake(client: Any, reference: str, engine: Engine, model: ModelDir, labels: Mapping[str, str], tag: str) -> Any:
    """Build an image from `reference` with the engine's artifact in it; without the cache, so that it is really built.

    Raises DeploymentError where the engine cannot build it.
    """
    stream = io.BytesIO(_context(reference, engine, model))
    what = f"build an image with {model.name} in it"
    return build_image(
        client, stream, what, f"{OURS}baked-{model.name.lower()}:{tag}", labels=dict(labels), nocache=True
    )


def _context(reference: str, engine: Engine, model: ModelDir) -> bytes:
    """The tar that the engine builds from: a Dockerfile, the manifest and the one artifact, readable by everybody."""
    place = f"{MODELS}/{model.name}"
    text = f"FROM {reference}\nCOPY model/ {place}/\n".encode()
    stream = io.BytesIO()
    artifact = getattr(model.manifest, engine.artifact).path
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        for name in (MANIFEST_NAME, artifact):
            archive.add(model.path / name, f"model/{Path(name).as_posix()}", filter=_readable)
    return stream.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
