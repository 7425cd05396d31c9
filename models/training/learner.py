"""What a framework's learner can do, whichever framework it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Framework = Literal["keras", "torch"]


FRAMEWORKS: tuple[Framework, ...] = ("keras", "torch")


Pixels = NDArray[np.float32]


Labels = NDArray[np.int64]


class Learner(Protocol):
    """One framework's network and optimiser. Images are normalised float32 NHWC."""

    framework: Framework
    weights_name: str
    network: Any

    def epoch(self, images: Pixels, labels: Labels, learning_rate: float, tick: Callable[[float], None]) -> float:
        """Learn from each image once, shuffled; returns the mean loss. `tick` hears the fraction done."""

    def predict(self, images: Pixels) -> Pixels:
        """Softmax (n, classes), with the running statistics."""

    def parameters(self) -> int:
        """How many values the network holds."""

    def save(self, path: Path) -> None:
        """Write the weights."""
