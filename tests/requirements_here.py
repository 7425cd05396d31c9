"""What a test needs that a machine may lack: skipped with the reason, or failed where CI promised to have it.

SERVESTORM_REQUIRE, a comma-separated list such as `docker,helm`, names what must be here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest


def lacking(what: str, reason: str) -> NoReturn:
    """Skip the test for want of `what`; fail it where SERVESTORM_REQUIRE names that."""
    if what in os.environ.get("SERVESTORM_REQUIRE", "").split(","):
        pytest.fail(f"{what} was promised to be here: {reason}")
    pytest.skip(reason)


def need_docker() -> None:
    """Go on only where a Docker Engine answers."""
    if shutil.which("docker") is None:
        lacking("docker", "no docker program is on the PATH")
    told = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"], check=False, capture_output=True, text=True
    )
    if told.returncode or not told.stdout.strip():
        lacking("docker", f"no Docker Engine answers: {(told.stderr.strip() or 'docker info said nothing')[-200:]}")


def need_image(reference: str) -> None:
    """Go on only where the engine holds the image `reference`."""
    need_docker()
    found = subprocess.run(["docker", "image", "inspect", reference], check=False, capture_output=True, text=True)
    if found.returncode:
        lacking("docker", f"image {reference} is not here: make airgap-images")
