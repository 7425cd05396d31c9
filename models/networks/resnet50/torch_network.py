"""ResNet-50 in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.networks.resnet50.architecture import EXPANSION

if TYPE_CHECKING:
    from models.networks.resnet50.architecture import Bottleneck, ResNetArchitecture


class TorchResNet(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Normalised float32 (batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, network: ResNetArchitecture, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, network.width, 7, stride=2, padding=3, bias=network.biased)
        self.bn1 = _norm(network, network.width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: dict[str, list[nn.Module]] = {}
        wide = network.width
        for block in network.bottlenecks():
            stages.setdefault(block.torch.split(".")[0], []).append(TorchBottleneck(network, block, wide))
            wide = EXPANSION * block.width
        for name, blocks in stages.items():
            self.add_module(name, nn.Sequential(*blocks))
        self.stages = tuple(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(wide, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class TorchBottleneck(nn.Module):  # type: ignore[misc]
    """1x1, 3x3, 1x1, and the shortcut around them."""

    def __init__(self, network: ResNetArchitecture, block: Bottleneck, channels: int) -> None:
        super().__init__()
        width, wide, bias = block.width, EXPANSION * block.width, network.biased
        first, second = (block.stride, 1) if network.form == "keras" else (1, block.stride)
        self.conv1 = nn.Conv2d(channels, width, 1, stride=first, bias=bias)
        self.bn1 = _norm(network, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=1, bias=bias)
        self.bn2 = _norm(network, width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=bias)
        self.bn3 = _norm(network, wide)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if block.projects:
            conv = nn.Conv2d(channels, wide, 1, stride=block.stride, bias=bias)
            self.downsample = nn.Sequential(conv, _norm(network, wide))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in and out."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        summed: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.downsample(x))
        return summed


def _norm(network: ResNetArchitecture, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=network.epsilon, momentum=1 - network.decay)
