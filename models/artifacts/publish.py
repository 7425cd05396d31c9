"""Put a finished model directory in its place: all of it, or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.manifest import MANIFEST_NAME, Artifact, Golden, Manifest, ModelDir, sha256_of, size_of

GOLDEN_IMAGES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


def checked_target(name: str, out_dir: Path, version: int) -> Path:
    """Absolute path of the model directory.

    Raises ModelError where the name would not do in a URL, something else lies there, or the version is older than
    the one that is there (TensorFlow Serving would go on serving the newer one).
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name!r} is no model name: use letters, digits, '-', '_' and '.', a letter or digit first.")
    if version < 1:
        raise ModelError(f"Version {version} is no version: TensorFlow Serving takes 1 and up.")
    target = Path(out_dir).resolve() / name
    if not target.exists():
        return target
    if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST_NAME).exists()):
        raise ModelError(f"{target} exists and is no model directory: choose another name or remove it.")
    newest = max((int(folder.name) for folder in _versions(target)), default=0)
    if version < newest:
        raise ModelError(
            f"{target} holds version {newest} already: export version {newest} again, or {newest + 1}, not {version}."
        )
    return target


def _versions(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()]


def artifact(folder: Path, path: Path) -> Artifact:
    """The manifest's entry for an artifact inside the model directory `folder`."""
    return Artifact(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size_bytes=size_of(path))


def write_golden(folder: Path, images: Sequence[bytes], outputs: NDArray[np.float64]) -> list[Golden]:
    """Write the first images, at most 32, below `folder`, with their (n, classes) outputs for the manifest."""
    (folder / "golden").mkdir()
    golden = []
    for index, image in enumerate(images[:GOLDEN_IMAGES]):
        suffix = next((s for magic, s in _SUFFIXES.items() if image.startswith(magic)), ".bin")
        path = folder / "golden" / f"{index:03d}{suffix}"
        path.write_bytes(image)
        golden.append(
            Golden(
                path=path.relative_to(folder).as_posix(),
                sha256=hashlib.sha256(image).hexdigest(),
                probabilities=[float(p) for p in outputs[index]],
            )
        )
    return golden


def publish(folder: Path, target: Path, manifest: Manifest) -> ModelDir:
    """Write the manifest into the finished `folder`, keep older versions, and rename it to `target`."""
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
    if target.exists():
        for older in _versions(target):
            if not (folder / older.name).exists():
                shutil.copytree(older, folder / older.name, copy_function=_link)
    _swap(folder, target)
    return ModelDir(target)


def _link(source: str, destination: str) -> None:
    """Share the bytes of an older version where the file system can."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def _swap(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; what was there moves into the stage, which its owner removes."""
    aside = folder.with_name(f"{folder.name}.earlier")
    earlier = target.exists()
    try:
        if earlier:
            target.rename(aside)
        folder.rename(target)
    except BaseException:
        if earlier and aside.exists() and not target.exists():
            aside.rename(target)
        raise
