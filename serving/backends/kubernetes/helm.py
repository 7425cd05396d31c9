"""Helm, by its program: it installs, changes and removes releases of the chart, and we watch ourselves."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.errors import DeploymentError, EngineUnavailable, ServingError

OLDEST = (3, 14)
"""The first that labels releases in a way that upgrades keep; Chart.yaml's own needs are older."""
CHART = "servestorm"
_TIMEOUT_S = 120
_REMEDY = "install 3.14 or newer (helm.sh/docs/intro/install)"


@dataclass(frozen=True)
class Release:
    """One that Helm knows."""

    name: str
    namespace: str
    status: str
    """deployed, failed, pending-install, uninstalling, ..."""
    chart: str
    """Name and version, such as servestorm-0.1.0."""


class Helm:
    """Helm's program, speaking to one context of the kubeconfig."""

    def __init__(self, kube_context: str | None = None, program: str = "helm") -> None:
        self._context = ["--kube-context", kube_context] if kube_context else []
        self._program = program

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """Such as (4, 1); raises EngineUnavailable where there is no helm, or one that is too old."""
        path = shutil.which(self._program)
        if path is None:
            raise EngineUnavailable(f"the backend kubernetes needs helm, which is not on the PATH: {_REMEDY}.")
        try:
            told = subprocess.run(
                [path, "version", "--short"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineUnavailable(f"{path} does not run ({error}): {_REMEDY}.") from error
        found = re.search(r"v(\d+)\.(\d+)", told)
        if found is None or (version := (int(found[1]), int(found[2]))) < OLDEST:
            raise EngineUnavailable(f"{path} is {told.strip() or 'of no version that it tells'}: {_REMEDY}.")
        return version

    def install(
        self,
        release: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        files: Sequence[Path] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Make a release, without waiting for its pods. `values` go over those of `files`, in their order.

        Raises ServingError where the chart refuses a value, DeploymentError where the cluster refuses something.
        """
        self._change(["install", release, str(chart)], namespace, values, files, labels)

    def upgrade(
        self,
        release: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        files: Sequence[Path] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Change a release to exactly these values, without waiting for its pods; raises as `install` does."""
        # what we changed ourselves meanwhile (a Deployment's scale) is ours to change again
        forced = ["--force-conflicts"] if self.version >= (4, 0) else []
        self._change(["upgrade", release, str(chart), *forced], namespace, values, files, labels)

    def uninstall(self, release: str, namespace: str, *, wait: bool = False, timeout_s: float = 60) -> None:
        """Remove a release, also a half-made one; one that is gone is fine. `wait`: until its objects are gone."""
        waiting = ["--wait", "--timeout", f"{max(1, round(timeout_s))}s"] if wait else []
        with _told(f"remove the release {release}"):
            self._run(
                ["uninstall", release, "--namespace", namespace, "--ignore-not-found", *waiting],
                timeout_s=timeout_s + _TIMEOUT_S,
            )

    def releases(self, namespace: str | None = None, selector: str = "") -> list[Release]:
        """Releases in any state whose labels match; namespace None: in every namespace, which needs that right."""
        where = ["--all-namespaces"] if namespace is None else ["--namespace", namespace]
        selected = ["--selector", selector] if selector else []
        every = ["--all"] if self.version < (4, 0) else []  # Helm 4 lists all of them of itself
        with _told("list releases"):
            told = self._run(["list", *where, *selected, *every, "--max", "0", "--output", "json"])
        return [Release(one["name"], one["namespace"], one["status"], one["chart"]) for one in json.loads(told or "[]")]

    def template(
        self,
        release: str,
        namespace: str,
        chart: Path,
        values: Mapping[str, Any],
        *,
        files: Sequence[Path] = (),
        kube_version: str | None = None,
    ) -> list[dict[str, Any]]:
        """The objects of a release, without a cluster; raises ServingError where the chart refuses a value."""
        more = ["--kube-version", kube_version] if kube_version else []
        rendered = self._change(["template", release, str(chart), *more], namespace, values, files, None)
        return [thing for thing in yaml.safe_load_all(rendered) if thing]

    def _change(
        self,
        command: list[str],
        namespace: str,
        values: Mapping[str, Any],
        files: Sequence[Path],
        labels: Mapping[str, str] | None,
    ) -> str:
        for file in files:
            if not file.is_file():
                raise ServingError(f"the values file {file} is not there: correct kubernetes.values.")
        given = [part for file in files for part in ("--values", str(file))] + ["--values", "-"]
        marked = ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())] if labels else []
        with _told(f"{command[0]} the release {command[1]}"):
            return self._run([*command, "--namespace", namespace, *given, *marked], stdin=yaml.safe_dump(dict(values)))

    def _run(self, arguments: list[str], *, stdin: str = "", timeout_s: float = _TIMEOUT_S) -> str:
        """Its output. Raises _Failure with what it said."""
        assert self.version
        try:
            done = subprocess.run(
                [self._program, *arguments, *self._context],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _Failure(f"helm did not end within {timeout_s:.0f} s") from error
        if done.returncode:
            raise _Failure(done.stderr)
        return done.stdout


class _Failure(Exception):
    """Helm ended with an error; what it said of it."""


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Helm's failures as our errors."""
    try:
        yield
    except _Failure as error:
        raise translated(what, str(error)) from error


def translated(what: str, told: str) -> ServingError:
    """The error for what Helm said: a value that the chart refuses is usage, everything else the cluster's."""
    lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(("WARNING", "level="))]
    text = " ".join(lines).removeprefix("Error: ")
    if "meet the specifications of the schema" in text:
        faults = [_fault(line) for line in lines if line.startswith("- ")]
        return ServingError(
            f"the chart refuses the values: {'; '.join(faults)}: correct the files of kubernetes.values."
        )
    if match := re.search(r"execution error at \([^)]*\): (.*)", text):
        return ServingError(f"the chart refuses the values: {match[1].rstrip('.')}.")
    if "forbidden: user" in text.lower():
        return DeploymentError(f"helm may not {what} ({_brief(text)}): ask for the rights in deploy/k8s/role.yaml.")
    return DeploymentError(f"helm cannot {what}: {_brief(text)}.")


def _fault(line: str) -> str:
    """`- at '/replicas': got string, want integer` (Helm 4) or `- replicas: Invalid type` (3) as `replicas: ...`."""
    at = re.match(r"- at '/?([^']*)': (.*)", line)
    key, fault = (at[1].replace("/", "."), at[2]) if at else line[2:].split(": ", 1) if ": " in line else ("", line[2:])
    return f"{key.removeprefix('(root)') or 'values'}: {fault}"


def _brief(text: str) -> str:
    """Without the words that Helm puts in front of everything."""
    text = re.sub(r"^(INSTALLATION|UPGRADE|uninstallation) FAILED: ", "", text, flags=re.IGNORECASE)
    return text.strip().rstrip(".")[:600]


def chart_folder() -> Path:
    """The chart: of the checkout that we run from, or the copy that the wheel carries."""
    import serving

    package = Path(serving.__file__).parent
    for folder in (package.parent / "deploy" / "k8s" / CHART, package / "backends" / "kubernetes" / "chart"):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise EngineUnavailable("the Helm chart was not installed with servestorm: install its wheel again.")
