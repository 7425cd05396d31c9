"""One set of weights for both frameworks: read from either network, written into either, layer by layer.

The neutral layout is Keras's: convolutions (height, width, in, out), depthwise ones (height, width, in, 1), dense
kernels (in, out), features flattened in height, width, channel order. Torch keeps (out, in, height, width),
(in, 1, height, width), (out, in) and channel, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.networks.network import LayerKind, Network, WeightedLayer

Array = NDArray[np.float32]
LayerWeights = Mapping[str, Array]
"""`kernel` and, where the layer has one, `bias`; of a batch norm `gamma`, `beta`, `mean`, `variance`. All float32."""
Weights = Mapping[str, LayerWeights]
"""By the layer's name in the Keras network."""


class Draining(dict[str, LayerWeights]):
    """Weights that are given out once, so that what was written into a network is not kept beside it."""

    def __getitem__(self, layer: str) -> LayerWeights:
        """The layer's arrays, which are gone afterwards."""
        return self.pop(layer)


class ReadByLayer(Mapping[str, LayerWeights]):
    """Weights that are read layer by layer when they are asked for, and every time anew: no more than one is kept.

    The arrays are the reader's own, who may go on using their memory.
    """

    def __init__(self, rows: Sequence[WeightedLayer], read: Callable[[WeightedLayer], LayerWeights]) -> None:
        self._rows, self._read = {row.keras: row for row in rows}, read

    def __getitem__(self, layer: str) -> LayerWeights:
        """The layer's arrays."""
        return self._read(self._rows[layer])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def for_one_reading(weights: Weights) -> Weights:
    """The weights for a reader who takes each layer once, and who is not to keep them all meanwhile."""
    return weights if isinstance(weights, ReadByLayer) else Draining(weights)


_OF_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
_OF_OTHERS = {"kernel": "weight", "bias": "bias"}


def tensor_names(kind: LayerKind) -> dict[str, str]:
    """Neutral name to torch's name, in the order in which Keras keeps them; a bias may be missing."""
    return _OF_NORM if kind == "norm" else _OF_OTHERS


def from_keras(network: Network, model: Any) -> Weights:
    """Read the weights of a Keras network of `network`."""
    return keras_weights(network.layers(), model)


def keras_weights(rows: Sequence[WeightedLayer], model: Any) -> Weights:
    """Read the weights of these layers of a Keras network."""
    return {row.keras: _read_keras(row, model) for row in rows}


def _read_keras(row: WeightedLayer, model: Any) -> LayerWeights:
    return dict(zip(tensor_names(row.kind), model.get_layer(row.keras).get_weights(), strict=False))


def to_keras(network: Network, weights: Weights, model: Any, rows: Sequence[WeightedLayer] | None = None) -> None:
    """Write weights into a Keras network of `network`, all or those of `rows`.

    Raises ModelError where one is missing or shapes differ.
    """
    for row in network.layers() if rows is None else rows:
        try:
            model.get_layer(row.keras).set_weights(list(weights[row.keras].values()))
        except (ValueError, KeyError) as error:
            raise _unfitting("Keras", row, error) from error


def from_torch(network: Network, module: Any) -> Weights:
    """Read the weights of a torch network of `network`."""
    return {row.keras: _read_torch(row, module.get_submodule(row.torch)) for row in network.layers()}


def _read_torch(row: WeightedLayer, module: Any) -> LayerWeights:
    tensors = {name: getattr(module, theirs, None) for name, theirs in tensor_names(row.kind).items()}
    return neutral(row, {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items() if tensor is not None})


def neutral(row: WeightedLayer, arrays: Mapping[str, Array]) -> LayerWeights:
    """A layer's arrays in torch's layout, all or some of them, by neutral name, in the neutral layout."""
    kernel = arrays.get("kernel")
    return dict(arrays) if kernel is None else {**arrays, "kernel": _neutral_kernel(row, kernel)}


def _neutral_kernel(row: WeightedLayer, kernel: Array) -> Array:
    if row.kind == "dense":
        return _flattened_from_torch(kernel, row.flattened_channels) if row.flattened_channels else kernel.T
    return kernel.transpose((2, 3, 1, 0) if row.kind == "convolution" else (2, 3, 0, 1))


