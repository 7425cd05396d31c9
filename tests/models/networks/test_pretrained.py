"""Published weights give the answers that they give in the framework they come from."""

import io
import json

import keras
import numpy as np
import pytest
import torch
from PIL import Image

from models.artifacts.parity import networks_apart
from models.datasets.synthetic import load_synthetic
from models.errors import ModelError
from models.networks.catalogue import NETWORKS
from models.networks.pretrained import PUBLISHED, read_pretrained, weights_form
from models.networks.weights import feature_layers, from_keras, to_keras, to_torch
from models.preprocessing import decode_image, preprocess
from models.training.record import load_record
from models.training.train import train
from models.training.weight_files import load_weights
from tests.models.networks.tiny import TINY, scrambled
from tests.source_tree import ROOT

APPLICATIONS = {
    "resnet50-keras": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input, 64),
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input, 32),
}


def pictures(side, count=4):
    """Encoded images of red, green and blue that are not alike."""
    rng = np.random.default_rng(2)
    encoded = []
    for _ in range(count):
        buffer = io.BytesIO()
        coarse = rng.integers(0, 255, (5, 5, 3)) * [1.0, 0.6, 0.2]
        Image.fromarray(coarse.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="module")
def saved_applications(tmp_path_factory):
    """Networks of keras.applications with batch norms worth carrying, and files of their weights."""
    folder, saved = tmp_path_factory.mktemp("applications"), {}

    def save(name):
        if name not in saved:
            keras.utils.set_random_seed(1)
            build, _, side = APPLICATIONS[name]
            model = build(weights=None, input_shape=(side, side, 3), classes=5)
            rng = np.random.default_rng(0)
            for weight in model.weights:
                if "bn" in weight.path:
                    weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            model.save_weights(folder / f"{name}.weights.h5")
            saved[name] = model, folder / f"{name}.weights.h5"
        return saved[name]

    return save


@pytest.mark.parametrize("name", APPLICATIONS)
def test_weights_of_keras_applications_give_its_answers_with_its_preprocessing(name, saved_applications):
    model, path = saved_applications(name)
    _, preprocess_input, side = APPLICATIONS[name]
    images = pictures(side)
    decoded = np.stack([decode_image(image) for image in images]).astype(np.float32)
    expected = model.predict(preprocess_input(decoded), verbose=0).astype(np.float64)

    pretrained = read_pretrained(NETWORKS[name], path)
    spec = pretrained.scale.spec((side, side))
    network = NETWORKS[name].keras_network(spec, 5)
    to_keras(NETWORKS[name], pretrained.weights, network)
    inputs = np.stack([preprocess(image, spec) for image in images])
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert pretrained.classes == 5
    assert networks_apart(expected, network.predict(inputs, verbose=0).astype(np.float64)) == (
        pytest.approx(0, abs=1e-5),
        None,
    )


def test_a_file_without_top_gives_features_alone(saved_applications, tmp_path):
    model, _ = saved_applications("resnet50-keras")
    keras.Model(model.inputs, model.get_layer("conv5_block3_out").output).save_weights(tmp_path / "notop.weights.h5")
    pretrained = read_pretrained(NETWORKS["resnet50-keras"], tmp_path / "notop.weights.h5")
    assert pretrained.classes == 0
    assert "predictions" not in pretrained.weights and "conv5_block3_3_bn" in pretrained.weights


def test_published_names_of_torchvision_are_those_of_the_table(recorded_names):
    for name, tensors in recorded_names.items():
        module = torch_network(NETWORKS[name], 1000)
        ours = {key: list(value.shape) for key, value in module.state_dict().items()}
        assert {key: shape for key, shape in ours.items() if "num_batches" not in key} == tensors


def torch_network(network, classes):
    with torch.device("meta"):
        return network.torch_network(read_spec(network), classes)


def read_spec(network):
    return next(iter(PUBLISHED[network.name].values())).spec((network.side, network.side))


