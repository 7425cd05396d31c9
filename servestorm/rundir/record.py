"""The run directory: every stage writes into it, every later stage is a pure function of what lies there.

    runs/ID/
        plan.yaml           as the person wrote it
        study.json          id, state, start and end, the resolved plan, cores, engine versions
        environment.json    the machine, versions, git commit
        manifest.json       of the model (of further ones manifest-2.json and so on)
        cells/NNN-.../      one run each: cell.json, outcome.json, events.json, settings.json, use.json, and for load
                            samples.parquet, summary.json, machine.parquet, metrics.parquet, generator.log,
                            and slices.json where engines were loaded in turn; server.log always. A search for the
                            largest rate keeps capacity.json and a folder for each probe, a sweep keeps sweep.json and a
                            folder for each load, a cold start keeps settled.json
        results.json, report.html

Files are written beside their name and renamed, so a kill at any moment leaves whole files only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from models.training.record import StudyTraining
from servestorm.errors import StudyError
from servestorm.plan.cells import Cell, Scenario, by_capacity
from servestorm.plan.training import settings_of
from servestorm.rundir import files
from servestorm.rundir.files import JsonObject, manifest_name, read_json
from servestorm.rundir.machine_table import MachineSecond, read_machine
from servestorm.rundir.metrics_table import read_values
from servestorm.rundir.shapes.cell import (
    Answer,
    CellFile,
    EventFile,
    FinishedLoadFile,
    OutcomeFile,
    SummaryFile,
    UseFile,
)
from servestorm.rundir.shapes.environment import EnvironmentFile, ManifestFile
from servestorm.rundir.shapes.file_shape import Shape, checked
from servestorm.rundir.shapes.search import CapacityFile, PointFile
from servestorm.rundir.shapes.server_settings import SettingsFile
from servestorm.rundir.shapes.slices import SlicesFile
from servestorm.rundir.shapes.study import PlanFile, StudyFile, checked_study

_ENVIRONMENT: Final = TypeAdapter(EnvironmentFile)
_MANIFEST: Final = TypeAdapter(ManifestFile)
_CELL: Final = TypeAdapter(CellFile)
_OUTCOME: Final = TypeAdapter(OutcomeFile)
_EVENTS: Final = TypeAdapter(list[EventFile])
_USE: Final = TypeAdapter(UseFile)
_SETTINGS: Final = TypeAdapter(SettingsFile)
_SUMMARY: Final = TypeAdapter(SummaryFile)
_FINISHED_LOAD: Final = TypeAdapter(FinishedLoadFile)
_CAPACITY: Final = TypeAdapter(CapacityFile)
_SWEEP: Final = TypeAdapter(list[PointFile])
_SLICES: Final = TypeAdapter(SlicesFile)
_TRAINING: Final = TypeAdapter(StudyTraining)
_SETTLED: Final = TypeAdapter(list[Answer])

_LOAD: Final = (files.SUMMARY, files.SAMPLES)
_IN_TURNS: Final = (*_LOAD, files.SLICES)
_RESULT_FILES: Final[Mapping[Scenario, tuple[str, ...]]] = {
    "coldstart": (files.SETTLED,),
    "steady": _IN_TURNS,
    "bursty": _IN_TURNS,
    "capacity": (files.CAPACITY,),
    "scaling": _LOAD,
    "sweep": (files.SWEEP,),
    "autoscaling": _LOAD,
    "training": (files.TRAINING, files.USE),
}
"""The files in which a run of each scenario leaves its result; scaling by capacity leaves what capacity does."""
_MAY_LACK: Final = (files.SETTLED, files.SLICES)


@dataclass(frozen=True)
class LoadRecord:
    """What one load left behind: of a cell with one load, of a search's probe, of a sweep's load, or of an attempt."""

    path: Path
    use: UseFile | None
    summary: SummaryFile | None
    probe: int | None = None
    """Number of the search's probe, from 1; None of any other load."""
    number: int = 0
    """Of the probe or of the sweep's load, from 1; 0 of an attempt."""

    @property
    def repeats(self) -> int:
        """How often the load was offered again, because the generator had been late or the machine disturbed."""
        return _repeats(self.path)

    def machine(self) -> list[MachineSecond]:
        """What the machine did in each second of it; empty where that was not recorded."""
        return read_machine(path) if (path := _if_file(self.path / files.MACHINE)) else []


