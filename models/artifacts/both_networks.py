"""The same weights in a network in memory: what the exported artifacts must answer like."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.artifacts.parity import networks_apart
from models.artifacts.source import ExportSource
from models.datasets.pixels import load_pixels
from models.errors import ParityError
from models.networks.weights import for_one_reading, to_keras, to_torch
from models.preprocessing import normalise
from models.training.learner import Framework, LearnerOrder, images_at_once
from models.training.train import BATCH_SIZE, make_learner


def check_network(
    framework: Framework, source: ExportSource, images: Sequence[bytes], exported: NDArray[np.float64]
) -> None:
    """Compare the artifact's (n, classes) outputs with the answers of one framework's network in memory.

    Raises ParityError where they differ by more than the tolerance: then the export, not the serving, is at fault.
    """
    _, reason = networks_apart(_predict(framework, source, images), exported)
    gc.collect()  # the network lies in circles of references, and two large ones are too many
    if reason:
        raise ParityError(
            f"The exported SavedModel differs from the {framework} network in memory, so nothing is exported: {reason}."
        )


def _predict(framework: Framework, source: ExportSource, images: Sequence[bytes]) -> NDArray[np.float64]:
    order = LearnerOrder(source.network, source.input, len(source.labels), source.seed or 0, BATCH_SIZE)
    learner = make_learner(framework, order)
    write = to_keras if framework == "keras" else to_torch
    write(source.network, for_one_reading(source.read()), learner.network)
    size = (source.input.height, source.input.width)
    parts, together = [], images_at_once(*size)
    for start in range(0, len(images), together):
        pixels = load_pixels(images[start : start + together], size)
        parts.append(learner.predict(normalise(pixels, source.input)))
    return np.concatenate(parts).astype(np.float64)
