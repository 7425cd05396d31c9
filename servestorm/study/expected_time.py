"""How long a study is expected to take: for the progress bar and `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from servestorm.plan.cells import Cell, Variant, by_capacity, variants_of
from servestorm.plan.study_plan import ModelPlan, Plan
from servestorm.study.progress import Step

# seconds from process start to first right answer on one slow core; only the progress bar's first guess
START_GUESS_S = {"torchserve": 12.0, "savedmodel": 7.0, "tfserving": 3.0}


STOP_GUESS_S = 2.0


RELEASE_GUESS_S = 12.0
"""Helm's part, the model's copying, and the pods' end."""


GENERATOR_GUESS_S = 3.0


SETTLE_GUESS_S = 2.0


PROBES_GUESS = 8


METRICS_GUESS_S = 60.0
"""Until an autoscaler has the metrics of pods that are new."""


def expected_s(plan: Plan, cell: Cell) -> float:
    """First guess of a cell's length in seconds, for the progress bar and `--dry-run`."""
    release_s = RELEASE_GUESS_S if plan.backend == "kubernetes" else 0.0
    starting = 0.0 if plan.runs_already else _start_s(plan, cell) + STOP_GUESS_S + release_s
    if cell.scenario == "coldstart":
        return starting + SETTLE_GUESS_S
    if cell.scenario == "autoscaling" and plan.autoscaling:
        starting += METRICS_GUESS_S + plan.autoscaling.watch_after_s
    return starting + loads_of(plan, cell) * (GENERATOR_GUESS_S + load_s(plan, cell))


def _start_s(plan: Plan, cell: Cell) -> float:
    """Seconds until every replica answers: one after the other on one core, but a quota holds each of them back."""
    one_s = START_GUESS_S.get(cell.engine, 10.0)
    quota = plan.limits.cpus if plan.limits and plan.limits.cpus else 1.0
    return one_s * max(cell.replicas, 1 / quota)


def loads_of(plan: Plan, cell: Cell) -> int:
    """How often the generator is likely to start in this cell."""
    if by_capacity(plan, cell):
        assert plan.capacity
        return min(PROBES_GUESS, plan.capacity.most_probes)
    if cell.scenario == "sweep" and plan.sweep:
        return len(plan.sweep.concurrency) * len(plan.sweep.images_per_request)
    return 1


def load_s(plan: Plan, cell: Cell) -> float:
    """Seconds of one load of this cell, warm-up included."""
    if by_capacity(plan, cell):
        assert plan.capacity
        return plan.capacity.probe_s + plan.capacity.warmup_s
    names = ("steady", "bursty", "scaling", "sweep", "autoscaling")
    load = {name: getattr(plan, name) for name in names}[cell.scenario]
    return float(load.duration_s + load.warmup_s)


PREPARE_GUESS_S = 90.0


def steps(plan: Plan, cells: Sequence[Cell], missing: Sequence[ModelPlan]) -> list[Step]:
    """The progress bar's steps."""
    first = [Step(f"train and export {model.name}", "prepare", PREPARE_GUESS_S) for model in missing]
    variants = variants_of(plan)
    return first + [
        Step(title(plan, variants, cell), f"{cell.scenario} {cell.engine}", expected_s(plan, cell)) for cell in cells
    ]


def title(plan: Plan, variants: Sequence[Variant], cell: Cell) -> str:
    """What a cell is, in words: 'TorchServe: steady load 2 of 5 (gRPC)'."""
    runs = {
        "coldstart": plan.cold_starts,
        "scaling": (plan.scaling.repetitions if plan.scaling else None) or plan.repetitions,
        "sweep": plan.sweep.repetitions if plan.sweep else 1,
        "autoscaling": (plan.autoscaling.repetitions if plan.autoscaling else None) or plan.repetitions,
    }
    names = {"coldstart": "cold start", "steady": "steady load", "bursty": "bursty load"}
    text = f"{cell.engine}: {names.get(cell.scenario, cell.scenario)} {cell.repetition} of "
    text += str(runs.get(cell.scenario, plan.repetitions))
    if cell.scenario == "sweep":
        wait = f", {cell.timeout_us} us" if cell.max_batch_size > 1 else ""
        text += f", {cell.threads} threads, batches of {cell.max_batch_size}{wait}"
    if cell.scenario in ("scaling", "sweep"):
        text += f", {cell.replicas} replica{'s' if cell.replicas > 1 else ''}"
    aside = [variants[cell.variant].label, "cold page cache" if cell.page_cache == "cold" else ""]
    told = "; ".join(filter(None, aside))
    return f"{text} ({told})" if told else text
