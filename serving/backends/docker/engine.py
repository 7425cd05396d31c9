"""The Docker Engine: reaching it, what it refuses in sentences, and the images that it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving import extras
from serving.containers import OURS
from serving.errors import DeploymentError, EngineUnavailable

OLDEST_API = (1, 41)
"""Of Docker 20.10, the first that reports a container's use without waiting for a second sample."""
_TIMEOUT_S = 120
_SOCKET = "unix:///var/run/docker.sock"


def connect() -> Any:
    """A client of the engine that DOCKER_HOST names, or of this machine's own (docker.DockerClient).

    Raises EngineUnavailable with the remedy where the library is missing, nothing answers, or it is too old.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise EngineUnavailable(extras.sentence("docker", "backend docker", ["docker"])) from error
    try:
        client = docker.from_env(version="auto", timeout=_TIMEOUT_S)
        version = client.version()
    except (DockerException, OSError) as error:
        raise EngineUnavailable(unreachable(error)) from error
    require_new_enough(version)
    return client


def require_new_enough(version: dict[str, Any]) -> None:
    """Raise EngineUnavailable where the engine's own account of its version is too old."""
    api = tuple(int(part) for part in str(version.get("ApiVersion", "0.0")).split(".")[:2])
    if api < OLDEST_API:
        name = version.get("Version", "of an unknown version")
        raise EngineUnavailable(
            f"Docker Engine {name} (API {version.get('ApiVersion')}) is too old: install 20.10 or newer."
        )


def unreachable(error: BaseException) -> str:
    """Why no engine could be asked, with the remedy."""
    place = os.environ.get("DOCKER_HOST") or _SOCKET
    roots = list(_roots(error))
    if any(isinstance(root, PermissionError) for root in roots):
        return (
            f"Docker's socket {place} may not be used by you: join its group (`sudo usermod -aG docker $USER`, then "
            "log in again), or run as root."
        )
    if any(isinstance(root, (FileNotFoundError, ConnectionRefusedError)) for root in roots):
        return (
            f"no Docker Engine answers at {place}: install and start one (on Debian: apt-get install docker.io), or "
            "point DOCKER_HOST at one that runs."
        )
    return f"the Docker Engine at {place} cannot be asked ({_short(roots[-1])}): check it with `docker info`."


def _roots(error: BaseException, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    """The error, and everything that it was made from: libraries wrap the socket's error several times."""
    if id(error) in seen:
        return
    yield error
    inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
    for other in inner:
        if isinstance(other, BaseException):
            yield from _roots(other, seen | {id(error)})


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def asking(what: str) -> Iterator[None]:
    """What the engine refuses, or that it is gone, as a DeploymentError; `what` is what was to be done."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        raise DeploymentError(refusal(what, str(error.explanation or error))) from error
    except (DockerException, RequestException) as error:
        raise DeploymentError(
            f"the Docker Engine stopped answering when it was to {what} ({_short(error)}): start it again, then "
            "remove what is left with `servestorm clean`."
        ) from error


_REMEDIES = (
    (
        ("port is already allocated", "address already in use"),
        "the port was taken meanwhile: stop who holds it, or choose another one",
    ),
    (("no space left on device",), "the disk is full: free some space, for instance with `docker system prune`"),
    (
        ("non-overlapping ipv4 address pool", "address pools have been fully subnetted"),
        "it has no address range left for a network: remove unused ones with `docker network prune`",
    ),
    (("requested cpus are not available",), "the CPU set names a core that the engine's machine does not have"),
    (("range of cpus is from",), "the machine has fewer CPUs than the limit: lower `limits.cpus`"),
    (("memory limit",), "choose another `limits.memory_mib`"),
)


def refusal(what: str, message: str) -> str:
    """One sentence for what the engine refused, with the remedy where it is known."""
    reason = " ".join(message.split()).rstrip(".")
    for marks, remedy in _REMEDIES:
        if any(mark in reason.lower() for mark in marks):
            return f"Docker cannot {what}, because {remedy} (it says: {reason})."
    return f"Docker cannot {what}: {reason}."


def require_image(client: Any, reference: str) -> Any:
    """The image, pulled first where it is absent and some registry may have it (docker.models.images.Image).

    Raises EngineUnavailable with the remedy where it cannot be had.
    """
    from docker.errors import DockerException, ImageNotFound
    from requests.exceptions import RequestException

    with asking(f"look for the image {reference}"):
        try:
            return client.images.get(reference)
        except ImageNotFound:
            pass
    if reference.startswith(OURS):
        raise EngineUnavailable(f"the image {reference} is not here: make it with `make airgap-images`.")
    try:
        client.images.pull(reference)
        return client.images.get(reference)
    except (DockerException, RequestException) as error:
        explanation = _short(Exception(getattr(error, "explanation", None) or error))
        raise EngineUnavailable(
            f"the image {reference} is not here and cannot be pulled ({explanation}): bring it with `docker save` and "
            "`docker load` from a machine that has it, or name another one under `docker.images`."
        ) from error


def brings_init(image: Any) -> bool:
    """Whether the image's entry point is an init itself, which passes signals on and reaps."""
    entry = (image.attrs.get("Config") or {}).get("Entrypoint") or [""]
    return entry[0].rpartition("/")[2] in ("tini", "dumb-init")


def describe(client: Any) -> dict[str, Any]:
    """The engine as environment.json holds it; what it does not report is None."""
    with asking("tell about itself"):
        info = client.info()
    names = ("ServerVersion", "Driver", "CgroupVersion", "CgroupDriver", "DefaultRuntime", "OperatingSystem")
    return {name: info.get(name) for name in names}
