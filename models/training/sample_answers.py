"""Some held-out images with what the trained network says of them, right ones and wrong ones."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from models.datasets.dataset import Dataset
from models.preprocessing import decode_image
from models.training.learner import Pixels
from models.training.record import SampleAnswer

OF_EACH = 6
"""Right answers, and wrong ones."""
LONGEST_SIDE = 96
"""Of an image in a record, pixels."""


def sample_answers(probabilities: Pixels, dataset: Dataset) -> list[SampleAnswer]:
    """Up to six right and six wrong answers of (n, classes), chosen by the data set's seed: the right ones first."""
    order = np.random.default_rng(dataset.seed).permutation(len(probabilities))
    right = probabilities.argmax(axis=1) == dataset.test.labels
    chosen = [*[i for i in order if right[i]][:OF_EACH], *[i for i in order if not right[i]][:OF_EACH]]
    return [_answer(int(i), probabilities[i], dataset) for i in chosen]


def _answer(place: int, probabilities: Pixels, dataset: Dataset) -> SampleAnswer:
    answer, label = int(probabilities.argmax()), int(dataset.test.labels[place])
    return SampleAnswer(
        label=dataset.classes[label],
        answer=dataset.classes[answer],
        probability=float(np.clip(probabilities[answer], 0, 1)),
        right=answer == label,
        png=_png(dataset.test.images[place]),
    )


def _png(encoded: bytes) -> str:
    image = Image.fromarray(decode_image(encoded).astype(np.uint8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return base64.b64encode(sink.getvalue()).decode("ascii")
