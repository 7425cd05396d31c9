"""`servestorm clean`: removes what killed studies left on this machine, its Docker Engine, and a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import AddVerb, name

if TYPE_CHECKING:
    import psutil

    from serving.orphans import Orphans

_COMMAND_LETTERS = 80


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "clean",
        "remove what killed studies left: processes, folders, containers, networks, images, releases",
        "servestorm clean --dry-run",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print it")
    parser.add_argument("--context", type=name, help="kubeconfig context of the cluster (default: the current one)")
    parser.add_argument("--namespace", type=name, help="searched if no other may be (default: servestorm)")


def run(arguments: argparse.Namespace) -> int:
    """Remove leftovers and print one line for each; what a running study uses is never touched."""
    from serving.errors import DeploymentError, EngineUnavailable
    from serving.orphans import find_orphans, reap_orphans

    work_begins()
    orphans = find_orphans()
    lines, unseen = _lines(orphans), list[str]()
    removals: list[Callable[[], object]] = [lambda: reap_orphans(orphans)]
    for place, look in (("Docker", _docker), ("Kubernetes", lambda: _kubernetes(arguments))):
        try:
            leftovers, remove = look()
        except (EngineUnavailable, DeploymentError) as error:
            unseen.append(f"{place} was not looked at: {error}")
        else:
            lines += leftovers
            removals += [remove] if leftovers else []
    for remove in [] if arguments.dry_run else removals:
        remove()
    for line in lines:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {line}")
    if not lines:
        print("No killed study has left anything here.")
    for sentence in unseen:
        print(sentence)
    return 0


def _lines(orphans: Orphans) -> list[str]:
    return [
        *(f"process {process.pid}: {_command(process)}" for process in orphans.processes),
        *(f"folder {folder}" for folder in orphans.folders),
    ]


def _docker() -> tuple[list[str], Callable[[], object]]:
    """What is left on the Docker Engine, one line a thing, and what removes it."""
    from serving.backends.docker.backend import DockerBackend

    left = DockerBackend().leftovers()
    return [str(leftover) for leftover in left.items], left.remove


def _kubernetes(arguments: argparse.Namespace) -> tuple[list[str], Callable[[], object]]:
    """What is left in the cluster, and what removes it."""
    from serving.backends.kubernetes.backend import KubernetesBackend
    from serving.backends.kubernetes.settings import KubernetesSettings

    said = {"context": arguments.context, "namespace": arguments.namespace}
    backend = KubernetesBackend(KubernetesSettings(**{key: value for key, value in said.items() if value}))
    left = backend.leftovers()
    return [str(leftover) for leftover in left.items], left.remove


def _command(process: psutil.Process) -> str:
    import psutil

    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:_COMMAND_LETTERS]
    return "ended meanwhile"
