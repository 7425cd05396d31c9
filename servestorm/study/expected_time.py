"""How long a study is expected to take: for the progress bar and `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from servestorm.plan.budget import LEAST_ROUNDS
from servestorm.plan.cells import TAKE_TURNS, Cell, Variant, loads_of, variants_of
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.plan.training import settings_of
from servestorm.study.progress import ProgressStep
from servestorm.study.scenarios.table import SCENARIO_OUTLOOKS

PREPARE_GUESS_S = 90.0
# seconds from process start to first right answer, or first epoch, on one slow core; only a first guess
START_GUESS_S = {"torchserve": 12.0, "savedmodel": 7.0, "tfserving": 3.0, "keras": 8.0, "torch": 5.0}
STOP_GUESS_S = 2.0
RELEASE_GUESS_S = 12.0
"""Helm's part, the model's copying, and the pods' end."""


def expected_s(plan: Plan, cells: Sequence[Cell]) -> float:
    """First guess of a round's length in seconds, for the progress bar and `--dry-run`; one cell may be a round."""
    release_s = RELEASE_GUESS_S if plan.backend == "kubernetes" else 0.0
    first, *later = loads_of(cells)
    starting = 0.0 if plan.runs_already else sum(_start_s(plan, cell) + STOP_GUESS_S + release_s for cell in first)
    if len(cells) == 1:
        return starting + SCENARIO_OUTLOOKS[cells[0].scenario].expected_s(plan)
    loads_s = _load_s(plan, first, on_warm_servers=False)
    return starting + loads_s + sum(_load_s(plan, load, on_warm_servers=True) for load in later)


def _load_s(plan: Plan, cells: Sequence[Cell], on_warm_servers: bool) -> float:
    return SCENARIO_OUTLOOKS[cells[0].scenario].expected_round_s(plan, len(cells), on_warm_servers)


def _start_s(plan: Plan, cell: Cell) -> float:
    """Seconds until every replica answers: one after the other on one core, but a quota holds each of them back."""
    one_s = START_GUESS_S.get(cell.engine, 10.0)
    quota = plan.limits.cpus if plan.limits and plan.limits.cpus else 1.0
    return one_s * max(cell.replicas, 1 / quota)


def steps(plan: Plan, rounds: Sequence[Sequence[Cell]], missing: Sequence[ModelPlan]) -> list[ProgressStep]:
    """The progress bar's steps."""
    first = [
        ProgressStep(f"train and export {model.name}", "the preparation of a model", PREPARE_GUESS_S)
        for model in missing
    ]
    variants = variants_of(plan)
    return first + [
        ProgressStep(title(plan, variants, cells), _kind(cells), expected_s(plan, cells), _is_optional(plan, cells))
        for cells in rounds
    ]


def _kind(cells: Sequence[Cell]) -> str:
    """What takes about as long: the same scenario of the same engines."""
    return f"{_label(cells)} of {_engines(cells)}"


def _engines(cells: Sequence[Cell]) -> str:
    """'savedmodel and torchserve'."""
    return " and ".join(sorted(cell.engine for cell in loads_of(cells)[0]))


def _label(cells: Sequence[Cell]) -> str:
    """'steady load', or 'steady load and bursty load' of a round with both."""
    return " and ".join(SCENARIO_OUTLOOKS[load[0].scenario].label for load in loads_of(cells))


def _is_optional(plan: Plan, cells: Sequence[Cell]) -> bool:
    """Whether a budget leaves the round out where it would not fit, as `Stopping` does."""
    return plan.budget is not None and cells[0].scenario in TAKE_TURNS and cells[0].repetition > LEAST_ROUNDS


def title(plan: Plan, variants: Sequence[Variant], cells: Sequence[Cell]) -> str:
    """A round's description for a reader: 'savedmodel and torchserve: steady load 2 of 5 (gRPC)'."""
    cell = cells[0]
    scenario = SCENARIO_OUTLOOKS[cell.scenario]
    number = f"{cell.repetition} of {'at most ' if plan.budget and len(cells) > 1 else ''}{scenario.runs(plan)}"
    text = f"{_engines(cells)}: {_label(cells)} {number}{scenario.setting(cell)}"
    details = [_variant_label(plan, variants, cell), "cold page cache" if cell.page_cache == "cold" else ""]
    detail = "; ".join(filter(None, details))
    return f"{text} ({detail})" if detail else text


def _variant_label(plan: Plan, variants: Sequence[Variant], cell: Cell) -> str:
    """What tells the cell's variant, or its training, from others of the plan."""
    if plan.training is None or cell.training is None:
        return variants[cell.variant].label
    return settings_of(plan.training)[cell.training].label
