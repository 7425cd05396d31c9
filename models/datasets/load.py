"""Data sets: encoded images with labels, split once and for all by a seed.

Images stay encoded, because what is compared and what is sent over the wire is encoded bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

DATASETS = ("digits", "cifar10", "folder")
DEFAULT_SIZE = (32, 32)
Progress = Callable[[str, float], None]
"""What is being done, and the fraction 0..1 of it that is done."""


def no_progress(what: str, fraction: float) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Split:
    """Encoded images and their class indices, in the same order."""

    images: list[bytes]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Encoded images with labels: `train` is learnt from, `test` is held out."""

    name: str
    train: Split
    test: Split
    classes: list[str]
    size: tuple[int, int]
    """(height, width) that the network takes; images of other sizes are resized."""
    may_flip: bool
    """Whether a mirrored image keeps its class: not so for digits."""
    seed: int

    @property
    def sha256(self) -> str:
        """Hex digest of every image, label and class name, split included."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(split.labels.astype("<i8").tobytes())
            for image in split.images:
                digest.update(hashlib.sha256(image).digest())
        return digest.hexdigest()


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


def stratified_split(
    labels: Sequence[int] | NDArray[np.int64], seed: int, held_out: float = 0.2
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Shuffled indices (train, test), `held_out` of every class in test, at least one image on either side."""
    rng = np.random.default_rng(seed)
    everything = np.asarray(labels)
    train, test = [], []
    for label in np.unique(everything):
        members = rng.permutation(np.flatnonzero(everything == label))
        held = min(max(1, round(len(members) * held_out)), len(members) - 1)
        test.append(members[:held])
        train.append(members[held:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def pick(images: Sequence[bytes], labels: NDArray[np.int64], indices: Iterable[np.intp]) -> Split:
    """The images and labels at these indices."""
    chosen = [int(i) for i in indices]
    return Split([images[i] for i in chosen], np.asarray(labels, dtype=np.int64)[chosen])
