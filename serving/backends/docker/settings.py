"""The docker backend's settings, and those that every container of ours is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.containers import CONFIG, MODELS, USER
from serving.deployment import Budget, ContainerLaunch
from serving.ports import HOST

BALANCER = "haproxy"
PIDS_LIMIT = 2048
"""Far above what any of the servers needs: a net against a fork bomb."""
_LOG_BYTES = "16m"


@dataclass(frozen=True)
class DockerSettings:
    """How containers are made and reached."""

    images: Mapping[str, str] = field(default_factory=dict)
    """Image references that stand in for the default ones, by engine's name, or haproxy's."""
    reach: Literal["direct", "published"] = "direct"
    """direct: at the containers' own addresses; published: at ports of 127.0.0.1, through Docker's proxy."""
    balancer: Literal["none", "haproxy"] = "none"
    """What stands in front of several replicas."""
    balancer_cpus: tuple[int, ...] = ()
    """Cores of the balancer: those of the load generator, for it is no part of the budget. None: any."""
    bake: bool = False
    """Whether each deployment builds an image that holds the model, instead of mounting it."""


def confined(cpus: tuple[int, ...], *, init: bool) -> dict[str, Any]:
    """What holds for every container of ours: no rights, nothing to write but /tmp, its cores, a bounded log."""
    return {
        "user": USER,
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,noexec,mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": init,
        "pids_limit": PIDS_LIMIT,
        "cpuset_cpus": ",".join(map(str, cpus)) or None,
        # a check of the image's own would take CPU from the budget at moments of its own
        "healthcheck": {"test": ["NONE"]},
        "log_config": {"Type": "json-file", "Config": {"max-size": _LOG_BYTES, "max-file": "2"}},
    }


def server_settings(
    launch: ContainerLaunch,
    budget: Budget,
    *,
    model: tuple[str, Path] | None,
    published: Mapping[int, int],
    init: bool,
) -> dict[str, Any]:
    """Arguments of docker's `containers.create` for one replica: the same limits whatever the engine.

    `model` is the name and folder to mount, None where the image holds it; `published` maps ports of the container to
    ports of 127.0.0.1.
    """
    mounts = [_mount(launch.config, CONFIG)]
    if model is not None:
        mounts.append(_mount(model[1], f"{MODELS}/{model[0]}"))
    settings = confined(budget.cpus, init=init) | {
        "command": list(launch.command),
        "environment": dict(launch.env),
        "mounts": mounts,
        "ports": publications(published),
    }
    if budget.cpu_quota is not None:
        settings["nano_cpus"] = round(budget.cpu_quota * 1e9)
    if budget.memory_bytes is not None:
        # no swap beside it: a server that swaps is slower, and no number here would show why
        settings |= {"mem_limit": budget.memory_bytes, "memswap_limit": budget.memory_bytes}
    return settings


def publications(published: Mapping[int, int]) -> dict[str, tuple[str, int]]:
    """As docker takes ports to publish: on the loopback interface alone."""
    return {f"{inside}/tcp": (HOST, outside) for inside, outside in published.items()}


def _mount(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
