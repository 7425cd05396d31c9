"""The faults by which a network differs from its twin although every weight fits must fail the proof."""

import numpy as np
import pytest
from torch import nn
from torch.nn import functional

from models.artifacts.parity import networks_apart
from models.networks.weights import from_keras, to_torch
from tests.models.networks.tiny import CLASSES, SPEC, TINY, keras_outputs, scrambled, torch_outputs


def twin(name):
    """The Keras network's answers, and the torch network with its weights."""
    source, module = scrambled(TINY[name]), TINY[name].torch_network(SPEC, CLASSES)
    to_torch(TINY[name], from_keras(TINY[name], source), module)
    return keras_outputs(source), module


def modules(module, kind):
    return [part for part in module.modules() if isinstance(part, kind)]


def other_epsilon(module):
    norms = modules(module, nn.BatchNorm2d)
    for norm in norms:
        norm.eps = 1e-5 if norm.eps == 1e-3 else 1e-3
    return bool(norms)


def shifted_padding(module):
    """What one-sided padding is to padding on both sides: the windows of one convolution begin a pixel later."""
    conv = next(part for part in modules(module, nn.Conv2d) if part.kernel_size[0] > 1)
    conv.register_forward_pre_hook(lambda _, inputs: (functional.pad(inputs[0], (-1, 1, -1, 1)),))
    return True


def other_channel_order(module):
    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(1),))
    return True


def stride_elsewhere(module):
    """The strides of a block's first and second convolution change places; the shapes stay."""
    blocks = [(part.conv1, part.conv2, None) for part in module.modules() if hasattr(part, "conv2")]
    for part in module.modules():
        if hasattr(part, "depthwise") and hasattr(part.expand, "conv"):
            blocks.append((part.expand.conv, part.depthwise.conv, part.depthwise.padding))
    strided = [block for block in blocks if block[0].stride != block[1].stride]
    for first, second, padding in strided:
        first.stride, second.stride = second.stride, first.stride
        if padding:
            padding.stride = second.stride[0]
    return bool(strided)


FAULTS = {
    "epsilon": (other_epsilon, {"cnn", "resnet50-keras", "resnet50-torchvision", "efficientnet-lite0"}),
    "padding": (shifted_padding, set(TINY)),
    "channels": (other_channel_order, set(TINY)),
    "stride": (stride_elsewhere, {"resnet50-keras", "resnet50-torchvision", "efficientnet-lite0"}),
}


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault in FAULTS for name in TINY])
def test_a_fault_fails_the_proof(fault, name):
    inject, has_it = FAULTS[fault]
    expected, module = twin(name)
    assert networks_apart(expected, torch_outputs(module))[1] is None
    assert inject(module) == (name in has_it)
    if name in has_it:
        assert networks_apart(expected, torch_outputs(module))[1] is not None


def test_nearly_uniform_answers_of_two_networks_do_not_pass():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1e-3, (2, 5, 1000))
    first, second = (np.exp(some) / np.exp(some).sum(axis=1, keepdims=True) for some in logits)
    assert np.abs(first - second).max() < 1e-5
    assert networks_apart(first, second)[1].startswith("logits differ")


def test_a_probability_that_one_side_alone_lacks_fails_the_proof():
    first = np.array([[1 - 2e-6, 1e-6, 1e-6], [1.0, 0.0, 0.0]])
    second = np.array([[1 - 1e-6, 0.0, 1e-6], [1.0, 1e-40, 0.0]])
    assert networks_apart(first, first)[1] is None and networks_apart(first[1:], second[1:])[1] is None
    assert networks_apart(first, second)[1].startswith("logits differ")
