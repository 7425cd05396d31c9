"""environment.json and the models' manifests: what was measured, and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from servestorm.rundir.shapes.file_shape import FileShape, Many, Share, Whole


class DockerEngineFile(FileShape):
    """The Docker Engine; the names are its own."""

    version: str | None = Field(default=None, alias="ServerVersion")
    cgroup_version: str | None = Field(default=None, alias="CgroupVersion")
    storage_driver: str | None = Field(default=None, alias="Driver")


class NodeFile(FileShape):
    """One node of a cluster; None is what it does not report."""

    cpus: Share | None = None
    memory_bytes: Whole | None = None
    os_image: str | None = None
    instance_type: str | None = None
    this_machine: bool | None = None
    """Whether the study itself ran on it."""


class ClusterFile(FileShape):
    """The Kubernetes cluster."""

    version: str | None = None
    nodes: list[NodeFile] | None = None
    """None where they may not be listed."""


class EnvironmentFile(FileShape):
    """environment.json: the machine, versions and the git commit; None is what is unknown."""

    cpu_model: str | None = None
    cores: Whole | None = None
    cores_usable: Whole | None = None
    memory_bytes: Whole | None = None
    system: str | None = None
    kernel: str | None = None
    python: str | None = None
    java: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    docker_engine: DockerEngineFile | None = None
    kubernetes: ClusterFile | None = None


class ParityFile(FileShape):
    """The proof that both artifacts of a model compute the same function."""

    status: Literal["proved", "NOT PROVED EQUAL"]
    tolerance: Share
    """Largest difference of softmax outputs that counts as equal."""
    images: Whole
    """How many were compared."""
    max_abs_difference: Share | None = None
    """Of softmax outputs."""
    reason: str | None = None
    """Why it is not proved."""


class ArtifactFile(FileShape):
    """A file or folder that an engine serves."""

    sha256: str


class InputFile(FileShape):
    """What a network takes."""

    height: Whole
    width: Whole


class AccuracyFile(FileShape):
    """How well the exported network recognises held-out images."""

    images: Many
    top1: Annotated[float, Field(ge=0, le=1)]


class ManifestFile(FileShape):
    """A model's manifest.json."""

    name: str
    version: Whole = 1
    architecture: str | None = None
    dataset: str | None = None
    input: InputFile | None = None
    parity: ParityFile | None = None
    accuracy: AccuracyFile | None = None
    savedmodel: ArtifactFile | None = None
    mar: ArtifactFile | None = None
