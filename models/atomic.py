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
NEARLY_NOTHING_BYTES = 1 << 20
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
            (stage / target.name).replace(target)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty directory inside `folder`, so that renames out of it are atomic; removed afterwards.

    What stands in the way of writing, full disks first of all, is raised as one sentence.
    """
    stage: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder))
        yield stage
    except Exception as error:
        _raise_plainly(error, folder)
        raise
    finally:
        if stage:
            shutil.rmtree(stage, ignore_errors=True)


def require_writable(folder: Path) -> None:
    """Raise what `staging` there would raise, before long work begins; leaves nothing behind."""
    try:
        try_place(folder)
    except OSError as error:
        _raise_plainly(error, folder)
        raise


def try_place(folder: Path) -> None:
    """Raise the OSError that making `folder`, and a file in it, would raise; neither is made.

    What is missing is tried inside a folder of its own beside the place, so that a process that makes the same place
    meanwhile is not disturbed.
    """
    folder = Path(os.path.normpath(Path.cwd() / folder))
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():  # a file, or a link that leads nowhere
        reason = errno.EEXIST if there == folder else errno.ENOTDIR
        raise OSError(reason, os.strerror(reason), str(there))
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=there) as trial:
        (trial / folder.relative_to(there)).mkdir(parents=True, exist_ok=True)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise OSError (ENOSPC) before a library starts to write that would fail without a word, or with too many."""
    if shutil.disk_usage(folder).free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _raise_plainly(error: Exception, folder: Path) -> None:
    """Raise one sentence for what the operating system refused; return for anything else."""
    if _is_full(error, folder):
        raise ModelEnvironmentError(
            f"There is no space left for {folder}: free some, then run the command again."
        ) from error
    if isinstance(error, PermissionError):
        raise ModelEnvironmentError(
            f"{error.filename or folder} cannot be written: change its permissions or choose another folder."
        ) from error
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        raise ModelError(f"{folder} cannot be made, a file is in the way: choose another output folder.") from error


def _is_full(error: Exception, folder: Path) -> bool:
    """Libraries that write files themselves wrap ENOSPC in errors of their own, so look at the disk too."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if "no space left" in str(error).lower() or "disk quota exceeded" in str(error).lower():
        return True
    has_own_message = isinstance(error, ModelError) and type(error) is not ModelError
    return not has_own_message and folder.is_dir() and shutil.disk_usage(folder).free < NEARLY_NOTHING_BYTES
