"""ResNet-50 in numbers, in two forms.

`keras` is version 1 as keras.applications has it: the stride in the first 1x1 convolution, biases, an epsilon of
1.001e-5. `torchvision` is version 1.5: the stride in the 3x3 convolution, no biases, an epsilon of 1e-5. Weights of one
do not give the other's answers. Layers bear the names of keras.applications and of torchvision in either form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from models.networks.network import WeightedLayer

ResNetForm = Literal["keras", "torchvision"]
EXPANSION = 4
"""The last convolution of a block has so many times the channels of its others."""


@dataclass(frozen=True)
class Bottleneck:
    """One residual block."""

    keras: str
    """Prefix of its layers' names."""
    torch: str
    """Path of its module."""
    width: int
    stride: int
    projects: bool
    """Whether the shortcut has a convolution of its own."""


@dataclass(frozen=True)
class ResNetArchitecture:
    """Its numbers, and the table of its layers."""

    form: ResNetForm
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    side: int = 224
    smallest_side: int = 32

    @property
    def name(self) -> str:
        """Both forms have one, because they are two networks."""
        return f"resnet50-{self.form}"

    @property
    def epsilon(self) -> float:
        """Of batch norm."""
        return 1.001e-5 if self.form == "keras" else 1e-5

    @property
    def decay(self) -> float:
        """Weight of the old running statistics in batch norm."""
        return 0.99 if self.form == "keras" else 0.9

    @property
    def biased(self) -> bool:
        """Whether convolutions have a bias although batch norm follows."""
        return self.form == "keras"

    def bottlenecks(self) -> Iterator[Bottleneck]:
        """All blocks in order."""
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                yield Bottleneck(
                    keras=f"conv{stage + 2}_block{block + 1}",
                    torch=f"layer{stage + 1}.{block}",
                    width=self.width << stage,
                    stride=2 if stage and not block else 1,
                    projects=not block,
                )

    def layers(self) -> Sequence[WeightedLayer]:
        """Names of keras.applications.ResNet50 and of torchvision.models.resnet50."""
        rows = [*_normed("conv1_conv", "conv1_bn", "conv1", "bn1")]
        for block in self.bottlenecks():
            if block.projects:
                shortcut = f"{block.torch}.downsample"
                rows += _normed(f"{block.keras}_0_conv", f"{block.keras}_0_bn", f"{shortcut}.0", f"{shortcut}.1")
            for number in (1, 2, 3):
                name, path = f"{block.keras}_{number}", block.torch
                rows += _normed(f"{name}_conv", f"{name}_bn", f"{path}.conv{number}", f"{path}.bn{number}")
        return [*rows, WeightedLayer("dense", "predictions", "fc")]


def _normed(conv: str, norm: str, torch_conv: str, torch_norm: str) -> Iterator[WeightedLayer]:
    yield WeightedLayer("convolution", conv, torch_conv)
    yield WeightedLayer("norm", norm, torch_norm, after=conv)
