"""What the results say: a verdict for every question that matters, and whether the objectives are kept."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.pairing import rounds_of
from servestorm.methods.decisions import decisions
from servestorm.methods.disturbance import worst
from servestorm.methods.verdict import Question, Verdict
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
    "capacity.crossing_images_per_s",
    "autoscaling.violations_percent",
    "autoscaling.ready_s",
    "autoscaling.recover_s",
    "autoscaling.replica_seconds",
)
"""Metrics on which engines are judged, in every group that has them; those of the objectives come on top."""
PROMISED: Final = frozenset({"capacity.images_per_s"})
"""Metrics on which engines are not judged, also where an objective names them: which of two neighbouring rates passed
twice is a matter of chance. The estimate of the same search is judged instead."""


@dataclass(frozen=True)
class Judgement:
    """A verdict on one metric and one pair of engines."""

    metric: str
    label: str
    a: str
    b: str
    """Engines."""
    verdict: Verdict
    withheld: Literal["disturbed", "no estimate"] | None = None
    """Why no verdict was computed, as the verdict's reason says: an engine has only DISTURBED runs, or its searches for
    the capacity give no estimate; null else."""
    unbatched: list[str] = field(default_factory=list)
    """Engines of the pair that did not batch though the plan asks for it: the verdict's reason says why."""

    @property
    def group(self) -> str:
        """The group of runs that it is about."""
        return self.metric.rpartition(".")[0]

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
    asked = [metric for metric in metrics if _is_asked(metric, wanted)]
    family = {
        (metric.key, a, b): _question(metric, a, b, study, round_s.get((metric.group, a, b)))
        for metric in asked
        for a, b in itertools.combinations(metric.values, 2)
    }
    judged = decisions(family, plan.margin_percent / 100).verdicts
    by_key = {metric.key: metric for metric in asked}
    return [_judgement(by_key[key], a, b, verdict, titles) for (key, a, b), verdict in judged.items()]


def _is_asked(metric: Metric, objectives: Collection[str]) -> bool:
    base = f"{metric.scenario}.{metric.key.rpartition('.')[2]}"
    return base in QUESTIONS or (metric.key in objectives and base not in PROMISED)


def _question(metric: Metric, a: str, b: str, study: StudyFile, round_s: float | None) -> Question:
    """b against a, in pairs where the runs of both are of rounds in which they took turns."""
    left, right = metric.values[a], metric.values[b]
    return Question(
        _quotable(left),
        _quotable(right),
        metric.better,
        rounds=rounds_of(metric.scenario, left, right, interleaved=study.plan.interleaved),
        looks=study.looks.get(metric.group, ()),
        names=(ENGINE_SHORT[a], ENGINE_SHORT[b]),
        round_s=round_s,
    )


def _quotable(value: Value) -> list[float | None]:
    return value.runs if value.counts else []


def _judgement(metric: Metric, a: str, b: str, verdict: Verdict, titles: Mapping[str, str]) -> Judgement:
    """The verdict, or why there is none where an engine has DISTURBED runs alone, or no estimate."""
    label = f"{titles[metric.group]}: {metric.label}"
    disturbed = {engine: found for engine in (a, b) if (found := metric.values[engine].disturbed)}
    if not disturbed:
        return _without_estimate(metric, label, a, b, verdict) or Judgement(metric.key, label, a, b, verdict)
    found = worst(disturbed.values())
    assert found
    names = " and ".join(ENGINE_SHORT[engine] for engine in disturbed)
    reason = f"No verdict: the runs of {names} were disturbed ({found.reason})."
    return Judgement(metric.key, label, a, b, replace(verdict, reason=reason), withheld="disturbed")


def _without_estimate(metric: Metric, label: str, a: str, b: str, verdict: Verdict) -> Judgement | None:
    """More runs do not help where p99 jumps at the capacity; the rate to promise is no substitute for an estimate."""
    if not metric.key.endswith(".crossing_images_per_s"):
        return None
    without = [e for e in (a, b) if (runs := _quotable(metric.values[e])) and all(run is None for run in runs)]
    if not without:
        return None
    reason = (
        f"No verdict: the probes of {' and '.join(ENGINE_SHORT[engine] for engine in without)} do not tell at which "
        "rate p99 meets the objective, because too few came near it, or because p99 jumps there; the rates to promise "
        "stand without a comparison. Set another `capacity.p99_ms`, or longer or more probes."
    )
    return Judgement(metric.key, label, a, b, replace(verdict, reason=reason, runs_more=None), withheld="no estimate")


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
