"""VGG-16 as it is built in either framework; neither is imported before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.networks.vgg16.architecture import VggArchitecture

if TYPE_CHECKING:
    import keras
    from torch import nn

    from models.manifest import InputSpec


@dataclass(frozen=True)
class Vgg(VggArchitecture):
    """Fulfils `models.networks.network.Network`."""

    def keras_network(self, spec: InputSpec, classes: int) -> keras.Model:
        """(batch, height, width, channels) to softmax (batch, classes)."""
        from models.networks.vgg16.keras_network import build

        return build(self, (spec.height, spec.width, spec.channels), classes)

    def torch_network(self, spec: InputSpec, classes: int) -> nn.Module:
        """(batch, channels, height, width) to logits (batch, classes)."""
        from models.networks.vgg16.torch_network import TorchVgg

        return TorchVgg(self, (spec.height, spec.width, spec.channels), classes)
