"""The run directory: every stage writes into it, every later stage is a pure function of what lies there.

    runs/ID/
        plan.yaml           as the person wrote it
        study.json          id, state, start and end, the resolved plan, cores, engine versions
        environment.json    the machine, versions, git commit
        manifest.json       of the model (of further ones manifest-2.json and so on)
        cells/NNN-.../      one run each: cell.json, outcome.json, events.json, use.json, and for load samples.parquet,
                            summary.json, metrics.parquet, generator.log; server.log always. A search for the
                            largest rate keeps capacity.json and a folder for each probe, a sweep keeps sweep.json and
                            a folder for each load, a cold start keeps settled.json
        results.json, report.html

Files are written beside their name and renamed, so a kill at any moment leaves whole files only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servestorm.errors import StudyError
from servestorm.rundir.files import ATTEMPT, CAPACITY, SCHEMA_VERSION, SETTLED, SWEEP, manifest_name, read_json
from servestorm.rundir.metrics_table import read_metrics
from servestorm.rundir.shapes import checked


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

    capacity: dict[str, Any] | None = None
    """capacity.json."""
    sweep: list[dict[str, Any]] | None = None
    """sweep.json."""
    settled: list[list[float]] | None = None
    """settled.json."""

    @property
    def repeats(self) -> int:
        """How often a load was offered again, because the generator had not kept its schedule."""
        return sum(1 for _ in self.path.rglob(f"{ATTEMPT}*"))

    def series(self) -> list[tuple[str, float]]:
        """(metric, value) of the servers' own metrics, in the order they were read; empty where there are none."""
        path = self.path / "metrics.parquet"
        if not path.is_file():
            return []
        table = read_metrics(path)
        return list(zip(table["metric"].to_pylist(), table["value"].to_pylist(), strict=True))

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
    manifests: list[dict[str, Any] | None]
    """Of each model of the plan."""
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
    checked(path / "study.json", study, "study")
    names = ("cell.json", "outcome.json")
    folders = sorted({file.parent for name in names for file in (path / "cells").glob(f"*/{name}")})
    return RunRecord(
        path=path,
        study=study,
        environment=_kept(path / "environment.json", "environment"),
        manifests=[_optional(path / manifest_name(place), "manifest") for place in range(len(study["plan"]["model"]))],
        cells=[_read_cell(folder, study) for folder in folders],
    )


def _read_cell(folder: Path, study: Mapping[str, Any]) -> CellRecord:
    cell = _kept(folder / "cell.json", "cell")
    _require_of(study, cell, folder / "cell.json")
    wanted = _told_by(cell, study["plan"])

    def told(name: str, shape: str) -> Any:
        """None too where this kind of run does not leave such a file: it tells nothing of it."""
        return _optional(folder / name, shape) if name in wanted else None

    found = CellRecord(
        path=folder,
        cell=cell,
        outcome=_optional(folder / "outcome.json", "outcome"),
        events=_optional(folder / "events.json", "events") or [],
        use=_optional(folder / "use.json", "use"),
        summary=told("summary.json", "summary"),
        capacity=told(CAPACITY, "capacity"),
        sweep=told(SWEEP, "sweep"),
        settled=told(SETTLED, "settled"),
    )
    if found.complete:
        _require_files(folder, wanted)
    return found


def _told_by(cell: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The files in which a run of this kind leaves what it found."""
    scenario = cell["scenario"]
    if scenario == "coldstart":
        return (SETTLED,)
    if scenario == "capacity" or (scenario == "scaling" and plan["scaling"]["measure"] == "capacity"):
        return (CAPACITY,)
    return (SWEEP,) if scenario == "sweep" else ("summary.json", "samples.parquet")


def _require_files(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if name != SETTLED and not (folder / name).is_file():
            raise StudyError(
                f"{folder / name} is missing: the run was moved or edited without it; copy it whole, or run the "
                "study again."
            )


def _require_of(study: Mapping[str, Any], cell: Mapping[str, Any], path: Path) -> None:
    """The cell is one of this study's, and lies where it belongs."""
    plan, scenario = study["plan"], cell["scenario"]
    if path.parent.name != cell["id"]:
        raise StudyError(
            f"{path} is of the run {cell['id']}, and its folder is {path.parent.name}: it was copied or renamed; copy "
            "the run directory whole, or run the study again."
        )
    if cell["id"] not in study["cells"]:
        raise StudyError(
            f"{path} is of the run {cell['id']}, which is not one of study.json's: it comes from another study; copy "
            "the run directory whole, or run the study again."
        )
    asked = plan["cold_starts"] if scenario == "coldstart" else plan.get(scenario)
    if not asked or cell["engine"] not in plan["engines"] or cell["variant"] >= len(study["variants"]):
        raise StudyError(
            f"{path} is of a run that study.json does not ask for ({scenario} of {cell['engine']}, variant "
            f"{cell['variant']}): one of them was edited; run the study again."
        )


def _optional(path: Path, shape: str) -> Any:
    return _kept(path, shape) if path.is_file() else None


def _kept(path: Path, shape: str) -> Any:
    return checked(path, read_json(path), shape)
