"""`servestorm clean`: ends and removes what killed studies left, on this machine and on its Docker Engine."""

from __future__ import annotations

import argparse
from contextlib import suppress

import psutil

from serving.backends.docker import DockerBackend
from serving.backends.docker_leftovers import Leftover
from serving.errors import EngineUnavailable
from serving.orphans import Orphans, find_orphans, reap_orphans

_COMMAND_LETTERS = 80


def run(arguments: argparse.Namespace) -> int:
    """Print what is removed, one line a thing; what a living study uses is never touched."""
    orphans, backend = find_orphans(), DockerBackend()
    lines, left = _told(orphans), list[Leftover]()
    try:
        left = backend.leftovers()
        lines += [f"{leftover.kind} {leftover.name}" for leftover in left]
        docker = ""
    except EngineUnavailable as error:
        docker = f"Docker was not looked at: {error}"
    if not arguments.dry_run:
        reap_orphans(orphans)
        if left:
            backend.remove(left)
    for line in lines:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {line}")
    if not lines:
        print("No killed study has left anything here.")
    if docker:
        print(docker)
    return 0


def _told(orphans: Orphans) -> list[str]:
    return [
        *(f"process {process.pid}: {_command(process)}" for process in orphans.processes),
        *(f"folder {folder}" for folder in orphans.folders),
    ]


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:_COMMAND_LETTERS]
    return "ended meanwhile"