@pytest.fixture
def recorded_names():
    """Names and shapes of torchvision 0.2.2's state dicts (benchmarks/networks/torchvision_twins.py writes them)."""
    return json.loads((ROOT / "tests" / "models" / "networks" / "recorded" / "torchvision-0.2.2.json").read_text())


@pytest.fixture
def tiny_torch(tmp_path, monkeypatch):
    """A state dict of a small network that stands for resnet50-torchvision, and the network."""
    network = TINY["resnet50-torchvision"]
    monkeypatch.setitem(NETWORKS, "resnet50-torchvision", network)
    module = network.torch_network(read_spec(network), 7)
    path = tmp_path / "resnet50.pth"
    torch.save(module.state_dict(), path)
    return network, module, path


def test_a_state_dict_of_torch_is_read_by_name(tiny_torch):
    network, module, path = tiny_torch
    pretrained = read_pretrained(network, path)
    again = network.torch_network(read_spec(network), 7)
    to_torch(network, pretrained.weights, again)
    assert pretrained.classes == 7
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def rewritten(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("layer1.0.bn2.running_var"), "layer1.0.bn2.running_var is missing"),
        (lambda state: state.pop("fc.bias"), "fc.bias is missing"),
        (lambda state: state.update({"layer9.weight": torch.zeros(1)}), "it has layer9.weight, which is in no layer"),
    ],
)
def test_missing_and_foreign_tensors_are_named(tiny_torch, change, sentence):
    network, _, path = tiny_torch
    rewritten(path, change)
    with pytest.raises(ModelError, match=sentence):
        read_pretrained(network, path)


def test_a_broken_file_is_one_sentence(tiny_torch, tmp_path):
    network, _, path = tiny_torch
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"resnet50.pth does not hold weights of resnet50-torchvision: .*\.$"):
        read_pretrained(network, path)
    (tmp_path / "broken.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelError, match="does not hold weights of vgg16"):
        read_pretrained(NETWORKS["vgg16"], tmp_path / "broken.weights.h5")


@pytest.mark.parametrize(
    ("network", "file", "sentence"),
    [
        ("cnn", "w.pth", "no published weights of cnn: choose one of resnet50-keras"),
        ("resnet50-keras", "nowhere.weights.h5", "nowhere.weights.h5 does not exist"),
        ("resnet50-keras", "w.pth", r"read in Keras's form \(.weights.h5\)"),
        ("vgg16", "w.npz", r"read in Keras's form \(.weights.h5\) or in torch's form"),
    ],
)
def test_what_a_file_cannot_be_is_told_from_its_name(tmp_path, network, file, sentence):
    for name in ("w.pth", "w.npz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=sentence):
        weights_form(NETWORKS[network], tmp_path / file)


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_only_the_head_of_pretrained_features_learns(framework, tiny_torch, tmp_path):
    network, _, path = tiny_torch
    given = read_pretrained(network, path)
    dataset = load_synthetic((40, 40), classes=3, images=256)
    record = train(framework, dataset, tmp_path / "out", epochs=1, network="resnet50-torchvision", pretrained=path)
    learnt = load_weights(tmp_path / "out", load_record(tmp_path / "out", framework))
    for layer, arrays in given.weights.items():
        for name, array in arrays.items():
            same = layer != "predictions" and np.array_equal(array, learnt[layer][name])
            assert same == (layer != "predictions")
    head = sum(array.size for array in learnt["predictions"].values())
    assert record.frozen == record.parameters - head
    assert record.input.mean == [0.485, 0.456, 0.406]
    assert record.pretrained_sha256


def test_dense_layers_of_another_image_size_learn_anew():
    network = TINY["vgg16"]
    given = from_keras(network, scrambled(network))
    own = {**given, "fc1": {"kernel": np.zeros((2, 24), np.float32), "bias": np.zeros(24, np.float32)}}
    assert [row.keras for row in feature_layers(network, given, given)][-1] == "fc1"
    assert all(row.kind != "dense" for row in feature_layers(network, own, given))
