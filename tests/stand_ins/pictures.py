"""Images of every kind, made up for the tests."""

import io

import numpy as np
from PIL import Image


def picture(height, width, channels=3, seed=0):
    """A smooth colourful image with some noise, uint8 (h, w, c)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 110 * np.sin(x / (3 + c) + y / (5 + c) + c) for c in range(channels)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def encode(image, kind, **options):
    """Encode an array or a Pillow image."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()
