"""Weights carried between the frameworks must give the same network."""

import numpy as np
import pytest

from models.artifacts.parity import networks_apart
from models.errors import ModelError
from models.networks.catalogue import NETWORKS, network_named
from models.networks.weights import folded, from_keras, from_torch, to_keras, to_torch
from tests.models.networks.tiny import CLASSES, SPEC, TINY, keras_outputs, scrambled, torch_outputs

EPSILON = 1e-3


def test_every_network_has_a_tiny_one():
    assert list(TINY) == list(NETWORKS)


@pytest.mark.parametrize("name", TINY)
def test_weights_from_keras_make_the_same_function_in_torch(name):
    source, target = scrambled(TINY[name]), TINY[name].torch_network(SPEC, CLASSES)
    to_torch(TINY[name], from_keras(TINY[name], source), target)
    assert networks_apart(keras_outputs(source), torch_outputs(target))[1] is None


@pytest.mark.parametrize("name", TINY)
def test_weights_from_torch_make_the_same_function_in_keras(name):
    source, target = TINY[name].torch_network(SPEC, CLASSES), TINY[name].keras_network(SPEC, CLASSES)
    to_torch(TINY[name], from_keras(TINY[name], scrambled(TINY[name], seed=4)), source)
    to_keras(TINY[name], from_torch(TINY[name], source), target)
    assert networks_apart(keras_outputs(target), torch_outputs(source))[1] is None


@pytest.mark.parametrize("name", TINY)
def test_the_outputs_compared_above_depend_on_the_weights_and_on_the_image(name):
    first, second = (keras_outputs(scrambled(TINY[name], seed)) for seed in (0, 4))
    assert np.abs(first - second).max() > 1e-2
    assert np.ptp(first, axis=0).max() > 1e-3


@pytest.mark.parametrize("name", TINY)
def test_a_round_trip_changes_no_bit(name):
    before = from_keras(TINY[name], scrambled(TINY[name]))
    module = TINY[name].torch_network(SPEC, CLASSES)
    to_torch(TINY[name], before, module)
    after = from_torch(TINY[name], module)
    assert before.keys() == after.keys()
    for layer, arrays in before.items():
        assert arrays.keys() == after[layer].keys()
        for tensor, array in arrays.items():
            np.testing.assert_array_equal(array, after[layer][tensor])


@pytest.mark.parametrize("name", TINY)
def test_the_table_names_every_value_of_either_network(name):
    model, module = TINY[name].keras_network(SPEC, CLASSES), TINY[name].torch_network(SPEC, CLASSES)
    carried = sum(array.size for layer in from_keras(TINY[name], model).values() for array in layer.values())
    assert carried == model.count_params()
    assert carried == sum(value.numel() for value in module.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_folding_batch_norm_gives_one_convolution_with_the_same_answer(depthwise, biased):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 1) if depthwise else (3, 3, 2, 4)).astype(np.float32)
    convolution = {"kernel": kernel, **({"bias": rng.normal(size=4).astype(np.float32)} if biased else {})}
    gamma, beta, mean = rng.normal(size=(3, 4)).astype(np.float32)
    variance = rng.uniform(0.5, 2, 4).astype(np.float32)
    norm = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    patch = rng.normal(size=kernel.shape[:3]).astype(np.float32)

    def convolved(of):
        return np.einsum("hwi,hwio->i" if depthwise else "hwi,hwio->o", patch, of)

    plain = convolved(kernel) + convolution.get("bias", 0)
    expected = (plain - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    of_one, bias = folded(convolution, norm, EPSILON)
    np.testing.assert_allclose(convolved(of_one) + bias, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carry", [to_keras, to_torch])
def test_weights_of_another_shape_are_refused_by_the_layers_name(carry):
    network = TINY["vgg16"]
    build = network.keras_network if carry is to_keras else network.torch_network
    with pytest.raises(ModelError, match=r"do not fit.*predictions"):
        carry(network, from_keras(network, scrambled(network, classes=5)), build(SPEC, CLASSES))


@pytest.mark.parametrize("carry", [to_keras, to_torch])
def test_missing_weights_are_named(carry):
    network = TINY["vgg16"]
    build = network.keras_network if carry is to_keras else network.torch_network
    weights = {name: layer for name, layer in from_keras(network, scrambled(network)).items() if name != "fc1"}
    with pytest.raises(ModelError, match="layer fc1: it is missing"):
        carry(network, weights, build(SPEC, CLASSES))


def test_weights_of_the_other_resnet_are_refused():
    ours, theirs = TINY["resnet50-torchvision"], TINY["resnet50-keras"]
    with pytest.raises(ModelError, match="only one side has a bias"):
        to_torch(ours, from_keras(theirs, scrambled(theirs)), ours.torch_network(SPEC, CLASSES))


def test_an_unknown_network_is_refused():
    with pytest.raises(ModelError, match=r"no network 'resnet'.*resnet50-keras"):
        network_named("resnet")


def test_both_cnns_have_the_layers_of_the_study():
    from models.manifest import InputSpec

    spec = InputSpec(height=32, width=32, mean=[0.5] * 3, std=[0.25] * 3)
    keras_shapes = sorted(tuple(w.shape) for w in NETWORKS["cnn"].keras_network(spec, 10).weights)
    assert (3, 3, 3, 32) in keras_shapes and (3, 3, 32, 64) in keras_shapes and (3, 3, 64, 128) in keras_shapes
    assert (8 * 8 * 128, 256) in keras_shapes and (256, 128) in keras_shapes and (128, 10) in keras_shapes
