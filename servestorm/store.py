"""The run directory: every stage writes into it, every later stage is a pure function of what lies there.

    runs/ID/
        plan.yaml           as the person wrote it
        study.json          id, state, start and end, the resolved plan, cores, engine versions
        environment.json    the machine, versions, git commit
        manifest.json       of the model
        cells/NNN-.../      one run each: cell.json, outcome.json, events.json, use.json, and for load samples.parquet,
                            summary.json, metrics.parquet, generator.log; server.log always
        results.json, report.html

Files are written beside their name and renamed, so a kill at any moment leaves whole files only.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from servestorm.errors import StudyEnvironmentError, StudyError

SCHEMA_VERSION = 1
ATTEMPT = "attempt-"
"""Folders in a cell's folder that hold what INVALID tries of its load left."""
State = Literal["running", "complete", "interrupted", "failed"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing; raises StudyEnvironmentError naming the path where the disk refuses."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StudyEnvironmentError(
            f"{path} cannot be written ({(error.strerror or str(error)).lower()}): "
            "free some space or choose another place with --out."
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: object) -> None:
    """Write a whole JSON file or nothing; NaN is refused, for missing is null."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises StudyError naming the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: this is not a whole run directory; run the study again.") from error
    except (NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudyError(f"{path} is not JSON ({error}): it was edited or cut short; run the study again.") from error


def now() -> str:
    """Wall clock in UTC, ISO 8601: a stamp, never used for durations."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def create_run(root: Path, name: str) -> Path:
    """A new directory under `root`, named by date, time and study; raises StudyEnvironmentError where none can be."""
    stem = f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = root / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir()
                (path / "cells").mkdir()
                return path.resolve()
            except FileExistsError:
                if not path.is_dir():
                    raise
    except OSError as error:
        raise StudyEnvironmentError(
            f"{root} cannot hold a run ({(error.strerror or str(error)).lower()}): choose another place with --out."
        ) from error
    raise StudyEnvironmentError(f"{root} is full of runs named {stem}: choose another place with --out.")


@dataclass(frozen=True)
class CellRecord:
    """What one cell left behind; what is missing is None."""

    path: Path
    cell: dict[str, Any]
    """cell.json: id, scenario, engine, replicas, repetition, seed."""
    outcome: dict[str, Any] | None
    """outcome.json: state (complete, failed, interrupted) and reason; None where the study was killed in this cell."""
    events: list[dict[str, Any]]
    """events.json: name, t_ns, replica, detail."""
    use: dict[str, Any] | None
    """use.json: what the servers had used when ready and at the end."""
    summary: dict[str, Any] | None
    """summary.json of the load generator."""

    @property
    def repeats(self) -> int:
        """How often the load was offered again, because the generator had not kept its schedule."""
        return sum(1 for _ in self.path.glob(f"{ATTEMPT}*"))

    @property
    def samples_path(self) -> Path | None:
        """samples.parquet of the load generator, where there is one."""
        path = self.path / "samples.parquet"
        return path if path.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether the cell ran to its end."""
        return bool(self.outcome and self.outcome.get("state") == "complete")


@dataclass(frozen=True)
class RunRecord:
    """A run directory, read whole except for the samples."""

    path: Path
    study: dict[str, Any]
    environment: dict[str, Any]
    manifest: dict[str, Any] | None
    cells: list[CellRecord]


def read_run(path: Path) -> RunRecord:
    """Read a run directory; raises StudyError where it is not one, or is of another version."""
    if not path.is_dir():
        raise StudyError(f"{path} is not a directory: give a run such as runs/ID.")
    study = read_json(path / "study.json")
    version = study.get("schema_version") if isinstance(study, dict) else None
    if version != SCHEMA_VERSION:
        raise StudyError(
            f"{path / 'study.json'} is of version {version}, this servestorm reads {SCHEMA_VERSION}: "
            "use the servestorm that made the run."
        )
    folders = sorted(folder for folder in (path / "cells").glob("*") if (folder / "cell.json").is_file())
    return RunRecord(
        path=path,
        study=study,
        environment=read_json(path / "environment.json"),
        manifest=_optional(path / "manifest.json"),
        cells=[_read_cell(folder) for folder in folders],
    )


def _read_cell(folder: Path) -> CellRecord:
    return CellRecord(
        path=folder,
        cell=read_json(folder / "cell.json"),
        outcome=_optional(folder / "outcome.json"),
        events=_optional(folder / "events.json") or [],
        use=_optional(folder / "use.json"),
        summary=_optional(folder / "summary.json"),
    )


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
