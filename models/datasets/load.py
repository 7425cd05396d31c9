"""Data sets: encoded images with labels, split once and for all by a seed.

Images stay encoded, because what is compared and what is sent over the wire is encoded bytes.
"""

from __future__ import annotations

from pathlib import Path

from models.datasets.dataset import DEFAULT_SIZE, Dataset, Progress, no_progress
from models.errors import ModelError

DATASETS = ("digits", "cifar10", "folder")


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    progress: Progress = no_progress,
) -> Dataset:
    """Load `digits`, `cifar10` or `folder`.

    `data_dir` holds (or receives) CIFAR-10's archive, or is the folder of class directories. `size` is the
    network's (height, width), used by `folder`. Raises ModelError for an unknown name or unusable images,
    ModelEnvironmentError where a download or a library is missing.
    """
    if name == "digits":
        from models.datasets.digits import load_digits

        return load_digits(seed)
    if name == "cifar10":
        from models.datasets.cifar10 import load_cifar10

        return load_cifar10(data_dir, seed, progress=progress)
    if name == "folder":
        from models.datasets.image_folder import load_folder

        if data_dir is None:
            raise ModelError("The data set folder needs --data-dir: a directory with one directory per class.")
        return load_folder(data_dir, seed, size, progress)
    raise ModelError(f"There is no data set {name!r}: choose one of {', '.join(DATASETS)}.")
