"""GoogLeNet in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.networks.googlenet.architecture import DROPOUT
from models.networks.torch_layers import SamePadding

if TYPE_CHECKING:
    from models.networks.googlenet.architecture import GoogLeNetArchitecture, Inception

NOTHING = float("-inf")
"""Of a max-pool's padding."""


class TorchGoogLeNet(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Normalised float32 (batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, network: GoogLeNetArchitecture, channels: int, classes: int) -> None:
        super().__init__()
        first, second, third = network.stem
        self.stem_padding = SamePadding(7, 2)
        self.stem_7x7 = nn.Conv2d(channels, first, 7, stride=2)
        self.stem_1x1 = nn.Conv2d(first, second, 1)
        self.stem_3x3 = nn.Conv2d(second, third, 3, padding=1)
        self.pool = nn.Sequential(SamePadding(3, 2, NOTHING), nn.MaxPool2d(3, stride=2))
        self.relu = nn.ReLU()
        self.inceptions = nn.ModuleList()
        self.pooled = [block.pool_before for block in network.inceptions]
        for block in network.inceptions:
            self.inceptions.append(TorchInception(block, third))
            third = block.channels
        self.dropout = nn.Dropout(DROPOUT)
        self.predictions = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        x = self.pool(self.relu(self.stem_7x7(self.stem_padding(images))))
        x = self.relu(self.stem_3x3(self.relu(self.stem_1x1(x))))
        for pooled, inception in zip(self.pooled, self.inceptions, strict=True):
            x = inception(self.pool(x) if pooled else x)
        logits: Tensor = self.predictions(self.dropout(x.mean(dim=(2, 3))))
        return logits


class TorchInception(nn.Module):  # type: ignore[misc]
    """Four branches side by side, concatenated by channel."""

    def __init__(self, block: Inception, channels: int) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv2d(channels, block.single, 1)
        self.conv_3x3_reduce = nn.Conv2d(channels, block.reduce_3x3, 1)
        self.conv_3x3 = nn.Conv2d(block.reduce_3x3, block.conv_3x3, 3, padding=1)
        self.conv_5x5_reduce = nn.Conv2d(channels, block.reduce_5x5, 1)
        self.conv_5x5 = nn.Conv2d(block.reduce_5x5, block.conv_5x5, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.conv_pool_1x1 = nn.Conv2d(channels, block.pooled, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in and out."""
        single = self.conv_1x1(x)
        middle = self.conv_3x3(self.relu(self.conv_3x3_reduce(x)))
        large = self.conv_5x5(self.relu(self.conv_5x5_reduce(x)))
        pooled = self.conv_pool_1x1(self.pool(x))
        joined: Tensor = self.relu(torch.cat([single, middle, large, pooled], dim=1))
        return joined
