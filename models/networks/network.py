"""What a network is here: a table of the layers that hold weights, and how each framework builds it.

This module imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import keras
    from torch import nn

    from models.manifest import InputSpec

LayerKind = Literal["convolution", "depthwise", "norm", "dense"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Red, green, blue of pixels scaled to 0..1, as torchvision's weights take them."""
CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
"""The same for weights in the form of keras.applications (mode "caffe"): pixels of 0..255 less the mean."""


@dataclass(frozen=True)
class WeightedLayer:
    """A layer that holds weights: what it is, and its name in either network."""

    kind: LayerKind
    keras: str
    """Name of the layer."""
    torch: str
    """Path of the module."""
    after: str = ""
    """Of a batch norm: the Keras name of the convolution that it follows, into which it can be folded."""
    flattened_channels: int = 0
    """Of a dense layer on flattened feature maps: their channels, since the frameworks flatten in different orders."""
    published: str = ""
    """Path of the module in published torch weights, where that is another one."""


class Network(Protocol):
    """A network at one width and depth. Inputs are normalised float32, outputs softmax (Keras) or logits (torch)."""

    @property
    def name(self) -> str:
        """What plans, records and manifests call it."""

    @property
    def side(self) -> int:
        """Pixels of a square input as published."""

    @property
    def smallest_side(self) -> int:
        """Pixels: of less, nothing is left after the last pooling."""

    def layers(self) -> Sequence[WeightedLayer]:
        """All layers that hold weights, in the order of the forward pass."""

    def keras_network(self, spec: InputSpec, classes: int) -> keras.Model:
        """(batch, height, width, channels) to softmax (batch, classes); its last layer is the one dense layer with
        the activation."""

    def torch_network(self, spec: InputSpec, classes: int) -> nn.Module:
        """(batch, channels, height, width) to logits (batch, classes)."""
