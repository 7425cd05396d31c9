"""ResNet-50 in Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from models.networks.resnet50.architecture import EXPANSION

if TYPE_CHECKING:
    from models.networks.resnet50.architecture import Bottleneck, ResNetArchitecture


def build(network: ResNetArchitecture, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Normalised float32 (batch, *shape) to softmax (batch, classes)."""
    images = keras.Input(shape)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = layers.Conv2D(network.width, 7, strides=2, use_bias=network.biased, name="conv1_conv")(x)
    x = _norm(network, "conv1_bn")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for block in network.bottlenecks():
        x = _bottleneck(network, block, x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(
        images, layers.Dense(classes, activation="softmax", name="predictions", dtype="float32")(x), name="resnet50"
    )


def _bottleneck(network: ResNetArchitecture, block: Bottleneck, x: keras.KerasTensor) -> keras.KerasTensor:
    name, wide = block.keras, EXPANSION * block.width
    first, second = (block.stride, 1) if network.form == "keras" else (1, block.stride)
    shortcut = x
    if block.projects:
        shortcut = layers.Conv2D(wide, 1, block.stride, use_bias=network.biased, name=f"{name}_0_conv")(x)
        shortcut = _norm(network, f"{name}_0_bn")(shortcut)
    x = layers.Conv2D(block.width, 1, first, use_bias=network.biased, name=f"{name}_1_conv")(x)
    x = layers.ReLU(name=f"{name}_1_relu")(_norm(network, f"{name}_1_bn")(x))
    # Padded by a layer: "same" pads a stride of 2 on one side only, torch on both.
    x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = layers.Conv2D(block.width, 3, second, use_bias=network.biased, name=f"{name}_2_conv")(x)
    x = layers.ReLU(name=f"{name}_2_relu")(_norm(network, f"{name}_2_bn")(x))
    x = layers.Conv2D(wide, 1, use_bias=network.biased, name=f"{name}_3_conv")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, _norm(network, f"{name}_3_bn")(x)])
    return layers.ReLU(name=f"{name}_out")(x)


def _norm(network: ResNetArchitecture, name: str) -> layers.Layer:
    return layers.BatchNormalization(momentum=network.decay, epsilon=network.epsilon, name=name)
