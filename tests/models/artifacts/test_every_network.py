"""Every network goes through training and export, and both artifacts give its answers."""

import numpy as np
import pytest

from models.artifacts.export import export_model, trained_on
from models.artifacts.savedmodel import predict_images
from models.datasets.synthetic import load_synthetic
from models.errors import ModelError
from models.networks.catalogue import NETWORKS
from models.training.train import train
from tests.models.networks.tiny import TINY

SIZE = (36, 44)


@pytest.fixture(scope="module")
def pictures():
    return load_synthetic(SIZE, classes=3, images=256)


@pytest.mark.parametrize("name", [name for name in TINY if name != "cnn"])
def test_a_network_is_trained_exported_and_proved_equal(name, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, name, TINY[name])
    train("torch", pictures, tmp_path / "weights", epochs=1, network=name)
    dataset = trained_on(tmp_path / "weights", "torch")
    assert dataset.sha256 == pictures.sha256
    model = export_model(name, tmp_path / "weights", dataset, tmp_path, weights_from="torch")
    manifest = model.manifest
    assert (manifest.architecture, manifest.parity.status) == (name, "proved")
    assert manifest.parity.max_abs_difference <= 1e-5 and manifest.parity.max_logit_difference <= 1e-4
    answers = predict_images(model.verify("savedmodel"), model.golden_images())
    assert np.ptp(answers, axis=0).max() > 1e-5


def test_an_image_too_small_for_a_network_is_refused_before_training(tmp_path):
    small = load_synthetic((16, 16), classes=3, images=256)
    with pytest.raises(ModelError, match="vgg16 needs images of at least 32x32 pixels"):
        train("torch", small, tmp_path, epochs=1, network="vgg16")
