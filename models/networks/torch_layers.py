"""Layers that torch lacks: padding as TensorFlow's "SAME" does it, and a network with its softmax."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Probabilities(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """A network with its softmax: what is exported."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Softmax (batch, classes) of normalised float32 (batch, channels, height, width)."""
        probabilities: Tensor = self.network(images).softmax(dim=1)
        return probabilities


class SamePadding(nn.Module):  # type: ignore[misc]
    """Pads so that ceil(size / stride) windows fit; where the padding is odd, the greater part goes after the image.

    A convolution or pooling with `padding=0` follows. torch's own padding is the same on both sides, which is another
    network wherever the stride is over 1.
    """

    def __init__(self, kernel: int, stride: int, value: float = 0.0) -> None:
        super().__init__()
        self.kernel, self.stride, self.value = kernel, stride, value

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), padded with `value`."""
        top, bottom = self._padding(int(images.shape[2]))
        left, right = self._padding(int(images.shape[3]))
        padded: Tensor = functional.pad(images, (left, right, top, bottom), value=self.value)
        return padded

    def _padding(self, size: int) -> tuple[int, int]:
        windows = -(-size // self.stride)
        total = max((windows - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2
