"""The study's network in numbers: what the Keras and the torch version must share to be one function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.networks.network import WeightedLayer

FILTERS = (32, 64, 128)
"""3x3 convolutions, each followed by batch norm and ReLU."""
POOLED_BLOCKS = 2
"""A 2x2 max-pool follows each of the first blocks."""
DENSE_UNITS = (256, 128)
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_DECAY = 0.9
"""Weight of the old running statistics: Keras calls it momentum, torch takes one minus this."""


def feature_shape(height: int, width: int) -> tuple[int, int, int]:
    """(height, width, channels) of the last block's output, before it is flattened."""
    shrink = 2**POOLED_BLOCKS
    return height // shrink, width // shrink, FILTERS[-1]


@dataclass(frozen=True)
class CnnArchitecture:
    """Its numbers, and the table of its layers."""

    name: str = "cnn"
    side: int = 32
    smallest_side: int = 2**POOLED_BLOCKS

    def layers(self) -> Sequence[WeightedLayer]:
        """Of `features` and `classifier` in torch, which are plain sequences."""
        rows, place = [], 0
        for block in range(len(FILTERS)):
            conv = f"block{block + 1}_conv"
            rows.append(WeightedLayer("convolution", conv, f"features.{place}"))
            rows.append(WeightedLayer("norm", f"block{block + 1}_norm", f"features.{place + 1}", after=conv))
            place += 4 if block < POOLED_BLOCKS else 3
        names = [*(f"dense{number + 1}" for number in range(len(DENSE_UNITS))), "probabilities"]
        for number, name in enumerate(names):
            channels = 0 if number else FILTERS[-1]
            rows.append(WeightedLayer("dense", name, f"classifier.{1 + 2 * number}", flattened_channels=channels))
        return rows
