"""Models made once a session, and a server started once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.savedmodel_server.savedmodel_zoo import write_zoo
from tests.serving.savedmodel_server.server_process import start_server


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def server(zoo, tmp_path_factory):
    running = start_server(tmp_path_factory.mktemp("server"), f"--model_config_file={zoo / 'models.config'}")
    try:
        running.wait_ready("zoo")
        yield running
    finally:
        running.stop()
