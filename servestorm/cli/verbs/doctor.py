"""`servestorm doctor`: lists what is installed, what is missing, and how to install it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from servestorm.cli.option_types import AddVerb
from servestorm.errors import StudyEnvironmentError

GIB = 1024**3
MEMORY_NEEDED_BYTES = 3 * GIB
"""Training plus export hold TensorFlow and torch at once; two TorchServe replicas come near it."""
DISK_NEEDED_BYTES = 2 * GIB


class Finding(NamedTuple):
    """A program, a library or an amount that was looked for."""

    name: str
    present: bool
    text: str
    """Its version, or what to do."""
    required: bool = False
    """Whether the default study needs it."""


class Program(NamedTuple):
    """A program on the PATH that some study may use."""

    name: str
    command: tuple[str, ...]
    pattern: str
    remedy: str


PROGRAMS = (
    Program(
        "kubectl",
        ("kubectl", "version", "--client"),
        r"v(\d[\w.+-]*)",
        "to look at a cluster by hand; see kubernetes.io/docs/tasks/tools",
    ),
    Program(
        "helm",
        ("helm", "version", "--short"),
        r"v(\d[\w.+-]*)",
        "for studies on a cluster; see helm.sh/docs",
    ),
    Program(
        "Prometheus",
        ("prometheus", "--version"),
        r"version ([\w.+~-]+)",
        "a built-in scraper stands in; on Debian: apt-get install prometheus",
    ),
    Program(
        "tensorflow_model_server",
        ("tensorflow_model_server", "--version"),
        r"(\d+\.\d+\.[\w.-]+)",
        "only for the engine tfserving; TensorFlow's apt repository or its container has it",
    ),
)
DEFAULT_EXTRAS = ("savedmodel", "torchserve", "train")
"""Extras that the default study needs."""


def add_options(add: AddVerb) -> None:
    """The verb, which has no options, for the command line."""
    add(
        "doctor",
        "list what is installed and what is missing: Java, Docker, kubectl, helm, Prometheus",
        "servestorm doctor",
    )


def run(_arguments: argparse.Namespace) -> int:
    """Print one line per finding; exit code 3 if the default study lacks something."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok     " if finding.present else "MISSING" if finding.required else "absent "
        print(f"{mark}  {finding.name:<{width}}  {finding.text}")
    lacking = [finding.name for finding in findings if finding.required and not finding.present]
    if lacking:
        raise StudyEnvironmentError(f"the default study lacks {', '.join(lacking)}: see above what to install.")
    print("Everything that the default study needs is here: `servestorm run` starts it.")
    return 0


def examine() -> list[Finding]:
    """All findings; what the default study needs comes first."""
    programs = [_program(program) for program in PROGRAMS]
    return [_java(), _packages(), *_machine(), *_docker(), _kubernetes(), *programs]


def _java() -> Finding:
    from serving.engines.java import find_java
    from serving.errors import EngineUnavailable

    try:
        java = find_java()
    except EngineUnavailable as error:
        return Finding("Java", False, str(error), required=True)
    return Finding("Java", True, f"{java.version} ({java.path})", required=True)


def _docker() -> Iterator[Finding]:
    """The Docker Engine by its own account, not the client's, and which of our images it holds."""
    from serving.backends.docker.engine import connect, describe
    from serving.errors import DeploymentError, EngineUnavailable

    try:
        client = connect()
        engine, images = describe(client), {tag for image in client.images.list() for tag in image.tags}
    except (EngineUnavailable, DeploymentError) as error:
        yield Finding("Docker Engine", False, f"for studies on containers: {error}")
        return
    yield Finding("Docker Engine", True, f"{engine['ServerVersion']} (cgroups v{engine['CgroupVersion'] or '1'})")
    lacking = [reference for reference in _images() if reference not in images]
    text = f"lacks {', '.join(lacking)}: make airgap-images" if lacking else "all of servestorm's are here"
    yield Finding("Docker images", not lacking, text)


def _kubernetes() -> Finding:
    """The cluster of the kubeconfig's current context, by its own account."""
    from serving.backends.kubernetes.cluster import Cluster
    from serving.errors import EngineUnavailable

    try:
        cluster = Cluster.connect()
    except EngineUnavailable as error:
        return Finding("Kubernetes", False, f"for studies on a cluster: {error}")
    return Finding("Kubernetes", True, f"{cluster.version} (context {cluster.context})")


def _images() -> list[str]:
    """The images of our own that a study on containers may ask for."""
    from serving.containers import image

    return [image(role) for role in ("savedmodel", "torchserve", "haproxy")]


def _packages() -> Finding:
    from serving.extras import missing

    lacking = ",".join(extra for extra in DEFAULT_EXTRAS if missing(extra))
    text = f"not all are installed: pip install 'servestorm[{lacking}]'" if lacking else "all importable"
    return Finding("Python packages", not lacking, text, required=True)


def _machine() -> Iterator[Finding]:
    import shutil

    import psutil

    cores = len(os.sched_getaffinity(0))
    text = f"{cores} usable" if cores > 1 else "1 usable: engine and generator share it, so latencies are pessimistic"
    yield Finding("Cores", cores > 0, text, required=True)
    memory = psutil.virtual_memory().available
    yield _amount("Free memory", memory, MEMORY_NEEDED_BYTES, "close other programs")
    disk = shutil.disk_usage(Path.cwd()).free
    yield _amount(f"Free disk in {Path.cwd()}", disk, DISK_NEEDED_BYTES, "free some space")


def _amount(name: str, here_bytes: int, needed_bytes: int, remedy: str) -> Finding:
    enough = here_bytes >= needed_bytes
    text = f"{here_bytes / GIB:.1f} GiB" + ("" if enough else f", {needed_bytes / GIB:.0f} GiB are needed: {remedy}")
    return Finding(name, enough, text, required=True)


def _program(program: Program) -> Finding:
    import shutil

    from servestorm.study.environment import output_of

    if shutil.which(program.command[0]) is None:
        return Finding(program.name, False, program.remedy)
    output = output_of(*program.command)
    if output is None:
        return Finding(program.name, False, f"`{' '.join(program.command)}` fails: {program.remedy}")
    match = re.search(program.pattern, output)
    return Finding(program.name, True, match.group(1) if match else output.splitlines()[0] if output else "here")
