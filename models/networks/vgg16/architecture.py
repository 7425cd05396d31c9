"""VGG-16 in numbers. Layers bear the names of keras.applications and of torchvision, whose networks are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.networks.network import WeightedLayer

DROPOUT = 0.5


@dataclass(frozen=True)
class VggArchitecture:
    """Its numbers, and the table of its layers."""

    name: str = "vgg16"
    blocks: tuple[tuple[int, int], ...] = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    """(convolutions, filters) of each; a 2x2 max-pool follows."""
    dense_units: tuple[int, ...] = (4096, 4096)
    side: int = 224
    smallest_side: int = 32

    def convolutions(self) -> Iterator[tuple[str, int, bool]]:
        """(Keras name, filters, whether a max-pool follows) of each."""
        for block, (count, filters) in enumerate(self.blocks):
            for number in range(count):
                yield f"block{block + 1}_conv{number + 1}", filters, number == count - 1

    def layers(self) -> Sequence[WeightedLayer]:
        """Names of keras.applications.VGG16 and of torchvision.models.vgg16."""
        rows, place = [], 0
        for name, _, pooled in self.convolutions():
            rows.append(WeightedLayer("convolution", name, f"features.{place}"))
            place += 3 if pooled else 2
        names = [*(f"fc{number + 1}" for number in range(len(self.dense_units))), "predictions"]
        for number, name in enumerate(names):
            channels = 0 if number else self.blocks[-1][1]
            rows.append(WeightedLayer("dense", name, f"classifier.{3 * number}", flattened_channels=channels))
        return rows
