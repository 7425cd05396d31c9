"""Decoded images in memory: what training learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Progress, no_progress
from models.errors import ModelError
from models.manifest import InputSpec
from models.preprocessing import ImageError, decode_image, resize_bilinear, scale_and_shift

SMALLEST_STD = 1e-3
"""A channel that never varies is not divided by nothing."""


def load_pixels(
    images: Sequence[bytes],
    size: tuple[int, int],
    progress: Progress = no_progress,
    what: str = "decoding images",
) -> NDArray[np.float32]:
    """Decode and resize to float32 (n, height, width, 3) of 0..255. Raises ModelError for an undecodable image."""
    pixels = np.empty((len(images), *size, 3), dtype=np.float32)
    for i, image in enumerate(images):
        try:
            pixels[i] = resize_bilinear(decode_image(image), *size)
        except ImageError as error:
            raise ModelError(f"Image {i} of the data set is unusable: {error}") from error
        if i % 256 == 0:
            progress(what, i / len(images))
    progress(what, 1.0)
    return pixels


def normalise_in_place(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """What `models.preprocessing.normalise` computes, without a second copy of a whole data set."""
    scale, shift = scale_and_shift(spec)
    pixels *= scale
    pixels += shift
    return pixels


def training_spec(pixels: NDArray[np.float32]) -> InputSpec:
    """Input spec with the mean and standard deviation per channel of training pixels (n, h, w, 3) of 0..255."""
    mean = pixels.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    std = np.maximum(pixels.std(axis=(0, 1, 2), dtype=np.float64) / 255, SMALLEST_STD)
    _, height, width, channels = pixels.shape
    return InputSpec(
        height=height,
        width=width,
        channels=channels,
        mean=[round(float(value), 6) for value in mean],
        std=[round(float(value), 6) for value in std],
    )
