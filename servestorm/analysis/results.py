"""From a run directory to its results: a pure function, so that a report can always be drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any, Final

from pydantic import WithJsonSchema

from servestorm.analysis.doubt_facts import conditions_of, facts_of_loads
from servestorm.analysis.doubts import Doubt, doubts
from servestorm.analysis.figures import Figures
from servestorm.analysis.groups import groups_of, scenario_of
from servestorm.analysis.judgements import Judgement, ObjectiveResult, judge, objectives
from servestorm.analysis.machine_doubts import SEVERITIES
from servestorm.analysis.metric import Metric
from servestorm.analysis.notes import state_notes
from servestorm.analysis.round_time import round_seconds
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import Run
from servestorm.analysis.run_numbers import measure
from servestorm.analysis.scenario import GroupOfRuns
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.analysis.served_accuracy import served_accuracy
from servestorm.analysis.server_settings import ServerSetting, server_settings, settings_notes, unequal_settings
from servestorm.analysis.unbatched import Unbatched, qualified, unbatched_doubts, unbatched_runs, unit_doubts
from servestorm.methods.disturbance import Disturbance, worst
from servestorm.methods.samples import Samples
from servestorm.rundir.counted_samples import read_counted_samples
from servestorm.rundir.files import RESULTS_VERSION, JsonObject
from servestorm.rundir.record import RunRecord, StoredJson
from servestorm.rundir.shapes.environment import EnvironmentFile, ManifestFile
from servestorm.rundir.shapes.study import StudyFile

_OPEN: Final = WithJsonSchema({"additionalProperties": True, "type": "object"})
"""In results.json: a copy of a file of the run, with everything that is in it."""


@dataclass(frozen=True)
class Results:
    """Everything that the table, the report and results.json show."""

    id: str
    state: str
    reason: str | None
    study: Annotated[StudyFile, _OPEN]
    environment: Annotated[EnvironmentFile, _OPEN]
    models: list[Annotated[ManifestFile | None, _OPEN]]
    """Of each model of the plan; None, and empty in results.json, where its manifest was lost."""
    engines: list[str]
    groups: dict[str, str]
    """Title of each group of runs that the plan asks for, such as {'steady[gRPC]': 'Steady load (gRPC)'}."""
    metrics: list[Metric]
    verdicts: list[Judgement]
    objectives: list[ObjectiveResult]
    server_settings: list[ServerSetting]
    """What the servers reported that they ran with; empty where nothing was read back."""
    runs: list[Run]
    doubts: list[Doubt]
    """Reasons to doubt the runs under load, the gravest first."""
    notes: list[str]
    figures: Figures
    stored: StoredJson
    """What results.json copies: not a part of the results."""

    def metric(self, key: str) -> Metric | None:
        """A row by its key, such as steady.p99."""
        return next((metric for metric in self.metrics if metric.key == key), None)

    def rows(self, scenario: str, name: str) -> list[Metric]:
        """The rows of that name in every group of a scenario."""
        return [m for m in self.metrics if m.scenario == scenario and m.key.rpartition(".")[2] == name]

    def unanswered(self) -> list[tuple[str, str]]:
        """(group, engine) of the plan for which no run counts."""
        answered = {(run.group, run.engine) for run in self.runs if run.counts}
        return [(g, e) for g in self.groups for e in self.engines if (g, e) not in answered]

    def disturbed(self, group: str, engine: str) -> Disturbance | None:
        """Why no run of an engine counts where all that are VALID are DISTURBED; None where there is another reason."""
        used = [run for run in usable(self.runs) if (run.group, run.engine) == (group, engine)]
        return worst(run.disturbed for run in used if run.disturbed and run.valid is not False)

    def as_json(self) -> JsonObject:
        """What results.json holds: the fields in their order, and of the run's own files all that is in them."""
        copied: JsonObject = {
            "study": self.stored.study,
            "environment": self.stored.environment,
            "models": [_model(manifest) for manifest in self.stored.manifests],
        }
        names = [field.name for field in fields(self) if field.name != "stored"]
        return {
            "schema_version": RESULTS_VERSION,
            **{name: copied[name] if name in copied else _plain(getattr(self, name)) for name in names},
        }


