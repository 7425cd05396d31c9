"""The chart renders under Helm 3 and 4 with every values file, and Kubernetes knows all of what it renders."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest
import yaml

import servestorm
from tests.deploy.chart.rendering import CHART, VALUES, leaves, render
from tests.deploy.chart.tools import OLDEST, faults, helm, kubernetes_versions

pytestmark = pytest.mark.helm
OPERATORS = {"ServiceMonitor", "PodMonitor"}
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@pytest.mark.parametrize("program", ["helm4", "helm3"])
def test_helm_lint_finds_nothing_even_where_it_is_strict(program):
    for values in (None, *VALUES):
        command = [helm(program), "lint", "--strict", "--quiet", str(CHART)]
        done = subprocess.run(
            command + (["--values", str(values)] if values else []), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{values}: {done.stdout}{done.stderr}"
        assert "WARNING" not in done.stdout


def test_there_are_enough_versions_of_kubernetes_to_hold_the_chart_against():
    versions = kubernetes_versions()
    assert versions[0] == "{}.{}".format(*OLDEST)
    assert versions == [f"1.{minor}" for minor in range(OLDEST[1], OLDEST[1] + len(versions))]
    assert len(versions) >= 9


def test_kubernetes_takes_every_object_from_the_oldest_version_to_the_newest():
    oldest, *others = kubernetes_versions()
    unknown, seen = set(), 0
    for kube, versions in ((oldest, [oldest]), (others[-1], others)):
        distinct = {str(thing): thing for values in VALUES for thing in render(values=values, kube=kube).objects}
        for thing in distinct.values():
            if thing["kind"] in OPERATORS:
                unknown.add(thing["kind"])
                continue
            seen += 1
            assert [fault for version in versions for fault in faults(thing, version)] == []
    assert unknown == OPERATORS
    assert seen > 150


def test_a_field_that_kubernetes_does_not_know_is_a_fault():
    service = render().get("Service")
    broken = {**service, "spec": {**service["spec"], "sesionAffinity": "None"}}
    assert list(faults(service, "1.29")) == []
    assert any("sesionAffinity" in fault for fault in faults(broken, "1.29"))


@each_values
def test_helm_3_renders_what_helm_4_renders(values):
    assert render(values=values, program="helm3") == render(values=values)


def test_a_template_renders_one_kind_only_and_every_template_is_rendered_by_some_values_file():
    rendered = [render(values=values) for values in VALUES]
    kinds: dict[str, set[str]] = {}
    for each in rendered:
        sources = [source for source, _ in each.sources]
        assert len(sources) == len(set(sources)), "a template made two objects"
        for source, thing in each.sources:
            kinds.setdefault(source, set()).add(thing["kind"])
    assert all(len(found) == 1 for found in kinds.values()), kinds
    written = {str(path.relative_to(CHART)) for path in (CHART / "templates").rglob("*.yaml")}
    assert set(kinds) == written


@each_values
def test_objects_have_names_of_their_own_in_the_release_s_namespace(values):
    rendered = render(values=values)
    names = Counter((thing["kind"], thing["metadata"]["name"]) for thing in rendered.objects)
    assert max(names.values()) == 1
    for thing in rendered.objects:
        assert thing["metadata"]["namespace"] == "vision"
        assert thing["metadata"]["labels"]["app.kubernetes.io/instance"] == "r"


@each_values
def test_nothing_is_rendered_as_null_or_as_go_prints_what_is_missing(values):
    for thing in render(values=values).objects:
        for path, value in leaves(thing):
            assert value is not None, f"{thing['kind']}{path}"
            assert "<nil>" not in str(value) and "%!" not in str(value), f"{thing['kind']}{path}"


def test_the_longest_release_name_leaves_room_for_every_suffix():
    command = [helm(), "template", "x" * 53, str(CHART), "--values", str(CHART / "ci" / "load-job-workers-values.yaml")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [yaml.safe_load(part)["metadata"]["name"] for part in told.split("---\n") if part.strip()]
    assert max(len(name) for name in names) <= 63
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) for name in names)


def test_the_chart_s_versions_are_the_project_s():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == servestorm.__version__
    assert chart["kubeVersion"] == ">={}.{}.0-0".format(*OLDEST)
    assert "icon" not in chart  # nothing is fetched to show it
