"""What the rounds of a study show while it goes on: the questions of its results, by the same functions of methods."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from servestorm.methods.decisions import Decisions, decisions
from servestorm.methods.run_figures import run_figures
from servestorm.methods.samples import Samples
from servestorm.methods.verdict import Better, Question
from servestorm.plan.cells import SCENARIOS, TAKE_TURNS
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.plan.questions import QUESTIONS, group_name, is_asked
from servestorm.rundir.counted_samples import asked_load, load_duration_s, read_counted_samples
from servestorm.rundir.disturbed_runs import load_disturbance, search_disturbance
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.search import CapacityFile
from servestorm.rundir.shapes.study import PlanFile, StudyFile

LOAD_FIGURES: Final[Mapping[str, Better]] = {
    **dict.fromkeys(("p50", "p90", "p95", "p99", "p999", "request_p50", "request_p99", "mean_ms"), "lower"),
    **dict.fromkeys(("cpu_ms_per_image", "failed_percent"), "lower"),
    "images_per_s": "higher",
}
CAPACITY_FIGURES: Final[Mapping[str, Better]] = {"crossing_images_per_s": "higher"}
"""The figures that are judged while a study goes on, and which direction of each is better."""
_OTHERS: Final = Counter(
    scenario
    for scenario in SCENARIOS
    if scenario not in TAKE_TURNS
    for key in QUESTIONS
    if key.startswith(f"{scenario}.")
)
"""How many questions a group of runs has that takes no turns, by its scenario."""

Key = tuple[str, str, str]
"""A metric such as 'steady.p50', and two engines."""
Numbers = Mapping[str, float | None]
"""Of one run, by the names of its figures."""


def live_questions(record: RunRecord, looks: Mapping[str, Sequence[float]]) -> dict[str, dict[Key, Question]]:
    """By group of runs that take turns: its questions, with the runs so far; `looks` are the shares of each group."""
    study = record.study
    numbers: dict[str, dict[str, dict[int, Numbers]]] = {}
    samples = read_counted_samples(record.cells, study.plan)
    for cell in record.cells:
        if cell.complete and cell.cell.scenario in TAKE_TURNS:
            group = numbers.setdefault(_group(cell, study), {})
            figures = _figures(cell, study, samples.get(cell.cell.id))
            if figures:
                group.setdefault(cell.cell.engine, {})[cell.cell.repetition] = figures
    return {group: dict(_questions(group, runs, study.plan, looks)) for group, runs in numbers.items()}


def live_decisions(
    questions: Mapping[str, Mapping[Key, Question]], plan: PlanFile, family: int
) -> dict[str, Decisions[Key]]:
    """By group what is decided, as strictly as the results can be with a family of that size."""
    margin = plan.margin_percent / 100
    return {group: decisions(asked, margin, of=family) for group, asked in questions.items()}


def asked_in(group: str, plan: PlanFile) -> list[str]:
    """Figures of a group of runs that are judged while the study goes on."""
    objectives = {objective.metric for objective in plan.objectives}
    measured = CAPACITY_FIGURES if group.startswith("capacity") else LOAD_FIGURES
    return [name for name in measured if is_asked(f"{group}.{name}", objectives)]


def family_size(study: StudyFile, groups: Iterable[str]) -> int:
    """Questions of the whole study, whose chances to be wrong add up: no fewer than its results have."""
    plan = study.plan
    pairs = len(plan.engines) * (len(plan.engines) - 1) // 2
    live = sum(len(asked_in(group, plan)) for group in groups)
    # cold starts have a group for each condition, and no scenario has more than one for each variant
    conditions = len(plan.page_cache) * len(plan.server_warmup)
    others = [scenario for scenario in _OTHERS if plan.asked(scenario)]
    further = sum(_OTHERS[scenario] * (conditions if scenario == "coldstart" else 1) for scenario in others)
    return pairs * (live + further * len(study.variants) + len(plan.objectives))


def _group(cell: CellRecord, study: StudyFile) -> str:
    return group_name(cell.cell.scenario, study.variants[cell.cell.variant].label)


def _figures(record: CellRecord, study: StudyFile, samples: Samples | None) -> Numbers:
    """The numbers of a run; empty where it does not count, as in the results."""
    if record.capacity:
        return _search_figures(record, record.capacity, study)
    asked = asked_load(study.plan, record)
    if not asked or not samples or not record.summary or not record.summary.valid_as_a_whole:
        return {}
    if load_disturbance(record, study.plan, samples):
        return {}
    cpu_s = record.use.load_cpu_s if record.use else None
    return run_figures(samples, duration_s=load_duration_s(record, asked), cpu_s=cpu_s)


def _search_figures(record: CellRecord, search: CapacityFile, study: StudyFile) -> Numbers:
    if not search.crossing or search_disturbance(record, study.plan):
        return {}
    images = study.variants[record.cell.variant].images_per_request
    return {"crossing_images_per_s": search.crossing.rate_per_s * images}


def _questions(
    group: str,
    runs: Mapping[str, Mapping[int, Numbers]],
    plan: PlanFile,
    looks: Mapping[str, Sequence[float]],
) -> Iterable[tuple[Key, Question]]:
    for name in asked_in(group, plan):
        for a, b in itertools.combinations(plan.engines, 2):
            left, right = runs.get(a, {}), runs.get(b, {})
            yield (
                (f"{group}.{name}", a, b),
                Question(
                    [numbers.get(name) for numbers in left.values()],
                    [numbers.get(name) for numbers in right.values()],
                    {**LOAD_FIGURES, **CAPACITY_FIGURES}[name],
                    rounds=(list(left), list(right)),
                    looks=looks.get(group, ()),
                    names=(ENGINE_SHORT[a], ENGINE_SHORT[b]),
                ),
            )
