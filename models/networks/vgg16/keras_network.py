"""VGG-16 in Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from models.networks.vgg16.architecture import DROPOUT

if TYPE_CHECKING:
    from models.networks.vgg16.architecture import VggArchitecture


def build(network: VggArchitecture, shape: tuple[int, int, int], classes: int) -> keras.Sequential:
    """Normalised float32 (batch, *shape) to softmax (batch, classes)."""
    model = keras.Sequential([keras.Input(shape)], name="vgg16")
    for name, filters, pooled in network.convolutions():
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", name=name))
        if pooled:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for number, units in enumerate(network.dense_units):
        model.add(layers.Dense(units, activation="relu", name=f"fc{number + 1}"))
        model.add(layers.Dropout(DROPOUT))
    model.add(layers.Dense(classes, activation="softmax", name="predictions", dtype="float32"))
    return model
