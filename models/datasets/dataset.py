"""A data set in memory, and its split into training and test images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_SIZE = (32, 32)


Progress = Callable[[str, float], None]
"""What is being done, and the fraction 0..1 of it that is done."""


def no_progress(what: str, fraction: float) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class DatasetSplit:
    """Encoded images and their class indices, in the same order."""

    images: list[bytes]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Encoded images with labels: `train` is learnt from, `test` is held out."""

    name: str
    train: DatasetSplit
    test: DatasetSplit
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


def pick(images: Sequence[bytes], labels: NDArray[np.int64], indices: Iterable[np.intp]) -> DatasetSplit:
    """The images and labels at these indices."""
    chosen = [int(i) for i in indices]
    return DatasetSplit([images[i] for i in chosen], np.asarray(labels, dtype=np.int64)[chosen])
