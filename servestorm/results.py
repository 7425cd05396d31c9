"""From a run directory to its results: a pure function, so that a report can always be drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from servestorm.figures import figures_of
from servestorm.labels import PHASES
from servestorm.measures import QUOTED, Run, measure
from servestorm.samples import Samples
from servestorm.statistics import QUANTILES, over_runs, percentile, welch_p
from servestorm.store import RunRecord

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Value:
    """A figure of one engine."""

    value: float | None
    """Percentiles: of the samples of all counted runs together. Anything else: the mean over runs."""
    mean: float | None
    sd: float | None
    n: int
    """Runs behind mean and sd."""
    runs: list[float | None]
    samples: int | None = None
    valid: bool = True
    """False where only INVALID runs could be used: a hint of the size, never to be quoted or compared."""


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    key: str
    scenario: str
    label: str
    unit: str
    better: Better
    values: dict[str, Value]
    welch_p: dict[str, float | None]
    """'a|b' for each pair of engines: two-sided p over runs."""


@dataclass(frozen=True)
class Results:
    """Everything that the table, the report and results.json show."""

    id: str
    state: str
    reason: str | None
    study: dict[str, Any]
    environment: dict[str, Any]
    model: dict[str, Any]
    engines: list[str]
    metrics: list[Metric]
    runs: list[Run]
    notes: list[str]
    figures: dict[str, Any]

    def metric(self, key: str) -> Metric | None:
        """A row by its key, such as steady.p99."""
        return next((metric for metric in self.metrics if metric.key == key), None)

    def unanswered(self) -> list[tuple[str, str]]:
        """(scenario, engine) of the plan for which no run counts."""
        answered = {(run.scenario, run.engine) for run in self.runs if run.counts}
        return [(s, e) for s in asked(self.study["plan"]) for e in self.engines if (s, e) not in answered]

    def as_json(self) -> dict[str, Any]:
        """What results.json holds."""
        return {"schema_version": 1, **asdict(self)}


def asked(plan: dict[str, Any]) -> list[str]:
    """The scenarios that a plan asks for."""
    wanted = {"coldstart": plan["cold_starts"], **{name: plan[name] for name in ("steady", "bursty", "scaling")}}
    return [name for name, value in wanted.items() if value]


def compute(record: RunRecord) -> Results:
    """Every number of a run directory."""
    plan, engines = record.study["plan"], list(record.study["plan"]["engines"])
    measured = [measure(cell, plan) for cell in record.cells]
    runs, samples = [run for run, _ in measured], {run.id: found for run, found in measured if found is not None}
    used = usable(runs)
    table = _Table(engines, used, samples)
    return Results(
        id=record.study["id"],
        state=record.study["state"],
        reason=record.study.get("reason"),
        study=record.study,
        environment=record.environment,
        model=_model(record.manifest),
        engines=engines,
        metrics=[metric for scenario in asked(plan) for metric in table.metrics(scenario, plan)],
        runs=runs,
        notes=[*record.study["cores"]["notes"], *_state_notes(record, runs)],
        figures=figures_of(engines, used, samples),
    )


def usable(runs: Sequence[Run]) -> list[Run]:
    """The runs behind the numbers: those that count; where an engine has none in a scenario, its INVALID ones."""
    answered = {(run.scenario, run.engine) for run in runs if run.counts}
    return [
        run for run in runs if run.counts or (run.state == "complete" and (run.scenario, run.engine) not in answered)
    ]


def _model(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """What the report says of the model."""
    keys = ("name", "version", "architecture", "dataset", "weights_from", "parity", "labels", "input", "created_at")
    return {key: manifest.get(key) for key in keys} if manifest else {}


def _state_notes(record: RunRecord, runs: Sequence[Run]) -> list[str]:
    notes = []
    planned = len(record.study["cells"])
    if (complete := sum(run.state == "complete" for run in runs)) < planned:
        notes.append(f"{complete} of {planned} runs are complete; the numbers below are of those alone.")
    if repeats := sum(cell.repeats for cell in record.cells):
        notes.append(
            f"{repeats} tries of a load are INVALID for no other reason than that the generator was late or busy; they "
            "were repeated on the same servers, and are kept beside the tries that count."
        )
    if invalid := sum(run.valid is False for run in runs):
        notes.append(
            f"{invalid} of {planned} runs are INVALID, for the reasons below, and left out of the numbers; where no "
            "valid run is left, the numbers are marked INVALID."
        )
    return notes


class _Table:
    """Groups the runs that count, and makes the rows."""

    def __init__(self, engines: Sequence[str], runs: Sequence[Run], samples: dict[str, Samples]) -> None:
        self._engines, self._samples = engines, samples
        self._runs = runs

    def metrics(self, scenario: str, plan: dict[str, Any]) -> Iterable[Metric]:
        """The rows of one scenario."""
        if scenario == "coldstart":
            yield self._row("coldstart", "total_s", "process start to first right answer", "s", "lower")
            for phase, label in PHASES.items():
                yield self._row("coldstart", f"{phase}_s", label, "s", "lower")
        elif scenario == "scaling":
            yield from self._scaling(plan["scaling"]["replicas"])
        else:
            yield from (self._percentile(scenario, name) for name in QUOTED)
            yield self._row(scenario, "mean_ms", "mean latency", "ms per image", "lower")
            yield self._row(scenario, "images_per_s", "throughput", "images/s", "higher")
            yield self._row(scenario, "failed_percent", "failed or wrong answers", "%", "lower")
            yield self._row(scenario, "cpu_ms_per_image", "CPU time of the servers", "ms per image", "lower")
            yield self._row(scenario, "rss_peak_mib", "peak memory of the servers", "MiB", "lower")

    def _of(self, scenario: str, engine: str) -> list[Run]:
        return [run for run in self._runs if run.scenario == scenario and run.engine == engine]

    def _row(self, scenario: str, name: str, label: str, unit: str, better: Better) -> Metric:
        runs = {e: [run.numbers.get(name) for run in self._of(scenario, e)] for e in self._engines}
        return self._metric(f"{scenario}.{name}", label, unit, better, runs)

    def _percentile(self, scenario: str, name: str) -> Metric:
        """The quantile of all samples of the counted runs together; its runs' own values give sd and p."""
        row = self._row(scenario, name, f"{name} latency", "ms per image", "lower")
        values = {}
        for engine, value in row.values.items():
            latencies = [self._samples[run.id].image_latency_ms for run in self._of(scenario, engine)]
            pooled = np.concatenate(latencies) if latencies else np.empty(0)
            exact = percentile(pooled, QUANTILES[name])
            values[engine] = replace(value, value=exact, samples=int(pooled.size))
        return replace(row, values=values)

    def _scaling(self, replicas: Sequence[int]) -> Iterable[Metric]:
        for count in replicas:
            label = f"throughput, {count} replica{'s' if count > 1 else ''}"
            runs = {engine: self._rates(engine, count) for engine in self._engines}
            yield self._metric(f"scaling.images_per_s_x{count}", label, "images/s", "higher", runs)
        for count in replicas[1:]:
            label = f"scaling factor, {count} against {replicas[0]}"
            runs = {engine: self._factors(engine, replicas[0], count) for engine in self._engines}
            yield self._metric(f"scaling.factor_x{count}", label, "×", "higher", runs)

    def _rates(self, engine: str, replicas: int) -> list[float | None]:
        runs = [run for run in self._of("scaling", engine) if run.replicas == replicas]
        return [run.numbers.get("images_per_s") for run in runs]

    def _factors(self, engine: str, base: int, count: int) -> list[float | None]:
        """Of each repetition that has both: its own throughput ratio."""
        found = {(r.repetition, r.replicas): r.numbers.get("images_per_s") for r in self._of("scaling", engine)}
        repetitions = sorted({repetition for repetition, _ in found})
        pairs = [(found.get((r, base)), found.get((r, count))) for r in repetitions]
        return [many / one for one, many in pairs if one and many]

    def _metric(self, key: str, label: str, unit: str, better: Better, runs: dict[str, list[float | None]]) -> Metric:
        """A row from each engine's values by run."""
        scenario = key.partition(".")[0]
        values = {}
        for engine, numbers in runs.items():
            over, valid = over_runs(numbers), all(run.counts for run in self._of(scenario, engine))
            values[engine] = Value(over.mean, over.mean, over.sd, over.n, list(over.runs), valid=valid)
        pairs = itertools.combinations(runs, 2)
        p = {f"{a}|{b}": welch_p(runs[a], runs[b]) if values[a].valid and values[b].valid else None for a, b in pairs}
        return Metric(key, scenario, label, unit, better, values, p)
