"""A results.json that may come from anywhere: read strictly, so that no number is made up from a broken one."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from servestorm.errors import StudyError
from servestorm.rundir.files import RESULTS, SCHEMA_VERSION, STUDY, JsonObject, read_json
from servestorm.rundir.shapes.environment import EnvironmentFile, ManifestFile
from servestorm.rundir.shapes.file_shape import FileShape, Whole, first_fault
from servestorm.rundir.shapes.study import CoresFile, DeploymentSections

ALIKE = 1e-6
"""A mean may differ from that of its runs by this share: both were rounded."""
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
"""Neither infinite nor not-a-number: both are outside."""


class RecordedValue(FileShape):
    """One engine's figure."""

    runs: list[Number | None]
    mean: Number | None = None
    valid: bool = True

    @model_validator(mode="after")
    def _mean_is_of_its_runs(self) -> RecordedValue:
        known = [run for run in self.runs if run is not None]
        if self.mean is not None and (not known or abs(fmean(known) - self.mean) > ALIKE * max(map(abs, known))):
            given = f"{fmean(known):g}" if known else "none"
            raise ValueError(f"the mean is {self.mean:g}, and that of its runs {given}")
        return self


class RecordedMetric(FileShape):
    """One row."""

    key: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    values: dict[str, RecordedValue]


class ComparedPlan(DeploymentSections):
    """The keys of a plan that a comparison reads by name."""

    margin_percent: Annotated[float, Field(gt=0, le=50)] | None = None


class RecordedStudy(FileShape):
    """What was asked."""

    plan: JsonObject
    """All of it, to be compared key by key with another's, whatever keys they have."""
    settings: ComparedPlan = Field(validation_alias="plan")
    cores: CoresFile | None = None
    engines: dict[str, str] = Field(default_factory=dict)


class RecordedSetting(FileShape):
    """One setting of an engine's servers."""

    engine: str
    name: str
    values: list[Whole]


def _without_nulls(manifest: object) -> object:
    """Of a manifest without a key, results.json holds null; of a lost manifest, an empty object."""
    if not isinstance(manifest, dict):
        return manifest
    return {key: value for key, value in manifest.items() if value is not None} or None


class Recorded(FileShape):
    """What a comparison wants of results.json."""

    id: str
    state: str
    reason: str | None = None
    study: RecordedStudy
    environment: EnvironmentFile
    models: list[Annotated[ManifestFile | None, BeforeValidator(_without_nulls)]]
    engines: list[str]
    server_settings: list[RecordedSetting] = Field(default_factory=list)
    """Empty where nothing was read back."""
    metrics: list[RecordedMetric]

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Recorded:
        keys = [metric.key for metric in self.metrics]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"the metric {twice[0]} is there twice")
        return self

    def metric(self, key: str) -> RecordedMetric | None:
        """A row by its key."""
        return next((metric for metric in self.metrics if metric.key == key), None)


def read_recorded(path: Path) -> Recorded:
    """The results of a run directory or of a results.json file.

    Raises StudyError with one sentence where it is half-written, of another version or not as servestorm wrote it.
    """
    file = _results_file(path)
    raw = read_json(file)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise StudyError(
            f"{file} is of version {version}, this servestorm reads {SCHEMA_VERSION}: "
            "write it again with `servestorm report` of the servestorm that made the run, or run the study again."
        )
    try:
        return Recorded.model_validate(raw)
    except ValidationError as error:
        raise StudyError(
            f"{file} is not as servestorm wrote it ({first_fault(error)}): write it again with `servestorm report RUN`."
        ) from error


def _results_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise StudyError(f"{path} does not exist: give a run such as runs/ID, or its {RESULTS}.")
    file = path / RESULTS
    if file.is_file():
        return file
    if (path / STUDY).is_file():
        raise StudyError(f"{path} has no {RESULTS}: the study was cut short; write it with `servestorm report {path}`.")
    raise StudyError(f"{path} is no run directory: give a run such as runs/ID, or its {RESULTS}.")
