"""A network of one dense layer: nothing in it depends on how a batch is split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.networks.network import WeightedLayer


@dataclass(frozen=True)
class LinearNetwork:
    """Fulfils models.networks.network.Network for torch alone."""

    name: str = "linear"
    side: int = 8
    smallest_side: int = 1

    def layers(self) -> Sequence[WeightedLayer]:
        return [WeightedLayer("dense", "probabilities", "1", flattened_channels=3)]

    def torch_network(self, spec, classes):
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(3 * spec.height * spec.width, classes))
