"""make kind-up: what can be tried of it where no node image can be pulled."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.chart.rendering import CHART, render
from tests.source_tree import ROOT

SCRIPT = ROOT / "deploy" / "k8s" / "kind-up.sh"
VALUES = ROOT / "deploy" / "k8s" / "values" / "kind.yaml"

MANIFEST = "kind: Deployment\n"
SHA256 = hashlib.sha256(MANIFEST.encode()).hexdigest()
CURL = """#!/usr/bin/env bash
echo "curl $*" >> "{folder}/calls"
while [ "$1" != --output ]; do shift; done
cp "{folder}/components.yaml" "$2"
"""


@pytest.fixture
def programs(tmp_path):
    """A PATH with what the script calls, each program writing down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "dirname", "basename", "sed", "grep", "cat", "mktemp", "rm", "cp", "sha256sum"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name in ("docker", "kind", "kubectl", "helm"):
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\n[ -t 0 ] || cat >/dev/null\n')
        program.chmod(0o755)
    (tmp_path / "components.yaml").write_text(MANIFEST)
    (folder / "curl").write_text(CURL.format(folder=tmp_path))
    (folder / "curl").chmod(0o755)
    return folder


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def kind_up(programs, **variables):
    variables = {"METRICS_SERVER_SHA256": SHA256, **variables}
    return subprocess.run(
        [str(SCRIPT)], env={"PATH": str(programs), **{k: str(v) for k, v in variables.items()}},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["savedmodel", "torchserve"])
def test_kind_up_loads_every_image_that_the_chart_then_asks_for(engine, programs, export, tmp_path):
    done = kind_up(programs, MODEL=export, ENGINE=engine)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    (loaded,) = [call for call in calls if call.startswith("kind load docker-image")]
    (installed,) = [call for call in calls if call.startswith("helm upgrade --install")]
    assert f"engine={engine}" in installed and "servestorm/models-toy" in installed
    assert {f"servestorm/{name}:0.1.0" for name in (engine, "generator", "haproxy", "prometheus", "models-toy")} == set(
        re.findall(r"servestorm/[\w:.-]+", loaded)
    )


@pytest.mark.helm
def test_the_chart_asks_kind_s_node_for_nothing_else():
    everything = ("balancer.mode=always", "prometheus.enabled=true", "load.enabled=true")
    for engine in ("savedmodel", "torchserve"):
        rendered = render(f"engine={engine}", *everything, values=VALUES)
        found = set(re.findall(r"'image': '([^']+)'", str(rendered.objects)))
        assert found == {
            f"servestorm/{name}:0.1.0" for name in (engine, "generator", "haproxy", "prometheus", "models-cnn")
        }
        assert set(re.findall(r"'imagePullPolicy': '(\w+)'", str(rendered.objects))) == {"Never"}


@pytest.mark.helm
def test_debian_s_prometheus_is_not_asked_for_what_it_cannot_do():
    """Its build has no discovery by Kubernetes."""
    for values in (VALUES, CHART / "ci" / "airgap-values.yaml"):
        rendered = render("prometheus.enabled=true", values=values)
        (deployment,) = [each for each in rendered.all("Deployment") if each["metadata"]["name"].endswith("prometheus")]
        assert "'image': 'servestorm/prometheus:" in str(deployment)
        assert "kubernetes_sd_configs" not in rendered.get("ConfigMap", "-prometheus")["data"]["prometheus.yml"]


@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl", "helm", "curl", "sha256sum"])
def test_a_program_that_is_missing_is_named_with_where_to_get_it(missing, programs, export):
    (programs / missing).unlink()
    done = kind_up(programs, MODEL=export)
    assert done.returncode == 3
    assert done.stderr.startswith(f"make kind-up needs {missing}: install")


def test_an_engine_or_an_export_that_is_not_there_is_a_usage_error(programs, export, tmp_path):
    wrong = kind_up(programs, MODEL=export, ENGINE="tfserving")
    assert wrong.returncode == 2 and "savedmodel and torchserve" in wrong.stderr
    none = kind_up(programs, MODEL=tmp_path / "nothing")
    assert none.returncode == 2 and "holds no export" in none.stderr


def test_an_image_that_was_not_built_is_named_with_the_command_that_builds_it(programs, export):
    (programs / "docker").write_text("#!/usr/bin/env bash\nexit 1\n")
    done = kind_up(programs, MODEL=export)
    assert done.returncode == 3
    assert "image servestorm/savedmodel:0.1.0 is not here: make airgap-images" in done.stderr


def test_a_manifest_with_another_checksum_is_not_applied_and_nothing_is_made(programs, export, tmp_path):
    (tmp_path / "components.yaml").write_text("kind: Replaced\n")
    done = kind_up(programs, MODEL=export)
    assert done.returncode == 3
    assert f"has not the SHA-256 {SHA256}, so it is not applied" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "kubectl" not in calls and "kind create" not in calls and "helm" not in calls


def test_a_manifest_that_cannot_be_downloaded_ends_it(programs, export, tmp_path):
    (programs / "curl").write_text("#!/usr/bin/env bash\nexit 22\n")
    done = kind_up(programs, MODEL=export)
    assert done.returncode == 3 and "could not be downloaded: set METRICS_SERVER to file:///PATH" in done.stderr
    assert "kubectl" not in (tmp_path / "calls").read_text()


def test_the_manifest_that_was_compared_is_the_one_that_is_applied(programs, export, tmp_path):
    assert kind_up(programs, MODEL=export).returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    (fetched,) = [call for call in calls if call.startswith("curl ")]
    (path,) = re.findall(r"--output (\S+)", fetched)
    applied = [call for call in calls if "kubectl" in call and " apply -f " in call and not call.endswith(" -")]
    assert applied == [f"kubectl --context kind-servestorm apply -f {path}"]
    assert "--proto-redir =https" in fetched and "/v0.8.0/" in fetched


def test_the_script_s_own_checksum_is_used_unless_another_is_given(programs, export):
    pinned = re.search(r"METRICS_SERVER_SHA256:-([0-9a-f]{64})}", SCRIPT.read_text())
    assert pinned
    done = kind_up(programs, MODEL=export, METRICS_SERVER_SHA256="")
    assert done.returncode == 3 and pinned[1] in done.stderr


def test_the_image_of_metrics_server_can_be_pinned_by_digest_and_by_nothing_less(programs, export, tmp_path):
    tag = kind_up(programs, MODEL=export, METRICS_SERVER_IMAGE="metrics-server:v0.8.0")
    assert tag.returncode == 2 and "has no digest" in tag.stderr
    image = f"registry.example/metrics-server@sha256:{'0' * 64}"
    assert kind_up(programs, MODEL=export, METRICS_SERVER_IMAGE=image).returncode == 0
    assert f"set image deployment/metrics-server metrics-server={image}" in (tmp_path / "calls").read_text()


def test_kind_s_cluster_has_the_name_that_the_script_uses():
    cluster = yaml.safe_load((ROOT / "deploy" / "k8s" / "kind.yaml").read_text())
    assert cluster["kind"] == "Cluster" and cluster["apiVersion"] == "kind.x-k8s.io/v1alpha4"
    text = SCRIPT.read_text()
    assert f"--context kind-{cluster['name']}" in text
    assert "image" not in str(cluster)  # kind's own version decides
    assert os.access(SCRIPT, os.X_OK)


def test_make_has_both_ways():
    text = (ROOT / "Makefile").read_text()
    assert "deploy/k8s/kind-up.sh" in text and "kind delete cluster --name servestorm" in text
    assert (CHART / "Chart.yaml").exists()
