"""A common start for several generators: each says when it is prepared, and whoever started them says when to begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from loadtests.errors import LoadTestError

_LOOK_EVERY_S: Final = 0.02


def ready_file(start_file: Path) -> Path:
    """The file that a generator writes beside its start file when it is prepared."""
    return start_file.with_name(start_file.name + ".ready")


def agreed_start_ns(start_file: Path, sleep: Callable[[float], None]) -> int:
    """Say that this generator is prepared, and wait for its start: a moment of this machine's monotonic clock, ns.

    The file must be written whole at once (renamed). Raises LoadTestError where it holds no such moment, or cannot be
    written beside.
    """
    try:
        ready_file(start_file).touch()
        while not start_file.exists():
            sleep(_LOOK_EVERY_S)
        text = start_file.read_text()
    except OSError as error:
        raise LoadTestError(f"--start-file {start_file} cannot be used: {error.strerror or error}.") from error
    if not text.strip().isdigit() or int(text) <= 0:
        raise LoadTestError(f"--start-file {start_file} holds {text.strip()[:40]!r}, not nanoseconds of the clock.")
    return int(text)
