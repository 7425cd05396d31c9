"""A training that does not fit is refused before it starts, with the estimate."""

import pytest

from models.datasets.synthetic import load_synthetic
from models.errors import ModelEnvironmentError
from models.manifest import InputSpec
from models.networks.catalogue import NETWORKS
from models.training import memory
from models.training.train import train

SPEC = InputSpec(height=224, width=224, mean=[0.5] * 3, std=[0.5] * 3)


@pytest.fixture(scope="module")
def dataset():
    return load_synthetic((32, 32), classes=3, images=256)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50-torchvision", 25.6), ("vgg16", 138.4), ("googlenet", 7.0), ("efficientnet-lite0", 4.7)],
)
def test_networks_have_the_sizes_of_their_papers(name, millions):
    weights, _ = memory.sizes(NETWORKS[name], SPEC, 1000)
    assert weights / 4 == pytest.approx(millions * 1e6, rel=0.02)


def test_outputs_are_those_of_all_layers():
    _, outputs = memory.sizes(NETWORKS["cnn"], InputSpec(height=8, width=8, mean=[0.5] * 3, std=[0.5] * 3), 10)
    convolutions = 3 * (64 * 32 + 16 * 64 + 4 * 128) + 16 * 32 + 4 * 64
    dense = 4 * 128 + 2 * 256 + 2 * 128 + 10
    assert outputs == 4 * (convolutions + dense)


def test_a_training_that_does_not_fit_is_refused_with_the_estimate(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 30)
    with pytest.raises(ModelEnvironmentError, match=r"vgg16 on .* takes about \d+\.\d GiB .* 1.0 GiB are available"):
        train("torch", dataset, tmp_path, network="vgg16")
    assert list(tmp_path.iterdir()) == []


def test_one_that_fits_begins(dataset, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 30)
    memory.require_memory(NETWORKS["cnn"], dataset, 32)


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.available_bytes() == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 1 << 20
