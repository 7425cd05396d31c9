"""A savedmodel-server process for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from serving.ports import free_ports

READY_S = 120
LABELS_AT_START = "--allow_version_labels_for_unavailable_models"
"""Needed where a configuration file has labels."""


@dataclass
class RunningServer:
    """A savedmodel-server process of our own."""

    process: subprocess.Popen[bytes]
    url: str
    target: str
    log: Path

    def wait_ready(self, model: str) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                if requests.get(f"{self.url}/v1/models/{model}", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-2000:])

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def start_server(workdir: Path, *flags: str) -> RunningServer:
    rest, grpc = free_ports(2)
    workdir.mkdir(parents=True, exist_ok=True)
    log = workdir / f"server-{rest}.log"
    command = [
        sys.executable, "-m", "serving.savedmodel_server", f"--rest_api_port={rest}", f"--port={grpc}", *flags,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    return RunningServer(process, f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}", log)
