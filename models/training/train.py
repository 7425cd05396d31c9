"""Train the study's network in Keras or in torch, and record what happened."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.atomic import replacing
from models.datasets.augmentation import augment
from models.datasets.dataset import Dataset, Progress, no_progress
from models.datasets.pixels import load_pixels, normalise_in_place, training_spec
from models.errors import ModelError
from models.manifest import InputSpec
from models.provenance import framework_versions, git_commit
from models.training.architecture import ARCHITECTURE
from models.training.learner import FRAMEWORKS, Framework, Labels, Learner, Pixels

EPOCHS = 5
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
CROP_PADDING = 2
"""Pixels that a random crop may shift a 32-pixel image; larger images shift in proportion."""


class Epoch(BaseModel):
    """One pass over the training images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seconds: float = Field(description="training alone, evaluation left out")
    training_loss: float = Field(description="mean cross-entropy over the epoch's batches, augmented images")
    loss: float = Field(description="mean cross-entropy on held-out images")
    top1: float = Field(description="share of held-out images whose class came first")
    top5: float = Field(description="share of held-out images whose class was among the first five")


class TrainingRecord(BaseModel):
    """What a training did: training-FRAMEWORK.json beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    framework: Framework
    architecture: str
    dataset: str
    dataset_sha256: str
    train_images: int
    test_images: int
    labels: list[str]
    input: InputSpec
    seed: int
    split_seed: int = Field(description="seed of the split into training and held-out images")
    batch_size: int
    learning_rate: float
    parameters: int = Field(description="trainable and running-statistics values")
    weights: str = Field(description="file beside this one")
    epochs: list[Epoch]
    frameworks: dict[str, str]
    git_commit: str | None

    @property
    def top1(self) -> float:
        """Held-out top-1 accuracy after the last epoch."""
        return self.epochs[-1].top1


def make_learner(framework: str, spec: InputSpec, classes: int, seed: int, batch_size: int) -> Learner:
    """The learner of a framework; raises ModelError for an unknown one."""
    if framework == "keras":
        from models.training.keras_learner import KerasLearner

        return KerasLearner(spec, classes, seed, batch_size)
    if framework == "torch":
        from models.training.torch_learner import TorchLearner

        return TorchLearner(spec, classes, seed, batch_size)
    raise ModelError(f"There is no framework {framework!r}: choose one of {', '.join(FRAMEWORKS)}.")


def train(
    framework: str,
    dataset: Dataset,
    out_dir: Path,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Progress = no_progress,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
) -> TrainingRecord:
    """Train on `dataset.train`, evaluate on `dataset.test` after each epoch, write weights and record to `out_dir`.

    Cross-entropy with Adam, the learning rate falling along a half cosine; random crop, and flip where the data
    set allows it. Both files appear together at the end, replacing earlier ones. Raises ModelError for bad
    arguments or images, ModelEnvironmentError where the disk is full.
    """
    _check(epochs, batch_size, learning_rate)
    train_pixels = load_pixels(dataset.train.images, dataset.size, progress, "decoding training images")
    test_pixels = load_pixels(dataset.test.images, dataset.size, progress, "decoding held-out images")
    spec = training_spec(train_pixels)
    learner = make_learner(framework, spec, len(dataset.classes), seed, batch_size)
    plan = _Schedule(epochs, learning_rate, dataset.may_flip, np.random.default_rng(seed))
    history = _learn(
        learner,
        (normalise_in_place(train_pixels, spec), dataset.train.labels),
        (normalise_in_place(test_pixels, spec), dataset.test.labels),
        plan,
        progress,
    )
    record = _record(learner, dataset, spec, seed, batch_size, learning_rate, history)
    _save(learner, record, out_dir)
    return record


@dataclass
class _Schedule:
    epochs: int
    learning_rate: float
    flip: bool
    rng: np.random.Generator

    def rate(self, epoch: int) -> float:
        """Half a cosine from the full rate to nearly nothing (Loshchilov and Hutter 2017, without restarts)."""
        return float(self.learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / self.epochs)))


def _check(epochs: int, batch_size: int, learning_rate: float) -> None:
    if epochs < 1:
        raise ModelError(f"{epochs} epochs train nothing: ask for at least 1.")
    if batch_size < 2:
        raise ModelError(f"A batch size of {batch_size} leaves batch norm without statistics: ask for at least 2.")
    if not 0 < learning_rate < 1:
        raise ModelError(f"A learning rate of {learning_rate} cannot work: choose one between 0 and 1.")


def _learn(
    learner: Learner,
    train_set: tuple[Pixels, Labels],
    test_set: tuple[Pixels, Labels],
    plan: _Schedule,
    progress: Progress,
) -> list[Epoch]:
    images, labels = train_set
    padding = max(1, round(CROP_PADDING * images.shape[1] / 32))
    history: list[Epoch] = []
    for number in range(plan.epochs):
        what = f"training {learner.framework}, epoch {number + 1} of {plan.epochs}"

        def tick(fraction: float, number: int = number, what: str = what) -> None:
            progress(what, (number + fraction) / plan.epochs)

        started_ns = time.monotonic_ns()
        shifted = augment(images, plan.rng, padding, plan.flip)
        loss = learner.epoch(shifted, labels, plan.rate(number), tick)
        seconds = (time.monotonic_ns() - started_ns) / 1e9
        history.append(_evaluate(learner, test_set, loss, seconds))
    return history


def _evaluate(learner: Learner, test_set: tuple[Pixels, Labels], training_loss: float, seconds: float) -> Epoch:
    images, labels = test_set
    probabilities = learner.predict(images)
    top1, top5 = (top_k(probabilities, labels, k) for k in (1, 5))
    return Epoch(
        seconds=seconds,
        training_loss=training_loss,
        loss=cross_entropy(probabilities, labels),
        top1=top1,
        top5=top5,
    )


def top_k(probabilities: Pixels, labels: Labels, k: int) -> float:
    """Share of rows of (n, classes) whose label is among the k most probable classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == labels[:, None]).any(axis=1)))


