"""Training in torch: a plain loop."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.networks.network import Network
from models.networks.torch_layers import Probabilities
from models.networks.weights import Weights, feature_layers, from_torch, to_torch
from models.training.learner import Framework, LearnerOrder, images_at_once


class TorchLearner:
    """A network with Adam and cross-entropy. Fulfils `models.training.learner.Learner`."""

    framework: Framework = "torch"
    weights_name = "torch.pt"

    def __init__(self, order: LearnerOrder) -> None:
        torch.manual_seed(order.seed)
        self.device = torch.device("cuda" if order.options.device == "gpu" else "cpu")
        self.network = order.network.torch_network(order.input, order.classes).to(self.device)
        self.frozen = 0
        self._fixed: list[nn.Module] = []
        if order.pretrained is not None:
            self._take_features(order.network, order.pretrained)
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(learning)
        self.criterion = nn.CrossEntropyLoss()
        self.generator = torch.Generator().manual_seed(order.seed)
        self.batch_size = order.batch_size
        self._forward = torch.compile(self.network) if order.options.compiled else self.network
        self._half = order.options.precision == "bfloat16"

    def _take_features(self, network: Network, pretrained: Weights) -> None:
        rows = feature_layers(network, from_torch(network, self.network), pretrained)
        to_torch(network, pretrained, self.network, rows)
        self._fixed = [self.network.get_submodule(row.torch).requires_grad_(False) for row in rows]
        self.frozen = sum(_values(module) for module in self._fixed)

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
        for module in self._fixed:
            module.eval()  # batch norm keeps its running statistics
        total = 0.0
        batches = _batches(torch.randperm(len(inputs), generator=self.generator), self.batch_size)
        for number, batch in enumerate(batches):
            self.optimiser.zero_grad()
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
                answers = self._forward(inputs[batch].to(self.device))
            loss = self.criterion(answers.float(), targets[batch].to(self.device))
            loss.backward()
            self.optimiser.step()
            total += loss.item() * len(batch)
            tick((number + 1) / len(batches))
        return total / len(inputs)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax (n, classes), with the running statistics."""
        network = Probabilities(self.network).eval()
        with torch.inference_mode():
            batches = _channels_first(images).split(images_at_once(*images.shape[1:3]))
            parts = [network(batch.to(self.device)).cpu() for batch in batches]
        probabilities: NDArray[np.float32] = torch.cat(parts).numpy()
        return probabilities

    def parameters(self) -> int:
        """How many values the network holds, running statistics included."""
        return _values(self.network)

    def save(self, path: Path) -> None:
        """Write the state dict."""
        # Through memory: torch's own file writer may end the process where the disk is full.
        buffer = io.BytesIO()
        torch.save({name: value.cpu() for name, value in self.network.state_dict().items()}, buffer)
        path.write_bytes(buffer.getbuffer())


def _values(module: nn.Module) -> int:
    values = [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
    return sum(value.numel() for value in values)


def _channels_first(images: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Split shuffled indices; a last batch of one image would leave batch norm without statistics, so it joins."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches
