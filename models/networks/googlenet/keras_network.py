"""GoogLeNet in Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from models.networks.googlenet.architecture import DROPOUT

if TYPE_CHECKING:
    from models.networks.googlenet.architecture import GoogLeNetArchitecture, Inception


def build(network: GoogLeNetArchitecture, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Normalised float32 (batch, *shape) to softmax (batch, classes)."""
    images = keras.Input(shape)
    first, second, third = network.stem
    x = _conv(first, 7, "stem_7x7", strides=2)(images)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = _conv(second, 1, "stem_1x1")(x)
    x = _conv(third, 3, "stem_3x3")(x)
    for block in network.inceptions:
        if block.pool_before:
            x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = _inception(block, x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(DROPOUT)(x)
    return keras.Model(
        images, layers.Dense(classes, activation="softmax", name="predictions", dtype="float32")(x), name="googlenet"
    )


def _inception(block: Inception, x: keras.KerasTensor) -> keras.KerasTensor:
    name = f"inception_{block.name}"
    single = _conv(block.single, 1, f"{name}_1x1")(x)
    middle = _conv(block.reduce_3x3, 1, f"{name}_3x3_reduce")(x)
    middle = _conv(block.conv_3x3, 3, f"{name}_3x3")(middle)
    large = _conv(block.reduce_5x5, 1, f"{name}_5x5_reduce")(x)
    large = _conv(block.conv_5x5, 5, f"{name}_5x5")(large)
    pooled = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    pooled = _conv(block.pooled, 1, f"{name}_pool_1x1")(pooled)
    return layers.Concatenate(name=name)([single, middle, large, pooled])


def _conv(filters: int, size: int, name: str, strides: int = 1) -> layers.Layer:
    return layers.Conv2D(filters, size, strides=strides, padding="same", activation="relu", name=name)
