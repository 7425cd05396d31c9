"""The same weights in both in-memory networks: what the exported artifacts must answer like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.artifacts.parity import TOLERANCE, largest_difference
from models.datasets.pixels import load_pixels
from models.errors import ParityError
from models.preprocessing import normalise
from models.training.learner import FRAMEWORKS, Framework
from models.training.train import TrainingRecord, make_learner
from models.training.weights import CnnWeights, to_keras, to_torch


def check_networks(
    weights: CnnWeights, record: TrainingRecord, images: Sequence[bytes], exported: NDArray[np.float64]
) -> float:
    """Largest difference between the artifact's (n, classes) outputs and either in-memory network's.

    Raises ParityError where it is over the tolerance: then the export, not the serving, is at fault.
    """
    pixels = load_pixels(images, (record.input.height, record.input.width))
    inputs = normalise(pixels, record.input)
    worst = 0.0
    for framework in FRAMEWORKS:
        outputs = _predict(framework, weights, record, inputs)
        worst = max(worst, difference := largest_difference(outputs, exported))
        if difference > TOLERANCE:
            raise ParityError(
                f"The exported SavedModel differs from the {framework} network in memory by {difference:.2e}, over "
                f"{TOLERANCE:.0e}: nothing is exported."
            )
    return worst


def _predict(
    framework: Framework, weights: CnnWeights, record: TrainingRecord, inputs: NDArray[np.float32]
) -> NDArray[np.float64]:
    learner = make_learner(framework, record.input, len(record.labels), record.seed, record.batch_size)
    if framework == "keras":
        to_keras(weights, learner.network)
    else:
        to_torch(weights, learner.network)
    return learner.predict(inputs).astype(np.float64)
