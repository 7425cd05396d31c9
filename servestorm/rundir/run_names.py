"""Which run a person means: a path, the ID of a run, or `latest`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from servestorm.errors import StudyError
from servestorm.rundir.files import STUDY

LATEST: Final = "latest"
NAMED: Final = 3
"""Runs that a refusal names."""
_STAMPED = re.compile(r"\d{8}-\d{6}-.+")


def find_run(name: str, out: Path) -> Path:
    """The path of a run directory, or of a results.json, by its path, its ID under `out`, or `latest`.

    Raises StudyError, which names the newest runs, where there is none.
    """
    if name == LATEST and not Path(name).exists():
        if stamped := _newest_first(out):
            return out / stamped[0]
        raise StudyError(f"there is no run in {out}: start one with `servestorm run`.")
    for path in (out / name, Path(name)):
        if (path / STUDY).is_file():
            return path
    if Path(name).exists():
        return Path(name)  # whoever reads it says what it lacks
    raise StudyError(_refusal(Path(name), out))


def _refusal(path: Path, out: Path) -> str:
    """'there is no run NAME in runs; the newest there: A, B, C.': of `out`, or of the folder that a path names."""
    is_bare = path.name == str(path)
    folder = out if is_bare else path.parent
    missing = f"there is no run {path.name} in {folder}" if is_bare else f"{path} is not a directory or a results.json"
    if runs := _newest_first(folder):
        return f"{missing}; the newest {'there' if is_bare else f'in {folder}'}: {', '.join(runs[:NAMED])}."
    return f"{missing}: give a run such as {out}/ID, its ID, or `{LATEST}`."


def _newest_first(folder: Path) -> list[str]:
    """IDs of the runs in a folder. A directory that a person has named otherwise has no date to go by: it is last."""
    names = [path.parent.name for path in folder.glob(f"*/{STUDY}")]
    return sorted(names, key=lambda name: (_STAMPED.fullmatch(name) is not None, name), reverse=True)