def cross_entropy(probabilities: Pixels, labels: Labels) -> float:
    """Mean negative log likelihood (nats) of the labels under (n, classes) probabilities."""
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(likelihood, 1e-12)).mean())


def _record(
    learner: Learner,
    dataset: Dataset,
    spec: InputSpec,
    seed: int,
    batch_size: int,
    learning_rate: float,
    history: list[Epoch],
) -> TrainingRecord:
    return TrainingRecord(
        framework=learner.framework,
        architecture=ARCHITECTURE,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        train_images=len(dataset.train.images),
        test_images=len(dataset.test.images),
        labels=dataset.classes,
        input=spec,
        seed=seed,
        split_seed=dataset.seed,
        batch_size=batch_size,
        learning_rate=learning_rate,
        parameters=learner.parameters(),
        weights=learner.weights_name,
        epochs=history,
        frameworks=framework_versions(),
        git_commit=git_commit(),
    )


def _save(learner: Learner, record: TrainingRecord, out_dir: Path) -> None:
    with replacing([out_dir / learner.weights_name, record_path(out_dir, record.framework)]) as (
        weights,
        path,
    ):
        learner.save(weights)
        path.write_text(json.dumps(record.model_dump(), indent=2) + "\n")


def record_path(weights_dir: Path, framework: str) -> Path:
    """Where a framework's training record lies."""
    return weights_dir / f"training-{framework}.json"


def load_record(weights_dir: Path, framework: str) -> TrainingRecord:
    """Read a training record; raises ModelError where it is missing or not one."""
    path = record_path(weights_dir, framework)
    try:
        return TrainingRecord.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist: train the network with `servestorm train --framework {framework}` first."
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a training record of this version: train the network again.") from error
