"""EfficientNet-Lite0 in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.networks.efficientnet_lite0.architecture import BATCH_NORM_DECAY, BATCH_NORM_EPSILON, DROPOUT
from models.networks.torch_layers import SamePadding

if TYPE_CHECKING:
    from models.networks.efficientnet_lite0.architecture import EfficientNetLiteArchitecture, InvertedResidual


class TorchEfficientNetLite(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Normalised float32 (batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, network: EfficientNetLiteArchitecture, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = NormedConv(channels, network.stem, kernel=3, stride=2)
        blocks = list(network.inverted_residuals())
        self.blocks = nn.Sequential(*map(TorchInvertedResidual, blocks))
        self.head = NormedConv(blocks[-1].filters, network.head)
        self.dropout = nn.Dropout(DROPOUT)
        self.predictions = nn.Linear(network.head, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        x = self.head(self.blocks(self.stem(images)))
        logits: Tensor = self.predictions(self.dropout(x.mean(dim=(2, 3))))
        return logits


class TorchInvertedResidual(nn.Module):  # type: ignore[misc]
    """1x1 that widens, depthwise convolution, 1x1 that narrows."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        wide = block.expanded
        self.adds = block.adds
        self.expand: nn.Module = NormedConv(block.inputs, wide) if block.expands else nn.Identity()
        self.depthwise = NormedConv(wide, wide, block.kernel, block.stride, groups=wide)
        self.project = NormedConv(wide, block.filters, activates=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in and out."""
        inner: Tensor = self.project(self.depthwise(self.expand(x)))
        return inner + x if self.adds else inner


class NormedConv(nn.Module):  # type: ignore[misc]
    """A convolution without bias, batch norm, and ReLU6 unless `activates` is False."""

    def __init__(
        self, inputs: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1, activates: bool = True
    ) -> None:
        super().__init__()
        self.padding = SamePadding(kernel, stride)
        self.conv = nn.Conv2d(inputs, filters, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_DECAY)
        self.activation: nn.Module = nn.ReLU6() if activates else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in and out."""
        normed: Tensor = self.activation(self.norm(self.conv(self.padding(x))))
        return normed
