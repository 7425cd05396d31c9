"""A results.json that may come from anywhere: read strictly, so that no number is made up from a broken one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from servestorm.errors import StudyError
from servestorm.methods.percentiles import over_runs
from servestorm.rundir.files import RESULTS, RESULTS_VERSION, STUDY, JsonObject, read_json
from servestorm.rundir.shapes.environment import EnvironmentFile, ManifestFile
from servestorm.rundir.shapes.file_shape import FileShape, Whole, first_fault
from servestorm.rundir.shapes.study import CoresFile, DeploymentSections

ALIKE = 1e-6
"""A figure may differ from the mean of its runs by this share: both were rounded."""
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
"""Neither infinite nor not-a-number: both are outside."""


class RecordedDisturbance(FileShape):
    """Why runs are DISTURBED."""

    reason: str


class RecordedValue(FileShape):
    """One engine's figure."""

    runs: list[Number | None]
    value: Number | None
    sd: Number | None
    value_from: Literal["runs", "samples", "largest"] | None
    valid: bool = True
    disturbed: RecordedDisturbance | None = None
    """Why only DISTURBED runs could be used; older servestorms did not judge that."""

    @property
    def counts(self) -> bool:
        """Whether it may be compared."""
        return self.valid and self.disturbed is None

    @property
    def is_claim(self) -> bool:
        """Whether it is a bound that holds for every run, and no mean that could be tested."""
        return self.value_from == "largest"

    @model_validator(mode="after")
    def _is_of_its_runs(self) -> RecordedValue:
        over = over_runs(self.runs)
        if not over.n and self.value_from == "samples":
            return self
        room = ALIKE * max((abs(run) for run in self.runs if run is not None), default=0.0)
        mean, sd = (self._largest(), None) if self.is_claim else (over.mean, over.sd)
        for name, given, own in (("value", self.value, mean), ("sd", self.sd, sd)):
            if not _alike(given, own, room):
                raise ValueError(f"the {name} is {_text(given)}, and that of its runs {_text(own)}")
        return self

    def _largest(self) -> float | None:
        """Of a claim, which must hold for every run."""
        known = [run for run in self.runs if run is not None]
        return max(known) if known and len(known) == len(self.runs) else None


def _alike(given: float | None, own: float | None, room: float) -> bool:
    if given is None or own is None:
        return given is own
    return abs(given - own) <= room


def _text(number: float | None) -> str:
    return "none" if number is None else f"{number:g}"


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

    @property
    def design(self) -> Literal["blocks", "interleaved"]:
        """How its engines were loaded; older plans do not say, and were blocks."""
        return "interleaved" if self.plan.get("design") == "interleaved" else "blocks"


class RecordedSetting(FileShape):
    """One setting of an engine's servers."""

    engine: str
    name: str
    values: list[Whole]


def without_nulls(manifest: object) -> object:
    """A model of results.json as its manifest: of a missing key it holds null, of a lost manifest an empty object."""
    if not isinstance(manifest, dict):
        return manifest
    return {key: value for key, value in manifest.items() if value is not None} or None


class RecordedDoubt(FileShape):
    """A reason to doubt the numbers."""

    kind: str
    sentence: str


class Recorded(FileShape):
    """What a comparison wants of results.json."""

    id: str
    state: str
    reason: str | None = None
    study: RecordedStudy
    environment: EnvironmentFile
    models: list[Annotated[ManifestFile | None, BeforeValidator(without_nulls)]]
    engines: list[str]
    server_settings: list[RecordedSetting] = Field(default_factory=list)
    """Empty where nothing was read back."""
    metrics: list[RecordedMetric]
    doubts: list[RecordedDoubt] = Field(default_factory=list)

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
    raw = read_document(file)
    try:
        return Recorded.model_validate(raw)
    except ValidationError as error:
        raise not_as_written(file, error) from error


def read_document(file: Path) -> JsonObject:
    """The content of a results.json of this version; raises StudyError with one sentence where it is not one."""
    raw = read_json(file)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or version != RESULTS_VERSION:
        earlier = isinstance(version, int) and version < RESULTS_VERSION
        raise StudyError(
            f"{file} is of version {version}, this servestorm reads {RESULTS_VERSION}: "
            + (
                "write it again with `servestorm report RUN`, whose figures are defined anew, or run the study again."
                if earlier
                else "compare with the servestorm that wrote it, or run the study again."
            )
        )
    return raw


def not_as_written(file: Path, error: ValidationError) -> StudyError:
    """What to say of a results.json with a fault."""
    return StudyError(
        f"{file} is not as servestorm wrote it ({first_fault(error)}): write it again with `servestorm report RUN`."
    )


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
