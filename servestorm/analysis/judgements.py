"""What the results say: a verdict for every question that matters, and whether the objectives are kept."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from servestorm.analysis.metric import Metric, Value
from servestorm.methods.decisions import decisions
from servestorm.methods.disturbance import worst
from servestorm.methods.verdict import Question, Verdict
from servestorm.plan.cells import Scenario
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.plan.scenarios import Objective
from servestorm.rundir.shapes.study import PlanFile, StudyFile

QUESTIONS = (
    "coldstart.total_s",
    "steady.p50",
    "steady.p99",
    "steady.cpu_ms_per_image",
    "bursty.p50",
    "bursty.p99",
    "capacity.images_per_s",
    "autoscaling.violations_percent",
    "autoscaling.ready_s",
    "autoscaling.recover_s",
    "autoscaling.replica_seconds",
)
"""Metrics on which engines are judged, in every group that has them; those of the objectives come on top."""

PAIRED: Final[frozenset[Scenario]] = frozenset({"steady", "bursty", "capacity"})
"""Scenarios whose runs are judged in pairs where the plan is interleaved: the engines of a round take turns.

Cold starts run one after another and have next to nothing in common."""


@dataclass(frozen=True)
class Judgement:
    """A verdict on one metric and one pair of engines."""

    metric: str
    label: str
    a: str
    b: str
    """Engines."""
    verdict: Verdict
    withheld: Literal["disturbed"] | None = None
    """Why no verdict was computed: an engine has only DISTURBED runs, and the verdict's reason says so; null else."""
    unbatched: list[str] = field(default_factory=list)
    """Engines of the pair that did not batch though the plan asks for it: the verdict's reason says why."""

    @property
    def unbatched_texts(self) -> list[str]:
        """'savedmodel did not batch', for each engine that did not."""
        return [f"{ENGINE_SHORT[engine]} did not batch" for engine in self.unbatched]


@dataclass(frozen=True)
class ObjectiveResult:
    """Whether an engine keeps an objective."""

    metric: str
    engine: str
    at_most: float | None
    at_least: float | None
    value: float | None
    met: bool | None
    """None where there is no number that may be quoted."""


def judge(
    metrics: Sequence[Metric],
    study: StudyFile,
    titles: Mapping[str, str],
    round_s: Mapping[tuple[str, str, str], float],
) -> list[Judgement]:
    """Verdicts over the runs, as one family: Holm's correction is for all of them.

    `titles` name the groups; `round_s` is how long one more run of two engines takes, by group, engine and engine.
    """
    plan = study.plan
    wanted = {objective.metric for objective in plan.objectives}
    asked = [m for m in metrics if m.key in wanted or f"{m.scenario}.{m.key.rpartition('.')[2]}" in QUESTIONS]
    family = {
        (metric.key, a, b): _question(metric, a, b, study, round_s.get((metric.group, a, b)))
        for metric in asked
        for a, b in itertools.combinations(metric.values, 2)
    }
    judged = decisions(family, plan.margin_percent / 100).verdicts
    by_key = {metric.key: metric for metric in asked}
    return [_judgement(by_key[key], a, b, verdict, titles) for (key, a, b), verdict in judged.items()]


def _question(metric: Metric, a: str, b: str, study: StudyFile, round_s: float | None) -> Question:
    """b against a, in pairs where the runs of both are of rounds in which they took turns."""
    left, right = metric.values[a], metric.values[b]
    has_rounds = all(len(value.rounds) == len(value.runs) for value in (left, right))
    paired = study.plan.interleaved and metric.scenario in PAIRED and has_rounds and left.counts and right.counts
    return Question(
        _quotable(left),
        _quotable(right),
        metric.better,
        rounds=(left.rounds, right.rounds) if paired else None,
        looks=study.looks.get(metric.group, ()),
        names=(ENGINE_SHORT[a], ENGINE_SHORT[b]),
        round_s=round_s,
    )


def _quotable(value: Value) -> list[float | None]:
    return value.runs if value.counts else []


def _judgement(metric: Metric, a: str, b: str, verdict: Verdict, titles: Mapping[str, str]) -> Judgement:
    """The verdict, or why there is none where an engine has DISTURBED runs alone."""
    label = f"{titles[metric.group]}: {metric.label}"
    disturbed = {engine: found for engine in (a, b) if (found := metric.values[engine].disturbed)}
    if not disturbed:
        return Judgement(metric.key, label, a, b, verdict)
    found = worst(disturbed.values())
    assert found
    names = " and ".join(ENGINE_SHORT[engine] for engine in disturbed)
    reason = f"No verdict: the runs of {names} were disturbed ({found.reason})."
    return Judgement(metric.key, label, a, b, replace(verdict, reason=reason), withheld="disturbed")


def objectives(metrics: Sequence[Metric], plan: PlanFile) -> list[ObjectiveResult]:
    """Each objective of the plan for each engine that it is meant for."""
    by_key = {metric.key: metric for metric in metrics}
    results = []
    for objective in plan.objectives:
        metric = by_key.get(objective.metric)
        for engine in objective.engines or plan.engines:
            value = metric.values[engine].quotable if metric else None
            results.append(_result(objective, engine, value))
    return results


def _result(objective: Objective, engine: str, value: float | None) -> ObjectiveResult:
    most, least = objective.at_most, objective.at_least
    met = None
    if value is not None:  # an objective has one bound
        met = (most is None or value <= most) and (least is None or value >= least)
    return ObjectiveResult(objective.metric, engine, most, least, value, met)
