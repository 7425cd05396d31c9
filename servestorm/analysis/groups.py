"""Groups of runs: the scenario, with the variant where there are several."""

from __future__ import annotations

import itertools

from servestorm.plan.cells import SCENARIOS, Cell, Scenario
from servestorm.plan.labels import SCENARIO_LABELS
from servestorm.rundir.shapes.study import StudyFile, VariantFile


def groups_of(study: StudyFile) -> dict[str, str]:
    """The groups of runs that a study asks for, in order, with their titles."""
    plan = study.plan
    found: dict[str, str] = {}
    for scenario in SCENARIOS:
        if not plan.asked(scenario) or (scenario == "coldstart" and plan.runs_already):
            continue
        variants = study.variants[:1] if scenario == "sweep" else study.variants
        starts_of = itertools.product(plan.page_cache, plan.server_warmup)
        conditions = list(starts_of) if scenario == "coldstart" else [("warm", True)]
        for variant, (cache, warmup) in itertools.product(variants, conditions):
            label = group_label(scenario, variant, cache, warmup)
            title = f"{SCENARIO_LABELS[scenario]} ({label})" if label else SCENARIO_LABELS[scenario]
            found.setdefault(_key(scenario, label), title)
    return found


def group_key(cell: Cell, variant: VariantFile) -> str:
    """What a cell is a run of: 'steady', or 'steady[gRPC, 8 images]' where there are several variants."""
    return _key(cell.scenario, group_label(cell.scenario, variant, cell.page_cache, cell.server_warmup))


def _key(scenario: Scenario, label: str) -> str:
    return f"{scenario}[{label}]" if label else scenario


def group_label(scenario: Scenario, variant: VariantFile, page_cache: str = "warm", server_warmup: bool = True) -> str:
    """What tells a group from the others of its scenario; '' where nothing does."""
    label = variant.server_label if scenario == "coldstart" else variant.label
    cold = "cold page cache" if page_cache == "cold" else ""
    return ", ".join(filter(None, [label, cold, "" if server_warmup else "without warm-up"]))
