"""One set of weights for both frameworks: read from either network, written into either.

The neutral layout is Keras's: convolutions (3, 3, in, out), dense kernels (in, out), features flattened in
height, width, channel order. Torch keeps (out, in, 3, 3), (out, in) and channel, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ConvBlock:
    """A convolution without bias, and the batch norm after it."""

    kernel: Array
    """(3, 3, in, out)"""
    gamma: Array
    beta: Array
    mean: Array
    variance: Array

    def folded(self, epsilon: float) -> tuple[Array, Array]:
        """Kernel and bias of the one convolution that computes both layers (running statistics)."""
        scale = self.gamma / np.sqrt(self.variance + np.float32(epsilon))
        return self.kernel * scale, self.beta - self.mean * scale


@dataclass(frozen=True)
class Dense:
    """A fully connected layer."""

    kernel: Array
    """(in, out)"""
    bias: Array


@dataclass(frozen=True)
class CnnWeights:
    """All weights of the study's network, float32."""

    blocks: list[ConvBlock]
    dense: list[Dense]


def from_keras(model: Any) -> CnnWeights:
    """Read the weights of a network built by `models.training.keras_cnn.build`."""
    convs, norms, denses = _keras_layers(model)
    blocks = [ConvBlock(conv.get_weights()[0], *norm.get_weights()) for conv, norm in zip(convs, norms, strict=True)]
    return CnnWeights(blocks, [Dense(*layer.get_weights()) for layer in denses])


def to_keras(weights: CnnWeights, model: Any) -> None:
    """Write weights into a network of `models.training.keras_cnn.build`; raises ModelError where shapes differ."""
    convs, norms, denses = _keras_layers(model)
    try:
        for conv, norm, block in zip(convs, norms, weights.blocks, strict=True):
            conv.set_weights([block.kernel])
            norm.set_weights([block.gamma, block.beta, block.mean, block.variance])
        for layer, dense in zip(denses, weights.dense, strict=True):
            layer.set_weights([dense.kernel, dense.bias])
    except ValueError as error:
        raise ModelError(f"The weights do not fit the Keras network: {error}") from error


def _keras_layers(model: Any) -> tuple[list[Any], list[Any], list[Any]]:
    from keras import layers

    kinds = (layers.Conv2D, layers.BatchNormalization, layers.Dense)
    convs, norms, denses = ([layer for layer in model.layers if isinstance(layer, kind)] for kind in kinds)
    return convs, norms, denses


def from_torch(network: Any) -> CnnWeights:
    """Read the weights of a `models.training.torch_cnn.Cnn`."""
    convs, norms, linears = _torch_modules(network)
    blocks = [
        ConvBlock(
            _array(conv.weight).transpose(2, 3, 1, 0),
            *(_array(t) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)),
        )
        for conv, norm in zip(convs, norms, strict=True)
    ]
    dense = [Dense(_array(linear.weight).T, _array(linear.bias)) for linear in linears]
    channels = blocks[-1].kernel.shape[-1]
    dense[0] = Dense(_swap_flatten_order(dense[0].kernel, (channels, -1)), dense[0].bias)
    return CnnWeights(blocks, dense)


def to_torch(weights: CnnWeights, network: Any) -> None:
    """Write weights into a `models.training.torch_cnn.Cnn`; raises ModelError where shapes differ."""
    convs, norms, linears = _torch_modules(network)
    try:
        for conv, norm, block in zip(convs, norms, weights.blocks, strict=True):
            _assign(conv.weight, block.kernel.transpose(3, 2, 0, 1))
            _assign(norm.weight, block.gamma)
            _assign(norm.bias, block.beta)
            _assign(norm.running_mean, block.mean)
            _assign(norm.running_var, block.variance)
        kernels = [dense.kernel for dense in weights.dense]
        kernels[0] = _swap_flatten_order(kernels[0], (-1, weights.blocks[-1].kernel.shape[-1]))
        for linear, dense, kernel in zip(linears, weights.dense, kernels, strict=True):
            _assign(linear.weight, kernel.T)
            _assign(linear.bias, dense.bias)
    except ValueError as error:
        raise ModelError(f"The weights do not fit the torch network: {error}") from error


def _swap_flatten_order(kernel: Array, rows: tuple[int, int]) -> Array:
    """Reorder a dense kernel's rows from (channel, position) to (position, channel), or back.

    Height and width keep their order in both frameworks, so they count as one axis of positions.
    """
    units = kernel.shape[1]
    return kernel.reshape(*rows, units).transpose(1, 0, 2).reshape(-1, units)


def _torch_modules(network: Any) -> tuple[list[Any], list[Any], list[Any]]:
    from torch import nn

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    convs, norms, linears = ([m for m in network.modules() if isinstance(m, kind)] for kind in kinds)
    return convs, norms, linears


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def _assign(tensor: Any, array: Array) -> None:
    import torch

    if tuple(tensor.shape) != array.shape:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} cannot take {array.shape}.")
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(array, dtype=np.float32)))
