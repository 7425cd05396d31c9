"""Read the weights that a training left on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

from models.errors import ModelError
from models.networks.catalogue import network_named
from models.networks.weights import Weights, from_keras, from_torch
from models.training.record import TrainingRecord


def load_weights(weights_dir: Path, record: TrainingRecord) -> Weights:
    """The weights a record describes. Raises ModelError where the file is missing, broken or of another network."""
    path = weights_dir / record.weights
    if not path.is_file():
        raise ModelError(f"{path} is missing: train the network again.")
    try:
        return _keras(path, record) if record.framework == "keras" else _torch(path, record)
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not hold this network's weights, train it again: {reason}") from error


def _keras(path: Path, record: TrainingRecord) -> Weights:
    network = network_named(record.architecture)
    model = network.keras_network(record.input, len(record.labels))
    model.load_weights(path)
    return from_keras(network, model)


def _torch(path: Path, record: TrainingRecord) -> Weights:
    import torch

    network = network_named(record.architecture)
    with torch.device("meta"):  # what is read takes the place of its tensors
        module = network.torch_network(record.input, len(record.labels))
    module.load_state_dict(torch.load(path, weights_only=True), assign=True)
    return from_torch(network, module)
