"""Bursty load: what each burst did to latencies and to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from servestorm.analysis.figures import Figures
from servestorm.analysis.load_numbers import load_numbers, read_load_samples
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import LOAD_ROWS, PERCENTILE_ROWS, Rows
from servestorm.analysis.scenario import GroupOfRuns, Measured, Numbers, ScenarioAnalysis
from servestorm.analysis.series import add_load_figures
from servestorm.methods.bursts import Burst, bursts
from servestorm.plan.scenarios import Bursty
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.samples import read_load
from servestorm.rundir.shapes.study import StudyFile

_ROWS: Final[tuple[Row, ...]] = (
    Row(
        "burst_violations_percent",
        "answers in bursts over the objective, or none",
        "%",
        "lower",
        "requests of all bursts of a run that failed or took longer than the objective, as a share of them all",
    ),
    Row(
        "burst_queue_peak",
        "most requests under way at once",
        "requests",
        "lower",
        "most requests due and without an end within any burst of a run",
    ),
    Row(
        "burst_recover_s",
        "time to recover after a burst",
        "s",
        "lower",
        "mean over the bursts of a run, from a burst's end until latencies are back; only where every one was seen",
    ),
)


class BurstyAnalysis(ScenarioAnalysis):
    """One open-loop load with the plan's bursts."""

    name = "bursty"
    computed_in = "analysis/scenarios/bursty.py"

    def measure(self, record: CellRecord, study: StudyFile) -> Measured:
        """See ScenarioAnalysis."""
        asked = study.plan.bursty
        assert asked
        samples = read_load_samples(record, asked)
        if samples is None:
            return Measured()
        numbers, own = load_numbers(record, samples, asked, study.plan), _bursts(record, asked)
        return Measured(numbers | _burst_numbers(own), samples, bursts=own)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.of_load(group, _ROWS, optional={row.name for row in _ROWS})

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return (*PERCENTILE_ROWS, *LOAD_ROWS, *_ROWS)

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        add_load_figures(figures, runs)


def _bursts(record: CellRecord, asked: Bursty) -> list[Burst]:
    assert record.samples_path
    load = read_load(record.samples_path, asked.warmup_s)
    if load is None:
        return []
    times = {"on_s": asked.on_s, "off_s": asked.off_s, "duration_s": asked.duration_s}
    return bursts(load[0], **times, objective_ms=asked.objective_ms)


def _burst_numbers(own: Sequence[Burst]) -> Numbers:
    """Over the bursts of a run: share of violations, longest queue, mean recovery where every one was seen."""
    if not own:
        return {}
    late = [burst.violations for burst in own if burst.violations is not None]
    requests, recovered = (
        sum(burst.requests for burst in own),
        [b.recover_s for b in own if b.recover_s is not None],
    )
    return {
        "burst_violations_percent": 100 * sum(late) / requests if late and requests else None,
        "burst_queue_peak": float(max(burst.queue_peak for burst in own)),
        "burst_recover_s": sum(recovered) / len(recovered) if len(recovered) == len(own) else None,
    }
