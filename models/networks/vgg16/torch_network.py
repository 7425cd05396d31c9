"""VGG-16 in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.networks.vgg16.architecture import DROPOUT

if TYPE_CHECKING:
    from models.networks.vgg16.architecture import VggArchitecture


class TorchVgg(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Normalised float32 (batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, network: VggArchitecture, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        modules: list[nn.Module] = []
        for _, filters, pooled in network.convolutions():
            modules += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            if pooled:
                modules.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = filters
        self.features = nn.Sequential(*modules)
        units, modules = channels * height * width, []
        for following in network.dense_units:
            modules += [nn.Linear(units, following), nn.ReLU(), nn.Dropout(DROPOUT)]
            units = following
        self.classifier = nn.Sequential(*modules, nn.Linear(units, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
