"""Autoscaling: how replicas and latencies followed bursts, and what the replicas cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from loadtests.samples.validity import servers_overloaded
from servestorm.analysis.cost import FLEET_COST, replica_cost_row, replica_costs
from servestorm.analysis.figures import Figures
from servestorm.analysis.load_numbers import load_numbers
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.replicas_over_time import replicas_over_time
from servestorm.analysis.rows import FAILED, MEAN_LATENCY, PERCENTILE_ROWS, THROUGHPUT, Rows
from servestorm.analysis.run import Run
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.methods.autoscaling import Autoscaled, Shape, autoscaled, numbers_of
from servestorm.methods.bursts import bursts
from servestorm.methods.samples import Samples
from servestorm.plan.scenarios import Autoscaling
from servestorm.rundir.burst_samples import read_load
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile

REPLICAS_MEAN: Final = "replicas_mean"
TAIL: Final = "p99"
_OF_THE_TAIL: Final = ("violations_percent", "recover_s")
"""Figures that stand with the p99: what is over the objective shows in the tail."""
_OVER_BURSTS: Final = "mean over the bursts for which more were asked, each from its onset"
_ROWS: Final[tuple[Row, ...]] = (
    MEAN_LATENCY,
    THROUGHPUT,
    FAILED,
    Row(
        "violations_percent",
        "answers over the objective, or none",
        "%",
        "lower",
        "requests after the warm-up that failed or took longer than the objective, as a share of them all",
    ),
    Row(
        "decision_s",
        "burst's onset to the autoscaler's decision",
        "s",
        "lower",
        f"until the autoscaler asked for more replicas, {_OVER_BURSTS}",
    ),
    Row(
        "ready_s",
        "burst's onset to the first new replica ready",
        "s",
        "lower",
        f"until the first replica made since then was ready, {_OVER_BURSTS}",
    ),
    Row(
        "all_ready_s",
        "burst's onset to the last new replica ready",
        "s",
        "lower",
        f"until the last replica made since then was ready, {_OVER_BURSTS}",
    ),
    Row(
        "recover_s",
        "burst's onset to answers within the objective again, at the longest",
        "s",
        "lower",
        "longest of a run's bursts from its onset until answers met the objective again",
    ),
    Row(
        "down_decision_s",
        "last burst's end to the first replica given up",
        "s",
        "lower",
        "from the last burst's end until the autoscaler asked for fewer replicas",
    ),
    Row(
        "down_gone_s",
        "last burst's end to the least replicas",
        "s",
        "lower",
        "from the last burst's end until no more than the least replicas existed",
    ),
    Row(
        "replica_seconds",
        "time that replicas existed, summed",
        "replica-seconds",
        "lower",
        "time from each replica's creation until it was gone, summed over the load and the time after it",
    ),
    Row(
        REPLICAS_MEAN,
        "replicas that existed, mean",
        "replicas",
        "lower",
        "replica-seconds by the time that was watched",
    ),
    Row(
        "ready_percent",
        "share of that time in which they were ready",
        "%",
        "higher",
        "time that replicas were ready, as a share of the replica-seconds",
    ),
)


class AutoscalingAnalysis(ScenarioAnalysis):
    """One bursty load on autoscaled replicas."""

    name = "autoscaling"
    computed_in = "methods/autoscaling.py"

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        asked = study.plan.autoscaling
        assert asked
        if samples is None:
            return Measured()
        numbers, scaled = load_numbers(record, samples, study.plan), _autoscaled(record, asked)
        own = numbers_of(scaled) if scaled else {}
        late = dict.fromkeys(_OF_THE_TAIL) if TAIL in samples.use.invalid else {}
        return Measured(numbers | own | late, autoscaling=scaled)

    def invalid_figures(self, samples: Samples) -> dict[str, str]:
        """See ScenarioAnalysis."""
        tail = samples.use.invalid.get(TAIL)
        return super().invalid_figures(samples) | (dict.fromkeys(_OF_THE_TAIL, tail) if tail else {})

    def is_valid(self, record: CellRecord) -> bool | None:
        """Until the replicas have come, requests may well fail: that is what is asked, and counted."""
        if record.summary and servers_overloaded(record.summary.faults):
            return True
        return super().is_valid(record)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        yield from rows.percentiles(group)
        for row in rows.listed(group, _ROWS):
            yield row
            if row.key.endswith(f".{REPLICAS_MEAN}"):
                yield replica_cost_row(row, record)

    def notes(self, runs: Sequence[Run], plan: PlanFile) -> Iterable[str]:
        """See ScenarioAnalysis."""
        counted = [run for run in runs if run.counts]
        if any(run.autoscaling is None for run in counted):
            yield (
                "The clock of the load generator and that of the replicas' events could not be compared in some runs "
                "under an autoscaler: of those only latencies are told."
            )
        reach = plan.cluster_reach
        if counted and reach.reach == "service" and reach.balancer == "none":
            yield (
                "Under the autoscaler load went to a Service, which deals out connections and not requests: a new "
                "replica gets none that are open. Set kubernetes.balancer: haproxy or kubernetes.reach: pods to see "
                "what it can do."
            )

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return (*PERCENTILE_ROWS, *_ROWS, FLEET_COST)

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
