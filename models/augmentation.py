"""Random flip and crop, on a whole epoch at once, the same for both frameworks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def augment(images: Pixels, rng: np.random.Generator, padding: int, flip: bool) -> Pixels:
    """Shift each of (n, h, w, c) by up to `padding` pixels either way, edges repeated, and mirror half of them."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="edge")
    tops, lefts = rng.integers(0, 2 * padding + 1, (2, len(images)))
    cropped = np.empty_like(images)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        cropped[i] = padded[i, top : top + height, left : left + width]
    if flip:
        mirrored = rng.random(len(images)) < 0.5
        cropped[mirrored] = cropped[mirrored, :, ::-1]
    return cropped