def compute(record: RunRecord) -> Results:
    """Every number of a run directory."""
    study, engines = record.study, [str(engine) for engine in record.study.plan.engines]
    plan, groups = study.plan, groups_of(study)
    samples = read_counted_samples(record.cells, plan)
    runs = [measure(cell, study, samples.get(cell.cell.id)) for cell in record.cells]
    used = usable(runs)
    settings = server_settings(record)
    rows = Rows(engines, used, samples, interleaved=plan.interleaved)
    metrics = [metric for group in groups for metric in SCENARIO_ANALYSES[scenario_of(group)].rows(rows, group, record)]
    unbatched = unbatched_runs(record)
    return Results(
        id=study.id,
        state=study.state,
        reason=study.reason,
        study=study,
        environment=record.environment,
        models=record.manifests,
        engines=engines,
        groups=groups,
        metrics=metrics,
        verdicts=qualified(judge(metrics, study, groups, round_seconds(record.cells, study)), unbatched),
        objectives=objectives(metrics, plan),
        server_settings=settings,
        runs=runs,
        doubts=_doubts(record, samples, unbatched, settings),
        notes=[*study.cores.notes, *settings_notes(record), *state_notes(record, runs)],
        figures=_figures(groups, engines, used, samples, metrics, record),
        stored=record.stored,
    )


def _figures(
    groups: Iterable[str],
    engines: Sequence[str],
    used: Sequence[Run],
    samples: Mapping[str, Samples],
    metrics: Sequence[Metric],
    record: RunRecord,
) -> Figures:
    """What the figures show; groups come in the order of their first runs."""
    figures = Figures(accuracy=served_accuracy(record))
    for group in dict.fromkeys([*(run.group for run in used), *groups]):
        runs = [run for run in used if run.group == group]
        of_group = GroupOfRuns(group, engines, runs, samples, metrics, record)
        SCENARIO_ANALYSES[scenario_of(group)].add_figures(figures, of_group)
    return figures


def _doubts(
    record: RunRecord,
    samples: Mapping[str, Samples],
    unbatched: Sequence[Unbatched],
    settings: Sequence[ServerSetting],
) -> list[Doubt]:
    conditions = conditions_of(record.study)
    slices = {name: own.use for name, own in samples.items()}
    loads = [facts_of_loads(cell, conditions, slices.get(cell.cell.id)) for cell in record.cells if cell.complete]
    found = doubts(itertools.chain.from_iterable(loads))
    unequal = unequal_settings(settings) if record.study.plan.runs_already else ()
    every = [*unequal, *unbatched_doubts(unbatched), *found, *unit_doubts(record.study.plan)]
    return sorted(every, key=lambda doubt: SEVERITIES.index(doubt.severity))


def usable(runs: Sequence[Run]) -> list[Run]:
    """The runs behind the numbers: those that count; where an engine has none in a group, those that are DISTURBED and
    not INVALID; where it has none of these either, its INVALID ones.
    """
    best: dict[tuple[str, str], int] = {}
    for run in runs:
        place = run.group, run.engine
        best[place] = max(best.get(place, 0), _standing(run))
    return [run for run in runs if _standing(run) and _standing(run) == best[run.group, run.engine]]


def _standing(run: Run) -> int:
    """3: it counts; 2: DISTURBED and not INVALID; 1: INVALID; 0: not complete."""
    if run.state != "complete":
        return 0
    return 3 if run.counts else 1 if run.valid is False else 2


def _plain(value: Any) -> Any:
    """The value with every dataclass in it as a dict of its fields; one such as lambda_ loses its underscore."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value, dict_factory=lambda pairs: {name.rstrip("_"): part for name, part in pairs})
    return value


def _model(manifest: JsonObject | None) -> JsonObject:
    """What results.json says of a model; empty where its manifest was lost."""
    keys = (
        "name",
        "version",
        "architecture",
        "dataset",
        "weights_from",
        "parity",
        "accuracy",
        "labels",
        "input",
        "created_at",
    )
    artifacts = ("savedmodel", "mar")  # their SHA-256 tells a comparison whether two runs served the same files
    return {key: manifest.get(key) for key in (*keys, *artifacts)} if manifest else {}
