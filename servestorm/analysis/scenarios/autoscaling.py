"""Autoscaling: how replicas and latencies followed bursts, and what the replicas cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loadtests.samples.validity import servers_overloaded
from servestorm.analysis.cost import replica_cost_row, replica_costs
from servestorm.analysis.figures import Figures
from servestorm.analysis.load_numbers import load_numbers, read_load_samples
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.replicas_over_time import replicas_over_time
from servestorm.analysis.rows import Rows
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.methods.autoscaling import Autoscaled, Shape, autoscaled, numbers_of
from servestorm.methods.bursts import bursts
from servestorm.plan.scenarios import Autoscaling
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.samples import read_load
from servestorm.rundir.shapes.study import StudyFile

_ROWS: Final[tuple[Row, ...]] = (
    ("mean_ms", "mean latency", "ms per image", "lower"),
    ("images_per_s", "throughput", "images/s", "higher"),
    ("failed_percent", "failed or wrong answers", "%", "lower"),
    ("violations_percent", "answers over the objective, or none", "%", "lower"),
    ("decision_s", "burst's onset to the autoscaler's decision", "s", "lower"),
    ("ready_s", "burst's onset to the first new replica ready", "s", "lower"),
    ("all_ready_s", "burst's onset to the last new replica ready", "s", "lower"),
    ("recover_s", "burst's onset to answers within the objective again, at the longest", "s", "lower"),
    ("down_decision_s", "last burst's end to the first replica given up", "s", "lower"),
    ("down_gone_s", "last burst's end to the least replicas", "s", "lower"),
    ("replica_seconds", "time that replicas existed, summed", "replica-seconds", "lower"),
    ("replicas_mean", "replicas that existed, mean", "replicas", "lower"),
    ("ready_percent", "share of that time in which they were ready", "%", "higher"),
)
REPLICAS_MEAN: Final = "replicas_mean"


class AutoscalingAnalysis(ScenarioAnalysis):
    """One bursty load on autoscaled replicas."""

    name = "autoscaling"

    def measure(self, record: CellRecord, study: StudyFile) -> Measured:
        """See ScenarioAnalysis."""
        asked = study.plan.autoscaling
        assert asked
        samples = read_load_samples(record, asked)
        if samples is None:
            return Measured()
        numbers, scaled = load_numbers(record, samples, asked, study.plan), _autoscaled(record, asked)
        return Measured(numbers | (numbers_of(scaled) if scaled else {}), samples, autoscaling=scaled)

    def is_valid(self, record: CellRecord) -> bool | None:
        """Until the replicas have come, requests may well fail: that is what is asked, and counted."""
        if record.summary and servers_overloaded(record.summary.reasons):
            return True
        return super().is_valid(record)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        yield from rows.percentiles(group)
        for row in rows.listed(group, _ROWS):
            yield row
            if row.key.endswith(f".{REPLICAS_MEAN}"):
                yield replica_cost_row(row, record)

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        if over_time := replicas_over_time(runs):
            figures.autoscaling[runs.group] = over_time
        asked = runs.record.study.plan.autoscaling
        if asked and (replicas := runs.row(REPLICAS_MEAN)):
            figures.fleet_cost[runs.group] = replica_costs(replicas, asked.max_replicas, runs.record)


def _autoscaled(record: CellRecord, asked: Autoscaling) -> Autoscaled | None:
    assert record.samples_path
    read = read_load(record.samples_path, asked.warmup_s)
    if read is None:
        return None
    load, start_ns = read
    times = {"on_s": asked.on_s, "off_s": asked.off_s, "duration_s": asked.duration_s}
    shape = Shape(asked.min_replicas, asked.objective_ms, asked.duration_s, asked.watch_after_s)
    return autoscaled(record.events, load, start_ns, bursts(load, **times, objective_ms=asked.objective_ms), shape)
