"""The real handwritten digits that scikit-learn ships: 1,797 images, upscaled to 32x32x3 PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.datasets.dataset import DEFAULT_SIZE, Dataset, pick, stratified_split


def load_digits(seed: int = 0) -> Dataset:
    """The digits, four fifths to train and one fifth held out, the same for the same seed."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    images = [_png(grey) for grey in bunch.images]
    train, test = stratified_split(labels, seed)
    return Dataset(
        name="digits",
        train=pick(images, labels, train),
        test=pick(images, labels, test),
        classes=[str(name) for name in bunch.target_names],
        size=DEFAULT_SIZE,
        may_flip=False,
        seed=seed,
    )


def _png(grey: NDArray[np.float64]) -> bytes:
    """Encode one 8x8 image of levels 0..16."""
    small = Image.fromarray(np.round(grey * (255 / 16)).astype(np.uint8))
    large = small.resize((DEFAULT_SIZE[1], DEFAULT_SIZE[0]), Image.Resampling.BILINEAR).convert("RGB")
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    return buffer.getvalue()
