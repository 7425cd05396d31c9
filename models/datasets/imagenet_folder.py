"""Class folders of photographs, as ImageNet is laid out: resized by the shorter side, and the centre cut out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from models.datasets.dataset import Dataset, DatasetSplit, Progress, no_progress, pick, stratified_split
from models.datasets.image_folder import class_folders, image_files, read_image
from models.errors import ModelError
from models.preprocessing import decode_image

SPLITS = ("train", "val")
SHORTER_SIDE = 256 / 224
"""To which the shorter side is resized, in units of the input's: the usual evaluation crop."""


def load_imagenet_folder(
    folder: Path, size: tuple[int, int], seed: int = 0, progress: Progress = no_progress
) -> Dataset:
    """Images below `folder`, one directory a class; `train` and `val` in it are the split, else a fifth is held out.

    Every image is resized (bilinear, antialiased) so that it covers 256/224 of `size`, (height, width), and its centre
    is cut out and kept as PNG. Raises ModelError for a missing folder, fewer than two classes, a class without images,
    or classes that differ between train and val.
    """
    if all((folder / split).is_dir() for split in SPLITS):
        names = [[entry.name for entry in class_folders(folder / split)] for split in SPLITS]
        if differing := set(names[0]) ^ set(names[1]):
            raise ModelError(f"{folder} has class {min(differing)} in only one of train and val: add or remove it.")
        splits = [_cut_out(_labelled(folder / split), size, f"reading {split}", progress) for split in SPLITS]
        classes, train, test = names[0], splits[0], splits[1]
    else:
        everything = _cut_out(_labelled(folder), size, f"reading {folder.name}", progress)
        classes = [entry.name for entry in class_folders(folder)]
        learnt, held = stratified_split(everything.labels, seed)
        train, test = (pick(everything.images, everything.labels, side) for side in (learnt, held))
    return Dataset("imagenet-folder", train, test, classes, size, may_flip=True, seed=seed)


def _labelled(folder: Path) -> list[tuple[Path, int]]:
    return [(path, label) for label, entry in enumerate(class_folders(folder)) for path in image_files(entry)]


def _cut_out(files: list[tuple[Path, int]], size: tuple[int, int], what: str, progress: Progress) -> DatasetSplit:
    images = []
    for done, (path, _) in enumerate(files):
        images.append(centre(read_image(path), size))
        if done % 64 == 0:
            progress(what, done / len(files))
    return DatasetSplit(images, np.asarray([label for _, label in files], dtype=np.int64))


def centre(encoded: bytes, size: tuple[int, int]) -> bytes:
    """An encoded image as PNG of `size` (height, width): covered with some to spare, then cut out of the middle."""
    image = Image.fromarray(decode_image(encoded))
    height, width = size
    scale = SHORTER_SIDE * max(height / image.height, width / image.width)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    buffer = io.BytesIO()
    resized.crop((left, top, left + width, top + height)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
