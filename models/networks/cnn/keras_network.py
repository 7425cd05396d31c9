"""The study's network in Keras."""

from __future__ import annotations

import keras
from keras import layers

from models.networks.cnn.architecture import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
    DENSE_UNITS,
    FILTERS,
    POOLED_BLOCKS,
)


def build(height: int, width: int, channels: int, classes: int) -> keras.Sequential:
    """The network: normalised float32 (batch, height, width, channels) to softmax (batch, classes)."""
    model = keras.Sequential([keras.Input((height, width, channels))], name="cnn")
    for block, filters in enumerate(FILTERS):
        name = f"block{block + 1}"
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv"))
        model.add(layers.BatchNormalization(momentum=BATCH_NORM_DECAY, epsilon=BATCH_NORM_EPSILON, name=f"{name}_norm"))
        model.add(layers.ReLU())
        if block < POOLED_BLOCKS:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for number, units in enumerate(DENSE_UNITS):
        model.add(layers.Dense(units, activation="relu", name=f"dense{number + 1}"))
    model.add(layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32"))
    return model
