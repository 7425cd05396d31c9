"""The study's network in Keras."""

from __future__ import annotations

import keras
from keras import layers

from models.training.architecture import BATCH_NORM_DECAY, BATCH_NORM_EPSILON, DENSE_UNITS, FILTERS, POOLED_BLOCKS


def build(height: int, width: int, channels: int, classes: int) -> keras.Sequential:
    """The network: normalised float32 (batch, height, width, channels) to softmax (batch, classes)."""
    model = keras.Sequential([keras.Input((height, width, channels))], name="cnn")
    for block, filters in enumerate(FILTERS):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=BATCH_NORM_DECAY, epsilon=BATCH_NORM_EPSILON))
        model.add(layers.ReLU())
        if block < POOLED_BLOCKS:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for units in DENSE_UNITS:
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(classes, activation="softmax"))
    return model
