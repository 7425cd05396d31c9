"""Whether a pod holds the very model that a study is about: asked of the server's container while it starts.

Its image may be of an earlier export. Only what is small is read there, for the container's CPU time is being measured:
the manifest, or of an archive its length and its end, where a zip file lists the checksum of everything in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from models.manifest import MANIFEST_NAME, ModelDir
from serving.containers import MODELS

_END_BYTES = 65536
_ARCHIVES = "/model-store"
"""Where the chart mounts TorchServe's archives."""

Run = Callable[[Sequence[str]], tuple[int, bytes]]
"""Runs a command in the container: its exit code, and what it printed."""


def holds(run: Run, artifact: str, model: ModelDir) -> bool:
    """Whether the container holds the model whose `artifact`, savedmodel or mar, it is to serve."""
    if artifact == "mar" and model.mar_path is not None:
        return _holds_archive(run, model.name, model.mar_path)
    code, output = run(["sha256sum", f"{MODELS}/{model.name}/{MANIFEST_NAME}"])
    return code == 0 and output.split()[:1] == [_digest((model.path / MANIFEST_NAME).read_bytes())]


def _holds_archive(run: Run, name: str, own: Path) -> bool:
    place = f"{_ARCHIVES}/{name}.mar"
    code, output = run(["sh", "-c", f"wc -c < {place} && tail -c {_END_BYTES} {place} | sha256sum"])
    return code == 0 and output.split()[:2] == _summary(own)


def _summary(archive: Path) -> list[bytes]:
    size = archive.stat().st_size
    with archive.open("rb") as content:
        content.seek(max(0, size - _END_BYTES))
        return [str(size).encode(), _digest(content.read())]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def sentence(who: str, model: ModelDir, image: str) -> str:
    """What is to be done about an image that holds another model."""
    return (
        f"{who} does not hold the model in {model.path}: its model image {image} was made from another export; make it "
        f"again with `servestorm image {model.path}` and load it into the cluster."
    )
