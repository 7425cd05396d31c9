"""The study's network in torch."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from models.networks.cnn.architecture import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
    DENSE_UNITS,
    FILTERS,
    POOLED_BLOCKS,
    feature_shape,
)


class TorchCnn(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Normalised float32 (batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, height: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_blocks(channels))
        self.classifier = nn.Sequential(nn.Flatten(), *_dense(prod(feature_shape(height, width)), classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, because torch's cross-entropy takes them; `Probabilities` adds the softmax."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _blocks(channels: int) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for block, filters in enumerate(FILTERS):
        modules += [
            nn.Conv2d(channels, filters, 3, padding="same", bias=False),
            nn.BatchNorm2d(filters, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_DECAY),
            nn.ReLU(),
        ]
        if block < POOLED_BLOCKS:
            modules.append(nn.MaxPool2d(2))
        channels = filters
    return modules


def _dense(inputs: int, classes: int) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for units in DENSE_UNITS:
        modules += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return [*modules, nn.Linear(inputs, classes)]
