"""What a test needs that a machine may lack: skipped with the reason, or failed where CI promised to have it.

SERVESTORM_REQUIRE, a comma-separated list such as `docker,helm`, names what must be here.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import Any, NoReturn

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


def need_kubernetes(*images: str) -> Any:
    """Go on only where the cluster that KUBECONFIG names answers, and a node of it holds each image; its API client."""
    found = _cluster()
    if isinstance(found, str):
        lacking("kubernetes", found)
    client, held = found
    for image in images:
        if not any(name == image or name.endswith(f"/{image}") for name in held):
            lacking("kubernetes", f"no node of the cluster holds image {image}: load it there")
    return client


@functools.cache
def _cluster() -> str | tuple[Any, frozenset[str]]:
    """A client, and the names of the images that nodes hold; or why there is no cluster."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    settings = client.Configuration()
    settings.retries = False
    try:
        config.load_kube_config(client_configuration=settings)
        api = client.ApiClient(settings)
        nodes = client.CoreV1Api(api).list_node(_request_timeout=10).items
    except (config.ConfigException, client.ApiException, HTTPError, OSError) as error:
        return f"the cluster of KUBECONFIG does not answer: {' '.join(str(error).split())[:200]}"
    return api, frozenset(name for node in nodes for image in node.status.images or [] for name in image.names or [])
