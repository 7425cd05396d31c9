"""The exported cnn that real servers serve in the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.manifest import MANIFEST_NAME, ModelDir
from tests.one_at_a_time import built_once
from tests.source_tree import ROOT

BUILT = ROOT / "build" / "models" / "cnn"


def exported_cnn(factory: pytest.TempPathFactory) -> ModelDir:
    """That of `servestorm export`; where it has not run, one from a training of one epoch, made once a test run."""
    if (BUILT / MANIFEST_NAME).is_file():
        return ModelDir(BUILT)
    return ModelDir(built_once(factory, "exported-cnn", _export) / "models" / "cnn")


def _export(folder: Path) -> None:
    from models.artifacts.export import export_model
    from models.datasets.load import load_dataset
    from models.training.train import train

    dataset = load_dataset("digits", seed=0)
    train("torch", dataset, folder / "weights", epochs=1, seed=0)
    export_model("cnn", folder / "weights", dataset, folder / "models", weights_from="torch")
