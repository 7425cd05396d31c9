"""Training in torch: a plain loop, which several processes may run together."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.networks.network import Network
from models.networks.torch_layers import Probabilities
from models.networks.weights import Weights, feature_layers, from_torch, to_torch
from models.training.data_parallel import EpochOrder, Followers, Place
from models.training.learner import Framework, LearnerOrder, images_at_once


class TorchLearner:
    """A network with Adam and cross-entropy. Fulfils `models.training.learner.Learner`."""

    framework: Framework = "torch"
    weights_name = "torch.pt"

    def __init__(self, order: LearnerOrder, place: Place | None = None) -> None:
        """`place` is that of a follower; without it the learner starts those that the options ask for."""
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
        self._half = order.options.precision == "bfloat16"
        self._followers: Followers | None = None
        if place is None and order.options.processes > 1:
            self._followers = Followers(order.options.processes, follow, order)
        self._place = self._followers.place if self._followers else place or Place()
        self._forward: nn.Module | Callable[..., torch.Tensor] = self.network
        if self._place.processes > 1:
            self._forward = DistributedDataParallel(self.network)
        elif order.options.compiled:
            self._forward = torch.compile(self.network)

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
        targets = torch.from_numpy(labels)
        if self._followers is None:
            return self._learn(_channels_first(images), targets, learning_rate, tick)
        with self._followers.told():
            return self._learn(self._followers.begin(images, labels, learning_rate), targets, learning_rate, tick)

    def follow(self, epoch: EpochOrder) -> None:
        """Learn from this process's part of each batch."""
        self._learn(epoch.images(), torch.from_numpy(epoch.labels), epoch.learning_rate, lambda _share: None)

    def _learn(
        self, inputs: torch.Tensor, targets: torch.Tensor, learning_rate: float, tick: Callable[[float], None]
    ) -> float:
        """The mean loss of an epoch."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.network.train()
        for module in self._fixed:
            module.eval()  # batch norm keeps its running statistics
        total = 0.0
        least = 2 * self._place.processes  # of one image alone, batch norm has no statistics
        batches = _batches(torch.randperm(len(inputs), generator=self.generator), self.batch_size, least)
        for number, together in enumerate(batches):
            batch, weight = self._place.part(together)
            self.optimiser.zero_grad()
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
                answers = self._forward(inputs[batch].to(self.device))
            loss = self.criterion(answers.float(), targets[batch].to(self.device))
            (loss * weight if weight != 1 else loss).backward()
            self.optimiser.step()
            total += loss.item() * len(batch)
            tick((number + 1) / len(batches))
        return self._place.total(total) / len(inputs)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax (n, classes), with the running statistics."""
        return torch_answers(self.network, images, self.device)

    def parameters(self) -> int:
        """How many values the network holds, running statistics included."""
        return _values(self.network)

    @property
    def helpers(self) -> Sequence[int]:
        """See Learner."""
        return self._followers.pids if self._followers else []

    def close(self) -> None:
        """See Learner."""
        if self._followers:
            self._followers.close()

    def save(self, path: Path) -> None:
        """Write the state dict."""
        # Through memory: torch's own file writer may end the process where the disk is full.
        buffer = io.BytesIO()
        torch.save({name: value.cpu() for name, value in self.network.state_dict().items()}, buffer)
        path.write_bytes(buffer.getbuffer())


def torch_answers(
    network: nn.Module, images: NDArray[np.float32], device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Softmax (n, classes) of normalised images (n, height, width, channels), with the running statistics."""
    answering = Probabilities(network).eval()
    with torch.inference_mode():
        batches = _channels_first(images).split(images_at_once(*images.shape[1:3]))
        parts = [answering(batch.to(device)).cpu() for batch in batches]
    probabilities: NDArray[np.float32] = torch.cat(parts).numpy()
    return probabilities


def _values(module: nn.Module) -> int:
    values = [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
    return sum(value.numel() for value in values)


def _channels_first(images: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _batches(order: torch.Tensor, size: int, least: int) -> list[torch.Tensor]:
    """Split shuffled indices; a last batch of fewer than `least` joins the one before."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) < least:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches


def follow(connection: Connection, place: Place, order: LearnerOrder) -> None:
    """Be one of the other processes, until the connection ends."""
    learner = TorchLearner(order, place)
    while True:
        learner.follow(connection.recv())
