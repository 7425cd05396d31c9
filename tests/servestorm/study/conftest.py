"""What studies with stand-ins share."""

from __future__ import annotations

from pathlib import Path

import pytest

from servestorm.study import scraper
from tests.stand_ins.toy_engine import write_toy_model


@pytest.fixture
def built_in_scraper(monkeypatch):
    """Without Prometheus: the stand-in servers have no metrics for it to wait for."""
    monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)


@pytest.fixture
def model(tmp_path) -> Path:
    """The model of the stand-in servers."""
    return write_toy_model(tmp_path / "toy")
