"""Training steps that a compiler makes, or whose layers compute in bfloat16."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from models.datasets.synthetic import load_synthetic
from models.training.learner import StepOptions
from models.training.train import learn

OPTIONS = {
    "compiled": StepOptions(compiled=True),
    "bfloat16": StepOptions(precision="bfloat16"),
    "both": StepOptions(compiled=True, precision="bfloat16"),
}


@pytest.fixture(scope="module")
def pictures():
    return load_synthetic((16, 16), classes=3, images=300)


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_network_learns_with_them_and_its_weights_stay_float32(pictures, framework, name):
    options = OPTIONS[name]
    if framework == "torch" and options.compiled and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    learnt = learn(framework, pictures, epochs=2, options=options)
    record, network = learnt.record, learnt.learner.network
    assert (record.compiled, record.precision) == (options.compiled, options.precision)
    assert record.top1 > 0.6  # of three classes
    if framework == "keras":
        assert {weight.dtype for weight in network.weights} == {"float32"}
        assert network.jit_compile is options.compiled
        computed = {layer.compute_dtype for layer in network.layers[:-1]}
        assert computed == {options.precision} and network.layers[-1].compute_dtype == "float32"
    else:
        assert {str(value.dtype) for value in network.parameters()} == {"torch.float32"}
    assert learnt.answers.dtype == np.float32
    np.testing.assert_allclose(learnt.answers.sum(axis=1), 1, atol=1e-4)


def test_the_precision_is_that_of_one_network_alone(pictures):
    learn("keras", pictures, epochs=1, options=OPTIONS["bfloat16"])
    after = learn("keras", pictures, epochs=1)
    assert {layer.compute_dtype for layer in after.learner.network.layers} == {"float32"}


def test_torch_computes_in_bfloat16_where_it_is_asked(pictures):
    seen = set()

    def look(_module, _inputs, output):
        seen.add(str(output.dtype))

    from torch import nn

    from models.datasets.pixels import load_pixels, normalise_in_place, training_spec
    from models.networks.catalogue import network_named
    from models.training.learner import LearnerOrder
    from models.training.torch_learner import TorchLearner

    pixels = load_pixels(pictures.train.images, pictures.size)
    order = LearnerOrder(network_named("cnn"), training_spec(pixels), 3, 0, 32, options=OPTIONS["bfloat16"])
    learner = TorchLearner(order)
    for module in learner.network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    learner.epoch(normalise_in_place(pixels, order.input), pictures.train.labels, 1e-3, lambda _share: None)
    assert seen == {"torch.bfloat16"}
