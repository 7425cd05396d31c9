"""Read the weights that a training left on disk."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.networks.catalogue import network_named
from models.networks.network import WeightedLayer
from models.networks.own_memory import aligned
from models.networks.weights import LayerWeights, ReadByLayer, Weights, from_keras, neutral, tensor_names
from models.training.record import TrainingRecord

PART_BYTES: Final = 16 << 20


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
    """Read layer by layer, from a file that is mapped into memory meanwhile: the largest have half a gigabyte."""
    import torch

    network = network_named(record.architecture)
    with torch.device("meta"):  # no memory
        module = network.torch_network(record.input, len(record.labels))
    module.load_state_dict(_mapped(path), assign=True)  # raises where the file is of another network
    return ReadByLayer(network.layers(), lambda row: _torch_layer(path, row))


def _torch_layer(path: Path, row: WeightedLayer) -> LayerWeights:
    names = {name: f"{row.torch}.{theirs}" for name, theirs in tensor_names(row.kind).items()}
    held = _mapped(path)
    return {name: _own(path, row, name, key) for name, key in names.items() if key in held}


def _own(path: Path, row: WeightedLayer, name: str, key: str) -> NDArray[np.float32]:
    """A tensor of the file in the neutral layout, copied in parts: only one of them is mapped beside the copy."""
    tensor = _mapped(path)[key]
    first, axis = tensor.shape[0], 2 if row.kind == "depthwise" and name == "kernel" else -1
    rows = max(1, first * PART_BYTES // max(1, tensor.nbytes))
    shape = list(neutral(row, {name: tensor[:1].numpy()})[name].shape)
    shape[axis] = first
    copy = aligned(shape)
    along = np.moveaxis(copy, axis, 0)
    for begin in range(0, first, rows):
        part = neutral(row, {name: _mapped(path)[key][begin : begin + rows].numpy()})[name]
        along[begin : begin + rows] = np.moveaxis(part, axis, 0)
    return copy


def _mapped(path: Path) -> Mapping[str, Any]:
    import torch

    state: Mapping[str, Any] = torch.load(path, weights_only=True, mmap=True)
    return state
