"""Carry one set of weights into both frameworks, prove the artifacts equal, and write the model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.artifacts.parity import parity_images, prove
from models.artifacts.publish import artifact, checked_target, publish, write_golden
from models.atomic import staging
from models.datasets.dataset import Dataset, Progress, no_progress
from models.errors import ModelError
from models.manifest import Manifest, ModelDir, Parity
from models.provenance import framework_versions, git_commit, utc_now
from models.training.learner import FRAMEWORKS
from models.training.train import TrainingRecord, load_record
from models.training.weight_files import load_weights
from models.training.weights import CnnWeights

DEFAULT_OUT_DIR = Path("build/models")


def export_model(
    name: str,
    weights_dir: Path,
    dataset: Dataset,
    out_dir: Path = DEFAULT_OUT_DIR,
    version: int = 1,
    weights_from: str = "keras",
    progress: Progress | None = None,
) -> ModelDir:
    """Write `out_dir/name` from the weights that `train` left in `weights_dir`.

    Older version directories are kept; the manifest describes this one. Raises ModelError for missing weights or a
    data set other than the one trained on, ParityError where the two artifacts' outputs differ by more than 1e-5,
    ModelEnvironmentError where the disk is full. An export that fails or is interrupted leaves an earlier one as it
    was.
    """
    tell = progress or no_progress
    target = checked_target(name, out_dir, version)
    record = _record(weights_dir, weights_from, dataset)
    images = parity_images(dataset.test.images, dataset.train.images)
    with staging(target.parent) as stage:
        folder = stage / name
        folder.mkdir()
        weights = load_weights(weights_dir, record)
        outputs = _write_artifacts(folder, weights, record, images, version, tell)
        tell("proving that both artifacts answer alike", 0.6)
        parity = prove(outputs, folder / f"{name}.mar", images)
        model = publish(folder, target, _manifest(folder, version, record, parity, images, outputs))
    tell("exported", 1.0)
    return model


def _record(weights_dir: Path, weights_from: str, dataset: Dataset) -> TrainingRecord:
    if weights_from not in FRAMEWORKS:
        raise ModelError(f"There are no weights from {weights_from!r}: choose one of {', '.join(FRAMEWORKS)}.")
    record = load_record(weights_dir, weights_from)
    if record.dataset_sha256 != dataset.sha256:
        raise ModelError(
            f"The weights in {weights_dir} were trained on other images than these of {dataset.name}: export with "
            f"data set {record.dataset}, seed {record.split_seed}, or train again."
        )
    return record


def _write_artifacts(
    folder: Path,
    weights: CnnWeights,
    record: TrainingRecord,
    images: Sequence[bytes],
    version: int,
    tell: Progress,
) -> NDArray[np.float64]:
    """Write both artifacts; returns what the SavedModel on disk answers for `images`."""
    from models.artifacts.archive import write_mar
    from models.artifacts.both_networks import check_networks
    from models.artifacts.savedmodel import predict_images, write_savedmodel

    name = folder.name
    tell("writing the SavedModel", 0.0)
    write_savedmodel(weights, record.input, folder / str(version), images[0], name)
    tell("writing the .mar", 0.2)
    write_mar(weights, record.input, len(record.labels), folder / f"{name}.mar", images[0], version)
    tell("comparing with the networks in memory", 0.45)
    outputs = predict_images(folder / str(version), images)
    check_networks(weights, record, images, outputs)
    return outputs


def _manifest(
    folder: Path,
    version: int,
    record: TrainingRecord,
    parity: Parity,
    images: Sequence[bytes],
    outputs: NDArray[np.float64],
) -> Manifest:
    return Manifest(
        name=folder.name,
        version=version,
        architecture=record.architecture,
        dataset=record.dataset,
        labels=record.labels,
        input=record.input,
        savedmodel=artifact(folder, folder / str(version)),
        mar=artifact(folder, folder / f"{folder.name}.mar"),
        parity=parity,
        golden=write_golden(folder, images, outputs),
        weights_from=record.framework,
        frameworks=framework_versions(),
        seed=record.seed,
        git_commit=git_commit(),
        created_at=utc_now(),
    )
