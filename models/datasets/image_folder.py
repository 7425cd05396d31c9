"""A person's own images: one directory per class, or a plain directory of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.datasets.dataset import Dataset, Progress, no_progress, pick, stratified_split
from models.errors import ModelError
from models.preprocessing import ImageError, decode_image

SMALLEST_SIDE = 4
"""Pixels: two max-pools leave nothing of less."""


def load_folder(
    folder: Path, seed: int = 0, size: tuple[int, int] = (32, 32), progress: Progress = no_progress
) -> Dataset:
    """Images below `folder`, one directory per class, a fifth of each class held out.

    `size` is the network's (height, width). Raises ModelError for a missing folder, fewer than two classes, a class
    with fewer than two images, or an image that cannot be decoded.
    """
    if min(size) < SMALLEST_SIDE:
        raise ModelError(f"An input of {size[0]}x{size[1]} pixels is too small: ask for at least 4x4.")
    classes = class_folders(folder)
    paths = [(path, label) for label, entry in enumerate(classes) for path in _class_images(entry)]
    images = []
    for done, (path, _) in enumerate(paths):
        images.append(read_image(path))
        if done % 64 == 0:
            progress(f"reading {folder.name}", done / len(paths))
    labels = np.asarray([label for _, label in paths], dtype=np.int64)
    train, test = stratified_split(labels, seed)
    return Dataset(
        name="folder",
        train=pick(images, labels, train),
        test=pick(images, labels, test),
        classes=[entry.name for entry in classes],
        size=size,
        may_flip=True,
        seed=seed,
    )


def read_image(path: Path) -> bytes:
    """Bytes of a file that holds a JPEG or PNG. Raises ModelError naming the file otherwise."""
    try:
        data = path.read_bytes()
        decode_image(data)
    except (ImageError, OSError) as error:
        reason = str(error).rstrip(".")
        raise ModelError(
            f"{path} cannot be used as an image ({reason}): remove it, or convert it to JPEG or PNG."
        ) from error
    return data


def image_files(folder: Path) -> list[Path]:
    """Files below `folder`, however deep, hidden ones left out, in a fixed order. Raises ModelError where none are."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a directory: name one that holds images.")
    found = [path for path in sorted(folder.rglob("*")) if not _hidden(path, folder)]
    if lost := next((path for path in found if path.is_symlink() and not path.exists()), None):
        raise ModelError(f"{lost} is a link to {lost.readlink()}, which does not exist: repair or remove it.")
    files = [path for path in found if path.is_file()]
    if not files:
        raise ModelError(f"{folder} holds no images: put JPEG or PNG files into it.")
    return files


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def class_folders(folder: Path) -> list[Path]:
    """One directory a class, by name. Raises ModelError for a missing folder or fewer than two classes."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a directory: name one with one directory of images per class.")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ModelError(f"{folder} holds no class directories: put the images into one directory per class.")
    if len(classes) == 1:
        raise ModelError(f"{folder} holds one class only ({classes[0].name}): a classifier needs at least two.")
    return classes


def _class_images(folder: Path) -> list[Path]:
    files = image_files(folder)
    if len(files) < 2:
        raise ModelError(f"{folder} holds one image only: a class needs two, one to train on and one held out.")
    return files
