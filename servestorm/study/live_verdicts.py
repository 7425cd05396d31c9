"""What the rounds of a study show while it goes on: the questions of its results, by the same functions of methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from servestorm.methods.decisions import decisions
from servestorm.methods.disturbance import disturbance
from servestorm.methods.run_figures import run_figures
from servestorm.methods.samples import Samples
from servestorm.methods.verdict import Better, Question, Verdict
from servestorm.plan.cells import TAKE_TURNS, Scenario
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.plan.questions import QUESTIONS, group_name, is_asked
from servestorm.rundir.counted_samples import asked_load, load_duration_s, read_counted_samples
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile

FIGURES: Final[Mapping[str, Better]] = {
    **dict.fromkeys(("p50", "p90", "p95", "p99", "p999", "request_p50", "request_p99", "mean_ms"), "lower"),
    **dict.fromkeys(("cpu_ms_per_image", "failed_percent"), "lower"),
    **dict.fromkeys(("images_per_s", "crossing_images_per_s"), "higher"),
}
"""The figures that are judged while a study goes on, and which direction of each is better."""

Key = tuple[str, str, str]
"""A metric such as 'steady.p50', and two engines."""


def live_questions(record: RunRecord, looks: Mapping[str, Sequence[float]]) -> dict[str, dict[Key, Question]]:
    """By group of runs that take turns: its questions, with the runs so far; `looks` are the shares of each group."""
    study = record.study
    numbers: dict[str, dict[str, dict[int, Mapping[str, float | None]]]] = {}
    samples = read_counted_samples(record.cells, study.plan)
    for cell in record.cells:
        if cell.complete and cell.cell.scenario in TAKE_TURNS:
            group = numbers.setdefault(_group(cell, study), {})
            figures = _figures(cell, study, samples.get(cell.cell.id))
            if figures:
                group.setdefault(cell.cell.engine, {})[cell.cell.repetition] = figures
    return {group: dict(_questions(group, runs, study.plan, looks)) for group, runs in numbers.items()}


def live_verdicts(
    questions: Mapping[str, Mapping[Key, Question]], plan: PlanFile, family: int
) -> dict[str, dict[Key, Verdict]]:
    """By group the verdict on each question, as strict as the results can be with a family of that size.

    A winner must win at the level that Holm's correction asks of the smallest p of all; an equivalence is not tested.
    """
    margin = plan.margin_percent / 100
    found: dict[str, dict[Key, Verdict]] = {}
    for group, asked in questions.items():
        for key, question in asked.items():
            strict = decisions({key: question}, margin, 0.05 / max(1, family)).verdicts[key]
            plain = decisions({key: question}, margin).verdicts[key]
            winner = strict if strict.outcome in ("A", "B") else replace(plain, outcome="inconclusive")
            found.setdefault(group, {})[key] = plain if plain.outcome == "equivalent" else winner
    return found


def asked_in(scenario: Scenario, plan: PlanFile) -> list[str]:
    """Figures of a scenario that are judged while the study goes on."""
    objectives = {objective.metric for objective in plan.objectives}
    return [name for name in FIGURES if is_asked(f"{scenario}.{name}", objectives)]


def family_size(study: StudyFile, groups: Iterable[str]) -> int:
    """Questions of the whole study, whose chances to be wrong add up: no fewer than its results have."""
    pairs = len(study.plan.engines) * (len(study.plan.engines) - 1) // 2
    of_groups = sum(len(asked_in(_scenario(group), study.plan)) for group in groups)
    cold = sum(question.startswith("coldstart.") for question in QUESTIONS) if study.plan.cold_starts else 0
    further = len(study.plan.objectives)
    return pairs * (of_groups + cold * len(study.variants) + further)


def _group(cell: CellRecord, study: StudyFile) -> str:
    return group_name(cell.cell.scenario, study.variants[cell.cell.variant].label)


def _scenario(group: str) -> Scenario:
    return next(scenario for scenario in TAKE_TURNS if scenario == group.partition("[")[0])


def _figures(record: CellRecord, study: StudyFile, samples: Samples | None) -> dict[str, float | None]:
    """The numbers of a run; empty where it does not count, as in the results."""
    if record.capacity:
        return {"crossing_images_per_s": record.capacity.crossing.rate_per_s if record.capacity.crossing else None}
    asked = asked_load(study.plan, record)
    if not asked or not samples or not record.summary or record.summary.valid_as_a_whole is False:
        return {}
    limits, use = study.plan.disturbance_limits, record.use
    if samples.use.disturbance or (
        limits and use and not samples.use.watched and disturbance(use.machine_shares, limits)
    ):
        return {}
    before_s, after_s = (use.ready.cpu_s, use.end.cpu_s) if use else (None, None)
    cpu_s = after_s - before_s if before_s is not None and after_s is not None else None
    return run_figures(samples, duration_s=load_duration_s(record, asked), cpu_s=cpu_s)


def _questions(
    group: str,
    runs: Mapping[str, Mapping[int, Mapping[str, float | None]]],
    plan: PlanFile,
    looks: Mapping[str, Sequence[float]],
) -> Iterable[tuple[Key, Question]]:
    for name in asked_in(_scenario(group), plan):
        for a, b in itertools.combinations(plan.engines, 2):
            left, right = runs.get(a, {}), runs.get(b, {})
            yield (
                (f"{group}.{name}", a, b),
                Question(
                    [numbers.get(name) for numbers in left.values()],
                    [numbers.get(name) for numbers in right.values()],
                    FIGURES[name],
                    rounds=(list(left), list(right)),
                    looks=looks.get(group, ()),
                    names=(ENGINE_SHORT[a], ENGINE_SHORT[b]),
                ),
            )
