"""An engine around toy_server.py and a generator around toy_locust.py: a whole study without real servers.

Run as a program it is `servestorm run` with these, on a quiet machine unless TOY_MACHINE says otherwise:
python toy_engine.py SERVER_MODE GENERATOR_MODE run PLAN --out DIR
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from models.manifest import sha256_of, size_of
from servestorm.study.generator_local import LocalGenerator
from serving.deployment import Endpoint, Launch
from serving.ports import free_ports
from serving.probe import http_get
from serving.server_settings import OrderedSettings, read, unreadable_settings

HERE = Path(__file__).parent
PROBABILITIES = [0.25, 0.75]


class ToyEngine:
    """toy_server.py in one of its modes; `runs_with` are settings that its servers report."""

    def __init__(self, name: str, mode: str = "answer") -> None:
        self.name, self.mode = name, mode
        self.runs_with: dict[str, int] = {}
        self.artifact = "mar" if name == "torchserve" else "savedmodel"

    def check(self):
        return f"toy {self.name}"

    def launch(self, model, replica, budget, batching, workdir, port):
        (port,) = free_ports(1) if port is None else (port,)
        url = f"http://127.0.0.1:{port}"
        return Launch(
            command=[sys.executable, "-S", str(HERE / "toy_server.py"), str(port), self.mode],
            env={},
            endpoint=Endpoint(replica, url, f"127.0.0.1:{port}", f"{url}/metrics"),
            workdir=workdir,
            ports=(port,),
        )

    def ready(self, endpoint, model):
        return http_get(f"{endpoint.rest_url}/ready") == (200, b"ready")

    def ordered(self, budget, batching):
        return OrderedSettings(max_batch_size=batching.max_batch_size, threads=budget.threads)

    def settings(self, server, model):
        settings = unreadable_settings("the stand-in does not report it")
        return dataclasses.replace(
            settings, **{name: read(value, "GET /toy") for name, value in self.runs_with.items()}
        )


def toy_engines(mode: str = "answer") -> dict[str, ToyEngine]:
    """Stand-ins for all three engines."""
    return {name: ToyEngine(name, mode) for name in ("savedmodel", "torchserve", "tfserving")}


def toy_generator(mode: str = "valid") -> LocalGenerator:
    """toy_locust.py in one of its modes."""
    return LocalGenerator(python=(sys.executable, str(HERE / "toy_locust.py"), mode))


def write_toy_model(folder: Path, parity: str = "proved") -> Path:
    """A model directory whose artifacts are no models."""
    (folder / "golden").mkdir(parents=True)
    (folder / "1").mkdir()
    (folder / "1" / "saved_model.pb").write_bytes(b"graph")
    (folder / "toy.mar").write_bytes(b"archive")
    image = "golden/000.png"
    (folder / image).write_bytes(b"image")
    artifacts = {
        key: {"path": path, "sha256": sha256_of(folder / path), "size_bytes": size_of(folder / path)}
        for key, path in (("savedmodel", "1"), ("mar", "toy.mar"))
    }
    manifest = {
        "name": "toy",
        "architecture": "cnn",
        "labels": ["a", "b"],
        "input": {"height": 2, "width": 2, "mean": [0.5] * 3, "std": [0.5] * 3},
        "parity": {"status": parity, "tolerance": 1e-5, "images": 256},
        "golden": [{"path": image, "sha256": sha256_of(folder / image), "probabilities": PROBABILITIES}],
        "created_at": "2026-01-01T00:00:00Z",
        **artifacts,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def toy_plan(model: Path, **changes) -> str:
    """A plan (YAML, of which JSON is a part) with one run of everything."""
    plan = {
        "name": "toy",
        "model": {"name": "toy", "path": str(model)},
        "engines": ["savedmodel", "torchserve"],
        "repetitions": 3,
        "cold_starts": 1,
        "steady": {"rate_per_s": 100, "duration_s": 8, "warmup_s": 0},
        "scaling": {"replicas": [1, 2], "concurrency": 4, "duration_s": 2, "warmup_s": 0, "repetitions": 1},
        "timeouts": {"ready_s": 20, "answer_s": 20, "generator_s": 20},
    }
    return json.dumps({key: value for key, value in {**plan, **changes}.items() if value is not None})


if __name__ == "__main__":
    import functools

    from made_up_machine import MadeUpMachine  # beside this program

    from servestorm.cli import main
    from servestorm.study import runner, scraper
    from serving import engines

    scraper._start_prometheus = lambda *_: None  # these servers have no metrics for it to wait for
    runner.ENGINES = engines.ENGINES = toy_engines(sys.argv[1])
    machine = MadeUpMachine.parsed(os.environ.get("TOY_MACHINE", ""))
    runner.Study = functools.partial(runner.Study, generator=toy_generator(sys.argv[2]), machine=machine)
    sys.exit(main.main(sys.argv[3:]))
