"""How much memory a training takes, told before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from models.datasets.dataset import Dataset
from models.errors import ModelEnvironmentError
from models.manifest import InputSpec
from models.networks.network import Network

COPIES_OF_WEIGHTS = 4
"""The weights, their gradients, and Adam's two moments."""
COPIES_OF_ACTIVATIONS = 2
"""Every layer's output, and its gradient."""
COPIES_OF_IMAGES = 2
"""Of the training images in float32: as they are, and as they are augmented for an epoch."""
FRAMEWORK_BYTES = 700 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def require_memory(
    network: Network, dataset: Dataset, batch_size: int, side_by_side: int = 1, processes: int = 1
) -> None:
    """Raise ModelEnvironmentError where training would take more memory than is available, with the estimate.

    That is of as many trainings as are to stand side by side, each of so many processes.
    """
    height, width = dataset.size
    spec = InputSpec(height=height, width=width, mean=[0.5] * 3, std=[0.5] * 3)
    weights, activations = sizes(network, spec, len(dataset.classes))
    pixels = 4 * 3 * height * width
    images = pixels * (COPIES_OF_IMAGES * len(dataset.train.images) + len(dataset.test.images))
    steps = processes * COPIES_OF_WEIGHTS * weights + COPIES_OF_ACTIVATIONS * batch_size * activations
    needed, there = processes * FRAMEWORK_BYTES + images + steps, available_bytes()
    if side_by_side * needed > there:
        alone = f", and {side_by_side} stand side by side" if side_by_side > 1 else ""
        remedy = ", or one training after the other (`design: blocks`)" if side_by_side > 1 else ""
        raise ModelEnvironmentError(
            f"Training {network.name} on {len(dataset.train.images)} images of {width}x{height} pixels in batches of "
            f"{batch_size} takes about {needed / 2**30:.1f} GiB of memory ({images / 2**30:.1f} for the images, "
            f"{steps / 2**30:.1f} for the network){alone}; {there / 2**30:.1f} GiB are available: choose fewer "
            f"images, a smaller batch size or smaller images{remedy}."
        )


def sizes(network: Network, spec: InputSpec, classes: int) -> tuple[int, int]:
    """(bytes of the weights, bytes of all layers' outputs for one image), without making either."""
    import torch

    outputs = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal outputs
        if not list(module.children()):
            outputs += output.numel() * output.element_size()

    with torch.device("meta"):
        module = network.torch_network(spec, classes).eval()
        for part in module.modules():
            part.register_forward_hook(count)
        module(torch.empty(1, spec.channels, spec.height, spec.width))
    values = [*module.parameters(), *module.buffers()]
    return sum(value.numel() * value.element_size() for value in values), outputs


def available_bytes() -> int:
    """Memory that programs can still get: the machine's, or what a container's limit leaves."""
    there = int(psutil.virtual_memory().available)
    try:
        limit = int(_CGROUP_LIMIT.read_text())
        used = int(_CGROUP_LIMIT.with_name("memory.current").read_text())
    except (OSError, ValueError):  # no cgroup of version 2, or no limit
        return there
    return min(there, max(0, limit - used))
