"""Bursty load: what each burst did to latencies and to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from servestorm.analysis.figures import Figures
from servestorm.analysis.load_numbers import load_numbers
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import LOAD_ROWS, P99_CLAIM_ROW, PERCENTILE_ROWS, Rows
from servestorm.analysis.scenario import GroupOfRuns, Measured, Numbers, ScenarioAnalysis
from servestorm.analysis.series import add_load_figures
from servestorm.methods.bursts import Burst, bursts, bursts_in_turns
from servestorm.methods.samples import Samples
from servestorm.plan.scenarios import Bursty
from servestorm.rundir.burst_samples import read_load, read_turns_load
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import StudyFile

TAIL: Final = "p99"
"""What a burst does shows in the tail: its figures stand with this one and leave out the same slices."""
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

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        asked = study.plan.bursty
        assert asked
        if samples is None:
            return Measured()
        numbers, own = load_numbers(record, samples, study.plan), _bursts(record, asked, samples)
        return Measured(numbers | _burst_numbers(own), bursts=own)

    def invalid_figures(self, samples: Samples) -> dict[str, str]:
        """See ScenarioAnalysis."""
        tail = samples.use.invalid.get(TAIL)
        return super().invalid_figures(samples) | (dict.fromkeys((row.name for row in _ROWS), tail) if tail else {})

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.of_load(group, _ROWS, optional={row.name for row in _ROWS})

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return (*PERCENTILE_ROWS, P99_CLAIM_ROW, *LOAD_ROWS, *_ROWS)

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        add_load_figures(figures, runs)


def _bursts(record: CellRecord, asked: Bursty, samples: Samples) -> list[Burst]:
    """The bursts of the cycles that count for a p99; none where the generator's lag made that INVALID."""
    counted = np.flatnonzero(samples.use.counted(TAIL))
    own = [] if TAIL in samples.use.invalid else _all_bursts(record, asked, samples)
    return [burst for burst in own if burst.index in counted]


def _all_bursts(record: CellRecord, asked: Bursty, samples: Samples) -> list[Burst]:
    assert record.samples_path
    times = {"on_s": asked.on_s, "off_s": asked.off_s}
    if samples.turns:
        turns = read_turns_load(record.samples_path, samples.turns)
        return bursts_in_turns(turns, **times, objective_ms=asked.objective_ms)
    load = read_load(record.samples_path, asked.warmup_s)
    return bursts(load[0], **times, duration_s=asked.duration_s, objective_ms=asked.objective_ms) if load else []


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
