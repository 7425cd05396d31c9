"""What our learners cost beside a plain loop in the same framework: CPU time of an epoch, paired.

    python benchmarks/networks/learners.py [--network cnn] [--size 32] [--images 2560] [--rounds 14] [--framework torch]

Each round trains one epoch by our learner and by every plain loop, in random order, on the same network, images, batch
size and optimiser, each with a copy of its own; epochs before the first round are left out. CPU time is that of all of
the process's threads. The plain loops are what each framework's own guide shows: for Keras `fit` without callbacks and
a loop of compiled steps under GradientTape, for torch the usual loop. Exit code 1 if an interval reaches 5 %.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from models.datasets.pixels import load_pixels, normalise_in_place, training_spec
from models.datasets.synthetic import load_synthetic
from models.networks.catalogue import NETWORKS, network_named
from models.quiet_import import import_tensorflow_quietly
from models.training.learner import FRAMEWORKS, Labels, LearnerOrder, Pixels
from models.training.train import make_learner

LEARNING_RATE, BATCH_SIZE, MOST = 1e-3, 32, 1.05
Epoch = Callable[[], Any]


def main() -> int:
    """Print a table; exit code 1 where our overhead may be 5 % or more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="cnn", help="(default: cnn)")
    parser.add_argument("--size", type=int, default=32, help="pixels a side (default: 32)")
    parser.add_argument("--images", type=int, default=2560, help="to learn from and hold out (default: 2560)")
    parser.add_argument("--rounds", type=int, default=14, help="(default: 14)")
    parser.add_argument("--framework", action="append", choices=FRAMEWORKS, help="(default: both)")
    options = parser.parse_args()
    dataset = load_synthetic((options.size, options.size), 10, options.images)
    pixels = load_pixels(dataset.train.images, dataset.size)
    spec = training_spec(pixels)
    images, labels = normalise_in_place(pixels, spec), dataset.train.labels
    order = LearnerOrder(network_named(options.network), spec, 10, 0, BATCH_SIZE)
    import_tensorflow_quietly()
    print("| framework | plain loop | CPU of an epoch, s: ours, plain | ratio | 95 % interval |\n|" + " --- |" * 5)
    frameworks = options.framework or FRAMEWORKS
    return max(row for framework in frameworks for row in compared(framework, order, images, labels, options.rounds))


def compared(framework: str, order: LearnerOrder, images: Pixels, labels: Labels, rounds: int) -> list[int]:
    """Print a line a plain loop; 1 for each whose interval reaches the limit."""
    learner = make_learner(framework, order)
    epochs: dict[str, Epoch] = {
        "ours": lambda: learner.epoch(images, labels, LEARNING_RATE, lambda fraction: None),
        **(plain_keras(order, images, labels) if framework == "keras" else plain_torch(order, images, labels)),
    }
    for epoch in epochs.values():
        epoch()
    spent: dict[str, list[float]] = {name: [] for name in epochs}
    shuffled = random.Random(0)
    for _ in range(rounds):
        for name in shuffled.sample(list(epochs), len(epochs)):
            began_s = time.process_time()
            epochs[name]()
            spent[name].append(time.process_time() - began_s)
    return [line(framework, name, spent["ours"], spent[name]) for name in epochs if name != "ours"]


def line(framework: str, name: str, ours: list[float], plain: list[float]) -> int:
    logs = [math.log(one / other) for one, other in zip(ours, plain, strict=True)]
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    ratio, low, high = (math.exp(statistics.mean(logs) + shift) for shift in (0, -half, half))
    means = f"{statistics.mean(ours):.2f}, {statistics.mean(plain):.2f}"
    print(f"| {framework} | {name} | {means} | {ratio:.3f} | {low:.3f} to {high:.3f} |", flush=True)
    return int(high >= MOST)


def plain_keras(order: LearnerOrder, images: Pixels, labels: Labels) -> dict[str, Epoch]:
    import keras
    import tensorflow as tf

    fitted = order.network.keras_network(order.input, order.classes)
    fitted.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss="sparse_categorical_crossentropy")

    stepped = order.network.keras_network(order.input, order.classes)
    optimiser = keras.optimizers.Adam(LEARNING_RATE)
    loss_of = keras.losses.SparseCategoricalCrossentropy()

    @tf.function  # type: ignore[untyped-decorator]
    def step(batch: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(wanted, stepped(batch, training=True))
        optimiser.apply(tape.gradient(loss, stepped.trainable_variables), stepped.trainable_variables)
        return loss

    rng = np.random.default_rng(0)

    def loop() -> None:
        shuffled = rng.permutation(len(images))
        total = 0.0
        for start in range(0, len(images), order.batch_size):
            chosen = shuffled[start : start + order.batch_size]
            total += float(step(images[chosen], labels[chosen])) * len(chosen)

    together = {"batch_size": order.batch_size, "epochs": 1, "shuffle": True, "verbose": 0}
    return {"fit": lambda: fitted.fit(images, labels, **together), "GradientTape": loop}


def plain_torch(order: LearnerOrder, images: Pixels, labels: Labels) -> dict[str, Epoch]:
    import torch

    network = order.network.torch_network(order.input, order.classes)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    criterion = torch.nn.CrossEntropyLoss()
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    targets = torch.from_numpy(labels)

    def loop() -> None:
        network.train()
        total = 0.0
        for chosen in torch.randperm(len(inputs)).split(order.batch_size):
            optimiser.zero_grad()
            loss = criterion(network(inputs[chosen]), targets[chosen])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(chosen)

    return {"the usual loop": loop}


if __name__ == "__main__":
    sys.exit(main())
