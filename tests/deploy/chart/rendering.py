"""The chart as Helm renders it, and ways to look into what was rendered."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.chart.tools import helm
from tests.source_tree import ROOT

CHART = ROOT / "deploy" / "k8s" / "servestorm"
VALUES = sorted([*(CHART / "ci").glob("*-values.yaml"), *(ROOT / "deploy" / "k8s" / "values").glob("*.yaml")])
RECENT = "1.35"
"""A Kubernetes that most tests render for."""
WORKLOADS = ("Deployment", "Job", "Pod")

Object = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """Objects, each with the template that it came from."""

    sources: tuple[tuple[str, Object], ...]

    @property
    def objects(self) -> list[Object]:
        """Every object."""
        return [thing for _, thing in self.sources]

    def all(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [thing for thing in self.objects if thing["kind"] == kind]

    def get(self, kind: str, suffix: str = "") -> Object:
        """The one object of a kind whose name is the release's with this suffix."""
        (found,) = [thing for thing in self.all(kind) if thing["metadata"]["name"] == f"r-servestorm{suffix}"]
        return found

    def has(self, kind: str, suffix: str = "") -> bool:
        """True where get would find one."""
        return any(thing["metadata"]["name"] == f"r-servestorm{suffix}" for thing in self.all(kind))

    def server(self) -> Object:
        """The servers' pod."""
        return pod_of(self.get("Deployment"))

    def settings(self) -> dict[str, str]:
        """The engine's files."""
        return self.get("ConfigMap")["data"]


def render(*arguments: str, values: Path | None = None, kube: str = RECENT, program: str = "helm4") -> Rendered:
    """Render with `--set` arguments such as `engine=torchserve`. AssertionError with Helm's words where it fails."""
    done = template(*arguments, values=values, kube=kube, program=program)
    assert done.returncode == 0, done.stderr
    return _parsed(done.stdout)


def refusal(*arguments: str) -> str:
    """What Helm says of values that it must refuse."""
    done = template(*arguments)
    assert done.returncode != 0, f"Helm took {arguments}"
    return done.stderr


@functools.cache
def template(
    *arguments: str, values: Path | None = None, kube: str = RECENT, program: str = "helm4"
) -> subprocess.CompletedProcess[str]:
    """Run `helm template`, once for equal arguments."""
    command = [helm(program), "template", "r", str(CHART), "--namespace", "vision", "--kube-version", kube]
    command += ["--values", str(values)] if values else []
    for argument in arguments:
        command += ["--set", argument]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def _parsed(text: str) -> Rendered:
    found = []
    for document in re.split(r"^---$", text, flags=re.MULTILINE):
        if not document.strip():
            continue
        source = re.search(r"^# Source: servestorm/(\S+)$", document, re.MULTILINE)
        assert source, document[:200]
        thing = yaml.load(document, yaml.CSafeLoader)
        assert thing, f"{source[1]} renders nothing"
        found.append((source[1], thing))
    return Rendered(tuple(found))


def pod_of(thing: Object) -> Object:
    """The pod's spec of a Deployment, a Job or a Pod."""
    spec: Object = thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
    return spec


def labels_of(thing: Object) -> dict[str, str]:
    """The labels of the pods of a Deployment, a Job or a Pod."""
    where = thing if thing["kind"] == "Pod" else thing["spec"]["template"]
    labels: dict[str, str] = where["metadata"]["labels"]
    return labels


def workloads(rendered: Rendered) -> list[Object]:
    """Everything that makes pods."""
    return [thing for thing in rendered.objects if thing["kind"] in WORKLOADS]


def containers(pod: Object) -> list[Object]:
    """Every container of a pod, those that prepare included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def container(pod: Object, name: str) -> Object:
    """A container by its name."""
    (found,) = [each for each in containers(pod) if each["name"] == name]
    return found


def environment(each: Object) -> dict[str, str | None]:
    """Environment variables of a container; None for those that come from elsewhere."""
    return {variable["name"]: variable.get("value") for variable in each["env"]}


def flags(arguments: list[str]) -> dict[str, str]:
    """--name=value as name to value; a flag without one has an empty value."""
    pairs = (argument.removeprefix("--").partition("=") for argument in arguments)
    return {name: value for name, _, value in pairs}


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with its path."""
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        yield path, node
        return
    for key, value in items:
        yield from leaves(value, f"{path}.{key}")


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector takes pods with these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )
