"""Endpoints that ask for a token: TorchServe with its own token authorisation, and a server behind a gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from models.manifest import ModelDir
from serving.deployment import Batching, Budget
from serving.engines import ENGINES
from serving.errors import EngineUnavailable
from tests.exported_cnn import exported_cnn
from tests.stand_ins.gateway import gateway

pytestmark = pytest.mark.system

LOAD = ("--rate", "20", "--duration", "2", "--warmup", "0.5")
READY_S = "120"
GATEWAY_TOKEN = "g4teway-t0ken-of-a-study"


class Server:
    """A server that a person started: its endpoint, and the folder in which it lies."""

    def __init__(self, name: str, model: ModelDir, folder: Path, change) -> None:
        self.model, self.folder = model, folder
        launch = ENGINES[name].launch(model, 0, Budget(cpus=(0, 1)), Batching(), folder, None)
        self.endpoint = launch.endpoint
        change(folder)
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                launch.command, cwd=folder, env={**os.environ, **launch.env}, stdout=log, stderr=subprocess.STDOUT
            )


def started(name, tmp_path_factory, change=lambda folder: None):
    try:
        ENGINES[name].check()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    server = Server(name, exported_cnn(tmp_path_factory), tmp_path_factory.mktemp(name), change)
    yield server
    server.process.terminate()
    server.process.wait(30)


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory):
    """TorchServe as it comes: with token authorisation, whose tokens lie in key_file.json."""

    def with_tokens(folder):
        text = (folder / "config.properties").read_text()
        assert "disable_token_authorization=true\n" in text
        (folder / "config.properties").write_text(text.replace("disable_token_authorization=true\n", ""))

    yield from started("torchserve", tmp_path_factory, with_tokens)


@pytest.fixture(scope="module")
def savedmodel(tmp_path_factory):
    yield from started("savedmodel", tmp_path_factory)


def bearer(server, kind="inference"):
    return f"Bearer file:{server.folder / 'key_file.json'}#/{kind}/key"


def servestorm(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "servestorm.cli.main", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def load(server, *arguments, cwd):
    given = ["--headless", "--only-summary", "--host", server.endpoint.rest_url, *LOAD]
    given += ["--manifest", server.model.path / "manifest.json", "--out", cwd / "out"]
    done = servestorm("load", "steady", *given, *arguments, cwd=cwd)
    return done, json.loads(path.read_text()) if (path := cwd / "out" / "summary.json").exists() else None


def secrets_in(server):
    keys = json.loads((server.folder / "key_file.json").read_text())
    return [keys[kind]["key"] for kind in ("inference", "management", "API")]


def test_torchserve_with_tokens_is_waited_for_from_its_start(torchserve, tmp_path):
    url = torchserve.endpoint.rest_url
    done = servestorm(
        "wait", url, "--header", f"Authorization={bearer(torchserve)}", "--timeout", READY_S, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    refused = servestorm("wait", url, "--timeout", "0.5", cwd=tmp_path)
    assert refused.returncode == 3
    assert "(refused authorisation (HTTP 400)): send the endpoint's token, such as --header" in refused.stderr


@pytest.fixture
def ready_torchserve(torchserve, tmp_path):
    """The same, once it answers: any test may be the first."""
    url, header = torchserve.endpoint.rest_url, f"Authorization={bearer(torchserve)}"
    done = servestorm("wait", url, "--header", header, "--timeout", READY_S, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return torchserve


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_torchserve_with_tokens_is_loaded(ready_torchserve, protocol, tmp_path):
    given = ["--protocol", protocol, "--grpc-target", ready_torchserve.endpoint.grpc_target]
    done, summary = load(
        ready_torchserve, *given, "--header", f"Authorization={bearer(ready_torchserve)}", cwd=tmp_path
    )
    assert summary, done.stderr
    assert (summary["engine"], summary["ok"], summary["answers"]) == ("torchserve", 40, "checked"), done.stderr
    wrong = ["--header", f"Authorization={bearer(ready_torchserve, 'management')}", "--engine", "torchserve"]
    done, summary = load(ready_torchserve, *given, *wrong, cwd=tmp_path)
    named = {"rest": "HTTP 400", "grpc": "gRPC status 7"}[protocol]
    assert summary["error_details"] == {f"refused authorisation ({named})": 40}
    assert any("requests were refused authorisation" in reason for reason in summary["reasons"])
    assert done.returncode == 4


def plan_of(name, server, attached, **changes):
    plan = {
        "name": name,
        "model": {"name": server.model.name, "path": str(server.model.path)},
        "engines": [name],
        "backend": "attach",
        "attach": {name: attached},
        "repetitions": 3,
        "steady": {"rate_per_s": 20, "duration_s": 1, "warmup_s": 0.5},
        "disturbance": "ignored",
        **changes,
    }
    return yaml.safe_dump(plan)


def study(text, cwd, environment=()):
    """Exit code and messages of a study, its run directory, and all command lines that descended from it."""
    (cwd / "plan.yaml").write_text(text)
    seen: set[str] = set()
    with subprocess.Popen(
        [sys.executable, "-m", "servestorm.cli.main", "run", "plan.yaml"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **dict(environment)},
    ) as process:
        watch = threading.Thread(target=_watch, args=(process, seen))
        watch.start()
        output, _ = process.communicate(timeout=280)
        watch.join()
    (run,) = (cwd / "runs").iterdir() if (cwd / "runs").exists() else (None,)
    return process.returncode, output, run, seen


def _watch(process, seen):
    while process.poll() is None:
        try:
            family = psutil.Process(process.pid).children(recursive=True)
            seen.update(" ".join(each.cmdline()) for each in family)
        except psutil.Error:
            pass
        time.sleep(0.05)


def written(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode("latin-1")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_study_of_torchserve_with_tokens(ready_torchserve, protocol, tmp_path):
    place = ready_torchserve.endpoint
    attached = {
        "rest": place.rest_url,
        "grpc": place.grpc_target,
        "metrics": place.metrics_url,
        "management": place.management_url,
        "headers": {"Authorization": bearer(ready_torchserve), "X-Team": "vision"},
        "management_headers": {"Authorization": bearer(ready_torchserve, "management")},
    }
    code, output, run, seen = study(plan_of("torchserve", ready_torchserve, attached, protocol=protocol), tmp_path)
    assert code in (0, 4), output
    results = json.loads((run / "results.json").read_text())
    assert set(results["groups"]) == {"steady"}
    cells = sorted((run / "cells").iterdir())
    assert len(cells) == 3
    for cell in cells:
        assert json.loads((cell / "summary.json").read_text())["ok"] == 20
        (replica,) = json.loads((cell / "settings.json").read_text())["replicas"]
        assert replica["workers"]["value"] == 1
        assert pq.read_table(cell / "metrics.parquet").num_rows > 0
    assert f"Authorization={bearer(ready_torchserve)}" in json.loads((cells[0] / "generator.json").read_text())
    assert any("--header" in line for line in seen)
    everywhere = output + written(run) + "\n".join(seen)
    assert not [secret for secret in secrets_in(ready_torchserve) if secret in everywhere]


def test_a_study_without_the_tokens_names_the_refusal(ready_torchserve, tmp_path):
    attached = {"rest": ready_torchserve.endpoint.rest_url}
    text = plan_of("torchserve", ready_torchserve, attached, timeouts={"ready_s": 1})
    code, output, run, _ = study(text, tmp_path)
    assert code == 3, output
    (cell, *_) = sorted((run / "cells").iterdir())
    reason = json.loads((cell / "outcome.json").read_text())["reason"]
    assert "(refused authorisation (HTTP 400)): send the endpoint's token" in reason


def test_a_study_of_a_server_behind_a_gateway_that_asks_for_a_token(savedmodel, tmp_path):
    place = savedmodel.endpoint
    upstream = {"/monitoring": place.metrics_url, "": place.rest_url}
    headers = {"Authorization": "Bearer env:GATEWAY_TOKEN", "Host": "models.example"}
    with gateway(GATEWAY_TOKEN, upstream=upstream) as server:
        attached = {"rest": server.url, "metrics": f"{server.url}/monitoring/prometheus/metrics", "headers": headers}
        text = plan_of("savedmodel", savedmodel, attached)
        code, output, run, _ = study(text, tmp_path)
        assert (code, run) == (2, None), output
        assert "header Authorization refers to env:GATEWAY_TOKEN, which is not set here" in output
        assert server.asked == []
        code, output, run, seen = study(text, tmp_path, {"GATEWAY_TOKEN": GATEWAY_TOKEN})
    assert code in (0, 4), output
    for cell in sorted((run / "cells").iterdir()):
        assert json.loads((cell / "summary.json").read_text())["ok"] == 20
        assert pq.read_table(cell / "metrics.parquet").num_rows > 0
    assert {headers["Authorization"] for _, _, headers in server.asked} == {f"Bearer {GATEWAY_TOKEN}"}
    assert {headers["Host"] for _, _, headers in server.asked} == {"models.example"}
    assert any("--header" in line for line in seen)
    assert GATEWAY_TOKEN not in output + written(run) + "\n".join(seen)
