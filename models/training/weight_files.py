"""Read the weights that a training left on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

from models.errors import ModelError
from models.training.train import TrainingRecord
from models.training.weights import CnnWeights, from_keras, from_torch


def load_weights(weights_dir: Path, record: TrainingRecord) -> CnnWeights:
    """The weights a record describes. Raises ModelError where the file is missing, broken or of another network."""
    path = weights_dir / record.weights
    if not path.is_file():
        raise ModelError(f"{path} is missing: train the network again.")
    try:
        return _keras(path, record) if record.framework == "keras" else _torch(path, record)
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not hold this network's weights, train it again: {reason}") from error


def _shape(record: TrainingRecord) -> tuple[int, int, int, int]:
    return record.input.height, record.input.width, record.input.channels, len(record.labels)


def _keras(path: Path, record: TrainingRecord) -> CnnWeights:
    from models.training import keras_cnn

    model = keras_cnn.build(*_shape(record))
    model.load_weights(path)
    return from_keras(model)


def _torch(path: Path, record: TrainingRecord) -> CnnWeights:
    import torch

    from models.training.torch_cnn import Cnn

    network = Cnn(*_shape(record))
    network.load_state_dict(torch.load(path, weights_only=True))
    return from_torch(network)
