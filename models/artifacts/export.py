"""Carry one set of weights into both frameworks, prove the artifacts equal, and write the model directory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.artifacts.both_networks import check_network
from models.artifacts.own_process import run_step
from models.artifacts.parity import parity_images, prove
from models.artifacts.publish import (
    DEFAULT_OUT_DIR,
    artifact,
    checked_target,
    publish,
    refuse_to_replace,
    write_golden,
)
from models.artifacts.source import ExportSource, of_file, of_training, training_record
from models.atomic import staging
from models.datasets.dataset import Dataset, Progress, no_progress
from models.datasets.load import load_dataset
from models.errors import ModelError
from models.manifest import Accuracy, Manifest, ModelDir, Parity
from models.networks.catalogue import network_named
from models.networks.network import Network
from models.networks.pretrained import weights_form
from models.provenance import framework_versions, git_commit, utc_now
from models.training.learner import FRAMEWORKS, images_at_once
from models.training.scores import top_k

LARGEST_BATCH = 32
"""Of images that the SavedModel is asked for together in the proof."""


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
    data set other than the one trained on, ParityError where the two artifacts' outputs differ by more than 1e-5 or
    their logits by more than 1e-4 of the largest, ModelEnvironmentError where the disk is full. An export that fails or
    is interrupted leaves an earlier one as it was.
    """
    target = checked_export(name, weights_dir, out_dir, version, weights_from)
    record = training_record(weights_dir, weights_from)
    if record.dataset_sha256 != dataset.sha256:
        raise ModelError(
            f"The weights in {weights_dir} were trained on other images than these of {dataset.name}: export with "
            f"data set {record.dataset}, seed {record.split_seed}, or train again."
        )
    return export_source(of_training(weights_dir, weights_from), target, dataset, version, progress)


def export_published(
    name: str,
    network: str,
    file: Path,
    dataset: Dataset,
    out_dir: Path = DEFAULT_OUT_DIR,
    version: int = 1,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> ModelDir:
    """Write `out_dir/name` from published weights with their own classes; parity is proved on the images of `dataset`.

    Raises as `export_model` does, and ModelError where the file is not of this network.
    """
    checked_published(name, network, file, out_dir, version)
    source = of_file(network, file, dataset.size, labels)
    return export_source(source, checked_target(name, out_dir, version), dataset, version, progress)


def checked_published(name: str, network: str, file: Path, out_dir: Path, version: int) -> Network:
    """The network. Raises ModelError for what can be told wrong without any framework."""
    refuse_to_replace(checked_target(name, out_dir, version), imported_only=True)
    chosen = network_named(network)
    weights_form(chosen, file)
    return chosen


def trained_on(
    weights_dir: Path,
    weights_from: str,
    dataset: str | None = None,
    data_dir: Path | None = None,
    seed: int | None = None,
) -> Dataset:
    """The images of the training that left `weights_dir`, or of another data set or seed where one is named."""
    record = training_record(weights_dir, weights_from)
    name = dataset or record.dataset
    made = record.dataset == name == "synthetic"
    return load_dataset(
        name,
        data_dir=data_dir,
        seed=record.split_seed if seed is None else seed,
        size=(record.input.height, record.input.width),
        classes=len(record.labels) if made else None,
        images=record.train_images + record.test_images if made else None,
    )


def checked_export(name: str, weights_dir: Path, out_dir: Path, version: int, weights_from: str) -> Path:
    """Absolute path of the model directory. Raises ModelError for what can be told wrong without any framework."""
    target = checked_target(name, out_dir, version)
    refuse_to_replace(target, imported_only=True)
    training_record(weights_dir, weights_from)
    return target


def export_source(
    source: ExportSource, target: Path, dataset: Dataset, version: int = 1, progress: Progress | None = None
) -> ModelDir:
    """Write the model directory `target` from the weights of `source`; raises as `export_model` does.

    Parity is proved on the images of `dataset`, held-out ones first.
    """
    tell = progress or no_progress
    images = parity_images(dataset.test.images, dataset.train.images)
    name = target.name
    with staging(target.parent) as stage:
        folder = stage / name
        folder.mkdir()
        outputs = _write_artifacts(folder, source, images, version, tell)
        tell("proving that both artifacts answer alike", 0.6)
        parity = prove(outputs, folder / f"{name}.mar", images)
        manifest = _manifest(folder, version, source, parity, images, outputs)
        known = manifest.model_copy(update={"accuracy": _accuracy(source, dataset, outputs)})
        model = publish(folder, target, known)
    tell("exported", 1.0)
    return model


def _write_artifacts(
    folder: Path, source: ExportSource, images: Sequence[bytes], version: int, tell: Progress
) -> NDArray[np.float64]:
    """Write both artifacts; returns what the SavedModel on disk answers for `images`."""
    size, saved, name = source.weights_bytes, folder / str(version), folder.name
    tell("writing the SavedModel", 0.0)
    run_step(size, "keras", _write_savedmodel, source, saved, images[0], name)
    tell("writing the .mar", 0.2)
    run_step(size, "torch", _write_mar, source, folder / f"{name}.mar", images[0], version)
    tell("comparing with the networks in memory", 0.45)
    together = min(LARGEST_BATCH, images_at_once(source.input.height, source.input.width))
    outputs = run_step(size, "keras", _predict_images, saved, images, together)
    for framework in FRAMEWORKS:
        run_step(size, framework, check_network, framework, source, images, outputs)
    return outputs


def _accuracy(source: ExportSource, dataset: Dataset, outputs: NDArray[np.float64]) -> Accuracy | None:
    """Of the answers to held-out images, which come first; None where the images have other classes."""
    if source.labels != dataset.classes:
        return None
    held_out = min(len(dataset.test.images), len(outputs))
    answers, labels = outputs[:held_out].astype(np.float32), dataset.test.labels[:held_out]
    return Accuracy(images=held_out, top1=top_k(answers, labels, 1), top5=top_k(answers, labels, 5))


def _write_savedmodel(source: ExportSource, path: Path, warmup_image: bytes, name: str) -> None:
    from models.artifacts.savedmodel import write_savedmodel

    write_savedmodel(source, path, warmup_image, name)
    gc.collect()  # the network lies in circles of references


def _write_mar(source: ExportSource, target: Path, warmup_image: bytes, version: int) -> None:
    from models.artifacts.archive import write_mar

    write_mar(source, target, warmup_image, version)
    gc.collect()


def _predict_images(path: Path, images: Sequence[bytes], batch_size: int) -> NDArray[np.float64]:
    from models.artifacts.savedmodel import predict_images

    return predict_images(path, images, batch_size)


def _manifest(
    folder: Path,
    version: int,
    source: ExportSource,
    parity: Parity,
    images: Sequence[bytes],
    outputs: NDArray[np.float64],
) -> Manifest:
    return Manifest(
        name=folder.name,
        version=version,
        architecture=source.network.name,
        dataset=source.dataset,
        labels=source.labels,
        input=source.input,
        savedmodel=artifact(folder, folder / str(version)),
        mar=artifact(folder, folder / f"{folder.name}.mar"),
        parity=parity,
        golden=write_golden(folder, images, outputs),
        weights_from=source.weights_from,
        frameworks=framework_versions(),
        seed=source.seed,
        git_commit=git_commit(),
        created_at=utc_now(),
    )
