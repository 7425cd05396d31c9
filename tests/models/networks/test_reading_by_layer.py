"""Large weights: read a layer at a time, and handed over to TensorFlow, without a bit of difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.artifacts.both_networks import _keras, _torch
from models.artifacts.source import ExportSource
from models.datasets.synthetic import load_synthetic
from models.errors import ModelError
from models.networks.catalogue import network_named
from models.networks.own_memory import ALIGNMENT, aligned, tensor_of
from models.networks.weights import ReadByLayer, for_one_reading, from_keras, from_torch, to_torch
from models.training import weight_files
from models.training.record import load_record
from models.training.train import train
from models.training.weight_files import _torch_layer, load_weights
from tests.models.networks.tiny import CLASSES, SPEC, TINY, keras_outputs, scrambled


def test_what_is_read_layer_by_layer_is_what_the_network_holds(tmp_path):
    train("torch", load_synthetic((16, 16), classes=3, images=300), tmp_path, epochs=1)
    record = load_record(tmp_path, "torch")
    read = load_weights(tmp_path, record)
    assert isinstance(read, ReadByLayer) and for_one_reading(read) is read
    module = network_named("cnn").torch_network(record.input, 3)
    module.load_state_dict(torch.load(tmp_path / record.weights, weights_only=True))
    held = from_torch(network_named("cnn"), module)
    assert list(read) == list(held) and len(read) == len(held)
    for layer, arrays in held.items():
        assert arrays.keys() == read[layer].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[layer][name], array)
    assert read["probabilities"]["kernel"] is not read["probabilities"]["kernel"]


@pytest.mark.parametrize("name", TINY)
def test_tensors_that_are_copied_in_parts_are_those_of_the_file(name, tmp_path, monkeypatch):
    network = TINY[name]
    module = network.torch_network(SPEC, CLASSES)
    to_torch(network, from_keras(network, scrambled(network)), module)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr(weight_files, "PART_BYTES", 100)  # fewer than most rows
    whole = from_torch(network, module)
    for row in network.layers():
        read = _torch_layer(tmp_path / "weights.pt", row)
        assert read.keys() == whole[row.keras].keys()
        for tensor, array in whole[row.keras].items():
            np.testing.assert_array_equal(read[tensor], array)
            assert read[tensor].flags.c_contiguous and read[tensor].ctypes.data % ALIGNMENT == 0


def source_of(network, weights):
    return ExportSource(network, lambda: dict(weights), SPEC, [str(n) for n in range(CLASSES)], None, "keras", 0, 0)


@pytest.mark.parametrize("name", TINY)
def test_a_network_made_with_its_weights_answers_as_one_that_was_given_them(name):
    network = TINY[name]
    model = scrambled(network)
    source = source_of(network, from_keras(network, model))
    module = network.torch_network(SPEC, CLASSES)
    to_torch(network, from_keras(network, model), module)
    images = np.random.default_rng(5).normal(size=(3, SPEC.height, SPEC.width, 3)).astype(np.float32)
    np.testing.assert_allclose(_keras(source)(images), model.predict(images, verbose=0), atol=1e-6)
    with torch.inference_mode():
        answers = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).softmax(dim=1)
    np.testing.assert_allclose(_torch(source)(images), answers.numpy(), atol=1e-6)
    assert np.abs(keras_outputs(model) - keras_outputs(scrambled(network, 4))).max() > 1e-2


def test_a_kernel_of_another_shape_is_refused_with_its_layer():
    network = TINY["cnn"]
    weights = {layer: dict(arrays) for layer, arrays in from_keras(network, scrambled(network)).items()}
    weights["probabilities"]["kernel"] = weights["probabilities"]["kernel"][:-1]
    with pytest.raises(ModelError, match=r"do not fit the Keras network: layer probabilities takes \(128, 7\)"):
        _keras(source_of(network, weights))


def test_a_tensor_takes_over_memory_that_is_aligned_and_copies_any_other():
    ours = aligned((3, 5))
    ours[...] = 1
    tensor = tensor_of(ours)
    ours[0, 0] = 7
    assert ours.ctypes.data % ALIGNMENT == 0 and float(tensor[0, 0]) == 7
    room = aligned((16, 4))
    room[...] = 1
    for other in (room[1:2, 1:3], room[:, :2], room.T):
        copy = tensor_of(other)
        other[0, 0] = 9
        assert float(copy[0, 0]) == 1 and copy.shape == other.shape
        other[0, 0] = 1
    room.setflags(write=False)
    assert float(tensor_of(room)[0, 0]) == 1 and tensor_of(aligned((0, 4))).shape == (0, 4)
