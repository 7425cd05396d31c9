"""All or nothing on disk: a write that fails or is interrupted leaves what was there before."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.errors import ModelEnvironmentError, ModelError

TEMPORARY_PREFIX = ".servestorm-"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def replacing(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Paths to write instead of `targets` (files of one folder); they take the targets' places on success.

    Raises ModelEnvironmentError where the disk is full or the folder cannot be written.
    """
    folder = targets[0].parent
    with staging(folder) as stage:
        yield [stage / target.name for target in targets]
        for target in targets:
            os.replace(stage / target.name, target)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty directory inside `folder` (so that renames out of it are atomic), removed afterwards."""
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below `folder` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ModelEnvironmentError(
                f"There is no space left for {folder}: free some, then run the command again."
            ) from error
        if isinstance(error, PermissionError):
            raise ModelEnvironmentError(
                f"{error.filename or folder} cannot be written: change its permissions or choose another folder."
            ) from error
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise ModelError(
                f"{error.filename or folder} is in the way of a folder: choose another output folder."
            ) from error
        raise
