"""A run directory has one owner (see `serving.folder_owner`), whose errors are here those of a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servestorm.errors import StudyEnvironmentError, StudyError
from serving.folder_owner import OWNER, FolderOwner, FolderTaken

__all__ = ["OWNER", "owned"]


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """The run directory is this block's alone.

    Raises StudyError where another process or thread owns it, naming its pid, and StudyEnvironmentError where the
    directory cannot be locked.
    """
    try:
        owner = FolderOwner(run)
    except FolderTaken as error:
        raise StudyError(str(error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StudyEnvironmentError(
            f"{run} cannot be locked ({reason}): check its permissions and free space, or choose another place with "
            "--out."
        ) from error
    try:
        yield
    finally:
        owner.release()
