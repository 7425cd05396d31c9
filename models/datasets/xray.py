"""X-rays in folders of patients and studies, as MURA lays them out: `patient00011/study1_positive/image1.png`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from models.datasets.dataset import Dataset, DatasetSplit, Progress, no_progress
from models.datasets.image_folder import image_files, read_image
from models.errors import ModelError

CLASSES = ("negative", "positive")
HELD_OUT = 0.2
SPLITS = ("train", "valid")
"""Folders of the set's own split."""


def load_xray(folder: Path, size: tuple[int, int], seed: int = 0, progress: Progress = no_progress) -> Dataset:
    """Images below `folder`, labelled by the ending of their study's folder, split by patient.

    If `folder` has the subfolders `train` and `valid`, they are the split; otherwise patients are held out at random
    until they have a fifth of the images. No patient is on both sides. Raises ModelError for a missing folder, an image
    in no study, a side without images of one class, or a patient on both sides of the set's own split.
    """
    found = {path: _study(path, folder) for path in image_files(folder)}
    own = all((folder / split).is_dir() for split in SPLITS)
    held = _own_split(found, folder) if own else _held_out_patients(found, seed)
    sides: tuple[list[Path], list[Path]] = ([], [])
    for path, (patient, _) in found.items():
        sides[patient in held].append(path)
    parts = {"": found, " among its training patients": sides[0], " among its held-out patients": sides[1]}
    for part, side in parts.items():
        there = {found[path][1] for path in side}
        if lacking := [ending for ending in CLASSES if ending not in there]:
            raise ModelError(f"{folder} has no {' and no '.join(lacking)} image{part}: add patients.")
    splits = [_split(side, found, folder, progress) for side in sides]
    return Dataset("xray", splits[0], splits[1], list(CLASSES), size, may_flip=True, seed=seed)


def _study(path: Path, folder: Path) -> tuple[str, str]:
    """(patient, class) of an image."""
    study, patient = path.parent.name, path.parent.parent
    ending = study.rpartition("_")[2]
    if ending not in CLASSES or not patient.is_relative_to(folder) or patient == folder.parent:
        raise ModelError(
            f"{path} lies in no study: folders must be named PATIENT/STUDY_positive or PATIENT/STUDY_negative."
        )
    return patient.name, ending


def _own_split(found: dict[Path, tuple[str, str]], folder: Path) -> set[str]:
    sides: dict[str, set[str]] = defaultdict(set)
    for path, (patient, _) in found.items():
        sides[path.relative_to(folder).parts[0]].add(patient)
    if both := sides[SPLITS[0]] & sides[SPLITS[1]]:
        raise ModelError(
            f"Patient {min(both)} is in {folder / SPLITS[0]} and in {folder / SPLITS[1]}: a network would be judged by "
            "patients that it has seen. Move all of a patient's studies to one side."
        )
    if strangers := set(sides) - set(SPLITS):
        raise ModelError(f"{folder / min(strangers)} lies beside train and valid: remove it, or one of these two.")
    return sides[SPLITS[1]]


def _held_out_patients(found: dict[Path, tuple[str, str]], seed: int) -> set[str]:
    """Patients at random, of either class in turn, until they have a fifth of the images."""
    images: dict[str, int] = defaultdict(int)
    classes: dict[str, set[str]] = defaultdict(set)
    for patient, ending in found.values():
        images[patient] += 1
        classes[patient].add(ending)
    order = np.random.default_rng(seed).permutation(sorted(images)).tolist()
    by_class = [[patient for patient in order if ending in classes[patient]] for ending in CLASSES]
    held: set[str] = set()
    for pair in zip(*(side + [""] * (len(order) - len(side)) for side in by_class), strict=True):
        for patient in pair:
            if sum(images[one] for one in held) >= HELD_OUT * len(found) and len(held) > 1:
                return held
            held |= {patient} if patient else set()
    return held


def _split(paths: list[Path], found: dict[Path, tuple[str, str]], folder: Path, progress: Progress) -> DatasetSplit:
    images = []
    for done, path in enumerate(paths):
        images.append(read_image(path))
        if done % 64 == 0:
            progress(f"reading {folder.name}", done / len(paths))
    return DatasetSplit(images, np.asarray([CLASSES.index(found[path][1]) for path in paths], dtype=np.int64))
