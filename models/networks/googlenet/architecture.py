"""GoogLeNet in numbers: a 7x7 stem, nine inception blocks of four branches, global average pooling, dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.networks.network import WeightedLayer

DROPOUT = 0.4


@dataclass(frozen=True)
class Inception:
    """Filters of the branches' convolutions."""

    name: str
    single: int
    """1x1."""
    reduce_3x3: int
    """1x1 before the 3x3."""
    conv_3x3: int
    reduce_5x5: int
    """1x1 before the 5x5."""
    conv_5x5: int
    pooled: int
    """1x1 after the max-pool."""
    pool_before: bool = False
    """Whether a 3x3 max-pool of stride 2 comes first."""

    @property
    def channels(self) -> int:
        """Of the output."""
        return self.single + self.conv_3x3 + self.conv_5x5 + self.pooled


INCEPTIONS = (
    Inception("3a", 64, 96, 128, 16, 32, 32, pool_before=True),
    Inception("3b", 128, 128, 192, 32, 96, 64),
    Inception("4a", 192, 96, 208, 16, 48, 64, pool_before=True),
    Inception("4b", 160, 112, 224, 24, 64, 64),
    Inception("4c", 128, 128, 256, 24, 64, 64),
    Inception("4d", 112, 144, 288, 32, 64, 64),
    Inception("4e", 256, 160, 320, 32, 128, 128),
    Inception("5a", 256, 160, 320, 32, 128, 128, pool_before=True),
    Inception("5b", 384, 192, 384, 48, 128, 128),
)
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_1x1")
"""Convolutions of an inception block, as their layers are named."""


@dataclass(frozen=True)
class GoogLeNetArchitecture:
    """Its numbers, and the table of its layers."""

    name: str = "googlenet"
    stem: tuple[int, int, int] = (64, 64, 192)
    """Filters of the 7x7, the 1x1 and the 3x3."""
    inceptions: tuple[Inception, ...] = INCEPTIONS
    side: int = 224
    smallest_side: int = 32

    def layers(self) -> Sequence[WeightedLayer]:
        """The same names on either side; every convolution has a bias and ReLU, none batch norm."""
        rows = [WeightedLayer("convolution", f"stem_{size}", f"stem_{size}") for size in ("7x7", "1x1", "3x3")]
        rows += _branches(self.inceptions)
        return [*rows, WeightedLayer("dense", "predictions", "predictions")]


def _branches(inceptions: Sequence[Inception]) -> Iterator[WeightedLayer]:
    for number, block in enumerate(inceptions):
        for branch in BRANCHES:
            yield WeightedLayer("convolution", f"inception_{block.name}_{branch}", f"inceptions.{number}.conv_{branch}")
