"""Put a finished model directory in its place: all of it, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.atomic import require_writable
from models.errors import ModelError
from models.manifest import FOREIGN, MANIFEST_NAME, MODEL_NAME, Artifact, Golden, Manifest, ModelDir, sha256_of, size_of

DEFAULT_OUT_DIR = Path("build/models")
GOLDEN_IMAGES = 32
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


def checked_target(name: str, out_dir: Path, version: int) -> Path:
    """Absolute path of the model directory.

    Raises ModelError where the name would not do in a URL, something else lies there, or the version is older than
    the one that is there (TensorFlow Serving would go on serving the newer one).
    """
    if not MODEL_NAME.fullmatch(name):
        raise ModelError(f"{name!r} is no model name: use letters, digits, '-', '_' and '.', a letter or digit first.")
    if version < 1:
        raise ModelError(f"Version {version} is no version: TensorFlow Serving takes 1 and up.")
    target = Path(out_dir).resolve() / name
    there = next(folder for folder in target.parents if folder.exists())
    if not there.is_dir():
        raise ModelError(f"{target.parent} cannot be made, {there} is a file: choose another output folder.")
    require_writable(target.parent)
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


def refuse_to_replace(target: Path, *, imported_only: bool) -> None:
    """Raise ModelError where a model lies at `target` already, or, with `imported_only`, one that was imported.

    An import cannot make again what another one, or a training, left there.
    """
    if not (target / MANIFEST_NAME).exists():
        return
    if not imported_only:
        raise ModelError(
            f"{target} holds a model already, whose artifacts and proof an import replaces: choose another --name, or "
            "give --force, and both artifacts if both are to be served."
        )
    try:
        imported = ModelDir(target).manifest.architecture == FOREIGN
    except ModelError:
        return
    if imported:
        raise ModelError(f"{target} holds an imported model: choose another --name, or remove that folder first.")


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


def publish(folder: Path, target: Path, manifest: Manifest, *, replace: bool = True) -> ModelDir:
    """Write the manifest into the finished `folder`, keep older versions, and rename it to `target`.

    A model without a SavedModel keeps none: TensorFlow Serving would go on serving what is not in the manifest.
    Without `replace`, raises ModelError where another process has put a model there in the meantime.
    """
    if not replace:
        refuse_to_replace(target, imported_only=False)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
    if manifest.savedmodel and target.exists():
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