def to_torch(network: Network, weights: Weights, module: Any, rows: Sequence[WeightedLayer] | None = None) -> None:
    """Write weights into a torch network of `network`, all or those of `rows`.

    Raises ModelError where one is missing or shapes differ.
    """
    for row in network.layers() if rows is None else rows:
        try:
            _write_torch(row, weights[row.keras], module.get_submodule(row.torch))
        except (ValueError, KeyError) as error:
            raise _unfitting("torch", row, error) from error


def _write_torch(row: WeightedLayer, weights: LayerWeights, module: Any) -> None:
    for name, theirs in tensor_names(row.kind).items():
        tensor = getattr(module, theirs, None)
        if (tensor is None) != (name not in weights):
            raise ValueError(f"only one side has a {name}.")
        if tensor is not None:
            _assign(module, theirs, tensor, _torch_layout(row, name, weights[name]))


def _torch_layout(row: WeightedLayer, name: str, array: Array) -> Array:
    if name != "kernel":
        return array
    if row.kind == "dense":
        return _flattened_for_torch(array, row.flattened_channels) if row.flattened_channels else array.T
    return array.transpose((3, 2, 0, 1) if row.kind == "convolution" else (2, 3, 0, 1))


def _flattened_for_torch(kernel: Array, channels: int) -> Array:
    """(units, channels x positions) of a kernel (positions x channels, units), with one copy."""
    units = kernel.shape[1]
    return kernel.reshape(-1, channels, units).transpose(2, 1, 0).reshape(units, -1)


def _flattened_from_torch(kernel: Array, channels: int) -> Array:
    """(positions x channels, units) of a kernel (units, channels x positions), with one copy.

    Height and width keep their order in both frameworks, so they count as one axis of positions.
    """
    units = kernel.shape[0]
    return kernel.reshape(units, channels, -1).transpose(2, 1, 0).reshape(-1, units)


def _assign(module: Any, name: str, tensor: Any, array: Array) -> None:
    """Copy the array into the module's tensor; one on the device "meta", which has no memory, is replaced by it."""
    import torch

    if tuple(tensor.shape) != array.shape:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} cannot take {array.shape}.")
    value = torch.from_numpy(np.require(array, dtype=np.float32, requirements=["C", "W"]))
    if not tensor.is_meta:
        with torch.no_grad():
            tensor.copy_(value)
    elif isinstance(tensor, torch.nn.Parameter):
        setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
    else:
        setattr(module, name, value)


def _unfitting(framework: str, row: WeightedLayer, error: Exception) -> ModelError:
    reason = "it is missing." if isinstance(error, KeyError) else error
    return ModelError(f"The weights do not fit the {framework} network: layer {row.keras}: {reason}")


def folded(convolution: LayerWeights, norm: LayerWeights, epsilon: float) -> tuple[Array, Array]:
    """Kernel and bias of the one convolution that computes a convolution and its batch norm (running statistics).

    A depthwise kernel (height, width, channels, 1) is scaled along its channels, another along its outputs.
    """
    scale = norm["gamma"] / np.sqrt(norm["variance"] + np.float32(epsilon))
    kernel = convolution["kernel"]
    spread = scale if kernel.shape[3] == len(scale) else scale[:, None]
    bias = norm["beta"] - norm["mean"] * scale
    return kernel * spread, bias + convolution["bias"] * scale if "bias" in convolution else bias


def feature_layers(network: Network, own: Weights, given: Weights) -> list[WeightedLayer]:
    """The layers that a network, whose weights are `own`, takes from `given` when only a new head is trained.

    All but the dense ones; and of these all but the last, if each of them fits: they do where the images have the size
    that `given` was trained on.
    """
    dense = [row for row in network.layers() if row.kind == "dense"][:-1]
    fits = all(
        row.keras in given and given[row.keras]["kernel"].shape == own[row.keras]["kernel"].shape for row in dense
    )
    return [row for row in network.layers() if row.kind != "dense"] + (dense if fits else [])
