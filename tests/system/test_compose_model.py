"""`docker compose up` with another model name, more replicas than places, and then an old volume of models."""

from __future__ import annotations

import json

import pytest
import requests

from tests.requirements_here import need_image
from tests.source_tree import ROOT
from tests.system.compose_project import REST, Project, docker, until

pytestmark = [pytest.mark.docker, pytest.mark.system, pytest.mark.timeout(600)]
IMAGE = ROOT / "loadtests" / "bundled_digits" / "000.png"


@pytest.fixture(scope="module")
def project():
    for image in ("trainer", "savedmodel", "torchserve", "haproxy", "prometheus"):
        need_image(f"servestorm/{image}:0.1.0")
    made = Project(MODEL_NAME="zebra", BALANCER_SLOTS="1")
    try:
        made.up()
        yield made
    finally:
        made.down()


def test_both_engines_serve_the_model_of_that_name_through_the_balancer(project):
    status = requests.get(f"{project.url('haproxy', REST['savedmodel'])}/v1/models/zebra", timeout=10).json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    url = f"{project.url('haproxy', REST['torchserve'])}/predictions/zebra"
    answer = requests.post(
        url, data=IMAGE.read_bytes(), headers={"Content-Type": "application/octet-stream"}, timeout=10
    )
    assert len(answer.json()["predictions"][0]) == 10


def test_prometheus_has_the_bounds_that_the_files_give(project):
    assert project.prometheus("status/runtimeinfo")["storageRetention"] == "1w or 2GiB"


def test_a_replica_without_a_place_is_reported_by_the_balancer_its_log_and_an_alert(project):
    project.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "torchserve=2", "torchserve")

    def health():
        (haproxy,) = project.containers("haproxy")
        return haproxy["State"]["Health"]["Status"]

    until(lambda: health() == "unhealthy", "the balancer to be unhealthy")
    assert "torchserve has 2 replicas and the balancer places for 1" in project.compose("logs", "haproxy")

    def raised():
        alerts = project.prometheus("alerts")["alerts"]
        return [each["labels"]["proxy"] for each in alerts if each["labels"]["alertname"] == "ReplicasWithoutPlace"]

    assert until(raised, "the alert") == ["torchserve_rest"]
    project.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "torchserve=1", "torchserve")
    until(lambda: health() == "healthy", "the balancer to be healthy again")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"MODEL_NAME": "cnn"}, "trainer: /models holds zebra and not cnn: set MODEL_NAME"),
        ({"EPOCHS": "2"}, "trainer: /models/zebra was trained with EPOCHS=1"),
    ],
)
def test_a_volume_with_another_model_than_is_asked_for_is_refused(variables, sentence, project):
    """The trainer alone: the services that are up go on."""
    options = [word for name, value in {"MODEL_NAME": "zebra", "EPOCHS": "1", **variables}.items()
               for word in ("-e", f"{name}={value}")]  # fmt: skip
    with pytest.raises(AssertionError, match=sentence):
        project.compose("run", "--rm", "--no-deps", *options, "trainer")


def test_a_volume_whose_files_are_not_the_manifest_s_is_refused(project):
    (torchserve, *_) = project.containers("torchserve")
    (volume,) = [mount["Name"] for mount in torchserve["Mounts"] if mount["Destination"] == "/models"]
    spoil = "echo >> /models/zebra/zebra.mar"
    image = json.loads(project.compose("config", "--format", "json"))["services"]["trainer"]["image"]
    docker("run", "--rm", "--volume", f"{volume}:/models", "--entrypoint", "sh", image, "-c", spoil)
    with pytest.raises(AssertionError, match=r"zebra\.mar is corrupt"):
        project.compose("run", "--rm", "--no-deps", "trainer")
