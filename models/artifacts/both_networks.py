"""The same weights in a network in memory: what the exported artifacts must answer like."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifacts.parity import networks_apart
from models.artifacts.source import ExportSource
from models.datasets.pixels import load_pixels
from models.errors import ModelError, ParityError
from models.networks.own_memory import tensor_of
from models.networks.weights import for_one_reading, to_torch
from models.preprocessing import normalise
from models.training.learner import Framework, images_at_once

Answers = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Softmax (n, classes) of normalised images (n, height, width, channels)."""


def check_network(
    framework: Framework, source: ExportSource, images: Sequence[bytes], exported: NDArray[np.float64]
) -> None:
    """Compare the artifact's (n, classes) outputs with the answers of one framework's network in memory.

    Raises ParityError where they differ by more than the tolerance: then the export, not the serving, is at fault.
    """
    _, reason = networks_apart(_predict(framework, source, images), exported)
    gc.collect()  # the network lies in circles of references, and two large ones are too many
    if reason:
        raise ParityError(
            f"The exported SavedModel differs from the {framework} network in memory, so nothing is exported: {reason}."
        )


def _predict(framework: Framework, source: ExportSource, images: Sequence[bytes]) -> NDArray[np.float64]:
    answers = (_keras if framework == "keras" else _torch)(source)
    size = (source.input.height, source.input.width)
    parts, together = [], images_at_once(*size)
    for start in range(0, len(images), together):
        pixels = load_pixels(images[start : start + together], size)
        parts.append(answers(normalise(pixels, source.input)))
    return np.concatenate(parts).astype(np.float64)


def _keras(source: ExportSource) -> Answers:
    """The network with its weights as start values: random ones, which they replace, take three times their memory."""
    import keras

    from models.training.keras_learner import keras_answers

    rows, weights = {row.keras: row for row in source.network.layers()}, for_one_reading(source.read())

    def holding_weights(layer: Any) -> Any:
        settings = layer.get_config()
        if row := rows.get(layer.name):
            for name, array in weights[row.keras].items():
                settings[_INITIALIZERS[row.kind, name]] = partial(_given, row.keras, array)
        return layer.__class__.from_config(settings)

    side = source.network.smallest_side
    small = source.network.keras_network(
        source.input.model_copy(update={"height": side, "width": side}), len(source.labels)
    )
    images = keras.Input((source.input.height, source.input.width, source.input.channels))
    return partial(keras_answers, keras.models.clone_model(small, images, clone_function=holding_weights))


_INITIALIZERS = {
    **{(kind, "kernel"): "kernel_initializer" for kind in ("convolution", "dense")},
    ("depthwise", "kernel"): "depthwise_initializer",
    **{(kind, "bias"): "bias_initializer" for kind in ("convolution", "depthwise", "dense")},
    ("norm", "gamma"): "gamma_initializer",
    ("norm", "beta"): "beta_initializer",
    ("norm", "mean"): "moving_mean_initializer",
    ("norm", "variance"): "moving_variance_initializer",
}
"""Of a kind of layer and a neutral name: what Keras calls the start value."""


def _given(layer: str, array: NDArray[np.float32], shape: Sequence[int], dtype: Any = None) -> Any:
    if tuple(shape) != array.shape:
        raise ModelError(
            f"The weights do not fit the Keras network: layer {layer} takes {tuple(shape)}, and they are {array.shape}."
        )
    return tensor_of(array)


def _torch(source: ExportSource) -> Answers:
    import torch

    from models.training.torch_learner import torch_answers

    with torch.device("meta"):  # no memory for start values
        network = source.network.torch_network(source.input, len(source.labels))
    to_torch(source.network, for_one_reading(source.read()), network)
    return partial(torch_answers, network)
