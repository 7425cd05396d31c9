"""Random flip and crop, on a whole epoch at once, the same for both frameworks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def augment(images: Pixels, rng: np.random.Generator, padding: int, flip: bool) -> Pixels:
    """Shift each of (n, h, w, c) by up to `padding` pixels either way, edges repeated, and mirror half of them."""
    count, height, width = images.shape[:3]
    shifts = rng.integers(-padding, padding + 1, (count, 2))
    mirrored = rng.random(count) < 0.5 if flip else np.zeros(count, dtype=bool)
    rows = np.clip(np.arange(height) + shifts[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) + shifts[:, 1:], 0, width - 1)
    columns[mirrored] = columns[mirrored, ::-1]
    shifted = np.empty_like(images)
    for i in range(count):
        shifted[i] = images[i][rows[i]][:, columns[i]]
    return shifted
