"""Large weights: read a layer at a time, and written into Keras in parts, without a bit of difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.networks import weights as weights_module
from models.networks.catalogue import network_named
from models.networks.weights import ReadByLayer, for_one_reading, from_keras, from_torch, to_keras
from models.training.record import load_record
from models.training.train import train
from models.training.weight_files import load_weights
from tests.models.networks.tiny import CLASSES, SPEC, TINY, scrambled


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("weights")
    train("torch", pictures, folder, epochs=1)
    return folder


@pytest.fixture(scope="module")
def pictures():
    from models.datasets.synthetic import load_synthetic

    return load_synthetic((16, 16), classes=3, images=300)


def test_what_is_read_layer_by_layer_is_what_the_network_holds(trained):
    record = load_record(trained, "torch")
    read = load_weights(trained, record)
    assert isinstance(read, ReadByLayer) and for_one_reading(read) is read
    module = network_named("cnn").torch_network(record.input, 3)
    module.load_state_dict(torch.load(trained / record.weights, weights_only=True))
    held = from_torch(network_named("cnn"), module)
    assert list(read) == list(held) and len(read) == len(held)
    for layer, arrays in held.items():
        assert arrays.keys() == read[layer].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[layer][name], array)


def test_a_layer_may_be_read_again_and_nothing_of_it_is_kept(trained):
    read = load_weights(trained, load_record(trained, "torch"))
    first, again = read["probabilities"]["kernel"], read["probabilities"]["kernel"]
    assert first is not again and np.array_equal(first, again)


@pytest.mark.parametrize("name", ["cnn", "vgg16"])
def test_kernels_that_are_written_in_parts_are_those_that_are_written_whole(name, monkeypatch):
    source = from_keras(TINY[name], scrambled(TINY[name]))
    monkeypatch.setattr(weights_module, "PART_BYTES", 1000)
    target = TINY[name].keras_network(SPEC, CLASSES)
    to_keras(TINY[name], source, target)
    written = from_keras(TINY[name], target)
    for layer, arrays in source.items():
        for tensor, array in arrays.items():
            np.testing.assert_array_equal(written[layer][tensor], array)


def test_a_kernel_of_another_shape_is_refused_before_anything_of_it_is_written(monkeypatch):
    network = TINY["cnn"]
    source = {layer: dict(arrays) for layer, arrays in from_keras(network, scrambled(network)).items()}
    source["probabilities"]["kernel"] = source["probabilities"]["kernel"][:-1]
    monkeypatch.setattr(weights_module, "PART_BYTES", 1000)
    target = network.keras_network(SPEC, CLASSES)
    before = target.get_layer("probabilities").get_weights()[0]
    with pytest.raises(ModelError, match="do not fit the Keras network: layer probabilities"):
        to_keras(network, source, target)
    np.testing.assert_array_equal(target.get_layer("probabilities").get_weights()[0], before)
