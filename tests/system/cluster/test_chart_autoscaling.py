"""The chart's autoscaler on a real cluster with metrics-server: up under a burst, down after it, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.manifest import ModelDir
from tests.deploy.chart.rendering import Object
from tests.system.cluster.askers import asking
from tests.system.cluster.release import Release
from tests.system.cluster.space import Space

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.system, pytest.mark.timeout(1200)]
AUTOSCALING = {
    "enabled": True,
    "minReplicas": 1,
    "maxReplicas": 3,
    # so far above what a slow trickle takes, and below what a burst does, that no cluster is in between
    "targets": {"cpuPercent": 80},
    "scaleDown": {"stabilizationSeconds": 0, "pods": 4, "periodSeconds": 15},
}
RESOURCES = {"requests": {"cpu": "150m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "1Gi"}}


@pytest.fixture
def release(inside: Space) -> Iterator[Release]:
    made = Release(inside, "bursts", "savedmodel")
    made.apply(autoscaling=AUTOSCALING, resources=RESOURCES)
    try:
        made.settle()
        yield made
    finally:
        made.helm("uninstall", made.name, "--ignore-not-found", "--wait")


def autoscaler(release: Release) -> Object:
    """What the autoscaler says of itself."""
    status: Object = release.space.get("HorizontalPodAutoscaler", release.full)["status"]
    return status


def sees_use(release: Release) -> bool:
    """Whether metrics of the servers' use have come."""
    conditions = {each["type"]: each["status"] for each in autoscaler(release).get("conditions", [])}
    return conditions.get("ScalingActive") == "True"


def test_the_autoscaler_adds_replicas_under_a_burst_and_takes_them_away_after_it_and_no_request_fails(
    release: Release, model: ModelDir
) -> None:
    release.space.until("metrics of the servers' use", lambda: sees_use(release))
    with asking(release, model, rate=1) as trickle:
        with asking(release, model, threads=6) as burst:
            release.space.until("three replicas that answer", lambda: len(release.ready()) == 3)
        burst.assert_all_right()
        release.space.until("one replica again", lambda: len(release.pods()) == 1)
    trickle.assert_all_right()
    assert autoscaler(release)["desiredReplicas"] == 1
