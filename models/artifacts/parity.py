"""The proof that both exported artifacts compute the same function, encoded bytes in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerNames
from models.artifacts.handler.run import probabilities, run_handler
from models.errors import ModelError, ParityError
from models.manifest import NOT_PROVED, PROVED, Parity

TOLERANCE = 1e-5
MIN_IMAGES = 256
MAX_IMAGES = 512
LOGIT_TOLERANCE = 1e-4
"""Of a logit, in units of the image's largest."""
_SMALLEST_SCALE = 0.1
"""Of logits: below it their differences are the softmax's own rounding."""
_UNDERFLOW = 1e-30
"""Smaller probabilities have lost digits."""
BATCH_SIZES = (1, 1, 2, 7, 32)
"""The handler is asked in these batches, so that batching is proved as well."""


def parity_images(test: Sequence[bytes], train: Sequence[bytes]) -> list[bytes]:
    """Up to MAX_IMAGES images: held-out ones, topped up with training images where they are too few.

    Raises ModelError where there are fewer than MIN_IMAGES in all.
    """
    images = list(test[:MAX_IMAGES])
    images += train[: max(0, MIN_IMAGES - len(images))]
    if len(images) < MIN_IMAGES:
        raise ModelError(
            f"The data set has {len(images)} images, and parity is proved on at least {MIN_IMAGES}: add images."
        )
    return images


def largest_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Largest difference of two (n, values) arrays: absolute, in units of the largest number of the image if over 1.

    Of probabilities it is the absolute difference. A float32 logit of 1,000 is rounded to 3e-5, so an absolute limit
    would not do for both.

    Raises ParityError where shapes differ or a number is not finite.
    """
    if first.shape != second.shape:
        raise ParityError(f"The outputs have different shapes, {first.shape} and {second.shape}: not one model.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ParityError("The outputs are not all finite numbers: train the network again.")
    largest = np.maximum(np.abs(first), np.abs(second)).max(axis=1, keepdims=True)
    return float((np.abs(first - second) / np.maximum(largest, 1.0)).max())


def largest_logit_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Largest difference of the logits of two (n, classes) arrays of probabilities, in units of the image's largest.

    Softmax takes nothing from logits but a number that is the same for all classes: their logarithms, less their mean,
    are the logits less their mean. Of a thousand classes that an untrained network holds for equally likely, every
    probability is within 1e-5 of any other; logits differ where the networks do.
    """
    # Or: a probability that one side alone lacks is a difference.
    usable = (first > _UNDERFLOW) | (second > _UNDERFLOW)
    logits = [_centred(np.log(np.maximum(outputs, _UNDERFLOW)), usable) for outputs in (first, second)]
    scale = np.maximum(np.abs(logits[0]).max(axis=1, keepdims=True), _SMALLEST_SCALE)
    return float((np.abs(logits[0] - logits[1]) / scale).max())


def _centred(logits: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    usable_sum = np.where(usable, logits, 0.0).sum(axis=1, keepdims=True)
    mean = usable_sum / np.maximum(usable.sum(axis=1, keepdims=True), 1)
    return np.where(usable, logits - mean, 0.0)


def networks_apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, str | None]:
    """(largest difference of a probability, why two (n, classes) outputs of probabilities are not of one network).

    Raises ParityError where shapes differ or a number is not finite.
    """
    difference = largest_difference(first, second)
    if difference > TOLERANCE:
        return difference, f"outputs differ by up to {difference:.2e}, over {TOLERANCE:.0e}"
    logits = largest_logit_difference(first, second)
    if logits > LOGIT_TOLERANCE:
        return difference, f"logits differ by up to {logits:.2e} of the largest, over {LOGIT_TOLERANCE:.0e}"
    return difference, None


def judge(first: NDArray[np.float64], second: NDArray[np.float64], tolerance: float = TOLERANCE) -> Parity:
    """The manifest's entry for two artifacts' (n, classes) outputs for the same n images."""
    difference: float | None = None
    reason: str | None = None
    try:
        difference = largest_difference(first, second)
    except ParityError as error:
        reason = str(error)
    if difference is not None and difference > tolerance:
        reason = f"Outputs differ by up to {difference:.2e} on {len(first)} images, over {tolerance:.0e}."
    elif difference is not None and len(first) < MIN_IMAGES:
        reason = f"Outputs agree on {len(first)} images, but a proof needs {MIN_IMAGES}."
    return Parity(
        status=NOT_PROVED if reason else PROVED,
        tolerance=tolerance,
        images=len(first),
        max_abs_difference=difference,
        reason=reason,
    )


def prove(savedmodel_outputs: NDArray[np.float64], mar: Path, images: Sequence[bytes]) -> Parity:
    """Run the handler in `mar` on `images` and compare; raises ParityError naming the figure where they differ."""
    handler_outputs = probabilities(run_handler(mar, images, BATCH_SIZES), AnswerNames())
    parity = judge(savedmodel_outputs, handler_outputs)
    reason = parity.reason
    if parity.status == PROVED:
        logits = largest_logit_difference(savedmodel_outputs, handler_outputs)
        parity = parity.model_copy(update={"max_logit_difference": logits})
        if logits > LOGIT_TOLERANCE:
            reason = f"Logits differ by up to {logits:.2e} of the image's largest, over {LOGIT_TOLERANCE:.0e}."
    if reason:
        raise ParityError(f"The SavedModel and the .mar are not the same function, so nothing is exported: {reason}")
    return parity
