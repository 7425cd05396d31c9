"""Data sets: encoded images with labels, split once and for all by a seed.

Images stay encoded, because what is compared and what is sent over the wire is encoded bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.datasets.dataset import DEFAULT_SIZE, Dataset, Progress, no_progress
from models.errors import ModelError

DATASETS = ("digits", "cifar10", "folder", "imagenet-folder", "medmnist", "xray", "synthetic")
IN_FOLDERS = {
    "folder": "a directory with one directory per class",
    "imagenet-folder": "a directory with one directory per class, or with train and val",
    "medmnist": "an .npz file of MedMNIST",
    "xray": "a directory with PATIENT/STUDY_positive and PATIENT/STUDY_negative",
}
"""What --data-dir must name."""
CLASSES, IMAGES = 10, 1000
"""Of the synthetic data set, unless others are asked for."""


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    progress: Progress = no_progress,
    classes: int | None = None,
    images: int | None = None,
) -> Dataset:
    """Load one of DATASETS, or make `synthetic`.

    `data_dir` holds (or receives) CIFAR-10's archive, or is what IN_FOLDERS says. `size` is the network's
    (height, width), to which images of other sizes are resized. `classes` and `images` are how many of either
    `synthetic` has. Raises ModelError for an unknown name, an argument that the data set does not take, or unusable
    images, ModelEnvironmentError where a download or a library is missing.
    """
    if name != "synthetic" and (classes, images) != (None, None):
        raise ModelError(f"Only data set synthetic takes a number of classes or images: leave them out for {name}.")
    if name == "digits":
        from models.datasets.digits import load_digits

        return replace(load_digits(seed), size=size)
    if name == "cifar10":
        from models.datasets.cifar10 import load_cifar10

        return replace(load_cifar10(data_dir, seed, progress=progress), size=size)
    if name in IN_FOLDERS:
        if data_dir is None:
            raise ModelError(f"The data set {name} needs --data-dir: {IN_FOLDERS[name]}.")
        return _of_files(name, data_dir, seed, size, progress)
    if name == "synthetic":
        from models.datasets.synthetic import load_synthetic

        return load_synthetic(size, classes or CLASSES, images or IMAGES, seed, progress)
    raise ModelError(f"There is no data set {name!r}: choose one of {', '.join(DATASETS)}.")


def _of_files(name: str, place: Path, seed: int, size: tuple[int, int], progress: Progress) -> Dataset:
    if name == "imagenet-folder":
        from models.datasets.imagenet_folder import load_imagenet_folder

        return load_imagenet_folder(place, size, seed, progress)
    if name == "medmnist":
        from models.datasets.medmnist import load_medmnist

        return load_medmnist(place, seed, size, progress)
    if name == "xray":
        from models.datasets.xray import load_xray

        return load_xray(place, size, seed, progress)
    from models.datasets.image_folder import load_folder

    return load_folder(place, seed, size, progress)
