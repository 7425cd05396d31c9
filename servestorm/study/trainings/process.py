"""One training of a study, in a process of its own, which waits for its turn before each epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from models.training.devices import use_device
from servestorm.plan.training import TrainingData
from servestorm.plan.values import DeviceName, FrameworkName, PrecisionName


@dataclass(frozen=True)
class TrainingOrder:
    """What one training of a study does; the same seed gives every framework the same data and the same order."""

    framework: FrameworkName
    network: str
    data: TrainingData
    batch_size: int
    threads: int | None
    """None: one for each usable core, shared among the processes."""
    processes: int
    epochs: int
    learning_rate: float
    pretrained: Path | None
    compiled: bool
    precision: PrecisionName
    device: DeviceName
    seed: int
    side_by_side: int
    """Trainings that stand at once."""


def train_in_turns(connection: Connection, order: TrainingOrder) -> None:
    """Tells "ready" and waits for a word before each epoch and before its report; tells "epoch", and at last "done".

    "done" comes with what is to lie in training.json.
    """
    threads = order.threads or max(1, len(os.sched_getaffinity(0)) // order.processes)
    use_device(order.framework, order.device, threads)
    from models.datasets.load import load_dataset
    from models.networks.catalogue import network_named
    from models.training.learner import StepOptions
    from models.training.record import StudyTraining
    from models.training.sample_answers import sample_answers
    from models.training.train import learn

    @contextmanager
    def turn(_epoch: int) -> Iterator[None]:
        _await(connection)
        yield
        connection.send(("epoch",))

    dataset = load_dataset(
        order.data.dataset,
        data_dir=order.data.data_dir,
        seed=order.seed,
        size=image_size(order.network, order.data),
        classes=order.data.classes,
        images=order.data.images,
    )
    learnt = learn(
        order.framework,
        dataset,
        epochs=order.epochs,
        seed=order.seed,
        progress=lambda what, share: connection.send(("progress", what, share)),
        batch_size=order.batch_size,
        learning_rate=order.learning_rate,
        network=network_named(order.network).name,
        pretrained=order.pretrained,
        options=StepOptions(order.compiled, order.precision, order.device, order.processes),
        turn=turn,
        side_by_side=order.side_by_side,
    )
    _await(connection)  # the report takes time of the others otherwise
    samples = sample_answers(learnt.answers, dataset)
    left = StudyTraining(record=learnt.record, threads=threads, samples=samples)
    connection.send(("done", left.model_dump(mode="json")))


def image_size(network: str, data: TrainingData) -> tuple[int, int]:
    """(height, width) of the images of a training."""
    from models.networks.catalogue import network_named

    if data.size:
        height, width = map(int, data.size.split("x"))
        return height, width
    side = network_named(network).side
    return side, side


def _await(connection: Connection) -> None:
    connection.send(("ready",))
    connection.recv()
