"""Pictures made from a seed: any size and number of classes, learnable, and without a download."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.datasets.dataset import Dataset, Progress, no_progress, pick, stratified_split
from models.errors import ModelError

COARSE = 6
"""A class is a pattern of so many coloured squares a side, which are blurred into each other."""
NOISE = 30.0
"""Standard deviation of a pixel, levels of 0..255."""
BLEND = 0.65
"""Share of a picture that is a pattern of its own: without it, a class would be one picture with noise."""
LEAST_IMAGES = 256
"""Parity is proved on so many."""
_HELD = 1 << 31
"""Bytes of pixels: beyond it, asking for less is better than running out of memory."""


def load_synthetic(
    size: tuple[int, int], classes: int = 10, images: int = 1000, seed: int = 0, progress: Progress = no_progress
) -> Dataset:
    """`images` PNG pictures of `size` (height, width) in `classes` classes of nearly equal size, a fifth held out.

    Raises ModelError for fewer than two classes, fewer than two pictures a class, fewer than 256 pictures, or more
    than 2 GiB of pixels.
    """
    require_possible(size, classes, images)
    rng = np.random.default_rng(seed)
    patterns = [_coarse(rng) for _ in range(classes)]
    labels = np.arange(images) % classes
    encoded = []
    for number, label in enumerate(labels):
        encoded.append(_picture(patterns[label], size, rng))
        if number % 64 == 0:
            progress("making pictures", number / images)
    train, test = stratified_split(labels, seed)
    return Dataset(
        name="synthetic",
        train=pick(encoded, labels, train),
        test=pick(encoded, labels, test),
        classes=[f"class {number}" for number in range(classes)],
        size=size,
        may_flip=False,
        seed=seed,
    )


def require_possible(size: tuple[int, int], classes: int, images: int) -> None:
    """Raise ModelError where `load_synthetic` would."""
    if classes < 2:
        raise ModelError("A classifier needs at least two classes: ask for --classes 2 or more.")
    if images < max(LEAST_IMAGES, 2 * classes):
        raise ModelError(
            f"{images} images are too few for {classes} classes: ask for --images {max(LEAST_IMAGES, 2 * classes)} or "
            "more."
        )
    if 3 * size[0] * size[1] * images > _HELD:
        raise ModelError(
            f"{images} images of {size[1]}x{size[0]} pixels take over {_HELD >> 30} GiB of memory: ask for fewer or "
            "smaller ones."
        )


def _coarse(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(0, 255, (COARSE, COARSE, 3)).astype(np.float32)


def _picture(pattern: NDArray[np.float32], size: tuple[int, int], rng: np.random.Generator) -> bytes:
    mixed = (1 - BLEND) * pattern + BLEND * _coarse(rng)
    smooth = Image.fromarray(mixed.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, dtype=np.float32) + rng.normal(0, NOISE, (*size, 3)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
