"""Files of a model lie below its folder: a link that leads elsewhere would have other files read, sent and packed.

The load generator imports this module, so it must stay free of tensorflow and torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from models.errors import ModelError


def confined(path: Path, root: Path) -> Path:
    """`path` with its links followed. Raises ModelError where that is not below `root`, or where nothing is there."""
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ModelError(f"{path} is a link to {path.readlink()}, which does not exist: repair it.") from error
        raise ModelError(f"{path} is missing: export or import the model again.") from error
    except (RuntimeError, OSError, ValueError) as error:  # pathlib raises RuntimeError for links in a circle
        reason = getattr(error, "strerror", None) or "links in a circle"
        raise ModelError(f"{path} cannot be followed ({reason.lower()}): repair it.") from error
    if not real.is_relative_to(root.resolve()):
        raise ModelError(f"{path} leads to {real}, outside {root}: put a copy in its place.")
    return real


def require_confined(folder: Path) -> None:
    """Raise ModelError where `folder` holds a link that leads out of it or nowhere, or a device, a pipe or a socket."""
    for parent, folders, files in os.walk(folder):
        for entry in (Path(parent) / name for name in sorted(folders + files)):
            real = confined(entry, folder) if entry.is_symlink() else entry
            if entry.is_symlink() and entry.is_relative_to(real):
                raise ModelError(f"{entry} leads to a folder that holds it: remove the link.")
            if not (real.is_file() or real.is_dir()):
                raise ModelError(f"{entry} is neither a file nor a folder: remove it.")
