"""A Keras network as it is served: batch norm folded into the convolution before it, weights as constants.

Freezing a TorchScript does the same on the other side. Constants, unlike variables, let TensorFlow prepare a kernel
once for all requests; but they are part of the graph, which is written and read as one message. Large networks have
variables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.artifacts.own_process import LARGE_BYTES
from models.artifacts.source import ExportSource
from models.networks.own_memory import tensor_of
from models.networks.weights import LayerWeights, ReadByLayer, Weights, folded

MOST_CONSTANTS_BYTES = LARGE_BYTES
"""A graph of 537 MB took ten times as much memory to write, and no message may be larger than 2 GB."""


@dataclass(frozen=True)
class ServedNetwork:
    """What of a network goes into a SavedModel."""

    answer: Callable[[Any], Any]
    """Normalised float32 (batch, height, width, channels) to softmax (batch, classes)."""
    variables: list[Any]
    """tf.Variable; empty where the weights are constants."""


def served_network(source: ExportSource, weights: Weights) -> ServedNetwork:
    """The network of `source` with its weights; each layer's are asked for once and let go of."""
    rows = source.network.layers()
    norms = {row.keras: row.after for row in rows if row.kind == "norm"}
    followed_by = {conv: norm for norm, conv in norms.items()}
    holds_weights = {row.keras for row in rows}
    held = tf.constant if source.weights_bytes <= MOST_CONSTANTS_BYTES else _variable(isinstance(weights, ReadByLayer))
    # At its smallest size: only the layers are taken from it, and some of their weights grow with the image.
    side = source.network.smallest_side
    small = source.network.keras_network(source.input.model_copy(update={"height": side, "width": side}), 1)

    def served(layer: Any) -> Any:
        if layer.name in norms or isinstance(layer, keras.layers.Dropout):
            return _PassedOn(name=layer.name)
        if layer.name not in holds_weights:
            return layer.__class__.from_config(layer.get_config())
        if norm := followed_by.get(layer.name):
            return _Held(layer, *map(held, folded(weights[layer.name], weights[norm], small.get_layer(norm).epsilon)))
        return _Held(layer, *map(held, _kernel_and_bias(weights[layer.name])))

    images = keras.Input((source.input.height, source.input.width, source.input.channels))
    model = keras.models.clone_model(small, input_tensors=images, clone_function=served)

    def answer(batch: Any) -> Any:
        return model(batch, training=False)

    every = [tensor for layer in model.layers if isinstance(layer, _Held) for tensor in (layer.kernel, layer.bias)]
    return ServedNetwork(answer, [tensor for tensor in every if isinstance(tensor, tf.Variable)])


def _variable(handed_over: bool) -> Callable[[NDArray[np.float32]], Any]:
    """Makes a variable of an array; on its own memory if it is handed over."""
    return lambda array: tf.Variable(tensor_of(array) if handed_over else array, trainable=False)


def _kernel_and_bias(weights: LayerWeights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    kernel = weights["kernel"]
    return kernel, weights["bias"] if "bias" in weights else np.zeros(kernel.shape[-1], np.float32)


class _Held(keras.layers.Layer):  # type: ignore[misc]  # keras is not type-checked
    """A convolution or dense layer, with its activation, on a kernel and a bias that Keras does not manage."""

    def __init__(self, like: Any, kernel: Any, bias: Any) -> None:
        super().__init__(name=like.name)
        self.product = _product(like)
        self.activation = like.activation
        self.kernel, self.bias = kernel, bias

    def call(self, x: Any) -> Any:
        """What the layer computes of a batch."""
        return self.activation(tf.nn.bias_add(self.product(x, self.kernel), self.bias))


class _PassedOn(keras.layers.Layer):  # type: ignore[misc]
    """What is left of a folded batch norm, or of dropout: the input. It takes the arguments of either layer's call."""

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The batch itself."""
        return x


def _product(layer: Any) -> Callable[[Any, Any], Any]:
    """The operation of a layer on (input, kernel)."""

    def product(x: Any, kernel: Any) -> Any:
        if isinstance(layer, keras.layers.Dense):
            return tf.matmul(x, kernel)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            return tf.nn.depthwise_conv2d(x, kernel, (1, *layer.strides, 1), layer.padding.upper())
        return tf.nn.conv2d(x, kernel, layer.strides, layer.padding.upper())

    return product
