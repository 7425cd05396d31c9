"""A tiny model directory and an engine around fake_server.py: nothing here needs a real server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from models.manifest import ModelDir, sha256_of, size_of
from serving.deployment import ContainerLaunch, Endpoint, Launch
from serving.ports import HOST, free_ports
from serving.probe import http_get

FAKE_SERVER = Path(__file__).with_name("fake_server.py")


class FakeEngine:
    """Runs fake_server.py in one of its modes, or each replica in its own."""

    name = "fake"
    artifact = "mar"

    def __init__(self, *modes: str) -> None:
        self.modes = modes

    def check(self):
        return "fake 1"

    def launch(self, model, replica, budget, batching, workdir, port):
        port = port or free_ports(1)[0]
        mode = self.modes[replica % len(self.modes)]
        url = f"http://{HOST}:{port}"
        return Launch(
            command=[sys.executable, "-S", str(FAKE_SERVER), str(port), mode],
            env={},
            endpoint=Endpoint(replica, url, f"{HOST}:{port}", f"{url}/metrics"),
            workdir=workdir,
            ports=(port,),
            fatal="FATAL",
            precursor=workdir / "precursor" if mode == "announced" else None,
        )

    image = f"servestorm-test/fake:{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    """Made by the tests that use it; each worker of the suite, with the processes it starts, has its own."""

    def contain(self, model, budget, batching, config):
        # config is the replica's own: replica-N/config
        mode = self.modes[int(config.parent.name.rpartition("-")[2]) % len(self.modes)]
        (config / "mode").write_text(mode)
        return ContainerLaunch(
            command=["8000", mode, "0.0.0.0"],
            env={},
            config=config,
            rest_port=8000,
            grpc_port=8001,
            metrics_port=8000,
            metrics_path="/metrics",
            fatal="FATAL",
        )

    def ready(self, endpoint, model):
        return http_get(f"{endpoint.rest_url}/ready") == (200, b"ready")


def write_model(folder: Path) -> ModelDir:
    """A model directory whose artifacts are no models: enough for whoever only checks and passes them on."""
    (folder / "golden").mkdir(parents=True)
    (folder / "1").mkdir()
    (folder / "1" / "saved_model.pb").write_bytes(b"graph")
    (folder / "toy.mar").write_bytes(b"archive")
    (folder / "golden" / "000.png").write_bytes(b"image")
    artifacts = {
        key: {"path": path, "sha256": sha256_of(folder / path), "size_bytes": size_of(folder / path)}
        for key, path in (("savedmodel", "1"), ("mar", "toy.mar"))
    }
    image = "golden/000.png"
    golden = [{"path": image, "sha256": sha256_of(folder / image), "probabilities": [0.25, 0.75]}]
    manifest = {
        "name": "toy",
        "architecture": "cnn",
        "labels": ["a", "b"],
        "input": {"height": 2, "width": 2, "mean": [0.5] * 3, "std": [0.5] * 3},
        "parity": {"status": "proved", "tolerance": 1e-5, "images": 256},
        "golden": golden,
        "created_at": "2026-01-01T00:00:00Z",
        **artifacts,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ModelDir(folder)
