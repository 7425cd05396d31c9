from dataclasses import replace

import pytest

from models.manifest import ModelDir
from tests.one_at_a_time import built_once


@pytest.fixture(scope="session")
def digits():
    from models.datasets.load import load_dataset

    return load_dataset("digits")


@pytest.fixture(scope="session")
def few_digits(digits):
    """Enough images for parity, too few to take long."""
    from models.datasets.dataset import DatasetSplit

    train = DatasetSplit(digits.train.images[:192], digits.train.labels[:192])
    test = DatasetSplit(digits.test.images[:80], digits.test.labels[:80])
    return replace(digits, train=train, test=test)


@pytest.fixture(scope="session")
def weights_dir(few_digits, tmp_path_factory):
    """Both frameworks' weights after one epoch."""
    from models.training.train import train

    def train_both(folder):
        for framework in ("keras", "torch"):
            train(framework, few_digits, folder, epochs=1, seed=3, batch_size=16)

    return built_once(tmp_path_factory, "weights", train_both)


@pytest.fixture(scope="session")
def exported(few_digits, weights_dir, tmp_path_factory):
    """A model directory with both artifacts."""
    from models.artifacts.export import export_model

    return ModelDir(
        built_once(tmp_path_factory, "exported", lambda folder: export_model("tiny", weights_dir, few_digits, folder))
        / "tiny"
    )
