"""Helm, by its program: it installs and removes releases of the chart, and we watch ourselves."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from serving.errors import DeploymentError, EngineUnavailable, ServingError

OLDEST = (3, 14)
"""As the chart's page says; releases have labels from 3.13 on."""
CHART = "servestorm"
_TIMEOUT_S = 120
_REMEDY = "install 3.14 or newer (helm.sh/docs/intro/install)"


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
            output = subprocess.run(
                [path, "version", "--short"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineUnavailable(f"{path} does not run ({error}): {_REMEDY}.") from error
        match = re.search(r"v(\d+)\.(\d+)", output)
        if match is None or (version := (int(match[1]), int(match[2]))) < OLDEST:
            raise EngineUnavailable(f"{path} is {output.strip() or 'of no version that it tells'}: {_REMEDY}.")
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

    def uninstall(self, release: str, namespace: str) -> None:
        """Remove a release, also a half-made one, without waiting for its pods; one that is gone is fine."""
        command = ["uninstall", release, "--namespace", namespace]
        try:
            self._run([*command, "--ignore-not-found"])
        except _Failure as error:
            error_text = translated(f"remove the release {release}", str(error))
            # its own words are often no more than that it failed
            raise DeploymentError(f"{error_text} `helm {' '.join(command)} --debug` tells more.") from error

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
        with _translated_failures(f"{command[0]} the release {command[1]}"):
            return self._run([*command, "--namespace", namespace, *given, *marked], stdin=yaml.safe_dump(dict(values)))

    def _run(self, arguments: list[str], stdin: str = "") -> str:
        """Its output. Raises _Failure with its error output."""
        assert self.version
        try:
            done = subprocess.run(
                [self._program, *arguments, *self._context],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _Failure(f"helm did not end within {_TIMEOUT_S} s") from error
        if done.returncode:
            raise _Failure(done.stderr)
        return done.stdout


class _Failure(Exception):
    """Helm ended with an error; its error output."""


@contextmanager
def _translated_failures(what: str) -> Iterator[None]:
    """Helm's failures as our errors."""
    try:
        yield
    except _Failure as error:
        raise translated(what, str(error)) from error


def translated(what: str, message: str) -> ServingError:
    """The error for Helm's output: a value that the chart refuses is usage, everything else the cluster's."""
    lines = [
        line.strip() for line in message.splitlines() if line.strip() and not line.startswith(("WARNING", "level="))
    ]
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
