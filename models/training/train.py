"""Train a network in Keras or in torch, and record what happened."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.atomic import replacing
from models.datasets.augmentation import augment
from models.datasets.dataset import Dataset, Progress, no_progress
from models.datasets.pixels import load_pixels, normalise_in_place, training_spec
from models.errors import ModelError
from models.manifest import sha256_of
from models.networks.catalogue import DEFAULT_NETWORK, network_named
from models.networks.network import Network
from models.networks.pretrained import read_pretrained
from models.provenance import framework_versions, git_commit
from models.training.learner import FRAMEWORKS, USUAL_STEP, Labels, Learner, LearnerOrder, Pixels, StepOptions
from models.training.memory import require_memory
from models.training.record import Epoch, TrainingRecord, record_path
from models.training.resource_watch import ResourceWatch, cpu_s
from models.training.scores import classification, cross_entropy, top_k

EPOCHS = 5
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
CROP_PADDING = 2
"""Pixels that a random crop may shift a 32-pixel image; larger images shift in proportion."""


def make_learner(framework: str, order: LearnerOrder) -> Learner:
    """The learner of a framework; raises ModelError for an unknown one, or pretrained weights that do not fit."""
    if framework == "keras":
        from models.training.keras_learner import KerasLearner

        return KerasLearner(order)
    if framework == "torch":
        from models.training.torch_learner import TorchLearner

        return TorchLearner(order)
    raise ModelError(f"There is no framework {framework!r}: choose one of {', '.join(FRAMEWORKS)}.")


Turn = Callable[[int], AbstractContextManager[None]]
"""Of an epoch, from 0 on: entered before it, where a training may have to wait, and left after its evaluation."""


@dataclass(frozen=True)
class Learnt:
    """A training that has come to its end."""

    learner: Learner
    record: TrainingRecord
    answers: Pixels
    """Softmax (n, classes) of the held-out images after the last epoch."""


def train(
    framework: str,
    dataset: Dataset,
    out_dir: Path,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Progress = no_progress,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    network: str = DEFAULT_NETWORK,
    pretrained: Path | None = None,
    options: StepOptions = USUAL_STEP,
) -> TrainingRecord:
    """As `learn`; weights and record appear in `out_dir` together at the end, replacing earlier ones."""
    learnt = learn(framework, dataset, epochs, seed, progress, batch_size, learning_rate, network, pretrained, options)
    _save(learnt.learner, learnt.record, out_dir)
    return learnt.record


def learn(
    framework: str,
    dataset: Dataset,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Progress = no_progress,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    network: str = DEFAULT_NETWORK,
    pretrained: Path | None = None,
    options: StepOptions = USUAL_STEP,
    turn: Turn = lambda _epoch: nullcontext(),
    side_by_side: int = 1,
) -> Learnt:
    """Train `network` on `dataset.train`, evaluate on `dataset.test` after each epoch.

    Cross-entropy with Adam, the learning rate falling along a half cosine; random crop, and flip where the data set
    allows it. With `pretrained`, a file of published weights, their features stay as they are and only the dense head
    learns; the images are normalised as those weights need it. `options` say how a step is computed. `side_by_side`
    trainings like this one are to fit into memory. Raises ModelError for bad arguments or images,
    ModelEnvironmentError where the disk is full or the memory too small.
    """
    _check(epochs, batch_size, learning_rate)
    require_possible(framework, options, batch_size)
    _require_images(dataset, options.processes)
    chosen = network_named(network)
    require_size(chosen, dataset.size)
    require_memory(chosen, dataset, batch_size, side_by_side, options.processes)
    given = None if pretrained is None else read_pretrained(chosen, pretrained)
    train_pixels = load_pixels(dataset.train.images, dataset.size, progress, "decoding training images")
    test_pixels = load_pixels(dataset.test.images, dataset.size, progress, "decoding held-out images")
    spec = training_spec(train_pixels) if given is None else given.scale.spec(dataset.size)
    features = None if given is None else given.weights
    order = LearnerOrder(chosen, spec, len(dataset.classes), seed, batch_size, features, options)
    learner = make_learner(framework, order)
    plan = _Schedule(epochs, learning_rate, dataset.may_flip, np.random.default_rng(seed))
    learnt = (normalise_in_place(train_pixels, spec), dataset.train.labels)
    held_out = (normalise_in_place(test_pixels, spec), dataset.test.labels)
    with closing(learner), ResourceWatch(helpers=learner.helpers) as watch:
        outcome = _learn(learner, learnt, held_out, plan, progress, turn, watch)
    report = classification(outcome.answers, dataset.test.labels, dataset.classes)
    taken_from = None if pretrained is None else sha256_of(pretrained)
    record = _record(learner, order, dataset, learning_rate, outcome.epochs, taken_from)
    record = record.model_copy(update={"use": watch.use, "classification": report})
    return Learnt(learner, record, outcome.answers)


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


def _require_images(dataset: Dataset, processes: int) -> None:
    images = len(dataset.train.images)
    if processes > 1 and images < 2 * processes:
        raise ModelError(
            f"{images} training images are too few for {processes} processes: give {2 * processes} or more."
        )


def require_possible(framework: str, options: StepOptions, batch_size: int) -> None:
    """Raise ModelError for options that do not go together, or that the framework does not have."""
    processes = options.processes
    if processes == 1:
        return
    if framework == "keras":
        raise ModelError(
            "Keras trains in one process: its fit refuses TensorFlow's MultiWorkerMirroredStrategy (Keras 3.15.1, "
            "TensorFlow 2.21.0). Train torch alone in several."
        )
    if options.compiled or options.device == "gpu":
        what = "torch.compile" if options.compiled else "a GPU"
        raise ModelError(f"{processes} processes train together on the CPU and without {what}: leave the other out.")
    if batch_size < 2 * processes:
        raise ModelError(
            f"A batch size of {batch_size} leaves fewer than two images to each of {processes} processes, of which "
            f"batch norm has no statistics: ask for {2 * processes} or more."
        )


def require_size(network: Network, size: tuple[int, int]) -> None:
    """Raise ModelError for images (height, width) that are too small for the network."""
    if min(size) < network.smallest_side:
        raise ModelError(
            f"{network.name} needs images of at least {network.smallest_side}x{network.smallest_side} pixels, and "
            f"those of this data set have {size[1]}x{size[0]}: choose a greater --size, or network cnn."
        )


@dataclass(frozen=True)
class _Outcome:
    epochs: list[Epoch]
    answers: Pixels
    """Softmax (n, classes) of the held-out images after the last epoch."""


def _learn(
    learner: Learner,
    train_set: tuple[Pixels, Labels],
    test_set: tuple[Pixels, Labels],
    plan: _Schedule,
    progress: Progress,
    turn: Turn,
    watch: ResourceWatch,
) -> _Outcome:
    images, labels = train_set
    padding = max(1, round(CROP_PADDING * images.shape[1] / 32))
    # As many of the images learnt from as are held out: all of a large set would take as long as learning.
    seen = np.random.default_rng(0).permutation(len(images))[: len(test_set[0])]
    history: list[Epoch] = []
    for number in range(plan.epochs):
        what = f"training {learner.framework}, epoch {number + 1} of {plan.epochs}"

        def tick(fraction: float, number: int = number, what: str = what) -> None:
            progress(what, (number + fraction) / plan.epochs)

        with turn(number), watch.running():
            started_ns, started_cpu_s = time.monotonic_ns(), cpu_s(learner.helpers)
            shifted = augment(images, plan.rng, padding, plan.flip)
            loss = learner.epoch(shifted, labels, plan.rate(number), tick)
            seconds, used_s = (time.monotonic_ns() - started_ns) / 1e9, cpu_s(learner.helpers) - started_cpu_s
            del shifted
            answers = learner.predict(test_set[0])
            history.append(
                Epoch(
                    seconds=seconds,
                    cpu_s=used_s,
                    training_loss=loss,
                    **_of_training(learner, (images[seen], labels[seen])),
                    loss=cross_entropy(answers, test_set[1]),
                    top1=top_k(answers, test_set[1], 1),
                    top5=top_k(answers, test_set[1], 5),
                )
            )
    return _Outcome(history, answers)


def _of_training(learner: Learner, seen: tuple[Pixels, Labels]) -> dict[str, float]:
    """Accuracy on images learnt from, as they are."""
    images, labels = seen
    answers = learner.predict(images)
    return {f"training_top{k}": top_k(answers, labels, k) for k in (1, 5)}


def _record(
    learner: Learner,
    order: LearnerOrder,
    dataset: Dataset,
    learning_rate: float,
    history: list[Epoch],
    pretrained_sha256: str | None,
) -> TrainingRecord:
    return TrainingRecord(
        framework=learner.framework,
        architecture=order.network.name,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        train_images=len(dataset.train.images),
        test_images=len(dataset.test.images),
        labels=dataset.classes,
        input=order.input,
        seed=order.seed,
        split_seed=dataset.seed,
        batch_size=order.batch_size,
        learning_rate=learning_rate,
        compiled=order.options.compiled,
        precision=order.options.precision,
        device=order.options.device,
        processes=order.options.processes,
        parameters=learner.parameters(),
        frozen=learner.frozen,
        pretrained_sha256=pretrained_sha256,
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
