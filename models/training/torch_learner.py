"""Training in torch: a plain loop."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.manifest import InputSpec
from models.training.learner import Framework
from models.training.torch_cnn import Cnn, Probabilities

EVALUATION_BATCH = 256


class TorchLearner:
    """The study's network with Adam and cross-entropy. Fulfils `models.training.learner.Learner`."""

    framework: Framework = "torch"
    weights_name = "torch.pt"

    def __init__(self, spec: InputSpec, classes: int, seed: int, batch_size: int) -> None:
        torch.manual_seed(seed)
        self.network = Cnn(spec.height, spec.width, spec.channels, classes)
        self.optimiser = torch.optim.Adam(self.network.parameters())
        self.criterion = nn.CrossEntropyLoss()
        self.generator = torch.Generator().manual_seed(seed)
        self.batch_size = batch_size

    def epoch(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        learning_rate: float,
        tick: Callable[[float], None],
    ) -> float:
        """Learn from each image once, shuffled; returns the mean loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        inputs, targets = _channels_first(images), torch.from_numpy(labels)
        self.network.train()
        total = 0.0
        batches = _batches(torch.randperm(len(inputs), generator=self.generator), self.batch_size)
        for number, batch in enumerate(batches):
            self.optimiser.zero_grad()
            loss = self.criterion(self.network(inputs[batch]), targets[batch])
            loss.backward()
            self.optimiser.step()
            total += loss.item() * len(batch)
            tick((number + 1) / len(batches))
        return total / len(inputs)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax (n, classes), with the running statistics."""
        network = Probabilities(self.network).eval()
        with torch.inference_mode():
            parts = [network(batch) for batch in _channels_first(images).split(EVALUATION_BATCH)]
        probabilities: NDArray[np.float32] = torch.cat(parts).numpy()
        return probabilities

    def parameters(self) -> int:
        """How many values the network holds, running statistics included."""
        values = [*self.network.parameters(), *(b for b in self.network.buffers() if b.is_floating_point())]
        return sum(value.numel() for value in values)

    def save(self, path: Path) -> None:
        """Write the state dict."""
        # Through memory: torch's own file writer may end the process where the disk is full.
        buffer = io.BytesIO()
        torch.save(self.network.state_dict(), buffer)
        path.write_bytes(buffer.getbuffer())


def _channels_first(images: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Split shuffled indices; a last batch of one image would leave batch norm without statistics, so it joins."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches
