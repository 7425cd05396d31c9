"""make kind-up: what can be tried of it where no node image can be pulled."""

from __future__ import annotations

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


@pytest.fixture
def programs(tmp_path):
    """A PATH with what the script calls, each program writing down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "dirname", "basename", "sed", "grep", "cat"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name in ("docker", "kind", "kubectl", "helm"):
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\n[ -t 0 ] || cat >/dev/null\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def kind_up(programs, **variables):
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


@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl", "helm"])
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
