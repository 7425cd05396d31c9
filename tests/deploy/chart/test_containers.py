"""The chart's pods run as containers: a server, HAProxy before it and a load job, with the files that were rendered."""

from __future__ import annotations

import json
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from models.manifest import ModelDir
from serving.probe import KnownRequest, http_get, http_send
from serving.wire import WIRES
from tests.deploy.chart.containers import Cluster, Running
from tests.deploy.chart.rendering import Object, Rendered, pod_of, render
from tests.deploy.chart.tools import need_helm
from tests.exported_cnn import exported_cnn
from tests.requirements_here import need_image

pytestmark = [pytest.mark.docker, pytest.mark.helm, pytest.mark.system]
SETTINGS = (
    "balancer.mode=always",
    "images.haproxy.repository=servestorm/haproxy",
    "images.haproxy.tag=",
    "resources.limits.cpu=2",
    "batching.maxSize=4",
    "monitoring.adapterRules.enabled=true",
    "load.enabled=true",
    "load.mode=job",
    "load.workers=0",
    "load.options.closed-loop=2",
    "load.options.warmup=0",
    "load.options.duration=2",
)
PREFIX = {"savedmodel": "tensorflow", "torchserve": "torchserve"}
"""What the names of an engine's metrics for the autoscaler begin with."""
HEADLESS = "r-servestorm-headless.vision.svc.cluster.local"


@dataclass
class Release:
    """What stands in the place of the cluster: a ready server and a ready balancer."""

    cluster: Cluster
    rendered: Rendered
    server: Running
    balancer: Running

    def job(self) -> Object:
        """The load."""
        (found,) = self.rendered.all("Job")
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelDir:
    return exported_cnn(tmp_path_factory)


@pytest.fixture(scope="module", params=["savedmodel", "torchserve"])
def engine(request) -> str:
    need_helm()
    for role in (request.param, "haproxy", "generator"):
        need_image(f"servestorm/{role}:0.1.0")
    return request.param


@pytest.fixture(scope="module")
def release(engine, model, tmp_path_factory) -> Iterator[Release]:
    rendered = render(f"engine={engine}", *SETTINGS)
    cluster = Cluster(rendered, tmp_path_factory.mktemp(engine))
    # what the init container does; its image is tested by itself
    shutil.copytree(model.path, cluster.volume("models") / model.name)
    with cluster.running():
        server = cluster.start(rendered.get("Deployment"), "server", HEADLESS)
        balancer = cluster.start(rendered.get("Deployment", "-balancer"), "haproxy", "r-servestorm")
        server.wait("startupProbe")
        balancer.wait("readinessProbe")
        yield Release(cluster, rendered, server, balancer)


def test_a_server_that_its_probe_calls_ready_answers_rightly_at_once(release, engine, model):
    question = KnownRequest.of(WIRES[engine], model)
    status, body = http_send(release.server.url("rest"), question.request)
    assert question.verdict(status, body) == "right", body
    assert release.server.passes("readinessProbe") and release.server.passes("livenessProbe")


def test_a_server_that_cannot_answer_is_alive_and_yet_not_ready(engine, model, tmp_path):
    """The looks that the probes do without say otherwise: TorchServe's /ping, and the other's status of a model."""
    cluster = Cluster(rendered := render(f"engine={engine}", *SETTINGS), tmp_path)
    broken = cluster.volume("models") / model.name
    shutil.copytree(model.path, broken)
    (broken / "1" / "saved_model.pb").write_bytes(b"no model")
    _hang(broken / f"{model.name}.mar")
    with cluster.running():
        server = cluster.start(rendered.get("Deployment"), "server", HEADLESS)
        server.wait("livenessProbe")
        assert not server.passes("startupProbe")
        assert not server.passes("readinessProbe")


def _hang(archive: Path) -> None:
    """Give a model archive a handler that never comes to an end of its start."""
    with zipfile.ZipFile(archive) as whole:
        files = {name: whole.read(name) for name in whole.namelist()}
    files["handler.py"] = b"import time\nclass Handler:\n    def initialize(self, context):\n        time.sleep(3600)\n"
    with zipfile.ZipFile(archive, "w") as changed:
        for name, content in files.items():
            changed.writestr(name, content)


def test_a_job_waits_for_the_balancer_and_gets_right_answers_through_it(release):
    job = release.job()
    waited = release.cluster.finish(job, "wait")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    load = release.cluster.finish(job, "load")
    assert load.returncode in (0, 4), load.stdout + load.stderr  # a busy machine may make it INVALID
    summary = json.loads((release.cluster.volume("results") / "pod" / "summary.json").read_text())
    assert summary["endpoints"] == [f"http://r-servestorm:{release.server.port('rest')}"]
    assert summary["ok"] > 0 and summary["ok"] == summary["scheduled"]
    assert summary["errors"] == {} and summary["wrong_answers"] == 0
    assert summary["answers"] == "checked"
    assert (release.cluster.volume("results") / "pod" / "samples.parquet").stat().st_size > 0


def test_the_servers_tell_the_series_that_autoscaling_reads(release, engine):
    """Runs after the load: a series is there once a request has been counted."""
    rules = yaml.safe_load(release.rendered.get("ConfigMap", "-adapter-rules")["data"]["config.yaml"])["rules"]
    own = {rule["seriesQuery"].split("{")[0] for rule in rules if rule["name"]["as"].startswith(PREFIX[engine])}
    path = "/metrics" if engine == "torchserve" else "/monitoring/prometheus/metrics"
    port = "metrics" if engine == "torchserve" else "rest"
    status, page = http_get(release.server.url(port, path), 30)  # the first look imports what makes the page
    assert status == 200
    told = dict(re.findall(r"^([\w:]+)\{[^}]*\} (\S+)$", page.decode(), re.MULTILINE))
    assert len(own) == 3
    assert own <= set(told)
    assert all(float(told[name]) > 0 for name in own)


def test_the_balancer_finds_the_server_by_its_name_over_both_protocols(release):
    until_s, up = time.monotonic() + 60, {}
    while up != {"rest": 1, "grpc": 1} and time.monotonic() < until_s:  # its checks of a server take seconds
        status, page = http_get(release.balancer.url("statistics", "/metrics"), 30)
        assert status == 200
        counts = re.findall(r'^haproxy_backend_active_servers\{proxy="(\w+)"\} (\d+)$', page.decode(), re.MULTILINE)
        up = {proxy: int(count) for proxy, count in counts if proxy != "statistics"}
    assert up == {"rest": 1, "grpc": 1}


def test_the_balancer_ends_by_the_signal_that_its_hook_sends(release):
    """The last but one: nothing can be sent through it any more."""
    hook = release.balancer.spec["lifecycle"]["preStop"]["exec"]["command"]
    release.balancer.execute(*(part.replace("sleep 10", "true").replace("sleep 30", "true") for part in hook))
    assert release.balancer.ended() in (0, 143)


def test_a_server_ends_within_the_time_that_it_is_given(release):
    pod = pod_of(release.rendered.get("Deployment"))
    grace_s = pod["terminationGracePeriodSeconds"] - release.server.spec["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert release.server.stop(grace_s) in (0, 143), "it had to be killed"
