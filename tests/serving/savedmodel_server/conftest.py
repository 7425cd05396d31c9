"""Models made once a session, and a server started once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.savedmodel_server.savedmodel_zoo import write_zoo
from tests.serving.savedmodel_server.server_process import LABELS_AT_START, start_server


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def server(zoo, tmp_path_factory):
    """With a thread for each of the many calls that some tests have in flight at a time."""
    flags = f"--model_config_file={zoo / 'models.config'}", LABELS_AT_START, "--grpc_max_threads=4096"
    running = start_server(tmp_path_factory.mktemp("server"), *flags)
    try:
        running.wait_ready("zoo")
        yield running
    finally:
        running.stop()