@dataclass(frozen=True)
class CellRecord:
    """What one cell left behind; what is missing is None."""

    path: Path
    cell: Cell
    """cell.json."""
    outcome: OutcomeFile | None
    """outcome.json; None where the study was killed in this cell."""
    events: list[EventFile]
    """events.json; empty where there is none."""
    use: UseFile | None
    """use.json."""
    summary: SummaryFile | None
    """summary.json of the load generator."""
    capacity: CapacityFile | None = None
    """capacity.json."""
    sweep: list[PointFile] | None = None
    """sweep.json."""
    settled: list[Answer] | None = None
    """settled.json: the answers after the first, one by one."""
    settings: SettingsFile | None = None
    """settings.json: what the servers really ran with."""
    slices: SlicesFile | None = None
    """slices.json; None where the load did not take turns with others."""
    training: StudyTraining | None = None
    """training.json."""

    @property
    def repeats(self) -> int:
        """How often a load of the cell was offered again, because the generator was late or the machine disturbed."""
        return _repeats(self.path)

    @cached_property
    def attempts(self) -> list[LoadRecord]:
        """The attempts at its loads that were set aside, because the generator was late or the machine disturbed."""
        return [_load_record(folder) for folder in sorted(self.path.rglob(f"{files.ATTEMPT}*"))]

    def machine(self) -> list[MachineSecond]:
        """What the machine did in each second of its one load, or start; empty where that was not recorded."""
        return read_machine(path) if (path := _if_file(self.path / files.MACHINE)) else []

    @cached_property
    def loads(self) -> list[LoadRecord]:
        """The probes of a search or the loads of a sweep, by their folders' names; empty for any other cell.

        Read when they are first asked for. Raises StudyError for a broken file.
        """
        return [
            _load_record(folder.path, probe=folder.number if folder.is_probe else None, number=folder.number)
            for folder in files.load_folders(self.path)
        ]

    def series(self) -> list[tuple[str, float]]:
        """(metric, value) of the servers' own metrics, in the order they were read; empty where there are none."""
        return read_values(path) if (path := self.metrics_path) else []

    @property
    def metrics_path(self) -> Path | None:
        """metrics.parquet, where there is one."""
        return _if_file(self.path / files.METRICS)

    @property
    def samples_path(self) -> Path | None:
        """samples.parquet of the load generator, where there is one."""
        return _if_file(self.path / files.SAMPLES)

    def server_log(self) -> str:
        """The last lines of the servers' logs; '' where there are none."""
        path = _if_file(self.path / files.SERVER_LOG)
        return path.read_text(errors="replace") if path else ""

    @property
    def complete(self) -> bool:
        """Whether the cell ran to its end."""
        return self.outcome is not None and self.outcome.state == "complete"


@dataclass(frozen=True)
class StoredJson:
    """Files as they lie on the disk, for what copies them or goes on with them: results.json and a resumed study."""

    study: JsonObject
    environment: JsonObject
    manifests: list[JsonObject | None]
    """Of each model of the plan."""


@dataclass(frozen=True)
class RunRecord:
    """A run directory, read whole except for samples, metrics and logs."""

    path: Path
    study: StudyFile
    environment: EnvironmentFile
    manifests: list[ManifestFile | None]
    """Of each model of the plan; a training serves none."""
    cells: list[CellRecord]
    stored: StoredJson

    @property
    def prices_path(self) -> Path | None:
        """The price file that the plan names, where it names one."""
        return _if_file(self.path / files.PRICES)


def read_run(path: Path) -> RunRecord:
    """Read a run directory; raises StudyError where it is not one, or is of another version."""
    if not path.is_dir():
        raise StudyError(f"{path} is not a directory: give a run such as runs/ID.")
    raw = read_json(path / files.STUDY)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != files.SCHEMA_VERSION:
        raise StudyError(
            f"{path / files.STUDY} is of version {version}, this servestorm reads {files.SCHEMA_VERSION}: "
            "use the servestorm that made the run."
        )
    study = checked_study(path / files.STUDY, raw)
    folders = sorted(
        {file.parent for name in (files.CELL, files.OUTCOME) for file in (path / files.CELLS).glob(f"*/{name}")}
    )
    environment = read_json(path / files.ENVIRONMENT)
    served = [] if study.plan.training else study.plan.model
    places = [path / manifest_name(number) for number in range(len(served))]
    manifests = [read_json(place) if place.is_file() else None for place in places]
    return RunRecord(
        path=path,
        study=study,
        environment=checked(path / files.ENVIRONMENT, environment, _ENVIRONMENT),
        manifests=[
            None if manifest is None else checked(place, manifest, _MANIFEST)
            for place, manifest in zip(places, manifests, strict=True)
        ],
        cells=[_read_cell(folder, study) for folder in folders],
        stored=StoredJson(raw, environment, manifests),
    )


