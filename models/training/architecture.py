"""The study's network in numbers: what the Keras and the torch version must share to be one function."""

from __future__ import annotations

FILTERS = (32, 64, 128)
"""3x3 convolutions, each followed by batch norm and ReLU."""
POOLED_BLOCKS = 2
"""A 2x2 max-pool follows each of the first blocks."""
DENSE_UNITS = (256, 128)
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_DECAY = 0.9
"""Weight of the old running statistics: Keras calls it momentum, torch takes one minus this."""
ARCHITECTURE = "cnn"


def feature_shape(height: int, width: int) -> tuple[int, int, int]:
    """(height, width, channels) of the last block's output, before it is flattened."""
    shrink = 2**POOLED_BLOCKS
    return height // shrink, width // shrink, FILTERS[-1]
