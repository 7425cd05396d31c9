"""Every network at a small width and depth: the same code, in a second."""

from dataclasses import replace

import keras
import numpy as np
import torch

from models.manifest import InputSpec
from models.networks.catalogue import NETWORKS
from models.networks.googlenet.architecture import Inception
from models.networks.torch_layers import Probabilities

CLASSES = 7
TINY = {
    "cnn": NETWORKS["cnn"],
    "resnet50-keras": replace(NETWORKS["resnet50-keras"], blocks=(1, 2), width=8),
    "resnet50-torchvision": replace(NETWORKS["resnet50-torchvision"], blocks=(1, 2), width=8),
    "vgg16": replace(NETWORKS["vgg16"], blocks=((1, 6), (2, 8)), dense_units=(24,)),
    "googlenet": replace(
        NETWORKS["googlenet"],
        stem=(8, 8, 12),
        inceptions=(Inception("3a", 4, 4, 6, 2, 4, 4, pool_before=True), Inception("3b", 5, 4, 6, 2, 4, 3)),
    ),
    "efficientnet-lite0": replace(
        NETWORKS["efficientnet-lite0"],
        stages=tuple(replace(stage, filters=8) for stage in NETWORKS["efficientnet-lite0"].stages[:3]),
        stem=8,
        head=24,
    ),
}
SPEC = InputSpec(height=36, width=52, mean=[0.5] * 3, std=[0.25] * 3)
"""Not square, so that a swapped axis shows; 36 and 52 are 9 and 13 after two halvings, so that padding is odd."""


def scrambled(network, seed=0, classes=CLASSES):
    """A Keras network whose batch norms have statistics worth carrying."""
    model = network.keras_network(SPEC, classes)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        spread = rng.normal(0, 0.1, weight.shape)
        weight.assign(np.abs(spread) + 0.3 if "variance" in weight.path else weight.numpy() + spread)
    # Logits of a few units: a probability of nearly 1 hides what the others are.
    last = model.layers[-1]
    kernel, bias = last.get_weights()
    features = keras.Model(model.inputs, last.input).predict(images(), verbose=0)
    last.set_weights([kernel * 2 / np.std(features @ kernel), bias])
    return model


def images(count=6):
    """Normalised float32 of (count, height, width, 3)."""
    return np.random.default_rng(9).normal(0, 1, (count, SPEC.height, SPEC.width, 3)).astype(np.float32)


def keras_outputs(model):
    """Probabilities, float64 of (images, classes)."""
    return model.predict(images(), verbose=0).astype(np.float64)


def torch_outputs(module):
    """Probabilities, float64 of (images, classes)."""
    with torch.inference_mode():
        answer = Probabilities(module).eval()(torch.from_numpy(images().transpose(0, 3, 1, 2).copy()))
    return answer.numpy().astype(np.float64)
