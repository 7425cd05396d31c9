"""How much Prometheus keeps, in Compose and in the chart: Prometheus itself says what it made of the flags."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request

import pytest

from serving.ports import free_ports
from serving.probe import http_get
from tests.deploy.chart.rendering import container, pod_of, render
from tests.deploy.compose.compose_files import services, without_variables
from tests.requirements_here import lacking


def retention(flags, folder):
    """What a Prometheus with these flags says of its retention."""
    if shutil.which("prometheus") is None:
        lacking("prometheus", "prometheus is not here: apt-get install prometheus")
    (port,) = free_ports(1)
    (folder / "prometheus.yml").write_text("")
    own = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    asked = [flag for flag in flags if flag.startswith("--storage.tsdb.retention")]
    with subprocess.Popen(["prometheus", *own, *asked], cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + 30
            while (http_get(f"http://127.0.0.1:{port}/-/ready") or (0,))[0] != 200:
                assert process.poll() is None and time.monotonic() < deadline_s, asked
                time.sleep(0.1)
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/runtimeinfo", timeout=10)
            return json.load(page)["data"]["storageRetention"]
        finally:
            process.kill()


def test_compose_s_prometheus_has_a_bound_in_time_and_in_size(tmp_path):
    flags = [without_variables(flag) for flag in services()["prometheus"]["command"]]
    assert retention(flags, tmp_path) == "1w or 2GiB"


def chart(*settings):
    pod = pod_of(render("prometheus.enabled=true", *settings).get("Deployment", "-prometheus"))
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "data"]
    return container(pod, "prometheus")["args"], volume["emptyDir"]["sizeLimit"]


@pytest.mark.helm
def test_the_chart_s_prometheus_keeps_less_than_its_volume_holds(tmp_path):
    flags, limit = chart("prometheus.storage=5Gi")
    assert limit == "5Gi"
    assert retention(flags, tmp_path) == "2d or 4GiB"


@pytest.mark.helm
@pytest.mark.parametrize(("storage", "most"), [("2Gi", 1717986918), ("500M", 400_000_000), ("1.5Gi", 1288490188)])
def test_whatever_the_volume_is_eighty_percent_are_used(storage, most):
    flags, limit = chart(f"prometheus.storage={storage}")
    assert limit == storage
    assert f"--storage.tsdb.retention.size={most}B" in flags
