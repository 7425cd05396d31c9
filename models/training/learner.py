"""What a framework's learner can do, whichever framework it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import InputSpec
from models.networks.network import Network
from models.networks.weights import Weights

Framework = Literal["keras", "torch"]


FRAMEWORKS: tuple[Framework, ...] = ("keras", "torch")


Pixels = NDArray[np.float32]


Labels = NDArray[np.int64]


PIXELS_AT_ONCE = 1 << 18
"""Of the images that are judged together: 256 of 32x32, 5 of 224x224."""


def images_at_once(height: int, width: int) -> int:
    """How many images of this size are judged together, so that a large network's layers fit into memory."""
    return max(1, PIXELS_AT_ONCE // (height * width))


Device = Literal["cpu", "gpu"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu")
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class StepOptions:
    """How a training step is computed."""

    compiled: bool = False
    """By the framework's compiler: XLA in Keras (`jit_compile`), Inductor in torch (`torch.compile`)."""
    precision: Precision = "float32"
    """Of the layers' outputs; with bfloat16, weights, statistics and the last layer stay float32 (mixed precision)."""
    device: Device = "cpu"
    """gpu: the first NVIDIA GPU."""
    processes: int = 1
    """That compute a part of each batch and average their gradients (data-parallel); torch alone, on the CPU."""


USUAL_STEP = StepOptions()


@dataclass(frozen=True)
class LearnerOrder:
    """What a learner is made of."""

    network: Network
    input: InputSpec
    classes: int
    seed: int
    batch_size: int
    pretrained: Weights | None = None
    """Their features are taken and stay as they are; only what follows them learns."""
    options: StepOptions = USUAL_STEP


class Learner(Protocol):
    """One framework's network and optimiser. Images are normalised float32 NHWC."""

    framework: Framework
    weights_name: str
    network: Any
    frozen: int
    """How many values were taken from pretrained weights and do not learn."""

    def epoch(self, images: Pixels, labels: Labels, learning_rate: float, tick: Callable[[float], None]) -> float:
        """Learn from each image once, shuffled; returns the mean loss. `tick` hears the fraction done."""

    def predict(self, images: Pixels) -> Pixels:
        """Softmax (n, classes), with the running statistics."""

    @property
    def helpers(self) -> Sequence[int]:
        """Process IDs of those that train with this process."""

    def close(self) -> None:
        """End the helpers; what was learnt stays."""

    def parameters(self) -> int:
        """How many values the network holds."""

    def save(self, path: Path) -> None:
        """Write the weights."""
