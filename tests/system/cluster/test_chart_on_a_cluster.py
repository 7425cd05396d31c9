"""The chart on a real cluster: each engine is installed, scaled, upgraded and killed under load, and leaves nothing.

The tests of one engine share a release and stand in the order of a release's life.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes import client

from models.manifest import ModelDir
from tests.deploy.chart.rendering import CHART, Object
from tests.system.cluster.askers import ask_some, asking
from tests.system.cluster.conftest import GENERATOR, MODELS
from tests.system.cluster.release import Release
from tests.system.cluster.space import Space, ending, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.system, pytest.mark.timeout(1200)]


@dataclass
class Life:
    """A release, and what the namespace held before it."""

    release: Release
    before: set[str]


@pytest.fixture(scope="module")
def newer(inside: Space) -> Object:
    """A model like the first in version 2, as a source that can be downloaded inside the cluster."""
    copy = {"name": "copy", "image": MODELS, "command": ["cp", "-R", "/models/.", "/tmp"]}
    command = ["python", "/scripts/newer_model.py", "/tmp/cnn"]
    server = inside.start(pod("newer", GENERATOR, command, initContainers=[copy]))
    checksums: list[str] = []

    def told() -> bool:
        checksums[:] = inside.core.read_namespaced_pod_log("newer", inside.name, container="newer").splitlines()
        return bool(checksums)

    inside.until("the newer model's checksum", told)
    url = f"http://{server['status']['podIP']}:8000/newer.tar"
    source = {"url": {"url": url, "sha256": checksums[0]}}
    return {"name": "cnn", "source": source}


@pytest.fixture(scope="module", params=["savedmodel", "torchserve"])
def life(request: Any, inside: Space, newer: Object) -> Iterator[Life]:
    release = Release(inside, request.param, request.param)
    before = inside.inventory()
    release.apply(images={"http": {"repository": "servestorm/generator", "tag": ""}})
    try:
        release.settle()
        yield Life(release, before)
    finally:
        release.helm("uninstall", release.name, "--ignore-not-found")


@pytest.fixture
def release(life: Life) -> Release:
    return life.release


def test_the_namespace_of_these_tests_admits_restricted_pods_only(own: Space) -> None:
    """So every pod of the chart that runs here meets the standard, as the cluster itself judges it."""
    free = pod("free", GENERATOR, ["true"])
    del free["spec"]["securityContext"]
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        own.core.create_namespaced_pod(own.name, free, dry_run="All")


def test_an_installed_release_answers_rightly_through_its_service(release: Release, model: ModelDir) -> None:
    ask_some(release, model, 10).assert_all_right()
    assert release.versions() == {"1" if release.engine == "savedmodel" else "1.0"}


def test_helm_s_own_test_of_the_release_passes(release: Release) -> None:
    done = release.helm("test", release.name)
    assert done.returncode == 0, f"{done.stderr}\n{release.space.story()}"


def test_a_load_job_ends_with_its_verdict_and_answers_were_compared(release: Release) -> None:
    options = {"closed-loop": 2, "warmup": 0, "duration": 5, "protocol": "grpc"}
    release.apply(
        load={"enabled": True, "mode": "job", "workers": 0, "options": options, "results": {"holdSeconds": 0}}
    )
    (job,) = jobs = [each for each in release.space.inventory() if each.startswith(f"Job {release.full}-load")]
    name = job.removeprefix("Job ")
    release.space.until("the job's end", lambda: bool(release.space.get("Job", name)["status"].get("conditions")))
    (load,) = release.pods("load")
    (ended,) = [each["state"]["terminated"] for each in load["status"]["containerStatuses"] if each["name"] == "load"]
    words = release.space.core.read_namespaced_pod_log(load["metadata"]["name"], release.space.name, container="load")
    assert ended["exitCode"] in (0, 4), words  # a busy cluster may make it INVALID
    assert re.search(f"servestorm: {'INVALID' if ended['exitCode'] else 'VALID'}", words), words
    sent, right = map(int, re.findall(r"(\d+) of (\d+) right", words)[-1])
    assert sent == right > 0
    release.apply(load={"enabled": False})
    release.space.until("the job's removal", lambda: not set(jobs) & release.space.inventory())


def test_an_upgrade_to_a_new_version_of_the_model_under_load_fails_no_request(
    release: Release, model: ModelDir, newer: Object
) -> None:
    with asking(release, model, threads=2, rate=20) as told:
        release.apply(models=[newer])
        release.settle()
    told.assert_all_right()
    assert release.versions() == {"2" if release.engine == "savedmodel" else "2.0"}


def test_three_replicas_all_answer_one_client_s_connection(release: Release, model: ModelDir) -> None:
    release.apply(replicas=3)
    release.settle()
    before = release.counts()
    assert len(before) == 3
    ask_some(release, model, 90).assert_all_right()
    gained = {name: count - before[name] for name, count in release.counts().items()}
    assert min(gained.values()) > 0, gained


def test_a_server_that_is_killed_under_load_costs_one_request_at_most(release: Release, model: ModelDir) -> None:
    """One that it had not read yet: that connection is reset, and Debian's HAProxy asks again only where one ends."""
    victim = release.ready()[0]
    with asking(release, model, threads=4, rate=40) as told:
        release.space.until("load on the victim", grows(release, victim))
        release.kill(victim)
        release.space.until("its new start", lambda: victim in release.ready())
    told.assert_all_right(cut=1)
    assert release.restarts(victim) == 1


def test_a_pod_that_is_deleted_at_once_under_load_costs_no_request(release: Release, model: ModelDir) -> None:
    victim = release.ready()[0]
    with asking(release, model, threads=4, rate=40) as told:
        release.space.until("load on the victim", grows(release, victim))
        release.space.core.delete_namespaced_pod(victim, release.space.name, grace_period_seconds=0)
        release.space.until("another in its place", lambda: victim not in release.ready() and len(release.ready()) == 3)
    told.assert_all_right()


def grows(release: Release, victim: str) -> Any:
    """A look that says whether the server has answered since the look was made."""
    before = release.counts()[victim]
    return lambda: release.counts()[victim] > before


def test_fewer_replicas_under_load_fail_no_request(release: Release, model: ModelDir) -> None:
    with asking(release, model, threads=2, rate=20) as told:
        release.apply(replicas=1)
        release.space.until("two of three going", lambda: sum(ending(each) for each in release.pods()) == 2)
        release.settle()
    told.assert_all_right()
    assert len(release.ready()) == 1


def test_a_typing_error_in_values_is_refused_and_changes_nothing(release: Release) -> None:
    before = release.space.get("Deployment", release.full)["metadata"]["resourceVersion"]
    done = release.helm("upgrade", release.name, str(CHART), "--reuse-values", "--set", "replicsa=2")
    assert done.returncode != 0
    assert "replicsa" in done.stderr
    assert release.space.get("Deployment", release.full)["metadata"]["resourceVersion"] == before


def test_an_uninstalled_release_leaves_nothing(life: Life) -> None:
    life.release.uninstall()
    space = life.release.space
    space.until("the removal of everything", lambda: space.inventory() <= life.before, patience_s=60)
