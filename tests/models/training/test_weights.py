"""Weights carried between the frameworks must give the same network."""

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.training import keras_cnn
from models.training.architecture import BATCH_NORM_EPSILON
from models.training.torch_cnn import Cnn, Probabilities
from models.training.weights import ConvBlock, from_keras, from_torch, to_keras, to_torch

SHAPE = (12, 20, 3)
"""Not square, so that a swapped axis shows."""


def scrambled_keras(seed=0, classes=7):
    """A network whose batch norms have statistics worth carrying."""
    network = keras_cnn.build(*SHAPE, classes)
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        spread = rng.normal(0, 0.03, weight.shape)
        weight.assign(np.abs(spread) + 0.5 if "variance" in weight.path else weight.numpy() + spread)
    return network


def images(count=5):
    return np.random.default_rng(9).normal(0, 1, (count, *SHAPE)).astype(np.float32)


def keras_outputs(network):
    return network.predict(images(), verbose=0)


def torch_outputs(network):
    with torch.inference_mode():
        return Probabilities(network).eval()(torch.from_numpy(images().transpose(0, 3, 1, 2).copy())).numpy()


def test_weights_from_keras_make_the_same_function_in_torch():
    source, target = scrambled_keras(), Cnn(*SHAPE, 7)
    to_torch(from_keras(source), target)
    np.testing.assert_allclose(torch_outputs(target), keras_outputs(source), rtol=0, atol=1e-6)


def test_weights_from_torch_make_the_same_function_in_keras():
    source, target = Cnn(*SHAPE, 7), keras_cnn.build(*SHAPE, 7)
    to_torch(from_keras(scrambled_keras(seed=4)), source)
    to_keras(from_torch(source), target)
    np.testing.assert_allclose(keras_outputs(target), torch_outputs(source), rtol=0, atol=1e-6)


def test_the_outputs_compared_above_depend_on_the_weights():
    assert np.abs(keras_outputs(scrambled_keras(seed=0)) - keras_outputs(scrambled_keras(seed=4))).max() > 1e-3


def test_a_round_trip_changes_no_bit():
    before = from_keras(scrambled_keras())
    network = Cnn(*SHAPE, 7)
    to_torch(before, network)
    after = from_torch(network)
    for one, other in zip([*before.blocks, *before.dense], [*after.blocks, *after.dense], strict=True):
        for name, array in vars(one).items():
            np.testing.assert_array_equal(array, getattr(other, name))


def test_folding_batch_norm_gives_one_convolution_with_the_same_answer():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    gamma, beta, mean = rng.normal(size=(3, 4)).astype(np.float32)
    variance = rng.uniform(0.5, 2, 4).astype(np.float32)
    folded, bias = ConvBlock(kernel, gamma, beta, mean, variance).folded(BATCH_NORM_EPSILON)
    patch = rng.normal(size=(3, 3, 2)).astype(np.float32)
    plain = np.einsum("hwi,hwio->o", patch, kernel)
    expected = (plain - mean) / np.sqrt(variance + BATCH_NORM_EPSILON) * gamma + beta
    np.testing.assert_allclose(np.einsum("hwi,hwio->o", patch, folded) + bias, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carry", [to_keras, to_torch])
def test_weights_of_another_shape_are_refused(carry):
    target = keras_cnn.build(*SHAPE, 5) if carry is to_keras else Cnn(*SHAPE, 5)
    with pytest.raises(ModelError, match="do not fit"):
        carry(from_keras(scrambled_keras(classes=7)), target)


def test_both_networks_have_the_layers_of_the_study():
    keras_shapes = sorted(tuple(w.shape) for w in keras_cnn.build(32, 32, 3, 10).weights)
    assert (3, 3, 3, 32) in keras_shapes and (3, 3, 32, 64) in keras_shapes and (3, 3, 64, 128) in keras_shapes
    assert (8 * 8 * 128, 256) in keras_shapes and (256, 128) in keras_shapes and (128, 10) in keras_shapes
    floats = [v for v in Cnn(32, 32, 3, 10).state_dict().values() if v.is_floating_point()]
    assert sum(v.numel() for v in floats) == sum(int(np.prod(shape)) for shape in keras_shapes)