def read_finished_load(folder: Path) -> FinishedLoadFile:
    """The summary of a load that has just ended; raises StudyError where the generator left none."""
    return _read(folder / files.SUMMARY, _FINISHED_LOAD)


def read_use(folder: Path) -> UseFile | None:
    """use.json of a cell or of a load; None where there is none. Raises StudyError for a broken file."""
    return _optional(folder / files.USE, _USE)


def read_slices(folder: Path) -> SlicesFile | None:
    """slices.json of a load; None where it took no turns with others. Raises StudyError for a broken file."""
    return _optional(folder / files.SLICES, _SLICES)


def _load_record(folder: Path, probe: int | None = None, number: int = 0) -> LoadRecord:
    summary = _optional(folder / files.SUMMARY, _SUMMARY)
    return LoadRecord(folder, use=read_use(folder), summary=summary, probe=probe, number=number)


def _read_cell(folder: Path, study: StudyFile) -> CellRecord:
    cell = _read(folder / files.CELL, _CELL).cell
    _require_of(study, cell, folder / files.CELL)
    wanted = _result_files(cell, study.plan)

    def result(name: str, shape: TypeAdapter[Shape]) -> Shape | None:
        """None too where this kind of run does not leave such a file: it says nothing of the run."""
        return _optional(folder / name, shape) if name in wanted else None

    record = CellRecord(
        path=folder,
        cell=cell,
        outcome=_optional(folder / files.OUTCOME, _OUTCOME),
        events=_optional(folder / files.EVENTS, _EVENTS) or [],
        use=read_use(folder),
        summary=result(files.SUMMARY, _SUMMARY),
        capacity=result(files.CAPACITY, _CAPACITY),
        sweep=result(files.SWEEP, _SWEEP),
        settled=result(files.SETTLED, _SETTLED),
        settings=_optional(folder / files.SETTINGS, _SETTINGS),
        slices=result(files.SLICES, _SLICES),
        training=result(files.TRAINING, _TRAINING),
    )
    if record.complete:
        _require_files(folder, wanted)
    return record


def _result_files(cell: Cell, plan: PlanFile) -> tuple[str, ...]:
    """The files in which a run of this kind leaves its result."""
    return _RESULT_FILES["capacity" if by_capacity(plan, cell) else cell.scenario]


def _require_files(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if name not in _MAY_LACK and not (folder / name).is_file():
            raise StudyError(
                f"{folder / name} is missing: the run was moved or edited without it; copy it whole, or run the "
                "study again."
            )


def _require_of(study: StudyFile, cell: Cell, path: Path) -> None:
    """The cell is one of this study's, and lies where it belongs."""
    if path.parent.name != cell.id:
        raise StudyError(
            f"{path} is of the run {cell.id}, and its folder is {path.parent.name}: it was copied or renamed; copy "
            "the run directory whole, or run the study again."
        )
    if cell.id not in study.cells:
        raise StudyError(
            f"{path} is of the run {cell.id}, which is not one of study.json's: it comes from another study; copy "
            "the run directory whole, or run the study again."
        )
    plan = study.plan
    if not plan.asked(cell.scenario) or cell.engine not in plan.engines or not _is_planned(study, cell):
        raise StudyError(
            f"{path} is of a run that study.json does not ask for ({cell.scenario} of {cell.engine}, variant "
            f"{cell.variant}): one of them was edited; run the study again."
        )


def _is_planned(study: StudyFile, cell: Cell) -> bool:
    """Whether its variant, or its training, is one of the study's."""
    if study.plan.training is None:
        return cell.training is None and cell.variant < len(study.variants)
    return cell.training is not None and cell.training < len(settings_of(study.plan.training))


def _repeats(folder: Path) -> int:
    return sum(1 for _ in folder.rglob(f"{files.ATTEMPT}*"))


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _optional(path: Path, shape: TypeAdapter[Shape]) -> Shape | None:
    return _read(path, shape) if path.is_file() else None


def _read(path: Path, shape: TypeAdapter[Shape]) -> Shape:
    return checked(path, read_json(path), shape)
