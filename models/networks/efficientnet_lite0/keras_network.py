"""EfficientNet-Lite0 in Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from models.networks.efficientnet_lite0.architecture import BATCH_NORM_DECAY, BATCH_NORM_EPSILON, DROPOUT

if TYPE_CHECKING:
    from models.networks.efficientnet_lite0.architecture import EfficientNetLiteArchitecture, InvertedResidual

SIX = 6.0
"""Where the activation ends to grow."""


def build(network: EfficientNetLiteArchitecture, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Normalised float32 (batch, *shape) to softmax (batch, classes)."""
    images = keras.Input(shape)
    x = _conv(network.stem, 3, "stem_conv", strides=2)(images)
    x = layers.ReLU(SIX)(_norm("stem_conv")(x))
    for block in network.inverted_residuals():
        x = _inverted_residual(block, x)
    x = layers.ReLU(SIX)(_norm("top_conv")(_conv(network.head, 1, "top_conv")(x)))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(DROPOUT)(x)
    predictions = layers.Dense(classes, activation="softmax", name="predictions", dtype="float32")(x)
    return keras.Model(images, predictions, name="efficientnet_lite0")


def _inverted_residual(block: InvertedResidual, inputs: keras.KerasTensor) -> keras.KerasTensor:
    x = inputs
    if block.expands:
        name = f"{block.name}_expand_conv"
        x = layers.ReLU(SIX)(_norm(name)(_conv(block.expanded, 1, name)(x)))
    name = f"{block.name}_dwconv"
    x = layers.DepthwiseConv2D(block.kernel, block.stride, padding="same", use_bias=False, name=name)(x)
    x = layers.ReLU(SIX)(_norm(name)(x))
    name = f"{block.name}_project_conv"
    x = _norm(name)(_conv(block.filters, 1, name)(x))
    return layers.Add()([x, inputs]) if block.adds else x


def _conv(filters: int, size: int, name: str, strides: int = 1) -> layers.Layer:
    return layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False, name=name)


def _norm(after: str) -> layers.Layer:
    return layers.BatchNormalization(momentum=BATCH_NORM_DECAY, epsilon=BATCH_NORM_EPSILON, name=f"{after}_norm")
