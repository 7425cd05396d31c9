"""Trainings that could not be carried out, told before anything starts, and without a framework."""

from __future__ import annotations

import os
import shutil

from models.datasets.load import CLASSES, IMAGES, IN_FOLDERS
from models.datasets.synthetic import require_possible
from models.errors import ModelError
from models.networks.catalogue import network_named
from models.networks.pretrained import weights_form
from models.training.train import require_size
from servestorm.errors import StudyError
from servestorm.plan.training import Training, TrainingData, settings_of
from servestorm.study.gpu_counters import gpus
from servestorm.study.trainings.process import image_size


def refuse_trainings(training: Training) -> None:
    """Raise StudyError, which names the key, for data, sizes and weights with which a network cannot be trained."""
    for data in training.data:
        _refuse_data(data)
    if training.device == "gpu" and not gpus():
        raise StudyError(
            "training.device: a GPU is asked for, and none is seen here: install NVIDIA's driver and servestorm[gpu], "
            "or set cpu."
        )
    if True in training.compiled and "torch" in training.frameworks and not has_cpp_compiler():
        raise StudyError(
            "training.compiled: torch.compile needs a C++ compiler, and there is none on the PATH: install one, such "
            "as g++, or leave it out."
        )
    for setting in settings_of(training):
        network = network_named(setting.network)
        try:
            size = image_size(setting.network, setting.data)
            require_size(network, size)
            if setting.data.dataset == "synthetic":
                require_possible(size, setting.data.classes or CLASSES, setting.data.images or IMAGES)
            if training.pretrained:
                weights_form(network, training.pretrained)
        except ModelError as error:
            raise StudyError(f"training: {error}") from error


def has_cpp_compiler() -> bool:
    """Whether torch.compile finds what it builds its kernels with."""
    return bool(os.environ.get("CXX")) or any(map(shutil.which, ("g++", "clang++")))


def _refuse_data(data: TrainingData) -> None:
    if data.dataset not in IN_FOLDERS:
        return
    if data.data_dir is None:
        raise StudyError(f"training.data: {data.dataset} needs data_dir: {IN_FOLDERS[data.dataset]}.")
    if not data.data_dir.exists():
        raise StudyError(f"training.data: {data.data_dir} does not exist: give {IN_FOLDERS[data.dataset]}.")
